# SPDX-License-Identifier: Apache-2.0
"""The SMS door: finds new messages, has the ATRUN ones run, answers, and takes them out of the store (SMS-2 to SMS-13).

Rules of this file: a message is judged once; its command runs at most once; it is deleted last, when its outcome and
its answer are on disk. What is none of ours stays as it is.
"""

import asyncio
import contextlib
import re
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Final

import structlog

from atrund.atrun.message import AtRun, NotAtRun, context_of, judge
from atrund.atrun.request import Door, End, Outcome, Reason, Request
from atrund.clock import Clock
from atrund.doors.answers import AnswerRules, Answers, mark_of
from atrund.doors.disposal import Disposal
from atrund.doors.verdicts import Verdict, Verdicts, key_of
from atrund.ledger import Ledger, StorageError, tables
from atrund.ledger.tables import Known
from atrund.ledger.writer import Write
from atrund.mirror import Mirror
from atrund.module.store import Store, Stored, StoreError
from atrund.module.urc import Fanout, Listener
from atrund.run import Run
from atrund.runner import Runner
from atrund.sms.pdu import Deliver, PduError, decode_deliver

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
    ) -> None:
        """`rules` gives those of the moment. `taken` is told the text of each message that is run.

        `announce` is told of each new one that is not: memory, index, and its PDU, "" where it was not read (CMD-6).
        """
        self._taken = taken
        self._announce = announce
        self._give_rules = rules
        self._on = asyncio.Event()
        self._store = store
        self._fanout = fanout
        self._runner = runner
        self._ledger = ledger
        self._mirror = mirror
        self._clock = clock
        self._verdicts = Verdicts(ledger)
        self._baseline = False
        self._disposal = Disposal(store=store, ledger=ledger, spawn=self._spawn)
        self._room = asyncio.Semaphore(AT_ONCE)
        self._wake = asyncio.Event()
        self._answers = Answers(
            self._answer_rules,
            store=store,
            ledger=ledger,
            mirror=mirror,
            make_room=self._wake.set,
        )
        self._left = None
        """What a restart interrupted, once it could be read."""
        self._said = False
        self._returns = 0
        self._swept: int | None = None
        self._swept_everywhere: tuple[int, float] | None = None
        """At which return of the module, and when, every memory was read last."""
        self._held: set[str] = set()
        self._busy: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Watch the store for ever. Without a ledger no SMS is touched, for none could be promised to run once."""
        try:
            with self._fanout.listening() as listener:
                for known in await self._recall():
                    self._verdicts.note(known.request.key, Verdict.ATRUN)
                    self._spawn(self._take_up_again(known))
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._hear(listener), name="sms notifications")
                    group.create_task(self._sweep_for_ever(), name="sms sweep")
        finally:
            for task in self._busy:
                task.cancel()
            if self._held:
                log.error("sms lost: they lay in no store, and nothing could be recorded", count=len(self._held))

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
            self._baseline = True
            self._on.set()
            self._wake.set()  # what lies there is to be told from what comes next
        elif not on:
            self._on.clear()
            self._swept = None
            await switched_off(self._ledger)

    @property
    def state(self) -> str:
        """`open` once the store was read since the module came (back), `shut` without a ledger, `off`, or `waiting`."""
        if not self._on.is_set():
            return "off"
        if self._ledger.failure:
            return "shut"
        swept = self._swept == self._returns and not self._baseline and self._store.ready
        return "open" if swept else "waiting"

    @property
    def lying(self) -> frozenset[str] | None:
        """The keys of messages that lie in the store and must not be forgotten (SMS-11); None while that is unknown."""
        return self._verdicts.lying if self._on.is_set() else frozenset()

    def look(self) -> None:
        """Look at the store soon: the module came back."""
        self._returns += 1
        self._wake.set()
        self._answers.look()

    @property
    def _rules(self) -> SmsRules:
        return self._give_rules()

    def _answer_rules(self) -> AnswerRules:
        rules = self._rules
        return AnswerRules(rules.passwords, rules.answer_max_age, rules.answers_per_hour, rules.answers_per_day)

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
            self._baseline |= await self._ledger.ask(tables.get_meta(_ON, 0.0)) == 0.0
            self._left = await self._ledger.ask(tables.unfinished(Door.SMS))
        except StorageError as error:
            if not self._said:
                log.error("sms door shut: nothing can be recorded", detail=str(error))  # noqa: TRY400 - no traceback wanted
            self._said = True

    async def _hear(self, listener: Listener) -> None:
        while True:
            code = await listener.get()
            stored = _NOTIFIED.match(code[0])
            if not self._on.is_set():
                if stored is not None:
                    self._announce(stored[1], int(stored[2]), "")
                continue
            if stored is not None:
                self._spawn(self._fetch(stored[1], int(stored[2])))
            elif len(code) == _TWO_LINES and code[0].startswith("+CMT:"):
                self._see(code[1], None)

    async def _fetch(self, memory: str, index: int) -> None:
        try:
            stored = await self._store.read(memory, index, doubted=self._verdicts.is_new)
        except StoreError as error:
            log.warning("sms not read", detail=str(error))
            self._wake.set()
            return
        if stored is not None:
            self._see(stored.pdu, stored)

    async def _sweep_for_ever(self) -> None:
        while True:
            await self._on.wait()
            self._wake.clear()
            returns, swept = self._returns, False
            if self._store.ready:
                try:
                    await self._sweep()
                    swept = True
                except StoreError as error:
                    log.warning("sms store not read", detail=str(error))
            self._swept = returns if swept else None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._rules.sweep if swept else _RETRY_SWEEP):
                    await self._wake.wait()

    async def _sweep(self) -> None:
        """Look at the memory that receives; at every one at the start, when the module came back, and hourly."""
        now, returns = asyncio.get_running_loop().time(), self._returns
        last = self._swept_everywhere
        everywhere = self._baseline or last is None or last[0] != returns or now >= last[1] + _HOUR
        found = await self._store.messages(everywhere=everywhere, doubted=self._verdicts.is_new)
        if self._baseline:
            await self._mark_seen(found)
        self._verdicts.lies((key_of(stored.pdu) for stored in found), everywhere=everywhere)
        if everywhere:
            self._swept_everywhere = returns, now
        for stored in found:
            self._see(stored.pdu, stored)
        self._disposal.try_again()

    async def _mark_seen(self, found: list[Stored]) -> None:
        """What lay there before the service was switched on is not run (SMS-2)."""
        keys = [key for stored in found if (key := key_of(stored.pdu)) not in self._verdicts]
        writes = [self._verdicts.write(key, Verdict.SEEN) for key in keys]
        try:
            await self._ledger.durable(*writes, tables.set_meta(_ON, 1.0))
        except StorageError as error:
            raise StoreError(f"not recorded: {error}") from error
        for key in keys:
            self._verdicts.note(key, Verdict.SEEN)
        self._baseline = False
        log.info("sms door open", seen=len(keys))

    def _see(self, pdu: str, stored: Stored | None) -> None:
        """Take a message as it was shown, by whatever way and however often."""
        key = key_of(pdu)
        verdict = self._verdicts.get(key)
        if verdict is Verdict.DONE and stored is not None:
            self._disposal.dispose(stored)
        if verdict is not None or self._runner.closing or not self._on.is_set():
            return
        if self._baseline and stored is not None:
            self._wake.set()  # it may be new, or lie there from before: the next look tells
            return
        try:
            deliver = decode_deliver(pdu)
        except PduError as error:
            self._leave(key, "", "sms not understood", str(error))
            return
        try:
            found = judge(deliver, self._rules.numbers, self._rules.passwords, convert_ucs2=self._rules.convert_ucs2)
        except Exception as error:
            # Anybody can send a message: a fault in reading one must not end the daemon, again at each start.
            log.exception("sms not judged")
            found = NotAtRun(f"is not understood: {type(error).__name__}")
        if isinstance(found, AtRun):
            self._verdicts.note(key, Verdict.ATRUN)
            self._spawn(self._serve(key, found, deliver, stored, pdu))
        else:
            self._leave(key, deliver.originator.text, "sms not accepted", found.why)
            if stored is not None:
                self._announce(stored.memory, stored.index, pdu)

    def _leave(self, key: str, peer: str, what: str, why: str) -> None:
        """It is none of ours: say so once, and leave it where it lies."""
        self._verdicts.note(key, Verdict.OTHER)
        self._ledger.behind(self._verdicts.write(key, Verdict.OTHER))
        self._tell(peer, what, why)

    async def _serve(self, key: str, found: AtRun, deliver: Deliver, stored: Stored | None, pdu: str) -> None:
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
            forgeable=found.password is None,
            reply=found.answered,
            key=key,
            context={**context_of(found, deliver), "password": mark, "stamp": stamp},
        )
        async with self._room:
            if self._runner.closing:
                self._verdicts.forget(key)  # it waits in the store for the next start
                if stored is None:
                    self._held.add(key)  # and this one in none
                return
            self._taken(found.line if found.answered else f"H{found.line}")
            run = self._runner.start(request, self._remember, self._too_old(stamp))
            await asyncio.shield(run.outcome)
        if await self._finish(run, stored):
            self._held.discard(key)
        elif stored is None:
            await self._hold(key, pdu)

    async def _hold(self, key: str, pdu: str) -> None:
        """Keep a message that lies in no store, and see it again in a while: to leave it would be to lose it."""
        if key not in self._held:
            if len(self._held) >= HELD_MAX:
                log.error("sms lost: it lies in no store, and too many are held", held=len(self._held))
                return
            self._held.add(key)
            log.warning("sms held in memory: it lies in no store, and nothing can be recorded", held=len(self._held))
        await asyncio.sleep(HELD_AGAIN)
        if key in self._verdicts:  # it lies in a store all the same
            self._held.discard(key)
        else:
            self._see(pdu, None)

    async def _take_up_again(self, known: Known) -> None:
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
        if not known.answered:
            if outcome.reason is not Reason.SHUTDOWN:
                self._tell(
                    request.peer, "answer repeated", "whether it was sent before the restart is unknown", request.rid
                )
            await self._answers.answer(request, outcome, known.ended)
        self._end(request.key, stored)
        return True

    def _remember(self, request: Request, _outcome: Outcome) -> list[Write]:
        return [self._verdicts.write(request.key, Verdict.DONE)]

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
        if request.reply:
            await self._answers.answer(request, outcome)
        self._end(request.key, stored)
        return True

    def _end(self, key: str, stored: Stored | None) -> None:
        self._verdicts.note(key, Verdict.DONE)
        if stored is not None:
            self._disposal.dispose(stored)
        else:
            self._wake.set()  # wherever it lies, the next look finds it

    def _too_old(self, stamp: int) -> Outcome | None:
        """Return the refusal of a message whose service centre's time, in seconds since 1970, is too long ago."""
        if not self._rules.max_age or not self._clock.known():
            return None
        age = self._clock.now().timestamp() - stamp
        return Outcome(End.EXPIRED, Reason.EXPIRED) if age > self._rules.max_age else None

    def _tell(self, peer: str, what: str, reason: str, rid: str = "") -> None:
        self._ledger.behind(*self._mirror.session(Door.SMS, peer, what, reason, rid))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._busy.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._busy.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("sms not served", detail=repr(error))


async def switched_off(ledger: Ledger) -> None:
    """Take note that the service is off: what comes meanwhile is not run when it is switched on again (SMS-2)."""
    try:
        await ledger.durable(tables.set_meta(_ON, 0.0))
    except StorageError:
        log.debug("not recorded that the sms door is off")


_ON: Final = "sms_on"
_NOTIFIED: Final = re.compile(r'\+CMTI: ?"([A-Z]{2})",([0-9]{1,5})$')
_TWO_LINES: Final = 2
_RETRY_SWEEP: Final = 5.0
"""Seconds until the store is looked at again when it could not be read, or the module was not there."""
_HOUR: Final = 3600.0
