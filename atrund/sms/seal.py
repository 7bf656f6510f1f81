# SPDX-License-Identifier: Apache-2.0
"""A sealed SMS: text whose front carries a key's number, a counter, a time, and an HMAC-SHA-256 over all of it.

Rules of this file: one form for every alphabet, for base32 and the mark are the same in all of them, and it does not
begin as a simple ATRUN SMS does, so that whoever knows no seals runs nothing. No error and no repr shows a key or a
seal. docs/sms-security.md has the format.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

HEADER_LENGTH: Final = 43
"""Characters in front of the text: mark, 40 of base32, blank. 117 are left of an SMS in the GSM 7-bit alphabet."""
KEY_OCTETS: Final = 32
"""As long as what HMAC-SHA-256 gives: a shorter key is weaker, a longer one no stronger (RFC 2104, section 3)."""
MAC_OCTETS: Final = 16
"""Half of what HMAC-SHA-256 gives, the least that RFC 2104, section 5 recommends; RFC 4868 cuts it alike."""
KEY_NUMBERS: Final = range(256)
COUNTERS: Final = range(2**32)
TIMES: Final = range(2**32)
"""Seconds since 1970, up to the year 2106."""
WINDOW: Final = 32
"""Counters below the highest that may still come: SMS overtake one another (RFC 4303, section 3.4.3)."""
AHEAD: Final = 300.0
"""Seconds by which the sender's clock may be ahead of the one that judges."""


class SealError(ValueError):
    """A seal that can't be made, or a key that is none; the text never shows the key."""


@dataclass(frozen=True, slots=True)
class SealKey:
    """A key of one sender and one gateway: `number` tells it from others there."""

    number: int
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Sealed:
    """A text with a seal in front; whether that is a good one is told by `key_of` alone. `time`: seconds since 1970."""

    number: int
    counter: int
    time: int
    mac: bytes = field(repr=False)
    text: str = field(repr=False)

    def key_of(self, keys: Iterable[SealKey]) -> SealKey | None:
        """Return the key that the seal was made with, or None."""
        # All are compared, so that the time does not tell which of them there are.
        found = [
            (hmac.compare_digest(self.mac, _mac(key, self.counter, self.time, self.text)), key)
            for key in keys
            if key.number == self.number
        ]
        return next((key for right, key in found if right), None)


@dataclass(frozen=True, slots=True)
class Window:
    """Which counters of a key were taken: the highest, and as bits those up to `WINDOW` below it, bit 0 the highest."""

    highest: int = 0
    seen: int = 0

    def take(self, counter: int) -> "Window | None":
        """Return the window after a counter was taken, or None where it was taken before or is too far below."""
        ahead = counter - self.highest
        if ahead > 0:
            return Window(counter, (self.seen << min(ahead, WINDOW) | 1) & _ALL_SEEN)
        if -ahead >= WINDOW or self.seen >> -ahead & 1:
            return None
        return Window(self.highest, self.seen | 1 << -ahead)


def seal(key: SealKey, text: str, *, counter: int, time: int) -> str:
    """Return the sealed text; raises SealError for a number out of range and an empty text. Blanks around it go."""
    for name, number, span in (("counter", counter, COUNTERS), ("time", time, TIMES)):
        if number not in span:
            raise SealError(f"the {name} {number} is out of range, 0 to {span[-1]}")
    text = text.strip(" ")
    if not text:
        raise SealError("no text to seal")
    front = _front(key.number, counter, time) + _mac(key, counter, time, text)
    return f"{_MARK}{base64.b32encode(front).decode('ascii')} {text}"


def parse_sealed(text: str) -> Sealed | None:
    """Read a text that is in the form of a sealed one, in capitals or not; None for any other."""
    found = _FORM.fullmatch(text.strip(" "))
    if found is None:
        return None
    front = base64.b32decode(found[1], casefold=True)
    counter, time = (int.from_bytes(front[begin : begin + 4], "big") for begin in (1, 5))
    return Sealed(front[0], counter, time, front[_FRONT_OCTETS:], found[2])


def is_sealed(text: str) -> bool:
    """Whether a text begins as a sealed one does, whatever is behind the seal."""
    return _BEGINNING.match(text.lstrip(" ")) is not None


def untimely(sealed: Sealed, now: float | None, max_age: float) -> str:
    """Return why a seal does not go with the time `now`, or "": both in seconds, `max_age` 0 for none.

    `now` is the wall time where that is known, else the service centre's stamp; without either, None, only the counter
    tells (REQ-11).
    """
    if now is None or not max_age:
        return ""
    if now - sealed.time > max_age:
        return "was sealed too long ago"
    return "was sealed in the future" if sealed.time - now > AHEAD else ""


def read_key(text: str) -> SealKey:
    """Read the content of a key file, `<number>:<64 hex digits>`. Raises SealError."""
    found = _KEY.fullmatch(text)
    if found is None or int(found[1]) not in KEY_NUMBERS:
        raise SealError(KEY_FORM)
    return SealKey(int(found[1]), bytes.fromhex(found[2]))


def write_key(key: SealKey) -> str:
    """Return the content of a key file."""
    return f"{key.number}:{key.secret.hex()}"


KEY_FORM: Final = f"a number from 0 to {KEY_NUMBERS[-1]}, a colon and {2 * KEY_OCTETS} hex digits"

_MARK: Final = "S1"
_FRONT_OCTETS: Final = 9
_FORM: Final = re.compile(r"[Ss]1([A-Za-z2-7]{40}) +(.+)", re.DOTALL)
_BEGINNING: Final = re.compile(r"[Ss]1[A-Za-z2-7]{40}(?![A-Za-z0-9])")
_KEY: Final = re.compile(r"([0-9]{1,3}):([0-9a-fA-F]{64})")
_DOMAIN: Final = b"atrund sealed SMS 1\0"
"""In front of all that is hashed, so that no other use of the same key gives a seal."""
_ALL_SEEN: Final = (1 << WINDOW) - 1


def _front(number: int, counter: int, time: int) -> bytes:
    return bytes([number]) + counter.to_bytes(4, "big") + time.to_bytes(4, "big")


def _mac(key: SealKey, counter: int, time: int, text: str) -> bytes:
    # A lone surrogate, which a UCS-2 text can hold, must not raise.
    content = _DOMAIN + _front(key.number, counter, time) + text.encode(errors="surrogatepass")
    return hmac.new(key.secret, content, hashlib.sha256).digest()[:MAC_OCTETS]
