# SPDX-License-Identifier: Apache-2.0
"""The MQTT door and the mirror from outside, with mosquitto and its own clients, on MQTT 5 and 3.1.1."""

import json
from dataclasses import dataclass
from typing import Any

import pytest

from tests.scenarios.conftest import Stage
from tests.scenarios.players import BASE, PASSWORD, Broker, Caller, Daemon, Ear, Module, until

FRIEND = "+393468686711"
PIN = "48151623"


@dataclass(frozen=True, slots=True)
class Scene:
    protocol: str
    module: Module
    broker: Broker
    daemon: Daemon
    ear: Ear

    def ask(self, **fields: object) -> None:
        self.broker.publish("at/request", json.dumps(fields))

    def answer(self, id_: str) -> dict[str, Any]:
        return self.ear.hear("at/response", id=id_)


@pytest.fixture(scope="module", params=["5", "3.1.1"])
def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:  # noqa: ANN401 - a generator
    from contextlib import ExitStack

    with ExitStack() as stack:
        stage = Stage(tmp_path_factory.mktemp("mqtt"), stack)
        module, broker = stage.module("--send-delay", "0"), stage.broker()
        module.ask("answer", command="AT+CSQ", lines=["+CSQ: 17,0"], always=True)
        ear = stage.ear(broker)
        daemon = stage.daemon(module, broker)
        daemon.configure(
            mqtt={"protocol": request.param, "reply_prefixes": ["answers/"]},
            sms={"enabled": True, "numbers": [FRIEND]},
        )
        daemon.start()
        yield Scene(request.param, module, broker, daemon, ear)


def test_birth(scene: Scene) -> None:
    status = scene.ear.hear("status", state="online")
    assert status["v"] == 1
    assert status["reason"] is None
    assert status["clock"] == ("ok" if scene.daemon.status()["clock"]["known"] else "unset")
    assert status["session"] == scene.daemon.status()["atrund"]["session"]


def test_a_request_by_id(scene: Scene) -> None:
    scene.ask(id="one", cmd="AT+CSQ")
    answer = scene.answer("one")
    assert (answer["state"], answer["final"], answer["lines"]) == ("ok", "OK", ["+CSQ: 17,0"])
    assert (answer["door"], answer["peer"], answer["cmd"], answer["reason"]) == ("mqtt", "unknown", "AT+CSQ", None)
    assert answer["duration_ms"] >= 0
    assert answer["raw_b64"] is None
    command = scene.ear.hear("event/command", id="one")
    response = scene.ear.hear("event/response", id="one")
    assert command["state"] == "accepted"
    assert response["state"] == "ok"
    assert command["rid"] == response["rid"] == answer["rid"] == scene.daemon.heard("command", id=answer["rid"])["id"]


def test_a_bare_line_and_who_asks(scene: Scene) -> None:
    scene.broker.publish("at/request/alice", "at#cgmi")
    answer = scene.ear.hear("at/response", peer="alice")
    assert (answer["state"], answer["lines"]) == ("ok", ["#CGMI: Telit"])
    assert answer["id"] == answer["rid"]


def test_hat_is_run_and_not_answered(scene: Scene) -> None:
    scene.broker.publish("at/request/hat", "HAT+CGMM")
    record = scene.ear.hear("event/response", peer="hat")
    assert (record["state"], record["cmd"]) == ("ok", "AT+CGMM")
    scene.ask(id="behind-hat", cmd="AT")
    scene.answer("behind-hat")
    assert scene.ear.records("at/response", peer="hat") == []


def test_reply_false_is_not_answered(scene: Scene) -> None:
    scene.ask(id="silent", cmd="AT", reply=False)
    scene.ear.hear("event/response", id="silent")
    scene.ask(id="behind-silent", cmd="AT")
    scene.answer("behind-silent")
    assert scene.ear.records("at/response", id="silent") == []


