# SPDX-License-Identifier: Apache-2.0
"""POL-2: hazards that wait to be confirmed, from the disk's side and the module's, whatever crashes between them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from atrund.atrun.request import Door, End, Reason
from atrund.atrun.undo import OPEN_MAX, RETRY_FIRST
from atrund.config.values import Config, DoorRules, LocalRules, Policy, Sms
from atrund.confirmations import LOAD_RETRY
from atrund.sim.faults import Plant
from tests.support.asking import OUTER, outcome, said, start
from tests.support.lives import Held, Lives
from tests.support.marked import until
from tests.support.virtual import AtOnce, House, config, running
from tests.support.waiting import ready

pytestmark = pytest.mark.looptime

AFTER = 300.0
CONFIRM = DoorRules(hazards="confirm")
OFF = "AT+CFUN=4"


def given(after: float = AFTER) -> Config:
    """Hazards are to be confirmed at every door, and no door of its own meddles."""
    policy = Policy(confirm_after=after, sms=CONFIRM, tcp=CONFIRM, mqtt=CONFIRM, local=LocalRules(hazards="confirm"))
    return config(sms=Sms(), policy=policy)


@asynccontextmanager
async def house(**options: Any) -> AsyncIterator[House]:  # noqa: ANN401 - any option of the configuration
    async with running(given(**options)) as there:
        await ready(there)
        yield there


def undos(disk: AtOnce) -> list[str]:
    return [undo for (undo,) in disk.rows("SELECT undo FROM undos ORDER BY id")]


def functionality(there: House | Lives) -> int:
    return there.module.radio.functionality


@pytest.mark.parametrize("door", OUTER)
async def test_the_undo_is_on_disk_before_the_command_runs(door: Door) -> None:
    async with house() as there:
        held = Held(there.disk, 1 + 2 * door.delivers_again)  # what comes again is recorded, and recorded as sent
        run = start(there, OFF, door)
        await asyncio.sleep(10)
        assert len(held.kept) >= 1
        assert functionality(there) == 1
        assert not run.outcome.done()
        held.release()
        found = await run.outcome
        assert found is not None
        assert (found.end, found.lines) == (End.OK, ("#ATRUNCONFIRM: 1,5",))
        assert found.framed == "\r\n#ATRUNCONFIRM: 1,5\r\n\r\nOK\r\n"
        assert functionality(there) == 4
        assert undos(there.disk) == ["AT+CFUN=1"]


async def test_confirmed_in_time_it_stays() -> None:
    async with house() as there:
        await said(there, OFF)
        await asyncio.sleep(AFTER / 2)
        assert await said(there, "AT#ATRUNCONFIRM") == ["#ATRUNCONFIRM: 1,3", "OK"]
        assert await said(there, "AT#ATRUNCONFIRM?") == ["#ATRUNCONFIRM: 1,3", "OK"]
        assert await said(there, "AT#ATRUNCONFIRM=1", Door.TCP) == ["OK"]
        assert (undos(there.disk), await said(there, "AT#ATRUNCONFIRM")) == ([], ["OK"])
        await asyncio.sleep(AFTER * 2)
        assert functionality(there) == 4
        assert ("command confirmed", None) in there.told


@pytest.mark.parametrize("line", ["AT#ATRUNCONFIRM=2", "AT#ATRUNCONFIRM=", "AT#ATRUNCONFIRM=x", "AT#ATRUNCONFIRM=1,1"])
async def test_what_confirms_nothing(line: str) -> None:
    async with house() as there:
        await said(there, OFF)
        assert await said(there, line) == ["+CME ERROR: 50"]
        await asyncio.sleep(AFTER + 1)
        assert functionality(there) == 1


async def test_not_confirmed_it_is_undone_before_any_other_doors_turn() -> None:
    async with house() as there:
        await said(there, OFF)
        there.module.faults.plant("AT+GMI", Plant(seconds=60.0))
        await asyncio.sleep(AFTER - 30)
        holds = start(there, "AT+GMI", Door.TCP)  # has the port when the time is over
        await asyncio.sleep(1)
        waits = [start(there, "AT+GMR", door) for door in OUTER]
        for run in (holds, *waits):
            await run.outcome
        seen = there.wire.seen
        assert seen.index("AT+GMI") < seen.index("AT+CFUN=1") < seen.index("AT+GMR")
        assert (functionality(there), undos(there.disk)) == (1, [])
        assert [what for what, _ in there.told if what.startswith("command")] == [
            "command to be confirmed within 300 s",
            "command not confirmed in time",
            "command undone",
        ]


async def test_an_undo_that_fails_is_tried_until_it_is_answered_with_ok() -> None:
    async with house(after=60.0) as there:
        await said(there, OFF)
        there.module.faults.plant("AT+CFUN=1", Plant(final="+CME ERROR: 3", left=6))
        await asyncio.sleep(60 + RETRY_FIRST + 1)
        assert functionality(there) == 4
        assert undos(there.disk) == ["AT+CFUN=1"]
        assert await said(there, "AT#ATRUNCONFIRM") == ["#ATRUNCONFIRM: 1,0", "OK"]
        await asyncio.sleep(300)
        assert (functionality(there), undos(there.disk)) == (1, [])


async def test_an_undo_that_the_module_never_takes_can_be_ended() -> None:
    async with house(after=60.0) as there:
        await said(there, OFF)
        there.module.faults.plant("AT+CFUN=1", Plant(final="ERROR", left=None))
        await asyncio.sleep(600)
        assert await said(there, "AT#ATRUNCONFIRM=1") == ["OK"]
        tried = there.wire.seen.count("AT+CFUN=1")
        await asyncio.sleep(600)
        assert there.wire.seen.count("AT+CFUN=1") == tried
        assert undos(there.disk) == []


async def test_confirmed_while_it_is_being_undone() -> None:
    """Whichever comes first counts, and neither ends the daemon."""
    async with house(after=60.0) as there:
        await said(there, OFF)
        there.module.faults.plant("AT+CFUN=1", Plant(seconds=20.0))
        await asyncio.sleep(65)
        assert await said(there, "AT#ATRUNCONFIRM=1") == ["OK"]
        await asyncio.sleep(100)
        assert await said(there, "AT#ATRUNCONFIRM") == ["OK"]
        assert not there.daemon.failed.done()


async def test_confirmed_in_the_moment_in_which_its_undo_is_recorded() -> None:
    async with house(after=60.0) as there:
        await said(there, OFF)
        held = Held(there.disk)
        await asyncio.sleep(70)
        assert functionality(there) == 1
        confirming = start(there, "AT#ATRUNCONFIRM=1")
        await asyncio.sleep(1)
        held.release()
        await confirming.outcome
        await asyncio.sleep(1)
        assert not there.daemon.failed.done()
        assert undos(there.disk) == []


@pytest.mark.parametrize(
    ("line", "value"),
    [("AT+CFUN=1", 1), ("at+cfun = 01", 1), ("AT+CFUN=1;+CSQ", 1), ("AT+CFUN=1;+CFUN=01", 1)],
)
async def test_what_sets_the_value_that_is_there_already_needs_no_confirmation(line: str, value: int) -> None:
    """Programs that wait for a modem's start send such a command at each connect."""
    async with house() as there:
        found = await outcome(there, line)
        assert found.end is End.OK
        assert not [text for text in found.lines if "CONFIRM" in text]
        assert undos(there.disk) == []
        assert functionality(there) == value
        assert there.wire.seen.count("AT+CFUN?") == 1


