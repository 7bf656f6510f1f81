# SPDX-License-Identifier: Apache-2.0
"""Random interleavings of askers and faults against a model: who asked what, and what the module answered to it.

Whatever happens: no command runs twice, no asker gets another's answer, each accepted request ends once, no turn is
kept by nobody, nobody starves. `make soak` tries more than 100,000 interleavings, or as many as INTERLEAVINGS says.
"""

import asyncio
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from hypothesis import example, given, settings
from hypothesis import strategies as st

from atrund.atrun.request import Door, End, Outcome, Reason
from atrund.config.values import Module, Queue, Sms
from atrund.run import Run
from atrund.sim.mangle import OF_PROMPT, How, Mangle
from atrund.sim.module import SimModule
from atrund.sim.port import SimPort
from atrund.sim.state import Options, Sim
from tests.support.marked import (
    DTR,
    MARKED,
    Askers,
    Marked,
    Pace,
    RecordingWire,
    no_log,
    strangers,
    until,
    virtually,
)
from tests.support.virtual import PORT, VirtualClock, config, running

INTERLEAVINGS: Final = int(
    os.environ.get("INTERLEAVINGS") or (120_000 if os.environ.get("HYPOTHESIS_PROFILE") == "soak" else 300)
)
DEPTH: Final = 4
"""A short queue, so that it is full now and then."""
MAX_WAIT: Final = 60.0
SETTLED: Final = 1200.0
"""Seconds of peace after which all must have ended: the longest wait and deadline, and every rung of the ladder."""


@dataclass(frozen=True)
class Ask:
    """A door asks, with a pace of the answer and a deadline."""

    door: Door
    pace: Pace
    deadline: float
    chained: bool = False


@dataclass(frozen=True)
class GiveUp:
    """One that is on its way, the `which`th of them, is taken back by its asker."""

    which: int


@dataclass(frozen=True)
class Wait:
    """Time goes on."""

    seconds: float


@dataclass(frozen=True)
class Say:
    """The module says something of its own."""

    text: str


@dataclass(frozen=True)
class Spoil:
    """The next answer is spoilt."""

    how: How
    seconds: float


@dataclass(frozen=True)
class Happen:
    """Something happens to the module or the port."""

    what: str


Step = Ask | GiveUp | Wait | Say | Spoil | Happen

MODES: Final[dict[str, Callable[[RecordingWire], None]]] = {
    "data mode": lambda wire: wire.enter_data_mode(b"+++"),
    "data mode, ATH": lambda wire: wire.enter_data_mode(b"ATH\r"),
    "data mode, DTR": lambda wire: wire.enter_data_mode(DTR),
    "wants a text": RecordingWire.want_text,
    "wants 20 bytes": lambda wire: wire.want_bytes(20),
    "listens": RecordingWire.listen,
}
"""What else than commands the module listens to."""

_SECONDS: Final = st.sampled_from([0.0, 0.0, 0.0, 0.01, 0.3, 1.0, 5.0])
STEPS: Final = st.one_of(
    st.builds(
        Ask,
        st.sampled_from(Door),
        st.tuples(_SECONDS, _SECONDS, _SECONDS),
        st.sampled_from([0.5, 3.0, 20.0]),
        st.booleans(),
    ),
    st.builds(Ask, st.sampled_from(Door), st.just((0.0, 0.0, 0.0)), st.just(20.0)),
    st.builds(GiveUp, st.integers(0, 5)),
    st.builds(Wait, st.sampled_from([0.0, 0.01, 0.02, 0.1, 0.31, 1.0, 4.0, 30.0])),
    st.builds(
        Say,
        st.sampled_from(["RING", "+CREG: 2", "+CMT: ,24\r\n07911326040000F0", "NO CARRIER", "NO CARRIER:3", "CONNECT"]),
    ),
    st.builds(
        Spoil,
        st.sampled_from([how for how in How if how not in OF_PROMPT]),
        st.sampled_from([0.01, 1.0, 12.0, 40.0]),
    ),
    st.builds(Happen, st.sampled_from(["lose", "unplug", "plug", "reboot", "hang", "resume", "no SIM", "SIM"])),
    st.builds(Happen, st.sampled_from(sorted(MODES))),
)


