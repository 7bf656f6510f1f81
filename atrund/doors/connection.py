# SPDX-License-Identifier: Apache-2.0
"""One connection as the AT interface: login, commands and answers as they come (TCP-3, TCP-4, TCP-5, TCP-7, TCP-8).

Rules of this file: the session's table says what happens next; nothing typed before the login is run, echoed or logged.
Everything happens in the event loop's call for the bytes that came: what was typed is on its way before it returns.
"""

import asyncio
import contextlib
import hmac
import socket
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from atrund.at.exchange import Prompted
from atrund.atrun.instance import LineEditor, show_final, show_line, show_prompt, show_unsolicited
from atrund.atrun.interface import Interface
from atrund.atrun.request import Door, Reason, Request
from atrund.atrun.session import Effect, Event, Session, State
from atrund.atrun.telnet import Telnet
from atrund.instances import Instances
from atrund.own import Own
from atrund.run import Run
from atrund.runner import Runner

log = structlog.get_logger()

READ_SIZE: Final = 4096
"""Octets that are taken at once: what one client types or pastes never keeps the others waiting."""
QUEUED_MAX: Final = 64
"""Lines kept while a command runs (#TCPATCMDSEQ=1). While so many wait nothing is read, so that the peer waits too."""
UNSENT_MAX: Final = 262_144
UNSENT_PATIENCE: Final = 30.0
"""Octets that a client may leave unread, and seconds until it is cut off then: never the port's time."""
CLOSING: Final = 2.0
"""Seconds for the last answer to leave."""

