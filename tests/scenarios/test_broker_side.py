# SPDX-License-Identifier: Apache-2.0
"""The shipped access control at a real mosquitto, tried by those whom it keeps out; and the daemon under it."""

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from paho.mqtt.enums import MQTTProtocolVersion

from tests.scenarios.conftest import Stage
from tests.scenarios.players import MOSQUITTO, Daemon, Module, Program, until
from tests.support.certificates import Authority, Pair
from tests.support.guarded import (
    ACCEPTED,
    DENIED,
    WORD,
    Client,
    Guarded,
    Words,
    certificate,
    main_file,
    mqtt_options,
    shipped,
)
from tests.support.ports import free_port

PEOPLE = ("atrund/third", "alice", "bob", "fleet", "read/grafana", "read/witness", "bridge/site7")
WITNESS = "\nuser read/witness\ntopic read #\n"
"""One whom the shipped file does not know, and who sees what came through."""
BOX = "user atrund/box\ntopic write homeassistant/device/atrund__box/config\n"
DISCOVERY = Words("#" + BOX.replace("\ntopic", "\n#topic"), BOX)

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl")


class Scene(NamedTuple):
    protocol: str
    module: Module
    broker: Guarded
    daemon: Daemon
    nodes: dict[str, Pair]
    witness: Client

    def client(self, user: str, **options: Any) -> Client:  # noqa: ANN401 - the client's own
        return Client(self.broker, user, pair=self.nodes.get(user), **options)

    def ask(self, asker: Client, who: str, id_: str, cmd: str = "AT+CSQ", **fields: object) -> int:
        return asker.publish(f"atrund/box/at/request/{who}", json.dumps({"id": id_, "cmd": cmd, **fields}))

    def answer(self, id_: str) -> dict[str, Any]:
        record: dict[str, Any] = json.loads(self.witness.hear("atrund/box/at/response", f'"{id_}"'))
        return record

    def settle(self, id_: str) -> None:
        """Have one more command answered, behind which whatever was let through would have been seen."""
        with self.client("alice") as alice:
            self.ask(alice, "alice", id_)
            assert self.answer(id_)["state"] == "ok"


@pytest.fixture(scope="module", params=["5", "3.1.1"])
def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with ExitStack() as stack:
        stage = Stage(tmp_path_factory.mktemp("guarded"), stack)
        authority = Authority(stage.folder)
        nodes = {name: certificate(authority, name) for name in ("atrund/box", "atrund/other")}
        broker = Guarded(stage.folder, authority, PEOPLE, acl=[DISCOVERY], more=WITNESS)
        stack.callback(broker.stop)
        witness = stack.enter_context(Client(broker, "read/witness", lasting="#"))
        module = stage.module("--send-delay", "0")
        module.ask("answer", command="AT+CSQ", lines=["+CSQ: 17,0"], always=True)
        daemon = stage.daemon(module)
        daemon.configure(mqtt=mqtt_options(broker, nodes["atrund/box"], protocol=request.param, urc=True))
        daemon.configure(**{"mqtt.homeassistant": {"enabled": True}})
        daemon.start()
        yield Scene(request.param, module, broker, daemon, nodes, witness)


def test_the_daemon_does_all_that_it_does(scene: Scene) -> None:
    assert json.loads(scene.witness.hear("atrund/box/status", "online"))["state"] == "online"
    scene.witness.hear("atrund/box/info")
    scene.witness.hear("atrund/box/module/state")
    scene.witness.hear("homeassistant/device/atrund__box/config")
    with scene.client("alice") as alice:
        alice.subscribe("atrund/+/at/response/alice")
        reply = "atrund/box/at/response/alice"
        assert scene.ask(alice, "alice", "all", reply_to=reply) in ACCEPTED
        assert json.loads(alice.hear(reply, '"all"'))["peer"] == "alice"
    assert scene.answer("all")["lines"] == ["+CSQ: 17,0"]
    scene.witness.hear("atrund/box/event/command", '"all"')
    scene.witness.hear("atrund/box/event/response", '"all"')
    scene.module.ask("urc", text="#BND: 1")
    scene.witness.hear("atrund/box/urc", "#BND: 1")


