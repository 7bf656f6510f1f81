# SPDX-License-Identifier: Apache-2.0
"""What a door's rules, its hazards and its abilities make of a line (POL-1, POL-2, CMD-2, REQ-6, MOD-6)."""

from typing import Any

import pytest

from atrund.at.syntax import parse
from atrund.atrun.policy import (
    DEFAULTS,
    OWNED,
    Abilities,
    Asker,
    Decision,
    DoorPolicy,
    Verdict,
    decide,
)
from atrund.atrun.request import Door, Reason
from atrund.atrun.rules import Hazards, Verb, read_rule

OWN = Abilities(own_commands=True)
SMS = Asker(Door.SMS, ("+39347",), forgeable=True)


def policy(*rules: dict[str, Any], default: str = "allow", hazards: str = "refuse", admin: bool = False) -> DoorPolicy:
    return DoorPolicy(Verb(default), tuple(map(read_rule, rules)), Hazards(hazards), admin)


def said(verdict: Verdict) -> tuple[Decision, str]:
    return verdict.decision, verdict.refusal.rule if verdict.refusal else verdict.findings[-1].rule


@pytest.mark.parametrize(
    ("line", "given", "decision", "rule"),
    [
        ("AT+CSQ", policy(), Decision.ALLOWED, "default"),
        ("AT+CSQ", policy(default="deny"), Decision.REFUSED, "default"),
        ("AT+CSQ", policy({"allow": "*?"}, {"allow": "+CSQ"}, default="deny"), Decision.ALLOWED, "rules[1]"),
        ("AT+CREG?;+CNMI=2", policy({"deny": "+CNMI=2"}), Decision.REFUSED, "rules[0]"),
        ("AT+CFUN=4", policy({"allow": "+CFUN=4"}), Decision.REFUSED, "hazard"),
        ("AT+CFUN=4", policy({"allow": "+CFUN=4", "hazards": "allow"}), Decision.ALLOWED, "hazard"),
        ("AT+CFUN=4", policy({"allow": "+CFUN=4", "hazards": "confirm"}), Decision.CONFIRM, "hazard"),
        ("AT+CFUN=4", policy({"allow": "*", "hazards": "refuse"}, hazards="allow"), Decision.REFUSED, "hazard"),
        ("AT#SHDN", policy({"allow": "#SHDN", "hazards": "confirm"}), Decision.REFUSED, "hazard"),
        ("AT#SHDN", policy(hazards="allow"), Decision.ALLOWED, "hazard"),
        ("AT+CPIN=1", policy({"deny": "+CPIN"}, hazards="allow"), Decision.REFUSED, "rules[0]"),
        ("AT+CFUN=4;#SHDN", policy(hazards="confirm"), Decision.REFUSED, "hazard"),
        ("ATD**04*1*2*2#;", policy(hazards="allow"), Decision.ALLOWED, "dial"),
        ('ATD"1;#SHDN";', policy(hazards="allow"), Decision.REFUSED, "dial"),
        ("AT+CGDATA", policy(hazards="allow"), Decision.REFUSED, "data mode"),
        ("AT+CFUN.=4", policy(hazards="allow"), Decision.REFUSED, "name"),
        ("AT+CMGS=12", policy({"allow": "*"}), Decision.REFUSED, "prompt"),
        ("ATE0", policy({"allow": "*"}), Decision.REFUSED, "owned"),
    ],
)
def test_a_line_at_a_door(line: str, given: DoorPolicy, decision: Decision, rule: str) -> None:
    assert said(decide(parse(line), SMS, given)) == (decision, rule)


def test_a_rule_is_for_whom_it_names() -> None:
    given = policy({"allow": "+CGDCONT=?", "peer": "+39*"}, default="deny")
    assert said(decide(parse("AT+CGDCONT=?"), SMS, given)) == (Decision.ALLOWED, "rules[0]")
    other = Asker(Door.SMS, ("+44123",))
    assert said(decide(parse("AT+CGDCONT=?"), other, given)) == (Decision.REFUSED, "default")


def test_a_refusal_names_the_rule_and_no_argument() -> None:
    refusal = decide(parse("AT+CPIN4711"), SMS, policy({"deny": "*"})).refusal
    assert refusal is not None
    assert "4711" not in refusal.detail
    refusal = decide(parse("AT+CNMI=4711"), SMS, policy({"deny": "+CNMI"})).refusal
    assert refusal is not None
    assert (refusal.reason, refusal.rule, refusal.detail) == (
        Reason.POLICY,
        "rules[0]",
        '+CNMI: denied by deny "+CNMI"',
    )


def test_each_finding_is_told_behind_a_refused_one_too() -> None:
    verdict = decide(parse("AT+CPIN=1234;+CSQ;+CFUN=4;E0"), SMS, policy())
    assert [(one.shown, one.decision) for one in verdict.findings] == [
        ("+CPIN=****", Decision.REFUSED),
        ("+CSQ", Decision.ALLOWED),
        ("+CFUN=4", Decision.REFUSED),
        ("E0", Decision.REFUSED),
    ]
    assert verdict.refusal == verdict.findings[0].refusal
    assert verdict.plan is None
    assert "1234" not in repr(verdict)


