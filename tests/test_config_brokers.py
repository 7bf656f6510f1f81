# SPDX-License-Identifier: Apache-2.0
"""What the file says of brokers and of how they are called."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from atrund import config, making
from atrund.atrun.secrets import Secret
from atrund.broker import Place
from atrund.config import Config, ConfigError
from atrund.config.following import follow
from tests.support.certificates import Authority

HEAD = 'node = "n"\n[mqtt]\nenabled = true\n'


def load(folder: Path, text: str) -> Config:
    path = folder / "atrund.toml"
    path.write_text(text)
    return config.load(path, hostname="box", machine_id=None, environ={})


def secret(folder: Path, name: str, content: str) -> None:
    (folder / name).write_text(content)
    (folder / name).chmod(0o600)


def test_what_the_file_says_is_in_force(tmp_path: Path) -> None:
    secret(tmp_path, "user", "gate 17\n")
    secret(tmp_path, "word", "geheim\n")
    text = """host = "a.example"
port = 8883
fallbacks = [{host = "b.example", port = 8883}, {host = "a.example", port = 443, alpn = "mqtt", server_name = "c"}]
return_after = "2h"
user_file = "user"
password_file = "word"
tls = true
server_name = "a"
alpn = "x-amzn-mqtt-ca"
spread = "2m"
reconnect_max = "10m"
"""
    settings = making.broker_settings(load(tmp_path, HEAD + text).mqtt)
    assert settings.fallbacks == (Place("b.example", 8883), Place("a.example", 443, "c", "mqtt"))
    assert [each.name for each in settings.each()] == ["a.example:8883", "b.example:8883", "a.example:443"]
    assert [each.alpn for each in settings.each()] == ["x-amzn-mqtt-ca", "", "mqtt"]
    assert (settings.user, settings.password) == ("gate 17", "geheim")
    assert (settings.return_after, settings.spread, settings.reconnect_max) == (7200, 120, 600)
    assert "geheim" not in repr(settings)


def test_the_defaults_are_one_broker_and_a_moment_between_devices(tmp_path: Path) -> None:
    settings = making.broker_settings(load(tmp_path, HEAD).mqtt)
    assert len(settings.each()) == 1
    assert (settings.spread, settings.reconnect_max, settings.return_after) == (5, 60, 3600)
    assert (settings.user, settings.alpn, settings.server_name) == ("", "", "")


@pytest.mark.parametrize(
    "host", ["b.example", "b.example.", "my_broker", "192.0.2.1", "2001:db8::1", "fe80::1%eth0", "b" * 63 + ".example"]
)
def test_what_a_host_may_be(tmp_path: Path, host: str) -> None:
    assert load(tmp_path, HEAD + f'host = "{host}"\ninsecure = true').mqtt.host == host


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('fallbacks = [{host = "localhost"}]', "mqtt.fallbacks[0].port: is missing; mqtt.fallbacks[0] needs port"),
        ("fallbacks = [{port = 1}]", "mqtt.fallbacks[0].host: is missing; mqtt.fallbacks[0] needs host"),
        (
            'fallbacks = [{host = "localhost", port = 1, user = "u"}]',
            "mqtt.fallbacks[0].user: unknown key; known here: alpn, host, port, server_name",
        ),
        (
            'fallbacks = [{host = "localhost", port = 1883}]',
            'mqtt.fallbacks[0]: "localhost", port 1883, stands there twice; each broker once; mqtt.host is the first',
        ),
        (
            'fallbacks = [{host = "b", port = 1}]',
            'mqtt.fallbacks[0].host: clear text to "b" can be read on the way; mqtt.tls = true, a broker on localhost',
        ),
        (
            'fallbacks = [{host = "localhost", port = 1, alpn = "mqtt"}]',
            "mqtt.fallbacks[0]: has server_name or alpn while mqtt.tls is false; mqtt.tls = true",
        ),
        (
            "fallbacks = [" + ", ".join(f'{{host = "::1", port = {n}}}' for n in range(1, 6)) + "]",
            "mqtt.fallbacks: has 5 entries; a list of at most 4 brokers",
        ),
        ('alpn = "mqtt"', "mqtt.alpn: is set while mqtt.tls is false; mqtt.tls = true"),
        ('server_name = "b"', "mqtt.server_name: is set while mqtt.tls is false; mqtt.tls = true"),
        ('alpn = "two words"', 'mqtt.alpn: "two words" is not allowed; an application protocol as "mqtt", at most 255'),
        ('server_name = "b/c"', 'mqtt.server_name: "b/c" is not allowed; a host name or address, or "" for the host'),
        ('server_name = "b..c"', 'mqtt.server_name: "b..c" is not allowed; a host name or address, or "" for the host'),
        ('host = "b..c"', 'mqtt.host: "b..c" is not allowed; a host name or address'),
        ('host = ".b"', 'mqtt.host: ".b" is not allowed; a host name or address'),
        (f'host = "{"b" * 64}"', f'mqtt.host: "{"b" * 40}'),
        ('host = "2001:db8::1%"', 'mqtt.host: "2001:db8::1%" is not allowed; a host name or address'),
        ('user = "u"\nuser_file = "user"', "mqtt.user_file: is set, and mqtt.user as well; one of them"),
        ('user_file = "twolines"', "mqtt.user_file: the file's content doesn't fit; 1 to 256 characters on one line"),
        ('return_after = "10s"', 'mqtt.return_after: "10s" is out of range; seconds or a string such as'),
        ('spread = "2h"', 'mqtt.spread: "2h" is out of range; seconds or a string such as'),
        ('reconnect_max = "1s"', 'mqtt.reconnect_max: "1s" is out of range; seconds or a string such as'),
    ],
)
def test_a_mistake_names_its_key_and_what_would_be_right(tmp_path: Path, text: str, said: str) -> None:
    secret(tmp_path, "user", "u")
    secret(tmp_path, "twolines", "u\nv")
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, HEAD + text)
    (mistake,) = map(str, caught.value.mistakes)
    assert mistake.startswith(said)


def test_clear_text_to_a_fallback_is_warned_of(tmp_path: Path) -> None:
    loaded = load(tmp_path, HEAD + 'insecure = true\nfallbacks = [{host = "b", port = 1}]')
    assert any(warning.startswith("mqtt.insecure: ") for warning in config.warnings(loaded))


def test_a_certificate_that_ends_soon_is_warned_of(tmp_path: Path) -> None:
    authority = Authority(tmp_path)

    def warned(days: int) -> list[str]:
        pair = authority.issue("own", days=days)
        text = f'tls = true\ncert_file = "{pair.certificate}"\nkey_file = "{pair.key}"'
        return [one for one in config.warnings(load(tmp_path, HEAD + text)) if one.startswith("mqtt.")]

    assert warned(20) == []
    assert re.fullmatch(r"mqtt.cert_file: expires on \d{4}-\d\d-\d\d", warned(10)[0])
    assert "has expired on" in warned(-1)[0]
    (tmp_path / "own.pem").write_text("nonsense")
    text = f'tls = true\ncert_file = "{tmp_path}/own.pem"\nkey_file = "{tmp_path}/own.key"'
    found = config.warnings(load(tmp_path, HEAD + text))
    assert f"mqtt.cert_file: {tmp_path}/own.pem: there is no certificate in it, so no connection can be made" in found


def test_files_that_no_connection_can_be_made_with_are_warned_of(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    one, other = authority.issue("one"), authority.issue("other")

    def warned(ca: Path, key: Path) -> list[str]:
        text = f'tls = true\nca_file = "{ca}"\ncert_file = "{one.certificate}"\nkey_file = "{key}"'
        return [found for found in config.warnings(load(tmp_path, HEAD + text)) if found.startswith("mqtt.")]

    assert warned(one.certificate, one.key) == []
    end = ", so no connection can be made"
    assert warned(one.certificate, other.key) == [f"mqtt.key_file: {other.key} does not fit the certificate{end}"]
    assert warned(one.key, one.key) == [f"mqtt.ca_file: there is no certificate in {one.key}{end}"]


def test_what_is_shown_to_the_broker_is_followed_unless_it_is_for_another(tmp_path: Path) -> None:
    before = load(tmp_path, HEAD + 'user = "u"')
    renewed = replace(before, mqtt=replace(before.mqtt, user="v", password=Secret("w"), keepalive=60.0))
    change = follow(before, renewed)
    assert (change.followed, change.waiting) == (("mqtt.user", "mqtt.password_file", "mqtt.keepalive"), ())
    moved = replace(renewed, mqtt=replace(renewed.mqtt, host="b.example"))
    change = follow(before, moved)
    assert (change.followed, change.waiting) == (
        ("mqtt.keepalive",),
        ("mqtt.host", "mqtt.user", "mqtt.password_file"),
    )
    assert change.config.mqtt.user == "u"
