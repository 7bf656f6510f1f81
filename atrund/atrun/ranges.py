# SPDX-License-Identifier: Apache-2.0
"""The numbers that a parameter may have: how they are read, and how a test form shows them (V.250 5.4.4)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

Range = range | tuple[int, ...]

FLAG: Final = range(2)
"""0 off, 1 on."""
_DIGITS_MAX: Final = 10
"""Longer numbers are in no range here, and Python need not look at them."""


@dataclass(frozen=True, slots=True)
class Values:
    """A setting of one number or several: the range of each, and the defaults."""

    ranges: tuple[Range, ...]
    defaults: tuple[int, ...]

    def read(self, given: Sequence[str]) -> tuple[int, ...] | None:
        """Return the values that were given, defaults where one is left out; None when one is out of range."""
        if not 0 < len(given) <= len(self.ranges):
            return None
        values = list(self.defaults)
        for at, text in enumerate(given):
            if text == "" and at > 0:
                continue
            number = read_number(text, self.ranges[at])
            if number is None:
                return None
            values[at] = number
        return tuple(values)

    def allows(self, values: Sequence[object]) -> bool:
        """Whether these are as many whole numbers as it has, each within its range."""
        return len(values) == len(self.ranges) and all(
            type(value) is int and value in allowed for value, allowed in zip(values, self.ranges, strict=True)
        )

    def shown(self) -> str:
        """Return the ranges as a test form shows them: `(0-2),(0,1)`."""
        return ",".join(map(shown, self.ranges))


def read_number(text: str, allowed: Range) -> int | None:
    """Return a decimal number within the range, or None; leading zeros change nothing."""
    if not (text.isascii() and text.isdecimal()):
        return None
    digits = text.lstrip("0") or "0"
    if len(digits) > _DIGITS_MAX or int(digits) not in allowed:
        return None
    return int(digits)


def shown(allowed: Range) -> str:
    """Write a range as a test form does: `(0,1)`, `(1-60)`, `(300,1200)`."""
    if isinstance(allowed, range) and len(allowed) > 2:
        return f"({allowed[0]}-{allowed[-1]})"
    return f"({','.join(map(str, allowed))})"
