# SPDX-License-Identifier: Apache-2.0
"""What `atrunctl doctor` learns of ModemManager: whether it runs, and which ports it uses. It is only asked."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from atrund.ctl.host import Host

SERVICE: Final = "org.freedesktop.ModemManager1"

IGNORED: Final = 9
"""MM_MODEM_PORT_TYPE_IGNORED of ModemManager's API (MMModemPortType, since 1.16): listed, but not used."""

MODEMS_MAX: Final = 16
"""Modems asked for with mmcli, one program each."""


@dataclass(frozen=True, slots=True)
class Manager:
    """ModemManager, as seen. `ports` are the names (`ttyUSB2`) that it uses; None where it could not be asked."""

    running: bool
    ports: frozenset[str] | None = None


def look(host: Host) -> Manager:
    """Look whether ModemManager runs, and if so ask it over D-Bus for its ports. Never starts it."""
    if not host.running("ModemManager"):
        return Manager(running=False)
    for ask in (_ask_busctl, _ask_mmcli):
        try:
            ports = ask(host)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):  # an answer of another shape
            continue
        if ports is not None:
            return Manager(running=True, ports=ports)
    return Manager(running=True)


def _ask_busctl(host: Host) -> frozenset[str] | None:
    call = ("org.freedesktop.DBus.ObjectManager", "GetManagedObjects")
    quiet = ("--system", "--auto-start=no", "--timeout=3", "--json=short")
    output = host.run(("busctl", *quiet, "call", SERVICE, "/org/freedesktop/ModemManager1", *call))
    if output is None:
        return None
    (objects,) = json.loads(output)["data"]
    ports = []
    for interfaces in objects.values():
        properties = interfaces.get(f"{SERVICE}.Modem", {})
        ports += [name for name, kind in properties.get("Ports", {"data": ()})["data"] if kind != IGNORED]
    return frozenset(ports)


def _ask_mmcli(host: Host) -> frozenset[str] | None:
    output = host.run(("mmcli", "--output-json", "--list-modems"))
    if output is None:
        return None
    return frozenset(_ports_of(host, json.loads(output)["modem-list"]))


def _ports_of(host: Host, modems: list[str]) -> Iterator[str]:
    for modem in modems[:MODEMS_MAX]:
        output = host.run(("mmcli", "--output-json", "--modem", modem))
        if output is None:
            raise ValueError(f"{modem}: mmcli doesn't tell its ports")
        for port in json.loads(output)["modem"]["generic"]["ports"]:
            name, _, kind = port.partition(" ")
            if kind != "(ignored)":
                yield name
