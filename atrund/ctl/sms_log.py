# SPDX-License-Identifier: Apache-2.0
"""`atrunctl sms log`: what came by SMS, from whom, what was decided and why, and where it is now."""

import argparse
from typing import Final

from atrund.ctl.times import add_utc, shown

LOG_DEFAULT: Final = 50
LOG_MAX: Final = 1000
"""Entries to show: some pages of a terminal, and all that the daemon remembers."""


def register_log(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `log` to the subcommand `sms`."""
    parser = actions.add_parser(
        "log",
        help="what came, from whom, what was decided and why",
        description="Shows the SMS that came, the newest last, with the text of those that were moved off the module.",
    )
    parser.add_argument("--limit", metavar="N", type=_count, default=LOG_DEFAULT, help="the newest N; default 50")
    add_utc(parser)
    parser.add_argument("--json", action="store_true", help="print them as JSON; its times are in UTC")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Ask and show; return the exit code."""
    from atrund.ctl.asking import guarded

    return guarded(_show, args)


def _show(args: argparse.Namespace) -> int:
    from atrund.ctl.terminal import printable, show_json

    entries = _entries(args.socket, args.limit)
    if args.json:
        show_json(entries)
        return 0
    for entry in entries:
        told = {name: printable(str(value)) for name, value in entry.items() if value not in (None, "")}
        ended = told.get("outcome") or told.get("fate") or "-"
        line = f"{shown(told.get('ts'), utc=args.utc)}  {told.get('peer', '-')}  {told.get('verdict', '-')}  {ended}"
        line += f"  {told['why']}" if "why" in told else ""
        print(line + (f"  id={told['rid']}" if "rid" in told else ""))
        for name, head in (("text", ""), ("raw", "hex ")):
            if name in told:
                print(f"    {head}{told[name]}")
    return 0


def _entries(path: str | None, limit: int) -> list[dict[str, object]]:
    """Return the newest entries, the newest last, asked for a page at a time."""
    from atrund.control import LOG_PAGE, SmsLogRequest
    from atrund.ctl.asking import Failed, ask

    found: list[dict[str, object]] = []
    before = 0
    while len(found) < limit:
        page = ask(path, SmsLogRequest(min(LOG_PAGE, limit - len(found)), before)).get("entries")
        if not isinstance(page, list) or not all(isinstance(one, dict) for one in page):
            raise Failed("the daemon's answer is none that this atrunctl knows", 3)
        found += page
        if len(page) < LOG_PAGE:
            break
        before = page[-1].get("n", 0)
        if not isinstance(before, int) or before < 1:
            raise Failed("the daemon's answer is none that this atrunctl knows", 3)
    return found[::-1]


def _count(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 4 or not 1 <= int(text) <= LOG_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to {LOG_MAX}")
    return int(text)
