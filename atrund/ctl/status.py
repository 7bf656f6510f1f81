# SPDX-License-Identifier: Apache-2.0
"""`atrunctl status`: what the daemon says about itself, its module and its doors."""

import argparse
from typing import Final

ANSWER_WAIT: Final = 10.0
"""Seconds for an answer that the daemon gives from memory."""


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "status", help="show the state of the daemon", description="Shows the state of the daemon, module and doors."
    )
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    parser.set_defaults(run=run)


def _add_others(status: dict[str, object]) -> None:
    """Add who else is seen at the daemon's port: whoever asks may see more than the daemon does, root everything."""
    from pathlib import Path

    from atrund.usb.holders import others

    module = status.get("module")
    if isinstance(module, dict) and isinstance(path := module.get("path"), str) and path:
        told = module.get("others")
        seen = [*(told if isinstance(told, list) else ()), *others(Path(path))]
        if seen:
            module["others"] = list(dict.fromkeys(seen))


def run(args: argparse.Namespace) -> int:
    """Ask and show; return the exit code."""
    from atrund.control import ControlError, ErrorAnswer, StatusAnswer, StatusRequest, decode_answer, encode
    from atrund.ctl.link import Unreachable, to_daemon
    from atrund.ctl.terminal import complain, printable, show, show_json

    try:
        with to_daemon(args.socket) as link:
            link.send(encode(StatusRequest()))
            answer = decode_answer(link.receive(ANSWER_WAIT))
    except Unreachable as error:
        complain(str(error))
        return 3
    except ControlError as error:
        complain(f"the daemon sent what this atrunctl does not know: {error}")
        return 3
    match answer:
        case StatusAnswer(status):
            _add_others(status)
            (show_json if args.json else show)(status)
            return 0
        case ErrorAnswer(message):
            complain(f"the daemon refused the request: {printable(message)}")
            return 1
        case _:
            complain("the daemon answered another question")
            return 3
