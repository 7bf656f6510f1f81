# SPDX-License-Identifier: Apache-2.0
import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from atrund import run as run_room
from atrund import steps
from atrund.atrun.request import Door, End, Outcome, Reason, Request
from atrund.ledger import Ledger, tables
from atrund.ledger.tables import Known
from atrund.ledger.writer import Write
from atrund.mirror import Mirror
from atrund.module.channel import Channel
from atrund.run import Run
from atrund.runner import CLOSE_WAIT, Runner
from atrund.sim.faults import Plant
from atrund.sim.module import SimModule
from atrund.sim.state import Options
from tests.support.virtual import MEMORY, PORT, AtOnce, VirtualClock, Wire
from tests.support.waiting import until
from tests.support.ways import ways

pytestmark = pytest.mark.looptime

EVERY_DOOR = pytest.mark.parametrize("door", list(Door))


class Bench:
    def __init__(
        self, disk: AtOnce, *, base: str = "", depth: int = 32, max_wait: float = 600.0, gap: float = 0.02
    ) -> None:
        self.disk = disk
        self.ledger = Ledger(disk)
        self.wire = Wire(SimModule(Options()))
        self.module = self.wire.module
        self.channel: Channel | None = None
        self._depth, self._max_wait, self._gap = depth, max_wait, gap
        clock = VirtualClock()
        mirror = Mirror(clock=clock, session="s", base=base)
        self.ways = ways(lambda: self.channel, ledger=self.ledger, mirror=mirror, clock=clock)
        self.runner = Runner(self.ways)
        self.numbers = iter(range(1, 1000))
        self.heard: Callable[[tuple[str, ...]], object] = lambda _: None
        """Gets the module's unsolicited codes."""

    async def plug_in(self) -> None:
        channel = Channel(
            unsolicited=self._hear,
            on_lost=lambda _: setattr(self, "channel", None),
            depth=self._depth,
            max_wait=self._max_wait,
            gap=self._gap,
        )
        channel.attach(await self.wire.open(PORT, 115200, channel))
        async with channel.turn("daemon") as turn:
            await turn.ask("ATE0V1Q0")
            await turn.ask("AT+CMEE=1")
        channel.confirm()
        assert self.wire.end is not None
        self.wire.end.sim.seen.clear()
        self.channel = channel

    def _hear(self, lines: tuple[str, ...]) -> None:
        self.heard(lines)

    def request(self, line: str = "AT+CSQ", door: Door = Door.TCP, **fields: object) -> Request:
        number = next(self.numbers)
        given = Request(rid=f"r{number}", door=door, peer="peer", line=line, key=f"k{number}")
        return replace(given, **fields)  # type: ignore[arg-type]

    def start(self, line: str = "AT+CSQ", door: Door = Door.TCP, **fields: object) -> Run:
        return self.runner.start(self.request(line, door, **fields))

    async def outcome(self, line: str = "AT+CSQ", door: Door = Door.TCP, **fields: object) -> Outcome:
        outcome = await self.start(line, door, **fields).outcome
        assert outcome is not None
        return outcome

    @property
    def seen(self) -> list[str]:
        return self.wire.seen

    def states(self) -> list[tuple[str, str | None]]:
        """State and end of each recorded request."""
        rows = self.disk.rows("SELECT state, outcome FROM requests ORDER BY rowid")
        return [(state, outcome and json.loads(outcome)["end"]) for state, outcome in rows]

    def audit(self) -> list[tuple[str, str | None]]:
        return [(event, reason) for event, reason in self.disk.rows("SELECT event, reason FROM audit ORDER BY n")]


@contextlib.asynccontextmanager
async def bench(
    path: Path = MEMORY,
    *,
    plugged: bool = True,
    base: str = "",
    depth: int = 32,
    max_wait: float = 600.0,
    gap: float = 0.02,
) -> AsyncIterator[Bench]:
    made = Bench(AtOnce(path), base=base, depth=depth, max_wait=max_wait, gap=gap)
    await made.ledger.start()
    if plugged:
        await made.plug_in()
    yield made
    await made.runner.close(0)
    assert made.runner.running == 0
    if made.channel is not None:
        made.channel.close()
    made.module.close()
    made.disk.close(0)
    await asyncio.sleep(0)


