# SPDX-License-Identifier: Apache-2.0
"""What the simulated module is and where it stands: model, SIM, radio, contexts, and the settings of a port.

The cells and figures are those of real logs, so that a client's parser meets what modules really write.
"""

import enum
import random
from dataclasses import dataclass, field, replace
from typing import Final

from atrund.sim.quirks import QuirkValue


class Technology(enum.Enum):
    """The radio of a model, which decides the shape of its cell information. The value is +COPS's access technology."""

    GSM = 0
    UMTS = 2
    LTE = 7


@dataclass(frozen=True, slots=True)
class Model:
    """What tells one module from another."""

    name: str
    technology: Technology
    revision: str
    imei: str
    serial: str
    iccid: str = "8990011916180288209"
    imsi: str = "204047930002270"


@dataclass(frozen=True, slots=True)
class Options:
    """How the module behaves; spans are in seconds. The defaults are a module's usual ones.

    `quirks` are names of `quirks.QUIRKS` and values; those that count time need a running event loop.
    `at_run_password` is the one that the module's own SMS AT RUN knows.
    """

    model: str = "HE910-D"
    seed: int = 0
    send_delay: float = 0.3
    cops_test_delay: float = 10.0
    survey_delay: float = 2.0
    boot_delay: float = 5.0
    sm_slots: int = 20
    me_slots: int = 50
    pin: str = "1234"
    puk: str = "12345678"
    at_run_password: str = field(default="1234567890123456", repr=False)
    quirks: tuple[tuple[str, QuirkValue], ...] = ()


class Power(enum.Enum):
    """Whether anybody is in."""

    ON = "on"
    BOOTING = "booting"
    OFF = "off"


class Sim(enum.Enum):
    """The SIM as +CPIN? tells it; MISSING is told as an error."""

    READY = "READY"
    PIN = "SIM PIN"
    PUK = "SIM PUK"
    MISSING = "NONE"

    @property
    def qss(self) -> int:
        """The status of #QSS: 0 none, 1 inserted, 3 ready."""
        return {Sim.READY: 3, Sim.MISSING: 0}.get(self, 1)


REGISTERED: Final = frozenset({1, 5})
"""States of +CREG (3GPP TS 27.007 7.2) with service: home and roaming."""


@dataclass(frozen=True, slots=True)
class Operator:
    """A network: its long name, and country and network code."""

    name: str
    code: str


HOME = Operator("vodafone IT", "22210")
OPERATORS: Final = (HOME, Operator("I TIM", "22201"), Operator("I WIND", "22288"))


@dataclass(slots=True)
class Radio:
    """The module's place in the network."""

    registration: int = 1
    operator: Operator = HOME
    cops_mode: int = 0
    cops_format: int = 0
    rssi: int = 14
    ber: int = 99
    lac: str = "6993"
    cell: str = "0938F20"
    attached: bool = True
    functionality: int = 1

    @property
    def in_service(self) -> bool:
        """Whether calls and messages get through."""
        return self.registration in REGISTERED

    @property
    def dbm(self) -> int:
        """The signal of +CSQ in dBm (TS 27.007 8.5); -113 where it is unknown."""
        return -113 if self.rssi == 99 else -113 + 2 * self.rssi


@dataclass(slots=True)
class Card:
    """The SIM and its PIN. While it is still settling, `rising` is the status that #QSS has got to."""

    state: Sim = Sim.READY
    tries: int = 3
    puk_tries: int = 10
    new_pin: str | None = field(default=None, repr=False)
    rising: int | None = None

    @property
    def qss(self) -> int:
        """The status of #QSS."""
        return self.state.qss if self.rising is None else self.rising


S_REGISTERS: Final[dict[int, int]] = {0: 0, 2: 43, 3: 13, 4: 10, 5: 8, 7: 60, 12: 50, 25: 5, 30: 0, 38: 20}
"""V.250 6.2 and the vendor's own, with their defaults."""


@dataclass(slots=True)
class PortSettings:
    """What each port keeps for itself, as it is after power-up."""

    echo: bool = True
    verbose: bool = True
    quiet: bool = False
    cmee: int = 0
    text_mode: bool = False
    character_set: str = "IRA"
    mem1: str = "SM"
    mem2: str = "SM"
    csmp: tuple[int, int, int, int] = (17, 167, 0, 0)
    registers: dict[int, int] = field(default_factory=lambda: dict(S_REGISTERS))
    values: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def number(self, name: str, position: int = 0) -> int:
        """Return a whole number set by a plain command (`+CREG`, `#QSS`), 0 where it never was."""
        values = self.values.get(name, ())
        return int(values[position]) if position < len(values) else 0


def identity(name: str, seed: int) -> Model:
    """Return a model as documented for seed 0, else one with an IMEI, serial number and SIM of its own.

    Raises `KeyError` for a model that is not in `MODELS`.
    """
    model = MODELS[name]
    if seed == 0:
        return model
    chance = random.Random(seed)  # noqa: S311 - a simulated device's number, no secret
    digits = "".join(chance.choices("0123456789", k=24))
    return replace(
        model,
        imei=_with_check_digit(model.imei[:8] + digits[:6]),
        serial=digits[:10],
        iccid=_with_check_digit(model.iccid[:8] + digits[6:16]),
        imsi=model.imsi[:5] + digits[14:24],
    )


MODELS: Final = {
    model.name: model
    for model in (
        Model("HE910-D", Technology.UMTS, "12.00.004", "351579050003316", "0001457213"),
        Model("GE910-QUAD", Technology.GSM, "13.00.007", "353613080341905", "0001767746"),
        Model("LE910C1-EUX", Technology.LTE, "25.30.226", "354485417617003", "0004106217"),
        Model("ME310G1-W1", Technology.LTE, "M0B.200002", "351358810000207", "0003110542"),
    )
}


def _with_check_digit(digits: str) -> str:
    """Append the Luhn digit that IMEI and ICCID end with (3GPP TS 23.003 annex B)."""
    total = 0
    for position, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if position % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return digits + str(-total % 10)
