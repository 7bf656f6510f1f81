# SPDX-License-Identifier: Apache-2.0
"""The undo of a line with hazards: what is read first, the line that undoes it, and its life as a table (POL-2).

Rules of this file: the command is run only when its undo is on disk with its time; from then on nothing but a
confirmation, or an undo that the module answered with OK, ends it, whatever crashes. Times are seconds of the daemon's
running, kept in the ledger.
"""

import enum
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from atrund.at.syntax import Command, LineRefused, arguments, parse, unparse
from atrund.atrun.hazards import Answers, Undo
from atrund.atrun.interface import Interface, prelude
from atrund.table import To, step

CONFIRM_AFTER: Final = 300.0
"""Seconds until an undo runs that nobody confirmed, unless `policy.confirm_after` says otherwise."""
RETRY_FIRST: Final = 5.0
RETRY_LAST: Final = 60.0
"""Seconds between two tries of an undo, doubled from the first to the last: a module that restarts takes a minute."""
OPEN_MAX: Final = 16
"""Undos that may be open at once; with more, nobody could say any more which state they lead back to."""


class UndoImpossible(ValueError):
    """The old value can't be told from what the module answered, so the command must not run."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a line is undone: each of its hazards with its undo, in the order of the line."""

    steps: tuple[tuple[Command, Undo], ...] = field(repr=False)

    @property
    def reads(self) -> tuple[Command, ...]:
        """What the module must be asked first, each as a line of its own, in this order."""
        return tuple(dict.fromkeys(undo.read for _, undo in self.steps if undo.read is not None))

    def undo_line(self, answers: Mapping[Command, Answers]) -> str:
        """Return the line that undoes all, the last first, from the answer lines to each of `reads`.

        What sets the value that is there already needs no undo; "" when that is all of it. Raises `UndoImpossible`,
        also where an answer is missing; no error shows a value.
        """
        undoing: list[Command] = []
        for command, undo in reversed(self.steps):
            answer = answers.get(undo.read, ()) if undo.read is not None else ()
            made = undo.compose(command, answer)
            if made is None:
                raise UndoImpossible(f"{command.name}: what it changes can't be told from the answer to {undo.read}")
            if not _same(made, command):
                undoing.append(made)
        if not undoing:
            return ""
        once = tuple(dict.fromkeys(undoing))
        line = unparse(once)
        try:
            same = parse(line) == once
        except LineRefused:
            same = False
        if not same:
            raise UndoImpossible(f"{self.steps[0][0].name}: what was read can't be written back as one command line")
        return line


@dataclass(frozen=True, slots=True)
class Armed:
    """An undo on disk. `due`: when it runs; `rid`, `door` and `peer` are of the request that it undoes."""

    id: int
    undo: str = field(repr=False)
    due: float
    rid: str = ""
    door: str = ""
    peer: str = ""

    def minutes(self, now: float) -> int:
        """Return the whole minutes left, rounded up; 0 when its time has come."""
        return max(0, math.ceil((self.due - now) / 60))

    def line(self, now: float) -> str:
        """Return the line that tells of it, in the command's answer before its final result and in the list."""
        return f"#ATRUNCONFIRM: {self.id},{self.minutes(now)}"


def together(open_: Iterable[Armed]) -> tuple[Armed, ...]:
    """Return the oldest, and those after it that set what it or one of these sets: what they would set back is gone."""
    oldest, *younger = sorted(open_, key=lambda one: one.id)
    subjects = _subjects(oldest)
    found = [oldest]
    for one in younger:
        if subjects & (others := _subjects(one)):
            subjects |= others
            found.append(one)
    return tuple(found)


def undoing(armed: Iterable[Armed]) -> tuple[Command, ...]:
    """Return the commands that undo all these, each thing once: to what was there before the oldest."""
    commands: dict[_Subject, Command] = {}
    for one in sorted(armed, key=lambda one: one.id, reverse=True):
        for command in parse(one.undo):
            commands.pop(_subject(command), None)
            commands[_subject(command)] = command
    return tuple(commands.values())


_Subject = tuple[str, str]
_BY_CONTEXT: Final = frozenset({"+CGDCONT", "#SGACT"})
"""Commands that set one thing for each <cid>, their first argument."""


