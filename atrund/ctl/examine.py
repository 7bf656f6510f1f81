# SPDX-License-Identifier: Apache-2.0
"""The examination behind `atrunctl doctor`: what was seen of modules, ports and host -> findings with advice."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Final

from atrund.ctl import host as hosts
from atrund.ctl import manager as managers
from atrund.ctl.daemon_state import judge
from atrund.ctl.findings import Finding, Level, worst
from atrund.ctl.host import Host, Node
from atrund.ctl.manager import Manager
from atrund.ctl.probe import Answers, probe
from atrund.ctl.probed import judge_answers
from atrund.usb.compositions import Role, composition
from atrund.usb.holders import Holder, Holders
from atrund.usb.names import ByImei, PortNameError, candidates, decide, parse_name, resolve
from atrund.usb.sysfs import UsbDevice, UsbPort, modules, snapshot

USER: Final = "atrund"

NOT_PUBLIC: Final = tuple(ip_network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))
SHARED: Final = ip_network("100.64.0.0/10")
"""Private addresses (RFC 1918 3), and those that an operator's NAT gives its customers (RFC 6598)."""

AS_ROOT: Final = "run it as root: sudo atrunctl doctor"


@dataclass(slots=True)
class Seen:
    """All that was read, before anything is judged; `mine` is the port that the daemon is to use, if that is known."""

    modules: tuple[UsbDevice, ...]
    ports: tuple[UsbPort, ...]
    holders: Holders
    manager: Manager
    mine: UsbPort | Path | None = None
    properties: dict[Path, dict[str, str] | None] = field(default_factory=dict)
    nodes: dict[Path, Node | None] = field(default_factory=dict)
    answers: dict[Path, Answers] = field(default_factory=dict)

    @property
    def mine_path(self) -> Path | None:
        """The path of the daemon's port."""
        return self.mine.path if isinstance(self.mine, UsbPort) else self.mine


@dataclass(frozen=True, slots=True)
class Report:
    """What was found, and what there is."""

    findings: list[Finding]
    seen: Seen
    status: dict[str, object] | None

    def as_json(self) -> dict[str, object]:
        """Return it as a JSON object."""
        return {
            "level": worst(self.findings).value,
            "findings": [finding.as_json() for finding in self.findings],
            "modules": [_module_json(module, self.seen) for module in self.seen.modules],
            "daemon": self.status,
        }


def examine(host: Host, *, status: dict[str, object] | None, name: str, probing: bool) -> Report:
    """Look at everything. `status` is what the daemon says of itself, `name` the configured port, "" for none."""
    ports = snapshot(host.sys, host.dev)
    telit = modules(host.sys)
    findings: list[Finding] = []
    mine, named = _named(name, ports)
    findings += named
    paths = {port.path for port in ports} | ({mine} if isinstance(mine, Path) else set())
    seen = Seen(telit, ports, host.holders(paths), managers.look(host), mine)
    seen.nodes = {path: hosts.node_of(path) for path in paths}
    seen.properties = {port.path: host.udev_properties(port.path) for port in ports if _of_interest(port, seen)}
    if probing:
        findings += _probe(host, seen, name)
    findings = [*_modules(seen), *findings, *_port(seen, name), *_manager(seen), *judge_answers(seen.answers, ports)]
    if status is None and not probing:
        text = "SIM, registration and SMS centre are not known, for the daemon does not tell them"
        findings.append(Finding(Level.NOTE, "sim", text, "start the daemon, or ask a free port with --probe"))
    findings += judge(status)
    findings += _way_out(host)
    return Report(findings, seen, status)


def _of_interest(port: UsbPort, seen: Seen) -> bool:
    return port is seen.mine or port.role in {Role.PRIMARY, Role.SECONDARY}


def _named(name: str, ports: tuple[UsbPort, ...]) -> tuple[UsbPort | Path | None, list[Finding]]:
    """What the configured name means."""
    if not name:
        return None, []
    try:
        parsed = parse_name(name)
        if isinstance(parsed, ByImei):
            asked = ", ".join(str(port.path) for port in candidates(parsed, ports))
            text = f"{parsed} is one of {asked}"
            return None, [Finding(Level.NOTE, "port", text, "--probe asks them which, if they are free")]
        return resolve(parsed, ports), []
    except PortNameError as error:
        advice = "is the module plugged in and switched on?" if error.missing else "correct module.port"
        return None, [Finding(Level.ERROR, "port", str(error), advice)]


