# SPDX-License-Identifier: Apache-2.0
"""Makes the doors and the broker of the configuration, each by a function of its own."""

import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

from atrund import config, records
from atrund.activation import Shelf
from atrund.admin import Facts
from atrund.atrun.family.forms import Delays, Service
from atrund.atrun.firewall import Rule as FirewallRule
from atrund.atrun.packing import Packets
from atrund.atrun.policy import DEFAULTS, DoorPolicy
from atrund.atrun.reporting import Reporting
from atrund.atrun.request import Door, Reason
from atrund.atrun.rules import Hazards, Verb
from atrund.atrun.secrets import mask_line
from atrund.atrun.settings import FIREWALL_MAX, LOGINS_MAX, WHITE_LIST_MAX, Login, Rule, Settings, slots
from atrund.atrun.settings import Socket as SocketSettings
from atrund.atrun.settings import Tcp as TcpSettings
from atrund.broker import Broker, BrokerSettings, Place
from atrund.clock import Clock
from atrund.config.tls import server_files
from atrund.doors.connection import Means as SessionMeans
from atrund.doors.local import Administer, Lend, LocalDoor
from atrund.doors.monitor import MonitorDoor
from atrund.doors.mqtt import SUBSCRIPTIONS, MqttDoor, MqttRules
from atrund.doors.room import RoomRules
from atrund.doors.serving import SmsRules
from atrund.doors.sms import SmsDoor
from atrund.doors.tcp import TcpDoor, TcpRules
from atrund.doors.terminal import TerminalDoor, TerminalRules
from atrund.instances import Instances
from atrund.ledger import Ledger
from atrund.mirror import Mirror
from atrund.module.store import Store
from atrund.module.urc import Fanout
from atrund.own import WITH_DELIVERY, Own
from atrund.runner import Runner

if TYPE_CHECKING:  # few ask for it
    from atrund.doors.admission import Admission
    from atrund.doors.transparent import Transparent

Heard = Callable[[str, int, str], None]
"""Takes the memory, the index and the PDU of a message, "" for one that was not read."""


@dataclass(frozen=True, slots=True)
class Means:
    """What every door works with."""

    runner: Runner
    ledger: Ledger
    mirror: Mirror
    clock: Clock
    own: Own
    instances: Instances
    told: Callable[[Service], int]
    """The instance that is told what a service has to say."""

    def say(self, service: Service, line: str) -> None:
        """Put out a service's unsolicited code."""
        self.instances.say(self.told(service), line)

    def say_of_tcp(self, service: Service) -> Callable[[str], None]:
        """Return what puts out the codes of a TCP service, where these are wanted (TCP-12)."""
        return lambda line: self.say(service, line) if self.own.settings.tcp.urc else None

    @property
    def of_session(self) -> SessionMeans:
        """What a TCP session works with."""
        return SessionMeans(self.runner, self.own, self.instances)


def file_settings(given: config.Config) -> Settings:
    """Return what the configuration file says of all that commands can set too."""
    sms, tcp = given.sms, given.tcp
    rules = [
        Rule(rule.address, rule.mask)
        for rule in tcp.firewall
        if isinstance(rule.address, IPv4Address) and isinstance(rule.mask, IPv4Address)
    ]
    base = Settings()
    return base.changed(
        {
            "sms.enabled": sms.enabled,
            "sms.instance": sms.instance,
            "sms.urc": sms.urc,
            "sms.timeout": sms.timeout,
            "sms.whitelist": slots((*sms.numbers, *sms.passwords), WHITE_LIST_MAX),
            "tcp.enabled": tcp.enabled,
            "tcp.instance": tcp.instance,
            "tcp.urc": tcp.urc,
            "tcp.port": tcp.port,
            "tcp.timeout": tcp.timeout,
            "tcp.step_login": tcp.step_login,
            "tcp.sequence": tcp.sequence,
            "tcp.firewall": slots(rules, FIREWALL_MAX),
            "tcp.users": slots((Login(user.name, user.password) for user in tcp.users), LOGINS_MAX),
            f"tcp.socket.{base.tcp.conn_id}.idle_timeout": tcp.idle_timeout,
            "tcp.client.enabled": tcp.client.enabled,
            "tcp.client.host": tcp.client.host,
            "tcp.client.port": tcp.client.port,
            "tcp.client.retries": tcp.client.retries,
            "tcp.client.retry_delay": tcp.client.retry_delay,
        }
    )


def delays(given: config.Config, now: Delays | None = None, before: config.Config | None = None) -> Delays:
    """Return the delays that the file gives, but for those of `now` that a command made others than `before` had."""
    if now is None or before is None:
        return Delays(tcp=given.tcp.delay, sms=given.sms.delay)
    return Delays(
        tcp=given.tcp.delay if now.tcp == before.tcp.delay else now.tcp,
        sms=given.sms.delay if now.sms == before.sms.delay else now.sms,
    )


