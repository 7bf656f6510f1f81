# SPDX-License-Identifier: Apache-2.0
"""One command line's life at the module, as a table; what of the module's output answers it and what is unsolicited.

Rules of this file: it knows neither ports nor clocks. A step is `(state, event) -> (state, effects)`; a pair that is
not in the table raises and changes nothing. What a line can be is in `belonging`; whether it is believed, here.

An answer may carry text that a stranger wrote: an SMS listed in text mode, data of a socket. Such a text can hold `OK`,
a code with its PDU, a prompt. So from where it begins all lines are the answer's, and a final result is believed when
silence follows.
"""

from dataclasses import dataclass
from typing import Final

from atrund.at.belonging import TWO_LINE_CODES, Belonging, begins_text
from atrund.at.prompts import count_of, is_counted, is_served, size_of
from atrund.at.reader import Line, Prompt, PromptKind, Quiet, Token
from atrund.at.results import ERROR, FinalKind, information
from atrund.at.results import Final as FinalResult
from atrund.at.syntax import Command, Op, unparse
from atrund.at.times import USUAL, is_abortable, longest
from atrund.table import To, Word, step


class State(Word):
    """Where a command line is."""

    SENT = "sent"
    PROMPTED = "prompted"
    FED = "fed"
    LEAVING = "leaving"
    ENDED = "ended"


class Event(Word):
    """What can happen to it."""

    ANSWER = "answer line"
    FINAL = "final result"
    PROMPT = "prompt"
    REPEATED_PROMPT = "prompt for more of the same data"
    UNEXPECTED_PROMPT = "unexpected prompt"
    SIZED_PROMPT = "unexpected prompt for so many bytes"
    BOUNDLESS_PROMPT = "unexpected prompt for nobody knows how many"
    PASSED_PROMPT = "unexpected prompt with something behind it"
    CONNECTED = "data mode"
    DATA_ENDED = "data ended"
    GIVE_UP = "give up"
    GIVE_UP_SHORT = "give up with bytes missing"


class Effect(Word):
    """What its owner is to do."""

    PASS_LINE = "pass the line on"
    PASS_FINAL = "pass the final result on"
    ASK_FOR_DATA = "ask for the prompt's data"
    SEND_ESC = "send ESC"
    FILL = "send zero bytes"
    STAND = "wait what the module does"
    SEND_ABORT = "send the aborting character"
    ASK_AGAIN = "ask for more of it"
    DROP = "drop what came"
    PASS_REFUSAL = "answer with an error"
    PASS_DATA_MODE = "answer with an error, and leave data mode"


# None of these is an answer, wherever the command is; the asker is told as soon as the port is free again.
_UNEXPECTED: Final = {
    Event.UNEXPECTED_PROMPT: To(State.LEAVING, (Effect.SEND_ESC,)),
    Event.SIZED_PROMPT: To(State.LEAVING, (Effect.FILL,)),
    Event.BOUNDLESS_PROMPT: To(State.LEAVING, (Effect.STAND,)),
}
_CONNECTED: Final = {Event.CONNECTED: To(State.ENDED, (Effect.PASS_DATA_MODE,))}

TRANSITIONS: Final[dict[State, dict[Event, To[State, Effect]]]] = {
    State.SENT: {
        Event.ANSWER: To(State.SENT, (Effect.PASS_LINE,)),
        Event.FINAL: To(State.ENDED, (Effect.PASS_FINAL,)),
        Event.PROMPT: To(State.PROMPTED, (Effect.ASK_FOR_DATA,)),
        Event.PASSED_PROMPT: To(State.LEAVING, (Effect.PASS_LINE,)),
        Event.GIVE_UP: To(State.LEAVING, (Effect.SEND_ABORT,)),
        **_UNEXPECTED,
        **_CONNECTED,
    },
    State.PROMPTED: {
        Event.ANSWER: To(State.PROMPTED, (Effect.PASS_LINE,)),
        Event.FINAL: To(State.ENDED, (Effect.PASS_FINAL,)),
        Event.REPEATED_PROMPT: To(State.PROMPTED, (Effect.ASK_AGAIN,)),
        Event.DATA_ENDED: To(State.FED),
        Event.GIVE_UP: To(State.LEAVING, (Effect.SEND_ESC,)),
        Event.GIVE_UP_SHORT: To(State.LEAVING, (Effect.FILL,)),
        **_CONNECTED,
    },
    State.FED: {
        Event.ANSWER: To(State.FED, (Effect.PASS_LINE,)),
        Event.FINAL: To(State.ENDED, (Effect.PASS_FINAL,)),
        Event.REPEATED_PROMPT: To(State.FED, (Effect.ASK_AGAIN,)),
        Event.GIVE_UP: To(State.LEAVING, (Effect.SEND_ABORT,)),
        **_UNEXPECTED,
        **_CONNECTED,
    },
    State.LEAVING: {
        Event.ANSWER: To(State.LEAVING, (Effect.DROP,)),
        Event.FINAL: To(State.ENDED, (Effect.PASS_REFUSAL,)),
        Event.REPEATED_PROMPT: To(State.LEAVING, (Effect.DROP,)),
        Event.GIVE_UP: To(State.LEAVING),
        Event.GIVE_UP_SHORT: To(State.LEAVING, (Effect.FILL,)),
        **_UNEXPECTED,
        **_CONNECTED,
    },
    State.ENDED: {},
}


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
    """The module waits for the data of this command: for `count` bytes, or until Ctrl-Z or ESC.

    `again`: for more of what it asked for already.
    """

    kind: PromptKind
    count: int | None = None
    again: bool = False


