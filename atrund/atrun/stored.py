# SPDX-License-Identifier: Apache-2.0
"""Every setting by its name, and as a row of the ledger: strict when it is read back (CMD-1, CMD-4).

Rules of this file: one setting is one row, so that each can be put back to the file's value alone; an error names the
key and never shows a value.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from ipaddress import IPv4Address
from typing import Any, Final

from atrund.atrun import events
from atrund.atrun.events import Event
from atrund.atrun.interface import from_json
from atrund.atrun.secrets import MASK, Secret, mask_line
from atrund.atrun.settings import (
    FIREWALL_MAX,
    HOST,
    INSTANCES,
    LOGINS_MAX,
    NUMBER,
    PASSWORDS_MAX,
    SOCKETS,
    WHITE_LIST_MAX,
    Entry,
    Login,
    Rule,
    Settings,
    fits_login,
    fits_password,
)


class SettingError(ValueError):
    """A stored value that can't be used: `key` names it, the text says what was wrong; it never shows the value."""

    def __init__(self, key: str, wrong: str) -> None:
        super().__init__(f"{key}: {wrong}")
        self.key = key


def dump(settings: Settings, key: str) -> str:
    """Return the stored form of one setting, secrets in clear: for the ledger alone."""
    return json.dumps(KEYS[key].dump(settings.value(key)), separators=(",", ":"))


def shown(settings: Settings, key: str) -> str:
    """Return one setting as it may be shown to a person at the device: as stored, its secrets masked."""
    kind = KEYS[key]
    return json.dumps((kind.show or kind.dump)(settings.value(key)), separators=(",", ":"), ensure_ascii=False)


def to_rows(settings: Settings, keys: Iterable[str] | None = None) -> dict[str, str]:
    """Return the stored forms of these settings, of all by default."""
    return {key: dump(settings, key) for key in (KEYS if keys is None else keys)}


def load(key: str, text: str) -> Any:  # noqa: ANN401 - each key has its own type
    """Read the stored form of one setting. Raises `SettingError`."""
    kind = KEYS.get(key)
    if kind is None:
        raise SettingError(key, "no such setting")
    try:
        return kind.load(json.loads(text))
    except RecursionError:
        raise SettingError(key, "is nested too deep") from None
    except json.JSONDecodeError:
        raise SettingError(key, "is not JSON") from None
    except ValueError as error:
        raise SettingError(key, str(error)) from None


def from_rows(rows: Mapping[str, str], base: Settings) -> tuple[Settings, tuple[SettingError, ...]]:
    """Lay stored values over `base` (the file's); a bad one is reported, and the base's value stays.

    What single values can't tell is made right, and reported: a third password, a login twice, both modes of TCP.
    """
    errors: list[SettingError] = []
    settings = base
    for key, text in rows.items():
        try:
            settings = settings.changed({key: load(key, text)})
        except SettingError as error:
            errors.append(error)
    return _reconciled(settings, rows, errors), tuple(errors)


@dataclass(frozen=True, slots=True)
class Kind:
    """How a setting is stored: `load` is strict and raises `ValueError`; `show` is `dump` without secrets."""

    load: Callable[[Any], Any]
    dump: Callable[[Any], Any] = lambda value: value
    show: Callable[[Any], Any] | None = None

    @property
    def secret(self) -> bool:
        """Whether its values hold secrets, so that `shown` is for people and `dump` for the ledger."""
        return self.show is not None


def _reconciled(settings: Settings, rows: Mapping[str, str], errors: list[SettingError]) -> Settings:
    left_out: dict[str, Any] = {}
    passwords = 0
    for key in _WHITE_LIST:
        passwords += isinstance(settings.value(key), Secret)
        if isinstance(settings.value(key), Secret) and passwords > PASSWORDS_MAX:
            errors.append(SettingError(key, f"a password beyond the {PASSWORDS_MAX} that can be; it is left out"))
            left_out[key] = None
    names: set[str] = set()
    for key in _USERS:
        login = settings.value(key)
        if login is not None and login.name in names:
            errors.append(SettingError(key, "a login by a name that another has; it is left out"))
            left_out[key] = None
        names |= set() if login is None else {login.name}
    if settings.tcp.enabled and settings.tcp.client.enabled:
        key = "tcp.enabled" if "tcp.client.enabled" in rows and "tcp.enabled" not in rows else "tcp.client.enabled"
        errors.append(SettingError(key, "TCP server and client are both on; this one is left off"))
        left_out[key] = False
    return settings.changed(left_out)


def _flag(value: Any) -> bool:  # noqa: ANN401 - whatever JSON held
    if not isinstance(value, bool):
        raise ValueError("is neither true nor false")  # noqa: TRY004 - a bad value of a row, whatever its type
    return value


def _whole(low: int, high: int) -> Kind:
    def read(value: Any) -> int:  # noqa: ANN401 - whatever JSON held
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"is no whole number from {low} to {high}")
        return value

    return Kind(read)


def _seconds(low: float, high: float) -> Kind:
    def read(value: Any) -> float:  # noqa: ANN401 - whatever JSON held
        if type(value) not in {int, float} or not low <= value <= high:
            raise ValueError(f"is no number of seconds from {low:g} to {high:g}")
        return float(value)

    return Kind(read)


def _host(value: Any) -> str:  # noqa: ANN401 - whatever JSON held
    if not isinstance(value, str) or HOST.fullmatch(value) is None:
        raise ValueError("is no host name or address")
    return value


def _entry(value: Any) -> Entry | None:  # noqa: ANN401 - whatever JSON held
    match value:
        case None:
            return None
        case {"number": str(number), **rest} if not rest and NUMBER.fullmatch(number):
            return number
        case {"password": str(password), **rest} if not rest and fits_password(password):
            return Secret(password)
    raise ValueError("is neither a number nor a password")


