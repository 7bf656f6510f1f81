# SPDX-License-Identifier: Apache-2.0
"""Administering a running daemon by atrunctl: what would happen, settings, doors, lists; secrets nowhere to be seen."""

import json
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.scenarios.conftest import Stage
from tests.scenarios.players import PASSWORD, USER, Caller, Daemon, Module, until

SMS_PASSWORD = "pl4nted-s3cret-1"
TCP_PASSWORD = "pl4nted-s3cret-2"
NUMBER = "+393468686711"


@pytest.fixture
def daemon(stage: Stage) -> Daemon:
    daemon = stage.daemon()
    daemon.configure(sms={"enabled": False})
    return daemon.start()


def done(daemon: Daemon, *arguments: str) -> str:
    result = daemon.ctl(*arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout


def failed(daemon: Daemon, *arguments: str, code: int = 1) -> str:
    result = daemon.ctl(*arguments)
    assert result.returncode == code, result
    return result.stderr


def secret(folder: Path, text: str) -> str:
    file = folder / text
    file.touch(mode=0o600)
    file.write_text(f"{text}\n")
    return str(file)


def recorded(daemon: Daemon, event: str, **wanted: object) -> dict[str, Any]:
    return daemon.heard(event, door="local", **wanted)


def test_explaining_runs_nothing(stage: Stage) -> None:
    module = stage.module()
    daemon = stage.daemon(module).start()
    module.ask("seen", clear=True)
    said = done(daemon, "explain", "--door", "sms", "--peer", NUMBER, "AT+CSQ;+CFUN=4")
    assert "+CFUN=4: refused by hazard" in said
    assert "way back: AT+CFUN=1" in said
    assert "But: the sms door is off: AT#SMSATRUN=1 switches it on." in said
    assert "But: this number is not on the white list" in said
    told = json.loads(done(daemon, "explain", "--json", "--door", "local", "AT#SMSATRUN=2"))
    assert told["decision"] == "allowed"
    (note,) = told["notes"]
    assert note.startswith("#SMSATRUN: <mod> is missing or out of range; (0,1) would be right: answered +CME ERROR")
    assert "allowed by firewall[0]" in done(daemon, "explain", "--door", "tcp", "--peer", "127.0.0.1")
    assert "refused by firewall" in done(daemon, "explain", "--door", "tcp", "--peer", "10.1.2.3")
    assert "no IP address" in failed(daemon, "explain", "--door", "tcp", "--peer", "nobody")
    assert not [line for line in module.seen if "CFUN" in line or "CSQ" in line]
    assert daemon.status()["sms"]["state"] == "off"


def test_lists_are_changed_and_kept_across_a_restart(daemon: Daemon) -> None:
    assert done(daemon, "whitelist", "add", NUMBER) == f"{NUMBER} is in place 1\n"
    assert "already, in place 1" in done(daemon, "whitelist", "add", NUMBER)
    password = secret(daemon.folder, SMS_PASSWORD)
    assert done(daemon, "sms", "password", "set", "--slot", "3", "--password-file", password).endswith("place 3\n")
    assert "place 3 is taken" in failed(daemon, "whitelist", "add", "+1", "--slot", "3")
    assert done(daemon, "firewall", "add", "10.0.0.0/8") == "10.0.0.0/255.0.0.0 is let in\n"
    assert done(daemon, "user", "add", "guest", "--password-file", secret(daemon.folder, TCP_PASSWORD))
    daemon.kill()
    daemon.start()
    assert done(daemon, "whitelist", "list").splitlines()[:4] == [f"1  {NUMBER}", "2  -", "3  (password)", "4  -"]
    assert done(daemon, "firewall", "list").splitlines() == ["127.0.0.1/255.255.255.255", "10.0.0.0/255.0.0.0"]
    assert done(daemon, "user", "list").splitlines() == [USER, "guest"]
    with Caller(daemon.tcp, login=False) as caller:
        caller.send(f"guest\r{TCP_PASSWORD}\r".encode())
        assert b"OK" in caller.ask(b"AT#TCPATRUNL?\r")
    done(daemon, "firewall", "remove", "10.0.0.0/8")
    done(daemon, "user", "remove", "guest")
    done(daemon, "whitelist", "remove", NUMBER)
    done(daemon, "whitelist", "remove", "--slot", "3")
    assert set(done(daemon, "whitelist", "list").split()) == {*"12345678", "-"}


def test_what_a_full_list_says(daemon: Daemon) -> None:
    for digit in range(8):
        done(daemon, "whitelist", "add", f"+39{digit}")
    assert "all 8 places are taken: atrunctl whitelist list" in failed(daemon, "whitelist", "add", "+398")
    for digit in range(4):
        done(daemon, "firewall", "add", f"10.0.0.{digit}")
    assert "all 5 rules are taken: atrunctl firewall list" in failed(daemon, "firewall", "add", "10.0.0.9")


def test_a_password_that_can_not_be_taken(daemon: Daemon) -> None:
    short = secret(daemon.folder, "short")
    assert "it has 5 characters" in failed(daemon, "sms", "password", "set", "--password-file", short, code=2)
    assert "there is no terminal to ask at" in failed(daemon, "user", "passwd", USER, code=2)
    quoted = secret(daemon.folder, 'a"b')
    assert "a quote" in failed(daemon, "user", "passwd", USER, "--password-file", quoted, code=2)
    with Caller(daemon.tcp) as caller:
        assert b"OK" in caller.ask(b"AT#TCPATRUNL?\r")


def test_another_password_counts_at_once(daemon: Daemon) -> None:
    done(daemon, "user", "passwd", USER, "--password-file", secret(daemon.folder, TCP_PASSWORD))
    with Caller(daemon.tcp, login=False) as caller:
        caller.send(f"{USER}\r{TCP_PASSWORD}\r".encode())
        assert b"OK" in caller.ask(b"AT#TCPATRUNL?\r")
    assert PASSWORD not in done(daemon, "nvm", "show")


def test_settings_show_where_they_come_from(daemon: Daemon) -> None:
    done(daemon, "at", "AT#TCPATCMDSEQ=1")
    rows = {line.split()[0]: line for line in done(daemon, "nvm", "show", "tcp").splitlines()}
    assert rows["tcp.enabled"].split() == ["tcp.enabled", "true", "file"]
    assert "command: local uid" in rows["tcp.sequence"]
    assert rows["tcp.sequence"].endswith("hides the file's")
    status = done(daemon, "status")
    assert "key=tcp.sequence  door=local" in status
    assert done(daemon, "nvm", "reset", "tcp.sequence") == "as the file says again: tcp.sequence\n"
    assert done(daemon, "nvm", "reset", "tcp.sequence") == "all follow the file already\n"
    assert done(daemon, "at", "AT#TCPATCMDSEQ?").startswith("#TCPATCMDSEQ: 0")
    assert "key=tcp.sequence" not in done(daemon, "status")
    assert "tcp.sequenz: no such setting" in failed(daemon, "nvm", "reset", "tcp.sequenz")


def test_export_and_import(daemon: Daemon, stage: Stage) -> None:
    done(daemon, "whitelist", "add", NUMBER)
    done(daemon, "sms", "password", "set", "--password-file", secret(daemon.folder, SMS_PASSWORD))
    done(daemon, "at", "AT#SMSATRUN=1")
    plain = daemon.ctl("nvm", "export")
    assert json.loads(plain.stdout)["settings"] == {"sms.enabled": True, "sms.whitelist.1": {"number": NUMBER}}
    assert "left out" in plain.stderr
    assert "sms.whitelist.2" in plain.stderr
    file = daemon.folder / "export.json"
    assert "FILE is missing" in failed(daemon, "nvm", "export", "--secrets", code=2)
    whole = daemon.ctl("nvm", "export", "--secrets", str(file))
    assert "holds passwords in clear" in whole.stderr
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert SMS_PASSWORD in file.read_text()
    assert SMS_PASSWORD not in plain.stdout + plain.stderr + whole.stdout + whole.stderr

    other = stage.daemon(folder="other")
    other.configure(sms={"enabled": False})
    other.start()
    assert done(other, "nvm", "import", str(file)) == "3 settings imported\n"
    assert other.status()["sms"]["state"] != "off"
    assert done(other, "whitelist", "list").splitlines()[:2] == [f"1  {NUMBER}", "2  (password)"]
    assert recorded(other, "settings imported")
    done(other, "nvm", "reset", "sms")
    assert other.status()["sms"]["state"] == "off"
    assert recorded(other, "settings reset")
    for one in (daemon, other):
        assert SMS_PASSWORD not in one.text


def test_an_import_is_whole_or_nothing(daemon: Daemon) -> None:
    file = daemon.folder / "import.json"
    settings = {
        "sms.urc": False,
        "sms.instance": 9,
        "tcp.users.2": {"name": "guest", "password": "****"},
        "no.such": 1,
    }
    file.write_text(json.dumps({"format": "atrund settings 1", "settings": settings}))
    said = failed(daemon, "nvm", "import", str(file))
    assert "nothing was imported" in said
    assert "tcp.users.2: its secret is masked" in said
    del settings["tcp.users.2"]
    file.write_text(json.dumps({"format": "atrund settings 1", "settings": settings}))
    said = failed(daemon, "nvm", "import", str(file))
    assert "sms.instance: is no whole number from 1 to 3" in said
    assert "no.such: no such setting" in said
    settings = {"sms.enabled": True, "sms.instance": 2}
    file.write_text(json.dumps({"format": "atrund settings 1", "settings": settings}))
    assert "instance 2 would be held by sms and tcp server" in failed(daemon, "nvm", "import", str(file))
    assert json.loads(done(daemon, "nvm", "export"))["settings"] == {}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no JSON"),
        ("[]", "no export of settings"),
        ('{"settings": {}}', "no export of settings"),
        ('{"format": "atrund settings 1", "settings": {}, "more": 1}', "'more' does not belong there"),
        ('{"format": "atrund settings 1"}', "settings: missing"),
        ('{"format": "atrund settings 1", "settings": {"sms.urc": true, "sms.urc": false}}', "stands there twice"),
        ('{"format": "atrund settings 1", "settings": {"tcp.timeout": 1e999}}', "out of all range"),
        (" " * 70_000, "no export is as long"),
        ("[" * 50_000, "import.json: "),
    ],
)
def test_a_file_that_is_no_export(shared: Daemon, text: str, says: str) -> None:
    file = shared.folder / "import.json"
    file.write_text(text)
    assert says in failed(shared, "nvm", "import", str(file), code=2)


