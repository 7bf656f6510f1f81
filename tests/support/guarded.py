# SPDX-License-Identifier: Apache-2.0
"""mosquitto with the shipped files of etc/mosquitto, paths and ports changed, and clients of any right."""

import os
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.scenarios.players import MOSQUITTO, PATIENCE, ROOT, Program, until
from tests.support import contract
from tests.support.certificates import KEY, Authority, Pair
from tests.support.ports import free_port

EXAMPLES: Final = ROOT / "etc" / "mosquitto"
WORD: Final = "a password of {}"
DENIED: Final = 0x87
"""MQTT 5: Not authorized."""
ACCEPTED: Final = (0x00, 0x10)
"""MQTT 5: Success, and No matching subscribers."""


def certificate(authority: Authority, name: str) -> Pair:
    """Make a client's certificate for a common name that may have a "/" in it."""
    file = authority.folder / name.replace("/", "-")
    pair, request = Pair(file.with_suffix(".pem"), file.with_suffix(".key")), file.with_suffix(".csr")
    subject = "/CN=" + name.replace("/", "\\/")
    signing = ("-CA", authority.file, "-CAkey", authority.file.with_suffix(".key"), "-CAcreateserial")
    for words in (
        ("req", *KEY, "-subj", subject, "-keyout", pair.key, "-out", request),
        ("x509", "-req", "-in", request, *signing, "-days", "20", "-out", pair.certificate),
    ):
        subprocess.run(["openssl", *words], check=True, capture_output=True)
    pair.key.chmod(0o600)
    return pair


class Words(NamedTuple):
    """What stands in the shipped file, and what stands there for a test."""

    shipped: str
    here: str


class Guarded:
    """A broker by atrund.conf and atrund.acl; `nodes` and `people` are its ports."""

    def __init__(
        self,
        folder: Path,
        authority: Authority,
        users: Iterable[str],
        *,
        acl: Iterable[Words] = (),
        more: str = "",
        extra: str = "",
    ) -> None:
        """`users` get passwords; `acl` is changed and `more` added in the access control, `extra` in the other file."""
        self.folder = folder
        self.authority = authority
        self.nodes, self.people = free_port(), free_port()
        self._config = folder / "mosquitto.conf"
        (folder / "certs").mkdir()
        pair = authority.issue("broker", "DNS:localhost", "IP:127.0.0.1")
        for name, file in (
            ("nodes-ca.pem", authority.file),
            ("broker.pem", pair.certificate),
            ("broker.key", pair.key),
        ):
            shutil.copy(file, folder / "certs" / name)
        (folder / "atrund.acl").write_text(shipped("atrund.acl", acl) + more)
        passwords = folder / "atrund.passwd"
        passwords.touch(0o600)
        for user in users:
            words = ["mosquitto_passwd", "-b", str(passwords), user, WORD.format(user)]
            subprocess.run(words, check=True, capture_output=True)
        changed = [
            Words("/etc/mosquitto/", f"{folder}/"),
            Words("listener 8883", f"listener {self.nodes} 127.0.0.1"),
            Words("listener 8884", f"listener {self.people} 127.0.0.1"),
        ]
        self._config.write_text(main_file(folder) + shipped("atrund.conf", changed) + extra)
        self.program = self._start()

    def stop(self) -> None:
        self.program.stop()

    def restart(self) -> None:
        self.program = self._start()

    def _start(self) -> Program:
        program = Program([MOSQUITTO, "-c", self._config], self.folder / "mosquitto.log")
        until(lambda: _listens(self.people) or program.said("^never"), "mosquitto")
        return program


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def main_file(folder: Path) -> str:
    """What Debian's own mosquitto.conf has, for this folder."""
    user = "user root\n" if os.geteuid() == 0 else ""
    return f"{user}persistence true\npersistence_location {folder}/\nlog_dest stderr\n"


def shipped(name: str, changed: Iterable[Words]) -> str:
    """A shipped file with some words replaced; each must be there."""
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    for old, new in changed:
        assert old in text, old
        text = text.replace(old, new)
    return text


