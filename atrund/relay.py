# SPDX-License-Identifier: Apache-2.0
"""Transparent mode: bytes both ways between a session and a serial port of the host, unchanged (TCP-6 to TCP-8).

Rules of this file: each way is on its own; what one side can't take yet waits in a bounded buffer, and the other side
is not read meanwhile. What passes is counted and never looked at but for the escape, nor recorded (POL-3).
"""

import asyncio
import enum
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from atrund.atrun.escape import Escape
from atrund.atrun.packing import Packer

UNSENT_MAX: Final = 16_384
UNSENT_MIN: Final = 256
"""Octets that wait for the port before the peer is not read any more: a second of its line, within these bounds, so
that giving the port back takes no longer. One read more may come on top."""
CHUNK: Final = 4096
"""Octets offered to the port at once, which is what a terminal of Linux takes."""
OPEN_WAIT: Final = 15.0
"""Seconds for a port to be opened, behind whoever gives it back just then."""


class End(enum.Enum):
    """Why transparent mode ended, if not with the session."""

    ESCAPE = "escape"
    PORT_LOST = "port lost"


class Listener(Protocol):
    """What an open port reports to."""

    def received(self, data: bytes) -> None:
        """Take what the device sent."""

    def has_room(self) -> None:
        """Write what waits."""

    def lost(self, why: str) -> None:
        """Take note that the port is gone."""


class Line(Protocol):
    """An open port, as `module/raw.py` has it."""

    def listen(self, receiver: Listener) -> None:
        """Report to `receiver`, and read."""

    def read(self, *, on: bool) -> None:
        """Go on reading, or stop."""

    def write(self, data: bytes) -> int:
        """Send octets; returns how many were taken."""

    def watch_room(self, *, on: bool) -> None:
        """Have `has_room` called whenever the port takes more, or no longer."""

    async def close(self, unsent: bytes = b"") -> None:
        """Give the port back, behind `unsent`."""


@dataclass(frozen=True, slots=True)
class Port:
    """A port that may be lent: at which rates, and how it is opened at one of them."""

    rates: tuple[int, ...]
    open: Callable[[int], Awaitable[Line]]


@dataclass(frozen=True, slots=True)
class Counts:
    """Octets that passed: to the port, and from it."""

    sent: int
    received: int


class Lent:
    """A port in the hands of one session."""

    def __init__(self, ports: "Ports", number: int, rate: int, line: Line) -> None:
        self.number = number
        self.rate = rate
        self.line = line
        self._ports = ports

    def give_back(self, unsent: bytes = b"") -> None:
        """Give it back behind `unsent`; the next one who wants it waits for that."""
        self._ports.take_back(self, unsent)


class Ports:
    """The ports that the configuration names; each is one session's at a time."""

    def __init__(self, ports: Mapping[int, Port]) -> None:
        self.rates: Mapping[int, tuple[int, ...]] = {number: port.rates for number, port in sorted(ports.items())}
        """The rates of each port, by its number."""
        self._ports = ports
        self._taken: set[int] = set()
        self._closing: dict[int, asyncio.Task[None]] = {}

    def claim(self, number: int) -> str:
        """Keep a port for who is to have it next; returns why that can't be, or ""."""
        if number in self._taken:
            return f"port {number} is another session's"
        self._taken.add(number)
        return ""

    async def open(self, number: int, rate: int) -> Lent:
        """Open a port that was claimed. Raises what its opener raises, or `TimeoutError`; it is free again then."""
        try:
            async with asyncio.timeout(OPEN_WAIT):
                if (closing := self._closing.get(number)) is not None:
                    await asyncio.shield(closing)
                line = await self._ports[number].open(rate)
        except BaseException:
            self._taken.discard(number)
            raise
        return Lent(self, number, rate, line)

    def take_back(self, lent: Lent, unsent: bytes) -> None:
        """Close what was lent."""
        self._taken.discard(lent.number)
        closing = asyncio.get_running_loop().create_task(lent.line.close(unsent), name=f"serial port {lent.number}")
        self._closing[lent.number] = closing
        closing.add_done_callback(lambda _: self._forget(lent.number, closing))

    def _forget(self, number: int, closing: asyncio.Task[None]) -> None:
        if self._closing.get(number) is closing:
            del self._closing[number]


