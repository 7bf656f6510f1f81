# SPDX-License-Identifier: Apache-2.0
"""Every fault at every moment of an exchange and of set-up, and what each door was told. The table is printed once.

In each cell the whole daemon runs against the simulated module. A fault comes at its moment while one door's command
is at the module and the three others wait; then it is asked again until the answer is right, within the fault's bound.
"""

import asyncio
import contextlib
import os
import random
import textwrap
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from atrund.at.syntax import parse
from atrund.at.times import longest
from atrund.atrun.request import Door, End, Outcome, Reason
from atrund.config.values import Module, Sms
from atrund.module.channel import STANDING, Channel
from atrund.module.tending import WATCH_EVERY
from atrund.module.turn import LinkLostError, TimedOutError
from atrund.run import Run
from atrund.sim.module import SimModule
from atrund.sim.state import Options, Sim
from atrund.sms.pdu import Address, Dcs, Submit, UserData
from tests.support.marked import (
    DEADLINE,
    DTR,
    Askers,
    Marked,
    RecordingWire,
    lines_of,
    no_log,
    strangers,
    until,
    virtually,
)
from tests.support.virtual import PORT, VirtualClock, config, running

DOORS: Final = tuple(Door)
SOAK: Final = os.environ.get("HYPOTHESIS_PROFILE") == "soak"
"""Whether each cell is tried at every door; else the doors take turns, so that each meets each fault."""
SOON: Final = 40.0
"""Seconds within which the daemon is usable again after a fault that passes: a deadline, and five rounds to be in
step."""
AFTER: Final = 150.0
"""The same once a module that was away, hung or booting is back: the longest pause between two openings, and set-up."""


