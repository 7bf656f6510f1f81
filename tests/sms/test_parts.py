# SPDX-License-Identifier: Apache-2.0
"""Cutting an answer (SMS-8): one message if it fits, else at most 15, and no character torn."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrund.sms.alphabet import Alphabet, replace_unsendable
from atrund.sms.dcs import Dcs
from atrund.sms.digest import DigestError, parse_response
from atrund.sms.fields import PduError
from atrund.sms.parts import digest_parts, simple_parts
from atrund.sms.userdata import Concatenation

GSM7, EIGHT_BIT, UCS2 = 0x00, 0x15, 0x08
PASSWORD = "1234567890123456"


def texts(text: str, dcs: int) -> list[str]:
    return [part.text for part in simple_parts(text, dcs, 7).parts]


def test_the_notes_answer_is_one_message() -> None:
    parts = simple_parts('\r\n+COPS: 0,0,"vodafone IT"\r\n\r\nOK\r\n', GSM7, 7)
    assert (len(parts.parts), parts.cut, parts.replaced) == (1, False, 0)
    assert parts.parts[0].header is None


def test_nothing_is_one_empty_message() -> None:
    assert texts("", GSM7) == [""]


@pytest.mark.parametrize(
    ("dcs", "character", "whole", "part"), [(GSM7, "a", 160, 153), (EIGHT_BIT, "é", 140, 134), (UCS2, "ж", 70, 67)]
)
def test_the_bounds_of_one_message(dcs: int, character: str, whole: int, part: int) -> None:
    assert texts(character * whole, dcs) == [character * whole]
    assert texts(character * (whole + 1), dcs) == [character * part, character * (whole + 1 - part)]
    assert texts(character * (2 * part), dcs) == [character * part] * 2
    assert texts(character * (2 * part + 1), dcs) == [character * part] * 2 + [character]


def test_parts_tell_which_they_are() -> None:
    parts = simple_parts("a" * 400, GSM7, 0xA5).parts
    assert [part.concatenation for part in parts] == [Concatenation(0xA5, 3, index) for index in (1, 2, 3)]
    assert {part.alphabet for part in parts} == {Alphabet.GSM7}
    assert all(len(part.encode()) <= 141 for part in parts)


@pytest.mark.parametrize("before", [151, 152, 153])
def test_an_escape_keeps_its_character(before: int) -> None:
    text = "a" * before + "€" + "b" * 20
    first, second = texts(text, GSM7)
    assert first + second == text
    assert second.startswith("€") == (before > 151)


@pytest.mark.parametrize("before", [65, 66, 67])
def test_a_surrogate_keeps_its_other_half(before: int) -> None:
    text = "a" * before + "😀" + "b" * 20
    first, second = texts(text, UCS2)
    assert first + second == text
    assert second.startswith("😀") == (before > 65)


def test_what_the_alphabet_lacks_is_counted() -> None:
    parts = simple_parts("Ж€\ud800", GSM7, 0)
    assert (parts.parts[0].text, parts.replaced) == ("?€?", 2)


@pytest.mark.parametrize(("dcs", "part"), [(GSM7, 153), (EIGHT_BIT, 134), (UCS2, 67)])
def test_fifteen_are_the_most(dcs: int, part: int) -> None:
    full = simple_parts("a" * (15 * part), dcs, 0)
    assert (len(full.parts), full.cut) == (15, False)
    more = simple_parts("a" * (15 * part + 1), dcs, 0)
    assert (len(more.parts), more.cut) == (15, True)
    assert more.parts == full.parts


@pytest.mark.parametrize(("dcs", "reference", "field"), [(0x20, 0, "TP-DCS"), (256, 0, "TP-DCS"), (0, 256, "TP-UD")])
def test_what_can_not_be_sent(dcs: int, reference: int, field: str) -> None:
    with pytest.raises(PduError) as caught:
        simple_parts("a", dcs, reference)
    assert caught.value.field == field


@given(
    st.text(st.sampled_from("ab€[éж😀"), max_size=400),
    st.sampled_from([GSM7, EIGHT_BIT, UCS2, 0xF1, 0xE0]),
    st.integers(0, 255),
)
def test_parts_put_together_are_the_text(text: str, dcs: int, reference: int) -> None:
    parts = simple_parts(text, dcs, reference)
    assert "".join(part.text for part in parts.parts) == replace_unsendable(text, Dcs(dcs).alphabet)[0]
    assert not parts.cut
    assert all(len(part.encode()) <= 141 for part in parts.parts)


def test_a_digest_answer_in_one() -> None:
    answer = b'\r\n+COPS: 0,0,"vodafone IT"\r\n\r\nOK\r\n'
    parts = digest_parts(answer, PASSWORD, 0, 1)
    (only,) = parts.parts
    assert only.octets == b"\xd1\xd1\xd1\x00\x11\x01Junra7r0kIEcH9qV542n3Q==" + answer
    assert only.header is None
    assert (parts.cut, parts.replaced) == (False, 0)


@pytest.mark.parametrize(("length", "count"), [(0, 1), (1, 1), (110, 1), (111, 2), (1650, 15)])
def test_digest_parts_have_a_header_each(length: int, count: int) -> None:
    answer = bytes(index & 0xFF for index in range(length))
    parts = digest_parts(answer, PASSWORD, 3, 9)
    assert (len(parts.parts), parts.cut) == (count, False)
    responses = [parse_response(part.octets or b"") for part in parts.parts]
    found = [response for response in responses if response is not None]
    assert [(response.index, response.total) for response in found] == [(index + 1, count) for index in range(count)]
    assert {(response.transaction, response.session) for response in found} == {(3, 9)}
    assert all(response.matches([PASSWORD]) == 0 for response in found)
    assert b"".join(response.text for response in found) == answer
    assert all(part.header is None and len(part.content) <= 140 for part in parts.parts)


def test_a_digest_answer_is_cut_at_fifteen() -> None:
    parts = digest_parts(bytes(1651), PASSWORD, 0, 1)
    assert (len(parts.parts), parts.cut) == (15, True)


def test_digest_numbers_are_octets() -> None:
    with pytest.raises(DigestError, match="session: 256"):
        digest_parts(b"OK", PASSWORD, 0, 256)
