# SPDX-License-Identifier: Apache-2.0
"""What is written down about requests and sessions: mirror, audit, journal; masked in one place (POL-3, POL-4)."""

from collections.abc import Mapping
from typing import Any

import structlog

from atrund import records
from atrund.at.syntax import parse
from atrund.atrun.request import Door, End, Outcome, Request
from atrund.atrun.secrets import mask_answer, mask_line, mask_number
from atrund.clock import Clock, rfc3339
from atrund.ledger import tables
from atrund.ledger.writer import Write

log = structlog.get_logger()


class Mirror:
    """Makes the rows; the caller writes them in the transaction that moves the request.

    `base` is `<prefix>/<node>/`, or "" while MQTT is off: then nothing is put into the outbox. `records` is how many
    rows of the mirror may wait there.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        session: str,
        base: str = "",
        full_numbers: bool = False,
        records: int = tables.OUTBOX_MAX,
    ) -> None:
        self.base = base
        self._records = records
        self._clock = clock
        self._session = session
        self._full_numbers = full_numbers

    def stamp(self) -> records.Stamp:
        """Return the present stamp."""
        return records.Stamp(self._session, rfc3339(self._clock.now()), self._clock.known())

    def accepted(self, request: Request) -> list[Write]:
        """Rows for a request that will run."""
        return self._event("event/command", request, "accepted", Outcome(End.OK))

    def ended(self, request: Request, outcome: Outcome, *, was_accepted: bool) -> list[Write]:
        """Rows for an outcome; a refusal before acceptance is also the command's first and only mention."""
        topics = ["event/response"] if was_accepted else ["event/command", "event/response"]
        writes = [row for topic in topics for row in self._event(topic, request, outcome.end.value, outcome)]
        line = mask_line(request.line)
        reason = outcome.reason.value if outcome.reason else None
        log.info(
            "command",
            id=request.rid,
            door=request.door.value,
            peer=request.peer,
            command=line,
            state=outcome.end.value,
            final=outcome.final,
            reason=reason,
            detail=outcome.detail or None,
            duration_ms=outcome.duration_ms,
        )
        writes.append(
            tables.audit(
                ts=rfc3339(self._clock.now()),
                rid=request.rid,
                door=request.door.value,
                peer=request.peer,
                line=line,
                event=outcome.end.value,
                reason=reason,
                rule=outcome.detail or None,
                duration_ms=outcome.duration_ms,
            )
        )
        return writes

    def session(self, door: Door, peer: str, what: str, reason: str | None = None, rid: str = "") -> list[Write]:
        """Rows for what is no request: somebody came, went, was let in or kept out; an SMS was accepted or not."""
        log.info(what, id=rid or None, door=door.value, peer=peer, reason=reason)
        writes = [
            tables.audit(
                ts=rfc3339(self._clock.now()), rid=rid, door=door.value, peer=peer, line="", event=what, reason=reason
            )
        ]
        payload = records.session_record(
            self.stamp(), door=door.value, peer=self.peer(door, peer), what=what, reason=reason
        )
        return writes + self.post("event/session", payload)

    def response(
        self, request: Request, outcome: Outcome | None, *, state: str, correlation: str | None
    ) -> dict[str, Any]:
        """Return the payload of an answer over MQTT."""
        return self._record(request, state, outcome or Outcome(End.OK), correlation)

    def post(
        self, topic: str, payload: Mapping[str, Any], *, response: bool = False, extra: Mapping[str, str] | None = None
    ) -> list[Write]:
        """Return the outbox row for a message below the node's own prefix, if there is MQTT."""
        if not self.base:
            return []
        text = records.to_json(payload)
        return [
            tables.post(response=response, topic=self.base + topic, payload=text, extra=extra, records=self._records)
        ]

    def post_to(self, topic: str, payload: Mapping[str, Any], *, extra: Mapping[str, str]) -> list[Write]:
        """Return the outbox row for an answer to a topic that the asker named."""
        text = records.to_json(payload)
        return [tables.post(response=True, topic=topic, payload=text, extra=extra, records=self._records)]

    def peer(self, door: Door, peer: str) -> str:
        """Return who asks, as it may leave the device."""
        return mask_number(peer) if door is Door.SMS and not self._full_numbers else peer

    def _event(self, topic: str, request: Request, state: str, outcome: Outcome) -> list[Write]:
        if not self.base:
            return []
        correlation = request.context.get("id")
        return self.post(
            topic, self._record(request, state, outcome, None if correlation is None else str(correlation))
        )

    def _record(self, request: Request, state: str, outcome: Outcome, correlation: str | None) -> dict[str, Any]:
        names = _names(request.line) if outcome.lines else ()
        return records.request_record(
            self.stamp(),
            rid=request.rid,
            correlation=correlation,
            door=request.door.value,
            peer=self.peer(request.door, request.peer),
            cmd=mask_line(request.line),
            state=state,
            reason=outcome.reason.value if outcome.reason else None,
            final=outcome.final,
            lines=tuple(mask_answer(names, line) for line in outcome.lines),
            truncated=outcome.truncated,
            queued_ms=outcome.queued_ms,
            duration_ms=outcome.duration_ms,
        )


def _names(line: str) -> tuple[str, ...]:
    """The commands whose answer it is: only a line that was parsed was ever run."""
    return tuple(command.name for command in parse(line))
