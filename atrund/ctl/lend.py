# SPDX-License-Identifier: Apache-2.0
"""`atrunctl lend`: the module's port for a program of the caller's own, while the daemon keeps its hands off it."""

import argparse
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:  # what only runs need, runs import
    import subprocess
    import threading

    from atrund.ctl.link import Link

TURN_WAIT: Final = 620.0
"""Seconds until the daemon lends: what runs on the port is let end first, and its turn waited for (REQ-3)."""

PLACE: Final = "{}"
"""What stands for the port in the command's arguments, as find(1) has it."""

VARIABLE: Final = "ATRUND_PORT"

SHELL_SIGNAL: Final = 128
"""The exit code of a program that a signal ended is this and the signal's number, as the shell counts."""

NOT_FOUND: Final = 127
NOT_RUN: Final = 126
"""Exit codes for a command that isn't there, or can't be run: the shell's."""


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "lend",
        help="run a program of yours with the module's port",
        usage="atrunctl lend [--for TIME] [--inhibit-mm] -- COMMAND [ARGUMENT ...]",
        description=f"""\
Has the daemon close the module's ports, and runs COMMAND with your own rights. The port is in its environment as
{VARIABLE} and stands for each {PLACE} in its arguments. The daemon takes the ports back when COMMAND has ended or the
time is over, as soon as nobody has them open any more; until then its doors answer "busy".
The exit code is COMMAND's.""",
        epilog="example:\n  atrunctl lend --for 30m -- picocom --baud 115200 {}",
    )
    parser.add_argument(
        "--for", dest="seconds", metavar="TIME", type=_seconds, default=600, help="at most: 90s, 10m, 2h (default: 10m)"
    )
    parser.add_argument(
        "--inhibit-mm", action="store_true", help="also have ModemManager leave the module alone meanwhile"
    )
    parser.add_argument("argv", metavar="COMMAND", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Borrow, run, give back; return the exit code."""
    import shutil

    from atrund.ctl.link import Unreachable, to_daemon
    from atrund.ctl.terminal import complain, printable

    argv = args.argv[1:] if args.argv[:1] == ["--"] else args.argv
    if not argv:
        args.parser.error("no COMMAND is given")
    if shutil.which(argv[0]) is None:
        complain(f"{printable(argv[0])}: not found, or not to be run")
        return NOT_FOUND
    try:
        with to_daemon(args.socket) as link:
            path = _borrow(link, args.seconds)
            if path is None:
                return 1
            return _run(link, argv, path, inhibit=args.inhibit_mm)
    except Unreachable as error:
        complain(str(error))
        return 3


def _borrow(link: "Link", seconds: int) -> str | None:
    """Return the port that was lent, None where it is not."""
    from atrund.control import ControlError, ErrorAnswer, LendRequest, LentAnswer, decode_answer, encode
    from atrund.ctl.terminal import complain, printable

    link.send(encode(LendRequest(seconds)))
    try:
        answer = decode_answer(link.receive(TURN_WAIT))
    except ControlError as error:
        complain(f"the daemon sent what this atrunctl does not know: {error}")
        return None
    match answer:
        case LentAnswer(path):
            return path
        case ErrorAnswer(message):
            complain(f"the daemon does not lend the port: {printable(message)}")
        case _:
            complain("the daemon answered another question")
    return None


def _run(link: "Link", argv: list[str], path: str, *, inhibit: bool) -> int:
    import os
    import subprocess
    import threading

    from atrund.ctl.inhibit import Inhibited, NotInhibitedError
    from atrund.ctl.terminal import complain, printable

    try:
        with Inhibited(path if inhibit else ""):
            command = [word.replace(PLACE, path) for word in argv]
            try:
                # The command is the caller's own, and runs with no rights but the caller's.
                program = subprocess.Popen(command, env={**os.environ, VARIABLE: path})  # noqa: S603
            except OSError as error:
                complain(f"{printable(command[0])}: {error.strerror}")
                return NOT_RUN
            done = threading.Event()
            listener = threading.Thread(target=_listen, args=(link, done))
            listener.start()
            code = _wait(program)
            done.set()
            link.hang_up()
            listener.join()
    except NotInhibitedError as error:
        complain(str(error))
        return 1
    return SHELL_SIGNAL - code if code < 0 else code


def _wait(program: "subprocess.Popen[bytes]") -> int:
    """Wait for the program; what would end us is for it to obey, and Ctrl-C reaches it by itself."""
    import signal

    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN),
        signal.SIGQUIT: signal.signal(signal.SIGQUIT, signal.SIG_IGN),
    }
    for number in (signal.SIGTERM, signal.SIGHUP):
        before[number] = signal.signal(number, lambda received, _frame: program.send_signal(received))
    try:
        return program.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _listen(link: "Link", done: "threading.Event") -> None:
    """Say what the daemon says while the program runs."""
    from atrund.control import ControlError, LentAnswer, decode_answer
    from atrund.ctl.link import Unreachable
    from atrund.ctl.terminal import complain

    while True:
        try:
            answer = decode_answer(link.receive(_FOR_EVER))
        except (Unreachable, ControlError):
            if not done.is_set():
                complain("the daemon is gone; started again, it will want the port")
            return
        if isinstance(answer, LentAnswer) and answer.over:
            complain("the time is over: the daemon takes the port back once it is closed")


_FOR_EVER: Final = 2 * 86_400.0
"""Seconds: longer than anything is lent for."""

_UNITS: Final = {"s": 1, "m": 60, "h": 3600}
_DAY: Final = 86_400
_DIGITS: Final = re.compile(r"[0-9]{1,5}")


def _seconds(text: str) -> int:
    number, unit = (text[:-1], text[-1]) if text[-1:] in _UNITS else (text, "s")
    seconds = int(number) * _UNITS[unit] if _DIGITS.fullmatch(number) else 0
    if not 1 <= seconds <= _DAY:
        raise argparse.ArgumentTypeError(f"{text!r} is no time from 1s to 24h; right is for example 90s, 10m, 2h")
    return seconds
