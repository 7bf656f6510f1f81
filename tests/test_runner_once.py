# SPDX-License-Identifier: Apache-2.0
"""A request runs at most once and ends once, whatever happens to the asker, the disk and the daemon (REQ-9, REQ-12)."""

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atrund import run as running
from atrund import runner, walk
from atrund.at.reader import Line
from atrund.atrun import request as life
from atrund.atrun.request import Door, Effect, End, Event, Outcome, Reason, Request, State
from atrund.config.values import Sms
from atrund.ledger import Ledger, tables
from atrund.ledger.tables import Known
from atrund.ledger.writer import Job, Write
from atrund.mirror import Mirror
from atrund.module.channel import Channel
from atrund.run import Run
from atrund.sim.faults import Plant
from atrund.sim.module import SimModule
from atrund.sim.state import Options
from atrund.table import IllegalTransition, To
from tests.support.lives import Disk, Held, Lives
from tests.support.marked import Marked, RecordingWire, line_of, no_log, until, virtually
from tests.support.virtual import PORT, AtOnce, House, VirtualClock, config
from tests.support.ways import ways

COMING_AGAIN = pytest.mark.parametrize("door", [door for door in Door if door.delivers_again])
SILENT = config(sms=Sms())
"""No door of its own meddles with the requests."""


@contextlib.asynccontextmanager
async def living() -> AsyncIterator[tuple[Lives, House]]:
    lives = Lives(SILENT)
    house = await lives.start()
    yield lives, house
    await lives.end()


def ask(door: Door, line: str = "AT+CSQ", *, rid: str = "r1", key: str = "k1", **fields: float) -> Request:
    return Request(rid=rid, door=door, peer="peer", line=line, key=key, **fields)  # type: ignore[arg-type]


def recorded(disk: AtOnce) -> list[tuple[str, str, str | None]]:
    """Id, state and end of each request that the ledger has."""
    rows = disk.rows("SELECT rid, state, outcome FROM requests ORDER BY rowid")
    return [(rid, state, outcome and json.loads(outcome)["end"]) for rid, state, outcome in rows]


def remember(disk: AtOnce, request: Request, *, sent: bool = False) -> Known:
    """Return what a restart would find of a request."""
    connection = disk.store.connection
    tables.record(request, 0.0)(connection)
    if sent:
        tables.mark_sent(request.rid)(connection)
    known: Known = tables.known_by_key(request.door, request.key)(connection)
    return known


async def ended(run: Run) -> tuple[End, Reason | None]:
    outcome = await run.outcome
    assert outcome is not None
    return outcome.end, outcome.reason


# Taken back.


@pytest.mark.looptime
@COMING_AGAIN
async def test_taken_back_before_its_first_step_it_is_recorded_and_told_and_not_run(door: Door) -> None:
    async with living() as (lives, house):
        run = house.daemon.runner.start(ask(door))
        run.give_up(Reason.IDLE)
        assert await ended(run) == (End.CANCELLED, Reason.IDLE)
        assert not await run.accepted
        assert [line async for line in run.lines()] == []
        assert house.outcomes == [("AT+CSQ", "cancelled", "idle")]
        assert recorded(lives.disk) == [("r1", "ended", "cancelled")]
        assert lives.wire.ran("AT+CSQ") == 0
        await until(lambda: house.daemon.runner.running == 0)


@pytest.mark.looptime
async def test_one_that_ended_is_not_run_again_even_if_asked_to() -> None:
    async with living() as (lives, house):
        await house.daemon.runner.start(ask(Door.SMS)).outcome
        (known,) = await house.daemon._ledger.ask(tables.unfinished(Door.SMS))
        assert (await ended(house.daemon.runner.resume(known)))[0] is End.LOST
        assert lives.wire.ran("AT+CSQ") == 1
        assert recorded(lives.disk) == [("r1", "ended", "ok")]


