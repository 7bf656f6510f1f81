# SPDX-License-Identifier: Apache-2.0
import sqlite3
import tempfile
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from atrund.atrun.request import Door, End, Outcome, Reason, Request
from atrund.ledger import outbox, tables
from atrund.ledger.schema import open_file
from atrund.ledger.tables import Known

ASKED = Request(
    rid="r1",
    door=Door.MQTT,
    peer="who",
    line="AT+COPS?",
    timeout=12.5,
    delay=3.0,
    instance=2,
    reply=False,
    key="who\0id",
    expires=77.0,
    context={"id": "id", "dcs": 21, "reply_to": None},
)
ENDED = Outcome(
    End.ERROR,
    Reason.PROMPT_UNSUPPORTED,
    final="ERROR",
    lines=("+COPS: 0", "ÿ"),
    framed="\r\nERROR\r\n",
    truncated=True,
    queued_ms=3,
    duration_ms=4,
)


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    connection = open_file(Path(":memory:"))
    yield connection
    connection.close()


def only(db: sqlite3.Connection, sql: str) -> Any:  # noqa: ANN401 - whatever the column holds
    return db.execute(sql).fetchone()[0]


def test_a_request_comes_back_as_it_was_recorded(db: sqlite3.Connection) -> None:
    assert tables.record(ASKED, 5.0)(db) is None
    known = tables.known_by_key(Door.MQTT, ASKED.key)(db)
    assert known == Known(ASKED, tables.RECORDED, tables.content_digest(ASKED), None, answered=False)
    assert tables.known_by_key(Door.SMS, ASKED.key)(db) is None


def test_its_states_follow_one_another_and_it_ends_once(db: sqlite3.Connection) -> None:
    tables.record(ASKED, 5.0)(db)
    assert tables.mark_sent("r1")(db) == 1
    assert tables.known_by_key(Door.MQTT, ASKED.key)(db).state == tables.SENT
    assert tables.mark_ended("r1", ENDED)(db) == 1
    assert tables.mark_ended("r1", Outcome(End.OK))(db) == 0
    assert tables.mark_sent("r1")(db) == 0
    known = tables.known_by_key(Door.MQTT, ASKED.key)(db)
    assert (known.state, known.outcome, known.answered) == ("ended", ENDED, False)
    tables.mark_answered("r1")(db)
    assert tables.known_by_key(Door.MQTT, ASKED.key)(db).answered


def test_the_end_is_stamped_with_the_run_clock(db: sqlite3.Connection) -> None:
    """REQ-11, SMS-12: the age of an answer goes on over a restart."""
    tables.record(ASKED, 10.0)(db)
    assert tables.known_by_key(Door.MQTT, ASKED.key)(db).ended is None
    tables.keep_run(25.0)(db)
    tables.mark_ended("r1", Outcome(End.OK))(db)
    tables.keep_run(99.0)(db)
    tables.mark_ended("r1", Outcome(End.LOST))(db)
    assert tables.known_by_key(Door.MQTT, ASKED.key)(db).ended == 25.0


def test_one_that_ended_under_an_earlier_version_is_as_old_as_its_request(db: sqlite3.Connection) -> None:
    tables.record(ASKED, 10.0)(db)
    tables.mark_ended("r1", Outcome(End.OK))(db)
    assert tables.known_by_key(Door.MQTT, ASKED.key)(db).ended == 10.0


def test_a_key_is_recorded_once_and_an_empty_one_is_no_key(db: sqlite3.Connection) -> None:
    tables.record(ASKED, 5.0)(db)
    again = tables.record(replace(ASKED, rid="r2", line="AT"), 6.0)(db)
    assert again is not None
    assert (again.request.rid, again.digest) == ("r1", tables.content_digest(ASKED))
    for rid in ("r3", "r4"):
        assert tables.record(replace(ASKED, rid=rid, key=""), 6.0)(db) is None
    assert only(db, "SELECT count(*) FROM requests") == 3


def test_a_key_is_looked_up_in_its_index(db: sqlite3.Connection) -> None:
    """Thousands of requests are kept, and each new one is looked up."""
    asked: list[str] = []
    db.set_trace_callback(asked.append)
    tables.record(ASKED, 5.0)(db)
    tables.known_by_key(Door.MQTT, ASKED.key)(db)
    db.set_trace_callback(None)
    plans = [db.execute(f"EXPLAIN QUERY PLAN {sql}").fetchall() for sql in asked if sql.startswith("SELECT")]
    assert len(plans) == 2
    assert all("USING INDEX requests_key" in str(plan) for plan in plans)


