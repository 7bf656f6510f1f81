# SPDX-License-Identifier: Apache-2.0
"""What `atrunctl doctor` reads of the host: who has a port open, who may open it, programs' output, addresses.

Everything is read, nothing is opened that is a device. What can't be read is None or left out, and never an error.
"""

import os
import stat
import struct
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from atrund.usb.holders import Holders, holders, running

PROGRAM_TIMEOUT: Final = 5.0
"""Seconds for another program to tell what it knows: each asks a local daemon or reads a file."""

SIOCGIFADDR: Final = 0x8915
"""Linux: the IPv4 address of an interface (netdevice(7)); the library has no name for it."""

RTF_UP: Final = 0x1
"""Linux, net/route.h: the route is usable."""

Run = Callable[[Sequence[str]], str | None]


@dataclass(frozen=True, slots=True)
class Node:
    """A device node: who may open it."""

    owner: str
    group: str
    mode: int
    acl: tuple[str, ...]
    """Named users and groups of its access control list that may read and write, as `user:name`, `group:name`."""

    @property
    def for_group(self) -> bool:
        """Whether the group may read and write."""
        return self.mode & 0o060 == 0o060


def run_program(arguments: Sequence[str]) -> str | None:
    """Return what a program prints; None where it isn't there, fails or takes too long."""
    import shutil
    import subprocess

    program = shutil.which(arguments[0])
    if program is None:
        return None
    try:
        done = subprocess.run(  # noqa: S603 - the programs are named in this package, never by input
            [program, *arguments[1:]],
            check=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PROGRAM_TIMEOUT,
            env={**os.environ, "LC_ALL": "C"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "replace")


def ipv4_address(interface: str) -> str | None:
    """Return the first IPv4 address of a network interface."""
    import fcntl
    import socket

    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            answer = fcntl.ioctl(asking, SIOCGIFADDR, struct.pack("256s", interface.encode()[:15]))
    except OSError:
        return None
    return socket.inet_ntoa(answer[20:24])


@dataclass(frozen=True, slots=True)
class Host:
    """Where things are on this host, and how programs are run; tests put others in their place."""

    sys: Path = Path("/sys")
    dev: Path = Path("/dev")
    proc: Path = Path("/proc")
    run: Run = run_program
    address: Callable[[str], str | None] = ipv4_address

    def holders(self, paths: Iterable[Path]) -> Holders:
        """Return who has which of these ports open: one look at all open files of all processes."""
        return holders(paths, self.proc)

    def running(self, name: str) -> bool:
        """Return whether a process of that name runs (the kernel keeps 15 characters of it)."""
        return running(name, self.proc)

    def udev_properties(self, path: Path) -> dict[str, str] | None:
        """Return what udev knows of a device node; None where there is no udevadm, or it knows nothing."""
        output = self.run(("udevadm", "info", "--query=property", f"--name={path}"))
        if output is None:
            return None
        return dict(line.partition("=")[::2] for line in output.splitlines() if "=" in line)

    def default_routes(self) -> tuple[str, ...]:
        """Return the interfaces of the IPv4 default routes, the preferred one first."""
        found = []
        for line in _text(self.proc / "net" / "route").splitlines()[1:]:
            fields = line.split()
            with suppress(ValueError, IndexError):
                to, flags, metric, mask = fields[1], int(fields[3], 16), int(fields[6]), fields[7]
                if to == mask == "00000000" and flags & RTF_UP:
                    found.append((metric, fields[0]))
        return tuple(dict.fromkeys(name for _, name in sorted(found)))


def node_of(path: Path) -> Node | None:
    """Return who may open a device node; None where it isn't there."""
    import grp
    import pwd

    try:
        found = path.stat()
    except OSError:
        return None
    owner, group = str(found.st_uid), str(found.st_gid)
    with suppress(KeyError):
        owner = pwd.getpwuid(found.st_uid).pw_name
    with suppress(KeyError):
        group = grp.getgrgid(found.st_gid).gr_name
    try:
        acl = os.getxattr(path, "system.posix_acl_access")
    except OSError:
        acl = b""
    return Node(owner, group, stat.S_IMODE(found.st_mode), named_in_acl(acl))


def named_in_acl(acl: bytes) -> tuple[str, ...]:
    """Return the named users and groups of an ACL that may read and write.

    The layout is Linux's posix_acl_xattr.h: a version (2), then tag, permissions and id of each entry, little-endian.
    """
    import grp
    import pwd

    named = []
    if len(acl) < 4 or (len(acl) - 4) % 8 or struct.unpack_from("<I", acl)[0] != 2:
        return ()
    entries = list(struct.iter_unpack("<HHI", acl[4:]))
    mask = next((permissions for tag, permissions, _ in entries if tag == 0x10), 0o7)
    for tag, permissions, number in entries:
        if permissions & mask & 0o6 != 0o6:
            continue
        with suppress(KeyError):
            if tag == 0x02:
                named.append(f"user:{pwd.getpwuid(number).pw_name}")
            elif tag == 0x08:
                named.append(f"group:{grp.getgrgid(number).gr_name}")
    return tuple(named)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
