# SPDX-License-Identifier: Apache-2.0
"""A door's SMS commands while the SMS service is on, over a simulated module (CMD-6)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from atrund.atrun.request import Door, End, Reason
from atrund.config.values import Sms
from atrund.doors.recording import RECORD_WAIT
from atrund.sim.faults import Plant
from atrund.sim.store import Message, Status
from atrund.sms.dcs import DEFAULT_DCS
from atrund.sms.pdu import Address, Submit, Timestamp, UserData
from atrund.sms.report import StatusReport
from tests.support.asking import OUTER, outcome, said, start
from tests.support.lives import Lives
from tests.support.virtual import FRIEND, STRANGER, House, config, deliver, running
from tests.support.waiting import until

pytestmark = pytest.mark.looptime

SIGNAL = "\r\n+CSQ: 14,99\r\n\r\nOK\r\n"
SUBMIT = Submit(Address.parse(FRIEND), UserData.from_text("hello", DEFAULT_DCS), DEFAULT_DCS)
HINDERED = Plant(None, final="+CMS ERROR: 500")


@asynccontextmanager
async def house(**fields: object) -> AsyncIterator[House]:
    given = config()
    sms = Sms(**{"enabled": True, "numbers": (FRIEND,), **fields})  # type: ignore[arg-type]
    async with running(config(sms=sms) if fields else given) as there:
        await until(lambda: there.daemon.sms.state in {"open", "off"} and there.daemon.module.state.usable)
        await asyncio.sleep(1)
        clear(there)
        yield there


def clear(there: House) -> None:
    assert there.wire.end is not None
    there.wire.end.sim.seen.clear()


def put(there: House, text: str, sender: str = STRANGER, status: Status = Status.REC_UNREAD, memory: str = "SM") -> int:
    """Lay a message into the store without a word."""
    return lay(there, Message(status, deliver(text, sender, at=there.clock.now()).encode()), memory)


def lay(there: House, message: Message, memory: str = "SM") -> int:
    index = there.module.store.add(memory, message)
    assert index is not None
    return index


def lying(there: House, memory: str = "SM") -> list[int]:
    return [index for index, _ in there.module.store.messages(memory)]


def ran(there: House, line: str = "AT+CSQ") -> int:
    return there.wire.seen.count(line)


COMMANDS = ['AT+CMGF=1;+CMGL="ALL"', "AT+CMGL=4", "AT+CMGL=0", "AT+CMGR=1", "AT+CMGD=1", "AT+CMGD=1,4", "AT+CMGD=1,3"]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("apart", [-0.4, -0.1, -0.03, -0.01, -1e-5, 0.0, 1e-5, 0.01, 0.02, 0.03, 0.05, 0.1, 0.4])
async def test_at_whatever_moment_a_message_comes_it_runs_once_and_no_door_sees_it(command: str, apart: float) -> None:
    """`apart`: seconds from the message's coming to the command."""
    async with house() as there:
        if apart < 0:
            run = start(there, command, Door.TCP)
            await asyncio.sleep(-apart)
            there.sms("AT+CSQ")
        else:
            there.sms("AT+CSQ")
            await asyncio.sleep(apart)
            run = start(there, command, Door.TCP)
        found = await run.outcome
        assert found is not None
        assert (found.end, found.final) == ((End.ERROR, "+CMS ERROR: 321") if "CMGR" in command else (End.OK, "OK"))
        assert not [line for line in found.lines if not line.startswith("+CMGF")]
        await asyncio.sleep(5)
        assert there.sent == [(FRIEND, SIGNAL)]
        assert ran(there) == 1
        assert lying(there) == []


