# SPDX-License-Identifier: Apache-2.0
"""A request as it comes over MQTT: what is taken, and every way in which it is refused."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrund.atrun.ask import ID_MAX, PAYLOAD_MAX, Ask, AskRefused, parse_ask
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
        ("instance", [0, 2, 3, "1", True, 1.0], "instance: it must be"),
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


@pytest.mark.parametrize("key", ["body", "body_b64"])
def test_data_for_a_prompt_is_refused_as_such(key: str) -> None:
    error = refused(json.dumps({"cmd": "AT+CMGS=12", "id": "a", key: "00"}).encode())
    assert (error.reason, error.id) == (Reason.PROMPT_UNSUPPORTED, "a")


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
