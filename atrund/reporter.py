# SPDX-License-Identifier: Apache-2.0
"""Keeps the module reporting what the instances asked for (CMD-3): after its set-up, and when a profile was loaded."""

import asyncio
from collections.abc import Callable

import structlog

from atrund.atrun import reporting
from atrund.module.channel import Channel
from atrund.module.turn import LinkLostError, TimedOutError
from atrund.module.turns import QueueFullError, WaitedTooLongError
from atrund.own import NEEDED, Own

log = structlog.get_logger()


class Reporter:
    """Runs until cancelled. What a module reports is forgotten with its set-up, and set anew then."""

    def __init__(self, own: Own, first: Callable[[], Channel | None]) -> None:
        """`first` gives the port that carries unsolicited codes, while it is usable."""
        self._own = own
        self._first = first
        self._wake = asyncio.Event()
        own.on_reports = self._wake.set

    def look(self) -> None:
        """Take note that the module was set up."""
        self._own.reported = reporting.union(NEEDED, ())
        self._wake.set()

    async def run(self) -> None:
        """Bring the module to what is wanted, whenever that may have changed."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            channel = self._first()
            if channel is not None and reporting.to_send(self._own.reports(), self._own.reported):
                await self._bring(channel)

    async def _bring(self, channel: Channel) -> None:
        try:
            async with channel.turn("daemon", what="reporting") as turn:
                wanted = self._own.reports()
                for line in reporting.to_send(wanted, self._own.reported):
                    final = (await turn.ask(line)).final
                    if not final.ok:
                        log.warning("the module does not report what was asked", command=line, final=final.text)
                self._own.reported = wanted
        except (LinkLostError, TimedOutError, QueueFullError, WaitedTooLongError) as error:
            log.info("reporting not set; tried again when the module is there", detail=str(error))
