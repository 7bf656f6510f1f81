# SPDX-License-Identifier: Apache-2.0
"""Which of the bytes that pass in transparent mode are the escape from it (TCP-6).

Rules of this file: three characters are the escape when they came in one read with silence before and behind; the
silence behind is one that nothing interrupted, so that whatever was read before the timer rang says that it was none.
Times are seconds of a clock that only goes forward.
"""

from typing import Final

GUARD: Final = 0.050
"""Seconds of silence before and behind."""
NONE_FROM: Final = 128
"""An S2 from here on means that there is no escape, as in other modems: it is no character of the alphabet."""

_COUNT: Final = 3


class Escape:
    """Told of every read, gives back what is to be passed on; the three are withheld until it is decided."""

    def __init__(self, character: int, now: float) -> None:
        """`character`: S2. `now`: when the last octet before the first read came."""
        self._sequence = bytes((character,)) * _COUNT if character < NONE_FROM else None
        self._heard = now
        self._held = b""

    @property
    def due(self) -> float | None:
        """When `ends` is to be asked, None while nothing is withheld."""
        return self._heard + GUARD if self._held else None

    def read(self, data: bytes, now: float) -> bytes:
        """Take one read, or one TLS record; returns what is to be passed on, what was withheld before it."""
        held, self._held = self._held, b""
        quiet = now - self._heard >= GUARD
        self._heard = now
        if data == self._sequence and quiet and not held:
            self._held = data
            return b""
        return held + data

    def deaf(self, now: float) -> None:
        """Take note that nothing was read until now, so that no silence was heard either."""
        self._heard = now

    def ends(self, now: float) -> bool:
        """Whether what is withheld is the escape; it is withheld no more then."""
        if self.due is None or now < self.due:
            return False
        self._held = b""
        return True

    def left(self) -> bytes:
        """Return what was withheld and never decided, for it was data then."""
        held, self._held = self._held, b""
        return held
