# SPDX-License-Identifier: Apache-2.0
"""A request's life: nothing is sent that is not recorded, and every life ends once (REQ-1, REQ-9)."""

from dataclasses import replace

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from atrund.atrun.request import (
    TRANSITIONS,
    Door,
    Effect,
    End,
    Event,
    Life,
    Outcome,
    Reason,
    Request,
    State,
)
from atrund.table import IllegalTransition


def reachable(start: State) -> set[State]:
    found = {start}
    waiting = [start]
    while waiting:
        for to in TRANSITIONS[waiting.pop()].values():
            if to.state not in found:
                found.add(to.state)
                waiting.append(to.state)
    return found


IMPOSSIBLE = [(state, event) for state in State for event in Event if event not in TRANSITIONS[state]]


def test_every_state_has_a_row_and_is_reachable() -> None:
    assert set(TRANSITIONS) == set(State) == reachable(State.RECEIVED)


def test_every_state_leads_to_the_end() -> None:
    assert all(State.ENDED in reachable(state) for state in State)


def test_the_end_is_final_and_every_way_there_records_the_outcome_but_a_repetition() -> None:
    assert TRANSITIONS[State.ENDED] == {}
    ends = [(event, to) for row in TRANSITIONS.values() for event, to in row.items() if to.state is State.ENDED]
    assert {event for event, to in ends if to.effects[-1:] != (Effect.RECORD_END,)} == {Event.REPEATED}


def test_only_a_sent_command_is_given_up() -> None:
    giving_up = {state for state, row in TRANSITIONS.items() for to in row.values() if Effect.GIVE_UP in to.effects}
    assert giving_up == {State.SENT}


@pytest.mark.parametrize(("state", "event"), IMPOSSIBLE)
def test_an_impossible_pair_raises_and_changes_nothing(state: State, event: Event) -> None:
    life = Life(state)
    with pytest.raises(IllegalTransition, match=f"{event.value} while {state.value}"):
        life.step(event)
    assert life.state is state


def test_the_plain_way() -> None:
    life = Life()
    walked = [
        life.step(event)
        for event in (
            Event.ALLOWED,
            Event.RECORDED,
            Event.DELAY_OVER,
            Event.TURN,
            Event.RECORDED,
            Event.FINAL,
        )
    ]
    assert walked == [
        (Effect.RECORD,),
        (Effect.DELAY,),
        (Effect.ASK_TURN,),
        (Effect.RECORD_SENT,),
        (Effect.SEND,),
        (Effect.RECORD_END,),
    ]
    assert life.state is State.ENDED


def test_after_a_crash_a_recorded_request_runs_and_a_sent_one_does_not() -> None:
    recorded, sent = Life(State.JUDGED), Life(State.SENT)
    assert recorded.step(Event.FOUND_AFTER_RESTART) == (Effect.DELAY,)
    assert sent.step(Event.FOUND_AFTER_RESTART) == (Effect.RECORD_END,)
    assert sent.state is State.ENDED


class Lives(RuleBasedStateMachine):
    """Any events in any order, from the start or as a restart finds it on disk."""

    @initialize(found=st.sampled_from([State.RECEIVED, State.JUDGED, State.SENT]))
    def begin(self, found: State) -> None:
        self.life = Life(found)
        self.effects: list[Effect] = []
        self.events: list[Event] = []
        self.ended = 0
        self.recorded = found is not State.RECEIVED
        self.sent_recorded = False

    @rule(event=st.sampled_from(Event))
    def happens(self, event: Event) -> None:
        before = self.life.state
        try:
            effects = self.life.step(event)
        except IllegalTransition:
            assert event not in TRANSITIONS[before]
            assert self.life.state is before
            return
        if event is Event.RECORDED:
            self.recorded = True
            self.sent_recorded |= Effect.RECORD_SENT in self.effects
        if Effect.SEND in effects:
            assert event is Event.RECORDED
            assert self.recorded
            assert self.sent_recorded
        self.ended += self.life.state is State.ENDED
        self.events.append(event)
        self.effects.extend(effects)

    @rule()
    def goes_on(self) -> None:
        """Walk forward, so that long lives are common."""
        forward = [event for event, to in TRANSITIONS[self.life.state].items() if to.state is not State.ENDED]
        if forward:
            self.happens(forward[0])

    @invariant()
    def ends_once(self) -> None:
        assert self.ended == (self.life.state is State.ENDED)
        assert self.effects.count(Effect.RECORD_END) == (self.ended and self.events[-1] is not Event.REPEATED)

    @invariant()
    def is_sent_at_most_once(self) -> None:
        assert self.effects.count(Effect.SEND) <= 1
        assert self.effects.count(Effect.RECORD_SENT) <= 1


TestLives = Lives.TestCase


@pytest.mark.parametrize(
    ("door", "again"),
    [(Door.SMS, True), (Door.MQTT, True), (Door.TCP, False), (Door.LOCAL, False), (Door.MONITOR, False)],
)
def test_which_transports_deliver_again(door: Door, *, again: bool) -> None:
    assert door.delivers_again is again


@pytest.mark.parametrize("end", End)
def test_what_the_module_answered_was_not_refused(end: End) -> None:
    assert Outcome(end).was_refused is (end not in {End.OK, End.ERROR})


def test_words_are_those_of_the_contract() -> None:
    states = "ok error timeout rejected expired cancelled lost"
    reasons = """policy auth firewall locked busy held queue_full too_long bad_request retained duplicate expired
        deadline clock_unset prompt_unsupported data_mode not_atrun replay rate_limited unconfirmed port_down sim
        storage idle shutdown"""
    assert {end.value for end in End} == set(states.split())
    assert {reason.value for reason in Reason} <= set(reasons.split())


def test_a_repr_shows_neither_the_line_nor_the_answer() -> None:
    request = Request(rid="1", door=Door.TCP, peer="peer", line='AT+CPIN="4711"')
    outcome = Outcome(End.OK, final="OK", lines=("#PASSW: 4711",), framed="\r\n#PASSW: 4711\r\n\r\nOK\r\n")
    assert "4711" not in repr(request) + repr(outcome)


def test_a_prompt_is_answered_by_its_asker_or_with_its_body() -> None:
    request = Request("r", Door.MQTT, "me", "AT+CMGS=1")
    assert not request.answers_prompts
    assert replace(request, interactive=True).answers_prompts
    assert replace(request, body=b"").answers_prompts
