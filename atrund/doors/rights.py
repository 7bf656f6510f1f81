# SPDX-License-Identifier: Apache-2.0
"""Who may: groups by their names, and who is at the other end of a local socket, by the kernel's word."""

import errno
import grp
import os
import socket
import struct
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Peer:
    """A process that connected, as it was then: its user, and all groups that it was in."""

    uid: int
    groups: frozenset[int]

    def __str__(self) -> str:
        return f"uid {self.uid}"

    @property
    def is_trusted(self) -> bool:
        """Whether it is root's or the daemon's own."""
        return self.uid in {0, os.geteuid()}

    def is_in(self, group: int | None) -> bool:
        """Whether it is in a group; root and the daemon's own user count as in every one, and all are in None."""
        return group is None or self.is_trusted or group in self.groups


def group_id(name: str, key: str) -> int | None:
    """Return a group's number, None for "". Raises `OSError`, which names the option, for one that does not exist."""
    if not name:
        return None
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise OSError(f"{key}: there is no group {name!r}") from None


def peer_of(connection: socket.socket) -> Peer:
    """Return who connected to a unix socket (unix(7) SO_PEERCRED; SO_PEERGROUPS)."""
    _, uid, gid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    try:
        octets = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_OCTETS)
    except OSError as error:
        if error.errno not in {errno.ERANGE, errno.ENOPROTOOPT}:
            raise
        octets = b""  # in more groups than can be asked for: it has the rights of its first
    return Peer(uid, frozenset({gid, *struct.unpack(f"{len(octets) // 4}I", octets)}))


def how_to_join(group: str) -> str:
    """Return what a person types to get into a group."""
    return f"sudo usermod -aG {group} $USER   and then log in anew"


_SO_PEERGROUPS: Final = 59
"""Of asm-generic/socket.h, since Linux 4.13; Python has no name for it."""
_GROUPS_OCTETS: Final = 1024
"""256 groups, as much as Python asks the kernel for; people are in a dozen."""
