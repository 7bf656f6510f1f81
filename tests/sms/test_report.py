# SPDX-License-Identifier: Apache-2.0
"""SMS-STATUS-REPORT: known PDUs, every status, round trips, cuts and corruption."""

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrund.sms.alphabet import Alphabet
from atrund.sms.dcs import Dcs
from atrund.sms.envelope import message_type
from atrund.sms.pdu import Address, Concatenation, Element, PduError, Timestamp, UserData, decode_deliver
from atrund.sms.report import Fate, StatusReport, decode_report, fate_of, status_name

RA = "0C91934386867611"
STAMPS = "62300221000080" + "62300221507480"
NOW = Timestamp(2026, 3, 20, 12, 0, 0, 0x80)
THEN = Timestamp(2026, 3, 20, 12, 5, 47, 0x80)
FRIEND = Address.parse("+393468686711")
PLAIN = f"0006 7B {RA} {STAMPS} 00".replace(" ", "")


def test_a_plain_one() -> None:
    report = decode_report(PLAIN)
    assert report == StatusReport(0x7B, FRIEND, NOW, THEN)
    assert (report.fate, report.tpdu_length) == (Fate.DELIVERED, 25)
    assert report.encode().hex().upper() == PLAIN
    assert message_type(PLAIN) == 2


KINDS: dict[str, tuple[str, Callable[[StatusReport], object], object]] = {
    "service centre, more messages, loop, of a command": (
        f"0791934329002000 2A 01 {RA} {STAMPS} 46",
        lambda r: (str(r.smsc), r.more_messages, r.loop_prevention, r.of_command, r.fate),
        ("+393492000200", True, True, True, Fate.FAILED),
    ),
    "protocol identifier": (f"00 06 01 {RA} {STAMPS} 00 01 41", lambda r: (r.pid, r.dcs), (0x41, None)),
    "all there is": (
        f"00 06 01 {RA} {STAMPS} 00 07 00 04 02 4142",
        lambda r: (r.pid, r.dcs, r.user_data and r.user_data.content),
        (0, Dcs(4), b"AB"),
    ),
    "text without a coding": (
        f"00 06 01 {RA} {STAMPS} 00 04 02 C834",
        lambda r: (r.dcs, r.user_data and r.user_data.text),
        (None, "Hi"),
    ),
    "with a header": (
        f"00 46 01 {RA} {STAMPS} 00 06 04 08 050003070201 4142",
        lambda r: r.user_data and r.user_data.concatenation,
        Concatenation(7, 2, 1),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind(kind: str) -> None:
    pdu, look, found = KINDS[kind]
    octets = bytes.fromhex(pdu)
    report = decode_report(octets)
    assert look(report) == found
    assert report.encode() == octets


@pytest.mark.parametrize(
    ("tail", "pid"), [("00", None), ("78", None), ("80 00", None), ("8180 00 41", 0x41), ("79 41", 0x41)]
)
def test_what_tp_pi_reserves_is_not_looked_at_and_what_extends_it_is_passed_over(tail: str, pid: int | None) -> None:
    assert decode_report(f"{PLAIN}{tail.replace(' ', '')}") == StatusReport(0x7B, FRIEND, NOW, THEN, pid=pid)


@pytest.mark.parametrize(
    ("pdu", "field"),
    [
        ("", "SCA"),
        ("00", "TP-MTI"),
        (PLAIN.replace("0006", "0004", 1), "TP-MTI"),
        ("0006", "TP-MR"),
        ("00067B", "TP-RA"),
        (f"00067B{RA}", "TP-SCTS"),
        (f"00067B{RA}{STAMPS[:14]}", "TP-DT"),
        (f"00067B{RA}{STAMPS[:14]}6213", "TP-DT"),
        (f"00067B{RA}{STAMPS[:14]}62310021507480", "TP-DT"),
        (PLAIN[:-2], "TP-ST"),
        (f"{PLAIN}80", "TP-PI"),
        (f"{PLAIN}01", "TP-PID"),
        (f"{PLAIN}02", "TP-DCS"),
        (f"{PLAIN}04", "TP-UDL"),
        (f"{PLAIN}0604034142", "TP-UDL"),
        (f"{PLAIN}014100", "PDU"),
        (f"{PLAIN}0041", "PDU"),
        (f"{PLAIN}0", "PDU"),
        ("zz", "PDU"),
    ],
)
def test_malformed_ones_name_the_field(pdu: str, field: str) -> None:
    with pytest.raises(PduError) as caught:
        decode_report(pdu)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"reference": 256}, "TP-MR"),
        ({"status": -1}, "TP-ST"),
        ({"pid": 256}, "TP-PID"),
        ({"smsc": Address.alphanumeric("A")}, "SCA"),
        ({"user_data": UserData(Alphabet.EIGHT_BIT, b"a")}, "TP-DCS"),
    ],
)
def test_values_that_fit_no_pdu(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(PduError) as caught:
        StatusReport(**{"reference": 1, "recipient": FRIEND, "timestamp": NOW, "discharge": NOW, **fields})
    assert caught.value.field == field


def test_without_the_service_centre_field() -> None:
    report = decode_report(PLAIN[2:], smsc=False)
    assert report.encode(smsc=False).hex().upper() == PLAIN[2:]


@pytest.mark.parametrize(
    ("statuses", "fate", "final"),
    [
        ((0,), Fate.DELIVERED, True),
        ((1,), Fate.FORWARDED, True),
        ((2,), Fate.REPLACED, True),
        (range(0x10, 0x20), Fate.DONE, True),
        ((*range(0x20, 0x26), *range(0x30, 0x40)), Fate.TRYING, False),
        ((*range(0x40, 0x4A), *range(0x50, 0x60)), Fate.FAILED, True),
        ((*range(0x60, 0x66), *range(0x70, 0x80)), Fate.GIVEN_UP, True),
        # Reserved: read as "service rejected" (9.2.3.15).
        ((*range(3, 0x10), *range(0x26, 0x30), *range(0x4A, 0x50), *range(0x66, 0x70)), Fate.GIVEN_UP, True),
        (range(0x80, 0x100), Fate.GIVEN_UP, True),
    ],
)
def test_what_a_status_means(statuses: tuple[int, ...], fate: Fate, *, final: bool) -> None:
    assert {fate_of(status) for status in statuses} == {fate}
    assert fate.final == final


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (0x00, "delivered"),
        (0x03, "reserved 0x03"),
        (0x20, "congestion"),
        (0x26, "reserved 0x26"),
        (0x31, "the service centre's own 0x31"),
        (0x46, "the validity period is over"),
        (0x63, "service rejected"),
        (0x80, "reserved 0x80"),
        (0xA0, "reserved 0xA0"),
    ],
)
def test_a_status_has_a_name(status: int, name: str) -> None:
    assert status_name(status) == name


