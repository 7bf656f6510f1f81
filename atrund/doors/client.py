# SPDX-License-Identifier: Apache-2.0
"""The TCP door, client mode: calls the far end, and again when the call ends (TCP-1, TCP-11, TCP-13).

Rules of this file: `atrun/dialer.py` says when is called; whoever is called gets nothing before the token, if there is
to be one.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from atrund.atrun.dialer import Dialer, Effect, Event, Retries, State
from atrund.atrun.request import Door, Reason
from atrund.doors.connection import Connection, Means, Tell
from atrund.doors.dialling import Far, LookUps, Make, open_call
from atrund.doors.login import SessionRules
from atrund.doors.wire import CLOSE_WAIT
from atrund.ledger import Ledger
from atrund.mirror import Mirror

log = structlog.get_logger()

STEADY: Final = 10.0
"""Seconds that a session without a command must last to have got through: a far end that takes calls and drops them
does so at once."""
AGAIN_GAP: Final = 10.0
"""Seconds between two calls "at once": a far end that asks one thing and hangs up is not called without a pause."""
JITTER: Final = 0.1
"""The slow redial's spread, as a share: many devices lose their far end in the same moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientRules(SessionRules):
    """What client mode goes by; times in seconds. `redial`: the slow one, 0 for none."""

    far: Far
    retries: int
    retry_delay: float
    redial: float


Open = Callable[[Far, Make], Awaitable[None]]
"""Opens a connection and gives it to what is made. Raises `OSError`."""


