# SPDX-License-Identifier: Apache-2.0
"""The table of compositions: it holds together, and says what is known of the common ones."""

import re

import pytest

from atrund.usb.compositions import COMPOSITIONS, TELIT, Composition, Role, composition


@pytest.mark.parametrize("known", COMPOSITIONS, ids=lambda known: known.pid)
def test_a_composition_is_whole(known: Composition) -> None:
    numbers = [known.primary, known.secondary, known.gnss, known.diagnostic]
    given = [number for number in numbers if number is not None]
    assert re.fullmatch("[0-9a-f]{4}", known.pid)
    assert all(re.fullmatch("[0-9a-f]{2}", number) for number in given)
    assert len(set(given)) == len(given)
    assert "ModemManager" in known.source
    assert known.models
    assert composition(TELIT, known.pid) is known


def test_no_product_id_stands_twice() -> None:
    assert len({known.pid for known in COMPOSITIONS}) == len(COMPOSITIONS)


@pytest.mark.parametrize(
    ("pid", "primary", "secondary"),
    [("1201", "04", "05"), ("1204", "05", "06"), ("1031", "01", "02"), ("1033", "01", "02"), ("7011", "04", "03")],
)
def test_the_at_ports_of_the_common_ones(pid: str, primary: str, secondary: str) -> None:
    known = composition("1bc7", pid)
    assert known is not None
    assert (known.interface(Role.PRIMARY), known.interface(Role.SECONDARY)) == (primary, secondary)
    assert known.role(primary) is Role.PRIMARY
    assert known.role(secondary) is Role.SECONDARY


def test_what_is_not_known() -> None:
    assert composition("1bc7", "ffff") is None
    assert composition("0403", "1201") is None
    known = composition("1bc7", "1201")
    assert known is not None
    assert known.role("06") is None
    assert known.interface(Role.GNSS) is None


def test_two_roles_take_at_commands() -> None:
    assert [role for role in Role if role.at] == [Role.PRIMARY, Role.SECONDARY]
