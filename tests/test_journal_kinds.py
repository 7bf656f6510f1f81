# SPDX-License-Identifier: Apache-2.0
"""Kinds of events: each entry's MESSAGE_ID, its priority, and that the journal's catalogue explains every one."""

import ast
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from atrund import journal
from atrund.journal.bounds import MORE
from atrund.journal.kinds import FAMILIES, LIBRARY, NOTICES, kind_of, message_id

ROOT = Path(__file__).parents[1]
CATALOGUE = ROOT / "packaging" / "systemd" / "atrund.catalog"
LEVELS = ("info", "warning", "error", "exception", "critical")

WORDED = {
    "daemon.py": ["module rebooted", "module not rebooted"],
    "doors/certificates.py": ["certificates can't be used", "certificates not read anew, those of before stay"],
    "doors/local.py": ["status refused", "port not lent", "administration refused"],
    "doors/room.py": ["sms store full: messages wait in the network", "sms store nearly full"],
    "mirror.py": [],
    "reload.py": ["needs a restart: node"],
    "steps.py": ["command not done yet", "command found after a restart"],
}
"""Where the text of an entry is made elsewhere, and what it can be; of `mirror.py` see `RECORDED`."""

RECORDED = [
    "cancel", "cancel refused", "connected", "disconnected", "connection lost: it broke", "login operator",
    "login refused", "token right", "token refused", "refused", "refused for the 11th time this hour",
    "handshake failed", "handshake failed for the 12th time this hour", "shut out for 900 s", "replaced by 192.0.2.7",
    "certificate of box", "transparent mode: serial port 1 at 115200", "transparent mode ended: +++: 3 in, 4 out",
    "call failed", "event RING", "event RING not run", "command to be confirmed within 300 s", "command confirmed",
    "command not confirmed in time", "command undone", "answer undelivered", "answer repeated", "answer cut",
    "answer changed to fit", "answer delivered", "answer not delivered", "answer reported", "sms not understood",
    "sms not accepted", "report of no answer", "settings exported with their secrets", "settings imported",
    "settings reset", "door closed", "door opened", "port lent", "port given back", "port wanted back",
    "audit chain begun", "audit chain ended",
]  # fmt: skip
"""What is recorded of sessions and all else that is no request."""


def entries() -> dict[str, dict[str, str]]:
    """The catalogue: by kind its id, subject and text."""
    found = {}
    pattern = r"^# (.+)\n-- ([0-9a-f]{32})\n((?:[A-Z][A-Za-z-]+: .*\n)+)\n((?:.+\n)+)"
    for kind, id_, heads, text in re.findall(pattern, CATALOGUE.read_text(), re.MULTILINE):
        assert kind not in found, kind
        (subject,) = re.findall(r"^Subject: (.*)$", heads, re.MULTILINE)
        found[kind] = {"id": id_, "subject": subject, "text": text}
    return found


def calls() -> Iterator[tuple[str, str, ast.expr]]:
    """Every entry that the daemon logs at info or above: where, its level, and its text as it stands there."""
    for path in sorted((ROOT / "atrund").rglob("*.py")):
        where = path.relative_to(ROOT / "atrund").as_posix()
        if where.startswith(("ctl/", "sim/", "demo/")):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Attribute(ast.Name("log"), level)) if level in LEVELS:
                    yield where, level, node.args[0]


def texts(event: ast.expr) -> list[str] | None:
    """What the text can be; None where it is made elsewhere."""
    match event:
        case ast.Constant(str(text)):
            return [text]
        case ast.IfExp(body=ast.Constant(str(one)), orelse=ast.Constant(str(other))):
            return [one, other]
    return None


def literal() -> set[str]:
    return {text for _, _, event in calls() for text in texts(event) or []}


def test_every_text_that_is_made_elsewhere_is_known_here() -> None:
    assert {where for where, _, event in calls() if texts(event) is None} == WORDED.keys()


def test_every_event_is_explained() -> None:
    said = literal() | set(RECORDED) | {text for there in WORDED.values() for text in there}
    said |= {"log entries were lost", MORE}
    kinds = {kind_of({"event": text, "state": "ok"}) for text in said}
    kinds |= {LIBRARY, "command refused", "command not done"}
    there = entries()
    assert kinds - there.keys() == set(), "run: name it in packaging/systemd/atrund.catalog, with its id"
    assert there.keys() - kinds == set(), "explained and never logged"


