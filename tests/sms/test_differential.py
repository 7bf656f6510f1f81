# SPDX-License-Identifier: Apache-2.0
"""Our codec against three others, each written by somebody else: gammu (C), python-gsmmodem-new and smspdudecoder.

What we write they read, what they write we read, field by field. Where they differ from us, `DIFFERENCES` says which
messages that concerns, what they make of them, and the section of the standard that says who is right; a difference
that is not in the table fails, and so does one in the table that is no longer there.
"""

import importlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrund.sms.alphabet import ESCAPE, Alphabet, unpack
from atrund.sms.pdu import (
    Address,
    Concatenation,
    Dcs,
    Deliver,
    Element,
    RelativeValidity,
    Submit,
    Timestamp,
    TypeOfNumber,
    UserData,
    decode_submit,
)
from tests.sms.test_pdu import OCTETS, TIMESTAMPS

Message = Deliver | Submit
Fields = dict[str, Any]

logging.getLogger("smspdudecoder").disabled = True  # it complains of what DIFFERENCES tells


# What is generated: all that senders use. Reserved codings, compression and broken headers are test_pdu's.

BASIC = st.sampled_from("@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./019:;<=>?¡AZÄÖÑÜ§¿azäöñüà")
EXTENDED = st.sampled_from("^{}\\[~]|€\f")
DIGITS = st.text("0123456789", min_size=1, max_size=20)
TYPES = st.sampled_from([TypeOfNumber.UNKNOWN, TypeOfNumber.INTERNATIONAL, TypeOfNumber.NATIONAL])
NUMBERS = st.builds(Address.number, DIGITS, TYPES)
ADDRESSES = st.one_of(
    NUMBERS,
    NUMBERS,
    st.builds(Address.number, st.text("0123456789*#abc", min_size=1, max_size=20), TYPES),
    st.builds(Address.alphanumeric, st.text(BASIC, min_size=1, max_size=11)),
)
SCHEMES = st.sampled_from(
    [0, 4, 8, 0, 4, 8, *range(0x10, 0x1C), 0x40, 0x54, 0x58, 0xC0, 0xC8, 0xD8, 0xE8, *range(0xF0, 0xF8)]
)
PARTS = st.builds(
    lambda reference, one, other: (Element.concatenated(Concatenation(reference, max(one, other), min(one, other))),),
    st.integers(0, 0xFFFF),
    st.integers(1, 255),
    st.integers(1, 255),
)
PORTS = st.binary(min_size=4, max_size=4).map(lambda ports: (Element(5, ports),))
TEXTS = {
    Alphabet.GSM7: st.text(st.one_of(BASIC, BASIC, EXTENDED), max_size=70),
    Alphabet.UCS2: st.text(st.characters(codec="utf-16"), max_size=30),
}


@st.composite
def contents(draw: st.DrawFn) -> tuple[Dcs, UserData]:
    dcs, header = Dcs(draw(SCHEMES)), draw(st.none() | PARTS | PORTS)
    if dcs.alphabet is Alphabet.EIGHT_BIT:
        return dcs, UserData(dcs.alphabet, draw(st.binary(max_size=120)), header)
    return dcs, UserData.from_text(draw(TEXTS[dcs.alphabet]), dcs, header)


@st.composite
def messages(draw: st.DrawFn) -> Message:
    (dcs, data), smsc = draw(contents()), draw(st.none() | NUMBERS)
    address, pid = draw(ADDRESSES), draw(OCTETS)
    flags = [draw(st.booleans()) for _ in range(3)]
    if draw(st.booleans()):
        return Deliver(address, draw(TIMESTAMPS), data, dcs, pid, smsc, *flags)
    validity = draw(st.none() | st.builds(RelativeValidity, OCTETS) | TIMESTAMPS)
    return Submit(address, data, dcs, pid, smsc, draw(OCTETS), validity, *flags)


# How each of them sees a message. What one does not tell is not compared with it.