@pytest.mark.looptime
@pytest.mark.parametrize(("sent", "end"), [(False, End.CANCELLED), (True, End.LOST)])
async def test_one_found_after_a_restart_can_be_taken_back_at_once(*, sent: bool, end: End) -> None:
    async with living() as (lives, house):
        run = house.daemon.runner.resume(remember(lives.disk, ask(Door.SMS), sent=sent))
        run.give_up(Reason.SHUTDOWN)
        assert (await ended(run))[0] is end
        assert recorded(lives.disk) == [("r1", "ended", end.value)]
        assert lives.wire.ran("AT+CSQ") == 0


@pytest.mark.looptime
@COMING_AGAIN
async def test_taken_back_while_the_turn_is_granted_it_is_not_sent(door: Door) -> None:
    async with living() as (lives, house):
        held = Held(lives.disk, 2)
        run = house.daemon.runner.start(ask(door))
        await until(lambda: run.life.state is State.GRANTED)
        run.give_up()
        await asyncio.sleep(1)
        held.release()
        assert await ended(run) == (End.CANCELLED, None)
        assert lives.wire.ran("AT+CSQ") == 0
        assert recorded(lives.disk) == [("r1", "ended", "cancelled")]
        assert await ended(house.daemon.runner.start(ask(door, "AT+COPS?", rid="r2", key="k2"))) == (End.OK, None)


@pytest.mark.looptime
@pytest.mark.parametrize("ticks", range(12))
@COMING_AGAIN
async def test_cancelled_again_while_it_ends_the_outcome_is_recorded_all_the_same(door: Door, ticks: int) -> None:
    async with living() as (lives, house):
        lives.module.faults.plant("+CSQ", Plant(seconds=30))
        run = house.daemon.runner.start(ask(door))
        await until(lambda: run.life.state is State.SENT)
        assert run._task is not None
        run._task.cancel()
        for _ in range(ticks):
            await asyncio.sleep(0)
        run._task.cancel()
        assert await ended(run) == (End.CANCELLED, None)
        await until(lambda: house.daemon.runner.running == 0)
        assert recorded(lives.disk) == [("r1", "ended", "cancelled")]
        assert house.outcomes == [("AT+CSQ", "cancelled", None)]


@pytest.mark.looptime
async def test_cancelled_while_giving_up_the_end_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = walk.Walk._perform

    async def perform(one: walk.Walk, effect: Effect) -> Event | None:
        if effect is Effect.GIVE_UP:
            assert one._run._task is not None
            one._run._task.cancel()
            await asyncio.sleep(0)
        return await plain(one, effect)

    monkeypatch.setattr(walk.Walk, "_perform", perform)
    async with living() as (lives, house):
        lives.module.faults.plant("+CSQ", Plant(seconds=30))
        run = house.daemon.runner.start(ask(Door.SMS, timeout=2.0))
        assert (await ended(run))[0] is End.TIMEOUT
        assert recorded(lives.disk) == [("r1", "ended", "timeout")]
        lives.module.faults.clear()
        assert await ended(house.daemon.runner.start(ask(Door.TCP, "AT+COPS?"))) == (End.OK, None)


@pytest.mark.looptime
async def test_once_ended_it_can_not_be_taken_back() -> None:
    async with living() as (lives, house):
        held = Held(lives.disk, 3)
        run = house.daemon.runner.start(ask(Door.MQTT))
        await until(lambda: run.life.state is State.ENDED)
        run.give_up(Reason.IDLE)
        await asyncio.sleep(1)
        assert not run.outcome.done()
        held.release()
        assert await ended(run) == (End.OK, None)


@pytest.mark.looptime
async def test_a_door_that_fails_keeps_neither_its_asker_nor_the_port() -> None:
    def also(_request: Request, _outcome: Outcome) -> list[Write]:
        raise ValueError("a fault of the door")

    async with living() as (lives, house):
        run = house.daemon.runner.start(ask(Door.SMS), also)
        assert (await ended(run))[0] is End.OK
        assert run._task is not None
        with pytest.raises(ValueError, match="a fault of the door"):
            await run._task
        assert await ended(house.daemon.runner.start(ask(Door.TCP, "AT+COPS?"))) == (End.OK, None)
        assert lives.wire.ran("AT+CSQ") == 1


# Delivered again.


