# SPDX-License-Identifier: Apache-2.0
"""Lending the ports: when they are lent, what rests meanwhile, and when they are taken back."""

import asyncio
import os
from pathlib import Path

import pytest

from atrund.module.ladder import LadderRules
from atrund.module.lending import AGAIN_LONGEST, elsewhere
from atrund.module.lifecycle import State
from atrund.module.port import PortError
from atrund.module.turn import LinkLostError
from atrund.sim.faults import Plant
from tests.support.keeping import SET_UP, Bench, keeping

pytestmark = pytest.mark.looptime

NAME = "/dev/ttyUSB2"


async def test_a_lent_port_is_closed_left_alone_and_set_up_again_when_it_is_given_back() -> None:
    async with keeping(Bench()) as bench:
        bench.since()
        loan = await bench.lending.lend("uid 0", 3600)
        assert loan.path == NAME
        assert (bench.state, bench.keeper.channel) == (State.LENT, None)
        assert bench.keeper.module.detail == "lent to uid 0 for at most 3600 s"
        assert bench.lending.words == "the port is lent to uid 0"
        tried = len(bench.line.tried)
        await asyncio.sleep(3000)
        assert (bench.seen, len(bench.line.tried), bench.states) == ([], tried, [State.LENT])
        loan.give_back()
        loan.give_back()
        await bench.until()
        assert bench.seen == SET_UP
        assert bench.states == [State.LENT, State.OPENING, State.WAKING, State.SETTING_UP, State.READY]
        assert (bench.keeper.module.detail, bench.lending.words) == ("", "")
        assert not loan.over.is_set()
        assert bench.loans == [("uid 0", "port lent"), ("uid 0", "port given back")]


async def test_all_ports_are_lent_together() -> None:
    async with keeping(Bench(ports=2)) as bench:
        loan = await bench.lending.lend("uid 0", 60)
        assert [keeper.module.state for keeper in bench.keepers] == [State.LENT, State.LENT]
        bench.holders["/dev/ttyUSB3"] = ["minicom (pid 7)"]
        loan.give_back()
        await bench.until()
        assert bench.keepers[1].module.state is State.LENT
        assert bench.lending.words, "doors stay busy until all are free"
        bench.holders.clear()
        await bench.until(number=1)
        assert not bench.lending.words


async def test_the_command_that_runs_ends_first_and_those_who_wait_go() -> None:
    async with keeping(Bench()) as bench:
        bench.module.faults.plant("AT+CGMI", Plant(seconds=4))
        running = asyncio.create_task(bench.ask("AT+CGMI", 10))
        await asyncio.sleep(1)
        waiting = asyncio.create_task(bench.ask("AT+CSQ"))
        await asyncio.sleep(0)
        begun = asyncio.get_running_loop().time()
        loan = await bench.lending.lend("uid 0", 60)
        assert asyncio.get_running_loop().time() - begun == pytest.approx(3, abs=0.5)
        assert (await running).final.ok
        with pytest.raises(LinkLostError):
            await waiting
        assert "AT+CSQ" not in bench.line.wrote
        loan.give_back()
        await bench.until()


async def test_the_time_is_over_while_it_is_open_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    async with keeping(Bench()) as bench:
        bench.holders[NAME] = ["ModemManager (pid 5)"]  # as before: it is not waited for
        loan = await bench.lending.lend("uid 0", 60)
        bench.holders[NAME].append("flasher (pid 9)")
        await asyncio.sleep(59)
        assert not loan.over.is_set()
        bench.since()
        await asyncio.sleep(3600)
        assert loan.over.is_set()
        assert bench.state is State.LENT
        assert bench.keeper.module.detail.endswith("/dev/ttyUSB2 is still open elsewhere: flasher (pid 9)")
        assert capsys.readouterr().out.count("port lent and not free yet") == 1
        assert bench.line.wrote[len(SET_UP) :] == [], "nothing is reset"
        with pytest.raises(PortError, match="the port is lent to uid 0 already"):
            await bench.lending.lend("uid 1", 60)
        bench.holders[NAME].pop()
        await bench.until(within=AGAIN_LONGEST + 30)
        assert bench.loans == [("uid 0", "port lent"), ("uid 0", "port wanted back")]


