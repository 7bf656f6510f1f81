# SPDX-License-Identifier: Apache-2.0
"""POL-2: each hazard in several spellings, its way back, and its undo from real answers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrund.at.syntax import Command, Op, parse
from atrund.atrun.hazards import HAZARDS, NOTES, OURS, hazard_of, number, whole
from atrund.atrun.policy import Decision, DoorPolicy, decide
from atrund.atrun.rules import Hazards
from atrund.atrun.undo import Plan, UndoImpossible

REFUSE = DoorPolicy()
CONFIRM = DoorPolicy(hazards=Hazards.CONFIRM)
ALLOW = DoorPolicy(hazards=Hazards.ALLOW)

# Command, the answer to the read of its undo, the line that undoes it. Answers are of real modules where published.
UNDOABLE = [
    ("+CFUN=4", ["+CFUN: 1"], "AT+CFUN=1"),
    ("+CFUN=04", ["+CFUN: 1,0"], "AT+CFUN=1"),
    ("+CFUN=2", ["+CFUN: 5"], "AT+CFUN=5"),
    ("+CFUN=1", ["+CFUN: 4"], "AT+CFUN=4"),
    ("+CFUN=1,0", ["+CFUN: 4"], "AT+CFUN=4"),
    ("+CGATT=0", None, "AT+CGATT=1"),
    ("+CGACT=0,1", [], "AT+CGACT=1,1"),
    ("+CGACT=0,1,3", [], "AT+CGACT=1,1,3"),
    ("+CGACT=0", ["+CGACT: 1,1", "+CGACT: 2,0", "+CGACT: 3,1"], "AT+CGACT=1,1,3"),
    ("+CGACT=0", ["+CGACT: 1,0"], "AT+CGACT=1"),
    ('+CGCLASS="CC"', ['+CGCLASS: "B"'], 'AT+CGCLASS="B"'),
    ("+COPS=2", ['+COPS: 0,0,"vodafone IT"'], "AT+COPS=0"),
    ("+COPS=2", ['+COPS: 1,2,"22210",7'], 'AT+COPS=1,2,"22210",7'),
    ('+COPS=4,2,"22288"', ['+COPS: 4,2,"22210"'], 'AT+COPS=4,2,"22210"'),
    ('+COPS=1,2,"22288"', ["+COPS: 2"], "AT+COPS=2"),
    ("+CGSMS=0", ["+CGSMS: 1"], "AT+CGSMS=1"),
    ("#BND=3", ["#BND: 3,0,1"], "AT#BND=3,0,1"),
    ("#SIMDET=0", ["#SIMDET: 2,1"], "AT#SIMDET=2"),
    ("#ENHRST=2,60", ["#ENHRST: 0"], "AT#ENHRST=0"),
    ("#ENHRST=1,10", ["#ENHRST: 2,720,15"], "AT#ENHRST=2,720"),
    ("#FASTSHDN=1,7", ["#FASTSHDN: 0,4"], "AT#FASTSHDN=0,4"),
    ("#CMUXMODE=1", ["#CMUXMODE: 0"], "AT#CMUXMODE=0"),
    ("+WS46=28", ["+WS46: 25"], "AT+WS46=25"),
    ("+WS46=28", ["25"], "AT+WS46=25"),
    ("#AUTOBND=2", ["#AUTOBND: 0"], "AT#AUTOBND=0"),
    ('+CSCA="+39111"', ['+CSCA: "+393492000200",145'], 'AT+CSCA="+393492000200",145'),
    ('#ESCRIPT="b.py"', ['#ESCRIPT: "a.py"'], 'AT#ESCRIPT="a.py"'),
    (
        '+CGDCONT=1,"IP","evil"',
        ['+CGDCONT: 1,"IP","catm","",0,0,0,0', '+CGDCONT: 2,"IPV4V6","","",0,0'],
        'AT+CGDCONT=1,"IP","catm","",0,0',
    ),
    ('+CGDCONT=3,"IP","x"', ['+CGDCONT: 1,"IP","catm","",0,0'], "AT+CGDCONT=3"),
    ("+CGDCONT=02", ['+CGDCONT: 2,"IP","b"'], 'AT+CGDCONT=2,"IP","b"'),
    ("#SGACT=1,0", ["#SGACT: 1,1"], "AT#SGACT=1,1"),
    ("#SGACT=2,0", ["#SGACT: 1,1", "#SGACT: 2,0"], ""),  # it is down already: nothing is to be undone
    ("#GPRS=0", ["#GPRS: 1"], "AT#GPRS=1"),
    ("S0=1", ["000"], "ATS0=000"),
]
NOT_UNDOABLE = [
    "+CFUN=0",
    "+CFUN=3",
    "+CFUN=6",
    "+CFUN=1,1",
    "+CFUN=4,1",
    "+CFUN",
    "#SHDN",
    "#SHDN?",
    "#REBOOT",
    "#REBOOT?",
    "#SYSHALT",
    "#SYSHALT=0,1,1",
    "+CPOF",
    "+CPOF?",
    "#FASTSHDN",
    "+CMUX=0",
    '+CGDATA="PPP",1',
    '#FTPPUT="f",1',
    "$GPSNMUN=3",
    '+CLCK="SC",1,"1234"',
    '+CLCK="FD",1,"1234"',
    '+CPWD="SC","1234","4321"',
    "+CPIN=1234",
    '+CSIM=10,"0020000100"',
    '+CGLA=1,10,"0020000100"',
    '+CRSM=214,28439,0,0,4,"00"',
    "+CRSM=220",
    "#ENHRST=1,0",
    "#ENHRST=1",
    "#USBCFG=1",
    "#PORTCFG=3",
    "#FWSWITCH=1",
    "#OTAUP=2",
    "#OTAUPW",
    '#TESTMODE="TM"',
    "D**04*1111*2222*2222#;",
    "D>1;",
    'D>"name";',
    "DL;",
    "DS=1;",
]
HARMLESS = [
    "+CFUN?", "+CFUN=?", "+CSIM=?", "+CGLA=?", "+CRSM=176,28539,0,0,10", "+CRSM=0178,28474,1,4,28", '+CRSM="192",1',
    "+CRSM=242", "#SYSHALT?", "#SYSHALT=?", "#FASTSHDN?", "#FASTSHDN=?", "+CPOF=?", "#SHDN=?", "#REBOOT=?", "#GPRS=1",
    "#GPRS?", "#AUTOBND?", "#TESTMODE?", "#TESTMODE=?", "#OTAUP=?", "#OTAUPW=?", "S0=0", "S0=000", "S0?", "#ENHRST=0",
    "D112;", "D+393468686711;", "DT*#31#;",
]  # fmt: skip
SPELLINGS = (
    "AT{}",
    "at{lower}",
    "AT {spaced}",
    "AT+CSQ;{}",
    "ATI{}",
    "AT;;+CREG?; {lower} ;+CSQ",
    "AT{} //harmless",
    "AT#MONI;{}\r\n",
)


def spelled(command: str) -> list[str]:
    spaced = command if '"' in command else "".join(f" {c} " if c in "=,?" else c for c in command)
    lower = command if '"' in command else command.lower()
    # What dials takes the rest of the line up to a `;`, so that it can't stand in the middle without one.
    forms = SPELLINGS if not command.startswith("D") else SPELLINGS[:5]
    return [form.format(command, lower=lower, spaced=spaced) for form in forms]


@pytest.mark.parametrize("command", sorted({command for command, _, _ in UNDOABLE} | set(NOT_UNDOABLE)))
def test_a_hazard_in_every_spelling(command: str) -> None:
    for line in spelled(command):
        commands = parse(line)
        assert decide(commands, policy=REFUSE).decision is Decision.REFUSED, line
        wanted = Decision.REFUSED if command in NOT_UNDOABLE else Decision.CONFIRM
        assert decide(commands, policy=CONFIRM).decision is wanted, line


@pytest.mark.parametrize("command", NOT_UNDOABLE)
def test_what_has_no_undo_says_so_under_confirm(command: str) -> None:
    refusal = decide(parse(f"AT{command}"), policy=CONFIRM).refusal
    assert refusal is not None
    assert "nothing here could undo it; way back: " in refusal.detail


@pytest.mark.parametrize("command", HARMLESS)
def test_reads_tests_and_harmless_values(command: str) -> None:
    for line in spelled(command):
        assert all(hazard_of(one) is None for one in parse(line)), line


@pytest.mark.parametrize(("command", "answer", "undo"), UNDOABLE)
def test_the_undo_sets_what_was_there(command: str, answer: list[str] | None, undo: str) -> None:
    plan = decide(parse(f"AT{command}"), policy=CONFIRM).plan
    assert plan is not None
    if answer is None:
        assert plan.reads == ()
        assert plan.undo_line({}) == undo
    else:
        (read,) = plan.reads
        assert read.op is Op.READ
        assert plan.undo_line({read: answer}) == undo


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("+CFUN=4", []),
        ("+CFUN=4", ["+CFUN: "]),
        ("+CFUN=4", ["+CFUN: 1", "+CFUN: 4"]),
        ("+CFUN=4", ["+CREG: 0,1"]),
        ("+CFUN=4", ["ERROR"]),
        ("+CFUN=4", ["+CFUN: 1;+CPIN=1"]),
        ("+COPS=2", ["+COPS: 1"]),
        ("+COPS=2", []),
        ("+COPS=2", ["+COPS: x,0"]),
        ('+COPS=1,2,"22288"', ['+COPS: 1,0,"Telek\u00f6m"']),
        ("+COPS=2", ['+COPS: 1,0,"x";#SHDN']),
        ("+CGDCONT=", []),
        ("#SGACT=1,0", []),
        ("#SGACT=1,0", ["#SGACT: 2,1"]),
        ("#SGACT=1,0", ["#SGACT: 1"]),
        ("#SGACT=x,0", ["#SGACT: x,1"]),
        ("#ENHRST=2,60", []),
        ("+WS46=28", ["25", "28"]),
        ("+WS46=28", ["+WS46: auto"]),
        ("S0=1", []),
        ('+CSCA="+39111"', [f'+CSCA: "{"9" * 3000}",145']),
    ],
)
def test_an_old_value_that_cannot_be_told_is_no_undo(command: str, answer: list[str]) -> None:
    plan = decide(parse(f"AT{command}"), policy=CONFIRM).plan
    assert plan is not None
    with pytest.raises(UndoImpossible, match=r"^[+#]?[A-Z0-9]+: ") as raised:
        plan.undo_line(dict.fromkeys(plan.reads, answer))
    assert "393" not in str(raised.value)


def test_several_hazards_are_undone_backwards_each_read_once() -> None:
    line = 'AT+CGDCONT=1,"IP","a";+CGDCONT=2,"IP","b";+CGATT=0;+CFUN=4'
    plan = decide(parse(line), policy=CONFIRM).plan
    assert plan is not None
    reads = (Command("+CGDCONT", Op.READ), Command("+CFUN", Op.READ))
    assert plan.reads == reads
    answers = {reads[0]: ['+CGDCONT: 1,"IP","old"'], reads[1]: ["+CFUN: 1"]}
    assert plan.undo_line(answers) == 'AT+CFUN=1;+CGATT=1;+CGDCONT=2;+CGDCONT=1,"IP","old"'


def test_the_same_value_is_set_once() -> None:
    plan = decide(parse("AT+CFUN=4;+CFUN=1"), policy=CONFIRM).plan
    assert plan is not None
    assert plan.undo_line({plan.reads[0]: ["+CFUN: 1"]}) == "AT+CFUN=1"


def test_a_missing_answer_is_no_answer() -> None:
    plan = Plan(((Command("+CFUN", Op.SET, "4"), HAZARDS["+CFUN"][1].undo),))  # type: ignore[arg-type]  # it has one
    with pytest.raises(UndoImpossible):
        plan.undo_line({})


def test_the_lists_are_whole() -> None:
    notes = "+CFUN +CGATT +CGACT +CGCLASS +COPS +CGSMS #SHDN #BND #SIMDET +CMUX +CGDATA #FTPPUT $GPSNMUN +CLCK"
    ours = """#REBOOT #ENHRST #USBCFG #PORTCFG #FWSWITCH #CMUXMODE +CPIN +CPWD +WS46 +CSCA #ESCRIPT +CGDCONT #SGACT
    +CSIM +CGLA +CRSM #SYSHALT #FASTSHDN +CPOF #GPRS #AUTOBND #TESTMODE #OTAUP #OTAUPW S0 D"""
    assert {hazard.name for hazard in NOTES} == set(notes.split())
    assert {hazard.name for hazard in OURS} == set(ours.split())
    assert sum(map(len, HAZARDS.values())) == len(NOTES + OURS)
    assert all(hazard.why and hazard.way_back for hazard in NOTES + OURS)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        *[("4", 4), ("04", 4), ('"4"', 4), ("0", 0), ("00", 0), ("", None), ("x", None), ("-1", None), ("4.", None)],
        *[("99999999999", None), ("0" * 50 + "7", 7), ("\u0664", None)],
    ],
)
def test_a_number_is_a_number(argument: str, value: int | None) -> None:
    assert whole(argument) == value


