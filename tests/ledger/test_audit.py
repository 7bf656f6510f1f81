# SPDX-License-Identifier: Apache-2.0
"""The audit table and the chain over it: whole through pruning and pauses, and no change of a row goes unseen."""

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrund.ledger import audit, chain
from atrund.ledger.chain import Check, Sought, UnreadableError, check_file, entries
from atrund.ledger.schema import MIGRATIONS, VERSION, open_file


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = open_file(tmp_path / "ledger.db")
    yield connection
    connection.close()


def note(db: sqlite3.Connection, count: int = 1, /, **given: Any) -> None:  # noqa: ANN401 - whatever a row holds
    usual = {
        "ts": "2026-11-22T08:00:00.000Z",
        "rid": "r",
        "door": "tcp",
        "peer": "192.0.2.7",
        "line": "AT",
        "event": "ok",
    }
    for _ in range(count):
        audit.note(**{**usual, **given})(db)


def checked(db: sqlite3.Connection, at: int = 0) -> Check:
    check = Check(at)
    while check.lot(db):
        pass
    return check


def head(db: sqlite3.Connection) -> tuple[int, str]:
    n, _, hashed = audit.head()(db).partition(":")
    return int(n), hashed


# The table


def test_it_keeps_the_newest_rows(db: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    assert audit.AUDIT_MAX == 50_000
    monkeypatch.setattr(audit, "AUDIT_MAX", 3)
    for number in range(10):
        note(db, rid=str(number), duration_ms=number)
    assert [rid for (rid,) in db.execute("SELECT rid FROM audit ORDER BY n")] == ["7", "8", "9"]
    assert audit.head()(db) == ""
    assert checked(db).told() == Check(rows=3).told()


ROWS = (
    {"ts": "2026-11-22T08:00:00.000Z", "peer": "192.0.2.7", "who": "bob, box.example", "event": "ok"},
    {"ts": "2026-11-22T08:30:00.000Z", "peer": "192.0.2.70", "event": "refused for the 11th time this hour"},
    {"ts": "2026-11-22T09:00:00.000Z", "peer": "192.0.2.7:80", "door": "mqtt", "event": "refused", "rid": "other"},
    {"ts": "2026-11-22T10:00:00.000Z", "peer": "", "door": "local", "event": "door closed"},
)


@pytest.mark.parametrize(
    ("sought", "found"),
    [
        (Sought(), [4, 3, 2, 1]),
        (Sought(since="2026-11-22T08:30:00.000Z"), [4, 3, 2]),
        (Sought(until="2026-11-22T08:30:00.000Z"), [2, 1]),
        (Sought(door="mqtt"), [3]),
        (Sought(peer="192.0.2.7"), [3, 1]),
        (Sought(peer="bob"), [1]),
        (Sought(peer="192.0.2"), []),
        (Sought(event="refused"), [3, 2]),
        (Sought(event="refuse"), []),
        (Sought(rid="other"), [3]),
        (Sought(before=3), [2, 1]),
        (Sought(event="refused", before=3, peer="192.0.2.70"), [2]),
        (Sought(event="%"), []),
    ],
)
def test_rows_are_found_the_newest_first(db: sqlite3.Connection, sought: Sought, found: list[int]) -> None:
    for row in ROWS:
        note(db, 1, **row)
    assert [row["n"] for row in entries(sought, 9)(db)] == found
    assert [row["n"] for row in entries(sought, 1)(db)] == found[:1]


def test_a_row_is_told_by_column(db: sqlite3.Connection) -> None:
    note(db, who="bob", reason="policy", rule="+CFUN", duration_ms=7)
    (row,) = entries(Sought(), 9)(db)
    assert row == {
        "n": 1,
        "ts": "2026-11-22T08:00:00.000Z",
        "rid": "r",
        "door": "tcp",
        "peer": "192.0.2.7",
        "who": "bob",
        "line": "AT",
        "event": "ok",
        "reason": "policy",
        "rule": "+CFUN",
        "duration_ms": 7,
    }


def test_a_ledger_of_the_version_before_keeps_its_audit(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    old = sqlite3.connect(path, isolation_level=None)
    old.create_function("mask_line", 1, str)
    place = next(n for n, script in enumerate(MIGRATIONS) if "ADD COLUMN hash" in script)
    for version, script in enumerate(MIGRATIONS[:place], 1):
        old.executescript(f"BEGIN; {script} PRAGMA user_version={version}; COMMIT;")
    old.execute(
        "INSERT INTO audit (ts, rid, door, peer, line, event) VALUES ('2026-01-01T08:00:00Z','r','tcp','','AT','ok')"
    )
    old.close()
    db = open_file(path)
    assert db.execute("PRAGMA user_version").fetchone() == (VERSION,)
    (row,) = entries(Sought(), 9)(db)
    assert (row["n"], row["who"], row["event"]) == (1, "", "ok")
    assert audit.chain(on=True)(db)
    note(db)
    assert (checked(db).chained, checked(db).rows, checked(db).faults) == (1, 2, 0)
    db.close()


# The chain


def test_a_hash_is_what_the_documentation_says(db: sqlite3.Connection) -> None:
    audit.chain(on=True)(db)
    note(db, who="bob", event="é", reason=None, duration_ms=3)
    content = '[1,"2026-11-22T08:00:00.000Z","r","tcp","192.0.2.7","bob","AT","\\u00e9",null,null,3]'  # docs/audit.md
    expected = hashlib.sha256(("0" * 64 + content).encode()).hexdigest()
    assert head(db) == (1, expected)
    note(db)
    assert head(db)[1] != expected


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=9), min_size=3, max_size=3), st.integers() | st.none())
def test_every_two_rows_differ_in_their_hash(texts: list[str], number: int | None) -> None:
    first = audit.link(audit.ZERO, [*texts, number])
    assert first == audit.link(audit.ZERO, (*texts, number))
    assert first != audit.link(audit.ZERO, ["".join(texts), "", "", number]) or texts[1:] == ["", ""]
    assert first != audit.link("1" * 64, [*texts, number])


