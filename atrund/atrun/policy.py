# SPDX-License-Identifier: Apache-2.0
"""What may not go to the module, judged on the parsed commands of a line (POL-1, POL-2, REQ-6, MOD-6, CMD-1).

Rules of this file: the tables are the policy; numbers are compared as numbers, so spelling, blanks and quotes change
nothing. One refused command refuses its whole line before anything is sent.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from atrund.at.syntax import Command, Op, arguments, unquote
from atrund.atrun.request import Reason


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a line is refused: `rule` names the table, `detail` is for a person."""

    reason: Reason
    rule: str
    detail: str


@dataclass(frozen=True, slots=True)
class Hazard:
    """A command that can cut the way it came by, or outlast it. `way_back` says how the effect is undone."""

    name: str
    applies: Callable[[Command], bool]
    why: str
    way_back: str


def judge(commands: Iterable[Command]) -> Refusal | None:
    """Return why the line must not run, or None when it may."""
    for command in commands:
        if (refusal := _judge_one(command)) is not None:
            return refusal
    return None


OWNED: Final = frozenset(
    """#SMSATRUN #SMSATRUNCFG #SMSATWL #TCPATRUNCFG #TCPATRUNL #TCPATRUND #TCPATRUNCLOSE #TCPATRUNFRWL #TCPATRUNAUTH
    #TCPATCMDSEQ #TCPATCONSER #ATRUNDELAY #ENAEVMONI #ENAEVMONICFG #EVMONI #ATRUNCONFIRM #SCFG #SCFGEXT
    E Q V X S2 S3 S4 S5 S12 Z &F &W &Y &P &V +CMEE +IPR +ICF +IFC &K &C &D &S \\Q""".split()
)
"""Commands that belong to the daemon or to the port that all doors share (CMD-1); the module never sees a door's."""

PROMPTING: Final = frozenset(
    """+CMGS +CMGW #CMGS #CMGW #CMGSCT #SEMAIL #EMAILMSG #SSEND #SSENDEXT #SSENDUDP #SSENDUDPEXT #WSCRIPT #M2MWRITE
    #HTTPSND #SSLSEND #SSLSENDEXT #SSLSECDATA #SMTPCL #ESMTPMSG #FTPAPPEXT #FTPCFG #APLAY #MQPUBS #LWM2MSET #GSENDDATA
    #CMQTTPUB""".split()
)
"""Commands that wait for data behind a prompt (REQ-6), in their set or execution form."""

DATA_MODE: Final = frozenset("A O +CGDATA #SD #SO #SKTD #SKTOP #SSLD #SSLO #FTPPUT #FTPGET #FTPAPP #SL #SA".split())
"""Commands after which bytes are no commands any more (MOD-6), save `#SD` and its like in command mode; and `D`."""


def _judge_one(command: Command) -> Refusal | None:
    if command.name in OWNED:
        return Refusal(Reason.POLICY, "owned", f"{command.name} belongs to the gateway, not to the module")
    if command.name in PROMPTING and command.op in {Op.SET, Op.EXECUTE}:
        return Refusal(
            Reason.PROMPT_UNSUPPORTED, "prompt", f"{command.name} waits for data, which cannot be given here"
        )
    # A hazard says more about a command than that it enters data mode, so it is looked up first.
    for hazard in HAZARDS.get(command.name, ()):
        if hazard.applies(command):
            return Refusal(Reason.POLICY, "hazard", f"{command}: {hazard.why}; way back: {hazard.way_back}")
    if _enters_data_mode(command):
        return Refusal(
            Reason.DATA_MODE, "data mode", f"{command.name} would turn the shared port into a data connection"
        )
    return None


def _enters_data_mode(command: Command) -> bool:
    if command.name == "D":
        return not command.args.endswith(";")
    if command.op not in {Op.SET, Op.EXECUTE} or command.name not in DATA_MODE:
        return False
    return not (command.name in {"#SD", "#SSLD", "#SA"} and _number(command, _COMMAND_MODE[command.name]) == 1)


