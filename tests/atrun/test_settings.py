# SPDX-License-Identifier: Apache-2.0
"""What NVM holds: defaults, and changes by name."""

from ipaddress import IPv4Address

import pytest

from atrund.atrun.events import Event
from atrund.atrun.interface import Interface
from atrund.atrun.secrets import Secret
from atrund.atrun.settings import Login, Profiles, Rule, Settings, Socket, fits_login, fits_password, slots


def test_the_defaults_are_the_vendor_s() -> None:
    settings = Settings()
    assert (settings.sms.enabled, settings.sms.instance, settings.sms.urc, settings.sms.timeout) == (
        False,
        3,
        True,
        300,
    )
    assert settings.sms.whitelist == (None,) * 8
    tcp = settings.tcp
    assert (tcp.conn_id, tcp.instance, tcp.port, tcp.urc, tcp.timeout, tcp.step_login) == (1, 2, 1024, True, 300, False)
    assert (tcp.client.port, tcp.client.host, tcp.client.retries, tcp.client.retry_delay) == (1024, "", 0, 120)
    assert not any((tcp.enabled, tcp.client.enabled, tcp.sequence, settings.monitor.enabled))
    assert (tcp.firewall, tcp.users) == ((None,) * 5, (None,) * 3)
    assert tcp.own_socket == Socket(cid=1, packet_size=300, idle_timeout=90, connect_timeout=60, send_timeout=5)
    assert settings.monitor.timeout == 300


def test_a_change_by_name_changes_that_and_nothing_else() -> None:
    before = Settings()
    changes = {
        "sms.enabled": True,
        "sms.whitelist.2": "+39*",
        "tcp.client.host": "example.org",
        "tcp.socket.3.cid": 2,
        "monitor.event.RING": Event(on=True, parameters=(3,)),
        "instance.2.start": 1,
    }
    after = before.changed(changes)
    assert all(after.value(key) == value for key, value in changes.items())
    assert after.sms.whitelist == (None, "+39*", *(None,) * 6)
    assert after.tcp.socket[2].cid == 2
    assert after.tcp.socket[:2] == before.tcp.socket[:2]
    assert after.monitor.event["STARTUP"] == before.monitor.event["STARTUP"]
    assert after.changed({key: before.value(key) for key in changes}) == before


def test_the_own_socket_is_that_of_the_connection() -> None:
    settings = Settings().changed({"tcp.conn_id": 6, "tcp.socket.6.cid": 4})
    assert settings.tcp.own_socket.cid == 4


def test_a_restart_loads_the_profile_that_was_chosen() -> None:
    quiet, silent = Interface().with_values("E", (0,)), Interface().with_values("Q", (1,))
    profiles = Profiles(quiet, silent)
    assert profiles.at_start == quiet
    assert Profiles(quiet, silent, start=1).at_start == silent
    assert profiles.load(1) == silent
    assert Profiles().at_start == Interface()


def test_a_list_of_the_file_fills_slots_in_order() -> None:
    assert slots(["+391", Secret("x")], 4) == ("+391", Secret("x"), None, None)
    assert slots("abc", 2) == ("a", "b")


def test_lists_are_seen_without_their_empty_slots() -> None:
    rule, login, secret = (
        Rule(IPv4Address("1.0.0.0"), IPv4Address("255.0.0.0")),
        Login("a", Secret("b")),
        Secret("c" * 16),
    )
    changes = {"sms.whitelist.3": secret, "sms.whitelist.8": "+39", "tcp.firewall.5": rule, "tcp.users.2": login}
    settings = Settings().changed(changes)
    assert (settings.sms.numbers, settings.sms.passwords) == (("+39",), (secret,))
    assert (settings.tcp.rules, settings.tcp.logins) == ((rule,), (login,))


def test_secrets_are_in_no_representation() -> None:
    settings = Settings().changed(
        {
            "sms.whitelist.1": Secret("1234567890123456"),
            "sms.whitelist.2": "+393461234567",
            "tcp.users.1": Login("anna", Secret("hidden word")),
            "monitor.event.RING": Event(command="AT+CPIN=9876", parameters=(1,)),
        }
    )
    shown = repr(settings)
    assert not [word for word in ("1234567890123456", "4567", "hidden", "9876") if word in shown]


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("1234567890123456", True),
        ("123456789012345", False),
        ("15878159745713601", False),
        ("12345678901234\xe956", False),
    ],
)
def test_a_white_list_password_has_16_characters(text: str, fits: bool) -> None:  # noqa: FBT001 - expected
    assert fits_password(text) is fits


@pytest.mark.parametrize(
    ("text", "fits"), [("a", True), ("a" * 50, True), ("a" * 51, False), ("", False), ("a\r", False)]
)
def test_a_login_has_1_to_50_characters(text: str, fits: bool) -> None:  # noqa: FBT001 - expected
    assert fits_login(text) is fits
