# SPDX-License-Identifier: Apache-2.0
"""A fleet on one machine and broker: requests a second, and the slowest answer.

The nodes are simulated: each has a connection of its own and answers by the contract at once, with no module, no disk
and no rules behind it; so this measures who asks, and the broker. It is asked by `atrunctl fleet run`, and in turn by a
program that does the least with paho: publish all requests, count the answers. Both are timed by the nodes, from the
first request that comes in to the last answer that the broker has.

As a program: `swarm PORT COUNT` are the nodes, `bare PORT COUNT` is that other asker.
"""

import json
import resource
import select
import selectors
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from tests.bench.figures import Aims, table, title
from tests.bench.relay import no_delay
from tests.bench.stage import ROOT, BenchError, Program, Stage, deadline

NODES: Final = 500
ROUNDS: Final = 7
PREFIX: Final = "benchfleet"
WITHIN: Final = 60.0
"""Seconds for a round, and for the nodes to connect."""
LIMIT: Final = 1.5
"""How often the bare asker's time is aimed at."""


def measure(stage: Stage, aims: Aims) -> None:
    """Measure both in turns and print the table."""
    swarm = stage.add(
        "swarm",
        [sys.executable, Path(__file__), "swarm", str(stage.broker_port), str(NODES)],
        {"PYTHONPATH": str(ROOT)},
    )
    with deadline("the nodes", WITHIN):
        swarm.ask()
    askers = {"bare paho requester": _bare(stage), "atrunctl fleet run": _ours(stage)}
    spans: dict[str, list[float]] = {name: [] for name in askers}
    slowest: dict[str, list[float]] = {name: [] for name in askers}
    for number in range(ROUNDS):
        for name in sorted(askers, reverse=bool(number % 2)):
            swarm.ask("reset")
            slowest[name].append(_slowest(name, askers[name]))
            spans[name].append(_span(swarm))
    stage.drop(swarm)
    title(f"{NODES} simulated nodes at one broker, asked once each, {ROUNDS} times; medians")
    bare = statistics.median(spans["bare paho requester"])
    rows = []
    for name in askers:
        span = statistics.median(spans[name])
        late = statistics.median(slowest[name]) * 1000
        rows.append((name, f"{span * 1000:.0f}", f"{NODES / span:.0f}", f"{late:.0f}", f"{span / bare:.2f}"))
    table(("", "ms in all", "requests/s", "slowest, ms", "/ bare"), rows)
    ratio = statistics.median(spans["atrunctl fleet run"]) / bare
    aims.at_most(f"atrunctl fleet run at {NODES} nodes, over a bare requester", ratio, LIMIT)


def _bare(stage: Stage) -> list[str]:
    return [sys.executable, str(Path(__file__)), "bare", str(stage.broker_port), str(NODES)]


def _ours(stage: Stage) -> list[str]:
    broker = ("--broker", f"mqtt://127.0.0.1:{stage.broker_port}", "--prefix", PREFIX, "--user", "bench")
    run = ("--nodes", "node-*", "--rate", "0", "--json", "AT+CSQ")
    return [sys.executable, "-m", "atrund.ctl.main", "fleet", "run", *broker, *run]


