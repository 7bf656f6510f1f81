# SPDX-License-Identifier: Apache-2.0
"""Bad input at every door: thousands of messages from a fixed seed stop nothing, and memory stays where it was."""

import json
import random
import socket
from collections.abc import Callable

import pytest
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from tests.scenarios.conftest import Stage
from tests.scenarios.players import BASE, LOGIN, PATIENCE, Broker, Caller, Daemon, Module, until

SEED = 8012
FRIEND = "+393468686711"
GROWTH_MAX = 6 * 1024
"""KiB by which the daemon may grow after it has seen such input once: what allocators keep, far below a leak."""
BATCH = 500
PIECES = (
    b"AT", b"HAT", b"+CSQ", b"+CFUN=4", b";", b'"', b"=", b"?", b"//", b"\\", b"{", b"}", b"[", b'"cmd":', b'"id":',
    b'"AT+CSQ"', b",", b"\\ud800", b"null", b"1e999", b"\r", b"\n", b"\x00", b"\x1a", b"\x1b", b"\xff", b"\xc3\xa9",
)  # fmt: skip


def noise(source: random.Random, longest: int = 60) -> bytes:
    """Bytes of three kinds: pure chance, pieces that mean something, and a good request with one octet changed."""
    kind = source.randrange(3)
    if kind == 0:
        return source.randbytes(source.randrange(longest))
    if kind == 1:
        return b"".join(source.choices(PIECES, k=source.randrange(12)))
    good = bytearray(b'{"v":1,"id":"x","cmd":"AT+CSQ","timeout_ms":60000,"reply":true,"reply_to":"atrund/box/r"}')
    good[source.randrange(len(good))] = source.randrange(256)
    return bytes(good)


class Scene:
    def __init__(self, stage: Stage) -> None:
        self.module: Module = stage.module()
        self.broker: Broker = stage.broker()
        self.daemon: Daemon = stage.daemon(self.module, self.broker)
        self.daemon.configure(sms={"enabled": True, "numbers": [FRIEND], "answers_per_hour": 0}, tcp={"sequence": True})
        self.daemon.start()
        self.source = random.Random(SEED)  # noqa: S311 - noise

    def over_tcp(self, messages: int) -> None:
        for _ in range(messages // 200):
            with Caller(self.daemon.tcp, login=False) as caller:
                caller.socket.settimeout(PATIENCE)
                caller.send(LOGIN)
                for _ in range(200):
                    caller.send(noise(self.source).replace(b"\xff", b"") + b"\r")
                    _swallow(caller.socket)
                # A closing quote or subnegotiation that is still open must not keep this from being a command.
                caller.send(b"\rAT#CGMI\r")
                caller.read_until(b"#CGMI: Telit\r\n\r\nOK\r\n")
            until(lambda: not self.daemon.status()["tcp"]["peer"], "an empty place")

    def over_tcp_raw(self, messages: int) -> None:
        for _ in range(messages // 100):
            with Caller(self.daemon.tcp) as caller:
                caller.ask(b"AT\r")  # a good login: an address with wrong ones alone is turned away unread
            until(lambda: not self.daemon.status()["tcp"]["peer"], "an empty place")
            with Caller(self.daemon.tcp, login=False) as caller:
                try:
                    for _ in range(100):
                        caller.send(noise(self.source))
                        _swallow(caller.socket)
                except OSError:
                    pass
            until(lambda: not self.daemon.status()["tcp"]["peer"], "an empty place")

    def over_mqtt(self, messages: int) -> None:
        for _ in range(messages // BATCH):
            self._burst()

    def _burst(self) -> None:
        """As many at once as mosquitto queues for a client; QoS 0 and 1 in turn."""
        client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        client.max_inflight_messages_set(100)
        client.connect("127.0.0.1", self.broker.port)
        client.loop_start()
        try:
            told = [client.publish(BASE + f"at/request/{n % 7}", noise(self.source), qos=n % 2) for n in range(BATCH)]
            for one in told:
                one.wait_for_publish(PATIENCE)
        finally:
            client.disconnect()
            client.loop_stop()
        before = self._answered()
        self.broker.publish("at/request", json.dumps({"cmd": "AT#CGMI"}))
        until(lambda: self._answered() > before, "an answer", 30)
        until(lambda: self.daemon.status()["ledger"]["outbox"] == 0, "an empty outbox", 30)

    def _answered(self) -> int:
        return len(self.daemon.logged("command", door="mqtt", command="AT#CGMI", state="ok"))

    def over_local(self, messages: int) -> None:
        for _ in range(messages // 200):
            with self.daemon.local() as link:
                for _ in range(200):
                    link.sendall(noise(self.source).replace(b"\n", b"") + b"\n")
                    _swallow(link)
                link.sendall(b'{"op":"cancel"}\n{"op":"status"}\n')
                text = b""
                while b'"event":"status"' not in text:
                    piece = link.recv(65536)
                    assert piece
                    text = text[-100:] + piece

    def over_sms(self, messages: int) -> None:
        for number in range(messages):
            # Numbered, for two equal ones of one second are one message to the door (SMS-11).
            text = f"AT{noise(self.source, 30).decode('latin-1')[:100]}{number}"
            self.module.ask("sms", **{"from": FRIEND, "text": text, "dcs": 4})
            until(lambda: sum(self.module.ask("state")["state"]["messages"].values()) == 0, "an empty store")


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("send", "messages"),
    [
        (Scene.over_tcp, 2000),
        (Scene.over_tcp_raw, 2000),
        (Scene.over_mqtt, 3000),
        (Scene.over_local, 3000),
        (Scene.over_sms, 60),
    ],
    ids=["tcp", "tcp, no login", "mqtt", "local", "sms"],
)
def test_thousands_of_bad_messages(stage: Stage, send: Callable[[Scene, int], None], messages: int) -> None:
    scene = Scene(stage)
    send(scene, messages // 3)
    before = scene.daemon.memory
    send(scene, messages)
    grown = scene.daemon.memory - before
    assert grown < GROWTH_MAX, f"{grown} KiB more"
    assert scene.daemon.status()["module"]["state"] == "ready"
    assert scene.daemon.ctl("at", "AT#CGMI").stdout == "#CGMI: Telit\nOK\n"
    assert not [entry for entry in scene.daemon.log if entry["level"] in {"error", "critical"}]
    assert scene.daemon.stop() == 0


def _swallow(link: socket.socket) -> None:
    """Read what is there, so that nobody waits for room."""
    link.setblocking(False)
    try:
        link.recv(65536)
    except BlockingIOError:
        pass
    finally:
        link.settimeout(PATIENCE)
