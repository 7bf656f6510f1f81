# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: RUF009 - option, required and section stand for dataclasses.field, which the rule knows and them not
"""Every option of atrund as frozen dataclasses: name, default and range stand here and in etc/atrund.toml alone.

Times are seconds, sizes bytes. An option whose default is "" is computed or absent, as its comment says.
"""

from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_interface, ip_network
from pathlib import Path
from typing import Literal

from atrund.atrun.family.tcp import SERIAL_RATES
from atrund.atrun.rules import RULES_MAX, Rule
from atrund.atrun.secrets import Secret
from atrund.config import kinds
from atrund.config.mqtt import Mqtt
from atrund.config.reader import Place, expect, option, quote, required, required_as, section
from atrund.config.tls import Certificate, certificate
from atrund.records import NODE

Ucs2 = Literal["convert", "vendor"]
Others = Literal["keep", "publish", "delete"]
WantsCode = Literal["required", "optional"]
Replace = Literal["never", "authenticated"]
MakeRoom = Literal["oldest", "never"]
Level = Literal["debug", "info", "warning", "error"]
Format = Literal["auto", "console", "journal", "json"]
Numbers = Literal["masked", "full"]
Reboot = Literal["never", "unused", "always"]
TimeoutAction = Literal["leave", "reboot"]
Verdict = Literal["allow", "deny"]
HazardWord = Literal["refuse", "confirm", "allow"]
RemoteDoor = Literal["sms", "tcp", "mqtt"]
Flow = Literal["none", "rtscts", "xonxoff"]

DAY = 86400.0
CONTROL_SOCKET: Path | None = Path("/run/atrund.sock")

white_list_entry = kinds.text(r"\+?[0-9]{1,20}\*?", 'digits, with an optional "+" before and "*" behind them')
argument = kinds.text(r"[^\x00]{1,4096}", "an argument of 1 to 4096 characters")


@dataclass(frozen=True, slots=True)
class FirewallRule:
    """Admits a peer of the same family if `peer & mask == address & mask` (TCP-2)."""

    address: IPv4Address | IPv6Address
    mask: IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class _Masked:
    """A firewall rule as the vendor writes one."""

    address: IPv4Address | IPv6Address = required(kinds.address)
    mask: IPv4Address | IPv6Address = required(kinds.address)


def firewall_rule(value: object, place: Place) -> FirewallRule:
    """`"217.0.0.0/8"`, `"2001:db8::/32"`, or the vendor's address and mask, whose mask may have holes."""
    right = 'a network such as "217.0.0.0/8", or {address = "217.0.0.0", mask = "255.0.0.0"}'
    if isinstance(value, dict):
        masked = kinds.table(_Masked)(value, place)
        if masked.address.version != 4 or masked.mask.version != 4:
            place.refuse("address and mask are for IPv4", 'for IPv6 a network such as "2001:db8::/32"')
        return FirewallRule(masked.address, masked.mask)
    string = expect(str, value, place, right)
    try:
        network = ip_network(string)
    except ValueError:
        with suppress(ValueError):  # an address of a network, in place of the network's own
            meant = ip_interface(string)
            right = f'did you mean "{meant.network}", or "{meant.ip}" alone?'
        place.refuse(f"{quote(string)} is no network", right)
    return FirewallRule(network.network_address, network.netmask)


@dataclass(frozen=True, slots=True)
class TcpUser:
    """One who may log in over TCP."""

    name: str = required(kinds.text(r"[^\x00-\x1f\x7f]{1,50}", "a name of 1 to 50 characters"))
    password: Secret = required_as("password_file", kinds.secret_file(kinds.tcp_password))


@dataclass(frozen=True, slots=True)
class Module:
    """The module and its ports: `port` carries unsolicited codes and the SMS store, `extra_ports` commands only."""

    port: str = option("", kinds.port_name)
    extra_ports: tuple[str, ...] = option((), kinds.items(kinds.port_name, at_most=3, what="ports"))
    instance_ports: tuple[int, ...] = option(
        (), kinds.items(kinds.integer(0, 4, "a port's number"), at_most=3, what="numbers of ports", repeated=True)
    )
    baudrate: int = option(115200, kinds.integer(300, 4000000, "a rate"))
    shared: bool = option(True, kinds.flag)
    gap: float = option(0.020, kinds.duration(0, 5))
    prompt_gap: float = option(0.050, kinds.duration(0, 5))
    pin: Secret | None = option(None, kinds.secret(kinds.sim_pin), key="pin_file")
    send_pin: bool = option(False, kinds.flag)
    telemetry: float = option(300.0, kinds.duration(10, DAY, zero=True))


