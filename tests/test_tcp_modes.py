# SPDX-License-Identifier: Apache-2.0
"""TCP ATRUN as a service: with its bearer and without, across restarts, one mode at a time (TCP-1, TCP-14)."""

import asyncio
import random
from dataclasses import replace
from typing import Any

import pytest

from atrund import making
from atrund.atrun.request import Door, End, Reason
from atrund.config.values import Config, Sms, Tcp, TcpBearer, TcpClient
from atrund.doors.tcp import TcpDoor
from atrund.sim.faults import Plant
from atrund.sim.module import SimModule
from atrund.sim.state import Options
from tests.support.asking import outcome, said
from tests.support.calling import HERE, calling, door
from tests.support.far_end import FarEnd, called, calls_out
from tests.support.lives import Lives
from tests.support.virtual import House, config, running
from tests.support.waiting import ready, status, until

pytestmark = pytest.mark.looptime

GATE = TcpBearer(context=1)


def context(module: SimModule, state: int) -> None:
    """Have the module say that context 1 is (not) active."""
    module.faults.plant("AT#SGACT?", Plant(left=None, lines=(f"#SGACT: 1,{state}",), final="OK"))


async def change(house: House, state: int) -> None:
    context(house.module, state)
    await asyncio.sleep(31)


async def test_the_server_listens_while_the_bearer_is_up() -> None:
    async with door(bearer=GATE) as house:
        assert (await status(house))["bearer"] == {"state": "down", "detail": "context 1 is not active", "context": 1}
        assert await said(house, "AT#TCPATRUNL?") == ["#TCPATRUNL: 1,0", "OK"]
        found = await outcome(house, "AT#TCPATRUNL=1")
        assert (found.end, found.reason) == (End.ERROR, Reason.BUSY)
        assert found.detail == "the bearer is not up: context 1 is not active"
        await change(house, 1)
        assert await said(house, "AT#TCPATRUNL?") == ["#TCPATRUNL: 1,1", "OK"]
        async with calling(house) as caller:
            await caller.ask(b"AT\r")
            await change(house, 0)
            assert await caller.rest() == b""
        assert house.daemon.tcp is None
        assert await said(house, "AT#TCPATRUNL?") == ["#TCPATRUNL: 1,0", "OK"]
        await change(house, 1)
        async with calling(house) as caller:
            await caller.ask(b"AT\r")


async def test_a_server_that_is_off_stays_off_when_the_bearer_comes() -> None:
    async with running(config(tcp=Tcp(port=0, firewall=(HERE,), bearer=GATE), sms=Sms())) as house:
        await ready(house)
        await change(house, 1)
        assert house.daemon.tcp is None
        assert await said(house, "AT#TCPATRUNL=1") == ["OK"]
        assert house.daemon.tcp is not None


async def test_a_server_that_is_switched_off_while_it_opens_does_not_stay_open(monkeypatch: pytest.MonkeyPatch) -> None:
    start = TcpDoor.start

    async def slowly(self: TcpDoor) -> None:
        await start(self)
        await asyncio.sleep(2)  # its certificates are read

    async with door(bearer=GATE) as house:
        monkeypatch.setattr(TcpDoor, "start", slowly)
        context(house.module, 1)
        house.daemon.services.bearer.look()
        await until(lambda: house.daemon.services.bearer.up)
        await asyncio.sleep(0.5)
        assert await said(house, "AT#TCPATRUNL=0") == ["OK"]
        await asyncio.sleep(5)
        assert await said(house, "AT#TCPATRUNL?") == ["#TCPATRUNL: 0,0", "OK"]
        assert house.daemon.tcp is None


@pytest.mark.parametrize("end", ["AT#TCPATRUNCLOSE", ""])
async def test_a_session_of_a_door_that_was_switched_off_is_still_in_reach(end: str) -> None:
    """It waits for its answer; TCP-10 and an operator end it all the same."""
    async with door() as house, calling(house) as caller:
        house.module.faults.plant("AT+GMI", Plant(seconds=50.0))
        caller.writer.write(b"AT+GMI\r")
        await until(lambda: house.wire.seen.count("AT+GMI"))
        asked = asyncio.create_task(said(house, "AT#TCPATRUNL=0"))
        await until(lambda: house.daemon.tcp is None)
        if end:
            assert await said(house, end) == ["OK"]
        else:
            await house.daemon.services.close(Door.TCP)
        assert await caller.rest() == b"AT+GMI\r"
        assert [line for line, how, _ in house.outcomes if how == "cancelled"] == ["AT+GMI"]
        assert await asked == ["OK"]