async def test_what_changes_nothing_runs_though_the_disk_refuses() -> None:
    async with house() as there:
        there.disk.broken = "disk full"
        assert await said(there, "AT+CFUN=1", Door.TCP) == ["OK"]


async def test_only_what_changes_something_is_undone() -> None:
    async with house() as there:
        assert await said(there, "AT+CFUN=4;+CFUN=1") == ["#ATRUNCONFIRM: 1,5", "OK"]
        assert undos(there.disk) == ["AT+CFUN=1"]
        assert await said(there, 'AT+CSCA="+393492000009",145') == ["OK"]
        assert (await said(there, 'AT+CSCA="393492000009",145'))[0].startswith("#ATRUNCONFIRM: 2,")
        assert undos(there.disk)[1:] == ['AT+CSCA="+393492000009",145']


async def test_a_service_centre_without_its_type_is_the_one_that_the_module_makes_of_it() -> None:
    async with house() as there:
        assert await said(there, 'AT+CSCA="+393492000009"') == ["OK"]
        assert undos(there.disk) == []
        assert (await said(there, 'AT+CSCA="+393492000001"'))[0].startswith("#ATRUNCONFIRM: 1,")
        assert await said(there, "AT+CSCA?") == ['+CSCA: "+393492000001",145', "OK"]
        await asyncio.sleep(AFTER + 10)
        assert await said(there, "AT+CSCA?") == ['+CSCA: "+393492000009",145', "OK"]
        assert undos(there.disk) == []


