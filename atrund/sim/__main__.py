# SPDX-License-Identifier: Apache-2.0
"""`python -m atrund.sim`: a simulated Telit module on pseudo-terminals, until SIGTERM or SIGINT.

With `--peer-link` there are two of them, and what one sends by SMS the other one gets.
"""

import argparse
import asyncio
import contextlib
import signal
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from atrund.sim.centre import HELD_BACK, ServiceCentre, Weather
from atrund.sim.control import Control, ControlServer
from atrund.sim.module import SimModule
from atrund.sim.quirks import QuirkError, QuirkValue, listing, parse
from atrund.sim.state import MODELS, Options
from atrund.sim.terminal import LinkError, PseudoTerminal
from atrund.sms.pdu import PduError

CANNOT_START = 1
"""Exit status when a link or the control socket can't be made; argparse's own for bad arguments is 2."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until told to stop; return the exit status."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    if not chosen.peer_link:
        idle = [name for name in _OF_TWO if getattr(chosen, name) != parser.get_default(name)]
        if idle:
            parser.error(f"--{idle[0].replace('_', '-')} needs a second module: --peer-link")
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
        asyncio.run(_serve(options, chosen))
    except (LinkError, OSError, PduError) as error:
        print(f"atrund.sim: {error}", file=sys.stderr)  # noqa: T201 - a program for a terminal
        return CANNOT_START
    return 0


async def _serve(options: Options, chosen: argparse.Namespace) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        module = await _start(stack, options, chosen.link, chosen.control)
        if chosen.peer_link:
            other = replace(options, seed=options.seed + 1)
            peer = await _start(stack, other, chosen.peer_link, chosen.peer_control)
            weather = Weather(chosen.loss, chosen.repeat, chosen.reorder, chosen.delay)
            centre = ServiceCentre(module.clock, seed=options.seed, weather=weather)
            stack.callback(centre.close)
            centre.join(module.network, chosen.number)
            centre.join(peer.network, chosen.peer_number)
        for link in (*chosen.link, *chosen.peer_link):
            print(f"ready: {link}", flush=True)  # noqa: T201 - what whoever started it waits for
        await stop.wait()


async def _start(
    stack: contextlib.AsyncExitStack, options: Options, links: Sequence[Path], control: Path | None
) -> SimModule:
    """Start a module, which ends with the stack."""
    module = SimModule(options)
    stack.callback(module.close)
    for link in links:
        stack.callback(_attach(module, link).close)
    if control is not None:
        server = ControlServer(Control(module), control)
        await server.start()
        stack.push_async_callback(server.close)
    return module


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
    _add_network(parser)
    parser.add_argument("--list-quirks", action=_ListQuirks, nargs=0, help="show the quirks and exit")
    return parser


def _add_network(parser: argparse.ArgumentParser) -> None:
    """Add what joins two modules."""
    group = parser.add_argument_group(
        "two modules",
        "a second module of the same kind, joined to the first by a network: an SMS\n"
        "that one sends to the number of the other is delivered there, stamped by a\n"
        "service centre, and reported on if its sender asked for that; a share is from\n"
        '0 to 1; the control socket changes shares: {"op": "network", "loss": 0.1}',
    )
    group.add_argument(
        "--peer-link", action="append", type=Path, default=[], metavar="PATH", help="name of a port of the second one"
    )
    group.add_argument("--peer-control", type=Path, metavar="SOCKET", help="its control socket")
    group.add_argument("--number", default="+393468686711", help="of the first one (default %(default)s)")
    group.add_argument("--peer-number", default="+393461234567", help="of the second one (default %(default)s)")
    group.add_argument("--loss", type=_share, default=0.0, metavar="SHARE", help="of messages that are lost")
    group.add_argument("--repeat", type=_share, default=0.0, metavar="SHARE", help="of messages that come twice")
    group.add_argument(
        "--reorder",
        type=_share,
        default=0.0,
        metavar="SHARE",
        help=f"of messages that others overtake, by {HELD_BACK:g} s",
    )
    group.add_argument("--delay", type=_seconds, default=0.0, metavar="SECONDS", help="a message may take that long")


_OF_TWO: Final = ("peer_control", "number", "peer_number", "loss", "repeat", "reorder", "delay")
"""Options that mean nothing without a second module."""


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


def _share(text: str) -> float:
    share = float(text)
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return share


def _slots(text: str) -> int:
    slots = int(text)
    if not 1 <= slots <= 255:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and 255")
    return slots


if __name__ == "__main__":
    sys.exit(main())
