# SPDX-License-Identifier: Apache-2.0
"""The receiver of positions, known where the quirk `gps` is on: $GPSP, $GPSACP, and the NMEA lines of $GPSNMUN."""

import asyncio
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from atrund.at.syntax import Command, Op
from atrund.sim.steps import Handler, Refused, Step, Wait, number, parameters

if TYPE_CHECKING:  # for the annotations alone
    from atrund.sim.module import SimModule
    from atrund.sim.port import SimPort

ESCAPE: Final = b"+++"
"""Ends the stream of $GPSNMUN=3."""

BATCH_SECONDS: Final = 0.1
"""Lines of a stream come in batches that far apart, or one by one if there are fewer."""

REPORT_SECONDS: Final = 1.0
"""Modes 1 and 2 put out each sentence once in that time."""

MESSAGES: Final = 6
"""GGA, GLL, GSA, GSV, RMC and VTG are chosen one by one behind the mode; none chosen is all here."""


def power(port: "SimPort", command: Command) -> Iterable[Step]:
    """$GPSP: on or off; it is kept and nothing else."""
    values = port.module.values
    match command.op:
        case Op.READ:
            return (f"$GPSP: {values.get('$GPSP', ('0',))[0]}",)
        case Op.TEST:
            return ("$GPSP: (0,1)",)
        case Op.SET:
            values["$GPSP"] = (str(number(parameters(command, 1)[0], range(2))),)
            return ()
        case Op.EXECUTE:
            raise Refused


def position(port: "SimPort", command: Command) -> Iterable[Step]:
    """$GPSACP: the last position."""
    if command.op is Op.TEST:
        return ()
    now = port.module.clock()
    return (f"$GPSACP: {now:%H%M%S}.000,4526.1234N,00911.5678E,1.5,120.0,3,0.0,0.0,0.0,{now:%d%m%y},05",)


def reports(port: "SimPort", command: Command) -> Iterator[Step]:
    """$GPSNMUN: 1 puts a name before each line, 2 does not, 3 makes the port a stream of nothing else until +++."""
    if command.op is Op.TEST:
        yield f"$GPSNMUN: (0-3){',(0-1)' * MESSAGES}"
        return
    if command.op is Op.READ:
        yield f"$GPSNMUN: {','.join(port.settings.values.get('$GPSNMUN', ('0',) * (1 + MESSAGES)))}"
        return
    given = parameters(command, 1 + MESSAGES)
    mode = number(given[0], range(4))
    chosen = tuple(str(number(text, range(2), 0)) for text in given[1:])
    port.settings.values["$GPSNMUN"] = (str(mode), *chosen)
    if mode == 3:
        yield from _stream(port)
    elif mode:
        port.module.location.start(port)


class Location:
    """Puts out the reports of modes 1 and 2 on the ports that want them."""

    def __init__(self, module: "SimModule") -> None:
        self._module = module
        self._timer: asyncio.TimerHandle | None = None

    def start(self, _port: "SimPort") -> None:
        """Begin, if it does not run already."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(REPORT_SECONDS, self._report)

    def close(self) -> None:
        """Stop."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _report(self) -> None:
        self._timer = None
        takers = [port for port in self._module.ports if port.settings.number("$GPSNMUN") in {1, 2}]
        for port in takers:
            head = "$GPSNMUN: " if port.settings.number("$GPSNMUN") == 1 else ""
            for line in sentences(port):
                port.urc(head + line)
        if takers:
            self.start(takers[0])


def sentences(port: "SimPort") -> list[str]:
    """Return the NMEA lines that a port has chosen, with their checksums."""
    now = port.module.clock()
    at = f"{now:%H%M%S}.000"
    where = "4526.1234,N,00911.5678,E"
    bodies = (
        f"GPGGA,{at},{where},1,05,1.50,120.0,M,48.0,M,,0000",
        f"GPGLL,{where},{at},A,A",
        "GPGSA,A,3,04,09,17,22,26,,,,,,,,2.4,1.5,1.9",
        "GPGSV,2,1,05,04,41,112,38,09,22,204,31,17,63,287,42,22,10,045,25",
        f"GPRMC,{at},A,{where},0.02,31.66,{now:%d%m%y},,,A",
        "GPVTG,31.66,T,,M,0.02,N,0.04,K,A",
    )
    chosen = [body for position, body in enumerate(bodies, 1) if port.settings.number("$GPSNMUN", position)]
    return [f"${body}*{checksum(body):02X}" for body in chosen or bodies]


HANDLERS: Final[dict[str, Handler]] = {"$GPSP": power, "$GPSACP": position, "$GPSNMUN": reports}


def _stream(port: "SimPort") -> Iterator[Step]:
    rate = max(1.0, port.module.quirks.number("nmea_rate"))
    lines = max(1, round(rate * BATCH_SECONDS))
    yield b"\r\nCONNECT\r\n"
    turn = 0
    while True:
        yield Wait(lines / rate, escape=ESCAPE)
        given = sentences(port)
        yield b"".join(given[(turn + offset) % len(given)].encode() + b"\r\n" for offset in range(lines))
        turn += lines


def checksum(body: str) -> int:
    """The XOR of all characters (NMEA 0183)."""
    total = 0
    for character in body.encode():
        total ^= character
    return total