@pytest.mark.parametrize("door", OUTER)
async def test_a_new_message_is_recorded_before_the_command_goes(door: Door) -> None:
    async with house() as there:
        there.module.faults.plant("+CMGD", Plant(seconds=3.0))
        put(there, "hello")
        put(there, "AT+CSQ", FRIEND)
        run = start(there, "AT+CMGD=1", door)
        await until(lambda: "AT+CMGD=1" in there.wire.seen, every=0.01)
        rows = there.disk.rows("SELECT line, state FROM requests WHERE line = 'AT+CSQ'")
        assert rows == [("AT+CSQ", "recorded")]
        await run.outcome
        await asyncio.sleep(10)
        assert lying(there) == []
        assert there.sent == [(FRIEND, SIGNAL)]


async def test_a_message_whose_command_runs_or_waits_is_hidden_and_spared() -> None:
    async with house() as there:
        there.module.faults.plant("AT+CMGS", Plant(None, final="+CMS ERROR: 42"))  # the answer stays on its way
        there.module.faults.plant("AT+CMGD=1", Plant(1, final="+CMS ERROR: 500"))
        there.sms("AT+CSQ")
        there.sms("hello", STRANGER)
        await asyncio.sleep(5)
        assert lying(there) == [1, 2]
        assert await said(there, "AT+CMGR=1") == ["+CMS ERROR: 321"]
        assert [line[:8] for line in (await said(there, "AT+CMGL=4"))[::2]] == ["+CMGL: 2", "OK"]
        assert await said(there, "AT+CMGD=1") == ["OK"]
        assert lying(there) == [1, 2]
        assert await said(there, "AT+CMGD=1,4") == ["OK"]
        assert lying(there) == [1]


async def test_the_messages_own_command_spares_it() -> None:
    async with house() as there:
        put(there, "hello")
        there.sms("AT+CMGD=1,4")
        await asyncio.sleep(10)
        assert there.sent == [(FRIEND, "\r\nOK\r\n")]
        assert lying(there) == []
        assert [end for _, end, _ in there.outcomes] == ["ok"]


async def test_many_at_once_are_all_spared() -> None:
    """More than are on their way at once: the rest waits where it lies, and the door waits for none of it."""
    async with house() as there:
        for number in range(19):
            put(there, f"AT+CPBR={number + 1}", FRIEND)
        put(there, "hello")
        begun = asyncio.get_running_loop().time()
        assert await said(there, "AT+CMGD=1,4", Door.TCP) == ["OK"]
        assert asyncio.get_running_loop().time() - begun < 5
        assert len(lying(there)) == 19
        await asyncio.sleep(120)
        assert lying(there) == []
        assert len(there.sent) == 19


STORED = [Status.REC_UNREAD, Status.REC_READ, Status.STO_UNSENT, Status.STO_SENT]


@pytest.mark.parametrize("flag", [1, 2, 3, 4])
@pytest.mark.parametrize("swept", [False, True])
async def test_a_flag_deletes_of_others_what_it_always_did(flag: int, *, swept: bool) -> None:
    """TS 27.005 3.5.4, whoever has read them before: the daemon's reading counts for nothing."""
    kept = {1: [1, 3, 4, 5], 2: [1, 3, 5], 3: [1, 5], 4: [5]}[flag]
    async with house() as there:
        put(there, "one", status=Status.REC_UNREAD)
        put(there, "two", status=Status.REC_READ)
        lay(there, Message(Status.STO_UNSENT, SUBMIT.encode()))
        lay(there, Message(Status.STO_SENT, SUBMIT.encode()))
        if swept:
            await asyncio.sleep(70)
        there.module.faults.plant("AT+CSQ", Plant(None, seconds=2.0))
        put(there, "AT+CSQ", FRIEND)
        assert await said(there, f"AT+CMGD=1,{flag}", Door.TCP) == ["OK"]
        assert lying(there) == kept


