# SPDX-License-Identifier: Apache-2.0
"""Commands that can cut the way they came by, or outlast it: why, the way back, the undo if there is one (POL-2).

Rules of this file: the two lists are data; the first row of a command that applies to it counts. A row says what is
harmless where it can, so that what it does not know is a hazard. Reading and testing are harmless, save the read form
of what has none: a careless parser may run the command instead.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from atrund.at.results import information
from atrund.at.syntax import Command, Op, arguments, unquote

Answers = Sequence[str]
"""The lines of the answer to one read command, without its final result."""


@dataclass(frozen=True, slots=True)
class Undo:
    """How a hazard is undone.

    `read` asks for the old value and is sent before the hazard; None where nothing need be known. `compose` makes the
    undoing command of the hazard and the answer to `read`, or gives None when that doesn't tell the old value.
    """

    read: Command | None
    compose: Callable[[Command, Answers], Command | None]


@dataclass(frozen=True, slots=True)
class Hazard:
    """One row. `applies` tells the forms and values that are dangerous; without `undo` nothing of ours can undo it."""

    name: str
    applies: Callable[[Command], bool]
    why: str
    way_back: str
    undo: Undo | None = None


def hazard_of(command: Command) -> Hazard | None:
    """Return what is dangerous about a command, or None."""
    return next((hazard for hazard in HAZARDS.get(command.name, ()) if hazard.applies(command)), None)


def number(command: Command, index: int) -> int | None:
    """The argument at `index` as a number, however it is spelled, or None."""
    given = arguments(command.args)
    return whole(given[index]) if index < len(given) else None


def whole(argument: str) -> int | None:
    """A number of at most 10 digits, quoted or not, zeros in front or not; else None."""
    text = unquote(argument)
    if not (text.isascii() and text.isdecimal()):
        return None
    digits = text.lstrip("0")
    return int(digits or "0") if len(digits) <= 10 else None


def acts(command: Command) -> bool:
    """Whether a command does something: it is neither read nor tested."""
    return command.op in {Op.SET, Op.EXECUTE}


def dialled(dial_string: str) -> str:
    """What is left of a dial string when all that a module may pass over is gone (V.250 6.3.1)."""
    return "".join(character for character in dial_string if character in "0123456789*#")


def _unless(index: int, *numbers: int) -> Callable[[Command], bool]:
    def applies(command: Command) -> bool:
        return acts(command) and number(command, index) not in numbers

    return applies


def _not_tested(command: Command) -> bool:
    return command.op is not Op.TEST


def _executed(command: Command) -> bool:
    return command.op is Op.EXECUTE


def _restarting_fun(command: Command) -> bool:
    """<rst> of +CFUN, and levels that answer no command any more or are a maker's own (TS 27.007 8.2).

    0 puts Telit's families to sleep with the AT interface closed; 2 and 4 switch the radio, 1 and 5 are full service.
    """
    resets = len(arguments(command.args)) > 1 and number(command, 1) != 0
    return acts(command) and (resets or number(command, 0) not in {1, 2, 4, 5})


def _at_once(command: Command) -> bool:
    return _unless(0, 0)(command) and number(command, 1) in {None, 0}


def _dials_code(command: Command) -> bool:
    return _LOCKING_CODE.match(dialled(command.args)) is not None


def _dials_stored(command: Command) -> bool:
    return any(character in "><=LlSs" for character in command.args)


_LOCKING_CODE: Final = re.compile(r"(?:\*\*?|##?)(?:03|042?|052?|33[0-3]?|35[13]?)[*#]")
"""What +CPIN, +CPWD and +CLCK do, dialled (3GPP TS 22.030 6.5.4, 6.6.2, 6.6.3 and annex B); `*#33#` only asks."""


def _values(name: str, answer: Answers) -> list[tuple[str, ...]]:
    """The values of each information line of that name."""
    lines = [information(line) for line in answer]
    return [line.parameters for line in lines if line is not None and line.name == name and line.text]


def _set(name: str, values: Sequence[str]) -> Command:
    return Command(name, Op.SET, ",".join(values))


def _old(name: str, count: int = 99) -> Undo:
    """Set again the first `count` values that the read form shows."""

    def compose(_: Command, answer: Answers) -> Command | None:
        found = _values(name, answer)
        return _set(name, found[0][:count]) if len(found) == 1 and found[0][0] else None

    return Undo(Command(name, Op.READ), compose)


def _old_number(name: str) -> Undo:
    """The same for a value that may come without its name: `+WS46: 28` or `28`, `001`."""

    def compose(_: Command, answer: Answers) -> Command | None:
        lines = [line.removeprefix(f"{name}:").strip() for line in answer if line.strip()]
        return _set(name, lines) if len(lines) == 1 and whole(lines[0]) is not None else None

    return Undo(Command(name, Op.READ), compose)


def _old_operator(_: Command, answer: Answers) -> Command | None:
    """+COPS: <mode>[,<format>,<oper>[,<AcT>]] (TS 27.007 7.3). A chosen operator that isn't named can't be restored."""
    found = _values("+COPS", answer)
    if len(found) != 1:
        return None
    mode = whole(found[0][0])
    if mode in {0, 2}:
        return _set("+COPS", [str(mode)])
    return _set("+COPS", found[0][:4]) if mode in {1, 4} and len(found[0]) > 2 else None


def _old_context(given: Command, answer: Answers) -> Command | None:
    """Define the context as it was, or not at all (TS 27.007 10.1.1: `+CGDCONT=<cid>` undefines it).

    Six parameters, to the compression of headers: every family takes these, and not all what it shows behind them.
    """
    cid = number(given, 0)
    if cid is None:
        return None
    found = [values for values in _values("+CGDCONT", answer) if whole(values[0]) == cid]
    return _set("+CGDCONT", found[0][:6] if found else [str(cid)])


def _old_state(given: Command, answer: Answers) -> Command | None:
    cid = number(given, 0)
    found = [values for values in _values("#SGACT", answer) if len(values) > 1 and whole(values[0]) == cid is not None]
    return _set("#SGACT", found[0][:2]) if found else None


def _activate(given: Command, answer: Answers) -> Command | None:
    """Activate the contexts that were named; those that were active where none was named (TS 27.007 10.1.10)."""
    cids = list(arguments(given.args)[1:])
    if not cids:
        cids = [values[0] for values in _values("+CGACT", answer) if len(values) > 1 and whole(values[1]) == 1]
    return _set("+CGACT", ["1", *cids])


def _mode_and_delay(_: Command, answer: Answers) -> Command | None:
    """#ENHRST: <mod>[,<delay>,<time left>]: the third is shown only."""
    found = _values("#ENHRST", answer)
    if len(found) != 1:
        return None
    return _set("#ENHRST", ["0"] if whole(found[0][0]) == 0 else found[0][:2])