def _modules(seen: Seen) -> Iterator[Finding]:
    if not seen.modules:
        # A daemon that has a port elsewhere may well have its module there.
        level = Level.NOTE if isinstance(seen.mine, Path) else Level.WARNING
        advice = "look for it with lsusb; check power, cable and USB hub. A module on a UART is not seen here"
        yield Finding(level, "module", "no Telit module on USB", advice)
    for module in seen.modules:
        ports = [port for port in seen.ports if port.usb == module.usb]
        known = composition(module.vid, module.pid)
        name = f"{module.product or (known.models if known else 'Telit')} ({module.vid}:{module.pid}) at {module.usb}"
        if not ports:
            advice = f"modprobe option; echo {module.vid} {module.pid} > /sys/bus/usb-serial/drivers/option1/new_id"
            yield Finding(Level.ERROR, "module", f"{name} has no serial port: no driver took it", advice)
            continue
        parts = [f"{port.path} {port.role.value if port.role else f'interface {port.interface}'}" for port in ports]
        parts += [str(control) for control in ports[0].controls]
        parts += [f"{network} {'up' if ports[0].network_up else 'down'}" for network in ports[0].networks]
        text = f"{name}: {', '.join(parts)}"
        if known is None:
            advice = f"name the AT port with its interface: usb:{module.usb}/NN"
            yield Finding(Level.NOTE, "module", f"{text}; which are AT ports is not known of this composition", advice)
        else:
            yield Finding(Level.OK, "module", text)


def _port(seen: Seen, name: str) -> Iterator[Finding]:
    """The daemon's port: its name, who has it, who may have it."""
    mine, path = seen.mine, seen.mine_path
    if mine is None or path is None:
        if not name:
            free = next((port.name for port in seen.ports if port.role is Role.SECONDARY), "usb:1-1.4")
            text = "which port the daemon is to use is not known: none is configured, or the daemon is not there to say"
            yield Finding(Level.NOTE, "port", text, f'set module.port = "{free}", or give --port')
        return
    node = seen.nodes.get(path)
    if node is None:
        text = f"{path} is not there"
        yield Finding(Level.ERROR, "port", text, "is the module plugged in, and module.port right?")
        return
    yield from _quality(mine, name)
    yield from _held(seen, path)
    yield from _permissions(path, node, seen.holders.of(path))


def _quality(mine: UsbPort | Path, name: str) -> Iterator[Finding]:
    """Whether the name and the choice are good ones."""
    if isinstance(mine, Path):
        yield Finding(Level.OK, "port", f"{mine} is the daemon's port; it is not on USB")
        return
    role = mine.role.value if mine.role else "unknown"
    what = f"{mine.path} ({mine.name}, {role}) is the daemon's port"
    if mine.role is not None and not mine.role.at:
        yield Finding(Level.ERROR, "port", f"{what}, and takes no AT commands", "take /secondary, or /primary")
    elif name == str(mine.path):
        advice = f"name it {mine.name}, or {mine.links[0]}" if mine.links else f"name it {mine.name}"
        yield Finding(Level.NOTE, "port", f"{what}; its number may be another after the next replug", advice)
    elif mine.role is Role.PRIMARY and mine.networks:
        advice = "take the secondary AT port, if the module has one"
        yield Finding(Level.NOTE, "port", f"{what}; ModemManager prefers that one", advice)
    else:
        yield Finding(Level.OK, "port", what)


def _held(seen: Seen, path: Path) -> Iterator[Finding]:
    holders = seen.holders.of(path)
    others = [holder for holder in holders if not holder.daemon]
    if others:
        advice = "; ".join(_how_to_stop(holder) for holder in others)
        beside = " beside the daemon" if len(others) < len(holders) else ""
        yield Finding(Level.ERROR, "holder", f"{path} is open in {', '.join(map(str, others))}{beside}", advice)
    elif holders:
        yield Finding(Level.OK, "holder", f"{path} is open in {holders[0]} alone")
    elif seen.holders.complete:
        advice = "is the daemon running?  systemctl status atrund"
        yield Finding(Level.NOTE, "holder", f"nobody has {path} open", advice)
    if not seen.holders.complete:
        yield Finding(Level.NOTE, "holder", "other users' open files can't be seen", AS_ROOT)


