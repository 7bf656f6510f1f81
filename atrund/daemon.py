# SPDX-License-Identifier: Apache-2.0
"""Builds the whole daemon and takes it down; the only room that knows every other."""

import asyncio
import uuid
from collections.abc import Coroutine
from typing import Any, Final

import structlog

from atrund import __version__, broker, making, making_client, records
from atrund.admin import Admin
from atrund.at.syntax import LINE_MAX
from atrund.atrun.family import forms
from atrund.atrun.request import Door, Request
from atrund.clock import Clock, SystemClock
from atrund.config import Config
from atrund.confirmations import Confirmations
from atrund.doors.sms import SmsDoor
from atrund.doors.tcp import TcpDoor
from atrund.instances import Instances
from atrund.ledger import Ledger, StorageError, tables
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
from atrund.usb.holders import others
from atrund.usb.sysfs import snapshot
from atrund.walk import Ways

log = structlog.get_logger()

STOP_GRACE: Final = 20.0
"""Seconds that the running command gets at a stop; longer ones are left, and the port is given up."""
PRUNE_EVERY: Final = 3600.0
"""Seconds between two looks at the ledger's caps: an hour of the busiest door stays far below them."""
PRUNE_RETRY: Final = 60.0
"""The same while it is not known which messages must not be forgotten."""


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
    ) -> None:
        self.session = uuid.uuid4().hex
        self._config = config
        self._clock = clock
        self._ledger = ledger
        self._notify = notify
        base = f"{config.mqtt.prefix}/{config.node}/" if config.mqtt.enabled else ""
        self._mirror = Mirror(
            clock=clock,
            session=self.session,
            base=base,
            full_numbers=config.privacy.numbers == "full",
            records=config.mqtt.spool_records,
            octets=config.mqtt.spool_bytes,
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
            lambda: self.sms.recording,
        )
        self.runner = Runner(ways)
        means = making.Means(self.runner, ledger, self._mirror, clock, self.own, self.instances, self._told_of)
        self.monitor = making.monitor_door(means, self.modem.store, self.modem.fanout)
        self.own.needs = making.needs(lambda: self.config.sms, self.own, self.monitor)
        self.services = Services(
            settings=lambda: self.nvm.settings,
            sms=making.sms_door(lambda: self.config.sms, means, self.modem.store, self.modem.fanout, self.monitor.sms),
            make_tcp=lambda: making.tcp_door(lambda: self.config.tcp, means),
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
        facts = making.facts(config, self.own)
        self.admin = Admin(
            own=self.own, nvm=self.nvm, services=self.services, mirror=self._mirror, ledger=ledger, facts=facts
        )
        self.local = making.local_door(config.local, means, self.status, self.admin.handle, self.modem.lending.lend)
        self.terminals = making.terminal_door(config.local, means)
        self.not_followed: tuple[str, ...] = ()
        self.not_reloaded = ""
        """Of the file as it was read last: options in it that need a restart, and why it was not taken, if so."""
        self._told: dict[str, object] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Gets the exception of a task that should run for ever and did not."""

    async def start(self) -> None:
        """Open the doors. Raises `OSError` when one can't be opened. The module may be absent."""
        await self._ledger.start()
        if self._ledger.failure:
            log.error("ledger unusable; SMS stay unread and MQTT requests are refused", detail=self._ledger.failure)
        await self.nvm.load()
        if self.local is not None:
            await self.local.start()
        if self.terminals is not None:
            await self.terminals.start()
            self.services.held.append(self.terminals)
        # What a command set must not keep every other door shut for ever.
        by_command = {hidden.key for hidden in self.nvm.hidden()}
        await self.services.bearer.begin()
        self._keep(self.services.bearer.run(), "bearer")
        await self.services.begin(must_listen=not by_command & {"tcp.enabled", "tcp.port"})
        if self.mqtt is not None and self.broker is not None:
            await self.mqtt.take_up()
            self._keep(self.broker.run(), "broker")
        else:
            broker.switched_off(self._ledger)
        for work, name in await self.modem.begin():
            self._keep(work, name)
        self._keep(self.sms.run(), "sms door")
        self._keep(self.instances.run(), "instances")
        self._keep(self.monitor.run(), "event monitor")
        self._keep(self.reporter.run(), "reporter")
        self._keep(self.confirmations.run(), "confirmations")
        self._keep(self._prune_for_ever(), "prune")
        if (interval := self._notify.watchdog_interval) is not None:
            self._keep(self._feed_watchdog(interval), "watchdog")
        self.tell_ready()
        log.info("doors open", doors=", ".join(self._doors()) or "none", version=__version__)

    def tell_ready(self) -> None:
        """Tell systemd that the start, or a reload, is done."""
        self._notify.ready(self._status_line())

    async def stop(self) -> None:
        """Take nothing new, let what runs end, say goodbye, give everything back."""
        self._notify.stopping()
        await self.services.end()
        await self.runner.close(STOP_GRACE)
        if self.terminals is not None:
            await self.terminals.close()
        if self.broker is not None:
            await self.broker.say_goodbye("stopped")
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_TASK_END)
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
                "connected": self.broker is not None and self.broker.connected,
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
        self.own.delays = making.delays(given, self.own.delays, before)
        self.admin.facts = making.facts(given, self.own)
        self.modem.follow(given)
        self.nvm.rebase(base, locked=given.locked)
        self.own.on_reports()

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

    def _tell_state(self) -> None:
        """Tell the broker what the module is like, and what the daemon is where that changed."""
        if self.broker is None:
            return
        self.broker.tell("module/state", records.state_record(self._mirror.stamp(), self.modem.state()))
        if (info := self._info()) != self._told:
            self._told = info
            self.broker.tell("info", records.info_record(self._mirror.stamp(), info))

    def _info(self) -> dict[str, object]:
        return {
            "version": __version__,
            "contract": records.VERSION,
            "model": self.module.model,
            "firmware": self.module.firmware,
            **self.modem.identity(),
            "doors": self._doors(),
            "line_max": LINE_MAX,
            "queue_depth": self._config.queue.depth,
            "spool": "disk",
        }

    def _unsolicited(self, lines: tuple[str, ...]) -> None:
        if self._config.mqtt.urc and self.broker is not None:
            payload = records.urc_record(self._mirror.stamp(), self._mirror.unsolicited(lines))
            self.broker.publish(f"{self._mirror.base}urc", payload, {})

    def _lent(self, who: str, what: str, why: str | None) -> None:
        self._ledger.behind(*self._mirror.session(Door.LOCAL, who, what, why))

    def _module_changed(self) -> None:
        state, registration = self.module.state, self.module.registration
        self.monitor.module_is(usable=state.usable, away=state in _AWAY, registration=registration)
        self._notify.status(self._status_line())
        self._tell_state()

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
        log.warning(what, id=request.rid, door=request.door.value, detail=why)
        self._ledger.behind(*self._mirror.session(request.door, request.peer, what, why, request.rid))

    def _status_line(self) -> str:
        module = self.module
        detail = f": {module.detail}" if module.detail else ""
        file = "; not reloaded" if self.not_reloaded else "; needs a restart" if self.not_followed else ""
        return f"module {module.state.value}{detail}; doors: {', '.join(self._doors()) or 'none'}{file}"

    def _doors(self) -> list[str]:
        is_open = {
            "sms": self.nvm.settings.sms.enabled,
            "tcp": self.tcp is not None or self.nvm.settings.tcp.client.enabled,
            "mqtt": self.mqtt is not None,
            "local": self.local is not None,
        }
        return [name for name, there in is_open.items() if there and name not in self.admin.closed]

    def _keep(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A room's own loop ends only by cancellation; a fault in it must end the daemon, not leave it half alive."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self.failed.done():
            log.error("room failed", room=task.get_name(), exc_info=error)
            self.failed.set_result(None)

    async def _prune_for_ever(self) -> None:
        while True:
            lying = self.sms.lying
            if lying is not None:
                self._ledger.behind(*tables.prune(self._ledger.run, lying))
            await asyncio.sleep(PRUNE_EVERY if lying is not None else PRUNE_RETRY)

    async def _feed_watchdog(self, interval: float) -> None:
        while True:
            self._notify.ping()
            await asyncio.sleep(interval)


_AWAY: Final = frozenset({State.ABSENT, State.REBOOTING, State.OFF_BY_COMMAND})
"""States behind which the module registers anew."""
_TASK_END: Final = 5.0
"""Seconds for a cancelled room to end: closing a socket and a paho thread takes a second at most."""


def build(
    config: Config,
    *,
    ledger: Ledger,
    clock: Clock | None = None,
    open_port: OpenPort = open_port,
    look: Snapshot = snapshot,
    others: Others = others,
    notify: Service | None = None,
) -> Daemon:
    """Build the whole daemon on the running loop. Clock, opener of ports and ledger are what a test exchanges."""
    return Daemon(
        config,
        clock=clock or SystemClock(),
        open_port=open_port,
        look=look,
        others=others,
        ledger=ledger,
        notify=notify or Service({}),
    )
