# SPDX-License-Identifier: Apache-2.0
"""Messages as the module's lines show them, in PDU mode and in text mode, and typed text as a message's content.

In text mode what is not GSM 7-bit text is shown and typed as pairs of hex digits (TS 27.005 3.1, <data>).
"""

from typing import TYPE_CHECKING, Final

from atrund.sim.steps import cms
from atrund.sim.store import Message, Status
from atrund.sms.alphabet import Alphabet, decode_gsm7, encode_gsm7, replace_unsendable
from atrund.sms.envelope import MTI_STATUS_REPORT, message_type
from atrund.sms.pdu import Address, Dcs, Deliver, Timestamp, UserData, decode_deliver, decode_submit
from atrund.sms.report import decode_report

if TYPE_CHECKING:  # for the annotations alone
    from atrund.sim.port import SimPort

CHARACTER_SETS: Final = ("GSM", "IRA", "8859-1", "UCS2", "HEX")

INVALID_PDU_PARAMETER: Final = 304
INVALID_TEXT_PARAMETER: Final = 305
"""TS 27.005 3.2.5."""


def listed(port: "SimPort", index: int, message: Message) -> tuple[str, ...]:
    """Return the two lines of +CMGL for a message; a status report has one in text mode."""
    if not port.settings.text_mode:
        return f'+CMGL: {index},{message.status.value},"",{_tpdu_length(message.pdu)}', message.pdu.hex().upper()
    if message.status.received and message_type(message.pdu) == MTI_STATUS_REPORT:
        return (f'+CMGL: {index},"{message.status.words}",{_report_text(port, message.pdu)}',)
    address, stamp, data, _extra = _text_parts(port, message)
    detail = f",{_type_of(address)},{_length(data)}" if port.settings.number("+CSDH") else ""
    head = f'+CMGL: {index},"{message.status.words}","{_shown_address(port, address)}",""'
    return f"{head}{stamp}{detail}", shown(data, port.settings.character_set)


def read(port: "SimPort", message: Message) -> tuple[str, ...]:
    """Return the two lines of +CMGR for a message; a status report has one in text mode."""
    if not port.settings.text_mode:
        return f'+CMGR: {message.status.value},"",{_tpdu_length(message.pdu)}', message.pdu.hex().upper()
    if message.status.received and message_type(message.pdu) == MTI_STATUS_REPORT:
        return (f'+CMGR: "{message.status.words}",{_report_text(port, message.pdu)}',)
    address, stamp, data, extra = _text_parts(port, message)
    head = f'+CMGR: "{message.status.words}","{_shown_address(port, address)}",""'
    detail = extra if port.settings.number("+CSDH") else ""
    return f"{head}{stamp}{detail}", shown(data, port.settings.character_set)


def cmt_lines(port: "SimPort", pdu: bytes, message: Deliver) -> tuple[str]:
    """Return the unsolicited +CMT of a message: one item, for nothing may come between its two lines."""
    if not port.settings.text_mode:
        return (f'+CMT: "",{message.tpdu_length}\r\n{pdu.hex().upper()}',)
    address, stamp, data, extra = _text_parts(port, Message(Status.REC_UNREAD, pdu))
    detail = extra if port.settings.number("+CSDH") else ""
    text = shown(data, port.settings.character_set)
    return (f'+CMT: "{_shown_address(port, address)}",""{stamp}{detail}\r\n{text}',)


def cds_line(port: "SimPort", pdu: bytes) -> str:
    """Return the unsolicited +CDS of a status report, in PDU mode as one item with two lines."""
    if not port.settings.text_mode:
        return f"+CDS: {_tpdu_length(pdu)}\r\n{pdu.hex().upper()}"
    return f"+CDS: {_report_text(port, pdu)}"


def stamp_text(stamp: Timestamp) -> str:
    """Return a stamp as text mode shows it, without quotes."""
    return (
        f"{stamp.year % 100:02}/{stamp.month:02}/{stamp.day:02},"
        f"{stamp.hour:02}:{stamp.minute:02}:{stamp.second:02}{stamp.quarters:+03}"
    )


def shown(data: UserData, character_set: str) -> str:
    """Return user data as text mode shows it; each character of the result is one byte on the port."""
    if data.septets is None or data.header is not None:
        return data.content.hex().upper()
    if character_set == "GSM":
        return data.septets.decode("latin-1")
    if character_set == "HEX":
        return data.septets.hex().upper()
    if character_set == "UCS2":
        return data.text.encode("utf-16-be").hex().upper()
    return data.text.encode("latin-1", "replace").decode("latin-1")


def typed(entered: bytes, character_set: str, dcs: Dcs) -> bytes:
    """Return the content of a message that was typed in text mode. Raises the refusal of a text that can't be one."""
    text = entered.decode("latin-1")
    if dcs.alphabet is not Alphabet.GSM7:
        return _from_hex(text)
    if character_set in {"GSM", "HEX"}:
        septets = _from_hex(text) if character_set == "HEX" else entered
        try:
            decode_gsm7(septets)
        except ValueError:
            raise cms(INVALID_TEXT_PARAMETER) from None
        return septets
    if character_set == "UCS2":
        text = _from_hex(text).decode("utf-16-be", "replace")
    return encode_gsm7(replace_unsendable(text, Alphabet.GSM7)[0])


def _from_hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise cms(INVALID_TEXT_PARAMETER) from None


def _tpdu_length(pdu: bytes) -> int:
    """Return the octets behind the service centre field, whose first octet is its length (TS 24.011 8.2.5)."""
    return len(pdu) - 1 - pdu[0]


def _text_parts(port: "SimPort", message: Message) -> tuple[Address, str, UserData, str]:
    """Return address, time stamp (with its comma), data, and what +CSDH=1 adds."""
    if message.status.received:
        deliver = decode_deliver(message.pdu)
        first = deliver.encode(smsc=False)[0]
        extra = f",{_type_of(deliver.originator)},{first},{deliver.pid},{deliver.dcs.octet}"
        stamp = f',"{stamp_text(deliver.timestamp)}"'
        return deliver.originator, stamp, deliver.user_data, f"{extra}{_tail(port, deliver.smsc, deliver.user_data)}"
    submit = decode_submit(message.pdu)
    first = submit.encode(smsc=False)[0]
    extra = f",{_type_of(submit.destination)},{first},{submit.pid},{submit.dcs.octet}"
    return submit.destination, "", submit.user_data, f"{extra}{_tail(port, submit.smsc, submit.user_data)}"


def _report_text(port: "SimPort", pdu: bytes) -> str:
    """Return first octet, reference, recipient, its type, both stamps and the status (TS 27.005 3.1, <fo> to <st>)."""
    report = decode_report(pdu)
    first = pdu[1 + pdu[0]]
    who = f'"{_shown_address(port, report.recipient)}",{_type_of(report.recipient)}'
    stamps = f'"{stamp_text(report.timestamp)}","{stamp_text(report.discharge)}"'
    return f"{first},{report.reference},{who},{stamps},{report.status}"


def _tail(port: "SimPort", smsc: Address | None, data: UserData) -> str:
    centre = "" if smsc is None else _shown_address(port, smsc)
    return f',"{centre}",{129 if smsc is None else _type_of(smsc)},{_length(data)}'


def _type_of(address: Address) -> int:
    return address.type_octet


def _shown_address(port: "SimPort", address: Address) -> str:
    if port.settings.character_set == "UCS2":
        return address.text.encode("utf-16-be").hex().upper()
    return address.text.encode("latin-1", "replace").decode("latin-1")


def _length(data: UserData) -> int:
    return len(data.content)
