# SPDX-License-Identifier: Apache-2.0
"""Commands of the packet data contexts and the sockets, as far as a client asks for their state."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from atrund.at.syntax import Command, Op, unquote
from atrund.sim.steps import BAD_PARAMETER, NO_SERVICE, Handler, Refused, Step, number, parameters

if TYPE_CHECKING:  # for the annotations alone
    from atrund.sim.port import SimPort

CONTEXT_IDS: Final = range(1, 6)
SOCKETS: Final = range(1, 7)
SOCKET_DEFAULTS: Final = ("1", "300", "90", "600", "50")
"""Context, packet size, idle timeout, connect timeout, transmission timeout of #SCFG."""

SOCKET_RANGES: Final = (range(6), range(1501), range(65536), range(10, 1201), range(256))


class Contexts:
    """The packet data contexts: which are defined, which are up."""

    def __init__(self) -> None:
        self.defined: dict[int, tuple[str, str]] = {1: ("IP", "internet")}
        self.active: set[int] = set()
        self.sockets: dict[int, tuple[str, ...]] = dict.fromkeys(SOCKETS, SOCKET_DEFAULTS)

    def drop_all(self) -> None:
        """The network or the radio is gone: no context stays up."""
        self.active.clear()


def context_address(cid: int) -> str:
    """Return the address that the network gives a context."""
    return f"10.133.224.{82 + cid}"


def define(port: "SimPort", command: Command) -> Iterable[Step]:
    """+CGDCONT (TS 27.007 10.1.1)."""
    contexts = port.module.contexts
    match command.op:
        case Op.READ:
            return [
                f'+CGDCONT: {cid},"{kind}","{name}","",0,0' for cid, (kind, name) in sorted(contexts.defined.items())
            ]
        case Op.TEST:
            return [f'+CGDCONT: (1-5),"{kind}",,,(0,1),(0,1)' for kind in ("IP", "PPP", "IPV6")]
        case Op.SET:
            given = parameters(command, 6)
            cid = number(given[0], CONTEXT_IDS)
            if not any(given[1:]):
                contexts.defined.pop(cid, None)
                contexts.active.discard(cid)
                return ()
            kind = unquote(given[1]) or "IP"
            if kind not in {"IP", "PPP", "IPV6", "IPV4V6"}:
                raise Refused(BAD_PARAMETER)
            contexts.defined[cid] = kind, unquote(given[2])[:64]
            return ()
        case Op.EXECUTE:
            raise Refused


def attach(port: "SimPort", command: Command) -> Iterable[Step]:
    """+CGATT (TS 27.007 10.1.9)."""
    radio = port.module.radio
    match command.op:
        case Op.READ:
            return (f"+CGATT: {int(radio.attached)}",)
        case Op.TEST:
            return ("+CGATT: (0,1)",)
        case Op.SET:
            wanted = bool(number(parameters(command, 1)[0], range(2)))
            if wanted and not radio.in_service:
                raise Refused(NO_SERVICE)
            radio.attached = wanted
            if not wanted:
                port.module.contexts.drop_all()
            return ()
        case Op.EXECUTE:
            raise Refused


def activate(port: "SimPort", command: Command) -> Iterable[Step]:
    """+CGACT (TS 27.007 10.1.10)."""
    contexts = port.module.contexts
    match command.op:
        case Op.READ:
            return [f"+CGACT: {cid},{int(cid in contexts.active)}" for cid in sorted(contexts.defined)]
        case Op.TEST:
            return ("+CGACT: (0,1)",)
        case Op.SET:
            given = parameters(command, 2)
            _switch(port, number(given[1], CONTEXT_IDS, 1), on=bool(number(given[0], range(2))))
            return ()
        case Op.EXECUTE:
            raise Refused


