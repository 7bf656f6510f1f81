# SPDX-License-Identifier: Apache-2.0
import asyncio
import contextlib
import math
import os
import sqlite3
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atrund import ledger as room
from atrund.atrun.request import Door, Request
from atrund.ledger import Ledger, StorageError, audit, open_ledger, tables
from atrund.ledger.schema import open_file
from atrund.ledger.writer import Write
from tests.support.virtual import AtOnce

REQUEST = Request(rid="r1", door=Door.SMS, peer="+39", line="AT", key="k")


async def test_what_is_durable_is_on_disk_when_it_returns(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    await ledger.start()
    posted = 0

    def count() -> None:
        nonlocal posted
        posted += 1

    ledger.on_posted = count
    assert (await ledger.durable(tables.record(REQUEST, ledger.run)))[0] is None
    reader = sqlite3.connect(tmp_path / "ledger.db")
    assert reader.execute("SELECT rid, state FROM requests").fetchall() == [("r1", "recorded")]
    reader.close()
    assert posted == 1
    await ledger.close()


async def test_what_is_written_behind_is_told_on_the_loop_and_written_at_the_latest_at_the_end(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    await ledger.start()
    told = asyncio.Event()
    ledger.on_posted = told.set
    ledger.behind(tables.set_meta("x", 1.0))
    async with asyncio.timeout(5):
        await told.wait()
    assert await ledger.ask(tables.get_meta("x", 0.0)) == 1.0
    ledger.behind(tables.set_meta("x", 2.0))
    await ledger.close()
    connection = open_file(tmp_path / "ledger.db")
    assert tables.get_meta("x", 0.0)(connection) == 2.0
    connection.close()
    with pytest.raises(StorageError, match="closed"):
        await ledger.ask(tables.counts())


@pytest.mark.looptime
async def test_the_loop_is_woken_once_for_all_that_was_written_behind_together() -> None:
    async with on_a_disk() as (_, ledger):
        posted: list[int] = []
        ledger.on_posted = lambda: posted.append(1)
        for value in range(5):
            ledger.behind(note(str(value)))
        assert posted == []
        await asyncio.sleep(1)
        assert posted == [1]
        ledger.behind(note("later"))
        await asyncio.sleep(1)
        assert posted == [1, 1]


async def test_a_second_daemon_is_given_none(tmp_path: Path) -> None:
    """REQ-9: it would take what the first one has on its way for interrupted, and run it again."""
    first = open_ledger(tmp_path)
    await first.durable(tables.record(REQUEST, 0.0))
    second = open_ledger(tmp_path)
    with pytest.raises(StorageError, match="another atrund has it; each needs a state_dir of its own"):
        await second.ask(tables.unfinished(Door.SMS))
    await second.close()
    await first.close()
    third = open_ledger(tmp_path)
    assert [known.request.rid for known in await third.ask(tables.unfinished(Door.SMS))] == ["r1"]
    await third.close()


async def test_a_file_that_cannot_be_used_gives_a_ledger_that_says_why_and_promises_nothing(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"no database" * 100)
    ledger = open_ledger(tmp_path)
    await ledger.start()
    assert "move it away" in ledger.failure
    with pytest.raises(StorageError, match="move it away"):
        await ledger.durable(tables.set_meta("x", 1.0))
    with pytest.raises(StorageError, match="move it away"):
        await ledger.ask(tables.counts())
    ledger.behind(tables.set_meta("x", 1.0))
    assert ledger.missed == 1
    await ledger.close()


async def test_a_cancelled_asker_leaves_its_write_and_the_thread_whole(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    await ledger.start()
    task = asyncio.create_task(ledger.durable(tables.set_meta("x", 1.0)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await ledger.ask(tables.get_meta("x", 0.0)) == 1.0
    await ledger.close()


async def test_jobs_that_come_when_the_loop_is_gone_do_not_end_the_writer(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)

    async def elsewhere() -> None:
        await ledger.start()
        ledger.behind(tables.set_meta("x", 1.0))

    await asyncio.to_thread(asyncio.run, elsewhere())
    assert await ledger.ask(tables.get_meta("x", 0.0)) == 1.0
    await ledger.close()


@pytest.mark.looptime
async def test_the_run_clock_goes_on_where_it_was(tmp_path: Path) -> None:
    for start in range(3):
        disk = AtOnce(tmp_path / "ledger.db")
        ledger = Ledger(disk)
        await ledger.start()
        assert ledger.run == pytest.approx(start * 100.0)
        await asyncio.sleep(100)
        await ledger.durable()
        await asyncio.sleep(0.0)
        disk.close(0)


@pytest.mark.looptime
async def test_a_disk_that_cannot_even_be_read_at_the_start_is_said_and_no_end() -> None:
    disk = AtOnce()
    disk.broken = "disk I/O error"
    ledger = Ledger(disk)
    await ledger.start()
    assert ledger.failure == "disk I/O error"
    ledger.behind(tables.set_meta("x", 1.0))
    assert ledger.missed == 1
    disk.close(0)


PROGRAM = """
    import asyncio, os, signal, sys
    from pathlib import Path
    from atrund.atrun.request import Door, End, Outcome, Request
    from atrund.ledger import open_ledger, tables

    async def main():
        ledger = open_ledger(Path(sys.argv[1]))
        await ledger.start()
        request = Request(rid="r1", door=Door.SMS, peer="+39", line="AT", key="k")
        steps = [
            tables.record(request, ledger.run),
            tables.mark_sent("r1"),
            tables.mark_ended("r1", Outcome(End.OK, final="OK")),
            tables.mark_answered("r1"),
        ]
        for step in steps[: int(sys.argv[2])]:
            await ledger.durable(step)
        os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("steps", "found"),
    [
        (0, []),
        (1, [("recorded", None)]),
        (2, [("sent", None)]),
        (3, [("ended", "ok")]),
        (4, []),
    ],
)
async def test_killed_behind_each_step_the_next_start_finds_it(
    tmp_path: Path, steps: int, found: list[tuple[str, str | None]]
) -> None:
    ended = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", textwrap.dedent(PROGRAM), str(tmp_path), str(steps)),
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert await ended.wait() == -9
    ledger = open_ledger(tmp_path)
    await ledger.start()
    known = await ledger.ask(tables.unfinished(Door.SMS))
    assert [(one.state, one.outcome and one.outcome.end.value) for one in known] == found
    again = await ledger.ask(tables.known_by_key(Door.SMS, "k"))
    assert (again is not None) == (steps > 0)
    await ledger.close()


# What the disk refused.


@contextlib.asynccontextmanager
async def on_a_disk() -> AsyncIterator[tuple[AtOnce, Ledger]]:
    disk = AtOnce()
    ledger = Ledger(disk)
    await ledger.start()
    yield disk, ledger
    disk.broken = ""
    await ledger.close()


def noted(disk: AtOnce) -> list[str]:
    return [line for (line,) in disk.rows("SELECT line FROM audit ORDER BY n")]


def note(line: str) -> Write:
    return audit.note(ts="", rid="", door="mqtt", peer="", line=line, event="")


@pytest.mark.looptime
async def test_what_is_owed_is_written_before_anything_that_is_promised_later() -> None:
    async with on_a_disk() as (disk, ledger):
        disk.broken = "disk full"
        first, second = ledger.owe(note("a"), note("b")), ledger.owe(note("c"))
        with pytest.raises(StorageError):
            await ledger.durable(note("d"))
        await asyncio.sleep(1)
        assert not first.done()
        disk.broken = ""
        await ledger.durable(note("e"))
        assert noted(disk) == ["a", "b", "c", "e"]
        await asyncio.gather(first, second)
        await asyncio.sleep(60)
        assert noted(disk) == ["a", "b", "c", "e"]


@pytest.mark.looptime
async def test_what_is_owed_is_tried_again_by_itself_and_told() -> None:
    async with on_a_disk() as (disk, ledger):
        posted = 0

        def count() -> None:
            nonlocal posted
            posted += 1

        ledger.on_posted = count
        disk.broken = "disk full"
        owed = ledger.owe(note("a"))
        await asyncio.sleep(30)
        assert (owed.done(), noted(disk), posted) == (False, [], 0)
        disk.broken = ""
        await asyncio.wait_for(owed, 6)
        assert (noted(disk), posted) == (["a"], 1)


@pytest.mark.looptime
async def test_what_is_owed_is_handed_over_once_however_many_ask() -> None:
    async with on_a_disk() as (disk, ledger):
        owed = ledger.owe(note("a"))
        disk.hung = True
        tasks = [asyncio.ensure_future(ledger.durable(note(name))) for name in "bcd"]
        await asyncio.sleep(60)
        disk.hung = False
        disk.store.apply(disk.jobs[2:])  # behind those of the start
        await asyncio.gather(owed, *tasks)
        assert noted(disk) == ["a", "b", "c", "d"]


@pytest.mark.looptime
async def test_what_is_owed_is_written_at_the_end() -> None:
    disk = AtOnce()
    ledger = Ledger(disk)
    await ledger.start()
    ledger.owe(note("a"))
    closing, disk.close = disk.close, lambda _timeout: None  # type: ignore[method-assign,assignment]
    await ledger.close()
    assert noted(disk) == ["a"]
    closing(0.0)


@pytest.mark.looptime
async def test_what_can_not_be_written_at_all_is_given_up() -> None:
    async with on_a_disk() as (disk, ledger):
        bad, good = ledger.owe(note("\ud800")), ledger.owe(note("a"))
        await asyncio.gather(bad, good)
        await asyncio.sleep(60)
        assert (noted(disk), ledger.missed) == (["a"], 1)


@pytest.mark.looptime
async def test_what_is_owed_has_a_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "OWED_MAX", 2)
    async with on_a_disk() as (disk, ledger):
        disk.broken = "disk full"
        owed = [ledger.owe(note(str(number))) for number in range(3)]
        assert [one.done() for one in owed] == [False, False, True]
        assert ledger.missed == 1
        disk.broken = ""
        await asyncio.gather(*owed)
        assert noted(disk) == ["0", "1"]
    ledger = Ledger(None, failure="none")
    assert ledger.owe(note("x")).done()
    assert ledger.missed == 1


# How long the daemon was down.


@pytest.mark.looptime
async def test_the_time_for_which_the_daemon_did_not_run_is_known_within_one_boot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk = AtOnce()
    first = Ledger(disk)
    await first.start()
    assert first.down == math.inf
    await first.durable(note("a"))
    await asyncio.sleep(25)
    second = Ledger(disk)
    await second.start()
    assert second.down == pytest.approx(25)
    monkeypatch.setattr(room, "_boot", lambda: "another")
    third = Ledger(disk)
    await third.start()
    assert third.down == math.inf
    monkeypatch.setattr(room, "_boot", lambda: "")
    await third.durable(note("b"))
    fourth = Ledger(disk)
    await fourth.start()
    assert fourth.down == math.inf


def test_a_boot_is_told_from_others_where_the_kernel_says_which(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    room._boot.cache_clear()
    monkeypatch.setattr(room, "_BOOT_ID", tmp_path / "boot_id")
    assert room._boot() == ""
    room._boot.cache_clear()
    (tmp_path / "boot_id").write_text("one\n")
    assert room._boot() == "one"
    room._boot.cache_clear()
