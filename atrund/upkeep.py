# SPDX-License-Identifier: Apache-2.0
"""What is done with the ledger now and then: caps are kept, and the head of the audit's chain is told to the log."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

import structlog

from atrund.atrun.request import Door
from atrund.ledger import Ledger, StorageError, audit, tables
from atrund.mirror import Mirror

log = structlog.get_logger()

EVERY: Final = 3600.0
"""Seconds between two looks: an hour of the busiest door stays far below the caps, and is what a head leaves open."""
RETRY: Final = 60.0
"""The same while it is not known which messages must not be forgotten."""


class Upkeep:
    """Keeps the ledger for ever."""

    def __init__(
        self, ledger: Ledger, mirror: Mirror, *, lying: Callable[[], Iterable[str] | None], chain: bool
    ) -> None:
        """`lying` gives the keys of messages that lie in a store, None while they aren't known.

        `chain`: whether the audit is to be chained.
        """
        self._ledger = ledger
        self._mirror = mirror
        self._lying = lying
        self._chain = chain
        self._told = ""

    async def begin(self) -> None:
        """Have the audit chained as the configuration says, and record where that changes."""
        # The row that says so is in the chain both times, as the first or the last one of it.
        switch = audit.chain(on=self._chain)
        try:
            before: str = await self._ledger.ask(audit.head())
            if self._chain is not bool(before):
                what = "audit chain begun" if self._chain else audit.ENDED
                row = self._mirror.session(Door.LOCAL, "", what, "log.audit_chain")
                await self._ledger.durable(*((switch, *row) if self._chain else (*row, switch)))
        except StorageError as error:
            if self._chain:
                log.error("audit not chained", detail=str(error))  # noqa: TRY400 - said whole

    async def run(self) -> None:
        """Look after it for ever."""
        await self.begin()
        told = -EVERY
        while True:
            now = asyncio.get_running_loop().time()
            if now - told >= EVERY:
                told = now
                await self._tell_head()
            lying = self._lying()
            if lying is not None:
                self._ledger.behind(*tables.prune(self._ledger.run, lying))
            await asyncio.sleep(EVERY if lying is not None else RETRY)

    async def _tell_head(self) -> None:
        try:
            head: str = await self._ledger.ask(audit.head())
        except StorageError:
            return
        if head != self._told:
            log.info("audit head", head=head)
            self._told = head
