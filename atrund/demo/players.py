# SPDX-License-Identifier: Apache-2.0
"""The programs that the demo starts, and how they are spoken to: plain blocking calls, each with a bound."""

import json
import os
import pwd
import shutil
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from atrund.control import ControlError, StatusAnswer, StatusRequest, decode_answer, encode
from atrund.ctl.link import Unreachable, to_daemon, to_simulator

TAIL: Final = 200
"""Lines of a program's output that are kept for an error message."""

STOP_WITHIN: Final = 30.0
"""Seconds for a program to end by itself: the daemon gives a command on its way 20 of them."""

ANSWER_WITHIN: Final = 10.0
"""Seconds for a control socket's answer, and for the broker to take a message."""

SYSTEM_PATHS: Final = ":/usr/sbin:/sbin:/usr/local/sbin"
"""Where mosquitto lies and not every user looks."""


class StageError(Exception):
    """A program can't be started or is gone; the text says which, and what it said last."""


def program(name: str, package: str) -> str:
    """Return the path of a program; raises StageError that says what to install."""
    found = shutil.which(name, path=os.environ.get("PATH", os.defpath) + SYSTEM_PATHS)
    if found is None:
        raise StageError(f"{name} was not found; on Debian:  sudo apt-get install {package}   (make demo does it)")
    return found


class Child:
    """A program that does not outlive this one. Its output is read as it comes, line by line."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        on_line: Callable[[str], None] = lambda _: None,
        *,
        unprivileged: bool = False,
    ) -> None:
        """Start it; `on_line` is called on a thread of its own. `unprivileged`: not as root, even if this is root."""
        self.name = name
        self.tail: deque[str] = deque(maxlen=TAIL)
        self._on_line = on_line
        # The belt: where this program is killed, the kernel ends its children.
        guard = [setpriv, "--pdeathsig", "KILL"] if (setpriv := shutil.which("setpriv")) else []
        nobody = pwd.getpwnam("nobody") if unprivileged and os.geteuid() == 0 else None
        self._process = subprocess.Popen(
            [*guard, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=_environment(),
            # A Ctrl-C at the terminal is for this program, which then stops the others in order.
            process_group=0,
            user=None if nobody is None else nobody.pw_uid,
            group=None if nobody is None else nobody.pw_gid,
            extra_groups=None if nobody is None else (),
        )
        self._reader = threading.Thread(target=self._read, name=f"output of {name}", daemon=True)
        self._reader.start()

    @property
    def status(self) -> int | None:
        """Its exit status, None while it runs."""
        return self._process.poll()

    def check(self) -> None:
        """Raise StageError if it has ended."""
        if self.status is not None:
            self._reader.join(ANSWER_WITHIN)
            raise StageError(f"{self.name} has ended (status {self.status}).{self.last_words()}")

    def said(self, words: str) -> bool | None:
        """Return True once a line held these words, else None."""
        return True if any(words in line for line in tuple(self.tail)) else None

    def last_words(self, lines: int = 30) -> str:
        """Return the end of its output, indented, for an error message."""
        said = "".join(f"\n    {line}" for line in list(self.tail)[-lines:])
        return f" It said last:{said}" if said else ""

    def stop(self) -> int:
        """End it, gently first, and wait for it; return its exit status."""
        if self.status is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_WITHIN)
            except subprocess.TimeoutExpired:
                self._process.kill()
        status = self._process.wait()
        self._reader.join(ANSWER_WITHIN)
        return status

    def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        with self._process.stdout as output:
            for raw in output:
                line = raw.decode("utf-8", "replace").rstrip("\n")
                self.tail.append(line)
                self._on_line(line)


class Simulator:
    """The simulated module's control socket."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def ask(self, op: str, **fields: object) -> dict[str, Any]:
        """Have an operation done and return its answer; raises StageError where it is refused."""
        try:
            with to_simulator(self._path) as link:
                link.send(json.dumps({"op": op, **fields}).encode("ascii") + b"\n")
                answer: dict[str, Any] = json.loads(link.receive(ANSWER_WITHIN))
        except Unreachable as error:
            raise StageError(str(error)) from None
        if not answer.get("ok"):
            raise StageError(f"the simulator refused {op}: {answer.get('error')}")
        return answer

    def sent(self) -> list[dict[str, Any]]:
        """Return the messages that the module sent, the oldest first."""
        return list(self.ask("sent")["sent"])

    def stored(self) -> int:
        """Return how many messages lie in its stores."""
        return sum(self.ask("state")["state"]["messages"].values())


