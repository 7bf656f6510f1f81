# SPDX-License-Identifier: Apache-2.0
"""The history of SMS: what came, from whom, what was decided and why, and where it is now (MOD-5)."""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from atrund.ledger.writer import Write

HISTORY_MAX: Final = 500
"""Messages remembered, the newest: so many with what was in them, and so many without; some 200 kB."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What is remembered of a message. `key` is that of SMS-11.

    `sent` is the service centre's time and `ts` that of the latest change (both RFC 3339), `verdict` what it is and
    `why`, `rid` and `outcome` its request's. `fate`: where one went that is none of ours, "" while it is left lying.
    What was in it is kept of what was moved here alone: `text`, or `raw` octets.
    """

    key: str
    ts: str
    peer: str
    verdict: str
    why: str = ""
    sent: str = ""
    rid: str = ""
    outcome: str = ""
    fate: str = ""
    text: str | None = field(default=None, repr=False)
    raw: bytes | None = field(default=None, repr=False)
    n: int = 0
    """Its number, which grows with each change."""


def note(entry: Entry, *, known: bool = False) -> Write:
    """Remember a message, in the place of what was known of it; the oldest of its sort is forgotten.

    `known`: what was decided before, and why, stays if it is remembered.
    """

    def write(db: sqlite3.Connection) -> None:
        before = db.execute("SELECT verdict, why FROM history WHERE key = ?", (entry.key,)).fetchone()
        verdict, why = before if known and before is not None else (entry.verdict, entry.why)
        values = (
            entry.key,
            entry.ts,
            entry.peer,
            verdict,
            why,
            entry.sent,
            entry.rid,
            entry.outcome,
            entry.fate,
            entry.text,
            entry.raw,
        )
        places = ",".join("?" * len(values))
        db.execute(f"INSERT OR REPLACE INTO history ({_COLUMNS}) VALUES ({places})", values)  # noqa: S608 - constants
        # Each sort has its own places: commands by the hundred must not push out what somebody wrote.
        sort = _WITHOUT if entry.text is None and entry.raw is None else f"NOT ({_WITHOUT})"
        last = f"SELECT n FROM history WHERE {sort} ORDER BY n DESC LIMIT 1 OFFSET ?"  # noqa: S608 - constants
        db.execute(f"DELETE FROM history WHERE n <= ({last}) AND {sort}", (HISTORY_MAX,))  # noqa: S608 - constants

    return write


def entries(limit: int, before: int = 0) -> Callable[[sqlite3.Connection], list[Entry]]:
    """Return the newest entries, the newest first; `before` is the number of the one that they come before, if any."""

    def look(db: sqlite3.Connection) -> list[Entry]:
        rows = db.execute(
            f"SELECT {_COLUMNS}, n FROM history WHERE n < ? OR ? = 0 ORDER BY n DESC LIMIT ?",  # noqa: S608 - constant
            (before, before, limit),
        )
        return [Entry(*row) for row in rows]

    return look


_COLUMNS: Final = "key, ts, peer, verdict, why, sent, rid, outcome, fate, text, raw"
_WITHOUT: Final = "text IS NULL AND raw IS NULL"
