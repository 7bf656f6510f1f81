# SPDX-License-Identifier: Apache-2.0
"""What the instances asked for is reported by the module, whatever becomes of its settings (CMD-3)."""

import asyncio
import contextlib

import pytest

from atrund.atrun.request import Door, Request
from tests.support.virtual import House, running

pytestmark = pytest.mark.looptime


async def ask(house: House, line: str, instance: int = 1) -> str:
    request = Request(rid=f"{line}{instance}", door=Door.LOCAL, peer="uid 0", line=line, instance=instance)
    outcome = await house.daemon.runner.start(request).outcome
    assert outcome is not None
    return outcome.framed


def sent(house: House) -> list[str]:
    return [line for line in house.wire.seen if line.startswith("AT+CREG=")]


async def test_the_module_has_the_union_of_what_was_asked() -> None:
    async with running() as house:
        await ask(house, "AT+CREG=1", 1)
        await ask(house, "AT+CREG=2", 2)
        await ask(house, "AT+CREG=0", 1)
        assert sent(house) == ["AT+CREG=1", "AT+CREG=2"]
        assert "+CREG: 0,1\r\n" in await ask(house, "AT+CREG?", 1)


async def test_after_its_set_up_it_has_it_again() -> None:
    async with running() as house:
        await ask(house, "AT+CREG=2")
        house.wire.lose()
        await asyncio.sleep(60)
        assert house.daemon.module.state.usable
        assert sent(house) == ["AT+CREG=2"]


async def test_a_profile_that_is_loaded_changes_it() -> None:
    async with running() as house:
        await ask(house, "AT+CREG=2")
        await ask(house, "AT&F")
        await asyncio.sleep(1)
        assert sent(house) == ["AT+CREG=2", "AT+CREG=0"]


async def test_each_instance_sees_what_it_asked_for() -> None:
    async with running() as house:
        heard: dict[int, list[tuple[str, ...]]] = {1: [], 2: [], 3: []}
        with contextlib.ExitStack() as stack:
            for number, told in heard.items():
                stack.enter_context(house.daemon.instances.listening(number, told.append))
            await ask(house, "AT+CREG=1", 1)
            await ask(house, "AT+CREG=2", 2)
            house.daemon.modem.fanout.publish(('+CREG: 5,"00DE","0938F20",7',))
            house.daemon.modem.fanout.publish(("RING",))
            await asyncio.sleep(1)
        assert heard[1] == [("+CREG: 5",), ("RING",)]
        assert heard[2] == [('+CREG: 5,"00DE","0938F20",7',), ("RING",)]
        assert heard[3] == [("RING",)]
