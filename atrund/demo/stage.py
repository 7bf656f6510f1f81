# SPDX-License-Identifier: Apache-2.0
"""The stage: a private directory and all that the demo needs, started in order and taken down whatever happens."""

import json
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from atrund.demo.players import Child, Message, Mirror, Simulator, StageError, daemon_status, forget, program, publish

NUMBER: Final = "+393468686711"
"""The made-up telephone that may send commands to the simulated module."""

NOTE_PASSWORD: Final = "1234567890123456"
"""The password of the examples in Telit 80000NT10029a, so that its own digests are right here."""

TCP_USER: Final = "operator"
READY_WITHIN: Final = 30.0
"""Seconds for a program to be ready: for the daemon with a real module that needs a while to be set up."""

PORT_TRIES: Final = 5
"""A port that the kernel named free may be taken before mosquitto listens on it."""

SOCKET_PATH_ROOM: Final = 60
"""Longest directory for temporary files in which the path of a unix socket (107 bytes) is sure to fit."""

_T = TypeVar("_T")


class Interrupted(Exception):
    """This program was told by a signal to end."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is used instead of what the demo would start: a broker, a module's port, the telephone to answer to."""

    broker: tuple[str, int] | None = None
    device: str = ""
    sms_to: str = ""


class Stage:
    """All players, up and ready inside the `with` block. Raises StageError when one can't be had or is gone."""

    def __init__(
        self,
        wishes: Wishes,
        on_log: Callable[[str], None] = lambda _: None,
        on_message: Callable[[Message], None] = lambda _: None,
    ) -> None:
        """`on_log` gets the daemon's log lines and `on_message` what the broker has, each on a thread of its own."""
        self.wishes = wishes
        self.sim: Simulator | None = None
        # With a real module nobody is let in by a password that a public document prints.
        self.number = wishes.sms_to if wishes.device else wishes.sms_to or NUMBER
        self.sms_password = secrets.token_hex(8) if wishes.device else NOTE_PASSWORD
        self.tcp_password = secrets.token_hex(4)
        self.tcp_port = 0
        self.broker = wishes.broker or ("127.0.0.1", 0)
        self.base = f"atrund/{'demo' if wishes.broker is None else 'demo-' + secrets.token_hex(3)}/"
        parent = tempfile.gettempdir()
        parent = parent if len(parent) <= SOCKET_PATH_ROOM else "/tmp"  # noqa: S108 - see there
        self.directory = Path(parent, f"atrund-demo-{secrets.token_hex(8)}")
        self.socket = self.directory / "atrund.sock"
        self.control = self.directory / "sim.sock"
        self._on_log = on_log
        self._on_message = on_message
        self._mirror: Mirror | None = None
        self._children: list[Child] = []
        self._interrupted_by = 0

    def __enter__(self) -> Self:
        """Start everything and wait until the daemon has all its doors open."""
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop what still runs, wait for each, and remove the directory."""
        self._stop()

    @property
    def messages(self) -> list[Message]:
        """All that was heard from the broker below the daemon's topics, in order."""
        return [] if self._mirror is None else self._mirror.messages

    @property
    def sms_open(self) -> bool:
        """Whether commands are taken by SMS."""
        return bool(self.number)

    def publish(self, topic: str, payload: str, *, retain: bool = False) -> None:
        """Publish below the daemon's own topics."""
        publish(self.broker, self.base + topic, payload, retain=retain)

    def interrupt(self, number: int, _: object = None) -> None:
        """Have the next `check` raise Interrupted: made for a signal's handler, so that nothing ends half-way."""
        self._interrupted_by = number

    def check(self) -> None:
        """Raise StageError if a player has gone, and Interrupted if this program is to end."""
        if self._interrupted_by:
            raise Interrupted(self._interrupted_by)
        for child in self._children:
            child.check()

    def wait_for(self, look: Callable[[], _T | None], seconds: float) -> _T | None:
        """Look until there is something to see, for so many seconds at most; None if there never was."""
        end = time.monotonic() + seconds
        while (found := look()) is None and time.monotonic() < end:
            self.check()
            time.sleep(_LOOK_EVERY)
        return found

    def stop_daemon(self) -> int:
        """Stop the daemon as a service manager does, and return its exit status; everything else goes on."""
        daemon = next(child for child in self._children if child.name == "atrund")
        self._children.remove(daemon)
        return daemon.stop()

    def _start(self) -> None:
        # Searchable for the broker, which is no root and has to find its file; what is in it is not readable.
        self.directory.mkdir(mode=0o700)
        self.directory.chmod(0o711)
        device = self.wishes.device or self._start_simulator()
        if self.wishes.broker is None:
            self._start_broker()
        self._start_daemon(device)
        self._mirror = Mirror(self.broker, self.base, self._on_message)
        self._children.append(self._mirror.child)
        # Retained, so it comes as soon as the subscription stands: from now on nothing is missed.
        if self.wait_for(self._online, READY_WITHIN) is None:
            raise StageError(f"nothing is heard of the daemon at the broker.{self._mirror.child.last_words()}")

    def _start_simulator(self) -> str:
        link = self.directory / "module"
        command = [sys.executable, "-m", "atrund.sim", "--link", str(link), "--control", str(self.control)]
        child = self._add(Child("the simulated module", command))
        if self.wait_for(lambda: child.said("ready"), READY_WITHIN) is None:
            raise StageError(f"{child.name} does not get ready.{child.last_words()}")
        self.sim = Simulator(self.control)
        return str(link)

    def _start_broker(self) -> None:
        path = program("mosquitto", "mosquitto")
        file = self.directory / "mosquitto.conf"
        for _ in range(PORT_TRIES):
            port = _free_port()
            # Without Nagle's algorithm, which holds each acknowledgement back for 40 ms.
            file.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n")
            file.chmod(0o644)
            child = Child("mosquitto", [path, "-c", str(file)], unprivileged=True)
            self._children.append(child)
            try:
                up = self.wait_for(lambda child=child: child.said("running"), READY_WITHIN)  # type: ignore[misc]
            except StageError:
                up = None
            if up:
                self.broker = ("127.0.0.1", port)
                return
            child.stop()
            self._children.remove(child)
        raise StageError(f"mosquitto does not start.{child.last_words()}")

    def _start_daemon(self, device: str) -> None:
        file = self.directory / "atrund.toml"
        _write_private(file, self._configuration(device))
        child = self._add(Child("atrund", [sys.executable, "-m", "atrund", "--config", str(file)], self._on_log))
        status = self.wait_for(self._ready, READY_WITHIN)
        if status is None:
            last = daemon_status(self.socket) or {}
            missing = ", ".join(_missing(last, sms=self.sms_open)) or "an answer on its control socket"
            raise StageError(f"atrund does not get ready; missing: {missing}.{child.last_words()}")
        self.tcp_port = int(status["tcp"]["ports"][0])

    def _configuration(self, device: str) -> str:
        """Write the secrets' files and return the text of the configuration."""
        tcp_file, sms_file = self.directory / "tcp-password", self.directory / "sms-password"
        _write_private(tcp_file, self.tcp_password)
        _write_private(sms_file, self.sms_password)
        host, port = self.broker
        _, node, _ = self.base.split("/")
        options: dict[str, dict[str, object]] = {
            "module": {"port": device},
            "sms": {"enabled": self.sms_open},
            "tcp": {"enabled": True, "port": 0, "firewall": ["127.0.0.0/8"]},
            "mqtt": {
                "enabled": True,
                "host": host,
                "port": port,
                "remote_at": True,
                "spread": 0,
                # A broker that goes on afterwards need not keep a session that nobody takes up again.
                "session_expiry": "60s",
                # Whoever names a broker wants it used as it is.
                "insecure": self.wishes.broker is not None,
            },
            "local": {"socket": str(self.socket), "mode": "0600"},
            "log": {"format": "console"},
        }
        if self.sms_open:
            options["sms"] |= {"numbers": [self.number], "password_files": [str(sms_file)]}
        if self.sim is not None:
            # Simulated messages cost nothing.
            options["sms"] |= {"answers_per_hour": 1000, "answers_per_day": 10000}
        lines = [f"node = {_toml(node)}", f"state_dir = {_toml(str(self.directory / 'state'))}"]
        for section, values in options.items():
            lines += ["", f"[{section}]", *(f"{name} = {_toml(value)}" for name, value in values.items())]
        lines += ["", "[[tcp.users]]", f"name = {_toml(TCP_USER)}", f"password_file = {_toml(str(tcp_file))}", ""]
        return "\n".join(lines)

    def _ready(self) -> dict[str, Any] | None:
        status = daemon_status(self.socket)
        return status if status is not None and not _missing(status, sms=self.sms_open) else None

    def _online(self) -> bool | None:
        online = any(m.topic == "status" and m.record.get("state") == "online" for m in tuple(self.messages))
        return online or None

    def _add(self, child: Child) -> Child:
        self._children.append(child)
        return child

    def _stop(self) -> None:
        try:
            # The daemon first, so that it can say goodbye to the broker and its module.
            if any(child.name == "atrund" for child in self._children):
                self.stop_daemon()
            for child in reversed(self._children):
                child.stop()
            self._children.clear()
            if self.wishes.broker is not None and self._mirror is not None:
                forget(self.broker, self.base)
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)


_LOOK_EVERY: Final = 0.02
"""Seconds between two looks: short beside what is waited for, long beside what a look costs."""


def _missing(status: dict[str, Any], *, sms: bool) -> list[str]:
    """Return what is not up yet, by the daemon's own status."""
    module, tcp, mqtt = (status.get(name, {}) for name in ("module", "tcp", "mqtt"))
    found = []
    if module.get("state") != "ready":
        found.append(f"the module ({module.get('detail') or module.get('state', 'unknown')})")
    if sms and status.get("sms", {}).get("state") != "open":
        found.append("the SMS door")
    if not tcp.get("ports"):
        found.append("the TCP door")
    if not mqtt.get("connected"):
        found.append("the broker")
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _write_private(file: Path, text: str) -> None:
    file.touch(mode=0o600)
    file.write_text(text, encoding="utf-8")


def _toml(value: object) -> str:
    """Return a text, number, truth value or list of texts as TOML: these are written as in JSON."""
    return json.dumps(value, ensure_ascii=False)