def _how_to_stop(holder: Holder) -> str:
    if holder.process == "ModemManager":
        return "keep ModemManager off this port with 60-atrund.rules, then replug the module or restart ModemManager"
    return f"systemctl stop {holder.unit}" if holder.unit.endswith(".service") else f"end pid {holder.pid}"


def _permissions(path: Path, node: Node, holders: tuple[Holder, ...]) -> Iterator[Finding]:
    acl = f", {', '.join(node.acl)}" if node.acl else ""
    text = f"{path} is {node.owner}:{node.group} {node.mode:04o}{acl}"
    if any(holder.daemon for holder in holders):
        yield Finding(Level.OK, "access", text)
    elif not node.for_group and not node.acl:
        advice = "udev makes it root:dialout 0660; look for a rule of your own that changes it"
        yield Finding(Level.WARNING, "access", f"{text}: its group may not read and write", advice)
    elif _in_group(USER, node) is not False:
        yield Finding(Level.OK, "access", text)
    else:
        advice = f"the unit gives it with SupplementaryGroups; else: sudo usermod -aG {node.group} {USER}"
        yield Finding(Level.NOTE, "access", f"{text}; the user {USER} is not in that group", advice)


def _in_group(user: str, node: Node) -> bool | None:
    """Whether the user may open the node; None where there is no such user."""
    import grp
    import pwd

    try:
        entry = pwd.getpwnam(user)
        group = grp.getgrnam(node.group).gr_gid
    except KeyError:
        return None
    granted = f"user:{user}" in node.acl or node.owner == user
    return granted or (node.for_group and group in os.getgrouplist(user, entry.pw_gid))


def _manager(seen: Seen) -> Iterator[Finding]:
    """ModemManager, and whether it leaves the daemon's port alone."""
    if not seen.manager.running:
        yield Finding(Level.OK, "manager", "ModemManager is not running")
        return
    used = seen.manager.ports
    told = "its ports could not be asked for" if used is None else f"it uses {', '.join(sorted(used)) or 'no port'}"
    yield Finding(Level.OK, "manager", f"ModemManager is running; {told}")
    path = seen.mine_path
    rule = "install 60-atrund.rules with your port in it"
    again = "replug the module, reboot, or restart ModemManager (this cuts its data connection)"
    left = {p.usb for p in seen.ports if (seen.properties.get(p.path) or {}).get("ID_MM_DEVICE_IGNORE") == "1"}
    for usb in sorted(left):
        text = f"ID_MM_DEVICE_IGNORE is set at {usb}: ModemManager leaves all of this module alone, its data link too"
        yield Finding(Level.WARNING, "manager", text, "set ID_MM_PORT_IGNORE on the daemon's port instead")
    if path is None or not isinstance(seen.mine, UsbPort):
        return
    known = seen.properties.get(path)
    ignored = known is not None and known.get("ID_MM_PORT_IGNORE") == "1"
    if used is not None and path.name in used:
        text = f"ModemManager uses {path}, which is the daemon's"
        advice = again if ignored else f"{rule}; then {again}"
        yield Finding(Level.ERROR, "manager", text, advice)
    elif ignored:
        yield Finding(Level.OK, "manager", f"{path} is marked as not ModemManager's (ID_MM_PORT_IGNORE)")
    elif known is None:
        text = f"whether {path} is marked as not ModemManager's can't be seen: udevadm tells nothing of it"
        yield Finding(Level.NOTE, "manager", text, f"look for ID_MM_PORT_IGNORE: udevadm info {path}")
    else:
        text = f"{path} is not marked as not ModemManager's (ID_MM_PORT_IGNORE): it may take it"
        yield Finding(Level.WARNING, "manager", text, f"{rule}; then {again}")


