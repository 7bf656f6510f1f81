# SPDX-License-Identifier: Apache-2.0
"""The real programs of a scenario: simulated module, mosquitto and its clients, the daemon."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from tests.support import contract
from tests.support.ports import free_port

T = TypeVar("T")

ROOT: Final = Path(__file__).parents[2]
USER: Final = "operator"
PASSWORD: Final = "geheim-7731"
LOGIN: Final = f"{USER}\r{PASSWORD}\r".encode()
BASE: Final = "atrund/box/"
PATIENCE: Final = 15.0
"""Seconds after which what was waited for counts as missing; on an idle machine nothing takes a second."""
LOOK_EVERY: Final = 0.01
MOSQUITTO: Final = "/usr/sbin/mosquitto"


def until(look: Callable[[], T | None], what: str, seconds: float = PATIENCE) -> T:
    """Look until there is something to see, and return it."""
    end = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < end, f"never seen: {what}"
        time.sleep(LOOK_EVERY)


class Program:
    """A program with its output in a file."""

    def __init__(self, command: Sequence[str | Path], output: Path, environ: Mapping[str, str] | None = None) -> None:
        self.output = output
        with output.open("ab") as file:
            self.process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**_environment(), **(environ or {})},
                process_group=0,
            )

    @property
    def text(self) -> str:
        return self.output.read_text(encoding="utf-8", errors="replace")

    def said(self, pattern: str) -> "re.Match[str] | None":
        assert self.process.poll() is None or re.search(pattern, self.text), f"ended: {self.text[-2000:]}"
        return re.search(pattern, self.text, re.MULTILINE)

    def wait(self, seconds: float = PATIENCE) -> int:
        return self.process.wait(seconds)

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self.process.wait()


class Module:
    """The simulated module."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.link = folder / "module"
        self._control = folder / "sim.sock"
        command: list[str | Path] = [
            sys.executable,
            "-m",
            "atrund.sim",
            "--link",
            self.link,
            "--control",
            self._control,
            *options,
        ]
        self.program = Program(command, folder / "sim.log")
        until(lambda: self.program.said("^ready"), "the simulator")

    def ask(self, op: str, **fields: object) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(str(self._control))
            link.sendall(json.dumps({"op": op, **fields}).encode() + b"\n")
            answer: dict[str, Any] = json.loads(link.makefile("rb").readline())
        assert answer["ok"], answer
        return answer

    @property
    def seen(self) -> list[str]:
        """The command lines that reached the module."""
        return list(self.ask("seen")["seen"][0])

    def count(self, line: str) -> int:
        return self.seen.count(line)


