# SPDX-License-Identifier: Apache-2.0
"""Messages that are no ATRUN SMS: what is told of one, and which gives way when a memory is nearly full (MOD-5)."""

import enum
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final, TypeVar

from atrund.atrun.secrets import mask_line
from atrund.sms.alphabet import Alphabet
from atrund.sms.pdu import Deliver, PduError, decode_deliver
from atrund.sms.report import decode_report, status_name
from atrund.sms.seal import is_sealed
from atrund.sms.userdata import Concatenation

FREE_MIN: Final = 2
"""Free places of a memory at which room is made: a message may come in while one is on its way out."""
RAW_MAX: Final = 200
"""Octets kept of what can't be read: a whole message has 176 at most (3GPP TS 23.040 9.2.2)."""

T = TypeVar("T")


class Kind(enum.Enum):
    """What lies there: the words of the ledger."""

    MESSAGE = "message"
    REPORT = "report"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Told:
    """What may be told of a message on the device itself.

    `peer` is the sender, of a report whom it is about; `sent` the service centre's time in UTC, None where it can't be
    read. What is no text, or can't be read, is in `raw`. Both are None where the user data is a digest's or a seal's
    (`withheld`), for whoever has it can have its command run again (POL-3).
    """

    kind: Kind
    peer: str = ""
    sent: datetime | None = None
    text: str | None = field(default=None, repr=False)
    raw: bytes | None = field(default=None, repr=False)
    part: Concatenation | None = None
    withheld: bool = False
    fate: str = ""
    """Of a report: what became of the message that it is about."""


def tell(pdu: str) -> Told:
    """Return what may be told of a message as it lies in a store: hexadecimal, the service centre in front."""
    try:
        return _of_message(decode_deliver(pdu))
    except PduError:
        return _of_report(pdu) or _of_unreadable(pdu)


def needed(used: int, total: int, leaving: int = 0) -> int:
    """Return how many messages have to go from a memory with so many places, when some are on their way out."""
    return max(0, FREE_MIN + 1 - (total - used) - leaving)


def give_way(lying: Iterable[tuple[T, bool, datetime | None]], count: int) -> list[T]:
    """Return the `count` that go first of what lies there: what it is, whether it was read, its service centre's time.

    The oldest read one, then the oldest. What has no time can't be read, is of no use to anybody, and counts as oldest.
    """
    order = sorted(lying, key=lambda one: (not one[1], one[2] or _LONG_AGO))
    return [what for what, _, _ in order[:count]]


_LONG_AGO: Final = datetime(1, 1, 1, tzinfo=UTC)
_MARKS: Final = (b"\xd0\xd0\xd0", b"\xd1\xd1\xd1")
"""What the user data of digest ATRUN SMS begins with (Telit 80000NT10029a, 2.2)."""


def _of_message(deliver: Deliver) -> Told:
    data = deliver.user_data
    told = Told(Kind.MESSAGE, deliver.originator.text, deliver.timestamp.utc(), part=data.concatenation)
    # Behind a header, and as octets whatever the alphabet: the mark counts wherever a module may look for it.
    if data.content.startswith(_MARKS) or data.encode()[1:].startswith(_MARKS):
        return replace(told, withheld=True)
    if not data.compressed and is_sealed(data.text):
        return replace(told, withheld=True)
    if data.compressed or (data.alphabet is Alphabet.EIGHT_BIT and not _is_plain(data.content)):
        return replace(told, raw=data.content)
    return replace(told, text=mask_line(data.text))


def _is_plain(content: bytes) -> bool:
    return all(0x20 <= octet < 0x7F or octet in b"\r\n\t" for octet in content)


def _of_report(pdu: str) -> Told | None:
    try:
        report = decode_report(pdu)
    except PduError:
        return None
    return Told(Kind.REPORT, report.recipient.text, report.timestamp.utc(), fate=status_name(report.status))


def _of_unreadable(pdu: str) -> Told:
    if any(mark.hex() in pdu.lower() for mark in _MARKS):
        return Told(Kind.UNREADABLE, withheld=True)
    try:
        octets = bytes.fromhex(pdu)
    except ValueError:
        octets = pdu.encode(errors="replace")
    return Told(Kind.UNREADABLE, raw=octets[:RAW_MAX])
