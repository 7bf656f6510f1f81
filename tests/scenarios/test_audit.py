# SPDX-License-Identifier: Apache-2.0
"""What a running daemon leaves behind of a request: one id through log and audit, whichever door; and the chain."""

import json
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.scenarios.conftest import Stage
from tests.scenarios.players import BASE, Broker, Caller, Daemon, Ear, Module, until

PAGE = Path(__file__).parents[2] / "docs" / "audit.md"
FRIEND = "+393468686711"
STRANGER = "+390000000001"
LINES = {"tcp": "AT+CSQ;+CSQ", "local": "AT+CSQ;#CGMI", "sms": "AT#CGMI;+CSQ", "mqtt": "AT#CGMI;#CGMI"}
REFUSED = {door: f"{line};+CFUN=4" for door, line in LINES.items()}


@dataclass(frozen=True)
class Scene:
    module: Module
    broker: Broker
    daemon: Daemon
    ear: Ear

    def audit(self, *arguments: str) -> list[dict[str, Any]]:
        done = self.daemon.ctl("audit", "--json", *arguments)
        assert done.returncode == 0, done.stderr
        rows: list[dict[str, Any]] = json.loads(done.stdout)
        return rows

    def row(self, *arguments: str) -> dict[str, Any]:
        """Wait for the one row that is looked for: those of TCP and local commands are written a little later."""
        (row,) = until(lambda: self.audit(*arguments), f"a row by {arguments}")
        return row


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """All doors asked for one thing that is run, and for one that is refused."""
    with ExitStack() as stack:
        stage = Stage(tmp_path_factory.mktemp("audit"), stack)
        module, broker = stage.module("--send-delay", "0"), stage.broker()
        ear = stage.ear(broker)
        daemon = stage.daemon(module, broker)
        daemon.configure(sms={"enabled": True, "numbers": [FRIEND]}, log={"audit_chain": True})
        daemon.file.write_text(f'{daemon.file.read_text()}\n[policy.local]\nhazards = "refuse"\n')
        daemon.start()
        for lines in (LINES, REFUSED):
            with Caller(daemon.tcp) as caller:
                caller.ask(f"{lines['tcp']}\r".encode(), b"OK\r\n" if lines is LINES else b"ERROR\r\n")
            daemon.ctl("at", lines["local"])
            module.ask("sms", **{"from": FRIEND, "text": lines["sms"]})
            broker.publish("at/request/alice", json.dumps({"id": f"of {lines['mqtt']}", "cmd": lines["mqtt"]}))
            for door, line in lines.items():
                daemon.heard("command", door=door, command=line)
        yield Scene(module, broker, daemon, ear)


@pytest.mark.parametrize("door", LINES)
def test_a_request_is_told_by_one_id_from_its_asker_to_its_outcome(scene: Scene, door: str) -> None:
    """REQ-2, POL-4"""
    told = scene.daemon.heard("command", door=door, command=LINES[door])
    assert (told["state"], told["final"], told["level"]) == ("ok", "OK", "info")
    assert told["duration_ms"] >= 0
    if door in {"sms", "mqtt"}:
        taken = scene.daemon.heard("command taken", id=told["id"])
        assert (taken["peer"], taken["command"], taken["level"]) == (told["peer"], LINES[door], "info")
    row = scene.row("--id", told["id"])
    assert (row["door"], row["peer"], row["line"], row["event"]) == (door, told["peer"], LINES[door], "ok")
    assert row["duration_ms"] == told["duration_ms"]
    expected = {"tcp": "127.0.0.1", "sms": FRIEND, "mqtt": "alice", "local": told["peer"]}
    assert told["peer"] == expected[door]
    assert (told.get("who"), row["who"]) == (("operator", "operator") if door == "tcp" else (None, ""))
    assert told.get("correlation") == (f"of {LINES['mqtt']}" if door == "mqtt" else None)
    assert scene.ear.hear("event/response", rid=told["id"])["state"] == "ok"
    steps = ["command"]
    if door == "sms":
        sent = scene.daemon.heard("answer sent", id=told["id"])
        assert (sent["peer"], sent["parts"], len(sent["references"])) == (FRIEND, 1, 1)
        steps = ["command taken", "command", "answer sent"]
    elif door == "mqtt":
        scene.daemon.heard("answer published", id=told["id"], topic=f"{BASE}at/response")
        steps = ["command taken", "command", "answer published"]
    story = [entry["event"] for entry in scene.daemon.log if entry.get("id") == told["id"]]
    assert story == steps, "no more than has to be"


@pytest.mark.parametrize("door", LINES)
def test_who_was_refused_and_why_is_told_at_every_door(scene: Scene, door: str) -> None:
    """POL-4: the decision and its rule."""
    told = scene.daemon.heard("command", door=door, command=REFUSED[door])
    assert (told["state"], told["reason"], told["level"]) == ("rejected", "policy", "notice")
    row = scene.row("--door", door, "--event", "rejected")
    assert (row["rid"], row["reason"], row["line"]) == (told["id"], "policy", REFUSED[door])
    assert row["rule"] == told["detail"]
    assert row["rule"].startswith("+CFUN: ")
    assert row["peer"] == told["peer"]


def test_who_is_no_asker_at_all_is_told_as_well(scene: Scene) -> None:
    with Caller(scene.daemon.tcp, login=False) as caller:
        caller.send(b"operator\rwrong\r")
        caller.rest()
    assert scene.row("--event", "login refused")["reason"] == "auth"
    scene.module.ask("sms", **{"from": STRANGER, "text": "AT+CSQ"})
    row = scene.row("--peer", STRANGER)
    assert row["event"] == "sms not accepted"
    assert "white list" in row["reason"]
    assert scene.daemon.heard("login refused")["level"] == "notice"


