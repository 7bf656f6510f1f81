# SPDX-License-Identifier: Apache-2.0
"""What is left in the ledger's file of a request that has ended (POL-3): no secret of its line, nothing of its body."""

import base64
import sqlite3
from pathlib import Path

import pytest

from atrund.atrun.request import Door, End, Outcome, Request
from atrund.ledger import tables
from atrund.ledger.schema import open_file
from atrund.ledger.writer import Write


def write(db: sqlite3.Connection, *writes: Write) -> None:
    db.execute("BEGIN")
    for one in writes:
        one(db)
    db.execute("COMMIT")


@pytest.mark.parametrize("long", [1, 3, 60, 2000])
@pytest.mark.parametrize("at_once", [True, False])
def test_no_secret_is_left(tmp_path: Path, long: int, *, at_once: bool) -> None:
    """Short ones lie among others in a page, long ones in pages of their own, which are given back whole."""
    path = tmp_path / "ledger.db"
    db = open_file(path)
    body = b"private key material, 24" * long
    line = f'AT{"+CSQ;" * min(long, 380)}+CPIN="48151623"'
    request = Request(rid="r", door=Door.MQTT, peer="who", line=line, key="who\0a", body=body)
    coded = base64.b64encode(b"private key material, 24")
    steps = tables.record(request, 0.0), tables.mark_sent("r"), tables.mark_ended("r", Outcome(End.OK))
    if at_once:
        write(db, *steps)
    else:
        for step in steps:
            write(db, step)
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            assert (coded in path.read_bytes()) == (step is not steps[-1])
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert db.execute("PRAGMA secure_delete").fetchone() == (2,), "FAST for all else"
    db.close()
    content = path.read_bytes()
    assert coded not in content
    assert b"48151623" not in content
    assert b"****" in content


def test_a_body_is_there_until_the_outcome_is(tmp_path: Path) -> None:
    db = open_file(tmp_path / "ledger.db")
    request = Request(rid="r", door=Door.MQTT, peer="who", line="AT+CMGS=1", key="k", body=bytes(range(256)))
    write(db, tables.record(request, 0.0), tables.mark_sent("r"))
    (known,) = tables.unfinished(Door.MQTT)(db)
    assert (known.request, known.state) == (request, tables.SENT)
    write(db, tables.mark_ended("r", Outcome(End.ERROR, detail="why")))
    known = tables.known_by_rid(Door.MQTT, "who", "r")(db)
    assert (known.request.body, known.digest) == (None, tables.content_digest(request))
    assert known.outcome == Outcome(End.ERROR, detail="why")
    assert tables.known_by_rid(Door.MQTT, "another", "r")(db) is None
    assert tables.known_by_rid(Door.SMS, "who", "r")(db) is None
    db.close()


def test_an_outcome_of_an_earlier_version_has_no_detail(tmp_path: Path) -> None:
    db = open_file(tmp_path / "ledger.db")
    write(db, tables.record(Request(rid="r", door=Door.MQTT, peer="who", line="AT"), 0.0))
    write(db, tables.mark_ended("r", Outcome(End.OK, final="OK", detail="x")))
    db.execute("UPDATE requests SET outcome = json_remove(outcome, '$.detail')")
    assert tables.known_by_rid(Door.MQTT, "who", "r")(db).outcome == Outcome(End.OK, final="OK")
    db.close()
