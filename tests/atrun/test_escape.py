# SPDX-License-Identifier: Apache-2.0
"""TCP-6: what is the escape, and that anything else passes unchanged."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrund.atrun.escape import GUARD, Escape

PLUS = 43


def test_three_with_silence_before_and_behind_are_the_escape() -> None:
    escape = Escape(PLUS, now=10.0)
    assert escape.read(b"data", 11.0) == b"data"
    assert escape.due is None
    assert escape.read(b"+++", 11.0 + GUARD) == b""
    assert escape.due == pytest.approx(11.0 + 2 * GUARD)
    assert not escape.ends(11.0 + 1.9 * GUARD)
    assert escape.ends(11.0 + 2 * GUARD + 0.001)
    assert escape.due is None
    assert escape.left() == b""


def test_withheld_ones_pass_when_something_follows() -> None:
    escape = Escape(PLUS, now=0.0)
    assert escape.read(b"+++", 1.0) == b""
    assert escape.read(b"x", 1.0 + GUARD / 2) == b"+++x"
    assert not escape.ends(99.0)


def test_what_was_read_before_the_timer_rang_counts_however_late_it_is() -> None:
    """A loop that was held up may have had it in the kernel all the time."""
    escape = Escape(PLUS, now=0.0)
    assert escape.read(b"+++", 1.0) == b""
    assert escape.read(b"late", 9.0) == b"+++late"


def test_two_escapes_in_a_row_are_data() -> None:
    escape = Escape(PLUS, now=0.0)
    assert escape.read(b"+++", 1.0) == b""
    assert escape.read(b"+++", 1.0 + GUARD / 2) == b"++++++"
    assert escape.due is None


@pytest.mark.parametrize("reads", [(b"++", b"+"), (b"+", b"++"), (b"+", b"+", b"+"), (b"++++",), (b"+++\r",), (b"++",)])
def test_split_or_longer_or_shorter_it_is_data(reads: tuple[bytes, ...]) -> None:
    """One read of exactly three; even pieces that are far apart are none."""
    escape = Escape(PLUS, now=0.0)
    assert b"".join(escape.read(data, 10.0 * at) for at, data in enumerate(reads, 1)) == b"".join(reads)
    assert not escape.ends(1000.0)


def test_without_silence_before_it_is_data() -> None:
    escape = Escape(PLUS, now=0.0)
    assert escape.read(b"+++", GUARD / 2) == b"+++"
    assert escape.due is None


def test_nothing_was_silent_while_nothing_was_read() -> None:
    escape = Escape(PLUS, now=0.0)
    escape.deaf(1.0)
    assert escape.read(b"+++", 1.0 + GUARD / 2) == b"+++"


def test_what_is_never_decided_is_data() -> None:
    escape = Escape(PLUS, now=0.0)
    assert escape.read(b"+++", 1.0) == b""
    assert escape.left() == b"+++"
    assert escape.due is None


def test_the_character_is_s2() -> None:
    escape = Escape(ord("#"), now=0.0)
    assert escape.read(b"+++", 1.0) == b"+++"
    assert escape.read(b"###", 2.0) == b""
    assert escape.ends(3.0)


@pytest.mark.parametrize("character", [128, 255])
def test_an_s2_beyond_127_means_no_escape(character: int) -> None:
    escape = Escape(character, now=0.0)
    assert escape.read(bytes((character,)) * 3, 1.0) == bytes((character,)) * 3


@given(
    reads=st.lists(
        st.tuples(st.sampled_from([b"+++", b"++", b"+", b"a", b"+++a", b"\r"]), st.integers(1, 120)), max_size=12
    )
)
def test_against_the_rule_read_literally(reads: list[tuple[bytes, int]]) -> None:
    """Gaps are milliseconds. Up to the first escape nothing is lost, and it is found exactly where the rule says."""
    escape, now, before, passed = Escape(PLUS, 0.0), 0.0, b"", b""
    for at, (data, gap) in enumerate(reads):
        now += gap / 1000
        passed += escape.read(data, now)
        before += data
        behind = reads[at + 1][1] / 1000 if at + 1 < len(reads) else 1.0
        is_one = data == b"+++" and gap / 1000 >= GUARD and behind > GUARD and escape.due is not None
        if escape.due is not None and now + behind > escape.due:
            assert escape.ends(escape.due) is is_one
            assert passed == before[:-3]
            return
    assert passed + escape.left() == before
