# SPDX-License-Identifier: Apache-2.0
"""The MQTT door: requests from the broker, their answers into the outbox (MQ-2, MQ-3, MQ-7).

Rules of this file: a message is acknowledged to the broker only when its request is recorded; one that comes again is
answered from the record and never run again.
"""

import asyncio
import uuid
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Final

import structlog

from atrund.at.syntax import LINE_MAX
from atrund.atrun.ask import Ask, AskRefused, parse_ask
from atrund.atrun.request import Door, End, Outcome, Reason, Request, State
from atrund.broker import Broker, Incoming
from atrund.clock import Clock
from atrund.ledger import Ledger, StorageError, tables
from atrund.ledger.tables import Known
from atrund.ledger.writer import Write
from atrund.mirror import Mirror
from atrund.run import Run
from atrund.runner import Runner

log = structlog.get_logger()

SUBSCRIPTIONS: Final = ("at/request", "at/request/+")
PENDING_MAX: Final = 200
"""Requests that wait to be recorded at once, past which those with QoS 0 are dropped."""
UNFINISHED_MAX: Final = 200
"""Requests on their way, past which one that waits for no turn is acknowledged when it has ended, not before."""
TAKE_UP_AGAIN: Final = 10.0
"""Seconds until a ledger that could not be read is looked at again."""
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


