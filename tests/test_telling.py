# SPDX-License-Identifier: Apache-2.0
"""What the broker is told of the daemon's own accord, with the whole daemon under virtual time."""

import asyncio
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from atrund.atrun.request import Door, Request
from atrund.config.mqtt import Homeassistant, Mqtt
from atrund.config.values import Module, Sms
from atrund.sim.state import Sim
from atrund.telling import FIRST
from tests.support.asking import outcome
from tests.support.telling import BASE, Broker, reload, telling
from tests.support.virtual import PORT, AtOnce, House

pytestmark = pytest.mark.looptime

ON = Mqtt(enabled=True, homeassistant=Homeassistant(enabled=True))
DISCOVERY = "homeassistant/device/atrund__node/config"


# module/state and info.


async def test_the_state_has_what_the_contract_names(monkeypatch: pytest.MonkeyPatch) -> None:
    async with telling(monkeypatch, module=Module(port=PORT, telemetry=10.0)) as (_, broker):
        await asyncio.sleep(30)
        state = broker.of("module/state")[-1]
        assert {key: state[key] for key in ("state", "port", "sim", "registration", "operator", "technology")} == {
            "state": "ready",
            "port": PORT,
            "sim": "ready",
            "registration": "home",
            "operator": "vodafone IT",
            "technology": None,
        }
        assert (state["rssi_dbm"], state["sms_used"], state["sms_total"]) == (-85, 0, 20)
        assert state["detail"] == ""
        assert all(retained and qos == 1 for _, topic, _, retained, qos in broker.published if "module/state" in topic)


async def test_a_signal_that_flickers_is_not_told_and_one_that_fades_is(monkeypatch: pytest.MonkeyPatch) -> None:
    async with telling(monkeypatch, module=Module(port=PORT, telemetry=10.0)) as (house, broker):
        await asyncio.sleep(30)
        before = len(broker.published)
        for rssi in itertools.islice(itertools.cycle((15, 14, 13, 14)), 40):
            house.module.set_signal(rssi, 99)
            await asyncio.sleep(10)
        assert len(broker.published) == before
        for rssi in (13, 12, 11, 10):
            house.module.set_signal(rssi, 99)
            await asyncio.sleep(10)
        told = [state["rssi_dbm"] for state in broker.of("module/state")]
        assert told[-2:] == [-89, -93], "by each 4 dBm, from what was told last"


async def test_what_changes_nothing_is_not_told_while_the_signal_flickers(monkeypatch: pytest.MonkeyPatch) -> None:
    async with telling(monkeypatch, module=Module(port=PORT, telemetry=10.0)) as (house, broker):
        await asyncio.sleep(30)
        told = len(broker.of("module/state"))
        house.module.set_signal(13, 99)
        await asyncio.sleep(30)
        for _ in range(5):
            house.daemon.telling.look()
        assert len(broker.of("module/state")) == told
        status: Any = await house.daemon.status()
        assert status["module"]["rssi_dbm"] == -87, "who asks gets the reading as it is"


async def test_why_it_is_away_is_told_as_long_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    async with telling(monkeypatch) as (house, broker):
        house.wire.lose("pulled")
        await asyncio.sleep(60)
        states = broker.of("module/state")
        assert any(state["state"] != "ready" and "pulled" in state["detail"] for state in states)
        assert (states[-1]["state"], states[-1]["detail"]) == ("ready", "")


async def test_without_a_sim_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    async with telling(monkeypatch) as (house, broker):
        house.module.set_sim(Sim.MISSING)
        await asyncio.sleep(200)
        assert (broker.of("module/state")[-1]["state"], broker.of("module/state")[-1]["sim"]) == ("no SIM", "absent")


async def test_without_a_port_both_are_told_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    async with telling(monkeypatch, module=Module(port=""), sms=Sms()) as (_, broker):
        assert broker.of("module/state")[0]["state"] == "off"
        assert broker.of("info")[0]["doors"] == ["mqtt"]


