# SPDX-License-Identifier: Apache-2.0
"""Client mode in virtual time: calls, retries, token, and what is written down (TCP-11, TCP-12, TCP-13)."""

import asyncio
import contextlib
import json
from itertools import pairwise

import pytest

from atrund.atrun.request import Door
from atrund.atrun.secrets import Secret
from atrund.config.values import Tcp
from atrund.doors import client as room
from atrund.doors.dialling import Make, open_call
from tests.support.asking import outcome, said
from tests.support.far_end import called
from tests.support.virtual import House
from tests.support.waiting import status, until

pytestmark = pytest.mark.looptime

TOKEN = "0123456789abcdef-token"
MINUTE = 60.0


async def stat(house: House) -> str:
    return (await said(house, "AT#TCPATRUND?"))[0]


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_it_calls_at_the_start_and_is_the_at_interface() -> None:
    """TCP-1, TCP-4: nothing is sent before the far end says something, and what it says is run."""
    async with called() as (house, far):
        call = await far.call()
        assert await call.ask(b"AT+GMI\r") == b"AT+GMI\r\r\nTelit\r\n\r\nOK\r\n"
        assert await stat(house) == "#TCPATRUND: 1,1"
        assert house.told[-1] == ("connected", None)
        found = (await status(house))["tcp_client"]
        assert (found["state"], found["peer"], found["port"]) == ("up", "127.0.0.1", far.port)
        assert json.dumps(found)


async def test_switching_it_on_answers_once_it_is_connected() -> None:
    async with called(enabled=False) as (house, far):
        assert await stat(house) == "#TCPATRUND: 0,0"
        assert await said(house, "AT#TCPATRUND=1") == ["OK"]
        assert await stat(house) == "#TCPATRUND: 1,1"
        call = await far.call()
        assert await said(house, "AT#TCPATRUND=1") == ["OK"], "it is up"
        assert await said(house, "AT#TCPATRUND=0") == ["OK"]
        assert await call.rest() == b""
        assert await stat(house) == "#TCPATRUND: 0,0"
        await asyncio.sleep(86400)
        assert len(far.calls) == 1


async def test_a_first_call_that_fails_is_an_error_and_stays_switched_on() -> None:
    """commands.md 12: ERROR, mod stays 1, the first retry after one retryDelay."""
    async with called(enabled=False, listens=False, retries=1) as (house, far):
        begun = now()
        assert await said(house, "AT#TCPATRUND=1") == ["+CME ERROR: 2"]
        assert "refused" in (await outcome(house, "AT#TCPATRUND=1")).detail
        assert await stat(house) == "#TCPATRUND: 1,2"
        assert ("call failed", f"127.0.0.1 port {far.port}: Connection refused") in house.told
        await far.listen()
        await far.call(within=10 * MINUTE)
        assert far.at[0] - begun == pytest.approx(2 * MINUTE, abs=1)
        assert await stat(house) == "#TCPATRUND: 1,1"


async def test_a_far_end_that_does_not_answer_is_given_up_after_conn_to() -> None:
    """#SCFG's connTo, in tenths of a second."""
    async with called(enabled=False) as (house, _):
        tried = asyncio.Event()

        async def hangs(*_: object) -> None:
            tried.set()
            await asyncio.sleep(1e6)

        await said(house, "AT#SCFG=1,1,300,90,150,50")
        assert house.daemon.nvm.settings.tcp.own_socket.connect_timeout == 15.0
        house.daemon.services.client = client = house.daemon.services._make_client()
        client._open = lambda far, make: open_call(far, make, hangs)  # type: ignore[arg-type]
        begun = now()
        found = await outcome(house, "AT#TCPATRUND=1")
        assert "no answer within 15 s" in found.detail
        assert now() - begun == pytest.approx(15, abs=0.5)


async def test_a_setting_is_not_held_up_by_a_call() -> None:
    async with called(enabled=False) as (house, _):
        house.daemon.services.client = client = house.daemon.services._make_client()

        async def hangs(*_: object) -> None:
            await asyncio.sleep(1e6)

        client._open = hangs
        asking = asyncio.ensure_future(outcome(house, "AT#TCPATRUND=1"))
        await asyncio.sleep(1)
        assert await stat(house) == "#TCPATRUND: 1,1", "it connects at the socket level"
        as_well = asyncio.ensure_future(said(house, "AT#TCPATRUND=1"))
        await asyncio.sleep(1)
        assert not as_well.done(), "OK means that it is connected"
        assert await said(house, "AT#TCPATCMDSEQ=1") == ["OK"]
        assert await said(house, "AT#TCPATRUND=0") == ["OK"]
        assert "given up" in (await asking).detail
        assert await as_well == ["+CME ERROR: 2"]
        assert await stat(house) == "#TCPATRUND: 0,0"


