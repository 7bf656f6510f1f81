# SPDX-License-Identifier: Apache-2.0
"""Builds the whole daemon and takes it down; the only room that knows every other."""

import uuid
from typing import Final

import structlog

from atrund import __version__, broker, making, making_client, watchdog
from atrund.activation import Handed, Shelf
from atrund.activities import Activities
from atrund.admin import Admin
from atrund.atrun.family import forms
from atrund.atrun.request import Door, Request
from atrund.clock import Clock, SystemClock
from atrund.config import Config
from atrund.confirmations import Confirmations
from atrund.doors.sms import SmsDoor
from atrund.doors.tcp import TcpDoor
from atrund.instances import Instances
from atrund.ledger import Ledger, StorageError, tables
from atrund.metrics import Metrics
from atrund.mirror import Mirror
from atrund.modem import Modem
from atrund.module.channel import Channel
from atrund.module.keeper import Keeper
from atrund.module.lifecycle import State
from atrund.module.locate import Snapshot
from atrund.module.neighbours import Others
from atrund.module.port import OpenPort, open_port
from atrund.module.tending import Module
from atrund.nvm import Nvm
from atrund.own import Own
from atrund.reporter import Reporter
from atrund.runner import Runner
from atrund.service import Service
from atrund.services import Services
from atrund.telling import Facts, Telling
from atrund.upkeep import Upkeep
from atrund.usb.holders import others
from atrund.usb.sysfs import snapshot
from atrund.ways import Ways

log = structlog.get_logger()

STOP_GRACE: Final = 20.0
"""Seconds that the running command gets at a stop; longer ones are left, and the port is given up."""


