# SPDX-License-Identifier: Apache-2.0
"""`atrunctl at`: one command line, run by the daemon like that of any other door."""

import argparse
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:  # what only runs need, runs import
    from atrund.control import Answer, FinalAnswer
    from atrund.ctl.link import Link

ACCEPT_WAIT: Final = 10.0
"""Seconds until the daemon says that it took the request, or did not."""

QUEUE_WAIT: Final = 600.0
"""Seconds that a request may wait for its turn (REQ-3), before its own deadline begins."""

END_WAIT: Final = 60.0
"""Seconds beyond both for the daemon to come back in step with the module (REQ-7)."""

CANCEL_WAIT: Final = 10.0
"""Seconds after Ctrl-C for the command to end; a second Ctrl-C ends it at once."""

EPILOG: Final = """\
The answer goes to standard output. What was refused, or did not end well, and why, goes to standard error; and how
to confirm what can cut the module off, which is undone otherwise (policy.local in atrund.toml).

exit codes:
  0  the answer ends with OK
  1  an error, a refusal, a timeout, or given up
  2  wrong usage
  3  the daemon cannot be reached, or went away

example:
  atrunctl at 'AT+CSQ;+COPS?'"""


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "at",
        help="run an AT command line",
        description="Runs an AT command line and prints its answer as it comes. Ctrl-C gives the command up.",
        epilog=EPILOG,
    )
    parser.add_argument("cmd", metavar="LINE", help="the command line; quote it, for the shell reads ; & # and $ too")
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=_seconds, default=300.0, help="its deadline, 1 to 3600 (default: 300)"
    )
    parser.add_argument("--json", action="store_true", help="print the daemon's messages as they are, one a line")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; return the exit code."""
    from atrund.control import AtRequest, CancelRequest, ControlError, encode
    from atrund.ctl.link import Unreachable, to_daemon
    from atrund.ctl.terminal import complain

    sent = False
    try:
        request = encode(AtRequest(args.cmd, timeout_ms=round(args.timeout * 1000)))
    except ControlError as error:
        complain(str(error))
        return 2
    try:
        with to_daemon(args.socket) as link:
            sent = True
            try:
                link.send(request)
                return _follow(link, args.timeout + QUEUE_WAIT + END_WAIT, as_json=args.json)
            except KeyboardInterrupt:
                complain("giving the command up")
                link.send(encode(CancelRequest()))
                return _follow(link, CANCEL_WAIT, as_json=args.json)
    except Unreachable as error:
        complain(str(error) + ("\nThe command may run or have run all the same." if sent else ""))
        return 3


def _follow(link: "Link", wait: float, *, as_json: bool) -> int:
    """Print what comes until the end of the command. After the first answer the next may take `wait` seconds."""
    from atrund.control import AcceptedAnswer, ControlError, ErrorAnswer, FinalAnswer, LineAnswer, decode_answer, encode
    from atrund.ctl.terminal import complain, printable

    patience = min(wait, ACCEPT_WAIT)
    while True:
        line = link.receive(patience)
        patience = wait
        try:
            answer: Answer = decode_answer(line)
        except ControlError as error:
            complain(f"the daemon sent what this atrunctl does not know: {error}")
            return 3
        if as_json:
            print(encode(answer).decode("ascii"), end="", flush=True)
        match answer:
            case LineAnswer(text):
                if not as_json:
                    print(printable(text), flush=True)
                    _tell_of_undo(text)
            case FinalAnswer():
                return _end(answer, as_json=as_json)
            case ErrorAnswer(message):
                complain(f"the daemon refused the request: {printable(message)}")
                return 1
            case AcceptedAnswer():
                pass
            case _:
                complain("the daemon answered another question")
                return 3


def _tell_of_undo(line: str) -> None:
    """Say what the answer's line means: whoever sees an OK alone takes the command for done."""
    number, comma, minutes = line.removeprefix("#ATRUNCONFIRM: ").partition(",")
    if line.startswith("#ATRUNCONFIRM: ") and comma:
        from atrund.ctl.terminal import complain, printable

        complain(printable(f"undone within {minutes} min, unless AT#ATRUNCONFIRM={number} comes before"))


def _end(answer: "FinalAnswer", *, as_json: bool) -> int:
    from atrund.ctl.terminal import complain, printable

    if answer.final is not None and not as_json:
        print(printable(answer.final), flush=True)
    if answer.state == "ok":
        return 0
    if answer.final is None or answer.reason is not None or answer.detail:
        reason = f" ({answer.reason})" if answer.reason else ""
        detail = f": {answer.detail}" if answer.detail else ""
        complain(printable(answer.state + reason + detail))
    return 1


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 1 to 3600")
    return seconds
