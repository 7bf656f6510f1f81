# SPDX-License-Identifier: Apache-2.0
"""Turns on one opening of the port: a holder has it for one or more exchanges; then whoever is next.

Rules of this file: a channel lives as long as its port; afterwards every turn ends `LinkLostError`. Whoever leaves a
command behind (deadline, cancellation) does not wait for the port to come back in step, but the next holder does.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final

import structlog

from atrund.at.exchange import (
    CTRL_Z,
    ESC,
    Answered,
    Ended,
    Exchange,
    Happening,
    Prompted,
    Send,
    Sorter,
    State,
    Unsolicited,
)
from atrund.at.reader import Line, PromptKind, Reader
from atrund.at.results import Final as FinalResult
from atrund.at.results import classify, information
from atrund.at.syntax import Command, parse
from atrund.module.port import Port
from atrund.module.turns import DEPTH, MAX_WAIT, Turns

log = structlog.get_logger()

QUIET: Final = 0.3
"""Seconds of silence after which a lone `> ` is a prompt, and the line counts as silent (REQ-7)."""
LEAVE: Final = 5.0
"""Seconds that a command may take to end after it was told to."""
STEP: Final = 5.0
"""Seconds for a command that asks nothing of the network (commands.md 7: +CMGR, +CPIN and their like)."""
RESYNC_ROUNDS: Final = 5
"""Rounds to come back in step: each outlasts a late answer of one command."""
ANSWER_MAX: Final = 262_144
"""Characters of an answer that are gathered for one who wants it whole; a full #CSURVC is some 20 kB."""


class LinkLostError(Exception):
    """The port went away. What was sent may have been done."""


class TimedOutError(Exception):
    """The module did not finish in time. What was sent may have been done."""


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


class Turn:
    """The port is ours until the context ends."""

    def __init__(self, channel: "Channel") -> None:
        self._channel = channel

    async def run(
        self,
        commands: tuple[Command, ...],
        *,
        timeout: float,
        say: Say,
        data: bytes | None = None,
    ) -> Ended:
        """Run one command line; `say` gets each answer line as it comes. `data` answers a text prompt.

        Raises `TimedOutError` after `timeout` seconds from the first byte, and `LinkLostError`.
        """
        return await self._channel.converse(commands, timeout, say, data)

    async def ask(self, line: str, timeout: float = STEP, data: bytes | None = None) -> Answer:
        """Run a command line of the daemon's own and return its whole answer. Raises as `run` does."""
        lines: list[str] = []
        room = ANSWER_MAX

        def gather(one: Line) -> None:
            nonlocal room
            room -= len(one.text)
            if room >= 0:
                lines.append(one.text)

        ended = await self.run(parse(line), timeout=timeout, say=gather, data=data)
        log.debug("own command", command=line, final=ended.final.text)
        return Answer(ended.final, tuple(lines), ended.lead)