async def test_the_client_calls_while_the_bearer_is_up() -> None:
    async with called(Tcp(bearer=GATE)) as (house, far):
        assert await said(house, "AT#TCPATRUND?") == ["#TCPATRUND: 1,2", "OK"]
        found = await outcome(house, "AT#TCPATRUND=1")
        assert found.detail == "the bearer is not up: context 1 is not active"
        await asyncio.sleep(7200)
        assert far.calls == []
        await change(house, 1)
        call = await far.call()
        await call.ask(b"AT\r")
        await change(house, 0)
        assert await call.rest() == b""
        assert await said(house, "AT#TCPATRUND?") == ["#TCPATRUND: 1,2", "OK"]
        await asyncio.sleep(7200)
        assert len(far.calls) == 1
        await change(house, 1)
        await far.call()


async def test_the_bearer_that_comes_back_fills_the_retries_up() -> None:
    async with called(Tcp(bearer=GATE), listens=False, redial=0.0, retries=0) as (house, far):
        await change(house, 1)
        await asyncio.sleep(7200)
        assert await said(house, "AT#TCPATRUND?") == ["#TCPATRUND: 1,0", "OK"]
        await far.listen()
        await change(house, 0)
        await change(house, 1)
        await far.call()


async def test_note_3_3_client_mode_starts_by_itself_at_every_start_up() -> None:
    """80000NT10029a 3.3.1: switched on once, OK when connected, and again at every start; refused, it retries."""
    far = FarEnd()
    await far.listen()
    lives = Lives(config(sms=Sms()))
    house = await lives.start()
    line = f'AT#TCPATRUNCFG=1,2,1024,{far.port},"127.0.0.1",1,5,1,5,2'
    assert await said(house, line) == ["OK"]
    assert await said(house, "AT#TCPATRUND=1") == ["OK"]
    call = await far.call()
    assert await call.ask(b"AT+GMI\r") == b"AT+GMI\r\r\nTelit\r\n\r\nOK\r\n"
    await lives.kill()
    call.writer.transport.abort()
    far.deaf()
    house = await lives.start()
    assert await said(house, "AT#TCPATRUND?") == ["#TCPATRUND: 1,2", "OK"]
    assert await said(house, "AT#TCPATRUNCFG?") == [line.replace("AT#TCPATRUNCFG=", "#TCPATRUNCFG: "), "OK"]
    await far.listen()
    await far.call(within=130)
    assert await said(house, "AT#TCPATRUND?") == ["#TCPATRUND: 1,1", "OK"]
    await lives.end()
    far.close()


async def test_note_3_3_again_after_the_module_was_rebooted() -> None:
    """80000NT10029a 3.3.1: the same after a deactivation by the network and a SIM that was taken out."""
    far = FarEnd()
    await far.listen()
    async with running(calls_out(far, Tcp(bearer=GATE)), module=SimModule(Options())) as house:
        await ready(house)
        await change(house, 1)
        await far.call()
        house.wire.absent = "no such device"
        house.wire.lose()
        await asyncio.sleep(31)
        assert await said(house, "AT#TCPATRUND?") == ["#TCPATRUND: 1,2", "OK"]
        house.wire.absent = ""
        await far.call(within=120)
    far.close()


def given(far: FarEnd, **options: Any) -> Config:  # noqa: ANN401 - any option
    return config(tcp=Tcp(client=TcpClient(host="127.0.0.1", port=far.port, **options)), sms=Sms())


