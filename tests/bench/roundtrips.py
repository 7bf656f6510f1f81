# SPDX-License-Identifier: Apache-2.0
"""Command round trips: from the first byte of a command to the last of its OK, through each door and each peer.

The peers take turns in blocks, each round beginning with another one, so that a drift of the machine is in all of them.
What the daemon writes behind is charged to its own block, then left to end before the next one's.
"""

import json
import os
import socket
import time
import tty
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from atrund.sms.address import Address
from atrund.sms.pdu import Dcs, Deliver, Timestamp, UserData
from tests.bench.figures import Aims, Spread, table, title
from tests.bench.relay import TOPIC_REQUEST, TOPIC_RESPONSE, no_delay
from tests.bench.stage import NUMBER, PASSWORD, USER, BenchError, Daemon, Program, Stage, deadline, find, wait_until

LINES: Final = ("AT", "AT+CSQ")
ROUNDS: Final = 8
BLOCK: Final = 125
"""Commands of a block; with the rounds, 1000 of each line through each peer."""
WARM_UP: Final = 50
SETTLE: Final = 0.35
"""Seconds for what was written behind to reach disk and broker: the ledger gathers for 0.2 of them."""
MESSAGES: Final = 20
"""Messages of a block; with the rounds, 160."""

_OK: Final = b"\r\nOK\r\n"


class Stream:
    """An AT interface at the other end of a descriptor: a pseudo-terminal, or a socket."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def ask(self, line: str) -> None:
        self.put(line + "\r", _OK)

    def put(self, text: str, end: bytes) -> None:
        """Send, and read until the answer ends so."""
        os.write(self._descriptor, text.encode())
        self.read_to(end)

    def read_to(self, end: bytes) -> bytes:
        answer = b""
        while not answer.endswith(end):
            piece = os.read(self._descriptor, 4096)
            if not piece:
                raise BenchError(f"the connection ended after {answer!r}")
            answer += piece
        return answer


class Control:
    """The control socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._file = connection.makefile("rb")

    def ask(self, line: str) -> None:
        self._connection.sendall(b'{"op":"at","cmd":"%b"}\n' % line.encode())
        for answer in self._file:
            if b'"final"' in answer and json.loads(answer)["event"] == "final":
                return


class Mqtt:
    """A request and its response at the broker, with the same QoS both ways."""

    def __init__(self, port: int, base: str, qos: int) -> None:
        self._base = base
        self._qos = qos
        self._answered = self._subscribed = False
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.on_message = self._note_answer
        self._client.on_subscribe = self._note_subscription
        self._client.on_socket_open = no_delay
        self._client.connect("127.0.0.1", port)
        self._client.subscribe(base + TOPIC_RESPONSE, qos=qos)
        with deadline("the broker"):
            while not self._subscribed:
                self._client.loop(1.0)

    def ask(self, line: str) -> None:
        self._answered = False
        self._client.publish(self._base + TOPIC_REQUEST.format(self._qos), line, qos=self._qos)
        while not self._answered:
            self._client.loop(1.0)

    def close(self) -> None:
        self._client.disconnect()

    def _note_answer(self, _client: paho.Client, _userdata: object, message: paho.MQTTMessage) -> None:
        if b'"peer":"bench%d"' % (1 - self._qos) in message.payload:
            return  # an answer to the other one, which came while this one was not asking
        if b"OK" not in message.payload:
            raise BenchError(f"no OK in {message.payload!r}")
        self._answered = True

    def _note_subscription(self, *_: object) -> None:
        self._subscribed = True


@dataclass(slots=True)
class Peer:
    """One way to the module."""

    name: str
    ask: Callable[[str], None]
    is_daemon: bool = False
    takes: dict[str, list[float]] = field(default_factory=lambda: {line: [] for line in LINES})

    def run(self, line: str, count: int) -> list[float]:
        """Ask so many times; microseconds each."""
        takes = []
        with deadline(f"{self.name}: {count} times {line}"):
            for _ in range(count):
                begun = time.perf_counter_ns()
                self.ask(line)
                takes.append((time.perf_counter_ns() - begun) / 1000)
        if self.is_daemon:
            time.sleep(SETTLE)
        return takes

    def spread(self, line: str) -> Spread:
        return Spread.of(self.takes[line])


