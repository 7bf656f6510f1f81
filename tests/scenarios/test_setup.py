# SPDX-License-Identifier: Apache-2.0
"""`atrunctl setup` at a terminal and at a broker, and the daemon that starts with what it wrote."""

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.scenarios.conftest import Stage
from tests.scenarios.players import PATIENCE, Program, until
from tests.scenarios.test_dial import ATRUNCTL, Terminal
from tests.support.ports import free_port

NUMBER = "+393468686711"


@contextmanager
def at_terminal(*words: str) -> Iterator[Terminal]:
    """The program with a terminal that is its own to ask for passwords at."""
    terminal = Terminal(["setsid", "--ctty", "--wait", *ATRUNCTL, *words])
    try:
        yield terminal
    finally:
        terminal.stop()


@pytest.fixture
def programs() -> Iterator[list[Program]]:
    running: list[Program] = []
    yield running
    for program in running:
        program.stop()


def own(folder: Path) -> Path:
    """Say in a file of ours what a test's daemon has elsewhere than others."""
    folder.mkdir()
    (folder / "conf.d").mkdir()
    state, control = folder / "state", folder / "sock"
    text = f'state_dir = "{state}"\nnode = "box"\n[local]\nsocket = "{control}"\n[log]\nformat = "json"\n'
    (folder / "conf.d" / "20-test.toml").write_text(text)
    return control


def answer_over_tcp(port: int, *words: str) -> str:
    """Log in step by step, run the last word, and return what came."""

    def call() -> socket.socket | None:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        except ConnectionRefusedError:
            return None

    with until(call, "the TCP door") as link:
        heard = b""
        for ends, word in zip((rb": ?$", rb": ?$", rb"\r\n$"), words, strict=True):
            while not re.search(ends, heard):
                heard += link.recv(1000)
            link.sendall(word.encode() + b"\r")
            heard = b""
        while not re.search(rb"(OK|ERROR)\r\n$", heard):
            heard += link.recv(1000)
    return heard.decode()


def test_from_questions_to_a_command_over_tcp(stage: Stage, programs: list[Program]) -> None:
    module = stage.module()
    module.ask("answer", command="AT+CSQ", lines=["+CSQ: 17,0"], always=True)
    folder, port = stage.folder / "etc", free_port()
    own(folder)
    (folder / "conf.d" / "90-port.toml").write_text(f"[tcp]\nport = {port}\n[sms]\nurc = false\n")
    with at_terminal("setup", "--config-dir", str(folder)) as terminal:
        terminal.until("The module's port.*: ")
        terminal.type("ttyS9")
        terminal.until("did you mean /dev/ttyS9")
        terminal.until("The module's port.*: ")
        terminal.type(str(module.link))
        terminal.until(r"by SMS.*: ")
        terminal.type("anna")
        terminal.until(r'"anna" is not allowed; digits')
        terminal.until(r"by SMS.*: ")
        terminal.type(NUMBER)
        terminal.until(r"login over TCP.* \[operator\]: ")
        terminal.type("")
        terminal.until("Password of operator; empty: one is made: ")
        terminal.type("")
        terminal.until(r"listen on \[127.0.0.1\]: ")
        terminal.type("")
        terminal.until(r"Networks that may connect.* \[127.0.0.0/8\]: ")
        terminal.type("")
        terminal.until("broker's name .*: ")
        terminal.type("-")
        terminal.until(r"warning  keys     tcp.port: conf.d/90-port.toml sets it too, is read later, and wins")
        terminal.until("ok       check    the configuration is right")
        terminal.until(r"\+numbers = \[.*\n")
        terminal.until(r"Write it\? \[Y/n\] ")
        assert not (folder / "conf.d" / "50-setup.toml").exists()
        terminal.type("y")
        terminal.until("Now type:\n  systemctl enable --now atrund")
        password = (folder / "setup-login.password").read_text().strip()
        terminal.until(f"The password of operator, shown this once: {password}\n")
        assert terminal.end() == 0
    command = [sys.executable, "-m", "atrund", "--config", str(folder / "atrund.toml")]
    programs.append(Program(command, stage.folder / "atrund.log"))
    assert "+CSQ: 17,0" in answer_over_tcp(port, "operator", password, "AT+CSQ")


def test_a_password_typed_twice_and_an_end_without_writing(stage: Stage) -> None:
    folder = stage.folder / "etc"
    folder.mkdir()
    with at_terminal("setup", "--config-dir", str(folder)) as terminal:
        terminal.until("The module's port.*: ")
        terminal.type("/dev/ttyS9")
        terminal.until(r"by SMS.*: ")
        terminal.type("")
        terminal.until("login over TCP.*: ")
        terminal.type("anna")
        for second, then in (("other", "the two are not the same"), ("made-up", "Addresses to listen on")):
            terminal.until("Password of anna; .*: ")
            terminal.type("made-up")
            terminal.until("The same once more: ")
            terminal.type(second)
            terminal.until(then)
        terminal.type("")
        terminal.until("Networks that may connect.*: ")
        terminal.type("")
        terminal.until("broker's name .*: ")
        terminal.type("")
        terminal.until("Write it")
        assert "made-up" not in terminal.seen
        terminal.type("n")
        terminal.until("not wanted; nothing was changed")
        assert terminal.end() == 1
    assert list(folder.iterdir()) == []


