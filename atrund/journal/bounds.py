# SPDX-License-Identifier: Apache-2.0
"""Keeps the log to its limits: what is held back is told by the next entry, by the event loop, or at the end."""

import asyncio
import threading
from collections.abc import Callable, MutableMapping
from typing import Any, Final

import structlog

from atrund.journal.kinds import kind_of
from atrund.journal.limits import Held, Limits

MORE: Final = "more of the same"
"""The event by which it is told how many entries of a kind were held back."""


class Bounds:
    """Holds back what comes too often, from whatever thread, and says how much that was: behind `WINDOW` seconds, where
    nothing else is said meanwhile, by the event loop, and at the end. While nothing is held back, nothing wakes up.
    """

    def __init__(self, emit: Callable[[dict[str, Any]], None], clock: Callable[[], float]) -> None:
        self._emit = emit
        self._clock = clock
        self._limits = Limits()
        self._lock = threading.Lock()
        self._timer: asyncio.TimerHandle | None = None

    def judge(self, _logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Let an entry pass, or hold it back."""
        if event.get("level") == "debug" or self.admits(event):
            return event
        raise structlog.DropEvent

    def admits(self, event: MutableMapping[str, Any]) -> bool:
        """Return whether an entry is written."""
        now = self._clock()
        with self._lock:
            told = self._limits.due(now)
            passes = self._limits.admits(kind_of(event), str(event.get("door") or ""), now)
        self._tell(told)
        if not passes and self._timer is None:
            self._wait(now)
        return passes

    def close(self) -> None:
        """Say what is not yet said."""
        if self._timer is not None:
            self._timer.cancel()
        with self._lock:
            told = self._limits.rest(self._clock())
        self._tell(told)

    def _wait(self, now: float) -> None:
        due = self._limits.due_at
        if due is None:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # another thread, or none yet: the next entry says it
            return
        self._timer = loop.call_later(due - now, self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._clock()
        with self._lock:
            told = self._limits.due(now)
        self._tell(told)
        self._wait(now)

    def _tell(self, held: list[Held]) -> None:
        for one in held:
            event: dict[str, Any] = {"event": MORE, "level": "warning"}
            if one.door:
                event["door"] = one.door
            event |= {"kind": one.kind, "count": one.count, "seconds": round(one.seconds)}
            self._emit(event)
