# SPDX-License-Identifier: Apache-2.0
"""A simulated module whose answers say whom they are for, on a wire that remembers all that it carried.

`AT+CPBR=<n>` is answered with two lines that carry `n`, at a pace that a test sets. So a line that went to the wrong
asker, or a command that ran twice, shows.
"""

import asyncio
import contextlib
import itertools
import re
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from typing import Any, Final

import looptime
import structlog

from atrund.at.syntax import Command, Op, arguments
from atrund.atrun.request import Door, End, Outcome, Request
from atrund.module.port import Port, Receiver
from atrund.run import Run
from atrund.sim.faults import Faults
from atrund.sim.module import SimModule
from atrund.sim.port import SimPort
from atrund.sim.steps import Handler, Step, Wait
from tests.support.virtual import House, Wire

MARKED: Final = "+CPBR"
DEADLINE: Final = 12.0
"""Seconds that a request of these tests may take."""
DTR: Final = b"<DTR>"
"""What stands for a falling DTR."""
PROBES: Final = 1_000_000
"""Where the numbers of those begin who ask whether everything works again."""

Pace = tuple[float, float, float]
"""Seconds before the first line of an answer, before the second, and before the final result."""
AT_ONCE: Final[Pace] = (0.0, 0.0, 0.0)


def line_of(*numbers: int) -> str:
    """A command line that asks for these entries."""
    return "AT" + ";".join(f"{MARKED}={number}" for number in numbers)


def lines_of(*numbers: int) -> tuple[str, ...]:
    """What answers it."""
    return tuple(line for number in numbers for line in (f"{MARKED}: {number},for-{number}-a", f"for-{number}-b"))


def strangers(outcome: Outcome, *numbers: int) -> list[str]:
    """The lines of an answer that were somebody else's."""
    marks = [(line, mark) for line in outcome.lines for mark in re.findall(r"for-(\d+)-", line)]
    return [line for line, mark in marks if int(mark) not in numbers]


class Marked(Faults):
    """Answers as above; `pace` says how fast, by number."""

    def __init__(self) -> None:
        super().__init__()
        self.pace: dict[int, Pace] = {}
        self.instead: dict[int, Callable[[], Iterator[Step]]] = {}

    def steps(self, port: SimPort, command: Command, handler: Handler) -> Iterable[Step]:
        if command.name != MARKED or command.op is not Op.SET:
            return super().steps(port, command, handler)
        number = int(arguments(command.args)[0])
        return self.instead[number]() if number in self.instead else self._answer(number)

    def _answer(self, number: int) -> Iterator[Step]:
        first, second, final = self.pace.get(number, AT_ONCE)
        a, b = lines_of(number)
        yield Wait(first)
        yield a
        yield Wait(second)
        yield b
        yield Wait(final)


class RecordingWire(Wire):
    """Keeps every opening, is a USB cable, and can lose or change what is written and what is said."""

    def __init__(self, module: SimModule) -> None:
        super().__init__(module)
        module.add_cable(self)
        self.sims: list[SimPort] = []
        self.on_write: Callable[[bytes], bytes] = lambda data: data
        """What becomes of what the daemon writes."""
        self.on_command: Callable[[int], None] = lambda _: None
        """Told of each command line that the daemon writes, counted from 0, before `on_write`."""
        self.commands = 0

    async def open(self, path: str, baudrate: int, receiver: Receiver) -> Port:
        await super().open(path, baudrate, receiver)
        assert self.end is not None
        self.sims.append(self.end.sim)
        return _Through(self)

    def unplug(self) -> None:
        self.absent = "no such device"
        self.lose()

    def plug(self) -> None:
        self.absent = ""

    def inject(self, data: bytes) -> None:
        """Let the module say something of its own, if the port is open."""
        if self.end is not None:
            self.end.inject(data)

    def say(self, data: bytes) -> None:
        """The same, behind what is on its way, which it does not cut in two."""
        if self.end is not None:
            self.end.say(data)

    def late(self, seconds: float) -> None:
        """Hold the next output up, and so all behind it: on a line nothing overtakes anything."""
        before = self.garble

        def hold_up(data: bytes) -> bytes:
            self.garble, self.delay = before, seconds
            asyncio.get_running_loop().call_soon(setattr, self, "delay", 0.0)
            return before(data)

        self.garble = hold_up

    def swallow(self, words: str, ends: Callable[[bytes], bool], then: str) -> None:
        """Say `words` and be in another mode: nothing is a command until something written `ends` it.

        What runs is forgotten, and nothing that the module says from now on comes through.
        """
        self.listen()
        if self.end is not None:
            self.end.sim.interrupt()
            # What was written in this moment is on its way to it, and finds it no other way.
            asyncio.get_running_loop().call_soon(self.end.sim.interrupt)
            self.say(words.encode())
        self.garble = lambda _: b""

        def take(data: bytes) -> bytes:
            if ends(data):
                self.listen()
                self.say(then.encode())
            return b""

        self.on_write = take
        self.on_dtr = lambda: asyncio.get_running_loop().call_soon(take, DTR)

    def listen(self) -> None:
        """Take commands again."""
        self.on_write = self.garble = lambda data: data
        self.on_dtr = lambda: None

    def enter_data_mode(self, end: bytes) -> None:
        """Be in data mode until `end` is written, or DTR falls."""
        self.swallow("\r\nCONNECT 9600\r\n", end.__eq__, "\r\nOK\r\n" if end == b"ATH\r" else "\r\nNO CARRIER\r\n")

    def want_bytes(self, count: int) -> None:
        """Show a counted prompt, and take so many bytes for its data."""
        got = bytearray()

        def full(data: bytes) -> bool:
            got.extend(data)
            return len(got) >= count

        self.swallow("\r\n>>>", full, "\r\nOK\r\n")

    def want_text(self) -> None:
        """Show a text prompt; what is typed there would be a message that somebody gets."""
        text = bytearray()

        def left(data: bytes) -> bool:
            text.extend(data)
            assert b"\x1a" not in data or b"AT" not in text, "a command was sent as a message"
            return b"\x1b" in data or b"\x1a" in data

        self.swallow("\r\n> ", left, "\r\nOK\r\n")

    def ran(self, line: str) -> int:
        """How often a command line reached the module, whichever opening it came through."""
        return sum(list(sim.seen).count(line) for sim in self.sims)

    def wrote(self, part: bytes) -> int:
        """How often the daemon wrote something."""
        return sum(part in data for data in self.written)


