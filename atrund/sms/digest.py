# SPDX-License-Identifier: Apache-2.0
"""The user data of a digest ATRUN SMS, request and response (Telit 80000NT10029a, 2.2, tables 1 and 2).

Where the note is silent: the segment octet of a response holds the index, from 1, in its high nibble and the total in
its low one. The digest of each part is over the text of that part. No error and no repr shows a password or a digest.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

HEADER_LENGTH: Final = 30
MAX_TEXT: Final = 110
"""The text behind the header in a message of 140 octets."""

MAX_SEGMENTS: Final = 15
"""What a nibble counts, and the most messages that an answer may take (80000NT10029a, 2.4)."""


class DigestError(ValueError):
    """User data begins as a digest ATRUN SMS does and goes on otherwise; `field` names where."""

    def __init__(self, field_name: str, detail: str) -> None:
        """Name the field and say what is wrong with it."""
        super().__init__(f"{field_name}: {detail}")
        self.field = field_name
        self.detail = detail


@dataclass(frozen=True, slots=True)
class DigestRequest:
    """A digest request: who may ask is told by `matches` alone."""

    transaction: int
    session: int
    segment: int
    digest: str = field(repr=False)
    text: bytes

    def matches(self, passwords: Sequence[str]) -> int | None:
        """Return the index of the password that the digest was made with, or None (mind that 0 is an index)."""
        return _matches(self.digest, self.text, passwords)


@dataclass(frozen=True, slots=True)
class DigestResponse:
    """A part of a digest answer: part `index` (from 1) of `total`."""

    transaction: int
    session: int
    index: int
    total: int
    digest: str = field(repr=False)
    text: bytes

    def matches(self, passwords: Sequence[str]) -> int | None:
        """Return the index of the password that the digest was made with, or None (mind that 0 is an index)."""
        return _matches(self.digest, self.text, passwords)


def digest(password: str, text: bytes) -> bytes:
    """Return the 24 base64 characters over a password and a text."""
    # A lone surrogate must not raise, for the error would carry the password.
    secret = password.encode(errors="surrogatepass")
    return _md5_base64(_md5_base64(secret) + b":" + _md5_base64(text))


def parse_request(octets: bytes) -> DigestRequest | None:
    """Read the user data of a request, None if it does not begin as one; raises DigestError if it goes on otherwise."""
    if not octets.startswith(_REQUEST):
        return None
    transaction, segment, session, value, text = _parse(octets)
    if segment != _ONLY_SEGMENT:
        raise DigestError("segment", f"is 0x{segment:02X}, must be 0x{_ONLY_SEGMENT:02X}")
    return DigestRequest(transaction, session, segment, value, text)


def parse_response(octets: bytes) -> DigestResponse | None:
    """Read the user data of an answer, None if it does not begin as one; raises DigestError if it goes on otherwise."""
    if not octets.startswith(_RESPONSE):
        return None
    transaction, segment, session, value, text = _parse(octets)
    index, total = segment >> 4, segment & 0x0F
    if not 1 <= index <= total:
        raise DigestError("segment", f"is 0x{segment:02X}, no part can be {index} of {total}")
    return DigestResponse(transaction, session, index, total, value, text)


def build_request(password: str, text: bytes, transaction: int = 0, session: int = 1) -> bytes:
    """Return the user data of a request; raises DigestError for a number out of range or a text over 110 octets."""
    return _build(_REQUEST, password, text, (transaction, _ONLY_SEGMENT, session))


def build_response(
    password: str, text: bytes, transaction: int, session: int, *, index: int = 1, total: int = 1
) -> bytes:
    """Return the user data of a part of an answer; raises DigestError for a bad number or a text over 110 octets."""
    if not 1 <= index <= total <= MAX_SEGMENTS:
        raise DigestError("segment", f"no part can be {index} of {total}, {MAX_SEGMENTS} are the most")
    return _build(_RESPONSE, password, text, (transaction, index << 4 | total, session))


def _parse(octets: bytes) -> tuple[int, int, int, str, bytes]:
    """Return transaction, segment, session, digest and text."""
    if len(octets) < HEADER_LENGTH:
        raise DigestError("header", f"{len(octets)} octets, must be {HEADER_LENGTH}")
    value, text = octets[_DIGEST_AT:HEADER_LENGTH], octets[HEADER_LENGTH:]
    if not _DIGEST_FORM.fullmatch(value):
        raise DigestError("digest", "is not base64 of 16 octets")
    _check_text(text)
    transaction, segment, session = octets[3:_DIGEST_AT]
    return transaction, segment, session, value.decode("ascii"), text


def _build(mark: bytes, password: str, text: bytes, numbers: tuple[int, int, int]) -> bytes:
    for name, number in zip(("transaction", "segment", "session"), numbers, strict=True):
        if not 0 <= number <= _OCTET_MAX:
            raise DigestError(name, f"{number} does not fit an octet")
    _check_text(text)
    return mark + bytes(numbers) + digest(password, text) + text


def _check_text(text: bytes) -> None:
    if len(text) > MAX_TEXT:
        raise DigestError("text", f"{len(text)} octets, one message holds {MAX_TEXT}")


def _matches(value: str, text: bytes, passwords: Sequence[str]) -> int | None:
    given = value.encode("ascii")
    # All are compared, so that the time does not tell which one was right.
    results = [hmac.compare_digest(given, digest(password, text)) for password in passwords]
    return results.index(True) if any(results) else None


def _md5_base64(data: bytes) -> bytes:
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest())


_REQUEST = b"\xd0\xd0\xd0"
_RESPONSE = b"\xd1\xd1\xd1"
_ONLY_SEGMENT = 0x11
_DIGEST_AT = 6
_DIGEST_FORM = re.compile(rb"[A-Za-z0-9+/]{22}==")
_OCTET_MAX = 0xFF
