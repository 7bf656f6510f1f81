# SPDX-License-Identifier: Apache-2.0
"""What runs as long as the daemon: each room's own loop, as a task."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

import structlog

log = structlog.get_logger()

END_WAIT: Final = 5.0
"""Seconds for a cancelled room to end: closing a socket and a paho thread takes a second at most."""


class Activities:
    """To be made on the running loop."""

    def __init__(self) -> None:
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Resolves when a task that should run for ever did not."""
        self._tasks: set[asyncio.Task[None]] = set()

    def keep(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run it until `end`."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def give_up(self) -> None:
        """Have the daemon end as failed, for another start to do better."""
        if not self.failed.done():
            self.failed.set_result(None)

    async def end(self) -> None:
        """Cancel all and wait a while for them."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=END_WAIT)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A room's own loop ends only by cancellation; a fault in it must end the daemon, not leave it half alive."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self.failed.done():
            log.error("room failed", room=task.get_name(), exc_info=error)
            self.give_up()