async def test_info_is_told_anew_where_it_changed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async with telling(monkeypatch) as (house, broker):
        told = broker.of("info")
        assert [info["model"] for info in told] == ["", "HE910-D"]
        house.wire.lose()
        await asyncio.sleep(60)
        assert broker.of("info") == told


# urc.


async def test_unsolicited_codes_are_told_with_qos_0_where_that_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    async with telling(monkeypatch) as (house, broker):
        assert house.wire.end is not None
        house.wire.end.inject(b"\r\n#STN: 1\r\n")
        await asyncio.sleep(1)
        assert broker.of("urc") == []
        reload(house, urc=True)
        house.wire.end.inject(b"\r\n#STN: 2\r\n")
        await asyncio.sleep(1)
        assert [(payload["lines"], retained, qos) for _, topic, payload, retained, qos in broker.published[-1:]] == [
            (["#STN: 2"], False, 0)
        ]


# metrics.


async def test_the_metrics_come_a_while_after_each_connection_and_then_in_their_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with telling(monkeypatch) as (_, broker):
        await asyncio.sleep(3000)
        assert broker.of("metrics") == [], "nothing is kept while there is no connection"
        begun = asyncio.get_running_loop().time()
        broker.connect()
        await asyncio.sleep(900 * 3)
        first, *others = (moment - begun for moment in broker.times("metrics"))
        assert FIRST / 2 <= first <= FIRST * 1.5
        assert [round(moment - first) for moment in others] == [900, 1800]
        _, _, _, retained, qos = broker.published[-1]
        assert (retained, qos) == (False, 0)
        broker.connected = False
        await asyncio.sleep(3000)
        assert len(broker.of("metrics")) == 3
        broker.connect()
        await asyncio.sleep(FIRST * 1.5)
        assert len(broker.of("metrics")) == 4
        assert broker.of("metrics")[-1]["connects"] == 2


async def test_a_connection_that_comes_and_goes_costs_no_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    async with telling(monkeypatch) as (_, broker):
        for _ in range(50):
            broker.connect()
            await asyncio.sleep(FIRST / 2 - 1)
        assert broker.of("metrics") == []


async def test_another_interval_counts_from_a_reload_on_and_0_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with telling(monkeypatch, Mqtt(enabled=True, metrics=0.0)) as (house, broker):
        broker.connect()
        await asyncio.sleep(5000)
        assert broker.of("metrics") == []
        reload(house, metrics=10.0)
        await asyncio.sleep(105)
        assert len(broker.of("metrics")) == 10, "the first one comes no later than the others"
        reload(house, metrics=0.0)
        await asyncio.sleep(5000)
        assert len(broker.of("metrics")) == 10


async def test_the_metrics_say_what_was_done(monkeypatch: pytest.MonkeyPatch) -> None:
    async with telling(monkeypatch, Mqtt(enabled=True, metrics=10.0)) as (house, broker):
        broker.connect()
        for line, door in (("AT", Door.LOCAL), ("AT+CSQ", Door.LOCAL), ("AT+CFUN=4", Door.TCP), ("AT+XYZ", Door.TCP)):
            request = Request(rid=line, door=door, peer="p", line=line, timeout=60)
            await house.daemon.runner.start(request).outcome
        house.sms("AT+COPS?")
        await asyncio.sleep(15)
        told = broker.of("metrics")[-1]
        shown = {key: told[key] for key in told if key.startswith(("requests_", "ended_"))}
        assert shown == {
            "requests_sms": 1,
            "requests_tcp": 2,
            "requests_mqtt": 0,
            "requests_local": 2,
            "requests_monitor": 0,
            "ended_ok": 3,
            "ended_error": 1,
            "ended_timeout": 0,
            "ended_rejected": 1,
            "ended_expired": 0,
            "ended_cancelled": 0,
            "ended_lost": 0,
        }
        assert (told["running"], told["waiting"], told["set_ups"], told["kept_out"]) == (0, 0, 1, 0)
        assert (told["connects"], told["missed"], told["dropped"]) == (1, 0, 0)
        assert told["outbox"] == house.disk.rows("SELECT count(*) FROM outbox")[0][0]
        assert told["run_s"] >= told["uptime_s"] >= 10
        assert 10_000 < told["memory_kib"] < 1_000_000
        assert told["cpu_s"] > 0


