# SPDX-License-Identifier: Apache-2.0
"""The files of a configuration: the main one, and the folder `conf.d` beside it, put together to one table.

Rule of this file: a later file's value of a key wins; tables are put together key by key, lists are not.
"""

import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import tomli

from atrund.atrun.secrets import escape
from atrund.config.reader import ConfigError, Mistake

FILE_MAX: Final = 1024 * 1024
"""Octets of a file; the shipped one with all its comments is a fiftieth of it."""
FILES_MAX: Final = 100
"""Files of a folder: one for each thing that a fleet's tools set, with room."""
FOLDER: Final = "conf.d"

_TOO_DEEP: Final = Mistake("", "is nested too deep", "plain tables, as in the example")


@dataclass(frozen=True, slots=True)
class Table:
    """What the files come to. `origins`: the file of each value or table by its dotted key; else it is the main one."""

    main: Path
    values: dict[str, object] = field(default_factory=dict)
    origins: dict[str, Path] = field(default_factory=dict)

    def file_of(self, key: str) -> Path:
        """Return the file in which a mistake at `key` stands: that of the value, or of the table around it."""
        key = re.split(r"[\[,]", key)[0]
        while key:
            if key in self.origins:
                return self.origins[key]
            key = key.rpartition(".")[0]
        return self.main


def read_files(path: Path) -> Table:
    """Read `path`, then every `*.toml` of `conf.d` beside it by the order of their names. Raises `ConfigError`.

    Names that begin with a dot are left out, as editors and package managers leave such behind.
    """
    table = Table(path, read_file(path))
    for further in _further(path):
        given = read_file(further)
        try:
            _put(table, table.values, given, further)
        except RecursionError:
            raise ConfigError(further, (_TOO_DEEP,)) from None
    return table


def read_file(path: Path) -> dict[str, object]:
    """Read one file as TOML has it. Raises `ConfigError`."""
    try:
        # Not to wait for whoever might write into a pipe; what is no file would read as an empty one.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConfigError(path, (Mistake("", "is no regular file", "the path of a TOML file"),))
            content = file.read(FILE_MAX + 1)
    except OSError as error:
        right = "the path of a TOML file that can be read"
        if isinstance(error, PermissionError):
            right = "chgrp atrund and chmod 640 it, so that the daemon can read it"
        raise ConfigError(path, (Mistake("", error.strerror or "can't be read", right),)) from None
    if len(content) > FILE_MAX:
        raise ConfigError(path, (Mistake("", "is too long", f"at most {FILE_MAX} bytes"),))
    try:
        return tomli.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(path, (Mistake(f"line {line}", "is not UTF-8", "save the file as UTF-8"),)) from None
    except RecursionError:
        raise ConfigError(path, (_TOO_DEEP,)) from None
    except ValueError as error:
        raise ConfigError(path, (_syntax(str(error)),)) from None


def _further(path: Path) -> list[Path]:
    folder = path.parent / FOLDER
    try:
        found = sorted(one.name for one in os.scandir(folder) if one.name.endswith(".toml") and one.name[0] != ".")
    except FileNotFoundError:
        return []
    except OSError as error:
        right = "a folder of TOML files that can be read, or none"
        raise ConfigError(folder, (Mistake("", error.strerror or "can't be read", right),)) from None
    if len(found) > FILES_MAX:
        raise ConfigError(folder, (Mistake("", f"holds {len(found)} files", f"at most {FILES_MAX}"),))
    return [folder / name for name in found]


def _put(table: Table, into: dict[str, object], given: dict[str, object], file: Path, above: str = "") -> None:
    for name, value in given.items():
        key = f"{above}{name}"
        if name not in into:
            table.origins[key] = file
        if isinstance(value, dict) and isinstance(below := into.setdefault(name, {}), dict):
            _put(table, below, value, file, f"{key}.")
        else:
            into[name] = value
            table.origins[key] = file


def _syntax(message: str) -> Mistake:
    """Put the place in front: tomli ends its messages with it, in parentheses."""
    found = re.fullmatch(r"(.*) \(at (line \d+, column \d+|end of document)\)", message, re.DOTALL)
    wrong, where = (found[1], found[2]) if found else (message, "")
    return Mistake(
        where, f"no TOML: {wrong[:1].lower()}{escape(wrong[1:100])}", "see https://toml.io for how it is written"
    )