async def state_is(run: Run, state: str) -> None:
    await until(lambda: run.life.state.value == state, every=0.001)


# Outcomes.


@EVERY_DOOR
async def test_a_command_is_run_and_its_answer_framed(door: Door) -> None:
    async with bench() as b:
        run = b.start("at+csq", door)
        assert await run.accepted
        lines = [line.text async for line in run.lines()]
        outcome = await run.outcome
        assert outcome is not None
        assert (outcome.end, outcome.reason, outcome.final) == (End.OK, None, "OK")
        assert list(outcome.lines) == lines == ["+CSQ: 14,99"]
        assert outcome.framed == "\r\n+CSQ: 14,99\r\n\r\nOK\r\n"
        assert b.seen == ["AT+CSQ"]
        await asyncio.sleep(0)  # the answer goes first, then it is written down
        assert b.audit() == [("ok", None)]
        assert b.states() == ([("ended", "ok")] if door.delivers_again else [])


@pytest.mark.parametrize("final", ["ERROR", "+CME ERROR: 10", "+CMS ERROR: 500"])
async def test_the_modules_error_is_passed_on(final: str) -> None:
    async with bench() as b:
        b.module.faults.plant("+CSQ", Plant(final=final))
        outcome = await b.outcome()
        assert (outcome.end, outcome.reason, outcome.final) == (End.ERROR, None, final)


@EVERY_DOOR
@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("AT+CSQ\rAT+CFUN=4", Reason.BAD_REQUEST),
        ("AT+CSQ\x1a", Reason.BAD_REQUEST),
        ('AT+COPS="', Reason.BAD_REQUEST),
        ("no command", Reason.BAD_REQUEST),
        ("", Reason.BAD_REQUEST),
        ("AT+CSQ\ud800é", Reason.BAD_REQUEST),
        ("AT" + "+" * 3000, Reason.TOO_LONG),
        ("AT#SHDN", Reason.POLICY),
        ("AT+CSQ;#REBOOT", Reason.POLICY),
        ("AT+CMUX=0", Reason.POLICY),
        ('AT+CMGS="1"', Reason.PROMPT_UNSUPPORTED),
        ("ATD123", Reason.DATA_MODE),
    ],
)
async def test_a_refused_line_reaches_nobody_and_is_recorded(door: Door, line: str, reason: Reason) -> None:
    async with bench() as b:
        run = b.start(line, door)
        assert not await run.accepted
        outcome = await run.outcome
        assert outcome is not None
        assert (outcome.end, outcome.reason) == (End.REJECTED, reason)
        assert b.seen == []
        await asyncio.sleep(0)
        if "\ud800" not in line:
            assert b.audit() == [("rejected", reason.value)]


@EVERY_DOOR
async def test_what_the_door_refused_is_recorded_and_not_run(door: Door) -> None:
    async with bench() as b:
        refused = Outcome(End.EXPIRED, Reason.EXPIRED)
        run = b.runner.start(b.request("AT+CSQ", door), refused=refused)
        assert (await run.accepted, await run.outcome) == (False, refused)
        await asyncio.sleep(0)
        assert (b.seen, b.audit()) == ([], [("expired", "expired")])


async def test_a_deadline_gives_the_command_up_and_the_next_one_gets_its_own_answer() -> None:
    async with bench() as b:
        b.module.faults.plant("+CSQ", Plant(seconds=12))
        outcome = await b.outcome(timeout=2)
        assert (outcome.end, outcome.final) == (End.TIMEOUT, None)
        assert outcome.duration_ms == pytest.approx(2000, abs=21)
        assert (await b.outcome("AT+COPS?")).lines == ('+COPS: 0,0,"vodafone IT"',)


