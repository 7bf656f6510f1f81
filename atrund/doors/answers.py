# SPDX-License-Identifier: Apache-2.0
"""How answers leave by SMS: part by part, within the daemon's cap, tried again until they are too old (SMS-8, SMS-12).

Rules of this file: on disk before a part goes out are its place under the cap, and that it may be on its way; what was
sent before a restart is not sent again; a part whose fate is unknown is sent once more and no oftener, restart or not;
an answer's age goes on over a restart. Reports are recorded, and never answered.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

import structlog

from atrund.at.results import FinalKind
from atrund.atrun.message import answer_text, answers
from atrund.atrun.request import Door, Outcome, Request
from atrund.ledger import Ledger, StorageError, tables
from atrund.ledger.answers import Progress, keep_progress, progress_of
from atrund.ledger.writer import Write
from atrund.mirror import Mirror
from atrund.module.store import Sent, Store, StoreError, UnknownFateError
from atrund.sms.address import Address, decode_address
from atrund.sms.failures import Failure, failure_of
from atrund.sms.fields import FieldReader
from atrund.sms.pdu import PduError, Submit

log = structlog.get_logger()

RETRY_FIRST: Final = 30.0
RETRY_LONGEST: Final = 600.0
"""Seconds between two tries to send: a cell that is full or lost is back within minutes."""
RETRY_SOONEST: Final = 5.0
"""Seconds until the next try when what was missing came back: a module that has just registered is not yet at ease."""


@dataclass(frozen=True, slots=True)
class AnswerRules:
    """What answers go by; `max_age` in seconds; `reports`: whether the network is asked to tell of their delivery."""

    passwords: tuple[str, ...] = field(repr=False)
    max_age: float
    per_hour: int
    per_day: int
    reports: bool = False


@dataclass(frozen=True, slots=True)
class _Owed:
    """One answer on its way: to whom, and the second of the daemon's running at which it is too old."""

    rid: str
    to: Address
    until: float
    no_room: Callable[[], None]


