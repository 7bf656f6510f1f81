# SPDX-License-Identifier: Apache-2.0
"""How answers leave by SMS: part by part, within the daemon's cap, tried again until they are too old (SMS-8, SMS-12).

Rules of this file: a place under the cap is taken on disk before a part goes out; a part whose fate is unknown is sent
once more and no oftener; an answer's age goes on over a restart.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import structlog

from atrund.at.results import FinalKind
from atrund.atrun.message import answer_text, answers
from atrund.atrun.request import Door, Outcome, Request
from atrund.ledger import Ledger, StorageError, tables
from atrund.mirror import Mirror
from atrund.module.store import Store, StoreError, UnknownFateError
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
    """What answers go by; `max_age` in seconds."""

    passwords: tuple[str, ...] = field(repr=False)
    max_age: float
    per_hour: int
    per_day: int


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
        self._sent_at = [-_DAY] * rules().per_day
        self._back = asyncio.Event()

    @property
    def _rules(self) -> AnswerRules:
        return self._give_rules()

    async def recall(self) -> None:
        """Read when answers were sent before the restart. Raises `StorageError`."""
        places = [tables.get_meta(f"{_SENT_AT}{place}", -_DAY) for place in range(len(self._sent_at))]
        self._sent_at = await self._ledger.ask(lambda db: [place(db) for place in places])

    def look(self) -> None:
        """Take note that the module came back or changed: what waits for SIM, network or port may go on."""
        self._back.set()
        self._back = asyncio.Event()

    async def answer(self, request: Request, outcome: Outcome, since: float | None = None) -> None:
        """Send the answer, part by part and in order; what cannot be sent in time is recorded as undelivered.

        `since`: the second of the daemon's running at which there was something to answer (REQ-11), by default now.
        """
        undelivered = await self._try(request, outcome, self._ledger.run if since is None else since)
        rows = [tables.mark_answered(request.rid)]
        if undelivered:
            rows += self._mirror.session(Door.SMS, request.peer, "answer undelivered", undelivered, request.rid)
        try:
            await self._ledger.durable(*rows)
        except StorageError as error:
            log.error("answer not recorded", id=request.rid, detail=str(error))  # noqa: TRY400 - no traceback wanted
            self._ledger.owe(*rows)

    async def _try(self, request: Request, outcome: Outcome, since: float) -> str:
        """Send it; returns why it could not be, or ""."""
        until = since + self._rules.max_age
        if self._ledger.run > until:
            return "too old"
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
            awaited: Failure | None = None
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
                awaited = Failure.NETWORK  # or the whole module: both are told by `look`
            else:
                if sent.final.ok:
                    log.debug("answer part sent", peer=to.text, reference=sent.reference)
                    return ""
                self._free_place(place)
                why = sent.final.text
                awaited = failure_of(sent.final.code if sent.final.kind is FinalKind.CMS else None)
                if awaited is Failure.PERMANENT:
                    return why
            if self._ledger.run + pause > until:
                return why
            await self._wait(pause, awaited, why)
            pause = min(pause * 2, RETRY_LONGEST)

    async def _wait(self, pause: float, failure: Failure | None, why: str) -> None:
        """Wait for the next try: so long, or less if what was missing is there sooner."""
        if failure is Failure.CONFIGURATION:
            log.error("answer not sent", detail=f"{why}: {failure.value}")
        elif failure is Failure.STORAGE:
            self._make_room()
        if failure not in {Failure.SIM, Failure.NETWORK}:
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

    def _place_under_cap(self) -> int | None:
        """Return a free place under the daemon's cap on answers, against toll fraud and loops (SMS-12), if any."""
        now = self._ledger.run
        if sum(moment > now - _HOUR for moment in self._sent_at) >= self._rules.per_hour:
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

    def _tell(self, peer: str, what: str, reason: str, rid: str = "") -> None:
        self._ledger.behind(*self._mirror.session(Door.SMS, peer, what, reason, rid))


def mark_of(password: str, rid: str) -> str:
    """Return what a password is known again by: too short to try passwords against, bound to one request."""
    secret = password.encode(errors="surrogatepass")
    return hashlib.blake2s(secret, key=bytes.fromhex(rid), digest_size=4).hexdigest()


_SENT_AT: Final = "sms_sent_at_"
"""When an answer was sent, by its place under the cap of a day."""
_HOUR, _DAY = 3600.0, 86400.0
