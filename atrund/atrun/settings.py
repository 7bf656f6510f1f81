# SPDX-License-Identifier: Apache-2.0
"""What NVM holds, as frozen values with their defaults (CMD-1); `stored.py` has their names, ranges and rows.

Rules of this file: a setting has one dotted name, the configuration file's where that has it; commands change settings
by name alone, so that what a command set is known and counts before the file's value. Times are seconds.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from typing import Any, Final

from atrund.atrun import events
from atrund.atrun.events import Event
from atrund.atrun.interface import Interface
from atrund.atrun.secrets import Secret

WHITE_LIST_MAX: Final = 8
PASSWORDS_MAX: Final = 2
PASSWORD_LENGTH: Final = 16
FIREWALL_MAX: Final = 5
LOGINS_MAX: Final = 3
LOGIN_TEXT_MAX: Final = 50
INSTANCES: Final = 3
SOCKETS: Final = 6

NUMBER: Final = re.compile(r"\+?[0-9]{1,20}\*?")
"""A white-listed number (SMS-10)."""
HOST: Final = re.compile(r"[A-Za-z0-9._:%-]{0,255}")


@dataclass(frozen=True, slots=True)
class Rule:
    """A firewall rule as `#TCPATRUNFRWL` has it (TCP-2)."""

    address: IPv4Address
    mask: IPv4Address


@dataclass(frozen=True, slots=True)
class Login:
    """Who may log in over TCP (`#TCPATRUNAUTH`)."""

    name: str
    password: Secret


Entry = str | Secret
"""An entry of the white list: a number, or a password."""


@dataclass(frozen=True, slots=True)
class Sms:
    """`#SMSATRUN`, `#SMSATRUNCFG`, `#SMSATWL`. The event monitor has the same `instance`."""

    enabled: bool = False
    instance: int = 3
    urc: bool = True
    timeout: float = 300
    whitelist: tuple[Entry | None, ...] = field(default=(None,) * WHITE_LIST_MAX, repr=False)

    @property
    def numbers(self) -> tuple[str, ...]:
        """The white-listed numbers."""
        return tuple(entry for entry in self.whitelist if isinstance(entry, str))

    @property
    def passwords(self) -> tuple[Secret, ...]:
        """The passwords for digests."""
        return tuple(entry for entry in self.whitelist if isinstance(entry, Secret))


@dataclass(frozen=True, slots=True)
class Client:
    """The client's part of `#TCPATRUNCFG`, and `#TCPATRUND`."""

    enabled: bool = False
    host: str = ""
    port: int = 1024
    retries: int = 0
    retry_delay: float = 120


@dataclass(frozen=True, slots=True)
class Socket:
    """`#SCFG` and `#SCFGEXT` of one connId; `keepalive`, `idle_timeout`: 0 = none."""

    cid: int = 1
    packet_size: int = 300
    idle_timeout: float = 90
    connect_timeout: float = 60
    send_timeout: float = 5
    sr_mode: int = 0
    receive_mode: int = 0
    keepalive: float = 0
    listen_auto_response: int = 0
    send_mode: int = 0


@dataclass(frozen=True, slots=True)
class Tcp:
    """`#TCPATRUNCFG`, `#TCPATRUNL` (`enabled`), the firewall's IPv4 rules, the logins, `#TCPATCMDSEQ`, the sockets."""

    enabled: bool = False
    conn_id: int = 1
    instance: int = 2
    port: int = 1024
    urc: bool = True
    timeout: float = 300
    step_login: bool = False
    client: Client = field(default_factory=Client)
    firewall: tuple[Rule | None, ...] = (None,) * FIREWALL_MAX
    users: tuple[Login | None, ...] = (None,) * LOGINS_MAX
    sequence: bool = False
    socket: tuple[Socket, ...] = (Socket(),) * SOCKETS

    @property
    def own_socket(self) -> Socket:
        """The socket settings of the service's connId."""
        return self.socket[self.conn_id - 1]

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The firewall's IPv4 rules."""
        return tuple(rule for rule in self.firewall if rule is not None)

    @property
    def logins(self) -> tuple[Login, ...]:
        """Who may log in."""
        return tuple(login for login in self.users if login is not None)


@dataclass(frozen=True, slots=True)
class Monitor:
    """`#ENAEVMONI`, `#ENAEVMONICFG`, `#EVMONI`; `event` by label."""

    enabled: bool = False
    urc: bool = True
    timeout: float = 300
    event: Mapping[str, Event] = field(
        default_factory=lambda: {label: events.default_event(label) for label in events.EVENTS}
    )


@dataclass(frozen=True, slots=True)
class Profiles:
    """What `&W` stored of one instance, and which of the two a restart loads (`&Y`, `&P`)."""

    profile0: Interface | None = None
    profile1: Interface | None = None
    start: int = 0

    def load(self, number: int) -> Interface:
        """Return a stored profile, the factory's where none was stored."""
        return (self.profile1 if number else self.profile0) or Interface()

    @property
    def at_start(self) -> Interface:
        """What the instance begins with."""
        return self.load(self.start)


@dataclass(frozen=True, slots=True)
class Settings:
    """All of it. `value` and `changed` go by the dotted names of `stored.KEYS`."""

    sms: Sms = field(default_factory=Sms)
    tcp: Tcp = field(default_factory=Tcp)
    monitor: Monitor = field(default_factory=Monitor)
    instance: tuple[Profiles, ...] = (Profiles(),) * INSTANCES

    def value(self, key: str) -> Any:  # noqa: ANN401 - each key has its own type
        """Return the value of a setting by its name, one of `stored.KEYS`; a list's entries are counted from 1."""
        found: Any = self
        for step in key.split("."):
            found = _in(found, step)
        return found

    def changed(self, values: Mapping[str, Any]) -> "Settings":
        """Return settings with these values, by name; the values are those of the dataclasses, within their ranges."""
        settings = self
        for key, value in values.items():
            settings = _put(settings, key.split("."), value)
        return settings


def slots(entries: Iterable[Any], count: int) -> tuple[Any, ...]:
    """Return a list of the file as the slots of a setting, in order; what is over `count` is left out."""
    given = tuple(entries)[:count]
    return (*given, *(None,) * (count - len(given)))


def fits_password(text: str) -> bool:
    """Whether a text can be a white-list password: 16 printable ASCII characters."""
    return len(text) == PASSWORD_LENGTH and text.isascii() and text.isprintable()


def fits_login(text: str) -> bool:
    """Whether a text can be a user name or a password of the TCP login."""
    return 0 < len(text) <= LOGIN_TEXT_MAX and text.isprintable()


def _in(holder: Any, step: str) -> Any:  # noqa: ANN401 - any of the dataclasses, tuples, mappings
    if isinstance(holder, tuple):
        return holder[int(step) - 1]
    return holder[step] if isinstance(holder, Mapping) else getattr(holder, step)


def _put(holder: Any, path: list[str], value: Any) -> Any:  # noqa: ANN401 - any of the dataclasses, tuples, mappings
    if not path:
        return value
    step, *rest = path
    inner = _put(_in(holder, step), rest, value)
    if isinstance(holder, tuple):
        at = int(step) - 1
        return (*holder[:at], inner, *holder[at + 1 :])
    return {**holder, step: inner} if isinstance(holder, Mapping) else replace(holder, **{step: inner})
