# SPDX-License-Identifier: Apache-2.0
"""What single values can't tell: options that exclude or need each other, and what is allowed but doubtful."""

from collections.abc import Iterator
from ipaddress import ip_address
from os.path import realpath

from atrund.config import tls
from atrund.config.mqtt import Fallback, Mqtt
from atrund.config.reader import Mistake, quote
from atrund.config.values import Config, Module, Policy, Sms, Tcp

SMS_ENTRIES_MAX = 8  # the vendor's white list has 8 places, for numbers and passwords together (SMS-10)
FIREWALL4_MAX = 5  # the vendor's number of rules (TCP-2)
FIREWALL6_MAX = 16  # ours: the kernel's filter program stays short
SPOOL_IN_MEMORY = 8 * 1024**2  # bytes of events in memory that need no word: a third of what the daemon itself takes
WHOLE_NUMBER = 10  # digits from which on a number is hardly a short code, and more likely lacks its "+"
WIDE_PREFIX = 6  # a white-list prefix with fewer digits than this spans more than a number block of one operator


def mistakes(config: Config, clean: frozenset[str]) -> Iterator[Mistake]:
    """The mistakes between options, for the sections named in `clean`, whose own values were all right."""
    if "sms" in clean:
        yield from _sms(config.sms)
    if "tcp" in clean:
        yield from _tcp(config.tcp)
    if "mqtt" in clean:
        yield from _mqtt(config.mqtt)
    if {"sms", "mqtt"} <= clean and config.sms.others == "publish" and not config.mqtt.enabled:
        right = 'mqtt.enabled = true, or "keep" or "delete"'
        yield Mistake("sms.others", '"publish" while mqtt.enabled is false', right)
    if "policy" in clean:
        yield from _policy(config.policy)
    if "module" in clean:
        yield from _module(config.module)
    if {"tcp", "module"} <= clean:
        yield from _own_ports(config)
    if {"module", "recovery"} <= clean:
        yield from _recovery(config)


def warnings(config: Config) -> list[str]:
    """What is allowed and was perhaps not meant, a line each."""
    return list(_warnings(config))


def _sms(sms: Sms) -> Iterator[Mistake]:
    entries = len(sms.numbers) + len(sms.passwords)
    if entries > SMS_ENTRIES_MAX:
        wrong = f"{entries} entries together with sms.password_files"
        yield Mistake("sms.numbers", wrong, f"at most {SMS_ENTRIES_MAX} together")
    yield from _codes(sms)


def _codes(sms: Sms) -> Iterator[Mistake]:
    if not sms.codes and not sms.seal_keys:
        return
    from atrund.atrun.codes import entry_of  # noqa: PLC0415 - few have codes or seals
    from atrund.sms.seal import read_key  # noqa: PLC0415 - as above

    numbers = [code.number for code in sms.codes]
    for index, number in enumerate(numbers):
        if (other := entry_of(number, numbers[:index])) is not None:
            wrong = f"{quote(number)} is the same number as {quote(other)}"
            yield Mistake(f"sms.codes[{index}]", wrong, "each number once, for its codes are counted")
    keys = [read_key(key.reveal()).number for key in sms.seal_keys]
    for index, key in enumerate(keys):
        if key in keys[:index]:
            yield Mistake(f"sms.seal_key_files[{index}]", f"a second key {key}", "a number of its own for each key")


def _tcp(tcp: Tcp) -> Iterator[Mistake]:
    for version, most in ((4, FIREWALL4_MAX), (6, FIREWALL6_MAX)):
        rules = sum(rule.address.version == version for rule in tcp.firewall)
        if rules > most:
            yield Mistake("tcp.firewall", f"has {rules} rules for IPv{version}", f"at most {most}")
    names = [user.name for user in tcp.users]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield Mistake("tcp.users", f"{quote(name)} stands in the list twice", "each name once")
    open_to = [str(address) for address in tcp.listen if not address.is_loopback]
    if open_to and not tcp.insecure and not tcp.trusted_interfaces and not tcp.tls.enabled:
        right = "[tcp.tls], 127.0.0.1 or ::1, the interface in tcp.trusted_interfaces, or tcp.insecure = true"
        yield Mistake("tcp.listen", f"clear text on {', '.join(open_to)} can be read on the way", right)
    yield from _client(tcp)
    yield from tls.mistakes(tcp)
    yield from _bearer(tcp)
    yield from _serial(tcp)


def _serial(tcp: Tcp) -> Iterator[Mistake]:
    for index, port in enumerate(tcp.serial):
        before = tcp.serial[:index]
        if port.number in {other.number for other in before}:
            wrong = f"number {port.number} stands in the list twice"
            yield Mistake(f"tcp.serial[{index}].number", wrong, "a number of its own for each port")
        if realpath(port.path) in {realpath(other.path) for other in before}:
            wrong = f"{quote(str(port.path))} is the path of another entry as well"
            yield Mistake(f"tcp.serial[{index}].path", wrong, "each port once")


