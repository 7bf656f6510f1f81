# SPDX-License-Identifier: Apache-2.0
"""The MQTT door in virtual time, with no broker: what it makes of a message, and what it owes the broker."""

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from atrund.atrun.request import Door, Request
from atrund.doors import asking
from atrund.doors import mqtt as room
from atrund.ledger import tables
from atrund.sim.faults import Plant
from tests.support.desk import BASE, RULES, desk
from tests.support.virtual import AtOnce, crash

pytestmark = pytest.mark.looptime


async def test_a_request_is_answered_and_acknowledged() -> None:
    async with desk() as it:
        answer = await it.ask({"id": "a", "cmd": "AT#CGMI"})
        assert (answer["id"], answer["state"], answer["lines"]) == ("a", "ok", ["#CGMI: Telit"])
        assert len(it.acknowledged) == 1


async def test_it_is_acknowledged_when_it_is_recorded_and_not_before() -> None:
    """The rule of the file: a crash before the record leaves it at the broker."""
    async with desk() as it:
        it.house.module.faults.plant("AT#CGMI", Plant(seconds=10))
        message = it.bring('{"id":"a","cmd":"AT#CGMI"}')
        assert it.acknowledged == []
        await asyncio.sleep(1)
        assert it.acknowledged == [message]
        assert it.house.disk.rows("SELECT state FROM requests") == [("sent",)]


@contextlib.asynccontextmanager
async def disk_that_hangs_behind_one_job(disk: AtOnce) -> AsyncIterator[None]:
    """Let the next job through, and those behind it when the context ends."""
    disk.after = lambda: setattr(disk, "hung", True)
    done = len(disk.jobs) + 1
    yield
    disk.hung, disk.after = False, lambda: None
    for job in disk.jobs[done:]:
        disk.store.apply([job])


async def test_one_that_is_refused_at_once_keeps_its_place_at_the_broker_until_that_is_recorded() -> None:
    """REQ-3: the broker's window is the bound; else a flood of refusals would pile up here, and starve all doors."""
    async with desk() as it:
        it.house.module.faults.plant("+COPS?", Plant(1, seconds=60))
        for number in range(33):
            it.bring(json.dumps({"id": f"r{number}", "cmd": "AT+COPS?"}))
        await asyncio.sleep(1)
        assert len(it.acknowledged) == 33, "what runs and what waits is acknowledged when it is recorded"
        async with disk_that_hangs_behind_one_job(it.house.disk):
            one_more = it.bring('{"id":"one more","cmd":"AT+COPS?"}')
            await asyncio.sleep(1)
            assert one_more not in it.acknowledged
        await asyncio.sleep(1)
        assert one_more in it.acknowledged
        assert [(answer["id"], answer["reason"]) for answer in it.answers] == [("one more", "queue_full")]


async def test_of_many_that_wait_for_no_turn_some_keep_their_place_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "UNFINISHED_MAX", 2)
    async with desk() as it:
        it.house.module.faults.plant("+COPS?", Plant(1, seconds=60))
        it.bring('{"id":"a","cmd":"AT+COPS?"}')
        it.bring('{"id":"b","cmd":"AT+COPS?"}')
        await asyncio.sleep(1)
        assert len(it.acknowledged) == 2
        async with disk_that_hangs_behind_one_job(it.house.disk):
            own = it.bring('{"id":"c","cmd":"AT#SMSATRUN?"}')
            await asyncio.sleep(1)
            assert own not in it.acknowledged
        await asyncio.sleep(1)
        assert own in it.acknowledged
        assert [(answer["id"], answer["lines"]) for answer in it.answers] == [("c", ["#SMSATRUN: 0"])]


async def test_a_disk_that_takes_nothing() -> None:
    """REQ-12: said past the outbox, with all that the asker knows its answer by; nothing is run."""
    async with desk() as it:
        it.house.disk.broken = "disk full"
        it.bring('{"id":"a","cmd":"AT+CIMI"}', correlation=b"c-1", response_topic=BASE + "reply/x")
        await asyncio.sleep(1)
        assert [(topic, extra) for topic, _, extra in it.past.published] == [
            (BASE + "at/response", {"door": "mqtt", "state": "rejected", "correlation": b"c-1".hex()}),
            (BASE + "reply/x", {"door": "mqtt", "state": "rejected", "correlation": b"c-1".hex()}),
        ]
        assert {payload["reason"] for _, payload, _ in it.past.published} == {"storage"}
        assert len(it.acknowledged) == 1
        assert it.ran("AT+CIMI") == 0
        it.house.disk.broken = ""


