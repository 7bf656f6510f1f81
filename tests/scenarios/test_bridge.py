# SPDX-License-Identifier: Apache-2.0
"""The shipped bridge: a real daemon at the mosquitto of a site, and the mosquitto at the centre."""

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from typing import NamedTuple

import pytest

from tests.scenarios.conftest import Stage
from tests.scenarios.players import Daemon, Module, until
from tests.support.certificates import Authority
from tests.support.guarded import ACCEPTED, WORD, Client, Guarded, Words, certificate, mqtt_options, shipped

BASE = "atrund/site7/box/"
REPLY = BASE + "at/response/alice"
VERSION_5 = "bridge_protocol_version mqttv50\n"
BRIDGE = "bridge/site7"
CAROL = "\nuser carol\ntopic read atrund/site7/+/event/#\n"
READERS = "\nuser read/witness\ntopic read #\nuser read/late\ntopic read #\n"

pytestmark = [
    pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl"),
    pytest.mark.timeout(120),
]


class Scene(NamedTuple):
    version5: bool
    module: Module
    centre: Guarded
    site: Guarded
    daemon: Daemon
    witness: Client
    """It reads everything at the centre."""

    def ask(self, id_: str, **fields: object) -> None:
        with Client(self.centre, "alice") as alice:
            payload = json.dumps({"id": id_, "cmd": "AT+CSQ", **fields})
            assert alice.publish(BASE + "at/request/alice", payload) in ACCEPTED

    def ask_at_the_site(self, id_: str) -> None:
        """Ask as somebody there, and get the answer there."""
        with Client(self.site, "carol") as carol:
            reply = BASE + "at/response/carol"
            carol.subscribe(reply, BASE + "event/response")
            carol.publish(BASE + "at/request/carol", json.dumps({"id": id_, "cmd": "AT+CSQ", "reply_to": reply}))
            assert json.loads(carol.hear(reply, f'"{id_}"'))["state"] == "ok"
            carol.hear(BASE + "event/response", f'"{id_}"')

    def bridged(self) -> None:
        """Wait until the centre knows that the bridge is up."""
        until(lambda: self.last("atrund-bridge/site7") == b"1", "the bridge")

    def last(self, topic: str) -> bytes:
        return ([body for at, body in self.witness.heard if at == topic] or [b""])[-1]


@pytest.fixture(scope="module", params=[True, False], ids=["5", "3.1.1"])
def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with ExitStack() as stack:
        stage = Stage(tmp_path_factory.mktemp("bridge"), stack)
        folders = [stage.folder / "centre", stage.folder / "site"]
        for folder in folders:
            folder.mkdir()
        authority = Authority(stage.folder)
        centre = Guarded(folders[0], authority, ("alice", "read/witness", "read/late", BRIDGE), more=READERS)
        stack.callback(centre.stop)
        site = Guarded(folders[1], authority, ("carol",), more=CAROL, extra=bridge(centre, version5=request.param))
        stack.callback(site.stop)
        witness = stack.enter_context(Client(centre, "read/witness", lasting="#"))
        module = stage.module("--send-delay", "0")
        module.ask("answer", command="AT+CSQ", lines=["+CSQ: 17,0"], always=True)
        daemon = stage.daemon(module)
        pair = certificate(authority, "atrund/site7/box")
        daemon.configure(mqtt=mqtt_options(site, pair, prefix="atrund/site7", run_queued=True))
        scene = Scene(request.param, module, centre, site, daemon, witness)
        scene.bridged()
        daemon.start()
        yield scene


def bridge(centre: Guarded, *, version5: bool) -> str:
    changed = [
        Words("broker.example:8884", f"127.0.0.1:{centre.people}"),
        Words("/etc/mosquitto/certs/ca.pem", str(centre.authority.file)),
        Words("change-me", WORD.format(BRIDGE)),
        Words("restart_timeout 2 60", "restart_timeout 1"),
    ]
    return shipped("bridge.conf", [*changed, *([] if version5 else [Words(VERSION_5, "")])])


