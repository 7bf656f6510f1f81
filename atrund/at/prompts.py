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
"""Bytes that a prompt is filled with at most: three seconds at 115,200 baud."""

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
    return not _names(commands).isdisjoint(_ASKING)


def is_counted(commands: Iterable[Command], shown: PromptKind) -> bool:
    """Whether the prompt that was shown takes bytes by their count, so that ESC would be one of them."""
    names = _names(commands)
    sized = not names.isdisjoint(SIZES)
    if not names.isdisjoint(TEXTS):
        return sized and shown is PromptKind.COUNTED
    return sized or shown is PromptKind.COUNTED


DATA_MAX: Final = 1_048_576
"""Bytes that a prompt's data may be: a minute and a half at 115,200 baud, which filling it up would take at worst."""


def size_of(command: Command) -> int | None:
    """Return how many bytes a command announced; None if it did not, or not so that it can be meant only in one way."""
    if command.name not in SIZES or command.op is not Op.SET:
        return None
    given = arguments(command.args)
    place = SIZES[command.name]
    text = unquote(given[place]) if place < len(given) else ""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= _DIGITS_MAX and text[0] != "0" else None


def is_served(command: Command) -> bool:
    """Whether a command that asks for data can be given them by one who types: it is known where they end."""
    return command.name in TEXTS or 0 < (size_of(command) or 0) <= DATA_MAX


def count_of(commands: Iterable[Command]) -> int | None:
    """Return how many bytes a line's prompt takes; None if that can't be told, or if they are more than `FILL_MAX`."""
    sized = [command for command in commands if command.name in SIZES and command.op is Op.SET]
    if len(sized) != 1:
        return None  # whose prompt it is can't be told
    size = size_of(sized[0])
    return size if size is not None and size <= FILL_MAX else None


def _names(commands: Iterable[Command]) -> set[str]:
    return {command.name for command in commands if command.op is Op.SET or command.op is Op.EXECUTE}


_ASKING: Final = TEXTS | SIZES.keys()
_DIGITS_MAX: Final = 10
"""Digits that a size is read from: a number of thousands of them is none that a module takes."""
