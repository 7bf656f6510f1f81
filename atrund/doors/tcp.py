# SPDX-License-Identifier: Apache-2.0
"""The TCP door, server mode: who may connect, and where (TCP-2, TCP-3, TCP-13).

Rules of this file: whoever is turned away gets nothing back, is not read, and costs no more than a line of the record.
Whoever has not logged in yet takes nobody's place.
"""

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

import structlog

from atrund.atrun.attempts import Attempts, Tally
from atrund.atrun.firewall import Rule, admits
from atrund.atrun.request import Door, Reason
from atrund.doors.connection import Connection, Means, Tell
from atrund.doors.listening import Shelf, keep_out, kept_out, let_in, listening, reset
from atrund.doors.login import SessionRules
from atrund.doors.wire import CLOSE_WAIT
from atrund.ledger import Ledger
from atrund.mirror import Mirror

if TYPE_CHECKING:  # few speak TLS
    from atrund.doors.greeting import Greeter
    from atrund.tls import Files

log = structlog.get_logger()

CERTIFIED: Final = "cert:"
"""What stands before a certificate's name where a rule's `peer` means it: nobody's login is mistaken for it."""
BACKLOG: Final = 128
"""Connections that the kernel keeps until they are looked at: one more would wait for its SYN to be repeated."""
NEWCOMERS_MAX: Final = 32
NEWCOMERS_OF_ONE: Final = 4
"""Connections that have not logged in yet, and of one address: nobody fills the door by himself."""
NEWCOMERS_TLS_MAX: Final = 16
"""Those by TLS, handshakes under way among them: each has buffers of 300 kB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpRules(SessionRules):
    """What the door goes by.

    `interfaces`: those that an address off loopback is served on, all of them if there are none (TCP-13).
    `login_failures`: wrong pairs after which an address is shut out, for `shut_out` seconds (0: never).
    `sessions`: how many may be in at once; `replace`: whether one more who logs in puts out who came first. `tls`: the
    certificates, None for clear text; which of both it is counts at the start alone.
    """

    listen: tuple[str, ...]
    port: int
    firewall: tuple[Rule, ...]
    interfaces: tuple[str, ...] = ()
    login_failures: int = 5
    shut_out: float = 900.0
    sessions: int = 1
    replace: bool = False
    tls: "Files | None" = None


class TcpDoor:
    """Listens until closed."""

    def __init__(
        self,
        rules: Callable[[], TcpRules],
        means: Means,
        *,
        ledger: Ledger,
        mirror: Mirror,
        say: Callable[[str], None] = lambda _line: None,
        keep_out: Callable[[socket.socket, tuple[Rule, ...]], None] = keep_out,
        shelf: Shelf | None = None,
    ) -> None:
        """`rules` gives those of the moment; where to listen is looked at once, at the start.

        `say` puts out the service's unsolicited codes (TCP-12); `keep_out` gives the kernel the firewall's rules.
        """
        self._say = say
        self._shelf = shelf
        self._keep_out = keep_out
        self.ports: tuple[int, ...] = ()
        """The ports listened on, one an address; they matter where the kernel chose."""
        self.sessions: list[Connection] = []
        """Who is logged in, in the order of their logins."""
        self._newcomers: set[Connection] = set()
        self._outcast: set[Connection] = set()
        """Who is to leave, whatever the rules say by then."""
        self._give_rules = rules
        self._rules = rules()
        self._means = means
        self._ledger = ledger
        self._mirror = mirror
        self._servers: list[asyncio.Server] = []
        self._listeners: list[socket.socket] = []
        self._greeter: Greeter | None = None
        self._unfiltered = False
        self._attempts = Attempts()
        self._refused, self._seen, self._ungreeted = Tally(), Tally(), Tally()

    async def start(self) -> None:
        """Open the door. Raises `OSError` for an address that can't be listened on, or a certificate of no use."""
        port = self._rules.port
        loop = asyncio.get_running_loop()
        if self._rules.tls is not None:
            self._greeter = await self._make_greeter()
        for address in self._rules.listen:
            everywhere = ip_address(address).is_loopback or not self._rules.interfaces
            for interface in ("",) if everywhere else self._rules.interfaces:
                listener = self._from_shelf(address, port, interface) or listening(address, port, interface)
                self._listeners.append(listener)
                self._filter(listener)
                if self._greeter is not None:
                    self._greeter.open(listener, BACKLOG)
                else:
                    server = await loop.create_server(self.expect, sock=listener, backlog=BACKLOG)
                    self._servers.append(server)
                port = port or listener.getsockname()[1]
        if self._shelf is not None:
            for listener in self._listeners:
                self._shelf.keep(listener)
        self.ports = tuple(listener.getsockname()[1] for listener in self._listeners)

    def follow(self) -> None:
        """Go by the rules as they are now; a peer that they shut out is put out."""
        self._rules = self._give_rules()
        for listener in self._listeners:
            self._filter(listener)
        if self._greeter is not None:
            self._greeter.drop(lambda peer: not admits(self._rules.firewall, peer))
        for newcomer in tuple(self._newcomers):
            newcomer.rules = self._rules
            if not admits(self._rules.firewall, newcomer.peer):
                newcomer.stop()
        for session in self.sessions:
            session.rules = self._rules
            # A line may empty the list and fill it again, and be this very session's: its answer comes first.
            session.finish(yes=session in self._outcast or not admits(self._rules.firewall, session.peer))

    def put_out(self, is_gone: Callable[[str], bool]) -> None:
        """End the sessions whose login is gone, each behind the answer that it waits for."""
        for session in tuple(self.sessions):
            if is_gone(session.login):
                self._outcast.add(session)
                session.finish()

    def hang_up(self, rid: str = "") -> None:
        """End the sessions because a request wants it, `rid` where it has one; the door stays open (TCP-10)."""
        for session in tuple(self.sessions):
            session.leave(rid)

    def shut(self) -> None:
        """Close the door to others, and end each session behind the answer that it waits for."""
        self._stop_listening()
        for newcomer in tuple(self._newcomers):
            newcomer.stop()
        for session in tuple(self.sessions):
            session.finish()

    async def close(self) -> None:
        """Close the door and end the sessions."""
        self._stop_listening()
        inside = [*self._newcomers, *self.sessions]
        for connection in inside:
            connection.stop()
        if inside:
            await asyncio.wait([connection.ended for connection in inside], timeout=CLOSE_WAIT)

    @property
    def session(self) -> Connection | None:
        """The session of who came in first of those who are in."""
        return self.sessions[0] if self.sessions else None

    @property
    def peer(self) -> str:
        """Who came in first of those who are in, or an empty text."""
        return self.sessions[0].peer if self.sessions else ""

    @property
    def kept_out(self) -> int:
        """How many packets of strangers the kernel dropped; who sent them is not known (POL-4)."""
        return sum(kept_out(listener) for listener in self._listeners)

    # What a connection asks (`connection.Host`).

    def admit(self, connection: Connection) -> Tell | None:
        """Look at who connects."""
        peer, now = connection.peer, asyncio.get_running_loop().time()
        if self._greeter is not None:
            self._greet(connection, self._greeter)
        if self.turns_away(peer):
            reset(connection.transport.get_extra_info("socket"))
            connection.cut_off()
            return None
        self._newcomers.add(connection)
        connection.ended.add_done_callback(partial(self._gone, connection))
        return partial(self._tell_of, connection, bool(self._seen.note(peer, now)))

    def enter(self, connection: Connection) -> Reason | None:
        """Give a place to who has logged in, if one is free or to be freed."""
        self._attempts.succeeded(connection.peer)
        if self._is_full() and not self._rules.replace:
            return Reason.BUSY
        while len(self.sessions) >= self._rules.sessions:
            # One that only waits for an answer may as well be gone, and gives way before the others.
            first = next((session for session in self.sessions if session.is_leaving), self.sessions[0])
            if not first.is_leaving:
                self._tell(first.peer, f"replaced by {connection.peer}", Reason.BUSY.value)
            first.stop()
            self._gone(first)
        self._newcomers.discard(connection)
        self.sessions.append(connection)
        self._say(f"#TCPATRUN: {connection.peer}")
        if connection.certified:
            self._tell(connection.peer, f"certificate of {', '.join(connection.certified)}", None)
        return None

    def failed(self, connection: Connection) -> float:
        """Slow down who guesses, and shut out who goes on."""
        now, rules = asyncio.get_running_loop().time(), self._rules
        wait = self._attempts.failed(connection.peer, now, most=rules.login_failures, shut_out=rules.shut_out)
        if self._attempts.is_shut_out(connection.peer, now):
            self._tell(connection.peer, f"shut out for {rules.shut_out:g} s", Reason.AUTH.value)
        return wait

    # What the greeter asks (`greeting.Greeted`).

    def turns_away(self, peer: str) -> bool:
        """Return whether a caller is turned away, having written it down then."""
        now = asyncio.get_running_loop().time()
        if not admits(self._rules.firewall, peer):
            reason = Reason.FIREWALL
        elif self._attempts.is_shut_out(peer, now):
            reason = Reason.AUTH
        elif (self._is_full() and not self._rules.replace) or self._is_crowded(peer):
            reason = Reason.BUSY
        else:
            return False
        if what := self._refused.worded("refused", peer, now):
            self._tell(peer, what, reason.value)
        return True

    def patience(self) -> float:
        """Return for how many seconds a login is waited for; the handshake is the beginning of one."""
        return self._rules.login_timeout

    def expect(self) -> Connection:
        """Return what takes the next connection."""
        return Connection(self._rules, self._means, host=self)

    def failed_to_greet(self, peer: str, why: str) -> None:
        """Write down a handshake that failed, but not each of many."""
        if what := self._ungreeted.worded("handshake failed", peer, asyncio.get_running_loop().time()):
            self._tell(peer, what, why)

    async def _make_greeter(self) -> "Greeter":
        from atrund.doors.certificates import Certificates  # noqa: PLC0415 - few speak TLS
        from atrund.doors.greeting import Greeter  # noqa: PLC0415 - as above
        from atrund.tls import Files, server_context  # noqa: PLC0415 - as above

        greeter = Greeter(Certificates(lambda: self._rules.tls or Files(), server_context, "tcp.tls"), self)
        await greeter.begin()
        return greeter

    def _greet(self, connection: Connection, greeter: "Greeter") -> None:
        """Go by the rules as they are behind the handshake, which has taken some of the login's time."""
        from atrund.doors.greeting import shown_names  # noqa: PLC0415 - few speak TLS

        left = max(self._rules.login_timeout - greeter.shaken(connection), 0.1)
        connection.rules = replace(self._rules, login_timeout=left)
        connection.certified = tuple(f"{CERTIFIED}{name}" for name in shown_names(connection))

    def _is_full(self) -> bool:
        return sum(not session.is_leaving for session in self.sessions) >= self._rules.sessions

    def _is_crowded(self, peer: str) -> bool:
        peers, most = [newcomer.peer for newcomer in self._newcomers], NEWCOMERS_MAX
        if self._greeter is not None:
            peers, most = peers + self._greeter.peers, NEWCOMERS_TLS_MAX
        return peers.count(peer) >= NEWCOMERS_OF_ONE or len(peers) >= most

    def _gone(self, connection: Connection, _: object = None) -> None:
        self._newcomers.discard(connection)
        if connection in self.sessions:
            self.sessions.remove(connection)
            self._outcast.discard(connection)
            self._say("#TCPATRUN: <DISCONNECT>")

    def _from_shelf(self, address: str, port: int, interface: str) -> socket.socket | None:
        return None if self._shelf is None else self._shelf.at_port(address, port, interface)

    def _stop_listening(self) -> None:
        if self._shelf is not None:
            for listener in self._listeners:
                if listener.fileno() >= 0:
                    self._shelf.drop(listener)
        for server in self._servers:
            server.close()
        if self._greeter is not None:
            self._greeter.close()
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()

    def _filter(self, listener: socket.socket) -> None:
        """Have the kernel keep strangers out; where it does not, they are reset when they come."""
        try:
            self._keep_out(listener, self._rules.firewall)
        except OSError as error:
            if not self._unfiltered:
                log.info("strangers are refused by the daemon, not by the kernel", detail=error.strerror)
            self._unfiltered = True
            let_in(listener)

    def _tell_of(self, connection: Connection, was_noted: bool, what: str, reason: Reason | None) -> None:  # noqa: FBT001 - bound once
        """Write down what a connection did, but not each coming and going of one who never logs in."""
        if was_noted or connection in self.sessions or what not in {"connected", "disconnected"}:
            self._tell(connection.peer, what, reason and reason.value)

    def _tell(self, peer: str, what: str, reason: str | None) -> None:
        """Write down who came, went, was let in or kept out."""
        self._ledger.behind(*self._mirror.session(Door.TCP, peer, what, reason))