def policies(given: config.Policy) -> dict[Door, DoorPolicy]:
    """Return what is allowed at each door."""
    doors = {
        Door.SMS: given.sms,
        Door.TCP: given.tcp,
        Door.MQTT: given.mqtt,
        Door.LOCAL: given.local,
        Door.MONITOR: given.monitor,
    }
    return DEFAULTS | {
        door: DoorPolicy(Verb(one.default), one.rules, Hazards(one.hazards), door.value in given.remote_admin)
        for door, one in doors.items()
    }


def needs(configured: Callable[[], config.Sms], own: Own, monitor: MonitorDoor) -> Callable[[], Reporting]:
    """Return what tells what the module must report for the daemon itself."""

    def needed() -> Reporting:
        delivery = own.settings.sms.enabled and configured().delivery_reports
        return {**monitor.needs(), **(WITH_DELIVERY if delivery else {})}

    return needed


def monitor_door(means: Means, store: Store, fanout: Fanout) -> MonitorDoor:
    """Make the event monitor."""
    return MonitorDoor(
        means.own,
        runner=means.runner,
        ledger=means.ledger,
        mirror=means.mirror,
        fanout=fanout,
        store=store,
        say=lambda line: means.say(Service.MONITOR, line),
    )


def sms_door(configured: Callable[[], config.Sms], means: Means, store: Store, fanout: Fanout, heard: Heard) -> SmsDoor:
    """Make the SMS door; `heard` is told of each new message that is none of ours."""

    def rules() -> SmsRules:
        given, settings = configured(), means.own.settings.sms
        return SmsRules(
            numbers=settings.numbers,
            passwords=tuple(password.reveal() for password in settings.passwords),
            timeout=settings.timeout,
            delay=means.own.delays.sms,
            max_age=given.max_age,
            convert_ucs2=given.ucs2 == "convert",
            answer_max_age=given.answer_max_age,
            answers_per_hour=given.answers_per_hour,
            answers_per_day=given.answers_per_day,
            delivery_reports=given.delivery_reports,
            sweep=given.sweep,
            room=RoomRules(given.others, given.make_room == "oldest"),
            instance=settings.instance,
        )

    def taken(text: str) -> None:
        if means.own.settings.sms.urc:
            means.say(Service.SMS, f"#SMSATRUN: {mask_line(text)}")

    def announce(memory: str, index: int, pdu: str) -> None:
        means.instances.announce(memory, index, pdu)
        heard(memory, index, pdu)

    return SmsDoor(
        rules,
        taken=taken,
        announce=announce,
        store=store,
        fanout=fanout,
        runner=means.runner,
        ledger=means.ledger,
        mirror=means.mirror,
        clock=means.clock,
        admission=lambda: admission(configured(), ledger=means.ledger, clock=means.clock),
    )


def admission(given: config.Sms, *, ledger: Ledger, clock: Clock) -> "Admission | None":
    """Return what asks for more than the vendor's rules, None where nothing does."""
    if not (given.codes or given.seal_keys or given.digest_replay or given.rate.count):
        return None
    from atrund.atrun.codes import read_secret  # noqa: PLC0415 - few ask for it
    from atrund.doors.admission import Admission, AdmissionRules, Code  # noqa: PLC0415 - as above
    from atrund.sms.seal import read_key  # noqa: PLC0415 - as above

    rules = AdmissionRules(
        codes={
            code.number: Code(read_secret(code.secret.reveal()), required=code.code == "required")
            for code in given.codes
        },
        seals=tuple(read_key(key.reveal()) for key in given.seal_keys),
        seal_max_age=given.seal_max_age,
        digest_replay=given.digest_replay,
        rate_count=given.rate.count,
        rate_per=given.rate.per,
    )
    return Admission(rules, ledger=ledger, clock=clock)


def facts(given: config.Config, own: Own) -> Facts:
    """Return what the configuration says that settings don't."""
    return Facts(
        firewall=lambda: firewall(given.tcp, own.settings.tcp),
        mqtt=given.mqtt.enabled,
        remote_at=given.mqtt.remote_at,
        confirm_after=given.policy.confirm_after,
        codes={code.number: code.code == "required" for code in given.sms.codes},
        seals=bool(given.sms.seal_keys),
    )


def firewall(given: config.Tcp, settings: TcpSettings) -> tuple[FirewallRule, ...]:
    """Return the rules in force: IPv6 rules are the file's alone (TCP-2)."""
    return (*settings.rules, *(rule for rule in given.firewall if isinstance(rule.address, IPv6Address)))


