# SPDX-License-Identifier: Apache-2.0
"""The SMS door: finds new messages, has the ATRUN ones run, answers, and takes them out of the store (SMS-2 to SMS-13).

Rules of this file: a message is judged once; its command runs at most once; it is deleted last, when its outcome and
its answer are on disk. What is none of ours stays as it is.
"""

import asyncio
import hashlib
import re
import uuid
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Final

import structlog

from atrund.atrun.message import AtRun, answer_text, answers, context_of, judge, message_key
from atrund.atrun.request import Door, End, Outcome, Reason, Request
from atrund.clock import Clock
from atrund.ledger import Ledger, StorageError, tables
from atrund.ledger.tables import Known
from atrund.ledger.writer import Write
from atrund.mirror import Mirror
from atrund.module.store import Store, Stored, StoreError, UnknownFateError
from atrund.module.urc import Fanout
from atrund.runner import Run, Runner
from atrund.sms.address import Address, decode_address
from atrund.sms.fields import FieldReader
from atrund.sms.pdu import Deliver, PduError, Submit, decode_deliver

log = structlog.get_logger()

RETRY_FIRST: Final = 30.0
RETRY_LONGEST: Final = 600.0
"""Seconds between two tries to send: a cell that is full or lost is back within minutes."""
PERMANENT: Final = frozenset({1, 8, 10, 21, 28, 29, 30, 50, 69, 81, 95, 96, 97, 98, 99, 111})
"""+CMS ERRORs (TS 24.011 RP causes) that no later try can mend: the number, the subscription, the message itself."""


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