@dataclass(frozen=True, slots=True)
class Recovery:
    """What is done to a module that does not answer any more (MOD-4, MOD-8), or not in time (REQ-7)."""

    reboot: Reboot = option("unused", kinds.choice("never", "unused", "always"))
    command: tuple[str, ...] = option((), kinds.items(argument, at_most=32, what="arguments", repeated=True))
    per_hour: int = option(3, kinds.integer(0, 60))
    timeout_action: TimeoutAction = option("leave", kinds.choice("leave", "reboot"))


@dataclass(frozen=True, slots=True)
class Weights:
    """How many turns on the port each asker gets where all wait: those of the doors, and the daemon's own work."""

    sms: int = option(1, kinds.weight)
    tcp: int = option(1, kinds.weight)
    mqtt: int = option(1, kinds.weight)
    local: int = option(1, kinds.weight)
    daemon: int = option(1, kinds.weight)


@dataclass(frozen=True, slots=True)
class Queue:
    """What waits for its turn on the port, for each door (REQ-3)."""

    depth: int = option(32, kinds.integer(1, 1000))
    max_wait: float = option(600.0, kinds.duration(1, DAY))
    weights: Weights = section(Weights)


@dataclass(frozen=True, slots=True)
class SmsCode:
    """The codes of a number; docs/sms-security.md."""

    number: str = required(kinds.text(r"\+?[0-9]{1,20}", 'digits, with an optional "+" before them'))
    secret: Secret = required_as("secret_file", kinds.secret_file(kinds.code_secret))
    code: WantsCode = option("required", kinds.choice("required", "optional"))


@dataclass(frozen=True, slots=True)
class SmsRate:
    """How often a sender's commands are taken: `count` in each span of `per`, 0 for as often as they come."""

    count: int = option(0, kinds.integer(0, 1000))
    per: float = option(3600.0, kinds.duration(60, 30 * DAY))


@dataclass(frozen=True, slots=True)
class Sms:
    """The SMS door. `passwords` come from `password_files`, `seal_keys` from `seal_key_files`."""

    enabled: bool = option(False, kinds.flag)
    numbers: tuple[str, ...] = option((), kinds.items(white_list_entry, at_most=8, what="numbers"))
    passwords: tuple[Secret, ...] = option(
        (),
        kinds.items(kinds.secret_file(kinds.sms_password), at_most=2, what="files"),
        key="password_files",
    )
    instance: int = option(3, kinds.integer(1, 3, "an instance"))
    urc: bool = option(True, kinds.flag)
    timeout: float = option(300.0, kinds.duration(60, 3600))
    max_age: float = option(DAY, kinds.duration(60, 30 * DAY, zero=True))
    ucs2: Ucs2 = option("convert", kinds.choice("convert", "vendor"))
    delay: float = option(0.0, kinds.duration(0, 30))
    answer_max_age: float = option(3600.0, kinds.duration(60, 30 * DAY))
    answers_per_hour: int = option(30, kinds.integer(0, 1000))
    answers_per_day: int = option(100, kinds.integer(0, 10000))
    delivery_reports: bool = option(False, kinds.flag)
    sweep: float = option(60.0, kinds.duration(10, 3600))
    others: Others = option("keep", kinds.choice("keep", "publish", "delete"))
    make_room: MakeRoom = option("oldest", kinds.choice("oldest", "never"))
    codes: tuple[SmsCode, ...] = option((), kinds.items(kinds.table(SmsCode), at_most=8, what="numbers"))
    seal_keys: tuple[Secret, ...] = option(
        (), kinds.items(kinds.secret_file(kinds.seal_key), at_most=8, what="files"), key="seal_key_files"
    )
    seal_max_age: float = option(DAY, kinds.duration(60, 30 * DAY, zero=True))
    digest_replay: float = option(0.0, kinds.duration(3600, 365 * DAY, zero=True))
    rate: SmsRate = section(SmsRate)


