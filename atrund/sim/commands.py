# SPDX-License-Identifier: Apache-2.0
"""The table of the module's commands; here are those of V.250, of identity, clock, pins, scripts and power."""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final

from atrund.at.syntax import Command, Op, unquote
from atrund.sim import card, location, messages, packet, radio, sending, uploads
from atrund.sim.conditions import refusal
from atrund.sim.settings import AT_RUN, SETTINGS, WITHOUT_AT_RUN
from atrund.sim.state import S_REGISTERS, PortSettings
from atrund.sim.steps import (
    BAD_PARAMETER,
    NOT_FOUND,
    UNKNOWN,
    Handler,
    Prompt,
    Refused,
    Step,
    number,
    parameters,
)

if TYPE_CHECKING:  # for the annotations alone
    from atrund.sim.port import SimPort

PINS: Final = range(1, 11)
SCRIPTS_CAP: Final = 8
SCRIPT_SIZE_CAP: Final = 65536
"""Scripts kept by #WSCRIPT, and the bytes of each."""

_OCTET: Final = range(256)
_DIGIT: Final = range(10)


def handler_of(port: "SimPort", command: Command) -> Handler:
    """Return what handles a command; one that is not known, or can't run now, is refused when it runs."""
    if (refused := refusal(port, command)) is not None:
        return _refusing(refused)
    if command.name[:1] == "S" and command.name[1:].isdigit():
        return s_register
    for quirk, handlers in BY_QUIRK.items():
        if command.name in handlers and port.module.quirks.on(quirk):
            return handlers[command.name]
    return HANDLERS.get(command.name, unknown)


def unknown(_port: "SimPort", _command: Command) -> Iterable[Step]:
    """Refuse what no module knows."""
    raise Refused(UNKNOWN)


def nothing(_port: "SimPort", _command: Command) -> Iterable[Step]:
    """Answer OK: a bare AT, and what has no effect on a simulated line."""
    return ()


def echo(port: "SimPort", command: Command) -> Iterable[Step]:
    """E (V.250 6.2.4)."""
    port.settings.echo = bool(number(command.args, range(2), 0))
    return ()


def verbose(port: "SimPort", command: Command) -> Iterable[Step]:
    """V (V.250 6.2.6)."""
    port.settings.verbose = bool(number(command.args, range(2), 0))
    return ()


def quiet(port: "SimPort", command: Command) -> Iterable[Step]:
    """Q (V.250 6.2.5); 2 is the vendor's and hides result codes as 1 does."""
    port.settings.quiet = bool(number(command.args, range(3), 0))
    return ()


def defaults(port: "SimPort", command: Command) -> Iterable[Step]:
    """Z and &F: the settings of power-up (V.250 6.1.1, 6.1.2)."""
    number(command.args, range(2), 0)
    port.settings = PortSettings()
    return ()


def s_register(port: "SimPort", command: Command) -> Iterable[Step]:
    """An S-register (V.250 5.3.2); it keeps its value, and S3, S4, S5 change nothing."""
    register = int(command.name[1:])
    if register not in S_REGISTERS:
        raise Refused
    match command.op:
        case Op.READ:
            return (f"{port.settings.registers[register]:03}",)
        case Op.SET:
            port.settings.registers[register] = number(command.args, _OCTET, 0)
            return ()
        case Op.TEST | Op.EXECUTE:
            return ()


def dial(_port: "SimPort", command: Command) -> Iterable[Step]:
    """D: a voice call is taken, a data call finds nobody (V.250 6.3.1)."""
    if command.args.endswith(";"):
        return ()
    raise Refused(final="NO CARRIER")


def no_call(_port: "SimPort", _command: Command) -> Iterable[Step]:
    """A and O: there is no call."""
    raise Refused(final="NO CARRIER")


