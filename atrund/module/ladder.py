# SPDX-License-Identifier: Apache-2.0
"""Which rung of the recovery ladder is next (MOD-4, MOD-8): reopen, AT#REBOOT, the operator's command.

Rules of this file: it decides and does nothing. A hung AT port alone never reboots a module that carries somebody's data
connection, unless the configuration says `always`; reboots and commands together are limited by the hour, counted in
seconds of running, so that a restart of the daemon does not begin the hour anew.
"""

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

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
        self._height = 0

    @property
    def command(self) -> tuple[str, ...]:
        """The operator's command, an argument list."""
        return self._rules.command

    def climb(self) -> Climb:
        """Return the next rung, and count it."""
        rungs = [Rung.REOPEN, Rung.REBOOT]
        if self._rules.command:
            rungs.append(Rung.COMMAND)
        wanted = rungs[self._height % len(rungs)]
        self._height += 1
        if wanted is Rung.REOPEN:
            return Climb(wanted)
        if why := self._why_not(wanted):
            return Climb(Rung.REOPEN, why)
        self._climbs = [*self._recent(), self._now()]
        self._keep(tuple(self._climbs))
        return Climb(wanted)

    def forget(self) -> None:
        """Begin at the lowest rung again: the module works. The hour's count stays."""
        self._height = 0

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