async def test_retries_then_slowly_for_ever() -> None:
    """TCP-11: retryCnt times retryDelay apart, then every tcp.client.redial, a tenth more or less."""
    async with called(retries=2, retry_delay=180.0, redial=1800.0) as (house, far):
        call = await far.call()
        await call.ask(b"AT\r")
        far.deaf()
        times = []
        client = house.daemon.services.client
        assert client is not None
        really = client._open

        async def noted(*given: object) -> None:
            times.append(now())
            await really(*given)  # type: ignore[arg-type]

        client._open = noted
        lost = now()
        call.writer.close()
        await asyncio.sleep(3 * 3600)
        gaps = [after - before for before, after in zip([lost, *times], times, strict=False)]
        assert gaps[:3] == pytest.approx([0, 180, 180], abs=1)
        assert all(1800 * 0.9 - 1 <= gap <= 1800 * 1.1 + 1 for gap in gaps[3:])
        assert len(gaps) >= 6
        assert await stat(house) == "#TCPATRUND: 1,2"
        await far.listen()
        call = await far.call(within=2000)
        await call.ask(b"AT\r")
        call.writer.close()
        await far.call()
        assert (await status(house))["tcp_client"]["retries_left"] == 2, "a session that got through fills it up"


async def test_the_vendors_way_gives_up() -> None:
    async with called(listens=False, retries=1, redial=0.0) as (house, far):
        await asyncio.sleep(119)
        assert await stat(house) == "#TCPATRUND: 1,2"
        await asyncio.sleep(2)
        assert await stat(house) == "#TCPATRUND: 1,0"
        await far.listen()
        await asyncio.sleep(86400)
        assert far.calls == []
        assert await said(house, "AT#TCPATRUND=1") == ["OK"], "until somebody says so"


@pytest.mark.parametrize("how", ["lost", "idle", "closed"])
async def test_what_ends_is_called_again_at_once(how: str) -> None:
    async with called(Tcp(idle_timeout=100.0)) as (house, far):
        call = await far.call()
        await call.ask(b"AT\r")
        begun = now()
        if how == "lost":
            call.writer.transport.abort()
        elif how == "closed":
            assert await said(house, "AT#TCPATRUNCLOSE") == ["OK"]
        await call.rest()
        again = await far.call(within=200)
        assert far.at[1] - begun == pytest.approx(100 if how == "idle" else 0, abs=1)
        assert await again.ask(b"AT\r") == b"AT\r\r\nOK\r\n"
        assert await stat(house) == "#TCPATRUND: 1,1"


async def test_the_session_itself_may_close_it_or_switch_it_off() -> None:
    """TCP-10, and the answer of what switches off comes first."""
    async with called() as (house, far):
        call = await far.call()
        call.writer.write(b"AT#TCPATRUNCLOSE\r")
        await call.rest()
        call = await far.call()
        call.writer.write(b"AT#TCPATRUND=0\r")
        assert await call.rest() == b"AT#TCPATRUND=0\r\r\nOK\r\n"
        await asyncio.sleep(7200)
        assert len(far.calls) == 2
        assert await stat(house) == "#TCPATRUND: 0,0"


async def test_a_far_end_that_takes_calls_and_drops_them_is_not_called_for_ever() -> None:
    async with called(retries=1, redial=1800.0, drops=True) as (_, far):
        await asyncio.sleep(1000)
        gaps = [after - before for before, after in pairwise(far.at)]
        assert gaps == pytest.approx([0, 120], abs=1)


async def test_a_far_end_that_asks_one_thing_and_hangs_up_is_called_with_pauses() -> None:
    async with called() as (_, far):
        for _ in range(4):
            call = await far.call()
            await call.ask(b"AT\r")
            call.writer.close()
        gaps = [after - before for before, after in pairwise(far.at)]
        assert gaps == pytest.approx([0, room.AGAIN_GAP, room.AGAIN_GAP], abs=0.5)


async def test_whoever_is_silent_for_a_while_got_through_too() -> None:
    async with called(retries=0, redial=0.0) as (_, far):
        for _ in range(3):
            call = await far.call()
            await asyncio.sleep(room.STEADY + 1)
            call.writer.close()
        await far.call()


async def test_the_token_is_the_first_line() -> None:
    """TCP-13: nothing is sent or run before it."""
    async with called(token=Secret(TOKEN)) as (house, far):
        call = await far.call()
        call.writer.write(TOKEN.encode() + b"\r")
        assert await call.ask(b"AT+GMI\r") == b"AT+GMI\r\r\nTelit\r\n\r\nOK\r\n"
        assert ("token right", None) in house.told
        assert TOKEN not in str(house.disk.rows("SELECT * FROM audit"))


