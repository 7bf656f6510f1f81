# SPDX-License-Identifier: Apache-2.0
"""`atrunctl nvm`: the settings, where each comes from, and what commands set as a file."""

import argparse
from typing import Final

from atrund.ctl.times import add_utc, shown

FORMAT: Final = "atrund settings 1"
"""What a file of settings begins with; the number is the form's."""

FILE_MAX: Final = 65536
"""Octets of a file that are read: one message to the daemon holds no more."""


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand."""
    nvm = subparsers.add_parser(
        "nvm",
        help="show, export, import and reset settings",
        description="What a command set counts before the configuration file's value, until it is reset.",
    )
    actions = nvm.add_subparsers(required=True, metavar="ACTION")

    show = actions.add_parser("show", help="show each setting, its secrets masked, and where it comes from")
    add_utc(show)
    show.add_argument("--json", action="store_true", help="print it as JSON; its times are in UTC")
    show.add_argument("keys", metavar="KEY", nargs="*", help="a setting, or a group as sms or tcp.firewall")
    show.set_defaults(run=run, work=_show)

    export = actions.add_parser("export", help="write what commands set")
    export.add_argument("--secrets", action="store_true", help="with passwords; FILE is needed then")
    export.add_argument("file", metavar="FILE", nargs="?", help="mode 0600; standard output if left out")
    export.set_defaults(run=run, work=_export)

    taken = actions.add_parser("import", help="set what a file of an export says, all of it or nothing")
    taken.add_argument("file", metavar="FILE", help="- for standard input")
    taken.set_defaults(run=run, work=_import)

    reset = actions.add_parser("reset", help="put settings back to the configuration file's values")
    reset.add_argument("keys", metavar="KEY", nargs="+", help="a setting, or a group as sms or tcp.firewall")
    reset.set_defaults(run=run, work=_reset)


def run(args: argparse.Namespace) -> int:
    """Do what was chosen; return the exit code."""
    from atrund.ctl.asking import guarded

    return guarded(args.work, args)


def _show(args: argparse.Namespace) -> int:
    from atrund.control import SettingsRequest
    from atrund.ctl.asking import ask
    from atrund.ctl.terminal import complain, printable, show_json

    told = ask(args.socket, SettingsRequest(tuple(args.keys)))
    if args.json:
        show_json(told)
        return 0
    rows = [row for row in _list(told, "settings") if isinstance(row, dict)]
    cells = [
        (printable(str(row.get("key"))), printable(_value(row.get("value"))), _origin(row, utc=args.utc))
        for row in rows
    ]
    widths = [max((len(cell[at]) for cell in cells), default=0) for at in range(2)]
    for key, value, origin in cells:
        print(f"{key:{widths[0]}}  {value:{min(widths[1], _VALUE_WIDTH)}}  {origin}".rstrip())
    if told.get("locked"):
        print("locked = true: only the configuration file counts")
    if told.get("failure"):
        complain(f"what commands set is not known: {printable(str(told['failure']))}")
    for wrong in _list(told, "unusable"):
        complain(f"stored, and not used: {printable(str(wrong))}")
    return 0


def _export(args: argparse.Namespace) -> int:
    import json

    from atrund.control import ExportRequest
    from atrund.ctl.asking import Failed, ask
    from atrund.ctl.terminal import complain, printable

    if args.secrets and args.file is None:
        raise Failed("--secrets: FILE is missing, for secrets are not put on a screen", 2)
    told = ask(args.socket, ExportRequest(args.secrets))
    text = json.dumps({"format": FORMAT, "settings": told.get("settings")}, indent=2) + "\n"
    if args.file is None:
        print(text, end="")
    else:
        _write(args.file, text)
    if args.secrets:
        complain(f"warning: {printable(args.file)} holds passwords in clear; only its owner may read it")
    left_out = ", ".join(map(str, _list(told, "left_out")))
    if left_out:
        complain(printable(f"left out, for they hold secrets (--secrets FILE gives them): {left_out}"))
    return 0


def _import(args: argparse.Namespace) -> int:
    from atrund.control import ImportRequest
    from atrund.ctl.asking import ask

    told = ask(args.socket, ImportRequest(_read(args.file)))
    print(f"{len(_list(told, 'imported'))} settings imported")
    return _failed(told)


def _reset(args: argparse.Namespace) -> int:
    from atrund.control import ResetRequest
    from atrund.ctl.asking import ask
    from atrund.ctl.terminal import printable

    told = ask(args.socket, ResetRequest(tuple(args.keys)))
    there = _list(told, "reset")
    print(
        printable(f"as the file says again: {', '.join(map(str, there))}" if there else "all follow the file already")
    )
    return _failed(told)


def _failed(told: dict[str, object]) -> int:
    from atrund.ctl.terminal import complain, printable

    if not told.get("failed"):
        return 0
    complain(f"set, but not all that runs could follow: {printable(str(told['failed']))}")
    return 1


def _read(path: str) -> dict[str, object]:
    """Read a file of settings: strict about its form, for the daemon is about what is in it."""
    import sys
    from pathlib import Path

    from atrund.ctl.asking import Failed

    try:
        if path == "-":
            octets = sys.stdin.buffer.read(FILE_MAX + 1)
        else:
            with Path(path).open("rb") as file:
                octets = file.read(FILE_MAX + 1)
    except OSError as error:
        raise Failed(f"{path}: {error.strerror}", 2) from None
    if len(octets) > FILE_MAX:
        raise Failed(f"{path}: more than {FILE_MAX} octets; no export is as long", 2)
    try:
        return _settings(octets)
    except (ValueError, RecursionError) as error:
        raise Failed(f"{path}: {error}", 2) from None


def _settings(octets: bytes) -> dict[str, object]:
    import json

    try:
        whole = json.loads(octets, object_pairs_hook=_no_twins)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"no JSON: {error}") from None
    if not isinstance(whole, dict) or whole.get("format") != FORMAT:
        raise ValueError(f'no export of settings; one begins with "format": "{FORMAT}"')
    if others := sorted(whole.keys() - {"format", "settings"}):
        raise ValueError(f"{others[0]!r} does not belong there; format and settings do")
    settings = whole.get("settings")
    if not isinstance(settings, dict):
        raise ValueError("settings: missing, or no table of settings")  # noqa: TRY004 - a mistake in a file
    return settings


def _no_twins(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values: dict[str, object] = {}
    for key, value in pairs:
        if key in values:
            raise ValueError(f"{key!r} stands there twice")
        values[key] = value
    return values


def _write(path: str, text: str) -> None:
    """Put a file in its place whole, never readable by others, not even while it is written."""
    import os
    from pathlib import Path
    from tempfile import mkstemp

    from atrund.ctl.asking import Failed

    target = Path(path)
    try:
        if target.exists() and not target.is_file():
            raise Failed(f"{path}: no ordinary file", 2)
        number, name = mkstemp(dir=target.parent, prefix=f".{target.name}.")  # 0600 from its first moment
        try:
            with open(number, "w", encoding="utf-8") as file:  # noqa: PTH123 - a descriptor has no path
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise Failed(f"{path}: {error.strerror}", 2) from None


def _list(told: dict[str, object], key: str) -> list[object]:
    value = told.get(key)
    return value if isinstance(value, list) else []


def _value(value: object) -> str:
    import json

    return "-" if value is None else json.dumps(value, ensure_ascii=False)


def _origin(row: dict[str, object], *, utc: bool) -> str:
    from atrund.ctl.terminal import printable

    if row.get("from") != "command":
        return printable(str(row.get("from")))
    hides = ", hides the file's" if row.get("hides") else ""
    return printable(f"command: {row.get('door')} {row.get('peer')}, {shown(row.get('ts'), utc=utc)}{hides}")


_VALUE_WIDTH: Final = 48
"""Longer values push their own line's end to the right, and nobody else's."""
