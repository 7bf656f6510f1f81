# SPDX-License-Identifier: Apache-2.0
"""Real pseudo-terminals, read and written by pyserial as the daemon does, and the program as a whole."""

import asyncio
import contextlib
import errno
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import serial

from atrund.sim.__main__ import main
from atrund.sim.module import SimModule
from atrund.sim.terminal import BACKLOG_CAP, LinkError, PseudoTerminal

TIOCGEXCL = 0x80045440
"""Linux; the library has no name for it."""

PATIENCE = 10.0
"""Seconds that something on a busy machine may take; nothing waits that long when all is well."""


def attach(link: Path) -> tuple[SimModule, PseudoTerminal]:
    module = SimModule()
    terminal = PseudoTerminal(link)
    terminal.start(module.add_port(terminal.write).feed)
    return module, terminal


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def converse(link: Path, typed: bytes, expected: bytes) -> bytes:
    with serial.Serial(str(link), timeout=PATIENCE, exclusive=True) as port:
        port.write(typed)
        return port.read(len(expected))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - the kernel, which is waited for, sets no event
            await asyncio.sleep(0.001)


async def test_commands_go_both_ways_without_an_echo_of_the_line_itself(tmp_path: Path) -> None:
    link = tmp_path / "modem"
    _, terminal = attach(link)
    expected = b"AT+CGMI\r\r\nTelit\r\n\r\nOK\r\n"
    assert await asyncio.to_thread(converse, link, b"AT+CGMI\r", expected) == expected
    # A second one finds it as the first did.
    assert await asyncio.to_thread(converse, link, b"AT+CGMI\r", expected) == expected
    terminal.close()
    terminal.close()
    terminal.write(b"x")
    assert not link.is_symlink()


async def test_exclusive_use_ends_when_the_other_side_closes(tmp_path: Path) -> None:
    link = tmp_path / "modem"
    module, terminal = attach(link)
    port = module.ports[0]
    for count in (1, 2):
        slave = os.open(link, os.O_RDWR | os.O_NOCTTY)
        fcntl.ioctl(slave, termios.TIOCEXCL)
        os.write(slave, b"AT\r")
        await until(lambda: len(port.seen) == count)  # noqa: B023 - awaited in the same turn of the loop
        os.close(slave)
        await until(lambda: terminal._slave is not None)
        slave = os.open(link, os.O_RDWR | os.O_NOCTTY)
        assert struct.unpack("i", fcntl.ioctl(slave, TIOCGEXCL, bytes(4))) == (0,)
        lflag = termios.tcgetattr(slave)[3]
        os.close(slave)
        assert not lflag & (termios.ECHO | termios.ICANON)
    terminal.close()


