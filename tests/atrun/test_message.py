# SPDX-License-Identifier: Apache-2.0
"""Is it an ATRUN SMS, and how is it answered (SMS-3 to SMS-9, SMS-11, SMS-13)."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrund.at.reader import Line
from atrund.atrun.instance import frame
from atrund.atrun.message import AtRun, NotAtRun, answer_text, answers, context_of, is_listed, judge, message_key
from atrund.atrun.request import End, Outcome, Reason
from atrund.sms.address import Address, TypeOfNumber
from atrund.sms.alphabet import Alphabet, decode_gsm7
from atrund.sms.digest import HEADER_LENGTH, MAX_TEXT, build_request, parse_response
from atrund.sms.parts import Parts
from atrund.sms.pdu import (
    Concatenation,
    Dcs,
    Deliver,
    Element,
    RelativeValidity,
    Submit,
    UserData,
    decode_deliver,
    decode_submit,
)
from atrund.sms.timestamp import Timestamp

# Telit 80000NT10029a, 2.3: the request as it is submitted, the answer as it is delivered.
PASSWORD = "1234567890123456"
OTHER = "abcdefghijklmnop"
NOTE_SUBMIT = (
    "079193432900200011000C919343868676110015AD26D0D0D000110157696A437032715633734E7"
    "62B61727532305A5561773D3D41542B434F50533F"
)
NOTE_DELIVER = (
    "0791934329002000040C9193438686761100158050922102818040D1D1D10011014A756E726137723"
    "06B494563483971563534326E33513D3D0D0A2B434F50533A20302C302C22766F6461666F6E6520"
    "4954220D0A0D0A4F4B0D0A"
)
NOTE_ANSWER = '\r\n+COPS: 0,0,"vodafone IT"\r\n\r\nOK\r\n'

PHONE = "+393461234567"
STAMP = Timestamp(2026, 11, 22, 8, 40, 0)
GSM7, CLASS_1_8BIT, UCS2 = Dcs(0x00), Dcs(0x15), Dcs(0x08)


def sms(text: str = "AT+COPS?", dcs: Dcs = GSM7, sender: str = PHONE) -> Deliver:
    return Deliver(Address.parse(sender), STAMP, UserData.from_text(text, dcs), dcs)


def digest_sms(
    text: bytes = b"AT+COPS?", password: str = PASSWORD, *, sender: str = "+4915112345", data: bytes | None = None
) -> Deliver:
    octets = build_request(password, text, 7, 9) if data is None else data
    return Deliver(Address.parse(sender), STAMP, UserData(Alphabet.EIGHT_BIT, octets), CLASS_1_8BIT)


def judged(
    deliver: Deliver,
    numbers: Sequence[str] = (PHONE,),
    passwords: Sequence[str] = (PASSWORD,),
    *,
    convert_ucs2: bool = True,
) -> AtRun | NotAtRun:
    return judge(deliver, numbers, passwords, convert_ucs2=convert_ucs2)


def why(found: AtRun | NotAtRun) -> str:
    assert isinstance(found, NotAtRun)
    return found.why


def test_the_notes_request_is_accepted_from_anybody() -> None:
    """SMS-9, paragraph 2.3; SMS-4: the sender is not checked."""
    submit = decode_submit(NOTE_SUBMIT)
    assert submit.tpdu_length == 52
    for sender in (submit.destination, Address.parse("999"), Address.alphanumeric("A name")):
        deliver = Deliver(sender, STAMP, submit.user_data, submit.dcs)
        found = judge(deliver, [], [OTHER, PASSWORD], convert_ucs2=False)
        assert found == AtRun("AT+COPS?", answered=True, password=1, transaction=0, session=1)


def test_the_notes_answer_comes_out_octet_for_octet() -> None:
    """SMS-9, paragraph 2.3."""
    noted = decode_deliver(NOTE_DELIVER)
    request = decode_submit(NOTE_SUBMIT)
    deliver = Deliver(noted.originator, STAMP, request.user_data, request.dcs)
    found = judge(deliver, [], [PASSWORD], convert_ucs2=True)
    assert isinstance(found, AtRun)
    text = answer_text(Outcome(End.OK, final="OK", framed=NOTE_ANSWER))
    (submit,), parts = answers(text, context_of(found, deliver), deliver.originator, [PASSWORD], 5)
    assert submit.user_data.encode() == noted.user_data.encode()
    assert submit.dcs.octet == noted.dcs.octet == 0x15
    assert submit.destination == noted.originator
    assert submit.validity == RelativeValidity(0xA7)
    assert not parts.cut


@pytest.mark.parametrize(
    ("text", "line", "answered"),
    [
        ("AT+COPS?", "AT+COPS?", True),
        ("at+cops?", "at+cops?", True),
        ("aT", "aT", True),
        ("HAT+COPS?", "AT+COPS?", False),
        ("hat+cops?", "at+cops?", False),
        ("  AT+COPS?   ", "AT+COPS?", True),
        ("  HAT ", "AT", False),
        ("AT+COPS?\r\n", "AT+COPS?\r\n", True),
        ("AT+COPS?\r\n\r\n", "AT+COPS?\r\n\r\n", True),
        ("ATTENTION please", "ATTENTION please", True),
    ],
)
@pytest.mark.parametrize("dcs", [GSM7, Dcs(0xF1), Dcs(0x04), CLASS_1_8BIT, UCS2])
def test_a_simple_sms(text: str, line: str, dcs: Dcs, *, answered: bool) -> None:
    """SMS-3, SMS-7. Line ends are the parser's, which drops one and refuses more (REQ-4)."""
    assert judged(sms(text, dcs)) == AtRun(line, answered=answered)


