# SPDX-License-Identifier: Apache-2.0
"""One request on its way, as its door sees it: a bounded stream of answer lines, then its outcome."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

from atrund.at.reader import Line
from atrund.atrun.request import Life, Outcome, Reason, Request, State
from atrund.ledger.tables import Known
from atrund.ledger.writer import Write

STREAM_MAX: Final = 10_000
"""Lines that a slow asker may fall behind by before the rest is dropped for it; the record has its own cap."""
BACKLOG_MAX: Final = 1_048_576
"""Characters that it may fall behind by: four times an answer that is recorded whole."""

Also = Callable[[Request, Outcome], Sequence[Write]]
"""What the door wants written in the transaction that records the outcome, such as its answer."""


class Run:
    """One request on its way: a stream of answer lines, then its outcome."""

    known: Known | None

    def __init__(self, request: Request, also: Also | None, refused: Outcome | None = None) -> None:
        loop = asyncio.get_running_loop()
        self.request = request
        self.also = also
        self.refused = refused
        self.life = Life()
        self.known = None
        """Set when the ledger had the request already: it is not run again, `outcome` is the recorded one or None."""
        self.owed: asyncio.Future[None] | None = None
        """Set when the disk refused the outcome: resolves once it is recorded all the same."""
        self.accepted: asyncio.Future[bool] = loop.create_future()
        """Resolves once the request is recorded or refused, so that its transport may be told; False when refused."""
        self.outcome: asyncio.Future[Outcome | None] = loop.create_future()
        self._stream: asyncio.Queue[Line | None] = asyncio.Queue()
        self._backlog = 0
        self._on_more: Callable[[], None] | None = None
        self._told_of_more = False
        self._task: asyncio.Task[None] | None = None
        self._begun = False
        self._given_up = False
        self._reason: Reason | None = None

    async def lines(self) -> AsyncIterator[Line]:
        """Yield the answer's lines as they come; ends with the outcome."""
        while (line := await self._stream.get()) is not None:
            self._backlog -= len(line.text)
            yield line

    def watch(self, on_more: Callable[[], None]) -> None:
        """Have `on_more` called when there is more to `take`: at once with the outcome, with lines a moment later."""
        self._on_more = on_more

    def take(self) -> list[Line]:
        """Return the answer's lines that came since, for one who watches; all of them once `outcome` is done."""
        lines: list[Line] = []
        while not self._stream.empty() and (line := self._stream.get_nowait()) is not None:
            self._backlog -= len(line.text)
            lines.append(line)
        return lines

    def put(self, line: Line | None) -> None:
        """Add a line to the stream; None ends it."""
        self._backlog += len(line.text) if line is not None else 0
        self._stream.put_nowait(line)
        if self._on_more is None:
            return
        if line is None:
            self._on_more()
        elif not self._told_of_more:  # lines that come together are passed on together, mostly with the outcome
            self._told_of_more = True
            asyncio.get_running_loop().call_soon(self._tell_of_more)

    def _tell_of_more(self) -> None:
        self._told_of_more = False
        if self._on_more is not None:
            self._on_more()

    @property
    def is_behind(self) -> bool:
        """Whether its asker takes the lines so slowly that no more are kept for it."""
        return self._stream.qsize() >= STREAM_MAX or self._backlog >= BACKLOG_MAX

    def give_up(self, reason: Reason | None = None) -> None:
        """Take the request back: one that waits is not run, one that runs is left."""
        if self.life.state is State.ENDED:
            return
        self._reason = reason
        self._given_up = True
        # A task that is cancelled before its first step never runs at all: that one finds the word when it begins.
        if self._begun and self._task is not None:
            self._task.cancel()
