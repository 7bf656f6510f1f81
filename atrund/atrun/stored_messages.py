# SPDX-License-Identifier: Apache-2.0
"""What a door sees of stored messages, and what it deletes: +CMGL, +CMGR and +CMGD of 3GPP TS 27.005 (CMD-6).

Rules of this file: a message's state is its number in PDU mode (27.005 3.1): 0 unread, 1 read, 2 unsent, 3 sent; None
stands for one that is not the door's to see. What is not understood is not sent, for a module might understand it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from atrund.at.syntax import Command, Op, arguments, unquote

States = Mapping[int, int | None]
"""The state of each message by index."""

UNREAD: Final = 0
WORDS: Final = ("REC UNREAD", "REC READ", "STO UNSENT", "STO SENT")
"""The states in text mode (TS 27.005 3.1)."""
EMPTY: Final = "+CMS ERROR: 321"
"""What reading an index without a message ends with: invalid memory index (TS 27.005 3.2.5)."""


@dataclass(frozen=True, slots=True)
class Listing:
    """+CMGL: of these states."""

    states: frozenset[int]


@dataclass(frozen=True, slots=True)
class Reading:
    """+CMGR."""

    index: int


@dataclass(frozen=True, slots=True)
class Deletion:
    """+CMGD of one message."""

    index: int


@dataclass(frozen=True, slots=True)
class Clearing:
    """+CMGD with a flag: of all messages of these states."""

    states: frozenset[int]


@dataclass(frozen=True, slots=True)
class Misunderstood:
    """It has no such form; `final` is what 27.005 has for that."""

    final: str


def understand(command: Command, *, text_mode: bool) -> Listing | Reading | Deletion | Clearing | Misunderstood:
    """Return what a set or execute form of +CMGL, +CMGR or +CMGD asks for (TS 27.005 3.4.2, 3.4.3, 3.5.4)."""
    bad = Misunderstood("+CMS ERROR: 305" if text_mode else "+CMS ERROR: 304")  # invalid parameter in text, PDU mode
    given = arguments(command.args)
    if command.name == "+CMGL":
        return _listing(given, text_mode=text_mode) or bad
    if command.op is not Op.SET:
        return bad
    index = _number(given[0]) if given else None
    if command.name == "+CMGR":
        return Misunderstood(EMPTY) if index is None or len(given) > 1 else Reading(index)
    if len(given) > _DELETION_MAX:
        return bad
    flag = _number(given[1] or "0") if len(given) > 1 else 0
    if flag is None or flag not in _CLEARED:
        return bad
    if flag:
        return Clearing(_CLEARED[flag])  # whatever the index
    return Misunderstood(EMPTY) if index is None else Deletion(index)


def listing(*, text_mode: bool) -> Command:
    """Return the command that lists all."""
    return Command("+CMGL", Op.SET, '"ALL"' if text_mode else "4")


def among(states: States, wanted: frozenset[int]) -> tuple[int, ...]:
    """Return the indices of the messages of these states that are the door's."""
    return tuple(index for index, state in states.items() if state in wanted)


def as_read(line: str, state: int, *, text_mode: bool) -> str:
    """Return a header line of +CMGR with another state in it; other lines as they are."""
    return (_READ_TEXT if text_mode else _READ_PDU).sub(rf"\g<1>{_shown(state, text_mode=text_mode)}", line, count=1)


class View:
    """What is left of a listing of all, line by line.

    `shown`: the indices that were let through; `strange`: those of messages that came behind the look at the memory.
    They are hidden: nobody judged them. In text mode a line of somebody's text can look like a header. So one counts
    only if it can be the next, or belongs to a message that is hidden: at worst the rest of that very text is lost.
    """

    def __init__(self, states: States, wanted: frozenset[int], *, text_mode: bool) -> None:
        self.shown: list[int] = []
        self.strange: list[int] = []
        self._states = states
        self._wanted = wanted
        self._text_mode = text_mode
        self._header = _LISTED_TEXT if text_mode else _LISTED_PDU
        self._at = -1
        self._visible = False

    def feed(self, line: str) -> str | None:
        """Return a line of the module's answer as the door sees it, None for one that is hidden."""
        found = self._header.match(line)
        if found is None or not self._begins(int(found[2]), found[4]):
            return line if self._visible else None
        self._at = index = int(found[2])
        state = self._states.get(index)
        self._visible = state is not None and state in self._wanted
        if state is None or not self._visible:
            return None
        self.shown.append(index)
        return f"{found[1]}{index}{found[3]}{_shown(state, text_mode=self._text_mode)}{line[found.end() :]}"

    def _begins(self, index: int, state: str) -> bool:
        if index in self._states:
            return index > self._at or self._states[index] is None
        if state == _shown(UNREAD, text_mode=self._text_mode):  # all others were read just before
            self.strange.append(index)
            return True
        return False


_DELETION_MAX: Final = 2
_CLEARED: Final[Mapping[int, frozenset[int]]] = {
    0: frozenset(),
    1: frozenset({1}),
    2: frozenset({1, 3}),
    3: frozenset({1, 2, 3}),
    4: frozenset({0, 1, 2, 3}),
}
"""The states that each flag of +CMGD deletes (TS 27.005 3.5.4)."""
_EVERY: Final = frozenset(range(len(WORDS)))
_ASKED: Final = (*WORDS, "ALL")
_INDEX_DIGITS: Final = 5

_LISTED_PDU: Final = re.compile(r"(\+CMGL: ?)([0-9]{1,5})(, ?)([0-3])(?=,)")
_LISTED_TEXT: Final = re.compile(rf'(\+CMGL: ?)([0-9]{{1,5}})(, ?)("(?:{"|".join(WORDS)})")(?=,)')
_READ_PDU: Final = re.compile(r"^(\+CMGR: ?)[0-3](?=,)")
_READ_TEXT: Final = re.compile(rf'^(\+CMGR: ?)"(?:{"|".join(WORDS)})"(?=,)')


def _listing(given: tuple[str, ...], *, text_mode: bool) -> Listing | None:
    """Return the states that a listing asks for; those unread where it names none. None for what is none."""
    place: int | None = UNREAD
    if len(given) > 1:
        return None
    if text_mode and given:
        word = unquote(given[0]).upper()
        place = _ASKED.index(word) if word in _ASKED else None
    elif given:
        place = _number(given[0])
    if place is None or place > len(WORDS):
        return None
    return Listing(_EVERY if place == len(WORDS) else frozenset({place}))


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= _INDEX_DIGITS else None


def _shown(state: int, *, text_mode: bool) -> str:
    return f'"{WORDS[state]}"' if text_mode else str(state)