@pytest.mark.parametrize("swept", [False, True])
async def test_unread_is_what_no_door_has_read(*, swept: bool) -> None:
    async with house() as there:
        put(there, "one")
        if swept:
            await asyncio.sleep(70)
        assert (await said(there, "AT+CMGL=1")) == ["OK"]
        (header, *_, final) = await said(there, "AT+CMGL=0")
        assert (header.split(",")[:2], final) == (["+CMGL: 1", "0"], "OK")
        assert await said(there, "AT+CMGL=0") == ["OK"]
        assert (await said(there, "AT+CMGL=4"))[0].startswith("+CMGL: 1,1,")
        assert (await said(there, "AT+CMGR=1"))[0].startswith("+CMGR: 1,")


@pytest.mark.parametrize("swept", [False, True])
async def test_unread_in_text_mode(*, swept: bool) -> None:
    async with house() as there:
        there.sms("one\nand more", STRANGER) if swept else put(there, "one\nand more")
        put(there, "two")
        await asyncio.sleep(70 * swept)
        assert await said(there, "AT+CMGF=1") == ["OK"]
        assert (await said(there, "AT+CMGR=1"))[0].startswith(f'+CMGR: "REC UNREAD","{STRANGER}"')
        assert (await said(there, "AT+CMGR=1"))[0].startswith(f'+CMGR: "REC READ","{STRANGER}"')
        listed = await said(there, "AT+CMGL")
        assert listed[0].startswith(f'+CMGL: 2,"REC UNREAD","{STRANGER}"')
        assert listed[1:] == ["two", "OK"]
        listed = await said(there, 'AT+CMGL="REC READ"')
        assert [line.split(",")[0] for line in listed] == ["+CMGL: 1", "one", "and more", "+CMGL: 2", "two", "OK"]
        assert (await said(there, "AT+CMGF?", instance=2))[0] == "+CMGF: 0"


async def test_an_answer_is_framed_as_ever() -> None:
    async with house() as there:
        put(there, "AT+CSQ", FRIEND)
        put(there, "hello")
        framed = (await outcome(there, "AT+CSQ;+CMGL=4;+CSQ")).framed
        assert framed.startswith("\r\n+CSQ: 14,99\r\n\r\n+CMGL: 2,0,")
        assert framed.endswith("\r\n+CSQ: 14,99\r\n\r\nOK\r\n")


async def test_one_that_comes_behind_the_look_is_hidden_and_still_unread() -> None:
    async with house() as there:
        put(there, "one")
        there.module.faults.plant("+CMGL", Plant(2, seconds=1.0))
        run = start(there, "AT+CMGL=4", Door.TCP)
        await until(lambda: there.wire.seen.count("AT+CMGL=4") == 1, every=0.01)
        await asyncio.sleep(1.01)
        there.sms("two", STRANGER)
        there.sms("AT+CSQ")
        found = await run.outcome
        assert found is not None
        assert [line.split(",")[0] for line in found.lines[::2]] == ["+CMGL: 1"]
        assert there.wire.seen.count("AT+CMGL=4") == 2
        await asyncio.sleep(5)
        assert there.sent == [(FRIEND, SIGNAL)]
        assert [line.split(",")[:2] for line in (await said(there, "AT+CMGL=0"))[:-1:2]] == [["+CMGL: 2", "0"]]


async def test_a_deletion_by_flag_spares_what_comes_meanwhile() -> None:
    async with house() as there:
        for _ in range(5):
            put(there, "hello")
        there.module.faults.plant("+CMGD", Plant(None, seconds=0.5))
        run = start(there, "AT+CMGD=1,4", Door.TCP)
        await asyncio.sleep(1.2)
        there.sms("AT+CSQ")
        there.sms("two", STRANGER)
        found = await run.outcome
        assert found is not None
        assert found.final == "OK"
        await asyncio.sleep(10)
        assert there.sent == [(FRIEND, SIGNAL)]
        assert len(lying(there)) == 1