async def test_an_unexpected_prompt_is_an_error_with_its_reason() -> None:
    async with bench() as b:
        b.module.faults.plant("+CMGS", Plant(lines=("x",), final="OK"))
        b.wire.garble = lambda data: data.replace(b"\r\n+CSQ: 14,99\r\n\r\nOK\r\n", b"\r\n> ")
        task = asyncio.create_task(b.outcome(timeout=5))
        await asyncio.sleep(0.5)
        assert b.wire.written[-1] == b"\x1b"
        b.wire.garble = lambda data: data
        assert b.wire.end is not None
        b.wire.end.inject(b"\r\nOK\r\n")
        outcome = await task
        assert (outcome.end, outcome.reason) == (End.ERROR, Reason.PROMPT_UNSUPPORTED)
        assert outcome.framed == "\r\nERROR\r\n"


@EVERY_DOOR
async def test_a_port_lost_under_the_command_leaves_its_fate_unknown(door: Door) -> None:
    async with bench() as b:
        b.module.faults.plant("+CSQ", Plant(seconds=5))
        run = b.start("AT+CSQ", door)
        await asyncio.sleep(1)
        b.wire.lose()
        outcome = await run.outcome
        assert outcome is not None
        assert (outcome.end, outcome.reason) == (End.LOST, Reason.PORT_DOWN)
        if door.delivers_again:
            assert b.states() == [("ended", "lost")]


async def test_without_a_port_or_with_one_lost_in_the_queue_it_is_refused() -> None:
    async with bench(plugged=False) as b:
        assert (await b.outcome()).reason is Reason.PORT_DOWN
        await b.plug_in()
        b.module.faults.plant("+CSQ", Plant(seconds=5))
        runs = [b.start() for _ in range(2)]
        await asyncio.sleep(1)
        b.wire.lose()
        ends = [outcome and (outcome.end, outcome.reason) for outcome in [await run.outcome for run in runs]]
        assert ends == [(End.LOST, Reason.PORT_DOWN), (End.REJECTED, Reason.PORT_DOWN)]


async def test_a_full_queue_and_a_long_wait_are_refusals() -> None:
    async with bench(depth=2, max_wait=10) as b:
        b.module.faults.plant("+CSQ", Plant(None, seconds=60))
        runs = [b.start() for _ in range(4)]
        await asyncio.sleep(0.1)
        assert [run.outcome.done() for run in runs] == [False, False, False, True]
        reasons = [outcome and outcome.reason for outcome in [await run.outcome for run in runs]]
        assert reasons == [None, Reason.DEADLINE, Reason.DEADLINE, Reason.QUEUE_FULL]


async def test_the_delay_is_waited_once_before_the_turn_and_nobody_waits_with_it() -> None:
    async with bench() as b:
        late = b.start("AT+CSQ", delay=30)
        loop = asyncio.get_running_loop()
        begin = loop.time()
        assert (await b.outcome("AT+COPS?", Door.MQTT)).end is End.OK
        assert loop.time() - begin < 1
        outcome = await late.outcome
        assert loop.time() - begin == pytest.approx(30, abs=0.1)
        assert outcome is not None
        assert outcome.queued_ms == pytest.approx(30000, abs=50)


async def test_one_that_expires_in_the_queue_is_not_sent() -> None:
    async with bench() as b:
        b.module.faults.plant("+CSQ", Plant(seconds=60))
        first = b.start()
        await asyncio.sleep(0.1)
        second = b.start("AT+COPS?", Door.MQTT, expires=b.ledger.run + 30)
        third = b.start("AT+CPIN?", Door.MQTT, expires=b.ledger.run + 90)
        outcomes = [await run.outcome for run in (first, second, third)]
        assert [outcome and outcome.end for outcome in outcomes] == [End.OK, End.EXPIRED, End.OK]
        assert b.seen == ["AT+CSQ", "AT+CPIN?"]


# Order: what is on disk before the next step.


async def test_recorded_before_accepted_and_sent_before_the_first_byte() -> None:
    async with bench() as b:
        known: list[tuple[str, str]] = []

        def look() -> None:
            states = [state for state, _ in b.states()]
            known.append((states[0] if states else "none", "written" if b.seen or b.wire.written[2:] else "quiet"))

        b.disk.after = look
        run = b.start("AT+CSQ", Door.SMS)
        await run.accepted
        assert ("recorded", "quiet") in known
        await run.outcome
        assert ("sent", "quiet") in known
        assert known.index(("sent", "quiet")) > known.index(("recorded", "quiet"))
        assert all(job.synced for job in b.disk.jobs if job.future is not None and len(job.writes) > 1)


