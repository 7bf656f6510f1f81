# SPDX-License-Identifier: Apache-2.0
"""Hazardous commands that wait for their confirmation, and the undo of those that get none (POL-2).

Rules of this file: the undo is on disk, with its time, before the command runs; from then on nothing but a confirmation
or an undo that the module answered with OK ends it, whatever crashes.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from atrund.at.syntax import Command, parse
from atrund.atrun.request import Door, Request
from atrund.atrun.undo import (
    CONFIRM_AFTER,
    OPEN_MAX,
    Armed,
    Event,
    Life,
    Plan,
    State,
    UndoImpossible,
    before,
    retry_after,
    together,
    undoing,
)
from atrund.ledger import Ledger, StorageError, nvm
from atrund.mirror import Mirror
from atrund.module.channel import Channel
from atrund.module.turn import STEP, Answer, LinkLostError, TimedOutError, Turn
from atrund.module.turns import URGENT, QueueFullError, WaitedTooLongError

log = structlog.get_logger()

UNDO_TIMEOUT: Final = 180.0
"""Seconds for one command of an undo: +COPS=0 searches for a network (3GPP TS 27.007 7.3)."""
LOAD_RETRY: Final = 60.0
"""Seconds between two tries to read what waits, while the ledger can't be read."""

TICK: Final = 0.001
"""Seconds that sums of times may be off by: a wait that ended a little early must not begin again and again."""


class NotArmedError(Exception):
    """The undo could not be made or is not on disk, so the command must not run. The text says why."""


@dataclass(slots=True)
class _Open:
    armed: Armed
    life: Life
    tries: int = 0
    next: float = 0.0


