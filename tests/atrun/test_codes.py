# SPDX-License-Identifier: Apache-2.0
"""Codes behind a command: RFC 4226, and what is right, used, wrong, or one too few."""

import base64

import pyotp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrund.atrun.codes import (
    LOOK_AHEAD,
    LOOK_AHEAD_FOR_TWO,
    LOOK_BACK,
    SECRET_FORM,
    WRONG_MAX,
    Found,
    Progress,
    check,
    entry_of,
    hotp,
    read_secret,
    split,
)

SECRET = b"12345678901234567890"
APPENDIX_D = ["755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871", "520489"]
NEVER = "000000"
"""None of the first thousand codes of `SECRET`."""


def codes(*counters: int) -> list[str]:
    return [hotp(SECRET, counter) for counter in counters]


@pytest.mark.parametrize(("counter", "code"), list(enumerate(APPENDIX_D)))
def test_the_values_of_rfc_4226_appendix_d(counter: int, code: str) -> None:
    assert hotp(SECRET, counter) == code


@given(st.binary(min_size=16, max_size=64), st.integers(0, 2**40))
def test_another_implementation_gives_the_same(secret: bytes, counter: int) -> None:
    assert hotp(secret, counter) == pyotp.HOTP(base64.b32encode(secret).decode()).at(counter)


# What a person types.


@pytest.mark.parametrize(
    ("text", "line", "given_"),
    [
        ("AT+CSQ #123456", "AT+CSQ", ("123456",)),
        ("AT+CSQ   #123456  ", "AT+CSQ", ("123456",)),
        ("AT+CSQ #123456\r\n", "AT+CSQ", ("123456",)),
        ("AT+CSQ #123456\n", "AT+CSQ", ("123456",)),
        ("AT+CSQ #123456 #654321", "AT+CSQ", ("123456", "654321")),
        ("AT+CSQ #123 456 #654 321", "AT+CSQ", ("123456", "654321")),  # as the apps show it
        ("AT+CSQ #123456#654321", "AT+CSQ", ("123456", "654321")),
        ("AT #000000", "AT", ("000000",)),
        ("AT#SMSATRUN? #123456", "AT#SMSATRUN?", ("123456",)),
        ("AT+CSQ //why #123456", "AT+CSQ //why", ("123456",)),
        ("AT+CSQ #1 #222222 #333333", "AT+CSQ #1", ("222222", "333333")),
        ("AT+CSQ", "AT+CSQ", ()),
        ("AT+CSQ#123456", "AT+CSQ#123456", ()),
        ("AT+CSQ #12345", "AT+CSQ #12345", ()),
        ("AT+CSQ #1234567", "AT+CSQ #1234567", ()),
        ("AT+CSQ #123456 //why", "AT+CSQ #123456 //why", ()),
        ("AT+CSQ #123456;", "AT+CSQ #123456;", ()),
        ("AT+CSQ # 123456", "AT+CSQ # 123456", ()),
        ("AT+CSQ #123456\r\r", "AT+CSQ #123456\r\r", ()),
        ("AT+CSQ #\u0661\u0662\u0663\u0664\u0665\u0666", "AT+CSQ #\u0661\u0662\u0663\u0664\u0665\u0666", ()),
    ],
)
def test_codes_are_cut_off_the_end(text: str, line: str, given_: tuple[str, ...]) -> None:
    assert split(text) == (line, given_)


# What is right.


def test_each_code_is_right_once() -> None:
    progress = Progress()
    for counter in range(20):
        progress, found = check(SECRET, progress, codes(counter))
        assert (progress, found) == (Progress(counter + 1), Found.RIGHT)
        assert check(SECRET, progress, codes(counter)) == (progress, Found.USED)


def test_some_may_be_lost_on_the_way_but_not_more() -> None:
    """RFC 4226 7.2; those passed over are used up."""
    last = LOOK_AHEAD - 1
    assert check(SECRET, Progress(3, wrong=2), codes(3 + last)) == (Progress(4 + last), Found.RIGHT)
    assert check(SECRET, Progress(3, wrong=2), codes(4 + last)) == (Progress(3, wrong=3), Found.WRONG)
    assert check(SECRET, Progress(4 + last), codes(4)) == (Progress(4 + last), Found.USED)


