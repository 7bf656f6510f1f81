# SPDX-License-Identifier: Apache-2.0
"""Commands of the registration, the signal and the cells."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from atrund.at.syntax import Command, Op, unquote
from atrund.sim.settings import with_status
from atrund.sim.state import HOME, OPERATORS, Operator, Sim, Technology
from atrund.sim.steps import BAD_PARAMETER, NO_SERVICE, Handler, Refused, Step, Wait, number, parameters

if TYPE_CHECKING:  # for the annotations alone
    from atrund.sim.port import SimPort


def registration_line(port: "SimPort", name: str) -> str | None:
    """Return the unsolicited line of +CREG, +CGREG or +CEREG that a port asked for, or None."""
    mode = port.settings.number(name)
    if mode == 0 or (name == "+CEREG" and port.module.identity.technology is not Technology.LTE):
        return None
    return f"{name}: {_registration(port, name, mode)}"


def registration(port: "SimPort", command: Command) -> Iterable[Step]:
    """+CREG, +CGREG, +CEREG (TS 27.007 7.2, 10.1.20, 10.1.22)."""
    name = command.name
    if command.op is Op.READ:
        mode = port.settings.number(name)
        return (f"{name}: {mode},{_registration(port, name, mode)}",)
    return with_status(port, command, _registration_modes(port, name), "")


def signal_quality(port: "SimPort", command: Command) -> Iterable[Step]:
    """+CSQ (TS 27.007 8.5)."""
    if command.op is Op.TEST:
        return ("+CSQ: (0-31,99),(0-7,99)",)
    return (f"+CSQ: {port.module.radio.rssi},{port.module.radio.ber}",)


def extended_signal_quality(port: "SimPort", command: Command) -> Iterable[Step]:
    """+CESQ (TS 27.007 8.69)."""
    if command.op is Op.TEST:
        return ("+CESQ: (0-63,99),(0-7,99),(0-96,255),(0-49,255),(0-34,255),(0-97,255)",)
    radio = port.module.radio
    known = radio.rssi != 99
    match port.module.identity.technology:
        case Technology.GSM:
            return (f"+CESQ: {2 * radio.rssi if known else 99},{radio.ber},255,255,255,255",)
        case Technology.UMTS:
            return (f"+CESQ: 99,99,{radio.dbm + 120 if known else 255},24,255,255",)
        case Technology.LTE:
            return ("+CESQ: 99,99,255,255,34,81",)


def operator(port: "SimPort", command: Command) -> Iterable[Step]:
    """+COPS (TS 27.007 7.3)."""
    radio = port.module.radio
    match command.op:
        case Op.READ:
            if not radio.in_service:
                yield f"+COPS: {radio.cops_mode}"
                return
            lte = port.module.identity.technology is Technology.LTE
            shown = _operator_text(radio.operator, radio.cops_format)
            yield f'+COPS: {radio.cops_mode},{radio.cops_format},"{shown}"{",7" if lte else ""}'
        case Op.TEST:
            yield Wait(port.module.options.cops_test_delay, abortable=True)
            yield f"+COPS: {_operator_list(port)}"
        case Op.SET:
            _select_operator(port, command)
        case Op.EXECUTE:
            raise Refused


def functionality(port: "SimPort", command: Command) -> Iterable[Step]:
    """+CFUN: 1 is on, what is not takes the registration away, `1,1` restarts."""
    radio = port.module.radio
    match command.op:
        case Op.READ:
            return (f"+CFUN: {radio.functionality}",)
        case Op.TEST:
            return ("+CFUN: (0,1,2,4,5),(0,1)",)
        case Op.SET:
            level, reset = parameters(command, 2)
            radio.functionality = number(level, range(6))
            if number(reset, range(2), 0):
                port.after_final(port.module.reboot)
                return ()
            _register(port, wanted=radio.functionality in {1, 5})
            return ()
        case Op.EXECUTE:
            raise Refused


def serving_cell(port: "SimPort", command: Command) -> Iterable[Step]:
    """#MONI: the serving cell, a neighbour, or (7) all as a table."""
    if command.op is Op.TEST:
        return ("#MONI: (6,7)",)
    if command.op is Op.SET:
        port.settings.values["#MONI"] = (str(number(parameters(command, 1)[0], range(8))),)
        return ()
    cell = port.settings.number("#MONI")
    radio, technology = port.module.radio, port.module.identity.technology
    if cell == 7 and technology is Technology.GSM:
        return MONI_TABLE
    if cell not in {0, 7}:
        return (f"#MONI: {NEIGHBOURS[technology].format(n=cell, dbm=radio.dbm - 5 * cell)}",)
    name = radio.operator.name if radio.in_service else f"Cc:{radio.operator.code[:3]} Nc:{radio.operator.code[3:]}"
    return (f"#MONI: {name} {SERVING[technology].format(lac=radio.lac, id=radio.cell, dbm=radio.dbm)}",)


