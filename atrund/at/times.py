# SPDX-License-Identifier: Apache-2.0
"""How long commands may take, and which a character aborts: data, each with its source.

`GE910`: the table of longest times in Telit's GE910 documents as clients of it carry it; `27.007`: 3GPP TS 27.007;
`HE910`: Telit's HSPA+ command guide. Commands that are not here ask nothing of the network.
"""

from collections.abc import Iterable
from typing import Final

from atrund.at.syntax import Command, Op

USUAL: Final = 5.0
"""Seconds for a command that asks nothing of the network (GE910: +CMGR, +CPIN, #CCID and their like)."""

LONGEST: Final[dict[str, float]] = {
    "+COPS": 180.0,  # a search over all bands and technologies; GE910 says 30, LTE families 3 minutes
    "+CMGS": 180.0,  # 60 s on GE910; the network's retries may double and triple it
    "+CMGW": 5.0,  # GE910
    "+CMSS": 180.0,  # as +CMGS
    "+CMGL": 60.0,  # GE910: 20 for a SIM's worth, ME holds three times as much
    "+CMGD": 25.0,  # GE910: 5, with a flag 25
    "+CGATT": 140.0,  # 10 on GE910; an attach with retries (T3310) on later families
    "+CGACT": 150.0,  # GE910
    "+CFUN": 60.0,  # leaving the network in order
    "+CUSD": 120.0,  # the network's answer
    "+CLCK": 60.0,  # facilities of the network
    "+CPWD": 60.0,  # as +CLCK
    "+CCFC": 60.0,  # call forwarding, asked of the network
    "+CCWA": 60.0,  # as +CCFC
    "+CLIR": 60.0,  # as +CCFC
    "#SGACT": 150.0,  # GE910, HE910
    "#GPRS": 150.0,  # GE910
    "#SD": 140.0,  # GE910
    "#SKTD": 140.0,  # as #SD
    "#SH": 5.0,  # GE910: 3
    "#QDNS": 20.0,  # GE910
    "#PING": 90.0,  # 4 packets with 20 s each, some rest
    "#REBOOT": 5.0,  # GE910
    "#MSCLASS": 15.0,  # GE910
    "#CSURV": 130.0,  # GE910: 10 to begin, 120 to end
    "#CSURVC": 130.0,
    "#CSURVU": 130.0,
    "#CSURVUC": 130.0,
    "#CSURVB": 130.0,
    "#CSURVBC": 130.0,
    "#CSURVP": 130.0,
    "#CSURVPC": 130.0,
    "#FTPOPEN": 110.0,  # HE910: the timeout of its own that it begins with, and a login
    "#EMAILD": 100.0,  # a dialogue with a mail server
    "D": 60.0,  # GE910: 30; S7 allows 60 (V.250 6.3.10)
    "A": 60.0,
    "H": 30.0,  # GE910
}
"""Seconds from the first byte sent to the final result, at the longest."""

ABORTABLE: Final = frozenset({"D", "A", "+COPS", *(name for name in LONGEST if name.startswith("#CSURV"))})
"""Commands that a character sent meanwhile aborts (V.250 5.6.1; 27.007 7.3 for +COPS=?; Telit for surveys)."""


def longest(commands: Iterable[Command]) -> float:
    """Return how many seconds a line may take at the longest: the sum over its commands; a mere read is quick."""
    return sum((_one(command) for command in commands), 0.0) or USUAL


def is_abortable(commands: Iterable[Command]) -> bool:
    """Whether a character sent meanwhile ends the line early."""
    return any(command.name in ABORTABLE for command in commands)


def _one(command: Command) -> float:
    asks_nothing = command.op is Op.READ or (command.op is Op.TEST and command.name != "+COPS")
    return USUAL if asks_nothing else LONGEST.get(command.name, USUAL)
