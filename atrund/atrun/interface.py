# SPDX-License-Identifier: Apache-2.0
"""What an instance has set: its own V.250 values, its reporting settings, and what the module keeps per port (CMD-1).

Rules of this file: only what differs from the default is held, so that two interfaces that behave alike are equal.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Final

from atrund.at.syntax import Command, Op, arguments
from atrund.atrun import reporting
from atrund.atrun.ranges import FLAG, Values

RATES: Final = (0, 300, 600, 1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200, 230400, 460800, 921600)
"""What +IPR may name; 0: found out by itself."""

REGISTERS: Final = {
    "E": Values((FLAG,), (1,)),
    "Q": Values((range(3),), (0,)),
    "V": Values((FLAG,), (1,)),
    "X": Values((range(5),), (4,)),  # V.250 6.2.7
    "S2": Values((range(256),), (43,)),
    # A printable character that ends or takes back a line would make the instance deaf to every command.
    "S3": Values((range(32),), (13,)),
    "S4": Values((range(128),), (10,)),
    "S5": Values((range(32),), (8,)),
    "S12": Values((range(20, 256),), (50,)),
    "+CMEE": Values((range(3),), (0,)),
    # What would cut the port that is shared: kept for the instance, never sent.
    "&C": Values((range(3),), (1,)),
    "&D": Values((range(6),), (2,)),
    "&K": Values((range(7),), (3,)),
    "&S": Values((range(4),), (3,)),
    "\\Q": Values((range(4),), (3,)),
    "+IPR": Values((RATES,), (115200,)),
    "+ICF": Values((range(7), range(4)), (3, 0)),  # format, parity (V.250 6.2.11)
    "+IFC": Values((range(3), range(3)), (2, 2)),  # by DTE, by DCE (V.250 6.2.12)
}
"""The settings of an instance alone, by command."""

PORT_DEFAULTS: Final[Mapping[str, tuple[str, ...]]] = {
    "+CMGF": ("0",),
    "+CSCS": ('"IRA"',),
    "+CPMS": (),  # the memory that the daemon chose
    "+CSMP": ("17", "167", "0", "0"),
}
"""What the module keeps per port, so that it is put in place for each instance anew."""


@dataclass(frozen=True, slots=True)
class Interface:
    """The settings of one instance. `registers`, `reports` and `port` hold what is not at its default, by command."""

    registers: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    reports: reporting.Reporting = field(default_factory=dict)
    port: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def values(self, name: str) -> tuple[int, ...]:
        """Return the values of one of `REGISTERS`."""
        return self.registers.get(name, REGISTERS[name].defaults)

    def value(self, name: str) -> int:
        """Return the first value of one of `REGISTERS`."""
        return self.values(name)[0]

    def on(self, name: str) -> bool:
        """Whether that value is other than 0."""
        return self.value(name) != 0

    def with_values(self, name: str, values: tuple[int, ...]) -> "Interface":
        """Return it with values of one of `REGISTERS`, which are within their ranges."""
        registers = {**self.registers, name: values}
        if values == REGISTERS[name].defaults:
            del registers[name]
        return replace(self, registers=registers)

    def with_report(self, command: Command) -> "Interface | None":
        """Return it after a reporting command was set, None when a value is out of range (CMD-3)."""
        reports = reporting.with_setting(command, self.reports)
        if reports is None:
            return None
        kept = {name: given for name, given in reports.items() if given != reporting.SETTINGS[name].defaults}
        return replace(self, reports=kept)

    def remembering(self, command: Command) -> "Interface":
        """Return it after the module took a set command of `PORT_DEFAULTS`; others change nothing.

        What is left out stays; a value of a form that none of them has is not remembered.
        """
        given = arguments(command.args)
        if not is_remembered(command) or not all(map(_PORT_VALUE.fullmatch, given)):
            return self
        before = self.port.get(command.name, PORT_DEFAULTS[command.name])
        filled = [*given, *before[len(given) :]]
        values = tuple(value or (before[at] if at < len(before) else "") for at, value in enumerate(filled))
        port = {**self.port, command.name: values}
        if values == PORT_DEFAULTS[command.name]:
            del port[command.name]
        return replace(self, port=port)

    def to_json(self) -> dict[str, list[int] | list[str]]:
        """Return it as a value that JSON can hold; `from_json` reads it back."""
        numbers = {name: list(values) for name, values in {**self.registers, **self.reports}.items()}
        return {**numbers, **{name: list(values) for name, values in self.port.items()}}


def from_json(value: object) -> Interface:
    """Read what `to_json` gave. Raises `ValueError`, which says what was wrong."""
    if not isinstance(value, dict):
        raise ValueError("is no table of commands and their values")  # noqa: TRY004 - a bad value, whatever its type
    read = Interface()
    for name, values in value.items():
        if not isinstance(values, list):
            raise ValueError(f"{name!r}: its values are no list")  # noqa: TRY004 - as above
        if name in REGISTERS and REGISTERS[name].allows(values):
            read = read.with_values(name, tuple(values))
        elif name in reporting.SETTINGS and reporting.SETTINGS[name].allows(values):
            read = replace(read, reports={**read.reports, name: tuple(values)})
        elif name in PORT_DEFAULTS and all(isinstance(one, str) and _PORT_VALUE.fullmatch(one) for one in values):
            read = replace(read, port={**read.port, name: tuple(values)})
        else:
            raise ValueError(f"{name!r}: no such command, or a value that it can't have")
    return read


def is_remembered(command: Command) -> bool:
    """Whether the module keeps per port what a command sets, so that `remembering` is called once it was taken."""
    return command.name in PORT_DEFAULTS and command.op is Op.SET


def prelude(
    commands: Iterable[Command], interface: Interface, present: Mapping[str, str], home: str
) -> tuple[Command, ...]:
    """Return the set commands to send before these, in the same turn, so that they find what their instance has set.

    `present`: the arguments that the port was last given since its set-up, by command, whoever gave them; "" for not
    known. What is not in it is at its default. `home`: the memory that the daemon keeps selected, "" if not known yet.
    """
    needed = {name for command in commands for name in _NEEDS.get(command.name, ())}
    found = []
    for name, default in PORT_DEFAULTS.items():
        if name not in needed:
            continue
        wanted = _written(name, interface.port.get(name, default), home)
        if wanted and present.get(name, _written(name, default, home)) != wanted:
            found.append(Command(name, Op.SET, wanted))
    return tuple(found)


_PORT_VALUE: Final = re.compile(r'[0-9]{0,3}|"[A-Za-z0-9 ,/:+-]{0,32}"')
"""A number, a name, or the absolute time of a validity period (3GPP TS 27.005 3.1)."""
_MEMORIES: Final = 3
_ALL: Final = ("+CMGF", "+CSCS", "+CPMS", "+CSMP")
_NEEDS: Final[Mapping[str, tuple[str, ...]]] = {
    **dict.fromkeys(("+CMGL", "+CMGR", "+CMSS", "+CMGW", "+CMGS", "+CMGC", "+CNMA"), _ALL),
    "+CMGD": ("+CPMS",),
    **{name: (name,) for name in _ALL},
    **dict.fromkeys(("+CPBR", "+CPBF", "+CPBW", "+CUSD", "+COPS", "+CNUM", "+COPN", "+CSCA"), ("+CSCS",)),
}
"""What each command finds its way by."""


def _written(name: str, values: tuple[str, ...], home: str) -> str:
    if name == "+CPMS":
        memory = f'"{home}"' if home else ""
        filled = [value or memory for value in (*values, *("",) * (_MEMORIES - len(values)))]
        values = tuple(takewhile(bool, filled))
    return ",".join(values)
