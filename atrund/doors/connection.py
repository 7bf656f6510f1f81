# SPDX-License-Identifier: Apache-2.0
"""One connection as the AT interface, whoever called: commands and answers as they come (TCP-3 to TCP-8, TCP-13).

Rules of this file: the session's table says what happens next; nothing typed before the login is run, echoed or logged.
Everything happens in the event loop's call for the bytes that came: what was typed is on its way before it returns.
"""

import contextlib
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from atrund.at.exchange import Prompted
from atrund.at.results import FinalKind
from atrund.atrun.instance import LineEditor, show_final, show_line, show_prompt, show_unsolicited
from atrund.atrun.interface import Interface
from atrund.atrun.request import Door, Outcome, Reason, Request
from atrund.atrun.session import Effect, Event, Session, State
from atrund.atrun.telnet import Telnet
from atrund.doors.login import SessionRules, login_fits, token_fits
from atrund.doors.wire import Wire
from atrund.instances import Instances
from atrund.own import Own
from atrund.run import Run
from atrund.runner import Runner
from atrund.timer import Timer

if TYPE_CHECKING:  # few ask for it
    from atrund.doors.transparent import Passage

QUEUED_MAX: Final = 64
"""Lines kept while a command runs (#TCPATCMDSEQ=1). While so many wait nothing is read, so that the peer waits too."""
Tell = Callable[[str, Reason | None], None]
"""Is told what happened to the session: what, and why if it went wrong."""


class Host(Protocol):
    """Who decides about a connection: the server, or who dialled."""

    def admit(self, connection: "Connection") -> Tell | None:
        """Return whom to tell from then on, or None when the peer was turned away."""

    def enter(self, connection: "Connection") -> Reason | None:
        """Take note of a good login; returns why there is no place for it, if so."""

    def failed(self, connection: "Connection") -> float:
        """Take note of a bad login; returns for how many seconds it is to be kept waiting."""


@dataclass(frozen=True, slots=True)
class Means:
    """What a session works with."""

    runner: Runner
    own: Own
    instances: Instances


