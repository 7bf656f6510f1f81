# SPDX-License-Identifier: Apache-2.0
"""POL-3: what must not be shown, in every spelling."""

import json
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from atrund.atrun.secrets import (
    BUILT_IN,
    MASKS_MAX,
    NUMBER_ARGUMENT,
    NUMBER_VALUE,
    SECRET_ARGUMENT,
    SECRET_VALUE,
    MaskError,
    Secret,
    adopt,
    escape,
    mask_answer,
    mask_line,
    mask_number,
    mask_numbers,
    read_masks,
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
        ('AT#GPRS=1,"user","pass"', "AT#GPRS=1,****"),
        ("AT#GPRS=0", "AT#GPRS=0"),
        ('AT#FTPGETOTAENH="h",21,"p","user","pass"', 'AT#FTPGETOTAENH="h",21,"p",****'),
        ("AT+CPIN?", "AT+CPIN?"),
        ("at+cops?", "at+cops?"),
        ("AT#SGACTCFG=1,5,180", "AT#SGACTCFG=1,5,180"),
        ("AT+CPINR", "AT+CPINR"),
        ("ATD+393468686711;", "ATD+393468686711;"),
        ("ATD**04*1234*4321*4321#", "ATD**04*****"),
        ("ATD*#31#", "ATD*#31#"),
        ('AT#EVMONI="SMSIN",1,0,"AT+CPIN=1234"', 'AT#EVMONI="SMSIN",1,0,"AT+CPIN****'),
        ("AT+CSQ #755224.", "AT+CSQ #****."),  # a code that was mistyped is still to be used
        ("HAT+CSQ#755 224 #287082 Anna", "HAT+CSQ#**** #**** Anna"),
        ("AT+CPIN=1234 #755224", "AT+CPIN=****"),
        ("AT+CSQ #755224;+CPIN=1", "AT+CSQ #****;+CPIN****"),
        ('AT+CPBW=1,"*#31#755224"', 'AT+CPBW=1,"*#31#755224"'),
        ("ATD*#31#755224;", "ATD*#31#755224;"),
        ("order #755224", "order #755224"),
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


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ('AT#OEM=1,"user","pass"', "AT#OEM=1,****"),
        ("AT#OEM=1", "AT#OEM=1"),
        ("AT#OEM?", "AT#OEM?"),
        ("at # oem = 1 , s3cret", "AT#OEM=1,****"),
        ('AT#OEM=1,"s3cret', "AT#OEM****"),
        ('AT#SD=1,0,80,"h";#X="token=s3cret&a",1', 'AT#SD=1,0,80,"h";#X="token=****",1'),
        ('AT#X="Authorization: Bearer s3cret"', 'AT#X="Authorization: Bearer ****"'),
        ("AT+CPIN=1234", "AT+CPIN=****"),
        ("token=", "token="),
        ("TOKEN=s3cret, more", "TOKEN=****, more"),
    ],
)
def test_masks_of_the_configuration(line: str, shown: str) -> None:
    masks = read_masks(["#OEM=,*", "#oem: *", "token=*", "bearer *"])
    assert mask_line(line, masks) == shown


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ('#OEM: "s3cret",1', "#OEM: ****"),
        ("#ALL: 1,2,s3cret", "#ALL: 1,2,****"),
        ("#USERID: s3cret", "#USERID: ****"),
        ("+X: token=s3cret", "+X: token=****"),
        ("+CSQ: 1,2", "+CSQ: 1,2"),
    ],
)
def test_masks_of_the_configuration_in_answers(line: str, shown: str) -> None:
    masks = read_masks(["#OEM: *", "#ALL:,,*", "token=*", "#USERID:,,,*"])
    assert mask_answer((), line, masks) == shown


def test_a_mask_only_adds() -> None:
    masks = read_masks(["+CPIN=,,,*", "#SMSATWL: ,,*"])
    assert mask_line("AT+CPIN=1234", masks) == "AT+CPIN=****"
    assert masks.values["#SMSATWL"] == SECRET_VALUE["#SMSATWL"]
    assert (read_masks([]).commands, read_masks([]).words) == (BUILT_IN.commands, None)


@pytest.mark.parametrize(
    ("masks", "wrong"),
    [
        (["*"], "a mask of 1 characters"),
        (["abc"], "a mask of 3 characters"),
        (["a" * 100 + "*"], "a mask of 101 characters"),
        (["t\u00f6ken=*"], "a mask of 7"),
        (["tok\x07en*"], "a mask of 7"),
        (["token="], "is no mask"),
        (["to*ken*"], "is no mask"),
        (["****"], "is no mask"),
        ([f"word{n}=*" for n in range(MASKS_MAX + 1)], f"{MASKS_MAX + 1} masks"),
    ],
)
def test_what_is_no_mask(masks: list[str], wrong: str) -> None:
    with pytest.raises(MaskError) as raised:
        read_masks(masks)
    assert wrong in raised.value.wrong
    assert raised.value.right
    assert str(raised.value) == f"{raised.value.wrong}; {raised.value.right}"