@pytest.mark.looptime
@COMING_AGAIN
async def test_what_is_refused_and_known_is_answered_from_the_record(door: Door) -> None:
    async with living() as (lives, house):
        first = await house.daemon.runner.start(ask(door)).outcome
        refused = Outcome(End.EXPIRED, Reason.EXPIRED)
        run = house.daemon.runner.start(ask(door, rid="again"), refused=refused)
        outcome = await run.outcome
        assert run.known is not None
        assert first is not None
        assert outcome is not None
        assert (outcome.end, outcome.lines) == (End.OK, first.lines)
        assert house.outcomes == [("AT+CSQ", "ok", None)]
        assert recorded(lives.disk) == [("r1", "ended", "ok")]


@pytest.mark.looptime
async def test_what_comes_again_is_not_mirrored_as_another_command() -> None:
    lives = Lives(config(sms=Sms()))
    house = await lives.start()
    house.daemon._mirror.base = "p/n/"
    for rid in ("r1", "r2", "r3"):
        await house.daemon.runner.start(ask(Door.MQTT, rid=rid)).outcome
    topics = [topic for (topic,) in lives.disk.rows("SELECT topic FROM outbox ORDER BY seq")]
    assert topics == ["p/n/event/command", "p/n/event/response"]
    await lives.end()


# A disk that fails.


@pytest.mark.looptime
@pytest.mark.parametrize("delay", [0.0, 5.0])
async def test_an_sms_that_can_not_be_recorded_is_left_to_be_taken_up_again(delay: float) -> None:
    """REQ-12: with a delay it was recorded already when the disk failed."""
    async with living() as (lives, house):
        run = house.daemon.runner.start(ask(Door.SMS, delay=delay))
        if delay:
            assert await run.accepted
        lives.disk.broken = "disk full"
        assert await ended(run) == (End.REJECTED, Reason.STORAGE)
        lives.disk.broken = ""
        await asyncio.sleep(10)
        assert recorded(lives.disk) == ([("r1", "recorded", None)] if delay else [])
        assert house.outcomes == []
        again = house.daemon.runner.start(ask(Door.SMS, rid="again"))
        outcome = await again.outcome
        if delay:
            assert outcome is None
            assert again.known is not None
            assert await ended(house.daemon.runner.resume(again.known)) == (End.OK, None)
        assert lives.wire.ran("AT+CSQ") == 1
        assert house.outcomes == [("AT+CSQ", "ok", None)]


@pytest.mark.looptime
async def test_an_mqtt_request_that_can_not_be_recorded_as_sent_is_refused_for_good() -> None:
    async with living() as (lives, house):
        run = house.daemon.runner.start(ask(Door.MQTT, delay=5.0))
        assert await run.accepted
        plain, failing = lives.disk.submit, itertools.chain([True], itertools.repeat(False))

        def submit(job: Job) -> None:
            lives.disk.broken = "disk full" if job.synced and next(failing) else ""
            plain(job)

        lives.disk.submit = submit  # type: ignore[method-assign]
        assert await ended(run) == (End.REJECTED, Reason.STORAGE)
        assert recorded(lives.disk) == [("r1", "ended", "rejected")]
        assert lives.wire.ran("AT+CSQ") == 0


# Slow askers, and late answers.


@pytest.mark.looptime
async def test_a_slow_asker_falls_behind_by_no_more_than_the_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "BACKLOG_MAX", 1000)
    async with living() as (lives, house):
        lives.module.faults.plant("#CSURV", Plant(lines=("x" * 100,) * 50, final="OK"))
        run = house.daemon.runner.start(ask(Door.TCP, "AT#CSURV"))
        outcome = await run.outcome
        assert outcome is not None
        assert (len(outcome.lines), outcome.truncated) == (50, True)
        assert len([line async for line in run.lines()]) == 10


@pytest.mark.looptime
async def test_an_asker_that_keeps_up_gets_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "BACKLOG_MAX", 100)
    async with living() as (_, house):
        run = Run(ask(Door.TCP), None)
        one = walk.Walk(run, house.daemon.runner._ways, closed=False)
        lines = run.lines()
        for number in range(100):
            one._hear(Line(f"{number:090}"))
            assert (await anext(lines)).text == f"{number:090}"
        assert not one._truncated


