# SPDX-License-Identifier: Apache-2.0
"""The audit table: who did what through which door, what was decided and by which rule (POL-4), chained if wanted.

Rules of this file: a row's hash is written with the row, in one transaction. It covers the hash of the row before it,
so that no row can be changed without changing each hash behind it; `chain.py` looks whether one was.
"""

import hashlib
import json
import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from atrund.ledger.writer import Write

AUDIT_MAX: Final = 50_000
"""Audit rows kept, the newest: some 10 MB."""

COLUMNS: Final = "n, ts, rid, door, peer, who, line, event, reason, rule, duration_ms"
"""What a hash covers, in this order."""
ENDED: Final = "audit chain ended"
"""The event of the last row of a chain that was switched off."""
ZERO: Final = "0" * 64
"""What stands for the hash before the very first one."""


def note(
    *,
    ts: str,
    rid: str,
    door: str,
    peer: str,
    line: str,
    event: str,
    who: str = "",
    reason: str | None = None,
    rule: str | None = None,
    duration_ms: int | None = None,
) -> Write:
    """Add a row; the oldest makes room. `who`: what the asker is called beside `peer`, as a login."""
    values = (ts, rid, door, peer, who, line, event, reason, rule, duration_ms)

    def write(db: sqlite3.Connection) -> None:
        before = _last(db) if _is_chained(db) else None
        columns = COLUMNS.removeprefix("n, ")
        added = db.execute(f"INSERT INTO audit ({columns}) VALUES (?,?,?,?,?,?,?,?,?,?)", values)  # noqa: S608 - constant
        n = added.lastrowid or 0
        if before is not None:
            hashed = link(before.partition(":")[2], (n, *values))
            db.execute("UPDATE audit SET hash = ? WHERE n = ?", (hashed, n))
        _prune(db, n - AUDIT_MAX)

    return write


def chain(*, on: bool) -> Write:
    """Have the rows from now on chained, or no longer; the write returns whether that is another than before."""

    def write(db: sqlite3.Connection) -> bool:
        before = _is_chained(db)
        if before is not on:
            db.execute("INSERT OR REPLACE INTO meta VALUES ('audit_chain', ?)", (int(on),))
        return before is not on

    return write


def head() -> Write:
    """Return the number and the hash of the newest row of the chain, `N:HASH`; "" while nothing is chained."""
    return lambda db: _last(db) if _is_chained(db) else ""


def link(before: str, row: Sequence[Any]) -> str:
    """Return the hash of a row (SHA-256, in hexadecimal); `before` is that of the row before it."""
    # JSON in ASCII tells every two rows apart, and is the same in every language.
    content = json.dumps(list(row), ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(f"{before}{content}".encode("utf-8", "backslashreplace")).hexdigest()


def _is_chained(db: sqlite3.Connection) -> bool:
    row = db.execute("SELECT value FROM meta WHERE name = 'audit_chain'").fetchone()
    return row is not None and bool(row[0])


def _last(db: sqlite3.Connection) -> str:
    """Return the head, or where all of the chain was pruned, its anchor."""
    row = db.execute("SELECT n || ':' || hash FROM audit WHERE hash IS NOT NULL ORDER BY n DESC LIMIT 1").fetchone()
    row = row or db.execute("SELECT value FROM meta WHERE name = 'audit_anchor'").fetchone()
    return f"0:{ZERO}" if row is None else str(row[0])


def _prune(db: sqlite3.Connection, last: int) -> None:
    """Forget the rows up to `last`; the hash of the last one stays as the anchor, for the others to be checked by."""
    gone = "SELECT n || ':' || hash FROM audit WHERE n <= ? AND hash IS NOT NULL ORDER BY n DESC LIMIT 1"
    if (anchor := db.execute(gone, (last,)).fetchone()) is not None:
        db.execute("INSERT OR REPLACE INTO meta VALUES ('audit_anchor', ?)", anchor)
    db.execute("DELETE FROM audit WHERE n <= ?", (last,))
