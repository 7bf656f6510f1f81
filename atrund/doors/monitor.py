# SPDX-License-Identifier: Apache-2.0
"""The event monitor: runs a stored command when something happens that the daemon can see (CMD-5).

Rules of this file: a command runs with the rights of the door that stored it and with the monitor's own, so with the
lesser of the two; a run is counted on disk before it begins, so that what ends in a restart each time ends by itself.
"""

import asyncio
import re
import uuid
from collections.abc import Callable
from typing import Final

import structlog

from atrund.at.syntax import LineRefused, Op, parse
from atrund.atrun.events import EVENTS, Event
from atrund.atrun.policy import Asker, decide
from atrund.atrun.reporting import Reporting
from atrund.atrun.request import Door, End, Outcome, Reason, Request
from atrund.atrun.secrets import mask_line
from atrund.ledger import Ledger, StorageError, tables
from atrund.mirror import Mirror
from atrund.module.store import Store, StoreError
from atrund.module.urc import Fanout
from atrund.own import ABILITIES, NEEDED, Own
from atrund.runner import Runner
from atrund.sms.pdu import decode_deliver

log = structlog.get_logger()

RUNS_MAX: Final = 6
HOUR: Final = 3600.0
"""Runs within so many seconds of running, for each event (CMD-5)."""
WAITING_MAX: Final = 64
"""Events that wait to be looked at: more than all that can run within the hour."""
RING_PAUSE: Final = 10.0
"""Seconds without a ring after which the next one is another call's: the longest cadence in use has 6 s."""
BURST: Final = 2.0
"""Seconds in which contexts that go are one event: a detach takes all of them."""
WATCHED: Final = frozenset({"STARTUP", "REGISTERED", "ROAM", "CONTDEACT", "RING", "SMSIN"})
"""Events that can be seen; what is measured at the module's pins and supply it tells nobody unasked."""


