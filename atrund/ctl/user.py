# SPDX-License-Identifier: Apache-2.0
"""`atrunctl user`: who may log in over TCP (`#TCPATRUNAUTH`)."""

import argparse
from typing import TYPE_CHECKING

from atrund.ctl.secret import option

if TYPE_CHECKING:  # what only runs need, runs import
    from atrund.ctl.asking import Commands


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "user",
        help="who may log in over TCP: add, remove, passwd, list",
        description="Shows and changes the logins of the TCP door. Passwords are asked for, or read from a file.",
    )
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    for action, what, work in (
        ("add", "add a login", _add),
        ("passwd", "give a login another password", _passwd),
        ("remove", "remove a login", _remove),
    ):
        one = actions.add_parser(action, help=what)
        one.add_argument("name", metavar="NAME")
        if work is not _remove:
            option(one)
        one.set_defaults(run=run, work=work)
    shown = actions.add_parser("list", help="show the names")
    shown.add_argument("--json", action="store_true", help="print them as JSON")
    shown.set_defaults(run=run, work=_list)


def run(args: argparse.Namespace) -> int:
    """Do what was chosen; return the exit code."""
    from atrund.ctl.asking import guarded

    return guarded(args.work, args)


def _add(args: argparse.Namespace) -> int:
    from atrund.atrun.settings import LOGINS_MAX
    from atrund.ctl.asking import Commands, Failed

    name = _quoted(args.name, "NAME")
    with Commands(args.socket) as commands:
        names = _names(commands)
        if args.name in names:
            raise Failed(f"{args.name} may log in already: atrunctl user passwd {args.name}")
        if len(names) >= LOGINS_MAX:
            raise Failed(f"all {LOGINS_MAX} logins are taken: atrunctl user list")
        commands.run(f"AT#TCPATRUNAUTH=1,{name},{_password(args)}")
    print(f"{args.name} may log in")
    return 0


def _passwd(args: argparse.Namespace) -> int:
    from atrund.ctl.asking import Commands

    name = _quoted(args.name, "NAME")
    with Commands(args.socket) as commands:
        _expect(args.name, commands)
        commands.run(f"AT#TCPATRUNAUTH=1,{name},{_password(args)}")
    print(f"{args.name} has another password")
    return 0


def _remove(args: argparse.Namespace) -> int:
    from atrund.ctl.asking import Commands

    name = _quoted(args.name, "NAME")
    with Commands(args.socket) as commands:
        _expect(args.name, commands)
        commands.run(f"AT#TCPATRUNAUTH=0,{name}")
    print(f"{args.name} may not log in any more")
    return 0


def _list(args: argparse.Namespace) -> int:
    from atrund.ctl.asking import Commands
    from atrund.ctl.terminal import printable, show_json

    with Commands(args.socket) as commands:
        names = _names(commands)
    if args.json:
        show_json(names)
        return 0
    for name in names:
        print(printable(name))
    return 0


def _expect(name: str, commands: "Commands") -> None:
    from atrund.ctl.asking import Failed

    if name not in _names(commands):
        raise Failed(f"there is no login {name}: atrunctl user list")


def _password(args: argparse.Namespace) -> str:
    from atrund.ctl.asking import Failed
    from atrund.ctl.secret import UnusableError, given

    try:
        return _quoted(given(args.password_file, args.name), "the password")
    except UnusableError as error:
        raise Failed(f"no password was set: {error}", 2) from None


def _quoted(text: str, what: str) -> str:
    """Return a name or a password as it stands in the command."""
    from atrund.atrun.settings import LOGIN_TEXT_MAX, fits_login
    from atrund.ctl.asking import Failed
    from atrund.ctl.secret import UnusableError, quotable

    try:
        quoted = quotable(text, what)
    except UnusableError as error:
        raise Failed(str(error), 2) from None
    if not fits_login(text):
        raise Failed(f"{what}: {len(text)} characters; 1 to {LOGIN_TEXT_MAX} are right", 2)
    return quoted


def _names(commands: "Commands") -> list[str]:
    from atrund.at.syntax import arguments, unquote

    lines = commands.run("AT#TCPATRUNAUTH?")
    return [unquote(arguments(line.partition(":")[2].strip())[0]) for line in lines if ":" in line]
