# SPDX-License-Identifier: Apache-2.0
"""A virtual AT interface: line editing, framing, and the daemon's refusals under +CMEE (REQ-4, REQ-10, SMS-8)."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrund.at.exchange import Prompted
from atrund.at.reader import Line, PromptKind
from atrund.at.results import classify
from atrund.at.syntax import LINE_MAX, LineRefused, parse
from atrund.atrun.instance import (
    LineEditor,
    Typed,
    final_words,
    frame,
    frame_final,
    frame_line,
    show_final,
    show_line,
    show_prompt,
    show_unsolicited,
)
from atrund.atrun.interface import Interface
from atrund.atrun.request import End, Outcome, Reason

RUBOUT = b"\x08 \x08"


@pytest.mark.parametrize(
    ("typed", "lines", "echo"),
    [
        (b"AT+CSQ\r", ["AT+CSQ"], b"AT+CSQ\r"),
        (b"AT\rATI\r", ["AT", "ATI"], b"AT\rATI\r"),
        (b"AT\r\nATI\r\n", ["AT", "ATI"], b"AT\rATI\r"),
        (b"AT\r\0ATI\r\0", ["AT", "ATI"], b"AT\rATI\r"),
        (b"\n\n\0AT\r", ["AT"], b"AT\r"),
        (b"\r", [""], b"\r"),
        (b"AT+CSQ", [], b"AT+CSQ"),
        (b"AT+CSX\x08Q\r", ["AT+CSQ"], b"AT+CSX" + RUBOUT + b"Q\r"),
        (b"AT+CSX\x7fQ\r", ["AT+CSQ"], b"AT+CSX" + RUBOUT + b"Q\r"),
        (b"\x08\x7fAT\x08\x08\x08\x08AT\r", ["AT"], b"AT" + RUBOUT * 2 + b"AT\r"),
        (b"A\xe9\r", ["A\xe9"], b"A\xe9\r"),
    ],
)
def test_typed_bytes_become_lines(typed: bytes, lines: list[str], echo: bytes) -> None:
    assert LineEditor().feed(typed) == Typed(tuple(lines), echo)


@pytest.mark.parametrize(
    ("typed", "lines"),
    [
        (b"AT\nATI\n", ["AT", "ATI"]),
        (b"AT\r\nATI\r\n", ["AT", "ATI"]),
        (b"AT\r\0ATI\n", ["AT", "ATI"]),
        (b"\n\nAT\n\n", ["AT"]),
        (b"AT+CSQ\0\n", ["AT+CSQ\0"]),
    ],
)
def test_a_line_feed_ends_a_line_where_it_may(typed: bytes, lines: list[str]) -> None:
    assert LineEditor(takes_lf=True).feed(typed).lines == tuple(lines)


def test_a_line_feed_ends_no_line_where_s3_is_another_character() -> None:
    editor = LineEditor(takes_lf=True)
    editor.follow(Interface(registers={"S3": (30,)}))
    assert editor.feed(b"AT\n").lines == ()
    assert editor.feed(b"\x1e").lines == ("AT\n",)


def test_what_was_typed_stays_for_the_next_read() -> None:
    editor = LineEditor()
    assert editor.feed(b"AT+C").lines == ()
    assert editor.feed(b"SQ\r").lines == ("AT+CSQ",)
    assert editor.feed(b"\nATI\r").lines == ("ATI",)


@pytest.mark.parametrize("control", [b"\n", b"\0", b"\x1b", b"\x1a", b"\t"])
def test_a_control_character_inside_a_line_refuses_it_whole(control: bytes) -> None:
    """REQ-4: neither dropped, so that `AT+CF<LF>UN=4` would be joined, nor taken for a line's end."""
    (line,) = LineEditor().feed(b"AT+CSQ" + control + b"AT+CFUN=4\r").lines
    with pytest.raises(LineRefused) as refused:
        parse(line)
    assert refused.value.reason == "bad_request"


def test_one_line_feed_before_the_carriage_return_is_a_line_end_still() -> None:
    (line,) = LineEditor().feed(b"AT+CSQ\n\r").lines
    assert [str(command) for command in parse(line)] == ["+CSQ"]


def refused_as_too_long(line: str) -> bool:
    try:
        parse(line)
    except LineRefused as refused:
        return refused.reason == "too_long"
    return False


