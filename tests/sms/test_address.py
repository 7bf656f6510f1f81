# SPDX-License-Identifier: Apache-2.0
"""Addresses: every type, both ways, and what is refused."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrund.sms.address import Address, TypeOfNumber, decode_address, decode_service_centre
from atrund.sms.fields import FieldReader, PduError

FIELD = "TP-OA"
DIGITS = st.text("0123456789*#abc", min_size=1, max_size=20)
NUMBER_TYPES = st.sampled_from([ton for ton in TypeOfNumber if ton is not TypeOfNumber.ALPHANUMERIC])


def read(octets: str) -> Address:
    reader = FieldReader(bytes.fromhex(octets))
    address = decode_address(reader, FIELD)
    assert reader.left == 0
    return address


def refusal(octets: str) -> str:
    with pytest.raises(PduError) as caught:
        read(octets)
    assert caught.value.field == FIELD
    return caught.value.detail


@pytest.mark.parametrize(
    ("octets", "text", "ton", "plan"),
    [
        ("0C91934386867611", "+393468686711", TypeOfNumber.INTERNATIONAL, 1),
        ("0B916407281553F8", "+46708251358", TypeOfNumber.INTERNATIONAL, 1),
        ("058121 43F5", "12345", TypeOfNumber.UNKNOWN, 1),
        ("04A12143", "1234", TypeOfNumber.NATIONAL, 1),
        ("03B121F3", "123", TypeOfNumber.NETWORK_SPECIFIC, 1),
        ("0BC87238880900F1", "27838890001", TypeOfNumber.SUBSCRIBER, 8),
        ("02E021", "12", TypeOfNumber.ABBREVIATED, 0),
        ("02F021", "12", TypeOfNumber.RESERVED, 0),
    ],
)
def test_every_type_of_number(octets: str, text: str, ton: TypeOfNumber, plan: int) -> None:
    address = read(octets)
    assert (address.text, address.ton, address.plan, address.is_alphanumeric) == (text, ton, plan, False)
    assert address.encode() == bytes.fromhex(octets)
    assert str(address) == text


def test_digits_beyond_nine() -> None:
    assert read("0581BADCFE").text == "*#abc"


@pytest.mark.parametrize(
    ("octets", "text"),
    [
        ("0DD0D4323B4DBFDD00", "Telit77"),  # 7 characters in 7 octets: no '@' behind them
        ("0ED0D4323B4D6FBFC9", "Telitmod"),  # 8 characters in 7 octets
        ("0ED0F3B2BDECBE0100", "seven7@@"),  # an '@' that is one
        ("09D0D4323B4D07", "Telit"),
        ("0AD0D4323B4D07", "Telit"),  # rounded up to whole octets, as some service centres count
        ("00D0", ""),
    ],
)
def test_names(octets: str, text: str) -> None:
    address = read(octets)
    assert (address.text, address.ton, address.is_alphanumeric) == (text, TypeOfNumber.ALPHANUMERIC, True)
    assert address.encode() == bytes.fromhex(octets)


def test_an_empty_international_address_is_no_plus() -> None:
    assert read("0091").text == ""


def test_a_name_that_spells_a_number_is_still_a_name() -> None:
    spelled = Address.alphanumeric("+3934")
    assert spelled.text == "+3934"
    assert spelled.is_alphanumeric
    assert spelled != Address.parse("+3934")


@pytest.mark.parametrize("text", ["", "a", "Telit77", "Telitmod", "seven7@@", "eleven @ 11", "[€]"])
def test_building_a_name(text: str) -> None:
    address = Address.alphanumeric(text)
    assert address.text == text
    assert read(address.encode().hex()) == address


@pytest.mark.parametrize(
    ("octets", "detail"),
    [
        ("", "needs 1 octets, 0 are left"),
        ("03", "needs 1 octets, 0 are left"),
        ("039121", "needs 2 octets, 1 are left"),
        ("15910000000000000000000000", "a length of 21 semi-octets, 20 are allowed"),
        ("021121", "the type of address is 0x11, bit 7 must be 1"),
        ("0291F1", "0xF among the 2 digits"),
        ("039121 43", "0x4 behind an odd number of digits, must be 0xF"),
    ],
)
def test_what_is_refused(octets: str, detail: str) -> None:
    assert refusal(octets) == detail


@pytest.mark.parametrize("octets", ["00", "0791934329002000", "04 85 2143F5", "0191", "0B9121436587092143658709"])
def test_service_centre_both_ways(octets: str) -> None:
    reader = FieldReader(bytes.fromhex(octets))
    address = decode_service_centre(reader)
    assert reader.left == 0
    assert (b"\x00" if address is None else address.encode_service_centre()) == bytes.fromhex(octets)


def test_service_centre_of_an_odd_number_of_digits() -> None:
    address = decode_service_centre(FieldReader(bytes.fromhex("048121 43F5")))
    assert address == Address.parse("12345")


@pytest.mark.parametrize(
    ("octets", "detail"),
    [
        ("", "needs 1 octets, 0 are left"),
        ("0C91", "a length of 12 octets, 11 are allowed"),
        ("0391", "needs 2 octets, 0 are left"),
        ("039121", "needs 2 octets, 1 are left"),
        ("0391F121", "0xF among the 4 digits"),
        ("02D041", "a service centre has a number, not a name"),
    ],
)
def test_service_centre_refused(octets: str, detail: str) -> None:
    with pytest.raises(PduError) as caught:
        decode_service_centre(FieldReader(bytes.fromhex(octets)))
    assert (caught.value.field, caught.value.detail) == ("SCA", detail)


@pytest.mark.parametrize(
    ("build", "detail"),
    [
        (lambda: Address.parse(""), "a number needs at least one digit"),
        (lambda: Address.parse("+"), "a number needs at least one digit"),
        (lambda: Address.parse("+39 346"), "' ' is no digit of an address; 0 to 9 * # a b c are"),
        (lambda: Address.parse("++39"), "'+' is no digit of an address; 0 to 9 * # a b c are"),
        (lambda: Address.parse("1" * 21), "a length of 21 semi-octets, 20 are allowed"),
        (lambda: Address.number("1", plan=16), "a numbering plan of 16, 0 to 15 are allowed"),
        (lambda: Address.alphanumeric("twelve chars"), "a length of 21 semi-octets, 20 are allowed"),
        (lambda: Address.alphanumeric("Ж"), "U+0416 at position 0 is not in the gsm7 alphabet"),
        (lambda: Address(0x91, 3, b"\x21"), "3 semi-octets do not fill 1 octets"),
        (lambda: Address(0x191, 0, b""), "the type of address is 0x191, bit 7 must be 1"),
    ],
)
def test_building_refused(build: Callable[[], Address], detail: str) -> None:
    with pytest.raises(PduError) as caught:
        build()
    assert (caught.value.field, caught.value.detail) == ("Address", detail)


def test_repr_is_readable() -> None:
    assert repr(Address.parse("+39346")) == "Address('+39346', INTERNATIONAL, plan=1)"


@given(DIGITS, NUMBER_TYPES, st.integers(0, 15))
def test_numbers_both_ways(digits: str, ton: TypeOfNumber, plan: int) -> None:
    address = Address.number(digits, ton, plan)
    assert address.text.removeprefix("+") == digits
    assert read(address.encode().hex()) == address
    assert decode_service_centre(FieldReader(address.encode_service_centre())) == address


@given(st.binary(max_size=14))
def test_random_octets_are_refused_or_given_back(octets: bytes) -> None:
    reader = FieldReader(octets)
    try:
        address = decode_address(reader, FIELD)
    except PduError as error:
        assert error.field == FIELD
    else:
        assert address.encode() == octets[: len(octets) - reader.left]
        assert isinstance(address.text, str)
