# SPDX-License-Identifier: Apache-2.0
"""What is written to the ledger's tables and read from them; each function returns a write for the writer."""

import base64
import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from atrund.atrun.request import Door, End, Outcome, Reason, Request
from atrund.ledger import outbox
from atrund.ledger.writer import Write

REQUESTS_MAX: Final = 10_000
"""Ended requests remembered, the newest (MQ-2)."""
MESSAGES_SPAN: Final = 30 * 86400.0
"""Seconds of running for which a judged SMS is remembered (SMS-11)."""
MESSAGES_MAX: Final = 20_000
"""Judged SMS remembered, the newest, beside what lies in a store: one in 130 s for all that span; some 4 MB."""

INLINE: Final = 500
"""Characters of a request's line and what goes with it, past which it may take pages of its own (1024 octets each)."""

RECORDED: Final = "recorded"
SENT: Final = "sent"


@dataclass(frozen=True, slots=True)
class Known:
    """A request as the ledger has it: `state` is `recorded`, `sent` or `ended`."""

    request: Request
    state: str
    digest: str
    outcome: Outcome | None
    answered: bool
    ended: float | None = None
    """Seconds that the daemon had run when the outcome was recorded; None without one."""


def content_digest(request: Request) -> str:
    """Return what tells two contents under one key apart."""
    body = None if request.body is None else hashlib.sha256(request.body).hexdigest()
    return hashlib.sha256(f"{request.line}\0{body}".encode()).hexdigest()[:32]


def record(request: Request, run: float) -> Write:
    """Insert a request as recorded; the write returns None, or what is `Known` under its key already.

    Those that are `REQUESTS_MAX` behind it and were answered are forgotten.
    """

    def write(db: sqlite3.Connection) -> Known | None:
        if request.key and (known := _one(db, _BY_KEY, (request.door.value, request.key))):
            return known
        added = db.execute(
            "INSERT INTO requests (rid, door, peer, key, digest, line, asked, state, run) VALUES (?,?,?,?,?,?,?,?,?)",
            (
                request.rid,
                request.door.value,
                request.peer,
                request.key,
                content_digest(request),
                request.line,
                _asked(request),
                RECORDED,
                run,
            ),
        )
        db.execute("DELETE FROM requests WHERE rowid <= ? AND answered = 1", ((added.lastrowid or 0) - REQUESTS_MAX,))
        return None

    return write


def mark_sent(rid: str) -> Write:
    """Note that the command is about to reach the module."""
    return _without_trace(rid, _change("UPDATE requests SET state = ? WHERE rid = ? AND outcome IS NULL", (SENT, rid)))


def mark_ended(rid: str, outcome: Outcome) -> Write:
    """Note the one outcome, at the run clock as it was last kept; a second one changes nothing.

    The secrets of the command line and its body are gone with it: what is not run any more is shown at most (POL-3).
    """
    end = _change(
        "UPDATE requests SET state = 'ended', outcome = ?, ended = (SELECT value FROM meta WHERE name = 'run'),"
        " line = mask_line(line), asked = json_remove(asked, '$.body') WHERE rid = ? AND outcome IS NULL",
        (_outcome_to_json(outcome), rid),
    )
    return _without_trace(rid, end)


def mark_answered(rid: str) -> Write:
    """Note that the asker has the answer, or never will."""
    return _change("UPDATE requests SET answered = 1 WHERE rid = ?", (rid,))


def known_by_rid(door: Door, peer: str, rid: str) -> Write:
    """Return an asker's request by its own id, or None."""
    return lambda db: _one(db, "door = ? AND peer = ? AND rid = ?", (door.value, peer, rid))


def known_by_key(door: Door, key: str) -> Write:
    """Return the request under a key, or None."""
    return lambda db: _one(db, _BY_KEY, (door.value, key))


def unfinished(door: Door) -> Write:
    """Return a door's requests that are not ended, or not answered though an answer is owed; oldest first."""

    def look(db: sqlite3.Connection) -> list[Known]:
        rows = db.execute(
            f"SELECT {_COLUMNS} FROM requests WHERE door = ? AND (outcome IS NULL OR answered = 0) ORDER BY run, rowid",  # noqa: S608 - constants
            (door.value,),
        )
        return [_known(row) for row in rows]

    return look


def remember_message(key: str, verdict: str, run: float, *, anew: bool = False) -> Write:
    """Note that an SMS was judged; one that has a verdict keeps it, unless it was decided `anew`."""
    clash = "DO UPDATE SET verdict = excluded.verdict" if anew else "DO NOTHING"
    return _change(
        f"INSERT INTO messages (key, verdict, run) VALUES (?,?,?) ON CONFLICT (key) {clash}",  # noqa: S608 - constants
        (key, verdict, run),
    )


def message_verdicts() -> Write:
    """Return the verdict of every remembered SMS by its key."""
    return lambda db: dict(db.execute("SELECT key, verdict FROM messages"))


