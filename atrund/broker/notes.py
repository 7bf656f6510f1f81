# SPDX-License-Identifier: Apache-2.0
"""What is remembered of each broker over restarts: since when we are away, and who spoke as this node there.

Rule of this file: each broker has a memory of its own, for one that we lived without for a day has kept its requests
for a day (MQ-2), whichever other one we were connected to meanwhile.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

SESSIONS_MAX: Final = 4
"""Runs of this daemon that are remembered of each broker, of which the last will may yet come."""


@dataclass(frozen=True, slots=True)
class Note:
    """`since`: at which second of the daemon's running (REQ-11) the connection was lost, None while there is one.

    Time for which the daemon did not run counts as well: it lies that much earlier, and may be below zero.
    `sessions`: those in whose names this daemon has spoken there, the newest first.
    """

    since: float | None
    sessions: tuple[str, ...] = ()


class Notes:
    """The notes of the brokers that are configured, and no others: of one that comes back nothing is known."""

    def __init__(self, names: Iterable[str], *, run: float, kept: str = "", down: float = math.inf) -> None:
        """`kept`: the last `text` of the run before; `down`: how many seconds that is ago, `run` the daemon's now."""
        found = _read(kept)
        self._notes: dict[str, Note] = {}
        for name in names:
            if name in found:
                since = found[name].since
                self._notes[name] = replace(found[name], since=(run if since is None else min(since, run)) - down)

    @property
    def text(self) -> str:
        """All of them, to be kept."""
        return json.dumps({name: [note.since, *note.sessions] for name, note in self._notes.items()})

    def sessions(self, name: str) -> tuple[str, ...]:
        """Return in whose names this daemon has spoken there."""
        return self._notes[name].sessions if name in self._notes else ()

    def away(self, name: str, run: float) -> float:
        """Return for how many seconds there was no connection to a broker, infinite where that is not known."""
        note = self._notes.get(name)
        if note is None:
            return math.inf
        return 0.0 if note.since is None else run - note.since

    def came(self, name: str, session: str) -> bool:
        """Take note of a connection; returns whether this run's session is a new one there."""
        known = self.sessions(name)
        self._notes[name] = Note(None, (session, *(old for old in known if old != session))[:SESSIONS_MAX])
        return session not in known

    def went(self, name: str, run: float) -> None:
        """Take note that the connection is gone."""
        self._notes[name] = replace(self._notes[name], since=run)


def _read(text: str) -> Mapping[str, Note]:
    """Read what was kept; what can't be read is not known."""
    try:
        return {
            str(name): Note(None if since is None else float(since), tuple(map(str, sessions)))
            for name, (since, *sessions) in json.loads(text).items()
        }
    except (ValueError, TypeError, AttributeError):
        return {}