class ClientDoor:
    """Off until switched on; one call at a time."""

    def __init__(
        self,
        rules: Callable[[], ClientRules],
        means: Means,
        *,
        ledger: Ledger,
        mirror: Mirror,
        say: Callable[[str], None],
        on_change: Callable[[], None],
        open_: Open | None = None,
    ) -> None:
        """`rules` gives those of the moment; `say` puts out unsolicited codes (TCP-12)."""
        self.session: Connection | None = None
        """The call that is up."""
        self.detail = ""
        """Why the last call failed, "" where it did not."""
        self._give_rules = rules
        self._rules = rules()
        self._means = means
        self._ledger = ledger
        self._mirror = mirror
        self._say = say
        self._on_change = on_change
        self._open = open_ or partial(open_call, look_up=LookUps())
        self._dialer = Dialer(lambda: Retries(self._rules.retries, self._rules.redial > 0))
        self._calling: asyncio.Task[None] | None = None
        self._made: Connection | None = None
        """The connection of the call under way."""
        self._outcome: asyncio.Future[str] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._up_since = 0.0
        self._again_at = float("-inf")

    @property
    def is_on(self) -> bool:
        """Whether it is switched on."""
        return self._dialer.state is not State.OFF

    @property
    def is_up(self) -> bool:
        """Whether a call is up."""
        return self._dialer.state is State.UP

    @property
    def stat(self) -> int:
        """The <stat> of `#TCPATRUND`."""
        return self._dialer.stat

    @property
    def peer(self) -> str:
        """The far end's address while the call is up, else an empty text."""
        return "" if self.session is None else self.session.peer

    def status(self) -> dict[str, object]:
        """Return what `atrunctl status` shows."""
        far = self._rules.far
        told = {"state": self._dialer.state.value, "host": far.host, "port": far.port, "peer": self.peer}
        return {**told, "retries_left": self._dialer.left, "detail": self.detail}

    def switch_on(self, *, bearer: bool) -> None:
        """Call now, or when the bearer comes; whoever wants to know what became of it asks `outcome`."""
        if not self.is_on:
            self._rules = self._give_rules()
            if not self._rules.token and not self._rules.far.tls:
                log.warning(
                    "client mode has no token: whoever answers there may run commands", host=self._rules.far.host
                )
        self._step(Event.ON)
        if bearer:
            self.bearer_is(up=True)

    def bearer_is(self, *, up: bool) -> None:
        """Take note of the bearer; nothing changes where it was so before."""
        if up and self._dialer.state is State.WAITING:
            self._step(Event.BEARER_UP)
        elif not up and self._dialer.state not in {State.OFF, State.WAITING}:
            self._step(Event.BEARER_DOWN)

    async def outcome(self) -> str:
        """Wait until the call under way is up or failed; returns why it is not up, or ""."""
        if self._outcome is not None:
            return await asyncio.shield(self._outcome)
        if self.is_up:
            return ""
        return self.detail if self.detail and self.is_on else f"client mode: {self._dialer.state.value}"

    def hang_up(self, rid: str = "") -> None:
        """End the call that is up because a request wants it, `rid` where it has one; it is made again (TCP-10)."""
        if self.session is not None:
            self.session.leave(rid)

    def follow(self) -> None:
        """Go by the rules as they are now; another far end is called at once."""
        before, self._rules = self._rules, self._give_rules()
        if self.session is not None:
            self.session.rules = self._rules
        far, other = before.far, self._rules.far
        if self.is_on and self._dialer.state is not State.WAITING and (far.host, far.port) != (other.host, other.port):
            self._step(Event.BEARER_DOWN)
            self._step(Event.BEARER_UP)

    def switch_off(self) -> None:
        """Call no more, and end the session behind the answer that it waits for."""
        if self.is_on:
            self._step(Event.OFF)

    async def close(self) -> None:
        """Switch off, and end the session now."""
        self.switch_off()
        if (session := self.session) is not None:
            session.stop()
            await asyncio.wait([session.ended], timeout=CLOSE_WAIT)

    # What the connection asks (`connection.Host`).

    def admit(self, connection: Connection) -> Tell | None:
        """Take the call that is up, unless it was given up meanwhile."""
        if connection is not self._made or self._dialer.state is not State.DIALLING:
            connection.cut_off()
            return None
        self.session, self._made, self.detail = connection, None, ""
        self._up_since = asyncio.get_running_loop().time()
        self._say(f"#TCPATRUN: {connection.peer}")
        connection.ended.add_done_callback(partial(self._gone, connection))
        self._step(Event.CONNECTED)
        self._resolve("")
        return partial(self._tell, connection.peer)

    def enter(self, _connection: Connection) -> Reason | None:
        """Let in whoever has the token: nobody else is called."""
        return None

    def failed(self, _connection: Connection) -> float:
        """Keep nobody waiting: it is we who call again."""
        return 0.0

    def _gone(self, connection: Connection, _: object) -> None:
        self._say("#TCPATRUN: <DISCONNECT>")
        if self.session is not connection:
            return
        self.session = None
        if self._dialer.state is State.UP:
            lasted = asyncio.get_running_loop().time() - self._up_since
            if connection.has_run or (connection.is_open and lasted >= STEADY):
                self._step(Event.THROUGH)
            self._step(Event.LOST)

    def _step(self, event: Event) -> None:
        for effect in self._dialer.step(event):
            self._perform(effect, event)
        self._on_change()

    def _perform(self, effect: Effect, event: Event) -> None:
        loop = asyncio.get_running_loop()
        match effect:
            case Effect.DIAL:
                self._timer = None
                self._rules = self._give_rules()
                self._outcome = loop.create_future()
                self._calling = loop.create_task(self._call(), name="client mode calls")
            case Effect.HANG_UP:
                self._give_up(event)
            case Effect.ARM_AGAIN:
                at = max(loop.time(), self._again_at + AGAIN_GAP)
                self._again_at = at
                self._timer = loop.call_at(at, self._step, Event.TIMER)
            case Effect.ARM_RETRY:
                self._timer = loop.call_later(self._rules.retry_delay, self._step, Event.TIMER)
            case Effect.ARM_SLOW:
                spread = random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - no secret
                self._timer = loop.call_later(self._rules.redial * spread, self._step, Event.TIMER)
            case Effect.STOP_TIMER:
                if self._timer is not None:
                    self._timer.cancel()
                    self._timer = None

    async def _call(self) -> None:
        self._made = None
        try:
            await self._open(self._rules.far, self._make)
        except (OSError, RuntimeError, ValueError) as error:  # no thread for the look-up, a name that is none
            self.detail = str(error)
            self._tell(self._rules.far.host, "call failed", None, self.detail)
            self._step(Event.FAILED)
            self._resolve(self.detail)

    def _make(self) -> Connection:
        self._made = Connection(self._rules, self._means, host=self)
        return self._made

    def _give_up(self, event: Event) -> None:
        """End the call under way, or the one that is up: at once where its bearer is gone, else behind its answer."""
        if self._outcome is not None:
            if self._calling is not None:
                self._calling.cancel()
            self._made = None
            self._resolve(f"given up: {event.value}")
        elif self.session is not None and event is Event.OFF:
            self.session.finish()
        elif self.session is not None:
            self.session.stop()

    def _resolve(self, why: str) -> None:
        outcome, self._outcome = self._outcome, None
        if outcome is not None and not outcome.done():
            outcome.set_result(why)

    def _tell(self, peer: str, what: str, reason: Reason | None, why: str = "") -> None:
        """Write down who was called, and what became of it."""
        self._ledger.behind(*self._mirror.session(Door.TCP, peer, what, reason.value if reason else why or None))
