# SPDX-License-Identifier: Apache-2.0
"""The certificates in force: read anew when their files change, without a session's noticing (TCP-13).

Rules of this file: files are looked at and read off the event loop; a broken one is said once, and what was in force
stays so.
"""

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from atrund.tls import FileError, Files

log = structlog.get_logger()

LOOK: Final = 2.0
"""Seconds that a connection waits for the files to be looked at: there are others in force if a disk hangs."""

Seen = tuple[tuple[Path, int, int, int] | None, ...]
"""What is known of the files: path, inode, size and time of the last change (ns); None for one that is not there."""


class Certificates:
    """Gives the context of the moment."""

    def __init__(self, files: Callable[[], Files], make: Callable[[Files], ssl.SSLContext], whose: str) -> None:
        """`files` gives those of the moment, `make` reads them, and raises `FileError`; `whose` is said in the log."""
        self._files = files
        self._make = make
        self._whose = whose
        self._seen: Seen | None = None
        self._context: ssl.SSLContext | None = None
        self._wrong = ""
        self._looking: asyncio.Task[None] | None = None

    async def context(self) -> ssl.SSLContext:
        """Look whether the files are others than before, and return the context. Raises `OSError` if there is none."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(self._look(), name="certificates")
        await asyncio.wait([self._looking], timeout=None if self._context is None else LOOK)
        if self._context is None:
            raise OSError(f"{self._whose}: {self._wrong or 'the files can not be read now'}")
        return self._context

    async def _look(self) -> None:
        files = self._files()
        run = asyncio.get_running_loop().run_in_executor
        seen = await run(None, _look_at, files)
        if seen == self._seen:
            return
        again = self._context is not None
        try:
            self._context = await run(None, self._make, files)
        except (FileError, OSError) as error:
            self._wrong = str(error)
            what = "certificates not read anew, those of before stay" if again else "certificates can't be used"
            log.error(what, whose=self._whose, detail=self._wrong)  # noqa: TRY400 - said whole
        else:
            if again:
                log.info("certificates read anew", whose=self._whose)
        self._seen = seen


def _look_at(files: Files) -> Seen:
    return tuple(_state(path) for path in (files.certificate, files.key, files.ca) if path is not None)


def _state(path: Path) -> tuple[Path, int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return path, found.st_ino, found.st_size, found.st_mtime_ns
