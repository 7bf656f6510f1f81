# SPDX-License-Identifier: Apache-2.0
"""Payloads as the MQTT contract has them, and nothing in them that a consumer's terminal would obey (POL-3)."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrund.records import (
    DETAIL_MAX,
    LINES_MAX,
    Stamp,
    answer_record,
    info_record,
    metrics_record,
    properties,
    received_record,
    request_record,
    session_record,
    state_record,
    status_record,
    to_json,
    urc_record,
)

STAMP = Stamp("3f1c", "2026-11-22T08:40:00.000Z", known=True)
HEAD = {"v": 1, "session": "3f1c", "ts": "2026-11-22T08:40:00.000Z", "clock": "ok"}


def record(**given_: Any) -> dict[str, Any]:  # noqa: ANN401 - the fields of a record are of several types
    usual = {"rid": "r1", "correlation": "9f0c", "door": "mqtt", "peer": "who", "cmd": "AT+COPS?", "state": "ok"}
    return request_record(STAMP, **(usual | given_))


def test_the_example_of_the_contract() -> None:
    """Every field of it and no other but `seq`, which belongs to the spool's row."""
    payload = record(final="OK", lines=('+COPS: 0,0,"vodafone IT"',), queued_ms=3, duration_ms=212)
    assert payload == HEAD | {
        "id": "9f0c",
        "rid": "r1",
        "door": "mqtt",
        "peer": "who",
        "cmd": "AT+COPS?",
        "state": "ok",
        "final": "OK",
        "lines": ['+COPS: 0,0,"vodafone IT"'],
        "raw_b64": None,
        "queued_ms": 3,
        "duration_ms": 212,
        "truncated": False,
        "reason": None,
    }


def test_what_was_accepted_has_no_answer_yet() -> None:
    payload = record(state="accepted")
    assert (payload["final"], payload["lines"], payload["raw_b64"], payload["reason"]) == (None, [], None, None)
    assert (payload["queued_ms"], payload["duration_ms"], payload["truncated"]) == (0, 0, False)


def test_a_refusal_names_its_reason() -> None:
    payload = record(state="rejected", reason="policy")
    assert (payload["state"], payload["reason"], payload["final"]) == ("rejected", "policy", None)


def test_who_gave_no_id_gets_the_one_made_here() -> None:
    assert record(correlation=None)["id"] == "r1"
    assert record(correlation="")["id"] == ""


def test_an_unset_clock_is_told() -> None:
    assert status_record(Stamp("s", "1970-01-01T00:00:00.000Z", known=False), state="online")["clock"] == "unset"


def test_status() -> None:
    assert status_record(STAMP, state="online") == HEAD | {"state": "online", "reason": None}
    assert status_record(STAMP, state="offline", reason="stopped") == HEAD | {"state": "offline", "reason": "stopped"}


def test_session() -> None:
    assert session_record(STAMP, door="tcp", peer="::1", what="connected") == HEAD | {
        "door": "tcp",
        "peer": "::1",
        "event": "connected",
        "reason": None,
    }
    assert session_record(STAMP, door="tcp", peer="::1", what="refused", reason="firewall")["reason"] == "firewall"
    assert session_record(STAMP, door="sms", peer="+39", what="answer cut", rid="r1")["rid"] == "r1"


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("a\x00", "a\\x00"),
        ("\x7f", "\\x7f"),
        ("\x85\xe9", "\\x85\\xe9"),
        ("\u20ac\u202e", "\\u20ac\\u202e"),
        ("\U0001f600", "\\U0001f600"),
    ],
)
def test_a_line_that_is_no_printable_text_is_escaped_and_given_raw(line: str, shown: str) -> None:
    payload = record(lines=("plain", line))
    assert payload["lines"] == ["plain", shown]
    assert base64.b64decode(payload["raw_b64"]) == f"plain\r\n{line}".encode("latin-1", "replace")


def test_printable_lines_need_no_raw_form() -> None:
    assert record(lines=('+X: "a\\b~ "', ""))["raw_b64"] is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("AT+CSQ\r\nAT+CFUN=4", "AT+CSQ\\x0d\\x0aAT+CFUN=4"),
        ("\x1b]0;x\x07", "\\x1b]0;x\\x07"),
        ("\u202eright to left\u2028", "\\u202eright to left\\u2028"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
        ("J\u00fcrgen", "J\u00fcrgen"),
    ],
)
def test_what_a_peer_chose_cannot_steer_a_terminal_or_start_another_field(text: str, shown: str) -> None:
    payload = record(cmd=text, peer=text)
    assert (payload["cmd"], payload["peer"]) == (shown, shown)
    session = session_record(STAMP, door="sms", peer=text, what=text, reason=text)
    assert (session["peer"], session["event"], session["reason"]) == (shown, shown, shown)


def test_the_modules_final_is_escaped_too() -> None:
    assert record(final="+CME ERROR: \x1bc\xe9")["final"] == "+CME ERROR: \\x1bc\\xe9"


