# SPDX-License-Identifier: Apache-2.0
"""The rows about requests and sessions: their fields and what is masked."""

import base64
import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from atrund.atrun.others import Kind, Told
from atrund.atrun.request import Door, End, Outcome, Reason, Request
from atrund.ledger import outbox
from atrund.ledger.schema import open_file
from atrund.ledger.writer import Write
from atrund.mirror import Mirror
from atrund.sms.userdata import Concatenation

NUMBER = "+393468686711"
ASKED = Request(rid="r1", door=Door.SMS, peer=NUMBER, line="AT+COPS?", key="k")
DONE = Outcome(End.OK, final="OK", lines=('+COPS: 0,0,"vodafone IT"',), queued_ms=3, duration_ms=212)
REFUSED = Outcome(End.REJECTED, Reason.POLICY, detail="+CFUN: stops the radio")


class Clock:
    synchronised = True

    def now(self) -> datetime:
        return datetime(2026, 11, 22, 8, 40, tzinfo=UTC)

    def known(self) -> bool:
        return self.synchronised


STAMP = {"v": 1, "session": "s1", "ts": "2026-11-22T08:40:00.000Z", "clock": "ok"}


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    connection = open_file(Path(":memory:"))
    yield connection
    connection.close()


def made(**given: Any) -> Mirror:  # noqa: ANN401 - whatever the mirror takes
    return Mirror(**{"clock": Clock(), "session": "s1", "base": "atrund/node/", **given})


def told(db: sqlite3.Connection, writes: Iterable[Write]) -> list[tuple[str, dict[str, Any]]]:
    """Write the rows and return what they put into the outbox."""
    (before,) = db.execute("SELECT coalesce(max(seq), 0) FROM outbox").fetchone()
    for write in writes:
        write(db)
    return [(row.topic, json.loads(row.payload)) for row in outbox.after(before)(db)]


def audited(db: sqlite3.Connection) -> list[dict[str, Any]]:
    cursor = db.execute("SELECT ts, rid, door, peer, line, event, reason, rule, duration_ms FROM audit ORDER BY n")
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def test_what_is_accepted_is_told_once_with_every_field(db: sqlite3.Connection) -> None:
    request = replace(ASKED, context={"id": "9f0c"})
    (row,) = told(db, made().accepted(request))
    assert row == (
        "atrund/node/event/command",
        {
            **STAMP,
            "id": "9f0c",
            "rid": "r1",
            "door": "sms",
            "peer": "+********6711",
            "cmd": "AT+COPS?",
            "state": "accepted",
            "final": None,
            "lines": [],
            "raw_b64": None,
            "queued_ms": 0,
            "duration_ms": 0,
            "truncated": False,
            "reason": None,
        },
    )
    assert audited(db) == []


def test_an_outcome_is_told_with_the_same_id_and_audited(db: sqlite3.Connection) -> None:
    """POL-4: who, through which door, what, the result, how long it took."""
    ((topic, payload),) = told(db, made().ended(ASKED, DONE, was_accepted=True))
    assert topic == "atrund/node/event/response"
    assert (payload["id"], payload["rid"], payload["state"], payload["final"]) == ("r1", "r1", "ok", "OK")
    assert payload["lines"] == ['+COPS: 0,0,"vodafone IT"']
    assert (payload["queued_ms"], payload["duration_ms"], payload["raw_b64"]) == (3, 212, None)
    assert audited(db) == [
        {
            "ts": "2026-11-22T08:40:00.000Z",
            "rid": "r1",
            "door": "sms",
            "peer": NUMBER,
            "line": "AT+COPS?",
            "event": "ok",
            "reason": None,
            "rule": None,
            "duration_ms": 212,
        }
    ]


def test_a_refusal_is_the_first_and_last_mention_and_names_its_rule(db: sqlite3.Connection) -> None:
    rows = told(db, made().ended(replace(ASKED, line="AT+CFUN=4"), REFUSED, was_accepted=False))
    assert [topic.removeprefix("atrund/node/") for topic, _ in rows] == ["event/command", "event/response"]
    assert {(payload["state"], payload["reason"]) for _, payload in rows} == {("rejected", "policy")}
    (audit,) = audited(db)
    assert (audit["event"], audit["reason"], audit["rule"]) == ("rejected", "policy", "+CFUN: stops the radio")


@pytest.mark.parametrize("end", End)
def test_every_end_is_audited_in_its_own_word(db: sqlite3.Connection, end: End) -> None:
    ((_, payload),) = told(db, made().ended(ASKED, Outcome(end), was_accepted=True))
    assert (payload["state"], audited(db)[0]["event"]) == (end.value, end.value)


