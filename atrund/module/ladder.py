# SPDX-License-Identifier: Apache-2.0
"""Which rung of the recovery ladder is next (MOD-4, MOD-8): reopen, AT#REBOOT, the operator's command.

Rules of this file: it decides and does nothing. A hung AT port alone never reboots a module that carries somebody's
data connection, unless the configuration says `always`; reboots and commands together are limited by the hour, counted
in seconds of running, so that a restart of the daemon does not begin the hour anew. One ladder serves all ports of the
module: what restarts it through one of them is told to the keepers of all.
"""

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from atrund.module.lifecycle import Event

HOUR: Final = 3600.0


class Rung(enum.Enum):
    """What is tried."""

    REOPEN = "reopen the port"
    REBOOT = "AT#REBOOT"
    COMMAND = "the operator's command"


class Reboot(enum.Enum):
    """When the daemon may reboot the module by itself."""

    NEVER = "never"
    UNUSED = "unused"
    """Only while no network interface of the same USB device is up, where the module is shared."""
    ALWAYS = "always"


@dataclass(frozen=True, slots=True)
class LadderRules:
    """What the ladder goes by. `command` is an argument list, empty for none."""

    reboot: Reboot = Reboot.UNUSED
    shared: bool = True
    command: tuple[str, ...] = ()
    per_hour: int = 3


@dataclass(frozen=True, slots=True)
class Climb:
    """The next rung, and why a higher one was left out, "" if none was."""

    rung: Rung
    held_back: str = ""


class Ladder:
    """`now`: seconds of running. `network_up`: whether the module carries a data connection. `keep` gets the climbs."""

    def __init__(
        self,
        rules: LadderRules,
        *,
        now: Callable[[], float],
        network_up: Callable[[], bool],
        history: Sequence[float] = (),
        keep: Callable[[tuple[float, ...]], None] = lambda _: None,
    ) -> None:
        self._rules = rules
        self._now = now
        self._network_up = network_up
        self._climbs = list(history)
        self._keep = keep
        self._heights: dict[object, int] = {}
        self._hearing: list[Callable[[Event], None]] = []

    @property
    def command(self) -> tuple[str, ...]:
        """The operator's command, an argument list."""
        return self._rules.command

    def hear(self, told: Callable[[Event], None]) -> None:
        """Let a keeper be told of reboots and power-offs, whichever port they were sent on."""
        self._hearing.append(told)

    def tell(self, event: Event) -> None:
        """Tell all keepers of a reboot or a power-off."""
        for told in self._hearing:
            told(event)

    def climb(self, port: object) -> Climb:
        """Return the next rung for a port, and count it."""
        rungs = [Rung.REOPEN, Rung.REBOOT]
        if self._rules.command:
            rungs.append(Rung.COMMAND)
        height = self._heights.get(port, 0)
        self._heights[port] = height + 1
        wanted = rungs[height % len(rungs)]
        if wanted is Rung.REOPEN:
            return Climb(wanted)
        if why := self._why_not(wanted):
            return Climb(Rung.REOPEN, why)
        self.count()
        return Climb(wanted)

    def overdue(self, port: object) -> str:
        """Return why no reboot answers a command that did not end in time (REQ-7), or "": it may, and is next.

        On a shared module that needs `always`, whatever the data connection is doing.
        """
        if self._rules.shared and self._rules.reboot is not Reboot.ALWAYS:
            return f"AT#REBOOT: the module is shared, and recovery.reboot is {self._rules.reboot.value}"
        if why := self._why_not(Rung.REBOOT):
            return why
        self._heights[port] = _REBOOT_HEIGHT
        return ""

    def count(self) -> None:
        """Count a climb in the hour, and keep it."""
        self._climbs = [*self._recent(), self._now()]
        self._keep(tuple(self._climbs))

    def forget(self, port: object) -> None:
        """Begin at the lowest rung again: the port works. The hour's count stays."""
        self._heights.pop(port, None)

    def _why_not(self, rung: Rung) -> str:
        if len(self._recent()) >= self._rules.per_hour:
            return f"{rung.value}: {self._rules.per_hour} within the hour already"
        if rung is Rung.COMMAND or self._rules.reboot is Reboot.ALWAYS:
            return ""
        if self._rules.reboot is Reboot.NEVER:
            return "AT#REBOOT: recovery.reboot is never"
        if self._rules.shared and self._network_up():
            return "AT#REBOOT: the module carries a data connection"
        return ""

    def _recent(self) -> list[float]:
        return [moment for moment in self._climbs if moment > self._now() - HOUR]


_REBOOT_HEIGHT: Final = 1
"""Rungs below AT#REBOOT."""
