# SPDX-License-Identifier: Apache-2.0
"""`atrunctl explain`: what would happen to a command line at a door; nothing is run."""

import argparse

EPILOG = """\
examples:
  atrunctl explain --door sms --peer +393468686711 'AT+CFUN=4'
  atrunctl explain --door sms --peer +393468686711 'AT+CSQ #123456'   # the code is not looked at; nor is a seal
  atrunctl explain --door tcp --peer 192.0.2.7           # would the firewall let it in?
"""


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "explain",
        help="say what would become of a command line",
        description="Says what would become of each command, by which rule, and the way back. Runs nothing.",
        epilog=EPILOG,
    )
    doors = ["sms", "tcp", "mqtt", "local", "monitor"]
    parser.add_argument("--door", required=True, choices=doors, help="the door it comes by")
    parser.add_argument("--peer", metavar="P", help="who asks: a number, an address, a login, MQTT <who>")
    parser.add_argument("--digest", action="store_true", help="the SMS is one with a digest")
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    parser.add_argument("cmd", metavar="LINE", nargs="?", help="the command line; without one, ask the firewall")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Ask and show; return the exit code."""
    from atrund.ctl.asking import guarded

    return guarded(_explain, args)


def _explain(args: argparse.Namespace) -> int:
    from atrund.atrun.explain import render
    from atrund.control import ExplainRequest
    from atrund.ctl.asking import Failed, ask
    from atrund.ctl.terminal import printable, show_json

    if args.cmd is None and (args.door != "tcp" or args.peer is None):
        raise Failed("a LINE is missing; without one there is only the firewall: --door tcp --peer ADDRESS", 2)
    if args.digest and args.door != "sms":
        raise Failed("--digest: only an SMS has one", 2)
    told = ask(args.socket, ExplainRequest(args.door, args.cmd, args.peer, args.digest))
    if args.json:
        show_json(told)
        return 0
    notes = told.get("notes")
    try:
        lines = render(told)
    except (KeyError, TypeError):
        raise Failed("the daemon's answer is not one that this atrunctl knows", 3) from None
    for line in lines:
        print(printable(line))
    for note in notes if isinstance(notes, list) else ():
        print(printable(f"But: {note}."))
    return 0