@dataclass
class Stage:
    """What a fault can reach."""

    module: SimModule
    wire: RecordingWire
    marked: Marked
    chance: random.Random = field(default_factory=lambda: random.Random(1))  # noqa: S311 - noise that can be had again

    def say(self, text: str) -> None:
        self.wire.inject(text.encode("latin-1"))

    def once(self, change: Callable[[bytes], bytes], when: Callable[[bytes], bool] = bool) -> None:
        """Change the next output that `when` is true of."""

        def garble(data: bytes) -> bytes:
            if not when(data):
                return data
            self.wire.garble = lambda later: later
            return change(data)

        self.wire.garble = garble

    def late(self, seconds: float) -> None:
        """Hold the next output up, and so all behind it."""

        def delay(data: bytes) -> bytes:
            self.wire.delay = seconds
            asyncio.get_running_loop().call_soon(setattr, self.wire, "delay", 0.0)
            return data

        self.once(delay)

    def unheard(self, keep: Callable[[bytes], bytes] = lambda _: b"") -> None:
        """Lose what is written next, or a part of it."""

        def lose(data: bytes) -> bytes:
            self.wire.on_write = lambda later: later
            return keep(data)

        self.wire.on_write = lose

    def later(self, seconds: float, action: Callable[..., object], *arguments: object) -> None:
        asyncio.get_running_loop().call_later(seconds, action, *arguments)

    def garble(self, data: bytes) -> bytes:
        spoilt = bytearray(data)
        for place in self.chance.sample(range(len(spoilt)), (len(spoilt) + 7) // 8):
            spoilt[place] ^= self.chance.randrange(1, 256)
        return bytes(spoilt)

    def flood(self, rate: int = 40, seconds: int = 5) -> None:
        for number in range(rate * seconds):
            self.later(number / rate, self.say, "$GPGGA,120000.000,4526.1234,N,00911.5678,E,1,05,1.50,120.0,M*5B\r\n")

    def hang(self, seconds: float) -> None:
        self.module.hang()
        self.later(seconds, self.module.resume)

    def lose_port(self, seconds: float) -> None:
        self.wire.unplug()
        self.later(seconds, self.wire.plug)

    def pull(self, seconds: float) -> None:
        self.module.unplug()
        self.later(seconds, self.module.plug)

    def reboot_away(self) -> None:
        self.module.set_quirk("reenumerate", "on")
        self.module.reboot()

    def no_sim(self, seconds: float) -> None:
        self.module.set_sim(Sim.MISSING)
        self.later(seconds, self.module.set_sim, Sim.READY)

    def no_network(self, seconds: float) -> None:
        self.module.set_registration(0)
        self.later(seconds, self.module.set_registration, 1)

    def replace_final(self, by: bytes) -> None:
        self.once(lambda data: data.replace(b"\r\nOK\r\n", by), lambda data: b"\r\nOK\r\n" in data)


@dataclass(frozen=True)
class Fault:
    """`harmless`: nobody's answer may suffer. `false_final`: a result that nobody can tell from a true one.

    `lasts`: seconds after which the module could answer again.
    """

    do: Callable[[Stage], object]
    harmless: bool = False
    false_final: bool = False
    of_input: bool = False
    lasts: float = 0.0

    @property
    def bound(self) -> float:
        return SOON if self.lasts == 0 else self.lasts + AFTER


def _says(text: str) -> Fault:
    return Fault(lambda stage: stage.say(f"\r\n{text}\r\n"), harmless=True)


CODES: Final = {
    "RING": _says("RING"),
    "+CREG: 1": _says("+CREG: 1"),
    "+CMT, 2 lines": _says("+CMT: ,24\r\n07911326040000F0"),
    "NO CARRIER": _says("NO CARRIER"),
    "NO CARRIER:3": _says("NO CARRIER:3"),
    "CONNECT": _says("CONNECT"),
}
FAULTS: Final[dict[str, Fault]] = {
    # What the line does to the next output.
    "garble": Fault(lambda stage: stage.once(stage.garble)),
    "cut": Fault(lambda stage: stage.once(lambda data: data[: len(data) // 2])),
    "double": Fault(lambda stage: stage.once(lambda data: data * 2), false_final=True),
    "drop": Fault(lambda stage: stage.once(lambda _: b"")),
    "split": Fault(lambda stage: setattr(stage.wire, "piece", 1), harmless=True),
    "late 5 s": Fault(lambda stage: stage.late(5), harmless=True),
    "late 15 s": Fault(lambda stage: stage.late(15), lasts=15),
    "late 60 s": Fault(lambda stage: stage.late(60), lasts=60),
    "no_final": Fault(lambda stage: stage.replace_final(b"")),
    "extra_final": Fault(lambda stage: stage.replace_final(b"\r\nOK\r\n\r\nOK\r\n"), harmless=True),
    "wrong_final": Fault(lambda stage: stage.replace_final(b"\r\nERROR\r\n")),
    # What it does to the next input.
    "unheard": Fault(lambda stage: stage.unheard(), of_input=True),
    "half heard": Fault(lambda stage: stage.unheard(lambda data: data[: len(data) // 2]), of_input=True),
    # What comes out of nowhere.
    **CODES,
    "NMEA flood": Fault(lambda stage: stage.flood(), harmless=True),
    "NULs": Fault(lambda stage: stage.say("\0" * 100), harmless=True),
    "noise": Fault(lambda stage: stage.say("".join(map(chr, stage.chance.randbytes(40))) + "\r\n")),
    "OK": Fault(lambda stage: stage.say("\r\nOK\r\n"), false_final=True),
    "ERROR": Fault(lambda stage: stage.say("\r\nERROR\r\n"), false_final=True),
    "prompt >": Fault(lambda stage: stage.say("\r\n> ")),
    "prompt >>>": Fault(lambda stage: stage.say("\r\n>>>")),
    # What the module does.
    "reboot": Fault(lambda stage: stage.module.reboot(), lasts=5),
    "reboot, 25 s away": Fault(lambda stage: stage.reboot_away(), lasts=25),
    "hang 20 s": Fault(lambda stage: stage.hang(20), lasts=20),
    "hang 200 s": Fault(lambda stage: stage.hang(200), lasts=200),
    "port lost": Fault(lambda stage: stage.lose_port(0.2), lasts=0.2),
    "port lost 60 s": Fault(lambda stage: stage.lose_port(60), lasts=60),
    "unplugged 30 s": Fault(lambda stage: stage.pull(30), lasts=35),
    "no SIM 30 s": Fault(lambda stage: stage.no_sim(30), harmless=True),
    "no network 30 s": Fault(lambda stage: stage.no_network(30), harmless=True),
    "+CMS 314, 20 s": Fault(lambda stage: stage.module.set_quirk("sms_busy", 20.0), harmless=True),
}

MODES: Final = {
    # Something else than commands is listened to, and what is under way is lost.
    "data mode": Fault(lambda stage: stage.wire.enter_data_mode(b"+++")),
    "data mode, ATH": Fault(lambda stage: stage.wire.enter_data_mode(b"ATH\r")),
    "data mode, DTR": Fault(lambda stage: stage.wire.enter_data_mode(DTR)),
    "wants a text": Fault(lambda stage: stage.wire.want_text()),
    "wants 3 bytes": Fault(lambda stage: stage.wire.want_bytes(3)),
    "wants 30 bytes": Fault(lambda stage: stage.wire.want_bytes(30), lasts=STANDING),
}
FAULTS.update(MODES)

HIT: Final = 1
CHAINED: Final = 2
PACE: Final = (1.0, 1.0, 1.0)
MOMENTS: Final = {
    "before": -0.05,
    "sent": 0.5,
    "inside": 1.5,
    "before final": 2.5,
    "behind final": 3.001,
}
"""When a fault comes, in seconds from the command's first byte; PACE says what is under way then."""
CHAIN: Final = {"chain: 1st": 0.5, "chain: between": 3.5, "chain: 2nd": 4.5}
"""The same for a line of two commands: before the first's answer, between the two, inside the second's."""


ABBREVIATED: Final = {
    End.OK: "ok",
    End.ERROR: "err",
    End.TIMEOUT: "tmo",
    End.LOST: "lost",
    End.REJECTED: "down",
    End.CANCELLED: "canc",
}


class Report:
    """The tables, printed behind the test run's results."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[str, dict[str, str]]] = {}

    def tell(self, table: str, fault: str, moment: str, cell: str) -> None:
        self.tables.setdefault(table, {}).setdefault(fault, {})[moment] = cell

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for title, rows in self.tables.items():
            terminalreporter.write_sep("-", title.partition("\n")[0])
            terminalreporter.write(textwrap.fill(title.partition("\n")[2], 120, break_on_hyphens=False) + "\n")
            columns = list(dict.fromkeys(moment for row in rows.values() for moment in row))
            widths = [max(len(column), *(len(row.get(column, "")) for row in rows.values())) for column in columns]
            first = max(map(len, rows))
            for name, row in {"": {column: column for column in columns}, **rows}.items():
                cells = (f"{row.get(column, ''):{width}}" for column, width in zip(columns, widths, strict=True))
                terminalreporter.write(f"{name:{first}}  {'  '.join(cells)}".rstrip() + "\n")


@pytest.fixture(scope="module")
def report(request: pytest.FixtureRequest) -> Report:
    made = Report()
    request.config.pluginmanager.register(made)
    return made


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with no_log():
        yield


@contextlib.asynccontextmanager
async def stage(*, until_ready: bool = True) -> AsyncIterator[tuple[Stage, Askers]]:
    clock = VirtualClock()
    module = SimModule(Options(), clock.now)
    module.faults = marked = Marked()
    wire = RecordingWire(module)
    given = config(module=Module(port=PORT, telemetry=0), sms=Sms())
    async with running(given, module=module, wire=wire, clock=clock, until=None) as house:
        for keeper in house.daemon.keepers:
            keeper._random.seed(1)  # the same pauses in each run
        if until_ready:
            await until(lambda: house.daemon.keepers[0].channel is not None)
            await asyncio.sleep(1)
        yield Stage(module, wire, marked), Askers(house, marked)


def told(outcome: Outcome, *numbers: int) -> str:
    """How an asker was answered, in a word: `-` behind it means lines missing, `+` lines twice, `~` lines spoilt."""
    assert not strangers(outcome, *numbers), f"an answer of somebody else: {outcome.lines}"
    word = ABBREVIATED[outcome.end]
    if outcome.end is End.REJECTED:
        assert outcome.reason is Reason.PORT_DOWN
        return word
    own = [line for line in outcome.lines if line in lines_of(*numbers)]
    if len(own) != len(outcome.lines):
        return word + "~"
    if outcome.end is not End.OK or tuple(own) == lines_of(*numbers):
        return word
    return word + ("+" if len(own) > len(lines_of(*numbers)) else "-")


def check_records(askers: Askers, wire: RecordingWire) -> None:
    """Nothing ran twice, nothing that was refused ran at all, and each request ended once."""
    ended = Counter(line for line, _, _ in askers.house.outcomes)
    for run in askers.asked.values():
        line, outcome = run.request.line, run.outcome.result()
        assert outcome is not None
        ran = wire.ran(line)
        assert ran <= (outcome.end is not End.REJECTED), f"{line}: ran {ran} times, {outcome}"
        assert ran or not outcome.lines, f"{line} was answered and never ran"
        assert ended[line] == 1


async def _held(cell: Coroutine[Any, Any, None], cells: list[str], failures: list[str]) -> None:
    """Hold a failure back until the rest of the row is known."""
    try:
        await cell
    except (AssertionError, TimeoutError) as error:
        cells.append("!!!")
        failures.append(str(error) or "it took too long")


def words(given: Iterable[str]) -> str:
    return "/".join(dict.fromkeys(given))


EXCHANGES: Final = f"""faults around an exchange: what the asker was told, what the three behind it, seconds until all is well
ok, err(or), tmo (timeout), lost, down (refused: port_down); '-' lines missing, '+' twice, '~' spoilt, !!! wrong.
Lines come after 1 and 2 s, the final result after 3, the deadline after {DEADLINE:g}. Bound {SOON:g} s, or {AFTER:g} s after
the module is back."""  # noqa: E501 - a table's title


TAKEN_FOR_ANOTHERS: Final = "a false result ends the command early, and its lines come to the next of the same name"


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name, marks=[pytest.mark.xfail(reason=TAKEN_FOR_ANOTHERS, strict=True)] * (name in {"OK", "ERROR"})
        )
        for name in FAULTS
    ],
)
def test_a_fault_around_an_exchange(name: str, report: Report) -> None:
    fault = FAULTS[name]
    failures: list[str] = []
    for number, (moment, at) in enumerate({**MOMENTS, **CHAIN}.items()):
        numbers = (HIT, CHAINED) if moment in CHAIN else (HIT,)
        cells: list[str] = []
        for door in DOORS if SOAK else [DOORS[(number + list(FAULTS).index(name)) % len(DOORS)]]:
            virtually(_held(_exchange(fault, at, door, numbers, cells), cells, failures))
        report.tell(EXCHANGES, name, moment, words(cells))
    assert not failures


async def _exchange(fault: Fault, at: float, door: Door, numbers: tuple[int, ...], cells: list[str]) -> None:
    loop = asyncio.get_running_loop()
    async with stage() as (on, askers):
        on.marked.pace = dict.fromkeys(numbers, PACE)
        begin = loop.time() + max(at, 0)
        if at < 0:
            fault.do(on)
            await asyncio.sleep(-at)
        else:
            loop.call_at(begin, fault.do, on)
        hit = askers.ask(door, *numbers)
        await asyncio.sleep(0.01)
        behind = [askers.ask(other, 10 + number) for number, other in enumerate(DOORS) if other is not door]
        async with asyncio.timeout(fault.bound + DEADLINE):
            own = told(await outcome_of(hit), *numbers)
            others = [told(await outcome_of(run), int(run.request.rid[1:])) for run in behind]
        await askers.usable(fault.bound, DOORS if SOAK else [door])
        seconds = askers.usable_at - begin
        check_records(askers, on.wire)
        await asyncio.sleep(WATCH_EVERY + SOON)
        check_set_up(on)
        if fault.harmless:
            assert (own, words(others)) == ("ok", "ok")
        if not fault.false_final:
            assert "ok-" not in others
        assert seconds < fault.bound
        cells.append(f"{own} {words(others)} {seconds:.0f}")


async def outcome_of(run: Run) -> Outcome:
    outcome = await run.outcome
    assert outcome is not None
    return outcome


def _steps() -> list[str]:
    """What set-up sends when nothing goes wrong."""
    seen: list[str] = []

    async def watch() -> None:
        async with stage() as (on, _):
            seen.extend(on.wire.seen)

    with no_log():
        virtually(watch())
    return seen


STEPS: Final = _steps()
SET_UP: Final = f"""faults at each step of set-up: seconds until all is well ('r': the port was opened again)
Whoever asks meanwhile is told port_down. {"  ".join(f"{n} {step}" for n, step in enumerate(STEPS, 1))}"""


SET_UP_FAULTS: Final = {
    **{name: fault for name, fault in FAULTS.items() if name not in CODES},
    "all codes": Fault(lambda stage: [CODES[name].do(stage) for name in CODES], harmless=True),
}


@pytest.mark.parametrize("name", SET_UP_FAULTS)
def test_a_fault_in_set_up(name: str, report: Report) -> None:
    failures: list[str] = []
    for number in range(len(STEPS)):
        cells: list[str] = []
        virtually(_held(_set_up(SET_UP_FAULTS[name], number, cells), cells, failures))
        report.tell(SET_UP, name, str(number + 1), cells[0])
    assert not failures


async def _set_up(fault: Fault, step: int, cells: list[str]) -> None:
    loop = asyncio.get_running_loop()
    async with stage(until_ready=False) as (on, askers):
        begun: list[float] = []

        def strike(number: int) -> None:
            if number != step:
                return
            begun.append(loop.time())
            if fault.of_input:
                fault.do(on)
            else:
                loop.call_soon(fault.do, on)
            for asker, door in enumerate(DOORS if SOAK else [DOORS[step % len(DOORS)]], 10):
                askers.ask(door, asker)

        on.wire.on_command = strike
        await until(lambda: begun, 10)
        async with asyncio.timeout(fault.bound):
            early = [told(await outcome_of(run), number) for number, run in list(askers.asked.items())]
        assert {*early} <= {"down", "ok"}
        await askers.usable(fault.bound, DOORS if SOAK else [DOORS[step % len(DOORS)]])
        seconds = askers.usable_at - begun[0]
        await asyncio.sleep(SOON)
        check_records(askers, on.wire)
        check_set_up(on)
        assert seconds < fault.bound
        cells.append(f"{seconds:.0f}{'r' if len(on.wire.opened) > 1 else ''}")


def check_set_up(on: Stage) -> None:
    assert on.wire.end is not None
    settings = on.wire.end.sim.settings
    assert (settings.echo, settings.verbose, settings.quiet) == (False, True, False)
    assert (settings.cmee, settings.text_mode) == (1, False)
    assert settings.values.get("+CNMI") == ("2", "1", "0", "0", "0"), settings


PROMPTS: Final = """faults around a prompt (+CMGS): what the sender was told, what the four behind it, seconds until all is well
'-': no reference. No message is sent twice; one that was told sent was sent."""  # noqa: E501 - a table's title
SLOW: Final = longest(parse("AT+CMGS=1"))
"""A message that has left is waited for so long, if its result was lost on the way (REQ-7)."""
PDU: Final = Submit(Address.parse("+393331234567"), UserData.from_text("hello", Dcs(0)))
PROMPT_FAULTS: Final = {
    **FAULTS,
    "prompt never": Fault(lambda stage: stage.module.set_quirk("cmgs_prompt", "never")),
    "prompt twice": Fault(lambda stage: stage.module.set_quirk("cmgs_prompt", "twice")),
}
PROMPT_MOMENTS: Final = {
    "before": -0.05,
    "sent": 0.0,
    "at the prompt": 0.02,
    "in the data": None,
    "behind data": 0.2,
    "behind final": 0.36,
}
"""In seconds from the command; its prompt comes at once, the data 50 ms later, the result after 300 ms more."""


@pytest.mark.parametrize("name", PROMPT_FAULTS)
def test_a_fault_around_a_prompt(name: str, report: Report) -> None:
    failures: list[str] = []
    for moment, at in PROMPT_MOMENTS.items():
        cells: list[str] = []
        virtually(_held(_prompt(PROMPT_FAULTS[name], at, cells), cells, failures))
        report.tell(PROMPTS, name, moment, cells[0])
    assert not failures


async def _prompt(fault: Fault, at: float | None, cells: list[str]) -> None:
    loop = asyncio.get_running_loop()
    async with stage() as (on, askers):
        channel = askers.house.daemon.keepers[0].channel
        assert channel is not None
        begin = loop.time()
        if at is None:
            _in_the_data(on, fault)
        elif at <= 0 or fault.of_input:
            fault.do(on)
            await asyncio.sleep(-min(at, 0))
        else:
            loop.call_later(at, fault.do, on)
        sender = asyncio.create_task(_send(channel))
        await asyncio.sleep(0)
        behind = [askers.ask(door, 10 + number) for number, door in enumerate(DOORS)]
        bound = fault.bound + SLOW
        async with asyncio.timeout(bound + DEADLINE):
            own = await sender
            others = [told(await outcome_of(run), int(run.request.rid[1:])) for run in behind]
        await askers.usable(bound, DOORS)
        seconds = askers.usable_at - begin
        if on.module.network.sent == [] and not fault.lasts:
            assert seconds < SOON, "nothing was sent: nothing is to be waited for"
        check_records(askers, on.wire)
        assert len(on.module.network.sent) <= 1
        assert own != "ok" or len(on.module.network.sent) == 1
        if fault.harmless:
            assert words(others) == "ok"
        if not fault.false_final:
            assert "ok-" not in others
        cells.append(f"{own} {words(others)} {seconds:.0f}")


COUNTED: Final = """faults around a counted prompt that nobody can answer (#M2MWRITE, 10 bytes): what the asker was told, what the four
behind it, seconds until all is well. 'fill': the prompt was filled with zero bytes, and that is the error."""  # noqa: E501 - a table's title
COUNTED_MOMENTS: Final = {"before": -0.05, "sent": 0.0, "at the prompt": 0.02, "behind fill": 0.06}
"""In seconds from the command; its prompt comes at once, and is filled 50 ms later."""


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_around_a_counted_prompt(name: str, report: Report) -> None:
    failures: list[str] = []
    for moment, at in COUNTED_MOMENTS.items():
        cells: list[str] = []
        virtually(_held(_counted(FAULTS[name], at, cells), cells, failures))
        report.tell(COUNTED, name, moment, cells[0])
    assert not failures


async def _counted(fault: Fault, at: float, cells: list[str]) -> None:
    loop = asyncio.get_running_loop()
    async with stage() as (on, askers):
        on.module.set_quirk("data_prompts", "on")
        channel = askers.house.daemon.keepers[0].channel
        assert channel is not None
        begin = loop.time()
        if at <= 0 or fault.of_input:
            fault.do(on)
            await asyncio.sleep(-min(at, 0))
        else:
            loop.call_later(at, fault.do, on)
        asker = asyncio.create_task(_upload(channel))
        await asyncio.sleep(0)
        behind = [askers.ask(door, 10 + number) for number, door in enumerate(DOORS)]
        # At a prompt that is not seen the bytes of commands are its data, until they are enough.
        bound = fault.bound + STANDING
        async with asyncio.timeout(bound + DEADLINE):
            own = await asker
            others = [told(await outcome_of(run), int(run.request.rid[1:])) for run in behind]
        await askers.usable(bound, DOORS)
        seconds = askers.usable_at - begin
        check_records(askers, on.wire)
        if fault.harmless:
            assert (own, words(others)) == ("fill", "ok")
            assert [upload.data for upload in on.module.uploads] == [bytes(10)]
        cells.append(f"{own} {words(others)} {seconds:.0f}")


async def _upload(channel: Channel) -> str:
    try:
        async with channel.turn("tcp") as turn:
            ended = await turn.run(parse('AT#M2MWRITE="a.bin",10'), timeout=DEADLINE, say=lambda _: None)
    except TimedOutError:
        return "tmo"
    except LinkLostError:
        return "lost"
    assert not ended.final.ok or not ended.left
    return "fill" if ended.filled else "left" if ended.left else "ok" if ended.final.ok else "err"


def _in_the_data(on: Stage, fault: Fault) -> None:
    """Let the fault come when the first half of the data is written, and the rest 10 ms later."""

    def halve(data: bytes) -> bytes:
        if not data.endswith(b"\x1a"):
            return data
        on.wire.on_write = lambda later: later
        loop = asyncio.get_running_loop()
        loop.call_later(0.005, fault.do, on)
        end = on.wire.end
        assert end is not None
        loop.call_later(0.01, end.write, data[len(data) // 2 :])
        return data[: len(data) // 2]

    on.wire.on_write = halve


async def _send(channel: Channel) -> str:
    try:
        async with channel.turn("sms") as turn:
            answer = await turn.ask(f"AT+CMGS={PDU.tpdu_length}", DEADLINE, PDU.encode().hex().upper().encode())
    except TimedOutError:
        return "tmo"
    except LinkLostError:
        return "lost"
    if not answer.final.ok:
        return "err"
    return "ok" if len(answer.lines) == 1 and answer.value("+CMGS") else "ok-"
