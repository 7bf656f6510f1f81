# SPDX-License-Identifier: Apache-2.0
import asyncio
from dataclasses import replace
from typing import Any, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrund.config.values import Module as ModuleConfig
from atrund.config.values import Privacy
from atrund.module.telemetry import BUSY_PAUSE, HYSTERESIS_DBM, IDENTITY_AGAIN, Readings, Telemetry, worth_telling
from atrund.module.tending import WATCH_EVERY
from atrund.sim.faults import Plant
from atrund.sim.state import Sim
from tests.support.keeping import Bench, keeping, no_threads
from tests.support.virtual import PORT, House, config, running

EVERY = 300.0
QUESTIONS = ["AT+COPS?", "AT+CSQ", "AT+CESQ", "AT+CPMS?", "AT#RFSTS", "AT#SERVINFO"]


class Reader:
    """Telemetry of a bench."""

    def __init__(self, bench: Bench, *, every: float = EVERY, identity: bool = False) -> None:
        self.told: list[Readings] = []
        self.telemetry = Telemetry(
            every=every, channel=lambda: bench.keeper.channel, on_change=self.told.append, identity=identity
        )
        self.task = asyncio.create_task(self.telemetry.run())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        assert not self.task.done()
        self.task.cancel()


class Told:
    """In the broker's place: the last payload of each topic."""

    connected = False

    def __init__(self, house: House) -> None:
        self.last: dict[str, Any] = {}
        house.daemon.broker = house.daemon.telling.broker = self  # type: ignore[assignment]

    def tell(self, topic: str, payload: object) -> None:
        self.last[topic] = payload

    def report(self) -> dict[str, object]:
        return {"connected": False}

    async def say_goodbye(self, _reason: str) -> None:
        pass


@pytest.mark.looptime
async def test_what_a_umts_module_says() -> None:
    async with keeping(Bench()) as bench, Reader(bench) as reader:
        await asyncio.sleep(5)
        got = reader.telemetry.readings
        assert (got.operator, got.technology, got.rssi_dbm) == ("vodafone IT", None, -85)
        assert (got.rsrp_dbm, got.rsrq_db, got.sms_used, got.sms_total) == (None, None, 0, 20)
        assert [name for name, _ in got.extra] == ["#RFSTS", "#SERVINFO"]
        assert bench.module.identity.imsi not in str(got), "an IMSI is nobody's business"
        assert reader.told == [got]


@pytest.mark.looptime
async def test_what_an_lte_module_says() -> None:
    async with keeping(Bench(model="LE910C1-EUX")) as bench, Reader(bench) as reader:
        await asyncio.sleep(5)
        got = reader.telemetry.readings
        assert (got.operator, got.technology, got.rsrp_dbm, got.rsrq_db) == ("vodafone IT", "LTE", -60, -3.0)
        assert "#SERVINFO" in dict(got.extra)


@pytest.mark.looptime
async def test_what_a_module_does_not_say_is_none() -> None:
    bench = Bench()
    for line in QUESTIONS:
        bench.module.faults.plant(line, Plant(None, final="ERROR"))
    async with keeping(bench), Reader(bench) as reader:
        await asyncio.sleep(5)
        assert reader.telemetry.readings == Readings()
        assert reader.told == []


@pytest.mark.looptime
async def test_who_it_is_is_read_once_and_only_where_it_may_be_told() -> None:
    async with keeping(Bench()) as bench, Reader(bench, identity=True) as reader:
        await asyncio.sleep(2 * EVERY)
        got, identity = reader.telemetry.readings, bench.module.identity
        assert (got.imei, got.iccid) == (identity.imei, identity.iccid)
        assert reader.told[-1] == got
        assert identity.imei not in repr(got)
        assert identity.iccid not in repr(got)
        assert [bench.seen.count(line) for line in ("AT+CGSN", "AT#CCID", "AT+CSQ")] == [1, 1, 2]
    async with keeping(Bench()) as bench, Reader(bench) as reader:
        await asyncio.sleep(EVERY)
        assert (reader.telemetry.readings.imei, reader.telemetry.readings.iccid) == (None, None)
        assert not {"AT+CGSN", "AT#CCID"} & set(bench.seen)


