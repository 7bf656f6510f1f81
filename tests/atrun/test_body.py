# SPDX-License-Identifier: Apache-2.0
"""A body and the prompt that it is for: what fits, and every way in which it does not (REQ-6)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrund.at.prompts import SIZES, TEXTS
from atrund.atrun.body import FORBIDDEN, misfit
from atrund.atrun.request import Reason


@pytest.mark.parametrize(
    ("line", "body"),
    [
        ('AT+CMGS="+391"', b"hello"),
        ('AT+CMGF=1;+CMGS="+391"', b"hello"),
        ('AT+CMGS="+391";+CSQ', b""),
        ("AT+CMGS=12", b"0011000B91\r"),
        ('AT#WSCRIPT="a.py",5', b"hello"),
        ('at#wscript="a.py",5,1', b"\x00\x1a\x1b\xff\r"),
        ("AT#SSENDEXT=1,3", b"\x1a\x1b\x00"),
        ("AT#SSENDEXT=1,3,2", b"abc"),
        ("AT#FTPAPPEXT=2,1", b"ab"),
        ('AT#HTTPSND=0,0,"/x",2', b"ab"),
        ("AT#SSEND=1", b"\x80\xff"),
        ('AT#EMAILD="a@b","s"', b"\b\x7f\n"),
    ],
)
def test_what_fits(line: str, body: bytes) -> None:
    assert misfit(line, body) is None


@pytest.mark.parametrize("line", ["AT", "AT+CSQ", "AT+CMGS=?", "AT#WSCRIPT?", 'AT+CMGW="1', "no line", "AT#SMTPCL=1"])
def test_a_line_without_a_body(line: str) -> None:
    """What can't be parsed, and what nobody can serve, is refused by those who judge every line."""
    assert misfit(line, None) is None


@pytest.mark.parametrize("line", ['AT+CMGS="+391"', 'AT+CSQ;+CMGS="+391"', 'AT#WSCRIPT="a",5'])
def test_a_prompt_without_a_body(line: str) -> None:
    found = misfit(line, None)
    assert found is not None
    assert found[0] is Reason.PROMPT_UNSUPPORTED
    assert "body_b64" in found[1]
    assert "391" not in found[1], "no argument is shown"


@pytest.mark.parametrize(
    ("line", "body", "told"),
    [
        ("AT", b"x", "no command of the line asks for data; those that do are"),
        ("AT+CSQ", b"", "no command"),
        ("AT+CMGS=?", b"x", "no command"),
        ("AT+CMGR=1", b"x", "no command"),
        ("AT#SMTPCL=1", b"x", "#SMTPCL is not known to end its data"),
        ("AT#APLAY=1;+CSQ", b"x", "#APLAY is not known"),
        ('AT+CMGS="1";+CMGS="2"', b"x", "2 commands"),
        ('AT+CMGS="1";#WSCRIPT="a",1', b"x", "2 commands"),
        ('AT#WSCRIPT="a",5', b"four", "4 octets, while #WSCRIPT announces 5"),
        ('AT#WSCRIPT="a",5', b"sixsix", "6 octets"),
        ('AT#WSCRIPT="a",5', b"", "0 octets"),
        ('AT#WSCRIPT="a"', b"four", "#WSCRIPT announces no size"),
        ('AT#WSCRIPT="a",0', b"", "#WSCRIPT announces no size"),
        ('AT#WSCRIPT="a",x', b"x", "#WSCRIPT announces no size"),
        ("AT+CMGS=12", b"ab\x1a", "Ctrl-Z at octet 3"),
        ("AT+CMGS=12", b"\x1bab", "ESC at octet 1"),
        ("AT+CMGS=12", b"a\x00b", "NUL at octet 2"),
    ],
)
def test_what_does_not_fit(line: str, body: bytes, told: str) -> None:
    found = misfit(line, body)
    assert found is not None
    assert found[0] is Reason.BAD_REQUEST
    assert found[1].startswith("body: ")
    assert told in found[1]


def test_a_line_that_cannot_be_parsed_is_refused_for_that() -> None:
    assert misfit('AT+CMGS="1', b"\x1b") is None


def test_text_that_depends_on_the_character_set() -> None:
    """As octets it is taken: whoever gives these has looked at +CSCS. A file's octets are its own."""
    euro = "\u20ac".encode()
    found = misfit("AT+CMGS=12", euro, is_text=True)
    assert found is not None
    assert "+CSCS" in found[1]
    assert misfit("AT+CMGS=12", euro) is None
    assert misfit('AT#WSCRIPT="a",3', euro, is_text=True) is None


@given(st.sampled_from(sorted(TEXTS)), st.binary(max_size=50), st.booleans())
def test_what_is_taken_for_a_text_prompt_never_ends_or_leaves_it(name: str, body: bytes, is_text: bool) -> None:  # noqa: FBT001 - given
    fits = misfit(f"AT{name}=1", body, is_text=is_text) is None
    assert fits == (set(body).isdisjoint(FORBIDDEN) and (body.isascii() or not is_text))


@given(st.sampled_from(sorted(SIZES.items())), st.integers(0, 40), st.binary(max_size=40))
def test_what_is_taken_for_a_counted_prompt_is_as_long_as_announced(
    command: tuple[str, int], size: int, body: bytes
) -> None:
    name, place = command
    line = f"AT{name}={','.join(['1'] * place + [str(size)])}"
    assert (misfit(line, body) is None) == (0 < size == len(body))
