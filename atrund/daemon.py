# SPDX-License-Identifier: Apache-2.0
"""Builds the whole daemon and takes it down; the only room that knows every other."""

import asyncio
import uuid
from collections.abc import Coroutine
from typing import Any, Final

import structlog

from atrund import __version__, records
from atrund.at.syntax import LINE_MAX
from atrund.broker import Broker, BrokerSettings
from atrund.clock import Clock, SystemClock
from atrund.config import Config
from atrund.doors import sms
from atrund.doors.local import LocalDoor
from atrund.doors.mqtt import SUBSCRIPTIONS, MqttDoor, MqttRules
from atrund.doors.sms import SmsDoor, SmsRules
from atrund.doors.tcp import TcpDoor, TcpRules
from atrund.ledger import Ledger, StorageError, tables
from atrund.mirror import Mirror
from atrund.module.channel import Channel
from atrund.module.keeper import Keeper, Lost, Module, PinKeeping, Sent
from atrund.module.ladder import Ladder, LadderRules, Reboot
from atrund.module.locate import Locator, Snapshot
from atrund.module.port import OpenPort, open_port
from atrund.module.store import Store
from atrund.module.telemetry import Telemetry
from atrund.module.urc import Fanout
from atrund.runner import Runner
from atrund.service import Service
from atrund.usb.sysfs import snapshot

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
        ledger: Ledger,
        notify: Service,
    ) -> None:
        self.session = uuid.uuid4().hex
        self.fanout = Fanout()
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
        names = (config.module.port, *config.module.extra_ports) if config.module.port else ()
        self.locators = tuple(
            Locator(name, baudrate=config.module.baudrate, open_port=open_port, look=look) for name in names
        )
        self._open_port = open_port
        self._ladder = Ladder(LadderRules(), now=lambda: ledger.run, network_up=lambda: False)
        self._refused_pins: set[str] = set()
        self.keepers: tuple[Keeper, ...] = ()
        """One a port, made at the start; the first is that of unsolicited codes and SMS."""
        self.telemetry = Telemetry(
            every=config.module.telemetry, channel=self._first_channel, on_change=lambda _: self._tell_state()
        )
        self.runner = Runner(channel=self._idlest_channel, ledger=ledger, mirror=self._mirror)
        self.sms = self._make_sms() if config.sms.enabled else None
        self.tcp = self._make_tcp() if config.tcp.enabled else None
        self.mqtt: MqttDoor | None = None
        self.broker: Broker | None = None
        if config.mqtt.enabled:
            self.mqtt, self.broker = self._make_mqtt(base)
        self.local = self._make_local()
        self._tasks: set[asyncio.Task[None]] = set()
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Gets the exception of a task that should run for ever and did not."""

    async def start(self) -> None:
        """Open the doors. Raises `OSError` when one can't be opened. The module may be absent."""
        await self._ledger.start()
        if self._ledger.failure:
            log.error("ledger unusable; SMS stay unread and MQTT requests are refused", detail=self._ledger.failure)
        if self.local is not None:
            await self.local.start()
        if self.tcp is not None:
            await self.tcp.start()
        if self.mqtt is not None and self.broker is not None:
            await self.mqtt.take_up()
            self._keep(self.broker.run(), "broker")
        await self._make_keepers()
        for keeper in self.keepers:
            self._keep(keeper.run(), "keeper")
        if self.keepers and self._config.module.telemetry:
            self._keep(self.telemetry.run(), "telemetry")
        if self.sms is not None:
            self._keep(self.sms.run(), "sms door")
        else:
            await sms.switched_off(self._ledger)
        self._keep(self._prune_for_ever(), "prune")
        if (interval := self._notify.watchdog_interval) is not None:
            self._keep(self._feed_watchdog(interval), "watchdog")
        self._notify.ready(self._status_line())
        log.info("doors open", doors=", ".join(self._doors()) or "none", version=__version__)

    async def stop(self) -> None:
        """Take nothing new, let what runs end, say goodbye, give everything back."""
        self._notify.stopping()
        if self.tcp is not None:
            await self.tcp.close()
        await self.runner.close(STOP_GRACE)
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
            "module": self._module_state(),
            "ports": {
                name: keeper.module.state.value + (f" ({keeper.module.detail})" if keeper.module.detail else "")
                for name, keeper in zip(self._config.module.extra_ports, self.keepers[1:], strict=True)
            },
            "requests": {"running": self.runner.running, "waiting": self._waiting()},
            "sms": {"state": "off" if self.sms is None else self.sms.state},
            "tcp": {
                "state": "off" if self.tcp is None else "open",
                "ports": [] if self.tcp is None else list(self.tcp.ports),
                "peer": "" if self.tcp is None else self.tcp.peer,
            },
            "mqtt": {
                "state": "off" if self.broker is None else "on",
                "connected": self.broker is not None and self.broker.connected,
                "remote_at": self._config.mqtt.remote_at,
            },
            "ledger": {"state": self._ledger.failure or "ok", "missed": self._ledger.missed, **counts},
            "clock": {"known": self._clock.known()},
        }

    @property
    def module(self) -> Module:
        """What is known of the module."""
        return self.keepers[0].module if self.keepers else Module()

    async def _make_keepers(self) -> None:
        """Make the keepers with what the ledger remembers of climbs and refused PINs."""
        given = self._config.recovery
        try:
            climbs = str(await self._ledger.ask(tables.get_text(_CLIMBS)))
            self._refused_pins = set(str(await self._ledger.ask(tables.get_text(_PINS))).split())
        except StorageError:
            climbs = ""
        self._ladder = Ladder(
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
                make_channel=self._make_channel,
                ladder=self._ladder,
                fanout=self.fanout,
                on_change=self._module_changed,
                pin=self._pin() if number == 0 else None,
            )
            for number, locator in enumerate(self.locators)
        )

    def _pin(self) -> PinKeeping | None:
        pin = self._config.module.pin
        if pin is None or not self._config.module.send_pin:
            return None

        async def remember(fingerprint: str) -> None:
            self._refused_pins.add(fingerprint)
            await self._ledger.durable(tables.set_text(_PINS, " ".join(sorted(self._refused_pins))))

        async def forget(fingerprint: str) -> None:
            self._refused_pins.discard(fingerprint)
            await self._ledger.durable(tables.set_text(_PINS, " ".join(sorted(self._refused_pins))))

        return PinKeeping(pin.reveal(), self._refused_pins.__contains__, remember, forget)

    def _make_channel(self, on_lost: Lost, on_sent: Sent) -> Channel:
        return Channel(
            unsolicited=self._unsolicited,
            on_lost=on_lost,
            on_sent=on_sent,
            gap=self._config.module.gap,
            prompt_gap=self._config.module.prompt_gap,
            depth=self._config.queue.depth,
            max_wait=self._config.queue.max_wait,
        )

    def _first_channel(self) -> Channel | None:
        return self.keepers[0].channel if self.keepers else None

    def _idlest_channel(self) -> Channel | None:
        """The port with the fewest who have or await it, so that a long command on one holds up nobody on another."""
        channels = [keeper.channel for keeper in self.keepers if keeper.channel is not None]
        return min(channels, key=lambda channel: channel.load, default=None)

    def _waiting(self) -> dict[str, int]:
        waiting: dict[str, int] = {}
        for keeper in self.keepers:
            for asker, depth in (keeper.channel.depths if keeper.channel is not None else {}).items():
                waiting[asker] = waiting.get(asker, 0) + depth
        return waiting

    def _module_state(self) -> dict[str, object]:
        """What `module/state` and `atrunctl status` show of the module."""
        module, readings = self.module, self.telemetry.readings
        return {
            "state": module.state.value,
            "detail": module.detail,
            "port": self._config.module.port,
            "path": self.keepers[0].path if self.keepers else "",
            "model": module.model,
            "firmware": module.firmware,
            "sim": module.sim,
            "registration": module.registration,
            "operator": readings.operator,
            "technology": readings.technology,
            "rssi_dbm": readings.rssi_dbm,
            "rsrp_dbm": readings.rsrp_dbm,
            "rsrq_db": readings.rsrq_db,
            "memory": module.memory,
            "sms_used": readings.sms_used,
            "sms_total": readings.sms_total,
        }

    def _tell_state(self) -> None:
        if self.broker is not None:
            self.broker.tell("module/state", records.state_record(self._mirror.stamp(), self._module_state()))
            self.broker.tell("info", records.info_record(self._mirror.stamp(), self._info()))

    def _info(self) -> dict[str, object]:
        return {
            "version": __version__,
            "contract": records.VERSION,
            "model": self.module.model,
            "firmware": self.module.firmware,
            "doors": self._doors(),
            "line_max": LINE_MAX,
            "queue_depth": self._config.queue.depth,
            "spool": "disk",
        }

    def _make_sms(self) -> SmsDoor:
        given = self._config.sms
        rules = SmsRules(
            numbers=given.numbers,
            passwords=tuple(password.reveal() for password in given.passwords),
            timeout=given.timeout,
            delay=given.delay,
            max_age=given.max_age,
            convert_ucs2=given.ucs2 == "convert",
            answer_max_age=given.answer_max_age,
            answers_per_hour=given.answers_per_hour,
            answers_per_day=given.answers_per_day,
            sweep=given.sweep,
        )
        return SmsDoor(
            rules,
            store=Store(self._first_channel, lambda: self.module.memory),
            fanout=self.fanout,
            runner=self.runner,
            ledger=self._ledger,
            mirror=self._mirror,
            clock=self._clock,
        )

    def _make_tcp(self) -> TcpDoor:
        given = self._config.tcp
        rules = TcpRules(
            listen=tuple(str(address) for address in given.listen),
            port=given.port,
            firewall=given.firewall,
            users=tuple((user.name, user.password.reveal()) for user in given.users),
            login_timeout=given.login_timeout,
            idle_timeout=given.idle_timeout,
            timeout=given.timeout,
            delay=given.delay,
            sequence=given.sequence,
            interfaces=() if given.insecure else given.trusted_interfaces,
        )
        return TcpDoor(rules, runner=self.runner, ledger=self._ledger, mirror=self._mirror)

    def _make_mqtt(self, base: str) -> tuple[MqttDoor, Broker]:
        given = self._config.mqtt
        rules = MqttRules(given.remote_at, given.run_queued, given.reply_prefixes)
        door = MqttDoor(rules, runner=self.runner, ledger=self._ledger, mirror=self._mirror, clock=self._clock)
        settings = BrokerSettings(
            host=given.host,
            port=given.port,
            client_id=given.client_id,
            version5=given.protocol == "5",
            keepalive=round(given.keepalive),
            session_expiry=round(given.session_expiry),
            connect_timeout=given.connect_timeout,
            user=given.user,
            password="" if given.password is None else given.password.reveal(),
            tls=given.tls,
            ca_file=given.ca_file,
            cert_file=given.cert_file,
            key_file=given.key_file,
        )
        broker = Broker(
            settings,
            base=base,
            subscriptions=SUBSCRIPTIONS,
            ledger=self._ledger,
            status=lambda state, reason: records.status_record(self._mirror.stamp(), state=state, reason=reason),
            on_message=door.receive,
        )
        door.broker = broker
        return door, broker

    def _make_local(self) -> LocalDoor | None:
        given = self._config.local
        if given.socket is None:
            return None
        return LocalDoor(given.socket, mode=given.mode, group=given.group, runner=self.runner, status=self.status)

    def _unsolicited(self, lines: tuple[str, ...]) -> None:
        log.debug("unsolicited", code=lines[0])
        self.fanout.publish(lines)
        if self._config.mqtt.urc and self.broker is not None:
            payload = records.urc_record(self._mirror.stamp(), lines)
            self.broker.publish(f"{self._mirror.base}urc", payload, {})

    def _module_changed(self, module: Module) -> None:
        self._notify.status(self._status_line())
        self._tell_state()
        if self.sms is not None and module is self.module and module.state.usable:
            self.sms.look()

    def _status_line(self) -> str:
        module = self.module
        detail = f": {module.detail}" if module.detail else ""
        return f"module {module.state.value}{detail}; doors: {', '.join(self._doors()) or 'none'}"

    def _doors(self) -> list[str]:
        given = {"sms": self.sms, "tcp": self.tcp, "mqtt": self.mqtt, "local": self.local}
        return [name for name, door in given.items() if door is not None]

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
            lying = frozenset() if self.sms is None else self.sms.lying
            if lying is not None:
                self._ledger.behind(*tables.prune(self._ledger.run, lying))
            await asyncio.sleep(PRUNE_EVERY if lying is not None else PRUNE_RETRY)

    async def _feed_watchdog(self, interval: float) -> None:
        while True:
            self._notify.ping()
            await asyncio.sleep(interval)


_CLIMBS: Final = "climbs"
_PINS: Final = "refused pins"
_TASK_END: Final = 5.0
"""Seconds for a cancelled room to end: closing a socket and a paho thread takes a second at most."""


def build(
    config: Config,
    *,
    ledger: Ledger,
    clock: Clock | None = None,
    open_port: OpenPort = open_port,
    look: Snapshot = snapshot,
    notify: Service | None = None,
) -> Daemon:
    """Build the whole daemon on the running loop. Clock, opener of ports and ledger are what a test exchanges."""
    return Daemon(
        config,
        clock=clock or SystemClock(),
        open_port=open_port,
        look=look,
        ledger=ledger,
        notify=notify or Service({}),
    )
