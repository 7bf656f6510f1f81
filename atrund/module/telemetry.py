# SPDX-License-Identifier: Apache-2.0
"""What is read of the module now and then: operator, technology, signal, SMS store. Never in anybody's way."""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
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
HYSTERESIS_DBM: Final = 4
"""Signal changes below this are not worth a message: +CSQ's own step is 2 dBm, and it flickers by one step."""


@dataclass(frozen=True, slots=True)
class Readings:
    """The latest readings; None where the module does not say. `technology` is +COPS's <AcT> in words."""

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
    """Reads every `every` seconds while the port is usable, until cancelled."""

    def __init__(
        self, *, every: float, channel: Callable[[], Channel | None], on_change: Callable[[Readings], None]
    ) -> None:
        self.readings = Readings()
        self._told = self.readings
        self._every = every
        self._channel = channel
        self._on_change = on_change

    async def run(self) -> None:
        """Read for ever; a port that others wait for is left to them."""
        while True:
            channel = self._channel()
            if channel is None or channel.depths:
                if channel is None:
                    self._take(Readings())  # what was read of a module that is away is no longer true
                await asyncio.sleep(BUSY_PAUSE)
                continue
            try:
                self._take(await _read(channel))
            except (LinkLostError, TimedOutError, WaitedTooLongError, QueueFullError) as error:
                log.debug("telemetry not read", detail=str(error))
            await asyncio.sleep(self._every)

    def _take(self, readings: Readings) -> None:
        self.readings = readings
        if worth_telling(self._told, readings):  # against what was told: a signal that fades slowly is told as well
            self._told = readings
            self._on_change(readings)


def worth_telling(before: Readings, after: Readings) -> bool:
    """Whether a consumer wants to know: anything but a flicker of the signal, and never the raw `extra` alone."""
    steady = (before.operator, before.technology, before.sms_used, before.sms_total)
    if steady != (after.operator, after.technology, after.sms_used, after.sms_total):
        return True
    pairs = ((before.rssi_dbm, after.rssi_dbm), (before.rsrp_dbm, after.rsrp_dbm))
    return any(
        old is not new and (old is None or new is None or abs(old - new) >= HYSTERESIS_DBM) for old, new in pairs
    )


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
        (name, _IMSI.sub("", answers[name].lines[0])[:200]) for name in ("#RFSTS", "#SERVINFO") if answers[name].lines
    )
    return Readings(operator, technology, _rssi(answers["+CSQ"]), rsrp, rsrq, used, total, extra)


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
