# SPDX-License-Identifier: Apache-2.0
"""The daemon's own commands: each row of the command tables, set, read and test form (CMD-1, CMD-2, commands.md)."""

from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

import pytest

from atrund.at.reader import Line
from atrund.at.syntax import parse
from atrund.atrun.commands import TABLE, Kind, Segment, answered, execute, kind_of, split
from atrund.atrun.events import EVENTS
from atrund.atrun.family.forms import (
    CloseTcp,
    Confirm,
    Context,
    Delays,
    Effect,
    EnterTransparent,
    Reply,
    Running,
    Service,
    ServiceSet,
)
from atrund.atrun.family.services import holders
from atrund.atrun.interface import REGISTERS, Interface
from atrund.atrun.policy import OWNED, Asker
from atrund.atrun.request import Door, Reason
from atrund.atrun.secrets import Secret
from atrund.atrun.settings import Login, Rule, Settings
from atrund.atrun.stored import from_rows, to_rows

BAD = "+CME ERROR: 50"
NOT_ALLOWED = "+CME ERROR: 3"
HELD = "+CME ERROR: 2"
PASSWORD = "1234567890123456"
EMPTY_LIST = ["#SMSATWL: "] * 8

Answer = tuple[list[str], str, Context, list[Reply]]


def say(line: str, context: Context) -> Answer:
    """Run a line of own commands: what is told, the one final result, what it is like afterwards."""
    told: list[str] = []
    replies: list[Reply] = []
    rest = parse(line)
    final = "OK"
    while rest:
        segment, rest = split(rest, context.settings)
        assert segment.kind in {Kind.OWN, Kind.REPORTING}
        (command,) = segment.commands
        reply = execute(command, context)
        replies.append(reply)
        final = reply.final
        told += reply.lines
        context = replace(context, settings=reply.settings, interface=reply.interface, delays=reply.delays)
        if not reply.ok:
            break
    return told, final, context, replies


FRESH = Context()


def after(*lines: str, context: Context = FRESH) -> Context:
    for line in lines:
        _, final, context, _ = say(line, context)
        assert final == "OK", line
    return context


def test_every_command_of_the_rules_is_in_the_table() -> None:
    assert set(TABLE) == OWNED


