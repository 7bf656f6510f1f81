# SPDX-License-Identifier: Apache-2.0
"""The AT interface at the other end of a connection: lines go out, answers come back as they are said.

Rules of this file: what comes from the far side is escaped before anybody's terminal sees it, and has a cap.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from atrund.at.results import classify
from atrund.ctl.terminal import printable
from atrund.tls import explain

COMMAND_WAIT: Final = 330.0
"""Seconds for a command: the longest that an AT RUN service gives one (TCP-1), and a little for the way."""
LINE_MAX: Final = 65_536
"""Characters of a line that are kept; a longer one is shown in pieces."""
CLOSING: Final = 2.0
"""Seconds for a connection to close."""
CTRL_Z: Final = b"\x1a"
ESC: Final = b"\x1b"

_PROMPTS: Final = ("> ", ">>>")


class GoneError(Exception):
    """The connection is at its end; the text says what is known of it."""


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended: its final result, or None where none came in time."""

    final: str | None

    @property
    def ok(self) -> bool:
        """Whether it ended well."""
        return self.final in {"OK", "CONNECT"}


class Far:
    """One connection. `show` is told each line that is said, and each prompt, fit for a terminal."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, show: Callable[[str], None]) -> None:
        self.show = show
        self._reader = reader
        self._writer = writer
        peer = writer.get_extra_info("peername") or ("?", 0)
        self.name = f"[{peer[0]}]:{peer[1]}" if ":" in str(peer[0]) else f"{peer[0]}:{peer[1]}"
        """The other end's address."""
        self._asked: deque[str] = deque(maxlen=8)
        self._finals: asyncio.Queue[str | None] = asyncio.Queue()
        self._text = ""
        self.refusal = ""
        """Why the far side ended TLS, where it did."""
        self.prompting = asyncio.Event()
        """Set while the far side waits for data."""
        self.gone: asyncio.Task[str] = asyncio.get_running_loop().create_task(self._hear())
        """Ends with the connection, and says how."""

    def send(self, octets: bytes) -> None:
        """Send as it is. Raises `GoneError`."""
        if self.gone.done():
            raise GoneError(self.gone.result())
        self._writer.write(octets)

    def say(self, line: str) -> None:
        """Send a line as one types it. Raises `GoneError`."""
        self._asked.append(line)
        self.send(line.encode("utf-8", "surrogateescape") + b"\r")

    async def ask(self, line: str, wait: float = COMMAND_WAIT) -> Result:
        """Run a command line. Raises `GoneError` when the connection ends before the command does."""
        while not self._finals.empty():
            self._finals.get_nowait()  # of one that was given up
        self.say(line)
        try:
            async with asyncio.timeout(wait):
                final = await self._finals.get()
        except TimeoutError:
            return Result(None)
        if final is None:
            self._finals.put_nowait(None)
            raise GoneError(self.gone.result() if self.gone.done() else "the connection was closed")
        return Result(final)

    async def close(self) -> None:
        """End the connection."""
        self._writer.close()
        try:
            async with asyncio.timeout(CLOSING):
                await self.gone
        except TimeoutError:
            self._writer.transport.abort()

    async def _hear(self) -> str:
        why = "the far side closed the connection"
        try:
            while octets := await self._reader.read(4096):
                self._take(octets.decode("utf-8", "backslashreplace"))
        except ssl.SSLError as error:
            why = self.refusal = f"the connection was ended: {explain(error)}"
        except OSError as error:
            why = f"the connection was lost: {error.strerror or error}"
        if self._text.strip():
            self._line(self._text)
        self._finals.put_nowait(None)
        self._writer.close()
        return why

    def _take(self, text: str) -> None:
        *lines, self._text = (self._text + text).replace("\r", "\n").split("\n")
        for line in lines:
            self._line(line)
        if len(self._text) > LINE_MAX:
            self._line(self._text)
            self._text = ""
        if self._text in _PROMPTS:
            self.prompting.set()
            self.show(self._text.rstrip())
            self._text = ""

    def _line(self, line: str) -> None:
        if not line:
            return
        if line in self._asked:  # its echo, which whoever typed it has seen
            self._asked.remove(line)
            return
        self.show(printable(line))
        if classify(line) is not None:
            self.prompting.clear()
            self._finals.put_nowait(line)


async def run_all(far: Far, lines: Sequence[str], *, keep_going: bool) -> bool:
    """Run lines in order, up to the first that fails unless `keep_going`; returns whether all ended well.

    Raises `GoneError`.
    """
    good = True
    for line in lines:
        result = await far.ask(line)
        if not result.ok:
            good = False
            if result.final is None:
                far.show(f"no answer to {printable(line)} within {COMMAND_WAIT:g} s")
            if not keep_going:
                break
    return good


def script(text: str) -> list[str]:
    """Return the lines of a script: blank ones and those that begin with `//` or `#` are for its reader alone."""
    stripped = (line.strip() for line in text.splitlines())
    return [line for line in stripped if line and not line.startswith(("//", "# ", "#!"))]
