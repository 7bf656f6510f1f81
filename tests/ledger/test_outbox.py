# SPDX-License-Identifier: Apache-2.0
"""The outbox's tables: numbers, caps, what is in memory alone, what was set aside (MQ-4)."""

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrund.ledger import outbox, tables
from atrund.ledger.schema import MIGRATIONS, open_file


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    connection = open_file(Path(":memory:"))
    yield connection
    connection.close()


def seqs(db: sqlite3.Connection) -> list[int]:
    """Of all that waits, in the order in which it is sent."""
    found: list[int] = []
    while rows := outbox.after(found[-1] if found else 0)(db):
        found += [row.seq for row in rows]
    return found


def put(db: sqlite3.Connection, topic: str = "t", *, response: bool = False, **given: Any) -> None:  # noqa: ANN401 - any
    outbox.post(**{"response": response, "topic": topic, "payload": "{}", **given})(db)


def counted(db: sqlite3.Connection) -> tuple[int, int]:
    """What is counted and what is there, which have to be the same."""
    told = outbox.waiting()(db)
    size = "length(CAST(topic AS BLOB)) + length(CAST(payload AS BLOB)) + length(CAST(extra AS BLOB))"
    found = [db.execute(f"SELECT count(*), total({size}) FROM {table}").fetchone() for table in ("outbox", "held")]  # noqa: S608 - constants
    assert (told["outbox"], told["spool_bytes"]) == tuple(map(sum, zip(*found, strict=True)))
    return told["outbox"], told["spool_bytes"]


# Numbers and order


def test_order_is_kept_and_no_number_is_used_again(db: sqlite3.Connection) -> None:
    for number in range(3):
        put(db, f"t{number}", response=number == 1, payload='{"n": 1}', extra={"correlation": "00"})
    rows = outbox.after(0)(db)
    assert [(row.seq, row.topic, row.response) for row in rows] == [(1, "t0", False), (2, "t1", True), (3, "t2", False)]
    assert (rows[0].payload, rows[0].extra) == ('{"n": 1}', {"correlation": "00"})
    assert [row.seq for row in outbox.after(2)(db)] == [3]
    assert outbox.posted((1, 2, 3))(db) == 3
    put(db)
    assert seqs(db) == [4]
    assert counted(db)[0] == 1


def test_memory_and_disk_share_one_order(db: sqlite3.Connection) -> None:
    for number in range(6):
        put(db, response=number % 3 == 0, memory=True)
    put(db, "x/sms/received", response=True, memory=True)
    assert seqs(db) == [1, 2, 3, 4, 5, 6, 7]
    assert [seq for (seq,) in db.execute("SELECT seq FROM outbox")] == [1, 4, 7], "answers and SMS are on disk"
    assert [row.response for row in outbox.after(0)(db)] == [True, False, False, True, False, False, True]


def test_numbers_are_set_apart_a_block_at_a_time(db: sqlite3.Connection) -> None:
    """One page of the disk for a thousand records that are in memory."""
    looks = []
    for _ in range(outbox.BLOCK + 1):
        put(db, memory=True)
        looks.append(outbox.ceiling()(db))
    assert looks == [outbox.BLOCK] * outbox.BLOCK + [2 * outbox.BLOCK]
    assert seqs(db) == [*range(1, outbox.BLOCK + 2)]


@pytest.mark.parametrize("memory", [False, True])
def test_a_crash_skips_numbers_and_an_end_in_order_does_not(tmp_path: Path, *, memory: bool) -> None:
    path = tmp_path / "ledger.db"
    with closing(open_file(path)) as db:
        put(db, memory=memory)
        put(db, response=True)
    with closing(open_file(path)) as db:
        assert seqs(db) == ([2] if memory else [1, 2]), "what was in memory is lost, and nothing else"
        put(db, memory=memory)
        assert seqs(db)[-1] == outbox.BLOCK + 1
        outbox.give_back()(db)
    with closing(open_file(path)) as db:
        put(db, memory=not memory)
        assert seqs(db)[-1] == outbox.BLOCK + 2


