# SPDX-License-Identifier: Apache-2.0
"""Whom a line belongs to (REQ-5), prompts (REQ-6), and the table of a command line's life."""

import itertools
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from atrund.at.exchange import (
    ABORT,
    ESC,
    HELD_MAX,
    TRANSITIONS,
    Answered,
    Ended,
    Event,
    Exchange,
    Fill,
    Happening,
    Prompted,
    Send,
    Sorter,
    Stand,
    State,
    Unsolicited,
    Why,
)
from atrund.at.reader import Line, Prompt, PromptKind, Quiet, Reader, Token
from atrund.at.results import OK, FinalKind
from atrund.at.syntax import parse
from atrund.at.times import LONGEST, USUAL
from atrund.table import IllegalTransition

TEXT = Prompt(PromptKind.TEXT)
COUNTED = Prompt(PromptKind.COUNTED)
PDU = "07911326040000F0040B911346610089F60000208062917314080CC8F71D14969741F977FD07"


# The whole way, from bytes.


@dataclass
class Said:
    """What came of a command line, sorted."""

    answer: list[str] = field(default_factory=list)
    unsolicited: list[tuple[str, ...]] = field(default_factory=list)
    finals: list[Ended] = field(default_factory=list)
    rest: list[Happening] = field(default_factory=list)
    framed: bytes = b""

    @property
    def final(self) -> str:
        (ended,) = self.finals
        return ended.final.text


def sorter_of(command: str) -> Sorter:
    sorter = Sorter()
    sorter.running = Exchange(parse(command))
    return sorter


def run(
    command: str | None, data: bytes, *, confirmed: bool = True, prompt: PromptKind | None = None, quiet: bool = True
) -> Said:
    """Let a module say `data` after a command, and then (`quiet`) be silent."""
    reader, sorter, said = Reader(), Sorter(), Said()
    reader.confirmed = confirmed
    reader.prompting = prompt is not None
    sorter.running = None if command is None else Exchange(parse(command), prompt)
    for token in [*reader.feed(data), *(reader.quiet() if quiet else ())]:
        for happening in sorter.feed(token):
            match happening:
                case Answered(line):
                    said.answer.append(line.text)
                    said.framed += (b"\r\n" if line.lead else b"") + line.text.encode("latin-1") + b"\r\n"
                case Unsolicited(lines):
                    said.unsolicited.append(lines)
                    said.framed += b"\r\n" + "\r\n".join(lines).encode("latin-1") + b"\r\n"
                case Ended(final, lead):
                    said.finals.append(happening)
                    said.framed += (b"\r\n" if lead else b"") + final.text.encode("latin-1") + b"\r\n"
                case _:
                    said.rest.append(happening)
    return said


@dataclass
class Transcript:
    """One entry of the data file."""

    title: str
    command: str | None = None
    plain: bytes = b""
    echoed: bytes = b""
    answer: list[str] = field(default_factory=list)
    final: str | None = None
    unsolicited: list[tuple[str, ...]] = field(default_factory=list)


def transcripts() -> list[Transcript]:
    found: list[Transcript] = []
    path = Path(__file__).parents[1] / "data" / "at_transcripts.txt"
    for line in path.read_text("ascii").splitlines():
        mark, text = line[:1], line[2:]
        octets = text.replace("\\r", "\r").replace("\\n", "\n").encode("ascii")
        match mark:
            case "=":
                found.append(Transcript(text))
            case ">":
                found[-1].command = text
            case "0":
                found[-1].plain = octets
            case "1":
                found[-1].echoed = octets
            case "<":
                found[-1].answer.append(text)
            case "!":
                found[-1].final = text
            case "*":
                found[-1].unsolicited.append((text,))
            case _:
                assert mark in {"#", ""}, line
    return found


TRANSCRIPTS = transcripts()


def test_every_numbered_transcript_of_commands_is_there() -> None:
    numbers = {int(transcript.title.split(maxsplit=1)[0].rstrip(",")) for transcript in TRANSCRIPTS}
    assert numbers == set(range(1, 43))


@pytest.mark.parametrize("confirmed", [False, True])
@pytest.mark.parametrize("echo", [False, True])
@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=[transcript.title for transcript in TRANSCRIPTS])
def test_a_transcript(transcript: Transcript, echo: bool, confirmed: bool) -> None:  # noqa: FBT001 - parameters
    said = run(transcript.command, transcript.echoed if echo else transcript.plain, confirmed=confirmed)
    assert said.answer == transcript.answer
    assert [ended.final.text for ended in said.finals] == ([] if transcript.final is None else [transcript.final])
    assert said.unsolicited == transcript.unsolicited
    assert said.framed == transcript.plain, "without the echo, the framing is the module's, byte for byte"
    assert said.rest == []


def test_the_notes_answer_in_text_mode_holds_an_ok_of_its_own() -> None:
    """80000NT10029a 2.3: what an ATRUN answer looks like to the phone that reads it."""
    header = '+CMGR: "REC UNREAD","+39346XYWZ","","08/05/28,11:04:37+08"'
    text = '\r\n+COPS: 0,0,"vodafone IT"\r\n\r\nOK\r\n'
    data = f"\r\n{header}\r\n{text}\r\n\r\nOK\r\n".encode()
    said = run("AT+CMGR=1", data)
    assert said.answer == [header, '+COPS: 0,0,"vodafone IT"', "OK"]
    assert said.final == "OK"