def ours(message: Message) -> Fields:
    data, part = message.user_data, message.user_data.concatenation
    fields = {
        "number": _address(message).text,
        "smsc": None if message.smsc is None else message.smsc.text,
        "pid": message.pid,
        "alphabet": message.dcs.alphabet,
        "class": message.dcs.message_class,
        "content": data.octets if data.alphabet is Alphabet.EIGHT_BIT else data.text,
        "part": part and (part.reference, part.total, part.index),
        "header": None if data.header is None else data._header_octets(),
    }
    if isinstance(message, Deliver):
        return {**fields, "time": message.timestamp.utc()}
    validity = message.validity.utc() if isinstance(message.validity, Timestamp) else message.validity
    return {
        **fields,
        "reference": message.reference,
        "duplicates": message.reject_duplicates,
        "validity": validity.span if isinstance(validity, RelativeValidity) else validity,
    }


def gammus(message: Message) -> Fields:
    gammu = pytest.importorskip("gammu")
    found = gammu.DecodePDU(message.encode(), True)
    header = found["UDH"]
    part = (
        header["ID8bit"] if header["ID16bit"] == -1 else header["ID16bit"],
        header["AllParts"],
        header["PartNumber"],
    )
    fields = {
        "number": found["Number"],
        "smsc": found["SMSC"]["Number"] or None,
        "alphabet": GAMMUS_CODINGS[found["Coding"]],
        "class": None if found["Class"] == -1 else found["Class"],
        "content": found["Text"],
        "part": None if part[2] < 1 else part,
        "header": header["Text"] or None,
    }
    if isinstance(message, Deliver):
        fields["time"] = found["DateTime"] and found["DateTime"].astimezone(UTC)
    elif isinstance(message.validity, RelativeValidity):  # it knows no other
        fields["validity"] = _gammus_span(found["SMSC"]["Validity"])
    return fields


GAMMUS_CODINGS = {
    "Default_No_Compression": Alphabet.GSM7,
    "Unicode_No_Compression": Alphabet.UCS2,
    "8bit": Alphabet.EIGHT_BIT,
}


def _gammus_span(text: str) -> timedelta:
    units = {"M": timedelta(minutes=1), "D": timedelta(days=1), "W": timedelta(weeks=1)}
    return timedelta(weeks=63) if text == "Max" else int(text[:-1]) * units[text[-1]]


def gsmmodems(message: Message) -> Fields:
    found = importlib.import_module("gsmmodem.pdu").decodeSmsPdu(message.encode().hex())
    elements = found.get("udh", [])
    parts = [(element.reference, element.parts, element.number) for element in elements if element.id in {0, 8}]
    octets = b"".join(bytes([element.id, len(element.data), *element.data]) for element in elements)
    is_text = message.dcs.alphabet is not Alphabet.EIGHT_BIT
    fields = {
        "number": found["number"],
        "smsc": found["smsc"],
        "pid": found["protocol_id"],
        "content": found["text"] if is_text else found["text"].encode("latin-1", "replace"),
        "part": parts[-1] if parts else None,
        "header": bytes([len(octets)]) + octets if elements else None,
    }
    if isinstance(message, Deliver):
        return {**fields, "time": found["time"].astimezone(UTC)}
    validity = found.get("validity")
    if isinstance(validity, datetime):
        validity = validity.astimezone(UTC)
    return {**fields, "reference": found["reference"], "validity": validity}


def smspdudecoders(message: Message) -> Fields:
    theirs = importlib.import_module("smspdudecoder.fields")
    read = theirs.SMSDeliver if isinstance(message, Deliver) else theirs.SMSSubmit
    found = read.decode(StringIO(message.encode().hex().upper()))
    header = found["user_data"]["header"]
    parts = [element["data"] for element in (header or {}).get("elements", []) if element["iei"] in {0, 8}]
    fields = {
        "number": _joined(found["sender" if isinstance(message, Deliver) else "recipient"]),
        "smsc": _joined(found["smsc"]),
        "pid": found["pid"],
        "alphabet": {"gsm": Alphabet.GSM7, "binary": Alphabet.EIGHT_BIT, "ucs2": Alphabet.UCS2}[
            found["dcs"]["encoding"]
        ],
        "content": found["user_data"]["data"],
        "part": (parts[-1]["reference"], parts[-1]["parts_count"], parts[-1]["part_number"]) if parts else None,
    }
    if isinstance(message, Deliver):
        return {**fields, "time": found["scts"]}
    return {**fields, "reference": found["message-ref"], "duplicates": found["header"]["rd"]}


