# SPDX-License-Identifier: Apache-2.0
"""The SMS door's part in other doors' SMS commands: what lies there is judged and recorded before they run (CMD-6)."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Final

from atrund.atrun.request import Reason
from atrund.doors.verdicts import Verdict, Verdicts, key_of
from atrund.module.store import Store, Stored
from atrund.run import Run

RECORD_WAIT: Final = 5.0
"""Seconds that a command waits, with the port, for what comes before it to be on disk: flash takes 100 ms."""


class Recording:
    """Judges and records out of turn. `store` is where the messages lie."""

    def __init__(
        self,
        *,
        store: Store,
        verdicts: Verdicts,
        see: Callable[[str, Stored | None], None],
        seems: Callable[[str], bool],
        recalled: Callable[[], bool],
        begins: Callable[[], bool],
    ) -> None:
        """`see` judges a message and has it run; `seems` only says whether it would be.

        `recalled`: whether it is known what was judged before the restart. `begins`: whether what lies there now is
        still to be told from what comes next, and is not run (SMS-2).
        """
        self.store = store
        self._verdicts = verdicts
        self._see = see
        self._seems = seems
        self._recalled = recalled
        self._begins = begins
        self._pending: dict[str, asyncio.Future[bool]] = {}
        """Messages that are being recorded; False where that failed."""

    @contextlib.asynccontextmanager
    async def of(self, key: str) -> AsyncIterator[None]:
        """Take note that a message is judged, recorded and run as long as the context lasts."""
        self._pending[key] = pending = asyncio.get_running_loop().create_future()
        try:
            yield
        finally:
            del self._pending[key]
            if not pending.done():
                pending.set_result(True)  # what is not recorded now has no verdict

    async def during(self, key: str, work: Coroutine[None, None, None]) -> None:
        """Do the work in such a context."""
        async with self.of(key):
            await work

    def follow(self, run: Run) -> None:
        """Take note of the request that was started of a message."""
        pending = self._pending[run.request.key]

        def told(accepted: asyncio.Future[bool]) -> None:
            if not pending.done():
                pending.set_result(accepted.cancelled() or accepted.result() or not _was_not_written(run))

        run.accepted.add_done_callback(told)

    def is_new(self, pdu: str) -> bool:
        """Whether a message that looks like this was not judged yet."""
        return self._verdicts.is_new(pdu)

    def is_ours(self, pdu: str) -> bool:
        """Whether a message is a command, under way, done with, or one that could not be recorded yet."""
        verdict = self._verdicts.get(key_of(pdu))
        if verdict is None:
            return self._seems(pdu) and not self._begins()
        return verdict in {Verdict.ATRUN, Verdict.DONE}

    async def record(self, found: Sequence[Stored]) -> str:
        """Judge what is new and wait until the commands are on disk; returns why one is not, or "".

        What is none of ours needs no promise: its verdict is written behind. Nor does a command that waits where it
        lies because too many are on their way: it stays there.
        """
        new = [stored for stored in found if self._verdicts.is_new(stored.pdu)]
        if new and not self._recalled():
            return "it is not known which messages were judged before the restart"
        for stored in new:
            self._see(stored.pdu, stored)
        await asyncio.sleep(0)  # those that have room begin
        pending = {one for stored in found if (one := self._pending.get(key_of(stored.pdu))) is not None}
        if pending:
            done, late = await asyncio.wait(pending, timeout=RECORD_WAIT)
            if late:
                return f"a message was not recorded within {RECORD_WAIT:g} s"
            if not all(one.result() for one in done):
                return "a message could not be recorded"
        if not self._begins() and any(self._verdicts.is_new(stored.pdu) for stored in new):
            return "a message could not be recorded, or the gateway is stopping"
        return ""


def _was_not_written(run: Run) -> bool:
    outcome = run.outcome.result() if run.outcome.done() else None
    return outcome is not None and outcome.reason is Reason.STORAGE
