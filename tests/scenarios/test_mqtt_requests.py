# SPDX-License-Identifier: Apache-2.0
"""Bodies, cancellations and what an answer carries, from outside: mosquitto's own clients, MQTT 5 and 3.1.1."""

import base64
import json
import re
import signal
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from tests.scenarios.conftest import Stage
from tests.scenarios.players import BASE, Broker, Daemon, Ear, Module, Program, until

FRIEND = "+393461234567"
SMS = f'AT+CMGF=1;+CMGS="{FRIEND}"'
FILE = bytes(range(256)) * 180


@dataclass(frozen=True, slots=True)
class Scene:
    protocol: str
    module: Module
    broker: Broker
    daemon: Daemon
    ear: Ear

    def ask(self, who: str, **fields: object) -> None:
        self.broker.publish(f"at/request/{who}", json.dumps(fields))

    def cancel(self, who: str, id_: str, *options: str) -> None:
        self.broker.publish(f"at/cancel/{who}", json.dumps({"id": id_}), *options)

    def answer(self, id_: str, **wanted: object) -> dict[str, Any]:
        return self.ear.hear("at/response", id=id_, **wanted)


@pytest.fixture(scope="module", params=["5", "3.1.1"])
def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:  # noqa: ANN401 - a generator
    with ExitStack() as stack:
        stage = Stage(tmp_path_factory.mktemp("mqtt"), stack)
        module, broker = stage.module("--send-delay", "0"), stage.broker()
        ear = stage.ear(broker)
        daemon = stage.daemon(module, broker)
        daemon.configure(mqtt={"protocol": request.param, "reply_prefixes": ["answers/"]})
        daemon.start()
        yield Scene(request.param, module, broker, daemon, ear)


def sent(scene: Scene) -> list[tuple[str, str]]:
    return [(one["to"], one["text"]) for one in scene.module.ask("sent")["sent"]]


def test_an_sms_is_sent(scene: Scene) -> None:
    scene.ask("alice", id="sms", cmd=SMS, body="the pump is on")
    answer = scene.answer("sms")
    assert (answer["state"], answer["final"], answer["detail"]) == ("ok", "OK", None)
    assert re.fullmatch(r"\+CMGS: \d+", answer["lines"][0])
    assert sent(scene)[-1] == (FRIEND, "the pump is on")
    heard = [message for message in scene.ear.messages if not message.topic.startswith("at/request")]
    assert not [message for message in heard if b"pump" in message.payload]
    assert "pump" not in scene.daemon.text


def test_an_sms_is_sent_once_however_often_it_is_asked_for(scene: Scene) -> None:
    """REQ-9, MQ-2: with the same body it is known, with another it is refused."""
    for body in ("once", "once", "twice"):
        scene.ask("alice", id="once", cmd=SMS, body=body)
    assert scene.answer("once", state="rejected")["reason"] == "duplicate"
    assert scene.answer("once", state="ok")
    assert [text for _, text in sent(scene)].count("once") == 1
    assert "twice" not in [text for _, text in sent(scene)]


def test_a_file_of_any_octets_is_written(scene: Scene) -> None:
    line = f'AT#WSCRIPT="big.py",{len(FILE)}'
    scene.ask("alice", id="file", cmd=line, body_b64=base64.b64encode(FILE).decode())
    assert scene.answer("file")["state"] == "ok"
    scene.ask("alice", id="list", cmd="AT#LSCRIPT")
    assert f'#LSCRIPT: "big.py",{len(FILE)}' in scene.answer("list")["lines"]


def test_a_file_of_another_length_is_refused(scene: Scene) -> None:
    scene.ask("alice", id="short", cmd='AT#WSCRIPT="s.py",10', body="nine char")
    answer = scene.answer("short")
    assert (answer["state"], answer["reason"]) == ("rejected", "bad_request")
    assert answer["detail"] == "body: 9 octets, while #WSCRIPT announces 10"
    assert not [line for line in scene.module.seen if "s.py" in line]


def test_each_instance_is_its_own(scene: Scene) -> None:
    scene.ask("alice", id="i2", cmd="AT+CMGF=1", instance=2)
    scene.ask("alice", id="i2?", cmd="AT+CMGF?", instance=2)
    scene.ask("alice", id="i3?", cmd="AT+CMGF?", instance=3)
    assert scene.answer("i2?")["lines"] == ["+CMGF: 1"]
    assert scene.answer("i3?")["lines"] == ["+CMGF: 0"]


def test_one_that_waits_and_one_that_runs_are_cancelled(scene: Scene) -> None:
    scene.module.ask("late", command="AT+GSN", seconds=3.0)
    scene.ask("alice", id="runs", cmd="AT+GSN")
    until(lambda: scene.module.count("AT+GSN"), "the command at the module")
    scene.ask("alice", id="waits", cmd="AT+GMM")
    scene.ask("alice", id="stays", cmd="AT+GMR")
    scene.cancel("alice", "waits")
    waits = scene.answer("waits")
    assert (waits["state"], waits["reason"], waits["duration_ms"]) == ("cancelled", None, 0)
    scene.cancel("bob", "runs")
    assert scene.ear.hear("at/response", id="runs", peer="bob")["reason"] == "bad_request"
    scene.cancel("alice", "runs")
    runs = scene.ear.hear("at/response", id="runs", peer="alice")
    assert runs["state"] == "cancelled"
    assert runs["duration_ms"] > 0
    assert scene.ear.hear("event/response", id="runs", peer="alice")["state"] == "cancelled"
    assert scene.ear.hear("event/session", event="cancel", rid=runs["rid"])["peer"] == "alice"
    assert scene.answer("stays")["state"] == "ok", "the port is free again"
    assert scene.module.count("AT+GMM") == 0


