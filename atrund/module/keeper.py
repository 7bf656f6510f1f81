# SPDX-License-Identifier: Apache-2.0
"""Keeps one port of the module: carries out what the table in `lifecycle` says (MOD-3, MOD-4, MOD-8, MOD-9)."""

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, Final

import structlog

from atrund.at.syntax import Command
from atrund.module.channel import Channel, LinkLostError, TimedOutError, Turn
from atrund.module.ladder import Ladder, Rung
from atrund.module.lifecycle import Effect, Event, State, in_hold, power_event, step
from atrund.module.port import OpenPort, PortError
from atrund.module.rungs import run_command, write_reboot
from atrund.module.setup import (
    Condition,
    Sim,
    choose_memory,
    enter_pin,
    in_place,
    look,
    set_up,
    switch_off_services,
    wake,
)
from atrund.module.turns import QueueFullError, WaitedTooLongError
from atrund.module.urc import Fanout, Listener

log = structlog.get_logger()

OWN: Final = "daemon"
"""The asker of the daemon's own commands."""
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 60.0
"""Seconds between two openings: soon after a replug, and no more than a minute's wait in a cabinet."""
SHORT_PAUSE: Final = 5.0
"""Seconds between two looks while a reboot is under way: a module goes down within 5 s of its OK."""
HOLD: Final = 90.0
"""Seconds after a reboot or power-off command in which nothing is done to the module (MOD-4)."""
WATCH_EVERY: Final = 120.0
MEMORY_EVERY: Final = 10.0
"""Seconds between two looks: at SIM and network, and at an SMS store that is not ready yet."""
BURST: Final = 0.3
"""Seconds in which unsolicited codes are taken for one change: +CREG and its kin come together."""
SERVICES_EVERY: Final = 86400.0
"""Seconds between two looks at the firmware's own services (MOD-3: daily)."""
AGAIN_MAX: Final = 3
AGAIN_WITHIN: Final = 3600.0
"""How often within so many seconds lost settings are put in place again: another tenant is not fought (MOD-3)."""
SAID_MAX: Final = 8
"""Causes remembered as said while the module is away: a fault that swings between more is worth saying again."""

Lost = Callable[[str], None]
Sent = Callable[[tuple[Command, ...]], None]
_FAULTS: Final = (LinkLostError, TimedOutError, WaitedTooLongError, QueueFullError)


@dataclass(frozen=True, slots=True)
class Module:
    """What is known of the module."""

    state: State = State.OFF
    detail: str = ""
    model: str = ""
    firmware: str = ""
    memory: str = ""
    """The one memory that all of +CPMS is set to; empty while the SMS store is not to be had."""
    sim: str = ""
    registration: str = ""


@dataclass(frozen=True, slots=True)
class PinKeeping:
    """The PIN; which fingerprints were refused, and where one is kept over restarts or forgotten again."""

    pin: str = field(repr=False)
    refused: Callable[[str], bool]
    remember: Callable[[str], Awaitable[None]]
    forget: Callable[[str], Awaitable[None]]