# Finals.


@pytest.mark.parametrize(
    "final", ["OK", "ERROR", "ABORTED", "+CME ERROR: 10", "+CME ERROR: SIM busy", "+CMS ERROR: 321"]
)
def test_a_final_ends_any_command(final: str) -> None:
    said = run("AT+CSQ", f"\r\n{final}\r\n".encode())
    assert (said.answer, said.final, said.unsolicited) == ([], final, [])


@pytest.mark.parametrize("words", ["NO CARRIER", "NO DIALTONE", "NO ANSWER", "BUSY", "CONNECT", "CONNECT 9600"])
def test_the_words_of_a_call_end_only_commands_that_make_one(words: str) -> None:
    data = f"\r\n{words}\r\n\r\nOK\r\n".encode()
    for command in ("ATD123;", "AT#SD=1,0,80,a", "AT#SGACT=1,1", "AT+CGDATA=1", "AT#SSLD=1,443,a", "AT+CSQ;D123;"):
        assert isinstance(sorter_of(command).feed(Line(words))[0], Ended), command
    for command in ("AT+CSQ", "AT", "AT+CREG=1", "AT+COPS?"):
        said = run(command, data)
        assert (said.unsolicited, said.answer, said.final) == ([(words,)], [], "OK"), command


@pytest.mark.parametrize("command", ["AT+CSQ", "AT#SD=1,0,80,a", "ATD123;", "AT#SH=1", "AT"])
def test_a_sockets_no_carrier_is_always_unsolicited(command: str) -> None:
    said = run(command, b"\r\nNO CARRIER:3\r\n\r\nNO CARRIER:2,1\r\n\r\nOK\r\n")
    assert said.unsolicited == [("NO CARRIER:3",), ("NO CARRIER:2,1",)]
    assert said.answer == []


def test_a_final_while_nothing_runs_is_unsolicited() -> None:
    assert run(None, b"\r\nOK\r\n").unsolicited == [("OK",)]


# Echo and numeric results.


@pytest.mark.parametrize("confirmed", [False, True])
def test_an_echo_is_nobodys(confirmed: bool) -> None:  # noqa: FBT001 - a parameter of the test
    said = run("ATE0V1", b"ATE0V1\r\r\nOK\r\n", confirmed=confirmed)
    assert (said.answer, said.unsolicited, said.final) == ([], [], "OK")


def test_an_echo_behind_an_unsolicited_line() -> None:
    said = run("AT+CSQ", b"\r\n+CREG: 1\r\nAT+CSQ\r\r\n+CSQ: 9,0\r\n\r\nOK\r\n", confirmed=False)
    assert (said.answer, said.unsolicited) == (["+CSQ: 9,0"], [("+CREG: 1",)])


def test_only_the_first_is_an_echo() -> None:
    said = run("AT#LSCRIPT", b"AT#LSCRIPT\r\r\nAT#LSCRIPT\r\nx\r\nAT#LSCRIPT\r\n\r\nOK\r\n", confirmed=False)
    assert said.answer == ["AT#LSCRIPT", "x", "AT#LSCRIPT"]


@pytest.mark.parametrize(("digit", "final"), [("0", "OK"), ("4", "ERROR")])
def test_a_numeric_result_before_v1_is_confirmed(digit: str, final: str) -> None:
    for command in ("AT", "ATE0V1Q0", "ATZ"):
        said = run(command, f"{command}\r{digit}\r".encode(), confirmed=False)
        assert (said.final, said.answer) == (final, [])


def test_a_digit_that_is_an_answer_is_no_result() -> None:
    for command in ("ATS0?", "AT+FCLASS?", "AT+GMI"):
        said = run(command, b"\r\n0\r\n\r\nOK\r\n")
        assert (said.answer, said.final) == (["0"], "OK")


def test_a_numeric_ring_is_unsolicited() -> None:
    assert run("AT", b"2\r0\r", confirmed=False).unsolicited == [("2",)]


