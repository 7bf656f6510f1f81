# SPDX-License-Identifier: Apache-2.0
"""The questions of `atrunctl setup`, to a person at a terminal. What can't be is said, and asked for again."""

import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields, replace
from getpass import getpass
from ipaddress import ip_address
from pathlib import Path
from typing import Final, TypeVar

from atrund.atrun.secrets import Secret
from atrund.config import kinds
from atrund.config.reader import Refused
from atrund.ctl.asking import Failed
from atrund.ctl.setup.answers import Answers, Module, Mqtt, Sms, Tcp, fitting
from atrund.ctl.setup.steps import ADVICE, NO_MODULE
from atrund.ctl.terminal import printable

T = TypeVar("T", Module, Sms, Tcp, Mqtt)

LETTERS: Final = "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
LENGTH: Final = 20
"""Of a password that is made: 116 bits, and no two letters that look alike."""


class Questions:
    """Asks. `before` is what the file says now, `folder` that of the configuration."""

    def __init__(self, before: Mapping[str, object], folder: Path) -> None:
        self._before = before
        self._folder = folder
        self.made = ""
        """The password that was made and must be shown, if one was."""

    def ask(self, ports: list[str], *, login: bool, broker: bool) -> Answers:
        """Ask all. `ports` are free; `login` and `broker`: whether a password of each is kept. Raises `Failed`."""
        return Answers(self._module(ports), self._sms(), self._tcp(kept=login), self._mqtt(kept=broker))

    def _module(self, ports: list[str]) -> Module:
        now = str(self._now("module", "port", ""))
        for number, port in enumerate(ports, 1):
            print(f"  {number}  {printable(port)}")
        while True:
            default = now or (ports[0] if len(ports) == 1 else "")
            what = "The module's port" + (", or the number of one above" if ports else "; empty: end here")
            given = _line(what, default)
            if not given and not ports:
                raise Failed(f"{NO_MODULE}; {ADVICE}")
            if given.isdecimal() and 1 <= int(given) <= len(ports):
                given = ports[int(given) - 1]
            if given and (module := self._fits(Module, "port", given)) is not None:
                return module

    def _sms(self) -> Sms:
        what = "Numbers that may send commands by SMS, as +393401234567; -: none"
        return self._until(Sms, "numbers", what, self._list("sms", "numbers"))

    def _tcp(self, *, kept: bool) -> Tcp:
        users = self._now("tcp", "users", [])
        first = users[0] if isinstance(users, list) and users and isinstance(users[0], dict) else {}
        tcp = self._until(
            Tcp,
            "user",
            "Name of the login over TCP; -: none",
            str(first.get("name") or ("-" if self._before else "operator")),
        )
        if not tcp.user:
            return tcp
        tcp = replace(tcp, password=self._password(f"of {tcp.user}", kept=kept, make=True))
        tcp = self._carry(tcp, "tcp", "port")
        addresses = self._list("tcp", "listen") or "127.0.0.1"
        tcp = _with(tcp, self._until(Tcp, "listen", "Addresses to listen on", addresses), "listen")
        is_near = all(address.is_loopback for address in tcp.listen)
        if not is_near:
            what = "It is clear text: which interfaces (a VPN, a network of your own) may carry it; -: none"
            default = self._list("tcp", "trusted_interfaces")
            tcp = _with(tcp, self._until(Tcp, "trusted_interfaces", what, default), "trusted_interfaces")
        default = self._list("tcp", "firewall") or ("127.0.0.0/8" if is_near else "")
        what = "Networks that may connect, as 192.168.1.0/24; -: none"
        return _with(tcp, self._until(Tcp, "firewall", what, default), "firewall")

    def _mqtt(self, *, kept: bool) -> Mqtt:
        mqtt = self._until(
            Mqtt, "host", "The MQTT broker's name or address; -: none", str(self._now("mqtt", "host", "-"))
        )
        if not mqtt.host:
            return mqtt
        mqtt = replace(mqtt, tls=yes("TLS", default=bool(self._now("mqtt", "tls", not _is_loopback(mqtt.host)))))
        port = str(self._now("mqtt", "port", 8883 if mqtt.tls else 1883))
        mqtt = _with(mqtt, self._until(Mqtt, "port", "Its port", port), "port")
        if mqtt.tls:
            what = "File with the authority of its certificate; -: the system's"
            ca = str(self._now("mqtt", "ca_file", "-"))
            mqtt = _with(mqtt, self._until(Mqtt, "ca_file", what, ca), "ca_file")
        elif not _is_loopback(mqtt.host):
            mqtt = replace(mqtt, insecure=yes("Clear text can be read on the way. Use it all the same", default=False))
        user = self._until(Mqtt, "user", "User at the broker; -: none", str(self._now("mqtt", "user", "-")))
        mqtt = _with(mqtt, user, "user")
        if mqtt.user:
            mqtt = replace(mqtt, password=self._password(f"of {mqtt.user} at the broker", kept=kept, make=False))
        remote = yes("Run commands that come over MQTT", default=bool(self._now("mqtt", "remote_at", False)))
        return self._carry(replace(mqtt, remote_at=remote), "mqtt", "prefix", "cert_file", "key_file")

    def _password(self, whose: str, *, kept: bool, make: bool) -> Secret | None:
        """Ask for a password; None to keep the one that there is."""
        if kept and yes(f"Keep the password {printable(whose)}", default=True):
            return None
        while True:
            typed = getpass(f"Password {printable(whose)}{'; empty: one is made' if make else ''}: ")
            if not typed and make:
                self.made = "".join(secrets.choice(LETTERS) for _ in range(LENGTH))
                return Secret(self.made)
            wanted = kinds.tcp_password(typed) if make else kinds.mqtt_password(typed)
            if wanted is not None:
                print(f"  {wanted} would be right")
            elif typed == getpass("The same once more: "):
                return Secret(typed)
            else:
                print("  the two are not the same")

    def _until(self, cls: type[T], key: str, what: str, default: str) -> T:
        """Ask until it fits; `-` is nothing, and a list is separated by blanks or commas."""
        while True:
            given = _line(what, default)
            if (table := self._fits(cls, key, "" if given == "-" else given)) is not None:
                return table

    def _fits(self, cls: type[T], key: str, given: str) -> T | None:
        value: object = given
        spec = next(one for one in fields(cls) if one.name == key)
        if isinstance(spec.default, tuple):
            value = given.replace(",", " ").split()
        elif isinstance(spec.default, int) and given.isdecimal():
            value = int(given)
        try:
            return fitting(cls, key, value, self._folder)
        except Refused as refused:
            for mistake in refused.mistakes:
                print(f"  {mistake.wrong}; {mistake.right}")
            return None

    def _carry(self, table: T, section: str, *keys: str) -> T:
        """Keep what the file says of what is not asked for."""
        for key in keys:
            value = self._now(section, key, None)
            if value is not None:
                with suppress(Refused):
                    table = _with(table, fitting(type(table), key, value, self._folder), key)
        return table

    def _list(self, section: str, key: str) -> str:
        now = self._now(section, key, [])
        return " ".join(map(str, now)) if isinstance(now, list) else ""

    def _now(self, section: str, key: str, otherwise: object) -> object:
        table = self._before.get(section)
        return table.get(key, otherwise) if isinstance(table, dict) else otherwise


def yes(what: str, *, default: bool) -> bool:
    """Ask for a yes or a no."""
    while True:
        given = input(f"{what}? [{'Y/n' if default else 'y/N'}] ").strip().lower()
        if given in {"", "y", "yes", "n", "no"}:
            return given[0] == "y" if given else default


def _line(what: str, default: str) -> str:
    return input(f"{what}{f' [{printable(default)}]' if default else ''}: ").strip() or default


def _with(table: T, other: T, key: str) -> T:
    return replace(table, **{key: getattr(other, key)})


def _is_loopback(host: str) -> bool:
    try:
        return host.lower() == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
