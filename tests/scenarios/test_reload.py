# SPDX-License-Identifier: Apache-2.0
"""The configuration read anew while the real program runs: what is followed, what goes on, what is refused and said."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.scenarios.conftest import Stage
from tests.scenarios.players import PASSWORD, USER, Caller, Daemon, Module, until
from tests.support.ports import free_port

DONE = "configuration reloaded"
REFUSED = "configuration not reloaded, and nothing changed"
MISTAKE = "mistake in the configuration"


def hang_up(daemon: Daemon) -> None:
    assert daemon.program is not None
    daemon.program.process.send_signal(signal.SIGHUP)


def reload(daemon: Daemon, event: str = DONE) -> dict[str, Any]:
    """Have it read its file anew; returns the entry of the log that says what came of it."""
    before = len(daemon.logged(event))
    hang_up(daemon)
    until(lambda: len(daemon.logged(event)) > before, f"{event}: {daemon.text[-2000:]}")
    return daemon.logged(event)[-1]


@pytest.fixture
def module(stage: Stage) -> Module:
    return stage.module()


@pytest.fixture
def daemon(stage: Stage, module: Module) -> Daemon:
    return stage.daemon(module).start()


@contextmanager
def systemd(stage: Stage, daemon: Daemon) -> Iterator[socket.socket]:
    """A socket in the place of systemd's."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(stage.folder / "notify"))
        listener.settimeout(15)
        daemon.environ = {"NOTIFY_SOCKET": str(stage.folder / "notify")}
        yield listener


def test_new_rules_are_in_force_while_the_session_and_its_command_go_on(module: Module, daemon: Daemon) -> None:
    with Caller(daemon.tcp) as caller:
        assert caller.ask(b"AT\r") == b"AT\r\r\nOK\r\n"
        module.ask("late", command="AT+GMI", seconds=2.0)
        caller.send(b"AT+GMI\r")
        until(lambda: module.count("AT+GMI"), "the command at the module")
        daemon.configure(
            sms={"enabled": True, "numbers": ["+393468686711"]},
            policy={"mask": ["token=*"]},
            **{"policy.tcp": {"rules": [{"deny": "+CSQ"}]}},
        )
        said = reload(daemon)
        assert said["changed"] == "sms.enabled, sms.numbers, policy.mask, policy.tcp.rules"
        assert caller.read_until(b"\r\nOK\r\n").startswith(b"AT+GMI\r\r\nTelit")
        assert b"ERROR" in caller.ask(b"AT+CSQ\r", b"ERROR\r\n")
        until(lambda: daemon.status()["sms"]["state"] == "open", "the sms door")
        module.ask("sms", **{"from": "+393468686711"}, text="AT+CGMM")
        assert daemon.heard("command", door="sms", command="AT+CGMM", state="ok")
        assert daemon.ctl("at", "AT token=geheim7").returncode == 1
        assert "geheim7" not in daemon.text
    assert daemon.stop() == 0
    assert not daemon.logged("room failed")


def test_the_broker_is_left_connected_and_what_needs_a_restart_is_named_once(stage: Stage, module: Module) -> None:
    broker = stage.broker()
    daemon = stage.daemon(module, broker).start()
    ear = stage.ear(broker)
    daemon.configure(
        mqtt={"host": "localhost", "remote_at": False},
        module={"port": str(stage.folder / "elsewhere"), "telemetry": "1h"},
    )
    assert reload(daemon)["changed"] == "module.telemetry, mqtt.remote_at"
    assert daemon.logged("needs a restart: module.port, mqtt.host", level="warning")
    assert len([entry for entry in daemon.log if "needs a restart" in entry["event"]]) == 1
    assert daemon.status()["settings"]["needs_restart"] == ["module.port", "mqtt.host"]
    assert daemon.status()["module"]["state"] == "ready"
    broker.publish("at/request", '{"cmd":"AT","id":"a"}')
    assert ear.hear("at/response", id="a")["reason"] == "policy"
    daemon.configure(mqtt={"host": "127.0.0.1", "remote_at": True}, module={"port": str(module.link)})
    assert reload(daemon)["changed"] == "mqtt.remote_at"
    assert daemon.status()["settings"]["needs_restart"] == []
    broker.publish("at/request", '{"cmd":"AT","id":"b"}')
    assert ear.hear("at/response", id="b")["final"] == "OK"
    assert len(ear.records("status", state="online")) <= 1, "one connection all along"
    assert len(module.ask("seen")["seen"]) == 1


