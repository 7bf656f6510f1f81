# SPDX-License-Identifier: Apache-2.0
"""What a node costs in data: a connection to the broker, being idle, a command.

Each daemon reaches a real mosquitto through a relay of this program, and the connection between the two is counted by
the kernel itself (TCP_INFO: octets and segments each way), which knows acknowledgements and what was sent again; each
segment has its headers added. That needs no privilege. The relay announces an MSS of `MSS`: that of loopback is 64 KiB.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import struct
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from atrund.config.mqtt import Mqtt
from tests.bench.figures import table, title
from tests.bench.stage import BenchError, Daemon, Program, Stage, find, pythons, wait_until
from tests.support.certificates import Authority, Pair

MSS: Final = 1360
"""Octets of a segment that a cellular link takes as a rule: its MTU of 1400 without headers."""
KEEPALIVE: Final = 10
"""Seconds, the shortest that can be set; what one ping costs does not depend on it."""
PINGS: Final = 2
METRICS: Final = 10
"""Seconds, likewise."""
COMMANDS: Final = 10
COMMAND: Final = "AT+CSQ"
QUIET: Final = 0.5
"""Seconds after which nothing of an exchange is on its way: a delayed acknowledgement takes 0.04, at most 0.2."""
MONTH: Final = 30 * 86400
USUAL_KEEPALIVE: Final = int(Mqtt().keepalive)
USUAL_METRICS: Final = int(Mqtt().metrics)
HANDSHAKE: Final = 2 * 60
"""SYN and SYN-ACK, which a socket doesn't count: 20 octets of IPv4, 20 of TCP, 20 of options."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a daemon speaks to its broker."""

    name: str
    protocol: str
    listener: str = "clear"
    """clear, tls, or certificates: the broker's, of those that it has."""


WAYS: Final = (
    Way("3.1.1, clear text", "3.1.1"),
    Way("3.1.1, TLS 1.3", "3.1.1", "tls"),
    Way("5, clear text", "5"),
    Way("5, TLS 1.3", "5", "tls"),
    Way("5, TLS 1.3, client certificate", "5", "certificates"),
)


@dataclass(frozen=True, slots=True)
class Octets:
    """What went over the wire, headers and all; up is from the node."""

    up: int = 0
    down: int = 0

    def __sub__(self, other: "Octets") -> "Octets":
        return Octets(self.up - other.up, self.down - other.down)

    @property
    def both(self) -> int:
        return self.up + self.down


class Relay:
    """Passes one connection at a time on to a port of the broker."""

    def __init__(self, port: int) -> None:
        self._broker = port
        self._listener = socket.socket()
        self._listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, MSS)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        self.port: int = self._listener.getsockname()[1]
        self.links = 0
        self._link: socket.socket | None = None
        threading.Thread(target=self._serve, daemon=True).start()

    def octets(self) -> Octets:
        """What the present connection has cost, but for the two segments before it was one."""
        if self._link is None:
            raise BenchError("a daemon is not connected to its broker")
        told = self._link.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 216)
        if len(told) < 216:
            raise BenchError("this kernel does not count the octets of a connection (TCP_INFO)")
        header = 20 + 20 + (12 if told[5] & 1 else 0)  # IPv4, TCP, and its timestamps
        (received,) = struct.unpack_from("=Q", told, 128)
        segments_out, segments_in = struct.unpack_from("=II", told, 136)
        (sent,) = struct.unpack_from("=Q", told, 200)
        return Octets(received + segments_in * header, sent + segments_out * header)

    def cut(self) -> None:
        if self._link is not None:
            with contextlib.suppress(OSError):
                self._link.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()
        self.cut()

    def _serve(self) -> None:
        while True:
            try:
                link, _ = self._listener.accept()
            except OSError:
                return
            try:
                broker = socket.create_connection(("127.0.0.1", self._broker))
            except OSError:
                link.close()
                continue
            for each in (link, broker):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._link = link
            self.links += 1
            other = threading.Thread(target=_pass, args=(broker, link), daemon=True)
            other.start()
            _pass(link, broker)
            other.join()
            self._link = None
            link.close()
            broker.close()


