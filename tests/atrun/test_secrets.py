# SPDX-License-Identifier: Apache-2.0
"""POL-3: what must not be shown, in every spelling."""

import json
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from atrund.atrun.secrets import (
    SECRET_ARGUMENT,
    SECRET_VALUE,
    Secret,
    escape,
    mask_answer,
    mask_line,
    mask_number,
)

UNSHOWABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("AT+CPIN=1234", "AT+CPIN=****"),
        ('AT+CPIN="12345678","1234"', "AT+CPIN=****"),
        ("HAT+CPIN=1234", "HAT+CPIN=****"),
        ("hat+cpin=1234", "hAT+CPIN=****"),
        (" AT+CPIN=1234\r\n", "AT+CPIN=****"),
        ("AT + C P I N = 1234", "AT+CPIN=****"),
        ('AT+CLCK="SC",1,"1234",7', 'AT+CLCK="SC",1,****'),
        ('AT+CLCK="SC",2', 'AT+CLCK="SC",2'),
        ('AT+CPWD="SC","1234","4321"', 'AT+CPWD="SC",****'),
        ('AT+CGAUTH=1,2,"user","pass"', "AT+CGAUTH=1,2,****"),
        ("AT#SGACT=1,1", "AT#SGACT=1,1"),
        ('AT#SGACT=1,1,"user","pass"', "AT#SGACT=1,1,****"),
        ('AT#USERID="user";#PASSW=a,b', "AT#USERID=****;#PASSW=****"),
        ('AT#FTPOPEN="ftp.example:21","user","pass",1', 'AT#FTPOPEN="ftp.example:21",****'),
        ('AT#HTTPCFG=1,"host",80,1,"user","pass"', 'AT#HTTPCFG=1,"host",80,1,****'),
        ('AT#SMSATWL=0,1,0,"+39346*"', 'AT#SMSATWL=0,1,0,"+39346*"'),
        ('AT#SMSATWL=0,1,"0","+39346*"', 'AT#SMSATWL=0,1,"0","+39346*"'),
        ('AT#SMSATWL=0,2,1,"1234567890123456"', "AT#SMSATWL=0,2,1,****"),
        ('AT#SMSATWL=0,2,,"1234567890123456"', "AT#SMSATWL=0,2,,****"),
        ('AT#TCPATRUNAUTH=1,"testuser","testpassw"', 'AT#TCPATRUNAUTH=1,"testuser",****'),
        ("ATE0V1+CSQ;+CPIN=1234;+COPS?", "ATE0V1+CSQ;+CPIN=****;+COPS?"),
        ("AT+CPIN?", "AT+CPIN?"),
        ("at+cops?", "at+cops?"),
        ("AT#SGACTCFG=1,5,180", "AT#SGACTCFG=1,5,180"),
        ("AT+CPINR", "AT+CPINR"),
        ("ATD+393468686711;", "ATD+393468686711;"),
        ("ATD**04*1234*4321*4321#", "ATD**04*****"),
        ("ATD*#31#", "ATD*#31#"),
        ('AT#EVMONI="SMSIN",1,0,"AT+CPIN=1234"', 'AT#EVMONI="SMSIN",1,0,"AT+CPIN****'),
        ("Weather report", "Weather report"),
        ("", ""),
    ],
)
def test_a_command_line(line: str, shown: str) -> None:
    assert mask_line(line) == shown


@pytest.mark.parametrize(
    "line",
    [
        "AT+CPIN=1234\rAT+CFUN=4",
        "AT+CPIN=12;34 1234",
        'AT+CPIN="1234',
        "AT+C\x00PIN=1234",
        "AT+C\u200bPIN=1234",
        "AT\xab\xc3\xd0\xc9\xce=1234",
        "+cpin=1234",
        "AT+CPIN1234",
        "AT+CPIN-1234",
        "AT+CSQ // +CPIN=1234",
        "please run AT+CPIN=1234 now",
        "ATD**04*1234*1234*1234#\x01",
        'AT#ANY="at + cpin = 1234"',
    ],
)
def test_no_spelling_shows_the_secret(line: str) -> None:
    assert "1234" not in mask_line(line)


@given(st.sampled_from(sorted(SECRET_ARGUMENT)), st.text(alphabet="AT+,;\"' =?\r\x00*#0", max_size=20))
def test_whatever_surrounds_it_a_quoted_secret_is_not_shown(name: str, noise: str) -> None:
    filler = "," * (SECRET_ARGUMENT[name] - 1)
    assert "s3cret" not in mask_line(f'AT{name}={filler}"s3cret"{noise}')


