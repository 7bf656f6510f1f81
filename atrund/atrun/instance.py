# SPDX-License-Identifier: Apache-2.0
"""A virtual AT interface: what is typed becomes command lines, what the module says is framed (ITU-T V.250 5 and 6).

What an instance has set is in `interface.py`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from atrund.at.exchange import Prompted
from atrund.at.reader import Line
from atrund.at.results import CME_TEXTS, FinalKind, classify, classify_numeric
from atrund.at.syntax import LINE_MAX
from atrund.atrun.interface import Interface
from atrund.atrun.request import End, Outcome, Reason

BACKSPACES: Final = b"\x08\x7f"
"""S5's default and DEL, which most terminals send for the same key."""


def show_line(line: Line, interface: Interface) -> str:
    """Write an answer line under the instance's V, S3 and S4 (V.250 6.2.6): V0 leaves the header out."""
    end = _line_end(interface)
    return (end if line.lead and interface.on("V") else "") + line.text + end


def show_final(outcome: Outcome, interface: Interface) -> str:
    """Write the final result under the instance's Q, V, X and +CMEE; "" when it wants none (V.250 6.2.5 to 6.2.7)."""
    return _show_result(final_words(outcome, interface.value("+CMEE")), interface)


def show_unsolicited(lines: tuple[str, ...], interface: Interface) -> str:
    """Write an unsolicited code, its second line behind it. Under Q1 the plain words (RING, NO CARRIER) are hidden."""
    if lines[0] == _RING or classify(lines[0]) is not None:
        return _show_result(lines[0], interface)
    end = _line_end(interface)
    return (end if interface.on("V") else "") + "".join(line + end for line in lines)


def show_prompt(prompt: Prompted) -> str:
    """Write a prompt: 13, 10, 62, 32 for a text (3GPP TS 27.005 3.5.1), whatever the instance has set."""
    return "\r\n" + prompt.kind.value.decode("ascii")


def frame_line(line: Line) -> str:
    """Write an answer line as the module framed it."""
    return ("\r\n" if line.lead else "") + line.text + "\r\n"


def frame_final(outcome: Outcome, cmee: int = 0) -> str:
    """Write the final result as the instance's +CMEE wants it (REQ-10)."""
    return f"\r\n{final_words(outcome, cmee)}\r\n"


def frame(lines: Iterable[Line], outcome: Outcome, cmee: int = 0) -> str:
    """Write a whole verbose answer without echo (SMS-8)."""
    return "".join(frame_line(line) for line in lines) + frame_final(outcome, cmee)


def final_words(outcome: Outcome, cmee: int) -> str:
    """Return the final result that an asker with this +CMEE sees; +CMS ERROR passes as it is."""
    if outcome.final is not None:
        final = classify(outcome.final)
        if final is None or final.kind is not FinalKind.CME:
            return outcome.final
        return _cme(final.code, cmee) if final.code is not None else (outcome.final if cmee else "ERROR")
    if outcome.end is End.OK:
        return "OK"
    return _cme(code_of(outcome.reason) if outcome.reason else _BY_END.get(outcome.end, _UNKNOWN), cmee)


@dataclass(frozen=True, slots=True)
class Typed:
    """What a piece of input gave: complete lines, and what is to be echoed."""

    lines: tuple[str, ...]
    echo: bytes