def test_the_journal_gets_its_fields() -> None:
    with capture_logs() as logs:
        made().log_end(ASKED, replace(DONE, reason=Reason.IDLE, detail="why"))
        asked = replace(ASKED, door=Door.TCP, peer="192.0.2.7", names=("bob", "cn=x"), context={"id": "mine"})
        made().log_end(asked, replace(DONE, queued_ms=1000))
    assert logs == [
        {
            "event": "command",
            "log_level": "info",
            "id": "r1",
            "door": "sms",
            "peer": NUMBER,
            "who": None,
            "correlation": None,
            "command": "AT+COPS?",
            "state": "ok",
            "final": "OK",
            "reason": "idle",
            "detail": "why",
            "queued_ms": None,
            "duration_ms": 212,
        },
        {
            "event": "command",
            "log_level": "info",
            "id": "r1",
            "door": "tcp",
            "peer": "192.0.2.7",
            "who": "bob, cn=x",
            "correlation": "mine",
            "command": "AT+COPS?",
            "state": "ok",
            "final": "OK",
            "reason": None,
            "detail": None,
            "queued_ms": 1000,
            "duration_ms": 212,
        },
    ]


def test_a_session_is_told_audited_and_logged(db: sqlite3.Connection) -> None:
    with capture_logs() as logs:
        writes = made().session(Door.SMS, NUMBER, "sms not accepted", "not_atrun", "r9")
    assert told(db, writes) == [
        (
            "atrund/node/event/session",
            {**STAMP, "door": "sms", "peer": "+********6711", "event": "sms not accepted", "rid": "r9"}
            | {"reason": "not_atrun"},
        )
    ]
    (audit,) = audited(db)
    assert (audit["rid"], audit["door"], audit["peer"], audit["line"]) == ("r9", "sms", NUMBER, "")
    assert (audit["event"], audit["reason"], audit["rule"]) == ("sms not accepted", "not_atrun", None)
    (log,) = logs
    assert (log["event"], log["id"], log["door"], log["reason"]) == ("sms not accepted", "r9", "sms", "not_atrun")


def test_without_mqtt_all_is_audited_and_nothing_is_put_out(db: sqlite3.Connection) -> None:
    mirror = made(base="")
    writes = [
        *mirror.accepted(ASKED),
        *mirror.ended(ASKED, REFUSED, was_accepted=False),
        *mirror.session(Door.TCP, "10.0.0.1", "connected"),
        *mirror.post("status", {}),
    ]
    assert told(db, writes) == []
    assert [row["event"] for row in audited(db)] == ["rejected", "connected"]


def test_an_unset_clock_is_said(db: sqlite3.Connection) -> None:
    clock = Clock()
    clock.synchronised = False
    ((_, payload),) = told(db, made(clock=clock).accepted(ASKED))
    assert payload["clock"] == "unset"


# What must not leave


def test_secrets_are_masked_wherever_they_go(db: sqlite3.Connection) -> None:
    """POL-3"""
    request = replace(ASKED, line='AT+CPIN="1234";+CGAUTH?')
    outcome = replace(DONE, lines=('+CGAUTH: 1,1,"me","geheim"',))
    with capture_logs() as logs:
        writes = [*made().accepted(request), *made().ended(request, outcome, was_accepted=True)]
    payload = made().response(request, outcome, state="ok", correlation="c")
    rows = told(db, writes)
    everything = json.dumps([rows, audited(db), logs, payload])
    assert "1234" not in everything
    assert "geheim" not in everything
    assert payload["cmd"] == "AT+CPIN=****;+CGAUTH?"
    assert payload["lines"] == ["+CGAUTH: 1,1,****"]


@pytest.mark.parametrize("line", ["AT+CMGR=1", "at+csq;+cmgl=4", "AT+CMGL", "AT+CRSM=178,28476,1,4,176"])
def test_other_peoples_messages_are_not_mirrored_but_given_to_who_asked(db: sqlite3.Connection, line: str) -> None:
    """POL-3; the digest of an ATRUN message could be replayed."""
    body = ("+CMGR: 1,,52", "07919343290020000C9144D0D0D00011", "Meet me at ÿ")
    request = replace(ASKED, door=Door.MQTT, peer="who", line=line)
    outcome = replace(DONE, lines=body)
    ((_, payload),) = told(db, made(full_numbers=True).ended(request, outcome, was_accepted=True))
    assert (payload["lines"], payload["raw_b64"], payload["final"]) == (["****"] * 3, None, "OK")
    assert "D0D0D0" not in json.dumps([payload, audited(db)])
    answer = made().response(request, outcome, state="ok", correlation=None)
    assert answer["lines"][:2] == list(body[:2])


def test_numbers_inside_lines_are_masked_in_the_mirror_and_not_in_the_answer(db: sqlite3.Connection) -> None:
    request = replace(ASKED, line=f"ATD{NUMBER};", door=Door.TCP, peer="10.0.0.1:5000")
    outcome = replace(
        DONE, lines=(f'+CNUM: "own\xff","{NUMBER}",145', '+COPS: 0,2,"22210"', '+CCLK: "26/11/22,08:40:00+04"')
    )
    ((_, payload),) = told(db, made().ended(request, outcome, was_accepted=True))
    assert payload["cmd"] == "ATD+********6711;"
    assert payload["lines"] == ['+CNUM: "own\\xff","+********6711",145', *outcome.lines[1:]]
    assert NUMBER not in base64.b64decode(payload["raw_b64"]).decode("latin-1")
    assert payload["peer"] == "10.0.0.1:5000"
    ((_, full),) = told(db, made(full_numbers=True).ended(request, outcome, was_accepted=True))
    assert (full["cmd"], NUMBER in full["lines"][0]) == (request.line, True)
    assert NUMBER in made().response(request, outcome, state="ok", correlation=None)["lines"][0]