def error_reports(port: "SimPort", command: Command) -> Iterable[Step]:
    """+CMEE (TS 27.007 9.1)."""
    match command.op:
        case Op.READ:
            return (f"+CMEE: {port.settings.cmee}",)
        case Op.TEST:
            return ("+CMEE: (0-2)",)
        case Op.SET:
            port.settings.cmee = number(parameters(command, 1)[0], range(3))
            return ()
        case Op.EXECUTE:
            raise Refused


def information(port: "SimPort", command: Command) -> Iterable[Step]:
    """I: maker and model; I1 to I9 are versions and the like."""
    if number(command.args, _DIGIT, 0) == 0:
        return (f"Telit {port.module.identity.name}",)
    return (port.module.identity.revision,)


def clock(port: "SimPort", command: Command) -> Iterable[Step]:
    """+CCLK: shows the network's time; setting it changes nothing."""
    match command.op:
        case Op.READ:
            now = port.module.clock()
            offset = now.utcoffset()
            quarters = 0 if offset is None else int(offset.total_seconds()) // 900
            return (f'+CCLK: "{now:%y/%m/%d,%H:%M:%S}{quarters:+03}"',)
        case Op.SET:
            if len(unquote(parameters(command, 1)[0])) not in {17, 20}:
                raise Refused(BAD_PARAMETER)
            return ()
        case Op.TEST:
            return ()
        case Op.EXECUTE:
            raise Refused


def pins(port: "SimPort", command: Command) -> Iterable[Step]:
    """#GPIO=<pin>,<mode>[,<dir>]: modes 0 and 1 set the level, 2 reads it."""
    values = port.module.values
    match command.op:
        case Op.TEST:
            return ("#GPIO: (1-10),(0-2),(0-15)",)
        case Op.READ:
            return [f"#GPIO: {','.join(values.get(f'#GPIO{pin}', ('0', '0')))}" for pin in PINS]
        case Op.SET:
            given = parameters(command, 3, 2)
            pin, mode = number(given[0], PINS), number(given[1], range(3))
            if mode == 2:
                return (f"#GPIO: {','.join(values.get(f'#GPIO{pin}', ('0', '0')))}",)
            values[f"#GPIO{pin}"] = str(number(given[2], range(16), 1)), str(mode)
            return ()
        case Op.EXECUTE:
            raise Refused


def write_script(port: "SimPort", command: Command) -> Iterator[Step]:
    """#WSCRIPT="<name>",<size>[,<hidden>]: asks with a counted prompt."""
    if command.op is Op.TEST:
        return
    given = parameters(command, 3, 2)
    name, size = unquote(given[0]), number(given[1], range(1, SCRIPT_SIZE_CAP + 1))
    scripts = port.module.scripts
    if not 0 < len(name) <= 16 or (name not in scripts and len(scripts) >= SCRIPTS_CAP):
        raise Refused(BAD_PARAMETER)
    prompt = Prompt(size)
    yield prompt
    scripts[name] = prompt.data


def list_scripts(port: "SimPort", command: Command) -> Iterable[Step]:
    """#LSCRIPT."""
    scripts = port.module.scripts
    if command.op is Op.TEST:
        return ()
    free = SCRIPTS_CAP * SCRIPT_SIZE_CAP - sum(map(len, scripts.values()))
    return [f'#LSCRIPT: "{name}",{len(data)}' for name, data in scripts.items()] + [f"#LSCRIPT: free bytes: {free}"]


def delete_script(port: "SimPort", command: Command) -> Iterable[Step]:
    """#DSCRIPT."""
    if command.op is Op.TEST:
        return ()
    if port.module.scripts.pop(unquote(parameters(command, 1)[0]), None) is None:
        raise Refused(NOT_FOUND)
    return ()


def reboot(port: "SimPort", command: Command) -> Iterable[Step]:
    """#REBOOT: OK, then silence."""
    if command.op is Op.EXECUTE:
        port.after_final(port.module.reboot)
    return ()


def shut_down(port: "SimPort", command: Command) -> Iterable[Step]:
    """#SHDN: OK, then off."""
    if command.op is Op.EXECUTE:
        port.after_final(port.module.shut_down)
    return ()