@pytest.mark.parametrize("more", [1, 2, 3, 4, 5, 100, 100_000])
@pytest.mark.parametrize("filler", [b";", b"\n", b" "])
def test_an_over_long_line_is_refused_and_never_run_in_part(filler: bytes, more: int) -> None:
    start = b"AT+CSQ"
    line = start + filler * (LINE_MAX - len(start)) + b"I" * more
    (kept,) = LineEditor().feed(line + b"\r").lines
    assert refused_as_too_long(kept)
    assert len(kept) < LINE_MAX + 8


@pytest.mark.parametrize("end", [b"\n", b"\n\n", b"\0"])
def test_an_end_of_line_at_the_cap_does_not_hide_the_rest(end: bytes) -> None:
    full = b"AT" + b";" * (LINE_MAX - 2)
    (kept,) = LineEditor().feed(full + end + b"+CFUN=4\r").lines
    assert refused_as_too_long(kept)


def test_the_longest_line_passes() -> None:
    full = b"AT" + b"I" * (LINE_MAX - 2)
    assert LineEditor().feed(full + b"\r").lines == (full.decode(),)
    assert not refused_as_too_long(full.decode())


@pytest.mark.parametrize("more", [1, 3, 4, 100, 5000])
def test_taking_back_the_excess_of_an_over_long_line_gives_what_is_left_and_nothing_shorter(more: int) -> None:
    full = b"AT" + b"I" * (LINE_MAX - 2)
    editor = LineEditor()
    editor.feed(full + b"X" * more)
    assert editor.feed(b"\x08" * more + b"\r").lines == (full.decode(),)


def test_an_over_long_line_does_not_burden_the_next() -> None:
    editor = LineEditor()
    editor.feed(b"A" * (3 * LINE_MAX) + b"\r")
    assert editor.feed(b"ATX\x08I\r").lines == ("ATI",)


KEYS = st.lists(st.sampled_from([b"A", b"T", b"+", b"\r", b"\n", b"\0", b"\x08", b"\x7f", b"\xff"]), max_size=60)


@given(KEYS, st.data())
def test_where_a_read_ends_changes_nothing(keys: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(keys)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    editor = LineEditor()
    fed = [editor.feed(stream[begin:end]) for begin, end in itertools.pairwise([0, *cuts, len(stream)])]
    whole = LineEditor().feed(stream)
    assert tuple(line for typed in fed for line in typed.lines) == whole.lines
    assert b"".join(typed.echo for typed in fed) == whole.echo


@pytest.mark.parametrize(
    ("lines", "outcome", "framed"),
    [
        ([], Outcome(End.OK, final="OK"), "\r\nOK\r\n"),
        (
            [Line('+COPS: 0,0,"vodafone IT"', lead=True)],
            Outcome(End.OK, final="OK"),
            '\r\n+COPS: 0,0,"vodafone IT"\r\n\r\nOK\r\n',
        ),
        (
            [Line("#SS: 1,0", lead=True), Line("#SS: 2,0"), Line("", lead=True), Line("x")],
            Outcome(End.OK, final="OK"),
            "\r\n#SS: 1,0\r\n#SS: 2,0\r\n\r\n\r\nx\r\n\r\nOK\r\n",
        ),
        ([Line("half", lead=True)], Outcome(End.TIMEOUT), "\r\nhalf\r\n\r\nERROR\r\n"),
    ],
)
def test_a_whole_answer_is_framed_as_the_module_framed_it(lines: list[Line], outcome: Outcome, framed: str) -> None:
    assert frame(lines, outcome) == framed
    assert "".join(map(frame_line, lines)) + frame_final(outcome) == framed


CODES = {
    "bad_request too_long": (50, "Incorrect parameters"),
    "policy auth locked unconfirmed": (3, "operation not allowed"),
    "prompt_unsupported data_mode": (4, "operation not supported"),
    "busy held queue_full": (2, "phone-adaptor link reserved"),
    "port_down": (1, "no connection to phone"),
    "storage": (20, "memory full"),
    "shutdown": (100, "unknown"),
}


@pytest.mark.parametrize(
    ("reason", "code", "text"), [(Reason(word), *code) for words, code in CODES.items() for word in words.split()]
)
def test_a_refusal_has_one_form_under_each_cmee(reason: Reason, code: int, text: str) -> None:
    """REQ-10."""
    outcome = Outcome(End.REJECTED, reason)
    assert [final_words(outcome, cmee) for cmee in (0, 1, 2)] == [
        "ERROR",
        f"+CME ERROR: {code}",
        f"+CME ERROR: {text}",
    ]


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_words(reason: Reason) -> None:
    for cmee in (0, 1, 2):
        final = classify(final_words(Outcome(End.REJECTED, reason), cmee))
        assert final is not None
        assert not final.ok


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (Outcome(End.LOST), ["ERROR", "+CME ERROR: 1", "+CME ERROR: no connection to phone"]),
        (Outcome(End.TIMEOUT), ["ERROR", "+CME ERROR: 100", "+CME ERROR: unknown"]),
        (Outcome(End.CANCELLED), ["ERROR", "+CME ERROR: 100", "+CME ERROR: unknown"]),
        (Outcome(End.OK), ["OK", "OK", "OK"]),
        # the module's own
        (Outcome(End.OK, final="OK"), ["OK", "OK", "OK"]),
        (Outcome(End.ERROR, final="ERROR"), ["ERROR", "ERROR", "ERROR"]),
        (Outcome(End.ERROR, final="NO CARRIER"), ["NO CARRIER"] * 3),
        (Outcome(End.ERROR, final="+CME ERROR: 10"), ["ERROR", "+CME ERROR: 10", "+CME ERROR: SIM not inserted"]),
        (Outcome(End.ERROR, final="+CME ERROR: 569"), ["ERROR", "+CME ERROR: 569", "+CME ERROR: 569"]),
        (
            Outcome(End.ERROR, final="+CME ERROR: SIM busy"),
            ["ERROR", "+CME ERROR: SIM busy", "+CME ERROR: SIM busy"],
        ),
        (Outcome(End.ERROR, final="+CMS ERROR: 500"), ["+CMS ERROR: 500"] * 3),
        (Outcome(End.ERROR, final="what the module made up"), ["what the module made up"] * 3),
    ],
)
def test_finals_are_shown_as_the_instance_asked(outcome: Outcome, words: list[str]) -> None:
    assert [final_words(outcome, cmee) for cmee in (0, 1, 2)] == words
    assert frame_final(outcome, 1) == f"\r\n{words[1]}\r\n"


