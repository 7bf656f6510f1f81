# SPDX-License-Identifier: Apache-2.0
"""The one path of a request, from a door to the module and back (REQ-1).

Rules of this file: the table in `atrun.request` says what happens next, this file does it. The asker gets its outcome
before anything that is written behind; what must be on disk first is awaited. Whatever happens, a request ends once.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import structlog

from atrund.at.reader import Line
from atrund.at.syntax import Command, LineRefused, parse
from atrund.atrun.instance import frame
from atrund.atrun.policy import judge
from atrund.atrun.request import Door, Effect, End, Event, Life, Outcome, Reason, Request, State
from atrund.ledger import Ledger, StorageError, tables
from atrund.ledger.tables import Known
from atrund.ledger.writer import Write
from atrund.mirror import Mirror
from atrund.module.channel import ANSWER_MAX, Channel, LinkLostError, TimedOutError, Turn
from atrund.module.turns import QueueFullError, WaitedTooLongError

log = structlog.get_logger()

RESUME_LOOKS: Final = 600
RESUME_PAUSE: Final = 1.0
"""Looks for the port, and seconds between two, by one found after a restart: a module takes a minute to be there, and
what waited for 10 min in vain is refused as in any queue (REQ-3)."""
CLOSE_WAIT: Final = 5.0
"""Seconds to record what was left at a stop: a disk that hangs must not hold it up."""
STREAM_MAX: Final = 10_000
"""Lines that a slow asker may fall behind by before the rest is dropped for it; the record has its own cap."""
BACKLOG_MAX: Final = 1_048_576
"""Characters that it may fall behind by: four times an answer that is recorded whole."""

Also = Callable[[Request, Outcome], Sequence[Write]]
"""What the door wants written in the transaction that records the outcome, such as its answer."""


class Run:
    """One request on its way: a stream of answer lines, then its outcome."""

    def __init__(self, request: Request, also: Also | None, refused: Outcome | None = None) -> None:
        loop = asyncio.get_running_loop()
        self.request = request
        self.also = also
        self.refused = refused
        self.life = Life()
        self.known: Known | None = None
        """Set when the ledger had the request already: it is not run again, `outcome` is the recorded one or None."""
        self.accepted: asyncio.Future[bool] = loop.create_future()
        """Resolves once the request is recorded or refused, so that its transport may be told; False when refused."""
        self.outcome: asyncio.Future[Outcome | None] = loop.create_future()
        self._stream: asyncio.Queue[Line | None] = asyncio.Queue()
        self._backlog = 0
        self._task: asyncio.Task[None] | None = None
        self._begun = False
        self._given_up = False
        self._reason: Reason | None = None

    async def lines(self) -> AsyncIterator[Line]:
        """Yield the answer's lines as they come; ends with the outcome."""
        while (line := await self._stream.get()) is not None:
            self._backlog -= len(line.text)
            yield line

    @property
    def has_more(self) -> bool:
        """Whether the next line, or the end of them, is there already."""
        return not self._stream.empty()

    def give_up(self, reason: Reason | None = None) -> None:
        """Take the request back: one that waits is not run, one that runs is left."""
        if self.life.state is State.ENDED:
            return
        self._reason = reason
        self._given_up = True
        # A task that is cancelled before its first step never runs at all: that one finds the word when it begins.
        if self._begun and self._task is not None:
            self._task.cancel()


class Runner:
    """Takes requests from the doors."""

    def __init__(self, *, channel: Callable[[], Channel | None], ledger: Ledger, mirror: Mirror) -> None:
        self._channel = channel
        self._ledger = ledger
        self._mirror = mirror
        self._runs: dict[asyncio.Task[None], Run] = {}
        self._closed = False

    @property
    def closing(self) -> bool:
        """Whether nothing new is taken any more."""
        return self._closed

    @property
    def running(self) -> int:
        """How many requests are on their way."""
        return len(self._runs)

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
        walk = _Walk(run, self._channel, self._ledger, self._mirror, closed=self._closed)
        task = asyncio.get_running_loop().create_task(walk.to_the_end(event), name=f"request {run.request.rid}")
        run._task = task  # noqa: SLF001 - a run is the other half of this class
        self._runs[task] = run
        task.add_done_callback(self._runs.pop)


