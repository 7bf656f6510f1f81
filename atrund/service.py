# SPDX-License-Identifier: Apache-2.0
"""What systemd is told (sd_notify(3)). The one place that knows sdnotify, and its habits.

sdnotify reads `$NOTIFY_SOCKET` itself, swallows every error, encodes Latin-1 and has a blocking socket; what is lost to
a full socket is only a status, and the next ping comes soon.
"""

import contextlib
import os
import socket
import time
from array import array
from collections.abc import Mapping

import sdnotify

# systemd shows one line; a longer status is no status.
STATUS_MAX = 200


class Service:
    """The daemon's word to systemd. Does nothing where there is no systemd. Never blocks, never raises."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        """`environ` is the process's own: sdnotify looks there too."""
        self._notifier = None
        if environ.get("NOTIFY_SOCKET"):
            self._notifier = sdnotify.SystemdNotifier()
            if self._notifier.socket is not None:
                self._notifier.socket.setblocking(False)
        self._watchdog_interval = _watchdog_interval(environ)

    @property
    def watchdog_interval(self) -> float | None:
        """Seconds between pings, half of what systemd waits for one; None if it waits for none from this process."""
        return self._watchdog_interval

    @property
    def restarts(self) -> bool:
        """Whether there is a systemd, which starts a daemon again that failed."""
        return self._notifier is not None

    def ready(self, status: str) -> None:
        """Start-up, or a reload, is done."""
        self._notify("READY=1", f"STATUS={_line(status)}")

    def status(self, text: str) -> None:
        """What `systemctl status` shows: one line of ASCII, other characters become `?`."""
        self._notify(f"STATUS={_line(text)}")

    def reloading(self) -> None:
        """A reload begins; `ready` ends it."""
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._notify("RELOADING=1", f"MONOTONIC_USEC={microseconds}")

    def starting(self, seconds: float) -> None:
        """The start may need so many seconds from now on."""
        self._notify(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")

    def stopping(self, seconds: float) -> None:
        """The daemon is on its way down, and may need so many seconds from now on."""
        self._notify("STOPPING=1", f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")

    def ping(self) -> None:
        """The watchdog's sign of life."""
        self._notify("WATCHDOG=1")

    def store(self, descriptor: int, name: str) -> None:
        """Leave a descriptor with systemd, for the next start of this unit (sd_pid_notify_with_fds(3))."""
        if self._notifier is not None and self._notifier.socket is not None:
            with contextlib.suppress(OSError):  # as above: what is lost costs a restart's convenience
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [descriptor]))]
                self._notifier.socket.sendmsg([f"FDSTORE=1\nFDNAME={name}".encode()], rights)

    def unstore(self, name: str) -> None:
        """Have what was left under a name closed."""
        self._notify("FDSTOREREMOVE=1", f"FDNAME={name}")

    def close(self) -> None:
        """Gives the socket back."""
        if self._notifier is not None and self._notifier.socket is not None:
            self._notifier.socket.close()

    def _notify(self, *lines: str) -> None:
        if self._notifier is not None:
            self._notifier.notify("\n".join(lines))


def _line(text: str) -> str:
    """A line break would start a message of its own."""
    return "".join(character if " " <= character <= "~" else "?" for character in text[:STATUS_MAX])


def _watchdog_interval(environ: Mapping[str, str]) -> float | None:
    """As sd_watchdog_enabled(3): `$WATCHDOG_USEC`, unless `$WATCHDOG_PID` names another process."""
    pid = environ.get("WATCHDOG_PID", "")
    if pid and pid != str(os.getpid()):
        return None
    microseconds = environ.get("WATCHDOG_USEC", "")
    if not microseconds.isascii() or not microseconds.isdecimal() or int(microseconds[:18]) == 0:
        return None
    return int(microseconds[:18]) / 2 / 1_000_000
