# SPDX-License-Identifier: Apache-2.0
"""Discovery by Home Assistant and the metrics from outside, with mosquitto: what a client sees that comes later."""

import json
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import jinja2
import pytest

from tests.scenarios.conftest import Stage
from tests.scenarios.players import BASE, Broker, Daemon, until
from tests.support import contract

TOPIC = "homeassistant/device/atrund__box/config"


def retained(broker: Broker, topic: str) -> bytes:
    """What a client finds retained on a topic; b"" for nothing."""
    command = ["mosquitto_sub", "-h", "127.0.0.1", "-p", str(broker.port), "-V", "mqttv5", "-W", "1", "-C", "1"]
    return subprocess.run([*command, "-N", "-t", topic], capture_output=True, timeout=20, check=False).stdout


def found(broker: Broker) -> dict[str, Any]:
    payload: dict[str, Any] = json.loads(until(lambda: retained(broker, TOPIC), "the discovery"))
    return payload


def gone(broker: Broker) -> None:
    until(lambda: not retained(broker, TOPIC), "the end of the discovery")


def reload(daemon: Daemon, **options: object) -> None:
    times = len(daemon.logged("configuration reloaded"))
    daemon.configure(mqtt=options)
    assert daemon.program is not None
    daemon.program.process.send_signal(signal.SIGHUP)
    until(lambda: len(daemon.logged("configuration reloaded")) > times, "the reload")


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_the_module_is_found_shows_what_it_is_like_and_is_gone_when_it_is_switched_off(
    stage: Stage, protocol: str
) -> None:
    broker = stage.broker()
    daemon = stage.daemon(stage.module(), broker)
    daemon.configure(mqtt={"protocol": protocol, "homeassistant": {"enabled": True}}, module={"telemetry": 10})
    daemon.start()
    until(lambda: found(broker)["device"].get("model") == "HE910-D", "the model")
    discovery = found(broker)
    assert discovery["state_topic"] == f"{BASE}module/state"
    assert discovery["origin"]["sw_version"] == daemon.status()["atrund"]["version"]

    def shown(name: str) -> str:
        state = json.loads(retained(broker, discovery["state_topic"]))
        return str(jinja2.Template(discovery["components"][name]["value_template"]).render(value_json=state))

    until(lambda: (shown("connectivity"), shown("signal"), shown("sms_store")) == ("ON", "-85", "0"), "its state")
    status = json.loads(retained(broker, discovery["availability_topic"]))
    assert jinja2.Template(discovery["availability_template"]).render(value_json=status) == "online"
    reload(daemon, homeassistant={"enabled": False})
    gone(broker)
    reload(daemon, homeassistant={"enabled": True, "prefix": "ha/main"})
    moved = "ha/main/device/atrund__box/config"
    until(lambda: retained(broker, moved), "the discovery below another prefix")
    # Switched off while it does not run: the next run takes away what the last one left, once.
    daemon.kill()
    daemon.configure(mqtt={"homeassistant": {"enabled": False}})
    assert retained(broker, moved)
    daemon.start()
    until(lambda: not retained(broker, moved), "the end of the discovery")
    assert daemon.stop() == 0


def test_a_broker_that_was_away_hears_of_it_when_it_is_back(stage: Stage) -> None:
    broker = stage.broker()
    daemon = stage.daemon(None, broker)
    daemon.configure(mqtt={"homeassistant": {"enabled": True}})
    daemon.start()
    found(broker)
    broker.stop()
    until(lambda: not daemon.status()["mqtt"]["connected"], "the loss of the broker")
    reload(daemon, homeassistant={"enabled": False})
    broker.restart()
    gone(broker)


def test_a_node_that_may_not_write_there_goes_on_without(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "acl").write_text(f"topic readwrite {BASE}#\ntopic read #\n")
    broker = stage.broker(f"acl_file {tmp_path / 'acl'}")
    daemon = stage.daemon(None, broker)
    daemon.configure(mqtt={"homeassistant": {"enabled": True}})
    daemon.start()
    assert json.loads(until(lambda: retained(broker, f"{BASE}info"), "the info"))["v"] == 1
    daemon.heard("retained message refused by the broker", topic=TOPIC)
    assert retained(broker, TOPIC) == b""
    reload(daemon, homeassistant={"enabled": False})
    assert daemon.status()["mqtt"]["connected"]


def test_the_metrics_come_with_qos_0_and_are_not_retained(stage: Stage) -> None:
    broker = stage.broker()
    ear = stage.ear(broker, "-F", "~%q %r %t %p")
    daemon = stage.daemon(None, broker)
    daemon.configure(mqtt={"metrics": 10})
    daemon.start()
    pattern = rf"^~(\d) (\d) {re.escape(BASE)}metrics (.*)$"
    heard = until(lambda: re.search(pattern, ear.program.text, re.MULTILINE), "the metrics")
    assert (heard[1], heard[2]) == ("0", "0")
    contract.check("metrics", heard[3].encode())
    told = json.loads(heard[3])
    assert told["connects"] == 1
    assert abs(told["memory_kib"] - daemon.memory) < 10_000
    assert 400 < len(heard[3]) < 600, "what the comment on the option says"
