# SPDX-License-Identifier: Apache-2.0
"""What an MQTT message asks: the request that it is, who asks it, where the answer goes, and why it is not run, if so.

Rules of this file: it decides and does nothing (MQ-2, MQ-3, MQ-7). Whoever is refused is told which key was wrong, and
what would be right.
"""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from atrund.at.syntax import LINE_MAX
from atrund.atrun.ask import Ask, AskRefused, parse_ask, parse_cancel
from atrund.atrun.body import misfit
from atrund.atrun.request import Door, End, Outcome, Reason, Request
from atrund.broker import Incoming
from atrund.clock import Clock

LINE_KEPT: Final = 2 * LINE_MAX
"""Characters that are kept of a line, which is too long then all the same."""
CORRELATION_MAX: Final = 256
"""Octets of Correlation Data, which are kept with the request: a hash or some uuids, and their names."""
REPLY_TO_MAX: Final = 200
"""Characters of a Response Topic. A broker may drop the connection over a longer one, mosquitto over one of more than
200 levels, and the answer would come again on the next."""
OWN_LEVELS: Final = frozenset({"status", "info", "module", "at", "event", "urc", "sms", "metrics"})
"""What stands below the node's prefix by contract: an answer there would let its asker speak in the daemon's name."""


@dataclass(frozen=True, slots=True)
class MqttRules:
    """What the door goes by. `reply_prefixes` end with `/`; the node's own prefix is always among the allowed."""

    remote_at: bool
    run_queued: bool
    reply_prefixes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Cancel:
    """A cancellation: `asked` has who asks it and where its answer goes.

    It is for what `who` asked under one of `keys`, or what has this `id`: as its own, or as the one made here.
    """

    asked: Request
    keys: frozenset[str]
    id: str | None

    def means(self, request: Request) -> bool:
        """Whether it is for this request."""
        if request.peer != self.asked.peer:
            return False
        return request.key in self.keys or (self.id is not None and self.id in {request.rid, request.context.get("id")})


class Judge:
    """Judges messages. `base` is `<prefix>/<node>/`; `run` tells for how long the daemon has run (REQ-11)."""

    def __init__(self, *, clock: Clock, base: str, run: Callable[[], float]) -> None:
        self._clock = clock
        self._base = base
        self._run = run

    def request(self, message: Incoming, rules: MqttRules, *, closed: bool) -> tuple[Request, Outcome | None]:
        """Return the request that a message is, and why it is not run, if so. `closed`: an operator shut the door."""
        ask, refused = _read(message, rules, closed=closed)
        request, unfit = _begin(message, ask.id)
        refused = refused or unfit
        expires = None
        if refused is None:
            expires, refused = self._expiry(message, ask, rules)
        own = request.context["correlation"] or ask.id
        request = replace(
            request,
            line=ask.cmd[:LINE_KEPT],
            timeout=ask.timeout,
            instance=ask.instance,
            reply=ask.reply,
            key=_key(request.peer, str(own)) if own and not message.retained else "",
            expires=expires,
            body=ask.body,
        )
        if refused is None:
            refused = _body(ask)
        # Whoever is refused hears so where the answer was to go, if that is allowed.
        request, elsewhere = self._reply_to(request, message.response_topic or ask.reply_to, rules)
        refused = refused or elsewhere
        if refused is None and own is None and message.duplicate:
            refused = rejected(Reason.DUPLICATE, "delivered again, with nothing to know it by")
        return request, refused

    def cancel(self, message: Incoming, rules: MqttRules) -> tuple[Cancel, Outcome | None]:
        """Return what a message takes back, and why it takes nothing back, if so.

        It may do so while the door is closed, or shut for commands altogether: nothing is run for it.
        """
        id_, refused = None, None
        try:
            id_ = parse_cancel(message.payload)
        except AskRefused as error:
            id_, refused = error.id, rejected(error.reason, error.detail)
        request, unfit = _begin(message, id_)
        refused = refused or unfit
        correlation = request.context["correlation"]
        if refused is None and message.retained:
            refused = rejected(Reason.RETAINED, "a retained cancellation would come again at each connection")
        if refused is None and id_ is None and correlation is None:
            refused = rejected(Reason.BAD_REQUEST, "id: the request's own, or its Correlation Data")
        request, elsewhere = self._reply_to(request, message.response_topic, rules)
        refused = refused or elsewhere
        # Where it names an id, its own Correlation Data is what its answer is known by, as with any request of MQTT 5.
        # And a request that was known by Correlation Data shows it as its `id`, where that is text.
        names = {str(correlation)} if id_ is None else {id_, id_.encode().hex()}
        return Cancel(request, frozenset(_key(request.peer, name) for name in names), id_), refused

    def _expiry(self, message: Incoming, ask: Ask, rules: MqttRules) -> tuple[float | None, Outcome | None]:
        """Return until when it may run, in seconds of running, and a refusal if that is past or can't be known."""
        left = None if message.expiry is None else float(message.expiry)
        if ask.expires is not None:
            if not self._clock.known():
                return None, rejected(Reason.CLOCK_UNSET, "expires cannot be judged while the clock is not set")
            span = (ask.expires - self._clock.now()).total_seconds()
            left = span if left is None else min(left, span)
        if left is None:
            if message.queued and not rules.run_queued:
                return None, Outcome(End.EXPIRED, Reason.EXPIRED, detail="it waited at the broker, without an expiry")
            return None, None
        if left <= 0:
            return None, Outcome(End.EXPIRED, Reason.EXPIRED, detail="expired before it came")
        return self._run() + left, None

    def _reply_to(self, request: Request, topic: str | None, rules: MqttRules) -> tuple[Request, Outcome | None]:
        if topic is None:
            return request, None
        if not self._may_reply(topic, rules):
            return request, rejected(Reason.BAD_REQUEST, f"{topic[:80]!r} lies outside the allowed reply prefixes")
        return replace(request, context={**request.context, "reply_to": topic}), None

    def _may_reply(self, topic: str, rules: MqttRules) -> bool:
        if len(topic) > REPLY_TO_MAX or not topic.isprintable() or set(topic) & set("+#"):
            return False
        below = topic.removeprefix(self._base)
        if below != topic:
            return below.partition("/")[0] not in OWN_LEVELS or below.startswith("at/response/")
        return topic.startswith(rules.reply_prefixes)


