# SPDX-License-Identifier: Apache-2.0
"""What becomes of a message that is an ATRUN SMS: it is run, answered, and removed (SMS-6 to SMS-8, SMS-11, SMS-13).

Rules of this file: its command runs at most once; it is deleted last, when its outcome and its answer are on disk.
"""

import asyncio
import contextlib
import functools
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import structlog

from atrund.atrun.message import AtRun, context_of
from atrund.atrun.request import Door, End, Outcome, Reason, Request
from atrund.clock import Clock
from atrund.doors.answers import Answers, mark_of
from atrund.doors.disposal import Disposal
from atrund.doors.recording import Recording
from atrund.doors.room import Room, RoomRules
from atrund.doors.verdicts import Verdict, Verdicts
from atrund.ledger import Ledger, StorageError, tables
from atrund.ledger.tables import Known
from atrund.ledger.writer import Write
from atrund.module.store import Stored
from atrund.run import Run
from atrund.runner import Runner
from atrund.sms.pdu import Deliver

if TYPE_CHECKING:  # few ask for it
    from atrund.doors.admission import Admission

log = structlog.get_logger()

AT_ONCE: Final = 16
"""Requests on their way at once, half of what a door's queue holds: the rest of a full store waits where it lies."""
HELD_MAX: Final = 50
"""Messages that lie in no store, held in memory while nothing can be recorded: some 20 kB."""
HELD_AGAIN: Final = 10.0
"""Seconds until such a one, or what a restart interrupted, is tried again."""


@dataclass(frozen=True, slots=True)
class SmsRules:
    """What the door goes by; times in seconds."""

    numbers: tuple[str, ...]
    passwords: tuple[str, ...]
    timeout: float
    delay: float
    max_age: float
    convert_ucs2: bool
    answer_max_age: float
    answers_per_hour: int
    answers_per_day: int
    sweep: float
    instance: int = 3
    delivery_reports: bool = False
    room: RoomRules = field(default_factory=RoomRules)


