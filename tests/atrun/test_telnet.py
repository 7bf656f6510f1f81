# SPDX-License-Identifier: Apache-2.0
"""Telnet's own bytes never become input, however a read cuts them (RFC 854)."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrund.atrun.telnet import IAC, Telnet

SE, NOP, AYT, SB, _WILL, _WONT, _DO, _DONT = 240, 241, 246, 250, 251, 252, 253, 254
ECHO, SUPPRESS, TTYPE = 1, 3, 24


@pytest.mark.parametrize(
    ("data", "typed", "answer"),
    [
        (b"AT+CSQ\r\n", b"AT+CSQ\r\n", b""),
        (b"", b"", b""),
        (b"\r\0", b"\r\0", b""),
        (bytes((65, IAC, IAC, 66)), b"A\xffB", b""),
        (bytes((65, IAC, NOP, IAC, AYT, 66)), b"AB", b""),
        (bytes((IAC, _DO, ECHO, 65)), b"A", bytes((IAC, _WONT, ECHO))),
        (bytes((IAC, _WILL, SUPPRESS, 65)), b"A", bytes((IAC, _DONT, SUPPRESS))),
        (bytes((IAC, _DONT, ECHO, IAC, _WONT, ECHO, 65)), b"A", b""),
        (bytes((IAC, _DO, IAC, 65)), b"A", bytes((IAC, _WONT, IAC))),
        (bytes((65, IAC, SB, TTYPE, 0, *b"xterm", IAC, SE, 66)), b"AB", b""),
        (bytes((IAC, SB, TTYPE, IAC, IAC, SE, 13, IAC, SE, 66)), b"B", b""),
        (bytes((IAC, SB, TTYPE, IAC, NOP, *b"AT\r", IAC, SE, 66)), b"B", b""),
        (bytes((IAC, SB)) + b"AT+CFUN=4\r", b"", b""),
    ],
)
def test_what_was_typed_and_what_is_answered(data: bytes, typed: bytes, answer: bytes) -> None:
    assert Telnet().feed(data) == (typed, answer)


def test_an_option_is_declined_once() -> None:
    telnet = Telnet()
    assert telnet.feed(bytes((IAC, _DO, ECHO, IAC, _DO, ECHO))) == (b"", bytes((IAC, _WONT, ECHO)))
    assert telnet.feed(bytes((IAC, _DO, ECHO))) == (b"", b"")
    assert telnet.feed(bytes((IAC, _DO, TTYPE))) == (b"", bytes((IAC, _WONT, TTYPE)))
    assert telnet.feed(bytes((IAC, _WILL, ECHO))) == (b"", bytes((IAC, _DONT, ECHO)))


def test_a_peer_that_always_answers_gets_no_endless_exchange() -> None:
    """The worst of peers repeats its wish for each refusal, and tells the whole range of options."""
    telnet = Telnet()
    opposite = {_WONT: _DO, _DONT: _WILL}
    sent = b"".join(bytes((IAC, verb, option)) for verb in (_DO, _WILL) for option in range(256))
    rounds = 0
    while sent:
        rounds += 1
        assert rounds < 5
        _, answer = telnet.feed(sent)
        asked = (answer[at : at + 3] for at in range(0, len(answer), 3))
        sent = b"".join(bytes((IAC, opposite[verb], option)) for _, verb, option in asked)


NOISE = st.binary() | st.lists(st.sampled_from([IAC, SE, SB, _WILL, _WONT, _DO, _DONT, 13, 10, 65]), max_size=60).map(
    bytes
)


@given(NOISE, st.data())
def test_where_a_read_ends_changes_nothing(stream: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = [stream[begin:end] for begin, end in itertools.pairwise([0, *cuts, len(stream)])]
    cut = Telnet()
    parts = [cut.feed(piece) for piece in pieces]
    assert (b"".join(typed for typed, _ in parts), b"".join(answer for _, answer in parts)) == Telnet().feed(stream)


@given(NOISE)
def test_answers_are_refusals_and_no_longer_than_what_was_asked(stream: bytes) -> None:
    typed, answer = Telnet().feed(stream)
    assert len(typed) + len(answer) <= len(stream)
    assert len(answer) % 3 == 0
    assert set(answer[0::3]) <= {IAC}
    assert set(answer[1::3]) <= {_WONT, _DONT}


@given(st.binary())
def test_doubled_bytes_come_out_as_they_were(text: bytes) -> None:
    assert Telnet().feed(text.replace(b"\xff", b"\xff\xff")) == (text, b"")


def test_who_speaks_telnet() -> None:
    """An octet 255 alone may be a file's; one that is followed by a verb is not."""
    peer = Telnet()
    peer.feed(b"hello\xff\xff")
    assert not peer.spoken
    peer.feed(b"\xff\xfd\x01")
    assert peer.spoken