def test_who_is_shut_out_by_the_new_firewall_ends_behind_the_answer(module: Module, daemon: Daemon) -> None:
    with Caller(daemon.tcp) as caller:
        caller.ask(b"AT\r")
        module.ask("late", command="AT+GMI", seconds=1.0)
        caller.send(b"AT+GMI\r")
        until(lambda: module.count("AT+GMI"), "the command at the module")
        daemon.configure(tcp={"firewall": ["10.0.0.0/8"]})
        reload(daemon)
        assert caller.rest().endswith(b"OK\r\n")
    with pytest.raises(OSError, match=r"timed out|reset"):  # the kernel keeps strangers out, or the daemon does
        socket.create_connection(daemon.tcp, 1.0).recv(1)


@pytest.mark.parametrize("new", ["", "another"])
def test_whose_login_is_gone_or_another_is_out(stage: Stage, daemon: Daemon, new: str) -> None:
    if new:
        (stage.folder / "tcp-password").write_text(new)
    else:
        daemon.configure(tcp={"users": []})
    with Caller(daemon.tcp) as caller:
        caller.ask(b"AT\r")
        assert reload(daemon)["changed"] == "tcp.users"
        assert caller.rest() == b""
    with Caller(daemon.tcp) as caller:
        assert caller.rest() == b"", "with the old password nobody comes in"
    assert PASSWORD not in daemon.text


def test_another_tcp_port_counts_once_nobody_is_in(daemon: Daemon) -> None:
    port = free_port()
    old = daemon.tcp
    with Caller(old) as caller:
        caller.ask(b"AT\r")
        daemon.configure(tcp={"port": port})
        reload(daemon)
        assert caller.ask(b"AT\r").endswith(b"OK\r\n")
        assert daemon.tcp == old
    until(lambda: daemon.tcp == ("127.0.0.1", port), "the door on its new port")
    with Caller(daemon.tcp) as caller:
        caller.ask(b"AT\r")


def test_a_tcp_port_that_cant_be_had_leaves_the_door_where_it_is(daemon: Daemon) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        old = daemon.tcp
        daemon.configure(tcp={"port": other.getsockname()[1]})
        reload(daemon)
        assert "ddress already in use" in daemon.heard("a door is not as the configuration says")["detail"]
        with Caller(old) as caller:
            caller.ask(b"AT\r")


def test_mistakes_change_nothing_and_are_all_said(daemon: Daemon) -> None:
    good = daemon.file.read_text()
    before = daemon._look()["settings"]
    with Caller(daemon.tcp) as caller:
        caller.ask(b"AT\r")
        daemon.configure(tcp={"prot": 1, "firewall": ["10.0.0.0/8"]}, sms={"timeout": "1s"})
        assert reload(daemon, REFUSED)["mistakes"] == 2
        assert [entry["key"] for entry in daemon.logged(MISTAKE)] == ["sms.timeout", "tcp.prot"]
        assert "tcp.port" in daemon.logged(MISTAKE, key="tcp.prot")[0]["detail"]
        assert caller.ask(b"AT\r").endswith(b"OK\r\n")
        status = daemon.status()["settings"]
        assert status["not_reloaded"].startswith("2 mistakes in the configuration; the first: ")
    daemon.file.write_text(good)
    assert reload(daemon)["changed"] == "nothing"
    assert daemon.status()["settings"] == before


def _vanish(file: Path) -> None:
    file.unlink()


def _directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def _huge(file: Path) -> None:
    with file.open("ab") as opened:
        opened.truncate(100 * 1024**2)


def _no_toml(file: Path) -> None:
    file.write_bytes(b"[tcp\n\xff")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_vanish, "No such file"),
        (_directory, "Is a directory"),
        (_pipe, "no regular file"),
        (_huge, "too long"),
        (_no_toml, "not UTF-8"),
    ],
)
def test_a_file_that_is_none(daemon: Daemon, spoil: Any, said: str) -> None:  # noqa: ANN401 - a function of a path
    spoil(daemon.file)
    reload(daemon, REFUSED)
    assert said in daemon.heard(MISTAKE)["detail"]
    with Caller(daemon.tcp) as caller:
        caller.ask(b"AT\r")
    assert daemon.stop() == 0


