# SPDX-License-Identifier: Apache-2.0
"""Every topic is published as docs/contract says; tests/scenarios/test_pages.py types what docs/mqtt.md shows."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from tests.scenarios.conftest import Stage
from tests.scenarios.players import BASE, PATIENCE, Broker, Caller, Program, until
from tests.support import contract

FRIEND: Final = "+393468686711"
ASYNCAPI: Final[dict[str, Any]] = json.loads(contract.ASYNCAPI.read_text(encoding="utf-8"))


class Watcher:
    """mosquitto_sub that sees QoS, the retain flag as it was published, and the properties of MQTT 5."""

    def __init__(self, broker: Broker, folder: Path) -> None:
        command = ["mosquitto_sub", "-h", "127.0.0.1", "-p", str(broker.port), "-V", "mqttv5", "-q", "2", "-d"]
        form = "=%t\t%q\t%r\t%C\t%P\t%x"
        self.program = Program(
            ["stdbuf", "-oL", *command, "--retain-as-published", "-t", BASE + "#", "-F", form], folder / "watched"
        )
        until(lambda: self.program.said("^Subscribed"), "the subscription")

    @property
    def seen(self) -> dict[str, set[tuple[int, bool, str, str]]]:
        """QoS, retain flag, Content Type and the names of the User Properties, by topic."""
        seen: dict[str, set[tuple[int, bool, str, str]]] = {}
        for line in self.program.text.splitlines():
            if line.startswith(f"={BASE}"):
                topic, qos, retained, kind, given, _ = line[1:].split("\t")
                names = " ".join(sorted(pair.partition(":")[0] for pair in given.split()))
                seen.setdefault(topic.removeprefix(BASE), set()).add((int(qos), retained == "1", kind, names))
        return seen


def wanted() -> dict[str, tuple[int, bool, str, str]]:
    """The same as the AsyncAPI document has it."""
    found = {}
    for operation in ASYNCAPI["operations"].values():
        if operation["action"] != "send":
            continue
        key = operation["channel"]["$ref"].removeprefix("#/channels/")
        bound, message = operation["bindings"]["mqtt"], ASYNCAPI["components"]["messages"][key]
        names = " ".join(sorted(message.get("headers", {}).get("required", ())))
        topic = ASYNCAPI["channels"][key]["address"].removeprefix("{prefix}/{node}/")
        found[topic] = (bound["qos"], bound["retain"], message["bindings"]["mqtt"]["contentType"], names)
    return found


@pytest.fixture
def watchers(tmp_path: Path) -> Iterator[Callable[[Broker], Watcher]]:
    with ExitStack() as stack:

        def watch(broker: Broker) -> Watcher:
            watcher = Watcher(broker, tmp_path)
            stack.callback(watcher.program.stop, signal.SIGKILL)
            return watcher

        yield watch


def test_every_topic_is_published_as_it_is_written_down(stage: Stage, watchers: Callable[[Broker], Watcher]) -> None:
    module, broker = stage.module("--send-delay", "0"), stage.broker()
    watcher, ear = watchers(broker), stage.ear(broker)
    daemon = stage.daemon(module, broker)
    daemon.configure(
        mqtt={"urc": True, "metrics": "10s"}, sms={"enabled": True, "numbers": [FRIEND], "others": "publish"}
    )
    daemon.start()
    begun = time.monotonic()
    with Caller(daemon.tcp) as caller:
        caller.ask(b"AT+CSQ\r")
    module.ask("sms", **{"from": "+390000000001", "text": "good morning"})
    module.ask("sms", **{"from": FRIEND, "text": "AT+CSQ"})
    broker.publish("at/request/anna", '{"id":"1","cmd":"AT+CSQ"}')
    broker.publish("at/cancel/anna", '{"id":"1"}')
    topics = wanted()
    missing = topics.keys() - {"metrics"}
    until(lambda: missing <= watcher.seen.keys(), "every topic but metrics")
    until(lambda: "metrics" in watcher.seen, "metrics", PATIENCE + 10 - (time.monotonic() - begun))
    assert daemon.stop() == 0
    ear.hear("status", state="offline")
    seen = {topic: flags for topic, flags in watcher.seen.items() if not topic.startswith(contract.ASKED)}
    assert seen == {topic: {flags} for topic, flags in topics.items()}


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_the_will_is_as_the_farewell(stage: Stage, how: str) -> None:
    broker = stage.broker()
    ear = stage.ear(broker)
    daemon = stage.daemon(None, broker).start()
    online = ear.hear("status", state="online")
    daemon.kill() if how == "killed" else daemon.stop()
    offline = ear.hear("status", state="offline")
    assert (offline["session"], offline["reason"]) == (
        online["session"],
        "connection lost" if how == "killed" else "stopped",
    )


def test_what_is_not_written_down_fails_whoever_hears_it(stage: Stage) -> None:
    broker = stage.broker()
    ear = stage.ear(broker)
    broker.publish("status", '{"v":1,"state":"online"}')
    with pytest.raises(AssertionError, match="status: not as docs/contract has it"):
        ear.hear("status", v=1)
