# SPDX-License-Identifier: Apache-2.0
"""One id through the whole life of a request (REQ-2): what the log tells of it where more happens than asking."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from atrund import journal
from atrund.atrun.request import Door, End
from atrund.atrun.undo import RETRY_FIRST
from atrund.config.values import DoorRules, LocalRules, Module, Policy, Recovery, Sms
from atrund.journal.kinds import kind_of
from atrund.ledger import tables
from atrund.sim.faults import Plant
from atrund.walk import SLOW
from tests.support.asking import OUTER, start
from tests.support.lives import Lives
from tests.support.virtual import PORT, config, running
from tests.support.waiting import ready

pytestmark = pytest.mark.looptime

CONFIRM = DoorRules(hazards="confirm")
HAZARDS = config(sms=Sms(), policy=Policy(sms=CONFIRM, tcp=CONFIRM, mqtt=CONFIRM, local=LocalRules(hazards="confirm")))
QUIET = config(sms=Sms())

Logs = list[MutableMapping[str, Any]]


def story(logs: Logs, rid: str) -> list[str]:
    """What is said at info or above under an id, in order."""
    return [entry["event"] for entry in logs if entry.get("id") == rid and entry["log_level"] != "debug"]


@pytest.mark.parametrize("door", OUTER)
async def test_one_that_is_run_is_told_at_its_end_and_where_it_is_on_disk_before(door: Door) -> None:
    """What comes again is known before it is run; TCP and local requests have all there is to say in one entry."""
    async with running(QUIET) as there:
        await ready(there)
        with capture_logs() as logs:
            run = start(there, "AT+CSQ", door)
            await run.outcome
            await asyncio.sleep(SLOW * 2)
        *before, told = (entry for entry in logs if entry.get("id") == run.request.rid)
        assert [entry["event"] for entry in before] == (["command taken"] if door.delivers_again else [])
        assert told["event"] == "command"
        for entry in (*before, told):
            assert (entry["door"], entry["peer"], entry["command"]) == (door.value, "peer", "AT+CSQ")
        assert told["state"] == "ok"


@pytest.mark.parametrize("door", OUTER)
async def test_one_that_is_refused_says_by_which_rule(door: Door) -> None:
    async with running(QUIET) as there:
        await ready(there)
        with capture_logs() as logs:
            run = start(there, "AT+CPWD=1", door)
            await run.outcome
            await asyncio.sleep(1)
        (told,) = (entry for entry in logs if entry.get("id") == run.request.rid)
        assert (told["event"], told["state"], told["reason"]) == ("command", "rejected", "policy")
        assert "+CPWD" in told["detail"]


async def test_a_rule_on_a_command_with_a_secret_is_told_and_the_secret_is_not() -> None:
    async with running(QUIET) as there:
        await ready(there)
        with capture_logs() as logs:
            run = start(there, 'AT+CPIN="7391"', Door.TCP)
            await run.outcome
            await asyncio.sleep(1)
        (told,) = (entry for entry in logs if entry.get("id") == run.request.rid)
        shown = journal.redact(None, "", told)
        assert shown["command"] == "AT+CPIN=****"
        assert "may lock the SIM" in shown["detail"]
        assert shown["detail"].endswith("; command: +CPIN")
        (row,) = there.disk.rows("SELECT rule FROM audit WHERE event = 'rejected'")
        assert row[0].startswith("+CPIN: may lock the SIM")


@pytest.mark.parametrize("door", OUTER)
async def test_one_that_came_too_late_or_found_no_module_says_why_and_whose_it_was(door: Door) -> None:
    async with running(QUIET) as there:
        await ready(there)
        with capture_logs() as logs:
            late = start(there, "AT+CSQ", door, expires=there.daemon._ledger.run - 1)
            await late.outcome
            there.wire.absent = "unplugged"
            there.wire.lose()
            await asyncio.sleep(1)
            away = start(there, "AT+CSQ", door)
            await away.outcome
            await asyncio.sleep(1)
        for run, state, reason in ((late, "expired", "expired"), (away, "rejected", "port_down")):
            told = next(entry for entry in logs if entry["event"] == "command" and entry["id"] == run.request.rid)
            assert (told["door"], told["peer"], told["state"], told["reason"]) == (door.value, "peer", state, reason)
            assert kind_of(told) == "command refused"


async def test_what_the_event_monitor_runs_begins_with_its_event() -> None:
    async with running(QUIET) as there:
        await ready(there)
        with capture_logs() as logs:
            stored = start(there, 'AT#EVMONI="RING",1;#EVMONI="RING",1,0,"AT+CSQ";#ENAEVMONI=1', peer="uid 0")
            await stored.outcome
            there.module.urc("RING")
            await asyncio.sleep(5)
        (began,) = (entry for entry in logs if entry["event"] == "event RING")
        assert story(logs, began["id"]) == ["event RING", "command"]
        assert {entry["peer"] for entry in logs if entry.get("id") == began["id"]} == {"local uid 0"}


async def test_what_is_a_warning_and_in_the_audit_is_said_once() -> None:
    given = config(sms=Sms(), recovery=Recovery(timeout_action="reboot"), module=Module(port=PORT, shared=False))
    async with running(given) as there:
        await ready(there)
        there.module.faults.plant("+CSQ", Plant(1, seconds=30.0))
        with capture_logs() as logs:
            run = start(there, "AT+CSQ", Door.TCP, timeout=10.0)
            await run.outcome
            await asyncio.sleep(1)
        (told,) = (entry for entry in logs if entry["event"] == "module rebooted")
        expected = (run.request.rid, "tcp", "peer", "warning")
        assert (told["id"], told["door"], told["peer"], told["log_level"]) == expected
        assert told["reason"] == "its command did not end in time"


async def test_one_that_waits_and_one_that_runs_long_say_so_once() -> None:
    async with running(QUIET) as there:
        await ready(there)
        there.module.faults.plant("AT+GMI", Plant(seconds=50.0))
        with capture_logs() as logs:
            runs = start(there, "AT+GMI", Door.TCP)
            await asyncio.sleep(1)
            waits = start(there, 'AT+CPBS="SM";+CSQ', Door.LOCAL)
            await waits.outcome
            await asyncio.sleep(1)
        assert story(logs, runs.request.rid) == story(logs, waits.request.rid) == ["command not done yet", "command"]
        slow = {entry["id"]: entry for entry in logs if entry["event"] == "command not done yet"}
        assert (slow[runs.request.rid]["state"], slow[runs.request.rid]["names"]) == ("sent", "+GMI")
        assert (slow[waits.request.rid]["state"], slow[waits.request.rid]["names"]) == ("waiting", "+CPBS;+CSQ")
        (ended,) = (entry for entry in logs if entry["event"] == "command" and entry["id"] == waits.request.rid)
        assert ended["queued_ms"] > 45_000


async def test_a_hazard_tells_of_its_undo() -> None:
    async with running(HAZARDS) as there:
        await ready(there)
        with capture_logs() as logs:
            confirmed = start(there, "AT+CFUN=4")
            await confirmed.outcome
            await start(there, "AT#ATRUNCONFIRM=1", Door.TCP).outcome
            there.module.faults.plant("AT+CFUN=4", Plant(final="ERROR"))
            undone = start(there, "AT+CFUN=1")
            await undone.outcome
            await asyncio.sleep(300 + RETRY_FIRST * 2)
        assert story(logs, confirmed.request.rid) == [
            "command to be confirmed within 300 s",
            "command",
            "command confirmed",
        ]
        told = story(logs, undone.request.rid)
        assert told[:4] == [
            "command to be confirmed within 300 s",
            "command",
            "command not confirmed in time",
            "undo failed",
        ]
        assert told[-1] == "command undone"


async def test_one_that_a_restart_interrupted_tells_of_it() -> None:
    lives = Lives(QUIET)
    house = await lives.start()
    await ready(house)
    house.module.faults.plant("AT+GMI", Plant(seconds=100.0))
    run = start(house, "AT+GMI", Door.MQTT)
    await asyncio.sleep(5)
    await lives.kill()
    house = await lives.start()
    with capture_logs() as logs:
        (known,) = await house.daemon._ledger.ask(tables.unfinished(Door.MQTT))
        found = await house.daemon.runner.resume(known).outcome
        await asyncio.sleep(1)
    assert found is not None
    assert found.end is End.LOST
    assert story(logs, run.request.rid) == ["command found after a restart", "command"]
    await lives.end()


async def test_an_sms_tells_of_its_answer_and_of_what_became_of_that() -> None:
    async with running() as house:
        with capture_logs() as logs:
            house.sms("AT+CSQ")
            await asyncio.sleep(30)
        (rid,) = {entry["id"] for entry in logs if entry["event"] == "command"}
        assert story(logs, rid) == ["command taken", "command", "answer sent"]
        taken, _, sent = (entry for entry in logs if entry.get("id") == rid and entry["log_level"] != "debug")
        assert (taken["digest"], sent["parts"], len(sent["references"])) == (False, 1, 1)
        with capture_logs() as logs:
            house.sms("HAT+CSQ")
            await asyncio.sleep(30)
        (rid,) = {entry["id"] for entry in logs if entry["event"] == "command"}
        assert story(logs, rid) == ["command taken", "command"], "one that is not answered"
