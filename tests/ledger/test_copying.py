# SPDX-License-Identifier: Apache-2.0
"""Migration behind a copy: nothing lost, whatever happens amid it, and never half a copy."""

import asyncio
import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import structlog

from atrund.atrun.request import Door
from atrund.atrun.secrets import mask_line
from atrund.ledger import KEEP_RUN, Ledger, LedgerRefusedError, copying, nvm, outbox, tables
from atrund.ledger.schema import MIGRATIONS, VERSION, open_file
from tests.ledger.disks import fill, mounted
from tests.support.virtual import AtOnce

HOME = Path(__file__).parents[2]
ROWS = 60
"""Enough for dozens of pages, so that a copy can be cut in many places."""


def older(path: Path, version: int) -> None:
    """A ledger as an atrund of that version left it, with a request on its way, an answer that waits and a setting."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.create_function("mask_line", 1, mask_line, deterministic=True)
        db.execute("PRAGMA page_size=1024")
        db.execute("PRAGMA journal_mode=WAL")
        db.executescript("".join(MIGRATIONS[:version]))
        for number in range(ROWS):
            db.execute(
                "INSERT INTO requests (rid, door, peer, key, digest, line, asked, state, run) "
                "VALUES (?, 'sms', '+39', ?, 'd', 'AT+CSQ', '{}', 'recorded', 7.0)",
                (f"r{number}", f"k{number}"),
            )
            db.execute(
                "INSERT INTO outbox (response, topic, payload, extra) VALUES (1, 't', ?, '{}')", (f'"{number}"',)
            )
        for number in range(ROWS):  # a page each, which the fourth version writes anew
            db.execute(
                "INSERT INTO requests (rid, door, peer, key, digest, line, asked, state, outcome, answered, run) "
                "VALUES (?, 'mqtt', '', ?, 'd', ?, '{}', 'ended', '{}', 1, 8.0)",
                (f"e{number}", f"e{number}", f"AT+CSQ;{'+CSQ;' * 150}"),
            )
        db.execute("INSERT INTO audit (ts, rid, door, peer, line, event) VALUES ('t', 'r0', 'sms', '', 'AT', 'came')")
        db.execute("INSERT INTO meta VALUES ('run', 5000.0)")
        if version >= 3:
            db.execute("INSERT INTO settings VALUES ('sms.enabled', 'true', 'local', '', 't')")
        db.execute(f"PRAGMA user_version={version}")


def check_rows(path: Path, version: int) -> None:
    """The ledger is of this version now, and all is in it."""
    with contextlib.closing(open_file(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (VERSION,)
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert [known.request.rid for known in tables.unfinished(Door.SMS)(db)] == [f"r{n}" for n in range(ROWS)]
        assert [row.seq for row in outbox.after(0)(db)] == list(range(1, ROWS + 1))
        assert db.execute("SELECT count(*) FROM audit").fetchone() == (1,)
        assert tables.get_meta("run", 0.0)(db) == 5000.0
        assert list(nvm.stored()(db)) == (["sms.enabled"] if version >= 3 else [])


def check_copy(copy: Path, version: int) -> None:
    """The copy is the ledger of before, whole, and its owner's alone."""
    assert copy.stat().st_mode & 0o777 == 0o600
    with contextlib.closing(sqlite3.connect(f"{copy.as_uri()}?mode=ro&immutable=1", uri=True)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (version,)
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("SELECT count(*) FROM requests").fetchone() == (2 * ROWS,)
        assert db.execute("SELECT count(*) FROM outbox").fetchone() == (ROWS,)
        assert db.execute("SELECT value FROM meta WHERE name = 'run'").fetchone() == (5000.0,)


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def add_version(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    monkeypatch.setattr("atrund.ledger.schema.MIGRATIONS", (*MIGRATIONS, script))
    monkeypatch.setattr("atrund.ledger.schema.VERSION", VERSION + 1)


@pytest.mark.parametrize("version", range(1, VERSION))
def test_every_older_version_is_brought_up_to_date_behind_a_copy(tmp_path: Path, version: int) -> None:
    path = tmp_path / "ledger.db"
    older(path, version)
    with structlog.testing.capture_logs() as told:
        check_rows(path, version)
    assert names(tmp_path) == {"ledger.db", f"ledger.db.v{version}"}
    check_copy(tmp_path / f"ledger.db.v{version}", version)
    (entry,) = told
    assert (entry["event"], entry["before"], entry["version"]) == ("ledger brought up to date", version, VERSION)


def test_a_copy_put_back_is_the_ledger_again(tmp_path: Path) -> None:
    """As the manual page says, for the atrund of before; and that one may be upgraded again."""
    path, copy = tmp_path / "ledger.db", tmp_path / "ledger.db.v3"
    older(path, 3)
    check_rows(path, 3)
    copy.rename(path)
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (3,)
        assert db.execute("SELECT count(*) FROM requests").fetchone() == (2 * ROWS,)
    check_rows(path, 3)
    check_copy(copy, 3)


def test_what_is_in_the_log_of_changes_alone_is_in_the_copy(tmp_path: Path) -> None:
    """A killed daemon leaves such a file."""
    path, made = tmp_path / "ledger.db", tmp_path / "made.db"
    older(made, 4)
    db = sqlite3.connect(made, isolation_level=None)
    db.execute("PRAGMA wal_autocheckpoint=0")
    db.execute("INSERT INTO meta VALUES ('late', 1.0)")
    shutil.copy(made, path)
    shutil.copy(tmp_path / "made.db-wal", tmp_path / "ledger.db-wal")
    db.close()
    check_rows(path, 4)
    check_copy(tmp_path / "ledger.db.v4", 4)
    with contextlib.closing(sqlite3.connect(tmp_path / "ledger.db.v4")) as db:
        assert db.execute("SELECT value FROM meta WHERE name = 'late'").fetchone() == (1.0,)


def test_a_new_ledger_and_one_of_this_version_leave_no_copy(tmp_path: Path) -> None:
    for _ in range(2):
        open_file(tmp_path / "ledger.db").close()
        assert names(tmp_path) == {"ledger.db"}


def test_there_is_one_copy_of_the_latest_upgrade(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    older(path, 5)
    for name in ("ledger.db.v2", "ledger.db.v5", "ledger.db.part"):
        (tmp_path / name).write_bytes(b"left by what was before")
    (tmp_path / "ledger.db.vain").touch()
    check_rows(path, 5)
    assert names(tmp_path) == {"ledger.db", "ledger.db.v5", "ledger.db.vain"}
    check_copy(tmp_path / "ledger.db.v5", 5)


def test_the_copy_is_on_disk_before_the_ledger_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Power may go at any moment: file, name, folder, and then the first change."""
    path = tmp_path / "ledger.db"
    older(path, 2)
    before = path.read_bytes()
    told: list[tuple[str, bool]] = []
    sync, rename = os.fsync, Path.rename

    def unchanged() -> bool:
        return path.read_bytes() == before and not (tmp_path / "ledger.db-wal").stat().st_size

    def fsync(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        if name == "ledger.db.part":
            check_copy(tmp_path / name, 2)
        told.append((f"sync {name}", unchanged()))
        sync(descriptor)

    def name_it(source: Path, target: Path) -> Path:
        told.append((f"{source.name} is {target.name}", unchanged()))
        return rename(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", name_it)
    open_file(path).close()
    assert told == [
        ("sync ledger.db.part", True),
        ("ledger.db.part is ledger.db.v2", True),
        (f"sync {tmp_path.name}", True),
    ]


# Killed amid it

KILLED = """
import os, resource, shutil, signal, sqlite3, sys
from pathlib import Path
from atrund.ledger import schema

SHARED_MEMORY = 32768  # the size of a file beside a ledger that is no file really
how, old, folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])

def bound(size):  # the kernel kills whoever writes beyond so many bytes of any file
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

def attempt(path, number):
    if how == "copy":
        bound(number)
    elif how == "migration":
        rename = Path.rename
        Path.rename = lambda *names: (rename(*names), bound(number))
    if how != "step":
        schema.open_file(path).close()
        return
    left = number

    def passed(*_):
        nonlocal left
        left -= 1
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def counted(real):
        def call(*given, **more):
            passed()
            result = real(*given, **more)
            passed()
            return result
        return call

    class Counted(sqlite3.Connection):
        def __init__(self, *given, **more):
            super().__init__(*given, **more)
            self.set_progress_handler(passed, 100)  # operations of SQLite's machine
        def backup(self, target):
            super().backup(target, pages=4, progress=passed)

    real = sqlite3.connect
    sqlite3.connect = lambda *given, **more: real(*given, factory=Counted, **more)
    for name in ("open", "fsync", "close"):
        setattr(os, name, counted(getattr(os, name)))
    for name in ("rename", "unlink"):
        setattr(Path, name, counted(getattr(Path, name)))
    schema.open_file(path).close()

number, ended = SHARED_MEMORY if how == "copy" else 0, False
while not ended:
    number += 1 if how == "step" else 1100
    place = folder / str(number)
    shutil.copytree(old, place)
    child = os.fork()
    if not child:
        attempt(place / "ledger.db", number)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    wanted = signal.SIGKILL if how == "step" else signal.SIGXFSZ
    ended = status == 0
    assert ended or os.WIFSIGNALED(status) and os.WTERMSIG(status) == wanted, status
"""


STAGES = {
    "step": {(3,), ("ledger.db.part", 3), ("ledger.db.v3", 3), ("ledger.db.v3", VERSION)},
    "copy": {("ledger.db.part", 3), ("ledger.db.v3", VERSION)},
    "migration": {("ledger.db.v3", 3), ("ledger.db.v3", VERSION)},
}
"""What is found after the kills: the copy, whole or by halves, and the ledger's version."""


@pytest.mark.parametrize("how", STAGES)
def test_killed_anywhere_the_next_start_goes_on(tmp_path: Path, how: str) -> None:
    """At every step of it, and amid every write of the copy, of the log of changes and of the file."""
    old, killed = tmp_path / "old", tmp_path / "killed"
    for folder in (old, killed):
        folder.mkdir()
    older(old / "ledger.db", 3)
    (old / "ledger.db.v1").write_bytes(b"the copy of an upgrade before")
    subprocess.run([sys.executable, "-c", KILLED, how, str(old), str(killed)], check=True, cwd=HOME)
    seen = set()
    places = sorted(killed.iterdir(), key=lambda place: int(place.name))
    for place in places:
        found = names(place) & {"ledger.db.part", "ledger.db.v3"}
        with contextlib.closing(sqlite3.connect(place / "ledger.db")) as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
        assert version in {3, VERSION}, "half a migration"
        assert version == 3 or "ledger.db.v3" in found, "a migration without its copy"
        if "ledger.db.v3" in found:
            check_copy(place / "ledger.db.v3", 3)
        seen.add((*sorted(found), version))
        check_rows(place / "ledger.db", 3)
        assert names(place) == {"ledger.db", "ledger.db.v3"}
        check_copy(place / "ledger.db.v3", 3)
        shutil.rmtree(place)
    assert len(places) > 30
    assert seen == STAGES[how]


# No room, and faults


def test_without_room_for_the_copy_nothing_is_done_and_the_bytes_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ledger.db"
    older(path, 6)
    (tmp_path / "ledger.db.v5").write_bytes(b"12345")
    before, size = path.read_bytes(), path.stat().st_size
    monkeypatch.setattr(copying, "_free", lambda _: 1000)
    with pytest.raises(
        LedgerRefusedError,
        match=rf"ledger\.db: of an older atrund, and left so: .* needs {size} bytes, and 1005 are free",
    ):
        open_file(path)
    assert path.read_bytes() == before
    assert names(tmp_path) == {"ledger.db", "ledger.db.v5"}
    monkeypatch.setattr(copying, "_free", lambda _: size - 5)  # what the older copy holds is room, too
    check_rows(path, 6)
    assert names(tmp_path) == {"ledger.db", "ledger.db.v6"}


def test_a_disk_that_is_full_leaves_the_ledger_as_it_was(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "2m") as disk:
        older(disk / "ledger.db", 6)
        filler = fill(disk)
        os.truncate(filler, filler.stat().st_size - 40_960)  # for the log of changes to begin
        with pytest.raises(LedgerRefusedError, match=r"needs \d+ bytes, and \d+ are free"):
            open_file(disk / "ledger.db")
        assert names(disk) == {"ledger.db", "filler"}
        filler.unlink()
        check_rows(disk / "ledger.db", 6)
        check_copy(disk / "ledger.db.v6", 6)


def test_a_disk_that_is_full_amid_the_copy_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others write to it, too."""
    with mounted(tmp_path / "disk", "2m") as disk:
        older(disk / "ledger.db", 6)
        filler = fill(disk)
        os.truncate(filler, filler.stat().st_size - 40_960)
        monkeypatch.setattr(copying, "_free", lambda _: 1 << 30)
        with pytest.raises(LedgerRefusedError, match=r"the copy to be made first failed: .*full"):
            open_file(disk / "ledger.db")
        assert names(disk) == {"ledger.db", "filler"}
        filler.unlink()
        check_rows(disk / "ledger.db", 6)


def test_a_disk_that_is_full_amid_the_migration_gives_the_copys_room_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mounted(tmp_path / "disk", "2m") as disk:
        older(disk / "ledger.db", VERSION)
        add_version(monkeypatch, "CREATE TABLE large (a); INSERT INTO large VALUES (zeroblob(4000000));")
        with pytest.raises(LedgerRefusedError, match="full; it must be writable, with room on its disk"):
            open_file(disk / "ledger.db")
        assert names(disk) == {"ledger.db"}
        monkeypatch.undo()
        check_rows(disk / "ledger.db", VERSION)


def test_a_migration_that_fails_for_another_reason_leaves_the_copy_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older(tmp_path / "ledger.db", VERSION)
    add_version(monkeypatch, "CREATE TABLE meta (b);")
    with pytest.raises(LedgerRefusedError, match="meta already exists"):
        open_file(tmp_path / "ledger.db")
    monkeypatch.undo()
    check_copy(tmp_path / f"ledger.db.v{VERSION}", VERSION)
    check_rows(tmp_path / "ledger.db", VERSION)


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the calls of fsync that fail are put in."""
    failing: list[int] = []
    sync, calls = os.fsync, 0

    def fsync(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls in failing:
            raise OSError(5, "Input/output error")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return failing


@pytest.mark.parametrize("which", [1, 2])
def test_a_copy_that_cannot_be_synced_is_none(tmp_path: Path, faulty: list[int], which: int) -> None:
    path = tmp_path / "ledger.db"
    older(path, 6)
    before = path.read_bytes()
    faulty.append(which)
    with pytest.raises(LedgerRefusedError, match=r"the copy to be made first failed: .*Input/output error"):
        open_file(path)
    assert path.read_bytes() == before
    assert names(tmp_path) == {"ledger.db"}
    check_rows(path, 6)  # the next start


# How long it is kept


@pytest.mark.looptime
async def test_the_copy_goes_when_the_daemon_has_run_for_a_week(tmp_path: Path) -> None:
    path, copy = tmp_path / "ledger.db", tmp_path / "ledger.db.v6"
    older(path, 6)
    ledger = Ledger(AtOnce(path))
    await ledger.start()
    assert ledger.run == 5000.0
    await sleep_until(ledger, 5000.0 + copying.KEEP - KEEP_RUN)
    check_copy(copy, 6)
    await sleep_until(ledger, 5000.0 + copying.KEEP + KEEP_RUN)
    assert names(tmp_path) & {"ledger.db.v6"} == set()
    copy.touch()  # somebody's own, put there later
    await sleep_until(ledger, 5000.0 + 3 * copying.KEEP)
    assert copy.exists()
    await ledger.close()


async def sleep_until(ledger: Ledger, run: float) -> None:
    await asyncio.sleep(run - ledger.run + 1)


def test_a_copy_that_cannot_be_deleted_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    older(path, 6)
    with contextlib.closing(open_file(path)) as db:
        (tmp_path / "ledger.db.v6").unlink()
        (tmp_path / "ledger.db.v6").mkdir()
        copying.drop_copies(5000.0 + copying.KEEP)(db)
    assert (tmp_path / "ledger.db.v6").is_dir()


# An older atrund at a newer ledger


@pytest.mark.parametrize("copied", [None, VERSION - 2, VERSION + 1])
def test_an_older_atrund_says_what_to_do_and_what_it_would_cost(tmp_path: Path, copied: int | None) -> None:
    path = tmp_path / "ledger.db"
    open_file(path).close()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version={VERSION + 2}")
    if copied is not None:
        (tmp_path / f"ledger.db.v{copied}").touch()
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(LedgerRefusedError) as refused:
        open_file(path)
    text = str(refused.value)
    assert text.startswith(
        f"{path}: written by a newer atrund (version {VERSION + 2}; this one knows {VERSION}), left as it is; "
        "install that one again, or "
    )
    if copied == VERSION - 2:
        assert f"put the copy ledger.db.v{copied} in their place: what was recorded since is lost" in text
    else:
        assert "move it away to begin anew: all that it holds is lost" in text
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