class MqttDoor:
    """Takes what the broker hands in."""

    def __init__(self, rules: MqttRules, *, runner: Runner, ledger: Ledger, mirror: Mirror, clock: Clock) -> None:
        self.broker: Broker | None = None
        """Set once the broker is made; needed only for what the disk did not take."""
        self.is_closed: Callable[[], bool] = lambda: False
        """Whether an operator keeps the door closed: requests are refused, the mirror goes on."""
        self.rules = rules
        """Exchanged when the configuration is read anew."""
        self._runner = runner
        self._ledger = ledger
        self._mirror = mirror
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()
        self._taking_up = asyncio.Lock()
        self._taken_up = False
        self._full = False

    async def take_up(self) -> None:
        """Go on with what a restart interrupted (REQ-9), now or as soon as that can be read."""
        if not await self._is_taken_up():
            self._spawn(self._take_up_later())

    def receive(self, message: Incoming) -> None:
        """Take a message; never waits."""
        # With QoS 1 the broker's own window is the bound. One that is left unacknowledged keeps its place in there, and
        # a few of them would keep out all that follow.
        was_full, self._full = self._full, len(self._tasks) >= PENDING_MAX
        if self._full and message.qos == 0:
            if not was_full:  # once, however many there are
                log.warning("requests dropped: too many with QoS 0 at once", peer=_who(message.topic))
            return
        self._spawn(self._serve(message))

    async def _is_taken_up(self) -> bool:
        """Go on with what a restart interrupted unless that was done; returns whether it is done.

        Until then nothing new is recorded, for it would be taken for something of the time before.
        """
        async with self._taking_up:
            if self._taken_up:
                return True
            try:
                unfinished: list[Known] = await self._ledger.ask(tables.unfinished(Door.MQTT))
            except StorageError:
                return False
            self._taken_up = True
            for known in unfinished:
                if known.outcome is None:
                    self._runner.resume(known, self._answer)
        return True

    async def _take_up_later(self) -> None:
        while not self._runner.closing:
            await asyncio.sleep(TAKE_UP_AGAIN)
            if await self._is_taken_up():
                return

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, message: Incoming) -> None:
        try:
            await self._take(message)
        except Exception:
            # Acknowledged all the same: it would come again for ever, and hold a place that others need.
            log.exception("request not served", peer=_who(message.topic))
        message.ack()

    async def _take(self, message: Incoming) -> None:
        request, refused = self._judge(message)
        if not await self._is_taken_up():
            refused = _rejected(Reason.STORAGE, "the ledger cannot be read")
            self._ledger.behind(*self._mirror.ended(request, refused, was_accepted=False))
            self._say_unrecorded(request, refused)
            return
        if refused is not None and (known := await self._recorded(request)) is not None:
            self._answer_again(request, known)
            return
        run = self._runner.start(request, self._answer, refused)
        accepted = await asyncio.shield(run.accepted)
        if run.known is not None:
            self._answer_again(request, run.known)
        elif not accepted:
            outcome = await asyncio.shield(run.outcome)
            if outcome is not None and (outcome.reason is Reason.STORAGE or self._ledger.failure):
                self._say_unrecorded(request, outcome)
        elif self._is_one_too_many(run):
            await asyncio.shield(run.outcome)

    def _is_one_too_many(self, run: Run) -> bool:
        """Whether nothing but the broker's window bounds how many such as this there may be: no turn, so no queue."""
        state = run.life.state
        return state is State.ENDED or (state is not State.WAITING and self._runner.running > UNFINISHED_MAX)

    async def _recorded(self, request: Request) -> Known | None:
        """Return the record of the same request, so that none that ran is called expired when it comes again."""
        if not request.key:
            return None
        try:
            known: Known | None = await self._ledger.ask(tables.known_by_key(Door.MQTT, request.key))
        except StorageError:
            return None
        return known if known is not None and known.digest == tables.content_digest(request) else None

    def _judge(self, message: Incoming) -> tuple[Request, Outcome | None]:
        """Return the request that a message is, and why it is not run, if so."""
        ask, refused = self._read(message)
        given = message.correlation or b""
        if len(given) > CORRELATION_MAX:
            refused = refused or _rejected(Reason.BAD_REQUEST, f"Correlation Data: at most {CORRELATION_MAX} octets")
            given = b""
        correlation = given.hex() or None
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
            names=(who,),
            line=ask.cmd[:LINE_KEPT],
            timeout=ask.timeout,
            reply=ask.reply,
            key=f"{who}\0{own}" if own and not message.retained else "",
            expires=expires,
            context={"id": ask.id or _text(given) or rid, "correlation": correlation, "reply_to": None},
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
        if self.is_closed():
            return ask, _rejected(Reason.POLICY, "the mqtt door is closed by an operator of the device")
        if not self.rules.remote_at:
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
            if message.queued and not self.rules.run_queued:
                return None, Outcome(End.EXPIRED, Reason.EXPIRED, detail="it waited at the broker, without an expiry")
            return None, None
        if left <= 0:
            return None, Outcome(End.EXPIRED, Reason.EXPIRED, detail="expired before it came")
        return self._ledger.run + left, None

    def _may_reply(self, topic: str) -> bool:
        if len(topic) > REPLY_TO_MAX or not topic.isprintable() or set(topic) & set("+#"):
            return False
        below = topic.removeprefix(self._mirror.base)
        if below != topic:
            return below.partition("/")[0] not in OWN_LEVELS or below.startswith("at/response/")
        return topic.startswith(self.rules.reply_prefixes)

    def _answer(self, request: Request, outcome: Outcome) -> list[Write]:
        """Rows of the answer, written with the outcome itself."""
        return [*self._response(request, outcome, outcome.end.value), tables.mark_answered(request.rid)]

    def _response(self, request: Request, outcome: Outcome | None, state: str) -> list[Write]:
        if not request.reply:
            return []
        payload = self._mirror.response(request, outcome, state=state, correlation=str(request.context["id"]))
        rows = self._mirror.post("at/response", payload, response=True, extra=_extra(request))
        if (reply_to := request.context.get("reply_to")) is not None:
            rows += self._mirror.post_to(str(reply_to), payload, extra=_extra(request))
        return rows

    def _answer_again(self, request: Request, known: Known) -> None:
        """Answer what came again from the record, or say that its key stands for something else."""
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
        if self.broker is None or not request.reply:
            return
        payload = self._mirror.response(
            request, outcome, state=outcome.end.value, correlation=str(request.context["id"])
        )
        for topic in (self._mirror.base + "at/response", request.context["reply_to"]):
            if topic is not None:
                self.broker.publish(str(topic), payload, _extra(request))


def _rejected(reason: Reason, detail: str) -> Outcome:
    return Outcome(End.REJECTED, reason, detail=detail)


def _who(topic: str) -> str:
    """Return the asker that the broker vouches for by the topic's last level."""
    _, _, who = topic.partition("/at/request/")
    return who or "unknown"


def _extra(request: Request) -> Mapping[str, str]:
    correlation = request.context.get("correlation")
    return {"correlation": str(correlation)} if correlation else {}


def _text(correlation: bytes) -> str:
    """Return Correlation Data as text where it is, else in hexadecimal, for the payload's `id`."""
    text = correlation.decode("ascii", "replace")
    return text if text.isascii() and text.isprintable() else correlation.hex()