class _Walk:
    """One request's walk through its table. Each effect is a method that returns the next event."""

    def __init__(
        self, run: Run, channel: Callable[[], Channel | None], ledger: Ledger, mirror: Mirror, *, closed: bool
    ) -> None:
        self._run = run
        self._request = run.request
        self._channel = channel
        self._ledger = ledger
        self._mirror = mirror
        self._closed = closed
        self._commands: tuple[Command, ...] = ()
        self._lines: list[Line] = []
        self._room = ANSWER_MAX
        self._truncated = False
        self._outcome = Outcome(End.LOST, detail="found after a restart; whether it was run is unknown")
        self._received = self._sent = asyncio.get_running_loop().time()
        self._turn: Turn | None = None
        self._holding = contextlib.AsyncExitStack()
        self._was_accepted = self._may_be_recorded = self._resumed = run.life.state is not State.RECEIVED

    async def to_the_end(self, event: Event | None) -> None:
        """Walk until ENDED. A cancellation is an event like any other; once ENDED, it changes nothing any more."""
        self._run._begun = True  # noqa: SLF001 - a run is the other half of this class
        try:
            following: Event | None = self._judge(event)
            while following is not None:
                effects, following = self._run.life.step(following), None
                for effect in effects:
                    try:
                        following = await self._perform(effect)
                    except asyncio.CancelledError:
                        if self._run.life.state is not State.ENDED:
                            following = self._cancelled()
        finally:
            await self._holding.aclose()  # whatever went wrong, the port is not kept
            self._finish()

    async def _perform(self, effect: Effect) -> Event | None:
        match effect:
            case Effect.RECORD:
                return await self._record()
            case Effect.DELAY:
                if self._request.delay:
                    await asyncio.sleep(self._request.delay)
                return Event.DELAY_OVER
            case Effect.ASK_TURN:
                return await self._ask_turn()
            case Effect.RECORD_SENT:
                return await self._record_sent()
            case Effect.SEND:
                return await self._send()
            case Effect.GIVE_UP:
                await self._holding.aclose()
                return None
            case Effect.RECORD_END:
                await self._record_end()
                return None

    def _judge(self, event: Event | None) -> Event:
        """Judge the line; one found after a restart anew, unless it was sent, for the rules may be others since."""
        if self._run.life.state is State.SENT:
            return Event.FOUND_AFTER_RESTART
        if self._run._given_up:  # noqa: SLF001 - as above
            self._outcome = Outcome(End.CANCELLED, self._run._reason)  # noqa: SLF001 - as above
            return Event.REFUSED
        if self._run.refused is not None:
            self._outcome = self._run.refused
            return Event.REFUSED
        if self._closed:
            return self._refuse(Reason.SHUTDOWN, "the gateway is stopping")
        try:
            self._commands = parse(self._request.line)
        except LineRefused as refused:
            return self._refuse(Reason(refused.reason), refused.detail)
        if (refusal := judge(self._commands)) is not None:
            return self._refuse(refusal.reason, refusal.detail)
        return event or Event.ALLOWED

    def _refuse(self, reason: Reason, detail: str) -> Event:
        self._outcome = Outcome(End.REJECTED, reason, detail=detail)
        return Event.REFUSED

    async def _record(self) -> Event:
        rows = self._mirror.accepted(self._request)
        self._may_be_recorded = True
        if self._request.door.delivers_again:
            try:
                (known, *_) = await self._ledger.durable(_record_with(self._request, self._ledger.run, rows))
            except StorageError as error:
                self._outcome = Outcome(End.REJECTED, Reason.STORAGE, detail=str(error))
                return Event.NOT_RECORDED
            if known is not None:
                self._run.known = known
                return Event.REPEATED
        elif rows:
            self._ledger.behind(*rows)
        self._was_accepted = True
        if not self._run.accepted.done():
            self._run.accepted.set_result(True)
        return Event.RECORDED

    async def _ask_turn(self) -> Event:
        channel = await self._port_after_restart() if self._resumed else self._channel()
        if channel is None:
            return self._no_port("the module is absent or being set up")
        try:
            self._turn = await self._holding.enter_async_context(channel.turn(self._request.door.value))
        except QueueFullError as error:
            self._outcome = Outcome(End.REJECTED, Reason.QUEUE_FULL, detail=str(error))
            return Event.NO_TURN
        except WaitedTooLongError as error:
            self._outcome = Outcome(End.REJECTED, Reason.DEADLINE, detail=str(error))
            return Event.NO_TURN
        except LinkLostError as error:
            return self._no_port(str(error))
        if self._request.expires is not None and self._ledger.run > self._request.expires:
            self._outcome = Outcome(End.EXPIRED, Reason.EXPIRED, detail="expired before its turn came")
            return Event.NO_TURN
        return Event.TURN

    async def _port_after_restart(self) -> Channel | None:
        """Wait for the module to be set up: what a restart interrupted is not to be refused for the restart (REQ-9)."""
        for _ in range(RESUME_LOOKS):
            if (channel := self._channel()) is not None:
                return channel
            await asyncio.sleep(RESUME_PAUSE)
        return self._channel()

    def _no_port(self, detail: str) -> Event:
        self._outcome = Outcome(End.REJECTED, Reason.PORT_DOWN, detail=detail)
        return Event.LINK_LOST

    async def _record_sent(self) -> Event:
        if self._request.door.delivers_again:
            try:
                await self._ledger.durable(tables.mark_sent(self._request.rid))
            except StorageError as error:
                self._outcome = Outcome(End.REJECTED, Reason.STORAGE, detail=str(error))
                return Event.NOT_RECORDED
        return Event.RECORDED

    async def _send(self) -> Event:
        assert self._turn is not None  # noqa: S101 - GRANTED is entered with a turn only
        self._sent = asyncio.get_running_loop().time()
        try:
            ended = await self._turn.run(self._commands, timeout=self._request.timeout, say=self._hear)
        except TimedOutError as error:
            self._outcome = self._of_module(Outcome(End.TIMEOUT, detail=str(error)))
            return Event.TIMED_OUT
        except LinkLostError as error:
            self._outcome = self._of_module(Outcome(End.LOST, Reason.PORT_DOWN, detail=str(error)))
            return Event.LINK_LOST
        await self._holding.aclose()
        if ended.left:
            why = "the module asked for data that this door cannot give"
            self._outcome = self._of_module(Outcome(End.ERROR, Reason.PROMPT_UNSUPPORTED, detail=why))
        else:
            end = End.OK if ended.final.ok else End.ERROR
            self._outcome = self._of_module(Outcome(end, final=ended.final.text))
        return Event.FINAL

    def _hear(self, line: Line) -> None:
        stream = self._run._stream  # noqa: SLF001 - a run is the other half of this class
        if stream.qsize() < STREAM_MAX and self._run._backlog < BACKLOG_MAX:  # noqa: SLF001 - as above
            self._run._backlog += len(line.text)  # noqa: SLF001 - as above
            stream.put_nowait(line)
        else:
            self._truncated = True
        self._room -= len(line.text)
        if self._room >= 0:
            self._lines.append(line)
        else:
            self._truncated = True

    def _cancelled(self) -> Event:
        reason = self._run._reason  # noqa: SLF001 - as above
        outcome = Outcome(End.CANCELLED, reason)
        self._outcome = self._of_module(outcome) if self._run.life.state is State.SENT else outcome
        return Event.CANCELLED

    def _of_module(self, outcome: Outcome) -> Outcome:
        """Fill in what the module said and how long it took."""
        now = asyncio.get_running_loop().time()
        return replace(
            outcome,
            lines=tuple(line.text for line in self._lines),
            framed=frame(self._lines, outcome),
            truncated=self._truncated or any(line.cut for line in self._lines),
            queued_ms=round((self._sent - self._received) * 1000),
            duration_ms=round((now - self._sent) * 1000),
        )

    async def _record_end(self) -> None:
        await self._holding.aclose()
        request, outcome = self._request, self._outcome
        if request.door is Door.SMS and outcome.reason is Reason.STORAGE:
            # It stays in the module's store, not run and not ended, and is taken up again from there (REQ-12).
            log.error("request left in the store", id=request.rid, detail=outcome.detail)
            self._tell()
            return
        if not request.door.delivers_again:
            self._tell()
        # The log's line takes as long to make as all the rest of the way: what is ready now goes first.
        asyncio.get_running_loop().call_soon(self._mirror.log_end, request, outcome)
        rows = self._mirror.ended(request, outcome, was_accepted=self._was_accepted)
        if self._run.also is not None:
            rows += self._run.also(request, outcome)
        if not request.door.delivers_again:
            self._ledger.behind(*rows)
            return
        rows.append(tables.mark_ended(request.rid, outcome))
        if not request.reply:
            rows.append(tables.mark_answered(request.rid))
        if not self._may_be_recorded:
            rows = [_record_with(request, self._ledger.run, rows)]
        try:
            (first, *_) = await asyncio.shield(self._ledger.durable(*rows))
        except StorageError as error:
            log.error("outcome not recorded", id=request.rid, detail=str(error))  # noqa: TRY400 - no traceback wanted
            self._ledger.behind(*rows)
        else:
            self._run.known = None if self._may_be_recorded else first
        self._tell()

    def _tell(self) -> None:
        if not self._run.outcome.done():
            self._run.outcome.set_result(self._run.known.outcome if self._run.known else self._outcome)
            self._run._stream.put_nowait(None)  # noqa: SLF001 - as above

    def _finish(self) -> None:
        """End the run for its asker, whichever way the walk went."""
        if not self._run.accepted.done():
            self._run.accepted.set_result(False)
        self._tell()


def _record_with(request: Request, run: float, rows: Sequence[Write]) -> Write:
    """Insert a request with all that goes with it, or nothing of it: returns what is `Known` under its key, or None."""
    record = tables.record(request, run)

    def write(db: Any) -> Known | None:  # noqa: ANN401 - what a connection is, the ledger alone knows
        known: Known | None = record(db)
        if known is None:
            for row in rows:
                row(db)
        return known

    return write