def counts() -> Write:
    """Return how much is in each table, for the status.

    `outbox` and `spool_bytes` are what waits for the broker, `aside` what was set aside of it, and `dropped` how many
    records ever gave way for room.
    """

    def look(db: sqlite3.Connection) -> dict[str, int]:
        tables = ("requests", "audit", "messages", "history")
        found = {name: db.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in tables}  # noqa: S608 - constants
        return {**found, **outbox.waiting()(db), "dropped": int(get_meta("dropped", 0)(db))}

    return look


def get_meta(name: str, default: float) -> Write:
    """Return a number kept under a name."""

    def look(db: sqlite3.Connection) -> float:
        row = db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return default if row is None else float(row[0])

    return look


def set_meta(name: str, value: float) -> Write:
    """Keep a number under a name."""
    return _change(
        "INSERT INTO meta VALUES (?,?) ON CONFLICT (name) DO UPDATE SET value = excluded.value", (name, value)
    )


def get_text(name: str) -> Write:
    """Return a text kept under a name, or ""."""

    def look(db: sqlite3.Connection) -> str:
        row = db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return "" if row is None else str(row[0])

    return look


def set_text(name: str, text: str) -> Write:
    """Keep a text under a name."""
    return _change(
        "INSERT INTO meta VALUES (?,?) ON CONFLICT (name) DO UPDATE SET value = excluded.value", (name, text)
    )


def keep_run(run: float) -> Write:
    """Keep how long the daemon has run (REQ-11), which never goes back."""
    return _change(
        "INSERT INTO meta VALUES ('run', ?) ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)", (run,)
    )


def prune(run: float, still_there: Iterable[str] = ()) -> tuple[Write, ...]:
    """Forget the messages that are past span or cap, save those whose keys are `still_there` in a store."""
    kept = json.dumps(list(still_there))
    past = "run < ? OR rowid <= (SELECT rowid FROM messages ORDER BY rowid DESC LIMIT 1 OFFSET ?)"
    forget = f"DELETE FROM messages WHERE ({past}) AND key NOT IN (SELECT value FROM json_each(?))"  # noqa: S608 - constant
    return (_change(forget, (run - MESSAGES_SPAN, MESSAGES_MAX, kept)),)


_COLUMNS: Final = "rid, door, peer, key, digest, line, asked, state, outcome, answered, ended, run"


def _change(sql: str, values: tuple[object, ...]) -> Callable[[sqlite3.Connection], int]:
    return lambda db: db.execute(sql, values).rowcount


def _without_trace(rid: str, change: Callable[[sqlite3.Connection], int]) -> Write:
    """Change a request so that nothing of what it was is left in the file's pages."""

    def write(db: sqlite3.Connection) -> int:
        long = "SELECT 1 FROM requests WHERE rid = ? AND length(line) + length(asked) > ?"
        if db.execute(long, (rid, INLINE)).fetchone() is None:
            return change(db)
        # FAST, which costs nothing, leaves what was in a page that is given back whole.
        db.execute("PRAGMA secure_delete=ON")
        try:
            return change(db)
        finally:
            db.execute("PRAGMA secure_delete=FAST")

    return write


_BY_KEY: Final = "door = ? AND key = ? AND key <> ''"
"""In the words of the index, which holds no empty keys: without them all requests would be read."""


def _one(db: sqlite3.Connection, where: str, values: tuple[str, ...]) -> Known | None:
    row = db.execute(f"SELECT {_COLUMNS} FROM requests WHERE {where}", values).fetchone()  # noqa: S608 - constants
    return None if row is None else _known(row)


def _known(row: tuple[Any, ...]) -> Known:
    rid, door, peer, key, digest, line, asked, state, outcome, answered, ended, run = row
    given = json.loads(asked)
    names = tuple(given.pop("names", ()))
    body = base64.b64decode(given.pop("body")) if "body" in given else None
    request = Request(rid=rid, door=Door(door), peer=peer, line=line, key=key, names=names, body=body, **given)
    if outcome is None:
        return Known(request, state, digest, None, bool(answered))
    # One that an earlier version wrote has no time of its end, and is taken to be as old as its request.
    since = float(run if ended is None else ended)
    return Known(request, state, digest, _outcome_from_json(outcome), bool(answered), since)


def _asked(request: Request) -> str:
    return json.dumps(
        {
            "timeout": request.timeout,
            "delay": request.delay,
            "instance": request.instance,
            "reply": request.reply,
            "expires": request.expires,
            "names": request.names,
            "forgeable": request.forgeable,
            "context": dict(request.context),
            **({} if request.body is None else {"body": base64.b64encode(request.body).decode()}),
        }
    )


def _outcome_to_json(outcome: Outcome) -> str:
    return json.dumps(
        {
            "end": outcome.end.value,
            "reason": outcome.reason and outcome.reason.value,
            "final": outcome.final,
            "lines": outcome.lines,
            "framed": outcome.framed,
            "truncated": outcome.truncated,
            "queued_ms": outcome.queued_ms,
            "duration_ms": outcome.duration_ms,
            "detail": outcome.detail,
        }
    )


def _outcome_from_json(text: str) -> Outcome:
    given = json.loads(text)
    reason = given.pop("reason")
    return Outcome(
        end=End(given.pop("end")),
        reason=None if reason is None else Reason(reason),
        lines=tuple(given.pop("lines")),
        **given,
    )
