# SPDX-License-Identifier: Apache-2.0
"""Times as atrunctl shows them: local with their offset, or in UTC; JSON has them as they are kept."""

import argparse
from datetime import datetime


def add_utc(parser: argparse.ArgumentParser) -> None:
    """Add `--utc`, which is an option of `atrunctl` itself, to a subcommand that shows times."""
    # Without a default of its own it leaves alone what stands in front of the subcommand.
    parser.add_argument("--utc", action="store_true", default=argparse.SUPPRESS, help="times in UTC")


def shown(stamp: object, *, utc: bool) -> str:
    """Return a kept time (RFC 3339) for people: `2026-11-22 09:00:00.123+01:00`, with `utc` `2026-11-22 08:00:00.123Z`.

    What is no time is shown as it is, and nothing as `-`. The offset is the one of that moment, summer time or not.
    """
    try:
        return _text(datetime.fromisoformat(str(stamp)), utc=utc)
    except (ValueError, OverflowError):
        return str(stamp or "-")


def time_of_day(moment: datetime, *, utc: bool) -> str:
    """Return a moment without its day: `09:00:00.123+01:00`, with `utc` `08:00:00.123Z`."""
    return _text(moment, utc=utc).partition(" ")[2]


def _text(moment: datetime, *, utc: bool) -> str:
    from datetime import UTC

    if utc:
        return moment.astimezone(UTC).isoformat(" ", "milliseconds").replace("+00:00", "Z")
    return moment.astimezone().isoformat(" ", "milliseconds")
