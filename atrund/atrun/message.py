# SPDX-License-Identifier: Apache-2.0
"""Is this SMS an ATRUN SMS, and how is it answered (SMS-3 to SMS-9, SMS-11, SMS-13).

Rules of this file: a digest header decides alone; one that fails is never tried as a simple SMS. The sender of a simple
SMS is compared with the white list, that of a digest SMS with nothing. What proves more than these do is in proofs.py.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from atrund.atrun.request import Outcome
from atrund.sms.address import Address
from atrund.sms.alphabet import Alphabet, encode_text, replace_unsendable
from atrund.sms.dcs import Dcs
from atrund.sms.digest import DigestError, parse_request
from atrund.sms.parts import Parts, digest_parts, simple_parts
from atrund.sms.pdu import Deliver, RelativeValidity, Submit

ANSWER_VALIDITY: Final = RelativeValidity(0xA7)
"""24 h (TS 23.040 9.2.3.12.1): nobody acts on an older answer."""


class Proof(Protocol):
    """What a message that is no digest SMS has with it to show whom it comes from."""

    @property
    def proves(self) -> bool:
        """Whether, once it is found right, nobody else can have sent the message."""
        ...


@dataclass(frozen=True, slots=True)
class AtRun:
    """An ATRUN SMS: `line` is the command line without its H, `password` the index of the one that it was made with.

    `digest` is that of a digest SMS, `proof` what another has.
    """

    line: str = field(repr=False)
    answered: bool
    password: int | None = None
    transaction: int = 0
    session: int = 0
    digest: str = field(default="", repr=False, compare=False)
    proof: Proof | None = None

    @property
    def forgeable(self) -> bool:
        """Whether anybody could have sent it: the sender of a simple SMS can be forged."""
        return self.password is None and (self.proof is None or not self.proof.proves)


@dataclass(frozen=True, slots=True)
class NotAtRun:
    """Any other SMS, and why it is none."""

    why: str


def judge(
    deliver: Deliver, numbers: Sequence[str], passwords: Sequence[str], *, convert_ucs2: bool
) -> AtRun | NotAtRun:
    """Return what an SMS is, given the white list's numbers and passwords."""
    data = deliver.user_data
    if data.header is not None:
        return NotAtRun("has a user data header")
    if deliver.dcs.compressed:
        return NotAtRun("is compressed")
    if data.alphabet is Alphabet.EIGHT_BIT:
        try:
            digest = parse_request(data.content)
        except DigestError as error:
            return NotAtRun(f"has a malformed digest header: {error}")
        if digest is not None:
            which = digest.matches(passwords)
            if which is None:
                return NotAtRun("has a digest of no password here")
            found = command_in(digest.text.decode("latin-1"))
            if found is None:
                return NO_COMMAND
            return AtRun(found[0], found[1], which, digest.transaction, digest.session, digest.digest)
    if not is_listed(deliver.originator, numbers):
        return NotAtRun("comes from no number of the white list")
    text = text_of(deliver, convert_ucs2=convert_ucs2)
    if text is None:
        return NotAtRun("is written in UCS-2")
    found = command_in(text)
    return AtRun(*found) if found is not None else NO_COMMAND


NO_COMMAND: Final = NotAtRun("does not begin with AT or HAT")


def text_of(deliver: Deliver, *, convert_ucs2: bool) -> str | None:
    """Return the text in which a command may stand, None for UCS-2 that can't be converted or shall not be."""
    data = deliver.user_data
    if data.alphabet is Alphabet.UCS2:
        return _straightened(data.text) if convert_ucs2 else None
    return data.text


def command_in(text: str) -> tuple[str, bool] | None:
    """Return the command line and whether an answer is wanted, or None for any other text."""
    line = text.strip(" ")  # a line end stays: one is the parser's to drop, more refuse the line (REQ-4)
    if line[:3].upper() == "HAT":
        return line[1:], False
    return (line, True) if line[:2].upper() == "AT" else None


def is_listed(sender: Address, numbers: Sequence[str]) -> bool:
    """Whether a sender matches an entry exactly, or its beginning where the entry ends with `*`."""
    if sender.is_alphanumeric:
        return False
    return any(sender.text.startswith(entry[:-1]) if entry.endswith("*") else sender.text == entry for entry in numbers)


def message_key(deliver: Deliver) -> str:
    """Return what a message is known by, wherever and however often it lies in a store (SMS-11)."""
    parts = (
        deliver.originator.encode(),
        deliver.timestamp.encode(),
        bytes((deliver.pid, deliver.dcs.octet)),
        deliver.user_data.encode(),
    )
    return hashlib.sha256(b"".join(len(part).to_bytes(2) + part for part in parts)).hexdigest()


def answer_text(outcome: Outcome) -> str:
    """Return the text of the answer: the module's, or one that names the reason of a refusal (SMS-13)."""
    if not outcome.was_refused and outcome.final is not None:
        return outcome.framed
    why = outcome.reason.value if outcome.reason is not None else outcome.end.value
    return f'\r\n#ATRUN: "{why}"\r\n\r\nERROR\r\n'


def context_of(found: AtRun, deliver: Deliver) -> dict[str, str | int | None]:
    """Return what has to be kept to answer later: who asked, in which coding, with which header."""
    return {
        "originator": deliver.originator.encode().hex(),
        "dcs": deliver.dcs.octet,
        "password": found.password,
        "transaction": found.transaction,
        "session": found.session,
    }


def answers(
    text: str, context: Mapping[str, str | int | None], to: Address, passwords: Sequence[str], reference: int
) -> tuple[tuple[Submit, ...], Parts]:
    """Return the messages that answer: of the same kind, with the request's DCS octet (SMS-8).

    `reference` is the 8-bit number that ties concatenated parts together. Raises `LookupError` when the password that
    the request was made with is gone.
    """
    dcs = Dcs(int(context["dcs"] or 0))
    which = context["password"]
    if which is None:
        parts = simple_parts(text, dcs.octet, reference)
    else:
        if int(which) >= len(passwords):
            raise LookupError("the password of the request is no longer configured")
        sendable, replaced = replace_unsendable(text, Alphabet.EIGHT_BIT)
        octets = encode_text(sendable, Alphabet.EIGHT_BIT)
        transaction, session = int(context["transaction"] or 0), int(context["session"] or 0)
        parts = replace(digest_parts(octets, passwords[int(which)], transaction, session), replaced=replaced)
    return tuple(Submit(to, part, dcs, validity=ANSWER_VALIDITY) for part in parts.parts), parts


_STRAIGHT: Final = str.maketrans(
    {"\u201c": '"', "\u201d": '"', "\u201e": '"', "\u201f": '"', "\u00ab": '"', "\u00bb": '"', "\u2033": '"'}
    | {"\u2018": "'", "\u2019": "'", "\u201a": "'", "\u201b": "'"}
    | {"\u2010": "-", "\u2011": "-", "\u2012": "-", "\u2013": "-", "\u2014": "-", "\u2212": "-"}
    | {"\u00a0": " ", "\u2009": " ", "\u202f": " "}
)
"""What phones make of quotes, dashes and blanks while one types."""


def _straightened(text: str) -> str | None:
    """Return a UCS-2 text as plain ASCII, or None if it holds anything else."""
    plain = text.translate(_STRAIGHT)
    return plain if plain.isascii() else None