async def test_a_request_that_comes_again_is_not_run_again() -> None:
    async with bench() as b:
        b.module.faults.plant("+CSQ", Plant(seconds=5))
        request = b.request("AT+CSQ", Door.MQTT)
        first = b.runner.start(request)
        await asyncio.sleep(1)
        second = b.runner.start(replace(request, rid="again"))
        assert await second.outcome is None
        assert second.known is not None
        assert second.known.state == tables.SENT
        outcome = await first.outcome
        third = b.runner.start(replace(request, rid="again"))
        recorded = await third.outcome
        assert recorded is not None
        assert recorded == outcome
        assert b.seen == ["AT+CSQ"]


async def test_what_the_door_wants_written_is_in_the_transaction_of_the_outcome() -> None:
    async with bench() as b:

        def also(request: Request, outcome: Outcome) -> list[Write]:
            return [tables.set_meta(f"{request.rid} {outcome.end.value}", 1.0)]

        await b.runner.start(b.request("AT+CSQ", Door.SMS), also).outcome
        (job,) = [job for job in b.disk.jobs if job.synced and len(job.writes) == 5]
        assert b.disk.rows("SELECT name FROM meta WHERE name LIKE 'r1%'") == [("r1 ok",)]
        assert job.future is not None


async def test_the_mirror_has_each_command_and_each_outcome() -> None:
    async with bench(base="p/n/") as b:
        await b.outcome("AT+CSQ", Door.TCP)
        await b.outcome("AT+CFUN=4", Door.MQTT)
        rows = b.disk.rows("SELECT topic, payload FROM outbox ORDER BY seq")
        found = [(topic, json.loads(text)["state"], json.loads(text)["rid"]) for topic, text in rows]
        assert found == [
            ("p/n/event/command", "accepted", "r1"),
            ("p/n/event/response", "ok", "r1"),
            ("p/n/event/command", "rejected", "r2"),
            ("p/n/event/response", "rejected", "r2"),
        ]


# A disk that fails (REQ-12).


async def test_without_a_disk_requests_that_come_again_are_refused_and_others_run() -> None:
    async with bench() as b:
        b.disk.broken = "disk full"
        for door in (Door.SMS, Door.MQTT):
            outcome = await b.outcome("AT+CSQ", door)
            assert (outcome.end, outcome.reason) == (End.REJECTED, Reason.STORAGE)
        for door in (Door.TCP, Door.LOCAL):
            assert (await b.outcome("AT+COPS?", door)).end is End.OK
        assert b.seen == ["AT+COPS?", "AT+COPS?"]
        assert b.ledger.missed >= 2


async def test_a_disk_that_fails_before_sending_keeps_the_command_from_the_module() -> None:
    async with bench() as b:
        run = b.start("AT+CSQ", Door.SMS, delay=5)
        assert await run.accepted
        b.disk.broken = "disk full"
        outcome = await run.outcome
        assert outcome is not None
        assert outcome.reason is Reason.STORAGE
        assert b.seen == []
        b.disk.broken = ""
        assert (await b.outcome("AT+COPS?", Door.SMS)).end is End.OK


async def test_a_disk_that_fails_under_the_command_does_not_take_the_answer_away() -> None:
    async with bench() as b:
        b.module.faults.plant("+CSQ", Plant(seconds=5))
        run = b.start("AT+CSQ", Door.SMS)
        await asyncio.sleep(1)
        b.disk.broken = "disk full"
        outcome = await run.outcome
        assert outcome is not None
        assert outcome.end is End.OK
        assert b.states() == [("sent", None)]


# Cancellation.

STATES = ["received", "delayed", "waiting", "sent"]


