# SPDX-License-Identifier: Apache-2.0
"""The local door from outside: atrunctl, and what else may talk to the control socket."""

import json
import re
import signal
import socket
import stat
import subprocess
import sys
from typing import Any

import pytest

from tests.scenarios.conftest import Stage
from tests.scenarios.players import ROOT, Daemon, Module, until


@pytest.fixture(scope="module")
def module(shared_stage: Stage) -> Module:
    module = shared_stage.module()
    module.ask("answer", command="AT+CSQ", lines=["+CSQ: 17,0"], always=True)
    return module


@pytest.fixture(scope="module")
def daemon(shared_stage: Stage, module: Module) -> Daemon:
    return shared_stage.daemon(module).start()


def say(link: socket.socket, *lines: bytes) -> None:
    link.sendall(b"".join(line + b"\n" for line in lines))


def hear(link: socket.socket, event: str) -> dict[str, Any]:
    """Return the next event of this kind; what comes before it is passed over."""
    text = b""
    while True:
        octet = link.recv(1)
        assert octet, text
        text += octet
        if octet == b"\n":
            answer: dict[str, Any] = json.loads(text)
            if answer["event"] == event:
                return answer
            text = b""


def test_a_command(daemon: Daemon) -> None:
    done = daemon.ctl("at", "AT+CSQ;#CGMI")
    assert (done.returncode, done.stdout, done.stderr) == (0, "+CSQ: 17,0\n#CGMI: Telit\nOK\n", "")


@pytest.mark.parametrize(
    ("line", "final", "why"),
    [
        ("AT#SHDN", "+CME ERROR: 3", "policy): #SHDN: switches the module off, and nothing here could undo it; way"),
        ('AT+CPIN="7391"', "+CME ERROR: 3", "policy): +CPIN: may lock the SIM, and nothing here could undo it"),
        ("AT+CSQ\rAT+CFUN=4", "+CME ERROR: 50", "bad_request): character 0x0D at position 7"),
        ("AT+CSQ\nAT+CFUN=4", "+CME ERROR: 50", "bad_request): character 0x0A at position 7"),
        ("AT+CSQ\x1a", "+CME ERROR: 50", "bad_request): character 0x1A"),
        ("AT+CSQ\x7f", "+CME ERROR: 50", "bad_request): character 0x7F"),
        ("AT+CSQ\u2028AT", "+CME ERROR: 50", "bad_request): character 0x2028"),
        ("", "+CME ERROR: 50", "bad_request): a command line begins with AT"),
        ("AT" + "+CSQ;" * 500, "+CME ERROR: 50", "too_long): 2502 characters; at most 2048 make a command line"),
        ('AT+CMGS="1"', "+CME ERROR: 4", "prompt_unsupported): +CMGS waits for data"),
        ("ATD*99#", "+CME ERROR: 4", "data_mode): D would turn the shared port into a data connection"),
    ],
)
def test_a_refusal(daemon: Daemon, module: Module, line: str, final: str, why: str) -> None:
    module.ask("seen", clear=True)
    done = daemon.ctl("at", line)
    assert (done.returncode, done.stdout) == (1, f"{final}\n")
    assert done.stderr.startswith(f"atrunctl: rejected ({why}")
    assert "7391" not in done.stderr
    assert not [seen for seen in module.seen if re.search("CFUN|CMGS=|^ATD|;", seen)]


def test_an_error_of_a_command_of_the_daemons_own_says_what_would_be_right(daemon: Daemon) -> None:
    done = daemon.ctl("at", "AT#SMSATRUN=7")
    assert (done.returncode, done.stdout) == (1, "+CME ERROR: 50\n")
    assert done.stderr == (
        "atrunctl: error (bad_request): #SMSATRUN: <mod> is missing or out of range; (0,1) would be right\n"
    )


def test_status(daemon: Daemon) -> None:
    status = daemon.status()
    assert status["module"]["state"] == "ready"
    assert status["tcp"]["state"] == "open"
    assert daemon.ctl("status").returncode == 0


def test_the_socket_is_for_its_group(daemon: Daemon) -> None:
    assert stat.S_IMODE(daemon.socket.stat().st_mode) == 0o660


def test_ctrl_c_gives_the_command_up(daemon: Daemon, module: Module) -> None:
    module.ask("late", command="AT+CGDCONT?", seconds=1.0)
    # A test that runs in the background may hand a SIGINT down that is ignored.
    program = ["env", "--default-signal=INT", sys.executable, "-m", "atrund.ctl.main"]
    command = [*program, "--socket", str(daemon.socket), "at", "AT+CGDCONT?"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT) as client:
        until(lambda: module.count("AT+CGDCONT?"), "the command at the module")
        client.send_signal(signal.SIGINT)
        _, errors = client.communicate(timeout=15)
    assert client.returncode == 1
    assert "giving the command up" in errors
    assert daemon.heard("command", command="AT+CGDCONT?", state="cancelled")
    module.ask("clear", command="AT+CGDCONT?")
    assert daemon.ctl("at", "AT+CSQ").returncode == 0


