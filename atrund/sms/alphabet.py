# SPDX-License-Identifier: Apache-2.0
"""The three alphabets of a short message (3GPP TS 23.038) and the packing of septets.

GSM 7-bit text is handled unpacked, one septet a byte; packing into octets is a step of its own, because a user data
header makes it begin in the middle of an octet.
"""

from enum import Enum
from typing import Final

ESCAPE: Final = 0x1B
"""The septet that makes the next one a character of the extension table (3GPP TS 23.038 6.2.1)."""


class Alphabet(Enum):
    """What the octets of a text mean (3GPP TS 23.038 4)."""

    GSM7 = "gsm7"
    EIGHT_BIT = "8bit"
    UCS2 = "ucs2"


class UnsendableError(ValueError):
    """A text holds a character that its alphabet lacks."""

    def __init__(self, character: str, position: int, alphabet: Alphabet) -> None:
        """Name the character, where it stands (from 0) and the alphabet that lacks it."""
        super().__init__(f"U+{ord(character):04X} at position {position} is not in the {alphabet.value} alphabet")
        self.character = character
        self.position = position


def encode_text(text: str, alphabet: Alphabet) -> bytes:
    """Code a text: septets one a byte, Latin-1 octets, or big-endian UTF-16; raises UnsendableError."""
    if alphabet is Alphabet.GSM7:
        return encode_gsm7(text)
    try:
        return text.encode(_CODECS[alphabet])
    except UnicodeEncodeError as error:
        # "from None": the codec's error carries the whole text along.
        raise UnsendableError(text[error.start], error.start, alphabet) from None


def decode_text(content: bytes, alphabet: Alphabet) -> str:
    """Read what encode_text wrote.

    Every content can be read but septets over 0x7F: a lone surrogate or half a code unit of UCS-2 becomes U+FFFD, as a
    sender may have torn a pair between two messages.
    """
    if alphabet is Alphabet.GSM7:
        return decode_gsm7(content)
    return content.decode(_CODECS[alphabet], errors="replace")


def encode_gsm7(text: str) -> bytes:
    """Code a text in the GSM 7-bit default alphabet with its extensions, one septet a byte; raises UnsendableError."""
    septets = bytearray()
    for position, character in enumerate(text):
        code = _GSM7_CODES.get(character)
        if code is None:
            raise UnsendableError(character, position, Alphabet.GSM7)
        septets += code
    return bytes(septets)


def decode_gsm7(septets: bytes) -> str:
    """Read unpacked septets; raises ValueError only for a byte over 0x7F.

    An extension that is not defined reads as the character of the default table, a second escape or an escape with
    nothing behind it as a space (3GPP TS 23.038 6.2.1 and 6.2.1.1).
    """
    characters = []
    escaped = False
    for septet in septets:
        if septet > _SEPTET_MASK:
            raise ValueError(f"0x{septet:02X} is no septet")
        if escaped:
            characters.append(" " if septet == ESCAPE else _EXTENSION.get(septet, _DEFAULT[septet]))
            escaped = False
        elif septet == ESCAPE:
            escaped = True
        else:
            characters.append(_DEFAULT[septet])
    if escaped:
        characters.append(" ")
    return "".join(characters)


def pack(septets: bytes, fill_bits: int = 0) -> bytes:
    """Pack septets into octets, lowest bit first, behind so many zero bits (3GPP TS 23.038 6.1.2.1).

    Spare bits are zero; raises ValueError for a byte over 0x7F.
    """
    value = 0
    for septet in reversed(septets):
        if septet > _SEPTET_MASK:
            raise ValueError(f"0x{septet:02X} is no septet")
        value = value << 7 | septet
    return (value << fill_bits).to_bytes(packed_length(len(septets), fill_bits), "little")


def unpack(octets: bytes, count: int, fill_bits: int = 0) -> bytes:
    """Take so many septets out of octets, behind so many fill bits; raises ValueError if there are not so many."""
    if packed_length(count, fill_bits) > len(octets):
        raise ValueError(f"{len(octets)} octets do not hold {count} septets behind {fill_bits} fill bits")
    value = int.from_bytes(octets, "little") >> fill_bits
    return bytes(value >> 7 * index & _SEPTET_MASK for index in range(count))


def packed_length(count: int, fill_bits: int = 0) -> int:
    """Return how many octets so many septets take behind so many fill bits."""
    return (count * 7 + fill_bits + 7) // 8


def replace_unsendable(text: str, alphabet: Alphabet) -> tuple[str, int]:
    """Put `?` in the place of every character that the alphabet lacks; return the text and how many were replaced."""
    characters = [character if _is_sendable(character, alphabet) else "?" for character in text]
    replaced = sum(new != old for new, old in zip(characters, text, strict=True))
    return "".join(characters), replaced


def _is_sendable(character: str, alphabet: Alphabet) -> bool:
    if alphabet is Alphabet.GSM7:
        return character in _GSM7_CODES
    if alphabet is Alphabet.EIGHT_BIT:
        return ord(character) <= _LATIN_1_LAST
    return not _SURROGATE_FIRST <= ord(character) <= _SURROGATE_LAST


_SEPTET_MASK = 0x7F
_LATIN_1_LAST = 0xFF
_SURROGATE_FIRST, _SURROGATE_LAST = 0xD800, 0xDFFF

# UCS-2 is read as UTF-16, as every phone sends characters beyond the first plane.
_CODECS: dict[Alphabet, str] = {Alphabet.EIGHT_BIT: "latin-1", Alphabet.UCS2: "utf-16-be"}

# 3GPP TS 23.038 6.2.1, sixteen codes a line. Code 0x1B is the escape and stands for no character of its own.
_DEFAULT: str = (
    "@£$¥èéùìòÇ\nØø\rÅå"
    "Δ_ΦΓΛΩΠΨΣΘΞ\x1bÆæßÉ"
    " !\"#¤%&'()*+,-./"
    "0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNO"
    "PQRSTUVWXYZÄÖÑÜ§"
    "¿abcdefghijklmno"
    "pqrstuvwxyzäöñüà"
)

# 3GPP TS 23.038 6.2.1.1.
_EXTENSION: dict[int, str] = {
    0x0A: "\f",
    0x14: "^",
    0x28: "{",
    0x29: "}",
    0x2F: "\\",
    0x3C: "[",
    0x3D: "~",
    0x3E: "]",
    0x40: "|",
    0x65: "€",
}

_GSM7_CODES: dict[str, bytes] = {
    **{character: bytes([code]) for code, character in enumerate(_DEFAULT) if code != ESCAPE},
    **{character: bytes([ESCAPE, code]) for code, character in _EXTENSION.items()},
}