class Serving:
    """Serves one message, or goes on with one that a restart interrupted."""

    def __init__(
        self,
        rules: Callable[[], SmsRules],
        *,
        runner: Runner,
        ledger: Ledger,
        clock: Clock,
        verdicts: Verdicts,
        recording: Recording,
        answers: Answers,
        others: Room,
        disposal: Disposal,
        admission: "Callable[[], Admission | None]",
        taken: Callable[[str], None],
        see_again: Callable[[str], None],
        look_soon: Callable[[], None],
    ) -> None:
        """`taken` is told the text of each message that is run.

        `see_again` is given one that lies in no store, in a while; `look_soon` has the store looked at.
        """
        self._give_rules = rules
        self._runner = runner
        self._ledger = ledger
        self._clock = clock
        self._verdicts = verdicts
        self._recording = recording
        self._answers = answers
        self._others = others
        self._disposal = disposal
        self._give_admission = admission
        self._taken = taken
        self._see_again = see_again
        self._look_soon = look_soon
        self._warned_of_digests = False
        self._room = asyncio.Semaphore(AT_ONCE)
        self.held: set[str] = set()
        """The keys of messages that lie in no store, and could not be recorded yet."""

    @property
    def _rules(self) -> SmsRules:
        return self._give_rules()

    async def serve(self, key: str, found: AtRun, deliver: Deliver, stored: Stored | None, pdu: str) -> None:
        """Have a message run, answer it, and remove it."""
        rid = uuid.uuid4().hex
        mark = None if found.password is None else mark_of(self._rules.passwords[found.password], rid)
        stamp = round(deliver.timestamp.utc().timestamp())
        request = Request(
            rid=rid,
            door=Door.SMS,
            peer=deliver.originator.text,
            line=found.line,
            timeout=self._rules.timeout,
            delay=self._rules.delay,
            instance=self._rules.instance,
            forgeable=found.forgeable,
            reply=found.answered,
            key=key,
            context={**context_of(found, deliver), "password": mark, "stamp": stamp},
        )
        run: Run | None = None
        async with self._room, self._recording.of(key):
            admitted = await self._admit(key, found, deliver)
            if self._runner.closing:
                self._verdicts.forget(key)  # it waits in the store for the next start
                if stored is None:
                    self.held.add(key)  # and this one in none
                return
            if admitted is not None:
                refused, may_be_told = admitted
                refused = refused or self._too_old(stamp)
                if refused is None:
                    self._taken(found.line if found.answered else f"H{found.line}")
                request = replace(request, reply=found.answered and may_be_told)
                run = self._runner.start(request, self._remember, refused)
                self._recording.follow(run)
                await asyncio.shield(run.outcome)
        if run is None:
            self._verdicts.forget(key)
        elif await self._finish(run, stored):
            self.held.discard(key)
            return
        if stored is None:
            await self._hold(key, pdu)

    async def _admit(self, key: str, found: AtRun, deliver: Deliver) -> tuple[Outcome | None, bool] | None:
        """Return how one that is refused ends, and whether its sender may be told; None while neither is known."""
        admission = self._give_admission()
        if found.digest and not self._warned_of_digests and not (admission and admission.rules.digest_replay):
            log.warning("a digest covers neither session nor time: the same SMS works for ever; see sms.digest_replay")
            self._warned_of_digests = True
        if admission is None:
            return None, True
        try:
            return await admission.admit(key, found, deliver)
        except StorageError as error:
            log.error("request left in the store", peer=deliver.originator.text, detail=str(error))  # noqa: TRY400 - no traceback wanted
            return None

    async def _hold(self, key: str, pdu: str) -> None:
        """Keep a message that lies in no store, and see it again in a while: to leave it would be to lose it."""
        if key not in self.held:
            if len(self.held) >= HELD_MAX:
                log.error("sms lost: it lies in no store, and too many are held", held=len(self.held))
                return
            self.held.add(key)
            log.warning("sms held in memory: it lies in no store, and nothing can be recorded", held=len(self.held))
        await asyncio.sleep(HELD_AGAIN)
        if key in self._verdicts:  # it lies in a store all the same
            self.held.discard(key)
        else:
            self._see_again(pdu)

    async def take_up_again(self, known: Known) -> None:
        """Go on with what a restart interrupted until it is done, or somebody else has it."""
        key = known.request.key
        while not await self._take_up(known, None):
            await asyncio.sleep(HELD_AGAIN)
            if key in self._verdicts:
                return
            self._verdicts.note(key, Verdict.ATRUN)
            with contextlib.suppress(StorageError):  # as it was, then
                known = await self._ledger.ask(tables.known_by_key(Door.SMS, key))

    async def _take_up(self, known: Known, stored: Stored | None) -> bool:
        """Go on with what a restart interrupted: run what was not sent, answer what was not answered.

        Returns whether that is done; else it is to be tried again.
        """
        request, outcome = known.request, known.outcome
        if outcome is None:
            refused = self._too_old(int(request.context.get("stamp") or 0))
            return await self._finish(self._runner.resume(known, self._remember, refused), stored)
        end = functools.partial(self._end, request.key, stored)
        if not known.answered:
            await self._answers.answer(request, outcome, known.ended, end)
        end()
        return True

    def _remember(self, request: Request, outcome: Outcome) -> list[Write]:
        admission = self._give_admission()
        settled = [] if admission is None else [admission.settle(request.key)]
        return [*settled, self._verdicts.write(request.key, Verdict.DONE), self._others.ran(request, outcome)]

    async def _finish(self, run: Run, stored: Stored | None) -> bool:
        """Answer and delete; returns whether there is nothing to try again."""
        outcome = await asyncio.shield(run.outcome)
        request = run.request
        if run.known is not None:  # recorded before, and left undone when nothing could be written any more
            return await self._take_up(run.known, stored)
        if outcome is None or outcome.reason in {Reason.STORAGE, Reason.SHUTDOWN}:
            # It stays in the store: looked at again (REQ-12), or answered after the restart.
            self._verdicts.forget(request.key)
            return outcome is not None and outcome.reason is Reason.SHUTDOWN
        if run.owed is not None:
            await asyncio.shield(run.owed)  # an outcome that could still become another is nobody's to know (SMS-11)
        end = functools.partial(self._end, request.key, stored)
        if request.reply:
            await self._answers.answer(request, outcome, no_room=end)
        end()
        return True

    def _end(self, key: str, stored: Stored | None) -> None:
        self._verdicts.note(key, Verdict.DONE)
        if stored is not None:
            self._disposal.dispose(stored)
        else:
            self._look_soon()  # wherever it lies, the next look finds it

    def _too_old(self, stamp: int) -> Outcome | None:
        """Return the refusal of a message whose service centre's time, in seconds since 1970, is too long ago."""
        if not self._rules.max_age or not self._clock.known():
            return None
        age = self._clock.now().timestamp() - stamp
        return Outcome(End.EXPIRED, Reason.EXPIRED) if age > self._rules.max_age else None
