# SPDX-License-Identifier: Apache-2.0
"""Cancellations over MQTT in virtual time: of what waits, runs, has ended, is not known, and in every order."""

import asyncio
import contextlib
import json
import random
from pathlib import Path
from typing import Any

import pytest

from atrund.doors import mqtt as room
from atrund.sim.faults import Plant
from tests.support.desk import BASE, Desk, desk
from tests.support.virtual import AtOnce, crash
from tests.support.waiting import until

pytestmark = pytest.mark.looptime

LONG = json.dumps({"id": "long", "cmd": "AT#CGMI"})
LATER = json.dumps({"id": "later", "cmd": "AT+CIMI"})


def cancel(it: Desk, id_: str | None, who: str = "", **fields: Any) -> None:  # noqa: ANN401 - as Incoming has
    it.bring(json.dumps({"id": id_}), who, on="at/cancel", **fields)


async def busy(it: Desk) -> None:
    """Have one request run for ten seconds, and another wait."""
    it.house.module.faults.plant("AT#CGMI", Plant(seconds=10))
    it.bring(LONG)
    it.bring(LATER)
    await asyncio.sleep(1)


def states(it: Desk) -> list[tuple[str, str]]:
    return [(answer["id"], answer["state"]) for answer in it.answers]


def mirrored(it: Desk) -> None:
    """Have the daemon's own mirror kept as well."""
    it.house.daemon._mirror.base = BASE


def events(it: Desk, topic: str) -> list[dict[str, Any]]:
    return [json.loads(text) for _, text, _ in it.outbox(BASE + topic)]


async def test_one_that_waits_is_taken_back() -> None:
    async with desk() as it:
        await busy(it)
        cancel(it, "later")
        await asyncio.sleep(1)
        assert states(it) == [("later", "cancelled")]
        (answer,) = it.answers
        assert (answer["reason"], answer["final"], answer["lines"]) == (None, None, [])
        assert answer["detail"] == "taken back before it was sent"
        await asyncio.sleep(60)
        assert states(it) == [("later", "cancelled"), ("long", "ok")]
        assert it.ran("AT+CIMI") == 0
        assert len(it.acknowledged) == 3


async def test_one_that_runs_is_given_up() -> None:
    async with desk() as it:
        await busy(it)
        cancel(it, "long")
        await asyncio.sleep(1)
        assert states(it) == [("long", "cancelled")]
        assert "unknown" in it.answers[0]["detail"]
        await asyncio.sleep(200)
        assert states(it) == [("long", "cancelled"), ("later", "ok")]
        assert it.ran("AT#CGMI") == 1


async def test_it_is_told_of_like_anything_else() -> None:
    """POL-4."""
    async with desk() as it:
        mirrored(it)
        await busy(it)
        cancel(it, "later")
        cancel(it, "nobody's")
        await asyncio.sleep(1)
        rid = next(answer["rid"] for answer in it.answers if answer["state"] == "cancelled")
        assert [one["state"] for one in events(it, "event/response") if one["id"] == "later"] == ["cancelled"]
        told = [(one["event"], one["peer"], one["reason"], one.get("rid")) for one in events(it, "event/session")]
        assert ("cancel", "unknown", None, rid) in told
        assert ("cancel refused", "unknown", "bad_request", None) in told
        assert ("AT+CIMI", "cancelled", None) in it.house.outcomes


async def test_one_that_is_not_known() -> None:
    async with desk() as it:
        cancel(it, "a")
        await asyncio.sleep(1)
        (answer,) = it.answers
        assert (answer["id"], answer["state"], answer["reason"], answer["cmd"]) == ("a", "rejected", "bad_request", "")
        assert "no request" in answer["detail"]
        assert len(it.acknowledged) == 1
        assert (await it.ask({"id": "a", "cmd": "AT"}))["state"] == "ok", "it is not held against a later one"


async def test_of_another_asker() -> None:
    async with desk() as it:
        it.house.module.faults.plant("AT#CGMI", Plant(seconds=10))
        it.bring(LONG, "alice")
        it.bring(LATER, "alice")
        await asyncio.sleep(1)
        for who in ("bob", "", "unknown", "alice2"):
            cancel(it, "later", who)
            cancel(it, "long", who)
        await asyncio.sleep(1)
        assert {answer["state"] for answer in it.answers} == {"rejected"}
        (rid,) = [rid for rid, line in it.house.disk.rows("SELECT rid, line FROM requests") if line == "AT+CIMI"]
        cancel(it, rid, "bob")
        await asyncio.sleep(1)
        assert len(it.answers) == 9
        assert {answer["peer"] for answer in it.answers} == {"bob", "unknown", "alice2"}
        cancel(it, "later", "alice")
        await asyncio.sleep(60)
        assert states(it)[9:] == [("later", "cancelled"), ("long", "ok")]


