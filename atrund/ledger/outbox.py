# SPDX-License-Identifier: Apache-2.0
"""The outbox: what waits for the broker, in one order, by numbers that never come again (MQ-4).

Rules of this file: a number is taken where its record is written, on disk or, if the mirror is kept in memory alone, in
a table of SQLite's own memory that is gone with the process; both kinds share the numbers, the transaction and the
order. What no answer can do without has room before anything else has; how much waits is counted, never looked for.
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from atrund.ledger.writer import Write

RECORDS_MAX: Final = 20_000
OCTETS_MAX: Final = 32 * 1024**2
"""Rows that wait for the broker, and octets of them (`mqtt.spool_records`, `mqtt.spool_bytes`)."""
SLACK: Final = 64
"""The part of a cap that is made free at once where it is passed, so that not every row has to look for the oldest."""
OVER_RECORDS: Final = 1000
OVER_OCTETS: Final = 32 * 1024**2
"""How far answers may go past the caps: to those that are on their way when the first request is refused for want of
room, 200 of them to two topics each with 64 KiB. Only copies of old answers, asked for again and again, get so far."""
BLOCK: Final = 1000
"""Numbers that are set apart on disk at a time: one look at the disk for so many records, and a crash skips no more."""
READ_MAX: Final = 100
READ_OCTETS: Final = 256 * 1024
"""Rows, and about how many octets of them, that are read at a time: a thread's turn for more than one window, and
little memory however much waits."""
ASIDE_MAX: Final = 100
"""Records that were set aside and are kept, answers before others, then the newest: to be looked at and tried again."""
TRIES_MAX: Final = 3
"""How often a record is set aside until it is tried no more."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the outbox. `payload` is JSON without its number, `extra` holds MQTT 5 properties by name."""

    seq: int
    response: bool
    topic: str
    payload: str
    extra: dict[str, str]


class NoRoomError(Exception):
    """Answers alone reach the outbox's caps."""


def post(
    *,
    response: bool,
    topic: str,
    payload: str,
    extra: Mapping[str, str] | None = None,
    records: int = RECORDS_MAX,
    octets: int = OCTETS_MAX,
    memory: bool = False,
) -> Write:
    """Put a message into the outbox; one of the mirror into `memory` alone, if so.

    Past `records` or `octets` mirror rows give way, the oldest first, then what came in on `sms/received`, never an
    answer; they are counted as `dropped`. Memory and disk have these caps each.
    """
    kind = _ANSWER if response else _HELD if memory else _MIRROR
    if response and topic.endswith(_RECEIVED_TOPIC):
        kind = _RECEIVED
    values = (int(response), topic, payload, json.dumps(dict(extra or {})))
    size = sum(len(text.encode("utf-8", "surrogatepass")) for text in values[1:])

    def write(db: sqlite3.Connection) -> None:
        if kind == _ANSWER and not _has_room(db, records + OVER_RECORDS, octets + OVER_OCTETS):
            _drop(db, 1)
            return
        table = _table(kind)
        db.execute(
            f"INSERT INTO {table} (seq, response, topic, payload, extra) VALUES (?,?,?,?,?)",  # noqa: S608 - constants
            (_next(db), *values),
        )
        _count(db, kind, 1, size)
        _make_room(db, table, records, octets)

    return write


def room_for_answers(records: int, octets: int) -> Write:
    """Raise `NoRoomError` while answers alone reach the caps: a request whose answer has no room isn't taken (MQ-5)."""

    def look(db: sqlite3.Connection) -> None:
        if not _has_room(db, records, octets):
            raise NoRoomError("too many answers wait for the broker")

    return look


def after(seq: int) -> Write:
    """Return the next rows behind `seq` in order: `READ_MAX` of them, or those that reach `READ_OCTETS`."""

    def look(db: sqlite3.Connection) -> list[Row]:
        rows = db.execute(
            "SELECT seq, response, topic, payload, extra FROM main.outbox WHERE seq > ?"
            " UNION ALL SELECT seq, response, topic, payload, extra FROM temp.held WHERE seq > ? ORDER BY seq LIMIT ?",
            (seq, seq, READ_MAX),
        )
        found: list[Row] = []
        room = READ_OCTETS
        for number, response, topic, payload, extra in rows:
            found.append(Row(number, bool(response), topic, payload, json.loads(extra)))
            room -= len(payload)
            if room <= 0:
                break
        rows.close()  # what is left unread of it would keep the transaction from its end
        return found

    return look


def reads_on(rows: list[Row]) -> bool:
    """Whether there may be more behind what `after` returned."""
    return len(rows) == READ_MAX or sum(len(row.payload) for row in rows) >= READ_OCTETS


