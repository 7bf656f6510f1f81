# SPDX-License-Identifier: Apache-2.0
"""A command line on its way without a task that waits for it: nearly all are sent, answered in lines, and over."""

from collections.abc import Callable
from dataclasses import dataclass

from atrund.at.exchange import Answered, Ended, Exchange
from atrund.module.turn import Say
from atrund.timer import Timer


@dataclass(frozen=True, slots=True)
class Begun:
    """One such line. `due` is the event loop's time of its deadline, `timeout` seconds behind its first byte.

    `tell` gets its end; or `wait` is told that somebody has to wait for it from now on.
    """

    exchange: Exchange
    timeout: float
    due: float
    say: Say
    tell: Callable[[Ended], None]
    wait: Callable[[], None]


class Direct:
    """The one of a port, if there is one.

    Its asker is told of the end in the event loop's call for the bytes that ended it. Whatever else happens to it, a
    prompt, its deadline, the loss of the port, is a matter for a task, which takes it over as it is.
    """

    def __init__(self) -> None:
        self._running: Begun | None = None
        self._ended: Ended | None = None
        self._left: Begun | None = None
        """One that a task is to take over."""
        self._deadline = Timer()

    def begin(self, begun: Begun) -> None:
        """Take a line that is on its way."""
        self._running, self._ended = begun, None
        self._deadline.start(begun.timeout, self._leave)

    def takes(self, happening: object) -> bool:
        """Whether what happened was taken; if not, a task is to have it."""
        begun = self._running
        if begun is None:
            return False
        if isinstance(happening, Answered):
            begun.say(happening.line)
            return True
        if isinstance(happening, Ended) and happening.why is None:
            self._ended = happening
            return True
        self._leave()
        return False

    def take_end(self) -> tuple[Begun, Ended] | None:
        """Return the line and its end, once: behind all that came with that."""
        begun, ended = self._running, self._ended
        if begun is None or ended is None:
            return None
        self.drop()
        return begun, ended

    def take_over(self) -> Begun | None:
        """Return the line that a task is to have, once."""
        left, self._left = self._left, None
        return left

    def drop(self) -> None:
        """Have nothing to do with it any more."""
        self._running = self._ended = self._left = None
        self._deadline.stop()

    def close(self) -> None:
        """Leave nothing behind in the event loop."""
        self._deadline.close()

    def _leave(self) -> None:
        begun = self._running
        self.drop()
        self._left = begun
        if begun is not None:
            begun.wait()
