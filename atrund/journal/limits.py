# SPDX-License-Identifier: Apache-2.0
"""How many entries of one kind are written: no flood of one, whoever makes it, costs another its place in the journal.

Rules of this file: pure; seconds of any clock that never goes back. Each kind of entry has a bucket of its own at each
door: what it allows is written, what exceeds it is counted, and the count is due `WINDOW` seconds later. Nothing is
kept of who made them: the audit has that. Entries at debug level are for who looks for a fault, and are not judged.
"""

from dataclasses import dataclass
from typing import Final

WINDOW: Final = 30.0
"""Seconds from the first entry that is held back to the one that says how many were: journald's own interval, which the
unit switches off because it takes no account of kinds (journald.conf(5), RateLimitIntervalSec=)."""
AT_ONCE: Final = 100
"""Entries of a kind at once: more than any start, reload or busy minute makes, all mistakes of a file among them."""
A_SECOND: Final = 1.0
"""How many more a second: all of who connects that often, and, in a flood that lasts, 50 MB a day and not 10 GB."""
COMMANDS: Final = frozenset({"command taken", "command", "command not done", "answer published"})
"""What is said of a request that was accepted. Who may ask at all makes these, each behind a record on disk."""
COMMANDS_AT_ONCE: Final = 3000
COMMANDS_A_SECOND: Final = 100.0
"""Faster than any module answers, so that only what the daemon answers itself can exceed it."""
BUCKETS_MAX: Final = 512
"""Some 170 kinds, most of them at one door or none; whatever exceeds it shares a bucket."""


@dataclass(frozen=True, slots=True)
class Held:
    """Entries of a kind that were not written: how many, in how many seconds."""

    kind: str
    door: str
    count: int
    seconds: float


@dataclass(slots=True)
class _Bucket:
    left: float
    """Entries that it allows."""
    at: float
    """When that was so."""
    held: int = 0
    since: float = 0.0


class Limits:
    """The buckets. `due_at`: when the next count is due, None while nothing is held back."""

    def __init__(self) -> None:
        self._buckets: dict[tuple[str, str], _Bucket] = {}
        self._holding: dict[tuple[str, str], _Bucket] = {}
        self.due_at: float | None = None

    def admits(self, kind: str, door: str, now: float) -> bool:
        """Return whether an entry is written; if not, it is counted."""
        most, rate = (COMMANDS_AT_ONCE, COMMANDS_A_SECOND) if kind in COMMANDS else (AT_ONCE, A_SECOND)
        key = (kind, door)
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= BUCKETS_MAX:
                key = _OTHERS
            bucket = self._buckets.setdefault(key, _Bucket(most, now))
        bucket.left = min(most, bucket.left + (now - bucket.at) * rate)
        bucket.at = now
        if bucket.left >= 1:
            bucket.left -= 1
            return True
        bucket.held += 1
        if bucket.held == 1:
            bucket.since = now
            self._holding[key] = bucket
            if self.due_at is None:
                self.due_at = now + WINDOW
        return False

    def due(self, now: float) -> list[Held]:
        """Return what was held back for a `WINDOW`, and count it anew."""
        if self.due_at is None or now < self.due_at:
            return []
        return self._take(now, [key for key, one in self._holding.items() if now >= one.since + WINDOW])

    def rest(self, now: float) -> list[Held]:
        """Return all that was held back so far, and count it anew."""
        return self._take(now, list(self._holding))

    def _take(self, now: float, keys: list[tuple[str, str]]) -> list[Held]:
        taken = []
        for key in keys:
            one = self._holding.pop(key)
            taken.append(Held(*key, one.held, now - one.since))
            one.held = 0
        # They are in the order in which they began.
        first = next(iter(self._holding.values()), None)
        self.due_at = None if first is None else first.since + WINDOW
        return taken


_OTHERS: Final = ("others", "")
