# SPDX-License-Identifier: Apache-2.0
"""What subcommands put out, and how: no text of the far side may steer the terminal that it is read on."""

import sys


def printable(text: str) -> str:
    r"""Return the text with all that is no visible character as an escape (`\n`, `\x1b`, `\u202e`), on one line.

    A backslash stays as it is: AT commands have them, and what is shown can be typed again.
    """
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def complain(text: str) -> None:
    """Print an error of one or more lines of ours to standard error; escape what the caller quotes in it."""
    print(f"atrunctl: {text}", file=sys.stderr)


def show_json(value: object) -> None:
    """Print a value as JSON for people and programs; other than ASCII is escaped."""
    import json

    print(json.dumps(value, indent=2))


def show(sections: dict[str, object]) -> None:
    """Print named values, aligned: first those of no section, then each section (a table of its own) under its name."""
    plain = {name: value for name, value in sections.items() if not isinstance(value, dict)}
    tables = {name: value for name, value in sections.items() if isinstance(value, dict)}
    blocks = [_rows(plain, "")] if plain else []
    blocks += [[printable(name), *_rows(_flat(table), "  ")] for name, table in tables.items()]
    print("\n\n".join("\n".join(block) for block in blocks))


def _flat(table: dict[str, object], prefix: str = "") -> dict[str, object]:
    """Put the tables in a table into it, under `outer.inner`."""
    flat: dict[str, object] = {}
    for name, value in table.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _rows(table: dict[str, object], indent: str) -> list[str]:
    """Return a line for each value; a list of lists or tables has a line for each thing in it."""
    names = [printable(name) for name in table]
    width = max(map(len, names), default=0)
    rows = []
    for name, value in zip(names, table.values(), strict=True):
        for index, item in enumerate(_items(value)):
            rows.append(f"{indent}{'' if index else name:{width}}  {_value(item)}")
    return rows


def _items(value: object) -> list[object]:
    if not isinstance(value, list) or not any(isinstance(item, list | dict) for item in value):
        return [value]
    return [thing for item in value for thing in (item if isinstance(item, list) else [item])] or [None]


def _value(value: object) -> str:
    if value in (None, "", [], {}):
        return "-"
    match value:
        case bool():
            return "yes" if value else "no"
        case list():
            return ", ".join(_value(item) for item in value)
        case dict():
            return "  ".join(f"{printable(str(name))}={_value(item)}" for name, item in value.items())
        case _:
            return printable(str(value))
