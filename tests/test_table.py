# SPDX-License-Identifier: Apache-2.0
import enum

import pytest

from atrund.table import IllegalTransition, To, step


class State(enum.Enum):
    RED = "red"
    GREEN = "green"


class Event(enum.Enum):
    SWITCH = "switch"
    FAIL = "fail"


class Effect(enum.Enum):
    RING = "ring the bell"


TABLE: dict[State, dict[Event, To[State, Effect]]] = {
    State.RED: {Event.SWITCH: To(State.GREEN, (Effect.RING,))},
    State.GREEN: {Event.SWITCH: To(State.RED), Event.FAIL: To(State.GREEN)},
}


def test_a_row_says_where_an_event_leads_and_what_is_to_be_done() -> None:
    assert step(TABLE, State.RED, Event.SWITCH) == To(State.GREEN, (Effect.RING,))
    assert step(TABLE, State.GREEN, Event.SWITCH).effects == ()


def test_what_is_in_no_row_is_refused_by_name() -> None:
    with pytest.raises(IllegalTransition, match="fail while red"):
        step(TABLE, State.RED, Event.FAIL)