@pytest.mark.parametrize(
    ("door", "full", "shown"),
    [
        (Door.SMS, False, "+********6711"),
        (Door.SMS, True, NUMBER),
        (Door.TCP, False, NUMBER),
    ],
)
def test_who_asks_is_masked_where_it_is_a_number(door: Door, full: bool, shown: str) -> None:  # noqa: FBT001 - a case
    assert made(full_numbers=full).peer(door, NUMBER) == shown


def test_an_answer_goes_where_it_was_asked_for_and_gives_no_way_to_the_mirror(db: sqlite3.Connection) -> None:
    mirror = made(records=1, octets=1)
    payload = mirror.response(ASKED, None, state="running", correlation="c1")
    assert (payload["id"], payload["state"], payload["final"]) == ("c1", "running", None)
    for _ in range(30):
        for write in (
            *mirror.post("at/response", payload, response=True, extra={"correlation": "00"}),
            *mirror.post_to("reply/to/me", payload, extra={}),
            *mirror.accepted(ASKED),
        ):
            write(db)
    rows = outbox.after(0)(db)
    answers = [row for row in rows if row.response]
    assert [row.topic for row in answers[:2]] == ["atrund/node/at/response", "reply/to/me"]
    assert answers[0].extra["correlation"] == "00"
    assert len(answers) == len(rows) == 60


def test_a_message_that_is_no_request_is_told_masked_and_not_dropped_for_room(db: sqlite3.Connection) -> None:
    """MQ-4, POL-3."""
    sent = datetime(2026, 11, 22, 9, 39, tzinfo=timezone(timedelta(hours=1)))
    came = Told(Kind.MESSAGE, NUMBER, sent, "call +393331234567", part=Concatenation(17, 3, 2))
    ((topic, payload),) = told(db, made().received(came))
    assert topic == "atrund/node/sms/received"
    assert payload == STAMP | {
        "peer": "+********6711",
        "sent": "2026-11-22T08:39:00.000Z",
        "text": "call +********4567",
        "raw_b64": None,
        "part": {"reference": 17, "total": 3, "index": 2},
        "withheld": False,
    }
    assert db.execute("SELECT response FROM outbox").fetchall() == [(1,)]
    ((_, full),) = told(db, made(full_numbers=True).received(came))
    assert (full["peer"], full["text"]) == (NUMBER, "call +393331234567")
    assert made(base="").received(came) == []


@pytest.mark.parametrize(("peer", "shown"), [("Bank 24", "Bank 24"), ("12345", "*2345"), ("", "")])
def test_a_name_is_no_number(db: sqlite3.Connection, peer: str, shown: str) -> None:
    ((_, payload),) = told(db, made().received(Told(Kind.UNREADABLE, peer, raw=b"\x00")))
    assert (payload["peer"], payload["raw_b64"], payload["sent"], payload["part"]) == (shown, "AA==", None, None)


def test_the_answer_of_a_line_that_a_mask_broke_is_hidden(db: sqlite3.Connection) -> None:
    """The ledger has a line that ended masked: where its commands can't be told any more, its answer can't either."""
    outcome = Outcome(End.OK, final="OK", lines=("+CMGR: secret",))
    broken = replace(ASKED, door=Door.MQTT, line='AT#OEM="')
    payload = made().response(broken, outcome, state="ok", correlation=None)
    assert payload["lines"] == ["****"]
    assert db.execute("SELECT count(*) FROM outbox").fetchone() == (0,)


@pytest.mark.parametrize(
    ("lines", "shown"),
    [
        (("RING",), ("RING",)),
        ((f'+CLIP: "{NUMBER}",145,"",,"",0',), ('+CLIP: "+********6711",145,"",,"",0',)),
        (("+CMT: ,25", "0791934329000090040C91"), ("+CMT: ,25", "****")),
        (
            (f'+CMT: "{NUMBER}",,"26/11/22,20:34:35+00"', "the code is 1234"),
            ('+CMT: "+********6711",,"26/11/22,20:34:35+00"', "****"),
        ),
        (("+CDS: 26", "0006D60B911326"), ("+CDS: 26", "****")),
        (("+CBM: 2,50,1,1,1", "a warning"), ("+CBM: 2,50,1,1,1", "a warning")),
        (('#SMSATWL: 1,"1234567890123456"',), ("#SMSATWL: 1,****",)),
    ],
)
def test_an_unsolicited_code_leaves_without_numbers_and_messages(
    lines: tuple[str, ...], shown: tuple[str, ...]
) -> None:
    """POL-3."""
    assert made().unsolicited(lines) == shown


def test_numbers_in_unsolicited_codes_where_they_are_wanted() -> None:
    full = made(full_numbers=True)
    assert full.unsolicited((f'+CLIP: "{NUMBER}",145',)) == (f'+CLIP: "{NUMBER}",145',)
    assert full.unsolicited(("+CMT: ,25", "0791")) == ("+CMT: ,25", "****")
