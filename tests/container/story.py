# SPDX-License-Identifier: Apache-2.0
"""The example of a container at work, under a user of no name; `packaging/test-container` runs this, as root."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

from tests.support import guest
from tests.support.guest import check, run

T = TypeVar("T")

IMAGE: Final = "localhost/atrund"
NAME: Final = "atrund-test"
"""Of each container, one after the other, and of the volume that they share."""
SOMEBODY: Final = 54321
GROUP: Final = 54000
"""That of the device, as dialout is on other machines."""
PATIENCE: Final = 60.0
"""Seconds after which what was waited for counts as missing."""
PASSWORD: Final = "geheim-7731"
SETTINGS: Final = """
[module]
port = "/dev/ttyAT"
[tcp]
enabled = true
listen = ["0.0.0.0"]
trusted_interfaces = ["eth0"]
firewall = ["0.0.0.0/0"]
users = [{ name = "operator", password_file = "operator.password" }]
"""


class Container:
    """One that runs, with what it says; podman ends as it did."""

    def __init__(self, podman: list[str], folder: Path, *options: str, user: int = SOMEBODY) -> None:
        self._podman = podman
        self.out, self._err = folder / "out", folder / "err"
        command = [*podman, "run", "--rm", f"--name={NAME}", f"--user={user}:{user}", f"--group-add={GROUP}"]
        # What a container in a container may not set, or has nowhere to set.
        command += ["--cgroups=disabled", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"]
        command += ["--log-driver=none", *options, IMAGE]
        with self.out.open("wb") as out, self._err.open("wb") as err:
            self._program = subprocess.Popen(command, stdout=out, stderr=err, stdin=subprocess.DEVNULL)

    def said(self, event: str) -> dict[str, Any]:
        """Wait for an entry of its log."""

        def look() -> dict[str, Any] | None:
            ended = self._program.poll() is not None
            found = next((entry for entry in self.entries() if entry["event"] == event), None)
            check(bool(found) or not ended, f"it ended: {self.out.read_text()}{self._err.read_text()}")
            return found

        return guest.until(look, f"{event!r} among {self.out.read_text()!r}", PATIENCE)

    def entries(self) -> list[dict[str, Any]]:
        """Each whole line that it has written to standard output; all of them are JSON."""
        return [json.loads(line) for line in self.out.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def inside(self, *command: str) -> str:
        return run(*self._podman, "exec", NAME, *command)

    def stop(self) -> int:
        run(*self._podman, "stop", "--time=30", NAME)
        return self.ended()

    def ended(self) -> int:
        """Wait for its end, and return its exit status; nothing came by standard error."""
        status = self._program.wait(PATIENCE)
        check(self._err.read_text() == "", f"on standard error: {self._err.read_text()}")
        return status


def test(folder: Path, podman: list[str]) -> None:
    with simulator(folder) as port:
        site, password = folder / "site.toml", folder / "operator.password"
        site.write_text(SETTINGS)
        password.write_text(PASSWORD)
        password.chmod(0o600)
        os.chown(password, SOMEBODY, SOMEBODY)
        # --device makes a node of its own, and a pseudo-terminal is one in its file system alone.
        device = f"--volume={port}:/dev/ttyAT:dev"
        settings = f"--volume={site}:/etc/atrund/conf.d/50-site.toml:ro"
        state = f"--volume={NAME}:/var/lib/atrund"
        options = [device, settings, state, f"--volume={password}:/etc/atrund/operator.password:ro"]
        works(Container(podman, folder, *options, "--publish=127.0.0.1:1024:1024"))
        bare(Container(podman, folder, *options, "--read-only", "--cap-drop=all", "--security-opt=no-new-privileges"))
        site.write_text('[module]\nport = "/dev/ttyAT"\n')
        of_somebody_else(Container(podman, folder, device, settings, state, user=SOMEBODY + 1))
        without_a_module(Container(podman, folder))
        site.write_text("[tcp]\nprot = 1\n")
        wrong(Container(podman, folder, settings))


def works(container: Container) -> None:
    container.said("module ready")
    check(container.inside("id", "-u").strip() == str(SOMEBODY), "another user")
    check("CapEff:\t0000000000000000\n" in container.inside("cat", "/proc/1/status"), "it has capabilities")
    check(container.inside("atrunctl", "at", "AT+CGMI") == "Telit\nOK\n", "the local door")
    check("OK" in over_tcp("AT+CGMM"), "the TCP door")
    state = container.inside("stat", "--format=%u %a", "/var/lib/atrund/state").split()
    check(state == [str(SOMEBODY), "700"], f"the state folder is {state}")
    check(container.stop() == 0, "SIGTERM did not end it well")
    entries = container.entries()
    check(entries[-1]["event"] == "stopped", f"its last words were {entries[-1]}")
    check(any(entry.get("door") == "tcp" for entry in entries), "the command is not in the log")
    check(PASSWORD not in container.out.read_text(), "a password is in the log")
    say(f"user {SOMEBODY}, no capabilities: commands by atrunctl and TCP, {len(entries)} lines of JSON; stopped with 0")


def bare(container: Container) -> None:
    """Nothing but the volume can be written to; what was recorded is there."""
    container.said("module ready")
    check("AT+CGMM" in container.inside("atrunctl", "audit", "--json"), "what was recorded is gone")
    check(container.stop() == 0, "SIGTERM did not end it well")
    say("with --read-only and --cap-drop=all: runs too, and knows the record of before")


def of_somebody_else(container: Container) -> None:
    """Who may not open the state says so, and runs without what needs it."""
    container.said("doors open")
    refused = container.said("ledger unusable; SMS stay unread and MQTT requests are refused")
    check("Permission denied: '/var/lib/atrund/state'" in refused["detail"], f"the reason is {refused}")
    check(container.inside("atrunctl", "at", "AT+CGMI") == "Telit\nOK\n", "the local door")
    check(container.stop() == 0, "SIGTERM did not end it well")
    say("another user's state: named, and the local door works without it")


def without_a_module(container: Container) -> None:
    container.said("doors open")
    check(container.stop() == 0, "SIGTERM did not end it well")
    say("without anything: the local door is open, stopped with 0")


def wrong(container: Container) -> None:
    status = container.ended()
    check(status == 2, f"it ended with {status}")
    check("tcp.prot: unknown key" in container.out.read_text(), f"not said: {container.out.read_text()}")
    say("a mistake in the settings: named, ended with 2")


def over_tcp(line: str) -> str:
    with socket.create_connection(("127.0.0.1", 1024), PATIENCE) as caller:
        caller.settimeout(PATIENCE)
        caller.sendall(f"operator\r{PASSWORD}\r{line}\r".encode())
        heard = b""
        while not heard.endswith((b"\r\nOK\r\n", b"ERROR\r\n")):
            piece = caller.recv(4096)
            check(bool(piece), f"the TCP connection was closed behind {heard!r}")
            heard += piece
        return heard.decode()


@contextlib.contextmanager
def simulator(folder: Path) -> Iterator[str]:
    """A simulated module; its port is a group's, as a real one's is. Yields the path of its terminal."""
    link, control = folder / "tty", folder / "sim"
    for path in (link, control):
        path.unlink(missing_ok=True)
    command = [sys.executable, "-m", "atrund.sim", "--link", str(link), "--control", str(control)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as program:
        try:
            until(control.exists, "the simulated module")
            port = os.path.realpath(link)
            os.chown(port, 0, GROUP)
            Path(port).chmod(0o660)
            yield port
        finally:
            program.kill()


def until(look: Callable[[], T | None], what: str) -> T:
    return guest.until(look, what, PATIENCE)


def say(text: str) -> None:
    print(text, flush=True)


def main() -> int:
    """Test; the exit status is `packaging/test-container`'s."""
    made, *podman = sys.argv[1:]
    folder = Path(made, "test")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        run(*podman, "rm", "--force", "--ignore", NAME)
        run(*podman, "volume", "rm", "--force", NAME)
        test(folder, podman)
    except Exception:  # noqa: BLE001 - whatever it is, it is told
        print(traceback.format_exc())
        return 1
    print("passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