async def test_whatever_the_reason_a_disk_that_takes_nothing_leaves_nobody_unanswered() -> None:
    """REQ-12: what policy forbids is refused past the outbox, too."""
    async with desk() as it:
        it.house.disk.broken = "disk full"
        it.bring('{"id":"a","cmd":"AT#SHDN"}')
        await asyncio.sleep(1)
        assert [(payload["id"], payload["reason"]) for _, payload, _ in it.past.published] == [("a", "policy")]
        assert len(it.acknowledged) == 1
        it.house.disk.broken = ""
        await asyncio.sleep(60)
        assert it.answers == []


async def test_one_that_was_acknowledged_and_can_be_sent_no_more_is_refused_once_and_for_good(tmp_path: Path) -> None:
    """REQ-9, REQ-12: nobody hears of the refusal before the disk has it, and then it is never run."""
    disk = AtOnce(tmp_path / "ledger.db")
    async with desk(disk=disk) as it:
        it.house.module.faults.plant("AT#CGMI", Plant(seconds=10))
        it.bring('{"id":"long","cmd":"AT#CGMI"}')
        it.bring('{"id":"a","cmd":"AT+CIMI"}')
        await asyncio.sleep(1)
        disk.broken = "disk full"
        await asyncio.sleep(60)
        assert (it.answers, it.past.published, it.ran("AT+CIMI")) == ([], [], 0)
        disk.broken = ""
        again = await it.ask({"id": "a", "cmd": "AT+CIMI"})
        assert {answer["id"]: (answer["state"], answer["reason"]) for answer in it.answers} == {
            "long": ("ok", None),
            "a": ("rejected", "storage"),
        }
        assert again["rid"] in {answer["rid"] for answer in it.answers}
        await asyncio.sleep(60)
        assert (it.ran("AT#CGMI"), it.ran("AT+CIMI")) == (1, 0)
    async with desk(disk=AtOnce(tmp_path / "ledger.db")) as it:
        await asyncio.sleep(60)
        assert it.ran("AT+CIMI") == 0


@pytest.mark.parametrize("settled", [True, False])
async def test_killed_while_a_refusal_is_owed_the_asker_hears_one_outcome(tmp_path: Path, *, settled: bool) -> None:
    disk = AtOnce(tmp_path / "ledger.db")
    with contextlib.suppress(asyncio.CancelledError):
        async with desk(disk=disk) as it:
            it.house.module.faults.plant("AT#CGMI", Plant(seconds=10))
            it.bring('{"id":"long","cmd":"AT#CGMI"}')
            it.bring('{"id":"a","cmd":"AT+CIMI"}')
            await asyncio.sleep(1)
            disk.broken = "disk full"
            await asyncio.sleep(60)
            if settled:
                disk.broken = ""
                await asyncio.sleep(6)
            told = {answer["id"]: answer["state"] for answer in it.answers}
            assert told == ({"long": "ok", "a": "rejected"} if settled else {})
            await crash(it.house.daemon)
            disk.broken = ""
    async with desk(disk=AtOnce(tmp_path / "ledger.db")) as it:
        await asyncio.sleep(60)
        states = {(answer["id"], answer["state"]) for answer in it.answers}
        assert states == ({("long", "ok"), ("a", "rejected")} if settled else {("long", "lost"), ("a", "ok")})
        assert it.ran("AT+CIMI") == (not settled)
        assert it.ran("AT#CGMI") == 0


async def test_what_a_restart_interrupted_is_taken_up_when_the_ledger_can_be_read(tmp_path: Path) -> None:
    disk = AtOnce(tmp_path / "ledger.db")
    asked = Request(rid="r", door=Door.MQTT, peer="who", line="AT+CIMI", key="who\0a", context={"id": "a"})
    tables.record(asked, 0.0)(disk.store.connection)
    async with desk(disk=disk, take_up=False) as it:
        disk.broken = "disk I/O error"
        await it.door.take_up()
        it.bring('{"id":"b","cmd":"AT+CIMI"}')
        await asyncio.sleep(30)
        assert it.ran("AT+CIMI") == 0
        assert [(payload["id"], payload["reason"]) for _, payload, _ in it.past.published] == [("b", "storage")]
        assert len(it.acknowledged) == 1
        disk.broken = ""
        await asyncio.sleep(30)
        assert [(answer["id"], answer["state"]) for answer in it.answers] == [("a", "ok")]
        assert it.ran("AT+CIMI") == 1


