# SPDX-License-Identifier: Apache-2.0
"""What may not go to the module, in every spelling (POL-1, POL-2, CMD-1, REQ-6, MOD-6)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrund.at.syntax import Command, LineRefused, Op, parse, unparse
from atrund.atrun.hazards import HAZARDS
from atrund.atrun.policy import DATA_MODE, OWNED, PROMPTING, Refusal, decide
from atrund.atrun.request import Reason

# A refused form of each command of the note's list, then of ours; the last words of a row are forms that pass.
NOTES = [
    ("+CFUN=2", "+CFUN? +CFUN=?"),
    ("+CFUN=4", ""),
    ("+CGATT=0", "+CGATT=1 +CGATT=01 +CGATT? +CGATT=?"),
    ("+CGACT=0", "+CGACT=1 +CGACT=1,1 +CGACT? +CGACT=?"),
    ("+CGACT=0,1", ""),
    ('+CGCLASS="CC"', "+CGCLASS? +CGCLASS=?"),
    ("+COPS=2", "+COPS=0 +COPS=3,2 +COPS? +COPS=?"),
    ("+CGSMS=0", "+CGSMS=1 +CGSMS=2 +CGSMS=3 +CGSMS? +CGSMS=?"),
    ("#SHDN", "#SHDN=?"),
    ("#BND=3", "#BND? #BND=?"),
    ("#SIMDET=0", "#SIMDET=1 #SIMDET=2 #SIMDET? #SIMDET=?"),
    ("+CMUX=0", "+CMUX? +CMUX=?"),
    ('+CGDATA="PPP",1', "+CGDATA=?"),
    ('#FTPPUT="file",1', "#FTPPUT=?"),
    ("$GPSNMUN=3", "$GPSNMUN=0 $GPSNMUN=1,1,1 $GPSNMUN=2 $GPSNMUN? $GPSNMUN=?"),
    ('+CLCK="FD",1,"1234"', '+CLCK="FD",2 +CLCK="SC",02 +CLCK=?'),
]
OURS = [
    ("+CFUN=0", ""),
    ("+CFUN=1", ""),
    ("+CFUN=1,1", ""),
    ("#REBOOT", "#REBOOT=?"),
    ("#ENHRST=1,0", "#ENHRST=0 #ENHRST? #ENHRST=?"),
    ("#ENHRST=2,60", ""),
    ("#USBCFG=0", "#USBCFG? #USBCFG=?"),
    ("#PORTCFG=3", "#PORTCFG? #PORTCFG=?"),
    ("#FWSWITCH=1", "#FWSWITCH? #FWSWITCH=?"),
    ("#CMUXMODE=1", "#CMUXMODE? #CMUXMODE=?"),
    ("+CPIN=1234", "+CPIN? +CPIN=?"),
    ('+CLCK="SC",0,"1234"', ""),
    ('+CLCK="SC",1,"1234"', ""),
    ('+CLCK="AO"', ""),
    ('+CPWD="SC","1234","4321"', "+CPWD=?"),
    ('+COPS=1,2,"22210"', ""),
    ('+COPS=4,2,"22210"', ""),
    ("+COPS=5", ""),
    ("+WS46=28", "+WS46? +WS46=?"),
    ('+CSCA="+39"', "+CSCA? +CSCA=?"),
    ('#ESCRIPT="a.py"', "#ESCRIPT? #ESCRIPT=?"),
    ('+CGDCONT=1,"IP","apn"', "+CGDCONT? +CGDCONT=?"),
    ("#SGACT=1,0", '#SGACT=1,1 #SGACT=1,1,"u","p" #SGACT? #SGACT=?'),
]
HAZARDOUS = [refused for refused, _ in NOTES + OURS]
HARMLESS = [form for _, forms in NOTES + OURS for form in forms.split()]


def judged(line: str) -> Refusal | None:
    return decide(parse(line)).refusal


def rule(line: str) -> str:
    refusal = judged(line)
    return "" if refusal is None else refusal.rule


@pytest.mark.parametrize("command", HAZARDOUS)
def test_a_hazard_is_refused_wherever_it_stands(command: str) -> None:
    """POL-1: chaining, case and blanks change nothing."""
    spaced = "".join(f" {character} " if character in "=,?" else character for character in command)
    for line in (
        f"AT{command}",
        f"at{command.lower()}",
        f"AT{command};",
        f"AT;;{command}",
        f"AT  {spaced}",
        f"ATI{command}",
        f"ATI0M1{command};+CSQ",
        f"AT+CSQ;{command};+CREG?",
        f"AT+CSQ ; {spaced}",
        f'AT+CPBW=1,"a;b";{command}',
        f"AT{command} //harmless",
        f"AT#SS;#MONI;+CSQ;{command}\r\n",
    ):
        refusal = judged(line)
        assert refusal is not None, line
        assert (refusal.reason, refusal.rule) == (Reason.POLICY, "hazard"), line
        assert "way back" in refusal.detail
    assert rule(f"ATE0{command}") == "owned"  # the first refused command is named


@pytest.mark.parametrize("command", HARMLESS)
def test_reading_testing_and_harmless_values_pass(command: str) -> None:
    assert judged(f"AT{command}") is None
    assert judged(f"AT+CSQ;{command.lower()}") is None


@pytest.mark.parametrize(
    "line",
    [
        # numbers are numbers
        "AT+cfun = 04",
        "AT+CFUN=0000000000000000004",
        'AT+CFUN="4"',
        "AT+CFUN=4,0,1,2",
        "AT+CFUN=",
        "AT+CFUN",
        "AT+CFUN=0x4",
        "AT+CFUN=?4",
        "AT+CFUN=?;+CFUN=4",
        "AT+COPS=02",
        'AT+COPS="2"',
        "AT+COPS=0x0",
        "AT+COPS=-0",
        "AT+COPS=+0",
        "AT+COPS=0.0",
        "AT+COPS=?,0",
        "AT+COPS=",
        "AT+COPS=,0",
        "AT+COPS",
        "AT+CGATT=00",
        'AT+CGATT="0"',
        "AT+CGATT=2",
        "AT+CGATT=256",
        "AT+CGATT=4294967297",
        "AT+CGATT=99999999999999999999",
        "AT+CGATT=",
        'AT+CGATT=1"0"',
        'AT+CGATT=""',
        'AT+CGATT="',
        "AT+CGACT=",
        "AT+CGACT=0,1,2,3",
        "AT$GPSNMUN=03",
        'AT$GPSNMUN="3"',
        "AT$GPSNMUN=00000000003",
        "AT$GPSNMUN=0x3",
        "AT$GPSNMUN=259",
        "AT$GPSNMUN=3,1,1,1,1,1,1",
        "AT#ENHRST=1",
        "AT#ENHRST=00001,0",
        "AT#SIMDET=",
        'AT+CLCK="FD","1","1234"',
        "AT+CLCK=FD,01,1234",
        'AT+CLCK="FD"",2,"',
        'AT+CLCK="FD",',
        "AT#SGACT=1",
        "AT#SGACT=1,",
        "AT#SGACT=1,00",
        'AT#SGACT=1,"0"',
    ],
)
def test_a_number_is_judged_by_its_value_and_what_is_none_is_refused(line: str) -> None:
    try:
        commands = parse(line)
    except LineRefused:
        return
    assert decide(commands).refusal is not None


def test_a_number_with_many_zeros_in_front_is_that_number() -> None:
    assert judged("AT+CGATT=" + "0" * 500 + "1") is None
    assert judged("AT+COPS=" + "0" * 2000) is None


@pytest.mark.parametrize("name", sorted(OWNED))
def test_what_the_daemon_owns_is_recognised_in_every_form(name: str) -> None:
    """CMD-1: set, read, test and execution."""
    forms = ["", "?", "=?", "=1"] if name[0] in "#+" else ["", "?", "=1"] if name[0] == "S" else ["", "0", "1"]
    for form in forms:
        for line in (f"AT{name}{form}", f"at{name.lower()}{form}", f"AT+CSQ;{name}{form}"):
            refusal = judged(line)
            assert refusal is not None, line
            assert (refusal.reason, refusal.rule) == (Reason.POLICY, "owned"), line


@pytest.mark.parametrize(
    "line", ["ATS02=43", "ATS0012?", "ATS3", "ATE", "AT E 1", "ATI4E1", "AT& F", "AT\\Q3", "ATZ+CSQ"]
)
def test_basic_commands_of_the_daemon_in_other_spellings(line: str) -> None:
    assert rule(line) == "owned"


@pytest.mark.parametrize("name", sorted(PROMPTING))
def test_a_prompt_command_is_refused_as_such(name: str) -> None:
    """REQ-6: before it is sent."""
    for line in (f"AT{name}=1", f"at{name}", f"AT{name} = 12 ,3", f"AT+CSQ;{name}=1;+CSQ"):
        refusal = judged(line)
        assert refusal is not None
        assert (refusal.reason, refusal.rule) == (Reason.PROMPT_UNSUPPORTED, "prompt")
    assert judged(f"AT{name}?") is judged(f"AT{name}=?") is None


@pytest.mark.parametrize(
    "line",
    [
        "ATD123",
        "atd*99#",
        "ATDT*99***1#",
        "AT D 123",
        "AT+CSQ;D123",
        "ATA",
        "ATO",
        "ATO0",
        "ATIA",
        'AT#SD=1,0,80,"example.com"',
        'AT#SD=1,0,80,"example.com",0,0,0',
        'AT#SD=1,0,80,"a,b",0,1,0',
        'AT#SD=1,0,80,"example.com",0,0,0x1',
        "AT#SD",
        "AT#SO=1",
        'AT#SKTD=0,80,"example.com"',
        "AT#SKTL=1,0,80",
        "AT#SKTOP",
        'AT#FTPGET="file"',
        "AT#FTPLIST",
        'AT#SSLD=1,443,"example.com",0,0',
        "AT#SSLO=1",
        "AT#SA=1",
        "AT#SA=1,0",
        # a packet call stays one with the `;` of a voice call
        "ATD*99#;",
        "ATD*99***1#;",
        "ATDT*98*1#;",
        "ATD*-9 9,#;",
    ],
)
def test_data_mode_is_refused(line: str) -> None:
    """MOD-6."""
    refusal = judged(line)
    assert refusal is not None
    assert (refusal.reason, refusal.rule) == (Reason.DATA_MODE, "data mode")


@pytest.mark.parametrize(
    "line",
    [
        "AT",
        "ATI",
        "ATH",
        "ATD123;",
        "ATD+393461234567;",
        "ATD*#06#;",
        "ATD*#33#;",
        "ATD*100#;",
        "ATD*990#;",
        'AT#SD=1,0,80,"example.com",0,0,1',
        'AT#SD=1,0,80,"a,b",0,0,01',
        'AT#SSLD=1,443,"example.com",0,1',
        "AT#SA=1,1",
        "AT#SD=?",
        "AT#SKTD?",
        "AT#SKTOP=?",
        "AT#SCFGEXT2=1,0,0,0",
        "AT#SCFGEXT3=1,0",
        "AT#SGACTCFG=1,3",
        "AT+CMGR=1",
        "AT+CMGL=4",
        "AT+CSQ;+CREG?;#MONI",
        'AT+CPBW=1,"+CFUN=4;ATZ"',
        "AT#MONI=7",
        "AT+FOO.BAR=1",
        "ATS0?",
        "ATM1L2",
    ],
)
def test_what_may_pass(line: str) -> None:
    assert judged(line) is None


@pytest.mark.parametrize(
    "line",
    [
        # A module that knows no quotes in a dial string would run what stands behind the `;`.
        'ATD1";+CFUN=4;+CSQ";',
        'ATD1";+CFUN=4"',
        'ATD>"a;b";',
        'ATD";";',
        'AT+CSQ;D"1;#SHDN;";',
    ],
)
def test_nothing_hides_behind_a_semicolon_in_a_dial_string(line: str) -> None:
    refusal = judged(line)
    assert refusal is not None
    assert (refusal.reason, refusal.rule) == (Reason.POLICY, "dial")


@pytest.mark.parametrize("code", "03 04 042 05 052 33 330 331 332 333 35 351 353".split())
@pytest.mark.parametrize("dialled", ["*{0}*1111*2222#", "**{0}*1*2*2#", "#{0}*1111#", "##{0}*1#", "*{0}#", "*#{0}#"])
def test_a_code_of_the_sim_or_a_barring_is_not_changed_by_dialling(code: str, dialled: str) -> None:
    """POL-2: what +CPIN, +CPWD and +CLCK do must not be had by `D`; asking is harmless."""
    string = dialled.format(code)
    asking = string.startswith("*#")
    for line in (
        f"ATD{string};",
        f"atdt{string};",
        f"ATD{string.replace('*', '*-')};",
        f"ATD,T W{string};",
        f"ATD{string}",
    ):
        if line.endswith(";") and asking:
            assert judged(line) is None
        else:
            assert rule(line) == ("data mode" if asking else "dial"), line


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("AT+CFUN.=4", "+CFUN"),
        ("AT+CFUN/=4", "+CFUN"),
        ("AT+CFUN:=4", "+CFUN"),
        ("AT+CFUN-=4", "+CFUN"),
        ("AT+CFUN!=4", "+CFUN"),
        ("AT+CFUN%=4", "+CFUN"),
        ("AT+CFUN_=4", "+CFUN"),
        ("AT+CFUN4", "+CFUN"),
        ("AT+CFUN 4", "+CFUN"),
        ("AT+CFUN-4", "+CFUN"),
        ("AT+CFUN:4", "+CFUN"),
        ("AT+C.FUN=4", "+CFUN"),
        ("AT+CF0UN=4", "+CFUN"),
        ("at+cops2", "+COPS"),
        ("AT+WS4.6=28", "+WS46"),
        ("AT+WS28", "+WS46"),
        ("AT#SHDN.", "#SHDN"),
        ("AT#REBOOT1", "#REBOOT"),
        ("AT#SMSATRUN1", "#SMSATRUN"),
        ("AT+CMGS12", "+CMGS"),
        ("AT#SKTD0", "#SKTD"),
        ("AT+IPR9600", "+IPR"),
        ("AT+CSQ;+CPIN4711;+CSQ", "+CPIN"),
    ],
)
def test_a_name_that_a_careless_module_could_mistake_is_refused(line: str, meant: str) -> None:
    refusal = judged(line)
    assert refusal is not None
    assert (refusal.reason, refusal.rule) == (Reason.POLICY, "name")
    assert refusal.detail.endswith(f" {meant}")


@pytest.mark.parametrize(
    "line",
    ['AT+CPIN="4711"', "AT+CPIN4711", 'AT+CLCK="SC",0,"4711"', 'AT#SGACT=1,0,"4711","4711"', "ATD**04*4711*1*1#;"],
)
def test_no_refusal_shows_an_argument(line: str) -> None:
    """POL-3: it may be a secret, and the detail goes into the audit."""
    refusal = judged(line)
    assert refusal is not None
    assert "4711" not in repr(refusal)


def test_every_hazard_has_its_reason_and_its_way_back() -> None:
    for name, hazards in HAZARDS.items():
        assert hazards
        for hazard in hazards:
            assert hazard.name == name
            assert hazard.why
            assert hazard.way_back


def test_the_tables_name_commands_as_the_parser_does() -> None:
    for name in OWNED | PROMPTING | DATA_MODE | HAZARDS.keys():
        (command,) = parse(f"AT{name}")
        assert command.name == name
        assert command.args == ""


def test_an_empty_line_passes() -> None:
    assert decide(()).refusal is None


PIECES = st.sampled_from(
    [
        "+CFUN=4",
        "+CFUN",
        "#SHDN",
        "+CSQ",
        "I",
        "E0",
        "Z",
        "D1",
        "S0=1",
        '"',
        ";",
        " ",
        ",",
        "=",
        "?",
        "4",
        "A",
        "//",
        "\\",
        "&F",
        "+",
        "#",
    ]
)


@given(st.lists(PIECES, max_size=12).map("".join))
def test_whatever_passes_is_still_harmless_when_it_is_read_again(tail: str) -> None:
    """What the module gets is read by another parser of the same grammar: the judgement must survive that."""
    try:
        commands = parse("AT" + tail)
    except LineRefused:
        return
    assert parse(unparse(commands)) == commands
    if decide(commands).refusal is None:
        assert not any(c.name in {"+CFUN", "#SHDN"} and c.op in {Op.SET, Op.EXECUTE} for c in commands)
        assert not any(c.name in OWNED for c in commands)
        # no dial string may carry on behind its end for a module that ignores quotes there
        assert not any(c.name == "D" and ";" in c.args[:-1] for c in commands)


@given(
    name=st.sampled_from(sorted(name for name in HAZARDS if name not in {"D", "S0"})),
    number=st.integers(0, 9),
    zeros=st.integers(0, 12),
    quoted=st.booleans(),
    more=st.lists(st.sampled_from(["0", "1", '"x"', ""]), max_size=3),
)
def test_spelling_never_changes_the_judgement(
    *, name: str, number: int, zeros: int, quoted: bool, more: list[str]
) -> None:
    plain = Command(name, Op.SET, ",".join([str(number), *more]))
    spelled = "0" * zeros + str(number)
    argument = f'"{spelled}"' if quoted else spelled
    other = f"AT {name.lower()} = {','.join([argument, *more])} ;"
    assert (decide([plain]).refusal is None) is (judged(other) is None)
