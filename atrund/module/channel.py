# SPDX-License-Identifier: Apache-2.0
"""Turns on one opening of the port: a holder has it for one or more exchanges; then whoever is next.

Rules of this file: a channel lives as long as its port; afterwards every turn ends `LinkLostError`. Whoever leaves a
command behind (deadline, cancellation, data mode) does not wait for the port to come back in step, but the next holder
does.
"""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final

import structlog

from atrund.at.belonging import Belonging
from atrund.at.exchange import (
    CTRL_Z,
    ESC,
    Answered,
    Ended,
    Exchange,
    Fill,
    Happening,
    Prompted,
    Send,
    Sorter,
    Stand,
    State,
    Unsolicited,
    Why,
)
from atrund.at.feed import Feed, Finish
from atrund.at.prompts import asks
from atrund.at.reader import Prompt, PromptKind, Reader, Token
from atrund.at.results import ERROR, FinalKind, classify
from atrund.at.results import Final as FinalResult
from atrund.at.syntax import Command
from atrund.atrun.interface import is_remembered
from atrund.module.datamode import DataMode
from atrund.module.direct import Begun, Direct
from atrund.module.feeding import FILL_RATE, Feeding
from atrund.module.latecomers import LateLines
from atrund.module.port import Port
from atrund.module.turn import LinkLostError, Say, TimedOutError, Turn, UnfedError
from atrund.module.turns import DEPTH, MAX_WAIT, Place, Turns
from atrund.timer import Timer

log = structlog.get_logger()

QUIET: Final = 0.3
"""Seconds of silence after which a lone `> ` is a prompt, and the line counts as silent (REQ-7)."""
LEAVE: Final = 5.0
"""Seconds that a command may take to end after it was told to, by ESC or the character that aborts it."""
LEAVE_MAX: Final = 180.0
"""Seconds that a command which can't be told is waited for at most: the longest that any takes. With the 300 s that a
request has by default and the way back in step it is less than others wait for their turn (`queue.max_wait`)."""
STANDING: Final = 20.0
"""Seconds of waiting at a prompt for nobody knows how many bytes: a module that gives such a one up does so sooner."""
RESYNC_ROUNDS: Final = 5
"""Rounds to come back in step: each outlasts a late answer of one command."""


