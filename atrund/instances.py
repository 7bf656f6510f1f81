# SPDX-License-Identifier: Apache-2.0
"""Who listens on which instance, and what it is told unasked: the module's codes as it set them, the services' own.

Rules of this file: nobody who listens is waited for; what a listener is given is whole lines (CMD-3).
"""

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator

from atrund.atrun import reporting
from atrund.atrun.reporting import Reports
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

    def announce(self, memory: str, index: int, pdu: str) -> None:
        """Tell of a new message that is none of ours, as each instance asked (CMD-6). `pdu`: "" where not known."""
        told = f'+CMTI: "{memory}",{index}'
        length = len(pdu) // 2 - 1 - int(pdu[:2] or "0", 16)  # without the service centre's address (TS 27.005 3.4.1)
        direct = (f"+CMT: ,{length}", pdu) if pdu else (told,)
        for number, lines in reporting.announced(memory, index, direct, self._own.asked_for()).items():
            self.say(number, *lines)

    async def run(self) -> None:
        """Pass the module's codes on, for ever."""
        with self._fanout.listening() as listener:
            while True:
                self._pass_on(await listener.get())

    def _pass_on(self, lines: tuple[str, ...]) -> None:
        for number, seen in self._reports.deliver(lines, self._own.asked_for()).items():
            self.say(number, *seen)
