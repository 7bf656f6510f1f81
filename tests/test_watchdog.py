# SPDX-License-Identifier: Apache-2.0
"""The watchdog is fed while the loop is on time and work moves, and not otherwise."""

import asyncio
import time

import pytest

from atrund.atrun.request import Door, Request
from atrund.ledger import Ledger
from atrund.ledger.schema import open_file
from atrund.ledger.writer import Store, Writer
from atrund.runner import STANDSTILL
from atrund.watchdog import feed
from tests.support.virtual import MEMORY, running
from tests.support.waiting import ready


@pytest.mark.looptime
async def test_it_is_fed_at_each_interval_while_all_moves() -> None:
    pings: list[float] = []
    still = ""
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(feed(lambda: pings.append(loop.time()), 10.0, (lambda: "", lambda: still)))
    await asyncio.sleep(25)
    assert pings == [0.0, 10.0, 20.0]
    still = "the disk"
    await asyncio.sleep(20)
    assert len(pings) == 3
    still = ""
    await asyncio.sleep(10)
    assert len(pings) == 4
    task.cancel()


async def test_a_loop_that_was_late_is_not_fed_for() -> None:
    looks, pings, fed = 0, 0, asyncio.Event()

    def look() -> str:
        nonlocal looks
        looks += 1
        return ""

    def ping() -> None:
        nonlocal pings
        pings += 1
        fed.set()

    task = asyncio.create_task(feed(ping, 0.01, (look,)))
    await fed.wait()
    fed.clear()
    time.sleep(0.1)  # noqa: ASYNC251 - it is the loop that is to be held up
    async with asyncio.timeout(10):
        await fed.wait()
    assert looks > pings
    task.cancel()


async def test_a_ledger_whose_thread_has_ended_stands_still() -> None:
    writer = Writer(Store(open_file(MEMORY)))
    ledger = Ledger(writer)
    assert ledger.standstill() == ""
    writer.close(5)
    assert ledger.standstill() == "the ledger's thread has ended"
    assert Ledger(None, failure="no disk").standstill() == ""


@pytest.mark.looptime
async def test_a_request_that_never_ends_stands_still() -> None:
    async with running() as house:
        await ready(house)
        runner = house.daemon.runner
        run = runner.start(Request("r1", Door.LOCAL, "me", "AT+CSQ", timeout=60.0))
        assert runner.standstill(600.0) == ""
        run.begun -= 60.0 + 600.0 + STANDSTILL + 1
        assert runner.standstill(600.0) == "request r1 does not end, for 4260 s"
        await run.outcome
        await asyncio.sleep(0)
        assert runner.standstill(600.0) == ""
