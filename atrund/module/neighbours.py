# SPDX-License-Identifier: Apache-2.0
"""Watches for others on the daemon's ports: who has one open as well, or may send to it (MOD-1, MOD-8)."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import structlog

from atrund.usb.holders import others

log = structlog.get_logger()

EVERY: Final = 3600.0
"""Seconds between two looks; somebody who comes to a port does so when it appears, or when a person starts it."""
SETTLE: Final = 30.0
"""Seconds from a port's opening to the look at it: ModemManager probes a new module for about as long."""

Others = Callable[[Path], tuple[str, ...]]


class Neighbours:
    """Looks now and then, until cancelled. `paths` gives the ports' devices; `look` blocks, and so runs on a thread."""

    def __init__(
        self, *, paths: Callable[[], Iterable[str]], on_change: Callable[[], None], look: Others = others
    ) -> None:
        self.seen: tuple[str, ...] = ()
        """What was seen at the last look, in words, with what to do."""
        self._paths = paths
        self._on_change = on_change
        self._look = look
        self._soon = asyncio.Event()
        self._said: set[str] = set()

    def look_soon(self) -> None:
        """A port was opened."""
        self._soon.set()

    async def run(self) -> None:
        """Look for ever; what is seen is said once."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EVERY):
                    await self._soon.wait()
            await asyncio.sleep(SETTLE)
            self._soon.clear()
            paths = tuple(Path(path) for path in self._paths() if path)
            seen = await asyncio.get_running_loop().run_in_executor(None, self._look_at, paths)
            for one in seen:
                if one not in self._said:
                    log.warning("somebody else at the port", detail=one)
            self._said = set(seen)
            if seen != self.seen:
                self.seen = seen
                self._on_change()

    def _look_at(self, paths: Iterable[Path]) -> tuple[str, ...]:
        return tuple(text for path in paths for text in self._look(path))
