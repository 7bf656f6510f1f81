# SPDX-License-Identifier: Apache-2.0
"""The daemon's own commands carried out: one after the other, on disk before the answer, whole or not at all."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from atrund.at.syntax import parse
from atrund.atrun.family.forms import Delays, Service, ServiceSet
from atrund.atrun.instance import show_final
from atrund.atrun.request import Door, End, Reason
from atrund.config.values import Config, Policy, Sms
from atrund.ledger import Ledger, StorageError
from atrund.mirror import Mirror
from atrund.own import Own
from tests.support.asking import OUTER, asked, outcome, said, start
from tests.support.lives import Disk, Held, Lives
from tests.support.virtual import AtOnce, House, VirtualClock, config, running
from tests.support.waiting import ready
from tests.support.ways import Recorded, ways

pytestmark = pytest.mark.looptime

REMOTE = Policy(remote_admin=("sms", "tcp", "mqtt"))
SETTING = {
    "AT#SMSATRUNCFG=2,0,7": ("AT#SMSATRUNCFG?", "#SMSATRUNCFG: 3,1,5", "#SMSATRUNCFG: 2,0,7"),
    'AT#SMSATWL=0,1,0,"+39*"': ("AT#SMSATWL=2,1", "#SMSATWL: ", '#SMSATWL: 0,"+39*"'),
    'AT#TCPATRUNCFG=2,3,4000,5000,"a.b",0,1,1,2,3': (
        "AT#TCPATRUNCFG?",
        '#TCPATRUNCFG: 1,2,1024,1024,"",1,5,0,0,2',
        '#TCPATRUNCFG: 2,3,4000,5000,"a.b",0,1,1,2,3',
    ),
    'AT#TCPATRUNFRWL=1,"217.0.0.0","255.0.0.0"': (
        "AT#TCPATRUNFRWL?",
        "",
        '#TCPATRUNFRWL: "217.0.0.0","255.0.0.0"',
    ),
    "AT#TCPATCMDSEQ=1": ("AT#TCPATCMDSEQ?", "#TCPATCMDSEQ: 0", "#TCPATCMDSEQ: 1"),
    'AT#EVMONI="RING",1': ("", "", ""),
    "ATE0&W": ("", "", ""),
    "AT&Y1": ("", "", ""),
    "AT#SMSATRUN=1": ("AT#SMSATRUN?", "#SMSATRUN: 0", "#SMSATRUN: 1"),
}


def given(**sections: object) -> Config:
    return config(**{"sms": Sms(), "policy": REMOTE, **sections})


@asynccontextmanager
async def house(**sections: object) -> AsyncIterator[House]:
    async with running(given(**sections)) as there:
        await ready(there)
        yield there


class Bench:
    """Commands without a daemon around them."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - any option of the ways
        self.disk = AtOnce()
        self.services = Recorded()
        ledger, clock = Ledger(self.disk), VirtualClock()
        mirror = Mirror(clock=clock, session="s", base="")
        self.ways = ways(lambda: None, ledger=ledger, mirror=mirror, clock=clock, services=self.services, **options)

    @property
    def own(self) -> Own:
        return self.ways.own

    async def final(self, line: str, door: Door = Door.LOCAL, **fields: object) -> tuple[str, Reason | None]:
        (command,) = parse(line)
        reply = await self.own.execute(command, asked(line, door, instance=1, **fields))
        return reply.final, reply.reason


@pytest.mark.parametrize("door", OUTER)
@pytest.mark.parametrize("line", SETTING)
async def test_what_a_command_set_is_on_disk_before_its_ok(line: str, door: Door) -> None:
    async with house() as there:
        run = start(there, line, door)
        if door.delivers_again:
            assert await run.accepted
        held = Held(there.disk)
        await asyncio.sleep(5)
        if held.kept:
            assert not run.outcome.done()
        read, before, _ = SETTING[line]
        if read:
            assert (await said(there, read, Door.TCP))[:-1] == [before][: bool(before)]
        held.release()
        found = await run.outcome
        assert found is not None
        assert found.end is End.OK, found
        if read:
            assert (await said(there, read, Door.TCP))[:-1] == [SETTING[line][2]]