# Answers and unsolicited lines.


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("AT+CREG?", '+CREG: 2,1,"6993","0938F20",7'),
        ("AT+CREG?", "+CREG: 0,1"),
        ("AT+CREG?", "+CREG: 2,5,0502,0404736D"),
        ("AT+CREG=?", "+CREG: (0-2)"),
        ("AT+CEREG?", '+CEREG: 2,1,"0001","0938F20",7'),
        ("AT#QSS?", "#QSS: 1,3"),
        ("AT#PSNT?", "#PSNT: 0,4"),
        ("AT#PSNT=?", "#PSNT: (0,1)"),
        ("AT+CLIP?", "+CLIP: 1,1"),
        ("AT+CCWA=1,2", "+CCWA: 1,1"),
        ("AT+CUSD?", "+CUSD: 1"),
        ("AT#NITZ?", "#NITZ: 7,1"),
        ("AT#SGACT=1,1", "+IP: 10.0.0.1"),
        ("AT+GSN=1", "+CGSN: 354485417617003"),
        ("AT#TEMPMON=1", "#TEMPMEAS: 0,28"),
        ("AT+CGMI", "Telit"),
        ("ATI", "Telit"),
        ("ATS3?", "013"),
        ("AT&V", "+CREG: 0"),
        ("AT+CLAC", "+CREG"),
        ("ATE0+CREG?;+CSQ", "+CSQ: 1,2"),
        ("AT+CREG=1;+CREG?", "+CREG: 1,2"),
        ("AT+CREG?;+CREG=?", "+CREG: (0-2)"),
    ],
)
def test_a_line_of_the_answer(command: str, line: str) -> None:
    said = run(command, f"\r\n{line}\r\n\r\nOK\r\n".encode())
    assert (said.answer, said.unsolicited, said.final) == ([line], [], "OK")


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("AT+CREG?", "+CREG: 1"),
        ("AT+CREG?", "+CREG:"),
        ("AT+CREG=?", "+CREG:"),
        ("AT+CREG?", '+CREG: 1,"00DE","FD4F"'),
        ("AT+CREG?", '+CREG: 5,"0502","0404736D",7'),
        ("AT+CREG?", "+CREG: 1,0502,0404736D"),
        ("AT+CREG?", "+CREG: 3,,,,0,11"),
        ("AT+CREG=?", "+CREG: 1"),
        ("AT+CREG=1", "+CREG: 2"),
        ("AT+CREG=2", '+CREG: 1,"00DE","FD4F",0,"01"'),
        ("AT+CGREG?", "+CREG: 0,1"),
        ("AT+CGREG?", '+CGREG: 1,"00DE","FD4F",0,"01"'),
        ("AT+CEREG?", "+CEREG: 4"),
        ("AT+CGATT=1", '+CGREG: 1,"00DE","FD4F",0,"01"'),
        ("AT+CREG=1;+CREG?", "+CREG: 1"),
        ("AT#QSS?", "#QSS: 2"),
        ("AT#QSS=2", "#QSS: 2"),
        ("AT+CSQ", "#QSS: 3"),
        ("AT#PSNT?", "#PSNT: 4"),
        ("AT#PSNT=1", "#PSNT: 4"),
        ("AT+CLIP?", '+CLIP: "+393461234567",145'),
        ("AT+CLIP=1", '+CLIP: "",128'),
        ("AT+CCWA=1,2", '+CCWA: "+39346",145,1'),
        ("AT+CUSD?", '+CUSD: 0,"12 EUR",15'),
        ('AT+CUSD=1,"*100#"', "+CUSD: 2"),
        ("AT#JDR=2", "#JDR: Blocked"),
        ("AT#SMOV?", '#SMOV: "SM"'),
        ("AT+CMGL=4", '+CMTI: "SM",1'),
        ("AT&V", '+CMTI: "SM",1'),
        ("AT+CSQ", "RING"),
        ("AT+CGMI", "RING"),
        ("AT+CSQ", "SRING: 6,69"),
        ("AT+CGMI", "SWREADY"),
        ("AT+CGMI", "$GPGGA,095704.000,4542.8,N,01344.2,E,1,8,1.0,70.1,M,,,,0000*56"),
        ("AT", "Telit"),
        ("AT+CSQ", "+COPS: 0"),
    ],
)
def test_an_unsolicited_line(command: str, line: str) -> None:
    said = run(command, f"\r\n{line}\r\n\r\nOK\r\n".encode())
    assert (said.answer, said.unsolicited, said.final) == ([], [(line,)], "OK")
    assert run(None, f"\r\n{line}\r\n".encode()).unsolicited == [(line,)]


def test_both_forms_under_one_name_in_one_answer() -> None:
    said = run("AT+CREG?", b'\r\n+CREG: 1,"00DE","FD4F"\r\n\r\n+CREG: 2,1,"00DE","FD4F"\r\n\r\n+CREG: 5\r\n\r\nOK\r\n')
    assert said.answer == ['+CREG: 2,1,"00DE","FD4F"']
    assert said.unsolicited == [('+CREG: 1,"00DE","FD4F"',), ("+CREG: 5",)]


# Codes of two lines.

CODES = [("+CMT: ,28", PDU), ("+CDS: 25", PDU), ("+CBM: 88", PDU), ('+CMT: "+39346",,"20/08/26,19:37:41+08"', "OK")]


@pytest.mark.parametrize("code", CODES)
def test_a_two_line_code_between_before_and_inside_answers(code: tuple[str, str]) -> None:
    framed = "\r\n{}\r\n{}\r\n".format(*code).encode()
    assert run(None, framed).unsolicited == [code]
    before = run("AT+CSQ", framed + b"\r\n+CSQ: 9,0\r\n\r\nOK\r\n")
    inside = run("AT+CSQ", b"\r\n+CSQ: 9,0\r\n" + framed + b"\r\nOK\r\n")
    for said in (before, inside):
        assert (said.answer, said.unsolicited, said.final) == (["+CSQ: 9,0"], [code], "OK")
    listing = run(
        "AT+CMGL=4",
        f"\r\n+CMGL: 1,1,,28\r\n{PDU}\r\n".encode() + framed + f"+CMGL: 2,1,,28\r\n{PDU}\r\n\r\nOK\r\n".encode(),
    )
    assert listing.answer == ["+CMGL: 1,1,,28", PDU, "+CMGL: 2,1,,28", PDU]
    assert listing.unsolicited == [code]


