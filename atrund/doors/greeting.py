# SPDX-License-Identifier: Apache-2.0
"""Shakes hands with who calls the TCP door by TLS (TCP-13).

Rules of this file: whoever is turned away is so before the handshake, unread; a handshake has a bound in time, and one
under way counts among the newcomers, so that nobody fills the door by saying nothing.
"""

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

import structlog

from atrund.doors.certificates import Certificates
from atrund.doors.connection import Connection
from atrund.doors.listening import reset
from atrund.doors.wire import CLOSING
from atrund.tls import explain, names

log = structlog.get_logger()

HANDSHAKE: Final = 10.0
"""Seconds for a handshake: two round trips, each of some seconds on a bad cellular link."""
AGAIN: Final = 1.0
"""Seconds until connections are taken again where the system had no room for one more."""
AT_ONCE: Final = 16
"""Connections taken in one turn of the event loop: others get theirs."""


class Greeted(Protocol):
    """Who decides about callers."""

    def turns_away(self, peer: str) -> bool:
        """Return whether a caller is turned away, having written it down then."""

    def patience(self) -> float:
        """Return for how many seconds nobody needs to be waited for."""

    def expect(self) -> Connection:
        """Return what takes the connection once hands were shaken."""

    def failed_to_greet(self, peer: str, why: str) -> None:
        """Take note of a handshake that failed."""


@dataclass(eq=False, slots=True)
class _Caller:
    peer: str
    since: float
    link: socket.socket
    given: bool = False
    """Whether the event loop has the socket, and closes it."""
    task: "asyncio.Task[None] | None" = None


class Greeter:
    """Takes connections from sockets, and gives those that speak TLS on."""

    def __init__(self, certificates: Certificates, host: Greeted) -> None:
        self._certificates = certificates
        self._host = host
        self._listeners: list[socket.socket] = []
        self._callers: dict[Connection, _Caller] = {}
        self._again: asyncio.TimerHandle | None = None

    @property
    def peers(self) -> list[str]:
        """Who is shaking hands."""
        return [caller.peer for caller in self._callers.values()]

    async def begin(self) -> None:
        """Read the certificates. Raises `OSError` where they can't be used."""
        await self._certificates.context()

    def open(self, listener: socket.socket, backlog: int) -> None:
        """Take connections from a bound socket, whose owner closes it behind `close`."""
        listener.setblocking(False)
        listener.listen(backlog)
        self._listeners.append(listener)
        asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def close(self) -> None:
        """Take no more connections, and end the handshakes."""
        if self._again is not None:
            self._again.cancel()
        for listener in self._listeners:
            asyncio.get_running_loop().remove_reader(listener)
        self._listeners.clear()
        self.drop(lambda _peer: True)

    def drop(self, is_gone: Callable[[str], bool]) -> None:
        """End the handshakes of these peers."""
        for caller in tuple(self._callers.values()):
            if caller.task is not None and is_gone(caller.peer):
                caller.task.cancel()

    def shaken(self, connection: Connection) -> float:
        """Take note that a connection is made, so that it is no handshake any more; returns the seconds it took."""
        caller = self._callers.pop(connection)
        return asyncio.get_running_loop().time() - caller.since

    def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(AT_ONCE):
            try:
                link, address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                log.warning("tcp door takes no connection for a moment", detail=error.strerror)
                for one in self._listeners:
                    loop.remove_reader(one)
                self._again = loop.call_later(AGAIN, self._accept_again)
                return
            if self._host.turns_away(address[0]):
                reset(link)
                link.close()
            else:
                self._greet(link, address[0])

    def _accept_again(self) -> None:
        for listener in self._listeners:
            asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def _greet(self, link: socket.socket, peer: str) -> None:
        loop = asyncio.get_running_loop()
        link.setblocking(False)
        connection = self._host.expect()
        caller = self._callers[connection] = _Caller(peer, loop.time(), link)
        caller.task = loop.create_task(self._shake(caller, connection), name="tls handshake")
        caller.task.add_done_callback(partial(self._over, caller, connection))

    async def _shake(self, caller: _Caller, connection: Connection) -> None:
        try:
            async with asyncio.timeout(min(HANDSHAKE, self._host.patience())):
                context = await self._certificates.context()
                caller.given = True
                await asyncio.get_running_loop().connect_accepted_socket(
                    lambda: connection,
                    caller.link,
                    ssl=context,
                    ssl_handshake_timeout=HANDSHAKE + 1,  # ours comes first
                    ssl_shutdown_timeout=CLOSING,
                )
        except OSError as error:  # which TimeoutError is
            self._host.failed_to_greet(caller.peer, explain(error))
            _let_go(error)

    def _over(self, caller: _Caller, connection: Connection, _: object) -> None:
        self._callers.pop(connection, None)
        if not caller.given:
            caller.link.close()


def _let_go(error: BaseException) -> None:
    """Take the frames from an error: they are in a ring with it, and hold the buffers of TLS, 300 kB, with them."""
    one: BaseException | None = error
    while one is not None:
        one.__traceback__ = None
        one = one.__cause__ or one.__context__


def shown_names(connection: Connection) -> tuple[str, ...]:
    """Return the names of the certificate that a peer showed and that was verified; none if it showed none."""
    shown = connection.transport.get_extra_info("peercert")
    return names(shown) if shown else ()
