# SPDX-License-Identifier: Apache-2.0
"""What is written down about requests and sessions: mirror, audit, journal; masked in one place (POL-3, POL-4)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import structlog

from atrund import records
from atrund.at.syntax import LineRefused, parse
from atrund.atrun.request import Door, End, Outcome, Reason, Request
from atrund.atrun.secrets import MASK, mask_answer, mask_line, mask_number, mask_numbers, mask_prose
from atrund.clock import Clock, rfc3339
from atrund.ledger import audit, outbox
from atrund.ledger.writer import Write

if TYPE_CHECKING:
    from atrund.atrun.others import Told

log = structlog.get_logger()


class Mirror:
    """Makes the rows; the caller writes them in the transaction that moves the request.

    `base` is `<prefix>/<node>/`, or "" while MQTT is off: then nothing is put into the outbox. `records` and
    `octets` are how much may wait there. `memory`: events are kept in memory alone (`mqtt.spool`).
    """

    def __init__(
        self,
        *,
        clock: Clock,
        session: str,
        base: str = "",
        full_numbers: bool = False,
        records: int = outbox.RECORDS_MAX,
        octets: int = outbox.OCTETS_MAX,
        memory: bool = False,
    ) -> None:
        self.base = base
        self._records = records
        self._octets = octets
        self._memory = memory
        self._clock = clock
        self._session = session
        self.full_numbers = full_numbers
        """Whether telephone numbers leave the device whole."""

    def stamp(self) -> records.Stamp:
        """Return the present stamp."""
        return records.Stamp(self._session, rfc3339(self._clock.now()), self._clock.known())

    def accepted(self, request: Request) -> list[Write]:
        """Rows for a request that will run; one over MQTT does only if there is room for its answer (MQ-5)."""
        rows = self._event("event/command", request, "accepted", Outcome(End.OK))
        if request.door is Door.MQTT and request.reply:
            rows.insert(0, outbox.room_for_answers(self._records, self._octets))
        return rows

    def ended(self, request: Request, outcome: Outcome, *, was_accepted: bool) -> list[Write]:
        """Rows for an outcome; a refusal before acceptance is also the command's first and only mention."""
        topics = ["event/response"] if was_accepted else ["event/command", "event/response"]
        writes = [row for topic in topics for row in self._event(topic, request, outcome.end.value, outcome)]
        now = rfc3339(self._clock.now())
        writes.append(_audit_of(request, outcome, now))
        return writes

    def log_taken(self, request: Request) -> None:
        """Log that a request is on disk and will be run: what a crash takes the end of was seen to come (REQ-9)."""
        log.info(
            "command taken",
            id=request.rid,
            door=request.door.value,
            peer=request.peer,
            who=_called(request) or None,
            correlation=request.context.get("id"),
            digest=None if request.door is not Door.SMS else request.context.get("password") is not None,
            command=mask_line(request.line),
        )

    def log_end(self, request: Request, outcome: Outcome) -> None:
        """Log how a request ended: who asked by which door for what, what became of it and why, how long it took."""
        log.info(
            "command",
            id=request.rid,
            door=request.door.value,
            peer=request.peer,
            who=_called(request) or None,
            correlation=request.context.get("id"),
            command=mask_line(request.line),
            state=outcome.end.value,
            final=outcome.final,
            reason=outcome.reason.value if outcome.reason else None,
            detail=_detail(outcome),
            queued_ms=outcome.queued_ms if outcome.queued_ms >= _LONG else None,
            duration_ms=outcome.duration_ms,
        )

    def session(
        self, door: Door, peer: str, what: str, reason: str | None = None, rid: str = "", *, logged: bool = False
    ) -> list[Write]:
        """Rows for what is no request: somebody came, went, was let in or kept out; an SMS was accepted or not.

        `logged`: it is in the log already, as the warning that it is.
        """
        if not logged:
            log.info(what, id=rid or None, door=door.value, peer=peer, reason=reason)
        writes = [
            audit.note(
                ts=rfc3339(self._clock.now()), rid=rid, door=door.value, peer=peer, line="", event=what, reason=reason
            )
        ]
        payload = records.session_record(
            self.stamp(), door=door.value, peer=self.peer(door, peer), what=what, reason=reason, rid=rid
        )
        return writes + self.post("event/session", payload)

    def received(self, told: "Told") -> list[Write]:
        """Row for a message that is no ATRUN SMS, where that is published. It is dropped for room last (MQ-4)."""
        text, peer = told.text, told.peer
        if not self.full_numbers:
            text = None if text is None else mask_numbers(text)
            peer = mask_number(peer) if peer.removeprefix("+").isdecimal() else peer
        payload = records.received_record(
            self.stamp(),
            peer=peer,
            sent=None if told.sent is None else rfc3339(told.sent),
            text=text,
            raw=told.raw,
            part=None if told.part is None else (told.part.reference, told.part.total, told.part.index),
            withheld=told.withheld,
        )
        return self.post("sms/received", payload, response=True)

    def unsolicited(self, lines: tuple[str, ...]) -> tuple[str, ...]:
        """Return an unsolicited code as it may leave the device: what is behind its first line is somebody's message.

        Broadcasts are for everybody.
        """
        shown = tuple(mask_answer((), line) for line in lines)
        if not self.full_numbers:
            shown = tuple(map(mask_numbers, shown))
        return shown if lines[0].startswith("+CBM:") else (shown[0], *(MASK for _ in shown[1:]))

    def response(
        self, request: Request, outcome: Outcome | None, *, state: str, correlation: str | None
    ) -> dict[str, Any]:
        """Return the payload of an answer over MQTT; what the asker is owed is not withheld from it (POL-3)."""
        outcome = outcome or Outcome(End.OK)
        record = self._record(self.stamp(), request, state, outcome, correlation, owed=True)
        return records.answer_record(record, outcome.detail if self.full_numbers else mask_prose(outcome.detail))

    def post(
        self, topic: str, payload: Mapping[str, Any], *, response: bool = False, extra: Mapping[str, str] | None = None
    ) -> list[Write]:
        """Return the outbox row for a message below the node's own prefix, if there is MQTT."""
        if not self.base:
            return []
        return [self._row(self.base + topic, payload, response=response, extra=extra)]

    def post_to(self, topic: str, payload: Mapping[str, Any], *, extra: Mapping[str, str]) -> list[Write]:
        """Return the outbox row for an answer to a topic that the asker named."""
        return [self._row(topic, payload, response=True, extra=extra)]

    def peer(self, door: Door, peer: str) -> str:
        """Return who asks, as it may leave the device."""
        if self.full_numbers or door not in {Door.SMS, Door.MONITOR}:
            return peer
        by, blank, number = peer.rpartition(" ")
        # The monitor's peer is the door that stored the command, and who came through it.
        return f"{by}{blank}{mask_number(number)}" if door is Door.SMS or by == Door.SMS.value else peer

    def _row(self, topic: str, payload: Mapping[str, Any], *, response: bool, extra: Mapping[str, str] | None) -> Write:
        text = records.to_json(payload)
        return outbox.post(
            response=response,
            topic=topic,
            payload=text,
            extra=records.properties(payload) | dict(extra or {}),
            records=self._records,
            octets=self._octets,
            memory=self._memory,
        )

    def _event(self, topic: str, request: Request, state: str, outcome: Outcome) -> list[Write]:
        """The record is made where the row is written: parsing and masking a long answer is no work for the loop."""
        if not self.base:
            return []
        stamp = self.stamp()
        given = request.context.get("id")
        correlation = None if given is None else str(given)

        def write(db: Any) -> None:  # noqa: ANN401 - what a connection is, the ledger alone knows
            payload = self._record(stamp, request, state, outcome, correlation, owed=False)
            self._row(self.base + topic, payload, response=False, extra=None)(db)

        return [write]

    def _record(
        self,
        stamp: records.Stamp,
        request: Request,
        state: str,
        outcome: Outcome,
        correlation: str | None,
        *,
        owed: bool,
    ) -> dict[str, Any]:
        names = _names(request.line) if outcome.lines else ()
        cmd, lines = mask_line(request.line), [mask_answer(names or (), line) for line in outcome.lines]
        if names is None or (not owed and not _MESSAGES.isdisjoint(names)):
            lines = [MASK] * len(lines)
        if not owed and not self.full_numbers:
            cmd, lines = mask_numbers(cmd), [mask_numbers(line) for line in lines]
        return records.request_record(
            stamp,
            rid=request.rid,
            correlation=correlation,
            door=request.door.value,
            peer=self.peer(request.door, request.peer),
            cmd=cmd,
            state=state,
            reason=outcome.reason.value if outcome.reason else None,
            final=outcome.final,
            lines=tuple(lines),
            truncated=outcome.truncated,
            queued_ms=outcome.queued_ms,
            duration_ms=outcome.duration_ms,
        )


