# SPDX-License-Identifier: Apache-2.0
"""The ledger over an upgrade and back again: an older schema is migrated behind a copy, a newer one is left alone."""

import contextlib
import functools
import hashlib
import json
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.support import guest
from tests.support.guest import check, run
from tests.system.inside import (
    LIBRARY,
    Caller,
    is_up,
    journal,
    over_mqtt,
    say,
    unit,
    until,
)

STATE: Final = Path("/var/lib/atrund")
LEDGER: Final = STATE / "ledger.db"
OLD: Final = 3
LATER: Final = "+393409999999"
ANSWERS: Final = "atrund/box/at/response"
ANEW: Final = 150.0
"""Seconds within which a ledger that was put right is looked at: until then the pauses have grown from 10 to 80."""

AGED = """
import sqlite3, sys
sys.path.insert(0, sys.argv[1])
from atrund.atrun.secrets import mask_line
from atrund.ledger.schema import MIGRATIONS
now, old, version = sys.argv[2:]
db = sqlite3.connect(old, isolation_level=None)
db.create_function("mask_line", 1, mask_line, deterministic=True)
db.execute("PRAGMA journal_mode=WAL")
db.executescript("".join(MIGRATIONS[:int(version)]))
db.execute("ATTACH ? AS now", (now,))
for (table,) in db.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'").fetchall():
    columns = ", ".join(row[1] for row in db.execute(f"PRAGMA main.table_info({table})"))
    db.execute(f"DELETE FROM main.{table}")
    db.execute(f"INSERT INTO main.{table} ({columns}) SELECT {columns} FROM now.{table}")
db.execute(f"PRAGMA user_version={version}")
db.execute("DETACH now")
db.close()
"""
"""Makes of a ledger what an atrund of another version would have: its schema, and what of the rows that knows."""


def an_older_schema() -> None:
    """As an upgrade finds it: one command was running, one waited, and a number was added by command."""
    run("atrunctl", "whitelist", "add", LATER)
    # A session that the broker keeps, so that no answer is missed.
    subscribed = ("mosquitto_sub", "-h", "127.0.0.1", "-c", "-i", "tester", "-q", "1", "-t", ANSWERS)
    run(*subscribed, "-E")
    with _not_restarted():
        run("atrunctl", "sim", "--control", "/run/module.sock", "hang")
        for line, id_, state in (("AT+CGMM", "runs", "sent"), ("AT+CSQ", "waits", "recorded")):
            run(*_PUBLISH, "-m", json.dumps({"cmd": line, "id": id_}))
            until(functools.partial(_is, line, state), f"the one that {id_}")
        pid = int(unit("MainPID"))
        os.kill(pid, signal.SIGKILL)
        until(lambda: unit("MainPID") == "0", "its end")
        run("atrunctl", "sim", "--control", "/run/module.sock", "resume")
        rows = _requests()
        version = _version(LEDGER)
        _age()
        check(_version(LEDGER) == OLD, "it is of no older version")
    run("systemctl", "start", "atrund.service")
    is_up()
    copy = STATE / f"ledger.db.v{OLD}"
    check(run("stat", "--format=%U %a", str(copy)).strip() == "atrund 600", "the copy is not its owner's alone")
    check(_version(copy) == OLD and _version(LEDGER) == version, "the versions of copy and ledger")
    check(not list(STATE.glob("*.part")), "half a copy is left")
    check(_requests(copy) == rows <= _requests(), "requests are missing")
    entries = until(lambda: journal("ATRUND_BEFORE=3"), "the word of it in the journal")
    check(str(copy) in json.dumps(entries), f"the copy is not named in {entries}")
    heard = [json.loads(line) for line in run(*subscribed, "-C", "2", "-W", "60").splitlines()]
    states = {answer["id"]: answer["state"] for answer in heard}
    check(states == {"runs": "lost", "waits": "ok"}, f"what was in flight ended as {states}")
    check(over_mqtt("AT+CSQ", "second")["state"] == "ok", "the record of before")
    check(LATER in run("atrunctl", "whitelist", "list"), "a setting made by command is lost")
    run("atrunctl", "whitelist", "remove", LATER)
    say(f"migrated from schema {OLD} to {version}: {rows} requests, those in flight and settings are there; {copy}")


