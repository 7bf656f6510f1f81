# SPDX-License-Identifier: Apache-2.0
"""Prompts whose data ends by its announced size: which commands show them, and how many bytes a command announced.

ESC and Ctrl-Z are data at such a prompt. One that nobody can answer is filled with zero bytes, since the module takes
commands again only once it has as many as it was told (REQ-6).
"""

from collections.abc import Iterable
from typing import Final

from atrund.at.reader import PromptKind
from atrund.at.syntax import Command, Op, arguments, unquote

FILL_MAX: Final = 32_768
"""Bytes that a prompt is filled with at most: half of what may wait to be written, three seconds at 115,200 baud."""

SIZES: Final = {
    "#WSCRIPT": 1,  # <name>,<size>[,<hidden>]
    "#M2MWRITE": 1,  # <name>,<size>[,<binary>]
    "#HTTPSND": 3,  # <profile>,<command>,<resource>,<size>[,…] (LE910 V2, #HTTPSND)
    "#SSENDEXT": 1,  # <socket>,<size>[,<rai>] (LE910 V2 p. 351): its prompt looks like that of a text
    "#SSENDUDPEXT": 1,  # as #SSENDEXT
    "#SSLSENDEXT": 1,  # as #SSENDEXT
    "#FTPAPPEXT": 0,  # <size>[,<eof>] (ME910C1 p. 191)
}
"""Commands that announce a size, and which argument it is."""

TEXTS: Final = frozenset(
    "+CMGS +CMGW +CMGC +CNMA #CMGS #CMGW #SSEND #SSENDUDP #SSLSEND #SSLSECDATA #SEMAIL #EMAILD #EMAILMSG".split()
)
"""Commands whose data ends by Ctrl-Z and is given up by ESC, whatever their prompt looks like."""


def asks(commands: Iterable[Command]) -> bool:
    """Whether a line holds a command that is known to ask for data."""
    return not _names(commands).isdisjoint(TEXTS | SIZES.keys())


def is_counted(commands: Iterable[Command], shown: PromptKind) -> bool:
    """Whether the prompt that was shown takes bytes by their count, so that ESC would be one of them."""
    names = _names(commands)
    sized = not names.isdisjoint(SIZES)
    if not names.isdisjoint(TEXTS):
        return sized and shown is PromptKind.COUNTED
    return sized or shown is PromptKind.COUNTED


def count_of(commands: Iterable[Command]) -> int | None:
    """Return how many bytes a line's prompt takes; None if that can't be told, or if they are more than `FILL_MAX`."""
    sized = [command for command in commands if command.name in SIZES and command.op is Op.SET]
    if len(sized) != 1:
        return None  # whose prompt it is can't be told
    given = arguments(sized[0].args)
    place = SIZES[sized[0].name]
    text = unquote(given[place]) if place < len(given) else ""
    if not (text.isascii() and text.isdecimal() and len(text) <= _DIGITS_MAX):
        return None
    return int(text) if 0 < int(text) <= FILL_MAX else None


def _names(commands: Iterable[Command]) -> set[str]:
    return {command.name for command in commands if command.op in {Op.SET, Op.EXECUTE}}


_DIGITS_MAX: Final = 10
"""Digits that a size is read from: a number of thousands of them is none that a module takes."""
