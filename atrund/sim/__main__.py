# SPDX-License-Identifier: Apache-2.0
"""`python -m atrund.sim`: a simulated Telit module on pseudo-terminals, until SIGTERM or SIGINT."""

import argparse
import asyncio
import contextlib
import signal
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from atrund.sim.control import Control, ControlServer
from atrund.sim.module import SimModule
from atrund.sim.quirks import QuirkError, QuirkValue, listing, parse
from atrund.sim.state import MODELS, Options
from atrund.sim.terminal import LinkError, PseudoTerminal

CANNOT_START = 1
"""Exit status when a link or the control socket can't be made; argparse's own for bad arguments is 2."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until told to stop; return the exit status."""
    chosen = _parser().parse_args(arguments)
    options = Options(
        model=chosen.model,
        seed=chosen.seed,
        send_delay=chosen.send_delay,
        cops_test_delay=chosen.cops_delay,
        boot_delay=chosen.boot_delay,
        sm_slots=chosen.sm_slots,
        quirks=tuple(chosen.quirk),
    )
    try:
        asyncio.run(_serve(options, chosen.link, chosen.control))
    except (LinkError, OSError) as error:
        print(f"atrund.sim: {error}", file=sys.stderr)  # noqa: T201 - a program for a terminal
        return CANNOT_START
    return 0


async def _serve(options: Options, links: Sequence[Path], control: Path | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    module = SimModule(options)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(module.close)
        for link in links:
            stack.callback(_attach(module, link).close)
        if control is not None:
            server = ControlServer(Control(module), control)
            await server.start()
            stack.push_async_callback(server.close)
        for link in links:
            print(f"ready: {link}", flush=True)  # noqa: T201 - what whoever started it waits for
        await stop.wait()


def _attach(module: SimModule, link: Path) -> PseudoTerminal:
    """Give the module a port on a pseudo-terminal, which goes and comes with it."""
    terminal = PseudoTerminal(link)
    module.add_cable(terminal)
    terminal.start(module.add_port(terminal.write).feed)
    return terminal


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m atrund.sim",
        description="A simulated Telit module on pseudo-terminals.",
        epilog=f"quirks, for --quirk:\n{textwrap.indent(listing(), '  ')}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--link", action="append", type=Path, required=True, metavar="PATH", help="name of a port; may be given again"
    )
    parser.add_argument("--control", type=Path, metavar="SOCKET", help="where the control socket is made")
    parser.add_argument("--model", choices=sorted(MODELS), default=Options().model)
    parser.add_argument("--seed", type=int, default=0, help="another number is another IMEI and SIM")
    parser.add_argument(
        "--send-delay", type=_seconds, default=0.3, metavar="SECONDS", help="from Ctrl-Z to the reference of +CMGS"
    )
    parser.add_argument("--cops-delay", type=_seconds, default=10.0, metavar="SECONDS", help="+COPS=? takes that long")
    parser.add_argument("--boot-delay", type=_seconds, default=5.0, metavar="SECONDS", help="silence after #REBOOT")
    parser.add_argument("--sm-slots", type=_slots, default=20, metavar="COUNT", help="messages that the SIM holds")
    parser.add_argument(
        "--quirk",
        action="append",
        type=_quirk,
        default=[],
        metavar="NAME[=VALUE]",
        help="what some real modules do (see below); may be given again",
    )
    parser.add_argument("--list-quirks", action=_ListQuirks, nargs=0, help="show the quirks and exit")
    return parser


class _ListQuirks(argparse.Action):
    """Shows the quirks, as --help shows the help."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(listing())  # noqa: T201 - a program for a terminal
        parser.exit()


def _quirk(text: str) -> tuple[str, QuirkValue]:
    try:
        return parse(text)
    except QuirkError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 3600 seconds")
    return seconds


def _slots(text: str) -> int:
    slots = int(text)
    if not 1 <= slots <= 255:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and 255")
    return slots


if __name__ == "__main__":
    sys.exit(main())
