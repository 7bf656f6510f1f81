# SPDX-License-Identifier: Apache-2.0
"""A body that comes with its command line, held against the prompt that the line is known to give (REQ-6).

It is judged before anything is sent: once the prompt stands there, a body that does not fit could only be spoilt.
"""

from typing import Final

from atrund.at.prompts import SIZES, TEXTS, asks, size_of
from atrund.at.syntax import Command, LineRefused, parse
from atrund.atrun.hazards import acts
from atrund.atrun.policy import PROMPTING
from atrund.atrun.request import Reason

FORBIDDEN: Final = {0x00: "NUL", 0x1A: "Ctrl-Z", 0x1B: "ESC"}
"""What can't stand in the data of a text prompt: NUL is passed over (RFC 854), and the others end it."""


def misfit(line: str, body: bytes | None, *, is_text: bool = False) -> tuple[Reason, str] | None:
    """Return why a line can't be run with this body, or without one, and a detail for a person; None where it can.

    `is_text`: the body was given as text, whose octets at a text prompt depend on the character set (`+CSCS`) unless
    they are ASCII. A line that can't be parsed is for others to refuse.
    """
    try:
        commands = parse(line)
    except LineRefused:
        return None
    asking = [command for command in commands if asks([command])]
    if body is None:
        return _without(asking)
    if not asking:
        return Reason.BAD_REQUEST, f"body: {_nobody(commands)}"
    if len(asking) > 1:
        return Reason.BAD_REQUEST, f"body: {len(asking)} commands of the line ask for data, and one body is for one"
    (command,) = asking
    wrong = _text(body, is_text=is_text) if command.name in TEXTS else _counted(command, body)
    return (Reason.BAD_REQUEST, f"body: {wrong}") if wrong else None


def _without(asking: list[Command]) -> tuple[Reason, str] | None:
    if not asking:
        return None
    return Reason.PROMPT_UNSUPPORTED, f"{asking[0].name} asks for data, which go into body or body_b64"


def _nobody(commands: tuple[Command, ...]) -> str:
    for command in commands:
        if command.name in PROMPTING and acts(command):
            return f"{command.name} is not known to end its data in a way that a body could be given"
    return f"no command of the line asks for data; those that do are {', '.join(sorted(TEXTS | SIZES.keys()))}"


def _text(body: bytes, *, is_text: bool) -> str:
    for octet, name in FORBIDDEN.items():
        if (place := body.find(octet)) >= 0:
            return f"{name} at octet {place + 1}, which can't be in the data of this command"
    if is_text and not body.isascii():
        return "what octets its characters are depends on +CSCS; give them as body_b64, or ASCII alone"
    return ""


def _counted(command: Command, body: bytes) -> str:
    size = size_of(command)
    if size is None:
        return f"{command.name} announces no size"
    return "" if size == len(body) else f"{len(body)} octets, while {command.name} announces {size}"
