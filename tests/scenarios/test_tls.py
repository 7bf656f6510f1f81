# SPDX-License-Identifier: Apache-2.0
"""The TCP door by TLS from outside: openssl, socat and atrunctl at the real daemon, in both modes (TCP-13)."""

import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scenarios.conftest import Stage
from tests.scenarios.piped import Peer, Start
from tests.scenarios.players import LOGIN, PASSWORD, PATIENCE, USER, Daemon, Module, Program, until
from tests.support.certificates import Authority, Pair
from tests.support.ports import free_port

ATRUNCTL = [sys.executable, "-m", "atrund.ctl.main"]
CSQ = b"AT+CSQ\r\r\n+CSQ: 17,0\r\n\r\nOK\r\n"

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl")


@pytest.fixture(scope="module")
def authority(shared_stage: Stage) -> Authority:
    return Authority(shared_stage.folder)


@pytest.fixture(scope="module")
def anna(authority: Authority) -> Pair:
    return authority.issue("anna")


@pytest.fixture(scope="module")
def module(shared_stage: Stage) -> Module:
    module = shared_stage.module()
    module.ask("answer", command="AT+CSQ", lines=["+CSQ: 17,0"], always=True)
    return module


def secured(daemon: Daemon, pair: Pair, **tls: object) -> Daemon:
    given = {"enabled": True, "certificate": str(pair.certificate), "key": str(pair.key), **tls}
    daemon.configure(tcp={"sequence": True, "shut_out": 0}, **{"tcp.tls": given})
    return daemon


@pytest.fixture(scope="module")
def daemon(shared_stage: Stage, module: Module, authority: Authority) -> Daemon:
    """Asks for certificates."""
    pair = authority.issue("gateway", "DNS:localhost", "IP:127.0.0.1")
    return secured(shared_stage.daemon(module), pair, client_ca=str(authority.file)).start()


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\n")
    return file


def s_client(address: tuple[str, int], authority: Authority, pair: Pair | None, *more: str | Path) -> list[str | Path]:
    host, port = address
    own: list[str | Path] = [] if pair is None else ["-cert", pair.certificate, "-key", pair.key]
    verify: list[str | Path] = ["-CAfile", authority.file, "-verify_return_error"]
    return ["openssl", "s_client", "-quiet", "-connect", f"{host}:{port}", *verify, *own, *more]


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_works_there(daemon: Daemon, authority: Authority, anna: Pair, start: Start, version: str) -> None:
    client = start(*s_client(daemon.tcp, authority, anna, version, "-verify_hostname", "localhost"))
    client.send(LOGIN)
    client.send(b"AT+CSQ\r")
    assert client.read_until(b"OK\r\n") == CSQ
    daemon.heard("certificate of cert:anna", door="tcp")
    client.stop()
    until(lambda: not daemon.status()["tcp"]["peer"], "an empty place")


def test_socat_works_there(daemon: Daemon, authority: Authority, anna: Pair, start: Start) -> None:
    host, port = daemon.tcp
    options = f"cafile={authority.file},cert={anna.certificate},key={anna.key},commonname=localhost"
    client = start("socat", "-", f"OPENSSL:{host}:{port},{options}")
    client.send(LOGIN + b"AT+CSQ\r")
    assert client.read_until(b"OK\r\n") == CSQ
    client.stop()
    until(lambda: not daemon.status()["tcp"]["peer"], "an empty place")


def test_who_is_turned_away_and_why(
    daemon: Daemon, authority: Authority, anna: Pair, start: Start, tmp_path: Path
) -> None:
    def why(*command: str | Path) -> str:
        before = len(daemon.logged("handshake failed"))
        client = start(*command)
        client.send(LOGIN + b"AT+CSQ\r")
        assert b"OK" not in client.rest()
        until(lambda: len(daemon.logged("handshake failed")) > before, "the record")
        return str(daemon.logged("handshake failed")[-1]["reason"])

    address = daemon.tcp
    stranger = Authority(tmp_path, "elsewhere").issue("stranger")
    assert why(*s_client(address, authority, None)).startswith("it showed no certificate")
    assert why(*s_client(address, authority, stranger)).startswith("its certificate is of no authority")
    assert why(*s_client(address, authority, authority.issue("old", days=-1))).startswith("its certificate has expired")
    old = ("-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0")
    assert why(*s_client(address, authority, anna, *old)) == "it speaks no TLS version of ours; 1.2 or later"
    with socket.create_connection(address, PATIENCE) as clear:
        clear.sendall(LOGIN + b"AT+CSQ\r")
        said = b""
        try:
            while piece := clear.recv(4096):
                said += piece
        except ConnectionResetError:
            pass
        assert b"CSQ" not in said
    assert daemon.heard("handshake failed", reason="it does not speak TLS")
    assert PASSWORD not in daemon.text


