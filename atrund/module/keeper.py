# SPDX-License-Identifier: Apache-2.0
"""Keeps one port of the module: carries out what the table in `lifecycle` says (MOD-3, MOD-4, MOD-8, MOD-9)."""

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Coroutine
from dataclasses import replace
from typing import Any, Final

import structlog

from atrund.at.syntax import Command
from atrund.module.channel import Channel
from atrund.module.ladder import Ladder, Rung
from atrund.module.lending import AGAIN_FIRST, AGAIN_LONGEST, Held, elsewhere
from atrund.module.lifecycle import Effect, Event, State, in_hold, power_event, step
from atrund.module.port import OpenPort, PortError
from atrund.module.rungs import run_command, write_reboot
from atrund.module.tending import FAULTS, OWN, Module, PinKeeping, Tending
from atrund.module.turn import LinkLostError
from atrund.module.urc import Fanout

log = structlog.get_logger()

FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 60.0
"""Seconds between two openings: soon after a replug, and no more than a minute's wait in a cabinet."""
SHORT_PAUSE: Final = 5.0
"""Seconds between two looks while a reboot is under way: a module goes down within 5 s of its OK."""
HOLD: Final = 90.0
"""Seconds after a reboot or power-off command in which nothing is done to the module (MOD-4)."""
SAID_MAX: Final = 8
"""Causes remembered as said while the module is away: a fault that swings between more is worth saying again."""

Lost = Callable[[str], None]
Sent = Callable[[tuple[Command, ...]], None]
InStep = Callable[[], None]
"""What a channel tells its keeper: that the port is lost, what was sent, that it came back in step."""


