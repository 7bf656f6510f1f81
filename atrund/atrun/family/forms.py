# SPDX-License-Identifier: Apache-2.0
"""What a command of the daemon's own is given, what it gives back, and how its arguments are read (CMD-1, CMD-2)."""

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from atrund.at.reader import Line
from atrund.at.syntax import unquote
from atrund.atrun.instance import code_of
from atrund.atrun.interface import Interface
from atrund.atrun.policy import Asker
from atrund.atrun.ranges import FLAG, Range, read_number, shown
from atrund.atrun.request import Reason
from atrund.atrun.settings import Settings


class Service(enum.Enum):
    """What can be switched on. SMSATRUN and the event monitor share an instance."""

    SMS = "sms"
    TCP_SERVER = "tcp server"
    TCP_CLIENT = "tcp client"
    MONITOR = "monitor"


@dataclass(frozen=True, slots=True)
class ServiceSet:
    """A service was switched on or off by `instance`, which is to see its unsolicited codes (CMD-3).

    Carried out before the answer; when it can't be, the answer is an error and the setting stays (TCP-11). `changed`:
    it was the other way before (SMS-2).
    """

    service: Service
    on: bool
    instance: int
    changed: bool


@dataclass(frozen=True, slots=True)
class CloseTcp:
    """The TCP connection is to be closed, the service stays on (TCP-10)."""


@dataclass(frozen=True, slots=True)
class EnterTransparent:
    """Behind the answer bytes flow between the connection and a serial port of the host (TCP-6)."""

    port: int
    rate: int


@dataclass(frozen=True, slots=True)
class Confirm:
    """A hazard stays as it is: its undo is dropped (POL-2)."""

    id: int


Effect = ServiceSet | CloseTcp | EnterTransparent | Confirm


@dataclass(frozen=True, slots=True)
class Delays:
    """`#ATRUNDELAY` of each service in seconds; kept until changed, not across a restart."""

    tcp: float = 0
    sms: float = 0


@dataclass(frozen=True, slots=True)
class Running:
    """What runs now. `client` is the <stat> of `#TCPATRUND`, `connected` whether its call is up.

    `held`: instances that somebody else has, and who. `data_call`: the port of the asker's instance is in one.
    `serial_ports`: those that the configuration names for `#TCPATCONSER`; `serial_rates`: the rates of each, where they
    are not the vendor's. `confirmations`: the line of each open one by its id, in order.
    """

    listening: bool = False
    client: int = 0
    connected: bool = False
    monitoring: bool = False
    data_call: bool = False
    held: Mapping[int, str] = field(default_factory=dict)
    serial_ports: tuple[int, ...] = ()
    serial_rates: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    confirmations: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Context:
    """What a command runs on: `instance` is the asker's and `interface` what it has set; `locked`: NVM is the file's.

    `remote_admin`: the configuration lets the asker's door administer the doors (CMD-2).
    """

    settings: Settings = field(default_factory=Settings)
    interface: Interface = field(default_factory=Interface)
    instance: int = 1
    asker: Asker = field(default_factory=Asker)
    remote_admin: bool = False
    locked: bool = False
    running: Running = field(default_factory=Running)
    delays: Delays = field(default_factory=Delays)


@dataclass(frozen=True, slots=True)
class Reply:
    """One command's answer, and what is to be kept and done if it is OK.

    `wrote` names the settings that the command set, changed or not: they are stored, synced, before `final` is given
    (CMD-4). `final` is as a module's under +CMEE=1. `detail` says what was wrong, and what would be right, to a person.
    `warnings` are recorded.
    """

    settings: Settings
    interface: Interface
    delays: Delays
    lines: tuple[str, ...] = field(default=(), repr=False)
    final: str = "OK"
    reason: Reason | None = None
    detail: str = ""
    wrote: tuple[str, ...] = ()
    effects: tuple[Effect, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether it was not refused."""
        return self.reason is None

    @property
    def answer(self) -> tuple[Line, ...]:
        """The lines as a module frames them: an empty line before the first."""
        return tuple(Line(line, lead=at == 0) for at, line in enumerate(self.lines))


@dataclass(frozen=True, slots=True)
class Done:
    """What a row gives back: the settings to store by name, and what else changes; None: as before."""

    values: Mapping[str, Any] = field(default_factory=dict, repr=False)
    interface: Interface | None = None
    delays: Delays | None = None
    effects: tuple[Effect, ...] = ()
    warnings: tuple[str, ...] = ()
    lines: tuple[str, ...] = field(default=(), repr=False)
    final: str = "OK"


class Refused(Exception):
    """A command that is not done."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail

    @property
    def final(self) -> str:
        """Its final result under +CMEE=1."""
        return f"+CME ERROR: {code_of(self.reason)}"


Set = Callable[[tuple[str, ...], Context], Done]
Read = Callable[[Context], tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Row:
    """One command: its set form, its read form (lines without the prefix), its test form (the same), its execution.

    `arguments` is how many the set form takes, at least and at most. A form that is None is refused. An execution is
    given the digits behind a basic command.
    """

    name: str
    set: Set | None = None
    arguments: tuple[int, int] = (1, 1)
    read: Read | None = None
    test: Read | None = None
    execute: Set | None = None
    prefix: bool = True


def bad(what: str, right: str) -> Refused:
    """Return the refusal of a parameter."""
    return Refused(Reason.BAD_REQUEST, f"{what}; {right} would be right")


def number(given: tuple[str, ...], at: int, name: str, allowed: Range, default: int | None = None) -> int:
    """Return the number at a place; the default where it is left out and may be. Raises `Refused`."""
    text = given[at] if at < len(given) else ""
    if text == "" and default is not None:
        return default
    value = read_number(text, allowed)
    if value is None:
        raise bad(f"<{name}> is missing or out of range", shown(allowed))
    return value


def flag(given: tuple[str, ...], at: int, name: str, default: int | None = None) -> bool:
    """Return 0 or 1 as a boolean. Raises `Refused`."""
    return number(given, at, name, FLAG, default) == 1


def text(given: tuple[str, ...], at: int, name: str) -> str:
    """Return the text at a place, its quotes off; one left out is empty. Raises `Refused` for a quote inside."""
    value = unquote(given[at]) if at < len(given) else ""
    if '"' in value:
        raise bad(f"<{name}> holds a quote", "a text in one pair of quotes")
    return value


def ranges(*allowed: Range | str) -> Read:
    """Return a test form of one line of ranges; a text stands as it is."""
    line = ",".join(one if isinstance(one, str) else shown(one) for one in allowed)
    return lambda _context: (line,)


def nothing(_context: Context) -> tuple[str, ...]:
    """Answer OK alone."""
    return ()


MINUTE: Final = 60


def minutes(seconds: float) -> int:
    """Return whole minutes, rounded up: the file may give other spans than a command can."""
    return -int(-seconds // MINUTE)
