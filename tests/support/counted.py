# SPDX-License-Identifier: Apache-2.0
"""How often each command line reached the simulated module, however many there are."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from tests.scenarios.players import Module
from tests.support.requester import Requester

COUNT_EVERY: Final = 200
"""Answers between two looks: the module remembers the last thousand lines."""


@dataclass
class Counted:
    """To be called now and then while a requester asks."""

    module: Module
    requester: Requester
    lines: Counter[str] = field(default_factory=Counter)
    _next: int = 0

    def __call__(self) -> None:
        if len(self.requester.answered) >= self._next:
            self.look()

    def look(self) -> None:
        """Count what came since the last time."""
        self.lines.update(line for port in self.module.ask("seen", clear=True)["seen"] for line in port)
        self._next = len(self.requester.answered) + COUNT_EVERY
