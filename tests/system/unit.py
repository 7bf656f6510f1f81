# SPDX-License-Identifier: Apache-2.0
"""What atrund.service promises: secrets, bounds and sandbox, the kernel's firewall, listeners kept, an end."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.support.guest import check, run
from tests.system.inside import (
    PASSWORD,
    SETTINGS,
    Caller,
    answers,
    is_up,
    journal,
    over_retained,
    say,
    simulator,
    unit,
    until,
)

DROP_INS: Final = Path("/etc/systemd/system/atrund.service.d")
EXAMPLES: Final = Path("/usr/share/doc/atrund/examples")
OTHER: Final = SETTINGS.with_name("unit.toml")
PORT: Final = 1024
FLOOD: Final = 2000
"""Strangers of a flood: more than the door's own tally writes down one by one, let alone the journal."""
EACH_AT_ONCE: Final = 100
"""Entries of a kind at once (atrund/journal/limits.py), and one a second more."""
NET_ADMIN: Final = 1 << 12
"""CAP_NET_ADMIN (linux/capability.h)."""


def test() -> None:
    """All of it; settings and unit are as before behind it, and the daemon runs."""
    promises()
    encrypted_secrets()
    a_module_that_comes_and_goes()
    without_the_kernels_firewall()
    with_the_kernels_firewall()
    the_listener_fits_or_goes()
    nobody_hears_the_farewell()


