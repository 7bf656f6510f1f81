# SPDX-License-Identifier: Apache-2.0
"""What `atrunctl explain` says: every command, its rule, the way back; nothing is run."""

import json
from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any

import pytest

from atrund.atrun.explain import explain, explain_peer, render
from atrund.atrun.policy import Abilities, Asker, DoorPolicy
from atrund.atrun.request import Door
from atrund.atrun.rules import Hazards, read_rule

NONE = Abilities()


def said(line: str, *, hazards: Hazards = Hazards.REFUSE, names: tuple[str, ...] = ("+39347",)) -> dict[str, Any]:
    policy = DoorPolicy(rules=(read_rule({"deny": "+CNMI"}),), hazards=hazards)
    told = explain(line, Asker(Door.SMS, names), policy, NONE)
    assert json.loads(json.dumps(told)) == told
    return told


def test_a_hazard_with_its_rule_and_the_way_back() -> None:
    told = said("AT+CSQ;+CFUN=4")
    assert (told["decision"], told["reason"], told["rule"]) == ("refused", "policy", "hazard")
    assert render(told) == [
        "AT+CSQ;+CFUN=4 through sms, asked by +39347",
        "  +CSQ: allowed by default",
        "  +CFUN=4: refused by hazard",
        "      why: +CFUN: changes the radio's or the module's state",
        "      way back: AT+CFUN=1",
        f"The line would be refused (policy) by hazard: {told['detail']}.",
    ]
    assert told["detail"].endswith("; way back: AT+CFUN=1")


def test_a_line_to_be_confirmed_tells_its_undo() -> None:
    told = said("HAT+CFUN=4", hazards=Hazards.CONFIRM)
    assert told["undo"] == {"reads": ["+CFUN?"], "after_s": 300.0}
    assert render(told)[-2:] == [
        "The line would run after reading +CFUN?, and be undone 5 min later",
        "unless AT#ATRUNCONFIRM=<id> comes in another line.",
    ]
    assert "with nothing to read first" in render(said("AT+CGATT=0", hazards=Hazards.CONFIRM))[-2]


def test_a_line_that_would_run() -> None:
    assert render(said("AT+CSQ", names=()))[-2:] == ["  +CSQ: allowed by default", "The line would run."]
    assert render(said("AT"))[-1] == "The line would be answered OK."


def test_a_line_that_is_none() -> None:
    told = said('AT+CPIN="4711')
    assert (told["reason"], told["rule"], told["detail"]) == ("bad_request", "line", "unbalanced quote")
    assert render(told)[-1] == "The line would be refused (bad_request) by line: unbalanced quote."


def test_no_secret_is_shown() -> None:
    for line in ("AT+CPIN=4711;+CNMI=1", "HAT+CPIN=4711", 'AT+CPIN="4711'):
        assert "4711" not in json.dumps(said(line)) + "".join(render(said(line)))


RULES = [
    SimpleNamespace(address=ip_address("217.0.0.0"), mask=ip_address("255.0.0.0")),
    SimpleNamespace(address=ip_address("2001:db8::"), mask=ip_address("ffff:ffff::")),
]


@pytest.mark.parametrize(
    ("peer", "lines"),
    [
        ("217.1.2.3", "217.1.2.3: allowed by firewall[0] (217.0.0.0 mask 255.0.0.0)"),
        ("::ffff:217.1.2.3", "::ffff:217.1.2.3: allowed by firewall[0] (217.0.0.0 mask 255.0.0.0)"),
        ("2001:db8::1", "2001:db8::1: allowed by firewall[1] (2001:db8:: mask ffff:ffff::)"),
        ("192.0.2.1", "192.0.2.1: refused by firewall (no rule admits it)"),
    ],
)
def test_the_firewall(peer: str, lines: str) -> None:
    assert render(explain_peer(peer, RULES)) == [lines]


def test_an_empty_firewall_admits_nobody() -> None:
    assert explain_peer("127.0.0.1", [])["detail"] == "the firewall is empty: it admits nobody"
    with pytest.raises(ValueError, match="host"):
        explain_peer("host", [])
