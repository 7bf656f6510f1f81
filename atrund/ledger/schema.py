# SPDX-License-Identifier: Apache-2.0
"""The ledger's file: its schema with versions, opened with care. A newer or a damaged one is refused, unharmed."""

import contextlib
import fcntl
import os
import sqlite3
import stat
from pathlib import Path
from typing import Final

import structlog

from atrund.atrun.secrets import mask_line
from atrund.ledger import outbox
from atrund.ledger.copying import NOTED, NoCopyError, copies, make_copy

log = structlog.get_logger()

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
    """
    CREATE TABLE history (               -- of SMS: what came, what was decided, and where it is now (MOD-5)
        n       INTEGER PRIMARY KEY AUTOINCREMENT,
        key     TEXT NOT NULL UNIQUE,    -- as in messages
        ts      TEXT NOT NULL,           -- of the latest change
        peer    TEXT NOT NULL,
        verdict TEXT NOT NULL,
        why     TEXT NOT NULL,
        sent    TEXT NOT NULL,           -- the service centre's time
        rid     TEXT NOT NULL,           -- of the request that an ATRUN SMS made
        outcome TEXT NOT NULL,
        fate    TEXT NOT NULL,           -- '', moved, published, deleted
        text    TEXT,                    -- of what was moved here alone
        raw     BLOB
    );
    UPDATE requests SET line = mask_line(line) WHERE outcome IS NOT NULL;
    """,
    """
    CREATE TABLE claims (                -- SMS whose code, seal or digest was judged, until their outcome is recorded
        key      TEXT PRIMARY KEY,       -- as in messages
        reason   TEXT NOT NULL,          -- '' for one that was let in
        detail   TEXT NOT NULL,
        answered INTEGER NOT NULL,
        run      REAL NOT NULL
    );
    CREATE TABLE counters (              -- how far codes and seals are used up
        subject TEXT PRIMARY KEY,        -- whose, with a fingerprint of the secret
        counter INTEGER NOT NULL,
        extra   INTEGER NOT NULL         -- of codes: wrong ones in a row; of seals: the bits of the window
    );
    CREATE TABLE uses (                  -- what may not come again, or not so often, for a while
        n       INTEGER PRIMARY KEY AUTOINCREMENT,
        kind    TEXT NOT NULL,
        subject TEXT NOT NULL,
        run     REAL NOT NULL
    );
    CREATE INDEX uses_of ON uses (kind, subject);
    """,
    """
    ALTER TABLE outbox ADD COLUMN tries INTEGER NOT NULL DEFAULT 0;  -- how often it was set aside
    CREATE TABLE aside (                 -- what could not be sent: refused, or lost with one connection after the other
        seq      INTEGER PRIMARY KEY,
        response INTEGER NOT NULL,
        topic    TEXT NOT NULL,
        payload  TEXT NOT NULL,
        extra    TEXT NOT NULL,
        tries    INTEGER NOT NULL,
        why      TEXT NOT NULL
    );
    DROP INDEX requests_run;             -- nothing was looked for by it, and each request wrote a page of it
    INSERT INTO sqlite_sequence (name, seq)
        SELECT 'outbox', 0 WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'outbox');
    """,
    """
    ALTER TABLE audit ADD COLUMN who TEXT NOT NULL DEFAULT '';  -- what the asker is called beside the peer: logins
    ALTER TABLE audit ADD COLUMN hash TEXT;  -- over this row and the hash of the one before; of a chain alone
    """,
)
"""One script a version; a later version adds scripts and never changes one. `mask_line` is that of `secrets`."""

VERSION: Final = len(MIGRATIONS)


class LedgerRefusedError(Exception):
    """The file cannot be used; it was left as it is. The text says why and what to do."""


def open_file(path: Path) -> sqlite3.Connection:
    """Open or create the ledger and bring its schema up to date, all at once, behind a copy of it (`copying`).

    Raises `LedgerRefusedError` for a file of a newer version, a damaged one, one that can't be opened or written, and
    where there is no room for the copy: then it is as it was.
    """
    try:
        _examine(path)
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
        _keep_private(path)
    except (sqlite3.OperationalError, OSError) as error:
        raise LedgerRefusedError(f"{path}: {error}; the folder must exist and belong to the user atrund") from error
    except sqlite3.DatabaseError as error:
        raise _damaged(path, error) from error
    try:
        _prepare(connection, path)
    except NoCopyError as error:
        connection.close()
        raise LedgerRefusedError(f"{path}: of an older atrund, and left so: {error}") from error
    except sqlite3.OperationalError as error:
        connection.close()
        raise LedgerRefusedError(f"{path}: {error}; it must be writable, with room on its disk") from error
    except sqlite3.DatabaseError as error:
        connection.close()
        raise _damaged(path, error) from error
    return connection


