# SPDX-License-Identifier: Apache-2.0
"""Client mode's calls: at once but once, then counted, then slowly or never; none without bearer (TCP-11, TCP-14)."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from atrund.atrun.dialer import TRANSITIONS, Dialer, Effect, Event, Retries, State
from atrund.table import IllegalTransition

OUTSIDE = tuple(event for event in Event if event not in {Event.FAILED_SLOW, Event.FAILED_LAST})
"""What the door says: how a failure weighs is not its matter."""
TIMERS = {Effect.ARM_AGAIN, Effect.ARM_RETRY, Effect.ARM_SLOW}


def dialer(count: int = 0, *, slow: bool = True) -> Dialer:
    """One that is switched on, its bearer up, and that dials."""
    made = Dialer(lambda: Retries(count, slow))
    assert made.step(Event.ON) == ()
    assert made.step(Event.BEARER_UP) == (Effect.DIAL,)
    return made


def ended(made: Dialer, *events: Event) -> list[tuple[Effect, ...]]:
    return [made.step(event) for event in events]


def test_every_state_has_a_row_and_is_reachable() -> None:
    found, waiting = {State.OFF}, [State.OFF]
    while waiting:
        new = {to.state for to in TRANSITIONS[waiting.pop()].values()} - found
        found |= new
        waiting += new
    assert set(TRANSITIONS) == set(State) == found


@pytest.mark.parametrize(
    ("state", "event"), [(state, event) for state in State for event in Event if event not in TRANSITIONS[state]]
)
def test_an_impossible_pair_raises_and_changes_nothing(state: State, event: Event) -> None:
    made = Dialer(lambda: Retries(3, slow=True))
    made.state, made.left = state, 2
    if event in {Event.FAILED, Event.LOST}:
        made._again = True  # weighed, it would be another
    with pytest.raises(IllegalTransition, match=f"{event.value} while {state.value}"):
        made.step(event)
    assert (made.state, made.left) == (state, 2)


def test_switched_on_it_waits_for_the_bearer() -> None:
    made = Dialer(lambda: Retries(0, slow=False))
    assert made.stat == 0
    assert made.step(Event.ON) == ()
    assert (made.state, made.stat) == (State.WAITING, 2)
    assert made.step(Event.ON) == ()
    assert made.step(Event.BEARER_UP) == (Effect.DIAL,)
    assert made.stat == 1
    assert made.step(Event.ON) == (), "a call is under way"
    assert made.step(Event.CONNECTED) == ()
    assert (made.step(Event.ON), made.stat) == ((), 1)


def test_the_first_call_that_fails_is_made_again_after_one_delay() -> None:
    made = dialer(2)
    assert made.step(Event.FAILED) == (Effect.ARM_RETRY,)
    assert (made.state, made.stat, made.left) == (State.RETRYING, 2, 1)
    assert made.step(Event.TIMER) == (Effect.DIAL,)


def test_the_count_is_spent_and_then_it_goes_on_slowly() -> None:
    made = dialer(2)
    again = (Event.FAILED, Event.TIMER)
    assert ended(made, *again, *again) == [(Effect.ARM_RETRY,), (Effect.DIAL,)] * 2
    assert ended(made, *again, *again) == [(Effect.ARM_SLOW,), (Effect.DIAL,)] * 2
    assert made.stat == 1
    made.step(Event.FAILED)
    assert made.stat == 2


def test_without_slow_redial_it_gives_up_as_the_vendor_does() -> None:
    made = dialer(1, slow=False)
    ended(made, Event.FAILED, Event.TIMER)
    assert made.step(Event.FAILED) == ()
    assert (made.state, made.stat) == (State.SPENT, 0)
    assert made.step(Event.ON) == (Effect.DIAL,), "whoever switches it on again calls"
    assert made.left == 1


@pytest.mark.parametrize("count", [0, 2])
def test_a_session_that_got_through_is_called_again_at_once_each_time(count: int) -> None:
    made = dialer(count)
    for _ in range(5):
        assert ended(made, Event.CONNECTED, Event.THROUGH, Event.LOST) == [(), (), (Effect.ARM_AGAIN,)]
        assert made.stat == 2
        assert made.step(Event.TIMER) == (Effect.DIAL,)
        assert made.left == count


def test_a_session_that_did_not_get_through_is_called_again_at_once_but_once() -> None:
    """A far end that takes the call and closes it must not be called for ever."""
    made = dialer(1)
    ended(made, Event.CONNECTED)
    assert made.step(Event.LOST) == (Effect.ARM_AGAIN,)
    ended(made, Event.TIMER, Event.CONNECTED)
    assert made.step(Event.LOST) == (Effect.ARM_RETRY,)
    ended(made, Event.TIMER, Event.CONNECTED)
    assert made.step(Event.LOST) == (Effect.ARM_SLOW,)


def test_the_call_at_once_that_fails_counts_from_then_on() -> None:
    made = dialer(1)
    ended(made, Event.CONNECTED, Event.THROUGH, Event.LOST, Event.TIMER)
    assert ended(made, Event.FAILED, Event.TIMER, Event.FAILED) == [
        (Effect.ARM_RETRY,),
        (Effect.DIAL,),
        (Effect.ARM_SLOW,),
    ]


def test_the_bearer_that_comes_back_fills_the_count_up() -> None:
    made = dialer(1)
    ended(made, Event.FAILED)
    assert made.step(Event.BEARER_DOWN) == (Effect.STOP_TIMER,)
    assert made.stat == 2
    assert made.step(Event.BEARER_UP) == (Effect.DIAL,)
    assert made.left == 1
    assert made.step(Event.BEARER_DOWN) == (Effect.HANG_UP,)
    ended(made, Event.BEARER_UP, Event.CONNECTED)
    assert made.step(Event.BEARER_DOWN) == (Effect.HANG_UP,)


def test_a_bearer_that_comes_back_wakes_one_that_gave_up() -> None:
    made = dialer(slow=False)
    made.step(Event.FAILED)
    assert ended(made, Event.BEARER_DOWN, Event.BEARER_UP) == [(), (Effect.DIAL,)]


@pytest.mark.parametrize("state", [State.AGAIN, State.RETRYING, State.SLOW])
def test_between_two_calls_switching_on_calls_at_once(state: State) -> None:
    made = Dialer(lambda: Retries(3, slow=True))
    made.state = state
    assert made.step(Event.ON) == (Effect.STOP_TIMER, Effect.DIAL)
    assert made.left == 3


def test_fewer_retries_count_at_the_next_failure() -> None:
    """The file was read anew meanwhile."""
    counts = [5]
    made = Dialer(lambda: Retries(counts[0], slow=True))
    ended(made, Event.ON, Event.BEARER_UP, Event.FAILED, Event.TIMER)
    counts[0] = 0
    assert made.step(Event.FAILED) == (Effect.ARM_SLOW,)


class Dialers(RuleBasedStateMachine):
    """Any events in any order."""

    @initialize(count=st.integers(0, 5), slow=st.booleans())
    def made(self, count: int, slow: bool) -> None:  # noqa: FBT001 - hypothesis names it
        self.count = count
        self.slow = slow
        self.dialer = Dialer(lambda: Retries(count, slow))
        self.bearer = self.calls = self.timer = False
        self.fruitless = 0

    @rule(event=st.sampled_from(OUTSIDE))
    def happens(self, event: Event) -> None:
        before, left = self.dialer.state, self.dialer.left
        try:
            effects = self.dialer.step(event)
        except IllegalTransition:
            assert (self.dialer.state, self.dialer.left) == (before, left)
            return
        if event in {Event.BEARER_UP, Event.BEARER_DOWN}:
            self.bearer = event is Event.BEARER_UP
        if event in {Event.ON, Event.BEARER_UP, Event.THROUGH}:
            self.fruitless = 0
        for effect in effects:
            if effect is Effect.DIAL:
                assert not self.calls
                self.calls = True
            elif effect is Effect.HANG_UP:
                assert self.calls
                self.calls = False
            elif effect in TIMERS:
                assert not self.timer
                self.timer = True
                self.fruitless += effect is not Effect.ARM_SLOW
            else:
                assert effect is Effect.STOP_TIMER
                assert self.timer
                self.timer = False
        if event is Event.TIMER:
            self.timer = False
        if event in {Event.LOST, Event.FAILED}:
            self.calls = False

    @rule()
    def goes_on(self) -> None:
        """Walk forward, so that long rows of calls are common."""
        forward = {
            State.OFF: Event.ON,
            State.WAITING: Event.BEARER_UP,
            State.DIALLING: Event.FAILED,
            State.UP: Event.LOST,
        }
        self.happens(forward.get(self.dialer.state, Event.TIMER))

    @invariant()
    def a_call_is_under_way_only_where_the_state_says_so(self) -> None:
        assert self.calls is (self.dialer.state in {State.DIALLING, State.UP})

    @invariant()
    def a_timer_runs_where_one_is_waited_for(self) -> None:
        assert self.timer is (self.dialer.state in {State.AGAIN, State.RETRYING, State.SLOW})

    @invariant()
    def without_success_the_quick_calls_end(self) -> None:
        assert self.fruitless <= self.count + 1
        assert 0 <= self.dialer.left <= self.count

    @invariant()
    def nothing_is_dialled_without_bearer(self) -> None:
        if self.calls or self.timer:
            assert self.bearer

    @invariant()
    def it_says_that_it_gave_up_only_where_it_did(self) -> None:
        if self.dialer.state is State.SPENT:
            assert not self.slow
        assert (self.dialer.stat == 0) is (self.dialer.state in {State.OFF, State.SPENT})


TestDialers = Dialers.TestCase
