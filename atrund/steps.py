# SPDX-License-Identifier: Apache-2.0
"""What is done on the way of one request: judged, recorded, delayed, granted its turn, run, ended (REQ-1).

Rules of this file: in which order, says `walk`. The asker gets its outcome before anything that is written behind; what
must be on disk first is awaited.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any, Final

import structlog

from atrund.at.feed import Feed
from atrund.at.reader import Line
from atrund.at.syntax import Command, LineRefused, parse
from atrund.atrun import reporting
from atrund.atrun.instance import frame
from atrund.atrun.policy import decide
from atrund.atrun.request import Door, End, Event, Outcome, Reason, Request, State
from atrund.atrun.secrets import mask_line
from atrund.atrun.undo import Plan
from atrund.confirmations import NotArmedError
from atrund.ledger import StorageError, tables
from atrund.ledger.tables import Known
from atrund.ledger.writer import Write
from atrund.line import Ending, LineRun, needs_turn
from atrund.module.channel import Channel
from atrund.module.turn import ANSWER_MAX, LinkLostError, TimedOutError, Turn, UnfedError
from atrund.module.turns import QueueFullError, WaitedTooLongError
from atrund.own import abilities_of, asker_of
from atrund.run import Run
from atrund.ways import Ways

log = structlog.get_logger()

RESUME_LOOKS: Final = 600
RESUME_PAUSE: Final = 1.0
"""Looks for the port, and seconds between two, by one found after a restart: a module takes a minute to be there, and
what waited for 10 min in vain is refused as in any queue (REQ-3)."""


class Steps:
    """What each effect of a request's table is. What can be done at once and what has to be waited for are apart."""

    _plan: Plan | None

    def __init__(self, run: Run, ways: Ways, *, closed: bool) -> None:
        """`closed`: nothing new is taken any more."""
        self._run = run
        self._request = run.request
        self._ways = ways
        self._closed = closed
        self._is_sent = self._holds = False
        """Whether the line is on its way, and whether the port is held."""
        self._commands: tuple[Command, ...] = ()
        self._plan = None
        self._lines: list[Line] = []
        self._room = ANSWER_MAX
        self._truncated = False
        self._outcome = Outcome(End.LOST, detail="found after a restart; whether it was run is unknown")
        self._loop = asyncio.get_running_loop()
        self._received = self._sent = run.begun
        self._turn: Turn | None = None
        self._port: Channel | None = None
        self._again = run.request.door.delivers_again
        self._was_accepted = self._may_be_recorded = self._resumed = run.life.state is not State.RECEIVED

    def _judge(self, event: Event | None) -> Event:
        """Judge the line; one found after a restart anew, unless it was sent, for the rules may be others since."""
        if self._run.life.state is State.SENT:
            return Event.FOUND_AFTER_RESTART
        if self._run._given_up:  # noqa: SLF001 - as above
            self._outcome = Outcome(End.CANCELLED, self._run._reason, detail=_TAKEN_BACK)  # noqa: SLF001 - as above
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
        request = self._request
        policy = self._ways.own.policy(request.door)
        verdict = decide(self._commands, asker_of(request), policy, abilities_of(request))
        if verdict.refusal is not None:
            return self._refuse(verdict.refusal.reason, verdict.refusal.detail)
        self._plan = verdict.plan
        return event or Event.ALLOWED

    def _refuse(self, reason: Reason, detail: str) -> Event:
        self._outcome = Outcome(End.REJECTED, reason, detail=detail)
        return Event.REFUSED

    async def _record(self) -> Event:
        if not self._again:
            return self._record_behind()
        rows = self._ways.mirror.accepted(self._request)
        self._may_be_recorded = True
        try:
            (known, *_) = await self._ways.ledger.durable(_record_with(self._request, self._ways.ledger.run, rows))
        except StorageError as error:
            self._outcome = Outcome(End.REJECTED, Reason.STORAGE, detail=str(error))
            return Event.NOT_RECORDED
        if known is not None:
            self._run.known = known
            return Event.REPEATED
        self._ways.mirror.log_taken(self._request)
        return self._accept()

    def _record_behind(self) -> Event:
        """Record one that is never delivered again (REQ-9)."""
        self._may_be_recorded = True
        if self._ways.mirror.base:
            self._loop.call_soon(self._write_acceptance)
        return self._accept()

    def _write_acceptance(self) -> None:
        self._ways.ledger.behind(*self._ways.mirror.accepted(self._request))

    def _accept(self) -> Event:
        self._was_accepted = True
        if not self._run.accepted.done():
            self._run.accepted.set_result(True)
        return Event.RECORDED

    def _ask_turn_now(self) -> Event | None:
        """Take a turn that nobody has to wait for, if so it is; None if not."""
        if not needs_turn(self._commands, self._ways.own):
            return Event.TURN
        if (channel := self._channel()) is None:
            return None
        try:
            self._turn = channel.take_now(self._request.door.value, what=_shown(self._commands), rid=self._request.rid)
        except LinkLostError as error:
            return self._no_port(str(error))
        if self._turn is None:
            return None
        self._port = channel
        return self._granted()

    async def _ask_turn(self) -> Event:
        if (channel := self._channel()) is None:
            await (self._port_after_restart() if self._resumed else self._ways.arrive())
            channel = self._channel()
        if channel is None:
            others = self._ways.idlest() is not None  # not silently another one than was asked for
            what = f"the port of instance {self._request.instance}" if others else "the module"
            return self._no_port(f"{what} is absent or being set up")
        try:
            door, shown = self._request.door.value, _shown(self._commands)
            self._turn = await channel.take(door, what=shown, rid=self._request.rid)
            self._port = channel
        except QueueFullError as error:
            self._outcome = Outcome(End.REJECTED, Reason.QUEUE_FULL, detail=str(error))
            return Event.NO_TURN
        except WaitedTooLongError as error:
            self._outcome = Outcome(End.REJECTED, Reason.DEADLINE, detail=str(error))
            return Event.NO_TURN
        except LinkLostError as error:
            return self._no_port(str(error))
        return self._granted()

    def _granted(self) -> Event:
        self._holds = True
        if self._request.expires is not None and self._ways.ledger.run > self._request.expires:
            self._outcome = Outcome(End.EXPIRED, Reason.EXPIRED, detail="expired before its turn came")
            return Event.NO_TURN
        return Event.TURN

    def _channel(self) -> Channel | None:
        """What is reported is a matter of the port that reports; all else goes to the instance's own, or the idlest."""
        reports = any(reporting.is_setting(command) for command in self._commands)
        port = self._ways.first if reports else self._ways.mapped(self._request.instance) or self._ways.idlest
        return port()

    async def _port_after_restart(self) -> None:
        """Wait for the module to be set up: what a restart interrupted is not to be refused for the restart (REQ-9)."""
        for _ in range(RESUME_LOOKS):
            await asyncio.sleep(RESUME_PAUSE)
            if self._channel() is not None:
                return

    def _no_port(self, detail: str) -> Event:
        lent = self._ways.lent()
        self._outcome = Outcome(End.REJECTED, Reason.BUSY if lent else Reason.PORT_DOWN, detail=lent or detail)
        return Event.LINK_LOST

    async def _record_sent(self) -> Event:
        if self._again:
            try:
                await self._ways.ledger.durable(tables.mark_sent(self._request.rid))
            except StorageError as error:
                self._outcome = Outcome(End.REJECTED, Reason.STORAGE, detail=str(error))
                return Event.NOT_RECORDED
        return Event.RECORDED

    def _send_now(self) -> bool:
        """Send a line that has to be waited for no more than any; returns whether it is on its way."""
        self._sent = self._loop.time()
        return self._plan is None and self._line(None).begin(self._commands, self._answered, self._wait)

    def _answered(self, ending: Ending) -> None:
        """Go on where `_send_now` left off: the answer is there."""
        raise NotImplementedError

    def _wait(self) -> None:
        """Go on there by waiting."""
        raise NotImplementedError

    def _take(self, ending: Ending) -> Event:
        end, detail = (End.OK, self._run.unasked) if ending.ok else (End.ERROR, "")
        final = None if ending.of_door else ending.final
        self._outcome = self._of_module(end, ending.reason, final=final, detail=ending.detail or detail)
        return Event.FINAL

    async def _send(self) -> Event:
        if not self._is_sent:
            self._sent = self._loop.time()
        try:
            ending = await self._run_line()
        except NotArmedError as error:
            detail = f"not run, for it could not be undone: {error}"
            self._outcome = self._of_module(End.ERROR, Reason.UNCONFIRMED, detail=detail)
            return Event.FINAL
        except TimedOutError as error:
            self._outcome = self._of_module(End.TIMEOUT, detail=str(error))
            if self._port is not None and not isinstance(error, UnfedError):
                self._ways.overdue(self._request, self._port)
            return Event.TIMED_OUT
        except LinkLostError as error:
            self._outcome = self._of_module(End.LOST, Reason.PORT_DOWN, detail=str(error))
            return Event.LINK_LOST
        self._give_back()
        if self._turn is not None and ending.reason is None:
            with contextlib.suppress(asyncio.CancelledError):  # the command is done, whoever waits for its late line
                await self._turn.late(self._sent + self._request.timeout - self._loop.time())
        return self._take(ending)

    async def _run_line(self) -> Ending:
        """Run the line; one with a hazard only when its undo is on disk, and its answer then tells of that (POL-2)."""
        announced = ""
        if self._plan is not None and self._turn is not None:
            announced = await self._ways.confirmations.arm(self._plan, self._request, self._turn)
        line = self._line(self._run.open_feed())
        ending = await (line.take_up(self._commands) if self._is_sent else line.run(self._commands))
        if announced:
            self._hear(Line(announced, lead=True))
        return ending

    def _line(self, feed: Feed | None) -> LineRun:
        ways = self._ways
        return LineRun(self._request, ways.own, self._port, self._turn, self._hear, feed, ways.recorder())

    def _give_back(self) -> None:
        """Give the port back, if it is held."""
        held, self._holds = self._holds, False
        if held and self._port is not None:
            self._port.give_back()

    def _hear(self, line: Line) -> None:
        if self._run.is_behind:
            self._truncated = True
        else:
            self._run.put(line)
        self._room -= len(line.text)
        if self._room >= 0:
            self._lines.append(line)
        else:
            self._truncated = True

    def _cancelled(self) -> Event:
        reason = self._run._reason  # noqa: SLF001 - as above
        if self._run.life.state is State.SENT:
            self._outcome = self._of_module(End.CANCELLED, reason, detail=_GIVEN_UP)
        else:
            self._outcome = Outcome(End.CANCELLED, reason, detail=_TAKEN_BACK)
        return Event.CANCELLED

    def _of_module(self, end: End, reason: Reason | None = None, final: str | None = None, detail: str = "") -> Outcome:
        """Return how it ended, with what the module said and how long it took."""
        lines = self._lines
        return Outcome(
            end,
            reason,
            final,
            lines=tuple([line.text for line in lines]),
            framed=frame(lines, Outcome(end, reason, final)),
            truncated=self._truncated or any(line.cut for line in lines),
            queued_ms=round((self._sent - self._received) * 1000),
            duration_ms=round((self._loop.time() - self._sent) * 1000),
            detail=detail,
        )

    async def _record_end(self) -> None:
        if not self._again:
            self._end_behind()
            return
        self._give_back()
        request, outcome = self._request, self._outcome
        if request.door is Door.SMS and outcome.reason is Reason.STORAGE:
            # It stays in the module's store, not run and not ended, and is taken up again from there (REQ-12).
            log.error("request left in the store", id=request.rid, peer=request.peer, detail=outcome.detail)
            self._tell()
            return
        rows = self._end_rows()
        rows.append(tables.mark_ended(request.rid, outcome))
        if not request.reply:
            rows.append(tables.mark_answered(request.rid))
        if not self._may_be_recorded:
            rows = [_record_with(request, self._ways.ledger.run, rows)]
        if request.body is not None or mask_line(request.line) != request.line:
            self._ways.ledger.wipe()
        try:
            (first, *_) = await asyncio.shield(self._ways.ledger.durable(*rows))
        except StorageError as error:
            log.error("outcome not recorded", id=request.rid, detail=str(error))  # noqa: TRY400 - no traceback wanted
            if self._was_accepted:  # the disk has it as one that may run, and its asker has not heard otherwise yet
                self._run.owed = self._ways.ledger.owe(*rows)
            else:
                self._run.is_written = False
                self._ways.ledger.behind(*rows)
        else:
            self._run.known = None if self._may_be_recorded else first
        self._tell()

    def _end_behind(self) -> None:
        """Tell how one ended that is never delivered again, and record it behind (REQ-9)."""
        self._give_back()
        # To write it down takes as long as all the rest of the way: the answer goes first.
        self._loop.call_soon(self._write_end)
        self._tell()

    def _write_end(self) -> None:
        self._ways.ledger.behind(*self._end_rows())

    def _end_rows(self) -> list[Write]:
        """Return what is to be recorded, and have it logged."""
        request, outcome = self._request, self._outcome
        self._ways.mirror.log_end(request, outcome)
        rows = self._ways.mirror.ended(request, outcome, was_accepted=self._was_accepted)
        if self._run.also is not None:
            rows += self._run.also(request, outcome)
        return rows

    def _tell(self) -> None:
        if not self._run.outcome.done():
            self._run.outcome.set_result(self._run.known.outcome if self._run.known else self._outcome)
            self._run.put(None)

    def _say(self, what: str) -> None:
        """Log where it is, for those that take long or went through a restart."""
        request, shown = self._request, _shown(self._commands)
        state = self._run.life.state.value
        log.info(what, id=request.rid, door=request.door.value, peer=request.peer, names=shown or None, state=state)

    def _arrive(self) -> None:
        """End the run for its asker, whichever way the walk went, and keep no port."""
        self._give_back()
        self._run._wait = _nothing  # noqa: SLF001 - as above; they hold each other no more, which spares the collector
        if not self._run.accepted.done():
            self._run.accepted.set_result(False)
        self._tell()


def _nothing() -> None:
    pass


_TAKEN_BACK: Final = "taken back before it was sent"
_GIVEN_UP: Final = "given up while it ran; whether it was carried out is unknown"

_SHOWN_MAX: Final = 5
_NAME_MAX: Final = 24
"""Names of a line's commands that are shown of one who waits, and their characters: enough to know it by."""


def _shown(commands: Sequence[Command]) -> str:
    """Return what may be shown of a command line: the names of its commands, and no parameter (POL-3)."""
    names = [mask_line(f"AT{command.name}")[2:][:_NAME_MAX] for command in commands[:_SHOWN_MAX]]
    return ";".join([*names, "…"] if len(commands) > _SHOWN_MAX else names)


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
