# SPDX-License-Identifier: Apache-2.0
"""One message and a daemon that is killed: before and after every job for the disk and every write to the module.

What has to come of it is told by a model from what is on disk at the moment of the kill.
"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atrund.ledger.answers import Progress, progress_of
from atrund.sim.faults import Plant
from atrund.sim.state import Options
from atrund.sms.digest import build_request, parse_response
from atrund.sms.pdu import decode_submit
from tests.support.lives import Lives
from tests.support.marked import Marked, line_of, lines_of, no_log, virtually
from tests.support.texting import EIGHT_BIT, lying, put, refusal, rules, undelivered
from tests.support.virtual import PASSWORD, STRANGER, House, deliver

LONG_LINES: Final = ("x" * 150, "y" * 150, "{z}" * 20)
STEPS_MAX: Final = 80
"""More than the jobs for the disk and the writes to the module from a long message's coming to its deletion."""


@dataclass(frozen=True)
class Kind:
    """A message, the command that it asks for, and its answer."""

    text: str
    line: str
    answer: str | None
    end: str = "ok"
    digest: bool = False
    steps: int = 12
    """At least so many jobs for the disk and writes to the module it takes."""
    reports: bool = False
    """Whether the network is asked to report the answer's delivery."""


SHORT: Final = "".join(f"\r\n{line}\r\n" for line in (*lines_of(7), "OK"))
LONG: Final = "\r\n" + "\r\n".join(LONG_LINES) + "\r\n\r\nOK\r\n"
KINDS: Final = {
    "simple": Kind(line_of(7), line_of(7), SHORT),
    "hat": Kind(f"H{line_of(7)}", line_of(7), None, steps=10),
    "digest": Kind(line_of(7), line_of(7), SHORT, digest=True),
    "long": Kind("AT+CPBF", "AT+CPBF", LONG, steps=20),
    "long digest": Kind("AT+CPBF", "AT+CPBF", LONG, digest=True, steps=20),
    "long with reports": Kind("AT+CPBF", "AT+CPBF", LONG, steps=20, reports=True),
    "refused": Kind("AT+CFUN=4", "AT+CFUN=4", refusal("policy"), end="rejected", steps=10),
    "refused hat": Kind("HAT+CFUN=4", "AT+CFUN=4", None, end="rejected", steps=6),
}


class Box(Lives):
    """A box whose daemon is killed at a step: `after` it was done, or else before."""

    def __init__(self, *, reports: bool = False) -> None:
        options = Options(quirks=(("report_delay", 0.5),))
        super().__init__(rules(answers_per_hour=100, delivery_reports=reports), options)
        marked = self.module.faults = Marked()
        marked.plant("+CPBF", Plant(None, lines=LONG_LINES, final="OK"))
        self._last: int | None = None
        self._over = False
        self._moment = asyncio.Event()

    async def killed_at(self, step: int, *, after: bool, seconds: float = 3.0) -> bool:
        """Kill the daemon at so many steps from now, in the very moment; False if it does not take so many."""
        self._moment.clear()
        self._last, self._over = self.steps + step, after
        try:
            async with asyncio.timeout(seconds):
                await self._moment.wait()
        except TimeoutError:
            self._last = None
            return False
        await self.kill()
        self._last = None
        return True

    def _dies(self) -> bool:
        self.steps += 1
        if self._last is None:
            return False
        dead = self.steps > self._last + self._over
        if dead or (self._over and self.steps == self._last + 1):
            asyncio.get_running_loop().call_soon(self._moment.set)  # once the step is done, if it is to be done
        return dead


@dataclass(frozen=True)
class Kept:
    """What is on disk of the one request, and what the module has sent."""

    state: str
    outcome: str | None
    answered: bool
    progress: Progress
    sent: int
    ran: int


def kept(box: Box, kind: Kind) -> Kept | None:
    rows = box.disk.rows("SELECT state, outcome, answered, asked FROM requests")
    assert len(rows) <= 1
    for state, outcome, answered, asked in rows:
        progress = progress_of(json.loads(asked)["context"])
        end = None if outcome is None else json.loads(outcome)["end"]
        return Kept(state, end, bool(answered), progress, len(box.module.network.sent), box.wire.ran(kind.line))
    return None