def _joined(address: Fields) -> str | None:
    if address["toa"] is None:
        return None
    return ("+" if address["toa"]["ton"] == "international" else "") + str(address["number"])


PEERS: dict[str, Callable[[Message], Fields]] = {
    "gammu": gammus,
    "gsmmodem": gsmmodems,
    "smspdudecoder": smspdudecoders,
}
REFUSED = "refused"
"""The field, and the value, of a message that a peer does not read at all."""


# Where they differ.


@dataclass(frozen=True)
class Difference:
    """`why` names the standard's section. `theirs` returns whether a peer's value is what the difference explains."""

    peer: str
    fields: tuple[str, ...]
    why: str
    concerns: Callable[[Message], bool]
    example: Message
    theirs: Callable[[Message, Any, Any], bool] = lambda _message, _ours, _theirs: True
    """Given the message, our value and theirs."""


def _address(message: Message) -> Address:
    return message.originator if isinstance(message, Deliver) else message.destination


def _has_letters(message: Message) -> bool:
    return not _address(message).is_alphanumeric and bool(set(_address(message).text) & set("*#abc"))


def _is_name(message: Message) -> bool:
    return _address(message).is_alphanumeric


def _septets(message: Message) -> bytes:
    address = _address(message)
    return unpack(address.value, address.length * 4 // 7)


def _stamps(message: Message) -> list[int]:
    """The years that the message tells."""
    times = [message.timestamp] if isinstance(message, Deliver) else [message.validity]
    return [time.year for time in times if isinstance(time, Timestamp)]


def _other_group(message: Message) -> bool:
    return message.dcs.octet >= 0x40


def _read_as_gsm7(message: Message) -> bool:
    """Whether gsmmodem takes the text for septets."""
    return _other_group(message) or message.dcs.alphabet is Alphabet.GSM7


def _header_length(message: Message) -> int:
    return len(message.user_data._header_octets())


def _escaped(message: Message) -> bool:
    return ESCAPE in (message.user_data.septets or b"")


def _like(text: str = "", *, address: Address | None = None, year: int = 2026, dcs: int = 0, **fields: Any) -> Deliver:  # noqa: ANN401 - data
    data = UserData.from_text(text, Dcs(dcs), fields.get("header"))
    return Deliver(address or Address.parse("+391234"), Timestamp(year, 6, 1, 12, 0, 0), data, Dcs(dcs))


LETTERED = _like(address=Address.parse("12*#abc"))
TWO_PORTS = (Element(5, b"\x0b\x84\x23\xf0"),)

DIFFERENCES = (
    Difference(
        "gammu",
        ("number",),
        "23.040 9.1.2.3 has * # a b c as digits 10 to 14; gammu leaves such digits out",
        _has_letters,
        LETTERED,
    ),
    Difference(
        "gammu",
        ("number",),
        "23.040 9.1.2.5: a name is text of 23.038's default alphabet; gammu gives the septets as they are, up to the "
        "first zero, which is an @",
        _is_name,
        _like(address=Address.alphanumeric("Öl@home")),
        lambda message, _ours, theirs: theirs == _septets(message).partition(b"\0")[0].decode("latin-1"),
    ),
    Difference(
        "gammu",
        ("time",),
        "23.040 9.2.3.11 sends two digits of the year; the first short message was in 1992, and gammu reads 90 to 99 "
        "as years from 2080 on, where some days do not exist",
        lambda message: _stamps(message) != [] and _stamps(message)[0] < 2000,
        _like(year=1999),
        lambda _message, ours, theirs: theirs is None or theirs.year == ours.year + 90,
    ),
    Difference(
        "gammu",
        ("class",),
        "23.038 4: group 01xx is coded as 00xx, message class included; gammu sees none there",
        lambda message: 0x40 <= message.dcs.octet < 0x80,
        _like(dcs=0x54 & ~4),
        lambda _message, _ours, theirs: theirs is None,
    ),
    Difference(
        "gammu",
        ("content",),
        "23.040 9.2.3.16 counts septets, of which an extension takes two; gammu takes so many characters, the last of "
        "them from behind its text",
        _escaped,
        _like("[AT]"),
        lambda _message, ours, theirs: theirs[: len(ours)] == ours,
    ),
    Difference(
        "gammu",
        ("content",),
        "23.038 6.2.3: UCS-2 is what it is; gammu has marks of its own in it, U+0001 for ~ and ~~ for ~",
        lambda message: message.dcs.alphabet is Alphabet.UCS2 and bool(set(message.user_data.text) & set("\x01~")),
        _like("a~b", dcs=8),
    ),
    Difference(
        "gsmmodem",
        ("number",),
        "23.040 9.1.2.3 has * # a b c as digits 10 to 14; gsmmodem writes them in hexadecimal",
        _has_letters,
        LETTERED,
        lambda _message, ours, theirs: theirs == ours.translate(str.maketrans("*#abc", "abcde")),
    ),
    Difference(
        "gsmmodem",
        ("number",),
        "23.038 6.2.1 has the section sign at 0x5F, gsmmodem `; and it takes spare bits for an @ as smspdudecoder does",
        _is_name,
        _like(address=Address.alphanumeric("paragraph §")),
        lambda _message, ours, theirs: theirs.rstrip("@") == ours.replace("§", "`").rstrip("@"),
    ),
    Difference(
        "gsmmodem",
        ("content",),
        "23.038 6.2.1 has the section sign at 0x5F and 6.2.1.1 the form feed at 0x0A; gsmmodem has ` and nothing",
        lambda message: _read_as_gsm7(message) and bool(set(message.user_data.text) & set("§\f")),
        _like("§ 1"),
        lambda message, ours, theirs: (
            message.dcs.alphabet is not Alphabet.GSM7
            or theirs.strip("@") == ours.translate({ord("§"): "`", ord("\f"): None}).strip("@")
            or _header_length(message) == 7
        ),
    ),
    Difference(
        "gsmmodem",
        ("content", REFUSED),
        "23.038 4: groups 01xx to 1111 have alphabets of their own; gsmmodem takes all of them for the default "
        "alphabet",
        lambda message: _other_group(message) and message.dcs.alphabet is not Alphabet.GSM7,
        _like("AT", dcs=0xF5),
    ),
    Difference(
        "gsmmodem",
        (REFUSED,),
        "23.040 9.2.3.24 lets nothing follow the header; gsmmodem wants at least one octet of septets behind it",
        lambda message: _read_as_gsm7(message) and _header_length(message) > 0 and not message.user_data.content,
        _like(header=TWO_PORTS),
    ),
    Difference(
        "gsmmodem",
        ("content",),
        "23.040 9.2.3.24: a header of whole septets needs no fill bits; gsmmodem loses the first septet behind one",
        lambda message: _read_as_gsm7(message) and _header_length(message) == 7,
        _like("AT", header=TWO_PORTS),
    ),
    Difference(
        "gsmmodem",
        ("content",),
        "23.038 6.2.3 has UCS-2 alone, phones send UTF-16; gsmmodem gives the halves of a pair as two characters",
        lambda message: message.dcs.alphabet is Alphabet.UCS2 and max(message.user_data.text, default="") > "\uffff",
        _like("😀", dcs=8),
        lambda _message, ours, theirs: theirs.encode("utf-16-be", "surrogatepass") == ours.encode("utf-16-be"),
    ),
    Difference(
        "gsmmodem",
        ("time", "validity"),
        "23.040 9.2.3.11 sends two digits of the year; gsmmodem reads 69 to 89 as years before there were messages",
        lambda message: _stamps(message) != [] and _stamps(message)[0] >= 2069,
        _like(year=2070),
        lambda _message, ours, theirs: theirs.year == ours.year - 100,
    ),
    Difference(
        "smspdudecoder",
        ("number",),
        "23.040 9.1.2.3 has * # a b c as digits 10 to 14; smspdudecoder writes them in hexadecimal",
        _has_letters,
        LETTERED,
        lambda _message, ours, theirs: theirs == ours.translate(str.maketrans("*#abc", "ABCDE")),
    ),
    Difference(
        "smspdudecoder",
        ("number",),
        "23.040 9.1.2.5 counts the semi-octets that hold anything, 13 for seven septets; smspdudecoder takes the spare "
        "bits for an @",
        lambda message: _is_name(message) and len(_septets(message)) == 7,
        _like(address=Address.alphanumeric("Telit77")),
        lambda _message, ours, theirs: theirs == f"{ours}@",
    ),
    Difference(
        "smspdudecoder",
        ("alphabet", "content", REFUSED),
        "23.038 4: groups from 11xx on have alphabets of their own; smspdudecoder looks at two bits, whatever the "
        "group",
        lambda message: message.dcs.octet >= 0xC0,
        _like("AT", dcs=0xE8 & ~8),
    ),
    Difference(
        "smspdudecoder",
        ("time",),
        "23.040 9.2.3.11 sends two digits of the year; smspdudecoder takes 90 to 99 for years from 2090 on",
        lambda message: _stamps(message) != [] and _stamps(message)[0] < 2000,
        _like(year=1999),
        lambda _message, ours, theirs: theirs.year == ours.year + 100,
    ),
    Difference(
        "smspdudecoder",
        ("content",),
        "23.040 9.2.3.16 counts septets, of which an extension takes two; smspdudecoder cuts behind so many characters "
        "and lets the spare bits through, or takes a header's bits for an escape",
        lambda message: message.dcs.alphabet is Alphabet.GSM7 and (_escaped(message) or _header_length(message) > 0),
        _like("[AT]+"),
    ),
)


def explained(peer: str, field: str, message: Message, ours_: object, theirs: object) -> bool:
    return any(
        difference.peer == peer
        and field in difference.fields
        and difference.concerns(message)
        and difference.theirs(message, ours_, theirs)
        for difference in DIFFERENCES
    )


def differing(peer: str, message: Message) -> dict[str, tuple[object, object]]:
    """The fields in which a peer differs: our value and theirs."""
    expected = ours(message)
    try:
        found = PEERS[peer](message)
    except (ArithmeticError, LookupError, ValueError, StopIteration) as error:
        return {REFUSED: (None, repr(error))}
    return {field: (expected[field], value) for field, value in found.items() if value != expected[field]}


def _is_installed(peer: str) -> None:
    pytest.importorskip({"gammu": "gammu", "gsmmodem": "gsmmodem.pdu", "smspdudecoder": "smspdudecoder.fields"}[peer])


@pytest.mark.parametrize("peer", PEERS)
@given(message=messages())
def test_what_we_write_they_read(peer: str, message: Message) -> None:
    _is_installed(peer)
    for field, (our, their) in differing(peer, message).items():
        assert explained(peer, field, message, our, their), f"{field}: {our!r} is {their!r} to {peer}"


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda difference: f"{difference.peer}, {difference.why[:40]}")
def test_each_difference_is_still_there(difference: Difference) -> None:
    """Else its line in the table excuses what it does not explain."""
    _is_installed(difference.peer)
    assert difference.concerns(difference.example)
    found = differing(difference.peer, difference.example)
    assert set(found) & set(difference.fields)
    for field in set(found) & set(difference.fields):
        assert difference.theirs(difference.example, *found[field])


