# SPDX-License-Identifier: Apache-2.0
"""Commands of the message service (3GPP TS 27.005) but for those that send: modes, memories, what lies there."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from atrund.at.syntax import Command, Op, unquote
from atrund.sim.rendering import CHARACTER_SETS, INVALID_PDU_PARAMETER, INVALID_TEXT_PARAMETER, listed, read
from atrund.sim.state import Sim
from atrund.sim.steps import BAD_PARAMETER, Handler, Refused, Step, cms, number, parameters
from atrund.sim.store import MEMORIES, Message, Status
from atrund.sms.pdu import Address, PduError, TypeOfNumber

if TYPE_CHECKING:  # for the annotations alone
    from atrund.sim.port import SimPort

OPERATION_NOT_ALLOWED: Final = 302
SIM_NOT_INSERTED: Final = 310
INVALID_MEMORY_INDEX: Final = 321
MEMORY_FULL: Final = 322
NO_NETWORK_SERVICE: Final = 331
NO_CNMA_EXPECTED: Final = 340
"""Codes of TS 27.005 3.2.5."""

SERVICE_CENTRE: Final = '"+393492000009",145'


def message_format(port: "SimPort", command: Command) -> Iterable[Step]:
    """+CMGF: 0 PDU, 1 text."""
    match command.op:
        case Op.READ:
            return (f"+CMGF: {int(port.settings.text_mode)}",)
        case Op.TEST:
            return ("+CMGF: (0,1)",)
        case Op.SET:
            port.settings.text_mode = bool(number(parameters(command, 1)[0], range(2)))
            return ()
        case Op.EXECUTE:
            raise Refused


def character_set(port: "SimPort", command: Command) -> Iterable[Step]:
    """+CSCS (TS 27.007 5.5)."""
    match command.op:
        case Op.READ:
            return (f'+CSCS: "{port.settings.character_set}"',)
        case Op.TEST:
            return (f"+CSCS: ({','.join(_quoted(CHARACTER_SETS))})",)
        case Op.SET:
            wanted = unquote(parameters(command, 1)[0]).upper()
            if wanted not in CHARACTER_SETS:
                raise Refused(BAD_PARAMETER)
            port.settings.character_set = wanted
            return ()
        case Op.EXECUTE:
            raise Refused


def service(port: "SimPort", command: Command) -> Iterable[Step]:
    """+CSMS: 1 asks for an acknowledgement of what is shown directly."""
    values = port.module.values
    match command.op:
        case Op.READ:
            return (f"+CSMS: {values.get('+CSMS', ('0',))[0]},1,1,1",)
        case Op.TEST:
            return ("+CSMS: (0,1)",)
        case Op.SET:
            values["+CSMS"] = (str(number(parameters(command, 1)[0], range(2))),)
            return ("+CSMS: 1,1,1",)
        case Op.EXECUTE:
            raise Refused


def service_centre(port: "SimPort", command: Command) -> Iterable[Step]:
    """+CSCA."""
    values = port.module.values
    match command.op:
        case Op.READ:
            return (f"+CSCA: {','.join(values.get('+CSCA', (SERVICE_CENTRE,)))}",)
        case Op.SET:
            given = parameters(command, 2)
            address = address_of(unquote(given[0]), given[1])
            values["+CSCA"] = (f'"{address.text}",{address.type_octet}',)
            return ()
        case Op.TEST:
            return ()
        case Op.EXECUTE:
            raise Refused


def memories(port: "SimPort", command: Command) -> Iterable[Step]:
    """+CPMS. The third memory, where messages arrive, is one for all ports."""
    store, settings = port.module.store, port.settings
    match command.op:
        case Op.TEST:
            each = f"({','.join(_quoted(MEMORIES))})"
            return (f"+CPMS: {each},{each},{each}",)
        case Op.SET:
            given = [unquote(text) for text in parameters(command, 3)]
            if any(name not in MEMORIES for name in given if name) or not given[0]:
                raise cms(OPERATION_NOT_ALLOWED)
            settings.mem1 = given[0]
            settings.mem2 = given[1] or settings.mem2
            store.memory3 = given[2] or store.memory3
            port.after_final(port.module.network.release)
        case Op.EXECUTE:
            raise Refused
        case Op.READ:
            pass
    names = (settings.mem1, settings.mem2, store.memory3)
    counts = [(f'"{name}",' if command.op is Op.READ else "", store.used(name), store.sizes[name]) for name in names]
    return (f"+CPMS: {','.join(f'{name}{used},{size}' for name, used, size in counts)}",)


def list_messages(port: "SimPort", command: Command) -> Iterable[Step]:
    """+CMGL: what is shown as unread is read from then on."""
    if command.op is Op.TEST:
        return (f"+CMGL: ({','.join(_quoted(LIST_WORDS))})" if port.settings.text_mode else "+CMGL: (0-4)",)
    if command.op is Op.READ:
        raise Refused
    need_sim(port)
    wanted = _wanted_status(port, unquote(parameters(command, 1)[0]) if command.op is Op.SET else "")
    lines: list[str] = []
    for index, message in port.module.store.messages(port.settings.mem1):
        if wanted is None or message.status is wanted:
            lines.extend(listed(port, index, message))
            _mark_read(message)
    return lines


def read_message(port: "SimPort", command: Command) -> Iterable[Step]:
    """+CMGR."""
    if command.op is Op.TEST:
        return ()
    index = index_of(port, command, port.settings.mem1)
    message = port.module.store.get(port.settings.mem1, index)
    if message is None:
        raise cms(INVALID_MEMORY_INDEX)
    lines = read(port, message)
    _mark_read(message)
    return lines


def delete_message(port: "SimPort", command: Command) -> Iterable[Step]:
    """+CMGD, with its flag."""
    store, memory = port.module.store, port.settings.mem1
    if command.op is Op.TEST:
        return (f"+CMGD: ({','.join(str(index) for index, _ in store.messages(memory))}),(0-4)",)
    if command.op is not Op.SET:
        raise Refused
    need_sim(port)
    given = parameters(command, 2)
    flag = number(given[1], range(5), 0)
    if flag:
        store.delete_by_flag(memory, flag)
    else:
        store.delete(memory, index_of(port, command, memory))
    # A slot is free: the network may bring what it kept.
    port.after_final(port.module.network.release)
    return ()


def acknowledge(port: "SimPort", command: Command) -> Iterable[Step]:
    """+CNMA (TS 27.005 3.4.4)."""
    if command.op is Op.TEST:
        return ("+CNMA: (0-2)",)
    if not port.module.network.acknowledge():
        raise cms(NO_CNMA_EXPECTED)
    return ()


def need_sim(port: "SimPort") -> None:
    """Refuse a command that can't do without the SIM."""
    if port.module.card.state is not Sim.READY:
        raise cms(SIM_NOT_INSERTED)


