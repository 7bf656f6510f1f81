# SPDX-License-Identifier: Apache-2.0
"""Virtual reporting settings (CMD-3): each instance has its own, the module has their union, each sees what it asked.

Rules of this file: an unsolicited code is cut down to the form that the instance chose, never made up; of a code that
was cut, only a change of what is left is shown, as the module would have done; what the table does not know goes to
all. New messages are announced after they were judged (CMD-6), so the module's own announcements go to nobody.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from atrund.at.results import information
from atrund.at.syntax import Command, Op, arguments
from atrund.atrun.ranges import Values

Setting = tuple[int, ...]
Reporting = Mapping[str, Setting]
"""What an instance set, by command; what is not in it has its default."""

SETTINGS: Final = {
    "+CREG": Values((range(4),), (0,)),  # 3GPP TS 27.007 7.2
    "+CGREG": Values((range(6),), (0,)),  # 27.007 10.1.20
    "+CEREG": Values((range(6),), (0,)),  # 27.007 10.1.22
    # 3GPP TS 27.005 3.4.1: mode, mt, bm, ds, bfr
    "+CNMI": Values((range(4), range(4), range(4), range(3), range(2)), (0, 0, 0, 0, 0)),
    "#QSS": Values((range(3),), (0,)),
    "#PSNT": Values((range(2),), (0,)),
    "+CLIP": Values((range(2),), (0,)),  # 27.007 7.6
    "+CRC": Values((range(2),), (0,)),  # 27.007 7.11
    "+CGEREP": Values((range(3), range(2)), (0, 0)),  # 27.007 10.1.19
}
"""The reporting commands, with the ranges and the defaults of their values."""


def is_setting(command: Command) -> bool:
    """Whether a command sets what is reported, so that the instance keeps it and the module gets the union."""
    return command.name in SETTINGS and command.op is Op.SET


def is_reading(command: Command) -> bool:
    """Whether a command asks what is reported: the module answers, and `as_read` puts the instance's values in."""
    return command.name in SETTINGS and command.op is Op.READ


def with_setting(command: Command, reporting: Reporting) -> Reporting | None:
    """Return what the instance has after a set command, None when a value is out of range.

    `+CNMI` and `+CGEREP` keep what is left out.
    """
    values = SETTINGS[command.name]
    kept = Values(values.ranges, setting(reporting, command.name))
    given = kept.read(arguments(command.args))
    return None if given is None else {**reporting, command.name: given}


def setting(reporting: Reporting, name: str) -> Setting:
    """Return the values of one reporting command."""
    return reporting.get(name, SETTINGS[name].defaults)


def union(own: Reporting, instances: Iterable[Reporting]) -> dict[str, Setting]:
    """Return what the module is to have: what the daemon needs (`own`) and what each instance asked for."""
    wanted = (own, *instances)
    return {name: _UNIONS.get(name, _highest)([setting(reporting, name) for reporting in wanted]) for name in SETTINGS}


def to_send(wanted: Reporting, present: Reporting) -> tuple[str, ...]:
    """Return the lines that bring a module from `present` (what is not in it is unknown) to `wanted`."""
    return tuple(
        f"AT{name}={','.join(map(str, values))}" for name, values in wanted.items() if present.get(name) != values
    )


def as_read(line: str, reporting: Reporting) -> str:
    """Return one line of the answer to a read command with the instance's own values in place of the module's."""
    found = information(line)
    if found is None or found.name not in SETTINGS:
        return line
    own = setting(reporting, found.name)
    rest = found.parameters[len(own) :]
    if found.name in _REGISTRATIONS:
        rest = _registration(found.name, own[0], rest) if own[0] else rest[:1]
    elif found.name == "#QSS":
        rest = _sim(own[0], rest)
    return f"{found.name}: {','.join((*map(str, own), *rest))}"


