# SPDX-License-Identifier: Apache-2.0
"""Other people's MQTT clients as requesters: mosquitto_rr and MQTT.js."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

import pytest

from tests.scenarios.conftest import Stage
from tests.scenarios.players import BASE, PATIENCE, ROOT, Broker, Daemon, Ear, Module

MODULES: Final = ROOT / ".npm/node_modules"
"""Where packaging/bootstrap puts MQTT.js, where there is npm."""
needs_mqtt_js = pytest.mark.skipif(
    shutil.which("node") is None or not (MODULES / "mqtt").is_dir(),
    reason="MQTT.js is not there: packaging/bootstrap test gets it where npm is installed",
)


@dataclass(frozen=True)
class Scene:
    module: Module
    broker: Broker
    daemon: Daemon
    ear: Ear

    def js(self, version: str, *requests: Mapping[str, object]) -> list[dict[str, Any]]:
        """Ask by MQTT.js; returns each answer with its topic and properties."""
        number = {"5": "5", "3.1.1": "4"}[version]
        script = ROOT / "tests/support/requester.js"
        done = subprocess.run(
            ["node", script, str(self.broker.port), number, BASE, *map(json.dumps, requests)],
            env={**os.environ, "NODE_PATH": str(MODULES)},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module", params=["5", "3.1.1"], ids="daemon-{}".format)
def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with ExitStack() as stack:
        stage = Stage(tmp_path_factory.mktemp("requesters"), stack)
        module, broker = stage.module(), stage.broker()
        module.ask("answer", command="AT+CSQ", lines=["+CSQ: 17,0"], always=True)
        daemon = stage.daemon(module, broker)
        daemon.configure(mqtt={"protocol": request.param})
        daemon.start()
        yield Scene(module, broker, daemon, stage.ear(broker))


by_properties = pytest.mark.parametrize("scene", ["5"], indirect=True)
"""Response Topic and Correlation Data are a matter of MQTT 5, on both sides."""


@by_properties
def test_mosquitto_rr(scene: Scene) -> None:
    """It waits for the first message on its Response Topic, and sends no `id`."""
    answer = json.loads(scene.broker.request("AT+CSQ"))
    assert (answer["state"], answer["final"], answer["lines"]) == ("ok", "OK", ["+CSQ: 17,0"])
    assert scene.ear.hear("at/response", rid=answer["rid"])["lines"] == ["+CSQ: 17,0"]


@by_properties
def test_mosquitto_rr_again(scene: Scene) -> None:
    """The same Correlation Data is the same request: it is answered from the record, to where it asks now."""
    same = ("-D", "publish", "correlation-data", "rr-1")
    first = json.loads(scene.broker.request("AT+CIMI", *same, reply="reply/a"))
    second = json.loads(scene.broker.request("AT+CIMI", *same, reply="reply/b"))
    assert (first["rid"], first["lines"]) == (second["rid"], second["lines"])
    assert first["id"] == second["id"] == "rr-1"
    assert scene.module.count("AT+CIMI") == 1


@by_properties
def test_mosquitto_rr_refused(scene: Scene) -> None:
    answer = json.loads(scene.broker.request('{"cmd":"AT+CFUN=4"}', topic="at/request/rr"))
    assert (answer["state"], answer["reason"], answer["peer"]) == ("rejected", "policy", "rr")


@by_properties
def test_mosquitto_rr_with_an_expiry(scene: Scene) -> None:
    expiry = ("-D", "publish", "message-expiry-interval", "60")
    assert json.loads(scene.broker.request("AT+CSQ", *expiry))["state"] == "ok"


@needs_mqtt_js
@by_properties
def test_mqtt_js_by_properties(scene: Scene) -> None:
    properties = {"responseTopic": BASE + "reply/js", "correlationData": "js-1", "messageExpiryInterval": 60}
    asked = {"topic": "at/request/js", "payload": "AT+CSQ", "reply": "reply/js", "options": {"properties": properties}}
    first, second = scene.js("5", asked, asked)
    for answer in (first, second):
        assert answer["topic"] == "reply/js"
        assert (answer["record"]["state"], answer["record"]["lines"]) == ("ok", ["+CSQ: 17,0"])
        assert answer["properties"]["correlationData"] == "js-1"
        assert answer["properties"]["contentType"] == "application/json"
    assert first["record"]["rid"] == second["record"]["rid"]
    assert first["record"]["peer"] == "js"


@needs_mqtt_js
@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_mqtt_js_by_payload(scene: Scene, version: str) -> None:
    """The same in 3.1.1, and whichever version the other side speaks."""
    asked = {
        "topic": "at/request",
        "payload": json.dumps({"id": f"js-{version}", "cmd": "AT#CGMI", "reply_to": BASE + "reply/payload"}),
        "reply": "reply/payload",
    }
    first, second = scene.js(version, asked, asked)
    assert (first["record"]["id"], first["record"]["lines"]) == (f"js-{version}", ["#CGMI: Telit"])
    assert first["record"]["rid"] == second["record"]["rid"]


@needs_mqtt_js
@by_properties
def test_mqtt_js_retained(scene: Scene) -> None:
    """MQ-2. In MQTT 3.1.1 a broker takes the flag off where the subscription stands already."""
    asked = {
        "topic": "at/request/kept",
        "payload": '{"id":"js-kept","cmd":"AT+GMI"}',
        "reply": "at/response",
        "options": {"retain": True},
    }
    (answer,) = scene.js("5", asked)
    scene.broker.publish("at/request/kept", "", "-r")
    assert (answer["record"]["state"], answer["record"]["reason"]) == ("rejected", "retained")
    assert scene.module.count("AT+GMI") == 0
