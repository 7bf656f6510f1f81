# SPDX-License-Identifier: Apache-2.0
"""One request on its way, as its door sees it: a bounded stream of answer lines, then its outcome."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

from atrund.at.exchange import CTRL_Z, ESC, Prompted
from atrund.at.feed import Feed, Taken
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
    """One request on its way: a stream of answer lines and prompts, then its outcome."""

    known: Known | None

    def __init__(self, request: Request, also: Also | None, refused: Outcome | None = None) -> None:
        loop = asyncio.get_running_loop()
        self.begun = loop.time()
        """When it was put on its way, on the loop's clock."""
        self.request = request
        self.also = also
        self.refused = refused
        self.life = Life()
        self.known = None
        """Set when the ledger had the request already: it is not run again, `outcome` is the recorded one or None."""
        self.owed: asyncio.Future[None] | None = None
        """Set when the disk refused the outcome: resolves once it is recorded all the same."""
        self.is_written = True
        """False when the disk refused the outcome of one that was never recorded: nothing of it may be there."""
        self.accepted: asyncio.Future[bool] = loop.create_future()
        """Resolves once the request is recorded or refused, so that its transport may be told; False when refused."""
        self.outcome: asyncio.Future[Outcome | None] = loop.create_future()
        self.feed: Feed | None = None
        """Where what is typed at a prompt goes, once one may come, if its door can carry that (REQ-6)."""
        self._stream: deque[Line | Prompted] = deque()
        self._is_over = False
        self._awaited: asyncio.Future[None] | None = None
        self._backlog = 0
        self._on_more: Callable[[], None] | None = None
        self._told_of_more = False
        self._task: asyncio.Task[None] | None = None
        """What walks it, while something has to be waited for but the module's answer to a plain line."""
        self._wait: Callable[[], None] = _nothing
        """Has it walked by a task from now on."""
        self._begun = False
        self._given_up = False
        self._reason: Reason | None = None
        self._body = request.body

    async def lines(self) -> AsyncIterator[Line]:
        """Yield the answer's lines as they come; ends with the outcome. There is no prompt where none can be shown."""
        async for said in self.said():
            if isinstance(said, Line):
                yield said

    async def said(self) -> AsyncIterator[Line | Prompted]:
        """Yield the answer's lines and the prompts in it as they come; ends with the outcome."""
        while self._stream or not self._is_over:
            if self._stream:
                yield self._take()
            else:
                self._awaited = asyncio.get_running_loop().create_future()
                await self._awaited

    def watch(self, on_more: Callable[[], None]) -> None:
        """Have `on_more` called when there is more to `take`: at once with the outcome, with lines a moment later.

        It is called too when more can be typed at a prompt behind which too much waited.
        """
        self._on_more = on_more
        if self._is_over or self._stream:
            asyncio.get_running_loop().call_soon(self._tell_of_more)

    def take(self) -> list[Line | Prompted]:
        """Return the lines and prompts that came since, for one who watches; all of them once `outcome` is done."""
        return [self._take() for _ in range(len(self._stream))]

    def put(self, said: Line | Prompted | None) -> None:
        """Add a line or a prompt to the stream; None ends it."""
        if said is None:
            self._is_over = True
        else:
            self._backlog += _length(said)
            self._stream.append(said)
        if self._awaited is not None and not self._awaited.done():
            self._awaited.set_result(None)
        if self._on_more is None:
            return
        if said is None:
            self._on_more()
        elif not self._told_of_more:  # lines that come together are passed on together, mostly with the outcome
            self._told_of_more = True
            asyncio.get_running_loop().call_soon(self._tell_of_more)

    def open_feed(self) -> Feed | None:
        """Be ready for prompts, if its door can carry what they ask for."""
        if self.feed is None and self.request.answers_prompts:
            self.feed = Feed(self._ask, self._tell_of_room)
        return self.feed

    @property
    def unasked(self) -> str:
        """Say to a person, at its end, that the module never got the body that came with it; "" otherwise."""
        return "" if self._body is None else "the module did not ask for the body"

    @property
    def awaits_data(self) -> bool:
        """Whether what is typed now is data for a prompt."""
        return self.feed is not None and self.feed.is_open

    @property
    def awaits_octets(self) -> bool:
        """Whether these are counted, so that none of them has a meaning."""
        return self.feed is not None and self.feed.is_open and self.feed.is_counted

    @property
    def is_full(self) -> bool:
        """Whether so much of it waits for the port that the one who types is to wait too."""
        return self.feed is not None and self.feed.is_full

    def give(self, typed: bytes) -> Taken:
        """Take what was typed at a prompt; what is none of its data is given back. It is never recorded (POL-3)."""
        return Taken(rest=typed) if self.feed is None else self.feed.give(typed)

    def _take(self) -> Line | Prompted:
        said = self._stream.popleft()
        self._backlog -= _length(said)
        return said

    def _ask(self, prompt: Prompted) -> None:
        if self.request.body is not None:
            self._give_body(prompt)
        elif not self.is_behind:  # an asker who reads so slowly gives nothing either
            self.put(prompt)

    def _give_body(self, prompt: Prompted) -> None:
        """Answer the line's prompt with its body; a text prompt behind that one, which nobody expected, is given up."""
        if prompt.again:
            return
        body, self._body = self._body, None
        if prompt.count is None:
            self.give(ESC if body is None else body + CTRL_Z)
        elif body is not None:
            self.give(body)

    def _tell_of_room(self) -> None:
        if self._on_more is not None:
            self._on_more()

    def _tell_of_more(self) -> None:
        self._told_of_more = False
        if self._on_more is not None:
            self._on_more()

    @property
    def is_behind(self) -> bool:
        """Whether its asker takes the lines so slowly that no more are kept for it."""
        return len(self._stream) >= STREAM_MAX or self._backlog >= BACKLOG_MAX

    def give_up(self, reason: Reason | None = None) -> None:
        """Take the request back: one that waits is not run, one that runs is left."""
        if self.life.state is State.ENDED:
            return
        self._reason = reason
        self._given_up = True
        # A task that is cancelled before its first step never runs at all: that one finds the word when it begins.
        if self._task is None:
            self._wait()
        elif self._begun:
            self._task.cancel()


def _nothing() -> None:
    pass


def _length(said: Line | Prompted) -> int:
    return len(said.text) if isinstance(said, Line) else 1
