# SPDX-License-Identifier: Apache-2.0
"""The outbox over a connection of the test's own, one after the other, whatever becomes of them (MQ-4)."""

import asyncio
import contextlib
import itertools
import json
import sqlite3
import tracemalloc
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from atrund import records
from atrund.atrun.request import Door, End, Request
from atrund.broker import outbox as room
from atrund.broker.connection import WINDOW
from atrund.broker.outbox import LOSSES_MAX, READ_AGAIN, TAKEN_OUT_AFTER, TRY_AGAIN_AFTER, Outbox
from atrund.ledger import Ledger, StorageError, outbox, tables
from atrund.ledger.writer import Job
from tests.support.desk import desk
from tests.support.virtual import AtOnce

pytestmark = pytest.mark.looptime

Settled = Callable[[int, str | None], None]


class Line:
    """A connection as the outbox knows it. `answers`: what the broker says of a topic at once, None for nothing."""

    def __init__(self, answers: Callable[[str], str | None] = lambda _: "") -> None:
        self.answers = answers
        self.sent: list[tuple[int, str]] = []
        self.texts: list[str] = []
        self.extra: list[Mapping[str, str]] = []
        self.most = 0
        """Rows that were ever in flight at once."""
        self._waiting: dict[int, tuple[str, Settled]] = {}
        self._moved = asyncio.Event()

    @property
    def in_flight(self) -> tuple[int, ...]:
        return tuple(self._waiting)

    @property
    def topics(self) -> list[str]:
        return [topic for _, topic in self.sent]

    @property
    def numbers(self) -> list[int]:
        return [seq for seq, _ in self.sent]

    async def room(self, window: int) -> None:
        while len(self._waiting) >= window:
            self._moved.clear()
            await self._moved.wait()

    def publish(
        self, topic: str, payload: str, extra: Mapping[str, str], *, retain: bool, row: int, then: Settled
    ) -> None:
        assert not retain
        self.extra.append(extra)
        if "#" in topic:
            raise ValueError("a topic with a wildcard")
        self.sent.append((row, topic))
        self.texts.append(payload)
        self._waiting[row] = topic, then
        self.most = max(self.most, len(self._waiting))
        if (answer := self.answers(topic)) is not None:
            asyncio.get_running_loop().call_soon(self.settle, row, answer)

    def settle(self, seq: int, refused: str = "") -> None:
        """Acknowledge a row, or refuse it."""
        _, then = self._waiting.pop(seq)
        self._moved.set()
        then(seq, refused or None)


class Scene:
    """One daemon's outbox, its disk, and the connections that it had."""

    def __init__(self, disk: AtOnce) -> None:
        self.disk = disk
        self.ledger = Ledger(disk)
        self.outbox = Outbox(self.ledger)
        self.lines: list[Line] = []

    def post(self, *topics: str, response: bool = False, **given: Any) -> None:  # noqa: ANN401 - any of them
        for topic in topics:
            self.ledger.behind(outbox.post(response=response, topic=topic, payload='{"v":1}', **given))

    @property
    def waiting(self) -> list[str]:
        found = outbox.after(0)(self.disk.store.connection)
        return [row.topic for row in found]

    @property
    def aside(self) -> list[tuple[str, int, str]]:
        return [tuple(row) for row in self.disk.rows("SELECT topic, tries, why FROM aside ORDER BY seq")]

    @contextlib.asynccontextmanager
    async def connected(self, line: Line | None = None) -> AsyncIterator[Line]:
        """A connection, and its end."""
        line = line or Line()
        self.lines.append(line)
        task = asyncio.get_running_loop().create_task(self.outbox.drain(line))  # type: ignore[arg-type]
        try:
            yield line
        finally:
            assert not task.done()
            task.cancel()
            await asyncio.wait({task})
            self.outbox.lost(line.in_flight)


def opened(disk: AtOnce | None = None) -> Scene:
    return Scene(disk or AtOnce())


async def a_while(seconds: float = TAKEN_OUT_AFTER + 0.1) -> None:
    await asyncio.sleep(seconds)