def test_response_topic_and_correlation_data(scene: Scene) -> None:
    if scene.protocol != "5":
        pytest.skip("a matter of MQTT 5")
    answer = json.loads(scene.broker.request("AT+CSQ", "-D", "publish", "correlation-data", "my-own", reply="reply/x"))
    assert (answer["state"], answer["id"], answer["lines"]) == ("ok", "my-own", ["+CSQ: 17,0"])
    assert scene.ear.hear("reply/x", id="my-own")["rid"] == answer["rid"]
    assert scene.answer("my-own")["rid"] == answer["rid"]


def test_reply_to(scene: Scene) -> None:
    scene.ask(id="there", cmd="AT", reply_to=BASE + "reply/there")
    assert scene.ear.hear("reply/there", id="there")["state"] == "ok"
    assert scene.answer("there")["state"] == "ok"


@pytest.mark.parametrize(
    "topic",
    [
        "elsewhere/x",
        "answersx",
        BASE + "#",
        BASE + "+/x",
        BASE + "status",
        BASE + "event/command",
        BASE + "at/request/bob",
        BASE + "x\x01",
        BASE + "/" * 199,
        BASE + "é" * 300,
        "$SYS/x",
        "",
    ],
)
def test_reply_to_a_place_that_is_not_allowed(scene: Scene, topic: str) -> None:
    """MQ-3. Over some of these topics the broker would drop the connection, and over their repetition the next."""
    id_ = f"out-{topic[:12]}-{len(topic)}"
    scene.ask(id=id_, cmd="AT+GMR", reply_to=topic)
    answer = scene.answer(id_)
    assert (answer["state"], answer["reason"]) == ("rejected", "bad_request")
    assert scene.module.count("AT+GMR") == 0
    assert scene.ear.records("status", id=id_) == []


@pytest.mark.parametrize(
    ("payload", "id_", "reason"),
    [
        ('{"id":"k1","cmd":"AT","comand":"x"}', "k1", "bad_request"),
        ('{"id":"k2"}', "k2", "bad_request"),
        ('{"id":"k3","cmd":["AT"]}', "k3", "bad_request"),
        ('{"id":"k4","cmd":"AT","v":2}', "k4", "bad_request"),
        ('{"id":"k5","cmd":"AT","timeout_ms":10}', "k5", "bad_request"),
        ('{"id":"k6","cmd":"AT","expires":"soon"}', "k6", "bad_request"),
        ('{"id":"k7","cmd":"AT+CSQ\\rAT+CFUN=4"}', "k7", "bad_request"),
        ('{"id":"k8","cmd":"AT+CFUN=4"}', "k8", "policy"),
        ('{"id":"k9","cmd":"AT+CMGS=\\"1\\""}', "k9", "prompt_unsupported"),
        (json.dumps({"id": "k10", "cmd": "AT" + "+CSQ;" * 500}), "k10", "too_long"),
        ('{"id":"k11","cmd":"AT","reply":0}', "k11", "bad_request"),
        ('{"id":"k12","cmd":"ATD*99#"}', "k12", "data_mode"),
        ('{"id":"k13","cmd":"AT+GMR","body":"x"}', "k13", "bad_request"),
        ('{"id":"k14","cmd":"AT+CMGS=\\"1\\"","body":"x","body_b64":"eA=="}', "k14", "bad_request"),
        ('{"id":"k15","cmd":"AT+CMGS=\\"1\\"","body_b64":"eA"}', "k15", "bad_request"),
        ('{"id":"k16","cmd":"AT+CMGS=\\"1\\"","body":"\\u001a"}', "k16", "bad_request"),
        ('{"id":"k17","cmd":"AT#WSCRIPT=\\"k\\",5","body":"four"}', "k17", "bad_request"),
        ('{"id":"k18","cmd":"AT","instance":4}', "k18", "bad_request"),
    ],
)
def test_a_refused_request(scene: Scene, payload: str, id_: str, reason: str) -> None:
    scene.broker.publish("at/request", payload)
    answer = scene.answer(id_)
    assert (answer["state"], answer["reason"]) == ("rejected", reason)
    assert answer["detail"], "an asker who is refused is told why"
    assert scene.ear.hear("event/command", id=id_)["state"] == "rejected"
    assert scene.ear.hear("event/response", id=id_)["rid"] == answer["rid"]