TABLES: list[tuple[str, list[str], str]] = [
    # SMS AT RUN
    ("AT#SMSATRUN?", ["#SMSATRUN: 0"], "OK"),
    ("AT#SMSATRUN=1;#SMSATRUN?", ["#SMSATRUN: 1"], "OK"),
    ("AT#SMSATRUN=1;#SMSATRUN=0;#SMSATRUN?", ["#SMSATRUN: 0"], "OK"),
    ("AT#SMSATRUN=?", ["#SMSATRUN: (0,1)"], "OK"),
    ("AT#SMSATRUN=2", [], BAD),
    ("AT#SMSATRUN=", [], BAD),
    ("AT#SMSATRUN=1,1", [], BAD),
    ("AT#SMSATRUN", [], BAD),
    ("AT#SMSATRUNCFG?", ["#SMSATRUNCFG: 3,1,5"], "OK"),
    ("AT#SMSATRUNCFG=?", ["#SMSATRUNCFG: (1-3),(0,1),(1-60)"], "OK"),
    ("AT#SMSATRUNCFG=3,1,2;#SMSATRUNCFG?", ["#SMSATRUNCFG: 3,1,2"], "OK"),
    ("AT#SMSATRUNCFG=2,0,60;#SMSATRUNCFG?", ["#SMSATRUNCFG: 2,0,60"], "OK"),
    ("AT#SMSATRUNCFG=2,0,60;#SMSATRUNCFG=1;#SMSATRUNCFG?", ["#SMSATRUNCFG: 1,1,5"], "OK"),
    ("AT#SMSATRUNCFG=2,,9;#SMSATRUNCFG?", ["#SMSATRUNCFG: 2,1,9"], "OK"),
    ("AT#SMSATRUNCFG=4", [], BAD),
    ("AT#SMSATRUNCFG=0", [], BAD),
    ("AT#SMSATRUNCFG=3,2", [], BAD),
    ("AT#SMSATRUNCFG=3,1,61", [], BAD),
    ("AT#SMSATRUNCFG=3,1,0", [], BAD),
    ("AT#SMSATRUNCFG=3,1,5,1", [], BAD),
    ("AT#SMSATRUN=1;#SMSATRUNCFG=3,1,2", [], NOT_ALLOWED),
    ("AT#ENAEVMONI=1;#SMSATRUNCFG=3,1,2", [], NOT_ALLOWED),
    ("AT#SMSATRUN=1;#SMSATRUN=0;#SMSATRUNCFG=3,1,2", [], "OK"),
    # white list
    ("AT#SMSATWL?", EMPTY_LIST, "OK"),
    ("AT#SMSATWL=?", ["#SMSATWL: (0-2),(1-8),(0,1)"], "OK"),
    (
        'AT#SMSATWL=0,1,0,"+39346123456";#SMSATWL?',
        ['#SMSATWL: 0,"+39346123456"', *EMPTY_LIST[1:]],
        "OK",
    ),
    (f'AT#SMSATWL=0,2,1,"{PASSWORD}";#SMSATWL=2,2', ['#SMSATWL: 1,"****************"'], "OK"),
    ('AT#SMSATWL=0,8,0,"+41*";#SMSATWL=2,8', ['#SMSATWL: 0,"+41*"'], "OK"),
    ("AT#SMSATWL=0,8,0,+41*;#SMSATWL=2,8", ['#SMSATWL: 0,"+41*"'], "OK"),
    ('AT#SMSATWL=0,1,0,"1";#SMSATWL=0,1,0,"2";#SMSATWL=2,1', ['#SMSATWL: 0,"2"'], "OK"),
    ('AT#SMSATWL=0,1,0,"1";#SMSATWL=1,1;#SMSATWL=2,1', ["#SMSATWL: "], "OK"),
    ("AT#SMSATWL=1,1", [], "OK"),
    ("AT#SMSATWL=2,1", ["#SMSATWL: "], "OK"),
    ("AT#SMSATWL=2,9", [], BAD),
    ("AT#SMSATWL=3,1", [], BAD),
    ("AT#SMSATWL=0,0,0,1", [], BAD),
    ("AT#SMSATWL=0,1", [], BAD),
    ("AT#SMSATWL=0,1,0", [], BAD),
    ("AT#SMSATWL=0,1,2,1", [], BAD),
    ("AT#SMSATWL=0", [], BAD),
    ('AT#SMSATWL=0,1,0,"*"', [], BAD),
    ('AT#SMSATWL=0,1,0,"+*"', [], BAD),
    ('AT#SMSATWL=0,1,0,"+39*1"', [], BAD),
    ('AT#SMSATWL=0,1,0,"Vodafone"', [], BAD),
    ('AT#SMSATWL=0,1,0,"39""40"', [], BAD),
    ('AT#SMSATWL=0,1,1,"15878159745713601"', [], BAD),
    ('AT#SMSATWL=0,1,1,"123456789012345"', [], BAD),
    (f'AT#SMSATWL=0,1,1,"{PASSWORD}";#SMSATWL=0,2,1,"{PASSWORD}";#SMSATWL=0,3,1,"{PASSWORD}"', [], BAD),
    (f'AT#SMSATWL=0,1,1,"{PASSWORD}";#SMSATWL=0,2,1,"{PASSWORD}";#SMSATWL=0,2,1,"6543210987654321"', [], "OK"),
    ('AT#SMSATRUN=1;#SMSATWL=0,1,0,"1"', [], "OK"),
    # TCP AT RUN
    ("AT#TCPATRUNCFG?", ['#TCPATRUNCFG: 1,2,1024,1024,"",1,5,0,0,2'], "OK"),
    (
        "AT#TCPATRUNCFG=?",
        ["#TCPATRUNCFG: (1-6),(1-3),(1-65535),(1-65535),,(0,1),(1-5),(0,1),(0-5),(1-3600)"],
        "OK",
    ),
    (
        'AT#TCPATRUNCFG=1,2,1024,12345,"212.141.125.127",1,5,1,5,2;#TCPATRUNCFG?',
        ['#TCPATRUNCFG: 1,2,1024,12345,"212.141.125.127",1,5,1,5,2'],
        "OK",
    ),
    (
        'AT#TCPATRUNCFG=1,2,1024,9339,"24.130.113.66";#TCPATRUNCFG?',
        ['#TCPATRUNCFG: 1,2,1024,9339,"24.130.113.66",1,5,0,0,2'],
        "OK",
    ),
    (
        'AT#TCPATRUNCFG=6,1,65535,1,"a-b.example",0,1,1,0,3600;#TCPATRUNCFG?',
        ['#TCPATRUNCFG: 6,1,65535,1,"a-b.example",0,1,1,0,3600'],
        "OK",
    ),
    ('AT#TCPATRUNCFG=1,2,1024,1024,"";#TCPATRUNCFG?', ['#TCPATRUNCFG: 1,2,1024,1024,"",1,5,0,0,2'], "OK"),
    ("AT#TCPATRUNCFG=1,2,1024,1024", [], BAD),
    ('AT#TCPATRUNCFG=7,2,1024,1024,""', [], BAD),
    ('AT#TCPATRUNCFG=1,4,1024,1024,""', [], BAD),
    ('AT#TCPATRUNCFG=1,2,0,1024,""', [], BAD),
    ('AT#TCPATRUNCFG=1,2,1024,65536,""', [], BAD),
    ('AT#TCPATRUNCFG=1,2,1024,1024,"a b"', [], BAD),
    ('AT#TCPATRUNCFG=1,2,1024,1024,"",2', [], BAD),
    ('AT#TCPATRUNCFG=1,2,1024,1024,"",1,6', [], BAD),
    ('AT#TCPATRUNCFG=1,2,1024,1024,"",1,5,2', [], BAD),
    ('AT#TCPATRUNCFG=1,2,1024,1024,"",1,5,1,6', [], BAD),
    ('AT#TCPATRUNCFG=1,2,1024,1024,"",1,5,1,5,0', [], BAD),
    ('AT#TCPATRUNCFG=1,2,1024,1024,"",1,5,1,5,2,1', [], BAD),
    ('AT#TCPATRUNL=1;#TCPATRUNCFG=1,2,1024,1024,""', [], NOT_ALLOWED),
    ('AT#TCPATRUND=1;#TCPATRUNCFG=1,2,1024,1024,""', [], NOT_ALLOWED),
    ("AT#TCPATRUNL?", ["#TCPATRUNL: 0,0"], "OK"),
    ("AT#TCPATRUNL=?", ["#TCPATRUNL: (0,1)"], "OK"),
    ("AT#TCPATRUNL=1;#TCPATRUNL?", ["#TCPATRUNL: 1,0"], "OK"),
    ("AT#TCPATRUNL=2", [], BAD),
    ("AT#TCPATRUND?", ["#TCPATRUND: 0,0"], "OK"),
    ("AT#TCPATRUND=?", ["#TCPATRUND: (0,1)"], "OK"),
    ("AT#TCPATRUND=1;#TCPATRUND?", ["#TCPATRUND: 1,0"], "OK"),
    ("AT#TCPATRUNL=1;#TCPATRUND=1", [], NOT_ALLOWED),
    ("AT#TCPATRUND=1;#TCPATRUNL=1", [], NOT_ALLOWED),
    ("AT#TCPATRUNL=1;#TCPATRUND=0", [], "OK"),
    ("AT#TCPATRUND=1;#TCPATRUND=0;#TCPATRUNL=1", [], "OK"),
    ("AT#TCPATRUNCLOSE", [], "OK"),
    ("AT#TCPATRUNCLOSE=?", [], "OK"),
    ("AT#TCPATRUNCLOSE?", [], BAD),
    ("AT#TCPATRUNCLOSE=1", [], BAD),
    # an instance that another holds
    ("AT#SMSATRUNCFG=2;#SMSATRUN=1;#TCPATRUNL=1", [], HELD),
    ("AT#SMSATRUNCFG=2;#SMSATRUN=1;#TCPATRUND=1", [], HELD),
    ("AT#SMSATRUNCFG=2;#TCPATRUNL=1;#SMSATRUN=1", [], HELD),
    ("AT#SMSATRUNCFG=2;#TCPATRUND=1;#ENAEVMONI=1", [], HELD),
    ("AT#SMSATRUNCFG=2;#SMSATRUN=1;#ENAEVMONI=1", [], "OK"),
    ("AT#SMSATRUNCFG=2;#SMSATRUN=1;#SMSATRUN=0;#TCPATRUNL=1", [], "OK"),
    # firewall
    ("AT#TCPATRUNFRWL?", [], "OK"),
    ("AT#TCPATRUNFRWL=?", ["#TCPATRUNFRWL: (0-2)"], "OK"),
    (
        'AT#TCPATRUNFRWL=2;#TCPATRUNFRWL=1,"217.0.0.0","255.0.0.0"',
        [],
        "OK",
    ),
    (
        'AT#TCPATRUNFRWL=1,"212.141.112.216","255.255.255.255";#TCPATRUNFRWL=1,217.0.0.0,255.0.0.0;#TCPATRUNFRWL?',
        ['#TCPATRUNFRWL: "212.141.112.216","255.255.255.255"', '#TCPATRUNFRWL: "217.0.0.0","255.0.0.0"'],
        "OK",
    ),
    (
        'AT#TCPATRUNFRWL=1,"1.0.0.0","255.0.0.0";#TCPATRUNFRWL=1,"1.0.0.0","255.0.0.0";#TCPATRUNFRWL?',
        ['#TCPATRUNFRWL: "1.0.0.0","255.0.0.0"'],
        "OK",
    ),
    ('AT#TCPATRUNFRWL=1,"1.0.0.0","255.0.0.0";#TCPATRUNFRWL=0,"1.0.0.0","255.0.0.0";#TCPATRUNFRWL?', [], "OK"),
    ('AT#TCPATRUNFRWL=1,"1.0.0.0","255.0.0.0";#TCPATRUNFRWL=2,"x","y";#TCPATRUNFRWL?', [], "OK"),
    ('AT#TCPATRUNFRWL=0,"1.0.0.0","255.0.0.0"', [], BAD),
    ('AT#TCPATRUNFRWL=1,"1.0.0","255.0.0.0"', [], BAD),
    ('AT#TCPATRUNFRWL=1,"1.0.0.0"', [], BAD),
    ('AT#TCPATRUNFRWL=1,"example.org","255.0.0.0"', [], BAD),
    ("AT#TCPATRUNFRWL=3", [], BAD),
    ("AT" + ";".join(f'#TCPATRUNFRWL=1,"{n}.0.0.0","255.0.0.0"' for n in range(1, 6)), [], "OK"),
    ("AT" + ";".join(f'#TCPATRUNFRWL=1,"{n}.0.0.0","255.0.0.0"' for n in range(1, 7)), [], BAD),
    # logins
    ("AT#TCPATRUNAUTH?", [], "OK"),
    ("AT#TCPATRUNAUTH=?", ["#TCPATRUNAUTH: (0-2)"], "OK"),
    ('AT#TCPATRUNAUTH=1,"anna","secret";#TCPATRUNAUTH?', ['#TCPATRUNAUTH: "anna","****"'], "OK"),
    (
        'AT#TCPATRUNAUTH=1,"anna","a";#TCPATRUNAUTH=1,"anna","b";#TCPATRUNAUTH?',
        ['#TCPATRUNAUTH: "anna","****"'],
        "OK",
    ),
    ('AT#TCPATRUNAUTH=1,"anna","a";#TCPATRUNAUTH=0,"anna","a";#TCPATRUNAUTH?', [], "OK"),
    ('AT#TCPATRUNAUTH=1,"anna","a";#TCPATRUNAUTH=0,"anna";#TCPATRUNAUTH?', [], "OK"),
    ('AT#TCPATRUNAUTH=1,"anna","a";#TCPATRUNAUTH=2;#TCPATRUNAUTH?', [], "OK"),
    ('AT#TCPATRUNAUTH=0,"anna","a"', [], BAD),
    ('AT#TCPATRUNAUTH=1,"","a"', [], BAD),
    ('AT#TCPATRUNAUTH=1,"anna"', [], BAD),
    (f'AT#TCPATRUNAUTH=1,"{"a" * 50}","{"b" * 50}"', [], "OK"),
    (f'AT#TCPATRUNAUTH=1,"{"a" * 51}","b"', [], BAD),
    (f'AT#TCPATRUNAUTH=1,"a","{"b" * 51}"', [], BAD),
    ("AT#TCPATRUNAUTH=3", [], BAD),
    ("AT" + ";".join(f'#TCPATRUNAUTH=1,"u{n}","p"' for n in range(3)), [], "OK"),
    ("AT" + ";".join(f'#TCPATRUNAUTH=1,"u{n}","p"' for n in range(4)), [], BAD),
    # sequence, delay
    ("AT#TCPATCMDSEQ?", ["#TCPATCMDSEQ: 0"], "OK"),
    ("AT#TCPATCMDSEQ=1;#TCPATCMDSEQ?", ["#TCPATCMDSEQ: 1"], "OK"),
    ("AT#TCPATCMDSEQ=?", ["#TCPATCMDSEQ: (0,1)"], "OK"),
    ("AT#TCPATCMDSEQ=2", [], BAD),
    ("AT#ATRUNDELAY?", ["#ATRUNDELAY: 0,0", "#ATRUNDELAY: 1,0"], "OK"),
    ("AT#ATRUNDELAY=0,5;#ATRUNDELAY=1,30;#ATRUNDELAY?", ["#ATRUNDELAY: 0,5", "#ATRUNDELAY: 1,30"], "OK"),
    ("AT#ATRUNDELAY=?", ["#ATRUNDELAY: (0,1),(0-30)"], "OK"),
    ("AT#ATRUNDELAY=2,5", [], BAD),
    ("AT#ATRUNDELAY=0,31", [], BAD),
    ("AT#ATRUNDELAY=0", [], BAD),
    # transparent mode
    ("AT#TCPATCONSER=0,9600", [], NOT_ALLOWED),
    (
        "AT#TCPATCONSER=?",
        ["#TCPATCONSER: (),(300,1200,2400,4800,9600,19200,38400,57600,115200)"],
        "OK",
    ),
    ("AT#TCPATCONSER?", [], BAD),
    # event monitor
    ("AT#ENAEVMONI?", ["#ENAEVMONI: 0,0"], "OK"),
    ("AT#ENAEVMONI=1;#ENAEVMONI?", ["#ENAEVMONI: 1,0"], "OK"),
    ("AT#ENAEVMONI=?", ["#ENAEVMONI: (0,1)"], "OK"),
    ("AT#ENAEVMONI=2", [], BAD),
    ("AT#ENAEVMONICFG?", ["#ENAEVMONICFG: 3,1,5"], "OK"),
    ("AT#ENAEVMONICFG=?", ["#ENAEVMONICFG: (1-3),(0,1),(1-5)"], "OK"),
    (
        "AT#ENAEVMONICFG=2,0,1;#ENAEVMONICFG?;#SMSATRUNCFG?",
        ["#ENAEVMONICFG: 2,0,1", "#SMSATRUNCFG: 2,1,5"],
        "OK",
    ),
    ("AT#SMSATRUNCFG=1,0,9;#ENAEVMONICFG?", ["#ENAEVMONICFG: 1,1,5"], "OK"),
    ("AT#ENAEVMONICFG=3,1,6", [], BAD),
    ("AT#SMSATRUN=1;#ENAEVMONICFG=3", [], NOT_ALLOWED),
    ("AT#ENAEVMONI=1;#ENAEVMONICFG=3", [], NOT_ALLOWED),
    ('AT#EVMONI="SMSIN",1', [], "OK"),
    ('AT#EVMONI="smsin",1', [], "OK"),
    ("AT#EVMONI=SMSIN,1", [], "OK"),
    ('AT#EVMONI="DTR",1', [], BAD),
    ('AT#EVMONI="SMSIN",2', [], BAD),
    ('AT#EVMONI="SMSIN"', [], BAD),
    ('AT#EVMONI="SMSIN",1,0', [], BAD),
    ('AT#EVMONI="SMSIN",1,0,"REBOOT"', [], BAD),
    ('AT#EVMONI="SMSIN",1,0,"AT#REBOOT"', [], "OK"),
    (f'AT#EVMONI="SMSIN",1,0,"AT{"I" * 94}"', [], "OK"),
    (f'AT#EVMONI="SMSIN",1,0,"AT{"I" * 95}"', [], BAD),
    ('AT#EVMONI="SMSIN",1,2,"x"', [], BAD),
    ('AT#EVMONI="SMSIN",1,4,"x"', [], BAD),
    ('AT#EVMONI="RING",1,1,50', [], "OK"),
    ('AT#EVMONI="RING",1,1,51', [], BAD),
    # confirmations
    ("AT#ATRUNCONFIRM", [], "OK"),
    ("AT#ATRUNCONFIRM?", [], "OK"),
    ("AT#ATRUNCONFIRM=?", [], "OK"),
    ("AT#ATRUNCONFIRM=1", [], BAD),
    # sockets
    ("AT#SCFG=?", ["#SCFG: (1-6),(0-6),(0-1500),(0-65535),(10-1200),(0-255)"], "OK"),
    ("AT#SCFG=1,1,1500,0,600,50", [], "OK"),
    ("AT#SCFG=01,1,300,0,600,1", [], "OK"),
    ("AT#SCFG=1,1,300,0,600", [], BAD),
    ("AT#SCFG=1,1,1501,0,600,50", [], BAD),
    ("AT#SCFG=1,1,300,0,9,50", [], BAD),
    ("AT#SCFG=7,1,300,0,600,50", [], BAD),
    ("AT#SCFG=", [], BAD),
    ("AT#SCFGEXT=?", ["#SCFGEXT: (1-6),(0-3),(0,1),(0-240),(0,1),(0,1)"], "OK"),
    ("AT#SCFGEXT=1,2,0,30", [], "OK"),
    ("AT#SCFGEXT=1,2,0,30,1,1", [], "OK"),
    ("AT#SCFGEXT=1,2,0", [], BAD),
    ("AT#SCFGEXT=1,2,0,241", [], BAD),
    # the instance's own
    ("AT+CMEE?", ["+CMEE: 0"], "OK"),
    ("AT+CMEE=2;+CMEE?", ["+CMEE: 2"], "OK"),
    ("AT+CMEE=?", ["+CMEE: (0-2)"], "OK"),
    ("AT+CMEE=3", [], BAD),
    ("ATE0V1Q0X4", [], "OK"),
    ("ATE2", [], BAD),
    ("ATQ2", [], "OK"),
    ("ATQ3", [], BAD),
    ("ATX5", [], BAD),
    ("ATS2?S3?S4?S5?S12?", ["043", "013", "010", "008", "050"], "OK"),
    ("ATS2=33S2?", ["033"], "OK"),
    ("ATS2=S2?", ["000"], "OK"),
    ("ATS12=?", ["S12: (20-255)"], "OK"),
    ("ATS12=19", [], BAD),
    ("ATS2=256", [], BAD),
    ("ATS3=65", [], BAD),
    ("ATS5=65", [], BAD),
    ("ATS4=127S4?", ["127"], "OK"),
    ("ATS2", [], BAD),
    ("ATZ", [], "OK"),
    ("ATZ1", [], "OK"),
    ("ATZ2", [], BAD),
    ("AT&F", [], "OK"),
    ("AT&F1", [], "OK"),
    ("AT&F2", [], BAD),
    ("AT&W", [], "OK"),
    ("AT&W2", [], BAD),
    ("AT&Y1&P0", [], "OK"),
    ("AT&Y2", [], BAD),
    (
        "AT&V",
        [
            "ACTIVE PROFILE:",
            r"E1 Q0 V1 X4 &C1 &D2 &K3 &S3 \Q3",
            "S2:043 S3:013 S4:010 S5:008 S12:050",
            "+CMEE:0 +IPR:115200 +ICF:3,0 +IFC:2,2",
        ],
        "OK",
    ),
    ("AT&V4", [], BAD),
    # what would cut the port that is shared
    ("AT+IPR=9600;+IPR?", ["+IPR: 9600"], "OK"),
    ("AT+IPR=9601", [], BAD),
    (
        "AT+IPR=?",
        ["+IPR: (0,300,600,1200,2400,4800,9600,19200,38400,57600,115200,230400,460800,921600)"],
        "OK",
    ),
    ("AT+ICF=3;+ICF?", ["+ICF: 3,0"], "OK"),
    ("AT+ICF=2,1;+ICF?", ["+ICF: 2,1"], "OK"),
    ("AT+IFC=0,0;+IFC?", ["+IFC: 0,0"], "OK"),
    ("AT+IFC=?", ["+IFC: (0-2),(0-2)"], "OK"),
    ("AT+IFC=3", [], BAD),
    (r"AT&K0&C0&D0&S0\Q0", [], "OK"),
    ("AT&K7", [], BAD),
    # reporting settings
    ("AT+CREG=2;+CNMI=2,1,0,0,0;#QSS=2", [], "OK"),
    ("AT+CREG=9", [], BAD),
]


