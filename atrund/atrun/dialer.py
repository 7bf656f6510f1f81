# SPDX-License-Identifier: Apache-2.0
"""Client mode's calls and retries as a table (TCP-11, TCP-14).

Rules of this file: nothing is dialled while the bearer is away; a call that is lost is made again at once, but once;
then as often as `retryCnt` says, `retryDelay` apart; then slowly or never. A session that got through, the bearer's
return and switching on fill all of that up again.
"""

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from atrund.table import To, step


class State(enum.Enum):
    """Where client mode is."""

    OFF = "off"
    WAITING = "bearer awaited"
    DIALLING = "dialling"
    UP = "up"
    AGAIN = "dials again at once"
    RETRYING = "retry awaited"
    SLOW = "slow redial awaited"
    SPENT = "gave up"


class Event(enum.Enum):
    """What can happen to it. How a call failed is weighed by `Dialer`: the outside says `FAILED` and `LOST` alone."""

    ON = "switched on"
    OFF = "switched off"
    BEARER_UP = "bearer up"
    BEARER_DOWN = "bearer down"
    CONNECTED = "connected"
    THROUGH = "got through"
    LOST = "lost"
    FAILED = "failed, a retry left"
    FAILED_SLOW = "failed, retries spent"
    FAILED_LAST = "failed for good"
    TIMER = "timer"


class Effect(enum.Enum):
    """What is to be done."""

    DIAL = "dial"
    HANG_UP = "give the call up"
    ARM_AGAIN = "start the timer for at once"
    ARM_RETRY = "start the retry timer"
    ARM_SLOW = "start the slow timer"
    STOP_TIMER = "stop the timer"


_DIAL: Final = To(State.DIALLING, (Effect.DIAL,))
_DIAL_NOW: Final = To(State.DIALLING, (Effect.STOP_TIMER, Effect.DIAL))
_FAILURES: Final[dict[Event, To[State, Effect]]] = {
    Event.FAILED: To(State.RETRYING, (Effect.ARM_RETRY,)),
    Event.FAILED_SLOW: To(State.SLOW, (Effect.ARM_SLOW,)),
    Event.FAILED_LAST: To(State.SPENT),
}
_IN_CALL: Final[dict[Event, To[State, Effect]]] = {
    Event.OFF: To(State.OFF, (Effect.HANG_UP,)),
    Event.BEARER_DOWN: To(State.WAITING, (Effect.HANG_UP,)),
}
_BETWEEN: Final[dict[Event, To[State, Effect]]] = {
    Event.ON: _DIAL_NOW,
    Event.TIMER: _DIAL,
    Event.OFF: To(State.OFF, (Effect.STOP_TIMER,)),
    Event.BEARER_DOWN: To(State.WAITING, (Effect.STOP_TIMER,)),
}

TRANSITIONS: Final[dict[State, dict[Event, To[State, Effect]]]] = {
    State.OFF: {Event.ON: To(State.WAITING)},
    State.WAITING: {
        Event.ON: To(State.WAITING),
        Event.BEARER_UP: _DIAL,
        Event.OFF: To(State.OFF),
    },
    State.DIALLING: {
        Event.ON: To(State.DIALLING),
        Event.CONNECTED: To(State.UP),
        **_FAILURES,
        **_IN_CALL,
    },
    State.UP: {
        Event.ON: To(State.UP),
        Event.THROUGH: To(State.UP),
        Event.LOST: To(State.AGAIN, (Effect.ARM_AGAIN,)),
        **_FAILURES,
        **_IN_CALL,
    },
    State.AGAIN: _BETWEEN,
    State.RETRYING: _BETWEEN,
    State.SLOW: _BETWEEN,
    State.SPENT: {
        Event.ON: _DIAL,
        Event.OFF: To(State.OFF),
        Event.BEARER_DOWN: To(State.WAITING),
    },
}

_STAT: Final = {State.OFF: 0, State.DIALLING: 1, State.UP: 1, State.SPENT: 0}
_REFILLS: Final = frozenset({Event.ON, Event.BEARER_UP, Event.THROUGH})


@dataclass(frozen=True, slots=True)
class Retries:
    """How often is called: `count` retries; `slow`: it is gone on slowly behind them."""

    count: int
    slow: bool


class Dialer:
    """Where client mode is, and how many calls are left; `step` moves it."""

    def __init__(self, retries: Callable[[], Retries]) -> None:
        """`retries` gives those of the moment."""
        self.state = State.OFF
        self.left = 0
        """Retries that are left."""
        self._again = False
        self._retries = retries

    @property
    def stat(self) -> int:
        """The <stat> of `#TCPATRUND`: 0 not connected, 1 connected or connecting, 2 a further attempt is planned."""
        return _STAT.get(self.state, 2)

    def step(self, event: Event) -> tuple[Effect, ...]:
        """Move on and return the effects to carry out, in order. Raises `IllegalTransition`, and nothing changed."""
        retries = self._retries()
        weighed = self._weighed(event, retries)
        to = step(TRANSITIONS, self.state, weighed)
        self.state = to.state
        if weighed in _REFILLS:
            self.left, self._again = retries.count, True
        elif weighed is Event.LOST:
            self._again = False
        elif weighed is Event.FAILED:
            self.left -= 1
        return to.effects

    def _weighed(self, event: Event, retries: Retries) -> Event:
        """Return what a failure comes to. What was lost behind the call at once counts as one that failed."""
        if event not in {Event.FAILED, Event.LOST} or (event is Event.LOST and self._again):
            return event
        if min(self.left, retries.count) > 0:
            return Event.FAILED
        return Event.FAILED_SLOW if retries.slow else Event.FAILED_LAST
