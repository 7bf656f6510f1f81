# SPDX-License-Identifier: Apache-2.0
"""What is said only behind the final result."""

import pytest

from atrund.at.late import Window, window
from atrund.at.syntax import parse
from atrund.at.times import LONGEST

USSD = Window("+CUSD", LONGEST["+CUSD"])


@pytest.mark.parametrize(
    ("line", "awaited"),
    [
        ('AT+CUSD=1,"*100#"', USSD),
        ('AT+CUSD=1,"*100#",15', USSD),
        ('AT+CSQ;+CUSD=1,"*100#";+CSQ', USSD),
        ("AT+CUSD=1", None),
        ("AT+CUSD=2", None),
        ('AT+CUSD=1,""', None),
        ('AT+CUSD=0,"*100#"', None),
        ("AT+CUSD?", None),
        ("AT+CUSD=?", None),
        ('AT#HTTPQRY=0,0,"/"', Window("#HTTPRING", 120.0)),
        ("AT#HTTPQRY=?", None),
        ("AT#PING=a", None),
        ("AT+CSQ", None),
        ("AT", None),
    ],
)
def test_few_commands_have_something_to_say_later(line: str, awaited: Window | None) -> None:
    assert window(parse(line)) == awaited


def test_only_a_line_under_its_name_is_taken() -> None:
    assert USSD.takes('+CUSD: 0,"12 EUR",15')
    assert USSD.takes("+CUSD: 4")
    for line in ("+CREG: 1", "OK", "", "+CUSDX: 1"):
        assert not USSD.takes(line)
