# SPDX-License-Identifier: Apache-2.0
"""The alphabets, held against the published tables of another implementation and a packer made of bit strings."""

import pytest
from gsm0338 import Codec  # type: ignore[import-untyped]  # publishes no types
from hypothesis import given
from hypothesis import strategies as st

from atrund.sms.alphabet import (
    Alphabet,
    UnsendableError,
    decode_gsm7,
    decode_text,
    encode_gsm7,
    encode_text,
    pack,
    replace_unsendable,
    unpack,
)

EXTENSION = "\f^{}\\[~]|€"
SEPTETS = st.binary(max_size=160).map(lambda octets: bytes(octet & 0x7F for octet in octets))


def pack_by_bits(septets: bytes, fill_bits: int) -> bytes:
    bits = "0" * fill_bits + "".join(f"{septet:07b}"[::-1] for septet in septets)
    bits += "0" * (-len(bits) % 8)
    return bytes(int(bits[begin : begin + 8][::-1], 2) for begin in range(0, len(bits), 8))


@pytest.mark.parametrize("code", [code for code in range(128) if code != 0x1B])
def test_default_table_is_the_oracles(code: int) -> None:
    character, _ = Codec().decode(bytes([code]))
    assert decode_gsm7(bytes([code])) == character
    assert encode_gsm7(character) == bytes([code])


@pytest.mark.parametrize("character", EXTENSION)
def test_extension_table_is_the_oracles(character: str) -> None:
    septets, _ = Codec().encode(character)
    assert len(septets) == 2
    assert encode_gsm7(character) == septets
    assert decode_gsm7(septets) == character


def test_every_other_character_is_unsendable() -> None:
    sendable = {decode_gsm7(bytes([code])) for code in range(128)} | set(EXTENSION)
    accepted = {chr(code) for code in range(0x3000) if replace_unsendable(chr(code), Alphabet.GSM7)[1] == 0}
    assert accepted == {character for character in sendable if ord(character) < 0x3000}
    assert "\x1b" not in accepted


@pytest.mark.parametrize(
    ("septets", "text"),
    [
        (b"\x1b\x41", "A"),  # an extension that is not defined: the default table's character
        (b"\x1b\x0d", "\r"),
        (b"\x1b\x1b\x65", " e"),  # the second escape is reserved
        (b"a\x1b", "a "),
        (b"\x00", "@"),
    ],
)
def test_unknown_escapes_read_as_the_standard_says(septets: bytes, text: str) -> None:
    assert decode_gsm7(septets) == text


def test_encoding_names_the_character_and_its_place() -> None:
    with pytest.raises(UnsendableError, match=r"U\+00E7 at position 2 is not in the gsm7 alphabet") as caught:
        encode_gsm7("abç")
    assert (caught.value.character, caught.value.position) == ("ç", 2)


def test_the_error_carries_nothing_else_of_the_text() -> None:
    with pytest.raises(UnsendableError, match=r"U\+20AC at position 7 is not in the 8bit alphabet") as caught:
        encode_text("secret €", Alphabet.EIGHT_BIT)
    assert "secret" not in repr(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("alphabet", "text", "content"),
    [
        (Alphabet.GSM7, "@€", b"\x00\x1b\x65"),
        (Alphabet.EIGHT_BIT, "A\x00ÿ", b"A\x00\xff"),
        (Alphabet.UCS2, "Aж😀", b"\x00A\x04\x36\xd8\x3d\xde\x00"),
    ],
)
def test_texts_both_ways(alphabet: Alphabet, text: str, content: bytes) -> None:
    assert encode_text(text, alphabet) == content
    assert decode_text(content, alphabet) == text


def test_a_lone_surrogate_is_readable_but_not_sendable() -> None:
    assert decode_text(b"\x00A\xd8\x3d\x00B", Alphabet.UCS2) == "A\ufffdB"
    assert decode_text(b"\xde\x00\x00B", Alphabet.UCS2) == "\ufffdB"
    assert decode_text(b"\x00A\x00", Alphabet.UCS2) == "A\ufffd"
    with pytest.raises(UnsendableError, match=r"U\+D83D"):
        encode_text("\ud83d", Alphabet.UCS2)


@pytest.mark.parametrize(
    ("alphabet", "expected"),
    [
        (Alphabet.GSM7, ("a?€???", 4)),
        (Alphabet.EIGHT_BIT, ("aç????", 4)),
        (Alphabet.UCS2, ("aç€ж😀?", 1)),
    ],
)
def test_replacing(alphabet: Alphabet, expected: tuple[str, int]) -> None:
    assert replace_unsendable("aç€ж😀\ud800", alphabet) == expected


def test_a_question_mark_is_not_counted_as_replaced() -> None:
    assert replace_unsendable("AT+COPS?", Alphabet.GSM7) == ("AT+COPS?", 0)


@given(st.text(), st.sampled_from(Alphabet))
def test_what_was_replaced_can_be_sent(text: str, alphabet: Alphabet) -> None:
    sendable, count = replace_unsendable(text, alphabet)
    assert decode_text(encode_text(sendable, alphabet), alphabet) == sendable
    assert len(sendable) == len(text)
    assert (count == 0) == (sendable == text)


@given(SEPTETS)
def test_any_septets_can_be_read(septets: bytes) -> None:
    assert len(decode_gsm7(septets)) <= len(septets)


@given(SEPTETS, st.integers(0, 6))
def test_packing_both_ways(septets: bytes, fill_bits: int) -> None:
    octets = pack(septets, fill_bits)
    assert octets == pack_by_bits(septets, fill_bits)
    assert unpack(octets, len(septets), fill_bits) == septets


def test_no_byte_over_seven_bits_is_a_septet() -> None:
    with pytest.raises(ValueError, match="0x80 is no septet"):
        decode_gsm7(b"\x80")
    with pytest.raises(ValueError, match="0xFF is no septet"):
        pack(b"a\xff")


def test_unpacking_more_than_is_there() -> None:
    with pytest.raises(ValueError, match="1 octets do not hold 1 septets behind 2 fill bits"):
        unpack(b"a", 1, 2)
