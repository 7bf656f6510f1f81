# SPDX-License-Identifier: Apache-2.0
"""Commands of the SIM: its PIN and PUK, whether it is there."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from atrund.at.syntax import Command, Op, arguments, unquote
from atrund.sim.settings import with_status
from atrund.sim.state import Sim
from atrund.sim.steps import (
    BAD_PARAMETER,
    INCORRECT_PASSWORD,
    SIM_FAILURE,
    SIM_NOT_INSERTED,
    SIM_PIN_REQUIRED,
    SIM_PUK_REQUIRED,
    Handler,
    Refused,
    Step,
    number,
    parameters,
)

if TYPE_CHECKING:  # for the annotations alone
    from atrund.sim.port import SimPort


def need_sim(port: "SimPort") -> None:
    """Refuse a command that can't do without the SIM."""
    state = port.module.card.state
    if state is Sim.MISSING:
        raise Refused(SIM_NOT_INSERTED)
    if state is not Sim.READY:
        raise Refused(SIM_PIN_REQUIRED)


def pin(port: "SimPort", command: Command) -> Iterable[Step]:
    """+CPIN (TS 27.007 8.3)."""
    module = port.module
    match command.op:
        case Op.READ:
            if module.card.state is Sim.MISSING:
                raise Refused(SIM_NOT_INSERTED)
            return (f"+CPIN: {module.card.state.value}",)
        case Op.SET:
            given = [unquote(text) for text in arguments(command.args)] or [""]
            if module.card.state is Sim.PUK and module.quirks.on("puk"):
                _enter_puk(port, given)
            else:
                _enter_pin(port, given[0])
            return ()
        case Op.TEST:
            return ()
        case Op.EXECUTE:
            raise Refused


def pin_counter(port: "SimPort", _command: Command) -> Iterable[Step]:
    """#PCT: how many tries of the PIN are left, or of the PUK where that is asked for."""
    card = port.module.card
    of_puk = card.state is Sim.PUK and port.module.quirks.on("puk")
    return (f"#PCT: {card.puk_tries if of_puk else card.tries}",)


def sim_status(port: "SimPort", command: Command) -> Iterable[Step]:
    """#QSS."""
    status = port.module.card.qss
    return with_status(port, command, range(3), f",{min(status, 1) if port.settings.number('#QSS') < 2 else status}")


def sim_detection(port: "SimPort", command: Command) -> Iterable[Step]:
    """#SIMDET: mode 0 takes the SIM out, 1 puts it in, 2 follows the holder's switch."""
    module = port.module
    mode = module.values.get("#SIMDET", ("2",))[0]
    if command.op is Op.READ:
        return (f"#SIMDET: {mode},{int(module.card.state is not Sim.MISSING)}",)
    if command.op is Op.TEST:
        return ("#SIMDET: (0-2)",)
    wanted = number(parameters(command, 1)[0], range(3))
    module.values["#SIMDET"] = (str(wanted),)
    module.set_sim(Sim.MISSING if wanted == 0 else Sim.READY)
    return ()


HANDLERS: Final[dict[str, Handler]] = {
    "+CPIN": pin,
    "#PCT": pin_counter,
    "#QSS": sim_status,
    "#SIMDET": sim_detection,
}


def _enter_pin(port: "SimPort", given: str) -> None:
    card = port.module.card
    if card.state is Sim.MISSING:
        raise Refused(SIM_NOT_INSERTED)
    if card.state is not Sim.PIN:
        raise Refused(INCORRECT_PASSWORD if card.state is Sim.PUK else BAD_PARAMETER)
    if given == (card.new_pin or port.module.options.pin):
        port.module.set_sim(Sim.READY)
        return
    card.tries -= 1
    if card.tries <= 0:
        card.state = Sim.PUK
    raise Refused(INCORRECT_PASSWORD)


def _enter_puk(port: "SimPort", given: list[str]) -> None:
    """The PUK and a new PIN (TS 27.007 8.3); ten wrong PUKs and the SIM is of no more use."""
    card = port.module.card
    if len(given) != 2 or not given[1].isdecimal() or not 4 <= len(given[1]) <= 8:
        raise Refused(SIM_PUK_REQUIRED)
    if card.puk_tries <= 0:
        raise Refused(SIM_FAILURE)
    if given[0] != port.module.options.puk:
        card.puk_tries -= 1
        raise Refused(INCORRECT_PASSWORD)
    card.new_pin, card.puk_tries = given[1], 10
    port.module.set_sim(Sim.READY)
