# SPDX-License-Identifier: Apache-2.0
"""Bytes from the module -> lines and prompts, however the bytes are cut up (ITU-T V.250 5.7.1).

Rules of this file: the same bytes give the same tokens wherever a read ends; nothing grows past `LINE_MAX`; no byte is
an error. A line keeps whether an empty line stood before it (`lead`), which is all that is needed to write the module's
own framing out again; of several empty lines one is kept.
"""

from dataclasses import dataclass
from typing import Final

from atrund.table import Word

LINE_MAX: Final = 4096
"""Longest line kept, in bytes: an order of magnitude above the longest PDU; the rest of a longer line is dropped."""


class PromptKind(Word):
    """How the data behind a prompt ends: by Ctrl-Z (`> `), or by its announced length (`>>>`)."""

    TEXT = b"> "
    COUNTED = b">>>"


@dataclass(frozen=True, slots=True)
class Line:
    """One line without its end, bytes as Latin-1. `lead`: an empty line stood before it. `cut`: it was too long."""

    text: str
    lead: bool = False
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Prompt:
    """The module waits for data."""

    kind: PromptKind


@dataclass(frozen=True, slots=True)
class Quiet:
    """Nothing came for a while, and no line is half read: what was said last was the last."""


Token = Line | Prompt | Quiet


class Reader:
    """Incremental: `feed` bytes, get tokens.

    Until `confirmed` is set the module may still echo or answer numerically (E1, V0), so CR alone ends a line too.
    While `prompting`, a prompt is taken as soon as it stands at the beginning of a line; otherwise only when `quiet`
    says that nothing came behind it, because a line of somebody's SMS may begin with `> `.
    """

    def __init__(self) -> None:
        self.confirmed = False
        self.prompting = False
        self._pending = bytearray()
        self._lead = False
        self._cut = False
        self._after_cr = False

    def feed(self, data: bytes) -> list[Token]:
        """Take what the port gave and return the tokens that it completes."""
        tokens: list[Token] = []
        for piece in self._pieces(data):
            if self._is_whole(piece):
                self._take_whole(piece, tokens)
            else:
                self._take(piece, tokens)
        return tokens

    def quiet(self) -> list[Token]:
        """Say that nothing came for a while; a prompt that stands alone is one then, expected or not."""
        if not self._pending:
            return [Quiet()]
        for kind in PromptKind:
            if bytes(self._pending) == kind.value:
                return [self._prompt(kind)]
        return []

    def reset(self) -> None:
        """Forget a half line and an awaited prompt, as after the port was opened anew or came back in step."""
        self._pending.clear()
        self.prompting = self._lead = self._cut = self._after_cr = False

    def _pieces(self, data: bytes) -> list[bytes]:
        """Cut behind each LF, and behind each CR as well where CR can end a line."""
        pieces = data.splitlines(keepends=True) if not self.confirmed else data.split(b"\n")
        if self.confirmed:
            return [piece + b"\n" for piece in pieces[:-1]] + ([pieces[-1]] if pieces[-1] else [])
        # bytes.splitlines ends at CR, LF and CRLF; a CRLF counts as CR here so that a cut between them changes nothing
        return [part for piece in pieces for part in ((piece[:-1], b"\n") if piece.endswith(b"\r\n") else (piece,))]

    def _is_whole(self, piece: bytes) -> bool:
        """Whether this is a line with its end, and stands alone."""
        stands_alone = not (self._pending or self.prompting or self._after_cr)
        return self.confirmed and stands_alone and piece.endswith(b"\n") and len(piece) <= LINE_MAX

    def _take_whole(self, piece: bytes, tokens: list[Token]) -> None:
        """Take a line that came whole, as nearly all do: what `_take` does, in one step."""
        text = piece.strip(_NOISE + b"\n")
        if text:
            tokens.append(Line(text.decode("latin-1"), self._lead))
        self._lead = not text

    def _take(self, piece: bytes, tokens: list[Token]) -> None:
        after_cr, self._after_cr = self._after_cr, False
        if after_cr and piece == b"\n":
            return
        ended = piece.endswith(b"\n") or (not self.confirmed and piece.endswith(b"\r"))
        self._hold(piece.rstrip(b"\r\n") if ended else piece, tokens)
        if not ended:
            return
        text = self._pending.strip(_NOISE)
        if text:
            tokens.append(Line(text.decode("latin-1"), self._lead, self._cut))
            self._after_cr = piece.endswith(b"\r")
        # A CR that ends nothing is the first half of an empty line's CRLF, whose LF is still to come.
        self._lead = not text and (self._lead or piece.endswith(b"\n"))
        self._pending.clear()
        self._cut = False

    def _hold(self, data: bytes, tokens: list[Token]) -> None:
        if not self._pending:
            data = data.lstrip(_NOISE)
        if self.prompting:
            data = self._take_prompt(data, tokens)
        room = LINE_MAX - len(self._pending)
        # A CR past the cap may be half of the line's end: only what would have been text makes the line a cut one.
        self._cut = self._cut or bool(data[room:].strip(_NOISE))
        self._pending += data[:room]

    def _take_prompt(self, data: bytes, tokens: list[Token]) -> bytes:
        """Take a prompt off the line's beginning, before the cap sees it, and return what is left to hold."""
        begun = self._pending[:_PROMPT_MAX] + data[:_PROMPT_MAX]
        for kind in PromptKind:
            if begun.startswith(kind.value):
                data = bytes(self._pending) + data
                tokens.append(self._prompt(kind))
                return data[len(kind.value) :].lstrip(_NOISE)
        return data

    def _prompt(self, kind: PromptKind) -> Prompt:
        self._pending.clear()
        self.prompting = self._lead = False
        return Prompt(kind)


_NOISE: Final = b"\r\0"
"""What a line may be wrapped in: the doubled CR of an echo, the NULs of a port that comes up."""
_PROMPT_MAX: Final = max(len(kind.value) for kind in PromptKind)