async def test_a_row_leaves_only_when_it_was_acknowledged_on_its_connection() -> None:
    it = opened()
    async with it.connected(Line(lambda topic: None if topic == "one" else "")):
        it.post("one", "two")
        await a_while()
        assert it.waiting == ["one"]
    async with it.connected() as again:
        await a_while()
        assert again.sent == [(1, "one")]
    assert it.waiting == []


async def test_a_record_is_sent_with_its_number() -> None:
    it = opened()
    it.ledger.behind(outbox.post(response=False, topic="t", payload='{"v":1,"x":"é"}'))
    it.ledger.behind(outbox.post(response=False, topic="t", payload="{}", extra={"correlation": "00"}))
    async with it.connected() as line:
        await a_while()
    assert list(map(json.loads, line.texts)) == [{"seq": 1, "v": 1, "x": "é"}, {"seq": 2}]
    assert line.extra == [{}, {"correlation": "00"}]


async def test_no_more_are_in_flight_than_the_window_holds_and_order_is_kept() -> None:
    it = opened()
    it.post(*(f"{n}" for n in range(3 * outbox.READ_MAX)))
    async with it.connected(Line(lambda _: None)) as line:
        await a_while()
        assert line.topics == [f"{n}" for n in range(WINDOW)]
        line.settle(WINDOW)  # whichever it is
        await a_while()
        assert line.topics == [f"{n}" for n in range(WINDOW + 1)]
    async with it.connected() as line:
        await a_while()
        assert (line.most, line.numbers) == (WINDOW, sorted(line.numbers))
        assert line.topics == [f"{n}" for n in range(3 * outbox.READ_MAX) if n != WINDOW - 1]
    assert it.waiting == []


async def test_what_is_posted_while_it_sends_comes_behind() -> None:
    it = opened()
    async with it.connected() as line:
        for number in range(50):
            it.post(f"{number}")
            await asyncio.sleep(0)
        await a_while()
    assert line.topics == [f"{n}" for n in range(50)]


async def test_acknowledged_rows_are_taken_out_together_or_with_whatever_is_written() -> None:
    """Each transaction of its own would write the same pages again."""
    it = opened()
    it.post(*(f"{n}" for n in range(10)))
    async with it.connected(Line(lambda _: None)) as line:
        await a_while()
        jobs = len(it.disk.jobs)
        for seq in range(1, 6):
            line.settle(seq)
            await asyncio.sleep(TAKEN_OUT_AFTER / 10)
        assert (len(it.disk.jobs), len(it.waiting)) == (jobs, 10)
        await a_while()
        assert (len(it.disk.jobs), len(it.waiting)) == (jobs + 1, 5)
        line.settle(6)
        it.post("next")
        await asyncio.sleep(0.01)
        assert it.waiting == ["6", "7", "8", "9", "next"]
        jobs = len(it.disk.jobs)
        await a_while()
        assert len(it.disk.jobs) == jobs, "nothing is left to be taken out"


async def test_acknowledged_rows_that_wait_have_a_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "TAKEN_OUT_MAX", 3)
    it = opened()
    it.post(*(f"{n}" for n in range(9)))
    async with it.connected():
        await asyncio.sleep(TAKEN_OUT_AFTER / 2)
        assert it.waiting == []


async def test_a_connection_that_is_lost_takes_along_what_it_acknowledged() -> None:
    it = opened()
    it.post("one", "two")
    async with it.connected(Line(lambda topic: "" if topic == "one" else None)):
        await asyncio.sleep(TAKEN_OUT_AFTER / 2)
    assert it.waiting == ["two"]


# What can't be sent


