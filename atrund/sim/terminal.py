# SPDX-License-Identifier: Apache-2.0
"""A pseudo-terminal with a link of a known name, for one port of the simulated module."""

import asyncio
import contextlib
import fcntl
import os
import select
import termios
import tty
from collections.abc import Callable
from pathlib import Path
from typing import Final

READ_SIZE: Final = 4096
"""What the kernel holds for a pseudo-terminal at most."""

BACKLOG_CAP: Final = 65536
"""Output kept for a reader slower than the module; what comes beyond is lost, as on a line without handshake."""

STALE_SECONDS: Final = 2.0
"""A backlog that nobody has read from for so long is thrown away: whoever opens the port later shall not get it."""


class LinkError(Exception):
    """A link can't be made: its place is taken by something that is no link, or its directory refuses it."""


class PseudoTerminal:
    """A pseudo-terminal whose slave is found at `link`; `start` says who is given what the other side writes.

    The slave is raw before the link appears. One slave descriptor is kept open while nobody else has shown up, for
    without any the master's reads fail. Once the other side has written it is let go: so it is noticed when the other
    side closes, and exclusive use (TIOCEXCL), which a pseudo-terminal keeps as long as its master is open, is ended
    then, as it ends by itself on a real port.
    Raises `LinkError`; call it in a running event loop.
    """

    def __init__(self, link: Path) -> None:
        self._link = link
        self._feed: Callable[[bytes], None] | None = None
        self._loop = asyncio.get_running_loop()
        self._backlog = bytearray()
        self._stale: asyncio.TimerHandle | None = None
        self._closed = False
        self._gone = False
        self._slave: int | None = None
        self._open()

    def start(self, feed: Callable[[bytes], None]) -> None:
        """Begin to read."""
        self._feed = feed
        self._loop.add_reader(self._master, self._readable)

    def write(self, data: bytes) -> None:
        """Put bytes out to the other side; never waits, never raises."""
        if self._closed or self._gone:
            return
        if not self._backlog:
            data = data[self._write_now(data) :]
        room = BACKLOG_CAP - len(self._backlog)
        if data[:room]:
            self._backlog += data[:room]
            self._loop.add_writer(self._master, self._writable)
            if self._stale is None:
                self._stale = self._loop.call_later(STALE_SECONDS, self._drop_backlog)

    def close(self) -> None:
        """Take the link away, if it is still this one's, and close."""
        if self._closed:
            return
        self.unplug()
        self._closed = True

    def unplug(self) -> None:
        """Go away, as a device that is pulled out: who has it open is hung up on, and the link is gone."""
        if self._closed or self._gone:
            return
        self._gone = True
        self._drop_backlog()
        self._loop.remove_reader(self._master)
        with contextlib.suppress(OSError):
            if self._link.readlink() == Path(self._name):
                self._link.unlink()
        os.close(self._master)
        self._release_slave()

    def plug(self) -> None:
        """Come back under the same link, with another device behind it. If its link can't be made it stays away."""
        if self._closed or not self._gone:
            return
        old = self._name
        with contextlib.suppress(LinkError):
            self._open(old)
            self._gone = False
            self._loop.add_reader(self._master, self._readable)

    def _open(self, other_than: str = "") -> None:
        """Make the pseudo-terminal, of another name than a given one, and its link."""
        self._master, slave = _openpty(other_than)
        self._name = os.ttyname(slave)
        tty.setraw(slave)
        os.set_blocking(self._master, False)
        try:
            self._make_link()
        except LinkError:
            os.close(self._master)
            os.close(slave)
            self._gone = True
            raise
        self._slave = slave

    def _make_link(self) -> None:
        if self._link.exists() and not self._link.is_symlink():
            raise LinkError(f"{self._link} is no symbolic link; another name or its removal would help")
        beside = self._link.with_name(f".{self._link.name}.{os.getpid()}")
        try:
            beside.symlink_to(self._name)
            beside.replace(self._link)
        except OSError as error:
            raise LinkError(f"{self._link}: {error.strerror}") from None

    def _readable(self) -> None:
        try:
            data = os.read(self._master, READ_SIZE)
        except BlockingIOError:
            return
        except OSError:  # EIO: the last slave was closed
            self._hold_slave()
            return
        # Only the other side writes to the slave: it has it open.
        self._release_slave()
        if self._feed is not None:
            self._feed(data)

    def _hold_slave(self) -> None:
        if self._slave is not None:
            return
        self._drop_backlog()
        try:
            self._slave = os.open(self._name, os.O_RDWR | os.O_NOCTTY)
        except OSError:
            # EBUSY, for it is still for one alone. If nobody has it open nobody can open it either, save root: a new
            # one takes its place. Else somebody took it in between, and all is well.
            if _hung_up(self._master):
                self._renew()
            return
        fcntl.ioctl(self._slave, termios.TIOCNXCL)
        tty.setraw(self._slave)

    def _renew(self) -> None:
        """Put a new pseudo-terminal behind the link. If its link can't be made the port is gone, as if unplugged."""
        self._loop.remove_reader(self._master)
        os.close(self._master)
        with contextlib.suppress(LinkError):
            self._open()
            self._loop.add_reader(self._master, self._readable)

    def _release_slave(self) -> None:
        if self._slave is not None:
            os.close(self._slave)
            self._slave = None

    def _writable(self) -> None:
        written = self._write_now(bytes(self._backlog))
        del self._backlog[:written]
        if self._stale is not None and (written or not self._backlog):
            self._stale.cancel()
            self._stale = None
        if not self._backlog:
            self._loop.remove_writer(self._master)
        elif self._stale is None:
            self._stale = self._loop.call_later(STALE_SECONDS, self._drop_backlog)

    def _write_now(self, data: bytes) -> int:
        try:
            return os.write(self._master, data)
        except BlockingIOError:
            return 0
        except OSError:  # nobody is there
            return len(data)

    def _drop_backlog(self) -> None:
        self._backlog.clear()
        self._loop.remove_writer(self._master)
        if self._stale is not None:
            self._stale.cancel()
            self._stale = None


def _openpty(other_than: str) -> tuple[int, int]:
    """Return master and slave of a new pseudo-terminal; the kernel would give a name that has become free anew."""
    pair = os.openpty()
    if os.ttyname(pair[1]) != other_than:
        return pair
    try:
        return os.openpty()
    finally:
        for descriptor in pair:
            os.close(descriptor)


def _hung_up(master: int) -> bool:
    """Whether no slave is open."""
    poll = select.poll()
    poll.register(master, select.POLLIN)
    return any(event & select.POLLHUP for _, event in poll.poll(0))
