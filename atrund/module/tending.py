# SPDX-License-Identifier: Apache-2.0
"""What the daemon does with a port that is open: wake the module, set it up, watch it (MOD-3, MOD-7, MOD-8, MOD-9).

Each act takes the port in a turn of its own and returns the event that it makes for the table in `lifecycle`.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from atrund.module.channel import Channel
from atrund.module.lifecycle import Event, State
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
from atrund.module.turn import LinkLostError, TimedOutError, Turn
from atrund.module.turns import QueueFullError, WaitedTooLongError
from atrund.module.urc import Fanout, Listener

log = structlog.get_logger()

OWN: Final = "daemon"
"""The asker of the daemon's own commands."""
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

FAULTS: Final = (LinkLostError, TimedOutError, WaitedTooLongError, QueueFullError)
"""How a turn of the daemon's own can fail."""


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
    radio: str = ""
    """Why the radio is off, if somebody switched it off; "" while it is on or nothing is known."""
    set_ups: int = 0
    """How often it was set up: what it reports, and what lies in its store, may be other than before."""


@dataclass(frozen=True, slots=True)
class PinKeeping:
    """The PIN; whether a fingerprint was tried and not taken, kept on disk before it is tried, taken back after.

    Each of the three raises when the disk does not know or does not take it: then no PIN is sent.
    """

    pin: str = field(repr=False)
    refused: Callable[[str], Awaitable[bool]]
    remember: Callable[[str], Awaitable[None]]
    forget: Callable[[str], Awaitable[None]]


class Tending:
    """Tends one port. `change` takes what was learnt, as fields of `Module`; `new` says whether a text is new."""

    def __init__(
        self,
        *,
        first: bool,
        fanout: Fanout,
        pin: PinKeeping | None,
        module: Callable[[], Module],
        change: Callable[..., None],
        new: Callable[[str], bool],
    ) -> None:
        self._first = first
        self._fanout = fanout
        self._pin = pin
        self._module = module
        self._change = change
        self._new = new
        self._services_due = 0.0
        self._again: deque[float] = deque(maxlen=AGAIN_MAX)
        self._listener: Listener | None = None

    async def wake(self, channel: Channel) -> Event:
        """Get an answer. Raises one of `FAULTS`, as the others do."""
        async with channel.turn(OWN, what="wake") as turn:
            await wake(turn)
        channel.confirm()
        return Event.AWAKE

    async def set_up(self, channel: Channel) -> Event:
        """Put everything in place."""
        self._services_due = asyncio.get_running_loop().time() + SERVICES_EVERY
        async with channel.turn(OWN, what="set-up") as turn:
            identity = await set_up(turn, first=self._first)
            memory = await choose_memory(turn) if self._first else ""
            condition = await look(turn)
            if condition.sim is Sim.PIN and await self._enter_pin(turn):
                condition = await look(turn)
        set_ups = self._module().set_ups + 1
        return self._judge(condition, model=identity.model, firmware=identity.firmware, memory=memory, set_ups=set_ups)

    async def watch(self, channel: Channel) -> Event:
        """Look at SIM and network, often while something is missing; ends when they make another state."""
        present = self._module().state
        with self._fanout.listening() as listener:
            self._listener = listener
            while True:
                await _told(listener, MEMORY_EVERY if self._lacks_memory else WATCH_EVERY)
                try:
                    async with channel.turn(OWN, what="watch") as turn:
                        event = self._judge(await look(turn))
                        if STATE_OF[event] is not present:
                            return event
                        if not await in_place(turn, first=self._first) and self._may_set_up_again():
                            return Event.UNSET
                        if self._lacks_memory:
                            self._change(memory=await choose_memory(turn))
                        await self._see_to_services(turn)
                except (TimedOutError, WaitedTooLongError, QueueFullError):
                    continue  # a port that stays stuck is said to be lost by its channel

    def look_now(self) -> None:
        """Look at once where the port is watched: it came back in step, and the module may have restarted behind it."""
        if self._listener is not None:
            self._listener.put((_IN_STEP,))

    async def _enter_pin(self, turn: Turn) -> bool:
        pin = self._pin
        return pin is not None and await enter_pin(
            turn, pin.pin, refused=pin.refused, remember=pin.remember, forget=pin.forget
        )

    def _may_set_up_again(self) -> bool:
        """Whether settings that are gone are put in place again; said if somebody changes them again and again."""
        now = asyncio.get_running_loop().time()
        if len(self._again) == AGAIN_MAX and self._again[0] > now - AGAIN_WITHIN:
            if self._new("settings"):
                log.warning("somebody keeps changing the settings of the port; left as they are")
            return False
        self._again.append(now)
        log.info("the port's settings were gone; set up again")
        return True

    async def _see_to_services(self, turn: Turn) -> None:
        now = asyncio.get_running_loop().time()
        if self._first and now >= self._services_due:
            self._services_due = now + SERVICES_EVERY
            await switch_off_services(turn)

    @property
    def _lacks_memory(self) -> bool:
        """Whether the SMS store is still to come."""
        module = self._module()
        return self._first and not module.memory and module.sim not in _NO_STORE

    def _judge(self, condition: Condition, **given: Any) -> Event:  # noqa: ANN401 - the fields of Module
        """Return which usable state SIM and network make; a further port has neither to look after."""
        if condition.sim.value in _NO_STORE:
            given["memory"] = ""
        if self._first:
            given["radio"] = self._radio(condition)
        self._change(sim=condition.sim.value, registration=condition.registration, **given)
        if not self._first:
            return Event.READY
        if condition.sim is Sim.ABSENT:
            return Event.NO_SIM
        if condition.sim in {Sim.PIN, Sim.PUK}:
            return Event.PIN_NEEDED
        return Event.READY if condition.registered else Event.NOT_REGISTERED

    def _radio(self, condition: Condition) -> str:
        """Return why the radio is off, and say so: it is reported and never switched on (MOD-8)."""
        before = self._module().radio
        radio = ""
        if condition.radio_off:
            radio = f"the radio was switched off by a command or another tenant (+CFUN: {condition.radio_off})"
            if radio != before:
                log.warning("radio off", detail=radio)
        elif before:
            log.info("radio on again")
        return radio


STATE_OF: Final = {
    Event.READY: State.READY,
    Event.NO_SIM: State.NO_SIM,
    Event.PIN_NEEDED: State.PIN_NEEDED,
    Event.NOT_REGISTERED: State.NOT_REGISTERED,
}
"""What SIM and network make of a port that is set up."""

_IN_STEP: Final = "\0in step"
"""Put among the codes by us; no module's line has a NUL."""
_TELLING: Final = ("+CREG:", "+CGREG:", "+CEREG:", "#QSS:", "+CPIN:", "#SIMDET:", _IN_STEP)
"""Unsolicited codes after which SIM and network are looked at again at once."""
_NO_STORE: Final = frozenset({Sim.ABSENT.value, Sim.PIN.value, Sim.PUK.value})
"""What +CPIN? says where there is no SMS store to wait for."""


async def _told(listener: Listener, seconds: float) -> None:
    """Wait for a code that tells of SIM or network, and for those that come with it; at most that long."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while not (await listener.get())[0].startswith(_TELLING):
                pass
        async with asyncio.timeout(BURST):
            while True:
                await listener.get()