@pytest.mark.parametrize("line", SETTING)
async def test_a_disk_that_refuses_is_error_20_and_nothing_changed(line: str) -> None:
    async with house() as there:
        before, rows = there.daemon.nvm.settings, there.disk.rows("SELECT * FROM settings")
        there.disk.broken = "disk full"
        assert await said(there, line, Door.TCP) == ["+CME ERROR: 20"]
        assert (await outcome(there, line, Door.TCP)).reason is Reason.STORAGE
        there.disk.broken = ""
        assert there.daemon.nvm.settings == before
        assert there.disk.rows("SELECT * FROM settings") == rows
        assert there.daemon.sms.state == "off"


async def test_what_is_no_matter_of_the_disk_needs_none() -> None:
    """REQ-12: TCP and local go on, so that the fault can be mended."""
    async with house() as there:
        there.disk.broken = "disk full"
        for line in ("ATE0", "AT+CMEE=2", "AT#ATRUNDELAY=1,7", "AT#SMSATRUN?", "AT#SMSATWL=?", "AT#SMSATWL=2,1"):
            assert (await outcome(there, line, Door.TCP)).end is End.OK


async def test_locked_nothing_is_set_and_everything_read() -> None:
    async with house(locked=True) as there:
        for line in SETTING:
            assert (await outcome(there, line)).reason is Reason.LOCKED, line
        assert await said(there, "AT#SMSATRUNCFG?") == ["#SMSATRUNCFG: 3,1,5", "OK"]
        assert await said(there, "ATE0") == ["OK"]
        assert there.disk.rows("SELECT * FROM settings") == []


@pytest.mark.parametrize("door", [Door.LOCAL, Door.TCP, Door.MQTT])
@pytest.mark.parametrize("line", ["AT#SMSATRUNCFG=2,0,7", "AT#TCPATCMDSEQ=1;#SMSATRUNCFG=1,0,60"])
async def test_killed_at_any_step_a_setting_is_the_old_or_the_new_one_and_new_once_answered(
    line: str, door: Door
) -> None:
    found = set()
    for step in itertools.count():
        lives = Lives(given())
        there = await lives.start()
        before = there.daemon.nvm.settings.sms
        lives.kill_at(step)
        run = start(there, line, door)
        await asyncio.sleep(5)
        finished = not lives.killed
        answered = run.outcome.done() and not run.outcome.cancelled() and not lives.killed
        await lives.kill()
        there = await lives.start()
        after = there.daemon.nvm.settings.sms
        await lives.end()
        found.add(after == before)
        assert after != before or not answered
        assert after in {before, replace(before, instance=2, urc=False, timeout=420.0)} | {
            replace(before, instance=1, urc=False, timeout=3600.0)
        }
        if finished:
            break
    assert found == {True, False}


async def test_an_asker_who_goes_while_it_is_stored_leaves_disk_and_daemon_agreed() -> None:
    async with house() as there:
        held = Held(there.disk)
        run = start(there, "AT#SMSATRUN=1", Door.TCP)
        await asyncio.sleep(1)
        run.give_up(Reason.IDLE)
        await asyncio.sleep(1)
        held.release()
        await asyncio.sleep(1)
        assert await said(there, "AT#SMSATRUN?") == ["#SMSATRUN: 1", "OK"]
        assert there.daemon.sms.state != "off"
        assert there.disk.rows("SELECT value FROM settings") == [("true",)]


async def test_two_doors_at_once_are_one_after_the_other() -> None:
    async with house() as there:
        lines = [f'AT#TCPATRUNFRWL=1,"10.0.{number}.0","255.255.255.0"' for number in range(8)]
        runs = [start(there, line, door) for line, door in zip(lines, itertools.cycle(OUTER), strict=False)]
        ends = [(await run.outcome).end for run in runs]  # type: ignore[union-attr]
        assert ends.count(End.OK) == 5
        assert ends.count(End.ERROR) == 3
        assert len(await said(there, "AT#TCPATRUNFRWL?")) == 6