def test_what_was_used_long_ago_is_wrong() -> None:
    assert check(SECRET, Progress(50), codes(50 - LOOK_BACK))[1] is Found.USED
    assert check(SECRET, Progress(50), codes(49 - LOOK_BACK)) == (Progress(50, wrong=1), Found.WRONG)


def test_none_is_missing_and_no_guess() -> None:
    assert check(SECRET, Progress(3, wrong=1), []) == (Progress(3, wrong=1), Found.MISSING)


def test_after_some_wrong_ones_two_in_a_row_are_wanted_and_always_looked_at() -> None:
    """RFC 4226 7.3: whoever forges the sender must not shut the real one out."""
    progress = Progress(8)
    for wrong in range(WRONG_MAX):
        assert check(SECRET, progress, codes(8))[1] is Found.RIGHT, "until then one is enough"
        progress, found = check(SECRET, progress, [NEVER])
        assert (progress, found) == (Progress(8, wrong=wrong + 1), Found.WRONG)
    for one in (*codes(8), NEVER, *codes(7)):
        assert check(SECRET, progress, [one]) == (progress, Found.TWO_WANTED), "not even looked at"
    for two in ([NEVER, NEVER], codes(8, 10), codes(9, 8), [NEVER, *codes(8)], [*codes(8), NEVER]):
        assert check(SECRET, progress, two) == (progress, Found.WRONG)
    assert check(SECRET, progress, codes(8, 9)) == (Progress(10), Found.RIGHT)


def test_two_in_a_row_find_a_telephone_again_that_went_far_ahead() -> None:
    """RFC 4226 7.4."""
    last = LOOK_AHEAD_FOR_TWO - 1
    assert check(SECRET, Progress(), codes(last, last + 1)) == (Progress(last + 2), Found.RIGHT)
    assert check(SECRET, Progress(), codes(last + 1, last + 2)) == (Progress(0, wrong=1), Found.WRONG)
    assert check(SECRET, Progress(30), codes(28, 29)) == (Progress(30), Found.USED)
    assert check(SECRET, Progress(30), codes(29, 30)) == (Progress(30), Found.USED), "one of them was used"


@given(st.integers(0, 1000), st.lists(st.integers(0, 1100), max_size=30))
def test_no_code_is_ever_right_twice(start: int, counters: list[int]) -> None:
    progress, used = Progress(start), set[int]()
    for counter in counters:
        after, found = check(SECRET, progress, codes(counter))
        if found is Found.RIGHT:
            assert after.next - 1 not in used
            used.add(after.next - 1)
        assert after.next >= progress.next
        progress = after


# Secrets and numbers.


def test_a_secret_is_read_as_apps_show_it() -> None:
    text = base64.b32encode(SECRET).decode()
    assert read_secret(text) == read_secret(text.lower()) == SECRET
    assert read_secret(" ".join(text[at : at + 4] for at in range(0, len(text), 4))) == SECRET
    assert len(read_secret("A" * 26)) == 16


@pytest.mark.parametrize("text", ["", "A" * 25, "1" * 32, "A" * 104, "A" * 27, "\u00c4" * 32])
def test_what_is_no_secret_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(ValueError, match="base32") as caught:
        read_secret(text)
    assert str(caught.value) == SECRET_FORM


@pytest.mark.parametrize("sender", ["+393468686711", "00393468686711", "393468686711", "03468686711", "3468686711"])
def test_a_number_is_known_however_its_network_writes_it(sender: str) -> None:
    assert entry_of(sender, ["+4915112345678", "+393468686711"]) == "+393468686711"
    assert entry_of("+393468686711", [sender]) == sender


@pytest.mark.parametrize(
    ("sender", "entry"),
    [("+393468686712", "+393468686711"), ("86711", "+393468686711"), ("112", "12"), ("A name", "1")],
)
def test_another_number_is_another(sender: str, entry: str) -> None:
    assert entry_of(sender, [entry]) is None


def test_short_numbers_are_known_when_they_are_equal() -> None:
    assert entry_of("112", ["112"]) == "112"