_MESSAGES: Final = frozenset({"+CMGL", "+CMGR", "+CRSM", "+CSIM", "+CGLA"})
"""Commands that show other people's messages (3GPP TS 27.005 3.4.2, 3.4.3): bodies, numbers, digests (POL-3).

So may the last three, which read the SIM's files (TS 27.007 8.17, 8.18, 8.43): EF-SMS keeps what was deleted, too.
"""


def _names(line: str) -> tuple[str, ...] | None:
    """The commands whose answer it is: only a line that was parsed was ever run. None where a mask broke it since."""
    try:
        return tuple(command.name for command in parse(line))
    except LineRefused:
        return None


def _detail(outcome: Outcome) -> str | None:
    """Why it ended so. A rule's words begin with a command: one that has secrets goes behind, where it hides nothing.

    What is said by a rule is the configuration's and ours; where that has a secret itself it is hidden all the same.
    """
    name, colon, why = outcome.detail.partition(": ")
    if colon and outcome.reason is Reason.POLICY and mask_line(name + colon) != name + colon:
        return f"{why}; command: {name}"
    return outcome.detail or None


_LONG: Final = 1000
"""Milliseconds in the queue that are worth a word in the log."""


def _called(request: Request) -> str:
    """What the asker is called beside the peer: logins, names of certificates."""
    return ", ".join(name for name in request.names if name != request.peer)


def _audit_of(request: Request, outcome: Outcome, now: str) -> Write:
    def write(db: Any) -> None:  # noqa: ANN401 - what a connection is, the ledger alone knows
        row = audit.note(
            ts=now,
            rid=request.rid,
            door=request.door.value,
            peer=request.peer,
            who=_called(request),
            line=mask_line(request.line),
            event=outcome.end.value,
            reason=outcome.reason.value if outcome.reason else None,
            rule=outcome.detail or None,
            duration_ms=outcome.duration_ms,
        )
        row(db)

    return write
