# SPDX-License-Identifier: Apache-2.0
"""Who has the port next: one holder at a time, fair by weight between those who ask (REQ-3).

Rules of this file: turns are shared as start-time fair queueing shares a line. Each asker has a mark on a common scale
that a turn moves on by one stride, the shorter the greater its weight; the smallest mark is next, and of equal ones
the asker that was served longest ago. Who comes anew begins where the scale stands: neither credit nor debt is kept.
So, while A waits, B gets at most floor(weight of B / weight of A) + 1 turns, and one where their weights are equal.
"""

import asyncio
import math
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

DEPTH: Final = 32
MAX_WAIT: Final = 600.0
URGENT: Final = "undo"
"""Who has the next turn whoever else waits (POL-2): it asks rarely, and a bounded number of times."""
WEIGHT_MAX: Final = 10
"""The greatest weight: with it the lightest still gets one turn of eleven between two."""

_SCALE: Final = math.lcm(*range(1, WEIGHT_MAX + 1))
"""One turn of weight 1; every stride is a whole number, so that nothing is lost in rounding over the years."""


class QueueFullError(Exception):
    """One asker has too many requests waiting already."""


class WaitedTooLongError(Exception):
    """The turn did not come in time."""


@dataclass(frozen=True, slots=True)
class Place:
    """One that has the port, or waits for it.

    `what` is for people, `rid` the request that it is for, if any; `since` is the event loop's time of the beginning.
    """

    asker: str
    what: str
    rid: str
    since: float


@dataclass(slots=True, eq=False)
class _Waiting:
    place: Place
    future: asyncio.Future[None]


class Turns:
    """Grants turns. `weights`: 1 to `WEIGHT_MAX` by asker, 1 for those that are not named."""

    def __init__(
        self, *, depth: int = DEPTH, max_wait: float = MAX_WAIT, weights: Mapping[str, int] | None = None
    ) -> None:
        self._depth = depth
        self._max_wait = max_wait
        self._strides = {asker: _SCALE // weight for asker, weight in (weights or {}).items()}
        self._holder: Place | None = None
        self._closed: Exception | None = None
        self._kept_for = ""
        self._kept_from: Exception | None = None
        self._waiting: dict[str, deque[_Waiting]] = {}
        self._scale = 0
        self._marks: dict[str, int] = {}
        """Where each asker may begin its next turn; askers are as few as doors."""
        self._turn = 0
        self._served: dict[str, int] = {}
        """The number of each asker's last turn."""

    async def take(self, asker: str, *, what: str = "", rid: str = "") -> None:
        """Wait for a turn; give it back with `release`.

        Raises `QueueFullError`, `WaitedTooLongError`, or what `close` or `keep_for` was given.
        """
        if self.take_now(asker, what=what, rid=rid):
            return
        loop = asyncio.get_running_loop()
        place = Place(asker, what, rid, loop.time())
        queue = self._waiting.setdefault(asker, deque())
        if len(queue) >= self._depth:
            raise QueueFullError(f"{len(queue)} requests of {asker} wait already")
        if not queue:
            self._mark_anew(asker)
        waiting = _Waiting(place, loop.create_future())
        queue.append(waiting)
        future = waiting.future
        try:
            async with asyncio.timeout(self._max_wait):
                await future
        except TimeoutError as error:
            if future.cancelled():
                raise WaitedTooLongError(f"no turn on the port within {self._max_wait:g} s") from error
            future.result()  # the turn, or the end of the queue, came in the moment of the deadline
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self.release()  # the turn came in the moment of the cancellation
            raise
        finally:
            self._forget(asker, waiting)

    def take_now(self, asker: str, *, what: str = "", rid: str = "") -> bool:
        """Take a turn if nobody has one; returns whether it was. Raises what `close` or `keep_for` was given."""
        self._expect_open(asker)
        if self._holder is not None:
            return False
        self._mark_anew(asker)
        self._serve(asker, what, rid)
        return True

    def release(self) -> None:
        """Give the turn to the next asker."""
        self._holder = None
        while self._waiting:
            asker = min(self._waiting, key=self._rank)
            queue = self._waiting[asker]
            while queue:
                waiting = queue.popleft()
                if not waiting.future.done():
                    self._serve(asker, waiting.place.what, waiting.place.rid)
                    waiting.future.set_result(None)
                    return
            del self._waiting[asker]

    @property
    def load(self) -> int:
        """How many have the port or wait for it."""
        return (self._holder is not None) + sum(len(queue) for queue in self._waiting.values())

    @property
    def depths(self) -> dict[str, int]:
        """How many requests wait, by asker."""
        return {asker: len(queue) for asker, queue in self._waiting.items() if queue}

    @property
    def holder(self) -> Place | None:
        """Who has the port; `since` is when the turn began."""
        return self._holder

    def queue(self) -> Iterator[Place]:
        """Yield who waits, in the order in which they get their turns if nobody else comes."""
        left = {asker: deque(one.place for one in queue) for asker, queue in self._waiting.items() if queue}
        marks, served, turn = dict(self._marks), dict(self._served), self._turn
        while left:
            asker = min(left, key=lambda one: _rank(one, marks, served))
            yield left[asker].popleft()
            turn += 1
            marks[asker] += self._stride(asker)
            served[asker] = turn
            if not left[asker]:
                del left[asker]

    def keep_for(self, asker: str, error: Exception) -> None:
        """Keep the port for one asker: everybody else who waits or comes gets `error`, until `open_to_all`."""
        self._kept_for, self._kept_from = asker, error
        for other, queue in self._waiting.items():
            if other != asker:
                _end(queue, error)

    def open_to_all(self) -> None:
        """End what `keep_for` began."""
        self._kept_from = None

    def close(self, error: Exception) -> None:
        """End the queue: everybody who waits, and everybody who comes, gets `error`."""
        self._closed = error
        for queue in self._waiting.values():
            _end(queue, error)
        self._waiting.clear()

    def _expect_open(self, asker: str) -> None:
        if self._closed is not None:
            raise self._closed
        if self._kept_from is not None and asker != self._kept_for:
            raise self._kept_from

    def _stride(self, asker: str) -> int:
        return self._strides.get(asker, _SCALE)

    def _rank(self, asker: str) -> tuple[bool, int, int]:
        return _rank(asker, self._marks, self._served)

    def _mark_anew(self, asker: str) -> None:
        """Put an asker that did not wait where the scale stands; never back, for a turn had is a turn had."""
        self._marks[asker] = max(self._scale, self._marks.get(asker, 0))

    def _serve(self, asker: str, what: str, rid: str) -> None:
        self._scale = max(self._scale, self._marks[asker])
        self._marks[asker] += self._stride(asker)
        self._turn += 1
        self._served[asker] = self._turn
        self._holder = Place(asker, what, rid, asyncio.get_running_loop().time())

    def _forget(self, asker: str, waiting: _Waiting) -> None:
        queue = self._waiting.get(asker)
        if queue is not None and waiting in queue:
            queue.remove(waiting)


def _rank(asker: str, marks: Mapping[str, int], served: Mapping[str, int]) -> tuple[bool, int, int]:
    return asker != URGENT, marks[asker], served.get(asker, 0)


def _end(queue: deque[_Waiting], error: Exception) -> None:
    for waiting in queue:
        if not waiting.future.done():
            waiting.future.set_exception(error)
