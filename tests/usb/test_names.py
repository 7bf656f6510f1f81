# SPDX-License-Identifier: Apache-2.0
"""MOD-2: how ports are named, what a name means among those that are there, and what an error says."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrund.usb.compositions import Role
from atrund.usb.names import (
    LISTED_MAX,
    ById,
    ByImei,
    ByPath,
    ByPlace,
    Located,
    Name,
    PortNameError,
    candidates,
    decide,
    network_up,
    parse_name,
    resolve,
)
from atrund.usb.sysfs import UsbPort

IMEI = "353000111222333"


def port(
    number: int, interface: str, *, usb: str = "1-1.4", vid: str = "1bc7", pid: str = "1201", serial: str = "AB12"
) -> UsbPort:
    return UsbPort(Path(f"/dev/ttyUSB{number}"), vid, pid, serial, usb, interface)


ONE = (port(0, "00"), port(1, "03"), port(2, "04"), port(3, "05"))
OTHER = tuple(port(number, f"0{number}", usb="1-1.2", pid="1204", serial="CD34") for number in (4, 5, 6))
TWIN = (port(8, "04", usb="1-3", serial="EF56"), port(9, "05", usb="1-3", serial="EF56"))
ADAPTER = (port(7, "00", usb="2-1", vid="0403", pid="6001", serial="FT1"),)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("/dev/serial/by-id/usb-x", ByPath(Path("/dev/serial/by-id/usb-x"))),
        ("/dev/ttyUSB2", ByPath(Path("/dev/ttyUSB2"))),
        ("usb:1-1.4", ByPlace("1-1.4")),
        ("usb:1-1.4/05", ByPlace("1-1.4", "05")),
        ("usb:12-1.4.2/0a", ByPlace("12-1.4.2", "0a")),
        ("usb:1-1/primary", ByPlace("1-1", Role.PRIMARY)),
        ("usb:1bc7:1201", ById("1bc7", "1201")),
        ("usb:1bc7:110a/secondary", ById("1bc7", "110a", None, Role.SECONDARY)),
        ("usb:1bc7:1201:AB12", ById("1bc7", "1201", "AB12")),
        ("usb:1bc7:1201:A:B 1/04", ById("1bc7", "1201", "A:B 1", "04")),
        (f"imei:{IMEI}", ByImei(IMEI)),
        (f"imei:{IMEI}/primary", ByImei(IMEI, Role.PRIMARY)),
    ],
)
def test_names(text: str, name: Name) -> None:
    assert parse_name(text) == name
    assert str(name) == text.replace(IMEI, "…2333")


def test_hexadecimal_digits_of_either_case() -> None:
    assert parse_name("usb:1BC7:110A/0B") == ById("1bc7", "110a", None, "0b")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "1 to 4096 printable characters"),
        ("/dev/tty\nUSB2", "printable"),
        ("/" + "x" * 4096, "1 to 4096"),
        ("ttyUSB2", "did you mean /dev/ttyUSB2?"),
        ("COM3", "usb:1-1.4"),
        ("usb:", "names no USB device"),
        ("usb:1", "names no USB device"),
        ("usb:1bc7", "four hexadecimal digits each"),
        ("usb:1bc7:12", "names no USB device"),
        ("usb:1bc7:1201:", "names no USB device"),
        ("usb:1-1.4/5", "two hexadecimal digits such as 05"),
        ("usb:1-1.4/", "two hexadecimal digits"),
        ("usb:1-1.4/gnss", "primary or secondary"),
        ("usb:1-1.4/05/04", "two hexadecimal digits"),
        ("usb:1-1.4.1.1.1.1.1.1.1", "names no USB device"),
        ("imei:35300011122233", "15 digits"),
        ("imei:", "15 digits"),
        ("imei:353000111222333/x", "two hexadecimal digits"),
    ],
)
def test_what_is_no_name_says_what_would_be_right(text: str, words: str) -> None:
    with pytest.raises(PortNameError) as caught:
        parse_name(text)
    assert words in str(caught.value)
    assert not caught.value.missing


@given(st.text(max_size=40) | st.from_regex(r"usb:[0-9a-f:./-]{0,20}", fullmatch=True))
def test_any_text_is_a_name_or_refused(text: str) -> None:
    try:
        name = parse_name(text)
    except PortNameError:
        return
    assert isinstance(name, ByPath | ByImei) or parse_name(str(name)) == name


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("/dev/ttyUSB2", 2),
        ("usb:1-1.4", 3),
        ("usb:1-1.4/primary", 2),
        ("usb:1-1.4/03", 1),
        ("usb:1bc7:1201", 3),
        ("usb:1bc7:1201:AB12/primary", 2),
        ("usb:1bc7:1204", 6),
        ("usb:1-1.2/secondary", 6),
        ("usb:2-1", 7),
        ("usb:0403:6001:FT1/00", 7),
    ],
)
def test_a_name_that_fits_one(text: str, number: int) -> None:
    found = resolve(located(text), (*ONE, *OTHER, *ADAPTER))
    assert isinstance(found, UsbPort)
    assert found.path == Path(f"/dev/ttyUSB{number}")


def test_a_stable_link_leads_to_its_port() -> None:
    link = Path("/dev/serial/by-id/usb-x-if05")
    linked = UsbPort(Path("/dev/ttyUSB3"), "1bc7", "1201", "", "1-1", "05", links=(link,))
    assert resolve(ByPath(link), (*OTHER, linked)) is linked


def test_a_path_that_is_no_usb_port_stays_a_path() -> None:
    assert resolve(ByPath(Path("/dev/ttyS1")), ONE) == Path("/dev/ttyS1")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("usb:3-1", "no such serial port on USB; there are: usb:1-1.4/00 (/dev/ttyUSB0, 1bc7:1201 serial 'AB12' diag"),
        ("usb:1bc7:1201:ZZ", "usb:1bc7:1201:ZZ: no such serial port"),
        ("usb:1-1.4/0f", "no serial port on interface 0f; there are: usb:1-1.4/00"),
    ],
)
def test_what_is_not_there_may_come(text: str, words: str) -> None:
    with pytest.raises(PortNameError) as caught:
        resolve(located(text), ONE)
    assert words in str(caught.value)
    assert caught.value.missing


def test_nothing_at_all_is_there() -> None:
    with pytest.raises(PortNameError, match="there is no serial port on USB"):
        resolve(ByPlace("1-1"), ())


@pytest.mark.parametrize(
    ("text", "ports", "words"),
    [
        ("usb:1bc7:1201", (*ONE, *TWIN), "fits several; name one by its place or serial number: usb:1-1.4/00"),
        ("usb:1-1.4/05", (*ONE, port(5, "05")), "fits several; name it by its path: usb:1-1.4/05 (/dev/ttyUSB3"),
        ("usb:1-9", (port(0, "01", usb="1-9", pid="1011"),), "CE910-DUAL) has one AT port alone; /primary"),
        ("usb:1-9", (port(0, "01", usb="1-9", pid="ffff"), port(1, "02", usb="1-9", pid="ffff")), "not known for 1bc7"),
        ("usb:2-1/primary", ADAPTER, "which port is the primary one is not known for 0403:6001"),
    ],
)
def test_what_can_not_be_decided_lists_the_candidates(text: str, ports: tuple[UsbPort, ...], words: str) -> None:
    with pytest.raises(PortNameError) as caught:
        resolve(located(text), ports)
    assert words in str(caught.value)
    assert not caught.value.missing


def test_a_list_has_an_end() -> None:
    many = [port(number, "05", usb=f"1-{number}") for number in range(LISTED_MAX + 3)]
    with pytest.raises(PortNameError, match="and 3 more"):
        resolve(ById("1bc7", "1201"), many)


def test_one_port_of_each_telit_module_is_asked_for_its_imei() -> None:
    unknown = (port(20, "02", usb="1-8", pid="ffff"),)
    ports = (*ONE, *OTHER, *ADAPTER, *unknown, port(21, "01", usb="1-9", pid="1011"))
    assert [asked.path.name for asked in candidates(ByImei(IMEI), ports)] == ["ttyUSB3", "ttyUSB6"]
    primaries = candidates(ByImei(IMEI, Role.PRIMARY), ports)
    assert [asked.path.name for asked in primaries] == ["ttyUSB2", "ttyUSB5", "ttyUSB21"]
    assert [asked.path.name for asked in candidates(ByImei(IMEI, "02"), ports)] == ["ttyUSB20"]


def test_nobody_to_ask() -> None:
    with pytest.raises(PortNameError, match=r"no port of a Telit module to ask.*0403:6001") as caught:
        candidates(ByImei(IMEI), ADAPTER)
    assert caught.value.missing


@pytest.mark.parametrize("answer", [IMEI, f'+CGSN: "{IMEI}"', f"{IMEI[:14]}0", IMEI[:14], f"{IMEI[:14]}07"])
def test_the_answer_decides(answer: str) -> None:
    asked = (ONE[3], TWIN[1])
    answers = {TWIN[1].path: answer, ONE[3].path: "353000111222444"}
    assert decide(ByImei(IMEI), asked, answers) is TWIN[1]


@pytest.mark.parametrize("answer", ["", "ERROR", "35300011122233312345", "1353000111222333"])
def test_what_is_no_such_imei(answer: str) -> None:
    with pytest.raises(
        PortNameError, match=r"imei:…2333: .*ttyUSB3 has another, /dev/ttyUSB9 gave no answer"
    ) as caught:
        decide(ByImei(IMEI), (ONE[3], TWIN[1]), {ONE[3].path: answer})
    assert caught.value.missing
    assert IMEI not in str(caught.value)


def test_two_with_one_imei() -> None:
    with pytest.raises(PortNameError, match="two modules with one IMEI"):
        decide(ByImei(IMEI), (ONE[3], TWIN[1]), {ONE[3].path: IMEI, TWIN[1].path: IMEI})


def test_nobody_was_asked() -> None:
    with pytest.raises(PortNameError, match="there was none to ask"):
        decide(ByImei(IMEI), (), {})


def test_whether_the_network_is_up() -> None:
    link = Path("/dev/serial/by-id/x")
    up = UsbPort(Path("/dev/ttyUSB1"), "1bc7", "1201", "", "1-1", "04", links=(link,), network_up=True)
    ports = (*OTHER, up)
    assert network_up(ports, up.path)
    assert network_up(ports, link)
    assert network_up(ports, port(7, "05", usb="1-1"))
    assert not network_up(ports, OTHER[0])
    assert not network_up(ports, Path("/dev/ttyS0"))
    assert not network_up((), up)


def located(text: str) -> Located:
    name = parse_name(text)
    assert not isinstance(name, ByImei)
    return name