class SmsDoor:
    """Runs until cancelled."""

    def __init__(
        self,
        rules: SmsRules,
        *,
        store: Store,
        fanout: Fanout,
        runner: Runner,
        ledger: Ledger,
        mirror: Mirror,
        clock: Clock,
    ) -> None:
        self._rules = rules
        self._store = store
        self._fanout = fanout
        self._runner = runner
        self._ledger = ledger
        self._mirror = mirror
        self._clock = clock
        self._verdicts: dict[str, str] = {}
        self._lying: set[str] = set()
        self._baseline = False
        self._sent_at: deque[float] = deque()
        self._reference = 0
        self._wake = asyncio.Event()
        self._swept = False
        self._busy: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Watch the store for ever. Without a ledger no SMS is touched, for none could be promised to run once."""
        try:
            self._verdicts = await self._ledger.ask(tables.message_verdicts())
            self._baseline = await self._ledger.ask(tables.get_meta(_ON, 0.0)) == 0.0
            self._lying = set(self._verdicts)  # until the store was read, any may
            unfinished: list[Known] = await self._ledger.ask(tables.unfinished(Door.SMS))
        except StorageError as error:
            log.error("sms door shut: nothing can be recorded", detail=str(error))  # noqa: TRY400 - no traceback wanted
            return
        try:
            for known in unfinished:
                self._note(known.request.key, _ATRUN)
                self._spawn(self._take_up(known))
            async with asyncio.TaskGroup() as group:
                group.create_task(self._hear(), name="sms notifications")
                group.create_task(self._sweep_for_ever(), name="sms sweep")
        finally:
            for task in self._busy:
                task.cancel()

    @property
    def state(self) -> str:
        """`open` once the store was read, `shut` without a ledger, else `waiting` for the module."""
        if self._ledger.failure:
            return "shut"
        return "open" if self._swept else "waiting"

    @property
    def lying(self) -> frozenset[str]:
        """The keys of messages that lie in the store, which must not be forgotten (SMS-11)."""
        return frozenset(self._lying)

    def look(self) -> None:
        """Look at the store soon, as after the module came back."""
        self._swept = False
        self._wake.set()

    async def _hear(self) -> None:
        with self._fanout.listening() as listener:
            while True:
                code = await listener.get()
                if (stored := _NOTIFIED.match(code[0])) is not None:
                    self._spawn(self._fetch(stored[1], int(stored[2])))
                elif len(code) == _TWO_LINES and code[0].startswith("+CMT:"):
                    await self._see(code[1], None)

    async def _fetch(self, memory: str, index: int) -> None:
        try:
            stored = await self._store.read(memory, index)
        except StoreError as error:
            log.warning("sms not read", detail=str(error))
            self.look()
            return
        if stored is not None:
            await self._see(stored.pdu, stored)

    async def _sweep_for_ever(self) -> None:
        while True:
            self._wake.clear()
            if self._store.ready:
                try:
                    await self._sweep()
                    self._swept = not self._wake.is_set()
                except StoreError as error:
                    self._swept = False
                    log.warning("sms store not read", detail=str(error))
            try:
                async with asyncio.timeout(self._rules.sweep if self._swept else _RETRY_SWEEP):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _sweep(self) -> None:
        found = await self._store.messages()
        if self._baseline:
            await self._mark_seen(found)
        self._lying = {key for stored in found if (key := _key_of(stored.pdu)) is not None}
        for stored in found:
            await self._see(stored.pdu, stored)

    async def _mark_seen(self, found: list[Stored]) -> None:
        """What lay there before the service was switched on is not run (SMS-2)."""
        keys = [key for stored in found if (key := _key_of(stored.pdu)) is not None]
        writes = [tables.remember_message(key, _SEEN, self._ledger.run) for key in keys]
        try:
            await self._ledger.durable(*writes, tables.set_meta(_ON, 1.0))
        except StorageError as error:
            raise StoreError(f"not recorded: {error}") from error
        self._verdicts.update(dict.fromkeys(keys, _SEEN))
        self._baseline = False
        log.info("sms door open", seen=len(keys))

    async def _see(self, pdu: str, stored: Stored | None) -> None:
        """Take a message as it was shown, by whatever way and however often."""
        try:
            deliver = decode_deliver(pdu)
        except PduError as error:
            key = hashlib.sha256(pdu.encode("latin-1")).hexdigest()
            if key not in self._verdicts:
                self._note(key, _OTHER)
                self._tell("", "sms not understood", str(error))
            return
        key = message_key(deliver)
        verdict = self._verdicts.get(key)
        if verdict == _DONE and stored is not None:
            self._spawn(self._delete(stored))
        if verdict is not None or self._baseline or self._runner.closing:
            return
        found = judge(deliver, self._rules.numbers, self._rules.passwords, convert_ucs2=self._rules.convert_ucs2)
        if isinstance(found, AtRun):
            self._note(key, _ATRUN)
            self._spawn(self._serve(key, found, deliver, stored))
        else:
            self._note(key, _OTHER)
            self._ledger.behind(tables.remember_message(key, _OTHER, self._ledger.run))
            self._tell(deliver.originator.text, "sms not accepted", found.why)

    async def _serve(self, key: str, found: AtRun, deliver: Deliver, stored: Stored | None) -> None:
        request = Request(
            rid=uuid.uuid4().hex,
            door=Door.SMS,
            peer=deliver.originator.text,
            line=found.line,
            timeout=self._rules.timeout,
            delay=self._rules.delay,
            reply=found.answered,
            key=key,
            context=context_of(found, deliver),
        )
        refused = Outcome(End.EXPIRED, Reason.EXPIRED) if self._is_too_old(deliver) else None
        run = self._runner.start(request, self._remember, refused)
        await self._finish(run, stored)

    async def _take_up(self, known: Known) -> None:
        """Go on with what a restart interrupted: run what was not sent, answer what was not answered."""
        if known.outcome is None:
            await self._finish(self._runner.resume(known, self._remember), None)
            return
        await self._answer(known.request, known.outcome)
        self._note(known.request.key, _DONE)
        self.look()

    def _remember(self, request: Request, outcome: Outcome) -> list[Write]:
        if outcome.reason is Reason.STORAGE:
            return []
        return [tables.remember_message(request.key, _DONE, self._ledger.run)]

    async def _finish(self, run: Run, stored: Stored | None) -> None:
        outcome = await asyncio.shield(run.outcome)
        request = run.request
        if run.known is not None:
            self._note(request.key, _DONE if run.known.answered else _ATRUN)
            return
        if outcome is None or outcome.reason in {Reason.STORAGE, Reason.SHUTDOWN}:
            # It stays in the store: looked at again (REQ-12), or answered after the restart.
            self._verdicts.pop(request.key, None)
            return
        if request.reply:
            await self._answer(request, outcome)
        self._note(request.key, _DONE)
        if stored is not None:
            await self._delete(stored)
        else:
            self.look()

    async def _answer(self, request: Request, outcome: Outcome) -> None:
        """Send the answer, part by part and in order; what cannot be sent in time is recorded as undelivered."""
        undelivered = await self._try_to_answer(request, outcome)
        rows = [tables.mark_answered(request.rid)]
        if undelivered:
            rows += self._mirror.session(Door.SMS, request.peer, "answer undelivered", undelivered, request.rid)
        try:
            await self._ledger.durable(*rows)
        except StorageError as error:
            log.error("answer not recorded", id=request.rid, detail=str(error))  # noqa: TRY400 - no traceback wanted

    async def _try_to_answer(self, request: Request, outcome: Outcome) -> str:
        self._reference = (self._reference + 1) % 256
        to = decode_address(FieldReader(bytes.fromhex(str(request.context["originator"]))), "TP-OA")
        try:
            messages, parts = answers(answer_text(outcome), request.context, to, self._rules.passwords, self._reference)
        except (LookupError, PduError) as error:
            return str(error)
        if parts.cut or parts.replaced:
            log.warning("answer changed to fit", id=request.rid, cut=parts.cut or None, replaced=parts.replaced or None)
        until = self._ledger.run + self._rules.answer_max_age
        for message in messages:
            if why := await self._send(message, to, until):
                return why
        return ""

    async def _send(self, message: Submit, to: Address, until: float) -> str:
        """Send one part; returns why it could not be, or "". One whose fate is unknown is sent once more (SMS-12)."""
        pause = RETRY_FIRST
        repeated = False
        while True:
            if (place := self._place_under_cap()) is None:
                return "the cap on answers is reached"
            try:
                sent = await self._store.send(message.encode(), message.tpdu_length)
            except UnknownFateError as error:
                why = str(error)
                if repeated:
                    return f"sent twice without a result: {why}"
                repeated = True
                self._tell(to.text, "answer repeated", why)
            except StoreError as error:
                self._sent_at.remove(place)
                why = str(error)
            else:
                if sent.final.ok:
                    log.debug("answer part sent", peer=to.text, reference=sent.reference)
                    return ""
                self._sent_at.remove(place)
                why = sent.final.text
                if sent.final.code in PERMANENT:
                    return why
            if self._ledger.run + pause > until:
                return why
            await asyncio.sleep(pause)
            pause = min(pause * 2, RETRY_LONGEST)

    def _place_under_cap(self) -> float | None:
        """Take a place under the daemon's cap on answers, against toll fraud and loops (SMS-12); None if it is full."""
        now = self._ledger.run
        while self._sent_at and self._sent_at[0] < now - _DAY:
            self._sent_at.popleft()
        within_hour = sum(moment > now - _HOUR for moment in self._sent_at)
        if within_hour >= self._rules.answers_per_hour or len(self._sent_at) >= self._rules.answers_per_day:
            return None
        self._sent_at.append(now)
        return now

    async def _delete(self, stored: Stored) -> None:
        try:
            gone = await self._store.delete(stored)
        except StoreError as error:
            log.warning("sms not deleted", detail=str(error))
        else:
            if not gone:
                log.warning("sms not deleted", detail="another message lies at its place, or the module refused")

    def _is_too_old(self, deliver: Deliver) -> bool:
        if not self._rules.max_age or not self._clock.known():
            return False
        return (self._clock.now() - deliver.timestamp.utc()).total_seconds() > self._rules.max_age

    def _tell(self, peer: str, what: str, reason: str) -> None:
        self._ledger.behind(*self._mirror.session(Door.SMS, peer, what, reason))

    def _note(self, key: str, verdict: str) -> None:
        self._verdicts[key] = verdict
        if len(self._verdicts) > _VERDICTS_MAX:
            del self._verdicts[next(iter(self._verdicts))]

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
_SEEN, _OTHER, _ATRUN, _DONE = "seen", "other", "atrun", "done"
_NOTIFIED: Final = re.compile(r'\+CMTI: ?"([A-Z]{2})",([0-9]{1,5})$')
_TWO_LINES: Final = 2
_RETRY_SWEEP: Final = 5.0
"""Seconds until the store is looked at again when it could not be read, or the module was not there."""
_VERDICTS_MAX: Final = 20_000
"""Messages remembered at once, twice what the ledger keeps of requests: some 2 MB."""
_HOUR, _DAY = 3600.0, 86400.0


def _key_of(pdu: str) -> str | None:
    try:
        return message_key(decode_deliver(pdu))
    except PduError:
        return None
