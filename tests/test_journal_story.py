# SPDX-License-Identifier: Apache-2.0
"""One id through the whole life of a request (REQ-2): what the log tells of it where more happens than asking."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from atrund.atrun.request import Door, End
from atrund.atrun.undo import RETRY_FIRST
from atrund.config.values import DoorRules, LocalRules, Policy, Sms
from atrund.ledger import tables
from atrund.sim.faults import Plant
from atrund.walk import SLOW
from tests.support.asking import OUTER, start
from tests.support.lives import Lives
from tests.support.virtual import config, running
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
async def test_one_that_is_run_has_one_entry(door: Door) -> None:
    async with running(QUIET) as there:
        await ready(there)
        with capture_logs() as logs:
            run = start(there, "AT+CSQ", door)
            await run.outcome
            await asyncio.sleep(SLOW * 2)
        assert story(logs, run.request.rid) == ["command"]
        (told,) = (entry for entry in logs if entry.get("id") == run.request.rid and entry["log_level"] != "debug")
        assert (told["door"], told["peer"], told["command"], told["state"]) == (door.value, "peer", "AT+CSQ", "ok")


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
        assert story(logs, rid) == ["command", "answer sent"]
        with capture_logs() as logs:
            house.sms("HAT+CSQ")
            await asyncio.sleep(30)
        (rid,) = {entry["id"] for entry in logs if entry["event"] == "command"}
        assert story(logs, rid) == ["command"], "one that is not answered"
