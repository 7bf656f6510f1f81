# SPDX-License-Identifier: Apache-2.0
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from atrund.at.syntax import parse
from atrund.module.lifecycle import (
    TRANSITIONS,
    Effect,
    Event,
    State,
    in_hold,
    power_event,
    step,
)
from atrund.table import IllegalTransition

USABLE = {State.READY, State.NO_SIM, State.PIN_NEEDED, State.NOT_REGISTERED}
HELD = {State.REBOOTING, State.OFF_BY_COMMAND}
ACTIVITIES = {
    Effect.OPEN,
    Effect.WAKE,
    Effect.SET_UP,
    Effect.WATCH,
    Effect.PAUSE,
    Effect.PAUSE_SHORTLY,
    Effect.CLIMB,
    Effect.REST,
}
ENDS = {
    Effect.OPEN: {Event.OPENED, Event.OPEN_FAILED, Event.LINK_LOST},
    Effect.WAKE: {Event.AWAKE, Event.SILENT, Event.LINK_LOST},
    Effect.SET_UP: {
        Event.READY, Event.NO_SIM, Event.PIN_NEEDED, Event.NOT_REGISTERED, Event.SILENT, Event.LINK_LOST,
    },
    Effect.WATCH: {
        Event.READY, Event.NO_SIM, Event.PIN_NEEDED, Event.NOT_REGISTERED, Event.UNSET, Event.SILENT, Event.LINK_LOST,
    },
    Effect.PAUSE: {Event.PAUSE_OVER},
    Effect.PAUSE_SHORTLY: {Event.PAUSE_OVER},
    Effect.CLIMB: {Event.RUNG_DONE, Event.LINK_LOST},
    Effect.REST: {Event.GIVEN_BACK, Event.LINK_LOST},
}  # fmt: skip
"""How each activity may end; `LINK_LOST` is also a fault of our own."""


def test_every_state_has_a_row() -> None:
    assert set(TRANSITIONS) == set(State)
    assert all(TRANSITIONS[state] for state in State)


def test_every_state_is_reachable_and_every_event_and_effect_is_used() -> None:
    reached, waiting = {State.OFF}, [State.OFF]
    while waiting:
        for to in TRANSITIONS[waiting.pop()].values():
            if to.state not in reached:
                reached.add(to.state)
                waiting.append(to.state)
    assert reached == set(State)
    assert {event for row in TRANSITIONS.values() for event in row} == set(Event)
    assert {effect for row in TRANSITIONS.values() for to in row.values() for effect in to.effects} == set(Effect)


@given(st.sampled_from(State), st.sampled_from(Event))
def test_an_impossible_pair_raises(state: State, event: Event) -> None:
    if event in TRANSITIONS[state]:
        assert step(state, event) == TRANSITIONS[state][event]
    else:
        with pytest.raises(IllegalTransition, match=f"{event.value} while {state.value}"):
            step(state, event)


def test_usable_are_the_states_with_a_port_that_is_set_up() -> None:
    assert {state for state in State if state.usable} == USABLE


def test_a_port_is_lent_where_nothing_of_the_modules_must_be_watched() -> None:
    assert {state for state in State if state.lendable} == {*USABLE, State.ABSENT, State.STUCK}


def test_a_rung_is_climbed_only_into_stuck_and_never_out_of_a_hold() -> None:
    for state, row in TRANSITIONS.items():
        for to in row.values():
            if Effect.CLIMB in to.effects:
                assert to.state is State.STUCK
                assert state not in HELD


def test_a_row_begins_one_activity_at_most_and_closes_before_it() -> None:
    for row in TRANSITIONS.values():
        for to in row.values():
            begun = [effect for effect in to.effects if effect in ACTIVITIES]
            assert len(begun) <= 1
            assert Effect.CLOSE not in to.effects[1:]


@given(st.sampled_from(State), st.sampled_from(Event), st.sampled_from(sorted(HELD, key=str)))
def test_in_the_hold_a_module_that_goes_does_as_it_was_told(state: State, event: Event, held: State) -> None:
    meant = in_hold(state, event, held)
    if event in {Event.SILENT, Event.LINK_LOST} and state not in HELD:
        assert meant is {State.REBOOTING: Event.WENT_DOWN, State.OFF_BY_COMMAND: Event.WENT_OFF}[held]
    else:
        assert meant is event


