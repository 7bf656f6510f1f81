# SPDX-License-Identifier: Apache-2.0
"""A timer of which one runs at a time."""

import asyncio
from collections.abc import Callable


class Timer:
    """Stopped until `start`."""

    def __init__(self) -> None:
        self._handle: asyncio.TimerHandle | None = None

    def start(self, seconds: float, then: Callable[[], object]) -> None:
        """Call `then` after so many seconds, in place of what was to be called before; never for 0."""
        self.stop()
        if seconds:
            self._handle = asyncio.get_running_loop().call_later(seconds, then)

    def stop(self) -> None:
        """Call nothing."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
