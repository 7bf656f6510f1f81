# SPDX-License-Identifier: Apache-2.0
"""A sealed SMS: its form, its HMAC, the counters that are taken, and the times that go."""

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrund.sms.alphabet import Alphabet
from atrund.sms.dcs import Dcs
from atrund.sms.pdu import PduError, UserData
from atrund.sms.seal import (
    AHEAD,
    COUNTERS,
    HEADER_LENGTH,
    KEY_FORM,
    WINDOW,
    SealError,
    SealKey,
    Window,
    parse_sealed,
    read_key,
    seal,
    untimely,
    write_key,
)

KEY = SealKey(7, bytes(range(32)))
OTHER = SealKey(7, bytes(32))
NOON = 1772366400
TEXTS = st.text(min_size=1).map(lambda text: text.strip(" ")).filter(bool)


def test_the_form_is_as_the_page_describes_it() -> None:
    """Made here once more, by the words of docs/sms-security.md."""
    front = bytes([7]) + (9).to_bytes(4, "big") + NOON.to_bytes(4, "big")
    code = hmac.new(KEY.secret, b"atrund sealed SMS 1\0" + front + b"AT+CSQ", hashlib.sha256).digest()[:16]
    made = seal(KEY, "AT+CSQ", counter=9, time=NOON)
    assert made == f"S1{base64.b32encode(front + code).decode()} AT+CSQ"
    assert made == "S1A4AAAAAJNGSCUQDT3KYVFSCV5JTNWYLXDMZPX5OU AT+CSQ"
    assert made.index("AT+CSQ") == HEADER_LENGTH


@pytest.mark.parametrize(("dcs", "room"), [(0x00, 117), (0x04, 97), (0x08, 27)])
def test_what_is_left_of_one_sms_for_the_text(dcs: int, room: int) -> None:
    sealed = seal(KEY, "A" * room, counter=1, time=1)
    assert UserData.from_text(sealed, Dcs(dcs)).text == sealed
    with pytest.raises(PduError):
        UserData.from_text(f"{sealed}A", Dcs(dcs))


def test_every_alphabet_carries_it_unchanged() -> None:
    sealed = seal(KEY, "AT", counter=COUNTERS[-1], time=COUNTERS[-1])
    for dcs in (0x00, 0x04, 0x08):
        data = UserData.from_text(sealed, Dcs(dcs))
        assert data.text == sealed
    assert Dcs(0).alphabet is Alphabet.GSM7
    septets = UserData.from_text(sealed, Dcs(0)).septets
    assert septets is not None
    assert len(septets) == len(sealed), "no character of it takes two septets"


@given(TEXTS, st.sampled_from(COUNTERS), st.sampled_from(COUNTERS), st.integers(0, 255), st.binary(min_size=32))
def test_what_was_sealed_is_read_back(text: str, counter: int, time: int, number: int, secret: bytes) -> None:
    key = SealKey(number, secret)
    found = parse_sealed(seal(key, text, counter=counter, time=time))
    assert found is not None
    assert (found.number, found.counter, found.time, found.text) == (number, counter, time, text)
    assert found.key_of([OTHER, key]) is key


@given(st.data())
def test_a_change_anywhere_breaks_it(data: st.DataObject) -> None:
    sealed = seal(KEY, 'AT+CMGS="+39346"', counter=5, time=NOON)
    at = data.draw(st.integers(0, len(sealed) - 1))
    changed = sealed[:at] + data.draw(st.characters(codec="ascii")) + sealed[at + 1 :]
    found = parse_sealed(changed)
    same = changed.strip(" ").upper()[:HEADER_LENGTH] == sealed.upper()[:HEADER_LENGTH]
    same = same and changed.strip(" ")[HEADER_LENGTH:] == sealed[HEADER_LENGTH:]
    assert (found is not None and found.key_of([KEY]) is KEY) == same


def test_a_lone_surrogate_is_no_fault() -> None:
    found = parse_sealed(seal(KEY, "AT\ud800", counter=1, time=1))
    assert found is not None
    assert found.key_of([KEY]) is KEY


@pytest.mark.parametrize("number", [6, 8])
def test_a_key_of_another_number_is_not_tried(number: int) -> None:
    found = parse_sealed(seal(KEY, "AT", counter=1, time=1))
    assert found is not None
    assert found.key_of([SealKey(number, KEY.secret)]) is None
    assert found.key_of([]) is None
    assert found.key_of([OTHER]) is None