_COMMAND_MODE: Final = {"#SD": 6, "#SA": 1, "#SSLD": 4}
"""Where the argument stands that opens a socket in command mode (1): the connection then stays out of the port."""


def _number(command: Command, index: int) -> int | None:
    """The argument at `index` as a number, however it is spelled, or None."""
    given = arguments(command.args)
    text = unquote(given[index]) if index < len(given) else ""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 10 else None


def _always(command: Command) -> bool:
    return command.op in {Op.SET, Op.EXECUTE}


def _when(index: int, *numbers: int) -> Callable[[Command], bool]:
    def applies(command: Command) -> bool:
        return command.op is Op.SET and _number(command, index) in numbers

    return applies


def _unless(index: int, *numbers: int) -> Callable[[Command], bool]:
    def applies(command: Command) -> bool:
        return command.op is Op.SET and _number(command, index) not in numbers

    return applies


_NONE = "none from afar: somebody must be at the device"
_ALL_HAZARDS: Final = (
    # Telit 80000NT10029a 2.5.2 and 3.8.2
    Hazard("+CFUN", _always, "changes the radio's or the module's state", "AT+CFUN=1"),
    Hazard("+CGATT", _unless(0, 1), "detaches from packet service", "AT+CGATT=1"),
    Hazard("+CGACT", _unless(0, 1), "deactivates contexts", "AT+CGACT=1"),
    Hazard("+CGCLASS", _always, "changes the class of service", 'AT+CGCLASS="B"'),
    Hazard("+COPS", _unless(0, 0, 3), "leaves the network or locks onto one", "AT+COPS=0"),
    Hazard("+CGSMS", _unless(0, 1, 2, 3), "takes SMS off circuit switching", "AT+CGSMS=1"),
    Hazard("#SHDN", _always, "switches the module off", _NONE),
    Hazard("#BND", _always, "may leave the bands that are on air here", "AT#BND with the value read before"),
    Hazard("#SIMDET", _unless(0, 1, 2), "takes the SIM away", "AT#SIMDET=2"),
    Hazard("+CMUX", _always, "turns the port into a multiplexer", _NONE),
    Hazard("+CGDATA", _always, "turns the port into a data connection", _NONE),
    Hazard("#FTPPUT", _always, "turns the port into a data connection", "closing the transfer at the device"),
    Hazard("$GPSNMUN", _when(0, 3), "floods the port with NMEA and blocks commands", _NONE),
    # Ours
    Hazard("#REBOOT", _always, "restarts the module and its data connection", "comes back by itself"),
    Hazard("#ENHRST", _unless(0, 0), "restarts the module, once or for ever", "AT#ENHRST=0"),
    Hazard("#USBCFG", _always, "changes the module's USB ports", _NONE),
    Hazard("#PORTCFG", _always, "moves the AT ports", _NONE),
    Hazard("#FWSWITCH", _always, "boots other firmware", _NONE),
    Hazard("#CMUXMODE", _always, "changes how ports are multiplexed", _NONE),
    Hazard("+CPIN", _always, "may lock the SIM", "the PUK, at the device"),
    Hazard("+CLCK", _unless(1, 2), "locks or bars services, FDN among them", "AT+CLCK with mode 0 and the code"),
    Hazard("+CPWD", _always, "changes a SIM's code", "the old code"),
    Hazard("+WS46", _always, "changes the radio technology", "AT+WS46 with the value read before"),
    Hazard("+CSCA", _always, "changes the SMS centre, so that no answer leaves", "AT+CSCA with the value read before"),
    Hazard("#ESCRIPT", _always, "makes a script start with the module", 'AT#ESCRIPT=""'),
    Hazard("+CGDCONT", _always, "changes a context that the data connection may use", "AT+CGDCONT as read before"),
    Hazard("#SGACT", _unless(1, 1), "deactivates a context that the data connection may use", "AT#SGACT=<cid>,1"),
)

HAZARDS: Final = {
    name: tuple(hazard for hazard in _ALL_HAZARDS if hazard.name == name) for name in {h.name for h in _ALL_HAZARDS}
}
"""Both lists of POL-2 by command name."""
