# SPDX-License-Identifier: Apache-2.0
"""What is missing, full or broken, at the start or amid it: what goes on, what is said, and that it mends."""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.support import guest
from tests.support.guest import check, run
from tests.system.inside import (
    SETTINGS,
    Caller,
    answers,
    broker,
    is_up,
    over_mqtt,
    say,
    settings,
    simulator,
    unit,
    until,
)

STATE: Final = Path("/var/lib/atrund")
LEDGER: Final = STATE / "ledger.db"
FRIEND: Final = "+393401234567"
KEPT: Final = Path("/run/kept")
"""Where the broker keeps what waits for those who are away."""
LONG: Final = 150.0
"""Seconds within which what is tried ever more rarely is tried again: the broker, a ledger that could not be used."""
DISK: Final = "3m"


def faults() -> None:
    """Module and broker were just killed under the daemon."""
    module_and_broker_gone()
    with simulator():
        no_broker_for_a_while()
        with broker():
            a_disk_that_runs_full()
            a_disk_that_is_full_at_the_start()
            a_disk_that_is_read_only()
            a_damaged_ledger()
            no_state_directory()
    no_module_at_the_start()


def module_and_broker_gone() -> None:
    """The daemon outlives both, says so, and takes the module up when it is there again."""
    pid = unit("MainPID")
    until(lambda: "module absent" in unit("StatusText"), "the word of it in the status")
    until(lambda: not _status()["mqtt"]["connected"], "the broker's end")
    done = _asked("AT")
    check(done.returncode != 0 and "module" in done.stderr, f"without a module: {done}")
    with simulator():
        _is_ready()
        check("OK" in run("atrunctl", "at", "AT"), "the local door")
    until(lambda: "module absent" in unit("StatusText"), "the second word of it")
    check(unit("MainPID") == pid and unit("ActiveState") == "active", "it did not outlive them")
    say("module and broker killed: the daemon stayed, said so, and took the module up when it was back")


def no_broker_for_a_while() -> None:
    """Other doors go on; what was to be told waits on the disk, over a restart, and is told."""
    watcher = ("mosquitto_sub", "-h", "127.0.0.1", "-c", "-i", "watcher", "-q", "1", "-t", "atrund/box/#")
    with _keeping_broker():
        run(*watcher, "-E")
        _is_connected()
    until(lambda: not _status()["mqtt"]["connected"], "the broker's end")
    _is_ready()
    with Caller() as caller:
        check("OK" in caller.asks("AT+CSQ;+CGMM"), "the TCP door")
    check("OK" in run("atrunctl", "at", "AT+CSQ;+CGMI"), "the local door")
    sent = _sent()
    _text("AT+CSQ;#CGMM")
    until(lambda: _sent() > sent, "the answer by SMS")
    waiting = until(lambda: _status()["ledger"]["outbox"], "records that wait")
    run("systemctl", "restart", "atrund.service")
    check(unit("ActiveState") == "active" and "mqtt" in unit("StatusText"), "it waited for the broker")
    heard = ""

    def all_heard() -> bool:
        nonlocal heard
        done = subprocess.run([*watcher, "-W", "2"], capture_output=True, text=True, check=False)
        heard += done.stdout
        return all(line in heard for line in ("AT+CSQ;+CGMM", "AT+CSQ;+CGMI", "AT+CSQ;#CGMM"))

    with _keeping_broker():
        guest.until(all_heard, "what was to be told", LONG)
        until(lambda: not _status()["ledger"]["outbox"], "that nothing waits")
    say(f"the broker stopped: TCP, SMS and local went on, {waiting} records waited over a restart, and came")


def a_disk_that_runs_full() -> None:
    """REQ-12, and all is well again without a restart."""
    more = SETTINGS.with_name("sweep.toml")
    more.write_text("[sms]\nsweep = 10\n")
    with _disk():
        run("systemctl", "start", "atrund.service")
        is_up()
        pid, restarts = unit("MainPID"), unit("NRestarts")
        filler = _fill()
        until(lambda: _over_mqtt().get("reason") == "storage", "that MQTT is refused")
        sent = _sent()
        _text("AT+CSQ;#CGMI")
        with Caller() as caller:
            check("OK" in caller.asks("AT+CGMM"), "the TCP door")
        check(",1," in run("atrunctl", "at", "AT+CPMS?"), "the SMS left the store")
        check(_over_mqtt().get("reason") == "storage", "MQTT is refused no more")
        check(_sent() == sent, "the SMS was answered")
        filler.unlink()
        until(lambda: _over_mqtt()["state"] == "ok", "MQTT")
        guest.until(lambda: _sent() > sent, "the answer to the SMS, at the next sweep", LONG)
        check((unit("MainPID"), unit("NRestarts")) == (pid, restarts), "it was restarted")
    more.unlink()
    say("the disk ran full: the SMS stayed in the store, MQTT was refused, TCP and local went on; then all was well")


def a_disk_that_is_full_at_the_start() -> None:
    with _disk():
        filler = _fill()
        _starts_without("room on its disk")
        filler.unlink()
        _is_taken_up()
    say("a disk full at the start: said, the local door open, and started anew by itself when there was room")


def a_disk_that_is_read_only() -> None:
    with _disk():
        run("mount", "-o", "remount,ro", str(STATE))
        _starts_without(str(LEDGER))
        run("mount", "-o", "remount,rw", str(STATE))
        run("systemctl", "restart", "atrund.service")  # it keeps the disk as it was mounted when it started
        is_up()
        until(lambda: _over_mqtt()["state"] == "ok", "MQTT")
    say("a state directory that can't be written: said, the local door open")


