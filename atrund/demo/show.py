# SPDX-License-Identifier: Apache-2.0
"""What the demo prints: questions, answers, mirrored records, log lines, messages; coloured on a terminal only."""

import json
import os
from collections.abc import Iterable
from typing import Any, Final, TextIO

from atrund.ctl.terminal import printable
from atrund.demo.players import Message
from atrund.sms.digest import DigestError, parse_response
from atrund.sms.pdu import PduError, Submit, decode_submit

_BOLD, _RED, _GREEN, _YELLOW, _BLUE, _MAGENTA, _DIM = "1", "31", "32", "33", "34", "35", "2"

PAYLOAD_SHOWN: Final = 600
"""Characters of a published payload that are printed: a long answer's record need not fill the screen."""

OF_EVERY_RECORD: Final = frozenset({"v", "session", "ts", "clock"})
"""Keys that are the same, or of no interest, in each record that a person reads one after the other."""


class Show:
    """Prints to a stream. Nothing of the far side gets to the terminal unescaped."""

    def __init__(self, stream: TextIO, *, colour: bool | None = None) -> None:
        """`colour` None: where the stream is a terminal and NO_COLOR is not set."""
        self._stream = stream
        self._colour = stream.isatty() and not os.environ.get("NO_COLOR") if colour is None else colour

    def text(self, text: str = "") -> None:
        """Print lines of our own as they are."""
        self._say(text)

    def title(self, text: str) -> None:
        """Begin a step."""
        self._say("\n" + self._in(_BOLD, text))

    def question(self, door: str, text: str) -> None:
        """Show what goes in through a door."""
        self._row(_BLUE, f"> {door}", printable(text))

    def answer(self, door: str, text: str) -> None:
        """Show what comes back out of it."""
        self._row(_GREEN, f"< {door}", printable(text))

    def note(self, text: str) -> None:
        """Show what is neither: that nothing came, and why that is right."""
        self._row(_DIM, "-", printable(text))

    def record(self, message: Message) -> None:
        """Show a message of the broker: a record without what all have, anything else as it is."""
        shown = message.payload.decode("utf-8", "replace")
        if message.record:
            shown = json.dumps(_of_interest(message.record), ensure_ascii=False)
        cut = "…" if len(shown) > PAYLOAD_SHOWN else ""
        self._row(_MAGENTA, f"= {message.topic}", printable(shown[:PAYLOAD_SHOWN]) + cut)

    def log(self, line: str) -> None:
        """Show a line of the daemon's log."""
        self._row(_DIM, "% atrund", printable(line))

    def sent(self, record: dict[str, Any]) -> None:
        """Show an SMS that the module sent, decoded."""
        self.answer("sms", describe_sent(str(record["pdu"])))

    def good(self, text: str) -> None:
        """Say that all is well."""
        self._say(self._in(_GREEN, text))

    def bad(self, text: str, details: Iterable[str] = ()) -> None:
        """Say what is not."""
        self._say(self._in(_RED, text))
        for detail in details:
            self._say(f"     {printable(detail)}")

    def skipped(self, text: str) -> None:
        """Say what is left out, and why."""
        self._say(self._in(_YELLOW, text))

    def _row(self, colour: str, what: str, text: str) -> None:
        self._say(f"  {self._in(colour, f'{what:<16}')} {text}")

    def _in(self, colour: str, text: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colour else text

    def _say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


def describe_sent(pdu: str) -> str:
    """Return a sent SMS in words: to whom, which part of how many, with a digest or not, and its text."""
    try:
        submit = decode_submit(pdu)
        part, text = _content(submit)
    except (PduError, DigestError) as error:
        return f"not understood: {error}"
    return f"to {submit.destination.text}{part}: {text}"


def _content(submit: Submit) -> tuple[str, str]:
    data = submit.user_data
    if (digest := parse_response(data.octets or b"")) is not None:
        return f", digest part {digest.index} of {digest.total}", digest.text.decode("latin-1")
    if (part := data.concatenation) is not None:
        return f", part {part.index} of {part.total}", data.text
    return "", data.text


def _of_interest(record: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in record.items()
        if name not in OF_EVERY_RECORD and value not in (None, False, [], "")
    }
