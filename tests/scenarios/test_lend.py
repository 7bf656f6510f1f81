# SPDX-License-Identifier: Apache-2.0
"""The port lent from outside: a shell talks to the module itself, and the daemon takes the port back."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.scenarios.conftest import Stage
from tests.scenarios.players import ROOT, Daemon, Module, until

TALK = r"""
exec 3<>"$ATRUND_PORT"
stty -F "$ATRUND_PORT" raw -echo
printf 'AT+CGMM\r' >&3
while read -r line <&3; do
  echo "$line"
  case "$line" in OK*) break;; esac
done
"""


@pytest.fixture(scope="module")
def module(shared_stage: Stage) -> Module:
    return shared_stage.module()


@pytest.fixture(scope="module")
def daemon(shared_stage: Stage, module: Module) -> Daemon:
    return shared_stage.daemon(module).start()


def begin(daemon: Daemon, *words: str, environ: dict[str, str] | None = None) -> "subprocess.Popen[str]":
    """Start `atrunctl lend` and wait for nothing."""
    command = [sys.executable, "-m", "atrund.ctl.main", "--socket", str(daemon.socket), "lend", *words]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
        env={**os.environ, **(environ or {})},
        process_group=0,
    )


def state(daemon: Daemon) -> tuple[str, str]:
    module = daemon._look()["module"]
    return module["state"], module["detail"]


def works(daemon: Daemon) -> None:
    """Wait until commands run again."""
    until(lambda: state(daemon)[0] == "ready", "a module that is ready again")
    assert daemon.ctl("at", "AT+CSQ").returncode == 0


def end(program: "subprocess.Popen[str]") -> None:
    """End it and its command, which are a process group of their own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(program.pid, signal.SIGKILL)
    program.communicate(timeout=15)


def test_a_program_talks_to_the_module_itself(daemon: Daemon, module: Module) -> None:
    module.ask("seen", clear=True)
    done = daemon.ctl("lend", "--for", "30s", "--", "bash", "-c", TALK)
    assert (done.returncode, done.stderr) == (0, "")
    assert "HE910" in done.stdout
    works(daemon)
    assert "AT+CMGF=0" in module.seen, "the module was set up again"
    told = [entry.get("reason") for entry in daemon.log if entry["event"] in {"port lent", "port given back"}]
    assert told == [f"{module.link}, for at most 30 s", None]


def test_the_port_stands_in_the_arguments_and_the_exit_code_is_the_commands(daemon: Daemon) -> None:
    done = daemon.ctl("lend", "--", "sh", "-c", 'test "$1" = "port=$ATRUND_PORT" && exit 42', "sh", "port={}")
    assert (done.returncode, done.stderr) == (42, "")
    works(daemon)
    assert daemon.ctl("lend", "--", "sh", "-c", "kill -KILL $$").returncode == 128 + signal.SIGKILL
    works(daemon)


def test_doors_are_busy_meanwhile_and_nobody_else_borrows(daemon: Daemon, module: Module) -> None:
    lent = begin(daemon, "--", "sh", "-c", "echo have it; exec sleep 60")
    try:
        assert lent.stdout is not None
        assert lent.stdout.readline() == "have it\n"
        assert state(daemon) == ("lent", f"lent to uid {os.getuid()} for at most 600 s")
        module.ask("seen", clear=True)
        done = daemon.ctl("at", "AT+CSQ")
        assert (done.returncode, done.stdout) == (1, "+CME ERROR: 2\n")
        assert "rejected (busy)" in done.stderr
        second = daemon.ctl("lend", "--", "true")
        assert second.returncode == 1
        assert "is lent to uid" in second.stderr
        assert module.seen == []
        lent.terminate()  # handed on to the command
        assert lent.wait(15) == 128 + signal.SIGTERM
    finally:
        end(lent)
    works(daemon)


