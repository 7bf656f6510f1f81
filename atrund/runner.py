# SPDX-License-Identifier: Apache-2.0
"""The one path of a request, from a door to the module and back (REQ-1): doors start their requests here."""

import asyncio
from typing import Final

from atrund.atrun.request import Door, End, Event, Life, Outcome, Reason, Request, State
from atrund.ledger import tables
from atrund.ledger.tables import Known
from atrund.run import Also, Run
from atrund.walk import Walk, Ways

STANDSTILL: Final = 3600.0
"""Seconds beside its own times after which a request counts as stuck: it may wait for a module after a restart and
for the disk, which have bounds far below."""
CLOSE_WAIT: Final = 5.0
"""Seconds to record what was left at a stop: a disk that hangs must not hold it up."""


class Runner:
    """Takes requests from the doors."""

    def __init__(self, ways: Ways) -> None:
        self._ways = ways
        self._runs: dict[asyncio.Task[None], Run] = {}
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
        for run in self._runs.values():
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
        if self._runs:
            await asyncio.wait(self._runs, timeout=grace)
        for run in tuple(self._runs.values()):
            run.give_up(Reason.SHUTDOWN)
        if self._runs:
            await asyncio.wait(self._runs, timeout=CLOSE_WAIT)

    def _launch(self, run: Run, event: Event | None) -> None:
        walk = Walk(run, self._ways, closed=self._closed)
        task = asyncio.get_running_loop().create_task(walk.to_the_end(event), name=f"request {run.request.rid}")
        run._task = task  # noqa: SLF001 - a run is the other half of this class
        self._runs[task] = run
        self.requests[run.request.door] += 1
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        outcome = self._runs.pop(task).outcome
        if outcome.done() and not outcome.cancelled() and (ended := outcome.result()) is not None:
            self.ended[ended.end] += 1
