# SPDX-License-Identifier: Apache-2.0
"""The terminals with real pseudo-terminals, in real time: what a client sees, and what is left when it has gone."""

import asyncio
import contextlib
import fcntl
import os
import select
import stat
import termios
import tty
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from atrund.at.reader import Line
from atrund.atrun.interface import Interface
from atrund.atrun.request import Door, End, Outcome, Reason, Request
from atrund.doors import pseudo, terminal
from atrund.doors.terminal import TRANSITIONS, Event, State, TerminalDoor, TerminalRules
from atrund.instances import Hear
from atrund.run import Run

PATIENCE = 10.0
"""Seconds after which what was waited for counts as missing."""


class Desk:
    """A runner whose runs end when the test says so; those of `at_once` end with OK by themselves."""

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self.at_once = True

    def start(self, request: Request, also: None = None, refused: Outcome | None = None) -> Run:
        run = Run(request, also, refused)
        self.runs.append(run)
        if refused is not None:
            self.end(run, refused)
        elif self.at_once:
            self.end(run)
        return run

    @staticmethod
    def end(run: Run, outcome: Outcome | None = None, *lines: str) -> None:
        for number, text in enumerate(lines):
            run.put(Line(text, lead=number == 0))
        run.outcome.set_result(outcome or Outcome(End.OK, final="OK"))
        run.put(None)

    @property
    def lines(self) -> list[str]:
        return [run.request.line for run in self.runs]


class Ears:
    """The listeners of instance 2."""

    def __init__(self) -> None:
        self.hearing: list[Hear] = []

    @contextlib.contextmanager
    def listening(self, instance: int, hear: Hear) -> Iterator[None]:
        assert instance == 2
        self.hearing.append(hear)
        try:
            yield
        finally:
            self.hearing.remove(hear)

    def say(self, *lines: str) -> None:
        for hear in self.hearing:
            hear(lines)


class House:
    """A door with one terminal, at `link`, for instance 2."""

    def __init__(self, folder: Path, **rules: Any) -> None:  # noqa: ANN401 - any rule
        self.link = folder / "at2"
        self.desk = Desk()
        self.instances = Ears()
        self.interface = Interface()
        given = TerminalRules(**{"links": ((2, self.link),), "group": "", **rules})
        self.door = TerminalDoor(
            given,
            runner=cast("Any", self.desk),
            instances=cast("Any", self.instances),
            interface=lambda _: self.interface,
        )

    @property
    def port(self) -> pseudo.PseudoTerminal:
        port = self.door._terminals[2]._tty
        assert port is not None
        return port


class Client:
    """A program that has the terminal open."""

    def __init__(self, link: Path, flags: int = os.O_RDWR) -> None:
        self.descriptor = os.open(link, flags | os.O_NOCTTY | os.O_NONBLOCK)

    def write(self, data: bytes) -> None:
        assert os.write(self.descriptor, data) == len(data)

    def look(self) -> bytes:
        """What can be read now."""
        found = b""
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(self.descriptor, 65536):
                found += piece
        return found

    async def read(self, end: bytes) -> bytes:
        found = b""
        async with asyncio.timeout(PATIENCE):
            while not found.endswith(end):
                await asyncio.sleep(0.001)
                found += self.look()
        return found

    async def ask(self, line: bytes, end: bytes = b"\r\nOK\r\n") -> bytes:
        self.write(line)
        return await self.read(end)

    def close(self) -> None:
        os.close(self.descriptor)


