# SPDX-License-Identifier: Apache-2.0
"""What the figures are taken on: a private directory, and in it the programs, each started here and stopped here."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Final, Self

ROOT: Final = Path(__file__).parents[2]
NUMBER: Final = "+393468686711"
USER, PASSWORD = "bench", "not a secret"
WITHIN: Final = 20.0
"""Seconds for whatever should take a fraction of one; after that a measurement has failed."""
PORT_TRIES: Final = 5
"""A port that the kernel named free may be taken before its program listens on it."""


class BenchError(Exception):
    """Something could not be measured; the text says what and why."""


@contextlib.contextmanager
def deadline(what: str, seconds: float = WITHIN) -> Iterator[None]:
    """Have whatever blocks inside end with a `BenchError`, so that nothing timed needs a time-out of its own."""

    def ring(_number: int, _frame: FrameType | None) -> None:
        raise BenchError(f"{what}: nothing within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def wait_until(look: Callable[[], bool], what: str, seconds: float = WITHIN) -> None:
    with deadline(what, seconds):
        while not look():
            time.sleep(0.02)


@dataclass(frozen=True, slots=True)
class Python:
    """An interpreter, and where it finds what the daemon needs."""

    name: str
    path: Path
    environ: Mapping[str, str]


def pythons() -> list[Python]:
    """The one that runs the bench, and Debian's where there is one of the same version, for the packages are its."""
    own = Python("the venv's python", Path(sys.executable), {"PYTHONPATH": str(ROOT)})
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    debian = Path("/usr/bin") / version
    if not debian.exists():
        return [own]
    packages = Path(sys.prefix) / "lib" / version / "site-packages"
    return [own, Python(f"Debian's {version}", debian, {"PYTHONPATH": f"{ROOT}:{packages}"})]


