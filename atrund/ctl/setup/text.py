# SPDX-License-Identifier: Apache-2.0
"""The file that `atrunctl setup` writes, as text, and what of it others set as well. Nothing is read or written."""

import json
from collections.abc import Iterator, Mapping, Sequence
from difflib import unified_diff
from typing import Final

FILE: Final = "50-setup.toml"
"""Its name in conf.d: what an administrator puts into later ones counts more."""

MAIN: Final = "atrund.toml"

HEAD: Final = """\
# Written by "atrunctl setup", which writes it anew when it is run again. Settings of your own go into another file of
# this folder; of two that set the same the one that comes later by name wins. atrund.toml has all options.
"""

MAIN_TEXT: Final = "# Settings are in conf.d beside this file; atrund.toml(5) tells all of them.\n"
"""What stands in the main file where there was none: the daemon wants one."""


def render(sections: Mapping[str, Mapping[str, object]]) -> str:
    """Return the text of these sections: strings, integers, booleans, and lists and tables of them."""
    parts = [HEAD]
    for name, values in sections.items():
        parts.append(f"\n[{name}]\n" + "".join(f"{key} = {_value(value)}\n" for key, value in values.items()))
    return "".join(parts)


def difference(old: str, new: str) -> str:
    """Return what changes, as a unified diff; empty for nothing."""
    return "".join(unified_diff(old.splitlines(keepends=True), new.splitlines(keepends=True), "now", "then"))


def keys_of(table: Mapping[str, object], above: str = "") -> Iterator[str]:
    """Return the dotted name of each value of nested tables; a list is one value."""
    for name, value in table.items():
        if isinstance(value, dict):
            yield from keys_of(value, f"{above}{name}.")
        else:
            yield above + name


def contested(
    ours: Mapping[str, object], others: Sequence[tuple[str, Mapping[str, object]]]
) -> Iterator[tuple[str, bool]]:
    """Say of each key of ours that others set who wins, and whether we lose.

    `others` are their names below conf.d, "" for the main file, and their tables.
    """
    for name, table in others:
        theirs = set(keys_of(table))
        for key in keys_of(ours):
            if key in theirs and name > FILE:
                yield f"{key}: conf.d/{name} sets it too, is read later, and wins", True
            elif key in theirs:
                yield f"{key}: {f'conf.d/{name}' if name else MAIN} sets it too; {FILE} is read later, and wins", False


def _value(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case list():
            return f"[{', '.join(map(_value, value))}]"
        case dict():
            return f"{{ {', '.join(f'{key} = {_value(one)}' for key, one in value.items())} }}"
        case _:
            # A basic string of TOML 1.0 is one of JSON but for DEL.
            return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
