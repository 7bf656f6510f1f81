# SPDX-License-Identifier: Apache-2.0
"""The one place that knows the serial library.

Rules of this file: nothing blocks the event loop. Opening happens on a thread; closing throws unsent bytes away first,
because the library drains the port on the loop otherwise; writing never waits.
"""

import asyncio
import contextlib
import fcntl
import os
import struct
import termios
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import serial
import serial_asyncio

DTR_LOW: Final = 0.5
"""Seconds that DTR is let fall for: ten times what a module needs to see it (S25 is 50 ms)."""
WRITE_MAX: Final = 65536
"""Bytes that may wait to be written: a module that takes none for this long has hung."""


class Receiver(Protocol):
    """What a port reports to, always on the event loop."""

    def received(self, data: bytes) -> None:
        """Take what the module sent."""

    def lost(self, why: str) -> None:
        """Take note that the port is gone; called once, and not after `close`."""


class Port(Protocol):
    """An open port."""

    @property
    def unsent(self) -> int:
        """How many bytes wait to be written."""

    def write(self, data: bytes) -> None:
        """Send bytes; never blocks and never raises. A port that takes nothing is lost."""

    async def drop_dtr(self) -> None:
        """Let DTR fall for a moment, which ends data mode (V.250 6.2.9). Never raises; not every port has one."""

    def close(self) -> None:
        """Give the port back at once; what was not sent is dropped."""


OpenPort = Callable[[str, int, Receiver], Awaitable[Port]]
"""Opens a path at a baud rate. Raises `PortError`."""


class PortError(Exception):
    """A port that can't be had. The text names the path, what was wrong and what would help."""


async def open_port(path: str, baudrate: int, receiver: Receiver) -> Port:
    """Open a port exclusively (MOD-1): flock against our like, TIOCEXCL against ModemManager's. Raises `PortError`."""
    loop = asyncio.get_running_loop()
    try:
        line = await loop.run_in_executor(None, _open, path, baudrate)
    except (OSError, ValueError, termios.error) as error:  # SerialException is an OSError
        raise PortError(explain(path, error)) from error
    port = _SerialPort(receiver)
    transport, _ = await serial_asyncio.connection_for_serial(loop, lambda: port, line)
    # The library announces the connection a turn of the loop later; what is written before must not be lost.
    port.connection_made(transport)
    return port


def explain(path: str, error: Exception, check: str = "is the module plugged in, and module.port right?") -> str:
    """Say why a port can't be had, and what would help; `check` asks what to look at where there is no such device."""
    if not os.path.exists(path):  # noqa: PTH110 - a device node, named as it was configured
        return f"{path}: no such device; {check}"
    text = str(error)
    if isinstance(error, PermissionError) or "Permission denied" in text:
        return f"{path}: permission denied; the user atrund must be in the device's group, usually dialout"
    if isinstance(error, BlockingIOError) or "exclusively lock" in text or "busy" in text:
        return f"{path}: held by another program; 'sudo fuser -v {path}' names it"
    return f"{path}: {text}"


class _SerialPort(asyncio.Protocol):
    def __init__(self, receiver: Receiver) -> None:
        self._receiver: Receiver | None = receiver
        self._transport: serial_asyncio.SerialTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._receiver is not None:
            self._receiver.received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._lose(str(exc) if exc is not None else "the port was closed")

    @property
    def unsent(self) -> int:
        if self._transport is None:
            return 0
        waiting: int = self._transport.get_write_buffer_size()
        return waiting

    def write(self, data: bytes) -> None:
        if self._transport is None or self._receiver is None:
            return
        if self._transport.get_write_buffer_size() + len(data) > WRITE_MAX:
            receiver = self._receiver
            self.close()
            receiver.lost("the module takes no data any more")
            return
        if not self._transport.get_write_buffer_size():
            data = data[self._write_now(data) :]
        if data:
            self._transport.write(data)

    async def drop_dtr(self) -> None:
        for up in (False, True):
            if self._transport is None:
                return
            # A stalled USB device answers such a request late; and the port may be closed meanwhile.
            line = os.dup(self._transport.serial.fileno())
            await asyncio.get_running_loop().run_in_executor(None, _set_dtr, line, up)
            if not up:
                await asyncio.sleep(DTR_LOW)

    def close(self) -> None:
        self._receiver = None
        transport, self._transport = self._transport, None
        if transport is not None:
            with contextlib.suppress(OSError, termios.error):
                transport.serial.reset_output_buffer()
            # It outlives whoever set it for as long as another program has the port open.
            with contextlib.suppress(OSError):
                fcntl.ioctl(transport.serial.fileno(), termios.TIOCNXCL)
            transport.abort()

    def _write_now(self, data: bytes) -> int:
        """Spare the library's detour: it waits for the event loop to say that the port can be written."""
        assert self._transport is not None  # noqa: S101 - asked by write alone
        try:
            return os.write(self._transport.serial.fileno(), data)
        except OSError:  # full, or gone: the library finds out which
            return 0

    def _lose(self, why: str) -> None:
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.lost(why)


class _Line(serial.Serial):
    """A port read when the event loop says that it can be, so without the library's own look whether it can.

    Its control lines may not be settable: a stalled USB request must not cost the port itself.
    """

    def read(self, size: int = 1) -> bytes:
        """Return what came, at most `size` bytes, none if nothing did. Raises `SerialException` for a port gone."""
        try:
            data = os.read(self.fileno(), size)
        except BlockingIOError:
            return b""
        except OSError as error:
            raise serial.SerialException(f"read failed: {error}") from error
        if not data:
            raise serial.SerialException("the device has hung up")
        return data

    def _update_dtr_state(self) -> None:
        with contextlib.suppress(OSError):
            super()._update_dtr_state()  # type: ignore[misc]  # the library's own hook, left out of its stubs

    def _update_rts_state(self) -> None:
        with contextlib.suppress(OSError):
            super()._update_rts_state()  # type: ignore[misc]  # as above


def _open(path: str, baudrate: int) -> serial.Serial:
    # Opened non-blocking and with a write time-out of 0, so that a full output queue gives a short write.
    line = _Line(path, baudrate, timeout=0, write_timeout=0, exclusive=True)
    try:
        fcntl.ioctl(line.fileno(), termios.TIOCEXCL)
        _keep_dtr(line.fileno())
        line.reset_input_buffer()
    except BaseException:
        line.close()
        raise
    return line


def _keep_dtr(descriptor: int) -> None:
    """Clear HUPCL: with AT&D2 a falling DTR would hang up somebody's data call when the port is closed."""
    attributes = termios.tcgetattr(descriptor)
    attributes[2] &= ~termios.HUPCL
    termios.tcsetattr(descriptor, termios.TCSANOW, attributes)


def _set_dtr(descriptor: int, up: bool) -> None:  # noqa: FBT001 - a line is up or down
    """Set DTR, where there is one, and close the descriptor."""
    try:
        with contextlib.suppress(OSError):
            request = termios.TIOCMBIS if up else termios.TIOCMBIC
            fcntl.ioctl(descriptor, request, struct.pack("I", termios.TIOCM_DTR))
    finally:
        os.close(descriptor)
