# SPDX-License-Identifier: Apache-2.0
"""Requests through a connection that is delayed, stalled and cut all the time, and a daemon that is killed."""

import random
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import pytest

from tests.scenarios.conftest import Stage
from tests.scenarios.players import ROOT, Daemon, Program, until
from tests.support.counted import Counted
from tests.support.kept import rows
from tests.support.requester import Requester, judge

SUPPORT: Final = ROOT / "tests/support"
ProxyTo = Callable[[int, int], tuple[Program, int]]


@pytest.fixture
def proxy_to(stage: Stage) -> Iterator[ProxyTo]:
    """Starts a proxy to a port with a seed, and returns it with its own port."""
    started: list[Program] = []

    def start(port: int, seed: int) -> tuple[Program, int]:
        proxy = Program([sys.executable, SUPPORT / "chaos.py", str(port), str(seed)], stage.folder / "proxy.log")
        started.append(proxy)
        return proxy, int(until(lambda: proxy.said(r"^\d+$"), "the proxy")[0])

    yield start
    for proxy in started:
        proxy.stop(signal.SIGKILL)


@dataclass(frozen=True)
class Course:
    """`seconds` is how long it may take, and `kills` how often the daemon is killed on the way."""

    protocol: str
    seed: int
    requests: int
    seconds: float
    kills: int = 0


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "course",
    [
        Course("5", 1, 120, 120),
        Course("3.1.1", 2, 120, 120),
        pytest.param(Course("5", 3, 10_000, 3000), marks=pytest.mark.soak),
        pytest.param(Course("3.1.1", 4, 10_000, 3000, kills=100), marks=pytest.mark.soak),
    ],
    ids=lambda course: f"{course.protocol}-{course.requests}",
)
def test_each_request_has_one_outcome_whatever_becomes_of_the_connection(
    stage: Stage, proxy_to: ProxyTo, course: Course
) -> None:
    """REQ-9, MQ-2, MQ-4: none runs twice, and the mirror comes in order and whole."""
    # Nothing is to be dropped but by the proxy: mosquitto keeps a thousand messages for a client otherwise.
    module, broker = stage.module(), stage.broker("max_queued_messages 0")
    module.ask("answer", command="+CPBR", lines=["+CPBR: found"], always=True)
    proxy, port = proxy_to(broker.port, course.seed)
    daemon = stage.daemon(module, broker)
    daemon.wrap = (sys.executable, str(SUPPORT / "hasty.py"))
    daemon.configure(
        mqtt={"protocol": course.protocol, "port": port, "keepalive": 10, "connect_timeout": 2}, module={"telemetry": 0}
    )
    daemon.start()
    asked = {f"request {number}": f"AT+CPBR={number}" for number in range(course.requests)}
    with Requester(broker.port) as requester:
        counted = Counted(module, requester)
        due = iter(sorted(random.Random(course.seed).sample(range(course.requests), course.kills)))  # noqa: S311 - as often as it is run
        killing = _killing(daemon, requester, due)

        def tick() -> None:
            counted()
            next(killing, None)

        requester.ask(asked, course.seconds, tick)
        proxy.process.send_signal(signal.SIGUSR1)
        daemon.stop()  # what was set aside is sent after a start, too
        daemon.start()
        until(lambda: rows(daemon.state, "SELECT seq FROM outbox") == [], "an empty outbox", 60)
        until(requester.is_whole, "what is on its way to the requester")
        counted.look()
        aside = frozenset(entry["seq"] for entry in daemon.logged("record set aside"))
        ends = judge(requester, asked, counted.lines, aside=aside)
    cuts, again = len(proxy.text.split("cut ")) - 1, len(requester.heard) - len(requester.records())
    print(f"{ends} {cuts} cuts, {requester.sent_again} asked again, {again} records came again, {len(aside)} set aside")
    assert cuts >= course.requests / 50
    assert ends["ok"] >= course.requests - 20 * course.kills
    assert not [
        entry
        for entry in daemon.log
        if entry["level"] in {"error", "critical"} and entry["event"] != "record set aside"
    ]


def _killing(daemon: Daemon, requester: Requester, due: Iterator[int]) -> Iterator[None]:
    """Kill the daemon, and start it again, when so many requests were answered."""
    for number in due:
        while len(requester.answered) < number:
            yield
        daemon.kill()
        daemon.begin()
        yield