def test_a_response_topic_and_correlation_data(scene: Scene) -> None:
    if scene.protocol != "5":
        pytest.skip("a matter of MQTT 5")
    with scene.client("alice") as alice:
        reply = "atrund/box/at/response/alice"
        alice.subscribe(reply)
        told = alice.publish("atrund/box/at/request/alice", "AT+CSQ", ResponseTopic=reply, CorrelationData=b"mine")
        assert told in ACCEPTED
        assert json.loads(alice.hear(reply, '"mine"'))["lines"] == ["+CSQ: 17,0"]


def fleet(scene: Scene, folder: Path, user: str, nodes: str, *command: str) -> list[dict[str, Any]]:
    """What `atrunctl fleet run` says of each node."""
    word = folder / "word"
    word.write_text(WORD.format(user))
    word.chmod(0o600)
    options = ["--broker", f"mqtts://localhost:{scene.broker.people}", "--ca-file", str(scene.broker.authority.file)]
    options += ["--user", user, "--password-file", str(word), "--nodes", nodes, "--deadline", "10", "--yes", "--json"]
    done = scene.daemon.ctl("fleet", "run", *options, *command, seconds=30)
    assert done.stdout, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_fleet_program(scene: Scene, tmp_path: Path) -> None:
    """As the user `fleet` it finds the nodes; as any asker it must be told which."""
    assert [(line["node"], line["state"]) for line in fleet(scene, tmp_path, "fleet", "b*", "AT+CSQ")] == [
        ("box", "ok")
    ]
    assert [(line["node"], line["state"]) for line in fleet(scene, tmp_path, "bob", "box", "AT+CSQ")] == [("box", "ok")]


def test_cancelling(scene: Scene) -> None:
    scene.module.ask("late", command="AT+GSN", seconds=3.0)
    with scene.client("alice") as alice, scene.client("bob") as bob:
        scene.ask(alice, "alice", "slow", "AT+GSN")
        until(lambda: scene.module.count("AT+GSN"), "the command at the module")
        assert bob.publish("atrund/box/at/cancel/alice", '{"id":"slow"}') == DENIED
        assert alice.publish("atrund/box/at/cancel/alice", '{"id":"slow"}') in ACCEPTED
    assert scene.answer("slow")["state"] == "cancelled"


def test_a_node_with_a_password(scene: Scene) -> None:
    with Client(scene.broker, "atrund/third") as node:
        assert node.publish("atrund/third/status", "{}") in ACCEPTED
        assert node.publish("atrund/box/status", "{}") == DENIED


WRITES = {
    "atrund/other": [
        # as another node
        "atrund/box/status",
        "atrund/box/info",
        "atrund/box/module/state",
        "atrund/box/event/response",
        "atrund/box/at/response",
        "atrund/box/at/response/alice",
        "atrund/site7/box/status",
        "homeassistant/device/atrund__box/config",
        "homeassistant/device/atrund__other/config",
        # as an asker
        "atrund/box/at/request",
        "atrund/box/at/request/other",
        "atrund/box/at/request/alice",
        "atrund/box/at/request/atrund",
        "atrund/box/at/cancel/alice",
        "atrund/other/at/request/alice",
        "atrund/site7/box/at/request/other",
    ],
    "alice": [
        # as a node
        "atrund/box/status",
        "atrund/box/at/response",
        "atrund/box/at/response/alice",
        "atrund/box/event/response",
        "atrund/alice/status",
        "atrund-bridge/site7",
        # as another asker, or as nobody
        "atrund/box/at/request",
        "atrund/box/at/request/bob",
        "atrund/box/at/cancel/bob",
        "atrund/box/at/cancel",
    ],
    "fleet": ["atrund/box/at/request/alice", "atrund/box/status"],
    "read/grafana": [
        "atrund/box/at/request",
        "atrund/box/at/request/alice",
        "atrund/box/at/request/grafana",
        "atrund/box/at/cancel/alice",
        "atrund/box/status",
        "atrund/box/event/command",
    ],
    "bridge/site7": [
        # for what is no node of its site, and asking
        "atrund/box/status",
        "atrund/site8/box/status",
        "atrund/site7/box/at/request/alice",
        "atrund/box/at/request/alice",
        "atrund-bridge/site8",
    ],
}


