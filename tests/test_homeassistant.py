# SPDX-License-Identifier: Apache-2.0
"""The discovery of Home Assistant, held to its documentation, and its templates to what the daemon publishes."""

import asyncio
import json
import re
from typing import Any, Final

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrund.config.values import Module
from atrund.homeassistant import discovery, identifier
from atrund.records import Stamp, status_record
from atrund.sim.state import Sim
from tests.support.telling import telling
from tests.support.virtual import PORT

BASE: Final = "atrund/edge-1a2b3c4d/"

TOPIC: Final = re.compile(r"homeassistant/device/[a-zA-Z0-9_-]+/config")
"""home-assistant.io, integrations/mqtt, "Discovery topic": <prefix>/<component>/[<node_id>/]<object_id>/config."""
ROOT: Final = frozenset({
    "device", "origin", "components", "availability", "availability_mode", "availability_template",
    "availability_topic", "payload_available", "payload_not_available", "command_topic", "state_topic", "qos",
    "encoding",
})  # fmt: skip
"""There, "Device discovery payload": the shared options."""
DEVICE: Final = frozenset({
    "configuration_url", "connections", "hw_version", "identifiers", "manufacturer", "model", "model_id", "name",
    "serial_number", "suggested_area", "sw_version", "via_device",
})  # fmt: skip
ORIGIN: Final = frozenset({"name", "sw_version", "support_url"})
ENTITY: Final = frozenset({
    "availability", "availability_mode", "availability_template", "availability_topic", "device_class",
    "enabled_by_default", "encoding", "entity_category", "entity_picture", "expire_after", "force_update", "icon",
    "json_attributes_template", "json_attributes_topic", "name", "payload_available", "payload_not_available",
    "platform", "qos", "state_topic", "unique_id", "value_template",
})  # fmt: skip
"""integrations/binary_sensor.mqtt and integrations/sensor.mqtt: what both have."""
OF: Final = {
    "binary_sensor": ENTITY | {"off_delay", "payload_off", "payload_on"},
    "sensor": ENTITY
    | {"last_reset_value_template", "options", "state_class", "suggested_display_precision", "unit_of_measurement"},
}
CLASSES: Final = {"binary_sensor": {"connectivity"}, "sensor": {"signal_strength"}}
"""integrations/binary_sensor and integrations/sensor, "Device class": those that we use."""
UNITS: Final = {"signal_strength": {"dB", "dBm"}}
STATE_MAX: Final = 255
"""Characters of a state (Home Assistant, developers' docs, "States")."""


def made(base: str = BASE, **facts: str) -> tuple[str, dict[str, Any]]:
    return discovery("homeassistant", base, **{"name": "edge-1a2b3c4d", "version": "0.1.0", **facts})