async def test_what_is_asked_before_a_restart_was_looked_at_is_run_once() -> None:
    async with desk(take_up=False) as it:
        it.house.module.faults.plant("AT#CGMI", Plant(seconds=10))
        it.bring('{"id":"a","cmd":"AT#CGMI"}')
        await asyncio.sleep(1)
        await it.door.take_up()
        await asyncio.sleep(60)
        assert [(answer["id"], answer["state"]) for answer in it.answers] == [("a", "ok")]
        assert it.ran("AT#CGMI") == 1


async def test_correlation_data_of_any_kind() -> None:
    async with desk() as it:
        for given, shown in ((b"text-1", "text-1"), (b"\x00\xff", "00ff"), (b"x" * 256, "x" * 256)):
            answer = await it.ask("AT", correlation=given, response_topic="answers/mine")
            assert answer["id"] == shown
        rows = it.outbox("answers/mine")
        assert [extra for _, _, extra in rows] == [
            {"door": "mqtt", "state": "ok", "correlation": data} for data in (b"text-1".hex(), "00ff", "78" * 256)
        ]


async def test_correlation_data_without_bound() -> None:
    async with desk() as it:
        answer = await it.ask({"id": "a", "cmd": "AT+CIMI"}, correlation=b"x" * 257)
        assert (answer["id"], answer["reason"]) == ("a", "bad_request")
        assert it.ran("AT+CIMI") == 0


async def test_a_request_is_known_by_its_correlation_data_first() -> None:
    async with desk() as it:
        first = await it.ask({"id": "a", "cmd": "AT+CIMI"}, correlation=b"one")
        again = await it.ask({"id": "b", "cmd": "AT+CIMI"}, correlation=b"one")
        other = await it.ask({"id": "a", "cmd": "AT+CIMI"}, correlation=b"two")
        assert first["rid"] == again["rid"] != other["rid"]
        assert it.ran("AT+CIMI") == 2


async def test_again_while_it_waits_and_while_it_runs() -> None:
    async with desk() as it:
        it.house.module.faults.plant("AT#CGMI", Plant(seconds=10))
        it.bring('{"id":"a","cmd":"AT#CGMI"}')
        it.bring('{"id":"b","cmd":"AT+CIMI"}')
        await asyncio.sleep(1)
        assert (await it.ask({"id": "a", "cmd": "AT#CGMI"}))["state"] == "running"
        assert (await it.ask({"id": "b", "cmd": "AT+CIMI"}))["state"] == "accepted"
        await asyncio.sleep(30)
        assert [(answer["id"], answer["state"]) for answer in it.answers[2:]] == [("a", "ok"), ("b", "ok")]
        assert (it.ran("AT#CGMI"), it.ran("AT+CIMI")) == (1, 1)
        assert len(it.acknowledged) == 4


async def test_what_ran_is_never_called_expired_when_it_comes_again() -> None:
    """MQ-2: its acknowledgement was lost with the connection, and so it comes again out of the broker's queue."""
    async with desk() as it:
        first = await it.ask({"id": "a", "cmd": "AT+CIMI"})
        again = await it.ask({"id": "a", "cmd": "AT+CIMI"}, duplicate=True, queued=True)
        late = await it.ask({"id": "a", "cmd": "AT+CIMI"}, expiry=0)
        assert again["rid"] == first["rid"] == late["rid"]
        assert {answer["state"] for answer in (first, again, late)} == {"ok"}
        assert it.ran("AT+CIMI") == 1


async def test_what_was_queued_at_the_broker() -> None:
    async with desk() as it:
        assert (await it.ask({"id": "a", "cmd": "AT+CIMI"}, queued=True))["state"] == "expired"
        assert (await it.ask({"id": "b", "cmd": "AT+CIMI"}, queued=True, expiry=60))["state"] == "ok"
    async with desk(replace(RULES, run_queued=True)) as it:
        assert (await it.ask({"id": "c", "cmd": "AT+CIMI"}, queued=True))["state"] == "ok"


async def test_expiry() -> None:
    async with desk() as it:
        assert (await it.ask({"id": "a", "cmd": "AT", "expires": "2026-03-01T11:59:59Z"}))["reason"] == "expired"
        assert (await it.ask({"id": "b", "cmd": "AT", "expires": "2026-03-01T13:00:30+01:00"}))["state"] == "ok"
        assert (await it.ask({"id": "c", "cmd": "AT"}, expiry=0))["reason"] == "expired"
        assert (await it.ask({"id": "d", "cmd": "AT"}, expiry=5))["state"] == "ok"
        it.house.clock.synchronised = False
        assert (await it.ask({"id": "e", "cmd": "AT", "expires": "2027-03-01T13:00:30Z"}))["reason"] == "clock_unset"


