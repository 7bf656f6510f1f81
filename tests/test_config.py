# SPDX-License-Identifier: Apache-2.0
"""The configuration file: what it gives, and that every mistake is named with its key and what would be right."""

import os
import re
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address
from itertools import pairwise
from pathlib import Path

import pytest
import tomli
from hypothesis import given
from hypothesis import strategies as st

from atrund import config
from atrund.atrun.secrets import Secret
from atrund.config import Config, ConfigError, FirewallRule, Mistake
from atrund.config.kinds import span
from atrund.config.reader import Place, read_table
from atrund.module.turns import WEIGHT_MAX

EXAMPLE = Path(__file__).parents[1] / "etc" / "atrund.toml"
MACHINE_ID = "0123456789abcdef0123456789abcdef\n"

Load = Callable[..., Config]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Loads a configuration from its text."""

    def from_text(text: str | bytes, machine_id: str | None = MACHINE_ID, **environ: str) -> Config:
        path = tmp_path / "atrund.toml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return config.load(path, hostname="gate way", machine_id=machine_id, environ=environ)

    return from_text


@pytest.fixture
def wrong(load: Load) -> Callable[..., list[str]]:
    """The mistakes in a text, as they are printed, without the file's name."""

    def mistakes(text: str | bytes, machine_id: str | None = MACHINE_ID, **environ: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            load(text, machine_id, **environ)
        return [str(mistake) for mistake in caught.value.mistakes]

    return mistakes


def secret_file(folder: Path, name: str, content: str | bytes, mode: int = 0o600) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(mode)
    return path


# The shipped file


def commented_defaults() -> str:
    """The shipped file with every commented default taken in."""
    return re.sub(r"(?m)^#(?=[a-z])", "", EXAMPLE.read_text())


def names(table: dict[str, object], prefix: str = "") -> Iterator[str]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from names(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def test_the_shipped_file_is_the_default(load: Load) -> None:
    assert load(EXAMPLE.read_bytes()) == load("")


def test_the_shipped_file_shows_every_option_with_its_default_and_no_other(load: Load) -> None:
    text = commented_defaults()
    assert load(text) == load("")
    assert sorted(names(tomli.loads(text))) == sorted(config.keys(Config))


def test_every_option_of_the_shipped_file_has_a_comment() -> None:
    lines = EXAMPLE.read_text().splitlines()
    for above, line in pairwise(lines):
        if re.match(r"#[a-z]", line):
            assert above.startswith("#"), line


def test_the_example_at_its_top_loads(load: Load, tmp_path: Path) -> None:
    secret_file(tmp_path, "tcp-operator", "secret\n")
    secret_file(tmp_path, "mqtt-password", "secret\n")
    example = "\n".join(line[4:] for line in EXAMPLE.read_text().splitlines() if line.startswith("#   "))
    loaded = load(example)
    assert (loaded.sms.enabled, loaded.tcp.enabled, loaded.mqtt.tls) == (True, True, True)
    assert config.warnings(loaded) == []


# Values


def test_nothing_is_on_by_default(load: Load) -> None:
    loaded = load("")
    for switch in (loaded.sms.enabled, loaded.tcp.enabled, loaded.mqtt.enabled, loaded.mqtt.remote_at):
        assert not switch
    assert loaded.tcp.listen == (IPv4Address("127.0.0.1"),)
    assert loaded.module.shared


def test_the_default_node_is_made_of_host_name_and_machine_id(load: Load) -> None:
    loaded = load("")
    assert re.fullmatch(r"gate-way-[0-9a-f]{8}", loaded.node)
    assert loaded.mqtt.client_id == f"atrund-{loaded.node}"
    assert load("", machine_id="f" * 32).node != loaded.node
    assert load("", machine_id=MACHINE_ID.strip()).node == loaded.node
    assert "01234567" not in loaded.node


def test_the_machine_id_is_made_the_applications_own_as_systemd_does() -> None:
    """The digest is that of `openssl mac -digest SHA256 -macopt hexkey:0123… HMAC` over the application's id."""
    own = config._app_specific(MACHINE_ID)
    assert own is not None
    assert own[:4].hex() == "81c4c0a7"
    assert (own[6] >> 4, own[8] >> 6) == (4, 2)


def test_without_a_machine_id_the_mqtt_door_wants_a_name(load: Load, wrong: Callable[..., list[str]]) -> None:
    for machine_id in (None, "", "uninitialized\n"):
        assert load("", machine_id).node == "gate-way"
        assert wrong("[mqtt]\nenabled = true", machine_id) == [
            "node: has no default, for this machine has no machine id; a name of its own"
        ]
        assert load('node = "n1"\n[mqtt]\nenabled = true', machine_id).node == "n1"


def test_a_client_id_of_ones_own_stays(load: Load) -> None:
    assert load('[mqtt]\nclient_id = "x"').mqtt.client_id == "x"
    assert load('node = "n"\n[mqtt]\nprefix = "a/b"').mqtt.client_id == "a-b-n"


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("90", 90.0), ("90.5", 90.5), ('"90s"', 90.0), ('"1.5m"', 90.0), ('"10m"', 600.0), ('"1h"', 3600.0)],
)
def test_durations(load: Load, written: str, seconds: float) -> None:
    assert load(f"[sms]\ntimeout = {written}").sms.timeout == seconds


