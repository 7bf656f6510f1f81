# SPDX-License-Identifier: Apache-2.0
"""The SMS door: what is found is judged; an ATRUN SMS is served, any other is somebody else's (SMS-1 to SMS-13).

Rules of this file: a message is judged once, by whatever way and however often it is shown. `finding.py` finds,
`serving.py` runs and answers, `room.py` has what is none of ours.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING

import structlog

from atrund.atrun.message import AtRun, NotAtRun, judge
from atrund.atrun.request import Door
from atrund.clock import Clock
from atrund.doors.answers import AnswerRules, Answers
from atrund.doors.disposal import Disposal
from atrund.doors.finding import Finding, switched_off
from atrund.doors.recording import Recording
from atrund.doors.room import Room
from atrund.doors.serving import Serving, SmsRules
from atrund.doors.verdicts import Verdict, Verdicts, is_report, key_of
from atrund.ledger import Ledger, StorageError, tables
from atrund.ledger.tables import Known
from atrund.ledger.writer import Write
from atrund.mirror import Mirror
from atrund.module.store import Store, Stored
from atrund.module.urc import Fanout
from atrund.runner import Runner
from atrund.sms.pdu import Deliver, PduError, decode_deliver

if TYPE_CHECKING:  # few ask for it
    from atrund.doors.admission import Admission

log = structlog.get_logger()


class SmsDoor:
    """Runs until cancelled, on or off: what is under way when it is switched off is brought to its end.

    `begin` comes before `run`.
    """

    _left: list[Known] | None

    def __init__(
        self,
        rules: Callable[[], SmsRules],
        *,
        store: Store,
        fanout: Fanout,
        runner: Runner,
        ledger: Ledger,
        mirror: Mirror,
        clock: Clock,
        taken: Callable[[str], None] = lambda _text: None,
        announce: Callable[[str, int, str], None] = lambda _memory, _index, _pdu: None,
        admission: "Callable[[], Admission | None]" = lambda: None,
    ) -> None:
        """`rules` gives those of the moment. `taken` is told the text of each message that is run.

        `announce` is told of each new one that is not: memory, index, and its PDU, "" where it was not read (CMD-6).
        `admission` asks for more than the vendor's rules do.
        """
        self._give_admission = admission
        self._announce = announce
        self._give_rules = rules
        self._on = asyncio.Event()
        self._fanout = fanout
        self._runner = runner
        self._ledger = ledger
        self._verdicts = Verdicts(ledger)
        self._finding = Finding(
            self._on,
            lambda: self._rules.sweep,
            see=self._see,
            take_report=self._take_report,
            announce=announce,
            swept=self._swept,
            seen=self._seen,
            store=store,
            ledger=ledger,
            verdicts=self._verdicts,
            spawn=self._spawn,
        )
        self._recording = Recording(
            store=store,
            verdicts=self._verdicts,
            see=self._see,
            seems=self._seems,
            recalled=lambda: self._left is not None,
            begins=lambda: self._finding.begins,
        )
        self._answers = Answers(
            self._answer_rules, store=store, ledger=ledger, mirror=mirror, make_room=self._make_room
        )
        self._disposal = Disposal(store=store, ledger=ledger, spawn=self._spawn)
        self._others = Room(
            lambda: self._rules.room,
            store=store,
            ledger=ledger,
            mirror=mirror,
            verdicts=self._verdicts,
            disposal=self._disposal,
            look_soon=self._finding.soon,
            made=self._answers.look,
            spawn=self._spawn,
        )
        self._serving = Serving(
            rules,
            runner=runner,
            ledger=ledger,
            clock=clock,
            verdicts=self._verdicts,
            recording=self._recording,
            answers=self._answers,
            others=self._others,
            disposal=self._disposal,
            admission=admission,
            taken=taken,
            see_again=lambda pdu: self._see(pdu, None),
            look_soon=self._finding.soon,
        )
        self._left = None
        """What a restart interrupted, once it could be read."""
        self._said = False
        self._busy: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Watch the store for ever. Without a ledger no SMS is touched, for none could be promised to run once."""
        try:
            with self._fanout.listening() as listener:
                for known in await self._recall():
                    self._verdicts.note(known.request.key, Verdict.ATRUN)
                    self._spawn(self._serving.take_up_again(known))
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._finding.hear(listener), name="sms notifications")
                    group.create_task(self._finding.sweep_for_ever(), name="sms sweep")
        finally:
            for task in self._busy:
                task.cancel()
            if held := self._serving.held:
                log.error("sms lost: they lay in no store, and nothing could be recorded", count=len(held))

    async def begin(self, *, on: bool) -> None:
        """Be on or off as before the start: what came while the daemon was down is found (SMS-2)."""
        if on:
            self._on.set()
        else:
            await switched_off(self._ledger)
        await self._try_to_recall()

    async def switch(self, *, on: bool) -> None:
        """Switch the service; what lies in the store when it goes from off to on is not run (SMS-2)."""
        if on and not self._on.is_set():
            self._finding.begins = True
            self._on.set()
            self._finding.soon()  # what lies there is to be told from what comes next
        elif not on:
            self._on.clear()
            self._finding.forget()
            await switched_off(self._ledger)

    @property
    def state(self) -> str:
        """`open` once the store was read since the module came (back), `shut` without a ledger, `off`, or `waiting`."""
        if not self._on.is_set():
            return "off"
        if self._ledger.failure:
            return "shut"
        return "open" if self._finding.is_open else "waiting"

    @property
    def room(self) -> dict[str, object]:
        """How full the memories are, for the status."""
        return self._others.state

    @property
    def lying(self) -> frozenset[str] | None:
        """The keys of messages that lie in the store and must not be forgotten (SMS-11); None while that is unknown."""
        return self._verdicts.lying if self._on.is_set() else frozenset()

    @property
    def recording(self) -> Recording | None:
        """The door's part in other doors' SMS commands, while it is on (CMD-6)."""
        return self._recording if self._on.is_set() else None

    def look(self) -> None:
        """Look at the store soon: the module came back."""
        self._finding.module_is_back()
        self._answers.look()

    def network_is_back(self) -> None:
        """Take note that answers can be sent (again)."""
        self._answers.look()

    @property
    def _rules(self) -> SmsRules:
        return self._give_rules()

    @property
    def _admission(self) -> "Admission | None":
        return self._give_admission()

    def _answer_rules(self) -> AnswerRules:
        rules = self._rules
        return AnswerRules(
            rules.passwords,
            rules.answer_max_age,
            rules.answers_per_hour,
            rules.answers_per_day,
            reports=rules.delivery_reports,
        )

    async def _recall(self) -> list[Known]:
        """Read what was known before the restart, as soon as it can be read; returns what was left undone."""
        while self._left is None:
            await asyncio.sleep(self._rules.sweep)
            await self._try_to_recall()
        return self._left

    async def _try_to_recall(self) -> None:
        try:
            await self._answers.recall()
            await self._verdicts.recall()
            await self._finding.recall()
            self._left = await self._ledger.ask(tables.unfinished(Door.SMS))
        except StorageError as error:
            if not self._said:
                log.error("sms door shut: nothing can be recorded", detail=str(error))  # noqa: TRY400 - no traceback wanted
            self._said = True

    def _see(self, pdu: str, stored: Stored | None) -> None:
        """Take a message as it was shown, by whatever way and however often."""
        key = key_of(pdu)
        verdict = self._verdicts.get(key)
        if verdict is Verdict.DONE and stored is not None:
            self._disposal.dispose(stored)
        if verdict is not None or self._runner.closing or not self._on.is_set():
            return
        if self._finding.begins and stored is not None:
            self._finding.soon()  # it may be new, or lie there from before: the next look tells
            return
        try:
            deliver = decode_deliver(pdu)
        except PduError as error:
            if is_report(pdu):
                self._verdicts.note(key, Verdict.ATRUN)
                self._spawn(self._recording.during(key, self._take_report(pdu, stored)))
            else:
                self._others.leave(key, pdu, stored, "sms not understood", str(error))
            return
        found = self._judge(deliver)
        if isinstance(found, AtRun):
            self._verdicts.note(key, Verdict.ATRUN)
            self._spawn(self._serving.serve(key, found, deliver, stored, pdu))
        else:
            self._others.leave(key, pdu, stored, "sms not accepted", found.why)
            if stored is not None:
                self._announce(stored.memory, stored.index, pdu)

    def _judge(self, deliver: Deliver) -> AtRun | NotAtRun:
        try:
            rules, admission = self._rules, self._admission
            ask = judge if admission is None else admission.judge
            return ask(deliver, rules.numbers, rules.passwords, convert_ucs2=rules.convert_ucs2)
        except Exception as error:
            # Anybody can send a message: a fault in reading one must not end the daemon, again at each start.
            log.exception("sms not judged")
            return NotAtRun(f"is not understood: {type(error).__name__}")

    def _seems(self, pdu: str) -> bool:
        """Whether a message that was not judged yet is for this door, or may be."""
        try:
            return isinstance(self._judge(decode_deliver(pdu)), AtRun)
        except PduError:
            return is_report(pdu)

    async def _take_report(self, pdu: str, stored: Stored | None) -> None:
        """Take a status report: one on an answer is recorded and removed, any other is left as any SMS."""
        key = key_of(pdu)
        try:
            ours = await self._answers.report(pdu)
        except StorageError as error:
            log.warning("report not recorded", detail=str(error))
            self._verdicts.forget(key)  # where it lies in a store, it is found again
            return
        if ours:
            self._verdicts.note(key, Verdict.DONE)
            self._ledger.behind(self._verdicts.write(key, Verdict.DONE), self._others.reported(key, pdu))
            if stored is not None:
                self._disposal.dispose(stored)
        elif stored is not None:
            why = "it is about a message that was not sent here"
            self._others.leave(key, pdu, stored, "report of no answer", why)
            self._announce(stored.memory, stored.index, pdu)

    def _seen(self, found: Iterable[Stored]) -> list[Write]:
        return self._others.seen(found)

    async def _swept(self, found: list[Stored], memories: set[str]) -> None:
        self._disposal.try_again()
        await self._others.look(found, memories)

    def _make_room(self) -> None:
        self._finding.everywhere()
        self._others.ask()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._busy.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._busy.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("sms not served", detail=repr(error))
