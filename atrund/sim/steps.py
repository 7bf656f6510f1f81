# SPDX-License-Identifier: Apache-2.0
"""What a command of the simulated module does, step by step: a line of its answer, a wait, a prompt, or a refusal.

A handler takes the port that the command came in on and the parsed command, and gives back an iterable of steps. A
tuple of lines is one; a generator is one that can wait and ask. Bytes go out as they are: the data of data mode.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from atrund.at.syntax import Command, arguments, unquote

if TYPE_CHECKING:  # the port runs the handlers, and so knows them
    from atrund.sim.port import SimPort

TEXT_PROMPT: Final = b"\r\n> "
COUNTED_PROMPT: Final = b"\r\n>>>"


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing happens for that many seconds; if `abortable`, a character ends the line with ABORTED (V.250 5.6.1).

    Where an `escape` is given, that sequence ends it with NO CARRIER, as it ends data mode.
    """

    seconds: float
    abortable: bool = False
    escape: bytes = b""


@dataclass(slots=True)
class Prompt:
    """Asks for data, and holds it when the command goes on.

    A text prompt (`count` None) ends with Ctrl-Z, or with ESC, which makes the line answer OK and the command go no
    further. A counted one takes exactly `count` bytes, whatever they are; `as_text` makes it look like a text prompt.
    A text prompt that comes `again` does so after each CR of the data. It is shown that many `times`.
    """

    count: int | None = None
    data: bytes = b""
    as_text: bool = False
    again: bool = False
    times: int = 1

    @property
    def mark(self) -> bytes:
        """What is shown to ask."""
        return TEXT_PROMPT if self.count is None or self.as_text else COUNTED_PROMPT


Step: TypeAlias = str | bytes | Wait | Prompt
Handler: TypeAlias = Callable[["SimPort", Command], Iterable[Step]]


class Refused(Exception):
    """A command ends its line with a final result other than OK.

    `cme` is a code that +CMEE shows as ERROR, number or text; else `final` is what is shown, whatever +CMEE says.
    """

    def __init__(self, cme: int | None = None, final: str = "ERROR") -> None:
        super().__init__(final if cme is None else f"+CME ERROR: {cme}")
        self.cme = cme
        self.final = final


def cms(code: int) -> Refused:
    """Return the refusal of a message service command (3GPP TS 27.005 3.2.5)."""
    return Refused(final=f"+CMS ERROR: {code}")


NOT_SUPPORTED: Final = 4
SIM_NOT_INSERTED: Final = 10
SIM_PIN_REQUIRED: Final = 11
SIM_PUK_REQUIRED: Final = 12
SIM_FAILURE: Final = 13
SIM_BUSY: Final = 14
INCORRECT_PASSWORD: Final = 16
NOT_FOUND: Final = 22
NO_SERVICE: Final = 30
BAD_PARAMETER: Final = 50
UNKNOWN: Final = 100
"""Codes of 3GPP TS 27.007 9.2.1."""


def number(argument: str, allowed: range, default: int | None = None) -> int:
    """Return a whole number of `allowed`; an absent one is `default`. Raises `Refused` (bad parameter)."""
    text = unquote(argument)
    if text == "" and default is not None:
        return default
    # The length is looked at first: a number of thousands of digits is no number that a module takes.
    if not 0 < len(text) <= 10 or not text.isdecimal() or int(text) not in allowed:
        raise Refused(BAD_PARAMETER)
    return int(text)


def parameters(command: Command, at_most: int, at_least: int = 1) -> list[str]:
    """Return the parameters of a SET, filled up with empty ones to `at_most`. Raises `Refused` for a wrong count."""
    given = list(arguments(command.args))
    if not at_least <= len(given) <= at_most:
        raise Refused(BAD_PARAMETER)
    return given + [""] * (at_most - len(given))
