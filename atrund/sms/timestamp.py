# SPDX-License-Identifier: Apache-2.0
"""Points and spans of time in a PDU: the service centre's stamp and the validity periods of a SUBMIT."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Final, Self

from atrund.sms.fields import FieldReader, PduError, require_octet

STAMP_LENGTH: Final = 7
"""Octets of a time stamp, and of an enhanced validity period (3GPP TS 23.040 9.2.3.11, 9.2.3.12.3)."""


@dataclass(frozen=True, slots=True)
class Timestamp:
    """A local time with its zone (3GPP TS 23.040 9.2.3.11); raises PduError for a time that does not exist.

    `year` is 1990 to 2089, for two digits are sent and the first short message was in 1992. `zone_octet` is the zone as
    sent: quarters of an hour as swapped digits, bit 3 for a zone behind GMT; zero can be sent with either sign.
    """

    year: int
    month: int
    day: int
    hour: int
    minute: int
    second: int
    zone_octet: int = 0

    def __post_init__(self) -> None:
        """Check that this time exists."""
        if not _FIRST_YEAR <= self.year < _FIRST_YEAR + 100:
            raise PduError("TP-SCTS", f"the year {self.year}, {_FIRST_YEAR} to {_FIRST_YEAR + 99} can be sent")
        require_octet("TP-SCTS", self.zone_octet)
        _digits(self.zone_octet & ~_ZONE_SIGN, "the zone")
        try:
            datetime(self.year, self.month, self.day, self.hour, self.minute, self.second, tzinfo=UTC)
        except ValueError as error:
            raise PduError("TP-SCTS", str(error)) from None

    @classmethod
    def of(cls, moment: datetime) -> Self:
        """Build one from a datetime with a zone of whole quarters of an hour; parts of a second are dropped."""
        offset = moment.utcoffset()
        if offset is None or offset % _QUARTER:
            raise PduError("TP-SCTS", "needs a zone of whole quarters of an hour")
        quarters = offset // _QUARTER
        if abs(quarters) > _QUARTERS_MAX:
            raise PduError("TP-SCTS", f"{quarters} quarters of an hour, {_QUARTERS_MAX} can be sent")
        zone_octet = _octet(abs(quarters)) | (_ZONE_SIGN if quarters < 0 else 0)
        return cls(moment.year, moment.month, moment.day, moment.hour, moment.minute, moment.second, zone_octet)

    @classmethod
    def decode(cls, octets: bytes) -> Self:
        """Read the seven octets of a time stamp."""
        if len(octets) != STAMP_LENGTH:
            raise PduError("TP-SCTS", f"{len(octets)} octets, must be {STAMP_LENGTH}")
        year, month, day, hour, minute, second = map(_digits, octets[:6], _NAMES)
        return cls(_FIRST_YEAR + (year - _FIRST_YEAR) % 100, month, day, hour, minute, second, octets[6])

    @property
    def quarters(self) -> int:
        """The zone in quarters of an hour ahead of GMT."""
        quarters = _digits(self.zone_octet & ~_ZONE_SIGN, "the zone")
        return -quarters if self.zone_octet & _ZONE_SIGN else quarters

    @property
    def moment(self) -> datetime:
        """The local time with its zone."""
        zone = timezone(self.quarters * _QUARTER)
        return datetime(self.year, self.month, self.day, self.hour, self.minute, self.second, tzinfo=zone)

    def iso(self) -> str:
        """Return the local time as ISO 8601 has it, with the offset."""
        return self.moment.isoformat()

    def utc(self) -> datetime:
        """Return the same moment in UTC, with that zone."""
        return self.moment.astimezone(UTC)

    def encode(self) -> bytes:
        """Return the seven octets."""
        values = (self.year % 100, self.month, self.day, self.hour, self.minute, self.second)
        return bytes(map(_octet, values)) + bytes([self.zone_octet])


@dataclass(frozen=True, slots=True)
class RelativeValidity:
    """A span from acceptance by the service centre, one octet (3GPP TS 23.040 9.2.3.12.1)."""

    octet: int

    def __post_init__(self) -> None:
        """Check the range."""
        require_octet("TP-VP", self.octet)

    @classmethod
    def at_least(cls, span: timedelta) -> Self:
        """Return the shortest that is not shorter than this span; the longest, 63 weeks, for any longer span."""
        return next((kind for kind in map(cls, range(0x100)) if kind.span >= span), cls(0xFF))

    @property
    def span(self) -> timedelta:
        """The span that the octet stands for."""
        if self.octet <= 143:
            return timedelta(minutes=5 * (self.octet + 1))
        if self.octet <= 167:
            return timedelta(hours=12, minutes=30 * (self.octet - 143))
        if self.octet <= 196:
            return timedelta(days=self.octet - 166)
        return timedelta(weeks=self.octet - 192)

    def encode(self) -> bytes:
        """Return the octet."""
        return bytes([self.octet])


@dataclass(frozen=True, slots=True)
class EnhancedValidity:
    """The enhanced format, kept as its seven octets (3GPP TS 23.040 9.2.3.12.3); raises PduError if unreadable."""

    octets: bytes

    def __post_init__(self) -> None:
        """Check the length and that the span can be read."""
        if len(self.octets) != STAMP_LENGTH:
            raise PduError("TP-VP", f"{len(self.octets)} octets, must be {STAMP_LENGTH}")
        self._read()

    @property
    def single_shot(self) -> bool:
        """Whether the service centre shall try only once."""
        return bool(self.octets[0] & 0x40)

    @property
    def span(self) -> timedelta | None:
        """The span, or None where none is given or its format or value is reserved."""
        return self._read()

    def encode(self) -> bytes:
        """Return the seven octets."""
        return self.octets

    def _read(self) -> timedelta | None:
        form = self.octets[0] & 7
        # Bit 7 of each functionality octet says that another one follows; the value lies behind the last.
        begin = next((index for index, octet in enumerate(self.octets) if not octet & 0x80), STAMP_LENGTH) + 1
        value = self.octets[begin : begin + _ENHANCED_LENGTHS.get(form, 0)]
        if len(value) < _ENHANCED_LENGTHS.get(form, 0):
            raise PduError("TP-VP", "no room for the value behind the functionality indicator")
        if form == _RELATIVE_FORM:
            return RelativeValidity(value[0]).span
        if form == _SECONDS_FORM:
            return timedelta(seconds=value[0]) if value[0] else None
        if form == _CLOCK_FORM:
            hours, minutes, seconds = (_digits(octet, "the span", "TP-VP") for octet in value)
            return timedelta(hours=hours, minutes=minutes, seconds=seconds)
        return None


ValidityPeriod = RelativeValidity | Timestamp | EnhancedValidity
"""A validity period of a SUBMIT: relative, absolute or enhanced."""


def decode_timestamp(reader: FieldReader, field: str) -> Timestamp:
    """Take a time stamp; raises PduError naming the field."""
    try:
        return Timestamp.decode(reader.take(field, STAMP_LENGTH))
    except PduError as error:
        raise PduError(field, error.detail) from None


def _digits(octet: int, name: str, field: str = "TP-SCTS") -> int:
    tens, units = octet & 0x0F, octet >> 4
    if tens > _DIGIT_MAX or units > _DIGIT_MAX:
        raise PduError(field, f"{name} is 0x{octet:02X}, which is no two digits")
    return 10 * tens + units


def _octet(number: int) -> int:
    tens, units = divmod(number, 10)
    return units << 4 | tens


_FIRST_YEAR = 1990
_QUARTER = timedelta(minutes=15)
_QUARTERS_MAX = 79
_ZONE_SIGN = 0x08
_DIGIT_MAX = 9
_NAMES = ("the year", "the month", "the day", "the hour", "the minute", "the second")
_RELATIVE_FORM, _SECONDS_FORM, _CLOCK_FORM = 1, 2, 3
_ENHANCED_LENGTHS = {_RELATIVE_FORM: 1, _SECONDS_FORM: 1, _CLOCK_FORM: 3}
