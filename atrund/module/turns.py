# SPDX-License-Identifier: Apache-2.0
"""Who has the port next: one holder at a time, fair between those who ask (REQ-3)."""

import asyncio
from collections import deque
from typing import Final

DEPTH: Final = 32
MAX_WAIT: Final = 600.0


class QueueFullError(Exception):
    """One asker has too many requests waiting already."""


class WaitedTooLongError(Exception):
    """The turn did not come in time."""


class Turns:
    """Grants turns to the asker that has had none for longest, in order of arrival within one.

    So none can starve another: between two turns of one asker every other that waits has had one.
    """

    def __init__(self, *, depth: int = DEPTH, max_wait: float = MAX_WAIT) -> None:
        self._depth = depth
        self._max_wait = max_wait
        self._held = False
        self._closed: Exception | None = None
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        self._turn = 0
        self._served: dict[str, int] = {}
        """The number of each asker's last turn; askers are as few as doors."""

    async def take(self, asker: str) -> None:
        """Wait for a turn; give it back with `release`.

        Raises `QueueFullError`, `WaitedTooLongError`, or what `close` was given.
        """
        if self._closed is not None:
            raise self._closed
        if not self._held:
            self._held = True
            self._serve(asker)
            return
        queue = self._waiting.setdefault(asker, deque())
        if len(queue) >= self._depth:
            raise QueueFullError(f"{len(queue)} requests of {asker} wait already")
        future = asyncio.get_running_loop().create_future()
        queue.append(future)
        try:
            async with asyncio.timeout(self._max_wait):
                await future
        except TimeoutError as error:
            if future.cancelled():
                raise WaitedTooLongError(f"no turn on the port within {self._max_wait:g} s") from error
            future.result()  # the turn, or the end of the queue, came in the moment of the deadline
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self.release()  # the turn came in the moment of the cancellation
            raise
        finally:
            self._forget(asker, future)

    def release(self) -> None:
        """Give the turn to the next asker."""
        while self._waiting:
            asker = min(self._waiting, key=lambda waiting: self._served.get(waiting, 0))
            queue = self._waiting[asker]
            while queue:
                future = queue.popleft()
                if not future.done():
                    self._serve(asker)
                    future.set_result(None)
                    return
            del self._waiting[asker]
        self._held = False

    @property
    def load(self) -> int:
        """How many have the port or wait for it."""
        return self._held + sum(len(queue) for queue in self._waiting.values())

    @property
    def depths(self) -> dict[str, int]:
        """How many requests wait, by asker."""
        return {asker: len(queue) for asker, queue in self._waiting.items() if queue}

    def close(self, error: Exception) -> None:
        """End the queue: everybody who waits, and everybody who comes, gets `error`."""
        self._closed = error
        for queue in self._waiting.values():
            for future in queue:
                if not future.done():
                    future.set_exception(error)
        self._waiting.clear()

    def _serve(self, asker: str) -> None:
        self._turn += 1
        self._served[asker] = self._turn

    def _forget(self, asker: str, future: asyncio.Future[None]) -> None:
        queue = self._waiting.get(asker)
        if queue is not None and future in queue:
            queue.remove(future)
