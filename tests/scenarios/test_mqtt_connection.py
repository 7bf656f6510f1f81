# SPDX-License-Identifier: Apache-2.0
"""The connection to the broker from outside: TLS, credentials, several brokers, limits, two devices of one name."""

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.scenarios.conftest import Stage
from tests.scenarios.players import Broker, Caller, Daemon, Module, until
from tests.support.certificates import Authority, Pair
from tests.support.ports import free_port

NAMES = ("DNS:localhost", "IP:127.0.0.1")

with_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl")


class Secured:
    """mosquitto with a second listener, which speaks TLS."""

    def __init__(self, stage: Stage, authority: Authority, pair: Pair, *lines: str) -> None:
        self.port = free_port()
        given = [f"cafile {authority.file}", f"certfile {pair.certificate}", f"keyfile {pair.key}"]
        self.broker = stage.broker(f"listener {self.port} 127.0.0.1", *given, *lines)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def calls(daemon: Daemon, port: int, **options: object) -> Daemon:
    """Have the daemon call a broker with TLS."""
    daemon.configure(mqtt={"enabled": True, "port": port, "tls": True, "remote_at": True, "spread": 0, **options})
    return daemon


def detail(daemon: Daemon) -> str:
    """Why there is no connection."""
    return str(until(lambda: daemon.status()["mqtt"]["detail"], "the cause"))


def ask(broker: Broker, id_: str, cmd: str = "AT") -> None:
    broker.publish("at/request", json.dumps({"id": id_, "cmd": cmd}))


# TLS


@with_openssl
@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_both_sides_show_certificates(stage: Stage, authority: Authority, protocol: str) -> None:
    """And the user is the name in the certificate, for the broker's access control."""
    lines = ("require_certificate true", "use_identity_as_username true", "tls_version tlsv1.2")
    secured = Secured(stage, authority, authority.issue("broker", *NAMES), *lines)
    own = authority.issue("box")
    daemon = stage.daemon(stage.module())
    options = {"ca_file": str(authority.file), "cert_file": str(own.certificate), "key_file": str(own.key)}
    calls(daemon, secured.port, protocol=protocol, **options).start()
    ear = stage.ear(secured.broker)
    ask(secured.broker, "secured")
    assert ear.hear("at/response", id="secured")["state"] == "ok"
    assert "u'box'" in secured.broker.program.text
    assert daemon.stop() == 0
    assert not [entry for entry in daemon.log if entry["level"] in {"error", "warning"} and "broker" in entry["event"]]


