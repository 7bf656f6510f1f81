# SPDX-License-Identifier: Apache-2.0
"""Contexts out of files, and what is said of those that are of no use (TCP-13)."""

import ssl
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrund.tls import FileError, Files, client_context, expiry, explain, names, server_context
from tests.support.certificates import Authority, Pair


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    return authority.issue("gateway", "DNS:localhost", "IP:127.0.0.1", "email:a@b.example")


def test_a_server_asks_for_a_certificate_where_it_knows_an_authority(authority: Authority, pair: Pair) -> None:
    open_to_all = server_context(Files(*pair))
    assert (open_to_all.verify_mode, open_to_all.minimum_version) == (ssl.CERT_NONE, ssl.TLSVersion.TLSv1_2)
    assert server_context(Files(*pair, authority.file)).verify_mode == ssl.CERT_REQUIRED


def test_a_client_verifies_certificate_and_name(authority: Authority, pair: Pair) -> None:
    for files in (Files(), Files(ca=authority.file), Files(*pair)):
        context = client_context(files)
        assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_the_key_may_be_in_the_certificates_file(pair: Pair, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(pair.key.read_bytes() + pair.certificate.read_bytes())
    assert server_context(Files(both)).cert_store_stats()["x509"] == 0


def test_a_file_of_no_use_is_named(authority: Authority, pair: Pair, tmp_path: Path) -> None:
    other = authority.issue("other")
    locked, empty, gone = tmp_path / "locked.key", tmp_path / "empty", tmp_path / "gone"
    empty.touch()
    encrypt: list[str | Path] = ["openssl", "pkey", "-in", pair.key, "-aes128", "-passout", "pass:geheim"]
    subprocess.run([*encrypt, "-out", locked], check=True, capture_output=True)
    wrong = {
        Files(pair.certificate, other.key): ("key", f"{other.key} does not fit the certificate"),
        Files(pair.certificate, pair.certificate): ("key", f"there is no private key in {pair.certificate}"),
        Files(pair.certificate, locked): ("key", f"{locked} has a pass phrase"),
        Files(pair.certificate, gone): ("key", f"No such file or directory: {gone}"),
        Files(pair.key, pair.key): ("certificate", f"{pair.key}: there is no certificate in it"),
        Files(gone, pair.key): ("certificate", f"No such file or directory: {gone}"),
        Files(*pair, empty): ("ca", f"there is no certificate in {empty}"),
        Files(*pair, gone): ("ca", f"No such file or directory: {gone}"),
    }
    for files, said in wrong.items():
        with pytest.raises(FileError) as caught:
            server_context(files)
        assert (caught.value.option, caught.value.wrong) == said
        assert str(caught.value) == f"{said[0]}: {said[1]}; {caught.value.right}"
    with pytest.raises(FileError, match="ca: No such file"):
        client_context(Files(ca=gone))


def test_a_weak_key_is_called_so(tmp_path: Path) -> None:
    certificate, key = tmp_path / "weak.pem", tmp_path / "weak.key"
    make: list[str | Path] = ["openssl", "req", "-x509", "-newkey", "rsa:1024", "-nodes", "-subj", "/CN=weak"]
    subprocess.run([*make, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    with pytest.raises(FileError, match="certificate: is too weak: ee key too small; an EC key"):
        server_context(Files(certificate, key))


def test_how_long_a_certificate_is_good(authority: Authority, pair: Pair) -> None:
    now = datetime.now(UTC)
    assert abs(expiry(pair.certificate.read_text()) - now - timedelta(days=20)) < timedelta(minutes=5)
    assert expiry(authority.issue("old", days=-1).certificate.read_text()) < now
    far = authority.issue("far", days=365 * 60)  # past 2049, where the form of the time is another
    assert abs(expiry(f"words before\n{far.certificate.read_text()}").year - now.year - 60) <= 1
    with pytest.raises(ValueError, match="there is no certificate in it"):
        expiry(pair.key.read_text())


@given(cut=st.integers(0, 400), octet=st.integers(0, 255))
def test_a_damaged_certificate_is_called_so_or_read(pair: Pair, cut: int, octet: int) -> None:
    der = bytearray(ssl.PEM_cert_to_DER_cert(pair.certificate.read_text()))
    der[cut % len(der)] = octet
    for damaged in (bytes(der), bytes(der[:cut])):
        try:
            assert isinstance(expiry(ssl.DER_cert_to_PEM_cert(damaged)), datetime)
        except ValueError as error:
            assert str(error) == "its first certificate is damaged"


def test_whose_a_certificate_is() -> None:
    subject = ((("countryName", "IT"),), (("commonName", "anna"),))
    others = (("DNS", "anna.example"), ("DNS", "anna"), ("email", "a@b.example"), ("DirName", ((("x", "y"),),)))
    assert names({"subject": subject, "subjectAltName": others}) == ("anna", "anna.example", "a@b.example")
    assert names({"subject": ((("commonName", "a\nb"),), (("commonName", "x" * 65),))}) == ()
    assert len(names({"subjectAltName": tuple(("DNS", f"n{index}") for index in range(99))})) == 8
    assert names({}) == ()


def test_a_failed_handshake_is_explained() -> None:
    shown = {
        ConnectionResetError(): "it closed the connection before the handshake was done",
        TimeoutError(): "it did not finish the handshake in time",
        OSError(110, "Connection timed out"): "it did not finish the handshake in time",
        OSError(113, "No route to host"): "No route to host",
        OSError("as it is"): "as it is",
    }
    for error, said in shown.items():
        assert explain(error) == said
    strange = ssl.SSLError(1, "[SSL: ODD_THING] odd thing (_ssl.c:1)")
    assert explain(strange).startswith("TLS: ")
