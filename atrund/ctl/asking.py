# SPDX-License-Identifier: Apache-2.0
"""What subcommands ask the daemon over its control socket: one question, or AT commands one after the other."""

import argparse
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from atrund.control import (
    AcceptedAnswer,
    Administering,
    Answer,
    AtRequest,
    ControlError,
    DoneAnswer,
    ErrorAnswer,
    FinalAnswer,
    LineAnswer,
    Reading,
    decode_answer,
    encode,
)
from atrund.ctl.link import Unreachable, to_daemon
from atrund.ctl.terminal import complain, printable

ANSWER_WAIT: Final = 30.0
"""Seconds for an answer for which the daemon may have to write to its disk or close a session first."""

OWN_ERRORS: Final = {
    "locked": "the configuration file alone sets this (locked = true): change it there",
    "storage": "it could not be kept",
}
"""What a reason means to whoever administers the daemon."""


class Failed(Exception):
    """It could not be done; the text is for a person, `code` for the shell."""

    def __init__(self, text: str, code: int = 1) -> None:
        super().__init__(text)
        self.code = code


def guarded(work: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """Do the work of a subcommand; say why it failed, if it did, and return the exit code."""
    try:
        return work(args)
    except Failed as failed:
        complain(str(failed))
        return failed.code
    except Unreachable as error:
        complain(str(error))
        return 3


def ask(path: str | None, request: Reading | Administering) -> dict[str, object]:
    """Ask one thing and return what is told. Raises `Failed` and `Unreachable`."""
    line = _encoded(request)
    with to_daemon(path) as link:
        link.send(line)
        answer = _decoded(link.receive(ANSWER_WAIT))
    if isinstance(answer, DoneAnswer):
        return answer.told
    raise _failure(answer)


class Commands:
    """AT commands on one connection, closed at the end of its `with` block. Raises `Unreachable`."""

    def __init__(self, path: str | None) -> None:
        self._link = to_daemon(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._link.__exit__(kind, error, trace)

    def run(self, line: str) -> list[str]:
        """Run a line and return its answer's lines. Raises `Failed` where the end is no OK."""
        self._link.send(_encoded(AtRequest(line)))
        lines: list[str] = []
        while True:
            answer = _decoded(self._link.receive(ANSWER_WAIT))
            match answer:
                case AcceptedAnswer():
                    pass
                case LineAnswer(text):
                    lines.append(text)
                case FinalAnswer(state="ok"):
                    return lines
                case FinalAnswer():
                    raise Failed(_words(answer))
                case _:
                    raise _failure(answer)


def _words(answer: FinalAnswer) -> str:
    known = OWN_ERRORS.get(answer.reason or "", "")
    if answer.reason == "locked":
        return known
    said = [known, printable(answer.detail or answer.final or answer.state)]
    return ": ".join(part for part in said if part)


def _encoded(request: Reading | Administering | AtRequest) -> bytes:
    try:
        return encode(request)
    except ControlError as error:
        raise Failed(str(error), 2) from None
    except ValueError:
        raise Failed("a number is out of all range", 2) from None


def _decoded(line: bytes) -> Answer:
    try:
        return decode_answer(line)
    except ControlError as error:
        raise Failed(f"the daemon sent what this atrunctl does not know: {error}", 3) from None


def _failure(answer: Answer) -> Failed:
    if not isinstance(answer, ErrorAnswer):
        return Failed("the daemon answered another question", 3)
    mistakes = "".join(f"\n  {printable(mistake)}" for mistake in answer.mistakes)
    return Failed(f"the daemon refused the request: {printable(answer.message)}{mistakes}")
