# SPDX-License-Identifier: Apache-2.0
"""TLS to the broker: what is said in the handshake, what its failures are called, and who waits for it."""

import asyncio
import shutil
import ssl
from pathlib import Path
from typing import Any

import pytest

from atrund.broker import Place, dialling
from tests.support.certificates import Authority
from tests.support.fake_broker import FakeBroker, no_pauses, scene, until

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    no_pauses(monkeypatch)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


class Secured(FakeBroker):
    """Speaks TLS, and notes what it was asked for."""

    def secure(self, authority: Authority, *protocols: str, name: str = "IP:127.0.0.1", days: int = 20) -> "Secured":
        pair = authority.issue("server", name, days=days)
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(pair.certificate, pair.key)
        if protocols:
            self.tls.set_alpn_protocols(list(protocols))
        self.names: list[str | None] = []
        self.tls.sni_callback = lambda _socket, name, _context: self.names.append(name)
        return self

    @property
    def chosen(self) -> str | None:
        assert self.writer is not None
        spoken = self.writer.get_extra_info("ssl_object")
        assert isinstance(spoken, ssl.SSLObject)
        found: str | None = spoken.selected_alpn_protocol()
        return found


async def test_the_application_protocol_that_is_asked_for(authority: Authority) -> None:
    """ALPN (RFC 7301): how one port serves MQTT and the web."""
    fake = Secured().secure(authority, "h2", "x-amzn-mqtt-ca", "mqtt")
    async with scene(fake, tls=True, ca_file=authority.file, alpn="x-amzn-mqtt-ca") as it:
        await until(lambda: it.broker.connected, "the connection")
        assert fake.chosen == "x-amzn-mqtt-ca"
        assert fake.names in ([None], ["127.0.0.1"])  # an address is no name (RFC 6066 3)


async def test_none_is_asked_for_where_none_is_set(authority: Authority) -> None:
    fake = Secured().secure(authority, "mqtt")
    async with scene(fake, tls=True, ca_file=authority.file) as it:
        await until(lambda: it.broker.connected, "the connection")
        assert fake.chosen is None


async def test_the_name_that_the_certificate_is_for(authority: Authority) -> None:
    fake = Secured().secure(authority, name="DNS:broker.example")
    async with scene(fake, tls=True, ca_file=authority.file, server_name="broker.example") as it:
        await until(lambda: it.broker.connected, "the connection")
        assert fake.names == ["broker.example"]


async def test_each_broker_has_its_own_name_and_protocol(authority: Authority) -> None:
    second = Secured().secure(authority, "mqtt", name="DNS:b.example")
    port = await second.start()
    place = Place("127.0.0.1", port, server_name="b.example", alpn="mqtt")
    async with scene(FakeBroker(), listens=False, tls=True, ca_file=authority.file, fallbacks=(place,)) as it:
        await until(lambda: it.broker.connected, "the connection")
        assert (second.names, second.chosen) == (["b.example"], "mqtt")
    second.stop()


@pytest.mark.parametrize("clock_known", [True, False])
async def test_a_failure_while_the_clock_is_not_set_says_so(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, *, clock_known: bool
) -> None:
    """And is tried again soon: the clock will be set, while a certificate is renewed by a person."""
    monkeypatch.setitem(dialling._PACES, dialling.Failure.TLS, dialling._Pace(60.0, 60.0))
    fake = Secured().secure(authority, days=-1)
    async with scene(fake, tls=True, ca_file=authority.file, clock_known=clock_known) as it:
        await until(lambda: it.broker.report()["detail"], "the failure")
        says = "TLS: its certificate has expired; a new one, or a clock that is right"
        unset = "" if clock_known else "; this machine's clock is not set, and that alone may be why"
        assert it.broker.report()["detail"] == says + unset
        await asyncio.sleep(0.3)
        assert (len(fake.names) > 1) != clock_known


async def test_no_common_protocol_is_said(authority: Authority) -> None:
    class Picky(Secured):
        """As servers do that insist: OpenSSL's own have the choice, so the alert is made here (RFC 7301 3.2)."""

        async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(5)
            writer.write(b"\x15\x03\x03\0\2\2\x78")
            writer.close()

    fake = Picky()
    async with scene(fake, tls=True, ca_file=authority.file, alpn="odd") as it:
        await until(lambda: it.broker.report()["detail"], "the failure")
        assert str(it.broker.report()["detail"]).startswith(
            "TLS: it has not the application protocol that was asked for; mqtt.alpn"
        )


async def test_a_handshake_that_never_ends_is_given_up_and_delays_nobody(authority: Authority) -> None:
    async with scene(FakeBroker(silent=True), tls=True, ca_file=authority.file, connect_timeout=0.4) as it:
        longest = 0.0
        while not it.broker.report()["detail"]:
            begun = asyncio.get_running_loop().time()
            await asyncio.sleep(0.005)
            longest = max(longest, asyncio.get_running_loop().time() - begun)
        assert it.broker.report()["detail"] in {"no answer within 0.4 s", "The handshake operation timed out"}
        assert longest < 0.3


@pytest.mark.parametrize(
    ("option", "name"), [("ca_file", "mqtt.ca_file"), ("cert_file", "mqtt.cert_file"), ("key_file", "mqtt.key_file")]
)
async def test_a_file_that_can_not_be_used_is_named(
    authority: Authority, tmp_path: Path, option: str, name: str
) -> None:
    own = authority.issue("own")
    files: dict[str, Any] = {
        "ca_file": authority.file,
        "cert_file": own.certificate,
        "key_file": own.key,
        option: tmp_path / "gone",
    }
    async with scene(Secured().secure(authority), tls=True, **files) as it:
        await until(lambda: it.broker.report()["detail"], "the failure")
        assert str(it.broker.report()["detail"]).startswith(f"TLS: {name}: No such file or directory: {tmp_path}")