async def test_one_that_has_ended_is_answered_from_the_record() -> None:
    """So is a cancellation that comes again."""
    async with desk() as it:
        first = await it.ask({"id": "a", "cmd": "AT+CIMI"})
        cancel(it, "a")
        await until(lambda: len(it.answers) == 2)
        assert (it.answers[1]["rid"], it.answers[1]["state"]) == (first["rid"], "ok")
        assert it.answers[1]["lines"] == first["lines"]
        await busy(it)
        for _ in range(3):
            cancel(it, "later", duplicate=True)
        await asyncio.sleep(1)
        cancel(it, "later")
        await asyncio.sleep(1)
        assert states(it)[2:] == [("later", "cancelled")] * 2
        assert it.answers[3]["detail"] == it.answers[2]["detail"] != ""
        assert it.ran("AT+CIMI") == 1


async def test_right_behind_its_request() -> None:
    """Before it is recorded, and before its task has begun: it is never sent."""
    async with desk() as it:
        it.bring(LATER)
        cancel(it, "later")
        await asyncio.sleep(5)
        assert states(it) == [("later", "cancelled")]
        assert it.ran("AT+CIMI") == 0
        assert len(it.acknowledged) == 2


@pytest.mark.parametrize("turns", range(12))
async def test_a_moment_behind_its_request(turns: int) -> None:
    """Whichever step of its way it is on: one outcome, the same on the disk, in the answer and in the mirror."""
    async with desk() as it:
        mirrored(it)
        it.house.module.faults.plant("+CIMI", Plant(seconds=5))
        it.bring(LATER)
        for _ in range(turns):
            await asyncio.sleep(0)
        cancel(it, "later")
        await asyncio.sleep(60)
        assert states(it) == [("later", "cancelled")]
        assert [one["state"] for one in events(it, "event/command")] == ["accepted"]
        assert [one["state"] for one in events(it, "event/response")] == ["cancelled"]
        assert it.house.disk.rows("SELECT state FROM requests") == [("ended",)]
        assert it.ran("AT+CIMI") <= 1
        assert (await it.ask("AT"))["state"] == "ok"


async def test_while_the_disk_hangs() -> None:
    """It waits for the record of its request, and is not acknowledged before the outcome is there."""
    async with desk() as it:
        disk = it.house.disk
        disk.hung = True
        done = len(disk.jobs)
        it.bring(LATER)
        cancel(it, "later")
        await asyncio.sleep(5)
        assert it.acknowledged == []
        disk.hung = False
        for job in disk.jobs[done:]:
            disk.store.apply([job])
        await asyncio.sleep(5)
        assert states(it) == [("later", "cancelled")]
        assert len(it.acknowledged) == 2
        assert it.ran("AT+CIMI") == 0


async def test_ahead_of_its_request() -> None:
    """Where both are there before either was recorded, the order makes no difference."""
    async with desk() as it:
        cancel(it, "later")
        it.bring(LATER)
        await asyncio.sleep(5)
        assert states(it) == [("later", "cancelled")]
        assert it.ran("AT+CIMI") == 0


async def test_a_request_that_comes_again_with_its_cancellation_behind() -> None:
    """The one that comes again is known already, so that it is the first that counts."""
    async with desk() as it:
        first = await it.ask(json.loads(LATER))
        it.bring(LATER, duplicate=True)
        cancel(it, "later")
        await asyncio.sleep(5)
        assert states(it) == [("later", "ok")] * 3
        assert {answer["rid"] for answer in it.answers} == {first["rid"]}
        await busy_again(it)
        it.bring(json.dumps({"id": "third", "cmd": "AT+CIMI"}), duplicate=True)
        cancel(it, "third")
        await asyncio.sleep(60)
        assert [state for id_, state in states(it) if id_ == "third"].count("cancelled") >= 1
        assert "ok" not in [state for id_, state in states(it) if id_ == "third"]


async def busy_again(it: Desk) -> None:
    it.house.module.faults.plant("AT#CGMI", Plant(seconds=10))
    it.bring(json.dumps({"id": "long2", "cmd": "AT#CGMI"}))
    it.bring(json.dumps({"id": "third", "cmd": "AT+CIMI"}))
    await asyncio.sleep(1)


