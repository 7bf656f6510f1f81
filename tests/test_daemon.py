# SPDX-License-Identifier: Apache-2.0
"""The whole daemon in one process."""

import asyncio
import random
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atrund.atrun.request import Door, End, Reason, Request
from atrund.atrun.secrets import Secret
from atrund.config.values import FirewallRule, Module, Sms, Tcp, TcpUser
from atrund.daemon import Daemon, build
from atrund.doors.sms import SmsDoor
from atrund.ledger import Ledger, tables
from atrund.service import Service
from atrund.sim.faults import Plant
from atrund.sim.module import SimModule
from atrund.sim.state import Options
from atrund.sim.store import Message, Status
from tests.support.virtual import FRIEND, STRANGER, AtOnce, House, VirtualClock, Wire, config, crash, deliver, running
from tests.support.waiting import until

COPS = '\r\n+COPS: 0,0,"vodafone IT"\r\n\r\nOK\r\n'
FORBIDDEN = ("+CFUN=", "+COPS=", "+CGATT", "+CGDCONT", "#SGACT", "#BND", "+CPIN=", "#USBCFG", "#REBOOT", "#SHDN")

virtual_time = pytest.mark.looptime


def local(line: str, rid: str = "r") -> Request:
    return Request(rid=rid, door=Door.LOCAL, peer="root", line=line, timeout=60)


async def answers(house: House, text: str = "AT+COPS?") -> None:
    """Show that an SMS is answered now."""
    before = len(house.sent)
    house.sms(f"{text} //{before}")
    await asyncio.sleep(10)
    assert house.sent[before:] == [(FRIEND, COPS)]


# From end to end.


@virtual_time
async def test_an_sms_is_answered_and_nothing_of_mod_8s_list_is_ever_sent() -> None:
    async with running() as house:
        await answers(house)
        await asyncio.sleep(4 * 3600)
        await answers(house)
        sent = b"".join(house.wire.written).decode()
        assert not [name for name in FORBIDDEN if name in sent]
        assert len(house.wire.opened) == 1


@virtual_time
@pytest.mark.parametrize(("piece", "delay"), [(1, 0.0), (3, 0.05), (1 << 16, 1.5)])
async def test_a_slow_line_that_comes_in_pieces_changes_nothing(piece: int, delay: float) -> None:
    module = SimModule(Options(), VirtualClock().now)
    wire = Wire(module)
    wire.piece, wire.delay = piece, delay
    async with running(module=module, wire=wire, until=120) as house:
        house.sms("AT+COPS?")
        await asyncio.sleep(30)
        assert house.sent == [(FRIEND, COPS)]


@virtual_time
async def test_what_was_stored_while_the_port_was_away_is_run_when_it_is_back() -> None:
    async with running() as house:
        house.wire.absent = "no such device"
        house.wire.lose()
        house.module.store.add("SM", Message(Status.REC_UNREAD, deliver("AT+COPS?").encode()))
        await asyncio.sleep(300)
        assert house.sent == []
        assert house.daemon.sms is not None
        assert house.daemon.sms.state == "waiting"
        house.wire.absent = ""
        await asyncio.sleep(100)
        assert house.sent == [(FRIEND, COPS)]
        assert house.daemon.sms.state == "open"


@virtual_time
async def test_a_module_that_hangs_and_comes_back_is_served_on() -> None:
    async with running() as house:
        house.module.hang()
        run = house.daemon.runner.start(local("AT+CSQ"))
        outcome = await run.outcome
        assert outcome is not None
        assert outcome.end in {End.TIMEOUT, End.LOST}
        await asyncio.sleep(120)
        house.module.resume()
        await asyncio.sleep(300)
        await answers(house)


@virtual_time
async def test_all_doors_get_their_own_answers_side_by_side() -> None:
    async with running() as house:
        asked = [("AT+COPS?", "+COPS"), ("AT+CSQ", "+CSQ"), ("AT+CPIN?", "+CPIN"), ("AT+CREG?", "+CREG")]
        runs = [
            (name, house.daemon.runner.start(replace(local(line, f"{door.value} {number} {line}"), door=door)))
            for number in range(5)
            for door in (Door.LOCAL, Door.TCP)
            for line, name in asked
        ]
        house.sms("AT+COPS?")
        for name, run in runs:
            outcome = await run.outcome
            assert outcome is not None
            assert [line.partition(":")[0] for line in outcome.lines] == [name]
        await asyncio.sleep(5)
        assert house.sent == [(FRIEND, COPS)]


# Rubbish from the module.


