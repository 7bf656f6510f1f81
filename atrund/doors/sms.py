# SPDX-License-Identifier: Apache-2.0
"""The SMS door: finds new messages, has the ATRUN ones run, answers, and takes them out of the store (SMS-2 to SMS-13).

Rules of this file: a message is judged once; its command runs at most once; it is deleted last, when its outcome and
its answer are on disk. What is none of ours stays as it is.
"""

import asyncio
import contextlib
import hashlib
import re
import uuid
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Final

import structlog

from atrund.at.results import FinalKind
from atrund.atrun.message import AtRun, NotAtRun, answer_text, answers, context_of, judge, message_key
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
DELETE_FIRST: Final = 60.0
DELETE_LONGEST: Final = 3600.0
"""Seconds between two tries to delete one message: six in the first hour, then one an hour."""
AT_ONCE: Final = 16
"""Requests on their way at once, half of what a door's queue holds: the rest of a full store waits where it lies."""
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
        self._lying: set[str] | None = None
        self._baseline = False
        self._sent_at = [-_DAY] * rules.answers_per_day
        self._undeleted: dict[Stored, tuple[float, float]] = {}
        self._room = asyncio.Semaphore(AT_ONCE)
        self._wake = asyncio.Event()
        self._returns = 0
        self._swept: int | None = None
        self._busy: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Watch the store for ever. Without a ledger no SMS is touched, for none could be promised to run once."""
        unfinished = await self._recall()
        try:
            for known in unfinished:
                self._note(known.request.key, _ATRUN)
                self._spawn(self._take_up(known, None))
            async with asyncio.TaskGroup() as group:
                group.create_task(self._hear(), name="sms notifications")
                group.create_task(self._sweep_for_ever(), name="sms sweep")
        finally:
            for task in self._busy:
                task.cancel()

    @property
    def state(self) -> str:
        """`open` once the store was read since the module came (back), `shut` without a ledger, else `waiting`."""
        if self._ledger.failure:
            return "shut"
        swept = self._swept == self._returns and not self._baseline and self._store.ready
        return "open" if swept else "waiting"

    @property
    def lying(self) -> frozenset[str] | None:
        """The keys of messages that lie in the store and must not be forgotten (SMS-11); None while that is unknown."""
        return None if self._lying is None else frozenset(self._lying)

    def look(self) -> None:
        """Look at the store soon: the module came back."""
        self._returns += 1
        self._wake.set()

    async def _recall(self) -> list[Known]:
        """Read what was known before the restart, as soon as it can be read; returns what was left undone."""
        places = [tables.get_meta(f"{_SENT_AT}{place}", -_DAY) for place in range(len(self._sent_at))]
        said = False
        while True:
            try:
                self._sent_at = await self._ledger.ask(lambda db: [place(db) for place in places])
                self._verdicts = await self._ledger.ask(tables.message_verdicts())
                self._lying = set(self._verdicts)  # until the store was read, any may
                self._baseline = await self._ledger.ask(tables.get_meta(_ON, 0.0)) == 0.0
                unfinished: list[Known] = await self._ledger.ask(tables.unfinished(Door.SMS))
            except StorageError as error:
                if not said:
                    log.error("sms door shut: nothing can be recorded", detail=str(error))  # noqa: TRY400 - no traceback wanted
                said = True
                await asyncio.sleep(self._rules.sweep)
            else:
                return unfinished

    async def _hear(self) -> None:
        with self._fanout.listening() as listener:
            while True:
                code = await listener.get()
                if (stored := _NOTIFIED.match(code[0])) is not None:
                    self._spawn(self._fetch(stored[1], int(stored[2])))
                elif len(code) == _TWO_LINES and code[0].startswith("+CMT:"):
                    self._see(code[1], None)

    async def _fetch(self, memory: str, index: int) -> None:
        try:
            stored = await self._store.read(memory, index)
        except StoreError as error:
            log.warning("sms not read", detail=str(error))
            self._wake.set()
            return
        if stored is not None:
            self._see(stored.pdu, stored)

    async def _sweep_for_ever(self) -> None:
        while True:
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
        found = await self._store.messages()
        if self._baseline:
            await self._mark_seen(found)
        self._lying = {_key_of(stored.pdu) for stored in found}
        for stored in found:
            self._see(stored.pdu, stored)
        for stored in tuple(self._undeleted):  # those of other memories too
            self._dispose(stored)

    async def _mark_seen(self, found: list[Stored]) -> None:
        """What lay there before the service was switched on is not run (SMS-2)."""
        keys = [key for stored in found if (key := _key_of(stored.pdu)) not in self._verdicts]
        writes = [tables.remember_message(key, _SEEN, self._ledger.run) for key in keys]
        try:
            await self._ledger.durable(*writes, tables.set_meta(_ON, 1.0))
        except StorageError as error:
            raise StoreError(f"not recorded: {error}") from error
        for key in keys:
            self._note(key, _SEEN)
        self._baseline = False
        log.info("sms door open", seen=len(keys))

    def _see(self, pdu: str, stored: Stored | None) -> None:
        """Take a message as it was shown, by whatever way and however often."""
        key = _key_of(pdu)
        verdict = self._verdicts.get(key)
        if verdict == _DONE and stored is not None:
            self._dispose(stored)
        if verdict is not None or self._runner.closing:
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
            self._note(key, _ATRUN)
            self._spawn(self._serve(key, found, deliver, stored))
        else:
            self._leave(key, deliver.originator.text, "sms not accepted", found.why)

    def _leave(self, key: str, peer: str, what: str, why: str) -> None:
        """It is none of ours: say so once, and leave it where it lies."""
        self._note(key, _OTHER)
        self._ledger.behind(tables.remember_message(key, _OTHER, self._ledger.run))
        self._tell(peer, what, why)

    async def _serve(self, key: str, found: AtRun, deliver: Deliver, stored: Stored | None) -> None:
        rid = uuid.uuid4().hex
        mark = None if found.password is None else _mark_of(self._rules.passwords[found.password], rid)
        stamp = round(deliver.timestamp.utc().timestamp())
        request = Request(
            rid=rid,
            door=Door.SMS,
            peer=deliver.originator.text,
            line=found.line,
            timeout=self._rules.timeout,
            delay=self._rules.delay,
            reply=found.answered,
            key=key,
            context={**context_of(found, deliver), "password": mark, "stamp": stamp},
        )
        async with self._room:
            if self._runner.closing:
                self._verdicts.pop(key, None)  # it waits in the store for the next start
                return
            run = self._runner.start(request, self._remember, self._too_old(stamp))
            await asyncio.shield(run.outcome)
        await self._finish(run, stored)

    async def _take_up(self, known: Known, stored: Stored | None) -> None:
        """Go on with what a restart interrupted: run what was not sent, answer what was not answered."""
        request, outcome = known.request, known.outcome
        if outcome is None:
            refused = self._too_old(int(request.context.get("stamp") or 0))
            await self._finish(self._runner.resume(known, self._remember, refused), stored)
            return
        if not known.answered:
            if outcome.reason is not Reason.SHUTDOWN:
                self._tell(
                    request.peer, "answer repeated", "whether it was sent before the restart is unknown", request.rid
                )
            await self._answer(request, outcome)
        self._end(request.key, stored)

    def _remember(self, request: Request, _outcome: Outcome) -> list[Write]:
        return [tables.remember_message(request.key, _DONE, self._ledger.run)]

    async def _finish(self, run: Run, stored: Stored | None) -> None:
        outcome = await asyncio.shield(run.outcome)
        request = run.request
        if run.known is not None:  # recorded before, and left undone when nothing could be written any more
            await self._take_up(run.known, stored)
            return
        if outcome is None or outcome.reason in {Reason.STORAGE, Reason.SHUTDOWN}:
            # It stays in the store: looked at again (REQ-12), or answered after the restart.
            self._verdicts.pop(request.key, None)
            return
        if request.reply:
            await self._answer(request, outcome)
        self._end(request.key, stored)

    def _end(self, key: str, stored: Stored | None) -> None:
        self._note(key, _DONE)
        if stored is not None:
            self._dispose(stored)
        else:
            self._wake.set()  # wherever it lies, the next look finds it

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
        try:
            to = decode_address(FieldReader(bytes.fromhex(str(request.context["originator"]))), "TP-OA")
            context = {**request.context, "password": self._password_of(request)}
            # The same number after a restart too, so that a part that comes twice is put together once.
            reference = int(request.key[:2], 16)
            messages, parts = answers(answer_text(outcome), context, to, self._rules.passwords, reference)
        except (LookupError, PduError) as error:
            return str(error)
        if parts.cut:
            self._tell(to.text, "answer cut", f"after {len(messages)} parts, the most there are", request.rid)
        if parts.replaced:
            log.warning("answer changed to fit", id=request.rid, replaced=parts.replaced)
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
            await self._take_place(place)
            try:
                sent = await self._store.send(message.encode(), message.tpdu_length)
            except UnknownFateError as error:
                why = str(error)
                if repeated:
                    return f"sent twice without a result: {why}"
                repeated = True
                self._tell(to.text, "answer repeated", why)
            except StoreError as error:
                self._free_place(place)
                why = str(error)
            else:
                if sent.final.ok:
                    log.debug("answer part sent", peer=to.text, reference=sent.reference)
                    return ""
                self._free_place(place)
                why = sent.final.text
                if sent.final.kind is FinalKind.CMS and sent.final.code in PERMANENT:
                    return why
            if self._ledger.run + pause > until:
                return why
            await asyncio.sleep(pause)
            pause = min(pause * 2, RETRY_LONGEST)

    def _password_of(self, request: Request) -> int | None:
        """Return the index of the password that a request was made with, wherever it stands by now."""
        mark = request.context["password"]
        if mark is None:
            return None
        for index, password in enumerate(self._rules.passwords):
            if _mark_of(password, request.rid) == mark:
                return index
        raise LookupError("the password of the request is no longer configured")

    def _place_under_cap(self) -> int | None:
        """Return a free place under the daemon's cap on answers, against toll fraud and loops (SMS-12), if any."""
        now = self._ledger.run
        if sum(moment > now - _HOUR for moment in self._sent_at) >= self._rules.answers_per_hour:
            return None
        return next((place for place, moment in enumerate(self._sent_at) if moment <= now - _DAY), None)

    async def _take_place(self, place: int) -> None:
        """Take a place, on disk before anything is sent: a loop of restarts is a loop too (REQ-11)."""
        now = self._sent_at[place] = self._ledger.run
        with contextlib.suppress(StorageError):  # the cap holds until the restart, and the answer is owed
            await self._ledger.durable(tables.set_meta(f"{_SENT_AT}{place}", now))

    def _free_place(self, place: int) -> None:
        self._sent_at[place] = -_DAY
        self._ledger.behind(tables.set_meta(f"{_SENT_AT}{place}", -_DAY))

    def _dispose(self, stored: Stored) -> None:
        """Have a message deleted, unless that is under way or failed just now."""
        now = self._ledger.run
        due, pause = self._undeleted.get(stored, (now, DELETE_FIRST))
        if now < due:
            return
        self._undeleted[stored] = now + pause, min(pause * 2, DELETE_LONGEST)
        if len(self._undeleted) > _UNDELETED_MAX:
            del self._undeleted[next(iter(self._undeleted))]
        self._spawn(self._delete(stored))

    async def _delete(self, stored: Stored) -> None:
        try:
            gone = await self._store.delete(stored) or await self._store.read(stored.memory, stored.index) != stored
        except StoreError as error:
            log.warning("sms not deleted", detail=str(error))
            return
        if gone:
            self._undeleted.pop(stored, None)
        else:
            log.warning("sms not deleted", detail="the module refused")

    def _too_old(self, stamp: int) -> Outcome | None:
        """Return the refusal of a message whose service centre's time, in seconds since 1970, is too long ago."""
        if not self._rules.max_age or not self._clock.known():
            return None
        age = self._clock.now().timestamp() - stamp
        return Outcome(End.EXPIRED, Reason.EXPIRED) if age > self._rules.max_age else None

    def _tell(self, peer: str, what: str, reason: str, rid: str = "") -> None:
        self._ledger.behind(*self._mirror.session(Door.SMS, peer, what, reason, rid))

    def _note(self, key: str, verdict: str) -> None:
        """Remember a verdict; the oldest gives way, but never one on what lies in the store or is under way."""
        self._verdicts[key] = verdict
        while len(self._verdicts) > _VERDICTS_MAX:
            old = next((k for k, v in self._verdicts.items() if k not in (self._lying or ()) and v != _ATRUN), None)
            if old is None:
                return
            del self._verdicts[old]

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
_SENT_AT: Final = "sms_sent_at_"
"""When an answer was sent, by its place under the cap of a day."""
_SEEN, _OTHER, _ATRUN, _DONE = "seen", "other", "atrun", "done"
_NOTIFIED: Final = re.compile(r'\+CMTI: ?"([A-Z]{2})",([0-9]{1,5})$')
_TWO_LINES: Final = 2
_RETRY_SWEEP: Final = 5.0
"""Seconds until the store is looked at again when it could not be read, or the module was not there."""
_VERDICTS_MAX: Final = 20_000
"""Messages remembered at once, twice what the ledger keeps of requests: some 2 MB."""
_UNDELETED_MAX: Final = 1000
"""Messages whose deletion failed: more than the memories of a module hold."""
_HOUR, _DAY = 3600.0, 86400.0


def _key_of(pdu: str) -> str:
    """Return what a message is known by; for what is no message, the hash of its text."""
    try:
        return message_key(decode_deliver(pdu))
    except PduError:
        return hashlib.sha256(pdu.encode(errors="replace")).hexdigest()


def _mark_of(password: str, rid: str) -> str:
    """Return what a password is known again by: too short to try passwords against, bound to one request."""
    secret = password.encode(errors="surrogatepass")
    return hashlib.blake2s(secret, key=bytes.fromhex(rid), digest_size=4).hexdigest()
