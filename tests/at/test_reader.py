# SPDX-License-Identifier: Apache-2.0
"""Bytes into lines and prompts: the same however they are cut up, bounded, and with the module's framing kept."""

import itertools
from collections.abc import Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from atrund.at.reader import LINE_MAX, Line, Prompt, PromptKind, Quiet, Reader, Token

TEXT = Prompt(PromptKind.TEXT)
COUNTED = Prompt(PromptKind.COUNTED)

# Noise, and what it takes to reach every corner: line ends, prompts and halves of them, lines about as long as the cap.
PIECES = st.sampled_from(
    [b"\r", b"\n", b"\r\n", b"\0", b">", b" ", b"> ", b">>>", b"OK", b"AT+CSQ\r", b"\xff", b"x" * (LINE_MAX - 2)]
)
BYTES = st.binary(max_size=40) | st.lists(PIECES, max_size=12).map(b"".join)


def reader(*, confirmed: bool, prompting: bool = False) -> Reader:
    made = Reader()
    made.confirmed = confirmed
    made.prompting = prompting
    return made


def read(data: bytes, *, confirmed: bool = True, prompting: bool = False) -> list[Token]:
    return reader(confirmed=confirmed, prompting=prompting).feed(data)


def rebuilt(tokens: Iterable[Token]) -> bytes:
    """What the module put out, from the tokens, as V1 frames it."""
    out = bytearray()
    for token in tokens:
        if isinstance(token, Line):
            out += (b"\r\n" if token.lead else b"") + token.text.encode("latin-1") + b"\r\n"
        elif isinstance(token, Prompt):
            out += b"\r\n" + token.kind.value
    return bytes(out)


@given(BYTES, st.lists(st.integers(min_value=0, max_value=3 * LINE_MAX), max_size=8), st.booleans(), st.booleans())
@example(b"> " + b"x" * LINE_MAX + b"\n", [2], True, True)  # the prompt takes no room from the line behind it
@example(b"\0" * LINE_MAX + b"OK\n", [1], True, False)
@example(b">>>\0" + b"x" * LINE_MAX + b"\n", [3], True, True)
@example(b"x" * LINE_MAX + b"\r\r\n", [LINE_MAX, LINE_MAX + 1], True, False)
def test_the_cuts_change_nothing(data: bytes, cuts: list[int], confirmed: bool, prompting: bool) -> None:  # noqa: FBT001 - drawn
    whole = reader(confirmed=confirmed, prompting=prompting)
    expected = [*whole.feed(data), *whole.quiet()]
    cut = reader(confirmed=confirmed, prompting=prompting)
    places = sorted({min(place, len(data)) for place in cuts} | {0, len(data)})
    found: list[Token] = []
    for start, end in itertools.pairwise(places):
        found += cut.feed(data[start:end])
        assert len(cut._pending) <= LINE_MAX
    assert [*found, *cut.quiet()] == expected


@given(BYTES, st.booleans(), st.booleans())
def test_single_bytes_change_nothing(data: bytes, confirmed: bool, prompting: bool) -> None:  # noqa: FBT001 - drawn
    single = reader(confirmed=confirmed, prompting=prompting)
    found = [token for byte in data for token in single.feed(bytes([byte]))]
    assert found == read(data, confirmed=confirmed, prompting=prompting)


@given(st.lists(st.tuples(st.text("AZ+:,09 ", min_size=1), st.booleans()), max_size=8), st.booleans())
def test_lead_keeps_the_framing_byte_for_byte(lines: list[tuple[str, bool]], confirmed: bool) -> None:  # noqa: FBT001 - drawn
    data = rebuilt([Line(text, lead) for text, lead in lines])
    assert rebuilt(read(data, confirmed=confirmed)) == data


@pytest.mark.parametrize("confirmed", [False, True])
def test_an_answer(confirmed: bool) -> None:  # noqa: FBT001 - a parameter of the test
    data = b"\r\nA\r\nB\r\n\r\nOK\r\n"
    assert read(data, confirmed=confirmed) == [Line("A", lead=True), Line("B"), Line("OK", lead=True)]


def test_of_several_empty_lines_one_is_kept() -> None:
    assert read(b"A\r\n\r\n\r\n\r\nB\r\n") == [Line("A"), Line("B", lead=True)]


def test_an_echo_ends_at_its_cr() -> None:
    assert read(b"AT\r\r\nOK\r\n", confirmed=False) == [Line("AT"), Line("OK", lead=True)]
    assert read(b"AT\r\r\nOK\r\n", confirmed=True) == [Line("AT"), Line("OK")]


def test_a_cr_by_itself_is_no_empty_line() -> None:
    assert read(b"AT\r\rOK\r\n", confirmed=False) == [Line("AT"), Line("OK")]


def test_numeric_results_end_at_cr_until_v1_is_confirmed() -> None:
    assert read(b"ATV0\r0\r", confirmed=False) == [Line("ATV0"), Line("0")]
    assert read(b"14,99\r\n0\r", confirmed=False) == [Line("14,99"), Line("0")]
    assert read(b"0\r", confirmed=True) == []


