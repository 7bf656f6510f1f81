# SPDX-License-Identifier: Apache-2.0
"""The real program killed with -9 at every step of an MQTT request, and started again; broker and module go on."""

import json
import re
import sys
from dataclasses import dataclass
from typing import Any, Final

import pytest

from tests.scenarios.conftest import Stage
from tests.scenarios.players import ROOT, Broker, Daemon, Ear, Module, until
from tests.support.kept import rows
from tests.support.requester import without_gaps

STEPS: Final = {
    "PUBLISH comes": 1,
    "PUBACK goes": 1,
    "PUBLISH goes": 3,
    "PUBACK comes": 3,
    "to the module": 1,
    "from the module": 1,
}
"""What a request has at least: itself, its answer, and two records of the mirror."""
TRANSACTIONS_MAX: Final = 30
"""More than a request has; how many threads share one is chance."""


@dataclass(frozen=True)
class Scene:
    """A daemon that dies again and again, and what is around it."""

    module: Module
    broker: Broker
    ear: Ear
    daemon: Daemon

    def begin(self, *last: object) -> None:
        """Start the daemon, which dies as tests/support/dying.py has it."""
        self.daemon.environ = {"ATRUND_DIES": json.dumps(last)}
        self.daemon.start()

    def dies(self, id_: str) -> bool:
        """Ask, and tell whether that killed the daemon."""
        assert self.daemon.program is not None
        process = self.daemon.program.process
        self.ask(id_)
        until(lambda: process.poll() is not None or self.over(id_), f"the end of {id_}")
        return process.poll() is not None

    def ask(self, id_: str) -> None:
        self.broker.publish("at/request", json.dumps({"id": id_, "cmd": self.line(id_)}))

    @staticmethod
    def line(id_: str) -> str:
        return f"AT+CPBR={re.sub(r'[^0-9]', '', id_)}"

    def state(self, id_: str) -> str | None:
        found = rows(self.daemon.state, "SELECT state FROM requests WHERE json_extract(asked, '$.context.id') = ?", id_)
        return found[0][0] if found else None

    def heard(self, topic: str, id_: str) -> dict[int, dict[str, Any]]:
        """The records of a request by their `seq`: one may come again, and is the same then."""
        return {record["seq"]: record for record in self.ear.records(topic, id=id_)}

    def told(self, id_: str) -> bool:
        """Whether its end is heard on both topics."""
        return all(self.heard(topic, id_) for topic in ("at/response", "event/response")) and self.state(id_) == "ended"

    def over(self, id_: str) -> bool:
        """Whether no trace of it waits for the broker any more, either."""
        return self.told(id_) and rows(self.daemon.state, "SELECT seq FROM outbox") == []


@pytest.fixture
def scene(stage: Stage, request: pytest.FixtureRequest) -> Scene:
    module, broker = stage.module(), stage.broker()
    module.ask("answer", command="+CPBR", lines=["+CPBR: found"], always=True)
    ear = stage.ear(broker)
    daemon = stage.daemon(module, broker)
    daemon.configure(mqtt={"protocol": request.param}, module={"telemetry": 0})
    daemon.wrap = (sys.executable, str(ROOT / "tests/support/dying.py"))
    return Scene(module, broker, ear, daemon)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("scene", "after"),
    [
        ("5", True),
        ("3.1.1", False),
        pytest.param("5", False, marks=pytest.mark.soak),
        pytest.param("3.1.1", True, marks=pytest.mark.soak),
    ],
    indirect=["scene"],
)
def test_killed_at_any_step_a_request_runs_once_and_has_one_outcome(scene: Scene, *, after: bool) -> None:
    """REQ-9, MQ-2, MQ-4: what had to come of it is told from what was on disk at the kill."""
    points = [(kind, which) for kind, count in STEPS.items() for which in range(count)]
    points += [("transaction", which) for which in range(TRANSACTIONS_MAX)]
    last, states = None, set()
    for number, (kind, which) in enumerate(points):
        id_ = f"request-{number}-"
        scene.begin(id_, kind, which, after)
        if last is not None:
            check(scene, *last)
        if not scene.dies(id_):
            assert kind == "transaction", f"there is no {kind} {which}"
            break
        last = id_, scene.state(id_), scene.module.count(scene.line(id_))
        states.add(last[1])
    # Behind a packet that came, what other threads make of it meanwhile may be on disk already.
    assert states | {None} == {None, "recorded", "sent", "ended"}
    # Recorded, sent, ended, acknowledged: what comes close together is written in one.
    assert 4 <= which < TRANSACTIONS_MAX - 1
    scene.daemon.kill()
    in_order(scene.ear)


def check(scene: Scene, id_: str, state: str | None, ran: int) -> None:
    """Compare what came of a request with what had to: `state` and `ran` are what it was like at the kill."""
    until(lambda: scene.told(id_), f"the answer to {id_}")
    (outcome,) = scene.heard("event/response", id_).values()
    (command,) = scene.heard("event/command", id_).values()
    end, runs = outcome["state"], scene.module.count(scene.line(id_))
    if state is None:
        # The broker has it still, and brings it again: it may come before the module is ready.
        assert (end, outcome["reason"]) in {("ok", None), ("rejected", "port_down")}
        assert (ran, runs) == (0, end == "ok")
    else:
        assert end == ("lost" if state == "sent" else "ok")
        assert (ran == 0 and runs == 1) if state == "recorded" else runs == ran
    assert command["state"] == "accepted"
    answers = scene.heard("at/response", id_)
    assert {record["rid"] for record in answers.values()} == {outcome["rid"]} == {command["rid"]}
    # One that was not acknowledged is delivered again, and gets its state or the recorded answer.
    assert {answer["state"] for answer in answers.values()} - {"accepted", "running"} == {end}
    assert len(answers) <= 2
    # Asked again it is answered from the record.
    scene.ask(id_)
    new = lambda: [record for seq, record in scene.heard("at/response", id_).items() if seq > max(answers)]  # noqa: E731
    again = until(new, f"the answer to {id_} again")
    assert [(r["state"], r["rid"]) for r in again] == [(end, outcome["rid"])]


def in_order(ear: Ear) -> None:
    """Each record has a number that rises; one that comes again is the same."""
    records: dict[int, dict[str, Any]] = {}
    for message in ear.messages:
        if message.topic.startswith(("event/", "at/response")):
            record = {"topic": message.topic, **message.record}
            assert records.setdefault(record["seq"], record) == record
    assert list(records) == sorted(records)
    assert without_gaps(records)
