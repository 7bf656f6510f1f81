# SPDX-License-Identifier: Apache-2.0
"""The TCP door, server mode: who may connect, log in and type commands (TCP-2 to TCP-5, TCP-7, TCP-8).

Rules of this file: the session's table says what happens next; nothing typed before the login is run, echoed or logged.
"""

import asyncio
import contextlib
import hmac
import socket
import struct
import uuid
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

import structlog

from atrund.atrun.firewall import Rule, admits
from atrund.atrun.instance import LineEditor, frame_final, frame_line
from atrund.atrun.request import Door, Reason, Request
from atrund.atrun.session import Effect, Event, Session, State
from atrund.atrun.telnet import Telnet
from atrund.ledger import Ledger
from atrund.mirror import Mirror
from atrund.runner import Run, Runner

log = structlog.get_logger()

READ_SIZE: Final = 4096
QUEUED_MAX: Final = 64
"""Lines kept while a command runs (#TCPATCMDSEQ=1). While so many wait nothing is read, so that the peer waits too."""
BACKLOG: Final = 16
"""Connections that the kernel keeps until they are looked at: there is one session, and refusing is quick."""
UNSENT_MAX: Final = 262_144
UNSENT_PATIENCE: Final = 30.0
"""Octets that a client may leave unread, and seconds until it is cut off then: never the port's time."""


@dataclass(frozen=True, slots=True)
class TcpRules:
    """What the door goes by; times in seconds. `users` are pairs of name and password.

    `interfaces`: those that an address off loopback is served on, all of them if there are none (TCP-13).
    """

    listen: tuple[str, ...]
    port: int
    firewall: tuple[Rule, ...]
    users: tuple[tuple[str, str], ...]
    login_timeout: float
    idle_timeout: float
    timeout: float
    delay: float
    sequence: bool
    interfaces: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"TcpRules(listen={self.listen}, port={self.port})"


