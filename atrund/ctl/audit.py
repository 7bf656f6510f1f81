# SPDX-License-Identifier: Apache-2.0
"""`atrunctl audit`: who did what through which door, and what was decided; `audit verify`: whether that was changed."""

import argparse
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

from atrund.control import DOORS
from atrund.ctl.times import add_utc, shown

LIMIT_DEFAULT: Final = 100
LIMIT_MAX: Final = 60_000
"""Rows to show: some pages of a terminal, and all that the daemon keeps."""

EPILOG: Final = """\
TIME is "2026-11-22 08:00", "2026-11-22", "08:00" (of today), "today", "yesterday", "now", or so long ago:
"-90s", "-30min", "-1h", "-7d". It is local time, UTC with --utc, unless an offset or a Z is behind it: a time can be
given as it is shown. Of an hour that there is twice, for the clocks went back, the first is meant without an offset.

"atrunctl audit verify --help" tells how to see whether the audit was changed.
"""


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand `audit`."""
    parser = subparsers.add_parser(
        "audit",
        help="show who did what, and what was decided",
        description="Shows what came in by which door, from whom, and what became of it, the newest last.",
        epilog=EPILOG,
    )
    # So that "-1h" behind an option is its value: argparse asks this whether a word is a number and no option.
    parser._negative_number_matcher = re.compile(r"^-\d")  # noqa: SLF001 - there is no other way to say so
    parser.add_argument("--since", metavar="TIME", help="only what is not older")
    parser.add_argument("--until", metavar="TIME", help="only what is not newer")
    parser.add_argument("--door", choices=DOORS, help="only what came by this door")
    parser.add_argument("--peer", metavar="WHO", help="only who is called so: number, address, login, MQTT <who>")
    parser.add_argument("--event", metavar="WHAT", help="only what is called so, as rejected, ok, login, refused")
    parser.add_argument("--id", metavar="ID", help="only what belongs to one request")
    parser.add_argument("--limit", metavar="N", type=_count, default=LIMIT_DEFAULT, help="the newest N; default 100")
    add_utc(parser)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON; its times are in UTC")
    parser.set_defaults(run=run)
    actions = parser.add_subparsers(metavar="verify", dest="action")
    verify = actions.add_parser(
        "verify",
        help="check the chain over the audit",
        description="Checks the chain of hashes over the audit (log.audit_chain), and whether it has a given head.",
    )
    verify.add_argument(
        "--head", metavar="N:HASH", type=_head, help="a head from `metrics`, the journal or an earlier verify"
    )
    verify.add_argument("--file", metavar="PATH", type=Path, help="a ledger's file or a copy of it; no daemon is asked")
    verify.add_argument("--json", action="store_true", help="print what was found as JSON")
    verify.set_defaults(run=run_verify)


def run(args: argparse.Namespace) -> int:
    """Ask and show; return the exit code."""
    from atrund.ctl.asking import guarded

    return guarded(_show, args)


def run_verify(args: argparse.Namespace) -> int:
    """Check and say what was found; return 1 where something was changed, or can't be shown not to have been."""
    from atrund.ctl.asking import guarded

    return guarded(_verify, args)


def moment(text: str, now: datetime) -> datetime:
    """Return the moment that somebody means, as journalctl(1) takes it; `now` has a time zone, which counts.

    Raises `ValueError`, which says what would be right.
    """
    from datetime import UTC, timedelta

    words = {"now": now, "today": _midnight(now), "yesterday": _midnight(_midnight(now) - timedelta(hours=12))}
    if text in words:
        return words[text]
    if ago := re.fullmatch(r"-(\d{1,6})(s|m|min|h|d|w)", text):
        return now - timedelta(seconds=int(ago[1]) * _UNITS[ago[2]])
    today = f"{now.date()} " if re.fullmatch(r"\d\d:\d\d(:\d\d)?", text) else ""
    try:
        given = datetime.fromisoformat(today + text)
    except ValueError:
        raise ValueError(f'{text!r} is no time; right is for example "2026-11-22 08:00", "today" or "-1h"') from None
    if given.tzinfo is not None:
        return given
    # The zone's offset is that of the moment that is meant, which summer time may have made another than now's.
    return given.replace(tzinfo=UTC) if now.tzinfo is UTC else given.astimezone()


