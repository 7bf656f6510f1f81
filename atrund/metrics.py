# SPDX-License-Identifier: Apache-2.0
"""What `metrics` says: how much was done, waits, was dropped, and what it takes."""

import asyncio
import os
import time
from pathlib import Path
from typing import Any, Final

from atrund import records
from atrund.ledger import Ledger, StorageError, audit, tables
from atrund.modem import Modem
from atrund.runner import Runner
from atrund.services import Services

DISK_WAIT: Final = 5.0
"""Seconds for the disk to count: one that hangs is no reason to say nothing."""


class Metrics:
    """Counted where things happen; here they are read."""

    def __init__(self, runner: Runner, modem: Modem, services: Services, ledger: Ledger) -> None:
        """Take it as the daemon's start."""
        self._runner = runner
        self._modem = modem
        self._services = services
        self._ledger = ledger
        self._since = asyncio.get_running_loop().time()

    async def record(self, stamp: records.Stamp, connects: int) -> dict[str, Any]:
        """Return the payload; `connects` is how often there was a connection to the broker."""
        try:
            async with asyncio.timeout(DISK_WAIT):
                kept = await self._ledger.ask(tables.counts())
                head = await self._ledger.ask(audit.head())
        except (StorageError, TimeoutError):
            kept = {}
            head = ""
        tcp = self._services.tcp
        return records.metrics_record(
            stamp,
            uptime_s=int(asyncio.get_running_loop().time() - self._since),
            run_s=int(self._ledger.run),
            cpu_s=round(time.process_time(), 1),
            memory_kib=_resident(),
            running=self._runner.running,
            waiting=sum(self._modem.waiting().values()),
            requests={door.value: count for door, count in self._runner.requests.items()},
            ended={end.value: count for end, count in self._runner.ended.items()},
            outbox=kept.get("outbox"),
            spool_bytes=kept.get("spool_bytes"),
            aside=kept.get("aside"),
            dropped=kept.get("dropped"),
            missed=self._ledger.missed,
            connects=connects,
            set_ups=self._modem.module.set_ups,
            kept_out=0 if tcp is None else tcp.kept_out,
            audit_head=head,
        )


_STATM: Final = Path("/proc/self/statm")


def _resident() -> int:
    """Return this process's resident memory in KiB: the second figure, in pages (proc_pid_statm(5))."""
    return int(_STATM.read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
