# SPDX-License-Identifier: Apache-2.0
"""Takes messages out of the store that are done with, and tries again where that fails, without a loop (SMS-11)."""

from collections.abc import Callable, Coroutine
from typing import Final

import structlog

from atrund.ledger import Ledger
from atrund.module.store import Store, Stored, StoreError

log = structlog.get_logger()

DELETE_FIRST: Final = 60.0
DELETE_LONGEST: Final = 3600.0
"""Seconds between two tries to delete one message: six in the first hour, then one an hour."""
UNDELETED_MAX: Final = 1000
"""Messages whose deletion failed: more than the memories of a module hold."""


class Disposal:
    """Deletes; `spawn` runs what takes a while."""

    def __init__(self, *, store: Store, ledger: Ledger, spawn: Callable[[Coroutine[None, None, None]], None]) -> None:
        self._store = store
        self._ledger = ledger
        self._spawn = spawn
        self._undeleted: dict[Stored, tuple[float, float]] = {}
        """What is not deleted yet: when it is due again, and the pause after that."""
        self.on_gone: Callable[[], None] = lambda: None
        """Called when a place of the store was freed."""

    def dispose(self, stored: Stored) -> None:
        """Have a message deleted, unless that is under way or failed just now."""
        now = self._ledger.run
        due, pause = self._undeleted.get(stored, (now, DELETE_FIRST))
        if now < due:
            return
        self._undeleted[stored] = now + pause, min(pause * 2, DELETE_LONGEST)
        if len(self._undeleted) > UNDELETED_MAX:
            del self._undeleted[next(iter(self._undeleted))]
        self._spawn(self._delete(stored))

    def is_stuck(self, stored: Stored) -> bool:
        """Whether a message was to be deleted, failed, and fails or waits since."""
        return self._undeleted.get(stored, (0.0, 0.0))[1] > 2 * DELETE_FIRST

    def try_again(self) -> None:
        """Have those deleted whose time has come, wherever they lie."""
        for stored in tuple(self._undeleted):
            self.dispose(stored)

    async def _delete(self, stored: Stored) -> None:
        try:
            gone = await self._store.delete(stored) or await self._store.read(stored.memory, stored.index) != stored
        except StoreError as error:
            log.warning("sms not deleted", detail=str(error))
            return
        if gone:
            self._undeleted.pop(stored, None)
            self.on_gone()
        else:
            log.warning("sms not deleted", detail="the module refused")