@EVERY_DOOR
@pytest.mark.parametrize("state", STATES)
async def test_taken_back_at_any_state_it_ends_once_and_the_port_goes_on(door: Door, state: str) -> None:
    async with bench() as b:
        blocker = None
        if state == "waiting":
            b.module.faults.plant("+CPIN?", Plant(seconds=20))
            blocker = b.start("AT+CPIN?")
            await state_is(blocker, "sent")
        b.module.faults.plant("+CSQ", Plant(seconds=3))
        run = b.start("AT+CSQ", door, delay=5 if state == "delayed" else 0)
        if state != "received":
            await state_is(run, state)
            await asyncio.sleep(0.5)
        run.give_up(Reason.IDLE)
        run.give_up(Reason.IDLE)
        outcome = await run.outcome
        assert outcome is not None
        assert (outcome.end, outcome.reason) == (End.CANCELLED, Reason.IDLE)
        assert b.audit()[-1] == ("cancelled", "idle")
        if door.delivers_again:
            assert b.states() == [("ended", "cancelled")]
        assert [line async for line in run.lines()] == []
        if blocker is not None:
            assert (await blocker.outcome or Outcome(End.LOST)).end is End.OK
        assert (await b.outcome("AT+COPS?")).lines == ('+COPS: 0,0,"vodafone IT"',)
        assert ("AT+CSQ" in b.seen) == (state == "sent")


@pytest.mark.parametrize("step", range(40))
@pytest.mark.parametrize("door", [Door.SMS, Door.TCP])
async def test_taken_back_at_any_turn_of_the_loop_nothing_is_leaked(door: Door, step: int) -> None:
    async with bench() as b:
        run = b.start("AT+CSQ", door)
        for _ in range(step):
            await asyncio.sleep(0)
        run.give_up()
        outcome = await run.outcome
        assert outcome is not None
        assert outcome.end in {End.CANCELLED, End.OK, End.LOST}
        assert (await b.outcome("AT+COPS?")).lines == ('+COPS: 0,0,"vodafone IT"',)
        if door.delivers_again and b.states()[:-1]:
            assert b.states()[0] == ("ended", outcome.end.value)
        assert b.seen.count("AT+CSQ") <= 1


# Stopping.


async def test_at_a_stop_what_runs_may_end_and_nothing_new_is_taken() -> None:
    async with bench() as b:
        b.module.faults.plant("+CSQ", Plant(seconds=5))
        run = b.start()
        await asyncio.sleep(1)
        closing = asyncio.create_task(b.runner.close(20))
        await asyncio.sleep(0.1)
        assert b.runner.closing
        assert (await b.outcome("AT+COPS?")).reason is Reason.SHUTDOWN
        outcome = await run.outcome
        assert outcome is not None
        assert outcome.end is End.OK
        await closing


async def test_past_the_grace_what_runs_is_left_and_what_waits_is_not_run() -> None:
    async with bench() as b:
        b.module.faults.plant("+CSQ", Plant(seconds=100))
        runs = [b.start("AT+CSQ", Door.SMS), b.start("AT+COPS?", Door.MQTT)]
        await asyncio.sleep(1)
        begin = asyncio.get_running_loop().time()
        await b.runner.close(20)
        assert asyncio.get_running_loop().time() - begin == pytest.approx(20, abs=0.1)
        ends = [run.outcome.result() for run in runs]
        assert [outcome and (outcome.end, outcome.reason) for outcome in ends] == [
            (End.CANCELLED, Reason.SHUTDOWN),
            (End.CANCELLED, Reason.SHUTDOWN),
        ]
        assert b.states() == [("ended", "cancelled")] * 2
        assert "AT+COPS?" not in b.seen


async def test_a_disk_that_hangs_does_not_hold_up_the_stop() -> None:
    async with bench() as b:
        await b.plug_in()
        run = b.start("AT+CSQ", Door.SMS, delay=60)
        await run.accepted
        b.disk.hung = True
        begin = asyncio.get_running_loop().time()
        await b.runner.close(1)
        assert asyncio.get_running_loop().time() - begin == pytest.approx(1 + CLOSE_WAIT, abs=0.1)
        assert run._task is not None
        run._task.cancel()
        await asyncio.sleep(0.1)


