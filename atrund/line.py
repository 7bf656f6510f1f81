# SPDX-License-Identifier: Apache-2.0
"""One command line in its turn: what the daemon answers itself and what the module does, in order (REQ-4, CMD-1).

Rules of this file: the first error ends the line, which has one final result; its deadline runs over all of it; what
the asker's instance has set is put in place on the port in the same turn.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from atrund.at.exchange import Ended, Why
from atrund.at.feed import Feed
from atrund.at.late import window
from atrund.at.prompts import asks
from atrund.at.reader import Line
from atrund.at.syntax import Command, Op, parse
from atrund.atrun import commands, reporting
from atrund.atrun.commands import Kind, Segment
from atrund.atrun.family.sockets import is_socket
from atrund.atrun.instance import code_of
from atrund.atrun.interface import Interface, prelude
from atrund.atrun.request import Reason, Request
from atrund.module.channel import Channel
from atrund.module.turn import Say, Turn
from atrund.own import Own

if TYPE_CHECKING:  # imported where it is needed, which is rare
    from atrund.inbox import Recorder

_OK: Final = "OK"
_CONNECT: Final = "CONNECT"


@dataclass(frozen=True, slots=True)
class Ending:
    """How a line ended: its final result as under +CMEE=1, and why the daemon ended it, if that was not the module.

    `of_door`: the module's own final result is of no use, for the door could not give it what it asked for.
    """

    final: str
    ok: bool
    reason: Reason | None = None
    detail: str = ""
    of_door: bool = False


class LineRun:
    """Runs a parsed line. Without a turn it holds no command of the module's."""

    def __init__(  # noqa: PLR0917 - one caller, who has it all
        self,
        request: Request,
        own: Own,
        channel: Channel | None,
        turn: Turn | None,
        say: Say,
        feed: Feed | None = None,
        recorder: "Recorder | None" = None,
    ) -> None:
        """`feed`: what gives the data for prompts, if the asker can. `recorder`: the SMS door, while it is on."""
        self._request = request
        self._own = own
        self._channel = channel
        self._turn = turn
        self._say = say
        self._feed = feed
        self._recorder = recorder
        self._loop = asyncio.get_running_loop()
        self._until = self._loop.time() + request.timeout

    def begin(self, line: tuple[Command, ...], tell: Callable[[Ending], None], wait: Callable[[], None]) -> bool:
        """Begin to run a line that is the module's as it stands, if nothing has to be waited for before it.

        Returns whether it was. `tell` gets its ending, or `wait` is told that somebody is to `take_up` the line.
        """
        if self._turn is None or not self._is_plain(line):
            return False
        return self._turn.begin(
            line, timeout=self._left(), say=self._say, tell=lambda ended: tell(_ending(ended)), wait=wait
        )

    async def take_up(self, line: tuple[Command, ...]) -> Ending:
        """Wait for the end of a line that `begin` began. Raises as `run` does."""
        assert self._turn is not None  # noqa: S101 - else it was not begun
        return _ending(await self._turn.run(line, timeout=self._left(), say=self._say, feed=self._feed))

    async def run(self, line: tuple[Command, ...]) -> Ending:
        """Run it. Raises `TimedOutError` and `LinkLostError` as a turn does."""
        if not line:  # whether the module is there is what a bare AT asks
            return await self._send((), self._say)
        ending, rest = Ending(_OK, ok=True), line
        while rest and ending.ok and ending.final != _CONNECT:  # what is behind that is no command (TS 27.007 10.1.12)
            segment, rest = commands.split(rest, self._own.settings)
            ending = await self._run(segment)
        return ending

    async def _run(self, segment: Segment) -> Ending:
        match segment.kind:
            case Kind.OWN:
                return await self._answer(segment.commands[0])
            case Kind.REPORTING:
                return await self._report(segment.commands[0])
            case Kind.SHOWN:
                return await self._show(segment.commands)
            case Kind.KEPT:
                ending = await self._send(segment.commands, self._say)
                return await self._answer(segment.commands[0]) if ending.ok else ending
            case Kind.MODULE:
                return await self._send(segment.commands, self._say)

    async def _answer(self, command: Command) -> Ending:
        reply = await self._own.execute(command, self._request)
        for line in reply.answer:
            self._say(line)
        return Ending(reply.final, reply.ok, reply.reason, reply.detail)

    async def _report(self, command: Command) -> Ending:
        """Keep what an instance asked for once the module reports it."""
        reply = self._own.answer(command, self._request)
        if reply.ok:
            wanted = self._own.reports_after(reply, self._request.instance)
            for line in reporting.to_send(wanted, self._own.reported):
                ending = await self._send(parse(line), self._say)
                if not ending.ok:
                    return ending
            self._own.reported = wanted
        return await self._answer(command)

    async def _show(self, line: tuple[Command, ...]) -> Ending:
        gathered: list[Line] = []
        ending = await self._send(line, gathered.append)
        if ending.ok:
            shown = commands.answered(line[0], [one.text for one in gathered], self._own.context(self._request))
            for at, text in enumerate(shown):
                self._say(Line(text, lead=at == 0))
        return ending

    async def _send(self, line: tuple[Command, ...], say: Say) -> Ending:
        """Send it whole; but alone what is to be served alone: who asks for data, and who is after messages."""
        ending = Ending(_OK, ok=True)
        for piece in _pieces(line, self._is_alone):
            if piece and self._is_of_messages(piece[0]):
                ending = await self._send_to_inbox(piece[0], say)
            else:
                ending = _ending(await self._send_piece(piece, say))
            if not ending.ok:
                break
        return ending

    async def _send_piece(self, line: tuple[Command, ...], say: Say) -> Ended:
        assert self._turn is not None  # noqa: S101 - a line with a command of the module's has a turn
        refused = await self._place(line, self._own.interface(self._request.instance))
        return refused or await self._turn.run(line, timeout=self._left(), say=say, feed=self._feed)

    async def _place(self, line: tuple[Command, ...], interface: Interface) -> Ended | None:
        """Put in place what these commands need of an interface; returns what refused that, if anything did."""
        assert self._turn is not None  # noqa: S101 - as above
        assert self._channel is not None  # noqa: S101 - as above
        for before in prelude(line, interface, self._channel.present, self._own.home()):
            ended = await self._turn.run((before,), timeout=self._left(), say=_ignore)
            if not ended.final.ok:
                return ended
        return None

    async def _send_to_inbox(self, command: Command, say: Say) -> Ending:
        from atrund import inbox  # noqa: PLC0415 - rarely needed

        assert self._turn is not None  # noqa: S101 - as above
        assert self._recorder is not None  # noqa: S101 - it says which commands come here
        way = inbox.Way(
            self._turn,
            self._own.interface(self._request.instance),
            self._own.home(),
            place=lambda command, interface: self._place((command,), interface),
            send=lambda command, say: self._send_piece((command,), say),
            left=self._left,
        )
        try:
            return _ending(await inbox.carry_out(command, self._recorder, way, say))
        except inbox.NotRecordedError as error:
            reason = Reason.STORAGE
            return Ending(f"+CME ERROR: {code_of(reason)}", ok=False, reason=reason, detail=f"not begun: {error}")

    def _is_plain(self, line: tuple[Command, ...]) -> bool:
        """Whether a line goes to the module as one, with nothing before it, and is over with its final result."""
        settings = self._own.settings
        for command in line:
            if self._is_of_messages(command) or commands.kind_of(command, settings) is not Kind.MODULE:
                return False
        if asks(line) or window(line) is not None:
            return False
        assert self._channel is not None  # noqa: S101 - as below
        interface = self._own.interface(self._request.instance)
        return not prelude(line, interface, self._channel.present, self._own.home())

    def _is_alone(self, command: Command) -> bool:
        return self._is_of_messages(command) or (self._feed is not None and asks([command]))

    def _is_of_messages(self, command: Command) -> bool:
        return self._recorder is not None and command.name in _OF_MESSAGES and command.op in {Op.SET, Op.EXECUTE}

    def _left(self) -> float:
        return max(0.0, self._until - self._loop.time())