class Life(RuleBasedStateMachine):
    """A keeper without a port: one activity at a time, a hold, an open port, and all that may happen to them."""

    def __init__(self) -> None:
        super().__init__()
        self.state = State.OFF
        self.activity: Effect | None = None
        self.open = False
        self.held: State | None = None
        self.happen(Event.START)

    def happen(self, event: Event) -> None:
        if self.held is not None:
            event = in_hold(self.state, event, self.held)
        if event is Event.HOLD_OVER:
            self.held = None
        to = step(self.state, event)  # raises for a pair that the keeper could bring about and the table forgot
        self.state = to.state
        if to.effects and event is not Event.HOLD_OVER:
            self.activity = None
        for effect in to.effects:
            if effect in ACTIVITIES:
                self.activity = effect
            elif effect is Effect.CLOSE:
                self.open, self.activity = False, None
            elif effect is Effect.HOLD:
                self.held = to.state
        if Effect.CLIMB in to.effects:
            assert self.held is None, "a rung was climbed in the hold"
        if {Effect.WAKE, Effect.SET_UP, Effect.WATCH} & set(to.effects):
            assert self.open

    @precondition(lambda self: self.activity is not None)
    @rule(data=st.data())
    def the_activity_ends(self, data: st.DataObject) -> None:
        assert self.activity is not None
        event = data.draw(st.sampled_from(sorted(ENDS[self.activity], key=str)))
        if event is Event.OPENED:
            self.open = True
        if self.activity is Effect.OPEN and self.open:
            event = Event.OPENED
        self.happen(event)

    @precondition(lambda self: self.open)
    @rule(event=st.sampled_from([Event.LINK_LOST, Event.SILENT]))
    def the_port_goes(self, event: Event) -> None:
        if event is Event.SILENT and self.activity is Effect.OPEN:
            return  # a channel that just opened has asked nothing yet
        self.happen(event)

    @rule(event=st.sampled_from([Event.REBOOT_SENT, Event.POWER_OFF_SENT]))
    def somebody_sends(self, event: Event) -> None:
        self.happen(event)

    @precondition(lambda self: self.state.lendable and self.held is None)
    @rule()
    def it_is_lent(self) -> None:
        self.happen(Event.LEND)

    @precondition(lambda self: self.held is not None)
    @rule()
    def the_hold_ends(self) -> None:
        self.happen(Event.HOLD_OVER)

    @invariant()
    def something_always_goes_on(self) -> None:
        assert self.activity is not None, f"nothing would ever happen again while {self.state.value}"

    @invariant()
    def a_usable_state_has_an_open_port(self) -> None:
        assert self.open or not self.state.usable
        assert self.state is not State.ABSENT or not self.open

    @invariant()
    def a_hold_is_known_to_every_state_that_it_can_reach(self) -> None:
        assert self.held is None or Event.HOLD_OVER in TRANSITIONS[self.state]
        assert self.state is not State.REBOOTING or self.held is not None, "rebooting for ever"

    @invariant()
    def a_lent_port_is_left_alone(self) -> None:
        assert self.state is not State.LENT or (self.activity is Effect.REST and not self.open)

    @invariant()
    def what_goes_on_fits_the_port(self) -> None:
        if self.activity in {Effect.WAKE, Effect.SET_UP, Effect.WATCH}:
            assert self.open


TestLife = Life.TestCase


@pytest.mark.parametrize(
    ("line", "event"),
    [
        ("AT#REBOOT", Event.REBOOT_SENT),
        ("at#reboot", Event.REBOOT_SENT),
        ("AT#REBOOT=1", Event.REBOOT_SENT),
        ("AT#REBOOT=?", None),
        ("AT+CSQ;#REBOOT", Event.REBOOT_SENT),
        ("AT#SHDN", Event.POWER_OFF_SENT),
        ("AT#SHDN=?", None),
        ("AT+CFUN=1,1", Event.REBOOT_SENT),
        ("AT+CFUN=01,01", Event.REBOOT_SENT),
        ('AT+CFUN=1,"1"', Event.REBOOT_SENT),
        ("AT+CFUN=1, 1", Event.REBOOT_SENT),
        ("AT+CFUN=0,1", Event.REBOOT_SENT),
        ("AT+CFUN=1,0", None),
        ("AT+CFUN=1", None),
        ("AT+CFUN?", None),
        ("AT#ENHRST=1,0", Event.REBOOT_SENT),
        ("AT#ENHRST=2,00", Event.REBOOT_SENT),
        ("AT#ENHRST=1,5", None),
        ("AT#ENHRST=0", None),
        ("AT#ENHRST?", None),
        ("AT#USBCFG=3", Event.REBOOT_SENT),
        ("AT#USBCFG?", None),
        ("AT#PORTCFG=8", Event.REBOOT_SENT),
        ("AT#FWSWITCH=1,1", Event.REBOOT_SENT),
        ("AT+COPS=0", None),
        ("AT", None),
    ],
)
def test_what_restarts_the_module_or_switches_it_off(line: str, event: Event | None) -> None:
    assert power_event(parse(line)) is event