def test_nothing_is_chained_before_it_is_asked_for(db: sqlite3.Connection) -> None:
    note(db, 2)
    assert audit.chain(on=True)(db)
    assert not audit.chain(on=True)(db)
    note(db, 3)
    found = checked(db, 5)
    assert (found.rows, found.chained, found.first, found.last, found.faults) == (5, 3, 3, 5, 0)
    assert (found.head, found.anchor) == (audit.head()(db), "")
    assert f"5:{found.found}" == found.head


def test_a_pause_leaves_what_is_around_it_chained(db: sqlite3.Connection) -> None:
    audit.chain(on=True)(db)
    note(db, 2)
    assert audit.chain(on=False)(db)
    assert audit.head()(db) == ""
    note(db, 2)
    audit.chain(on=True)(db)
    note(db, 2)
    found = checked(db)
    assert (found.rows, found.chained, found.first, found.last, found.faults) == (6, 4, 1, 6, 0)
    db.execute("DELETE FROM audit WHERE n = 2")
    assert checked(db).wrong == [5]


def test_pruning_leaves_an_anchor_and_the_rest_verifies(
    db: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit.chain(on=True)(db)
    note(db, 4)
    fourth = head(db)
    monkeypatch.setattr(audit, "AUDIT_MAX", 3)
    note(db, 3)
    found = checked(db, fourth[0])
    assert (found.rows, found.chained, found.first, found.last, found.faults) == (3, 3, 5, 7, 0)
    assert found.anchor == f"4:{fourth[1]}"
    assert found.found == fourth[1], "a head may be the anchor itself"
    assert checked(db, 3).found == ""


def test_a_pause_longer_than_the_table_goes_on_from_the_anchor(
    db: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit.chain(on=True)(db)
    note(db, 2)
    second = audit.head()(db)
    audit.chain(on=False)(db)
    monkeypatch.setattr(audit, "AUDIT_MAX", 2)
    note(db, 5)
    audit.chain(on=True)(db)
    assert audit.head()(db) == second
    note(db)
    found = checked(db)
    assert (found.anchor, found.chained, found.faults) == (second, 1, 0)


def test_rows_that_somebody_put_in_without_a_hash_are_told_from_those_of_a_pause(db: sqlite3.Connection) -> None:
    """The chain says itself where it was ended."""
    insert = "INSERT INTO audit (n, ts, rid, door, peer, line, event) VALUES (?, '', '', 'tcp', '', 'AT', 'ok')"
    note(db, 2)
    audit.chain(on=True)(db)
    note(db, 2)
    assert (checked(db).put_in, checked(db).on) == (0, True), "it was switched on late"
    note(db, event=audit.ENDED)
    audit.chain(on=False)(db)
    note(db, 2)
    audit.chain(on=True)(db)
    note(db, 2)
    assert (checked(db).rows, checked(db).chained, checked(db).put_in) == (9, 5, 0)
    db.execute(insert, (1000,))
    found = checked(db)
    assert (found.put_in, found.strays, found.faults) == (1, [1000], 0)
    db.execute("UPDATE meta SET value = 0 WHERE name = 'audit_chain'")
    note(db, 12)
    found = checked(db)
    assert (found.on, found.put_in, found.strays) == (False, 13, list(range(1000, 1000 + chain.NAMED_MAX)))


CHANGES = {
    "a value": "UPDATE audit SET line = 'AT+CSQ' WHERE n = 3",
    "its hash": "UPDATE audit SET hash = replace(hash, substr(hash, 1, 1), 'x') WHERE n = 3",
    "a time": "UPDATE audit SET ts = '2025-01-01T00:00:00.000Z' WHERE n = 3",
    "a number that is no text": "UPDATE audit SET duration_ms = '3 ' WHERE n = 3",
    "a row less": "DELETE FROM audit WHERE n = 2",
    "the first one less": "DELETE FROM audit WHERE n = 1",
    "a row more": "INSERT INTO audit (n, ts, rid, door, peer, line, event, hash)"
    " SELECT 0, ts, rid, door, peer, line, event, hash FROM audit WHERE n = 1",
    "two that changed places": "UPDATE audit SET n = CASE n WHEN 2 THEN -2 ELSE 2 END WHERE n IN (2, 3);"
    "UPDATE audit SET n = 3 WHERE n = -2",
    "no hash any more": "UPDATE audit SET hash = NULL WHERE n = 3",
    "octets for a text": "UPDATE audit SET peer = x'00ff' WHERE n = 3",
    "a text that is none": "UPDATE audit SET peer = CAST(x'00ff' AS TEXT) WHERE n = 3",
    "a hash that is none": "UPDATE audit SET hash = CAST(x'00ff' AS TEXT) WHERE n = 3",
    "a hash of octets": "UPDATE audit SET hash = x'00ff' WHERE n = 5",
    "an anchor put in": "INSERT INTO meta VALUES ('audit_anchor', '1:" + "7" * 64 + "')",
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_change_is_seen(db: sqlite3.Connection, change: str) -> None:
    audit.chain(on=True)(db)
    note(db, 5)
    assert checked(db).faults == 0
    db.executescript(change)
    assert checked(db).faults > 0


def test_the_end_taken_off_and_all_written_anew_show_by_a_head_alone(db: sqlite3.Connection) -> None:
    audit.chain(on=True)(db)
    note(db, 5)
    kept = head(db)
    db.execute("DELETE FROM audit WHERE n > 3")
    assert (checked(db, kept[0]).faults, checked(db, kept[0]).found) == (0, "")
    before = audit.ZERO
    for row in entries(Sought(), 9)(db)[::-1]:  # as who knows how it is done
        before = audit.link(before, (*[*row.values()][:-1], 9))
        db.execute("UPDATE audit SET duration_ms = 9, hash = ? WHERE n = ?", (before, row["n"]))
    note(db, 2)
    found = checked(db, kept[0])
    assert found.faults == 0
    assert found.found != kept[1]


def test_of_many_changes_some_are_named_and_all_counted(db: sqlite3.Connection) -> None:
    audit.chain(on=True)(db)
    note(db, 30)
    db.execute("UPDATE audit SET line = 'x'")
    found = checked(db)
    assert (found.faults, found.wrong) == (30, list(range(1, chain.NAMED_MAX + 1)))
    assert json.loads(json.dumps(found.told()))["faults"] == 30


def test_it_is_checked_in_lots(db: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    audit.chain(on=True)(db)
    note(db, 6)
    monkeypatch.setattr(chain, "LOT", 3)
    check = Check(6)
    assert [check.lot(db) for _ in range(3)] == [True, True, False]
    assert (check.chained, check.faults) == (6, 0)
    assert audit.head()(db) == f"6:{check.found}"


def test_a_row_that_is_not_written_is_not_in_the_chain(db: sqlite3.Connection) -> None:
    """Hash and row are of one transaction."""
    audit.chain(on=True)(db)
    note(db, 2)
    before = audit.head()(db)
    db.execute("BEGIN")
    note(db)
    assert audit.head()(db) != before
    db.execute("ROLLBACK")
    assert audit.head()(db) == before
    note(db)
    assert checked(db).faults == 0


def test_a_file_is_checked_and_left_as_it_is(db: sqlite3.Connection, tmp_path: Path) -> None:
    audit.chain(on=True)(db)
    note(db, 3)
    path = tmp_path / "ledger.db"
    assert check_file(path, 3).chained == 3, "while the daemon runs"
    hashed = head(db)[1]
    db.close()
    folder = sorted(tmp_path.iterdir())
    content = path.read_bytes()
    found = check_file(path, 3)
    assert (found.found, found.faults) == (hashed, 0)
    assert (sorted(tmp_path.iterdir()), path.read_bytes()) == (folder, content)


@pytest.mark.parametrize("content", [None, b"", b"no database" * 99])
def test_what_is_no_ledger_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UnreadableError, match=r"no such file|no such table|not a database"):
        check_file(path, 0)
    assert path.exists() is (content is not None)
