# SPDX-License-Identifier: Apache-2.0
"""When a command is refused whatever its handler would say: the SIM is busy, locked or gone."""

from typing import TYPE_CHECKING, Final

from atrund.at.syntax import Command, Op
from atrund.sim.state import Sim
from atrund.sim.steps import SIM_BUSY, SIM_PUK_REQUIRED, Refused, cms

if TYPE_CHECKING:  # for the annotations alone
    from atrund.sim.port import SimPort

SMS_NOT_READY: Final = 314
SMS_CODES: Final = {Sim.MISSING: 310, Sim.PIN: 311, Sim.PUK: 316}
"""Codes of TS 27.005 3.2.5: SIM busy; SIM not inserted, its PIN required, its PUK required."""

OF_SMS: Final = frozenset({"+CPMS", "+CMGL", "+CMGR", "+CMGD", "+CMGS", "+CMGW", "+CMSS", "+CSCA"})
"""Commands that work on what the SIM holds of the message service."""

OF_SIM: Final = frozenset({"#CCID", "+CIMI", "#CIMI"})


def refusal(port: "SimPort", command: Command) -> Refused | None:
    """Return the refusal of a command, None if nothing stands in its way. Only quirks stand in the way."""
    if command.op is Op.TEST:
        return None
    module = port.module
    settling = module.card.rising is not None
    strict = module.quirks.on("sim_strict")
    if command.name in OF_SMS:
        if settling or module.sms_busy:
            return cms(SMS_NOT_READY)
        code = SMS_CODES.get(module.card.state)
        return cms(code) if strict and code is not None else None
    if settling and (command.name in OF_SIM or (command.name, command.op) == ("+CPIN", Op.READ)):
        return Refused(SIM_BUSY)
    if strict and module.card.state is Sim.PUK and command.name in OF_SIM:
        return Refused(SIM_PUK_REQUIRED)
    return None