class _Through:
    """The daemon's side of one opening."""

    def __init__(self, wire: RecordingWire) -> None:
        assert wire.end is not None
        self._wire, self._end = wire, wire.end

    @property
    def unsent(self) -> int:
        return 0

    def write(self, data: bytes) -> None:
        if data.startswith(b"AT"):
            self._wire.commands += 1
            self._wire.on_command(self._wire.commands - 1)
        if data := self._wire.on_write(data):
            self._end.write(data)

    async def drop_dtr(self) -> None:
        await self._end.drop_dtr()

    def close(self) -> None:
        self._end.close()


class Askers:
    """Asks marked questions at the doors of a running house."""

    def __init__(self, house: House, marked: Marked) -> None:
        self.house = house
        self.marked = marked
        self.asked: dict[int, Run] = {}
        self.usable_at = 0.0

    def ask(self, door: Door, *numbers: int, timeout: float = DEADLINE) -> Run:
        """Put the question for `numbers` on its way."""
        rid = f"r{numbers[0]}"
        request = Request(rid=rid, door=door, peer="peer", line=line_of(*numbers), key=rid, timeout=timeout)
        run = self.asked[numbers[0]] = self.house.daemon.runner.start(request)
        return run

    async def usable(self, within: float, doors: Sequence[Door] = tuple(Door)) -> None:
        """Ask at one door after the other until all in a row get their own; `usable_at` says since when."""
        numbers = itertools.count(PROBES)
        loop = asyncio.get_running_loop()
        begin = loop.time()
        answered = 0
        while answered < len(doors):
            assert loop.time() - begin < within, f"not usable within {within:g} s: {self.house.daemon.module}"
            if self.house.daemon.keepers[0].channel is None:
                await asyncio.sleep(1)
                continue
            number = next(numbers)
            if answered == 0:
                self.usable_at = loop.time()
            outcome = await self.ask(doors[answered], number).outcome
            assert outcome is not None
            assert not strangers(outcome, number), outcome.lines
            if outcome.end is End.OK:
                assert outcome.lines == lines_of(number)
                answered += 1
            else:
                answered = 0
                await asyncio.sleep(1)


async def until(condition: Callable[[], object], within: float = 60.0) -> None:
    """Wait for something to be so."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 - what is waited for is no event
            await asyncio.sleep(0.01)


def virtually(work: Coroutine[Any, Any, None]) -> None:
    """Run to the end on a loop of its own, in virtual time that begins at 0, without threads."""
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        runner.run(work)


def _new_loop() -> asyncio.AbstractEventLoop:
    # Nothing comes from outside, so that nothing is to be waited for before time goes on.
    loop: Any = looptime.new_event_loop(noop_cycles=0)

    def run_at_once(_executor: object, function: Callable[..., object], *arguments: object) -> asyncio.Future[object]:
        done: asyncio.Future[object] = loop.create_future()
        try:
            done.set_result(function(*arguments))
        except Exception as error:  # noqa: BLE001 - as an executor does
            done.set_exception(error)
        return done

    loop.run_in_executor = run_at_once
    made: asyncio.AbstractEventLoop = loop
    return made


@contextlib.contextmanager
def no_log() -> Iterator[None]:
    """Keep thousands of runs from printing what they log."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
    try:
        yield
    finally:
        structlog.configure(**before)