def a_newer_schema() -> None:
    """As an older atrund finds it that was installed again."""
    run("systemctl", "stop", "atrund.service")
    version = _version(LEDGER)
    _set_version(version + 1)
    before = _sums()
    run("systemctl", "start", "atrund.service")
    check(unit("ActiveState") == "active" and unit("NRestarts") == "0", "it did not start at once")
    said = f"{LEDGER}: written by a newer atrund (version {version + 1}; this one knows {version}), left as it is"
    words = until(lambda: _told(said), "what is wrong, in the journal")
    check(f"put the copy ledger.db.v{OLD} in their place: what was recorded since is lost" in words, words)
    until(lambda: "ledger unusable" in unit("StatusText"), "the word of it in the status")
    # REQ-12: what needs no promise goes on, so that it can be mended from afar.
    is_up()
    check("OK" in run("atrunctl", "at", "AT"), "the local door")
    with Caller() as caller:
        check("OK" in caller.asks("AT+CGMM"), "the TCP door")
    until(lambda: over_mqtt("AT+CSQ", "third").get("reason") == "storage", "that MQTT is refused")
    check(_sums() == before, "something was changed beside the ledger or in it")
    pid = unit("MainPID")
    _set_version(version)
    guest.until(lambda: unit("MainPID") not in {pid, "0"}, "a start with the ledger that was put right", ANEW)
    is_up()
    check(over_mqtt("AT+CSQ", "second")["state"] == "ok", "the record of before")
    say("a newer ledger: said, left alone to the byte, TCP and local went on; put right, it was taken up")


_PUBLISH: Final = ("mosquitto_pub", "-h", "127.0.0.1", "-q", "1", "-t", "atrund/box/at/request/tester")


def _told(text: str) -> str:
    words = run("journalctl", "--no-pager", "--unit=atrund.service", "--lines=40", "--output=cat")
    return words if text in words else ""


@contextlib.contextmanager
def _not_restarted() -> Iterator[None]:
    """Systemd leaves it dead meanwhile."""
    drop_in = Path("/run/systemd/system/atrund.service.d/dead.conf")
    drop_in.parent.mkdir(parents=True, exist_ok=True)
    drop_in.write_text("[Service]\nRestart=no\n")
    run("systemctl", "daemon-reload")
    try:
        yield
    finally:
        shutil.rmtree(drop_in.parent)
        run("systemctl", "daemon-reload")


def _age() -> None:
    """Put an older ledger with the same rows in the place of the present one."""
    aged = STATE / "aged.db"
    run(sys.executable, "-I", "-B", "-c", AGED, LIBRARY, str(LEDGER), str(aged), str(OLD))
    for file in STATE.glob("ledger.db*"):
        file.unlink()
    aged.rename(LEDGER)
    shutil.chown(LEDGER, "atrund", "atrund")
    LEDGER.chmod(0o600)


def _open(file: Path, *, mode: str = "ro") -> "contextlib.closing[sqlite3.Connection]":
    more = "" if file == LEDGER else "&immutable=1"  # nothing is put beside a copy
    name = f"file:{file}?mode={mode}{more}"
    return contextlib.closing(sqlite3.connect(name, uri=True, isolation_level=None, timeout=30))


def _version(file: Path) -> int:
    with _open(file) as db:
        return int(db.execute("PRAGMA user_version").fetchone()[0])


def _set_version(version: int) -> None:
    with _open(LEDGER, mode="rw") as db:
        db.execute(f"PRAGMA user_version={version}")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _requests(file: Path = LEDGER) -> int:
    with _open(file) as db:
        return int(db.execute("SELECT count(*) FROM requests").fetchone()[0])


def _is(line: str, state: str) -> bool:
    """Whether the newest request with this line is in this state."""
    with _open(LEDGER) as db:
        rows = db.execute("SELECT state FROM requests WHERE line = ? ORDER BY rowid DESC LIMIT 1", (line,))
        return bool(rows.fetchone() == (state,))


def _sums() -> dict[str, str]:
    """What is in the folder, file by file."""
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(STATE.iterdir())}