class Connection(Wire):
    """What stands between one connection and the runner."""

    _run: Run | None

    def __init__(self, rules: SessionRules, means: Means, *, host: Host) -> None:
        super().__init__()
        self._rules = rules
        self.is_leaving = False
        """Whether the peer said that it will say nothing more."""
        self.is_open = False
        self.has_run = False
        """Whether it ever was the AT interface, and whether a line was run."""
        self.certified: tuple[str, ...] = ()
        """What the peer's certificate calls it, where it showed one (TCP-13)."""
        self._means = means
        self._instance = rules.instance
        self._host = host
        self._tell: Tell = lambda _what, _reason: None
        self._session = Session()
        self._telnet = Telnet()
        self._editor = LineEditor(takes_lf=True)
        self._name = ""
        self._queued: deque[str] = deque()
        self._run = None
        self._timer = Timer()
        self._finishing = False
        self._reason: Reason | None = None
        self._passage: Passage | None = None
        """The serial port that it has, or is to have behind the answer that it waits for."""
        self._hearing = contextlib.ExitStack()

    # What the wire says.

    def made(self) -> None:
        """Begin, if the peer is let in."""
        tell = self._host.admit(self)
        if tell is None:
            self._session.step(Event.STOPPED)
            return
        self._tell = tell
        self.keep_alive(self.rules.packets.keepalive)
        self._tell("connected", None)
        self._step(self.rules.beginning)

    def took(self, data: bytes) -> None:
        """Take what was typed, or what is to pass."""
        if self._session.state is State.TRANSPARENT and self._passage is not None:
            self._passage.take(data)
            self._read_or_wait()
        elif self._session.state is not State.CLOSED:
            self._take(data)

    def eof_received(self) -> bool:
        """A peer that will say nothing more still gets the answers to what it said, as `nc` at the end of a file does.

        Returns whether the connection is to stay for that. Its place is anybody's meanwhile: it may as well be gone.
        Where TLS is spoken it is: asyncio sends nothing more behind the peer's close_notify.
        """
        self.is_leaving = True
        if self.speaks_tls:
            self._peer_closed()
        self._leave_when_done()
        return self._session.state is not State.CLOSED

    def filled(self) -> None:
        """Wait for a peer that leaves too much unread, or go on."""
        if self._passage is not None:
            self._passage.peer_is(full=self.is_full)
        if self.is_full and self._session.state is State.TRANSPARENT:
            self.be_patient(0)  # the port waits, as long as TCP and the idle timeout do
            return
        self._read_or_wait()
        if not self.is_full:
            self._pass_on()

    def lost(self, why: str) -> None:
        """Take note that the connection is gone."""
        if why:
            self._tell(f"connection lost: {why}", None)
        self._peer_closed()

    # What the door says.

    @property
    def rules(self) -> SessionRules:
        """May be exchanged at any time; the instance stays what it was at the login."""
        return self._rules

    @rules.setter
    def rules(self, rules: SessionRules) -> None:
        before, self._rules = self._rules, rules
        if rules.packets.keepalive != before.packets.keepalive:
            self.keep_alive(rules.packets.keepalive)

    @property
    def login(self) -> str:
        """The name of who is logged in, "" before that."""
        return self._name if self._session.state in _LOGGED_IN else ""

    def stop(self) -> None:
        """End the session because the service ends."""
        if self._session.state is not State.CLOSED:
            self._reason = Reason.SHUTDOWN
            self._step(Event.STOPPED)

    def leave(self, rid: str) -> None:
        """End the session at once; if it is its own request that wants that, behind the answer."""
        if self.runs(rid):
            self.finish()
        else:
            self.stop()

    def finish(self, *, yes: bool = True) -> None:
        """End the session as `stop` does, but behind the answer of the command that runs; `yes` false: or not.

        At a prompt nothing is waited for: it is the peer who is.
        """
        self._finishing = yes
        if yes and self._session.state is not State.RUNNING:
            self.stop()

    def pass_on(self, data: bytes) -> None:
        """Send what came from the serial port."""
        self.write(data)

    def has_room(self) -> None:
        """Read on, for the serial port takes more."""
        self._read_or_wait()

    def passage_over(self, event: Event) -> None:
        """Leave transparent mode, which ended by itself."""
        self._step(event)

    def tell(self, what: str) -> None:
        """Have it written down."""
        self._tell(what, None)

    def runs(self, rid: str) -> bool:
        """Whether it waits for the answer to that request."""
        return self._run is not None and self._run.request.rid == rid

    def lend(self, rid: str, passage: "Passage") -> bool:
        """Take a serial port for behind that answer; False when it waits for it no more."""
        if not self.runs(rid):
            return False
        self._passage = passage
        return True

    # The session.

    @property
    def _interface(self) -> Interface:
        return self._means.own.interface(self._instance)

    def _leave_when_done(self) -> None:
        if self.is_leaving and self._session.state is not State.RUNNING and not self._queued:
            self._peer_closed()

    def _peer_closed(self) -> None:
        if self._session.state is not State.CLOSED:
            self._step(Event.PEER_CLOSED)

    def _take(self, data: bytes) -> None:
        if self._run is not None and self._run.awaits_octets and not self._telnet.spoken:
            data = self._give(data)
        typed, answer = self._telnet.feed(data)
        if self._session.state in _LOGGED_IN:  # nothing is sent before the login (TCP-3)
            self.write(answer)
        typed = self._give(typed)
        # Line by line, for what a line does decides whether the next is echoed, queued or ignored.
        for piece in typed.splitlines(keepends=True):
            if self._session.state in _DEAF:
                break
            if self._session.state is State.RUNNING and not self.rules.sequence:
                break  # input while a command runs is ignored, and so not echoed either (TCP-5)
            self._type(piece)
        self.pay()
        if self._session.state in _IDLE:
            self._arm(self.rules.idle_timeout, Event.IDLE_TIMEOUT, Reason.IDLE)

    def _give(self, typed: bytes) -> bytes:
        """Pass on what is data for a prompt, and return the rest. The module's echo is off, so it is made here."""
        if self._session.state is not State.DATA or self._run is None:
            return typed
        taken = self._run.give(typed)
        if self._interface.on("E"):
            self.write(taken.echo)
        if not self._run.awaits_data:
            self._step(Event.DATA_ENDED)
        self._read_or_wait()
        return taken.rest

    def _type(self, piece: bytes) -> None:
        given = self._editor.feed(piece)
        if self._session.state in _LOGGED_IN and self._interface.on("E"):
            self.owe(given.echo)  # it leaves behind the command, while the module is busy with that
        for line in given.lines:
            if self._session.state in _LOGIN or line.strip():
                self._step(Event.LINE, line)

    def _step(self, event: Event, line: str = "") -> None:
        for effect in self._session.step(event):
            self._perform(effect, line)

    def _perform(self, effect: Effect, line: str) -> None:
        match effect:
            case Effect.ARM_LOGIN | Effect.KEEP_NAME | Effect.CHECK_LOGIN | Effect.CHECK_TOKEN | Effect.BEGIN:
                self._log_in(effect, line)
            case Effect.ARM_IDLE:
                self._arm(self.rules.idle_timeout, Event.IDLE_TIMEOUT, Reason.IDLE)
            case Effect.STOP_TIMER:
                self._timer.stop()
            case Effect.EXECUTE:
                self._execute(line)
            case Effect.QUEUE_OR_IGNORE:
                if self.rules.sequence:
                    self._queued.append(line)
                    self._read_or_wait()
            case Effect.SHOW_PROMPT:
                self.write(line.encode("latin-1", "replace"))
                self._read_or_wait()
            case Effect.NEXT:
                self._take_next()
            case Effect.RELAY | Effect.END_RELAY | Effect.SHOW_END:
                self._pass_bytes(effect)
            case Effect.CLOSE:
                self._close()

    def _log_in(self, effect: Effect, line: str) -> None:
        match effect:
            case Effect.ARM_LOGIN:
                self._arm(self.rules.login_timeout, Event.LOGIN_TIMEOUT, Reason.AUTH)
                self._prompt(b"Username: ")
            case Effect.KEEP_NAME:
                self._name = line
                self._prompt(b"\r\nPassword: ")
            case Effect.CHECK_LOGIN:
                self._judge(login_fits(self.rules.users, self._name, line), f"login {self._name}", "login refused")
            case Effect.CHECK_TOKEN:
                self._judge(token_fits(self.rules.token, line), "token right", "token refused")
            case Effect.BEGIN:
                self.is_open = True
                self._editor.repeats = True
                self._editor.follow(self._interface)
                self._hearing.enter_context(self._means.instances.listening(self._instance, self._hear))

    def _judge(self, fits: bool, good: str, bad: str) -> None:  # noqa: FBT001 - what it is about
        self._reason = self._host.enter(self) if fits else Reason.AUTH
        self._tell(good if self._reason is None else bad, self._reason)
        if self._reason is None:
            self._prompt(b"\r\nLogin successful.\r\n")
            self._step(Event.LOGIN_GOOD)
        elif not fits and (wait := self._host.failed(self)):  # what is typed meanwhile counts for nothing
            self._arm(wait, Event.LOGIN_BAD, Reason.AUTH)
        else:
            self._step(Event.LOGIN_BAD)

    def _take_next(self) -> None:
        # Whoever is gone is not run for: while the queue is full nothing is read, and only a write shows that.
        if self._queued and not self.transport.is_closing():
            self._step(Event.LINE, self._queued.popleft())
        self._read_or_wait()
        self._leave_when_done()

    def _execute(self, line: str) -> None:
        self.has_run = True
        request = Request(
            rid=uuid.uuid4().hex,
            door=Door.TCP,
            peer=self.peer,
            line=line,
            timeout=self.rules.timeout,
            delay=self._means.own.delays.tcp,  # as it is by now: no setting, so that the rules do not follow it
            instance=self._instance,
            names=(*((self._name,) if self._name else ()), *self.certified),
            interactive=True,
        )
        self._run = self._means.runner.start(request)
        self._run.watch(self._pass_on)

    def _pass_on(self) -> None:
        """Pass on what there is of the answer; a client that reads too slowly stops its own run, never the port."""
        run = self._run
        if run is None or self.is_full:
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
        self.write(text.encode("latin-1", "replace"))  # in one packet, for that costs more than a line
        if over:
            self._run = None
            self._editor.follow(interface)
            if self._finishing:
                self.stop()
            elif self._session.state in _BUSY:
                self._step(self._event_of(outcome))
            return
        if self._session.state is State.DATA and not run.awaits_data:
            self._step(Event.DATA_ENDED)  # the module wants no more of it
        if self._session.state is State.DATA and self._finishing:
            self.stop()
        self._leave_when_done()
        self._read_or_wait()

    def _hear(self, lines: tuple[str, ...]) -> None:
        """Pass an unsolicited code on, unless the peer reads so slowly that no more is kept for it."""
        if not self.is_full and self._session.state is not State.TRANSPARENT:
            self.write(show_unsolicited(lines, self._interface).encode("latin-1", "replace"))

    def _event_of(self, outcome: Outcome | None) -> Event:
        """Return how a command's end goes on: CONNECT where a serial port is there for it, which is else given back."""
        if self._passage is not None and outcome is not None and outcome.final == FinalKind.CONNECT.value:
            return Event.CONNECT
        self._end_passage()
        return Event.FINAL

    def _pass_bytes(self, effect: Effect) -> None:
        match effect:
            case Effect.RELAY:
                assert self._passage is not None  # noqa: S101 - without one there is no CONNECT
                socket = self.transport.get_extra_info("socket")
                self._passage.begin(self, socket, self.rules.packets, self._interface.value("S2"))
                self._passage.peer_is(full=self.is_full)
                self._read_or_wait()
                self._leave_when_done()
            case Effect.END_RELAY:
                self._end_passage()
            case Effect.SHOW_END:
                self.write(show_unsolicited((FinalKind.NO_CARRIER.value,), self._interface).encode("ascii"))

    def _end_passage(self) -> None:
        passage, self._passage = self._passage, None
        if passage is not None:
            passage.end()
            self.be_patient()

    def _prompt(self, text: bytes) -> None:
        if self.rules.step_login:
            self.write(text)

    def _read_or_wait(self) -> None:
        """Read on unless so much waits already that the peer is to wait too."""
        if self._session.state is State.TRANSPARENT:
            waits = self._passage is not None and self._passage.is_full
        elif self._session.state is State.DATA:
            waits = self.is_full or (self._run is not None and self._run.is_full)
        else:
            waits = self.is_full or len(self._queued) >= QUEUED_MAX
        self.read_on(not waits)

    def _arm(self, seconds: float, event: Event, reason: Reason) -> None:
        self._timer.start(seconds, partial(self._time_out, event, reason))

    def _time_out(self, event: Event, reason: Reason) -> None:
        if self._passage is not None and event is Event.IDLE_TIMEOUT:
            left = self.rules.idle_timeout - self._passage.quiet()
            if left > 0 or not self.rules.idle_timeout:
                self._arm(max(0.0, left), event, reason)
                return
        self._reason = reason
        self._step(event)

    def _close(self) -> None:
        self._hearing.close()
        self._end_passage()
        self._tell("disconnected", self._reason)
        if self._run is not None:
            self._run.give_up(self._reason)
            self._run = None
        self._queued.clear()
        self.hang_up()


_LOGIN: Final = frozenset({State.NAME, State.PASSWORD, State.TOKEN})
_LOGGED_IN: Final = frozenset({State.COMMAND, State.RUNNING, State.DATA, State.TRANSPARENT})
_BUSY: Final = frozenset({State.RUNNING, State.DATA})
_DEAF: Final = frozenset({State.CLOSED, State.CHECKING})
_IDLE: Final = frozenset({State.COMMAND, State.DATA})
