# SPDX-License-Identifier: Apache-2.0
import asyncio
from pathlib import Path

import pytest

from atrund.module.locate import ASK_TIMEOUT, Locator
from atrund.module.port import Port, PortError, Receiver
from atrund.sim.faults import Plant
from atrund.sim.module import SimModule
from atrund.sim.state import Options
from atrund.usb.names import PortNameError
from atrund.usb.sysfs import UsbPort
from tests.support.keeping import no_threads
from tests.support.virtual import PORT, Wire

pytestmark = pytest.mark.looptime

BAUDRATE = 115200


class Box:
    """A box with some modules on USB, each with its two AT ports."""

    def __init__(self) -> None:
        self.ports: list[UsbPort] = []
        self.wires: dict[str, Wire] = {}
        self.opened: list[str] = []
        no_threads()

    def add(self, seed: int = 0, *, place: str = "", serial: str = "", network_up: bool = False) -> SimModule:
        module = SimModule(Options(model="LE910C1-EUX", seed=seed))
        number = len(self.ports)
        usb = place or f"1-{number // 2 + 1}"
        for interface in ("04", "05"):
            path = f"/dev/ttyUSB{len(self.ports)}"
            link = Path(f"/dev/serial/by-id/usb-Telit-{usb}-if{interface}")
            self.ports.append(
                UsbPort(
                    Path(path), "1bc7", "1201", serial, usb, interface, links=(link,), network_up=network_up
                )
            )  # fmt: skip
            self.wires[path] = Wire(module)
        return module

    async def open(self, path: str, baudrate: int, receiver: Receiver) -> Port:
        self.opened.append(path)
        return await self.wires[path].open(PORT, baudrate, receiver)

    def locator(self, name: str) -> Locator:
        return Locator(name, baudrate=BAUDRATE, open_port=self.open, look=lambda: tuple(self.ports))


@pytest.mark.parametrize("name", ["", "ttyUSB2", "usb:", "imei:123", "COM1"])
async def test_what_is_no_name_is_refused_at_once(name: str) -> None:
    with pytest.raises(PortNameError):
        Box().locator(name)


async def test_a_path_is_taken_as_it_is() -> None:
    box = Box()
    assert await box.locator("/dev/ttyS1").path() == "/dev/ttyS1"
    assert box.opened == []


async def test_a_place_means_the_secondary_port_wherever_it_is_now() -> None:
    box = Box()
    box.add(place="1-1.4")
    locator = box.locator("usb:1-1.4")
    assert await locator.path() == "/dev/ttyUSB1"
    box.ports.clear()
    with pytest.raises(PortError, match="no such serial port on USB"):
        await locator.path()
    box.add(place="2-1")
    box.add(place="1-1.4")
    assert await locator.path() == "/dev/ttyUSB3"
    assert await box.locator("usb:1-1.4/primary").path() == "/dev/ttyUSB2"
    assert box.opened == []


async def test_an_ambiguous_name_lists_what_it_fits() -> None:
    box = Box()
    box.add(serial="A1")
    box.add(serial="B2")
    with pytest.raises(PortError, match="fits several") as error:
        await box.locator("usb:1bc7:1201").path()
    assert "/dev/ttyUSB1" in str(error.value)
    assert "/dev/ttyUSB3" in str(error.value)
    assert await box.locator("usb:1bc7:1201:B2").path() == "/dev/ttyUSB3"


async def test_by_imei_among_several_of_which_one_is_mute_and_one_another() -> None:
    box = Box()
    mute, other, mine = box.add(1), box.add(2), box.add(3)
    mute.hang()
    assert other.identity.imei != mine.identity.imei
    began = asyncio.get_running_loop().time()
    assert await box.locator(f"imei:{mine.identity.imei}").path() == "/dev/ttyUSB5"
    assert box.opened == ["/dev/ttyUSB1", "/dev/ttyUSB3", "/dev/ttyUSB5"], "the primary ports are ModemManager's"
    assert asyncio.get_running_loop().time() - began < ASK_TIMEOUT + 1
    assert [len(module.ports) for module in (mute, other, mine)] == [0, 0, 0], "each is given back"
    for wire in box.wires.values():
        assert set(wire.seen) <= {"ATE0V1Q0", "AT+CGSN"}


async def test_by_imei_where_none_fits_it_says_who_said_what_and_no_imei() -> None:
    box = Box()
    box.add(1).hang()
    other = box.add(2)
    box.add(3)
    box.wires["/dev/ttyUSB5"].absent = "held by another program"
    with pytest.raises(PortError, match="no module with this IMEI") as error:
        await box.locator("imei:351579050003316").path()
    said = str(error.value)
    assert "/dev/ttyUSB1 gave no answer" in said
    assert "/dev/ttyUSB3 has another" in said
    assert "/dev/ttyUSB5 gave no answer" in said
    assert other.identity.imei not in said
    assert "351579050003316" not in said


async def test_by_imei_where_there_is_no_module() -> None:
    with pytest.raises(PortError, match="no port of a Telit module"):
        await Box().locator("imei:351579050003316").path()


@pytest.mark.parametrize("final", ["ERROR", "+CME ERROR: 14"])
async def test_by_imei_a_module_that_refuses_gave_no_answer(final: str) -> None:
    box = Box()
    module = box.add(1)
    module.faults.plant("+CGSN", Plant(None, final=final))
    with pytest.raises(PortError, match="/dev/ttyUSB1 gave no answer"):
        await box.locator(f"imei:{module.identity.imei}").path()


@pytest.mark.parametrize("shown", ["{imei}", "+CGSN: {imei}", "{imei14}", '"{imei}"', "{imei14}07"])
async def test_by_imei_in_whatever_shape_the_module_writes_it(shown: str) -> None:
    box = Box()
    module = box.add(1)
    line = shown.format(imei=module.identity.imei, imei14=module.identity.imei[:14])
    module.faults.plant("+CGSN", Plant(None, lines=(line,), final="OK"))
    assert await box.locator(f"imei:{module.identity.imei}").path() == "/dev/ttyUSB1"


async def test_by_imei_a_module_that_goes_while_it_is_asked() -> None:
    box = Box()
    module = box.add(1)
    module.faults.plant("+CGSN", Plant(None, seconds=1.0))
    asyncio.get_running_loop().call_later(0.5, box.wires["/dev/ttyUSB1"].lose)
    with pytest.raises(PortError, match="gave no answer"):
        await box.locator(f"imei:{module.identity.imei}").path()


async def test_whether_it_carries_data_is_that_of_its_own_device_now() -> None:
    box = Box()
    box.add(place="1-1", network_up=True)
    box.add(place="1-2", network_up=False)
    carries, idle = box.locator("usb:1-1"), box.locator("usb:1-2")
    assert not carries.carries_data(), "nothing is known before it was found"
    await carries.path()
    await idle.path()
    assert carries.carries_data()
    assert not idle.carries_data()
    box.ports.clear()
    box.add(place="1-1", network_up=False)
    assert not carries.carries_data()


async def test_a_path_by_id_carries_what_its_device_carries() -> None:
    box = Box()
    box.add(place="1-1", network_up=True)
    locator = box.locator("/dev/serial/by-id/usb-Telit-1-1-if05")
    await locator.path()
    assert locator.carries_data()
