# SPDX-License-Identifier: Apache-2.0
"""All 256 data coding schemes, held against a table written by hand from 3GPP TS 23.038 section 4."""

import pytest

from atrund.sms.alphabet import Alphabet
from atrund.sms.dcs import CodingGroup, Dcs, Waiting
from atrund.sms.fields import PduError

GSM7, EIGHT_BIT, UCS2 = Alphabet.GSM7, Alphabet.EIGHT_BIT, Alphabet.UCS2


@pytest.mark.parametrize(
    ("octet", "group", "alphabet", "message_class", "compressed"),
    [
        (0x00, CodingGroup.GENERAL, GSM7, None, False),
        (0x03, CodingGroup.GENERAL, GSM7, None, False),  # class bits without a meaning
        (0x04, CodingGroup.GENERAL, EIGHT_BIT, None, False),
        (0x08, CodingGroup.GENERAL, UCS2, None, False),
        (0x0C, CodingGroup.RESERVED, GSM7, None, False),
        (0x10, CodingGroup.GENERAL, GSM7, 0, False),
        (0x15, CodingGroup.GENERAL, EIGHT_BIT, 1, False),  # the application note's
        (0x1A, CodingGroup.GENERAL, UCS2, 2, False),
        (0x1F, CodingGroup.RESERVED, GSM7, None, False),
        (0x20, CodingGroup.GENERAL, GSM7, None, True),
        (0x37, CodingGroup.GENERAL, EIGHT_BIT, 3, True),
        (0x3C, CodingGroup.RESERVED, GSM7, None, False),
        (0x40, CodingGroup.AUTOMATIC_DELETION, GSM7, None, False),
        (0x55, CodingGroup.AUTOMATIC_DELETION, EIGHT_BIT, 1, False),
        (0x68, CodingGroup.AUTOMATIC_DELETION, UCS2, None, True),
        (0x7C, CodingGroup.RESERVED, GSM7, None, False),
        (0x84, CodingGroup.RESERVED, GSM7, None, False),
        (0xB8, CodingGroup.RESERVED, GSM7, None, False),
        (0xC0, CodingGroup.DISCARD, GSM7, None, False),
        (0xD9, CodingGroup.STORE, GSM7, None, False),
        (0xE0, CodingGroup.STORE_UCS2, UCS2, None, False),
        (0xF0, CodingGroup.CLASS, GSM7, 0, False),
        (0xF5, CodingGroup.CLASS, EIGHT_BIT, 1, False),
        (0xFB, CodingGroup.CLASS, GSM7, 3, False),  # bit 3 is reserved and not looked at
    ],
)
def test_coding_groups(
    octet: int,
    group: CodingGroup,
    alphabet: Alphabet,
    message_class: int | None,
    compressed: bool,  # noqa: FBT001 - data
) -> None:
    dcs = Dcs(octet)
    found = (dcs.group, dcs.alphabet, dcs.message_class, dcs.compressed)
    assert found == (group, alphabet, message_class, compressed)
    assert dcs.octet == octet


@pytest.mark.parametrize(
    ("octet", "waiting", "active"),
    [
        (0xC8, Waiting.VOICEMAIL, True),
        (0xC1, Waiting.FAX, False),
        (0xDA, Waiting.EMAIL, True),
        (0xE3, Waiting.OTHER, False),
        (0xF8, None, False),
        (0x08, None, False),
    ],
)
def test_message_waiting(octet: int, waiting: Waiting | None, active: bool) -> None:  # noqa: FBT001 - data
    assert (Dcs(octet).waiting, Dcs(octet).waiting_active) == (waiting, active)


@pytest.mark.parametrize("octet", range(256))
def test_a_reserved_coding_means_the_same_as_zero(octet: int) -> None:
    dcs = Dcs(octet)
    if dcs.group is CodingGroup.RESERVED:
        assert (dcs.alphabet, dcs.message_class, dcs.compressed, dcs.waiting) == (GSM7, None, False, None)
    else:
        assert not 0x80 <= octet <= 0xBF


@pytest.mark.parametrize("octet", [-1, 256])
def test_no_octet(octet: int) -> None:
    with pytest.raises(PduError, match=f"TP-DCS: {octet} does not fit an octet"):
        Dcs(octet)