def test_confirmed_between_cr_and_lf_the_line_stays_one() -> None:
    feeding = reader(confirmed=False)
    assert feeding.feed(b"\r\nOK\r") == [Line("OK", lead=True)]
    feeding.confirmed = True
    assert feeding.feed(b"\n+CSQ: 1\r\n") == [Line("+CSQ: 1")]


def test_a_longer_line_is_cut_and_says_so() -> None:
    fits, cut = read(b"x" * LINE_MAX + b"\r\n" + b"y" * (LINE_MAX + 1) + b"\r\n")
    assert fits == Line("x" * LINE_MAX)
    assert cut == Line("y" * LINE_MAX, cut=True)


def test_the_line_behind_a_cut_one_is_whole() -> None:
    assert read(b"y" * 3 * LINE_MAX + b"\r\nOK\r\n")[-1] == Line("OK")


def test_nothing_grows_without_a_line_end() -> None:
    feeding = reader(confirmed=True)
    for _ in range(100):
        assert feeding.feed(b"x" * LINE_MAX) == []
        assert len(feeding._pending) == LINE_MAX


@pytest.mark.parametrize("confirmed", [False, True])
def test_nul_and_garbage_of_a_start_cost_no_answer(confirmed: bool) -> None:  # noqa: FBT001 - a parameter of the test
    data = b"\0" * (2 * LINE_MAX) + b"\r\nOK\r\n\xff\xfe\x80\r\n\r\n\0+CPIN: READY\0\r\n"
    assert read(data, confirmed=confirmed) == [
        Line("OK", lead=True),
        Line("\xff\xfe\x80"),
        Line("+CPIN: READY", lead=True),
    ]


@pytest.mark.parametrize("prompt", list(PromptKind))
@pytest.mark.parametrize("confirmed", [False, True])
def test_an_awaited_prompt_is_taken_at_once(prompt: PromptKind, confirmed: bool) -> None:  # noqa: FBT001 - a parameter
    feeding = reader(confirmed=confirmed, prompting=True)
    assert feeding.feed(b"\r\n" + prompt.value) == [Prompt(prompt)]
    assert not feeding.prompting
    assert feeding.feed(b"\r\n+CMGS: 5\r\n") == [Line("+CMGS: 5", lead=True)]


def test_a_prompt_cut_before_its_blank() -> None:
    feeding = reader(confirmed=True, prompting=True)
    assert feeding.feed(b"\r\n>") == []
    assert feeding.quiet() == []
    assert feeding.feed(b" ") == [TEXT]


def test_the_empty_line_before_a_prompt_is_the_prompts() -> None:
    assert read(b"\r\n> x\r\n", prompting=True) == [TEXT, Line("x")]
    feeding = reader(confirmed=True)
    assert feeding.feed(b"\r\n> ") == []
    assert feeding.quiet() == [TEXT]
    assert feeding.feed(b"x\r\n") == [Line("x")]


def test_an_awaited_prompt_behind_nul() -> None:
    assert read(b"\r\n\0> ", prompting=True) == [TEXT]


def test_a_line_that_is_no_prompt_leaves_it_awaited() -> None:
    feeding = reader(confirmed=True, prompting=True)
    assert feeding.feed(b"\r\n+CREG: 1\r\n") == [Line("+CREG: 1", lead=True)]
    assert feeding.feed(b"\r\n> ") == [TEXT]


def test_awaited_only_once_it_stands_there() -> None:
    feeding = reader(confirmed=True)
    assert feeding.feed(b"> ab") == []
    feeding.prompting = True
    assert feeding.feed(b"c\r\n") == [TEXT, Line("abc")]


def test_a_text_line_may_begin_like_a_prompt_where_none_is_awaited() -> None:
    assert read(b"\r\n> quoted\r\n>>> more\r\n") == [Line("> quoted", lead=True), Line(">>> more")]


@pytest.mark.parametrize(("data", "prompt"), [(b"\r\n> ", TEXT), (b"\r\n>>>", COUNTED)])
def test_silence_makes_a_prompt_of_what_stands_alone(data: bytes, prompt: Prompt) -> None:
    feeding = reader(confirmed=True)
    assert feeding.feed(data) == []
    assert feeding.quiet() == [prompt]
    assert feeding.quiet() == [Quiet()]


def test_silence_is_told_when_no_line_is_half_read() -> None:
    feeding = reader(confirmed=True)
    assert feeding.quiet() == [Quiet()]
    feeding.feed(b"\r\nO")
    assert feeding.quiet() == []
    feeding.feed(b"K\r\n\0")
    assert feeding.quiet() == [Quiet()]


def test_reset_forgets_the_half_line_and_the_prompt() -> None:
    feeding = reader(confirmed=True, prompting=True)
    feeding.feed(b"\r\n" + b"x" * (LINE_MAX + 1))
    feeding.reset()
    assert feeding.feed(b"> OK\r\n") == [Line("> OK")]


def test_reset_between_cr_and_lf() -> None:
    feeding = reader(confirmed=False)
    feeding.feed(b"OK\r")
    feeding.reset()
    assert feeding.feed(b"\nOK\r\n") == [Line("OK", lead=True)]
