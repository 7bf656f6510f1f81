# SPDX-License-Identifier: Apache-2.0
"""SMS-DELIVER and SMS-SUBMIT both ways, octet for octet (3GPP TS 23.040 9.2.2.1 and 9.2.2.2).

A PDU is what a module gives and takes in PDU mode: the service centre address, then the TPDU. Decoding is strict, and
encoding what was decoded gives the same octets but for bits that the standard leaves unused.
"""

from dataclasses import dataclass
from typing import Final

from atrund.sms.address import Address, TypeOfNumber, decode_address, decode_service_centre
from atrund.sms.dcs import DEFAULT_DCS, CodingGroup, Dcs, Waiting
from atrund.sms.fields import FieldReader, PduError, require_octet
from atrund.sms.timestamp import (
    STAMP_LENGTH,
    EnhancedValidity,
    RelativeValidity,
    Timestamp,
    ValidityPeriod,
    decode_timestamp,
)
from atrund.sms.userdata import Concatenation, Element, UserData, decode_user_data

__all__ = [
    "DEFAULT_DCS",
    "MTI_DELIVER",
    "MTI_SUBMIT",
    "Address",
    "CodingGroup",
    "Concatenation",
    "Dcs",
    "Deliver",
    "Element",
    "EnhancedValidity",
    "PduError",
    "RelativeValidity",
    "Submit",
    "Timestamp",
    "TypeOfNumber",
    "UserData",
    "ValidityPeriod",
    "Waiting",
    "decode_deliver",
    "decode_submit",
    "message_type",
]

MTI_DELIVER: Final = 0
MTI_SUBMIT: Final = 1
"""TP-MTI, bits 1 and 0 of the first octet of a TPDU (3GPP TS 23.040 9.2.3.1)."""


@dataclass(frozen=True, slots=True)
class Deliver:
    """An SMS-DELIVER, from the service centre to the module; raises PduError for values that fit no PDU."""

    originator: Address
    timestamp: Timestamp
    user_data: UserData
    dcs: Dcs = DEFAULT_DCS
    pid: int = 0
    smsc: Address | None = None
    more_messages: bool = False
    loop_prevention: bool = False
    status_report: bool = False
    reply_path: bool = False

    def __post_init__(self) -> None:
        """Check what the parts can't check alone."""
        _check_common(self.user_data, self.dcs, self.pid, self.smsc)

    def encode(self, *, smsc: bool = True) -> bytes:
        """Return the PDU, or the TPDU alone without the service centre field."""
        first = (
            MTI_DELIVER
            # TP-MMS is 0 when more messages wait (3GPP TS 23.040 9.2.3.2).
            | (0 if self.more_messages else _MMS)
            | (_LP if self.loop_prevention else 0)
            | (_SRI if self.status_report else 0)
            | (_UDHI if self.user_data.header is not None else 0)
            | (_RP if self.reply_path else 0)
        )
        head = bytes([first]) + self.originator.encode() + bytes([self.pid, self.dcs.octet])
        return _encode_service_centre(self.smsc, smsc=smsc) + head + self.timestamp.encode() + self.user_data.encode()

    @property
    def tpdu_length(self) -> int:
        """Octets without the service centre field, as `+CMGR:` and `+CMT:` give it."""
        return len(self.encode(smsc=False))


@dataclass(frozen=True, slots=True)
class Submit:
    """An SMS-SUBMIT, from the module to the service centre; raises PduError for values that fit no PDU."""

    destination: Address
    user_data: UserData
    dcs: Dcs = DEFAULT_DCS
    pid: int = 0
    smsc: Address | None = None
    reference: int = 0
    validity: ValidityPeriod | None = None
    reject_duplicates: bool = False
    status_report: bool = False
    reply_path: bool = False

    def __post_init__(self) -> None:
        """Check what the parts can't check alone."""
        require_octet("TP-MR", self.reference)
        _check_common(self.user_data, self.dcs, self.pid, self.smsc)

    def encode(self, *, smsc: bool = True) -> bytes:
        """Return the PDU, or the TPDU alone without the service centre field."""
        first = (
            MTI_SUBMIT
            | (_RD if self.reject_duplicates else 0)
            | _validity_format(self.validity)
            | (_SRR if self.status_report else 0)
            | (_UDHI if self.user_data.header is not None else 0)
            | (_RP if self.reply_path else 0)
        )
        head = bytes([first, self.reference]) + self.destination.encode() + bytes([self.pid, self.dcs.octet])
        validity = b"" if self.validity is None else self.validity.encode()
        return _encode_service_centre(self.smsc, smsc=smsc) + head + validity + self.user_data.encode()

    @property
    def tpdu_length(self) -> int:
        """Octets without the service centre field: the length that AT+CMGS takes (3GPP TS 27.005 4.3)."""
        return len(self.encode(smsc=False))


