# SPDX-License-Identifier: Apache-2.0
"""One command line's life at the module, as a table; what of the module's output answers it and what is unsolicited.

Rules of this file: everything that decides whom a line belongs to is here; it knows neither ports nor clocks. A step is
`(state, event) -> (state, effects)`; a pair that is not in the table raises and changes nothing.

An answer may carry text that a stranger wrote: an SMS listed in text mode, data of a socket. Such a text can hold `OK`,
a code with its PDU, a prompt. So from where it begins all lines are the answer's, and a final result is believed when
silence follows.
"""

import enum
from dataclasses import dataclass
from typing import Final

from atrund.at.reader import Line, Prompt, PromptKind, Quiet, Token
from atrund.at.results import ERROR, Information, classify, classify_numeric, information
from atrund.at.results import Final as FinalResult
from atrund.at.syntax import Command, Op, unparse
from atrund.at.times import is_abortable


class State(enum.Enum):
    """Where a command line is."""

    SENT = "sent"
    PROMPTED = "prompted"
    FED = "fed"
    LEAVING = "leaving"
    ENDED = "ended"


class Event(enum.Enum):
    """What can happen to it."""

    ANSWER = "answer line"
    FINAL = "final result"
    PROMPT = "prompt"
    REPEATED_PROMPT = "prompt for more of the same data"
    UNEXPECTED_PROMPT = "unexpected prompt"
    DATA_ENDED = "data ended"
    GIVE_UP = "give up"


class Effect(enum.Enum):
    """What its owner is to do."""

    PASS_LINE = "pass the line on"
    PASS_FINAL = "pass the final result on"
    ASK_FOR_DATA = "ask for the prompt's data"
    SEND_ESC = "send ESC"
    SEND_ABORT = "send the aborting character"
    DROP = "drop what came"
    PASS_REFUSAL = "answer with an error"


@dataclass(frozen=True, slots=True)
class To:
    """A row's right side."""

    state: State
    effects: tuple[Effect, ...] = ()


TRANSITIONS: Final[dict[State, dict[Event, To]]] = {
    State.SENT: {
        Event.ANSWER: To(State.SENT, (Effect.PASS_LINE,)),
        Event.FINAL: To(State.ENDED, (Effect.PASS_FINAL,)),
        Event.PROMPT: To(State.PROMPTED, (Effect.ASK_FOR_DATA,)),
        Event.UNEXPECTED_PROMPT: To(State.LEAVING, (Effect.SEND_ESC,)),
        Event.GIVE_UP: To(State.LEAVING, (Effect.SEND_ABORT,)),
    },
    State.PROMPTED: {
        Event.ANSWER: To(State.PROMPTED, (Effect.PASS_LINE,)),
        Event.FINAL: To(State.ENDED, (Effect.PASS_FINAL,)),
        Event.REPEATED_PROMPT: To(State.PROMPTED, (Effect.DROP,)),
        Event.DATA_ENDED: To(State.FED),
        Event.GIVE_UP: To(State.LEAVING, (Effect.SEND_ESC,)),
    },
    State.FED: {
        Event.ANSWER: To(State.FED, (Effect.PASS_LINE,)),
        Event.FINAL: To(State.ENDED, (Effect.PASS_FINAL,)),
        Event.REPEATED_PROMPT: To(State.FED, (Effect.DROP,)),
        Event.UNEXPECTED_PROMPT: To(State.LEAVING, (Effect.SEND_ESC,)),
        Event.GIVE_UP: To(State.LEAVING, (Effect.SEND_ABORT,)),
    },
    State.LEAVING: {
        Event.ANSWER: To(State.LEAVING, (Effect.DROP,)),
        Event.FINAL: To(State.ENDED, (Effect.PASS_REFUSAL,)),
        Event.UNEXPECTED_PROMPT: To(State.LEAVING, (Effect.SEND_ESC,)),
        Event.GIVE_UP: To(State.LEAVING),
    },
    State.ENDED: {},
}


class IllegalTransition(RuntimeError):
    """An event that cannot happen in a state; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A line of the answer."""

    line: Line


