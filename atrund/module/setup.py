# SPDX-License-Identifier: Apache-2.0
"""What the daemon asks of the module by itself: waking, set-up in the order of MOD-3, PIN, a look at SIM and network.

Rules of this file: on a shared module nothing is sent that belongs to the data connection (MOD-8): no +CFUN=, +COPS=,
+CGATT=, +CGDCONT=, #SGACT=, #BND=, #USBCFG=; +CPIN= only where the configuration gives a PIN and says to send it.
"""

import asyncio
import enum
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import structlog

from atrund.at.syntax import Command, Op
from atrund.module.turn import STEP, TimedOutError, Turn

log = structlog.get_logger()

WAKE_TRIES: Final = 5
"""Modules swallow the first characters after a pause or while they adapt to the speed."""
FILLED_TRIES: Final = 2
"""Of them, behind zero bytes: one is what they left."""
WAKE_TIMEOUT: Final = 2.0
PIN_TRIES: Final = 3
"""Tries of a fresh PIN counter (3GPP TS 31.101): with fewer left somebody else was wrong already."""
SERVICES: Final = ("#SMSATRUN", "#TCPATRUNL", "#TCPATRUND", "#ENAEVMONI")
"""The firmware's own services; left on, they would swallow every ATRUN SMS and answer beside us."""

_ALL_PORTS: Final = ("ATE0V1Q0", "AT+CMEE=1", "AT+CMGF=0")
_FIRST_PORT: Final = ("AT+CSMS=0", "AT+CNMI=2,1,0,0,0")
_OTHER_PORTS: Final = ("AT+CNMI=2,0,0,0,0",)


class Sim(enum.Enum):
    """What +CPIN? says."""

    UNKNOWN = "unknown"
    READY = "ready"
    ABSENT = "absent"
    PIN = "PIN needed"
    PUK = "PUK needed"
    BUSY = "busy"
    FAULTY = "faulty"


@dataclass(frozen=True, slots=True)
class Identity:
    """What the module is."""

    model: str
    firmware: str


@dataclass(frozen=True, slots=True)
class Condition:
    """What the SIM and the network are like; `registration` is +CREG's state in words, "" if none was told.

    `radio_off` is +CFUN's number where it has the radio off, else "".
    """

    sim: Sim
    registration: str
    registered: bool
    radio_off: str = ""


async def wake(turn: Turn) -> None:
    """Get a first answer, and make sure that question and answer belong together. Raises `TimedOutError`."""
    if not await _answers(turn, WAKE_TRIES):
        # Who had the port before may have been killed at a prompt for so many bytes, which takes ESC for one of them.
        await turn.fill_prompt()
        await _answers(turn, FILLED_TRIES)
    # An answer to an earlier try may have come late: only its own name shows that an answer belongs to its question.
    if (await turn.ask("AT+CMEE?")).value("+CMEE") is None:
        raise TimedOutError("the module does not answer; is this its AT port, and the baud rate right?")


async def _answers(turn: Turn, tries: int) -> bool:
    for _ in range(tries):
        try:
            if (await turn.ask("ATE0V1Q0", timeout=WAKE_TIMEOUT)).final.ok:
                return True
        except TimedOutError:
            turn.leave_prompt()
    return False


async def set_up(turn: Turn, *, first: bool) -> Identity:
    """Put in place what the daemon relies on; `first`: the port that carries unsolicited codes."""
    if first:
        await switch_off_services(turn)
    for line in (*_ALL_PORTS, *(_FIRST_PORT if first else _OTHER_PORTS)):
        answer = await turn.ask(line)
        if not answer.final.ok:
            log.warning("set-up refused", command=line, final=answer.final.text)
    model, firmware = await turn.ask("AT+CGMM"), await turn.ask("AT+CGMR")
    return Identity(_first_line(model.lines), _first_line(firmware.lines))


async def in_place(turn: Turn, *, first: bool) -> bool:
    """Whether what `set_up` put in place still is: a module that restarted behind its port has forgotten it.

    Echo and the form of results can't be read: they are set anew each time.
    """
    await turn.ask("ATE0V1Q0")
    if (await turn.ask("AT+CMEE?")).value("+CMEE") not in {("1",), None}:
        return False
    cnmi = (await turn.ask("AT+CNMI?")).value("+CNMI") if first else None
    return cnmi is None or cnmi[:2] == ("2", "1")  # of broadcasts and reports instances may have asked for more


async def switch_off_services(turn: Turn) -> None:
    """Switch the module's own AT RUN services off and read back; an error means that it has none."""
    for service in SERVICES:
        if await _is_on(turn, service):
            await turn.ask(f"AT{service}=0")
            state = "still on" if await _is_on(turn, service) else "off now"
            log.warning("the module's own service was on", command=service, state=state)


async def choose_memory(turn: Turn) -> str:
    """Set all of +CPMS to one memory and return it, or "": SM if there is one, for it stays with the number.

    A SIM that is not there yet is waited for: ME taken meanwhile would be the receiving memory for good.
    """
    offered = " ".join((await turn.ask("AT+CPMS=?")).lines)
    for memory in ("SM", "ME"):
        if f'"{memory}"' not in offered:
            continue
        final = (await turn.ask(f'AT+CPMS="{memory}","{memory}","{memory}"')).final
        if final.ok:
            return memory
        if final.code in _NO_SIM_YET:
            return ""
    return ""