def test_rows_are_found_by_who_and_when_and_shown_in_local_time(scene: Scene) -> None:
    assert {row["door"] for row in scene.audit("--peer", "operator", "--limit", "9")} == {"tcp"}
    assert scene.audit("--until", "yesterday") == []
    every = scene.audit("--since", "-1h")
    assert [row["n"] for row in every] == sorted(row["n"] for row in every)
    assert len(every) > 10
    said = scene.daemon.ctl("audit", "--peer", "alice")
    assert "mqtt alice  rejected  policy  " in said.stdout
    (first, *_) = said.stdout.split("  ")
    again = scene.daemon.ctl("audit", "--peer", "alice", "--since", first, "--until", first)
    assert again.stdout.splitlines()[0] == said.stdout.splitlines()[0], "a time can be given as it is shown"
    assert f"\n    {REFUSED['mqtt']}\n" in said.stdout


def test_the_chain_and_its_head(scene: Scene) -> None:
    done = scene.daemon.ctl("audit", "verify", "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["on"], found["faults"]) == (0, True, 0)
    assert found["chained"] == found["rows"] > 10
    said = scene.daemon.ctl("audit", "verify", "--head", found["head"])
    assert said.returncode == 0
    assert f"UNCHANGED up to row {found['last']}" in said.stdout
    assert "That is all that this can show" in said.stdout
    assert scene.daemon.heard("audit head")["head"].startswith("1:")
    n, _, hashed = found["head"].partition(":")
    wrong = scene.daemon.ctl("audit", "verify", "--head", f"{n}:{hashed[::-1]}")
    assert (wrong.returncode, "CHANGED" in wrong.stderr) == (1, True)


def examples(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_the_examples_of_the_page(scene: Scene, tmp_path: Path) -> None:
    """With an id and a head of this run in the place of those."""
    told = scene.daemon.heard("command", door="local", command=LINES["local"])
    head = json.loads(scene.daemon.ctl("audit", "verify", "--json").stdout)["head"]
    copy = tmp_path / "copy.db"
    with closing(sqlite3.connect(scene.daemon.state / "ledger.db")) as db, closing(sqlite3.connect(copy)) as other:
        db.backup(other)
    lines = [line for block in examples("sh") for line in block.splitlines() if line.startswith("atrunctl ")]
    assert len(lines) > 8
    for shown in lines:
        line = re.sub("[0-9a-f]{32}", told["id"], shown).replace("4711:5f2b…", head)
        words = shlex.split(line.replace("/mnt/copy/ledger.db", str(copy)))
        done = scene.daemon.ctl(*words[1:])
        assert done.returncode == 0, (line, done.stderr)
        assert done.stdout or "refused" in line, line
    (program,) = examples("python")
    done = subprocess.run(
        [sys.executable, "-c", program, copy], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, head)
    with closing(sqlite3.connect(copy, isolation_level=None)) as db:
        db.execute("UPDATE audit SET peer = 'x' WHERE n = 4")
    done = subprocess.run(
        [sys.executable, "-c", program, copy], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (1, "row 4 or one before it was changed\n")


def test_a_row_that_is_changed_in_the_file_is_found(stage: Stage) -> None:
    daemon = stage.daemon()
    daemon.configure(log={"audit_chain": True})
    daemon.start()
    for _ in range(3):
        assert daemon.ctl("at", "AT+CSQ").returncode == 1, "there is no module"
    daemon.stop()
    file = daemon.state / "ledger.db"
    copy = daemon.folder / "copy.db"
    shutil.copy(file, copy)
    whole = daemon.ctl("audit", "verify", "--json", "--file", str(copy))
    head = json.loads(whole.stdout)["head"]
    assert daemon.ctl("audit", "verify", "--file", str(file), "--head", head).returncode == 0
    with closing(sqlite3.connect(file, isolation_level=None)) as db:
        assert db.execute("UPDATE audit SET line = 'AT' WHERE line = 'AT+CSQ' AND n = 3").rowcount == 1
    daemon.start()
    assert daemon.ctl("at", "AT+CSQ").returncode == 1
    said = daemon.ctl("audit", "verify", "--head", head)
    assert said.returncode == 1
    assert "CHANGED: rows that don't fit, for they or what was before them are others now: 3\n" in said.stderr
    assert "UNCHANGED" not in said.stdout
    assert daemon.ctl("audit", "verify", "--file", str(copy), "--head", head).returncode == 0


def test_the_tail_that_was_taken_off_shows_against_a_head(stage: Stage) -> None:
    daemon = stage.daemon()
    daemon.configure(log={"audit_chain": True})
    daemon.start()
    daemon.ctl("at", "AT+CSQ")
    head = until(
        lambda: (
            json.loads(daemon.ctl("audit", "verify", "--json").stdout).get("head", "1:").partition(":")[0] > "1"
            and json.loads(daemon.ctl("audit", "verify", "--json").stdout)["head"]
        ),
        "a head",
    )
    daemon.kill()
    with closing(sqlite3.connect(daemon.state / "ledger.db", isolation_level=None)) as db:
        db.execute("DELETE FROM audit WHERE n > 1")
    daemon.start()
    assert daemon.ctl("audit", "verify").returncode == 0, "of itself it can't know"
    said = daemon.ctl("audit", "verify", "--head", head)
    assert (said.returncode, "rows were taken off the end" in said.stderr) == (1, True)
