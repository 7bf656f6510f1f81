# SPDX-License-Identifier: Apache-2.0
"""What is typed at a prompt, on its way to the module (REQ-6).

Rules of this file: a text ends with Ctrl-Z, or is given up with ESC; counted data end with their last octet, whatever
it is. What is behind the end is none of the data, and is given back to whoever typed it.
"""

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from atrund.at.exchange import CTRL_Z, ESC, Prompted
from atrund.at.reader import PromptKind

WAITING_MAX: Final = 16_384
"""Octets that wait for the port, behind which the one who types is to wait: more than a second at 115,200 baud."""


class Finish(enum.Enum):
    """How the data ended."""

    WHOLE = "whole"
    GIVEN_UP = "given up"


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of typed octets: `echo` of them, as a module does it; `rest` is behind the end of the data."""

    echo: bytes = field(default=b"", repr=False)
    rest: bytes = field(default=b"", repr=False)


class Feed:
    """Stands between one who types and an exchange: for each prompt, `open`, what is typed, and its `finish`."""

    finish: Finish | None
    """How the data of the open prompt ended, once it has."""

    def __init__(self, on_prompt: Callable[[Prompted], None], on_room: Callable[[], None] = lambda: None) -> None:
        """`on_prompt` is told when the module asks; `on_room`, that no more wait than may."""
        self.finish = None
        self._on_prompt = on_prompt
        self._on_room = on_room
        self._on_given: Callable[[], None] | None = None
        self._prompt = Prompted(PromptKind.TEXT)
        self._waiting = bytearray()
        self._typed = 0

    # What the exchange says.

    def open(self, prompt: Prompted, on_given: Callable[[], None]) -> None:
        """Ask for data. `on_given` is told of each piece that can be taken."""
        self.close()
        self._prompt, self._on_given = prompt, on_given
        self._on_prompt(prompt)

    def ask_again(self, prompt: Prompted) -> None:
        """Pass on that the module asks for more of the same data."""
        self._on_prompt(prompt)

    def take(self, size: int) -> bytes:
        """Return at most `size` of the octets that wait."""
        was_full = self.is_full
        piece = bytes(self._waiting[:size])
        del self._waiting[:size]
        if was_full and not self.is_full:
            self._on_room()
        return piece

    def close(self) -> None:
        """Take no data any more, and forget what waits."""
        self._on_given = self.finish = None
        self._typed = 0
        self.take(len(self._waiting))

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits."""
        return not self._waiting

    # What the one who types says.

    @property
    def is_open(self) -> bool:
        """Whether what is typed is data."""
        return self._on_given is not None and self.finish is None

    @property
    def is_counted(self) -> bool:
        """Whether any octet counts, and none has a meaning."""
        return self._prompt.count is not None

    @property
    def is_full(self) -> bool:
        """Whether the one who types is to wait."""
        return len(self._waiting) >= WAITING_MAX

    def give(self, typed: bytes) -> Taken:
        """Take what was typed; all of it is given back where it is no data."""
        on_given = self._on_given
        if on_given is None or not self.is_open or not typed:
            return Taken(rest=typed)
        taken = self._count(typed, self._prompt.count) if self._prompt.count is not None else self._read(typed)
        on_given()
        return taken

    def _count(self, typed: bytes, count: int) -> Taken:
        data = typed[: count - self._typed]
        self._typed += len(data)
        self._waiting += data
        if self._typed == count:
            self.finish = Finish.WHOLE
        # A counted prompt proper takes files, and nobody wants to see those again.
        return Taken(data if self._prompt.kind is PromptKind.TEXT else b"", typed[len(data) :])

    def _read(self, typed: bytes) -> Taken:
        """NUL is no character of any text; telnet puts one behind each CR (RFC 854)."""
        echo = bytearray()
        for at, octet in enumerate(typed):
            if octet == ESC[0]:
                self.finish = Finish.GIVEN_UP
            elif octet:
                self._waiting.append(octet)
            if octet == CTRL_Z[0]:
                self.finish = Finish.WHOLE
            if self.finish is not None:
                return Taken(bytes(echo), typed[at + 1 :])
            if octet in _BACKSPACES:
                echo += b"\b \b" if self._typed else b""
                self._typed = max(0, self._typed - 1)
            elif octet:
                echo.append(octet)
                self._typed += 1
        return Taken(bytes(echo))


_BACKSPACES: Final = b"\b\x7f"
"""What takes back in a text, at the module too (S5, and DEL)."""