def _slowest(name: str, command: list[str]) -> float:
    """Run an asker, which prints a line of JSON for each answer; return the longest that one took, in seconds."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=WITHIN, check=False, env={"PYTHONPATH": str(ROOT)}
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    if done.returncode or len({answer["node"] for answer in answers if answer["state"] == "ok"}) != NODES:
        raise BenchError(f"{name}: {len(answers)} answers of {NODES}, status {done.returncode}: {done.stderr[-500:]}")
    return max(float(answer["seconds"]) for answer in answers)


def _span(swarm: Program) -> float:
    count, span = swarm.ask("report").split()
    if int(count) != NODES:
        raise BenchError(f"the nodes gave {count} answers instead of {NODES}")
    return float(span)


class _Swarm:
    """The nodes, all on one thread."""

    def __init__(self, port: int, count: int) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
        self._selector = selectors.DefaultSelector()
        self._first = self._last = 0.0
        self._acknowledged = 0
        for number in range(count):
            self._add(port, f"node-{number:03}")

    def serve(self) -> None:
        """Obey standard input until it ends."""
        self._selector.register(sys.stdin, selectors.EVENT_READ)
        print("ready", flush=True)
        while True:
            for key, _ in self._selector.select():
                if key.data is not None:
                    _turn(key.data)
                    continue
                match sys.stdin.readline().strip():
                    case "":
                        return
                    case "reset":
                        self._first = self._last = 0.0
                        self._acknowledged = 0
                        print("ok", flush=True)
                    case "report":
                        print(self._acknowledged, self._last - self._first, flush=True)

    def _add(self, port: int, name: str) -> None:
        base = f"{PREFIX}/{name}/"
        ready = [False]
        client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5, client_id=f"{PREFIX}-{name}")
        client.on_socket_open = no_delay
        client.on_subscribe = lambda *_: ready.__setitem__(0, True)
        client.connect("127.0.0.1", port, keepalive=3600)
        client.subscribe(base + "at/request/+", qos=1)
        client.publish(base + "status", json.dumps(_record(state="online", reason=None)), qos=1, retain=True)
        connection = client.socket()
        assert connection is not None
        poll = select.poll()  # paho's own loop waits with select(), which knows no descriptor above 1023
        poll.register(connection, select.POLLIN)
        while not ready[0]:
            poll.poll()
            _turn(client)
        client.on_message = self._answer
        client.on_publish = self._note
        self._selector.register(connection, selectors.EVENT_READ, client)

    def _answer(self, client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        self._first = self._first or time.monotonic()
        asked = json.loads(message.payload)
        answer = _record(
            seq=1, id=asked["id"], rid="0" * 32, door="mqtt", peer="bench", cmd=asked["cmd"], state="ok", final="OK",
            lines=["+CSQ: 21,99"], raw_b64=None, queued_ms=0, duration_ms=1, truncated=False, reason=None,
        )  # fmt: skip
        client.publish(asked["reply_to"], json.dumps(answer), qos=1)

    def _note(self, *_: object) -> None:
        self._acknowledged += 1
        self._last = time.monotonic()


def _turn(client: paho.Client) -> None:
    client.loop_read()
    while client.want_write():
        client.loop_write()


def _record(**fields: object) -> dict[str, Any]:
    return {"v": 1, "session": "0" * 36, "ts": "2026-11-22T08:40:00.000Z", "clock": "ok", **fields}


def _ask_barely(port: int, count: int) -> None:
    """Ask all and print what came, as `atrunctl fleet run --json` does."""
    asked: dict[str, tuple[str, float]] = {}
    subscribed = [False]

    def note(_client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        answer = json.loads(message.payload)
        node, moment = asked.pop(answer["id"])
        print(json.dumps({"node": node, "state": answer["state"], "seconds": time.monotonic() - moment, **answer}))

    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.on_socket_open = no_delay
    client.on_subscribe = lambda *_: subscribed.__setitem__(0, True)
    client.on_message = note
    client.connect("127.0.0.1", port)
    client.subscribe(f"{PREFIX}/+/at/response/bare", qos=1)
    while not subscribed[0]:
        client.loop(1.0)
    for number in range(count):
        node = f"node-{number:03}"
        asked[str(number)] = node, time.monotonic()
        request = {"id": str(number), "cmd": "AT+CSQ", "reply_to": f"{PREFIX}/{node}/at/response/bare"}
        client.publish(f"{PREFIX}/{node}/at/request/bare", json.dumps(request), qos=1)
    while asked:
        client.loop(1.0)
    client.disconnect()


if __name__ == "__main__":
    _, role, port_, count_ = sys.argv
    if role == "swarm":
        _Swarm(int(port_), int(count_)).serve()
    else:
        _ask_barely(int(port_), int(count_))