def test_zero_where_it_means_none(load: Load) -> None:
    loaded = load("[tcp]\nidle_timeout = 0\n[sms]\nmax_age = 0")
    assert (loaded.tcp.idle_timeout, loaded.sms.max_age) == (0, 0)


@given(st.integers(1, 10**7))
def test_a_span_is_told_in_a_unit_that_fits(seconds: int) -> None:
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    told = span(seconds)
    assert int(told[:-1]) * units[told[-1]] == seconds


def test_sizes(load: Load) -> None:
    assert load('[mqtt]\nspool_bytes = "1MiB"').mqtt.spool_bytes == 1024**2
    assert load("[mqtt]\nspool_bytes = 65536").mqtt.spool_bytes == 65536


def test_the_control_socket(load: Load) -> None:
    assert load("").local.socket == Path("/run/atrund.sock")
    assert load('[local]\nsocket = ""').local.socket is None
    assert load('[local]\nmode = "0600"').local.mode == 0o600


def test_firewall_rules_of_both_forms(load: Load) -> None:
    loaded = load(
        '[tcp]\nfirewall = ["217.0.0.0/8", "10.0.0.7", "2001:db8::/32", '
        '{address = "192.168.1.9", mask = "255.0.0.255"}]'
    )
    assert loaded.tcp.firewall == (
        FirewallRule(IPv4Address("217.0.0.0"), IPv4Address("255.0.0.0")),
        FirewallRule(IPv4Address("10.0.0.7"), IPv4Address("255.255.255.255")),
        FirewallRule(IPv6Address("2001:db8::"), IPv6Address("ffff:ffff::")),
        FirewallRule(IPv4Address("192.168.1.9"), IPv4Address("255.0.0.255")),
    )


# Secrets


def test_secrets_come_from_files_and_are_never_shown(load: Load, tmp_path: Path) -> None:
    secret_file(tmp_path, "sms", "1234567890123456\n")
    secret_file(tmp_path, "tcp", "testpassw\r\n", 0o640)
    secret_file(tmp_path, "mqtt", "hunter2")
    loaded = load(
        '[sms]\npassword_files = ["sms"]\n[tcp]\nusers = [{name = "testuser", password_file = "tcp"}]\n'
        '[mqtt]\nuser = "u"\npassword_file = "mqtt"'
    )
    assert loaded.sms.passwords == (Secret("1234567890123456"),)
    assert loaded.tcp.users[0].password.reveal() == "testpassw"
    assert loaded.mqtt.password is not None
    assert loaded.mqtt.password.reveal() == "hunter2"
    for shown in ("1234567890123456", "testpassw", "hunter2"):
        assert shown not in repr(loaded)


