# SPDX-License-Identifier: Apache-2.0
"""What one SMS costs: the time from +CMTI to the first byte of +CMGS, what of it is the disk's, and bytes written.

The same daemon runs twice, its ledger once on the disk and once in memory, where a sync costs nothing: the difference
is the disk's. The two take turns.
"""

import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from atrund.sms.address import Address
from atrund.sms.pdu import Dcs, Deliver, Timestamp, UserData
from tests.bench.figures import Aims, Spread, table, title
from tests.bench.stage import NUMBER, Daemon, Stage, pythons

TURNS: Final = 10
MESSAGES: Final = 20
"""Messages of a turn; with the turns, 200 through each daemon."""
SETTLE: Final = 0.6
"""Seconds for what is written behind: the ledger gathers for 0.2 of them."""
AIM_MS: Final = 10.0

IN_MEMORY: Final = Path("/dev/shm")
BEGIN: Final = datetime(2026, 2, 1, tzinfo=UTC)


def measure(stage: Stage, aims: Aims) -> None:
    """Measure and print both; the first aim is about the daemon with its ledger on the disk."""
    with _in_memory(stage, "sms-memory") as memory:
        daemons = {"ledger on the disk": _daemon(stage, "sms-disk")}
        if memory:
            daemons["ledger in memory"] = _daemon(stage, "sms-memory")
        takes: dict[str, list[float]] = {name: [] for name in daemons}
        written: dict[str, list[float]] = {name: [] for name in daemons}
        for turn in range(-1, TURNS):
            for name, daemon in daemons.items():
                before = _written(daemon)
                spans = [_ask(stage, daemon, MESSAGES * (turn + 1) + number) for number in range(MESSAGES)]
                time.sleep(SETTLE)
                if turn >= 0:  # the one before is to warm up
                    takes[name] += spans
                    written[name].append((_written(daemon) - before) / MESSAGES)
        for daemon in daemons.values():
            daemon.stop()
    _print(takes, written, aims)


def _daemon(stage: Stage, name: str) -> Daemon:
    daemon = Daemon(stage, name, pythons()[0], mqtt=False, answers=(TURNS + 1) * MESSAGES)
    daemon.start()
    return daemon


def _ask(stage: Stage, daemon: Daemon, number: int) -> float:
    """Let a message arrive that no other one equals; the milliseconds until the daemon began to send its answer."""
    stamp = Timestamp.of(BEGIN + timedelta(seconds=number))
    pdu = Deliver(Address.parse(NUMBER), stamp, UserData.from_text("AT+CSQ", Dcs(0))).encode().hex().upper()
    return int(stage.module.ask(f"sms {daemon.terminal} {pdu}")) / 1e6


def _written(daemon: Daemon) -> int:
    """The bytes that the daemon caused to be written to a disk so far."""
    found = re.search(r"^write_bytes: (\d+)", Path(f"/proc/{daemon.pid}/io").read_text("ascii"), re.MULTILINE)
    return int(found[1]) if found else 0


@contextmanager
def _in_memory(stage: Stage, name: str) -> Iterator[bool]:
    """Put a daemon's state directory into memory, where there is such a place; whether there is."""
    if not IN_MEMORY.is_dir():
        yield False
        return
    state = Path(tempfile.mkdtemp(prefix="atrund-bench-", dir=IN_MEMORY))
    try:
        (stage.directory / f"{name}-state").symlink_to(state)
        yield True
    finally:
        shutil.rmtree(state, ignore_errors=True)


def _print(takes: dict[str, list[float]], written: dict[str, list[float]], aims: Aims) -> None:
    title(
        f"one SMS, gaps 0, {TURNS * MESSAGES} times each: +CMTI to the first byte of +CMGS, and bytes written to disk"
    )
    spreads = {name: Spread.of(spans) for name, spans in takes.items()}
    disk, *memory = spreads.values()
    rows = [
        (name, f"{spread.median:.2f} ms", f"{spread.p95:.2f} ms", f"{Spread.of(written[name]).median:.0f}")
        for name, spread in spreads.items()
    ]
    rows += [("of it the disk's syncs", f"{disk.median - spread.median:.2f} ms", "", "") for spread in memory]
    table(("", "median", "p95", "bytes"), rows)
    aims.at_most("SMS, +CMTI to +CMGS, syncs included", disk.median, AIM_MS, " ms")
