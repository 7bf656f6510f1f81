# SPDX-License-Identifier: Apache-2.0
"""`atrunctl fleet run`: one command line to many nodes, their answers, and who did not answer."""

import argparse
import base64
import contextlib
import json
import math
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from atrund.at.syntax import LineRefused, Op, parse
from atrund.atrun.ask import BODY_MAX
from atrund.atrun.hazards import hazard_of
from atrund.ctl import fleet_show
from atrund.ctl.fleet_broker import STATUS_APART, BadOption, forbidden, guarded, node_of, prefix, subscribe, where, who
from atrund.ctl.fleet_gather import Gather, NoAnswer, Node, read_record
from atrund.ctl.fleet_interrupts import Interrupts
from atrund.ctl.fleet_link import Link, LinkError, Message, Refused, TakenOver, Unheard
from atrund.ctl.fleet_names import NODES_MAX, in_order, wanted
from atrund.ctl.terminal import complain, printable
from atrund.records import VERSION

TICK: Final = 0.25
"""Seconds after which Ctrl-C and the terminal are looked at again."""
MARGIN: Final = 5.0
"""Seconds by which a command's own deadline is shorter than ours, so that its `timeout` still comes in time."""
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 5.0
"""Seconds before a try to connect again: somebody waits for this."""
STABLE: Final = 10.0
SHORT_MAX: Final = 3
"""Seconds after which a connection counts as one that held, and how many that did not are by chance: a broker may end
one for another of the same name, and not every one says so (mosquitto 2.0.11)."""
CANCEL_WAIT: Final = 10.0
"""Seconds for the answers of nodes that were told to give the command up; a second Ctrl-C ends it at once."""

HARMLESS: Final = frozenset(
    "I +CCID +CEER +CESQ +CGMI +CGMM +CGMR +CGSN +CIMI +CNUM +CSQ +GCAP +GMI +GMM +GMR +GSN "
    "#CCID #CGMI #CGMM #CGMR #CGSN #CIMI #MONI #RFSTS #SERVINFO #SWPKGV".split()
)
"""Commands that only tell something when they are executed (V.250 6.1, 3GPP TS 27.007 5, Telit's own)."""


def run(args: argparse.Namespace) -> int:
    """Ask, gather and print; return the exit code."""
    return guarded(lambda: _Run(args).go())


def only_reads(line: str) -> bool:
    """Whether nothing can change by a command line, as far as its words tell. Raises `LineRefused`."""
    return all(
        (command.op in {Op.READ, Op.TEST} or (command.op is Op.EXECUTE and command.name in HARMLESS))
        and hazard_of(command) is None
        for command in parse(line)
    )