class Channel:
    """One opening of the port. Give it to `open_port` as the receiver, then `attach` the port."""

    def __init__(
        self,
        *,
        unsolicited: Callable[[tuple[str, ...]], None],
        on_lost: Callable[[str], None],
        on_sent: Callable[[tuple[Command, ...]], None] = lambda _: None,
        gap: float = 0.020,
        prompt_gap: float = 0.050,
        depth: int = DEPTH,
        max_wait: float = MAX_WAIT,
    ) -> None:
        self._unsolicited = unsolicited
        self._on_lost = on_lost
        self._on_sent = on_sent
        self.stuck = False
        """Whether the port was lost because the module behind it does not answer any more."""
        self._gap = gap
        self._prompt_gap = prompt_gap
        self._turns = Turns(depth=depth, max_wait=max_wait)
        self._reader = Reader()
        self._sorter = Sorter()
        self._port: Port | None = None
        self._lost: LinkLostError | None = None
        self._happenings: asyncio.Queue[Happening | LinkLostError] = asyncio.Queue()
        self._quiet: asyncio.TimerHandle | None = None
        self._free_at = 0.0
        self._heard_at = 0.0
        self._in_step = True
        self._strayed = False
        """A final result came while nothing ran: some answer was not its asker's, and the next may not be either."""
        self._resynchronising = False
        self._coming_back: asyncio.Task[None] | None = None

    def attach(self, port: Port) -> None:
        """Take the port that was opened for this channel."""
        self._port = port

    @property
    def load(self) -> int:
        """How many have the port or wait for it."""
        return self._turns.load

    @property
    def depths(self) -> dict[str, int]:
        """How many requests wait for a turn, by asker."""
        return self._turns.depths

    @contextlib.asynccontextmanager
    async def turn(self, asker: str) -> AsyncIterator[Turn]:
        """Wait for the port and have it. Raises `QueueFullError`, `WaitedTooLongError`, `LinkLostError`."""
        await self._turns.take(asker)
        try:
            if self._lost is not None:
                raise self._lost
            yield Turn(self)
        finally:
            self._give_back()

    def confirm(self) -> None:
        """Take note that the module confirmed E0 and V1: from now on only LF ends a line."""
        self._reader.confirmed = True

    def received(self, data: bytes) -> None:
        """Take what the module sent."""
        self._heard_at = asyncio.get_running_loop().time()
        for token in self._reader.feed(data):
            self._sort(token)
        if self._sorter.running is not None:
            self._listen_for_silence()

    def lost(self, why: str) -> None:
        """Take note that the port is gone: whoever holds it or waits for it is told."""
        if self._lost is not None:
            return
        self._lost = LinkLostError(why)
        self._port = None
        self._hush()
        self._happenings.put_nowait(self._lost)
        self._turns.close(self._lost)
        self._on_lost(why)

    def close(self) -> None:
        """Give the port back."""
        port = self._port
        if self._coming_back is not None:
            self._coming_back.cancel()
        self.lost("the port was closed")
        if port is not None:
            port.close()

    async def converse(self, commands: tuple[Command, ...], timeout: float, say: Say, data: bytes | None) -> Ended:
        """Run one exchange; only the holder of the turn may call it."""
        await self._wait_for_gap()
        if self._strayed and not self._resynchronising:
            await self._resynchronise()
        if self._lost is not None:
            raise self._lost
        for token in self._reader.quiet():  # a prompt that stands there is not this command's
            self._sort(token)
        self._happenings = asyncio.Queue()  # what an earlier exchange left behind is not this one's
        exchange = Exchange(commands, PromptKind.TEXT if data is not None else None)
        self._sorter.running = exchange
        self._reader.prompting = data is not None
        self._in_step = False
        try:
            self._write(exchange.text.encode("ascii") + b"\r")
            self._on_sent(commands)
            async with asyncio.timeout(timeout):
                ended = await self._listen(exchange, say, data)
        except TimeoutError as error:
            raise TimedOutError(f"no final result within {timeout:g} s") from error
        finally:
            self._reader.prompting = False
            self._free_at = asyncio.get_running_loop().time() + self._gap
        self._in_step = True
        return ended

    async def _listen(self, exchange: Exchange, say: Say, data: bytes | None) -> Ended:
        while True:
            happening = await self._happenings.get()
            match happening:
                case Answered(line):
                    say(line)
                case Ended():
                    return happening
                case Send(octets):
                    self._write(octets)
                case Prompted() if data is not None:
                    await asyncio.sleep(self._prompt_gap)
                    if exchange.state is State.PROMPTED:  # else it ended meanwhile, and the data would be a command
                        self._write(data + CTRL_Z)
                        exchange.data_ended()
                case LinkLostError():
                    raise happening
                case _:
                    pass

    def _sort(self, token: Line | object) -> None:
        idle = self._sorter.running is None
        for happening in self._sorter.feed(token):  # type: ignore[arg-type]
            self._strayed = self._strayed or (idle and _is_stray_final(happening))
            if isinstance(happening, Unsolicited):
                self._unsolicited(happening.lines)
            else:
                self._happenings.put_nowait(happening)

    def _write(self, data: bytes) -> None:
        if self._port is not None:
            self._port.write(data)

    async def _wait_for_gap(self) -> None:
        wait = self._free_at - asyncio.get_running_loop().time()
        if wait > 0:
            await asyncio.sleep(wait)

    def _listen_for_silence(self) -> None:
        self._hush()
        self._quiet = asyncio.get_running_loop().call_later(QUIET, self._silent)

    def _hush(self) -> None:
        if self._quiet is not None:
            self._quiet.cancel()
            self._quiet = None

    def _silent(self) -> None:
        self._quiet = None
        for token in self._reader.quiet():
            self._sort(token)

    def _give_back(self) -> None:
        """Let the next one have the port, once it is in step."""
        if self._in_step or self._lost is not None:
            self._turns.release()
        else:
            self._coming_back = asyncio.get_running_loop().create_task(self._come_back(), name="resynchronise")

    async def _come_back(self) -> None:
        """Leave the command that was given up, and come back in step (REQ-7); a port that stays stuck is lost."""
        try:
            await self._leave()
            await self._resynchronise()
        except LinkLostError:
            pass
        finally:
            self._coming_back = None
            self._turns.release()

    async def _resynchronise(self) -> None:
        self._resynchronising = True
        try:
            for number in range(RESYNC_ROUNDS):
                names = ("+CMEE", "+CMGF") if number % 2 == 0 else ("+CMGF", "+CMEE")
                if await self._in_step_again(names) and not self._strayed:
                    self._in_step = True
                    log.info("the port is in step again", rounds=number + 1)
                    return
        finally:
            self._resynchronising = False
        self._fail("the module does not answer any more")

    async def _leave(self) -> None:
        exchange = self._sorter.running
        if exchange is None:
            return
        for happening in exchange.give_up():
            if isinstance(happening, Send):
                self._write(happening.data)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LEAVE):
                await self._listen(exchange, lambda _: None, None)
        self._sorter.reset()

    async def _in_step_again(self, names: tuple[str, str]) -> bool:
        """Whether, after a silence, AT and two different reads are each answered with their own (REQ-7)."""
        await self._wait_for_silence()
        self._write(ESC)
        await asyncio.sleep(self._gap)
        self._reader.reset()
        self._sorter.reset()
        self._strayed = False  # what came so far: some modules answer ESC by OK where there was no prompt
        turn = Turn(self)
        try:
            await turn.ask("AT")
            for name in names:
                answer = await turn.ask(f"AT{name}?")
                if answer.value(name) is None:
                    return False
        except TimedOutError:
            return False
        return True

    async def _wait_for_silence(self) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + LEAVE
        while loop.time() < until and (wait := self._heard_at + QUIET - loop.time()) > 0:  # noqa: ASYNC110 - silence is no event
            await asyncio.sleep(max(wait, _LEAST_WAIT))

    def _fail(self, why: str) -> None:
        self.stuck = True
        port, self._port = self._port, None
        if port is not None:
            port.close()
        self.lost(why)


_LEAST_WAIT: Final = 0.001
"""Seconds: less than that is rounding, and the loop would turn on the spot."""


def _is_stray_final(happening: Happening) -> bool:
    """Whether a line that came while nothing ran would have ended a command."""
    if not isinstance(happening, Unsolicited):
        return False
    final = classify(happening.lines[0])
    return final is not None and not final.kind.of_a_call
