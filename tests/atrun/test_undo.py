# SPDX-License-Identifier: Apache-2.0
"""POL-2: the life of an undo: on disk before the command, ended by a confirmation or by OK alone."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from atrund.at.syntax import parse
from atrund.atrun.policy import LOCAL_DEFAULT, Asker, decide
from atrund.atrun.undo import (
    RETRY_LAST,
    TRANSITIONS,
    Armed,
    Effect,
    Event,
    Life,
    State,
    before,
    retry_after,
    together,
    undoing,
)
from atrund.table import IllegalTransition

ENDS = {State.CONFIRMED, State.UNDONE, State.DROPPED}


def walk(*events: Event) -> tuple[State, list[Effect]]:
    life = Life()
    effects = [effect for event in events for effect in life.step(event)]
    return life.state, effects


def test_every_state_has_a_row_and_is_reachable() -> None:
    reached = {to.state for row in TRANSITIONS.values() for to in row.values()} | {State.ASKED}
    assert set(TRANSITIONS) == set(State) == reached
    assert {state for state, row in TRANSITIONS.items() if not row} == ENDS


@pytest.mark.parametrize(
    ("events", "state", "effects"),
    [
        ([Event.NO_UNDO], State.DROPPED, [Effect.REFUSE]),
        ([Event.NOT_RECORDED], State.DROPPED, [Effect.REFUSE]),
        ([Event.RECORDED], State.ARMED, [Effect.WAIT, Effect.RUN_COMMAND]),
        ([Event.RECORDED, Event.CONFIRMED], State.CONFIRMED, [Effect.WAIT, Effect.RUN_COMMAND, Effect.RECORD_END]),
        (
            [Event.RECORDED, Event.TIME_OVER, Event.NOT_OK, Event.TIME_OVER, Event.OK],
            State.UNDONE,
            [Effect.WAIT, Effect.RUN_COMMAND, Effect.RUN_UNDO, Effect.RETRY_LATER, Effect.RUN_UNDO, Effect.RECORD_END],
        ),
        (
            [Event.RECORDED, Event.FOUND_AFTER_RESTART, Event.TIME_OVER, Event.FOUND_AFTER_RESTART],
            State.UNDOING,
            [Effect.WAIT, Effect.RUN_COMMAND, Effect.WAIT, Effect.RUN_UNDO, Effect.RUN_UNDO],
        ),
        (
            [Event.RECORDED, Event.TIME_OVER, Event.NOT_OK, Event.CONFIRMED],
            State.CONFIRMED,
            [Effect.WAIT, Effect.RUN_COMMAND, Effect.RUN_UNDO, Effect.RETRY_LATER, Effect.RECORD_END],
        ),
    ],
)
def test_a_way_through(events: list[Event], state: State, effects: list[Effect]) -> None:
    assert walk(*events) == (state, effects)


def test_an_impossible_step_changes_nothing() -> None:
    life = Life(State.UNDONE)
    with pytest.raises(IllegalTransition):
        life.step(Event.CONFIRMED)
    assert life.state is State.UNDONE


def test_the_command_runs_in_one_row_only_and_that_is_behind_the_disk() -> None:
    rows = [
        (state, event)
        for state, row in TRANSITIONS.items()
        for event, to in row.items()
        if Effect.RUN_COMMAND in to.effects
    ]
    assert rows == [(State.ASKED, Event.RECORDED)]


def test_the_line_that_tells_of_it() -> None:
    one = Armed(7, "AT+CFUN=1", due=1300.0)
    assert one.line(1000.0) == "#ATRUNCONFIRM: 7,5"
    assert [one.minutes(now) for now in (1001.0, 1240.0, 1241.0)] == [5, 1, 1]
    assert one.line(2000.0) == "#ATRUNCONFIRM: 7,0"
    assert "CFUN" not in repr(one)


def test_tries_come_slower_and_slower_to_a_bound() -> None:
    assert [retry_after(tries) for tries in (1, 2, 3, 4, 5, 6)] == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0]
    assert retry_after(1_000_000) == RETRY_LAST


class Undos(RuleBasedStateMachine):
    """Whatever happens, the command never runs without an undo on disk, and an armed one never just goes."""

    def __init__(self) -> None:
        super().__init__()
        self.life = Life()
        self.on_disk = False
        self.ran = False
        self.ended: set[Event] = set()

    @rule(event=st.sampled_from(Event))
    def happens(self, event: Event) -> None:
        before = self.life.state
        try:
            effects = self.life.step(event)
        except IllegalTransition:
            assert self.life.state is before
            return
        self.on_disk |= event is Event.RECORDED
        self.ran |= Effect.RUN_COMMAND in effects
        self.ended.add(event)

    @invariant()
    def nothing_runs_that_could_not_be_undone(self) -> None:
        assert not self.ran or self.on_disk
        if self.ran and self.life.state in ENDS:
            assert self.ended & {Event.CONFIRMED, Event.OK}


TestUndos = Undos.TestCase


def armed(id_: int, undo: str) -> Armed:
    return Armed(id_, undo, due=float(id_))


def test_what_rests_on_an_undone_one_is_undone_with_it() -> None:
    waiting = [
        armed(4, "AT+CGATT=1"),
        armed(1, "AT+CFUN=1"),
        armed(2, "AT+COPS=0;+CFUN=4"),
        armed(3, "AT+COPS=2"),
    ]
    group = together(waiting)
    assert [one.id for one in group] == [1, 2, 3], "the third rests on the second"
    assert [str(command) for command in undoing(group)] == ["+COPS=0", "+CFUN=1"]


def test_contexts_are_things_of_their_own() -> None:
    waiting = [armed(1, 'AT+CGDCONT=1,"IP","a"'), armed(2, 'AT+CGDCONT=2,"IP","b"'), armed(3, "AT+CGDCONT=1")]
    assert [one.id for one in together(waiting)] == [1, 3]
    assert [str(command) for command in undoing(waiting)] == ['+CGDCONT=2,"IP","b"', '+CGDCONT=1,"IP","a"']


@pytest.mark.parametrize(
    ("line", "answer", "undo"),
    [
        ("AT+CFUN=1", "+CFUN: 1", ""),
        ("AT+CFUN=01", "+CFUN: 1", ""),
        ("AT+CFUN=4", "+CFUN: 1", "AT+CFUN=1"),
        ('AT+CFUN="1"', "+CFUN: 1", "AT+CFUN=1"),
        ("AT+COPS=2", "+COPS: 2", ""),
        ('AT+CSCA="0039",129', '+CSCA: "39",129', 'AT+CSCA="39",129'),
        ('AT+CSCA="+39"', '+CSCA: "+39",145', ""),
        ('AT+CSCA="+39",', '+CSCA: "+39",145', ""),
        ('AT+CSCA="39"', '+CSCA: "39",129', ""),
        ('AT+CSCA="+39"', '+CSCA: "+39",129', 'AT+CSCA="+39",129'),
        ('AT+CSCA="39"', '+CSCA: "39",145', 'AT+CSCA="39",145'),
        ('AT+CSCA="39"', '+CSCA: "+39",145', 'AT+CSCA="+39",145'),
        ("AT#SGACT=1,0", "#SGACT: 1,0", ""),
        ("AT#SGACT=1,0", "#SGACT: 1,1", "AT#SGACT=1,1"),
    ],
)
def test_what_is_there_already_needs_no_undo(line: str, answer: str, undo: str) -> None:
    plan = decide(parse(line), Asker(), LOCAL_DEFAULT).plan
    assert plan is not None
    assert plan.undo_line(dict.fromkeys(plan.reads, (answer,))) == undo


@pytest.mark.parametrize(
    ("line", "first"),
    [
        ("AT+CSCA?", ['+CSCS="IRA"']),
        ('AT+CSCA="+39",145', ['+CSCS="IRA"']),
        ("AT+COPS?", ['+CSCS="IRA"']),
        ("AT+CFUN?", []),
    ],
)
def test_what_is_text_is_read_and_set_again_in_one_alphabet(line: str, first: list[str]) -> None:
    (command,) = parse(line)
    assert [str(one) for one in before(command)] == first
