# SPDX-License-Identifier: Apache-2.0
"""The steps of `atrunctl setup` that look at the world: which port is free, whether the broker lets us in."""

from atrund.config import Config
from atrund.ctl.examine import Report, examine
from atrund.ctl.findings import Finding, Level
from atrund.ctl.host import Host
from atrund.usb.compositions import Role
from atrund.usb.sysfs import UsbPort

NO_MODULE = "no module was found on USB, and no port was named"
ADVICE = "look for it with lsusb and atrunctl doctor; one on a UART is named by the path of its port, /dev/ttyS1"


def look(host: Host) -> Report:
    """Examine the host, without asking a port or the daemon."""
    return examine(host, status=None, name="", probing=False)


def found(report: Report) -> list[Finding]:
    """Return what was found of modules."""
    return [finding for finding in report.findings if finding.about == "module"]


def free_ports(report: Report) -> list[str]:
    """Return, for each module, the name of its AT port that nobody but the daemon has: the secondary one, if it can be.

    It is a path by id, where that is this port's alone; else its place on USB.
    """
    names = []
    for module in report.seen.modules:
        ports = [port for port in report.seen.ports if port.usb == module.usb and _is_free(port, report)]
        ports.sort(key=lambda port: port.role is not Role.SECONDARY)
        names += [_name(port) for port in ports[:1]]
    return names


def judge(host: Host, port: str) -> list[Finding]:
    """Return what there is to say of a port: whether it is there, who has it, whether ModemManager keeps off it."""
    report = examine(host, status=None, name=port, probing=False)
    about = {"port", "holder", "access", "manager"}
    return [one for one in report.findings if one.about in about and (one.level.bad or one.about == "port")]


def try_broker(config: Config) -> Finding:
    """Connect to the broker as the daemon will, subscribe to what it subscribes to, and say how that went."""
    from atrund.ctl.fleet_link import Link, LinkError, Where
    from atrund.tls import FileError, Files, client_context

    mqtt = config.mqtt
    if mqtt.server_name:
        return Finding(Level.NOTE, "broker", "it was not tried: mqtt.server_name is set", "the daemon tries it")
    topic = f"{mqtt.prefix}/{config.node}/{'at/request' if mqtt.remote_at else 'status'}"
    user = mqtt.user or (mqtt.user_from.reveal() if mqtt.user_from is not None else "")
    password = "" if mqtt.password is None else mqtt.password.reveal()
    try:
        context = None
        if mqtt.tls:
            context = client_context(Files(mqtt.cert_file, mqtt.key_file, mqtt.ca_file))
            if mqtt.alpn:
                context.set_alpn_protocols([mqtt.alpn])
        name = f"{mqtt.client_id}-setup"  # as the daemon itself would put out one that runs
        where = Where(mqtt.host, mqtt.port, mqtt.protocol == "5", name, user, password, context)
        link = Link(where)
        try:
            refused = link.subscribe([topic], qos=1, retained=False)
        finally:
            link.close()
    except FileError as error:
        return Finding(Level.ERROR, "broker", f"mqtt.{_OPTIONS[error.option]}: {error.wrong}", error.right)
    except LinkError as error:
        return Finding(Level.ERROR, "broker", str(error), "is host, port, TLS, user and password right?")
    if refused:
        text = f"the broker lets this user in, but not read {topic}"
        return Finding(Level.ERROR, "broker", text, "its access control must let the node use all below its topic")
    # Some brokers say no more than this of topics that they will keep from a user: mosquitto 2.0 with an acl_file.
    return Finding(Level.OK, "broker", f"{where} lets the node in, and takes its subscription to {topic}")


_OPTIONS = {"certificate": "cert_file", "key": "key_file", "ca": "ca_file"}


def _is_free(port: UsbPort, report: Report) -> bool:
    if port.role is None or not port.role.at or port.path.name in (report.seen.manager.ports or ()):
        return False
    return all(holder.daemon for holder in report.seen.holders.of(port.path))


def _name(port: UsbPort) -> str:
    by_id = [link for link in port.links if link.parent.name == "by-id"]
    return str(by_id[0]) if by_id else port.name
