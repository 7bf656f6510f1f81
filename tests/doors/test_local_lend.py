# SPDX-License-Identifier: Apache-2.0
"""Lending the port over the control socket: to whom, how long, and what becomes of those who ask meanwhile."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from atrund import control
from atrund.atrun.request import Door, Request
from atrund.config.values import Local, Sms
from atrund.doors import local as room
from atrund.doors.local import lends_nothing
from atrund.doors.rights import Peer
from atrund.module.port import PortError
from atrund.sim.faults import Plant
from tests.support.virtual import House, config, running
from tests.support.waiting import ready, status

pytestmark = pytest.mark.looptime

WHO = f"uid {os.getuid()}"


class Client:
    """A connection to the control socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def ask(self, request: control.Request) -> control.Answer:
        self._writer.write(control.encode(request))
        return await self.hear()

    async def hear(self) -> control.Answer:
        return control.decode_answer(await self._reader.readline())

    async def go(self) -> None:
        self._writer.transport.abort()
        await asyncio.sleep(0.1)


@asynccontextmanager
async def door(path: Path, command_group: str = "") -> AsyncIterator[House]:
    local = Local(socket=path, command_group=command_group)
    async with running(config(local=local, sms=Sms()), until=None) as house:
        await ready(house)
        yield house


async def connect(path: Path) -> Client:
    return Client(*await asyncio.open_unix_connection(path))


async def state(house: House) -> str:
    module = (await status(house))["module"]
    return f"{module['state']}: {module['detail']}"


async def outcome(house: House, line: str) -> tuple[str, str | None, str]:
    found = await house.daemon.runner.start(Request(rid=line, door=Door.LOCAL, peer="p", line=line)).outcome
    assert found is not None
    return found.end.value, found.reason.value if found.reason else None, found.detail


async def test_as_long_as_the_connection_lasts(tmp_path: Path) -> None:
    async with door(tmp_path / "s") as house:
        client = await connect(tmp_path / "s")
        assert await client.ask(control.LendRequest(600)) == control.LentAnswer("/dev/virtual")
        assert await state(house) == f"lent: lent to {WHO} for at most 600 s"
        assert house.daemon._status_line().startswith(f"module lent: lent to {WHO}")
        assert await outcome(house, "AT+CSQ") == ("rejected", "busy", f"the port is lent to {WHO}")
        assert (await outcome(house, "AT#ENAEVMONI?"))[0] == "ok", "the daemon's own need no port"
        other = await connect(tmp_path / "s")
        again = control.ErrorAnswer(f"the port is lent to {WHO} already")
        assert await other.ask(control.LendRequest()) == again
        assert await other.ask(control.LendRequest()) == again
        assert await client.ask(control.LendRequest()) == control.ErrorAnswer(
            "the port was asked for already on this connection"
        )
        await client.go()
        await ready(house)
        assert (await outcome(house, "AT+CSQ"))[0] == "ok"
        assert isinstance(await other.ask(control.LendRequest(1)), control.LentAnswer)
        assert await other.hear() == control.LentAnswer("/dev/virtual", over=True)
        await other.go()
        await ready(house)
        assert [one for one in house.told if one[0].startswith("port ")] == [
            ("port lent", "/dev/virtual, for at most 600 s"),
            ("port given back", None),
            ("port lent", "/dev/virtual, for at most 1 s"),
            ("port wanted back", "its time is over"),
            ("port given back", None),
        ]


async def test_who_waits_is_told_that_the_port_is_lent(tmp_path: Path) -> None:
    async with door(tmp_path / "s") as house:
        house.module.faults.plant("AT+CGMI", Plant(seconds=4))
        running_ = asyncio.create_task(outcome(house, "AT+CGMI"))
        await asyncio.sleep(1)
        waiting = asyncio.create_task(outcome(house, "AT+CSQ"))
        client = await connect(tmp_path / "s")
        assert isinstance(await client.ask(control.LendRequest()), control.LentAnswer)
        assert (await running_)[0] == "ok"
        assert (await waiting)[:2] == ("rejected", "busy")
        await client.go()


async def test_who_goes_before_it_is_lent_has_borrowed_nothing(tmp_path: Path) -> None:
    async with door(tmp_path / "s") as house:
        house.module.faults.plant("AT+CGMI", Plant(seconds=4))
        running_ = asyncio.create_task(outcome(house, "AT+CGMI"))
        await asyncio.sleep(1)
        client = await connect(tmp_path / "s")
        asking = asyncio.create_task(client.ask(control.LendRequest()))
        await asyncio.sleep(1)
        asking.cancel()
        await client.go()
        assert (await running_)[0] == "ok"
        await asyncio.sleep(5)
        assert (await outcome(house, "AT+CSQ"))[0] == "ok"


async def test_it_needs_the_right_to_run_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "peer_of", lambda _: Peer(4711, frozenset()))
    async with door(tmp_path / "s", command_group="root") as house:
        client = await connect(tmp_path / "s")
        answer = await client.ask(control.LendRequest())
        assert isinstance(answer, control.ErrorAnswer)
        assert answer.message.startswith("running commands is for the group root")
        assert (await state(house)).startswith("ready")
        await client.go()


async def test_where_there_is_nothing_to_lend() -> None:
    with pytest.raises(PortError, match="nothing is lent here"):
        await lends_nothing("uid 0", 1)
