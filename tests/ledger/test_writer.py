# SPDX-License-Identifier: Apache-2.0
"""The writer thread: whole jobs, synced promises, a disk that fails or hangs."""

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from atrund.ledger import KEEP_RUN, Ledger, StorageError, open_ledger, outbox, tables
from atrund.ledger import writer as writer_module
from atrund.ledger.schema import open_file
from atrund.ledger.writer import BATCH_MAX, Job, Store, Write, Writer
from tests.ledger.disks import fill, mounted
from tests.support.virtual import AtOnce

WAIT = 20.0
"""Seconds after which a thread counts as stuck."""


class Disk(sqlite3.Connection):
    """A connection that tells how it commits, and can hang or fail at it."""

    def __init__(self, *given: Any, **more: Any) -> None:  # noqa: ANN401 - sqlite3's own
        super().__init__(*given, **more)
        self.commits: list[int] = []
        """PRAGMA synchronous at each COMMIT: 2 is FULL, 1 NORMAL."""
        self.free = threading.Event()
        self.free.set()
        self.reached = threading.Event()
        self.error: Exception | None = None

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:  # noqa: ANN401 - sqlite3's own
        if sql == "COMMIT":
            self.reached.set()
            assert self.free.wait(WAIT)
            if self.error is not None:
                raise self.error
            self.commits.append(super().execute("PRAGMA synchronous").fetchone()[0])
        return super().execute(sql, *values)

    @contextlib.contextmanager
    def hanging(self) -> Iterator[None]:
        self.free.clear()
        try:
            yield
        finally:
            self.free.set()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    open_file(tmp_path / "ledger.db").close()
    connection = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None, check_same_thread=False, factory=Disk)
    connection.execute("PRAGMA synchronous=FULL")
    outbox.prepare(connection)
    yield connection
    connection.close()


@pytest.fixture
def store(disk: Disk) -> Store:
    return Store(disk)


@pytest.fixture
def writer(store: Store, disk: Disk) -> Iterator[Writer]:
    made = Writer(store)
    yield made
    disk.free.set()
    made.close(WAIT)
    assert not made._thread.is_alive()


def put(name: str) -> Write:
    return tables.set_meta(name, 1.0)


def fails(error: Exception) -> Write:
    def write(_: sqlite3.Connection) -> None:
        raise error

    return write


def names(connection: sqlite3.Connection) -> list[str]:
    return [
        name
        for (name,) in connection.execute("SELECT name FROM meta WHERE name NOT IN ('run', 'alive') ORDER BY rowid")
    ]


def awaited(*writes: Write, synced: bool = False) -> tuple[Job, Future[list[Any]]]:
    future: Future[list[Any]] = Future()
    return Job(writes, future, synced=synced), future


def held(writer: Writer, disk: Disk) -> None:
    """Bring the thread to a COMMIT where it hangs, so that what is submitted next waits together."""
    disk.free.clear()
    disk.reached.clear()
    writer.submit(awaited(put("first"))[0])
    assert disk.reached.wait(WAIT)


# A job


def test_each_write_hands_its_value_back(store: Store) -> None:
    job, future = awaited(put("a"), names, tables.get_meta("a", 0.0))
    store.apply([job])
    assert future.result(0) == [1, ["a"], 1.0]


@pytest.mark.parametrize(
    "broken",
    [
        fails(sqlite3.IntegrityError("UNIQUE")),
        fails(KeyError("a bug")),
        fails(MemoryError()),
        tables.set_meta("a\ud800", 1.0),
        lambda db: db.execute("INSERT INTO meta VALUES ('first', 2)"),
        lambda db: db.execute("INSERT INTO meta VALUES (?, ?)", ("big", 2**70)),
    ],
)
def test_a_job_that_breaks_a_rule_fails_alone_and_whole(store: Store, disk: Disk, broken: Write) -> None:
    jobs = [awaited(put("first")), awaited(put("half"), broken, put("other half")), awaited(put("last"))]
    store.apply([job for job, _ in jobs])
    assert names(disk) == ["first", "last"]
    assert jobs[0][1].result(0) == jobs[2][1].result(0) == [1]
    with pytest.raises(StorageError) as caught:
        jobs[1][1].result(0)
    assert str(caught.value)
    assert disk.commits == [1]


def test_a_job_behind_that_fails_is_counted(store: Store, disk: Disk) -> None:
    store.apply([Job((fails(ValueError("x")),)), Job((put("a"),))])
    assert (store.missed, names(disk)) == (1, ["a"])


