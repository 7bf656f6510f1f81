# SPDX-License-Identifier: Apache-2.0
"""The program atrunctl: its subcommands, their errors and exit codes. A subcommand is imported when asked for."""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final, NoReturn

COMMANDS: Final = {
    "setup": "make a first configuration",
    "at": "run an AT command line",
    "status": "show the state of the daemon",
    "lend": "run a program of yours with the module's port",
    "audit": "show who did what, and what was decided",
    "doctor": "examine modules, ports and the daemon",
    "explain": "say what would become of a command line",
    "doors": "close doors at once, and open them again",
    "nvm": "show, export, import and reset settings",
    "whitelist": "who may send ATRUN SMS: add, remove, list",
    "user": "who may log in over TCP: add, remove, passwd, list",
    "firewall": "who may connect over TCP: add, remove, list",
    "dial": "work at a TCP door somewhere",
    "listen": "take calls of modules and daemons",
    "fleet": "run commands on many nodes by MQTT, or watch them",
    "sms": "short messages in PDU form; set a password for them",
    "sim": "steer a simulated module",
}
"""The subcommands, each a module here of that name with `register(subparsers)`, and what they are for."""

EPILOG = """\
exit codes:
  0  it worked
  1  the answer was an error, a refusal or a timeout
  2  wrong usage or bad input
  3  the daemon or the simulator cannot be reached

"atrunctl COMMAND --help" tells more about a command.
"""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors say what was probably meant. Options are not to be abbreviated."""

    def __init__(self, **options: object) -> None:
        options.setdefault("allow_abbrev", False)
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(**options)  # type: ignore[arg-type]  # whatever argparse hands to a subcommand's parser

    def error(self, message: str) -> NoReturn:
        """Print usage, the error and where to read on; exit with 2."""
        self.print_usage(sys.stderr)
        self.exit(2, f"{self.prog}: {message}{_guess(message)}\nTry: {self.prog} --help\n")


def build(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """Return the parser for these arguments; a subcommand leaves its handler `run(args) -> int` behind.

    A subcommand whose name is not among the arguments is only a name and a line of help: importing all is slow.
    """
    parser = Parser(prog="atrunctl", description="Talks to the daemon atrund.", epilog=EPILOG)
    parser.add_argument(
        "--socket",
        metavar="PATH",
        help="the daemon's control socket (default: $ATRUND_SOCKET, else /run/atrund.sock)",
    )
    parser.add_argument(
        "-n",
        "--name",
        dest="one_of_several",  # many a subcommand has a `name` of its own
        metavar="NAME",
        help="one daemon of several: the same as --socket /run/atrund-NAME.sock",
    )
    parser.add_argument(
        "--utc", action="store_true", help="times in UTC; else they are local, with their offset (also behind COMMAND)"
    )
    subparsers = parser.add_subparsers(metavar="COMMAND", dest="command", required=True)
    for name, what in COMMANDS.items():
        if name in arguments:
            import_module(f"atrund.ctl.{name}").register(subparsers)
        else:
            subparsers.add_parser(name, help=what)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = build(arguments)
    args = parser.parse_args(arguments)
    name = args.one_of_several
    if name is not None:
        if args.socket is not None or not name or "/" in name:
            parser.error("argument -n/--name: a name alone, and no --socket beside it")
        args.socket = f"/run/atrund-{name}.sock"
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read the output has gone (`| head`): nothing is left to say, at exit neither.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("atrunctl: interrupted", file=sys.stderr)
        return 1
    return code


def _guess(message: str) -> str:
    found = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
    if not found:
        return ""
    from difflib import get_close_matches

    known = [choice.strip(" '") for choice in found[2].split(",")]
    near = get_close_matches(found[1], known, n=1)
    return f"\nDid you mean {near[0]!r}?" if near else ""


if __name__ == "__main__":
    sys.exit(main())
