# SPDX-License-Identifier: Apache-2.0
"""The user data of a short message: header, septets or octets, lengths (3GPP TS 23.040 9.2.3.16 and 9.2.3.24)."""

from dataclasses import dataclass
from typing import Final, Self

from atrund.sms.alphabet import Alphabet, decode_text, encode_text, pack, packed_length, unpack
from atrund.sms.dcs import Dcs
from atrund.sms.fields import OCTET_MAX, FieldReader, PduError, require_octet

MAX_OCTETS: Final = 140
MAX_SEPTETS: Final = 160
"""What one SMS-SUBMIT or SMS-DELIVER holds, header included (3GPP TS 23.040 9.2.3.24)."""


@dataclass(frozen=True, slots=True)
class Concatenation:
    """Which part of a longer message this is: part `index` (from 1) of `total`, told from others by `reference`."""

    reference: int
    total: int
    index: int


@dataclass(frozen=True, slots=True)
class Element:
    """An information element of a user data header, its data left raw; raises PduError if it can't be coded."""

    identifier: int
    data: bytes

    def __post_init__(self) -> None:
        """Check the ranges."""
        require_octet("IEI", self.identifier)
        if len(self.data) > OCTET_MAX:
            raise PduError("IEIDL", f"{len(self.data)} octets do not fit a length of one octet")

    @classmethod
    def concatenated(cls, concatenation: Concatenation) -> Self:
        """Build the element of a part: 8-bit if the reference fits, else 16-bit; raises PduError if it fits neither."""
        reference, total, index = concatenation.reference, concatenation.total, concatenation.index
        if not 0 <= reference <= _REFERENCE_MAX or not 1 <= index <= total <= OCTET_MAX:
            raise PduError("TP-UD", f"no part can be {index} of {total} with reference {reference}")
        if reference <= OCTET_MAX:
            return cls(_CONCATENATED_8, bytes([reference, total, index]))
        return cls(_CONCATENATED_16, bytes([*reference.to_bytes(2, "big"), total, index]))

    @property
    def concatenation(self) -> Concatenation | None:
        """The part that this element tells of.

        None for any other element, and for one whose numbers are impossible, which is to be ignored
        (3GPP TS 23.040 9.2.3.24.1 and 9.2.3.24.8).
        """
        if _CONCATENATED_LENGTHS.get(self.identifier) != len(self.data):
            return None
        total, index = self.data[-2:]
        return Concatenation(int.from_bytes(self.data[:-2], "big"), total, index) if 1 <= index <= total else None


@dataclass(frozen=True, slots=True)
class UserData:
    """User data: `content` is one septet a byte for uncompressed GSM 7-bit text, else octets; no header is None.

    Raises PduError if it fits no single message. A header may exchange the alphabet for a national one, of which
    `text` knows nothing.
    """

    alphabet: Alphabet
    content: bytes = b""
    header: tuple[Element, ...] | None = None
    compressed: bool = False

    def __post_init__(self) -> None:
        """Check that it fits one message."""
        if self._in_septets and any(septet > _SEPTET_MAX for septet in self.content):
            raise PduError("TP-UD", "a byte over 0x7F is no septet")
        if self.alphabet is Alphabet.UCS2 and not self.compressed and len(self.content) % 2:
            raise PduError("TP-UD", f"{len(self.content)} octets are no whole number of UCS-2 characters")
        if self._length > _limit(in_septets=self._in_septets):
            raise PduError("TP-UDL", _too_long(self._length, in_septets=self._in_septets))

    @classmethod
    def from_text(cls, text: str, dcs: Dcs, header: tuple[Element, ...] | None = None) -> Self:
        """Code a text in the alphabet of the coding scheme; raises UnsendableError, and PduError if it is too long."""
        if dcs.compressed:
            raise PduError("TP-DCS", f"0x{dcs.octet:02X} asks for compressed text, which is not written here")
        return cls(dcs.alphabet, encode_text(text, dcs.alphabet), header)

    @property
    def septets(self) -> bytes | None:
        """The content, one septet a byte, or None if it is octets."""
        return self.content if self._in_septets else None

    @property
    def octets(self) -> bytes | None:
        """The content as octets, behind the header, or None if it is septets."""
        return None if self._in_septets else self.content

    @property
    def text(self) -> str:
        """The content as text, see alphabet.decode_text; empty for compressed content."""
        return "" if self.compressed else decode_text(self.content, self.alphabet)

    @property
    def concatenation(self) -> Concatenation | None:
        """Which part of a longer message this is, or None; the last element counts (3GPP TS 23.040 9.2.3.24)."""
        found = [element.concatenation for element in self.header or ()]
        return next((concatenation for concatenation in reversed(found) if concatenation), None)

    def encode(self) -> bytes:
        """Return TP-UDL and TP-UD."""
        header = self._header_octets()
        if not self._in_septets:
            return bytes([self._length]) + header + self.content
        fill_bits = -len(header) * 8 % 7
        return bytes([self._length]) + header + pack(self.content, fill_bits)

    @property
    def _in_septets(self) -> bool:
        return self.alphabet is Alphabet.GSM7 and not self.compressed

    @property
    def _length(self) -> int:
        """TP-UDL: a header before septets counts with its fill bits."""
        header = 0 if self.header is None else 1 + self._header_length
        return (_septets_over(header) if self._in_septets else header) + len(self.content)

    @property
    def _header_length(self) -> int:
        return sum(2 + len(element.data) for element in self.header or ())

    def _header_octets(self) -> bytes:
        if self.header is None:
            return b""
        elements = b"".join(bytes([element.identifier, len(element.data)]) + element.data for element in self.header)
        return bytes([self._header_length]) + elements


