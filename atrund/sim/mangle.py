# SPDX-License-Identifier: Apache-2.0
"""Answers spoilt on their way out: garbled, cut, doubled, late, or with something in them that does not belong there.

Rules of this file: only what is said after the command line, and after its prompt if it has one, is spoilt, never the
echo; the command itself is done; the same seed and the same input give the same bytes.
"""

import enum
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from atrund.at.syntax import Command

MANGLES_CAP: Final = 256
"""Commands with a mangle on them at a time."""

ANY: Final = "*"
"""Stands for any command line."""


class How(enum.Enum):
    """What is done to an answer."""

    GARBLE = "garble"
    CUT = "cut"
    DOUBLE = "double"
    DROP = "drop"
    LATE = "late"
    SPLIT = "split"
    NO_FINAL = "no_final"
    EXTRA_FINAL = "extra_final"
    WRONG_FINAL = "wrong_final"
    URC_INSIDE = "urc_inside"
    REBOOT_INSIDE = "reboot_inside"
    NO_PROMPT = "no_prompt"
    TWO_PROMPTS = "two_prompts"


SECONDS: Final = {How.LATE: 5.0, How.SPLIT: 0.05}
"""How late an answer is, and the span between its pieces, where nothing else was asked for."""

OF_PROMPT: Final = {How.NO_PROMPT: 0, How.TWO_PROMPTS: 2}
"""How often a prompt is shown."""


@dataclass(slots=True)
class Mangle:
    """Done to the next `left` answers (None = all). `seconds` belongs to late and split, the rest to urc_inside.

    `position` counts the places between lines: 0 is before the first; one past the end is behind the final result;
    None is any, by the seed.
    """

    how: How
    left: int | None = 1
    seconds: float | None = None
    text: str = "RING"
    position: int | None = None

    @property
    def wait(self) -> float:
        """The span of late and split."""
        return SECONDS.get(self.how, 0.0) if self.seconds is None else self.seconds


class Mangles:
    """The mangles by command: a whole one (`+COPS=?`) goes before a name (`+COPS`), and that before `*`."""

    def __init__(self, seed: int) -> None:
        self._mangles: dict[str, Mangle] = {}
        self._chance = random.Random(seed)  # noqa: S311 - noise that can be had again, no secret

    def add(self, command: str, mangle: Mangle) -> None:
        """Put a mangle on a command; it takes the place of an earlier one. Raises `ValueError` at too many."""
        key = _key(command)
        if key not in self._mangles and len(self._mangles) >= MANGLES_CAP:
            raise ValueError(f"mangles are put on {MANGLES_CAP} commands already")
        self._mangles[key] = mangle

    def clear(self, command: str | None = None) -> None:
        """Take away the mangle of a command, or all."""
        if command is None:
            self._mangles.clear()
        else:
            self._mangles.pop(_key(command), None)

    def take(self, commands: Iterable[Command]) -> Mangle | None:
        """Return what is to be done to the answer of a line, which counts as once."""
        if not self._mangles:
            return None
        for key in (*(key for command in commands for key in (str(command).upper(), command.name)), ANY):
            mangle = self._mangles.get(key)
            if mangle is None:
                continue
            if mangle.left is not None:
                mangle.left -= 1
                if mangle.left <= 0:
                    del self._mangles[key]
            return mangle
        return None

    def spoil(self, mangle: Mangle, pieces: Sequence[bytes], wrong: bytes) -> list[bytes]:
        """Return the bytes that come out for an answer, in pieces.

        `pieces` are its lines, the final result always there and last; `wrong` is another one, framed as that.
        """
        whole = b"".join(pieces)
        spoilt: list[bytes]
        match mangle.how:
            case How.GARBLE:
                spoilt = [self._garbled(whole)]
            case How.CUT:
                spoilt = [whole[: self._chance.randrange(len(whole))]]
            case How.DOUBLE:
                spoilt = [whole, whole]
            case How.DROP:
                spoilt = []
            case How.SPLIT:
                spoilt = self._split(whole)
            case How.NO_FINAL:
                spoilt = list(pieces[:-1])
            case How.EXTRA_FINAL:
                spoilt = [*pieces, pieces[-1]]
            case How.WRONG_FINAL:
                spoilt = [*pieces[:-1], wrong]
            case How.URC_INSIDE:
                spoilt = self._with_urc(mangle, pieces)
            case How.REBOOT_INSIDE:
                spoilt = [whole[: (len(whole) + 1) // 2]]
            case How.LATE | How.NO_PROMPT | How.TWO_PROMPTS:
                spoilt = [whole]
        return spoilt

    def _garbled(self, whole: bytes) -> bytes:
        """About one byte in eight, and at least one, is another than it was."""
        spoilt = bytearray(whole)
        for place in self._chance.sample(range(len(spoilt)), (len(spoilt) + 7) // 8):
            spoilt[place] ^= self._chance.randrange(1, 256)
        return bytes(spoilt)

    def _split(self, whole: bytes) -> list[bytes]:
        pieces = []
        while whole:
            size = self._chance.randint(1, 8)
            pieces.append(whole[:size])
            whole = whole[size:]
        return pieces

    def _with_urc(self, mangle: Mangle, pieces: Sequence[bytes]) -> list[bytes]:
        places = len(pieces)
        at = self._chance.randint(0, places) if mangle.position is None else min(mangle.position, places)
        return [*pieces[:at], f"\r\n{mangle.text}\r\n".encode("latin-1", "replace"), *pieces[at:]]


def _key(command: str) -> str:
    return command.strip().upper().removeprefix("AT")
