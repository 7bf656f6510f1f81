# SPDX-License-Identifier: Apache-2.0
"""The control socket's messages: both ways, the refusals, and any bytes at all."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrund.control import (
    ID_MAX,
    LINE_MAX,
    AcceptedAnswer,
    Answer,
    AtRequest,
    AuditRequest,
    AuditVerifyRequest,
    CancelRequest,
    ControlError,
    DoneAnswer,
    DoorsRequest,
    ErrorAnswer,
    ExplainRequest,
    ExportRequest,
    FinalAnswer,
    ImportRequest,
    LendRequest,
    LentAnswer,
    LineAnswer,
    Request,
    ResetRequest,
    SettingsRequest,
    SmsLogRequest,
    StatusAnswer,
    StatusRequest,
    decode_answer,
    decode_request,
    encode,
)

REQUESTS = [
    AtRequest("AT+CSQ"),
    AtRequest('AT+CMGS="é"', timeout_ms=1_000, id="a-1"),
    StatusRequest(),
    CancelRequest(),
    ExplainRequest("sms", "AT+CFUN=4", "+39347", digest=True),
    ExplainRequest("tcp", peer="192.0.2.7"),
    SettingsRequest(),
    SettingsRequest(("sms", "tcp.port")),
    ExportRequest(),
    ExportRequest(secrets=True),
    ImportRequest({"sms.enabled": True, "sms.whitelist.1": {"number": "+39347"}}),
    ResetRequest(("sms.urc",)),
    DoorsRequest("close", ("sms", "mqtt")),
    LendRequest(),
    LendRequest(86_400),
    SmsLogRequest(),
    SmsLogRequest(7, before=501),
    AuditRequest(),
    AuditRequest(7, 501, "2026-11-22T08:00:00.000Z", "2026-11-23T08:00:00.000Z", "tcp", "bob", "login", "r1"),
    AuditVerifyRequest(),
    AuditVerifyRequest(at=4711),
]
ANSWERS = [
    AcceptedAnswer("r1"),
    AcceptedAnswer("r1", "a-1"),
    LineAnswer("+CSQ: 14,99"),
    LineAnswer("control \x1b[2J and \udc80 half a pair"),
    FinalAnswer("ok", "OK", None, 12, "r1"),
    FinalAnswer("rejected", None, "queue_full", 0, "r1"),
    FinalAnswer("rejected", "+CME ERROR: 3", "policy", 0, "r1", "+CFUN: changes the radio's state"),
    StatusAnswer({"module": {"port": "up", "rssi": 14}, "uptime_s": 3}),
    DoneAnswer({"closed": ["sms"]}),
    LentAnswer("/dev/ttyUSB2"),
    LentAnswer("/dev/ttyUSB2", over=True),
    ErrorAnswer("cmd: missing"),
    ErrorAnswer("nothing was imported", ("sms.urc: is neither true nor false",)),
]


@pytest.mark.parametrize("request_", REQUESTS)
def test_a_request_arrives_as_it_was_sent(request_: Request) -> None:
    line = encode(request_)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode_request(line) == request_
    assert decode_request(line.rstrip(b"\n")) == request_


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_arrives_as_it_was_sent(answer: Answer) -> None:
    line = encode(answer)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode_answer(line) == answer


@given(st.builds(LineAnswer, st.text(max_size=200)))
def test_any_text_stays_on_its_line(answer: LineAnswer) -> None:
    line = encode(answer)
    assert all(0x20 <= octet < 0x7F for octet in line[:-1])
    assert decode_answer(line) == answer


def test_what_a_client_leaves_out_has_its_default() -> None:
    assert decode_request(b'{"op":"at","cmd":"AT"}') == AtRequest("AT", timeout_ms=300_000, id=None)


def test_a_key_of_a_newer_daemon_is_passed_over() -> None:
    assert decode_answer(b'{"event":"line","text":"OK","colour":"red"}') == LineAnswer("OK")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"", "the line is no JSON: Expecting value at column 1"),
        (b"AT+CSQ", "the line is no JSON: Expecting value at column 1"),
        (b'{"op":"\xff"}', "the line is no UTF-8 at byte 7"),
        (b"[1]", "the line is no JSON object; right is for example"),
        (b"[" * 60_000, "nested too deep"),
        (b'{"op":' + b"1" * 5_000 + b"}", "a number too long"),
        (b'{"op":"at","cmd":"AT","timeout_ms":NaN}', "NaN is no number"),
        (b'{"op":"at","cmd":"AT","cmd":"ATZ"}', '"cmd": given twice'),
        (b" " * (LINE_MAX + 1), f"the line has {LINE_MAX + 1} bytes; at most {LINE_MAX} are read"),
        (b"{}", "op: missing; right is a text"),
        (b'{"op":1}', "op: a number given; right is a text"),
        (b'{"op":null}', "op: null given; right is a text"),
        (b'{"op":[]}', "op: a list given; right is a text"),
        (b'{"op":{}}', "op: an object given; right is a text"),
        (b'{"op":"halt"}', 'op: "halt" is unknown; known are "at", "status", "cancel", "explain", "settings"'),
        (b'{"op":"' + b"x" * 99 + b'"}', 'op: "' + "x" * 40 + r'\u2026" is unknown'),
        (b'{"op":"at"}', "cmd: missing; right is a text"),
        (b'{"op":"lend","seconds":0}', "seconds: 0 is out of range; right is a whole number from 1 to 86400"),
        (b'{"op":"at","cmd":"\\ud800"}', "cmd: half of a surrogate pair"),
        (b'{"op":"at","cmd":"AT","id":"\\udfff"}', "id: half of a surrogate pair"),
        (b'{"op":"at","cmd":"AT","id":7}', "id: a number given; right is a text of at most 128 characters, or null"),
        (b'{"op":"at","cmd":"AT","id":"' + b"i" * (ID_MAX + 1) + b'"}', "id: a text of 129 characters given"),
        (b'{"op":"at","cmd":"AT","timeout_ms":true}', "timeout_ms: a truth value given; right is a whole number"),
        (b'{"op":"at","cmd":"AT","timeout_ms":1e3}', "timeout_ms: a number given; right is a whole number"),
        (
            b'{"op":"at","cmd":"AT","timeout_ms":999}',
            "timeout_ms: 999 is out of range; right is a whole number from 1000",
        ),
        (b'{"op":"at","cmd":"AT","timeout_ms":3600001}', "timeout_ms: 3600001 is out of range"),
        (
            b'{"op":"at","cmd":"AT","timeout":1}',
            '"timeout": unknown key for op "at"; known are cmd, id, op, timeout_ms',
        ),
        (b'{"op":"explain","door":"fax"}', 'door: "fax" is unknown; right is "sms" or "tcp" or "mqtt" or "local"'),
        (b'{"op":"explain","door":"sms","digest":1}', "digest: a number given; right is true or false"),
        (b'{"op":"explain","door":"sms","peer":"\\ud800"}', "peer: half of a surrogate pair"),
        (b'{"op":"settings","keys":"sms"}', "keys: a text given; right is a list of texts"),
        (b'{"op":"settings","keys":[7]}', "keys: a list given; right is a list of texts"),
        (b'{"op":"reset","keys":["\\ud800"]}', "keys: half of a surrogate pair"),
        (b'{"op":"import"}', "settings: missing; right is an object"),
        (b'{"op":"import","settings":{"a":["\\ud800"]}}', "settings: half of a surrogate pair"),
        (b'{"op":"import","settings":{"a":' + b"[" * 900 + b"]" * 900 + b"}}", "nested too deep"),
        (b'{"op":"import","settings":{"a":' + b'{"b":' * 8 + b"1" + b"}" * 8 + b"}}", "settings: nested too deep"),
        (b'{"op":"settings","keys":[' + b'"a",' * 256 + b'"a"]}', "keys: 257 texts given; right is a list"),
        (b'{"op":"reset","keys":[' + b'"a",' * 256 + b'"a"]}', "keys: 257 texts given"),
        (b'{"op":"doors","action":"open","doors":[' + b'"a",' * 256 + b'"a"]}', "doors: 257 texts given"),
        (b'{"op":"export","secret":true}', '"secret": unknown key for op "export"; known are op, secrets'),
        (b'{"op":"doors","action":"shut","doors":[]}', 'action: "shut" is unknown; right is "close" or "open"'),
        (b'{"op":"status","cmd":"AT"}', '"cmd": unknown key for op "status"; known are op'),
    ],
)
def test_a_request_that_is_none_is_refused_by_name(line: bytes, message: str) -> None:
    with pytest.raises(ControlError) as caught:
        decode_request(line)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"event":"dance"}', 'event: "dance" is unknown'),
        (b'{"event":"status","status":[]}', "status: a list given; right is an object"),
        (b'{"event":"final","state":"ok","rid":"r"}', "duration_ms: missing; right is a whole number from 0"),
        (b'{"event":"final","state":"ok","rid":"r","duration_ms":-1}', "duration_ms: -1 is out of range"),
        (b'{"event":"accepted"}', "rid: missing"),
    ],
)
def test_an_answer_that_is_none_is_refused_by_name(line: bytes, message: str) -> None:
    with pytest.raises(ControlError) as caught:
        decode_answer(line)
    assert message in str(caught.value)


def test_what_may_hold_a_secret_is_not_shown_of_a_message() -> None:
    secret = {"tcp.users.1": {"name": "n", "password": "pl4nted"}}
    assert "pl4nted" not in repr(ImportRequest(dict(secret))) + repr(DoneAnswer(dict(secret)))


def test_what_has_nothing_to_say_is_left_out() -> None:
    assert json.loads(encode(ErrorAnswer("no"))).keys() == {"event", "message"}
    assert "detail" not in json.loads(encode(FinalAnswer("ok", "OK", None, 1, "r")))


def test_a_message_too_long_to_read_is_not_sent() -> None:
    with pytest.raises(ControlError, match=f"at most {LINE_MAX} can be sent"):
        encode(LineAnswer("x" * LINE_MAX))
    room = LINE_MAX - len(encode(LineAnswer("")))
    assert decode_answer(encode(LineAnswer("x" * room))) == LineAnswer("x" * room)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
KEYS = st.sampled_from(["op", "event", "cmd", "id", "timeout_ms", "text", "rid", "state", "status", "duration_ms"])
WORDS = st.sampled_from(["at", "status", "cancel", "accepted", "line", "final", "error"])


@given(st.binary(max_size=300) | st.dictionaries(KEYS, WORDS | JSON).map(lambda value: json.dumps(value).encode()))
def test_random_input_never_raises_anything_but_the_own_error(line: bytes) -> None:
    for decode in (decode_request, decode_answer):
        try:
            message = decode(line)
        except ControlError:
            continue
        assert decode(encode(message)) == message
