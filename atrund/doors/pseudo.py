# SPDX-License-Identifier: Apache-2.0
"""A pseudo-terminal under a link of a known name, whose clients come and go as at a modem's port.

Rules of this file: from the first client's opening to the last one's closing is a visit; nothing is written while there
is none, so that nobody is shown what was meant for another. The kernel tells of openings by inotify and of the last
closing by the master's hang-up. None of our own descriptors is open on the client's side, for that would hide the
hang-up; the master outlives its clients all the same, and is not listened to between them.
"""

import asyncio
import contextlib
import ctypes
import errno
import fcntl
import os
import select
import stat
import struct
import termios
import tty
from pathlib import Path
from typing import Any, Final, Protocol

import structlog

from atrund.doors.claim import claim, is_claimed

log = structlog.get_logger()

READ_SIZE: Final = 4096
REST_MAX: Final = 32_768
"""Octets taken of what a client left behind: the kernel holds 22,000."""
BACKLOG_MAX: Final = 65_536
"""Octets kept for a client that reads slower than is written, beyond those that the kernel keeps."""
PATIENCE: Final = 30.0
"""Seconds for it to read on; then its backlog is dropped, and nobody waits for it again until it reads."""
READS_AGAIN: Final = 8192
"""Octets that the kernel takes for a client only when that reads; it may find room for less without."""


class Host(Protocol):
    """Who is told what happens at a pseudo-terminal."""

    def came(self) -> None:
        """A visit begins."""

    def received(self, data: bytes) -> None:
        """A client wrote this."""

    def replaced(self) -> None:
        """One client went and another came before either was noticed: the visit goes on, half a line must not."""

    def left(self, rest: bytes) -> None:
        """The visit is over; `rest` is what was written in it and not yet received."""