class Broker:
    """mosquitto on loopback. `lines` are added to its configuration."""

    def __init__(self, folder: Path, *lines: str, allow: bool = True) -> None:
        self._folder = folder
        self._file = folder / "mosquitto.conf"
        self.port = free_port()
        user = ["user root"] if os.geteuid() == 0 else []
        anonymous = f"allow_anonymous {'true' if allow else 'false'}"
        self._file.write_text(
            "\n".join([f"listener {self.port} 127.0.0.1", anonymous, "set_tcp_nodelay true", *user, *lines, ""])
        )
        self.program = self._start()

    def restart(self) -> None:
        self.program = self._start()

    def stop(self, number: int = signal.SIGTERM) -> None:
        self.program.stop(number)

    def publish(self, topic: str, payload: str | bytes, *options: str) -> None:
        """Publish with QoS 1, below the daemon's own prefix, and wait until the broker has it."""
        content = "-s" if payload else "-n"
        done = subprocess.run(
            [*self._client("mosquitto_pub", options), "-q", "1", "-t", BASE + topic, content],
            input=payload.encode() if isinstance(payload, str) else payload,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def request(self, payload: str, *options: str, topic: str = "at/request", reply: str = "reply/rr") -> str:
        """Ask as mosquitto_rr does, by Response Topic and Correlation Data, and return the answer's payload."""
        command = [*self._client("mosquitto_rr", options), "-t", BASE + topic, "-e", BASE + reply, "-m", payload]
        done = subprocess.run(
            [*command, "-q", "1", "-W", "10"], capture_output=True, text=True, timeout=20, check=False
        )
        assert done.returncode == 0, done.stderr
        contract.check(reply, done.stdout.rstrip("\n").encode())
        return done.stdout

    def _client(self, name: str, options: Sequence[str]) -> list[str]:
        version = () if "-V" in options else ("-V", "mqttv5")
        return [name, "-h", "127.0.0.1", "-p", str(self.port), *version, *options]

    def _start(self) -> Program:
        program = Program([MOSQUITTO, "-c", self._file], self._folder / "mosquitto.log")
        until(lambda: _answers(self.port) or program.said("Error"), "mosquitto")
        return program


@dataclass(frozen=True, slots=True)
class Message:
    """What mosquitto_sub heard; `topic` is below the daemon's prefix."""

    topic: str
    retained: bool
    payload: bytes

    @property
    def record(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.payload)
        return value


class Ear:
    """mosquitto_sub on all below the daemon's prefix. What it hears is held to the contract when it is looked at."""

    def __init__(self, broker: Broker, folder: Path, *options: str) -> None:
        command = ["mosquitto_sub", "-h", "127.0.0.1", "-p", str(broker.port), "-V", "mqttv5", "-q", "1", "-d"]
        number = len(list(folder.glob("heard*")))
        self.program = Program(
            ["stdbuf", "-oL", *command, "-t", BASE + "#", "-F", "=%r %x %t", *options], folder / f"heard{number}"
        )
        self._checked = 0
        until(lambda: self.program.said("^Subscribed"), "the subscription")

    @property
    def messages(self) -> list[Message]:
        heard = re.findall(rf"^=(\d) ([0-9a-f]*) {re.escape(BASE)}(.*)\n", self.program.text, re.MULTILINE)
        messages = [Message(topic, retained == "1", bytes.fromhex(digits)) for retained, digits, topic in heard]
        first, self._checked = self._checked, len(messages)
        for message in messages[first:]:
            contract.check(message.topic, message.payload)
        return messages

    def records(self, topic: str, **wanted: object) -> list[dict[str, Any]]:
        """All records on a topic with these values."""
        every = (message.record for message in self.messages if message.topic == topic and message.payload)
        return [record for record in every if all(record.get(key) == value for key, value in wanted.items())]

    def hear(self, topic: str, **wanted: object) -> dict[str, Any]:
        """Wait for a record on a topic with these values."""
        return until(lambda: next(iter(self.records(topic, **wanted)), None), f"{topic} with {wanted}")


class Daemon:
    """The daemon: its configuration and its life. Sections given to `configure` are merged with the usual ones."""

    def __init__(self, folder: Path, module: Module | None = None, broker: Broker | None = None) -> None:
        self.folder = folder
        self.socket = folder / "atrund.sock"
        self.file = folder / "atrund.toml"
        self.state = folder / "state"
        self.program: Program | None = None
        self.environ: dict[str, str] = {}
        self.wrap: tuple[str, ...] = ()
        """A command that runs the program, such as one that makes a namespace for it."""
        (folder / "tcp-password").write_text(PASSWORD)
        (folder / "tcp-password").chmod(0o600)
        self.options: dict[str, dict[str, object]] = {
            "module": {"port": "" if module is None else str(module.link), "gap": 0},
            "tcp": {
                "enabled": True,
                "port": 0,
                "firewall": ["127.0.0.1/32"],
                "users": [{"name": USER, "password_file": str(folder / "tcp-password")}],
            },
            "local": {"socket": str(self.socket)},
            "log": {"format": "json"},
        }
        if broker is not None:
            place = {"host": "127.0.0.1", "port": broker.port}
            self.options["mqtt"] = {"enabled": True, **place, "spread": 0, "remote_at": True}

    def configure(self, **sections: Mapping[str, object]) -> None:
        for name, values in sections.items():
            self.options.setdefault(name, {}).update(values)
        lines = ['node = "box"', f"state_dir = {json.dumps(str(self.state))}"]
        for name, values in self.options.items():
            lines += [f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in values.items())]
        self.file.write_text("\n".join(lines))

    def begin(self, *options: str) -> Program:
        """Start the program and wait for nothing."""
        if not self.file.is_symlink() and not self.file.exists():
            self.configure()
        command: list[str | Path] = [*self.wrap, sys.executable, "-m", "atrund", *options, "--config", self.file]
        self.program = Program(command, self.folder / "atrund.log", self.environ)
        return self.program

    def start(self) -> "Daemon":
        """Start it and wait until all that is configured is up."""
        self.begin()
        until(self._ready, f"readiness: {self.text[-3000:]}")
        return self

    @property
    def text(self) -> str:
        return "" if self.program is None else self.program.text

    @property
    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines() if line.startswith("{")]

    def logged(self, event: str, **wanted: object) -> list[dict[str, Any]]:
        return [
            entry
            for entry in self.log
            if entry["event"] == event and all(entry.get(key) == value for key, value in wanted.items())
        ]

    def heard(self, event: str, **wanted: object) -> dict[str, Any]:
        """Wait for an entry of the log."""
        return until(lambda: next(iter(self.logged(event, **wanted)), None), f"log entry {event} {wanted}")

    def ctl(self, *arguments: str, seconds: float = PATIENCE) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "atrund.ctl.main", "--socket", str(self.socket), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False, env=_environment())

    def status(self) -> dict[str, Any]:
        """What `atrunctl status --json` shows."""
        done = self.ctl("status", "--json")
        assert done.returncode == 0, done.stderr
        status: dict[str, Any] = json.loads(done.stdout)
        return status

    @property
    def tcp(self) -> tuple[str, int]:
        return "127.0.0.1", int(self._look()["tcp"]["ports"][0])

    @property
    def memory(self) -> int:
        """Its resident memory in KiB."""
        assert self.program is not None
        found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{self.program.process.pid}/status").read_text())
        assert found is not None
        return int(found[1])

    def stop(self) -> int:
        assert self.program is not None
        return self.program.stop()

    def kill(self) -> None:
        assert self.program is not None
        self.program.stop(signal.SIGKILL)

    def _look(self) -> dict[str, Any]:
        """The status straight from the socket, for what is looked at often."""
        with self.local() as link:
            link.sendall(b'{"op":"status"}\n')
            answer: dict[str, Any] = json.loads(link.makefile("rb").readline())
        status: dict[str, Any] = answer["status"]
        return status

    def local(self) -> socket.socket:
        """A connection to the control socket."""
        link = socket.socket(socket.AF_UNIX)
        link.settimeout(PATIENCE)
        try:
            link.connect(str(self.socket))
        except OSError:
            link.close()
            raise
        return link

    def _ready(self) -> bool:
        assert self.program is not None
        assert self.program.process.poll() is None, f"the daemon has ended: {self.text[-3000:]}"
        try:
            status = self._look()
        except OSError:
            return False
        module = status["module"]["state"] == "ready" or not self.options["module"]["port"]
        broker = status["mqtt"]["state"] == "off" or status["mqtt"]["connected"]
        return module and broker and status["sms"]["state"] != "waiting"


