# SPDX-License-Identifier: Apache-2.0
"""SMS-STATUS-REPORT both ways: what became of a message that was sent (3GPP TS 23.040 9.2.2.3)."""

import enum
from dataclasses import dataclass
from typing import Final

from atrund.sms.address import Address, decode_address
from atrund.sms.dcs import DEFAULT_DCS, Dcs
from atrund.sms.envelope import HEADER, MTI_STATUS_REPORT, begin, check_common, check_type, encode_service_centre
from atrund.sms.fields import FieldReader, PduError, require_octet
from atrund.sms.timestamp import Timestamp, decode_timestamp
from atrund.sms.userdata import UserData, decode_user_data


class Fate(enum.Enum):
    """What a TP-ST means (3GPP TS 23.040 9.2.3.15)."""

    DELIVERED = "delivered"
    FORWARDED = "forwarded, and nobody knows whether it arrived"
    REPLACED = "replaced by the service centre"
    DONE = "done, as this service centre has it"
    TRYING = "not delivered yet; the service centre goes on trying"
    FAILED = "failed for good"
    GIVEN_UP = "failed for now; the service centre does not try again"

    @property
    def final(self) -> bool:
        """Whether no later report will say anything else."""
        return self is not Fate.TRYING


def fate_of(status: int) -> Fate:
    """Return what a TP-ST means; a reserved value means `service rejected`, as the standard has it."""
    if status in _COMPLETED:
        return _COMPLETED[status]
    for first, fate in _CLASSES:
        # In each class 16 values are the standard's, of which some are reserved, and 16 the service centre's own.
        if first <= status < first + len(_NAMES[first]) or first + 0x10 <= status < first + 0x20:
            return fate
    return Fate.GIVEN_UP


def status_name(status: int) -> str:
    """Return the standard's words for a TP-ST."""
    if status in _COMPLETED:
        return _COMPLETED[status].value
    first = status & 0x60
    names = _NAMES.get(first, ())
    if status < 0x80 and status - first < len(names):
        return names[status - first]
    if status < 0x80 and status - first >= 0x10:
        return f"the service centre's own 0x{status:02X}"
    return f"reserved 0x{status:02X}"


@dataclass(frozen=True, slots=True)
class StatusReport:
    """An SMS-STATUS-REPORT; raises PduError for values that fit no PDU.

    `reference` is the TP-MR of the message that it is about, `timestamp` when the service centre took that, `discharge`
    when it was delivered or last tried, `status` TP-ST. `pid`, `dcs` and `user_data` are None where the report has
    none: TP-PI says which are there. `of_command` tells a report on an SMS-COMMAND (TP-SRQ).
    """

    reference: int
    recipient: Address
    timestamp: Timestamp
    discharge: Timestamp
    status: int = 0
    smsc: Address | None = None
    pid: int | None = None
    dcs: Dcs | None = None
    user_data: UserData | None = None
    more_messages: bool = False
    loop_prevention: bool = False
    of_command: bool = False

    def __post_init__(self) -> None:
        """Check what the parts can't check alone."""
        require_octet("TP-MR", self.reference)
        require_octet("TP-ST", self.status)
        check_common(self.user_data, self.dcs or DEFAULT_DCS, self.pid or 0, self.smsc)

    @property
    def fate(self) -> Fate:
        """What became of the message."""
        return fate_of(self.status)

    def encode(self, *, smsc: bool = True) -> bytes:
        """Return the PDU, or the TPDU alone without the service centre field."""
        first = (
            MTI_STATUS_REPORT
            | (0 if self.more_messages else _MMS)
            | (_LP if self.loop_prevention else 0)
            | (_SRQ if self.of_command else 0)
            | (HEADER if self.user_data is not None and self.user_data.header is not None else 0)
        )
        head = bytes([first, self.reference]) + self.recipient.encode()
        body = self.timestamp.encode() + self.discharge.encode() + bytes([self.status])
        return encode_service_centre(self.smsc, smsc=smsc) + head + body + self._optional()

    @property
    def tpdu_length(self) -> int:
        """Octets without the service centre field, as `+CDS:` gives it (3GPP TS 27.005 3.4.1)."""
        return len(self.encode(smsc=False))

    def _optional(self) -> bytes:
        fields = (
            (_PI_PID, b"" if self.pid is None else bytes([self.pid])),
            (_PI_DCS, b"" if self.dcs is None else bytes([self.dcs.octet])),
            (_PI_UDL, b"" if self.user_data is None else self.user_data.encode()),
        )
        indicator = sum(bit for bit, octets in fields if octets)
        return bytes([indicator]) + b"".join(octets for _, octets in fields) if indicator else b""


