# SPDX-License-Identifier: Apache-2.0
"""How far an answer by SMS got, and what the network told of it: kept with its request (SMS-8, SMS-12).

Both are texts of JSON in the request's context, which is what its door needs to answer after a restart.
"""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from atrund.atrun.request import Door
from atrund.ledger.writer import Write

REPORTABLE: Final = 256
"""Requests of one number among which a report's message is looked for: message references wrap there (TP-MR)."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an answer of so many `parts` got.

    `references`: the message reference of each part that was sent, None where the module told none. `under_way`: the
    next one may have been handed to the module; `repeated`: that one was sent without a result before. `cut`: its end
    was left out; `replaced` characters became `?`. `undelivered`: why it was given up, "" otherwise.
    """

    parts: int = 0
    references: tuple[int | None, ...] = ()
    under_way: bool = False
    repeated: bool = False
    cut: bool = False
    replaced: int = 0
    undelivered: str = ""


@dataclass(frozen=True, slots=True)
class Reported:
    """The part of an answer that a report is about, counted from 0; `statuses`: TP-ST by part, as reported so far."""

    rid: str
    part: int
    progress: Progress
    statuses: Mapping[int, int] = field(default_factory=dict)


def progress_of(context: Mapping[str, str | int | None]) -> Progress:
    """Return how far a request's answer got before the restart."""
    given = json.loads(str(context.get(_ANSWER) or "{}"))
    return Progress(**{**given, "references": tuple(given.get("references", ()))})


def keep_progress(rid: str, progress: Progress) -> Write:
    """Note how far an answer got."""
    return _put(rid, _ANSWER, asdict(progress))


def keep_statuses(rid: str, statuses: Mapping[int, int]) -> Write:
    """Note what was reported of an answer: TP-ST by part, counted from 0."""
    return _put(rid, _REPORTS, {str(part): status for part, status in statuses.items()})


def reported(reference: int, recipient: str) -> Write:
    """Return as `Reported` the newest part that was sent to a number with this message reference, or None."""

    def look(db: sqlite3.Connection) -> Reported | None:
        rows = db.execute(
            "SELECT rid, json_extract(asked, ?), json_extract(asked, ?) FROM requests"
            " WHERE door = ? AND peer = ? ORDER BY rowid DESC LIMIT ?",
            (f"$.context.{_ANSWER}", f"$.context.{_REPORTS}", Door.SMS.value, recipient, REPORTABLE),
        )
        for rid, answer, reports in rows:
            progress = progress_of({_ANSWER: answer})
            if reference in progress.references:
                statuses = {int(part): status for part, status in json.loads(reports or "{}").items()}
                return Reported(rid, progress.references.index(reference), progress, statuses)
        return None

    return look


_ANSWER: Final = "answer"
_REPORTS: Final = "reports"


def _put(rid: str, name: str, value: Mapping[str, Any]) -> Write:
    text = json.dumps(value)
    sql = "UPDATE requests SET asked = json_set(asked, ?, ?) WHERE rid = ?"
    return lambda db: db.execute(sql, (f"$.context.{name}", text, rid)).rowcount