class Answers:
    """Sends answers. `rules` gives those of the moment; `make_room` is called when the module's store is full."""

    def __init__(
        self,
        rules: Callable[[], AnswerRules],
        *,
        store: Store,
        ledger: Ledger,
        mirror: Mirror,
        make_room: Callable[[], None],
    ) -> None:
        self._give_rules = rules
        self._store = store
        self._ledger = ledger
        self._mirror = mirror
        self._make_room = make_room
        self._sent_at: list[float] = []
        """When an answer was sent, by its place under the cap of a day."""
        self._back = asyncio.Event()
        self._waiting = 0
        self._sending = asyncio.Lock()
        """Held while a part goes out and its reference is noted, so that no report is read in between."""

    @property
    def _rules(self) -> AnswerRules:
        return self._give_rules()

    async def recall(self) -> None:
        """Read when answers were sent before the restart. Raises `StorageError`."""
        places = [tables.get_meta(f"{_SENT_AT}{place}", -_DAY) for place in range(self._rules.per_day)]
        self._sent_at = await self._ledger.ask(lambda db: [place(db) for place in places])

    def look(self) -> None:
        """Take note that what was missing may be there: module, SIM, network, or room in the store."""
        self._back.set()
        self._back = asyncio.Event()

    async def answer(
        self,
        request: Request,
        outcome: Outcome,
        since: float | None = None,
        no_room: Callable[[], None] = lambda: None,
    ) -> None:
        """Send the answer, part by part and in order; what cannot be sent in time is recorded as undelivered.

        `since`: the second of the daemon's running at which there was something to answer (REQ-11), by default now.
        `no_room` is called when the store is full: the request itself may lie in the way of its answer.
        """
        self._waiting += 1
        try:
            progress = await self._try(request, outcome, self._ledger.run if since is None else since, no_room)
        finally:
            self._waiting -= 1
        rows = [tables.mark_answered(request.rid), keep_progress(request.rid, progress)]
        if progress.undelivered:
            what = "answer undelivered"
            rows += self._mirror.session(Door.SMS, request.peer, what, progress.undelivered, request.rid)
        try:
            await self._ledger.durable(*rows)
        except StorageError as error:
            log.error("answer not recorded", id=request.rid, detail=str(error))  # noqa: TRY400 - no traceback wanted
            self._ledger.owe(*rows)
        if not progress.undelivered:
            sent = {"parts": progress.parts, "references": progress.references}
            log.info("answer sent", id=request.rid, door=Door.SMS.value, peer=request.peer, **sent)

    async def report(self, pdu: str) -> bool:
        """Record what a status report tells; returns whether it is about an answer sent here. Raises `StorageError`."""
        from atrund.doors.reports import Reports  # noqa: PLC0415 - most networks are never asked for one

        async with self._sending:
            return await Reports(self._ledger, self._mirror).take(pdu)

    async def _try(self, request: Request, outcome: Outcome, since: float, no_room: Callable[[], None]) -> Progress:
        """Send it, what is left of it after a restart; returns how far it got."""
        rules, known = self._rules, progress_of(request.context)
        until = since + rules.max_age
        if self._ledger.run > until:
            return replace(known, undelivered="too old")
        if self._waiting > rules.per_day:
            return replace(known, undelivered=_CAP_REACHED)
        try:
            to = decode_address(FieldReader(bytes.fromhex(str(request.context["originator"]))), "TP-OA")
            context = {**request.context, "password": self._password_of(request)}
            # The same number after a restart too, so that a part that comes twice is put together once.
            reference = int(request.key[:2], 16)
            messages, parts = answers(answer_text(outcome), context, to, rules.passwords, reference)
        except (LookupError, PduError) as error:
            return replace(known, undelivered=str(error))
        if known.parts == len(messages):
            progress = known
        else:
            progress = Progress(len(messages), cut=parts.cut, replaced=parts.replaced)
            self._tell_of_changes(progress, to, request.rid)
        if self._free_places() < len(messages) - len(progress.references):
            return replace(progress, undelivered=_CAP_REACHED)  # a part of it would cost and be of no use
        owed = _Owed(request.rid, to, until, no_room)
        for message in messages[len(progress.references) :]:
            progress = await self._send(replace(message, status_report=rules.reports), owed, progress)
            if progress.undelivered:
                break
        return progress

    async def _send(self, message: Submit, owed: _Owed, progress: Progress) -> Progress:
        """Send the next part; one whose fate is unknown, after a restart too, is sent once more (SMS-12)."""
        pause = RETRY_FIRST
        if progress.under_way:
            if progress.repeated:
                return replace(progress, undelivered="sent twice without a result: ended by a restart")
            which = f"part {len(progress.references) + 1} of {progress.parts}"
            progress = self._repeated(owed, progress, f"whether {which} was sent before the restart is unknown")
        while True:
            progress, why, awaited = await self._try_to_send(message, owed, progress)
            if not why or progress.undelivered:
                return progress
            if self._ledger.run + pause > owed.until:
                return replace(progress, undelivered=why)
            if awaited is Failure.STORAGE:
                owed.no_room()
            await self._wait(pause, awaited, why)
            pause = min(pause * 2, RETRY_LONGEST)

    async def _try_to_send(
        self, message: Submit, owed: _Owed, progress: Progress
    ) -> tuple[Progress, str, Failure | None]:
        """Send a part once; returns how far the answer got, why the part was not sent, or "", and of which class."""
        place: int | None = None

        async def about_to() -> None:
            nonlocal place
            await held.enter_async_context(self._sending)  # the port is ours: nobody who has it waits for a report
            if (free := self._place_under_cap()) is None:
                raise _CapReachedError
            await self._take_place(free, keep_progress(owed.rid, replace(progress, under_way=True)))
            place = free

        try:
            async with contextlib.AsyncExitStack() as held:
                sent = await self._store.send(message.encode(), message.tpdu_length, about_to)
                if sent.final.ok:
                    return self._sent(sent, owed, progress, keep=message.status_report), "", None
        except _CapReachedError:
            return replace(progress, undelivered=_CAP_REACHED), _CAP_REACHED, None
        except StorageError as error:
            return progress, f"not recorded: {error}", None
        except UnknownFateError as error:
            why = str(error)
            if progress.repeated:
                given_up = f"sent twice without a result: {why}"
                return replace(progress, under_way=True, undelivered=given_up), why, None
            return self._repeated(owed, progress, why), why, None
        except StoreError as error:
            return progress, str(error), Failure.NETWORK  # or the whole module: both are told by `look`
        if place is not None:
            self._free_place(place, owed, progress)
        why = sent.final.text
        failure = failure_of(sent.final.code if sent.final.kind is FinalKind.CMS else None)
        return replace(progress, undelivered=why if failure is Failure.PERMANENT else ""), why, failure

    def _sent(self, sent: Sent, owed: _Owed, progress: Progress, *, keep: bool) -> Progress:
        log.debug("answer part sent", id=owed.rid, peer=owed.to.text, reference=sent.reference)
        references = (*progress.references, sent.reference)
        progress = replace(progress, references=references, under_way=False, repeated=False)
        if keep:
            self._ledger.behind(keep_progress(owed.rid, progress))
        return progress

    def _repeated(self, owed: _Owed, progress: Progress, why: str) -> Progress:
        """Record that a part is sent a second time."""
        progress = replace(progress, under_way=False, repeated=True)
        self._ledger.behind(keep_progress(owed.rid, progress))
        self._tell(owed.to, "answer repeated", why, owed.rid)
        return progress

    def _tell_of_changes(self, progress: Progress, to: Address, rid: str) -> None:
        """Record what of the answer its asker does not get."""
        if progress.cut:
            self._tell(to, "answer cut", f"after {progress.parts} parts, the most there are", rid)
        if progress.replaced:
            self._tell(to, "answer changed to fit", f"characters that became ?: {progress.replaced}", rid)

    async def _wait(self, pause: float, failure: Failure | None, why: str) -> None:
        """Wait for the next try: so long, or less if what was missing is there sooner."""
        if failure is Failure.CONFIGURATION:
            log.error("answer not sent", detail=f"{why}: {failure.value}")
        elif failure is Failure.STORAGE:
            self._make_room()
        if failure not in {Failure.SIM, Failure.NETWORK, Failure.STORAGE}:
            await asyncio.sleep(pause)
            return
        back = self._back
        await asyncio.sleep(RETRY_SOONEST)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause - RETRY_SOONEST):
                await back.wait()

    def _password_of(self, request: Request) -> int | None:
        """Return the index of the password that a request was made with, wherever it stands by now."""
        mark = request.context["password"]
        if mark is None:
            return None
        for index, password in enumerate(self._rules.passwords):
            if mark_of(password, request.rid) == mark:
                return index
        raise LookupError("the password of the request is no longer configured")

    def _free_places(self) -> int:
        """Return how many SMS may go out now under the cap on answers, against toll fraud and loops (SMS-12)."""
        now, rules = self._ledger.run, self._rules
        hour, day = (sum(moment > now - span for moment in self._sent_at) for span in (_HOUR, _DAY))
        return min(rules.per_hour - hour, rules.per_day - day)

    def _place_under_cap(self) -> int | None:
        """Return a free place under the cap, if there is one."""
        if self._free_places() <= 0:
            return None
        oldest = self._ledger.run - _DAY
        self._sent_at += [-_DAY] * (self._rules.per_day - len(self._sent_at))
        return next(place for place, moment in enumerate(self._sent_at) if moment <= oldest)

    async def _take_place(self, place: int, also: Write) -> None:
        """Take a place, on disk before anything is sent: a loop of restarts is a loop too (REQ-11)."""
        now = self._ledger.run
        await self._ledger.durable(tables.set_meta(f"{_SENT_AT}{place}", now), also)
        self._sent_at[place] = now

    def _free_place(self, place: int, owed: _Owed, progress: Progress) -> None:
        """Give the place of a part back that was not sent, as its result says."""
        self._sent_at[place] = -_DAY
        kept = keep_progress(owed.rid, replace(progress, under_way=False))
        self._ledger.behind(tables.set_meta(f"{_SENT_AT}{place}", -_DAY), kept)

    def _tell(self, to: Address, what: str, reason: str, rid: str) -> None:
        self._ledger.behind(*self._mirror.session(Door.SMS, to.text, what, reason, rid))


class _CapReachedError(Exception):
    """No more may be sent now."""


def mark_of(password: str, rid: str) -> str:
    """Return what a password is known again by: too short to try passwords against, bound to one request."""
    secret = password.encode(errors="surrogatepass")
    return hashlib.blake2s(secret, key=bytes.fromhex(rid), digest_size=4).hexdigest()


_CAP_REACHED: Final = "the cap on answers is reached"
_SENT_AT: Final = "sms_sent_at_"
"""When an answer was sent, by its place under the cap of a day."""
_HOUR, _DAY = 3600.0, 86400.0