@pytest.fixture(scope="module")
def shared(shared_stage: Stage) -> Daemon:
    daemon = shared_stage.daemon()
    daemon.configure(sms={"enabled": False})
    return daemon.start()


def test_a_bad_night(stage: Stage) -> None:
    module: Module = stage.module()
    daemon = stage.daemon(module)
    daemon.configure(sms={"enabled": True, "numbers": [NUMBER]})
    daemon.start()
    address = daemon.tcp
    with Caller(address) as caller:
        assert b"OK" in caller.ask(b"AT#TCPATRUNL?\r")
        assert "closed: sms, tcp, until" in done(daemon, "doors", "close", "tcp", "sms")
        assert caller.rest() == b""
    with pytest.raises(ConnectionRefusedError):
        Caller(address)
    status = daemon.status()
    assert (status["doors"]["closed"], status["tcp"]["state"], status["sms"]["state"]) == (["sms", "tcp"], "off", "off")
    assert "an operator closed the tcp door" in done(daemon, "explain", "--door", "tcp", "AT")
    assert "atrunctl doors open tcp" in done(daemon, "explain", "--door", "tcp", "AT")
    assert done(daemon, "at", "AT#TCPATRUNL?") == "#TCPATRUNL: 1,0\nOK\n"
    assert daemon.ctl("at", "AT#TCPATRUNL=1").returncode == 1
    module.ask("sms", **{"from": NUMBER, "text": "AT+CGMI"})
    assert done(daemon, "doors", "open", "tcp", "sms") == "closed: none\n"
    until(lambda: daemon.status()["sms"]["state"] == "open", "the sms door open")
    assert not daemon.logged("command", door="sms")
    with Caller(daemon.tcp) as caller:
        assert b"OK" in caller.ask(b"AT#TCPATRUNL?\r")
    for door in ("tcp", "sms"):
        assert recorded(daemon, "door closed", reason=door)["peer"].startswith("uid ")
        assert recorded(daemon, "door opened", reason=door)
    shut = daemon.ctl("doors", "close", "mqtt", "tcp")
    assert (shut.returncode, shut.stdout.partition(", until")[0]) == (0, "closed: tcp")
    assert "mqtt.enabled" in shut.stderr
    assert daemon.stop() == 0
    daemon.start()
    assert daemon.status()["doors"]["closed"] == []
    assert daemon.status()["tcp"]["state"] == "open"