@pytest.mark.parametrize("text", ["", "A", "HA", "Hello", "+COPS?", "\r\nAT", "HHAT", "BHAT", "A T", "\u00c4T"])
@pytest.mark.parametrize("dcs", [GSM7, CLASS_1_8BIT])
def test_a_text_that_begins_otherwise_is_none(text: str, dcs: Dcs) -> None:
    assert why(judged(sms(text, dcs))) == "does not begin with AT or HAT"


@pytest.mark.parametrize("line", ["AT\\Q3", "AT^SYSINFO", 'AT+X="{[~|]}"'])
def test_backslash_and_caret_come_through_the_8bit_alphabet(line: str) -> None:
    assert judged(sms(line, CLASS_1_8BIT)) == judged(sms(line)) == AtRun(line, answered=True)


@pytest.mark.parametrize(
    ("sender", "entry", "listed"),
    [
        ("+39346", "+39346", True),
        ("+39346", "39346", False),
        ("39346", "+39346", False),
        ("+393461", "+39346", False),
        ("+3934", "+39346", False),
        ("+39346", "+39*", True),
        ("+39", "+39*", True),
        ("+3", "+39*", False),
        ("39346", "+39*", False),
        ("0039346", "+39*", False),
        ("39*", "39*", True),
        ("4*1", "41", False),
    ],
)
def test_a_number_is_compared_exactly_and_a_star_takes_any_rest(sender: str, entry: str, *, listed: bool) -> None:
    assert is_listed(Address.parse(sender), [entry]) is listed
    assert is_listed(Address.parse(sender), ["1", entry]) is listed
    assert not is_listed(Address.parse(sender), [])


@pytest.mark.parametrize("name", ["+39346", "39346", "Bank", ""])
@pytest.mark.parametrize("entry", ["+39346", "39346", "+39*", "3*"])
def test_an_alphanumeric_sender_matches_nothing_whatever_it_spells(name: str, entry: str) -> None:
    assert not is_listed(Address.alphanumeric(name), [entry])


@pytest.mark.parametrize("ton", [ton for ton in TypeOfNumber if ton is not TypeOfNumber.ALPHANUMERIC])
def test_only_an_international_sender_has_a_plus(ton: TypeOfNumber) -> None:
    sender = Address.number("39346", ton)
    assert is_listed(sender, ["+39346"]) is (ton is TypeOfNumber.INTERNATIONAL)
    assert is_listed(sender, ["39346"]) is (ton is not TypeOfNumber.INTERNATIONAL)


def test_a_stranger_is_told_by_his_number_before_his_text() -> None:
    assert (
        why(judged(sms("Hello", sender="+1")))
        == why(judged(sms(sender="+1")))
        == ("comes from no number of the white list")
    )