_NONE: Final = "none from afar: somebody must be at the device"
_ITSELF: Final = "comes back by itself"
_RAW: Final = "none that can be told: it is up to what is sent to the SIM"

NOTES: Final = (
    # Telit 80000NT10029a 2.5.2 and 3.8.2
    Hazard("+CFUN", _restarting_fun, "restarts the module, or closes its AT interface", _ITSELF + ", or " + _NONE),
    Hazard("+CFUN", acts, "changes the radio's or the module's state", "AT+CFUN=1", _old("+CFUN", 1)),
    Hazard(
        "+CGATT",
        _unless(0, 1),
        "detaches from packet service",
        "AT+CGATT=1",
        Undo(None, lambda *_: _set("+CGATT", ["1"])),
    ),
    Hazard("+CGACT", _unless(0, 1), "deactivates contexts", "AT+CGACT=1", Undo(Command("+CGACT", Op.READ), _activate)),
    Hazard("+CGCLASS", acts, "changes the class of service", 'AT+CGCLASS="B"', _old("+CGCLASS", 1)),
    Hazard(
        "+COPS",
        _unless(0, 0, 3),
        "leaves the network or locks onto one",
        "AT+COPS=0",
        Undo(Command("+COPS", Op.READ), _old_operator),
    ),
    Hazard("+CGSMS", _unless(0, 1, 2, 3), "takes SMS off circuit switching", "AT+CGSMS=1", _old("+CGSMS", 1)),
    Hazard("#SHDN", _not_tested, "switches the module off", _NONE),
    Hazard("#BND", acts, "may leave the bands that are on air here", "AT#BND with the value read before", _old("#BND")),
    Hazard("#SIMDET", _unless(0, 1, 2), "takes the SIM away", "AT#SIMDET=2", _old("#SIMDET", 1)),
    Hazard("+CMUX", acts, "turns the port into a multiplexer", _NONE),
    Hazard("+CGDATA", acts, "turns the port into a data connection", _NONE),
    Hazard("#FTPPUT", acts, "turns the port into a data connection", "closing the transfer at the device"),
    # In mode 3 the port speaks NMEA alone, until a `+++` at the device.
    Hazard("$GPSNMUN", _unless(0, 0, 1, 2), "floods the port with NMEA and blocks commands", _NONE),
    # FDN among them; <mode> 2 asks (TS 27.007 7.4)
    Hazard("+CLCK", _unless(1, 2), "locks or bars services, FDN among them", "AT+CLCK with mode 0 and the code"),
)
"""The note's list."""

