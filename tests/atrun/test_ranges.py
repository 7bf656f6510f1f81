# SPDX-License-Identifier: Apache-2.0
"""Numbers of parameters: read whatever their spelling, shown as a test form does."""

import pytest

from atrund.atrun.ranges import FLAG, Range, Values, read_number, shown


@pytest.mark.parametrize(
    ("text", "allowed", "number"),
    [
        ("1", FLAG, 1),
        ("0001", FLAG, 1),
        ("0", FLAG, 0),
        ("2", FLAG, None),
        ("", FLAG, None),
        ("-1", range(-1, 2), None),
        ("+1", FLAG, None),
        ("1 ", FLAG, None),
        ("\u0661", FLAG, None),
        ('"1"', FLAG, None),
        ("9" * 5000, range(10**11), None),
        ("115200", (9600, 115200), 115200),
        ("1200", (9600, 115200), None),
    ],
)
def test_a_number_is_read_within_its_range_alone(text: str, allowed: Range, number: int | None) -> None:
    assert read_number(text, allowed) == number


@pytest.mark.parametrize(
    ("allowed", "text"),
    [(FLAG, "(0,1)"), (range(1, 61), "(1-60)"), ((300, 1200), "(300,1200)"), (range(5, 6), "(5)"), ((), "()")],
)
def test_ranges_are_shown_as_a_test_form_does(allowed: Range, text: str) -> None:
    assert shown(allowed) == text


TWO = Values((range(3), FLAG), (1, 0))


@pytest.mark.parametrize(
    ("given", "values"),
    [
        (("2",), (2, 0)),
        (("2", "1"), (2, 1)),
        (("2", ""), (2, 0)),
        (("", "1"), None),
        ((), None),
        (("3",), None),
        (("1", "2"), None),
        (("1", "1", "1"), None),
    ],
)
def test_values_left_out_have_their_defaults(given: tuple[str, ...], values: tuple[int, ...] | None) -> None:
    assert TWO.read(given) == values


def test_stored_values_are_as_many_whole_numbers_within_their_ranges() -> None:
    assert TWO.allows((2, 1))
    assert not any(map(TWO.allows, [(2,), (2, 1, 0), (3, 1), (2, True), (2, 1.0), (2, "1")]))
    assert TWO.shown() == "(0-2),(0,1)"