@pytest.mark.parametrize(
    "typed",
    [
        b"AT+GMI\r",
        TOKEN.encode()[:-1] + b"\rAT+GMI\r",
        TOKEN.encode() + b"x\rAT+GMI\r",
        b"\r" + TOKEN.encode() + b"\rAT+GMI\r",
        b"\xff\xfb\x01wrong\r",
    ],
)
async def test_a_wrong_token_closes_and_nothing_is_run(typed: bytes) -> None:
    async with called(token=Secret(TOKEN)) as (house, far):
        call = await far.call()
        house.wire.written.clear()
        call.writer.write(typed)
        assert await call.rest() == b""
        assert ("token refused", "auth") in house.told
        assert not any(b"GMI" in data for data in house.wire.written)
        assert house.outcomes == []


@pytest.mark.parametrize("typed", [b"", TOKEN.encode()])
async def test_a_token_that_does_not_come(typed: bytes) -> None:
    async with called(token=Secret(TOKEN)) as (house, far):
        call = await far.call()
        call.writer.write(typed)
        begun = now()
        assert await call.rest() == b""
        assert now() - begun == pytest.approx(60, abs=0.5)
        assert ("disconnected", "auth") in house.told


async def test_wrong_tokens_use_the_retries_up() -> None:
    async with called(token=Secret(TOKEN), retries=0, redial=0.0) as (house, far):
        for _ in range(2):
            (await far.call()).writer.write(b"wrong\r")
        await asyncio.sleep(3600)
        assert len(far.calls) == 2
        assert await stat(house) == "#TCPATRUND: 1,0"


async def test_the_unsolicited_codes() -> None:
    """TCP-12, at the instance that switched it on (CMD-3)."""
    async with called(enabled=False) as (house, far):
        heard: list[str] = []
        with house.daemon.instances.listening(3, heard.extend):
            assert await said(house, "AT#TCPATRUND=1", instance=3) == ["OK"]
            call = await far.call()
            call.writer.close()
            await until(lambda: len(heard) >= 2)
        assert heard[:2] == ["#TCPATRUN: 127.0.0.1", "#TCPATRUN: <DISCONNECT>"]


async def test_one_mode_at_a_time() -> None:
    """CMD-2."""
    async with called() as (house, far):
        await far.call()
        assert await said(house, "AT#TCPATRUNL=1") == ["+CME ERROR: 3"]
        assert await said(house, 'AT#TCPATRUNCFG=1,2,1024,1024,"127.0.0.1"') == ["+CME ERROR: 3"]


async def test_it_starts_by_itself_at_the_next_start() -> None:
    """NVM: what a command switched on."""
    async with called(enabled=False) as (house, far):
        assert await said(house, f'AT#TCPATRUNCFG=1,2,1024,{far.port},"localhost"') == ["OK"]
        await said(house, "AT#TCPATRUND=1")
        settings = house.daemon.nvm.settings.tcp.client
        assert (settings.enabled, settings.host) == (True, "localhost")


async def test_an_operator_closes_the_door_and_opens_it() -> None:
    async with called() as (house, far):
        call = await far.call()
        await house.daemon.services.close(Door.TCP)
        assert await call.rest() == b""
        assert "an operator closed" in (await outcome(house, "AT#TCPATRUND=1")).detail
        await asyncio.sleep(7200)
        assert len(far.calls) == 1
        assert await house.daemon.services.open(Door.TCP) == ""
        await far.call()


async def test_another_far_end_is_called_at_once() -> None:
    """The file was read anew, or settings were put back."""
    async with called() as (house, far):
        call = await far.call()
        client = house.daemon.services.client
        assert client is not None
        client.follow()
        assert await call.ask(b"AT\r") == b"AT\r\r\nOK\r\n", "nothing changed"
        before = house.daemon.nvm.settings
        house.daemon.nvm.settings = before.changed({"tcp.client.host": "::ffff:127.0.0.1"})
        house.daemon.services.follow(before)
        assert await call.rest() == b""
        await far.call()


async def test_a_call_that_comes_through_when_it_was_given_up_already() -> None:
    async with called(enabled=False) as (house, far):
        client = house.daemon.services.client = house.daemon.services._make_client()

        async def late(_: object, make: Make) -> None:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(10)
            await asyncio.get_running_loop().create_connection(make, "127.0.0.1", far.port)

        client._open = late
        asking = asyncio.ensure_future(outcome(house, "AT#TCPATRUND=1"))
        await asyncio.sleep(1)
        assert await said(house, "AT#TCPATRUND=0") == ["OK"]
        assert (await asking).detail == "given up: switched off"
        call = await far.call()
        assert await call.rest() == b""
        assert client.session is None
        assert not [event for event, _ in house.told if event == "connected"]


async def test_whoever_asks_when_the_call_is_over_already() -> None:
    async with called(listens=False, redial=0.0) as (house, _):
        client = house.daemon.services.client
        assert client is not None
        assert "refused" in await client.outcome()
        client.switch_off()
        client.switch_off()
        assert await client.outcome() == "client mode: off"
        client.bearer_is(up=False)
        client.bearer_is(up=True)
        client.hang_up()
        assert await stat(house) == "#TCPATRUND: 1,0"
