# SPDX-License-Identifier: Apache-2.0
"""The module's life as a table: how it is found, set up, watched, and brought back (MOD-3, MOD-4, MOD-8).

Rules of this file: no rung of the ladder is climbed while a reboot or a power-off that somebody asked for is under way;
a rung is climbed only out of STUCK; whatever state the SIM or the network is in, the port stays usable. Time enters as
events (`PAUSE_OVER`, `HOLD_OVER`) and leaves as effects.
"""

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from atrund.at.syntax import Command, Op, arguments


class State(enum.Enum):
    """Where the module is."""

    OFF = "off"
    ABSENT = "absent"
    OPENING = "opening"
    WAKING = "waking"
    SETTING_UP = "setting up"
    READY = "ready"
    NO_SIM = "no SIM"
    PIN_NEEDED = "PIN needed"
    NOT_REGISTERED = "not registered"
    STUCK = "stuck"
    REBOOTING = "rebooting"
    OFF_BY_COMMAND = "off by command"

    @property
    def usable(self) -> bool:
        """Whether commands can be run: the port is set up, whatever the SIM and the network are like."""
        return self in _USABLE


class Event(enum.Enum):
    """What can happen to it."""

    START = "start"
    OPENED = "port opened"
    OPEN_FAILED = "port can't be had"
    AWAKE = "it answers"
    SILENT = "it does not answer"
    READY = "SIM and network there"
    NO_SIM = "no SIM"
    PIN_NEEDED = "SIM wants a PIN"
    NOT_REGISTERED = "no network"
    LINK_LOST = "port lost"
    REBOOT_SENT = "reboot commanded"
    POWER_OFF_SENT = "power-off commanded"
    PAUSE_OVER = "pause over"
    HOLD_OVER = "hold over"
    RUNG_DONE = "rung climbed"
    REBOOTED_BY_US = "rung was a reboot"


class Effect(enum.Enum):
    """What the keeper is to do."""

    OPEN = "open the port, if it is not open"
    WAKE = "wake it"
    SET_UP = "set it up"
    WATCH = "watch it"
    CLOSE = "close the port"
    PAUSE = "wait a growing pause"
    PAUSE_SHORTLY = "wait a short pause"
    HOLD = "hold the ladder back"
    CLIMB = "climb the next rung"
    FORGET = "begin the ladder anew"


@dataclass(frozen=True, slots=True)
class To:
    """A row's right side."""

    state: State
    effects: tuple[Effect, ...] = ()


_CONDITIONS: Final = {
    Event.READY: To(State.READY, (Effect.FORGET, Effect.WATCH)),
    Event.NO_SIM: To(State.NO_SIM, (Effect.FORGET, Effect.WATCH)),
    Event.PIN_NEEDED: To(State.PIN_NEEDED, (Effect.FORGET, Effect.WATCH)),
    Event.NOT_REGISTERED: To(State.NOT_REGISTERED, (Effect.FORGET, Effect.WATCH)),
}
_GONE: Final = To(State.ABSENT, (Effect.CLOSE, Effect.PAUSE))
_HUNG: Final = To(State.STUCK, (Effect.CLOSE, Effect.CLIMB))
_WATCHED: Final = {
    **_CONDITIONS,
    Event.LINK_LOST: _GONE,
    Event.SILENT: _HUNG,
    # The port stays open: its answer is still to come.
    Event.REBOOT_SENT: To(State.REBOOTING, (Effect.HOLD, Effect.PAUSE_SHORTLY)),
    Event.POWER_OFF_SENT: To(State.OFF_BY_COMMAND, (Effect.HOLD, Effect.PAUSE_SHORTLY)),
}