def test_a_two_line_code_that_straddles_the_end_of_a_command() -> None:
    sorter = sorter_of("AT+CSQ")
    assert sorter.feed(Line("OK", lead=True)) == [Ended(OK, lead=True)]
    assert sorter.running is None
    assert sorter.feed(Line("+CMT: ,28", lead=True)) == []
    sorter.running = Exchange(parse("AT+CSQ"))
    assert sorter.feed(Line(PDU)) == [Unsolicited(("+CMT: ,28", PDU))]


def test_a_two_line_code_with_an_empty_text_takes_nothing_with_it() -> None:
    header = '+CMT: "+39346",,"20/08/26,19:37:41+08"'
    said = run("AT+CSQ", f"\r\n{header}\r\n\r\n\r\nOK\r\n".encode())
    assert (said.unsolicited, said.final) == ([(header,)], "OK")
    twice = run(None, f"\r\n{header}\r\n\r\n\r\n+CMT: ,28\r\n{PDU}\r\n".encode())
    assert twice.unsolicited == [(header,), ("+CMT: ,28", PDU)]


def test_reset_forgets_a_header_and_the_command() -> None:
    sorter = sorter_of("AT+CSQ")
    sorter.feed(Line("+CMT: ,28"))
    sorter.reset()
    assert sorter.running is None
    assert sorter.feed(Line("RING")) == [Unsolicited(("RING",))]


@pytest.mark.parametrize("token", [TEXT, COUNTED, Quiet()])
def test_prompts_and_silence_mean_nothing_while_nothing_runs(token: Token) -> None:
    assert Sorter().feed(token) == []


# Text that a stranger wrote.

HEADERS = [
    ('AT+CMGL="ALL"', '+CMGL: 1,"REC UNREAD","+39346","","20/08/26,19:37:41+08"'),
    ("AT+CMGR=1", '+CMGR: "REC READ","+39346","","20/08/26,19:37:41+08"'),
    ("AT+CMGF=1;+CMGR=1", '+CMGR: "REC READ","+39346","","20/08/26,19:37:41+08"'),
    ("AT#SRECV=1,100", "#SRECV: 1,100"),
]


@pytest.mark.parametrize(("command", "header"), HEADERS)
@pytest.mark.parametrize(
    "text",
    [
        "OK",
        "Hi\nOK",
        "\nOK",
        "\r\nOK\r\n",
        "Hi\r\n\r\nOK\r\n\r\n+CMT: ,28\r\n" + PDU,
        '\n+CME ERROR: 3\n+CMTI: "SM",1',
        "RING\nNO CARRIER",
        "+CREG: 1",
        "+CMGL: 2,1,,28\nOK\n+CMT: ,28\n" + PDU,
        "ERROR\nERROR\nOK",
        "> OK\n> ",
        "AT+CMGR=1",
        "0",
    ],
)
def test_a_text_can_not_end_the_answer_or_start_a_code(command: str, header: str, text: str) -> None:
    data = f"\r\n{header}\r\n{text}\r\n\r\nOK\r\n\r\n+CREG: 1\r\n".encode()
    said = run(command, data)
    assert said.answer == [header, *[line.strip("\r") for line in text.split("\n") if line.strip("\r")]]
    assert (said.final, said.unsolicited) == ("OK", [("+CREG: 1",)])
    assert said.rest == []


@pytest.mark.parametrize(("command", "header"), HEADERS)
def test_an_empty_text(command: str, header: str) -> None:
    said = run(command, f"\r\n{header}\r\n\r\n\r\nOK\r\n".encode())
    assert (said.answer, said.final) == ([header], "OK")


def test_file_contents_are_text_too() -> None:
    said = run('AT#RSCRIPT="a.py"', b"\r\n<<<print('x')\r\nOK\r\n\r\nOK\r\n")
    assert (said.answer, said.final) == (["<<<print('x')", "OK"], "OK")


@pytest.mark.parametrize(
    ("command", "lines"),
    [
        ("AT+CMGL=4", ["+CMGL: 1,1,,28", PDU, '+CMGL: 2,0,"",28', PDU]),
        ("AT+CMGR=1", ['+CMGR: 0,"",50', PDU]),
        ("AT+CMGR=9", ["+CMGR: 0,,0"]),
    ],
)
def test_a_listing_in_pdu_mode_ends_without_waiting(command: str, lines: list[str]) -> None:
    said = run(command, ("\r\n" + "\r\n".join(lines) + "\r\n\r\nOK\r\n").encode(), quiet=False)
    assert (said.answer, said.final) == (lines, "OK")


