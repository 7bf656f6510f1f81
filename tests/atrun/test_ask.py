# SPDX-License-Identifier: Apache-2.0
"""A request as it comes over MQTT: what is taken, and every way in which it is refused."""

import base64
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrund.atrun.ask import BODY_MAX, ID_MAX, PAYLOAD_MAX, Ask, AskRefused, parse_ask, parse_cancel
from atrund.atrun.request import Reason


def asked(**given_: object) -> Ask:
    return parse_ask(json.dumps({"cmd": "AT", **given_}).encode())


def refused(payload: bytes) -> AskRefused:
    with pytest.raises(AskRefused) as raised:
        parse_ask(payload)
    return raised.value


@pytest.mark.parametrize(
    ("payload", "ask"),
    [
        (b"AT+COPS?", Ask("AT+COPS?")),
        (b"at+cops?\r\n", Ask("at+cops?\r\n")),
        (b"HAT+COPS?", Ask("AT+COPS?", reply=False)),
        (b"hat+cops?", Ask("at+cops?", reply=False)),
        ('AT+X="\u00e9"'.encode(), Ask('AT+X="\u00e9"')),
        (b'{"cmd":"AT+COPS?"}', Ask("AT+COPS?")),
        (b' {"cmd":"AT+COPS?"}\n', Ask("AT+COPS?")),
        (b'{"cmd":"HAT+COPS?","reply":true}', Ask("AT+COPS?", reply=False)),
        (b'{"cmd":"no command"}', Ask("no command")),
    ],
)
def test_what_is_asked(payload: bytes, ask: Ask) -> None:
    assert parse_ask(payload) == ask


def test_the_example_of_the_contract() -> None:
    payload = """{"v":1, "id":"9f0c\u2026", "cmd":"AT+COPS?", "timeout_ms":60000,
     "expires":"2026-11-22T08:40:00.000Z", "body":null, "body_b64":null, "instance":1, "reply":true, "reply_to":null}"""
    assert parse_ask(payload.encode()) == Ask(
        "AT+COPS?", "9f0c\u2026", 60.0, datetime(2026, 11, 22, 8, 40, tzinfo=UTC), reply=True
    )


def test_defaults_and_null_are_the_same() -> None:
    assert asked(v=None, id=None, timeout_ms=None, expires=None, instance=None, reply=None, reply_to=None) == asked()
    assert asked() == Ask("AT", None, 300.0, None, reply=True, reply_to=None)


