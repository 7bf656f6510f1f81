# SPDX-License-Identifier: Apache-2.0
"""Quirks: what some real modules do and others do not, each of them off until it is switched on."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

QuirkValue: TypeAlias = bool | float | str


class QuirkError(ValueError):
    """No such quirk, or a value that it can't have; the text says which ones it can."""


@dataclass(frozen=True, slots=True)
class Quirk:
    """A switch (`default` is a bool), a number from 0 to `at_most`, or one of some words."""

    name: str
    default: QuirkValue
    what: str
    at_most: float = 0.0
    words: tuple[str, ...] = ()

    @property
    def values(self) -> str:
        """What can be set."""
        if isinstance(self.default, bool):
            return "on, off"
        return ", ".join(self.words) if self.words else f"0 to {self.at_most:g}"

    def checked(self, value: object) -> QuirkValue:
        """Return a value, or its text, as what is kept. Raises `QuirkError`."""
        taken = self._taken(value)
        if taken is None:
            raise QuirkError(f"value: {self.name} can be {self.values}")
        return taken

    def _taken(self, value: object) -> QuirkValue | None:
        if isinstance(self.default, bool):
            return value if isinstance(value, bool) else SWITCH.get(str(value).lower())
        if self.words:
            return value if isinstance(value, str) and value in self.words else None
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            return None
        try:
            number = float(value)
        except (ValueError, OverflowError):
            return None
        return number if 0 <= number <= self.at_most else None


SWITCH: Final = {"on": True, "true": True, "yes": True, "off": False, "false": False, "no": False}

HOUR: Final = 3600.0

QUIRKS: Final = {
    quirk.name: quirk
    for quirk in (
        # Prompts and their data.
        Quirk("data_prompts", default=False, what="#SSEND, #SSENDEXT, #HTTPSND and #M2MWRITE are known"),
        Quirk(
            "counted_surplus",
            "command",
            "data beyond a counted prompt is read as a command, or dropped for 0.1 s",
            words=("command", "drop"),
        ),
        Quirk("counted_timeout", 0.0, "seconds after which a counted prompt left short is ERROR; 0 never", HOUR),
        Quirk("prompt_again", default=False, what="in text mode '> ' comes again after each CR of a message"),
        Quirk("cmgs_prompt", "once", "how often the prompt of +CMGS is shown", words=("once", "never", "twice")),
        Quirk(
            "cmgs_answer",
            "once",
            "+CMGS of a long text answers for its last part or for each; its line or its OK comes twice",
            words=("once", "each", "line_twice", "ok_twice"),
        ),
        Quirk("cmgs_stamp", default=False, what="+CMGS answers with the network's stamp under +CSMS=1"),
        Quirk("long_text", default=False, what="+CMGS in text mode sends a long text as at most 10 parts"),
        # Messages.
        Quirk("class1_me", default=False, what="a class 1 message is stored in ME, whatever +CPMS says"),
        Quirk("full_322", default=False, what="+CMGS is +CMS ERROR: 322 while the receiving memory is full"),
        Quirk("cnma_seconds", 17.0, "seconds until mt and ds of +CNMI become 0 without +CNMA; 0 never", HOUR),
        Quirk("report_delay", 0.0, "seconds until a sent message's status report comes, if it asked; 0 none", HOUR),
        Quirk("sms_busy", 0.0, "seconds after power-up, and from now, of +CMS ERROR: 314", HOUR),
        Quirk("at_run_answers", default=False, what="the module's own #SMSATRUN runs what it swallows and answers"),
        # Ports.
        Quirk(
            "urc_ports",
            "as_asked",
            "unsolicited lines go to each port that asked, to the first alone, or to all if one asked",
            words=("as_asked", "first", "all"),
        ),
        Quirk("shared_settings", default=False, what="E, +CMEE, +CMGF, +CNMI and the like are one for all ports"),
        Quirk(
            "command_gap",
            "off",
            "a command line begun sooner than gap_seconds after a result is ignored, or ERROR",
            words=("off", "ignore", "error"),
        ),
        Quirk("gap_seconds", 0.02, "the gap that command_gap wants", 60.0),
        Quirk("gps", default=False, what="$GPSP, $GPSACP and $GPSNMUN are known; $GPSNMUN=3 floods its port"),
        Quirk("nmea_rate", 10.0, "NMEA lines a second of $GPSNMUN=3", 1000.0),
        # SIM and registration.
        Quirk(
            "sim_strict", default=False, what="each SIM state has its code (10-12, 310, 311, 316); +CPMS needs a SIM"
        ),
        Quirk(
            "puk", default=False, what='three wrong PINs can be mended by +CPIN="<puk>","<new>"; #PCT counts its tries'
        ),
        Quirk("pin_lock", default=False, what="the SIM asks its PIN after each boot and each insertion"),
        Quirk(
            "qss_step", 0.0, "seconds between #QSS 1, 2 and 3 of a SIM that comes back, busy (14, 314) till then", 600.0
        ),
        Quirk("creg_more", default=False, what="+CREG and +CGREG take n up to 3, +CEREG up to 5"),
        # The bus.
        Quirk("reenumerate", default=False, what="a restart takes the ports away for gone_seconds; #SHDN for good"),
        Quirk("gone_seconds", 25.0, "how long reenumerate keeps the ports away", HOUR),
    )
}


class Quirks:
    """The quirks of one module, as they are set. Raises `QuirkError` for what can't be set."""

    def __init__(self, given: Iterable[tuple[str, QuirkValue]] = ()) -> None:
        self._values: dict[str, QuirkValue] = {quirk.name: quirk.default for quirk in QUIRKS.values()}
        for name, value in given:
            self.set(name, value)

    def set(self, name: str, value: object = None) -> QuirkValue:
        """Set a quirk to a value or to the text of one, to its default for None, and return what it is then."""
        quirk = QUIRKS.get(name)
        if quirk is None:
            raise QuirkError(f"name: must be one of {', '.join(QUIRKS)}")
        self._values[name] = quirk.default if value is None else quirk.checked(value)
        return self._values[name]

    def on(self, name: str) -> bool:
        """Whether a switch is on."""
        return self._values[name] is True

    def number(self, name: str) -> float:
        """Return a number."""
        return float(self._values[name])

    def word(self, name: str) -> str:
        """Return a word."""
        return str(self._values[name])

    def values(self) -> dict[str, QuirkValue]:
        """Return all by name."""
        return dict(self._values)


def parse(text: str) -> tuple[str, QuirkValue]:
    """Return name and value of `NAME=VALUE`; a switch may stand alone for `on`. Raises `QuirkError`."""
    name, given, value = text.partition("=")
    return name, Quirks().set(name, value if given else "on")


def listing() -> str:
    """Return a table of all quirks: name, values with the default in front, and what they do."""
    width = max(map(len, QUIRKS))
    lines = []
    for quirk in QUIRKS.values():
        default = {True: "on", False: "off"}[quirk.default] if isinstance(quirk.default, bool) else quirk.default
        shown = default if isinstance(default, str) else f"{default:g}"
        lines.append(f"{quirk.name:{width}}  {quirk.what}\n{'':{width}}  [{shown}] of {quirk.values}")
    return "\n".join(lines)
