# SPDX-License-Identifier: Apache-2.0
"""A provisioning script of the vendor's style, typed at each door of the real program; and where its secrets went."""

import contextlib
import json
import os
import re
import select
import sqlite3
import subprocess
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.scenarios.conftest import Stage
from tests.scenarios.players import LOGIN, PASSWORD, PATIENCE, Daemon, Module, until
from tests.support.ports import free_port

FLEET = "+393468686711"
SECRETS = ("1234567890123456", "secret-word-77", PASSWORD)
SCRIPT = {
    "sms config": "AT#SMSATRUNCFG=3,1,2",
    "number": 'AT#SMSATWL=0,3,0,"+39349*"',
    "password": f'AT#SMSATWL=0,4,1,"{SECRETS[0]}"',
    "tcp config": 'AT#TCPATRUNCFG=1,2,{port},12345,"212.141.125.127",1,5,1,5,2',
    "firewall": 'AT#TCPATRUNFRWL=2;#TCPATRUNFRWL=1,"217.0.0.0","255.0.0.0";#TCPATRUNFRWL=1,"127.0.0.0","255.0.0.0"',
    "login": f'AT#TCPATRUNAUTH=1,"maint","{SECRETS[1]}" // who may come in',
    "socket": "AT#SCFG=1,1,300,0,600,1",
    "delay": "AT#ATRUNDELAY=0,1",
    "sequence": "AT#TCPATCMDSEQ=1",
    "hazard": 'AT+CSCA="+393492000009",145',
    "listen": "AT#TCPATRUNL=1",
    "dial": "AT#TCPATRUND=1",
    "sms on": "AT#SMSATRUN=1",
    "sms config again": "AT#SMSATRUNCFG=2",
    "tcp config again": 'AT#TCPATRUNCFG=1,1,1,1,""',
}
"""What a fleet is provisioned with; `port` is one that is free."""
NEVER = {"dial", "sms config again", "tcp config again"}
"""Forbidden by CMD-2 at every door: each service is on by then."""
OF_ADMINS = {"number", "password", "firewall", "login", "hazard"}
"""Refused from afar unless the configuration says otherwise."""

Say = Callable[[str], str]
"""Takes a line and returns the final result."""

FINAL = re.compile(r"^(OK|ERROR|\+CME ERROR: .*)\r?$", re.MULTILINE)


def final(text: str) -> str:
    found = FINAL.findall(text)
    assert len(found) == 1, text
    return str(found[0])


def by_nc(daemon: Daemon, module: Module) -> contextlib.AbstractContextManager[Say]:
    """As scripts do: CR alone."""
    del module
    return over_tcp("nc", daemon, "\r")


def by_telnet(daemon: Daemon, module: Module) -> contextlib.AbstractContextManager[Say]:
    """As the note's users do: Enter, which telnet sends as CR LF."""
    del module
    return over_tcp("telnet -E", daemon, "\n")


