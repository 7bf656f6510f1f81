# SPDX-License-Identifier: Apache-2.0
"""A request and its life as a table (REQ-1, REQ-2, REQ-9).

Rules of this file: nothing is sent to the module on any way that does not lead through SENT, and SENT is entered only
when the fact is recorded as the door's transport demands; every way ends in ENDED with one outcome.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from atrund.table import To, Word, step


class Door(Word):
    """A way in for commands."""

    SMS = "sms"
    TCP = "tcp"
    MQTT = "mqtt"
    LOCAL = "local"
    MONITOR = "monitor"

    @property
    def delivers_again(self) -> bool:
        """Whether its transport may show a request twice, so that the disk must know before each step (REQ-9)."""
        return self in {Door.SMS, Door.MQTT}


class Reason(Word):
    """Why a request was not run, or not to its end: the words of the MQTT contract."""

    POLICY = "policy"
    AUTH = "auth"
    FIREWALL = "firewall"
    LOCKED = "locked"
    BUSY = "busy"
    HELD = "held"
    QUEUE_FULL = "queue_full"
    TOO_LONG = "too_long"
    BAD_REQUEST = "bad_request"
    RETAINED = "retained"
    DUPLICATE = "duplicate"
    EXPIRED = "expired"
    DEADLINE = "deadline"
    CLOCK_UNSET = "clock_unset"
    PROMPT_UNSUPPORTED = "prompt_unsupported"
    DATA_MODE = "data_mode"
    NOT_ATRUN = "not_atrun"
    REPLAY = "replay"
    RATE_LIMITED = "rate_limited"
    UNCONFIRMED = "unconfirmed"
    PORT_DOWN = "port_down"
    STORAGE = "storage"
    IDLE = "idle"
    SHUTDOWN = "shutdown"


class End(Word):
    """The outcome of a request: the final values of `state` in the MQTT contract."""

    OK = "ok"
    ERROR = "error"
    TIMEOUT = "timeout"
    REJECTED = "rejected"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Request:
    """One command line that came through a door.

    `rid` is unique and goes with it everywhere. `timeout` (seconds) runs from the first byte sent to the module,
    `delay` (seconds) is waited before the turn. `key` is what a repeated delivery is known by, empty where there is
    none. `context` is what the door needs to answer after a restart. `reply`: whether the asker wants an answer.
    `expires`: the second of the daemon's running (REQ-11) after which it must not be sent any more. `names`: what else
    the asker is known by (login, MQTT `<who>`); `forgeable`: all these may be another's, as a simple SMS's sender.
    `interactive`: its door shows prompts and gives what they ask for (REQ-6). `body` is what came with it to be given
    at the one prompt of its line.
    """

    rid: str
    door: Door
    peer: str
    line: str = field(repr=False)
    timeout: float = 300.0
    delay: float = 0.0
    instance: int = 1
    reply: bool = True
    key: str = ""
    expires: float | None = None
    names: tuple[str, ...] = ()
    forgeable: bool = False
    interactive: bool = False
    context: Mapping[str, str | int | None] = field(default_factory=dict)
    body: bytes | None = field(default=None, repr=False)

    @property
    def answers_prompts(self) -> bool:
        """Whether a prompt can be answered, by its asker or with its body."""
        return self.interactive or self.body is not None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a request ended. `lines` and `final` are the module's own words; `framed` is them with V.250 framing."""

    end: End
    reason: Reason | None = None
    final: str | None = None
    lines: tuple[str, ...] = field(default=(), repr=False)
    framed: str = field(default="", repr=False)
    truncated: bool = False
    queued_ms: int = 0
    duration_ms: int = 0
    detail: str = ""

    @property
    def was_refused(self) -> bool:
        """Whether the daemon ended it without the module's own final result."""
        return self.end not in {End.OK, End.ERROR}


class State(Word):
    """Where a request is."""

    RECEIVED = "received"
    JUDGED = "judged"
    DELAYED = "delayed"
    WAITING = "waiting"
    GRANTED = "granted"
    SENT = "sent"
    ENDED = "ended"


class Event(Word):
    """What can happen to it."""

    ALLOWED = "allowed"
    REFUSED = "refused"
    RECORDED = "recorded"
    NOT_RECORDED = "not recorded"
    REPEATED = "repeated"
    DELAY_OVER = "delay over"
    TURN = "turn"
    NO_TURN = "no turn"
    FINAL = "final"
    TIMED_OUT = "timed out"
    LINK_LOST = "link lost"
    CANCELLED = "cancelled"
    FOUND_AFTER_RESTART = "found after a restart"


class Effect(Word):
    """What the runner is to do."""

    RECORD = "record it"
    DELAY = "wait the delay"
    ASK_TURN = "ask for a turn"
    RECORD_SENT = "record that it is sent"
    SEND = "send it"
    GIVE_UP = "give the command up"
    RECORD_END = "record the outcome"


_REFUSED: Final = To(State.ENDED, (Effect.RECORD_END,))

TRANSITIONS: Final[dict[State, dict[Event, To[State, Effect]]]] = {
    State.RECEIVED: {
        Event.ALLOWED: To(State.JUDGED, (Effect.RECORD,)),
        Event.REFUSED: _REFUSED,
    },
    State.JUDGED: {
        Event.RECORDED: To(State.DELAYED, (Effect.DELAY,)),
        Event.NOT_RECORDED: _REFUSED,
        Event.REPEATED: To(State.ENDED),
        Event.CANCELLED: _REFUSED,
        Event.FOUND_AFTER_RESTART: To(State.DELAYED, (Effect.DELAY,)),
        Event.REFUSED: _REFUSED,  # the rules may be others since
    },
    State.DELAYED: {
        Event.DELAY_OVER: To(State.WAITING, (Effect.ASK_TURN,)),
        Event.CANCELLED: _REFUSED,
    },
    State.WAITING: {
        Event.TURN: To(State.GRANTED, (Effect.RECORD_SENT,)),
        Event.NO_TURN: _REFUSED,
        Event.LINK_LOST: _REFUSED,
        Event.CANCELLED: _REFUSED,
    },
    State.GRANTED: {
        Event.RECORDED: To(State.SENT, (Effect.SEND,)),
        Event.NOT_RECORDED: _REFUSED,
        Event.CANCELLED: _REFUSED,
    },
    State.SENT: {
        Event.FINAL: To(State.ENDED, (Effect.RECORD_END,)),
        Event.TIMED_OUT: To(State.ENDED, (Effect.GIVE_UP, Effect.RECORD_END)),
        Event.CANCELLED: To(State.ENDED, (Effect.GIVE_UP, Effect.RECORD_END)),
        Event.LINK_LOST: To(State.ENDED, (Effect.RECORD_END,)),
        # Its fate is unknown, and it is never run a second time.
        Event.FOUND_AFTER_RESTART: To(State.ENDED, (Effect.RECORD_END,)),
    },
    State.ENDED: {},
}


class Life:
    """Where one request is; `step` moves it."""

    def __init__(self, state: State = State.RECEIVED) -> None:
        self.state = state

    def step(self, event: Event) -> tuple[Effect, ...]:
        """Move on and return the effects to carry out, in order. Raises `IllegalTransition`."""
        to = step(TRANSITIONS, self.state, event)
        self.state = to.state
        return to.effects