@pytest.mark.parametrize(
    "payload",
    [b"", b"\xff\xfe\x00", b"[]", b"{", b"null", b'"AT"', b'{"cmd":"AT","id":"\\ud800"}', b"[" * 5000, b"A" * 70_000],
)
def test_garbage_is_refused(scene: Scene, payload: bytes) -> None:
    before = len(scene.ear.records("at/response", door="mqtt", cmd="", peer="garbage"))
    scene.broker.publish("at/request/garbage", payload)
    if len(payload) < 70_000 or scene.protocol != "5":
        until(lambda: len(scene.ear.records("at/response", peer="garbage")) > before, "the refusal")
    scene.ask(id=f"behind-{payload[:4]!r}", cmd="AT")
    assert scene.answer(f"behind-{payload[:4]!r}")["state"] == "ok"


def test_an_expiry_that_is_past(scene: Scene) -> None:
    """REQ-11: it is judged only by a clock that is known."""
    scene.ask(id="old", cmd="AT", expires="2020-01-01T00:00:00Z")
    known = scene.daemon.status()["clock"]["known"]
    assert scene.answer("old")["reason"] == ("expired" if known else "clock_unset")


def test_the_same_id_again_is_answered_from_the_record(scene: Scene) -> None:
    for _ in range(3):
        scene.ask(id="again", cmd="AT+CIMI")
    until(lambda: len(scene.ear.records("at/response", id="again")) == 3, "three answers")
    answers = scene.ear.records("at/response", id="again")
    assert len({answer["rid"] for answer in answers}) == 1
    assert answers[0]["state"] in {"ok", "accepted", "running"}
    assert {tuple(answer["lines"]) for answer in answers if answer["state"] == "ok"} != set()
    assert scene.module.count("AT+CIMI") == 1
    for topic in ("event/command", "event/response"):
        assert len(scene.ear.records(topic, id="again")) == 1


def test_the_same_id_while_it_runs(scene: Scene) -> None:
    scene.module.ask("late", command="AT+GSN", seconds=1.0)
    scene.ask(id="slow", cmd="AT+GSN")
    until(lambda: scene.module.count("AT+GSN"), "the command at the module")
    scene.ask(id="slow", cmd="AT+GSN")
    assert scene.ear.hear("at/response", id="slow", state="running")["lines"] == []
    assert scene.ear.hear("at/response", id="slow", state="ok")["final"] == "OK"
    assert scene.module.count("AT+GSN") == 1


def test_the_same_id_with_another_command(scene: Scene) -> None:
    scene.ask(id="twin", cmd="AT+CSQ")
    assert scene.answer("twin")["state"] == "ok"
    scene.ask(id="twin", cmd="AT+GMI")
    assert scene.ear.hear("at/response", id="twin", state="rejected")["reason"] == "duplicate"
    assert scene.module.count("AT+GMI") == 0


def test_the_same_id_of_another_asker(scene: Scene) -> None:
    scene.broker.publish("at/request/first", '{"id":"mine","cmd":"AT+CSQ"}')
    scene.broker.publish("at/request/second", '{"id":"mine","cmd":"AT#CGMI"}')
    assert scene.ear.hear("at/response", peer="first")["state"] == "ok"
    assert scene.ear.hear("at/response", peer="second")["state"] == "ok"


def test_every_door_is_mirrored_with_one_id(scene: Scene) -> None:
    """REQ-2: the same `rid` in the command's event, the response's, and the log."""
    with Caller(scene.daemon.tcp) as caller:
        caller.ask(b"AT+CSQ;#CGMI\r")
    assert scene.daemon.ctl("at", "AT#CGMI;+CSQ").returncode == 0
    scene.module.ask("sms", **{"from": FRIEND, "text": "AT+CSQ;+CSQ"})
    scene.ask(id="fourth", cmd="AT#CGMI;#CGMI")
    lines = {"tcp": "AT+CSQ;#CGMI", "local": "AT#CGMI;+CSQ", "sms": "AT+CSQ;+CSQ", "mqtt": "AT#CGMI;#CGMI"}
    for door, line in lines.items():
        command = scene.ear.hear("event/command", door=door, cmd=line)
        response = scene.ear.hear("event/response", door=door, cmd=line)
        assert command["rid"] == response["rid"]
        assert command["state"] == "accepted"
        assert (response["state"], len(response["lines"])) == ("ok", 2)
        assert scene.daemon.heard("command", id=command["rid"])["door"] == door
    assert scene.ear.hear("event/command", door="sms")["peer"] == "+********6711"
    assert scene.ear.hear("event/session", door="tcp", event="login operator")["peer"] == "127.0.0.1"


