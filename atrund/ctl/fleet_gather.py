# SPDX-License-Identifier: Apache-2.0
"""Who of a fleet was asked, who has answered, and for whom it is too late.

Rules of this file: it knows no clock and no network, for each call is told the time (seconds of any clock that only
goes forward); a node has one request with one id, however often it is sent, and one answer, however often that comes.
"""

import enum
import json
import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from atrund.table import To, step

PAYLOAD_MAX: Final = 262_144
"""Octets of an answer that are looked at: the longest record in JSON's longest spelling lies below."""


class Stand(enum.Enum):
    """How it stands with a node."""

    WAITING = "waiting"
    ASKED = "asked"
    ACCEPTED = "accepted"
    RUNNING = "running"
    ANSWERED = "answered"
    SILENT = "silent"
    OFFLINE = "offline"
    ABSENT = "absent"
    DENIED = "denied"
    UNASKED = "not asked"


class Event(enum.Enum):
    """What can happen to it."""

    SENT = "sent"
    ACCEPTANCE = "acceptance"
    START = "start"
    ANSWER = "answer"
    DEADLINE = "deadline"
    NOBODY = "nobody takes it"
    REFUSAL = "refused by the broker"
    LOSS = "connection lost"
    BIRTH = "comes online"
    STOP = "nobody else is asked"


class _No(enum.Enum):
    """There is nothing to be done but to know where it stands."""


_To = To[Stand, _No]
_HEARD: Final[dict[Event, _To]] = {
    Event.ACCEPTANCE: To(Stand.ACCEPTED),
    Event.START: To(Stand.RUNNING),
    Event.ANSWER: To(Stand.ANSWERED),
}
_OPEN: Final[dict[Event, _To]] = {
    **_HEARD,
    Event.SENT: To(Stand.ASKED),
    Event.DEADLINE: To(Stand.SILENT),
    Event.NOBODY: To(Stand.ABSENT),
    Event.REFUSAL: To(Stand.DENIED),
    Event.LOSS: To(Stand.WAITING),
    Event.BIRTH: To(Stand.WAITING),
}


_ENDED: Final = (Stand.SILENT, Stand.OFFLINE, Stand.DENIED, Stand.UNASKED)


def _stays(stand: Stand, **but: Stand) -> dict[Event, _To]:
    return {event: To(but.get(event.name, stand)) for event in Event}


TRANSITIONS: Final[Mapping[Stand, Mapping[Event, _To]]] = {
    Stand.WAITING: {
        **_OPEN,
        Event.NOBODY: To(Stand.WAITING),
        Event.REFUSAL: To(Stand.WAITING),
        Event.STOP: To(Stand.UNASKED),
    },
    Stand.ASKED: _OPEN,
    # Sent again, the broker may have nobody to give it to; the node has it all the same.
    Stand.ACCEPTED: {**_OPEN, Event.NOBODY: To(Stand.ACCEPTED), Event.REFUSAL: To(Stand.ACCEPTED)},
    Stand.RUNNING: _stays(
        Stand.RUNNING, ANSWER=Stand.ANSWERED, DEADLINE=Stand.SILENT, LOSS=Stand.WAITING, BIRTH=Stand.WAITING
    ),
    Stand.ANSWERED: _stays(Stand.ANSWERED),
    # Whoever answers late has answered, as long as somebody is still waited for.
    **{stand: _stays(stand, ANSWER=Stand.ANSWERED) for stand in _ENDED},
    Stand.ABSENT: _stays(Stand.ABSENT, ANSWER=Stand.ANSWERED, BIRTH=Stand.WAITING),
}
"""The life of a request to one node."""

OPEN: Final = frozenset({Stand.WAITING, Stand.ASKED, Stand.ACCEPTED, Stand.RUNNING})
"""Those that are waited for."""

_INTERIM: Final = {"accepted": Event.ACCEPTANCE, "running": Event.START}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a node answered: text of a far side that must be escaped before anybody's terminal sees it."""

    id: str
    state: str
    final: str | None = None
    reason: str | None = None
    lines: tuple[str, ...] = ()
    record: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """All of it, as it came."""

    @property
    def ok(self) -> bool:
        """Whether it ended well. A state that is not known is an error (the contract has that list grow)."""
        return self.state == "ok"


class NoAnswer(ValueError):
    """A payload that is no answer of the contract."""


def read_answer(payload: bytes) -> Answer:
    """Return what an answer says. Raises `NoAnswer`."""
    if len(payload) > PAYLOAD_MAX:
        raise NoAnswer(f"{len(payload)} octets; at most {PAYLOAD_MAX}")
    record = read_record(payload)
    texts = {key: record.get(key) for key in ("id", "state", "final", "reason")}
    lines = record.get("lines", [])
    if not (isinstance(texts["id"], str) and isinstance(texts["state"], str)):
        raise NoAnswer("id or state is missing")
    if not (isinstance(lines, list) and all(isinstance(line, str) for line in lines)):
        raise NoAnswer("lines is no list of texts")
    if any(not isinstance(text, str | None) for text in texts.values()):
        raise NoAnswer("final or reason is no text")
    return Answer(**texts, lines=tuple(lines), record=record)  # type: ignore[arg-type]  # id and state were looked at


def read_record(payload: bytes) -> dict[str, Any]:
    """Return a payload of the contract, which is a JSON object. Raises `NoAnswer`."""
    try:
        record = json.loads(payload)
    except (ValueError, RecursionError):
        raise NoAnswer("no JSON") from None
    if not isinstance(record, dict):
        raise NoAnswer("JSON, but no object")
    return record


