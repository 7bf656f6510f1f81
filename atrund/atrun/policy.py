# SPDX-License-Identifier: Apache-2.0
"""What may not go to the module, judged on the parsed commands of a line (POL-1, POL-2, REQ-6, MOD-6, CMD-1).

Rules of this file: the tables are the policy; numbers are compared as numbers, so spelling, blanks and quotes change
nothing. A table says what is harmless where it can, so that what it does not know is refused. One refused command
refuses its whole line before anything is sent. No detail shows an argument, for it may be a secret.
"""

import re
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
    """+CMGS +CMGW +CMGC +CNMA #CMGS #CMGW #CMGSCT #SEMAIL #EMAILD #EMAILMSG #SSEND #SSENDEXT #SSENDUDP #SSENDUDPEXT
    #WSCRIPT #M2MWRITE #HTTPSND #SSLSEND #SSLSENDEXT #SSLSECDATA #SMTPCL #ESMTPMSG #FTPAPPEXT #APLAY #MQPUBS #LWM2MSET
    #GSENDDATA #CMQTTPUB #DWSENDR""".split()
)
"""Commands that wait for data behind a prompt (REQ-6), in their set or execution form."""

DATA_MODE: Final = frozenset(
    "A O +CGDATA #SD #SO #SKTD #SKTL #SKTOP #SSLD #SSLO #FTPPUT #FTPGET #FTPAPP #FTPLIST #SL #SA".split()
)
"""Commands after which bytes are no commands any more (MOD-6), save `#SD` and its like in command mode; and `D`."""


def _judge_one(command: Command) -> Refusal | None:
    if command.name in OWNED:
        return Refusal(Reason.POLICY, "owned", f"{command.name} belongs to the gateway, not to the module")
    if (meant := _mistakable(command)) is not None:
        return Refusal(Reason.POLICY, "name", f"no command of the module, which may take it for {meant}")
    if command.name in PROMPTING and _acts(command):
        return Refusal(
            Reason.PROMPT_UNSUPPORTED, "prompt", f"{command.name} waits for data, which cannot be given here"
        )
    # A hazard says more about a command than that it enters data mode, so it is looked up first.
    for hazard in HAZARDS.get(command.name, ()):
        if hazard.applies(command):
            return Refusal(Reason.POLICY, "hazard", f"{command.name}: {hazard.why}; way back: {hazard.way_back}")
    if command.name == "D" and (why := _dial_hazard(command.args)) is not None:
        return Refusal(Reason.POLICY, "dial", f"D: {why}")
    if _enters_data_mode(command):
        return Refusal(
            Reason.DATA_MODE, "data mode", f"{command.name} would turn the shared port into a data connection"
        )
    return None


def _enters_data_mode(command: Command) -> bool:
    if command.name == "D":
        return not command.args.endswith(";") or _PACKET_CALL.match(_dialled(command.args)) is not None
    if not _acts(command) or command.name not in DATA_MODE:
        return False
    return not (command.name in {"#SD", "#SSLD", "#SA"} and _number(command, _COMMAND_MODE[command.name]) == 1)


_COMMAND_MODE: Final = {"#SD": 6, "#SA": 1, "#SSLD": 4}
"""Where the argument stands that opens a socket in command mode (1): the connection then stays out of the port."""


def _number(command: Command, index: int) -> int | None:
    """The argument at `index` as a number, however it is spelled, or None."""
    given = arguments(command.args)
    text = unquote(given[index]) if index < len(given) else ""
    if not (text.isascii() and text.isdecimal()):
        return None
    digits = text.lstrip("0")
    return int(digits or "0") if len(digits) <= 10 else None


def _dialled(dial_string: str) -> str:
    """Return what is left of a dial string when all that a module may pass over is gone (V.250 6.3.1)."""
    return "".join(character for character in dial_string if character in "0123456789*#")


def _dial_hazard(dial_string: str) -> str | None:
    # A module that knows no quotes in a dial string takes what stands behind the `;` for commands.
    if ";" in dial_string.removesuffix(";"):
        return "a ';' may stand at its end only, quoted or not"
    if _LOCKING_CODE.match(_dialled(dial_string)):
        return "changes, unblocks or sets a code or a barring of the SIM"
    return None


_LOCKING_CODE: Final = re.compile(r"(?:\*\*?|##?)(?:03|042?|052?|33[0-3]?|35[13]?)[*#]")
"""What +CPIN, +CPWD and +CLCK do, dialled (3GPP TS 22.030 6.5.4, 6.6.2, 6.6.3 and annex B); `*#33#` only asks."""
_PACKET_CALL: Final = re.compile(r"\*9[89](?:[*#]|$)")
"""A packet service dialled (3GPP TS 27.007 10.2.1), data mode with or without the `;` of a voice call."""