@pytest.mark.looptime
async def test_what_was_not_told_is_asked_again_and_nothing_else_where_the_rest_is_switched_off() -> None:
    bench = Bench()
    bench.module.faults.plant("AT#CCID", Plant(2, final="+CME ERROR: 14"))
    async with keeping(bench), Reader(bench, every=0.0, identity=True) as reader:
        await asyncio.sleep(5)
        assert reader.telemetry.readings == Readings(imei=bench.module.identity.imei)
        await asyncio.sleep(3 * IDENTITY_AGAIN)
        assert reader.telemetry.readings.iccid == bench.module.identity.iccid
        assert [bench.seen.count(line) for line in ("AT+CGSN", "AT#CCID", "AT+CSQ")] == [1, 3, 0]
        assert len(reader.told) == 2


@pytest.mark.looptime
async def test_another_sim_is_read_at_once_and_what_the_last_one_said_is_dropped() -> None:
    async with keeping(Bench()) as bench, Reader(bench, identity=True) as reader:
        await asyncio.sleep(5)
        bench.module.faults.plant("AT#CCID", Plant(1, lines=("#CCID: 89000000000000000001F",), final="OK", seconds=2.0))
        reader.telemetry.look()
        assert (reader.telemetry.readings.imei, reader.telemetry.readings.iccid) == (None, None)
        await asyncio.sleep(1)
        bench.module.faults.plant("AT#CCID", Plant(1, lines=("#CCID: 8900000000000000002",), final="OK"))
        reader.telemetry.look()
        await asyncio.sleep(10)
        assert reader.telemetry.readings.iccid == "8900000000000000002"
        assert "89000000000000000001" not in {got.iccid for got in reader.told}
        assert reader.told[-1].imei == bench.module.identity.imei, "told again, for it was shown as unknown meanwhile"


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("line", "imei"),
    [
        ("353613080341905", "353613080341905"),
        ("+CGSN: 353613080341905", "353613080341905"),
        ('+CGSN: "353613080341905"', "353613080341905"),
        ("ERROR", None),
        ("0001767746", None),
        ("353613080341905353613080341905", None),
    ],
)
async def test_forms_of_an_imei(line: str, imei: str | None) -> None:
    bench = Bench()
    bench.module.faults.plant("AT+CGSN", Plant(None, lines=(line,), final="OK"))
    async with keeping(bench), Reader(bench, identity=True) as reader:
        await asyncio.sleep(5)
        assert reader.telemetry.readings.imei == imei


@pytest.mark.looptime
@pytest.mark.parametrize("lines", [("garbage",), ("+CSQ:", "+COPS:", "+CESQ:", "+CPMS:"), ("+CSQ: -1,99",)])
async def test_nonsense_is_none(lines: tuple[str, ...]) -> None:
    bench = Bench()
    for line in QUESTIONS[:4]:
        bench.module.faults.plant(line, Plant(None, lines=lines, final="OK"))
    async with keeping(bench), Reader(bench) as reader:
        await asyncio.sleep(5)
        assert replace(reader.telemetry.readings, extra=()) == Readings()


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("command", "line", "field", "value"),
    [
        ("+CSQ", "+CSQ: 0,99", "rssi_dbm", -113),
        ("+CSQ", "+CSQ: 31,0", "rssi_dbm", -51),
        ("+CSQ", "+CSQ: 32,0", "rssi_dbm", None),
        ("+CSQ", "+CSQ: 99,99", "rssi_dbm", None),
        ("+CSQ", "+CSQ: 99999999999999999999,99", "rssi_dbm", None),
        ("+CESQ", "+CESQ: 99,99,255,255,0,0", "rsrp_dbm", -141),
        ("+CESQ", "+CESQ: 99,99,255,255,0,0", "rsrq_db", -20.0),
        ("+CESQ", "+CESQ: 99,99,255,255,1,97", "rsrq_db", -19.5),
        ("+CESQ", "+CESQ: 99,99,255,255,34,97", "rsrp_dbm", -44),
        ("+CESQ", "+CESQ: 99,99,255,255,255,255", "rsrp_dbm", None),
        ("+CESQ", "+CESQ: 99,99,255,255,255,255", "rsrq_db", None),
        ("+COPS?", "+COPS: 0", "operator", None),
        ("+COPS?", '+COPS: 0,2,"22210",9', "operator", "22210"),
        ("+COPS?", '+COPS: 0,2,"22210",9', "technology", "NB-IoT"),
        ("+COPS?", '+COPS: 0,2,"22210",77', "technology", None),
        ("+CPMS?", '+CPMS: "SM",1,20,"SM",1,20,"SM",3,30', "sms_used", 3),
        ("+CPMS?", '+CPMS: "SM",1,20,"SM",1,20,"SM",3,30', "sms_total", 30),
        ("+CPMS?", '+CPMS: "SM",1,20', "sms_used", None),
    ],
)
async def test_values(command: str, line: str, field: str, value: object) -> None:
    bench = Bench()
    bench.module.faults.plant(command, Plant(None, lines=(line,), final="OK"))
    async with keeping(bench), Reader(bench) as reader:
        await asyncio.sleep(5)
        assert getattr(reader.telemetry.readings, field) == value


