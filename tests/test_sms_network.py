# SPDX-License-Identifier: Apache-2.0
"""The whole daemon on one module, an operator's phone on another, and between them a network in any weather.

Whatever the weather, and however often the daemon is killed: a message that arrives has one outcome, its command ran at
most once, and its answer was sent or is said to be undelivered; what never arrives, or comes from a stranger, runs
nothing (SMS-11 to SMS-13).
"""

import asyncio
import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atrund.sim.centre import ServiceCentre, Weather
from atrund.sim.faults import Plant
from atrund.sim.module import SimModule
from atrund.sim.network import Network, Outcome
from atrund.sim.state import Options
from atrund.sms.pdu import Address, Dcs, Submit, UserData, decode_deliver, decode_submit
from tests.support.lives import Lives
from tests.support.marked import Marked, line_of, no_log, virtually
from tests.support.virtual import FRIEND, STRANGER, config

EXAMPLES = max(25, settings.default.max_examples // 8 if settings.default else 0)
"""Some in each run of all tests, many when soaked."""
FIELD = "+393490000001"
PHONE_SLOTS = 255
POLL = 5.0
"""Seconds until a killed daemon is started again."""
QUIET = 4000.0
"""Seconds after the last event in which all has come to its end: longer than answers are tried for."""

Event = tuple[float, Callable[[], object]]

KINDS = ("AT", "AT", "HAT", "stranger", "long")
TROUBLES = ("busy", "barred", "no network", "no network any more", "no result", "gone", "killed", "hung", "disk")
LONG = tuple(f"line {number} of a long answer {'x' * 40}" for number in range(8))


@dataclass(frozen=True)
class Text:
    """A message that somebody writes, `after` so many seconds."""

    kind: str
    after: int


@dataclass(frozen=True)
class Trouble:
    """What happens `at` some second, and for how long or how often."""

    what: str
    at: float
    size: int


texts = st.lists(st.builds(Text, st.sampled_from(KINDS), st.integers(0, 90)), min_size=1, max_size=6)
troubles = st.lists(
    st.builds(
        Trouble, st.sampled_from(TROUBLES), st.integers(0, 2000).map(lambda tenths: tenths / 10), st.integers(1, 4)
    ),
    max_size=3,
)
shares = st.sampled_from([0.0, 0.0, 0.2, 0.5, 1.0])
weathers = st.builds(Weather, st.sampled_from([0.0, 0.0, 0.2, 0.5]), shares, shares, st.sampled_from([0.0, 5.0, 120.0]))


class World:
    """The box in the field, the phone, a stranger's phone, and what is known about each message by its number."""

    def __init__(self, weather: Weather, seed: int) -> None:
        given = config()
        self.lives = Lives(replace(given, sms=replace(given.sms, answer_max_age=1800.0)), Options(sm_slots=30))
        self.marked = Marked()
        self.lives.module.faults = self.marked
        self.phone, self.other = (
            SimModule(Options(seed=number, sm_slots=PHONE_SLOTS), self.lives.clock.now) for number in (1, 2)
        )
        self.centre = ServiceCentre(self.lives.clock.now, seed=seed, weather=weather)
        for module, number in ((self.lives.module, FIELD), (self.phone, FRIEND), (self.other, STRANGER)):
            self.centre.join(module.network, number)
        self.arrived: list[str] = []
        self._listen(self.lives.module.network)

    def write(self, number: int, kind: str) -> None:
        """Let somebody write a message that asks for this number."""
        line = line_of(number)
        if kind == "long":
            self.marked.instead[number] = lambda: iter([f"for-{number}-a", *LONG])
        text = f"H{line}" if kind == "HAT" else line
        sender = self.other if kind == "stranger" else self.phone
        data = UserData.from_text(text, Dcs(0))
        sender.network.submit(Submit(Address.parse(FIELD), data))

    def happen(self, trouble: Trouble) -> Iterator[Event]:
        """Tell what happens when."""
        module, wire, disk, faults = self.lives.module, self.lives.wire, self.lives.disk, self.marked
        begin, size = trouble.at, trouble.size
        match trouble.what:
            case "busy":
                yield begin, lambda: faults.plant("+CMGS", Plant(left=size, final="+CMS ERROR: 42"))
            case "barred":
                yield begin, lambda: faults.plant("+CMGS", Plant(left=size, final="+CMS ERROR: 8"))
            case "no network any more":
                yield begin, lambda: module.set_registration(3)
            case "no result":
                yield begin, lambda: faults.plant("+CMGS", Plant(left=1, seconds=200.0))
            case "no network":
                yield begin, lambda: module.set_registration(2)
                yield begin + 60 * size, lambda: module.set_registration(1)
            case "gone":
                yield begin, lambda: None if wire.absent else wire.unplug()
                yield begin + 20 * size, wire.plug
            case "hung":
                yield begin, module.hang
                yield begin + 5 * size, module.resume
            case "disk":
                yield begin, lambda: setattr(disk, "broken", "no space left")
                yield begin + 5 * size, lambda: setattr(disk, "broken", "")
            case "killed":
                yield begin, lambda: self.lives.kill_at(3 * size)

    async def live(self, events: list[Event], seconds: float) -> None:
        """Let everything happen, and start the daemon again whenever it was killed.

        In one task, for a kill is the end of all others.
        """
        loop = asyncio.get_running_loop()
        begin, left = loop.time(), sorted(events, key=lambda event: event[0])
        while (now := loop.time() - begin) < seconds:
            while left and left[0][0] <= now:
                left.pop(0)[1]()
            if self.lives.killed:
                await self.lives.kill()
                await self.lives.start(wait=False)
            # Virtual time has steps: a shorter sleep than one would never come to an end.
            await asyncio.sleep(max(0.01, min(POLL, left[0][0] - now)) if left else POLL)

    @property
    def answers(self) -> list[str]:
        """What the module in the field has sent to the phone, with each part of a message by itself."""
        network = self.lives.module.network
        return [decode_submit(sent.pdu).user_data.text for sent in network.sent if sent.to == FRIEND]

    @property
    def read(self) -> list[str]:
        """What lies in the phone."""
        return [decode_deliver(message.pdu).user_data.text for _, message in self.phone.store.messages("SM")]

    def rows(self, line: str) -> list[tuple[str, str]]:
        """Id and outcome of each record of a command line."""
        return [
            (rid, event) for rid, event in self.lives.disk.rows("SELECT rid, event FROM audit WHERE line = ?", line)
        ]

    def told(self, rid: str) -> list[str]:
        """What is recorded of an answer."""
        return [event for (event,) in self.lives.disk.rows("SELECT event FROM audit WHERE rid = ? AND line = ''", rid)]

    def close(self) -> None:
        self.centre.close()
        for module in (self.phone, self.other):
            module.close()

    def _listen(self, network: Network) -> None:
        """Note the text of whatever the module gets, as often as it does."""
        plain = network.deliver

        def deliver(pdu: bytes, *, done: Callable[[], None]) -> Outcome:
            def noted() -> None:
                self.arrived.append(decode_deliver(pdu).user_data.text)
                done()

            return plain(pdu, done=noted)

        network.deliver = deliver  # type: ignore[method-assign, assignment]


async def play(world: World, plan: list[Text], trouble: list[Trouble]) -> None:
    await world.lives.start()
    at = list(itertools.accumulate(text.after for text in plan))
    events = [event for one in trouble for event in world.happen(one)]
    events += [(at[place], functools.partial(world.write, place + 1, text.kind)) for place, text in enumerate(plan)]
    await world.live(events, at[-1] + QUIET)
    for number, text in enumerate(plan, 1):
        judge(world, number, text.kind)
    others = {line_of(number) for number, text in enumerate(plan, 1) if text.kind == "stranger"}
    lying = [decode_deliver(message.pdu).user_data.text for _, message in world.lives.module.store.messages("SM")]
    assert set(lying) <= others, "a request is left in the store"
    await world.lives.end()
    world.close()


def judge(world: World, number: int, kind: str) -> None:
    line = line_of(number)
    arrived = world.arrived.count(f"H{line}" if kind == "HAT" else line)
    rows, runs = world.rows(line), world.lives.wire.ran(line)
    answers = sum(f"for-{number}-a" in text for text in world.answers)
    if kind == "stranger" or not arrived:
        assert (rows, runs, answers) == ([], 0, 0)
        return
    ((rid, event),) = rows
    told = world.told(rid)
    assert runs <= 1
    if kind == "HAT":
        assert answers == 0
        return
    if event == "ok":
        assert runs == 1
    else:  # such as a command that may have run when the daemon was killed
        answers = sum("#ATRUN: " in text for text in world.answers)
    assert answers >= 1 or "answer undelivered" in told, "an answer is neither sent nor said to be undelivered"
    if event == "ok" and answers > 1:
        assert "answer repeated" in told, "an answer was sent twice, and nobody says so"


@pytest.mark.parametrize("at", [0.0, 1.0])
@pytest.mark.parametrize("what", TROUBLES)
def test_each_trouble_by_itself_while_everything_comes_twice(what: str, at: float) -> None:
    plan = [Text("AT", 0), Text("HAT", 1), Text("long", 1), Text("stranger", 0), Text("AT", 30)]
    with no_log():
        virtually(_in_a_world(plan, Weather(repeat=1.0, reorder=0.5), [Trouble(what, at, 2)], seed=2))


@settings(max_examples=EXAMPLES)
@given(texts, weathers, troubles, st.integers(0, 1000))
def test_each_message_has_one_outcome_runs_at_most_once_and_is_answered(
    plan: list[Text], weather: Weather, trouble: list[Trouble], seed: int
) -> None:
    with no_log():
        virtually(_in_a_world(plan, weather, trouble, seed))


async def _in_a_world(plan: list[Text], weather: Weather, trouble: list[Trouble], seed: int) -> None:
    await play(World(weather, seed), plan, trouble)
