# SPDX-License-Identifier: Apache-2.0
"""Who may know whom: the whole table, held against every import in atrund, inside functions too."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOUSE = ROOT / "atrund"

PURE = ("table", "at", "sms", "atrun", "records", "control", "fields", "homeassistant")
DAEMON = (*PURE, "clock", "timer")
"""What every room of the daemon that does input or output may know."""
DOOR = (
    "runner",
    "run",
    "own",
    "instances",
    "mirror",
    "relay",
    "ledger",
    "module.store",
    "module.urc",
    "module.port",
    *DAEMON,
)
EVERY_OTHER = (
    "module", "doors", "runner", "mirror", "relay", "services", "bearer", "ledger", "journal", "broker", "service",
    "config", "usb", "modem", "making", "making_client", "nvm", "own", "instances", "reporter", "confirmations", "line",
    "steps", "walk", "ways", "run", "inbox", "admin", "telling", "metrics", "homeassistant", "activities",
    "upkeep",
    "activation", "watchdog", *DAEMON,
)  # fmt: skip

KNOWS: dict[str, tuple[str, ...]] = {
    "": (),
    "table": (),
    "at": ("table",),
    "sms": (),
    "records": (),
    "control": ("fields",),
    "fields": (),
    "clock": (),
    "timer": (),
    "usb": (),
    "tls": (),
    "atrun": ("table", "at", "sms", "records", "control"),
    "module": ("usb", *DAEMON),
    "ledger": DAEMON,
    "journal": DAEMON,
    "broker": ("ledger", "tls", *DAEMON),
    "service": DAEMON,
    "activation": (),
    "watchdog": (),
    "relay": DAEMON,
    "bearer": ("module", *DAEMON),
    "mirror": ("ledger", *DAEMON),
    "nvm": ("ledger", *DAEMON),
    "own": ("nvm", "ledger", *DAEMON),
    "instances": ("own", "module.urc", *DAEMON),
    "reporter": ("own", "module", *DAEMON),
    "confirmations": ("module", "ledger", "mirror", *DAEMON),
    "inbox": ("module", *DAEMON),
    "line": ("inbox", "own", "module", *DAEMON),
    "run": ("ledger", *DAEMON),
    "ways": ("inbox", "own", "confirmations", "module", "ledger", "mirror", *DAEMON),
    "steps": ("ways", "line", "run", "own", "confirmations", "module", "ledger", *DAEMON),
    "walk": ("steps", "ways", "line", "run", *DAEMON),
    "runner": ("walk", "ways", "run", "ledger", *DAEMON),
    "doors": DOOR,
    "doors.sms": (
        "doors.admission",
        "doors.answers",
        "doors.disposal",
        "doors.finding",
        "doors.recording",
        "doors.room",
        "doors.serving",
        "doors.verdicts",
        *DOOR,
    ),
    "doors.finding": ("doors.verdicts", *DOOR),
    "doors.serving": (
        "doors.admission",
        "doors.answers",
        "doors.disposal",
        "doors.recording",
        "doors.room",
        "doors.verdicts",
        *DOOR,
    ),
    "doors.admission": DOOR,
    "doors.answers": ("doors.reports", *DOOR),
    "doors.reports": DOOR,
    "doors.disposal": DOOR,
    "doors.recording": ("doors.verdicts", *DOOR),
    "doors.room": ("doors.disposal", "doors.verdicts", *DOOR),
    "doors.verdicts": DOOR,
    "doors.tcp": (
        "doors.certificates",
        "doors.connection",
        "doors.greeting",
        "doors.listening",
        "doors.login",
        "doors.wire",
        "tls",
        *DOOR,
    ),
    "doors.client": ("doors.connection", "doors.dialling", "doors.login", "doors.wire", *DOOR),
    "doors.dialling": ("doors.certificates", "doors.connection", "doors.wire", "tls", *DOOR),
    "doors.greeting": ("doors.certificates", "doors.connection", "doors.listening", "doors.wire", "tls", *DOOR),
    "doors.certificates": ("tls", *DOOR),
    "doors.connection": ("doors.login", "doors.transparent", "doors.wire", *DOOR),
    "doors.wire": ("doors.liveness", "tls", *DOOR),
    "doors.liveness": (),
    "doors.transparent": DOOR,
    "doors.login": DOOR,
    "doors.mqtt": ("doors.asking", "broker", *DOOR),
    "doors.asking": ("broker", *DOOR),
    "doors.local": ("doors.rights", *DOOR),
    "doors.terminal": ("doors.pseudo", "doors.rights", *DOOR),
    "doors.pseudo": ("doors.claim",),
    "doors.claim": (),
    "doors.rights": (),
    "doors.monitor": DOOR,
    "auditing": ("ledger", *DAEMON),
    "upkeep": ("ledger", "mirror", *DAEMON),
    "admin": ("auditing", "own", "nvm", "services", "ledger", "mirror", *DAEMON),
    "services": ("doors", "bearer", "ledger", "mirror", "confirmations", *DAEMON),
    "config": ("usb", "tls", *PURE),
    "modem": ("module", "ledger", "config", *DAEMON),
    "homeassistant": (),
    "activities": (),
    "metrics": ("runner", "modem", "services", "ledger", *DAEMON),
    "telling": ("metrics", "homeassistant", "mirror", "broker", "ledger", "config", *DAEMON),
    "making": (
        "module.store",
        "module.urc",
        "doors",
        "runner",
        "own",
        "instances",
        "mirror",
        "ledger",
        "broker",
        "bearer",
        "module.channel",
        "module.raw",
        "relay",
        "config",
        "activation",
        "admin",
        *DAEMON,
    ),
    "making_client": ("making", "doors", "bearer", "module.channel", "config", "tls", *DAEMON),
    "daemon": EVERY_OTHER,
    "reload": ("daemon", *EVERY_OTHER),
    "program": ("daemon", "reload", *EVERY_OTHER),
    "__main__": ("program",),
    "ctl": ("usb", "tls", *PURE),
    "ctl.audit": ("ctl", "ledger", *PURE),
    "ctl.setup": ("ctl", "config", "usb", "tls", *PURE),
    "sim": ("at", "sms"),
    "demo": ("sim", "ctl", "daemon", *EVERY_OTHER),
}
"""Each room (the longest prefix counts; `""` is the package itself) and the rooms that it may import beside itself."""

ONLY_IN = {
    "serial": ("module.port",),
    "serial_asyncio": ("module.port",),
    "paho": ("ctl.fleet_link", "broker.client", "broker.connection", "broker.lean"),
    "sqlite3": ("ledger",),
    "sdnotify": ("service",),
    "tomli": ("config",),
    "tomllib": (),
}
"""Libraries that one place knows."""

IMPURE = (
    "asyncio", "concurrent", "threading", "multiprocessing", "subprocess", "socket", "select", "selectors", "ssl",
    "os", "pty", "signal", "time", "random", "logging", "structlog", *ONLY_IN,
)  # fmt: skip
"""What a pure room must not know: time and input enter as events and leave as effects."""


def modules() -> list[str]:
    found = []
    for path in sorted(HOUSE.rglob("*.py")):
        name = ".".join(path.relative_to(HOUSE).with_suffix("").parts)
        found.append(name.removesuffix("__init__").removesuffix("."))
    return found


def source(module: str) -> Path | None:
    """The file of a module named from `atrund` on; None where there is none."""
    path = HOUSE.joinpath(*module.split(".")) if module else HOUSE
    for candidate in (path / "__init__.py", path.with_suffix(".py")):
        if candidate.is_file():
            return candidate
    return path if path.is_dir() else None


def inside(module: str, room: str) -> bool:
    return module == room or module.startswith(room + ".")


def room_of(module: str) -> str | None:
    """The room that a module belongs to; None for a module that no room of the table holds."""
    rooms = [room for room in KNOWS if (inside(module, room) if room else not module)]
    return max(rooms, key=len, default=None)


def imports(tree: ast.AST) -> Iterator[str]:
    """Every import by its full dotted name; `from package import module` names the module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module, "relative imports are not used here"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                ours = full.startswith("atrund.")
                yield full if ours and source(full.removeprefix("atrund.")) else node.module