def render(template: str, payload: dict[str, Any]) -> str:
    """As Home Assistant does for MQTT: the payload as `value_json`, and the result stays a text."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined)  # noqa: S701 - no HTML
    return environment.from_string(template).render(value=json.dumps(payload), value_json=payload)


def shown(payload: dict[str, Any]) -> dict[str, str]:
    """What the entities show of a `module/state`."""
    _, found = made()
    return {name: render(one["value_template"], payload) for name, one in found["components"].items()}


# What is published.


@pytest.mark.parametrize("facts", [{}, {"model": "LE910C4-EU", "firmware": "25.30.608"}])
def test_topic_and_payload_are_as_documented(facts: dict[str, str]) -> None:
    topic, payload = made(**facts)
    assert TOPIC.fullmatch(topic)
    assert payload.keys() <= ROOT
    assert {"device", "origin", "components"} <= payload.keys(), "required"
    assert payload["device"].keys() <= DEVICE
    assert payload["device"]["identifiers"]
    assert payload["origin"].keys() <= ORIGIN
    assert payload["origin"]["name"] == "atrund"
    assert all(isinstance(value, str) and value for value in (*payload["origin"].values(), payload["device"]["name"]))
    assert {"model", "sw_version"} & payload["device"].keys() == ({"model", "sw_version"} if facts else set())


@pytest.mark.parametrize("component", made()[1]["components"].values(), ids=lambda one: str(one["name"]))
def test_each_component_is_as_documented(component: dict[str, Any]) -> None:
    platform = component["platform"]
    assert component.keys() <= OF[platform]
    assert {"unique_id", "name", "value_template"} <= component.keys()
    assert re.fullmatch(r"[a-zA-Z0-9_-]+", component["unique_id"])
    assert component.get("entity_category", "diagnostic") == "diagnostic", "the only one that a sensor may have"
    assert component.get("state_class", "measurement") == "measurement"
    if "device_class" in component:
        assert component["device_class"] in CLASSES[platform]
        assert component.get("unit_of_measurement") in UNITS.get(component["device_class"], {None})
    assert ("json_attributes_template" in component) == ("json_attributes_topic" in component)
    for key in ("value_template", "json_attributes_template"):
        if key in component:
            jinja2.Environment().parse(component[key])  # noqa: S701 - as above


def test_what_is_asked_for_is_there_on_the_daemons_own_topics() -> None:
    _, payload = made()
    assert {"connectivity", "signal", "operator", "sms_store"} <= payload["components"].keys()
    assert payload["availability_topic"] == f"{BASE}status"
    topics = {one["json_attributes_topic"] for one in payload["components"].values() if "json_attributes_topic" in one}
    assert {payload["state_topic"], *topics} == {f"{BASE}module/state"}


def test_no_two_entities_have_the_same_name_or_id() -> None:
    components = made()[1]["components"].values()
    for key in ("unique_id", "name"):
        assert len({one[key] for one in components}) == len(components)


def test_it_is_small_enough_for_a_line_that_costs() -> None:
    assert len(json.dumps(made()[1], separators=(",", ":"))) < 3000


# Whose it is.


@pytest.mark.parametrize(
    ("base", "own"),
    [
        ("atrund/edge-1a2b3c4d/", "atrund__edge-1a2b3c4d"),
        ("atrund/edge.site_7/", "atrund__edge_2esite_5f7"),
        ("site/atrund/a/", "site__atrund__a"),
        ("\u00fcber/a/", "_c3_bcber__a"),
    ],
)
def test_the_object_id_is_made_of_prefix_and_node(base: str, own: str) -> None:
    topic, payload = made(base)
    assert topic == f"homeassistant/device/{own}/config"
    assert payload["device"]["identifiers"] == [own]
    assert payload["components"]["signal"]["unique_id"] == f"{own}_signal"


levels = st.text(st.sampled_from("ab._-/2eéZ"), min_size=1, max_size=8)


@given(levels, levels)
def test_two_nodes_never_have_the_same(one: str, other: str) -> None:
    assert (identifier(one) == identifier(other)) == (one == other)
    assert re.fullmatch(r"[a-zA-Z0-9_-]+", identifier(one))


@given(levels, levels)
def test_nor_do_two_entities_of_two_nodes(one: str, other: str) -> None:
    first, second = (
        {component["unique_id"] for component in made(f"{base}/")[1]["components"].values()} for base in (one, other)
    )
    assert first.isdisjoint(second) == (one.rstrip("/") != other.rstrip("/"))


# What it shows, of what the daemon publishes.


@pytest.mark.parametrize("state", ["online", "offline"])
def test_whether_the_device_is_there_is_read_from_its_status(state: str) -> None:
    _, payload = made()
    status = status_record(Stamp("s", "2026-11-22T08:40:00.000Z", known=True), state=state)
    assert render(payload["availability_template"], status) == state
    # Home Assistant's defaults of payload_available and payload_not_available.
    assert {"payload_available", "payload_not_available"}.isdisjoint(payload)


@pytest.mark.looptime
async def test_the_entities_show_what_the_module_is_like(monkeypatch: pytest.MonkeyPatch) -> None:
    async with telling(monkeypatch, module=Module(port=PORT, telemetry=10.0)) as (house, broker):
        first = broker.of("module/state")[0]
        assert set(shown(first).values()) == {"OFF", "off", "None"}, "nothing is known yet, and nothing is made up"
        await asyncio.sleep(30)
        there = broker.of("module/state")[-1]
        assert shown(there) == {
            "connectivity": "ON",
            "state": "ready",
            "registration": "home",
            "operator": "vodafone IT",
            "technology": "None",
            "signal": "-85",
            "rsrp": "None",
            "sms_store": "0",
        }
        house.module.set_signal(99, 99)
        await asyncio.sleep(20)
        assert shown(broker.of("module/state")[-1])["signal"] == "None"
        house.module.set_sim(Sim.MISSING)
        await asyncio.sleep(200)
        without = shown(broker.of("module/state")[-1])
        assert (without["connectivity"], without["state"]) == ("OFF", "no SIM")
        house.wire.absent = "no such device"
        house.wire.lose()
        await asyncio.sleep(60)
        away = shown(broker.of("module/state")[-1])
        assert (away["connectivity"], away["operator"], away["signal"]) == ("OFF", "None", "None")
        assert all(len(text) <= STATE_MAX for state in broker.of("module/state") for text in shown(state).values())


@pytest.mark.parametrize(
    ("used", "total", "percent"),
    [(0, 20, "0"), (1, 3, "33"), (20, 20, "100"), (None, None, "None"), (None, 20, "None"), (0, 0, "None")],
)
def test_the_store_is_shown_in_percent(used: int | None, total: int | None, percent: str) -> None:
    component = made()[1]["components"]["sms_store"]
    state = {"sms_used": used, "sms_total": total}
    assert render(component["value_template"], state) == percent
    assert json.loads(render(component["json_attributes_template"], state)) == {"used": used, "total": total}


def test_the_state_has_its_detail_with_it() -> None:
    template = made()[1]["components"]["state"]["json_attributes_template"]
    attributes = json.loads(render(template, {"detail": 'no "port" <here>', "sim": "ready"}))
    assert attributes == {"detail": 'no "port" <here>', "sim": "ready"}