def address(port: "SimPort", command: Command) -> Iterable[Step]:
    """+CGPADDR (TS 27.007 10.1.14)."""
    contexts = port.module.contexts
    if command.op is Op.TEST:
        return (f"+CGPADDR: ({','.join(map(str, sorted(contexts.defined)))})",)
    cids = sorted(contexts.defined)
    if command.op is Op.SET:
        cids = [number(parameters(command, 1)[0], CONTEXT_IDS)]
    return [f'+CGPADDR: {cid},"{context_address(cid) if cid in contexts.active else ""}"' for cid in cids]


def socket_context(port: "SimPort", command: Command) -> Iterable[Step]:
    """#SGACT: context activation for the module's own sockets; answers with the address."""
    contexts = port.module.contexts
    match command.op:
        case Op.READ:
            cids = sorted(contexts.defined)
            return [f"#SGACT: {cid},{int(cid in contexts.active)}" for cid in cids]
        case Op.TEST:
            return ("#SGACT: (0-5),(0,1)",)
        case Op.SET:
            given = parameters(command, 4, 2)
            cid, on = number(given[0], CONTEXT_IDS), bool(number(given[1], range(2)))
            if all(int(config[0]) != cid for config in contexts.sockets.values()):
                raise Refused  # no socket belongs to it
            _switch(port, cid, on=on)
            return (f"#SGACT: {context_address(cid)}",) if on else ()
        case Op.EXECUTE:
            raise Refused


def context_config(port: "SimPort", command: Command) -> Iterable[Step]:
    """#SGACTCFG: activation by itself."""
    values = port.module.values
    match command.op:
        case Op.READ:
            return [
                f"#SGACTCFG: {cid},{','.join(values.get(f'#SGACTCFG{cid}', ('0', '180', '0')))}"
                for cid in sorted(port.module.contexts.defined)
            ]
        case Op.TEST:
            return ("#SGACTCFG: (1-5),(0-15),(180-3600),(0,1)",)
        case Op.SET:
            given = parameters(command, 4, 2)
            cid = number(given[0], CONTEXT_IDS)
            retry, delay, urc = (
                number(text, allowed, default)
                for text, allowed, default in zip(
                    given[1:], (range(16), range(180, 3601), range(2)), (0, 180, 0), strict=True
                )
            )
            values[f"#SGACTCFG{cid}"] = str(retry), str(delay), str(urc)
            return ()
        case Op.EXECUTE:
            raise Refused


def socket_config(port: "SimPort", command: Command) -> Iterable[Step]:
    """#SCFG."""
    sockets = port.module.contexts.sockets
    match command.op:
        case Op.READ:
            return [f"#SCFG: {socket},{','.join(config)}" for socket, config in sockets.items()]
        case Op.TEST:
            return ("#SCFG: (1-6),(0-5),(0-1500),(0-65535),(10-1200),(0-255)",)
        case Op.SET:
            given = parameters(command, 6, 6)
            socket = number(given[0], SOCKETS)
            config = [number(text, allowed) for text, allowed in zip(given[1:], SOCKET_RANGES, strict=True)]
            sockets[socket] = tuple(map(str, config))
            return ()
        case Op.EXECUTE:
            raise Refused


def socket_status(_port: "SimPort", command: Command) -> Iterable[Step]:
    """#SS: no socket of this module is ever open."""
    if command.op is Op.TEST:
        return ()
    if command.op is Op.SET:
        return (f"#SS: {number(parameters(command, 1)[0], SOCKETS)},0",)
    return [f"#SS: {socket},0" for socket in SOCKETS]


HANDLERS: Final[dict[str, Handler]] = {
    "+CGDCONT": define,
    "+CGATT": attach,
    "+CGACT": activate,
    "+CGPADDR": address,
    "#SGACT": socket_context,
    "#SGACTCFG": context_config,
    "#SCFG": socket_config,
    "#SS": socket_status,
}


def _switch(port: "SimPort", cid: int, *, on: bool) -> None:
    contexts = port.module.contexts
    if cid not in contexts.defined:
        raise Refused(BAD_PARAMETER)
    if not on:
        contexts.active.discard(cid)
        return
    if not port.module.radio.in_service or not port.module.radio.attached:
        raise Refused(NO_SERVICE)
    contexts.active.add(cid)
