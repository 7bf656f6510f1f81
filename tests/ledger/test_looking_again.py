# SPDX-License-Identifier: Apache-2.0
"""A ledger that can't be used at the start is taken up once it can be, by another start."""

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from atrund import ledger as room
from atrund.config.values import Sms
from atrund.daemon import Daemon, build
from atrund.ledger import Ledger, open_ledger
from atrund.ledger.schema import VERSION, open_file
from atrund.service import Service
from atrund.sim.module import SimModule
from tests.support.virtual import AtOnce, VirtualClock, Wire, config

PATIENCE = 30.0


class Restarting(Service):
    """As under systemd."""

    restarts = True


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked again at once."""
    monkeypatch.setattr(room, "LOOK_FIRST", 0.01)
    monkeypatch.setattr(room, "LOOK_LAST", 0.02)


def set_version(folder: Path, version: int) -> None:
    with contextlib.closing(sqlite3.connect(folder / "ledger.db")) as db:
        db.execute(f"PRAGMA user_version={version}")


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    open_file(tmp_path / "ledger.db").close()
    set_version(tmp_path, VERSION + 1)
    return tmp_path


@pytest.fixture
def wire() -> Iterator[Wire]:
    wire = Wire(SimModule())
    yield wire
    wire.module.close()


def made(ledger: Ledger, wire: Wire, notify: Service) -> Daemon:
    given = config(sms=Sms(enabled=False))
    return build(given, ledger=ledger, clock=VirtualClock(), open_port=wire.open, notify=notify)


@pytest.mark.usefixtures("soon")
async def test_a_file_is_waited_for_until_it_can_be_opened(newer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = threading.Semaphore(0)
    look = room._can_be_opened

    def watched(file: Path) -> bool:
        found = look(file)
        looked.release()
        return found

    monkeypatch.setattr(room, "_can_be_opened", watched)
    ledger = open_ledger(newer)
    await ledger.start()
    waiting = asyncio.create_task(ledger.until_usable())
    for _ in range(3):
        assert await asyncio.to_thread(looked.acquire, timeout=PATIENCE)
    assert not waiting.done()
    set_version(newer, VERSION)
    async with asyncio.timeout(PATIENCE):
        await waiting
    again = open_ledger(newer)  # nobody holds it
    assert again.failure == ""
    await again.start()
    await again.close()


@pytest.mark.looptime
async def test_the_pauses_grow_to_ten_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look may read the whole file."""
    looks: list[float] = []
    loop = asyncio.get_running_loop()

    async def look(_: None, _look: object, _file: Path) -> bool:
        looks.append(loop.time())
        return len(looks) == 9

    monkeypatch.setattr(loop, "run_in_executor", look)
    await Ledger(None, failure="none", file=tmp_path / "ledger.db").until_usable()
    assert [after - before for before, after in zip([0.0, *looks], looks, strict=False)] == [
        10, 20, 40, 80, 160, 320, 600, 600, 600,
    ]  # fmt: skip


@pytest.mark.looptime
async def test_a_disk_that_fails_at_the_start_is_tried_again() -> None:
    disk = AtOnce()
    disk.broken = "disk I/O error"
    ledger = Ledger(disk)
    await ledger.start()
    waiting = asyncio.create_task(ledger.until_usable())
    await asyncio.sleep(3600)
    assert not waiting.done()
    disk.broken = ""
    async with asyncio.timeout(room.LOOK_LAST + 1):
        await waiting
    await ledger.close()


@pytest.mark.looptime
@pytest.mark.parametrize("supervised", [True, False])
async def test_the_daemon_says_so_and_has_systemd_start_it_anew(wire: Wire, supervised: bool) -> None:  # noqa: FBT001 - a case
    disk = AtOnce()
    disk.broken = "disk I/O error"
    daemon = made(Ledger(disk), wire, Restarting({}) if supervised else Service({}))
    with structlog.testing.capture_logs() as told:
        await daemon.start()
        assert daemon._status_line().endswith("; ledger unusable")
        await asyncio.sleep(3600)
        assert not daemon.failed.done()
        disk.broken = ""
        await asyncio.sleep(room.LOOK_LAST + 1)
    assert daemon.failed.done() is supervised
    events = [entry["event"] for entry in told if entry["event"].startswith("ledger ")]
    assert events == [
        "ledger unusable; SMS stay unread and MQTT requests are refused",
        f"ledger usable again: {'starting anew' if supervised else 'atrund is to be restarted'}",
    ]
    await daemon.stop()


@pytest.mark.looptime
async def test_a_ledger_that_can_be_used_is_no_word_in_the_status(wire: Wire) -> None:
    daemon = made(Ledger(AtOnce()), wire, Restarting({}))
    await daemon.start()
    assert "ledger" not in daemon._status_line()
    await asyncio.sleep(3600)
    assert not daemon.failed.done()
    await daemon.stop()


@pytest.mark.looptime
async def test_what_cannot_be_read_for_days_is_said_once(wire: Wire) -> None:
    """Each look says the same: a journal of a router is small."""
    disk = AtOnce()
    disk.broken = "disk I/O error"
    daemon = made(Ledger(disk), wire, Service({}))
    with structlog.testing.capture_logs() as told:
        await daemon.start()
        await asyncio.sleep(86_400)
        await daemon.stop()
    events = [entry["event"] for entry in told if entry["log_level"] != "debug"]
    assert events.count("open confirmations unknown") == 1
    assert len(events) < 20
