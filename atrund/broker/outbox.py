# SPDX-License-Identifier: Apache-2.0
"""Drains the outbox in order over whichever connection there is (MQ-4).

Rule of this file: a row leaves the outbox only when it was acknowledged on the connection on which it was sent.
"""

import asyncio
from collections.abc import Iterable
from typing import Final

import structlog

from atrund.broker.connection import WINDOW, Connection
from atrund.ledger import Ledger, StorageError, tables
from atrund.records import to_json

log = structlog.get_logger()

LOSSES_MAX: Final = 3
"""Connections lost one after the other with the same record in flight, after which it is set aside (MQ-4)."""


class Outbox:
    """What has yet to reach the broker."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._posted = asyncio.Event()
        self._all_sent = asyncio.Event()
        self._suspects: dict[int, int] = {}
        """Records in flight when the last connection was lost, and at how many in a row they were."""
        self._aside: set[int] = set()
        ledger.on_posted = self._posted.set

    async def drain(self, connection: Connection) -> None:
        """Send for ever, a window at a time; acknowledged rows are taken out behind."""
        last = 0
        while True:
            self._posted.clear()
            try:
                rows: list[tables.Row] = await self._ledger.ask(tables.outbox_after(last, WINDOW))
            except StorageError as error:
                log.warning("outbox not read", detail=str(error))
                rows = []
            for row in rows:
                last = row.seq
                if row.seq not in self._aside:
                    await self._send(connection, row)
            if len(rows) < WINDOW:
                if not self._posted.is_set():
                    self._all_sent.set()
                await self._posted.wait()

    async def flush(self, connection: Connection) -> None:
        """Wait until all that was written until now, behind too, is sent and acknowledged; `drain` has to run."""
        self._all_sent.clear()
        self._posted.set()
        await self._all_sent.wait()
        await connection.room(1)

    def lost(self, in_flight: Iterable[int]) -> None:
        """Take note that a connection was lost with these rows in flight."""
        self._suspects = {seq: self._suspects.get(seq, 0) + 1 for seq in in_flight}
        for seq, losses in self._suspects.items():
            if losses >= LOSSES_MAX:
                self._set_aside(seq, f"in flight at {losses} lost connections running")

    async def _send(self, connection: Connection, row: tables.Row) -> None:
        # Those that may have cost the last connection go alone, so that it shows which it was.
        doubtful = row.seq <= max(self._suspects, default=0) or not self._suspects.keys().isdisjoint(
            connection.in_flight
        )
        await connection.room(1 if doubtful else WINDOW)
        text = to_json({"v": row.payload.get("v"), "seq": row.seq, **row.payload})
        try:
            connection.publish(row.topic, text, row.extra, retain=False, row=row.seq, then=self._acknowledged)
        except ValueError as error:  # a topic that cannot be sent
            self._set_aside(row.seq, str(error))

    def _acknowledged(self, seq: int) -> None:
        self._ledger.behind(tables.posted((seq,)))

    def _set_aside(self, seq: int, why: str) -> None:
        """Leave a record in the outbox until the next start, so that it holds up nobody."""
        self._aside.add(seq)
        log.error("record set aside", seq=seq, detail=why)
