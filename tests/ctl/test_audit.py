# SPDX-License-Identifier: Apache-2.0
"""`atrunctl audit` against a scripted daemon: what it asks, what it prints, which times it takes, what it concludes."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from atrund.control import AUDIT_PAGE, AuditRequest, DoneAnswer, ErrorAnswer, encode
from atrund.ctl.audit import judge, moment
from atrund.ctl.main import main
from atrund.ledger import audit
from atrund.ledger.chain import Check
from atrund.ledger.schema import open_file
from tests.ctl.server import Serve

Capture = pytest.CaptureFixture[str]
NOW = datetime(2026, 11, 22, 10, 30, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def in_rome(zone: Callable[[str], None]) -> None:
    """In a zone with summer time."""
    zone("CET-1CEST,M3.5.0,M10.5.0/3")


def row(n: int, **given: object) -> dict[str, object]:
    usual = {
        "n": n, "ts": "2026-11-22T08:00:00.123Z", "rid": "", "door": "tcp", "peer": "192.0.2.7", "who": "", "line": "",
        "event": "connected", "reason": None, "rule": None, "duration_ms": None,
    }  # fmt: skip
    return {**usual, **given}


def answered(*rows: dict[str, object], more: bool = False) -> bytes:
    return encode(DoneAnswer({"entries": list(rows), "more": more}))


SHOWN = (
    row(
        3, event="rejected", rid="r3", reason="policy", rule="+CFUN: hazard", line="AT+CFUN=4", who="bob", duration_ms=0
    ),
    row(2, event="login bob\x1b[2J", ts="2026-07-01T22:30:00.000Z"),
    row(1, door="local", peer="", event="door closed", reason="tcp", duration_ms=None),
)


def test_for_people_the_newest_comes_last_in_local_time(serve: Serve, capsys: Capture) -> None:
    server = serve(answered(*SHOWN))
    assert main(["--socket", server.path, "audit"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "2026-11-22 09:00:00.123+01:00  local  door closed  tcp",
        "2026-07-02 00:30:00.000+02:00  tcp 192.0.2.7  login bob\\x1b[2J",
        "2026-11-22 09:00:00.123+01:00  tcp 192.0.2.7 (bob)  rejected  policy  +CFUN: hazard  0 ms  id=r3",
        "    AT+CFUN=4",
    ]
    assert err == ""
    assert server.seen == [
        {
            "op": "audit",
            "limit": 100,
            "before": 0,
            "since": "",
            "until": "",
            "door": "",
            "peer": "",
            "event": "",
            "id": "",
        }
    ]


def test_utc_and_json(serve: Serve, capsys: Capture) -> None:
    assert main(["--socket", serve(answered(*SHOWN)).path, "audit", "--utc"]) == 0
    assert capsys.readouterr().out.startswith("2026-11-22 08:00:00.123Z  local")


def test_nothing_that_fits_is_said_to_people(serve: Serve, capsys: Capture) -> None:
    assert main(["--socket", serve(answered()).path, "audit", "--event", "rejcted"]) == 0
    assert capsys.readouterr() == ("", "atrunctl: no entry fits\n")


def test_json(serve: Serve, capsys: Capture) -> None:
    assert main(["--socket", serve(answered(*SHOWN)).path, "audit", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == list(SHOWN[::-1])


def test_all_that_it_is_looked_for_by(serve: Serve) -> None:
    server = serve(answered())
    asked = ["--since", "2026-07-01", "--until=2026-11-22 08:00", "--door", "sms", "--peer", "+39", "--event", "ok"]
    assert main(["--socket", server.path, "audit", *asked, "--id", "r", "--limit", "7"]) == 0
    assert server.seen == [
        {
            "op": "audit", "limit": 7, "before": 0, "since": "2026-06-30T22:00:00.000Z",
            "until": "2026-11-22T07:00:00.000Z", "door": "sms", "peer": "+39", "event": "ok", "id": "r",
        }
    ]  # fmt: skip


@pytest.mark.parametrize("words", [["--since", "-1h"], ["--since=-1h"]])
def test_an_hour_ago_is_a_time_and_no_option(serve: Serve, words: list[str]) -> None:
    server = serve(answered())
    assert main(["--socket", server.path, "audit", *words]) == 0
    (asked,) = server.seen
    assert isinstance(asked, dict)
    since = datetime.fromisoformat(asked["since"])
    assert timedelta(hours=1) <= datetime.now(UTC) - since < timedelta(hours=1, minutes=1)


def test_it_asks_page_by_page_and_says_if_there_is_more(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = [({"entries": [row(9), row(8)], "more": True}), ({"entries": [row(7)], "more": True})]
    asked: list[AuditRequest] = []

    def ask(_path: object, request: AuditRequest) -> dict[str, object]:
        asked.append(request)
        return pages[len(asked) - 1]

    monkeypatch.setattr("atrund.ctl.asking.ask", ask)
    assert main(["audit", "--limit", "3", "--json"]) == 0
    out, err = capsys.readouterr()
    assert [one["n"] for one in json.loads(out)] == [7, 8, 9]
    assert "there are older ones" in err
    assert [(one.limit, one.before) for one in asked] == [(3, 0), (1, 8)]
    assert AUDIT_PAGE == 100


@pytest.mark.parametrize("told", [{"entries": 3}, {"entries": [3]}, {"entries": [], "more": True}, {}])
def test_an_answer_of_another_kind_is_said(serve: Serve, capsys: Capture, told: dict[str, object]) -> None:
    assert main(["--socket", serve(encode(DoneAnswer(told))).path, "audit"]) == 3
    assert "none that this atrunctl knows" in capsys.readouterr().err


def test_a_refusal_is_shown(serve: Serve, capsys: Capture) -> None:
    assert main(["--socket", serve(encode(ErrorAnswer("no\x1b"))).path, "audit"]) == 1
    assert "no\\x1b" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--since", "sometime"], "'sometime' is no time; right is for example"),
        (["--since", "2026-13-01"], "is no time"),
        (["--since", "25:00"], "'25:00' is no time"),
        (["--since", "now", "--until", "-1h"], "--since now is behind --until -1h"),
        (["--since", "-999999w"], "out of range"),
        (["--limit", "0"], "no number from 1 to 60000"),
        (["--door", "x"], "invalid choice"),
        (["verify", "--head", "12"], "is no head; right is"),
        (["verify", "--head", f"0:{'0' * 64}"], "is no head"),
        (["verify", "--file", "/nowhere/ledger.db"], "/nowhere/ledger.db: there is no such file; right is a ledger.db"),
    ],
)
def test_bad_input_says_what_is_right(capsys: Capture, words: list[str], said: str) -> None:
    try:
        code = main(["--socket", "/nowhere", "audit", *words])
    except SystemExit as ended:
        code = int(str(ended.code))
    assert code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("now", "2026-11-22T10:30:00+00:00"),
        ("-90s", "2026-11-22T10:28:30+00:00"),
        ("-30min", "2026-11-22T10:00:00+00:00"),
        ("-30m", "2026-11-22T10:00:00+00:00"),
        ("-2d", "2026-11-20T10:30:00+00:00"),
        ("-1w", "2026-11-15T10:30:00+00:00"),
        ("today", "2026-11-21T23:00:00+00:00"),
        ("yesterday", "2026-11-20T23:00:00+00:00"),
        ("08:00", "2026-11-22T07:00:00+00:00"),
        ("08:00:07", "2026-11-22T07:00:07+00:00"),
        ("2026-11-22", "2026-11-21T23:00:00+00:00"),
        ("2026-11-22 08:00", "2026-11-22T07:00:00+00:00"),
        ("2026-07-22 08:00", "2026-07-22T06:00:00+00:00"),  # summer time then, though not now
        ("2026-10-25 02:30", "2026-10-25T00:30:00+00:00"),  # the first of two
        ("2026-10-25 02:30:00.000+01:00", "2026-10-25T01:30:00+00:00"),
        ("2026-11-22T08:00:00Z", "2026-11-22T08:00:00+00:00"),
        ("2026-11-22 08:00:00.000Z", "2026-11-22T08:00:00+00:00"),
        ("2026-11-22 08:00:00+05:30", "2026-11-22T02:30:00+00:00"),
    ],
)
def test_times_are_those_of_journalctl(text: str, meant: str) -> None:
    assert moment(text, NOW.astimezone()).astimezone(UTC).isoformat() == meant


def test_the_day_after_the_clocks_changed_begins_at_midnight() -> None:
    """25 hours before, it was yesterday's midnight."""
    now = datetime(2026, 10, 26, 9, 0, tzinfo=UTC).astimezone()
    assert moment("today", now).isoformat() == "2026-10-26T00:00:00+01:00"
    assert moment("yesterday", now).isoformat() == "2026-10-25T00:00:00+02:00"


