# SPDX-License-Identifier: Apache-2.0
"""Data mode that nobody wanted: how it shows, what is not believed meanwhile, and the way out of it (MOD-6).

Rules of this file: a CONNECT in answer to a call is believed at once. One out of nowhere is believed once the command
that runs should have ended, and before any further one is sent: it would go to whoever is at the other end. What that
one says is nobody's answer and no unsolicited code.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from atrund.at.reader import Line, Token
from atrund.at.results import Final as FinalResult
from atrund.at.results import FinalKind, classify
from atrund.module.port import Port

log = structlog.get_logger()

ESCAPE: Final = b"+++"
GUARD: Final = 1.1
"""Seconds of silence before and behind the escape sequence: S12 is 50 fiftieths of one unless it was changed."""
HANG_UP: Final = 5.0
"""Seconds for the answer to ATH before DTR falls."""
PEERS_MAX: Final = 100
"""Results kept of what comes in data mode: what a peer sends can look like any number of them."""


class DataMode:
    """What is known of it on one port. `on_believed` is told when a CONNECT out of nowhere is believed."""

    def __init__(self, on_believed: Callable[[], None]) -> None:
        self.suspected = False
        """CONNECT was said, and nothing since then that a module in command mode says."""
        self._on_believed = on_believed
        self._doubt: asyncio.TimerHandle | None = None
        self._peers: asyncio.Queue[FinalResult] | None = None
        """While it is on: the results in what comes."""

    def hear_connect(self, longest: float | None) -> None:
        """Take note of a CONNECT out of nowhere; `longest`: seconds that the running command may take, if one runs."""
        self.suspected = True
        if longest is not None and self._doubt is None:
            self._doubt = asyncio.get_running_loop().call_later(longest, self._believe)

    def hear_answer(self) -> None:
        """Take note that the module answers commands."""
        self.suspected = False
        if self._doubt is not None:
            self._doubt.cancel()
            self._doubt = None

    def enter(self) -> None:
        """Take note that it is on."""
        self.suspected = True
        self._peers = self._peers or asyncio.Queue(PEERS_MAX)

    def takes(self, token: Token) -> bool:
        """Whether a token is the peer's, since data mode is on."""
        if self._peers is None:
            return False
        if isinstance(token, Line) and (final := classify(token.text)) is not None and not self._peers.full():
            self._peers.put_nowait(final)
        return True

    async def leave(self, port: Port, written_at: float) -> None:
        """Come back to command mode: silence, the escape sequence, silence, ATH, else DTR.

        `written_at`: the loop's time when something was last sent. Whether it worked, the next answer shows.
        """
        log.warning("the port may be in data mode; leaving it")
        self.hear_answer()
        self.suspected = True  # until something is answered
        peers = self._peers = asyncio.Queue(PEERS_MAX)
        try:
            await asyncio.sleep(max(0.0, written_at + GUARD - asyncio.get_running_loop().time()))
            port.write(ESCAPE)
            await asyncio.sleep(GUARD)
            if any(peers.get_nowait().kind is FinalKind.NO_CARRIER for _ in range(peers.qsize())):
                return
            port.write(b"ATH\r")
            try:
                async with asyncio.timeout(HANG_UP):
                    await peers.get()
            except TimeoutError:
                await port.drop_dtr()
        finally:
            self._peers = None

    def _believe(self) -> None:
        self._doubt = None
        self._on_believed()
