# SPDX-License-Identifier: Apache-2.0
"""SMS-STATUS-REPORT: built by the network, shown by the module (3GPP TS 23.040 9.2.2.3, TS 27.005 3.1)."""

from dataclasses import dataclass
from typing import Final, Self

from atrund.sms.address import decode_address, decode_service_centre
from atrund.sms.fields import FieldReader
from atrund.sms.pdu import Address, Timestamp, message_type
from atrund.sms.timestamp import decode_timestamp

STATUS_REPORT: Final = 2
"""TP-MTI from the service centre."""

FIRST_OCTET: Final = 0x06
"""A report, and no more messages waiting."""


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a sent message: `status` is TP-ST, 0 for delivered. Raises `PduError` when it can't be coded."""

    reference: int
    recipient: Address
    sent: Timestamp
    discharged: Timestamp
    status: int = 0
    smsc: Address | None = None

    @classmethod
    def decode(cls, pdu: bytes) -> Self:
        """Read a report with its service centre field."""
        reader = FieldReader(pdu)
        smsc = decode_service_centre(reader)
        reader.octet("TP-MTI")
        return cls(
            reader.octet("TP-MR"),
            decode_address(reader, "TP-RA"),
            decode_timestamp(reader, "TP-SCTS"),
            decode_timestamp(reader, "TP-DT"),
            reader.octet("TP-ST"),
            smsc,
        )

    def encode(self) -> bytes:
        """Return the PDU with its service centre field."""
        centre = b"\x00" if self.smsc is None else self.smsc.encode_service_centre()
        head = bytes([FIRST_OCTET, self.reference]) + self.recipient.encode()
        return centre + head + self.sent.encode() + self.discharged.encode() + bytes([self.status])


def is_report(pdu: bytes) -> bool:
    """Whether a PDU from the service centre is a report."""
    return message_type(pdu) == STATUS_REPORT
