# SPDX-License-Identifier: Apache-2.0
"""Codes that a person types behind a command, `AT+CSQ #123456`: HOTP of an authenticator app (RFC 4226).

Rules of this file: a code is right once; a few that were lost on the way are passed over (RFC 4226 7.2). Whoever sends
wrong ones is not shut out, for a sender can be forged and the real one would be: after some in a row one code alone is
not looked at any more, and two that follow one another are wanted. These are as good as one of twelve digits, so nobody
guesses them, and they find a telephone again whose counter went far ahead (7.4).
"""

import base64
import enum
import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

DIGITS: Final = 6
"""What every authenticator app shows."""
LOOK_AHEAD: Final = 5
"""Codes from the next one on that are right: each more makes guessing as much easier (RFC 4226 7.2, appendix E)."""
LOOK_AHEAD_FOR_TWO: Final = 100
"""The same for two in a row: a guess then hits once in ten thousand million."""
LOOK_BACK: Final = 10
"""Codes that were used, told from wrong ones in the record: a repeated SMS is no guess."""
WRONG_MAX: Final = 5
"""Wrong codes in a row after which two are wanted (RFC 4226 7.3): guessing then succeeds once in 40,000 such rows."""
SECRET_OCTETS: Final = range(16, 65)
"""RFC 4226 section 4, R6 demands 128 bits; SHA-1 takes no more than 64 octets as they are (RFC 2104, section 2)."""
ALIKE: Final = 7
"""Last digits by which two ways to write one number are known to be one subscriber's; shorter ones must be equal."""


class Found(enum.Enum):
    """What was found about the codes of a message: the words of the record."""

    RIGHT = "the code is right"
    USED = "the code was used before"
    WRONG = "the code is wrong"
    MISSING = "no code, and one is wanted"
    TWO_WANTED = "one code, and after so many wrong ones two in a row are wanted"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a number's codes are used up: the counter of the next one, and how many wrong ones came in a row."""

    next: int = 0
    wrong: int = 0


def read_secret(text: str) -> bytes:
    """Read a secret as authenticator apps do: base32, blanks and small letters allowed. Raises ValueError."""
    digits = text.replace(" ", "").rstrip("=").upper()
    try:
        secret = base64.b32decode(digits + "=" * (-len(digits) % 8))
    except ValueError:
        raise ValueError(SECRET_FORM) from None
    if len(secret) not in SECRET_OCTETS:
        raise ValueError(SECRET_FORM)
    return secret


SECRET_FORM: Final = f"base32 of {SECRET_OCTETS[0]} to {SECRET_OCTETS[-1]} octets, 26 letters and digits or more"


def hotp(secret: bytes, counter: int) -> str:
    """Return the code of a counter (RFC 4226 5.3)."""
    digest = hmac.new(secret, counter.to_bytes(8, "big"), hashlib.sha1).digest()
    offset = digest[-1] & 0x0F
    number = int.from_bytes(digest[offset : offset + 4], "big") & 0x7FFFFFFF
    return f"{number % 10**DIGITS:0{DIGITS}}"


def split(text: str) -> tuple[str, tuple[str, ...]]:
    """Return a text without the one or two codes at its end, and these; nothing is cut where there are none."""
    found = _CODES.search(text)
    if found is None:
        return text, ()
    return text[: found.start()], tuple(code.replace(" ", "") for code in found.groups() if code)


def check(secret: bytes, progress: Progress, codes: Sequence[str]) -> tuple[Progress, Found]:
    """Judge the codes of a message, two at most; returns how far they are used up then."""
    if not codes:
        return progress, Found.MISSING
    two = len(codes) > 1
    if not two and progress.wrong >= WRONG_MAX:
        return progress, Found.TWO_WANTED
    ahead = range(progress.next, progress.next + (LOOK_AHEAD_FOR_TWO if two else LOOK_AHEAD))
    at = _find(secret, codes, ahead)
    if at is not None:
        return Progress(at + len(codes)), Found.RIGHT
    if _find(secret, codes, range(max(0, progress.next - LOOK_BACK), progress.next)) is not None:
        return progress, Found.USED
    return Progress(progress.next, min(progress.wrong + 1, WRONG_MAX)), Found.WRONG


def entry_of(sender: str, numbers: Iterable[str]) -> str | None:
    """Return which of these numbers a sender is, in whatever way its network writes it, or None.

    `+39346…`, `0039346…` and `346…` are one subscriber: a white list that has another way to write a number must not
    make the code go away.
    """
    own = _digits(sender)
    for number in numbers:
        other = _digits(number)
        short, long = sorted((own, other), key=len)
        if own == other or (len(short) >= ALIKE and long.endswith(short)):
            return number
    return None


_CODES: Final = re.compile(r" +#([0-9]{3} ?[0-9]{3})(?: *#([0-9]{3} ?[0-9]{3}))? *(?:\r\n?|\n)?\Z")
"""The apps show six digits as two groups of three."""


def _find(secret: bytes, codes: Sequence[str], counters: range) -> int | None:
    # All are compared, whichever is right, so that the time tells nothing.
    given = "".join(codes).encode("ascii")
    results = [
        hmac.compare_digest("".join(hotp(secret, at + step) for step in range(len(codes))).encode("ascii"), given)
        for at in counters
    ]
    return counters[results.index(True)] if any(results) else None


def _digits(number: str) -> str:
    return number.removeprefix("+").lstrip("0")
