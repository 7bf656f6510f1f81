# SPDX-License-Identifier: Apache-2.0
"""The `#TCPATRUN` commands, `#TCPATCMDSEQ`, `#TCPATCONSER` and `#ATRUNDELAY` (commands.md 3)."""

from dataclasses import replace
from ipaddress import AddressValueError, IPv4Address
from typing import Any, Final

from atrund.atrun.family.forms import (
    MINUTE,
    CloseTcp,
    Context,
    Done,
    EnterTransparent,
    Refused,
    Row,
    Service,
    bad,
    flag,
    minutes,
    nothing,
    number,
    ranges,
    text,
)
from atrund.atrun.family.services import INSTANCES, refuse_while_on, switch
from atrund.atrun.ranges import FLAG, shown
from atrund.atrun.request import Door, Reason
from atrund.atrun.secrets import MASK, Secret
from atrund.atrun.settings import (
    FIREWALL_MAX,
    HOST,
    LOGIN_TEXT_MAX,
    LOGINS_MAX,
    SOCKETS,
    Login,
    Rule,
    fits_login,
)

CONN_IDS: Final = range(1, SOCKETS + 1)
SERIAL_RATES: Final = (300, 1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200)

_PORTS: Final = range(1, 65536)
_TIMEOUT: Final = range(1, 6)
_RETRIES: Final = range(6)
_RETRY_DELAY: Final = range(1, 3601)
_ACTIONS: Final = range(3)
_REMOVE, _ADD = 0, 1
_DELAY: Final = range(31)


def _set_config(given: tuple[str, ...], context: Context) -> Done:
    refuse_while_on(context.settings, Service.TCP_SERVER, Service.TCP_CLIENT)
    host = text(given, 4, "tcpHost")
    if HOST.fullmatch(host) is None:
        raise bad("<tcpHost> is none", "an address or a host name")
    return Done(
        {
            "tcp.conn_id": number(given, 0, "connId", CONN_IDS),
            "tcp.instance": number(given, 1, "instance", INSTANCES),
            "tcp.port": number(given, 2, "tcpPort", _PORTS),
            "tcp.client.port": number(given, 3, "tcpHostPort", _PORTS),
            "tcp.client.host": host,
            "tcp.urc": flag(given, 5, "urcmod", 1),
            "tcp.timeout": float(number(given, 6, "timeout", _TIMEOUT, 5) * MINUTE),
            "tcp.step_login": flag(given, 7, "authMode", 0),
            "tcp.client.retries": number(given, 8, "retryCnt", _RETRIES, 0),
            "tcp.client.retry_delay": float(number(given, 9, "retryDelay", _RETRY_DELAY, 2) * MINUTE),
        }
    )


def _read_config(context: Context) -> tuple[str, ...]:
    tcp = context.settings.tcp
    client = tcp.client
    places = f'{tcp.conn_id},{tcp.instance},{tcp.port},{client.port},"{client.host}"'
    ways = f"{int(tcp.urc)},{minutes(tcp.timeout)},{int(tcp.step_login)}"
    return (f"{places},{ways},{client.retries},{minutes(client.retry_delay)}",)


def _set_listen(given: tuple[str, ...], context: Context) -> Done:
    return switch(Service.TCP_SERVER, given, context, up=context.running.listening)


def _read_listen(context: Context) -> tuple[str, ...]:
    return (f"{int(context.settings.tcp.enabled)},{int(context.running.listening)}",)


def _set_dial(given: tuple[str, ...], context: Context) -> Done:
    return switch(Service.TCP_CLIENT, given, context, up=context.running.connected)


def _read_dial(context: Context) -> tuple[str, ...]:
    return (f"{int(context.settings.tcp.client.enabled)},{context.running.client}",)


def _close(_given: tuple[str, ...], _context: Context) -> Done:
    return Done(effects=(CloseTcp(),))


def _set_firewall(given: tuple[str, ...], context: Context) -> Done:
    action = number(given, 0, "action", _ACTIONS)
    if action not in {_ADD, _REMOVE}:
        return Done({f"tcp.firewall.{n}": None for n in range(1, FIREWALL_MAX + 1)})
    rule = Rule(_address(given, 1, "ip_addr"), _address(given, 2, "net_mask"))
    rules = context.settings.tcp.firewall
    if action == _REMOVE:
        return _removed("tcp.firewall", rules, rule)
    return _added("tcp.firewall", rules, rule, rule)


def _address(given: tuple[str, ...], at: int, name: str) -> IPv4Address:
    try:
        return IPv4Address(text(given, at, name))
    except AddressValueError:
        raise bad(f"<{name}> is no IPv4 address", '"217.0.0.0"') from None