@dataclass(frozen=True, slots=True)
class Unsolicited:
    """An unsolicited code: one line, or two for the codes that carry a PDU or text behind them (+CMT, +CDS, +CBM)."""

    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Prompted:
    """The module waits for the data of this command."""

    kind: PromptKind


@dataclass(frozen=True, slots=True)
class Ended:
    """The command line is over. `left`: a prompt or a deadline made us leave it, so `final` is not its result."""

    final: FinalResult
    lead: bool
    left: bool = False


@dataclass(frozen=True, slots=True)
class Send:
    """These bytes are to go to the module now."""

    data: bytes


Happening = Answered | Unsolicited | Prompted | Ended | Send

CTRL_Z: Final = b"\x1a"
ESC: Final = b"\x1b"
ABORT: Final = b"\r"
"""Any character aborts an abortable command (V.250 5.6.1); CR begins no command of its own."""


class Exchange:
    """What one command line gets back. Feed it the reader's tokens in order while it holds the port."""

    def __init__(self, commands: tuple[Command, ...], prompt: PromptKind | None = None) -> None:
        """`prompt`: the kind that the caller can answer, or None when any prompt is to be left."""
        self.state = State.SENT
        self.text = unparse(commands)
        self._commands = commands
        self._prompt = prompt
        self._names = [
            (name, command) for command in commands for name in (command.name, _OTHER_NAMES.get(command.name))
        ]
        self._lists_all = any(command.name in _LISTINGS for command in commands)
        self._calls = any(command.name in CALL_COMMANDS for command in commands)
        self._bare = any(_says_bare_lines(command) for command in commands)
        self._abortable = is_abortable(commands)
        self._echo_due = True
        self._after_echo = False
        self._in_text = False
        self._held: list[Line] = []
        self._owes_a_line = any(command.extended and command.op is Op.READ for command in commands)
        self._doubted: Line | None = None

    @property
    def behind(self) -> tuple[Line, ...]:
        """Once it has ended: the lines that came behind the final result before silence proved it one. Not its own."""
        return tuple(self._held[1:])

    def feed(self, token: Token) -> list[Happening]:
        """Return what one token means, in order. After `Ended` nothing may be fed any more."""
        if isinstance(token, Quiet):
            return self._end_text()
        if isinstance(token, Prompt):
            return self._step(self._prompt_event(token.kind), Prompted(token.kind))
        line = Line(token.text, token.lead or self._after_echo, token.cut)
        self._after_echo = False
        if self._in_text:
            return self._text_line(line)
        if self._echo_due and line.text == self.text:
            self._echo_due = False
            self._after_echo = True
            return []
        if (final := self._final(line.text)) is not None:
            if final.ok and self._owes_a_line and self._doubted is None:
                self._doubted = line  # perhaps an earlier command's, come late: it counts if nothing follows
                return []
            return self._step(Event.FINAL, Ended(final, line.lead))
        if self.state in _AT_DATA and line.text == _TEXT_PROMPT:
            return self._step(Event.REPEATED_PROMPT)
        if not self._answers(line.text):
            return [Unsolicited((line.text,))]
        self._echo_due = self._owes_a_line = False
        self._in_text = _begins_text(line.text)
        return self._step(Event.ANSWER, Answered(line))

    def data_ended(self) -> None:
        """Say that the prompt's data went out whole."""
        self._step(Event.DATA_ENDED)

    def give_up(self) -> list[Happening]:
        """Leave the command: its deadline passed or its asker went away. The port is then brought back in step."""
        said = self._step(Event.GIVE_UP)
        return said if self._abortable else [one for one in said if one != Send(ABORT)]

    def _step(self, event: Event, *passed: Happening) -> list[Happening]:
        to = TRANSITIONS[self.state].get(event)
        if to is None:
            raise IllegalTransition(f"{event.value} while {self.state.value}")
        self.state = to.state
        return [happening for effect in to.effects for happening in _SAID.get(effect, passed)]

    def _prompt_event(self, kind: PromptKind) -> Event:
        """A module asks for each further line of a text anew (LE910Cx AT commands, +CMGS), late ones included."""
        if self.state is State.PROMPTED or (self.state is State.FED and len(self._commands) == 1):
            return Event.REPEATED_PROMPT
        believed = self.state is State.SENT and kind is self._prompt and not self._in_text
        return Event.PROMPT if believed else Event.UNEXPECTED_PROMPT

    def _text_line(self, line: Line) -> list[Happening]:
        """A line while somebody's text may go on: from the last that looks like a final result on, they are held."""
        if self._final(line.text) is not None:
            told = self._release()
            self._held = [line]
            return told
        if not self._held:
            return self._step(Event.ANSWER, Answered(line))
        self._held.append(line)
        return self._release() if len(self._held) > HELD_MAX else []

    def _release(self) -> list[Happening]:
        """Take what was held for text after all."""
        held, self._held = self._held, []
        return [happening for line in held for happening in self._step(Event.ANSWER, Answered(line))]

    def _end_text(self) -> list[Happening]:
        """Silence: what looked like a final result last was it."""
        last = self._held[0] if self._held else self._doubted
        final = self._final(last.text) if last is not None else None
        return [] if last is None or final is None else self._step(Event.FINAL, Ended(final, last.lead))

    def _final(self, text: str) -> FinalResult | None:
        final = classify(text)
        if final is None and not self._bare:  # a lone digit is a V0 result where no information text could be one
            final = classify_numeric(text)
        if final is None or (final.kind.of_a_call and not self._calls):
            return None
        return final

    def _answers(self, text: str) -> bool:
        """Whether a line that is no final belongs to the answer (REQ-5)."""
        found = information(text)
        if found is None:
            return self._bare and not (text in _BARE_CODES or text.startswith(_BARE_PREFIXES) or classify(text))
        if self._lists_all:
            return found.name not in _NEVER_AN_ANSWER
        return any(found.name == name and not _has_unsolicited_shape(found, command) for name, command in self._names)


