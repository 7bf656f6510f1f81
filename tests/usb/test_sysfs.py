# SPDX-License-Identifier: Apache-2.0
"""Serial ports and modules as a made-up sysfs shows them."""

from pathlib import Path

import pytest

from atrund.usb.compositions import Role
from atrund.usb.sysfs import UsbDevice, UsbPort, modules, snapshot
from tests.usb.tree import Tree


def test_a_module_with_all_that_it_has(tree: Tree) -> None:
    tree.le910()
    ports = snapshot(tree.sys, tree.dev)
    assert [(port.path.name, port.interface, port.role) for port in ports] == [
        ("ttyUSB0", "00", Role.DIAGNOSTIC),
        ("ttyUSB1", "03", Role.GNSS),
        ("ttyUSB2", "04", Role.PRIMARY),
        ("ttyUSB3", "05", Role.SECONDARY),
        ("ttyUSB4", "06", None),
    ]
    assert ports[3] == UsbPort(
        path=tree.dev / "ttyUSB3",
        vid="1bc7",
        pid="1201",
        serial="0123456789ABCDEF",
        usb="1-1.4",
        interface="05",
        product="LE910C1-EU",
        links=(tree.dev / "serial/by-id/usb-Telit_LE910C1-EU_0123456789ABCDEF-if05-port0",),
        networks=("wwan0",),
        controls=(tree.dev / "cdc-wdm0",),
        network_up=True,
    )
    assert ports[3].name == "usb:1-1.4/05"


def test_ports_in_order_of_place(tree: Tree) -> None:
    for number, usb in enumerate(("1-1.10", "1-1.2", "1-1")):
        tree.tty(tree.device(usb, vid="0403", pid="6001"), "00", f"ttyUSB{number}")
    assert [port.usb for port in snapshot(tree.sys, tree.dev)] == ["1-1", "1-1.2", "1-1.10"]


def test_a_port_of_the_modem_class_and_hexadecimal_interfaces(tree: Tree) -> None:
    tree.tty(tree.device("2-3", pid="7020"), "0a", "ttyACM0")
    (port,) = snapshot(tree.sys, tree.dev)
    assert (port.path.name, port.usb, port.interface, port.serial, port.links) == ("ttyACM0", "2-3", "0a", "", ())


def test_what_is_behind_a_hub_is_not_the_hubs(tree: Tree) -> None:
    hub = tree.device("1-1", vid="1d6b", pid="0002")
    tree.tty(hub, "01", "ttyUSB0")
    behind = tree.device("1-1/1-1.2", vid="0bda", pid="8153")
    tree.net(behind, "00", "eth1")
    (port,) = snapshot(tree.sys, tree.dev)
    assert (port.networks, port.network_up) == ((), False)


@pytest.mark.parametrize(
    ("flags", "operstate", "up"),
    [
        ("0x1003", "up", True),
        ("0x10d1", "unknown", True),
        ("0x1003", "down", False),
        ("0x1003", "dormant", False),
        ("0x1002", "unknown", False),
        ("", "up", False),
        ("nonsense", "up", False),
    ],
)
def test_an_interface_is_up_by_its_flag_and_state(tree: Tree, flags: str, operstate: str, *, up: bool) -> None:
    device = tree.device("1-1")
    tree.tty(device, "05", "ttyUSB0")
    tree.net(device, "02", "wwan0", flags=flags, operstate=operstate)
    tree.net(device, "03", "wwan1", operstate="down")
    assert snapshot(tree.sys, tree.dev)[0].network_up is up


def test_others_are_left_out(tree: Tree) -> None:
    for name in ("ttyS0", "tty1", "ttyUSBx", "ptmx"):
        folder = tree.sys / "devices/virtual/tty" / name
        folder.mkdir(parents=True)
        (tree.sys / "class/tty" / name).symlink_to(folder)
    gone = tree.sys / "class/tty/ttyUSB7"
    gone.symlink_to(tree.sys / "devices/gone/ttyUSB7")
    pci = tree.sys / "devices/pci0000:00/serial/ttyUSB8"  # below no USB device
    pci.mkdir(parents=True)
    (tree.sys / "class/tty/ttyUSB8").symlink_to(pci)
    assert snapshot(tree.sys, tree.dev) == ()


def test_attributes_of_the_host_outside_of_the_tree_are_not_taken(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "idVendor").write_text("1bc7\n")
    (tmp_path / "bInterfaceNumber").write_text("05\n")
    folder = tree.sys / "devices/ttyUSB0"
    folder.mkdir()
    (tree.sys / "class/tty/ttyUSB0").symlink_to(folder)
    assert snapshot(tree.sys, tree.dev) == ()


def test_a_host_without_sysfs(tmp_path: Path) -> None:
    assert snapshot(tmp_path / "none", tmp_path / "none") == ()
    assert modules(tmp_path / "none") == ()


def test_modules_with_and_without_ports(tree: Tree) -> None:
    tree.le910("1-10")
    tree.device("1-2", pid="1204", product="LE910C4-NF")
    tree.device("1-3", vid="0403", pid="6001")
    assert modules(tree.sys) == (
        UsbDevice("1bc7", "1204", "", "1-2", "LE910C4-NF"),
        UsbDevice("1bc7", "1201", "0123456789ABCDEF", "1-10", "LE910C1-EU"),
    )


def test_a_link_that_is_a_file_is_passed_over(tree: Tree) -> None:
    tree.le910()
    (tree.dev / "serial/by-id/readme").write_text("")
    assert len(snapshot(tree.sys, tree.dev)[0].links) == 1