def _refusing(refused: Refused) -> Handler:
    """Return the handler of a command that is refused."""

    def handle(_port: "SimPort", _command: Command) -> Iterable[Step]:
        raise refused

    return handle


def _identity(value: Callable[["SimPort"], str], prefix: str = "") -> Handler:
    """Return the handler of a command that tells one fixed thing; SET 1 asks +CGSN and +GSN for a prefixed answer."""

    def handle(port: "SimPort", command: Command) -> Iterable[Step]:
        if command.op is Op.TEST:
            return ()
        if command.op is Op.READ:
            raise Refused
        if command.op is Op.SET:
            number(command.args, range(2))
            return (f"{command.name}: {value(port)}",)
        return (f"{prefix}{value(port)}",)

    return handle


def _of_sim(value: Callable[["SimPort"], str], prefix: str = "") -> Handler:
    """Return the handler of a command that tells what the SIM holds."""

    def handle(port: "SimPort", command: Command) -> Iterable[Step]:
        if command.op is Op.TEST:
            return ()
        card.need_sim(port)
        return (f"{prefix}{value(port)}",)

    return handle


def _only_with_at_run(handler: Handler) -> Handler:
    """Return a handler that a family without AT RUN does not know."""

    def handle(port: "SimPort", command: Command) -> Iterable[Step]:
        if port.module.identity.name.startswith(WITHOUT_AT_RUN):
            raise Refused(UNKNOWN)
        return handler(port, command)

    return handle


def _maker(_port: "SimPort") -> str:
    return "Telit"


def _model(port: "SimPort") -> str:
    return port.module.identity.name


def _revision(port: "SimPort") -> str:
    return port.module.identity.revision


def _imei(port: "SimPort") -> str:
    return port.module.identity.imei


def _serial(port: "SimPort") -> str:
    return port.module.identity.serial


def _iccid(port: "SimPort") -> str:
    return port.module.identity.iccid


def _imsi(port: "SimPort") -> str:
    return port.module.identity.imsi


HANDLERS: Final[dict[str, Handler]] = {
    **SETTINGS,
    **{name: _only_with_at_run(SETTINGS[name]) for name in AT_RUN},
    **card.HANDLERS,
    **radio.HANDLERS,
    **packet.HANDLERS,
    **messages.HANDLERS,
    **sending.HANDLERS,
    **dict.fromkeys(
        ("", "H", "L", "M", "X", "&C", "&D", "&K", "&P", "&S", "&W", "&Y", "\\Q", "\\R", "+CSAS", "+CRES", "#SELINT"),
        nothing,
    ),
    "E": echo,
    "V": verbose,
    "Q": quiet,
    "Z": defaults,
    "&F": defaults,
    "D": dial,
    "A": no_call,
    "O": no_call,
    "I": information,
    "+CMEE": error_reports,
    "+CGMI": _identity(_maker),
    "+GMI": _identity(_maker),
    "#CGMI": _identity(_maker, "#CGMI: "),
    "+CGMM": _identity(_model),
    "+GMM": _identity(_model),
    "#CGMM": _identity(_model, "#CGMM: "),
    "+CGMR": _identity(_revision),
    "+GMR": _identity(_revision),
    "#CGMR": _identity(_revision, "#CGMR: "),
    "+CGSN": _identity(_imei),
    "#CGSN": _identity(_imei, "#CGSN: "),
    "+GSN": _identity(_serial),
    "#CCID": _of_sim(_iccid, "#CCID: "),
    "+CIMI": _of_sim(_imsi),
    "#CIMI": _of_sim(_imsi, "#CIMI: "),
    "+CCLK": clock,
    "#GPIO": pins,
    "#WSCRIPT": write_script,
    "#LSCRIPT": list_scripts,
    "#DSCRIPT": delete_script,
    "#REBOOT": reboot,
    "#SHDN": shut_down,
}

BY_QUIRK: Final = {"data_prompts": uploads.HANDLERS, "gps": location.HANDLERS}
"""Commands that are known only where a quirk is on."""
