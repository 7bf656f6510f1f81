# SPDX-License-Identifier: Apache-2.0
import asyncio
import os
import sqlite3
import sys
import textwrap
from pathlib import Path

import pytest

from atrund.atrun.request import Door, Request
from atrund.ledger import Ledger, StorageError, open_ledger, tables
from atrund.ledger.schema import open_file
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