async def test_a_line_of_its_own_commands_and_the_modules_is_answered_in_order() -> None:
    async with house() as there:
        found = await outcome(there, "AT#SMSATRUNCFG?;+CSQ;#ATRUNDELAY?;+GMI;#SMSATRUN?")
        assert found.lines == (
            "#SMSATRUNCFG: 3,1,5",
            "+CSQ: 14,99",
            "#ATRUNDELAY: 0,0",
            "#ATRUNDELAY: 1,0",
            "Telit",
            "#SMSATRUN: 0",
        )
        assert found.framed.count("OK") == 1


async def test_the_first_error_ends_the_line_and_what_came_before_it_counts() -> None:
    async with house() as there:
        there.wire.end.sim.seen.clear()  # type: ignore[union-attr]
        assert await said(there, "AT#SMSATRUNCFG=2;#SMSATRUNCFG=9;+CSQ;#SMSATRUNCFG=1") == ["+CME ERROR: 50"]
        assert await said(there, "AT#SMSATRUNCFG?") == ["#SMSATRUNCFG: 2,1,5", "OK"]
        assert there.wire.seen == []


@pytest.mark.parametrize(
    "line",
    [
        "AT#SMSATRUNCFG=0",
        "AT#SMSATRUNCFG=4",
        "AT#SMSATRUNCFG=",
        "AT#SMSATRUNCFG=3,2",
        "AT#SMSATRUNCFG=3,1,61",
        "AT#SMSATRUNCFG=3,1,2,3",
        "AT#SMSATRUNCFG=99999999999999999999",
        "AT#SMSATRUNCFG=-3",
        "AT#SMSATRUNCFG=٣",
        "AT#SMSATRUNCFG=3,1,5\x7f",
        "AT#SMSATRUNCFG=3\x00",
        'AT#SMSATWL=0,1,0,"+39',
        'AT#SMSATWL=0,9,0,"+39"',
        'AT#SMSATWL=0,1,0,"*"',
        'AT#SMSATWL=0,1,0,"+*"',
        'AT#SMSATWL=0,1,1,"15878159745713601"',
        'AT#SMSATWL=0,1,1,"short"',
        'AT#TCPATRUNCFG=7,2,1024,1024,""',
        'AT#TCPATRUNCFG=1,2,0,1024,""',
        'AT#TCPATRUNCFG=1,2,65536,1024,""',
        'AT#TCPATRUNCFG=1,2,1024,1024,"a b"',
        "AT#TCPATRUNCFG=1,2,1024,1024",
        'AT#TCPATRUNFRWL=1,"256.0.0.0","255.0.0.0"',
        'AT#TCPATRUNFRWL=3,"217.0.0.0","255.0.0.0"',
        'AT#TCPATRUNAUTH=1,"","x"',
        f'AT#TCPATRUNAUTH=1,"u","{"x" * 51}"',
        "AT#SCFG=1,1,1501",
        "AT#ATRUNDELAY=0,31",
        "AT#TCPATCMDSEQ=2",
        "AT#SMSATRUN=2",
        'AT#EVMONI="NONE",1',
        "AT&W2",
        "ATS3=32",
    ],
)
async def test_a_bad_line_is_an_error_and_nothing_changed(line: str) -> None:
    async with house() as there:
        before = there.daemon.nvm.settings
        found = await outcome(there, line)
        assert found.reason in {Reason.BAD_REQUEST, Reason.TOO_LONG}
        assert there.daemon.nvm.settings == before
        assert there.disk.rows("SELECT * FROM settings") == []


@pytest.mark.parametrize(
    ("cmee", "final"),
    [(0, "ERROR"), (1, "+CME ERROR: 50"), (2, "+CME ERROR: Incorrect parameters")],
)
async def test_the_instances_cmee_decides_what_a_refusal_reads(cmee: int, final: str) -> None:
    async with house() as there:
        await said(there, f"AT+CMEE={cmee}")
        found = await outcome(there, "AT#SMSATRUNCFG=9")
        assert show_final(found, there.daemon.own.interface(1)) == f"\r\n{final}\r\n"
        assert show_final(found, there.daemon.own.interface(2)) == "\r\nERROR\r\n"


