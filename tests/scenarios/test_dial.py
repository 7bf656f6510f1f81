# SPDX-License-Identifier: Apache-2.0
"""`atrunctl dial` at a daemon, and `atrunctl listen` with a simulated module that calls."""

import contextlib
import os
import pty
import re
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.scenarios.conftest import Stage
from tests.scenarios.players import PASSWORD, PATIENCE, USER, Daemon, Module, Program, until

ATRUNCTL = [sys.executable, "-m", "atrund.ctl.main"]


@pytest.fixture(scope="module")
def module(shared_stage: Stage) -> Module:
    module = shared_stage.module()
    module.ask("answer", command="AT+CSQ", lines=["+CSQ: 17,0"], always=True)
    return module


@pytest.fixture(scope="module")
def daemon(shared_stage: Stage, module: Module) -> Daemon:
    daemon = shared_stage.daemon(module)
    daemon.configure(tcp={"sequence": True, "shut_out": 0})
    return daemon.start()


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\n")
    return file


def dial(daemon: Daemon, secret: Path, *words: str, given: str = "") -> "subprocess.CompletedProcess[str]":
    host, port = daemon.tcp
    command = [*ATRUNCTL, "dial", f"{host}:{port}", "--user", USER, "--password-file", str(secret), *words]
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=PATIENCE, check=False)
    until(lambda: not daemon.status()["tcp"]["peer"], "an empty place")
    return done


def test_lines_are_run_in_order_and_shown_without_their_echo(daemon: Daemon, secret: Path) -> None:
    done = dial(daemon, secret, "--run", "AT+CSQ", "--run", "AT")
    assert (done.returncode, done.stdout, done.stderr) == (0, "+CSQ: 17,0\nOK\nOK\n", "")


