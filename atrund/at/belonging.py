# SPDX-License-Identifier: Apache-2.0
"""Whom a line belongs to, by what it says: to the answer of the commands that run, or to nobody (REQ-5).

An unsolicited code can come at any time, some under the very name of the command that runs. Where a stranger's text
begins, no line says any more whose it is.
"""

from typing import Final

from atrund.at.results import Final as FinalResult
from atrund.at.results import Information, classify, classify_numeric, information
from atrund.at.syntax import Command, Op


class Belonging:
    """What may belong to the answer of one command line."""

    def __init__(self, commands: tuple[Command, ...]) -> None:
        self._names = [
            (name, command) for command in commands for name in (command.name, _OTHER_NAMES.get(command.name))
        ]
        self._lists_all = any(command.name in _LISTINGS for command in commands)
        self._calls = any(command.name in CALL_COMMANDS for command in commands)
        self._bare = any(_says_bare_lines(command) for command in commands)

    def final(self, text: str) -> FinalResult | None:
        """Return the final result that a line can be for these commands, or None."""
        final = classify(text)
        if final is None and not self._bare:  # a lone digit is a V0 result where no information text could be one
            final = classify_numeric(text)
        if final is None or (final.kind.of_a_call and not self._calls):
            return None
        return final

    def answers(self, text: str) -> bool:
        """Whether a line that is no final belongs to the answer."""
        found = information(text)
        if found is None:
            return self._bare and not (text in _BARE_CODES or text.startswith(_BARE_PREFIXES) or classify(text))
        if self._lists_all:
            return found.name not in _NEVER_AN_ANSWER
        return any(found.name == name and not _has_unsolicited_shape(found, command) for name, command in self._names)


def begins_text(text: str) -> bool:
    """Whether a line of an answer is the header of text from outside; a listing in PDU mode is not."""
    found = information(text)
    if found is None:
        return text.startswith("<<<")  # #RSCRIPT, #M2MREAD, #HTTPRCV
    status = _STATUS_PLACES.get(found.name)
    if status is None:
        return found.name in _WITH_DATA
    return not "".join(found.parameters[status : status + 1]).isdecimal()


TWO_LINE_CODES: Final = frozenset({"+CMT", "+CDS", "+CBM"})
"""Unsolicited codes with a PDU or text line behind them (TS 27.005 3.4.1); in text mode too, where a text of several
lines can pass for anything behind its first: only PDU mode makes these codes safe."""

CALL_COMMANDS: Final = frozenset(
    {"D", "A", "O", "+CGDATA", "#SD", "#SO", "#SL", "#SA", "#SSLD", "#SSLO", "#SKTD", "#SKTOP", "#SKTL", "#FTPPUT"}
    | {"#FTPGET", "#FTPAPP", "#SGACT"}
)
"""Commands that may end with CONNECT, NO CARRIER, BUSY, NO ANSWER or NO DIALTONE."""

_LISTINGS: Final = frozenset({"&V", "\\S", "+CLAC"})
_NEVER_AN_ANSWER: Final = TWO_LINE_CODES | {"+CMTI", "+CDSI", "+CBMI"}
_TALKATIVE: Final = frozenset({"I", "&V", "\\S", "&P", "D", "A", "O"})
_OTHER_NAMES: Final = {"#SGACT": "+IP", "#GPRS": "+IP", "+GSN": "+CGSN", "#TEMPMON": "#TEMPMEAS"}
"""Commands that also answer under another name."""


def _says_bare_lines(command: Command) -> bool:
    """Whether lines without the command's name can be its answer, as `Telit` is that of +CGMI."""
    return command.extended or command.name in _TALKATIVE or command.op is Op.READ


_STATUS_PLACES: Final = {"+CMGL": 1, "+CMGR": 0}
"""Where a listing has the message's status: a number in PDU mode, a word in quotes in text mode (TS 27.005 3.4, 4)."""
_WITH_DATA: Final = frozenset({"#SRECV", "#SSLRECV", "#FTPRECV"})

_BARE_CODES: Final = frozenset({"RING", "SWREADY", "+PBREADY", "RDY", "SRING", "OVER-VOLTAGE"})
_BARE_PREFIXES: Final = ("NO CARRIER:", "SRING:", "SSLSRING:", "$GP", "$GN", "$GL")
"""Codes without a command's name: the socket's, and a receiver's sentences under $GPSNMUN (NMEA 0183)."""


def _has_unsolicited_shape(found: Information, command: Command) -> bool:
    """Whether a line under the running command's own name is yet the unsolicited form (TS 27.007 7.2 and others)."""
    shape = _SHAPES.get(found.name)
    if shape is None:
        return False
    if command.op is Op.SET and command.name not in _ASKED_BY_SET:
        return True
    parameters = found.parameters or ("",)
    if command.op is Op.TEST:
        return not parameters[0].startswith("(")
    return shape(parameters)


def _no_state_second(parameters: tuple[str, ...]) -> bool:
    """`+CREG: 1` and `+CREG: 1,"00DE",…` are codes; `+CREG: 2,1,…`, mode before state, answers the read form.

    An area code without quotes is four digits long, a state at most two.
    """
    return len(parameters) == 1 or not (parameters[1].isdecimal() and len(parameters[1]) <= 2)


def _no_number_first(parameters: tuple[str, ...]) -> bool:
    return not parameters[0].isdecimal()


def _more_than_one(parameters: tuple[str, ...]) -> bool:
    return len(parameters) > 1


_SHAPES: Final = {
    "+CREG": _no_state_second,
    "+CGREG": _no_state_second,
    "+CEREG": _no_state_second,
    "#QSS": _no_state_second,
    "#PSNT": _no_state_second,
    "+CLIP": _no_number_first,
    "+COLP": _no_number_first,
    "+CCWA": _no_number_first,
    "#NITZ": _no_number_first,
    "#JDR": _no_number_first,
    "#SMOV": _no_number_first,
    "+CUSD": _more_than_one,
}
"""Codes that are an answer and unsolicited under one name, and how the unsolicited form shows."""
_ASKED_BY_SET: Final = frozenset({"+CCWA"})
"""Of these, what a set form can ask (`+CCWA=,2`, TS 27.007 7.12); under any other their lines are unsolicited."""