class Keeper:
    """Runs until cancelled. `channel` is the present opening of the port while it is usable, else None."""

    def __init__(
        self,
        *,
        locate: Callable[[], Awaitable[str]],
        baudrate: int,
        first: bool,
        open_port: OpenPort,
        make_channel: Callable[[Lost, Sent, InStep], Channel],
        ladder: Ladder,
        fanout: Fanout,
        on_change: Callable[[Module], None],
        pin: PinKeeping | None = None,
        held: Held = elsewhere,
    ) -> None:
        self.module = Module()
        self._locate = locate
        self._path = ""
        self._baudrate = baudrate
        self._open_port = open_port
        self._make_channel = make_channel
        self._ladder = ladder
        self._on_change = on_change
        self._tending = Tending(
            first=first, fanout=fanout, pin=pin, module=lambda: self.module, change=self._change, new=self._new
        )
        self._opened: Channel | None = None
        self._events: asyncio.Queue[tuple[object, Event]] = asyncio.Queue()
        self._activity: asyncio.Task[Event] | None = None
        self._command: asyncio.Task[bool] | None = None
        self._held: State | None = None
        """The state that the present hold began with."""
        self._hold: asyncio.TimerHandle | None = None
        self._pause = FIRST_PAUSE
        self._restarts = 0
        """Reboots and power-offs that were told and are still to be gone through."""
        self._overdue: asyncio.Task[None] | None = None
        self._cause = self._climbed = self._lent = ""
        self._look_who_holds = held
        self._given_back, self._borrower_gone = asyncio.Event(), asyncio.Event()
        self._neighbours: frozenset[str] = frozenset()
        """Who had the port open before it was lent."""
        self._said: deque[str] = deque(maxlen=SAID_MAX)
        self._random = random.Random()  # noqa: S311 - spreads openings, guards nothing
        ladder.hear(self._power_told)

    @property
    def path(self) -> str:
        """The device that the port was last found at, or ""."""
        return self._path

    @property
    def channel(self) -> Channel | None:
        """The port for whoever has a command to run, or None."""
        return self._opened if self.module.state.usable else None

    @property
    def why_not_lendable(self) -> str:
        """Why the port can't be lent now, or ""."""
        if self._held is not None or self._restarts or self._overdue is not None:
            return "the module was told to restart a moment ago; try again once it has had its time"
        if self._command is not None and not self._command.done():
            return "the operator's recovery command runs; try again once it has ended"
        if not self.module.state.lendable:
            return f"the module is {self.module.state.value}; try again in a moment"
        return ""

    async def locate(self) -> str:
        """Return the device that the port is now. Raises `PortError`."""
        if self.channel is None:
            self._path = await self._locate()
        return self._path

    def lend(self, words: str, before: Collection[str]) -> None:
        """Close the port and leave it alone until `give_back`, and until nobody has it open but those `before`.

        `words` say to whom. Whoever has the port is not asked: its turn is to be had first.
        """
        if why := self.why_not_lendable:
            raise PortError(why)
        self._given_back.clear()
        self._borrower_gone.clear()
        self._neighbours = frozenset(before)
        self._lent = words
        self._step(Event.LEND)

    def give_back(self, *, gone: bool) -> None:
        """Take the port back as soon as it is free; `gone`: the borrower is, so that he can have no use for it."""
        self._given_back.set()
        if gone:
            self._borrower_gone.set()

    async def run(self) -> None:
        """Keep the port for ever."""
        try:
            self._step(Event.START)
            while True:
                source, event = await self._events.get()
                # What an activity, an opening or a hold said that is over by now is no longer true.
                if source in {self._activity, self._opened, self._hold, self._ladder}:
                    self._step(event)
        finally:
            self._end_activity()
            self._end_hold()
            if self._overdue is not None:
                self._overdue.cancel()
            self._close()

    def _step(self, event: Event) -> None:
        if self._held is not None:
            event = in_hold(self.module.state, event, self._held)
        if event is Event.HOLD_OVER:
            self._end_hold()
        before = self.module.state
        to = step(before, event)
        log.debug("module", event_is=event.value, state=to.state.value)
        if to.state.usable and not before.usable:
            self._cause = self._climbed = ""
            self._said.clear()
            log.info("module ready", state=to.state.value, model=self.module.model, firmware=self.module.firmware)
        if event in _POWER and self._restarts:
            self._restarts -= 1
        self._change(state=to.state)
        if self._opened is not None and to.state.usable and not self._restarts and self._overdue is None:
            self._opened.open_to_all()
        for effect in to.effects:
            self._perform(effect)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Effect.OPEN:
                self._begin(self._open())
            case Effect.WAKE:
                self._begin(self._tend(self._tending.wake))
            case Effect.SET_UP:
                self._begin(self._tend(self._tending.set_up))
            case Effect.WATCH:
                self._begin(self._tend(self._tending.watch))
            case Effect.CLOSE:
                self._end_activity()
                self._close()
            case Effect.PAUSE:
                self._begin(_after(self._pause * self._random.uniform(0.8, 1.2)))
                self._pause = min(self._pause * 2, LONGEST_PAUSE)
            case Effect.PAUSE_SHORTLY:
                self._begin(_after(SHORT_PAUSE))
            case Effect.HOLD:
                self._start_hold()
            case Effect.CLIMB:
                self._begin(self._climb())
            case Effect.FORGET:
                self._pause = FIRST_PAUSE
                self._ladder.forget(self)
            case Effect.REST:
                self._begin(self._rest())

    async def _rest(self) -> Event:
        """Wait for the port to be given back and closed by all who were lent it; they are said, and nothing else."""
        try:
            await self._given_back.wait()
            pause, words = AGAIN_FIRST, self._lent
            while still := await self._in_use():
                if self._new(still):
                    log.warning("port lent and not free yet", detail=still)
                self._lent = f"{words}; {still}"
                self._change()
                if self._borrower_gone.is_set():
                    await asyncio.sleep(pause)
                else:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(pause):
                            await self._borrower_gone.wait()
                pause = min(pause * 2, AGAIN_LONGEST)
            return Event.GIVEN_BACK
        finally:
            self._lent = ""

    async def _in_use(self) -> str:
        """Return why the port can't be taken back yet, or ""."""
        look = self._look_who_holds
        found, complete = await asyncio.get_running_loop().run_in_executor(None, look, self._path)
        if holders := [holder for holder in found if holder not in self._neighbours]:
            return f"{self._path} is still open elsewhere: {', '.join(holders)}"
        if not complete and not self._borrower_gone.is_set():
            return f"whether {self._path} is still open elsewhere can't be seen, and the borrower's program still runs"
        return ""

    async def _open(self) -> Event:
        if self._opened is not None:
            return Event.OPENED
        channel: Channel | None = None

        def lost(why: str) -> None:
            if channel is not None and channel is self._opened:
                self._say(why)
                self._events.put_nowait((channel, Event.SILENT if channel.stuck else Event.LINK_LOST))

        def sent(commands: tuple[Command, ...]) -> None:
            if (event := power_event(commands)) is not None:
                self._ladder.tell(event)

        channel = self._make_channel(lost, sent, self._tending.look_now)
        try:
            self._path = await self._locate()
            channel.attach(await self._open_port(self._path, self._baudrate, channel))
        except PortError as error:
            self._say(str(error))
            return Event.OPEN_FAILED
        self._opened = channel
        self._keep_from_doors("it is being set up")
        return Event.OPENED

    async def _tend(self, act: Callable[[Channel], Awaitable[Event]]) -> Event:
        """Do something with the open port, and return what came of it."""
        channel = self._opened
        if channel is None:
            raise RuntimeError("an activity that needs the port began without one")
        try:
            return await act(channel)
        except FAULTS as error:
            if not isinstance(error, LinkLostError) or not self.module.state.usable:  # else the channel said so itself
                self._say(f"{self._path}: {error}")
            return Event.LINK_LOST if isinstance(error, LinkLostError) and not channel.stuck else Event.SILENT

    async def _climb(self) -> Event:
        climb = self._ladder.climb(self)
        if climb.rung is not Rung.REOPEN or self._new(climb.held_back or climb.rung.value):
            log.warning("module stuck", next=climb.rung.value, held_back=climb.held_back or None)
        if climb.rung is not Rung.REOPEN or climb.held_back:
            self._climbed = climb.held_back or climb.rung.value
            self._change()
        if climb.rung is not Rung.REOPEN and await self._restart(climb.rung):
            self._ladder.tell(Event.REBOOT_SENT)
        return Event.RUNG_DONE

    def reboot_overdue(self, channel: Channel) -> str:
        """Reboot the module because a command did not end in time (REQ-7); returns why it is not done, "" if it is.

        It is sent in a turn of its own, once the port is in step again; if it does not come back in step, the ladder
        begins with it.
        """
        if channel is not self._opened or not self.module.state.usable or self._restarts:
            return "the module is away already"
        if self._overdue is not None:
            return "it is about to be rebooted already"
        if held_back := self._ladder.overdue(self):
            return held_back
        self._keep_from_doors("a command did not end in time; it is rebooted")
        self._overdue = asyncio.get_running_loop().create_task(self._reboot(channel), name="reboot, command overdue")
        self._overdue.add_done_callback(self._reboot_ended)
        return ""

    async def _reboot(self, channel: Channel) -> None:
        with contextlib.suppress(*FAULTS):
            async with channel.turn(OWN, what="AT#REBOOT") as turn:
                self._ladder.count()
                await turn.ask("AT#REBOOT")

    def _reboot_ended(self, task: asyncio.Task[None]) -> None:
        self._overdue = None
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("not rebooted", exc_info=error)
        if self._opened is not None and self.module.state.usable and not self._restarts:
            self._opened.open_to_all()  # it was not sent at all

    async def _restart(self, rung: Rung) -> bool:
        """Restart the module by one of the upper rungs; returns whether it is restarting."""
        if rung is Rung.COMMAND:
            # A power switch that was begun is not left half way when another port tells of a reboot.
            self._command = asyncio.get_running_loop().create_task(
                run_command(self._ladder.command), name="recovery command"
            )
            return await asyncio.shield(self._command)
        try:
            await write_reboot(self._open_port, self._path, self._baudrate)
        except PortError as error:
            self._say(str(error))
            return False
        return True

    def _power_told(self, event: Event) -> None:
        self._restarts += 1
        self._keep_from_doors(event.value)
        self._events.put_nowait((self._ladder, event))

    def _keep_from_doors(self, why: str) -> None:
        """Let nobody else have the port, those who wait for it already included, until it is set up again (MOD-4)."""
        if self._opened is not None:
            self._opened.keep_for(OWN, f"the module is away: {why}")

    def _begin(self, work: Coroutine[Any, Any, Event]) -> None:
        """Begin the one activity there is; its result is an event."""
        self._end_activity()
        task = asyncio.get_running_loop().create_task(work, name="keeper")
        self._activity = task
        task.add_done_callback(self._activity_ended)

    def _activity_ended(self, task: asyncio.Task[Event]) -> None:
        if task.cancelled():
            return
        if (error := task.exception()) is not None:
            log.error("keeper's activity failed", exc_info=error)
            self._events.put_nowait((task, Event.LINK_LOST))
            return
        self._events.put_nowait((task, task.result()))

    def _end_activity(self) -> None:
        task, self._activity = self._activity, None
        if task is not None:
            task.cancel()

    def _start_hold(self) -> None:
        self._end_hold()
        self._held = self.module.state
        self._hold = asyncio.get_running_loop().call_later(
            HOLD, lambda: self._events.put_nowait((self._hold, Event.HOLD_OVER))
        )

    def _end_hold(self) -> None:
        if self._hold is not None:
            self._hold.cancel()
        self._hold = self._held = None

    def _close(self) -> None:
        channel, self._opened = self._opened, None
        if channel is not None:
            channel.close()

    def _say(self, cause: str) -> None:
        """Say why the module is away: once for each cause, however often it is tried."""
        if self._new(cause):
            log.warning("module not there", detail=cause)
        self._cause = cause
        self._change()

    def _new(self, text: str) -> bool:
        """Whether this was not said yet since the module was last there; from now on it was."""
        new = text not in self._said
        if new:
            self._said.append(text)
        return new

    def _change(self, **given: Any) -> None:  # noqa: ANN401 - the fields of Module
        before, after = self.module, replace(self.module, **given)
        radio = after.radio if after.state.usable else ""
        detail = "; ".join(filter(None, (self._lent, self._cause, self._climbed, radio)))
        self.module = replace(after, detail=detail)
        if self.module != before:
            self._on_change(self.module)


_POWER: Final = frozenset({Event.REBOOT_SENT, Event.POWER_OFF_SENT})


async def _after(seconds: float) -> Event:
    await asyncio.sleep(seconds)
    return Event.PAUSE_OVER