def test_credentials_go_before_the_files_folder(load: Load, tmp_path: Path) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    secret_file(credentials, "one", "credential")
    secret_file(tmp_path, "one", "beside")
    secret_file(tmp_path, "two", "beside")
    text = '[mqtt]\nuser = "u"\npassword_file = "{}"'
    environ = {"CREDENTIALS_DIRECTORY": str(credentials)}
    assert load(text.format("one"), **environ).mqtt.password == Secret("credential")
    assert load(text.format("two"), **environ).mqtt.password == Secret("beside")
    assert load(text.format("one")).mqtt.password == Secret("beside")
    assert load(text.format(credentials / "one")).mqtt.password == Secret("credential")
    assert load(text.format("")).mqtt.password is None


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        ("123456789012345", 0o600, "the file's content doesn't fit; exactly 16 printable ASCII characters"),
        ("12345678901234567", 0o600, "the file's content doesn't fit"),
        ("123456789012345\t", 0o600, "the file's content doesn't fit"),
        ("1234567890123456\n\n", 0o600, "the file's content doesn't fit"),
        ("123456789012345é", 0o600, "the file's content doesn't fit"),
        (b"123456789012345\xff", 0o600, "the file's content is not UTF-8"),
        ("1" * 4097, 0o600, "the file is too long"),
        ("1234567890123456", 0o644, "everybody can read the file; chmod o-rwx it"),
    ],
)
def test_a_secret_file_that_cant_be_used(
    wrong: Callable[..., list[str]], tmp_path: Path, content: str | bytes, mode: int, said: str
) -> None:
    secret_file(tmp_path, "sms", content, mode)
    mistakes = wrong('[sms]\npassword_files = ["sms"]')
    assert len(mistakes) == 1
    assert mistakes[0].startswith(f"sms.password_files[0]: {said}")
    assert "12345" not in mistakes[0]


def test_a_password_in_the_place_of_a_path_is_not_shown(wrong: Callable[..., list[str]], tmp_path: Path) -> None:
    (mistake,) = wrong('[mqtt]\nuser = "u"\npassword_file = "hunter2"')
    assert mistake.startswith(f"mqtt.password_file: no such file in {tmp_path}; ")
    assert "hunter2" not in mistake
    assert wrong('[mqtt]\npassword = "hunter2"') == ["mqtt.password: unknown key; did you mean mqtt.password_file?"]


def test_files_that_are_none(wrong: Callable[..., list[str]], tmp_path: Path) -> None:
    assert wrong(f'[mqtt]\ntls = true\nca_file = "{tmp_path}"') == [
        f'mqtt.ca_file: "{tmp_path}" is no file; the path of a readable file'
    ]
    assert wrong(r"[sms]" + '\npassword_files = [""]') == [
        "sms.password_files[0]: is no path; the path of a file that holds the secret and nothing else"
    ]


