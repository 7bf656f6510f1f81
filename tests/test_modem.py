# SPDX-License-Identifier: Apache-2.0
"""The module's side of the daemon, in the daemon."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from atrund.atrun.request import Door, End, Reason, Request
from atrund.atrun.secrets import Secret
from atrund.config.values import Module, Queue, Recovery, Sms, Weights
from atrund.control import LINE_MAX, StatusAnswer, encode
from atrund.daemon import build
from atrund.ledger import Ledger
from atrund.modem import ARRIVAL, ARRIVALS_MAX, PLACES_SHOWN
from atrund.module.keeper import HOLD
from atrund.module.lifecycle import State
from atrund.module.neighbours import SETTLE
from atrund.module.port import Port, Receiver
from atrund.module.tending import WATCH_EVERY
from atrund.service import Service
from atrund.sim.faults import Plant
from atrund.sim.module import SimModule
from atrund.sim.state import Options, Sim
from atrund.sim.store import Message, Status
from tests.support.asking import outcome, said, start
from tests.support.keeping import no_threads
from tests.support.lives import Lives
from tests.support.virtual import FRIEND, PORT, AtOnce, House, VirtualClock, Wire, config, deliver, running
from tests.support.waiting import status, until

pytestmark = pytest.mark.looptime

CLASS_1 = 0x15


def ask(house: House, line: str, rid: str, *, door: Door = Door.LOCAL, timeout: float = 60) -> Any:  # noqa: ANN401 - a run
    return house.daemon.runner.start(Request(rid=rid, door=door, peer="root", line=line, timeout=timeout))


async def queue_of(house: House) -> list[dict[str, Any]]:
    places: list[dict[str, Any]] = (await status(house))["queue"][PORT]
    return places


class Broker:
    """Writes down what it is told."""

    connected = False

    def __init__(self, house: House) -> None:
        self.told: list[str] = []
        house.daemon.broker = house.daemon.telling.broker = self  # type: ignore[assignment]

    def tell(self, topic: str, _payload: object) -> None:
        self.told.append(topic)

    def report(self) -> dict[str, object]:
        return {"connected": False}

    async def say_goodbye(self, _reason: str) -> None:
        pass


# The queue


async def test_the_status_shows_who_has_the_port_and_who_waits_in_which_place() -> None:
    async with running() as house:
        assert await queue_of(house) == []
        house.module.faults.plant("+COPS?", Plant(1, seconds=30.0))
        runs = [ask(house, "AT+COPS?", "r0")]
        await asyncio.sleep(1)
        runs += [ask(house, "AT+CSQ;+CREG?;+CPIN?;+CSQ;+CSQ;+CSQ", "r1"), ask(house, "AT+CSQ", "r2")]
        await asyncio.sleep(1)
        runs.append(ask(house, 'AT+CLCK="SC",2,"1234"', "r3", door=Door.TCP))
        await asyncio.sleep(1)
        assert await queue_of(house) == [
            {"place": 0, "door": "local", "id": "r0", "command": "+COPS", "for_s": 3.0},
            {"place": 1, "door": "tcp", "id": "r3", "command": "+CLCK", "for_s": 1.0},
            {"place": 2, "door": "local", "id": "r1", "command": "+CSQ;+CREG;+CPIN;+CSQ;+CSQ;…", "for_s": 2.0},
            {"place": 3, "door": "local", "id": "r2", "command": "+CSQ", "for_s": 2.0},
        ]
        for run in runs:
            await run.outcome
        assert await queue_of(house) == []


async def test_no_secret_that_ran_into_a_name_is_shown() -> None:
    async with running() as house:
        house.module.faults.plant("+COPS?", Plant(1, seconds=10.0))
        runs = [ask(house, "AT+COPS?", "r0"), ask(house, "AT+CPIN1234", "r1"), ask(house, f"AT+{'X' * 500}", "r2")]
        await asyncio.sleep(1)
        shown = json.dumps(await queue_of(house))
        assert "1234" not in shown
        assert "X" * 30 not in shown
        for run in runs:
            run.give_up()
            await run.outcome


async def test_a_long_queue_fits_into_a_status() -> None:
    given = config(queue=Queue(depth=1000))
    async with running(given) as house:
        house.module.faults.plant("+COPS?", Plant(1, seconds=30.0))
        first = ask(house, "AT+COPS?", "r0")
        await asyncio.sleep(1)
        runs = [ask(house, "AT+CSQ", f"r{number}" * 4, door=Door.TCP) for number in range(1, 900)]
        await asyncio.sleep(1)
        places = await queue_of(house)
        assert len(places) == PLACES_SHOWN + 2
        assert places[-1] == {"more": 899 - PLACES_SHOWN}
        assert len(encode(StatusAnswer(await house.daemon.status()))) < LINE_MAX
        for run in runs:
            run.give_up()
        await first.outcome


async def test_weights_are_those_of_the_configuration() -> None:
    given = config(queue=Queue(weights=Weights(tcp=3)))
    async with running(given) as house:
        house.module.faults.plant("+COPS?", Plant(1, seconds=10.0))
        runs = [ask(house, "AT+COPS?", "r0", door=Door.TCP)]
        await asyncio.sleep(1)
        runs += [
            ask(house, "AT+CSQ", f"{door.value}{number}", door=door)
            for number in range(3)
            for door in (Door.LOCAL, Door.TCP)
        ]
        await asyncio.sleep(1)
        order = [place["id"] for place in await queue_of(house)]
        assert order == ["r0", "local0", "tcp0", "tcp1", "local1", "tcp2", "local2"]
        for run in runs:
            await run.outcome


# SMS in every memory


async def test_a_class_1_sms_that_came_into_me_while_the_daemon_was_away_is_found_at_the_start() -> None:
    no_threads()
    lives = Lives(options=Options(quirks=(("class1_me", True),)))
    house = await lives.start()
    await lives.kill()
    lives.module.network.deliver(deliver("AT+CSQ", dcs=CLASS_1, at=lives.clock.now()).encode())
    assert lives.module.store.used("ME") == 1
    house = await lives.start()
    await until(lambda: house.sent)
    assert house.sent == [(FRIEND, "\r\n+CSQ: 14,99\r\n\r\nOK\r\n")]
    await until(lambda: not lives.module.store.used("ME"))
    assert lives.module.store.memory3 == "SM"
    await lives.end()


async def test_one_that_was_never_announced_is_found_within_the_hour_and_after_a_recovery_at_once() -> None:
    async with running() as house:
        message = deliver("AT+CSQ", dcs=CLASS_1, at=house.clock.now())
        house.module.store.add("ME", Message(Status.REC_UNREAD, message.encode()))
        await asyncio.sleep(600)
        assert house.sent == []
        await asyncio.sleep(3600)
        assert len(house.sent) == 1
        message = deliver("AT+CREG?", dcs=CLASS_1, at=house.clock.now())
        house.module.store.add("ME", Message(Status.REC_UNREAD, message.encode()))
        house.wire.lose()
        await until(lambda: len(house.sent) == 2)


async def test_what_lay_in_any_memory_before_the_service_was_on_is_not_run() -> None:
    """SMS-2."""
    no_threads()
    lives = Lives()
    for memory in ("SM", "ME"):
        message = deliver(f"AT+CSQ //{memory}", at=lives.clock.now())
        lives.module.store.add(memory, Message(Status.REC_UNREAD, message.encode()))
    house = await lives.start()
    await asyncio.sleep(3 * 3600)
    assert house.sent == []
    assert [lives.module.store.used(memory) for memory in ("SM", "ME")] == [1, 1]
    await lives.end()


# The PIN


@pytest.mark.parametrize("step", range(20, 44))
async def test_a_wrong_pin_is_sent_once_wherever_the_daemon_is_killed(step: int) -> None:
    """MOD-9: kill -9 at any step, be it between the record and the PIN, or the PIN and its answer."""
    no_threads()
    given = config(module=Module(port=PORT, pin=Secret("9999"), send_pin=True, telemetry=0.0))
    lives = Lives(given, Options(quirks=(("pin_lock", True),)))
    tried = 0
    for life in range(3):
        lives.module.card.tries = 3  # as after a telephone took the card and was given the right one
        await lives.start(wait=False)
        if not life:
            lives.kill_at(step)
        await asyncio.sleep(200)
        tried += 3 - lives.module.card.tries
        await lives.kill()
    assert tried <= 1
    lives.module.close()
    lives.disk.store.close()


async def test_those_steps_lie_around_the_pin() -> None:
    """The test above kills before the PIN is recorded at its first step, and behind its answer at its last."""
    no_threads()
    given = config(module=Module(port=PORT, pin=Secret("9999"), send_pin=True, telemetry=0.0))
    for step, recorded, tried in ((20, "", 0), (43, "one", 1)):
        lives = Lives(given, Options(quirks=(("pin_lock", True),)))
        await lives.start(wait=False)
        lives.kill_at(step)
        await asyncio.sleep(200)
        kept = lives.disk.rows("SELECT value FROM meta WHERE name = 'refused pins'")
        assert (bool(kept), 3 - lives.module.card.tries) == (bool(recorded), tried)
        await lives.kill()
        lives.module.close()
        lives.disk.store.close()


async def test_a_pin_that_the_disk_does_not_take_is_not_held_for_refused() -> None:
    no_threads()
    given = config(module=Module(port=PORT, pin=Secret("1234"), send_pin=True, telemetry=0.0))
    module = SimModule(Options(quirks=(("pin_lock", True),)))
    disk = AtOnce()
    disk.broken = "disk full"
    async with running(given, module=module, disk=disk, until=None) as house:
        await asyncio.sleep(60)
        assert house.daemon.module.state is State.PIN_NEEDED
        assert not [line for line in house.wire.seen if "+CPIN=" in line]
        disk.broken = ""
        house.wire.lose()
        await until(lambda: house.daemon.module.state is State.READY)


# What is told


async def test_info_is_told_where_it_changed_and_the_state_each_time() -> None:
    async with running() as house:
        broker = Broker(house)
        for stat in (2, 1, 2, 1):
            house.module.set_registration(stat)
            await asyncio.sleep(WATCH_EVERY + 5)
        assert broker.told.count("info") == 1
        assert broker.told.count("module/state") >= 4
        house.wire.lose()
        await until(lambda: house.daemon.module.state is State.READY)
        assert broker.told.count("info") == 1


async def test_who_else_is_at_the_port_is_in_the_status_and_on_mqtt(capsys: pytest.CaptureFixture[str]) -> None:
    no_threads()
    clock, disk = VirtualClock(), AtOnce()
    module = SimModule(Options(), clock.now)
    wire = Wire(module)
    looked: list[Path] = []

    def others(path: Path) -> tuple[str, ...]:
        looked.append(path)
        return (f"ModemManager has {path} open as well",)

    daemon = build(config(), ledger=Ledger(disk), clock=clock, open_port=wire.open, others=others, notify=Service({}))
    await daemon.start()
    house = House(daemon, wire, module, disk, clock)
    broker = Broker(house)
    await asyncio.sleep(SETTLE + 10)
    assert (await status(house))["module"]["others"] == [f"ModemManager has {PORT} open as well"]
    assert looked == [Path(PORT)]
    assert broker.told.count("module/state") == 1 + broker.told[:-1].count("module/state")
    wire.lose()
    await asyncio.sleep(SETTLE + 30)
    assert len(looked) == 2, "it is looked for again when the port came back"
    assert capsys.readouterr().out.count("somebody else at the port") == 1
    await daemon.stop()
    module.close()


# A command that does not end in time


@pytest.mark.parametrize(
    ("recovery", "shared", "rebooted", "told"),
    [
        (Recovery(), False, False, ""),
        (Recovery(timeout_action="reboot"), False, True, "module rebooted"),
        (Recovery(timeout_action="reboot", reboot="always"), True, True, "module rebooted"),
        (Recovery(timeout_action="reboot", reboot="unused"), True, False, "module not rebooted"),
        (Recovery(timeout_action="reboot", per_hour=0), False, False, "module not rebooted"),
    ],
)
async def test_the_action_at_the_deadline(recovery: Recovery, told: str, *, shared: bool, rebooted: bool) -> None:
    """REQ-7: the vendor reboots; here that is asked for, limited, recorded, and needs more on a shared module."""
    given = config(recovery=recovery, module=Module(port=PORT, shared=shared, telemetry=0.0))
    async with running(given) as house:
        house.module.faults.plant("+CSQ", Plant(1, seconds=30.0))
        run = ask(house, "AT+CSQ", "r0", timeout=10)
        await asyncio.sleep(1)
        waiting = ask(house, "AT+CREG?", "r1")
        outcome = await run.outcome
        assert outcome.end is End.TIMEOUT
        other = await waiting.outcome
        if rebooted:
            assert (other.end, other.reason) == (End.REJECTED, Reason.PORT_DOWN)
        else:
            assert other.end is End.OK
        await asyncio.sleep(HOLD)
        assert ("AT#REBOOT" in house.wire.seen) == rebooted
        assert house.daemon.module.state is State.READY
        assert [event for event, _ in house.told if event.startswith("module")] == ([told] if told else [])
        assert (await ask(house, "AT+CSQ", "r2").outcome).end is End.OK


async def test_a_deadline_of_the_daemons_own_reboots_nothing() -> None:
    given = config(recovery=Recovery(timeout_action="reboot"), module=Module(port=PORT, shared=False, telemetry=60.0))
    async with running(given) as house:
        house.module.faults.plant("+CESQ", Plant(3, seconds=8.0))
        await asyncio.sleep(600)
        assert "AT#REBOOT" not in house.wire.seen
        assert house.daemon.module.state is State.READY


async def test_a_radio_that_is_off_is_in_the_status_and_left_off() -> None:
    async with running() as house:
        house.module.set_sim(Sim.READY)
        assert house.wire.end is not None
        house.wire.end.sim.module.radio.functionality = 4
        house.module.set_registration(0)
        await asyncio.sleep(WATCH_EVERY + 5)
        module = (await status(house))["module"]
        assert module["state"] == "not registered"
        assert "switched off by a command or another tenant (+CFUN: 4)" in module["detail"]
        await asyncio.sleep(3600)
        assert b"+CFUN=" not in b"".join(house.wire.written)


# Instances mapped to ports

SOME, OTHER = "AT+CGMM;+CGMM", "AT+CGMR;+CGMR"
"""Lines that the daemon itself never sends."""


@contextlib.asynccontextmanager
async def two_ports(*mapped: int) -> AsyncIterator[tuple[House, Wire, Wire]]:
    clock = VirtualClock()
    module = SimModule(Options(), clock.now)
    wires = {"/dev/a": Wire(module), "/dev/b": Wire(module)}

    async def open_port(path: str, baudrate: int, receiver: Receiver) -> Port:
        return await wires[path].open(PORT, baudrate, receiver)

    given = config(
        module=Module(port="/dev/a", extra_ports=("/dev/b",), instance_ports=mapped, telemetry=0.0), sms=Sms()
    )
    disk = AtOnce()
    daemon = build(given, ledger=Ledger(disk), clock=clock, open_port=open_port, notify=Service({}))
    await daemon.start()
    house = House(daemon, wires["/dev/a"], module, disk, clock)
    await until(lambda: len([one for one in daemon.keepers if one.channel is not None]) == 2)
    await until(lambda: all(one.module.state.usable for one in daemon.keepers))
    yield house, wires["/dev/a"], wires["/dev/b"]
    await daemon.stop()
    module.close()
    assert not daemon.failed.done()


def on(wire: Wire, line: str) -> int:
    return wire.seen.count(line)


async def test_an_instance_has_its_port_and_several_may_share_one() -> None:
    async with two_ports(1, 2, 2) as (house, first, second):
        lines = {instance: "AT" + ";".join(["+CGMR"] * (instance + 1)) for instance in (1, 2, 3)}
        for instance, line in lines.items():
            for _ in range(2):
                assert (await outcome(house, line, instance=instance)).end is End.OK
        counts = [[on(wire, line) for line in lines.values()] for wire in (first, second)]
        assert counts == [[2, 0, 0], [0, 2, 2]]


async def test_a_mapped_port_is_waited_for_though_another_is_idle_and_an_instance_that_is_not_mapped_has_that() -> None:
    async with two_ports(1, 1) as (house, _, second):
        house.module.faults.plant("+COPS?", Plant(1, seconds=20.0))
        long = start(house, "AT+COPS?", instance=1)
        await asyncio.sleep(1)
        began = asyncio.get_running_loop().time()
        mapped, free = start(house, SOME, instance=2), start(house, OTHER, instance=3)
        await free.outcome
        assert asyncio.get_running_loop().time() - began < 2
        assert on(second, OTHER) == 1
        await mapped.outcome
        assert asyncio.get_running_loop().time() - began > 15
        assert on(second, SOME) == 0
        await long.outcome


async def test_while_a_mapped_port_is_away_its_instance_is_refused_and_the_others_are_served() -> None:
    async with two_ports(0, 2) as (house, first, second):
        second.absent = "no such device"
        second.lose()
        await asyncio.sleep(1)
        refused = await outcome(house, SOME, instance=2)
        assert (refused.end, refused.reason) == (End.REJECTED, Reason.PORT_DOWN)
        assert refused.detail == "the port of instance 2 is absent or being set up"
        assert on(first, SOME) == 0
        assert (await outcome(house, OTHER, instance=1)).end is End.OK
        second.absent = ""
        await until(lambda: house.daemon.keepers[1].module.state.usable, 120)
        assert (await outcome(house, SOME, instance=2)).end is End.OK
        assert on(second, SOME) == 1


async def test_a_ring_that_comes_on_every_port_is_one() -> None:
    """CMD-5 counts rings, and an instance is to see what one port would show."""
    async with two_ports() as (house, first, _):
        heard: list[tuple[str, ...]] = []
        with house.daemon.instances.listening(1, heard.append):
            house.module.urc("RING")
            await asyncio.sleep(1)
            assert heard == [("RING",)]
            house.module.ports[1].urc("NO CARRIER:3")
            await asyncio.sleep(1)
            assert heard[1:] == [("NO CARRIER:3",)], "what a further port says alone is not lost"
            first.absent = "no such device"
            first.lose()
            await asyncio.sleep(1)
            house.module.urc("RING")
            await asyncio.sleep(1)
            assert heard[2:] == [("RING",)]


async def test_what_the_module_keeps_per_port_is_put_in_place_on_the_instances_own() -> None:
    async with two_ports(1, 2) as (house, first, second):
        assert (await said(house, "AT+CMGF=1", instance=2))[-1] == "OK"
        assert (await said(house, "AT+CMGF?", instance=2)) == ["+CMGF: 1", "OK"]
        assert (await said(house, "AT+CMGF?", instance=1)) == ["+CMGF: 0", "OK"]
        assert on(second, "AT+CMGF=1")
        assert not on(first, "AT+CMGF=1")


async def test_what_is_reported_is_a_matter_of_the_first_port_whatever_the_mapping() -> None:
    async with two_ports(2, 2, 2) as (house, first, second):
        assert (await said(house, "AT+CREG=1", instance=2)) == ["OK"]
        assert on(first, "AT+CREG=1")
        assert not on(second, "AT+CREG=1")


async def test_who_asks_while_the_module_is_first_set_up_waits_for_it() -> None:
    async with running(until=None) as house:
        run = house.daemon.runner.start(Request("r1", Door.LOCAL, "me", "AT#CGMI"))
        ended = await run.outcome
        assert ended is not None
        assert (ended.end, ended.lines) == (End.OK, ("#CGMI: Telit",))


async def test_no_more_wait_so_than_a_queue_holds() -> None:
    async with running(until=None) as house:
        runs = [house.daemon.runner.start(Request(f"r{n}", Door.LOCAL, "me", "AT")) for n in range(ARRIVALS_MAX + 3)]
        await asyncio.sleep(0)
        ends = [ended.end for run in runs if (ended := await run.outcome) is not None]
        assert ends == [End.OK] * ARRIVALS_MAX + [End.REJECTED] * 3


async def test_one_that_does_not_come_is_waited_for_half_a_minute() -> None:
    module = SimModule(Options(), VirtualClock().now)
    module.hang()
    async with running(until=None, module=module) as house:
        began = asyncio.get_running_loop().time()
        run = house.daemon.runner.start(Request("r1", Door.LOCAL, "me", "AT#CGMI"))
        ended = await run.outcome
        assert ended is not None
        assert (ended.end, ended.reason) == (End.REJECTED, Reason.PORT_DOWN)
        assert asyncio.get_running_loop().time() - began <= ARRIVAL + 1


async def test_without_a_port_and_with_one_that_is_not_there_it_is_refused_at_once() -> None:
    async with running(config(module=Module()), until=None) as house:
        run = house.daemon.runner.start(Request("r1", Door.LOCAL, "me", "AT#CGMI"))
        ended = await run.outcome
        assert ended is not None
        assert ended.reason is Reason.PORT_DOWN
        assert ended.queued_ms < 1000
