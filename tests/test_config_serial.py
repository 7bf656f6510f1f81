# SPDX-License-Identifier: Apache-2.0
"""What the file says of the serial ports of `#TCPATCONSER` (TCP-6)."""

from pathlib import Path

import pytest

from atrund import config, making
from atrund.atrun.family.tcp import SERIAL_RATES
from atrund.config import Config, ConfigError, SerialPort

ENTRY = '{number = 1, path = "/dev/ttyS1"}'


def load(folder: Path, text: str) -> Config:
    path = folder / "atrund.toml"
    path.write_text(text)
    return config.load(path, hostname="box", machine_id=None, environ={})


def serial(folder: Path, *entries: str) -> Config:
    return load(folder, f"[tcp]\nserial = [{', '.join(entries)}]\n")


def test_there_is_none_by_default(tmp_path: Path) -> None:
    assert load(tmp_path, "").tcp.serial == ()
    assert making.transparent(()) is None


def test_what_the_file_says_is_in_force(tmp_path: Path) -> None:
    other = '{number = 0, path = "/dev/ttyUSB9", rates = [9600, 921600], flow = "rtscts"}'
    given = serial(tmp_path, ENTRY, other).tcp.serial
    assert given == (
        SerialPort(1, Path("/dev/ttyS1"), SERIAL_RATES, "none"),
        SerialPort(0, Path("/dev/ttyUSB9"), (9600, 921600), "rtscts"),
    )
    transparent = making.transparent(given)
    assert transparent is not None
    assert transparent.ports.rates == {0: (9600, 921600), 1: SERIAL_RATES}


def test_tables_will_do_as_well(tmp_path: Path) -> None:
    given = load(tmp_path, '[[tcp.serial]]\nnumber = 1\npath = "/dev/ttyS1"\nflow = "xonxoff"\n')
    assert given.tcp.serial == (SerialPort(1, Path("/dev/ttyS1"), SERIAL_RATES, "xonxoff"),)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        (['{path = "/dev/ttyS1"}'], "tcp.serial[0].number: is missing"),
        (["{number = 1}"], "tcp.serial[0].path: is missing"),
        (
            ['{number = 10, path = "/dev/ttyS1"}'],
            "tcp.serial[0].number: 10 is out of range; a port's number from 0 to 9",
        ),
        (['{number = 1, path = "ttyS1"}'], 'tcp.serial[0].path: "ttyS1" is none; an absolute path'),
        (
            [ENTRY.replace("}", ", rates = [14400]}")],
            "tcp.serial[0].rates[0]: 14400 is no rate of a serial port; one of",
        ),
        ([ENTRY.replace("}", ', rates = ["9600"]}')], 'tcp.serial[0].rates[0]: "9600" is a string; one of 300, 600'),
        ([ENTRY.replace("}", ", rates = []}")], "tcp.serial[0].rates: is empty; at least 1 of them"),
        (
            [ENTRY.replace("}", ', flow = "hardware"}')],
            'tcp.serial[0].flow: "hardware" is unknown; one of "none", "rtscts',
        ),
        ([ENTRY.replace("}", ", parity = 1}")], "tcp.serial[0].parity: unknown key"),
        (
            [ENTRY, '{number = 1, path = "/dev/ttyS2"}'],
            "tcp.serial[1].number: number 1 stands in the list twice; a number of its own for each port",
        ),
        (
            [ENTRY, '{number = 2, path = "/dev/../dev/ttyS1"}'],
            'tcp.serial[1].path: "/dev/../dev/ttyS1" is the path of another entry as well; each port once',
        ),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, entries: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        serial(tmp_path, *entries)
    assert said in str(caught.value)


def test_the_modules_own_port_is_none(tmp_path: Path) -> None:
    """However it is spelled."""
    (tmp_path / "by-id").symlink_to("/dev/null")
    said = "is a port of the module's, which runs commands; another serial port of this machine"
    for module in (f'port = "{tmp_path}/by-id"', f'port = "/dev/x"\nextra_ports = ["{tmp_path}/by-id"]'):
        with pytest.raises(ConfigError) as caught:
            load(tmp_path, f'[module]\n{module}\n[tcp]\nserial = [{{number = 1, path = "/dev/null"}}]\n')
        assert f'tcp.serial[0].path: "/dev/null" {said}' in str(caught.value)