def test_a_file_that_cant_be_read(
    wrong: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret_file(tmp_path, "mqtt", "hunter2")

    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", refuse)
    assert wrong('[mqtt]\nuser = "u"\npassword_file = "mqtt"')[0].startswith(
        "mqtt.password_file: the file can't be read: Permission denied; chgrp atrund and chmod 640 it"
    )


def test_certificate_and_key(load: Load, wrong: Callable[..., list[str]], tmp_path: Path) -> None:
    certificate = secret_file(tmp_path, "c.pem", "", 0o644)
    key = secret_file(tmp_path, "k.pem", "", 0o600)
    loaded = load('[mqtt]\ntls = true\ncert_file = "c.pem"\nkey_file = "k.pem"')
    assert (loaded.mqtt.cert_file, loaded.mqtt.key_file, loaded.mqtt.ca_file) == (certificate, key, None)
    assert wrong('[mqtt]\ntls = true\ncert_file = "c.pem"') == [
        "mqtt.cert_file: is set without mqtt.key_file; set both or neither"
    ]
    assert wrong('[mqtt]\ntls = true\nkey_file = "k.pem"') == [
        "mqtt.key_file: is set without mqtt.cert_file; set both or neither"
    ]
    assert wrong('[mqtt]\nca_file = "c.pem"') == ["mqtt.ca_file: is set while mqtt.tls is false; mqtt.tls = true"]
    key.chmod(0o604)
    assert wrong('[mqtt]\ntls = true\ncert_file = "c.pem"\nkey_file = "k.pem"') == [
        "mqtt.key_file: everybody can read the file; chmod o-rwx it"
    ]


# Mistakes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[tcp]\nport = 70000", "tcp.port: 70000 is out of range; a port from 1 to 65535"),
        ("[tcp]\nport = true", "tcp.port: true is a boolean; a port from 1 to 65535"),
        ("[tcp]\nport = '1024'", 'tcp.port: "1024" is a string; a port from 1 to 65535'),
        ("[tcp]\nport = []", "tcp.port: is a list; a port from 1 to 65535"),
        ("[tcp]\nport = 1979-05-27", "tcp.port: is a date or time; a port from 1 to 65535"),
        ("[tcp]\nprot = 1", "tcp.prot: unknown key; did you mean tcp.port?"),
        ("[tpc]", "tpc: unknown key; did you mean tcp?"),
        ("baudrate = 9600", "baudrate: unknown key; did you mean module.baudrate?"),
        ("port = 1", "port: unknown key; did you mean module.port or tcp.port or tcp.client.port or mqtt.port?"),
        ("[log]\nxyz = 1", "log.xyz: unknown key; known here: audit_chain, format, level"),
        ("[xyzzy]", "xyzzy: unknown key; known here: "),
        ('"\\u0007" = 1', "\\x07: unknown key; known here: "),
        ("tcp = 1", "tcp: 1 is a number; a table of options"),
        ("[module]\nport = 'ttyUSB0'", "module.port: 'ttyUSB0' is no port's name; did you mean /dev/ttyUSB0?"),
        ("[queue]\ndepth = 0", "queue.depth: 0 is out of range; a whole number from 1 to 1000"),
        ("[queue]\nmax_wait = '10'", 'queue.max_wait: "10" is no duration; seconds or a string such as "90s"'),
        ("[queue]\nmax_wait = nan", "queue.max_wait: nan is out of range; seconds"),
        ("[queue]\nmax_wait = []", "queue.max_wait: is a list; seconds"),
        (
            "[queue]\nmax_wait = 0",
            'queue.max_wait: 0 is out of range; seconds or a string such as "90s", "10m", "24h", ',
        ),
        ("[sms]\ntimeout = '59s'", 'sms.timeout: "59s" is out of range; seconds'),
        ("[sms]\nnumbers = ['*']", 'sms.numbers[0]: "*" is not allowed; digits, with an optional "+"'),
        ("[sms]\nnumbers = ['+*']", 'sms.numbers[0]: "+*" is not allowed'),
        ("[sms]\nnumbers = ['+1', '+1']", "sms.numbers[1]: stands in the list twice; each entry once"),
        ("[sms]\nnumbers = ['+1\\n']", 'sms.numbers[0]: "+1\\n" is not allowed'),
        ("[sms]\nucs2 = 'no'", 'sms.ucs2: "no" is unknown; one of "convert", "vendor"'),
        ("[sms]\nenabled = 'yes'", 'sms.enabled: "yes" is a string; true or false'),
        ("[tcp]\nlisten = []", "tcp.listen: is empty; at least 1 of them"),
        ("[tcp]\nlisten = ['localhost']", 'tcp.listen[0]: "localhost" is no address; an IPv4 or IPv6 address'),
        ("[tcp]\nfirewall = ['10.0.0.1/8']", 'tcp.firewall[0]: "10.0.0.1/8" is no network; did you mean "10.0.0.0/8'),
        ("[tcp]\nfirewall = ['2001:db8::1/32']", 'tcp.firewall[0]: "2001:db8::1/32" is no network; did you mean'),
        ("[tcp]\nfirewall = ['10.0.0/8']", 'tcp.firewall[0]: "10.0.0/8" is no network; a network such as'),
        ("[tcp]\nfirewall = [{address = '::1', mask = '::'}]", "tcp.firewall[0]: address and mask are for IPv4; for "),
        ("[tcp]\nfirewall = [{address = '1.1.1.1'}]", "tcp.firewall[0].mask: is missing; tcp.firewall[0] needs mask"),
        ("[tcp]\nusers = [{name = '', password_file = ''}]", 'tcp.users[0].name: "" is not allowed; a name of 1 to 50'),
        ("[mqtt]\nprefix = 'a/#'", 'mqtt.prefix: "a/#" is not allowed; topic levels as'),
        ("[mqtt]\nprefix = '$SYS'", 'mqtt.prefix: "$SYS" is not allowed'),
        ("[mqtt]\nprefix = '/a'", 'mqtt.prefix: "/a" is not allowed'),
        ("[mqtt]\nreply_prefixes = ['a']", 'mqtt.reply_prefixes[0]: "a" is not allowed; a topic prefix that ends'),
        ("[mqtt]\nmetrics = '5s'", 'mqtt.metrics: "5s" is out of range; seconds or a string'),
        ("[mqtt.homeassistant]\nprefix = 'ha/'", 'mqtt.homeassistant.prefix: "ha/" is not allowed; topic levels as'),
        (
            "[mqtt.homeassistant]\nprefx = 'ha'",
            "mqtt.homeassistant.prefx: unknown key; did you mean mqtt.homeassistant",
        ),
        ("[mqtt]\nspool_bytes = '32MB'", 'mqtt.spool_bytes: "32MB" is no size; bytes or a string such as'),
        ("[mqtt]\nspool_bytes = 1", "mqtt.spool_bytes: 1 is out of range; bytes"),
        ("[mqtt]\nspool = 'ram'", 'mqtt.spool: "ram" is unknown; one of "disk", "memory"'),
        ("[local]\nsocket = 'x'", 'local.socket: "x" is none; an absolute path'),
        (f"[local]\nsocket = '/{'x' * 107}'", "local.socket: has 108 bytes; an absolute path of at most 107 bytes"),
        ("[local]\nmode = '9'", 'local.mode: "9" is no file mode; a file mode in octal, as a string: "0660"'),
        ("[local]\nmode = 0o660", "local.mode: 432 is a number; a file mode in octal"),
        (f"node = '{'x' * 65}'", f'node: "{"x" * 56}... is not allowed; 1 to 64 of the characters'),
        ("node = 'a/b'", 'node: "a/b" is not allowed'),
    ],
)
def test_a_mistake_names_its_key_and_what_would_be_right(wrong: Callable[..., list[str]], text: str, said: str) -> None:
    mistakes = wrong(text)
    assert mistakes[0].startswith(said)