async def test_the_first_message_that_is_not_deleted_ends_the_command() -> None:
    async with house() as there:
        for _ in range(3):
            put(there, "hello")
        there.module.faults.plant("AT+CMGD=2", HINDERED)
        assert await said(there, "AT+CMGD=1,4;+CSQ") == ["+CMS ERROR: 500"]
        assert lying(there) == [2, 3]
        assert ran(there) == 0


@pytest.mark.parametrize("command", ["AT+CMGL=4", "AT+CMGR=1", "AT+CMGD=1", "AT+CMGD=1,4"])
async def test_what_hinders_the_look_is_the_result(command: str) -> None:
    async with house() as there:
        put(there, "AT+CSQ", FRIEND)
        there.module.faults.plant("+CMGL", Plant(1, final="+CMS ERROR: 314"))
        assert await said(there, command, Door.TCP) == ["+CMS ERROR: 314"]
        assert there.wire.seen[0] in {"AT+CMGL=4", "AT+CMGL=0"}
        assert not [line for line in there.wire.seen if line.startswith("AT+CMGD")]


@pytest.mark.parametrize("command", ["AT+CMGD=1", "AT+CMGD=2", "AT+CMGD=1,4"])
async def test_nothing_is_deleted_while_something_new_can_not_be_recorded(command: str) -> None:
    """A disk that fails: reading goes on (REQ-12), and shows no command all the same."""
    async with house() as there:
        put(there, "hello")
        put(there, "AT+CSQ", FRIEND)
        there.disk.broken = "no space left"
        found = await outcome(there, command, Door.TCP)
        assert (found.end, found.reason, found.final) == (End.ERROR, Reason.STORAGE, "+CME ERROR: 20")
        assert lying(there) == [1, 2]
        assert [line[:8] for line in (await said(there, "AT+CMGL=4"))[::2]] == ["+CMGL: 1", "OK"]
        assert await said(there, "AT+CMGR=2") == ["+CMS ERROR: 321"]
        there.disk.broken = ""
        assert await said(there, "AT+CMGD=1,4") == ["OK"]
        await asyncio.sleep(100)
        assert there.sent == [(FRIEND, SIGNAL)]
        assert lying(there) == []


async def test_a_disk_that_hangs_holds_the_port_for_a_moment_only() -> None:
    async with house() as there:
        put(there, "AT+CSQ", FRIEND)
        there.disk.hung = True
        begun = asyncio.get_running_loop().time()
        assert (await outcome(there, "AT+CMGD=1,4", Door.TCP)).reason is Reason.STORAGE
        assert RECORD_WAIT <= asyncio.get_running_loop().time() - begun < RECORD_WAIT + 2
        assert await said(there, "AT+CMGR=1", Door.TCP) == ["+CMS ERROR: 321"]
        assert lying(there) == [1]
        there.disk.hung = False


async def test_a_gateway_that_stops_lets_nobody_delete_what_is_new() -> None:
    async with house() as there:
        there.module.faults.plant("AT+CSQ", Plant(seconds=3.0))
        run = start(there, "AT+CSQ;+CMGL=4;+CMGD=1,4", Door.TCP)
        await asyncio.sleep(0.5)
        stopping = asyncio.create_task(there.daemon.runner.close(20))
        put(there, "AT+CSQ", FRIEND)
        found = await run.outcome
        assert found is not None
        assert (found.reason, found.lines) == (Reason.STORAGE, ("+CSQ: 14,99",))
        await stopping
        assert lying(there) == [1]


async def test_what_lay_there_before_the_service_was_switched_on_is_anybodys() -> None:
    """SMS-2: it will not be run, so it is listed and deleted as any SMS."""
    async with house(enabled=False) as there:
        put(there, "AT+CSQ", FRIEND)
        there.module.faults.plant("+CPMS", Plant(1, seconds=1.0))
        run = start(there, "AT#SMSATRUN=1;+CMGL=4", Door.LOCAL)
        found = await run.outcome
        assert found is not None
        assert found.lines[0].startswith("+CMGL: 1,0,")
        await asyncio.sleep(10)
        assert there.sent == []
        assert await said(there, "AT+CMGD=1,4") == ["OK"]
        assert lying(there) == []


