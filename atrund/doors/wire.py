# SPDX-License-Identifier: Apache-2.0
"""The octets of one connection: taken in pieces, sent together, and an end that nobody can put off (TCP-8, TCP-9).

Rules of this file: what is kept for a peer has a cap; one that reads nothing is cut off, never at the port's cost.
"""

import asyncio
from typing import Final

import structlog

from atrund.atrun.request import Door
from atrund.doors.liveness import set_up
from atrund.timer import Timer

log = structlog.get_logger()

READ_SIZE: Final = 4096
"""Octets that are taken at once: what one client types or pastes never keeps the others waiting."""
UNSENT_MAX: Final = 262_144
UNSENT_PATIENCE: Final = 30.0
"""Octets that a client may leave unread, and seconds until it is cut off then: never the port's time."""
CLOSING: Final = 2.0
"""Seconds for the last answer to leave."""
CLOSE_WAIT: Final = CLOSING + 1.0
"""Seconds that a door waits for the end of a connection, which takes itself down within the others."""


class Wire(asyncio.BufferedProtocol):
    """What every connection does, whatever is said over it; who speaks over it fills in the hooks."""

    def __init__(self) -> None:
        self.peer = ""
        """The other end's address, once it is there."""
        self.transport: asyncio.Transport
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Resolves when the connection is gone."""
        self.is_full = False
        """Whether the peer leaves so much unread that no more is to be sent."""
        self._buffer = bytearray(READ_SIZE)
        self._owed = b""
        self._patience = Timer()

    # The hooks.

    def made(self) -> None:
        """Begin: the peer is known."""

    def took(self, data: bytes) -> None:
        """Take what the peer sent."""

    def filled(self) -> None:
        """Take note that `is_full` has changed."""

    def lost(self, why: str) -> None:
        """Take note that the connection is gone; `why` is "" where nothing is known but that."""

    # What the event loop says.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - a server of streams makes no other
        self.transport = transport
        peer: tuple[str, int] | None = transport.get_extra_info("peername")
        self.peer = peer[0] if peer else "::"
        transport.set_write_buffer_limits(high=UNSENT_MAX, low=UNSENT_MAX - READ_SIZE)
        self.made()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the caller's wish, which is always larger
        """Return where the next octets are to be put: a view, for TLS fills slices of it, record by record."""
        return memoryview(self._buffer)

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was put there."""
        self.took(bytes(self._buffer[:nbytes]))

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note that the connection is gone; why is told where TLS knows it, as of a certificate not taken."""
        why = ""
        if isinstance(exc, OSError) and not isinstance(exc, ConnectionError) and self.speaks_tls:
            from atrund.tls import explain  # noqa: PLC0415 - few speak TLS

            why = explain(exc)
        self.lost(why)
        self._patience.stop()
        if not self.ended.done():
            self.ended.set_result(None)
        self.transport.close()  # again, which has TLS let go of its buffers: else 300 kB wait for the garbage collector

    def pause_writing(self) -> None:
        """Send no more for a while."""
        self.is_full = True
        self.be_patient()
        self.filled()

    def resume_writing(self) -> None:
        """Go on, for the peer reads."""
        self.is_full = False
        self._patience.stop()
        self.filled()

    # What its speaker says.

    @property
    def speaks_tls(self) -> bool:
        """Whether TLS is spoken over it."""
        return self.transport.get_extra_info("ssl_object") is not None

    def keep_alive(self, seconds: float) -> None:
        """Have the kernel ask a silent peer whether it is there (TCP-9); 0: it does not."""
        if not self.transport.is_closing():
            set_up(self.transport.get_extra_info("socket"), seconds)

    def owe(self, data: bytes) -> None:
        """Have something sent before anything else is; `pay` or the next `write` sends it."""
        self._owed += data

    def pay(self) -> None:
        """Send what is owed, behind what the event loop is to do now."""
        if self._owed:
            asyncio.get_running_loop().call_soon(self.write)

    def write(self, data: bytes = b"") -> None:
        """Send, what is owed first; in one packet, for that costs more than what is in it."""
        data, self._owed = self._owed + data, b""
        if data and not self.transport.is_closing():
            self.transport.write(data)

    def read_on(self, yes: bool) -> None:  # noqa: FBT001 - a verb's question
        """Take more from the peer, or have it wait."""
        if self.transport.is_closing():
            return
        if yes:
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()

    def be_patient(self, seconds: float = UNSENT_PATIENCE) -> None:
        """Give a peer that does not read so long, from now on; 0: as long as it likes."""
        self._patience.start(seconds if self.is_full else 0, self._lose_patience)

    def hang_up(self) -> None:
        """End it, with a bound: a peer that never reads must not keep the place."""
        self.write()
        if not self.ended.done():
            asyncio.get_running_loop().call_later(CLOSING, self.cut_off)
        if not self.transport.is_closing():  # by TLS a second close is no mere repetition
            self.transport.close()

    def cut_off(self) -> None:
        """End it at once, whatever waits to be sent."""
        if not self.ended.done():  # behind that, TLS of Python 3.11.2 (Debian 12) raises
            self.transport.abort()

    def _lose_patience(self) -> None:
        log.info("client cut off: it does not read", door=Door.TCP.value, peer=self.peer)
        self.cut_off()