Tell = Callable[[str, Reason | None], None]
"""Is told what happened to the session: what, and why if it went wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRules:
    """What a session goes by; times in seconds, 0 for none. `users` are pairs of name and password.

    `step_login`: name and password are asked for, one after the other (TCP-3).
    """

    users: tuple[tuple[str, str], ...] = field(repr=False)
    login_timeout: float
    idle_timeout: float
    timeout: float
    delay: float
    sequence: bool
    instance: int = 1
    step_login: bool = False


@dataclass(frozen=True, slots=True)
class Means:
    """What a session works with."""

    runner: Runner
    own: Own
    instances: Instances


class Connection(asyncio.BufferedProtocol):
    """What stands between one transport and the runner."""

    _run: Run | None

    def __init__(self, rules: SessionRules, means: Means, *, admit: Callable[["Connection"], Tell | None]) -> None:
        """`admit` is asked when the peer is known: whom to tell from then on, or None when it was turned away."""
        self.rules = rules
        """May be exchanged at any time; the instance stays what it was at the login."""
        self.peer = ""
        self.transport: asyncio.Transport
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Resolves when the connection is gone."""
        self._means = means
        self._instance = rules.instance
        self._admit = admit
        self._tell: Tell = lambda _what, _reason: None
        self._session = Session()
        self._telnet = Telnet()
        self._editor = LineEditor()
        self._buffer = bytearray(READ_SIZE)
        self._name = ""
        self._queued: deque[str] = deque()
        self._run = None
        self._timer: asyncio.TimerHandle | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._full = False
        self._finishing = False
        self._reason: Reason | None = None
        self._hearing = contextlib.ExitStack()

    # What the event loop says.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, if the peer is let in."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - a server of streams makes no other
        self.transport = transport
        peer: tuple[str, int] | None = transport.get_extra_info("peername")
        self.peer = peer[0] if peer else "::"
        tell = self._admit(self)
        if tell is None:
            self._session.step(Event.STOPPED)
            return
        self._tell = tell
        _no_delay(transport)
        transport.set_write_buffer_limits(high=UNSENT_MAX, low=UNSENT_MAX - READ_SIZE)
        self._tell("connected", None)
        self._step(Event.CONNECTED)

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002 - the caller's wish, which is always larger
        """Return where the next octets are to be put."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was put there."""
        if self._session.state is not State.CLOSED:
            self._take(bytes(self._buffer[:nbytes]))

    def eof_received(self) -> None:
        """A peer that will say nothing more is gone: a telnet that vanished must not hold the place."""
        self._peer_closed()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - why is no matter of ours
        """Take note that the connection is gone."""
        self._peer_closed()
        self._be_patient(None)
        if not self.ended.done():
            self.ended.set_result(None)

    def pause_writing(self) -> None:
        """Wait for a peer that leaves too much unread, for a while."""
        self._full = True
        self._be_patient(asyncio.get_running_loop().call_later(UNSENT_PATIENCE, self._cut_off))
        self._read_or_wait()

    def resume_writing(self) -> None:
        """Go on, for the peer reads."""
        self._full = False
        self._be_patient(None)
        self._read_or_wait()
        self._pass_on()

    # What the door says.

    def stop(self) -> None:
        """End the session because the service ends."""
        if self._session.state is not State.CLOSED:
            self._reason = Reason.SHUTDOWN
            self._step(Event.STOPPED)

    def finish(self, *, yes: bool = True) -> None:
        """End the session as `stop` does, but behind the answer of the command that runs; `yes` false: or not."""
        self._finishing = yes
        if yes and self._session.state not in _BUSY:
            self.stop()

    # The session.

    @property
    def _interface(self) -> Interface:
        return self._means.own.interface(self._instance)

    def _peer_closed(self) -> None:
        if self._session.state is not State.CLOSED:
            self._step(Event.PEER_CLOSED)

    def _take(self, data: bytes) -> None:
        if self._run is not None and self._run.awaits_octets and not self._telnet.spoken:
            data = self._give(data)
        typed, answer = self._telnet.feed(data)
        if self._session.state in _LOGGED_IN:  # nothing is sent before the login (TCP-3)
            self._write(answer)
        typed = self._give(typed)
        # Line by line, for what a line does decides whether the next is echoed, queued or ignored.
        for piece in typed.splitlines(keepends=True):
            if self._session.state in {State.CLOSED, State.CHECKING}:
                return
            if self._session.state is State.RUNNING and not self.rules.sequence:
                return  # input while a command runs is ignored, and so not echoed either (TCP-5)
            self._type(piece)
        if self._session.state in {State.COMMAND, State.DATA}:
            self._arm(self.rules.idle_timeout, Event.IDLE_TIMEOUT, Reason.IDLE)

    def _give(self, typed: bytes) -> bytes:
        """Pass on what is data for a prompt, and return the rest. The module's echo is off, so it is made here."""
        if self._session.state is not State.DATA or self._run is None:
            return typed
        taken = self._run.give(typed)
        if self._interface.on("E"):
            self._write(taken.echo)
        if not self._run.awaits_data:
            self._step(Event.DATA_ENDED)
        self._read_or_wait()
        return taken.rest

    def _type(self, piece: bytes) -> None:
        given = self._editor.feed(piece)
        if self._session.state in _LOGGED_IN and self._interface.on("E"):
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
                self._arm(self.rules.login_timeout, Event.LOGIN_TIMEOUT, Reason.AUTH)
                self._prompt(b"Username: ")
            case Effect.KEEP_NAME:
                self._name = line
                self._prompt(b"\r\nPassword: ")
            case Effect.CHECK_LOGIN:
                self._check_login(line)
            case Effect.ARM_IDLE:
                self._arm(self.rules.idle_timeout, Event.IDLE_TIMEOUT, Reason.IDLE)
            case Effect.STOP_TIMER:
                self._stop_timer()
            case Effect.EXECUTE:
                self._execute(line)
            case Effect.QUEUE_OR_IGNORE:
                if self.rules.sequence:
                    self._queued.append(line)
                    self._read_or_wait()
            case Effect.SHOW_PROMPT:
                self._write(line.encode("latin-1", "replace"))
                self._read_or_wait()
            case Effect.NEXT:
                self._take_next()
            case Effect.CLOSE:
                self._close()

    def _check_login(self, password: str) -> None:
        if _login_fits(self.rules.users, self._name, password):
            self._tell(f"login {self._name}", None)
            self._prompt(b"\r\nLogin successful.\r\n")
            self._editor.repeats = True
            self._editor.follow(self._interface)
            self._hearing.enter_context(self._means.instances.listening(self._instance, self._hear))
            self._step(Event.LOGIN_GOOD)
        else:
            self._reason = Reason.AUTH
            self._tell("login refused", Reason.AUTH)
            self._step(Event.LOGIN_BAD)

    def _take_next(self) -> None:
        # Whoever is gone is not run for: while the queue is full nothing is read, and only a write shows that.
        if self._queued and not self.transport.is_closing():
            self._step(Event.LINE, self._queued.popleft())
        self._read_or_wait()

    def _execute(self, line: str) -> None:
        request = Request(
            rid=uuid.uuid4().hex,
            door=Door.TCP,
            peer=self.peer,
            line=line,
            timeout=self.rules.timeout,
            delay=self.rules.delay,
            instance=self._instance,
            names=(self._name,),
            interactive=True,
        )
        self._run = self._means.runner.start(request)
        self._run.watch(self._pass_on)

    def _pass_on(self) -> None:
        """Pass on what there is of the answer; a client that reads too slowly stops its own run, never the port."""
        run = self._run
        if run is None or self._full:
            return
        interface = self._interface
        text = ""
        for said in run.take():
            if isinstance(said, Prompted):
                self._step(Event.PROMPT_AGAIN if said.again else Event.PROMPT, text + show_prompt(said))
                text = ""
            else:
                text += show_line(said, interface)
        over = run.outcome.done()
        if over and (outcome := run.outcome.result()) is not None:
            text += show_final(outcome, interface)
        self._write(text.encode("latin-1", "replace"))  # in one packet, for that costs more than a line
        if over:
            self._run = None
            self._editor.follow(interface)
            if self._finishing:
                self.stop()
            elif self._session.state in _BUSY:
                self._step(Event.FINAL)
            return
        if self._session.state is State.DATA and not run.awaits_data:
            self._step(Event.DATA_ENDED)  # the module wants no more of it
        self._read_or_wait()

    def _hear(self, lines: tuple[str, ...]) -> None:
        """Pass an unsolicited code on, unless the peer reads so slowly that no more is kept for it."""
        if not self._full:
            self._write(show_unsolicited(lines, self._interface).encode("latin-1", "replace"))

    def _prompt(self, text: bytes) -> None:
        if self.rules.step_login:
            self._write(text)

    def _write(self, data: bytes) -> None:
        if data and not self.transport.is_closing():
            self.transport.write(data)

    def _read_or_wait(self) -> None:
        """Read on unless so much waits already that the peer is to wait too."""
        if self.transport.is_closing():
            return
        if self._session.state is State.DATA:
            waits = self._run is not None and self._run.is_full
        else:
            waits = len(self._queued) >= QUEUED_MAX
        if self._full or waits:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def _be_patient(self, timer: asyncio.TimerHandle | None) -> None:
        if self._patience is not None:
            self._patience.cancel()
        self._patience = timer

    def _cut_off(self) -> None:
        log.warning("client cut off: it does not read", door=Door.TCP.value, peer=self.peer)
        self.transport.abort()

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
        """End it, with a bound: a peer that never reads must not keep the place."""
        self._hearing.close()
        self._tell("disconnected", self._reason)
        if self._run is not None:
            self._run.give_up(self._reason)
            self._run = None
        self._queued.clear()
        if not self.ended.done():
            asyncio.get_running_loop().call_later(CLOSING, self.transport.abort)
        self.transport.close()


_LOGGED_IN: Final = frozenset({State.COMMAND, State.RUNNING, State.DATA})
_BUSY: Final = frozenset({State.RUNNING, State.DATA})


def _login_fits(users: Sequence[tuple[str, str]], name: str, password: str) -> bool:
    """Compare with every pair in constant time, so that neither a name's nor a password's beginning can be felt out."""
    given = f"{name}\0{password}".encode("latin-1")  # the octets as they came, which are UTF-8 as the file is
    fits = False
    for user, secret in users:
        fits |= hmac.compare_digest(f"{user}\0{secret}".encode(), given)
    return fits


def _no_delay(transport: asyncio.Transport) -> None:
    connection: socket.socket = transport.get_extra_info("socket")
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