def test_a_transaction_that_fails_leaves_numbers_and_counts_right(db: sqlite3.Connection) -> None:
    put(db)
    db.execute("BEGIN")
    for memory in (False, True):
        put(db, memory=memory)
    outbox.posted((1,))(db)
    db.execute("ROLLBACK")
    assert (seqs(db), counted(db)) == ([1], (1, 5))
    put(db)
    assert seqs(db) == [1, 2]


def test_what_is_sent_is_sent_under_numbers_that_survive_a_power_cut(tmp_path: Path) -> None:
    """A transaction that was not synced may be gone: the file is set back to how it was at the last sync."""
    path, sure = tmp_path / "ledger.db", tmp_path / "sure"
    with closing(open_file(path)) as db:
        put(db)
        sent_up_to = outbox.ceiling()(db)  # read in a transaction that is synced
        sure.mkdir()
        for file in tmp_path.glob("ledger.db*"):
            shutil.copy(file, sure)
        for _ in range(outbox.BLOCK - 1):
            put(db)
        sent = set(seqs(db))
        assert max(sent) == sent_up_to
    for file in sure.iterdir():
        shutil.copy(file, tmp_path)
    with closing(open_file(path)) as db:
        assert seqs(db) == [1]
        put(db)
        assert not sent & {seqs(db)[-1]}