class PseudoTerminal:
    """Makes the pseudo-terminal and its link when started, in a running event loop; `host` hears of all else.

    `mode` and `group` (None: that of the kernel) are those of the client's side, which is raw before the link appears
    and again for each visit.
    """

    def __init__(self, link: Path, host: Host, *, mode: int, group: int | None) -> None:
        self.present = False
        """Whether somebody has it open."""
        self._link = link
        self._host = host
        self._mode = mode
        self._group = group
        self._loop = asyncio.get_running_loop()
        self._watch: _Watch | None = None
        self._claimed = contextlib.ExitStack()
        """Holds the link's name, by which a link that was left is told from one that is served."""
        self._master = -1
        self._name = ""
        self._raw: list[Any] = []
        self._opened = 0
        self._paused = False
        self._backlog = bytearray()
        self._room = asyncio.Event()
        self._room.set()
        self._deaf = 0

    def check(self) -> None:
        """Look whether the link's place is free, or holds a link that a daemon left behind. Raises `OSError`."""
        if not self._link.is_symlink():
            if self._link.exists():
                raise OSError(f"{self._link}: is no symbolic link, and is left alone")
            return
        target = self._link.readlink()
        if target.parent != _PTS:
            raise OSError(f"{self._link}: leads to {target}, which is no pseudo-terminal, and is left alone")
        try:
            found = target.stat()
        except FileNotFoundError:
            return
        # A name that is free again soon belongs to somebody's login, which has another mode, or to another daemon.
        if found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) == self._mode and is_claimed(self._link):
            raise OSError(f"{self._link}: another daemon serves it already")

    def start(self) -> None:
        """Make it. Raises `OSError`. Several are all checked before the first is started, which may get an old name."""
        self._watch = _Watch()
        if (held := claim(self._link)) is not None:
            self._claimed.callback(held.close)
        try:
            self._open()
        except OSError:
            self._watch.close()
            self._watch = None
            self._claimed.close()
            raise
        self._loop.add_reader(self._watch.descriptor, self._look)

    def close(self) -> None:
        """Hang up on whoever has it open, and take the link away if it is still this one's."""
        if self._watch is None:
            return
        self._loop.remove_reader(self._watch.descriptor)
        self._watch.close()
        self._watch = None
        self._claimed.close()
        with contextlib.suppress(OSError):
            if self._link.readlink() == Path(self._name):
                self._link.unlink()
        self._shut()

    def pause(self) -> None:
        """Take no input: it stays with the kernel, and a client that writes more than that holds must wait."""
        self._paused = True
        if self._master >= 0:
            self._loop.remove_reader(self._master)

    def resume(self) -> None:
        """Take input again."""
        self._paused = False
        if self.present:
            self._loop.add_reader(self._master, self._readable)

    def write(self, data: bytes) -> None:
        """Put out one piece, or drop it if nobody is there to read or nobody reads; never waits."""
        if not self.present or not data or (self._backlog and len(self._backlog) + len(data) > BACKLOG_MAX):
            return
        if not self._backlog:
            written = self._write_now(data)
            data = data[written:]
            self._deaf = max(0, self._deaf - written)
        if data and not self._deaf:
            self._backlog += data
            self._room.clear()
            self._loop.add_writer(self._master, self._writable)

    async def room(self) -> None:
        """Wait until what was written is on its way, or the client has had its time to read it."""
        if self._room.is_set():
            return
        try:
            async with asyncio.timeout(PATIENCE):
                await self._room.wait()
        except TimeoutError:
            log.warning("output dropped: nobody reads it", link=str(self._link))
            self._drop_backlog()
            self._deaf = READS_AGAIN

    def _open(self) -> None:
        """Make a pseudo-terminal that is raw and has its rights before its link appears."""
        assert self._watch is not None  # noqa: S101 - between start and close only
        master, slave = os.openpty()
        try:
            name = os.ttyname(slave)
            try:
                tty.setraw(slave)
                self._raw = termios.tcgetattr(slave)
                if self._group is not None:
                    _change_group(slave, self._group, self._link)
                os.fchmod(slave, self._mode)
            finally:
                os.close(slave)
            os.set_blocking(master, False)
            self._watch.begin(name)
            _make_link(self._link, name)
        except OSError:
            os.close(master)
            raise
        self._master, self._name, self._opened = master, name, 0

    def _shut(self) -> None:
        if self._master >= 0:
            self._leave()
            self._loop.remove_reader(self._master)
            os.close(self._master)
            self._master = -1

    def _look(self) -> None:
        """See who came or went."""
        if self._master < 0:
            return
        replaced = self._count()
        if self.present and self._is_hung_up():
            self._hang_up()
        elif self.present and replaced:
            self._replace()
        elif not self.present and self._has_client():
            self._come()

    def _count(self) -> bool:
        """Count openings; returns whether the last client went and another one came since.

        Of two equal notes in a row the kernel keeps one, so that with several clients the count may be too low; whether
        there is one at all is never known from it.
        """
        assert self._watch is not None  # noqa: S101 - as above
        emptied = replaced = False
        for opened in self._watch.read():
            replaced |= emptied and opened
            self._opened += 1 if opened else -1
            emptied |= self._opened <= 0
        self._opened = max(self._opened, 1) if self._has_client() else 0
        return replaced

    def _come(self) -> None:
        self.present = True
        if not self._paused:
            self._loop.add_reader(self._master, self._readable)
        self._host.came()

    def _readable(self) -> None:
        try:
            data = os.read(self._master, READ_SIZE)
        except BlockingIOError:
            return
        except OSError:  # EIO: nobody has it open any more
            data = b""
        if self._count():
            self._replace()
        gone = self._is_hung_up()
        if data:
            self._stop_echo()
            self._host.received(data)
        if gone:
            self._hang_up()

    def _hang_up(self) -> None:
        """End the visit, and make the terminal as it was: raw, empty, and for everybody."""
        rest = self._take_rest()
        self._leave()
        self._loop.remove_reader(self._master)
        self._flush(self._raw)
        self._host.left(rest)
        try:
            self._end_exclusive_use()
        except OSError as error:
            log.error("terminal lost", link=str(self._link), detail=str(error))  # noqa: TRY400 - no traceback wanted
            return
        if self._has_client():
            self._opened = 1
            self._come()

    def _replace(self) -> None:
        """Drop what a client did not read whose end is only seen now that another one has come."""
        self._drop_backlog()
        self._flush(termios.tcgetattr(self._master))
        self._host.replaced()

    def _leave(self) -> None:
        self.present = False
        self._deaf = 0
        self._drop_backlog()

    def _take_rest(self) -> bytes:
        rest = bytearray()
        with contextlib.suppress(OSError):
            while piece := os.read(self._master, READ_SIZE):
                rest += piece[: REST_MAX - len(rest)]
        return bytes(rest)

    def _flush(self, attributes: list[Any]) -> None:
        """Drop what the client's side has not read. Through the master, this sets the slave's line discipline."""
        termios.tcflush(self._master, termios.TCOFLUSH)  # first what is on its way, which would follow what is there
        termios.tcsetattr(self._master, termios.TCSAFLUSH, attributes)

    def _stop_echo(self) -> None:
        """Switch the client's own echo off: it would send our answers back to us as commands."""
        attributes = termios.tcgetattr(self._master)
        if attributes[3] & termios.ECHO:
            attributes[3] &= ~termios.ECHO
            termios.tcsetattr(self._master, termios.TCSANOW, attributes)

    def _end_exclusive_use(self) -> None:
        """Take back TIOCEXCL, which a pseudo-terminal keeps as long as its master is open. Raises `OSError`."""
        assert self._watch is not None  # noqa: S101 - as above
        self._watch.end()  # this opening is our own
        try:
            slave = os.open(self._name, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            if self._is_hung_up():  # nobody has it, and none but root could open it: another takes its place
                os.close(self._master)
                self._master = -1
                self._open()
                return
        else:
            fcntl.ioctl(slave, termios.TIOCNXCL)
            os.close(slave)
        self._watch.begin(self._name)

    def _has_client(self) -> bool:
        return any(event & select.POLLIN or not event & select.POLLHUP for event in self._polled())

    def _is_hung_up(self) -> bool:
        return any(event & select.POLLHUP for event in self._polled())

    def _polled(self) -> list[int]:
        poll = select.poll()
        poll.register(self._master, select.POLLIN | select.POLLOUT)
        return [event for _, event in poll.poll(0)] or [0]

    def _writable(self) -> None:
        written = self._write_now(bytes(self._backlog))
        del self._backlog[:written]
        if not self._backlog:
            self._drop_backlog()

    def _write_now(self, data: bytes) -> int:
        try:
            return os.write(self._master, data)
        except BlockingIOError:
            return 0
        except OSError:  # nobody is there
            return len(data)

    def _drop_backlog(self) -> None:
        self._backlog.clear()
        self._room.set()
        self._loop.remove_writer(self._master)


class _Watch:
    """The kernel's notes on who opens and closes one file (inotify(7))."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.descriptor = self._call("inotify_init1", os.O_NONBLOCK | os.O_CLOEXEC)
        self._number = -1

    def begin(self, path: str) -> None:
        """Watch this file from now on, and no other."""
        self.end()
        self._number = self._call("inotify_add_watch", self.descriptor, os.fsencode(path), _OPEN | _CLOSE)

    def end(self) -> None:
        """Watch none."""
        if self._number >= 0:
            with contextlib.suppress(OSError):  # its file is gone
                self._call("inotify_rm_watch", self.descriptor, self._number)
        self._number = -1

    def read(self) -> list[bool]:
        """Return what happened since, in order: True for an opening, False for a closing."""
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                notes = os.read(self.descriptor, READ_SIZE)
                at = 0
                while at < len(notes):
                    number, mask, _, length = _NOTE.unpack_from(notes, at)
                    at += _NOTE.size + length
                    if number == self._number and mask & (_OPEN | _CLOSE):
                        found.append(bool(mask & _OPEN))
        return found

    def close(self) -> None:
        os.close(self.descriptor)

    def _call(self, name: str, *arguments: bytes | int) -> int:
        result: int = getattr(self._libc, name)(*arguments)
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"{name}: {os.strerror(number)}")
        return result


_NOTE: Final = struct.Struct("iIII")
_OPEN: Final = 0x20
_CLOSE: Final = 0x08 | 0x10
"""inotify.h: of a file that could be written, and of one that could not."""
_PTS: Final = Path("/dev/pts")


def _change_group(slave: int, group: int, link: Path) -> None:
    try:
        os.fchown(slave, -1, group)
    except PermissionError:
        raise OSError(f"{link}: the daemon is not in group {group}, and so can't give the terminal to it") from None


def _make_link(link: Path, name: str) -> None:
    """Put the link in place of an old one at once, so that there never is none."""
    beside = link.with_name(f".{link.name}.{os.getpid()}")
    if beside.is_symlink():  # of one that was killed, with the same number
        beside.unlink()
    try:
        beside.symlink_to(name)
        beside.replace(link)
    except OSError as error:
        raise OSError(error.errno, f"{link}: {error.strerror}") from None
