# SPDX-License-Identifier: Apache-2.0
"""What is written to the ledger's tables and read from them; each function returns a write for the writer."""

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from atrund.atrun.request import Door, End, Outcome, Reason, Request
from atrund.ledger.writer import Write

REQUESTS_MAX: Final = 10_000
"""Ended requests remembered, the newest (MQ-2)."""
OUTBOX_MAX: Final = 20_000
OUTBOX_OCTETS: Final = 32 * 1024**2
"""Rows that wait for the broker, and octets of them (`mqtt.spool_records`, `mqtt.spool_bytes`)."""
TRIM_EVERY: Final = 128
"""Rows put into the outbox between two looks at its caps, so many may be over: a look reads all of it."""
AUDIT_MAX: Final = 50_000
"""Audit rows kept, the newest: some 10 MB."""
MESSAGES_SPAN: Final = 30 * 86400.0
"""Seconds of running for which a judged SMS is remembered (SMS-11)."""
MESSAGES_MAX: Final = 20_000
"""Judged SMS remembered, the newest, beside what lies in a store: one in 130 s for all that span; some 4 MB."""

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


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the outbox. `extra` holds MQTT 5 properties by name."""

    seq: int
    response: bool
    topic: str
    payload: dict[str, Any]
    extra: dict[str, str]


def content_digest(request: Request) -> str:
    """Return what tells two contents under one key apart."""
    return hashlib.sha256(f"{request.line}\0{request.context.get('body')}".encode()).hexdigest()[:32]


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
    return _change("UPDATE requests SET state = ? WHERE rid = ? AND outcome IS NULL", (SENT, rid))


def mark_ended(rid: str, outcome: Outcome) -> Write:
    """Note the one outcome, at the run clock as it was last kept; a second one changes nothing.

    The secrets of the command line are gone with it: what is not run any more is shown at most (POL-3).
    """
    return _change(
        "UPDATE requests SET state = 'ended', outcome = ?, ended = (SELECT value FROM meta WHERE name = 'run'),"
        " line = mask_line(line) WHERE rid = ? AND outcome IS NULL",
        (_outcome_to_json(outcome), rid),
    )


def mark_answered(rid: str) -> Write:
    """Note that the asker has the answer, or never will."""
    return _change("UPDATE requests SET answered = 1 WHERE rid = ?", (rid,))


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


def post(
    *,
    response: bool,
    topic: str,
    payload: str,
    extra: Mapping[str, str] | None = None,
    records: int = OUTBOX_MAX,
    octets: int = OUTBOX_OCTETS,
) -> Write:
    """Put a message into the outbox.

    Every `TRIM_EVERY` of them its mirror rows past `records` or `octets` give way, the oldest first, then what came in
    on `sms/received`, never an answer; they are counted as `dropped`.
    """
    values = (int(response), topic, payload, json.dumps(dict(extra or {})))

    def write(db: sqlite3.Connection) -> None:
        added = db.execute("INSERT INTO outbox (response, topic, payload, extra) VALUES (?,?,?,?)", values)
        if (added.lastrowid or 0) % TRIM_EVERY == 0:
            _trim_outbox(db, records, octets)

    return write


def outbox_after(seq: int, limit: int) -> Write:
    """Return the next rows behind `seq`."""

    def look(db: sqlite3.Connection) -> list[Row]:
        rows = db.execute(
            "SELECT seq, response, topic, payload, extra FROM outbox WHERE seq > ? ORDER BY seq LIMIT ?", (seq, limit)
        )
        return [
            Row(n, bool(response), topic, json.loads(text), json.loads(extra))
            for n, response, topic, text, extra in rows
        ]

    return look


def posted(seqs: Iterable[int]) -> Write:
    """Take acknowledged rows out of the outbox."""
    given = [(seq,) for seq in seqs]
    return lambda db: db.executemany("DELETE FROM outbox WHERE seq = ?", given).rowcount


def audit(
    *,
    ts: str,
    rid: str,
    door: str,
    peer: str,
    line: str,
    event: str,
    reason: str | None = None,
    rule: str | None = None,
    duration_ms: int | None = None,
) -> Write:
    """Note who did what through which door, what was decided and by which rule (POL-4); the oldest row makes room."""
    columns = "ts, rid, door, peer, line, event, reason, rule, duration_ms"
    values = (ts, rid, door, peer, line, event, reason, rule, duration_ms)

    def write(db: sqlite3.Connection) -> None:
        added = db.execute(f"INSERT INTO audit ({columns}) VALUES (?,?,?,?,?,?,?,?,?)", values)  # noqa: S608 - constant
        db.execute("DELETE FROM audit WHERE n <= ?", ((added.lastrowid or 0) - AUDIT_MAX,))

    return write


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
    """Return how much is in each table, for the status, and how many rows of the mirror were ever `dropped`."""

    def look(db: sqlite3.Connection) -> dict[str, int]:
        tables = ("requests", "outbox", "audit", "messages", "history")
        found = {name: db.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in tables}  # noqa: S608 - constants
        return {**found, "dropped": int(get_meta("dropped", 0)(db))}

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


_OCTETS: Final = "length(CAST(topic AS BLOB)) + length(CAST(payload AS BLOB)) + length(CAST(extra AS BLOB))"


_DROPPABLE: Final = ("response = 0", "response = 1 AND topic LIKE '%/sms/received'")
"""What gives way for room, in this order. Anybody can send an SMS: without an end it would fill the disk (MQ-5)."""


def _trim_outbox(db: sqlite3.Connection, records: int, octets: int) -> None:
    rows, size = db.execute(f"SELECT count(*), total({_OCTETS}) FROM outbox").fetchone()  # noqa: S608 - constant
    dropped = 0
    for which in _DROPPABLE:
        last = 0
        for seq, own in db.execute(f"SELECT seq, {_OCTETS} FROM outbox WHERE {which} ORDER BY seq"):  # noqa: S608 - as above
            if rows - dropped <= records and size <= octets:
                break
            dropped, last, size = dropped + 1, seq, size - own
        if last:
            db.execute(f"DELETE FROM outbox WHERE seq <= ? AND {which}", (last,))  # noqa: S608 - as above
    if dropped:
        db.execute(
            "INSERT INTO meta VALUES ('dropped', ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
            (dropped,),
        )


def _change(sql: str, values: tuple[object, ...]) -> Callable[[sqlite3.Connection], int]:
    return lambda db: db.execute(sql, values).rowcount


_BY_KEY: Final = "door = ? AND key = ? AND key <> ''"
"""In the words of the index, which holds no empty keys: without them all requests would be read."""


def _one(db: sqlite3.Connection, where: str, values: tuple[str, ...]) -> Known | None:
    row = db.execute(f"SELECT {_COLUMNS} FROM requests WHERE {where}", values).fetchone()  # noqa: S608 - constants
    return None if row is None else _known(row)


def _known(row: tuple[Any, ...]) -> Known:
    rid, door, peer, key, digest, line, asked, state, outcome, answered, ended, run = row
    given = json.loads(asked)
    names = tuple(given.pop("names", ()))
    request = Request(rid=rid, door=Door(door), peer=peer, line=line, key=key, names=names, **given)
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