class Caller:
    """A TCP client of the daemon that sees every octet."""

    def __init__(self, address: tuple[str, int], *, login: bool = True, source: str = "127.0.0.1") -> None:
        self.socket = socket.create_connection(address, PATIENCE, source_address=(source, 0))
        self.got = b""
        if login:
            self.send(LOGIN)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read_until(self, end: bytes, times: int = 1) -> bytes:
        """Return what comes up to and with the `times`th `end`."""
        while self.got.count(end) < times:
            piece = self.socket.recv(65536)
            assert piece, f"closed behind {self.got[-500:]!r}"
            self.got += piece
        place = -1
        for _ in range(times):
            place = self.got.index(end, place + 1)
        found, self.got = self.got[: place + len(end)], self.got[place + len(end) :]
        return found

    def ask(self, line: bytes, final: bytes = b"\r\nOK\r\n") -> bytes:
        self.send(line)
        return self.read_until(final)

    def rest(self) -> bytes:
        """Return what comes until the other side closes, in order or with a reset."""
        try:
            while piece := self.socket.recv(65536):
                self.got += piece
        except ConnectionResetError:
            pass
        found, self.got = self.got, b""
        return found

    def vanish(self) -> None:
        """Go with a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _environment() -> dict[str, str]:
    foreign = ("NOTIFY_SOCKET", "JOURNAL_STREAM", "WATCHDOG_USEC", "WATCHDOG_PID", "CREDENTIALS_DIRECTORY")
    kept = {name: value for name, value in os.environ.items() if name not in foreign}
    return {**kept, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)}


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)