@dataclass(slots=True)
class Node(Daemon):
    """A daemon behind a relay."""

    way: Way = WAYS[0]
    port: int = 0
    pair: Pair | None = None
    keepalive: int = KEEPALIVE
    metrics: int = 0

    def follow(self, *, keepalive: int, metrics: int) -> None:
        """Have it read another configuration; the keep-alive counts from its next connection on."""
        self.keepalive, self.metrics = keepalive, metrics
        self._file.write_text(self._configuration(self.stage.directory / "password"))
        os.kill(self.pid, signal.SIGHUP)

    def _configuration(self, password: Path) -> str:
        lines = [f"port = {self.port}", f'protocol = "{self.way.protocol}"', f'keepalive = "{self.keepalive}s"']
        lines.append(f'metrics = "{self.metrics}s"')
        if self.way.listener != "clear":
            lines += ["tls = true", f'ca_file = "{self.stage.directory}/wire/ca.pem"']
        if self.way.listener == "certificates" and self.pair is not None:
            lines += [f'cert_file = "{self.pair.certificate}"', f'key_file = "{self.pair.key}"']
        usual = Daemon._configuration(self, password)
        return usual.replace(f"port = {self.stage.broker_port}\nremote_at", "\n".join([*lines, "remote_at"]))


@dataclass(slots=True)
class Bill:
    """What one way cost."""

    way: Way
    connecting: Octets = field(default_factory=Octets)
    ping: int = 0
    metrics: int = 0
    command: Octets = field(default_factory=Octets)


def measure(stage: Stage) -> None:
    """Print what a connection, a month of idling and a command cost, for each way."""
    title("data on the wire, octets with TCP and IPv4 headers")
    if shutil.which("openssl") is None:
        print("  not measured: there is no openssl to make certificates")
        return
    ports, pair = _broker(stage)
    relays = [Relay(ports[way.listener]) for way in WAYS]
    nodes = [
        Node(stage, f"wire{number}", pythons()[0], mqtt=True, way=way, port=relay.port, pair=pair)
        for number, (way, relay) in enumerate(zip(WAYS, relays, strict=True))
    ]
    asker = Asker(ports["clear"])
    bills = [Bill(way) for way in WAYS]
    try:
        for node in nodes:
            node.start()
            asker.hear(node)
        _measure_commands(bills, relays, nodes, asker)
        _measure_idling(bills, relays)
        for node in nodes:
            node.follow(keepalive=USUAL_KEEPALIVE, metrics=METRICS)
        _measure_connecting(bills, relays)
        _measure_metrics(bills, relays, nodes, asker)
    finally:
        asker.close()
        for node, relay in zip(nodes, relays, strict=True):
            if node.program is not None:
                node.stop()
            relay.close()
    _print(bills)


class Asker:
    """Asks all nodes and hears the outcomes and metrics of all."""

    def __init__(self, port: int) -> None:
        self.ended: set[str] = set()
        self.told: Counter[str] = Counter()
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = lambda _c, _u, message: self._take(message)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def hear(self, node: Node) -> None:
        self._client.subscribe([(node.base + "event/response", 1), (node.base + "metrics", 0)])

    def ask(self, node: Node, id_: str) -> None:
        self._client.publish(node.base + "at/request/bench", json.dumps({"id": id_, "cmd": COMMAND}), qos=1)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _take(self, message: paho.MQTTMessage) -> None:
        if message.topic.endswith("metrics"):
            self.told[message.topic] += 1
        else:
            self.ended.add(json.loads(message.payload)["id"])


