# SPDX-License-Identifier: Apache-2.0
"""Whether another device uses this node's name, as far as that can be seen from here.

Rule of this file: what this daemon itself said, or its will, now or in a run before, is no sign of another.
"""

import json
import math
from collections.abc import Collection
from typing import Final

FORGET: Final = 3600.0
"""Seconds without a sign after which the other is gone: it may be one that is tried out on a bench, or replaced."""
TAKEN_MAX: Final = 2
"""Take-overs within that time that are a sign: one alone may have been somebody's hand."""


class Twin:
    """Takes in what was seen. `now` is in seconds, of any clock that goes on."""

    def __init__(self) -> None:
        self._taken: list[float] = []
        self._seen = -math.inf
        self._said = -math.inf

    def taken_over(self, now: float) -> None:
        """Take note that the broker gave the connection to another that came with the same client id."""
        self._taken = [*self._taken, now][-TAKEN_MAX:]
        if len(self._taken) == TAKEN_MAX and now - self._taken[0] < FORGET:
            self._seen = now

    def status(self, payload: bytes, own: Collection[str], now: float, *, spoken: bool) -> None:
        """Take in what somebody published as this node's status.

        `own` are the sessions of this daemon, `spoken` whether it has published its own status there in this run: then
        whatever other one lies there now came later, and else only one that calls itself online is a sign.
        """
        try:
            status = json.loads(payload)
            session, state = status["session"], status["state"]
        except (ValueError, TypeError, LookupError, RecursionError):
            return
        if session not in own and (spoken or state == "online"):
            self._seen = now

    def is_there(self, now: float) -> bool:
        """Return whether there is another device, or was of late."""
        return now - self._seen < FORGET

    def is_news(self, now: float) -> bool:
        """Return whether it has yet to be said that there is one; it is said again when it was gone meanwhile."""
        if not self.is_there(now):
            return False
        news, self._said = now - self._said >= FORGET, now
        return news