def serving_network(port: "SimPort", _command: Command) -> Iterable[Step]:
    """#SERVINFO."""
    radio = port.module.radio
    network = f'"{radio.operator.name}","{radio.operator.code}"'
    match port.module.identity.technology:
        case Technology.GSM:
            return (f'#SERVINFO: 42,{radio.dbm},{network},63,{radio.lac},03,1,,"II",01,6',)
        case Technology.UMTS:
            return (f'#SERVINFO: 10612,{radio.dbm},{network},176,{radio.lac},64,1,-88,"II",00',)
        case Technology.LTE:
            return (f"#SERVINFO: 6400,{radio.dbm},{network},00000AF,{radio.lac},32,3,-60",)


def radio_status(port: "SimPort", _command: Command) -> Iterable[Step]:
    """#RFSTS."""
    radio, imsi = port.module.radio, port.module.identity.imsi
    network = f'"{radio.operator.code[:3]} {radio.operator.code[3:]}"'
    if not radio.in_service:
        return (f'#RFSTS:"000 00",-1,-47,FFFF,FF,255,19,27,,FFFF,"{imsi}","{radio.operator.name}",1,2',)
    who = f'"{imsi}","{radio.operator.name}"'
    match port.module.identity.technology:
        case Technology.GSM:
            return (f"#RFSTS: {network},1001,{radio.dbm},{radio.lac},01,5,19,10,2,{radio.cell},{who},1,2",)
        case Technology.UMTS:
            return (f"#RFSTS: {network},,,,,,,,24,64,19,4,2,000,{radio.cell},{who},1,1,10564,176,-1.5",)
        case Technology.LTE:
            return (f"#RFSTS: {network},1795,-101,-67,-15,{radio.lac},,128,3,1,{radio.cell},{who},3,3,108",)


def network_type(port: "SimPort", command: Command) -> Iterable[Step]:
    """#PSNT: 0 GPRS, 2 UMTS, 4 LTE."""
    kind = {Technology.GSM: 0, Technology.UMTS: 2, Technology.LTE: 4}[port.module.identity.technology]
    return with_status(port, command, range(2), f",{kind}")