@virtual_time
@given(st.integers(0, 2**32))
@settings(max_examples=25)
async def test_random_bytes_from_the_module_stop_nothing_and_leave_nothing_behind(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - a test's
    alphabet = [b"\r\n", b"OK\r\n", b"> ", b"+CMTI: ", b'"SM",', b"1", b"+CMT: ,5\r\n", b"\x1a", b"0791", b"ERROR\r\n"]
    async with running() as house:
        for _ in range(60):
            piece = chance.choice([chance.choice(alphabet), chance.randbytes(chance.randrange(40))])
            if house.wire.end is not None:
                house.wire.end.inject(piece)
            if chance.random() < 0.1:
                house.sms(f"HAT+CSQ //{chance.random()}")
            await asyncio.sleep(chance.choice([0, 0.01, 0.5, 3]))
        assert house.wire.end is not None
        house.wire.end.inject(b"\r\n\r\n")
        await asyncio.sleep(200)
        assert not house.daemon.failed.done()
        assert house.daemon.runner.running == 0
        assert house.daemon.sms is not None
        assert len(house.daemon.sms._busy) == 0
        await answers(house)


@virtual_time
async def test_a_line_that_loses_one_octet_in_a_hundred_delays_and_no_more() -> None:
    chance = random.Random(1)  # noqa: S311 - a test's

    def garble(data: bytes) -> bytes:
        return bytes(octet for octet in data if chance.random() > 0.01)

    async with running() as house:
        house.wire.garble = garble
        for number in range(20):
            house.sms(f"HAT+CSQ //{number}")
            await asyncio.sleep(120)
        house.wire.garble = lambda data: data
        await asyncio.sleep(1200)
        await answers(house)
        assert 15 <= house.wire.written.count(b"AT+CSQ\r") <= 20
        assert house.module.store.used("SM") == 0


@virtual_time
async def test_a_flood_of_announcements_is_bounded_and_loses_nobody() -> None:
    async with running() as house:
        house.sms("AT+COPS?")
        assert house.wire.end is not None
        for number in range(3000):
            house.wire.end.inject(f'\r\n+CMTI: "SM",{number}\r\n'.encode())
        await asyncio.sleep(900)
        assert house.sent == [(FRIEND, COPS)]
        assert house.daemon.sms is not None
        assert len(house.daemon.sms._busy) == 0


# Restarts.


@virtual_time
async def test_what_was_seen_stays_seen_as_long_as_it_lies_there_whatever_is_pruned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "MESSAGES_SPAN", 3600.0)
    path = tmp_path / "ledger.db"
    module = SimModule(Options(), VirtualClock().now)
    module.store.add("SM", Message(Status.REC_UNREAD, deliver("AT+COPS?").encode()))
    given = config(sms=Sms(enabled=True, numbers=(FRIEND,), max_age=0.0, sweep=3600.0))
    async with running(given, module=module, disk=AtOnce(path)) as house:
        await asyncio.sleep(3 * 3600)
        assert house.disk.rows("SELECT verdict FROM messages") == [("seen",)]
        module.store.add("SM", Message(Status.REC_UNREAD, deliver("AT+CSQ", STRANGER).encode()))
        await asyncio.sleep(3 * 3600)
    async with running(given, module=module, disk=AtOnce(path)) as house:
        await asyncio.sleep(100)
        assert house.wire.written.count(b"AT+COPS?\r") == 0
        assert [what for what, _ in house.told] == ["sms not accepted"]


@virtual_time
async def test_a_restart_with_a_module_that_comes_late_refuses_nothing(tmp_path: Path) -> None:
    module = SimModule(Options(), VirtualClock().now)
    path = tmp_path / "ledger.db"
    async with running(module=module, disk=AtOnce(path)) as house:

        def kill() -> None:
            if house.disk.rows("SELECT state FROM requests") == [("recorded",)]:
                house.disk.broken = "killed"

        house.disk.after = kill
        house.sms("AT+COPS?")
        await until(lambda: house.disk.broken)
        await crash(house.daemon)
    wire = Wire(module)
    wire.absent = "no such device"
    async with running(module=module, wire=wire, disk=AtOnce(path), until=None) as house:
        await asyncio.sleep(120)
        wire.absent = ""
        await asyncio.sleep(200)
        assert house.sent == [(FRIEND, COPS)]


# Starting and stopping.


@virtual_time
async def test_without_a_port_the_doors_are_open_and_say_so() -> None:
    async with running(config(module=Module(port="")), until=None) as house:
        await asyncio.sleep(60)
        outcome = await house.daemon.runner.start(local("AT+CSQ")).outcome
        assert outcome is not None
        assert outcome.reason is Reason.PORT_DOWN
        status = await house.daemon.status()
        assert isinstance(status["sms"], dict)
        assert status["sms"]["state"] == "waiting"
        assert house.wire.opened == []


