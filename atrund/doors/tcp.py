# SPDX-License-Identifier: Apache-2.0
"""The TCP door, server mode: who may connect, and where (TCP-2, TCP-13).

Rules of this file: whoever is turned away gets nothing back, is not read, and costs no more than a line of the record.
"""

import asyncio
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import Final

from atrund.atrun.firewall import Rule, admits
from atrund.atrun.request import Door, Reason
from atrund.doors.connection import Connection, Means, SessionRules, Tell
from atrund.ledger import Ledger
from atrund.mirror import Mirror

BACKLOG: Final = 16
"""Connections that the kernel keeps until they are looked at: there is one session, and refusing is quick."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpRules(SessionRules):
    """What the door goes by.

    `interfaces`: those that an address off loopback is served on, all of them if there are none (TCP-13).
    """

    listen: tuple[str, ...]
    port: int
    firewall: tuple[Rule, ...]
    interfaces: tuple[str, ...] = ()


class TcpDoor:
    """Listens until closed; one session at a time."""

    def __init__(
        self,
        rules: Callable[[], TcpRules],
        means: Means,
        *,
        ledger: Ledger,
        mirror: Mirror,
        say: Callable[[str], None] = lambda _line: None,
    ) -> None:
        """`rules` gives those of the moment; where to listen is looked at once, at the start.

        `say` puts out the service's unsolicited codes (TCP-12).
        """
        self._say = say
        self.ports: tuple[int, ...] = ()
        """The ports listened on, one an address; they matter where the kernel chose."""
        self.session: Connection | None = None
        """The one that is in, until its connection is gone."""
        self._give_rules = rules
        self._rules = rules()
        self._means = means
        self._ledger = ledger
        self._mirror = mirror
        self._servers: list[asyncio.Server] = []

    async def start(self) -> None:
        """Open the door. Raises `OSError` for an address that can't be listened on."""
        port = self._rules.port
        loop = asyncio.get_running_loop()
        for address in self._rules.listen:
            everywhere = ip_address(address).is_loopback or not self._rules.interfaces
            for interface in ("",) if everywhere else self._rules.interfaces:
                listener = _listener(address, port, interface)
                server = await loop.create_server(self._connection, sock=listener, backlog=BACKLOG)
                self._servers.append(server)
                port = port or listener.getsockname()[1]
        self.ports = tuple(server.sockets[0].getsockname()[1] for server in self._servers)

    def follow(self) -> None:
        """Go by the rules as they are now; a peer that they shut out is put out."""
        self._rules = self._give_rules()
        if self.session is not None:
            self.session.rules = self._rules
            # A line may empty the list and fill it again, and be this very session's: its answer comes first.
            self.session.finish(yes=not admits(self._rules.firewall, self.session.peer))

    def shut(self) -> None:
        """Close the door to others, and end the session behind the answer that it waits for."""
        for server in self._servers:
            server.close()
        if self.session is not None:
            self.session.finish()

    async def close(self) -> None:
        """Close the door and end the session."""
        for server in self._servers:
            server.close()
        if (session := self.session) is not None:
            session.stop()
            await asyncio.wait([session.ended], timeout=_CLOSE_WAIT)

    @property
    def peer(self) -> str:
        """Who is in, or an empty text."""
        return "" if self.session is None else self.session.peer

    def _connection(self) -> Connection:
        return Connection(self._rules, self._means, admit=self._admit)

    def _admit(self, connection: Connection) -> Tell | None:
        tell = partial(self._tell, connection.peer)
        if not admits(self._rules.firewall, connection.peer):
            _reset(connection.transport)
            tell("refused", Reason.FIREWALL)
            return None
        if self.session is not None:
            _reset(connection.transport)
            tell("refused", Reason.BUSY)
            return None
        self.session = connection
        self._say(f"#TCPATRUN: {connection.peer}")
        connection.ended.add_done_callback(self._gone)
        return tell

    def _gone(self, _: object) -> None:
        self.session = None
        self._say("#TCPATRUN: <DISCONNECT>")

    def _tell(self, peer: str, what: str, reason: Reason | None) -> None:
        """Write down who came, went, was let in or kept out."""
        self._ledger.behind(*self._mirror.session(Door.TCP, peer, what, reason.value if reason else None))


_CLOSE_WAIT: Final = 3.0
"""Seconds for a session to end: it takes its connection down by itself within two."""


def _listener(address: str, port: int, interface: str) -> socket.socket:
    """Make a listening socket; on one interface alone, that the kernel keeps to, where one is named."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if interface:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        listener.bind((address, port))
    except OSError as error:
        listener.close()
        where = f"{address} port {port}" + (f" on {interface}" if interface else "")
        raise OSError(error.errno, f"tcp door: {where}: {error.strerror}") from error
    return listener


def _reset(transport: asyncio.Transport) -> None:
    """Close with RST, unread: a stranger gets no byte and leaves no half-closed socket behind."""
    connection: socket.socket = transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
