# SPDX-License-Identifier: Apache-2.0
"""The command line as it is typed: what begins it, how it is corrected, what ends it (V.250 5.2)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

LINE_CAP: Final = 4096
"""Bytes of a command line that are kept; the longest that a module takes is well below. A longer line is ERROR."""

LF: Final = 0x0A
CR: Final = 0x0D
BACKSPACES: Final = frozenset({0x08, 0x7F})


@dataclass(frozen=True, slots=True)
class Typed:
    """A whole line with its AT, or (`repeat`) the wish to have the last one once more."""

    line: str = ""
    overlong: bool = False
    hasty: bool = False
    """Its first character came too soon behind the last result."""
    repeat: bool = False


class Editor:
    """Takes what is typed, byte by byte. `echo` shows it; `too_soon` is asked when a line begins."""

    def __init__(self, echo: Callable[[bytes], None], too_soon: Callable[[], bool]) -> None:
        self._echo = echo
        self._too_soon = too_soon
        self._line = bytearray()
        self._overlong = False
        self._hasty = False

    def clear(self) -> None:
        """Forget what was typed."""
        self._line.clear()
        self._overlong = False
        self._hasty = False

    def take(self, byte: int) -> Typed | None:
        """Take a byte; returns the line that it ended, if there is one."""
        if byte == CR:
            return self._end()
        if byte in BACKSPACES:
            if self._line:
                self._line.pop()
                self._echo(b"\b \b")
        elif byte >= 0x20:
            self._echo(bytes([byte]))
            if len(self._line) < 2:
                return self._take_prefix(byte)
            if len(self._line) < LINE_CAP:
                self._line.append(byte)
            else:
                self._overlong = True
        return None

    def _end(self) -> Typed | None:
        self._echo(b"\r")
        typed = Typed(self._line.decode("latin-1"), self._overlong, self._hasty)
        self.clear()
        return typed if len(typed.line) > 1 else None

    def _take_prefix(self, byte: int) -> Typed | None:
        """Wait for AT, in whatever noise, or for A/ (V.250 5.2.1, 5.2.4)."""
        character = chr(byte).upper()
        if character == "A":
            self._line[:] = bytes([byte])
            self._hasty = self._too_soon()
        elif self._line and character == "T":
            self._line.append(byte)
        else:
            repeat = bool(self._line) and character == "/"
            self._line.clear()
            return Typed(repeat=True) if repeat else None
        return None
