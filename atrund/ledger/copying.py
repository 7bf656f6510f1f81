# SPDX-License-Identifier: Apache-2.0
"""The copy that a migration leaves beside the ledger, for whoever wants the atrund of before again.

Rules of this file: a copy is there whole and on disk, or not at all; nobody but the owner may read it; there is one at
most, of the version before the latest migration; it goes when the daemon has run for `KEEP` since.
"""

import contextlib
import os
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

KEEP: Final = 7 * 86_400.0
"""Seconds that the daemon runs with a copy beside the ledger: after a week too much would be lost by going back to it,
and what was secret in requests that have ended since must not stay in it for ever (POL-3)."""

NOTED: Final = """
    INSERT OR REPLACE INTO meta (name, value)
        SELECT 'migrated', coalesce(max(value), 0.0) FROM meta WHERE name = 'run';
"""
"""Part of a migration that left a copy: the run clock's time of it, which is there until the copy has gone."""


class NoCopyError(Exception):
    """There is no copy, and none by halves; the text says why."""


def copies(path: Path) -> dict[int, Path]:
    """Return the copies beside a ledger by the version of their schema."""
    wanted = re.compile(re.escape(path.name) + r"\.v(\d{1,9})")
    with contextlib.suppress(OSError):
        found = ((wanted.fullmatch(file.name), file) for file in path.parent.iterdir())
        return {int(match[1]): file for match, file in found if match}
    return {}


def make_copy(connection: sqlite3.Connection, path: Path, version: int) -> Path:
    """Copy the ledger of a version to `path`.v`version`, synced with its folder before this returns; returns that name.

    The copy before it gives way first. Raises `NoCopyError`.
    """
    part, copy = path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.v{version}")
    before = copies(path).values()
    try:
        part.unlink(missing_ok=True)  # a crash left it
        needed = _pragma(connection, "page_count") * _pragma(connection, "page_size")
        room = _free(path.parent) + sum(file.stat().st_size for file in before)
        if room < needed:
            raise NoCopyError(f"the copy to be made first needs {needed} bytes, and {room} are free")
        for file in before:
            file.unlink()
        # SQLite takes the mode of a file that is there.
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        with closing(sqlite3.connect(part, isolation_level=None)) as target:
            # Half a copy is thrown away, so it needs no journal.
            target.execute("PRAGMA journal_mode=OFF")
            target.execute("PRAGMA synchronous=OFF")
            connection.backup(target)
        _sync(part)
        part.rename(copy)
        _sync(path.parent)
    except (sqlite3.Error, OSError) as error:
        for file in (part, copy):
            with contextlib.suppress(OSError):
                file.unlink(missing_ok=True)
        raise NoCopyError(f"the copy to be made first failed: {error}") from error
    return copy


def drop_copies(run: float) -> Callable[[sqlite3.Connection], None]:
    """Delete the copies when the daemon has run for `KEEP` since the migration; `run` is REQ-11's clock."""

    def write(db: sqlite3.Connection) -> None:
        row = db.execute("SELECT value FROM meta WHERE name = 'migrated'").fetchone()
        if row is None or run - float(row[0]) < KEEP:
            return
        db.execute("DELETE FROM meta WHERE name = 'migrated'")
        path = Path(next(file for _, name, file in db.execute("PRAGMA database_list") if name == "main"))
        for file in copies(path).values():
            with contextlib.suppress(OSError):
                file.unlink()

    return write


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _free(folder: Path) -> int:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
