# SPDX-License-Identifier: Apache-2.0
"""A serial port of the host, against a real pseudo-terminal."""

import asyncio
import contextlib
import fcntl
import os
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from atrund.module import raw
from atrund.module.port import PortError
from atrund.module.raw import Flow, RawLine, open_raw


class Pty:
    def __init__(self) -> None:
        self.ours, self.theirs = os.openpty()
        self.path = os.ttyname(self.theirs)

    @property
    def settings(self) -> list[Any]:
        return termios.tcgetattr(self.theirs)

    def hang_up(self) -> None:
        for end in (self.ours, self.theirs):
            with contextlib.suppress(OSError):
                os.close(end)


@pytest.fixture
def pty() -> Iterator[Pty]:
    pair = Pty()
    yield pair
    pair.hang_up()


class Device:
    """What the line reports, and what it is to be told."""

    def __init__(self, line: RawLine) -> None:
        self.line = line
        self.got = bytearray()
        self.waiting = bytearray()
        self.losses: list[str] = []
        self.changed = asyncio.Event()

    def received(self, data: bytes) -> None:
        self.got += data
        self.changed.set()

    def has_room(self) -> None:
        del self.waiting[: self.line.write(bytes(self.waiting[:4096]))]
        if not self.waiting:
            self.line.watch_room(on=False)
            self.changed.set()

    def lost(self, why: str) -> None:
        self.losses.append(why)
        self.changed.set()

    async def until(self, look: Any) -> None:  # noqa: ANN401 - what is waited for
        async with asyncio.timeout(10):
            while not look():
                self.changed.clear()
                await self.changed.wait()


@contextlib.asynccontextmanager
async def opened(pty: Pty, rate: int = 9600, flow: Flow = Flow.NONE) -> Any:  # noqa: ANN401 - a device
    line = await open_raw(pty.path, rate, flow)
    device = Device(line)
    line.listen(device)
    yield device
    await line.close()


@pytest.mark.parametrize("rate", [300, 9600, 115200, 921600])
async def test_it_is_raw_at_the_rate_and_gets_its_settings_back(pty: Pty, rate: int) -> None:
    before = pty.settings
    async with opened(pty, rate):
        input_, output, control, local, *speeds, _ = pty.settings
        assert speeds == [getattr(termios, f"B{rate}")] * 2
        assert (input_ & ~termios.IGNBRK, output, local) == (0, 0, 0)
        assert control & (termios.CSIZE | termios.PARENB | termios.CSTOPB | termios.CRTSCTS) == termios.CS8
        assert control & (termios.CREAD | termios.CLOCAL) == termios.CREAD | termios.CLOCAL
    assert pty.settings == before


async def test_flow_control(pty: Pty) -> None:
    async with opened(pty, flow=Flow.RTSCTS):
        assert pty.settings[2] & termios.CRTSCTS
    async with opened(pty, flow=Flow.XONXOFF):
        assert pty.settings[0] & (termios.IXON | termios.IXOFF) == termios.IXON | termios.IXOFF


async def test_every_octet_both_ways(pty: Pty) -> None:
    every = bytes(range(256))
    async with opened(pty) as device:
        assert device.line.write(every) == 256
        assert os.read(pty.ours, 256) == every
        os.write(pty.ours, every)
        await device.until(lambda: device.got == every)


async def test_what_lay_in_it_before_is_nobodys(pty: Pty) -> None:
    os.write(pty.ours, b"stale\n")
    async with opened(pty) as device:
        os.write(pty.ours, b"fresh")
        await device.until(lambda: device.got)
        assert device.got == b"fresh"


async def test_a_port_that_is_full_says_when_it_takes_more(pty: Pty) -> None:
    data = bytes(range(256)) * 400
    heard = bytearray()

    def hear() -> None:
        while len(heard) < len(data):
            heard.extend(os.read(pty.ours, 4096))

    async with opened(pty) as device:
        taken = 0
        while count := device.line.write(data[taken : taken + 4096]):
            taken += count
        assert taken < len(data)
        device.waiting += data[taken:]
        device.line.watch_room(on=True)
        listener = threading.Thread(target=hear)
        listener.start()
        await device.until(lambda: not device.waiting)
        await asyncio.get_running_loop().run_in_executor(None, listener.join, 10)
    assert bytes(heard) == data