async def test_a_file_read_anew_switches_it_on_and_off() -> None:
    far = FarEnd()
    await far.listen()
    async with running(given(far)) as house:
        await ready(house)
        services, nvm = house.daemon.services, house.daemon.nvm
        for on in (True, False):
            before = nvm.settings
            nvm.rebase(before.changed({"tcp.client.enabled": on}))
            assert await services.catch_up(before) == ""
            assert house.daemon.nvm.settings.tcp.client.enabled is on
            if on:
                call = await far.call()
                await call.ask(b"AT\r")
        assert await call.rest() == b""
        assert (await status(house))["tcp_client"]["state"] == "off"
    far.close()


async def test_a_daemon_that_stops_hangs_up() -> None:
    async with called() as (_, far):
        call = await far.call()
        await call.ask(b"AT\r")
    assert await call.rest() == b""


async def test_a_daemon_that_stops_in_the_middle_of_a_call() -> None:
    async with called(enabled=False) as (house, _):
        client = house.daemon.services.client = house.daemon.services._make_client()
        dropped = asyncio.Event()

        async def hangs(*_: object) -> None:
            try:
                await asyncio.sleep(1e6)
            finally:
                dropped.set()

        client._open = hangs
        asking = asyncio.ensure_future(outcome(house, "AT#TCPATRUND=1"))
        await asyncio.sleep(1)
        await house.daemon.services.close_tcp()
        assert "given up" in (await asking).detail
        await until(dropped.is_set)


async def test_the_interface_of_the_bearer_is_the_one_that_is_listened_on() -> None:

    tcp = Tcp(trusted_interfaces=("wg0",))
    assert making.interfaces(tcp) == ("wg0",)
    assert making.interfaces(replace(tcp, insecure=True)) == ()
    assert making.interfaces(replace(tcp, insecure=True, bearer=TcpBearer(interface="wwan0"))) == ("wwan0",)


async def buffet(chance: random.Random, house: House, far: FarEnd) -> list[asyncio.Future[list[str]]]:
    """Let things happen at random moments, and leave the far end listening; returns the commands that were asked."""
    bearer = house.daemon.services.bearer
    asked: list[asyncio.Future[list[str]]] = []
    listens, up = True, False
    for _ in range(120):
        match chance.randrange(8):
            case 0:
                up = not up
                context(house.module, int(up))
                bearer.look()
            case 1 if listens:
                far.deaf()
                listens = False
            case 1:
                await far.listen()
                listens = True
            case 2:
                asked.append(asyncio.ensure_future(said(house, f"AT#TCPATRUND={chance.randrange(2)}")))
            case 3:
                asked.append(asyncio.ensure_future(said(house, "AT#TCPATRUNCLOSE")))
            case 4 if far.calls:
                far.calls[-1].writer.write(b"AT\r")
            case 5 if far.calls:
                far.calls[-1].writer.transport.abort()
            case 6:
                far.drops = not far.drops
        await asyncio.sleep(chance.choice((0, 0, 0.01, 0.3, 5, 70, 700)))
        client = house.daemon.services.client
        assert client is not None
        assert not client.is_up or bearer.up
    far.drops = False
    if not listens:
        await far.listen()
    context(house.module, 1)
    bearer.look()
    return asked


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_happens_it_ends_up_where_its_setting_says(seed: int) -> None:
    """A far end that comes, goes, hangs up and is silent; a bearer that flaps; commands at any moment."""
    tcp = Tcp(bearer=GATE, idle_timeout=300.0)
    async with called(tcp, retries=2, retry_delay=60.0, redial=600.0) as (house, far):
        asked = await buffet(random.Random(seed), house, far)  # noqa: S311 - no secret
        await asyncio.sleep(1)
        await said(house, "AT#TCPATRUND=1")
        await asyncio.gather(*asked)
        await asyncio.sleep(1)
        assert await said(house, "AT#TCPATRUND?") == ["#TCPATRUND: 1,1", "OK"]
        far.calls[-1].writer.write(b"AT+GMI\r")
        async with asyncio.timeout(10):
            await far.calls[-1].reader.readuntil(b"Telit")
        assert await said(house, "AT#TCPATRUND=0") == ["OK"]
        await asyncio.sleep(10)
        count = len(far.calls)
        await asyncio.sleep(86400)
        assert len(far.calls) == count
        assert await said(house, "AT#TCPATRUND?") == ["#TCPATRUND: 0,0", "OK"]