def rejected(reason: Reason, detail: str) -> Outcome:
    """Return the outcome of what is refused; `detail` is for a person."""
    return Outcome(End.REJECTED, reason, detail=detail)


def who_asks(topic: str) -> str:
    """Return the asker that the broker vouches for by the topic's last level."""
    for below in ("/at/request/", "/at/cancel/"):
        _, _, who = topic.partition(below)
        if who:
            return who
    return "unknown"


def extra_of(request: Request) -> Mapping[str, str]:
    """Return the properties of MQTT 5 that an answer carries for its asker."""
    correlation = request.context.get("correlation")
    return {"correlation": str(correlation)} if correlation else {}


def _read(message: Incoming, rules: MqttRules, *, closed: bool) -> tuple[Ask, Outcome | None]:
    try:
        ask = parse_ask(message.payload)
    except AskRefused as error:
        return Ask(cmd="", id=error.id, reply_to=error.reply_to), rejected(error.reason, error.detail)
    if message.retained:
        return ask, rejected(Reason.RETAINED, "a retained request would run again at each connection")
    if closed:
        return ask, rejected(Reason.POLICY, "the mqtt door is closed by an operator of the device")
    if not rules.remote_at:
        return ask, rejected(Reason.POLICY, "mqtt.remote_at is off")
    return ask, None


def _begin(message: Incoming, id_: str | None) -> tuple[Request, Outcome | None]:
    """Return who asks and what the answer is known by, and why that can't be kept, if so."""
    given = message.correlation or b""
    refused = None
    if len(given) > CORRELATION_MAX:
        refused = rejected(Reason.BAD_REQUEST, f"Correlation Data: at most {CORRELATION_MAX} octets")
        given = b""
    who, rid = who_asks(message.topic), uuid.uuid4().hex
    context = {"id": id_ or _text(given) or rid, "correlation": given.hex() or None, "reply_to": None}
    return Request(rid=rid, door=Door.MQTT, peer=who, names=(who,), line="", context=context), refused


def _body(ask: Ask) -> Outcome | None:
    wrong = misfit(ask.cmd, ask.body, is_text=ask.is_text)
    return None if wrong is None else rejected(*wrong)


def _key(who: str, own: str) -> str:
    return f"{who}\0{own}"


def _text(correlation: bytes) -> str:
    """Return Correlation Data as text where it is, else in hexadecimal, for the payload's `id`."""
    text = correlation.decode("ascii", "replace")
    return text if text.isascii() and text.isprintable() else correlation.hex()
