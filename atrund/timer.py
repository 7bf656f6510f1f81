# SPDX-License-Identifier: Apache-2.0
"""A timer of which one runs at a time, for what is put off far more often than it happens."""

import asyncio
from collections.abc import Callable
from typing import Final


class Timer:
    """Stopped until `start`.

    What is put off costs the event loop nothing: its own timer stays, and is set anew only when it rings too early.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._handle: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._then: Callable[[], object] = _nothing

    def start(self, seconds: float, then: Callable[[], object]) -> None:
        """Call `then` after so many seconds, in place of what was to be called before; never for 0."""
        if not seconds:
            self.stop()
            return
        loop = self._loop = self._loop or asyncio.get_running_loop()
        self._due = due = loop.time() + seconds
        self._then = then
        if self._handle is not None and self._handle.when() > due:
            self.close()
            self._then = then
        if self._handle is None:
            self._handle = loop.call_at(due, self._ring)

    def stop(self) -> None:
        """Call nothing."""
        self._then = _nothing

    def close(self) -> None:
        """Call nothing, and leave nothing behind in the event loop."""
        self._then = _nothing
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _ring(self) -> None:
        self._handle = None
        then = self._then
        if then is _nothing:
            return
        loop = asyncio.get_running_loop()
        if self._due > loop.time() + _EARLY:
            self._handle = loop.call_at(self._due, self._ring)
            return
        self._then = _nothing
        then()


def _nothing() -> None:
    pass


_EARLY: Final = 1e-9
"""Seconds: less than that is rounding."""
