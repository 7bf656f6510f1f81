# SPDX-License-Identifier: Apache-2.0
"""SMS-DELIVER and SMS-SUBMIT: the application note's PDUs, a PDU of every kind, round trips, corruption."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrund.sms.alphabet import Alphabet
from atrund.sms.digest import parse_request, parse_response
from atrund.sms.pdu import (
    Address,
    CodingGroup,
    Concatenation,
    Dcs,
    Deliver,
    Element,
    EnhancedValidity,
    PduError,
    RelativeValidity,
    Submit,
    Timestamp,
    TypeOfNumber,
    UserData,
    ValidityPeriod,
    decode_deliver,
    decode_submit,
    message_type,
)

PASSWORD = "1234567890123456"
NOTE_SUBMIT = (
    "079193432900200011000C919343868676110015AD26D0D0D000110157696A437032715633734E7"
    "62B61727532305A5561773D3D41542B434F50533F"
)
NOTE_DELIVER = (
    "0791934329002000040C9193438686761100158050922102818040D1D1D10011014A756E726137723"
    "06B494563483971563534326E33513D3D0D0A2B434F50533A20302C302C22766F6461666F6E6520"
    "4954220D0A0D0A4F4B0D0A"
)

# The fields in front of and behind those that a case is about.
OA = "0C91934386867611"
DA = OA
SCTS = "80509221028180"


def test_the_notes_submit() -> None:
    submit = decode_submit(NOTE_SUBMIT)
    assert submit == Submit(
        destination=Address.parse("+393468686711"),
        user_data=UserData(Alphabet.EIGHT_BIT, b"\xd0\xd0\xd0\x00\x11\x01WijCp2qV3sNv+aru20ZUaw==AT+COPS?"),
        dcs=Dcs(0x15),
        smsc=Address.parse("+393492000200"),
        validity=RelativeValidity(0xAD),
    )
    assert submit.tpdu_length == 52
    assert submit.encode().hex().upper() == NOTE_SUBMIT
    request = parse_request(submit.user_data.octets or b"")
    assert request is not None
    assert request.matches([PASSWORD]) == 0


def test_the_notes_deliver() -> None:
    deliver = decode_deliver(NOTE_DELIVER)
    assert deliver == Deliver(
        originator=Address.parse("+393468686711"),
        timestamp=Timestamp(2008, 5, 29, 12, 20, 18, 0x80),
        user_data=UserData(
            Alphabet.EIGHT_BIT,
            b'\xd1\xd1\xd1\x00\x11\x01Junra7r0kIEcH9qV542n3Q==\r\n+COPS: 0,0,"vodafone IT"\r\n\r\nOK\r\n',
        ),
        dcs=Dcs(0x15),
        smsc=Address.parse("+393492000200"),
    )
    assert deliver.tpdu_length == 83
    assert deliver.timestamp.iso() == "2008-05-29T12:20:18+02:00"
    assert deliver.encode().hex().upper() == NOTE_DELIVER
    response = parse_response(deliver.user_data.octets or b"")
    assert response is not None
    assert response.matches([PASSWORD]) == 0


DELIVERS: dict[str, tuple[str, Callable[[Deliver], object], object]] = {
    "gsm7, zone of minus zero": (
        "07911326040000F0040B911346610089F60000208062917314080CC8F71D14969741F977FD07",
        lambda d: (str(d.smsc), d.originator.text, d.user_data.text, d.timestamp.iso()),
        ("+31624000000", "+31641600986", "How are you?", "2002-08-26T19:37:41+00:00"),
    ),
    "national plan, stamp of the last century": (
        "07917283010010F5040BC87238880900F10000993092516195800AE8329BFD4697D9EC37",
        lambda d: (d.originator.ton, d.originator.text, d.user_data.text, d.timestamp.iso()),
        (TypeOfNumber.SUBSCRIBER, "27838890001", "hellohello", "1999-03-29T15:16:59+02:00"),
    ),
    "extension table": (
        f"0004{OA}0000{SCTS}149BF286B7F16D509BD4E6B5E96D281BE04601",
        lambda d: d.user_data.text,
        "€[]{}\\~^|\f",
    ),
    "'@' at the end of seven septets": (f"0004{OA}0000{SCTS}07C8329BFD060100", lambda d: d.user_data.text, "Hello @"),
    "seven septets with no '@'": (f"0004{OA}0000{SCTS}07F3B2BDECBEDD00", lambda d: d.user_data.text, "seven77"),
    "eight septets": (f"0004{OA}0000{SCTS}08E5F4194DC7E170", lambda d: d.user_data.text, "eight888"),
    "8-bit": (f"0004{OA}0004{SCTS}0300FF41", lambda d: (d.user_data.octets, d.dcs.message_class), (b"\x00\xffA", None)),
    "8-bit, class 1": (
        f"0004{OA}00F5{SCTS}0300FF41",
        lambda d: (d.user_data.octets, d.dcs.message_class, d.dcs.group),
        (b"\x00\xffA", 1, CodingGroup.CLASS),
    ),
    "UCS-2": (f"0004{OA}0008{SCTS}060416042B0431", lambda d: d.user_data.text, "ЖЫб"),
    "surrogate pair": (f"0004{OA}0008{SCTS}080041D83DDE000042", lambda d: d.user_data.text, "A😀B"),
    "lone surrogate": (f"0004{OA}0008{SCTS}04D83D0042", lambda d: d.user_data.text, "\ufffdB"),
    "message waiting, UCS-2": (
        f"0004{OA}00E8{SCTS}0400410042",
        lambda d: (d.user_data.text, d.dcs.waiting is not None, d.dcs.waiting_active),
        ("AB", True, True),
    ),
    "concatenated, 8-bit reference, one fill bit": (
        f"0044{OA}0000{SCTS}0A050003070201C2E231",
        lambda d: (d.user_data.text, d.user_data.concatenation),
        ("abc", Concatenation(7, 2, 1)),
    ),
    "concatenated, 16-bit reference": (
        f"0044{OA}0000{SCTS}0C0608040102020261F1980C",
        lambda d: (d.user_data.text, d.user_data.concatenation),
        ("abcd", Concatenation(0x0102, 2, 2)),
    ),
    "ports": (
        f"0044{OA}0004{SCTS}0906050423F00B844142",
        lambda d: (d.user_data.octets, d.user_data.header),
        (b"AB", (Element(5, b"\x23\xf0\x0b\x84"),)),
    ),
    "name of 7 characters": (f"00040DD0D4323B4DBFDD000000{SCTS}0161", lambda d: str(d.originator), "Telit77"),
    "name of 8 characters": (f"00040ED0D4323B4D6FBFC90000{SCTS}0161", lambda d: str(d.originator), "Telitmod"),
    "name that ends in '@'": (f"00040ED0F3B2BDECBE01000000{SCTS}0161", lambda d: str(d.originator), "seven7@@"),
    "short code": (
        f"000405B12143F50000{SCTS}0161",
        lambda d: (d.originator.text, d.originator.ton),
        ("12345", TypeOfNumber.NETWORK_SPECIFIC),
    ),
    "zone behind GMT": (
        f"0004{OA}0000805092210281490161",
        lambda d: (d.timestamp.iso(), d.timestamp.utc()),
        ("2008-05-29T12:20:18-03:30", datetime(2008, 5, 29, 15, 50, 18, tzinfo=UTC)),
    ),
    "every flag": (
        f"00A8{OA}7F00{SCTS}0161",
        lambda d: (d.more_messages, d.loop_prevention, d.status_report, d.reply_path, d.pid),
        (True, True, True, True, 0x7F),
    ),
    "no flag": (
        f"0004{OA}0000{SCTS}0161",
        lambda d: (d.more_messages, d.loop_prevention, d.status_report, d.reply_path, d.pid, d.smsc),
        (False, False, False, False, 0, None),
    ),
}

SUBMITS: dict[str, tuple[str, Callable[[Submit], object], object]] = {
    "no validity period": (f"0001FF{DA}00000161", lambda s: (s.validity, s.reference), (None, 0xFF)),
    "relative validity period": (
        "0011000B916407281553F80000AA0AE8329BFD4697D9EC37",
        lambda s: (s.validity, s.destination.text, s.user_data.text),
        (RelativeValidity(0xAA), "+46708251358", "hellohello"),
    ),
    "absolute validity period": (
        f"001900{DA}0000805092210281490161",
        lambda s: s.validity,
        Timestamp(2008, 5, 29, 12, 20, 18, 0x49),
    ),
    "enhanced validity period": (
        f"000900{DA}0000421E00000000000161",
        lambda s: (s.validity, s.user_data.text),
        (EnhancedValidity(bytes.fromhex("421E0000000000")), "a"),
    ),
    "every flag": (
        f"00A500{DA}00000161",
        lambda s: (s.reject_duplicates, s.status_report, s.reply_path),
        (True, True, True),
    ),
    "header": (f"004100{DA}0004080500030702014142", lambda s: s.user_data.concatenation, Concatenation(7, 2, 1)),
}


@pytest.mark.parametrize("kind", DELIVERS)
def test_delivers_of_every_kind(kind: str) -> None:
    pdu, look, expected = DELIVERS[kind]
    deliver = decode_deliver(pdu)
    assert look(deliver) == expected
    assert deliver.encode().hex().upper() == pdu
    assert message_type(pdu) == 0


@pytest.mark.parametrize("kind", SUBMITS)
def test_submits_of_every_kind(kind: str) -> None:
    pdu, look, expected = SUBMITS[kind]
    submit = decode_submit(pdu)
    assert look(submit) == expected
    assert submit.encode().hex().upper() == pdu
    assert message_type(pdu) == 1


@pytest.mark.parametrize(
    ("pdu", "field"),
    [
        ("", "SCA"),
        ("00", "TP-MTI"),
        ("0", "PDU"),
        ("zz", "PDU"),
        ("00 4", "PDU"),
        ("\uff10\uff10", "PDU"),  # digits, but no ASCII
        (f"0006{OA}0000", "TP-MTI"),  # SMS-STATUS-REPORT
        (f"0007{OA}0000", "TP-MTI"),  # reserved
        (NOTE_SUBMIT, "TP-MTI"),
        ("0004", "TP-OA"),
        ("00040C", "TP-OA"),
        ("00040C9193", "TP-OA"),
        ("00040291F1", "TP-OA"),
        (f"0004{OA}", "TP-PID"),
        (f"0004{OA}00", "TP-DCS"),
        (f"0004{OA}0000", "TP-SCTS"),
        (f"0004{OA}0000{SCTS}", "TP-UDL"),
        (f"0004{OA}0000803192210281800161", "TP-SCTS"),  # month 13
        (f"0004{OA}0000{SCTS}08E5F4194DC7E1", "TP-UDL"),  # cut short
        (f"0004{OA}0000{SCTS}08E5F4194DC7E17000", "TP-UDL"),  # something behind
        (f"0004{OA}0008{SCTS}03004100", "TP-UD"),
        (f"0044{OA}0004{SCTS}020500", "UDHL"),
        (f"0044{OA}0004{SCTS}03020005", "IEIDL"),
    ],
)
def test_malformed_delivers_name_the_field(pdu: str, field: str) -> None:
    with pytest.raises(PduError) as caught:
        decode_deliver(pdu)
    assert caught.value.field == field
    assert str(caught.value) == f"{field}: {caught.value.detail}"


@pytest.mark.parametrize(
    ("pdu", "field"),
    [
        ("0001", "TP-MR"),
        ("000100", "TP-DA"),
        (f"001100{DA}0000", "TP-VP"),
        (f"001900{DA}0000805092210281", "TP-VP"),
        (f"001900{DA}0000803192210281800161", "TP-VP"),
        (f"000900{DA}0000421E", "TP-VP"),
        (f"000900{DA}000003A000000000000161", "TP-VP"),
        (f"000100{DA}0000", "TP-UDL"),
        (NOTE_DELIVER, "TP-MTI"),
    ],
)
def test_malformed_submits_name_the_field(pdu: str, field: str) -> None:
    with pytest.raises(PduError) as caught:
        decode_submit(pdu)
    assert caught.value.field == field


def test_without_the_service_centre_field() -> None:
    deliver = decode_deliver(NOTE_DELIVER[16:], smsc=False)
    assert deliver.smsc is None
    assert deliver.encode(smsc=False).hex().upper() == NOTE_DELIVER[16:]
    assert deliver.encode().hex().upper() == "00" + NOTE_DELIVER[16:]
    submit = decode_submit(bytes.fromhex(NOTE_SUBMIT[16:]), smsc=False)
    assert submit.encode(smsc=False).hex().upper() == NOTE_SUBMIT[16:]
    assert message_type(NOTE_SUBMIT[16:], smsc=False) == 1


def test_small_letters_are_hex_too() -> None:
    assert decode_submit(NOTE_SUBMIT.lower()) == decode_submit(NOTE_SUBMIT)


TEXT = UserData(Alphabet.GSM7, b"a")
NUMBER = Address.parse("+39346")


@pytest.mark.parametrize(
    ("build", "field"),
    [
        (lambda: Submit(NUMBER, TEXT, Dcs(0x15)), "TP-DCS"),
        (lambda: Submit(NUMBER, TEXT, Dcs(0x20)), "TP-DCS"),
        (lambda: Submit(NUMBER, TEXT, pid=256), "TP-PID"),
        (lambda: Submit(NUMBER, TEXT, reference=-1), "TP-MR"),
        (lambda: Submit(NUMBER, TEXT, smsc=Address.alphanumeric("Telit")), "SCA"),
        (lambda: Deliver(NUMBER, Timestamp(2024, 1, 1, 0, 0, 0), TEXT, Dcs(8)), "TP-DCS"),
    ],
)
def test_values_that_fit_no_pdu(build: Callable[[], object], field: str) -> None:
    with pytest.raises(PduError) as caught:
        build()
    assert caught.value.field == field


DIGITS = st.text("0123456789*#abc", min_size=1, max_size=20)
NUMBERS = st.builds(
    Address.number,
    DIGITS,
    st.sampled_from([ton for ton in TypeOfNumber if ton is not TypeOfNumber.ALPHANUMERIC]),
    st.integers(0, 15),
)
ADDRESSES = NUMBERS | st.builds(Address.alphanumeric, st.text("@aZ 9$", max_size=11))
OCTETS = st.integers(0, 255)
TIMESTAMPS = st.builds(
    lambda moment, quarters: Timestamp(
        moment.year,
        moment.month,
        moment.day,
        moment.hour,
        moment.minute,
        moment.second,
        quarters % 10 << 4 | quarters // 10,
    ),
    st.datetimes(datetime(1990, 1, 1), datetime(2089, 12, 31)),  # noqa: DTZ001 - the zone is put in above
    # The tens of a zone behind GMT are 8 to 15, with the sign in bit 3.
    st.integers(0, 159),
)
VALIDITIES: st.SearchStrategy[ValidityPeriod | None] = st.one_of(
    st.none(),
    st.builds(RelativeValidity, OCTETS),
    TIMESTAMPS,
    st.builds(
        EnhancedValidity,
        st.tuples(st.sampled_from([0, 1, 2, 0x41, 4]), st.binary(min_size=6, max_size=6)).map(
            lambda t: bytes([t[0]]) + t[1]
        ),
    ),
)
HEADERS = st.none() | st.lists(st.builds(Element, OCTETS, st.binary(max_size=8)), max_size=4).map(tuple)
FLAGS = st.booleans()


@st.composite
def schemes_and_data(draw: st.DrawFn) -> tuple[Dcs, UserData]:
    dcs = Dcs(draw(OCTETS))
    # At most 4 elements of 10 octets and a length: 41 octets, 47 septets.
    content = draw(st.binary(max_size=98))
    if dcs.alphabet is Alphabet.GSM7 and not dcs.compressed:
        content = bytes(octet & 0x7F for octet in content)
    elif len(content) % 2:
        content = content[1:]
    return dcs, UserData(dcs.alphabet, content, draw(HEADERS), dcs.compressed)


@st.composite
def delivers(draw: st.DrawFn) -> Deliver:
    dcs, user_data = draw(schemes_and_data())
    smsc = draw(st.none() | NUMBERS)
    flags = [draw(FLAGS) for _ in range(4)]
    return Deliver(draw(ADDRESSES), draw(TIMESTAMPS), user_data, dcs, draw(OCTETS), smsc, *flags)


@st.composite
def submits(draw: st.DrawFn) -> Submit:
    dcs, user_data = draw(schemes_and_data())
    smsc = draw(st.none() | NUMBERS)
    flags = [draw(FLAGS) for _ in range(3)]
    return Submit(draw(ADDRESSES), user_data, dcs, draw(OCTETS), smsc, draw(OCTETS), draw(VALIDITIES), *flags)


@given(delivers())
def test_delivers_both_ways(deliver: Deliver) -> None:
    pdu = deliver.encode()
    assert decode_deliver(pdu) == deliver
    assert decode_deliver(pdu).encode() == pdu
    assert decode_deliver(pdu.hex()) == deliver
    assert decode_deliver(deliver.encode(smsc=False), smsc=False).encode(smsc=False) == deliver.encode(smsc=False)
    assert len(pdu) - deliver.tpdu_length == (1 if deliver.smsc is None else len(deliver.smsc.encode()))


@given(submits())
def test_submits_both_ways(submit: Submit) -> None:
    pdu = submit.encode()
    assert decode_submit(pdu) == submit
    assert decode_submit(pdu).encode() == pdu
    assert decode_submit(pdu.hex()) == submit
    assert submit.tpdu_length <= 164  # the longest that AT+CMGS takes


def assert_refused_or_stable(pdu: bytes) -> None:
    """Only PduError, or a message that gives the same message again."""
    for smsc in (True, False):
        try:
            deliver = decode_deliver(pdu, smsc=smsc)
        except PduError as error:
            assert error.field
        else:
            assert decode_deliver(deliver.encode(smsc=smsc), smsc=smsc) == deliver
            assert len(deliver.encode(smsc=smsc)) == len(pdu)
            assert isinstance(deliver.user_data.text + deliver.originator.text + deliver.timestamp.iso(), str)
        try:
            submit = decode_submit(pdu, smsc=smsc)
        except PduError as error:
            assert error.field
        else:
            assert decode_submit(submit.encode(smsc=smsc), smsc=smsc) == submit
            assert len(submit.encode(smsc=smsc)) == len(pdu)


@given(delivers())
def test_every_cut_of_a_deliver_is_refused(deliver: Deliver) -> None:
    pdu = deliver.encode()
    for end in range(len(pdu)):
        with pytest.raises(PduError):
            decode_deliver(pdu[:end])


@given(submits())
def test_every_cut_of_a_submit_is_refused(submit: Submit) -> None:
    pdu = submit.encode()
    for end in range(len(pdu)):
        with pytest.raises(PduError):
            decode_submit(pdu[:end])


@given(delivers() | submits(), st.binary(min_size=1, max_size=3))
def test_anything_behind_is_refused(message: Deliver | Submit, garbage: bytes) -> None:
    decode: Callable[[bytes], object] = decode_deliver if isinstance(message, Deliver) else decode_submit
    with pytest.raises(PduError, match="TP-UDL"):
        decode(message.encode() + garbage)


@given(delivers() | submits(), st.lists(st.tuples(st.integers(0, 300), OCTETS), min_size=1, max_size=4))
def test_corruption_is_refused_or_read_as_what_it_then_is(
    message: Deliver | Submit, changes: list[tuple[int, int]]
) -> None:
    pdu = bytearray(message.encode())
    for position, octet in changes:
        pdu[position % len(pdu)] ^= octet
    assert_refused_or_stable(bytes(pdu))


@given(st.binary(max_size=200))
def test_random_octets_raise_nothing_else(octets: bytes) -> None:
    assert_refused_or_stable(octets)


@given(st.text(max_size=40))
def test_random_text_raises_nothing_else(text: str) -> None:
    with pytest.raises(PduError):
        decode_deliver(text)


def test_validity_of_a_week_is_the_notes() -> None:
    assert RelativeValidity.at_least(timedelta(days=7)).octet == 0xAD
