# SPDX-License-Identifier: Apache-2.0
"""`atrunctl fleet watch`: what happens at the nodes, a line each.

Rule of this file: a message is done with when its line is out, not before (see `fleet_link`).
"""

import argparse
import base64
import contextlib
import json
import random
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from atrund.ctl.fleet_broker import BadOption, guarded, node_of, prefix, subscribe, where
from atrund.ctl.fleet_gather import NoAnswer, read_record
from atrund.ctl.fleet_interrupts import Interrupts
from atrund.ctl.fleet_link import Link, LinkError, Message, TakenOver
from atrund.ctl.fleet_names import Wanted, wanted
from atrund.ctl.fleet_show import compact
from atrund.ctl.terminal import complain, printable
from atrund.ctl.times import time_of_day

TICK: Final = 0.25
"""Seconds after which Ctrl-C and the keep-alive are looked at."""
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 30.0
"""Seconds before a try to connect again, jittered: there may be many who watch."""
STABLE: Final = 10.0
"""Seconds after which a connection counts as one that held."""
APART_MAX: Final = 20
"""Nodes that are subscribed to one by one, which spares the broker the events of all others."""

TOPICS: Final = {
    "command": "event/command",
    "response": "event/response",
    "session": "event/session",
    "status": "status",
    "module": "module/state",
    "sms": "sms/received",
    "urc": "urc",
}
"""Kinds of events, and their topics by the contract."""


def run(args: argparse.Namespace) -> int:
    """Watch; return the exit code."""
    return guarded(lambda: _Watch(args).go())


def line_of(node: str, kind: str, record: Mapping[str, Any], *, utc: bool = False) -> str:
    """Return a record as a line for a terminal, its time local or in UTC."""
    match kind:
        case "command" | "response":
            what = [_word(record, "door"), _word(record, "peer"), _word(record, "cmd"), _state(record)]
            if kind == "response":
                what += [f"{record.get('duration_ms')} ms", _answer(record)]
        case "session":
            what = [_word(record, "door"), _word(record, "peer"), _state(record, "event")]
        case "status":
            what = [_state(record)]
        case _:
            what = [f"{key}={_plain(value)}" for key, value in record.items() if key not in _HEAD and value is not None]
    # Where a node does not know the time, it is when it was heard here.
    moment = f" {_time(record, utc=utc)}" if record.get("clock") == "ok" else f"~{_now(utc=utc)}"
    return printable("  ".join([moment, f"{node:16}", f"{kind:8}", *filter(None, what)]).rstrip())


class _Watch:
    """One watch, over as many connections as it takes."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._kinds = {TOPICS[kind]: kind for kind in args.events}
        self._wanted = wanted(args.nodes or ["*"])
        self._base = prefix(args)
        if args.keep and not args.client_id:
            raise BadOption("--client-id is missing: by that name the broker knows whom --keep is for")
        self._where = where(args, round(args.keep))
        self._printed = 0
        self._pause = FIRST_PAUSE
        if args.share and not self._where.version5:
            raise BadOption("--share: MQTT 3.1.1 has no shared subscriptions; --protocol 5 would be right")

    def go(self) -> int:
        link = self._connect()
        with Interrupts() as interrupts:
            try:
                while True:
                    since = time.monotonic()
                    try:
                        while not interrupts.came and not self._listen(link):
                            pass
                        break
                    except TakenOver:
                        raise
                    except LinkError as error:
                        complain(f"{error}; trying again")
                        if time.monotonic() - since > STABLE:
                            self._pause = FIRST_PAUSE
                        with interrupts.raising():
                            link = self._connect_again()
            except KeyboardInterrupt:
                return 0
        link.close()
        return 0

    def _connect_again(self) -> Link:
        while True:
            time.sleep(self._pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads watchers in time, guards nothing
            self._pause = min(self._pause * 2, LONGEST_PAUSE)
            with contextlib.suppress(LinkError):
                return self._connect()

    def _connect(self) -> Link:
        link = Link(self._where)
        nodes = _nodes(self._wanted)
        share = f"$share/{self._args.share}/" if self._args.share else ""
        topics = [f"{share}{self._base}/{node}/{topic}" for node in nodes for topic in self._kinds]
        # What is retained has not happened now; a change of it comes all the same.
        subscribe(link, topics, qos=1, retained=False)
        return link

    def _listen(self, link: Link) -> bool:
        """Print what happens next; returns whether that was all."""
        for happening in link.loop(TICK):
            if isinstance(happening, Message) and not happening.retained and (line := self._line(happening)):
                print(line)
                self._printed += 1
                if self._printed == self._args.count:
                    break
        sys.stdout.flush()
        return bool(self._args.count) and self._printed >= self._args.count

    def _line(self, message: Message) -> str:
        node, topic = node_of(message, self._base)
        kind = self._kinds.get(topic)
        if kind is None or not self._wanted.matches(node):
            return ""
        try:
            record = read_record(message.payload)
        except NoAnswer as error:
            return self._strange(node, topic, message.payload, str(error))
        if self._args.json:
            return compact({"node": node, "topic": topic, "record": record})
        return line_of(node, kind, record, utc=self._args.utc)

    def _strange(self, node: str, topic: str, payload: bytes, why: str) -> str:
        """A payload that is no record: anybody who may write there can send one."""
        if self._args.json:
            raw = base64.b64encode(payload[:_STRANGE_MAX]).decode("ascii")
            return compact({"node": node, "topic": topic, "record": None, "raw_b64": raw})
        shown = printable(payload[:_STRANGE_MAX].decode("utf-8", "backslashreplace"))
        return f"~{_now(utc=self._args.utc)}  {node:16}  {self._kinds[topic]:8}  no record ({why}): {shown}"


def _nodes(meant: Wanted) -> list[str]:
    """The level of the topics for the nodes."""
    return list(meant.names) if not meant.patterns and len(meant.names) <= APART_MAX else ["+"]


def _now(*, utc: bool) -> str:
    return time_of_day(datetime.now(UTC), utc=utc)


def _time(record: Mapping[str, Any], *, utc: bool) -> str:
    """When it happened by the node's own clock; what is no time is shown as it came."""
    try:
        return time_of_day(datetime.fromisoformat(_word(record, "ts")), utc=utc)
    except (ValueError, OverflowError):
        return _word(record, "ts")


def _state(record: Mapping[str, Any], key: str = "state") -> str:
    reason = record.get("reason")
    return f"{_word(record, key)} ({_plain(reason)})" if reason else _word(record, key)


def _answer(record: Mapping[str, Any]) -> str:
    lines = record.get("lines")
    parts = [_plain(line) for line in lines] if isinstance(lines, list) else []
    return " | ".join([*parts, _word(record, "final")] if record.get("final") else parts)


def _word(record: Mapping[str, Any], key: str) -> str:
    value = record.get(key)
    return "" if value is None else _plain(value)


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


_HEAD: Final = frozenset({"v", "session", "ts", "clock", "seq"})
_STRANGE_MAX: Final = 256