@pytest.mark.parametrize("error", [sqlite3.OperationalError("database or disk is full"), MemoryError()])
def test_a_disk_that_fails_at_the_commit_fails_all_and_leaves_nothing(
    store: Store, disk: Disk, error: Exception
) -> None:
    job, future = awaited(put("a"), synced=True)
    disk.error = error
    store.apply([Job((put("b"),)), job])
    with pytest.raises(StorageError, match=r"disk is full|MemoryError"):
        future.result(0)
    assert (store.missed, names(disk), disk.in_transaction) == (1, [], False)
    disk.error = None
    again, future = awaited(put("c"), synced=True)
    store.apply([again])
    assert future.result(0) == [1]
    assert names(disk) == ["c"]


def test_whoever_waits_does_not_fail_with_what_the_disk_did_not_take(store: Store, disk: Disk) -> None:
    too_big = fails(sqlite3.OperationalError("database or disk is full"))
    look, small, big = awaited(names), awaited(put("b"), synced=True), awaited(put("half"), too_big, synced=True)
    store.apply([Job((put("a"),)), Job((too_big,)), small[0], big[0], look[0]])
    assert small[1].result(0) == [1]
    assert look[1].result(0) == [["b"]]
    with pytest.raises(StorageError, match="disk is full"):
        big[1].result(0)
    assert (store.missed, names(disk), disk.in_transaction) == (2, ["b"], False)
    assert disk.commits == [2, 1]


def test_a_connection_that_is_gone_fails_jobs_and_never_the_thread(store: Store, disk: Disk) -> None:
    disk.close()
    job, future = awaited(put("a"))
    store.apply([job])
    with pytest.raises(StorageError, match="closed"):
        future.result(0)


# Synced


def test_durable_is_full_at_the_commit_and_behind_alone_is_normal(store: Store, disk: Disk) -> None:
    behind, durable = Job((put("a"),)), awaited(put("b"), synced=True)[0]
    for jobs in ([behind], [durable], [behind], [behind, durable, behind], [awaited(put("c"))[0]]):
        store.apply([Job(job.writes, None, synced=job.synced) for job in jobs])
    assert disk.commits == [1, 2, 1, 2, 1]


def test_a_durable_job_carries_what_waits_in_order(writer: Writer, disk: Disk) -> None:
    held(writer, disk)
    job, future = awaited(put("c"), names, synced=True)
    for waiting in (Job((put("a"),)), Job((put("b"),)), job, Job((put("d"),))):
        writer.submit(waiting)
    disk.free.set()
    assert future.result(WAIT)[1] == ["first", "a", "b", "c"]
    assert disk.commits[:2] == [1, 2]
    assert names(disk)[:4] == ["first", "a", "b", "c"]


def test_what_is_written_behind_alone_is_gathered(writer: Writer, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "GATHER", WAIT)
    held(writer, disk)
    for name in "abc":
        writer.submit(Job((put(name),)))
    disk.free.set()
    job, future = awaited(names)
    writer.submit(job)
    assert future.result(WAIT) == [["first", "a", "b", "c"]]
    assert len(disk.commits) == 2


def test_what_may_be_gathered_is_though_somebody_waits(
    writer: Writer, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "GATHER", WAIT)
    future: Future[list[Any]] = Future()
    writer.submit(Job((put("a"),), future, gathered=True))
    writer.submit(Job((put("b"),)))
    job, urgent = awaited(put("c"), synced=True)
    writer.submit(job)
    assert urgent.result(WAIT) == future.result(WAIT) == [1]
    assert (disk.commits, names(disk)) == ([2], ["a", "b", "c"])


async def test_mirror_rows_alone_are_written_together_and_a_request_takes_them_along(tmp_path: Path) -> None:
    """MQ-4: rows of five commands in one transaction, and in the one of a request that comes meanwhile."""
    open_file(tmp_path / "ledger.db").close()
    connection = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None, check_same_thread=False, factory=Disk)
    outbox.prepare(connection)
    batches: list[int] = []

    class Seen(Store):
        def apply(self, jobs: Any) -> None:  # noqa: ANN401 - the store's own
            batches.append(len(jobs))
            super().apply(jobs)

    writer = Writer(Seen(connection))
    connection.free.clear()
    connection.reached.clear()
    ledger = Ledger(writer)
    first = asyncio.ensure_future(ledger.ask(names))
    await asyncio.sleep(0)
    assert connection.reached.wait(WAIT)
    for _ in range(5):
        ledger.behind(outbox.post(response=False, topic="event/command", payload="{}"))
        ledger.behind(outbox.post(response=False, topic="event/response", payload="{}"))
    request = asyncio.ensure_future(ledger.durable(outbox.post(response=True, topic="at/response", payload="{}")))
    await asyncio.sleep(0)
    connection.free.set()
    await first
    await request
    assert batches == [1, 11]
    assert connection.commits == [1, 2]
    assert connection.execute("SELECT group_concat(response, '') FROM outbox").fetchone() == ("0" * 10 + "1",)
    await ledger.close()