def test_what_tells_two_contents_apart() -> None:
    bodies = [replace(ASKED, body=body) for body in (None, b"", b"x")]
    digests = {tables.content_digest(request) for request in (*bodies, replace(ASKED, line="AT"))}
    assert len(digests) == 4
    assert tables.content_digest(replace(ASKED, rid="other", peer="other")) == tables.content_digest(ASKED)


def test_what_is_unfinished_is_told_oldest_first(db: sqlite3.Connection) -> None:
    for number, run in enumerate((30.0, 10.0, 20.0, 40.0)):
        tables.record(replace(ASKED, rid=f"r{number}", key=f"k{number}"), run)(db)
    tables.record(replace(ASKED, rid="sms", door=Door.SMS, key="k"), 1.0)(db)
    tables.mark_sent("r1")(db)
    tables.mark_ended("r2", ENDED)(db)
    tables.mark_ended("r3", ENDED)(db)
    tables.mark_answered("r3")(db)
    found = tables.unfinished(Door.MQTT)(db)
    assert [(known.request.rid, known.state) for known in found] == [
        ("r1", "sent"),
        ("r2", "ended"),
        ("r0", "recorded"),
    ]


def test_messages_are_remembered_for_30_days_of_running_and_as_long_as_they_lie_there(db: sqlite3.Connection) -> None:
    for key, run in (("old", 0.0), ("old but there", 0.0), ("new", 100.0)):
        tables.remember_message(key, "other", run)(db)
    tables.remember_message("new", "done", 200.0)(db)
    for write in tables.prune(tables.MESSAGES_SPAN + 50.0, ["old but there", "unknown"]):
        write(db)
    assert tables.message_verdicts()(db) == {"old but there": "other", "new": "other"}


def test_the_newest_ended_requests_are_remembered_and_all_that_are_owed(
    db: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "REQUESTS_MAX", 2)
    for number in range(6):
        tables.record(replace(ASKED, rid=f"r{number}", key=f"k{number}"), float(number))(db)
        if number != 1:
            tables.mark_answered(f"r{number}")(db)
    for write in tables.prune(0.0):
        write(db)
    assert [rid for (rid,) in db.execute("SELECT rid FROM requests ORDER BY run")] == ["r1", "r4", "r5"]


def test_numbers_are_kept_under_names(db: sqlite3.Connection) -> None:
    assert tables.get_meta("run", 0.5)(db) == 0.5
    tables.set_meta("run", 1.5)(db)
    tables.set_meta("run", 2.5)(db)
    assert tables.get_meta("run", 0.5)(db) == 2.5


def test_texts_are_kept_under_names(db: sqlite3.Connection) -> None:
    assert tables.get_text("pins")(db) == ""
    tables.set_text("pins", "a b")(db)
    tables.set_text("pins", "c")(db)
    assert tables.get_text("pins")(db) == "c"


def test_counts_are_those_of_the_tables(db: sqlite3.Connection) -> None:
    tables.record(ASKED, 1.0)(db)
    tables.remember_message("k", "other", 1.0)(db)
    outbox.post(response=False, topic="top", payload="{}")(db)
    assert tables.counts()(db) == {
        "requests": 1,
        "outbox": 1,
        "spool_bytes": 7,
        "aside": 0,
        "audit": 0,
        "messages": 1,
        "history": 0,
        "dropped": 0,
    }