@pytest.mark.looptime
async def test_every_so_often_and_told_only_when_it_is_worth_it() -> None:
    async with keeping(Bench()) as bench, Reader(bench) as reader:
        await asyncio.sleep(5)
        bench.since()
        for step in (14, 15, 14, 13):
            bench.module.set_signal(step, 99)
            await asyncio.sleep(EVERY)
        assert bench.seen.count("AT+CSQ") == 4
        assert len(reader.told) == 1
        bench.module.set_signal(20, 99)
        await asyncio.sleep(EVERY)
        assert [got.rssi_dbm for got in reader.told] == [-85, -73]


@pytest.mark.looptime
async def test_a_signal_that_fades_step_by_step_is_told_as_well() -> None:
    async with keeping(Bench()) as bench, Reader(bench) as reader:
        await asyncio.sleep(5)
        for step in range(14, 3, -1):
            bench.module.set_signal(step, 99)
            await asyncio.sleep(EVERY)
        assert [got.rssi_dbm for got in reader.told] == [-85, -89, -93, -97, -101, -105]


@pytest.mark.looptime
async def test_it_waits_while_others_wait_and_they_wait_for_one_question_at_most() -> None:
    async with keeping(Bench(options={"cops_test_delay": 100.0})) as bench:
        long = asyncio.create_task(bench.ask("AT+COPS=?", 180))
        await asyncio.sleep(1)
        waiting = [asyncio.create_task(bench.ask("AT+CSQ", 5)) for _ in range(3)]
        await asyncio.sleep(1)
        bench.since()
        async with Reader(bench):
            await asyncio.sleep(90)
            assert not set(QUESTIONS) & set(bench.seen)
            await asyncio.wait([long, *waiting])
            await asyncio.sleep(2 * BUSY_PAUSE)
            assert "AT#SERVINFO" in bench.seen
    async with keeping(Bench()) as bench:
        for line in QUESTIONS:
            bench.module.faults.plant(line, Plant(None, seconds=2.0))
        async with Reader(bench):
            await asyncio.sleep(1)
            began = asyncio.get_running_loop().time()
            await bench.ask("AT+CREG?")
            assert asyncio.get_running_loop().time() - began < 2.0


@pytest.mark.looptime
async def test_a_module_that_is_away_has_no_readings() -> None:
    async with keeping(Bench()) as bench, Reader(bench) as reader:
        await asyncio.sleep(5)
        assert reader.telemetry.readings.operator is not None
        bench.module.unplug()
        await asyncio.sleep(EVERY + BUSY_PAUSE)
        assert reader.telemetry.readings == Readings()
        assert reader.told[-1] == Readings()
        told = len(reader.told)
        await asyncio.sleep(3600)
        assert len(reader.told) == told
        bench.module.plug()
        await asyncio.sleep(120)
        assert reader.telemetry.readings.operator == "vodafone IT"


@pytest.mark.looptime
async def test_a_question_that_is_not_answered_ends_this_reading_and_no_more() -> None:
    async with keeping(Bench()) as bench, Reader(bench) as reader:
        await asyncio.sleep(5)
        bench.module.faults.plant("+CESQ", Plant(1, seconds=8.0))
        await asyncio.sleep(2 * EVERY)
        assert reader.telemetry.readings.rssi_dbm == -85
        assert len(bench.line.sims) == 1