def posted(seqs: Iterable[int]) -> Write:
    """Take acknowledged rows out of the outbox; returns how many there were."""
    given = json.dumps(list(seqs))

    def write(db: sqlite3.Connection) -> int:
        return sum(_take_out(db, table, f"seq IN ({_GIVEN})", (given,)) for table in _TABLES)

    return write


def set_aside(seq: int, why: str) -> Write:
    """Take a row out that cannot be sent, and keep it apart with the reason; one of the memory's is dropped."""

    def write(db: sqlite3.Connection) -> None:
        db.execute(
            f"INSERT OR REPLACE INTO aside ({_COLUMNS}, why) SELECT seq, response, topic, payload, extra, tries + 1, ?"  # noqa: S608 - constants
            " FROM main.outbox WHERE seq = ?",
            (why, seq),
        )
        _take_out(db, "main.outbox", "seq = ?", (seq,))
        dropped = _take_out(db, "temp.held", "seq = ?", (seq,))
        dropped += db.execute(
            "DELETE FROM aside WHERE seq NOT IN (SELECT seq FROM aside ORDER BY response DESC, seq DESC LIMIT ?)",
            (ASIDE_MAX,),
        ).rowcount
        if dropped:
            _drop(db, dropped)

    return write


def put_back() -> Write:
    """Put what was set aside into the outbox again, save what was tried `TRIES_MAX` times; returns how many."""

    def write(db: sqlite3.Connection) -> int:
        found = db.execute(
            f"SELECT seq, {_KIND}, {_OCTETS} FROM aside WHERE tries < ?",  # noqa: S608 - constants
            (TRIES_MAX,),
        ).fetchall()
        if not found:
            return 0
        db.execute(
            f"INSERT OR IGNORE INTO main.outbox ({_COLUMNS}) SELECT {_COLUMNS} FROM aside WHERE tries < ?",  # noqa: S608 - as above
            (TRIES_MAX,),
        )
        db.execute("DELETE FROM aside WHERE tries < ?", (TRIES_MAX,))
        for _, kind, size in found:
            _count(db, kind, 1, size)
        db.execute("UPDATE temp.waiting SET since = 0 WHERE kind <> ?", (_HELD,))
        return len(found)

    return write


def ceiling() -> Write:
    """Return the last number that is set apart: written synced with anything else, none up to it comes ever again."""
    return lambda db: db.execute("SELECT ceiling FROM temp.numbers").fetchone()[0]


def give_back() -> Write:
    """Give the numbers back that were set apart and are not used; nothing may be posted behind it."""

    def write(db: sqlite3.Connection) -> None:
        db.execute("UPDATE sqlite_sequence SET seq = (SELECT last FROM temp.numbers) WHERE name = 'outbox'")
        db.execute("UPDATE temp.numbers SET ceiling = last")

    return write


def waiting() -> Write:
    """Return as `outbox` and `spool_bytes` how much waits, and as `aside` how many records were set aside."""

    def look(db: sqlite3.Connection) -> dict[str, int]:
        records, octets = db.execute("SELECT sum(records), sum(octets) FROM temp.waiting").fetchone()
        (aside,) = db.execute("SELECT count(*) FROM aside").fetchone()
        return {"outbox": records, "spool_bytes": octets, "aside": aside}

    return look


def prepare(db: sqlite3.Connection) -> None:
    """Make what a connection has of its own: the mirror in memory, the numbers, and how much waits."""
    db.execute("PRAGMA temp_store=MEMORY")  # never a file, wherever temporary ones lie
    db.executescript(
        f"""
        CREATE TEMP TABLE held (
            seq INTEGER PRIMARY KEY, response INTEGER NOT NULL, topic TEXT NOT NULL, payload TEXT NOT NULL,
            extra TEXT NOT NULL
        );
        CREATE TEMP TABLE numbers AS
            SELECT coalesce(max(seq), 0) AS last, coalesce(max(seq), 0) AS ceiling
            FROM main.sqlite_sequence WHERE name = 'outbox';
        CREATE TEMP TABLE waiting (
            kind INTEGER PRIMARY KEY, records INTEGER NOT NULL, octets INTEGER NOT NULL,
            since INTEGER NOT NULL DEFAULT 0     -- up to this number there is none of the kind
        );
        INSERT INTO waiting (kind, records, octets) VALUES ({_MIRROR}, 0, 0), ({_RECEIVED}, 0, 0), ({_ANSWER}, 0, 0),
            ({_HELD}, 0, 0);
        INSERT OR REPLACE INTO waiting (kind, records, octets)
            SELECT {_KIND}, count(*), sum({_OCTETS}) FROM main.outbox GROUP BY 1;
        """  # noqa: S608 - constants
    )