def having(**registers: int) -> Interface:
    interface = Interface()
    for name, value in registers.items():
        interface = interface.with_values(name.replace("CMEE", "+CMEE"), (value,))
    return interface


@pytest.mark.parametrize(
    ("typed", "lines", "echo"),
    [
        (b"A/", ["AT"], b"A/"),
        (b"AT+CSQ\rA/a/", ["AT+CSQ"] * 3, b"AT+CSQ\rA/a/"),
        (b"AT+CSQ\rA/\r", ["AT+CSQ", "AT+CSQ", ""], b"AT+CSQ\rA/\r"),
        (b"AT+CSQ\r\r \rA/", ["AT+CSQ", "", " ", "AT+CSQ"], b"AT+CSQ\r\r \rA/"),
        (b"ATA/\rA/", ["ATA/", "ATA/"], b"ATA/\rA/"),
        (b"AX\x08/", ["AT"], b"AX\x08 \x08/"),
    ],
)
def test_the_last_line_is_repeated_at_once(typed: bytes, lines: list[str], echo: bytes) -> None:
    """V.250 5.2.4; no CR is waited for."""
    assert LineEditor(repeats=True).feed(typed) == Typed(tuple(lines), echo)


def test_nothing_that_was_typed_at_a_login_is_repeated() -> None:
    editor = LineEditor()
    assert editor.feed(b"A/dmin\rsecret\r").lines == ("A/dmin", "secret")
    editor.repeats = True
    assert editor.feed(b"A/").lines == ("AT",)


def test_the_instance_s_s3_ends_a_line_and_its_s5_takes_back() -> None:
    editor = LineEditor()
    interface = having(S3=10, S5=24)
    editor.follow(interface)
    editor.follow(interface)
    assert editor.feed(b"ATX\x18I\nATX\x7fI\n").lines == ("ATI", "ATI")
    editor.follow(Interface())
    assert editor.feed(b"ATX\x08I\r").lines == ("ATI",)


OK = Outcome(End.OK, final="OK")


