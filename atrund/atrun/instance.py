# SPDX-License-Identifier: Apache-2.0
"""A virtual AT interface: what is typed becomes command lines, what the module says is framed (ITU-T V.250 5 and 6)."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from atrund.at.reader import Line
from atrund.at.results import CME_TEXTS, FinalKind, classify
from atrund.at.syntax import LINE_MAX
from atrund.atrun.request import End, Outcome, Reason

BACKSPACES: Final = b"\x08\x7f"
"""S5's default and DEL, which most terminals send for the same key."""


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
    return _cme(_CODES.get(outcome.reason, _UNKNOWN) if outcome.reason else _BY_END.get(outcome.end, _UNKNOWN), cmee)


@dataclass(frozen=True, slots=True)
class Typed:
    """What a piece of input gave: complete lines, and what is to be echoed."""

    lines: tuple[str, ...]
    echo: bytes


class LineEditor:
    """Bytes as they are typed -> command lines: CR ends one, BS takes back (V.250 5.2.1, 6.2.3).

    LF and NUL count for nothing before a line's first character, which is where CR LF and CR NUL put them; inside a
    line they are kept, so that they refuse it (REQ-4).
    """

    def __init__(self) -> None:
        self._line = bytearray()
        self._over = 0

    def feed(self, data: bytes) -> Typed:
        """Take input; a line over the cap comes out too long, so that it is refused and not run in part."""
        lines: list[str] = []
        echo = bytearray()
        for octet in data:
            if octet == _CR:
                lines.append(self._line.decode("latin-1"))
                self._line.clear()
                self._over = 0
                echo.append(octet)
            elif octet in BACKSPACES:
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
        return Typed(tuple(lines), bytes(echo))


_CR: Final = 0x0D
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
    Reason.PROMPT_UNSUPPORTED: 4,
    Reason.DATA_MODE: 4,
    Reason.BUSY: 2,
    Reason.QUEUE_FULL: 2,
    Reason.PORT_DOWN: 1,
    Reason.STORAGE: 20,
}
"""TS 27.007 codes of the daemon's own refusals (REQ-10)."""
_BY_END: Final = {End.LOST: 1}


def _cme(code: int, cmee: int) -> str:
    if cmee == 0:
        return "ERROR"
    if cmee == 1 or code not in CME_TEXTS:
        return f"+CME ERROR: {code}"
    return f"+CME ERROR: {CME_TEXTS[code]}"
