# SPDX-License-Identifier: Apache-2.0
"""The one place that reads wall time, and that knows whether to believe it (REQ-11)."""

import ctypes
import time
from datetime import UTC, datetime
from typing import Final, Protocol

_RECHECK: Final = 60.0
"""Seconds for which the kernel's word on synchronisation is kept: it changes with NTP's polls, which are no quicker."""


class Clock(Protocol):
    """Wall time. Spans never come from here; they go by the event loop's own clock."""

    def now(self) -> datetime:
        """Return the wall time, in UTC."""
        ...

    def known(self) -> bool:
        """Return whether the wall time is synchronised."""
        ...


def rfc3339(moment: datetime) -> str:
    """Write a moment in UTC with milliseconds."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


class SystemClock:
    """The system's clock."""

    def __init__(self) -> None:
        self._known = False
        self._checked: float | None = None

    def now(self) -> datetime:
        """Return the wall time, in UTC."""
        return datetime.now(UTC)

    def known(self) -> bool:
        """Return whether the kernel says that the clock is synchronised (adjtimex(2), TIME_ERROR)."""
        if self._checked is None or time.monotonic() - self._checked > _RECHECK:
            self._known = _kernel_is_synchronised()
            self._checked = time.monotonic()
        return self._known


_TIME_ERROR: Final = 5
_TIMEX_SIZE: Final = 256
"""Room for struct timex on every architecture (208 octets on 64-bit ones); all zero asks and changes nothing."""


def _kernel_is_synchronised() -> bool:
    timex = ctypes.create_string_buffer(_TIMEX_SIZE)
    state: int = ctypes.CDLL(None).adjtimex(timex)
    return 0 <= state < _TIME_ERROR