class Why(Word):
    """What made us leave a command line."""

    PROMPT = "it asked for a text"
    COUNT = "it asked for bytes by their count"
    DATA_MODE = "it turned the port into a data connection"
    GIVEN_UP = "its time was over, or its asker gone"


@dataclass(frozen=True, slots=True)
class Ended:
    """The command line is over. `why`: it was left, so `final` is not its result; `filled`: zero bytes that it got."""

    final: FinalResult
    lead: bool
    why: Why | None = None
    filled: int = 0

    @property
    def left(self) -> bool:
        """Whether it was left."""
        return self.why is not None


@dataclass(frozen=True, slots=True)
class Send:
    """These bytes are to go to the module now."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Fill:
    """So many zero bytes are to go to the module, for it takes nothing else before it has them."""

    count: int


@dataclass(frozen=True, slots=True)
class Stand:
    """The module waits for nobody knows how many bytes: whatever is sent is one of them, so nothing is."""


Happening = Answered | Unsolicited | Prompted | Ended | Send | Fill | Stand

CTRL_Z: Final = b"\x1a"
ESC: Final = b"\x1b"
ABORT: Final = b"\r"
"""Any character aborts an abortable command (V.250 5.6.1); CR begins no command of its own."""


class Exchange:
    """What one command line gets back. Feed it the reader's tokens in order while it holds the port."""

    def __init__(
        self, commands: tuple[Command, ...], prompt: PromptKind | None = None, *, is_fed: bool = False
    ) -> None:
        """`prompt`: the kind that the caller can answer at once, or None when any prompt is to be left.

        `is_fed`: the caller gives what a prompt asks for as it is typed, if it is a prompt whose end is known.
        """
        self.state = State.SENT
        self.text = unparse(commands)
        self.commands = commands
        self.counted = False
        """Whether the module may still wait for bytes by their count, of which ESC would be one."""
        self._why: Why | None = None
        self._filled = 0
        self._missing = 0
        self._is_fed = is_fed and len(commands) == 1 and is_served(commands[0])
        self._fed = False
        self._prompt = prompt
        self._belonging = Belonging(commands)
        self._abortable = is_abortable(commands)
        self._echo_due = True
        self._after_echo = False
        self._in_text = False
        self._held: list[Line] = []
        self._owes_a_line = any(command.extended and command.op is Op.READ for command in commands)
        self._doubted: Line | None = None

    @property
    def stands(self) -> bool:
        """Whether the module waits for nobody knows how many bytes."""
        return self.counted and not self._filled and self.state is State.LEAVING

    @property
    def behind(self) -> tuple[Line, ...]:
        """Once it has ended: the lines that came behind the final result before silence proved it one. Not its own."""
        return tuple(self._held[1:])

    def feed(self, token: Token) -> list[Happening]:
        """Return what one token means, in order. After `Ended` nothing may be fed any more."""
        if isinstance(token, Quiet):
            return self._end_text()
        if isinstance(token, Prompt):
            return self._prompted(token.kind)
        line = Line(token.text, token.lead or self._after_echo, token.cut)
        self._after_echo = False
        if self._in_text:
            return self._text_line(line)
        if self._echo_due and line.text == self.text:
            self._echo_due = False
            self._after_echo = True
            return []
        if (final := self._belonging.final(line.text)) is not None:
            if final.ok and self._owes_a_line and self._doubted is None:
                self._doubted = line  # perhaps an earlier command's, come late: it counts if nothing follows
                return []
            return self._end(final, line)
        if self.state in _AT_DATA and line.text in _PROMPTS:
            again = Prompted(_PROMPTS[line.text], self._missing or None, again=True)
            return self._step(Event.REPEATED_PROMPT, again)
        if self.state is State.SENT and (passed := self._passed(line.text)) is not None:
            # The command may have been taken for the prompt's data: what ends it now is not its own result.
            self._why = Why.COUNT if is_counted(self.commands, passed) else Why.PROMPT
            return self._step(Event.PASSED_PROMPT, Unsolicited((passed.value.decode("ascii"),)))
        if not self._belonging.answers(line.text):
            return [Unsolicited((line.text,))]
        self._echo_due = self._owes_a_line = False
        self._in_text = begins_text(line.text)
        return self._step(Event.ANSWER, Answered(line))

    def _passed(self, text: str) -> PromptKind | None:
        """Return the prompt that a line is, alone or with the echo of the command right behind it."""
        for prompt, kind in _PROMPTS.items():
            if text.startswith(prompt) and text in {prompt, prompt + self.text}:
                return kind
        return None

    @property
    def longest(self) -> float:
        """Seconds from its first byte that it may take. Before it has the data that it waits for, it does nothing."""
        waits = self._prompt is not None or self.state is State.PROMPTED
        return USUAL if waits and not self._fed else longest(self.commands)

    def gave(self, count: int) -> None:
        """Say that so many bytes went out to a counted prompt."""
        self._missing = max(0, self._missing - count)

    def data_ended(self) -> None:
        """Say that the prompt's data went out whole."""
        self._step(Event.DATA_ENDED)
        self._fed = True
        self.counted = False

    def give_up(self) -> list[Happening]:
        """Leave the command: its deadline passed or its asker went away. The port is then brought back in step."""
        self._why = self._why or Why.GIVEN_UP
        self._filled = self._filled or self._missing
        said = self._step(Event.GIVE_UP_SHORT if self._missing else Event.GIVE_UP)
        return said if self._abortable else [one for one in said if one != Send(ABORT)]

    def connected(self) -> list[Happening]:
        """Say that the port is in data mode."""
        return self._step(Event.CONNECTED)

    def _step(self, event: Event, *passed: Happening) -> list[Happening]:
        to = step(TRANSITIONS, self.state, event)
        self.state = to.state
        return [happening for effect in to.effects for happening in self._said(effect, passed)]

    def _said(self, effect: Effect, passed: tuple[Happening, ...]) -> tuple[Happening, ...]:
        """What an effect says by itself; the others pass on what came."""
        match effect:
            case Effect.FILL:
                return (Fill(self._missing),)
            case Effect.ASK_AGAIN:
                return passed if self._is_fed else ()
            case Effect.PASS_REFUSAL:
                return (Ended(ERROR, lead=True, why=self._why, filled=self._filled),)
            case _:
                return _SAID.get(effect, passed)

    def _end(self, final: FinalResult, line: Line) -> list[Happening]:
        """Nobody here can use a data connection, so CONNECT is none of a command's good ends (MOD-6)."""
        if final.kind is FinalKind.CONNECT:
            return self.connected()
        return self._step(Event.FINAL, Ended(final, line.lead))

    def _prompted(self, kind: PromptKind) -> list[Happening]:
        event = self._prompt_event(kind)
        prompt = Prompted(kind, self._missing or None, again=event is Event.REPEATED_PROMPT)
        return self._step(event, prompt)

    def _prompt_event(self, kind: PromptKind) -> Event:
        """A module asks for each further line of a text anew (LE910Cx AT commands, +CMGS), late ones included."""
        if self.state is State.PROMPTED or (self.state is State.FED and len(self.commands) == 1) or self.counted:
            return Event.REPEATED_PROMPT
        if self.state is State.SENT and kind is self._prompt and not self._in_text:
            return Event.PROMPT
        if self.state is State.SENT and self._is_fed:
            self._missing = size_of(self.commands[0]) or 0
            self.counted = self._missing > 0
            return Event.PROMPT
        self.counted = is_counted(self.commands, kind)
        self._why = self._why or (Why.COUNT if self.counted else Why.PROMPT)
        if not self.counted:
            return Event.UNEXPECTED_PROMPT
        self._filled = self._missing = count_of(self.commands) or 0
        return Event.SIZED_PROMPT if self._filled else Event.BOUNDLESS_PROMPT

    def _text_line(self, line: Line) -> list[Happening]:
        """A line while somebody's text may go on: from the last that looks like a final result on, they are held."""
        if self._belonging.final(line.text) is not None:
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
        final = self._belonging.final(last.text) if last is not None else None
        return [] if last is None or final is None else self._end(final, last)


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

    def connected(self) -> list[Happening]:
        """Say that the port is in data mode: what runs has ended, and what comes is no line of the module's."""
        running = self.running
        self.reset()
        return [] if running is None else running.connected()

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

_AT_DATA: Final = frozenset({State.PROMPTED, State.FED})
_PROMPTS: Final = {kind.value.decode("ascii"): kind for kind in PromptKind}
_SAID: Final[dict[Effect, tuple[Happening, ...]]] = {
    Effect.SEND_ESC: (Send(ESC),),
    Effect.SEND_ABORT: (Send(ABORT),),
    Effect.STAND: (Stand(),),
    Effect.PASS_DATA_MODE: (Ended(ERROR, lead=True, why=Why.DATA_MODE),),
    Effect.DROP: (),
}
