# SPDX-License-Identifier: Apache-2.0
"""What must survive: requests, outbox, audit, judged messages, in one SQLite file with one writer thread.

The event loop never waits for the disk; it awaits a future where a promise rests on it, and otherwise goes on.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, Protocol

from atrund.ledger import tables
from atrund.ledger.schema import LedgerRefusedError, open_file
from atrund.ledger.writer import Job, StorageError, Store, Write, Writer

__all__ = ["Ledger", "LedgerRefusedError", "StorageError", "Submits", "open_ledger"]

CLOSE_TIMEOUT: Final = 5.0
"""Seconds to write what waits at the end: flash takes 100 ms a sync, and little can be waiting."""
KEEP_RUN: Final = 600.0
"""Seconds between two times that the run clock is kept: so much of an idle time may a crash forget (REQ-11)."""


Told = Callable[[], None]


class Submits(Protocol):
    """Where jobs go: the writer thread, or a store that applies them at once where time is virtual."""

    @property
    def missed(self) -> int:
        """Jobs written behind that were lost."""

    def submit(self, job: Job) -> None:
        """Take a job; never raises."""

    def close(self, timeout: float) -> None:
        """Write what waits and close."""


class Ledger:
    """The event loop's side of the ledger. Without a writer (`failure` says why) nothing durable can be promised."""

    def __init__(self, writer: Submits | None, *, failure: str = "") -> None:
        self.failure = failure
        self.on_posted: Told = _nobody
        """Called on the event loop when the outbox may have new rows."""
        self._writer = writer
        self._missed = 0
        self._base_run = 0.0
        self._started = 0.0
        self._keeping: asyncio.TimerHandle | None = None

    @property
    def run(self) -> float:
        """Seconds that the daemon has run, over all its starts (REQ-11)."""
        return self._base_run + asyncio.get_running_loop().time() - self._started

    @property
    def missed(self) -> int:
        """Jobs without a promise that were lost."""
        return self._missed + (0 if self._writer is None else self._writer.missed)

    async def start(self) -> None:
        """Read the run clock and keep it from now on; to be called once, on the loop."""
        self._started = asyncio.get_running_loop().time()
        if self._writer is not None:
            try:
                self._base_run = await self.ask(tables.get_meta("run", 0.0))
            except StorageError as error:
                self.failure = str(error)
            self._keep_run()

    async def durable(self, *writes: Write) -> list[Any]:
        """Write together and synced to disk before this returns; returns each write's value. Raises `StorageError`."""
        results = await self._submit((*writes, tables.keep_run(self.run)), synced=True)
        self.on_posted()
        return results

    async def ask(self, look: Write) -> Any:  # noqa: ANN401 - as many types as looks
        """Look something up. Raises `StorageError`."""
        return (await self._submit((look,), synced=False))[0]

    def behind(self, *writes: Write) -> None:
        """Write together soon, without a promise; returns at once."""
        if self._writer is None:
            self._missed += 1
            return
        self._writer.submit(Job((*writes, self._tell_posted())))

    async def close(self) -> None:
        """Write what waits and close the file."""
        if self._keeping is not None:
            self._keeping.cancel()
        if self._writer is not None:
            self.behind(tables.keep_run(self.run))
            writer, self._writer = self._writer, None
            await asyncio.get_running_loop().run_in_executor(None, writer.close, CLOSE_TIMEOUT)

    def _keep_run(self) -> None:
        if self._keeping is not None:  # the first time it was just read
            self.behind(tables.keep_run(self.run))
        self._keeping = asyncio.get_running_loop().call_later(KEEP_RUN, self._keep_run)

    def _tell_posted(self) -> Write:
        loop = asyncio.get_running_loop()

        def tell(_: sqlite3.Connection) -> None:
            # The row is seen by the drain's own look, which queues behind this transaction.
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody drains any more
                loop.call_soon_threadsafe(self.on_posted)

        return tell

    async def _submit(self, writes: tuple[Write, ...], *, synced: bool) -> list[Any]:
        if self._writer is None:
            raise StorageError(self.failure or "the ledger is closed")
        future: Future[list[Any]] = Future()
        self._writer.submit(Job(writes, future, synced=synced))
        return await asyncio.wrap_future(future)


def _nobody() -> None:
    pass


def open_ledger(state_dir: Path) -> Ledger:
    """Open `state_dir/ledger.db`; blocking, so to be called off the loop or before it runs.

    A file that can't be used gives a ledger that promises nothing and says why (REQ-12).
    """
    try:
        connection = open_file(state_dir / "ledger.db")
    except LedgerRefusedError as error:
        return Ledger(None, failure=str(error))
    return Ledger(Writer(Store(connection)))