async def test_by_correlation_data() -> None:
    """MQ-2: a request of MQTT 5 is known by it, and shows it as its `id` where that is text."""
    async with desk() as it:
        it.house.module.faults.plant("AT#CGMI", Plant(seconds=10))
        it.bring(LONG)
        for name in (b"one", b"two", b"\x00\xff", b"four"):
            it.bring("AT+CIMI", correlation=name)
        await asyncio.sleep(1)
        it.bring("", on="at/cancel", correlation=b"one")
        it.bring('{"id":"two"}', on="at/cancel", correlation=b"of this message itself")
        it.bring('{"id":"00ff"}', on="at/cancel")
        it.bring("{}", on="at/cancel", correlation=b"five")
        await asyncio.sleep(60)
        assert [(answer["id"], answer["state"]) for answer in it.answers] == [
            ("five", "rejected"),
            ("one", "cancelled"),
            ("two", "cancelled"),
            ("00ff", "cancelled"),
            ("long", "ok"),
            ("four", "ok"),
        ]
        it.bring("", on="at/cancel", correlation=b"two")
        await until(lambda: len(it.answers) == 7)
        assert it.answers[6]["state"] == "cancelled"
        extras = [extra.get("correlation") for _, _, extra in it.outbox(BASE + "at/response")]
        assert extras[2] == extras[6] == b"two".hex(), "the request's own"


async def test_one_that_has_an_id_beside_its_correlation_data() -> None:
    async with desk() as it:
        it.house.module.faults.plant("AT#CGMI", Plant(seconds=10))
        it.bring(LONG)
        it.bring(LATER, correlation=b"c")
        await asyncio.sleep(1)
        cancel(it, "later")
        await asyncio.sleep(1)
        assert states(it) == [("later", "cancelled")]


async def test_by_the_id_that_was_made_here() -> None:
    """What was asked without an id has none but its `rid`, which `event/command` tells as soon as it is accepted."""
    async with desk() as it:
        mirrored(it)
        it.house.module.faults.plant("AT#CGMI", Plant(seconds=10))
        it.bring(LONG)
        it.bring("AT+CIMI")
        await asyncio.sleep(1)
        rid = events(it, "event/command")[-1]["rid"]
        cancel(it, rid)
        await asyncio.sleep(1)
        assert states(it) == [(rid, "cancelled")]
        cancel(it, rid)
        await asyncio.sleep(1)
        assert states(it) == [(rid, "cancelled")] * 2


async def test_where_its_answer_goes() -> None:
    """The request's goes where the request said; the cancellation's Response Topic gets it too, with its own words."""
    async with desk() as it:
        await busy(it)
        it.bring('{"id":"later"}', on="at/cancel", correlation=b"c-1", response_topic="answers/mine")
        await asyncio.sleep(1)
        it.bring('{"id":"later"}', on="at/cancel", correlation=b"c-2", response_topic="answers/mine")
        it.bring('{"id":"none"}', on="at/cancel", correlation=b"c-3", response_topic="answers/mine")
        await asyncio.sleep(1)
        told = [(json.loads(text)["state"], extra["correlation"]) for _, text, extra in it.outbox("answers/mine")]
        assert told == [("cancelled", b"c-1".hex()), ("cancelled", b"c-2".hex()), ("rejected", b"c-3".hex())]
        it.bring('{"id":"long"}', on="at/cancel", response_topic="elsewhere")
        await asyncio.sleep(1)
        assert it.answers[-1]["reason"] == "bad_request"
        assert "elsewhere" in it.answers[-1]["detail"]
        await asyncio.sleep(60)
        assert ("long", "ok") in states(it)


async def test_one_that_wants_no_answer() -> None:
    async with desk() as it:
        it.house.module.faults.plant("AT#CGMI", Plant(seconds=10))
        it.bring(LONG)
        it.bring(json.dumps({"id": "silent", "cmd": "AT+CIMI", "reply": False}))
        await asyncio.sleep(1)
        for _ in range(2):
            it.bring('{"id":"silent"}', on="at/cancel", response_topic="answers/mine")
            await asyncio.sleep(1)
        assert states(it) == []
        assert [json.loads(text)["state"] for _, text, _ in it.outbox("answers/mine")] == ["cancelled"] * 2
        assert it.ran("AT+CIMI") == 0