def test_what_is_written_behind_alone_is_written_soon(writer: Writer, disk: Disk) -> None:
    disk.reached.clear()
    writer.submit(Job((put("a"),)))
    assert disk.reached.wait(WAIT)


def test_a_batch_has_an_end_however_much_waits(store: Store, writer: Writer, disk: Disk) -> None:
    sizes: list[int] = []
    apply = store.apply

    class Seen(Store):
        def apply(self, jobs: Any) -> None:  # noqa: ANN401 - the store's own
            sizes.append(len(jobs))
            apply(jobs)

    writer.store = Seen(disk)
    held(writer, disk)
    for number in range(3 * BATCH_MAX):
        writer.submit(Job((put(str(number)),)))
    job, future = awaited(lambda db: len(names(db)))
    writer.submit(job)
    disk.free.set()
    assert future.result(WAIT) == [3 * BATCH_MAX + 1]
    assert sizes == [1, BATCH_MAX, BATCH_MAX, BATCH_MAX, 1]


# Askers that go, disks that hang


def test_a_cancelled_future_is_no_error_and_its_write_is_applied(writer: Writer, disk: Disk) -> None:
    held(writer, disk)
    gone, future = awaited(put("a"), synced=True)
    failing, other = awaited(fails(ValueError("x")))
    writer.submit(gone)
    writer.submit(failing)
    assert future.cancel()
    assert other.cancel()
    job, last = awaited(names)
    writer.submit(job)
    disk.free.set()
    assert last.result(WAIT) == [["first", "a"]]
    assert writer._thread.is_alive()


def test_a_future_cannot_be_cancelled_while_its_job_is_applied(writer: Writer, disk: Disk) -> None:
    disk.free.clear()
    disk.reached.clear()
    job, future = awaited(put("a"))
    writer.submit(job)
    assert disk.reached.wait(WAIT)
    assert not future.cancel()
    disk.free.set()
    assert future.result(WAIT) == [1]


def test_past_its_cap_what_is_behind_is_dropped_and_counted_while_promises_are_kept(
    writer: Writer, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "BEHIND_MAX", 10)
    held(writer, disk)
    for number in range(25):
        writer.submit(Job((put(str(number)),)))
    assert (writer.dropped, writer.missed) == (15, 15)
    job, future = awaited(names, synced=True)
    writer.submit(job)
    disk.free.set()
    assert future.result(WAIT) == [["first", *map(str, range(10))]]


def test_close_writes_what_waits(store: Store, tmp_path: Path, disk: Disk) -> None:
    writer = Writer(store)
    held(writer, disk)
    writer.submit(Job((put("a"),)))
    disk.free.set()
    writer.close(WAIT)
    assert not writer._thread.is_alive()
    connection = sqlite3.connect(tmp_path / "ledger.db")
    assert names(connection) == ["first", "a"]
    connection.close()


def test_close_is_bounded_when_the_disk_hangs(writer: Writer, disk: Disk) -> None:
    held(writer, disk)
    begun = time.monotonic()
    writer.close(0.05)
    assert time.monotonic() - begun < WAIT / 2
    assert writer._thread.is_alive()
    assert writer._thread.daemon, "it must not hold the process up"


# The event loop's side


async def test_the_loop_goes_on_while_the_disk_hangs(store: Store, disk: Disk) -> None:
    ledger = Ledger(Writer(store))
    await ledger.start()
    with disk.hanging():
        disk.reached.clear()
        promise = asyncio.create_task(ledger.durable(put("a")))
        ledger.behind(put("b"))
        assert await asyncio.to_thread(disk.reached.wait, WAIT)
        assert not promise.done()
    assert (await promise)[0] == 1
    assert (await ledger.ask(names)) == ["b", "a"]
    await ledger.close()


