# SPDX-License-Identifier: Apache-2.0
"""The one thread that touches the ledger's file.

Rules of this file: a job is applied whole or not at all; a durable one is on disk (synced) before its future resolves
and carries with it whatever waited; what is written behind alone is gathered and not synced.
"""

import contextlib
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final

Write = Callable[[sqlite3.Connection], Any]
"""One change, or one look; its return value is handed back."""

GATHER: Final = 0.2
"""Seconds for which writes without a promise are gathered: few enough that a mirror seems live, and spares flash."""
BEHIND_MAX: Final = 10_000
"""Jobs that may wait; at some 500 bytes each they stay under 5 MB when the disk hangs."""
BATCH_MAX: Final = 500
"""Jobs of one transaction, so that one who waits for a job never waits for thousands, however fast they come."""


class StorageError(Exception):
    """The disk did not take it. Nothing of the job was written."""


class UnfitError(StorageError):
    """The ledger itself can't hold it: no later try will be any better."""


@dataclass(slots=True)
class Job:
    """Writes that belong together. `future` is None for what is written behind.

    `gathered`: though somebody waits for it, it goes with what is written behind.
    """

    writes: Sequence[Write]
    future: Future[list[Any]] | None = None
    synced: bool = False
    gathered: bool = False
    wipes: bool = False
    """Behind it the log of changes is emptied into the file, for what was changed or deleted is still in there."""


@dataclass(slots=True)
class Store:
    """Applies jobs to a connection, on whichever thread calls it."""

    connection: sqlite3.Connection
    missed: int = 0
    """Jobs written behind that the disk did not take."""
    lock: int | None = None
    """A descriptor that goes with the connection."""
    _full: bool = field(default=True)

    def apply(self, jobs: Sequence[Job]) -> None:
        """Apply jobs in order in one transaction, and resolve their futures. Never raises."""
        # An asker that went away no longer wants to know; what it wanted written is written all the same.
        awaited = {id(job): job.future for job in jobs if job.future and job.future.set_running_or_notify_cancel()}
        for job, result in zip(jobs, self._transact(jobs), strict=True):
            self.missed += job.future is None and isinstance(result, Exception)
            if (future := awaited.get(id(job))) is not None:
                _resolve(future, result)
        if any(job.wipes for job in jobs):
            with contextlib.suppress(sqlite3.Error):  # it stays in there until the next time, or a start
                self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
        """Close the file."""
        self.connection.close()
        if self.lock is not None:
            os.close(self.lock)
            self.lock = None

    def _transact(self, jobs: Sequence[Job]) -> list[list[Any] | Exception]:
        """When the disk fails, whoever waits is tried alone: a look or a small write need not fail with the rest."""
        try:
            self._sync(full=any(job.synced for job in jobs))
            self.connection.execute("BEGIN IMMEDIATE")
            results = [self._apply_one(job) for job in jobs]
            self.connection.execute("COMMIT")
        except (sqlite3.Error, MemoryError) as error:  # SQLite out of memory is Python's MemoryError
            self._roll_back()
            failed = StorageError(str(error) or repr(error))
            if len(jobs) == 1:
                return [failed]
            return [failed if job.future is None else self._transact([job])[0] for job in jobs]
        return results

    def _apply_one(self, job: Job) -> list[Any] | Exception:
        """A job that breaks a rule of the schema fails alone; a disk that fails, fails the transaction."""
        self.connection.execute("SAVEPOINT job")
        try:
            result = [write(self.connection) for write in job.writes]
        except _DISK_FAILS:
            raise
        except Exception as error:  # noqa: BLE001 - a row that can't be read or written must not end the thread
            self.connection.execute("ROLLBACK TO job")
            self.connection.execute("RELEASE job")
            return UnfitError(str(error) or repr(error))
        self.connection.execute("RELEASE job")
        return result

    def _sync(self, *, full: bool) -> None:
        if full != self._full:
            self.connection.execute(f"PRAGMA synchronous={'FULL' if full else 'NORMAL'}")
            self._full = full

    def _roll_back(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")


_DISK_FAILS: Final = (sqlite3.OperationalError, sqlite3.InternalError)


def _resolve(future: Future[list[Any]], result: list[Any] | Exception) -> None:
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)


class Writer:
    """Feeds a store from one thread of its own."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.dropped = 0
        """Jobs written behind for which there was no room."""
        self._jobs: deque[Job] = deque()
        self._some = threading.Event()
        self._urgent = threading.Event()
        """Set with what somebody waits for. What is written behind wakes the thread once for a whole gathering."""
        self._ended = False
        self._thread = threading.Thread(target=self._work, name="ledger", daemon=True)
        self._thread.start()

    @property
    def missed(self) -> int:
        """Jobs written behind that were lost, whichever way."""
        return self.dropped + self.store.missed

    @property
    def is_alive(self) -> bool:
        """Whether jobs are still taken."""
        return self._thread.is_alive()

    def submit(self, job: Job) -> None:
        """Hand a job over; never blocks. What is written behind is dropped and counted while too much waits."""
        if job.future is None and len(self._jobs) >= BEHIND_MAX:
            self.dropped += 1
            return
        self._jobs.append(job)
        if job.future is not None and not job.gathered:
            self._urgent.set()
        if not self._some.is_set():
            self._some.set()

    def close(self, timeout: float) -> None:
        """Write what waits, close the file, end the thread; give up after `timeout` seconds."""
        self._ended = True
        self._urgent.set()
        self._some.set()
        self._thread.join(timeout)

    def _work(self) -> None:
        while True:
            self._some.wait()
            self._urgent.wait(GATHER)
            # Cleared before the look: what comes in between is seen now, or wakes the thread again.
            self._some.clear()
            self._urgent.clear()
            ended = self._ended
            if jobs := self._take_batch():
                self.store.apply(jobs)
            if ended and not self._jobs:
                self.store.close()
                return

    def _take_batch(self) -> list[Job]:
        jobs = [self._jobs.popleft() for _ in range(min(len(self._jobs), BATCH_MAX))]
        if self._jobs:  # more than one transaction's worth: go on without a pause
            self._urgent.set()
            self._some.set()
        return jobs
