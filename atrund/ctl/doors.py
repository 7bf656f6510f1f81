# SPDX-License-Identifier: Apache-2.0
"""`atrunctl doors`: closes doors at once, whatever their settings say, and opens them again."""

import argparse

EPILOG = """\
A closed door stays closed until it is opened here, or the daemon is restarted; its setting is left as it is.
  sms   no SMS is run; those that come meanwhile are not run later
  tcp   nobody is listened to, and the session ends
  mqtt  requests are refused; the mirror goes on
What runs already runs to its end. "atrunctl status" shows which are closed.
"""


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "doors", help="close doors at once, and open them again", description="Closes or opens doors.", epilog=EPILOG
    )
    parser.add_argument("action", choices=["close", "open"])
    parser.add_argument("doors", nargs="+", choices=["sms", "tcp", "mqtt"])
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Ask for it; return the exit code."""
    from atrund.ctl.asking import guarded

    return guarded(_doors, args)


def _doors(args: argparse.Namespace) -> int:
    from atrund.control import DoorsRequest
    from atrund.ctl.asking import ask
    from atrund.ctl.terminal import complain, printable

    told = ask(args.socket, DoorsRequest(args.action, tuple(dict.fromkeys(args.doors))))
    closed = told.get("closed")
    shown = ", ".join(map(str, closed)) if isinstance(closed, list) else ""
    until = "until atrunctl doors open, or a restart of the daemon"
    print(printable(f"closed: {shown}, {until}" if shown else "closed: none"))
    for key in ("notes", "failed"):
        said = told.get(key)
        for text in said if isinstance(said, list) else ():
            complain(printable(str(text)))
    return 1 if told.get("failed") else 0
