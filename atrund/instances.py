# SPDX-License-Identifier: Apache-2.0
"""Who listens on which instance, and what it is told unasked: the module's codes as it set them, the services' own.

Rules of this file: nobody who listens is waited for; what a listener is given is whole lines (CMD-3).
"""

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator

from atrund.atrun.reporting import Reports
from atrund.atrun.settings import INSTANCES
from atrund.module.urc import Fanout
from atrund.own import Own

Hear = Callable[[tuple[str, ...]], None]
"""Takes an unsolicited code: its line, or two; never waits and never raises."""


class Instances:
    """The listeners of each instance. `run` it as long as the daemon runs."""

    def __init__(self, own: Own, fanout: Fanout) -> None:
        self._own = own
        self._fanout = fanout
        self._reports = Reports()
        self._listeners: dict[int, list[Hear]] = defaultdict(list)

    @contextlib.contextmanager
    def listening(self, instance: int, hear: Hear) -> Iterator[None]:
        """Have the codes of an instance given to `hear` as long as the context lasts."""
        self._listeners[instance].append(hear)
        try:
            yield
        finally:
            self._listeners[instance].remove(hear)

    def say(self, instance: int, *lines: str) -> None:
        """Tell an instance something of the daemon's own."""
        for hear in tuple(self._listeners[instance]):
            hear(lines)

    async def run(self) -> None:
        """Pass the module's codes on, for ever."""
        with self._fanout.listening() as listener:
            while True:
                self._pass_on(await listener.get())

    def _pass_on(self, lines: tuple[str, ...]) -> None:
        reports = {number: self._own.interface(number).reports for number in range(1, INSTANCES + 1)}
        for number, seen in self._reports.deliver(lines, reports).items():
            self.say(number, *seen)