def test_ucs2_is_taken_where_its_quotes_can_be_straightened() -> None:
    """SMS-3: what phones make of a command while one types."""
    text = "AT+X=\u201cfoo\u201d,\u2018b\u2019\u00a0\u2013 1"
    assert judged(sms(text, UCS2)) == AtRun("AT+X=\"foo\",'b' - 1", answered=True)
    assert why(judged(sms(text, UCS2), convert_ucs2=False)) == "is written in UCS-2"
    assert why(judged(sms("AT+X=\u2020", UCS2))) == "is written in UCS-2"
    assert why(judged(sms("\u0391\u03a4+COPS?", UCS2))) == "is written in UCS-2"  # Greek letters that look alike
    assert why(judged(sms(text, UCS2, sender="+1"))) == "comes from no number of the white list"


@pytest.mark.parametrize("header", [(), (Element.concatenated(Concatenation(1, 2, 1)),), (Element(0x24, b"\x01"),)])
def test_a_user_data_header_makes_it_none(header: tuple[Element, ...]) -> None:
    """SMS-5, of both kinds."""
    simple = sms()
    digest = digest_sms()
    for deliver in (simple, digest):
        with_header = replace(deliver, user_data=replace(deliver.user_data, header=header))
        assert why(judged(with_header)) == "has a user data header"


def test_compressed_text_is_none() -> None:
    dcs = Dcs(0x20)
    deliver = Deliver(Address.parse(PHONE), STAMP, UserData(Alphabet.GSM7, b"AT+COPS?", compressed=True), dcs)
    assert why(judged(deliver)) == "is compressed"


def test_a_digest_hat_is_not_answered() -> None:
    assert judged(digest_sms(b"HAT+COPS?")) == AtRun("AT+COPS?", answered=False, password=0, transaction=7, session=9)


@pytest.mark.parametrize(
    ("deliver", "reason"),
    [
        (digest_sms(password=OTHER, sender=PHONE), "has a digest of no password here"),
        (digest_sms(data=b"\xd0\xd0\xd0AT+COPS?", sender=PHONE), "has a malformed digest header"),
        (digest_sms(data=b"\xd0\xd0\xd0", sender=PHONE), "has a malformed digest header"),
        (digest_sms(b"Hello", sender=PHONE), "does not begin with AT or HAT"),
        (
            digest_sms(data=build_request(PASSWORD, b"AT+COPS?")[:4] + b"\x21" + build_request(PASSWORD, b"AT")[5:]),
            "has a malformed digest header",
        ),
        (digest_sms(data=build_request(PASSWORD, b"AT+COPS?")[:-1] + b"!"), "has a digest of no password here"),
        (digest_sms(data=build_request(PASSWORD, b"AT")[:HEADER_LENGTH] + b"AT+CFUN=4"), "has a digest of no password"),
    ],
)
def test_a_digest_header_that_fails_is_never_tried_as_a_simple_sms(deliver: Deliver, reason: str) -> None:
    """SMS-4: not even from a white-listed number."""
    assert why(judged(deliver, numbers=[PHONE, "+*"])).startswith(reason)


def test_without_passwords_no_digest_is_right() -> None:
    assert why(judged(digest_sms(password=""), passwords=[])) == "has a digest of no password here"


def test_no_reason_shows_a_digest_or_a_password() -> None:
    for deliver in (digest_sms(password=OTHER), digest_sms(data=b"\xd0\xd0\xd0" + bytes(27))):
        assert PASSWORD not in why(judged(deliver))
        assert "==" not in why(judged(deliver))
    assert "4711" not in repr(judged(sms("AT+CPIN=4711")))


def test_a_digest_in_septets_is_none() -> None:
    """SMS-4: 8-bit alphabet only; septets can spell it in Latin-1 no more than D0 can be one."""
    deliver = sms("\u0394\u0394\u0394" + "0" * 27 + "AT+COPS?")
    assert why(judged(deliver)) == "does not begin with AT or HAT"


ONE = sms()


@pytest.mark.parametrize(
    "other",
    [
        replace(ONE, originator=Address.parse(PHONE[:-1])),
        replace(ONE, originator=Address.number(PHONE[1:])),
        replace(ONE, timestamp=replace(STAMP, second=1)),
        replace(ONE, timestamp=replace(STAMP, zone_octet=4)),
        replace(ONE, pid=1),
        replace(ONE, dcs=Dcs(0x10)),
        sms("AT+COPS=?"),
        sms("AT+COPS?", Dcs(0x04)),
    ],
)
def test_a_message_is_known_by_who_when_how_and_what(other: Deliver) -> None:
    """SMS-11."""
    assert message_key(other) != message_key(ONE)