def _midnight(day: datetime) -> datetime:
    from datetime import UTC

    first = day.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    return first.replace(tzinfo=UTC) if day.tzinfo is UTC else first.astimezone()


def _show(args: argparse.Namespace) -> int:
    from datetime import UTC

    from atrund.ctl.asking import Failed
    from atrund.ctl.terminal import complain, show_json

    now = datetime.now(UTC)
    now = now if args.utc else now.astimezone()
    since, until = _stamp(args.since, now), _stamp(args.until, now)
    if until and since > until:
        raise Failed(f"--since {args.since} is behind --until {args.until}", 2)
    entries, more = _entries(args, since, until)
    if args.json:
        show_json(entries)
    else:
        for entry in entries:
            print(_line(entry, utc=args.utc))
        if not entries:
            complain("no entry fits")
    if more:
        complain(f"there are older ones; --limit shows more than {args.limit}")
    return 0


def _line(entry: dict[str, object], *, utc: bool) -> str:
    """Return a row for people: when, where and who, what, why, how long, of which request, and the command line."""
    from atrund.ctl.terminal import printable

    told = {name: printable(str(value)) for name, value in entry.items() if value not in (None, "")}
    asker = " ".join(told[name] for name in ("door", "peer") if name in told)
    asker += f" ({told['who']})" if "who" in told else ""
    words = [shown(told.get("ts"), utc=utc), asker, told.get("event", "-")]
    words += [told[name] for name in ("reason", "rule") if name in told]
    words += [f"{told['duration_ms']} ms"] if "duration_ms" in told and "line" in told else []
    words += [f"id={told['rid']}"] if "rid" in told else []
    return "  ".join(words) + (f"\n    {told['line']}" if "line" in told else "")


def _stamp(text: str | None, now: datetime) -> str:
    """Return a time as it stands in the rows, in UTC with milliseconds."""
    from datetime import UTC

    from atrund.ctl.asking import Failed

    if text is None:
        return ""
    try:
        meant = moment(text, now).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise Failed(str(error), 2) from None
    return meant.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _entries(args: argparse.Namespace, since: str, until: str) -> tuple[list[dict[str, object]], bool]:
    """Return the newest rows, the newest last, asked for a page at a time, and whether there are more."""
    from atrund.control import AUDIT_PAGE, AuditRequest
    from atrund.ctl.asking import Failed, ask

    found: list[dict[str, object]] = []
    before, more = 0, True
    while more and len(found) < args.limit:
        limit = min(AUDIT_PAGE, args.limit - len(found))
        sought = (since, until, args.door or "", args.peer or "", args.event or "", args.id or "")
        told = ask(args.socket, AuditRequest(limit, before, *sought))
        page, more = told.get("entries"), bool(told.get("more"))
        if not isinstance(page, list) or not all(isinstance(one, dict) for one in page):
            raise Failed("the daemon's answer is none that this atrunctl knows", 3)
        found += page
        before = page[-1].get("n", 0) if page else 0
        if more and (not isinstance(before, int) or before < 1):
            raise Failed("the daemon's answer is none that this atrunctl knows", 3)
    return found[::-1], more


def _verify(args: argparse.Namespace) -> int:
    from atrund.ctl.terminal import complain, printable, show_json

    at, hashed = args.head or (0, "")
    told = _of_file(args.file, at) if args.file else _of_daemon(args.socket, at)
    if args.json:
        show_json(told)
    wrong, said = judge(told, at, hashed)
    if not args.json:
        for line in said:
            print(printable(line))
    for line in wrong:
        complain(printable(line))
    return 1 if wrong else 0


