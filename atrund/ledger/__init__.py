# SPDX-License-Identifier: Apache-2.0
"""What must survive: requests, outbox, audit, judged messages, in one SQLite file with one writer thread.

The event loop never waits for the disk; it awaits a future where a promise rests on it, and otherwise goes on.
"""

import asyncio
import contextlib
import functools
import math
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, Protocol

import structlog

from atrund.ledger import copying, outbox, tables
from atrund.ledger.schema import LedgerRefusedError, open_alone
from atrund.ledger.writer import Job, StorageError, Store, UnfitError, Write, Writer

log = structlog.get_logger()

__all__ = ["Ledger", "LedgerRefusedError", "StorageError", "Submits", "open_ledger"]

CLOSE_TIMEOUT: Final = 5.0
"""Seconds to write what waits at the end: flash takes 100 ms a sync, and little can be waiting."""
KEEP_RUN: Final = 600.0
"""Seconds between two times that the run clock is kept: so much of an idle time may a crash forget (REQ-11)."""
OWED_MAX: Final = 1000
"""Jobs that are owed at once: more than there can be requests on their way when the disk fails."""
SETTLE_EVERY: Final = 5.0
"""Seconds between two tries to write what is owed."""

LOOK_FIRST: Final = 10.0
"""Seconds until a file that can't be used is looked at again; each pause is twice the one before it."""
LOOK_LAST: Final = 600.0
"""The longest of these pauses: each look may read the whole file."""

WIPE_AFTER: Final = 60.0
"""Seconds until what was secret of ended requests is gone from the log of changes, too: once for all of a minute."""

Told = Callable[[], None]


class Submits(Protocol):
    """Where jobs go: the writer thread, or a store that applies them at once where time is virtual."""

    @property
    def missed(self) -> int:
        """Jobs written behind that were lost."""

    @property
    def is_alive(self) -> bool:
        """Whether jobs are still taken."""

    def submit(self, job: Job) -> None:
        """Take a job; never raises."""

    def close(self, timeout: float) -> None:
        """Write what waits and close."""


