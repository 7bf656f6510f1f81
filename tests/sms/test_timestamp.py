# SPDX-License-Identifier: Apache-2.0
"""Time stamps with zones ahead of and behind GMT, and the three kinds of validity period."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrund.sms.fields import FieldReader, PduError
from atrund.sms.timestamp import EnhancedValidity, RelativeValidity, Timestamp, decode_timestamp

MOMENTS = st.builds(
    lambda naive, quarters: naive.replace(microsecond=0, tzinfo=timezone(quarters * timedelta(minutes=15))),
    st.datetimes(datetime(1990, 1, 1), datetime(2089, 12, 31, 23, 59, 59)),  # noqa: DTZ001 - the zone is put in above
    st.integers(-79, 79),
)


@pytest.mark.parametrize(
    ("octets", "iso", "utc"),
    [
        ("80509221028180", "2008-05-29T12:20:18+02:00", datetime(2008, 5, 29, 10, 20, 18, tzinfo=UTC)),
        ("62113141950049", "2026-11-13T14:59:00-03:30", datetime(2026, 11, 13, 18, 29, tzinfo=UTC)),
        ("99309251619580", "1999-03-29T15:16:59+02:00", datetime(1999, 3, 29, 13, 16, 59, tzinfo=UTC)),
        ("00211000000021", "2000-12-01T00:00:00+03:00", datetime(2000, 11, 30, 21, 0, tzinfo=UTC)),
        ("42209200000008", "2024-02-29T00:00:00+00:00", datetime(2024, 2, 29, tzinfo=UTC)),  # minus zero
    ],
)
def test_time_stamps(octets: str, iso: str, utc: datetime) -> None:
    stamp = Timestamp.decode(bytes.fromhex(octets))
    assert stamp.iso() == iso
    assert stamp.utc() == utc
    assert stamp.utc().tzinfo is UTC
    assert stamp.encode() == bytes.fromhex(octets)


@pytest.mark.parametrize(
    ("octets", "detail"),
    [
        ("A0509221028180", "the year is 0xA0, which is no two digits"),
        ("800A9221028180", "the month is 0x0A, which is no two digits"),
        ("80319221028180", "month must be in 1..12"),
        ("80009221028180", "month must be in 1..12"),
        ("80200321028180", "day"),
        ("80509242028180", "hour"),
        ("80509221068180", "minute"),
        ("80509221028680", "second"),
        ("805092210281F0", "the zone is 0xF0, which is no two digits"),
        ("805092210281", "needs 7 octets, 6 are left"),
    ],
)
def test_impossible_times_name_the_field(octets: str, detail: str) -> None:
    with pytest.raises(PduError) as caught:
        decode_timestamp(FieldReader(bytes.fromhex(octets)), "TP-VP")
    assert caught.value.field == "TP-VP"
    assert detail in caught.value.detail


@pytest.mark.parametrize(
    "build",
    [
        lambda: Timestamp.decode(b"123456"),
        lambda: Timestamp(1989, 1, 1, 0, 0, 0),
        lambda: Timestamp(2090, 1, 1, 0, 0, 0),
        lambda: Timestamp(2023, 2, 29, 0, 0, 0),
        lambda: Timestamp(2024, 1, 1, 0, 0, 0, 256),
        lambda: Timestamp.of(datetime(2024, 1, 1)),  # noqa: DTZ001 - that is the point
        lambda: Timestamp.of(datetime(2024, 1, 1, tzinfo=timezone(timedelta(minutes=50)))),
        lambda: Timestamp.of(datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=20)))),
    ],
)
def test_times_that_fit_no_stamp(build: Callable[[], Timestamp]) -> None:
    with pytest.raises(PduError, match="TP-SCTS: "):
        build()


@given(MOMENTS)
def test_moments_both_ways(moment: datetime) -> None:
    stamp = Timestamp.of(moment)
    assert stamp.moment == moment
    assert stamp.moment.utcoffset() == moment.utcoffset()
    assert stamp.quarters * timedelta(minutes=15) == moment.utcoffset()
    assert Timestamp.decode(stamp.encode()) == stamp


@given(st.binary(min_size=7, max_size=7))
def test_random_octets_are_refused_or_given_back(octets: bytes) -> None:
    try:
        stamp = Timestamp.decode(octets)
    except PduError as error:
        assert error.field == "TP-SCTS"
    else:
        assert stamp.encode() == octets
        assert abs(stamp.utc() - stamp.moment) == timedelta(0)


@pytest.mark.parametrize(
    ("octet", "span"),
    [
        (0, timedelta(minutes=5)),
        (143, timedelta(hours=12)),
        (144, timedelta(hours=12, minutes=30)),
        (167, timedelta(hours=24)),
        (168, timedelta(days=2)),
        (0xAD, timedelta(days=7)),
        (196, timedelta(days=30)),
        (197, timedelta(weeks=5)),
        (255, timedelta(weeks=63)),
    ],
)
def test_relative_spans(octet: int, span: timedelta) -> None:
    validity = RelativeValidity(octet)
    assert validity.span == span
    assert validity.encode() == bytes([octet])
    assert RelativeValidity.at_least(span) == validity


def test_relative_spans_are_rounded_up_and_end() -> None:
    assert RelativeValidity.at_least(timedelta(0)).octet == 0
    assert RelativeValidity.at_least(timedelta(hours=1, seconds=1)).span == timedelta(hours=1, minutes=5)
    assert RelativeValidity.at_least(timedelta(weeks=100)).octet == 255


def test_relative_is_an_octet() -> None:
    with pytest.raises(PduError, match="TP-VP: 256 does not fit an octet"):
        RelativeValidity(256)


@pytest.mark.parametrize(
    ("octets", "span", "single_shot"),
    [
        ("00000000000000", None, False),
        ("01AD0000000000", timedelta(days=7), False),
        ("421E0000000000", timedelta(seconds=30), True),
        ("02000000000000", None, False),  # zero seconds are reserved
        ("03103254000000", timedelta(hours=1, minutes=23, seconds=45), False),
        ("04FFFFFFFFFFFF", None, False),  # reserved formats
        ("8100AD00000000", timedelta(days=7), False),  # a second functionality octet
        ("80808080808080", None, False),
    ],
)
def test_enhanced(octets: str, span: timedelta | None, single_shot: bool) -> None:  # noqa: FBT001 - data
    validity = EnhancedValidity(bytes.fromhex(octets))
    assert (validity.span, validity.single_shot) == (span, single_shot)
    assert validity.encode() == bytes.fromhex(octets)


@pytest.mark.parametrize(
    ("octets", "detail"),
    [
        ("01AD", "2 octets, must be 7"),
        ("03A03254000000", "the span is 0xA0, which is no two digits"),
        ("81808080808080", "no room for the value behind the functionality indicator"),
    ],
)
def test_enhanced_refused(octets: str, detail: str) -> None:
    with pytest.raises(PduError) as caught:
        EnhancedValidity(bytes.fromhex(octets))
    assert (caught.value.field, caught.value.detail) == ("TP-VP", detail)
