# SPDX-License-Identifier: Apache-2.0
"""What starting the daemon with all its doors must not import: memory and start-up count on a router."""

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

pytestmark = pytest.mark.blackbox

ROOT: Final = Path(__file__).parents[1]

NEVER: Final = """
    bdb cgi cmd code csv curses decimal difflib distutils doctest fractions ftplib email html http importlib.metadata
    imaplib logging.config logging.handlers multiprocessing optparse pdb plistlib poplib profile pty pydoc readline
    smtplib socketserver statistics telnetlib timeit tkinter tomllib tracemalloc unittest urllib.request webbrowser
    wsgiref xml xmlrpc zipfile zoneinfo
    colorama hypothesis pkg_resources pytest serial.rfc2217 serial.tools setuptools typing_extensions yaml
    structlog.twisted
    atrund.ctl atrund.demo atrund.reload atrund.sim atrund.doors.client atrund.bearer.interface atrund.bearer.context
    atrund.atrun.escape atrund.doors.transparent atrund.module.raw atrund.relay
    atrund.homeassistant atrund.auditing atrund.ledger.chain
    atrund.tls atrund.broker.tls atrund.doors.certificates atrund.doors.greeting
    atrund.atrun.codes atrund.atrun.proofs atrund.doors.admission atrund.ledger.admissions atrund.sms.seal
    atrund.doors.reports atrund.sms.report
""".split()
"""Modules, and with each those inside it."""

DRAGGED: Final = {"pickle": "structlog._output"}
"""Heavy ones that are there all the same, and who brings them: where that one no longer does, they belong above."""

PROGRAM: Final = """
import builtins, json, sys
asked = {}
real = builtins.__import__
def ask(name, given=None, *rest, **options):
    before = set(sys.modules)
    try:
        return real(name, given, *rest, **options)
    finally:
        for new in set(sys.modules) - before:
            asked.setdefault(new, (given or {}).get("__name__", ""))
builtins.__import__ = ask
sys.path.insert(0, sys.argv[1])
from atrund.program import main
status = main(["--config", sys.argv[2]])
print(json.dumps({name: asked.get(name, "") for name, module in tuple(sys.modules.items()) if module is not None}))
sys.exit(status)
"""
"""The daemon, and at its end all modules that are there, each with the one whose import brought it first."""

CONFIGURATION: Final = """
state_dir = "{directory}"
[sms]
enabled = true
numbers = ["+393468686711"]
[tcp]
enabled = true
port = 0
firewall = ["127.0.0.0/8"]
users = [{{name = "operator", password_file = "{directory}/password"}}]
[mqtt]
enabled = true
remote_at = true
host = "127.0.0.1"
port = {port}
[local]
socket = "{directory}/sock"
"""


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """All modules of a daemon that was started and stopped, and who asked for each."""
    directory = tmp_path_factory.mktemp("d")
    password, file = directory / "password", directory / "atrund.toml"
    with (
        socket.socket() as nobody,  # bound and not listening: the broker is away
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify,
    ):
        nobody.bind(("127.0.0.1", 0))
        for path, text in (
            (password, "not a secret"),
            (file, CONFIGURATION.format(directory=directory, port=nobody.getsockname()[1])),
        ):
            path.touch(mode=0o600)
            path.write_text(text)
        notify.bind(str(directory / "notify"))
        notify.settimeout(30.0)
        command = [sys.executable, "-I", "-c", PROGRAM, str(ROOT), str(file)]
        environ = {"NOTIFY_SOCKET": str(directory / "notify")}
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ) as program:
            try:
                while b"READY=1" not in notify.recv(4096):
                    pass
            finally:
                program.send_signal(signal.SIGTERM)
                printed, said = program.communicate(timeout=30.0)
    assert program.returncode == 0, said.decode()
    found: dict[str, str] = json.loads(printed)
    return found


@pytest.mark.parametrize("module", NEVER)
def test_is_not_imported(imported: dict[str, str], module: str) -> None:
    there = [name for name in imported if name == module or name.startswith(module + ".")]
    assert not there, f"{there[0]} is imported by {imported[there[0]]}"


@pytest.mark.parametrize(("module", "by"), DRAGGED.items())
def test_is_imported_only_because_a_library_wants_it(imported: dict[str, str], module: str, by: str) -> None:
    assert imported[module] == by


def test_the_look_sees_what_the_daemon_is_made_of(imported: dict[str, str]) -> None:
    assert {"atrund.daemon", "asyncio", "paho.mqtt.client", "structlog", "sqlite3", "serial_asyncio"} <= imported.keys()
