# SPDX-License-Identifier: Apache-2.0
"""One command line of the daemon's own commands and the module's, mixed, over a simulated module."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from atrund.at.syntax import parse
from atrund.atrun.request import Door, End, Reason
from atrund.config.values import Policy, Sms
from atrund.line import needs_turn
from atrund.sim.faults import Plant
from tests.support.asking import OUTER, outcome, said, start
from tests.support.virtual import House, config, running
from tests.support.waiting import ready

pytestmark = pytest.mark.looptime


@asynccontextmanager
async def house() -> AsyncIterator[House]:
    async with running(config(sms=Sms(), policy=Policy(remote_admin=("sms", "tcp", "mqtt")))) as there:
        await ready(there)
        assert there.wire.end is not None
        there.wire.end.sim.seen.clear()
        yield there


@pytest.mark.parametrize("door", OUTER)
async def test_the_notes_firewall_line(door: Door) -> None:
    """`AT#TCPATRUNFRWL=2;#TCPATRUNFRWL=1,"217.0.0.0","255.0.0.0"` of 3.9, over a list that was another."""
    async with house() as there:
        await said(there, 'AT#TCPATRUNFRWL=1,"10.0.0.0","255.0.0.0"')
        assert await said(there, 'AT#TCPATRUNFRWL=2;#TCPATRUNFRWL=1,"217.0.0.0","255.0.0.0"', door) == ["OK"]
        assert await said(there, "AT#TCPATRUNFRWL?", door) == ['#TCPATRUNFRWL: "217.0.0.0","255.0.0.0"', "OK"]
        assert there.wire.seen == []


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        ("AT", ["AT"]),
        ("ATE0V1Q0", []),
        ("ATE0+CSQ", ["AT+CSQ"]),
        ("AT+CSQ;+GMI;#ATRUNDELAY?;+GMR", ["AT+CSQ;+GMI", "AT+GMR"]),
        ("AT#SMSATRUN?;+CSQ", ["AT+CSQ"]),
        ("AT+CSQ //AT#SMSATRUN=1", ["AT+CSQ"]),
        ("AT+IPR=9600;&K0;\\Q0;+IFC=0,0;+ICF=3", []),
        ("at+csq;+Csq", ["AT+CSQ;+CSQ"]),
    ],
)
async def test_the_module_gets_its_own_commands_alone(line: str, seen: list[str]) -> None:
    async with house() as there:
        assert (await outcome(there, line)).end is End.OK
        assert there.wire.seen == seen


async def test_lines_of_the_daemons_own_need_no_module() -> None:
    async with house() as there:
        there.wire.absent = "no such device"
        there.wire.lose()
        assert await said(there, "AT#SMSATRUNCFG=2;#SMSATRUNCFG?") == ["#SMSATRUNCFG: 2,1,5", "OK"]
        assert (await outcome(there, "AT#SMSATRUNCFG=1;+CSQ")).reason is Reason.PORT_DOWN
        assert await said(there, "AT#SMSATRUNCFG?") == ["#SMSATRUNCFG: 2,1,5", "OK"], "refused before it began"


async def test_an_error_of_the_modules_ends_the_line() -> None:
    async with house() as there:
        there.module.faults.plant("AT+CSQ", Plant(final="+CME ERROR: 14"))
        assert await said(there, "AT+GMI;#SMSATRUNCFG=2;+CSQ;#SMSATRUNCFG=1") == ["Telit", "+CME ERROR: 14"]
        assert await said(there, "AT#SMSATRUNCFG?") == ["#SMSATRUNCFG: 2,1,5", "OK"]


async def test_the_deadline_runs_over_the_whole_line() -> None:
    async with house() as there:
        there.module.faults.plant("AT+CSQ", Plant(seconds=40.0, left=2))
        begun = asyncio.get_running_loop().time()
        found = await outcome(there, "AT+CSQ;#SMSATRUN?;+CSQ;#SMSATRUNCFG=2")
        assert found.end is End.TIMEOUT
        assert asyncio.get_running_loop().time() - begun < 80
        assert await said(there, "AT#SMSATRUNCFG?") == ["#SMSATRUNCFG: 3,1,5", "OK"]


async def test_a_link_that_goes_in_the_middle_leaves_what_was_done() -> None:
    async with house() as there:
        there.module.faults.plant("AT+CSQ", Plant(seconds=40.0))
        run = start(there, "AT#SMSATRUNCFG=2;+CSQ;#SMSATRUNCFG=1")
        await asyncio.sleep(1)
        there.wire.lose()
        found = await run.outcome
        assert found is not None
        assert found.end is End.LOST
        assert await said(there, "AT#SMSATRUNCFG?") == ["#SMSATRUNCFG: 2,1,5", "OK"]


async def test_the_connid_may_change_in_the_line_that_sets_its_socket() -> None:
    """Whose socket `#SCFG=1` is shows only once `#TCPATRUNCFG` was carried out: then it is the module's."""
    async with house() as there:
        found = await outcome(there, 'AT#TCPATRUNCFG=2,2,1024,1024,"";#SCFG=1,1,300,90,600,50')
        assert found.end is End.OK, found
        assert there.wire.seen == ["AT#SCFG=1,1,300,90,600,50"]
        found = await outcome(there, 'AT#TCPATRUNCFG=1,2,1024,1024,"";#SCFG=1,1,500,90,600,50;#SCFG=2,1,300,90,600,50')
        assert found.end is End.OK, found
        assert there.wire.seen[1:] == ["AT#SCFG=2,1,300,90,600,50"]
        shown = await said(there, "AT#SCFG?")
        assert "#SCFG: 1,1,500,90,600,50" in shown
        assert len(shown) == 7
        assert needs_turn(parse('AT#TCPATRUNCFG=2,2,1024,1024,"";#SCFG=2,1'), there.daemon.own)
        assert not needs_turn(parse("AT#SCFG=1,1"), there.daemon.own)