class Program:
    """A program that is stopped with the stage. What it says goes to `NAME.log` in the stage's directory."""

    def __init__(self, name: str, command: Sequence[str | Path], directory: Path, environ: Mapping[str, str]) -> None:
        self.name = name
        self._log = directory / f"{name}.log"
        kept = {key: value for key, value in os.environ.items() if key not in _SYSTEMD}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=directory,
                env={**kept, **environ},
                process_group=0,  # a Ctrl-C is for the bench, which then stops the others
            )
        self.pid = self._process.pid

    def say(self, line: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def ask(self, line: str = "") -> str:
        """Say a line, if any, and return the next one that it prints."""
        assert self._process.stdout
        if line:
            self.say(line)
        with deadline(f"{self.name}: {line[:4] or 'its first line'}"):
            answer = self._process.stdout.readline()
        if not answer:
            raise BenchError(f"{self.name} has ended. {self.last_words()}")
        return answer.decode().strip()

    def check(self) -> None:
        if self._process.poll() is not None:
            raise BenchError(f"{self.name} has ended (status {self._process.returncode}). {self.last_words()}")

    def said(self, words: str) -> str | None:
        """The line of its log that holds these words."""
        lines = self._log.read_text("utf-8", "replace").splitlines()
        return next((line for line in lines if words in line), None)

    def last_words(self) -> str:
        lines = self._log.read_text("utf-8", "replace").splitlines()[-10:]
        return "It said last:" + "".join(f"\n    {line}" for line in lines) if lines else "It said nothing."

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(WITHIN)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


class Stage:
    """The directory, the module and the broker; `add` starts more. All is gone when the `with` block is left."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="atrund-bench-", dir="/tmp"))  # short: sockets lie in it
        self._programs: list[Program] = []
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(str(self.directory / "notify"))
        self.broker_port = 0

    def __enter__(self) -> Self:
        try:
            self.directory.chmod(0o711)  # mosquitto gives root's rights up before it reads its file
            self.module = self.add("module", [sys.executable, Path(__file__).with_name("responder.py")])
            self.broker_port = self.on_free_port("mosquitto", self._start_broker)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def add(self, name: str, command: Sequence[str | Path], environ: Mapping[str, str] | None = None) -> Program:
        program = Program(name, command, self.directory, environ or {})
        self._programs.append(program)
        return program

    def drop(self, program: Program) -> None:
        program.stop()
        self._programs.remove(program)

    def terminal(self) -> str:
        """A new AT interface of the module."""
        return self.module.ask("new")

    def free(self, terminal: str) -> None:
        """Let a terminal be opened by another program than the last one."""
        self.module.ask(f"free {terminal}")

    def start_relay(self, *arguments: str, python: Python | None = None) -> tuple[Program, float]:
        """Start a bare relay; also the seconds until it is ready."""
        by = python or pythons()[0]
        command: list[str | Path] = [by.path, Path(__file__).with_name("relay.py"), *arguments]
        program, (ready,) = self.start_timed("relay", command, by.environ, "READY=1")
        return program, ready

    def start_timed(
        self, name: str, command: Sequence[str | Path], environ: Mapping[str, str], *words: str
    ) -> tuple[Program, list[float]]:
        """Start a program; the seconds from then until it told its service manager each of these words."""
        self._notify.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self._notify.recv(4096)  # of the one before
        self._notify.setblocking(True)
        begun = time.perf_counter()
        program = self.add(name, command, {**environ, "NOTIFY_SOCKET": str(self.directory / "notify")})
        moments: list[float] = []
        try:
            with deadline(f"{name} to be ready"):
                for word in words:
                    while word.encode() not in self._notify.recv(4096):
                        pass
                    moments.append(time.perf_counter() - begun)
        except BenchError as error:
            raise BenchError(f"{error}. {program.last_words()}") from None
        return program, moments

    def on_free_port(self, name: str, start: Callable[[int], Program]) -> int:
        """Start a program on a port that the kernel named free, again if somebody was quicker; return the port."""
        for _ in range(PORT_TRIES):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port: int = probe.getsockname()[1]
            program = start(port)
            with contextlib.suppress(BenchError):
                wait_until(lambda program=program, port=port: _listens(program, port), name)  # type: ignore[misc]
                return port
            self.drop(program)
        raise BenchError(f"{name} does not start. {program.last_words()}")

    def _start_broker(self, port: int) -> Program:
        file = self.directory / "mosquitto.conf"
        # Without Nagle's algorithm, which holds each acknowledgement back for 40 ms.
        file.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n")
        return self.add("mosquitto", [find("mosquitto"), "-c", file])

    def _end(self) -> None:
        for program in reversed(self._programs):
            program.stop()
        self._notify.close()
        shutil.rmtree(self.directory, ignore_errors=True)


@dataclass(slots=True)
class Daemon:
    """The real daemon, with all doors open or without what belongs to MQTT."""

    stage: Stage
    name: str
    python: Python
    mqtt: bool
    answers: int = 100
    """How many messages it may send: its default, for what it keeps of each counts as its memory."""
    sessions: int = 1
    terminal: str = ""
    serial: str = ""
    """A serial port that its sessions may reach, if any."""
    options: str = ""
    """More lines for its [mqtt]."""
    broker_port: int = 0
    """Another broker's port than the stage's, if any."""
    program: Program | None = None
    _file: Path = field(init=False)
    _socket: Path = field(init=False)

    def __post_init__(self) -> None:
        self.terminal = self.terminal or self.stage.terminal()
        self._socket = self.stage.directory / f"{self.name}.sock"
        self._file = self.stage.directory / f"{self.name}.toml"
        password = self.stage.directory / "password"
        for file, text in ((password, PASSWORD), (self._file, self._configuration(password))):
            file.touch(mode=0o600)
            file.write_text(text)

    @property
    def pid(self) -> int:
        assert self.program
        return self.program.pid

    @property
    def base(self) -> str:
        """What its topics begin with."""
        return f"atrund/{self.name}/"

    def start(self) -> tuple[float, float]:
        """Start it with its module there; the seconds to READY and to the module being set up."""
        ready, set_up = self._begin("READY=1", "STATUS=module ready")
        wait_until(self._is_up, f"{self.name}: all its doors open")
        return ready, set_up

    def begin(self) -> float:
        """Start it, wherever its broker is; the seconds to READY."""
        return self._begin("READY=1")[0]

    def _begin(self, *words: str) -> list[float]:
        self.stage.free(self.terminal)
        command: list[str | Path] = [self.python.path, "-m", "atrund", "--config", self._file]
        self.program, moments = self.stage.start_timed(self.name, command, self.python.environ, *words)
        return moments

    def stop(self) -> None:
        assert self.program
        self.stage.drop(self.program)
        self.program = None

    def connect(self) -> socket.socket:
        """A connection to its control socket."""
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(self._socket))
        return connection

    def waiting(self) -> int:
        """How many records wait for the broker."""
        return int(self._status()["ledger"]["outbox"])

    def tcp_port(self) -> int:
        return int(self._status()["tcp"]["ports"][0])

    def _status(self) -> dict[str, Any]:
        answer = b""
        with self.connect() as connection:
            connection.sendall(b'{"op":"status"}\n')
            while not answer.endswith(b"\n") and (piece := connection.recv(65536)):
                answer += piece
        status: dict[str, Any] = json.loads(answer)["status"]
        return status

    def _is_up(self) -> bool:
        assert self.program
        self.program.check()
        status = self._status()
        return status["sms"]["state"] == "open" and bool(status["mqtt"]["connected"]) == self.mqtt

    def _configuration(self, password: Path) -> str:
        return f"""\
node = "{self.name}"
state_dir = "{self.stage.directory}/{self.name}-state"
[module]
port = "{self.terminal}"
gap = 0
prompt_gap = 0
[sms]
enabled = true
numbers = ["{NUMBER}"]
max_age = 0
answers_per_hour = {self.answers}
answers_per_day = {self.answers}
[tcp]
enabled = true
port = 0
firewall = ["127.0.0.0/8"]
sessions = {self.sessions}
users = [{{name = "{USER}", password_file = "{password}"}}]
serial = [{f'{{number = 1, path = "{self.serial}"}}' if self.serial else ""}]
[mqtt]
enabled = {str(self.mqtt).lower()}
host = "127.0.0.1"
port = {self.broker_port or self.stage.broker_port}
remote_at = true
spread = 0
{self.options}
[local]
socket = "{self._socket}"
"""


def find(name: str) -> str:
    """Where a program lies; daemons lie where not every user looks."""
    found = shutil.which(name, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
    if found is None:
        raise BenchError(f"{name} was not found; make bench installs it")
    return found


def _listens(program: Program, port: int) -> bool:
    """Whether somebody listens on a port of 127.0.0.1, asked of the kernel: a connection would open a module's port."""
    program.check()
    return f" 0100007F:{port:04X} 00000000:0000 0A " in Path("/proc/net/tcp").read_text("ascii")


_SYSTEMD: Final = ("NOTIFY_SOCKET", "JOURNAL_STREAM", "WATCHDOG_USEC", "WATCHDOG_PID", "CREDENTIALS_DIRECTORY")
"""What a service manager told this program, and not those that it starts."""