@pytest.mark.parametrize("command", ["AT+CMGL=4", "AT+CMGR=1", "AT+CMGD=1,4", 'AT+CMGL=7;+CMGD="x"'])
async def test_while_the_service_is_off_the_module_gets_the_command_as_it_is(command: str) -> None:
    async with house(enabled=False) as there:
        put(there, "AT+CSQ", FRIEND)
        await outcome(there, command, Door.TCP)
        assert there.wire.seen == [command]


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("AT+CMGL=7", "+CMS ERROR: 304"),
        ("AT+CMGR=x", "+CMS ERROR: 321"),
        ("AT+CMGD=1,9", "+CMS ERROR: 304"),
        ("AT+CMGR=9", "+CMS ERROR: 321"),
        ("AT+CMGD=9", "OK"),
    ],
)
async def test_what_has_no_sense_or_no_message_reaches_no_message(command: str, answer: str) -> None:
    async with house() as there:
        put(there, "hello")
        assert await said(there, command) == [answer]
        assert [line for line in there.wire.seen if line == command] in ([], ["AT+CMGR=9"])
        assert lying(there) == [1]


async def test_tests_and_what_is_beside_them_are_the_modules() -> None:
    async with house() as there:
        assert (await said(there, "AT+CSQ;+CMGD=?;+CMGL=?"))[-1] == "OK"
        assert there.wire.seen == ["AT+CSQ;+CMGD=?;+CMGL=?"]


async def test_an_instance_in_another_memory_sees_that_one() -> None:
    async with house() as there:
        put(there, "here")
        put(there, "there", memory="ME")
        put(there, "AT+CSQ", FRIEND, memory="ME")
        await said(there, 'AT+CPMS="ME"', instance=2)
        assert [line[:8] for line in (await said(there, "AT+CMGL=4", instance=2))[::2]] == ["+CMGL: 1", "OK"]
        assert await said(there, "AT+CMGD=1,4", instance=2) == ["OK"]
        await asyncio.sleep(5)
        assert there.sent == [(FRIEND, SIGNAL)]
        assert (lying(there), lying(there, "ME")) == ([1], [])


async def test_a_memory_without_messages_is_left_to_the_module() -> None:
    async with house() as there:
        for name in ('+CPMS="SR"', '+CPMS="SR","SM","SM"'):
            there.module.faults.plant(name, Plant(None, final="OK"))
        await said(there, 'AT+CPMS="SR"', instance=2)
        clear(there)
        await said(there, "AT+CMGL=4", instance=2)
        assert there.wire.seen.count("AT+CMGL=4") == 1


async def test_a_port_that_goes_meanwhile_is_the_outcome() -> None:
    async with house() as there:
        there.module.faults.plant("+CMGL", Plant(1, seconds=5.0))
        run = start(there, "AT+CMGL=4", Door.TCP)
        await asyncio.sleep(1)
        there.wire.lose()
        found = await run.outcome
        assert found is not None
        assert found.reason is Reason.PORT_DOWN


async def test_where_the_instance_reads_is_asked_if_it_is_not_known() -> None:
    async with house() as there:
        put(there, "AT+CSQ", FRIEND)
        there.daemon.own.home = lambda: ""
        there.module.faults.plant("+CPMS?", Plant(1, final="+CMS ERROR: 310"))
        assert await said(there, "AT+CMGD=1,4") == ["+CMS ERROR: 310"]
        assert await said(there, "AT+CMGD=1,4") == ["OK"]
        await asyncio.sleep(5)
        assert there.sent == [(FRIEND, SIGNAL)]