def decode_deliver(pdu: bytes | str, *, smsc: bool = True) -> Deliver:
    """Read an SMS-DELIVER from octets or hex digits; `smsc` tells whether the service centre field stands in front.

    Raises PduError, and nothing else, for whatever is not one whole well-formed SMS-DELIVER.
    """
    reader, centre, first = _begin(pdu, smsc=smsc)
    _check_type(first, MTI_DELIVER)
    originator = decode_address(reader, "TP-OA")
    pid, dcs = reader.octet("TP-PID"), Dcs(reader.octet("TP-DCS"))
    timestamp = decode_timestamp(reader, "TP-SCTS")
    return Deliver(
        originator,
        timestamp,
        decode_user_data(reader, dcs, has_header=bool(first & _UDHI)),
        dcs,
        pid,
        centre,
        more_messages=not first & _MMS,
        loop_prevention=bool(first & _LP),
        status_report=bool(first & _SRI),
        reply_path=bool(first & _RP),
    )


def decode_submit(pdu: bytes | str, *, smsc: bool = True) -> Submit:
    """Read an SMS-SUBMIT from octets or hex digits; `smsc` tells whether the service centre field stands in front.

    Raises PduError, and nothing else, for whatever is not one whole well-formed SMS-SUBMIT.
    """
    reader, centre, first = _begin(pdu, smsc=smsc)
    _check_type(first, MTI_SUBMIT)
    reference = reader.octet("TP-MR")
    destination = decode_address(reader, "TP-DA")
    pid, dcs = reader.octet("TP-PID"), Dcs(reader.octet("TP-DCS"))
    validity = _decode_validity(reader, first & _VPF)
    return Submit(
        destination,
        decode_user_data(reader, dcs, has_header=bool(first & _UDHI)),
        dcs,
        pid,
        centre,
        reference,
        validity,
        reject_duplicates=bool(first & _RD),
        status_report=bool(first & _SRR),
        reply_path=bool(first & _RP),
    )


def message_type(pdu: bytes | str, *, smsc: bool = True) -> int:
    """Return TP-MTI, 0 to 3, of a PDU of any kind; raises PduError if it can't be reached."""
    return _begin(pdu, smsc=smsc)[2] & _MTI


def _begin(pdu: bytes | str, *, smsc: bool) -> tuple[FieldReader, Address | None, int]:
    reader = FieldReader(_from_hex(pdu) if isinstance(pdu, str) else pdu)
    centre = decode_service_centre(reader) if smsc else None
    return reader, centre, reader.octet("TP-MTI")


def _from_hex(digits: str) -> bytes:
    if len(digits) % 2:
        raise PduError("PDU", f"{len(digits)} hex digits are no whole number of octets")
    wrong = next((character for character in digits if character not in _HEX_DIGITS), None)
    if wrong is not None:
        raise PduError("PDU", f"{wrong!r} is no hex digit")
    return bytes.fromhex(digits)


def _check_type(first: int, wanted: int) -> None:
    if first & _MTI != wanted:
        raise PduError("TP-MTI", f"is {first & _MTI}, {wanted} is expected")


def _check_common(user_data: UserData, dcs: Dcs, pid: int, smsc: Address | None) -> None:
    require_octet("TP-PID", pid)
    if (user_data.alphabet, user_data.compressed) != (dcs.alphabet, dcs.compressed):
        raise PduError("TP-DCS", f"0x{dcs.octet:02X} says another alphabet than the user data has")
    if smsc is not None and smsc.is_alphanumeric:
        raise PduError("SCA", "a service centre has a number, not a name")


def _encode_service_centre(centre: Address | None, *, smsc: bool) -> bytes:
    if not smsc:
        return b""
    return b"\x00" if centre is None else centre.encode_service_centre()


def _decode_validity(reader: FieldReader, form: int) -> ValidityPeriod | None:
    if form == _VPF_RELATIVE:
        return RelativeValidity(reader.octet("TP-VP"))
    if form == _VPF_ABSOLUTE:
        return decode_timestamp(reader, "TP-VP")
    if form == _VPF_ENHANCED:
        return EnhancedValidity(reader.take("TP-VP", STAMP_LENGTH))
    return None


def _validity_format(validity: ValidityPeriod | None) -> int:
    return 0 if validity is None else _VALIDITY_FORMATS[type(validity)]


# Bits of the first octet (3GPP TS 23.040 9.2.2.1, 9.2.2.2, 9.2.3.28).
_MTI = 0x03
_MMS = _RD = 0x04
_LP = 0x08
_SRI = _SRR = 0x20
_UDHI = 0x40
_RP = 0x80

# TP-VPF, bits 4 and 3 of a SUBMIT (3GPP TS 23.040 9.2.3.3).
_VPF = 0x18
_VPF_ENHANCED, _VPF_RELATIVE, _VPF_ABSOLUTE = 0x08, 0x10, 0x18
_VALIDITY_FORMATS: dict[type[ValidityPeriod], int] = {
    EnhancedValidity: _VPF_ENHANCED,
    RelativeValidity: _VPF_RELATIVE,
    Timestamp: _VPF_ABSOLUTE,
}
_HEX_DIGITS = frozenset("0123456789abcdefABCDEF")
