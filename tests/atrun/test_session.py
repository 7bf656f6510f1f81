# SPDX-License-Identifier: Apache-2.0
"""A TCP session's life: nothing before login or token, one close, an idle timer that pauses (TCP-3, TCP-6, TCP-7)."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from atrund.atrun.session import TRANSITIONS, Effect, Event, Session, State
from atrund.table import IllegalTransition

LOGIN = (Event.CONNECTED, Event.LINE, Event.LINE)


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


def at(state: State) -> Session:
    session = Session()
    session.state = state
    return session


def test_every_state_has_a_row_and_is_reachable() -> None:
    assert set(TRANSITIONS) == set(State) == reachable(State.NEW)


def test_the_service_can_stop_and_the_peer_can_go_at_any_time() -> None:
    for state in set(State) - {State.CLOSED}:
        for event in (Event.STOPPED, Event.PEER_CLOSED):
            session = at(state)
            effects = session.step(event)
            assert (effects[0], effects[-1]) == (Effect.STOP_TIMER, Effect.CLOSE)
            assert session.state is State.CLOSED


def test_every_way_into_closed_closes_and_no_other_does() -> None:
    for row in TRANSITIONS.values():
        for to in row.values():
            assert (Effect.CLOSE in to.effects) is (to.state is State.CLOSED)


@pytest.mark.parametrize("state", [State.NAME, State.PASSWORD, State.TOKEN, State.CHECKING])
def test_a_login_that_takes_too_long_closes(state: State) -> None:
    session = at(state)
    assert Effect.CLOSE in session.step(Event.LOGIN_TIMEOUT)


@pytest.mark.parametrize(("state", "event"), IMPOSSIBLE)
def test_an_impossible_pair_raises_and_changes_nothing(state: State, event: Event) -> None:
    session = at(state)
    with pytest.raises(IllegalTransition, match=f"{event.value} while {state.value}"):
        session.step(event)
    assert session.state is state


def test_a_session_from_login_to_idle() -> None:
    session = Session()
    assert [session.step(event) for event in LOGIN] == [
        (Effect.ARM_LOGIN,),
        (Effect.KEEP_NAME,),
        (Effect.CHECK_LOGIN,),
    ]
    assert session.step(Event.LOGIN_GOOD) == (Effect.BEGIN, Effect.ARM_IDLE)
    assert session.step(Event.LINE) == (Effect.STOP_TIMER, Effect.EXECUTE)
    assert session.step(Event.LINE) == (Effect.QUEUE_OR_IGNORE,)
    assert session.step(Event.FINAL) == (Effect.ARM_IDLE, Effect.NEXT)
    assert session.step(Event.IDLE_TIMEOUT) == (Effect.STOP_TIMER, Effect.CLOSE)


def test_a_session_that_we_called_for() -> None:
    """TCP-13: with a token the far end's first line is judged; without one it may type commands at once."""
    session = Session()
    assert session.step(Event.CALLED) == (Effect.ARM_LOGIN,)
    assert session.step(Event.LINE) == (Effect.CHECK_TOKEN,)
    assert session.step(Event.LOGIN_GOOD) == (Effect.BEGIN, Effect.ARM_IDLE)
    assert Session().step(Event.CALLED_TRUSTED) == (Effect.BEGIN, Effect.ARM_IDLE)


def test_a_prompt_and_its_data() -> None:
    """TCP-5: no line is queued or ignored meanwhile. TCP-7: whoever types nothing then is idle."""
    assert TRANSITIONS[State.RUNNING][Event.PROMPT].state is State.DATA
    session = at(State.RUNNING)
    assert session.step(Event.PROMPT) == (Effect.SHOW_PROMPT, Effect.ARM_IDLE)
    assert session.step(Event.PROMPT_AGAIN) == (Effect.SHOW_PROMPT,)
    assert Event.LINE not in TRANSITIONS[State.DATA]
    assert session.step(Event.DATA_ENDED) == (Effect.STOP_TIMER,)
    assert session.step(Event.PROMPT_AGAIN) == (Effect.SHOW_PROMPT,)
    assert session.step(Event.FINAL) == (Effect.ARM_IDLE, Effect.NEXT)
    assert session.state is State.COMMAND