async def look(turn: Turn) -> Condition:
    """Return what the SIM and the network are like now."""
    sim = await _sim(turn)
    registration, registered = "", False
    for name in ("+CREG", "+CGREG", "+CEREG"):
        value = (await turn.ask(f"AT{name}?")).value(name)
        if value is None or len(value) < _READ_FORM or value[1] not in _REGISTRATIONS:
            continue
        if not registration or value[1] in _REGISTERED:
            registration = _REGISTRATIONS[value[1]]
        registered = registered or value[1] in _REGISTERED
    return Condition(sim, registration, registered, "" if registered else await _radio_off(turn))


async def enter_pin(
    turn: Turn,
    pin: str,
    *,
    refused: Callable[[str], Awaitable[bool]],
    remember: Callable[[str], Awaitable[None]],
    forget: Callable[[str], Awaitable[None]],
) -> bool:
    """Enter the PIN if that can't lock the SIM (MOD-9); returns whether it was taken.

    Only while all tries are left, and never one that this SIM refused before, or may have: `refused` says so of a
    fingerprint, which `remember` keeps on disk before the PIN is sent and `forget` takes back once the PIN was right.
    So one whose answer was not seen, for the power failed or the daemon was killed, counts as refused.
    """
    iccid = "".join((await turn.ask("AT#CCID")).lines)
    fingerprint = await asyncio.get_running_loop().run_in_executor(None, pin_fingerprint, pin, iccid)
    try:
        if await refused(fingerprint):
            log.error("PIN not entered: this SIM refused it before, or its answer was not seen")
            return False
    except Exception as error:  # noqa: BLE001 - whatever keeps the disk from telling: without its word no PIN is sent
        log.error("PIN not entered: whether it was refused before can't be read", detail=str(error))  # noqa: TRY400 - the text says it all
        return False
    left = await _tries(turn)
    if left != str(PIN_TRIES):
        log.error("PIN not entered: not all tries are left", left=left or "unknown")
        return False
    if not await _kept(remember(fingerprint)):  # before it is sent: a crash in between must not spend a second try
        return False
    entry = Command("+CPIN", Op.SET, f'"{pin}"')
    final = (await turn.run((entry,), timeout=STEP, say=lambda _: None)).final  # `ask` would log it
    if final.ok:
        await _kept(forget(fingerprint))
        return True
    if final.code == _BUSY and await _tries(turn) == str(PIN_TRIES):
        await _kept(forget(fingerprint))  # not refused: the SIM did not look at it
        log.warning("PIN not entered: the SIM is busy")
    else:
        log.error("the SIM refused the PIN; it is not sent again")
    return False


def pin_fingerprint(pin: str, iccid: str) -> str:
    """Return what tells a PIN for a SIM again without showing it: PINs are few, so it is made slow to guess."""
    return hashlib.pbkdf2_hmac("sha256", pin.encode(), iccid.encode(), 200_000).hex()


_READ_FORM: Final = 2
_REGISTRATIONS: Final = {
    "0": "not searching",
    "1": "home",
    "2": "searching",
    "3": "denied",
    "4": "unknown",
    "5": "roaming",
}
"""+CREG's <stat> (3GPP TS 27.007 7.2)."""
_REGISTERED: Final = frozenset({"1", "5"})
_RADIO_OFF: Final = frozenset({"0", "2", "3", "4"})
"""+CFUN's <fun> without a whole radio: minimum, no sending, no receiving, neither (TS 27.007 8.2)."""
_SIM_WORDS: Final = {"READY": Sim.READY, "SIM PIN": Sim.PIN, "SIM PUK": Sim.PUK}
_BUSY: Final = 14
_SIM_CODES: Final = {10: Sim.ABSENT, 11: Sim.PIN, 12: Sim.PUK, 13: Sim.FAULTY, _BUSY: Sim.BUSY, 15: Sim.FAULTY}
"""+CME ERROR of a SIM (TS 27.007 9.2.1)."""
_NO_SIM_YET: Final = frozenset({*range(310, 319), *_SIM_CODES})
"""+CMS ERROR of a SIM (TS 27.005 3.2.5): not inserted, locked, busy, failed; some firmware says it as +CME ERROR."""


async def _sim(turn: Turn) -> Sim:
    answer = await turn.ask("AT+CPIN?")
    value = answer.value("+CPIN")
    if value is not None:
        return _SIM_WORDS.get(value[0], Sim.UNKNOWN)
    return _SIM_CODES.get(answer.final.code or 0, Sim.UNKNOWN)


async def _radio_off(turn: Turn) -> str:
    value = (await turn.ask("AT+CFUN?")).value("+CFUN")
    return value[0] if value is not None and value[0] in _RADIO_OFF else ""


async def _tries(turn: Turn) -> str:
    """Return how many tries of the PIN are left, "" if that is not told."""
    left = (await turn.ask("AT#PCT?")).value("#PCT") or (await turn.ask("AT#PCT")).value("#PCT")
    return left[0] if left else ""


async def _kept(work: Awaitable[None]) -> bool:
    try:
        await work
    except Exception as error:  # noqa: BLE001 - whatever kept it off the disk: without that no PIN is sent
        log.error("the PIN's use can't be kept on disk", detail=str(error))  # noqa: TRY400 - the text says it all
        return False
    return True


async def _is_on(turn: Turn, service: str) -> bool:
    answer = await turn.ask(f"AT{service}?")
    value = answer.value(service)
    return answer.final.ok and value is not None and value[0] != "0"


def _first_line(lines: tuple[str, ...]) -> str:
    return lines[0][:64] if lines else ""