async def test_a_module_that_was_away_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    async with telling(monkeypatch, Mqtt(enabled=True, metrics=10.0)) as (house, broker):
        broker.connect()
        house.wire.lose()
        await asyncio.sleep(100)
        assert broker.of("metrics")[-1]["set_ups"] == 2


@pytest.mark.parametrize("fault", ["broken", "hung"])
async def test_a_disk_that_does_not_answer_keeps_no_metrics_back(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    async with telling(monkeypatch, Mqtt(enabled=True, metrics=10.0)) as (house, broker):
        broker.connect()
        if fault == "hung":
            house.disk.hung = True
        else:
            house.disk.broken = "no such disk"
        await asyncio.sleep(100)
        told = broker.of("metrics")
        assert len(told) >= 5
        assert (told[-1]["outbox"], told[-1]["dropped"]) == (None, None)
        house.disk.hung = False


# Home Assistant.


def kept(house: House) -> str:
    rows = house.disk.rows("SELECT value FROM meta WHERE name = 'homeassistant'")
    return str(rows[0][0]) if rows else ""


def announced(broker: Broker) -> int:
    return sum(topic == DISCOVERY for _, topic, *_ in broker.published)


async def test_nothing_is_announced_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with telling(monkeypatch) as (house, broker):
        broker.connect()
        assert [topic for topic in broker.retained if not topic.startswith(BASE)] == []
        assert broker.clearing == {}
        assert kept(house) == ""


async def test_the_module_is_announced_and_again_when_it_is_known_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    async with telling(monkeypatch, ON, module=Module(port=PORT, telemetry=10.0)) as (house, broker):
        broker.connect()
        await asyncio.sleep(60)
        house.module.set_signal(3, 99)
        await asyncio.sleep(60)
        assert announced(broker) == 2
        device = json.loads(broker.retained[DISCOVERY])["device"]
        assert (device["model"], device["sw_version"]) == ("HE910-D", "12.00.004")
        assert kept(house) == DISCOVERY


async def test_switched_off_it_is_taken_back_and_forgotten_once_the_broker_did_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with telling(monkeypatch, ON) as (house, broker):
        reload(house, homeassistant=Homeassistant())
        assert [*broker.clearing] == [DISCOVERY]
        assert kept(house) == DISCOVERY
        broker.connect()
        assert DISCOVERY not in broker.retained
        assert kept(house) == ""
        reload(house, homeassistant=Homeassistant(enabled=True))
        assert DISCOVERY in broker.retained
        assert kept(house) == DISCOVERY


async def test_another_prefix_moves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with telling(monkeypatch, ON) as (house, broker):
        broker.connect()
        reload(house, homeassistant=Homeassistant(enabled=True, prefix="ha/main"))
        moved = "ha/main/device/atrund__node/config"
        assert [topic for topic in broker.retained if not topic.startswith(BASE)] == [moved]
        assert kept(house) == moved


async def test_what_a_run_before_announced_is_taken_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async with telling(monkeypatch, ON, disk=AtOnce(tmp_path / "ledger.db")) as (_, broker):
        broker.connect()
    for connects in (False, True):
        async with telling(monkeypatch, disk=AtOnce(tmp_path / "ledger.db")) as (house, broker):
            assert [*broker.clearing] == [DISCOVERY]
            if connects:
                broker.connect()
                assert kept(house) == ""
    async with telling(monkeypatch, disk=AtOnce(tmp_path / "ledger.db")) as (_, broker):
        assert broker.clearing == {}


async def test_with_a_disk_that_does_not_answer_it_is_announced_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = AtOnce()
    disk.broken = "no such disk"
    async with telling(monkeypatch, ON, disk=disk, sms=Sms()) as (house, broker):
        await asyncio.sleep(5)
        assert DISCOVERY in broker.retained
        assert (await outcome(house, "AT")).final == "OK"
