# SPDX-License-Identifier: Apache-2.0
"""Sockets that systemd holds: opened by its units, or left with it over a restart (sd_listen_fds(3)).

They are there before the daemon and after it, so that who connects meanwhile waits instead of being refused.
"""

import contextlib
import os
import socket
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

FIRST: Final = 3
"""The first descriptor that is handed over (SD_LISTEN_FDS_START)."""
SOCKETS_MAX: Final = 64
"""Far more than units of ours name; a larger number is no systemd's."""


class Store(Protocol):
    """Systemd's file descriptor store."""

    def store(self, descriptor: int, name: str) -> None:
        """Leave a descriptor there under a name."""

    def unstore(self, name: str) -> None:
        """Have what is there under a name closed."""


@dataclass(frozen=True, slots=True)
class Handed:
    """A socket that was handed over, and the name that it has there."""

    name: str
    socket: socket.socket


def handed_over(environ: MutableMapping[str, str]) -> list[Handed]:
    """Take the sockets that were handed to this process, and the variables out of `environ`, which a child would read.

    What is no socket is left alone. To be called once, before anything else is opened.
    """
    given = {name: environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")}
    if given["LISTEN_PID"] != str(os.getpid()) or not given["LISTEN_FDS"].isdecimal():
        return []
    names = given["LISTEN_FDNAMES"].split(":")
    taken = []
    for place in range(min(int(given["LISTEN_FDS"]), SOCKETS_MAX)):
        try:
            one = socket.socket(fileno=FIRST + place)
        except OSError:  # none, or no descriptor at all
            continue
        one.setblocking(False)
        os.set_inheritable(FIRST + place, False)
        taken.append(Handed(names[place] if place < len(names) else "", one))
    return taken


class Shelf:
    """The sockets that systemd holds for this daemon."""

    def __init__(self, handed: list[Handed], store: Store) -> None:
        self.is_leaving = False
        """Set once the daemon ends: what it closes then stays on the shelf, for the next one."""
        self._handed = handed
        self._store = store

    def at_path(self, path: Path | None) -> socket.socket | None:
        """Take the socket that listens at a path; None if there is none."""
        return self._take(lambda one: one.family == socket.AF_UNIX and one.getsockname() == str(path))

    def at_port(self, address: str, port: int, interface: str) -> socket.socket | None:
        """Take the socket that listens exactly there; None if there is none, and for port 0, which is none."""

        def listens_there(one: socket.socket) -> bool:
            if one.family not in {socket.AF_INET, socket.AF_INET6} or one.getsockname()[:2] != (address, port):
                return False
            bound = one.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, _NAME_MAX)
            return (
                bool(one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
                and bound.rstrip(b"\0") == interface.encode()
            )

        return self._take(listens_there)

    def keep(self, listener: socket.socket) -> None:
        """Leave a listener with systemd as well."""
        self._store.store(listener.fileno(), _name(listener))

    def drop(self, listener: socket.socket) -> None:
        """Have a listener that is about to be closed for good closed there too."""
        if not self.is_leaving:
            self._store.unstore(_name(listener))
            # systemd closes its copy a moment later; until then the port would be in use, and callers would wait there.
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)

    def clear(self) -> list[str]:
        """Close what nobody took, and return where it listened."""
        left = []
        for one in self._handed:
            left.append(str(one.socket.getsockname()))
            one.socket.close()
            self._store.unstore(one.name)
        self._handed.clear()
        return left

    def _take(self, fits: Callable[[socket.socket], bool]) -> socket.socket | None:
        for one in self._handed:
            if fits(one.socket):
                self._handed.remove(one)
                return one.socket
        return None


_NAME_MAX: Final = 16
"""Octets of an interface's name (IFNAMSIZ)."""


def _name(listener: socket.socket) -> str:
    """Return a name without a colon, which would part it from the next one."""
    address, port = listener.getsockname()[:2]
    interface = listener.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, _NAME_MAX).rstrip(b"\0").decode()
    return f"tcp-{address.replace(':', '_')}-{port}" + (f"-{interface}" if interface else "")