def indicators(port: "SimPort", command: Command) -> Iterable[Step]:
    """+CIND (TS 27.007 8.9)."""
    radio = port.module.radio
    if command.op is Op.TEST:
        return (f"+CIND: {','.join(INDICATORS)}",)
    store = port.module.store
    bars = 99 if radio.rssi == 99 else min(5, radio.rssi // 5)
    full = int(store.full(store.memory3))
    return (f"+CIND: 5,{radio.ber},{int(radio.in_service)},0,0,0,{int(radio.registration == 5)},{full},{bars}",)


def survey(port: "SimPort", command: Command) -> Iterable[Step]:
    """#CSURV, #CSURVC: a record for each carrier, as it is found."""
    if command.op is Op.TEST:
        return
    yield "Network survey started ..."
    yield Wait(port.module.options.survey_delay)
    if port.module.identity.technology is Technology.LTE:
        yield "66786,-68,310,260,50896642,11544,236,0,-103,-15,20"
    else:
        yield "1018,21,-73,0,222,01,54717,14887,CELL_SUITABLE,0"
        yield "1009,37,-81,0,222,10,51032,1907,CELL_SUITABLE,0"
        yield "60,63,-93,0,222,88,22010,7459,CELL_FORBIDDEN,0"
    yield "Network survey ended (Carrier: 10 BCCh: 3)"


DENIED: Final = 3
REJECT_CAUSE: Final = 13
"""Registration denied, for roaming is not allowed in this area (TS 24.008 10.5.3.6)."""

ACTIVE_TIME: Final = "00100100"
PERIODIC_TAU: Final = "01000111"
"""What a network grants for power saving: 4 minutes, 70 hours (TS 24.008 10.5.7.4, 10.5.7.4a)."""

HANDLERS: Final[dict[str, Handler]] = {
    "+CREG": registration,
    "+CGREG": registration,
    "+CEREG": registration,
    "+CSQ": signal_quality,
    "+CESQ": extended_signal_quality,
    "+COPS": operator,
    "+CFUN": functionality,
    "#MONI": serving_cell,
    "#SERVINFO": serving_network,
    "#RFSTS": radio_status,
    "#PSNT": network_type,
    "+CIND": indicators,
    "#CSURV": survey,
    "#CSURVC": survey,
}

SERVING: Final = {
    Technology.GSM: "BSIC:51 RxQual:0 LAC:{lac} Id:{id} ARFCN:148 PWR:{dbm}dbm TA:0",
    Technology.UMTS: "PSC:176 RSCP:-88 LAC:{lac} Id:{id} EcIo:-8.5 UARFCN:10612 PWR:{dbm}dbm DRX:64 SCR:2816",
    Technology.LTE: "RSRP:-92 RSRQ:-17 TAC:{lac} Id:{id} EARFCN:800 PWR:{dbm}dbm DRX:1280",
}
NEIGHBOURS: Final = {
    Technology.GSM: "Adj Cell{n} LAC:55FA Id:1297 ARFCN:98{n} PWR:{dbm}dbm",
    Technology.UMTS: "PSC:3{n} RSCP:-98 EcIo:-14.0 UARFCN:10612 SCR:49{n}",
    Technology.LTE: "RSRP:-101 RSRQ:-13 Id:00000E{n} EARFCN:66786 PWR:{dbm}dbm",
}
INDICATORS: Final = (
    '("battchg",(0-5))',
    '("signal",(0-7,99))',
    '("service",(0,1))',
    '("sounder",(0,1))',
    '("message",(0,1))',
    '("call",(0,1))',
    '("roam",(0,1))',
    '("smsfull",(0,1))',
    '("rssi",(0-5,99))',
)
MONI_TABLE: Final = (
    "#MONI: Cell BSIC LAC CellId ARFCN Power C1 C2 TA RxQual PLMN",
    "#MONI: S 70 55FA 1D23 736 -83dbm 19 33 1 0 I WIND",
    "#MONI: N1 75 55FA 1297 983 -78dbm 26 20",
    "#MONI: N6 70 55FA 1D77 756 -99dbm 3 11",
)


def _registration(port: "SimPort", name: str, mode: int) -> str:
    radio, technology = port.module.radio, port.module.identity.technology
    state = radio.registration
    foreign = name == "+CEREG" and technology is not Technology.LTE
    detached = name == "+CGREG" and radio.in_service and not radio.attached
    if foreign or detached:
        state = 0
    if mode >= 3 and state == DENIED:
        return f"{state},,,,0,{REJECT_CAUSE}"
    if mode < 2 or state not in {1, 5}:
        return str(state)
    text = f'{state},"{radio.lac}","{radio.cell}",{technology.value}'
    if mode >= 4:
        return f'{text},,,"{ACTIVE_TIME}","{PERIODIC_TAU}"'
    return f'{text},"01"' if name == "+CGREG" and technology is Technology.GSM and mode == 2 else text


def _registration_modes(port: "SimPort", name: str) -> range:
    """The values of n: 0 to 2; TS 27.007 7.2 and 10.1.22 have more, which few modules take."""
    if not port.module.quirks.on("creg_more"):
        return range(3)
    return range(6) if name == "+CEREG" else range(4)


def _operator_text(network: Operator, form: int) -> str:
    return (network.name, network.name[:8], network.code)[form]


def _operator_list(port: "SimPort") -> str:
    current, technology = port.module.radio.operator, port.module.identity.technology
    entries = [
        f'({2 if network == current else 1},"{network.name}","{network.name[:8]}","{network.code}",{technology.value})'
        for network in OPERATORS
    ]
    return f"{','.join(entries)},,(0-4),(0-2)"


def _select_operator(port: "SimPort", command: Command) -> None:
    given = parameters(command, 4)
    mode = number(given[0], range(5))
    form = number(given[1], range(3), port.module.radio.cops_format)
    radio = port.module.radio
    if mode in {1, 4}:
        wanted = unquote(given[2])
        found = [network for network in OPERATORS if _operator_text(network, form) == wanted]
        if not wanted:
            raise Refused(BAD_PARAMETER)
        if not found and mode == 1:
            raise Refused(NO_SERVICE)
        radio.operator = found[0] if found else HOME
    radio.cops_format = form
    if mode == 3:
        return
    radio.cops_mode = mode
    _register(port, wanted=mode != 2)


def _register(port: "SimPort", *, wanted: bool) -> None:
    module = port.module
    if not wanted:
        module.set_registration(0)
    elif not module.radio.in_service and module.card.state is Sim.READY and module.radio.functionality in {1, 5}:
        module.set_registration(1 if module.radio.operator == HOME else 5)