@pytest.mark.looptime
async def test_an_answer_that_comes_after_the_deadline_is_nobodys() -> None:
    async with living() as (lives, house):
        lives.module.faults.plant("+CSQ", Plant(seconds=3))
        assert await ended(house.daemon.runner.start(ask(Door.SMS, timeout=2.0))) == (End.TIMEOUT, None)
        outcome = await house.daemon.runner.start(ask(Door.TCP, "AT+COPS?")).outcome
        assert outcome is not None
        assert outcome.lines == ('+COPS: 0,0,"vodafone IT"',)
        assert lives.wire.ran("AT+CSQ") == 1


# The table drives it.


@pytest.mark.looptime
async def test_what_is_done_is_what_the_table_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the row's effect nothing is waited for, asked or sent."""
    done: list[Effect] = []
    plain = walk.Walk._perform

    async def perform(one: walk.Walk, effect: Effect) -> Event | None:
        done.append(effect)
        return await plain(one, effect)

    monkeypatch.setattr(walk.Walk, "_perform", perform)
    async with living() as (lives, house):
        await house.daemon.runner.start(ask(Door.SMS, delay=5.0)).outcome
        assert done == [
            Effect.RECORD,
            Effect.DELAY,
            Effect.ASK_TURN,
            Effect.RECORD_SENT,
            Effect.SEND,
            Effect.RECORD_END,
        ]
        done.clear()
        granted = {**life.TRANSITIONS[State.WAITING], Event.TURN: To(State.ENDED, (Effect.RECORD_END,))}
        monkeypatch.setitem(life.TRANSITIONS, State.WAITING, granted)
        await house.daemon.runner.start(ask(Door.SMS, "AT+COPS?", rid="r2", key="k2")).outcome
        assert done == [Effect.RECORD, Effect.DELAY, Effect.ASK_TURN, Effect.RECORD_END]
        assert (lives.wire.ran("AT+CSQ"), lives.wire.ran("AT+COPS?")) == (1, 0)


@pytest.mark.looptime
@pytest.mark.parametrize("door", [Door.TCP, Door.SMS])
async def test_an_event_that_the_table_does_not_know_ends_the_run_and_gives_the_port_back(
    monkeypatch: pytest.MonkeyPatch,
    door: Door,
) -> None:
    said: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
    async with living() as (_, house):
        sent = {event: to for event, to in life.TRANSITIONS[State.SENT].items() if event is not Event.FINAL}
        with monkeypatch.context() as patch:
            patch.setitem(life.TRANSITIONS, State.SENT, sent)
            run = house.daemon.runner.start(ask(door))
            await run.outcome
            await until(lambda: house.daemon.runner.running == 0)
            if run._task is not None:
                with pytest.raises(IllegalTransition):
                    await run._task
            else:
                (context,) = said
                assert isinstance(context["exception"], IllegalTransition)
        assert await ended(house.daemon.runner.start(ask(Door.TCP, "AT+COPS?", rid="r2"))) == (End.OK, None)


# At most once.

ASKED = st.integers(1, 5)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), ASKED),
        st.tuples(st.just("cancel"), ASKED),
        st.tuples(st.just("tick"), st.integers(1, 40)),
        st.tuples(st.just("wait"), st.integers(1, 30)),
        st.tuples(st.just("kill in"), st.integers(0, 12)),
        st.tuples(st.just("kill"), st.just(0)),
        st.tuples(st.just("disk"), st.just(0)),
    ),
    max_size=25,
)


@settings(max_examples=150)
@given(steps=STEPS, paces=st.lists(st.sampled_from([0.0, 0.3, 4.0]), min_size=6, max_size=6), sms=st.booleans())
def test_at_most_once_whatever_happens(steps: list[tuple[str, int]], paces: list[float], *, sms: bool) -> None:
    with no_log():
        virtually(whatever_happens(steps, paces, Door.SMS if sms else Door.MQTT))