@dataclass(frozen=True, slots=True)
class TcpTls:
    """TLS of the TCP server; `client_ca`: whose certificates callers must show (TCP-13)."""

    enabled: bool = option(False, kinds.flag)
    certificate: Certificate | None = option(None, certificate)
    key: Path | None = option(None, kinds.private_file)
    client_ca: Path | None = option(None, kinds.public_file)


@dataclass(frozen=True, slots=True)
class TcpClientTls:
    """TLS of client mode; `ca` None: the system's; `server_name`: whom its certificate is for, "" the host."""

    enabled: bool = option(False, kinds.flag)
    ca: Path | None = option(None, kinds.public_file)
    certificate: Certificate | None = option(None, certificate)
    key: Path | None = option(None, kinds.private_file)
    server_name: str = option("", kinds.text(r"[A-Za-z0-9._:-]{0,255}", 'a host name or address, or "" for the host'))


@dataclass(frozen=True, slots=True)
class TcpClient:
    """Client mode of the TCP door: whom to call, and how often again (TCP-11). `token` comes from `token_file`."""

    enabled: bool = option(False, kinds.flag)
    host: str = option("", kinds.text(r"[A-Za-z0-9._:%-]{0,255}", 'a host name or address, or "" for none'))
    port: int = option(1024, kinds.integer(1, 65535, "a port"))
    retries: int = option(0, kinds.integer(0, 5))
    retry_delay: float = option(120.0, kinds.duration(60, 3600 * 60))
    redial: float = option(1800.0, kinds.duration(60, 7 * DAY, zero=True))
    token: Secret | None = option(None, kinds.secret(kinds.tcp_token), key="token_file")
    tls: TcpClientTls = section(TcpClientTls)


@dataclass(frozen=True, slots=True)
class TcpBearer:
    """What the TCP door waits for (TCP-14): an `interface` of the host, a `context` of the module, neither: nothing.

    `data_context`: the one that the host's own data uses, 0 for none.
    """

    interface: str = option("", kinds.text(r"|[^\s/:]{1,15}", 'the name of a network interface, or "" for none'))
    context: int = option(0, kinds.integer(0, 6, "a context"))
    activate: bool = option(False, kinds.flag)
    data_context: int = option(1, kinds.integer(0, 6, "a context"))


@dataclass(frozen=True, slots=True)
class SerialPort:
    """A serial port of the host that `#TCPATCONSER` may reach (TCP-6)."""

    number: int = required(kinds.integer(0, 9, "a port's number"))
    path: Path = required(kinds.absolute)
    rates: tuple[int, ...] = option(
        SERIAL_RATES, kinds.items(kinds.serial_rate, at_least=1, at_most=len(kinds.RATES), what="rates")
    )
    flow: Flow = option("none", kinds.choice("none", "rtscts", "xonxoff"))


@dataclass(frozen=True, slots=True)
class Tcp:
    """The TCP door."""

    enabled: bool = option(False, kinds.flag)
    listen: tuple[IPv4Address | IPv6Address, ...] = option(
        (IPv4Address("127.0.0.1"),), kinds.items(kinds.address, at_least=1, at_most=8, what="addresses")
    )
    port: int = option(1024, kinds.port)
    instance: int = option(2, kinds.integer(1, 3, "an instance"))
    urc: bool = option(True, kinds.flag)
    step_login: bool = option(False, kinds.flag)
    firewall: tuple[FirewallRule, ...] = option((), kinds.items(firewall_rule, at_most=21, what="rules"))
    users: tuple[TcpUser, ...] = option((), kinds.items(kinds.table(TcpUser), at_most=3, what="users"))
    login_timeout: float = option(60.0, kinds.duration(5, 600))
    login_failures: int = option(5, kinds.integer(1, 100, "a number of wrong logins"))
    shut_out: float = option(900.0, kinds.duration(1, 86400, zero=True))
    sessions: int = option(1, kinds.integer(1, 8, "a number of sessions"))
    replace: Replace = option("never", kinds.choice("never", "authenticated"))
    idle_timeout: float = option(600.0, kinds.duration(1, 65535, zero=True))
    timeout: float = option(300.0, kinds.duration(60, 300))
    sequence: bool = option(False, kinds.flag)
    delay: float = option(0.0, kinds.duration(0, 30))
    insecure: bool = option(False, kinds.flag)
    trusted_interfaces: tuple[str, ...] = option(
        (),
        kinds.items(kinds.text(r"[^\s/:]{1,15}", "the name of a network interface"), at_most=16, what="interfaces"),
    )
    serial: tuple[SerialPort, ...] = option((), kinds.items(kinds.table(SerialPort), at_most=8, what="ports"))
    tls: TcpTls = section(TcpTls)
    client: TcpClient = section(TcpClient)
    bearer: TcpBearer = section(TcpBearer)