@dataclass(frozen=True, slots=True)
class Message:
    """A message of the broker; `topic` is below the node's own prefix, `record` empty for what is no JSON object."""

    topic: str
    retained: bool
    payload: bytes
    record: dict[str, Any] = field(default_factory=dict)


class Mirror:
    """All that is published below a prefix, as mosquitto_sub hears it."""

    def __init__(self, broker: tuple[str, int], base: str, on_message: Callable[[Message], None]) -> None:
        self.messages: list[Message] = []
        self._base = base
        self._on_message = on_message
        host, port = broker
        command = [program("mosquitto_sub", "mosquitto-clients"), "-h", host, "-p", str(port), "-V", "mqttv5"]
        # The payload in hexadecimal: one with line ends stays one line.
        self.child = Child("mosquitto_sub", [*command, "-q", "1", "-t", base + "#", "-F", "%r %x %t"], self._take)

    def _take(self, line: str) -> None:
        retained, digits, topic = [*line.split(" ", 2), "", ""][:3]
        try:
            payload = bytes.fromhex(digits)
        except ValueError:  # a complaint of the program itself; its tail has it
            return
        message = Message(topic.removeprefix(self._base), retained == "1", payload, _object(payload))
        self.messages.append(message)
        self._on_message(message)


def publish(broker: tuple[str, int], topic: str, payload: str, *, retain: bool = False) -> None:
    """Publish with QoS 1 and wait until the broker has it; raises StageError."""
    host, port = broker
    command = [program("mosquitto_pub", "mosquitto-clients"), "-h", host, "-p", str(port), "-V", "mqttv5"]
    _run([*command, "-q", "1", "-t", topic, "-m", payload, *(["-r"] if retain else [])])


def forget(broker: tuple[str, int], base: str) -> None:
    """Clear what is retained below a prefix of a broker that goes on without us."""
    host, port = broker
    command = [program("mosquitto_sub", "mosquitto-clients"), "-h", host, "-p", str(port), "-V", "mqttv5"]
    _run([*command, "-t", base + "#", "--remove-retained", "-W", "2"], good=(0, _MOSQUITTO_SUB_TIMEOUT))


def daemon_status(socket: Path) -> dict[str, Any] | None:
    """Return what `atrunctl status --json` shows, None while nobody answers."""
    try:
        with to_daemon(str(socket)) as link:
            link.send(encode(StatusRequest()))
            answer = decode_answer(link.receive(ANSWER_WITHIN))
    except (Unreachable, ControlError):
        return None
    return answer.status if isinstance(answer, StatusAnswer) else None


_MOSQUITTO_SUB_TIMEOUT: Final = 27
"""mosquitto_sub's exit status when the time of -W is over."""

_SYSTEMD: Final = ("NOTIFY_SOCKET", "JOURNAL_STREAM", "WATCHDOG_USEC", "WATCHDOG_PID", "CREDENTIALS_DIRECTORY")
"""What a service manager told this program, and not those that it starts."""


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in _SYSTEMD}
    # The daemon is that of the tree which this program is from, wherever it was started.
    tree = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (tree, kept.get("PYTHONPATH"))))
    return {**kept, "PYTHONUNBUFFERED": "1", "PYTHONPATH": path}


def _run(command: Sequence[str], good: Sequence[int] = (0,)) -> None:
    name = Path(command[0]).name
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=ANSWER_WITHIN, check=False
        )
    except subprocess.TimeoutExpired:
        raise StageError(f"{name} did not get through to the broker within {ANSWER_WITHIN:g} s") from None
    if done.returncode not in good:
        raise StageError(f"{name} ended with status {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")


def _object(payload: bytes) -> dict[str, Any]:
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
