# SPDX-License-Identifier: Apache-2.0
"""Which broker is called next, and when: pure arithmetic on the seconds that it is given.

Rules of this file: each new round begins with the preferred broker; on a failure the next one is called; behind the
last there is a pause, which grows. Every pause is drawn at random, for a whole fleet may have lost the same broker, or
its power, in the same moment. One that said "later", or that only a person can open, rests for itself meanwhile.
"""

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

FIRST_PAUSE: Final = 1.0
"""Seconds that a pause is at most, at first, where no wider spread is asked for."""
STABLE: Final = 30.0
"""Seconds after which a connection counts as one that held: its loss says nothing against its broker."""
LATER_PAUSE: Final = 10.0
"""The first pause, and the least of the longest, behind a broker that asks to be spared."""
LONG_PAUSE: Final = 30.0
LONGEST_PAUSE: Final = 600.0
"""The same where only a person can help: the first few tries cost little, and a day of them no more than some MB."""


class Failure(enum.Enum):
    """How a try, or a connection, ended."""

    AWAY = "not there, or lost"
    LATER = "it asks to be called later"
    HOPELESS = "it will not have us until somebody does something"
    TLS = "no TLS with it until somebody does something"
    TAKEN = "another device took the connection over"


@dataclass(frozen=True, slots=True)
class _Pace:
    first: float
    longest: float


_PACES: Final = {
    Failure.LATER: _Pace(LATER_PAUSE, 6 * LATER_PAUSE),
    Failure.HOPELESS: _Pace(LONG_PAUSE, LONGEST_PAUSE),
    Failure.TLS: _Pace(LONG_PAUSE, LONGEST_PAUSE),
    Failure.TAKEN: _Pace(LONG_PAUSE, LONGEST_PAUSE),
}


class Dialling:
    """The order and the pauses of one daemon's calls. `now` is always in seconds, of any clock that goes on."""

    def __init__(self, count: int, *, spread: float, longest: float, uniform: Callable[[float, float], float]) -> None:
        """`count` brokers; `spread`: how widely a fleet's first calls are; `longest`: the longest usual pause."""
        self._spread = spread
        self._first = max(FIRST_PAUSE, spread)
        self._longest = max(longest, self._first)
        self._uniform = uniform
        self._next = 0
        self._not_before = 0.0
        self._rounds = 0
        self._rests = [0.0] * count
        self._failed = [0] * count
        """How often each failed, running, in a way that makes it rest."""
        self._taken = 0

    def begin(self, now: float) -> None:
        """Start anew with the preferred broker: a whole city may have got its power back in this moment."""
        self._next, self._rounds, self._taken = 0, 0, 0
        self._rests = [0.0] * len(self._rests)
        self._not_before = now + self._uniform(0.0, self._spread)

    def next(self, now: float) -> tuple[int, float]:
        """Return which broker is called next, by its place in the list, and how many seconds to wait before."""
        at = max(now, self._not_before, min(self._rests))
        order = (*range(self._next, len(self._rests)), *range(self._next))
        which = next(place for place in order if self._rests[place] <= at)
        return which, at - now

    def failed(self, which: int, failure: Failure, now: float) -> None:
        """Take note that a try failed, or that a connection was lost before it could count as one that held."""
        if failure is Failure.TAKEN:
            self._back_off(now)
            return
        self._rest(which, failure, now)
        pause = self._uniform(0.0, self._first)
        later = [place for place in range(which + 1, len(self._rests)) if self._rests[place] <= now + pause]
        if later:
            self._next, self._not_before = later[0], now + pause
        else:
            self._next = 0
            self._not_before = now + self._uniform(0.0, min(self._longest, self._first * 2.0**self._rounds))
            self._rounds = min(self._rounds + 1, _ENOUGH)

    def lost(self, which: int, failure: Failure, lasted: float, now: float) -> None:
        """Take note that a connection ended after so many seconds."""
        if failure is not Failure.TAKEN:
            self._taken = 0
        if lasted > STABLE:
            self._rounds, self._failed[which] = 0, 0
            if failure is Failure.AWAY:
                self._next, self._not_before = 0, now + self._uniform(0.0, self._first)
                return
        self.failed(which, failure, now)

    def left(self, now: float) -> None:
        """Take note that a lesser broker was left in order, for a better one answers again."""
        self._next, self._not_before = 0, now
        self._rests = [0.0] * len(self._rests)

    def _rest(self, which: int, failure: Failure, now: float) -> None:
        if failure is Failure.AWAY:
            self._failed[which] = 0
            return
        self._rests[which] = now + self._drawn(_PACES[failure], self._failed[which])
        self._failed[which] += 1

    def _back_off(self, now: float) -> None:
        """Leave all of them alone: the other device calls the same ones."""
        self._next, self._not_before = 0, now + self._drawn(_PACES[Failure.TAKEN], self._taken)
        self._taken += 1

    def _drawn(self, pace: _Pace, before: int) -> float:
        longest = max(pace.longest, self._longest)
        return self._uniform(0.5, 1.0) * min(longest, pace.first * 2.0 ** min(before, _ENOUGH))


_ENOUGH: Final = 20
"""Doublings past which no pause grows."""
