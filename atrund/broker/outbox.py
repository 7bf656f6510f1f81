# SPDX-License-Identifier: Apache-2.0
"""Drains the outbox in order over whichever connection there is (MQ-4).

Rules of this file: a row leaves the outbox only when it was acknowledged on the connection on which it was sent; none
is sent whose number could come again; one that cannot be sent is set aside and holds up nobody.
"""

import asyncio
import contextlib
import functools
import math
import re
from collections import deque
from collections.abc import Iterable
from typing import Any, Final

import structlog

from atrund.atrun.request import Door
from atrund.broker.connection import WINDOW, Connection
from atrund.ledger import Ledger, StorageError, outbox

log = structlog.get_logger()

LOSSES_MAX: Final = 3
"""Connections lost one after the other with the same record in flight, after which it is set aside (MQ-4)."""
TAKEN_OUT_AFTER: Final = 1.0
"""Seconds until acknowledged rows are taken out at the latest, for what goes to the disk together is written once; a
transaction of anything else takes them along. Rows that a crash finds in between are sent twice."""
TAKEN_OUT_MAX: Final = 500
"""Of them, those that wait at once."""
REMEMBERED_MAX: Final = 10_000
"""Acknowledged rows that a disk does not let go of, the newest; any other is sent once more at the next connection."""
TRY_AGAIN_AFTER: Final = 6 * 3600.0
"""Seconds after which a new connection is tried with what was set aside, as the first one of each start is: somebody
may have mended the broker's access control, or the line was bad and the record was not."""
READ_AGAIN: Final = 5.0
"""Seconds until a disk that did not let itself be read, or took nothing, is tried again."""
SAID_MAX: Final = 64
"""Topics and reasons of refusals that were said: each is said once, for a broker that refuses a topic refuses it all
day. A node has few topics, askers choose others."""