def bring(box: Box, house: House, kind: Kind) -> None:
    """Let the message come."""
    if kind.digest:
        data = build_request(PASSWORD, kind.text.encode(), 3, 9)
        pdu = deliver("", STRANGER, dcs=EIGHT_BIT, at=box.clock.now(), data=data).encode()
        house.module.network.deliver(pdu)
    else:
        house.sms(kind.text)


def parts_of(house: House, kind: Kind) -> list[tuple[int, int, str]]:
    """The parts that were sent: their number, how many there are, and their text."""
    found = []
    for sent in house.module.network.sent:
        data = decode_submit(sent.pdu).user_data
        if kind.digest:
            part = parse_response(data.content)
            assert part is not None
            assert part.matches([PASSWORD]) == 0, "each part has its own digest"
            assert (part.transaction, part.session) == (3, 9)
            found.append((part.index, part.total, part.text.decode()))
        else:
            place = data.concatenation
            found.append((1, 1, data.text) if place is None else (place.index, place.total, data.text))
    return found


def whole(parts: Sequence[tuple[int, int, str]]) -> str:
    """Put an answer together, as a telephone does that knows a part when it comes twice."""
    texts = {number: text for number, _, text in parts}
    assert sorted(texts) == list(range(1, parts[0][1] + 1)), "no part is missing"
    assert all(texts[number] == text for number, _, text in parts), "a part that comes twice is the same"
    return "".join(texts[number] for number in sorted(texts))


def check(box: Box, house: House, kind: Kind, before: Kept | None) -> None:
    """Compare with what had to come of what was on disk at the kill."""
    told = [what for what, _ in house.told]
    ((line, end, _),) = [entry for entry in house.outcomes if entry[0] == kind.line]
    refused = kind.end == "rejected"
    fate = before.outcome if before is not None else None
    if fate is None:
        fate = "lost" if before is not None and before.state == "sent" else kind.end
    assert end == fate
    ran = box.wire.ran(line)
    assert ran <= 1
    assert ran == (not refused) or end == "lost"
    if before is not None and before.state != "recorded":
        assert ran == before.ran, "what may have reached the module is not run again"
    assert box.disk.rows("SELECT state, answered FROM requests") == [("ended", 1)]
    assert lying(box) == 0

    parts = parts_of(house, kind)
    unknown = before is not None and before.progress.under_way and not before.answered
    assert told.count("answer repeated") == unknown
    assert undelivered(house) == []
    if kind.answer is None:
        assert parts == []
        return
    assert whole(parts) == (refusal("lost") if end == "lost" else kind.answer)
    numbers = [number for number, _, _ in parts]
    total = parts[0][1]
    again = None
    if unknown and before is not None and len(numbers) > total:
        again = len(before.progress.references) + 1
    elif unknown and before is not None:
        assert before.sent == len(before.progress.references), "the module had it, and it did not come again"
    assert numbers == sorted([*range(1, total + 1), *([again] if again else [])]), "in order, and once but for that"
    delivered = told.count("answer delivered")
    # A report that comes while the daemon is down is lost, and of a part that came twice it is the second's.
    assert delivered == kind.reports if before is None else delivered <= kind.reports
    progress = kept(box, kind)
    assert progress is not None
    assert len(progress.progress.references) == progress.progress.parts == total


async def life_and_death(kind: Kind, step: int, *, after: bool, deaths: list[int]) -> None:
    box = Box(reports=kind.reports)
    house = await box.start()
    bring(box, house, kind)
    if await box.killed_at(step, after=after):
        deaths.append(step)
        before = kept(box, kind)
        house = await box.start()
        await asyncio.sleep(200)
        check(box, house, kind, before)
    else:
        await asyncio.sleep(100)
        check(box, house, kind, None)
    await box.end()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_killed_at_any_step_the_command_runs_once_and_is_answered(kind: Kind, *, after: bool) -> None:
    """REQ-9, SMS-11, SMS-12: one outcome; nothing is sent twice that is known to be sent, and what is, is recorded."""
    deaths: list[int] = []
    with no_log():
        for step in range(STEPS_MAX):
            virtually(life_and_death(kind, step, after=after, deaths=deaths))
            if step not in deaths:
                break
    assert deaths == list(range(len(deaths)))
    assert kind.steps <= len(deaths) < STEPS_MAX, "it is known how many steps there are"


# Killed again and again.