async def test_a_task_that_is_cancelled_leaves_its_write(store: Store, disk: Disk) -> None:
    ledger = Ledger(Writer(store))
    with disk.hanging():
        disk.reached.clear()
        ledger.behind(put("a"))
        assert await asyncio.to_thread(disk.reached.wait, WAIT)
        task = asyncio.create_task(ledger.durable(put("b")))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await ledger.ask(names) == ["a", "b"]
    await ledger.close()


async def test_whoever_drains_is_told_of_each_write_once_it_can_be_seen(store: Store) -> None:
    ledger = Ledger(Writer(store))
    told = asyncio.Event()
    ledger.on_posted = told.set
    for write in (ledger.durable, ledger.behind):
        told.clear()
        if (waiting := write(outbox.post(response=False, topic="t", payload="{}"))) is not None:
            await waiting
        async with asyncio.timeout(WAIT):
            await told.wait()
    assert [row.seq for row in await ledger.ask(outbox.after(0))] == [1, 2]
    await ledger.close()


async def test_after_the_close_nothing_is_promised_and_what_comes_is_counted(store: Store) -> None:
    ledger = Ledger(Writer(store))
    await ledger.start()
    await ledger.close()
    await ledger.close()
    with pytest.raises(StorageError, match="the ledger is closed"):
        await ledger.durable(put("a"))
    ledger.behind(put("a"))
    assert ledger.missed == 1


def test_a_loop_that_is_closed_is_not_told(store: Store, disk: Disk, caplog: pytest.LogCaptureFixture) -> None:
    writer = Writer(store)

    async def use() -> None:
        disk.free.clear()
        Ledger(writer).behind(put("a"))

    asyncio.run(use())
    disk.free.set()
    writer.close(WAIT)
    assert not writer._thread.is_alive()
    assert (store.missed, caplog.records) == (0, [])


@pytest.mark.looptime
async def test_the_run_clock_goes_on_across_restarts_and_crashes(tmp_path: Path) -> None:
    """REQ-11"""
    path = tmp_path / "ledger.db"
    first = Ledger(AtOnce(path))
    await first.start()
    await asyncio.sleep(1000)
    assert first.run == 1000
    await first.close()
    await asyncio.sleep(5000)  # not running

    disk = AtOnce(path)
    second = Ledger(disk)
    await second.start()
    assert second.run == 1000
    await asyncio.sleep(50)
    await second.durable(put("a"))
    disk.broken = "killed"
    disk.close(0)
    await asyncio.sleep(KEEP_RUN)

    disk = AtOnce(path)
    third = Ledger(disk)
    await third.start()
    assert third.run == 1050
    await asyncio.sleep(10 * KEEP_RUN + 1)  # nothing is written but the clock itself
    disk.broken = "killed"
    disk.close(0)

    last = Ledger(AtOnce(path))
    await last.start()
    assert last.run == 1050 + 10 * KEEP_RUN
    await last.close()


@pytest.mark.looptime
async def test_a_run_clock_that_could_not_be_read_does_not_set_it_back(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    disk = AtOnce(path)
    await Ledger(disk).durable(tables.keep_run(5000.0))
    disk.broken = "disk I/O error"
    ledger = Ledger(disk)
    await ledger.start()
    assert ledger.failure == "disk I/O error"
    disk.broken = ""
    await ledger.durable(put("a"))
    assert await ledger.ask(tables.get_meta("run", 0.0)) == 5000.0
    await ledger.close()


# Real disks


async def test_a_disk_that_runs_full_refuses_and_is_used_again_when_there_is_room(tmp_path: Path) -> None:
    """REQ-12"""
    with mounted(tmp_path / "disk", "2m") as disk:
        ledger = open_ledger(disk)
        await ledger.start()
        await ledger.durable(put("a"))
        filler = fill(disk)
        row = outbox.post(response=False, topic="t", payload=f'"{"x" * 40_000}"')
        refused = 0
        for _ in range(30):  # the WAL has some room of its own
            try:
                await ledger.durable(row)
            except StorageError as error:
                assert "full" in str(error)
                refused += 1
        assert refused > 20
        ledger.behind(row)
        assert await ledger.ask(tables.get_meta("a", 0.0)) == 1.0
        assert ledger.missed == 1
        kept = (await ledger.ask(tables.counts()))["outbox"]
        assert kept == 30 - refused
        filler.unlink()
        await ledger.durable(row)
        assert (await ledger.ask(tables.counts()))["outbox"] == kept + 1
        await ledger.close()
        again = open_file(disk / "ledger.db")
        assert again.execute("SELECT count(*) FROM outbox").fetchone() == (kept + 1,)
        again.close()