class Confirmations:
    """What is open. `run` it as long as the daemon runs."""

    def __init__(
        self, *, ledger: Ledger, mirror: Mirror, channel: Callable[[], Channel | None], after: float = CONFIRM_AFTER
    ) -> None:
        self._ledger = ledger
        self._mirror = mirror
        self._channel = channel
        self.after = after
        """Seconds until what is armed from now on is undone."""
        self._open: dict[int, _Open] = {}
        self._news = asyncio.Event()

    def lines(self) -> dict[int, str]:
        """Return the line of each open one by its id, the one with the least time left first."""
        ordered = sorted(self._open.values(), key=lambda one: (one.armed.due, one.armed.id))
        return {one.armed.id: one.armed.line(self._ledger.run) for one in ordered}

    async def arm(self, plan: Plan, request: Request, turn: Turn) -> str:
        """Read the old values, put the undo on disk, and return the line that tells of it.

        "" where the commands set what is there already: nothing can be undone, and nothing waits. Raises
        `NotArmedError`, and `TimedOutError` and `LinkLostError` as a turn does.
        """
        answers = {read: (await _ask(turn, read, STEP)).lines for read in plan.reads}
        try:
            undo = plan.undo_line(answers)
        except UndoImpossible as error:
            raise NotArmedError(str(error)) from error
        if not undo:
            return ""
        if len(self._open) >= OPEN_MAX:
            raise NotArmedError(f"{OPEN_MAX} commands wait for their confirmation already")
        due = self._ledger.run + self.after
        write = nvm.arm(undo, due=due, rid=request.rid, door=request.door.value, peer=request.peer)
        putting = asyncio.ensure_future(self._ledger.durable(write))
        try:
            (armed,) = await asyncio.shield(putting)
        except StorageError as error:
            raise NotArmedError(str(error)) from error
        except asyncio.CancelledError:
            # The command is not run, so that its undo must not be either, long after, at some restart.
            putting.add_done_callback(self._take_back)
            raise
        life = Life()
        life.step(Event.RECORDED)
        self._open[armed.id] = opened = _Open(armed, life, next=armed.due)
        self._tell(opened, f"to be confirmed within {self.after:g} s")
        self._news.set()
        line: str = armed.line(self._ledger.run)
        return line

    async def confirm(self, id_: int) -> None:
        """Leave things as they are. Raises `StorageError` when that can't be recorded."""
        await self._ledger.durable(nvm.disarm(id_))
        if (found := self._open.pop(id_, None)) is not None:
            found.life.step(Event.CONFIRMED)
            self._tell(found, "confirmed")

    def look(self) -> None:
        """Take note that the module is there (again): what is due is undone before anybody else's turn."""
        for one in self._open.values():
            if one.life.state is State.UNDOING:
                one.next = self._ledger.run
        self._news.set()

    async def run(self) -> None:
        """Take up what a restart interrupted, then undo what nobody confirms in time."""
        await self._take_up()
        while True:
            self._news.clear()
            now = self._ledger.run
            due = [one for one in self._open.values() if one.next <= now + TICK]
            if due:
                oldest = min(one.armed.id for one in due)
                group = together(one.armed for id_, one in self._open.items() if id_ >= oldest)
                await self._undo([self._open[armed.id] for armed in group])
                continue
            first = min((one.next for one in self._open.values()), default=None)
            try:
                async with asyncio.timeout(None if first is None else first - self._ledger.run):
                    await self._news.wait()
            except TimeoutError:
                pass

    async def _take_up(self) -> None:
        said = ""
        while True:
            try:
                found: list[Armed] = await self._ledger.ask(nvm.armed())
            except StorageError as error:
                if str(error) != said:
                    log.error("open confirmations unknown", detail=str(error))  # noqa: TRY400 - said whole
                said = str(error)
                await asyncio.sleep(LOAD_RETRY)
                continue
            for armed in found:
                if why := _unusable(armed):
                    log.error("an undo can't be run and is left in the ledger", detail=why, id=armed.rid)
                else:
                    life = Life(State.ARMED)
                    life.step(Event.FOUND_AFTER_RESTART)
                    self._open.setdefault(armed.id, _Open(armed, life, next=armed.due))
            return

    async def _undo(self, group: list[_Open]) -> None:
        """Undo one whose time is over, and with it the younger ones that rest on it."""
        for one in group:
            if one.life.state is State.ARMED:
                self._tell(one, "not confirmed in time")
            one.life.step(Event.TIME_OVER)
        why = await self._run_undo(group)
        if not why:
            try:
                await self._ledger.durable(*(nvm.disarm(one.armed.id) for one in group))
            except StorageError as error:
                why = str(error)  # undone, and undone once more: an undo sets what was there before
        for one in group:
            if one.armed.id not in self._open:  # confirmed meanwhile
                continue
            if not why:
                one.life.step(Event.OK)
                del self._open[one.armed.id]
                self._tell(one, "undone")
                continue
            one.life.step(Event.NOT_OK)
            one.tries += 1
            one.next = self._ledger.run + retry_after(one.tries)
            armed = one.armed
            log.warning("undo failed", id=armed.rid, door=armed.door, peer=armed.peer, detail=why, tries=one.tries)

    async def _run_undo(self, group: list[_Open]) -> str:
        """Run each command of the undo as a line of its own, so that one that fails holds up none; why any did."""
        channel = self._channel()
        if channel is None:
            return "the module is absent or being set up"
        failed = []
        try:
            async with channel.turn(URGENT, what="undo", rid=group[0].armed.rid) as turn:
                for command in undoing(one.armed for one in group if one.armed.id in self._open):
                    final = (await _ask(turn, command, UNDO_TIMEOUT)).final
                    failed += [] if final.ok else [f"{command.name}: {final.text}"]
        except (LinkLostError, TimedOutError, QueueFullError, WaitedTooLongError) as error:
            return str(error)
        return "; ".join(failed)

    def _take_back(self, putting: "asyncio.Future[list[Armed]]") -> None:
        if not putting.cancelled() and putting.exception() is None:
            self._ledger.behind(nvm.disarm(putting.result()[0].id))

    def _tell(self, one: _Open, what: str) -> None:
        armed = one.armed
        self._ledger.behind(*self._mirror.session(Door(armed.door), armed.peer, f"command {what}", None, armed.rid))


async def _ask(turn: Turn, command: Command, timeout: float) -> Answer:
    for line in before(command):
        await turn.ask(f"AT{line}")
    return await turn.ask(f"AT{command}", timeout=timeout)


def _unusable(armed: Armed) -> str:
    """Return what is wrong with a row of the ledger, or ""; nothing of what it holds is shown."""
    try:
        Door(armed.door)
        parse(armed.undo)
    except (ValueError, TypeError, AttributeError):  # `LineRefused` among them
        return f"undo {armed.id}: no command line, or none of a door"
    due: object = armed.due
    return "" if isinstance(due, float) else f"undo {armed.id}: no time"