@pytest.mark.parametrize(("line", "told", "final"), TABLES)
def test_the_answer_is_as_the_tables_say(line: str, told: list[str], final: str) -> None:
    assert say(line, Context())[:2] == (told, final)


@pytest.mark.parametrize("line", [line for line, _, final in TABLES if final != "OK" and ";" not in line])
def test_a_refused_command_changes_nothing_and_says_why(line: str) -> None:
    _, _, context, (reply,) = say(line, Context())
    assert context == Context()
    assert (reply.wrote, reply.effects, reply.lines) == ((), (), ())
    assert reply.reason is not None
    assert reply.detail.startswith(parse(line)[0].name)


@pytest.mark.parametrize("line", [line for line, _, _ in TABLES])
def test_what_was_set_outlives_a_restart(line: str) -> None:
    """CMD-1: every setting that a command wrote has a row that reads back as it is."""
    _, _, context, replies = say(line, Context())
    wrote = {key for reply in replies for key in reply.wrote}
    assert from_rows(to_rows(context.settings, wrote), Settings()) == (context.settings, ())


@pytest.mark.parametrize(
    ("line", "wrote"),
    [
        ("AT#SMSATRUN=0", {"sms.enabled"}),
        ("AT#SMSATRUNCFG=3", {"sms.instance", "sms.urc", "sms.timeout"}),
        ("AT#SMSATWL=1,3", {"sms.whitelist.3"}),
        ("AT#TCPATRUNFRWL=2", {f"tcp.firewall.{n}" for n in range(1, 6)}),
        ("AT#TCPATRUNAUTH=2", {f"tcp.users.{n}" for n in range(1, 4)}),
        ("AT&W1&Y1", {"instance.1.profile1", "instance.1.start"}),
        ("AT#ATRUNDELAY=0,5", set()),
        ("ATE0", set()),
    ],
)
def test_what_was_set_is_named_even_if_it_was_so_before(line: str, wrote: set[str]) -> None:
    """A value that a command set counts before the file's, also when both are the same today."""
    *_, replies = say(line, Context())
    assert {key for reply in replies for key in reply.wrote} == wrote