async def test_what_is_text_is_read_and_undone_in_one_alphabet_whatever_the_instance_has() -> None:
    """Under UCS2 a module shows +CSCA in hexadecimal digits (TS 27.005 3.3.1)."""
    async with house() as there:
        assert await said(there, 'AT+CSCS="UCS2";+CSCA?') == ['+CSCA: "+393492000009",145', "OK"]
        begin = len(there.wire.seen)
        await said(there, 'AT+CSCA="+393492000001"')
        await asyncio.sleep(AFTER + 10)
        assert [line for line in there.wire.seen[begin:] if "+CSC" in line] == [
            'AT+CSCS="IRA"',
            "AT+CSCA?",
            'AT+CSCS="UCS2"',
            'AT+CSCA="+393492000001"',
            'AT+CSCS="IRA"',
            'AT+CSCA="+393492000009",145',
        ]


async def test_a_disk_that_refuses_the_undo_stops_the_command() -> None:
    async with house() as there:
        there.disk.broken = "disk full"
        found = await outcome(there, OFF, Door.TCP)
        assert (found.end, found.reason) == (End.ERROR, Reason.UNCONFIRMED)
        assert "disk full" in found.detail
        there.disk.broken = ""
        await asyncio.sleep(AFTER * 2)
        assert (functionality(there), there.wire.seen.count(OFF), undos(there.disk)) == (1, 0, [])


async def test_a_disk_that_refuses_the_confirmation_leaves_it_open() -> None:
    async with house() as there:
        await said(there, OFF)
        there.disk.broken = "disk full"
        assert await said(there, "AT#ATRUNCONFIRM=1", Door.TCP) == ["+CME ERROR: 20"]
        assert await said(there, "AT#ATRUNCONFIRM", Door.TCP) == ["#ATRUNCONFIRM: 1,5", "OK"]
        there.disk.broken = ""
        await asyncio.sleep(AFTER + 1)
        assert (functionality(there), undos(there.disk)) == (1, [])


async def test_an_undo_whose_end_the_disk_refuses_is_run_again_and_does_no_harm() -> None:
    async with house(after=60.0) as there:
        await said(there, OFF)
        there.disk.broken = "disk full"
        await asyncio.sleep(100)
        assert functionality(there) == 1
        assert await said(there, "AT#ATRUNCONFIRM", Door.TCP) == ["#ATRUNCONFIRM: 1,0", "OK"]
        there.disk.broken = ""
        await asyncio.sleep(100)
        assert undos(there.disk) == []
        assert there.wire.seen.count("AT+CFUN=1") > 1


async def test_an_old_value_that_can_not_be_told_stops_the_command() -> None:
    async with house() as there:
        there.module.faults.plant("AT+CFUN?", Plant(final="ERROR"))
        assert (await outcome(there, OFF)).reason is Reason.UNCONFIRMED
        assert (functionality(there), undos(there.disk)) == (1, [])


