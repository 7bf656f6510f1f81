# SPDX-License-Identifier: Apache-2.0
"""What `atrunctl doctor` makes of the daemon's own status: module, SIM, registration, store, broker, clock.

The daemon may say more than is judged here, and more in later versions: what is there is shown.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Final

from atrund.ctl.findings import Finding, Level

STATES: Final = {
    "ready": (Level.OK, ""),
    "off": (Level.WARNING, "set module.port"),
    "absent": (Level.ERROR, "see what is said about the port; is the module plugged in and switched on?"),
    "opening": (Level.NOTE, "look again in a moment"),
    "waking": (Level.NOTE, "look again in a moment"),
    "setting up": (Level.NOTE, "look again in a moment"),
    "no SIM": (Level.ERROR, "put a SIM in, contacts first; AT#SIMDET? tells whether the module sees a tray"),
    "PIN needed": (Level.ERROR, "unlock the SIM, or take its PIN away on a telephone; mind the tries left"),
    "not registered": (Level.WARNING, "check the antenna, then the subscription: atrunctl at 'AT+CSQ;+CREG?;+COPS?'"),
    "stuck": (Level.ERROR, "the daemon tries to bring it back; if it does not, cut the module's power"),
    "rebooting": (Level.NOTE, "look again in two minutes"),
    "off by command": (Level.WARNING, "somebody switched it off; cut its power and give it back"),
}
"""The states of the module, how bad each is, and what to do."""

RADIO_OFF: Final = (
    "switch it on where it was switched off: mmcli -m any --enable, or atrunctl at 'AT+CFUN=1', "
    "which is undone unless confirmed: atrunctl at 'AT#ATRUNCONFIRM=<id>'"
)

CONTACT: Final = "journalctl -u atrund -n 50 tells why"

ITEMS_MAX: Final = 40
"""Values shown of a section."""

Section = dict[str, object]


def judge(status: dict[str, object] | None) -> Iterator[Finding]:
    """Judge a status; None where the daemon could not be asked, which is said elsewhere."""
    if status is None:
        return
    for name, section in status.items():
        if not isinstance(section, dict):
            section = {"value": section}  # noqa: PLW2901 - a later version may have plain values here
        level, what, advice, used = _JUDGES.get(name, _nothing)(section)
        others = {key: value for key, value in section.items() if key not in used}
        rest = islice(_items(others), ITEMS_MAX)
        shown = ", ".join([what, *rest] if what else rest)
        if shown:
            yield Finding(level, name, shown, advice)


Judgement = tuple[Level, str, str, tuple[str, ...]]
"""How bad, what in words, what to do, and the keys that the words cover."""


def _nothing(_: Section) -> Judgement:
    return Level.OK, "", "", ()


def _module(section: Section) -> Judgement:
    state = str(section.get("state"))
    level, advice = STATES.get(state, (Level.WARNING, CONTACT))
    detail = section.get("detail")
    if state == "not registered" and "+CFUN" in str(detail):
        advice = RADIO_OFF
    # Who else is at the port is looked at by this program itself.
    return level, f"{state}: {detail}" if detail else state, advice, ("state", "detail", "port", "others")


def _queue(section: Section) -> Judgement:
    """How many wait for each port; who they are, `atrunctl status` shows."""
    words = []
    for port, places in section.items():
        shown = [place for place in places if isinstance(place, dict)] if isinstance(places, list) else []
        waiting = sum(int(str(place.get("more", 1))) for place in shown if place.get("place") != 0)
        if waiting:
            words.append(f"{waiting} waiting for {port}")
    return Level.OK, ", ".join(words), "", tuple(section)


def _sms(section: Section) -> Judgement:
    match section.get("state"):
        case "shut":
            return Level.ERROR, "shut, for nothing can be recorded", "see what is said about the ledger", ("state",)
        case "waiting":
            return Level.WARNING, "waiting for the module's SMS store", "is the SIM ready? AT+CPMS? tells", ("state",)
    return _nothing(section)


def _mqtt(section: Section) -> Judgement:
    if section.get("another_device") is True:
        advice = "give each device a node of its own: node in its atrund.toml"
        return Level.WARNING, "another device uses this node's name", advice, ("another_device",)
    if section.get("state") == "on" and section.get("connected") is False:
        detail = section.get("detail")
        said = "no connection to the broker" + (f": {detail}" if detail else "")
        return Level.WARNING, said, f"is it there, and mqtt.host right? {CONTACT}", ("connected", "detail")
    return _nothing(section)


def _ledger(section: Section) -> Judgement:
    state = section.get("state")
    if state not in {None, "ok"}:
        return Level.ERROR, f"unusable: {state}", "is state_dir writable, and room left on its disk?  df -h", ("state",)
    if aside := section.get("aside"):
        hint = "may the device publish on all its topics?  journalctl -u atrund | grep 'set aside'"
        return Level.WARNING, f"{aside} records for the broker set aside", hint, ("aside",)
    return _nothing(section)


def _clock(section: Section) -> Judgement:
    if section.get("known") is False:
        return Level.WARNING, "the time is not known", "timedatectl set-ntp true, or a real-time clock", ("known",)
    return _nothing(section)


_JUDGES: Final = {"module": _module, "queue": _queue, "sms": _sms, "mqtt": _mqtt, "ledger": _ledger, "clock": _clock}


def _items(section: Section, before: str = "") -> Iterator[str]:
    """The values of a section in words; empty ones are left out."""
    for key, value in section.items():
        if isinstance(value, dict):
            yield from _items(value, f"{before}{key}.")
        elif value not in (None, "", [], {}):
            yield f"{before}{key} {_word(value)}"


def _word(value: object) -> str:
    if isinstance(value, dict):
        return " ".join(f"{key} {_word(one)}" for key, one in value.items())
    if isinstance(value, list):
        return (", " if any(isinstance(one, dict) for one in value) else " ").join(map(_word, value))
    return "yes" if value is True else "no" if value is False else str(value)