class Outbox:
    """What has yet to reach the broker."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._posted = asyncio.Event()
        self._all_sent = asyncio.Event()
        self._suspects: dict[int, int] = {}
        """Records in flight when the last connection was lost, and at how many in a row they were."""
        self._aside: deque[int] = deque(maxlen=outbox.ASIDE_MAX)
        """Those that are not sent again, whether the disk took that or not."""
        self._acknowledged: dict[int, bool] = {}
        """Rows that are to be taken out, and whether the disk has that in hand."""
        self._fresh = 0
        """Of them, those that it has not."""
        self._taking_out: asyncio.TimerHandle | None = None
        self._sure = 0
        """Up to this number none comes ever again, whatever crashes."""
        self._tried_again = -math.inf
        """When what was set aside was put back last, on the loop's clock."""
        self._said: set[tuple[str, str]] = set()
        self._unread = ""
        """Why the outbox could not be read, since when that was said."""
        self._answers: dict[int, str] = {}
        """Of those in flight, the answers, with the id of the request that each answers."""
        ledger.on_posted = self._posted.set

    async def drain(self, connection: Connection) -> None:
        """Send for ever, a window at a time; acknowledged rows are taken out behind."""
        last = 0
        while True:
            self._posted.clear()
            self._take_out()  # first, or they would be read once more
            rows = await self._read(last)
            for row in rows or ():
                last = row.seq
                if row.seq not in self._aside and row.seq not in self._acknowledged:
                    await self._send(connection, row)
            if rows is None:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._posted.wait(), READ_AGAIN)
            elif not outbox.reads_on(rows):
                if not self._posted.is_set():
                    self._all_sent.set()
                await self._posted.wait()

    async def flush(self, connection: Connection) -> None:
        """Wait until all that was written until now, behind too, is sent and acknowledged; `drain` has to run."""
        self._all_sent.clear()
        self._posted.set()
        await self._all_sent.wait()
        await connection.room(1)
        self._take_out()

    def lost(self, in_flight: Iterable[int]) -> None:
        """Take note that a connection was lost with these rows in flight."""
        self._take_out()
        self._suspects = {seq: self._suspects.get(seq, 0) + 1 for seq in in_flight}
        for seq, losses in self._suspects.items():
            if losses >= LOSSES_MAX:
                self._set_aside(seq, "", f"in flight at {losses} lost connections running")

    async def _read(self, last: int) -> list[outbox.Row] | None:
        """Return the next rows, None while they can't be read."""
        try:
            if not last and asyncio.get_running_loop().time() >= self._tried_again + TRY_AGAIN_AFTER:
                await self._ledger.ask(outbox.put_back())
                self._tried_again = asyncio.get_running_loop().time()
                self._aside.clear()
            rows: list[outbox.Row] = await self._ledger.ask(outbox.after(last))
        except StorageError as error:
            if str(error) != self._unread:  # it is tried every few seconds, for days if need be
                log.warning("outbox not read", detail=str(error))
            self._unread = str(error)
            return None
        self._unread = ""
        if rows and rows[-1].seq > self._sure:
            # A row written behind may be lost with the power, and its number with it: synced once for a block of them.
            try:
                (self._sure,) = await self._ledger.durable(outbox.ceiling())
            except StorageError as error:  # an answer is not held back for its number
                log.warning("numbers of records not synced", detail=str(error))
        return rows

    async def _send(self, connection: Connection, row: outbox.Row) -> None:
        # Those that may have cost the last connection go alone, so that it shows which it was.
        doubtful = self._suspects and (
            row.seq <= max(self._suspects) or not self._suspects.keys().isdisjoint(connection.in_flight)
        )
        await connection.room(1 if doubtful else WINDOW)
        text = f'{{"seq":{row.seq}{"," if len(row.payload) > len("{}") else ""}{row.payload[1:]}'

        if row.response and (found := _RID.search(row.payload)):
            self._answers[row.seq] = found[1]

        def settled(seq: int, refused: str | None) -> None:
            if refused is None:
                self._acknowledge(seq)
                if (rid := self._answers.pop(seq, None)) is not None:
                    log.info("answer published", id=rid, door=Door.MQTT.value, topic=row.topic, seq=seq)
            else:
                self._set_aside(seq, row.topic, f"refused by the broker: {refused}")

        try:
            connection.publish(row.topic, text, row.extra, retain=False, row=row.seq, then=settled)
        except ValueError as error:  # a topic that cannot be sent
            self._set_aside(row.seq, row.topic, str(error))

    def _acknowledge(self, seq: int) -> None:
        self._acknowledged[seq] = False
        self._fresh += 1
        if self._fresh >= TAKEN_OUT_MAX:
            self._take_out()
        else:
            self._take_out_after(TAKEN_OUT_AFTER)

    def _take_out_after(self, seconds: float) -> None:
        if self._taking_out is None:
            self._taking_out = asyncio.get_running_loop().call_later(seconds, self._take_out)

    def _take_out(self) -> None:
        if self._taking_out is not None:
            self._taking_out.cancel()
            self._taking_out = None
        if not self._fresh:
            return
        seqs = [seq for seq, in_hand in self._acknowledged.items() if not in_hand]
        self._acknowledged.update(dict.fromkeys(seqs, True))
        self._fresh = 0
        self._ledger.soon(outbox.posted(seqs)).add_done_callback(functools.partial(self._taken_out, seqs))

    def _taken_out(self, seqs: list[int], done: "asyncio.Future[list[Any]]") -> None:
        """What the disk did not take is known to be acknowledged all the same, and tried again."""
        if done.cancelled() or done.exception() is None:
            for seq in seqs:
                self._acknowledged.pop(seq, None)
            return
        self._acknowledged.update(dict.fromkeys(seqs, False))
        for seq in list(self._acknowledged)[:-REMEMBERED_MAX]:
            del self._acknowledged[seq]
        self._fresh = sum(not in_hand for in_hand in self._acknowledged.values())
        self._take_out_after(READ_AGAIN)

    def _set_aside(self, seq: int, topic: str, why: str) -> None:
        """Keep a record apart, so that it holds up nobody; the outbox has it again later."""
        self._aside.append(seq)
        self._ledger.behind(outbox.set_aside(seq, why), posts=False)
        if (rid := self._answers.pop(seq, None)) is not None:
            log.info("answer not published", id=rid, door=Door.MQTT.value, topic=topic or None, seq=seq, detail=why)
        if (topic, why) in self._said:
            return
        if topic and len(self._said) < SAID_MAX:
            self._said.add((topic, why))
        log.error("record set aside", seq=seq, topic=topic or None, detail=why)


_RID: Final = re.compile('"rid":"([^"]+)"')
"""Where a payload of ours has its request's id; inside a value of another's choice its quotes would be escaped."""
