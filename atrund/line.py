# SPDX-License-Identifier: Apache-2.0
"""One command line in its turn: what the daemon answers itself and what the module does, in order (REQ-4, CMD-1).

Rules of this file: the first error ends the line, which has one final result; its deadline runs over all of it; what
the asker's instance has set is put in place on the port in the same turn.
"""

import asyncio
from dataclasses import dataclass
from typing import Final

from atrund.at.exchange import Ended, Why
from atrund.at.feed import Feed
from atrund.at.prompts import asks
from atrund.at.reader import Line
from atrund.at.syntax import Command, parse
from atrund.atrun import commands, reporting
from atrund.atrun.commands import Kind, Segment
from atrund.atrun.family.sockets import is_socket
from atrund.atrun.interface import prelude
from atrund.atrun.request import Reason, Request
from atrund.module.channel import Channel
from atrund.module.turn import Say, Turn
from atrund.own import Own

_OK: Final = "OK"


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
    ) -> None:
        """`feed`: what gives the data for prompts, if the asker can."""
        self._request = request
        self._own = own
        self._channel = channel
        self._turn = turn
        self._say = say
        self._feed = feed
        self._until = asyncio.get_running_loop().time() + request.timeout

    async def run(self, line: tuple[Command, ...]) -> Ending:
        """Run it. Raises `TimedOutError` and `LinkLostError` as a turn does."""
        if not line:  # whether the module is there is what a bare AT asks
            return await self._send((), self._say)
        ending, rest = Ending(_OK, ok=True), line
        while rest and ending.ok:
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
        """Send it whole; but a command whose prompt is to be served alone, so that it is known whose prompt it is."""
        ending = Ending(_OK, ok=True)
        for piece in (line,) if self._feed is None else _pieces(line):
            ending = await self._send_piece(piece, say)
            if not ending.ok:
                break
        return ending

    async def _send_piece(self, line: tuple[Command, ...], say: Say) -> Ending:
        assert self._turn is not None  # noqa: S101 - a line with a command of the module's has a turn
        assert self._channel is not None  # noqa: S101 - as above
        interface = self._own.interface(self._request.instance)
        for before in prelude(line, interface, self._channel.present, self._own.home()):
            ended = await self._turn.run((before,), timeout=self._left(), say=_ignore)
            if not ended.final.ok:
                return _ending(ended)
        return _ending(await self._turn.run(line, timeout=self._left(), say=say, feed=self._feed))

    def _left(self) -> float:
        return max(0.0, self._until - asyncio.get_running_loop().time())


def needs_turn(line: tuple[Command, ...], own: Own) -> bool:
    """Whether a line has anything for the module, or may have once one of its commands was carried out."""
    if any(command.name == "#TCPATRUNCFG" for command in line) and any(map(is_socket, line)):
        return True  # whose socket `#SCFG` sets is known only behind it
    return not line or any(segment.kind is not Kind.OWN for segment in commands.plan(line, own.settings))


def _pieces(line: tuple[Command, ...]) -> list[tuple[Command, ...]]:
    """Cut a line before and behind each command that asks for data; one that does not is one piece."""
    pieces: list[list[Command]] = [[]]
    for command in line:
        if pieces[-1] and (asks([command]) or asks(pieces[-1])):
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
