# SPDX-License-Identifier: Apache-2.0
import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atrund.module.neighbours import EVERY, SETTLE, Neighbours
from tests.support.keeping import no_threads

pytestmark = pytest.mark.looptime


class Bench:
    def __init__(self) -> None:
        self.paths = ["/dev/ttyUSB2", ""]
        self.there: dict[str, tuple[str, ...]] = {}
        self.looked: list[float] = []
        self.changes = 0
        self.neighbours = Neighbours(paths=lambda: self.paths, on_change=self.changed, look=self.look)

    def changed(self) -> None:
        self.changes += 1

    def look(self, path: Path) -> tuple[str, ...]:
        self.looked.append(asyncio.get_running_loop().time())
        return self.there.get(str(path), ())


@contextlib.asynccontextmanager
async def looking() -> AsyncIterator[Bench]:
    no_threads()
    bench = Bench()
    task = asyncio.create_task(bench.neighbours.run())
    yield bench
    assert not task.done()
    task.cancel()


async def test_it_looks_once_a_port_has_settled_and_then_hourly() -> None:
    async with looking() as bench:
        bench.neighbours.look_soon()
        await asyncio.sleep(SETTLE - 1)
        assert bench.looked == []
        await asyncio.sleep(3 * EVERY)
        assert len(bench.looked) == 3
        assert bench.changes == 0


async def test_what_is_seen_is_said_once_and_told(capsys: pytest.CaptureFixture[str]) -> None:
    async with looking() as bench:
        bench.there["/dev/ttyUSB2"] = ("ModemManager has it",)
        bench.neighbours.look_soon()
        await asyncio.sleep(5 * EVERY)
        assert list(bench.neighbours.seen) == ["ModemManager has it"]
        changes = bench.changes
        assert changes == 1
        assert capsys.readouterr().out.count("somebody else at the port") == 1
        bench.there.clear()
        await asyncio.sleep(2 * EVERY)
        assert list(bench.neighbours.seen) == []
        assert bench.changes == changes + 1
        bench.there["/dev/ttyUSB2"] = ("ModemManager has it",)
        await asyncio.sleep(2 * EVERY)
        assert capsys.readouterr().out.count("somebody else at the port") == 1, "it came again"


async def test_all_ports_are_looked_at() -> None:
    async with looking() as bench:
        bench.paths = ["/dev/ttyUSB2", "/dev/ttyUSB3"]
        bench.there = {"/dev/ttyUSB2": ("a",), "/dev/ttyUSB3": ("b", "c")}
        bench.neighbours.look_soon()
        await asyncio.sleep(SETTLE + 1)
        assert bench.neighbours.seen == ("a", "b", "c")