def _mistakable(command: Command) -> str | None:
    """Return the listed command that a careless parser may take this one for: `+CFUN.=4`, `+CFUN4`, `+CF-UN=4`."""
    if not _acts(command) or not command.extended or command.name in _NO_MISTAKE:
        return None
    meant = _BY_LETTERS.get(_letters(command.name))
    return meant if meant != command.name else None


def _letters(name: str) -> str:
    return name[0] + "".join(character for character in name if character.isalpha())


_NO_MISTAKE: Final = frozenset({"#SCFGEXT2", "#SCFGEXT3"})
"""Commands that differ from a listed one by a digit alone."""


def _acts(command: Command) -> bool:
    return command.op in {Op.SET, Op.EXECUTE}


def _unless(index: int, *numbers: int) -> Callable[[Command], bool]:
    def applies(command: Command) -> bool:
        return _acts(command) and _number(command, index) not in numbers

    return applies


_NONE = "none from afar: somebody must be at the device"
_ALL_HAZARDS: Final = (
    # Telit 80000NT10029a 2.5.2 and 3.8.2
    Hazard("+CFUN", _acts, "changes the radio's or the module's state", "AT+CFUN=1"),
    Hazard("+CGATT", _unless(0, 1), "detaches from packet service", "AT+CGATT=1"),
    Hazard("+CGACT", _unless(0, 1), "deactivates contexts", "AT+CGACT=1"),
    Hazard("+CGCLASS", _acts, "changes the class of service", 'AT+CGCLASS="B"'),
    Hazard("+COPS", _unless(0, 0, 3), "leaves the network or locks onto one", "AT+COPS=0"),
    Hazard("+CGSMS", _unless(0, 1, 2, 3), "takes SMS off circuit switching", "AT+CGSMS=1"),
    Hazard("#SHDN", _acts, "switches the module off", _NONE),
    Hazard("#BND", _acts, "may leave the bands that are on air here", "AT#BND with the value read before"),
    Hazard("#SIMDET", _unless(0, 1, 2), "takes the SIM away", "AT#SIMDET=2"),
    Hazard("+CMUX", _acts, "turns the port into a multiplexer", _NONE),
    Hazard("+CGDATA", _acts, "turns the port into a data connection", _NONE),
    Hazard("#FTPPUT", _acts, "turns the port into a data connection", "closing the transfer at the device"),
    Hazard("$GPSNMUN", _unless(0, 0, 1, 2), "floods the port with NMEA and blocks commands", _NONE),
    # Ours
    Hazard("#REBOOT", _acts, "restarts the module and its data connection", "comes back by itself"),
    Hazard("#ENHRST", _unless(0, 0), "restarts the module, once or for ever", "AT#ENHRST=0"),
    Hazard("#USBCFG", _acts, "changes the module's USB ports", _NONE),
    Hazard("#PORTCFG", _acts, "moves the AT ports", _NONE),
    Hazard("#FWSWITCH", _acts, "boots other firmware", _NONE),
    Hazard("#CMUXMODE", _acts, "changes how ports are multiplexed", _NONE),
    Hazard("+CPIN", _acts, "may lock the SIM", "the PUK, at the device"),
    Hazard("+CLCK", _unless(1, 2), "locks or bars services, FDN among them", "AT+CLCK with mode 0 and the code"),
    Hazard("+CPWD", _acts, "changes a SIM's code", "the old code"),
    Hazard("+WS46", _acts, "changes the radio technology", "AT+WS46 with the value read before"),
    Hazard("+CSCA", _acts, "changes the SMS centre, so that no answer leaves", "AT+CSCA with the value read before"),
    Hazard("#ESCRIPT", _acts, "makes a script start with the module", 'AT#ESCRIPT=""'),
    Hazard("+CGDCONT", _acts, "changes a context that the data connection may use", "AT+CGDCONT as read before"),
    Hazard("#SGACT", _unless(1, 1), "deactivates a context that the data connection may use", "AT#SGACT=<cid>,1"),
)

HAZARDS: Final = {
    name: tuple(hazard for hazard in _ALL_HAZARDS if hazard.name == name) for name in {h.name for h in _ALL_HAZARDS}
}
"""Both lists of POL-2 by command name."""

_BY_LETTERS: Final = {
    _letters(name): name for name in OWNED | PROMPTING | DATA_MODE | HAZARDS.keys() if Command(name, Op.SET).extended
}