def test_new_certificates_and_a_session_that_stays(
    stage: Stage, start: Start, authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "new").mkdir()
    new_authority = Authority(tmp_path / "new", "new-ca")
    pair, module = authority.issue("mine", "IP:127.0.0.1"), stage.module()
    module.ask("answer", command="AT+CSQ", lines=["+CSQ: 17,0"], always=True)
    daemon = secured(stage.daemon(module), pair)
    daemon.configure(tcp={"sessions": 4})
    daemon.start()

    def call(trusted: Authority) -> Peer:
        client = start(*s_client(daemon.tcp, trusted, None))
        client.send(LOGIN + b"AT+CSQ\r")
        assert client.read_until(b"OK\r\n") == CSQ
        return client

    stays = call(authority)
    for new, old in zip(new_authority.issue("mine", "IP:127.0.0.1"), pair, strict=True):
        shutil.copy(new, old)
    call(new_authority)
    daemon.heard("certificates read anew")

    pair.key.write_text("broken")
    call(new_authority)
    daemon.heard("certificates not read anew, those of before stay")
    assert daemon.program is not None
    daemon.program.process.send_signal(signal.SIGHUP)
    daemon.heard("mistake in the configuration", key="tcp.tls.key")
    call(new_authority)

    third = new_authority.issue("third", "IP:127.0.0.1")
    secured(daemon, third, client_ca=str(authority.file))
    daemon.program.process.send_signal(signal.SIGHUP)
    daemon.heard("configuration reloaded", changed="tcp.tls.certificate, tcp.tls.key, tcp.tls.client_ca")
    client = start(*s_client(daemon.tcp, new_authority, None))
    client.send(LOGIN)
    assert client.rest() == b""
    stays.send(b"AT+CSQ\r")
    assert stays.read_until(b"OK\r\n") == CSQ
    assert daemon.stop() == 0