async def until(look: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not look():  # noqa: ASYNC110 - many things are looked at
            await asyncio.sleep(0.001)


def content(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def settled() -> None:
    """Let everything that is on its way arrive."""
    await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def door(folder: Path, **rules: Any) -> AsyncIterator[House]:  # noqa: ANN401 - any rule
    house = House(folder, **rules)
    await house.door.start()
    try:
        yield house
    finally:
        await house.door.close()
        await settled()


@contextlib.asynccontextmanager
async def client(house: House) -> AsyncIterator[Client]:
    one = Client(house.link)
    try:
        yield one
    finally:
        with contextlib.suppress(OSError):
            one.close()


async def test_a_command(tmp_path: Path) -> None:
    async with door(tmp_path, timeout=77.0) as house:
        house.desk.at_once = False
        async with client(house) as one:
            one.write(b"AT+CSQ\r")
            await until(lambda: house.desk.runs)
            house.desk.end(house.desk.runs[0], None, "+CSQ: 17,0")
            assert await one.read(b"OK\r\n") == b"AT+CSQ\r\r\n+CSQ: 17,0\r\n\r\nOK\r\n"
        request = house.desk.runs[0].request
        assert (request.door, request.peer, request.instance) == (Door.LOCAL, "terminal 2", 2)
        assert (request.line, request.timeout) == ("AT+CSQ", 77.0)


async def test_lines_are_shown_as_they_come(tmp_path: Path) -> None:
    async with door(tmp_path) as house:
        house.desk.at_once = False
        async with client(house) as one:
            one.write(b"ATE0\r")
            await until(lambda: house.desk.runs)
            house.desk.runs[0].put(Line("first", lead=True))
            assert await one.read(b"first\r\n") == b"ATE0\r\r\nfirst\r\n"
            house.desk.end(house.desk.runs[0])
            assert await one.read(b"OK\r\n") == b"\r\nOK\r\n"


async def test_what_an_instance_has_set(tmp_path: Path) -> None:
    async with door(tmp_path) as house:
        house.interface = Interface().with_values("E", (0,)).with_values("V", (0,)).with_values("S3", (ord(";"),))
        async with client(house) as one:
            assert await one.ask(b"AT+CSQ;", b"0;") == b"0;"
        house.interface = Interface().with_values("Q", (1,))
        async with client(house) as one:
            one.write(b"AT\r")
            await until(lambda: len(house.desk.runs) == 2)
            await settled()
            assert one.look() == b"AT\r"


async def test_what_a_line_changes_counts_for_the_next_in_the_same_packet(tmp_path: Path) -> None:
    async with door(tmp_path) as house:
        house.desk.at_once = False
        async with client(house) as one:
            one.write(b"ATE0\rAT\r")
            await until(lambda: house.desk.runs)
            house.interface = Interface().with_values("E", (0,))
            house.desk.end(house.desk.runs[0])
            await until(lambda: len(house.desk.runs) == 2)
            house.desk.end(house.desk.runs[1])
            assert await one.read(b"OK\r\n\r\nOK\r\n") == b"ATE0\r\r\nOK\r\n\r\nOK\r\n"


async def test_line_editing_and_a_slash(tmp_path: Path) -> None:
    async with door(tmp_path) as house, client(house) as one:
        await one.ask(b"AT+CSX\x08Q\r")
        one.write(b"A/")
        assert await one.read(b"OK\r\n") == b"A/\r\nOK\r\n"
        assert house.desk.lines == ["AT+CSQ", "AT+CSQ"]


@pytest.mark.parametrize("noise", [b"\r", b"\n", b"hello\r", b"\r\nOK\r\n", b"> \r", b"x" * 5000 + b"\r", b"\xe1t\r"])
async def test_what_does_not_begin_with_at_is_not_answered(tmp_path: Path, noise: bytes) -> None:
    """V.250 5.2.1; an answer to it would let two that echo each other go on for ever."""
    async with door(tmp_path) as house, client(house) as one:
        answer = await one.ask(noise + b"AT\r")
        assert house.desk.lines == ["AT"]
        assert answer.count(b"\r\nOK\r\n") == 1
        assert b"ERROR" not in answer


@pytest.mark.parametrize("leave", [b"\x1b", b"\x1a", b"\x1b\r", b"\x1b\x1a \t"])
async def test_a_client_may_leave_a_prompt_first(tmp_path: Path, leave: bytes) -> None:
    """gammu and smstools do, for one that an earlier client may have left open."""
    async with door(tmp_path) as house, client(house) as one:
        await one.ask(leave + b"at\r")
        assert house.desk.lines == ["at"]


async def test_a_line_over_the_cap_is_not_run_in_part(tmp_path: Path) -> None:
    async with door(tmp_path) as house, client(house) as one:
        await one.ask(b"AT" + b"A" * 4000 + b"\r")
        assert 2048 < len(house.desk.lines[0]) < 2100


async def test_input_while_a_command_runs_waits(tmp_path: Path) -> None:
    async with door(tmp_path) as house:
        house.desk.at_once = False
        async with client(house) as one:
            one.write(b"AT+COPS=?\r")
            await until(lambda: house.desk.runs)
            one.write(b"\rAT+CSQ\r")
            await settled()
            assert house.desk.lines == ["AT+COPS=?"]
            assert one.look() == b"AT+COPS=?\r"
            house.desk.end(house.desk.runs[0])
            await until(lambda: len(house.desk.runs) == 2)
            house.desk.end(house.desk.runs[1])
            assert await one.read(b"AT+CSQ\r\r\nOK\r\n") == (b"\r\nOK\r\n\rAT+CSQ\r\r\nOK\r\n")


async def test_a_client_that_writes_more_than_the_kernel_holds_must_wait(tmp_path: Path) -> None:
    async with door(tmp_path) as house:
        house.desk.at_once = False
        async with client(house) as one:
            one.write(b"AT\r")
            await until(lambda: house.desk.runs)
            written = 1
            with contextlib.suppress(BlockingIOError):
                while written < 1_000_000:
                    written += os.write(one.descriptor, b"AT+CSQ\r" * 100)
            assert written < pseudo.REST_MAX
            assert len(house.door._terminals[2]._input) < pseudo.READ_SIZE


async def test_a_client_that_goes_while_a_command_runs(tmp_path: Path) -> None:
    """The run goes on, as a modem does, and its answer is nobody's."""
    async with door(tmp_path) as house:
        house.desk.at_once = False
        async with client(house) as one:
            one.write(b"AT+COPS=?\r")
            await until(lambda: house.desk.runs)
        await until(lambda: not house.port.present)
        async with client(house) as two:
            await until(lambda: house.port.present)
            two.write(b"AT\r")
            house.desk.runs[0].put(Line("+COPS: of the first"))
            house.desk.end(house.desk.runs[0])
            await until(lambda: len(house.desk.runs) == 2)
            house.desk.end(house.desk.runs[1])
            assert await two.read(b"OK\r\n") == b"AT\r\r\nOK\r\n"
        assert not house.desk.runs[0]._given_up


async def test_lines_of_a_client_that_has_gone_are_run(tmp_path: Path) -> None:
    """`printf 'AT+A\\rAT+B\\rAT+C' >LINK`: whole lines are run in order, half a one is forgotten."""
    async with door(tmp_path) as house:
        house.desk.at_once = False
        async with client(house) as one:
            one.write(b"AT+A\rAT+B\rAT+C\rAT+CFU")
        await until(lambda: house.desk.runs)
        await until(lambda: not house.port.present)
        async with client(house) as two:
            await until(lambda: house.port.present)
            two.write(b"AT+D\r")
            for number in range(4):
                await until(lambda: len(house.desk.runs) > number)  # noqa: B023 - awaited here
                house.desk.end(house.desk.runs[number])
            assert await two.read(b"OK\r\n") == b"AT+D\r\r\nOK\r\n"
        assert house.desk.lines == ["AT+A", "AT+B", "AT+C", "AT+D"]


async def test_nothing_of_a_long_script_is_lost(tmp_path: Path) -> None:
    async with door(tmp_path) as house:
        async with client(house) as one:
            one.write(b"".join(b"AT+X%d\r" % number for number in range(1000)))
        await until(lambda: len(house.desk.runs) == 1000)
        assert house.desk.lines == [f"AT+X{number}" for number in range(1000)]


async def test_lines_of_clients_that_have_gone_have_a_cap(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with door(tmp_path) as house:
        house.desk.at_once = False
        async with client(house) as one:
            one.write(b"AT+X\r")
            await until(lambda: house.desk.runs)
        for number in range(20):
            await until(lambda: not house.port.present)
            async with client(house) as one:
                await until(lambda: house.port.present)
                one.write(b"AT+%d\rA/" % number * 500)
        await until(lambda: not house.port.present)
        kept = house.door._terminals[2]._lines
        assert sum(len(line) + 1 for line, _ in kept) <= terminal.KEPT_MAX
        assert "not run: too many wait" in capsys.readouterr().out
        first = [line for line, _ in kept]
        house.desk.at_once = True
        house.desk.end(house.desk.runs[0])
        async with client(house) as one:
            assert await one.ask(b"AT\r") == b"AT\r\r\nOK\r\n"
        assert house.desk.lines == ["AT+X", *first, "AT"]


@pytest.mark.parametrize("noticed", [True, False])
async def test_half_a_line_is_forgotten_with_its_client(tmp_path: Path, *, noticed: bool) -> None:
    async with door(tmp_path) as house:
        async with client(house) as one:
            await one.ask(b"AT+SECRET\rAT+CFUN=", b"AT+CFUN=")
        if noticed:
            await until(lambda: not house.port.present)
        async with client(house) as two:  # so quick that the door sees both at once, if it has not looked yet
            await two.ask(b"4\rAT\r")
            two.write(b"A/")
            await two.read(b"OK\r\n")
        assert house.desk.lines == ["AT+SECRET", "AT", "AT"]


@pytest.mark.parametrize("noticed", [True, False])
async def test_a_new_client_is_not_shown_what_another_left_unread(tmp_path: Path, *, noticed: bool) -> None:
    async with door(tmp_path) as house:
        house.desk.at_once = False
        async with client(house) as one:
            one.write(b"AT\r")
            await until(lambda: house.desk.runs)
            house.desk.end(house.desk.runs[0], None, *["x" * 1000] * (80 if noticed else 3))
            await settled()
        if noticed:
            await until(lambda: not house.port.present)
        house.desk.at_once = True
        async with client(house) as two:  # so quick that the door sees both at once, if it has not looked yet
            await settled()
            assert await two.ask(b"AT+CSQ\r") == b"AT+CSQ\r\r\nOK\r\n"


async def test_unsolicited_codes(tmp_path: Path) -> None:
    async with door(tmp_path) as house:
        house.instances.say("RING")  # nobody is there
        async with client(house) as one:
            await until(lambda: house.port.present)
            await settled()
            assert one.look() == b""
            house.instances.say("+CMT: ,24", "0791")
            assert await one.read(b"0791\r\n") == b"\r\n+CMT: ,24\r\n0791\r\n"
        await until(lambda: not house.port.present)
        house.instances.say("RING")
        assert not house.instances.hearing
        async with client(house) as two:
            await two.ask(b"AT\r")
            house.instances.say("NO CARRIER")
            assert await two.read(b"CARRIER\r\n") == b"\r\nNO CARRIER\r\n"


async def test_an_unsolicited_code_waits_for_the_final_result(tmp_path: Path) -> None:
    async with door(tmp_path) as house:
        house.desk.at_once = False
        async with client(house) as one:
            one.write(b"AT+CSQ\r")
            await until(lambda: house.desk.runs)
            house.desk.runs[0].put(Line("+CSQ: 17,0", lead=True))
            house.instances.say("RING")
            await settled()
            house.desk.end(house.desk.runs[0])
            assert await one.read(b"RING\r\n") == b"AT+CSQ\r\r\n+CSQ: 17,0\r\n\r\nOK\r\n\r\nRING\r\n"


async def test_an_instance_that_a_service_holds(tmp_path: Path) -> None:
    """CMD-3: it stays open, answers ERROR to all, and works again."""
    async with door(tmp_path) as house, client(house) as one:
        house.door.hold(2, "TCPATRUN")
        assert house.door.states == {2: "held: TCPATRUN"}
        assert await one.ask(b"AT\r", b"ERROR\r\n") == b"AT\r\r\nERROR\r\n"
        assert house.desk.runs[0].refused == Outcome(End.REJECTED, Reason.HELD, detail="TCPATRUN")
        house.interface = Interface().with_values("+CMEE", (1,))
        assert await one.ask(b"AT\r", b"2\r\n") == b"AT\r\r\n+CME ERROR: 2\r\n"
        house.door.release(2)
        assert house.door.states == {2: "in use"}
        await one.ask(b"AT\r")
        house.door.hold(3, "an instance without a terminal")


async def test_what_runs_when_a_service_takes_the_instance_ends(tmp_path: Path) -> None:
    async with door(tmp_path) as house, client(house) as one:
        house.desk.at_once = False
        one.write(b"AT+CSQ\rAT\r")
        await until(lambda: house.desk.runs)
        house.door.hold(2, "SMSATRUN")
        house.desk.end(house.desk.runs[0], None, "+CSQ: 17,0")
        assert b"+CSQ: 17,0\r\n\r\nOK\r\nAT\r\r\nERROR\r\n" in await one.read(b"ERROR\r\n")


async def test_rights_and_the_raw_state(tmp_path: Path) -> None:
    async with door(tmp_path, mode=0o640) as house:
        assert house.link.is_symlink()
        found = house.link.stat()
        assert stat.S_ISCHR(found.st_mode)
        assert stat.S_IMODE(found.st_mode) == 0o640
        assert found.st_uid == os.geteuid()
        async with client(house) as one:
            flags = termios.tcgetattr(one.descriptor)
            assert not flags[3] & (termios.ECHO | termios.ICANON | termios.ISIG)
            assert not flags[0] & (termios.ICRNL | termios.IXON)
            assert not flags[1] & termios.OPOST


async def test_the_group(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can give a file to any group")
    async with door(tmp_path, group="daemon") as house:
        assert house.link.group() == "daemon"


async def test_a_group_that_does_not_exist(tmp_path: Path) -> None:
    house = House(tmp_path, group="no-such-group")
    with pytest.raises(OSError, match=r"local\.terminal_group: there is no group 'no-such-group'"):
        await house.door.start()
    assert not house.link.is_symlink()


async def test_a_group_that_the_daemon_is_not_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "fchown", refuse)
    house = House(tmp_path, group="daemon")
    with pytest.raises(OSError, match="the daemon is not in group"):
        await house.door.start()
    assert not house.link.is_symlink()


async def test_a_terminal_is_raw_again_for_the_next_client(tmp_path: Path) -> None:
    """`stty sane` is meant for a person's terminal, and would make answers of commands."""
    async with door(tmp_path) as house:
        async with client(house) as one:
            flags = termios.tcgetattr(one.descriptor)
            flags[3] |= termios.ICANON | termios.ECHO
            flags[1] |= termios.OPOST
            termios.tcsetattr(one.descriptor, termios.TCSANOW, flags)
            await until(lambda: house.port.present)
        await until(lambda: not house.port.present)
        async with client(house) as two:
            flags = termios.tcgetattr(two.descriptor)
            assert not flags[3] & (termios.ECHO | termios.ICANON)
            assert not flags[1] & termios.OPOST


async def test_a_client_whose_terminal_echoes_is_not_answered_for_ever(tmp_path: Path) -> None:
    async with door(tmp_path) as house, client(house) as one:
        tty.setraw(one.descriptor)
        flags = termios.tcgetattr(one.descriptor)
        flags[3] |= termios.ECHO
        termios.tcsetattr(one.descriptor, termios.TCSANOW, flags)
        await one.ask(b"AT\r")
        await settled()
        assert house.desk.lines == ["AT"]


async def test_exclusive_use_ends_with_the_client(tmp_path: Path) -> None:
    async with door(tmp_path) as house:
        async with client(house) as one:
            fcntl.ioctl(one.descriptor, termios.TIOCEXCL)
            await until(lambda: house.port.present)
        await until(lambda: not house.port.present)
        async with client(house) as two:
            assert fcntl.ioctl(two.descriptor, _TIOCGEXCL, b"\0\0\0\0") == b"\0\0\0\0"
            await two.ask(b"AT\r")


_TIOCGEXCL = 0x80045440


async def test_exclusive_use_that_only_root_could_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another pseudo-terminal takes its place, under the same link."""
    real = os.open

    async with door(tmp_path) as house:
        before = house.link.readlink()

        def refuse(path: Any, *rest: Any) -> int:  # noqa: ANN401 - whatever os.open takes
            if str(path) == str(before):
                raise OSError(16, "Device or resource busy")
            return real(path, *rest)

        async with client(house) as one:
            await one.ask(b"AT\r")
            monkeypatch.setattr(os, "open", refuse)
        await until(lambda: not house.port.present)
        monkeypatch.undo()
        async with client(house) as two:
            await two.ask(b"AT\r")
    assert not house.link.is_symlink()


async def test_a_link_that_can_not_be_made_anew_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    async with door(folder) as house:
        async with client(house) as one:
            await one.ask(b"AT\r")
            monkeypatch.setattr(os, "openpty", _no_more)
            real = os.open
            name = str(house.link.readlink())
            monkeypatch.setattr(os, "open", lambda path, *rest: _busy() if str(path) == name else real(path, *rest))
        await until(lambda: "terminal lost" in capsys.readouterr().out)
        monkeypatch.undo()
        assert house.door.states == {2: "free"}


def _no_more() -> None:
    raise OSError(28, "No space left on device")


def _busy() -> int:
    raise OSError(16, "Device or resource busy")


async def test_several_clients_at_once(tmp_path: Path) -> None:
    """`cat LINK & echo AT >LINK`: what one writes the other reads, and it is one visit as long as one is there."""
    async with door(tmp_path) as house:
        house.desk.at_once = False
        async with client(house) as reader:
            writer = Client(house.link, os.O_WRONLY)
            writer.write(b"AT\r")
            writer.close()
            await until(lambda: house.desk.runs)
            await settled()
            house.desk.end(house.desk.runs[0])
            assert await reader.read(b"OK\r\n") == b"AT\r\r\nOK\r\n"
            assert house.port.present


async def test_a_client_that_does_not_read_holds_up_nothing_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pseudo, "PATIENCE", 0.05)
    async with door(tmp_path) as house:
        house.desk.at_once = False
        async with client(house) as one:
            for number in range(3):
                one.write(b"AT\r")
                await until(lambda: len(house.desk.runs) > number)  # noqa: B023 - awaited here
                house.desk.end(house.desk.runs[number], None, *["x" * 1000] * 100)
                await until(lambda: house.door._terminals[2]._state is State.COMMAND)
                assert len(house.port._backlog) <= pseudo.BACKLOG_MAX
            assert capsys.readouterr().out.count("output dropped") == 1
            for _ in range(100):
                house.instances.say("#URC: " + "y" * 1000)
            await settled()
            assert len(house.port._backlog) <= pseudo.BACKLOG_MAX
            one.look()
            await settled()
            one.look()
            house.desk.at_once = True
            assert (await one.ask(b"AT\r")).endswith(b"AT\r\r\nOK\r\n")


async def test_unsolicited_codes_for_one_that_does_not_read_have_a_cap(tmp_path: Path) -> None:
    async with door(tmp_path) as house, client(house) as one:
        await one.ask(b"AT\r")
        for _ in range(200):
            house.instances.say("#URC: " + "y" * 1000)
        await settled()
        assert 0 < len(house.port._backlog) <= pseudo.BACKLOG_MAX


async def test_a_slow_reader_gets_all_of_it(tmp_path: Path) -> None:
    async with door(tmp_path) as house:
        house.desk.at_once = False
        async with client(house) as one:
            one.write(b"AT\r")
            await until(lambda: house.desk.runs)
            house.desk.end(house.desk.runs[0], None, *[f"{number:04}" + "x" * 996 for number in range(500)])
            answer = await one.read(b"\r\nOK\r\n")
            assert [f"{number:04}".encode() in answer for number in range(500)] == [True] * 500
            assert len(answer) == 500 * 1002 + len("AT\r" + "\r\n" + "\r\nOK\r\n")


@pytest.mark.parametrize("mode", [0, 0o620, 0o660], ids=["nobody's", "a login's", "another daemon's"])
async def test_a_link_that_a_daemon_left_is_replaced(tmp_path: Path, mode: int) -> None:
    """A name that was given to somebody else since is no reason to stay away from it."""
    other, slave = os.openpty()
    os.fchmod(slave, mode)
    (tmp_path / "at2").symlink_to(os.ttyname(slave) if mode else "/dev/pts/999999")
    try:
        async with door(tmp_path) as house, client(house) as one:
            await one.ask(b"AT\r")
        assert not (tmp_path / "at2").is_symlink()
    finally:
        os.close(other)
        os.close(slave)


async def test_a_link_that_another_daemon_serves(tmp_path: Path) -> None:
    async with door(tmp_path) as house:
        second = House(tmp_path)
        with pytest.raises(OSError, match="another daemon serves it already"):
            await second.door.start()
        await second.door.close()
        async with client(house) as one:
            await one.ask(b"AT\r")


@pytest.mark.parametrize("what", ["file", "folder", "other link"])
async def test_what_is_no_link_of_ours_is_not_touched(tmp_path: Path, what: str) -> None:
    link = tmp_path / "at2"
    if what == "file":
        link.write_text("precious")
    elif what == "folder":
        link.mkdir()
    else:
        link.symlink_to("/dev/ttyUSB2")
    house = House(tmp_path)
    with pytest.raises(OSError, match="is left alone"):
        await house.door.start()
    await house.door.close()
    assert link.exists() or link.readlink() == Path("/dev/ttyUSB2")


async def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    house = House(tmp_path / "run")
    with pytest.raises(OSError, match=r"at2: No such file or directory"):
        await house.door.start()


async def test_when_one_can_not_be_made_there_is_none(tmp_path: Path) -> None:
    links = ((1, tmp_path / "at1"), (2, tmp_path / "missing" / "at2"))
    house = House(tmp_path, links=links)
    with pytest.raises(OSError, match="missing/at2"):
        await house.door.start()
    assert content(tmp_path) == []


async def test_a_link_that_someone_replaced_is_not_taken_away(tmp_path: Path) -> None:
    async with door(tmp_path) as house:
        house.link.unlink()
        house.link.symlink_to("/dev/null")
    assert house.link.readlink() == Path("/dev/null")


async def test_a_link_half_made_by_one_that_was_killed(tmp_path: Path) -> None:
    (tmp_path / f".at2.{os.getpid()}").symlink_to("/dev/pts/999999")
    async with door(tmp_path) as house:
        assert house.link.exists()
        assert content(tmp_path) == ["at2"]


async def test_a_stop_hangs_up(tmp_path: Path) -> None:
    async with door(tmp_path) as house:
        one = Client(house.link)
        await one.ask(b"AT\r")
        house.desk.at_once = False
        one.write(b"AT+COPS=?\r")
        await until(lambda: len(house.desk.runs) == 2)
    with pytest.raises(OSError, match="Input/output error"):
        one.write(b"AT\r")
    one.close()
    assert not house.link.is_symlink()
    await house.door.close()


async def test_no_descriptor_is_left(tmp_path: Path) -> None:
    async with door(tmp_path):
        pass
    before = len(content(Path("/proc/self/fd")))
    for _ in range(5):
        async with door(tmp_path) as house:
            for _ in range(3):
                async with client(house) as one:
                    await one.ask(b"AT\r")
                await until(lambda: not house.port.present)
    assert len(content(Path("/proc/self/fd"))) == before


async def test_nobody_there_costs_no_turn_of_the_loop(tmp_path: Path) -> None:
    async with door(tmp_path) as house:
        async with client(house) as one:
            await one.ask(b"AT\r")
        await until(lambda: not house.port.present)
        await settled()
        loop = asyncio.get_running_loop()
        turns = 0
        real = loop._selector.select  # type: ignore[attr-defined]

        def count(timeout: float | None) -> object:
            nonlocal turns
            turns += 1
            return real(timeout)

        loop._selector.select = count  # type: ignore[attr-defined]
        await asyncio.sleep(0.2)
        loop._selector.select = real  # type: ignore[attr-defined]
        assert turns <= 2


async def test_clients_in_quick_turn(tmp_path: Path) -> None:
    """Each opens, asks, reads its answer and goes, faster than the door looks: none is mistaken for another."""
    async with door(tmp_path) as house:

        def visit(number: int) -> bytes:
            one = os.open(house.link, os.O_RDWR | os.O_NOCTTY)
            try:
                os.write(one, b"AT+X%d\r" % number)
                found = b""
                while not found.endswith(b"OK\r\n"):
                    ready, _, _ = select.select([one], [], [], PATIENCE)
                    assert ready, found
                    found += os.read(one, 4096)
                return found
            finally:
                os.close(one)

        for number in range(200):
            assert await asyncio.to_thread(visit, number) == b"AT+X%d\r\r\nOK\r\n" % number
        assert house.desk.lines == [f"AT+X{number}" for number in range(200)]


def test_every_state_can_be_left_by_a_client() -> None:
    assert set(TRANSITIONS) == set(State)
    assert all(Event.LEFT in row for row in TRANSITIONS.values())