def _read_firewall(context: Context) -> tuple[str, ...]:
    return tuple(f'"{rule.address}","{rule.mask}"' for rule in context.settings.tcp.rules)


def _set_login(given: tuple[str, ...], context: Context) -> Done:
    action = number(given, 0, "action", _ACTIONS)
    if action not in {_ADD, _REMOVE}:
        return Done({f"tcp.users.{n}": None for n in range(1, LOGINS_MAX + 1)})
    name, password = text(given, 1, "userid"), text(given, 2, "passw")
    users = context.settings.tcp.users
    known = next((login for login in context.settings.tcp.logins if login.name == name), None)
    if action == _REMOVE:
        return _removed("tcp.users", users, known)
    if not (fits_login(name) and fits_login(password)):
        raise bad("<userid> or <passw> is none", f"1 to {LOGIN_TEXT_MAX} characters each")
    return _added("tcp.users", users, known, Login(name, Secret(password)))


def _read_logins(context: Context) -> tuple[str, ...]:
    return tuple(f'"{login.name}","{MASK}"' for login in context.settings.tcp.logins)


def _added(key: str, entries: tuple[Any, ...], known: Any, new: Any) -> Done:  # noqa: ANN401 - rules and logins alike
    """Put an entry in the place of one that is known, else into the first that is free."""
    wanted = known if known in entries else None
    if wanted not in entries:
        raise bad(f"all {len(entries)} entries are taken", "removing one first")
    return Done({f"{key}.{entries.index(wanted) + 1}": new})


def _removed(key: str, entries: tuple[Any, ...], known: Any) -> Done:  # noqa: ANN401 - as above
    if known is None or known not in entries:
        raise bad("there is no such entry", "one that the read form shows")
    return Done({f"{key}.{entries.index(known) + 1}": None})


def _set_sequence(given: tuple[str, ...], _context: Context) -> Done:
    return Done({"tcp.sequence": flag(given, 0, "mod")})


def _set_serial(given: tuple[str, ...], context: Context) -> Done:
    if context.asker.door is not Door.TCP:
        raise Refused(Reason.POLICY, "the way to a serial port is open from the TCP session alone")
    port = number(given, 0, "port", context.running.serial_ports)
    rate = number(given, 1, "rate", context.running.serial_rates.get(port, SERIAL_RATES))
    return Done(effects=(EnterTransparent(port, rate),), final="CONNECT")


def _test_serial(context: Context) -> tuple[str, ...]:
    ports, rates = context.running.serial_ports, context.running.serial_rates
    known = {rate for port in ports for rate in rates.get(port, SERIAL_RATES)}
    return (f"{shown(ports)},{shown(tuple(sorted(known)) or SERIAL_RATES)}",)


def _set_delay(given: tuple[str, ...], context: Context) -> Done:
    service, seconds = number(given, 0, "srv", FLAG), float(number(given, 1, "delay", _DELAY))
    delays = context.delays
    return Done(delays=replace(delays, sms=seconds) if service else replace(delays, tcp=seconds))


def _read_delay(context: Context) -> tuple[str, ...]:
    delays = context.delays
    return (f"0,{-int(-delays.tcp // 1)}", f"1,{-int(-delays.sms // 1)}")


ROWS: Final = (
    Row(
        "#TCPATRUNCFG",
        set=_set_config,
        arguments=(5, 10),
        read=_read_config,
        test=ranges(CONN_IDS, INSTANCES, _PORTS, _PORTS, "", FLAG, _TIMEOUT, FLAG, _RETRIES, _RETRY_DELAY),
    ),
    Row("#TCPATRUNL", set=_set_listen, read=_read_listen, test=ranges(FLAG)),
    Row("#TCPATRUND", set=_set_dial, read=_read_dial, test=ranges(FLAG)),
    Row("#TCPATRUNCLOSE", execute=_close, test=nothing),
    Row("#TCPATRUNFRWL", set=_set_firewall, arguments=(1, 3), read=_read_firewall, test=ranges(_ACTIONS)),
    Row("#TCPATRUNAUTH", set=_set_login, arguments=(1, 3), read=_read_logins, test=ranges(_ACTIONS)),
    Row(
        "#TCPATCMDSEQ",
        set=_set_sequence,
        read=lambda context: (str(int(context.settings.tcp.sequence)),),
        test=ranges(FLAG),
    ),
    Row("#TCPATCONSER", set=_set_serial, arguments=(2, 2), test=_test_serial),
    Row("#ATRUNDELAY", set=_set_delay, arguments=(2, 2), read=_read_delay, test=ranges(FLAG, _DELAY)),
)