def test_all_mistakes_are_told_at_once(load: Load, tmp_path: Path) -> None:
    text = '[tcp]\nport = 70000\nprot = 1\nusers = [{}]\n[sms]\nnumbers = ["*", 5, "+1"]\n[queue]\ndepth = 0'
    with pytest.raises(ConfigError) as caught:
        load(text)
    keys = [mistake.key for mistake in caught.value.mistakes]
    assert sorted(keys) == [
        "queue.depth",
        "sms.numbers[0]",
        "sms.numbers[1]",
        "tcp.port",
        "tcp.prot",
        "tcp.users[0].name",
        "tcp.users[0].password_file",
    ]
    assert f"{tmp_path}/atrund.toml: tcp.port: 70000 is out of range; a port from 1 to 65535" in str(caught.value)
    assert config.report(caught.value).splitlines()[-1] == "7 mistakes"


def test_one_mistake_is_counted_as_one(load: Load) -> None:
    with pytest.raises(ConfigError) as caught:
        load("x = 1")
    assert config.report(caught.value).splitlines()[-1] == "1 mistake"
    assert isinstance(caught.value.mistakes[0], Mistake)


def test_tcp_13_clear_text_off_loopback_is_refused(load: Load, wrong: Callable[..., list[str]]) -> None:
    (mistake,) = wrong('[tcp]\nlisten = ["127.0.0.1", "0.0.0.0"]')
    said, right = mistake.split("; ")
    assert said == "tcp.listen: clear text on 0.0.0.0 can be read on the way"
    assert right == "[tcp.tls], 127.0.0.1 or ::1, the interface in tcp.trusted_interfaces, or tcp.insecure = true"
    for allowed in ("insecure = true", 'trusted_interfaces = ["wg0"]'):
        assert load(f'[tcp]\nlisten = ["0.0.0.0"]\n{allowed}').tcp.listen == (IPv4Address("0.0.0.0"),)  # noqa: S104
    assert load('[tcp]\nlisten = ["127.0.0.2", "::1", "::ffff:127.0.0.1"]').tcp.port == 1024


def test_mq_1_clear_text_off_loopback_is_refused(load: Load, wrong: Callable[..., list[str]]) -> None:
    text = '[mqtt]\nenabled = true\nhost = "{}"\n'
    (mistake,) = wrong(text.format("broker.example"))
    said, right = mistake.split("; ")
    assert said == 'mqtt.host: clear text to "broker.example" can be read on the way'
    assert right == "mqtt.tls = true, a broker on localhost, or mqtt.insecure = true"
    for host in ("localhost", "LOCALHOST", "127.0.0.9", "::1"):
        assert load(text.format(host)).mqtt.host == host
    for allowed in ("insecure = true", "tls = true"):
        assert load(text.format("broker.example") + allowed).mqtt.enabled


def test_sms_10_numbers_and_passwords_share_eight_places(
    load: Load, wrong: Callable[..., list[str]], tmp_path: Path
) -> None:
    secret_file(tmp_path, "a", "1234567890123456")
    numbers = ", ".join(f'"+39{n}"' for n in range(8))
    assert len(load(f"[sms]\nnumbers = [{numbers}]").sms.numbers) == 8
    assert wrong(f'[sms]\nnumbers = [{numbers}]\npassword_files = ["a"]') == [
        "sms.numbers: 9 entries together with sms.password_files; at most 8 together"
    ]
    assert wrong(f'[sms]\nnumbers = [{numbers}, "+1"]') == ["sms.numbers: has 9 entries; a list of at most 8 numbers"]
    assert wrong('[sms]\npassword_files = ["a", "b", "c"]') == [
        "sms.password_files: has 3 entries; a list of at most 2 files"
    ]


