# SPDX-License-Identifier: Apache-2.0
import asyncio

import pytest

from atrund.timer import Timer

pytestmark = pytest.mark.looptime


class Noting:
    """A timer, and when it called."""

    def __init__(self) -> None:
        self.timer = Timer()
        self.rung: list[float] = []

    def start(self, seconds: float) -> None:
        self.timer.start(seconds, lambda: self.rung.append(round(asyncio.get_running_loop().time(), 3)))


async def test_it_calls_once_when_its_time_is_over() -> None:
    it = Noting()
    it.start(5)
    await asyncio.sleep(20)
    assert it.rung == [5]


@pytest.mark.parametrize(("second", "rings"), [(5, 6), (2, 3), (60, 61)])
async def test_the_last_start_counts_whether_it_is_due_before_or_behind_the_first(second: float, rings: float) -> None:
    it = Noting()
    it.start(5)
    await asyncio.sleep(1)
    it.start(second)
    await asyncio.sleep(100)
    assert it.rung == [rings]


async def test_stopped_it_calls_nothing_and_can_be_started_again() -> None:
    it = Noting()
    it.start(5)
    it.timer.stop()
    await asyncio.sleep(10)
    it.start(5)
    await asyncio.sleep(1)
    it.timer.stop()
    it.start(1)
    await asyncio.sleep(10)
    assert it.rung == [12]


async def test_nothing_is_called_for_0_nor_what_was_to_be_before() -> None:
    it = Noting()
    it.start(5)
    it.start(0)
    await asyncio.sleep(10)
    assert it.rung == []


async def test_closed_it_leaves_nothing_in_the_event_loop() -> None:
    it = Noting()
    it.start(5)
    handle = it.timer._handle
    assert handle is not None
    it.timer.close()
    assert handle.cancelled()
    await asyncio.sleep(10)
    assert it.rung == []
    it.timer.close()


async def test_put_off_it_costs_no_new_timer() -> None:
    it = Noting()
    it.start(5)
    first = it.timer._handle
    for _ in range(10):
        it.start(5)
        await asyncio.sleep(0.1)
    assert it.timer._handle is first
    await asyncio.sleep(10)
    assert it.rung == [5.9]


@pytest.mark.parametrize("seconds", [1.0, 5.0, 9.0])
async def test_what_it_calls_may_start_it_again(seconds: float) -> None:
    it = Noting()
    rung = it.rung

    def again() -> None:
        rung.append(asyncio.get_running_loop().time())
        it.start(seconds)

    it.timer.start(5, again)
    await asyncio.sleep(100)
    assert rung == [5, 5 + seconds]
