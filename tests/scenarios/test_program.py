# SPDX-License-Identifier: Apache-2.0
"""The program itself: its configuration, its start with something missing, its end, its log."""

import os
import socket
import sqlite3
import stat
import struct
import subprocess
import time
from pathlib import Path

import pytest

from tests.scenarios.conftest import Stage
from tests.scenarios.players import PASSWORD, Caller, Daemon, until


def test_check_says_ok(stage: Stage) -> None:
    daemon = stage.daemon()
    assert daemon.begin("--check").wait() == 0
    assert daemon.text.endswith("ok\n")


def test_check_says_every_mistake_and_what_was_meant(stage: Stage) -> None:
    daemon = stage.daemon()
    daemon.configure(tcp={"prot": 1024}, mqtt={"enabled": "yes"}, module={"gap": -1})
    assert daemon.begin("--check").wait() == 2
    said = daemon.text
    assert "tcp.prot" in said
    assert "did you mean tcp.port?" in said
    assert "mqtt.enabled" in said
    assert "module.gap" in said
    assert said.rstrip().endswith("3 mistakes")
    assert PASSWORD not in said


def test_a_mistake_stops_the_start_with_the_same_code(stage: Stage) -> None:
    daemon = stage.daemon()
    daemon.configure(tcp={"prot": 1024})
    assert daemon.begin().wait() == 2
    assert not daemon.state.exists()


def test_a_file_that_is_not_there(stage: Stage) -> None:
    daemon = stage.daemon()
    daemon.configure()
    daemon.file.rename(stage.folder / "elsewhere")
    daemon.file.symlink_to(stage.folder / "nowhere")
    assert daemon.begin().wait() == 2
    assert "No such file" in daemon.text


def test_a_busy_tcp_port(stage: Stage) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        daemon = stage.daemon()
        daemon.configure(tcp={"port": other.getsockname()[1]})
        assert daemon.begin().wait() == 1
    (entry,) = daemon.logged("not started")
    assert "ddress already in use" in entry["detail"]
    assert not daemon.socket.exists()


def test_without_its_module_the_doors_are_open(stage: Stage) -> None:
    daemon = stage.daemon()
    daemon.configure(module={"port": str(stage.folder / "nothing")})
    daemon.begin()
    daemon.heard("doors open")
    with Caller(daemon.tcp) as caller:
        assert caller.ask(b"AT\r", b"ERROR\r\n") == b"AT\r\r\nERROR\r\n"
    assert daemon.heard("command", door="tcp", state="rejected", reason="port_down")
    done = daemon.ctl("at", "AT")
    assert (done.returncode, done.stdout) == (1, "+CME ERROR: 1\n")
    assert "port_down" in done.stderr
    assert daemon.stop() == 0


def test_a_module_that_comes_later_is_found(stage: Stage) -> None:
    daemon = stage.daemon()
    daemon.configure(module={"port": str(stage.folder / "module")})
    daemon.begin()
    daemon.heard("doors open")
    assert daemon.status()["module"]["state"] != "ready"
    stage.module()
    until(lambda: daemon.status()["module"]["state"] == "ready", "the module")
    assert daemon.ctl("at", "AT").returncode == 0


def test_without_its_state_directory(stage: Stage) -> None:
    """REQ-12: the fault is said, TCP and local go on so that it can be mended, MQTT is refused."""
    broker = stage.broker()
    daemon = stage.daemon(stage.module(), broker)
    daemon.state.write_text("a file where the directory should be")
    daemon.start()
    ear = stage.ear(broker)
    assert daemon.heard("ledger unusable; SMS stay unread and MQTT requests are refused")
    assert "ledger.db" in daemon.status()["ledger"]["state"]
    with Caller(daemon.tcp) as caller:
        assert caller.ask(b"AT\r") == b"AT\r\r\nOK\r\n"
    assert daemon.ctl("at", "AT").returncode == 0
    broker.publish("at/request", '{"cmd":"AT","id":"a"}')
    assert ear.hear("at/response", id="a")["reason"] == "storage"
    broker.publish("at/request", '{"cmd":"AT+CFUN=4","id":"b"}')
    assert ear.hear("at/response", id="b")["reason"] in {"storage", "policy"}
    answer = broker.request("AT+CSQ", "-D", "publish", "correlation-data", "c-1")
    assert '"reason":"storage"' in answer
    assert daemon.stop() == 0


