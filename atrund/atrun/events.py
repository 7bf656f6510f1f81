# SPDX-License-Identifier: Apache-2.0
"""What the event monitor can watch, with the parameters of each event (CMD-5; commands.md 4.3)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from atrund.at.syntax import LineRefused, parse
from atrund.atrun.ranges import Range, read_number

COMMAND_MAX: Final = 96
"""Characters of a stored command, counted as it runs, each quote as one."""
TEXT_MAX: Final = 160
"""Characters of the text to look for in an SMS: more than fit into one are never found."""
QUOTE: Final = "\\22"
"""How a quote is written inside a stored command."""
_GPIOS: Final = 8
_DELAY: Final = range(256)

EVENTS: Final[dict[str, tuple[tuple[Range | None, int], ...]]] = {
    "VBATT": ((range(501), 0), (_DELAY, 0)),  # threshold in 10 mV, seconds below it
    "ROAM": (),
    "CONTDEACT": (),
    "RING": ((range(1, 51), 1),),  # rings
    "STARTUP": (),
    "REGISTERED": (),
    "SMSIN": ((None, 0),),  # text to be found in it; empty: any
    **{f"GPIO{n}": ((range(1, 100), 1), (range(2), 0), (_DELAY, 0)) for n in range(1, _GPIOS + 1)},  # pin, level, s
    "ADCH1": ((range(1, 100), 1), (range(2001), 0), (_DELAY, 0)),  # pin, mV, seconds above
    "ADCL1": ((range(1, 100), 1), (range(2001), 0), (_DELAY, 0)),  # pin, mV, seconds below
}
"""Each label's parameters from type 1 on: range and default; no range: a text."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event as it is set: `door` and `peer` stored the command, with whose rights it runs at most.

    `forgeable`: it came by a simple SMS, whose sender may be another.
    """

    on: bool = False
    command: str = field(default="", repr=False)
    parameters: tuple[int | str, ...] = field(default=(), repr=False)
    door: str = ""
    peer: str = field(default="", repr=False)
    forgeable: bool = False


def default_event(label: str) -> Event:
    """Return an event as it is before anybody set it."""
    return Event(parameters=tuple("" if allowed is None else default for allowed, default in EVENTS[label]))


def read_command(text: str) -> str | None:
    r"""Return the command that `text` writes (`\22` for a quote), "" to erase it; None when it can't be run."""
    command = text.replace(QUOTE, '"')
    if command == "":
        return ""
    if len(command) > COMMAND_MAX:
        return None
    try:
        parse(command)
    except LineRefused:
        return None
    return command


def read_parameter(label: str, type_: int, text: str) -> int | str | None:
    """Return the value of the parameter of a type, from 1 on, or None when there is none such, or out of range."""
    if not 1 <= type_ <= len(EVENTS[label]):
        return None
    allowed, _default = EVENTS[label][type_ - 1]
    if allowed is None:
        return text if fits_text(text) else None
    return read_number(text, allowed)


def fits_text(text: str) -> bool:
    """Whether this is a text that can be looked for: short, printable, without a quote."""
    return len(text) <= TEXT_MAX and text.isascii() and (text + "x").isprintable() and '"' not in text


def allows_parameters(label: str, values: Sequence[object]) -> bool:
    """Whether these are values for all parameters of the label."""
    kinds = EVENTS[label]
    return len(values) == len(kinds) and all(
        isinstance(value, str) and fits_text(value) if allowed is None else type(value) is int and value in allowed
        for value, (allowed, _default) in zip(values, kinds, strict=True)
    )


def shown(label: str, event: Event) -> str:
    """Write an event as the read form does, without the prefix; secrets in the command are the caller's to hide."""
    command = event.command.replace('"', QUOTE)
    values = [f'"{value}"' if isinstance(value, str) else str(value) for value in event.parameters]
    return ",".join((f'"{label}"', str(int(event.on)), f'"{command}"', *values))