class Client:
    """A client of a real broker, by its certificate or its password; it hears all that it is let to."""

    def __init__(
        self,
        broker: Guarded,
        user: str,
        *,
        pair: Pair | None = None,
        word: str | None = None,
        client_id: str = "",
        will: str | None = None,
        version: MQTTProtocolVersion = MQTTProtocolVersion.MQTTv5,
        port: int = 0,
        lasting: str = "",
    ) -> None:
        """One that is `lasting` connects again and has a session; it subscribes to that."""
        self.heard: list[tuple[str, bytes]] = []
        self.gone = threading.Event()
        self._acks: dict[int, int] = {}
        self._subscribed: dict[int, list[int]] = {}
        self._answer: list[int] = []
        self.client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=client_id, protocol=version, reconnect_on_failure=bool(lasting)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(broker.authority.file)
        if pair is not None:
            context.load_cert_chain(pair.certificate, pair.key)
        elif user:
            self.client.username_pw_set(user, WORD.format(user) if word is None else word)
        self.client.tls_set_context(context)
        if will is not None:
            self.client.will_set(will, b'{"state":"offline"}', qos=1, retain=True)
        self.client.on_socket_open = lambda _c, _u, link: _no_delay(link)
        self.client.on_connect = lambda _c, _u, _f, code, _p: self._connected(code.value, lasting)
        self.client.on_disconnect = lambda *_: self.gone.set()
        self.client.on_message = lambda _c, _u, message: self.heard.append((message.topic, bytes(message.payload)))
        self.client.on_publish = lambda _c, _u, mid, code, _p: self._acks.__setitem__(mid, code.value)
        self.client.on_subscribe = lambda _c, _u, mid, codes, _p: self._subscribed.__setitem__(
            mid, [code.value for code in codes]
        )
        session = None
        if lasting:
            session = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho leaves its constructor untyped
            session.SessionExpiryInterval = 3600
        self.client.connect(
            "127.0.0.1",
            port or (broker.people if pair is None else broker.nodes),
            clean_start=not lasting if version == MQTTProtocolVersion.MQTTv5 else paho.MQTT_CLEAN_START_FIRST_ONLY,
            properties=session,
        )
        self.client.loop_start()

    def __enter__(self) -> Self:
        assert self.code == 0, f"refused: {self.code:#x}"
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()
        # It closes its sockets when it is freed, and it is freed now when nothing of it leads back here.
        self.client.on_connect = self.client.on_disconnect = self.client.on_message = None
        self.client.on_publish = self.client.on_subscribe = self.client.on_socket_open = None

    @property
    def code(self) -> int:
        """What the broker answered to the connection; -1 is nothing. Anything but 0 ends it."""
        until(lambda: self._answer or self.gone.is_set(), "CONNACK")
        if self._answer[:1] != [0]:
            self.close()
        return self._answer[0] if self._answer else -1

    def publish(self, topic: str, payload: str = "{}", *, retain: bool = False, **properties: Any) -> int:  # noqa: ANN401 - as paho has them
        """Publish with QoS 1, and return what the broker says of it."""
        given = None
        if properties:
            given = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho leaves its constructor untyped
            for name, value in properties.items():
                setattr(given, name, value)
        told = self.client.publish(topic, payload.encode(), qos=1, retain=retain, properties=given)
        told.wait_for_publish(PATIENCE)
        until(lambda: told.mid in self._acks, f"PUBACK for {topic}")
        return self._acks[told.mid]

    def subscribe(self, *filters: str) -> list[int]:
        """Subscribe with QoS 1, and return the broker's answers."""
        _, mid = self.client.subscribe([(each, 1) for each in filters])
        assert mid is not None
        return until(lambda: self._subscribed.get(mid), f"SUBACK for {filters}")

    def hear(self, topic: str, word: str = "") -> bytes:
        """Wait for a message with this word in it. One of a daemon, which has a session, has to keep the contract."""
        found = until(
            lambda: next((body for at, body in self.heard if at == topic and word.encode() in body), None),
            f"{topic} with {word!r}; heard {self.heard[-20:]}",
        )
        if b'"session"' in found:
            contract.check(topic.partition("/box/")[2], found)
        return found

    def _connected(self, code: int, lasting: str) -> None:
        if lasting:
            self.client.subscribe(lasting, 1)
        self._answer.append(code)

    def topics(self) -> set[str]:
        return {topic for topic, _ in self.heard}

    def vanish(self) -> None:
        """Go without a word, so that the will counts."""
        link = self.client.socket()
        assert isinstance(link, socket.socket)
        link.shutdown(socket.SHUT_RDWR)
        until(self.gone.is_set, "the end of the connection")
        self.close()


def _no_delay(link: Any) -> None:  # noqa: ANN401 - a socket, of which paho only says that it has a number
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def mqtt_options(broker: Guarded, pair: Pair, **more: object) -> Mapping[str, object]:
    """The daemon's [mqtt] for a node's listener."""
    return {
        "enabled": True,
        "host": "localhost",
        "port": broker.nodes,
        "remote_at": True,
        "spread": 0,
        "tls": True,
        "ca_file": str(broker.authority.file),
        "cert_file": str(pair.certificate),
        "key_file": str(pair.key),
        **more,
    }