def test_run_again_it_proposes_what_the_file_says(stage: Stage) -> None:
    folder = stage.folder / "etc"
    own(folder)
    secret = stage.folder / "secret"
    secret.write_text("made-up")
    secret.chmod(0o600)
    text = f'[module]\nport = "/dev/ttyS9"\n[sms]\nnumbers = ["{NUMBER}", "+39*"]\n[tcp]\nuser = "anna"\nport = 2048\n'
    text += 'password_file = "secret"\nlisten = ["127.0.0.1", "192.0.2.1"]\ntrusted_interfaces = ["wg0"]\n'
    text += 'firewall = ["192.0.2.0/24"]\n[mqtt]\nhost = "localhost"\nuser = "box"\npassword_file = "secret"\n'
    text += 'prefix = "site"\ncheck = false\n'
    assert answered(folder, text).returncode == 0
    before = (folder / "conf.d" / "50-setup.toml").read_text()
    with at_terminal("setup", "--config-dir", str(folder)) as terminal:
        for what in (
            r"port.* \[/dev/ttyS9\]: ",
            rf"SMS.* \[\{NUMBER} \+39\*\]: ",
            r"TCP.* \[anna\]: ",
            r"Keep the password of anna\? \[Y/n\] ",
            r"listen on \[127.0.0.1 192.0.2.1\]: ",
            r"carry it.* \[wg0\]: ",
            r"connect.* \[192.0.2.0/24\]: ",
            r"broker's.* \[localhost\]: ",
            r"TLS\? \[y/N\] ",
            r"port \[1883\]: ",
            r"User at the broker.* \[box\]: ",
            r"Keep the password of box at the broker\? \[Y/n\] ",
            r"Run commands that come over MQTT\? \[y/N\] ",
        ):
            terminal.until(what)
            terminal.type("")
        terminal.until(r"error    broker   no connection to localhost port 1883")
        terminal.until(r"Go on all the same\? \[y/N\] ")
        terminal.type("y")
        terminal.until("Nothing is to change: .*50-setup.toml is as it should be.\n")
        assert terminal.end() == 0
    assert (folder / "conf.d" / "50-setup.toml").read_text() == before


@pytest.mark.parametrize("typed", ["\x03", "\x04"])
def test_an_interruption_at_a_question(stage: Stage, typed: str) -> None:
    folder = stage.folder / "etc"
    with at_terminal("setup", "--config-dir", str(folder)) as terminal:
        terminal.until("The module's port.*: ")
        terminal.type(typed)
        terminal.until("interrupted; nothing was changed")
        assert terminal.end() == 1
    assert not folder.exists()


def answered(folder: Path, text: str) -> "subprocess.CompletedProcess[str]":
    file = folder.parent / "answers.toml"
    file.write_text(text)
    command = [*ATRUNCTL, "setup", "--answers", str(file), "--config-dir", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_broker_is_tried(stage: Stage) -> None:
    folder = stage.folder / "etc"
    own(folder)
    passwords, access = stage.folder / "passwords", stage.folder / "access"
    subprocess.run(["mosquitto_passwd", "-c", "-b", passwords, "box", "made-up"], check=True, capture_output=True)
    passwords.chmod(0o644)
    access.write_text("user box\ntopic readwrite atrund/box/#\n")
    broker = stage.broker(f"password_file {passwords}", f"acl_file {access}", allow=False)
    secret = stage.folder / "secret"
    secret.write_text("wrong")
    secret.chmod(0o600)
    text = f'[module]\nport = "/dev/ttyS9"\n[mqtt]\nhost = "127.0.0.1"\nport = {broker.port}\nremote_at = true\n'
    text += 'user = "box"\npassword_file = "secret"\n'
    done = answered(folder, text)
    assert done.returncode == 1
    assert re.search(r"error    broker   the broker at .* lets this user not in: Not authorized", done.stdout)
    assert not (folder / "conf.d" / "50-setup.toml").exists()
    secret.write_text("made-up")
    done = answered(folder, text)
    assert done.returncode == 0, done.stdout + done.stderr
    told = f"127.0.0.1 port {broker.port} lets the node in, and takes its subscription to atrund/box/at/request"
    assert f"ok       broker   {told}\n" in done.stdout
    broker.stop()
    done = answered(folder, text)
    assert done.returncode == 1
    assert f"no connection to 127.0.0.1 port {broker.port}: Connection refused" in done.stdout