_MIRROR: Final = 0
_RECEIVED: Final = 1
_ANSWER: Final = 2
_HELD: Final = 3
"""Kinds of rows. What came in on `sms/received` gives way behind the mirror: anybody can send an SMS, and without an
end to them they would fill the disk (MQ-5). Held is the mirror where it is kept in memory alone."""
_RECEIVED_TOPIC: Final = "/sms/received"
_KIND: Final = f"CASE WHEN response = 0 THEN 0 WHEN topic LIKE '%{_RECEIVED_TOPIC}' THEN 1 ELSE 2 END"
_OCTETS: Final = "length(CAST(topic AS BLOB)) + length(CAST(payload AS BLOB)) + length(CAST(extra AS BLOB))"
_COLUMNS: Final = "seq, response, topic, payload, extra, tries"
_GIVEN: Final = "SELECT value FROM json_each(?)"
_TABLES: Final[Mapping[str, tuple[int, ...]]] = {"main.outbox": (_MIRROR, _RECEIVED), "temp.held": (_HELD,)}
"""Each table, and which of its rows give way for room, in this order."""
_INSIDE: Final = {"main.outbox": f"kind <> {_HELD}", "temp.held": f"kind = {_HELD}"}


def _table(kind: int) -> str:
    return "temp.held" if kind == _HELD else "main.outbox"


def _next(db: sqlite3.Connection) -> int:
    """Take the next number. Those set apart are skipped by whoever opens the file behind a crash."""
    ((seq, top),) = db.execute("UPDATE temp.numbers SET last = last + 1 RETURNING last, ceiling").fetchall()
    if seq > top:
        top = seq + BLOCK - 1
        db.execute("UPDATE main.sqlite_sequence SET seq = ? WHERE name = 'outbox'", (top,))
        db.execute("UPDATE temp.numbers SET ceiling = ?", (top,))
    return int(seq)


def _count(db: sqlite3.Connection, kind: int, records: int, octets: int) -> None:
    db.execute(
        "UPDATE temp.waiting SET records = records + ?, octets = octets + ? WHERE kind = ?", (records, octets, kind)
    )


def _has_room(db: sqlite3.Connection, records: int, octets: int) -> bool:
    rows, size = db.execute("SELECT records, octets FROM temp.waiting WHERE kind = ?", (_ANSWER,)).fetchone()
    return bool(rows < records and size < octets)


def _take_out(db: sqlite3.Connection, table: str, which: str, values: tuple[Any, ...]) -> int:
    held = f"{_HELD}" if table == "temp.held" else _KIND
    gone = db.execute(f"DELETE FROM {table} WHERE {which} RETURNING {held}, {_OCTETS}", values).fetchall()  # noqa: S608 - constants
    for kind in {kind for kind, _ in gone}:
        sizes = [size for its, size in gone if its == kind]
        _count(db, kind, -len(sizes), -sum(sizes))
    return len(gone)


def _make_room(db: sqlite3.Connection, table: str, records: int, octets: int) -> None:
    rows, size = db.execute(f"SELECT sum(records), sum(octets) FROM temp.waiting WHERE {_INSIDE[table]}").fetchone()  # noqa: S608 - constants
    if rows <= records and size <= octets:
        return
    records, octets = records - records // SLACK, octets - octets // SLACK
    dropped = 0
    for kind in _TABLES[table]:
        its, since = db.execute("SELECT records, since FROM temp.waiting WHERE kind = ?", (kind,)).fetchone()
        if not its or (rows <= records and size <= octets):
            continue
        last = since
        which = "1" if table == "temp.held" else f"{_KIND} = {kind}"
        found = db.execute(f"SELECT seq, {_OCTETS} FROM {table} WHERE seq > ? AND {which} ORDER BY seq", (since,))  # noqa: S608 - as above
        for seq, own in found:
            if rows <= records and size <= octets:
                break
            last, rows, size = seq, rows - 1, size - own
        found.close()
        dropped += _take_out(db, table, f"seq > ? AND seq <= ? AND {which}", (since, last))
        db.execute("UPDATE temp.waiting SET since = ? WHERE kind = ?", (last, kind))
    if dropped:
        _drop(db, dropped)


def _drop(db: sqlite3.Connection, count: int) -> None:
    db.execute(
        "INSERT INTO meta VALUES ('dropped', ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
        (count,),
    )
