# SPDX-License-Identifier: Apache-2.0
"""The test of the virtual machine: a USB modem is unplugged and plugged again under a running daemon.

The kernel's own driver `option` makes the modem's /dev/ttyUSB*, and udev names them. The daemon runs as a unit, with
limits that are real here. What is seen goes line by line to the second serial port; the last line is `passed` or
`failed`.
"""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import termios
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from tests.support import guest
from tests.support.guest import check, run
from tests.usb_vm.modem import PORTS, SECONDARY, Modem

T = TypeVar("T")

HERE: Final = Path("/opt/atrund")
PATIENCE: Final = 60.0
"""Seconds after which what was waited for counts as missing: the daemon pauses for as long at most."""
MODEL: Final = "LE910C1-EUX"
PASSWORD: Final = "geheim-7731"
CGROUP: Final = Path("/sys/fs/cgroup/system.slice/atrund.service")
MEMORY_MAX: Final = 64 * 1024 * 1024
"""That of atrund.service."""


def test() -> None:
    """All of it, in order."""
    for name in ("dummy_hcd", "libcomposite", "usb_f_fs", "option"):
        run("modprobe", name)
    modem = Modem()
    with contextlib.ExitStack() as stack:
        stack.enter_context(modem.module("--model", MODEL, "--cops-delay", "30"))
        first = plugged_in(modem)
        daemon_starts()
        ask("AT+CGMM", MODEL)
        pid = unit("MainPID")
        limits_hold(first)
        caller = stack.enter_context(Caller())
        caller.logs_in()
        unplugged_and_plugged(modem, caller, first)
        unplugged_under_a_command(modem)
        say(f"restarts {unit('NRestarts')}, process {unit('MainPID')} as before, {unit('ActiveState')}")
        check((unit("NRestarts"), unit("MainPID"), unit("ActiveState")) == ("0", pid, "active"), "the daemon restarted")
        memory()


def plug(modem: Modem) -> str:
    """Plug the modem in; return the name of its secondary AT port, such as ttyUSB3."""
    modem.plug()
    until(lambda: len(ports()) == len(PORTS), "the modem's ports")
    run("udevadm", "settle", "--timeout=30")
    return ports()[SECONDARY]


def unplug(modem: Modem) -> None:
    """Pull it out."""
    modem.unplug()
    until(lambda: not ports(), "the ports to vanish")


def ports() -> dict[int, str]:
    """The modem's serial ports that there are, by interface number."""
    names = {}
    for entry in Path("/sys/class/tty").glob("ttyUSB*"):
        with contextlib.suppress(OSError):  # it vanished
            names[int((entry / "device/../bInterfaceNumber").read_text(), 16)] = entry.name
    return names


def plugged_in(modem: Modem) -> str:
    """The shipped udev rule, by the real udev: the secondary port alone is not ModemManager's."""
    first = plug(modem)
    ignored = {}
    for number, name in sorted(ports().items()):
        properties = run("udevadm", "info", "--query=property", f"/dev/{name}")
        ignored[number] = "ID_MM_PORT_IGNORE=1" in properties
        link = re.search(r"/dev/serial/by-id/(\S+)", properties)
        say(f"{name} is {link[1] if link else 'unnamed'}{', not for ModemManager' if ignored[number] else ''}")
    check(ignored == {number: number == SECONDARY for number in PORTS}, f"ports of the modem: {ignored}")
    return first


def daemon_starts() -> None:
    password = HERE / "tcp-operator"
    password.write_text(PASSWORD)
    password.chmod(0o600)
    began = time.monotonic()
    run("systemctl", "start", "atrund.service")
    state = module_is("ready")
    seconds = time.monotonic() - began
    say(f"daemon up and module {state['state']} in {seconds:.1f} s: {state.get('model')} at {state.get('port')}")


def limits_hold(port: str) -> None:
    """The unit's own limits stand for what is in its control group, whoever it runs as."""
    open_it = "import os, sys; os.close(os.open(sys.argv[1], os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY))"
    for path, allowed in ((f"/dev/{port}", True), ("/dev/tty0", False), ("/dev/ttyS0", False), ("/dev/mem", False)):
        done = within_unit(open_it, path)
        refused = "PermissionError" in done.stderr
        say(f"in the daemon's group {path} {'is refused' if refused else 'can be opened'}")
        check(refused is not allowed and (done.returncode == 0) is allowed, f"{path}: {done.stderr}")
    limit = int((CGROUP / "memory.max").read_text())
    check(limit == MEMORY_MAX, f"memory.max is {limit}")
    # In a group of its own, for in the daemon's the kernel would have to choose between it and the hog.
    subprocess.run(["systemctl", "start", "hog.service"], capture_output=True, check=False, timeout=PATIENCE)
    result = run("systemctl", "show", "--value", "--property=Result", "hog.service").strip()
    say(f"a program that wants twice as much memory ends: {result}")
    check(result == "oom-kill", "MemoryMax holds nothing back here")


def within_unit(code: str, argument: str) -> "subprocess.CompletedProcess[str]":
    """Run Python code in the daemon's control group, as root."""
    join = 'echo $$ >"$0/cgroup.procs" && exec "$@"'
    command = ["sh", "-c", join, str(CGROUP), sys.executable, "-c", code, argument]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)


