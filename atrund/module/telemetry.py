# SPDX-License-Identifier: Apache-2.0
"""What is read of the module now and then: operator, technology, signal, SMS store. Never in anybody's way.

Where the configuration lets IMEI and ICCID be told, they are read as well, once for each module and each SIM.
"""

import asyncio
import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

import structlog

from atrund.at.syntax import unquote
from atrund.module.channel import Channel
from atrund.module.turn import Answer, LinkLostError, TimedOutError
from atrund.module.turns import QueueFullError, WaitedTooLongError

log = structlog.get_logger()

ASKER: Final = "telemetry"
BUSY_PAUSE: Final = 10.0
"""Seconds after which it is tried again where somebody was waiting for the port."""
IDENTITY_AGAIN: Final = 300.0
"""Seconds after which IMEI and ICCID are asked again that were not told, where nothing else is read."""
HYSTERESIS_DBM: Final = 4
"""Signal changes below this are not worth a message: +CSQ's own step is 2 dBm, and it flickers by one step."""


@dataclass(frozen=True, slots=True)
class Readings:
    """The latest readings; None where the module does not say. `technology` is +COPS's <AcT> in words."""

    imei: str | None = field(default=None, repr=False)
    iccid: str | None = field(default=None, repr=False)
    """Read where they may be told, else None."""

    operator: str | None = None
    technology: str | None = None
    rssi_dbm: int | None = None
    rsrp_dbm: int | None = None
    rsrq_db: float | None = None
    sms_used: int | None = None
    sms_total: int | None = None
    extra: tuple[tuple[str, str], ...] = ()
    """`#RFSTS` and `#SERVINFO` as the module words them, without the IMSI: their fields differ by family."""


class Telemetry:
    """Reads every `every` seconds while the port is usable, until cancelled; 0 for IMEI and ICCID alone.

    `identity`: they may be told.
    """

    def __init__(
        self,
        *,
        every: float,
        channel: Callable[[], Channel | None],
        on_change: Callable[[Readings], None],
        identity: bool = False,
    ) -> None:
        self.readings = Readings()
        self.told = self.readings
        """Those that were worth telling, the signal without its flicker."""
        self._every = every
        self._identity = identity
        self._another = asyncio.Event()
        self._channel = channel
        self._on_change = on_change

    def look(self) -> None:
        """Take note that the module or its SIM may be another one: what they are is no longer known."""
        if self._identity:
            self.readings = replace(self.readings, imei=None, iccid=None)
            self.told = replace(self.told, imei=None, iccid=None)
            self._another.set()

    def follow(self, every: float) -> None:
        """Read every so many seconds from now on, and at once."""
        self._every = every
        self._another.set()

    async def run(self) -> None:
        """Read for ever; a port that others wait for is left to them."""
        while True:
            self._another.clear()
            channel = self._channel()
            if channel is None or channel.depths:
                if channel is None:
                    self._take(Readings())  # what was read of a module that is away is no longer true
                await self._pause(BUSY_PAUSE)
                continue
            try:
                await self._read(channel)
            except (LinkLostError, TimedOutError, WaitedTooLongError, QueueFullError) as error:
                log.debug("telemetry not read", detail=str(error))
            await self._pause(self._every or IDENTITY_AGAIN)

    async def _read(self, channel: Channel) -> None:
        if self._identity:
            imei = self.readings.imei or await _identity(channel, "+CGSN")
            iccid = self.readings.iccid or await _identity(channel, "#CCID")
            if not self._another.is_set():  # else it may be the last one's
                self._take(replace(self.readings, imei=imei, iccid=iccid))
        if self._every:
            readings = await _read(channel)
            self._take(replace(readings, imei=self.readings.imei, iccid=self.readings.iccid))

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._another.wait()

    def _take(self, readings: Readings) -> None:
        self.readings = readings
        if worth_telling(self.told, readings):  # against what was told: a signal that fades slowly is told as well
            self.told = readings
            self._on_change(readings)


def worth_telling(before: Readings, after: Readings) -> bool:
    """Whether a consumer wants to know: anything but a flicker of the signal, and never the raw `extra` alone."""
    if _steady(before) != _steady(after):
        return True
    pairs = ((before.rssi_dbm, after.rssi_dbm), (before.rsrp_dbm, after.rsrp_dbm))
    return any(
        old is not new and (old is None or new is None or abs(old - new) >= HYSTERESIS_DBM) for old, new in pairs
    )


