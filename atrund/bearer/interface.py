# SPDX-License-Identifier: Apache-2.0
"""A network interface as the bearer, watched by rtnetlink(7): it is up while it runs and has an address (TCP-14).

Rules of this file: the kernel's messages say only that something changed; what is true is asked anew, so that a message
lost to a full buffer loses nothing.
"""

import asyncio
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import structlog

from atrund.bearer import Bearer

log = structlog.get_logger()

SETTLE: Final = 0.2
"""Seconds from a change to the look: an interface that comes up says so several times, its address a moment later."""
MESSAGES_MAX: Final = 64
"""Messages taken at once, so that a storm of them holds nobody up; the rest waits for the next moment."""


class InterfaceBearer(Bearer):
    """Up while the interface is up, has its link and an address that reaches beyond it."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.up = False
        self.detail = "not looked yet"
        self._addresses: frozenset[tuple[int, bytes]] = frozenset()
        self._changed = asyncio.Event()
        self._ear: socket.socket | None = None

    async def begin(self) -> None:
        """Begin to listen, then look; a kernel that tells nothing counts as down."""
        try:
            self._ear = _netlink(_GROUPS)
        except OSError as error:
            log.error("the kernel does not tell of interfaces", detail=error.strerror)  # noqa: TRY400 - said whole
        self._look()

    async def run(self) -> None:
        """Look whenever the kernel says that something changed."""
        if self._ear is None:
            await super().run()
            return
        loop = asyncio.get_running_loop()
        loop.add_reader(self._ear, self._hear, self._ear)
        try:
            while True:
                await self._changed.wait()
                await asyncio.sleep(SETTLE)
                self._changed.clear()
                self._look()
        finally:
            loop.remove_reader(self._ear)
            self._ear.close()

    def status(self) -> dict[str, object]:
        """Return what `atrunctl status` shows."""
        return {**super().status(), "interface": self.interface}

    def _hear(self, ear: socket.socket) -> None:
        self._changed.set()
        try:
            for _ in range(MESSAGES_MAX):
                ear.recv(_SIZE)
        except OSError:
            pass  # all read, or so many that some were lost: either way there is something to look at

    def _look(self) -> None:
        try:
            found = look(self.interface)
        except OSError as error:
            self._is(f"the kernel does not tell of interfaces: {error.strerror}")
            return
        if self.up and not found.lacking and self._addresses.isdisjoint(found.addresses):
            self._is(f"{self.interface} has another address")  # whatever was connected is not any more
        self._addresses = found.addresses
        self._is(found.lacking)


@dataclass(frozen=True, slots=True)
class Found:
    """What an interface lacks to be a way out, "" for nothing, and its addresses that reach beyond it."""

    lacking: str
    addresses: frozenset[tuple[int, bytes]] = frozenset()


def look(name: str) -> Found:
    """Return what there is of an interface of the host. Raises `OSError`."""
    with _netlink(0) as kernel:
        link = next(_ask(kernel, _GETLINK, _REQUEST, bytes(_LINK.size) + _named(name)), b"")
        if not link:
            return Found(f"there is no interface {name}")
        _, _, _, index, flags, _ = _LINK.unpack_from(link)
        if not flags & _IFF_UP:
            return Found(f"{name} is down")
        if not flags & _IFF_RUNNING:
            return Found(f"{name} has no link")
        addresses = set()
        for address in _ask(kernel, _GETADDR, _REQUEST | _DUMP, bytes(_ADDRESS.size)):
            _, _, state, scope, owner = _ADDRESS.unpack_from(address)
            if owner == index and scope < _SCOPE_LINK and not state & _UNUSABLE:
                addresses.add((index, _attribute(address[_ADDRESS.size :], _IFA_ADDRESS)))
    return Found("" if addresses else f"{name} has no address", frozenset(addresses))


def _named(name: str) -> bytes:
    """Return the attribute that names an interface, filled up to four octets (netlink(7))."""
    text = name.encode() + b"\0"
    attribute = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(text), _IFLA_IFNAME) + text
    return attribute + bytes(-len(attribute) % 4)


def _attribute(data: bytes, wanted: int) -> bytes:
    """Return an attribute's value, nothing where there is none such."""
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if kind == wanted or length < _ATTRIBUTE.size:
            return data[_ATTRIBUTE.size : length]
        data = data[length + -length % 4 :]
    return b""


def _netlink(groups: int) -> socket.socket:
    kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    kernel.setblocking(False)  # the kernel answers within the call that asks
    try:
        kernel.bind((0, groups))
    except OSError:
        kernel.close()
        raise
    return kernel


def _ask(kernel: socket.socket, what: int, flags: int, body: bytes) -> Iterator[bytes]:
    """Ask and yield the bodies of the answer; none for a name that is no interface."""
    kernel.send(_HEADER.pack(_HEADER.size + len(body), what, flags, 0, 0) + body)
    while True:
        try:
            data = kernel.recv(_SIZE)
        except BlockingIOError:
            return
        while len(data) >= _HEADER.size:
            length, kind, _, _, _ = _HEADER.unpack_from(data)
            if kind in {_DONE, _ERROR} or length < _HEADER.size:
                return
            yield data[_HEADER.size : length]
            data = data[length + -length % 4 :]


_SIZE: Final = 65536
"""Octets of a datagram at most: the kernel fills 32 KiB of a dump (netlink(7))."""

# linux/netlink.h, linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h, linux/if.h
_HEADER: Final = struct.Struct("=IHHII")
_ATTRIBUTE: Final = struct.Struct("=HH")
_LINK: Final = struct.Struct("=BBHiII")
_ADDRESS: Final = struct.Struct("=BBBBI")
_REQUEST, _DUMP = 0x001, 0x300
_ERROR, _DONE = 2, 3
_GETLINK, _GETADDR = 18, 22
_IFLA_IFNAME, _IFA_ADDRESS = 3, 1
_IFF_UP, _IFF_RUNNING = 0x01, 0x40
_SCOPE_LINK: Final = 253
_UNUSABLE: Final = 0x08 | 0x40
"""IFA_F_DADFAILED, IFA_F_TENTATIVE: an IPv6 address that may be another's."""
_GROUPS: Final = 0x01 | 0x10 | 0x100
"""RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR."""
