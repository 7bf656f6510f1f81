# SPDX-License-Identifier: Apache-2.0
"""What becomes of messages that are no ATRUN SMS: left, published or deleted, and moved when room is short (MOD-5).

Rules of this file: a message is deleted only when the ledger has it and what is published of it; one that is an ATRUN
SMS, or may be one, is not touched; what can't be done is said once, and tried at the next look.
"""

import enum
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import structlog

from atrund.atrun.request import Door, Outcome, Request
from atrund.clock import rfc3339
from atrund.doors.disposal import Disposal
from atrund.doors.verdicts import Verdict, Verdicts, key_of
from atrund.ledger import Ledger, StorageError, history
from atrund.ledger.writer import Write
from atrund.mirror import Mirror
from atrund.module.store import Store, Stored

if TYPE_CHECKING:  # few messages are not for the gateway: what tells them apart is imported with the first
    from atrund.atrun.others import Told

log = structlog.get_logger()

PATIENCE: Final = 60.0
"""Seconds for which nothing is moved where ATRUN SMS under way will leave room enough: most take a few."""


class Fate(enum.Enum):
    """Where a message went: the words of the ledger, which has its text but for one that was just deleted."""

    MOVED = "moved"
    PUBLISHED = "published"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class RoomRules:
    """`others`: `keep`, `publish` or `delete` them; `make_room`: whether they are moved before a memory is full."""

    others: str = "keep"
    make_room: bool = True


