# SPDX-License-Identifier: Apache-2.0
"""Which retained messages are said and taken away, at which of several brokers."""

import pytest
from structlog.testing import capture_logs

from atrund.broker.retained import Retained
from atrund.broker.settings import Then


class Line:
    """A connection, if there is one; what was published waits for its answer."""

    def __init__(self) -> None:
        self.there = True
        self.sent: list[tuple[str, str]] = []
        self.asked: list[Then] = []

    def publish(self, topic: str, text: str, *, then: Then) -> None:
        if self.there:
            self.sent.append((topic, text))
            self.asked.append(then)

    def answer(self, refused: str | None = None) -> None:
        asked, self.asked = self.asked, []
        for then in asked:
            then(0, refused)


@pytest.fixture
def line() -> Line:
    return Line()


@pytest.fixture
def retained(line: Line) -> Retained:
    return Retained(line.publish)


def test_a_state_is_said_at_once_and_at_each_connection_the_last_word_alone(line: Line, retained: Retained) -> None:
    retained.put("t", "1", "a")
    line.there = False
    retained.put("t", "2", "a")
    retained.put("u", "3", "a")
    line.there = True
    retained.born("b")
    assert line.sent == [("t", "1"), ("t", "2"), ("u", "3")]


def test_what_is_taken_away_goes_from_each_broker_once(line: Line, retained: Retained) -> None:
    gone: list[str] = []
    retained.put("t", "1", "a")
    retained.take("t", ["a", "b"], lambda: gone.append("t"), "a")
    line.answer()
    retained.born("a")
    assert line.sent == [("t", "1"), ("t", "")]
    assert gone == []
    retained.born("b")
    retained.born("b")
    assert line.sent[2:] == [("t", ""), ("t", "")], "asked again, for nobody answered yet"
    line.answer()
    assert gone == ["t"]
    retained.born("b")
    assert len(line.sent) == 4


def test_what_is_said_anew_meanwhile_stays(line: Line, retained: Retained) -> None:
    gone: list[str] = []
    retained.take("t", ["a"], lambda: gone.append("t"), "a")
    retained.put("t", "1", "a")
    line.answer()
    retained.born("a")
    assert (line.sent, gone) == ([("t", ""), ("t", "1"), ("t", "1")], [])


def test_a_refusal_is_said_once_for_each_broker_and_tried_again(line: Line, retained: Retained) -> None:
    gone: list[str] = []
    with capture_logs() as logs:
        retained.put("t", "1", "a")
        line.answer("Not authorized")
        for broker in ("a", "b", "b"):
            retained.born(broker)
            line.answer("Not authorized")
        retained.take("t", ["b"], lambda: gone.append("t"), "b")
        line.answer("Not authorized")
    assert [(entry["topic"], entry["host"], entry["detail"]) for entry in logs] == [
        ("t", "a", "Not authorized"),
        ("t", "b", "Not authorized"),
    ]
    assert gone == []
    retained.born("b")
    line.answer()
    assert gone == ["t"]