async def test_a_body_that_is_taken_back_leaves_no_trace() -> None:
    async with desk() as it:
        it.house.module.faults.plant("AT#CGMI", Plant(seconds=10))
        it.bring(LONG)
        it.bring(json.dumps({"id": "sms", "cmd": 'AT+CMGF=1;+CMGS="+391"', "body": "xyzzy"}))
        await asyncio.sleep(1)
        cancel(it, "sms")
        await asyncio.sleep(60)
        assert ("sms", "cancelled") in states(it)
        assert it.house.sent == []
        assert it.house.disk.rows("SELECT rid FROM requests WHERE asked LIKE '%\"body\"%'") == []


@pytest.mark.parametrize(
    ("payload", "fields", "reason", "told"),
    [
        ('{"id":"long"}', {"retained": True}, "retained", "retained"),
        ('{"id":"long","cmd":"AT"}', {}, "bad_request", "'cmd': no such key"),
        ('{"id":7}', {}, "bad_request", "id: it must be"),
        ("long", {}, "bad_request", "JSON"),
        ("", {}, "bad_request", "id: the request's own"),
        ("{}", {}, "bad_request", "id: the request's own"),
        ('{"id":"long"}', {"correlation": b"x" * 257}, "bad_request", "Correlation Data"),
        (b"\xff", {}, "bad_request", "UTF-8"),
        (b" " * 65_537, {}, "too_long", "65536"),
    ],
)
async def test_what_is_no_cancellation(payload: str, fields: dict[str, Any], reason: str, told: str) -> None:
    async with desk() as it:
        it.house.module.faults.plant("AT#CGMI", Plant(seconds=10))
        it.bring(LONG)
        await asyncio.sleep(1)
        it.bring(payload, on="at/cancel", **fields)
        await asyncio.sleep(1)
        (answer,) = it.answers
        assert (answer["state"], answer["reason"]) == ("rejected", reason)
        assert told in answer["detail"]
        await asyncio.sleep(30)
        assert states(it)[-1] == ("long", "ok")
        assert len(it.acknowledged) == 2


async def test_it_may_while_the_door_is_closed() -> None:
    """An operator who closes it wants less to be run, not more."""
    async with desk() as it:
        await busy(it)
        it.door.is_closed = lambda: True
        cancel(it, "later")
        await asyncio.sleep(60)
        assert states(it) == [("later", "cancelled"), ("long", "ok")]


@pytest.mark.parametrize("when", ["before the port is there", "before its cancellation was acknowledged"])
async def test_across_a_crash(tmp_path: Path, when: str) -> None:
    """What a restart takes up again can be cancelled too, and a cancellation comes again until it counted."""
    disk = AtOnce(tmp_path / "ledger.db")
    with contextlib.suppress(asyncio.CancelledError):
        async with desk(disk=disk) as it:
            await busy(it)
            if when != "before the port is there":
                disk.hung = True
                cancel(it, "later")
                await asyncio.sleep(1)
                assert len(it.acknowledged) == 2
                disk.hung = False
            await crash(it.house.daemon)
            disk.broken = ""
    async with desk(disk=AtOnce(tmp_path / "ledger.db"), take_up=False) as it:
        it.house.module.faults.plant("AT#CGMI", Plant(seconds=10))
        await it.door.take_up()
        cancel(it, "later", duplicate=True)
        cancel(it, "long", duplicate=True)
        await asyncio.sleep(60)
        assert sorted(set(states(it))) == [("later", "cancelled"), ("long", "lost")]
        assert (it.ran("AT#CGMI"), it.ran("AT+CIMI")) == (0, 0)


async def test_before_the_ledger_could_be_read(tmp_path: Path) -> None:
    """REQ-12: said past the outbox, with what its asker knows it by."""
    async with desk(disk=AtOnce(tmp_path / "ledger.db"), take_up=False) as it:
        it.house.disk.broken = "disk I/O error"
        cancel(it, "a", correlation=b"c", response_topic="answers/x")
        await asyncio.sleep(1)
        assert [(topic, payload["id"], payload["reason"]) for topic, payload, _ in it.past.published] == [
            (BASE + "at/response", "a", "storage"),
            ("answers/x", "a", "storage"),
        ]
        assert len(it.acknowledged) == 1
        it.house.disk.broken = ""


