# SPDX-License-Identifier: Apache-2.0
"""The MQTT door: requests from the broker, their answers into the outbox (MQ-2, MQ-3, MQ-7).

Rules of this file: a message is acknowledged to the broker only when its request is recorded; one that comes again is
answered from the record and never run again.
"""

import asyncio
import uuid
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Final

import structlog

from atrund.atrun.ask import Ask, AskRefused, parse_ask
from atrund.atrun.request import Door, End, Outcome, Reason, Request
from atrund.broker import Broker, Incoming
from atrund.clock import Clock
from atrund.ledger import Ledger, StorageError, tables
from atrund.ledger.tables import Known
from atrund.ledger.writer import Write
from atrund.mirror import Mirror
from atrund.runner import Run, Runner

log = structlog.get_logger()

SUBSCRIPTIONS: Final = ("at/request", "at/request/+")
PENDING_MAX: Final = 200
"""Requests on their way at once; the port's queue refuses past its own depth long before."""


@dataclass(frozen=True, slots=True)
class MqttRules:
    """What the door goes by. `reply_prefixes` end with `/`; the node's own prefix is always among the allowed."""

    remote_at: bool
    run_queued: bool
    reply_prefixes: tuple[str, ...]


class MqttDoor:
    """Takes what the broker hands in."""

    def __init__(self, rules: MqttRules, *, runner: Runner, ledger: Ledger, mirror: Mirror, clock: Clock) -> None:
        self.broker: Broker | None = None
        """Set once the broker is made; needed only for what the disk did not take."""
        self._rules = rules
        self._runner = runner
        self._ledger = ledger
        self._mirror = mirror
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()

    async def take_up(self) -> None:
        """Go on with what a restart interrupted (REQ-9)."""
        try:
            unfinished: list[Known] = await self._ledger.ask(tables.unfinished(Door.MQTT))
        except StorageError:
            return
        for known in unfinished:
            if known.outcome is None:
                self._runner.resume(known, self._answer)

    def receive(self, message: Incoming) -> None:
        """Take a message; never waits."""
        if len(self._tasks) >= PENDING_MAX:
            log.warning("request left at the broker: too many are on their way", peer=_who(message.topic))
            return
        self._spawn(self._serve(message))

    async def _serve(self, message: Incoming) -> None:
        request, refused = self._judge(message)
        run = self._runner.start(request, self._answer, refused)
        if not await asyncio.shield(run.accepted):
            outcome = await asyncio.shield(run.outcome)
            if outcome is not None and outcome.reason is Reason.STORAGE:
                self._say_unrecorded(request, outcome)
        elif run.known is not None:
            self._answer_again(run, run.known)
        message.ack()

    def _judge(self, message: Incoming) -> tuple[Request, Outcome | None]:
        """Return the request that a message is, and why it is not run, if so."""
        ask, refused = self._read(message)
        correlation = message.correlation.hex() if message.correlation else None
        who = _who(message.topic)
        own = correlation or ask.id
        expires = None
        if refused is None:
            expires, refused = self._expiry(message, ask)
        rid = uuid.uuid4().hex
        request = Request(
            rid=rid,
            door=Door.MQTT,
            peer=who,
            line=ask.cmd,
            timeout=ask.timeout,
            reply=ask.reply,
            key=f"{who}\0{own}" if own and not message.retained else "",
            expires=expires,
            context={"id": ask.id or _text(message.correlation) or rid, "correlation": correlation, "reply_to": None},
        )
        reply_to = message.response_topic or ask.reply_to
        if reply_to is not None and refused is None:
            if self._may_reply(reply_to):
                request = replace(request, context={**request.context, "reply_to": reply_to})
            else:
                refused = _rejected(Reason.BAD_REQUEST, f"{reply_to[:80]!r} lies outside the allowed reply prefixes")
        if refused is None and own is None and message.duplicate:
            refused = _rejected(Reason.DUPLICATE, "delivered again, with nothing to know it by")
        return request, refused

    def _read(self, message: Incoming) -> tuple[Ask, Outcome | None]:
        try:
            ask = parse_ask(message.payload)
        except AskRefused as error:
            return Ask(cmd="", id=error.id), _rejected(error.reason, error.detail)
        if message.retained:
            return ask, _rejected(Reason.RETAINED, "a retained request would run again at each connection")
        if not self._rules.remote_at:
            return ask, _rejected(Reason.POLICY, "mqtt.remote_at is off")
        return ask, None

    def _expiry(self, message: Incoming, ask: Ask) -> tuple[float | None, Outcome | None]:
        """Return until when it may run, in seconds of running, and a refusal if that is past or can't be known."""
        left = None if message.expiry is None else float(message.expiry)
        if ask.expires is not None:
            if not self._clock.known():
                return None, _rejected(Reason.CLOCK_UNSET, "expires cannot be judged while the clock is not set")
            span = (ask.expires - self._clock.now()).total_seconds()
            left = span if left is None else min(left, span)
        if left is None:
            if message.queued and not self._rules.run_queued:
                return None, Outcome(End.EXPIRED, Reason.EXPIRED, detail="it waited at the broker, without an expiry")
            return None, None
        if left <= 0:
            return None, Outcome(End.EXPIRED, Reason.EXPIRED, detail="expired before it came")
        return self._ledger.run + left, None

    def _may_reply(self, topic: str) -> bool:
        allowed = (self._mirror.base, *self._rules.reply_prefixes)
        return not set(topic) & set("+#\0") and topic.startswith(allowed)

    def _answer(self, request: Request, outcome: Outcome) -> list[Write]:
        """Rows of the answer, written with the outcome itself."""
        return [*self._response(request, outcome, outcome.end.value), tables.mark_answered(request.rid)]

    def _response(self, request: Request, outcome: Outcome | None, state: str) -> list[Write]:
        if not request.reply:
            return []
        given: Mapping[str, str | int | None] = request.context
        correlation = given.get("correlation")
        extra = {"correlation": str(correlation)} if correlation else {}
        payload = self._mirror.response(request, outcome, state=state, correlation=str(given["id"]))
        rows = self._mirror.post("at/response", payload, response=True, extra=extra)
        if (reply_to := given.get("reply_to")) is not None:
            rows += self._mirror.post_to(str(reply_to), payload, extra=extra)
        return rows

    def _answer_again(self, run: Run, known: Known) -> None:
        """Answer what came again from the record, or say that its key stands for something else."""
        request = run.request
        if known.digest != tables.content_digest(request):
            refused = _rejected(Reason.DUPLICATE, "the same id with another command")
            self._ledger.behind(
                *self._mirror.ended(request, refused, was_accepted=False),
                *self._response(request, refused, End.REJECTED.value),
            )
            return
        first = replace(known.request, context={**known.request.context, "reply_to": request.context["reply_to"]})
        if known.outcome is not None:
            state = known.outcome.end.value
        else:
            state = "running" if known.state == tables.SENT else "accepted"
        log.info("request came again", id=first.rid, door=Door.MQTT.value, peer=first.peer, state=state)
        self._ledger.behind(*self._response(first, known.outcome, state))

    def _say_unrecorded(self, request: Request, outcome: Outcome) -> None:
        """The disk takes nothing, so the outbox can't either: say so past it (REQ-12)."""
        if self.broker is not None and request.reply:
            payload = self._mirror.response(
                request, outcome, state=outcome.end.value, correlation=str(request.context["id"])
            )
            self.broker.publish("at/response", payload)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("request not served", detail=repr(error))


def _rejected(reason: Reason, detail: str) -> Outcome:
    return Outcome(End.REJECTED, reason, detail=detail)


def _who(topic: str) -> str:
    """Return the asker that the broker vouches for by the topic's last level."""
    _, _, who = topic.partition("/at/request/")
    return who or "unknown"


def _text(correlation: bytes | None) -> str | None:
    """Return Correlation Data as text where it is, else in hexadecimal, for the payload's `id`."""
    if not correlation:
        return None
    text = correlation.decode("ascii", "replace")
    return text if text.isascii() and text.isprintable() else correlation.hex()