def test_as_much_is_read_at_a_time_as_is_little_memory(db: sqlite3.Connection) -> None:
    for _ in range(outbox.READ_MAX + 1):
        put(db)
    rows = outbox.after(0)(db)
    assert ([row.seq for row in rows], outbox.reads_on(rows)) == ([*range(1, outbox.READ_MAX + 1)], True)
    rest = outbox.after(outbox.READ_MAX)(db)
    assert ([row.seq for row in rest], outbox.reads_on(rest)) == ([outbox.READ_MAX + 1], False)
    outbox.posted(seqs(db))(db)
    big = json.dumps("x" * (outbox.READ_OCTETS // 2))
    for _ in range(3):
        put(db, payload=big)
    rows = outbox.after(0)(db)
    assert (len(rows), outbox.reads_on(rows)) == (2, True)
    db.execute("BEGIN")
    db.execute("COMMIT")  # nothing that was left unread keeps it from its end


# Room


def test_past_its_cap_the_oldest_of_the_mirror_go_and_never_an_answer(db: sqlite3.Connection) -> None:
    for number in range(50):
        put(db, str(number), response=number % 10 == 0, records=10)
        assert counted(db)[0] <= 10
    assert [row.topic for row in outbox.after(0)(db)] == ["0", "10", "20", "30", "40", "45", "46", "47", "48", "49"]
    assert tables.counts()(db)["dropped"] == 40


def test_what_strangers_sent_gives_way_behind_the_mirror_and_before_any_answer(db: sqlite3.Connection) -> None:
    """Whoever knows the number could fill the disk while the broker is away (MQ-4, MQ-5)."""
    for topic, response in (("event/session", False), ("p/n/sms/received", True), ("p/n/at/response", True)):
        for _ in range(4):
            put(db, topic, response=response, records=6)
    assert seqs(db) == [7, 8, 9, 10, 11, 12]
    for _ in range(40):
        put(db, "p/n/sms/received", response=True, octets=6 * len("p/n/sms/received{}{}"))
    assert [seq for seq in seqs(db) if seq <= 12] == [9, 10, 11, 12]
    assert counted(db)[1] <= 6 * len("p/n/sms/received{}{}")


def test_octets_are_those_of_utf_8_with_topic_and_properties(db: sqlite3.Connection) -> None:
    payload = json.dumps("€" * 100, ensure_ascii=False)  # 302 octets, and 4 of the rest
    for response in (True, False, False, False):
        put(db, "to", response=response, payload=payload, octets=2 * 306 + 10)
    assert seqs(db) == [1, 4]
    for _ in range(4):
        put(db, "to", response=True, payload=payload, octets=2 * 306 + 10)
    assert seqs(db) == [1, 5, 6, 7, 8]
    assert tables.counts()(db)["dropped"] == 3
    assert counted(db) == (5, 5 * 306)


def test_a_little_more_room_is_made_than_one_record_needs(db: sqlite3.Connection) -> None:
    """So that a full spool does not look for its oldest record at each new one."""
    looks: list[str] = []
    for number in range(2 * 6400):
        if number == 6400:
            db.set_trace_callback(lambda sql: looks.append(sql) if "ORDER BY seq" in sql else None)
        put(db, records=6400)
    db.set_trace_callback(None)
    assert len(looks) == 6400 // (6400 // outbox.SLACK + 1) + 1
    assert counted(db)[0] <= 6400
    assert tables.counts()(db)["dropped"] == 2 * 6400 - counted(db)[0]


def test_memory_has_the_caps_for_itself(db: sqlite3.Connection) -> None:
    for _ in range(20):
        put(db, memory=True, records=5)
        put(db, "x/sms/received", response=True, memory=True, records=5)
    assert counted(db)[0] == 10
    assert seqs(db) == [*range(31, 41)]
    assert tables.counts()(db)["dropped"] == 30


@given(
    st.lists(
        st.tuples(st.sampled_from(["mirror", "held", "x/sms/received", "answer"]), st.integers(0, 300)), max_size=60
    ),
    st.integers(1, 30),
    st.integers(0, 5000),
)
def test_whatever_comes_the_caps_hold_and_answers_stay(rows: list[tuple[str, int]], records: int, octets: int) -> None:
    with closing(open_file(Path(":memory:"))) as db:
        for topic, length in rows:
            response, memory = topic in {"x/sms/received", "answer"}, topic == "held"
            payload = json.dumps("x" * length)
            put(db, topic, response=response, payload=payload, records=records, octets=octets, memory=memory)
            counted(db)
        kept = seqs(db)
        assert kept == sorted(kept)
        topics = {seq: rows[seq - 1][0] for seq in kept}
        answers = [seq for seq, (topic, _) in enumerate(rows, 1) if topic == "answer"]
        assert [seq for seq, topic in topics.items() if topic == "answer"] == answers
        for group in (("mirror",), ("held",), ("x/sms/received",)):
            its = [seq for seq, (topic, _) in enumerate(rows, 1) if topic in group]
            there = [seq for seq, topic in topics.items() if topic in group]
            assert there == its[len(its) - len(there) :], "the newest are kept"
        for place in ({"mirror", "x/sms/received", "answer"}, {"held"}):
            inside = [seq for seq, topic in topics.items() if topic in place]
            size = sum(len(topics[seq]) + len(json.dumps("x" * rows[seq - 1][1])) + 2 for seq in inside)
            fits = len(inside) <= records and size <= octets
            assert fits or all(topics[seq] == "answer" for seq in inside)
        if "mirror" in topics.values() and "x/sms/received" in {topic for topic, _ in rows}:
            pushed_out = [seq for seq, (topic, _) in enumerate(rows, 1) if topic == "x/sms/received"]
            assert all(
                seq in topics or min(its for its, t in topics.items() if t == "mirror") > 0 for seq in pushed_out
            )
        assert tables.counts()(db)["dropped"] == len(rows) - len(kept)


def test_a_request_whose_answer_has_no_room_is_not_taken(db: sqlite3.Connection) -> None:
    """MQ-5: what asks faster than the broker takes the answers."""
    check = outbox.room_for_answers(3, 100)
    for _ in range(3):
        check(db)
        put(db, response=True)
    for _ in range(2):
        put(db)  # the mirror counts nothing
        put(db, "x/sms/received", response=True)
    with pytest.raises(outbox.NoRoomError, match="too many answers wait"):
        check(db)
    outbox.posted((1,))(db)
    check(db)
    put(db, response=True, payload=json.dumps("x" * 100))
    with pytest.raises(outbox.NoRoomError):
        check(db)


def test_copies_of_answers_come_to_an_end(db: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "OVER_RECORDS", 4)
    for _ in range(20):
        put(db, response=True, records=6)
    assert seqs(db) == [*range(1, 11)]
    assert tables.counts()(db)["dropped"] == 10


# What was set aside


def test_what_was_set_aside_is_kept_apart_with_its_reason(db: sqlite3.Connection) -> None:
    for response in (False, True, False):
        put(db, response=response, extra={"correlation": "00"})
    outbox.set_aside(2, "refused")(db)
    assert (seqs(db), counted(db)[0]) == ([1, 3], 2)
    assert outbox.waiting()(db)["aside"] == 1
    assert db.execute("SELECT seq, response, extra, tries, why FROM aside").fetchall() == [
        (2, 1, '{"correlation": "00"}', 1, "refused")
    ]
    outbox.set_aside(7, "there is none")(db)
    outbox.set_aside(2, "again")(db)
    assert outbox.waiting()(db)["aside"] == 1
    assert tables.counts()(db)["dropped"] == 0


def test_what_was_set_aside_is_tried_again_and_not_for_ever(db: sqlite3.Connection) -> None:
    put(db)
    put(db)
    for tries in range(1, outbox.TRIES_MAX + 1):
        outbox.set_aside(1, "refused")(db)
        assert db.execute("SELECT tries FROM aside").fetchall() == [(tries,)]
        assert seqs(db) == [2]
        assert outbox.put_back()(db) == (tries < outbox.TRIES_MAX)
        assert seqs(db) == ([1, 2] if tries < outbox.TRIES_MAX else [2])
        counted(db)
    assert outbox.waiting()(db)["aside"] == 1


def test_the_newest_of_what_was_set_aside_are_kept_and_answers_first(
    db: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "ASIDE_MAX", 3)
    for number in range(1, 9):
        put(db, response=number in {1, 4})
        outbox.set_aside(number, "refused")(db)
    assert [seq for (seq,) in db.execute("SELECT seq FROM aside ORDER BY seq")] == [1, 4, 8]
    assert tables.counts()(db)["dropped"] == 5


def test_what_is_in_memory_alone_is_dropped_where_others_are_set_aside(db: sqlite3.Connection) -> None:
    put(db, memory=True)
    put(db, memory=True)
    outbox.set_aside(1, "refused")(db)
    assert (seqs(db), counted(db)[0], outbox.waiting()(db)["aside"]) == ([2], 1, 0)
    assert tables.counts()(db)["dropped"] == 1


def test_what_was_put_back_gives_way_like_the_rest(db: sqlite3.Connection) -> None:
    """It is older than what gave way before."""
    put(db)
    outbox.set_aside(1, "refused")(db)
    for _ in range(20):
        put(db, records=5)
    outbox.put_back()(db)
    assert seqs(db)[0] == 1
    put(db, records=5)
    assert 1 not in seqs(db)
    assert counted(db)[0] <= 5


# Earlier files


def test_what_waits_in_a_file_of_an_earlier_version_is_counted_and_numbered_on(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as old:
        old.create_function("mask_line", 1, str)
        for script in MIGRATIONS[:5]:
            old.executescript(script)
        old.execute("PRAGMA user_version=5")
        for response, topic in ((0, "event/x"), (1, "p/n/sms/received"), (1, "p/n/at/response")):
            old.execute(
                "INSERT INTO outbox (response, topic, payload, extra) VALUES (?,?,?,?)", (response, topic, "{}", "{}")
            )
        old.execute("DELETE FROM outbox WHERE seq = 2")
    with closing(open_file(path)) as db:
        assert seqs(db) == [1, 3]
        assert counted(db)[0] == 2
        put(db)
        assert seqs(db) == [1, 3, 4]
        with pytest.raises(outbox.NoRoomError):
            outbox.room_for_answers(1, 1000)(db)


def test_a_file_that_never_had_a_record_has_numbers_too(tmp_path: Path) -> None:
    with closing(open_file(tmp_path / "ledger.db")) as db:
        put(db, memory=True)
        assert db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'").fetchone() == (outbox.BLOCK,)


def test_what_is_in_memory_writes_nothing_to_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with closing(open_file(path)) as db:
        put(db, memory=True)  # the block of numbers
        before = path.with_name("ledger.db-wal").stat().st_size
        for _ in range(outbox.BLOCK // 2):
            put(db, memory=True, records=100)
        db.execute("DELETE FROM meta")  # what was dropped is counted on disk
        outbox.posted(seqs(db))(db)
        mid = path.with_name("ledger.db-wal").stat().st_size
        for _ in range(99):
            put(db, memory=True, records=100)
        assert path.with_name("ledger.db-wal").stat().st_size == mid > before
        assert [file.name for file in tmp_path.iterdir() if "ledger.db" not in file.name] == []