def test_secrets_are_nowhere(scene: Scene) -> None:
    """POL-3: a planted PIN and a password through every door, in requests that are refused and ones that are not."""
    with Caller(scene.daemon.tcp) as caller:
        caller.ask(f'AT+CPIN="{PIN}"\r'.encode(), b"ERROR\r\n")
        caller.ask(f"at + c p i n = {PIN}\r".encode(), b"ERROR\r\n")
    scene.daemon.ctl("at", f'AT+CLCK="SC",1,"{PIN}"')
    scene.ask(id="pin", cmd=f'AT+CPWD="SC","{PIN}","{PIN}"')
    scene.broker.publish("at/request", f'AT#SGACT=1,1,"user","{PIN}"')
    scene.module.ask("sms", **{"from": FRIEND, "text": f'HAT+CPIN="{PIN}"'})
    scene.answer("pin")
    scene.ear.hear("event/response", door="sms", cmd="AT+CPIN=****")
    for secret in (PIN, PASSWORD):
        heard = [message for message in scene.ear.messages if not message.topic.startswith("at/request")]
        assert not [message for message in heard if secret.encode() in message.payload]
        assert secret not in scene.daemon.text


def test_seq_rises_and_belongs_to_a_record(scene: Scene) -> None:
    records = [message.record for message in scene.ear.messages if message.topic.startswith(("event/", "at/response"))]
    numbers = [record["seq"] for record in records]
    assert len(numbers) > 50
    assert numbers == sorted(set(numbers))
    assert {record["session"] for record in records} == {scene.daemon.status()["atrund"]["session"]}


def test_a_retained_request_is_refused(stage: Stage) -> None:
    """MQ-2, MQTT 5: also where it is published while the daemon listens."""
    module, broker = stage.module(), stage.broker()
    daemon = stage.daemon(module, broker).start()
    ear = stage.ear(broker)
    broker.publish("at/request/x", '{"id":"kept","cmd":"AT+CIMI"}', "-r")
    assert ear.hear("at/response", id="kept")["reason"] == "retained"
    # The same id, not retained: it was never run, so it is run now.
    broker.publish("at/request/x", '{"id":"kept","cmd":"AT+CIMI"}')
    assert ear.hear("at/response", id="kept", state="ok")
    assert module.count("AT+CIMI") == 1
    assert daemon.stop() == 0


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_request_that_lies_retained_at_the_broker(stage: Stage, protocol: str) -> None:
    module, broker = stage.module(), stage.broker()
    broker.publish("at/request", '{"id":"kept","cmd":"AT+CIMI"}', "-r")
    ear = stage.ear(broker)
    daemon = stage.daemon(module, broker)
    daemon.configure(mqtt={"protocol": protocol})
    daemon.start()
    broker.publish("at/request", '{"id":"live","cmd":"AT"}')
    assert ear.hear("at/response", id="live")["state"] == "ok"
    assert module.count("AT+CIMI") == 0
    refused = [record["reason"] for record in ear.records("at/response", id="kept")]
    assert refused == ([] if protocol == "5" else ["retained"])


def test_remote_at_off(stage: Stage) -> None:
    """MQ-7: the mirror alone."""
    broker = stage.broker()
    daemon = stage.daemon(None, broker)
    daemon.configure(mqtt={"remote_at": False})
    daemon.start()
    ear = stage.ear(broker)
    broker.publish("at/request", '{"id":"no","cmd":"AT"}')
    answer = ear.hear("at/response", id="no")
    assert (answer["state"], answer["reason"]) == ("rejected", "policy")
    assert ear.hear("event/command", id="no")["reason"] == "policy"