def test_the_way_that_a_message_came_by_is_no_part_of_what_it_is_known_by() -> None:
    again = replace(ONE, smsc=Address.parse("+39"), more_messages=True, loop_prevention=True, status_report=True)
    assert message_key(again) == message_key(ONE)
    assert len(message_key(ONE)) == 64


@pytest.mark.parametrize(
    ("outcome", "text"),
    [
        (Outcome(End.OK, final="OK", framed="\r\nx\r\n\r\nOK\r\n"), "\r\nx\r\n\r\nOK\r\n"),
        (Outcome(End.ERROR, final="ERROR", framed="\r\nERROR\r\n"), "\r\nERROR\r\n"),
        # refused here, or not ended by the module: SMS-13
        (Outcome(End.REJECTED, Reason.POLICY), '\r\n#ATRUN: "policy"\r\n\r\nERROR\r\n'),
        (Outcome(End.REJECTED, Reason.QUEUE_FULL), '\r\n#ATRUN: "queue_full"\r\n\r\nERROR\r\n'),
        (Outcome(End.REJECTED, Reason.PORT_DOWN), '\r\n#ATRUN: "port_down"\r\n\r\nERROR\r\n'),
        (Outcome(End.EXPIRED, Reason.EXPIRED), '\r\n#ATRUN: "expired"\r\n\r\nERROR\r\n'),
        (Outcome(End.LOST, framed="\r\nhalf\r\n\r\nERROR\r\n"), '\r\n#ATRUN: "lost"\r\n\r\nERROR\r\n'),
        (Outcome(End.TIMEOUT, framed="\r\nERROR\r\n"), '\r\n#ATRUN: "timeout"\r\n\r\nERROR\r\n'),
        # an unexpected prompt that was left: the module gave no final of its own
        (
            Outcome(End.ERROR, Reason.PROMPT_UNSUPPORTED, framed="\r\nERROR\r\n"),
            '\r\n#ATRUN: "prompt_unsupported"\r\n\r\nERROR\r\n',
        ),
    ],
)
def test_the_answer_is_the_modules_or_names_the_reason(outcome: Outcome, text: str) -> None:
    assert answer_text(outcome) == text


def answered(deliver: Deliver, text: str, reference: int = 7) -> tuple[tuple[Submit, ...], Parts]:
    found = judged(deliver)
    assert isinstance(found, AtRun)
    return answers(text, context_of(found, deliver), deliver.originator, [PASSWORD], reference)


@pytest.mark.parametrize("dcs", [GSM7, Dcs(0xF1), Dcs(0x04), CLASS_1_8BIT, UCS2])
def test_a_simple_answer_keeps_the_coding_and_goes_to_the_sender(dcs: Dcs) -> None:
    """SMS-8."""
    (submit,), parts = answered(sms(dcs=dcs), NOTE_ANSWER)
    assert submit.dcs == dcs
    assert submit.destination == Address.parse(PHONE)
    assert submit.user_data.text == NOTE_ANSWER
    assert submit.user_data.header is None
    assert (parts.cut, parts.replaced) == (False, 0)


def test_the_answer_goes_to_the_senders_own_type_of_number() -> None:
    deliver = replace(sms(), originator=Address.number("346", TypeOfNumber.NATIONAL))
    found = judged(deliver, numbers=["346"])
    assert isinstance(found, AtRun)
    (submit,), _ = answers("\r\nOK\r\n", context_of(found, deliver), deliver.originator, [], 0)
    assert submit.destination.ton is TypeOfNumber.NATIONAL


def test_what_the_alphabet_lacks_becomes_a_question_mark() -> None:
    (submit,), parts = answered(sms(), "\r\n\u00e7`\r\n")
    assert submit.user_data.text == "\r\n??\r\n"
    assert parts.replaced == 2


