# SPDX-License-Identifier: Apache-2.0
"""The module's side of the daemon: ports, keepers, ladder, telemetry, built of the configuration and wired together."""

import asyncio
import contextlib
import re
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final

import structlog

from atrund.config import Config
from atrund.ledger import Ledger, StorageError, tables
from atrund.module.channel import Channel
from atrund.module.keeper import InStep, Keeper, Lost, Sent
from atrund.module.ladder import Ladder, LadderRules, Reboot
from atrund.module.lending import Lending
from atrund.module.lifecycle import State
from atrund.module.locate import Locator, Snapshot
from atrund.module.neighbours import Neighbours, Others
from atrund.module.port import OpenPort
from atrund.module.store import Store
from atrund.module.telemetry import Readings, Telemetry
from atrund.module.tending import Module, PinKeeping
from atrund.module.turn import LinkLostError
from atrund.module.turns import Place
from atrund.module.urc import Fanout

log = structlog.get_logger()

ARRIVAL: Final = 30.0
ARRIVAL_LOOK: Final = 0.1
"""Seconds for which a request waits for the module to be set up first, and between two looks; that takes one or two."""
ARRIVALS_MAX: Final = 32
"""Requests that wait so at once, as many as a door's queue holds by default."""
REST: Final = 10.0
"""Seconds for ports to be left in step at the end: 5 for a command that was told to end, and the way back behind it."""
PLACES_SHOWN: Final = 20
"""Who waits for a port is shown so far; the rest is counted, for a status is one line of at most 64 KiB."""


