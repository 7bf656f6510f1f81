# SPDX-License-Identifier: Apache-2.0
"""Commands of the message service (3GPP TS 27.005), in PDU mode and in text mode."""

from collections.abc import Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Final

from atrund.at.syntax import Command, Op, unquote
from atrund.sim.rendering import (
    CHARACTER_SETS,
    INVALID_PDU_PARAMETER,
    INVALID_TEXT_PARAMETER,
    listed,
    read,
    stamp_text,
    typed,
)
from atrund.sim.state import Sim
from atrund.sim.steps import BAD_PARAMETER, Handler, Prompt, Refused, Step, Wait, cms, number, parameters
from atrund.sim.store import MEMORIES, Message, Status
from atrund.sms.alphabet import ESCAPE, Alphabet
from atrund.sms.pdu import (
    Address,
    Concatenation,
    Dcs,
    Element,
    PduError,
    RelativeValidity,
    Submit,
    Timestamp,
    TypeOfNumber,
    UserData,
    decode_submit,
)

if TYPE_CHECKING:  # for the annotations alone
    from atrund.sim.port import SimPort

OPERATION_NOT_ALLOWED: Final = 302
SIM_NOT_INSERTED: Final = 310
INVALID_MEMORY_INDEX: Final = 321
MEMORY_FULL: Final = 322
NO_NETWORK_SERVICE: Final = 331
NO_CNMA_EXPECTED: Final = 340
"""Codes of TS 27.005 3.2.5."""

PDU_LENGTHS: Final = range(7, 165)
"""Octets of a TPDU that +CMGS takes (AT guides of the family)."""

PARTS_CAP: Final = 10
PART_SIZES: Final = {Alphabet.GSM7: 153, Alphabet.EIGHT_BIT: 134, Alphabet.UCS2: 134}
WHOLE_SIZES: Final = {Alphabet.GSM7: 160, Alphabet.EIGHT_BIT: 140, Alphabet.UCS2: 140}
"""A text is sent as at most ten messages: 1530, 1340 or 670 characters (80437ST10619A, +CMGS)."""

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


def text_parameters(port: "SimPort", command: Command) -> Iterable[Step]:
    """+CSMP: first octet, validity period, protocol identifier and coding scheme of what is sent in text mode."""
    match command.op:
        case Op.READ:
            return (f"+CSMP: {','.join(map(str, port.settings.csmp))}",)
        case Op.TEST:
            return ("+CSMP: (0-255),(0-255),(0-255),(0-255)",)
        case Op.SET:
            given = parameters(command, 4)
            fo, vp, pid, dcs = (
                number(text, range(256), old) for text, old in zip(given, port.settings.csmp, strict=True)
            )
            port.settings.csmp = fo, vp, pid, dcs
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
            address = _address(unquote(given[0]), given[1])
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
    _need_sim(port)
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
    index = _index(port, command, port.settings.mem1)
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
    _need_sim(port)
    given = parameters(command, 2)
    flag = number(given[1], range(5), 0)
    if flag:
        store.delete_by_flag(memory, flag)
    else:
        store.delete(memory, _index(port, command, memory))
    # A slot is free: the network may bring what it kept.
    port.after_final(port.module.network.release)
    return ()


def send(port: "SimPort", command: Command) -> Iterator[Step]:
    """+CMGS: asks for the message and answers with its reference."""
    if command.op is Op.TEST:
        return
    submits = yield from _ask(port, command)
    quirks, network = port.module.quirks, port.module.network
    if quirks.on("full_322") and port.module.store.full(port.module.store.memory3):
        raise cms(MEMORY_FULL)
    answer = quirks.word("cmgs_answer")
    for part, message in enumerate(submits, 1):
        yield Wait(port.module.options.send_delay)
        if not port.module.radio.in_service:
            raise cms(NO_NETWORK_SERVICE)
        line = f"+CMGS: {network.submit(message)}{_stamp(port)}"
        if part == len(submits) or answer == "each":
            yield from (line,) * (2 if answer == "line_twice" else 1)
    if answer == "ok_twice":
        port.after_final(lambda: port.urc("OK"))


def write(port: "SimPort", command: Command) -> Iterator[Step]:
    """+CMGW: keeps a message that is not sent yet."""
    if command.op is Op.TEST:
        return
    message, *more = yield from _ask(port, command)
    if more:
        raise cms(INVALID_TEXT_PARAMETER)
    index = port.module.store.add(port.settings.mem2, Message(Status.STO_UNSENT, message.encode()))
    if index is None:
        raise cms(MEMORY_FULL)
    yield f"+CMGW: {index}"


def send_stored(port: "SimPort", command: Command) -> Iterator[Step]:
    """+CMSS: sends what +CMGW wrote."""
    if command.op is Op.TEST:
        return
    message = port.module.store.get(port.settings.mem2, _index(port, command, port.settings.mem2))
    if message is None or message.status.received:
        raise cms(INVALID_MEMORY_INDEX)
    yield Wait(port.module.options.send_delay)
    if not port.module.radio.in_service:
        raise cms(NO_NETWORK_SERVICE)
    reference = port.module.network.submit(decode_submit(message.pdu))
    message.status = Status.STO_SENT
    yield f"+CMSS: {reference}"


def acknowledge(port: "SimPort", command: Command) -> Iterable[Step]:
    """+CNMA (TS 27.005 3.4.4)."""
    if command.op is Op.TEST:
        return ("+CNMA: (0-2)",)
    if not port.module.network.acknowledge():
        raise cms(NO_CNMA_EXPECTED)
    return ()