class LineEditor:
    """Bytes as they are typed -> command lines: CR (S3) ends one, BS (S5) takes back (V.250 5.2.1, 6.2.1, 6.2.3).

    LF and NUL count for nothing before a line's first character, which is where CR LF and CR NUL put them; inside a
    line NUL is kept, so that it refuses it (REQ-4), and so is LF, unless `takes_lf`: then it ends a line as CR does
    while S3 is CR, for that is what many a program sends. While `repeats` is set, `A/` at a line's beginning gives the
    last line again, at once (V.250 5.2.4); during a login it must not be, for that line would be a password.
    """

    def __init__(self, *, repeats: bool = False, takes_lf: bool = False) -> None:
        self.repeats = repeats
        self._takes_lf = takes_lf
        self._line = bytearray()
        self._over = 0
        self._end = _CR
        self._backspaces = BACKSPACES
        self._last = "AT"
        self._followed: Interface | None = None

    def follow(self, interface: Interface) -> None:
        """Take over the instance's S3 and S5; DEL goes on taking back."""
        if interface is self._followed:
            return
        self._followed = interface
        self._end = interface.value("S3")
        self._backspaces = bytes((interface.value("S5"), 0x7F))

    def feed(self, data: bytes) -> Typed:
        """Take input; a line over the cap comes out too long, so that it is refused and not run in part."""
        if not self._line and self._is_whole(data):  # as programs send them
            self._line += data[:-1]
            return Typed((self._taken(),), data)
        lines: list[str] = []
        echo = bytearray()
        for octet in data:
            if octet == self._end or (octet == _LF and self._line and self._takes_lf and self._end == _CR):
                lines.append(self._taken())
                echo.append(octet)
            elif octet in self._backspaces:
                if not self._line:
                    continue
                if self._over:
                    self._over -= 1
                else:
                    self._line.pop()
                echo += b"\x08 \x08"
            elif self._line or octet not in _IGNORED:
                if len(self._line) < _KEPT_MAX:
                    self._line.append(octet)
                else:
                    self._over += 1  # counted, so that taking these back does not bare a part of the line
                echo.append(octet)
                if self.repeats and self._line.upper() == b"A/":
                    self._line.clear()
                    lines.append(self._last)
        return Typed(tuple(lines), bytes(echo))

    def _is_whole(self, data: bytes) -> bool:
        """Whether this is one line with its end, and nothing in it that does anything."""
        text = data[:-1].decode("latin-1")
        plain = text.isascii() and text.isprintable() and data[-1:] == bytes((self._end,))
        return plain and 0 < len(text) <= _KEPT_MAX and text[:2].upper() != "A/"

    def _taken(self) -> str:
        line = self._line.decode("latin-1")
        self._line.clear()
        self._over = 0
        if self.repeats and line.strip():
            self._last = line
        return line


_CR: Final = 0x0D
_LF: Final = 0x0A
_IGNORED: Final = b"\n\0"
"""LF behind CR, and the NUL that telnet sends behind a bare CR (RFC 854)."""
_KEPT_MAX: Final = LINE_MAX + 3
"""Too long even when the parser has dropped a line end."""

_UNKNOWN: Final = 100
_CODES: Final = {
    Reason.BAD_REQUEST: 50,
    Reason.TOO_LONG: 50,
    Reason.POLICY: 3,
    Reason.AUTH: 3,
    Reason.LOCKED: 3,
    Reason.UNCONFIRMED: 3,
    Reason.PROMPT_UNSUPPORTED: 4,
    Reason.DATA_MODE: 4,
    Reason.BUSY: 2,
    Reason.HELD: 2,
    Reason.QUEUE_FULL: 2,
    Reason.PORT_DOWN: 1,
    Reason.STORAGE: 20,
}
"""TS 27.007 codes of the daemon's own refusals (REQ-10)."""
_BY_END: Final = {End.LOST: 1}

_RING: Final = "RING"
_NUMERIC: Final = {
    _RING: "2",
    **{found.kind.value: str(number) for number in range(9) if (found := classify_numeric(str(number))) is not None},
}
"""V.250 table 1, by the words."""
_NOT_DETECTED: Final[dict[int, set[FinalKind | None]]] = {
    0: {FinalKind.BUSY, FinalKind.NO_DIALTONE},
    1: {FinalKind.BUSY, FinalKind.NO_DIALTONE},
    2: {FinalKind.BUSY},
    3: {FinalKind.NO_DIALTONE},
    4: set(),
}
"""What a call that fails so ends with NO CARRIER instead, by X (V.250 6.2.7)."""


def code_of(reason: Reason) -> int:
    """Return the +CME ERROR code of a refusal made here (REQ-10)."""
    return _CODES.get(reason, _UNKNOWN)


def _cme(code: int, cmee: int) -> str:
    if cmee == 0:
        return "ERROR"
    if cmee == 1 or code not in CME_TEXTS:
        return f"+CME ERROR: {code}"
    return f"+CME ERROR: {CME_TEXTS[code]}"


def _line_end(interface: Interface) -> str:
    return chr(interface.value("S3")) + chr(interface.value("S4"))


def _show_result(words: str, interface: Interface) -> str:
    if interface.value("Q"):
        return ""
    final = classify(words)
    kind = None if final is None else final.kind
    if kind in _NOT_DETECTED[interface.value("X")]:
        kind, words = FinalKind.NO_CARRIER, FinalKind.NO_CARRIER.value
    elif kind is FinalKind.CONNECT and not interface.on("X"):
        words = FinalKind.CONNECT.value
    if interface.on("V"):
        end = _line_end(interface)
        return end + words + end
    # A code that V.250 has no number for stands as it is (TS 27.007 annex B: "as verbose").
    return _NUMERIC.get(words if kind is None else kind.value, words) + chr(interface.value("S3"))
