# SPDX-License-Identifier: Apache-2.0
"""The data coding scheme of a short message (3GPP TS 23.038 4)."""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from atrund.sms.alphabet import Alphabet
from atrund.sms.fields import require_octet


class CodingGroup(Enum):
    """What the upper bits of the octet say about the rest."""

    GENERAL = "general"
    AUTOMATIC_DELETION = "automatic deletion"
    RESERVED = "reserved"
    DISCARD = "message waiting, discard"
    STORE = "message waiting, store"
    STORE_UCS2 = "message waiting, store, UCS-2"
    CLASS = "data coding and class"


class Waiting(Enum):
    """The kind of message that waits at the sender's system (bits 1 and 0 of the message waiting groups)."""

    VOICEMAIL = 0
    FAX = 1
    EMAIL = 2
    OTHER = 3


@dataclass(frozen=True, slots=True)
class Dcs:
    """A data coding scheme: the octet itself, kept as it came, and what it means.

    A reserved coding means the same as 0x00. Raises PduError naming `TP-DCS` if the value is no octet.
    """

    octet: int

    def __post_init__(self) -> None:
        """Check the range."""
        require_octet("TP-DCS", self.octet)

    @property
    def group(self) -> CodingGroup:
        """The coding group; RESERVED also for the reserved alphabet of the general groups."""
        group = _GROUPS[self.octet >> 4]
        if group in _GENERAL and self.octet >> 2 & 3 not in _GENERAL_ALPHABETS:
            return CodingGroup.RESERVED
        return group

    @property
    def alphabet(self) -> Alphabet:
        """The alphabet of the user data."""
        group = self.group
        if group in _GENERAL:
            return _GENERAL_ALPHABETS[self.octet >> 2 & 3]
        if group is CodingGroup.CLASS and self.octet & 0x04:
            return Alphabet.EIGHT_BIT
        return Alphabet.UCS2 if group is CodingGroup.STORE_UCS2 else Alphabet.GSM7

    @property
    def message_class(self) -> int | None:
        """The message class, 0 to 3, or None where the octet gives none."""
        group = self.group
        if group is CodingGroup.CLASS or (group in _GENERAL and self.octet & 0x10):
            return self.octet & 3
        return None

    @property
    def compressed(self) -> bool:
        """Whether the user data is compressed as 3GPP TS 23.042 says."""
        return self.group in _GENERAL and bool(self.octet & 0x20)

    @property
    def waiting(self) -> Waiting | None:
        """What waits, in a message waiting group, else None."""
        return Waiting(self.octet & 3) if self.group in _WAITING else None

    @property
    def waiting_active(self) -> bool:
        """Whether the indication of a message waiting group is to be switched on."""
        return self.group in _WAITING and bool(self.octet & 0x08)


DEFAULT_DCS: Final = Dcs(0)
"""The default alphabet, no class."""

_GROUPS = (
    *(CodingGroup.GENERAL,) * 4,
    *(CodingGroup.AUTOMATIC_DELETION,) * 4,
    *(CodingGroup.RESERVED,) * 4,
    CodingGroup.DISCARD,
    CodingGroup.STORE,
    CodingGroup.STORE_UCS2,
    CodingGroup.CLASS,
)
_GENERAL = frozenset({CodingGroup.GENERAL, CodingGroup.AUTOMATIC_DELETION})
_WAITING = frozenset({CodingGroup.DISCARD, CodingGroup.STORE, CodingGroup.STORE_UCS2})
_GENERAL_ALPHABETS = {0: Alphabet.GSM7, 1: Alphabet.EIGHT_BIT, 2: Alphabet.UCS2}
