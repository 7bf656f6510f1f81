# SPDX-License-Identifier: Apache-2.0
"""Settings that commands made, and undos that wait: what is written to these tables and read from them."""

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from atrund.atrun.undo import Armed
from atrund.ledger.writer import Write


@dataclass(frozen=True, slots=True)
class Stored:
    """A setting as the ledger has it: who set it through which door, and when (RFC 3339)."""

    key: str
    value: str = field(repr=False)
    door: str
    peer: str
    ts: str


def stored() -> Write:
    """Return all stored settings, as `Stored`, by key."""

    def look(db: sqlite3.Connection) -> dict[str, Stored]:
        rows = db.execute("SELECT key, value, door, peer, ts FROM settings ORDER BY key")
        return {row[0]: Stored(*row) for row in rows}

    return look


def keep(values: Mapping[str, str], *, door: str, peer: str, ts: str) -> Write:
    """Store settings, each in the place of what was stored under its key."""
    rows = [(key, value, door, peer, ts) for key, value in values.items()]
    query = "INSERT OR REPLACE INTO settings (key, value, door, peer, ts) VALUES (?,?,?,?,?)"
    return lambda db: db.executemany(query, rows).rowcount


def forget(keys: Iterable[str]) -> Write:
    """Delete stored settings, so that the file's values count again; returns how many there were."""
    given = [(key,) for key in keys]
    return lambda db: db.executemany("DELETE FROM settings WHERE key = ?", given).rowcount


def arm(undo: str, *, due: float, rid: str, door: str, peer: str) -> Write:
    """Put an undo on disk (POL-2); returns it as `Armed`, with its id."""

    def write(db: sqlite3.Connection) -> Armed:
        added = db.execute(
            "INSERT INTO undos (undo, due, rid, door, peer) VALUES (?,?,?,?,?)", (undo, due, rid, door, peer)
        )
        return Armed(added.lastrowid or 0, undo, due, rid, door, peer)

    return write


def armed() -> Write:
    """Return the undos that wait, as `Armed`, the oldest first."""

    def look(db: sqlite3.Connection) -> list[Armed]:
        return [Armed(*row) for row in db.execute("SELECT id, undo, due, rid, door, peer FROM undos ORDER BY id")]

    return look


def disarm(id_: int) -> Write:
    """Delete an undo: it was run, or is not wanted any more."""
    return lambda db: db.execute("DELETE FROM undos WHERE id = ?", (id_,)).rowcount
