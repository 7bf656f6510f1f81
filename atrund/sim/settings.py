# SPDX-License-Identifier: Apache-2.0
"""Commands that keep whole numbers or strings within ranges and give them back, and nothing else: a table of them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from atrund.at.syntax import Command, Op, unquote
from atrund.sim.steps import BAD_PARAMETER, Refused, number, parameters

if TYPE_CHECKING:  # for the annotations alone
    from atrund.sim.port import SimPort


@dataclass(frozen=True, slots=True)
class Text:
    """A quoted string of at most so many characters."""

    at_most: int = 64


Field: TypeAlias = range | Text


@dataclass(frozen=True, slots=True)
class Setting:
    """A command with a set, read and test form over its `fields`.

    `whole` settings belong to the module, others to the port. `test` is the text of the test form where the ranges do
    not say it; `shown` is put behind the values when they are read.
    """

    name: str
    fields: tuple[Field, ...]
    defaults: tuple[str, ...]
    whole: bool = False
    test: str | None = None
    shown: str = ""

    def __call__(self, port: "SimPort", command: Command) -> tuple[str, ...]:
        """Handle the command on a port."""
        match command.op:
            case Op.READ:
                return (f"{self.name}: {','.join(self.read(port))}{self.shown}",)
            case Op.TEST:
                return (f"{self.name}: {self.test or ','.join(map(_range_text, self.fields))}",)
            case Op.SET:
                self._values(port)[self.name] = self._checked(command)
                return ()
            case Op.EXECUTE:
                raise Refused

    def read(self, port: "SimPort") -> tuple[str, ...]:
        """Return the values in force."""
        return self._values(port).get(self.name, self.defaults)

    def _values(self, port: "SimPort") -> dict[str, tuple[str, ...]]:
        return port.module.values if self.whole else port.settings.values

    def _checked(self, command: Command) -> tuple[str, ...]:
        given = parameters(command, len(self.fields))
        out = []
        for position, (argument, allowed) in enumerate(zip(given, self.fields, strict=True)):
            if isinstance(allowed, Text):
                text = unquote(argument)
                if len(text) > allowed.at_most:
                    raise Refused(BAD_PARAMETER)
                out.append(f'"{text}"')
            else:
                # The first value has no default when it is set (V.250 5.4.4.2 would allow it; modules refuse it).
                default = int(self.defaults[position]) if position else None
                out.append(str(number(argument, allowed, default)))
        return tuple(out)


def with_status(port: "SimPort", command: Command, modes: range, status: str) -> tuple[str, ...]:
    """Handle a command that keeps a reporting mode and shows a status behind it."""
    match command.op:
        case Op.READ:
            return (f"{command.name}: {port.settings.number(command.name)}{status}",)
        case Op.TEST:
            return (f"{command.name}: ({modes.start}-{modes.stop - 1})",)
        case Op.SET:
            port.settings.values[command.name] = (str(number(parameters(command, 1)[0], modes)),)
            return ()
        case Op.EXECUTE:
            raise Refused


def _range_text(allowed: Field) -> str:
    if isinstance(allowed, Text):
        return ""
    if len(allowed) == 1:
        return f"({allowed.start})"
    return f"({allowed.start}{',' if len(allowed) == 2 else '-'}{allowed.stop - 1})"


_FLAG: Final = range(2)

SETTINGS: Final = {
    setting.name: setting
    for setting in (
        Setting("+CNMI", (range(4), range(4), range(4), range(3), _FLAG), ("0", "0", "0", "0", "0")),
        Setting("+CSDH", (_FLAG,), ("0",)),
        Setting("+CMER", (range(4), _FLAG, _FLAG, range(3), _FLAG), ("0", "0", "0", "0", "0")),
        Setting("+CGEREP", (range(3), _FLAG), ("0", "0")),
        Setting("+CLIP", (_FLAG,), ("0",), shown=",1"),
        Setting("+CRC", (_FLAG,), ("0",)),
        Setting("#SMOV", (_FLAG,), ("0",)),
        Setting("#STN", (_FLAG,), ("0",)),
        Setting("#NITZ", (range(16), _FLAG), ("7", "0")),
        Setting(
            "+IPR", (range(3000001),), ("0",), whole=True, test="(0,300,1200,2400,4800,9600,19200,38400,57600,115200)"
        ),
        Setting("+IFC", (range(5), range(5)), ("2", "2"), whole=True, test="(0-4),(0-4)"),
        Setting("+ICF", (range(6), range(6)), ("3", "0"), whole=True),
        Setting("#SMSMODE", (_FLAG,), ("1",), whole=True),
        Setting(
            "#BND", (range(4), range(9), range(252582048)), ("3", "0", "1"), whole=True, test="(0-3),(0,2,5,6),(1-1)"
        ),
        Setting("#SGACTAUTH", (range(3),), ("1",), whole=True),
        Setting("+WS46", (range(40),), ("22",), whole=True, test="(12,22,25)"),
        Setting("+CGSMS", (range(4),), ("1",), whole=True),
        Setting("#ENHRST", (range(3), range(65536)), ("0", "0"), whole=True),
        Setting("#SMSATRUN", (_FLAG,), ("0",), whole=True),
        Setting("#SMSATRUNCFG", (range(2, 4), _FLAG, range(1, 61)), ("3", "1", "5"), whole=True),
        Setting("#TCPATRUNL", (_FLAG,), ("0",), whole=True, shown=",0"),
        Setting("#TCPATRUND", (_FLAG,), ("0",), whole=True, shown=",0"),
        Setting("#ENAEVMONI", (_FLAG,), ("0",), whole=True, shown=",0"),
        Setting("#ENAEVMONICFG", (range(2, 4), _FLAG, range(1, 6)), ("3", "1", "5"), whole=True),
        Setting("#ESCRIPT", (Text(16),), ('""',), whole=True),
        Setting("+CSAS", (range(4),), ("0",), whole=True),
    )
}

AT_RUN: Final = frozenset({"#SMSATRUN", "#SMSATRUNCFG", "#TCPATRUNL", "#TCPATRUND", "#ENAEVMONI", "#ENAEVMONICFG"})
"""The module's own AT RUN services; the families named in `WITHOUT_AT_RUN` do not have them."""

WITHOUT_AT_RUN: Final = ("ME310", "ME910")
