# SPDX-License-Identifier: Apache-2.0
"""What is told of messages that are no ATRUN SMS, and which of them gives way."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrund.atrun.others import FREE_MIN, RAW_MAX, Kind, give_way, needed, tell
from atrund.sms.digest import build_request, build_response
from atrund.sms.pdu import Address, Concatenation, Dcs, Deliver, Element, Timestamp, UserData
from atrund.sms.report import StatusReport
from atrund.sms.seal import SealKey, seal

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SENDER = Address.parse("+393331234567")
PASSWORD = "1234567890123456"


def pdu(data: UserData, dcs: int = 0, sender: Address = SENDER) -> str:
    return Deliver(sender, Timestamp.of(AT), data, Dcs(dcs)).encode().hex().upper()


def text(words: str, dcs: int = 0, header: tuple[Element, ...] | None = None) -> str:
    return pdu(UserData.from_text(words, Dcs(dcs), header), dcs)


@pytest.mark.parametrize(("words", "dcs"), [("hello [you]", 0), ("ciao\nMario", 4), ("привет", 8)])
def test_a_text_is_told_in_any_alphabet(words: str, dcs: int) -> None:
    told = tell(text(words, dcs))
    assert (told.kind, told.peer, told.sent, told.text) == (Kind.MESSAGE, SENDER.text, AT, words)
    assert (told.raw, told.part, told.withheld, told.fate) == (None, None, False, "")


def test_what_is_no_text_is_told_as_octets() -> None:
    told = tell(pdu(UserData(Dcs(4).alphabet, b"\x00\x01\xff"), 4))
    assert (told.text, told.raw, told.withheld) == (None, b"\x00\x01\xff", False)


def test_what_is_compressed_is_told_as_octets() -> None:
    dcs = Dcs(0x20)
    told = tell(pdu(UserData(dcs.alphabet, b"abc", compressed=True), dcs.octet))
    assert (told.text, told.raw) == (None, b"abc")


def test_a_part_tells_which_it_is() -> None:
    told = tell(text("the second", header=(Element.concatenated(Concatenation(17, 3, 2)),)))
    assert (told.text, told.part) == ("the second", Concatenation(17, 3, 2))


SEALED = seal(SealKey(7, bytes(range(32))), "AT+CSQ", counter=9, time=1_772_366_400)


@pytest.mark.parametrize(("words", "dcs"), [(SEALED, 0), (f" {SEALED.lower()} ", 4), (SEALED, 8), (SEALED[:60], 0)])
def test_pol_3_a_seal_is_told_to_nobody(words: str, dcs: int) -> None:
    """One that was not taken, for the door was not ready for it or its writing, could be sent again by who reads it."""
    told = tell(text(words, dcs))
    assert (told.text, told.raw, told.withheld) == (None, None, True)


def test_pol_3_a_code_that_nobody_took_is_told_to_nobody() -> None:
    assert tell(text("AT+CSQ #755224")).text == "AT+CSQ #****"


@pytest.mark.parametrize("header", [None, (Element.concatenated(Concatenation(1, 2, 1)),)])
@pytest.mark.parametrize(
    "content",
    [build_request(PASSWORD, b"AT"), build_response(PASSWORD, b"OK", 0, 1), b"\xd0\xd0\xd0", b"\xd1\xd1\xd1x"],
)
def test_pol_3_what_begins_as_a_digest_is_told_to_nobody(content: bytes, header: tuple[Element, ...] | None) -> None:
    told = tell(pdu(UserData(Dcs(4).alphabet, content, header), 4))
    assert (told.text, told.raw, told.withheld) == (None, None, True)
    assert "WijCp" not in repr(told)


def test_pol_3_the_mark_counts_in_any_alphabet() -> None:
    dcs = Dcs(8)
    told = tell(pdu(UserData(dcs.alphabet, b"\xd0\xd0\xd0\x00"), 8))
    assert (told.text, told.withheld) == (None, True)


def test_pol_3_secrets_of_a_command_are_masked() -> None:
    told = tell(text("AT+CPIN=1234"))
    assert told.text is not None
    assert "1234" not in told.text


def test_no_repr_shows_what_somebody_wrote() -> None:
    assert "hello" not in repr(tell(text("hello")))
    assert "abc" not in repr(tell(pdu(UserData(Dcs(4).alphabet, b"abc\x00"), 4)))


def test_a_report_tells_what_became_of_whose_message() -> None:
    report = StatusReport(7, SENDER, Timestamp.of(AT), Timestamp.of(AT), 0x46)
    told = tell(report.encode().hex())
    assert (told.kind, told.peer, told.sent) == (Kind.REPORT, SENDER.text, AT)
    assert (told.fate, told.text, told.raw) == ("the validity period is over", None, None)


@pytest.mark.parametrize(
    ("given_", "raw"),
    [("0791", b"\x07\x91"), ("no hex é", "no hex é".encode()), ("", b""), ("00" * 999, bytes(RAW_MAX))],
)
def test_what_can_t_be_read_is_told_as_it_is(given_: str, raw: bytes) -> None:
    told = tell(given_)
    assert (told.kind, told.peer, told.sent, told.text, told.raw) == (Kind.UNREADABLE, "", None, None, raw)


@pytest.mark.parametrize("damaged", ["07D0D0D0", "7d1d1d11", "0d0d0d0x"])
def test_pol_3_a_digest_is_withheld_however_damaged_the_rest_is(damaged: str) -> None:
    told = tell(damaged)
    assert (told.raw, told.withheld) == (None, True)


@given(st.binary(max_size=180).map(bytes.hex) | st.text(max_size=40))
def test_anything_at_all_can_be_told(given_: str) -> None:
    told = tell(given_)
    assert told.kind in Kind
    assert not told.withheld or (told.text, told.raw) == (None, None)


@pytest.mark.parametrize(
    ("used", "total", "leaving", "count"),
    [(0, 10, 0, 0), (7, 10, 0, 0), (8, 10, 0, 1), (9, 10, 0, 2), (10, 10, 0, 3), (10, 10, 2, 1), (10, 10, 5, 0)],
)
def test_room_is_made_with_two_places_left(used: int, total: int, leaving: int, count: int) -> None:
    assert needed(used, total, leaving) == count
    assert count == 0 or total - used <= FREE_MIN


def test_the_oldest_read_one_goes_first_then_the_oldest() -> None:
    """What can't be read counts as oldest."""
    hours = [AT + timedelta(hours=number) for number in range(4)]
    lying = [
        ("new, read", True, hours[3]),
        ("old, unread", False, hours[0]),
        ("old, read", True, hours[1]),
        ("unreadable, unread", False, None),
        ("unreadable, read", True, None),
        ("new, unread", False, hours[2]),
    ]
    order = ["unreadable, read", "old, read", "new, read", "unreadable, unread", "old, unread", "new, unread"]
    for count in range(8):
        assert give_way(lying, count) == order[:count]