def _measure_connecting(bills: list[Bill], relays: list[Relay]) -> None:
    """From the SYN to the last of what is published at the beginning."""
    before = [relay.links for relay in relays]
    for relay in relays:
        relay.cut()
    wait_until(lambda: all(relay.links > n for relay, n in zip(relays, before, strict=True)), "all connected again")
    time.sleep(4 * QUIET)
    for bill, relay in zip(bills, relays, strict=True):
        told = relay.octets()
        bill.connecting = Octets(told.up + HANDSHAKE // 2, told.down + HANDSHAKE // 2)


def _measure_commands(bills: list[Bill], relays: list[Relay], nodes: list[Node], asker: Asker) -> None:
    """One after the other, each behind the last acknowledgement of the one before: nothing shares a segment."""
    time.sleep(4 * QUIET)
    before = [relay.octets() for relay in relays]
    for number in range(COMMANDS):
        ids = {f"{node.name}-{number:02}": node for node in nodes}
        for id_, node in ids.items():
            asker.ask(node, id_)
        wait_until(lambda ids=ids: asker.ended >= set(ids), "the outcome of a command")  # type: ignore[misc]
        time.sleep(QUIET)
    for bill, relay, was in zip(bills, relays, before, strict=True):
        spent = relay.octets() - was
        bill.command = Octets(round(spent.up / COMMANDS), round(spent.down / COMMANDS))


def _measure_metrics(bills: list[Bill], relays: list[Relay], nodes: list[Node], asker: Asker) -> None:
    """From quiet to quiet with one of them between, for all at a time."""

    def measure_one(relay: Relay, node: Node) -> int:
        _hear_another(asker, node)
        before = relay.octets()
        _hear_another(asker, node)
        return (relay.octets() - before).both

    with ThreadPoolExecutor(len(nodes)) as pool:
        for bill, cost in zip(bills, pool.map(measure_one, relays, nodes), strict=True):
            bill.metrics = cost


def _hear_another(asker: Asker, node: Node) -> None:
    topic = node.base + "metrics"
    had, end = asker.told[topic], time.monotonic() + 4 * METRICS
    while asker.told[topic] == had:
        if time.monotonic() > end:
            raise BenchError(f"{node.name}: no metrics within {4 * METRICS} s")
        time.sleep(QUIET / 10)
    time.sleep(QUIET)


def _measure_idling(bills: list[Bill], relays: list[Relay]) -> None:
    """Several pings, told by what they bring and not by the time."""
    takes: list[list[int]] = [[] for _ in relays]
    last = [relay.octets().both for relay in relays]
    end = time.monotonic() + (PINGS + 2) * KEEPALIVE
    while min(map(len, takes)) < PINGS:
        if time.monotonic() > end:
            raise BenchError(f"not {PINGS} pings within {(PINGS + 2) * KEEPALIVE} s")
        time.sleep(QUIET)
        for number, relay in enumerate(relays):
            now = relay.octets().both
            if now != last[number]:
                time.sleep(QUIET)
                now = relay.octets().both
                takes[number].append(now - last[number])
                last[number] = now
    for bill, took in zip(bills, takes, strict=True):
        bill.ping = min(took)  # something else may have been said meanwhile


def _print(bills: list[Bill]) -> None:
    pings, tellings = MONTH // USUAL_KEEPALIVE, MONTH // USUAL_METRICS
    rows = [
        (
            bill.way.name,
            f"{bill.connecting.up} + {bill.connecting.down}",
            str(bill.ping),
            str(bill.metrics),
            f"{bill.command.up} + {bill.command.down}",
            f"{bill.ping * pings / 1e6:.2f}",
            f"{bill.metrics * tellings / 1e6:.2f}",
            f"{bill.command.both * 1000 / 1e6:.2f}",
        )
        for bill in bills
    ]
    table(("MQTT", "connecting", "ping", "metrics", "command", "MB/month: pings", "metrics", "1000 commands"), rows)
    print(f"  up + down. A command is {COMMAND} with its request, answer and two events, all with QoS 1.")
    print(f"  A month has {pings} pings at the usual {USUAL_KEEPALIVE} s, and {tellings} metrics at {USUAL_METRICS} s;")
    print(f"  measured at {KEEPALIVE} and {METRICS} s: what one costs does not depend on how many there are.")


def _broker(stage: Stage) -> tuple[dict[str, int], Pair]:
    """Start a mosquitto with a listener for each way; their ports, and a client's certificate."""
    folder = stage.directory / "wire"
    folder.mkdir(mode=0o711)
    authority = Authority(folder)
    server = authority.issue("broker", "DNS:localhost", "IP:127.0.0.1")
    server.key.chmod(0o644)  # mosquitto has given root's rights up when it reads it
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        ports: dict[str, int] = {"tls": one.getsockname()[1], "certificates": two.getsockname()[1]}
    secure = f"cafile {authority.file}\ncertfile {server.certificate}\nkeyfile {server.key}\n"
    lines = [f"listener {port} 127.0.0.1\n{secure}" for port in ports.values()]

    def start(port: int) -> Program:
        file = folder / "mosquitto.conf"
        clear = f"allow_anonymous true\nset_tcp_nodelay true\nlistener {port} 127.0.0.1\n"
        file.write_text(clear + "".join(lines) + "require_certificate true\n")
        return stage.add("wire mosquitto", [find("mosquitto"), "-c", file])

    ports["clear"] = stage.on_free_port("wire mosquitto", start)
    return ports, authority.issue("node")


def _pass(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)
