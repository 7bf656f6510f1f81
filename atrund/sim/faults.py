# SPDX-License-Identifier: Apache-2.0
"""Faults planted on commands: answered late, answered with an error, answered with given lines."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from atrund.at.syntax import Command, Op
from atrund.sim.steps import Handler, Prompt, Refused, Step, Wait

if TYPE_CHECKING:  # for the annotations alone
    from atrund.sim.port import SimPort

PLANTS_CAP: Final = 256
"""Commands that faults are planted on at a time."""

ASKING: Final = frozenset({"+CMGS", "+CMGW", "#WSCRIPT"})
"""Commands whose SET asks for data first: an error of theirs comes after it."""


@dataclass(slots=True)
class Plant:
    """What happens to a command instead, `left` times (None = always).

    It ends with `final` and says `lines` if these are given, and waits `seconds` before its answer.
    """

    left: int | None = 1
    seconds: float = 0.0
    lines: tuple[str, ...] = ()
    final: str | None = None


class Faults:
    """The plants, by command: a name (`+COPS`), or a whole one (`+COPS=?`), which goes first; `AT` is the bare line."""

    def __init__(self) -> None:
        self._plants: dict[str, Plant] = {}

    def plant(self, command: str, plant: Plant) -> None:
        """Plant a fault; it takes the place of an earlier one. Raises `ValueError` if there are too many."""
        key = _key(command)
        if key not in self._plants and len(self._plants) >= PLANTS_CAP:
            raise ValueError(f"faults are planted on {PLANTS_CAP} commands already")
        self._plants[key] = plant

    def clear(self, command: str | None = None) -> None:
        """Take away the fault of a command, or all."""
        if command is None:
            self._plants.clear()
        else:
            self._plants.pop(_key(command), None)

    def steps(self, port: "SimPort", command: Command, handler: Handler) -> Iterable[Step]:
        """Return what a command does, with what is planted on it."""
        plant = self._take(command)
        if plant is None:
            return handler(port, command)
        if plant.final is None:
            return _late(_lazy(port, command, handler), plant.seconds)
        return _late(_instead(command, plant, plant.final), plant.seconds)

    def _take(self, command: Command) -> Plant | None:
        for key in (str(command).upper(), command.name):
            plant = self._plants.get(key)
            if plant is None:
                continue
            if plant.left is not None:
                plant.left -= 1
                if plant.left <= 0:
                    del self._plants[key]
            return plant
        return None


def _key(command: str) -> str:
    return command.strip().upper().removeprefix("AT")


def _lazy(port: "SimPort", command: Command, handler: Handler) -> Iterator[Step]:
    """Run a handler only when its steps are asked for, a refusal included."""
    yield from handler(port, command)


def _instead(command: Command, plant: Plant, final: str) -> Iterator[Step]:
    if command.name in ASKING and command.op is Op.SET:
        yield Prompt()
    yield from plant.lines
    if final != "OK":
        raise Refused(final=final)


def _late(steps: Iterator[Step], seconds: float) -> Iterator[Step]:
    """Wait before the answer, but behind a prompt: it is the answer that is late."""
    waited = False
    try:
        for step in steps:
            if not waited and not isinstance(step, Prompt):
                waited = True
                yield Wait(seconds)
            yield step
    except Refused:
        if not waited:
            yield Wait(seconds)
        raise
    if not waited:
        yield Wait(seconds)
