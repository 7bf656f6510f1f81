# SPDX-License-Identifier: Apache-2.0
"""Addresses of a PDU: originator, destination and service centre (3GPP TS 23.040 9.1.2.5, 3GPP TS 24.011 8.2.5)."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Self

from atrund.sms.alphabet import UnsendableError, decode_gsm7, encode_gsm7, pack, unpack
from atrund.sms.fields import FieldReader, PduError

MAX_SEMI_OCTETS: Final = 20
"""The longest address value is 10 octets (3GPP TS 23.040 9.1.2.5)."""

ISDN_PLAN: Final = 1
"""Numbering plan of ordinary telephone numbers, ITU-T E.164."""


class TypeOfNumber(IntEnum):
    """Bits 6 to 4 of the type-of-address octet (3GPP TS 23.040 9.1.2.5)."""

    UNKNOWN = 0
    INTERNATIONAL = 1
    NATIONAL = 2
    NETWORK_SPECIFIC = 3
    SUBSCRIBER = 4
    ALPHANUMERIC = 5
    ABBREVIATED = 6
    RESERVED = 7


@dataclass(frozen=True, slots=True, repr=False)
class Address:
    """An address as a PDU holds it, so that it can be given back octet for octet.

    `type_octet` is the type-of-address octet, `length` the number of useful semi-octets, `value` the packed ones.
    Raises PduError when they do not fit together. `parse`, `number` and `alphanumeric` read what people write.
    """

    type_octet: int
    length: int
    value: bytes

    def __post_init__(self) -> None:
        """Check that the parts fit together."""
        if not _EXTENSION_BIT <= self.type_octet <= _EXTENSION_BIT | 0x7F:
            raise PduError("Address", f"the type of address is 0x{self.type_octet:02X}, bit 7 must be 1")
        if not 0 <= self.length <= MAX_SEMI_OCTETS:
            raise PduError("Address", f"a length of {self.length} semi-octets, {MAX_SEMI_OCTETS} are allowed")
        if len(self.value) != (self.length + 1) // 2:
            raise PduError("Address", f"{self.length} semi-octets do not fill {len(self.value)} octets")
        if not self.is_alphanumeric:
            self._check_digits()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a telephone number, international if it begins with `+`, else of unknown type; raises PduError."""
        if text.startswith("+"):
            return cls.number(text[1:], TypeOfNumber.INTERNATIONAL)
        return cls.number(text)

    @classmethod
    def number(cls, digits: str, ton: TypeOfNumber = TypeOfNumber.UNKNOWN, plan: int = ISDN_PLAN) -> Self:
        """Build an address of 1 to 20 digits out of `0123456789*#abc`; raises PduError."""
        if not digits:
            raise PduError("Address", "a number needs at least one digit")
        wrong = [character for character in digits if character not in _DIGITS]
        if wrong:
            raise PduError("Address", f"{wrong[0]!r} is no digit of an address; 0 to 9 * # a b c are")
        nibbles = [_DIGITS.index(character) for character in digits] + [_FILLER] * (len(digits) % 2)
        value = bytes(low | high << 4 for low, high in zip(nibbles[::2], nibbles[1::2], strict=True))
        return cls(_type_octet(ton, plan), len(digits), value)

    @classmethod
    def alphanumeric(cls, text: str) -> Self:
        """Build an address that is a text of at most 11 septets; raises PduError."""
        try:
            septets = encode_gsm7(text)
        except UnsendableError as error:
            raise PduError("Address", str(error)) from None
        # 3GPP TS 23.040 9.1.2.5 counts the semi-octets that hold anything: 7 characters take 13, 8 take 14.
        return cls(_type_octet(TypeOfNumber.ALPHANUMERIC, 0), (len(septets) * 7 + 3) // 4, pack(septets))

    @property
    def ton(self) -> TypeOfNumber:
        """The type of number."""
        return TypeOfNumber(self.type_octet >> 4 & 7)

    @property
    def plan(self) -> int:
        """The numbering plan identification, 0 to 15."""
        return self.type_octet & 0x0F

    @property
    def is_alphanumeric(self) -> bool:
        """Whether `text` is a name; it may spell a number and still is none."""
        return self.ton is TypeOfNumber.ALPHANUMERIC

    @property
    def text(self) -> str:
        """The number, with a leading `+` if it is international, or the name; empty for an address of length 0."""
        if self.is_alphanumeric:
            return decode_gsm7(unpack(self.value, self.length * 4 // 7))
        digits = "".join(_DIGITS[nibble] for nibble in _nibbles(self.value)[: self.length])
        return f"+{digits}" if digits and self.ton is TypeOfNumber.INTERNATIONAL else digits

    def encode(self) -> bytes:
        """Return the address field of a TPDU: length in semi-octets, type, value."""
        return bytes([self.length, self.type_octet]) + self.value

    def encode_service_centre(self) -> bytes:
        """Return the service centre field in front of a TPDU: length in octets, type, value."""
        return bytes([1 + len(self.value), self.type_octet]) + self.value

    def __str__(self) -> str:
        """Return the text."""
        return self.text

    def __repr__(self) -> str:
        """Show the address as people write it."""
        return f"Address({self.text!r}, {self.ton.name}, plan={self.plan})"

    def _check_digits(self) -> None:
        nibbles = _nibbles(self.value)
        if _FILLER in nibbles[: self.length]:
            raise PduError("Address", f"0xF among the {self.length} digits")
        if self.length % 2 and nibbles[-1] != _FILLER:
            raise PduError("Address", f"0x{nibbles[-1]:X} behind an odd number of digits, must be 0xF")


def decode_address(reader: FieldReader, field: str) -> Address:
    """Take the address field of a TPDU; raises PduError naming the field."""
    length = reader.octet(field)
    type_octet = reader.octet(field)
    # The length is checked before it decides how much is taken, so that the error tells the cause.
    value = reader.take(field, (length + 1) // 2) if length <= MAX_SEMI_OCTETS else b""
    return _build(field, type_octet, length, value)


def decode_service_centre(reader: FieldReader) -> Address | None:
    """Take the service centre field in front of a TPDU, None if it is empty; raises PduError naming `SCA`."""
    field = "SCA"
    octets = reader.octet(field)
    if octets == 0:
        return None
    if octets > 1 + MAX_SEMI_OCTETS // 2:
        raise PduError(field, f"a length of {octets} octets, {1 + MAX_SEMI_OCTETS // 2} are allowed")
    type_octet = reader.octet(field)
    value = reader.take(field, octets - 1)
    has_filler = bool(value) and value[-1] >> 4 == _FILLER
    address = _build(field, type_octet, 2 * len(value) - has_filler, value)
    if address.is_alphanumeric:
        raise PduError(field, "a service centre has a number, not a name")
    return address


def _build(field: str, type_octet: int, length: int, value: bytes) -> Address:
    try:
        return Address(type_octet, length, value)
    except PduError as error:
        raise PduError(field, error.detail) from None


def _type_octet(ton: TypeOfNumber, plan: int) -> int:
    if not 0 <= plan <= _PLAN_MAX:
        raise PduError("Address", f"a numbering plan of {plan}, 0 to {_PLAN_MAX} are allowed")
    return _EXTENSION_BIT | ton << 4 | plan


def _nibbles(value: bytes) -> list[int]:
    return [nibble for octet in value for nibble in (octet & 0x0F, octet >> 4)]


_EXTENSION_BIT = 0x80
_PLAN_MAX = 0x0F
_FILLER = 0x0F
_DIGITS = "0123456789*#abc"
