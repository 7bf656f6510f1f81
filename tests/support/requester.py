# SPDX-License-Identifier: Apache-2.0
"""A back end that asks by MQTT until it is answered, hears the whole mirror, and judges what it heard."""

import json
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Any, Final, Self

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from atrund.ledger.outbox import BLOCK
from tests.support import contract

BASE: Final = "atrund/box/"
WINDOW: Final = 20
"""Requests that wait for their answer at a time: fewer than the daemon lets wait for a turn."""
AGAIN: Final = 1.0
"""Seconds after which one that is not answered is sent again, with the same id."""
UNDER_WAY: Final = frozenset({"accepted", "running"})


class Requester:
    """Connected to the broker itself, with QoS 1; to be used as a context manager."""

    def __init__(self, port: int, *, again: float = AGAIN) -> None:
        self.heard: list[tuple[str, dict[str, Any]]] = []
        """Topic below the node's, and record, as they came."""
        self.answered: dict[str, dict[str, Any]] = {}
        """The first final answer by id."""
        self.sent_again = 0
        self._statuses: list[dict[str, Any]] = []
        self._again = again
        self._changed = threading.Condition()
        self._subscribed = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv311)
        self._client.max_queued_messages_set(0)
        self._client.on_connect = lambda client, *_: client.subscribe(
            [(f"{BASE}{t}", 1) for t in ("at/response", "event/#", "status")]
        )
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = lambda _c, _u, message: self._hear(message)
        self._client.reconnect_delay_set(1, 1)
        self._client.connect("127.0.0.1", port)

    def __enter__(self) -> Self:
        self._client.loop_start()
        assert self._subscribed.wait(15)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def ask(self, asked: Mapping[str, str], seconds: float, tick: Callable[[], None] = lambda: None) -> None:
        """Have these commands run, by id, and come back when each was answered; `tick` is called now and then."""
        end = time.monotonic() + seconds
        waiting, out = deque(asked), dict[str, float]()
        while waiting or out:
            tick()
            now = time.monotonic()
            with self._changed:
                for id_ in [id_ for id_ in out if id_ in self.answered]:
                    del out[id_]
                assert now < end, f"not answered: {list(out)}, {len(waiting)} not asked"
                late = [id_ for id_, since in out.items() if now - since > self._again]
                self.sent_again += len(late)
                new = [waiting.popleft() for _ in range(min(WINDOW - len(out), len(waiting)))]
                for id_ in (*late, *new):
                    out[id_] = now
                    payload = json.dumps({"id": id_, "cmd": asked[id_]})
                    self._client.publish(f"{BASE}at/request", payload, qos=1)
                self._changed.wait(0.05)

    def records(self) -> dict[int, tuple[str, dict[str, Any]]]:
        """What was heard by `seq`, in the order in which it came; what came again was the same."""
        found: dict[int, tuple[str, dict[str, Any]]] = {}
        with self._changed:
            for topic, record in self.heard:
                assert found.setdefault(record["seq"], (topic, record)) == (topic, record)
        return found

    def is_whole(self) -> bool:
        """Whether no record is missing among those that came."""
        return without_gaps(self.records())

    def states(self, state: str) -> list[dict[str, Any]]:
        """What was heard on `status` with this state."""
        with self._changed:
            return [status for status in self._statuses if status["state"] == state]

    def _hear(self, message: paho.MQTTMessage) -> None:
        topic, record = message.topic.removeprefix(BASE), json.loads(message.payload)
        with self._changed:
            if topic == "status":
                self._statuses.append(record)
                return
            self.heard.append((topic, record))
            if topic == "at/response" and record["state"] not in UNDER_WAY:
                self.answered.setdefault(record["id"], record)
                self._changed.notify_all()


def without_gaps(numbers: Iterable[int]) -> bool:
    """Whether no `seq` is missing; behind a crash they go on with another block of them."""
    return all(second == first + 1 or second % BLOCK == 1 for first, second in pairwise(sorted(numbers)))


def judge(
    requester: Requester,
    asked: Mapping[str, str],
    ran: Mapping[str, int],
    *,
    aside: frozenset[int] = frozenset(),
    whole: bool = True,
) -> "Counter[str]":
    """Hold what was heard to what was promised, and return how many ended how (REQ-9, MQ-2, MQ-4).

    `ran` is how often the module saw each command line; `aside` are the records that were said to be set aside; with a
    broker that loses what it acknowledged, what was heard is not `whole`.
    """
    records = requester.records()
    in_turn = [seq for seq in records if seq not in aside]
    assert in_turn == sorted(in_turn)
    assert not whole or requester.is_whole()
    by_topic: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for topic, record in records.values():
        contract.check(topic, json.dumps(record).encode())
        by_topic.setdefault((topic, record.get("id", "")), []).append(record)
    ends = Counter[str]()
    for id_, line in asked.items():
        answers = by_topic["at/response", id_]
        events = [by_topic.get((topic, id_), []) for topic in ("event/command", "event/response")]
        assert [len(each) for each in events] == [1, 1] or (not whole and max(map(len, events)) <= 1)
        commands, outcomes = events
        assert len({record["rid"] for record in (*answers, *commands, *outcomes)}) == 1
        (end,) = {record["state"] for record in (*answers, *outcomes)} - UNDER_WAY
        assert {command["state"] for command in commands} <= {"accepted"}
        assert ran.get(line, 0) == 1 if end == "ok" else ran.get(line, 0) <= (end == "lost"), (line, end)
        ends[end] += 1
    return ends
