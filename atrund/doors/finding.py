# SPDX-License-Identifier: Apache-2.0
"""Finds messages, whichever way they are shown: announced, delivered, or lying in some memory (SMS-2, MOD-5)."""

import asyncio
import contextlib
import re
from collections.abc import Callable, Coroutine, Iterable
from typing import Final

import structlog

from atrund.doors.verdicts import Verdict, Verdicts, key_of
from atrund.ledger import Ledger, StorageError, tables
from atrund.ledger.writer import Write
from atrund.module.store import Store, Stored, StoreError
from atrund.module.urc import Listener

log = structlog.get_logger()


class Finding:
    """Looks at the store, on its own and when told to; `begins` while what lies there is not to be run (SMS-2)."""

    def __init__(
        self,
        on: asyncio.Event,
        sweep: Callable[[], float],
        *,
        see: Callable[[str, Stored | None], None],
        take_report: Callable[[str, Stored | None], Coroutine[None, None, None]],
        announce: Callable[[str, int, str], None],
        swept: Callable[[list[Stored], set[str]], Coroutine[None, None, None]],
        seen: Callable[[Iterable[Stored]], list[Write]],
        store: Store,
        ledger: Ledger,
        verdicts: Verdicts,
        spawn: Callable[[Coroutine[None, None, None]], None],
    ) -> None:
        """`on` is set while the service is; `sweep` gives the seconds between two looks.

        `see` is shown each message, by whatever way and however often; `take_report` what tells of one that was sent;
        `announce` is told where a message lies that is not even read. `swept` is told, behind that, what was found in
        which memories; `seen` returns what is to be written of those that lay there before the service was on.
        """
        self._swept_all = swept
        self._rows_of = seen
        self._see = see
        self._take_report = take_report
        self._announce = announce
        self._on = on
        self._pause = sweep
        self._store = store
        self._ledger = ledger
        self._verdicts = verdicts
        self._spawn = spawn
        self.begins = False
        self._wake = asyncio.Event()
        self._returns = 0
        self._swept: int | None = None
        self._swept_everywhere: tuple[int, float] | None = None
        """At which return of the module, and when, every memory was read last."""

    @property
    def is_open(self) -> bool:
        """Whether the store was read since the module came (back)."""
        return self._swept == self._returns and not self.begins and self._store.ready

    def soon(self) -> None:
        """Look at the store soon."""
        self._wake.set()

    def module_is_back(self) -> None:
        """Look at every memory soon: the module came back."""
        self._returns += 1
        self._wake.set()

    def everywhere(self) -> None:
        """Make the next look one at every memory: the module said that there is no room, and not in which of them."""
        self._swept_everywhere = None

    def forget(self) -> None:
        """Take note that the service went off: what was read of the store is old."""
        self._swept = None

    async def recall(self) -> None:
        """Read whether what lies in the store is to be told from what comes next. Raises `StorageError`."""
        self.begins |= await self._ledger.ask(tables.get_meta(_ON, 0.0)) == 0.0

    async def hear(self, listener: Listener) -> None:
        """Take what the module announces, for ever."""
        while True:
            code = await listener.get()
            stored = _NOTIFIED.match(code[0])
            if len(code) == _TWO_LINES and code[0].startswith("+CDS:"):
                self._spawn(self._take_report(code[1], None))
            elif not self._on.is_set():
                if stored is not None:
                    self._announce(stored[1], int(stored[2]), "")
            elif stored is not None:
                self._spawn(self._fetch(stored[1], int(stored[2])))
            elif len(code) == _TWO_LINES and code[0].startswith("+CMT:"):
                self._see(code[1], None)

    async def _fetch(self, memory: str, index: int) -> None:
        try:
            stored = await self._store.read(memory, index, doubted=self._verdicts.is_new)
        except StoreError as error:
            log.warning("sms not read", detail=str(error))
            self._wake.set()
            return
        if stored is not None:
            self._see(stored.pdu, stored)

    async def sweep_for_ever(self) -> None:
        """Look at the store now and then, and when told to, for ever."""
        while True:
            await self._on.wait()
            self._wake.clear()
            returns, swept = self._returns, False
            if self._store.ready:
                try:
                    await self._sweep()
                    swept = True
                except StoreError as error:
                    log.warning("sms store not read", detail=str(error))
            self._swept = returns if swept else None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause() if swept else _RETRY_SWEEP):
                    await self._wake.wait()

    async def _sweep(self) -> None:
        """Look at the memory that receives; at every one at the start, when the module came back, and hourly."""
        now, returns = asyncio.get_running_loop().time(), self._returns
        last = self._swept_everywhere
        everywhere = self.begins or last is None or last[0] != returns or now >= last[1] + _HOUR
        found = await self._store.messages(everywhere=everywhere, doubted=self._verdicts.is_new)
        if self.begins:
            await self._mark_seen(found)
        self._verdicts.lies((key_of(stored.pdu) for stored in found), everywhere=everywhere)
        if everywhere:
            self._swept_everywhere = returns, now
        for stored in found:
            self._see(stored.pdu, stored)
        await self._swept_all(found, {self._store.home, *(self._store.uses if everywhere else ())})

    async def _mark_seen(self, found: list[Stored]) -> None:
        """What lay there before the service was switched on is not run (SMS-2)."""
        keys = [key for stored in found if (key := key_of(stored.pdu)) not in self._verdicts]
        writes = [self._verdicts.write(key, Verdict.SEEN) for key in keys]
        writes += self._rows_of(stored for stored in found if key_of(stored.pdu) in keys)
        try:
            await self._ledger.durable(*writes, tables.set_meta(_ON, 1.0))
        except StorageError as error:
            raise StoreError(f"not recorded: {error}") from error
        for key in keys:
            self._verdicts.note(key, Verdict.SEEN)
        self.begins = False
        log.info("sms door open", seen=len(keys))


async def switched_off(ledger: Ledger) -> None:
    """Take note that the service is off: what comes meanwhile is not run when it is switched on again (SMS-2)."""
    try:
        await ledger.durable(tables.set_meta(_ON, 0.0))
    except StorageError:
        log.debug("not recorded that the sms door is off")


_ON: Final = "sms_on"
_NOTIFIED: Final = re.compile(r'\+C(?:MT|DS)I: ?"([A-Z]{2})",([0-9]{1,5})$')
_TWO_LINES: Final = 2
_RETRY_SWEEP: Final = 5.0
"""Seconds until the store is looked at again when it could not be read, or the module was not there."""
_HOUR: Final = 3600.0