def index_of(port: "SimPort", command: Command, memory: str) -> int:
    """Return the index that a command names in a memory."""
    need_sim(port)
    if command.op is not Op.SET:
        raise Refused
    indices = range(1, port.module.store.sizes[memory] + 1)
    return message_number(parameters(command, 2)[0], indices, None, INVALID_MEMORY_INDEX)


def message_number(text: str, allowed: range, default: int | None, code: int) -> int:
    """Return a parameter as a number; +CMS ERROR with `code` for one that is none of the allowed."""
    try:
        return number(text, allowed, default)
    except Refused:
        raise cms(code) from None


def address_of(digits: str, type_text: str = "") -> Address:
    """Return the address of digits with an optional type-of-address octet (145 is international)."""
    kind = number(type_text, range(128, 256), 145 if digits.startswith("+") else 129)
    international = kind >> 4 & 7 == TypeOfNumber.INTERNATIONAL
    try:
        return Address.parse(f"+{digits.removeprefix('+')}" if international else digits)
    except PduError:
        raise cms(INVALID_TEXT_PARAMETER) from None


HANDLERS: Final[dict[str, Handler]] = {
    "+CMGF": message_format,
    "+CSCS": character_set,
    "+CSMS": service,
    "+CSCA": service_centre,
    "+CPMS": memories,
    "+CMGL": list_messages,
    "+CMGR": read_message,
    "+CMGD": delete_message,
    "+CNMA": acknowledge,
}

LIST_WORDS: Final = (*(status.words for status in Status), "ALL")
"""The states of text mode's +CMGL; their position is the number of PDU mode (TS 27.005 3.4.2)."""


def _quoted(names: Iterable[str]) -> list[str]:
    return [f'"{name}"' for name in names]


def _mark_read(message: Message) -> None:
    if message.status is Status.REC_UNREAD:
        message.status = Status.REC_READ


def _wanted_status(port: "SimPort", text: str) -> Status | None:
    """Return the state that +CMGL is asked for, None for all."""
    if port.settings.text_mode:
        wanted = (text or LIST_WORDS[0]).upper()
        if wanted not in LIST_WORDS:
            raise cms(INVALID_TEXT_PARAMETER)
        position = LIST_WORDS.index(wanted)
    else:
        position = message_number(text, range(5), 0, INVALID_PDU_PARAMETER)
    return None if position == 4 else Status(position)