class Ordeal:
    """What is done to one runner with its port and its disk, and what is known of it."""

    def __init__(self, paces: list[float], door: Door) -> None:
        module = SimModule(Options())
        marked = module.faults = Marked()
        marked.pace = {number: (pace, 0.0, pace) for number, pace in enumerate(paces)}
        self.wire = RecordingWire(module)
        self.wire.on_write = lambda data: b"" if self.dies() else data
        self.disk = Disk()
        self.disk.dies = self.dies
        self.door = door
        self.rids = itertools.count()
        self.runs: list[tuple[int, Run]] = []
        self.wished: set[int] = set()
        self.left: int | None = None

    @property
    def killed(self) -> bool:
        return self.left is not None and self.left < 0

    def dies(self) -> bool:
        self.left = None if self.left is None else self.left - 1
        return self.killed

    async def start(self) -> None:
        self.left, self.disk.broken = None, ""
        ledger = Ledger(self.disk)
        await ledger.start()
        self.channel = channel = Channel(unsolicited=lambda _: None, on_lost=lambda _: None)
        channel.attach(await self.wire.open(PORT, 115200, channel))
        async with channel.turn("daemon") as turn:
            await turn.ask("ATE0V1Q0")
            await turn.ask("AT+CMEE=1")
        channel.confirm()
        clock = VirtualClock()
        mirror = Mirror(clock=clock, session="s")
        self.runner = runner.Runner(ways(lambda: channel, ledger=ledger, mirror=mirror, clock=clock))
        unfinished: list[Known] = await ledger.ask(tables.unfinished(self.door))
        interrupted = [known for known in unfinished if known.outcome is None]
        self.runs = [(int(known.request.key), self.runner.resume(known)) for known in interrupted]

    async def kill(self) -> None:
        self.disk.broken = "killed"
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self.channel.close()

    async def end(self) -> None:
        await self.kill()
        self.wire.module.close()
        self.disk.store.close()

    async def step(self, what: str, number: int) -> None:
        match what:
            case "ask":
                self.wished.add(number)
                request = ask(self.door, line_of(number), rid=f"r{next(self.rids)}", key=str(number), timeout=6.0)
                self.runs.append((number, self.runner.start(request)))
            case "cancel":
                for _, run in (asked for asked in self.runs if asked[0] == number):
                    run.give_up()
            case "tick":
                for _ in range(number):
                    await asyncio.sleep(0)
            case "wait":
                await asyncio.sleep(number / 10)
            case "kill in":
                self.left = number
            case "kill":
                await self.kill()
                await self.start()
            case _:
                self.disk.broken = "" if self.disk.broken else "disk full"

    def check(self) -> None:
        rows = recorded(self.disk)
        assert all(state == "ended" and end is not None for _, state, end in rows), rows
        for number in self.wished:
            ran = self.wire.ran(line_of(number))
            assert ran <= 1
            ends = self.disk.rows("SELECT outcome FROM requests WHERE key = ?", str(number))
            assert len(ends) <= 1
            if ends and json.loads(ends[0][0])["end"] == "ok":
                assert ran == 1


async def whatever_happens(steps: list[tuple[str, int]], paces: list[float], door: Door) -> None:
    ordeal = Ordeal(paces, door)
    await ordeal.start()
    for what, number in (*steps, ("kill", 0)):
        await ordeal.step("kill" if ordeal.killed else what, number)
    await asyncio.sleep(100)
    assert ordeal.runner.running == 0
    ordeal.check()
    await ordeal.end()


def test_and_once_when_nothing_happens() -> None:
    async def work() -> None:
        async with living() as (lives, house):
            lives.module.faults = Marked()
            runs = [
                house.daemon.runner.start(ask(door, line_of(number), rid=f"{door.value}{number}", key=str(number)))
                for number, door in enumerate(Door, 1)
            ]
            assert [(await ended(run))[0] for run in runs] == [End.OK] * len(Door)
            assert [lives.wire.ran(line_of(number)) for number in range(1, len(Door) + 1)] == [1] * len(Door)

    virtually(work())