@contextlib.contextmanager
def over_tcp(client: str, daemon: Daemon, enter: str) -> Iterator[Say]:
    host, port = daemon.tcp
    program = subprocess.Popen([*client.split(), host, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert program.stdin is not None
    assert program.stdout is not None
    sink, source = program.stdin, program.stdout.fileno()

    def say(line: str) -> str:
        sink.write(f"{line}{enter}".encode())
        sink.flush()
        return heard(source)

    try:
        sink.write(LOGIN.replace(b"\r", enter.encode()))
        yield say
    finally:
        program.kill()
        program.communicate()


@contextlib.contextmanager
def by_terminal(daemon: Daemon, module: Module) -> Iterator[Say]:
    del module
    descriptor = os.open(daemon.folder / "at1", os.O_RDWR | os.O_NOCTTY)
    tty.setraw(descriptor)

    def say(line: str) -> str:
        os.write(descriptor, f"{line}\r".encode())
        return heard(descriptor)

    try:
        yield say
    finally:
        os.close(descriptor)


def heard(source: int) -> str:
    """Read until there is a final result."""
    text = ""
    while not FINAL.search(text) or not text.endswith("\n"):
        ready, _, _ = select.select([source], [], [], PATIENCE)
        assert ready, f"nothing behind {text!r}"
        piece = os.read(source, 4096).decode("latin-1")
        assert piece, f"closed behind {text!r}"
        text += piece
    return final(text)


@contextlib.contextmanager
def by_socket(daemon: Daemon, module: Module) -> Iterator[Say]:
    del module
    yield lambda line: final(daemon.ctl("at", line).stdout)


@contextlib.contextmanager
def by_sms(daemon: Daemon, module: Module) -> Iterator[Say]:
    del daemon

    def say(line: str) -> str:
        before = len(module.ask("sent")["sent"])
        module.ask("sms", **{"from": FLEET, "text": line})
        answers = until(lambda: module.ask("sent")["sent"][before:], f"an answer to {line}")
        return str(answers[0]["text"])

    yield say


@contextlib.contextmanager
def by_mqtt(daemon: Daemon, module: Module) -> Iterator[Say]:
    del module
    broker = daemon.broker  # type: ignore[attr-defined]
    yield lambda line: str(json.loads(broker.request(line))["final"] or "ERROR")


OVER_TCP = {"nc", "telnet"}
DOORS = {"nc": by_nc, "telnet": by_telnet, "terminal": by_terminal, "local": by_socket, "sms": by_sms, "mqtt": by_mqtt}


def started(stage: Stage, door: str, *, admin: bool) -> tuple[Daemon, Module]:
    module = stage.module()
    broker = stage.broker() if door == "mqtt" else None
    daemon = stage.daemon(module, broker)
    daemon.broker = broker  # type: ignore[attr-defined]
    daemon.configure(
        tcp={"enabled": door in OVER_TCP, "idle_timeout": 0},
        sms={"enabled": door == "sms", "numbers": [FLEET] if door == "sms" else []},
        local={"terminals": [str(daemon.folder / "at1")], "terminal_group": ""},
        log={"level": "debug"},
    )
    if admin:
        allow = {"hazards": "allow"}
        daemon.configure(policy={"remote_admin": ["sms", "tcp", "mqtt"], "sms": allow, "tcp": allow, "mqtt": allow})
    return daemon.start(), module


def refused(door: str, *, admin: bool) -> set[str]:
    """What of the script is an error at a door."""
    found = NEVER | ({"tcp config"} if door in OVER_TCP else set()) | ({"sms config"} if door == "sms" else set())
    if door in {*OVER_TCP, "sms", "mqtt"} and not admin:
        found |= OF_ADMINS | ({"tcp config"} if door == "sms" else set())
    return found


READ = (
    "#SMSATRUN #SMSATRUNCFG #SMSATWL #TCPATRUNCFG #TCPATRUNFRWL #TCPATRUNAUTH #SCFG #TCPATCMDSEQ #TCPATRUNL #TCPATRUND"
)


def reading(daemon: Daemon) -> dict[str, list[str]]:
    """What each read form says, by its name."""
    done = daemon.ctl("at", "AT" + ";".join(f"{name}?" for name in READ.split()))
    assert done.stdout.endswith("OK\n"), done
    said = [line.partition(": ") for line in done.stdout.splitlines()]
    return {name: [rest for prefix, _, rest in said if prefix.rstrip(":") == name] for name in READ.split()}


def outputs(daemon: Daemon, *further: str) -> str:
    """All that can be seen of the daemon save its ledger's table of settings, which holds them in clear."""
    assert daemon.program is not None
    pid = daemon.program.process.pid
    process = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
    ledger = sqlite3.connect(f"file:{daemon.state}/ledger.db?mode=ro", uri=True)
    with contextlib.closing(ledger):
        queries = [f"SELECT * FROM {table}" for table in ("audit", "meta", "messages", "outbox")]  # noqa: S608 - ours
        tables = [ledger.execute(query).fetchall() for query in queries]
    shown = [daemon.ctl(*words) for words in (("status",), ("status", "--json"), ("at", "AT#SMSATWL?;#TCPATRUNAUTH?"))]
    said = [done.stdout + done.stderr for done in shown]
    return "\n".join([daemon.text, process.decode("latin-1"), repr(tables), *said, *further])


@pytest.mark.parametrize("admin", [False, True], ids=["as shipped", "remote_admin"])
@pytest.mark.parametrize("door", DOORS)
def test_a_fleets_script(stage: Stage, door: str, *, admin: bool) -> None:
    daemon, module = started(stage, door, admin=admin)
    ear = stage.ear(daemon.broker) if door == "mqtt" else None  # type: ignore[attr-defined]
    port = free_port()
    with DOORS[door](daemon, module) as say:
        finals = {name: say(line.replace("{port}", str(port))) for name, line in SCRIPT.items()}
    wrong = refused(door, admin=admin)
    assert {name for name, said in finals.items() if "ERROR" in said} == wrong, finals
    assert not [name for name in set(SCRIPT) - wrong if finals[name].strip() != "OK"], finals

    read = reading(daemon)
    passes = {name for name in SCRIPT if name not in wrong}
    assert read["#SMSATRUN"] == ["1"]
    assert read["#SMSATRUNCFG"] == ["3,1,2" if "sms config" in passes else "3,1,5"]
    white = {3: '0,"+39349*"', 4: f'1,"{"*" * 16}"'} if "number" in passes else {}
    white |= {1: f'0,"{FLEET}"'} if door == "sms" else {}
    assert read["#SMSATWL"] == [white.get(slot, "") for slot in range(1, 9)]
    assert ("212.141.125.127" in str(read["#TCPATRUNCFG"])) == ("tcp config" in passes)
    rules = ['"217.0.0.0","255.0.0.0"', '"127.0.0.0","255.0.0.0"']
    assert (read["#TCPATRUNFRWL"] == rules) == ("firewall" in passes)
    assert ("maint" in str(read["#TCPATRUNAUTH"])) == ("login" in passes)
    assert "1,1,300,0,600,1" in read["#SCFG"]
    assert read["#TCPATCMDSEQ"] == ["1"]
    assert read["#TCPATRUNL"] == ["1,1"]
    assert read["#TCPATRUND"] == ["0,0"]

    messages = [] if ear is None else ear.messages
    heard_there = [f"{one.topic} {one.payload!r}" for one in messages if one.topic != "at/request"]  # that is ours
    assert bool(heard_there) == (door == "mqtt")
    everything = outputs(daemon, *heard_there)
    assert [secret for secret in SECRETS if secret in everything] == []
    for end in (daemon.stop, daemon.kill):
        end()
        daemon.start()
        assert reading(daemon) == read
    hidden = {entry["key"] for entry in daemon.status()["settings"]["hidden"]}
    assert "tcp.sequence" in hidden
    everything = outputs(daemon)
    assert [secret for secret in SECRETS if secret in everything] == []


def test_a_secret_that_only_the_configuration_knows(stage: Stage) -> None:
    """POL-3, `policy.mask`: in the log, in MQTT, in the audit, from the first command on."""
    broker = stage.broker()
    module = stage.module()
    module.ask("answer", command="AT#OEM=1,plantedmask", lines=["#OEM: 1,plantedmask"], always=True)
    daemon = stage.daemon(module, broker)
    daemon.configure(policy={"mask": ["#OEM=,*", "#OEM: ,*"]})
    daemon.start()
    ear = stage.ear(broker)
    assert daemon.ctl("at", "AT#OEM=1,plantedmask").stdout.endswith("OK\n")
    entry = daemon.heard("command", door="local")
    assert entry["command"] == "AT#OEM=1,****"
    heard = until(lambda: [one for one in ear.messages if one.topic == "event/response"], "the mirror")
    assert "plantedmask" not in outputs(daemon, *(f"{one.payload!r}" for one in heard))