def test_what_is_stored() -> None:
    context = after(
        'AT#SMSATRUNCFG=3,1,2;#SMSATRUN=1;#SMSATWL=0,1,0,"+39346123456"',
        f'AT#SMSATWL=0,2,1,"{PASSWORD}"',
        'AT#TCPATRUNFRWL=2;#TCPATRUNFRWL=1,"217.0.0.0","255.0.0.0"',
        'AT#TCPATRUNAUTH=1,"anna","secret"',
        "AT#SCFG=1,2,1500,30,100,1;#SCFGEXT=1,1,1,2,1,1",
    )
    settings = context.settings
    assert settings.sms.timeout == 120
    assert settings.sms.whitelist[:3] == ("+39346123456", Secret(PASSWORD), None)
    assert settings.tcp.firewall[:2] == (Rule(IPv4Address("217.0.0.0"), IPv4Address("255.0.0.0")), None)
    assert settings.tcp.users[0] == Login("anna", Secret("secret"))
    socket = settings.tcp.own_socket
    assert (socket.cid, socket.packet_size, socket.idle_timeout) == (2, 1500, 30)
    assert (socket.connect_timeout, socket.send_timeout, socket.keepalive) == pytest.approx((10, 0.1, 120))
    assert (socket.sr_mode, socket.receive_mode, socket.listen_auto_response, socket.send_mode) == (1, 1, 1, 1)


