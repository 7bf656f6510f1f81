# SPDX-License-Identifier: Apache-2.0
"""Commands that answer OK first, and only then say what was asked for: under which name, and within what time.

Within its window such a line is the asker's and nobody else's: no answer to the next command, and no unsolicited code.
Before the final result it is neither, and is unsolicited as ever. Without a window is what comes as often as it likes,
such as +CREG or SRING, and what a module says before its final result, such as the lines of #PING and #CSURV.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from atrund.at.results import information
from atrund.at.syntax import Command, Op, arguments, unquote
from atrund.at.times import LONGEST


@dataclass(frozen=True, slots=True)
class Window:
    """One line under `name` is still to come, within so many seconds of the final result."""

    name: str
    seconds: float

    def takes(self, line: str) -> bool:
        """Whether a line is the awaited one."""
        found = information(line)
        return found is not None and found.name == self.name


def window(commands: Iterable[Command]) -> Window | None:
    """Return what a line of commands that ended with OK has still to say: the last that has anything."""
    found = None
    for command in commands:
        promised = _PROMISES.get(command.name)
        if promised is not None and command.op is Op.SET and promised[1](arguments(command.args)):
            found = promised[0]
    return found


def _asks_the_network(given: tuple[str, ...]) -> bool:
    """`+CUSD=1,"*100#"` asks; `+CUSD=1` only lets answers be shown, and 0 and 2 don't show any (TS 27.007 7.15)."""
    return len(given) > 1 and given[0] == "1" and unquote(given[1]) != ""


def _always(_: tuple[str, ...]) -> bool:
    return True


_HTTP: Final = 120.0
"""Seconds that #HTTPCFG has the module wait for the server unless it is told otherwise (LE910 V2, #HTTPCFG)."""

_PROMISES: Final[dict[str, tuple[Window, Callable[[tuple[str, ...]], bool]]]] = {
    "+CUSD": (Window("+CUSD", LONGEST["+CUSD"]), _asks_the_network),
    "#HTTPQRY": (Window("#HTTPRING", _HTTP), _always),  # LE910 V2 p. 422
    "#HTTPSND": (Window("#HTTPRING", _HTTP), _always),
}