def a_damaged_ledger() -> None:
    run("systemctl", "stop", "atrund.service")
    whole = LEDGER.read_bytes()
    LEDGER.write_bytes(whole[:1024] + os.urandom(len(whole) - 1024))
    before = _sum()
    _starts_without("damaged")
    check(_sum() == before, "it was changed")
    LEDGER.rename(STATE / "damaged.db")
    _is_taken_up()
    check(LEDGER.exists(), "there is no new one")
    say("a damaged ledger: said, left alone to the byte; moved away, the daemon began anew by itself")


def no_state_directory() -> None:
    run("systemctl", "stop", "atrund.service")
    shutil.rmtree(STATE)
    run("systemctl", "start", "atrund.service")
    is_up()
    check(run("stat", "--format=%U %a", str(STATE)).strip() == "atrund 700", "the state directory")
    run("systemctl", "stop", "atrund.service")
    settings('state_dir = "/nowhere/atrund"')
    _starts_without("/nowhere/atrund/ledger.db")
    settings()
    run("systemctl", "restart", "atrund.service")
    is_up()
    say("no state directory: made anew; where it can't be made, said")


def no_module_at_the_start() -> None:
    """READY all the same, and its port may come later."""
    run("systemctl", "restart", "atrund.service")
    check(unit("ActiveState") == "active", "it waited for the module")
    until(lambda: "module absent" in unit("StatusText"), "the word of it in the status")
    text = unit("StatusText")
    with simulator():
        _is_ready()
    say(f"no module at the start: up with {text!r}, and ready when it came")


def _starts_without(why: str) -> None:
    """Start without a ledger, which is said with the reason; what needs no promise goes on."""
    run("systemctl", "start", "atrund.service")
    check(unit("ActiveState") == "active", "it is not up")
    until(lambda: "ledger unusable" in unit("StatusText"), "the word of it in the status")
    entry = until(_complaint, "the word of it in the journal")
    check(why in entry.get("ATRUND_DETAIL", ""), f"{why!r} is not in {entry}")
    _is_ready()
    check("OK" in run("atrunctl", "at", "AT"), "the local door")
    _is_connected()
    until(lambda: _over_mqtt().get("reason") == "storage", "that MQTT is refused")


def _is_taken_up() -> None:
    pid = unit("MainPID")
    guest.until(lambda: unit("MainPID") not in {pid, "0"}, "another start by itself", LONG)
    is_up()
    until(lambda: _over_mqtt()["state"] == "ok", "MQTT")


def _complaint() -> dict[str, Any]:
    """The newest entry of this life about the ledger."""
    matches = (f"_PID={unit('MainPID')}", "MESSAGE_ID=f40249b621d7b87c842d726e388ec3aa")
    shown = run("journalctl", "--no-pager", "--output=json", *matches).splitlines()
    entry: dict[str, Any] = json.loads(shown[-1]) if shown else {}
    return entry


@contextlib.contextmanager
def _disk() -> Iterator[None]:
    """A small disk of the daemon's own, which does not run before it and not behind it."""
    run("systemctl", "stop", "atrund.service")
    owner = STATE.stat()
    run(
        "mount", "-t", "tmpfs", "-o", f"size={DISK},mode=700,uid={owner.st_uid},gid={owner.st_gid}", "tmpfs", str(STATE)
    )
    try:
        yield
    finally:
        subprocess.run(["systemctl", "stop", "atrund.service"], capture_output=True, check=False)
        run("umount", str(STATE))


def _fill() -> Path:
    filler = STATE / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return filler


@contextlib.contextmanager
def _keeping_broker() -> Iterator[None]:
    """A broker that keeps sessions over its own restart."""
    KEPT.mkdir(exist_ok=True)
    (KEPT / "conf").write_text(
        f"user root\nlistener 1883 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {KEPT}/\n"
    )
    with subprocess.Popen(["mosquitto", "-c", str(KEPT / "conf")], stderr=subprocess.DEVNULL) as program:
        try:
            until(lambda: answers(1883), "mosquitto")
            yield
        finally:
            program.terminate()


def _status() -> dict[str, Any]:
    told: dict[str, Any] = json.loads(run("atrunctl", "status", "--json"))
    return told


def _is_ready() -> None:
    until(lambda: _status()["module"]["state"] == "ready", "the module")


def _is_connected() -> None:
    guest.until(lambda: _status()["mqtt"]["connected"], "the broker", LONG)


def _asked(line: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["atrunctl", "at", line], capture_output=True, text=True, check=False, timeout=60)


_asked_so_far = iter(range(1_000_000))


def _over_mqtt() -> dict[str, Any]:
    """Ask a command that was never asked before."""
    return over_mqtt("AT+CSQ", f"fault {next(_asked_so_far)}")


def _text(text: str) -> None:
    run("atrunctl", "sim", "--control", "/run/module.sock", "sms", "--from", FRIEND, text)


def _sent() -> int:
    """Return how many SMS the module has sent."""
    return len(json.loads(run("atrunctl", "sim", "--json", "--control", "/run/module.sock", "sent"))["sent"])


def _sum() -> str:
    return hashlib.sha256(LEDGER.read_bytes()).hexdigest()