def test_what_follows_a_final_in_the_same_breath_is_held_until_silence() -> None:
    sorter = sorter_of("AT+CMGR=1")
    sorter.feed(Line(HEADERS[1][1], lead=True))
    assert sorter.feed(Quiet()) == [], "the text is still to come"
    assert sorter.feed(Line("Hi")) == [Answered(Line("Hi"))]
    assert sorter.feed(Line("OK", lead=True)) == []
    assert sorter.feed(Line("+CMT: ,28", lead=True)) == []
    assert sorter.feed(Line(PDU)) == []
    assert sorter.feed(Quiet()) == [Ended(OK, lead=True), Unsolicited(("+CMT: ,28", PDU))]
    assert sorter.running is None


def test_more_than_can_be_held_was_text() -> None:
    exchange = Exchange(parse("AT+CMGR=1"))
    exchange.feed(Line(HEADERS[1][1]))
    lines = [Line("OK"), *(Line(str(number)) for number in range(HELD_MAX))]
    told = [happening for line in lines for happening in exchange.feed(line)]
    assert told == [Answered(line) for line in lines]
    assert exchange.feed(Quiet()) == []
    assert exchange.state is State.SENT


def test_a_text_can_not_open_a_prompt() -> None:
    """Data sent into an answer that then fails would be run as a command line."""
    said = run('AT+CMGR=1;+CMGS="1"', f"\r\n{HEADERS[1][1]}\r\n> x\r\n\r\nERROR\r\n".encode(), prompt=PromptKind.TEXT)
    assert said.rest == [Send(ESC)]
    assert said.finals[0].left


def test_a_text_that_is_left_still_ends_with_silence() -> None:
    exchange = Exchange(parse("AT+CMGR=1"))
    exchange.feed(Line(HEADERS[1][1]))
    exchange.give_up()
    assert exchange.feed(Line("OK")) == []
    assert exchange.feed(Line("OK")) == []
    (ended,) = exchange.feed(Quiet())
    assert isinstance(ended, Ended)
    assert ended.left
    assert exchange.behind == ()


# Prompts.


def test_an_expected_prompt_and_its_answer() -> None:
    exchange = Exchange(parse("AT+CMGS=28"), PromptKind.TEXT)
    assert exchange.feed(TEXT) == [Prompted(PromptKind.TEXT)]
    assert exchange.state is State.PROMPTED
    exchange.data_ended()
    assert exchange.feed(Line("+CREG: 1", lead=True)) == [Unsolicited(("+CREG: 1",))]
    assert exchange.feed(Line("+CMGS: 5", lead=True)) == [Answered(Line("+CMGS: 5", lead=True))]
    assert exchange.feed(Line("OK", lead=True)) == [Ended(OK, lead=True)]


@pytest.mark.parametrize("ready_for", [None, PromptKind.TEXT, PromptKind.COUNTED])
@pytest.mark.parametrize("prompt", [TEXT, COUNTED])
def test_a_prompt_that_nobody_can_answer_is_left(prompt: Prompt, ready_for: PromptKind | None) -> None:
    exchange = Exchange(parse("AT+CMGS=28"), ready_for)
    if prompt.kind is ready_for:
        assert exchange.feed(prompt) == [Prompted(prompt.kind)]
        return
    assert exchange.feed(prompt) == [Send(ESC)]
    assert exchange.feed(Line("RING")) == [Unsolicited(("RING",))]
    assert exchange.feed(Line("+CMGS: 5")) == []
    assert exchange.feed(prompt) == [Send(ESC)]
    (ended,) = exchange.feed(Line("OK"))
    assert isinstance(ended, Ended)
    assert (ended.left, ended.final.kind, exchange.state) == (True, FinalKind.ERROR, State.ENDED)


def test_a_text_of_several_lines_is_asked_for_line_by_line() -> None:
    """LE910Cx AT commands, +CMGS: behind every CR that is typed the prompt comes again, also after the end."""
    exchange = Exchange(parse('AT+CMGS="1"'), PromptKind.TEXT)
    exchange.feed(TEXT)
    assert exchange.feed(TEXT) == []
    assert exchange.feed(Line("> ", lead=True)) == []
    exchange.data_ended()
    assert exchange.feed(Line("> ", lead=True)) == []
    assert exchange.feed(TEXT) == []
    assert exchange.state is State.FED
    assert exchange.feed(Line("+CMGS: 5", lead=True)) == [Answered(Line("+CMGS: 5", lead=True))]


def test_what_is_asked_for_of_one_who_types() -> None:
    exchange = Exchange(parse('AT+CMGS="1"'), is_fed=True)
    assert exchange.feed(TEXT) == [Prompted(PromptKind.TEXT)]
    assert exchange.longest == USUAL
    again = Prompted(PromptKind.TEXT, again=True)
    assert exchange.feed(TEXT) == [again]
    assert exchange.feed(Line("> ", lead=True)) == [again]
    exchange.gave(7)
    exchange.data_ended()
    assert exchange.longest == LONGEST["+CMGS"]
    assert exchange.feed(TEXT) == [again]
    assert exchange.feed(Line("OK", lead=True)) == [Ended(OK, lead=True)]


