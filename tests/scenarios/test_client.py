# SPDX-License-Identifier: Apache-2.0
"""Client mode from outside: the real daemon calls other people's programs, over loopback and a bearer that goes."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenarios.conftest import Stage
from tests.scenarios.piped import Start
from tests.scenarios.players import PATIENCE, Daemon, until
from tests.support.ports import free_port

TOKEN = "0123456789abcdef-0123"
CSQ = b"\r\n+CSQ: 17,0\r\n\r\nOK\r\n"
NEAR, FAR = "192.0.2.2", "192.0.2.1"


def calling(stage: Stage, port: int, host: str = "127.0.0.1", **client: object) -> Daemon:
    module = stage.module()
    module.ask("answer", command="AT+CSQ", lines=["+CSQ: 17,0"], always=True)
    daemon = stage.daemon(module)
    daemon.options["tcp"] = {}
    daemon.configure(**{"tcp.client": {"host": host, "port": port, **client}})
    return daemon


def state(daemon: Daemon) -> str:
    return str(daemon.status()["tcp_client"]["state"])


def nc(port: int) -> tuple[str, ...]:
    return ("nc", "-l", "127.0.0.1", str(port))


def socat(port: int) -> tuple[str, ...]:
    return ("socat", f"TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr", "STDIO")


@pytest.mark.parametrize("program", [nc, socat])
def test_other_peoples_programs_are_called_and_run_commands(stage: Stage, start: Start, program: object) -> None:
    port = free_port()
    command = nc(port) if program is nc else socat(port)
    there = start(*command)
    daemon = calling(stage, port, enabled=True).start()
    until(lambda: state(daemon) == "up", "the call")
    there.send(b"AT+CSQ\r\n")
    assert there.read_until(b"OK\r\n") == b"AT+CSQ\r" + CSQ
    assert daemon.logged("client mode has no token: whoever answers there may run commands")
    there.stop()
    again = start(*command)
    until(lambda: _listens(port) or state(daemon) == "up", "the listener, or the call that it took")
    if state(daemon) != "up":  # the listener came too late for it: whoever switches it on calls
        assert daemon.ctl("at", "AT#TCPATRUND=1").returncode == 0
    again.send(b"AT+CSQ\r")
    assert again.read_until(b"OK\r\n").endswith(CSQ)
    assert daemon.stop() == 0
    again.ended()


def test_note_3_3_the_ok_means_that_it_is_connected(stage: Stage, start: Start) -> None:
    """80000NT10029a 3.3.1: `AT#TCPATRUND=1` calls the PC that listens; OK: connected and ready for commands."""
    port = free_port()
    daemon = calling(stage, port).start()
    line = f'AT#TCPATRUNCFG=1,2,1024,{port},"127.0.0.1",1,5,1,5,2'
    assert daemon.ctl("at", line).stdout.split() == ["OK"]
    refused = daemon.ctl("at", "AT#TCPATRUND=1")
    assert refused.returncode != 0
    assert "#TCPATRUND: 1,2" in daemon.ctl("at", "AT#TCPATRUND?").stdout
    there = start(*nc(port))
    until(lambda: _listens(port), "the listener")
    assert daemon.ctl("at", "AT#TCPATRUND=1").stdout.split() == ["OK"]
    assert "#TCPATRUND: 1,1" in daemon.ctl("at", "AT#TCPATRUND?").stdout
    there.send(b"AT+CSQ\r")
    assert there.read_until(b"OK\r\n") == b"AT+CSQ\r" + CSQ
    there.send(b"AT#TCPATRUND=0\r")
    assert there.read_until(b"OK\r\n") == b"AT#TCPATRUND=0\r\r\nOK\r\n"
    there.ended()
    assert "#TCPATRUND: 0,0" in daemon.ctl("at", "AT#TCPATRUND?").stdout


def test_the_token_comes_first(stage: Stage, start: Start) -> None:
    port = free_port()
    there = start(*nc(port))
    daemon = calling(stage, port, token_file="token", enabled=True)
    (daemon.folder / "token").write_text(TOKEN + "\n")
    (daemon.folder / "token").chmod(0o600)
    daemon.start()
    until(lambda: state(daemon) == "up", "the call")
    there.send(f"{TOKEN}\rAT+CSQ\r".encode())
    assert there.read_until(b"OK\r\n") == b"AT+CSQ\r" + CSQ
    assert not daemon.logged("client mode has no token: whoever answers there may run commands")
    assert TOKEN not in daemon.text
    there.stop()
    wrong = start(*nc(port))
    until(lambda: _listens(port) or state(daemon) == "up", "the listener")
    if state(daemon) != "up":
        daemon.ctl("at", "AT#TCPATRUND=1")
    wrong.send(b"AT+CSQ\r")
    wrong.ended()
    assert wrong.process.stdout is not None
    assert wrong.process.stdout.read() == b"", "nothing is sent before the token"
    assert daemon.heard("token refused", reason="auth")


def test_a_name_is_looked_up(stage: Stage, start: Start) -> None:
    port = free_port()
    there = start(*nc(port))
    daemon = calling(stage, port, host="localhost", enabled=True).start()
    until(lambda: state(daemon) == "up", "the call")
    there.send(b"AT+CSQ\r")
    assert there.read_until(b"OK\r\n") == b"AT+CSQ\r" + CSQ


def test_a_file_read_anew_switches_it_on_and_off(stage: Stage, start: Start) -> None:
    port = free_port()
    daemon = calling(stage, port).start()
    assert daemon.program is not None
    there = start(*nc(port))
    until(lambda: _listens(port), "the listener")
    for enabled, word in ((True, "up"), (False, "off")):
        daemon.configure(**{"tcp.client": {"enabled": enabled}})
        daemon.program.process.send_signal(signal.SIGHUP)
        until(lambda: state(daemon) == word, f"client mode {word}")  # noqa: B023 - called at once
    there.ended()
    shown = daemon.ctl("status").stdout
    assert "tcp_client" in shown
    assert "bearer" in shown


@pytest.fixture
def namespaces(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Two network namespaces, the first with `wan0`, up and with an address, whose other end is in the second."""
    near, far = (f"{word}{os.getpid()}{tmp_path.name[-1]}" for word in ("near", "far"))
    if os.geteuid() != 0 or shutil.which("ip") is None or not _ip(f"netns add {near}", strict=False):
        pytest.skip("network namespaces need root and ip(8)")
    try:
        assert _ip(f"netns add {far}")
        if not _ip(f"-n {near} link add wan0 type veth peer name far0 netns {far}", strict=False):
            pytest.skip("this kernel has no veth")
        for space, name, address in ((near, "wan0", NEAR), (far, "far0", FAR)):
            _ip(f"-n {space} link set lo up")
            _ip(f"-n {space} addr add {address}/24 dev {name}")
            _ip(f"-n {space} link set {name} up")
        yield near, far
    finally:
        for space in (near, far):
            _ip(f"netns del {space}", strict=False)


