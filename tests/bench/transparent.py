# SPDX-License-Identifier: Apache-2.0
"""Transparent mode beside ser2net: octets a second each way, and what a megabyte costs of the processor.

Both have a pseudo-terminal as their serial port, whose speed nothing limits, and take turns. The daemon's packets are
1500 octets after 100 ms, the least that `#SCFG` has; what is measured ends with the last octet at the other end.
"""

import os
import select
import signal
import socket
import time
import tty
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.bench.figures import Aims, Spread, table, title
from tests.bench.stage import PASSWORD, USER, BenchError, Daemon, Program, Stage, deadline, find, pythons

SIZES: Final = (1, 64, 1024, 4096, 65536)
"""Octets of one write."""
TAKES: Final = 5
OCTETS: Final = {1: 100_000, 64: 2_000_000}
"""How many pass in one take, by the size of a write; `MUCH` for the others."""
MUCH: Final = 8_000_000
WARM_UP: Final = 100_000

MEGABYTE: Final = 1_000_000


@dataclass(slots=True)
class _Way:
    """One program between a socket and a pseudo-terminal, with both other ends in hand."""

    name: str
    pid: int
    socket: socket.socket
    device: int
    rates: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    costs: dict[tuple[str, int], list[float]] = field(default_factory=dict)

    def take(self, direction: str, size: int, octets: int) -> None:
        """Pass so many octets, and note the rate in MB/s and the processor's seconds for a megabyte."""
        sending, hearing = self.socket.fileno(), self.device
        if direction == FROM_PORT:
            sending, hearing = hearing, sending
        before, begun = _processor(self.pid), time.perf_counter()
        feeder = _feed(sending, size, octets)
        try:
            with deadline(f"{self.name}: {octets} octets {direction}", 120.0):
                _hear(hearing, octets)
            seconds, used = time.perf_counter() - begun, _processor(self.pid) - before
        finally:
            os.kill(feeder, signal.SIGKILL)
            os.waitpid(feeder, 0)
        self.rates.setdefault((direction, size), []).append(octets / MEGABYTE / seconds)
        self.costs.setdefault((direction, size), []).append(used / (octets / MEGABYTE))


TO_PORT: Final = "to the port"
FROM_PORT: Final = "from the port"


def measure(stage: Stage, aims: Aims) -> None:
    """Measure both in turns, and print them beside each other."""
    with ExitStack() as stack:
        ours, theirs = _ours(stage, stack), _ser2net(stage, stack)
        for direction in (TO_PORT, FROM_PORT):
            for way in (ours, theirs):
                way.take(direction, 1024, WARM_UP)
                way.rates.clear()
                way.costs.clear()
        for number in range(TAKES):
            for direction in (TO_PORT, FROM_PORT):
                for size in SIZES:
                    for way in (ours, theirs) if number % 2 else (theirs, ours):
                        way.take(direction, size, OCTETS.get(size, MUCH))
    title(f"transparent mode, {TAKES} takes, medians: MB/s, and ms of the processor for a MB")
    rows = []
    for direction in (TO_PORT, FROM_PORT):
        for size in SIZES:
            key = direction, size
            rate, other = (Spread.of(way.rates[key]).median for way in (ours, theirs))
            cost, their_cost = (Spread.of(way.costs[key]).median * 1000 for way in (ours, theirs))
            row = (f"{rate:.1f}", f"{other:.1f}", f"{rate / other:.2f}", f"{cost:.0f}", f"{their_cost:.0f}")
            rows.append((f"writes of {size}, {direction}", *row))
            aims.at_most(f"ser2net's throughput / ours, writes of {size}, {direction}", other / rate, 1.0)
    table(("", "atrund", "ser2net", "ratio", "atrund ms", "ser2net ms"), rows)


def _ours(stage: Stage, stack: ExitStack) -> _Way:
    device, path = _pair(stack)
    daemon = Daemon(stage, "transparent", pythons()[0], mqtt=False, serial=path)
    daemon.start()
    assert daemon.program
    link = stack.enter_context(socket.create_connection(("127.0.0.1", daemon.tcp_port())))
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    link.sendall(f"{USER}\r{PASSWORD}\rATE0\r".encode())
    _read_to(link, b"OK\r\n")
    for line, end in (("AT#SCFG=1,1,1500,0,600,1", b"OK\r\n"), ("AT#TCPATCONSER=1,115200", b"CONNECT\r\n")):
        link.sendall(line.encode() + b"\r")
        _read_to(link, end)
    return _Way("atrund", daemon.program.pid, link, device)


def _ser2net(stage: Stage, stack: ExitStack) -> _Way:
    device, path = _pair(stack)
    programs: list[Program] = []

    def start(port: int) -> Program:
        file = stage.directory / "ser2net-transparent.yaml"
        file.write_text(
            "%YAML 1.1\n---\n"
            f"connection: &port\n  accepter: tcp(nodelay),127.0.0.1,{port}\n"
            f"  connector: serialdev(nouucplock),{path},115200n81,local\n"
            "  options:\n    chardelay: false\n"
        )
        programs.append(stage.add("ser2net-transparent", [find("ser2net"), "-n", "-c", file]))
        return programs[-1]

    port = stage.on_free_port("ser2net-transparent", start)
    link = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # It opens its port behind the connection, and drops what comes before.
    link.sendall(b"?")
    with deadline("ser2net opens its port"):
        if os.read(device, 1) != b"?":
            raise BenchError("ser2net passes something else")
    return _Way("ser2net", programs[-1].pid, link, device)


def _pair(stack: ExitStack) -> tuple[int, str]:
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    stack.callback(os.close, ours)
    stack.callback(os.close, theirs)
    return ours, os.ttyname(theirs)


def _feed(descriptor: int, size: int, octets: int) -> int:
    """Send from a process of its own, whose interpreter waits for nobody; returns its id."""
    if child := os.fork():
        return child
    try:
        piece = bytes(range(256)) * (size // 256 + 1)
        left = octets
        while left:
            left -= os.write(descriptor, piece[: min(size, left)])
        signal.pause()
    finally:
        os._exit(0)


def _hear(descriptor: int, octets: int) -> None:
    while octets:
        select.select([descriptor], [], [])
        octets -= len(os.read(descriptor, min(65536, octets)))


def _read_to(link: socket.socket, end: bytes) -> None:
    found = b""
    with deadline(f"atrund: {end!r}"):
        while not found.endswith(end):
            piece = link.recv(4096)
            if not piece or b"ERROR" in found:
                raise BenchError(f"atrund said {found!r}")
            found += piece


def _processor(pid: int) -> float:
    """Return the seconds of the processor that a program has used, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
