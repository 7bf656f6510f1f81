# SPDX-License-Identifier: Apache-2.0
"""The one path of a request, from a door to the module and back (REQ-1): doors start their requests here."""

import asyncio
from typing import Final

from atrund.atrun.request import Door, End, Event, Life, Outcome, Reason, Request, State
from atrund.ledger import tables
from atrund.ledger.tables import Known
from atrund.run import Also, Run
from atrund.timer import Timer
from atrund.walk import SLOW, Walk
from atrund.ways import Ways

STANDSTILL: Final = 3600.0
"""Seconds beside its own times after which a request counts as stuck: it may wait for a module after a restart and
for the disk, which have bounds far below."""
CLOSE_WAIT: Final = 5.0
"""Seconds to record what was left at a stop: a disk that hangs must not hold it up."""


class Runner:
    """Takes requests from the doors."""

    def __init__(self, ways: Ways) -> None:
        self._ways = ways
        self._runs: dict[Run, Walk] = {}
        self._emptied: asyncio.Future[None] | None = None
        self._slow = Timer()
        self._closed = False
        self.requests = dict.fromkeys(Door, 0)
        """How many came since the start."""
        self.ended = dict.fromkeys(End, 0)
        """How they ended; one that is known already ends as before."""

    @property
    def closing(self) -> bool:
        """Whether nothing new is taken any more."""
        return self._closed

    @property
    def running(self) -> int:
        """How many requests are on their way."""
        return len(self._runs)

    def standstill(self, max_wait: float) -> str:
        """Return which request does not move any more, though each of its waits has a bound; "" while all do.

        `max_wait`: seconds for which one may wait for its turn.
        """
        now = asyncio.get_running_loop().time()
        for run in self._runs:
            bound = run.request.delay + max_wait + run.request.timeout + STANDSTILL
            if now - run.begun > bound:
                return f"request {run.request.rid} does not end, for {bound:.0f} s"
        return ""

    def start(self, request: Request, also: Also | None = None, refused: Outcome | None = None) -> Run:
        """Put a request on its way and return at once. Every run ends with one outcome.

        `refused`: the door's own rules refused it already; it is recorded with this outcome and not run.
        """
        run = Run(request, also, refused)
        self._launch(run, None)
        return run

    def resume(self, known: Known, also: Also | None = None, refused: Outcome | None = None) -> Run:
        """Take up a request that a crash interrupted: recorded, it is run; sent, it is `lost` (REQ-9).

        `refused`: as for `start`, when it was not sent.
        """
        run = Run(known.request, also, refused)
        run.life = Life(State.JUDGED if known.state == tables.RECORDED else State.SENT)
        run.accepted.set_result(True)
        self._launch(run, Event.FOUND_AFTER_RESTART)
        return run

    async def close(self, grace: float) -> None:
        """Take nothing new, give what runs `grace` seconds to end, then leave it."""
        self._closed = True
        await self._empty(grace)
        for run in tuple(self._runs):
            run.give_up(Reason.SHUTDOWN)
        await self._empty(CLOSE_WAIT)
        self._slow.close()

    async def _empty(self, timeout: float) -> None:
        """Wait until none is on its way, for so many seconds at most."""
        if self._runs:
            self._emptied = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._emptied], timeout=timeout)

    def _launch(self, run: Run, event: Event | None) -> None:
        self._runs[run] = walk = Walk(run, self._ways, closed=self._closed, over=self._end)
        self.requests[run.request.door] += 1
        if len(self._runs) == 1:
            self._slow.start(SLOW, self._look_for_slow)
        walk.begin(event)

    def _end(self, run: Run) -> None:
        if self._runs.pop(run, None) is None:
            return
        if run.outcome.done() and not run.outcome.cancelled() and (ended := run.outcome.result()) is not None:
            self.ended[ended.end] += 1
        if not self._runs:
            self._slow.stop()
            if self._emptied is not None and not self._emptied.done():
                self._emptied.set_result(None)

    def _look_for_slow(self) -> None:
        """Have those say where they are that take long, each once."""
        now = asyncio.get_running_loop().time()
        begun = [run.begun + SLOW for run, walk in self._runs.items() if not walk.say_slow(now)]
        if begun:
            self._slow.start(max(min(begun) - now, _LEAST), self._look_for_slow)


_LEAST: Final = 0.001
"""Seconds between two such looks: less than that is rounding."""