@given(st.text(max_size=60))
def test_any_text_gives_a_text(text: str) -> None:
    assert isinstance(mask_line(text), str)
    assert isinstance(mask_answer(("#SSLSECDATA",), text), str)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ('#TCPATRUNAUTH: "user","pass"', '#TCPATRUNAUTH: "user",****'),
        ('#SMSATWL: 1,"1234567890123456"', "#SMSATWL: 1,****"),
        ('#SMSATWL: 0,"+39346*"', '#SMSATWL: 0,"+39346*"'),
        ("#SMSATWL: ", "#SMSATWL: "),
        ('+CGAUTH: 1,2,"user","pass"', "+CGAUTH: 1,2,****"),
        ('#userid: "user"', "#userid: ****"),
        ("+CPIN: SIM PIN", "+CPIN: SIM PIN"),
        ('+COPS: 0,0,"vodafone IT"', '+COPS: 0,0,"vodafone IT"'),
        ("AT+CPIN=1234", "AT+CPIN=****"),
        ('#EVMONI: "SMSIN",1,0,"AT+CPIN=1234"', '#EVMONI: "SMSIN",1,0,"AT+CPIN****'),
        ("-----BEGIN CERTIFICATE-----", "-----BEGIN CERTIFICATE-----"),
    ],
)
def test_a_line_of_an_answer(line: str, shown: str) -> None:
    assert mask_answer(("+COPS",), line) == shown


def test_an_answer_that_is_secret_as_a_whole_keeps_its_final_result() -> None:
    asked = ("+CSQ", "#sslsecdata")
    lines = ["#SSLSECDATA: 1,2", "-----BEGIN RSA PRIVATE KEY-----", "MIICXAIBAAKBgQ", "OK"]
    assert [mask_answer(asked, line) for line in lines] == ["****", "****", "****", "OK"]
    assert mask_answer((), "#SSLSECDATA: 1,2") == "****"


def test_both_tables_name_canonical_commands_and_positions() -> None:
    for name in (*SECRET_ARGUMENT, *SECRET_VALUE):
        assert re.fullmatch(r"[+#$][A-Z]+", name)
    assert min(SECRET_ARGUMENT.values()) == 1


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        ("+393468686711", "+********6711"),
        ("3468686711", "******6711"),
        ("48080", "*8080"),
        ("112", "112"),
        ("+", "+"),
        ("", ""),
    ],
)
def test_a_number_keeps_its_last_four_digits(number: str, shown: str) -> None:
    assert mask_number(number) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("AT\\Q3", "AT\\Q3"),
        ("a\\\\b", "a\\\\b"),
        ("AT+CSQ\rAT", "AT+CSQ\\x0dAT"),
        ("\x7f\x9b", "\\x7f\\x9b"),
        ("\u202e\u2028", "\\u202e\\u2028"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
        ("\\x0d", "\\\\x0d"),
        ("\\\\x0d", "\\\\\\\\x0d"),
        ("\\\r", "\\\\\\x0d"),
        ("é €", "é €"),
    ],
)
def test_escape(text: str, shown: str) -> None:
    assert escape(text) == shown


def unescape(text: str) -> str:
    """What a reader of the documentation of `escape` would write."""

    def one(found: re.Match[str]) -> str:
        slashes, code = found[1], found[2]
        if len(slashes) % 2 == 0:
            return "\\" * (len(slashes) // 2) + code
        return "\\" * (len(slashes) // 2) + chr(int(code[1:], 16))

    return re.sub(r"(\\+)(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8})", one, text)


@given(st.text(alphabet=st.one_of(st.characters(), st.sampled_from("\\xuU0aF\r\x07\u2028")), max_size=40))
@example("\\\\\x07x0a")
def test_escaped_text_is_showable_and_tells_what_it_was(text: str) -> None:
    shown = escape(text)
    assert UNSHOWABLE.search(shown) is None
    if "U" not in text:  # \U with eight digits may name what is no character
        assert unescape(shown) == text


def test_a_secret_shows_nothing() -> None:
    secret = Secret("hunter2")
    assert (repr(secret), str(secret), f"{secret}", f"{secret!r:>6}") == ("****", "****", "****", "  ****")
    assert json.dumps([secret], default=str) == '["****"]'
    assert secret.reveal() == "hunter2"


def test_secrets_compare_by_their_text() -> None:
    assert Secret("ä") == Secret("ä")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2
