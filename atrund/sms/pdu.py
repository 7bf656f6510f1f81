# SPDX-License-Identifier: Apache-2.0
"""SMS-DELIVER and SMS-SUBMIT both ways, octet for octet (3GPP TS 23.040 9.2.2.1 and 9.2.2.2).

A PDU is what a module gives and takes in PDU mode: the service centre address, then the TPDU. Decoding is strict, and
encoding what was decoded gives the same octets but for bits that the standard leaves unused.
"""

from dataclasses import dataclass

from atrund.sms.address import Address, TypeOfNumber, decode_address
from atrund.sms.dcs import DEFAULT_DCS, CodingGroup, Dcs, Waiting
from atrund.sms.envelope import (
    HEADER,
    MTI_DELIVER,
    MTI_SUBMIT,
    begin,
    check_common,
    check_type,
    encode_service_centre,
    message_type,
)
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
        check_common(self.user_data, self.dcs, self.pid, self.smsc)

    def encode(self, *, smsc: bool = True) -> bytes:
        """Return the PDU, or the TPDU alone without the service centre field."""
        first = (
            MTI_DELIVER
            # TP-MMS is 0 when more messages wait (3GPP TS 23.040 9.2.3.2).
            | (0 if self.more_messages else _MMS)
            | (_LP if self.loop_prevention else 0)
            | (_SRI if self.status_report else 0)
            | (HEADER if self.user_data.header is not None else 0)
            | (_RP if self.reply_path else 0)
        )
        head = bytes([first]) + self.originator.encode() + bytes([self.pid, self.dcs.octet])
        return encode_service_centre(self.smsc, smsc=smsc) + head + self.timestamp.encode() + self.user_data.encode()

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
        check_common(self.user_data, self.dcs, self.pid, self.smsc)

    def encode(self, *, smsc: bool = True) -> bytes:
        """Return the PDU, or the TPDU alone without the service centre field."""
        first = (
            MTI_SUBMIT
            | (_RD if self.reject_duplicates else 0)
            | _validity_format(self.validity)
            | (_SRR if self.status_report else 0)
            | (HEADER if self.user_data.header is not None else 0)
            | (_RP if self.reply_path else 0)
        )
        head = bytes([first, self.reference]) + self.destination.encode() + bytes([self.pid, self.dcs.octet])
        validity = b"" if self.validity is None else self.validity.encode()
        return encode_service_centre(self.smsc, smsc=smsc) + head + validity + self.user_data.encode()

    @property
    def tpdu_length(self) -> int:
        """Octets without the service centre field: the length that AT+CMGS takes (3GPP TS 27.005 4.3)."""
        return len(self.encode(smsc=False))


def decode_deliver(pdu: bytes | str, *, smsc: bool = True) -> Deliver:
    """Read an SMS-DELIVER from octets or hex digits; `smsc` tells whether the service centre field stands in front.

    Raises PduError, and nothing else, for whatever is not one whole well-formed SMS-DELIVER.
    """
    reader, centre, first = begin(pdu, smsc=smsc)
    check_type(first, MTI_DELIVER)
    originator = decode_address(reader, "TP-OA")
    pid, dcs = reader.octet("TP-PID"), Dcs(reader.octet("TP-DCS"))
    timestamp = decode_timestamp(reader, "TP-SCTS")
    return Deliver(
        originator,
        timestamp,
        decode_user_data(reader, dcs, has_header=bool(first & HEADER)),
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
    reader, centre, first = begin(pdu, smsc=smsc)
    check_type(first, MTI_SUBMIT)
    reference = reader.octet("TP-MR")
    destination = decode_address(reader, "TP-DA")
    pid, dcs = reader.octet("TP-PID"), Dcs(reader.octet("TP-DCS"))
    validity = _decode_validity(reader, first & _VPF)
    return Submit(
        destination,
        decode_user_data(reader, dcs, has_header=bool(first & HEADER)),
        dcs,
        pid,
        centre,
        reference,
        validity,
        reject_duplicates=bool(first & _RD),
        status_report=bool(first & _SRR),
        reply_path=bool(first & _RP),
    )


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
_MMS = _RD = 0x04
_LP = 0x08
_SRI = _SRR = 0x20
_RP = 0x80

# TP-VPF, bits 4 and 3 of a SUBMIT (3GPP TS 23.040 9.2.3.3).
_VPF = 0x18
_VPF_ENHANCED, _VPF_RELATIVE, _VPF_ABSOLUTE = 0x08, 0x10, 0x18
_VALIDITY_FORMATS: dict[type[ValidityPeriod], int] = {
    EnhancedValidity: _VPF_ENHANCED,
    RelativeValidity: _VPF_RELATIVE,
    Timestamp: _VPF_ABSOLUTE,
}
