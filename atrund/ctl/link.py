# SPDX-License-Identifier: Apache-2.0
"""A unix stream socket as lines: to the daemon's control socket, and to the simulator's."""

import os
import re
import socket
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from atrund.ctl.terminal import printable

LINE_MAX: Final = 1 << 20
"""Longest line read, in bytes: a simulator's list of all that it sent is long, and memory has a bound all the same."""

CONNECT_TIMEOUT: Final = 5.0
"""Seconds for a unix socket to take the connection: it waits only where the other side accepts none."""


class Unreachable(Exception):
    """The other side can't be reached, or is gone. The text says what to try, each thing on a line of its own."""


class Link:
    """One connection, closed at the end of its `with` block. Raises Unreachable."""

    def __init__(self, path: str, whose: str, missing: str, denied: str, gone: str = "") -> None:
        """Connect to the socket at `path`.

        Errors say `whose` it is, and what to try if it is `missing` or `denied`, or is `gone` before it answers.
        """
        self._whose = whose
        self._gone = f"\n{gone}" if gone else ""
        self._buffer = b""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(CONNECT_TIMEOUT)
        try:
            self._socket.connect(path)
        except OSError as error:
            self._socket.close()
            advice = denied if isinstance(error, PermissionError) else missing
            where = f"{whose} can't be reached at {printable(path)}: {_words(error)}."
            raise Unreachable(f"{where}\n{advice}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def hang_up(self) -> None:
        """End the connection both ways, for a thread that still receives: it is told that the other side is gone."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def send(self, line: bytes) -> None:
        """Send a line that ends in LF."""
        self._socket.settimeout(CONNECT_TIMEOUT)
        try:
            self._socket.sendall(line)
        except OSError as error:
            raise Unreachable(f"{self._whose} takes nothing any more: {_words(error)}{self._gone}") from None

    def receive(self, timeout: float) -> bytes:
        """Return the next line without its LF; `timeout` is for each piece, in seconds. An interrupt loses nothing."""
        self._socket.settimeout(timeout)
        while b"\n" not in self._buffer:
            if len(self._buffer) > LINE_MAX:
                raise Unreachable(f"{self._whose} sent a line of more than {LINE_MAX} bytes: is it another program?")
            try:
                piece = self._socket.recv(65536)
            except TimeoutError:
                raise Unreachable(f"{self._whose} did not answer within {timeout:g} s") from None
            except OSError as error:
                raise Unreachable(f"{self._whose} is gone: {_words(error)}{self._gone}") from None
            if not piece:
                raise Unreachable(f"{self._whose} closed the connection without an answer")
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line


def to_daemon(path: str | None) -> Link:
    """Connect to the daemon: at `path`, else where the environment says, else where it is by default."""
    path = path or os.environ.get("ATRUND_SOCKET") or "/run/atrund.sock"
    one = re.fullmatch(r"/run/atrund-([A-Za-z0-9_-]{1,16})\.sock", path)
    unit = f"atrund@{one[1]}" if one else "atrund"
    return Link(
        path,
        "the daemon",
        missing=f"Is it running?  systemctl status {unit}\nAnother socket is named by --socket PATH or ATRUND_SOCKET.",
        gone=f"Its last words:  journalctl -u {unit} -n 20",
        denied="Try as root (sudo), or join its group and log in again:  sudo usermod -aG atrund $USER",
    )


def to_simulator(path: str) -> Link:
    """Connect to a simulated module's control socket."""
    return Link(
        path,
        "the simulator",
        missing="Is it running?  python -m atrund.sim --help",
        denied="It belongs to another user: try as that one, or as root (sudo).",
    )


def _words(error: OSError) -> str:
    return error.strerror or str(error)
