# SPDX-License-Identifier: Apache-2.0
"""One request's walk through its table: judged, recorded, delayed, granted its turn, run, ended (REQ-1).

Rules of this file: the table in `atrun.request` says what happens next, this file does it. The asker gets its outcome
before anything that is written behind; what must be on disk first is awaited. Whatever happens, a request ends once.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import structlog

from atrund.at.reader import Line
from atrund.at.syntax import Command, LineRefused, parse
from atrund.atrun import reporting
from atrund.atrun.instance import frame
from atrund.atrun.policy import decide
from atrund.atrun.request import Door, Effect, End, Event, Outcome, Reason, Request, State
from atrund.atrun.secrets import mask_line
from atrund.atrun.undo import Plan
from atrund.confirmations import Confirmations, NotArmedError
from atrund.ledger import Ledger, StorageError, tables
from atrund.ledger.tables import Known
from atrund.ledger.writer import Write
from atrund.line import Ending, LineRun, needs_turn
from atrund.mirror import Mirror
from atrund.module.channel import Channel
from atrund.module.turn import ANSWER_MAX, LinkLostError, TimedOutError, Turn, UnfedError
from atrund.module.turns import QueueFullError, WaitedTooLongError
from atrund.own import Own, abilities_of, asker_of
from atrund.run import Run

if TYPE_CHECKING:  # for the annotation alone
    from atrund.inbox import Recorder

log = structlog.get_logger()

SLOW: Final = 30.0
"""Seconds after which it is said where a request is: few take so long, and each is said once."""
RESUME_LOOKS: Final = 600
RESUME_PAUSE: Final = 1.0
"""Looks for the port, and seconds between two, by one found after a restart: a module takes a minute to be there, and
what waited for 10 min in vain is refused as in any queue (REQ-3)."""


async def nothing_comes() -> None:
    """Wait for nothing."""


@dataclass(frozen=True, slots=True)
class Ways:
    """What every walk needs. `idlest` and `first` give a port, while there is one: the one with the fewest who wait,
    and that of unsolicited codes. `overdue` is told of a request whose deadline passed on the module, and its port.
    """

    idlest: Callable[[], Channel | None]
    first: Callable[[], Channel | None]
    ledger: Ledger
    mirror: Mirror
    own: Own
    confirmations: Confirmations
    overdue: Callable[[Request, Channel], None] = lambda _request, _channel: None
    lent: Callable[[], str] = lambda: ""
    """To whom the ports are lent, "" while they are not."""
    mapped: Callable[[int], Callable[[], Channel | None] | None] = lambda _instance: None
    """What gives the port that an instance is mapped to; None for one that is mapped to none."""
    arrive: Callable[[], Awaitable[None]] = nothing_comes
    """Waits while the module is set up for the first time."""
    recorder: "Callable[[], Recorder | None]" = lambda: None
    """The SMS door's part in others' SMS commands, while it is on."""


class Walk:
    """One request's walk through its table. Each effect is a method that returns the next event."""

    _plan: Plan | None

    def __init__(self, run: Run, ways: Ways, *, closed: bool) -> None:
        """`closed`: nothing new is taken any more."""
        self._run = run
        self._request = run.request
        self._ways = ways
        self._closed = closed
        self._commands: tuple[Command, ...] = ()
        self._plan = None
        self._lines: list[Line] = []
        self._room = ANSWER_MAX
        self._truncated = False
        self._outcome = Outcome(End.LOST, detail="found after a restart; whether it was run is unknown")
        self._received = self._sent = asyncio.get_running_loop().time()
        self._turn: Turn | None = None
        self._port: Channel | None = None
        self._holding = contextlib.AsyncExitStack()
        self._was_accepted = self._may_be_recorded = self._resumed = run.life.state is not State.RECEIVED

    async def to_the_end(self, event: Event | None) -> None:
        """Walk until ENDED. A cancellation is an event like any other; once ENDED, it changes nothing any more."""
        self._run._begun = True  # noqa: SLF001 - a run is the other half of this class
        if self._resumed:
            self._say("command found after a restart")
        slow = asyncio.get_running_loop().call_later(SLOW, self._say, "command not done yet")
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
            slow.cancel()
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
        rows = self._ways.mirror.accepted(self._request)
        self._may_be_recorded = True
        if self._request.door.delivers_again:
            try:
                (known, *_) = await self._ways.ledger.durable(_record_with(self._request, self._ways.ledger.run, rows))
            except StorageError as error:
                self._outcome = Outcome(End.REJECTED, Reason.STORAGE, detail=str(error))
                return Event.NOT_RECORDED
            if known is not None:
                self._run.known = known
                return Event.REPEATED
        elif rows:
            self._ways.ledger.behind(*rows)
        self._was_accepted = True
        if not self._run.accepted.done():
            self._run.accepted.set_result(True)
        return Event.RECORDED

    async def _ask_turn(self) -> Event:
        if not needs_turn(self._commands, self._ways.own):
            return Event.TURN
        if (channel := self._channel()) is None:
            await (self._port_after_restart() if self._resumed else self._ways.arrive())
            channel = self._channel()
        if channel is None:
            others = self._ways.idlest() is not None  # not silently another one than was asked for
            what = f"the port of instance {self._request.instance}" if others else "the module"
            return self._no_port(f"{what} is absent or being set up")
        try:
            self._port = channel
            turn = channel.turn(self._request.door.value, what=_shown(self._commands), rid=self._request.rid)
            self._turn = await self._holding.enter_async_context(turn)
        except QueueFullError as error:
            self._outcome = Outcome(End.REJECTED, Reason.QUEUE_FULL, detail=str(error))
            return Event.NO_TURN
        except WaitedTooLongError as error:
            self._outcome = Outcome(End.REJECTED, Reason.DEADLINE, detail=str(error))
            return Event.NO_TURN
        except LinkLostError as error:
            return self._no_port(str(error))
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
        if self._request.door.delivers_again:
            try:
                await self._ways.ledger.durable(tables.mark_sent(self._request.rid))
            except StorageError as error:
                self._outcome = Outcome(End.REJECTED, Reason.STORAGE, detail=str(error))
                return Event.NOT_RECORDED
        return Event.RECORDED

    async def _send(self) -> Event:
        self._sent = asyncio.get_running_loop().time()
        try:
            ending = await self._run_line()
        except NotArmedError as error:
            detail = f"not run, for it could not be undone: {error}"
            self._outcome = self._of_module(Outcome(End.ERROR, Reason.UNCONFIRMED, detail=detail))
            return Event.FINAL
        except TimedOutError as error:
            self._outcome = self._of_module(Outcome(End.TIMEOUT, detail=str(error)))
            if self._port is not None and not isinstance(error, UnfedError):
                self._ways.overdue(self._request, self._port)
            return Event.TIMED_OUT
        except LinkLostError as error:
            self._outcome = self._of_module(Outcome(End.LOST, Reason.PORT_DOWN, detail=str(error)))
            return Event.LINK_LOST
        await self._holding.aclose()
        if self._turn is not None and ending.reason is None:
            with contextlib.suppress(asyncio.CancelledError):  # the command is done, whoever waits for its late line
                await self._turn.late(self._sent + self._request.timeout - asyncio.get_running_loop().time())
        end, detail = (End.OK, self._run.unasked) if ending.ok else (End.ERROR, "")
        final = None if ending.of_door else ending.final
        self._outcome = self._of_module(Outcome(end, ending.reason, final=final, detail=ending.detail or detail))
        return Event.FINAL

    async def _run_line(self) -> Ending:
        """Run the line; one with a hazard only when its undo is on disk, and its answer then tells of that (POL-2)."""
        announced = ""
        if self._plan is not None and self._turn is not None:
            announced = await self._ways.confirmations.arm(self._plan, self._request, self._turn)
        run = LineRun(
            self._request,
            self._ways.own,
            self._port,
            self._turn,
            self._hear,
            self._run.feed,
            self._ways.recorder(),
        )
        ending = await run.run(self._commands)
        if announced:
            self._hear(Line(announced, lead=True))
        return ending

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
            self._outcome = self._of_module(Outcome(End.CANCELLED, reason, detail=_GIVEN_UP))
        else:
            self._outcome = Outcome(End.CANCELLED, reason, detail=_TAKEN_BACK)
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
        asyncio.get_running_loop().call_soon(self._ways.mirror.log_end, request, outcome)
        rows = self._ways.mirror.ended(request, outcome, was_accepted=self._was_accepted)
        if self._run.also is not None:
            rows += self._run.also(request, outcome)
        if not request.door.delivers_again:
            self._ways.ledger.behind(*rows)
            return
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

    def _tell(self) -> None:
        if not self._run.outcome.done():
            self._run.outcome.set_result(self._run.known.outcome if self._run.known else self._outcome)
            self._run.put(None)

    def _say(self, what: str) -> None:
        """Log where it is, for those that take long or went through a restart."""
        request, shown = self._request, _shown(self._commands)
        state = self._run.life.state.value
        log.info(what, id=request.rid, door=request.door.value, peer=request.peer, names=shown or None, state=state)

    def _finish(self) -> None:
        """End the run for its asker, whichever way the walk went."""
        if not self._run.accepted.done():
            self._run.accepted.set_result(False)
        self._tell()


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
