# SPDX-License-Identifier: Apache-2.0
"""The module's life as a table: how it is found, set up, watched, and brought back (MOD-3, MOD-4, MOD-8).

Rules of this file: no rung of the ladder is climbed until the hold is over that begins with a reboot or power-off,
whoever sent it and whatever the module does meanwhile; a rung is climbed only on the way into STUCK or within it;
whatever state the SIM or the network is in, the port stays usable. A state says how the module is, not what is being
tried: it stays ABSENT or STUCK, and is told once, however often the port is opened. Time enters as events
(`PAUSE_OVER`, `HOLD_OVER`) and leaves as effects.
"""

import enum
from collections.abc import Iterable
from typing import Final

from atrund import table
from atrund.at.syntax import Command, Op, arguments, unquote
from atrund.table import To


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
    LENT = "lent"

    @property
    def usable(self) -> bool:
        """Whether commands can be run: the port is set up, whatever the SIM and the network are like."""
        return self in _USABLE

    @property
    def lendable(self) -> bool:
        """Whether the port can be lent: not in the middle of something that the module must be watched in."""
        return Event.LEND in TRANSITIONS[self]


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
    UNSET = "its settings are gone"
    LINK_LOST = "port lost"
    REBOOT_SENT = "reboot commanded"
    POWER_OFF_SENT = "power-off commanded"
    WENT_DOWN = "it went down to reboot"
    WENT_OFF = "it went off"
    PAUSE_OVER = "pause over"
    HOLD_OVER = "hold over"
    RUNG_DONE = "rung climbed"
    LEND = "port lent"
    GIVEN_BACK = "port given back, and free"


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
    REST = "leave the port alone until it is given back and free"


_CONDITIONS: Final = {
    Event.READY: To(State.READY, (Effect.FORGET, Effect.WATCH)),
    Event.NO_SIM: To(State.NO_SIM, (Effect.FORGET, Effect.WATCH)),
    Event.PIN_NEEDED: To(State.PIN_NEEDED, (Effect.FORGET, Effect.WATCH)),
    Event.NOT_REGISTERED: To(State.NOT_REGISTERED, (Effect.FORGET, Effect.WATCH)),
}
# A SIM that came back is set up anew (MOD-3), and one that wants a PIN may get it; the port is not taken away for that.
_RETURNED: Final = {
    Event.READY: To(State.READY, (Effect.SET_UP,)),
    Event.NOT_REGISTERED: To(State.NOT_REGISTERED, (Effect.SET_UP,)),
}
_LOCKED: Final = {Event.PIN_NEEDED: To(State.PIN_NEEDED, (Effect.SET_UP,))}
_GONE: Final = To(State.ABSENT, (Effect.CLOSE, Effect.PAUSE))
# Whoever borrows it may update its firmware: nothing is done, opened or counted meanwhile.
_LEND: Final = {Event.LEND: To(State.LENT, (Effect.CLOSE, Effect.REST))}
_HUNG: Final = To(State.STUCK, (Effect.CLOSE, Effect.CLIMB))
# The port stays open: the command's answer is still to come.
_POWER: Final = {
    Event.REBOOT_SENT: To(State.REBOOTING, (Effect.HOLD, Effect.PAUSE_SHORTLY)),
    Event.POWER_OFF_SENT: To(State.OFF_BY_COMMAND, (Effect.HOLD, Effect.PAUSE_SHORTLY)),
}


def _up(state: State) -> dict[Event, To[State, Effect]]:
    """Return the rows of a port that answered; it may have done so before it went down as it was told to."""
    return {
        **_CONDITIONS,
        **_POWER,
        Event.LINK_LOST: _GONE,
        Event.SILENT: _HUNG,
        Event.WENT_DOWN: To(State.REBOOTING, (Effect.CLOSE, Effect.PAUSE_SHORTLY)),
        Event.WENT_OFF: To(State.OFF_BY_COMMAND, (Effect.CLOSE, Effect.PAUSE_SHORTLY)),
        Event.HOLD_OVER: To(state),
    }


def _watched(state: State) -> dict[Event, To[State, Effect]]:
    return {**_up(state), **_LEND, Event.UNSET: To(state, (Effect.SET_UP,))}