@dataclass(slots=True, eq=False)
class Node:
    """One that is asked. `asked_at` is when it was asked first."""

    name: str
    id: str
    stand: Stand = Stand.WAITING
    online: bool | None = None
    """By its `status`; None where that is not known."""
    asked_at: float | None = None
    heard_at: float | None = None
    times: int = 0
    """How often the request was sent."""
    answer: Answer | None = None
    late: bool = False
    """It answered behind its deadline."""
    why: str = ""
    """Why the broker refused the request."""

    @property
    def seconds(self) -> float | None:
        """How long its answer took, if there is one and it was asked."""
        return None if self.heard_at is None or self.asked_at is None else self.heard_at - self.asked_at


class Gather:
    """Asks nodes at a rate and gathers their answers; each has `deadline` seconds from when it was asked first."""

    def __init__(
        self,
        online: Mapping[str, bool | None],
        *,
        run: str,
        deadline: float,
        rate: float = 0.0,
        skipped: Iterable[str] = (),
    ) -> None:
        """`online` is by name what is known of a node; `rate` in requests a second, 0 for no bound.

        `skipped` are not asked, as they are offline. `run` begins each request's id.
        """
        self.nodes = {
            name: Node(name, f"{run}-{number}", online=up) for number, (name, up) in enumerate(online.items())
        }
        self.garbled = 0
        """Payloads that were no answer."""
        self._deadline = deadline
        self._pause = 1 / rate if rate else 0.0
        self._next_at = -math.inf
        for name in skipped:
            self.nodes[name].stand = Stand.OFFLINE
        self._waiting = deque(node for node in self.nodes.values() if node.stand is Stand.WAITING)
        self._open = len(self._waiting)
        self._asked: deque[tuple[float, Node]] = deque()
        """When the deadline of each is that was asked, in that order."""

    @property
    def done(self) -> bool:
        """Whether nobody is waited for any more."""
        return not self._open

    @property
    def open(self) -> list[Node]:
        """Those that are waited for."""
        return [node for node in self.nodes.values() if node.stand in OPEN]

    def next_to_ask(self, now: float) -> Node | None:
        """Return who is to be asked now, if anybody; `asked` is to follow."""
        while self._waiting and self._waiting[0].stand is not Stand.WAITING:
            self._waiting.popleft()
        return self._waiting[0] if self._waiting and now >= self._next_at else None

    def asked(self, node: Node, now: float) -> None:
        """Take note that the request to a node was handed to the broker."""
        self._move(node, Event.SENT)
        node.times += 1
        # One that is late is made up for, not all that a stall kept back.
        is_first = self._next_at == -math.inf
        self._next_at = (now if is_first else max(self._next_at, now - self._pause)) + self._pause
        if node.asked_at is None:
            node.asked_at = now
            self._asked.append((now + self._deadline, node))

    def heard(self, name: str, payload: bytes, now: float) -> Node | None:
        """Take a payload of a node's answers; return the node if that was its answer, for the first time."""
        node = self.nodes.get(name)
        try:
            answer = read_answer(payload)
        except NoAnswer:
            self.garbled += 1
            return None
        if node is None or not node.times or answer.id != node.id:
            return None
        event = _INTERIM.get(answer.state, Event.ANSWER)
        is_first = event is Event.ANSWER and node.stand is not Stand.ANSWERED
        if is_first:
            node.answer, node.heard_at, node.late = answer, now, node.stand is Stand.SILENT
        self._move(node, event)
        return node if is_first else None

    def nobody(self, name: str) -> None:
        """The broker has nobody to give a request to. One that was sent before may have been taken then."""
        if self.nodes[name].times == 1:
            self._move(self.nodes[name], Event.NOBODY)

    def refused(self, name: str, why: str) -> None:
        """The broker refused a request."""
        node = self.nodes[name]
        if node.times == 1:
            node.why = why
            self._move(node, Event.REFUSAL)

    def status(self, name: str, *, online: bool | None) -> None:
        """Take what a node's `status` says; None where it says nothing any more."""
        if name in self.nodes:
            self.nodes[name].online = online

    def born(self, name: str, now: float) -> None:
        """A node has just come online. What the broker had for it may be gone, so it is asked again."""
        node = self.nodes.get(name)
        if node is not None and node.asked_at is not None and now < node.asked_at + self._deadline:
            self._ask_again(node, Event.BIRTH)

    def lost(self) -> None:
        """The connection was lost: an answer may have been missed, so all are asked again. They know the id."""
        for node in self.open:
            self._ask_again(node, Event.LOSS)

    def tick(self, now: float) -> None:
        """Give up those whose deadline has passed."""
        while self._asked and now >= self._asked[0][0]:
            self._move(self._asked.popleft()[1], Event.DEADLINE)

    def stop_asking(self) -> None:
        """Ask nobody else."""
        for node in self.open:
            if node.stand is Stand.WAITING and not node.times:
                self._move(node, Event.STOP)

    def give_up(self) -> None:
        """Wait for nobody any more."""
        self.stop_asking()
        for node in self.open:
            self._move(node, Event.DEADLINE)

    def wait(self, now: float) -> float:
        """Return for how many seconds nothing is to be done unless something comes."""
        moments = [self._next_at] if self._waiting else []
        if self._asked:
            moments.append(self._asked[0][0])
        return max(0.0, min(moments, default=now) - now)

    def _ask_again(self, node: Node, event: Event) -> None:
        was = node.stand
        self._move(node, event)
        if was is not node.stand is Stand.WAITING:
            self._waiting.append(node)

    def _move(self, node: Node, event: Event) -> None:
        was_open = node.stand in OPEN
        node.stand = step(TRANSITIONS, node.stand, event).state
        self._open += (node.stand in OPEN) - was_open