OCTETS = st.integers(0, 255)
TIMESTAMPS = st.builds(
    lambda moment, quarters: Timestamp.of(moment.replace(tzinfo=timezone(quarters * timedelta(minutes=15)))),
    st.datetimes(datetime(1990, 1, 2), datetime(2089, 12, 30)),  # noqa: DTZ001 - the zone is put in above
    st.integers(-79, 79),
)
NUMBERS = st.text("0123456789*#", min_size=1, max_size=20).map(Address.parse)
HEADERS = st.none() | st.lists(st.builds(Element, OCTETS, st.binary(max_size=8)), max_size=4).map(tuple)


@st.composite
def reports(draw: st.DrawFn) -> StatusReport:
    data = draw(st.none() | st.builds(UserData, st.just(Alphabet.EIGHT_BIT), st.binary(max_size=80), HEADERS))
    return StatusReport(
        draw(OCTETS),
        draw(NUMBERS),
        draw(TIMESTAMPS),
        draw(TIMESTAMPS),
        draw(OCTETS),
        draw(st.none() | NUMBERS),
        draw(st.none() | OCTETS),
        Dcs(4) if data is not None else draw(st.none() | OCTETS.map(Dcs)),
        data,
        more_messages=draw(st.booleans()),
        loop_prevention=draw(st.booleans()),
        of_command=draw(st.booleans()),
    )


@given(reports())
def test_both_ways(report: StatusReport) -> None:
    assert decode_report(report.encode()) == report
    assert decode_report(report.encode(smsc=False).hex(), smsc=False).encode() == b"\x00" + report.encode(smsc=False)
    with pytest.raises(PduError, match="TP-MTI"):
        decode_deliver(report.encode())


def assert_refused_or_stable(pdu: bytes) -> None:
    try:
        report = decode_report(pdu)
    except PduError:
        return
    assert decode_report(report.encode()) == report


@given(reports())
def test_every_cut_is_refused_or_has_lost_no_more_than_what_is_optional(report: StatusReport) -> None:
    pdu = report.encode()
    bare = len(pdu) - len(report._optional())
    for length in range(len(pdu)):
        if length == bare:
            assert decode_report(pdu[:length]).status == report.status
        else:
            with pytest.raises(PduError):
                decode_report(pdu[:length])


@given(reports(), st.lists(st.tuples(st.integers(0, 300), OCTETS), min_size=1, max_size=4))
def test_corruption_is_refused_or_read_as_what_it_then_is(report: StatusReport, errors: list[tuple[int, int]]) -> None:
    pdu = bytearray(report.encode())
    for place, octet in errors:
        pdu[place % len(pdu)] = octet
    assert_refused_or_stable(bytes(pdu))


@given(st.binary(max_size=80))
def test_random_octets_raise_nothing_else(octets: bytes) -> None:
    assert_refused_or_stable(octets)


@given(reports())
def test_another_implementation_reads_the_same(report: StatusReport) -> None:
    """python-gsmmodem-new, where it is installed for the figures; it leaves out what is optional."""
    theirs = pytest.importorskip("gsmmodem.pdu").decodeSmsPdu(report.encode().hex().upper())
    assert (theirs["type"], theirs["reference"], theirs["status"], theirs["tpdu_length"]) == (
        "SMS-STATUS-REPORT",
        report.reference,
        report.status,
        report.tpdu_length,
    )
    for theirs_then, ours in ((theirs["time"], report.timestamp), (theirs["discharge"], report.discharge)):
        if ours.year < 2069:  # it takes 69 for 1969; the first short message was in 1992
            assert theirs_then.timestamp() == ours.utc().timestamp()
    if not set(report.recipient.text) & set("*#"):  # it takes these for no digits
        assert theirs["number"] == report.recipient.text