def test_the_first_line_that_fails_ends_a_script(daemon: Daemon, secret: Path, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("// the beginning\n\nAT+CSQ // signal\nAT+CFUN=4\nAT\n")
    done = dial(daemon, secret, "--script", str(script))
    assert (done.returncode, done.stdout) == (1, "+CSQ: 17,0\nOK\nERROR\n")
    done = dial(daemon, secret, "--keep-going", given=script.read_text())
    assert (done.returncode, done.stdout) == (1, "+CSQ: 17,0\nOK\nERROR\nOK\n")


def test_what_the_far_side_says_cannot_steer_the_terminal(tmp_path: Path, listening: list[Program]) -> None:
    script = tmp_path / "script"
    script.write_text("AT\n")
    program, port = listen(tmp_path, listening, "--script", str(script), "--count", "1")
    with socket.create_connection(("127.0.0.1", port)) as caller:
        caller.sendall("\x1b[2Jevil\x07 \u202e\xff\r\n\r\nOK\r\n".encode() + b"\xfe\r\n" + b"x" * 200_000)
        assert program.wait() == 0
    assert "\n[1] \\x1b[2Jevil\\x07 \\u202e\xff\n[1] OK\n" in program.text
    assert "\x1b" not in program.text


def test_a_wrong_password(daemon: Daemon, tmp_path: Path) -> None:
    file = tmp_path / "wrong"
    file.write_text("not it")
    done = dial(daemon, file, "--run", "AT")
    assert (done.returncode, done.stdout) == (3, "")
    assert "the login was refused" in done.stderr
    assert "not it" not in done.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["192.0.2.1"], "is not HOST:PORT"),
        (["2001:db8::7:1024"], "is not HOST:PORT"),
        (["192.0.2.1:0"], "is not HOST:PORT"),
        (["192.0.2.1:70000"], "is not HOST:PORT"),
        (["127.0.0.1:1024", "--password-file", "/nonexistent/secret", "--run", "AT"], "No such file or directory"),
        (["127.0.0.1:1024", "--run", "AT", "--script", "/nonexistent/script"], "/nonexistent/script"),
        (["127.0.0.1:1024", "--run", "AT", "--tls-ca", "/nonexistent/ca"], "--tls-ca: No such file or directory"),
        (["127.0.0.1:1024", "--run", "AT", "--tls-key", "key"], "--tls-cert is missing: --tls-key is the key of"),
        (["127.0.0.1:1024", "--run", "AT"], "there is no terminal to ask at"),
    ],
)
def test_wrong_usage(words: Sequence[str], says: str) -> None:
    command = [*ATRUNCTL, "dial", *words, "--user", "u"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert says in done.stderr


def test_nobody_listens(secret: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    command = [*ATRUNCTL, "dial", f"127.0.0.1:{port}", "--user", USER, "--password-file", str(secret), "--run", "AT"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 3
    assert "no connection to 127.0.0.1" in done.stderr


class Terminal:
    """A program at a terminal of its own."""

    def __init__(self, command: Sequence[str]) -> None:
        self._ours, theirs = pty.openpty()
        self.seen = ""
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "dumb"}, process_group=0
        )
        os.close(theirs)

    def type(self, line: str) -> None:
        os.write(self._ours, line.encode() + b"\n")

    def until(self, pattern: str) -> None:
        """Read until it was said behind all that was waited for before."""
        end = time.monotonic() + PATIENCE
        while not (found := re.search(pattern, self.seen)):
            ready, _, _ = select.select([self._ours], [], [], max(0.0, end - time.monotonic()))
            assert ready, self.seen
            self.seen += os.read(self._ours, 4096).decode("utf-8", "replace").replace("\r", "")
        self.seen = self.seen[found.end() :]

    def end(self) -> int:
        code = self.process.wait(PATIENCE)
        os.close(self._ours)
        return code

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
            with contextlib.suppress(OSError):
                os.close(self._ours)


@contextlib.contextmanager
def at_terminal(*words: str) -> Iterator[Terminal]:
    terminal = Terminal([*ATRUNCTL, *words])
    try:
        yield terminal
    finally:
        terminal.stop()


def test_at_a_terminal(daemon: Daemon, module: Module, secret: Path) -> None:
    """A short message is typed at its prompt; a file goes to another."""
    host, port = daemon.tcp
    before = len(module.ask("sent")["sent"])
    with at_terminal("dial", f"{host}:{port}", "--user", USER, "--password-file", str(secret)) as terminal:
        terminal.until(f"{host}:{port} ")
        terminal.type("AT+CSQ")
        terminal.until(r"\+CSQ: 17,0\n")
        terminal.until("OK\n")
        terminal.type('AT+CMGF=1;+CMGS="+393468686711"')
        terminal.until(">")
        terminal.type("hello there")
        terminal.type(".end")
        terminal.until(r"\+CMGS: \d+")
        terminal.until("OK\n")
        terminal.type(".nonsense")
        terminal.until(r"\.nonsense: .*are known")
        terminal.type(".quit")
        assert terminal.end() == 0
    assert len(module.ask("sent")["sent"]) == before + 1


@pytest.fixture
def listening() -> Iterator[list[Program]]:
    programs: list[Program] = []
    yield programs
    for program in programs:
        program.stop()


def listen(tmp_path: Path, programs: list[Program], *words: str) -> tuple[Program, int]:
    program = Program([*ATRUNCTL, "listen", "--port", "0", "--address", "127.0.0.1", *words], tmp_path / "listen.log")
    programs.append(program)
    found: list[int] = []

    def look() -> bool:
        said = program.said(r"^listening on 127\.0\.0\.1 port (\d+)$")
        found.extend([int(said[1])] if said else [])
        return bool(said)

    until(look, "the listener")
    return program, found[0]


def test_a_module_calls_and_a_script_is_run(stage: Stage, tmp_path: Path, listening: list[Program]) -> None:
    """Client mode with a module's own AT interface: the simulated one, put through by socat."""
    module = stage.module()
    module.ask("answer", command="AT+CSQ", lines=["+CSQ: 21,0"], always=True)
    script = tmp_path / "script"
    script.write_text("AT+CSQ\nAT+GMI\n")
    program, port = listen(tmp_path, listening, "--script", str(script), "--count", "1")
    call = Program(["socat", f"TCP:127.0.0.1:{port}", f"FILE:{module.link},raw,echo=0"], tmp_path / "socat.log")
    listening.append(call)
    assert program.wait() == 0
    assert re.search(
        r"\[1\] 127\.0\.0\.1:\d+ is here\n\[1\] \+CSQ: 21,0\n\[1\] OK\n\[1\] Telit\n\[1\] OK\n", program.text
    )


def test_a_caller_that_leaves_before_the_end(tmp_path: Path, listening: list[Program]) -> None:
    script = tmp_path / "script"
    script.write_text("AT\n")
    program, port = listen(tmp_path, listening, "--script", str(script), "--count", "1")
    socket.create_connection(("127.0.0.1", port)).close()
    assert program.wait() == 1
    assert "left before the script's end" in program.text


def test_the_token_comes_first(tmp_path: Path, listening: list[Program]) -> None:
    token, script = tmp_path / "token", tmp_path / "script"
    token.write_text("made-up-token-of-a-test\n")
    script.write_text("AT\n")
    program, port = listen(tmp_path, listening, "--token-file", str(token), "--script", str(script), "--count", "1")
    with socket.create_connection(("127.0.0.1", port)) as caller:
        caller.settimeout(PATIENCE)
        heard = b""
        while heard.count(b"\r") < 2:
            heard += caller.recv(100)
        assert heard == b"made-up-token-of-a-test\rAT\r"
        caller.sendall(b"AT\r\r\nOK\r\n")
        assert program.wait() == 0
    assert "made-up" not in program.text


def test_callers_have_numbers() -> None:
    with at_terminal("listen", "--port", "0", "--address", "127.0.0.1") as terminal, contextlib.ExitStack() as stack:
        terminal.until("listening on 127.0.0.1 port ")
        terminal.until("\n")
        # The port stands in what was read away; ask the kernel.
        port = port_of(terminal.process.pid)
        first = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        terminal.until(r"\[1\] 127.0.0.1:\d+ is here")
        second = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        terminal.until(r"\[2\] 127.0.0.1:\d+ is here")
        terminal.type(".use 2")
        terminal.type("AT+CSQ")
        second.settimeout(PATIENCE)
        assert second.recv(100) == b"AT+CSQ\r"
        second.sendall(b"AT+CSQ\r\r\n+CSQ: 5,0\r\n\r\nOK\r\n")
        terminal.until(r"\[2\] \+CSQ: 5,0\n")
        terminal.type(".list")
        terminal.until(r"\[1\] 127.0.0.1:\d+\n")
        terminal.until(r"\[2\] 127.0.0.1:\d+ \*\n")
        terminal.type(".all AT")
        first.settimeout(PATIENCE)
        assert first.recv(100) == b"AT\r"
        assert second.recv(100) == b"AT\r"
        first.sendall(b"\r\nOK\r\n")
        second.sendall(b"\r\nERROR\r\n")
        terminal.until("1 of 2 ended well")
        terminal.type(".use 9")
        terminal.until("no such caller")
        second.close()
        terminal.until(r"\[2\] .* has left")
        terminal.type(".quit")
        assert terminal.end() == 0


def port_of(pid: int) -> int:
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            inodes.add(str(descriptor.readlink()).removeprefix("socket:[").removesuffix("]"))
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[9] in inodes and fields[3] == "0A":
            return int(fields[1].split(":")[1], 16)
    raise AssertionError("it does not listen")


def test_listening_where_another_does(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("AT\n")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        command = [*ATRUNCTL, "listen", "--port", port, "--address", "127.0.0.1", "--script", str(script)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 3
    assert f"port {port}: " in done.stderr