async def test_a_record_that_the_broker_refuses_is_set_aside_and_said() -> None:
    it = opened()
    with capture_logs() as logs:
        async with it.connected(Line(lambda topic: "Not authorized" if topic == "secret" else "")) as line:
            it.post("one", "secret", "two", "secret", "three")
            await a_while()
            assert line.topics == ["one", "secret", "two", "secret", "three"]
        async with it.connected() as again:
            await a_while()
            assert again.sent == []
    assert it.waiting == []
    why = "refused by the broker: Not authorized"
    assert it.aside == [("secret", 1, why)] * 2
    said = [(entry["event"], entry["seq"], entry["detail"]) for entry in logs if entry["log_level"] == "error"]
    assert said == [("record set aside", 2, why)], "once for a topic that is refused all day"


async def test_each_answer_says_under_its_requests_id_what_became_of_it() -> None:
    """The mirror says nothing; an answer to two topics is two messages; an asker's words are no id."""
    it = opened()

    def post(rid: str, topic: str, *, response: bool = True) -> None:
        payload = records.to_json({"v": 1, "id": '","rid":"forged"', "rid": rid})
        it.ledger.behind(outbox.post(response=response, topic=topic, payload=payload))

    def told(logs: Sequence[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
        fields = ("event", "id", "door", "topic", "detail")
        return [tuple(entry.get(name) for name in fields) for entry in logs if entry["event"].startswith("answer")]

    with capture_logs() as logs:
        async with it.connected(Line(lambda topic: "Not authorized" if topic == "secret" else "")):
            post("r1", "event/response", response=False)
            post("r1", "at/response")
            post("r1", "reply")
            it.post("sms/received", response=True)
            for _ in range(2):
                post("r2", "secret")
            post("r3", "a/#")
            await a_while()
    assert told(logs) == [
        ("answer not published", "r3", "mqtt", "a/#", "a topic with a wildcard"),
        ("answer published", "r1", "mqtt", "at/response", None),
        ("answer published", "r1", "mqtt", "reply", None),
        *[("answer not published", "r2", "mqtt", "secret", "refused by the broker: Not authorized")] * 2,
    ], "each of them, though the topic's refusal is said once"
    with capture_logs() as logs:
        post("r4", "at/response")
        for _ in range(LOSSES_MAX):
            async with it.connected(Line(lambda _: None)):
                await a_while()
    why = f"in flight at {LOSSES_MAX} lost connections running"
    assert told(logs) == [("answer not published", "r4", "mqtt", None, why)]


async def test_what_was_refused_is_tried_again_at_the_next_starts(tmp_path: Path) -> None:
    """Somebody may have mended the broker's access control; and if nobody ever does, it comes to an end."""
    refused = {"bad", "worse"}
    sent: list[list[str]] = []
    for start in range(outbox.TRIES_MAX + 2):
        it = opened(AtOnce(tmp_path / "ledger.db"))
        if not start:
            it.post("bad", "worse", response=True)
        elif start == 2:
            refused.remove("bad")
        line = Line(lambda topic: "Not authorized" if topic in refused else "")
        async with it.connected(line):
            await a_while()
        sent.append(line.topics)
        if start == 1:
            assert [tries for _, tries, _ in it.aside] == [2, 2]
        await it.ledger.close()
    assert sent == [["bad", "worse"]] * 3 + [[], []]
    assert it.disk.missed == 0


async def test_what_was_set_aside_is_tried_again_with_a_much_later_connection() -> None:
    """A line that is bad for a while is no fault of the record."""
    it = opened()
    it.post("one", response=True)
    for _ in range(LOSSES_MAX):
        async with it.connected(Line(lambda _: None)):
            await a_while()
    assert [topic for topic, _, _ in it.aside] == ["one"]
    for sent in ([], ["one"]):
        async with it.connected() as line:
            await a_while(TRY_AGAIN_AFTER)
            assert line.topics == sent
    assert (it.waiting, it.aside) == ([], [])


async def test_a_record_that_costs_connections_is_set_aside_and_takes_nobody_along() -> None:
    it = opened()
    it.post(*(f"{n}" for n in range(30)), "poison", *(f"{n}" for n in range(30, 60)))
    with capture_logs() as logs:
        for _ in range(LOSSES_MAX):
            async with it.connected(Line(lambda topic: None if topic == "poison" else "")) as line:
                await a_while()
                assert "poison" in line.topics
        async with it.connected() as line:
            await a_while()
            assert "poison" not in line.topics
    assert it.waiting == []
    assert it.aside == [("poison", 1, f"in flight at {LOSSES_MAX} lost connections running")]
    assert [entry["seq"] for entry in logs if entry["log_level"] == "error"] == [31]
    once = {topic for line in it.lines for topic in line.topics}
    assert once == {"poison", *(f"{n}" for n in range(60))}


async def test_losses_without_a_culprit_set_nothing_aside() -> None:
    """A bad line that breaks again and again, each time a little further on."""
    it = opened()
    it.post(*(f"{n}" for n in range(8)))
    for number in range(8):
        async with it.connected(Line(lambda topic, last=number: "" if int(topic) < last else None)):  # type: ignore[misc]
            await a_while()
    async with it.connected():
        await a_while()
    assert (it.waiting, it.aside) == ([], [])


async def test_a_record_that_cannot_be_sent_at_all_is_set_aside() -> None:
    it = opened()
    it.post("a/#", "good")
    async with it.connected() as line:
        await a_while()
        assert line.topics == ["good"]
    assert it.aside == [("a/#", 1, "a topic with a wildcard")]


async def test_one_that_the_disk_does_not_let_go_of_is_not_sent_again_all_the_same() -> None:
    it = opened()
    it.post("a/#", "good")
    it.disk.after = lambda: setattr(it.disk, "broken", "disk full" if len(it.disk.jobs) >= 6 else "")
    async with it.connected() as line:
        await a_while()
        assert line.topics == ["good"]
    it.disk.after, it.disk.broken = lambda: None, ""
    async with it.connected() as line:
        await a_while()
        assert "a/#" not in line.topics


# Numbers


async def test_the_disk_is_synced_once_for_a_block_of_numbers() -> None:
    it = opened()
    async with it.connected() as line:
        for _ in range(3):
            it.post(*["t"] * (outbox.BLOCK // 2))
            await a_while()
    assert line.numbers == [*range(1, 3 * outbox.BLOCK // 2 + 1)]
    assert sum(job.synced for job in it.disk.jobs) == 2


async def test_numbers_that_the_disk_does_not_sync_hold_back_no_record() -> None:
    it = opened()
    it.post("one")

    class Unsynced(AtOnce):
        def submit(self, job: Job) -> None:
            if job.synced and job.future is not None:
                job.future.set_exception(StorageError("disk full"))
            else:
                it.disk.submit(job)

    it.ledger._writer = Unsynced()
    with capture_logs() as logs:
        async with it.connected() as line:
            await a_while()
            assert line.topics == ["one"]
    assert [entry["event"] for entry in logs] == ["numbers of records not synced"]


async def test_others_have_their_turn_while_much_is_sent() -> None:
    it = opened()
    it.post(*["t"] * 1000)
    before: list[int] = []
    async with it.connected() as line:
        while it.waiting:
            before.append(len(line.sent))
            await asyncio.sleep(0)
            if len(line.sent) == 1000:
                await a_while()
    assert max(later - earlier for earlier, later in itertools.pairwise(before)) <= WINDOW


async def test_both_kinds_go_in_one_order() -> None:
    it = opened()
    for number in range(20):
        it.post(f"{number}", response=number % 3 == 0, memory=True)
    async with it.connected() as line:
        await a_while()
    assert (line.topics, line.numbers) == ([f"{n}" for n in range(20)], [*range(1, 21)])
    assert it.waiting == []


# The end


async def test_what_waits_goes_out_before_the_end() -> None:
    it = opened()
    async with it.connected() as line:
        it.post(*(f"{n}" for n in range(3 * WINDOW)))
        await it.outbox.flush(line)  # type: ignore[arg-type]
        assert len(line.topics) == 3 * WINDOW
        assert it.waiting == []


# Disks that refuse


async def test_an_outbox_that_cannot_be_read_is_looked_at_again() -> None:
    it = opened()
    it.post("one")
    it.disk.broken = "disk I/O error"
    with capture_logs() as logs:
        async with it.connected() as line:
            await asyncio.sleep(READ_AGAIN / 2)
            it.disk.broken = ""
            await asyncio.sleep(READ_AGAIN)
            assert line.topics == ["one"]
    assert [entry["event"] for entry in logs] == ["outbox not read"]


async def test_a_disk_that_becomes_read_only_is_read(tmp_path: Path) -> None:
    """What waits is sent, once; it can't be taken out before the disk is written again."""
    it = opened(AtOnce(tmp_path / "ledger.db"))
    async with it.connected():
        it.post("first")
        await a_while()
    it.post("one", "two")
    real = it.disk.store.connection
    it.disk.store.connection = _ReadOnly(real)  # type: ignore[assignment]
    for sent in ([(2, "one"), (3, "two")], []):
        async with it.connected() as line:
            await a_while()
            it.post("never")
            await a_while(READ_AGAIN)
            assert line.sent == sent
    assert it.disk.missed
    assert it.waiting == ["one", "two"]
    it.disk.store.connection = real
    async with it.connected() as line:
        it.post("three")
        await a_while(READ_AGAIN)
        assert line.sent == [(4, "three")]
    assert it.waiting == []


async def test_what_a_disk_does_not_let_go_of_is_remembered_to_a_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "REMEMBERED_MAX", 3)
    it = opened()
    it.post(*"abcde")
    real = it.disk.store.connection
    it.disk.store.connection = _ReadOnly(real)  # type: ignore[assignment]
    async with it.connected():
        await a_while()
    async with it.connected() as line:
        await a_while()
        assert line.topics == ["a", "b"]
    it.disk.store.connection = real
    async with it.connected():
        await a_while(READ_AGAIN)
    assert it.waiting == []


# Crashes


async def test_killed_at_every_step_nothing_durable_is_lost_and_no_number_stands_for_two(tmp_path: Path) -> None:
    """Before each job for the disk, until there is none left to be killed before."""
    for step in range(200):
        path = tmp_path / f"{step}.db"
        told, seen, ran_out = await _lives(path, step)
        assert told <= {topic for _, topic in seen}, "a durable record came out"
        assert len({seq for seq, _ in seen}) == len(set(seen)), "one number, one record"
        first = list(dict.fromkeys(seq for seq, topic in seen if topic in told))
        assert first == sorted(first), "in order, repetitions aside"
        if ran_out:
            break
    assert ran_out
    assert step > 20


async def _lives(path: Path, step: int) -> tuple[set[str], list[tuple[int, str]], bool]:
    """Two lives of a daemon, the first killed before its `step`th job; what was promised, and what was sent."""
    promised: set[str] = set()
    seen: list[tuple[int, str]] = []
    ran_out = True
    for life in range(2):
        disk = AtOnce(path)
        if not life:

            def dies(disk: AtOnce = disk) -> None:
                if len(disk.jobs) > step:
                    disk.broken = "killed"

            disk.after = dies
        it = opened(disk)
        with capture_logs():
            async with it.connected() as line:
                for number in range(6):
                    name = f"{life}-{number}"
                    it.post(f"{name} accepted", memory=number % 2 == 1)
                    with contextlib.suppress(StorageError):
                        await it.ledger.durable(
                            outbox.post(response=True, topic=name, payload='{"v":1}'),
                            outbox.post(response=False, topic=f"{name} ended", payload='{"v":1}'),
                        )
                        promised |= {name, f"{name} ended"}
                    await asyncio.sleep(0.3)
                await a_while(READ_AGAIN + 1)
            seen += line.sent
        if disk.broken:
            ran_out = False
            disk.store.connection.close()
        else:
            assert it.waiting == []
            await it.ledger.close()
    return promised, seen, ran_out


async def test_a_day_without_a_broker(tmp_path: Path) -> None:
    """MQ-4, MQ-5: caps hold all day; then it is drained in order, a little at a time, behind the answers of before."""
    it = opened(AtOnce(tmp_path / "ledger.db"))
    records, octets = 5000, 2_000_000
    payload = '{"v":1,"x":"' + "x" * 300 + '"}'
    for minute in range(24 * 60):
        await asyncio.sleep(60)
        writes = [outbox.post(response=False, topic="event", payload=payload, records=records, octets=octets)] * 8
        if minute % 60 == 0:
            writes.append(outbox.post(response=True, topic="answer", payload=payload, records=records, octets=octets))
        it.ledger.behind(*writes)
        if minute % 100 == 0:
            found = outbox.waiting()(it.disk.store.connection)
            assert found["outbox"] <= records
            assert found["spool_bytes"] <= octets
    assert asyncio.get_running_loop().time() >= 86400
    counts = tables.counts()(it.disk.store.connection)
    assert counts["dropped"] + counts["outbox"] == 24 * 60 * 8 + 24
    assert counts["outbox"] > 0.9 * records
    it.disk.after = it.disk.jobs.clear
    it.disk.after()
    tracemalloc.start()
    async with it.connected() as line:
        line.texts = _Forgetful()
        await a_while()
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert it.waiting == []
        assert line.topics.count("answer") == 24
        assert line.numbers == sorted(line.numbers)
        assert len(line.sent) == counts["outbox"]
    assert most < 1_500_000, "a window, and what the test keeps"


# Askers that are faster than the broker takes their answers


async def test_a_flood_of_requests_whose_answers_nobody_takes_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """MQ-5: past the caps a request is refused, past the outbox; so is none of another door, and nothing grows on."""
    monkeypatch.setattr(outbox, "OVER_RECORDS", 4)
    async with desk() as it:
        for mirror in (it.door._mirror, it.house.daemon._mirror):
            mirror._records = 5
        for number in range(30):
            it.bring(json.dumps({"id": f"r{number}", "cmd": "AT#CGMI"}))
            await asyncio.sleep(1)
        assert it.ran("AT#CGMI") == len([answer for answer in it.answers if answer["state"] == "ok"]) == 5
        assert len(it.acknowledged) == 30
        assert len(it.answers) == 5, "each hears of it once"
        refused = [payload for _, payload, _ in it.past.published]
        assert [payload["id"] for payload in refused] == [f"r{number}" for number in range(5, 30)]
        assert {(payload["state"], payload["reason"]) for payload in refused} == {("rejected", "storage")}
        for _ in range(20):
            it.bring(json.dumps({"id": "r0", "cmd": "AT#CGMI"}))  # asked again, it is answered from the record
        await asyncio.sleep(1)
        assert len(it.answers) == 5 + 4
        assert len(it.past.published) == 25
        run = it.house.daemon.runner.start(Request(rid="local", door=Door.LOCAL, peer="", line="AT#CGMI"))
        outcome = await run.outcome
        assert outcome is not None
        assert outcome.end is End.OK
        outbox.posted(range(1000))(it.house.disk.store.connection)  # the broker takes them at last
        assert (await it.ask({"id": "r31", "cmd": "AT#CGMI"}))["state"] == "ok"


async def test_a_request_that_wants_no_answer_needs_no_room() -> None:
    async with desk() as it:
        it.house.daemon._mirror._records = 0
        it.bring(json.dumps({"id": "a", "cmd": "AT#CGMI", "reply": False}))
        it.bring(json.dumps({"id": "b", "cmd": "AT#CGMI"}))
        await asyncio.sleep(1)
        assert it.ran("AT#CGMI") == 1


class _ReadOnly:
    """As SQLite on a disk that the kernel made read-only beneath it: what was open is read on, and nothing written."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:  # noqa: ANN401 - sqlite3's own
        if sql.startswith(("INSERT", "UPDATE", "DELETE")):
            raise sqlite3.OperationalError("disk I/O error")
        return self._connection.execute(sql, *values)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - as above
        return getattr(self._connection, name)


class _Forgetful(list[str]):
    def append(self, text: str) -> None:
        del text