def _probe(host: Host, seen: Seen, name: str) -> Iterator[Finding]:
    """Ask every free AT port; fill in the answers, and the daemon's port where its IMEI was its name."""
    asked = {port.path for port in seen.ports if port.role is not None and port.role.at}
    if seen.mine_path is not None and not (isinstance(seen.mine, UsbPort) and seen.mine.role):
        asked.add(seen.mine_path)
    if asked and not seen.holders.complete:
        text = "nothing was asked: whether a port is free can't be seen by this user"
        yield Finding(Level.NOTE, "probe", text, AS_ROOT)
        return
    for path in sorted(asked):
        if path.name in (seen.manager.ports or ()):
            seen.answers[path] = Answers(refused="ModemManager uses it")
        elif holders := seen.holders.of(path):
            seen.answers[path] = Answers(refused=f"open in {', '.join(map(str, holders))}")
        else:
            seen.answers[path] = probe(path, partial(_others, host, path))
    yield from _by_imei(seen, name)


def _others(host: Host, path: Path) -> str:
    """Who but this process has a port open, in words."""
    holders = [holder for holder in host.holders([path]).of(path) if holder.pid != os.getpid()]
    return f"open in {', '.join(map(str, holders))}" if holders else ""


def _by_imei(seen: Seen, name: str) -> Iterator[Finding]:
    try:
        parsed = parse_name(name)
        if isinstance(parsed, ByImei):
            told = {path: answers.value("+CGSN") for path, answers in seen.answers.items()}
            given = {path: text for path, text in told.items() if text}
            seen.mine = decide(parsed, candidates(parsed, seen.ports), given)
    except PortNameError as error:
        if name.startswith("imei:"):
            yield Finding(Level.WARNING, "port", str(error), "a port that is in use is not asked; AT+CGSN tells it")


def _way_out(host: Host) -> Iterator[Finding]:
    """The addresses towards the world: whether somebody there can call the TCP door."""
    routes = host.default_routes()
    if not routes:
        yield Finding(Level.NOTE, "network", "no default route: this host has no way out", "ip route; nmcli; mmcli")
    for interface in routes:
        text = host.address(interface)
        if text is None:
            yield Finding(Level.NOTE, "network", f"{interface} has the default route and no IPv4 address")
            continue
        address = ip_address(text)
        if address in SHARED or any(address in network for network in NOT_PUBLIC):
            kind = "an address that the operator shares (100.64/10)" if address in SHARED else "a private address"
            what = f"{interface} has {text}, {kind}: from outside the TCP door can't be reached through it"
            advice = "use SMS or MQTT, a VPN, or ask the operator for a public address"
            yield Finding(Level.NOTE, "network", what, advice)
        else:
            yield Finding(Level.OK, "network", f"{interface} has {text}")


def _module_json(module: UsbDevice, seen: Seen) -> dict[str, object]:
    ports = [port for port in seen.ports if port.usb == module.usb]
    return {
        "usb": module.usb,
        "vid": module.vid,
        "pid": module.pid,
        "serial": module.serial,
        "product": module.product,
        "networks": list(ports[0].networks) if ports else [],
        "network_up": bool(ports) and ports[0].network_up,
        "controls": [str(control) for control in ports[0].controls] if ports else [],
        "ports": [_port_json(port, seen) for port in ports],
    }


def _port_json(port: UsbPort, seen: Seen) -> dict[str, object]:
    node = seen.nodes.get(port.path)
    properties = seen.properties.get(port.path)
    holders = seen.holders.of(port.path)
    return {
        "path": str(port.path),
        "name": port.name,
        "links": [str(link) for link in port.links],
        "interface": port.interface,
        "role": port.role.value if port.role else None,
        "daemon": port is seen.mine,
        "holders": [{"pid": holder.pid, "process": holder.process, "unit": holder.unit} for holder in holders],
        "holders_complete": seen.holders.complete,
        "owner": node.owner if node else None,
        "group": node.group if node else None,
        "mode": f"{node.mode:04o}" if node else None,
        "acl": list(node.acl) if node else [],
        "manager_uses": None if seen.manager.ports is None else port.path.name in seen.manager.ports,
        "manager_ignores": None if properties is None else properties.get("ID_MM_PORT_IGNORE") == "1",
    }