class Channel:
    """One opening of the port. Give it to `open_port` as the receiver, then `attach` the port."""

    def __init__(
        self,
        *,
        unsolicited: Callable[[tuple[str, ...]], None],
        on_lost: Callable[[str], None],
        on_sent: Callable[[tuple[Command, ...]], None] = lambda _: None,
        on_in_step: Callable[[], None] = lambda: None,
        gap: float = 0.020,
        prompt_gap: float = 0.050,
        depth: int = DEPTH,
        max_wait: float = MAX_WAIT,
        weights: Mapping[str, int] | None = None,
    ) -> None:
        """`on_in_step` is told when the port came back in step: whatever put it out may have changed its settings."""
        self._unsolicited = unsolicited
        self._on_lost = on_lost
        self._on_sent = on_sent
        self._on_in_step = on_in_step
        self.stuck = False
        """Whether the port was lost because the module behind it does not answer any more."""
        self._left: Belonging | None = None
        """What the answer would be like of a command that was left, until the port is in step again."""
        self.present: dict[str, str] = {}
        """What the port was last given of the settings that the module keeps per port, by command; "": not known."""
        self._gap = gap
        self._prompt_gap = prompt_gap
        self._turns = Turns(depth=depth, max_wait=max_wait, weights=weights)
        self._reader = Reader()
        self._sorter = Sorter()
        self._port: Port | None = None
        self._lost: LinkLostError | None = None
        self._happenings: asyncio.Queue[Happening | _Given | LinkLostError] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._direct = Direct()
        self._quiet = Timer()
        self._free_at = 0.0
        self._heard_at = 0.0
        self._sent_at = 0.0
        self._written_at = 0.0
        self._in_step = True
        self._strayed = False
        """A final result came while nothing ran: some answer was not its asker's, and the next may not be either."""
        self._data_mode = DataMode(self._believe_connect)
        self._feeding = Feeding(self._write, lambda: 0 if self._port is None else self._port.unsent)
        self._settings_kept = True
        self._standing = self._counted = False
        """A prompt was seen, and nothing done about it yet; and one stands there, or may, that takes ESC for data."""
        self.late = LateLines()
        self._resynchronising = False
        self._coming_back: asyncio.Task[None] | None = None

    def attach(self, port: Port) -> None:
        """Take the port that was opened for this channel."""
        self._port = port

    @property
    def in_data_call(self) -> bool:
        """Whether the port is in data mode as far as is known; the next command ends that."""
        return self._data_mode.suspected

    @property
    def load(self) -> int:
        """How many have the port or wait for it."""
        return self._turns.load

    @property
    def depths(self) -> dict[str, int]:
        """How many requests wait for a turn, by asker."""
        return self._turns.depths

    @property
    def line_up(self) -> tuple[Place | None, tuple[Place, ...]]:
        """Who has the port, and who waits, in the order of their turns."""
        return self._turns.holder, tuple(self._turns.queue())

    def keep_for(self, asker: str, why: str) -> None:
        """Keep the port for one asker: everybody else who waits or comes is told `LinkLostError`."""
        self._turns.keep_for(asker, LinkLostError(why))

    def open_to_all(self) -> None:
        """End what `keep_for` began."""
        self._turns.open_to_all()

    @contextlib.asynccontextmanager
    async def turn(self, asker: str, *, what: str = "", rid: str = "") -> AsyncIterator[Turn]:
        """Wait for the port and have it. Raises `QueueFullError`, `WaitedTooLongError`, `LinkLostError`."""
        turn = await self.take(asker, what=what, rid=rid)
        try:
            yield turn
        finally:
            self.give_back()

    async def take(self, asker: str, *, what: str = "", rid: str = "") -> Turn:
        """Take a turn as `turn` does, to be given back with `give_back`. Raises as that does."""
        await self._turns.take(asker, what=what, rid=rid)
        if self._lost is not None:
            self.give_back()
            raise self._lost
        return Turn(self)

    def take_now(self, asker: str, *, what: str = "", rid: str = "") -> Turn | None:
        """Take a turn as `take` does, but only if nobody has the port; else return None."""
        return Turn(self) if self._turns.take_now(asker, what=what, rid=rid) else None

    def give_back(self) -> None:
        """Let the next one have the port, once it is in step."""
        self._direct.drop()
        if self._in_step or self._lost is not None:
            self._turns.release()
        else:
            self._coming_back = self._loop.create_task(self._come_back(), name="resynchronise")

    def confirm(self) -> None:
        """Take note that the module confirmed E0 and V1: from now on only LF ends a line."""
        self._reader.confirmed = True

    def received(self, data: bytes) -> None:
        """Take what the module sent."""
        self._heard_at = self._loop.time()
        for token in self._reader.feed(data):
            self._sort(token)
        if self._sorter.running is not None:
            self._quiet.start(QUIET, self._silent)
        else:
            self._quiet.stop()  # what stands there is for the next command to find
        self._tell_end()

    def lost(self, why: str) -> None:
        """Take note that the port is gone: whoever holds it or waits for it is told."""
        if self._lost is not None:
            return
        self._lost = LinkLostError(why)
        self._port = None
        self._quiet.close()
        self._direct.close()
        self._data_mode.hear_answer()
        self.late.close()
        self._happen(self._lost)
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

    async def converse(
        self, commands: tuple[Command, ...], timeout: float, say: Say, data: bytes | None, feed: Feed | None = None
    ) -> Ended:
        """Run one exchange; only the holder of the turn may call it."""
        begun = self._direct.take_over()
        if begun is not None:
            exchange, timeout, due = begun.exchange, begun.timeout, begun.due
        else:
            await self._make_way()
            exchange = Exchange(commands, PromptKind.TEXT if data is not None else None, is_fed=feed is not None)
            due = self._send(exchange, prompting=data is not None or asks(commands)) + timeout
        try:
            async with asyncio.timeout_at(due) as limit:
                ended = await self._listen(exchange, say, limit, data, feed)
        except TimeoutError as error:
            if feed is not None and feed.is_open:
                raise UnfedError(f"the data for the prompt did not end within {round(timeout, 1):g} s") from error
            if exchange.stands:  # whatever came first, it was left for its prompt
                return Ended(ERROR, lead=True, why=Why.COUNT)
            if self._data_mode.suspected:
                return Ended(ERROR, lead=True, why=Why.DATA_MODE)
            raise TimedOutError(f"no final result within {round(timeout, 1):g} s") from error
        finally:
            if feed is not None:
                feed.close()
            self._leave_alone()
        self._take_note(exchange, ended)
        return ended

    def begin(
        self,
        commands: tuple[Command, ...],
        timeout: float,
        say: Say,
        tell: Callable[[Ended], None],
        wait: Callable[[], None],
    ) -> bool:
        """Begin an exchange, if nothing has to be waited for before it; the rest says `Turn.begin`."""
        late = self._free_at > self._loop.time()
        if late or self._lost is not None or self._strayed or self._data_mode.suspected or self._prompt_stands():
            return False
        exchange = Exchange(commands)
        if not self._happenings.empty():
            self._happenings = asyncio.Queue()  # as in `_make_way`
        self._direct.begin(Begun(exchange, timeout, self._loop.time() + timeout, say, tell, wait))
        self._send(exchange, prompting=False)
        return True

    async def recover(self) -> None:
        """Come back in step within a turn, for one that has more to do in it."""
        if not self._resynchronising:
            await self._leave()
            await self._resynchronise()

    def leave_prompt(self) -> None:
        """Write ESC, which ends a text prompt (REQ-6)."""
        self._write(ESC)

    async def fill_prompt(self) -> None:
        """Write zero bytes, which a prompt may still wait for that was left by whoever had the port before."""
        await self._feeding.flood()

    async def _make_way(self) -> None:
        """Wait until a command can be sent, and bring the port in step if it is not."""
        await self._wait_for_gap()
        prompt_stands, self._standing = self._prompt_stands(), False
        if not self._resynchronising and (prompt_stands or self._strayed or self._data_mode.suspected):
            self._in_step = False  # whoever is cancelled meanwhile leaves the rest of the way to the next
            await self._resynchronise()
        elif prompt_stands:
            raise TimedOutError("a prompt stands there, which would take the command for data")
        if self._lost is not None:
            raise self._lost
        self._happenings = asyncio.Queue()  # what an earlier exchange left behind is not this one's

    def _send(self, exchange: Exchange, *, prompting: bool) -> float:
        """Send a command line, and return when that was."""
        self._sorter.running = exchange
        self._reader.prompting = prompting
        self._in_step = False
        commands = exchange.commands
        for command in commands:
            if is_remembered(command):
                self.present[command.name] = ""
        self._write(exchange.text.encode("ascii") + b"\r")
        self._sent_at = self._written_at
        self._on_sent(commands)
        return self._sent_at

    def _leave_alone(self) -> None:
        """Leave the port to the next command."""
        self._reader.prompting = False
        self._free_at = self._loop.time() + self._gap

    def _take_note(self, exchange: Exchange, ended: Ended) -> None:
        """Take note of how a command line ended."""
        self._in_step = ended.why is not Why.DATA_MODE
        if ended.final.ok and ended.why is None:
            for command in exchange.commands:
                if is_remembered(command):
                    self.present[command.name] = command.args

    def _happen(self, happening: "Happening | _Given | LinkLostError") -> None:
        """Pass on what happened to the command line that runs."""
        if not self._direct.takes(happening):
            self._happenings.put_nowait(happening)

    def _tell_end(self) -> None:
        """Tell of the end of a line that no task waits for, once all is sorted that came with it."""
        if (found := self._direct.take_end()) is not None:
            begun, ended = found
            self._leave_alone()
            self._take_note(begun.exchange, ended)
            begun.tell(ended)

    async def _listen(
        self, exchange: Exchange, say: Say, limit: asyncio.Timeout, data: bytes | None = None, feed: Feed | None = None
    ) -> Ended:
        while True:
            happening = await self._happenings.get()
            match happening:
                case Answered(line):
                    say(line)
                case Ended():
                    return happening
                case LinkLostError():
                    raise happening
                case Prompted() if feed is not None:
                    await self._show(exchange, happening, feed)
                case _Given() if feed is not None:
                    await self._pass_on(exchange, feed)
                case Prompted() if data is not None:
                    await asyncio.sleep(self._prompt_gap)
                    if exchange.state is State.PROMPTED:  # else it ended meanwhile, and the data would be a command
                        self._write(data + CTRL_Z)
                        exchange.data_ended()
                case _:
                    await self._leave_prompt(exchange, happening, limit)

    async def _leave_prompt(self, exchange: Exchange, happening: object, limit: asyncio.Timeout) -> None:
        match happening:
            case Send(octets):
                self._write(octets)
            case Fill(count):
                await asyncio.sleep(self._prompt_gap)
                if exchange.state is not State.ENDED:
                    log.warning("a prompt that nobody can answer is filled with zero bytes", count=count)
                    await self._feeding.fill(exchange, count)
            case Stand():
                log.warning("a prompt that nobody can answer, for nobody knows how many bytes")
                standing = self._loop.time() + STANDING
                limit.reschedule(min(limit.when() or math.inf, standing))
            case _:
                pass

    async def _show(self, exchange: Exchange, prompt: Prompted, feed: Feed) -> None:
        """Pass a prompt on to the one who types."""
        self._reader.prompting = True  # a text's next line has one of its own
        if prompt.again:
            feed.ask_again(prompt)
            return
        await asyncio.sleep(self._prompt_gap)
        if exchange.state is State.PROMPTED:
            feed.open(prompt, self._given)

    def _given(self) -> None:
        self._happen(_Given())

    async def _pass_on(self, exchange: Exchange, feed: Feed) -> None:
        """Write what was typed at a prompt, for as long as it stands."""
        await self._feeding.pass_on(exchange, feed)
        if exchange.state is not State.PROMPTED:
            return
        if feed.finish is Finish.WHOLE:
            exchange.data_ended()
        elif feed.finish is Finish.GIVEN_UP:
            self._tell(exchange)

    def _tell(self, exchange: Exchange) -> list[Happening]:
        """Give a command up, and return what it says to that; what it sends is sent."""
        told = exchange.give_up()
        for happening in told:
            if isinstance(happening, Send):
                self._write(happening.data)
            else:
                self._happen(happening)
        return told

    def _sort(self, token: Token) -> None:
        if self._data_mode.takes(token):
            return
        idle = self._sorter.running is None
        for happening in self._sorter.feed(token):
            if isinstance(happening, Unsolicited):
                self._take_unsolicited(happening, idle=idle)
                continue
            if isinstance(happening, Answered | Ended):
                self._data_mode.hear_answer()
            if isinstance(happening, Ended) and happening.why is Why.DATA_MODE:
                self._data_mode.enter()
            self._happen(happening)

    def _take_unsolicited(self, code: Unsolicited, *, idle: bool) -> None:
        line = code.lines[0]
        final = classify(line)
        self._strayed = self._strayed or (idle and (_is_stray(final) or line.startswith(_PROMPTS)))
        if final is not None and final.kind is FinalKind.CONNECT:
            running = self._sorter.running
            self._data_mode.hear_connect(None if running is None else running.longest)
        if self.late.take(line):
            return
        if _is_stray(final) or (self._left is not None and self._left.answers(line)):
            log.debug("a late answer is nobody's", characters=len(line))  # and perhaps another's secret
            return
        self._loop.call_soon(self._unsolicited, code.lines)  # who fails or asks for more takes no answer away

    def _believe_connect(self) -> None:
        for happening in self._sorter.connected():
            self._happen(happening)
        self._data_mode.enter()

    def _prompt_stands(self) -> bool:
        """Whether a prompt that is nobody's stands there; the next command would be taken for its data."""
        standing = [token for token in self._reader.quiet() if isinstance(token, Prompt)]
        self._counted = self._counted or any(prompt.kind is PromptKind.COUNTED for prompt in standing)
        self._standing = self._standing or bool(standing)
        return self._standing

    def _write(self, data: bytes) -> None:
        self._written_at = self._loop.time()
        if self._port is not None:
            self._port.write(data)

    async def _wait_for_gap(self) -> None:
        wait = self._free_at - self._loop.time()
        if wait > 0:
            await asyncio.sleep(wait)

    def _silent(self) -> None:
        for token in self._reader.quiet():
            self._sort(token)
        self._tell_end()

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
                    self._counted = False
                    self._left = None
                    log.info("the port is in step again", rounds=number + 1, settings_kept=self._settings_kept)
                    break
            else:
                self._fail("the module does not answer any more")
                return
        finally:
            self._resynchronising = False
        self._on_in_step()

    async def _leave(self) -> None:
        exchange = self._sorter.running
        if exchange is None:
            return
        self._left = Belonging(exchange.commands)
        told = self._tell(exchange)
        patience = LEAVE + sum(happening.count for happening in told if isinstance(happening, Fill)) / FILL_RATE
        if not told and not self._data_mode.suspected:  # it can only be waited for (REQ-7)
            due = self._sent_at + exchange.longest - self._loop.time()
            patience = min(max(LEAVE, due), LEAVE_MAX)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience) as limit:
                await self._listen(exchange, lambda _: None, limit)
        self._counted = self._counted or (exchange.counted and exchange.state is not State.ENDED)
        self._sorter.reset()

    async def _in_step_again(self, names: tuple[str, str]) -> bool:
        """Whether, after a silence, AT and two different reads are each answered with their own (REQ-7)."""
        if self._data_mode.suspected and self._port is not None:
            await self._data_mode.leave(self._port, self._written_at)
        await self._wait_for_silence()
        if not self._counted:
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
                if (value := answer.value(name)) is None:
                    return False
                if name == "+CMEE":
                    self._settings_kept = value == ("1",)
        except TimedOutError:
            return False
        return True

    async def _wait_for_silence(self) -> None:
        loop = self._loop
        until = loop.time() + LEAVE
        while loop.time() < until and (wait := self._heard_at + QUIET - loop.time()) > 0:  # noqa: ASYNC110 - silence is no event
            await asyncio.sleep(max(wait, _LEAST_WAIT))

    def _fail(self, why: str) -> None:
        self.stuck = True
        port, self._port = self._port, None
        if port is not None:
            port.close()
        self.lost(why)


class _Given:
    """Something was typed at a prompt."""


_LEAST_WAIT: Final = 0.001
"""Seconds: less than that is rounding, and the loop would turn on the spot."""


_PROMPTS: Final = tuple(kind.value.decode("ascii") for kind in PromptKind)
"""A prompt with something behind it, while nothing runs, still is one."""


def _is_stray(final: FinalResult | None) -> bool:
    """Whether a line that came while nothing ran would have ended a command."""
    return final is not None and not final.kind.of_a_call
