# SPDX-License-Identifier: Apache-2.0
"""How long command lines may take."""

import pytest

from atrund.at.syntax import parse
from atrund.at.times import ABORTABLE, LONGEST, USUAL, is_abortable, longest


@pytest.mark.parametrize(
    ("line", "seconds"),
    [
        ("AT", USUAL),
        ("AT+CSQ", USUAL),
        ("AT+COPS?", USUAL),
        ("AT+COPS=?", 180.0),
        ("AT+COPS=0;+CSQ", 180.0 + USUAL),
        ("AT#SGACT=1,1", 150.0),
        ("AT#SGACT=?", USUAL),
        ("AT#CSURVC", 130.0),
    ],
)
def test_a_line_takes_as_long_as_its_commands_together(line: str, seconds: float) -> None:
    assert longest(parse(line)) == seconds


def test_only_searches_and_calls_are_aborted_by_a_character() -> None:
    assert is_abortable(parse("AT+CSQ;+COPS=?"))
    assert not is_abortable(parse("AT+CGATT=1"))
    assert set(LONGEST) >= ABORTABLE