async def test_no_more_than_can_be_kept_in_mind() -> None:
    async with house() as there:
        for number in range(OPEN_MAX):
            assert (await outcome(there, f"AT+CFUN={4 if number % 2 == 0 else 1}")).end is End.OK
        found = await outcome(there, OFF)
        assert (found.end, found.reason) == (End.ERROR, Reason.UNCONFIRMED)
        assert await said(there, "AT+CFUN=1") == ["OK"], "what changes nothing takes no place"
        assert len(await said(there, "AT#ATRUNCONFIRM")) == OPEN_MAX + 1
        await asyncio.sleep(AFTER + 60)
        assert (functionality(there), undos(there.disk)) == (1, [])


async def test_it_can_not_be_confirmed_in_the_line_that_needs_it() -> None:
    async with house() as there:
        found = await outcome(there, "AT+CFUN=4;#ATRUNCONFIRM=1")
        assert (found.end, found.reason) == (End.REJECTED, Reason.POLICY)
        assert (functionality(there), undos(there.disk)) == (1, [])


async def test_an_asker_who_goes_while_the_undo_is_put_on_disk_leaves_none_behind() -> None:
    """Its command does not run, so that an undo would set back, long after, what others set since."""
    async with house() as there:
        held = Held(there.disk)
        run = start(there, OFF, Door.TCP)
        await asyncio.sleep(5)
        run.give_up(Reason.IDLE)
        await asyncio.sleep(1)
        held.release()
        await asyncio.sleep(1)
        assert (functionality(there), undos(there.disk)) == (1, [])
        assert await said(there, "AT#ATRUNCONFIRM") == ["OK"]


async def test_rows_that_can_not_be_used_are_said_and_left() -> None:
    disk = AtOnce()
    rows = [("no command", 1.0, "r1", "local"), ("AT+CFUN=1", 1.0, "r2", "window"), ("AT+CFUN=1", "soon", "r3", "tcp")]
    for row in rows:
        disk.store.connection.execute("INSERT INTO undos (undo, due, rid, door, peer) VALUES (?,?,?,?,'')", row)
    async with running(given(), disk=disk) as there:
        await ready(there)
        await asyncio.sleep(AFTER)
        assert await said(there, "AT#ATRUNCONFIRM") == ["OK"]
        assert not there.daemon.failed.done()
        assert len(undos(disk)) == len(rows)


# Lives that end.


async def test_what_waits_outlives_a_kill_and_counts_only_the_time_that_the_daemon_runs() -> None:
    lives = Lives(given())
    there = await lives.start()
    await said(there, OFF)
    await asyncio.sleep(120)
    await said(there, "AT", Door.MQTT)  # a crash may forget some minutes of an idle time
    await lives.kill()
    await asyncio.sleep(3600)
    there = await lives.start()
    assert functionality(lives) == 4
    assert await said(there, "AT#ATRUNCONFIRM") == ["#ATRUNCONFIRM: 1,3", "OK"]
    await asyncio.sleep(AFTER - 120)
    assert (functionality(lives), undos(lives.disk)) == (1, [])
    await lives.end()


async def test_overdue_after_a_restart_it_is_undone_before_anything_else() -> None:
    lives = Lives(given(after=60.0))
    there = await lives.start()
    await said(there, OFF)
    lives.wire.absent = "no such device"
    lives.wire.lose()
    await asyncio.sleep(120)
    await said(there, "AT#ATRUNCONFIRM", Door.MQTT)  # a crash may forget some minutes of an idle time
    await lives.kill()
    there = await lives.start(wait=False)
    await asyncio.sleep(30)
    lives.wire.absent = ""
    await until(lambda: there.daemon.module.state.usable)
    await asyncio.sleep(1.0)  # less than it waits for its next try
    assert functionality(lives) == 1
    await until(lambda: undos(lives.disk) == [])
    await lives.end()


