# SPDX-License-Identifier: Apache-2.0
"""A serial port of the host lent to a session: bytes as they are, and its settings given back at the end (TCP-6).

Rules of this file: nothing blocks the event loop: opening and giving back happen on a thread. What is not read stays
with the port, whose flow control then holds the device up; what can't be written yet stays with the writer.
"""

import asyncio
import contextlib
import enum
import fcntl
import os
import select
import struct
import termios
import time
from typing import Any, Final, Protocol

from atrund.module.port import PortError, explain

READ_SIZE: Final = 4096
"""Octets that are read at once, which is what a terminal of Linux holds."""
GIVE_BACK: Final = 10.0
STUCK: Final = 2.0
"""Seconds that a port has to send what was left when it is given back, and without a single octet of it sent."""


class Flow(enum.Enum):
    """How the port and its device hold each other up."""

    NONE = "none"
    RTSCTS = "rtscts"
    XONXOFF = "xonxoff"


class Receiver(Protocol):
    """What an open line reports to, always on the event loop."""

    def received(self, data: bytes) -> None:
        """Take what the device sent."""

    def has_room(self) -> None:
        """Write what waits, for the port takes more."""

    def lost(self, why: str) -> None:
        """Take note that the port is gone; called once, and not after `close`."""


class RawLine:
    """An open port: 8N1, nothing interpreted. It is neither read nor watched until `listen`."""

    def __init__(self, descriptor: int, before: list[Any]) -> None:
        self._descriptor = descriptor
        self._before = before
        self._receiver: Receiver | None = None
        self._loop = asyncio.get_running_loop()

    def listen(self, receiver: Receiver) -> None:
        """Report to `receiver`, and read."""
        self._receiver = receiver
        self.read(on=True)

    def read(self, *, on: bool) -> None:
        """Go on reading, or stop."""
        if self._receiver is None:
            return
        if on:
            self._loop.add_reader(self._descriptor, self._readable)
        else:
            self._loop.remove_reader(self._descriptor)

    def write(self, data: bytes) -> int:
        """Send octets; returns how many were taken. What is taken by a port that is gone is lost with it."""
        if self._receiver is None:
            return len(data)
        try:
            return os.write(self._descriptor, data)
        except BlockingIOError:
            return 0
        except OSError as error:
            self._loop.call_soon(self._lose, error.strerror)
            return len(data)

    def watch_room(self, *, on: bool) -> None:
        """Have `has_room` called whenever the port takes more, or no longer."""
        if self._receiver is None:
            return
        if on:
            self._loop.add_writer(self._descriptor, self._writable)
        else:
            self._loop.remove_writer(self._descriptor)

    async def close(self, unsent: bytes = b"") -> None:
        """Give the port back as it was, behind `unsent`, for which it gets a while."""
        self._let_go()
        await self._loop.run_in_executor(None, _give_back, self._descriptor, self._before, unsent)

    def _readable(self) -> None:
        try:
            data = os.read(self._descriptor, READ_SIZE)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(error.strerror)
            return
        if data:
            assert self._receiver is not None  # noqa: S101 - nothing is watched without one
            self._receiver.received(data)
        else:
            self._lose("the device is gone")

    def _writable(self) -> None:
        assert self._receiver is not None  # noqa: S101 - as above
        self._receiver.has_room()

    def _lose(self, why: str | None) -> None:
        receiver = self._receiver
        self._let_go()
        if receiver is not None:
            receiver.lost(why or "the device is gone")

    def _let_go(self) -> None:
        if self._receiver is not None:
            self._loop.remove_reader(self._descriptor)
            self._loop.remove_writer(self._descriptor)
            self._receiver = None


async def open_raw(path: str, rate: int, flow: Flow) -> RawLine:
    """Open a port exclusively (MOD-1) and set it up. Raises `PortError`. What lay in it is dropped."""
    loop = asyncio.get_running_loop()
    opening = loop.run_in_executor(None, _open, path, rate, flow)
    try:
        descriptor, before = await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close_again)  # a device may take long to be opened, and is nobody's then
        raise
    except (OSError, termios.error) as error:
        raise PortError(explain(path, error, "is the path in tcp.serial right?")) from error
    return RawLine(descriptor, before)


def _close_again(opening: "asyncio.Future[tuple[int, list[Any]]]") -> None:
    if not opening.cancelled() and opening.exception() is None:
        descriptor, before = opening.result()
        opening.get_loop().run_in_executor(None, _give_back, descriptor, before, b"")


def _open(path: str, rate: int, flow: Flow) -> tuple[int, list[Any]]:
    descriptor = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.ioctl(descriptor, termios.TIOCEXCL)
        before = termios.tcgetattr(descriptor)
        try:
            termios.tcsetattr(descriptor, termios.TCSANOW, _attributes(before, rate, flow))
            if termios.tcgetattr(descriptor)[_OSPEED] != _speed(rate):
                raise OSError(f"the port has no rate of {rate}")
            termios.tcflush(descriptor, termios.TCIFLUSH)
        except BaseException:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(descriptor, termios.TCSANOW, before)
            raise
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, before


def _attributes(before: list[Any], rate: int, flow: Flow) -> list[Any]:
    """Return raw 8N1 (termios(3), cfmakeraw) at a rate: no parity, no modem lines but those of the flow control."""
    characters = list(before[_CC])
    characters[termios.VMIN], characters[termios.VTIME] = 1, 0  # so that no octets are no end of file
    control = termios.CS8 | termios.CREAD | termios.CLOCAL
    if flow is Flow.RTSCTS:
        control |= termios.CRTSCTS
    input_ = termios.IXON | termios.IXOFF if flow is Flow.XONXOFF else 0
    return [input_ | termios.IGNBRK, 0, control, 0, _speed(rate), _speed(rate), characters]


def _speed(rate: int) -> int:
    speed: int = getattr(termios, f"B{rate}")
    return speed


def _give_back(descriptor: int, before: list[Any], unsent: bytes) -> None:
    """Send what is left as long as it goes out, then put everything as it was."""
    try:
        with contextlib.suppress(OSError, termios.error):
            if not _drain(descriptor, unsent):
                termios.tcflush(descriptor, termios.TCOFLUSH)  # else closing waits for the device (setserial(8))
        with contextlib.suppress(OSError, termios.error):
            termios.tcsetattr(descriptor, termios.TCSANOW, before)
        with contextlib.suppress(OSError):
            fcntl.ioctl(descriptor, termios.TIOCNXCL)
    finally:
        os.close(descriptor)


def _drain(descriptor: int, unsent: bytes) -> bool:
    """Write what is left and wait until the port has sent it; False where it is stuck, or too slow."""
    end = time.monotonic() + GIVE_BACK
    stuck, waiting = time.monotonic() + STUCK, -1
    while time.monotonic() < min(end, stuck):
        if unsent:
            if select.select([], [descriptor], [], _PAUSE)[1]:
                with contextlib.suppress(BlockingIOError):
                    unsent = unsent[os.write(descriptor, unsent) :]
        elif not _unsent(descriptor):
            return True
        else:
            time.sleep(_PAUSE)
        left = len(unsent) + _unsent(descriptor)
        if left != waiting:
            stuck, waiting = time.monotonic() + STUCK, left
    return False


def _unsent(descriptor: int) -> int:
    count: int = struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, struct.pack("i", 0)))[0]
    return count


_PAUSE: Final = 0.02
"""Seconds between two looks at what the port still has to send."""
_OSPEED, _CC = 5, 6
"""Where tcgetattr(3) has them."""