def test_data_that_the_module_wants_no_more_and_those_that_never_end() -> None:
    assert at(State.DATA).step(Event.FINAL) == (Effect.ARM_IDLE, Effect.NEXT)
    assert at(State.DATA).step(Event.IDLE_TIMEOUT) == (Effect.STOP_TIMER, Effect.CLOSE)


def test_transparent_mode_begins_behind_connect_and_ends_by_the_escape() -> None:
    """TCP-6. TCP-7: the idle timer runs in it. What was queued before is run behind it (TCP-5)."""
    for state in (State.RUNNING, State.DATA):
        session = at(state)
        assert session.step(Event.CONNECT) == (Effect.ARM_IDLE, Effect.RELAY)
        assert session.state is State.TRANSPARENT
    assert Event.LINE not in TRANSITIONS[State.TRANSPARENT]
    leave = (Effect.END_RELAY, Effect.SHOW_END, Effect.ARM_IDLE, Effect.NEXT)
    for event in (Event.ESCAPE, Event.PORT_LOST):
        session = at(State.TRANSPARENT)
        assert session.step(event) == leave
        assert session.state is State.COMMAND


@pytest.mark.parametrize("event", [Event.IDLE_TIMEOUT, Event.PEER_CLOSED, Event.STOPPED])
def test_every_other_end_of_transparent_mode_is_that_of_the_session(event: Event) -> None:
    session = at(State.TRANSPARENT)
    assert session.step(event) == (Effect.STOP_TIMER, Effect.END_RELAY, Effect.CLOSE)


def test_a_bad_login_closes() -> None:
    session = Session()
    for event in LOGIN:
        session.step(event)
    assert session.step(Event.LOGIN_BAD) == (Effect.STOP_TIMER, Effect.CLOSE)


class Sessions(RuleBasedStateMachine):
    """Any events in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.session = Session()
        self.closed = 0
        self.logged_in = False
        self.timer: Effect | None = None
        self.relays = False

    @rule(event=st.sampled_from(Event))
    def happens(self, event: Event) -> None:
        before = self.session.state
        try:
            effects = self.session.step(event)
        except IllegalTransition:
            assert event not in TRANSITIONS[before]
            assert self.session.state is before
            return
        self.logged_in |= event in {Event.LOGIN_GOOD, Event.CALLED_TRUSTED}
        self.closed += effects.count(Effect.CLOSE)
        for effect in effects:
            if effect in {Effect.ARM_LOGIN, Effect.ARM_IDLE}:
                self.timer = effect
            elif effect is Effect.STOP_TIMER:
                self.timer = None
            elif effect in {Effect.RELAY, Effect.END_RELAY}:
                assert self.relays is (effect is Effect.END_RELAY)
                self.relays = effect is Effect.RELAY
            elif effect in {Effect.BEGIN, Effect.EXECUTE, Effect.QUEUE_OR_IGNORE, Effect.NEXT, Effect.SHOW_PROMPT}:
                assert self.logged_in

    @rule()
    def goes_on(self) -> None:
        """Walk forward, so that sessions in command mode are common."""
        row = TRANSITIONS[self.session.state]
        forward = [event for event, to in row.items() if to.state is not State.CLOSED]
        if forward:
            self.happens(forward[-1])

    @invariant()
    def bytes_pass_in_transparent_mode_alone(self) -> None:
        assert self.relays is (self.session.state is State.TRANSPARENT)

    @invariant()
    def closes_once(self) -> None:
        assert self.closed == (self.session.state is State.CLOSED)

    @invariant()
    def the_timer_is_that_of_the_state(self) -> None:
        during_login = {State.NAME, State.PASSWORD, State.TOKEN, State.CHECKING}
        if self.session.state in during_login:
            assert self.timer is Effect.ARM_LOGIN
        else:
            waits = self.session.state in {State.COMMAND, State.DATA, State.TRANSPARENT}
            assert self.timer is (Effect.ARM_IDLE if waits else None)

    @invariant()
    def a_timer_that_runs_may_ring(self) -> None:
        rings = {Effect.ARM_LOGIN: Event.LOGIN_TIMEOUT, Effect.ARM_IDLE: Event.IDLE_TIMEOUT}
        if self.timer is not None:
            assert rings[self.timer] in TRANSITIONS[self.session.state]


TestSessions = Sessions.TestCase