def test_tcp_2_the_firewall_has_five_places_for_ipv4_and_sixteen_for_ipv6(
    load: Load, wrong: Callable[..., list[str]]
) -> None:
    four = [f'"10.0.0.{n}"' for n in range(6)]
    six = [f'"2001:db8::{n}"' for n in range(17)]
    assert len(load(f"[tcp]\nfirewall = [{', '.join(four[:5] + six[:16])}]").tcp.firewall) == 21
    assert wrong(f"[tcp]\nfirewall = [{', '.join(four)}]") == ["tcp.firewall: has 6 rules for IPv4; at most 5"]
    assert wrong(f"[tcp]\nfirewall = [{', '.join(six)}]") == ["tcp.firewall: has 17 rules for IPv6; at most 16"]


def test_logins_are_three_with_names_of_their_own(wrong: Callable[..., list[str]], tmp_path: Path) -> None:
    secret_file(tmp_path, "a", "a")
    secret_file(tmp_path, "b", "b")
    secret_file(tmp_path, "long", "x" * 51)
    assert wrong('[tcp]\nusers = [{name = "u", password_file = "a"}, {name = "u", password_file = "b"}]') == [
        'tcp.users: "u" stands in the list twice; each name once'
    ]
    assert wrong('[tcp]\nusers = [{name = "u", password_file = "long"}]') == [
        "tcp.users[0].password_file: the file's content doesn't fit; 1 to 50 printable characters"
    ]
    assert wrong('[tcp]\nusers = [{name = "u", password_file = "a", x = 1}]') == [
        "tcp.users[0].x: unknown key; known here: name, password_file"
    ]


def test_an_mqtt_password_needs_a_user(wrong: Callable[..., list[str]], tmp_path: Path) -> None:
    secret_file(tmp_path, "a", "a")
    secret_file(tmp_path, "empty", "\n")
    assert wrong('[mqtt]\npassword_file = "a"') == [
        "mqtt.password_file: a password without a user; set mqtt.user as well, or mqtt.user_file"
    ]
    assert wrong('[mqtt]\nuser = "u"\npassword_file = "empty"') == [
        "mqtt.password_file: the file's content doesn't fit; a password that is not empty"
    ]


def test_what_is_published_needs_a_broker(load: Load, wrong: Callable[..., list[str]]) -> None:
    assert wrong('[sms]\nothers = "publish"') == [
        'sms.others: "publish" while mqtt.enabled is false; mqtt.enabled = true, or "keep" or "delete"'
    ]
    assert load('[sms]\nothers = "publish"\n[mqtt]\nenabled = true').sms.others == "publish"
    assert load('[sms]\nothers = "delete"\nmake_room = "never"').sms.make_room == "never"
    assert load("").sms.others == "keep"
    assert load("").sms.make_room == "oldest"
    (other, room) = wrong('[sms]\nothers = "forward"\nmake_room = true')
    assert other == 'sms.others: "forward" is unknown; one of "keep", "publish", "delete"'
    assert room.startswith("sms.make_room: ")
    assert room.endswith('one of "oldest", "never"')


# The file itself


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[tcp]\nport = = 1", r"line 2, column 8: no TOML: invalid value; see https://toml.io .*"),
        ("[tcp]\n[tcp]\n", r"line 2, column \d+: no TOML: .*; see .*"),
        ("x = '", r"(line 1, column \d+|end of document): no TOML: .*; see .*"),
        (b"a = 1\nb = '\xff'", r"line 2: is not UTF-8; save the file as UTF-8"),
        ("x = " + "[" * 100_000, r"is nested too deep; plain tables, as in the example"),
        ("#" * (1024 * 1024 + 1), r"is too long; at most 1048576 bytes"),
    ],
)
def test_a_file_that_is_no_toml(wrong: Callable[..., list[str]], text: str | bytes, said: str) -> None:
    (mistake,) = wrong(text)
    assert re.fullmatch(said, mistake, re.DOTALL)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load(tmp_path / "none.toml", hostname="h", machine_id=None)
    assert str(caught.value) == (
        f"{tmp_path}/none.toml: No such file or directory; the path of a TOML file that can be read"
    )
    with pytest.raises(ConfigError, match="Is a directory"):
        config.load(tmp_path, hostname="h", machine_id=None)