def decode_report(pdu: bytes | str, *, smsc: bool = True) -> StatusReport:
    """Read an SMS-STATUS-REPORT from octets or hex digits; `smsc` tells whether the service centre field is in front.

    Raises PduError, and nothing else, for whatever is not one whole well-formed SMS-STATUS-REPORT. What a later
    edition of the standard puts behind the fields known here, and announces in TP-PI, is an error too.
    """
    reader, centre, first = begin(pdu, smsc=smsc)
    check_type(first, MTI_STATUS_REPORT)
    reference = reader.octet("TP-MR")
    recipient = decode_address(reader, "TP-RA")
    timestamp = decode_timestamp(reader, "TP-SCTS")
    discharge = decode_timestamp(reader, "TP-DT")
    status = reader.octet("TP-ST")
    indicator = _decode_indicator(reader) if reader.left else 0
    pid = reader.octet("TP-PID") if indicator & _PI_PID else None
    dcs = Dcs(reader.octet("TP-DCS")) if indicator & _PI_DCS else None
    user_data = None
    if indicator & _PI_UDL:
        user_data = decode_user_data(reader, dcs or DEFAULT_DCS, has_header=bool(first & HEADER))
    if reader.left:
        raise PduError("PDU", f"{reader.left} octets behind the end")
    return StatusReport(
        reference,
        recipient,
        timestamp,
        discharge,
        status,
        centre,
        pid,
        dcs,
        user_data,
        more_messages=not first & _MMS,
        loop_prevention=bool(first & _LP),
        of_command=bool(first & _SRQ),
    )


def _decode_indicator(reader: FieldReader) -> int:
    """Take TP-PI: its reserved bits are not looked at, octets that extend it are passed over (9.2.3.27)."""
    indicator = last = reader.octet("TP-PI")
    while last & _PI_MORE:
        last = reader.octet("TP-PI")
    return indicator


# Bits of the first octet (3GPP TS 23.040 9.2.2.3).
_MMS = 0x04
_LP = 0x08
_SRQ = 0x20

# TP-PI (3GPP TS 23.040 9.2.3.27).
_PI_PID, _PI_DCS, _PI_UDL, _PI_MORE = 0x01, 0x02, 0x04, 0x80

_COMPLETED: Final = {
    0x00: Fate.DELIVERED,
    0x01: Fate.FORWARDED,
    0x02: Fate.REPLACED,
    **dict.fromkeys(range(0x10, 0x20), Fate.DONE),
}
_CLASSES: Final = ((0x20, Fate.TRYING), (0x40, Fate.FAILED), (0x60, Fate.GIVEN_UP))
_PASSING: Final = (
    "congestion",
    "the recipient is busy",
    "no response from the recipient",
    "service rejected",
    "quality of service not available",
    "error in the recipient",
)
_NAMES: Final = {
    0x20: _PASSING,
    0x40: (
        "remote procedure error",
        "incompatible destination",
        "connection rejected by the recipient",
        "not obtainable",
        "quality of service not available",
        "no interworking available",
        "the validity period is over",
        "deleted by its sender",
        "deleted by the service centre's administration",
        "the message does not exist",
    ),
    0x60: _PASSING,
}
