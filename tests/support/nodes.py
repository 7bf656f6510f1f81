# SPDX-License-Identifier: Apache-2.0
"""Nodes that are played: they keep the MQTT contract to the outside, and have nothing inside.

What a node does follows from its name: `...-silent` never answers, `...-error` answers ERROR, `...-odd` a state that
nobody knows, `...-twice` twice, `...-evil` with what a terminal would obey, `...-junk` with what is no answer,
`...-slow` first says that it runs and answers when it is told to; all others answer OK with one line.
"""

import json
import threading
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

LINE: Final = "+CSQ: 14,99"
EVIL: Final = "\x1b]0;owned\x07\x1b[2J\u202e"


def record(node: str, **fields: object) -> dict[str, Any]:
    """A record of the contract."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {"v": 1, "session": f"session of {node}", "ts": now, "clock": "ok", **fields}


def answer(node: str, request: dict[str, Any], state: str = "ok", **fields: object) -> dict[str, Any]:
    """An answer of the contract to a request."""
    told = {
        "seq": 1,
        "id": request["id"],
        "rid": "0" * 32,
        "door": "mqtt",
        "peer": "unknown",
        "cmd": request["cmd"],
        "state": state,
        "final": "OK" if state == "ok" else None,
        "lines": [LINE] if state == "ok" else [],
        "raw_b64": None,
        "queued_ms": 0,
        "duration_ms": 1,
        "truncated": False,
        "reason": None,
        "detail": None,
    }
    return record(node, **{**told, **fields})


class Nodes:
    """Some nodes on one connection; `requests` is what came, in order."""

    def __init__(self, port: int, names: Iterable[str], *, prefix: str = "atrund", user: str = "") -> None:
        self.names = list(names)
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.topics: list[str] = []
        self.expiries: list[int | None] = []
        self._prefix = prefix
        self._states: dict[str, str | None] = {}
        self._ready = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5, client_id=f"nodes-{port}")
        if user:
            self._client.username_pw_set(user, "secret")
        self._client.on_connect = self._connected
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = self._came
        self._client.reconnect_delay_set(1, 1)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._ready.wait(15)
        for name in self.names:
            self.status(name, "online")

    def status(self, name: str, state: str | None) -> None:
        """Have a node be online or offline, or forgotten."""
        self._states[name] = state
        self._client.publish(*self._status(name, state), qos=1, retain=True).wait_for_publish(15)

    def say(self, topic: str, payload: str | bytes) -> None:
        """Publish below the prefix."""
        told = self._client.publish(f"{self._prefix}/{topic}", payload, qos=1)
        if told.rc == paho.MQTT_ERR_SUCCESS:  # else it goes out when the broker is there again
            told.wait_for_publish(15)

    def finish(self) -> None:
        """Have those that are slow answer."""
        for name, request in self.requests:
            if name.endswith("-slow") and "cmd" in request:
                self._answer(name, request)

    def asked(self, name: str) -> list[dict[str, Any]]:
        """The requests to a node."""
        return [request for asked, request in self.requests if asked == name and "cmd" in request]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        if (left := self._client.socket()) is not None:  # its thread may have ended before it did that
            left.close()

    def _connected(self, client: paho.Client, *_: object) -> None:
        client.subscribe([(f"{self._prefix}/{name}/at/#", 1) for name in self.names])
        for name, state in self._states.items():  # a birth at every connection
            client.publish(*self._status(name, state), qos=1, retain=True)

    def _came(self, _client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        name, _, rest = message.topic.removeprefix(f"{self._prefix}/").partition("/")
        if not rest.startswith(("at/request", "at/cancel")):
            return
        request = json.loads(message.payload)
        self.requests.append((name, request))
        self.topics.append(message.topic)
        self.expiries.append(getattr(message.properties, "MessageExpiryInterval", None))
        if rest.startswith("at/cancel"):
            asked = next(one for one in self.asked(name) if one["id"] == request["id"])
            self._answer(name, asked, "cancelled")
            return
        match name.rpartition("-")[2]:
            case "silent":
                pass
            case "error":
                self._answer(name, request, "error", final="+CME ERROR: 3")
            case "odd":
                self._answer(name, request, "marvellous")
            case "evil":
                self._answer(name, request, "error", final=EVIL, lines=[EVIL], reason=EVIL)
            case "junk":
                self._publish(request, b"\xff\xfe no JSON")
                self._publish(request, b"[]")
                self._publish(request, b'{"id":1}')
            case "slow":
                self._answer(name, request, "running")
            case "twice":
                self._answer(name, request)
                self._answer(name, request)
            case _:
                self._answer(name, request)

    def _answer(self, name: str, request: dict[str, Any], state: str = "ok", **fields: object) -> None:
        self._publish(request, json.dumps(answer(name, request, state, **fields)).encode())

    def _status(self, name: str, state: str | None) -> tuple[str, str]:
        payload = "" if state is None else json.dumps(record(name, state=state, reason=None))
        return f"{self._prefix}/{name}/status", payload

    def _publish(self, request: dict[str, Any], payload: bytes) -> None:
        self._client.publish(request["reply_to"], payload, qos=1)