def _dump_entry(entry: Entry | None) -> dict[str, str] | None:
    match entry:
        case None:
            return None
        case Secret():
            return {"password": entry.reveal()}
    return {"number": entry}


def _show_entry(entry: Entry | None) -> dict[str, str] | None:
    return {"password": MASK} if isinstance(entry, Secret) else _dump_entry(entry)


def _rule(value: Any) -> Rule | None:  # noqa: ANN401 - whatever JSON held
    match value:
        case None:
            return None
        case {"address": str(address), "mask": str(mask), **rest} if not rest:
            return Rule(IPv4Address(address), IPv4Address(mask))
    raise ValueError("is no address with its mask")


def _dump_rule(rule: Rule | None) -> dict[str, str] | None:
    return None if rule is None else {"address": str(rule.address), "mask": str(rule.mask)}


def _login(value: Any) -> Login | None:  # noqa: ANN401 - whatever JSON held
    match value:
        case None:
            return None
        case {"name": str(name), "password": str(password), **rest} if (
            not rest and fits_login(name) and fits_login(password)
        ):
            return Login(name, Secret(password))
    raise ValueError("is no name with its password")


def _dump_login(login: Login | None) -> dict[str, str] | None:
    return None if login is None else {"name": login.name, "password": login.password.reveal()}


def _show_login(login: Login | None) -> dict[str, str] | None:
    return None if login is None else {"name": login.name, "password": MASK}


def _event(label: str) -> Kind:
    def read(value: Any) -> Event:  # noqa: ANN401 - whatever JSON held
        if not isinstance(value, dict) or set(value) != {spec.name for spec in fields(Event)}:
            raise ValueError("is no event with all that belongs to one")
        command, parameters = value["command"], value["parameters"]
        texts = (command, value["door"], value["peer"])
        if not all(isinstance(text, str) for text in texts) or not isinstance(value["forgeable"], bool):
            raise ValueError("is no event: a text or a flag is none")
        if events.read_command(command) != command:
            raise ValueError("holds a command that can't be run")
        if not isinstance(parameters, list) or not events.allows_parameters(label, parameters):
            raise ValueError("holds a parameter that is out of range")
        return Event(**{**value, "on": _flag(value["on"]), "parameters": tuple(parameters)})

    return Kind(read, _dump_event, _show_event)


def _dump_event(event: Event) -> dict[str, Any]:
    return {spec.name: getattr(event, spec.name) for spec in fields(event)}


def _show_event(event: Event) -> dict[str, Any]:
    return {**_dump_event(event), "command": mask_line(event.command)}


_PROFILE: Final = Kind(
    lambda value: None if value is None else from_json(value),
    lambda interface: None if interface is None else interface.to_json(),
)
_FLAG: Final = Kind(_flag)
_ENTRY: Final = Kind(_entry, _dump_entry, _show_entry)
_RULE: Final = Kind(_rule, _dump_rule)
_LOGIN: Final = Kind(_login, _dump_login, _show_login)

_WHITE_LIST: Final = tuple(f"sms.whitelist.{n}" for n in range(1, WHITE_LIST_MAX + 1))
_USERS: Final = tuple(f"tcp.users.{n}" for n in range(1, LOGINS_MAX + 1))

_SOCKET: Final = {
    "cid": _whole(0, 6),
    "packet_size": _whole(0, 1500),
    "idle_timeout": _seconds(0, 65535),
    "connect_timeout": _seconds(1, 120),
    "send_timeout": _seconds(0, 25.5),
    "sr_mode": _whole(0, 3),
    "receive_mode": _whole(0, 1),
    "keepalive": _seconds(0, 240 * 60),
    "listen_auto_response": _whole(0, 1),
    "send_mode": _whole(0, 1),
}

KEYS: Final[Mapping[str, Kind]] = {
    "sms.enabled": _FLAG,
    "sms.instance": _whole(1, INSTANCES),
    "sms.urc": _FLAG,
    "sms.timeout": _seconds(60, 3600),
    **dict.fromkeys(_WHITE_LIST, _ENTRY),
    "tcp.enabled": _FLAG,
    "tcp.conn_id": _whole(1, SOCKETS),
    "tcp.instance": _whole(1, INSTANCES),
    "tcp.port": _whole(0, 65535),  # 0: the kernel chooses, which only the file can say
    "tcp.urc": _FLAG,
    "tcp.timeout": _seconds(60, 300),
    "tcp.step_login": _FLAG,
    "tcp.client.enabled": _FLAG,
    "tcp.client.host": Kind(_host),
    "tcp.client.port": _whole(1, 65535),
    "tcp.client.retries": _whole(0, 5),
    "tcp.client.retry_delay": _seconds(60, 3600 * 60),
    **{f"tcp.firewall.{n}": _RULE for n in range(1, FIREWALL_MAX + 1)},
    **dict.fromkeys(_USERS, _LOGIN),
    "tcp.sequence": _FLAG,
    **{f"tcp.socket.{n}.{name}": kind for n in range(1, SOCKETS + 1) for name, kind in _SOCKET.items()},
    "monitor.enabled": _FLAG,
    "monitor.urc": _FLAG,
    "monitor.timeout": _seconds(60, 300),
    **{f"monitor.event.{label}": _event(label) for label in events.EVENTS},
    **{f"instance.{n}.{name}": _PROFILE for n in range(1, INSTANCES + 1) for name in ("profile0", "profile1")},
    **{f"instance.{n}.start": _whole(0, 1) for n in range(1, INSTANCES + 1)},
}
"""Every setting by its name."""