def test_what_a_command_set_goes_before_the_file_and_is_listed(daemon: Daemon) -> None:
    assert daemon.ctl("at", 'AT#TCPATRUNFRWL=1,"192.0.2.0","255.255.255.0"').returncode == 0
    daemon.configure(tcp={"firewall": ["127.0.0.1/32", "198.51.100.0/24"], "timeout": "2m"})
    reload(daemon)
    listed = daemon.logged("setting of a command counts before the file's")
    assert [(entry["key"], entry["door"]) for entry in listed] == [("tcp.firewall.2", "local")]
    assert listed[0]["peer"].startswith("uid ")
    assert listed[0]["since"]
    shown = daemon.ctl("at", "AT#TCPATRUNFRWL?").stdout
    assert "192.0.2.0" in shown
    assert "198.51.100.0" not in shown
    text = daemon.file.read_text()
    daemon.file.write_text(f"locked = true\n{text}")
    assert reload(daemon)["changed"] == "locked"
    shown = daemon.ctl("at", "AT#TCPATRUNFRWL?").stdout
    assert "192.0.2.0" not in shown
    assert "198.51.100.0" in shown
    assert daemon.ctl("at", "AT#TCPATRUNFRWL=2").returncode == 1


def test_hangups_in_a_row_end_with_the_last_file_in_force(daemon: Daemon) -> None:
    for number in range(20):
        daemon.configure(tcp={"firewall": ["127.0.0.1/32", f"192.0.2.{number}/32"]})
        hang_up(daemon)
    until(lambda: "192.0.2.19" in daemon.ctl("at", "AT#TCPATRUNFRWL?").stdout, "the last file in force")
    assert 1 <= len(daemon.logged(DONE)) <= 21
    assert not daemon.logged(REFUSED)
    assert daemon.stop() == 0


def test_systemd_hears_of_it_good_or_bad(stage: Stage, module: Module) -> None:
    daemon = stage.daemon(module)
    with systemd(stage, daemon) as listener:
        daemon.start()

        def told() -> str:
            while not (text := listener.recv(4096).decode()).startswith(("RELOADING=1", "READY=1")):
                pass
            return text

        assert told().startswith("READY=1")
        for sections in ({}, {"tcp": {"prot": 1}}):
            daemon.configure(**sections)
            hang_up(daemon)
            begun = told()
            assert begun.startswith("RELOADING=1\nMONOTONIC_USEC=")
            ready = told()
            assert ready.startswith("READY=1\nSTATUS=")
        assert ready.endswith("; not reloaded")
        assert daemon.stop() == 0


def test_a_hangup_while_it_starts_is_kept_for_later(stage: Stage, module: Module) -> None:
    daemon = stage.daemon(module)
    daemon.begin()
    assert daemon.program is not None
    caught = Path(f"/proc/{daemon.program.process.pid}/status")
    until(lambda: _catches_hangups(caught.read_text()), "the program's own handler")
    hang_up(daemon)
    assert daemon.heard("doors open")
    assert daemon.heard(DONE)["changed"] == "nothing"
    assert daemon.stop() == 0


def _catches_hangups(status: str) -> bool:
    (mask,) = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")]
    return bool(int(mask, 16) & 1 << (signal.SIGHUP - 1))


def test_hangups_while_it_stops_change_nothing(module: Module, daemon: Daemon) -> None:
    module.ask("late", command="AT+GMI", seconds=2.0)
    assert daemon.program is not None
    process = daemon.program.process
    with daemon.local() as link:
        link.sendall(b'{"op":"at","cmd":"AT+GMI"}\n')
        until(lambda: module.count("AT+GMI"), "the command at the module")
        daemon.configure(tcp={"firewall": []})
        process.send_signal(signal.SIGTERM)
        while process.poll() is None:
            process.send_signal(signal.SIGHUP)
            try:
                process.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
        assert b'"state":"ok"' in link.makefile("rb").read()
    assert process.returncode == 0
    assert not daemon.logged(DONE)
    assert not daemon.logged("room failed")


def test_the_user_is_who_the_file_says(stage: Stage, daemon: Daemon) -> None:
    (stage.folder / "second").write_text("zweites-geheimnis")
    (stage.folder / "second").chmod(0o600)
    daemon.configure(
        tcp={
            "users": [
                {"name": USER, "password_file": str(stage.folder / "tcp-password")},
                {"name": "second", "password_file": str(stage.folder / "second")},
            ]
        }
    )
    with Caller(daemon.tcp) as caller:
        caller.ask(b"AT\r")
        reload(daemon)
        assert caller.ask(b"AT\r").endswith(b"OK\r\n"), "whose login is as before stays"
    until(lambda: not daemon._look()["tcp"]["peer"], "the place free")
    with Caller(daemon.tcp, login=False) as caller:
        caller.send(b"second\rzweites-geheimnis\r")
        caller.ask(b"AT\r")
