# SPDX-License-Identifier: Apache-2.0
"""The history of SMS, and that no command's secret outlives it in the ledger's files."""

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from atrund.atrun.request import Door, End, Outcome, Request
from atrund.ledger import history, tables
from atrund.ledger.history import HISTORY_MAX, Entry, entries, note
from atrund.ledger.schema import MIGRATIONS, VERSION, open_file

CAME = Entry("k1", "2026-03-01T12:00:00.000Z", "+39333", "other", "comes from no number of the white list")
SECRET = "pl4nted-s3cret-1"
LINE = f'AT#SMSATWL=0,2,1,"{SECRET}"'


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = open_file(tmp_path / "ledger.db")
    yield connection
    connection.close()


def test_the_newest_come_first_and_page_by_page(db: sqlite3.Connection) -> None:
    for number in range(5):
        note(replace(CAME, key=f"k{number}"))(db)
    assert [entry.key for entry in entries(3)(db)] == ["k4", "k3", "k2"]
    assert [entry.key for entry in entries(3, before=entries(3)(db)[-1].n)(db)] == ["k1", "k0"]
    assert entries(1)(db) == [replace(CAME, key="k4", n=5)]


def test_a_message_has_one_entry_which_keeps_why_when_it_moves(db: sqlite3.Connection) -> None:
    note(CAME)(db)
    note(replace(CAME, key="k2"))(db)
    note(replace(CAME, verdict="x", why="", fate="moved", text="hello", raw=b"\0"), known=True)(db)
    assert entries(9)(db) == [
        replace(CAME, fate="moved", text="hello", raw=b"\0", n=3),
        replace(CAME, key="k2", n=2),
    ]


def test_what_is_no_longer_known_is_noted_as_given(db: sqlite3.Connection) -> None:
    note(CAME, known=True)(db)
    assert entries(9)(db) == [replace(CAME, n=1)]


def test_each_sort_has_its_own_places(db: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """MOD-5: the newest 500; commands by the hundred push out no text."""
    assert HISTORY_MAX == 500
    monkeypatch.setattr(history, "HISTORY_MAX", 3)
    for number in range(5):
        note(replace(CAME, key=f"text{number}", text="hello"))(db)
        note(replace(CAME, key=f"raw{number}", raw=b"hello"))(db)
    for number in range(50):
        note(replace(CAME, key=f"other{number}"))(db)
    assert [entry.key for entry in entries(99)(db)] == ["other49", "other48", "other47", "raw4", "text4", "raw3"]


def test_a_ledger_of_the_version_before_gets_the_history_and_loses_its_secrets(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    for version, script in enumerate(MIGRATIONS[:3], 1):
        connection.executescript(f"BEGIN; {script} PRAGMA user_version={version}; COMMIT;")
    for rid, outcome in (("ended", '{"end":"ok"}'), ("waits", None)):
        connection.execute(
            "INSERT INTO requests (rid, door, peer, key, digest, line, asked, state, outcome, run)"
            " VALUES (?, 'sms', '+39', ?, 'd', ?, '{}', 'recorded', ?, 7.0)",
            (rid, rid, LINE, outcome),
        )
    connection.close()
    connection = open_file(path)
    assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,)
    assert entries(9)(connection) == []
    lines = dict(connection.execute("SELECT rid, line FROM requests"))
    assert lines == {"ended": "AT#SMSATWL=0,2,1,****", "waits": LINE}
    tables.mark_ended("waits", Outcome(End.OK))(connection)
    connection.close()
    assert SECRET.encode() not in path.read_bytes()


def asked(rid: str, line: str) -> Request:
    return Request(rid=rid, door=Door.MQTT, peer="who", line=line, key=rid)


@pytest.mark.parametrize("line", [LINE, f'AT+CSQ;#TCPATRUNAUTH=1,"u","{SECRET}"', f"AT+CPIN={SECRET}{'x' * 6000}"])
def test_pol_3_no_secret_of_a_command_outlives_it(tmp_path: Path, line: str) -> None:
    """While it may have to run it is there; behind its end it is in no file, neither overwritten nor in a free page."""
    path = tmp_path / "ledger.db"
    db = open_file(path)
    for number in range(40):  # some before and behind it, for pages to be full and to split
        tables.record(asked(f"a{number}", "AT+COPS?"), 1.0)(db)
    tables.record(asked("r", line), 1.0)(db)
    (known,) = [known for known in tables.unfinished(Door.MQTT)(db) if known.request.rid == "r"]
    assert known.request.line == line
    for number in range(40):
        tables.record(asked(f"b{number}", "AT+COPS?"), 1.0)(db)
    tables.mark_ended("r", Outcome(End.OK, final="OK", lines=("x" * 900,)))(db)
    assert tables.known_by_key(Door.MQTT, "r")(db).request.line != line
    db.close()
    left = {file.name: SECRET.encode() in file.read_bytes() for file in tmp_path.iterdir()}
    assert left == {"ledger.db": False}
