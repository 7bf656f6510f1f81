# SPDX-License-Identifier: Apache-2.0
"""`atrunctl firewall`: from where one may connect over TCP (`#TCPATRUNFRWL`)."""

import argparse
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what only runs need, runs import
    from atrund.ctl.asking import Commands


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "firewall",
        help="who may connect over TCP: add, remove, list",
        description="Shows and changes the TCP door's IPv4 rules; IPv6 rules are for the configuration file.",
        epilog="examples:\n  atrunctl firewall add 10.0.0.0/8\n  atrunctl firewall add 217.0.0.0/255.0.0.0",
    )
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    for action, what, work in (("add", "let these in", _add), ("remove", "let these in no longer", _remove)):
        one = actions.add_parser(action, help=what)
        one.add_argument("rule", metavar="ADDRESS[/PREFIX]", type=_rule, help="IPv4, with a prefix length or mask")
        one.set_defaults(run=run, work=work)
    shown = actions.add_parser("list", help="show the rules")
    shown.add_argument("--json", action="store_true", help="print them as JSON")
    shown.set_defaults(run=run, work=_list)


def run(args: argparse.Namespace) -> int:
    """Do what was chosen; return the exit code."""
    from atrund.ctl.asking import guarded

    return guarded(args.work, args)


def _add(args: argparse.Namespace) -> int:
    from atrund.atrun.settings import FIREWALL_MAX
    from atrund.ctl.asking import Commands, Failed

    address, mask = args.rule
    with Commands(args.socket) as commands:
        rules = _rules(commands)
        if (address, mask) in rules:
            print(f"{address}/{mask} is there already")
            return 0
        if len(rules) >= FIREWALL_MAX:
            raise Failed(f"all {FIREWALL_MAX} rules are taken: atrunctl firewall list")
        commands.run(f'AT#TCPATRUNFRWL=1,"{address}","{mask}"')
    print(f"{address}/{mask} is let in")
    return 0


def _remove(args: argparse.Namespace) -> int:
    from atrund.ctl.asking import Commands, Failed

    address, mask = args.rule
    with Commands(args.socket) as commands:
        if (address, mask) not in _rules(commands):
            raise Failed(f"there is no rule {address}/{mask}: atrunctl firewall list")
        commands.run(f'AT#TCPATRUNFRWL=0,"{address}","{mask}"')
    print(f"{address}/{mask} is let in no longer")
    return 0


def _list(args: argparse.Namespace) -> int:
    from atrund.ctl.asking import Commands
    from atrund.ctl.terminal import printable, show_json

    with Commands(args.socket) as commands:
        rules = _rules(commands)
    if args.json:
        show_json([{"address": address, "mask": mask} for address, mask in rules])
        return 0
    for address, mask in rules:
        print(printable(f"{address}/{mask}"))
    return 0


def _rules(commands: "Commands") -> list[tuple[str, str]]:
    from atrund.at.syntax import arguments, unquote
    from atrund.ctl.asking import Failed

    rules = []
    for line in commands.run("AT#TCPATRUNFRWL?"):
        match [unquote(argument) for argument in arguments(line.partition(":")[2].strip())]:
            case [address, mask]:
                rules.append((address, mask))
            case _:
                raise Failed("the daemon's firewall is not one that this atrunctl knows", 3)
    return rules


def _rule(text: str) -> tuple[str, str]:
    """Read an address with its prefix length or mask, which may have holes; alone it is one host."""
    address, slash, mask = text.partition("/")
    try:
        if not slash:
            mask = "255.255.255.255"
        elif mask.isascii() and mask.isdecimal() and len(mask) <= len("32"):
            mask = str(IPv4Address((1 << 32) - (1 << (32 - int(mask)))))
        return str(IPv4Address(address)), str(IPv4Address(mask))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no IPv4 address with a prefix; 10.0.0.0/8 is") from None
