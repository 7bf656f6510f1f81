# SPDX-License-Identifier: Apache-2.0
"""The daemon with a terminal and a simulated module, in a thread of its own, for other people's programs."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest
import structlog

from atrund.config.values import Module, Sms
from atrund.doors.terminal import TerminalDoor, TerminalRules
from tests.support.virtual import PORT, House, config, running
from tests.support.waiting import ready

T = TypeVar("T")

HERE = Path(__file__).parent
PATIENCE = 30.0
"""Seconds after which what was waited for counts as missing."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.blackbox)


@dataclass
class Terminal:
    """A terminal at `link`; what is looked at in `house` is looked at in its own thread."""

    link: Path
    house: House
    door: TerminalDoor
    loop: asyncio.AbstractEventLoop

    def look(self, what: Callable[[], T]) -> T:
        async def there() -> T:
            return what()

        return asyncio.run_coroutine_threadsafe(there(), self.loop).result(PATIENCE)

    @property
    def seen(self) -> list[str]:
        """The command lines that reached the module."""
        return self.look(lambda: self.house.wire.seen)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    """A terminal of instance 1, behind which the module is ready."""
    found: list[Terminal] = []
    is_up = threading.Event()
    ended: list[BaseException] = []

    async def serve() -> None:
        stop = asyncio.Event()
        module = Module(port=PORT, telemetry=0.0, gap=0.0)
        async with running(config(sms=Sms(), module=module), until=None) as house:
            await ready(house)
            rules = TerminalRules(((1, tmp_path / "at1"),), group="")
            own, instances = house.daemon.own, house.daemon.instances
            door = TerminalDoor(rules, runner=house.daemon.runner, instances=instances, interface=own.interface)
            await door.start()
            found.append(Terminal(tmp_path / "at1", house, door, asyncio.get_running_loop()))
            stops.append(stop.set)
            is_up.set()
            await stop.wait()
            await door.close()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:  # noqa: BLE001 - it is the test's to show
            ended.append(error)
        finally:
            is_up.set()

    stops: list[Callable[[], None]] = []
    thread = threading.Thread(target=run, name="daemon")
    # The thread also logs while pytest captures nothing, between a test and what is around it.
    with structlog.testing.capture_logs() as logged:
        thread.start()
        assert is_up.wait(PATIENCE)
        if ended:
            raise ended[0]
        try:
            yield found[0]
        finally:
            found[0].loop.call_soon_threadsafe(stops[0])
            thread.join(PATIENCE)
    for entry in logged:
        print(entry)
    if ended:
        raise ended[0]