# What they write. smspdudecoder writes nothing; of gammu's layouts only SUBMIT has its own TP-MTI (23.040 9.2.3.1).

WRITTEN = {
    "Default_No_Compression": TEXTS[Alphabet.GSM7],
    # Without its marks: see DIFFERENCES.
    "Unicode_No_Compression": st.text(st.characters(codec="utf-16", exclude_characters="\0\x01~"), max_size=30),
    "8bit": st.binary(max_size=120),
}


@pytest.mark.parametrize("coding", WRITTEN)
@given(data=st.data())
def test_what_gammu_writes_we_read(coding: str, data: st.DataObject) -> None:
    gammu = pytest.importorskip("gammu")
    text = data.draw(WRITTEN[coding])
    # It writes 00 in front of a number as its type, international.
    digits = DIGITS.filter(lambda digits: not digits.startswith("00"))
    number = data.draw(st.one_of(digits, digits.map("+{}".format), st.text(LETTERS, min_size=1, max_size=11)))
    part = data.draw(st.none() | PARTS)
    header = b"" if part is None else UserData(Alphabet.GSM7, b"", part)._header_octets()
    days, reference = data.draw(st.integers(2, 30)), data.draw(OCTETS)  # it writes weeks as days
    report, reply, duplicates = (data.draw(st.booleans()) for _ in range(3))
    message_class = data.draw(st.integers(-1, 3))
    found = decode_submit(
        gammu.EncodePDU(
            {
                "Type": "Status_Report" if report else "Submit",
                "Number": number,
                "SMSC": {"Number": "+391234", "Validity": f"{days}D"},
                "Coding": coding,
                "Text": text,
                "UDH": {"Type": "UserUDH", "Text": header} if header else {"Type": "NoUDH", "Text": b""},
                "Class": message_class,
                "MessageReference": reference,
                "RejectDuplicates": int(duplicates),
                "ReplyViaSameSMSC": int(reply),
                **dict.fromkeys(("Folder", "InboxFolder", "Location"), 0),
                **dict.fromkeys(("Memory", "Name"), ""),
                "State": "UnSent",
                "DateTime": None,
            },
            "Submit",
        )
    )
    assert (found.destination.text, found.smsc) == (number, Address.parse("+391234"))
    assert found.destination.is_alphanumeric == (not number.lstrip("+").isdigit())
    assert found.user_data.header == part
    assert (found.user_data.octets if coding == "8bit" else found.user_data.text) == text
    assert found.dcs.alphabet is GAMMUS_CODINGS[coding]
    assert found.dcs.message_class == (None if message_class == -1 else message_class)
    assert found.validity == RelativeValidity.at_least(timedelta(days=days))
    assert (found.reference, found.status_report) == (reference, report)
    assert (found.reply_path, found.reject_duplicates) == (reply, duplicates)


