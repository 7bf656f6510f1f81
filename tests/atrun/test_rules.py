# SPDX-License-Identifier: Apache-2.0
"""POL-1: rules as an integrator writes them; deny catches what a command may mean, allow what it surely means."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrund.at.syntax import parse
from atrund.atrun.rules import PATTERNS_MAX, Hazards, Rule, RuleError, Verb, read_pattern, read_rule, verdict


def matched(rule: dict[str, Any], line: str, *names: str) -> bool:
    (command,) = parse(line)
    return verdict([read_rule(rule)], command, names) is not None


# Pattern; lines that allow and deny match; lines that deny alone matches; lines that neither does.
TABLE = [
    ("+COPS", "AT+COPS AT+COPS? AT+COPS=? AT+COPS=2 at+cops=0,1", "AT+COPS2 AT+CO.PS=2", "AT+COPSX AT+CREG? AT+COP=1"),
    ("+COPS?", "AT+COPS? at+cops?", "", "AT+COPS AT+COPS=? AT+COPS=2 AT+COPS2"),
    ("+COPS=?", "AT+COPS=?", "", "AT+COPS AT+COPS? AT+COPS=2"),
    ("+COPS!", "AT+COPS", "AT+COPS2", "AT+COPS? AT+COPS=2"),
    ("+COPS=*", "AT+COPS=2 AT+COPS=1,2,3 AT+COPS=", "AT+COPS2=1", "AT+COPS AT+COPS? AT+COPS=?"),
    (
        "+CFUN=4",
        'AT+CFUN=4 AT+cfun=04 AT+CFUN="4" AT+CFUN=000004',
        "AT+CFUN=4,0 AT+CFUN=4, AT+CFUN= AT+CFUN=,4 AT+CFUN=0x4 AT+CFUN=4. AT+CFUN=-4 AT+CFUN=260 AT+CFUN.=4 AT+CFUN4",
        "AT+CFUN=1 AT+CFUN=1,4 AT+CFUN=14 AT+CFUN=40 AT+CFUN=400 AT+CFUN AT+CFUN? AT+CFUN=?",
    ),
    (" + C F U N = 4 ", "AT+CFUN=4", "AT+CFUN=4,1", "AT+CFUN=1"),
    ("+COPS=1,*", 'AT+COPS=1 AT+COPS=1,2,"22210"', "AT+COPS= AT+COPS=,2", "AT+COPS=0 AT+COPS=2,1"),
    ('+COPS=1,*,"22210"', 'AT+COPS=1,2,"22210" AT+COPS=1,0,22210', "AT+COPS=1,2 AT+COPS=1,2,", 'AT+COPS=1,2,"22288"'),
    ('+COPS=4,2,"222*"', 'AT+COPS=4,2,"22210" AT+COPS=4,2,222', 'AT+COPS=4,2 AT+COPS=4,2,"22210",7', "AT+COPS=4,2,33"),
    ("+COPS=,1", "AT+COPS=,1", "AT+COPS=", "AT+COPS=,2 AT+COPS=0,1"),
    ('+CLCK="SC",*', 'AT+CLCK="SC",2 AT+CLCK=SC', 'AT+CLCK="sc",2 AT+CLCK="S\\43",2 AT+CLCK=S""C', "AT+CLCK=FD"),
    ('+X="a*"', "AT+X=a AT+X=abc", "AT+X=ABC AT+X=", "AT+X=b"),
    ("+X=4*", "AT+X=4 AT+X=0047 AT+X=4x", "AT+X=", "AT+X=5 AT+X=14"),
    ('+CUSD=1,"*100#"', 'AT+CUSD=1,"*100#"', 'AT+CUSD=1,"*100#",15', 'AT+CUSD=1,"*101#"'),
    ("+CG*", "AT+CGATT=0 AT+CGDCONT? AT+CG=1", "AT+C.GATT=0", "AT+COPS? AT+C=1 AT#CGSN"),
    ("+CG*?", "AT+CGATT? AT+CGDCONT?", "", "AT+CGATT=0 AT+CGATT=? AT+C.G?"),
    ("+CG*=0", "AT+CGATT=0", "AT+CGATT=0,1", "AT+CGATT=1 AT+CGATT?"),
    ("#*", "AT#SHDN AT#MONI=7", "", "AT+COPS ATI"),
    ("*", "AT+COPS ATI AT&F ATS0=1 ATD1; AT*PSRAT? AT+X=?", "", ""),
    ("*?", "AT+COPS? ATS0?", "", "ATI AT+COPS=? AT+COPS ATD1;"),
    ("*=?", "AT+COPS=? ATS0=?", "", "AT+COPS?"),
    ("*!", "AT#SHDN ATI ATD1; AT&F1", "", "AT+COPS? AT+COPS=1"),
    ("*=1,*", "AT+COPS=1 ATS0=1", "AT+COPS=", "AT+COPS=2 ATI1"),
    ("*PSRAT", "AT*PSRAT? AT*psrat=1", "AT*PSRAT1", "AT*PS? AT+PSRAT"),
    ("**", "AT*PSRAT?", "", "AT+COPS?"),
    ("E", "ATE ATE0 ATE1", "", "AT&E ATI"),
    ("E0", "ATE0 ATE ate00", "ATE256", "ATE1 ATI0"),
    ("&f0", "AT&F AT&F0", "", "AT&F1 ATF0"),
    ("&S", "AT&S1", "", "ATS1"),
    ("&*", "AT&F AT&W1", "", "ATE0"),
    ("\\Q", "AT\\Q3", "", "ATQ0"),
    ("S0", "ATS0=1 ATS0? ATS00=1 ats0=?", "", "ATS10=1 ATS1=0"),
    ("S0=1", "ATS0=1 ATS000=001", "ATS0=", "ATS0=0 ATS0?"),
    ("S0=*", "ATS0=1", "", "ATS0?"),
    ("s*", "ATS0=1 ATS7?", "", "ATI AT&S0"),
    ("S", "ATS0=1", "", "ATI"),
    ("D", "ATD1; ATD*99# ATDL", "", "ATI"),
    ("D*", "ATD1; ATDL", "", "ATI"),
    ("D112", "ATD112; ATDT1,12; ATD 112 ATD112", "ATD112L; ATD>1; ATD113S;", "ATD1123; ATD113;"),
    ("d+39*", "ATD+39347; ATDP+39;", "ATD+39L; ATD>me; ATDA;", "ATD0039347; ATD+49;"),
    ("D*99#", "ATD*99# ATDT*99#;", "", "ATD*99***1# ATD99"),
    ("D112;", "ATD112;", "", "ATD110;"),
]  # fmt: skip


@pytest.mark.parametrize(("pattern", "both", "deny", "neither"), TABLE)
def test_what_a_pattern_matches(pattern: str, both: str, deny: str, neither: str) -> None:
    for lines, allows, denies in ((both, True, True), (deny, False, True), (neither, False, False)):
        for line in re.split(" (?=[Aa][Tt])", lines) if lines else ():
            assert matched({"allow": pattern}, line) is allows, (pattern, line)
            assert matched({"deny": pattern}, line) is denies, (pattern, line)


def test_a_digit_that_tells_two_commands_apart_is_seen() -> None:
    assert not matched({"deny": "#SCFGEXT"}, "AT#SCFGEXT2=1,0,0,0")


@pytest.mark.parametrize(
    ("peers", "names", "allows", "denies"),
    [
        ("+39*", ["+39347"], True, True),
        ("+39347", ["+39347"], True, True),
        ("+39347", ["+393471"], False, False),
        (["+44*", "operator"], ["192.0.2.1", "operator"], True, True),
        (["+44*", "operator"], ["operator2"], False, False),
        ("+39*", [], False, True),
        ("*", ["anybody"], True, True),
    ],
)
def test_who_asks(peers: Any, names: list[str], allows: bool, denies: bool) -> None:  # noqa: ANN401, FBT001 - TOML; a table
    assert matched({"allow": "+CSQ", "peer": peers}, "AT+CSQ", *names) is allows
    assert matched({"deny": "+CSQ", "peer": peers}, "AT+CSQ", *names) is denies


def test_the_first_match_decides() -> None:
    rules = [
        read_rule(one)
        for one in (
            {"allow": "+CFUN=1", "peer": "boss", "hazards": "allow"},
            {"deny": ["+CPIN", "+CFUN"]},
            {"allow": "*"},
        )
    ]
    (fun,) = parse("AT+CFUN=1")
    assert verdict(rules, fun, ["boss"]) == (0, rules[0])
    assert verdict(rules, fun, ["else"]) == (1, rules[1])
    assert verdict(rules, parse("AT+CSQ")[0], ["else"]) == (2, rules[2])
    assert verdict(rules[:2], parse("AT+CSQ")[0], ["else"]) is None
    assert rules[0].hazards is Hazards.ALLOW


def test_a_rule_shows_itself_without_secrets() -> None:
    rule = read_rule({"deny": ["+CPIN=1234", "+CFUN=4"], "peer": ["+39*", "x"]})
    assert str(rule) == 'deny "+CPIN=****", "+CFUN=4" for +39*, x'
    assert str(read_rule({"allow": "*?", "hazards": "confirm"})) == 'allow "*?", hazards confirm'


@pytest.mark.parametrize(
    ("table", "key", "wrong"),
    [
        ("deny +CPIN", "", "is no table"),
        ({}, "", "neither allow nor deny"),
        ({"allow": "+A", "deny": "+B"}, "", "both allow and deny"),
        ({"permit": "+A"}, "", 'unknown key "permit"'),
        ({"allow": 4}, "allow", "is no text"),
        ({"allow": []}, "allow", "none or too many"),
        ({"allow": ["+A"] * (PATTERNS_MAX + 1)}, "allow", "too many"),
        ({"allow": ["+A", 4]}, "allow", "holds what is no text"),
        ({"deny": ""}, "deny", '"" is no pattern'),
        ({"deny": "AT+CFUN=4"}, "deny", '"AT+CFUN=4" is no pattern'),
        ({"deny": "CFUN=4"}, "deny", "is no pattern"),
        ({"deny": "+"}, "deny", "is no pattern"),
        ({"deny": "+CFUN4=?4"}, "deny", None),
        ({"deny": "+CFUN??"}, "deny", "is no pattern"),
        ({"deny": "+C*UN"}, "deny", "is no pattern"),
        ({"deny": "*x="}, "deny", None),
        ({"deny": "*+CFUN"}, "deny", "is no pattern"),
        ({"deny": "E0?"}, "deny", "is no pattern"),
        ({"deny": "S0!!"}, "deny", "is no pattern"),
        ({"deny": "+CFUN=4;+CPIN"}, "deny", "more than one command"),
        ({"deny": "+CFUN=*4"}, "deny", "a * out of place"),
        ({"deny": '+CLCK="SC'}, "deny", "without its other half"),
        ({"deny": '+CLCK=S"C"'}, "deny", "a quote out of place"),
        ({"deny": "D>1"}, "deny", "dials what is no number"),
        ({"deny": "+CFUN=\u0664"}, "deny", "not ASCII"),
        ({"deny": "+" + "A" * 200}, "deny", "too long"),
        ({"allow": "+A", "peer": ""}, "peer", "names nobody"),
        ({"allow": "+A", "peer": "+3*9"}, "peer", "names nobody"),
        ({"allow": "+A", "peer": "a\x07"}, "peer", "names nobody"),
        ({"allow": "+A", "peer": "1" * 201}, "peer", "names nobody"),
        ({"allow": "+A", "peer": 39}, "peer", "is no text"),
        ({"allow": "+A", "hazards": "never"}, "hazards", '"never" is unknown'),
        ({"deny": "+A", "hazards": "allow"}, "hazards", "stands in a deny rule"),
    ],
)
def test_what_is_no_rule_is_refused_with_what_would_be_right(table: object, key: str, wrong: str | None) -> None:
    if wrong is None:
        assert read_rule(table).verb is Verb.DENY
        return
    with pytest.raises(RuleError) as raised:
        read_rule(table)
    assert raised.value.key == key
    assert wrong in raised.value.wrong
    assert raised.value.right
    assert str(raised.value).startswith(f"{key}: " if key else raised.value.wrong)


def test_no_error_shows_a_secret() -> None:
    with pytest.raises(RuleError) as raised:
        read_rule({"deny": "+CPIN=4711;+CSQ"})
    assert "4711" not in str(raised.value)


def test_the_default_key_of_a_pattern() -> None:
    with pytest.raises(RuleError, match=r"^allow: "):
        read_pattern("?")


@given(st.text(alphabet='+#*CFUN=?!4,"; SDE0&x', max_size=12), st.sampled_from(["allow", "deny"]))
def test_any_text_is_a_pattern_or_an_error_that_helps(text: str, key: str) -> None:
    try:
        rule = read_rule({key: text})
    except RuleError as error:
        assert error.right
        return
    assert isinstance(str(rule), str)
    verdict([rule], parse("AT+CFUN=4")[0], ())


@given(
    argument=st.sampled_from(["4", "04", '"4"', "4,0", "4,", "004,1,2"]),
    name=st.sampled_from(["+CFUN", "+cfun", "+C F U N", "+CFUN.", "+CF-UN"]),
)
def test_no_spelling_evades_a_deny_rule(argument: str, name: str) -> None:
    assert matched({"deny": "+CFUN=4"}, f"AT{name}={argument}")


def test_what_is_allowed_is_never_more_than_what_the_same_deny_would_catch() -> None:
    allowed, denied = Rule(Verb.ALLOW, (read_pattern("+CFUN=4"),)), Rule(Verb.DENY, (read_pattern("+CFUN=4"),))
    for argument in ("4", "4,1", "5", "", "x"):
        (command,) = parse(f"AT+CFUN={argument}")
        assert verdict([allowed], command, ()) is None or verdict([denied], command, ()) is not None