@with_openssl
def test_who_is_not_trusted_and_why(stage: Stage, authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other", "elsewhere")
    right = Secured(stage, authority, authority.issue("broker", *NAMES), "require_certificate true")
    daemon = stage.daemon()
    own, foreign = authority.issue("box"), stranger.issue("foreign")
    clock_is_known = _clock_is_known(stage)
    # Where its word does not come through, for the connection is reset too early, there is only a guess.
    unsaid = "it closed the connection without an answer; perhaps it wants another certificate of ours (mqtt.cert_file)"

    def why(port: int, **options: object) -> str:
        daemon.options.pop("mqtt", None)
        calls(daemon, port, **{"ca_file": str(authority.file), **options})
        daemon.begin()
        until(daemon.socket.exists, "the control socket")
        said = detail(daemon)
        assert daemon.stop() == 0
        assert ("this machine's clock is not set" in said) == (said.startswith("TLS: ") and not clock_is_known)
        return said

    mine = {"cert_file": str(own.certificate), "key_file": str(own.key)}
    assert why(right.port, **mine, ca_file=str(stranger.file)).startswith("TLS: its certificate is of no authority")
    assert why(right.port, **mine, server_name="b.example").startswith("TLS: its certificate is for another name")
    assert why(right.port).startswith(("TLS: it asks for a certificate of ours", unsaid))
    other = {"cert_file": str(foreign.certificate), "key_file": str(foreign.key)}
    assert why(right.port, **other).startswith(("TLS: it does not take our certificate", unsaid))
    assert why(right.broker.port).startswith("TLS: it ")  # which does not speak it


@with_openssl
def test_a_certificate_that_has_expired(stage: Stage, authority: Authority) -> None:
    secured = Secured(stage, authority, authority.issue("broker", *NAMES, days=-1))
    daemon = calls(stage.daemon(), secured.port, ca_file=str(authority.file))
    daemon.begin()
    said = daemon.heard("broker away")["detail"]
    assert said.startswith("TLS: its certificate has expired; a new one, or a clock that is right")
    assert ("clock is not set" in said) == (not _clock_is_known(stage))
    assert daemon.stop() == 0


@with_openssl
def test_renewed_files_count_from_the_next_connection_on(stage: Stage, tmp_path: Path) -> None:
    """Nothing is restarted or reloaded: a program that renews certificates writes them, and that is all."""
    (tmp_path / "new").mkdir()
    old, new = Authority(tmp_path), Authority(tmp_path / "new", "new")
    ca, certificate, key = (tmp_path / name for name in ("used-ca.pem", "used.pem", "used.key"))

    def use(authority: Authority) -> None:
        pair = authority.issue("box")
        for there, here in ((authority.file, ca), (pair.certificate, certificate), (pair.key, key)):
            shutil.copy(there, here)

    server = tmp_path / "server"
    server.mkdir()

    def serve(authority: Authority) -> None:
        pair = authority.issue("broker", *NAMES)
        shutil.copy(pair.certificate, server / "cert.pem")
        shutil.copy(pair.key, server / "key.pem")
        shutil.copy(authority.file, server / "ca.pem")

    use(old)
    serve(old)
    port = free_port()
    files = [f"cafile {server}/ca.pem", f"certfile {server}/cert.pem", f"keyfile {server}/key.pem"]
    broker = stage.broker(f"listener {port} 127.0.0.1", *files, "require_certificate true")
    daemon = stage.daemon()
    calls(daemon, port, ca_file=str(ca), cert_file=str(certificate), key_file=str(key)).start()
    use(new)
    broker.stop()
    until(lambda: not daemon.status()["mqtt"]["connected"], "the loss")
    serve(new)
    broker.restart()
    until(lambda: daemon.status()["mqtt"]["connected"], "the connection with the new ones")
    assert daemon.stop() == 0


def test_a_file_that_is_gone_is_named(stage: Stage, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
    daemon = calls(stage.daemon(), free_port(), ca_file=str(file))
    daemon.begin()
    assert daemon.heard("broker away")["detail"].startswith(f"TLS: mqtt.ca_file: there is no certificate in {file}; ")
    assert daemon.stop() == 0


# Who we are


def test_user_and_password_from_credentials_and_a_new_password(stage: Stage, tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    passwords.touch(mode=0o600)
    subprocess.run(["mosquitto_passwd", "-b", passwords, "gate 17", "new-word"], check=True, capture_output=True)
    passwords.chmod(0o644)
    broker = stage.broker(f"password_file {passwords}", allow=False)
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    for name, content in (("mqtt-user", "gate 17\n"), ("mqtt-word", "old-word\n")):
        (credentials / name).write_text(content)
        (credentials / name).chmod(0o400)
    daemon = stage.daemon(None, broker)
    daemon.environ["CREDENTIALS_DIRECTORY"] = str(credentials)
    daemon.configure(mqtt={"user_file": "mqtt-user", "password_file": "mqtt-word"})
    daemon.begin()
    said = daemon.heard("broker away")["detail"]
    assert said.startswith("refused: ")
    assert "mqtt." in said
    # It would be tried again in half a minute; the reload is what helps, and it counts at once.
    (credentials / "mqtt-word").chmod(0o600)
    (credentials / "mqtt-word").write_text("new-word")
    begun = time.monotonic()
    assert daemon.program is not None
    daemon.program.process.send_signal(signal.SIGHUP)
    until(lambda: daemon.status()["mqtt"]["connected"], "the connection")
    assert time.monotonic() - begun < 12
    assert "u'gate 17'" in broker.program.text
    for word in ("old-word", "new-word"):
        assert word not in daemon.text
    assert daemon.stop() == 0


# Several brokers


def _with_fallback(stage: Stage, module: Module | None = None, **options: object) -> tuple[Broker, Broker, Daemon]:
    first = stage.broker()
    (stage.folder / "second").mkdir()
    second = Broker(stage.folder / "second")
    stage._stack.callback(lambda: second.program.stop(signal.SIGKILL))
    daemon = stage.daemon(module, first)
    daemon.configure(mqtt={"fallbacks": [{"host": "127.0.0.1", "port": second.port}], **options})
    return first, second, daemon


def test_a_second_broker_stands_in_and_the_mirror_has_no_gap(stage: Stage) -> None:
    first, second, daemon = _with_fallback(stage, stage.module())
    daemon.start()
    assert daemon.status()["mqtt"]["preferred"]
    other = stage.ear(second)
    commands = ["AT+GMI", "AT+GMM", "AT#CGMI"] * 4
    with Caller(daemon.tcp) as caller:
        caller.ask(b"AT\r")
        first.stop(signal.SIGKILL)
        for command in commands:
            caller.ask(command.encode() + b"\r")
    until(lambda: daemon.status()["mqtt"]["connected"], "the fallback")
    status = daemon.status()["mqtt"]
    assert (status["preferred"], status["broker"]) == (False, f"127.0.0.1:{second.port}")
    until(lambda: len(other.records("event/response", door="tcp")) >= len(commands), "the mirror there")
    assert [record["cmd"] for record in other.records("event/response", door="tcp")][-12:] == commands
    ask(second, "there")
    assert other.hear("at/response", id="there")["state"] == "ok"
    assert daemon.stop() == 0
    assert other.hear("status", state="offline")["reason"] == "stopped"


def test_the_same_request_at_both_brokers_runs_once(stage: Stage) -> None:
    module = stage.module()
    first, second, daemon = _with_fallback(stage, module)
    daemon.start()
    ear = stage.ear(first)
    ask(first, "twice", "AT+CIMI")
    assert ear.hear("at/response", id="twice")["state"] == "ok"
    first.stop(signal.SIGKILL)
    until(lambda: daemon.status()["mqtt"]["connected"] and not daemon.status()["mqtt"]["preferred"], "the fallback")
    other = stage.ear(second)
    ask(second, "twice", "AT+CIMI")
    assert other.hear("at/response", id="twice")["state"] == "ok"
    assert module.count("AT+CIMI") == 1


# Limits


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_broker_that_takes_one_message_at_a_time(stage: Stage, protocol: str) -> None:
    broker = stage.broker("max_inflight_messages 1", "max_queued_messages 1000")
    daemon = stage.daemon(stage.module(), broker)
    daemon.configure(mqtt={"protocol": protocol})
    daemon.start()
    ear = stage.ear(broker)
    with Caller(daemon.tcp) as caller:
        for _ in range(50):
            caller.ask(b"AT+GMI\r")
    until(lambda: len(ear.records("event/response", door="tcp")) >= 50, "the mirror", 30)
    numbers = [record["seq"] for record in ear.records("event/response", door="tcp")]
    assert numbers == sorted(set(numbers))
    assert not daemon.logged("broker away")


def test_a_record_that_is_too_long_for_the_broker(stage: Stage) -> None:
    """MQ-4: it is set aside and said, without a connection lost over it; what is behind it goes out."""
    module, broker = stage.module(), stage.broker("max_packet_size 2000")
    module.ask("answer", command="AT+COPS=?", lines=["+COPS: " + "x" * 1000] * 3, always=True)
    daemon = stage.daemon(module, broker).start()
    ear = stage.ear(broker)
    with Caller(daemon.tcp) as caller:
        caller.ask(b"AT+COPS=?\r")
        caller.ask(b"AT+GMI\r")
    ear.hear("event/response", cmd="AT+GMI")
    assert "and the broker takes 2000" in daemon.heard("record set aside")["detail"]
    assert daemon.heard("broker connected")["packet_max"] == 2000
    assert not daemon.logged("broker away")


def test_a_broker_with_a_shorter_keep_alive(stage: Stage) -> None:
    """MQTT 5: Server Keep Alive. The broker would drop us after half as long again."""
    broker = stage.broker("max_keepalive 10", "log_type all")  # no less is possible
    daemon = stage.daemon(None, broker)
    daemon.configure(mqtt={"metrics": 0})
    daemon.start()
    until(lambda: "PINGREQ from atrund-box" in broker.program.text, "a ping, four minutes early", 30)
    time.sleep(6)
    assert daemon.status()["mqtt"]["connected"]
    assert not daemon.logged("broker away")


# Two devices of one name


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_two_devices_of_one_name(stage: Stage, protocol: str) -> None:
    broker = stage.broker()
    daemons = [stage.daemon(None, broker, folder) for folder in ("one", "two")]
    for daemon in daemons:
        daemon.configure(mqtt={"protocol": protocol})
        daemon.begin()
    for daemon in daemons:
        said = daemon.heard("another device uses this node's name; the broker is dialled slowly from now on")
        assert (said["node"], said["level"]) == ("atrund/box", "error")
    for daemon in daemons:
        assert daemon.status()["mqtt"]["another_device"]
    before = broker.program.text.count(" as atrund-box")
    time.sleep(5)
    assert broker.program.text.count(" as atrund-box") - before <= 2, "dialled slowly"


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_daemon_that_was_killed_is_not_another_device(stage: Stage, protocol: str) -> None:
    """Nor is one whose will the broker could not publish, for it died as well."""
    broker = stage.broker("persistence true", f"persistence_location {stage.folder}/", "autosave_interval 1")
    daemon = stage.daemon(None, broker)
    daemon.configure(mqtt={"protocol": protocol})
    for number in range(4):
        daemon.start()
        if number % 2:
            broker.stop()  # writes down what is retained: `online`
            daemon.kill()
            broker.restart()
        else:
            daemon.kill()
    daemon.start()
    time.sleep(0.5)
    assert not daemon.status()["mqtt"]["another_device"]
    assert not [entry for entry in daemon.log if entry["event"].startswith("another device")]
    late = stage.ear(broker)
    assert late.hear("status")["state"] == "online"


def _clock_is_known(stage: Stage) -> bool:
    daemon = stage.daemon(folder="clock")
    daemon.start()
    known = bool(daemon.status()["clock"]["known"])
    daemon.stop()
    return known