async def test_one_that_stays_exclusive_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without root's rights it can't be opened any more to end that."""
    link = tmp_path / "modem"
    module, terminal = attach(link)
    old = link.readlink()
    slave = os.open(link, os.O_RDWR | os.O_NOCTTY)
    os.write(slave, b"AT\r")
    await until(lambda: terminal._slave is None)

    def refuse(*_: object) -> int:
        raise OSError(errno.EBUSY, "busy")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        terminal._hold_slave()
        assert link.readlink() == old, "somebody has it open"
        os.close(slave)
        await until(lambda: terminal._slave is not None)
    # A file descriptor number may be used again; the answer shows that it is a living one.
    assert await asyncio.to_thread(converse, link, b"AT\r", b"AT\r\r\nOK\r\n") == b"AT\r\r\nOK\r\n"
    assert list(module.ports[0].seen) == ["AT", "AT"]
    terminal.close()
    assert names(tmp_path) == []


async def test_a_link_of_old_is_replaced_and_a_foreign_one_is_left(tmp_path: Path) -> None:
    link = tmp_path / "modem"
    link.symlink_to("/dev/pts/gone")
    _, first = attach(link)
    assert link.readlink() != Path("/dev/pts/gone")
    _, second = attach(link)
    now = link.readlink()
    first.close()
    assert link.readlink() == now
    second.close()
    assert names(tmp_path) == []


async def test_what_is_no_link_stays(tmp_path: Path) -> None:
    link = tmp_path / "modem"
    link.write_text("precious")
    with pytest.raises(LinkError, match="no symbolic link"):
        PseudoTerminal(link)
    assert link.read_text() == "precious"
    with pytest.raises(LinkError, match="No such file"):
        PseudoTerminal(tmp_path / "nowhere" / "modem")


async def test_a_reader_that_is_slow_gets_all_and_one_that_never_comes_costs_no_memory(tmp_path: Path) -> None:
    link = tmp_path / "modem"
    module, terminal = attach(link)
    slave = os.open(link, os.O_RDWR | os.O_NOCTTY)
    os.set_blocking(slave, False)
    text = bytes(range(32, 127)) * 400
    terminal.write(text)
    got = bytearray()
    async with asyncio.timeout(PATIENCE):
        while len(got) < len(text):
            with contextlib.suppress(BlockingIOError):
                got += os.read(slave, 1000)
            await asyncio.sleep(0)
    assert got == text
    for _ in range(100):
        terminal.write(text)
    assert 0 < len(terminal._backlog) <= BACKLOG_CAP
    os.close(slave)
    terminal.close()
    module.close()


@pytest.mark.looptime
async def test_a_backlog_that_nobody_reads_is_thrown_away(tmp_path: Path) -> None:
    _, terminal = attach(tmp_path / "modem")
    terminal.write(b"x" * 50_000)
    assert terminal._backlog
    await asyncio.sleep(2.5)
    assert not terminal._backlog
    terminal.close()


class Program:
    """`python -m atrund.sim` as somebody starts it."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.links = [folder / "modem0", folder / "modem1"]
        self.control = folder / "control"
        links = [argument for link in self.links for argument in ("--link", str(link))]
        command = [sys.executable, "-m", "atrund.sim", *links, "--control", str(self.control), *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.guard = threading.Timer(30, self.process.kill)
        self.guard.start()
        assert self.process.stdout is not None
        self.said = [self.process.stdout.readline() for _ in self.links]

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        status = self.process.wait(PATIENCE)
        self.close()
        return status

    def close(self) -> None:
        self.guard.cancel()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def do(self, **request: object) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            client.connect(str(self.control))
            client.sendall(json.dumps(request).encode() + b"\n")
            answer = json.loads(client.makefile("rb").readline())
        assert isinstance(answer, dict)
        return answer


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    running = Program(tmp_path, "--model", "GE910-QUAD", "--seed", "7", "--send-delay", "0")
    yield running
    running.close()


def test_the_program_serves_and_leaves_nothing_behind(program: Program, tmp_path: Path) -> None:
    assert program.said == [f"ready: {link}\n" for link in program.links]
    with (
        serial.Serial(str(program.links[0]), timeout=PATIENCE) as one,
        serial.Serial(str(program.links[1]), timeout=PATIENCE) as two,
    ):
        two.write(b"ATE0+CNMI=2,1\r")
        assert two.read_until(b"OK\r\n") == b"ATE0+CNMI=2,1\r\r\nOK\r\n"
        assert program.do(op="sms", text="AT+COPS?", **{"from": "+39346123"}) == {"ok": True, "outcome": "stored"}
        assert two.read_until(b"1\r\n") == b'\r\n+CMTI: "SM",1\r\n'
        one.write(b'ATE0\rAT+CMGF=1\rAT+CMGS="+391"\rhi\x1a')
        assert one.read_until(b"+CMGS: 0\r\n\r\nOK\r\n").startswith(b"ATE0\r\r\nOK\r\n\r\nOK\r\n\r\n> ")
        one.write(b"ATI\r")
        assert one.read_until(b"OK\r\n") == b"\r\nTelit GE910-QUAD\r\n\r\nOK\r\n"
    sent = program.do(op="sent")["sent"]
    assert [message["text"] for message in sent] == ["hi"]
    assert program.end(signal.SIGTERM) == 0
    assert names(tmp_path) == []


def test_the_program_stops_on_interrupt_with_a_client_there(program: Program, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(program.control))
        client.sendall(b'{"op": "state"}\n')
        assert client.recv(100)
        assert program.end(signal.SIGINT) == 0
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "arguments",
    [[], ["--link", "x", "--model", "X"], ["--link", "x", "--send-delay", "-1"], ["--link", "x", "--sm-slots", "0"]],
)
def test_bad_arguments_are_told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: python -m atrund.sim" in capsys.readouterr().err


def test_a_link_that_can_t_be_made_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "modem").write_text("precious")
    assert main(["--link", str(tmp_path / "good"), "--link", str(tmp_path / "modem")]) == 1
    assert "is no symbolic link" in capsys.readouterr().err
    assert names(tmp_path) == ["modem"]


def test_what_one_module_sends_the_other_one_gets(tmp_path: Path) -> None:
    peer = tmp_path / "peer"
    running = Program(tmp_path, "--send-delay", "0", "--peer-link", str(peer), "--peer-control", str(tmp_path / "p"))
    assert running.process.stdout is not None
    assert running.process.stdout.readline() == f"ready: {peer}\n"
    with (
        serial.Serial(str(peer), timeout=PATIENCE) as one,
        serial.Serial(str(running.links[0]), timeout=PATIENCE) as two,
    ):
        two.write(b"ATE0+CMGF=1;+CNMI=2,2\r")
        two.read_until(b"OK\r\n")
        one.write(b'ATE0\rAT+CMGF=1\rAT+CMGS="+393468686711"\rhi\x1a')
        assert one.read_until(b"+CMGS: 0\r\n\r\nOK\r\n").endswith(b"+CMGS: 0\r\n\r\nOK\r\n")
        assert two.read_until(b"hi\r\n").startswith(b'\r\n+CMT: "+393461234567"')
    assert running.do(op="network", loss=1)["loss"] == 1.0
    assert running.end(signal.SIGTERM) == 0
    assert names(tmp_path) == []
