# SPDX-License-Identifier: Apache-2.0
"""The events of the monitor: stored commands and their parameters (CMD-5)."""

import pytest

from atrund.atrun.events import (
    COMMAND_MAX,
    EVENTS,
    TEXT_MAX,
    Event,
    allows_parameters,
    default_event,
    read_command,
    read_parameter,
    shown,
)


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("AT+CSQ", "AT+CSQ"),
        ("at#gpio=1,1", "at#gpio=1,1"),
        ("", ""),
        (r"AT#SGACT=1,1,\22user\22", 'AT#SGACT=1,1,"user"'),
        ("AT" + "I" * (COMMAND_MAX - 2), "AT" + "I" * (COMMAND_MAX - 2)),
        ("AT" + "I" * (COMMAND_MAX - 1), None),
        (r"AT+COPS=\22", None),
        ("+CSQ", None),
        ("HAT+CSQ", None),
    ],
)
def test_a_stored_command_is_one_that_can_be_run(text: str, command: str | None) -> None:
    assert read_command(text) == command


def test_the_length_is_that_of_the_command_and_not_of_its_spelling() -> None:
    text = r"AT#X=\22\22" + "1" * (COMMAND_MAX - 7)
    assert len(read_command(text) or "") == COMMAND_MAX


@pytest.mark.parametrize(
    ("label", "type_", "text", "value"),
    [
        ("RING", 1, "5", 5),
        ("RING", 1, "0", None),
        ("RING", 1, "51", None),
        ("RING", 2, "1", None),
        ("RING", 0, "1", None),
        ("STARTUP", 1, "1", None),
        ("VBATT", 1, "500", 500),
        ("VBATT", 2, "255", 255),
        ("VBATT", 2, "256", None),
        ("GPIO1", 2, "1", 1),
        ("GPIO1", 2, "2", None),
        ("ADCH1", 2, "2000", 2000),
        ("SMSIN", 1, "unlock", "unlock"),
        ("SMSIN", 1, "", ""),
        ("SMSIN", 1, "x" * TEXT_MAX, "x" * TEXT_MAX),
        ("SMSIN", 1, "x" * (TEXT_MAX + 1), None),
        ("SMSIN", 1, "\n", None),
        ("SMSIN", 1, 'a"b', None),
        ("SMSIN", 1, "caf\xe9", None),
    ],
)
def test_parameters_have_their_own_ranges(label: str, type_: int, text: str, value: int | str | None) -> None:
    assert read_parameter(label, type_, text) == value


@pytest.mark.parametrize("label", EVENTS)
def test_an_event_is_allowed_as_it_begins(label: str) -> None:
    assert allows_parameters(label, default_event(label).parameters)
    assert not allows_parameters(label, (*default_event(label).parameters, 0))
    assert not default_event(label).on


def test_stored_parameters_are_of_their_kind() -> None:
    assert not allows_parameters("SMSIN", (1,))
    assert not allows_parameters("SMSIN", ('"',))
    assert not allows_parameters("RING", ("1",))
    assert not allows_parameters("RING", (True,))
    assert not allows_parameters("RING", (51,))


@pytest.mark.parametrize(
    ("label", "event", "text"),
    [
        ("SMSIN", default_event("SMSIN"), '"SMSIN",0,"",""'),
        ("GPIO1", default_event("GPIO1"), '"GPIO1",0,"",1,0,0'),
        ("STARTUP", Event(on=True, command='AT#X="a"'), r'"STARTUP",1,"AT#X=\22a\22"'),
    ],
)
def test_an_event_is_read_back_as_it_is_written(label: str, event: Event, text: str) -> None:
    assert shown(label, event) == text


def test_neither_command_nor_text_are_shown_by_accident() -> None:
    event = Event(command="AT+CPIN=1234", parameters=("unlock",), peer="+391234")
    assert not any(secret in repr(event) for secret in ("1234", "unlock"))
