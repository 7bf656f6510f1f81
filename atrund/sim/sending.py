# SPDX-License-Identifier: Apache-2.0
"""Commands that send messages and write them to be sent (3GPP TS 27.005 3.5), in PDU mode and in text mode."""

from collections.abc import Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Final

from atrund.at.syntax import Command, Op, unquote
from atrund.sim.messages import (
    INVALID_MEMORY_INDEX,
    MEMORY_FULL,
    NO_NETWORK_SERVICE,
    address_of,
    index_of,
    message_number,
    need_sim,
)
from atrund.sim.rendering import INVALID_PDU_PARAMETER, INVALID_TEXT_PARAMETER, stamp_text, typed
from atrund.sim.steps import Handler, Prompt, Refused, Step, Wait, cms, number, parameters
from atrund.sim.store import Message, Status
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
    UserData,
    decode_submit,
)

if TYPE_CHECKING:  # for the annotations alone
    from atrund.sim.port import SimPort

PDU_LENGTHS: Final = range(7, 165)
"""Octets of a TPDU that +CMGS takes (AT guides of the family)."""

PARTS_CAP: Final = 10
PART_SIZES: Final = {Alphabet.GSM7: 153, Alphabet.EIGHT_BIT: 134, Alphabet.UCS2: 134}
WHOLE_SIZES: Final = {Alphabet.GSM7: 160, Alphabet.EIGHT_BIT: 140, Alphabet.UCS2: 140}
"""A text is sent as at most ten messages: 1530, 1340 or 670 characters (80437ST10619A, +CMGS)."""


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
    message = port.module.store.get(port.settings.mem2, index_of(port, command, port.settings.mem2))
    if message is None or message.status.received:
        raise cms(INVALID_MEMORY_INDEX)
    yield Wait(port.module.options.send_delay)
    if not port.module.radio.in_service:
        raise cms(NO_NETWORK_SERVICE)
    reference = port.module.network.submit(decode_submit(message.pdu))
    message.status = Status.STO_SENT
    yield f"+CMSS: {reference}"


HANDLERS: Final[dict[str, Handler]] = {
    "+CSMP": text_parameters,
    "+CMGS": send,
    "+CMGW": write,
    "+CMSS": send_stored,
}

RELATIVE_VALIDITY: Final = 0x10
STATUS_REPORT: Final = 0x20
UNTYPEABLE: Final = 0x48
"""Bits of +CSMP's first octet (TS 23.040 9.2.2.2); a header or another kind of validity can't be typed here."""


def _ask(port: "SimPort", command: Command) -> Generator[Step, None, tuple[Submit, ...]]:
    """Ask for a message and return it, in parts if it is long; the parameters are looked at before the prompt."""
    if command.op is not Op.SET:
        raise Refused
    need_sim(port)
    quirks = port.module.quirks
    prompt = Prompt()
    if command.name == "+CMGS":
        prompt.times = {"never": 0, "once": 1, "twice": 2}[quirks.word("cmgs_prompt")]
    if port.settings.text_mode:
        given = parameters(command, 2)
        destination = address_of(unquote(given[0]), given[1])
        # Text alone is typed in lines (80502ST10950A, +CMGS); hex pairs are not.
        prompt.again = quirks.on("prompt_again") and Dcs(port.settings.csmp[3]).alphabet is Alphabet.GSM7
        yield prompt
        return _typed_message(port, destination, prompt.data)
    length = message_number(parameters(command, 1)[0], PDU_LENGTHS, None, INVALID_PDU_PARAMETER)
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