def judge(told: Mapping[str, object], at: int, hashed: str) -> tuple[list[str], list[str]]:
    """Return what is wrong, and what can be said, of what was found; `at` and `hashed` are a head held elsewhere, or 0.

    It claims no more than a chain of hashes can show.
    """
    wrong, said = _of_rows(told)
    if not at:
        return wrong, said + _WITHOUT_HEAD
    last, pruned = _number(told.get("last")), _number(str(told.get("anchor") or "").partition(":")[0])
    if told.get("found") == hashed:
        if pruned == at:
            said.append(f"Row {at} of the head was the last one dropped for room: it covers nothing that is there.")
        elif min([*_rows(told.get("wrong")), *_rows(told.get("strays"))], default=at + 1) > at:
            said.append(f"UNCHANGED up to row {at}: what is there of it was so when this head was noted.")
    elif at > max(last, pruned):
        wrong.append(f"CHANGED: row {at} of the head is not there any more: rows were taken off the end.")
    elif at < pruned:
        wrong.append(f"NOT SHOWN: row {at} of the head was dropped for room since; it takes a newer head.")
    else:
        wrong.append(f"CHANGED: row {at} has another hash than in the head: it, or what was before it, is another now.")
    return wrong, said + _OF_HEAD


def _of_rows(told: Mapping[str, object]) -> tuple[list[str], list[str]]:
    """Return the same of the rows alone, whatever the head."""
    rows, chained, faults, put_in = (_number(told.get(name)) for name in ("rows", "chained", "faults", "put_in"))
    pruned = _number(str(told.get("anchor") or "").partition(":")[0])
    uncovered = rows - chained - put_in
    wrong, said = [], []
    if chained:
        first, last, head = (told.get(name) for name in ("first", "last", "head"))
        said.append(f"{_are(chained)} chained, {first} to {last}; the head is {head}")
    elif told.get("on"):
        wrong.append("CHANGED: no row is chained, though the chain is on: rows, or their hashes, were taken away.")
    else:
        said.append("No row is chained: nothing can be shown. log.audit_chain = true begins a chain.")
    if uncovered:
        said.append(f"{_are(uncovered)} not in the chain, of a time when it was off: nothing covers them.")
    if pruned:
        said.append(
            f"What was before, up to row {pruned}, was dropped for room; what is there goes on from its last hash."
        )
    if put_in:
        which = _named(told.get("strays"), put_in)
        wrong.append(f"CHANGED: rows without a hash, put in, for the chain was not ended before them: {which}")
    if faults:
        which = _named(told.get("wrong"), faults)
        wrong.append(f"CHANGED: rows that don't fit, for they or what was before them are others now: {which}")
    return wrong, said


_OF_HEAD: Final = [
    "That is all that this can show: what came behind this head can be written anew, with hashes that fit,",
    "by whoever can write the ledger; a newer head that is noted elsewhere covers it.",
]
_WITHOUT_HEAD: Final = [
    "That is all that this can show: whoever can write the ledger can write all of it anew, with hashes that fit.",
    "With --head, a head that was noted elsewhere shows what was changed before it, and that alone.",
]


def _rows(given: object) -> list[int]:
    return [_number(row) for row in given] if isinstance(given, list) else []


def _named(given: object, count: int) -> str:
    rows = _rows(given)
    return ", ".join(map(str, rows)) + (" …" if count > len(rows) else "")


def _are(rows: int) -> str:
    return "1 row is" if rows == 1 else f"{rows} rows are"


def _number(value: object) -> int:
    return int(value) if isinstance(value, int | str) and str(value).isdecimal() else 0


def _of_daemon(path: str | None, at: int) -> dict[str, object]:
    from atrund.control import AuditVerifyRequest
    from atrund.ctl.asking import ask

    return ask(path, AuditVerifyRequest(at))


def _of_file(path: Path, at: int) -> dict[str, object]:
    from atrund.ctl.asking import Failed
    from atrund.ledger.chain import UnreadableError, check_file  # noqa: TID251 - as the daemon would read it

    try:
        return check_file(path, at).told()
    except UnreadableError as error:
        raise Failed(f"{path}: {error}; right is a ledger.db of this version, which you may read", 2) from None


_UNITS: Final = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def _count(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 5 or not 1 <= int(text) <= LIMIT_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to {LIMIT_MAX}")
    return int(text)


def _head(text: str) -> tuple[int, str]:
    found = re.fullmatch(r"([1-9][0-9]{0,14}):([0-9a-f]{64})", text, re.ASCII)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no head; right is a row's number, a colon, and 64 hex digits")
    return int(found[1]), found[2]