def test_in_utc_all_is_utc() -> None:
    assert moment("today", NOW).isoformat() == "2026-11-22T00:00:00+00:00"
    assert moment("2026-07-22 08:00", NOW).isoformat() == "2026-07-22T08:00:00+00:00"


# verify

HASH = "ab" * 32
WHOLE: dict[str, object] = {
    "rows": 10, "chained": 8, "first": 13, "last": 20, "anchor": f"12:{HASH}", "head": f"20:{HASH}", "found": HASH,
    "faults": 0, "wrong": [], "on": True, "put_in": 0, "strays": [],
}  # fmt: skip


NONE: dict[str, object] = {"chained": 0, "last": 0, "anchor": "", "found": ""}


@pytest.mark.parametrize(
    ("told", "at", "wrong", "said"),
    [
        ({}, 0, "", "With --head"),
        ({}, 18, "", "UNCHANGED up to row 18: what is there of it"),
        ({}, 18, "", "That is all that this can show"),
        ({}, 18, "", "2 rows are not in the chain"),
        ({}, 18, "", "8 rows are chained, 13 to 20; the head is 20:abab"),
        ({}, 18, "", "up to row 12, was dropped for room"),
        ({}, 12, "", "covers nothing that is there"),
        ({"found": ""}, 9, "NOT SHOWN: row 9", "8 rows"),
        ({"found": ""}, 21, "CHANGED: row 21 of the head is not there any more", "8 rows"),
        ({"found": "cd" * 32}, 18, "CHANGED: row 18 has another hash", "8 rows"),
        ({"found": ""}, 18, "CHANGED: row 18 has another hash", "8 rows"),
        ({"faults": 2, "wrong": [14, 15]}, 18, "CHANGED: rows that don't fit", "8 rows"),
        ({"faults": 2, "wrong": [19, 20]}, 18, "others now: 19, 20", "UNCHANGED up to row 18"),
        ({"faults": 12, "wrong": [14]}, 0, "now: 14 …", "8 rows"),
        ({**NONE, "on": False}, 18, "is not there any more", "No row is chained"),
        ({**NONE, "on": False}, 0, "", "log.audit_chain = true begins a chain"),
        ({**NONE, "rows": 0}, 0, "no row is chained, though the chain is on", "With --head"),
        ({"put_in": 1, "strays": [14]}, 18, "the chain was not ended before them: 14", "1 row is not in the chain"),
        ({"put_in": 11, "strays": [19]}, 18, "not ended before them: 19 …", "UNCHANGED up to row 18"),
    ],
)
def test_what_is_concluded_is_no_more_than_was_found(told: dict[str, object], at: int, wrong: str, said: str) -> None:
    faults, words = judge(WHOLE | told, at, HASH)
    assert wrong in " ".join(faults)
    assert bool(faults) is bool(wrong)
    assert said in " ".join(words)
    if wrong and not {"wrong", "strays"} & told.keys():
        assert "UNCHANGED" not in " ".join(words)