def dial(daemon: Daemon, secret: Path, *words: str | Path) -> "subprocess.CompletedProcess[str]":
    host, port = daemon.tcp
    login: list[str | Path] = ["--user", USER, "--password-file", secret]
    command = [*ATRUNCTL, "dial", f"{host}:{port}", *login, "--run", "AT+CSQ", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    until(lambda: not daemon.status()["tcp"]["peer"], "an empty place")
    return done


def test_atrunctl_dial(daemon: Daemon, secret: Path, authority: Authority, anna: Pair, tmp_path: Path) -> None:
    own: list[str | Path] = ["--tls-cert", anna.certificate, "--tls-key", anna.key]
    both = tmp_path / "both.pem"
    both.write_text(anna.certificate.read_text() + anna.key.read_text())
    for words in (own, ["--tls-cert", both], [*own, "--tls-name", "localhost"]):
        done = dial(daemon, secret, "--tls-ca", authority.file, *words)
        assert (done.returncode, done.stdout, done.stderr) == (0, "+CSQ: 17,0\nOK\n", "")
    done = dial(daemon, secret, "--tls", *own)
    assert (done.returncode, done.stdout) == (3, "")
    assert "its certificate is of no authority that is trusted here; the CA file must hold" in done.stderr
    done = dial(daemon, secret, "--tls-ca", authority.file, "--tls-name", "elsewhere.example", *own)
    assert "its certificate is for another name than was called" in done.stderr
    done = dial(daemon, secret, "--tls-ca", authority.file)
    assert (done.returncode, "our certificate" in done.stderr) == (3, True)
    done = dial(daemon, secret)  # in clear text
    assert done.returncode == 3
    done = dial(daemon, secret, "--tls-ca", authority.file, "--tls-cert", anna.certificate, "--tls-key", authority.file)
    assert (done.returncode, "--tls-key: there is no private key in" in done.stderr) == (2, True)


def calling(stage: Stage, port: int, **tls: object) -> Daemon:
    module = stage.module()
    module.ask("answer", command="AT+CSQ", lines=["+CSQ: 17,0"], always=True)
    daemon = stage.daemon(module)
    daemon.options["tcp"] = {}
    client = {"host": "127.0.0.1", "port": port, "enabled": not tls.pop("later", False)}
    daemon.configure(**{"tcp.client": client, "tcp.client.tls": {"enabled": True, **tls}})
    return daemon


def test_client_mode_calls_openssl(stage: Stage, start: Start, authority: Authority, anna: Pair) -> None:
    far, port = authority.issue("far", "DNS:far.example"), free_port()
    server = start(
        *("openssl", "s_server", "-quiet", "-accept", f"127.0.0.1:{port}", "-cert", far.certificate, "-key", far.key),
        *("-CAfile", authority.file, "-Verify", "1", "-verify_return_error", "-naccept", "1"),
    )
    until(lambda: _listens(port), "the listener")
    own = {"certificate": str(anna.certificate), "key": str(anna.key)}
    daemon = calling(stage, port, ca=str(authority.file), server_name="far.example", **own).start()
    daemon.heard("connected", door="tcp")
    server.send(b"AT+CSQ\r")
    assert server.read_until(b"OK\r\n") == CSQ
    assert not daemon.logged("client mode has no token: whoever answers there may run commands")
    assert daemon.stop() == 0


def test_client_mode_says_why_it_was_not_taken(stage: Stage, start: Start, authority: Authority) -> None:
    far, port = authority.issue("strict", "IP:127.0.0.1"), free_port()
    start(
        *("openssl", "s_server", "-quiet", "-accept", f"127.0.0.1:{port}", "-cert", far.certificate, "-key", far.key),
        *("-CAfile", authority.file, "-Verify", "1", "-verify_return_error"),
    )
    until(lambda: _listens(port), "the listener")
    daemon = calling(stage, port, ca=str(authority.file)).start()
    daemon.heard("connection lost: it asks for a certificate of ours, and there is none", door="tcp")


def test_atrunctl_listen(stage: Stage, authority: Authority, anna: Pair, tmp_path: Path) -> None:
    far = authority.issue("listener", "IP:127.0.0.1")
    script = tmp_path / "script"
    script.write_text("AT+CSQ\n")
    command: list[str | Path] = [*ATRUNCTL, "listen", "--port", "0", "--address", "127.0.0.1", "--script", script]
    options: list[str | Path] = ["--tls-cert", far.certificate, "--tls-key", far.key, "--tls-ca", authority.file]
    program = Program([*command, *options, "--count", "1"], tmp_path / "listen.log")
    try:
        found = until(lambda: program.said(r"^listening on 127\.0\.0\.1 port (\d+)$"), "the listener")
        port = int(found[1])
        with socket.create_connection(("127.0.0.1", port)) as clear:
            clear.sendall(b"AT\r\nOK\r\n")
            until(lambda: program.said(r"a call from 127\.0\.0\.1 failed: it does not speak TLS"), "the reason")
        own = {"certificate": str(anna.certificate), "key": str(anna.key)}
        daemon = calling(stage, port, ca=str(authority.file), later=True, **own).start()
        assert daemon.ctl("at", "AT#TCPATRUND=1").returncode == 0
        assert program.wait() == 0
        assert "[1] +CSQ: 17,0\n[1] OK\n" in program.text
        assert "Traceback" not in program.text
    finally:
        program.stop()


def test_check_says_what_is_wrong_with_the_files(stage: Stage, authority: Authority, anna: Pair) -> None:
    daemon = secured(stage.daemon(), Pair(anna.certificate, authority.issue("other").key))
    assert daemon.begin("--check").wait() == 2
    assert f"tcp.tls.key: {authority.folder}/other.key does not fit the certificate; the private key" in daemon.text
    daemon = secured(stage.daemon(), authority.issue("past", days=-1))
    assert daemon.begin("--check").wait() == 0
    assert "warning: tcp.tls.certificate: has expired on 20" in daemon.text


def _listens(port: int) -> bool:
    wanted = f":{port:04X} 00000000:0000 0A"
    return wanted in Path("/proc/net/tcp").read_text()