async def test_one_that_expires_while_it_waits() -> None:
    async with desk() as it:
        it.house.module.faults.plant("AT#CGMI", Plant(seconds=30))
        it.bring('{"id":"a","cmd":"AT#CGMI"}')
        it.bring('{"id":"b","cmd":"AT+CIMI"}', expiry=10)
        await asyncio.sleep(60)
        assert {answer["id"]: answer["state"] for answer in it.answers} == {"a": "ok", "b": "expired"}
        assert it.ran("AT+CIMI") == 0


async def test_a_retained_one_is_refused_and_its_id_stays_free() -> None:
    async with desk() as it:
        assert (await it.ask({"id": "a", "cmd": "AT+CIMI"}, retained=True))["reason"] == "retained"
        assert (await it.ask({"id": "a", "cmd": "AT+CIMI"}))["state"] == "ok"
        assert it.ran("AT+CIMI") == 1


async def test_one_that_comes_again_with_nothing_to_know_it_by() -> None:
    async with desk() as it:
        assert (await it.ask("AT+CIMI", duplicate=True))["reason"] == "duplicate"
        assert (await it.ask("AT+CIMI"))["state"] == "ok"
        assert it.ran("AT+CIMI") == 1


async def test_remote_at_off() -> None:
    async with desk(replace(RULES, remote_at=False)) as it:
        assert (await it.ask({"id": "a", "cmd": "AT+CIMI"}))["reason"] == "policy"
        assert it.ran("AT+CIMI") == 0


@pytest.mark.parametrize("payload", [{"id": "a", "cmd": "AT"}, {"id": "a", "cmd": "AT", "timeout_ms": 1}])
async def test_whoever_is_refused_hears_so_where_the_answer_was_to_go(payload: dict[str, object]) -> None:
    async with desk(replace(RULES, remote_at=False)) as it:
        await it.ask(payload, response_topic="answers/one")
        assert [json.loads(text)["state"] for _, text, _ in it.outbox("answers/one")] == ["rejected"]


