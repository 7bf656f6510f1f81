# SPDX-License-Identifier: Apache-2.0
"""Which nodes are meant: names, patterns and files of them."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from atrund.records import NODE

NODES_MAX: Final = 100_000
"""Nodes of one run, and those that are taken note of: some 50 MB here, and an hour at the default rate."""
FILE_MAX: Final = 8 * 1024**2
"""Octets of a list: so many nodes with names of the longest kind."""

_NAME: Final = re.compile(NODE)
_PATTERN: Final = re.compile(r"[][A-Za-z0-9._*?!-]{1,128}")


class NamesError(ValueError):
    """Something that names no node; the text says what would be right."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Nodes by their names and by patterns."""

    names: tuple[str, ...]
    patterns: tuple[str, ...]

    def matches(self, node: str) -> bool:
        """Whether a node is one of them. Letters count as they are written."""
        return node in self.names or any(fnmatchcase(node, pattern) for pattern in self.patterns)

    def among(self, known: Iterable[str]) -> list[str]:
        """Return those that are named, known or not, and those known that fit a pattern, each once and in order."""
        fitting = (node for node in known if any(fnmatchcase(node, pattern) for pattern in self.patterns))
        return sorted({*self.names, *fitting}, key=in_order)


def is_name(text: str) -> bool:
    """Whether a node can be called so."""
    return _NAME.fullmatch(text) is not None


def in_order(name: str) -> list[tuple[int, int | str]]:
    """Sort by this to have node-9 before node-10."""
    return [(1, int(part)) if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name) if part]


def wanted(given: Sequence[str]) -> Wanted:
    """Read what `--nodes` was given: names, patterns, and @FILE with one of these a line. Raises `NamesError`."""
    names: dict[str, None] = {}
    patterns: dict[str, None] = {}
    for where, text in _each(given):
        if is_name(text):
            names[text] = None
        elif _PATTERN.fullmatch(text):
            patterns[text] = None
        else:
            right = "letters, digits, . _ and -, and for a pattern * ? and [] as in a shell"
            raise NamesError(f"{where}: {text[:80]!r} names no node; it would be {right}")
    if len(names) > NODES_MAX:
        raise NamesError(f"--nodes: {len(names)} names; at most {NODES_MAX}")
    return Wanted(tuple(names), tuple(patterns))


def _each(given: Sequence[str]) -> Iterable[tuple[str, str]]:
    for text in given:
        if not text.startswith("@"):
            yield "--nodes", text
            continue
        path = text[1:]
        try:
            with Path(path).open("rb") as file:
                octets = file.read(FILE_MAX + 1)
            content = octets.decode()
        except OSError as error:
            raise NamesError(f"--nodes: {error.strerror}: {path}") from None
        except UnicodeDecodeError:
            raise NamesError(f"--nodes: {path} is no UTF-8 text") from None
        if len(octets) > FILE_MAX:
            raise NamesError(f"--nodes: {path} is longer than {FILE_MAX} octets")
        for number, line in enumerate(content.splitlines(), 1):
            if word := line.partition("#")[0].strip():
                yield f"{path}:{number}", word
