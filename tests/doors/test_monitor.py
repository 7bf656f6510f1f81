# SPDX-License-Identifier: Apache-2.0
"""The event monitor in a whole daemon: which events run what is stored, how often, and with whose rights (CMD-5)."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from atrund.atrun.events import Event, default_event
from atrund.atrun.policy import DoorPolicy
from atrund.atrun.request import Door, Request
from atrund.atrun.rules import Hazards, Verb, read_rule
from atrund.config.values import Sms
from atrund.doors.monitor import HOUR, RUNS_MAX, WAITING_MAX
from tests.support.virtual import FRIEND, STRANGER, AtOnce, House, config, running
from tests.support.waiting import ready, until

pytestmark = pytest.mark.looptime

STORED = "AT+CGMR"


def event(label: str, *, parameters: tuple[int | str, ...] | None = None, **given: Any) -> Event:  # noqa: ANN401 - fields
    default = default_event(label)
    values = {"on": True, "command": STORED, "door": "local", "peer": "uid 0", **given}
    return Event(parameters=default.parameters if parameters is None else parameters, **values)


@asynccontextmanager
async def watching(
    *events: tuple[str, Event], sms: bool = False, disk: AtOnce | None = None, on: bool = True
) -> AsyncIterator[House]:
    """A daemon whose monitor was switched on before its module was there."""
    given = config() if sms else config(sms=Sms())
    async with running(given, disk=disk, until=None) as house:
        settings = house.daemon.nvm.settings
        values: Mapping[str, Any] = {"monitor.enabled": on, **{f"monitor.event.{label}": one for label, one in events}}
        house.daemon.nvm.settings = settings.changed(values)
        house.daemon.services.follow(settings)
        await ready(house)
        if sms:
            await until(lambda: house.daemon.sms.state == "open")
        await asyncio.sleep(5)
        yield house


def runs(house: House, line: str = STORED) -> list[tuple[str, str | None]]:
    """How what was stored ended."""
    rows = house.disk.rows("SELECT event, reason FROM audit WHERE door = 'monitor' AND line = ? ORDER BY n", line)
    return [(how, why) for how, why in rows]


OK = ("ok", None)


async def command(house: House, line: str, door: Door = Door.LOCAL, **given: Any) -> str | None:  # noqa: ANN401 - fields
    given = {"rid": line, "peer": "uid 0", "timeout": 60, **given}
    outcome = await house.daemon.runner.start(Request(door=door, line=line, **given)).outcome
    assert outcome is not None
    await asyncio.sleep(1)
    return outcome.final


async def test_it_is_stored_switched_on_run_and_told_as_commands_say() -> None:
    async with running(config(sms=Sms()), until=None) as house:
        await ready(house)
        said: list[tuple[str, ...]] = []
        with house.daemon.instances.listening(2, said.append):
            line = f'AT#EVMONI="RING",1;#EVMONI="RING",1,0,"{STORED}";#EVMONI="RING",1,1,2;#ENAEVMONI=1'
            assert await command(house, line, instance=2) == "OK"
            house.module.urc("RING")
            await asyncio.sleep(5)
            assert runs(house) == []
            house.module.urc("RING")
            await asyncio.sleep(5)
        assert runs(house) == [OK]
        assert (f"#EVMONI: {STORED}",) in said
        assert ("event RING", None) in house.told
        assert house.disk.rows("SELECT peer FROM audit WHERE door = 'monitor' AND line <> ''") == [("local uid 0",)]
        outcome = await house.daemon.runner.start(
            Request(rid="r", door=Door.LOCAL, peer="", line="AT#ENAEVMONI?")
        ).outcome
        assert outcome is not None
        assert outcome.lines == ("#ENAEVMONI: 1,1",)
        assert await command(house, "AT#ENAEVMONI=0") == "OK"
        for _ in range(2):
            house.module.urc("RING")
        await asyncio.sleep(60)
        assert runs(house) == [OK]


async def test_at_the_start_and_when_it_registers() -> None:
    given = [(label, event(label)) for label in ("STARTUP", "REGISTERED", "ROAM")]
    async with watching(*given) as house:
        assert runs(house) == [OK, OK]
        house.module.set_registration(0)
        await asyncio.sleep(300)
        assert runs(house) == [OK] * 2
        house.module.set_registration(5)
        await asyncio.sleep(300)
        assert runs(house) == [OK] * 4
        house.module.set_registration(1)
        await asyncio.sleep(300)
        assert runs(house) == [OK] * 4, "from roaming to home is no new registration"
        house.wire.lose()
        await asyncio.sleep(300)
        assert runs(house) == [OK] * 5


@pytest.mark.parametrize(
    ("codes", "times"),
    [
        (['+CGEV: NW DEACT "IP","10.0.0.1",1'], 1),
        (["+CGEV: ME PDN DEACT 1", "+CGEV: NW DETACH"], 1),
        (["+CGEV: ME DETACH"], 1),
        (["NO CARRIER"], 1),
        (["RING", "NO CARRIER"], 0),
        (["+CGEV: NW PDN ACT 1"], 0),
        (["NO CARRIER:1"], 0),
    ],
)
async def test_a_context_that_goes(codes: Iterable[str], times: int) -> None:
    async with watching(("CONTDEACT", event("CONTDEACT"))) as house:
        assert "AT+CGEREP=1,0" in house.wire.seen, "the module is asked to tell"
        for code in codes:
            house.module.urc(code)
        await asyncio.sleep(5)
        assert runs(house) == [OK] * times


async def test_rings_of_two_calls_are_not_counted_together() -> None:
    async with watching(("RING", event("RING", parameters=(2,)))) as house:
        for _ in range(3):
            house.module.urc("+CRING: VOICE")
            await asyncio.sleep(11)
        assert runs(house) == []
        for _ in range(4):
            house.module.urc("RING")
            await asyncio.sleep(5)
        assert runs(house) == [OK], "at the second ring, and no other"


@pytest.mark.parametrize("sms", [True, False])
async def test_a_text_in_a_message_that_is_none_of_ours(*, sms: bool) -> None:
    async with watching(("SMSIN", event("SMSIN", parameters=("wake",))), sms=sms) as house:
        house.sms("nothing", STRANGER)
        await asyncio.sleep(5)
        assert runs(house) == []
        house.sms("please wake up", STRANGER)
        await asyncio.sleep(5)
        assert runs(house) == [OK]
        if sms:
            house.sms("AT+CSQ //wake", FRIEND)
            await asyncio.sleep(5)
            assert runs(house) == [OK], "a message that is ours is no event"


async def test_a_message_that_can_not_be_read_stops_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    async with watching(("SMSIN", event("SMSIN")), ("RING", event("RING"))) as house:
        monitor = house.daemon.monitor
        monitor.sms("SM", 1, "no pdu")
        monitor.sms("XX", 99, "")
        house.wire.lose()
        monitor.sms("SM", 1, "")
        await asyncio.sleep(100)
        house.module.urc("RING")
        await asyncio.sleep(5)
        assert runs(house) == [OK]
        for _ in range(WAITING_MAX + 1):
            monitor.sms("SM", 50, "")
        await asyncio.sleep(60)
        said = capsys.readouterr().out
        assert said.count("an event is passed over: too many wait") == 1
        assert "sms not looked at" in said


async def test_at_most_six_times_an_hour_for_each_event() -> None:
    async with watching(("RING", event("RING")), ("CONTDEACT", event("CONTDEACT"))) as house:
        for _ in range(RUNS_MAX + 3):
            house.module.urc("RING")
            await asyncio.sleep(20)
        assert runs(house) == [OK] * RUNS_MAX
        said = ("event RING not run", "6 runs within the hour already")
        assert house.told.count(said) == 1
        house.module.urc("NO CARRIER")
        await asyncio.sleep(20)
        assert runs(house) == [OK] * (RUNS_MAX + 1), "another event has an hour of its own"
        await asyncio.sleep(HOUR)
        house.module.urc("RING")
        await asyncio.sleep(20)
        assert runs(house) == [OK] * (RUNS_MAX + 2)


async def test_a_boot_loop_ends_by_itself(tmp_path_factory: pytest.TempPathFactory) -> None:
    """REQ-11: the hour is one of running, however often the daemon starts."""
    path = tmp_path_factory.mktemp("ledger") / "ledger.db"
    for boot in range(RUNS_MAX + 3):
        disk = AtOnce(path)
        async with watching(("STARTUP", event("STARTUP")), disk=disk) as house:
            assert len(runs(house)) == min(boot + 1, RUNS_MAX)


async def test_what_can_not_be_counted_is_not_run() -> None:
    async with watching(("RING", event("RING"))) as house:
        house.disk.broken = "disk full"
        house.module.urc("RING")
        await asyncio.sleep(5)
        assert STORED not in house.wire.seen[-3:]
        house.disk.broken = ""
        house.module.urc("RING")
        await asyncio.sleep(RINGS_APART)
        house.module.urc("RING")
        await asyncio.sleep(5)
        assert runs(house) == [OK]


RINGS_APART = 20.0


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"command": "AT+CFUN=4"}, "policy"),
        ({"command": "AT+CFUN=4", "door": "sms", "peer": FRIEND}, "policy"),
        ({"command": 'AT#EVMONI="RING",1,0,""'}, "policy"),
        ({"command": 'AT#TCPATRUNFRWL=1,"1.2.3.4","255.255.255.255"'}, "policy"),
        ({"command": "AT#ENAEVMONI?", "door": "tcp", "peer": "10.0.0.1"}, None),
        ({"command": "ATD*99#"}, "data_mode"),
        ({"command": 'AT+CGMR"'}, "bad_request"),
        ({"door": "nobody"}, "policy"),
    ],
)
async def test_it_has_the_rights_of_a_remote_door_and_no_more(given: Mapping[str, Any], reason: str | None) -> None:
    async with watching(("RING", event("RING", **given))) as house:
        house.module.urc("RING")
        await asyncio.sleep(5)
        rows = house.disk.rows("SELECT event, reason FROM audit WHERE door = 'monitor' AND line <> ''")
        assert rows == [("ok" if reason is None else "rejected", reason)]


@pytest.mark.parametrize("door", ["sms", "tcp", "mqtt", "local"])
async def test_it_has_the_rights_of_the_door_that_stored_it_and_no_more(door: str) -> None:
    async with watching(("RING", event("RING", door=door, peer="+39347"))) as house:
        policies = dict(house.daemon.own._policies)
        rule = read_rule({"deny": "+CGMR", "peer": "guest" if door in {"tcp", "mqtt"} else "+39347"})
        policies[Door(door)] = DoorPolicy(Verb.ALLOW, (rule,), Hazards.ALLOW)
        house.daemon.own._policies = policies
        house.module.urc("RING")
        await asyncio.sleep(5)
        assert runs(house) == [("rejected", "policy")]
        (row,) = house.disk.rows("SELECT peer, rule FROM audit WHERE door = 'monitor' AND line <> ''")
        assert row[0] == f"{door} +39347"
        assert row[1].startswith(f"stored through the {door} door: +CGMR")


async def test_who_stored_it_leaves_the_device_masked() -> None:
    """POL-3."""
    async with watching() as house:
        mirror = house.daemon._mirror
        assert mirror.peer(Door.MONITOR, f"sms {FRIEND}") == f"sms +********{FRIEND[-4:]}"
        assert mirror.peer(Door.MONITOR, "local uid 0") == "local uid 0"
        assert mirror.peer(Door.SMS, FRIEND) == f"+********{FRIEND[-4:]}"


async def test_an_event_that_nobody_tells_of_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    async with watching(("VBATT", event("VBATT")), ("GPIO1", event("GPIO1", command=""))) as house:
        settings = house.daemon.nvm.settings
        house.daemon.services.follow(settings)
    said = [line for line in capsys.readouterr().out.splitlines() if "stored and not watched" in line]
    assert len(said) == 1
    assert "VBATT" in said[0]


async def test_while_it_is_off_nothing_runs() -> None:
    given = [(label, event(label)) for label in ("STARTUP", "REGISTERED", "RING", "CONTDEACT", "SMSIN")]
    async with watching(*given, on=False) as house:
        for code in ("RING", "NO CARRIER"):
            house.module.urc(code)
        house.sms("x", STRANGER)
        await asyncio.sleep(60)
        assert runs(house) == []
        assert "AT+CGEREP=1,0" not in house.wire.seen
