# SPDX-License-Identifier: Apache-2.0
import asyncio
import contextlib
import fcntl
import os
import struct
import termios
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

from atrund.module.port import WRITE_MAX, PortError, open_port

TIOCGEXCL = 0x80045440
"""ioctl_tty(2); the standard library has no name for it."""


class Listener:
    def __init__(self) -> None:
        self.got = bytearray()
        self.losses: list[str] = []
        self.changed = asyncio.Event()

    def received(self, data: bytes) -> None:
        self.got += data
        self.changed.set()

    def lost(self, why: str) -> None:
        self.losses.append(why)
        self.changed.set()

    async def until(self, text: bytes) -> None:
        async with asyncio.timeout(5):
            while text not in self.got:
                self.changed.clear()
                await self.changed.wait()

    async def until_lost(self) -> None:
        async with asyncio.timeout(5):
            while not self.losses:
                self.changed.clear()
                await self.changed.wait()


class Pty:
    def __init__(self) -> None:
        self.ours, theirs = os.openpty()
        tty.setraw(theirs)
        self.path = os.ttyname(theirs)
        self._theirs: int | None = theirs

    def hang_up(self) -> None:
        for end in (self.ours, self._theirs):
            if end is not None:
                with contextlib.suppress(OSError):
                    os.close(end)
        self._theirs = None


@pytest.fixture
def pty() -> Iterator[Pty]:
    pair = Pty()
    yield pair
    pair.hang_up()


async def closed() -> None:
    """Let the library finish: it closes the file a turn of the loop later."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_bytes_go_both_ways_unchanged(pty: Pty) -> None:
    listener = Listener()
    port = await open_port(pty.path, 115200, listener)
    every = bytes(range(256))
    port.write(every)
    assert await asyncio.to_thread(os.read, pty.ours, 256) == every
    os.write(pty.ours, every)
    await listener.until(every)
    port.close()
    await closed()
    assert listener.losses == []


async def test_it_is_opened_exclusively_and_keeps_dtr(pty: Pty) -> None:
    first = await open_port(pty.path, 115200, Listener())
    try:
        with pytest.raises(PortError, match=r"held by another program; 'sudo fuser -v /dev/pts/\d+' names it"):
            await open_port(pty.path, 115200, Listener())
        other = os.open(pty.path, os.O_RDWR | os.O_NOCTTY) if os.geteuid() == 0 else pty._theirs
        assert other is not None
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert not termios.tcgetattr(other)[2] & termios.HUPCL
        if os.geteuid() == 0:
            os.close(other)
    finally:
        first.close()
        await closed()
    assert pty._theirs is not None
    exclusive = fcntl.ioctl(pty._theirs, TIOCGEXCL, bytes(4))
    assert struct.unpack("i", exclusive) == (0,), "who has it open besides keeps it to nobody"
    again = await open_port(pty.path, 115200, Listener())
    again.close()
    await closed()


@pytest.mark.parametrize(
    ("path", "says"),
    [("/dev/no-such-port", "no such device; is the module plugged in"), ("/dev/null", "/dev/null: ")],
)
async def test_what_cannot_be_opened_is_an_error_that_names_it(path: str, says: str) -> None:
    with pytest.raises(PortError, match=says):
        await open_port(path, 115200, Listener())


async def test_a_plain_file_is_no_port(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"kept")
    with pytest.raises(PortError, match=str(file)):
        await open_port(str(file), 115200, Listener())
    assert file.read_bytes() == b"kept"


async def test_a_hang_up_is_told_once(pty: Pty) -> None:
    listener = Listener()
    port = await open_port(pty.path, 115200, listener)
    pty.hang_up()
    await listener.until_lost()
    port.write(b"AT\r")
    port.close()
    await closed()
    assert len(listener.losses) == 1


async def test_after_close_nothing_is_told_and_writing_does_nothing(pty: Pty) -> None:
    listener = Listener()
    port = await open_port(pty.path, 115200, listener)
    port.close()
    port.write(b"AT\r")
    pty.hang_up()
    await closed()
    assert (bytes(listener.got), listener.losses) == (b"", [])


async def test_dtr_falls_for_a_moment_and_rises_again(pty: Pty, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    plain = fcntl.ioctl

    def ioctl(descriptor: int, request: int, argument: bytes = b"") -> object:
        if request in {termios.TIOCMBIC, termios.TIOCMBIS}:
            asked.append(request)
        return plain(descriptor, request, argument)

    port = await open_port(pty.path, 115200, Listener())
    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    await port.drop_dtr()  # a pseudo-terminal has none, and refuses
    assert asked == [termios.TIOCMBIC, termios.TIOCMBIS]
    port.write(b"AT\r")
    assert await asyncio.to_thread(os.read, pty.ours, 3) == b"AT\r"
    port.close()
    await port.drop_dtr()
    await closed()
    assert len(asked) == 2


async def test_a_module_that_takes_nothing_is_lost_and_never_blocks(pty: Pty) -> None:
    listener = Listener()
    port = await open_port(pty.path, 115200, listener)
    begin = asyncio.get_running_loop().time()
    for _ in range(4 * WRITE_MAX // 1024):  # the kernel keeps some too
        port.write(b"x" * 1024)
    assert listener.losses == ["the module takes no data any more"]
    await closed()
    assert asyncio.get_running_loop().time() - begin < 1


async def test_what_waits_to_be_written_is_counted(pty: Pty) -> None:
    port = await open_port(pty.path, 115200, Listener())
    port.write(b"AT\r")
    assert port.unsent == 0
    for _ in range(32):
        port.write(b"x" * 1024)
    assert 0 < port.unsent < 32 * 1024, "the kernel keeps some"
    port.close()
    assert port.unsent == 0
    await closed()
