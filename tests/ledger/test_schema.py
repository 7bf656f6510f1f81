# SPDX-License-Identifier: Apache-2.0
"""The ledger's file: versions, damage, and disks that refuse."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest

from atrund.atrun.request import Door
from atrund.ledger import LedgerRefusedError, StorageError, open_ledger, tables
from atrund.ledger.schema import MIGRATIONS, VERSION, open_file
from tests.ledger.disks import fill, mounted


def beside(path: Path) -> dict[str, bytes]:
    """All files of a folder but the shared memory, which is none of the data."""
    return {file.name: file.read_bytes() for file in path.parent.iterdir() if not file.name.endswith("-shm")}


def ledger_of(path: Path, *, version: int = VERSION) -> None:
    """A ledger with one row, closed in order."""
    connection = open_file(path)
    connection.execute("INSERT INTO meta VALUES ('a', 'b')")
    connection.execute(f"PRAGMA user_version={version}")
    connection.close()


def killed(path: Path, *sql: str) -> None:
    """What `kill -9` leaves: the files as they are while a connection is open."""
    connection = open_file(path)
    connection.execute("PRAGMA wal_autocheckpoint=0")
    for statement in sql:
        connection.execute(statement)
    copies = {name: (path.with_name(name)).read_bytes() for name in (path.name, f"{path.name}-wal")}
    connection.close()
    for name, data in copies.items():
        path.with_name(name).write_bytes(data)


def test_a_new_file_gets_the_present_version(tmp_path: Path) -> None:
    connection = open_file(tmp_path / "ledger.db")
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,)
    assert {"requests", "outbox", "audit", "messages", "meta"} <= names
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    connection.close()
    assert [file.name for file in tmp_path.iterdir()] == ["ledger.db"]


def test_a_new_file_has_small_pages_and_an_old_one_keeps_its_own(tmp_path: Path) -> None:
    """A commit writes whole pages."""
    with contextlib.closing(open_file(tmp_path / "new.db")) as new:
        assert new.execute("PRAGMA page_size").fetchone() == (1024,)
    with contextlib.closing(sqlite3.connect(tmp_path / "old.db")) as old:
        old.executescript("PRAGMA page_size=4096; CREATE TABLE t (a)")
    with contextlib.closing(open_file(tmp_path / "old.db")) as old:
        assert old.execute("PRAGMA page_size").fetchone() == (4096,)


def test_not_everybody_may_read_it(tmp_path: Path) -> None:
    """Whatever the folder and the umask: passwords are in it."""
    before = os.umask(0o022)
    try:
        connection = open_file(tmp_path / "ledger.db")
        connection.execute("INSERT INTO meta VALUES ('a', 'b')")
    finally:
        os.umask(before)
    assert {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == dict.fromkeys(
        ("ledger.db", "ledger.db-wal", "ledger.db-shm"), 0o640
    )
    connection.close()


def test_a_file_that_everybody_could_read_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    killed(path, "INSERT INTO meta VALUES ('a', 'b')")
    for file in tmp_path.iterdir():
        file.chmod(0o644)
    open_file(path).close()
    assert path.stat().st_mode & 0o777 == 0o640
    path.write_bytes(b"")  # what is left where power went while it was created
    connection = open_file(path)
    assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,)
    connection.close()


def test_opened_again_all_is_there(tmp_path: Path) -> None:
    ledger_of(tmp_path / "ledger.db")
    connection = open_file(tmp_path / "ledger.db")
    assert connection.execute("SELECT * FROM meta").fetchall() == [("a", "b")]
    connection.close()


def test_an_older_file_is_brought_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger_of(tmp_path / "ledger.db")
    later = (*MIGRATIONS, "ALTER TABLE meta ADD COLUMN note TEXT; CREATE TABLE more (a);")
    monkeypatch.setattr("atrund.ledger.schema.MIGRATIONS", later)
    monkeypatch.setattr("atrund.ledger.schema.VERSION", len(later))
    connection = open_file(tmp_path / "ledger.db")
    assert connection.execute("PRAGMA user_version").fetchone() == (len(later),)
    assert connection.execute("SELECT * FROM meta WHERE name = 'a'").fetchall() == [("a", "b", None)]
    connection.close()


def test_requests_of_the_first_version_are_kept(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    connection.executescript(f"BEGIN; {MIGRATIONS[0]} PRAGMA user_version=1; COMMIT;")
    connection.execute(
        "INSERT INTO requests (rid, door, peer, key, digest, line, asked, state, run) "
        "VALUES ('r1', 'sms', '+39', 'k', 'd', 'AT', '{}', 'recorded', 7.0)"
    )
    connection.close()
    connection = open_file(tmp_path / "ledger.db")
    (known,) = tables.unfinished(Door.SMS)(connection)
    assert (known.request.rid, known.state, known.ended) == ("r1", "recorded", None)
    connection.close()


def test_a_migration_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger_of(tmp_path / "ledger.db")
    monkeypatch.setattr(
        "atrund.ledger.schema.MIGRATIONS", (*MIGRATIONS, "CREATE TABLE more (a); CREATE TABLE meta (b);")
    )
    monkeypatch.setattr("atrund.ledger.schema.VERSION", VERSION + 1)
    with pytest.raises(LedgerRefusedError, match="meta already exists"):
        open_file(tmp_path / "ledger.db")
    monkeypatch.undo()
    connection = open_file(tmp_path / "ledger.db")
    assert connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'more'").fetchone() == (0,)
    connection.close()


@pytest.mark.parametrize("version", [VERSION + 1, 2**31 - 1, -1])
def test_a_newer_file_is_refused_bit_for_bit_unharmed(tmp_path: Path, version: int) -> None:
    path = tmp_path / "ledger.db"
    ledger_of(path, version=version)
    before = beside(path)
    with pytest.raises(
        LedgerRefusedError, match=f"written by a newer atrund \\(version {version}; .* install that one"
    ):
        open_file(path)
    assert beside(path) == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_newer_file_whose_version_is_still_in_its_wal_is_refused_unharmed(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    open_file(path).close()
    killed(path, f"PRAGMA user_version={VERSION + 1}", "INSERT INTO meta VALUES ('a', 'b')")
    before = beside(path)
    assert int.from_bytes(before["ledger.db"][60:64]) == VERSION
    with pytest.raises(LedgerRefusedError, match="newer atrund"):
        open_file(path)
    assert beside(path) == before
    assert not (tmp_path / "ledger.db-shm").exists()


def test_a_file_whose_wal_was_left_is_read_with_it(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    killed(path, "INSERT INTO meta VALUES ('a', 'b')")
    connection = open_file(path)
    assert connection.execute("SELECT * FROM meta").fetchall() == [("a", "b")]
    connection.close()


def test_a_wal_whose_file_was_moved_away_does_not_matter(tmp_path: Path) -> None:
    """As the refusal of a damaged file advises; a crash before left the WAL."""
    path = tmp_path / "ledger.db"
    killed(path, "INSERT INTO meta VALUES ('a', 'b')")
    path.rename(tmp_path / "elsewhere.db")
    connection = open_file(path)
    assert connection.execute("SELECT * FROM meta").fetchall() == []
    connection.close()


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096 : 4096 + 64] = b"\xa5" * 64  # the second page, a table's
    path.write_bytes(data)


@pytest.mark.parametrize("with_wal", [False, True])
def test_a_damaged_file_is_refused_unharmed(tmp_path: Path, with_wal: bool) -> None:  # noqa: FBT001 - a case
    path = tmp_path / "ledger.db"
    ledger_of(path)
    if with_wal:
        killed(path, "INSERT INTO meta VALUES ('c', 'd')")
    damage(path)
    before = beside(path)
    with pytest.raises(LedgerRefusedError, match=r"damaged .* move it away to begin anew, or restore it"):
        open_file(path)
    assert beside(path) == before
    assert len(before) == 1 + with_wal


def test_a_file_cut_short_is_refused_unharmed(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    ledger_of(path)
    path.write_bytes(path.read_bytes()[: 3 * 4096 + 100])
    before = beside(path)
    with pytest.raises(LedgerRefusedError, match="damaged"):
        open_file(path)
    assert beside(path) == before


@pytest.mark.parametrize("content", [b"no database at all, " * 400, b"SQLite format 3\0" + b"\xff" * 200])
def test_a_file_that_is_no_database_is_refused_unharmed(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(content)
    with pytest.raises(LedgerRefusedError, match=r"ledger\.db: damaged \(.* move it away"):
        open_file(path)
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_no_database_with_a_journal_beside_it_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(b"no database at all, " * 400)
    (tmp_path / "ledger.db-journal").touch()
    with pytest.raises(LedgerRefusedError, match=r"damaged \(file is not a database\)"):
        open_file(path)
    assert path.read_bytes() == b"no database at all, " * 400


def test_an_empty_file_becomes_a_ledger(tmp_path: Path) -> None:
    """A power cut in the very first moment leaves one."""
    path = tmp_path / "ledger.db"
    path.touch()
    ledger_of(path)
    assert path.stat().st_size > 0


def test_power_that_went_at_the_very_first_write_is_no_damage(tmp_path: Path) -> None:
    """The first page is half written and its rollback journal stands beside it."""
    path = tmp_path / "ledger.db"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA cache_size=2")
    connection.execute("CREATE TABLE before (a)")
    connection.execute("BEGIN")
    connection.execute("PRAGMA cache_spill=1")
    for _ in range(200):
        connection.execute("INSERT INTO before VALUES (randomblob(3000))")
    left = {name: (tmp_path / name).read_bytes() for name in ("ledger.db", "ledger.db-journal")}
    connection.close()
    for name, data in left.items():
        (tmp_path / name).write_bytes(data)
    connection = open_file(path)
    assert connection.execute("SELECT count(*) FROM before").fetchone() == (0,)
    assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,)
    connection.close()


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(LedgerRefusedError, match=r"nowhere/ledger.db: .*the folder must exist and belong to the user"):
        open_file(tmp_path / "nowhere" / "ledger.db")


def test_a_folder_that_is_a_file_and_a_file_that_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "ledger.db").mkdir()
    for path in (tmp_path / "file" / "ledger.db", tmp_path / "ledger.db"):
        with pytest.raises(LedgerRefusedError, match="the folder must exist"):
            open_file(path)


@pytest.mark.parametrize("with_wal", [False, True])
def test_a_disk_that_is_read_only(tmp_path: Path, with_wal: bool) -> None:  # noqa: FBT001 - a case
    with mounted(tmp_path / "disk", "4m") as disk:
        path = disk / "ledger.db"
        ledger_of(path)
        if with_wal:
            killed(path, "INSERT INTO meta VALUES ('c', 'd')")
        before = beside(path)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(LedgerRefusedError, match=r"ledger.db: "):
            open_file(path)
        assert beside(path) == before


def test_a_disk_that_is_full(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "1m") as disk:
        filler = fill(disk)
        with pytest.raises(LedgerRefusedError, match=r"with room on its disk|disk is full|disk I/O"):
            open_file(disk / "ledger.db")
        filler.unlink()
        ledger_of(disk / "ledger.db")


def test_a_file_of_a_later_time_may_be_copied_whole(tmp_path: Path) -> None:
    """No state lies outside the one file once it was closed."""
    ledger_of(tmp_path / "ledger.db")
    (tmp_path / "other").mkdir()
    shutil.copy(tmp_path / "ledger.db", tmp_path / "other" / "ledger.db")
    connection = open_file(tmp_path / "other" / "ledger.db")
    assert connection.execute("SELECT * FROM meta").fetchall() == [("a", "b")]
    connection.close()


async def test_a_ledger_that_cannot_be_opened_promises_nothing_and_says_why(tmp_path: Path) -> None:
    """REQ-12"""
    ledger = open_ledger(tmp_path / "nowhere")
    await ledger.start()
    assert "the folder must exist" in ledger.failure
    with pytest.raises(StorageError, match="the folder must exist"):
        await ledger.durable(tables.set_meta("a", 1.0))
    with pytest.raises(StorageError, match="the folder must exist"):
        await ledger.ask(tables.counts())
    ledger.behind(tables.set_meta("a", 1.0))
    assert ledger.missed == 1
    await ledger.close()