def open_alone(path: Path) -> tuple[sqlite3.Connection, int]:
    """Open or create the ledger for this process alone; returns a descriptor, too, whose end gives it to others.

    Two daemons at one file would run each other's requests again, and give one number to two records. Raises
    `LedgerRefusedError` as `open_file` does, and where another process has it. The end of a process is enough.
    """
    try:
        lock = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise LedgerRefusedError(f"{path}: {error}; the folder must exist and belong to the user atrund") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return open_file(path), lock
    except BlockingIOError as error:
        os.close(lock)
        raise LedgerRefusedError(f"{path}: another atrund has it; each needs a state_dir of its own") from error
    except BaseException:
        os.close(lock)
        raise


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
            raise LedgerRefusedError(_newer(path, version))
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise _damaged(path, verdict.splitlines()[-1])
    finally:
        connection.close()
        if not was_there:
            shared.unlink(missing_ok=True)


def _keep_private(path: Path) -> None:
    """Have a file that not everybody may read, for passwords are in it; SQLite gives those beside it the same mode."""
    for file in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        with contextlib.suppress(OSError):  # not there, another's, or on a disk that can't be written
            if (mode := stat.S_IMODE(file.stat().st_mode)) & _EVERYBODY:
                file.chmod(mode & ~_EVERYBODY)


_EVERYBODY: Final = stat.S_IRWXO


def _damaged(path: Path, why: object) -> LedgerRefusedError:
    return LedgerRefusedError(f"{path}: damaged ({why}); move it away to begin anew, or restore it")


def _newer(path: Path, version: int) -> str:
    ours = max((older for older in copies(path) if older <= VERSION), default=None)
    name = path.name
    back = (
        "or move it away to begin anew: all that it holds is lost then"
        if ours is None
        # A log of changes that a crash left would be taken for the copy's.
        else f"or move {name}, {name}-wal and {name}-shm away and put the copy {name}.v{ours} in their place: what was "
        "recorded since is lost then, as settings, answers that wait, and which SMS and codes were used"
    )
    return (
        f"{path}: written by a newer atrund (version {version}; this one knows {VERSION}), left as it is; "
        f"install that one again, {back}"
    )


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    # Rows are small, and each page that one touches is written whole, twice: a quarter of SQLite's usual size halves
    # what an SMS costs a router's flash. It counts for a new file alone.
    connection.execute("PRAGMA page_size=1024")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    # What was deleted or overwritten is gone from the pages (POL-3); FAST costs no write of its own.
    connection.execute("PRAGMA secure_delete=FAST")
    connection.create_function("mask_line", 1, mask_line, deterministic=True)
    connection.execute("PRAGMA journal_size_limit=1048576")  # a WAL that grew once must not hold a router's flash
    connection.execute("BEGIN IMMEDIATE")  # a file that can't be written shows here, not at the first promise
    connection.execute("ROLLBACK")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version < VERSION:
        _migrate(connection, path, version)
    with contextlib.suppress(sqlite3.Error):  # what a crash left there of ended requests (POL-3)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    outbox.prepare(connection)


def _migrate(connection: sqlite3.Connection, path: Path, version: int) -> None:
    """Run the scripts that are missing, in one transaction: a crash leaves the version of before, or this one."""
    copy = make_copy(connection, path, version) if version else None
    scripts = (*MIGRATIONS[version:], NOTED if copy else "", f"PRAGMA user_version={VERSION};")
    try:
        connection.executescript("\n".join(("BEGIN IMMEDIATE;", *scripts, "COMMIT;")))
    except sqlite3.Error as error:
        if copy is not None and error.sqlite_errorcode == sqlite3.SQLITE_FULL:  # the ledger is as it was
            with contextlib.suppress(OSError):
                copy.unlink()
        raise
    if copy is not None:
        log.info("ledger brought up to date", version=VERSION, before=version, copy=str(copy))