# Without a task.

AT_ONCE = pytest.mark.parametrize("door", [door for door in Door if not door.delivers_again])


@AT_ONCE
@pytest.mark.parametrize("line", ["AT", "AT+CSQ", "AT+CSQ;+COPS?", "ATI+CGMR"])
async def test_a_plain_line_is_sent_as_it_comes_and_no_task_waits_for_it(door: Door, line: str) -> None:
    async with bench(gap=0.0) as b:
        b.wire.written.clear()
        run = b.start(line, door)
        assert b.wire.written == [line.encode() + b"\r"]
        outcome = await run.outcome
        assert outcome is not None
        assert outcome.end is End.OK
        assert run._task is None


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        ("AT+CSQ", {"delay": 1.0}),
        ("AT+CMGF=1", {}),  # it is remembered for its instance
        ("AT+CREG=1", {}),
        ("AT#TCPATRUNL?;+CSQ", {}),
        ('AT+CMGS="1"', {"interactive": True}),
        ('AT+CUSD=1,"*100#"', {}),  # it has a line to say behind its final result
    ],
)
async def test_what_takes_more_than_that_has_one(line: str, fields: dict[str, object]) -> None:
    async with bench(gap=0.0) as b:
        run = b.start(line, Door.TCP, timeout=2.0, **fields)
        await run.outcome
        assert run._task is not None


async def test_a_line_whose_turn_has_not_come_waits_for_it() -> None:
    async with bench(gap=0.0) as b:
        first, second = b.start("AT+CSQ"), b.start("AT+COPS?")
        assert (first._task is None, second._task is None) == (True, False)
        assert [outcome and outcome.end for outcome in (await first.outcome, await second.outcome)] == [End.OK] * 2
        assert b.seen == ["AT+CSQ", "AT+COPS?"]


async def test_a_line_within_the_gap_behind_another_waits_for_its_end() -> None:
    async with bench(gap=3.0) as b:
        await b.outcome()
        begin = asyncio.get_running_loop().time()
        run = b.start("AT+COPS?")
        assert run._task is not None
        await run.outcome
        assert asyncio.get_running_loop().time() - begin == pytest.approx(3.0, abs=0.1)


@pytest.mark.parametrize("ticks", range(6))
async def test_one_without_a_task_can_be_taken_back_at_any_moment(ticks: int) -> None:
    async with bench(gap=0.0) as b:
        b.module.faults.plant("+CSQ", Plant(seconds=0.0))
        run = b.start()
        for _ in range(ticks):
            await asyncio.sleep(0)
        run.give_up(Reason.IDLE)
        outcome = await run.outcome
        assert outcome is not None
        assert outcome.end in {End.CANCELLED, End.OK}
        await until(lambda: b.runner.running == 0)
        assert (await b.outcome("AT+COPS?")).lines == ('+COPS: 0,0,"vodafone IT"',)
        assert b.runner.ended[outcome.end] == (2 if outcome.end is End.OK else 1)


async def test_an_unexpected_prompt_is_left_by_a_task_that_takes_the_line_over() -> None:
    async with bench(gap=0.0) as b:
        b.module.faults.plant("+CSQ", Plant(lines=(), final="> "))
        run = b.start(timeout=5.0)
        begun = run._task
        outcome = await run.outcome
        assert (begun is None, run._task is None) == (True, False)
        assert outcome is not None
        assert outcome.end is not End.OK
        b.module.faults.clear()
        assert (await b.outcome("AT+COPS?")).end is End.OK


async def test_what_comes_behind_the_end_in_the_same_read_is_sorted_before_the_next_line_goes_out() -> None:
    async with bench(gap=0.0) as b:
        b.wire.garble = lambda data: data + b"\r\nOK\r\n" if data.endswith(b"\r\nOK\r\n") else data
        run = b.start("AT")
        went_on: list[bytes] = []
        run.watch(lambda: went_on.append(b"".join(b.wire.written)))
        await run.outcome
        b.wire.garble = lambda data: data
        b.wire.written.clear()
        assert (await b.outcome("AT+COPS?")).lines == ('+COPS: 0,0,"vodafone IT"',)
        assert b.wire.written[0] != b"AT+COPS?\r"  # a final result of nobody's: in step first
        assert went_on