def measure(stage: Stage, plain: Daemon, full: Daemon, aims: Aims) -> None:
    """Measure commands and messages and print both tables; `plain` is a daemon without MQTT, `full` one with it."""
    with ExitStack() as stack:
        peers = _peers(stage, plain, full, stack)
        for peer in peers.values():
            for line in LINES:
                peer.run(line, WARM_UP)
        for number in range(ROUNDS):
            ordered = list(peers.values())
            turned = ordered[number % len(ordered) :] + ordered[: number % len(ordered)]
            for line in LINES:
                for peer in turned:
                    peer.takes[line] += peer.run(line, BLOCK)
        _print_commands(peers, aims)
    _measure_messages(stage, full)


def _peers(stage: Stage, plain: Daemon, full: Daemon, stack: ExitStack) -> dict[str, Peer]:
    relay, _ = stage.start_relay("tcp", stage.terminal())
    over_mqtt: list[Peer] = []
    for qos in QOS:
        base = f"bench{qos}/"
        stage.start_relay("mqtt", stage.terminal(), str(stage.broker_port), base, str(qos))
        responder, door = Mqtt(stage.broker_port, base, qos), Mqtt(stage.broker_port, full.base, qos)
        stack.callback(responder.close)
        stack.callback(door.close)
        over_mqtt += [Peer(RESPONDER.format(qos), responder.ask), Peer(DOOR.format(qos), door.ask, is_daemon=True)]
    control = plain.connect()
    stack.callback(control.close)

    def stream(port: int, *, login: bool = False) -> Callable[[str], None]:
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stack.callback(connection.close)
        if login:
            connection.sendall(f"{USER}\r".encode())
            connection.sendall(f"{PASSWORD}\r".encode())
        return Stream(connection.fileno()).ask

    bare = _open(stage.terminal())
    stack.callback(os.close, bare)
    peers = [
        Peer(BARE, Stream(bare).ask),
        Peer(RELAY, stream(int(relay.ask()))),
        Peer("socat", stream(_start_socat(stage))),
        Peer("ser2net", stream(_start_ser2net(stage))),
        Peer(TCP_OFF, stream(plain.tcp_port(), login=True), is_daemon=True),
        Peer(TCP_ON, stream(full.tcp_port(), login=True), is_daemon=True),
        Peer("control socket", Control(control).ask, is_daemon=True),
        *over_mqtt,
    ]
    return {peer.name: peer for peer in peers}


BARE: Final = "bare pseudo-terminal"
RELAY: Final = "bare asyncio relay"
TCP_OFF: Final = "TCP door, mirror off"
TCP_ON: Final = "TCP door, mirror on"
RESPONDER: Final = "bare paho responder, QoS {}"
DOOR: Final = "MQTT door, QoS {}"
QOS: Final = (0, 1)


def _print_commands(peers: dict[str, Peer], aims: Aims) -> None:
    for line in LINES:
        title(f"{line} to OK, {ROUNDS * BLOCK} times each, µs")
        bare, relay = peers[BARE].spread(line), peers[RELAY].spread(line)
        rows = []
        for peer in peers.values():
            spread = peer.spread(line)
            ratios = (spread.median / bare.median, spread.median / relay.median, spread.p95 / relay.p95)
            rows.append((peer.name, f"{spread.median:.0f}", f"{spread.p95:.0f}", *(f"{ratio:.2f}" for ratio in ratios)))
        table(("", "median", "p95", "/ bare", "/ relay", "p95 / relay"), rows)
        for name, limit in ((TCP_OFF, 2.0), (TCP_ON, 4.0)):
            aims.at_most(f"{name}, {line}, over the bare relay", peers[name].spread(line).median / relay.median, limit)
    title("The MQTT door over the bare paho responder of the same QoS")
    pairs = {
        f"{line}, QoS {qos}": [peers[name.format(qos)].spread(line) for name in (DOOR, RESPONDER)]
        for line in LINES
        for qos in QOS
    }
    rows = [
        (name, f"{door.median / responder.median:.2f}", f"{door.p95 / responder.p95:.2f}")
        for name, (door, responder) in pairs.items()
    ]
    table(("", "median", "p95"), rows)


