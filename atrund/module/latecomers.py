# SPDX-License-Identifier: Apache-2.0
"""Lines behind the final result, and the askers who wait for them; which lines they are says `at/late.py`."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from atrund.at.late import Window, window
from atrund.at.reader import Line
from atrund.at.syntax import Command

LATE_MAX: Final = 8
"""Late lines awaited at a time: more askers than there are doors. The oldest makes room."""


@dataclass(frozen=True, slots=True)
class Late:
    """One awaited line. `came` is done once it is there, or will not come any more."""

    window: Window
    say: Callable[[Line], None]
    came: asyncio.Future[None]


class LateLines:
    """All that are awaited on one port."""

    def __init__(self) -> None:
        self._awaited: list[Late] = []

    def __len__(self) -> int:
        """How many are awaited."""
        return len(self._awaited)

    def promised(self, commands: tuple[Command, ...], say: Callable[[Line], None]) -> Late | None:
        """Await what commands that ended with OK have still to say, if anything; `say` gets it.

        An earlier asker of the same gets none any more, for whose it is could not be told.
        """
        promise = window(commands)
        if promise is None:
            return None
        for late in tuple(self._awaited):
            if late.window.name == promise.name:
                self._end(late)
        if len(self._awaited) >= LATE_MAX:
            self._end(self._awaited[0])
        loop = asyncio.get_running_loop()
        late = Late(promise, say, loop.create_future())
        self._awaited.append(late)
        timer = loop.call_later(promise.seconds, self._end, late)

        def ended(_: object) -> None:
            timer.cancel()
            self._end(late)  # who waited may have gone away

        late.came.add_done_callback(ended)
        return late

    def take(self, line: str) -> bool:
        """Give a line to the one who waits for it; returns whether there was one."""
        for late in self._awaited:
            if late.window.takes(line) and not late.came.done():
                late.say(Line(line, lead=True))
                self._end(late)
                return True
        return False

    def close(self) -> None:
        """The port is gone, and so is what was awaited on it."""
        for late in tuple(self._awaited):
            self._end(late)

    def _end(self, late: Late) -> None:
        if late in self._awaited:
            self._awaited.remove(late)
        if not late.came.done():
            late.came.set_result(None)