TRANSITIONS: Final[dict[State, dict[Event, To[State, Effect]]]] = {
    State.OFF: {Event.START: To(State.OPENING, (Effect.OPEN,))},
    State.ABSENT: {
        Event.PAUSE_OVER: To(State.ABSENT, (Effect.OPEN,)),
        Event.OPENED: To(State.WAKING, (Effect.WAKE,)),
        Event.OPEN_FAILED: To(State.ABSENT, (Effect.PAUSE,)),
        Event.LINK_LOST: _GONE,
        **_LEND,
        **_POWER,
    },
    State.OPENING: {
        Event.OPENED: To(State.WAKING, (Effect.WAKE,)),
        Event.OPEN_FAILED: To(State.ABSENT, (Effect.PAUSE,)),
        Event.LINK_LOST: _GONE,
        **_POWER,
    },
    State.WAKING: {
        Event.AWAKE: To(State.SETTING_UP, (Effect.SET_UP,)),
        Event.SILENT: _HUNG,
        Event.LINK_LOST: _GONE,
        **_POWER,
    },
    State.SETTING_UP: _up(State.SETTING_UP),
    State.READY: {**_watched(State.READY), **_LOCKED},
    State.NO_SIM: {**_watched(State.NO_SIM), **_LOCKED, **_RETURNED},
    State.PIN_NEEDED: {**_watched(State.PIN_NEEDED), **_RETURNED},
    State.NOT_REGISTERED: {**_watched(State.NOT_REGISTERED), **_LOCKED},
    State.STUCK: {
        Event.RUNG_DONE: To(State.STUCK, (Effect.PAUSE,)),
        Event.PAUSE_OVER: To(State.STUCK, (Effect.OPEN,)),
        Event.OPENED: To(State.STUCK, (Effect.WAKE,)),
        Event.OPEN_FAILED: To(State.ABSENT, (Effect.PAUSE,)),
        Event.AWAKE: To(State.SETTING_UP, (Effect.SET_UP,)),
        Event.SILENT: _HUNG,
        Event.LINK_LOST: _GONE,
        **_LEND,
        **_POWER,
    },
    # The port may stay, go, or come back at any moment of the hold.
    State.REBOOTING: {
        Event.PAUSE_OVER: To(State.REBOOTING, (Effect.OPEN,)),
        Event.OPENED: To(State.REBOOTING, (Effect.WAKE,)),
        Event.OPEN_FAILED: To(State.REBOOTING, (Effect.PAUSE_SHORTLY,)),
        Event.AWAKE: To(State.SETTING_UP, (Effect.SET_UP,)),
        Event.SILENT: To(State.REBOOTING, (Effect.CLOSE, Effect.PAUSE_SHORTLY)),
        Event.LINK_LOST: To(State.REBOOTING, (Effect.CLOSE, Effect.PAUSE_SHORTLY)),
        Event.HOLD_OVER: To(State.ABSENT, (Effect.CLOSE, Effect.PAUSE)),
        **_POWER,
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
        **_POWER,
    },
    State.LENT: {
        Event.GIVEN_BACK: To(State.OPENING, (Effect.FORGET, Effect.OPEN)),
        Event.LINK_LOST: _GONE,
        Event.REBOOT_SENT: To(State.LENT),
        Event.POWER_OFF_SENT: To(State.LENT),
    },
}

_USABLE: Final = frozenset({State.READY, State.NO_SIM, State.PIN_NEEDED, State.NOT_REGISTERED})


def step(state: State, event: Event) -> To[State, Effect]:
    """Return where an event leads and what is to be done, in order. Raises `IllegalTransition`."""
    return table.step(TRANSITIONS, state, event)


def in_hold(state: State, event: Event, held: State) -> Event:
    """Return what an event means while the hold lasts that began with `held`: a module that goes then does as told."""
    if event not in {Event.SILENT, Event.LINK_LOST} or state in _DOWN:
        return event
    return _DOWN[held]


def power_event(commands: Iterable[Command]) -> Event | None:
    """Return whether a command line restarts the module or switches it off, whoever sends it (MOD-4).

    <rst> 1 of +CFUN resets (TS 27.007 8.2); #ENHRST with delay 0 reboots at once, as clients in the field use it.
    """
    for command in commands:
        given = tuple(map(_number, arguments(command.args)[:2]))
        if command.name == "#SHDN" and command.op in {Op.EXECUTE, Op.SET}:
            return Event.POWER_OFF_SENT
        if command.name == "#REBOOT" and command.op in {Op.EXECUTE, Op.SET}:
            return Event.REBOOT_SENT
        if command.op is Op.SET and command.name == "+CFUN" and given[1:] == ("1",):
            return Event.REBOOT_SENT
        if command.op is Op.SET and command.name == "#ENHRST" and given in {("1", "0"), ("2", "0")}:
            return Event.REBOOT_SENT
        if command.name in {"#FWSWITCH", "#USBCFG", "#PORTCFG"} and command.op is Op.SET:
            return Event.REBOOT_SENT
    return None


_DOWN: Final = {State.REBOOTING: Event.WENT_DOWN, State.OFF_BY_COMMAND: Event.WENT_OFF}


def _number(argument: str) -> str:
    """Return a number without its quotes, blanks and leading zeros, for modules take it with them."""
    return unquote(argument.strip()).strip().lstrip("0") or "0"