def test_cancel_and_a_second_command_on_one_connection(daemon: Daemon, module: Module) -> None:
    module.ask("late", command="AT+CCLK?", seconds=1.0)
    with daemon.local() as link:
        say(link, b'{"op":"cancel"}')
        assert hear(link, "error")["message"] == "no command runs on this connection"
        say(link, b'{"op":"at","cmd":"AT+CCLK?","id":"first"}')
        assert hear(link, "accepted")["id"] == "first"
        until(lambda: module.count("AT+CCLK?"), "the command at the module")
        say(link, b'{"op":"at","cmd":"AT+CSQ"}')
        assert hear(link, "error")["message"] == "a command runs already on this connection"
        say(link, b'{"op":"cancel"}')
        assert hear(link, "final")["state"] == "cancelled"
        module.ask("clear", command="AT+CCLK?")
        say(link, b'{"op":"at","cmd":"AT+CSQ"}')
        assert hear(link, "line")["text"] == "+CSQ: 17,0"
        assert hear(link, "final")["state"] == "ok"


def test_a_client_that_goes_takes_its_command_with_it(daemon: Daemon, module: Module) -> None:
    module.ask("late", command="AT+CGMI", seconds=1.0)
    with daemon.local() as link:
        say(link, b'{"op":"at","cmd":"AT+CGMI"}')
        until(lambda: module.count("AT+CGMI"), "the command at the module")
    assert daemon.heard("command", command="AT+CGMI", state="cancelled")
    module.ask("clear", command="AT+CGMI")
    assert daemon.ctl("at", "AT+CSQ").returncode == 0
    assert not [entry for entry in daemon.log if entry["level"] == "error"]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"", "no JSON"),
        (b"\xff\xfe", "no UTF-8"),
        (b"[]", "no JSON object"),
        (b'{"op":"nothing"}', "unknown"),
        (b'{"op":"at"}', "cmd: missing"),
        (b'{"op":"at","cmd":7}', "cmd: a number given"),
        (b'{"op":"at","cmd":"AT","timeout":5}', "unknown key"),
        (b'{"op":"at","cmd":"AT","timeout_ms":1}', "out of range"),
        (b'{"op":"at","cmd":"AT","cmd":"AT+CFUN=4"}', "given twice"),
        (b'{"op":"at","cmd":"\\ud800"}', "surrogate"),
        (b'{"op":"status","op":NaN}', "NaN"),
        (b"[" * 60_000, "nested too deep"),
    ],
)
def test_a_malformed_line_is_said_and_the_next_one_taken(daemon: Daemon, line: bytes, says: str) -> None:
    with daemon.local() as link:
        say(link, line, b'{"op":"at","cmd":"AT+CSQ"}')
        assert says in hear(link, "error")["message"]
        assert hear(link, "final")["state"] == "ok"


def test_a_line_without_end_is_cut(daemon: Daemon) -> None:
    with daemon.local() as link:
        link.sendall(b"x" * 100_000)
        assert "at most 65536" in hear(link, "error")["message"]
        assert link.recv(1) == b""


def test_more_clients_than_places(daemon: Daemon) -> None:
    links = [daemon.local() for _ in range(17)]
    try:
        for link in links[:16]:
            say(link, b'{"op":"cancel"}')
            hear(link, "error")
        assert "connected already" in hear(links[16], "error")["message"]
    finally:
        for link in links:
            link.close()
    assert until(lambda: daemon.ctl("at", "AT+CSQ").returncode == 0, "a free place")


def test_a_second_daemon_leaves_the_socket_alone(stage: Stage, daemon: Daemon) -> None:
    second = stage.daemon()
    second.configure(local={"socket": str(daemon.socket)}, tcp={"enabled": False})
    assert second.begin().wait() == 1
    assert "another daemon serves it already" in second.text
    assert daemon.ctl("at", "AT+CSQ").returncode == 0


def test_a_socket_left_by_a_crash_is_taken_over(stage: Stage) -> None:
    daemon = stage.daemon().start()
    daemon.kill()
    assert daemon.socket.exists()
    daemon.start()
    assert daemon.stop() == 0
    assert not daemon.socket.exists()


def test_a_file_that_is_no_socket_is_not_touched(stage: Stage) -> None:
    daemon = stage.daemon()
    daemon.socket.write_text("precious")
    assert daemon.begin().wait() == 1
    assert "not started" in daemon.text
    assert daemon.socket.read_text() == "precious"


def test_a_group_that_does_not_exist(stage: Stage) -> None:
    daemon = stage.daemon()
    daemon.configure(local={"group": "no-such-group"})
    assert daemon.begin().wait() == 1
    assert "there is no group 'no-such-group'" in daemon.text
