# SPDX-License-Identifier: Apache-2.0
"""The settings in force: the file's, what commands set over them, and what becomes of a ledger that is no help."""

import asyncio

import pytest
from structlog.testing import capture_logs

from atrund.atrun import stored
from atrund.atrun.request import Door, Request
from atrund.atrun.secrets import Secret
from atrund.atrun.settings import Settings
from atrund.ledger import Ledger, StorageError
from atrund.nvm import Hidden, Nvm
from tests.support.virtual import AtOnce, VirtualClock

pytestmark = pytest.mark.looptime

FILE = Settings().changed({"sms.whitelist.1": "+391", "tcp.port": 4000})
SECRET = "planted-secret-1"
REQUEST = Request(rid="r", door=Door.TCP, peer="10.0.0.9", line="AT")


async def nvm(disk: AtOnce, base: Settings = FILE, *, locked: bool = False) -> Nvm:
    made = Nvm(base, ledger=Ledger(disk), clock=VirtualClock(), locked=locked)
    await made.load()
    return made


async def put(made: Nvm, **values: object) -> None:
    given = {key.replace("__", "."): value for key, value in values.items()}
    await made.keep(made.settings.changed(given), tuple(given), REQUEST)


async def test_what_a_command_set_counts_before_the_file_and_all_else_follows_the_file() -> None:
    disk = AtOnce()
    first = await nvm(disk)
    await put(first, tcp__port=5000)
    again = await nvm(disk, FILE.changed({"tcp.port": 6000, "sms.whitelist.1": "+392"}))
    assert again.settings.tcp.port == 5000
    assert again.settings.sms.numbers == ("+392",)
    again.rebase(FILE.changed({"tcp.timeout": 60.0}))
    assert (again.settings.tcp.port, again.settings.tcp.timeout) == (5000, 60.0)


async def test_what_hides_the_files_value_is_told_with_who_set_it_and_when() -> None:
    disk = AtOnce()
    made = await nvm(disk)
    await put(made, tcp__port=5000, sms__urc=True)
    assert made.hidden() == (Hidden("tcp.port", "tcp", "10.0.0.9", "2026-03-01T12:00:00.000Z"),)
    with capture_logs() as logs:
        again = await nvm(disk)
    assert again.hidden() == made.hidden()
    assert [entry["key"] for entry in logs] == ["tcp.port"]
    again.rebase(FILE.changed({"tcp.port": 5000}))
    assert again.hidden() == ()


async def test_locked_the_file_alone_counts_and_what_was_stored_stays() -> None:
    disk = AtOnce()
    await put(await nvm(disk), tcp__port=5000)
    locked = await nvm(disk, locked=True)
    assert locked.settings == FILE
    assert locked.hidden() == ()
    assert (await nvm(disk)).settings.tcp.port == 5000


async def test_a_disk_that_refuses_leaves_everything_as_it_was() -> None:
    disk = AtOnce()
    made = await nvm(disk)
    told: list[Settings] = []
    made.on_change = told.append
    disk.broken = "disk full"
    with pytest.raises(StorageError, match="disk full"):
        await put(made, tcp__port=5000)
    assert (made.settings, told, made.hidden()) == (FILE, [], ())
    disk.broken = ""
    assert (await nvm(disk)).settings == FILE


async def test_nothing_is_written_for_nothing() -> None:
    disk = AtOnce()
    made = await nvm(disk)
    disk.jobs.clear()
    told: list[Settings] = []
    made.on_change = told.append
    await made.keep(made.settings, (), REQUEST)
    assert (disk.jobs, told) == ([], [])


async def test_reset_gives_the_files_value_back() -> None:
    disk = AtOnce()
    made = await nvm(disk)
    await put(made, tcp__port=5000, tcp__timeout=60.0)
    told: list[Settings] = []
    made.on_change = told.append
    assert await made.reset(["tcp.port", "sms.urc"]) == ("tcp.port",)
    assert (made.settings.tcp.port, made.settings.tcp.timeout) == (4000, 60.0)
    assert [before.tcp.port for before in told] == [5000]
    assert (await nvm(disk)).settings == made.settings


async def test_a_reset_while_something_else_is_stored_is_not_lost() -> None:
    disk = AtOnce()
    made = await nvm(disk)
    await put(made, tcp__port=5000)
    changed = made.settings.changed({"tcp.timeout": 60.0})  # by a command that began before
    await made.reset(["tcp.port"])
    await made.keep(changed, ("tcp.timeout",), REQUEST)
    assert (made.settings.tcp.port, made.settings.tcp.timeout) == (4000, 60.0)
    assert (await nvm(disk)).settings == made.settings


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tcp.port", "99999"),
        ("tcp.port", '"5000"'),
        ("tcp.port", "no json"),
        ("tcp.port", "[" * 100_000),
        ("tcp.port", "1" * 5000),
        ("tcp.timeout", "NaN"),
        ("tcp.users.1", f'{{"name": "a", "password": "{SECRET}", "more": 1}}'),
        ("sms.whitelist.2", f'{{"password": "{SECRET}{SECRET}"}}'),
        ("sms.whitelist.9", "null"),
        ("nonsense", "1"),
    ],
)
async def test_a_row_that_can_not_be_used_is_said_and_left_as_it_is(key: str, value: str) -> None:
    disk = AtOnce()
    await put(await nvm(disk), tcp__sequence=True)
    disk.store.connection.execute("INSERT INTO settings VALUES (?,?,'tcp','','')", (key, value))
    with capture_logs() as logs:
        made = await nvm(disk)
    (entry,) = [entry for entry in logs if entry["log_level"] == "warning"]
    assert entry["key"] == key
    assert SECRET not in str(logs)
    assert made.settings == FILE.changed({"tcp.sequence": True})
    assert disk.rows("SELECT value FROM settings WHERE key = ?", key) == [(value,)]


@pytest.mark.parametrize("value", [b"\xff\xfe", b"5000", 5000, 1.5])
async def test_a_row_of_another_type_ends_nothing(value: object) -> None:
    disk = AtOnce()
    disk.store.connection.execute("INSERT INTO settings VALUES ('tcp.port',?,'tcp','','')", (value,))
    made = await nvm(disk)
    assert made.settings.tcp.port in {4000, 5000}
    assert made.shown()["tcp.port"] in {"4000", "5000"}


async def test_a_ledger_that_can_not_be_read_leaves_the_files_values_and_is_said() -> None:
    disk = AtOnce()
    await put(await nvm(disk), tcp__port=5000)
    disk.broken = "I/O error"
    with capture_logs() as logs:
        made = await nvm(disk)
    assert (made.settings, made.failure) == (FILE, "I/O error")
    assert [entry["log_level"] for entry in logs] == ["error"]
    disk.broken = ""
    await put(made, tcp__sequence=True)
    assert (await nvm(disk)).settings == FILE.changed({"tcp.port": 5000, "tcp.sequence": True}), "not overwritten"


async def test_without_a_ledger_nothing_can_be_kept() -> None:
    made = Nvm(FILE, ledger=Ledger(None, failure="no such folder"), clock=VirtualClock())
    await made.load()
    assert made.failure == "no such folder"
    with pytest.raises(StorageError):
        await put(made, tcp__port=5000)
    assert made.settings == FILE


async def test_what_is_shown_holds_every_key_and_no_secret() -> None:
    made = await nvm(AtOnce())
    await put(made, sms__whitelist__3=Secret(SECRET), tcp__port=5001)
    shown = made.shown()
    assert set(shown) == set(stored.KEYS)
    assert shown["tcp.port"] == "5001"
    assert SECRET not in str(shown)
    await asyncio.sleep(0)