@given(st.binary(max_size=200))
def test_random_bytes_give_a_configuration_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "random.toml"
    path.write_bytes(content)
    try:
        assert isinstance(config.load(path, hostname="h", machine_id=None, environ={}), Config)
    except ConfigError as error:
        assert error.mistakes


ANY = st.recursive(
    st.one_of(st.booleans(), st.integers(-(2**63), 2**63), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=5,
)


@given(st.sampled_from(sorted(config.keys(Config))), ANY)
def test_any_value_is_taken_or_refused_under_its_key(
    tmp_path_factory: pytest.TempPathFactory, key: str, value: object
) -> None:
    raw: object = value
    for name in reversed(key.split(".")):
        raw = {name: raw}
    folder = (tmp_path_factory.getbasetemp(),)
    _, mistakes = read_table(Config, raw, Place("", folder))
    for mistake in mistakes:
        assert mistake.key.startswith(key)
        assert str(mistake).isprintable()


# Warnings


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "module.port: no port is configured"),
        ("[sms]\nenabled = true", "sms.enabled: neither numbers nor password_files are set"),
        ("[sms]\nnumbers = ['+39*']", 'sms.numbers: "+39*" admits very many senders'),
        ("[sms]\nnumbers = ['393401234567']", 'sms.numbers: "393401234567" has no "+", '),
        ("[sms]\nenabled = true\nanswers_per_day = 0", "sms.answers_per_hour, sms.answers_per_day: with 0 no SMS"),
        ("[tcp]\nenabled = true", "tcp.users: is empty, so nobody can log in"),
        ("[tcp]\nenabled = true", "tcp.firewall: has no rule for IPv4, so no IPv4 peer is admitted"),
        ("[tcp]\nenabled = true\nlisten = ['::1']", "tcp.firewall: has no rule for IPv6"),
        ("[tcp]\nfirewall = ['0.0.0.0/0']", "tcp.firewall: a rule with an empty mask admits every peer"),
        ("[tcp]\nidle_timeout = 0", "tcp.idle_timeout: with 0 a peer that vanishes keeps its place"),
        ("[tcp]\nenabled = true\nport = 0", "tcp.port: with 0 the kernel chooses a port"),
        ("[mqtt]\nenabled = true\nhost = 'b'\ninsecure = true", "mqtt.insecure: commands, answers and the password"),
        (
            "[mqtt]\nenabled = true\nspool = 'memory'",
            'mqtt.spool_bytes: with mqtt.spool = "memory" events may take 48 MiB',
        ),
        (
            "[mqtt.homeassistant]\nenabled = true",
            "mqtt.homeassistant.enabled: does nothing while mqtt.enabled is false",
        ),
        ("[local]\nmode = '0666'", "local.mode: every user of this machine may run commands"),
    ],
)
def test_what_is_doubtful_is_warned_of(load: Load, text: str, said: str) -> None:
    warnings = config.warnings(load(text))
    assert [warning for warning in warnings if warning.startswith(said)]


@pytest.mark.parametrize(
    "text", ["spool = 'disk'", "spool = 'memory'\nspool_bytes = '8MiB'", "enabled = false\nspool = 'memory'"]
)
def test_a_spool_that_takes_little_memory_is_not(load: Load, text: str) -> None:
    given = text if "enabled" in text else f"enabled = true\n{text}"
    assert not [one for one in config.warnings(load(f"[mqtt]\n{given}")) if "spool" in one]


def test_the_configuration_is_hashable_and_frozen(load: Load) -> None:
    loaded = load("")
    assert hash(loaded) == hash(load(""))
    with pytest.raises(AttributeError):
        loaded.node = "x"  # type: ignore[misc]  # that it can't be is what is tested


def test_the_environment_is_asked_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "other").mkdir()
    secret_file(tmp_path, "mqtt", "hunter2")
    path = tmp_path / "other" / "atrund.toml"
    path.write_text('[mqtt]\nuser = "u"\npassword_file = "mqtt"')
    assert config.load(path, hostname="h", machine_id=None).mqtt.password == Secret("hunter2")


# The queue and the module's recovery