def test_a_killed_atrunctl_gives_it_back_once_its_command_has_closed_it(daemon: Daemon) -> None:
    lent = begin(daemon, "--", "sh", "-c", 'exec 3<>"$ATRUND_PORT"; echo $$; exec sleep 60')
    assert lent.stdout is not None
    holder = int(lent.stdout.readline())
    try:
        lent.kill()
        daemon.heard("port lent and not free yet")
        assert state(daemon)[0] == "lent"
        assert f"still open elsewhere: sleep (pid {holder}" in state(daemon)[1]
        assert daemon.ctl("at", "AT+CSQ").stdout == "+CME ERROR: 2\n"
        os.kill(holder, 0)  # nothing was killed
    finally:
        end(lent)
    works(daemon)


def test_a_killed_atrunctl_whose_command_does_not_have_it_open(daemon: Daemon) -> None:
    lent = begin(daemon, "--", "sh", "-c", "echo $$; exec sleep 60")
    assert lent.stdout is not None
    holder = int(lent.stdout.readline())
    try:
        lent.kill()
        works(daemon)
        os.kill(holder, 0)
    finally:
        end(lent)


def test_the_time_is_over_while_it_is_open(daemon: Daemon) -> None:
    lent = begin(daemon, "--for", "1s", "--", "sh", "-c", 'exec 3<>"$ATRUND_PORT"; echo $$; exec sleep 60')
    assert lent.stdout is not None
    assert lent.stderr is not None
    holder = int(lent.stdout.readline())
    try:
        assert "the time is over" in lent.stderr.readline()
        until(lambda: f"sleep (pid {holder}" in state(daemon)[1], "who holds it")
        assert lent.poll() is None
        os.kill(holder, signal.SIGKILL)
        assert lent.wait(15) == 128 + signal.SIGKILL
        works(daemon)
    finally:
        end(lent)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ([], 2, "no COMMAND is given"),
        (["--for", "0", "--", "true"], 2, "is no time from 1s to 24h"),
        (["--for", "25h", "--", "true"], 2, "is no time"),
        (["--for", "²s", "--", "true"], 2, "is no time"),
        (["--", "no-such-program-anywhere"], 127, "not found"),
    ],
)
def test_wrong_usage_borrows_nothing(daemon: Daemon, words: Sequence[str], code: int, says: str) -> None:
    before = len(daemon.logged("port lent"))
    done = daemon.ctl("lend", *words)
    assert done.returncode == code
    assert says in done.stderr
    assert len(daemon.logged("port lent")) == before
    assert state(daemon)[0] == "ready"


MMCLI = """#!/bin/sh
echo "$@" >>"$0.asked"
case "$*" in
*--list-modems*) echo '{"modem-list":["/org/freedesktop/ModemManager1/Modem/3"]}';;
*--modem*) echo '{"modem":{"generic":{"device":"/sys/devices/usb1/1-2","ports":["'"$PORT_NAME"' (at)"]}}}';;
*--inhibit-device=*)
  [ -n "$REFUSES" ] && { echo "error: cannot inhibit device"; exit 1; }
  trap 'echo ended >>"$0.asked"; exit 0' INT TERM
  echo "successfully inhibited device with uid '/sys/devices/usb1/1-2'"
  while :; do sleep 0.05; done;;
esac
"""


@pytest.mark.parametrize("refuses", ["", "1"])
def test_modemmanager_is_kept_off_meanwhile(daemon: Daemon, module: Module, tmp_path: Path, refuses: str) -> None:
    mmcli = tmp_path / "mmcli"
    mmcli.write_text(MMCLI)
    mmcli.chmod(0o755)
    environ = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PORT_NAME": module.link.resolve().name,
        "REFUSES": refuses,
    }
    lent = begin(daemon, "--inhibit-mm", "--", "sh", "-c", f"cat {mmcli}.asked; exit 7", environ=environ)
    out, errors = lent.communicate(timeout=15)
    asked = Path(f"{mmcli}.asked").read_text()
    assert "--inhibit-device=/sys/devices/usb1/1-2" in asked
    if refuses:
        assert (lent.returncode, out) == (1, "")
        assert "does not leave /sys/devices/usb1/1-2 alone: error: cannot inhibit device" in errors
    else:
        assert (lent.returncode, errors) == (7, "")
        assert "ended" not in out
        assert asked.endswith("ended\n")
    works(daemon)