async def test_what_is_not_read_waits_in_the_port(pty: Pty) -> None:
    async with opened(pty) as device:
        device.line.read(on=False)
        os.write(pty.ours, b"waits")
        await asyncio.sleep(0.05)
        assert device.got == b""
        device.line.read(on=True)
        await device.until(lambda: device.got == b"waits")


async def test_what_was_left_goes_out_before_it_is_given_back(pty: Pty) -> None:
    line = await open_raw(pty.path, 9600, Flow.NONE)
    line.listen(Device(line))
    heard = bytearray()

    def hear() -> None:
        while len(heard) < 50_000:
            heard.extend(os.read(pty.ours, 4096))

    listener = threading.Thread(target=hear)
    listener.start()
    await line.close(b"l" * 50_000)
    await asyncio.get_running_loop().run_in_executor(None, listener.join, 10)
    assert bytes(heard) == b"l" * 50_000


async def test_a_device_that_takes_nothing_does_not_keep_the_port(pty: Pty, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw, "STUCK", 0.2)
    before = pty.settings
    line = await open_raw(pty.path, 9600, Flow.NONE)
    line.listen(Device(line))
    begun = time.monotonic()
    await line.close(b"l" * 500_000)
    assert time.monotonic() - begun < 5
    assert pty.settings == before


async def test_a_device_that_goes(pty: Pty) -> None:
    line = await open_raw(pty.path, 9600, Flow.NONE)
    device = Device(line)
    line.listen(device)
    pty.hang_up()
    await device.until(lambda: device.losses)
    assert line.write(b"into the void") == 13
    line.read(on=True)
    line.watch_room(on=True)
    await line.close(b"rest")
    assert len(device.losses) == 1


async def test_a_write_into_one_that_is_gone_loses_it(pty: Pty) -> None:
    line = await open_raw(pty.path, 9600, Flow.NONE)
    device = Device(line)
    line.listen(device)
    line.read(on=False)
    pty.hang_up()
    assert line.write(b"x") == 1
    assert line.write(b"y") == 1
    await device.until(lambda: device.losses)
    await line.close()
    assert len(device.losses) == 1


async def test_it_is_had_exclusively(pty: Pty) -> None:
    async with opened(pty):
        with pytest.raises(PortError, match="held by another program"):
            await open_raw(pty.path, 9600, Flow.NONE)
        with pytest.raises(BlockingIOError):
            fcntl.flock(pty.theirs, fcntl.LOCK_EX | fcntl.LOCK_NB)
    async with opened(pty):
        pass


async def test_one_that_is_not_there() -> None:
    with pytest.raises(PortError, match=r"/dev/nowhere: no such device; is the path in tcp.serial right\?"):
        await open_raw("/dev/nowhere", 9600, Flow.NONE)


async def test_what_is_no_serial_port(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(PortError, match=str(file)):
        await open_raw(str(file), 9600, Flow.NONE)


async def test_a_rate_that_the_port_does_not_take(pty: Pty, monkeypatch: pytest.MonkeyPatch) -> None:
    before, real = pty.settings, termios.tcsetattr

    def at_300(descriptor: int, when: int, attributes: list[Any]) -> None:
        wanted = [*attributes[:4], termios.B300, termios.B300, attributes[6]]
        real(descriptor, when, wanted if attributes != before else attributes)

    monkeypatch.setattr(termios, "tcsetattr", at_300)
    with pytest.raises(PortError, match="no rate of 115200"):
        await open_raw(pty.path, 115200, Flow.NONE)
    assert pty.settings == before


async def test_one_that_nobody_waits_for_any_more_is_given_back(pty: Pty, monkeypatch: pytest.MonkeyPatch) -> None:
    before, real, begun, go = pty.settings, raw._open, threading.Event(), threading.Event()
    opened_late = threading.Event()

    def slow(path: str, rate: int, flow: Flow) -> tuple[int, list[Any]]:
        begun.set()
        go.wait(10)
        try:
            return real(path, rate, flow)
        finally:
            opened_late.set()

    monkeypatch.setattr(raw, "_open", slow)
    task = asyncio.create_task(open_raw(pty.path, 9600, Flow.NONE))
    await asyncio.get_running_loop().run_in_executor(None, begun.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go.set()
    monkeypatch.undo()
    await asyncio.get_running_loop().run_in_executor(None, opened_late.wait, 10)
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(PortError):
                async with opened(pty):
                    break
            await asyncio.sleep(0.01)
    assert pty.settings == before