def test_no_answer_and_no_reply_shows_a_secret() -> None:
    setting = f'AT#SMSATWL=0,1,1,"{PASSWORD}";#TCPATRUNAUTH=1,"anna","secret";#EVMONI="RING",1,0,"AT+CPIN=9876"'
    _, _, context, replies = say(setting, Context())
    told, *_, more = say("AT#SMSATWL?;#TCPATRUNAUTH?;#EVMONI?;#SMSATWL=2,1", context)
    shown = repr((told, context, replies, more))
    assert not [word for word in (PASSWORD, "secret", "9876") if word in shown]


@pytest.mark.parametrize("line", ['AT#SMSATWL=0,1,1,"hidden!"', f'AT#TCPATRUNAUTH=1,"anna","hidden!{"x" * 50}"'])
def test_no_refusal_shows_a_secret(line: str) -> None:
    *_, (reply,) = say(line, Context())
    assert "hidden!" not in reply.detail


@pytest.mark.parametrize(
    ("line", "was", "running", "effects"),
    [
        ("AT#SMSATRUN=1", [], Running(), [ServiceSet(Service.SMS, True, 2, True)]),
        ("AT#SMSATRUN=1", ["AT#SMSATRUN=1"], Running(), []),
        ("AT#SMSATRUN=0", ["AT#SMSATRUN=1"], Running(), [ServiceSet(Service.SMS, False, 2, True)]),
        ("AT#SMSATRUN=0", [], Running(), []),
        ("AT#ENAEVMONI=1", [], Running(), [ServiceSet(Service.MONITOR, True, 2, True)]),
        ("AT#ENAEVMONI=1", ["AT#ENAEVMONI=1"], Running(monitoring=True), []),
        ("AT#TCPATRUNL=1", [], Running(), [ServiceSet(Service.TCP_SERVER, True, 2, True)]),
        ("AT#TCPATRUNL=1", ["AT#TCPATRUNL=1"], Running(listening=True), []),
        ("AT#TCPATRUNL=1", ["AT#TCPATRUNL=1"], Running(), [ServiceSet(Service.TCP_SERVER, True, 2, False)]),
        ("AT#TCPATRUND=1", ["AT#TCPATRUND=1"], Running(client=2), [ServiceSet(Service.TCP_CLIENT, True, 2, False)]),
        ("AT#TCPATRUND=1", ["AT#TCPATRUND=1"], Running(client=1), [ServiceSet(Service.TCP_CLIENT, True, 2, False)]),
        ("AT#TCPATRUND=1", ["AT#TCPATRUND=1"], Running(client=1, connected=True), []),
        ("AT#TCPATRUND=0", ["AT#TCPATRUND=1"], Running(client=1), [ServiceSet(Service.TCP_CLIENT, False, 2, True)]),
        ("AT#TCPATRUNCLOSE", [], Running(), [CloseTcp()]),
        ("AT#ATRUNCONFIRM=07", [], Running(confirmations={7: "x"}), [Confirm(7)]),
    ],
)
def test_effects_are_told(line: str, was: list[str], running: Running, effects: list[Effect]) -> None:
    context = replace(after(*was), instance=2, running=running)
    *_, (reply,) = say(line, context)
    assert list(reply.effects) == effects