def test_an_explanation_says_what_it_means_and_what_to_do() -> None:
    there = entries()
    assert CATALOGUE.read_text().count("\n-- ") == len(there) > 150
    for kind, entry in there.items():
        assert entry["id"] == message_id(kind), kind
        assert 10 < len(entry["subject"]) <= 60, kind
        assert entry["text"].rstrip().endswith((".", ")")), kind
        assert len(entry["text"]) > 20, kind
        for name in re.findall(r"@(\w+)@", entry["text"]):
            assert name in ("ATRUND_ID", "ATRUND_DOOR", "ATRUND_PEER", "ATRUND_STATE", "ATRUND_HEAD"), kind
    assert len({entry["id"] for entry in there.values()}) == len(there)


def test_warnings_and_errors_say_more_than_a_line() -> None:
    """Somebody reads them at night."""
    there = entries()
    for _, level, event in calls():
        if level in ("warning", "error", "exception"):
            for text in texts(event) or []:
                assert len(there[kind_of({"event": text})]["text"]) > 30, text


def test_an_id_stays() -> None:
    """They are in other people's rules by now."""
    assert message_id("command") == "e8087bba03641722a4d0aee59e195179"
    assert message_id("refused") == "60d4e5743209c34319c4e4ffdd12c9f4"


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        ({"event": "command", "state": "ok"}, "command"),
        ({"event": "command", "state": "error"}, "command"),
        ({"event": "command", "state": "rejected"}, "command refused"),
        ({"event": "command", "state": "expired"}, "command refused"),
        ({"event": "command", "state": "timeout"}, "command not done"),
        ({"event": "command", "state": "lost"}, "command not done"),
        ({"event": "command", "state": "cancelled"}, "command not done"),
        ({"event": "login refused"}, "login refused"),
        ({"event": "login refusedly named"}, "login refused"),
        ({"event": "login bob"}, "login"),
        ({"event": "event RING"}, "event"),
        ({"event": "event RING not run"}, "event not run"),
        ({"event": "refused for the 11th time this hour"}, "refused"),
        ({"event": "command undone"}, "command undone"),
        ({"event": "anything", "logger": "paho"}, LIBRARY),
        ({}, ""),
    ],
)
def test_the_kind_of_an_entry(event: dict[str, str], kind: str) -> None:
    assert kind_of(event) == kind


def test_families_and_notices_are_kinds() -> None:
    assert {family.rstrip() for family in FAMILIES} | NOTICES <= entries().keys()


@pytest.mark.parametrize(
    ("event", "priority"),
    [
        ({"event": "command", "state": "ok", "level": "info"}, "6"),
        ({"event": "command", "state": "rejected", "level": "info"}, "5"),
        ({"event": "login refused", "level": "info"}, "5"),
        ({"event": "login bob", "level": "info"}, "6"),
        ({"event": "sms not accepted", "reason": "does not begin with AT or HAT", "level": "info"}, "6"),
        ({"event": "sms not accepted", "reason": "has a digest of no password here", "level": "info"}, "5"),
        ({"event": "refused", "level": "warning"}, "4"),
        ({"event": "not started", "level": "error"}, "3"),
        ({"event": "refused", "level": "debug"}, "7"),
    ],
)
def test_priorities_mean_something(event: dict[str, str], priority: str) -> None:
    fields = journal.fields(journal.rank(None, "", dict(event)))
    assert fields["PRIORITY"] == priority
    assert ("MESSAGE_ID" in fields) is (priority != "7")


def test_systemd_takes_the_catalogue(tmp_path: Path) -> None:
    if shutil.which("journalctl") is None:
        pytest.skip("there is no journalctl")
    folder = tmp_path / "usr/lib/systemd/catalog"
    folder.mkdir(parents=True)
    (tmp_path / "var/lib/systemd/catalog").mkdir(parents=True)
    shutil.copy(CATALOGUE, folder)
    run = ["journalctl", f"--root={tmp_path}"]
    done = subprocess.run([*run, "--update-catalog"], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    listed = subprocess.run([*run, "--list-catalog"], capture_output=True, text=True, check=True, timeout=60).stdout
    there = entries().values()
    assert sorted(listed.splitlines()) == sorted(f"{entry['id']} atrund: {entry['subject']}" for entry in there)
    first = message_id("command refused")
    told = subprocess.run([*run, "--dump-catalog", first], capture_output=True, text=True, check=True, timeout=60)
    assert "atrunctl explain" in told.stdout
