# SPDX-License-Identifier: Apache-2.0
"""`#TCPATCONSER`: the TCP session becomes the way to a serial port of the host, for a while (TCP-6).

Rules of this file: the port is had before CONNECT is said, and given back whatever becomes of the session.
"""

import asyncio
import socket
from collections.abc import Iterable
from typing import Protocol

from atrund.atrun.family.forms import EnterTransparent
from atrund.atrun.packing import Packer, Packets
from atrund.atrun.request import Request
from atrund.atrun.session import Event
from atrund.module.port import PortError
from atrund.relay import End, Far, Lent, Ports, Relay


class Session(Protocol):
    """What a session is asked and told, as `doors/connection.py` has it."""

    def runs(self, rid: str) -> bool:
        """Whether it waits for the answer to that request."""

    def lend(self, rid: str, passage: "Passage") -> bool:
        """Take a port for behind that answer; False when it waits for it no more."""

    def pass_on(self, data: bytes) -> None:
        """Send what came from the port."""

    def has_room(self) -> None:
        """Read on."""

    def passage_over(self, event: Event) -> None:
        """Leave transparent mode, which ended by itself."""

    def tell(self, what: str) -> None:
        """Have it written down."""


class Passage:
    """A port in a session's hands, from before CONNECT until `end`."""

    _relay: Relay | None
    _session: Session | None

    def __init__(self, lent: Lent) -> None:
        self._lent = lent
        self._relay = None
        self._session = None
        self._why = ""

    @property
    def is_full(self) -> bool:
        """Whether the peer is not to be read for now."""
        return self._relay is not None and self._relay.is_full

    def begin(self, session: Session, link: socket.socket, packets: Packets, escape: int) -> None:
        """Pass bytes between a session, whose connection `link` is, and the port. `escape`: the instance's S2."""
        self._session = session
        session.tell(f"transparent mode: serial port {self._lent.number} at {self._lent.rate}")
        segment = link.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
        packer = Packer(packets.octets(segment), packets.timeout)
        far = Far(session.pass_on, session.has_room, self._over)
        self._relay = Relay(self._lent, far, escape=escape, packer=packer)

    def take(self, data: bytes) -> None:
        """Take one read of the peer's."""
        assert self._relay is not None  # noqa: S101 - the session's state says so
        self._relay.take(data)

    def peer_is(self, *, full: bool) -> None:
        """Take note of whether the peer leaves too much unread."""
        if self._relay is not None:
            self._relay.peer_is(full=full)

    def quiet(self) -> float:
        """Return for how many seconds nothing passed."""
        return asyncio.get_running_loop().time() - self._relay.moved if self._relay is not None else 0.0

    def end(self) -> None:
        """Give the port back."""
        if self._relay is None or self._session is None:
            self._lent.give_back()
            return
        counts = self._relay.end()
        octets = f"{counts.sent} octets to the port, {counts.received} from it"
        self._session.tell(": ".join(("transparent mode ended", *filter(None, [self._why]), octets)))

    def _over(self, end: End, why: str) -> None:
        assert self._session is not None  # noqa: S101 - it has begun
        self._why = f"{end.value}: {why}" if why else end.value
        self._session.passage_over(Event.ESCAPE if end is End.ESCAPE else Event.PORT_LOST)


class Transparent:
    """Takes sessions to the ports that the configuration names."""

    def __init__(self, ports: Ports) -> None:
        self.ports = ports
        self._under_way: dict[EnterTransparent, asyncio.Task[str]] = {}

    def begin(self, effect: EnterTransparent, request: Request, sessions: Iterable[Session]) -> str:
        """Begin to open the port for the session that asks, one of `sessions`; returns why it can't be had, or ""."""
        session = next((session for session in sessions if session.runs(request.rid)), None)
        if session is None:
            return "the session is over"
        if why := self.ports.claim(effect.port):
            return why
        work = self._lend(effect, request.rid, session)
        self._under_way[effect] = asyncio.get_running_loop().create_task(work, name="serial port is lent")
        return ""

    async def outcome(self, effect: EnterTransparent) -> str:
        """Wait for what `begin` began; returns why the port can't be had, or ""."""
        return await asyncio.shield(self._under_way.pop(effect))

    async def _lend(self, effect: EnterTransparent, rid: str, session: Session) -> str:
        try:
            lent = await self.ports.open(effect.port, effect.rate)
        except PortError as error:
            return str(error)
        except TimeoutError:
            return f"serial port {effect.port} could not be opened in time"
        passage = Passage(lent)
        if session.lend(rid, passage):
            return ""
        passage.end()
        return "the session is over"