class MonitorDoor:
    """Runs until cancelled, on or off. `say` tells the instance that switched it on."""

    def __init__(
        self,
        own: Own,
        *,
        runner: Runner,
        ledger: Ledger,
        mirror: Mirror,
        fanout: Fanout,
        store: Store,
        say: Callable[[str], None],
    ) -> None:
        self._own = own
        self._runner = runner
        self._ledger = ledger
        self._mirror = mirror
        self._fanout = fanout
        self._store = store
        self._say = say
        self._waiting: asyncio.Queue[str | tuple[str, int]] = asyncio.Queue(WAITING_MAX)
        self._started = False
        self._registration = ""
        self._rings = 0
        self._rang_at = self._deactivated_at = float("-inf")
        self._said: set[str] = set()
        """Which events were said to be not watched, or to happen too often."""

    @property
    def on(self) -> bool:
        """Whether it is switched on."""
        return self._own.settings.monitor.enabled

    def needs(self) -> Reporting:
        """Return what the module must report for it, and for the daemon."""
        return {**NEEDED, "+CGEREP": (1, 0)} if self._awaits("CONTDEACT") else NEEDED

    def follow(self) -> None:
        """Take note that the settings may have changed."""
        for label in EVENTS:
            if label not in WATCHED and self._awaits(label) and label not in self._said:
                self._said.add(label)
                log.warning("an event is stored and not watched: the module does not tell of it", label=label)

    def module_is(self, *, usable: bool, away: bool, registration: str) -> None:
        """Take note of how the module is. `away`: what it was registered to is no longer true."""
        if away:
            self._registration = ""
        if not usable:
            return
        if not self._started:
            self._started = True
            self._happened("STARTUP")
        before, now = self._registration, registration if registration in _REGISTERED else ""
        self._registration = now
        if now and not before:
            self._happened("REGISTERED")
        if now == _ROAMING and before != _ROAMING:
            self._happened("ROAM")

    def sms(self, memory: str, index: int, pdu: str) -> None:
        """Take note of a new message that is none of ours; `pdu` is "" where it was not read."""
        if not self._awaits("SMSIN"):
            return
        if pdu:
            self._see(pdu)
        else:
            self._put((memory, index))

    async def run(self) -> None:
        """Watch for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._hear(), name="events")
            group.create_task(self._serve(), name="stored commands")

    async def _hear(self) -> None:
        with self._fanout.listening() as listener:
            while True:
                self._take((await listener.get())[0])

    def _take(self, line: str) -> None:
        now = asyncio.get_running_loop().time()
        if line == "RING" or line.startswith("+CRING:"):
            self._rings = self._rings + 1 if now - self._rang_at <= RING_PAUSE else 1
            self._rang_at = now
            if self._rings == self._event("RING").parameters[0]:
                self._happened("RING")
        elif _DEACTIVATED.match(line) or (line == "NO CARRIER" and now - self._rang_at > RING_PAUSE):
            if now - self._deactivated_at > BURST:
                self._happened("CONTDEACT")
            self._deactivated_at = now

    def _see(self, pdu: str) -> None:
        try:
            text = decode_deliver(pdu).user_data.text
        except Exception:
            # Anybody can send a message: a fault in reading one must not end the daemon.
            log.exception("sms not looked at")
            return
        if str(self._event("SMSIN").parameters[0]) in text:
            self._happened("SMSIN")

    def _event(self, label: str) -> Event:
        return self._own.settings.monitor.event[label]

    def _awaits(self, label: str) -> bool:
        event = self._event(label)
        return self.on and event.on and bool(event.command)

    def _happened(self, label: str) -> None:
        if self._awaits(label):
            self._put(label)

    def _put(self, what: str | tuple[str, int]) -> None:
        if self._waiting.full():
            log.warning("an event is passed over: too many wait", waiting=WAITING_MAX)
        else:
            self._waiting.put_nowait(what)

    async def _serve(self) -> None:
        while True:
            what = await self._waiting.get()
            if isinstance(what, str):
                await self._run(what)
                continue
            try:
                stored = await self._store.read(*what)
            except StoreError as error:
                log.warning("sms not looked at", detail=str(error))
                continue
            if stored is not None:
                self._see(stored.pdu)

    async def _run(self, label: str) -> None:
        """Run what is stored for an event, unless it ran too often; nobody waits for the answer."""
        if not self._awaits(label):
            return
        event, settings = self._event(label), self._own.settings
        asker = f"{event.door} {event.peer}"
        if why := await self._count(label):
            if label not in self._said:
                self._said.add(label)
                self._tell(asker, f"event {label} not run", why)
            return
        self._said.discard(label)
        rid = uuid.uuid4().hex
        self._tell(asker, f"event {label}", None, rid)
        if settings.monitor.urc:
            self._say(f"#EVMONI: {mask_line(event.command)}")
        request = Request(
            rid=rid,
            door=Door.MONITOR,
            peer=asker,
            line=event.command,
            timeout=settings.monitor.timeout,
            instance=settings.sms.instance,
            reply=False,
            forgeable=event.forgeable,
            context={"event": label},
        )
        self._runner.start(request, refused=self._beyond_rights(event))

    async def _count(self, label: str) -> str:
        """Count a run on disk, in seconds of running (REQ-11); returns why it must not begin, or ""."""
        name, now = f"runs of {label}", self._ledger.run
        try:
            kept = str(await self._ledger.ask(tables.get_text(name))).split()
            recent = [moment for moment in map(float, kept) if moment > now - HOUR]
            if len(recent) >= RUNS_MAX:
                return f"{RUNS_MAX} runs within the hour already"
            await self._ledger.durable(tables.set_text(name, " ".join(map(str, [*recent, now]))))
        except StorageError as error:
            return f"it can't be counted: {error}"
        return ""

    def _beyond_rights(self, event: Event) -> Outcome | None:
        """Return the refusal of a command that the door which stored it may not run (any more)."""
        try:
            commands = parse(event.command)
        except LineRefused:
            return None  # the runner says what is wrong with it
        if any(command.name == "#EVMONI" and command.op is Op.SET for command in commands):
            # It would be stored with the monitor's rights, whoever wrote it.
            return Outcome(End.REJECTED, Reason.POLICY, detail="#EVMONI: a stored command stores none")
        if event.door not in _DOORS:
            return Outcome(End.REJECTED, Reason.POLICY, detail="through which door it was stored is not known")
        door = Door(event.door)
        # Of those with a login only one of their names was stored: what any of them may not do is refused.
        names = () if door in {Door.TCP, Door.MQTT} else (event.peer,)
        verdict = decide(commands, Asker(door, names, event.forgeable), self._own.policy(door), ABILITIES)
        if verdict.refusal is not None:
            detail = f"stored through the {door.value} door: {verdict.refusal.detail}"
            return Outcome(End.REJECTED, verdict.refusal.reason, detail=detail)
        if verdict.plan is not None:
            return Outcome(End.REJECTED, Reason.POLICY, detail="a stored command can't be confirmed")
        return None

    def _tell(self, asker: str, what: str, why: str | None, rid: str = "") -> None:
        self._ledger.behind(*self._mirror.session(Door.MONITOR, asker, what, why, rid))


_DOORS: Final = frozenset(door.value for door in Door)
_ROAMING: Final = "roaming"
_REGISTERED: Final = frozenset({"home", _ROAMING})
_DEACTIVATED: Final = re.compile(r"\+CGEV: ?(NW|ME) (PDN )?(DEACT|DETACH)\b")
"""A context is gone, by the network's will or the module's own (3GPP TS 27.007 10.1.19)."""