def test_a_cancellation_again_and_of_what_has_ended(scene: Scene) -> None:
    scene.ask("carol", id="done", cmd="AT+CSQ")
    first = scene.answer("done")
    for _ in range(2):
        scene.cancel("carol", "done")
    until(lambda: len(scene.ear.records("at/response", id="done")) == 3, "three answers")
    assert {(one["rid"], one["state"]) for one in scene.ear.records("at/response", id="done")} == {(first["rid"], "ok")}


def test_a_cancellation_of_nothing(scene: Scene) -> None:
    scene.cancel("dave", "none")
    assert scene.answer("none")["reason"] == "bad_request"
    scene.cancel("dave", "kept", "-r")
    try:
        assert scene.answer("kept")["reason"] == ("retained" if scene.protocol == "5" else "bad_request")
    finally:
        scene.broker.publish("at/cancel/dave", "", "-r")
    scene.broker.publish("at/cancel", '{"id":"x","why":"because"}')
    assert "no such key" in scene.answer("x")["detail"]


def test_a_cancellation_by_mosquitto_rr(scene: Scene) -> None:
    """MQTT 5: its Response Topic gets the answer too, with its own Correlation Data."""
    if scene.protocol != "5":
        pytest.skip("a matter of MQTT 5")
    scene.module.ask("late", command="AT+CGMR", seconds=2.0)
    scene.broker.publish("at/request/rr", "AT+CGMR", "-D", "publish", "correlation-data", "mine")
    scene.ear.hear("event/command", id="mine")
    asked = {"topic": "at/cancel/rr", "reply": "reply/cancel"}
    told = scene.broker.request('{"id":"mine"}', "-D", "publish", "correlation-data", "its-own", **asked)
    assert json.loads(told)["state"] == "cancelled"
    again = scene.broker.request("{}", "-D", "publish", "correlation-data", "mine", **asked)
    assert json.loads(again)["rid"] == json.loads(told)["rid"]


def test_what_an_answer_carries(scene: Scene) -> None:
    """MQTT 5: Content Type, Correlation Data, and door and state as User Properties; 3.1.1 has none of them."""
    folder = scene.daemon.folder
    command = ["mosquitto_sub", "-h", "127.0.0.1", "-p", str(scene.broker.port), "-V", "mqttv5", "-q", "1", "-d"]
    topics = ["-t", BASE + "at/response", "-t", BASE + "event/response", "-t", "answers/props"]
    seen = Program(["stdbuf", "-oL", *command, *topics, "-F", "=%t|%C|%D|%P|%E|%p"], folder / f"props{scene.protocol}")
    try:
        until(lambda: seen.said("^Subscribed"), "the subscription")
        line = json.dumps({"id": "props", "cmd": "AT+NONE", "reply_to": "answers/props"})
        scene.broker.publish("at/request/eve", line, "-D", "publish", "correlation-data", "c-9")
        until(lambda: len(re.findall(r"^=.*AT\+NONE", seen.text, re.MULTILINE)) == 3, "three records")
        found = re.findall(r"^=([^|]*)\|([^|]*)\|([^|]*)\|([^|]*)\|([^|]*)\|.*AT\+NONE", seen.text, re.MULTILINE)
    finally:
        seen.stop(signal.SIGKILL)
    five = scene.protocol == "5"
    kind, named = ("application/json", "door:mqtt state:error") if five else ("", "")
    assert {topic: tuple(rest) for topic, *rest in found} == {
        BASE + "event/response": (kind, "", named, ""),
        BASE + "at/response": (kind, "c-9" if five else "", named, ""),
        "answers/props": (kind, "c-9" if five else "", named, ""),
    }


def test_a_body_outlives_a_kill_and_is_gone_with_the_outcome(stage: Stage) -> None:
    """REQ-9: what waited is run with what came with it. POL-3: then nothing of it is left on the disk."""
    module, broker = stage.module("--send-delay", "0"), stage.broker()
    ear = stage.ear(broker)
    daemon = stage.daemon(module, broker).start()
    module.ask("late", command="AT+GSN", seconds=4.0)
    broker.publish("at/request", json.dumps({"id": "slow", "cmd": "AT+GSN"}))
    until(lambda: module.count("AT+GSN"), "the command at the module")
    broker.publish("at/request", json.dumps({"id": "waits", "cmd": SMS, "body": "xyzzy behind a kill"}))
    broker.publish("at/request", json.dumps({"id": "unwanted", "cmd": SMS, "body": "xyzzy taken back"}))
    ear.hear("event/command", id="unwanted", state="accepted")
    daemon.kill()
    broker.publish("at/cancel", '{"id":"unwanted"}')
    daemon.start()
    assert ear.hear("at/response", id="slow")["state"] == "lost"
    assert ear.hear("at/response", id="waits")["state"] == "ok"
    ear.hear("at/response", id="unwanted")
    texts = [one["text"] for one in module.ask("sent")["sent"]]
    assert texts.count("xyzzy behind a kill") == 1
    taken_back = ear.hear("event/response", id="unwanted")["state"] == "cancelled"
    assert texts.count("xyzzy taken back") == (not taken_back)
    assert daemon.stop() == 0
    coded = base64.b64encode(b"xyzzy")[:6]
    for file in daemon.state.iterdir():
        assert b"xyzzy" not in file.read_bytes()
        assert coded not in file.read_bytes()