def tcp_door(configured: Callable[[], config.Tcp], means: Means, shelf: Shelf) -> TcpDoor:
    """Make the TCP door."""

    def rules() -> TcpRules:
        given, settings = configured(), means.own.settings.tcp
        return TcpRules(
            listen=tuple(str(address) for address in given.listen),
            port=settings.port,
            firewall=firewall(given, settings),
            users=tuple((login.name, login.password.reveal()) for login in settings.logins),
            login_timeout=given.login_timeout,
            idle_timeout=settings.own_socket.idle_timeout,
            timeout=settings.timeout,
            sequence=settings.sequence,
            instance=settings.instance,
            step_login=settings.step_login,
            interfaces=interfaces(given),
            login_failures=given.login_failures,
            shut_out=given.shut_out,
            packets=packets(settings.own_socket),
            sessions=given.sessions,
            replace=given.replace == "authenticated",
            tls=server_files(given.tls) if given.tls.enabled else None,
        )

    say = means.say_of_tcp(Service.TCP_SERVER)
    return TcpDoor(rules, means.of_session, ledger=means.ledger, mirror=means.mirror, say=say, shelf=shelf)


def packets(settings: SocketSettings) -> Packets:
    """Return what `#SCFG` and `#SCFGEXT` say of a connection's packets."""
    return Packets(settings.packet_size, settings.send_timeout, settings.keepalive)


def transparent(given: tuple[config.SerialPort, ...]) -> "Transparent | None":
    """Make the way to serial ports of the host; None while none is configured."""
    if not given:
        return None
    from atrund.doors.transparent import Transparent  # noqa: PLC0415 - few have one
    from atrund.module.raw import Flow, open_raw  # noqa: PLC0415 - as above
    from atrund.relay import Port, Ports  # noqa: PLC0415 - as above

    def port(one: config.SerialPort) -> Port:
        return Port(one.rates, lambda rate: open_raw(str(one.path), rate, Flow(one.flow)))

    return Transparent(Ports({one.number: port(one) for one in given}))


def interfaces(given: config.Tcp) -> tuple[str, ...]:
    """Return the interfaces that the server keeps to off loopback, none for any: the bearer's, else where it may."""
    if given.bearer.interface:
        return (given.bearer.interface,)
    return () if given.insecure or given.tls.enabled else given.trusted_interfaces


def mqtt_rules(given: config.Mqtt) -> MqttRules:
    """Return what the MQTT door goes by."""
    return MqttRules(given.remote_at, given.run_queued, given.reply_prefixes)


def mqtt_door(given: config.Mqtt, means: Means) -> tuple[MqttDoor | None, Broker | None]:
    """Make the MQTT door and its broker; neither while MQTT is off."""
    if not given.enabled:
        return None, None
    door = MqttDoor(mqtt_rules(given), runner=means.runner, ledger=means.ledger, mirror=means.mirror, clock=means.clock)
    mirror = means.mirror
    door.broker = broker = Broker(
        broker_settings(given),
        base=mirror.base,
        subscriptions=SUBSCRIPTIONS,
        ledger=means.ledger,
        status=lambda state, reason: records.status_record(mirror.stamp(), state=state, reason=reason),
        on_message=door.receive,
        clock_known=means.clock.known,
    )
    return door, broker


def broker_settings(given: config.Mqtt) -> BrokerSettings:
    """Return where the brokers are, and how they are spoken to."""
    return BrokerSettings(
        host=given.host,
        port=given.port,
        client_id=given.client_id,
        version5=given.protocol == "5",
        keepalive=round(given.keepalive),
        session_expiry=round(given.session_expiry),
        connect_timeout=given.connect_timeout,
        user=given.user if given.user_from is None else given.user_from.reveal(),
        password="" if given.password is None else given.password.reveal(),
        tls=given.tls,
        ca_file=given.ca_file,
        cert_file=given.cert_file,
        key_file=given.key_file,
        server_name=given.server_name,
        alpn=given.alpn,
        fallbacks=tuple(Place(one.host, one.port, one.server_name, one.alpn) for one in given.fallbacks),
        return_after=given.return_after,
        spread=given.spread,
        reconnect_max=given.reconnect_max,
    )


def local_door(
    given: config.Local,
    means: Means,
    status: Callable[[], Awaitable[dict[str, object]]],
    administer: Administer,
    lend: Lend,
    *,
    listener: socket.socket | None = None,
) -> LocalDoor | None:
    """Make the control socket; None where there is none to be."""
    if given.socket is None:
        return None
    return LocalDoor(
        given.socket,
        mode=given.mode,
        group=given.group,
        runner=means.runner,
        status=status,
        administer=administer,
        lend=lend,
        status_group=given.status_group,
        command_group=given.command_group,
        given=listener,
        record=lambda peer, what: means.ledger.behind(*means.mirror.session(Door.LOCAL, peer, what, Reason.AUTH.value)),
    )


def terminal_door(given: config.Local, means: Means) -> TerminalDoor | None:
    """Make the terminals; None where there are none to be."""
    links = tuple((number, link) for number, link in enumerate(given.terminals, 1) if link is not None)
    if not links:
        return None
    rules = TerminalRules(links, group=given.terminal_group)
    return TerminalDoor(rules, runner=means.runner, instances=means.instances, interface=means.own.interface)