async def test_a_memory_that_does_not_open_is_the_result() -> None:
    async with house() as there:
        put(there, "hello")
        await said(there, 'AT+CPMS="ME"', instance=2)
        await said(there, "AT+CMGL=4", instance=1)
        there.module.faults.plant('+CPMS="ME","SM","SM"', Plant(None, final="+CMS ERROR: 302"))
        assert await said(there, "AT+CMGD=1,4", instance=2) == ["+CMS ERROR: 302"]
        assert lying(there) == [1]


async def test_one_that_no_two_readings_agree_on_is_hidden_and_spared() -> None:
    async with house() as there:
        put(there, "one")
        put(there, "two")
        numbers = iter(range(1000))
        plain = there.wire.garble

        def garble(data: bytes) -> bytes:
            if b"+CMGR: 1" not in data:
                return plain(data)
            return data[:-12] + b"%04X" % next(numbers) + data[-8:]

        there.wire.garble = garble
        assert await said(there, "AT+CMGD=1,4") == ["OK"]
        assert lying(there) == [1, 2]
        there.wire.garble = plain
        assert await said(there, "AT+CMGD=1,4") == ["OK"]
        assert lying(there) == []


async def test_before_the_ledger_was_read_no_command_is_shown_and_nothing_deleted() -> None:
    lives = Lives()
    lives.disk.refuse("no space left")
    there = await lives.start(wait=False)
    await until(lambda: there.daemon.module.state.value == "ready")
    put(there, "hello")
    put(there, "AT+CSQ", FRIEND)
    assert (await outcome(there, "AT+CMGD=1,4", Door.TCP)).reason is Reason.STORAGE
    assert [line[:8] for line in (await said(there, "AT+CMGL=4"))[::2]] == ["+CMGL: 1", "OK"]
    assert lying(there) == [1, 2]
    await lives.end()


async def test_after_a_kill_what_was_recorded_first_is_run_once() -> None:
    """The door's deletion left the message where it lay, and its command is on disk."""
    lives = Lives()
    there = await lives.start()
    await asyncio.sleep(1)
    put(there, "AT+CSQ", FRIEND)
    there.module.faults.plant("AT+CSQ", Plant(None, seconds=1.0))
    put(there, "hello")
    there.module.faults.plant("+CMGD", Plant(1, seconds=5.0))
    run = start(there, "AT+CMGD=1,4", Door.TCP)
    await until(lambda: "AT+CMGD=2" in there.wire.seen, every=0.01)
    await lives.kill()
    assert not run.outcome.done() or run.outcome.result() is None or run.outcome.result().end is not End.OK  # type: ignore[union-attr]
    there = await lives.start()
    await asyncio.sleep(30)
    assert there.sent == [(FRIEND, SIGNAL)]
    assert lives.wire.ran("AT+CSQ") == 1
    await lives.end()


async def test_a_report_on_somebody_elses_message_is_shown_at_once() -> None:
    async with house() as there:
        now = Timestamp.of(there.clock.now())
        report = StatusReport(7, Address.parse(STRANGER), now, now).encode()
        lay(there, Message(Status.REC_UNREAD, report))
        (header, pdu, final) = await said(there, "AT+CMGL=0", Door.TCP)
        assert (header[:11], pdu, final) == ("+CMGL: 1,0,", report.hex().upper(), "OK")
        assert await said(there, "AT+CMGD=1,1") == ["OK"]
        assert lying(there) == []


async def test_commands_for_messages_keep_their_place_in_a_line() -> None:
    async with house() as there:
        put(there, "one")
        put(there, "two")
        found = await said(there, "AT+CSQ;+CMGR=2;+CMGD=2;+CMGL=4;+CSQ", Door.TCP)
        assert [line[:8] for line in found[::2]] == ["+CSQ: 14", found[2][:8], found[4][:8], "OK"]
        assert [line.partition(":")[0] for line in (found[1], found[3], found[5])] == ["+CMGR", "+CMGL", "+CSQ"]
        assert lying(there) == [1]
