# SPDX-License-Identifier: Apache-2.0
"""Who has the port next: one holder at a time, fair between those who ask (REQ-3)."""

import asyncio
from collections import OrderedDict, deque
from typing import Final

DEPTH: Final = 32
MAX_WAIT: Final = 600.0


class QueueFullError(Exception):
    """One asker has too many requests waiting already."""


class WaitedTooLongError(Exception):
    """The turn did not come in time."""


class Turns:
    """Grants turns in rotation between askers, in order of arrival within one.

    Whoever was served goes to the back, so none can starve another: between two turns of one asker every other that
    waits has had one.
    """

    def __init__(self, *, depth: int = DEPTH, max_wait: float = MAX_WAIT) -> None:
        self._depth = depth
        self._max_wait = max_wait
        self._held = False
        self._closed: Exception | None = None
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    async def take(self, asker: str) -> None:
        """Wait for a turn; give it back with `release`.

        Raises `QueueFullError`, `WaitedTooLongError`, or what `close` was given.
        """
        if self._closed is not None:
            raise self._closed
        if not self._held:
            self._held = True
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
            asker, queue = next(iter(self._waiting.items()))
            self._waiting.move_to_end(asker)
            while queue:
                future = queue.popleft()
                if not future.done():
                    future.set_result(None)
                    return
            del self._waiting[asker]
        self._held = False

    def place(self, asker: str) -> int:
        """Return how many requests of an asker wait."""
        return len(self._waiting.get(asker, ()))

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

    def _forget(self, asker: str, future: asyncio.Future[None]) -> None:
        queue = self._waiting.get(asker)
        if queue is not None and future in queue:
            queue.remove(future)