def _own_ports(config: Config) -> Iterator[Mistake]:
    own = {realpath(name) for name in (config.module.port, *config.module.extra_ports) if name.startswith("/")}
    for index, port in enumerate(config.tcp.serial):
        if realpath(port.path) in own:
            wrong = f"{quote(str(port.path))} is a port of the module's, which runs commands"
            yield Mistake(f"tcp.serial[{index}].path", wrong, "another serial port of this machine")


def _client(tcp: Tcp) -> Iterator[Mistake]:
    client = tcp.client
    if client.enabled and tcp.enabled:
        wrong = "client mode and the server (tcp.enabled) are both on"
        yield Mistake("tcp.client.enabled", wrong, "one of them at a time")
    if client.enabled and not client.host:
        yield Mistake("tcp.client.host", "is not set", "the host to call")
    elif _is_readable(tcp) and client.host and not client.tls.enabled and not _is_loopback(client.host):
        right = "[tcp.client.tls], a program on loopback, its interface in tcp.trusted_interfaces, tcp.insecure = true"
        yield Mistake("tcp.client.host", f"clear text to {quote(client.host)} can be read on the way", right)


def _is_readable(tcp: Tcp) -> bool:
    """Whether there is no word that clear text may leave this machine."""
    return not tcp.insecure and not tcp.trusted_interfaces


def _bearer(tcp: Tcp) -> Iterator[Mistake]:
    bearer = tcp.bearer
    if bearer.interface and bearer.context:
        yield Mistake("tcp.bearer", "interface and context are both set", "one of them")
    if bearer.activate and not bearer.context:
        yield Mistake("tcp.bearer.activate", "is set without tcp.bearer.context", "the context to activate")
    if bearer.activate and bearer.context and bearer.context == bearer.data_context:
        right = "another context, or tcp.bearer.data_context = 0 where the host has no data through the module"
        yield Mistake("tcp.bearer.activate", f"context {bearer.context} is that of the host's own data", right)
    if (
        bearer.interface
        and not tcp.tls.enabled
        and not tcp.insecure
        and tcp.trusted_interfaces
        and bearer.interface not in tcp.trusted_interfaces
    ):
        right = "name it there too, or say tcp.insecure = true"
        yield Mistake("tcp.bearer.interface", "is not one of tcp.trusted_interfaces", right)


def _mqtt(mqtt: Mqtt) -> Iterator[Mistake]:
    if mqtt.user and mqtt.user_from is not None:
        yield Mistake("mqtt.user_file", "is set, and mqtt.user as well", "one of them")
    if mqtt.password is not None and not mqtt.user and mqtt.user_from is None:
        yield Mistake("mqtt.password_file", "a password without a user", "set mqtt.user as well, or mqtt.user_file")
    if (mqtt.cert_file is None) != (mqtt.key_file is None):
        there, lacking = ("key", "cert") if mqtt.cert_file is None else ("cert", "key")
        yield Mistake(f"mqtt.{there}_file", f"is set without mqtt.{lacking}_file", "set both or neither")
    if not mqtt.tls:
        for name in ("ca_file", "cert_file", "key_file", "server_name", "alpn"):
            if getattr(mqtt, name):
                yield Mistake(f"mqtt.{name}", "is set while mqtt.tls is false", "mqtt.tls = true")
    yield from _brokers(mqtt)


def _brokers(mqtt: Mqtt) -> Iterator[Mistake]:
    seen: set[tuple[str, int]] = set()
    every: list[tuple[str, Mqtt | Fallback]] = [("mqtt", mqtt)]
    every += [(f"mqtt.fallbacks[{index}]", one) for index, one in enumerate(mqtt.fallbacks)]
    for key, broker in every:
        if (broker.host, broker.port) in seen:
            wrong = f"{quote(broker.host)}, port {broker.port}, stands there twice"
            yield Mistake(key, wrong, "each broker once; mqtt.host is the first")
        seen.add((broker.host, broker.port))
        if key != "mqtt" and not mqtt.tls and (broker.server_name or broker.alpn):
            yield Mistake(key, "has server_name or alpn while mqtt.tls is false", "mqtt.tls = true")
        if mqtt.enabled and not mqtt.tls and not mqtt.insecure and not _is_loopback(broker.host):
            right = "mqtt.tls = true, a broker on localhost, or mqtt.insecure = true"
            yield Mistake(f"{key}.host", f"clear text to {quote(broker.host)} can be read on the way", right)


def _policy(policy: Policy) -> Iterator[Mistake]:
    if policy.monitor.hazards == "confirm":
        right = '"refuse" or "allow"'
        yield Mistake("policy.monitor.hazards", '"confirm" while nobody is there to confirm a stored command', right)