def test_a_request_makes_room_for_itself_and_what_is_owed_stays(
    db: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However fast they come, no hour passes before the cap holds."""
    monkeypatch.setattr(tables, "REQUESTS_MAX", 3)
    for number in range(10):
        tables.record(replace(ASKED, rid=f"r{number}", key=f"k{number}"), 1.0)(db)
        if number != 4:
            tables.mark_ended(f"r{number}", ENDED)(db)
            tables.mark_answered(f"r{number}")(db)
    assert [rid for (rid,) in db.execute("SELECT rid FROM requests ORDER BY rowid")] == ["r4", "r7", "r8", "r9"]
    tables.mark_ended("r4", ENDED)(db)
    tables.mark_answered("r4")(db)
    tables.record(replace(ASKED, rid="r10", key="k10"), 1.0)(db)
    assert [rid for (rid,) in db.execute("SELECT rid FROM requests ORDER BY rowid")] == ["r8", "r9", "r10"]


def test_messages_have_a_cap_and_what_lies_there_stays(db: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MESSAGES_MAX", 3)
    for number in range(10):
        tables.remember_message(str(number), "other", 1.0)(db)
    tables.remember_message("8", "done", 1.0, anew=True)(db)
    for write in tables.prune(2.0, ["1"]):
        write(db)
    assert tables.message_verdicts()(db) == {"1": "other", "7": "other", "8": "done", "9": "other"}


def test_the_run_clock_never_goes_back(db: sqlite3.Connection) -> None:
    for run in (5.0, 3.0):
        tables.keep_run(run)(db)
    assert tables.get_meta("run", 0.0)(db) == 5.0
    tables.keep_run(7.5)(db)
    assert tables.get_meta("run", 0.0)(db) == 7.5


@given(
    st.builds(
        replace,
        st.just(ENDED),
        lines=st.lists(st.text(st.characters(codec="utf-8"))).map(tuple),
        end=st.sampled_from(End),
        reason=st.none() | st.sampled_from(Reason),
        final=st.none() | st.just("OK"),
    )
)
def test_every_outcome_comes_back_as_it_was(outcome: Outcome) -> None:
    connection = open_file(Path(":memory:"))
    tables.record(ASKED, 1.0)(connection)
    tables.mark_ended("r1", outcome)(connection)
    assert tables.known_by_key(Door.MQTT, ASKED.key)(connection).outcome == outcome
    connection.close()


class LedgerMachine(RuleBasedStateMachine):
    """The tables in a file against plain dictionaries; a kill drops what was not committed."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name, "ledger.db")
        self.db = open_file(self.path)
        self.requests: dict[str, list[Any]] = {}
        """rid: key, state, answered"""
        self.outbox: dict[int, str] = {}
        self.held: dict[int, str] = {}
        """What is in memory alone."""
        self.highest = 0
        self.db.execute("BEGIN")
        self.committed = self.copied()

    def copied(self) -> Any:  # noqa: ANN401 - whatever the model holds
        return deepcopy((self.requests, self.outbox, self.held, self.highest))

    @rule(key=st.sampled_from("abc"))
    def record(self, key: str) -> None:
        rid = f"r{len(self.requests)}"
        known = tables.record(replace(ASKED, rid=rid, key=key), 1.0)(self.db)
        there = [old for old, (its, *_) in self.requests.items() if its == key]
        assert ([] if known is None else [known.request.rid]) == there
        if known is None:
            self.requests[rid] = [key, "recorded", False]

    @rule(number=st.integers(0, 2), step=st.sampled_from(["sent", "ended", "answered"]))
    def move(self, number: int, step: str) -> None:
        rid = f"r{number}"
        {
            "sent": tables.mark_sent(rid),
            "ended": tables.mark_ended(rid, ENDED),
            "answered": tables.mark_answered(rid),
        }[step](self.db)
        if (known := self.requests.get(rid)) is not None:
            if step == "answered":
                known[2] = True
            elif known[1] != "ended":
                known[1] = step

    @rule(topic=st.sampled_from("xyz"), memory=st.booleans())
    def post(self, topic: str, *, memory: bool) -> None:
        outbox.post(response=False, topic=topic, payload="{}", memory=memory)(self.db)
        (row,) = outbox.after(self.highest)(self.db)
        self.highest = row.seq
        (self.held if memory else self.outbox)[row.seq] = topic

    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        there = [0, self.highest + 1, *self.outbox, *self.held]
        seqs = data.draw(st.lists(st.sampled_from(there), max_size=3, unique=True))
        gone = outbox.posted(seqs)(self.db)
        assert gone == sum(rows.pop(seq, None) is not None for rows in (self.outbox, self.held) for seq in seqs)

    @rule()
    def commit(self) -> None:
        self.db.execute("COMMIT")
        self.committed = self.copied()
        self.db.execute("BEGIN")

    @rule()
    def fail(self) -> None:
        self.db.execute("ROLLBACK")
        self.requests, self.outbox, self.held, self.highest = deepcopy(self.committed)
        self.db.execute("BEGIN")

    @rule()
    def kill(self) -> None:
        self.db.close()
        self.requests, self.outbox, _, self.highest = self.committed
        self.held = {}
        self.db = open_file(self.path)
        self.db.execute("BEGIN")
        self.committed = self.copied()

    @invariant()
    def all_is_as_the_model_says(self) -> None:
        found = {row.seq: row.topic for row in outbox.after(0)(self.db)}
        assert found == self.outbox | self.held
        assert outbox.waiting()(self.db) == {"outbox": len(found), "spool_bytes": 5 * len(found), "aside": 0}
        for rid, (key, state, answered) in self.requests.items():
            known = tables.known_by_key(Door.MQTT, key)(self.db)
            assert (known.request.rid, known.state, known.answered) == (rid, state, answered)
        owed = [rid for rid, (_, state, answered) in self.requests.items() if state != "ended" or not answered]
        assert [known.request.rid for known in tables.unfinished(Door.MQTT)(self.db)] == owed

    def teardown(self) -> None:
        self.db.close()
        self.folder.cleanup()


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(max_examples=40, stateful_step_count=30)