def test_an_argument_that_is_not_there_is_none() -> None:
    assert number(Command("+CFUN", Op.SET, "4"), 1) is None


@given(
    command=st.sampled_from([command for command, _, _ in UNDOABLE] + NOT_UNDOABLE),
    before=st.lists(st.sampled_from(["+CSQ;", "I", "M1", ";", " ", "+CREG?;", "#MONI=7;"]), max_size=3),
    upper=st.lists(st.booleans(), min_size=40, max_size=40),
    blanks=st.lists(st.integers(0, 2), min_size=40, max_size=40),
    zeros=st.integers(0, 9),
    end=st.sampled_from(["", ";", " ;+CSQ", "\r", " //x", ";+CREG?\r\n"]),
)
def test_spelling_changes_nothing(
    *, command: str, before: list[str], upper: list[bool], blanks: list[int], zeros: int, end: str
) -> None:
    """POL-1: case, blanks, zeros in front and the place in the line."""
    quoted = False
    out = []
    for at, character in enumerate(command):
        quoted ^= character == '"'
        fold = character if quoted else character.upper() if upper[at % 40] else character.lower()
        digit_begins = character.isdecimal() and not quoted and command[at - 1] in "=,"
        out.append("0" * zeros * digit_begins + fold + ("" if quoted else " " * blanks[at % 40]))
    line = "AT" + "".join(before) + "".join(out) + end
    for policy in (REFUSE, CONFIRM, ALLOW):
        plain = decide(parse(f"AT{command}"), policy=policy)
        said = decide(parse(line), policy=policy)
        assert said.decision is plain.decision
        assert (said.refusal is None) is (plain.refusal is None)