class Sorter:
    """All that a port says, in order: gives a running command its own, and keeps two-line codes together (REQ-5)."""

    def __init__(self) -> None:
        self.running: Exchange | None = None
        self._header: str | None = None

    def feed(self, token: Token) -> list[Happening]:
        """Return what one token means; a prompt or silence while nothing runs means nothing."""
        if isinstance(token, Line) and self._header is not None:
            header, self._header = self._header, None
            if not token.lead:
                return [Unsolicited((header, token.text))]
            return [Unsolicited((header,)), *self.feed(token)]
        running = self.running
        if running is None:
            found: list[Happening] = [Unsolicited((token.text,))] if isinstance(token, Line) else []
        else:
            found = running.feed(token)
            if running.state is State.ENDED:
                self.running = None
                return found + [happening for line in running.behind for happening in self.feed(line)]
        if len(found) == 1 and isinstance(found[0], Unsolicited):
            return self._hold_header(found[0])
        return found

    def reset(self) -> None:
        """Forget a header whose second line never came, and whatever ran."""
        self.running = None
        self._header = None

    def _hold_header(self, code: Unsolicited) -> list[Happening]:
        found = information(code.lines[0])
        if found is None or found.name not in TWO_LINE_CODES:
            return [code]
        self._header = code.lines[0]
        return []


HELD_MAX: Final = 100
"""Lines held behind what may be a final result: more non-empty ones than the 160 characters of a message make."""

TWO_LINE_CODES: Final = frozenset({"+CMT", "+CDS", "+CBM"})
"""Unsolicited codes with a PDU or text line behind them (TS 27.005 3.4.1); in text mode too, where a text of several
lines can pass for anything behind its first: only PDU mode makes these codes safe."""

CALL_COMMANDS: Final = frozenset(
    {"D", "A", "O", "+CGDATA", "#SD", "#SO", "#SL", "#SA", "#SSLD", "#SSLO", "#SKTD", "#SKTOP", "#SKTL", "#FTPPUT"}
    | {"#FTPGET", "#FTPAPP", "#SGACT"}
)
"""Commands that may end with CONNECT, NO CARRIER, BUSY, NO ANSWER or NO DIALTONE."""