@pytest.mark.parametrize("prompt", [TEXT, COUNTED])
def test_counted_data_of_one_who_types(prompt: Prompt) -> None:
    exchange = Exchange(parse("AT#SSENDEXT=1,60000"), is_fed=True)
    assert exchange.feed(prompt) == [Prompted(prompt.kind, 60_000)]
    assert exchange.counted
    exchange.gave(60_000)
    exchange.data_ended()
    assert exchange.give_up() == [], "no zero bytes any more"


def test_a_text_that_is_given_up_ends_with_an_error() -> None:
    """REQ-6: the OK that ESC is answered with is none."""
    exchange = Exchange(parse('AT+CMGS="1"'), is_fed=True)
    exchange.feed(TEXT)
    assert exchange.give_up() == [Send(ESC)]
    (ended,) = exchange.feed(Line("OK"))
    assert isinstance(ended, Ended)
    assert (ended.why, ended.final.ok) == (Why.GIVEN_UP, False)


def test_counted_data_that_are_given_up_are_filled_up() -> None:
    exchange = Exchange(parse('AT#WSCRIPT="a",60000'), is_fed=True)
    exchange.feed(COUNTED)
    exchange.gave(10_000)
    assert exchange.give_up() == [Fill(50_000)]
    exchange.gave(20_000)
    assert exchange.give_up() == [Fill(30_000)], "whoever filled it went away too"
    assert not exchange.stands
    (ended,) = exchange.feed(Line("OK"))
    assert isinstance(ended, Ended)
    assert (ended.why, ended.filled) == (Why.GIVEN_UP, 50_000)


def test_filling_a_prompt_goes_on_where_it_was_left() -> None:
    exchange = Exchange(parse("AT#SSENDEXT=1,500"))
    assert exchange.feed(TEXT) == [Fill(500)]
    exchange.gave(200)
    assert exchange.give_up() == [Fill(300)]
    exchange.gave(300)
    assert exchange.give_up() == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("AT#UNKNOWN=1", [Send(ESC)]),
        ("AT#SSENDEXT=1,05", [Stand()]),
        ('AT+CSQ;+CMGS="1"', [Send(ESC)]),
        ("AT", [Send(ESC)]),
    ],
)
def test_one_who_types_is_not_asked_where_the_end_is_not_known(line: str, said: list[Happening]) -> None:
    assert Exchange(parse(line), is_fed=True).feed(TEXT) == said


def test_a_second_commands_prompt_is_left() -> None:
    exchange = Exchange(parse('AT+CMGS="1";+CMGS="2"'), PromptKind.TEXT)
    exchange.feed(TEXT)
    exchange.data_ended()
    assert exchange.feed(TEXT) == [Send(ESC)]
    assert exchange.state is State.LEAVING


def test_an_error_at_the_prompt() -> None:
    exchange = Exchange(parse("AT+CMGS=28"), PromptKind.TEXT)
    exchange.feed(TEXT)
    (ended,) = exchange.feed(Line("+CMS ERROR: 304"))
    assert isinstance(ended, Ended)
    assert (ended.final.code, ended.left) == (304, False)


@pytest.mark.parametrize("prompt", [TEXT, COUNTED])
@pytest.mark.parametrize("fed", [False, True])
def test_a_counted_prompt_is_filled_for_esc_is_data_there(prompt: Prompt, fed: bool) -> None:  # noqa: FBT001 - a parameter
    exchange = Exchange(parse("AT+CSQ;#SSENDEXT=1,5"), PromptKind.TEXT if fed else None)
    if fed:
        exchange.state = State.FED
    assert exchange.feed(prompt) == [Fill(5)]
    assert exchange.counted
    assert not exchange.stands
    assert exchange.feed(prompt) == []
    assert exchange.feed(TEXT) == []
    (ended,) = exchange.feed(Line("OK"))
    assert isinstance(ended, Ended)
    assert (ended.left, ended.why, ended.filled, ended.final.ok) == (True, Why.COUNT, 5, False)


@pytest.mark.parametrize("line", ["AT#UNKNOWN=1", "AT#SSENDEXT=1,x", "AT#SSENDEXT=1,5;#SSENDEXT=1,6"])
def test_a_prompt_for_nobody_knows_how_many_bytes_is_sent_nothing(line: str) -> None:
    exchange = Exchange(parse(line))
    assert exchange.feed(COUNTED) == [Stand()]
    assert exchange.stands
    assert exchange.feed(COUNTED) == []
    assert exchange.give_up() == []
    assert exchange.feed(TEXT) == []
    (ended,) = exchange.feed(Line("ERROR"))
    assert isinstance(ended, Ended)
    assert (ended.why, ended.filled) == (Why.COUNT, 0)
    assert not exchange.stands


@pytest.mark.parametrize(("prompt", "why"), [("> ", Why.PROMPT), (">>>", Why.COUNT)])
def test_a_result_behind_a_prompt_that_nobody_answered_is_not_the_commands(prompt: str, why: Why) -> None:
    """The prompt was there first, and took the command for its data."""
    for command in ("AT+CGMI", "AT"):
        for echo in ("", f"{command}\r"):
            said = run(command, f"\r\n{prompt}{echo}\r\nOK\r\n".encode())
            assert (said.unsolicited, said.answer) == ([(prompt,)], [])
            assert (said.finals[0].why, said.finals[0].final.ok) == (why, False)


