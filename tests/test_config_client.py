# SPDX-License-Identifier: Apache-2.0
"""What the file says of client mode and the bearer (TCP-11, TCP-13, TCP-14)."""

from pathlib import Path

import pytest

from atrund import config, making
from atrund.config import Config, ConfigError

CLIENT = '[tcp.client]\nenabled = true\nhost = "127.0.0.1"\n'


def load(folder: Path, text: str) -> Config:
    path = folder / "atrund.toml"
    path.write_text(text)
    return config.load(path, hostname="box", machine_id=None, environ={})


def token(folder: Path, content: str, mode: int = 0o600) -> str:
    (folder / "token").write_text(content)
    (folder / "token").chmod(mode)
    return 'token_file = "token"\n'


def test_what_the_file_says_is_in_force(tmp_path: Path) -> None:
    text = CLIENT.replace("127.0.0.1", "localhost")
    text += 'port = 12345\nretries = 5\nretry_delay = "5m"\nredial = 0\n' + token(tmp_path, "0123456789abcdef\n")
    given = load(tmp_path, text)
    client = making.file_settings(given).tcp.client
    assert (client.enabled, client.host, client.port) == (True, "localhost", 12345)
    assert (client.retries, client.retry_delay, given.tcp.client.redial) == (5, 300, 0)
    assert given.tcp.client.token is not None
    assert given.tcp.client.token.reveal() == "0123456789abcdef"
    assert "0123456789abcdef" not in repr(given)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[tcp.client]\nenabled = true", "tcp.client.host: is not set; the host to call"),
        (
            CLIENT + "[tcp]\nenabled = true",
            "tcp.client.enabled: client mode and the server (tcp.enabled) are both on; one of them at a time",
        ),
        (
            '[tcp.client]\nhost = "far.example"',
            'tcp.client.host: clear text to "far.example" can be read on the way; ',
        ),
        ('[tcp.client]\nhost = "far example"', 'tcp.client.host: "far example" is not allowed; a host name or address'),
        ("[tcp.client]\nretries = 6", "tcp.client.retries: 6 is out of range; a whole number from 0 to 5"),
        ('[tcp.client]\nredial = "10s"', 'tcp.client.redial: "10s" is out of range; seconds or a string such as'),
        ('[tcp.client]\ntoken_file = "nowhere"', "tcp.client.token_file: no such file in"),
        (
            '[tcp.bearer]\ninterface = "wwan0"\ncontext = 2',
            "tcp.bearer: interface and context are both set; one of them",
        ),
        ('[tcp.bearer]\ninterface = "a/b"', 'tcp.bearer.interface: "a/b" is not allowed; the name of a network'),
        (
            "[tcp.bearer]\nactivate = true",
            "tcp.bearer.activate: is set without tcp.bearer.context; the context to activate",
        ),
        (
            "[tcp.bearer]\ncontext = 1\nactivate = true",
            "tcp.bearer.activate: context 1 is that of the host's own data; another context",
        ),
        (
            '[tcp]\ntrusted_interfaces = ["wg0"]\n[tcp.bearer]\ninterface = "wwan0"',
            "tcp.bearer.interface: is not one of tcp.trusted_interfaces; name it there too, or say tcp.insecure = true",
        ),
    ],
)
def test_a_mistake_names_its_key_and_what_would_be_right(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    (mistake,) = map(str, caught.value.mistakes)
    assert mistake.startswith(said)


@pytest.mark.parametrize("content", ["0123456789abcde", "x" * 129, "0123456789abcdé€", "0123456789\tabcdef", ""])
def test_a_token_that_is_none_is_refused_and_not_shown(tmp_path: Path, content: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, CLIENT + token(tmp_path, content))
    (mistake,) = map(str, caught.value.mistakes)
    assert mistake.endswith("the file's content doesn't fit; 16 to 128 printable ASCII characters")


def test_a_token_that_everybody_can_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tcp.client.token_file: everybody can read the file"):
        load(tmp_path, CLIENT + token(tmp_path, "x" * 16, 0o644))


@pytest.mark.parametrize(
    "text",
    [
        '[tcp]\ninsecure = true\n[tcp.client]\nhost = "far.example"',
        '[tcp]\ntrusted_interfaces = ["wg0"]\n[tcp.client]\nhost = "far.example"',
        '[tcp]\ninsecure = true\ntrusted_interfaces = ["wg0"]\n[tcp.bearer]\ninterface = "wwan0"',
        '[tcp]\ntrusted_interfaces = ["wg0"]\n[tcp.bearer]\ninterface = "wg0"',
        '[tcp.bearer]\ninterface = "wwan0"',
        "[tcp.bearer]\ncontext = 2\nactivate = true",
        "[tcp.bearer]\ncontext = 1\nactivate = true\ndata_context = 0",
        CLIENT,
    ],
)
def test_what_is_right(tmp_path: Path, text: str) -> None:
    assert load(tmp_path, text).tcp.client.port == 1024


def test_tcp_13_without_a_token_there_is_a_warning(tmp_path: Path) -> None:
    said = "tcp.client.token_file: is not set, so whoever answers at tcp.client.host may run commands"
    assert said in config.warnings(load(tmp_path, CLIENT))
    assert said not in config.warnings(load(tmp_path, CLIENT + token(tmp_path, "x" * 128)))