@pytest.mark.parametrize(
    ("key", "value", "attribute", "taken"),
    [
        ("id", "x" * ID_MAX, "id", "x" * ID_MAX),
        ("id", "61", "id", "61"),
        ("timeout_ms", 1000, "timeout", 1.0),
        ("timeout_ms", 3_600_000, "timeout", 3600.0),
        ("reply", False, "reply", False),
        ("reply_to", "site/answers", "reply_to", "site/answers"),
        ("instance", 1, "instance", 1),
        ("instance", 3, "instance", 3),
        ("body", "", "body", b""),
        ("body", "\u20ac 5", "body", b"\xe2\x82\xac 5"),
        ("body", "x" * BODY_MAX, "body", b"x" * BODY_MAX),
        ("body_b64", "", "body", b""),
        ("body_b64", "AP8a", "body", b"\x00\xff\x1a"),
        ("body_b64", "QUFB" * (BODY_MAX // 3), "body", b"A" * BODY_MAX),
        ("expires", "2026-11-22T09:40:00+01:00", "expires", datetime(2026, 11, 22, 8, 40, tzinfo=UTC)),
        (
            "expires",
            "0001-01-01T00:00:00+23:59",
            "expires",
            datetime(1, 1, 1, tzinfo=timezone(timedelta(minutes=1439))),
        ),
    ],
)
def test_values_that_are_taken(key: str, value: object, attribute: str, taken: object) -> None:
    assert getattr(asked(**{key: value}), attribute) == taken


@pytest.mark.parametrize(
    ("key", "values", "right"),
    [
        ("v", [0, 2, "1", True, False, 1.0, [1]], "1"),
        ("id", ["", "x" * (ID_MAX + 1), 7, True, ["a"], {}], "1 to 128 characters"),
        ("cmd", [None, 1, True, ["AT"], {"cmd": "AT"}], "a command line"),
        ("timeout_ms", [999, 0, -1, 3_600_001, 10**300, "60000", True, 6e4, [60000]], "timeout_ms: it must be"),
        (
            "expires",
            [
                "",
                "soon",
                "2026-11-22",
                "2026-11-22T08:40:00",
                "2026-13-22T08:40:00Z",
                "2026-11-22T08:40:60Z",
                1763800800,
            ],
            "expires: it must be a time",
        ),
        ("instance", [0, 4, -1, "1", True, 1.0, 10**30], "a number from 1 to 3"),
        ("body", [1, True, ["a"], {}], "a text"),
        (
            "body_b64",
            [
                1,
                True,
                ["QQ=="],
                "QQ",
                "QQ=",
                "QQ==\n",
                "Q Q=",
                "QR==",
                "QQ==QQ==",
                "QQ===",
                "Q-==",
                "Q_==",
                "\u00e9",
                "=",
            ],
            "base64",
        ),
        ("reply", [0, 1, "true", []], "true or false"),
        ("reply_to", [1, False, ["a"]], "a topic"),
    ],
)
def test_a_wrong_value_is_named_with_what_would_be_right(key: str, values: list[Any], right: str) -> None:
    for value in values:
        error = refused(json.dumps({"cmd": "AT", key: value}).encode())
        assert error.reason is Reason.BAD_REQUEST
        assert error.detail.startswith(f"{key}: ")
        assert right in error.detail
        assert str(error) == error.detail


def test_a_body_is_the_same_by_either_key_and_only_its_kind_is_told_apart() -> None:
    by_text, by_octets = asked(body="hello"), asked(body_b64="aGVsbG8=")
    assert by_text.body == by_octets.body == b"hello"
    assert (by_text.is_text, by_octets.is_text) == (True, False)
    assert (asked().body, asked(body=None, body_b64=None).body) == (None, None)


def test_two_bodies_are_refused() -> None:
    error = refused(json.dumps({"cmd": "AT+CMGS=12", "id": "a", "body": "", "body_b64": ""}).encode())
    assert (error.reason, error.id) == (Reason.BAD_REQUEST, "a")
    assert "not both" in error.detail


@pytest.mark.parametrize(
    ("key", "value"), [("body", "x" * (BODY_MAX + 1)), ("body", "\u20ac" * 16_001), ("body_b64", "QUFB" * 16_001)]
)
def test_a_body_without_bound(key: str, value: str) -> None:
    """The cap is on octets, however they were written."""
    error = refused(json.dumps({"cmd": "AT#WSCRIPT", "id": "a", key: value}, ensure_ascii=False).encode())
    assert (error.reason, error.id) == (Reason.TOO_LONG, "a")
    assert error.detail.endswith(f"at most {BODY_MAX}")


def test_a_body_is_in_no_repr() -> None:
    assert "4711" not in repr(asked(body="4711"))


@pytest.mark.parametrize("key", ["Cmd", "command", "", "cmd ", "x" * 1000, "a\nb\x1b[2J\u202e"])
def test_an_unknown_key_is_refused_and_shown_harmlessly(key: str) -> None:
    error = refused(json.dumps({"cmd": "AT", "id": "mine", key: 1}).encode())
    assert error.reason is Reason.BAD_REQUEST
    assert error.id == "mine"
    assert "no such key" in error.detail
    assert "timeout_ms" in error.detail
    assert error.detail.isprintable()
    assert len(error.detail) < 250


@pytest.mark.parametrize(
    ("payload", "told"),
    [
        (b"", "neither"),
        (b"COPS?", "neither"),
        (b" AT", "neither"),
        (b"\xef\xbb\xbfAT", "neither"),
        (b'\xef\xbb\xbf{"cmd":"AT"}', "neither"),
        (b'{"cmd":"AT"', "neither"),
        (b'{"cmd":"AT"}{}', "neither"),
        (b'{"cmd":"AT",}', "neither"),
        (b"{'cmd':'AT'}", "neither"),
        (b'{"cmd":"A\nT"}', "neither"),
        (b'{"cmd":"AT","timeout_ms":NaN}', "neither"),
        (b'{"cmd":"AT","timeout_ms":-Infinity}', "neither"),
        (b'{"cmd":"AT","timeout_ms":1e999}', "timeout_ms"),
        (b'{"cmd":"AT","timeout_ms":' + b"9" * 5000 + b"}", "neither"),
        (b"[" * PAYLOAD_MAX, "neither"),
        (b'{"id":' * (PAYLOAD_MAX // 6), "neither"),
        (b'["AT"]', "no object"),
        (b'"AT"', "no object"),
        (b"null", "no object"),
        (b"1", "no object"),
        (b"{}", "cmd"),
        (b"\xff\xfe", "UTF-8"),
        (b"AT\xff", "UTF-8"),
        (b'{"cmd":"AT\xed\xa0\x80"}', "UTF-8"),
        (b'{"cmd":"AT","cmd":"AT+CFUN=4"}', "twice"),
        (b'{"cmd":"AT","\\u0063md":"AT+CFUN=4"}', "twice"),
        (b'{"cmd":"AT","id":{"a":1,"a":2}}', "twice"),
    ],
)
def test_what_asks_nothing_is_refused(payload: bytes, told: str) -> None:
    error = refused(payload)
    assert error.reason is Reason.BAD_REQUEST
    assert told in error.detail
    assert error.id is None


@pytest.mark.parametrize(
    "payload",
    [
        rb'{"cmd":"AT\ud800"}',
        rb'{"cmd":"AT","id":"\udc00"}',
        rb'{"cmd":"AT","reply_to":"\ud83d"}',
        rb'{"cmd":"AT","\ud800":1}',
        rb'{"cmd":"AT","id":["\ud800"]}',
    ],
)
def test_half_a_surrogate_pair_is_refused_anywhere(payload: bytes) -> None:
    """No record could be written of it, and no answer."""
    error = refused(payload)
    assert error.reason is Reason.BAD_REQUEST
    assert "surrogate" in error.detail


def test_a_whole_surrogate_pair_is_a_character() -> None:
    assert parse_ask(rb'{"cmd":"AT","id":"\ud83d\ude00"}').id == "\U0001f600"


def test_the_cap_is_on_octets() -> None:
    assert parse_ask(b"AT" + b" " * (PAYLOAD_MAX - 2)).cmd.strip() == "AT"
    assert refused(b"AT" + b" " * (PAYLOAD_MAX - 1)).reason is Reason.TOO_LONG


def test_a_refusal_carries_the_id_where_it_could_be_read() -> None:
    assert refused(b'{"id":"mine"}').id == "mine"
    assert refused(b'{"id":7,"cmd":"AT"}').id is None


def test_a_repr_does_not_show_the_command() -> None:
    assert "4711" not in repr(parse_ask(b"AT+CPIN=4711"))


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8")))
def test_any_bytes_are_taken_or_refused(payload: bytes) -> None:
    try:
        ask = parse_ask(payload)
    except AskRefused as error:
        assert error.detail
    else:
        assert ask.cmd[:2].upper() == "AT"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from("v id cmd timeout_ms expires body body_b64 instance reply reply_to".split())


@given(st.dictionaries(KEYS | st.text(max_size=4), JSON, max_size=6))
def test_any_object_is_taken_or_refused(given_: dict[str, Any]) -> None:
    try:
        ask = parse_ask(json.dumps(given_).encode())
    except AskRefused as error:
        assert error.detail.encode()
    else:
        assert ask.cmd == given_["cmd"].removeprefix("H" if given_["cmd"][:3].upper() == "HAT" else "")
        assert 1.0 <= ask.timeout <= 3600.0
        json.dumps([ask.id, ask.cmd, ask.reply_to], ensure_ascii=False).encode()
        assert ask.body is None or len(ask.body) <= BODY_MAX
        assert ask.instance in {1, 2, 3}


@given(st.binary(max_size=300))
def test_a_body_of_any_octets_arrives_as_it_is(body: bytes) -> None:
    assert asked(body_b64=base64.b64encode(body).decode()).body == body


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=100))
def test_a_body_of_any_text_arrives_as_its_utf_8(text: str) -> None:
    assert asked(body=text).body == text.encode()


@given(st.text("QR+/=-_ \n", max_size=9))
def test_no_two_spellings_of_base64_mean_the_same(coded: str) -> None:
    try:
        body = asked(body_b64=coded).body
    except AskRefused as error:
        assert "base64" in error.detail
    else:
        assert body is not None
        assert base64.b64encode(body).decode() == coded


# Cancellations.


def cancel_refused(payload: bytes) -> AskRefused:
    with pytest.raises(AskRefused) as raised:
        parse_cancel(payload)
    return raised.value


@pytest.mark.parametrize(
    ("payload", "id_"),
    [
        (b'{"id":"a"}', "a"),
        (b'{"v":1,"id":"a"}', "a"),
        (json.dumps({"id": "x" * ID_MAX}).encode(), "x" * ID_MAX),
        (b"", None),
        (b"{}", None),
        (b'{"id":null,"v":null}', None),
    ],
)
def test_what_is_cancelled(payload: bytes, id_: str | None) -> None:
    assert parse_cancel(payload) == id_


@pytest.mark.parametrize(
    ("payload", "told", "id_"),
    [
        (b"a", "neither JSON", None),
        (b"AT", "neither JSON", None),
        (b"\xff", "UTF-8", None),
        (b"[]", "no object", None),
        (b'"a"', "no object", None),
        (b'{"id":"a","id":"b"}', "twice", None),
        (b'{"id":""}', "1 to 128", None),
        (b'{"id":7}', "1 to 128", None),
        (json.dumps({"id": "x" * (ID_MAX + 1)}).encode(), "1 to 128", None),
        (rb'{"id":"\ud800"}', "surrogate", None),
        (b'{"id":"a","v":2}', "v: it must be 1", "a"),
        (b'{"id":"a","cmd":"AT"}', "'cmd': no such key; there are v, id", "a"),
        (b'{"id":"a","reply_to":"x"}', "'reply_to': no such key", "a"),
    ],
)
def test_a_cancellation_that_is_none(payload: bytes, told: str, id_: str | None) -> None:
    error = cancel_refused(payload)
    assert (error.reason, error.id) == (Reason.BAD_REQUEST, id_)
    assert told in error.detail


def test_a_cancellation_without_bound() -> None:
    assert cancel_refused(b" " * (PAYLOAD_MAX + 1)).reason is Reason.TOO_LONG


@given(st.binary(max_size=60) | st.dictionaries(KEYS, JSON, max_size=4).map(lambda one: json.dumps(one).encode()))
def test_any_bytes_cancel_something_or_are_refused(payload: bytes) -> None:
    try:
        id_ = parse_cancel(payload)
    except AskRefused as error:
        assert error.detail
    else:
        assert id_ is None or 0 < len(id_) <= ID_MAX