class Daemon:
    """All rooms, wired. `start`, then `stop`; `status` tells what is up."""

    def __init__(
        self,
        config: Config,
        *,
        clock: Clock,
        open_port: OpenPort,
        look: Snapshot,
        others: Others,
        ledger: Ledger,
        notify: Service,
        shelf: Shelf,
    ) -> None:
        """`shelf`: the sockets that systemd holds."""
        self.session = uuid.uuid4().hex
        self._config = config
        self._clock = clock
        self._ledger = ledger
        self._notify = notify
        self._shelf = shelf
        base = f"{config.mqtt.prefix}/{config.node}/" if config.mqtt.enabled else ""
        self._mirror = Mirror(
            clock=clock,
            session=self.session,
            base=base,
            full_numbers=config.privacy.numbers == "full",
            records=config.mqtt.spool_records,
            octets=config.mqtt.spool_bytes,
            memory=config.mqtt.spool == "memory",
        )
        self.modem = Modem(
            config,
            open_port=open_port,
            look=look,
            others=others,
            ledger=ledger,
            on_change=self._module_changed,
            on_usable=self._module_usable,
            on_registered=self._network_is_back,
            unsolicited=self._unsolicited,
            lent=self._lent,
        )
        self.nvm = Nvm(making.file_settings(config), ledger=ledger, clock=clock, locked=config.locked)
        self.confirmations = Confirmations(
            ledger=ledger, mirror=self._mirror, channel=self.modem.first, after=config.policy.confirm_after
        )
        self._policies = making.policies(config.policy)
        self.own = Own(
            self.nvm,
            lambda: self.services,
            policies=self._policies,
            delays=making.delays(config),
            home=lambda: self.module.memory,
        )
        self.own.in_data_call = self.modem.in_data_call
        self.instances = Instances(self.own, self.modem.fanout)
        self.reporter = Reporter(self.own, self.modem.first)
        ways = Ways(
            self.modem.idlest,
            self.modem.first,
            ledger,
            self._mirror,
            self.own,
            self.confirmations,
            self._overdue,
            lambda: self.modem.lending.words,
            self.modem.mapped,
            self.modem.arrive,
            lambda: self.sms.recording,
        )
        self.runner = Runner(ways)
        means = making.Means(self.runner, ledger, self._mirror, clock, self.own, self.instances, self._told_of)
        self.monitor = making.monitor_door(means, self.modem.store, self.modem.fanout)
        self.own.needs = making.needs(lambda: self.config.sms, self.own, self.monitor)
        self.services = Services(
            settings=lambda: self.nvm.settings,
            sms=making.sms_door(lambda: self.config.sms, means, self.modem.store, self.modem.fanout, self.monitor.sms),
            make_tcp=lambda: making.tcp_door(lambda: self.config.tcp, means, shelf),
            make_client=lambda: making_client.client_door(lambda: self.config.tcp, means, self._module_changed),
            bearer=making_client.bearer(config.tcp.bearer, self.modem.first),
            monitor=self.monitor,
            confirmations=self.confirmations,
            on_change=self._module_changed,
            transparent=making.transparent(config.tcp.serial),
        )
        self.nvm.on_change = self.services.follow
        self.mqtt, self.broker = making.mqtt_door(config.mqtt, means)
        if self.mqtt is not None:
            self.mqtt.is_closed = lambda: Door.MQTT in self.services.closed
        telling = Facts(lambda: self.config, self.modem.told, self._doors)
        metrics = Metrics(self.runner, self.modem, self.services, ledger)
        self.telling = Telling(telling, metrics, ledger=ledger, mirror=self._mirror, broker=self.broker)
        facts = making.facts(config, self.own)
        self.admin = Admin(
            own=self.own, nvm=self.nvm, services=self.services, mirror=self._mirror, ledger=ledger, facts=facts
        )
        administer, lend = self.admin.handle, self.modem.lending.lend
        listener = shelf.at_path(config.local.socket)
        self.local = making.local_door(config.local, means, self.status, administer, lend, listener=listener)
        self.terminals = making.terminal_door(config.local, means)
        self.not_followed: tuple[str, ...] = ()
        self.not_reloaded = ""
        """Of the file as it was read last: options in it that need a restart, and why it was not taken, if so."""
        self._activities = Activities()
        self.failed = self._activities.failed
        """Resolves when a room's loop that should run for ever did not."""

    async def start(self) -> None:
        """Open the doors. Raises `OSError` when one can't be opened. The module may be absent."""
        keep = self._activities.keep
        await self._ledger.start()
        if self._ledger.failure:
            log.error("ledger unusable; SMS stay unread and MQTT requests are refused", detail=self._ledger.failure)
            keep(self._wait_for_ledger(), "ledger")
        await self.nvm.load()
        if self.local is not None:
            await self.local.start()
        if self.terminals is not None:
            await self.terminals.start()
            self.services.held.append(self.terminals)
        # What a command set must not keep every other door shut for ever.
        by_command = {hidden.key for hidden in self.nvm.hidden()}
        await self.services.bearer.begin()
        keep(self.services.bearer.run(), "bearer")
        await self.services.begin(must_listen=not by_command & {"tcp.enabled", "tcp.port"})
        if self.mqtt is not None and self.broker is not None:
            await self.mqtt.take_up()
            await self.telling.begin()
            keep(self.broker.run(), "broker")
            keep(self.telling.run(), "metrics")
        else:
            broker.switched_off(self._ledger)
        for work, name in await self.modem.begin():
            keep(work, name)
        keep(self.sms.run(), "sms door")
        keep(self.instances.run(), "instances")
        keep(self.monitor.run(), "event monitor")
        keep(self.reporter.run(), "reporter")
        keep(self.confirmations.run(), "confirmations")
        upkeep = Upkeep(self._ledger, self._mirror, lying=lambda: self.sms.lying, chain=self.config.log.audit_chain)
        keep(upkeep.run(), "upkeep")
        if (interval := self._notify.watchdog_interval) is not None:
            moving = (self._ledger.standstill, lambda: self.runner.standstill(self._config.queue.max_wait))
            keep(watchdog.feed(self._notify.ping, interval, moving), "watchdog")
        for unwanted in self._shelf.clear():
            log.warning("socket handed over that nothing asks for", detail=unwanted)
        self.tell_ready()
        log.info("doors open", doors=", ".join(self._doors()) or "none", version=__version__)

    def tell_ready(self) -> None:
        """Tell systemd that the start, or a reload, is done."""
        self._notify.ready(self._status_line())

    async def stop(self) -> None:
        """Take nothing new, let what runs end, say goodbye, give everything back."""
        self._notify.stopping(STOP_GRACE + _FAREWELL)
        self._shelf.is_leaving = True
        self.services.leave()
        await self.runner.close(STOP_GRACE)
        await self.services.close_tcp()
        if self.terminals is not None:
            await self.terminals.close()
        if self.broker is not None:
            await self.broker.say_goodbye("stopped")
        await self.modem.come_to_rest()
        await self._activities.end()
        if self.local is not None:
            await self.local.close()
        await self._ledger.close()
        log.info("stopped")

    async def status(self) -> dict[str, object]:
        """Return what `atrunctl status` shows."""
        try:
            counts = await self._ledger.ask(tables.counts())
        except StorageError:
            counts = {}
        return {
            "atrund": {"version": __version__, "node": self._config.node, "session": self.session},
            "module": self.modem.state(),
            "ports": self.modem.further(),
            "requests": {"running": self.runner.running, "waiting": self.modem.waiting()},
            "queue": self.modem.queues(),
            "sms": {"state": self.sms.state, **self.sms.room},
            "doors": {"closed": self.admin.closed},
            "settings": self.nvm.status() | {"needs_restart": [*self.not_followed], "not_reloaded": self.not_reloaded},
            "tcp": self.services.tcp_status(),
            "tcp_client": self.services.client_status(),
            "bearer": self.services.bearer.status(),
            "mqtt": {
                "state": "off" if self.broker is None else "on",
                **({"connected": False} if self.broker is None else self.broker.report()),
                "remote_at": self._config.mqtt.remote_at,
            },
            "ledger": {"state": self._ledger.failure or "ok", "missed": self._ledger.missed, **counts},
            "clock": {"known": self._clock.known()},
        }

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self._config

    def follow(self, given: Config) -> None:
        """Go by another configuration, services when they `catch_up`. Nothing waits, so nothing is half in force."""
        base, policies = making.file_settings(given), making.policies(given.policy)
        before, self._config = self._config, given
        self._policies.update(policies)
        self._mirror.full_numbers = given.privacy.numbers == "full"
        self.confirmations.after = given.policy.confirm_after
        if self.mqtt is not None:
            self.mqtt.rules = making.mqtt_rules(given.mqtt)
        if self.broker is not None:
            self.broker.follow(making.broker_settings(given.mqtt))
        self.own.delays = making.delays(given, self.own.delays, before)
        self.admin.facts = making.facts(given, self.own)
        self.modem.follow(given)
        self.nvm.rebase(base, locked=given.locked)
        self.own.on_reports()
        self.telling.follow()

    @property
    def sms(self) -> SmsDoor:
        """The SMS door, switched on or off."""
        return self.services.sms

    @property
    def tcp(self) -> TcpDoor | None:
        """The TCP door, while it is open."""
        return self.services.tcp

    @property
    def module(self) -> Module:
        """What is known of the module."""
        return self.modem.module

    @property
    def keepers(self) -> tuple[Keeper, ...]:
        """One a port, from the start on; the first is that of unsolicited codes and SMS."""
        return self.modem.keepers

    def _told_of(self, service: forms.Service) -> int:
        return self.services.told(service)

    def _unsolicited(self, lines: tuple[str, ...]) -> None:
        self.telling.unsolicited(lines)

    async def _wait_for_ledger(self) -> None:
        await self._ledger.until_usable()
        # What it holds is read at a start: settings, what waits, what was judged.
        if self._notify.restarts:
            log.warning("ledger usable again: starting anew")
            self._activities.give_up()
        else:
            log.warning("ledger usable again: atrund is to be restarted")

    def _lent(self, who: str, what: str, why: str | None) -> None:
        self._ledger.behind(*self._mirror.session(Door.LOCAL, who, what, why))

    def _module_changed(self) -> None:
        state, registration = self.module.state, self.module.registration
        self.monitor.module_is(usable=state.usable, away=state in _AWAY, registration=registration)
        self._notify.status(self._status_line())
        self.telling.look()

    def _module_usable(self) -> None:
        self.confirmations.look()
        self.reporter.look()
        self.services.bearer.look()
        self.sms.look()

    def _network_is_back(self) -> None:
        self.sms.network_is_back()
        self.services.bearer.look()

    def _overdue(self, request: Request, channel: Channel) -> None:
        """Do what the configuration says where a command did not end in time (REQ-7), and record it."""
        if self._config.recovery.timeout_action == "leave":
            return
        held_back = self.modem.reboot_overdue(channel)
        what = "module not rebooted" if held_back else "module rebooted"
        why = held_back or "its command did not end in time"
        log.warning(what, id=request.rid, door=request.door.value, peer=request.peer, reason=why)
        self._ledger.behind(*self._mirror.session(request.door, request.peer, what, why, request.rid, logged=True))

    def _status_line(self) -> str:
        module = self.module
        detail = f": {module.detail}" if module.detail else ""
        file = "; not reloaded" if self.not_reloaded else "; needs a restart" if self.not_followed else ""
        ledger = "; ledger unusable" if self._ledger.failure else ""
        return f"module {module.state.value}{detail}; doors: {', '.join(self._doors()) or 'none'}{file}{ledger}"

    def _doors(self) -> list[str]:
        is_open = {
            "sms": self.nvm.settings.sms.enabled,
            "tcp": self.tcp is not None or self.nvm.settings.tcp.client.enabled,
            "mqtt": self.mqtt is not None,
            "local": self.local is not None,
        }
        return [name for name, there in is_open.items() if there and name not in self.admin.closed]


_AWAY: Final = frozenset({State.ABSENT, State.REBOOTING, State.OFF_BY_COMMAND})
"""States behind which the module registers anew."""
_FAREWELL: Final = 30.0
"""Seconds that a stop may take beside the command that runs: sessions, farewells and the disk have their bounds."""


def build(
    config: Config,
    *,
    ledger: Ledger,
    clock: Clock | None = None,
    open_port: OpenPort = open_port,
    look: Snapshot = snapshot,
    others: Others = others,
    notify: Service | None = None,
    handed: list[Handed] | None = None,
) -> Daemon:
    """Build the whole daemon on the running loop. Clock, opener of ports and ledger are what a test exchanges."""
    notify = notify or Service({})
    return Daemon(
        config,
        clock=clock or SystemClock(),
        open_port=open_port,
        look=look,
        others=others,
        ledger=ledger,
        notify=notify,
        shelf=Shelf(handed or [], notify),
    )
