# SPDX-License-Identifier: Apache-2.0
"""Which codes, seals and digests are used up, and how often somebody came: what is written to these tables and read.

Rules of this file: a message is judged once, in one transaction with all that its judgement uses up; shown again before
its outcome is recorded, it gets the same decision, so that a crash neither uses a code twice nor loses a command.
"""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from atrund.atrun.request import Reason
from atrund.ledger.writer import Write

CLAIMS_SPAN: Final = 30 * 86400.0
"""Seconds of running for which a decision waits for its message's outcome: as long as messages are known (SMS-11)."""
USES_MAX: Final = 10_000
"""Uses of a kind that are remembered, the newest: some 1 MB."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided about a message: `reason` is None for one that is let in, `detail` is for the record.

    `answered`: whether its sender may be told.
    """

    reason: Reason | None = None
    detail: str = ""
    answered: bool = True


class Desk:
    """What a judgement may look at and change, inside its transaction. `run`: seconds that the daemon has run."""

    def __init__(self, db: sqlite3.Connection, run: float) -> None:
        self._db = db
        self._run = run

    def counter(self, subject: str) -> tuple[int, int]:
        """Return how far a subject is used up, (0, 0) for a new one."""
        row = self._db.execute("SELECT counter, extra FROM counters WHERE subject = ?", (subject,)).fetchone()
        return (0, 0) if row is None else (int(row[0]), int(row[1]))

    def count_on(self, subject: str, counter: int, extra: int) -> None:
        """Keep how far a subject is used up now."""
        self._db.execute("INSERT OR REPLACE INTO counters VALUES (?,?,?)", (subject, counter, extra))

    def uses(self, kind: str, subject: str, span: float) -> int:
        """Return how often a subject was used in the last `span` seconds; what is older is forgotten."""
        self._db.execute(
            "DELETE FROM uses WHERE kind = ? AND subject = ? AND run <= ?", (kind, subject, self._run - span)
        )
        (count,) = self._db.execute(
            "SELECT count(*) FROM uses WHERE kind = ? AND subject = ?", (kind, subject)
        ).fetchone()
        return int(count)

    def use(self, kind: str, subject: str) -> None:
        """Note a use; the oldest of its kind makes room."""
        self._db.execute("INSERT INTO uses (kind, subject, run) VALUES (?,?,?)", (kind, subject, self._run))
        self._db.execute(
            "DELETE FROM uses WHERE n IN (SELECT n FROM uses WHERE kind = ? ORDER BY n DESC LIMIT -1 OFFSET ?)",
            (kind, USES_MAX),
        )


def claim(key: str, run: float, judge: Callable[[Desk], Decision]) -> Write:
    """Judge a message, unless it was judged before; the write returns the `Decision`."""

    def write(db: sqlite3.Connection) -> Decision:
        row = db.execute("SELECT reason, detail, answered FROM claims WHERE key = ?", (key,)).fetchone()
        if row is not None:
            reason, detail, answered = row
            return Decision(Reason(reason) if reason else None, detail, bool(answered))
        made = judge(Desk(db, run))
        word = "" if made.reason is None else made.reason.value
        db.execute("DELETE FROM claims WHERE run < ?", (run - CLAIMS_SPAN,))
        db.execute("INSERT INTO claims VALUES (?,?,?,?,?)", (key, word, made.detail, int(made.answered), run))
        return made

    return write


def settle(key: str) -> Write:
    """Forget the decision on a message whose outcome is recorded with this: it is known by that from now on."""
    return lambda db: db.execute("DELETE FROM claims WHERE key = ?", (key,)).rowcount