class Modem:
    """All that has to do with the module. `on_change` is told whenever `state` may have changed."""

    def __init__(
        self,
        config: Config,
        *,
        open_port: OpenPort,
        look: Snapshot,
        others: Others,
        ledger: Ledger,
        on_change: Callable[[], None],
        on_usable: Callable[[], None],
        unsolicited: Callable[[tuple[str, ...]], None],
        on_registered: Callable[[], None] = lambda: None,
        lent: Callable[[str, str, str | None], None] = lambda _who, _what, _why: None,
    ) -> None:
        """`on_usable`: the first port's module became usable, `on_registered`: it has a network (again).

        `unsolicited` gets each code of any port. `lent` is told when ports are lent and taken back: to whom, what, why.
        """
        self.fanout = Fanout()
        self._config = config
        self._open_port = open_port
        self._ledger = ledger
        self._on_change = on_change
        self._on_usable = on_usable
        self._on_registered = on_registered
        self._unsolicited = unsolicited
        self._usable: tuple[int, str] | None = None
        """The set-up and the memory that were told last."""
        self._state = State.OFF
        given = config.module
        self._arrivals = 0
        """Requests that wait for the first set-up."""
        self._names = (given.port, *given.extra_ports) if given.port else ()
        self.locators = tuple(
            Locator(name, baudrate=given.baudrate, open_port=open_port, look=look) for name in self._names
        )
        self.keepers: tuple[Keeper, ...] = ()
        """One a port, made at the start; the first is that of unsolicited codes and SMS."""
        self.lending = Lending(lambda: self.keepers, tell=lent)
        self.telemetry = Telemetry(
            every=given.telemetry,
            channel=self.first,
            on_change=lambda _: on_change(),
            identity=config.privacy.identity,
        )
        self._tenant = ("", False)
        """The SIM's state, and whether the first port was usable, when something was told last."""
        self._measured = asyncio.Event()
        """Set once anything is to be measured."""
        self.neighbours = Neighbours(
            paths=lambda: [keeper.path for keeper in self.keepers if keeper.channel is not None],
            on_change=on_change,
            look=others,
        )
        self._opened: tuple[str, ...] = ()
        """The devices that were usable when something was told last."""
        self.store = Store(self.first, lambda: self.module.memory)

    async def begin(self) -> list[tuple[Coroutine[Any, Any, None], str]]:
        """Make the keepers with what the ledger remembers; returns what is to be run as long as the daemon, named."""
        await self._make_keepers()
        work: list[tuple[Coroutine[Any, Any, None], str]] = [(keeper.run(), "keeper") for keeper in self.keepers]
        if self.keepers:
            work.append((self.neighbours.run(), "neighbours"))
            work.append((self._measure(), "telemetry"))
            if self._config.module.telemetry or self._config.privacy.identity:
                self._measured.set()
        return work

    async def come_to_rest(self) -> None:
        """Begin nothing more on any port, and wait until what was begun has ended there, `REST` seconds at most."""
        channels = [keeper.channel for keeper in self.keepers if keeper.channel is not None]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REST):
                await asyncio.gather(*map(_at_rest, channels))

    @property
    def module(self) -> Module:
        """What is known of the module."""
        return self.keepers[0].module if self.keepers else Module()

    def first(self) -> Channel | None:
        """Return the port of unsolicited codes and SMS, while it is usable."""
        return self.keepers[0].channel if self.keepers else None

    def idlest(self) -> Channel | None:
        """Return the port with the fewest who have or await it: a long command on one holds up nobody on another."""
        channels = [channel for keeper in self.keepers if (channel := keeper.channel) is not None]
        return min(channels, key=lambda channel: channel.load) if len(channels) > 1 else next(iter(channels), None)

    async def arrive(self) -> None:
        """Wait while the module is set up for the first time since the start: a restart is no reason to refuse."""
        if self._arrivals >= ARRIVALS_MAX:
            return
        self._arrivals += 1
        try:
            for _ in range(round(ARRIVAL / ARRIVAL_LOOK)):
                if self._usable is not None or not self._names or self.module.state not in _ARRIVING:
                    return
                await asyncio.sleep(ARRIVAL_LOOK)
        finally:
            self._arrivals -= 1

    def mapped(self, instance: int) -> Callable[[], Channel | None] | None:
        """Return what gives the port that an instance is mapped to, while it is usable; None: it is mapped to none."""
        ports = self._config.module.instance_ports
        number = ports[instance - 1] if instance <= len(ports) else 0
        return (lambda: self._port(number)) if number else None

    def in_data_call(self, instance: int) -> bool:
        """Return whether the port of an instance is in a data call; of one that is mapped to none, any port."""
        mapped = self.mapped(instance)
        channels = [keeper.channel for keeper in self.keepers] if mapped is None else [mapped()]
        return any(channel is not None and channel.in_data_call for channel in channels)

    def follow(self, config: Config) -> None:
        """Go by another configuration: how often is measured, which port which instance has."""
        every = config.module.telemetry
        if every != self._config.module.telemetry:
            self.telemetry.follow(every)
        self._config = config
        if every:
            self._measured.set()

    def reboot_overdue(self, channel: Channel) -> str:
        """Reboot the module, for a command did not end in time there (REQ-7); returns why it is not done, or ""."""
        for keeper in self.keepers:
            if keeper.channel is channel:
                return keeper.reboot_overdue(channel)
        return "the module is away already"

    def waiting(self) -> dict[str, int]:
        """Return how many requests wait, by asker, over all ports."""
        waiting: dict[str, int] = {}
        for keeper in self.keepers:
            for asker, depth in (keeper.channel.depths if keeper.channel is not None else {}).items():
                waiting[asker] = waiting.get(asker, 0) + depth
        return waiting

    def queues(self) -> dict[str, list[dict[str, object]]]:
        """Return who has each port, at place 0, and who waits for it, in the order of their turns."""
        return {
            name: [] if keeper.channel is None else _shown(keeper.channel)
            for name, keeper in zip(self._names, self.keepers, strict=False)
        }

    def state(self) -> dict[str, object]:
        """Return what `atrunctl status` shows of the module."""
        return self._state_with(self.telemetry.readings)

    def told(self) -> dict[str, object]:
        """Return what `module/state` shows of it: the same, with readings that do not flicker."""
        return self._state_with(self.telemetry.told)

    def _state_with(self, readings: Readings) -> dict[str, object]:
        module = self.module
        extra = dict(readings.extra)
        return {
            "state": module.state.value,
            "detail": module.detail,
            "port": self._port_told,
            "path": self.keepers[0].path if self.keepers else "",
            "model": module.model,
            "firmware": module.firmware,
            **self.identity(),
            "sim": module.sim,
            "registration": module.registration,
            "operator": readings.operator,
            "technology": readings.technology,
            "rssi_dbm": readings.rssi_dbm,
            "rsrp_dbm": readings.rsrp_dbm,
            "rsrq_db": readings.rsrq_db,
            "rfsts": extra.get("#RFSTS"),
            "servinfo": extra.get("#SERVINFO"),
            "memory": module.memory,
            "sms_used": readings.sms_used,
            "sms_total": readings.sms_total,
            "others": list(self.neighbours.seen),
        }

    def identity(self) -> dict[str, object]:
        """Return IMEI and ICCID, None while they are not known; nothing where they may not be told."""
        readings = self.telemetry.readings
        return {"imei": readings.imei, "iccid": readings.iccid} if self._config.privacy.identity else {}

    def further(self) -> dict[str, str]:
        """Return the state of each further port, in words."""
        return {
            name: keeper.module.state.value + (f" ({keeper.module.detail})" if keeper.module.detail else "")
            for name, keeper in zip(self._config.module.extra_ports, self.keepers[1:], strict=True)
        }

    def _port(self, number: int) -> Channel | None:
        return self.keepers[number - 1].channel if number <= len(self.keepers) else None

    async def _measure(self) -> None:
        await self._measured.wait()
        await self.telemetry.run()

    async def _make_keepers(self) -> None:
        given = self._config.recovery
        try:
            climbs = str(await self._ledger.ask(tables.get_text(_CLIMBS)))
        except StorageError:
            climbs = ""
        ladder = Ladder(
            LadderRules(Reboot(given.reboot), self._config.module.shared, given.command, given.per_hour),
            now=lambda: self._ledger.run,
            network_up=lambda: any(locator.carries_data() for locator in self.locators),
            history=[float(moment) for moment in climbs.split()],
            keep=lambda moments: self._ledger.behind(tables.set_text(_CLIMBS, " ".join(map(str, moments)))),
        )
        self.keepers = tuple(
            Keeper(
                locate=locator.path,
                baudrate=self._config.module.baudrate,
                first=number == 0,
                open_port=self._open_port,
                make_channel=partial(self._make_channel, self._heard if number == 0 else self._heard_beside),
                ladder=ladder,
                fanout=self.fanout,
                on_change=self._changed,
                pin=self._pin() if number == 0 else None,
            )
            for number, locator in enumerate(self.locators)
        )

    def _pin(self) -> PinKeeping | None:
        """The PIN, with its past in the ledger: a word that is not on disk is not trusted, here or after a kill."""
        pin = self._config.module.pin
        if pin is None or not self._config.module.send_pin:
            return None

        async def refused(fingerprint: str) -> bool:
            return fingerprint in str(await self._ledger.ask(tables.get_text(_PINS))).split()

        async def remember(fingerprint: str) -> None:
            await self._ledger.durable(_change_words(_PINS, lambda words: words | {fingerprint}))

        async def forget(fingerprint: str) -> None:
            await self._ledger.durable(_change_words(_PINS, lambda words: words - {fingerprint}))

        return PinKeeping(pin.reveal(), refused, remember, forget)

    def _make_channel(
        self, heard: Callable[[tuple[str, ...]], None], on_lost: Lost, on_sent: Sent, on_in_step: InStep
    ) -> Channel:
        module, queue = self._config.module, self._config.queue
        weights = queue.weights
        return Channel(
            unsolicited=heard,
            on_lost=on_lost,
            on_sent=on_sent,
            on_in_step=on_in_step,
            gap=module.gap,
            prompt_gap=module.prompt_gap,
            depth=queue.depth,
            max_wait=queue.max_wait,
            weights={
                "sms": weights.sms,
                "tcp": weights.tcp,
                "mqtt": weights.mqtt,
                "local": weights.local,
                "daemon": weights.daemon,
            },
        )

    def _heard(self, lines: tuple[str, ...]) -> None:
        log.debug("unsolicited", code=lines[0])
        self.fanout.publish(lines)
        self._unsolicited(lines)

    def _heard_beside(self, lines: tuple[str, ...]) -> None:
        """Take a code of a further port; a ring comes on every port, whatever was asked for, and is one."""
        if lines[0] != _RING or self.first() is None:
            self._heard(lines)

    @property
    def _port_told(self) -> str:
        """The port's name, which may be the IMEI."""
        name = self._config.module.port
        return name if self._config.privacy.identity else _IMEI_NAME.sub(r"\1…\2", name)

    def _changed(self, module: Module) -> None:
        opened = tuple(keeper.path for keeper in self.keepers if keeper.channel is not None)
        if opened and opened != self._opened:
            self.neighbours.look_soon()
        self._opened = opened
        tenant = (self.module.sim, self.module.state.usable)
        if tenant != self._tenant:
            self._tenant = tenant
            self.telemetry.look()
        self._on_change()
        if module is self.module and module.state.usable:
            self._tell_usable(module)

    def _tell_usable(self, module: Module) -> None:
        """Tell that the module is usable where it was not: set up (anew), its store to be had, the network back."""
        usable = (module.set_ups, module.memory)
        if usable != self._usable:
            self._usable = usable
            self._on_usable()
        if module.state is State.READY and self._state is not State.READY:
            self._on_registered()
        self._state = module.state


