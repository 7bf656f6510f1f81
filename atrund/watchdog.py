# SPDX-License-Identifier: Apache-2.0
"""Systemd's watchdog, fed only while the event loop is on time and work moves (sd_watchdog_enabled(3))."""

import asyncio
from collections.abc import Callable, Sequence

import structlog

log = structlog.get_logger()

Standstill = Callable[[], str]
"""Says what does not move any more, or ""."""


async def feed(ping: Callable[[], None], interval: float, standstills: Sequence[Standstill]) -> None:
    """Ping at each `interval` (seconds) until cancelled; but not behind a loop that was late by as much, nor while
    something stands still: then the watchdog ends the process, which nothing else would, and it is started anew.
    """
    loop = asyncio.get_running_loop()
    due, said = loop.time(), ""
    while True:
        late = loop.time() - due
        why = next((why for stands in standstills if (why := stands())), "")
        if not why and late >= interval:
            why = f"the event loop was {late:.1f} s late"
        if not why:
            ping()
        elif why != said:
            log.error("watchdog not fed", detail=why)
        said = why
        due = loop.time() + interval
        await asyncio.sleep(interval)
