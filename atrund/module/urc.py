# SPDX-License-Identifier: Apache-2.0
"""One fan-out of unsolicited codes, with a bounded queue for each listener."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Final

QUEUE_MAX: Final = 1000
"""Codes that a listener may fall behind by: a module's burst at start is a few dozen."""


class Listener:
    """One listener's queue; the oldest code makes room for a new one, counted in `dropped`."""

    def __init__(self) -> None:
        self.dropped = 0
        self._queue: asyncio.Queue[tuple[str, ...]] = asyncio.Queue(QUEUE_MAX)

    async def get(self) -> tuple[str, ...]:
        """Return the next code: its line, or two for a two-line code."""
        return await self._queue.get()

    def put(self, lines: tuple[str, ...]) -> None:
        """Add a code; never waits."""
        if self._queue.full():
            self._queue.get_nowait()
            self.dropped += 1
        self._queue.put_nowait(lines)


class Fanout:
    """Gives every code to every listener."""

    def __init__(self) -> None:
        self._listeners: set[Listener] = set()

    @contextlib.contextmanager
    def listening(self) -> Iterator[Listener]:
        """Return a listener for as long as the context lasts."""
        listener = Listener()
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)

    def publish(self, lines: tuple[str, ...]) -> None:
        """Give a code to all; never waits."""
        for listener in self._listeners:
            listener.put(lines)