class Ledger:
    """The event loop's side of the ledger. Without a writer (`failure` says why) nothing durable can be promised."""

    def __init__(self, writer: Submits | None, *, failure: str = "", file: Path | None = None) -> None:
        """`file`: the one that could not be opened, where there is no writer."""
        self.failure = failure
        self._file = file
        self.on_posted: Told = _nobody
        """Called on the event loop when the outbox may have new rows."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_posted = False
        """Whether the event loop was woken for that, and did not come to it yet."""
        self._writer = writer
        self._missed = 0
        self._base_run = 0.0
        self._started = 0.0
        self._keeping: asyncio.TimerHandle | None = None
        self._owed: dict[asyncio.Future[None], tuple[Write, ...]] = {}
        self._handed: set[asyncio.Future[None]] = set()
        """Of those, the ones that the writer has just now."""
        self._settling: asyncio.TimerHandle | None = None
        self._wiping: asyncio.TimerHandle | None = None
        self.down = math.inf
        """Seconds for which the daemon did not run before this start, or more; infinite while not known."""

    @property
    def run(self) -> float:
        """Seconds that the daemon has run, over all its starts (REQ-11)."""
        return self._base_run + asyncio.get_running_loop().time() - self._started

    @property
    def missed(self) -> int:
        """Jobs without a promise that were lost."""
        return self._missed + (0 if self._writer is None else self._writer.missed)

    def standstill(self) -> str:
        """Return why nothing is written any more, though nobody closed it; "" while it is."""
        return "" if self._writer is None or self._writer.is_alive else "the ledger's thread has ended"

    async def start(self) -> None:
        """Read the run clock and keep it from now on; to be called once, on the loop."""
        self._started = asyncio.get_running_loop().time()
        if self._writer is not None:
            try:
                self._base_run = await self.ask(tables.get_meta("run", 0.0))
                self.down = _since(await self.ask(tables.get_text(_ALIVE)), self._started)
            except StorageError as error:
                self.failure = str(error)
            self._keep_run()

    async def until_usable(self) -> None:
        """Wait until what failed at the start would not fail now; only another start takes the ledger up."""
        pause = LOOK_FIRST
        while not await self._would_work(pause):
            pause = min(2 * pause, LOOK_LAST)

    async def durable(self, *writes: Write) -> list[Any]:
        """Write together and synced to disk before this returns; returns each write's value. Raises `StorageError`."""
        self._settle()
        # The clock first, for an outcome is stamped with it.
        _, _, *results = await self._submit((*self._clocks(), *writes), synced=True)
        self.on_posted()
        return results

    async def ask(self, look: Write) -> Any:  # noqa: ANN401 - as many types as looks
        """Look something up. Raises `StorageError`."""
        return (await self._submit((look,), synced=False))[0]

    def behind(self, *writes: Write, posts: bool = True) -> None:
        """Write together soon, without a promise; returns at once. `posts`: whether it may put rows into the outbox."""
        if self._writer is None:
            self._missed += 1
            return
        if posts:
            self._loop = self._loop or asyncio.get_running_loop()
            writes = (*writes, self._note_posted)
        self._writer.submit(Job(writes))

    def soon(self, *writes: Write) -> "asyncio.Future[list[Any]]":
        """Write together soon, like `behind`, and tell how it went: the future may raise `StorageError`."""
        future: Future[list[Any]] = Future()
        if self._writer is None:
            future.set_exception(StorageError(self.failure or "the ledger is closed"))
        else:
            self._writer.submit(Job(writes, future, gathered=True))
        return asyncio.wrap_future(future)

    def owe(self, *writes: Write) -> "asyncio.Future[None]":
        """Write together what the disk just refused, synced, as soon as it takes it, ahead of all that comes later.

        Returns a future that resolves when it is written, or given up: then it is counted as missed.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._writer is None or len(self._owed) >= OWED_MAX:
            self._missed += 1
            future.set_result(None)
            return future
        self._owed[future] = writes
        self._settle_later()
        return future

    def wipe(self) -> None:
        """Have nothing left soon of what was just changed or deleted (POL-3)."""
        if self._wiping is None:
            self._wiping = asyncio.get_running_loop().call_later(WIPE_AFTER, self._wipe)

    async def close(self) -> None:
        """Write what waits and close the file."""
        if self._keeping is not None:
            self._keeping.cancel()
        if self._settling is not None:
            self._settling.cancel()
        if self._wiping is not None:  # closing empties it
            self._wiping.cancel()
        if self._writer is not None:
            self._settle()
            self.behind(*self._clocks(), outbox.give_back(), posts=False)
            writer, self._writer = self._writer, None
            await asyncio.get_running_loop().run_in_executor(None, writer.close, CLOSE_TIMEOUT)

    async def _would_work(self, pause: float) -> bool:
        await asyncio.sleep(pause)
        if self._file is not None:
            return await asyncio.get_running_loop().run_in_executor(None, _can_be_opened, self._file)
        try:
            await self.ask(tables.get_meta("run", 0.0))
        except StorageError:
            return False
        return True

    def _wipe(self) -> None:
        self._wiping = None
        if self._writer is not None:
            self._writer.submit(Job((), wipes=True))

    def _keep_run(self) -> None:
        if self._keeping is not None:  # the first time it was just read
            self.behind(*self._clocks(), copying.drop_copies(self.run), posts=False)
        self._keeping = asyncio.get_running_loop().call_later(KEEP_RUN, self._keep_run)

    def _clocks(self) -> tuple[Write, Write]:
        """Keep how long the daemon has run, and the moment on the machine's own clock."""
        moment = f"{_boot()} {asyncio.get_running_loop().time()}"
        return tables.keep_run(self.run), tables.set_text(_ALIVE, moment)

    def _settle_later(self) -> None:
        if self._settling is None:
            self._settling = asyncio.get_running_loop().call_later(SETTLE_EVERY, self._settle)

    def _settle(self) -> None:
        """Hand over what is owed and not handed over yet; what fails is owed on."""
        if self._settling is not None:
            self._settling.cancel()
            self._settling = None
        for owed, writes in self._owed.items():
            if owed in self._handed or self._writer is None:
                continue
            self._handed.add(owed)
            future: Future[list[Any]] = Future()
            self._writer.submit(Job(writes, future, synced=True))
            asyncio.wrap_future(future).add_done_callback(functools.partial(self._settled, owed))

    def _settled(self, owed: "asyncio.Future[None]", done: "asyncio.Future[list[Any]]") -> None:
        self._handed.discard(owed)
        error = done.exception()
        if isinstance(error, UnfitError):
            log.error("outcome given up: it can't be recorded at all", detail=str(error))
            self._missed += 1
        elif error is not None:
            self._settle_later()
            return
        del self._owed[owed]
        self.wipe()
        if not owed.done():
            owed.set_result(None)
        self.on_posted()

    def _note_posted(self, _: sqlite3.Connection) -> None:
        """Wake the event loop from the writer's thread, once for all that it has not heard of yet."""
        # The row is seen by the drain's own look, which queues behind this transaction.
        if not self._is_posted and self._loop is not None:
            self._is_posted = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody drains any more
                self._loop.call_soon_threadsafe(self._tell_posted)

    def _tell_posted(self) -> None:
        self._is_posted = False
        self.on_posted()

    async def _submit(self, writes: tuple[Write, ...], *, synced: bool) -> list[Any]:
        if self._writer is None:
            raise StorageError(self.failure or "the ledger is closed")
        future: Future[list[Any]] = Future()
        self._writer.submit(Job(writes, future, synced=synced))
        return await asyncio.wrap_future(future)


def _nobody() -> None:
    pass


_ALIVE: Final = "alive"
"""When the daemon was last known to run: the machine's boot, and seconds since then."""
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


@functools.cache
def _boot() -> str:
    """Return what tells this boot of the machine from every other (random(4)), or ""; a unit may hand it in."""
    try:
        return os.environ.get("ATRUND_BOOT_ID") or _BOOT_ID.read_text("ascii").strip().replace("-", "")
    except OSError:
        return ""


def _since(alive: str, now: float) -> float:
    """Return for how long the daemon did not run, infinite where another boot or nothing is known."""
    boot, _, moment = alive.partition(" ")
    return max(0.0, now - float(moment)) if boot and boot == _boot() else math.inf


def open_ledger(state_dir: Path) -> Ledger:
    """Open `state_dir/ledger.db`; blocking, so to be called off the loop or before it runs.

    A file that can't be used gives a ledger that promises nothing and says why (REQ-12).
    """
    try:
        connection, lock = open_alone(state_dir / "ledger.db")
    except LedgerRefusedError as error:
        return Ledger(None, failure=str(error), file=state_dir / "ledger.db")
    return Ledger(Writer(Store(connection, lock=lock)))


def _can_be_opened(file: Path) -> bool:
    try:
        connection, lock = open_alone(file)
    except LedgerRefusedError:
        return False
    Store(connection, lock=lock).close()
    return True