def faults(module: str, tree: ast.AST) -> list[str]:
    """What a module imports against the table."""
    found = []
    room = room_of(module)
    for name in imports(tree):
        top, _, rest = name.partition(".")
        if top == "atrund":
            allowed = ("", *KNOWS[room or ""])
            if not any(inside(rest, other) if other else not rest for other in allowed) and room_of(rest) != room:
                found.append(f"{module} must not know {name}")
        elif top in ONLY_IN and not any(inside(module, place) for place in ONLY_IN[top]):
            found.append(f"{module} must not know {top}: that is for {', '.join(ONLY_IN[top]) or 'nobody'}")
        elif top in IMPURE and room in PURE:
            found.append(f"{module} is pure and must not know {top}")
    return found


@pytest.mark.parametrize("module", modules())
def test_a_module_knows_only_what_its_room_may_know(module: str) -> None:
    path = source(module)
    assert path is not None
    assert room_of(module) is not None, f"{module} is in no room of the table above"
    assert faults(module, ast.parse(path.read_text())) == []


@pytest.mark.parametrize(
    ("module", "line", "fault"),
    [
        ("at.reader", "import asyncio", "at.reader is pure and must not know asyncio"),
        ("records", "def f():\n import socket", "records is pure and must not know socket"),
        ("control", "from os.path import join", "control is pure and must not know os"),
        ("table", "import time", "table is pure and must not know time"),
        ("sms.pdu", "from atrund import table", "sms.pdu must not know atrund.table"),
        ("sms.pdu", "import atrund.at.syntax", "sms.pdu must not know atrund.at.syntax"),
        ("sms.pdu", "from atrund.at import syntax", "sms.pdu must not know atrund.at.syntax"),
        ("doors.tcp", "import atrund.doors.sms", "doors.tcp must not know atrund.doors.sms"),
        ("doors.tcp", "import atrund.module.channel", "doors.tcp must not know atrund.module.channel"),
        ("daemon", "import atrund.sim", "daemon must not know atrund.sim"),
        ("usb.names", "import atrund.at", "usb.names must not know atrund.at"),
        ("doors.sms", "import atrund.usb.sysfs", "doors.sms must not know atrund.usb.sysfs"),
        ("ctl.at", "import atrund.daemon", "ctl.at must not know atrund.daemon"),
        ("module.urc", "import serial", "module.urc must not know serial: that is for module.port"),
        ("runner", "import sqlite3", "runner must not know sqlite3: that is for ledger"),
        ("config", "import tomllib", "config must not know tomllib: that is for nobody"),
    ],
)
def test_the_check_sees_a_breach(module: str, line: str, fault: str) -> None:
    assert faults(module, ast.parse(line)) == [fault]


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("at.reader", "import re\nfrom atrund.at import results"),
        ("daemon", "import asyncio\nfrom atrund import __version__"),
        ("doors.mqtt", "import atrund.broker"),
        ("module.port", "import serial_asyncio"),
        ("demo", "import atrund.sim"),
    ],
)
def test_the_check_lets_pass_what_the_table_allows(module: str, line: str) -> None:
    assert faults(module, ast.parse(line)) == []


def test_every_library_of_the_table_is_real() -> None:
    ours = {"serial", "serial_asyncio", "paho", "sdnotify", "tomli", "structlog"}
    assert {*IMPURE, *ONLY_IN} <= sys.stdlib_module_names | ours