HANDLERS: Final[dict[str, Handler]] = {
    "+CMGF": message_format,
    "+CSCS": character_set,
    "+CSMP": text_parameters,
    "+CSMS": service,
    "+CSCA": service_centre,
    "+CPMS": memories,
    "+CMGL": list_messages,
    "+CMGR": read_message,
    "+CMGD": delete_message,
    "+CMGS": send,
    "+CMGW": write,
    "+CMSS": send_stored,
    "+CNMA": acknowledge,
}

RELATIVE_VALIDITY: Final = 0x10
STATUS_REPORT: Final = 0x20
UNTYPEABLE: Final = 0x48
"""Bits of +CSMP's first octet (TS 23.040 9.2.2.2); a header or another kind of validity can't be typed here."""

LIST_WORDS: Final = (*(status.words for status in Status), "ALL")
"""The states of text mode's +CMGL; their position is the number of PDU mode (TS 27.005 3.4.2)."""


def _quoted(names: Iterable[str]) -> list[str]:
    return [f'"{name}"' for name in names]


def _need_sim(port: "SimPort") -> None:
    if port.module.card.state is not Sim.READY:
        raise cms(SIM_NOT_INSERTED)


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
        position = _message_number(text, range(5), 0, INVALID_PDU_PARAMETER)
    return None if position == 4 else Status(position)


def _index(port: "SimPort", command: Command, memory: str) -> int:
    _need_sim(port)
    if command.op is not Op.SET:
        raise Refused
    indices = range(1, port.module.store.sizes[memory] + 1)
    return _message_number(parameters(command, 2)[0], indices, None, INVALID_MEMORY_INDEX)


def _message_number(text: str, allowed: range, default: int | None, code: int) -> int:
    try:
        return number(text, allowed, default)
    except Refused:
        raise cms(code) from None


def _address(digits: str, type_text: str = "") -> Address:
    """Return the address of digits with an optional type-of-address octet (145 is international)."""
    kind = number(type_text, range(128, 256), 145 if digits.startswith("+") else 129)
    international = kind >> 4 & 7 == TypeOfNumber.INTERNATIONAL
    try:
        return Address.parse(f"+{digits.removeprefix('+')}" if international else digits)
    except PduError:
        raise cms(INVALID_TEXT_PARAMETER) from None


def _ask(port: "SimPort", command: Command) -> Generator[Step, None, tuple[Submit, ...]]:
    """Ask for a message and return it, in parts if it is long; the parameters are looked at before the prompt."""
    if command.op is not Op.SET:
        raise Refused
    _need_sim(port)
    quirks = port.module.quirks
    prompt = Prompt()
    if command.name == "+CMGS":
        prompt.times = {"never": 0, "once": 1, "twice": 2}[quirks.word("cmgs_prompt")]
    if port.settings.text_mode:
        given = parameters(command, 2)
        destination = _address(unquote(given[0]), given[1])
        # Text alone is typed in lines (80502ST10950A, +CMGS); hex pairs are not.
        prompt.again = quirks.on("prompt_again") and Dcs(port.settings.csmp[3]).alphabet is Alphabet.GSM7
        yield prompt
        return _typed_message(port, destination, prompt.data)
    length = _message_number(parameters(command, 1)[0], PDU_LENGTHS, None, INVALID_PDU_PARAMETER)
    yield prompt
    try:
        message = decode_submit(prompt.data.decode("latin-1").strip())
    except PduError:
        raise cms(INVALID_PDU_PARAMETER) from None
    if message.tpdu_length != length:
        raise cms(INVALID_PDU_PARAMETER)
    return (message,)


def _stamp(port: "SimPort") -> str:
    """Return what +CMGS adds to the reference under +CSMS=1, where it does: the service centre's stamp."""
    if not port.module.quirks.on("cmgs_stamp") or port.module.values.get("+CSMS") != ("1",):
        return ""
    return f',"{stamp_text(Timestamp.of(port.module.clock()))}"'


def _typed_message(port: "SimPort", destination: Address, entered: bytes) -> tuple[Submit, ...]:
    first, validity, pid, dcs_octet = port.settings.csmp
    dcs = Dcs(dcs_octet)
    if first & UNTYPEABLE:
        raise cms(INVALID_TEXT_PARAMETER)
    content = typed(entered, port.settings.character_set, dcs)
    try:
        return tuple(
            Submit(
                destination,
                data,
                dcs,
                pid,
                validity=RelativeValidity(validity) if first & RELATIVE_VALIDITY else None,
                status_report=bool(first & STATUS_REPORT),
            )
            for data in _parts(port, dcs.alphabet, content)
        )
    except PduError:
        raise cms(INVALID_TEXT_PARAMETER) from None


def _parts(port: "SimPort", alphabet: Alphabet, content: bytes) -> list[UserData]:
    """Return a content as one user data, or as the parts of a long one where such are sent."""
    if len(content) <= WHOLE_SIZES[alphabet] or not port.module.quirks.on("long_text"):
        return [UserData(alphabet, content)]
    pieces: list[bytes] = []
    while content:
        size = PART_SIZES[alphabet]
        # An extension escape keeps its other half.
        if alphabet is Alphabet.GSM7 and content[size - 1 : size] == bytes([ESCAPE]):
            size -= 1
        pieces.append(content[:size])
        content = content[size:]
    if len(pieces) > PARTS_CAP:
        raise cms(INVALID_TEXT_PARAMETER)
    reference = port.module.network.next_long_reference()
    return [
        UserData(alphabet, piece, (Element.concatenated(Concatenation(reference, len(pieces), index)),))
        for index, piece in enumerate(pieces, 1)
    ]