_IMEI_NAME: Final = re.compile("(imei:)[0-9]{11}([0-9]{4})")
_RING: Final = "RING"
_CLIMBS: Final = "climbs"
_PINS: Final = "refused pins"
_LEAVING: Final = "stop"


async def _at_rest(channel: Channel) -> None:
    channel.keep_for(_LEAVING, "the gateway is stopping")
    with contextlib.suppress(LinkLostError):
        async with channel.turn(_LEAVING):
            pass


def _change_words(name: str, change: Callable[[frozenset[str]], frozenset[str]]) -> Callable[[Any], None]:
    """Change the words kept under a name, in one transaction."""

    def write(db: Any) -> None:  # noqa: ANN401 - what a connection is, the ledger alone knows
        words = frozenset(str(tables.get_text(name)(db)).split())
        tables.set_text(name, " ".join(sorted(change(words))))(db)

    return write


def _shown(channel: Channel) -> list[dict[str, object]]:
    holder, waiting = channel.line_up
    now = asyncio.get_running_loop().time()
    places = [] if holder is None else [(0, holder)]
    places += enumerate(waiting[:PLACES_SHOWN], 1)
    shown = [_place(number, place, now) for number, place in places]
    if len(waiting) > PLACES_SHOWN:
        shown.append({"more": len(waiting) - PLACES_SHOWN})
    return shown


def _place(number: int, place: Place, now: float) -> dict[str, object]:
    return {
        "place": number,
        "door": place.asker,
        "id": place.rid,
        "command": place.what,
        "for_s": round(now - place.since, 1),
    }


_ARRIVING: Final = frozenset({State.OFF, State.OPENING, State.WAKING, State.SETTING_UP})