class _Run:
    """One run. Everything that can be wrong with its options is refused before a connection is made."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._wanted = wanted(args.nodes)
        try:
            self._asks = not args.yes and not only_reads(args.cmd)
        except LineRefused as error:
            raise BadOption(f"the command line: {error.detail}") from None
        self._base = prefix(args)
        self._who = who(args)
        self._where = where(args)
        self._run = uuid4().hex
        # An asker may read what is below at/response under its own name, by the shipped access control.
        self._reply = f"at/response/{self._who or self._run}"
        self._body = _body(args)
        self._progress = fleet_show.Progress()
        self._cut_short = False
        """Whether somebody did not wait for the end."""
        self._connected_at = 0.0
        self._short = 0
        """How many connections in a row did not hold."""
        self._online: dict[str, bool | None] = {}
        self._gather = Gather({}, run=self._run, deadline=args.deadline)

    def go(self) -> int:
        link = self._connect()
        if self._wanted.patterns:
            self._look_around(link)
        names = self._wanted.among(self._online)
        if not names:
            link.close()
            return self._nobody()
        skipped = frozenset() if self._args.ask_offline else self._offline(names)
        if self._asks and len(names) - len(skipped) > 1:
            # The broker would not wait for a person as long.
            link.close()
            if not self._confirmed([name for name in names if name not in skipped]):
                return 2
            link = self._connect()
        self._gather = Gather(
            {name: self._online.get(name) for name in names},
            run=self._run,
            deadline=self._args.deadline,
            rate=self._args.rate,
            skipped=skipped,
        )
        with Interrupts() as interrupts:
            self._work(link, interrupts)
        self._progress.clear()
        return self._report()

    def _connect(self) -> Link:
        link = Link(self._where)
        subscribe(link, [f"{self._base}/+/{self._reply}"], qos=1)
        self._connected_at = time.monotonic()
        # With QoS 1 mosquitto drops what goes beyond its queue of a thousand.
        if (refused := link.subscribe(self._statuses(), qos=0, retained=True)) and self._wanted.patterns:
            link.close()
            raise forbidden(refused)
        return link

    def _statuses(self) -> list[str]:
        """The topics of the nodes' `status`."""
        if self._wanted.patterns or len(self._wanted.names) > STATUS_APART:
            return [f"{self._base}/+/status"]
        return [f"{self._base}/{name}/status" for name in self._wanted.names]

    def _look_around(self, link: Link) -> None:
        """Take note of all whose status the broker keeps: it does not say when that was all of them."""
        quiet_at = time.monotonic() + self._args.gather
        while (left := quiet_at - time.monotonic()) > 0:
            known = len(self._online)
            for happening in link.loop(left):
                if isinstance(happening, Message):
                    self._take(happening)
            if len(self._online) > known:
                quiet_at = time.monotonic() + self._args.gather

    def _take(self, message: Message) -> Node | None:
        """Take what a node says; return it if this was its answer."""
        name, below = node_of(message, self._base)
        if below == self._reply:
            return self._gather.heard(name, message.payload, time.monotonic())
        if below == "status":
            online = _online(message.payload)
            if name in self._online or (online is not None and len(self._online) < NODES_MAX):
                self._online[name] = online
            self._gather.status(name, online=online)
            if online and not message.retained:
                self._gather.born(name, time.monotonic())
        return None

    def _offline(self, names: list[str]) -> frozenset[str]:
        named = set(self._wanted.names)
        return frozenset(name for name in names if name not in named and self._online.get(name) is False)

    def _nobody(self) -> int:
        meant = ", ".join(self._wanted.patterns)
        if self._online:
            there = fleet_show.some(sorted(self._online, key=in_order))
            complain(f"no node's name fits {meant}; there are {there}")
        else:
            complain(
                f"no node's name fits {meant}: the broker shows no {self._base}/+/status at all.\n"
                "Are there nodes under that --prefix, and may this user read that?"
            )
        return 2

    def _confirmed(self, names: list[str]) -> bool:
        what = f"{printable(self._args.cmd)} may change something at {len(names)} nodes ({fleet_show.some(names)})"
        if not sys.stdin.isatty():
            complain(f"{what},\nand there is no terminal to ask at; --yes would be right")
            return False
        print(f"{what}.\nGo on? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() in {"y", "yes"}:
            return True
        complain("nothing was sent")
        return False

    def _work(self, link: Link | None, interrupts: Interrupts) -> None:
        """Ask and gather until everybody has answered, it is too late, or somebody has had enough."""
        end = math.inf
        try:
            while link is not None and not self._gather.done and time.monotonic() < end:
                try:
                    if interrupts.came and end == math.inf:
                        if not self._args.cancel:
                            break
                        self._gather.stop_asking()
                        self._cancel(link)
                        end = time.monotonic() + CANCEL_WAIT
                    self._turn(link)
                except TakenOver as error:
                    self._progress.clear()
                    complain(str(error))
                    link = None
                except LinkError as error:
                    self._progress.clear()
                    complain(f"{error}; trying again")
                    with interrupts.raising():
                        link = self._connect_again()
        except KeyboardInterrupt:
            link = None  # whose locks it may hold
            self._cut_short = True
        self._cut_short |= interrupts.came
        self._gather.give_up()
        if link is not None:
            link.close()

    def _turn(self, link: Link) -> None:
        gather, now = self._gather, time.monotonic()
        gather.tick(now)
        while link.room > 0 and (node := gather.next_to_ask(now)) is not None:
            self._ask(link, node, self._left(node, now))
            gather.asked(node, now)
        self._listen(link, TICK if link.room <= 0 else min(TICK, gather.wait(now)))
        self._progress.show(gather, time.monotonic())

    def _listen(self, link: Link, seconds: float) -> None:
        for happening in link.loop(seconds):
            match happening:
                case Message():
                    answered = self._take(happening)
                    if answered is not None and self._args.json:
                        self._progress.clear()
                        print(fleet_show.as_json(answered), flush=True)
                case Unheard(tag) if tag in self._gather.nodes:
                    self._gather.nobody(tag)
                case Refused(tag, why) if tag in self._gather.nodes:
                    self._gather.refused(tag, why)
                case _:
                    pass

    def _ask(self, link: Link, node: Node, left: float | None) -> None:
        """Send a node its request, which it is to run within `left` seconds."""
        expiry = None if left is None else max(1, math.ceil(left))
        link.publish(
            self._topic(node, "at/request"),
            self._payload(node, left),
            tag=node.name,
            expiry=expiry,
            reply_to=self._reply_to(node),
        )

    def _left(self, node: Node, now: float) -> float | None:
        """Return the seconds in which a node may begin to run it; None without a bound.

        MQTT 5 has the broker count them. In 3.1.1 the node needs the time of day for it, which not all have: there it
        is sent only where somebody wants it, and what waited at the broker the nodes refuse themselves (MQ-2).
        """
        default = self._args.deadline if self._where.version5 else 0.0
        span: float = default if self._args.expires is None else self._args.expires
        asked_at = now if node.asked_at is None else node.asked_at
        return span - (now - asked_at) if span else None

    def _payload(self, node: Node, left: float | None) -> bytes:
        """Return a request of the contract."""
        deadline: float = self._args.deadline
        timeout = max(deadline - MARGIN, deadline / 2) if self._args.timeout is None else self._args.timeout
        request: dict[str, Any] = {
            "v": VERSION,
            "id": node.id,
            "cmd": self._args.cmd,
            "timeout_ms": round(min(max(timeout, 1.0), 3600.0) * 1000),
            "reply_to": self._reply_to(node),
            **self._body,
        }
        if left is not None and not self._where.version5:
            moment = datetime.now(UTC) + timedelta(seconds=left)
            request["expires"] = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return json.dumps(request, separators=(",", ":")).encode()

    def _reply_to(self, node: Node) -> str:
        """Where a node answers: below its own topics, which no node has to be told to allow."""
        return f"{self._base}/{node.name}/{self._reply}"

    def _topic(self, node: Node, what: str) -> str:
        return f"{self._base}/{node.name}/{what}" + (f"/{self._who}" if self._who else "")

    def _cancel(self, link: Link) -> None:
        self._progress.clear()
        nodes = self._gather.open
        complain(f"having {len(nodes)} nodes give the command up; Ctrl-C again does not wait for them")
        for node in nodes:
            payload = json.dumps({"id": node.id}).encode()
            while link.room <= 0:
                self._listen(link, TICK)
            link.publish(self._topic(node, "at/cancel"), payload, tag="")

    def _connect_again(self) -> Link | None:
        """Return a new connection, None when it is too late for all of them."""
        gather, since = self._gather, time.monotonic()
        gather.lost()
        if since - self._connected_at > STABLE:
            self._short = 0
        self._short += 1
        if self._short == SHORT_MAX:
            complain("it does not hold: is there another client of the same user, or with the same --client-id?")
        pause = min(FIRST_PAUSE * 2 ** (self._short - 1), LONGEST_PAUSE)
        while True:
            time.sleep(pause)
            gather.tick(time.monotonic())
            if gather.done or time.monotonic() - since > self._args.deadline:
                return None
            with contextlib.suppress(LinkError):
                return self._connect()
            pause = min(pause * 2, LONGEST_PAUSE)

    def _report(self) -> int:
        gather = self._gather
        if self._args.json:
            for node in gather.nodes.values():
                if node.answer is None:
                    print(fleet_show.as_json(node))
        else:
            print("\n".join(fleet_show.table(gather)))
        sys.stdout.flush()
        for line in fleet_show.summary(gather):
            print(line, file=sys.stderr)
        asked = [node for node in gather.nodes.values() if node.times]
        if asked and not self._cut_short and all(node.answer is None for node in asked):
            asks = f"{self._base}/+/at/request{f'/{self._who}' if self._who else ''}"
            reads = f"{self._base}/+/{self._reply}"
            print(f"nobody answered at all: may this user write {asks} and read {reads}?", file=sys.stderr)
        return fleet_show.exit_code(gather)


def _online(payload: bytes) -> bool | None:
    """Return what a `status` says; None where it was taken away, or is none."""
    try:
        return {"online": True, "offline": False}.get(str(read_record(payload).get("state")))
    except NoAnswer:
        return None


def _body(args: argparse.Namespace) -> dict[str, str]:
    if args.body is not None:
        if len(args.body.encode("utf-8", "surrogateescape")) > BODY_MAX:
            raise BadOption(f"--body: longer than {BODY_MAX} octets, the most that a request takes")
        return {"body": args.body}
    if args.body_file is None:
        return {}
    try:
        with Path(args.body_file).open("rb") as file:
            content = file.read(BODY_MAX + 1)
    except OSError as error:
        raise BadOption(f"--body-file: {error.strerror}: {args.body_file}") from None
    if len(content) > BODY_MAX:
        raise BadOption(
            f"--body-file: {args.body_file} is longer than {BODY_MAX} octets, the most that a request takes"
        )
    return {"body_b64": base64.b64encode(content).decode("ascii")}