class Keeper:
    """Runs until cancelled. `channel` is the present opening of the port while it is usable, else None."""

    def __init__(
        self,
        *,
        locate: Callable[[], Awaitable[str]],
        baudrate: int,
        first: bool,
        open_port: OpenPort,
        make_channel: Callable[[Lost, Sent], Channel],
        ladder: Ladder,
        fanout: Fanout,
        on_change: Callable[[Module], None],
        pin: PinKeeping | None = None,
    ) -> None:
        self.module = Module()
        self._locate = locate
        self._path = ""
        self._baudrate = baudrate
        self._first = first
        self._open_port = open_port
        self._make_channel = make_channel
        self._ladder = ladder
        self._fanout = fanout
        self._on_change = on_change
        self._pin = pin
        self._opened: Channel | None = None
        self._events: asyncio.Queue[tuple[object, Event]] = asyncio.Queue()
        self._activity: asyncio.Task[Event] | None = None
        self._command: asyncio.Task[bool] | None = None
        self._held: State | None = None
        """The state that the present hold began with."""
        self._hold: asyncio.TimerHandle | None = None
        self._pause = FIRST_PAUSE
        self._services_due = 0.0
        self._cause = self._climbed = ""
        self._said: deque[str] = deque(maxlen=SAID_MAX)
        self._again: deque[float] = deque(maxlen=AGAIN_MAX)
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
        self._change(state=to.state, detail=self._detail())
        for effect in to.effects:
            self._perform(effect)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Effect.OPEN:
                self._begin(self._open())
            case Effect.WAKE:
                self._begin(self._wake())
            case Effect.SET_UP:
                self._begin(self._set_up())
            case Effect.WATCH:
                self._begin(self._watch())
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

        channel = self._make_channel(lost, sent)
        try:
            self._path = await self._locate()
            channel.attach(await self._open_port(self._path, self._baudrate, channel))
        except PortError as error:
            self._say(str(error))
            return Event.OPEN_FAILED
        self._opened = channel
        return Event.OPENED

    async def _wake(self) -> Event:
        channel = self._port()
        try:
            async with channel.turn(OWN) as turn:
                await wake(turn)
        except _FAULTS as error:
            return self._failed(channel, error)
        channel.confirm()
        return Event.AWAKE

    async def _set_up(self) -> Event:
        channel = self._port()
        self._services_due = asyncio.get_running_loop().time() + SERVICES_EVERY
        try:
            async with channel.turn(OWN) as turn:
                identity = await set_up(turn, first=self._first)
                memory = await choose_memory(turn) if self._first else ""
                condition = await look(turn)
                if condition.sim is Sim.PIN and await self._enter_pin(turn):
                    condition = await look(turn)
        except _FAULTS as error:
            return self._failed(channel, error)
        return self._judge(condition, model=identity.model, firmware=identity.firmware, memory=memory)

    async def _enter_pin(self, turn: Turn) -> bool:
        pin = self._pin
        return pin is not None and await enter_pin(
            turn, pin.pin, refused=pin.refused, remember=pin.remember, forget=pin.forget
        )

    async def _watch(self) -> Event:
        """Look at SIM and network, often while something is missing; ends when they make another state."""
        channel = self._port()
        present = self.module.state
        with self._fanout.listening() as listener:
            while True:
                await _told(listener, MEMORY_EVERY if self._lacks_memory else WATCH_EVERY)
                try:
                    async with channel.turn(OWN) as turn:
                        event = self._judge(await look(turn))
                        if _STATE_OF[event] is not present:
                            return event
                        if not await in_place(turn, first=self._first) and self._may_set_up_again():
                            return Event.UNSET
                        if self._lacks_memory:
                            self._change(memory=await choose_memory(turn))
                        await self._see_to_services(turn)
                except (TimedOutError, WaitedTooLongError, QueueFullError):
                    continue  # a port that stays stuck is said to be lost by its channel
                except LinkLostError:
                    return Event.SILENT if channel.stuck else Event.LINK_LOST

    def _may_set_up_again(self) -> bool:
        """Whether settings that are gone are put in place again; said if somebody changes them again and again."""
        now = asyncio.get_running_loop().time()
        if len(self._again) == AGAIN_MAX and self._again[0] > now - AGAIN_WITHIN:
            if self._new("settings"):
                log.warning("somebody keeps changing the settings of the port; left as they are", port=self._path)
            return False
        self._again.append(now)
        log.info("the port's settings were gone; set up again", port=self._path)
        return True

    async def _see_to_services(self, turn: Turn) -> None:
        now = asyncio.get_running_loop().time()
        if self._first and now >= self._services_due:
            self._services_due = now + SERVICES_EVERY
            await switch_off_services(turn)

    async def _climb(self) -> Event:
        climb = self._ladder.climb(self)
        if climb.rung is not Rung.REOPEN or self._new(climb.held_back or climb.rung.value):
            log.warning("module stuck", next=climb.rung.value, held_back=climb.held_back or None)
        if climb.rung is not Rung.REOPEN or climb.held_back:
            self._climbed = climb.held_back or climb.rung.value
            self._change(detail=self._detail())
        if climb.rung is not Rung.REOPEN and await self._restart(climb.rung):
            self._ladder.tell(Event.REBOOT_SENT)
        return Event.RUNG_DONE

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
        self._events.put_nowait((self._ladder, event))

    def _port(self) -> Channel:
        if self._opened is None:
            raise RuntimeError("an activity that needs the port began without one")
        return self._opened

    def _failed(self, channel: Channel, error: Exception) -> Event:
        self._say(f"{self._path}: {error}")
        return Event.LINK_LOST if isinstance(error, LinkLostError) and not channel.stuck else Event.SILENT

    @property
    def _lacks_memory(self) -> bool:
        """Whether the SMS store is still to come."""
        return self._first and not self.module.memory and self.module.sim not in _NO_STORE

    def _judge(self, condition: Condition, **given: str) -> Event:
        """Return which usable state SIM and network make; a further port has neither to look after."""
        if condition.sim.value in _NO_STORE:
            given["memory"] = ""
        self._change(sim=condition.sim.value, registration=condition.registration, **given)
        if not self._first:
            return Event.READY
        if condition.sim is Sim.ABSENT:
            return Event.NO_SIM
        if condition.sim in {Sim.PIN, Sim.PUK}:
            return Event.PIN_NEEDED
        return Event.READY if condition.registered else Event.NOT_REGISTERED

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
        self._change(detail=self._detail())

    def _new(self, text: str) -> bool:
        """Whether this was not said yet since the module was last there; from now on it was."""
        new = text not in self._said
        if new:
            self._said.append(text)
        return new

    def _detail(self) -> str:
        return "; ".join(filter(None, (self._cause, self._climbed)))

    def _change(self, **given: Any) -> None:  # noqa: ANN401 - the fields of Module
        before, self.module = self.module, replace(self.module, **given)
        if self.module != before:
            self._on_change(self.module)


_TELLING: Final = ("+CREG:", "+CGREG:", "+CEREG:", "#QSS:", "+CPIN:", "#SIMDET:")
"""Unsolicited codes after which SIM and network are looked at again at once."""
_NO_STORE: Final = frozenset({Sim.ABSENT.value, Sim.PIN.value, Sim.PUK.value})
"""What +CPIN? says where there is no SMS store to wait for."""
_STATE_OF: Final = {
    Event.READY: State.READY,
    Event.NO_SIM: State.NO_SIM,
    Event.PIN_NEEDED: State.PIN_NEEDED,
    Event.NOT_REGISTERED: State.NOT_REGISTERED,
}


async def _after(seconds: float) -> Event:
    await asyncio.sleep(seconds)
    return Event.PAUSE_OVER


async def _told(listener: Listener, seconds: float) -> None:
    """Wait for a code that tells of SIM or network, and for those that come with it; at most that long."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while not (await listener.get())[0].startswith(_TELLING):
                pass
        async with asyncio.timeout(BURST):
            while True:
                await listener.get()