def test_small_letters_and_blanks_around_it_do_not_matter() -> None:
    sealed = seal(KEY, "  AT+CSQ ", counter=1, time=1)
    mark, text = sealed.split(" ")
    found = parse_sealed(f" {mark.lower()}   {text}  ")
    assert found is not None
    assert (found.text, found.key_of([KEY])) == ("AT+CSQ", KEY)


@pytest.mark.parametrize(
    "text",
    ["", "AT+CSQ", "S1", f"S1{'A' * 40}", f"S1{'A' * 40}  ", f"S1{'A' * 39} AT", f"S1{'A' * 41} AT", f"S2{'A' * 40} AT",
     f"S1{'A' * 39}1 AT", f"S1{'A' * 39}\u017f AT", f"\u017f1{'A' * 40} AT", f"S1{'A' * 40}AT"],
)  # fmt: skip
def test_another_text_is_none(text: str) -> None:
    assert parse_sealed(text) is None


@pytest.mark.parametrize(("counter", "time"), [(-1, 0), (0, -1), (2**32, 0), (0, 2**32)])
def test_a_number_out_of_range_is_refused(counter: int, time: int) -> None:
    with pytest.raises(SealError, match=r"is out of range, 0 to 4294967295"):
        seal(KEY, "AT", counter=counter, time=time)


def test_nothing_is_not_sealed() -> None:
    with pytest.raises(SealError, match="no text"):
        seal(KEY, "  ", counter=1, time=1)


def test_nothing_shows_a_key_or_a_seal() -> None:
    found = parse_sealed(seal(KEY, "AT+CPIN=1234", counter=1, time=1))
    assert "1234" not in repr(found)
    assert "mac" not in repr(found)
    assert repr(KEY) == "SealKey(number=7)"


# The file of a key.


def test_a_key_file_is_read_as_it_is_written() -> None:
    assert read_key(write_key(KEY)) == KEY
    assert write_key(KEY) == f"7:{bytes(range(32)).hex()}"


@pytest.mark.parametrize(
    "text", ["", "7", f"7:{'0' * 63}", f"7:{'0' * 65}", f"256:{'0' * 64}", f"-1:{'0' * 64}", f"7:{'g' * 64}", "0" * 64]
)
def test_what_is_no_key_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(SealError) as caught:
        read_key(text)
    assert str(caught.value) == KEY_FORM


# Counters.


@given(st.lists(st.integers(0, 3 * WINDOW)))
def test_no_counter_is_taken_twice_and_none_that_is_near_is_lost(counters: list[int]) -> None:
    window, taken = Window(), set[int]()
    for counter in counters:
        after = window.take(counter)
        highest = max(taken, default=0)
        assert (after is not None) == (counter not in taken and counter > highest - WINDOW)
        if after is not None:
            taken.add(counter)
            window = after
    assert window.highest == max(taken, default=0)
    assert 0 <= window.seen < 1 << WINDOW


def test_a_great_leap_leaves_the_ones_below_to_be_taken() -> None:
    window = Window(5, 1).take(COUNTERS[-1])
    assert window == Window(COUNTERS[-1], 1)
    assert window.take(COUNTERS[-1] - WINDOW) is None
    assert window.take(COUNTERS[-1] - WINDOW + 1) == Window(COUNTERS[-1], 1 | 1 << WINDOW - 1)


# Time.


@pytest.mark.parametrize(
    ("now", "max_age", "why"),
    [
        (NOON + 600.0, 600.0, ""),
        (NOON + 600.5, 600.0, "was sealed too long ago"),
        (NOON - AHEAD, 600.0, ""),
        (NOON - AHEAD - 0.5, 600.0, "was sealed in the future"),
        (NOON + 1e9, 0.0, ""),
        (NOON - 1e9, 0.0, ""),
        (None, 600.0, ""),
    ],
)
def test_the_time_counts_where_one_is_known_and_asked_for(now: float | None, max_age: float, why: str) -> None:
    """REQ-11: without a time the counter tells alone."""
    found = parse_sealed(seal(KEY, "AT", counter=1, time=NOON))
    assert found is not None
    assert untimely(found, now, max_age) == why