def test_a_request_at_the_centre_is_answered_at_the_centre(scene: Scene) -> None:
    scene.ask("across")
    answer = json.loads(scene.witness.hear(BASE + "at/response", '"across"'))
    assert (answer["state"], answer["peer"], answer["lines"]) == ("ok", "alice", ["+CSQ: 17,0"])
    scene.witness.hear(BASE + "event/response", '"across"')


def test_nothing_goes_round(scene: Scene) -> None:
    scene.ask("once")
    scene.witness.hear(BASE + "event/response", '"once"')
    scene.ask("behind")
    scene.witness.hear(BASE + "event/response", '"behind"')
    topics = sorted(topic.removeprefix(BASE) for topic, body in scene.witness.heard if b'"once"' in body)
    assert topics == ["at/request/alice", "at/response", "event/command", "event/response"]


def test_a_reply_topic_leads_to_the_asker(scene: Scene) -> None:
    """By the payload on both; Response Topic and Correlation Data pass a bridge that speaks MQTT 5, and no other."""
    scene.ask("payload", reply_to=REPLY)
    assert json.loads(scene.witness.hear(REPLY, '"payload"'))["state"] == "ok"
    with Client(scene.centre, "alice") as alice:
        alice.publish(BASE + "at/request/alice", "AT+CSQ", ResponseTopic=REPLY, CorrelationData=b"property")
    if scene.version5:
        assert json.loads(scene.witness.hear(REPLY, '"property"'))["state"] == "ok"
    else:
        scene.ask("behind the property", reply_to=REPLY)
        scene.witness.hear(REPLY, "behind the property")
        assert [body for _, body in scene.witness.heard if b'"property"' in body] == []


def test_states_are_kept_at_the_centre(scene: Scene) -> None:
    with Client(scene.centre, "read/late") as late:
        late.subscribe(BASE + "+", BASE + "module/state", "atrund-bridge/+")
        assert json.loads(late.hear(BASE + "status"))["state"] == "online"
        late.hear(BASE + "info")
        late.hear(BASE + "module/state")
        assert late.hear("atrund-bridge/site7") == b"1"


def test_a_retained_request_is_refused_behind_the_bridge(scene: Scene) -> None:
    topic = BASE + "at/request/alice"
    with Client(scene.centre, "alice") as alice:
        alice.publish(topic, '{"id":"kept","cmd":"AT+GMR"}', retain=True)
        assert json.loads(scene.witness.hear(BASE + "at/response", '"kept"'))["reason"] == "retained"
        alice.publish(topic, "", retain=True)
    assert scene.module.count("AT+GMR") == 0


def test_the_site_goes_on_without_the_centre(scene: Scene) -> None:
    scene.centre.stop()
    scene.ask_at_the_site("alone")
    scene.centre.restart()
    assert json.loads(scene.witness.hear(BASE + "event/response", '"alone"'))["peer"] == "carol"
    scene.witness.hear(BASE + "event/command", '"alone"')
    scene.bridged()


def test_the_site_keeps_what_it_could_not_say_through_a_restart(scene: Scene) -> None:
    scene.centre.stop()
    scene.ask_at_the_site("kept at the site")
    scene.site.stop()
    scene.site.restart()
    scene.centre.restart()
    scene.witness.hear(BASE + "event/response", '"kept at the site"')
    scene.bridged()


def test_a_request_for_a_site_that_is_away(scene: Scene) -> None:
    """A bridge that speaks MQTT 5 has no session at the centre, so it is lost; one of 3.1.1 brings it later."""
    scene.site.stop()
    until(lambda: scene.last("atrund-bridge/site7") == b"0", "the bridge's will")
    scene.ask("waited")
    scene.site.restart()
    scene.bridged()
    until(lambda: scene.last(BASE + "status").count(b"online"), "the node")
    scene.ask("behind the wait")
    scene.witness.hear(BASE + "event/response", '"behind the wait"')
    answers = [body for topic, body in scene.witness.heard if topic == BASE + "at/response" and b'"waited"' in body]
    assert len(answers) == (0 if scene.version5 else 1)


def test_the_will_of_a_node_reaches_the_centre(scene: Scene) -> None:
    scene.daemon.kill()
    until(lambda: b"offline" in scene.last(BASE + "status"), "the will at the centre")
    assert json.loads(scene.last(BASE + "status"))["reason"] == "connection lost"