@pytest.mark.parametrize("user", WRITES)
@pytest.mark.parametrize("retain", [False, True], ids=["", "retained"])
def test_topics_that_are_not_theirs(scene: Scene, user: str, retain: bool) -> None:  # noqa: FBT001 - a case
    payload = json.dumps({"id": f"forbidden {user}", "cmd": "AT+GMR"})
    with scene.client(user) as client:
        answers = {topic: client.publish(topic, payload, retain=retain) for topic in WRITES[user]}
    assert answers == dict.fromkeys(WRITES[user], DENIED)
    scene.settle(f"after {user} {retain}")
    assert [topic for topic, body in scene.witness.heard if payload.encode() == body] == []
    assert scene.module.count("AT+GMR") == 0


@pytest.mark.parametrize("user", WRITES)
def test_clients_of_3_1_1_are_kept_out_too(scene: Scene, user: str) -> None:
    """Refusals are silent there: what was written must not arrive."""
    payload = json.dumps({"id": f"silent {user}", "cmd": "AT+GMR"})
    with scene.client(user, version=MQTTProtocolVersion.MQTTv311) as client:
        for topic in WRITES[user]:
            client.publish(topic, payload)
    scene.settle(f"after the silent {user}")
    assert [topic for topic, body in scene.witness.heard if payload.encode() == body] == []
    assert scene.module.count("AT+GMR") == 0


@pytest.mark.parametrize("user", ["atrund/other", "read/grafana", "bridge/site7"])
def test_a_name_with_a_slash_asks_nobody(scene: Scene, user: str) -> None:
    """The pattern for askers is every user's: the broker takes it, and no daemon listens there."""
    for topic in (f"atrund/box/at/request/{user}", f"atrund/box/at/cancel/{user}"):
        with scene.client(user) as client:
            assert client.publish(topic, json.dumps({"id": "slash", "cmd": "AT+GMR"})) in ACCEPTED
    scene.settle(f"after the slash of {user}")
    assert scene.module.count("AT+GMR") == 0


@pytest.mark.parametrize(
    ("user", "may"),
    [
        ("atrund/other", {"atrund/other/at/request/alice", "atrund/other/status"}),
        ("bob", {"atrund/box/at/response/bob"}),
        (
            "read/grafana",
            {
                "atrund/box/status",
                "atrund/box/info",
                "atrund/box/module/state",
                "atrund/box/event/command",
                "atrund/box/event/response",
                "atrund/other/status",
            },
        ),
    ],
)
def test_what_is_not_theirs_to_read(scene: Scene, user: str, may: set[str]) -> None:
    """By every filter that could get at it; mosquitto takes the filters and delivers what is allowed."""
    filters = ["#", "atrund/box/at/request/#", "$share/g/atrund/+/at/request/#", "$share/h/#", "atrund/+/at/response/#"]
    if user != "read/grafana":
        filters.append("$SYS/#")
    with scene.client(user) as client, scene.client("alice") as alice:
        client.subscribe(*filters)
        scene.ask(alice, "alice", f"unread {user}", reply_to="atrund/box/at/response/alice")
        scene.answer(f"unread {user}")
        scene.witness.hear("atrund/box/event/response", f"unread {user}")
        if user == "atrund/other":
            alice.publish("atrund/other/at/request/alice", '{"id":"end"}')
            client.hear("atrund/other/at/request/alice", "end")
        elif user == "bob":
            scene.ask(client, "bob", "end bob", reply_to="atrund/box/at/response/bob")
            client.hear("atrund/box/at/response/bob", "end bob")
        else:
            client.hear("atrund/box/event/response", f"unread {user}")
        assert client.topics() <= may


