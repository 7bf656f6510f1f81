# SPDX-License-Identifier: Apache-2.0
"""`atrunctl whitelist` and `atrunctl sms password`: who may send ATRUN SMS (`#SMSATWL`)."""

import argparse
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:  # what only runs need, runs import
    from atrund.ctl.asking import Commands

FULL: Final = "all {count} places are taken: atrunctl whitelist list"


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "whitelist",
        help="who may send ATRUN SMS: add, remove, list",
        description="Shows and changes the white list of SMS. Passwords: atrunctl sms password set.",
    )
    actions = parser.add_subparsers(required=True, metavar="ACTION")

    add = actions.add_parser("add", help="let a number send simple ATRUN SMS")
    add.add_argument("number", metavar="NUMBER", help="+393468686711; with * at its end all that begin so")
    _slot(add, "its place, 1 to 8; the first free one if left out")
    add.set_defaults(run=run, work=_add)

    remove = actions.add_parser("remove", help="take a number, or what is in a place, off the list")
    what = remove.add_mutually_exclusive_group(required=True)
    what.add_argument("number", metavar="NUMBER", nargs="?")
    _slot(what, "its place, 1 to 8")
    remove.set_defaults(run=run, work=_remove)

    shown = actions.add_parser("list", help="show the list; passwords are not shown")
    shown.add_argument("--json", action="store_true", help="print it as JSON")
    shown.set_defaults(run=run, work=_list)


def register_password(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `password` to the subcommand `sms`."""
    from atrund.ctl.secret import option

    parser = actions.add_parser("password", help="set a password for digest SMS")
    set_ = parser.add_subparsers(required=True, metavar="ACTION").add_parser(
        "set",
        help="set a password, asked for without showing it, or from a file",
        description="Puts a password of 16 characters on the white list, where two can be.",
    )
    _slot(set_, "the place to put it in, 1 to 8; the first free one if left out")
    option(set_)
    set_.set_defaults(run=run, work=_set_password)


def run(args: argparse.Namespace) -> int:
    """Do what was chosen; return the exit code."""
    from atrund.ctl.asking import guarded

    return guarded(args.work, args)


def _slot(parser: "argparse.ArgumentParser | argparse._MutuallyExclusiveGroup", what: str) -> None:
    parser.add_argument("--slot", metavar="N", type=int, choices=range(1, 9), help=what)


def _add(args: argparse.Namespace) -> int:
    from atrund.atrun.settings import NUMBER
    from atrund.ctl.asking import Commands, Failed

    if NUMBER.fullmatch(args.number) is None:
        raise Failed("no number: digits, with + before and * behind them if wanted, would be right", 2)
    with Commands(args.socket) as commands:
        entries = _entries(commands)
        if args.number in entries:
            print(f"{args.number} is on the list already, in place {entries.index(args.number) + 1}")
            return 0
        slot = _free(entries, args.slot)
        commands.run(f'AT#SMSATWL=0,{slot},0,"{args.number}"')
    print(f"{args.number} is in place {slot}")
    return 0


def _remove(args: argparse.Namespace) -> int:
    from atrund.ctl.asking import Commands, Failed
    from atrund.ctl.terminal import printable

    with Commands(args.socket) as commands:
        entries = _entries(commands)
        slot = args.slot
        if slot is None:
            if args.number not in entries:
                raise Failed(f"{printable(args.number)} is not on the list: atrunctl whitelist list")
            slot = entries.index(args.number) + 1
        elif not entries[slot - 1]:
            raise Failed(f"place {slot} is free already: atrunctl whitelist list")
        commands.run(f"AT#SMSATWL=1,{slot}")
    print(f"place {slot} is free")
    return 0


def _list(args: argparse.Namespace) -> int:
    from atrund.ctl.asking import Commands
    from atrund.ctl.terminal import printable, show_json

    with Commands(args.socket) as commands:
        entries = _entries(commands)
    if args.json:
        show_json([{"slot": slot, "entry": entry or None} for slot, entry in enumerate(entries, 1)])
        return 0
    for slot, entry in enumerate(entries, 1):
        print(f"{slot}  {printable(entry) or '-'}")
    return 0


def _set_password(args: argparse.Namespace) -> int:
    from atrund.atrun.settings import PASSWORD_LENGTH, PASSWORDS_MAX, fits_password
    from atrund.ctl.asking import Commands, Failed
    from atrund.ctl.secret import UnusableError, given, quotable

    with Commands(args.socket) as commands:
        entries = _entries(commands)
        there = [slot for slot, entry in enumerate(entries, 1) if entry == _PASSWORD]
        if len(there) >= PASSWORDS_MAX and args.slot not in there:
            places = " or ".join(map(str, there))
            raise Failed(f"there are {PASSWORDS_MAX} passwords already: --slot {places} replaces one")
        slot = args.slot if args.slot in there else _free(entries, args.slot)
        try:
            password = given(args.password_file, "digest SMS")
            if not fits_password(password):
                raise UnusableError(f"it has {len(password)} characters; {PASSWORD_LENGTH} printable ones are right")
            quoted = quotable(password, "the password")
        except UnusableError as error:
            raise Failed(f"no password was set: {error}", 2) from None
        commands.run(f"AT#SMSATWL=0,{slot},1,{quoted}")
    print(f"the password is in place {slot}")
    return 0


def _free(entries: list[str], wanted: int | None) -> int:
    from atrund.ctl.asking import Failed

    if wanted is None:
        if "" not in entries:
            raise Failed(FULL.format(count=len(entries)))
        return entries.index("") + 1
    if entries[wanted - 1]:
        raise Failed(f"place {wanted} is taken: atrunctl whitelist remove --slot {wanted} frees it")
    return wanted


def _entries(commands: "Commands") -> list[str]:
    """Return what is in each place: a number, `(password)`, or nothing."""
    from atrund.at.syntax import arguments, unquote
    from atrund.atrun.settings import WHITE_LIST_MAX
    from atrund.ctl.asking import Failed

    entries = []
    for line in commands.run("AT#SMSATWL?"):
        kind, *rest = arguments(line.partition(":")[2].strip()) or ("",)
        entries.append("" if not rest else _PASSWORD if kind == "1" else unquote(rest[0]))
    if len(entries) != WHITE_LIST_MAX:
        raise Failed("the daemon's white list is not one that this atrunctl knows", 3)
    return entries


_PASSWORD: Final = "(password)"
