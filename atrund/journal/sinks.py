# SPDX-License-Identifier: Apache-2.0
"""Where entries go: the journal of systemd, or a stream. None blocks its caller; what is lost is counted and said."""

import contextlib
import errno
import fcntl
import os
import queue
import select
import socket
import struct
import threading
from array import array
from collections.abc import Callable, Mapping
from typing import Final, Protocol, TextIO

JOURNAL_SOCKET: Final = "/run/systemd/journal/socket"

# Lines that wait for a slow terminal or pipe; some seconds of debug log, at most a few hundred KiB.
STREAM_QUEUE_MAX: Final = 1000

# Seconds for which lines are gathered: no delay to a reader.
GATHER: Final = 0.05

# Each value is cut to this when an entry is too large and no memory file can be had, so that the entry fits a datagram.
CUT_VALUE: Final = 1024

_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


class Sink(Protocol):
    """What the last step of a log call writes to."""

    @property
    def dropped(self) -> int:
        """Entries lost so far and not yet reported."""

    def close(self, timeout: float) -> None:
        """Writes what waits, for at most `timeout` seconds."""


def serialize(fields: Mapping[str, str]) -> bytes:
    """Fields in the journal's native form (systemd's JOURNAL_NATIVE_PROTOCOL).

    `NAME=value` and a newline; for a value with newlines the name, a newline, its length as 64 bits little endian, the
    value, a newline.
    """
    out = bytearray()
    for name, value in fields.items():
        octets = value.encode("utf-8", "backslashreplace")
        out += name.encode("ascii")
        out += b"\n" + struct.pack("<Q", len(octets)) if b"\n" in octets else b"="
        out += octets + b"\n"
    return bytes(out)


class JournalSink:
    """Sends entries to systemd's journal. Datagrams are sent at once and never waited for."""

    def __init__(self, path: str, report: Callable[[int], Mapping[str, str]]) -> None:
        """`path` is journald's socket; `report` makes the fields of the entry that says how many were lost."""
        self._path = path
        self._report = report
        self._lock = threading.Lock()
        self._dropped = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)

    @property
    def dropped(self) -> int:
        """Entries lost so far and not yet reported."""
        return self._dropped

    def send(self, fields: Mapping[str, str]) -> None:
        """Sends one entry, behind the report of what was lost before it."""
        with self._lock:
            lost = self._dropped
            if lost and self._deliver(self._report(lost)):
                self._dropped -= lost
            if not self._deliver(fields):
                self._dropped += 1

    def close(self, timeout: float) -> None:  # noqa: ARG002 - nothing waits here
        """Closes the socket; later entries are counted as lost."""
        with self._lock:
            self._socket.close()

    def _deliver(self, fields: Mapping[str, str]) -> bool:
        datagram = serialize(fields)
        try:
            self._socket.sendto(datagram, self._path)
        except OSError as error:
            # ENOBUFS: the kernel has no single piece of memory of that size.
            return error.errno in (errno.EMSGSIZE, errno.ENOBUFS) and self._deliver_large(datagram, fields)
        return True

    def _deliver_large(self, datagram: bytes, fields: Mapping[str, str]) -> bool:
        """Passes the entry as a sealed memory file, as journald wants it, or cuts its values."""
        try:
            file = os.memfd_create("atrund-journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        except OSError:
            return self._deliver_cut(fields)
        try:
            with open(file, "wb", buffering=0, closefd=False) as writer:
                view = memoryview(datagram)
                while view:
                    view = view[writer.write(view) :]
            fcntl.fcntl(file, fcntl.F_ADD_SEALS, _SEALS)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [file]))
            self._socket.sendmsg([b""], [rights], 0, self._path)
        except OSError:
            return False
        finally:
            os.close(file)
        return True

    def _deliver_cut(self, fields: Mapping[str, str]) -> bool:
        cut = {name: value[:CUT_VALUE] for name, value in fields.items()}
        try:
            self._socket.sendto(serialize(cut), self._path)
        except OSError:
            return False
        return True


class StreamSink:
    """Writes lines to a stream from a thread of its own, so that a stuck terminal or pipe holds up nobody else."""

    def __init__(self, stream: TextIO, report: Callable[[int], str]) -> None:
        """`report` makes the line that says how many were lost."""
        self._write = _writer(stream)
        self._report = report
        self._lock = threading.Lock()
        self._dropped = 0
        self._waiting: queue.Queue[str | None] = queue.Queue(STREAM_QUEUE_MAX)
        self._closing = threading.Event()
        # A daemon: a thread stuck in a write must not keep the process from ending.
        self._thread = threading.Thread(target=self._drain, name="log", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Lines lost so far and not yet reported."""
        return self._dropped

    def send(self, line: str) -> None:
        """Hands over one line, without its newline."""
        try:
            self._waiting.put_nowait(line)
        except queue.Full:
            self._lose(1)

    def close(self, timeout: float) -> None:
        """Writes what waits, for at most `timeout` seconds; the stream stays open."""
        self._closing.set()
        with contextlib.suppress(queue.Full):
            self._waiting.put(None, timeout=timeout)
            self._thread.join(timeout)

    def _drain(self) -> None:
        lines: list[str | None] = []
        while None not in lines:
            lines = [self._waiting.get()]
            # Lines come in bursts; a thread that wakes up for each takes the event loop's time each time.
            self._closing.wait(GATHER)
            with contextlib.suppress(queue.Empty):
                while True:
                    lines.append(self._waiting.get_nowait())
            self._put([line for line in lines if line is not None])

    def _put(self, lines: list[str]) -> None:
        lost = self._dropped
        if lost and self._written(self._report(lost)):
            self._lose(-lost)
        if lines and not self._written("\n".join(lines)):
            self._lose(len(lines))

    def _written(self, line: str) -> bool:
        try:
            self._write(line + "\n")
        except (OSError, ValueError):  # ValueError: a closed stream
            return False
        return True

    def _lose(self, count: int) -> None:
        with self._lock:
            self._dropped += count


def _writer(stream: TextIO) -> Callable[[str], None]:
    """Writes to the stream's descriptor, if it has one.

    A thread that is stuck inside a Python stream holds the stream's lock, and the interpreter, which flushes the
    stream at its end, would abort.
    """
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError, AttributeError):

        def write_text(text: str) -> None:
            stream.write(text)
            stream.flush()

        return write_text

    def write_octets(text: str) -> None:
        octets = memoryview(text.encode("utf-8", "backslashreplace"))
        while octets:
            try:
                octets = octets[os.write(descriptor, octets) :]
            except BlockingIOError:  # someone who shares the terminal made it non-blocking
                select.select([], [descriptor], [])

    return write_octets
