# SPDX-License-Identifier: Apache-2.0
"""A process killed at any step: what was promised is there at the next start."""

import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from atrund.atrun.request import Door
from atrund.ledger import outbox, tables
from atrund.ledger.schema import open_file

PROGRAM = """
import asyncio, json, os, sys
from pathlib import Path
from atrund.atrun.request import Door, End, Outcome, Request
from atrund.ledger import audit as audits, open_ledger, outbox, tables

folder = Path(sys.argv[1])
ran = os.open(folder / "ran", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())
    os.read(0, 1)  # until it may go on

def audit(rid, event):
    return audits.note(ts="", rid=rid, door="mqtt", peer="", line="AT", event=event)

def post(rid, what, response):
    return outbox.post(response=response, topic="t", payload=f'{{"rid":"{rid}","what":"{what}"}}')

async def main():
    ledger = open_ledger(folder)
    await ledger.start()
    say("start", ledger.run)

    async def durable(rid, step, *writes):
        say("begin", rid, step, ledger.run)
        run = ledger.run
        await ledger.durable(*writes, audit(rid, step))
        say("done", rid, step, run)

    async def end(rid, outcome):
        await durable(rid, "ended", tables.mark_ended(rid, outcome), post(rid, "answer", True))

    async def run(rid):
        await durable(rid, "sent", tables.mark_sent(rid))
        os.write(ran, f"{rid}\\n".encode())
        await end(rid, Outcome(End.OK, final="OK"))

    async def drain(last=0):
        for row in await ledger.ask(outbox.after(0)):
            payload = json.loads(row.payload)
            say("row", row.seq, payload["rid"], payload["what"], int(row.response))
            if row.response:
                await durable(payload["rid"], "answered", tables.mark_answered(payload["rid"]))
            ledger.behind(outbox.posted((row.seq,)))

    for known in await ledger.ask(tables.unfinished(Door.MQTT)):
        rid = known.request.rid
        if known.state == "recorded":
            await run(rid)
        elif known.state == "sent":
            await end(rid, Outcome(End.LOST))
    await drain()
    for number in range(1000):
        rid = f"{sys.argv[2]}-{number}"
        request = Request(rid=rid, door=Door.MQTT, peer="who", line="AT", key=rid)
        ledger.behind(audit(rid, "came"))
        await durable(rid, "recorded", tables.record(request, ledger.run), post(rid, "accepted", False))
        await run(rid)
        await drain()

asyncio.run(main())
"""
ORDER = ("recorded", "sent", "ended", "answered")
HOME = Path(__file__).parents[2]


@dataclass
class Told:
    """What the processes said before they were killed."""

    done: dict[str, int] = field(default_factory=dict)
    """rid: the last step that was promised, as an index into ORDER"""
    begun: dict[str, int] = field(default_factory=dict)
    rows: dict[int, tuple[str, ...]] = field(default_factory=dict)
    run: float = 0.0
    """The run clock at the last promise."""

    def hear(self, line: str) -> None:
        what, *given = line.split()
        if what == "start":
            assert float(given[0]) >= self.run
        elif what == "row":
            seq, row = int(given[0]), tuple(given[1:])
            assert self.rows.setdefault(seq, row) == row, "a number stood for two records"
        else:
            rid, step, run = given
            (self.begun if what == "begin" else self.done)[rid] = ORDER.index(step)
            if what == "done":
                self.run = float(run)


