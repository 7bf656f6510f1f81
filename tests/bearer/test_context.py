# SPDX-License-Identifier: Apache-2.0
"""A context of the module as a gate, in virtual time (TCP-14)."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest

from atrund.bearer import Bearer
from atrund.bearer.context import ACTIVATE_AGAIN, BUSY_PAUSE, WATCH, ContextBearer
from atrund.sim.faults import Plant
from tests.support.keeping import Bench, keeping

pytestmark = pytest.mark.looptime


@contextlib.asynccontextmanager
async def watching(cid: int = 1, *, activate: bool = False) -> AsyncIterator[tuple[Bench, ContextBearer]]:
    async with keeping(Bench()) as bench:
        bearer = ContextBearer(cid, activate=activate, channel=lambda: bench.keeper.channel)
        task = asyncio.ensure_future(bearer.run())
        bench.since()
        try:
            yield bench, bearer
        finally:
            assert not task.done()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def plant(bench: Bench, command: str, *lines: str, final: str = "OK", left: int | None = None) -> None:
    bench.module.faults.plant(command, Plant(left=left, lines=lines, final=final))


async def test_it_follows_the_module() -> None:
    async with watching() as (bench, bearer):
        told: list[bool] = []
        bearer.on_change = lambda: told.append(bearer.up)
        plant(bench, "AT#SGACT?", "#SGACT: 1,0", "#SGACT: 2,1")
        await asyncio.sleep(WATCH + 1)
        assert (bearer.up, bearer.detail) == (False, "context 1 is not active")
        plant(bench, "AT#SGACT?", "#SGACT: 2,0", "#SGACT: 1,1")
        await asyncio.sleep(WATCH + 1)
        assert bearer.status() == {"state": "up", "detail": "", "context": 1}
        plant(bench, "AT#SGACT?", "#SGACT: 2,1")
        await asyncio.sleep(WATCH + 1)
        assert (bearer.up, bearer.detail) == (False, "the module shows no context 1")
        assert told == [True, False]
        assert not [line for line in bench.seen if "SGACT=" in line], "a gate alone: nothing is activated"


async def test_it_is_looked_at_at_once_when_somebody_says_so() -> None:
    async with watching() as (bench, bearer):
        plant(bench, "AT#SGACT?", "#SGACT: 1,0")
        await asyncio.sleep(WATCH + 1)
        plant(bench, "AT#SGACT?", "#SGACT: 1,1")
        bearer.look()
        await asyncio.sleep(1)
        assert bearer.up


async def test_a_module_that_is_away_is_no_way_out() -> None:
    async with watching() as (bench, bearer):
        plant(bench, "AT#SGACT?", "#SGACT: 1,1")
        await asyncio.sleep(WATCH + 1)
        assert bearer.up
        bench.line.unplug()
        await asyncio.sleep(WATCH + 1)
        assert (bearer.up, bearer.detail) == (False, "the module is away")


async def test_a_question_without_an_answer_changes_nothing() -> None:
    async with watching() as (bench, bearer):
        plant(bench, "AT#SGACT?", "#SGACT: 1,1")
        await asyncio.sleep(WATCH + 1)
        bench.module.faults.plant("AT#SGACT?", Plant(left=1, seconds=100.0))
        await asyncio.sleep(WATCH + 1)
        assert bearer.up


async def test_others_who_wait_for_the_port_come_first() -> None:
    async with watching() as (bench, bearer):
        bench.module.faults.plant("AT+GMI", Plant(left=1, seconds=40.0))
        plant(bench, "AT#SGACT?", "#SGACT: 1,1")
        await asyncio.sleep(1)
        first, second = (asyncio.ensure_future(bench.ask(line, 60.0)) for line in ("AT+GMI", "AT+GMM"))
        await asyncio.sleep(0.1)
        bench.since()
        bearer.look()
        await asyncio.sleep(20)
        await asyncio.gather(first, second)
        assert next(line for line in bench.seen if line != "AT#SGACT?") == "AT+GMM"
        await asyncio.sleep(BUSY_PAUSE)
        assert "AT#SGACT?" in bench.seen


async def test_it_is_activated_where_that_is_asked_for() -> None:
    async with watching(activate=True) as (bench, bearer):
        plant(bench, "AT#SGACT?", "#SGACT: 1,0", left=1)
        plant(bench, "AT+CGACT?", "+CGACT: 1,0", left=1)
        bench.module.faults.plant("AT#SGACT=1,1", Plant(left=1, lines=("#SGACT: 10.0.0.1",), final="OK"))
        await asyncio.sleep(WATCH + 1)
        assert [line for line in bench.seen if "GACT" in line][-3:] == ["AT#SGACT?", "AT+CGACT?", "AT#SGACT=1,1"]
        assert bearer.up


async def test_somebody_elses_context_is_left_alone() -> None:
    """Active by +CGACT and not by #SGACT: the host's data, or another tenant's."""
    async with watching(activate=True) as (bench, bearer):
        plant(bench, "AT#SGACT?", "#SGACT: 1,0")
        plant(bench, "AT+CGACT?", "+CGACT: 1,1")
        await asyncio.sleep(3600)
        assert not [line for line in bench.seen if "SGACT=" in line]
        assert not bearer.up


async def test_an_activation_that_fails_is_tried_again_with_growing_pauses() -> None:
    async with watching(activate=True) as (bench, bearer):
        times: list[float] = []
        plant(bench, "AT#SGACT?", "#SGACT: 1,0")
        plant(bench, "AT+CGACT?", "+CGACT: 1,0")
        plant(bench, "AT#SGACT=1,1", final="ERROR")
        loop = asyncio.get_running_loop()
        count = 0
        while len(times) < 5:
            await asyncio.sleep(1)
            now = sum(line == "AT#SGACT=1,1" for line in bench.seen)
            if now > count:
                count = now
                times.append(loop.time())
        gaps = [after - before for before, after in pairwise(times)]
        for gap, least in zip(gaps, (*ACTIVATE_AGAIN, ACTIVATE_AGAIN[-1]), strict=True):
            assert least <= gap <= least + WATCH + 2
        assert "could not be activated: ERROR" in bearer.detail or "not active" in bearer.detail


async def test_one_that_is_always_there() -> None:
    bearer = Bearer()
    await bearer.begin()
    bearer.look()
    assert bearer.status() == {"state": "up", "detail": ""}
    task = asyncio.ensure_future(bearer.run())
    await asyncio.sleep(1e6)
    assert bearer.up
    assert not task.done()
    task.cancel()
