# SPDX-License-Identifier: Apache-2.0
"""User data: lengths, headers with fill bits, concatenation, and what fits no message."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrund.sms.alphabet import Alphabet, UnsendableError
from atrund.sms.dcs import Dcs
from atrund.sms.fields import FieldReader, PduError
from atrund.sms.userdata import Concatenation, Element, UserData, decode_user_data

GSM7, EIGHT_BIT, UCS2 = Dcs(0x00), Dcs(0x04), Dcs(0x08)


def read(octets: str, dcs: Dcs = GSM7, *, has_header: bool = False) -> UserData:
    return decode_user_data(FieldReader(bytes.fromhex(octets)), dcs, has_header=has_header)


@pytest.mark.parametrize(
    ("octets", "dcs", "text"),
    [
        ("00", GSM7, ""),
        ("07C8329BFD060100", GSM7, "Hello @"),
        ("07F3B2BDECBEDD00", GSM7, "seven77"),
        ("08E5F4194DC7E170", GSM7, "eight888"),
        ("149BF286B7F16D509BD4E6B5E96D281BE04601", GSM7, "€[]{}\\~^|\f"),
        ("0341FF00", EIGHT_BIT, "Aÿ\x00"),
        ("080041D83DDE000042", UCS2, "A😀B"),
        ("060041D83D0042", UCS2, "A\ufffdB"),
    ],
)
def test_texts_both_ways(octets: str, dcs: Dcs, text: str) -> None:
    user_data = read(octets, dcs)
    assert user_data.text == text
    assert user_data.header is None
    assert user_data.encode() == bytes.fromhex(octets)


def test_septets_and_octets_exclude_each_other() -> None:
    assert (read("0161").septets, read("0161").octets) == (b"a", None)
    assert (read("0161", EIGHT_BIT).septets, read("0161", EIGHT_BIT).octets) == (None, b"a")
    assert (read("020061", UCS2).septets, read("020061", UCS2).octets) == (None, b"\x00a")


def test_compressed_text_is_octets_that_are_not_read() -> None:
    user_data = read("03FFFEFD", Dcs(0x20))
    assert (user_data.octets, user_data.septets, user_data.text, user_data.compressed) == (
        b"\xff\xfe\xfd",
        None,
        "",
        True,
    )
    assert user_data.encode() == bytes.fromhex("03FFFEFD")
    with pytest.raises(PduError, match="TP-DCS: 0x20 asks for compressed text"):
        UserData.from_text("a", Dcs(0x20))


def test_spare_bits_are_not_looked_at() -> None:
    assert read("01E1").text == "a"
    assert read("01E1").encode() == bytes.fromhex("0161")


@pytest.mark.parametrize(
    ("octets", "dcs", "text", "concatenation"),
    [
        ("0A 050003070201 C2E231", GSM7, "abc", Concatenation(7, 2, 1)),  # one fill bit
        ("0C 06080401020202 61F1980C", GSM7, "abcd", Concatenation(0x0102, 2, 2)),  # none
        ("08 050003070201 4142", EIGHT_BIT, "AB", Concatenation(7, 2, 1)),
        ("09 06050423F00B84 4142", EIGHT_BIT, "AB", None),  # ports, left raw
        ("01 00", EIGHT_BIT, "", None),  # a header with nothing in it
        ("02 0000", GSM7, "", None),
        ("08 050003070002 4142", EIGHT_BIT, "AB", None),  # part 2 of none, to be ignored
        ("08 050003070200 4142", EIGHT_BIT, "AB", None),
        ("07 0400020702 4142", EIGHT_BIT, "AB", None),  # too short to tell of a part
        ("0D 0A0003010301 0003020302 4142", EIGHT_BIT, "AB", Concatenation(2, 3, 2)),
    ],
)
def test_headers_both_ways(octets: str, dcs: Dcs, text: str, concatenation: Concatenation | None) -> None:
    user_data = read(octets, dcs, has_header=True)
    assert user_data.text == text
    assert user_data.header is not None
    assert user_data.concatenation == concatenation
    assert user_data.encode() == bytes.fromhex(octets)


def test_ports_are_kept_raw() -> None:
    assert read("09 06050423F00B84 4142", EIGHT_BIT, has_header=True).header == (Element(5, b"\x23\xf0\x0b\x84"),)


def test_no_header_is_no_part() -> None:
    assert read("0161").concatenation is None


@pytest.mark.parametrize(
    ("octets", "dcs", "has_header", "field", "detail"),
    [
        ("", GSM7, False, "TP-UDL", "needs 1 octets, 0 are left"),
        ("A1" + "00" * 141, GSM7, False, "TP-UDL", "161 septets, one message holds 160"),
        ("8D" + "00" * 141, EIGHT_BIT, False, "TP-UDL", "141 octets, one message holds 140"),
        ("0861", GSM7, False, "TP-UDL", "8 septets take 7 octets, 1 are there"),
        ("0361", EIGHT_BIT, False, "TP-UDL", "3 octets take 3 octets, 1 are there"),
        ("016100", EIGHT_BIT, False, "TP-UDL", "1 octets take 1 octets, 2 are there"),
        ("03004100", UCS2, False, "TP-UD", "3 octets are no whole number of UCS-2 characters"),
        ("00", EIGHT_BIT, True, "UDHL", "needs 1 octets, 0 are left"),
        ("0205 00", EIGHT_BIT, True, "UDHL", "needs 5 octets, 1 are left"),
        ("0201 00", EIGHT_BIT, True, "IEIDL", "needs 1 octets, 0 are left"),
        ("04 03000300", EIGHT_BIT, True, "IEIDL", "needs 3 octets, 1 are left"),
        ("0100", GSM7, True, "UDHL", "the header covers 2 septets, TP-UDL has 1"),
    ],
)
def test_inconsistent_lengths_name_the_field(octets: str, dcs: Dcs, has_header: bool, field: str, detail: str) -> None:  # noqa: FBT001 - data
    with pytest.raises(PduError) as caught:
        read(octets, dcs, has_header=has_header)
    assert (caught.value.field, caught.value.detail) == (field, detail)


@pytest.mark.parametrize(
    ("build", "field"),
    [
        (lambda: UserData(Alphabet.GSM7, b"\x80"), "TP-UD"),
        (lambda: UserData(Alphabet.GSM7, b"a" * 161), "TP-UDL"),
        (lambda: UserData(Alphabet.GSM7, b"a" * 159, ()), "TP-UDL"),
        (lambda: UserData(Alphabet.EIGHT_BIT, b"a" * 141), "TP-UDL"),
        (lambda: UserData(Alphabet.EIGHT_BIT, b"a" * 140, ()), "TP-UDL"),
        (lambda: UserData(Alphabet.UCS2, b"a"), "TP-UD"),
        (lambda: Element(256, b""), "IEI"),
        (lambda: Element(0, bytes(256)), "IEIDL"),
        (lambda: Element.concatenated(Concatenation(0x10000, 2, 1)), "TP-UD"),
        (lambda: Element.concatenated(Concatenation(0, 2, 3)), "TP-UD"),
        (lambda: Element.concatenated(Concatenation(0, 256, 1)), "TP-UD"),
    ],
)
def test_values_that_fit_no_message(build: Callable[[], object], field: str) -> None:
    with pytest.raises(PduError) as caught:
        build()
    assert caught.value.field == field


def test_the_most_that_fits() -> None:
    assert len(UserData(Alphabet.GSM7, b"a" * 160).encode()) == 141
    assert len(UserData(Alphabet.GSM7, b"a" * 153, (Element(0, b"\x01\x02\x01"),)).encode()) == 141
    assert len(UserData(Alphabet.EIGHT_BIT, b"a" * 140).encode()) == 141


def test_text_that_the_alphabet_lacks() -> None:
    with pytest.raises(UnsendableError, match=r"U\+0416"):
        UserData.from_text("Ж", GSM7)


@pytest.mark.parametrize(
    "concatenation", [Concatenation(0, 1, 1), Concatenation(255, 15, 15), Concatenation(0x1234, 255, 9)]
)
def test_concatenation_elements_both_ways(concatenation: Concatenation) -> None:
    element = Element.concatenated(concatenation)
    assert element.concatenation == concatenation
    assert element.identifier == (0x00 if concatenation.reference < 256 else 0x08)


@given(st.binary(max_size=150), st.integers(0, 255), st.booleans())
def test_random_octets_are_refused_or_read(octets: bytes, dcs: int, has_header: bool) -> None:  # noqa: FBT001 - data
    try:
        user_data = decode_user_data(FieldReader(octets), Dcs(dcs), has_header=has_header)
    except PduError:
        return
    again = decode_user_data(FieldReader(user_data.encode()), Dcs(dcs), has_header=has_header)
    assert again == user_data
    assert isinstance(user_data.text, str)
