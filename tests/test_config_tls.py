# SPDX-License-Identifier: Apache-2.0
"""What the file says of certificates (TCP-13)."""

from dataclasses import replace

import pytest

from atrund import config, making
from atrund.config import Config, ConfigError
from atrund.config.following import follow
from atrund.tls import Files
from tests.support.certificates import Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    authority = Authority(tmp_path_factory.mktemp("ca"))
    authority.issue("gateway")
    authority.issue("other")
    authority.issue("old", days=-1)
    authority.issue("soon", days=5)
    return authority


def load(authority: Authority, text: str) -> Config:
    path = authority.folder / "atrund.toml"
    path.write_text(text)
    return config.load(path, hostname="box", machine_id=None, environ={})


SERVER = '[tcp]\nlisten = ["0.0.0.0"]\n[tcp.tls]\nenabled = true\n'
CLIENT = '[tcp.client]\nenabled = true\nhost = "far.example"\n[tcp.client.tls]\nenabled = true\n'
OURS = 'certificate = "gateway.pem"\nkey = "gateway.key"\n'


def test_with_tls_no_word_of_clear_text_is_needed(authority: Authority) -> None:
    given = load(authority, SERVER + OURS + 'client_ca = "ca.pem"')
    assert given.tcp.tls.certificate is not None
    files = Files(*(authority.folder / name for name in ("gateway.pem", "gateway.key", "ca.pem")))
    assert config.tls.server_files(given.tcp.tls) == files
    assert making.interfaces(replace(given.tcp, trusted_interfaces=("wg0",))) == ()
    given = load(authority, CLIENT + 'server_name = "other.example"')
    assert config.tls.client_files(given.tcp.client.tls) == Files()
    assert [warning for warning in config.warnings(given) if "token" in warning] == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (SERVER, "tcp.tls.certificate: is not set while tcp.tls.enabled is true; the server's certificate"),
        (
            '[tcp.tls]\nclient_ca = "ca.pem"',
            "tcp.tls.client_ca: is set while tcp.tls.enabled is false; tcp.tls.enabled",
        ),
        ('[tcp.client.tls]\nca = "ca.pem"', "tcp.client.tls.ca: is set while tcp.client.tls.enabled is false; "),
        (SERVER + 'certificate = "gateway.pem"', "tcp.tls.certificate: is set without tcp.tls.key; both or neither"),
        (CLIENT + 'key = "gateway.key"', "tcp.client.tls.key: is set without tcp.client.tls.certificate; both"),
        (
            SERVER + OURS.replace("gateway.key", "other.key"),
            "tcp.tls.key: {0}/other.key does not fit the certificate; ",
        ),
        (
            SERVER + OURS.replace("gateway.key", "gateway.pem"),
            "tcp.tls.key: there is no private key in {0}/gateway.pem",
        ),
        (
            SERVER + OURS.replace("gateway.pem", "gateway.key"),
            "tcp.tls.certificate: there is no certificate in it; a PEM",
        ),
        (SERVER + OURS.replace("gateway.pem", "gone.pem"), "tcp.tls.certificate: no such file in {0}; "),
        (
            SERVER + OURS + 'client_ca = "gateway.key"',
            "tcp.tls.client_ca: there is no certificate in {0}/gateway.key; ",
        ),
        (CLIENT + 'ca = "gateway.key"', "tcp.client.tls.ca: there is no certificate in {0}/gateway.key; "),
        (CLIENT + 'server_name = "far example"', 'tcp.client.tls.server_name: "far example" is not allowed; a host'),
    ],
)
def test_a_mistake_names_its_key_and_what_would_be_right(authority: Authority, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(authority, text)
    (authority.folder / "gateway.pem").chmod(0o600)
    (mistake, *_) = map(str, caught.value.mistakes)
    assert mistake.startswith(said.format(authority.folder))


def test_a_key_that_everybody_can_read(authority: Authority) -> None:
    key = authority.folder / "gateway.key"
    key.chmod(0o644)
    try:
        with pytest.raises(ConfigError, match=r"tcp\.tls\.key: everybody can read the file; chmod o-rwx it"):
            load(authority, SERVER + OURS)
    finally:
        key.chmod(0o600)


@pytest.mark.parametrize(("name", "said"), [("old", "has expired on "), ("soon", "expires on "), ("gateway", "")])
def test_a_certificate_that_is_no_good_for_long_is_warned_of(authority: Authority, name: str, said: str) -> None:
    given = load(authority, SERVER + OURS.replace("gateway", name))
    warned = [warning for warning in config.warnings(given) if warning.startswith("tcp.tls.certificate: ")]
    assert [warning.startswith(f"tcp.tls.certificate: {said}") for warning in warned] == ([True] if said else [])


def test_what_of_it_counts_at_a_reload(authority: Authority) -> None:
    before = load(authority, SERVER + OURS)
    other = load(authority, SERVER + OURS.replace("gateway", "other"))
    change = follow(before, other)
    assert (change.followed, change.waiting) == (("tcp.tls.certificate", "tcp.tls.key"), ())
    off = load(authority, '[tcp]\ninsecure = true\nlisten = ["0.0.0.0"]\n')
    change = follow(before, off)
    assert set(change.waiting) == {"tcp.tls.enabled", "tcp.tls.certificate", "tcp.tls.key", "tcp.insecure"}
    assert change.config.tcp.tls == before.tcp.tls
    client = load(authority, CLIENT + OURS)
    change = follow(
        client, replace(client, tcp=replace(client.tcp, client=replace(client.tcp.client, tls=off.tcp.client.tls)))
    )
    assert change.waiting == ()