def _subject(command: Command) -> _Subject:
    return command.name, (*arguments(command.args), "")[0] if command.name in _BY_CONTEXT else ""


def _subjects(armed: Armed) -> set[_Subject]:
    return {_subject(command) for command in parse(armed.undo)}


def _same(made: Command, given: Command) -> bool:
    """Whether the undo sets what the command set, however it is spelled: then the command changes nothing."""
    return (made.name, made.op) == (given.name, given.op) and _plain(made) == _plain(given)


def _plain(command: Command) -> tuple[str | int, ...]:
    """The arguments; numbers without quotes as numbers, for a telephone number is none.

    The type of a service centre's address may be left out: 145 with a `+` in the address, else 129 (TS 27.005 3.3.1).
    """
    given = arguments(command.args)
    if command.name == "+CSCA" and given[1:] in {(), ("",)}:
        given = (given[0], "145" if "+" in given[0] else "129")
    return tuple(int(one) if one.isascii() and one.isdecimal() else one for one in given)


def before(command: Command) -> tuple[Command, ...]:
    """Return what to send before a read or an undoing command, so that both speak of one alphabet (+CSCS)."""
    return prelude((command,), Interface(), {"+CSCS": ""}, "")


def retry_after(tries: int) -> float:
    """Return the seconds to wait after so many tries that failed, from 1 on."""
    return min(RETRY_LAST, RETRY_FIRST * 2.0 ** min(tries - 1, 10))


class State(enum.Enum):
    """Where an undo is. ARMED and UNDOING are on disk."""

    ASKED = "asked"
    ARMED = "armed"
    UNDOING = "undoing"
    CONFIRMED = "confirmed"
    UNDONE = "undone"
    DROPPED = "dropped"


class Event(enum.Enum):
    """What can happen to it."""

    NO_UNDO = "the old value can't be told"
    RECORDED = "recorded"
    NOT_RECORDED = "not recorded"
    CONFIRMED = "confirmed"
    TIME_OVER = "time over"
    OK = "answered with OK"
    NOT_OK = "any other end"
    FOUND_AFTER_RESTART = "found after a restart"


class Effect(enum.Enum):
    """What is to be done."""

    REFUSE = "refuse the command"
    RUN_COMMAND = "run the command"
    WAIT = "wait until it is due"
    RUN_UNDO = "run the undo before any other door's turn"
    RETRY_LATER = "wait and run it again"
    RECORD_END = "record how it ended"


_CONFIRMED: Final = To(State.CONFIRMED, (Effect.RECORD_END,))
_REFUSED: Final = To(State.DROPPED, (Effect.REFUSE,))

TRANSITIONS: Final[dict[State, dict[Event, To[State, Effect]]]] = {
    State.ASKED: {
        Event.NO_UNDO: _REFUSED,
        Event.RECORDED: To(State.ARMED, (Effect.WAIT, Effect.RUN_COMMAND)),
        Event.NOT_RECORDED: _REFUSED,
    },
    State.ARMED: {
        Event.CONFIRMED: _CONFIRMED,
        Event.TIME_OVER: To(State.UNDOING, (Effect.RUN_UNDO,)),
        # Whether the command was sent is unknown: the undo sets what was there before it.
        Event.FOUND_AFTER_RESTART: To(State.ARMED, (Effect.WAIT,)),
    },
    State.UNDOING: {
        Event.OK: To(State.UNDONE, (Effect.RECORD_END,)),
        Event.NOT_OK: To(State.UNDOING, (Effect.RETRY_LATER,)),
        Event.TIME_OVER: To(State.UNDOING, (Effect.RUN_UNDO,)),
        # Late, but the way to end the tries of an undo that the module will never take.
        Event.CONFIRMED: _CONFIRMED,
        Event.FOUND_AFTER_RESTART: To(State.UNDOING, (Effect.RUN_UNDO,)),
    },
    State.CONFIRMED: {},
    State.UNDONE: {},
    State.DROPPED: {},
}


class Life:
    """Where one undo is; `step` moves it."""

    def __init__(self, state: State = State.ASKED) -> None:
        self.state = state

    def step(self, event: Event) -> tuple[Effect, ...]:
        """Move on and return the effects to carry out, in order. Raises `IllegalTransition`."""
        to = step(TRANSITIONS, self.state, event)
        self.state = to.state
        return to.effects
