# SPDX-License-Identifier: Apache-2.0
"""The command line as REQ-4 wants it: parsed, judged as a list, and written anew."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrund.at.syntax import LINE_MAX, Command, LineRefused, Op, arguments, parse, unparse, unquote


def one(name: str, op: Op = Op.EXECUTE, args: str = "") -> Command:
    return Command(name, op, args)


@pytest.mark.parametrize(
    ("line", "commands"),
    [
        ("AT", ()),
        ("at\r\n", ()),
        ("AT\r", ()),
        ("AT\n", ()),
        ("AT+CSQ", (one("+CSQ"),)),
        ("at+csq", (one("+CSQ"),)),
        ("AT+COPS?", (one("+COPS", Op.READ),)),
        ("AT+COPS=?", (one("+COPS", Op.TEST),)),
        ("AT+cfun = 04", (one("+CFUN", Op.SET, "04"),)),
        ("AT# SGACT=1,1;#SS", (one("#SGACT", Op.SET, "1,1"), one("#SS"))),
        ("ATE0+CFUN=4", (one("E", args="0"), one("+CFUN", Op.SET, "4"))),
        ("ATE0V1&F", (one("E", args="0"), one("V", args="1"), one("&F"))),
        ("AT\\Q3%E2", (one("\\Q", args="3"), one("%E", args="2"))),
        ("ATS3=13S4?S5", (one("S3", Op.SET, "13"), one("S4", Op.READ), one("S5"))),
        ("ATS3=?E0", (one("S3", Op.TEST), one("E", args="0"))),
        ("ATS03=13", (one("S3", Op.SET, "13"),)),
        ("ATS0000003=13", (one("S3", Op.SET, "13"),)),
        ("ATD*99#", (one("D", args="*99#"),)),
        ('ATD>"a;b";+CSQ', (one("D", args='>"a;b";'), one("+CSQ"))),
        ("ATDT123;", (one("D", args="T123;"),)),
        ('AT+CPBW=1,"a;b c",129', (one("+CPBW", Op.SET, '1,"a;b c",129'),)),
        ("AT+CSQ;", (one("+CSQ"),)),
        ("AT;;+CSQ", (one("+CSQ"),)),
        ("AT+CSQ //signal; now", (one("+CSQ"),)),
        ('AT#SKTD=0,80,"http://a"', (one("#SKTD", Op.SET, '0,80,"http://a"'),)),
        ("AT#ESCRIPT=//x", (one("#ESCRIPT", Op.SET, "//x"),)),
        ("AT$GPSP?", (one("$GPSP", Op.READ),)),
        ("AT#MONI=?,1", (one("#MONI", Op.SET, "?,1"),)),
    ],
)
def test_a_line_is_its_commands(line: str, commands: tuple[Command, ...]) -> None:
    assert parse(line) == commands


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("", "bad_request"),
        ("A/", "bad_request"),
        ("+CSQ", "bad_request"),
        ("AT+CSQ\rAT+CFUN=4", "bad_request"),
        ("AT+CSQ\n\n", "bad_request"),
        ("AT+CSQ\x1a", "bad_request"),
        ("AT+CSQ\x7f", "bad_request"),
        ("AT+CSQ\xa2", "bad_request"),
        ('AT+CPIN="12', "bad_request"),
        ("AT+", "bad_request"),
        ("AT+1", "bad_request"),
        ("AT+CSQ?1", "bad_request"),
        ("AT+CSQ!?=", "bad_request"),
        ("ATS", "bad_request"),
        ("AT&", "bad_request"),
        ("AT=1", "bad_request"),
        ("ATE0?", "bad_request"),
        ("AT" + "E" * LINE_MAX, "too_long"),
    ],
)
def test_a_line_is_refused_whole(line: str, reason: str) -> None:
    with pytest.raises(LineRefused) as caught:
        parse(line)
    assert caught.value.reason == reason
    assert caught.value.detail


def test_unparse_separates_only_where_needed() -> None:
    assert unparse(parse("ATE0;V1;+CSQ;;E1+COPS?;D123;")) == "ATE0V1+CSQ;E1+COPS?;D123;"
    assert unparse(()) == "AT"


def test_a_refusal_does_not_show_what_ran_into_a_name() -> None:
    with pytest.raises(LineRefused) as caught:
        parse('AT+CPIN4711"x"')
    assert "4711" not in caught.value.detail


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40))
def test_what_is_sent_is_what_was_judged(text: str) -> None:
    try:
        commands = parse("AT" + text)
    except LineRefused:
        return
    assert parse(unparse(commands)) == commands


@given(st.text(max_size=60))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        commands = parse(text)
    except LineRefused as refused:
        assert refused.reason in {"bad_request", "too_long"}
    else:
        assert all(" " <= character <= "~" for command in commands for character in str(command))


def test_arguments_split_at_commas_outside_quotes() -> None:
    assert arguments('1,"a,b",,3') == ("1", '"a,b"', "", "3")
    assert arguments("") == ()


def test_unquote_takes_one_pair() -> None:
    assert unquote('"x"') == "x"
    assert unquote("x") == "x"
    assert unquote('"') == '"'