@pytest.mark.parametrize(
    ("outcome", "interface", "shown"),
    [
        (OK, Interface(), "\r\nOK\r\n"),
        (OK, having(V=0), "0\r"),
        (OK, having(Q=1), ""),
        (OK, having(Q=2, V=0), ""),
        (OK, having(S3=10, S4=32), "\n OK\n "),
        (OK, having(V=0, S3=10), "0\n"),
        (Outcome(End.ERROR, final="ERROR"), having(V=0), "4\r"),
        (Outcome(End.ERROR, final="+CME ERROR: 10"), having(V=0), "4\r"),
        (Outcome(End.ERROR, final="+CME ERROR: 10"), having(CMEE=1), "\r\n+CME ERROR: 10\r\n"),
        (Outcome(End.ERROR, final="+CME ERROR: 10"), having(CMEE=2), "\r\n+CME ERROR: SIM not inserted\r\n"),
        (Outcome(End.ERROR, final="+CME ERROR: 10"), having(V=0, CMEE=1), "+CME ERROR: 10\r"),
        (Outcome(End.ERROR, final="+CMS ERROR: 500"), having(V=0), "+CMS ERROR: 500\r"),
        (Outcome(End.ERROR, final="what is that"), having(V=0), "what is that\r"),
        (Outcome(End.ERROR, final="BUSY"), Interface(), "\r\nBUSY\r\n"),
        (Outcome(End.ERROR, final="BUSY"), having(X=3, V=0), "7\r"),
        (Outcome(End.ERROR, final="BUSY"), having(X=2), "\r\nNO CARRIER\r\n"),
        (Outcome(End.ERROR, final="BUSY"), having(X=0, V=0), "3\r"),
        (Outcome(End.ERROR, final="NO DIALTONE"), having(X=2, V=0), "6\r"),
        (Outcome(End.ERROR, final="NO DIALTONE"), having(X=3), "\r\nNO CARRIER\r\n"),
        (Outcome(End.ERROR, final="NO ANSWER"), having(X=0, V=0), "8\r"),
        (Outcome(End.OK, final="CONNECT 9600"), Interface(), "\r\nCONNECT 9600\r\n"),
        (Outcome(End.OK, final="CONNECT 9600"), having(X=0), "\r\nCONNECT\r\n"),
        (Outcome(End.OK, final="CONNECT 9600"), having(V=0), "1\r"),
        (Outcome(End.REJECTED, Reason.HELD), having(CMEE=1), "\r\n+CME ERROR: 2\r\n"),
    ],
)
def test_a_final_result_is_shown_under_the_instance_s_own_settings(
    outcome: Outcome, interface: Interface, shown: str
) -> None:
    """V.250 6.2.5 to 6.2.7 and table 1."""
    assert show_final(outcome, interface) == shown


@pytest.mark.parametrize(
    ("line", "interface", "shown"),
    [
        (Line("+CSQ: 9,0", lead=True), Interface(), "\r\n+CSQ: 9,0\r\n"),
        (Line("#SS: 2,0"), Interface(), "#SS: 2,0\r\n"),
        (Line("+CSQ: 9,0", lead=True), having(V=0), "+CSQ: 9,0\r\n"),
        (Line("+CSQ: 9,0", lead=True), having(Q=1), "\r\n+CSQ: 9,0\r\n"),
        (Line("+CSQ: 9,0", lead=True), having(S4=0), "\r\0+CSQ: 9,0\r\0"),
    ],
)
def test_an_answer_line_is_framed_under_v_s3_and_s4(line: Line, interface: Interface, shown: str) -> None:
    assert show_line(line, interface) == shown


@pytest.mark.parametrize(
    ("lines", "interface", "shown"),
    [
        (("+CREG: 1",), Interface(), "\r\n+CREG: 1\r\n"),
        (("+CREG: 1",), having(V=0), "+CREG: 1\r\n"),
        (("+CREG: 1",), having(Q=1), "\r\n+CREG: 1\r\n"),
        (("+CMT: ,24", "0791"), Interface(), "\r\n+CMT: ,24\r\n0791\r\n"),
        (("RING",), Interface(), "\r\nRING\r\n"),
        (("RING",), having(V=0), "2\r"),
        (("RING",), having(Q=1), ""),
        (("NO CARRIER",), having(V=0), "3\r"),
    ],
)
def test_an_unsolicited_code_is_shown_as_the_instance_asked(
    lines: tuple[str, ...], interface: Interface, shown: str
) -> None:
    assert show_unsolicited(lines, interface) == shown


def test_prompts_look_as_the_modules_own() -> None:
    """TS 27.005 3.5.1: 13, 10, 62, 32."""
    assert show_prompt(Prompted(PromptKind.TEXT)) == "\r\n> "
    assert show_prompt(Prompted(PromptKind.COUNTED, 3)) == "\r\n>>>"