@pytest.mark.parametrize(
    ("dcs", "room"), [(GSM7, 153), (CLASS_1_8BIT, 134), (UCS2, 67)], ids=["septets", "octets", "ucs2"]
)
def test_a_long_simple_answer_is_concatenated_and_cut_at_15_parts(dcs: Dcs, room: int) -> None:
    text = "0123456789" * 400
    submits, parts = answered(sms(dcs=dcs), text, reference=200)
    assert len(submits) == 15
    assert parts.cut
    assert [submit.user_data.concatenation for submit in submits] == [
        Concatenation(200, 15, index) for index in range(1, 16)
    ]
    assert "".join(submit.user_data.text for submit in submits) == text[: 15 * room]


def test_a_long_digest_answer_has_a_header_in_each_part() -> None:
    text = "0123456789" * 30
    submits, parts = answered(digest_sms(), text)
    read = [parse_response(submit.user_data.content) for submit in submits]
    assert all(part is not None and part.matches([PASSWORD]) == 0 for part in read)
    assert [(p.transaction, p.session, p.index, p.total) for p in read if p] == [(7, 9, n, 3) for n in (1, 2, 3)]
    assert "".join(part.text.decode() for part in read if part) == text
    assert all(submit.user_data.header is None and submit.dcs == CLASS_1_8BIT for submit in submits)
    assert not parts.cut


def test_a_very_long_digest_answer_is_cut_at_15_parts() -> None:
    submits, parts = answered(digest_sms(), "x" * (15 * MAX_TEXT + 1))
    assert len(submits) == 15
    assert parts.cut


def test_a_digest_answer_of_foreign_letters_is_octets_still() -> None:
    (submit,), _ = answered(digest_sms(), "\u00e9\u20ac")
    response = parse_response(submit.user_data.content)
    assert response is not None
    assert response.text == b"\xe9?"


@given(
    st.lists(st.text(max_size=30) | st.sampled_from(["AT+CSQ", "HAT+CSQ", "D0D0D0"])), st.sampled_from([0, 4, 8, 21])
)
def test_no_answer_is_a_request_so_that_two_gateways_do_not_answer_one_another(lines: list[str], dcs: int) -> None:
    shown = tuple(Line(line, lead=True) for line in lines)
    outcome = Outcome(End.OK, final="OK", framed=frame(shown, Outcome(End.OK, final="OK")))
    for text in (answer_text(outcome), answer_text(Outcome(End.REJECTED, Reason.POLICY))):
        for password in (None, 0) if dcs in {4, 21} else (None,):  # a digest is made of octets
            asked = {"dcs": dcs, "password": password, "transaction": 0, "session": 1}
            for message in answers(text, asked, Address.parse(PHONE), [PASSWORD], 1)[0]:
                back = Deliver(Address.parse(PHONE), STAMP, message.user_data, message.dcs)
                assert isinstance(judge(back, [PHONE], [PASSWORD], convert_ucs2=True), NotAtRun)


def test_an_answer_needs_the_password_of_its_request() -> None:
    deliver = digest_sms()
    found = judged(deliver, passwords=[OTHER, PASSWORD])
    assert isinstance(found, AtRun)
    with pytest.raises(LookupError, match="password of the request"):
        answers("x", context_of(found, deliver), deliver.originator, [OTHER], 0)


def test_the_context_holds_what_a_restart_needs_and_no_secret() -> None:
    deliver = digest_sms()
    found = judged(deliver)
    assert isinstance(found, AtRun)
    assert context_of(found, deliver) == {
        "originator": deliver.originator.encode().hex(),
        "dcs": 0x15,
        "password": 0,
        "transaction": 7,
        "session": 9,
    }


@given(octets=st.binary(max_size=140), listed=st.booleans())
def test_any_octets_are_judged(*, octets: bytes, listed: bool) -> None:
    deliver = digest_sms(data=octets)
    found = judged(deliver, numbers=["+4915112345"] if listed else [])
    assert not (isinstance(found, AtRun) and (not listed or octets.startswith(b"\xd0\xd0\xd0")))


@given(st.binary(max_size=160).map(lambda data: bytes(octet & 0x7F for octet in data)))
def test_any_septets_are_judged(septets: bytes) -> None:
    deliver = Deliver(Address.parse(PHONE), STAMP, UserData(Alphabet.GSM7, septets), GSM7)
    found = judged(deliver)
    text = decode_gsm7(septets).strip(" ").upper()
    assert isinstance(found, AtRun) is text.startswith(("AT", "HAT"))
