# SPDX-License-Identifier: Apache-2.0
"""Brokers that keep little, or lose what they had."""

import signal
import sys
from collections.abc import Callable
from typing import Final

import pytest

from tests.scenarios.conftest import Stage
from tests.scenarios.players import ROOT, Broker, Daemon, Module, until
from tests.support.counted import Counted
from tests.support.kept import rows
from tests.support.requester import Requester, judge

ASKED: Final = {f"request {number}": f"AT+CPBR={number}" for number in range(100)}


def players(stage: Stage, broker: Broker, protocol: str) -> tuple[Module, Daemon]:
    module = stage.module()
    module.ask("answer", command="+CPBR", lines=["+CPBR: found"], always=True)
    daemon = stage.daemon(module, broker)
    daemon.wrap = (sys.executable, str(ROOT / "tests/support/hasty.py"))
    daemon.configure(mqtt={"protocol": protocol}, module={"telemetry": 0})
    return module, daemon.start()


def ask(daemon: Daemon, module: Module, requester: Requester, tick: Callable[[], None]) -> Counted:
    """Have all of them answered, and the outbox emptied."""
    counted = Counted(module, requester)
    requester.ask(ASKED, 60, tick)
    until(lambda: rows(daemon.state, "SELECT seq FROM outbox") == [], "an empty outbox")
    counted.look()
    return counted


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_broker_with_next_to_no_room(stage: Stage, protocol: str) -> None:
    """It takes one message at a time, and throws away what it has no room for: requests and answers alike."""
    broker = stage.broker("max_inflight_messages 1", "max_queued_messages 5")
    module, daemon = players(stage, broker, protocol)
    with Requester(broker.port) as requester:
        counted = ask(daemon, module, requester, lambda: None)
        assert judge(requester, ASKED, counted.lines, whole=False) == {"ok": len(ASKED)}
    assert not [entry for entry in daemon.log if entry["level"] == "error"]


def test_a_broker_that_is_killed_and_forgets_all(stage: Stage) -> None:
    """Its sessions are gone with it: subscriptions are made and states published anew, and nothing runs twice."""
    broker = stage.broker()
    module, daemon = players(stage, broker, "5")
    due = [25, 50, 75]
    with Requester(broker.port) as requester:

        def tick() -> None:
            if due and len(requester.answered) >= due[0]:
                due.pop(0)
                broker.stop(signal.SIGKILL)
                broker.restart()

        counted = ask(daemon, module, requester, tick)
        assert judge(requester, ASKED, counted.lines, whole=False) == {"ok": len(ASKED)}
    assert [entry["session_present"] for entry in daemon.logged("broker connected")] == [False] * 4
    ear = stage.ear(broker)
    for topic in ("status", "info", "module/state"):
        ear.hear(topic)
    assert {message.topic for message in ear.messages if message.retained} == {"status", "info", "module/state"}
    assert not [entry for entry in daemon.log if entry["level"] == "error"]