@pytest.mark.parametrize(
    ("topic", "fits"),
    [
        (BASE + "reply/x", True),
        (BASE + "at/response/x", True),
        ("answers/x", True),
        ("answers/" + "x" * 192, True),
        ("answers/" + "x" * 193, False),
        ("answers", False),
        ("other/x", False),
        ("atrund/node2/reply", False),
        (BASE + "at/request/bob", False),
        (BASE + "at/cancel", False),
        (BASE + "at", False),
        (BASE + "status", False),
        (BASE + "info", False),
        (BASE + "event/session", False),
        (BASE + "module/state", False),
        (BASE + "sms/received", False),
        ("answers/+", False),
        ("answers/#", False),
        ("answers/\x00", False),
        ("answers/\x1f", False),
        ("answers/\ufffe", False),
        ("answers/\u2028", False),
    ],
)
async def test_where_an_answer_may_go(topic: str, fits: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """MQ-3. A broker drops the connection over some topics, and nobody may speak in the daemon's name."""
    async with desk() as it:
        answer = await it.ask({"id": "a", "cmd": "AT", "reply_to": topic})
        by_property = await it.ask({"id": "b", "cmd": "AT"}, response_topic=topic)
        for one in (answer, by_property):
            assert (one["state"], one["reason"]) == (("ok", None) if fits else ("rejected", "bad_request"))
        assert len(it.outbox(topic)) == 2 * fits


async def test_answers_go_where_the_second_asking_says() -> None:
    async with desk() as it:
        await it.ask({"id": "a", "cmd": "AT", "reply_to": "answers/one"})
        await it.ask({"id": "a", "cmd": "AT", "reply_to": "answers/two"})
        assert (len(it.outbox("answers/one")), len(it.outbox("answers/two"))) == (1, 1)


async def test_a_message_that_cannot_be_served_is_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would come again at every connection, and a few of its kind would fill the broker's window for good."""

    def broken(_: object) -> None:
        raise RuntimeError("a fault of ours")

    async with desk() as it:
        with monkeypatch.context() as patch:
            patch.setattr(asking, "parse_ask", broken)
            it.bring("AT")
            await asyncio.sleep(1)
        assert len(it.acknowledged) == 1
        assert (await it.ask("AT"))["state"] == "ok"


async def test_more_at_once_than_can_be_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only QoS 0 is dropped: a QoS 1 message that is never acknowledged would keep its place in the broker's window."""
    monkeypatch.setattr(room, "PENDING_MAX", 3)
    async with desk() as it:
        for number in range(10):
            it.bring(json.dumps({"id": f"zero-{number}", "cmd": "AT"}), qos=0)
            it.bring(json.dumps({"id": f"one-{number}", "cmd": "AT"}))
        await asyncio.sleep(5)
        answered = {answer["id"] for answer in it.answers}
        assert answered == {"zero-0", "zero-1", *(f"one-{number}" for number in range(10))}
        assert len(it.acknowledged) == 12
        assert (await it.ask({"id": "zero-9", "cmd": "AT"}, qos=0))["state"] == "ok"


@pytest.mark.parametrize("length", [2049, 4096, 60_000])
async def test_a_line_without_bound_is_not_kept_whole(length: int) -> None:
    async with desk() as it:
        line = "AT" + "x" * (length - 2)
        answer = await it.ask(line)
        assert (answer["state"], answer["reason"]) == ("rejected", "too_long")
        assert answer["cmd"] == line[: asking.LINE_KEPT]


async def test_a_full_queue_is_said() -> None:
    """REQ-3: past the cap the answer is a refusal, never silence."""
    async with desk() as it:
        it.house.module.faults.plant("AT#CGMI", Plant(seconds=10))
        for number in range(40):
            it.bring(json.dumps({"id": str(number), "cmd": "AT#CGMI"}))
        await asyncio.sleep(60)
        states = [(answer["state"], answer["reason"]) for answer in it.answers]
        assert states.count(("ok", None)) == 33
        assert states.count(("rejected", "queue_full")) == 7


async def test_after_a_crash(tmp_path: Path) -> None:
    """REQ-9: sent is lost, recorded is run, both are told; what comes again then is answered from the record."""
    disk = AtOnce(tmp_path / "ledger.db")
    with contextlib.suppress(asyncio.CancelledError):
        async with desk(disk=disk) as it:
            it.house.module.faults.plant("AT#CGMI", Plant(seconds=10))
            it.bring('{"id":"sent","cmd":"AT#CGMI"}')
            it.bring('{"id":"recorded","cmd":"AT+CIMI"}')
            await asyncio.sleep(1)
            await crash(it.house.daemon)
            disk.broken = ""
    after = AtOnce(tmp_path / "ledger.db")
    async with desk(disk=after) as it:
        await asyncio.sleep(60)
        assert {answer["id"]: answer["state"] for answer in it.answers} == {"sent": "lost", "recorded": "ok"}
        assert (it.ran("AT#CGMI"), it.ran("AT+CIMI")) == (0, 1)
        assert (await it.ask({"id": "sent", "cmd": "AT#CGMI"}, duplicate=True, queued=True))["state"] == "lost"


async def test_noise_is_answered_and_acknowledged() -> None:
    source = random.Random(4711)  # noqa: S311 - noise
    async with desk() as it:
        for _ in range(500):
            it.bring(source.randbytes(source.randrange(80)), correlation=source.randbytes(source.randrange(5)) or None)
            await asyncio.sleep(0.01)
        await asyncio.sleep(5)
        assert len(it.acknowledged) == 500
        assert {answer["state"] for answer in it.answers} == {"rejected"}
        assert len(it.answers) == 500


@pytest.mark.parametrize("on", ["response_topic", "reply_to"])
@pytest.mark.parametrize(
    "wrong",
    [{"foo": 1}, {"cmd": 5}, {"cmd": 'AT+CMGS="+39"'}, {"body": "x"}, {"expires": "2001-01-01T00:00:00Z"}, {"id": 7}],
)
async def test_who_is_refused_hears_of_it_where_it_listens(on: str, wrong: dict[str, object]) -> None:
    """The shipped access control lets an asker read nothing but what was sent to it."""
    topic = BASE + "at/response/anna"
    async with desk() as it:
        if on == "reply_to":
            wrong = {**wrong, "reply_to": topic}
        answer = await it.ask({"cmd": "AT", **wrong}, response_topic=topic if on == "response_topic" else None)
        assert answer["state"] in {"rejected", "expired"}
        assert len(it.outbox(topic)) == 1
