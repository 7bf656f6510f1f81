# SPDX-License-Identifier: Apache-2.0
"""Prompts at a terminal, in virtual time, with the module behind it (REQ-6)."""

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from atrund.config.values import Sms
from atrund.doors.terminal import TRANSITIONS, Event, State, TerminalDoor, TerminalRules
from tests.support.virtual import House, config, running
from tests.support.waiting import ready, until

pytestmark = pytest.mark.looptime

TO = 'AT+CMGS="+393461234567"'
FILE = random.Random(1).randbytes(60_000)  # noqa: S311 - no secret
PATIENCE = 1000.0


@dataclass
class Desk:
    """A program that has the terminal open."""

    house: House
    link: Path
    descriptor: int

    async def write(self, data: bytes) -> None:
        async with asyncio.timeout(PATIENCE):
            while data:
                with contextlib.suppress(BlockingIOError):
                    data = data[os.write(self.descriptor, data) :]
                await asyncio.sleep(0.01)

    async def read(self, end: bytes) -> bytes:
        found = b""
        async with asyncio.timeout(PATIENCE):
            while not found.endswith(end):
                await asyncio.sleep(0.01)
                with contextlib.suppress(BlockingIOError):
                    found += os.read(self.descriptor, 65536)
        return found

    async def ask(self, typed: bytes, end: bytes = b"\r\nOK\r\n") -> bytes:
        await self.write(typed)
        return await self.read(end)

    async def to_a_text(self) -> None:
        await self.ask(b"AT+CMGF=1\r")
        await self.ask(f"{TO}\r".encode(), b"\r\n> ")

    def go(self) -> None:
        os.close(self.descriptor)

    async def come_back(self) -> None:
        self.descriptor = os.open(self.link, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def terminal(folder: Path, timeout: float = 60.0) -> AsyncIterator[Desk]:
    async with running(config(sms=Sms())) as house:
        await ready(house)
        daemon = house.daemon
        rules = TerminalRules(((1, folder / "at1"),), group="", timeout=timeout)
        door = TerminalDoor(rules, runner=daemon.runner, instances=daemon.instances, interface=daemon.own.interface)
        await door.start()
        desk = Desk(house, folder / "at1", -1)
        await desk.come_back()
        try:
            yield desk
        finally:
            with contextlib.suppress(OSError):
                desk.go()
            await door.close()


async def test_a_text(tmp_path: Path) -> None:
    async with terminal(tmp_path) as desk:
        await desk.to_a_text()
        assert await desk.ask(b"hello\x1a") == b"hello\r\n+CMGS: 0\r\n\r\nOK\r\n"
        assert desk.house.sent == [("+393461234567", "hello")]
        assert desk.house.outcomes[-1] == (TO, "ok", None)


async def test_a_text_of_two_lines(tmp_path: Path) -> None:
    async with terminal(tmp_path) as desk:
        desk.house.module.quirks.set("prompt_again", value=True)
        await desk.ask(b"ATE0\r")
        await desk.to_a_text()
        assert await desk.ask(b"one\r", b"> ") == b"\r\n> "
        assert await desk.ask(b"two\x1a") == b"\r\n+CMGS: 0\r\n\r\nOK\r\n"
        assert desk.house.sent == [("+393461234567", "one\rtwo")]


async def test_what_a_script_wrote_at_once(tmp_path: Path) -> None:
    """As on a module's own port: what stands behind the line is its data, and what is behind those, a command."""
    async with terminal(tmp_path) as desk:
        await desk.ask(b"AT+CMGF=1\r")
        shown = await desk.ask(f"{TO}\rhello\x1aAT+GMI\r".encode(), b"Telit\r\n\r\nOK\r\n")
        assert b"\r\n> hello\r\n+CMGS: 0\r\n\r\nOK\r\nAT+GMI\r" in shown
        assert desk.house.sent == [("+393461234567", "hello")]


async def test_what_is_behind_the_data_is_judged(tmp_path: Path) -> None:
    async with terminal(tmp_path) as desk:
        await desk.ask(b'AT#WSCRIPT="a",3\r', b"\r\n>>>")
        shown = await desk.ask(b"abcAT#SHDN\rAT+GMI\r", b"Telit\r\n\r\nOK\r\n")
        assert shown.count(b"ERROR") == 1
        assert desk.house.module.scripts == {"a": b"abc"}
        assert "AT#SHDN" not in desk.house.wire.seen


async def test_a_text_that_is_given_up(tmp_path: Path) -> None:
    async with terminal(tmp_path) as desk:
        await desk.to_a_text()
        assert await desk.ask(b"hello\x1b", b"ERROR\r\n") == b"hello\r\nERROR\r\n"
        await desk.ask(b"AT\r")
        assert desk.house.sent == []


async def test_a_file_of_60_kilobytes(tmp_path: Path) -> None:
    """A port that takes nothing for a while makes the one who writes wait."""
    async with terminal(tmp_path) as desk:
        await desk.ask(b'AT#WSCRIPT="a.py",60000\r', b"\r\n>>>")
        end = desk.house.wire.end
        assert end is not None
        end.unsent = 1 << 16
        asyncio.get_running_loop().call_later(5, setattr, end, "unsent", 0)
        begun = asyncio.get_running_loop().time()
        assert await desk.ask(FILE) == b"\r\nOK\r\n"
        assert asyncio.get_running_loop().time() - begun > 5
        assert desk.house.module.scripts["a.py"] == FILE


async def test_two_prompts_in_a_line(tmp_path: Path) -> None:
    async with terminal(tmp_path) as desk:
        await desk.ask(b'AT#WSCRIPT="a",2;+CSQ;#WSCRIPT="b",3\r', b"\r\n>>>")
        assert (await desk.ask(b"ab", b"\r\n>>>")).startswith(b"\r\n+CSQ: ")
        assert await desk.ask(b"cde") == b"\r\nOK\r\n"
        assert desk.house.module.scripts == {"a": b"ab", "b": b"cde"}


@pytest.mark.parametrize(
    ("line", "prompt", "left"),
    [(TO, b"\r\n> ", b"\x1b"), ('AT#WSCRIPT="a",500', b"\r\n>>>", bytes(499))],
    ids=["text", "counted"],
)
async def test_a_client_that_goes_leaves_no_prompt(tmp_path: Path, line: str, prompt: bytes, left: bytes) -> None:
    async with terminal(tmp_path) as desk:
        await desk.ask(b"AT+CMGF=1\r")
        await desk.ask(f"{line}\r".encode(), prompt)
        await desk.write(b"x")
        await asyncio.sleep(1)
        desk.go()
        await until(lambda: left in desk.house.wire.written)
        await desk.come_back()
        assert await desk.ask(b"AT+GMI\r") == b"AT+GMI\r\r\nTelit\r\n\r\nOK\r\n"
        assert desk.house.outcomes[-2:] == [(line, "cancelled", None), ("AT+GMI", "ok", None)]
        assert desk.house.sent == []


async def test_a_client_may_go_behind_the_end_of_its_data(tmp_path: Path) -> None:
    async with terminal(tmp_path) as desk:
        await desk.to_a_text()
        os.write(desk.descriptor, b"hello\x1a")
        desk.go()
        await until(lambda: desk.house.sent)
        assert desk.house.sent == [("+393461234567", "hello")]


async def test_a_client_that_is_gone_before_the_prompt(tmp_path: Path) -> None:
    async with terminal(tmp_path) as desk:
        await desk.ask(b"AT+CMGF=1\r")
        os.write(desk.descriptor, f"{TO}\r".encode())
        desk.go()
        await until(lambda: b"\x1b" in desk.house.wire.written)
        await desk.come_back()
        await desk.ask(b"AT\r")
        assert desk.house.outcomes[-2] == (TO, "cancelled", None)


@pytest.mark.parametrize(
    ("line", "prompt"), [(TO, b"\r\n> "), ('AT#WSCRIPT="a",500', b"\r\n>>>")], ids=["text", "counted"]
)
async def test_data_that_never_end_are_left_at_the_deadline(tmp_path: Path, line: str, prompt: bytes) -> None:
    """REQ-7."""
    async with terminal(tmp_path, timeout=30.0) as desk:
        await desk.ask(b"AT+CMGF=1\r")
        begun = asyncio.get_running_loop().time()
        await desk.ask(f"{line}\r".encode(), prompt)
        assert (await desk.ask(b"x", b"ERROR\r\n")).endswith(b"\r\nERROR\r\n")
        assert asyncio.get_running_loop().time() - begun == pytest.approx(30, abs=1)
        assert desk.house.outcomes[-1] == (line, "timeout", None)
        await desk.ask(b"AT\r")


def test_the_table() -> None:
    assert set(TRANSITIONS) == set(State)
    assert all(Event.LEFT in row for row in TRANSITIONS.values())
    assert {to.state for row in TRANSITIONS.values() for to in row.values()} == set(State)