def _steady(one: Readings) -> tuple[str | int | None, ...]:
    """What does not flicker."""
    return one.imei, one.iccid, one.operator, one.technology, one.sms_used, one.sms_total


async def _identity(channel: Channel, name: str) -> str | None:
    """Ask for the IMEI (+CGSN) or the ICCID (#CCID), and return its digits."""
    async with channel.turn(ASKER, what=name) as turn:
        answer = await turn.ask(f"AT{name}")
    found = _IDENTITY.fullmatch(answer.lines[0]) if answer.final.ok and answer.lines else None
    return found[1] if found is not None else None


_IDENTITY: Final = re.compile(r'(?:\S+:\s*)?"?([0-9]{14,20})F?"?')
"""An IMEI (3GPP TS 23.003 6.2) or an ICCID, filled up with F where it is odd (TS 102 221 13.2), named or bare."""


async def _read(channel: Channel) -> Readings:
    """Each question takes a turn of its own, so that a door's command waits for one of them at most."""
    answers = {}
    for name, line in _QUESTIONS.items():
        async with channel.turn(ASKER, what=name) as turn:
            answers[name] = await turn.ask(line)
    operator, technology = _operator(answers["+COPS"])
    rsrq, rsrp = _lte(answers["+CESQ"])
    used, total = _store(answers["+CPMS"])
    extra = tuple(
        (name, _IMSI.sub("", answers[name].lines[0].removeprefix(f"{name}:").strip())[:200])
        for name in ("#RFSTS", "#SERVINFO")
        if answers[name].lines
    )
    return Readings(
        operator=operator,
        technology=technology,
        rssi_dbm=_rssi(answers["+CSQ"]),
        rsrp_dbm=rsrp,
        rsrq_db=rsrq,
        sms_used=used,
        sms_total=total,
        extra=extra,
    )


_QUESTIONS: Final = {
    "+COPS": "AT+COPS?",
    "+CSQ": "AT+CSQ",
    "+CESQ": "AT+CESQ",
    "+CPMS": "AT+CPMS?",
    "#RFSTS": "AT#RFSTS",
    "#SERVINFO": "AT#SERVINFO",
}


_IMSI: Final = re.compile(r"(?<!\d)\d{14,15}(?!\d)")
"""An IMSI has at most 15 digits, and 15 as good as everywhere (3GPP TS 23.003 2.2)."""


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= _DIGITS else None


_DIGITS: Final = 6


def _operator(answer: Answer) -> tuple[str | None, str | None]:
    value = answer.value("+COPS") or ()
    name = unquote(value[2]) if len(value) > 2 else None  # mode, format, operator, AcT
    return name, _TECHNOLOGIES.get(value[3]) if len(value) > 3 else None


def _rssi(answer: Answer) -> int | None:
    """+CSQ's <rssi> in dBm: 0 is -113, each step 2, 99 unknown (3GPP TS 27.007 8.5)."""
    value = answer.value("+CSQ") or ("",)
    step = _number(value[0])
    return None if step is None or step > 31 else -113 + 2 * step


def _lte(answer: Answer) -> tuple[float | None, int | None]:
    """+CESQ's <rsrq> in dB and <rsrp> in dBm: 0 is -20 dB and -141 dBm, 255 unknown (TS 27.007 8.69)."""
    value = answer.value("+CESQ") or ()
    if len(value) < 6:
        return None, None
    rsrq, rsrp = _number(value[4]), _number(value[5])
    return (
        None if rsrq is None or rsrq > 34 else -20 + rsrq / 2,
        None if rsrp is None or rsrp > 97 else -141 + rsrp,
    )


def _store(answer: Answer) -> tuple[int | None, int | None]:
    value = answer.value("+CPMS") or ()
    if len(value) < 9:  # memory, used and total, for reading, writing and receiving
        return None, None
    return _number(value[7]), _number(value[8])


_TECHNOLOGIES: Final = {
    "0": "GSM",
    "1": "GSM compact",
    "2": "UTRAN",
    "3": "EDGE",
    "4": "HSDPA",
    "5": "HSUPA",
    "6": "HSPA",
    "7": "LTE",
    "8": "EC-GSM-IoT",
    "9": "NB-IoT",
}
"""<AcT> (3GPP TS 27.007 7.3)."""