@dataclass(frozen=True, slots=True)
class Far:
    """The session's side: takes octets for the peer, is told when it may be read again, and of the end by itself."""

    send: Callable[[bytes], object]
    room: Callable[[], None]
    over: Callable[[End, str], None]


class Relay:
    """Runs from its making until `end`."""

    def __init__(self, lent: Lent, far: Far, *, escape: int, packer: Packer) -> None:
        """`escape`: the instance's S2."""
        self._loop = asyncio.get_running_loop()
        self.moved = self._loop.time()
        """When an octet passed last."""
        self._lent = lent
        self._far = far
        self._escape = Escape(escape, self.moved)
        self._packer = packer
        self._most = min(UNSENT_MAX, max(UNSENT_MIN, lent.rate // _BITS))
        self._unsent = bytearray()
        self._was_full = False
        self._sent = self._received = 0
        self._decision: asyncio.TimerHandle | None = None
        self._flush: asyncio.TimerHandle | None = None
        lent.line.listen(self)

    @property
    def is_full(self) -> bool:
        """Whether the peer is not to be read for now."""
        return len(self._unsent) >= self._most

    def take(self, data: bytes) -> None:
        """Take one read of the peer's."""
        now = self.moved = self._loop.time()
        passed = self._escape.read(data, now)
        due = self._escape.due
        if due is not None:
            self._decision = self._loop.call_at(due, self._decide)
        elif self._decision is not None:
            self._decision.cancel()
            self._decision = None
        if passed:
            self._pass_on(passed)

    def peer_is(self, *, full: bool) -> None:
        """Take note of whether the peer leaves so much unread that the port is not to be read."""
        self._lent.line.read(on=not full)

    def end(self) -> Counts:
        """Give the port back, behind what came for it; what came from it goes to the peer."""
        for timer in (self._decision, self._flush):
            if timer is not None:
                timer.cancel()
        self._far.send(self._packer.flush())
        unsent = bytes(self._unsent) + self._escape.left()
        self._unsent.clear()
        self._lent.give_back(unsent)
        return Counts(self._sent + len(unsent), self._received)

    # What the port says.

    def received(self, data: bytes) -> None:
        """Take what the device sent."""
        now = self.moved = self._loop.time()
        self._received += len(data)
        if ready := self._packer.put(data, now):
            self._far.send(ready)
        if self._flush is None and (due := self._packer.due) is not None:
            self._flush = self._loop.call_at(due, self._send_rest)

    def has_room(self) -> None:
        """Write what waits."""
        if self._unsent:
            taken = self._lent.line.write(bytes(self._unsent[:CHUNK]))
            del self._unsent[:taken]
            self._note_sent(taken)
        if not self._unsent:
            self._lent.line.watch_room(on=False)
        if self._was_full and len(self._unsent) <= self._most // 2:
            self._was_full = False
            self._escape.deaf(self._loop.time())
            self._far.room()

    def lost(self, why: str) -> None:
        """Take note that the port is gone; what waited for it is lost with it."""
        self._unsent.clear()
        self._far.over(End.PORT_LOST, why)

    def _pass_on(self, data: bytes) -> None:
        if not self._unsent:
            taken = self._lent.line.write(data)
            self._note_sent(taken)
            data = data[taken:]
            if not data:
                return
            self._lent.line.watch_room(on=True)
        self._unsent += data
        self._was_full = self._was_full or self.is_full

    def _note_sent(self, count: int) -> None:
        if count:
            self._sent += count
            self.moved = self._loop.time()

    def _decide(self) -> None:
        self._decision = None
        if self._escape.ends(max(self._loop.time(), self._escape.due or 0.0)):
            self._far.over(End.ESCAPE, "")

    def _send_rest(self) -> None:
        """Send what waited long enough; a packet that was sent meanwhile began the time anew."""
        self._flush = None
        due = self._packer.due
        if due is None:
            return
        if due > self._loop.time() + _TICK:
            self._flush = self._loop.call_at(due, self._send_rest)
        else:
            self._far.send(self._packer.flush())


_BITS: Final = 10
"""Bits on the line for an octet: start, eight, stop."""
_TICK: Final = 0.001
"""Seconds that a timer of the loop may ring early."""