@pytest.mark.looptime
async def test_the_daemon_shows_it_and_mirrors_none_of_its_commands() -> None:
    no_threads()
    async with running(config(module=ModuleConfig(port=PORT, telemetry=10.0))) as house:
        await asyncio.sleep(100)
        assert house.wire.seen.count("AT+CESQ") > 5
        state = (await house.daemon.status())["module"]
        assert isinstance(state, dict)
        assert (state["operator"], state["rssi_dbm"], state["sms_total"]) == ("vodafone IT", -85, 20)
        assert state["rfsts"].startswith('"222 10"')
        assert state["servinfo"].startswith("10612,-85,")
        assert not {"imei", "iccid"} & state.keys()
        assert house.module.identity.imei not in str(await house.daemon.status())
        assert house.outcomes == []
        assert house.disk.rows("SELECT * FROM outbox") == []


@pytest.mark.looptime
async def test_it_can_be_switched_off() -> None:
    no_threads()
    async with running(config(module=ModuleConfig(port=PORT, telemetry=0.0))) as house:
        await asyncio.sleep(1000)
        assert "AT+CESQ" not in house.wire.seen


@pytest.mark.looptime
async def test_the_daemon_tells_who_module_and_sim_are_where_it_may(capsys: pytest.CaptureFixture[str]) -> None:
    no_threads()
    given = config(module=ModuleConfig(port=PORT, telemetry=0.0), privacy=Privacy(identity=True))
    async with running(given) as house:
        told = Told(house)
        identity = house.module.identity
        await asyncio.sleep(5)
        state: Any = (await house.daemon.status())["module"]
        assert (state["imei"], state["iccid"]) == (identity.imei, identity.iccid)
        house.module.set_sim(Sim.MISSING)
        await asyncio.sleep(WATCH_EVERY + 5)
        assert told.last["module/state"]["iccid"] is None
        house.module.identity = replace(identity, iccid="8900000000000000002")
        house.module.set_sim(Sim.READY)
        await asyncio.sleep(WATCH_EVERY + 5)
        for topic in ("module/state", "info"):
            record = told.last[topic]
            assert (record["imei"], record["iccid"]) == (identity.imei, "8900000000000000002"), topic
        assert house.wire.seen.count("AT+CSQ") == 0
    said = "".join(capsys.readouterr())
    assert said
    assert identity.imei not in said
    assert identity.iccid not in said


@pytest.mark.looptime
async def test_a_port_named_by_its_imei_does_not_tell_it() -> None:
    no_threads()
    name = "imei:353613080341905"
    for identity, shown in ((False, "imei:…1905"), (True, name)):
        given = config(module=ModuleConfig(port=name, telemetry=0.0), privacy=Privacy(identity=identity))
        async with running(given, until=None) as house:
            await asyncio.sleep(5)
            state: Any = (await house.daemon.status())["module"]
            assert state["port"] == shown
            assert state["detail"].startswith("imei:…1905: no port")


@given(st.integers(-120, -50), st.integers(-120, -50))
def test_a_flicker_is_not_worth_telling(before: int, after: int) -> None:
    assert worth_telling(Readings(rssi_dbm=before), Readings(rssi_dbm=after)) == (abs(before - after) >= HYSTERESIS_DBM)
    assert worth_telling(Readings(rsrp_dbm=before), Readings(rsrp_dbm=after)) == (abs(before - after) >= HYSTERESIS_DBM)


@pytest.mark.parametrize(
    ("change", "worth"),
    [
        ({"operator": "I TIM"}, True),
        ({"technology": "LTE"}, True),
        ({"imei": "353613080341905"}, True),
        ({"iccid": "8990011916180288209"}, True),
        ({"sms_used": 1}, True),
        ({"rssi_dbm": None}, True),
        ({"rsrp_dbm": -100}, True),
        ({"extra": (("#RFSTS", "x"),)}, False),
        ({"rsrq_db": -3.0}, False),
        ({}, False),
    ],
)
def test_what_is_worth_telling(change: dict[str, object], *, worth: bool) -> None:
    before = Readings(operator="vodafone IT", rssi_dbm=-85)
    assert worth_telling(before, replace(before, **change)) == worth  # type: ignore[arg-type]
