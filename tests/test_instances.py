# SPDX-License-Identifier: Apache-2.0
"""CMD-3: who hears what unasked."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from atrund.config.values import Sms
from tests.support.asking import said
from tests.support.virtual import House, config, running
from tests.support.waiting import ready

pytestmark = pytest.mark.looptime

Heard = list[tuple[int, tuple[str, ...]]]


@asynccontextmanager
async def hearing() -> AsyncIterator[tuple[House, Heard]]:
    """Listen on every instance, twice on the third."""
    heard: Heard = []
    async with running(config(sms=Sms())) as house:
        await ready(house)
        instances = house.daemon.instances
        with (
            instances.listening(1, lambda lines: heard.append((1, lines))),
            instances.listening(2, lambda lines: heard.append((2, lines))),
            instances.listening(3, lambda lines: heard.append((3, lines))),
            instances.listening(3, lambda lines: heard.append((3, lines))),
        ):
            yield house, heard


async def urc(house: House, text: str) -> None:
    assert house.wire.end is not None
    house.wire.end.say(f"\r\n{text}\r\n".encode())
    await asyncio.sleep(1)


async def test_a_report_goes_to_those_who_asked_for_it_as_they_asked() -> None:
    async with hearing() as (house, heard):
        await said(house, "AT+CREG=2", instance=1)
        await said(house, "AT+CREG=1", instance=2)
        await urc(house, '+CREG: 1,"00A1","0000B2C3"')
        assert heard == [(1, ('+CREG: 1,"00A1","0000B2C3"',)), (2, ("+CREG: 1",))]
        await said(house, "AT+CREG=0", instance=1)
        heard.clear()
        await urc(house, "+CREG: 2")
        assert heard == [(2, ("+CREG: 2",))]


@pytest.mark.parametrize("text", ["RING", "#SOMETHING: new", "NO CARRIER: 3"])
async def test_what_nobody_sets_goes_to_all(text: str) -> None:
    async with hearing() as (house, heard):
        await urc(house, text)
        assert heard == [(number, (text,)) for number in (1, 2, 3, 3)]


async def test_who_left_hears_nothing_more_and_the_others_go_on() -> None:
    async with hearing() as (house, heard):
        left: list[tuple[str, ...]] = []
        with house.daemon.instances.listening(1, left.append):
            await urc(house, "RING")
        await urc(house, "RING")
        assert len(left) == 1
        assert heard.count((1, ("RING",))) == 2


async def test_a_listener_that_leaves_while_it_is_told_harms_nobody() -> None:
    async with hearing() as (house, heard):
        leaving = contextlib.ExitStack()
        leaving.enter_context(house.daemon.instances.listening(2, lambda _: leaving.close()))
        await urc(house, "RING")
        await urc(house, "RING")
        assert heard.count((2, ("RING",))) == 2
        assert not house.daemon.failed.done()


async def test_a_services_own_code_goes_to_one_instance() -> None:
    async with hearing() as (house, heard):
        house.daemon.instances.say(2, "#SMSATRUN: AT+CSQ")
        assert heard == [(2, ("#SMSATRUN: AT+CSQ",))]
