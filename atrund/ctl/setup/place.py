# SPDX-License-Identifier: Apache-2.0
"""Where the configuration is: what is to become of it is made beside it, checked as a whole, and put there at once.

Rules of this file: until `commit` nothing that the daemon reads is touched; what is written is on the disk before it
takes the place of what was there.
"""

import grp
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from atrund.config import Config, load, own_machine_id
from atrund.config.files import FOLDER
from atrund.ctl.setup.text import MAIN, MAIN_TEXT

GROUP: Final = "atrund"
FILE_MODE: Final = 0o640
FOLDER_MODE: Final = 0o750

_PREFIX: Final = ".setup-"


class PartlyWritten(Exception):
    """Some of it is in place and the rest isn't; the text says what."""


class Place:
    """The folder of a configuration and, while it is open, what is to stand there: `wanted` files, and `gone` ones."""

    def __init__(self, folder: Path, wanted: Mapping[str, str], gone: tuple[str, ...] = ()) -> None:
        """Names are those below the folder. Nothing happens yet."""
        self.folder = folder
        self.committed = False
        self._wanted = {name: text for name, text in wanted.items() if content(folder / name) != text}
        if not (folder / MAIN).exists():
            self._wanted[MAIN] = MAIN_TEXT
        self._gone = tuple(name for name in gone if (folder / name).exists())
        self._made = False

    @property
    def changes(self) -> tuple[str, ...]:
        """The names of what will be written or removed; nothing changes without one."""
        return (*self._wanted, *self._gone)

    def __enter__(self) -> Self:
        """Make all of it beside what is there. Raises `OSError`."""
        if not self.folder.exists():
            self.folder.mkdir(mode=0o755)
            self._made = True
        try:
            for left in self.folder.glob(f"{_PREFIX}*"):  # of a run that was killed
                shutil.rmtree(left, ignore_errors=True)
            self._stage = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self.folder))
            self._fill()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave nothing behind of what was not committed."""
        if (stage := getattr(self, "_stage", None)) is not None:
            shutil.rmtree(stage, ignore_errors=True)
        if self._made and not self.committed:
            shutil.rmtree(self.folder, ignore_errors=True)

    def check(self, name: str) -> Config:
        """Return the configuration as it would be; `name` is that of one daemon of several.

        Raises `ConfigError`, whose text names the files where they will be once it went through `told`.
        """
        return load(self._stage / MAIN, hostname=socket.gethostname(), machine_id=own_machine_id(), name=name)

    def told(self, text: str) -> str:
        """Return a text in which the files are where they will be."""
        return text.replace(str(self._stage), str(self.folder))

    def commit(self) -> None:
        """Put all of it in place: what others name first, what names it last. Signals are ignored from then on.

        Raises `OSError` where nothing is in place, `PartlyWritten` where the disk failed between.
        """
        settings = self.folder / FOLDER
        if not settings.exists():
            settings.mkdir(mode=FOLDER_MODE)
            with _opened(settings) as descriptor:
                _give(descriptor, FOLDER_MODE)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # what is left is short
        done: list[str] = []
        try:
            for name in sorted(self._wanted, key=lambda name: (name.startswith(FOLDER), name)):
                (self._stage / name).replace(self.folder / name)
                done.append(name)
            for name in self._gone:
                (self.folder / name).unlink(missing_ok=True)
                done.append(name)
            for folder in (settings, self.folder):
                with _opened(folder) as descriptor:
                    os.fsync(descriptor)
        except OSError as error:
            if not done:
                raise
            text = f"{error.strerror}; in place are {', '.join(done)} alone: run it again"
            raise PartlyWritten(text) from None
        self.committed = True

    def _fill(self) -> None:
        """What stays is linked to, what is new is written."""
        (self._stage / FOLDER).mkdir()
        ours = set(self.changes)
        for folder in ("", FOLDER):
            for entry in (self.folder / folder).iterdir() if (self.folder / folder).is_dir() else ():
                name = f"{folder}/{entry.name}" if folder else entry.name
                if name not in ours and name != FOLDER and not entry.name.startswith(_PREFIX):
                    (self._stage / name).symlink_to(entry.absolute())
        for name, text in self._wanted.items():
            _write(self._stage / name, text)


def content(path: Path) -> str | None:
    """Return what a file of ours holds; None where there is none, or it is none of ours. Raises `OSError`."""
    try:
        return path.read_bytes().decode()
    except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
        return None


def writable(folder: Path) -> bool:
    """Return whether this user may write there, or make what isn't there."""
    places = [one for one in (folder, folder / FOLDER) if one.exists()] or [folder.parent]
    return all(os.access(one, os.W_OK | os.X_OK) for one in places)


def _write(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(text.encode())
        file.flush()
        _give(file.fileno(), FILE_MODE)
        os.fsync(file.fileno())


def _give(descriptor: int, mode: int) -> None:
    """Let the daemon's group read it: where that group is there, and this user may say so."""
    if os.geteuid() == 0:
        try:
            os.fchown(descriptor, 0, grp.getgrnam(GROUP).gr_gid)
        except KeyError:
            os.fchown(descriptor, 0, 0)
    os.fchmod(descriptor, mode)


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