def test_verify_asks_the_daemon(serve: Serve, capsys: Capture) -> None:
    server = serve(encode(DoneAnswer(WHOLE)))
    assert main(["--socket", server.path, "audit", "verify", "--head", f"18:{HASH}"]) == 0
    assert "UNCHANGED up to row 18" in capsys.readouterr().out
    assert server.seen == [{"op": "audit_verify", "at": 18}]


def test_verify_of_a_changed_one_fails(serve: Serve, capsys: Capture) -> None:
    server = serve(encode(DoneAnswer(WHOLE | {"faults": 1, "wrong": [14]})))
    assert main(["--socket", server.path, "audit", "verify", "--json"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["wrong"] == [14]
    assert "CHANGED: " in err


def test_verify_of_a_file_asks_nobody(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "copy.db"
    db = open_file(path)
    audit.chain(on=True)(db)
    for number in range(3):
        audit.note(ts="", rid=str(number), door="tcp", peer="", line="", event="ok")(db)
    head = audit.head()(db)
    command = ["--socket", "/nowhere", "audit", "verify", "--file", str(path), "--head", head]
    assert main(command) == 0
    assert "UNCHANGED up to row 3" in capsys.readouterr().out
    db.execute("UPDATE audit SET event = 'rejected' WHERE n = 2")
    db.close()
    assert main(command) == 1
    assert "others now: 2" in capsys.readouterr().err


def test_what_the_check_tells_is_what_is_judged() -> None:
    assert Check().told().keys() == WHOLE.keys()