def test_a_counted_prompt_behind_the_deadline_is_filled_too() -> None:
    exchange = Exchange(parse("AT#SSENDEXT=1,5"))
    exchange.give_up()
    assert exchange.feed(TEXT) == [Fill(5)]
    (ended,) = exchange.feed(Line("OK"))
    assert isinstance(ended, Ended)
    assert ended.why is Why.GIVEN_UP


def test_a_command_takes_long_only_once_it_has_its_data() -> None:
    exchange = Exchange(parse("AT+CMGS=28"), PromptKind.TEXT)
    assert exchange.longest == USUAL
    exchange.feed(TEXT)
    assert exchange.longest == USUAL
    exchange.data_ended()
    assert exchange.longest == LONGEST["+CMGS"]
    assert Exchange(parse("AT+CMGS=28")).longest == LONGEST["+CMGS"]


# Data mode.


@pytest.mark.parametrize("words", ["CONNECT", "CONNECT 9600"])
@pytest.mark.parametrize("given_up", [False, True])
def test_a_connect_ends_a_call_with_an_error(words: str, given_up: bool) -> None:  # noqa: FBT001 - a parameter
    exchange = Exchange(parse("ATD123"))
    if given_up:
        exchange.give_up()
    (ended,) = exchange.feed(Line(words))
    assert isinstance(ended, Ended)
    assert (ended.left, ended.why, ended.final.kind) == (True, Why.DATA_MODE, FinalKind.ERROR)


def test_a_connect_behind_a_text_is_believed_when_silence_follows() -> None:
    exchange = Exchange(parse("AT+CMGR=1;D123"))
    exchange.feed(Line(HEADERS[1][1]))
    assert exchange.feed(Line("CONNECT")) == []
    (ended,) = exchange.feed(Quiet())
    assert isinstance(ended, Ended)
    assert ended.why is Why.DATA_MODE


@pytest.mark.parametrize("state", [State.SENT, State.PROMPTED, State.FED, State.LEAVING])
def test_data_mode_can_come_over_any_command(state: State) -> None:
    sorter = sorter_of("AT+CSQ")
    exchange = sorter.running
    assert exchange is not None
    exchange.state = state
    sorter.feed(Line("+CMT: ,28"))
    (ended,) = sorter.connected()
    assert isinstance(ended, Ended)
    assert ended.why is Why.DATA_MODE
    assert sorter.running is None
    assert sorter.connected() == []
    assert sorter.feed(Line("RING")) == [Unsolicited(("RING",))]


# Giving up.


@pytest.mark.parametrize(
    ("command", "sent"),
    [("AT+COPS=?", [Send(ABORT)]), ("AT+CSQ;#CSURV", [Send(ABORT)]), ("ATD123;", [Send(ABORT)]), ("AT+CSQ", [])],
)
def test_only_what_a_character_aborts_is_sent_one(command: str, sent: list[Happening]) -> None:
    exchange = Exchange(parse(command))
    assert exchange.give_up() == sent
    assert exchange.give_up() == []
    (ended,) = exchange.feed(Line("OK"))
    assert isinstance(ended, Ended)
    assert ended.left


def test_a_prompt_is_given_up_by_esc_whose_ok_is_an_error() -> None:
    exchange = Exchange(parse("AT+CMGS=28"), PromptKind.TEXT)
    exchange.feed(TEXT)
    assert exchange.give_up() == [Send(ESC)]
    (ended,) = exchange.feed(Line("OK"))
    assert isinstance(ended, Ended)
    assert (ended.final.kind, ended.left) == (FinalKind.ERROR, True)


# The table.


def test_every_state_has_a_row_and_every_state_is_reached() -> None:
    assert set(TRANSITIONS) == set(State)
    reached, todo = {State.SENT}, [State.SENT]
    while todo:
        new = {to.state for to in TRANSITIONS[todo.pop()].values()} - reached
        reached |= new
        todo += new
    assert reached == set(State)


def test_every_state_leads_to_the_end() -> None:
    leads = {State.ENDED}
    for _ in State:
        leads |= {state for state, row in TRANSITIONS.items() if any(to.state in leads for to in row.values())}
    assert leads == set(State)


def test_every_live_state_takes_whatever_a_module_says() -> None:
    for state in set(State) - {State.ENDED}:
        assert TRANSITIONS[state].keys() >= {Event.ANSWER, Event.FINAL, Event.GIVE_UP}
    tokens: list[Token] = [TEXT, COUNTED, Quiet(), Line("OK"), Line("x"), Line("> "), Line("RING")]
    live = set(State) - {State.ENDED}
    for token, state, line in itertools.product(tokens, live, ("AT+CSQ", "AT", "AT+CMGS=1;+CMGS=2")):
        exchange = Exchange(parse(line), PromptKind.TEXT)
        exchange.state = state
        exchange.feed(token)


@pytest.mark.parametrize(
    ("state", "event"), [(state, event) for state in State for event in Event if event not in TRANSITIONS[state]]
)
def test_an_impossible_pair_raises_and_changes_nothing(state: State, event: Event) -> None:
    exchange = Exchange(parse("AT+CSQ"))
    exchange.state = state
    with pytest.raises(IllegalTransition, match=f"{event.value} while {state.value}"):
        exchange._step(event)
    assert exchange.state is state


