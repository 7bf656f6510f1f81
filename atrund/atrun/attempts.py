# SPDX-License-Identifier: Apache-2.0
"""Who failed to log in lately, and what follows: slowed first, then shut out for a while (TCP-3).

Rules of this file: time is given in seconds of any clock that never goes back; what is kept has a cap; an address that
logs in well has a clean sheet.
"""

import math
from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network
from typing import Final

from atrund.atrun.firewall import address_of

WINDOW: Final = 900.0
"""Seconds for which a failure counts: one who types a password wrong now and then is never shut out."""
SLOWEST: Final = 8.0
"""Seconds that a wrong pair waits for its end at most: longer would keep more connections than it keeps out."""
ADDRESSES_MAX: Final = 1024
"""Addresses remembered, some 200 kB; the one that failed longest ago gives way."""


@dataclass(slots=True)
class _Sheet:
    failures: int = 0
    last: float = 0.0
    shut_until: float = 0.0


class Attempts:
    """The failures of each address. An IPv6 host has a whole /64 to itself, so that is what counts (RFC 6177 2)."""

    def __init__(self) -> None:
        self._sheets: OrderedDict[str, _Sheet] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sheets)

    def failed(self, peer: str, now: float, *, most: int, shut_out: float) -> float:
        """Take note of a wrong pair, and return for how many seconds its connection is to be kept waiting.

        The `most`th within `WINDOW` shuts the address out for `shut_out` seconds, unless that is 0.
        """
        key = _key(peer)
        sheet = self._sheets.setdefault(key, _Sheet())
        self._sheets.move_to_end(key)
        sheet.failures = 1 if now - sheet.last > WINDOW else sheet.failures + 1
        sheet.last = now
        delay = 0.0 if sheet.failures == 1 else min(2.0 ** (sheet.failures - 2), SLOWEST)
        if sheet.failures >= most and shut_out:
            sheet.shut_until = now + shut_out
            sheet.failures = 0
        if len(self._sheets) > ADDRESSES_MAX:
            self._sheets.popitem(last=False)
        return delay

    def succeeded(self, peer: str) -> None:
        """Forget what the address got wrong."""
        self._sheets.pop(_key(peer), None)

    def is_shut_out(self, peer: str, now: float) -> bool:
        """Return whether the address is to be turned away."""
        sheet = self._sheets.get(_key(peer))
        return sheet is not None and now < sheet.shut_until


class Tally:
    """Counts what happens too often to be written down each time, by address; an hour begins it anew."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._since = -math.inf

    def note(self, peer: str, now: float) -> int:
        """Return its number, where it is to be written down, else 0.

        Written down are the first ten of an address, then each power of two. Addresses past the cap count as one.
        """
        if now - self._since > _HOUR:
            self._since = now
            self._counts.clear()
        key = _key(peer)
        if key not in self._counts and len(self._counts) >= ADDRESSES_MAX:
            key = _OTHERS
        count = self._counts[key] = self._counts.get(key, 0) + 1
        return count if count <= _EACH or count & (count - 1) == 0 else 0

    def worded(self, what: str, peer: str, now: float) -> str:
        """Count it, and return how it is written down: `what`, with its number where some before were not; else ""."""
        count = self.note(peer, now)
        if count <= _EACH:
            return what if count else ""
        return f"{what} for the {count}th time this hour"


def _key(peer: str) -> str:
    address = address_of(peer)
    return str(IPv6Network((int(address), 64), strict=False) if isinstance(address, IPv6Address) else address)


_HOUR: Final = 3600.0
_EACH: Final = 10
_OTHERS: Final = ""