OURS: Final = (
    Hazard("#REBOOT", _not_tested, "restarts the module and its data connection", _ITSELF),
    Hazard("#ENHRST", _at_once, "restarts the module at once", _ITSELF),
    Hazard(
        "#ENHRST",
        _unless(0, 0),
        "restarts the module later, once or for ever",
        "AT#ENHRST=0",
        Undo(Command("#ENHRST", Op.READ), _mode_and_delay),
    ),
    # Telit 80617ST10991A 3.9.4: woken by DTR or a restart alone; its read form shows parameters.
    Hazard("#SYSHALT", acts, "switches the module off", _NONE),
    Hazard("+CPOF", _not_tested, "switches the module off", _NONE),
    # Executed it switches off at once; set it arms a pin that does.
    Hazard("#FASTSHDN", _executed, "switches the module off at once", _NONE),
    Hazard(
        "#FASTSHDN",
        acts,
        "lets a pin switch the module off",
        "AT#FASTSHDN with the value read before",
        _old("#FASTSHDN"),
    ),
    Hazard("#USBCFG", acts, "changes the module's USB ports", _NONE),
    Hazard("#PORTCFG", acts, "moves the AT ports", _NONE),
    Hazard("#FWSWITCH", acts, "boots other firmware", _NONE),
    Hazard("#OTAUP", acts, "starts the module with other firmware", _NONE),
    Hazard("#OTAUPW", acts, "turns the port into a data connection and loads other firmware", _NONE),
    Hazard("#TESTMODE", acts, "leaves the network for the factory's test mode", 'AT#TESTMODE="OM"'),
    Hazard("#CMUXMODE", acts, "changes how ports are multiplexed", "AT#CMUXMODE=0", _old("#CMUXMODE", 1)),
    Hazard("+CPIN", acts, "may lock the SIM", "the PUK, at the device"),
    Hazard("+CPWD", acts, "changes a SIM's code", "the old code"),
    # An APDU can verify, change or block a code (TS 27.007 8.17, 8.43); what it does can't be judged from here.
    Hazard("+CSIM", acts, "sends raw commands to the SIM, which they may lock or rewrite", _RAW),
    Hazard("+CGLA", acts, "sends raw commands to the SIM, which they may lock or rewrite", _RAW),
    # TS 27.007 8.18: READ BINARY, READ RECORD, GET RESPONSE and STATUS change nothing.
    Hazard("+CRSM", _unless(0, 176, 178, 192, 242), "rewrites files of the SIM, FDN among them", _RAW),
    Hazard("+WS46", acts, "changes the radio technology", "AT+WS46 with the value read before", _old_number("+WS46")),
    # On firmware that knows it, it changes bands by itself at the next start; #BND is refused while it is on.
    Hazard(
        "#AUTOBND",
        acts,
        "may leave the bands that are on air here",
        "AT#AUTOBND with the value read before",
        _old("#AUTOBND", 1),
    ),
    Hazard(
        "+CSCA",
        acts,
        "changes the SMS centre, so that no answer leaves",
        "AT+CSCA with the value read before",
        _old("+CSCA", 2),
    ),
    Hazard("#ESCRIPT", acts, "makes a script start with the module", 'AT#ESCRIPT=""', _old("#ESCRIPT", 1)),
    Hazard(
        "+CGDCONT",
        acts,
        "changes a context that the data connection may use",
        "AT+CGDCONT as read before",
        Undo(Command("+CGDCONT", Op.READ), _old_context),
    ),
    Hazard(
        "#SGACT",
        _unless(1, 1),
        "deactivates a context that the data connection may use",
        "AT#SGACT=<cid>,1",
        Undo(Command("#SGACT", Op.READ), _old_state),
    ),
    Hazard(
        "#GPRS",
        _unless(0, 1),
        "deactivates a context that the data connection may use",
        "AT#GPRS=1",
        _old("#GPRS", 1),
    ),
    # A data call that answers itself turns the port into a data connection.
    Hazard("S0", _unless(0, 0), "answers calls by itself, data calls on this port too", "ATS0=0", _old_number("S0")),
    Hazard("D", _dials_code, "changes, unblocks or sets a code or a barring of the SIM", "the code that was dialled"),
    # +CPBW writes there whatever a direct dial string is refused for.
    Hazard("D", _dials_stored, "dials a stored number, which can't be judged", "ATH, or none if it was a code"),
)
"""Ours."""

HAZARDS: Final[Mapping[str, tuple[Hazard, ...]]] = {
    name: tuple(hazard for hazard in NOTES + OURS if hazard.name == name)
    for name in dict.fromkeys(hazard.name for hazard in NOTES + OURS)
}
"""Both lists by command name."""
