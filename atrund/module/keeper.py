# SPDX-License-Identifier: Apache-2.0
"""Keeps one port of the module: carries out what the table in `lifecycle` says (MOD-3, MOD-4, MOD-8, MOD-9)."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, Final

import structlog

from atrund.at.syntax import Command
from atrund.module.channel import Channel, LinkLostError, TimedOutError, Turn
from atrund.module.ladder import Ladder, Rung
from atrund.module.lifecycle import Effect, Event, State, power_event, step
from atrund.module.port import OpenPort, PortError
from atrund.module.setup import Condition, Sim, choose_memory, enter_pin, look, set_up, switch_off_services, wake
from atrund.module.turns import QueueFullError, WaitedTooLongError
from atrund.module.urc import Fanout

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
WATCH_EVERY: Final = 60.0
MEMORY_EVERY: Final = 10.0
"""Seconds between two looks: at SIM and network, and at an SMS store that is not ready yet."""
REBOOT_LINGER: Final = 1.0
"""Seconds that the port stays open behind a blind AT#REBOOT, so that it leaves the UART."""
COMMAND_TIMEOUT: Final = 60.0
"""Seconds for the operator's command: a power switch takes a few."""
SERVICES_EVERY: Final = 86400.0
"""Seconds between two looks at the firmware's own services (MOD-3: daily)."""

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

    def __init__(  # noqa: PLR0913 - the keeper's neighbours, each once
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
        self._hold: object | None = None
        self._hold_timer: asyncio.TimerHandle | None = None
        self._pause = FIRST_PAUSE
        self._random = random.Random()  # noqa: S311 - spreads openings, guards nothing

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
                # What an activity or an opening said that is over by now is no longer true.
                if source is self._activity or source is self._opened or source is self._hold:
                    self._step(event)
        finally:
            self._end_activity()
            self._end_hold()
            self._close()

    def _step(self, event: Event) -> None:
        before = self.module.state
        to = step(before, event)
        log.debug("module", event_is=event.value, state=to.state.value)
        if to.state not in {State.REBOOTING, State.OFF_BY_COMMAND}:
            self._end_hold()
        self._change(state=to.state)
        if to.state.usable and not before.usable:
            self._change(detail="")
            log.info("module ready", state=to.state.value, model=self.module.model, firmware=self.module.firmware)
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
                self._ladder.forget()

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
                self._events.put_nowait((channel, event))

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
        try:
            async with channel.turn(OWN) as turn:
                identity = await set_up(turn, first=self._first)
                memory = await choose_memory(turn) if self._first else ""
                condition = await look(turn)
                if condition.sim is Sim.PIN and self._pin is not None and await self._enter_pin(turn):
                    condition = await look(turn)
        except _FAULTS as error:
            return self._failed(channel, error)
        self._change(model=identity.model, firmware=identity.firmware, memory=memory)
        return self._judge(condition)

    async def _enter_pin(self, turn: Turn) -> bool:
        pin = self._pin
        return pin is not None and await enter_pin(
            turn, pin.pin, refused=pin.refused, remember=pin.remember, forget=pin.forget
        )

    async def _watch(self) -> Event:
        """Look at SIM and network, often while something is missing; ends when they make another state."""
        channel = self._port()
        loop = asyncio.get_running_loop()
        services_due = loop.time() + SERVICES_EVERY
        present = self.module.state
        with self._fanout.listening() as listener:
            while True:
                complete = bool(self.module.memory) or not self._first
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(WATCH_EVERY if complete else MEMORY_EVERY):
                        while not (await listener.get())[0].startswith(_TELLING):
                            pass
                try:
                    async with channel.turn(OWN) as turn:
                        condition = await look(turn)
                        if not complete:
                            self._change(memory=await choose_memory(turn))
                        if self._first and loop.time() > services_due:
                            services_due = loop.time() + SERVICES_EVERY
                            await switch_off_services(turn)
                except (TimedOutError, WaitedTooLongError, QueueFullError):
                    continue  # a port that stays stuck is said to be lost by its channel
                except LinkLostError:
                    return Event.SILENT if channel.stuck else Event.LINK_LOST
                event = self._judge(condition)
                if _STATE_OF[event] is not present:
                    return event

    async def _climb(self) -> Event:
        climb = self._ladder.climb()
        log.warning("module stuck", detail=climb.rung.value, held_back=climb.held_back or None)
        self._change(detail=f"stuck; {climb.rung.value}")
        if climb.rung is Rung.REBOOT:
            await self._reboot()
            return Event.REBOOTED_BY_US
        if climb.rung is Rung.COMMAND:
            await self._run_command()
        return Event.RUNG_DONE

    async def _reboot(self) -> None:
        """Write AT#REBOOT blindly: whatever hung may still read."""
        channel = self._make_channel(lambda _: None, lambda _: None)
        try:
            port = await self._open_port(self._path, self._baudrate, channel)
        except PortError as error:
            self._say(str(error))
            return
        port.write(b"\x1b\rAT#REBOOT\r")
        await asyncio.sleep(REBOOT_LINGER)
        port.close()

    async def _run_command(self) -> None:
        """Run the operator's command, without a shell, for a bounded time."""
        try:
            process = await asyncio.create_subprocess_exec(
                *self._ladder.command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL
            )
        except OSError as error:
            log.error("recovery command not run", detail=str(error))  # noqa: TRY400 - the text says it all
            return
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT):
                code = await process.wait()
            log.warning("recovery command ended", exit=code)
        except TimeoutError:
            log.error("recovery command killed", detail=f"it took longer than {COMMAND_TIMEOUT:g} s")  # noqa: TRY400
        finally:
            if process.returncode is None:
                process.kill()

    def _port(self) -> Channel:
        if self._opened is None:
            raise RuntimeError("an activity that needs the port began without one")
        return self._opened

    def _failed(self, channel: Channel, error: Exception) -> Event:
        self._say(f"{self._path}: {error}")
        return Event.LINK_LOST if isinstance(error, LinkLostError) and not channel.stuck else Event.SILENT

    def _judge(self, condition: Condition) -> Event:
        """Return which usable state SIM and network make; a further port has neither to look after."""
        self._change(sim=condition.sim.value, registration=condition.registration)
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
            self._events.put_nowait((task, Event.SILENT))
            return
        self._events.put_nowait((task, task.result()))

    def _end_activity(self) -> None:
        task, self._activity = self._activity, None
        if task is not None:
            task.cancel()

    def _start_hold(self) -> None:
        self._end_hold()
        hold = object()
        self._hold = hold
        self._hold_timer = asyncio.get_running_loop().call_later(
            HOLD, lambda: self._events.put_nowait((hold, Event.HOLD_OVER))
        )

    def _end_hold(self) -> None:
        if self._hold_timer is not None:
            self._hold_timer.cancel()
        self._hold = self._hold_timer = None

    def _close(self) -> None:
        channel, self._opened = self._opened, None
        if channel is not None:
            channel.close()

    def _say(self, detail: str) -> None:
        if detail != self.module.detail:  # once for each cause, however often it is tried
            log.warning("module not there", detail=detail)
        self._change(detail=detail)

    def _change(self, **given: Any) -> None:  # noqa: ANN401 - the fields of Module
        before, self.module = self.module, replace(self.module, **given)
        if self.module != before:
            self._on_change(self.module)


_TELLING: Final = ("+CREG:", "+CGREG:", "+CEREG:", "#QSS:", "+CPIN:", "#SIMDET:")
"""Unsolicited codes after which SIM and network are looked at again at once."""
_STATE_OF: Final = {
    Event.READY: State.READY,
    Event.NO_SIM: State.NO_SIM,
    Event.PIN_NEEDED: State.PIN_NEEDED,
    Event.NOT_REGISTERED: State.NOT_REGISTERED,
}


async def _after(seconds: float) -> Event:
    await asyncio.sleep(seconds)
    return Event.PAUSE_OVER