@pytest.mark.parametrize("door", [Door.LOCAL, Door.MQTT])
async def test_killed_at_any_step_the_radio_is_never_left_off_for_good(door: Door) -> None:
    step, ends = 0, set()
    while True:
        lives = Lives(given(after=60.0))
        there = await lives.start()
        lives.kill_at(step)
        run = start(there, OFF, door)
        await asyncio.sleep(30)
        done, ran = not lives.killed, lives.wire.ran(OFF)
        if run.outcome.done() and not lives.killed:
            assert functionality(lives) == 4
        await lives.kill()
        waiting = undos(lives.disk)
        assert waiting or not ran, f"run without an undo, killed at step {step}"
        there = await lives.start()
        await asyncio.sleep(120)
        assert lives.wire.ran(OFF) == ran or (door.delivers_again and lives.wire.ran(OFF) <= 1)
        await asyncio.sleep(120)
        assert (functionality(lives), undos(lives.disk)) == (1, []), f"killed at step {step}"
        await lives.end()
        ends.add((bool(ran), bool(waiting)))
        if done:
            break
        step += 1
    assert ends >= {(False, False), (False, True), (True, True)}


async def test_killed_at_any_step_of_the_undo() -> None:
    step = 0
    while True:
        lives = Lives(given(after=60.0))
        there = await lives.start()
        await said(there, OFF)
        await asyncio.sleep(59)
        lives.kill_at(step)
        await asyncio.sleep(30)
        done = not lives.killed
        await lives.kill()
        await lives.start()
        await asyncio.sleep(120)
        assert (functionality(lives), undos(lives.disk)) == (1, []), f"killed at step {step}"
        await lives.end()
        if done:
            break
        step += 1
    assert step >= 2


async def test_killed_at_any_step_of_the_confirmation_it_holds_or_is_undone() -> None:
    step, left = 0, set()
    while True:
        lives = Lives(given(after=60.0))
        there = await lives.start()
        await said(there, OFF)
        lives.kill_at(step)
        run = start(there, "AT#ATRUNCONFIRM=1", Door.MQTT)
        await asyncio.sleep(5)
        done = not lives.killed
        answered = run.outcome.done() and not run.outcome.cancelled() and not lives.killed
        await lives.kill()
        await lives.start()
        await asyncio.sleep(200)
        assert undos(lives.disk) == []
        left.add(functionality(lives))
        assert functionality(lives) == 4 or not answered
        await lives.end()
        if done:
            break
        step += 1
    assert left == {1, 4}


async def test_a_ledger_that_can_not_be_read_at_the_start_is_looked_at_again() -> None:
    lives = Lives(given(after=60.0))
    there = await lives.start()
    await said(there, OFF)
    await lives.kill()
    there = await lives.start(wait=False)
    await lives.kill()
    lives.disk.refuse("cannot be read")
    there = await lives.start(wait=False)
    await asyncio.sleep(10)
    lives.disk.dies, lives.disk.broken = lambda: False, ""
    await asyncio.sleep(LOAD_RETRY + 70)
    assert (functionality(lives), undos(lives.disk)) == (1, [])
    await lives.end()


async def test_what_was_taken_back_by_another_command_is_not_brought_back_by_its_undo() -> None:
    """The radio is switched off and on again and nobody confirms: it stays on."""
    async with house() as there:
        await said(there, OFF)
        await asyncio.sleep(60)
        assert (await said(there, "AT+CFUN=1"))[0] == "#ATRUNCONFIRM: 2,5"
        await asyncio.sleep(AFTER - 50)
        assert functionality(there) == 1
        assert undos(there.disk) == []
        await asyncio.sleep(AFTER)
        assert functionality(there) == 1
        assert there.wire.seen.count(OFF) == 1


async def test_each_is_confirmed_for_itself() -> None:
    async with house() as there:
        await said(there, OFF)
        await said(there, "AT+CFUN=2")
        assert await said(there, "AT#ATRUNCONFIRM=1") == ["OK"]
        await asyncio.sleep(AFTER + 1)
        assert functionality(there) == 4, "what was confirmed is what the other leads back to"