class Room:
    """Looks after other people's messages. `rules` gives those of the moment; `look_soon` has the store swept.

    `made` is called when there is room that was asked for; `spawn` runs what takes a while.
    """

    def __init__(
        self,
        rules: Callable[[], RoomRules],
        *,
        store: Store,
        ledger: Ledger,
        mirror: Mirror,
        verdicts: Verdicts,
        disposal: Disposal,
        look_soon: Callable[[], None],
        made: Callable[[], None],
        spawn: Callable[[Coroutine[None, None, None]], None],
    ) -> None:
        self._rules = rules
        self._store = store
        self._ledger = ledger
        self._mirror = mirror
        self._verdicts = verdicts
        self._disposal = disposal
        self._look_soon = look_soon
        self._made = made
        self._spawn = spawn
        disposal.on_gone = self._gone
        self._asked = self._wanted = False
        """Whether room was asked for, and not looked for yet; and whether it is not there yet."""
        self._moving: set[str] = set()
        self._said: dict[str, bool] = {}
        """Memories that are nearly full and stay so, and whether it was said that they are full."""
        self._failed = False
        self._short_since: dict[str, float] = {}

    @property
    def state(self) -> dict[str, object]:
        """How full the memories are, as far as is known, and which are short of room that can't be made."""
        uses = {memory: {"used": used, "total": total} for memory, (used, total) in self._store.uses.items()}
        return {"store": uses, "short": sorted(self._said)}

    def leave(self, key: str, pdu: str, stored: Stored | None, what: str, why: str) -> None:
        """Take note of a message that is none of ours, say so once, and do with it what is done with those."""
        told = _tell(pdu)
        others = self._rules().others
        # What lies in no store would be lost, though it is to be kept.
        fate = Fate.MOVED if stored is None and others not in _FATES else None
        self._verdicts.note(key, Verdict.OTHER)
        self._ledger.behind(
            self._verdicts.write(key, Verdict.OTHER),
            history.note(self._entry(key, told, why=told.fate or why, fate=fate)),
            *self._mirror.session(Door.SMS, told.peer, what, why),
        )
        if others in _FATES:
            self._spawn(self._put_away(key, pdu, stored))
        elif stored is not None and stored.memory not in self._said and self._needed(stored.memory, ()):
            self._look_soon()

    def reported(self, key: str, pdu: str) -> Write:
        """Return what is remembered of a status report on an answer of ours, which is done with."""
        told = _tell(pdu)
        return history.note(self._entry(key, told, why=told.fate, fate=Fate.DELETED))

    def seen(self, found: Iterable[Stored]) -> list[Write]:
        """Return what is remembered of messages that lay there before the service was switched on."""
        why = "lay there before the service was switched on"
        return [history.note(self._entry(key_of(one.pdu), _tell(one.pdu), verdict="seen", why=why)) for one in found]

    def ran(self, request: Request, outcome: Outcome) -> Write:
        """Return what is remembered of an ATRUN SMS, to be written with its outcome."""
        stamp = datetime.fromtimestamp(int(request.context.get("stamp") or 0), UTC)
        return history.note(
            history.Entry(
                request.key,
                self._mirror.stamp().ts,
                request.peer,
                "atrun",
                "" if outcome.reason is None else outcome.reason.value,
                sent=rfc3339(stamp),
                rid=request.rid,
                outcome=outcome.end.value,
            )
        )

    def ask(self) -> None:
        """Make room at the next look, though it isn't known how much there is: the module said that it is full."""
        self._asked = self._wanted = True
        self._look_soon()

    async def look(self, found: Sequence[Stored], memories: Iterable[str]) -> None:
        """Put away what is to be, and make room in the memories, of which all was `found` just now."""
        for stored in found if self._rules().others in _FATES else ():
            key = key_of(stored.pdu)
            if self._verdicts.get(key) is Verdict.OTHER:
                await self._put_away(key, stored.pdu, stored)
        asked, self._asked = self._asked, False
        for memory in memories:
            await self._make_room(memory, [stored for stored in found if stored.memory == memory], asked=asked)

    def _gone(self) -> None:
        if self._wanted:
            self._wanted = False
            self._made()

    async def _put_away(self, key: str, pdu: str, stored: Stored | None) -> None:
        fate = _FATES.get(self._rules().others)
        if fate is not None:
            await self._move(key, pdu, stored, fate)

    async def _make_room(self, memory: str, lying: Sequence[Stored], *, asked: bool) -> None:
        needed = self._needed(memory, lying, asked=asked)
        if not needed:
            if not self._needed(memory, ()):
                self._short_since.pop(memory, None)
                if self._said.pop(memory, None) is not None:
                    log.info("sms store has room again", memory=memory)
            return
        since = self._short_since.setdefault(memory, self._ledger.run)
        under_way = sum(self._verdicts.get(key_of(stored.pdu)) is Verdict.ATRUN for stored in lying)
        if under_way >= needed and self._ledger.run - since < PATIENCE:
            return
        if not self._rules().make_room:
            self._warn(memory, 'sms.make_room is "never"')
            return
        chosen = self._oldest(lying, needed)
        fate = Fate.PUBLISHED if self._rules().others == "publish" else Fate.MOVED
        moved = 0
        for stored in chosen:
            moved += await self._move(key_of(stored.pdu), stored.pdu, stored, fate)
        if moved < needed:
            self._warn(memory, f"{moved} of {needed} messages could be moved")

    def _oldest(self, lying: Sequence[Stored], count: int) -> list[Stored]:
        from atrund.atrun.others import give_way  # noqa: PLC0415 - as above

        idle = [stored for stored in lying if self._verdicts.get(key_of(stored.pdu)) in _IDLE]
        return give_way(((one, one.pdu not in self._store.unread, _tell(one.pdu).sent) for one in idle), count)

    def _needed(self, memory: str, lying: Iterable[Stored], *, asked: bool = False) -> int:
        """Return how many of what lies in a memory have to go, save those that are on their way out.

        Where it isn't known how full it is: one if it was `asked` for.
        """
        from atrund.atrun.others import needed  # noqa: PLC0415 - as above

        if (use := self._store.uses.get(memory)) is None:
            return int(asked)
        if not needed(*use):
            return 0
        leaving = sum(
            self._verdicts.get(key_of(stored.pdu)) is Verdict.DONE and not self._disposal.is_stuck(stored)
            for stored in lying
        )
        return needed(*use, leaving)

    def _warn(self, memory: str, why: str) -> None:
        """Say that messages will wait outside, once, and once more when they do."""
        used, total = self._store.uses.get(memory, (0, 0))
        full = used >= total
        if self._said.get(memory, False) >= full and memory in self._said:
            return
        self._said[memory] = full
        what = "sms store full: messages wait in the network" if full else "sms store nearly full"
        log.warning(what, memory=memory, used=used, total=total, detail=why)
        reason = f"{memory}: {used} of {total} used; {why}"
        self._ledger.behind(*self._mirror.session(Door.SMS, "", what, reason, logged=True))

    async def _move(self, key: str, pdu: str, stored: Stored | None, fate: Fate) -> bool:
        """Have the ledger take a message, with what is published of it, then delete it; returns whether it has it."""
        if key in self._moving:
            return False
        if self._verdicts.get(key) is Verdict.DONE:  # it lies there twice
            if stored is not None:
                self._disposal.dispose(stored)
            return True
        told = _tell(pdu)
        if told.kind.value == "report":
            fate = Fate.DELETED  # all that it says is in the history
        published = self._mirror.received(told) if fate is Fate.PUBLISHED else []
        entry = self._entry(key, told, fate=fate)
        self._moving.add(key)
        try:
            await self._ledger.durable(
                self._verdicts.write(key, Verdict.DONE), history.note(entry, known=True), *published
            )
        except StorageError as error:
            if not self._failed:
                log.error("sms not moved: it can't be recorded", detail=str(error))  # noqa: TRY400 - no traceback wanted
            self._failed = True
            return False
        finally:
            self._moving.discard(key)
        self._failed = False
        self._verdicts.note(key, Verdict.DONE)
        log.info("sms put away", peer=told.peer, memory=None if stored is None else stored.memory, how=fate.value)
        if stored is not None:
            self._disposal.dispose(stored)
        return True

    def _entry(
        self, key: str, told: "Told", *, verdict: str = "", why: str = "", fate: Fate | None = None
    ) -> history.Entry:
        whole = fate in {Fate.MOVED, Fate.PUBLISHED}
        return history.Entry(
            key,
            self._mirror.stamp().ts,
            told.peer,
            verdict or _VERDICTS.get(told.kind.value, told.kind.value),
            why,
            sent="" if told.sent is None else rfc3339(told.sent),
            fate="" if fate is None else fate.value,
            text=told.text if whole else None,
            raw=told.raw if whole else None,
        )


_IDLE: Final = frozenset({Verdict.OTHER, Verdict.SEEN})
"""Verdicts of messages that nothing is done with."""
_FATES: Final = {"publish": Fate.PUBLISHED, "delete": Fate.DELETED}
_VERDICTS: Final = {"message": "other"}


def _tell(pdu: str) -> "Told":
    from atrund.atrun.others import Kind, Told, tell  # noqa: PLC0415 - as above

    try:
        return tell(pdu)
    except Exception:  # anybody can send a message: a fault in reading one must not end the daemon
        log.exception("sms not read")
        return Told(Kind.UNREADABLE, withheld=True)
