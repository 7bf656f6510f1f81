# SPDX-License-Identifier: Apache-2.0
"""An AT command line -> its commands, and back again (ITU-T V.250 section 5).

Rules of this file: what `parse` returns is what policy judges, and `unparse` of it is all that a module ever sees, so
nothing that a module could read as a command may hide in an argument. That is why bytes outside printable ASCII are
refused: a module that ignores bit 8 (V.250 5.1) would read 0xA2 as a quote.
"""

import enum
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from atrund.table import Word

LINE_MAX: Final = 2048
"""Longest command line in characters; Telit's own limit lies far below on every family."""


class Op(Word):
    """What is asked of a command (V.250 5.4)."""

    EXECUTE = enum.auto()
    READ = enum.auto()
    TEST = enum.auto()
    SET = enum.auto()


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a line.

    `name` is upper case with its sign: `+COPS`, `#MONI`, `E`, `&F`, `S3`, `D`. `args` is what stands behind `=` (SET),
    the digits behind a basic command, or the dial string of `D` with its `;` if it has one. Blanks outside quotes are
    gone.
    """

    name: str
    op: Op
    args: str = ""

    @property
    def extended(self) -> bool:
        """Whether it has extended syntax (V.250 5.4), so that `;` must stand before what follows."""
        return self.name[0] in _EXTENDED

    def __str__(self) -> str:
        match self.op:
            case Op.READ:
                return f"{self.name}?"
            case Op.TEST:
                return f"{self.name}=?"
            case Op.SET:
                return f"{self.name}={self.args}"
        return f"{self.name}{self.args}"


class LineRefused(ValueError):
    """A line that is not sent. `reason` is `bad_request` or `too_long`; `detail` says what was wrong where."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def parse(line: str) -> tuple[Command, ...]:
    """Return the commands of one line; `AT` alone has none.

    One trailing CR, LF or CRLF is dropped, and a ` //` comment outside quotes. Raises `LineRefused` for a line that is
    too long, holds a character outside printable ASCII, an unbalanced quote, or anything that V.250 has no form for.
    """
    line = _without_line_end(line)
    if len(line) > LINE_MAX:
        raise LineRefused("too_long", f"{len(line)} characters; at most {LINE_MAX} make a command line")
    for position, character in enumerate(line):
        if not " " <= character <= "~":
            raise LineRefused("bad_request", f"character 0x{ord(character):02X} at position {position + 1}")
    body = _compact(line)
    if body[:2].upper() != "AT":
        raise LineRefused("bad_request", "a command line begins with AT")
    return tuple(_commands(body[2:]))


def unparse(commands: Iterable[Command]) -> str:
    """Write commands as one line that `parse` reads as the same commands."""
    out = ["AT"]
    separate = False
    for command in commands:
        if separate:
            out.append(";")
        out.append(str(command))
        separate = command.extended
    return "".join(out)


def arguments(args: str) -> tuple[str, ...]:
    """Split at commas outside quotes; quotes stay on. The empty string has no arguments."""
    if not args:
        return ()
    out = [""]
    quoted = False
    for character in args:
        if character == '"':
            quoted = not quoted
        if character == "," and not quoted:
            out.append("")
        else:
            out[-1] += character
    return tuple(out)


def unquote(argument: str) -> str:
    """Take one pair of surrounding quotes off, if there is one."""
    if len(argument) > 1 and argument[0] == argument[-1] == '"':
        return argument[1:-1]
    return argument


_EXTENDED: Final = "+#$*@^"
_SIGNED_BASIC: Final = "&\\%"
_EXTENDED_NAME: Final = re.compile(r"[+#$*@^][A-Za-z][A-Za-z0-9!%\-./:_]*")
_S_REGISTER: Final = re.compile(r"[Ss]([0-9]+)(\?|=\?|=[0-9]*)?")
_BASIC: Final = re.compile(r"([&\\%]?[A-Za-z])([0-9]*)")


def _without_line_end(line: str) -> str:
    if line.endswith("\r\n"):
        return line[:-2]
    if line.endswith(("\r", "\n")):
        return line[:-1]
    return line


def _compact(line: str) -> str:
    """Drop the comment and all blanks outside quotes; refuse an unbalanced quote."""
    out = []
    quoted = False
    for position, character in enumerate(line):
        if character == '"':
            quoted = not quoted
        if not quoted and character == " ":
            if line.startswith("//", position + 1):
                break
            continue
        out.append(character)
    if quoted:
        raise LineRefused("bad_request", "unbalanced quote")
    return "".join(out)


def _commands(body: str) -> Iterable[Command]:
    at = 0
    while at < len(body):
        if body[at] == ";":  # an empty command: nothing to run, nothing to send
            at += 1
        elif body[at] in _EXTENDED:
            command, at = _extended(body, at)
            yield command
        elif body[at] in "Dd":
            end = _end_of_command(body, at)
            args = body[at + 1 : end + 1]
            yield Command("D", Op.EXECUTE, args)
            at = end + 1
        else:
            command, at = _basic(body, at)
            yield command


def _extended(body: str, at: int) -> tuple[Command, int]:
    matched = _EXTENDED_NAME.match(body, at)
    if matched is None:
        raise LineRefused("bad_request", f"no command name behind {body[at]!r}")
    end = _end_of_command(body, at)
    name, rest = matched[0].upper(), body[matched.end() : end]
    if rest == "":
        command = Command(name, Op.EXECUTE)
    elif rest == "?":
        command = Command(name, Op.READ)
    elif rest == "=?":
        command = Command(name, Op.TEST)
    elif rest[0] == "=":
        command = Command(name, Op.SET, rest[1:])
    else:
        # The name is not shown: what ran into it may be a secret.
        raise LineRefused("bad_request", f"{rest[0]!r} behind a command's name; '=', '?', ';' or nothing can follow it")
    return command, end + 1


def _basic(body: str, at: int) -> tuple[Command, int]:
    if (register := _S_REGISTER.match(body, at)) is not None:
        name = f"S{int(register[1])}"
        form = register[2] or ""
        if form == "?":
            return Command(name, Op.READ), register.end()
        if form == "=?":
            return Command(name, Op.TEST), register.end()
        if form:
            return Command(name, Op.SET, form[1:]), register.end()
        return Command(name, Op.EXECUTE), register.end()
    matched = _BASIC.match(body, at)
    if matched is None or matched[1] in "Ss":
        raise LineRefused("bad_request", f"{body[at]!r} begins no command")
    return Command(matched[1].upper(), Op.EXECUTE, matched[2]), matched.end()


def _end_of_command(body: str, at: int) -> int:
    """Return where the next unquoted `;` stands, or the end of the line."""
    quoted = False
    for position in range(at, len(body)):
        if body[position] == '"':
            quoted = not quoted
        elif body[position] == ";" and not quoted:
            return position
    return len(body)