TRANSITIONS: Final[dict[State, dict[Event, To]]] = {
    State.OFF: {Event.START: To(State.OPENING, (Effect.OPEN,))},
    State.ABSENT: {Event.PAUSE_OVER: To(State.OPENING, (Effect.OPEN,))},
    State.OPENING: {
        Event.OPENED: To(State.WAKING, (Effect.WAKE,)),
        Event.OPEN_FAILED: To(State.ABSENT, (Effect.PAUSE,)),
    },
    State.WAKING: {
        Event.AWAKE: To(State.SETTING_UP, (Effect.SET_UP,)),
        Event.SILENT: _HUNG,
        Event.LINK_LOST: _GONE,
    },
    State.SETTING_UP: {**_CONDITIONS, Event.SILENT: _HUNG, Event.LINK_LOST: _GONE},
    State.READY: _WATCHED,
    State.NO_SIM: _WATCHED,
    State.PIN_NEEDED: _WATCHED,
    State.NOT_REGISTERED: _WATCHED,
    State.STUCK: {
        Event.RUNG_DONE: To(State.ABSENT, (Effect.PAUSE,)),
        Event.REBOOTED_BY_US: To(State.REBOOTING, (Effect.HOLD, Effect.PAUSE_SHORTLY)),
    },
    # The port may stay, go, or come back at any moment of the hold; only a module that is set up ends it early.
    State.REBOOTING: {
        Event.PAUSE_OVER: To(State.REBOOTING, (Effect.OPEN,)),
        Event.OPENED: To(State.REBOOTING, (Effect.WAKE,)),
        Event.OPEN_FAILED: To(State.REBOOTING, (Effect.PAUSE_SHORTLY,)),
        Event.AWAKE: To(State.SETTING_UP, (Effect.SET_UP,)),
        Event.SILENT: To(State.REBOOTING, (Effect.CLOSE, Effect.PAUSE_SHORTLY)),
        Event.LINK_LOST: To(State.REBOOTING, (Effect.CLOSE, Effect.PAUSE_SHORTLY)),
        Event.HOLD_OVER: To(State.ABSENT, (Effect.CLOSE, Effect.PAUSE)),
    },
    # Somebody switched it off: it is looked for, and nothing is done to it.
    State.OFF_BY_COMMAND: {
        Event.PAUSE_OVER: To(State.OFF_BY_COMMAND, (Effect.OPEN,)),
        Event.OPENED: To(State.OFF_BY_COMMAND, (Effect.WAKE,)),
        Event.OPEN_FAILED: To(State.OFF_BY_COMMAND, (Effect.PAUSE,)),
        Event.AWAKE: To(State.SETTING_UP, (Effect.SET_UP,)),
        Event.SILENT: To(State.OFF_BY_COMMAND, (Effect.CLOSE, Effect.PAUSE)),
        Event.LINK_LOST: To(State.OFF_BY_COMMAND, (Effect.CLOSE, Effect.PAUSE)),
        Event.HOLD_OVER: To(State.OFF_BY_COMMAND),
    },
}

_USABLE: Final = frozenset({State.READY, State.NO_SIM, State.PIN_NEEDED, State.NOT_REGISTERED})


class IllegalTransition(RuntimeError):  # noqa: N818 - named for what was tried
    """An event that cannot happen in a state; nothing was changed."""


def step(state: State, event: Event) -> To:
    """Return where an event leads and what is to be done, in order. Raises `IllegalTransition`."""
    to = TRANSITIONS[state].get(event)
    if to is None:
        raise IllegalTransition(f"{event.value} while {state.value}")
    return to


def power_event(commands: Iterable[Command]) -> Event | None:
    """Return whether a command line restarts the module or switches it off, whoever sends it (MOD-4)."""
    for command in commands:
        first = arguments(command.args)[:2]
        if command.name == "#SHDN" and command.op in {Op.EXECUTE, Op.SET}:
            return Event.POWER_OFF_SENT
        if command.name == "#REBOOT" and command.op in {Op.EXECUTE, Op.SET}:
            return Event.REBOOT_SENT
        if command.op is Op.SET and (command.name, first) in _REBOOTING_SETS:
            return Event.REBOOT_SENT
        if command.name in {"#FWSWITCH", "#USBCFG", "#PORTCFG"} and command.op is Op.SET:
            return Event.REBOOT_SENT
    return None


_REBOOTING_SETS: Final = {("+CFUN", ("1", "1")), ("#ENHRST", ("1", "0")), ("#ENHRST", ("2", "0"))}
"""+CFUN=1,1 resets (TS 27.007 8.2); #ENHRST with delay 0 reboots at once, as clients in the field use it."""
