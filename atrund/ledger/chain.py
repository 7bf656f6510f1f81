# SPDX-License-Identifier: Apache-2.0
"""Looking into the audit table: rows by who, when and what, and whether the chain over them is whole."""

import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from atrund.ledger.audit import COLUMNS, ENDED, ZERO, link

LOT: Final = 1000
"""Rows that are checked at once: some 10 ms of a router's time, in which nothing else is written."""
NAMED_MAX: Final = 10
"""Rows that don't fit which are named; whoever has to know more has the file."""


@dataclass(frozen=True, slots=True)
class Sought:
    """Which rows are looked for, "" or 0 for any.

    `since` and `until` are compared with the row's time (RFC 3339 in UTC with milliseconds, both ends included).
    `peer` is who asked, by address, number, login or MQTT `<who>`. `peer` and `event` may be given by their beginning,
    up to a blank, a colon or a comma. `before`: only rows with a smaller number.
    """

    since: str = ""
    until: str = ""
    door: str = ""
    peer: str = ""
    event: str = ""
    rid: str = ""
    before: int = 0


def entries(sought: Sought, limit: int) -> Callable[[sqlite3.Connection], list[dict[str, Any]]]:
    """Return the newest rows that are looked for, the newest first, by column."""
    where, values = _where(sought)

    def look(db: sqlite3.Connection) -> list[dict[str, Any]]:
        found = db.execute(
            f"SELECT {COLUMNS} FROM audit{where} ORDER BY n DESC LIMIT ?",  # noqa: S608 - constants
            (*values, limit),
        )
        names = COLUMNS.split(", ")
        return [dict(zip(names, row, strict=True)) for row in found]

    return look


@dataclass(slots=True)
class Check:
    """Walks along the chain; each `lot` is a look at the ledger, to be repeated until it says that it was the last.

    `at` is a row's number: `found` is then its hash, "" if it isn't there or isn't chained.
    """

    at: int = 0
    found: str = ""
    rows: int = 0
    chained: int = 0
    first: int = 0
    last: int = 0
    """The numbers of the first and the last row that is chained."""
    anchor: str = ""
    """Number and hash of the last row that was pruned, `N:HASH`."""
    head: str = ""
    wrong: list[int] = field(default_factory=list)
    """The rows whose hash doesn't fit them and what is before them, the first `NAMED_MAX`; `faults` counts them."""
    faults: int = 0
    strays: list[int] = field(default_factory=list)
    """The rows without a hash where the chain was not ended before, the first `NAMED_MAX`; `put_in` counts them."""
    put_in: int = 0
    on: bool = False
    """Whether rows are chained at present."""
    _before: str = ""
    _n: int | None = None
    _is_open: bool = False
    """Whether the row before is one of the chain and did not end it: then the next one is in it too."""

    def lot(self, db: sqlite3.Connection) -> bool:
        """Check the next rows; return whether there may be more."""
        if not self._before:
            self._begin(db)
        found = _rows(db, self._n)
        for row, hashed in found:
            self._take(row, hashed)
        return len(found) == LOT

    def told(self) -> dict[str, object]:
        """Return what was found, for a message."""
        counts = ("on", "rows", "chained", "first", "last", "faults", "put_in")
        return {name: getattr(self, name) for name in (*counts, "anchor", "head", "found", "wrong", "strays")}

    def _begin(self, db: sqlite3.Connection) -> None:
        row = db.execute("SELECT value FROM meta WHERE name = 'audit_anchor'").fetchone()
        self.anchor = "" if row is None else str(row[0])
        n, _, self._before = self.anchor.partition(":")
        self._before = self._before or ZERO
        if n == str(self.at):
            self.found = self._before
        row = db.execute("SELECT value FROM meta WHERE name = 'audit_chain'").fetchone()
        self.on = row is not None and bool(row[0])

    def _take(self, row: Sequence[Any], hashed: str | None) -> None:
        self._n = row[0]
        self.rows += 1
        if hashed is None:
            if self._is_open:
                self.put_in += 1
                self.strays += [row[0]] * (len(self.strays) < NAMED_MAX)
            return
        self._is_open = row[_EVENT] != ENDED
        self.chained += 1
        self.first, self.last = self.first or row[0], row[0]
        if not _fits(self._before, row, hashed):
            self.faults += 1
            self.wrong += [row[0]] * (len(self.wrong) < NAMED_MAX)
        self._before, self.head = hashed, f"{row[0]}:{hashed}"
        if row[0] == self.at:
            self.found = hashed


class UnreadableError(Exception):
    """The file is none, or can't be read; the text says why."""


def check_file(path: Path, at: int) -> Check:
    """Check the chain in a ledger's file, or a copy of one, and leave it as it is. Raises `UnreadableError`."""
    if not path.exists():
        raise UnreadableError("there is no such file")
    wal = path.with_name(f"{path.name}-wal")
    how = "mode=ro" if wal.exists() else "mode=ro&immutable=1"  # nothing is put beside the file where nothing need be
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True)) as db:
            check = Check(at)
            while check.lot(db):
                pass
    except sqlite3.Error as error:
        raise UnreadableError(str(error)) from error
    return check


_EVENT: Final = COLUMNS.split(", ").index("event")


def _fits(before: str, row: Sequence[Any], hashed: object) -> bool:
    try:
        return link(before, row) == hashed
    except TypeError:  # octets, which no row of ours holds
        return False


def _rows(db: sqlite3.Connection, after: int | None) -> list[tuple[Sequence[Any], Any]]:
    """Return a lot of rows with their hashes, whatever somebody put into them."""
    usual, db.text_factory = db.text_factory, _any_text
    try:
        # Numbers that are none of ours, 0 and below, too.
        where, values = ("", (LOT,)) if after is None else ("WHERE n > ?", (after, LOT))
        query = f"SELECT {COLUMNS}, hash FROM audit {where} ORDER BY n LIMIT ?"  # noqa: S608 - constants
        return [(row[:-1], row[-1]) for row in db.execute(query, values)]
    finally:
        db.text_factory = usual


def _any_text(octets: bytes) -> str:
    return octets.decode("utf-8", "surrogateescape")


def _where(sought: Sought) -> tuple[str, list[object]]:
    begins = "({0} = ? OR substr({0}, 1, length(?) + 1) IN (? || ' ', ? || ':', ? || ','))"
    peer = f"({begins.format('peer')} OR {begins.format('who')})"
    parts: list[tuple[str, Sequence[object]]] = [
        (condition, values)
        for condition, values, given in (
            ("ts >= ?", [sought.since], sought.since),
            ("ts <= ?", [sought.until], sought.until),
            ("door = ?", [sought.door], sought.door),
            ("rid = ?", [sought.rid], sought.rid),
            (peer, [sought.peer] * 10, sought.peer),
            (begins.format("event"), [sought.event] * 5, sought.event),
            ("n < ?", [sought.before], sought.before),
        )
        if given
    ]
    words = " AND ".join(condition for condition, _ in parts)
    return f" WHERE {words}" if words else "", [value for _, values in parts for value in values]
