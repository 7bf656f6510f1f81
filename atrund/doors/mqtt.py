# SPDX-License-Identifier: Apache-2.0
"""The MQTT door: requests from the broker, their answers into the outbox (MQ-2, MQ-3, MQ-7).

Rules of this file: a message is acknowledged to the broker only when its request is recorded; one that comes again is
answered from the record and never run again.
"""

import asyncio
import functools
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Final

import structlog

from atrund.atrun.request import Door, End, Outcome, Reason, Request, State
from atrund.broker import Broker, Incoming
from atrund.clock import Clock
from atrund.doors.asking import OWN_LEVELS, Cancel, Judge, MqttRules, extra_of, rejected, who_asks
from atrund.ledger import Ledger, StorageError, tables
from atrund.ledger.tables import Known
from atrund.ledger.writer import Write
from atrund.mirror import Mirror
from atrund.records import properties
from atrund.run import Run
from atrund.runner import Runner

__all__ = ["OWN_LEVELS", "SUBSCRIPTIONS", "MqttDoor", "MqttRules"]

log = structlog.get_logger()

SUBSCRIPTIONS: Final = ("at/request", "at/request/+", "at/cancel", "at/cancel/+")
PENDING_MAX: Final = 200
"""Requests that wait to be recorded at once, past which those with QoS 0 are dropped."""
UNFINISHED_MAX: Final = 200
"""Requests on their way, past which one that waits for no turn is acknowledged when it has ended, not before."""
TAKE_UP_AGAIN: Final = 10.0
"""Seconds until a ledger that could not be read is looked at again."""


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
        self._judge = Judge(clock=clock, base=mirror.base, run=lambda: ledger.run)
        self._runs: dict[str, Run] = {}
        """What is on its way, by its own id."""
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
                log.warning("requests dropped: too many with QoS 0 at once", peer=who_asks(message.topic))
            return
        is_cancel = message.topic.removeprefix(self._mirror.base).startswith("at/cancel")
        self._spawn(self._serve(message, self._take_back if is_cancel else self._take))

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
                    self._watch(self._runner.resume(known, self._answer))
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

    async def _serve(self, message: Incoming, serve: Callable[[Incoming], Coroutine[None, None, None]]) -> None:
        try:
            await serve(message)
        except Exception:
            # Acknowledged all the same: it would come again for ever, and hold a place that others need.
            log.exception("request not served", peer=who_asks(message.topic))
        message.ack()

    async def _take(self, message: Incoming) -> None:
        request, refused = self._judge.request(message, self.rules, closed=self.is_closed())
        if not await self._is_taken_up():
            refused = rejected(Reason.STORAGE, "the ledger cannot be read")
            self._mirror.log_end(request, refused)
            self._ledger.behind(*self._mirror.ended(request, refused, was_accepted=False))
            self._say_unrecorded(request, refused)
            return
        if refused is not None and (known := await self._recorded(request)) is not None:
            self._answer_again(request, known)
            return
        run = self._watch(self._runner.start(request, self._answer, refused))
        accepted = await asyncio.shield(run.accepted)
        if run.known is not None:
            self._answer_again(request, run.known)
        elif not accepted:
            outcome = await asyncio.shield(run.outcome)
            if outcome is not None and (outcome.reason is Reason.STORAGE or not run.is_written):
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

    def _watch(self, run: Run) -> Run:
        """Know a request while it is on its way, so that it can be taken back."""
        self._runs[run.request.rid] = run
        run.outcome.add_done_callback(lambda _: self._runs.pop(run.request.rid, None))
        return run

    async def _take_back(self, message: Incoming) -> None:
        """Take back what waits, give up what runs; it is acknowledged when that is recorded.

        A cancellation right behind its request finds it, for what comes in is begun in the order in which it came.
        """
        cancel, refused = self._judge.cancel(message, self.rules)
        if not await self._is_taken_up():
            self._say_unrecorded(cancel.asked, rejected(Reason.STORAGE, "the ledger cannot be read"))
            return
        if refused is not None:
            self._refuse_cancel(cancel, refused)
            return
        if not await self._give_up(cancel):
            await self._answer_late_cancel(cancel)

    async def _give_up(self, cancel: Cancel) -> bool:
        """Give up what is on its way and meant, and return whether there was any."""
        runs = [run for run in self._runs.values() if cancel.means(run.request)]
        for run in runs:
            # One that is being recorded may turn out to be known already, and then the outcome is not its own. Told as
            # soon as it is recorded, it ends before it is sent, for that is recorded too.
            run.accepted.add_done_callback(functools.partial(_give_up, run))
        if runs:
            await asyncio.wait([run.outcome for run in runs])
        taken = [run for run in runs if run.known is None]
        for run in taken:
            outcome = run.outcome.result()
            state = End.CANCELLED.value if outcome is None else outcome.end.value
            self._ledger.behind(
                *self._mirror.session(Door.MQTT, cancel.asked.peer, "cancel", rid=run.request.rid),
                *self._answer_cancel(cancel, run.request, outcome, state),
            )
        return bool(taken)

    async def _answer_late_cancel(self, cancel: Cancel) -> None:
        """Answer a cancellation of what has ended already with its outcome, or say that there is no such request."""
        try:
            known: Known | None = await self._ledger.ask(_known_to(cancel))
        except StorageError:
            self._say_unrecorded(cancel.asked, rejected(Reason.STORAGE, "the ledger cannot be read"))
            return
        if (known is None or known.outcome is None) and await self._give_up(cancel):
            return  # it came while it was looked for
        if known is None:
            self._refuse_cancel(cancel, rejected(Reason.BAD_REQUEST, "id: no request of this asker is known by it"))
            return
        first = replace(known.request, context={**known.request.context, "reply_to": None})
        self._ledger.behind(
            *self._mirror.session(Door.MQTT, cancel.asked.peer, "cancel", rid=first.rid),
            *self._response(first, known.outcome, _state(known)),
            *self._answer_cancel(cancel, first, known.outcome, _state(known)),
        )

    def _refuse_cancel(self, cancel: Cancel, refused: Outcome) -> None:
        reason = None if refused.reason is None else refused.reason.value
        self._ledger.behind(
            *self._mirror.session(Door.MQTT, cancel.asked.peer, "cancel refused", reason),
            *self._response(cancel.asked, refused, refused.end.value),
        )

    def _answer_cancel(self, cancel: Cancel, request: Request, outcome: Outcome | None, state: str) -> list[Write]:
        """Rows of a request's outcome for whoever cancelled it and named a topic for that."""
        if (reply_to := cancel.asked.context["reply_to"]) is None:
            return []
        payload = self._mirror.response(request, outcome, state=state, correlation=str(request.context["id"]))
        return self._mirror.post_to(str(reply_to), payload, extra=extra_of(cancel.asked))

    def _answer(self, request: Request, outcome: Outcome) -> list[Write]:
        """Rows of the answer, written with the outcome itself; none for what is said past the outbox."""
        if outcome.reason is Reason.STORAGE and not self._runs[request.rid].accepted.done():
            return []
        return [*self._response(request, outcome, outcome.end.value), tables.mark_answered(request.rid)]

    def _response(self, request: Request, outcome: Outcome | None, state: str) -> list[Write]:
        if not request.reply:
            return []
        payload = self._mirror.response(request, outcome, state=state, correlation=str(request.context["id"]))
        rows = self._mirror.post("at/response", payload, response=True, extra=extra_of(request))
        if (reply_to := request.context.get("reply_to")) is not None:
            rows += self._mirror.post_to(str(reply_to), payload, extra=extra_of(request))
        return rows

    def _answer_again(self, request: Request, known: Known) -> None:
        """Answer what came again from the record, or say that its key stands for something else."""
        if known.digest != tables.content_digest(request):
            refused = rejected(Reason.DUPLICATE, "the same id with another command or body")
            self._mirror.log_end(request, refused)
            self._ledger.behind(
                *self._mirror.ended(request, refused, was_accepted=False),
                *self._response(request, refused, End.REJECTED.value),
            )
            return
        first = replace(known.request, context={**known.request.context, "reply_to": request.context["reply_to"]})
        state = _state(known)
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
                self.broker.publish(str(topic), payload, properties(payload) | dict(extra_of(request)))


def _give_up(run: Run, _accepted: "asyncio.Future[bool]") -> None:
    run.give_up()


def _known_to(cancel: Cancel) -> Write:
    """Return the recorded request that is meant, or None."""
    looks = [tables.known_by_key(Door.MQTT, key) for key in sorted(cancel.keys)]
    if cancel.id is not None:
        looks.append(tables.known_by_rid(Door.MQTT, cancel.asked.peer, cancel.id))
    return lambda db: next((known for look in looks if (known := look(db)) is not None), None)


def _state(known: Known) -> str:
    """Return the present state of a recorded request, as the contract has it."""
    if known.outcome is not None:
        return known.outcome.end.value
    return "running" if known.state == tables.SENT else "accepted"