async def test_the_records_of_lines_that_follow_at_once_are_in_their_order() -> None:
    async with bench(base="atrund/x/", gap=0.0) as b:
        following: list[Run] = []

        def follow() -> None:
            if not following and first.outcome.done():
                following.append(b.start("AT+COPS?"))

        first = b.start()
        first.watch(follow)
        await first.outcome
        await following[0].outcome
        assert following[0]._task is None
        await asyncio.sleep(1)
        topics = [topic for (topic,) in b.disk.rows("SELECT topic FROM outbox ORDER BY rowid")]
        assert topics == ["atrund/x/event/command", "atrund/x/event/response"] * 2


@pytest.mark.parametrize("where", ["before", "behind"])
async def test_one_who_listens_and_fails_takes_no_answer_away(where: str) -> None:
    async with bench(gap=0.0) as b:
        failed: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context["exception"]))

        def fail(_: tuple[str, ...]) -> None:
            raise ValueError("a fault of who listens")

        b.heard = fail
        ring = b"\r\nRING\r\n"
        b.wire.garble = lambda data: ring + data if where == "before" else data + ring
        outcome = await b.outcome(timeout=5.0)
        assert (outcome.end, outcome.lines) == (End.OK, ("+CSQ: 14,99",))
        await asyncio.sleep(0)
        assert failed


async def test_what_one_who_listens_asks_for_goes_out_behind_the_whole_read() -> None:
    async with bench(gap=0.0) as b:
        runs: list[Run] = []
        b.heard = lambda _: runs.append(b.start("AT+COPS?"))
        assert b.wire.end is not None
        b.wire.end.inject(b"\r\nRING\r\n\r\nERROR\r\n")
        await until(lambda: runs)
        outcome = await runs[0].outcome
        assert outcome is not None
        assert outcome.lines == ('+COPS: 0,0,"vodafone IT"',)


async def test_one_who_listens_and_closes_the_port_takes_no_answer_away() -> None:
    async with bench(gap=0.0) as b:
        channel = b.channel
        assert channel is not None
        b.heard = lambda _: channel.close()
        b.wire.garble = lambda data: data + b"\r\nRING\r\n"
        assert (await b.outcome()).end is End.OK


@EVERY_DOOR
@pytest.mark.parametrize("fault", ["decide", "frame"])
async def test_a_fault_of_the_daemons_own_ends_the_run_and_keeps_nothing(
    monkeypatch: pytest.MonkeyPatch, door: Door, fault: str
) -> None:
    async with bench(gap=0.0) as b:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)

        def fail(*_: object) -> None:
            raise ValueError("a fault")

        with monkeypatch.context() as patch:
            patch.setattr(steps, fault, fail)
            run = b.start(door=door)
            assert (await run.outcome) is not None
            await until(lambda: b.runner.running == 0)
        if run._task is not None:
            with pytest.raises(ValueError, match="a fault"):
                await run._task
        assert (await b.outcome("AT+COPS?")).end is End.OK


@pytest.mark.parametrize("early", [-2e-6, -1e-6, -1e-9, 0.0, 1e-9, 1e-6, 2e-6])
async def test_an_answer_in_the_moment_of_the_deadline_is_its_own_or_nobodys(early: float) -> None:
    async with bench(gap=0.0) as b:
        b.module.faults.plant("+CSQ", Plant(seconds=2.0))
        assert (await b.outcome(timeout=2.0 + early)).end in {End.OK, End.TIMEOUT}
        assert b.seen.count("AT+CSQ") == 1
        b.module.faults.clear()
        assert (await b.outcome("AT+COPS?")).lines == ('+COPS: 0,0,"vodafone IT"',)


