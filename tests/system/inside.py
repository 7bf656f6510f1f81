# SPDX-License-Identifier: Apache-2.0
"""What the tests inside the container share: the simulated module, the broker, the doors, systemd and the journal."""

import contextlib
import json
import os
import pty
import re
import select
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from tests.support import guest
from tests.support.guest import check, run

T = TypeVar("T")

SHARED: Final = Path("/mnt/shared")
SETTINGS: Final = Path("/etc/atrund/conf.d/site.toml")
PATIENCE: Final = 30.0
"""Seconds after which what was waited for counts as missing."""
PASSWORD: Final = "geheim-7731"
LIBRARY: Final = "/usr/lib/atrund"


@contextlib.contextmanager
def simulator(name: str = "module") -> Iterator[None]:
    """A simulated module, run by the package's own code; its port is the group's, as a real one is."""
    code = f"import sys; sys.path.insert(0, {LIBRARY!r}); from atrund.sim.__main__ import main; sys.exit(main())"
    link, control = f"/run/{name}", f"/run/{name}.sock"
    command = [sys.executable, "-I", "-c", code, "--link", link, "--control", control]
    for left in (link, control):  # by one that was killed before
        Path(left).unlink(missing_ok=True)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as program:
        try:
            until(lambda: Path(control).exists(), "the simulated module")
            shutil.chown(os.path.realpath(link), "root", "dialout")
            Path(link).chmod(0o660)
            yield
        finally:
            program.kill()


@contextlib.contextmanager
def broker() -> Iterator[None]:
    """A real one, at its usual port."""
    with subprocess.Popen(["mosquitto"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as program:
        try:
            until(lambda: answers(1883), "mosquitto")
            yield
        finally:
            program.kill()


def settings(more: str = "") -> None:
    SETTINGS.write_text(
        f"""
node = "box"
{more}
[module]
port = "/run/module"
[sms]
enabled = true
numbers = ["+393401234567"]
[tcp]
enabled = true
firewall = ["127.0.0.0/8"]
users = [{{name = "operator", password_file = "tcp-operator"}}]
[mqtt]
enabled = true
host = "127.0.0.1"
remote_at = true
"""
    )
    shutil.chown(SETTINGS, "root", "atrund")
    SETTINGS.chmod(0o640)


class Caller:
    """A client of the TCP door, logged in."""

    def __init__(self) -> None:
        self._socket = socket.create_connection(("127.0.0.1", 1024), PATIENCE)
        self._socket.settimeout(PATIENCE)
        self._socket.sendall(f"operator\r{PASSWORD}\r".encode())
        self.asks("AT")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def asks(self, line: str) -> str:
        self._socket.sendall(line.encode() + b"\r")
        heard = b""
        while not heard.endswith((b"\r\nOK\r\n", b"ERROR\r\n")):
            piece = self._socket.recv(4096)
            check(bool(piece), f"the TCP connection was closed behind {heard!r}")
            heard += piece
        return heard.decode()


class Conversation:
    """A program at a terminal of its own, and who types there."""

    def __init__(self, *command: str) -> None:
        self._ours, theirs = pty.openpty()
        self._heard = ""
        words = ["setsid", "--ctty", "--wait", *command]
        self._process = subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(PATIENCE)
        os.close(self._ours)

    def hears(self, pattern: str, answer: str | None = None) -> None:
        """Wait for words behind those of before, and type an answer."""
        end = time.monotonic() + PATIENCE
        while not (found_ := re.search(pattern, self._heard)):
            ready, _, _ = select.select([self._ours], [], [], max(0.0, end - time.monotonic()))
            check(bool(ready), f"never heard {pattern!r}: {self._heard!r}")
            with contextlib.suppress(OSError):  # its end, which the next look shows
                self._heard += os.read(self._ours, 4096).decode("utf-8", "replace").replace("\r", "")
            check(self._process.poll() is None or bool(re.search(pattern, self._heard)), f"it ended: {self._heard!r}")
        self._heard = self._heard[found_.end() :]
        if answer is not None:
            os.write(self._ours, answer.encode() + b"\n")

    def ends(self) -> int:
        return self._process.wait(PATIENCE)


def over_mqtt(line: str, id_: str) -> dict[str, Any]:
    """Ask by MQTT and return the answer."""
    request = json.dumps({"cmd": line, "id": id_})
    to, back = "atrund/box/at/request/tester", "atrund/box/at/response/tester"
    # Without an expiry what comes right behind a reconnection counts as late.
    expiry = ("-D", "publish", "message-expiry-interval", "60")
    answer: dict[str, Any] = json.loads(
        run("mosquitto_rr", "-h", "127.0.0.1", "-V", "5", "-W", "20", *expiry, "-t", to, "-e", back, "-m", request)
    )
    return answer


def over_retained(topic: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(run("mosquitto_sub", "-h", "127.0.0.1", "-t", topic, "-C", "1", "-W", "10"))
    return told


def is_up() -> None:
    """Wait until the module is ready and the broker is connected."""

    def look() -> bool:
        done = subprocess.run(["atrunctl", "status", "--json"], capture_output=True, text=True, check=False, timeout=30)
        if done.returncode:
            return False
        told = json.loads(done.stdout)
        return bool(told["module"]["state"] == "ready" and told["mqtt"]["connected"])

    until(look, "the daemon with all that it needs")


def journal(match: str) -> list[dict[str, Any]]:
    shown = run("journalctl", "--no-pager", "--output=json", match)
    return [json.loads(line) for line in shown.splitlines()]


def last_words() -> str:
    return run("journalctl", "--no-pager", "--unit=atrund.service", "--lines=12", "--output=cat")


def memory() -> int:
    """Return the daemon's resident memory in MiB."""
    status = Path(f"/proc/{unit('MainPID')}/status").read_text()
    found_ = re.search(r"VmRSS:\s+(\d+)", status)
    return int(found_[1]) >> 10 if found_ else 0


def unit(name: str) -> str:
    return run("systemctl", "show", "--value", f"--property={name}", "atrund.service").strip()


def word(what: str, name: str) -> str:
    done = subprocess.run(["systemctl", what, name], capture_output=True, text=True, check=False, timeout=PATIENCE)
    return done.stdout.strip()


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def until(look: Callable[[], T | None], what: str) -> T:
    return guest.until(look, what, PATIENCE)


def found(place: str) -> list[str]:
    """Files of ours below a folder; what dpkg and systemd themselves remember is theirs."""
    names = subprocess.run(["find", place, "-xdev", "-name", "*atrund*"], capture_output=True, text=True, check=False)
    return [name for name in names.stdout.splitlines() if "/systemd/" not in name or "/etc/systemd" in name]


def say(text: str) -> None:
    print(text, flush=True)