def promises() -> None:
    """What the unit sets is so for the process."""
    pid = unit("MainPID")
    for name, value in {
        "Type": "notify",
        "Restart": "on-failure",
        "RestartPreventExitStatus": "2",
        "MemoryMax": str(128 << 20),
        "LimitCORE": "0",
        "LogRateLimitIntervalUSec": "0",
        "User": "atrund",
    }.items():
        check(unit(name) == value, f"{name} is {unit(name)}")
    limits = Path(f"/proc/{pid}/limits").read_text()
    check(bool(re.search(r"Max core file size +0 +0 ", limits)), limits)
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    check((status["NoNewPrivs"], status["Seccomp"]) == ("1", "2"), f"{status}")
    check(all(int(status[name], 16) == 0 for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")), f"{status}")
    changed = unit("StateChangeTimestampMonotonic")
    os.kill(int(pid), signal.SIGHUP)
    until(lambda: unit("StateChangeTimestampMonotonic") != changed, "RELOADING by a signal of somebody's own")
    until(lambda: unit("ActiveState") == "active", "READY behind it")
    check(unit("MainPID") == pid, "another process")
    say("the unit: no capabilities, no core, its bounds; SIGHUP is RELOADING, then READY")


def encrypted_secrets() -> None:
    """The password comes from a file that only this host can read, and opens the TCP door."""
    plain, there = Path("/root/tcp-operator"), Path("/etc/credstore.encrypted/tcp-operator")
    there.parent.mkdir(mode=0o700, exist_ok=True)
    run("systemd-creds", "setup")
    run("systemd-creds", "encrypt", "--with-key=host", "--name=tcp-operator", str(plain), str(there))
    check(PASSWORD.encode() not in there.read_bytes(), "it is not encrypted")
    away = plain.with_name("away")
    plain.rename(away)
    with drop_in("zz-secrets.conf", f"LoadCredential=\nLoadCredentialEncrypted=tcp-operator:{there}\n"):
        with Caller() as caller:
            check("OK" in caller.asks("AT+CGMM"), "the TCP door")
        away.rename(plain)
    with Caller() as caller:
        check("OK" in caller.asks("AT+CGMM"), "the TCP door with LoadCredential=")
    say("secrets: a login works with LoadCredentialEncrypted= and the host's key, as with LoadCredential=")


def a_module_that_comes_and_goes() -> None:
    """It starts without one and says so; one that is unplugged ends nothing."""
    with settings_too('[module]\nport = "/run/other"\n'):
        check(unit("ActiveState") == "active", "not ready without a module")
        until(lambda: "module absent" in unit("StatusText"), "the word that there is none")
        check("doors: sms, tcp, mqtt, local" in unit("StatusText"), f"the doors: {unit('StatusText')}")
        pid = unit("MainPID")
        with simulator("other"):
            is_up()
        until(lambda: "module absent" in unit("StatusText"), "the word that it is gone")
        run("atrunctl", "status")
        check(unit("MainPID") == pid, "another process")
    say("a module: absent at the start and said, taken when it comes, outlived when it goes")


def without_the_kernels_firewall() -> None:
    """Where the kernel wants CAP_NET_ADMIN, strangers are reset unread; a flood of them costs few lines."""
    if not wants_a_capability():
        say("the kernel takes a filter from everybody: not looked at without")
        return
    with settings_too('[tcp]\nfirewall = ["127.0.0.1/32"]\n'):
        pid = unit("MainPID")
        for _ in range(2):
            check(called_from("127.0.0.9") == "reset", "a stranger was not reset")
            run("systemctl", "reload", "atrund.service")
        with Caller() as caller:
            check("OK" in caller.asks("AT"), "who is let in")
        text = "strangers are refused by the daemon, not by the kernel"
        said = [one for one in entries(pid) if one["MESSAGE"].startswith(text)]
        check(len(said) == 1 and "firewall.conf" in explained(said[0]), f"said {len(said)} times")
        audited = refused_in_the_audit()
        for number in range(FLOOD):
            called_from(f"127.1.{number >> 8}.{number & 255}")
        audited = refused_in_the_audit() - audited
        seconds = time.monotonic()
        run("systemctl", "restart", "atrund.service")
        seconds = time.monotonic() - seconds
        told = until(lambda: [one for one in entries(pid) if one["MESSAGE"] == "stopped"] and entries(pid), "its end")
    written = [one for one in told if one["MESSAGE"].startswith("refused") and "ATRUND_KIND" not in one]
    held = [int(one["ATRUND_COUNT"]) for one in told if one.get("ATRUND_KIND") == "refused"]
    check(audited > FLOOD / 2, f"{audited} of {FLOOD} are in the audit")
    check(EACH_AT_ONCE <= len(written) < audited / 2, f"{len(written)} lines for {FLOOD} strangers")
    check(len(written) + sum(held) == audited + 2, f"{len(written)} and {held} are not {audited} and the first two")
    say(f"{FLOOD} strangers, reset: {audited} in the audit, {len(written)} in the journal, and {held} more told there")


def with_the_kernels_firewall() -> None:
    """With the drop-in of the examples they get nothing at all, also while there is no daemon; the sandbox stays."""
    shutil.copy(EXAMPLES / "firewall.conf", DROP_INS)
    with settings_too('[tcp]\nfirewall = ["127.0.0.1/32"]\n', reread=True):
        pid = unit("MainPID")
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        check(all(int(status[name], 16) == NET_ADMIN for name in ("CapEff", "CapBnd", "CapAmb")), f"{status}")
        check((status["NoNewPrivs"], status["Seccomp"]) == ("1", "2"), f"{status}")
        check(not [one for one in entries(pid) if "not by the kernel" in one["MESSAGE"]], "it can't set the filter")
        check(called_from("127.0.0.9") == "nothing", "a stranger got something")
        kept_out = json.loads(run("atrunctl", "status", "--json"))["tcp"]["kept_out"]
        check(kept_out > 0, "nobody counts them")
        os.kill(int(pid), signal.SIGKILL)
        until(lambda: unit("MainPID") != pid, "its end")
        check(called_from("127.0.0.9") == "nothing", "a stranger got something while there was no daemon")
        with Caller() as caller:
            check("OK" in caller.asks("AT"), "who is let in")
        check(called_from("127.0.0.9") == "nothing", "a stranger got something from the next daemon")
        exposure = re.search(r"exposure level for \S+: ([\d.]+)", run("systemd-analyze", "security", "atrund"))
        check(exposure is not None, "no exposure")
        (DROP_INS / "firewall.conf").unlink()
    run("systemctl", "daemon-reload")
    run("systemctl", "restart", "atrund.service")
    is_up()
    say(f"firewall.conf: strangers get nothing, with and without a daemon; exposure {exposure and exposure[1]}")


def the_listener_fits_or_goes() -> None:
    """One that systemd kept is taken up only if it is still to listen there."""
    with settings_too(f"[tcp]\nport = {PORT + 1}\n", restart=False):
        killed()
        until(lambda: answers(PORT + 1), "the new port")
        check(not answers(PORT), "the port of before listens")
    check(answers(PORT) and not answers(PORT + 1), "not on its port again")
    check("OK" in run("atrunctl", "at", "AT#TCPATRUNL=0"), "#TCPATRUNL=0")
    killed()
    check(not answers(PORT), "a service that is off listens")
    check("OK" in run("atrunctl", "at", "AT#TCPATRUNL=1"), "#TCPATRUNL=1")
    check(answers(PORT), "it does not listen")
    run("atrunctl", "nvm", "reset", "tcp.enabled")
    say("a kept listener: let go where the port is another or #TCPATRUNL is 0")


def nobody_hears_the_farewell() -> None:
    """`offline` is given up after 2 s."""
    (mosquitto,) = run("pidof", "mosquitto").split()
    pid = unit("MainPID")
    os.kill(int(mosquitto), signal.SIGSTOP)
    try:
        run("systemctl", "stop", "atrund.service")
    finally:
        os.kill(int(mosquitto), signal.SIGCONT)
    check(unit("Result") == "success", f"systemd lost patience: {unit('Result')}")
    told = entries(pid)
    ends = {one["MESSAGE"]: int(one["__MONOTONIC_TIMESTAMP"]) / 1e6 for one in told}
    check("broker did not acknowledge the farewell" in ends, "it did not give up")
    began = int(unit("StateChangeTimestampMonotonic")) / 1e6
    check(began - ends["broker did not acknowledge the farewell"] < 15, "it took long behind that")
    until(lambda: over_retained("atrund/box/status")["state"] == "offline", "what the broker had in its ear")
    run("systemctl", "start", "atrund.service")
    is_up()
    say("a broker that hangs: the farewell was given up, and the stop went on")


@contextlib.contextmanager
def drop_in(name: str, text: str) -> Iterator[None]:
    """A drop-in for the unit, and the daemon started anew with it and behind it."""
    (DROP_INS / name).write_text(f"[Service]\n{text}")
    try:
        start_anew()
        yield
    finally:
        (DROP_INS / name).unlink()
    start_anew()


@contextlib.contextmanager
def settings_too(text: str, *, restart: bool = True, reread: bool = False) -> Iterator[None]:
    """Settings beside those of the others, and the daemon started anew with them and behind them."""
    OTHER.write_text(text)
    try:
        if reread:
            run("systemctl", "daemon-reload")
        if restart:
            run("systemctl", "restart", "atrund.service")
        yield
    finally:
        OTHER.unlink()
    run("systemctl", "restart", "atrund.service")
    is_up()


def start_anew() -> None:
    run("systemctl", "daemon-reload")
    run("systemctl", "restart", "atrund.service")
    is_up()


def killed() -> None:
    """Kill it, and wait until there is another."""
    pid = unit("MainPID")
    os.kill(int(pid), signal.SIGKILL)
    until(lambda: unit("MainPID") not in {pid, "0"} and unit("ActiveState") == "active", "another process")
    is_up()


def wants_a_capability() -> bool:
    """Whether this kernel refuses a socket's filter to who has no CAP_NET_ADMIN."""
    code = """
import array, os, socket, struct
os.setuid(65534)
program = array.array("B", struct.pack("HBBI", 6, 0, 0, 65535))
socket.socket().setsockopt(socket.SOL_SOCKET, 26, struct.pack("HP", 1, program.buffer_info()[0]))
"""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, timeout=60).returncode != 0


def called_from(address: str) -> str:
    """What comes of a call from an address of this machine: `nothing`, not even a handshake; `reset`, or `in`."""
    with socket.socket() as caller:
        caller.bind((address, 0))
        caller.settimeout(2.0)
        try:
            caller.connect(("127.0.0.1", PORT))
        except TimeoutError:
            return "nothing"
        except ConnectionResetError:
            return "reset"
        try:
            caller.sendall(f"operator\r{PASSWORD}\r".encode())
            return "in" if caller.recv(64) else "reset"
        except (ConnectionResetError, BrokenPipeError):
            return "reset"


def entries(pid: str) -> list[dict[str, Any]]:
    """What a daemon had to say."""
    run("journalctl", "--sync")
    return journal(f"_PID={pid}")


def explained(entry: dict[str, Any]) -> str:
    return run("journalctl", "--dump-catalog", entry["MESSAGE_ID"])


def refused_in_the_audit() -> int:
    told = run("atrunctl", "audit", "--event", "refused", "--door", "tcp", "--limit", "60000", "--json")
    return len(json.loads(told))
