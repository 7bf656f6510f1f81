# SPDX-License-Identifier: Apache-2.0
"""Cuts an answer into the user data of at most 15 short messages."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from atrund.sms.alphabet import ESCAPE, Alphabet, encode_text, replace_unsendable
from atrund.sms.dcs import Dcs
from atrund.sms.digest import MAX_SEGMENTS, MAX_TEXT, build_response
from atrund.sms.fields import PduError
from atrund.sms.userdata import Concatenation, Element, UserData

MAX_PARTS: Final = MAX_SEGMENTS


@dataclass(frozen=True, slots=True)
class Parts:
    """An answer as user data in order; `cut` if its end was left out, `replaced` characters became `?`."""

    parts: tuple[UserData, ...]
    cut: bool
    replaced: int


def simple_parts(text: str, dcs_octet: int, reference: int) -> Parts:
    """Cut a text for a coding scheme: one message if it fits, else concatenated with this 8-bit reference.

    An extension escape or a surrogate keeps its other half. What the alphabet lacks becomes `?`. Raises PduError for a
    scheme of compressed text or a number that fits no octet.
    """
    dcs = Dcs(dcs_octet)
    if dcs.compressed:
        raise PduError("TP-DCS", f"0x{dcs_octet:02X} asks for compressed text, which is not written here")
    if not 0 <= reference <= _REFERENCE_MAX:
        raise PduError("TP-UD", f"a reference of {reference} does not fit an octet")
    alphabet = dcs.alphabet
    sendable, replaced = replace_unsendable(text, alphabet)
    content = encode_text(sendable, alphabet)
    if len(content) <= _WHOLE[alphabet]:
        return Parts((UserData(alphabet, content),), cut=False, replaced=replaced)
    pieces, cut = _first_parts(_slices(content, alphabet, _PART[alphabet]))
    parts = (
        UserData(alphabet, piece, (Element.concatenated(Concatenation(reference, len(pieces), index)),))
        for index, piece in enumerate(pieces, 1)
    )
    return Parts(tuple(parts), cut, replaced)


def digest_parts(octets: bytes, password: str, transaction: int, session: int) -> Parts:
    """Cut an answer to a digest request: 8-bit parts, each with an ATRUN header of its own and no user data header.

    Raises DigestError for a number that fits no octet.
    """
    pieces, cut = _first_parts(_slices(octets, Alphabet.EIGHT_BIT, MAX_TEXT))
    pieces = pieces or [b""]
    parts = (
        build_response(password, piece, transaction, session, index=index, total=len(pieces))
        for index, piece in enumerate(pieces, 1)
    )
    return Parts(tuple(UserData(Alphabet.EIGHT_BIT, part) for part in parts), cut, replaced=0)


def _first_parts(slices: Iterator[bytes]) -> tuple[list[bytes], bool]:
    """Return the first parts, and whether there would have been more."""
    pieces = list(islice(slices, MAX_PARTS))
    return pieces, next(slices, None) is not None


def _slices(content: bytes, alphabet: Alphabet, room: int) -> Iterator[bytes]:
    begin = 0
    while begin < len(content):
        end = begin + room
        if end < len(content):
            end -= _torn(content, end, alphabet)
        yield content[begin:end]
        begin = end


def _torn(content: bytes, end: int, alphabet: Alphabet) -> int:
    """Return how many bytes before this end belong to what comes behind it."""
    if alphabet is Alphabet.GSM7:
        return 1 if content[end - 1] == ESCAPE else 0
    if alphabet is Alphabet.UCS2:
        return 2 if content[end - 2] in _HIGH_SURROGATES else 0
    return 0


_REFERENCE_MAX = 0xFF

# First octets of the code units 0xD800 to 0xDBFF, which need another unit behind them.
_HIGH_SURROGATES = range(0xD8, 0xDC)

# 140 octets of user data, with and without the 6 octets of the concatenation header (3GPP TS 23.040 9.2.3.24.1).
_WHOLE = {Alphabet.GSM7: 160, Alphabet.EIGHT_BIT: 140, Alphabet.UCS2: 140}
_PART = {Alphabet.GSM7: 153, Alphabet.EIGHT_BIT: 134, Alphabet.UCS2: 134}