RATES = "(300,1200,2400,4800,9600,19200,38400,57600,115200)"


@pytest.mark.parametrize(
    ("line", "running", "told"),
    [
        ("AT#TCPATRUNL?", Running(listening=True), ["#TCPATRUNL: 0,1"]),
        ("AT#TCPATRUND?", Running(client=2), ["#TCPATRUND: 0,2"]),
        ("AT#ENAEVMONI?", Running(monitoring=True), ["#ENAEVMONI: 0,1"]),
        ("AT#TCPATCONSER=?", Running(serial_ports=(0, 1)), [f"#TCPATCONSER: (0,1),{RATES}"]),
        ("AT#TCPATCONSER=?", Running(serial_ports=(1,), serial_rates={1: (9, 10)}), ["#TCPATCONSER: (1),(9,10)"]),
        ("AT#ATRUNCONFIRM", Running(confirmations={3: "#ATRUNCONFIRM: 3,5"}), ["#ATRUNCONFIRM: 3,5"]),
        ("AT#ATRUNCONFIRM?", Running(confirmations={3: "#ATRUNCONFIRM: 3,5"}), ["#ATRUNCONFIRM: 3,5"]),
    ],
)  # fmt: skip
def test_the_answer_shows_what_runs(line: str, running: Running, told: list[str]) -> None:
    assert say(line, Context(running=running))[0] == told


def test_an_instance_that_somebody_has_is_not_taken() -> None:
    context = Context(running=Running(held={3: "atrunctl lend"}))
    told, final, _, (reply,) = say("AT#SMSATRUN=1", context)
    assert (told, final, reply.reason) == ([], HELD, Reason.HELD)
    assert "atrunctl lend" in reply.detail


def test_services_hold_their_instances() -> None:
    settings = after("AT#SMSATRUN=1;#ENAEVMONI=1;#TCPATRUND=1").settings
    assert holders(settings) == {3: (Service.SMS, Service.MONITOR), 2: (Service.TCP_CLIENT,)}
    assert holders(Settings()) == {}


def test_a_service_on_instance_1_is_warned_of() -> None:
    context = after("AT#SMSATRUNCFG=1")
    *_, replies = say("AT#SMSATRUN=1;#SMSATRUN=1", context)
    assert [len(reply.warnings) for reply in replies] == [1, 0]


@pytest.mark.parametrize(
    ("line", "warnings"),
    [
        ("AT#SCFG=1,1,300,0,600,50", ["maxTo"]),
        ("AT#SCFG=1,1,100,90,600,50", ["100 bytes"]),
        ("AT#SCFG=1,1,0,90,600,50", []),
        ("AT#SCFG=1,1,300,90,600,0", ["txTo"]),
        ("AT#SCFG=1,1,1,0,600,0", ["1 bytes", "maxTo", "txTo"]),
        ("AT#SCFGEXT=1,0,0,0", []),
    ],
)
def test_doubtful_socket_settings_are_taken_with_a_warning(line: str, warnings: list[str]) -> None:
    """The note's 3.6."""
    *_, (reply,) = say(line, Context())
    assert reply.ok
    assert len(reply.warnings) == len(warnings)
    assert all(word in warning for word, warning in zip(warnings, reply.warnings, strict=True))


TCP_SESSION = Context(asker=Asker(Door.TCP), running=Running(serial_ports=(0, 2, 3), serial_rates={3: (9600, 921600)}))


@pytest.mark.parametrize(
    ("line", "final", "effects"),
    [
        ("AT#TCPATCONSER=2,115200", "CONNECT", [EnterTransparent(2, 115200)]),
        ("AT#TCPATCONSER=3,921600", "CONNECT", [EnterTransparent(3, 921600)]),
        ("AT#TCPATCONSER=3,115200", BAD, []),
        ("AT#TCPATCONSER=1,115200", BAD, []),
        ("AT#TCPATCONSER=0,14400", BAD, []),
        ("AT#TCPATCONSER=0", BAD, []),
    ],
)
def test_the_way_to_a_serial_port_is_open_to_a_tcp_session(line: str, final: str, effects: list[Effect]) -> None:
    _, said, _, (reply,) = say(line, TCP_SESSION)
    assert (said, list(reply.effects)) == (final, effects)


FROM_AFAR = ['AT#SMSATWL=0,1,0,"1"', "AT#SMSATWL=2,1", "AT#TCPATRUNFRWL=2", "AT#TCPATRUNAUTH=2"]
FORGEABLE = ['AT#EVMONI="RING",1', 'AT#TCPATRUNCFG=1,2,1024,1024,""', "AT#TCPATRUND=1"]


@pytest.mark.parametrize("door", Door)
@pytest.mark.parametrize("line", FROM_AFAR)
def test_who_may_come_in_is_not_set_from_afar(line: str, door: Door) -> None:
    """CMD-2."""
    final = "OK" if door is Door.LOCAL else NOT_ALLOWED
    assert say(line, Context(asker=Asker(door)))[1] == final
    assert say(line, Context(asker=Asker(door), remote_admin=True))[1] == "OK"


