# SPDX-License-Identifier: Apache-2.0
"""Settings as rows of the ledger: read back as they were, or refused by name (CMD-4)."""

import json
from ipaddress import IPv4Address

import pytest

from atrund.atrun.events import EVENTS, Event, default_event
from atrund.atrun.interface import Interface
from atrund.atrun.secrets import Secret
from atrund.atrun.settings import Login, Rule, Settings
from atrund.atrun.stored import KEYS, SettingError, dump, from_rows, load, shown, to_rows

FULL = Settings().changed(
    {
        "sms.enabled": True,
        "sms.timeout": 90.0,
        "sms.whitelist.1": "+39*",
        "sms.whitelist.8": Secret("1234567890123456"),
        "tcp.port": 0,
        "tcp.client.host": "212.141.125.127",
        "tcp.client.retry_delay": 60.0,
        "tcp.firewall.1": Rule(IPv4Address("217.0.0.0"), IPv4Address("255.0.0.0")),
        "tcp.users.3": Login("Anna \u00e9", Secret("p w")),
        "tcp.socket.6.send_timeout": 0.1,
        "monitor.event.GPIO1": Event(True, 'AT#GPIO=2,1,"a"', (4, 1, 10), "sms", "+391", forgeable=True),
        "instance.3.profile1": Interface().with_values("E", (0,)),
        "instance.3.start": 1,
    }
)


@pytest.mark.parametrize("settings", [Settings(), FULL])
def test_all_settings_read_back_as_they_were(settings: Settings) -> None:
    rows = to_rows(settings)
    assert set(rows) == set(KEYS)
    assert from_rows(rows, Settings()) == (settings, ())
    assert from_rows(rows, FULL) == (settings, ())


def test_each_setting_is_a_row_of_its_own() -> None:
    rows = to_rows(FULL, ["sms.enabled", "sms.whitelist.1"])
    assert rows == {"sms.enabled": "true", "sms.whitelist.1": '{"number":"+39*"}'}
    settings, errors = from_rows(rows, Settings())
    assert errors == ()
    assert settings == Settings().changed({"sms.enabled": True, "sms.whitelist.1": "+39*"})


def test_an_emptied_slot_hides_the_file_s() -> None:
    base = Settings().changed({"sms.whitelist.1": "+391", "sms.whitelist.2": "+392"})
    settings, _ = from_rows({"sms.whitelist.1": "null"}, base)
    assert settings.sms.whitelist[:2] == (None, "+392")


def test_a_setting_that_is_none_has_no_row() -> None:
    with pytest.raises(KeyError):
        dump(Settings(), "sms.colour")


EVENT = json.loads(dump(Settings(), "monitor.event.RING"))


@pytest.mark.parametrize(
    ("key", "text", "wrong"),
    [
        ("sms.colour", "1", "sms.colour: no such setting"),
        ("sms.enabled", "1", "neither true nor false"),
        ("sms.enabled", "{", "is not JSON"),
        ("sms.enabled", "[" * 100_000, "too deep"),
        ("sms.instance", "4", "from 1 to 3"),
        ("sms.instance", "true", "from 1 to 3"),
        ("sms.instance", "1.0", "from 1 to 3"),
        ("sms.timeout", "59", "from 60 to 3600"),
        ("sms.timeout", "NaN", "from 60 to 3600"),
        ("sms.timeout", "Infinity", "from 60 to 3600"),
        ("sms.timeout", '"60"', "from 60 to 3600"),
        ("sms.whitelist.1", '"+39"', "neither a number nor a password"),
        ("sms.whitelist.1", '{"number":"*"}', "neither"),
        ("sms.whitelist.1", '{"number":"+39","password":"1234567890123456"}', "neither"),
        ("sms.whitelist.1", '{"password":"short"}', "neither"),
        ("tcp.client.host", "1", "no host name"),
        ("tcp.client.host", '"a b"', "no host name"),
        ("tcp.firewall.1", '{"address":"1.2.3.4"}', "no address with its mask"),
        ("tcp.firewall.1", '{"address":"1.2.3","mask":"1.2.3.4"}', "1.2.3"),
        ("tcp.users.1", '{"name":"","password":"secret1"}', "no name with its password"),
        ("tcp.users.1", '{"name":"a","password":"secret1","x":1}', "no name with its password"),
        ("tcp.users.1", "7", "no name with its password"),
        ("monitor.event.RING", "{}", "all that belongs"),
        ("monitor.event.RING", "null", "all that belongs"),
        ("monitor.event.RING", json.dumps({**EVENT, "on": 1}), "neither true nor false"),
        ("monitor.event.RING", json.dumps({**EVENT, "door": 1}), "a text or a flag"),
        ("monitor.event.RING", json.dumps({**EVENT, "forgeable": 1}), "a text or a flag"),
        ("monitor.event.RING", json.dumps({**EVENT, "command": "rm"}), "can't be run"),
        ("monitor.event.RING", json.dumps({**EVENT, "parameters": [0]}), "out of range"),
        ("monitor.event.RING", json.dumps({**EVENT, "parameters": {}}), "out of range"),
        ("instance.1.profile0", '{"E":[7]}', "'E'"),
    ],
)
def test_a_bad_value_is_refused_by_name_and_the_base_stays(key: str, text: str, wrong: str) -> None:
    settings, (error,) = from_rows({key: text}, FULL)
    assert settings == FULL
    assert error.key == key
    assert str(error).startswith(f"{key}: ")
    assert wrong in str(error)