async def test_while_the_disk_takes_nothing() -> None:
    async with desk() as it:
        await it.ask({"id": "a", "cmd": "AT"})
        it.house.disk.broken = "disk full"
        cancel(it, "a")
        await asyncio.sleep(1)
        assert [(payload["id"], payload["reason"]) for _, payload, _ in it.past.published] == [("a", "storage")]
        it.house.disk.broken = ""


async def test_an_outcome_that_is_owed_to_the_disk() -> None:
    """What could not be recorded is not said, and its cancellation is answered with its state as it is known."""
    async with desk() as it:
        await busy(it)
        it.house.disk.broken = "disk full"
        cancel(it, "later")
        await asyncio.sleep(1)
        assert (it.answers, it.past.published) == ([], [])
        it.house.disk.broken = ""
        cancel(it, "later")
        await asyncio.sleep(0.5)
        assert states(it) in ([("later", "accepted")], [("later", "cancelled")])
        await asyncio.sleep(60)
        assert ("later", "cancelled") in states(it)
        assert it.ran("AT+CIMI") == 0


async def test_many_under_one_id_are_all_cancelled() -> None:
    """Told apart by their Correlation Data, and then named by what they share."""
    async with desk() as it:
        it.house.module.faults.plant("AT#CGMI", Plant(seconds=10))
        it.bring(LONG)
        for name in (b"1", b"2"):
            it.bring(LATER, correlation=name)
        await asyncio.sleep(1)
        cancel(it, "later")
        await asyncio.sleep(60)
        assert states(it) == [("later", "cancelled"), ("later", "cancelled"), ("long", "ok")]


async def test_nothing_is_kept_of_what_has_ended() -> None:
    async with desk() as it:
        for number in range(5):
            await it.ask({"id": str(number), "cmd": "AT"})
        assert it.door._runs == {}


async def test_cancellations_with_qos_0_are_bounded_like_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "PENDING_MAX", 3)
    async with desk() as it:
        for number in range(10):
            cancel(it, str(number), qos=0)
        await asyncio.sleep(1)
        assert len(it.answers) == 3


async def test_noise_is_answered_and_acknowledged() -> None:
    source = random.Random(4712)  # noqa: S311 - noise
    async with desk() as it:
        for _ in range(300):
            it.bring(
                source.randbytes(source.randrange(40)),
                on="at/cancel",
                correlation=source.randbytes(source.randrange(5)) or None,
            )
            await asyncio.sleep(0.01)
        await asyncio.sleep(5)
        assert len(it.acknowledged) == 300
        assert {answer["state"] for answer in it.answers} == {"rejected"}
        assert len(it.answers) == 300


@pytest.mark.parametrize("seed", range(25))
async def test_any_order_of_requests_and_cancellations(seed: int) -> None:
    """MQ-2: one outcome for each request whatever comes when and how often, run once at most; all acknowledged."""
    source = random.Random(seed)  # noqa: S311 - a mix
    lines = {str(number): "AT" + ";".join(["+CSQ"] * number) for number in range(1, 7)}
    asked, brought = set(), 0
    async with desk() as it:
        mirrored(it)
        for _ in range(60):
            it.house.module.faults.plant("+CSQ", Plant(source.randrange(1, 3), seconds=source.choice([0.0, 0.5, 3.0])))
            id_ = source.choice(list(lines))
            match source.randrange(4):
                case 0 | 1:
                    asked.add(id_)
                    it.bring(json.dumps({"id": id_, "cmd": lines[id_]}), duplicate=source.random() < 0.3)
                case 2:
                    cancel(it, id_, duplicate=source.random() < 0.3)
                case _:
                    await asyncio.sleep(source.choice([0, 0, 0.001, 0.3, 2.0]))
                    continue
            brought += 1
        await asyncio.sleep(600)
        assert len(it.acknowledged) == brought
        rows = it.house.disk.rows("SELECT key, rid, state, outcome FROM requests")
        assert {key.partition("\0")[2] for key, *_ in rows} == asked
        for key, rid, state, outcome in rows:
            id_, end = key.partition("\0")[2], json.loads(outcome)["end"]
            assert (state, end in {"ok", "cancelled"}) == ("ended", True)
            final = {one["state"] for one in it.answers if one["rid"] == rid} - {"accepted", "running"}
            assert final == {end}
            assert [one["state"] for one in events(it, "event/response") if one["rid"] == rid] == [end]
            assert [one["state"] for one in events(it, "event/command") if one["rid"] == rid] == ["accepted"]
            assert it.ran(lines[id_]) <= 1
            assert it.ran(lines[id_]) == 1 or end == "cancelled"
