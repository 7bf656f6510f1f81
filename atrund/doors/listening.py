# SPDX-License-Identifier: Apache-2.0
"""Sockets to listen on, and the filter by which the kernel drops strangers before anybody sees them (TCP-2)."""

import contextlib
import socket
import struct
from array import array
from collections.abc import Sequence
from typing import Final, Protocol

from atrund.atrun.firewall import Rule, socket_filter


class Shelf(Protocol):
    """Where listeners lie while there is no daemon."""

    def at_port(self, address: str, port: int, interface: str) -> socket.socket | None:
        """Take the one that listens exactly there, if there is one."""

    def keep(self, listener: socket.socket) -> None:
        """Leave one there as well."""

    def drop(self, listener: socket.socket) -> None:
        """Take note that one is closed for good."""


def listening(address: str, port: int, interface: str) -> socket.socket:
    """Make a socket to listen on; on one interface alone, that the kernel keeps to, where one is named.

    Raises `OSError` that names the address.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if interface:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        listener.bind((address, port))
    except OSError as error:
        listener.close()
        where = f"{address} port {port}" + (f" on {interface}" if interface else "")
        raise OSError(error.errno, f"tcp door: {where}: {error.strerror}") from error
    return listener


def keep_out(listener: socket.socket, rules: Sequence[Rule]) -> None:
    """Have the kernel drop whoever the rules don't admit; before `listen`, so that no stranger slips through.

    What is accepted inherits the filter, which judges by the peer's address alone. Raises `OSError` where the kernel
    or its lord does not allow that.
    """
    program = socket_filter(rules, 6 if listener.family == socket.AF_INET6 else 4)
    octets = array("B", b"".join(struct.pack("HBBI", *instruction) for instruction in program))
    where, _ = octets.buffer_info()
    listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(program), where))


def let_in(listener: socket.socket) -> None:
    """Take the filter away that `keep_out` gave, if there is one."""
    with contextlib.suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)


def kept_out(listener: socket.socket) -> int:
    """Return how many packets were dropped at a socket so far; 0 where the kernel does not say."""
    try:
        counts = listener.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
        return int(_MEMINFO.unpack(counts)[_DROPS])
    except (OSError, struct.error):
        return 0


def reset(connection: socket.socket) -> None:
    """Have a connection end with RST, unread, when it is closed: a stranger gets no byte and leaves no half behind."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


# Python has no names for these (asm-generic/socket.h; the same on every architecture that Debian has but SPARC's and
# HP's, where the attempt fails and the door does without).
_SO_ATTACH_FILTER: Final = 26
_SO_DETACH_FILTER: Final = 27
_SO_MEMINFO: Final = 55
_MEMINFO: Final = struct.Struct("9I")
"""SK_MEMINFO_VARS counts (linux/sock_diag.h), the last of which is SK_MEMINFO_DROPS."""
_DROPS: Final = 8