def _measure_messages(stage: Stage, full: Daemon) -> None:
    """From +CMTI to the first byte of +CMGS: by the door, and by a loop that does the same exchanges and no more."""
    terminal = stage.terminal()
    bare = _open(terminal)
    doors: list[float] = []
    loops: list[float] = []
    try:
        for first in range(0, ROUNDS * MESSAGES, MESSAGES):
            messages = [_message(number) for number in range(first, first + MESSAGES)]
            loops += [_loop(stage, terminal, Stream(bare), pdu) for pdu in messages]
            doors += [int(stage.module.ask(f"sms {full.terminal} {pdu}")) / 1000 for pdu in messages]
    finally:
        os.close(bare)
    title(f"SMS, +CMTI to the first byte of +CMGS, {len(doors)} times each, µs")
    loop, door = Spread.of(loops), Spread.of(doors)
    table(
        ("", "median", "p95", "/ bare"),
        [
            ("the same exchanges in a bare loop", f"{loop.median:.0f}", f"{loop.p95:.0f}", "1.00"),
            ("SMS door, recorded thrice", f"{door.median:.0f}", f"{door.p95:.0f}", f"{door.median / loop.median:.1f}"),
        ],
    )


def _loop(stage: Stage, terminal: str, stream: Stream, pdu: str) -> float:
    stage.module.say(f"sms {terminal} {pdu}")
    with deadline("a message on the bare pseudo-terminal"):
        stream.read_to(b",1\r\n")
        for line in ('AT+CMGF=0;+CPMS="SM","SM","SM"', "AT+CMGR=1", "AT+CSQ", "AT+CMGF=0"):
            stream.ask(line)
        stream.put("AT+CMGS=20\r", b"> ")
        stream.put("00" * 20 + "\x1a", _OK)
        stream.ask("AT+CMGD=1")
    return int(stage.module.ask()) / 1000


def _message(number: int) -> str:
    """The PDU of a message that no other one equals."""
    moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number)
    sender = Address.parse(NUMBER)
    return Deliver(sender, Timestamp.of(moment), UserData.from_text("AT+CSQ", Dcs(0))).encode().hex().upper()


def _open(terminal: str) -> int:
    descriptor = os.open(terminal, os.O_RDWR | os.O_NOCTTY)
    tty.setraw(descriptor)
    return descriptor


def _start_socat(stage: Stage) -> int:
    listen = "TCP-LISTEN:0,bind=127.0.0.1,nodelay"
    program = stage.add("socat", [find("socat"), "-d", "-d", listen, f"OPEN:{stage.terminal()},rawer"])
    wait_until(lambda: program.said("listening on") is not None, "socat")
    return int((program.said("listening on") or "").rpartition(":")[2])


def _start_ser2net(stage: Stage) -> int:
    terminal = stage.terminal()

    def start(port: int) -> Program:
        file = stage.directory / "ser2net.yaml"
        file.write_text(
            "connection: &module\n"
            f"  accepter: tcp(nodelay),127.0.0.1,{port}\n"
            f"  connector: serialdev(nouucplock),{terminal},115200n81,local\n"
            "  options:\n    chardelay: false\n    kickolduser: true\n"
        )
        return stage.add("ser2net", [find("ser2net"), "-n", "-c", file])

    return stage.on_free_port("ser2net", start)
