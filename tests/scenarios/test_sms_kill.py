# SPDX-License-Identifier: Apache-2.0
"""The real program killed with -9 while it serves an SMS, and started again; the module goes on meanwhile."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.scenarios.conftest import Stage
from tests.scenarios.players import Daemon, Module, until
from tests.support.kept import rows

FRIEND = "+393468686711"
LINE = "AT+CSQ"
ANSWER = "\r\n+CSQ: 17,0\r\n\r\nOK\r\n"
LOST = '\r\n#ATRUN: "lost"\r\n\r\nERROR\r\n'


@dataclass(frozen=True)
class Scene:
    """A daemon with the SMS door open, and what is on its disk."""

    module: Module
    daemon: Daemon

    def rows(self, sql: str, *values: str) -> list[tuple[Any, ...]]:
        return rows(self.daemon.state, sql, *values)

    @property
    def answer(self) -> dict[str, Any]:
        """How far the answer got."""
        ((text,),) = self.rows("SELECT json_extract(asked, '$.context.answer') FROM requests") or [(None,)]
        found: dict[str, Any] = json.loads(text or "{}")
        return found

    @property
    def sent(self) -> list[str]:
        return [message["text"] for message in self.module.ask("sent")["sent"]]

    def told(self, event: str) -> int:
        return len(self.rows("SELECT n FROM audit WHERE event = ?", event))

    def done(self) -> bool:
        lying = self.module.ask("state")["state"]["messages"]["SM"]
        return self.rows("SELECT state, answered FROM requests") == [("ended", 1)] and not lying


def at_once(scene: Scene) -> None:
    del scene


def while_it_runs(scene: Scene) -> None:
    until(lambda: scene.module.count(LINE), "the command")


def while_its_answer_goes_out(scene: Scene) -> None:
    until(lambda: any(line.startswith("AT+CMGS=") for line in scene.module.seen), "the answer")


def while_its_answer_waits(scene: Scene) -> None:
    until(lambda: scene.answer.get("under_way") is False, "the module's refusal")


def when_it_was_answered(scene: Scene) -> None:
    until(lambda: scene.rows("SELECT answered FROM requests") == [(1,)], "the answer")


@pytest.mark.parametrize(
    ("moment", "fault", "answers", "repeated"),
    [
        (at_once, {}, {(ANSWER,), (LOST,), (ANSWER, ANSWER)}, {0, 1}),
        (while_it_runs, {"op": "late", "command": LINE, "seconds": 3.0}, {(LOST,)}, {0}),
        (
            while_its_answer_goes_out,
            {"op": "late", "command": "+CMGS", "seconds": 3.0},
            {(ANSWER,), (ANSWER, ANSWER)},
            {1},
        ),
        (while_its_answer_waits, {"op": "fail", "command": "+CMGS", "result": "+CMS ERROR: 42"}, {(ANSWER,)}, {0}),
        (
            when_it_was_answered,
            {"op": "fail", "command": "+CMGD", "result": "+CMS ERROR: 500", "always": True},
            {(ANSWER,)},
            {0},
        ),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_killed_the_program_runs_a_command_once_and_its_answer_is_sent(
    stage: Stage,
    moment: Callable[[Scene], None],
    fault: dict[str, Any],
    answers: set[tuple[str, ...]],
    repeated: set[int],
) -> None:
    """REQ-9, SMS-11, SMS-12."""
    module = stage.module("--send-delay", "0")
    daemon = stage.daemon(module)
    daemon.configure(sms={"enabled": True, "numbers": [FRIEND]})
    daemon.start()
    scene = Scene(module, daemon)
    module.ask("answer", command=LINE, lines=["+CSQ: 17,0"], always=True)
    if fault:
        module.ask(**{"times": 1, **fault} if "always" not in fault else fault)
    module.ask("sms", **{"from": FRIEND, "text": LINE})
    moment(scene)
    daemon.kill()
    if "always" in fault:
        module.ask("clear", command=fault["command"])
    daemon.start()
    until(scene.done, "its end", 60)
    assert module.count(LINE) == 1
    assert tuple(scene.sent) in answers
    assert scene.told("answer repeated") in repeated
    assert len(scene.rows("SELECT n FROM audit WHERE line = ?", LINE)) == 1
    assert scene.told("answer undelivered") == 0
    (entry,) = json.loads(daemon.ctl("sms", "log", "--json").stdout)
    assert entry["outcome"] == ("lost" if scene.sent == [LOST] else "ok")
    assert daemon.stop() == 0
