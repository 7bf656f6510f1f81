# SPDX-License-Identifier: Apache-2.0
"""What is remembered of each broker (MQ-2), what is made of its refusals, and of others that speak as this node."""

import json
import math

import pytest

from atrund.broker import refusals
from atrund.broker.dialling import Failure
from atrund.broker.notes import SESSIONS_MAX, Notes
from atrund.broker.twin import FORGET, Twin

A, B = "a:1883", "b:1883"


def again(notes: Notes, *names: str, run: float, down: float) -> Notes:
    """The next start of the daemon."""
    return Notes(names or (A, B), run=run, kept=notes.text, down=down)


def test_a_broker_of_which_nothing_is_known_was_away_for_ever() -> None:
    assert Notes((A,), run=0.0).away(A, 5.0) == math.inf


def test_each_broker_is_away_for_itself() -> None:
    """A day on A is a day away from B, however short the way back is."""
    notes = Notes((A, B), run=0.0)
    notes.came(B, "s")
    notes.went(B, 100.0)
    notes.came(A, "s")
    assert notes.away(A, 86_500.0) == 0.0
    assert notes.away(B, 86_500.0) == 86_400.0
    notes.went(A, 86_500.0)
    assert notes.away(A, 86_501.0) == 1.0


def test_absence_goes_on_over_restarts() -> None:
    notes = Notes((A, B), run=0.0)
    notes.came(B, "s")
    notes.went(B, 100.0)
    notes.came(A, "s")
    second = again(notes, run=200.0, down=30.0)
    assert (second.away(A, 201.0), second.away(B, 201.0)) == (31.0, 131.0)
    third = again(second, run=300.0, down=7.0)
    assert (third.away(A, 300.0), third.away(B, 300.0)) == (137.0, 237.0)


def test_a_down_time_that_is_not_known_counts_as_for_ever() -> None:
    notes = Notes((A,), run=0.0)
    notes.came(A, "s")
    second = again(notes, run=10.0, down=math.inf)
    assert second.away(A, 10.0) == math.inf
    assert again(second, run=20.0, down=0.0).away(A, 20.0) == math.inf


def test_a_broker_that_was_configured_away_meanwhile_is_not_known() -> None:
    notes = Notes((A, B), run=0.0)
    notes.came(A, "s")
    second = again(notes, B, run=10.0, down=0.0)
    assert json.loads(second.text) == {}
    assert again(second, A, run=20.0, down=0.0).away(A, 20.0) == math.inf


def test_a_run_clock_that_went_back_makes_nobody_come_from_the_future() -> None:
    notes = Notes((A,), run=0.0)
    notes.came(A, "s")
    notes.went(A, 500.0)
    assert again(notes, run=100.0, down=1.0).away(A, 100.0) == 1.0


@pytest.mark.parametrize("kept", ["", "x", "7.0", "[]", '{"a:1883": 1}', '{"a:1883": []}', '{"a:1883": ["x"]}', "null"])
def test_what_can_not_be_read_is_not_known(kept: str) -> None:
    assert Notes((A,), run=0.0, kept=kept, down=0.0).away(A, 0.0) == math.inf


def test_the_sessions_of_the_last_runs_are_known_at_each_broker() -> None:
    notes = Notes((A, B), run=0.0)
    assert notes.came(A, "s0")
    assert not notes.came(A, "s0")
    for number in range(1, 6):
        notes = again(notes, run=0.0, down=0.0)
        assert notes.came(A, f"s{number}")
    assert notes.sessions(A) == ("s5", "s4", "s3", "s2")
    assert len(notes.sessions(A)) == SESSIONS_MAX
    assert notes.sessions(B) == ()


@pytest.mark.parametrize(
    ("code", "failure", "right"),
    [
        (0x80, Failure.AWAY, ""),
        (0x84, Failure.HOPELESS, "mqtt.protocol"),
        (0x85, Failure.HOPELESS, "mqtt.client_id"),
        (0x86, Failure.HOPELESS, "mqtt.user and mqtt.password_file"),
        (0x87, Failure.HOPELESS, "access control"),
        (0x88, Failure.LATER, ""),
        (0x89, Failure.LATER, ""),
        (0x8A, Failure.HOPELESS, "ban"),
        (0x8B, Failure.AWAY, ""),
        (0x8E, Failure.TAKEN, "the same mqtt.client_id"),
        (0x97, Failure.LATER, "limit"),
        (0x9A, Failure.HOPELESS, "retained"),
        (0x9B, Failure.HOPELESS, "QoS 1"),
        (0x9C, Failure.LATER, "mqtt.fallbacks"),
        (0x9D, Failure.HOPELESS, "mqtt.fallbacks"),
        (0x9F, Failure.LATER, ""),
    ],
)
def test_what_a_refusal_means(code: int, failure: Failure, right: str) -> None:
    found, text = refusals.explain(code, "Its name")
    assert found is failure
    assert text.startswith("Its name")
    assert right in text
    assert (";" in text) == bool(right)


def test_what_the_broker_says_itself_is_repeated_as_far_as_it_can_be_shown() -> None:
    _, text = refusals.explain(0x86, "Bad user name or password", said="no\nsuch\x1b[31m device" + "x" * 500)
    assert text.startswith('Bad user name or password ("no?such?[31m device')
    assert len(text) < 400
    _, text = refusals.explain(0x9C, "Use another server", server="c.example")
    assert text.startswith("Use another server; it names c.example; no broker is called that")
    assert refusals.explain(0x8B, "Server shutting down", server="c")[1] == "Server shutting down; it names c"


def status(session: str, state: str = "online") -> bytes:
    return json.dumps({"session": session, "state": state}).encode()


def test_one_take_over_is_no_sign_and_two_are() -> None:
    twin = Twin()
    twin.taken_over(0.0)
    assert not twin.is_there(0.0)
    twin.taken_over(FORGET + 1)
    assert not twin.is_there(FORGET + 1)
    twin.taken_over(FORGET + 100)
    assert twin.is_there(FORGET + 100)
    assert twin.is_there(2 * FORGET + 99)
    assert not twin.is_there(2 * FORGET + 100)


@pytest.mark.parametrize(
    ("payload", "spoken", "there"),
    [
        (status("other"), False, True),
        (status("other"), True, True),
        (status("other", "offline"), False, False),
        (status("other", "offline"), True, True),
        (status("mine"), False, False),
        (status("before"), True, False),
        (status("before", "offline"), True, False),
        (b"", False, False),
        (b"\xff", False, False),
        (b"[]", True, False),
        (b"7", True, False),
        (b"[" * 100_000, True, False),
        (b'{"session":"other"}', True, False),
        (b'{"state":"online"}', True, False),
    ],
)
def test_whose_status_is_a_sign(payload: bytes, *, spoken: bool, there: bool) -> None:
    """What lies there from a run before, or from its will, is our own."""
    twin = Twin()
    twin.status(payload, ("mine", "before"), 10.0, spoken=spoken)
    assert twin.is_there(10.0) == there


def test_it_is_said_once_and_again_when_it_was_gone() -> None:
    twin = Twin()
    assert not twin.is_news(0.0)
    for now in (1.0, 500.0, 4000.0):
        twin.status(status("other"), (), now, spoken=False)
        assert twin.is_news(now) == (now == 1.0)
    assert not twin.is_news(4001.0)
    later = 4001.0 + FORGET
    assert not twin.is_news(later)
    twin.status(status("other"), (), later, spoken=False)
    assert twin.is_news(later)