def test_an_end_is_final() -> None:
    exchange = Exchange(parse("AT+CSQ"))
    exchange.feed(Line("OK"))
    for token in (Line("OK"), Line("+CSQ: 1"), TEXT):
        with pytest.raises(IllegalTransition):
            exchange.feed(token)
    with pytest.raises(IllegalTransition):
        exchange.give_up()
    with pytest.raises(IllegalTransition):
        exchange.data_ended()
    assert exchange.state is State.ENDED


COMMANDS = [
    "AT",
    "AT+CSQ",
    "AT+CREG?",
    "AT+CREG=1",
    'AT+CMGL="ALL"',
    "AT+CMGR=1",
    "AT#SD=1,0,80,a",
    "AT+CMGS=1;+CMGS=2",
]
LINES = [
    *("OK", "ERROR", "+CME ERROR: 3", "NO CARRIER", "CONNECT", "RING", "0", "> ", "x", "+CREG:", "+CREG: 1"),
    *("+CREG: 0,1", "+CSQ: 9,0", "+CMT: ,28", "+CDS: 25", PDU, *(header for _, header in HEADERS), *COMMANDS),
]


class Port(RuleBasedStateMachine):
    """A module that says anything in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.sorter = Sorter()
        self.exchange: Exchange | None = None
        self.ended = 0

    def inside(self) -> list[str]:
        """What was fed and is still to come out, in order."""
        header = [] if self.sorter._header is None else [self.sorter._header]
        running = self.sorter.running
        return header + ([] if running is None else [line.text for line in running._held])

    def take(self, fed: list[str], droppable: bool, told: list[Happening], before: list[str]) -> None:  # noqa: FBT001 - a fact
        """Hold what came out, and what stays in, against what went in."""
        out: list[str | None] = []
        for happening in told:
            match happening:
                case Answered(line):
                    out.append(line.text)
                case Unsolicited(lines):
                    out += lines
                case Ended():
                    self.ended += 1
                    out.append(None)  # a final in its verbose words, or a refusal in its place
        left = out + self.inside()
        expected = before + fed
        if not (droppable and len(left) < len(expected)):
            assert [mine if came is not None else None for mine, came in zip(expected, left, strict=True)] == left

    @rule(command=st.sampled_from(COMMANDS), prompt=st.sampled_from([None, *PromptKind]))
    @precondition(lambda self: self.sorter.running is None)
    def start(self, command: str, prompt: PromptKind | None) -> None:
        self.exchange = self.sorter.running = Exchange(parse(command), prompt)
        self.ended = 0

    @rule(text=st.sampled_from(LINES), lead=st.booleans())
    def line(self, text: str, lead: bool) -> None:  # noqa: FBT001 - drawn
        running = self.sorter.running
        droppable = running is not None and (
            running.state is State.LEAVING
            or text == running.text
            or (text == "> " and running.state in {State.PROMPTED, State.FED})
        )
        before = self.inside()
        self.take([text], droppable, self.sorter.feed(Line(text, lead)), before)

    @rule(token=st.sampled_from([TEXT, COUNTED, Quiet()]))
    def no_line(self, token: Token) -> None:
        before = self.inside()
        self.take([], False, self.sorter.feed(token), before)

    @rule()
    @precondition(lambda self: self.sorter.running is not None and self.sorter.running.state is State.PROMPTED)
    def data_ended(self) -> None:
        assert self.exchange is not None
        self.exchange.data_ended()
        assert self.exchange.state is State.FED

    @rule()
    @precondition(lambda self: self.sorter.running is not None)
    def give_up(self) -> None:
        assert self.exchange is not None
        assert {type(happening) for happening in self.exchange.give_up()} <= {Send}
        assert self.exchange.state is State.LEAVING

    @invariant()
    def a_command_ends_once_and_then_runs_no_more(self) -> None:
        if self.exchange is not None:
            over = self.exchange.state is State.ENDED
            assert self.ended == int(over)
            assert (self.sorter.running is None) == over

    @invariant()
    def what_is_held_has_a_cap(self) -> None:
        assert len(self.inside()) <= HELD_MAX + 1


TestPort = Port.TestCase


# Whose OK is it?


def test_an_ok_before_the_line_that_a_read_owes_counts_only_if_nothing_follows() -> None:
    late, line = Line("OK", lead=True), Line("+COPS: 0", lead=True)
    alone = Exchange(parse("AT+COPS?"))
    assert alone.feed(late) == []
    assert alone.feed(Quiet()) == [Ended(OK, lead=True)]
    followed = Exchange(parse("AT+COPS?"))
    assert followed.feed(late) == []
    assert followed.feed(line) == [Answered(line)]
    assert followed.feed(late) == [Ended(OK, lead=True)]


def test_an_error_ends_a_read_at_once() -> None:
    exchange = Exchange(parse("AT+COPS?"))
    assert [type(happening) for happening in exchange.feed(Line("ERROR", lead=True))] == [Ended]