def test_a_will_on_another_nodes_topic(scene: Scene) -> None:
    client = scene.client("atrund/other", will="atrund/box/status")
    if client.code == 0:
        client.vanish()
    with scene.client("atrund/other") as again:  # its session is taken over, so the first one is gone for certain
        again.publish("atrund/other/status", '{"mark":"behind the will"}')
    scene.witness.hear("atrund/other/status", "behind the will")
    assert b"offline" not in b"".join(body for topic, body in scene.witness.heard if topic == "atrund/box/status")


@pytest.mark.parametrize("user", ["alice", "read/grafana", "atrund/other"])
def test_a_nodes_session_is_not_taken_over(scene: Scene, user: str) -> None:
    """A client id is only what its client says; one that counted would throw the node out."""
    for name in ("atrund-box", "atrund/box"):
        with scene.client(user, client_id=name):
            scene.settle(f"taken over by {user} {name}")
    assert scene.daemon.logged("broker away") == []


def test_the_files_stand_beside_debians_own(scene: Scene, tmp_path: Path) -> None:
    """In its conf.d: what stands twice is an error to mosquitto."""
    broker = scene.broker
    for name in ("atrund.conf", "bridge.conf"):
        ports = [Words("listener 8883", f"listener {free_port()} 127.0.0.1"), Words("8884", f"{free_port()} 127.0.0.1")]
        changed = [Words("/etc/mosquitto/certs/ca.pem", str(broker.authority.file))] if name == "bridge.conf" else ports
        (tmp_path / "conf.d").mkdir(exist_ok=True)
        (tmp_path / "conf.d" / name).write_text(shipped(name, changed).replace("/etc/mosquitto", str(broker.folder)))
    (tmp_path / "mosquitto.conf").write_text(f"{main_file(tmp_path)}include_dir {tmp_path}/conf.d\n")
    program = Program([MOSQUITTO, "-c", tmp_path / "mosquitto.conf"], tmp_path / "log")
    try:
        until(lambda: program.said(" running$"), "mosquitto")
    finally:
        program.stop()


def test_who_is_nobody(scene: Scene) -> None:
    assert scene.client("").code == DENIED
    assert scene.client("alice", word="guessed").code == DENIED
    assert scene.client("mallory").code == DENIED
    node = Client(scene.broker, "atrund/box", pair=scene.nodes["atrund/box"], port=scene.broker.people)
    assert node.code == DENIED, "a node's certificate is no password"


def test_a_certificate_of_another_authority(scene: Scene, tmp_path: Path) -> None:
    stranger = certificate(Authority(tmp_path), "atrund/box")
    assert Client(scene.broker, "atrund/box", pair=stranger).code == -1
    assert Client(scene.broker, "alice", port=scene.broker.nodes).code == -1, "a password is no certificate"


def test_a_retained_request_is_refused_by_the_node(scene: Scene) -> None:
    """An asker's rights let it through, for mosquitto cannot tell; MQTT 5 shows it to the node."""
    topic = "atrund/box/at/request/alice"
    with scene.client("alice") as alice:
        if scene.protocol == "5":
            alice.publish(topic, '{"id":"kept","cmd":"AT+GMR"}', retain=True)
            assert scene.answer("kept")["reason"] == "retained"
            assert scene.module.count("AT+GMR") == 0
        alice.publish(topic, "", retain=True)
    scene.settle(f"after the kept one of {scene.protocol}")


def test_a_node_that_is_away_gets_its_requests_later(scene: Scene) -> None:
    """Through a restart of the broker, too: it keeps sessions, and whose they are."""
    scene.daemon.stop()
    with scene.client("alice") as alice:
        assert scene.ask(alice, "alice", "waited one") in ACCEPTED
    scene.broker.stop()
    scene.broker.restart()
    until(scene.witness.client.is_connected, "the witness")
    with scene.client("alice") as alice:
        assert scene.ask(alice, "alice", "waited two") in ACCEPTED
    scene.daemon.configure(mqtt={"run_queued": True})
    scene.daemon.start()
    assert scene.answer("waited one")["peer"] == "alice"
    assert scene.answer("waited two")["peer"] == "alice"
