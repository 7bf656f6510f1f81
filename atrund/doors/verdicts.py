# SPDX-License-Identifier: Apache-2.0
"""Which messages were judged, and how: what has a verdict is not judged again, by whatever way it is shown (SMS-11)."""

import enum
import functools
import hashlib
from collections.abc import Iterable
from typing import Final

from atrund.atrun.message import message_key
from atrund.ledger import Ledger, tables
from atrund.ledger.writer import Write
from atrund.sms.envelope import MTI_STATUS_REPORT
from atrund.sms.pdu import PduError, decode_deliver, message_type

VERDICTS_MAX: Final = 20_000
"""Messages remembered at once, twice what the ledger keeps of requests: some 2 MB."""


KEYS_KEPT: Final = 512
"""Keys that are not worked out anew: a sweep asks for each several times, and memories hold some 300 messages."""


class Verdict(enum.Enum):
    """What was decided about a message: the words of the ledger."""

    SEEN = "seen"
    """It lay there before the service was switched on."""
    OTHER = "other"
    ATRUN = "atrun"
    """It is under way."""
    DONE = "done"
    """All that is left to do with it is to delete it."""


class Verdicts:
    """The verdicts by key, in memory; `write` makes one last."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._verdicts: dict[str, Verdict] = {}
        self._lying: frozenset[str] | None = None

    def __len__(self) -> int:
        return len(self._verdicts)

    def __contains__(self, key: str) -> bool:
        return key in self._verdicts

    @property
    def lying(self) -> frozenset[str] | None:
        """The keys of messages that lie in the store and must not be forgotten; None while that is unknown."""
        return self._lying

    async def recall(self) -> None:
        """Read what was decided before the restart. Raises `StorageError`."""
        found: dict[str, str] = await self._ledger.ask(tables.message_verdicts())
        self._verdicts = {key: Verdict(word) for key, word in found.items()}
        self._lying = frozenset(found)  # until the store was read, any may

    def lies(self, keys: Iterable[str], *, everywhere: bool) -> None:
        """Take note of what lies in the store: in all its memories, or in some."""
        known = frozenset() if everywhere or self._lying is None else self._lying
        self._lying = known | frozenset(keys)  # what left is known at the next look everywhere

    def get(self, key: str) -> Verdict | None:
        """Return the verdict on a message, None for a new one."""
        return self._verdicts.get(key)

    def is_new(self, pdu: str) -> bool:
        """Whether a message that looks like this has no verdict."""
        return key_of(pdu) not in self._verdicts

    def note(self, key: str, verdict: Verdict) -> None:
        """Remember a verdict; the oldest gives way, but never one on what lies in the store or is under way."""
        self._verdicts[key] = verdict
        while len(self._verdicts) > VERDICTS_MAX:
            lying = self._lying or frozenset()
            old = next((k for k, v in self._verdicts.items() if k not in lying and v is not Verdict.ATRUN), None)
            if old is None:
                return
            del self._verdicts[old]

    def forget(self, key: str) -> None:
        """Let a message be new again."""
        self._verdicts.pop(key, None)

    def write(self, key: str, verdict: Verdict) -> Write:
        """Return the row that makes a verdict last; what is done with stays so."""
        return tables.remember_message(key, verdict.value, self._ledger.run, anew=verdict is Verdict.DONE)


def is_report(pdu: str) -> bool:
    """Whether a PDU is an SMS-STATUS-REPORT, as its first octets say."""
    try:
        return message_type(pdu) == MTI_STATUS_REPORT
    except PduError:
        return False


@functools.lru_cache(KEYS_KEPT)
def key_of(pdu: str) -> str:
    """Return what a message is known by; for what is no message, the hash of its text."""
    try:
        return message_key(decode_deliver(pdu))
    except PduError:
        return hashlib.sha256(pdu.encode(errors="replace")).hexdigest()