LETTERS = st.sampled_from("abcxyzABCXYZ -!")


@given(
    st.text(st.one_of(BASIC, EXTENDED), min_size=1, max_size=400).filter(lambda text: not set(text) & set("§\f"))
    | st.text(st.characters(codec="utf-16", min_codepoint=0x100, max_codepoint=0xFFFF), min_size=1, max_size=150),
    st.one_of(DIGITS, DIGITS.map("+{}".format)),
    OCTETS,
    st.none() | st.integers(1, 30).map(lambda days: timedelta(days=days)) | TIMESTAMPS.map(lambda stamp: stamp.moment),
    st.booleans(),
    st.booleans(),
)
def test_what_gsmmodem_writes_we_read(  # noqa: PLR0917 - what is generated
    text: str,
    number: str,
    reference: int,
    validity: timedelta | datetime | None,
    report: bool,  # noqa: FBT001 - data
    duplicates: bool,  # noqa: FBT001 - data
) -> None:
    theirs = pytest.importorskip("gsmmodem.pdu")
    parts = theirs.encodeSmsSubmitPdu(number, text, reference, validity, "+391234", report, duplicates)
    found = [decode_submit(bytes(part.data)) for part in parts]
    assert "".join(submit.user_data.text for submit in found) == text
    assert {(submit.destination.text, submit.smsc) for submit in found} == {(number, Address.parse("+391234"))}
    assert {(s.reference, s.status_report, s.reject_duplicates) for s in found} == {(reference, report, duplicates)}
    expected = validity
    for submit in found:
        told = submit.validity
        assert (told.span if isinstance(told, RelativeValidity) else told and told.moment) == expected  # type: ignore[union-attr]
    if len(found) > 1:
        places = [submit.user_data.concatenation for submit in found]
        assert places == [Concatenation(reference, len(found), index) for index in range(1, len(found) + 1)]


def test_a_character_that_gsmmodem_writes_as_another() -> None:
    """23.038 6.2.1: ` is not in the alphabet, and its octet is the section sign, on phones as here."""
    (part,) = pytest.importorskip("gsmmodem.pdu").encodeSmsSubmitPdu("+391234", "`")
    assert decode_submit(bytes(part.data)).user_data.text == "§"