async def test_a_daemon_that_sees_not_everybody_waits_for_the_borrower_to_go() -> None:
    """Behind a sandbox nobody's open files are seen, and the port may be in the middle of an update."""
    async with keeping(Bench()) as bench:
        bench.sees_all = False
        loan = await bench.lending.lend("uid 0", 60)
        await asyncio.sleep(3600)
        assert bench.state is State.LENT
        assert "can't be seen, and the borrower's program still runs" in bench.keeper.module.detail
        loan.give_back()
        await bench.until(within=1)
        assert bench.loans == [("uid 0", "port lent"), ("uid 0", "port wanted back"), ("uid 0", "port given back")]


async def test_a_loan_that_was_over_ends_no_later_one() -> None:
    async with keeping(Bench()) as bench:
        first = await bench.lending.lend("uid 0", 10)
        await asyncio.sleep(30)
        await bench.until()
        second = await bench.lending.lend("uid 1", 600)
        first.give_back()
        await asyncio.sleep(60)
        assert bench.state is State.LENT
        second.give_back()
        await bench.until()


async def test_whoever_goes_while_he_waits_has_borrowed_nothing() -> None:
    async with keeping(Bench()) as bench:
        bench.module.faults.plant("AT+CGMI", Plant(seconds=4))
        running = asyncio.create_task(bench.ask("AT+CGMI", 10))
        await asyncio.sleep(1)
        asking = asyncio.create_task(bench.lending.lend("uid 0", 60))
        await asyncio.sleep(1)
        asking.cancel()
        await running
        await asyncio.sleep(5)
        assert bench.state is State.READY
        assert (await bench.ask("AT+CSQ")).final.ok


async def test_a_module_that_hangs_is_lent_and_not_rebooted_meanwhile() -> None:
    async with keeping(Bench(rules=LadderRules(shared=False))) as bench:
        bench.module.hang()
        await bench.until(State.STUCK, 600)
        loan = await bench.lending.lend("uid 0", 3600)
        wrote = len(bench.line.wrote)
        await asyncio.sleep(3000)
        assert len(bench.line.wrote) == wrote
        bench.module.resume()
        loan.give_back()
        await bench.until()


async def test_a_port_that_is_gone_can_not_be_lent() -> None:
    async with keeping(Bench()) as bench:
        bench.line.unplug()
        await bench.until(State.ABSENT)
        with pytest.raises(PortError, match="no such device"):
            await bench.lending.lend("uid 0", 60)
        bench.line.plug()
        await bench.until(within=200)


async def test_a_module_that_is_rebooting_or_being_set_up_is_not_lent() -> None:
    async with keeping(Bench(), until=State.WAKING) as bench:
        with pytest.raises(PortError, match="the module is waking; try again in a moment"):
            await bench.lending.lend("uid 0", 60)
        await bench.until()
        await bench.ask("AT#REBOOT")
        with pytest.raises(PortError, match="told to restart a moment ago"):
            await bench.lending.lend("uid 0", 60)
        await bench.until(within=200)
        await asyncio.sleep(100)
        (await bench.lending.lend("uid 0", 60)).give_back()
        await bench.until()


async def test_a_module_that_was_rebooted_by_the_borrower_is_set_up() -> None:
    async with keeping(Bench()) as bench:
        loan = await bench.lending.lend("uid 0", 60)
        bench.line.unplug()
        loan.give_back()
        await bench.until(State.ABSENT)
        assert bench.lending.words == ""
        bench.line.plug()
        await bench.until(within=200)


async def test_without_ports_there_is_nothing_to_lend() -> None:
    async with keeping(Bench(ports=0), until=None) as bench:
        with pytest.raises(PortError, match="no port is configured"):
            await bench.lending.lend("uid 0", 60)


def test_who_has_a_device_open_beside_the_daemon(tmp_path: Path) -> None:
    device = tmp_path / "tty"
    device.touch()
    descriptor = os.open(device, os.O_RDONLY)
    try:
        assert elsewhere(str(device))[0] == ()
    finally:
        os.close(descriptor)
