# SPDX-License-Identifier: Apache-2.0
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from atrund.atrun.request import Door, Request
from atrund.ledger import tables
from atrund.ledger.answers import Progress, Reported, keep_progress, keep_statuses, progress_of, reported
from atrund.ledger.schema import open_file

NUMBER, OTHER = "+393468686711", "+393331234567"


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    connection = open_file(Path(":memory:"))
    yield connection
    connection.close()


def asked(db: sqlite3.Connection, rid: str, peer: str = NUMBER, door: Door = Door.SMS) -> None:
    request = Request(rid=rid, door=door, peer=peer, line="AT", key=rid, context={"originator": "0B91"})
    tables.record(request, 0.0)(db)


def context(db: sqlite3.Connection, rid: str) -> dict[str, str | int | None]:
    known = tables.known_by_key(Door.SMS, rid)(db)
    assert known is not None
    return dict(known.request.context)


def test_progress_comes_back_with_the_request(db: sqlite3.Connection) -> None:
    asked(db, "a")
    assert progress_of(context(db, "a")) == Progress()
    for progress in (Progress(3, under_way=True), Progress(3, (7, None), repeated=True, cut=True, replaced=2)):
        keep_progress("a", progress)(db)
        assert progress_of(context(db, "a")) == progress
    assert context(db, "a")["originator"] == "0B91"
    assert keep_progress("nobody", Progress())(db) == 0


def test_a_report_is_about_the_newest_part_with_its_reference_and_number(db: sqlite3.Connection) -> None:
    asked(db, "old")
    asked(db, "new")
    asked(db, "other", OTHER)
    asked(db, "mqtt", door=Door.MQTT)
    for rid in ("old", "new", "other", "mqtt"):
        keep_progress(rid, Progress(2, (1, 7 if rid != "new" else 8)))(db)
    assert reported(8, NUMBER)(db) == Reported("new", 1, Progress(2, (1, 8)))
    assert reported(7, NUMBER)(db) == Reported("old", 1, Progress(2, (1, 7)))
    assert reported(1, NUMBER)(db) == Reported("new", 0, Progress(2, (1, 8)))
    assert reported(9, NUMBER)(db) is None
    assert reported(7, "+39")(db) is None


def test_what_was_reported_is_kept_beside_the_progress(db: sqlite3.Connection) -> None:
    asked(db, "a")
    keep_statuses("a", {0: 0x20})(db)
    keep_progress("a", Progress(1, (5,)))(db)
    keep_statuses("a", {0: 0})(db)
    assert reported(5, NUMBER)(db) == Reported("a", 0, Progress(1, (5,)), {0: 0})