class Reports:
    """Gives unsolicited codes to instances. It remembers the last code of each kind, to see what changed."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[str, ...]] = {}

    def deliver(self, lines: tuple[str, ...], instances: Mapping[int, Reporting]) -> dict[int, tuple[str, ...]]:
        """Return what each instance is to see of an unsolicited code (its line, or two), if anything."""
        found = information(lines[0])
        if found is None or found.name not in _CODES:
            return dict.fromkeys(instances, lines)
        code = _CODES[found.name]
        full, before = found.parameters, self._last.get(found.name)
        self._last[found.name] = full
        seen: dict[int, tuple[str, ...]] = {}
        for number, reporting in instances.items():
            mode = setting(reporting, code.name)[code.position]
            left = code.cut(mode, full)
            if left is None or (left != full and before is not None and left == code.cut(mode, before)):
                continue
            seen[number] = lines if left == full else (f"{found.name}: {','.join(left)}",)
            if found.name == "+CRING" and not mode:
                seen[number] = ("RING",)
        return seen


def announced(
    memory: str, index: int, direct: tuple[str, ...], instances: Mapping[int, Reporting]
) -> dict[int, tuple[str, ...]]:
    """Return how each instance is told of a new message that was judged to be none of ours (CMD-6).

    `direct`: the two lines of +CMT, for those who asked for the message itself.
    """
    seen: dict[int, tuple[str, ...]] = {}
    for number, reporting in instances.items():
        mode, mt, *_ = setting(reporting, "+CNMI")
        if mode and mt:
            seen[number] = direct if mt == _DIRECT else (f'+CMTI: "{memory}",{index}',)
    return seen


@dataclass(frozen=True, slots=True)
class _Code:
    """An unsolicited code: the setting that governs it, and how much is left of it under a mode; None: nothing."""

    name: str
    cut: Callable[[int, tuple[str, ...]], tuple[str, ...] | None]
    position: int = 0


_DIRECT: Final = 2
"""<mt> of a message that is shown and not stored."""

_REGISTRATIONS: Final[dict[str, tuple[int, int]]] = {"+CREG": (4, 6), "+CGREG": (5, 7), "+CEREG": (4, 6)}
"""Parameters from <stat> on that are shown with the place (mode 2) and with the cause (mode 3) as well."""


def _registration(name: str, mode: int, full: tuple[str, ...]) -> tuple[str, ...]:
    with_place, with_cause = _REGISTRATIONS[name]
    match mode:
        case 1:
            return full[:1]
        case 2:
            return full[:with_place]
        case 3:
            return full[:with_cause]
        case 4:
            blank = ("",) * len(full[with_place:with_cause])
            return (*full[:with_place], *blank, *full[with_cause:])
    return full


def _registered(name: str) -> _Code:
    return _Code(name, lambda mode, full: _registration(name, mode, full) if mode else None)


def _sim(mode: int, full: tuple[str, ...]) -> tuple[str, ...]:
    return ("1",) if mode <= 1 and full[:1] in {("2",), ("3",)} else full


def _if_on(_mode: int, full: tuple[str, ...]) -> tuple[str, ...] | None:
    return full if _mode else None


def _if(*modes: int) -> Callable[[int, tuple[str, ...]], tuple[str, ...] | None]:
    return lambda mode, full: full if mode in modes else None


_CODES: Final[dict[str, _Code]] = {
    **{name: _registered(name) for name in _REGISTRATIONS},
    "#QSS": _Code("#QSS", lambda mode, full: _sim(mode, full) if mode else None),
    "#PSNT": _Code("#PSNT", _if_on),
    "+CLIP": _Code("+CLIP", _if_on),
    "+CRING": _Code("+CRC", lambda _mode, full: full),
    "+CGEV": _Code("+CGEREP", _if_on),
    "+CMTI": _Code("+CNMI", _if(), 1),
    "+CMT": _Code("+CNMI", _if(), 1),
    "+CBM": _Code("+CNMI", _if(2), 2),
    "+CBMI": _Code("+CNMI", _if(1), 2),
    "+CDS": _Code("+CNMI", _if(1), 3),
    "+CDSI": _Code("+CNMI", _if(2), 3),
}


def _highest(values: Sequence[Setting]) -> Setting:
    return tuple(map(max, zip(*values, strict=True)))


def _registrations(values: Sequence[Setting]) -> Setting:
    modes = {mode for (mode,) in values}
    return (5,) if {3, 4} <= modes else (max(modes),)


def _new_messages(values: Sequence[Setting]) -> Setting:
    """The daemon's own <mode>, <mt> and <bfr> stay, for the SMS door reads the store; broadcasts and reports add up.

    Reports shown (<ds> 1) win over reports stored: both at once the module can't do.
    """
    mode, mt, _bm, _ds, bfr = values[0]
    broadcasts = {value[2] for value in values}
    reports = {value[3] for value in values}
    return (mode, mt, 2 if 2 in broadcasts else max(broadcasts), 1 if 1 in reports else max(reports), bfr)


_UNIONS: Final[dict[str, Callable[[Sequence[Setting]], Setting]]] = {
    "+CREG": _highest,
    "+CGREG": _registrations,
    "+CEREG": _registrations,
    "+CNMI": _new_messages,
}
"""How several settings are made one; what is not here takes the highest of each value."""
