# SPDX-License-Identifier: Apache-2.0
"""Prompts whose data ends by its size (REQ-6)."""

import pytest

from atrund.at.prompts import DATA_MAX, FILL_MAX, SIZES, TEXTS, asks, count_of, is_counted, is_served, size_of
from atrund.at.reader import PromptKind
from atrund.at.syntax import parse


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ('AT#WSCRIPT="a.py",10', 10),
        ('AT#WSCRIPT="a,b.py",10,1', 10),
        ('AT#M2MWRITE="a.bin","12",1', 12),
        ('AT#HTTPSND=0,0,"/x,y",100,"1"', 100),
        ("AT#SSENDEXT=1,256", 256),
        ("AT#FTPAPPEXT=9,1", 9),
        ("AT+CSQ;#SSENDEXT=1,7", 7),
        (f"AT#SSENDEXT=1,{FILL_MAX}", FILL_MAX),
        (f"AT#SSENDEXT=1,{FILL_MAX + 1}", None),
        ("AT#SSENDEXT=1,0", None),
        ("AT#SSENDEXT=1", None),
        ("AT#SSENDEXT=1,", None),
        ("AT#SSENDEXT=1,-5", None),
        ("AT#SSENDEXT=1,x", None),
        (f"AT#SSENDEXT=1,{'9' * 2000}", None),
        ("AT#SSENDEXT=?", None),
        ("AT#SSENDEXT=1,5;#SSENDEXT=2,6", None),
        ("AT+CMGS=20", None),
        ("AT#UNKNOWN=1,5", None),
        ("AT", None),
    ],
)
def test_the_size_stands_in_the_command(line: str, count: int | None) -> None:
    assert count_of(parse(line)) == count


@pytest.mark.parametrize(
    ("line", "like_text", "like_count"),
    [
        ('AT#WSCRIPT="a.py",10', True, True),
        ("AT#SSENDEXT=1,256", True, True),
        ("AT+CMGS=20", False, False),
        ("AT#SSEND=1", False, False),
        ("AT+CMGS=20;#SSENDEXT=1,5", False, True),
        ("AT#UNKNOWN=1", False, True),
        ("AT#SSENDEXT=?", False, True),
        ("AT", False, True),
    ],
)
def test_what_ends_the_data_goes_by_the_command_and_then_by_the_looks(
    line: str, *, like_text: bool, like_count: bool
) -> None:
    commands = parse(line)
    assert is_counted(commands, PromptKind.TEXT) is like_text
    assert is_counted(commands, PromptKind.COUNTED) is like_count


@pytest.mark.parametrize(
    ("line", "size"),
    [
        ('AT#WSCRIPT="a.py",60000', 60_000),
        ('AT#M2MWRITE="a.bin","12"', 12),
        ('AT#WSCRIPT="a.py",060000', None),
        ('AT#WSCRIPT="a.py",0', None),
        ('AT#WSCRIPT="a.py"', None),
        ("AT#WSCRIPT=?", None),
        ("AT#UNKNOWN=1,5", None),
    ],
)
def test_a_size_can_be_meant_in_one_way_only(line: str, size: int | None) -> None:
    (command,) = parse(line)
    assert size_of(command) == size


@pytest.mark.parametrize(
    ("line", "served"),
    [
        ("AT+CMGS=20", True),
        ("AT+CMGW", True),
        (f"AT#SSENDEXT=1,{DATA_MAX}", True),
        (f"AT#SSENDEXT=1,{DATA_MAX + 1}", False),
        ("AT#SSENDEXT=1", False),
        ("AT#MQPUBS=1", False),
    ],
)
def test_data_are_taken_from_one_who_types_where_their_end_is_known(line: str, *, served: bool) -> None:
    (command,) = parse(line)
    assert is_served(command) is served


def test_commands_that_ask_are_known() -> None:
    for line in ("AT+CMGS=20", "AT+CSQ;#SSENDEXT=1,5", "AT+CNMA"):
        assert asks(parse(line)), line
    for line in ("AT", "AT+CSQ", "AT#SSENDEXT=?", "AT+CMGS?"):
        assert not asks(parse(line)), line


def test_no_command_takes_both() -> None:
    assert not SIZES.keys() & TEXTS
