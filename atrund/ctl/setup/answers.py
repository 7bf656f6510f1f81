# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: RUF009 - option and section stand for dataclasses.field, which the rule knows and them not
"""What `atrunctl setup` has to know, from a file or a person, read as the configuration itself reads its options."""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import TypeVar

from atrund.atrun.secrets import Secret
from atrund.config import kinds, mqtt, values
from atrund.config.files import read_file
from atrund.config.reader import ConfigError, Mistake, Place, Refused, option, read_table, section

T = TypeVar("T")

LOGIN_FILE = "setup-login.password"
BROKER_FILE = "setup-broker.password"
"""Where passwords are kept, beside the main file."""

IDLE_TIMEOUT = 600
"""Seconds: a telnet that was left open must not keep the only place for long."""


def _network(value: object, place: Place) -> str:
    values.firewall_rule(value, place)
    if not isinstance(value, str):
        place.refuse("is a table", 'a network such as "217.0.0.0/8"')
    return value


@dataclass(frozen=True, slots=True)
class Module:
    """`port` "": the free AT port of the only module that there is."""

    port: str = option("", kinds.port_name)


@dataclass(frozen=True, slots=True)
class Sms:
    """Who may send commands; without numbers the door stays closed."""

    numbers: tuple[str, ...] = option((), kinds.items(values.white_list_entry, at_most=8, what="numbers"))


@dataclass(frozen=True, slots=True)
class Tcp:
    """The login; without `user` the door stays closed. `password` None: the one that is kept already."""

    user: str = option("", kinds.text(r"[^\x00-\x1f\x7f]{0,50}", "a name of 1 to 50 characters"))
    password: Secret | None = option(None, kinds.secret(kinds.tcp_password), key="password_file")
    listen: tuple[IPv4Address | IPv6Address, ...] = option(
        (IPv4Address("127.0.0.1"),), kinds.items(kinds.address, at_least=1, at_most=8, what="addresses")
    )
    port: int = option(1024, kinds.integer(1, 65535, "a port"))
    firewall: tuple[str, ...] = option(("127.0.0.0/8",), kinds.items(_network, at_most=21, what="networks"))
    trusted_interfaces: tuple[str, ...] = option(
        (), kinds.items(kinds.text(r"[^\s/:]{1,15}", "the name of a network interface"), at_most=16, what="names")
    )


@dataclass(frozen=True, slots=True)
class Mqtt:
    """The broker; without `host` there is none. `port` 0: 8883 with TLS, else 1883. `check`: whether it is tried."""

    host: str = option("", kinds.text(r"[A-Za-z0-9._:%-]{0,255}", 'a host name or address, or "" for none'))
    port: int = option(0, kinds.integer(0, 65535, "a port"))
    tls: bool = option(False, kinds.flag)
    insecure: bool = option(False, kinds.flag)
    ca_file: Path | None = option(None, kinds.public_file)
    cert_file: Path | None = option(None, kinds.public_file)
    key_file: Path | None = option(None, kinds.private_file)
    user: str = option("", kinds.text(r"[^\x00-\x1f\x7f]{0,256}", "at most 256 characters"))
    password: Secret | None = option(None, kinds.secret(kinds.mqtt_password), key="password_file")
    prefix: str = option("atrund", mqtt.topic_prefix)
    remote_at: bool = option(False, kinds.flag)
    check: bool = option(True, kinds.flag)


@dataclass(frozen=True, slots=True)
class Answers:
    """All of it."""

    module: Module = section(Module)
    sms: Sms = section(Sms)
    tcp: Tcp = section(Tcp)
    mqtt: Mqtt = section(Mqtt)


def read_answers(path: Path) -> Answers:
    """Read a file of answers; relative names of files in it stand beside it. Raises `ConfigError`."""
    answers, mistakes = read_table(Answers, read_file(path), Place("", (path.absolute().parent,)))
    if not answers.mqtt.host:
        for name in ("user", "password", "ca_file", "cert_file", "key_file", "remote_at"):
            if getattr(answers.mqtt, name):
                key = "password_file" if name == "password" else name
                mistakes.append(Mistake(f"mqtt.{key}", "is set while mqtt.host is not", "mqtt.host as well"))
    if answers.tcp.password is not None and not answers.tcp.user:
        mistakes.append(Mistake("tcp.password_file", "a password without a user", "tcp.user as well"))
    if mistakes:
        raise ConfigError(path, tuple(mistakes))
    return answers


def fitting(cls: type[T], key: str, value: object, folder: Path) -> T:
    """Return the table with one value in it. Raises `Refused` with what is wrong about that."""
    table, mistakes = read_table(cls, {key: value}, Place("", (folder,)))
    if mistakes:
        raise Refused(*mistakes)
    return table


def sections(answers: Answers, *, login: bool, broker: bool) -> Mapping[str, Mapping[str, object]]:
    """Return what is to stand in the file. `login`, `broker`: whether there is a password of each."""
    made: dict[str, dict[str, object]] = {"module": {"port": answers.module.port}}
    if answers.sms.numbers:
        made["sms"] = {"enabled": True, "numbers": list(answers.sms.numbers)}
    tcp = answers.tcp
    if tcp.user:
        made["tcp"] = {
            "enabled": True,
            "listen": list(map(str, tcp.listen)),
            "port": tcp.port,
            "firewall": list(tcp.firewall),
        }
        if tcp.trusted_interfaces:
            made["tcp"]["trusted_interfaces"] = list(tcp.trusted_interfaces)
        users = [{"name": tcp.user, "password_file": LOGIN_FILE}] if login else []
        made["tcp"] |= {"users": users, "step_login": True, "idle_timeout": IDLE_TIMEOUT}
    if answers.mqtt.host:
        made["mqtt"] = _mqtt(answers.mqtt, password=broker)
    return made


def _mqtt(answers: Mqtt, *, password: bool) -> dict[str, object]:
    made: dict[str, object] = {"enabled": True, "host": answers.host}
    made["port"] = answers.port or (8883 if answers.tls else 1883)
    for name in ("tls", "insecure", "remote_at"):
        if getattr(answers, name):
            made[name] = True
    for name in ("ca_file", "cert_file", "key_file"):
        path = getattr(answers, name)
        if path is not None:
            made[name] = str(path.absolute())
    if answers.prefix != "atrund":
        made["prefix"] = answers.prefix
    if answers.user:
        made["user"] = answers.user
        if password:
            made["password_file"] = BROKER_FILE
    return made
