# SPDX-License-Identifier: Apache-2.0
"""What all PDUs of short messages have in common: the service centre in front, the type in the first octet."""

from typing import Final

from atrund.sms.address import Address, decode_service_centre
from atrund.sms.dcs import Dcs
from atrund.sms.fields import FieldReader, PduError, require_octet
from atrund.sms.userdata import UserData

MTI_DELIVER: Final = 0
MTI_SUBMIT: Final = 1
MTI_STATUS_REPORT: Final = 2
"""TP-MTI, bits 1 and 0 of the first octet of a TPDU (3GPP TS 23.040 9.2.3.1)."""

HEADER: Final = 0x40
"""TP-UDHI, bit 6 of the first octet: the user data begins with a header (9.2.3.23)."""


def message_type(pdu: bytes | str, *, smsc: bool = True) -> int:
    """Return TP-MTI, 0 to 3, of a PDU of any kind; raises PduError if it can't be reached."""
    return begin(pdu, smsc=smsc)[2] & _MTI


def begin(pdu: bytes | str, *, smsc: bool) -> tuple[FieldReader, Address | None, int]:
    """Return a reader behind the first octet, the service centre and the first octet; raises PduError."""
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


def check_type(first: int, wanted: int) -> None:
    """Raise PduError unless the first octet has this TP-MTI."""
    if first & _MTI != wanted:
        raise PduError("TP-MTI", f"is {first & _MTI}, {wanted} is expected")


def check_common(user_data: UserData | None, dcs: Dcs, pid: int, smsc: Address | None) -> None:
    """Raise PduError for values that fit no PDU, or not one another."""
    require_octet("TP-PID", pid)
    if user_data is not None and (user_data.alphabet, user_data.compressed) != (dcs.alphabet, dcs.compressed):
        raise PduError("TP-DCS", f"0x{dcs.octet:02X} says another alphabet than the user data has")
    if smsc is not None and smsc.is_alphanumeric:
        raise PduError("SCA", "a service centre has a number, not a name")


def encode_service_centre(centre: Address | None, *, smsc: bool) -> bytes:
    """Return the service centre field, or nothing if it is not wanted."""
    if not smsc:
        return b""
    return b"\x00" if centre is None else centre.encode_service_centre()


_MTI = 0x03
_HEX_DIGITS = frozenset("0123456789abcdefABCDEF")