def unplugged_and_plugged(modem: Modem, caller: "Caller", before: str) -> None:
    # Some other program still has the old port open, so that its number is not free for the new one.
    held = os.open(f"/dev/{before}", os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY)
    unplug(modem)
    began = time.monotonic()
    state = module_is("absent")
    say(f"unplugged: module {state['state']} after {time.monotonic() - began:.1f} s: {state.get('detail')}")
    done = atrunctl("at", "AT+CSQ")
    say(f"atrunctl at AT+CSQ: exit {done.returncode}, {done.stdout.strip()}, {done.stderr.strip()}")
    check(done.returncode == 1 and "port_down" in done.stderr, "not refused with port_down")
    caller.asks("AT+CSQ", "ERROR")
    check(status()["tcp"]["state"] == "open", "the TCP door is shut")

    name = plug(modem)
    began = time.monotonic()
    check(name != before, f"{name} again, though it was held open")
    say(f"plugged in again as {name}")
    state = module_is("ready")
    say(f"module {state['state']} after {time.monotonic() - began:.1f} s at {state.get('port')}")
    ask("AT+CGMM", MODEL)
    caller.asks("AT+CGMM", "OK")
    os.close(held)


def unplugged_under_a_command(modem: Modem) -> None:
    """Its asker is told at once, and the next one is served when the modem is back."""
    with subprocess.Popen(
        [*ATRUNCTL, "at", "AT+COPS=?"], env=ENVIRON, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as command:
        until(lambda: status()["requests"]["running"], "the command at the module")
        unplug(modem)
        began = time.monotonic()
        output, errors = command.communicate(timeout=PATIENCE)
        say(
            f"unplugged under AT+COPS=?: told after {time.monotonic() - began:.1f} s: {output.strip()} {errors.strip()}"
        )
    check(command.returncode == 1 and "port_down" in errors, "not told that the port was lost")
    module_is("absent")
    plug(modem)
    module_is("ready")
    ask("AT+CGMM", MODEL)


def memory() -> None:
    """The limit was never met."""
    events = dict(line.split() for line in (CGROUP / "memory.events").read_text().splitlines())
    peak = int((CGROUP / "memory.peak").read_text())
    say(f"memory: {peak >> 20} MiB at most of {MEMORY_MAX >> 20}; {events}")
    check(events["max"] == events["oom"] == events["oom_kill"] == "0", "MemoryMax was hit")


class Caller:
    """A client of the TCP door."""

    def __init__(self) -> None:
        self._socket = socket.create_connection(("127.0.0.1", 1024), PATIENCE)
        self._socket.settimeout(PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def logs_in(self) -> None:
        self._socket.sendall(f"operator\r{PASSWORD}\r".encode())
        self.asks("AT", "OK")

    def asks(self, line: str, final: str) -> None:
        self._socket.sendall(line.encode() + b"\r")
        heard = b""
        while not heard.endswith((b"\r\nOK\r\n", b"ERROR\r\n")):
            piece = self._socket.recv(4096)
            check(bool(piece), f"the TCP connection was closed behind {heard!r}")
            heard += piece
        say(f"over TCP {line}: {' '.join(heard.decode().split()[1:])}")
        check(heard.endswith(f"\r\n{final}\r\n".encode()), f"not {final}")


def status() -> dict[str, Any]:
    done = atrunctl("status", "--json")
    check(done.returncode == 0, f"atrunctl status: {done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def module_is(state: str) -> dict[str, Any]:
    """Wait for a state of the module; return what the daemon says of it."""

    def look() -> dict[str, Any] | None:
        module: dict[str, Any] = status()["module"]
        return module if module["state"] == state else None

    return until(look, f"module {state}")


def ask(line: str, answer: str) -> None:
    done = atrunctl("at", line)
    say(f"atrunctl at {line}: {' '.join(done.stdout.split())}")
    check(done.returncode == 0 and done.stdout == f"{answer}\nOK\n", f"not {answer}: {done.stdout}{done.stderr}")


ATRUNCTL: Final = (sys.executable, "-m", "atrund.ctl.main", "--socket", "/run/atrund/atrund.sock")
ENVIRON: Final = {**os.environ, "PYTHONPATH": str(HERE)}


def atrunctl(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*ATRUNCTL, *arguments], env=ENVIRON, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def unit(name: str) -> str:
    return run("systemctl", "show", "--value", f"--property={name}", "atrund.service").strip()


def until(look: Callable[[], T | None], what: str) -> T:
    return guest.until(look, what, PATIENCE)


def say(text: str) -> None:
    """Tell the host, with the seconds since the machine started."""
    print(f"{time.monotonic():5.1f} s  {text}", file=REPORT, flush=True)


def main() -> int:
    """Test; the exit status tells systemd alone."""
    try:
        test()
    except Exception:  # noqa: BLE001 - whatever it is, the host is told
        print(traceback.format_exc(), file=REPORT)
        journal = ["journalctl", "--no-pager", "--boot", "--lines=60", "--output=short-monotonic"]
        for of in ("--unit=atrund.service", "--dmesg"):
            print(subprocess.run([*journal, of], capture_output=True, text=True, check=False).stdout, file=REPORT)
        print("failed", file=REPORT, flush=True)
        termios.tcdrain(REPORT)  # what was said is to be out before the machine ends
        return 1
    print("passed", file=REPORT, flush=True)
    termios.tcdrain(REPORT)
    return 0


REPORT: Final = open("/dev/ttyS1", "w", encoding="utf-8")  # noqa: SIM115, PTH123 - for as long as this runs

if __name__ == "__main__":
    sys.exit(main())