@dataclass(frozen=True)
class Death:
    """A kill so many steps on, and the seconds for which the daemon is down."""

    step: int
    after: bool
    down: float


DEATHS: Final = st.lists(
    st.builds(Death, st.integers(0, 30), st.booleans(), st.sampled_from([0.0, 2.0, 100.0])), min_size=2, max_size=5
)


@settings(max_examples=60)
@given(kind=st.sampled_from(list(KINDS.values())), deaths=DEATHS)
def test_killed_again_and_again_it_runs_once_and_no_part_goes_out_three_times(kind: Kind, deaths: list[Death]) -> None:
    """A part whose sending ended without a result twice is given up, and that is recorded (SMS-12)."""
    with no_log():
        virtually(many_deaths(kind, deaths))


async def many_deaths(kind: Kind, deaths: list[Death]) -> None:
    box = Box(reports=kind.reports)
    house = await box.start()
    bring(box, house, kind)
    for death in deaths:
        if not await box.killed_at(death.step, after=death.after, seconds=1.0):
            break
        await asyncio.sleep(death.down)
        house = await box.start(wait=False)
    await asyncio.sleep(400)
    ((line, end, _),) = [entry for entry in house.outcomes if entry[0] == kind.line]
    assert end in {kind.end, "lost"}
    assert box.wire.ran(line) <= 1
    assert box.wire.ran(line) == (kind.end == "ok") or end == "lost"
    assert box.disk.rows("SELECT state, answered FROM requests") == [("ended", 1)]
    assert lying(box) == 0
    parts = parts_of(house, kind)
    numbers = [number for number, _, _ in parts]
    assert numbers == sorted(numbers)
    assert all(numbers.count(number) <= 2 for number in numbers)
    assert len(numbers) - len(set(numbers)) <= [what for what, _ in house.told].count("answer repeated")
    given_up = undelivered(house)
    if kind.answer is None:
        assert (parts, given_up) == ([], [])
    elif given_up:
        assert given_up == ["sent twice without a result: ended by a restart"]
    else:
        assert whole(parts) == (refusal("lost") if end == "lost" else kind.answer)
    await box.end()


# Shown in more ways than one.


def notify(box: Box, house: House, pdu: bytes) -> None:
    del house, pdu
    box.wire.say(b'\r\n+CMTI: "SM",1\r\n')


def show(box: Box, house: House, pdu: bytes) -> None:
    del house
    box.wire.say(f"\r\n+CMT: ,{len(pdu) - 1 - pdu[0]}\r\n{pdu.hex().upper()}\r\n".encode())


def sweep(box: Box, house: House, pdu: bytes) -> None:
    del box, pdu
    house.daemon.sms.look()


WAYS: Final = {"+CMTI": notify, "+CMT": show, "sweep": sweep}
PAIRS: Final = [(one, other) for one in WAYS for other in WAYS]


async def shown_twice(one: str, other: str, pause: float, step: int | None, killed: list[int]) -> None:
    """Show a message in two ways, so many seconds apart, and kill the daemon in between if a step is given."""
    kind = KINDS["simple"]
    box = Box()
    house = await box.start()
    await asyncio.sleep(1)
    put(box, kind.text)
    ((_, message),) = box.module.store.messages("SM")
    WAYS[one](box, house, message.pdu)
    before = None
    if step is None:
        await asyncio.sleep(pause)
    elif await box.killed_at(step, after=True):
        killed.append(step)
        before = kept(box, kind)
        house = await box.start(wait=False)
    WAYS[other](box, house, message.pdu)
    await asyncio.sleep(200)
    check(box, house, kind, before)
    await box.end()


@pytest.mark.parametrize("pause", [0.0, 0.05, 0.5, 30.0])
@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_shown_in_two_ways_it_is_run_once(one: str, other: str, pause: float) -> None:
    """SMS-11: while it is judged, runs, is answered, and when it is gone."""
    virtually(shown_twice(one, other, pause, None, []))


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_shown_in_one_way_then_killed_and_shown_in_another_it_is_run_once(one: str, other: str) -> None:
    killed: list[int] = []
    with no_log():
        for step in range(STEPS_MAX):
            virtually(shown_twice(one, other, 0.0, step, killed))
            if step not in killed:
                break
    assert len(killed) >= KINDS["simple"].steps