def test_a_newer_ledger_is_refused_unharmed(stage: Stage) -> None:
    daemon = stage.daemon(stage.module())
    daemon.state.mkdir()
    file = daemon.state / "ledger.db"
    with sqlite3.connect(file) as db:
        db.execute("PRAGMA user_version=99")
        db.execute("CREATE TABLE of_the_future (x)")
    db.close()
    before = file.read_bytes()
    daemon.start()
    assert "written by a newer atrund" in daemon.status()["ledger"]["state"]
    with Caller(daemon.tcp) as caller:
        caller.ask(b"AT\r")
    assert daemon.stop() == 0
    assert file.read_bytes() == before
    assert [path.name for path in daemon.state.iterdir()] == ["ledger.db"]


@pytest.mark.parametrize("number", ["TERM", "INT"])
def test_a_clean_stop(stage: Stage, number: str) -> None:
    module = stage.module()
    daemon = stage.daemon(module).start()
    assert daemon.ctl("at", "AT").returncode == 0
    assert daemon.program is not None
    begun = time.monotonic()
    subprocess.run(["kill", f"-{number}", str(daemon.program.process.pid)], check=True)
    assert daemon.program.wait() == 0
    assert time.monotonic() - begun < 5
    assert daemon.logged("stopped")
    assert not daemon.socket.exists()
    assert not [entry for entry in daemon.log if entry["level"] == "error"]
    daemon.start()
    assert daemon.ctl("at", "AT").returncode == 0


def test_a_stop_gives_a_running_command_its_time(stage: Stage) -> None:
    module = stage.module()
    daemon = stage.daemon(module).start()
    module.ask("late", command="AT+GMI", seconds=1.0)
    with daemon.local() as link:
        link.sendall(b'{"op":"at","cmd":"AT+GMI"}\n')
        until(lambda: module.count("AT+GMI"), "the command at the module")
        assert daemon.stop() == 0
        said = link.makefile("rb").read()
    assert b'"state":"ok"' in said


def test_the_log_as_json(stage: Stage) -> None:
    daemon = stage.daemon(stage.module()).start()
    assert daemon.ctl("at", 'AT+CPIN="4711"').returncode == 1
    assert daemon.ctl("at", "AT+CSQ").returncode == 0
    entry = daemon.heard("command", command="AT+CSQ")
    assert entry["level"] == "info"
    assert entry["door"] == "local"
    assert entry["state"] == "ok"
    assert entry["final"] == "OK"
    assert isinstance(entry["duration_ms"], int)
    assert len(entry["id"]) == 32
    assert daemon.heard("command", command="AT+CPIN=****")
    assert "4711" not in daemon.text


def test_the_log_in_the_journal(stage: Stage) -> None:
    """Under systemd the log goes to the journal's socket with fields; here a socket of the test's own stands for it."""
    module = stage.module()
    daemon = stage.daemon(module)
    if os.geteuid() != 0 or Path("/run/systemd/journal/socket").exists():
        pytest.skip("needs a mount namespace of its own for the journal's socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(stage.folder / "journal"))
        journal.settimeout(15)
        daemon.configure(log={"format": "auto"})
        _start_under_a_journal(daemon, stage.folder / "journal")
        assert daemon.ctl("at", "AT+CSQ").returncode == 0
        while (entry := _fields(journal.recv(65536))).get("ATRUND_COMMAND") != "AT+CSQ":
            pass
        assert entry["SYSLOG_IDENTIFIER"] == "atrund"
        assert entry["PRIORITY"] == "6"
        assert len(entry["ATRUND_ID"]) == 32
        assert entry["ATRUND_DOOR"] == "local"
        assert entry["ATRUND_PEER"].startswith("uid ")
        assert entry["ATRUND_STATE"] == "ok"
        assert entry["ATRUND_FINAL"] == "OK"
        assert int(entry["ATRUND_DURATION_MS"]) >= 0
        assert daemon.text == ""


def _start_under_a_journal(daemon: Daemon, journal: Path) -> None:
    """Start the daemon in a mount namespace where `journal` lies at journald's place; its stderr is the journal's."""
    daemon.configure()
    daemon.folder.joinpath("atrund.log").touch()
    status = daemon.folder.joinpath("atrund.log").stat()
    daemon.environ = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
    assert stat.S_ISREG(status.st_mode)
    place = "/run/systemd/journal"
    script = f'mount -t tmpfs none /run && mkdir -p {place} && touch {place}/socket && mount --bind "$0" {place}/socket'
    daemon.wrap = ("unshare", "-m", "sh", "-ec", f'{script} && exec "$@"', str(journal))
    daemon.start()


def _fields(datagram: bytes) -> dict[str, str]:
    """Read systemd's native form."""
    found: dict[str, str] = {}
    while datagram:
        line, _, datagram = datagram.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (length,) = struct.unpack("<Q", datagram[:8])
            value, datagram = datagram[8 : 8 + length], datagram[8 + length + 1 :]
        found[name.decode()] = value.decode()
    return found
