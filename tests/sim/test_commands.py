# SPDX-License-Identifier: Apache-2.0
"""Single commands: what they answer, what they refuse, what they keep."""

import pytest

from atrund.sim.module import SimModule
from atrund.sim.state import Options


def answer(line: str, model: str = "HE910-D") -> str:
    out = bytearray()
    port = SimModule(Options(model=model)).add_port(out.extend)
    port.feed(b"ATE0+CMEE=1\r")
    out.clear()
    port.feed(f"{line}\r".encode())
    return out.decode("latin-1").replace("\r\n\r\n", "|").strip("\r\n")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            'AT+CGDCONT=2,"IP","web.net";+CGDCONT?',
            '+CGDCONT: 1,"IP","internet","",0,0\r\n+CGDCONT: 2,"IP","web.net","",0,0|OK',
        ),
        ("AT+CGDCONT=1;+CGDCONT?", "OK"),
        ('AT+CGDCONT=1,"X25"', "+CME ERROR: 50"),
        ("AT+CGACT=1,1;+CGPADDR=1", '+CGPADDR: 1,"10.133.224.83"|OK'),
        ("AT+CGACT=1,3", "+CME ERROR: 50"),
        ("AT+CGATT=0;+CGREG?;+CGACT=1,1", "+CGREG: 0,0|+CME ERROR: 30"),
        ("AT+CGATT=0;+CGATT=1;+CGATT?", "+CGATT: 1|OK"),
        ("AT#SGACTCFG=1,3;#SGACTCFG?", "#SGACTCFG: 1,3,180,0|OK"),
        ("AT#SGACTCFG=1,16", "+CME ERROR: 50"),
        ("AT#SCFG=2,1,300,0,600,1;#SS=7", "+CME ERROR: 50"),
        ("AT#SCFG=2,1,300,0,600", "+CME ERROR: 50"),
        ("AT#SGACT=1", "+CME ERROR: 50"),
        ("AT+CCLK=x", "+CME ERROR: 50"),
        ('AT+CCLK="08/05/28,11:04:37+08"', "OK"),
        ("AT#GPIO=11,1", "+CME ERROR: 50"),
        ("AT#GPIO=1", "+CME ERROR: 50"),
        ('AT#WSCRIPT="",1', "+CME ERROR: 50"),
        ('AT#WSCRIPT="x",65537', "+CME ERROR: 50"),
        ('AT#ESCRIPT="a.py";#ESCRIPT?', '#ESCRIPT: "a.py"|OK'),
        ('AT#ESCRIPT="12345678901234567"', "+CME ERROR: 50"),
        ('AT+CSCS="XX"', "+CME ERROR: 50"),
        ('AT+CSCS="GSM";+CSCS?', '+CSCS: "GSM"|OK'),
        ("AT+CSMS=1;+CSMS?", "+CSMS: 1,1,1|+CSMS: 1,1,1,1|OK"),
        ('AT+CSCA="+391",145;+CSCA?', '+CSCA: "+391",145|OK'),
        ("AT+CSCA=x", "+CMS ERROR: 305"),
        ("AT+CSMP=17,167,0,256", "+CME ERROR: 50"),
        ("AT+CSMP=,,,4;+CSMP?", "+CSMP: 17,167,0,4|OK"),
        ("AT+CMGF=2", "+CME ERROR: 50"),
        ("AT+CMGF=1;+CMGF?", "+CMGF: 1|OK"),
        ("AT+CPIN=1234", "+CME ERROR: 50"),
        ("AT#SIMDET=3", "+CME ERROR: 50"),
        ("AT+CMEE=0;+CMEE=3", "ERROR"),
        ("AT+CIND?", "+CIND: 5,99,1,0,0,0,0,0,2|OK"),
        ("AT#SMSATRUNCFG=3,1,2;#SMSATRUNCFG?", "#SMSATRUNCFG: 3,1,2|OK"),
        ("AT#SMSATRUNCFG=1", "+CME ERROR: 50"),
        ("AT#SMSATRUN", "ERROR"),
        ("AT+CNMI", "ERROR"),
        ("AT+IPR=115200;+IPR?", "+IPR: 115200|OK"),
        ("ATI3", "12.00.004|OK"),
        ("ATE7", "+CME ERROR: 50"),
        ("ATA", "NO CARRIER"),
        ("ATH&K0&D0X4&W", "OK"),
        ("AT+CREG=2;&F+CREG?", "+CREG: 0,1|OK"),
        ("AT+CGSN=2", "+CME ERROR: 50"),
        ("AT+CGSN?", "ERROR"),
    ],
)
def test_a_command(line: str, expected: str) -> None:
    assert answer(line) == expected
