# SPDX-License-Identifier: Apache-2.0
"""A stop: what runs may end whichever door it came by, nobody new is let in, and the port is left in step."""

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial

import pytest

from atrund.atrun.request import Door, End, Reason
from atrund.config.values import Sms
from atrund.daemon import STOP_GRACE
from atrund.modem import REST
from atrund.sim.faults import Plant
from atrund.sim.port import SimPort
from tests.support.asking import start
from tests.support.calling import calling, door
from tests.support.virtual import House, config, running
from tests.support.waiting import ready

pytestmark = pytest.mark.looptime

QUIET = config(sms=Sms())


async def stop(house: House) -> float:
    """Stop the daemon; returns how many seconds that took."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    await house.daemon.stop()
    return loop.time() - began


async def test_who_is_in_over_tcp_has_the_answer_of_the_command_that_runs_and_nothing_behind_it() -> None:
    async with door() as house, calling(house) as caller:
        assert house.daemon.tcp is not None
        port = house.daemon.tcp.ports[0]
        await caller.ask(b"AT\r")
        house.module.faults.plant("+CSQ", Plant(seconds=6))
        caller.writer.write(b"AT+CSQ\rAT+GMI\r")
        await asyncio.sleep(1)
        stopping = asyncio.ensure_future(stop(house))
        await asyncio.sleep(1)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        assert (await caller.rest()).endswith(b"+CSQ: 14,99\r\n\r\nOK\r\n")
        assert await stopping == pytest.approx(5, abs=0.5)
        assert b"AT+GMI\r" not in house.wire.written


async def test_a_session_that_runs_nothing_ends_at_once() -> None:
    async with door() as house, calling(house) as caller:
        await caller.ask(b"AT\r")
        assert await stop(house) < 0.5
        assert await caller.rest() == b""


async def test_a_command_past_the_grace_is_left_and_the_port_is_in_step_before_it_is_closed() -> None:
    async with running(QUIET) as house:
        await ready(house)
        house.module.faults.plant("+CSQ", Plant(seconds=STOP_GRACE + 3))
        run = start(house, "AT+CSQ", Door.LOCAL)
        await asyncio.sleep(1)
        took = await stop(house)
        outcome = await run.outcome
        assert outcome is not None
        assert (outcome.end, outcome.reason) == (End.CANCELLED, Reason.SHUTDOWN)
        assert STOP_GRACE < took < STOP_GRACE + REST
        assert house.wire.written[-1] == b"AT+CMGF?\r", "what it asks to see whether answers fit"


async def test_a_module_that_never_ends_is_not_waited_for() -> None:
    async with running(QUIET) as house:
        await ready(house)
        house.module.faults.plant("+CSQ", Plant(seconds=1000))
        start(house, "AT+CSQ", Door.LOCAL)
        await asyncio.sleep(1)
        assert await stop(house) == pytest.approx(STOP_GRACE + REST, abs=0.5)
        assert house.module.ports == []


async def test_whenever_it_is_stopped_no_command_is_under_way_when_the_port_is_closed() -> None:
    """The daemon's own ones, a sweep and an SMS among them."""
    for moment in range(60):
        async with running() as house:
            await ready(house)
            house.sms("AT+CSQ")
            await asyncio.sleep(moment * 0.03)
            (port,), end, busy = house.module.ports, house.wire.end, asyncio.Queue[bool]()
            assert end is not None
            end.close = partial(_close, end.close, port, busy)  # type: ignore[method-assign]
            await house.daemon.stop()
            assert not busy.get_nowait(), moment


def _close(close: Callable[[], None], port: SimPort, busy: asyncio.Queue[bool]) -> None:
    busy.put_nowait(port.busy)
    close()


async def test_a_stop_hears_of_no_port_at_all() -> None:
    async with running(QUIET) as house:
        house.wire.absent = "No such device"
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 0.1)
        assert await stop(house) < 1