def test_mqtt_closed(stage: Stage) -> None:
    broker = stage.broker()
    daemon = stage.daemon(stage.module(), broker).start()
    ear = stage.ear(broker)
    done(daemon, "doors", "close", "mqtt")
    broker.publish("at/request", '{"cmd":"AT+CSQ","id":"no"}')
    assert ear.hear("at/response", id="no")["reason"] == "policy"
    done(daemon, "at", "AT+CGMI")
    assert ear.hear("event/response", cmd="AT+CGMI")["state"] == "ok"
    assert ear.hear("event/session", event="door closed")["reason"] == "mqtt"
    done(daemon, "doors", "open", "mqtt")
    assert json.loads(broker.request('{"cmd":"AT+CSQ"}'))["state"] == "ok"


def test_locked_settings(stage: Stage) -> None:
    daemon = stage.daemon()
    daemon.file.write_text("")
    daemon.configure()
    daemon.file.write_text("locked = true\n" + daemon.file.read_text())
    daemon.start()
    assert "locked = true" in failed(daemon, "whitelist", "add", NUMBER)
    assert "locked = true" in failed(daemon, "firewall", "add", "10.0.0.1")
    password = secret(daemon.folder, TCP_PASSWORD)
    assert "locked = true" in failed(daemon, "user", "passwd", USER, "--password-file", password)
    file = daemon.folder / "import.json"
    file.write_text('{"format": "atrund settings 1", "settings": {"sms.urc": false}}')
    assert "locked = true" in failed(daemon, "nvm", "import", str(file))
    assert "locked = true" in failed(daemon, "nvm", "reset", "sms.urc")
    assert "locked = true" in done(daemon, "nvm", "show")
    assert "locked = true" in done(daemon, "explain", "--door", "local", f'AT#SMSATWL=0,1,0,"{NUMBER}"')


