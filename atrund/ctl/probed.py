# SPDX-License-Identifier: Apache-2.0
"""What `atrunctl doctor --probe` makes of the answers of the ports: model, SIM, registration, SMS centre."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from atrund.ctl.findings import Finding, Level
from atrund.ctl.probe import Answers
from atrund.usb.sysfs import UsbPort

REGISTRATION: Final = {
    "0": (
        Level.WARNING,
        "not registered, not searching",
        "AT+COPS? and AT+CFUN? tell whether the radio was switched off",
    ),
    "1": (Level.OK, "registered, home network", ""),
    "2": (Level.WARNING, "searching for a network", "check the antenna; AT+CSQ tells the signal"),
    "3": (Level.ERROR, "registration denied", "ask the operator whether SIM and IMEI are barred"),
    "4": (Level.WARNING, "registration unknown", "out of coverage? AT+CSQ tells the signal"),
    "5": (Level.OK, "registered, roaming", ""),
    "6": (Level.NOTE, "registered for SMS only, home network", ""),
    "7": (Level.NOTE, "registered for SMS only, roaming", ""),
}
"""<stat> of +CREG (3GPP TS 27.007 7.2)."""


def judge_answers(answers: Mapping[Path, Answers], ports: tuple[UsbPort, ...]) -> Iterator[Finding]:
    """Judge what each port answered; SIM and network once for each module."""
    places = {port.path: port.usb for port in ports}
    done: set[str] = set()
    for path, answer in answers.items():
        if answer.refused:
            yield Finding(Level.NOTE, "probe", f"{path} was not asked: {answer.refused}")
            continue
        if answer.silent:
            advice = "is it an AT port? If it is, its module hangs: replug it, or cut its power"
            yield Finding(Level.WARNING, "probe", f"{path} gives no answer to AT", advice)
            continue
        yield Finding(Level.OK, "probe", f"{path} answers: {_identity(answer)}")
        place = places.get(path, str(path))
        if place not in done:
            done.add(place)
            yield from _sim(answer)
            yield from _registration(answer)
            yield from _service_centre(answer)


def masked_imei(text: str) -> str:
    """Return the last four digits of an IMEI in an answer: enough to tell modules apart, and no more."""
    found = re.search("[0-9]{14,16}", text)
    return f"…{found[0][-4:]}" if found else "unknown"


def _identity(answer: Answers) -> str:
    return f"{answer.value('+CGMM') or 'no model'}, IMEI {masked_imei(answer.value('+CGSN'))}"


def _sim(answer: Answers) -> Iterator[Finding]:
    state = answer.value("+CPIN?")
    if state == "READY":
        yield Finding(Level.OK, "sim", "the SIM is ready")
    elif state == "SIM PIN":
        advice = "unlock it, or take its PIN away on a telephone; mind the tries left (AT#PCT)"
        yield Finding(Level.ERROR, "sim", "the SIM asks for its PIN", advice)
    elif state:
        yield Finding(Level.ERROR, "sim", f"the SIM asks for {state}", "its PUK, from the operator, unlocks it")
    else:
        text = f"no SIM to be read: {answer.errors.get('+CPIN?', 'no answer')}"
        yield Finding(Level.ERROR, "sim", text, "put a SIM in, contacts first, and look again after half a minute")


def _registration(answer: Answers) -> Iterator[Finding]:
    # n,stat and maybe more; an unsolicited +CREG that comes in between has no n.
    found = re.fullmatch(r"[0-9],([0-9])(,.*)?", answer.value("+CREG?"))
    if found is not None:
        level, text, advice = REGISTRATION.get(found[1], (Level.WARNING, f"registration state {found[1]}", ""))
        yield Finding(level, "registration", text, advice)


def _service_centre(answer: Answers) -> Iterator[Finding]:
    value = answer.value("+CSCA?")
    number = value.partition(",")[0].strip('"')
    if number:
        yield Finding(Level.OK, "sms", f"the SMS centre is {number}")
    elif value:
        advice = "answers can't be sent without it; the operator tells it, AT+CSCA sets it"
        yield Finding(Level.WARNING, "sms", "no SMS centre is set", advice)
