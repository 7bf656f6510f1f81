# SPDX-License-Identifier: Apache-2.0
"""A TCP session as a table: login or token, commands, data, transparent mode, end (TCP-3 to TCP-7, TCP-13).

Rules of this file: before COMMAND nothing that was typed is run or echoed; the idle timer stands still while a command
runs, and not while it waits for the peer's data; every ending closes once.
"""

from typing import Final

from atrund.table import To, Word, step


class State(Word):
    """Where a session is."""

    NEW = "new"
    NAME = "name awaited"
    PASSWORD = "password awaited"
    TOKEN = "token awaited"
    CHECKING = "login checked"
    COMMAND = "command awaited"
    RUNNING = "command runs"
    DATA = "data awaited"
    TRANSPARENT = "transparent"
    CLOSED = "closed"


class Event(Word):
    """What can happen to it."""

    CONNECTED = "connected"
    CALLED = "far end called"
    CALLED_TRUSTED = "far end called that needs no token"
    LINE = "line"
    LOGIN_GOOD = "login good"
    LOGIN_BAD = "login bad"
    PROMPT = "prompt"
    PROMPT_AGAIN = "prompt for more of it"
    DATA_ENDED = "data ended"
    FINAL = "final result"
    CONNECT = "final result with which transparent mode begins"
    ESCAPE = "escape"
    PORT_LOST = "serial port lost"
    LOGIN_TIMEOUT = "login timeout"
    IDLE_TIMEOUT = "idle timeout"
    PEER_CLOSED = "peer closed"
    STOPPED = "service stopped"


class Effect(Word):
    """What the door is to do."""

    ARM_LOGIN = "start the login timer"
    KEEP_NAME = "keep the name"
    CHECK_LOGIN = "check name and password"
    CHECK_TOKEN = "check the token"
    BEGIN = "be the AT interface"
    ARM_IDLE = "start the idle timer"
    STOP_TIMER = "stop the timer"
    EXECUTE = "run the line"
    QUEUE_OR_IGNORE = "queue or ignore the line"
    SHOW_PROMPT = "show the prompt"
    NEXT = "take the next queued line"
    RELAY = "pass bytes between peer and serial port"
    END_RELAY = "give the serial port back"
    SHOW_END = "show NO CARRIER"
    CLOSE = "close the connection"


_CLOSE: Final = To(State.CLOSED, (Effect.STOP_TIMER, Effect.CLOSE))
_ENDINGS: Final = {Event.PEER_CLOSED: _CLOSE, Event.STOPPED: _CLOSE}
_RELAY: Final = To(State.TRANSPARENT, (Effect.ARM_IDLE, Effect.RELAY))
_LEAVE: Final = To(State.COMMAND, (Effect.END_RELAY, Effect.SHOW_END, Effect.ARM_IDLE, Effect.NEXT))
_CLOSE_RELAY: Final = To(State.CLOSED, (Effect.STOP_TIMER, Effect.END_RELAY, Effect.CLOSE))

TRANSITIONS: Final[dict[State, dict[Event, To[State, Effect]]]] = {
    State.NEW: {
        Event.CONNECTED: To(State.NAME, (Effect.ARM_LOGIN,)),
        Event.CALLED: To(State.TOKEN, (Effect.ARM_LOGIN,)),
        Event.CALLED_TRUSTED: To(State.COMMAND, (Effect.BEGIN, Effect.ARM_IDLE)),
        **_ENDINGS,
    },
    State.NAME: {
        Event.LINE: To(State.PASSWORD, (Effect.KEEP_NAME,)),
        Event.LOGIN_TIMEOUT: _CLOSE,
        **_ENDINGS,
    },
    State.PASSWORD: {
        Event.LINE: To(State.CHECKING, (Effect.CHECK_LOGIN,)),
        Event.LOGIN_TIMEOUT: _CLOSE,
        **_ENDINGS,
    },
    State.TOKEN: {
        Event.LINE: To(State.CHECKING, (Effect.CHECK_TOKEN,)),
        Event.LOGIN_TIMEOUT: _CLOSE,
        **_ENDINGS,
    },
    State.CHECKING: {
        Event.LOGIN_GOOD: To(State.COMMAND, (Effect.BEGIN, Effect.ARM_IDLE)),
        Event.LOGIN_BAD: _CLOSE,
        Event.LOGIN_TIMEOUT: _CLOSE,
        **_ENDINGS,
    },
    State.COMMAND: {
        Event.LINE: To(State.RUNNING, (Effect.STOP_TIMER, Effect.EXECUTE)),
        Event.IDLE_TIMEOUT: _CLOSE,
        **_ENDINGS,
    },
    State.RUNNING: {
        Event.LINE: To(State.RUNNING, (Effect.QUEUE_OR_IGNORE,)),
        Event.PROMPT_AGAIN: To(State.RUNNING, (Effect.SHOW_PROMPT,)),  # late, for data that were typed ahead
        Event.PROMPT: To(State.DATA, (Effect.SHOW_PROMPT, Effect.ARM_IDLE)),
        Event.FINAL: To(State.COMMAND, (Effect.ARM_IDLE, Effect.NEXT)),
        Event.CONNECT: _RELAY,
        **_ENDINGS,
    },
    State.DATA: {
        Event.PROMPT_AGAIN: To(State.DATA, (Effect.SHOW_PROMPT,)),
        Event.PROMPT: To(State.DATA, (Effect.SHOW_PROMPT, Effect.ARM_IDLE)),  # the line's next command's
        Event.DATA_ENDED: To(State.RUNNING, (Effect.STOP_TIMER,)),
        Event.FINAL: To(State.COMMAND, (Effect.ARM_IDLE, Effect.NEXT)),
        Event.CONNECT: _RELAY,
        Event.IDLE_TIMEOUT: _CLOSE,
        **_ENDINGS,
    },
    State.TRANSPARENT: {
        Event.ESCAPE: _LEAVE,
        Event.PORT_LOST: _LEAVE,
        Event.IDLE_TIMEOUT: _CLOSE_RELAY,
        Event.PEER_CLOSED: _CLOSE_RELAY,
        Event.STOPPED: _CLOSE_RELAY,
    },
    State.CLOSED: {},
}


class Session:
    """Where one session is; `step` moves it."""

    def __init__(self) -> None:
        self.state = State.NEW

    def step(self, event: Event) -> tuple[Effect, ...]:
        """Move on and return the effects to carry out, in order. Raises `IllegalTransition`."""
        to = step(TRANSITIONS, self.state, event)
        self.state = to.state
        return to.effects