async def test_what_the_module_keeps_per_port_is_put_in_place_for_each_instance() -> None:
    async with house() as there:
        await said(there, "AT+CMGF=1", instance=1)
        await said(there, "AT+CMGL=4", instance=2)
        assert there.wire.seen[:3] == ["AT+CMGF=1", "AT+CMGF=0", "AT+CMGL=4"]
        there.wire.end.sim.seen.clear()  # type: ignore[union-attr]
        assert (await said(there, "AT+CMGF?", instance=1))[0] == "+CMGF: 1"
        assert (await said(there, "AT+CMGF?", instance=2))[0] == "+CMGF: 0"


async def test_what_the_module_refused_is_not_remembered() -> None:
    async with house() as there:
        there.module.faults.plant("AT+CMGF=1", Plant(final="ERROR"))
        assert await said(there, "AT+CMGF=1") == ["ERROR"]
        assert (await said(there, "AT+CMGF?"))[0] == "+CMGF: 0"


async def test_reporting_is_an_instances_own_and_the_module_keeps_the_union() -> None:
    async with house() as there:
        assert await said(there, "AT+CREG=2", instance=1) == ["OK"]
        assert await said(there, "AT+CREG=1", instance=2) == ["OK"]
        assert (await said(there, "AT+CREG?", instance=1))[0].startswith("+CREG: 2,")
        assert (await said(there, "AT+CREG?", instance=2))[0].startswith("+CREG: 1,")
        assert (await said(there, "AT+CREG?", instance=3))[0].startswith("+CREG: 0,")
        assert [line for line in there.wire.seen if "=" in line] == ["AT+CREG=2"]
        assert await said(there, "AT+CREG=0", instance=1) == ["OK"]
        assert there.wire.seen[-1] == "AT+CREG=1"


async def test_a_reporting_setting_that_the_module_refuses_is_not_kept() -> None:
    async with house() as there:
        there.module.faults.plant("AT+CREG=2", Plant(final="+CME ERROR: 4"))
        assert await said(there, "AT+CREG=2") == ["+CME ERROR: 4"]
        assert (await said(there, "AT+CREG?"))[0].startswith("+CREG: 0,")
        assert await said(there, "AT+CREG=9") == ["+CME ERROR: 50"]
