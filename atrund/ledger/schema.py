# SPDX-License-Identifier: Apache-2.0
"""The ledger's file: its schema with versions, opened with care. A newer or a damaged one is refused, unharmed."""

import sqlite3
from pathlib import Path
from typing import Final

MIGRATIONS: Final = (
    """
    CREATE TABLE requests (              -- what a transport may deliver again: SMS, MQTT
        rid      TEXT PRIMARY KEY,
        door     TEXT NOT NULL,
        peer     TEXT NOT NULL,
        key      TEXT NOT NULL,          -- what a repeated delivery is known by
        digest   TEXT NOT NULL,          -- of command line and body: the same key with another content is no repetition
        line     TEXT NOT NULL,
        asked    TEXT NOT NULL,          -- JSON: timeout, delay, instance, reply, context
        state    TEXT NOT NULL,          -- recorded, sent, or the outcome
        outcome  TEXT,                   -- JSON
        answered INTEGER NOT NULL DEFAULT 0,
        run      REAL NOT NULL           -- seconds that the daemon had run (REQ-11)
    );
    CREATE UNIQUE INDEX requests_key ON requests (door, key) WHERE key <> '';
    CREATE INDEX requests_run ON requests (run);
    CREATE TABLE outbox (                -- what MQTT has yet to acknowledge; seq never restarts
        seq      INTEGER PRIMARY KEY AUTOINCREMENT,
        response INTEGER NOT NULL,       -- 1: an answer, never dropped for room; 0: the mirror
        topic    TEXT NOT NULL,
        payload  TEXT NOT NULL,
        extra    TEXT NOT NULL           -- JSON: MQTT 5 properties
    );
    CREATE TABLE audit (
        n           INTEGER PRIMARY KEY AUTOINCREMENT,
        ts          TEXT NOT NULL,
        rid         TEXT NOT NULL,
        door        TEXT NOT NULL,
        peer        TEXT NOT NULL,
        line        TEXT NOT NULL,
        event       TEXT NOT NULL,
        reason      TEXT,
        rule        TEXT,
        duration_ms INTEGER
    );
    CREATE TABLE messages (              -- every SMS that was judged, by the hash of SMS-11
        key     TEXT PRIMARY KEY,
        verdict TEXT NOT NULL,
        run     REAL NOT NULL
    );
    CREATE TABLE meta (name TEXT PRIMARY KEY, value);
    """,
)
"""One script a version; a later version adds scripts and never changes one."""

VERSION: Final = len(MIGRATIONS)


class LedgerRefusedError(Exception):
    """The file cannot be used; it was left as it is. The text says why and what to do."""


def open_file(path: Path) -> sqlite3.Connection:
    """Open or create the ledger and bring its schema up to date.

    Raises `LedgerRefusedError` for a file of a newer version, a damaged one, or one that can't be opened or written.
    """
    try:
        _refuse_newer(path)
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
    except (sqlite3.Error, OSError) as error:
        raise LedgerRefusedError(f"{path}: {error}; the folder must exist and belong to the user atrund") from error
    try:
        _prepare(connection, path)
    except sqlite3.OperationalError as error:
        connection.close()
        raise LedgerRefusedError(f"{path}: {error}; it must be writable, with room on its disk") from error
    except sqlite3.DatabaseError as error:
        connection.close()
        raise LedgerRefusedError(f"{path}: {error}; move it away to begin anew, or restore it") from error
    except LedgerRefusedError:
        connection.close()
        raise
    return connection


def _refuse_newer(path: Path) -> None:
    """Look at the version and leave the file as it is: a connection that may write would fold its WAL into it."""
    version = _version_in_header(path)
    if version <= VERSION and _side_file(path, "-wal").exists():
        version = max(version, _version_in_wal(path))
    if version > VERSION:
        raise LedgerRefusedError(
            f"{path}: written by a newer atrund (version {version}; this one knows {VERSION}); install that one"
        )


def _version_in_header(path: Path) -> int:
    """Return user_version of the file itself (SQLite file format 1.3), 0 where there is none."""
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER)
    except FileNotFoundError:
        return 0
    return int.from_bytes(header[60:64]) if header.startswith(b"SQLite format 3\0") else 0


def _version_in_wal(path: Path) -> int:
    shared = _side_file(path, "-shm")
    was_there = shared.exists()
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])
    except sqlite3.DatabaseError:
        return 0  # no version can be read: what is wrong with it shows when it is opened
    finally:
        connection.close()
        if not was_there:
            shared.unlink(missing_ok=True)


_HEADER: Final = 100


def _side_file(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise LedgerRefusedError(f"{path}: damaged ({verdict}); move it away to begin anew, or restore it")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA journal_size_limit=1048576")  # a WAL that grew once must not hold a router's flash
    connection.execute("BEGIN IMMEDIATE")  # a file that can't be written shows here, not at the first promise
    connection.execute("ROLLBACK")
    for number, script in enumerate(MIGRATIONS[version:], version + 1):
        connection.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version={number}; COMMIT;")
