# SPDX-License-Identifier: Apache-2.0
"""What a door sees of stored messages, and what it deletes (CMD-6)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrund.at.syntax import parse
from atrund.atrun.stored_messages import (
    EMPTY,
    WORDS,
    Clearing,
    Deletion,
    Listing,
    Misunderstood,
    Reading,
    States,
    View,
    among,
    as_read,
    listing,
    understand,
)

EVERY = frozenset(range(4))
BAD_PDU, BAD_TEXT = Misunderstood("+CMS ERROR: 304"), Misunderstood("+CMS ERROR: 305")
NO_INDEX = Misunderstood(EMPTY)


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        ("+CMGL", Listing(frozenset({0}))),
        ("+CMGL=", Listing(frozenset({0}))),
        ("+CMGL=0", Listing(frozenset({0}))),
        ("+CMGL=01", Listing(frozenset({1}))),
        ("+CMGL=3", Listing(frozenset({3}))),
        ("+CMGL=4", Listing(EVERY)),
        ("+CMGL=5", BAD_PDU),
        ('+CMGL="ALL"', BAD_PDU),
        ("+CMGL=4,1", BAD_PDU),
        ("+CMGL=999999", BAD_PDU),
        ("+CMGR=7", Reading(7)),
        ("+CMGR=007", Reading(7)),
        ("+CMGR", BAD_PDU),
        ("+CMGR=", NO_INDEX),
        ("+CMGR=x", NO_INDEX),
        ("+CMGR=7,1", NO_INDEX),
        ("+CMGR=-7", NO_INDEX),
        ("+CMGD=7", Deletion(7)),
        ("+CMGD=7,0", Deletion(7)),
        ("+CMGD=7,", Deletion(7)),
        ("+CMGD=x", NO_INDEX),
        ("+CMGD=", NO_INDEX),
        ("+CMGD", BAD_PDU),
        ("+CMGD=7,5", BAD_PDU),
        ("+CMGD=7,x", BAD_PDU),
        ("+CMGD=7,4,1", BAD_PDU),
        ("+CMGD=1,1", Clearing(frozenset({1}))),
        ("+CMGD=1,2", Clearing(frozenset({1, 3}))),
        ("+CMGD=1,3", Clearing(frozenset({1, 2, 3}))),
        ("+CMGD=1,4", Clearing(EVERY)),
        ("+CMGD=,04", Clearing(EVERY)),
    ],
)
def test_what_is_asked_in_pdu_mode(line: str, asked: object) -> None:
    """TS 27.005 3.4.2, 3.4.3, 3.5.4."""
    assert understand(parse(f"AT{line}")[0], text_mode=False) == asked


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        ("+CMGL", Listing(frozenset({0}))),
        ('+CMGL=""', BAD_TEXT),
        ('+CMGL="rec read"', Listing(frozenset({1}))),
        ("+CMGL=ALL", Listing(EVERY)),
        ('+CMGL="STO UNSENT"', Listing(frozenset({2}))),
        ("+CMGL=4", BAD_TEXT),
        ("+CMGD=1,9", BAD_TEXT),
        ("+CMGR=3", Reading(3)),
    ],
)
def test_what_is_asked_in_text_mode(line: str, asked: object) -> None:
    assert understand(parse(f"AT{line}")[0], text_mode=True) == asked


def test_all_is_what_is_listed() -> None:
    assert str(listing(text_mode=False)) == "+CMGL=4"
    assert str(listing(text_mode=True)) == '+CMGL="ALL"'


def seen(lines: list[str], states: States, wanted: frozenset[int] = EVERY, *, text_mode: bool = False) -> list[str]:
    view = View(states, wanted, text_mode=text_mode)
    return [shown for line in lines if (shown := view.feed(line)) is not None]


PDUS = ["+CMGL: 1,1,,20", "AA", '+CMGL: 2,1,"",21', "BB", "+CMGL: 4,2,,22", "CC"]


def test_a_hidden_message_is_not_listed_and_the_states_are_those_of_the_door() -> None:
    view = View({1: 0, 2: None, 4: 2}, EVERY, text_mode=False)
    assert [view.feed(line) for line in PDUS] == ["+CMGL: 1,0,,20", "AA", None, None, "+CMGL: 4,2,,22", "CC"]
    assert (view.shown, view.strange) == ([1, 4], [])


@pytest.mark.parametrize(("wanted", "indices"), [({0}, [1]), ({1}, [2]), ({2}, [4]), ({3}, []), (EVERY, [1, 2, 4])])
def test_only_messages_of_the_wanted_states_are_listed(wanted: frozenset[int], indices: list[int]) -> None:
    view = View({1: 0, 2: 1, 4: 2}, frozenset(wanted), text_mode=False)
    shown = [shown for line in PDUS if (shown := view.feed(line)) is not None]
    assert view.shown == indices
    assert len(shown) == 2 * len(indices)


def test_a_message_that_came_meanwhile_is_hidden_and_told() -> None:
    view = View({1: 1}, EVERY, text_mode=False)
    assert [view.feed(line) for line in ["+CMGL: 1,1,,20", "AA", "+CMGL: 2,0,,20", "BB"]][2:] == [None, None]
    assert view.strange == [2]


TEXTS = ['+CMGL: 3,"REC READ","+39","","t"', "one", "two", '+CMGL: 5,"REC READ","+39","","t"', "AT+CSQ"]


def test_in_text_mode_a_text_of_several_lines_goes_with_its_header() -> None:
    assert seen(TEXTS, {3: 0, 5: None}, text_mode=True) == [TEXTS[0].replace("READ", "UNREAD"), "one", "two"]
    assert seen(TEXTS, {3: None, 5: 1}, text_mode=True) == TEXTS[3:]


@pytest.mark.parametrize("forged", ["3", "9", "77"])
def test_a_text_that_looks_like_a_header_shows_no_hidden_message(forged: str) -> None:
    lines = [TEXTS[0], f'+CMGL: {forged},"REC READ","x"', *TEXTS[3:], '+CMGL: 9,"REC READ","+39"', "end"]
    shown = seen(lines, {3: 1, 5: None, 9: 1}, text_mode=True)
    assert "AT+CSQ" not in shown
    assert shown[:2] == lines[:2]
    assert shown[-1] == "end"


def test_a_text_that_names_a_hidden_or_a_new_message_loses_no_more_than_its_own_rest() -> None:
    for forged in ('+CMGL: 5,"REC READ","x"', '+CMGL: 8,"REC UNREAD","x"'):
        lines = [TEXTS[0], forged, "rest", '+CMGL: 9,"REC READ","+39"', "end"]
        assert seen(lines, {3: 1, 5: None, 9: 1}, text_mode=True) == [TEXTS[0], *lines[3:]]


@given(
    states=st.dictionaries(st.integers(1, 30), st.sampled_from([None, 0, 1, 2, 3])),
    wanted=st.frozensets(st.sampled_from([0, 1, 2, 3])),
    text_mode=st.booleans(),
)
def test_a_listing_shows_exactly_what_is_the_doors(states: States, wanted: frozenset[int], *, text_mode: bool) -> None:
    lines = []
    for index in sorted(states):
        module = 1 if (states[index] or 0) < 2 else states[index] or 0
        lines += [
            f'+CMGL: {index},{f"{WORDS[module]!r}" if text_mode else module},"x"'.replace("'", '"'),
            f"of {index}",
        ]
    shown = seen(lines, states, wanted, text_mode=text_mode)
    expected = sorted(among(states, wanted))
    assert [line for line in shown if line.startswith("of")] == [f"of {index}" for index in expected]
    for header, index in zip(shown[::2], expected, strict=True):
        state = states[index]
        assert state is not None
        assert header.split(",")[1].strip('"') == (WORDS[state] if text_mode else str(state))


@pytest.mark.parametrize(
    ("line", "state", "text_mode", "shown"),
    [
        ("+CMGR: 1,,20", 0, False, "+CMGR: 0,,20"),
        ('+CMGR:1,"",20', 0, False, '+CMGR:0,"",20'),
        ('+CMGR: "REC READ","+39"', 0, True, '+CMGR: "REC UNREAD","+39"'),
        ('+CMGR: "REC READ","+39"', 1, True, '+CMGR: "REC READ","+39"'),
        ("+CMGR: 1,,20", 0, True, "+CMGR: 1,,20"),
        ("0791", 0, False, "0791"),
    ],
)
def test_a_header_has_the_state_that_the_door_is_to_see(line: str, state: int, *, text_mode: bool, shown: str) -> None:
    assert as_read(line, state, text_mode=text_mode) == shown