def test_secrets_are_in_no_process_list(daemon: Daemon) -> None:
    """While a password is asked for, the arguments of atrunctl are all that others can see."""
    command = ["user", "passwd", USER, "--password-file", "-"]
    program = [sys.executable, "-m", "atrund.ctl.main", "--socket", str(daemon.socket), *command]
    assert TCP_PASSWORD not in " ".join(program)
    result = subprocess.run(program, input=f"{TCP_PASSWORD}\n", capture_output=True, text=True, timeout=30, check=False)
    assert (result.returncode, result.stdout) == (0, f"{USER} has another password\n")
    assert TCP_PASSWORD not in daemon.text
    seen = done(daemon, "status") + done(daemon, "nvm", "show") + done(daemon, "nvm", "show", "--json")
    assert TCP_PASSWORD not in seen
    state = b"".join(path.read_bytes() for path in daemon.folder.glob("*.log"))
    assert TCP_PASSWORD.encode() not in state


def test_without_a_daemon(stage: Stage) -> None:
    daemon = stage.daemon()
    for arguments in (
        ("explain", "--door", "local", "AT"),
        ("nvm", "show"),
        ("doors", "close", "tcp"),
        ("whitelist", "list"),
        ("user", "list"),
        ("firewall", "list"),
    ):
        assert "Is it running?" in failed(daemon, *arguments, code=3)
