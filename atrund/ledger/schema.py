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
    """
    ALTER TABLE requests ADD COLUMN ended REAL;  -- seconds that the daemon had run when the outcome came
    """,
    """
    CREATE TABLE settings (              -- what commands set (CMD-4): counts before the configuration file's value
        key   TEXT PRIMARY KEY,
        value TEXT NOT NULL,             -- JSON, secrets in clear
        door  TEXT NOT NULL,
        peer  TEXT NOT NULL,
        ts    TEXT NOT NULL
    );
    CREATE TABLE undos (                 -- of hazardous commands that nobody confirmed yet (POL-2)
        id   INTEGER PRIMARY KEY AUTOINCREMENT,
        undo TEXT NOT NULL,              -- a command line
        due  REAL NOT NULL,              -- seconds that the daemon has run (REQ-11)
        rid  TEXT NOT NULL,
        door TEXT NOT NULL,
        peer TEXT NOT NULL
    );
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
        _examine(path)
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
    except (sqlite3.OperationalError, OSError) as error:
        raise LedgerRefusedError(f"{path}: {error}; the folder must exist and belong to the user atrund") from error
    except sqlite3.DatabaseError as error:
        raise _damaged(path, error) from error
    try:
        _prepare(connection)
    except sqlite3.OperationalError as error:
        connection.close()
        raise LedgerRefusedError(f"{path}: {error}; it must be writable, with room on its disk") from error
    except sqlite3.DatabaseError as error:
        connection.close()
        raise _damaged(path, error) from error
    return connection


def _examine(path: Path) -> None:
    """Judge the file and leave it as it is: a connection that may write would fold its WAL into it."""
    wal, shared, journal = (path.with_name(path.name + suffix) for suffix in ("-wal", "-shm", "-journal"))
    if not path.exists() or journal.exists():  # a journal is left only where power went while the file was created
        return
    was_there = shared.exists()
    # Without a WAL nothing but the file is needed, and nothing is put beside it.
    how = "mode=ro" if wal.exists() else "mode=ro&immutable=1"
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True)
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if not 0 <= version <= VERSION:
            raise LedgerRefusedError(
                f"{path}: written by a newer atrund (version {version}; this one knows {VERSION}); install that one"
            )
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise _damaged(path, verdict.splitlines()[-1])
    finally:
        connection.close()
        if not was_there:
            shared.unlink(missing_ok=True)


def _damaged(path: Path, why: object) -> LedgerRefusedError:
    return LedgerRefusedError(f"{path}: damaged ({why}); move it away to begin anew, or restore it")


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA journal_size_limit=1048576")  # a WAL that grew once must not hold a router's flash
    connection.execute("BEGIN IMMEDIATE")  # a file that can't be written shows here, not at the first promise
    connection.execute("ROLLBACK")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    for number, script in enumerate(MIGRATIONS[version:], version + 1):
        connection.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version={number}; COMMIT;")