def test_an_answer_over_the_cap_loses_whole_lines_at_its_end() -> None:
    line = "x" * (LINES_MAX // 4)
    payload = record(lines=(line,) * 5)
    assert payload["lines"] == [line] * 4
    assert payload["truncated"] is True
    assert record(lines=(line,) * 4)["truncated"] is False
    assert record(truncated=True)["truncated"] is True


def test_lines_behind_the_one_that_did_not_fit_are_left_out_too() -> None:
    assert record(lines=("a", "x" * LINES_MAX, "b"))["lines"] == ["a"]


def test_the_cap_counts_what_is_shown() -> None:
    assert record(lines=("\x00" * (LINES_MAX // 4),))["truncated"] is False
    assert record(lines=("\x00" * (LINES_MAX // 4 + 1),))["lines"] == []


@given(
    cmd=st.text(st.characters(), max_size=40),
    peer=st.text(st.characters(), max_size=40),
    final=st.none() | st.text(st.characters(), max_size=40),
    lines=st.lists(st.text(st.characters(max_codepoint=255), max_size=40), max_size=4).map(tuple),
)
def test_every_payload_is_json_in_utf8_on_one_line(
    cmd: str, peer: str, final: str | None, lines: tuple[str, ...]
) -> None:
    payload = record(cmd=cmd, peer=peer, final=final, lines=lines)
    text = to_json(payload)
    assert json.loads(text.encode("utf-8")) == payload
    assert text.isprintable()
    if payload["raw_b64"] is not None:
        assert base64.b64decode(payload["raw_b64"]) == "\r\n".join(lines).encode("latin-1")


def test_json_is_compact_and_keeps_letters() -> None:
    assert to_json({"a": [1, None], "b": "\u00fc"}) == '{"a":[1,null],"b":"\u00fc"}'


def test_the_modules_state_and_the_daemons_own_facts_carry_the_stamp() -> None:
    assert state_record(STAMP, {"state": "ready", "rssi_dbm": -85}) == HEAD | {"state": "ready", "rssi_dbm": -85}
    assert info_record(STAMP, {"version": "1.0"}) == HEAD | {"version": "1.0"}


def test_an_unsolicited_code_cannot_bring_control_characters() -> None:
    assert urc_record(STAMP, ("+CMT: ,24", "07\x1b")) == HEAD | {"lines": ["+CMT: ,24", "07\\x1b"]}


def test_a_message_that_is_no_request() -> None:
    payload = received_record(
        STAMP, peer="Bank\x1b", sent=None, text="two\nlines \u202e", raw=b"\x00", part=(17, 3, 2), withheld=True
    )
    assert payload == HEAD | {
        "peer": "Bank\\x1b",
        "sent": None,
        "text": "two\\x0alines \\u202e",
        "raw_b64": "AA==",
        "part": {"reference": 17, "total": 3, "index": 2},
        "withheld": True,
    }
    plain = received_record(STAMP, peer="+39", sent="t", text=None, raw=None, part=None, withheld=False)
    assert (plain["text"], plain["raw_b64"], plain["part"]) == (None, None, None)


def test_an_answer_says_to_a_person_why_it_ended_so() -> None:
    payload = record(state="rejected", reason="policy")
    assert answer_record(payload, "#SHDN: \x1bswitches it off") == payload | {"detail": "#SHDN: \\x1bswitches it off"}
    assert answer_record(payload, "") == payload | {"detail": None}
    assert "detail" not in payload
    assert answer_record(payload, "x" * (DETAIL_MAX + 1))["detail"] == "x" * DETAIL_MAX


def test_what_a_broker_may_sort_by_without_reading_the_payload() -> None:
    assert properties(record()) == {"door": "mqtt", "state": "ok"}
    assert properties(session_record(STAMP, door="tcp", peer="::1", what="connected")) == {"door": "tcp"}
    assert properties({"v": 1}) == {}


def test_metrics_have_a_key_for_each_door_and_each_state() -> None:
    figures = {
        "uptime_s": 60,
        "run_s": 3600,
        "cpu_s": 1.5,
        "memory_kib": 36000,
        "running": 2,
        "waiting": 1,
        "outbox": None,
        "spool_bytes": None,
        "aside": None,
        "dropped": None,
        "missed": 0,
        "connects": 3,
        "set_ups": 1,
        "kept_out": 4,
    }
    payload = metrics_record(STAMP, requests={"sms": 5, "tcp": 6}, ended={"ok": 10, "lost": 1}, **figures)  # type: ignore[arg-type] # of several types
    assert payload == HEAD | figures | {"requests_sms": 5, "requests_tcp": 6, "ended_ok": 10, "ended_lost": 1}
    chained = metrics_record(STAMP, requests={}, ended={}, audit_head="7:00", **figures)  # type: ignore[arg-type] # as above
    assert chained == HEAD | figures | {"audit_head": "7:00"}