class TcpDoor:
    """Listens until closed; one session at a time."""

    def __init__(self, rules: TcpRules, *, runner: Runner, ledger: Ledger, mirror: Mirror) -> None:
        self.ports: tuple[int, ...] = ()
        """The ports listened on, one an address; they matter where the kernel chose."""
        self._rules = rules
        self._runner = runner
        self._ledger = ledger
        self._mirror = mirror
        self._servers: list[asyncio.Server] = []
        self._session: _Connection | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Open the door. Raises `OSError` for an address that can't be listened on."""
        port = self._rules.port
        for address in self._rules.listen:
            everywhere = ip_address(address).is_loopback or not self._rules.interfaces
            for interface in ("",) if everywhere else self._rules.interfaces:
                listener = _listener(address, port, interface)
                server = await asyncio.start_server(self._come, sock=listener, limit=READ_SIZE, backlog=BACKLOG)
                self._servers.append(server)
                port = port or listener.getsockname()[1]
        self.ports = tuple(server.sockets[0].getsockname()[1] for server in self._servers)

    async def close(self) -> None:
        """Close the door and end the session."""
        for server in self._servers:
            server.close()
        if self._session is not None:
            self._session.stop()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=2.0)

    @property
    def peer(self) -> str:
        """Who is in, or an empty text."""
        return "" if self._session is None else self._session.peer

    async def _come(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = _address(writer)
        if not admits(self._rules.firewall, peer):
            _reset(writer)
            self.tell(peer, "refused", Reason.FIREWALL)
            return
        if self._session is not None:
            _reset(writer)
            self.tell(peer, "refused", Reason.BUSY)
            return
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine of a server runs in a task
        self._tasks.add(task)
        self._session = _Connection(self._rules, reader, writer, peer, self._runner, self)
        try:
            await self._session.run()
        finally:
            self._session = None
            self._tasks.discard(task)

    def tell(self, peer: str, what: str, reason: Reason | None = None) -> None:
        """Write down who came, went, was let in or kept out."""
        self._ledger.behind(*self._mirror.session(Door.TCP, peer, what, reason.value if reason else None))


class _Connection:
    def __init__(  # noqa: PLR0917 - one call, in this file
        self,
        rules: TcpRules,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        peer: str,
        runner: Runner,
        door: TcpDoor,
    ) -> None:
        self.peer = peer
        self._rules = rules
        self._reader = reader
        self._writer = writer
        self._runner = runner
        self._door = door
        self._session = Session()
        self._telnet = Telnet()
        self._editor = LineEditor()
        self._name = ""
        self._user = ""
        self._queued: deque[str] = deque()
        self._room = asyncio.Event()
        self._room.set()
        self._run: Run | None = None
        self._answering: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._reason: Reason | None = None

    async def run(self) -> None:
        self._door.tell(self.peer, "connected")
        self._step(Event.CONNECTED)
        try:
            _no_delay(self._writer)
            self._writer.transport.set_write_buffer_limits(high=UNSENT_MAX, low=UNSENT_MAX - READ_SIZE)
            while self._session.state is not State.CLOSED:
                await self._room.wait()
                data = await self._reader.read(READ_SIZE)
                if not data:
                    break
                self._take(data)
                await self._not_too_much_unsent()
        except OSError:
            pass
        finally:
            if self._session.state is not State.CLOSED:
                self._step(Event.PEER_CLOSED)
            await self._wind_up()

    def stop(self) -> None:
        """End the session because the service ends."""
        if self._session.state is not State.CLOSED:
            self._reason = Reason.SHUTDOWN
            self._step(Event.STOPPED)

    def _take(self, data: bytes) -> None:
        typed, answer = self._telnet.feed(data)
        if self._session.state in {State.COMMAND, State.RUNNING}:  # nothing is sent before the login (TCP-3)
            self._write(answer)
        # Line by line, for what a line does decides whether the next is echoed, queued or ignored.
        for piece in typed.splitlines(keepends=True):
            if self._session.state in {State.CLOSED, State.CHECKING}:
                return
            if self._session.state is State.RUNNING and not self._rules.sequence:
                return  # input while a command runs is ignored, and so not echoed either (TCP-5)
            self._type(piece)
        if self._session.state is State.COMMAND:
            self._arm(self._rules.idle_timeout, Event.IDLE_TIMEOUT, Reason.IDLE)

    def _type(self, piece: bytes) -> None:
        given = self._editor.feed(piece)
        if self._session.state in {State.COMMAND, State.RUNNING} and given.echo:
            self._write(given.echo)
        for line in given.lines:
            if self._session.state in {State.NAME, State.PASSWORD} or line.strip():
                self._step(Event.LINE, line)

    def _step(self, event: Event, line: str = "") -> None:
        for effect in self._session.step(event):
            self._perform(effect, line)

    def _perform(self, effect: Effect, line: str) -> None:
        match effect:
            case Effect.ARM_LOGIN:
                self._arm(self._rules.login_timeout, Event.LOGIN_TIMEOUT, Reason.AUTH)
            case Effect.KEEP_NAME:
                self._name = line
            case Effect.CHECK_LOGIN:
                self._check_login(line)
            case Effect.ARM_IDLE:
                self._arm(self._rules.idle_timeout, Event.IDLE_TIMEOUT, Reason.IDLE)
            case Effect.STOP_TIMER:
                self._stop_timer()
            case Effect.EXECUTE:
                self._execute(line)
            case Effect.QUEUE_OR_IGNORE:
                if self._rules.sequence:
                    self._queue(line)
            case Effect.NEXT:
                self._take_next()
            case Effect.CLOSE:
                self._close()

    def _check_login(self, password: str) -> None:
        if _login_fits(self._rules.users, self._name, password):
            self._user = self._name
            self._door.tell(self.peer, f"login {self._user}")
            self._step(Event.LOGIN_GOOD)
        else:
            self._reason = Reason.AUTH
            self._door.tell(self.peer, "login refused", Reason.AUTH)
            self._step(Event.LOGIN_BAD)

    def _queue(self, line: str) -> None:
        self._queued.append(line)
        if len(self._queued) >= QUEUED_MAX:
            self._room.clear()

    def _take_next(self) -> None:
        # Whoever is gone is not run for: while the queue is full nothing is read, and only a write shows that.
        if self._queued and not self._writer.transport.is_closing():
            self._step(Event.LINE, self._queued.popleft())
        if len(self._queued) < QUEUED_MAX or self._writer.transport.is_closing():
            self._room.set()

    def _execute(self, line: str) -> None:
        request = Request(
            rid=uuid.uuid4().hex,
            door=Door.TCP,
            peer=self.peer,
            line=line,
            timeout=self._rules.timeout,
            delay=self._rules.delay,
        )
        self._run = self._runner.start(request)
        self._answering = asyncio.get_running_loop().create_task(self._answer(self._run), name="tcp answer")

    async def _answer(self, run: Run) -> None:
        """Pass the answer on as it comes; a client that reads too slowly stops its own run, never the port."""
        text = ""
        async for line in run.lines():
            text += frame_line(line)
            if run.has_more and len(text) < READ_SIZE:
                continue  # what came together leaves together, the final result too: a packet costs more than a line
            self._write(text.encode("latin-1"))
            text = ""
            await self._not_too_much_unsent()
        outcome = await asyncio.shield(run.outcome)
        if outcome is not None:
            text += frame_final(outcome)
        self._write(text.encode("latin-1", "replace"))
        self._run = None
        if self._session.state is State.RUNNING:
            self._step(Event.FINAL)

    async def _not_too_much_unsent(self) -> None:
        if not self._writer.transport.get_write_buffer_size():
            return
        try:
            async with asyncio.timeout(UNSENT_PATIENCE):
                await self._writer.drain()
        except TimeoutError:
            log.warning("client cut off: it does not read", door=Door.TCP.value, peer=self.peer)
            self._writer.transport.abort()
        except OSError:
            self._writer.transport.abort()

    def _write(self, data: bytes) -> None:
        if data and not self._writer.transport.is_closing():
            self._writer.write(data)

    def _arm(self, seconds: float, event: Event, reason: Reason) -> None:
        self._stop_timer()
        if seconds:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._time_out, event, reason)

    def _time_out(self, event: Event, reason: Reason) -> None:
        self._timer = None
        self._reason = reason
        self._step(event)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close(self) -> None:
        self._door.tell(self.peer, "disconnected", self._reason)
        if self._run is not None:
            self._run.give_up(self._reason)
        self._room.set()
        self._writer.close()
        self._reader.feed_eof()

    async def _wind_up(self) -> None:
        """Wait for the connection's end, with a bound: a peer that never reads must not keep the place."""
        if self._answering is not None:
            self._answering.cancel()
        try:
            async with asyncio.timeout(_CLOSING):
                with contextlib.suppress(OSError):
                    await self._writer.wait_closed()
        except TimeoutError:
            self._writer.transport.abort()


_CLOSING: Final = 2.0
"""Seconds for the last answer to leave."""


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


def _login_fits(users: Sequence[tuple[str, str]], name: str, password: str) -> bool:
    """Compare with every pair in constant time, so that neither a name's nor a password's beginning can be felt out."""
    given = f"{name}\0{password}".encode("latin-1")  # the octets as they came, which are UTF-8 as the file is
    fits = False
    for user, secret in users:
        fits |= hmac.compare_digest(f"{user}\0{secret}".encode(), given)
    return fits


def _address(writer: asyncio.StreamWriter) -> str:
    peer: tuple[str, int] | None = writer.get_extra_info("peername")
    return peer[0] if peer else "::"


def _no_delay(writer: asyncio.StreamWriter) -> None:
    connection: socket.socket = writer.get_extra_info("socket")
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST, unread: a stranger gets no byte and leaves no half-closed socket behind."""
    connection: socket.socket = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