def _module(module: Module) -> Iterator[Mistake]:
    ports = 1 + len(module.extra_ports) if module.port else 0
    for index, number in enumerate(module.instance_ports):
        if number > ports:
            there = "there is no port at all" if not ports else f"there {_are(ports)}"
            right = f"0 to {ports}, or one more in module.extra_ports" if ports else "0, or module.port first"
            yield Mistake(f"module.instance_ports[{index}]", f"no port {number} is configured: {there}", right)


def _are(ports: int) -> str:
    return "is port 1 alone" if ports == 1 else f"are {ports}"


def _recovery(config: Config) -> Iterator[Mistake]:
    recovery = config.recovery
    if recovery.timeout_action != "reboot":
        return
    wrong = f'"reboot" while recovery.reboot is {quote(recovery.reboot)}'
    if config.module.shared and recovery.reboot != "always":
        right = 'recovery.reboot = "always", for the module is shared: a reboot cuts the data connection of others'
        yield Mistake("recovery.timeout_action", wrong, right)
    elif recovery.reboot == "never":
        yield Mistake("recovery.timeout_action", wrong, 'recovery.reboot = "unused" or "always"')


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _warnings(config: Config) -> Iterator[str]:
    if not config.module.port:
        yield "module.port: no port is configured, so no command can be run"
    yield from _sms_warnings(config.sms)
    yield from _tcp_warnings(config.tcp)
    mqtt = config.mqtt
    hosts = (mqtt.host, *(fallback.host for fallback in mqtt.fallbacks))
    if mqtt.enabled and mqtt.insecure and not mqtt.tls and not all(map(_is_loopback, hosts)):
        yield "mqtt.insecure: commands, answers and the password travel in clear text"
    if mqtt.enabled and mqtt.spool == "memory" and mqtt.spool_bytes > SPOOL_IN_MEMORY:
        most = mqtt.spool_bytes * 3 // 2 // 1024**2
        yield f'mqtt.spool_bytes: with mqtt.spool = "memory" events may take {most} MiB of it; a few MiB suit a router'
    if mqtt.homeassistant.enabled and not mqtt.enabled:
        yield "mqtt.homeassistant.enabled: does nothing while mqtt.enabled is false"
    if mqtt.enabled and mqtt.tls:
        yield from tls.broker_warnings(mqtt)
    if config.recovery.timeout_action == "reboot" and not config.recovery.per_hour:
        yield "recovery.per_hour: with 0 the module is never rebooted, whatever timeout_action says"
    if config.local.mode & 0o002:
        yield "local.mode: every user of this machine may run commands"


def _sms_warnings(sms: Sms) -> Iterator[str]:
    if sms.enabled and not sms.numbers and not sms.passwords and not sms.seal_keys:
        yield "sms.enabled: neither numbers nor password_files are set, so no SMS will be taken"
    for code in sms.codes:
        begins = any(entry.endswith("*") and code.number.startswith(entry[:-1]) for entry in sms.numbers)
        if code.number not in sms.numbers and not begins:
            yield f'sms.codes: "{code.number}" is not in sms.numbers, and a code alone lets nobody in'
    for number in sms.numbers:
        if number.endswith("*") and sum(map(str.isdigit, number)) < WIDE_PREFIX:
            yield f'sms.numbers: "{number}" admits very many senders, and a sender can be forged'
        elif number.isdigit() and len(number) >= WHOLE_NUMBER:
            yield f'sms.numbers: "{number}" has no "+", as most senders have; did you mean "+{number}"?'
    if sms.enabled and 0 in (sms.answers_per_hour, sms.answers_per_day):
        yield "sms.answers_per_hour, sms.answers_per_day: with 0 no SMS is ever answered"


def _tcp_warnings(tcp: Tcp) -> Iterator[str]:
    if tcp.enabled and not tcp.users:
        yield "tcp.users: is empty, so nobody can log in"
    for version in sorted({address.version for address in tcp.listen}):
        if tcp.enabled and not any(rule.address.version == version for rule in tcp.firewall):
            yield f"tcp.firewall: has no rule for IPv{version}, so no IPv{version} peer is admitted"
    if any(int(rule.mask) == 0 for rule in tcp.firewall):
        yield "tcp.firewall: a rule with an empty mask admits every peer"
    if tcp.client.enabled and tcp.client.token is None and not tcp.client.tls.enabled:
        yield "tcp.client.token_file: is not set, so whoever answers at tcp.client.host may run commands"
    yield from tls.warnings(tcp)
    if not tcp.idle_timeout:
        yield "tcp.idle_timeout: with 0 a peer that vanishes keeps its place until TCP itself notices"
    if tcp.enabled and tcp.port == 0:
        yield "tcp.port: with 0 the kernel chooses a port at every start"