def test_tcp_14_client_mode_follows_its_interface(stage: Stage, start: Start, namespaces: tuple[str, str]) -> None:
    near, far = namespaces
    there = start("ip", "netns", "exec", far, "nc", "-k", "-l", FAR, "7777")
    daemon = calling(stage, 7777, FAR, enabled=True)
    daemon.configure(tcp={"insecure": True}, **{"tcp.bearer": {"interface": "wan0"}})
    daemon.wrap = ("ip", "netns", "exec", near)
    daemon.start()
    until(lambda: state(daemon) == "up", "the call")
    there.send(b"AT+CSQ\r")
    assert there.read_until(b"OK\r\n") == b"AT+CSQ\r" + CSQ
    bound = subprocess.run(["ip", "netns", "exec", near, "ss", "-Htn"], capture_output=True, text=True, check=False)
    assert bound.returncode != 0 or f"{NEAR}%wan0" in bound.stdout, "bound to the interface, whatever the routes say"
    _ip(f"-n {far} link set far0 down")
    until(lambda: state(daemon) == "bearer awaited", "the bearer's end")
    assert daemon.status()["bearer"] == {"state": "down", "detail": "wan0 has no link", "interface": "wan0"}
    assert "#TCPATRUND: 1,2" in daemon.ctl("at", "AT#TCPATRUND?").stdout
    assert "bearer" in daemon.ctl("at", "AT#TCPATRUND=1").stderr + daemon.text
    _ip(f"-n {far} link set far0 up")
    until(lambda: state(daemon) == "up", "the bearer's return")


def test_tcp_14_the_server_listens_on_its_interface_while_it_is_there(
    stage: Stage, namespaces: tuple[str, str]
) -> None:
    near, far = namespaces
    daemon = stage.daemon()
    daemon.configure(tcp={"listen": ["0.0.0.0"], "port": 7778, "insecure": True, "firewall": ["0.0.0.0/0"]})  # noqa: S104 - what is tested
    daemon.configure(**{"tcp.bearer": {"interface": "wan0"}})
    daemon.wrap = ("ip", "netns", "exec", near)
    daemon.start()

    def answers(space: str, address: str) -> bool:
        probe = ["ip", "netns", "exec", space, "nc", "-z", "-w", "1", address, "7778"]
        return subprocess.run(probe, capture_output=True, timeout=PATIENCE, check=False).returncode == 0

    assert answers(far, NEAR)
    assert not answers(near, "127.0.0.1"), "it is bound to the interface"
    _ip(f"-n {near} addr del {NEAR}/24 dev wan0")
    until(lambda: daemon.status()["tcp"]["state"] == "off", "the door's end")
    assert daemon.status()["bearer"]["detail"] == "wan0 has no address"
    _ip(f"-n {near} addr add {NEAR}/24 dev wan0")
    until(lambda: daemon.status()["tcp"]["state"] == "open", "the door's return")
    assert answers(far, NEAR)


def _ip(arguments: str, *, strict: bool = True) -> bool:
    done = subprocess.run(["ip", *arguments.split()], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0 or not strict, f"ip {arguments}: {done.stderr}"
    return done.returncode == 0


def _listens(port: int) -> bool:
    """Whether somebody listens there, without calling: the one call that is taken is the daemon's."""
    wanted = f"0100007F:{port:04X}"
    rows = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()
    return any(row.split()[1] == wanted and row.split()[3] == "0A" for row in rows[1:])