@virtual_time
async def test_the_status_tells_what_is_up() -> None:
    async with running() as house:
        await answers(house)
        status = await house.daemon.status()
        assert isinstance(status["module"], dict)
        assert {name: status["module"][name] for name in ("state", "model", "memory")} == {
            "state": "ready",
            "model": "HE910-D",
            "memory": "SM",
        }
        assert status["requests"] == {"running": 0, "waiting": {}}
        assert isinstance(status["sms"], dict)
        assert (status["sms"]["state"], status["clock"]) == ("open", {"known": True})
        assert isinstance(status["ledger"], dict)
        assert (status["ledger"]["state"], status["ledger"]["missed"], status["ledger"]["requests"]) == ("ok", 0, 1)
        house.disk.broken = "disk full"
        assert (await house.daemon.status())["ledger"] == {"state": "ok", "missed": 0}


@virtual_time
async def test_a_stop_lets_the_running_command_end_and_gives_everything_back() -> None:
    async with running() as house:
        house.module.faults.plant("+CSQ", Plant(seconds=10))
        run = house.daemon.runner.start(local("AT+CSQ"))
        await asyncio.sleep(1)
        await house.daemon.stop()
        outcome = await run.outcome
        assert outcome is not None
        assert outcome.end is End.OK
        assert house.module.ports == []
        await asyncio.sleep(1)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert left == set()


@virtual_time
async def test_a_stop_in_the_middle_of_anything_leaves_no_task_behind() -> None:
    for moment in range(30):
        module = SimModule(Options(), VirtualClock().now)
        async with running(module=module, until=None) as house:
            house.sms("AT+COPS?")
            await asyncio.sleep(moment * 0.05)
        assert module.ports == []
        await asyncio.sleep(1)
        assert asyncio.all_tasks() == {asyncio.current_task()}


@virtual_time
async def test_without_a_ledger_local_commands_go_on() -> None:
    daemon = build(
        config(sms=Sms(enabled=False)),
        ledger=Ledger(None, failure="no room"),
        clock=VirtualClock(),
        open_port=(wire := Wire(SimModule(Options()))).open,
        notify=Service({}),
    )
    await daemon.start()
    await asyncio.sleep(5)
    outcome = await daemon.runner.start(local("AT+CSQ")).outcome
    assert outcome is not None
    assert outcome.end is End.OK
    status = await daemon.status()
    assert isinstance(status["ledger"], dict)
    assert status["ledger"]["state"] == "no room"
    assert int(status["ledger"]["missed"]) > 0
    await daemon.stop()
    wire.module.close()


@virtual_time
async def test_a_room_that_fails_ends_the_daemon_and_does_not_leave_it_half_alive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def fail(_: SmsDoor) -> None:
        await asyncio.sleep(1)
        raise RuntimeError("a fault")

    monkeypatch.setattr(SmsDoor, "run", fail)
    daemon = build(
        config(), ledger=Ledger(AtOnce()), clock=VirtualClock(), open_port=Wire(SimModule()).open, notify=Service({})
    )
    await daemon.start()
    async with asyncio.timeout(5):
        await daemon.failed
    await daemon.stop()


# With real sockets and real time.

TCP = Tcp(
    enabled=True,
    port=0,
    firewall=(FirewallRule(IPv4Address("127.0.0.0"), IPv4Address("255.0.0.0")),),
    users=(TcpUser("user", Secret("secret")),),
)


async def talk(daemon: Daemon, *lines: bytes) -> bytes:
    """Log in, type lines one behind the other's answer, and return all that came."""
    assert daemon.tcp is not None
    reader, writer = await asyncio.open_connection("127.0.0.1", daemon.tcp.ports[0])
    writer.write(b"user\rsecret\r")
    got = b""
    for line in lines:
        writer.write(line)
        got += await reader.readuntil(b"OK\r\n")
    writer.close()
    await writer.wait_closed()
    return got


async def test_tcp_and_sms_side_by_side_over_real_sockets() -> None:
    async with running(config(tcp=TCP)) as house:
        async with asyncio.timeout(20):
            house.sms("AT+COPS?")
            got = await talk(house.daemon, b"AT+CSQ\r", b"AT+CPIN?\r")
            assert b"+CSQ: 14,99" in got
            assert b"+CPIN: READY" in got
            await until(lambda: house.sent)
        assert house.sent == [(FRIEND, COPS)]
        assert ("AT+CSQ", "ok", None) in house.outcomes


async def test_a_port_that_is_taken_is_an_oserror_and_all_can_be_taken_down() -> None:
    async with running(config(tcp=TCP)) as house:
        assert house.daemon.tcp is not None
        taken = config(tcp=replace(TCP, port=house.daemon.tcp.ports[0]))
        second = build(taken, ledger=Ledger(AtOnce()), open_port=Wire(SimModule()).open, notify=Service({}))
        with pytest.raises(OSError, match="in use"):
            await second.start()
        await second.stop()