@pytest.mark.parametrize("secret", ["secret word 1234", "1234567890123456"])
@pytest.mark.parametrize(
    "shape", ['{{"password":"{}", "x":1}}', '{{"name":"a","password":"{}","x":1}}', '"{}', '["{}"]']
)
@pytest.mark.parametrize("key", ["sms.whitelist.1", "tcp.users.1", "monitor.event.RING"])
def test_no_error_shows_a_value(key: str, shape: str, secret: str) -> None:
    with pytest.raises(SettingError) as refused:
        load(key, shape.format(secret))
    assert secret not in str(refused.value)
    assert refused.value.__cause__ is None


def test_a_third_password_is_left_out() -> None:
    base = Settings().changed({f"sms.whitelist.{n}": Secret(str(n) * 16) for n in (1, 2)})
    settings, (error,) = from_rows({"sms.whitelist.3": '{"password":"3333333333333333"}'}, base)
    assert settings == base
    assert error.key == "sms.whitelist.3"


def test_a_login_by_the_same_name_is_left_out() -> None:
    base = Settings().changed({"tcp.users.1": Login("anna", Secret("1"))})
    settings, (error,) = from_rows({"tcp.users.2": '{"name":"anna","password":"2"}'}, base)
    assert settings == base
    assert error.key == "tcp.users.2"


@pytest.mark.parametrize(
    ("base", "rows", "left_off"),
    [
        ({"tcp.enabled": True}, {"tcp.client.enabled": "true"}, "tcp.enabled"),
        ({"tcp.client.enabled": True}, {"tcp.enabled": "true"}, "tcp.client.enabled"),
        ({}, {"tcp.enabled": "true", "tcp.client.enabled": "true"}, "tcp.client.enabled"),
    ],
)
def test_of_server_and_client_what_a_command_set_counts(
    base: dict[str, bool], rows: dict[str, str], left_off: str
) -> None:
    settings, (error,) = from_rows(rows, Settings().changed(base))
    assert error.key == left_off
    assert settings.value(left_off) is False
    assert settings.tcp.enabled is not settings.tcp.client.enabled


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("sms.enabled", "true"),
        ("sms.whitelist.1", '{"number":"+39*"}'),
        ("sms.whitelist.2", "null"),
        ("sms.whitelist.8", '{"password":"****"}'),
        ("tcp.users.1", "null"),
        ("tcp.users.3", '{"name":"Anna \u00e9","password":"****"}'),
    ],
)
def test_a_setting_is_shown_without_its_secrets(key: str, text: str) -> None:
    assert shown(FULL, key) == text


def test_a_stored_command_is_shown_without_its_secrets() -> None:
    settings = FULL.changed({"monitor.event.RING": Event(True, "AT+CPIN=9876", (1,))})
    assert json.loads(shown(settings, "monitor.event.RING"))["command"] == "AT+CPIN=****"


def test_what_is_secret_is_marked() -> None:
    assert {key.rpartition(".")[0] for key, kind in KEYS.items() if kind.secret} == {
        "sms.whitelist", "tcp.users", "monitor.event",
    }  # fmt: skip


@pytest.mark.parametrize("key", KEYS)
def test_every_setting_can_be_shown(key: str) -> None:
    assert "1234567890123456" not in shown(FULL, key)


@pytest.mark.parametrize("label", EVENTS)
def test_every_event_has_a_setting(label: str) -> None:
    assert load(f"monitor.event.{label}", dump(FULL, f"monitor.event.{label}")) == FULL.monitor.event[label]
    assert Settings().monitor.event[label] == default_event(label)