def run_and_kill(folder: Path, name: str, lines: int, told: Told, *, amid: bool = False) -> None:
    """Kill the program when it has said so many lines: where it stands, or amid what it does next."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(folder), name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        cwd=HOME,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin as go, process.stdout as output:
        for number in range(1, lines + 1):
            told.hear(output.readline().decode())
            if number < lines or amid:
                go.write(b".")
        process.send_signal(signal.SIGKILL)
        for line in output:
            told.hear(line.decode())
    assert process.wait() == -signal.SIGKILL


@pytest.fixture
def opened() -> Iterator[list[sqlite3.Connection]]:
    made: list[sqlite3.Connection] = []
    yield made
    for connection in made:
        connection.close()


def state_of(db: sqlite3.Connection, rid: str) -> int:
    known: Any = tables.known_by_key(Door.MQTT, rid)(db)
    if known is None:
        return -1
    assert (known.outcome is not None) == (known.state == "ended")
    return ORDER.index("answered" if known.answered else known.state)


def check(db: sqlite3.Connection, told: Told) -> None:
    steps: dict[str, list[str]] = {}
    for rid, event in db.execute("SELECT rid, event FROM audit WHERE event <> 'came' ORDER BY n"):
        steps.setdefault(rid, []).append(event)
    rows = [json.loads(row.payload) for row in outbox.after(0)(db)]
    posted = {(row["rid"], row["what"]) for row in rows}
    owed = {known.request.rid for known in tables.unfinished(Door.MQTT)(db)}
    for rid in told.begun.keys() | steps.keys():
        state = state_of(db, rid)
        # What was promised is there, and nothing that was not begun.
        assert told.done.get(rid, -1) <= state <= told.begun[rid]
        # A transaction is there whole: the state, its audit row and its outbox row.
        events = steps.get(rid, [])
        while events[-2:] == ["answered"] * 2:  # delivered again, for the broker's acknowledgement was not promised
            events.pop()
        assert events == list(ORDER[: state + 1])
        sent = {(told_rid, what) for told_rid, what, _ in told.rows.values()}
        assert ((rid, "accepted") in posted | sent) == (state >= 0)
        assert ((rid, "answer") in posted | sent) == (state >= ORDER.index("ended"))
        assert (rid in owed) == (0 <= state < ORDER.index("answered"))
    # Numbers go on above all that were ever seen.
    highest = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'").fetchone()
    assert max(told.rows, default=0) <= (highest or (0,))[0]


def test_killed_at_every_step_what_was_promised_is_there(tmp_path: Path, opened: list[sqlite3.Connection]) -> None:
    """REQ-9: nothing promised is lost, nothing is run twice, no number comes again, nothing is there by halves."""
    told = Told()
    run = 0.0
    for number in range(20):
        run_and_kill(tmp_path, f"k{number}", number // 2 + 1, told, amid=number % 2 == 1)
        db = opened_again(tmp_path, opened)
        check(db, told)
        before, run = run, tables.get_meta("run", 0.0)(db)
        assert run >= max(before, told.run)
        db.close()
    ran = (tmp_path / "ran").read_text().split()
    assert len(ran) == len(set(ran)) > 2
    assert len(told.rows) > 2


@pytest.mark.parametrize(("lines", "state", "end"), [(3, "recorded", "ok"), (5, "sent", "lost"), (7, "ended", "ok")])
def test_what_is_recorded_is_run_what_is_sent_is_lost_and_what_is_ended_is_kept(
    tmp_path: Path, opened: list[sqlite3.Connection], lines: int, state: str, end: str
) -> None:
    """REQ-9"""
    told = Told()
    run_and_kill(tmp_path, "a", lines, told)
    db = opened_again(tmp_path, opened)
    (known,) = tables.unfinished(Door.MQTT)(db)
    assert (known.request.rid, known.state) == ("a-0", state)
    db.close()
    run_and_kill(tmp_path, "b", 1 + 2 * (ORDER.index("ended") - ORDER.index(state)) + 1, told)
    known = tables.known_by_key(Door.MQTT, "a-0")(opened_again(tmp_path, opened))
    assert (known.state, known.outcome.end.value) == ("ended", end)
    assert (tmp_path / "ran").read_text().split().count("a-0") == (end == "ok")


def opened_again(folder: Path, opened: list[sqlite3.Connection]) -> sqlite3.Connection:
    opened.append(open_file(folder / "ledger.db"))
    return opened[-1]


LIMITED = """
import asyncio, resource, sys
from pathlib import Path
from atrund.ledger import StorageError, open_ledger, outbox, tables

async def main():
    ledger = open_ledger(Path(sys.argv[1]))
    await ledger.start()
    row = outbox.post(response=True, topic="t", payload='"' + "x" * 20_000 + '"')
    await ledger.durable(row)
    size, hard = 200_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    kept, refused = 1, 0
    for _ in range(40):
        try:
            await ledger.durable(row)
            kept += 1
        except StorageError:
            refused += 1
    looked = (await ledger.ask(tables.counts()))["outbox"]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    await ledger.durable(row)
    await ledger.close()
    print(kept, refused, looked)

asyncio.run(main())
"""


def test_a_file_that_may_not_grow_refuses_and_goes_on_when_it_may(
    tmp_path: Path, opened: list[sqlite3.Connection]
) -> None:
    """REQ-12"""
    ended = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, check=True, cwd=HOME
    )
    kept, refused, looked = map(int, ended.stdout.split())
    assert refused > 20
    assert looked == kept == 41 - refused
    assert tables.counts()(opened_again(tmp_path, opened))["outbox"] == kept + 1
