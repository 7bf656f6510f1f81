# SPDX-License-Identifier: Apache-2.0
"""`#SCFG` and `#SCFGEXT`: ours for the connId of `#TCPATRUNCFG`, the module's for the others (commands.md 5.3)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from atrund.at.results import information
from atrund.at.syntax import Command, Op, arguments
from atrund.atrun.family.forms import MINUTE, Context, Done, Refused, Row, number, ranges
from atrund.atrun.family.tcp import CONN_IDS
from atrund.atrun.ranges import FLAG, Range, read_number
from atrund.atrun.settings import Settings, Socket

PACKET_SMALL: Final = 300
"""The default size; smaller ones cost more than they carry."""


@dataclass(frozen=True, slots=True)
class _Field:
    """A parameter behind <connId>: the setting that it is, and how many seconds its unit has (0: it has none)."""

    name: str
    parameter: str
    allowed: Range
    unit: float = 0
    default: int | None = None

    def stored(self, value: int) -> float | int:
        return value * self.unit if self.unit else value

    def shown(self, socket: Socket) -> str:
        value = getattr(socket, self.name)
        return str(round(value / self.unit) if self.unit else value)


_FIELDS: Final[dict[str, tuple[_Field, ...]]] = {
    "#SCFG": (
        _Field("cid", "cid", range(7)),
        _Field("packet_size", "pktSz", range(1501)),
        _Field("idle_timeout", "maxTo", range(65536), 1),
        _Field("connect_timeout", "connTo", range(10, 1201), 0.1),
        _Field("send_timeout", "txTo", range(256), 0.1),
    ),
    "#SCFGEXT": (
        _Field("sr_mode", "srMode", range(4)),
        _Field("receive_mode", "recvDataMode", FLAG),
        _Field("keepalive", "keepalive", range(241), MINUTE),
        _Field("listen_auto_response", "ListenAutoRsp", FLAG, 0, 0),
        _Field("send_mode", "sendDataMode", FLAG, 0, 0),
    ),
}


def is_socket(command: Command) -> bool:
    """Whether this sets one connId, which `conn_id` names."""
    return command.name in _FIELDS and command.op is Op.SET


def conn_id(command: Command) -> int | None:
    """Return the connId that such a command names, however it is spelled."""
    return read_number((*arguments(command.args), "")[0], CONN_IDS)


def merged(name: str, lines: Sequence[str], settings: Settings) -> tuple[str, ...]:
    """Return the read form's lines: the module's, with that of our own connId in its place."""
    own = f"{name}: {settings.tcp.conn_id},{_values(name, settings.tcp.own_socket)}"
    out: list[str] = []
    placed = False
    for line in lines:
        found = _conn_id_of(name, line)
        if found is not None and found >= settings.tcp.conn_id and not placed:
            out.append(own)
            placed = True
        if found != settings.tcp.conn_id:
            out.append(line)
    return tuple(out if placed else (*out, own))


def noted(command: Command) -> dict[str, Any]:
    """Return what is kept of a set command that the module took, by setting: it counts once the connId is ours."""
    try:
        return _read(command.name, arguments(command.args))
    except Refused:
        return {}


def _conn_id_of(name: str, line: str) -> int | None:
    found = information(line)
    if found is None or found.name != name:
        return None
    return read_number(found.parameters[0], CONN_IDS) if found.parameters else None


def _values(name: str, socket: Socket) -> str:
    return ",".join(field.shown(socket) for field in _FIELDS[name])


def _read(name: str, given: tuple[str, ...]) -> dict[str, Any]:
    prefix = f"tcp.socket.{number(given, 0, 'connId', CONN_IDS)}"
    return {
        f"{prefix}.{field.name}": field.stored(number(given, at, field.parameter, field.allowed, field.default))
        for at, field in enumerate(_FIELDS[name], 1)
    }


def _setting(name: str) -> Callable[[tuple[str, ...], Context], Done]:
    def set_(given: tuple[str, ...], context: Context) -> Done:
        values = _read(name, given)
        socket = context.settings.changed(values).tcp.own_socket
        return Done(values, warnings=tuple(_doubts(socket)) if name == "#SCFG" else ())

    return set_


def _doubts(socket: Socket) -> list[str]:
    doubts = []
    if socket.packet_size and socket.packet_size < PACKET_SMALL:
        doubts.append(f"#SCFG: packets of {socket.packet_size} bytes cost more than they carry")
    if not socket.idle_timeout:
        doubts.append("#SCFG: with maxTo 0 a peer that vanishes keeps its place until TCP itself notices")
    if not socket.send_timeout:
        doubts.append("#SCFG: with txTo 0 unfinished output waits for a full packet")
    return doubts


def _row(name: str) -> Row:
    fields = _FIELDS[name]
    least = 1 + sum(field.default is None for field in fields)
    return Row(
        name,
        set=_setting(name),
        arguments=(least, 1 + len(fields)),
        read=lambda context: (f"{context.settings.tcp.conn_id},{_values(name, context.settings.tcp.own_socket)}",),
        test=ranges(CONN_IDS, *(field.allowed for field in fields)),
    )


ROWS: Final = tuple(map(_row, _FIELDS))