@pytest.mark.parametrize("line", FORGEABLE)
def test_what_acts_later_is_not_set_by_a_sender_that_can_be_forged(line: str) -> None:
    """CMD-2."""
    forgeable = Asker(Door.SMS, ("+391",), forgeable=True)
    assert say(line, Context(asker=forgeable))[1] == NOT_ALLOWED
    assert say(line, Context(asker=forgeable, remote_admin=True))[1] == "OK"
    assert say(line, Context(asker=Asker(Door.SMS)))[1] == "OK"


@pytest.mark.parametrize(
    "name", ["#SMSATWL", "#TCPATRUNFRWL", "#TCPATRUNAUTH", "#EVMONI", "#TCPATRUNCFG", "#TCPATRUND"]
)
def test_reading_is_open_to_every_door(name: str) -> None:
    context = Context(asker=Asker(Door.SMS, forgeable=True))
    assert say(f"AT{name}?", context)[1] == "OK"
    assert say(f"AT{name}=?", context)[1] == "OK"


@pytest.mark.parametrize("line", ["AT#SMSATRUN=1", "AT#SMSATWL=1,1", "AT&W", "AT#SCFG=1,1,300,0,600,50"])
def test_with_locked_settings_the_file_alone_counts(line: str) -> None:
    _, final, context, (reply,) = say(line, Context(locked=True))
    assert (final, reply.reason, context) == (NOT_ALLOWED, Reason.LOCKED, Context(locked=True))


def test_what_is_not_stored_is_set_under_lock_too() -> None:
    assert say("ATE0+CMEE=1;#ATRUNDELAY=0,5;#SMSATRUN?", Context(locked=True))[:2] == (["#SMSATRUN: 0"], "OK")


def test_the_file_s_spans_are_shown_in_whole_units_rounded_up() -> None:
    settings = Settings().changed({"sms.timeout": 90.0, "tcp.timeout": 61.0})
    context = Context(settings, delays=Delays(tcp=0.5, sms=2))
    told, *_ = say("AT#SMSATRUNCFG?;#TCPATRUNCFG?;#ATRUNDELAY?", context)
    assert told == [
        "#SMSATRUNCFG: 3,1,2",
        '#TCPATRUNCFG: 1,2,1024,1024,"",1,2,0,0,2',
        "#ATRUNDELAY: 0,1",
        "#ATRUNDELAY: 1,2",
    ]


def test_events_are_read_back_a_line_each() -> None:
    context = after(
        'AT#EVMONI="SMSIN",1;#EVMONI="SMSIN",1,0,"AT#GPIO=2,1,\\22x\\22";#EVMONI="SMSIN",1,1,"open"',
        'AT#EVMONI="GPIO1",0,3,10;#EVMONI="GPIO1",0,1,4',
    )
    told, *_ = say("AT#EVMONI?", context)
    assert len(told) == len(EVENTS)
    assert '#EVMONI: "SMSIN",1,"AT#GPIO=2,1,\\22x\\22","open"' in told
    assert '#EVMONI: "GPIO1",0,"",4,0,10' in told
    assert '#EVMONI: "STARTUP",0,""' in told
    assert context.settings.monitor.event["SMSIN"].command == 'AT#GPIO=2,1,"x"'


def test_an_empty_command_erases_one() -> None:
    context = after('AT#EVMONI="RING",1,0,"AT"', 'AT#EVMONI="RING",1,0,""')
    assert context.settings.monitor.event["RING"].command == ""


def test_the_test_form_of_events_shows_what_each_takes() -> None:
    told, *_ = say("AT#EVMONI=?", Context())
    assert '#EVMONI: "RING",(0,1),(0,1),(1-50)' in told
    assert '#EVMONI: "STARTUP",(0,1),(0)' in told
    assert '#EVMONI: "SMSIN",(0,1),(0,1),' in told


def test_a_stored_command_keeps_whose_it_is() -> None:
    context = Context(asker=Asker(Door.SMS, ("+391",), forgeable=True), remote_admin=True)
    context = after('AT#EVMONI="RING",1,0,"AT#REBOOT"', context=context)
    context = after('AT#EVMONI="RING",0;#EVMONI="RING",1,1,3', context=replace(context, asker=Asker(Door.LOCAL)))
    event = context.settings.monitor.event["RING"]
    assert (event.door, event.peer, event.forgeable, event.parameters) == ("sms", "+391", True, (3,))


def test_profiles_are_the_instance_s_own() -> None:
    context = after("ATE0+CMEE=1;+CREG=2;&W1Z0")
    assert context.interface == Interface()
    assert after("ATZ1", context=context).interface.to_json() == {"E": [0], "+CMEE": [1], "+CREG": [2]}
    assert after("ATE0Z1", context=replace(context, instance=2)).interface == Interface()
    assert context.settings.instance[0].at_start == Interface()
    assert after("AT&Y1", context=context).settings.instance[0].at_start.value("+CMEE") == 1
    assert after("ATE0&F", context=context).interface == Interface()


def test_z_is_an_error_while_a_data_call_is_up() -> None:
    """The note's 2.5.2 n. 10 and 3.8.2 n. 8."""
    context = Context(interface=Interface().with_values("E", (0,)), running=Running(data_call=True))
    _, final, later, _ = say("ATZ", context)
    assert (final, later) == (NOT_ALLOWED, context)


@pytest.mark.parametrize("name", [name for name in REGISTERS if name[0] not in "S+"])
def test_a_basic_command_without_digits_means_0(name: str) -> None:
    assert after(f"AT{name}").interface.value(name) == 0


def test_an_answer_is_framed_as_a_module_s() -> None:
    *_, (reply,) = say("AT#ATRUNDELAY?", Context())
    assert reply.answer == (Line("#ATRUNDELAY: 0,0", lead=True), Line("#ATRUNDELAY: 1,0"))


# Which commands are whose


def kinds(line: str) -> list[tuple[Kind, str]]:
    segments, rest = [], parse(line)
    while rest:
        segment, rest = split(rest, Settings())
        segments.append((segment.kind, " ".join(map(str, segment.commands))))
    return segments