async def test_atq1_at_one_instance_changes_nothing_at_another() -> None:
    async with house() as there:
        await said(there, "ATQ1E0V0X1S3=10+CMEE=2", Door.TCP, instance=2)
        own = there.daemon.own
        assert own.interface(2).value("Q") == 1
        assert own.interface(1) == own.interface(3) == type(own.interface(1))()
        assert await said(there, "AT+CSQ") == ["+CSQ: 14,99", "OK"]
        await said(there, "AT&F", Door.TCP, instance=2)
        assert own.interface(2) == own.interface(1)


async def test_profiles_are_of_an_instance_and_z_and_a_restart_load_them() -> None:
    disk = Disk()
    async with running(given(), disk=disk) as there:
        await ready(there)
        await said(there, "ATE0V0&W", instance=2)
        await said(there, "ATE1Q1", instance=2)
        await said(there, "ATZ", instance=2)
        assert [there.daemon.own.interface(2).value(name) for name in "EVQ"] == [0, 0, 0]
        assert there.daemon.own.interface(1).value("E") == 1
        await said(there, "ATE1", instance=2)
    async with running(given(), disk=disk) as there:
        assert [there.daemon.own.interface(2).value(name) for name in "EVQ"] == [0, 0, 0]
        assert there.daemon.own.interface(1).value("E") == 1


async def test_a_delay_is_kept_until_it_is_changed_and_not_across_a_restart() -> None:
    bench = Bench()
    assert await bench.final("AT#ATRUNDELAY=1,30") == ("OK", None)
    assert bench.own.delays == Delays(tcp=0, sms=30)
    assert bench.disk.rows("SELECT * FROM settings") == []


async def test_a_service_that_can_not_be_started_keeps_its_setting_and_says_why() -> None:
    bench = Bench()
    bench.services.fails = "address in use"
    assert await bench.final("AT#TCPATRUNL=1") == ("+CME ERROR: 2", Reason.BUSY)
    assert bench.own.settings.tcp.enabled
    assert bench.services.asked == [ServiceSet(Service.TCP_SERVER, on=True, instance=1, changed=True)]


async def test_what_the_disk_refuses_to_a_service_is_error_20() -> None:
    bench = Bench()

    async def refuse(*_: object) -> str:
        raise StorageError("disk full")

    bench.services.carry_out = refuse  # type: ignore[assignment, method-assign]
    assert await bench.final("AT#SMSATRUN=1") == ("+CME ERROR: 20", Reason.STORAGE)


@pytest.mark.parametrize("door", [Door.SMS, Door.TCP, Door.MQTT])
@pytest.mark.parametrize(
    "line", ['AT#SMSATWL=0,1,0,"+39"', 'AT#TCPATRUNFRWL=1,"1.0.0.0","255.0.0.0"', 'AT#TCPATRUNAUTH=1,"u","p"']
)
async def test_cmd_2_from_afar_nobody_says_who_may_come_in(line: str, door: Door) -> None:
    bench = Bench()
    assert await bench.final(line, door) == ("+CME ERROR: 3", Reason.POLICY)
    assert bench.disk.rows("SELECT * FROM settings") == []
    assert await bench.final(line) == ("OK", None)


@pytest.mark.parametrize("line", ['AT#EVMONI="RING",1', 'AT#TCPATRUNCFG=1,2,1,1,""', "AT#TCPATRUND=1"])
async def test_cmd_2_what_a_forged_sender_must_not(line: str) -> None:
    bench = Bench()
    assert await bench.final(line, Door.SMS, forgeable=True) == ("+CME ERROR: 3", Reason.POLICY)
    assert (await bench.final(line, Door.SMS))[0] == "OK"


async def test_ten_thousand_settings_commands() -> None:
    bench = Bench()
    for number in range(10_000):
        assert (await bench.final(f"AT#SMSATRUNCFG={number % 3 + 1},1,{number % 60 + 1}"))[0] == "OK"
    assert len(bench.disk.rows("SELECT * FROM settings")) == 3
    assert bench.own.settings.sms.timeout == 60.0 * (9999 % 60 + 1)
    assert not bench.own._under_way