def test_weights_are_those_that_the_port_knows(load: Load, wrong: Callable[..., list[str]]) -> None:
    loaded = load(f"[queue.weights]\nsms = {WEIGHT_MAX}\n").queue.weights
    assert (loaded.sms, loaded.tcp, loaded.daemon) == (WEIGHT_MAX, 1, 1)
    assert load("[queue]\nweights = {mqtt = 2}\n").queue.weights.mqtt == 2
    right = f"a weight from 1 to {WEIGHT_MAX}"
    assert wrong(f"[queue.weights]\nsms = {WEIGHT_MAX + 1}\ntcp = 0\nlocal = true\n") == [
        f"queue.weights.sms: {WEIGHT_MAX + 1} is out of range; {right}",
        f"queue.weights.tcp: 0 is out of range; {right}",
        f"queue.weights.local: true is a boolean; {right}",
    ]


@pytest.mark.parametrize(
    ("shared", "reboot", "mistake"),
    [
        ("true", "unused", 'while recovery.reboot is "unused"; recovery.reboot = "always", for the module is shared'),
        ("true", "never", 'while recovery.reboot is "never"; recovery.reboot = "always", for the module is shared'),
        ("true", "always", ""),
        ("false", "unused", ""),
        ("false", "always", ""),
        ("false", "never", 'while recovery.reboot is "never"; recovery.reboot = "unused" or "always"'),
    ],
)
def test_a_reboot_at_the_deadline_needs_leave_to_reboot(
    load: Load, wrong: Callable[..., list[str]], shared: str, reboot: str, mistake: str
) -> None:
    text = f'[module]\nshared = {shared}\n[recovery]\ntimeout_action = "reboot"\nreboot = "{reboot}"\n'
    if mistake:
        (said,) = wrong(text)
        assert said.startswith(f'recovery.timeout_action: "reboot" {mistake}')
    else:
        assert load(text).recovery.timeout_action == "reboot"
    (said,) = wrong(text.replace('reboot = "', 'reboot = "x'))
    assert said.startswith("recovery.reboot: ")


def test_a_reboot_that_the_hours_limit_forbids_is_doubtful(load: Load) -> None:
    text = '[module]\nport = "/dev/ttyUSB2"\n[recovery]\ntimeout_action = "reboot"\nreboot = "always"\nper_hour = 0\n'
    assert config.warnings(load(text)) == [
        "recovery.per_hour: with 0 the module is never rebooted, whatever timeout_action says"
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '[module]\nport = "/dev/a"\ninstance_ports = [1, 2]',
            "instance_ports[1]: no port 2 is configured: there is port 1 alone; 0 to 1, or one more in module.extra_po",
        ),
        (
            '[module]\nport = "/dev/a"\nextra_ports = ["/dev/b"]\ninstance_ports = [4, 0, 2]',
            "module.instance_ports[0]: no port 4 is configured: there are 2; 0 to 2, or one more in module.extra_ports",
        ),
        (
            "[module]\ninstance_ports = [1]",
            "module.instance_ports[0]: no port 1 is configured: there is no port at all; 0, or module.port first",
        ),
        ("[module]\ninstance_ports = [1, 1, 1, 1]", "module.instance_ports: has 4 entries"),
        ("[module]\ninstance_ports = [5]", "module.instance_ports[0]: 5 is out of range; a port's number from 0 to 4"),
        (
            '[policy.monitor]\nhazards = "confirm"',
            'policy.monitor.hazards: "confirm" while nobody is there to confirm a stored command; "refuse" or "allow"',
        ),
    ],
)
def test_a_port_that_is_not_there_and_a_confirmation_by_nobody(
    wrong: Callable[..., list[str]], text: str, said: str
) -> None:
    (mistake,) = wrong(text)
    assert said in mistake


def test_instances_may_share_a_port_and_the_monitor_has_rules_of_its_own(load: Load) -> None:
    loaded = load(
        '[module]\nport = "/dev/a"\nextra_ports = ["/dev/b"]\ninstance_ports = [1, 2, 2]\n'
        '[policy.monitor]\ndefault = "deny"\nrules = [{allow = "+CGMR", peer = "sms +39*"}]\nhazards = "allow"'
    )
    assert loaded.module.instance_ports == (1, 2, 2)
    assert (loaded.policy.monitor.default, loaded.policy.monitor.hazards) == ("deny", "allow")
    assert load("").module.instance_ports == ()


def test_what_is_no_file_is_not_read_as_an_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ConfigError, match="no regular file"):
        config.load(pipe, hostname="box", machine_id=None)

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ConfigError, match="Permission denied"):
        config.load(tmp_path / "atrund.toml", hostname="box", machine_id=None)