@dataclass(frozen=True, slots=True)
class Local:
    """The control socket for atrunctl, and terminals; `mode` is a number, `group` "" the daemon's own.

    `terminals`: the links of the terminals of instance 1, 2, 3; "" for none.
    """

    socket: Path | None = option(CONTROL_SOCKET, kinds.socket_path)
    mode: int = option(0o660, kinds.octal)
    group: str = option("", kinds.group)
    status_group: str = option("", kinds.group)
    command_group: str = option("", kinds.group)
    terminals: tuple[Path | None, ...] = option(
        (), kinds.items(kinds.link_path, at_most=3, what="links", repeated=True)
    )
    terminal_group: str = option("atrund", kinds.group)


@dataclass(frozen=True, slots=True)
class Log:
    """What is logged, and in which form."""

    level: Level = option("info", kinds.choice("debug", "info", "warning", "error"))
    format: Format = option("auto", kinds.choice("auto", "console", "journal", "json"))
    audit_chain: bool = option(False, kinds.flag)


@dataclass(frozen=True, slots=True)
class Privacy:
    """What may leave the device."""

    numbers: Numbers = option("masked", kinds.choice("masked", "full"))
    identity: bool = option(False, kinds.flag)


@dataclass(frozen=True, slots=True)
class DoorRules:
    """What commands a remote door takes (POL-1): the first rule that fits decides, else `default`."""

    default: Verdict = option("allow", kinds.choice("allow", "deny"))
    rules: tuple[Rule, ...] = option((), kinds.items(kinds.policy_rule, at_most=RULES_MAX, what="rules", repeated=True))
    hazards: HazardWord = option("refuse", kinds.choice("refuse", "confirm", "allow"))


@dataclass(frozen=True, slots=True)
class LocalRules(DoorRules):
    """The same for the local door."""

    hazards: HazardWord = option("confirm", kinds.choice("refuse", "confirm", "allow"))


@dataclass(frozen=True, slots=True)
class Policy:
    """What may be asked of the module, and what is hidden of it (POL-1 to POL-3)."""

    remote_admin: tuple[RemoteDoor, ...] = option(
        (), kinds.items(kinds.choice("sms", "tcp", "mqtt"), at_most=3, what="doors")
    )
    confirm_after: float = option(300.0, kinds.duration(10, DAY))
    mask: tuple[str, ...] = option((), kinds.items(kinds.mask, at_most=32, what="masks"))
    sms: DoorRules = section(DoorRules)
    tcp: DoorRules = section(DoorRules)
    mqtt: DoorRules = section(DoorRules)
    local: LocalRules = section(LocalRules)
    monitor: DoorRules = section(DoorRules)


@dataclass(frozen=True, slots=True)
class Config:
    """The whole file. After loading, `node` is never empty."""

    locked: bool = option(False, kinds.flag)

    node: str = option("", kinds.text(f"|{NODE}", "1 to 64 of the characters A-Z a-z 0-9 . _ -"))
    state_dir: Path = option(Path("/var/lib/atrund"), kinds.absolute)
    module: Module = section(Module)
    recovery: Recovery = section(Recovery)
    queue: Queue = section(Queue)
    sms: Sms = section(Sms)
    tcp: Tcp = section(Tcp)
    mqtt: Mqtt = section(Mqtt)
    policy: Policy = section(Policy)
    local: Local = section(Local)
    log: Log = section(Log)
    privacy: Privacy = section(Privacy)