def test_the_hazards_of_a_local_door_are_to_be_confirmed_and_of_a_remote_one_refused() -> None:
    assert set(DEFAULTS) == set(Door)
    for door, given in DEFAULTS.items():
        wanted = Decision.CONFIRM if door is Door.LOCAL else Decision.REFUSED
        assert decide(parse("AT+CFUN=4"), Asker(door), given).decision is wanted


@pytest.mark.parametrize("name", sorted(OWNED))
def test_the_daemons_own_commands_pass_where_it_answers_them(name: str) -> None:
    asker = Asker(Door.LOCAL)
    assert decide(parse(f"AT{name}"), asker, policy(), OWN).decision is Decision.ALLOWED
    assert decide(parse(f"AT{name}"), asker, policy({"deny": "*"}), OWN).decision is Decision.REFUSED


@pytest.mark.parametrize("name", ["#SMSATWL", "#TCPATRUNFRWL", "#TCPATRUNAUTH"])
def test_who_may_come_in_is_not_set_from_afar(name: str) -> None:
    """CMD-2."""
    for door in Door:
        for line, sets in ((f"AT{name}=1,1", True), (f"AT+CSQ;{name}=2", True), (f"AT{name}?", False)):
            wanted = Decision.REFUSED if sets and door is not Door.LOCAL else Decision.ALLOWED
            assert decide(parse(line), Asker(door), policy(), OWN).decision is wanted
            assert decide(parse(line), Asker(door), policy(admin=True), OWN).decision is Decision.ALLOWED
    refusal = decide(parse(f"AT{name}=1"), Asker(Door.TCP), policy(), OWN).refusal
    assert refusal is not None
    assert refusal.rule == "admin"
    assert 'policy.remote_admin = ["tcp"]' in refusal.detail


@pytest.mark.parametrize("name", ["#EVMONI", "#TCPATRUNCFG", "#TCPATRUND"])
def test_what_a_forged_sender_could_misuse_is_not_set_by_a_simple_sms(name: str) -> None:
    """CMD-2."""
    line = parse(f"AT{name}=1")
    assert said(decide(line, SMS, policy(), OWN)) == (Decision.REFUSED, "admin")
    assert decide(line, SMS, policy(admin=True), OWN).decision is Decision.ALLOWED
    assert decide(line, Asker(Door.SMS, ("+39347",)), policy(), OWN).decision is Decision.ALLOWED
    assert decide(parse(f"AT{name}?"), SMS, policy(), OWN).decision is Decision.ALLOWED


@pytest.mark.parametrize("own", ["#ATRUNCONFIRM=7", "#ATRUNCONFIRM = 07"])
def test_a_hazard_is_not_confirmed_in_its_own_line(own: str) -> None:
    given = policy(hazards="confirm")
    verdict = decide(parse(f"AT+CFUN=4;{own}"), SMS, given, OWN)
    assert said(verdict) == (Decision.REFUSED, "confirm")
    assert verdict.plan is None
    assert decide(parse(f"AT{own}"), SMS, given, OWN).decision is Decision.ALLOWED
    assert decide(parse("AT+CFUN=4;#ATRUNCONFIRM"), SMS, given, OWN).decision is Decision.CONFIRM
    assert decide(parse(f"AT+CFUN=4;{own}"), SMS, policy(hazards="allow"), OWN).decision is Decision.ALLOWED


def test_a_door_that_carries_data_takes_prompts() -> None:
    """REQ-6."""
    able = Abilities(prompts=True)
    assert decide(parse('AT+CMGS="+39"'), SMS, policy(), able).decision is Decision.ALLOWED
    assert decide(parse('AT#WSCRIPT="a",60000'), SMS, policy(), able).decision is Decision.ALLOWED
    assert decide(parse('AT#FTPPUT="f",1'), SMS, policy(), able).decision is Decision.REFUSED


@pytest.mark.parametrize("line", ['AT#WSCRIPT="a",010', "AT#SSENDEXT=1", "AT#MQPUBS=1", 'AT+CMGS="1";#APLAY=1'])
def test_no_door_takes_a_prompt_whose_end_is_not_known(line: str) -> None:
    """What a module would take less of, it would take the rest of for commands that nobody judged."""
    assert said(decide(parse(line), SMS, policy(), Abilities(prompts=True))) == (Decision.REFUSED, "prompt")


def test_a_port_of_ones_own_may_turn_into_a_data_connection() -> None:
    """MOD-6."""
    able = Abilities(data_mode=True)
    for line in ("ATD*99#", "AT#SD=1,0,80", "ATO", "ATD123"):
        assert decide(parse(line), SMS, policy(), able).decision is Decision.ALLOWED
        assert said(decide(parse(line), SMS, policy())) == (Decision.REFUSED, "data mode")
    assert decide(parse("AT+CGDATA"), SMS, policy(hazards="allow"), able).decision is Decision.ALLOWED


def test_an_empty_line_is_allowed() -> None:
    assert decide((), SMS, policy(default="deny")) == Verdict(())
