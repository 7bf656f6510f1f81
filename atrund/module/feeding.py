# SPDX-License-Identifier: Apache-2.0
"""What goes out to a prompt: data as they are typed, or zero bytes for those that nobody gives (REQ-6).

Rules of this file: it goes out in pieces, and only while the prompt stands. A module that ends its prompt by itself
then finds little behind it, which it would take for commands.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from atrund.at.exchange import Exchange, State
from atrund.at.feed import Feed

PIECE: Final = 4096
PACE: Final = 0.01
"""Bytes that go out at once, and seconds until the port is asked again whether it takes more: 400 kB in a second, which
is more than a module's files are written with."""
FILL_RATE: Final = 10_000
"""Bytes in a second that a port takes at least: one at 115,200 baud takes 11,520."""
FLOOD: Final = 12 * PIECE
"""Bytes that a prompt may wait for whose data broke off: a whole body over MQTT (`atrun.ask.BODY_MAX`)."""


class Feeding:
    """Writes to a port with `write`; `unsent` tells how many bytes wait to be written there."""

    def __init__(self, write: Callable[[bytes], None], unsent: Callable[[], int]) -> None:
        self._write = write
        self._unsent = unsent

    async def pass_on(self, exchange: Exchange, feed: Feed) -> None:
        """Write what waits of that which was typed."""
        while exchange.state is State.PROMPTED and not feed.is_empty:
            if await self._has_room():
                self._put(exchange, feed.take(PIECE))

    async def fill(self, exchange: Exchange, count: int) -> None:
        """Write zero bytes."""
        while exchange.state is State.LEAVING and count > 0:
            if await self._has_room():
                self._put(exchange, bytes(min(count, PIECE)))
                count -= PIECE

    async def flood(self) -> None:
        """Write zero bytes, `FLOOD` of them or those that the port takes in time, whatever stands there."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2 * FLOOD / FILL_RATE):
                for _ in range(FLOOD // PIECE):
                    while not await self._has_room():
                        pass
                    self._write(bytes(PIECE))

    def _put(self, exchange: Exchange, piece: bytes) -> None:
        self._write(piece)
        exchange.gave(len(piece))

    async def _has_room(self) -> bool:
        """Whether little waits to be written; if much does, not before a moment."""
        if self._unsent() < PIECE:
            return True
        await asyncio.sleep(PACE)
        return False