def decode_user_data(reader: FieldReader, dcs: Dcs, *, has_header: bool) -> UserData:
    """Take TP-UDL and TP-UD, which must be all that is left; raises PduError. Spare and fill bits are not looked at."""
    in_septets = dcs.alphabet is Alphabet.GSM7 and not dcs.compressed
    length = reader.octet("TP-UDL")
    if length > _limit(in_septets=in_septets):
        raise PduError("TP-UDL", _too_long(length, in_septets=in_septets))
    size = packed_length(length) if in_septets else length
    if reader.left != size:
        raise PduError("TP-UDL", f"{length} {_unit(in_septets=in_septets)} take {size} octets, {reader.left} are there")
    octets = reader.take("TP-UD", size)
    header, behind = _decode_header(octets) if has_header else (None, 0)
    if not in_septets:
        return UserData(dcs.alphabet, octets[behind:], header, dcs.compressed)
    over = _septets_over(behind)
    if over > length:
        raise PduError("UDHL", f"the header covers {over} septets, TP-UDL has {length}")
    return UserData(dcs.alphabet, unpack(octets[behind:], length - over, -behind * 8 % 7), header)


def _decode_header(octets: bytes) -> tuple[tuple[Element, ...], int]:
    """Return the elements of the header in front of these octets, and where it ends."""
    reader = FieldReader(octets)
    length = reader.octet("UDHL")
    elements = []
    header = FieldReader(reader.take("UDHL", length))
    while header.left:
        identifier = header.octet("IEI")
        elements.append(Element(identifier, header.take("IEIDL", header.octet("IEIDL"))))
    return tuple(elements), 1 + length


def _septets_over(octets: int) -> int:
    """Return how many septets so many octets and the fill bits behind them take."""
    return (octets * 8 + 6) // 7


def _limit(*, in_septets: bool) -> int:
    return MAX_SEPTETS if in_septets else MAX_OCTETS


def _unit(*, in_septets: bool) -> str:
    return "septets" if in_septets else "octets"


def _too_long(length: int, *, in_septets: bool) -> str:
    return f"{length} {_unit(in_septets=in_septets)}, one message holds {_limit(in_septets=in_septets)}"


# 3GPP TS 23.040 9.2.3.24.1 and 9.2.3.24.8.
_CONCATENATED_8, _CONCATENATED_16 = 0x00, 0x08
_CONCATENATED_LENGTHS = {_CONCATENATED_8: 3, _CONCATENATED_16: 4}
_REFERENCE_MAX = 0xFFFF
_SEPTET_MAX = 0x7F