def needs_turn(line: tuple[Command, ...], own: Own) -> bool:
    """Whether a line has anything for the module, or may have once one of its commands was carried out."""
    if any(command.name == "#TCPATRUNCFG" for command in line) and any(map(is_socket, line)):
        return True  # whose socket `#SCFG` sets is known only behind it
    settings = own.settings
    return not line or any(commands.kind_of(command, settings) is not Kind.OWN for command in line)


_OF_MESSAGES: Final = frozenset({"+CMGL", "+CMGR", "+CMGD"})


def _pieces(line: tuple[Command, ...], is_alone: Callable[[Command], bool]) -> list[tuple[Command, ...]]:
    """Cut a line before and behind each command that is to stand alone; one without any is one piece."""
    pieces: list[list[Command]] = [[]]
    for command in line:
        if pieces[-1] and (is_alone(command) or is_alone(pieces[-1][-1])):
            pieces.append([])
        pieces[-1].append(command)
    return [tuple(piece) for piece in pieces]


def _ending(ended: Ended) -> Ending:
    if ended.why is None:
        return Ending(ended.final.text, ended.final.ok)
    if ended.why is Why.GIVEN_UP:
        return Ending(ended.final.text, ok=False, detail="given up at its prompt by ESC", of_door=True)
    reason = Reason.DATA_MODE if ended.why is Why.DATA_MODE else Reason.PROMPT_UNSUPPORTED
    return Ending(ended.final.text, ok=False, reason=reason, detail=_left(ended), of_door=True)


def _left(ended: Ended) -> str:
    """Explain to a person why a command line was left."""
    if ended.why is Why.DATA_MODE:
        return "the module turned the port into a data connection, which was ended"
    if ended.filled:
        return f"the module asked for data that this door cannot give; {ended.filled} zero bytes were written instead"
    if ended.why is Why.COUNT:
        return "the module asked for data that this door cannot give, and the command does not tell how much"
    return "the module asked for data that this door cannot give"


def _ignore(_line: Line) -> None:
    pass