@given(st.lists(st.text(alphabet="#Aa=:,(.+*)|[]\\ ", min_size=4, max_size=20), max_size=4), st.text(max_size=200))
def test_no_mask_can_break_or_slow_the_masking(masks: list[str], text: str) -> None:
    try:
        made = read_masks(masks)
    except MaskError:
        return
    assert isinstance(mask_line(text, made), str)
    assert isinstance(mask_answer((), text + "a" * 5000, made), str)


NATIONAL = "3468686711"


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ('+CMGL: 1,"REC READ","3468686711","","21/11/16,14:10:00+04"', '"******6711","","21/11/16,14:10:00+04"'),
        ('+CMGL: 1,"REC READ",6,12,"3468686711",129', '"REC READ",6,12,"******6711",129'),
        ('+CMGR: "REC READ","+393468686711",,"08/05/28,11:04:37+08"', '"+********6711",,"08/05/28,11:04:37+08"'),
        ('+CMGR: "REC READ","+39346",,"08/05/28,11:04:37+08",145,4,0,0,"3468686711",145,9', '4,0,0,"******6711",145'),
        ('+CMT: "3468686711",,"08/05/28,11:04:37+08"', '"******6711",,'),
        ('+CDS: 6,12,"3468686711",129', '6,12,"******6711",129'),
        ('+CSCA: "3468686711",129', '"******6711",129'),
        ('+CLIP: "3468686711",129,,,,0', '"******6711",129'),
        ('+CLIP:"3468686711",129', '"******6711",129'),
        ('+CNUM: "own","3468686711",129', '"own","******6711",129'),
        ('+CPBR: 1,"3468686711",129,"Mum"', '1,"******6711",129,"Mum"'),
        ('+CLCC: 1,1,4,0,0,"3468686711",129', '0,"******6711",129'),
        ("+CLCC: 1,1,4,0,0", "+CLCC: 1,1,4,0,0"),
        ('+CCFC: 1,1,"3468686711",129', '1,1,"******6711"'),
        ("#ECAM: 1,6,1,,,3468686711,129", ",,,******6711,129"),
        ('#SMSATWL: 0,"3468686711"', '0,"******6711"'),
        ('+CNUM: "","0033003400360038",129', '"************0038"'),
        ('+CLIP: "Vodafone",208', '"Vodafone"'),
        ('+CLIP: "1234",129', '"1234"'),
        ("+COPS: 0,2,22210000", "22210000"),
        ("call +393468686711 now", "call +********6711 now"),
        ("AT+CMGS=52", "AT+CMGS=52"),
        ('AT+CMGS="3468686711",129', 'AT+CMGS="******6711",129'),
        ('HAT+CPBW=1,"3468686711"', 'HAT+CPBW=1,"******6711"'),
        ('hat+cmss=1,"3468686711"', 'hAT+CMSS=1,"******6711"'),
        ("ATD3468686711;", "ATD******6711;"),
        ("ATDT+393468686711;", "ATDT+********6711;"),
        ('AT#SMSATWL=0,1,0,"3468686711"', 'AT#SMSATWL=0,1,0,"******6711"'),
        ("at+csq", "at+csq"),
        ('AT+CSCA="346868', 'AT+CSCA="346868'),
        ("AT+CGSN", "AT+CGSN"),
        ("Attention 3468", "Attention 3468"),
    ],
)  # fmt: skip
def test_telephone_numbers_in_their_places(line: str, shown: str) -> None:
    """POL-3: a national number has no `+` to be known by."""
    assert shown in mask_numbers(line)
    assert NATIONAL not in mask_numbers(line)


def test_the_places_are_counted_from_one() -> None:
    for places in (*NUMBER_VALUE.values(), *NUMBER_ARGUMENT.values()):
        assert min(places) >= 1


@given(st.text(max_size=80))
def test_any_text_can_be_searched_for_numbers(text: str) -> None:
    assert isinstance(mask_numbers(text), str)


def test_adopted_masks_are_those_of_every_text() -> None:
    try:
        adopt(read_masks(["#OEM=,*", "#OEM: *"]))
        assert mask_line("AT#OEM=1,geheim;+CPIN=1234") == "AT#OEM=1,****;+CPIN=****"
        assert mask_answer((), "#OEM: geheim") == "#OEM: ****"
    finally:
        adopt(BUILT_IN)
    assert mask_line("AT#OEM=1,geheim") == "AT#OEM=1,geheim"