@dataclass
class Model:
    """What is known from outside: each question, and how often it may have run."""

    askers: Askers
    wire: RecordingWire
    runs: dict[int, Run] = field(default_factory=dict)
    numbers: dict[int, tuple[int, ...]] = field(default_factory=dict)
    ran_before: dict[str, tuple[SimPort, int]] = field(default_factory=dict)
    """The opening that there was when a request came, and how many had run through it."""

    def ask(self, step: Ask) -> None:
        number = 10 * (len(self.runs) + 1)
        numbers = (number, number + 1) if step.chained else (number,)
        for one in numbers:
            self.askers.marked.pace[one] = step.pace
        self.runs[number] = self.askers.ask(step.door, *numbers, timeout=step.deadline)
        self.numbers[number] = numbers
        sim = self.wire.sims[-1]
        self.ran_before[self.runs[number].request.rid] = (sim, len(self._order(sim)))

    def give_up(self, which: int) -> None:
        under_way = [run for run in self.runs.values() if not run.outcome.done()]
        if which < len(under_way):
            under_way[which].give_up()

    def check(self) -> None:
        ended = Counter(line for line, _, _ in self.askers.house.outcomes)
        for number, run in self.runs.items():
            outcome = run.outcome.result()
            assert outcome is not None
            self._check_one(run, outcome, self.numbers[number])
            assert ended[run.request.line] == 1, f"{run.request.rid} ended {ended[run.request.line]} times"

    def check_fairness(self) -> None:
        """From the moment that one waits, another door has at most one turn more than its own, and one under way."""
        of_line = {run.request.line: run.request for run in self.runs.values()}
        given_up = Counter(run.request.door for run in self.runs.values() if _end(run) is not End.OK)
        for sim in self.wire.sims:
            order = [line for line in self._order(sim) if line in of_line]
            for place, line in enumerate(order):
                request = of_line[line]
                opening, ran = self.ran_before[request.rid]
                begin = ran if opening is sim else 0
                turns = Counter(of_line[one].door for one in order[begin:place])
                own = turns.pop(request.door, 0) + given_up[request.door]
                assert all(count <= own + 2 for count in turns.values()), f"{line} waited while {turns}"

    @staticmethod
    def _order(sim: SimPort) -> list[str]:
        return [line for line in sim.seen if MARKED in line]

    def _check_one(self, run: Run, outcome: Outcome, numbers: tuple[int, ...]) -> None:
        ran = self.wire.ran(run.request.line)
        assert ran <= 1, f"{run.request.rid} ran {ran} times"
        assert not strangers(outcome, *numbers), f"{run.request.rid} was given {outcome.lines}"
        if outcome.end is End.REJECTED:
            assert outcome.reason in {Reason.PORT_DOWN, Reason.QUEUE_FULL, Reason.DEADLINE}
            assert ran == 0, f"{run.request.rid} was refused and ran"
        if outcome.end is End.OK:
            assert ran == 1, f"{run.request.rid} was told OK and never ran"


def _end(run: Run) -> End | None:
    outcome = run.outcome.result()
    return None if outcome is None else outcome.end


@given(st.lists(STEPS, min_size=3, max_size=20), st.sampled_from([1 << 16, 1 << 16, 7, 1]))
@settings(max_examples=INTERLEAVINGS)
@example(  # one goes away while the port comes back in step, with a prompt standing there
    [
        Happen("wants 20 bytes"),
        Ask(Door.TCP, (0.0, 0.0, 0.0), 0.5),
        GiveUp(0),
        Ask(Door.TCP, (0.0, 0.0, 0.0), 0.5, chained=True),
    ],
    1 << 16,
)
@example(  # a prompt in the moment in which silence behind the last answer is noticed
    [
        Ask(Door.SMS, (0.0, 0.0, 0.0), 20.0),
        Wait(0.31),
        Happen("wants 20 bytes"),
        Wait(0.01),
        Ask(Door.TCP, (0.0, 0.0, 0.0), 0.5, chained=True),
    ],
    7,
)
@example([Happen("reboot"), Wait(4.0), Say("RING"), Happen("wants 20 bytes")], 1 << 16)  # a prompt before an echo
def test_whatever_happens_each_asker_gets_its_own_once(steps: list[Step], piece: int) -> None:
    with no_log():
        virtually(_interleave(steps, piece))


async def _interleave(steps: list[Step], piece: int) -> None:
    clock = VirtualClock()
    module = SimModule(Options(boot_delay=3), clock.now)
    module.faults = marked = Marked()
    wire = RecordingWire(module)
    given = config(module=Module(port=PORT, telemetry=0), sms=Sms(), queue=Queue(DEPTH, MAX_WAIT))
    async with running(given, module=module, wire=wire, clock=clock, until=None) as house:
        for keeper in house.daemon.keepers:
            keeper._random.seed(1)  # the same pauses in each run
        await until(lambda: house.daemon.keepers[0].channel is not None)
        wire.piece = piece
        model = Model(Askers(house, marked), wire)
        for step in steps:
            await _take(step, model, module, wire)
        _end_all_trouble(module, wire)
        async with asyncio.timeout(SETTLED):
            for run in model.runs.values():
                await run.outcome
        await model.askers.usable(SETTLED)
        assert house.daemon.keepers[0].channel is not None
        await asyncio.sleep(1)
        assert house.daemon.keepers[0].channel.load == 0, "a turn that nobody has"
        model.check()
        model.check_fairness()


async def _take(step: Step, model: Model, module: SimModule, wire: RecordingWire) -> None:
    match step:
        case Ask():
            model.ask(step)
        case GiveUp(which):
            model.give_up(which)
        case Wait(seconds):
            await asyncio.sleep(seconds)
        case Say(text):
            wire.say(f"\r\n{text}\r\n".encode())
        case Spoil(How.LATE, seconds):
            wire.late(seconds)
        case Spoil(how, seconds):
            module.mangles.add("*", Mangle(how, seconds=seconds))
        case Happen(what):
            _happen(what, module, wire)
    await asyncio.sleep(0)


def _happen(what: str, module: SimModule, wire: RecordingWire) -> None:
    if what in MODES:
        MODES[what](wire)
        return
    match what:
        case "lose":
            if wire.end is not None:
                wire.lose()
        case "unplug":
            module.unplug()
        case "plug":
            module.plug()
        case "reboot":
            module.reboot()
        case "hang":
            module.hang()
        case "resume":
            module.resume()
        case "no SIM":
            module.set_sim(Sim.MISSING)
        case "SIM":
            module.set_sim(Sim.READY)


def _end_all_trouble(module: SimModule, wire: RecordingWire) -> None:
    module.mangles.clear()
    wire.listen()
    module.resume()
    module.plug()
    wire.plug()
    module.set_sim(Sim.READY)