async def test_a_port_that_is_lost_while_a_line_is_written_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with bench(gap=0.0) as b:
        end, channel = b.wire.end, b.channel
        assert end is not None
        assert channel is not None
        monkeypatch.setattr(end, "write", lambda _: end.lose("full"))
        outcome = await b.outcome()
        assert (outcome.end, outcome.reason) == (End.LOST, Reason.PORT_DOWN)
        assert channel.load == 0
        await b.plug_in()
        assert (await b.outcome("AT+COPS?")).end is End.OK


async def test_each_that_takes_long_says_so_once(capsys: pytest.CaptureFixture[str]) -> None:
    async with bench(gap=0.0) as b:
        b.module.faults.plant("+CSQ", Plant(seconds=100))
        runs = [b.start()]
        await asyncio.sleep(10)
        runs.append(b.start("AT+COPS?"))
        for run in runs:
            await run.outcome
        said = capsys.readouterr().out
        assert said.count("command not done yet") == 2


# After a restart.


def known(bench: Bench, state: str, line: str = "AT+CSQ") -> Known:
    request = bench.request(line, Door.SMS)
    bench.disk.rows("SELECT 1")
    tables.record(request, 0.0)(bench.disk.store.connection)
    if state == tables.SENT:
        tables.mark_sent(request.rid)(bench.disk.store.connection)
    found: Known = tables.known_by_key(Door.SMS, request.key)(bench.disk.store.connection)
    return found


async def test_recorded_and_not_sent_it_is_run_once() -> None:
    async with bench() as b:
        run = b.runner.resume(known(b, tables.RECORDED))
        outcome = await run.outcome
        assert outcome is not None
        assert outcome.end is End.OK
        assert (b.seen, b.states()) == (["AT+CSQ"], [("ended", "ok")])


async def test_it_waits_for_a_module_that_is_not_there_yet() -> None:
    async with bench(plugged=False) as b:
        run = b.runner.resume(known(b, tables.RECORDED))
        await asyncio.sleep(120)
        await b.plug_in()
        outcome = await run.outcome
        assert outcome is not None
        assert outcome.end is End.OK


async def test_a_module_that_stays_away_is_waited_for_no_longer_than_any_turn() -> None:
    async with bench(plugged=False) as b:
        outcome = await b.runner.resume(known(b, tables.RECORDED)).outcome
        assert outcome is not None
        assert outcome.reason is Reason.PORT_DOWN
        assert asyncio.get_running_loop().time() == pytest.approx(600, abs=1)


async def test_sent_it_is_lost_and_never_run_again() -> None:
    async with bench() as b:
        outcome = await b.runner.resume(known(b, tables.SENT)).outcome
        assert outcome is not None
        assert outcome.end is End.LOST
        assert (b.seen, b.states()) == ([], [("ended", "lost")])


async def test_the_rules_are_asked_anew() -> None:
    async with bench() as b:
        outcome = await b.runner.resume(known(b, tables.RECORDED, "AT+CFUN=4")).outcome
        assert outcome is not None
        assert outcome.reason is Reason.POLICY
        assert (b.seen, b.states()) == ([], [("ended", "rejected")])


# Slow askers.


async def test_a_slow_asker_costs_the_port_no_time_and_no_memory_past_the_caps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run_room, "STREAM_MAX", 10)
    monkeypatch.setattr(steps, "ANSWER_MAX", 200)
    async with bench() as b:
        b.module.faults.plant("#CSURV", Plant(lines=tuple(f"row {number:05}" for number in range(500)), final="OK"))
        run = b.start("AT#CSURV")
        outcome = await run.outcome
        assert outcome is not None
        assert (outcome.end, outcome.truncated) == (End.OK, True)
        assert len(outcome.lines) == 200 // 9
        assert len([line async for line in run.lines()]) == 10
        assert (await b.outcome("AT+COPS?")).end is End.OK


@pytest.mark.parametrize("which", ["accepted", "outcome"])
async def test_an_asker_that_went_away_while_it_waited_ends_nothing(which: str) -> None:
    async with bench() as b:
        run = b.start("AT+CSQ", Door.MQTT)
        waiting: Callable[[], object] = getattr(run, which).cancel
        waiting()
        await asyncio.sleep(5)
        assert b.states() == [("ended", "ok")]
        assert b.runner.running == 0
