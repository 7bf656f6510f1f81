# SPDX-License-Identifier: Apache-2.0
"""RabbitMQ as the broker, alone, and as two nodes of which one is killed while requests flow (`make soak`)."""

from pathlib import Path

import pytest

from tests.scenarios.conftest import Stage
from tests.scenarios.players import Daemon, Module, until
from tests.support.counted import Counted
from tests.support.kept import rows
from tests.support.rabbit import cluster, tools
from tests.support.requester import Requester, judge

pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(600),
    pytest.mark.skipif(tools() is None, reason="RabbitMQ is not installed: packaging/bootstrap soak"),
]
REQUESTS = 1000


def players(stage: Stage, *ports: int) -> tuple[Module, Daemon]:
    """A module, and a daemon with these brokers in order of preference."""
    module = stage.module()
    module.ask("answer", command="+CPBR", lines=["+CPBR: found"], always=True)
    daemon = stage.daemon(module)
    first, *others = ports
    daemon.configure(
        module={"telemetry": 0},
        mqtt={
            "enabled": True,
            "host": "127.0.0.1",
            "port": first,
            "protocol": "3.1.1",
            "remote_at": True,
            "spread": 0,
            # The nodes of a cluster share a session, and what waits in it came to the other node a moment ago.
            "run_queued": True,
            "fallbacks": [{"host": "127.0.0.1", "port": port} for port in others],
        },
    )
    return module, daemon


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "rabbit"
    place.mkdir()
    return place


def test_alone(stage: Stage, folder: Path) -> None:
    """Birth, requests and their mirror, will and farewell."""
    asked = {f"request {number}": f"AT+CPBR={number}" for number in range(REQUESTS)}
    with cluster(folder, 1) as (node,):
        module, daemon = players(stage, node.port)
        with Requester(node.port) as requester:
            daemon.start()
            first = until(lambda: requester.states("online"), "the birth")
            counted = Counted(module, requester)
            requester.ask(asked, 120, counted)
            until(lambda: rows(daemon.state, "SELECT seq FROM outbox") == [], "an empty outbox")
            until(requester.is_whole, "the whole mirror")
            counted.look()
            assert judge(requester, asked, counted.lines) == {"ok": REQUESTS}
            daemon.kill()
            assert until(lambda: requester.states("offline"), "the will")[0]["session"] == first[0]["session"]
            daemon.start()
            assert daemon.stop() == 0
            until(lambda: [state for state in requester.states("offline") if state["reason"] == "stopped"], "the end")


def test_one_node_of_two_is_killed(stage: Stage, folder: Path) -> None:
    """REQ-9, MQ-2, MQ-4: each has one outcome and none runs twice; the daemon goes over to the other node."""
    asked = {f"request {number}": f"AT+CPBR={number}" for number in range(REQUESTS)}
    with cluster(folder, 2) as (first, second):
        module, daemon = players(stage, first.port, second.port)
        with Requester(second.port) as requester:
            daemon.start()
            counted = Counted(module, requester)

            def tick() -> None:
                counted()
                if len(requester.answered) >= REQUESTS // 3:
                    first.kill()

            requester.ask(asked, 240, tick)
            until(lambda: rows(daemon.state, "SELECT seq FROM outbox") == [], "an empty outbox")
            until(requester.is_whole, "the whole mirror")
            counted.look()
            assert judge(requester, asked, counted.lines) == {"ok": REQUESTS}
            assert daemon.status()["mqtt"]["preferred"] is False
            print(f"{requester.sent_again} asked again, {len(requester.heard) - len(requester.records())} came again")
            assert daemon.stop() == 0
