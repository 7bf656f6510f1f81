# SPDX-License-Identifier: Apache-2.0
"""A turn: what a holder of the port does with it, one command line after the other."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from atrund.at.exchange import Ended, Why
from atrund.at.feed import Feed
from atrund.at.reader import Line
from atrund.at.results import Final as FinalResult
from atrund.at.results import information
from atrund.at.syntax import Command, parse
from atrund.module.latecomers import Late, LateLines

log = structlog.get_logger()

STEP: Final = 5.0
"""Seconds for a command that asks nothing of the network (commands.md 7: +CMGR, +CPIN and their like)."""
ANSWER_MAX: Final = 262_144
"""Characters of an answer that are gathered for one who wants it whole; a full #CSURVC is some 20 kB."""


class LinkLostError(Exception):
    """The port went away. What was sent may have been done."""


class TimedOutError(Exception):
    """The module did not finish in time. What was sent may have been done."""


class UnfedError(TimedOutError):
    """A prompt did not get all its data in time, which is no fault of the module's."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One command line's whole answer."""

    final: FinalResult
    lines: tuple[str, ...]
    lead: bool = True

    def value(self, name: str) -> tuple[str, ...] | None:
        """Return the parameters of the first `name: …` line, at least one, or None."""
        for line in self.lines:
            found = information(line)
            if found is not None and found.name == name and found.parameters:
                return found.parameters
        return None


Say = Callable[[Line], None]


class Converses(Protocol):
    """The port that a turn is on: `module.channel`."""

    late: LateLines

    async def converse(
        self, commands: tuple[Command, ...], timeout: float, say: Say, data: bytes | None, feed: Feed | None
    ) -> Ended:
        """Run one exchange."""

    def begin(
        self,
        commands: tuple[Command, ...],
        timeout: float,
        say: Say,
        tell: Callable[[Ended], None],
        wait: Callable[[], None],
    ) -> bool:
        """Begin one, if nothing has to be waited for."""

    async def recover(self) -> None:
        """Come back in step."""

    def leave_prompt(self) -> None:
        """Write ESC."""

    async def fill_prompt(self) -> None:
        """Write zero bytes."""


class Turn:
    """The port is ours until the context ends."""

    def __init__(self, channel: Converses) -> None:
        self._channel = channel
        self._late: Late | None = None

    async def run(
        self,
        commands: tuple[Command, ...],
        *,
        timeout: float,
        say: Say,
        data: bytes | None = None,
        feed: Feed | None = None,
    ) -> Ended:
        """Run one command line; `say` gets each answer line as it comes. `data` answers a text prompt, `feed` any.

        Raises `TimedOutError` after `timeout` seconds from the first byte, and `LinkLostError`.
        """
        ended = await self._channel.converse(commands, timeout, say, data, feed)
        if ended.final.ok:
            self._late = self._channel.late.promised(commands, say) or self._late
        return ended

    def begin(
        self,
        commands: tuple[Command, ...],
        *,
        timeout: float,
        say: Say,
        tell: Callable[[Ended], None],
        wait: Callable[[], None],
    ) -> bool:
        """Send a command line that asks for no data, if nothing has to be waited for; returns whether it was sent.

        `tell` gets how it ended. Or `wait` is told, once, that it takes more than that: then `run` has to be called for
        the same line, and takes it over as it is.
        """
        return self._channel.begin(commands, timeout, say, tell, wait)

    def leave_prompt(self) -> None:
        """Write ESC, for whoever had the port before may have left a text prompt, which takes commands for data."""
        self._channel.leave_prompt()

    async def fill_prompt(self) -> None:
        """Write as many zero bytes as a body has at most, for a prompt that waits for bytes by their count (REQ-6).

        A module that waits for a command passes them over.
        """
        await self._channel.fill_prompt()

    async def late(self, timeout: float) -> None:
        """Wait for the line that a command of this turn has still to say (`at/late.py`), if one has; `say` gets it.

        The turn may have been given back. Returns once the line is there, its window or `timeout` over, the port lost,
        or the same asked anew.
        """
        late, self._late = self._late, None
        if late is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await late.came

    async def ask(self, line: str, timeout: float = STEP, data: bytes | None = None) -> Answer:
        """Run a command line of the daemon's own and return its whole answer. Raises as `run` does.

        One that was left for what the module made of it did not do its work either, and ends as one without a result.
        """
        lines: list[str] = []
        room = ANSWER_MAX

        def gather(one: Line) -> None:
            nonlocal room
            room -= len(one.text)
            if room >= 0:
                lines.append(one.text)

        ended = await self.run(parse(line), timeout=timeout, say=gather, data=data)
        if ended.why in {Why.COUNT, Why.DATA_MODE}:
            await self._channel.recover()
            raise TimedOutError(f"no result: {ended.why.value}")
        log.debug("own command", command=line, final=ended.final.text)
        return Answer(ended.final, tuple(lines), ended.lead)
