# SPDX-License-Identifier: Apache-2.0
"""A machine for the examples of a page: what stands there is typed as it stands there.

Nothing in a command is replaced. Instead it runs where its names mean what the test has: in namespaces with a loopback,
/run, /tmp, /etc and /var/lib of their own, so that port 1024 is the daemon's, 1883 mosquitto's, /etc/atrund the
configuration's, and `broker.example` and the like are this machine (/etc/hosts). First on the path come `atrund` and
`atrunctl`, the programs of this tree, and `systemctl` and `sudo`, stand-ins for what only an installed system has.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
PATIENCE: Final = 30.0
"""Seconds after which what was waited for counts as missing."""
LOOK_EVERY: Final = 0.05
NEEDED: Final = ("ip", "pgrep", "mosquitto", "mosquitto_rr", "telnet", "socat", "picocom", "openssl")
"""Programs of others."""
NAMES: Final = ("broker.example", "gateway-17.example", "far.example")
"""Names of pages that are this machine."""

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MOUNTS: Final = """
set -e
root=$1 folder=$2
mount -t tmpfs tmpfs /run
mkdir -p /run/keep/root /run/keep/folder /run/lock /run/atrund
mount --rbind "$root" /run/keep/root
mount --rbind "$folder" /run/keep/folder
mount -t tmpfs tmpfs /tmp
mkdir -p "$root" "$folder"
mount --rbind /run/keep/root "$root"
mount --rbind /run/keep/folder "$folder"
cp -a /etc "$folder/etc"
rm -rf "$folder/etc/atrund"
mkdir -p "$folder/etc/atrund/conf.d"
mount --bind "$folder/etc" /etc
mount -t tmpfs tmpfs /var/lib
mkdir /var/lib/atrund
echo "127.0.0.1 localhost $3" >/etc/hosts
echo "hosts: files" >/etc/nsswitch.conf
grep -q ^atrund: /etc/group || echo "atrund:x:64999:" >>/etc/group
ip link set lo up
echo ready >"$folder/ready"
sleep infinity & # and the shell, which is the first process there, buries the orphans
wait
"""

_SUDO: Final = """\
#!/bin/sh
[ "$1" = -u ] && shift 2
exec "$@"
"""

_SYSTEMCTL: Final = """\
#!/bin/sh
# What the pages ask of systemctl, for a daemon that is no unit.
pid=$(cat /run/atrund.pid 2>/dev/null)
case "$*" in
  "reload atrund") kill -HUP "$pid" ;;
  "enable --now atrund" | "start atrund" | "restart atrund")
    [ -z "$pid" ] || { kill "$pid"; tail --pid="$pid" -f /dev/null; }
    touch /run/atrund.log
    before=$(wc -c </run/atrund.log)
    setsid atrund >>/run/atrund.log 2>&1 </dev/null &
    echo $! >/run/atrund.pid
    until tail -c +$((before + 1)) /run/atrund.log | grep -q 'doors open'; do
      kill -0 $! || exit 1
      sleep 0.1
    done
    # Who reads the page takes a moment to type on; the module is ready by then.
    timeout 20 sh -c 'until atrunctl status | grep -q "state *ready"; do sleep 0.1; done' ;;
  "stop atrund") kill "$pid"; tail --pid="$pid" -f /dev/null; rm /run/atrund.pid ;;
  *) echo "systemctl $*: not here" >&2; exit 1 ;;
esac
"""


class Machine:
    """One machine; `folder` is where its commands start, and outlives it."""

    def __init__(self, folder: Path) -> None:
        missing = [name for name in NEEDED if shutil.which(name, path=_PATH) is None]
        if missing:
            pytest.skip(f"not installed: {', '.join(missing)}")
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir()
        self._bin = folder / "bin"
        self._bin.mkdir()
        for name, text in (
            ("sudo", _SUDO),
            ("systemctl", _SYSTEMCTL),
            ("atrund", f'#!/bin/sh\nexec {sys.executable} -m atrund "$@"\n'),
            ("atrunctl", f'#!/bin/sh\nexec {sys.executable} -m atrund.ctl.main "$@"\n'),
            ("python", f'#!/bin/sh\nexec {sys.executable} "$@"\n'),
        ):
            (self._bin / name).write_text(text)
            (self._bin / name).chmod(0o755)
        apart = ["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"]
        command = ["unshare", *apart, "bash", "-c", _MOUNTS, "machine", str(ROOT), str(folder), " ".join(NAMES)]
        self._started: list[Path] = []
        self._running: list[subprocess.Popen[bytes]] = []
        self._log = folder / "machine.log"
        with self._log.open("wb") as log:
            self._unshare = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._until(lambda: (folder / "ready").exists() or self._unshare.poll() is not None, "the machine")
        if self._unshare.poll() is not None:
            pytest.skip(f"no namespaces: {self._log.read_text()}")
        child = subprocess.run(
            ["pgrep", "--parent", str(self._unshare.pid)], capture_output=True, text=True, check=True
        )
        self._pid = child.stdout.split()[0]

    def stop(self) -> None:
        """End all of it."""
        self._unshare.kill()
        for process in (self._unshare, *self._running):
            process.wait(PATIENCE)

    def command(self, *words: str | Path) -> list[str]:
        """What runs `words` in there, from outside."""
        enter = ["nsenter", "--target", self._pid, "--mount", "--net", "--pid"]
        return [*enter, "env", f"--chdir={self.home}", *map(str, words)]

    @property
    def environ(self) -> dict[str, str]:
        """For what runs in there: as a new shell would have it, and Python's own."""
        kept = {name: os.environ[name] for name in ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE") if name in os.environ}
        path = f"{self._bin}:{_PATH}"
        python = os.pathsep.join([str(ROOT), *kept.pop("PYTHONPATH", "").split(os.pathsep)]).rstrip(os.pathsep)
        home = {"HOME": str(self.home), "LC_ALL": "C.UTF-8", "TERM": "xterm", "COLUMNS": "120"}
        return {**kept, **home, "PATH": path, "PYTHONPATH": python}

    def run(self, line: str) -> "subprocess.CompletedProcess[str]":
        """Type a line at a shell and wait for its end; both outputs in one, as at a terminal."""
        return subprocess.run(
            self.command("timeout", "--kill-after=2", str(PATIENCE), "bash", "-c", line),
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE + 10,
            check=False,
        )

    def start(self, line: str, look: str = "") -> Path:
        """Start what goes on, wait until the line `look` succeeds, and return where its output is."""
        log = self.folder / f"started-{len(self._started)}.log"
        self._started.append(log)
        with log.open("wb") as file:
            process = subprocess.Popen(
                self.command("bash", "-c", line),
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        self._running.append(process)
        if look:
            self.until(look)
        return log

    @property
    def log(self) -> str:
        """The last that the daemon said."""
        return self.run("tail -n 20 /run/atrund.log").stdout

    def until(self, look: str) -> None:
        """Wait until a line succeeds."""
        self._until(lambda: self.run(look).returncode == 0, look)

    def _until(self, look: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + PATIENCE
        while not look():
            if time.monotonic() > end:
                logs = "".join(one.read_text(errors="replace") for one in (self._log, *self._started))
                raise AssertionError(f"never: {what}\n{logs[-3000:]}\n{self.log}")
            time.sleep(LOOK_EVERY)
