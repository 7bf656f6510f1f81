# SPDX-License-Identifier: Apache-2.0
"""What an SMS proves by a seal or by codes, and that neither lets in what is not to come in."""

from collections.abc import Collection, Sequence

import pytest

from atrund.atrun import message
from atrund.atrun.message import AtRun, NotAtRun
from atrund.atrun.proofs import ByCodes, BySeal, judge
from atrund.sms.address import Address
from atrund.sms.alphabet import Alphabet
from atrund.sms.digest import build_request
from atrund.sms.pdu import Dcs, Deliver, Element, UserData
from atrund.sms.seal import SealKey, parse_sealed, seal
from atrund.sms.timestamp import Timestamp

FRIEND = "+393468686711"
STRANGER = "+393331234567"
PASSWORD = "1234567890123456"
KEY = SealKey(7, bytes(range(32)))
STAMP = Timestamp(2026, 11, 22, 8, 40, 0)
EVERY_DCS = [0x00, 0x04, 0x15, 0x08]


def sms(text: str, sender: str = FRIEND, *, dcs: int = 0, header: tuple[Element, ...] | None = None) -> Deliver:
    scheme = Dcs(dcs)
    return Deliver(Address.parse(sender), STAMP, UserData.from_text(text, scheme, header), scheme)


def judged(
    deliver: Deliver,
    *,
    keys: Sequence[SealKey] = (KEY,),
    coded: Collection[str] = (FRIEND,),
    convert: bool = True,
    numbers: Sequence[str] = (FRIEND,),
) -> AtRun | NotAtRun:
    return judge(deliver, numbers, [PASSWORD], convert_ucs2=convert, keys=keys, coded=coded)


def sealed(text: str, key: SealKey = KEY) -> str:
    return seal(key, text, counter=1, time=2)


# Seals.


@pytest.mark.parametrize("dcs", EVERY_DCS)
@pytest.mark.parametrize(("text", "line", "answered"), [("AT+CSQ", "AT+CSQ", True), ("hAT+CSQ", "AT+CSQ", False)])
def test_a_sealed_sms_is_one_from_whoever_it_comes(dcs: int, text: str, line: str, *, answered: bool) -> None:
    found = judged(sms(sealed(text), STRANGER, dcs=dcs))
    proof = parse_sealed(sealed(text))
    assert proof is not None
    assert found == AtRun(line, answered, proof=BySeal(KEY, proof))
    assert not found.forgeable


def test_a_seal_of_another_key_is_none_also_from_a_friend() -> None:
    found = judged(sms(sealed("AT+CSQ", SealKey(7, bytes(32)))))
    assert found == NotAtRun("has a seal of no key here")


def test_without_keys_a_seal_is_a_text_like_any_other() -> None:
    assert judged(sms(sealed("AT+CSQ")), keys=()) == NotAtRun("does not begin with AT or HAT")


def test_a_sealed_text_that_is_no_command_is_none() -> None:
    assert judged(sms(sealed("hello"))) == NotAtRun("does not begin with AT or HAT")


def test_what_can_be_no_atrun_sms_is_none_by_a_seal_either() -> None:
    """SMS-3, SMS-5."""
    deliver = sms(sealed("AT+CSQ"), header=(Element(0x70, b""),))
    assert judged(deliver) == NotAtRun("has a user data header")
    assert judged(sms(sealed("AT"), dcs=0x08), convert=False) == NotAtRun("is written in UCS-2")
    compressed = Deliver(Address.parse(FRIEND), STAMP, UserData(Alphabet.GSM7, b"", compressed=True), Dcs(0x20))
    assert judged(compressed) == NotAtRun("is compressed")


def test_a_code_inside_a_seal_is_a_part_of_the_line() -> None:
    found = judged(sms(sealed("AT+CSQ #123456")))
    assert isinstance(found, AtRun)
    assert found.line == "AT+CSQ #123456"


# Codes.


@pytest.mark.parametrize("dcs", EVERY_DCS)
def test_codes_are_cut_off_the_line_of_a_number_that_has_them(dcs: int) -> None:
    assert judged(sms("AT+CSQ #123456 ", dcs=dcs)) == AtRun("AT+CSQ", True, proof=ByCodes(FRIEND, ("123456",)))
    assert judged(sms("HAT+CSQ #123456#654321", dcs=dcs)) == AtRun(
        "AT+CSQ", False, proof=ByCodes(FRIEND, ("123456", "654321"))
    )


def test_what_anybody_could_have_sent_is_told_from_what_is_proven() -> None:
    without, with_, plain = judged(sms("AT")), judged(sms("AT #123456")), judged(sms("AT"), coded=())
    assert isinstance(without, AtRun)
    assert isinstance(with_, AtRun)
    assert isinstance(plain, AtRun)
    assert (without.proof, with_.forgeable) == (ByCodes(FRIEND, ()), False)
    assert without.forgeable
    assert plain.forgeable


def test_a_number_without_codes_keeps_what_looks_like_one() -> None:
    assert judged(sms("AT+CSQ #123456"), coded=("+4915112345678",)) == AtRun("AT+CSQ #123456", True)


def test_a_code_lets_nobody_in() -> None:
    assert judged(sms("AT+CSQ #123456"), numbers=()) == NotAtRun("comes from no number of the white list")
    assert judged(sms("hello #123456")) == NotAtRun("does not begin with AT or HAT")


@pytest.mark.parametrize("entry", ["+393468686711", "+39346*", "3468686711", "00393468686711"])
def test_no_entry_of_the_white_list_makes_the_code_go_away(entry: str) -> None:
    """One that a command set may write the number in another way, or only its beginning."""
    sender = FRIEND if entry.startswith("+") else entry
    found = judged(sms("AT+CSQ", sender), numbers=(entry,))
    assert isinstance(found, AtRun)
    assert found.proof == ByCodes(FRIEND, ())


def test_a_digest_sms_of_that_number_needs_none() -> None:
    octets = build_request(PASSWORD, b"AT+CSQ #123456")
    deliver = Deliver(Address.parse(FRIEND), STAMP, UserData(Alphabet.EIGHT_BIT, octets), Dcs(0x15))
    found = judged(deliver)
    assert found == message.judge(deliver, [], [PASSWORD], convert_ucs2=True)
    assert isinstance(found, AtRun)
    assert (found.line, found.proof, found.forgeable) == ("AT+CSQ #123456", None, False)
    assert len(found.digest) == 24
    assert found.digest not in repr(found)


def test_a_code_is_not_shown() -> None:
    assert "123456" not in repr(judged(sms("AT+CSQ #123456")))