_AT_DATA: Final = frozenset({State.PROMPTED, State.FED})
_TEXT_PROMPT: Final = PromptKind.TEXT.value.decode("ascii")
_LISTINGS: Final = frozenset({"&V", "\\S", "+CLAC"})
_NEVER_AN_ANSWER: Final = TWO_LINE_CODES | {"+CMTI", "+CDSI", "+CBMI"}
_TALKATIVE: Final = frozenset({"I", "&V", "\\S", "&P", "D", "A", "O"})
_OTHER_NAMES: Final = {"#SGACT": "+IP", "#GPRS": "+IP", "+GSN": "+CGSN", "#TEMPMON": "#TEMPMEAS"}
"""Commands that also answer under another name."""


def _says_bare_lines(command: Command) -> bool:
    """Whether lines without the command's name can be its answer, as `Telit` is that of +CGMI."""
    return command.extended or command.name in _TALKATIVE or command.op is Op.READ


def _begins_text(text: str) -> bool:
    """Whether a line of an answer is the header of text from outside; a listing in PDU mode is not."""
    found = information(text)
    if found is None:
        return text.startswith("<<<")  # #RSCRIPT, #M2MREAD, #HTTPRCV
    status = _STATUS_PLACES.get(found.name)
    if status is None:
        return found.name in _WITH_DATA
    return not "".join(found.parameters[status : status + 1]).isdecimal()


_STATUS_PLACES: Final = {"+CMGL": 1, "+CMGR": 0}
"""Where a listing has the message's status: a number in PDU mode, a word in quotes in text mode (TS 27.005 3.4, 4)."""
_WITH_DATA: Final = frozenset({"#SRECV", "#SSLRECV", "#FTPRECV"})

_BARE_CODES: Final = frozenset({"RING", "SWREADY", "+PBREADY", "RDY", "SRING", "OVER-VOLTAGE"})
_BARE_PREFIXES: Final = ("NO CARRIER:", "SRING:", "SSLSRING:", "$GP", "$GN", "$GL")
"""Codes without a command's name: the socket's, and a receiver's sentences under $GPSNMUN (NMEA 0183)."""


def _has_unsolicited_shape(found: Information, command: Command) -> bool:
    """Whether a line under the running command's own name is yet the unsolicited form (TS 27.007 7.2 and others)."""
    shape = _SHAPES.get(found.name)
    if shape is None:
        return False
    if command.op is Op.SET and command.name not in _ASKED_BY_SET:
        return True
    parameters = found.parameters or ("",)
    if command.op is Op.TEST:
        return not parameters[0].startswith("(")
    return shape(parameters)


def _no_state_second(parameters: tuple[str, ...]) -> bool:
    """`+CREG: 1` and `+CREG: 1,"00DE",…` are codes; `+CREG: 2,1,…`, mode before state, answers the read form.

    An area code without quotes is four digits long, a state at most two.
    """
    return len(parameters) == 1 or not (parameters[1].isdecimal() and len(parameters[1]) <= 2)


def _no_number_first(parameters: tuple[str, ...]) -> bool:
    return not parameters[0].isdecimal()


def _more_than_one(parameters: tuple[str, ...]) -> bool:
    return len(parameters) > 1


_SHAPES: Final = {
    "+CREG": _no_state_second,
    "+CGREG": _no_state_second,
    "+CEREG": _no_state_second,
    "#QSS": _no_state_second,
    "#PSNT": _no_state_second,
    "+CLIP": _no_number_first,
    "+COLP": _no_number_first,
    "+CCWA": _no_number_first,
    "#NITZ": _no_number_first,
    "#JDR": _no_number_first,
    "#SMOV": _no_number_first,
    "+CUSD": _more_than_one,
}
"""Codes that are an answer and unsolicited under one name, and how the unsolicited form shows."""
_ASKED_BY_SET: Final = frozenset({"+CCWA"})
"""Of these, what a set form can ask (`+CCWA=,2`, TS 27.007 7.12); under any other their lines are unsolicited."""

_SAID: Final[dict[Effect, tuple[Happening, ...]]] = {
    Effect.SEND_ESC: (Send(ESC),),
    Effect.SEND_ABORT: (Send(ABORT),),
    Effect.PASS_REFUSAL: (Ended(ERROR, lead=True, left=True),),
    Effect.DROP: (),
}
"""What the effects say by themselves; the others pass on what came."""