@pytest.mark.parametrize(
    ("line", "segments"),
    [
        ("AT", []),
        ("AT+CSQ;+COPS?", [(Kind.MODULE, "+CSQ +COPS?")]),
        (
            "AT+CSQ;#SMSATRUN?;+COPS?;+CGMR",
            [(Kind.MODULE, "+CSQ"), (Kind.OWN, "#SMSATRUN?"), (Kind.MODULE, "+COPS? +CGMR")],
        ),
        ("ATE0I4S7?", [(Kind.OWN, "E0"), (Kind.MODULE, "I4 S7?")]),
        ("AT+CREG=2;+CREG?;+CREG=?", [(Kind.REPORTING, "+CREG=2"), (Kind.SHOWN, "+CREG?"), (Kind.MODULE, "+CREG=?")]),
        ("AT+CMGF=1;+CMGL=4", [(Kind.KEPT, "+CMGF=1"), (Kind.MODULE, "+CMGL=4")]),
        ("AT#SCFG?", [(Kind.SHOWN, "#SCFG?")]),
        ("AT#SCFG=?", [(Kind.OWN, "#SCFG=?")]),
        ("AT#SCFG=01,1,300,0,600,50", [(Kind.OWN, "#SCFG=01,1,300,0,600,50")]),
        ("AT#SCFG=2,1,300,0,600,50", [(Kind.KEPT, "#SCFG=2,1,300,0,600,50")]),
        ("AT#SCFGEXT=2,0,0,0", [(Kind.KEPT, "#SCFGEXT=2,0,0,0")]),
        ("AT#SCFG=x", [(Kind.OWN, "#SCFG=x")]),
    ],
)
def test_a_line_is_cut_into_whose_it_is(line: str, segments: list[tuple[Kind, str]]) -> None:
    assert kinds(line) == segments


def test_what_goes_to_the_module_is_told_apart() -> None:
    sent = {kind: Segment(kind, ()).sent for kind in Kind}
    assert [kind for kind, is_sent in sent.items() if is_sent] == [Kind.MODULE, Kind.KEPT, Kind.SHOWN]


def test_a_line_is_cut_by_the_settings_as_they_are_by_then() -> None:
    context = Context()
    (change, use) = parse('AT#TCPATRUNCFG=3,2,1024,1024,"";#SCFG=3,2,300,0,600,50')
    first, rest = split((change, use), context.settings)
    assert (first.commands, rest) == ((change,), (use,))
    later = execute(change, context).settings
    assert kind_of(use, context.settings) is Kind.KEPT
    assert split(rest, later) == (Segment(Kind.OWN, (use,)), ())


def test_a_socket_s_settings_that_the_module_took_count_once_it_is_ours() -> None:
    """The usual order is #SCFG first, #TCPATRUNCFG later."""
    (scfg, ext) = parse("AT#SCFG=3,2,1500,30,100,1;#SCFGEXT=3,0,0,4")
    context = Context()
    for command in (scfg, ext):
        reply = execute(command, context)
        assert (reply.ok, reply.lines) == (True, ())
        context = replace(context, settings=reply.settings)
    context = after('AT#TCPATRUNCFG=3,3,12345,1024,""', context=context)
    lines = answered(parse("AT#SCFG?")[0], [], context)
    assert lines == ("#SCFG: 3,2,1500,30,100,1",)
    assert answered(parse("AT#SCFGEXT?")[0], [], context) == ("#SCFGEXT: 3,0,0,4,0,0",)


@pytest.mark.parametrize("line", ["AT#SCFG=3,2", "AT#SCFG=3,2,9999,30,100,1"])
def test_what_we_cannot_keep_of_it_is_the_module_s_alone(line: str) -> None:
    reply = execute(parse(line)[0], Context())
    assert (reply.ok, reply.wrote) == (True, ())


def test_under_lock_nothing_is_kept_of_it() -> None:
    reply = execute(parse("AT#SCFG=3,2,1500,30,100,1")[0], Context(locked=True))
    assert (reply.ok, reply.wrote) == (True, ())


OURS = "#SCFG: 2,1,300,90,600,50"


@pytest.mark.parametrize(
    ("module", "shown"),
    [
        (["#SCFG: 1,1,1", "#SCFG: 2,9,9", "#SCFG: 3,1,1"], ["#SCFG: 1,1,1", OURS, "#SCFG: 3,1,1"]),
        (["#SCFG: 1,1,1", "#SCFG: 3,1,1"], ["#SCFG: 1,1,1", OURS, "#SCFG: 3,1,1"]),
        (["#SCFG: 1,1,1"], ["#SCFG: 1,1,1", OURS]),
        (["#SCFG: 2,9,9"], [OURS]),
        (["#SCFG:", "+X: 2", "what"], ["#SCFG:", "+X: 2", "what", OURS]),
        ([], [OURS]),
    ],
)
def test_the_read_form_of_sockets_shows_ours_among_the_module_s(module: list[str], shown: list[str]) -> None:
    context = Context(Settings().changed({"tcp.conn_id": 2}))
    assert list(answered(parse("AT#SCFG?")[0], module, context)) == shown


def test_a_read_form_of_reporting_shows_the_instance_s_own() -> None:
    context = after("AT+CREG=1")
    assert answered(parse("AT+CREG?")[0], ['+CREG: 2,1,"00DE","FD4F"'], context) == ("+CREG: 1,1",)


def test_what_the_module_keeps_per_port_is_kept_for_the_instance() -> None:
    reply = execute(parse("AT+CMGF=1")[0], Context())
    assert (reply.final, reply.interface.port, reply.wrote) == ("OK", {"+CMGF": ("1",)}, ())


def test_the_first_error_ends_the_line() -> None:
    told, final, context, _ = say("AT#TCPATCMDSEQ=1;#TCPATCMDSEQ=2;#SMSATRUN=1", Context())
    assert (told, final) == ([], BAD)
    assert context.settings == Settings().changed({"tcp.sequence": True})


def test_all_values_are_as_their_settings_want_them() -> None:
    """What a command stores is of the type and range that reading back demands."""
    context: Any = after(
        "AT#ENAEVMONICFG=2,0,5;#SMSATRUNCFG=2,0,60;#ENAEVMONI=1;#TCPATCMDSEQ=1",
        'AT#TCPATRUNCFG=6,3,65535,65535,"::1",0,5,1,5,3600;#TCPATRUND=1;#SCFG=6,6,1500,65535,1200,255',
        "AT#SCFGEXT=6,3,1,240,1,1;&W&Y1",
    )
    assert from_rows(to_rows(context.settings), Settings()) == (context.settings, ())
