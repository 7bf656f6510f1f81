# SPDX-License-Identifier: Apache-2.0
"""Data typed at a prompt: where they end, how they are echoed, and that no more wait than may (REQ-6)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrund.at.exchange import Prompted
from atrund.at.feed import WAITING_MAX, Feed, Finish, Taken
from atrund.at.reader import PromptKind

TEXT = Prompted(PromptKind.TEXT)


class Desk:
    """A feed with a prompt open."""

    def __init__(self, prompt: Prompted) -> None:
        self.prompts: list[Prompted] = []
        self.given = self.rooms = 0
        self.feed = Feed(self.prompts.append, self.has_room)
        self.feed.open(prompt, self.is_given)

    def is_given(self) -> None:
        self.given += 1

    def has_room(self) -> None:
        self.rooms += 1

    @property
    def data(self) -> bytes:
        return self.feed.take(1 << 20)


@pytest.mark.parametrize(
    ("typed", "data", "echo", "rest", "finish"),
    [
        (b"hello", b"hello", b"hello", b"", None),
        (b"one\rtwo\x1a", b"one\rtwo\x1a", b"one\rtwo", b"", Finish.WHOLE),
        (b"hi\x1aAT\r", b"hi\x1a", b"hi", b"AT\r", Finish.WHOLE),
        (b"hi\x1bAT\r", b"hi", b"hi", b"AT\r", Finish.GIVEN_UP),
        (b"\x1a\x1b", b"\x1a", b"", b"\x1b", Finish.WHOLE),
        (b"ab\x08\x7f\x08c\x1a", b"ab\x08\x7f\x08c\x1a", b"ab\x08 \x08\x08 \x08c", b"", Finish.WHOLE),
        (b"a\r\0b\x1a", b"a\rb\x1a", b"a\rb", b"", Finish.WHOLE),
    ],
)
def test_a_text(typed: bytes, data: bytes, echo: bytes, rest: bytes, finish: Finish | None) -> None:
    desk = Desk(TEXT)
    assert desk.feed.give(typed) == Taken(echo, rest)
    assert (desk.data, desk.feed.finish, desk.given) == (data, finish, 1)
    assert desk.feed.is_open is (finish is None)
    assert not desk.feed.is_counted


@given(st.binary(max_size=40), st.integers(1, 20), st.integers(1, 40))
def test_counted_data_are_any_octets_however_they_come(typed: bytes, count: int, cut: int) -> None:
    desk = Desk(Prompted(PromptKind.COUNTED, count))
    first = desk.feed.give(typed[:cut])
    second = desk.feed.give(typed[cut:])
    assert desk.data == typed[:count]
    assert first.rest + second.rest == typed[count:]
    assert first.echo == second.echo == b""
    assert desk.feed.finish is (Finish.WHOLE if len(typed) >= count else None)
    assert desk.feed.is_counted


def test_a_counted_prompt_that_looks_like_a_text_is_echoed_like_one() -> None:
    desk = Desk(Prompted(PromptKind.TEXT, 3))
    assert desk.feed.give(b"\x1a\x1bcAT") == Taken(b"\x1a\x1bc", b"AT")


def test_prompts_are_passed_on() -> None:
    desk = Desk(TEXT)
    again = Prompted(PromptKind.TEXT, again=True)
    desk.feed.ask_again(again)
    assert desk.prompts == [TEXT, again]


def test_nothing_is_data_before_a_prompt_behind_its_end_and_once_it_is_closed() -> None:
    feed = Feed(lambda _: None)
    assert feed.give(b"AT\r") == Taken(rest=b"AT\r")
    desk = Desk(TEXT)
    desk.feed.give(b"x\x1a")
    assert desk.feed.give(b"AT\r") == Taken(rest=b"AT\r")
    desk.feed.close()
    assert desk.feed.is_empty
    assert not desk.feed.is_open
    assert desk.feed.give(b"AT\r") == Taken(rest=b"AT\r")
    assert desk.given == 1


def test_no_input_is_no_end() -> None:
    desk = Desk(TEXT)
    assert desk.feed.give(b"") == Taken()
    assert desk.given == 0


def test_the_next_prompt_begins_anew() -> None:
    desk = Desk(Prompted(PromptKind.COUNTED, 2))
    desk.feed.give(b"ab")
    desk.feed.open(Prompted(PromptKind.COUNTED, 2), desk.is_given)
    assert desk.feed.give(b"cde").rest == b"e"
    assert desk.data == b"cd"


def test_whoever_types_too_much_waits_and_is_told_once_there_is_room() -> None:
    desk = Desk(Prompted(PromptKind.COUNTED, 1 << 20))
    desk.feed.give(bytes(WAITING_MAX - 1))
    full = [desk.feed.is_full]
    for typed, taken in ((b"x", 0), (b"", 10), (b"", 10)):
        desk.feed.give(typed)
        desk.feed.take(taken)
        full.append(desk.feed.is_full)
    assert full == [False, True, False, False]
    assert desk.rooms == 1, "once, and not before"


def test_what_was_typed_is_in_no_repr() -> None:
    assert "secret" not in repr(Taken(b"secret", b"secret"))
