# SPDX-License-Identifier: Apache-2.0
"""TCP from outside, more of it: habits of those who are called, what the module says by itself, floods."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from atrund.doors.tcp import NEWCOMERS_MAX
from tests.scenarios.conftest import Stage
from tests.scenarios.players import PATIENCE, ROOT, Caller, Daemon, Module, until
from tests.scenarios.test_tcp import segment
from tests.support.namespace import apart, ip

CSQ = b"\r\n+CSQ: 17,0\r\n\r\nOK\r\n"
FLOOD = 10_000
"""Connections: those of a minute, come as fast as they can be made."""
GROWTH_MAX = 512
"""KiB, behind the first thousand: fifty octets for each of the others would be too many."""


class Called(Caller):
    """Whom the daemon calls; sees every octet."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.socket.settimeout(PATIENCE)
        self.got = b""


@pytest.fixture(scope="module")
def module(shared_stage: Stage) -> Module:
    module = shared_stage.module()
    module.ask("answer", command="AT+CSQ", lines=["+CSQ: 17,0"], always=True)
    return module


@pytest.fixture(scope="module")
def client(shared_stage: Stage, module: Module) -> Iterator[tuple[Daemon, Called]]:
    """A daemon in client mode, and whom it called: one call for all tests, for the next is made later only."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)
        daemon = shared_stage.daemon(module)
        daemon.options["tcp"] = {}
        daemon.configure(
            **{"tcp.client": {"enabled": True, "host": "127.0.0.1", "port": listener.getsockname()[1], "retries": 0}}
        )
        daemon.start()
        connection, _ = listener.accept()
        with Called(connection) as called:
            yield daemon, called


@pytest.fixture
def called(client: tuple[Daemon, Called]) -> Called:
    return client[1]


@pytest.mark.parametrize(
    ("typed", "seen"),
    [
        (b"AT+CSQ\r", b"AT+CSQ\r" + CSQ),
        (b"AT+CSQ\r\n", b"AT+CSQ\r" + CSQ),
        (b"AT+CSQ\r\0", b"AT+CSQ\r" + CSQ),
        (b"AT+CSQ\n", b"AT+CSQ\n" + CSQ),
        (b"\xff\xf1AT\xff\xfa\x18\x01\xff\xf0+CSQ\r", b"AT+CSQ\r" + CSQ),
        (b"\xff\xfd\x01\xff\xfb\x1fAT+CSQ\r", b"\xff\xfc\x01\xff\xfe\x1fAT+CSQ\r" + CSQ),
        (b"\xff\xfd\x01AT+CSQ\r", b"AT+CSQ\r" + CSQ),  # asked again: declined once is enough
    ],
)
def test_whoever_is_called_may_type_as_a_caller_does(called: Called, typed: bytes, seen: bytes) -> None:
    assert called.ask(typed) == seen


def test_whoever_is_called_may_type_character_by_character(called: Called) -> None:
    called.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for octet in b"AT+CSQ":
        called.send(bytes((octet,)))
        assert called.socket.recv(1) == bytes((octet,))
    assert called.ask(b"\r") == b"\r" + CSQ


def test_whoever_is_called_may_paste_ten_thousand_commands(
    client: tuple[Daemon, Called], called: Called, module: Module
) -> None:
    """TCP-5: while one runs they are ignored, and with the sequence on they are run."""
    daemon, _ = client
    module.ask("late", command="AT#CGMI", seconds=2.0)
    module.ask("seen", clear=True)
    assert called.ask(b"AT#CGMI\r" + b"AT+GMM\r" * 10_000) == b"AT#CGMI\r\r\n#CGMI: Telit\r\n\r\nOK\r\n"
    assert called.ask(b"AT+CSQ\r") == b"AT+CSQ\r" + CSQ
    assert module.count("AT+GMM") == 0
    assert daemon.ctl("at", "AT#TCPATCMDSEQ=1").returncode == 0
    seen = pasted(called, b"".join(b"ATS%d?\r" % (3 + n % 3) for n in range(10_000)), 10_000)
    assert re.findall(rb"\r\n(0\d\d)\r\n\r\nOK\r\n", seen) == [(b"013", b"010", b"008")[n % 3] for n in range(10_000)]
    assert daemon.ctl("at", "AT#TCPATCMDSEQ=0").returncode == 0


def pasted(caller: Caller, paste: bytes, finals: int) -> bytes:
    """Send it as fast as it is taken, reading meanwhile; returns all up to so many OKs."""
    seen, place, end = bytearray(), 0, time.monotonic() + 2 * PATIENCE
    caller.socket.setblocking(False)
    while paste or finals:
        assert time.monotonic() < end, f"{finals} are missing"
        with contextlib.suppress(BlockingIOError):
            paste = paste[caller.socket.send(paste[:65536]) :]
        try:
            piece = caller.socket.recv(65536)
            assert piece, "closed"
            seen += piece
        except BlockingIOError:
            time.sleep(0.001)
        while (found := seen.find(b"OK\r\n", place)) >= 0:
            place, finals = found + 4, finals - 1
    caller.socket.settimeout(PATIENCE)
    return bytes(seen)


def test_whoever_is_called_and_does_not_read_holds_nobody_up(
    client: tuple[Daemon, Called], called: Called, module: Module
) -> None:
    """Eight megabytes of answers fill every buffer on the way to it."""
    daemon, _ = client
    module.ask("answer", command="AT#MONI=7", lines=["x" * 1000] * 50, always=True)
    assert daemon.ctl("at", "AT#TCPATCMDSEQ=1").returncode == 0
    called.send(b"AT#MONI=7\r" * 160)
    until(lambda: module.count("AT#MONI=7"), "the command at the module")
    for _ in range(5):
        done = daemon.ctl("at", "AT#CGMI")
        assert (done.returncode, done.stdout) == (0, "#CGMI: Telit\nOK\n")
    assert module.count("AT#MONI=7") < 160
    pasted(called, b"", 160)
    assert daemon.ctl("at", "AT#TCPATCMDSEQ=0").returncode == 0
    assert called.ask(b"AT+CSQ\r") == b"AT+CSQ\r" + CSQ


# What the module says by itself.


def test_unsolicited_lines_come_as_they_are_said(called: Called, module: Module) -> None:
    """Alone, with a second line, before an answer and between its lines, but never inside a line, nor lost."""
    module.ask("urc", text="#NITZ: one")
    assert called.read_until(b"one\r\n") == b"\r\n#NITZ: one\r\n"
    called.send(b"AT+C")
    assert called.read_until(b"AT+C") == b"AT+C"
    module.ask("urc", text="#NITZ: two")
    assert called.read_until(b"two\r\n") == b"\r\n#NITZ: two\r\n"
    assert called.ask(b"SQ\r") == b"SQ\r" + CSQ
    module.ask("late", command="AT#CGMI", seconds=1.0)
    called.send(b"AT+CSQ;#CGMI\r")
    until(lambda: module.count("AT+CSQ;#CGMI"), "the command at the module")
    module.ask("urc", text="#NITZ: three")
    seen = called.read_until(b"\r\nOK\r\n")
    assert seen.count(b"\r\n#NITZ: three\r\n") == 1
    answer = seen.replace(b"\r\n#NITZ: three\r\n", b"")
    assert answer == b"AT+CSQ;#CGMI\r\r\n+CSQ: 17,0\r\n\r\n#CGMI: Telit\r\n\r\nOK\r\n"


def test_unsolicited_lines_at_a_prompt_are_no_data(called: Called, module: Module) -> None:
    called.ask(b"AT+CMGF=1\r")
    called.ask(b'AT+CMGS="+393468686711"\r', b"\r\n> ")
    called.send(b"one t")
    assert called.read_until(b"one t") == b"one t"
    module.ask("urc", text="#NITZ: four")
    called.send(b"wo\x1a")
    assert b"+CMGS: " in called.read_until(b"\r\nOK\r\n")
    assert module.ask("sent", clear=True)["sent"][-1]["text"] == "one two"


# Who may come in, and how many may try.


def test_note_3_9_the_firewall_lets_in_217_and_nobody_else(stage: Stage) -> None:
    def scene() -> None:
        for address in ("217.1.2.3/32", "218.1.2.3/32", "192.0.2.1/32"):
            ip(f"addr add {address} dev lo")
        module = stage.module()
        daemon = stage.daemon(module)
        daemon.configure(tcp={"listen": ["192.0.2.1"], "insecure": True, "firewall": []})
        daemon.start()
        line = 'AT#TCPATRUNFRWL=2;#TCPATRUNFRWL=1,"217.0.0.0","255.0.0.0"'
        assert daemon.ctl("at", line).stdout.split() == ["OK"]
        there = ("192.0.2.1", daemon.tcp[1])
        with Caller(there, source="217.1.2.3") as caller:
            assert caller.ask(b"AT+CGMM\r") == b"AT+CGMM\r\r\nHE910-D\r\n\r\nOK\r\n"
        for source in ("218.1.2.3", "192.0.2.1"):
            with socket.socket() as stranger:
                stranger.bind((source, 0))
                stranger.settimeout(0.5)
                with pytest.raises(TimeoutError):
                    stranger.connect(there)

    apart(scene)


REFUSED_BY_THE_KERNEL = """
import ctypes, os, struct

number = {"x86_64": 54, "aarch64": 208}[os.uname().machine]
program = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in (
        (0x20, 0, 0, 0),  # the system call's number
        (0x15, 0, 3, number),
        (0x20, 0, 0, 16 + 2 * 8),  # the option that is set: SO_ATTACH_FILTER
        (0x15, 0, 1, 26),
        (0x06, 0, 0, 0x00050000 | 1),  # EPERM
        (0x06, 0, 0, 0x7FFF0000),  # let it pass
    )
)
kept = ctypes.create_string_buffer(program, len(program))
given = ctypes.create_string_buffer(struct.pack("HP", len(program) // 8, ctypes.addressof(kept)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
assert libc.prctl(22, 2, given, 0, 0) == 0, os.strerror(ctypes.get_errno())  # PR_SET_SECCOMP
"""
"""Python's sitecustomize: from there on the kernel attaches no filter, as in a sandbox that forbids it (seccomp(2))."""


def flooded(daemon: Daemon, flood: Callable[[int], None], module: Module) -> int:
    """Let a flood come while somebody is in; returns by how many KiB the daemon grew."""
    with Caller(daemon.tcp) as caller:
        assert caller.ask(b"AT+CSQ\r") == b"AT+CSQ\r" + CSQ
        flood(FLOOD // 10)  # what there is once, be the flood long or short
        before = daemon.memory
        for _ in range(10):
            flood(FLOOD // 10)
            assert caller.ask(b"AT+CSQ\r") == b"AT+CSQ\r" + CSQ
        assert daemon.status()["tcp"]["peer"] == "127.0.0.1"
        grown = daemon.memory - before
        assert caller.ask(b"AT+GMI\r") == b"AT+GMI\r\r\nTelit\r\n\r\nOK\r\n"
    until(lambda: not daemon.status()["tcp"]["peer"], "an empty place")
    with Caller(daemon.tcp) as caller:
        assert caller.ask(b"AT+CSQ\r") == b"AT+CSQ\r" + CSQ
    assert module.count("AT+CSQ") > 1
    return grown


class Strangers:
    """Calls from one address after another, none of which says anything."""

    def __init__(self, address: tuple[str, int], *, first: int) -> None:
        self._address = address
        self._next = first

    def dropped(self, count: int) -> None:
        """Send SYNs and wait for nothing."""
        for _ in range(count):
            with self._caller() as stranger:
                stranger.setblocking(False)
                assert stranger.connect_ex(self._address) != 0

    def met(self, count: int) -> None:
        """Make connections and wait for the reset of each."""
        for _ in range(count):
            with self._caller() as stranger:
                self._is_reset(stranger)

    def kept(self, count: int) -> None:
        """Make as many as are kept waiting for their login, and more, each of which is reset."""
        with contextlib.ExitStack() as stack:
            for _ in range(NEWCOMERS_MAX):
                stack.enter_context(waits := self._caller())
                waits.settimeout(PATIENCE)
                with contextlib.suppress(ConnectionResetError):  # those of before may not be forgotten yet
                    waits.connect(self._address)
                until(lambda: not unaccepted(self._address[1]), "the one before at the daemon")
            self.met(count - NEWCOMERS_MAX)

    def _is_reset(self, stranger: socket.socket) -> None:
        stranger.settimeout(PATIENCE)
        with contextlib.suppress(ConnectionResetError):
            stranger.connect(self._address)
            assert stranger.recv(1) == b"not even an end"

    def _caller(self) -> socket.socket:
        stranger = socket.socket()
        self._next += 1
        stranger.bind((f"127.{self._next >> 16 & 255}.{self._next >> 8 & 255}.{self._next & 255}", 0))
        return stranger


def flood_scene(stage: Stage, firewall: str) -> tuple[Module, Daemon]:
    module = stage.module()
    module.ask("answer", command="AT+CSQ", lines=["+CSQ: 17,0"], always=True)
    daemon = stage.daemon(module)
    daemon.configure(tcp={"firewall": [firewall]})
    return module, daemon


def test_ten_thousand_strangers_whom_the_kernel_drops(stage: Stage) -> None:
    module, daemon = flood_scene(stage, "127.0.0.1/32")
    daemon.start()
    grown = flooded(daemon, Strangers(daemon.tcp, first=0x010000).dropped, module)
    assert grown < GROWTH_MAX
    assert daemon.status()["tcp"]["kept_out"] >= FLOOD
    assert not daemon.logged("refused")


def test_ten_thousand_strangers_where_the_kernel_takes_no_filter(stage: Stage) -> None:
    """TCP-2: each is reset unread; the audit has a line of the first of them, and the log a few and how many more."""
    module, daemon = flood_scene(stage, "127.0.0.1/32")
    (stage.folder / "sitecustomize.py").write_text(REFUSED_BY_THE_KERNEL)
    daemon.environ = {"PYTHONPATH": f"{stage.folder}{os.pathsep}{ROOT}"}
    daemon.start()
    said = daemon.heard("strangers are refused by the daemon, not by the kernel")
    assert said["detail"] == "Operation not permitted"
    grown = flooded(daemon, Strangers(daemon.tcp, first=0x010000).met, module)
    assert grown < GROWTH_MAX
    assert daemon.status()["tcp"]["kept_out"] == 0
    daemon.stop()
    refused = [entry for entry in daemon.log if entry["event"].startswith("refused")]
    held = sum(entry["count"] for entry in daemon.logged("more of the same", kind="refused"))
    assert len(refused) < 500
    assert 1000 < len(refused) + held < 2000


def test_ten_thousand_who_may_connect_and_never_log_in(stage: Stage) -> None:
    module, daemon = flood_scene(stage, "127.0.0.0/8")
    daemon.start()
    grown = flooded(daemon, Strangers(daemon.tcp, first=0x010000).kept, module)
    assert grown < GROWTH_MAX


HALF_OPEN = """
table inet half {{
  chain output {{
    type filter hook output priority 0;
    tcp sport {port} ip daddr != 127.0.0.1 drop;
  }}
}}
"""


def test_ten_thousand_half_open_connections(stage: Stage) -> None:
    """SYNs of addresses that the firewall admits and that never hear the answer."""
    if shutil.which("nft") is None:
        pytest.skip("nft(8) is not installed")

    def scene() -> None:
        module, daemon = flood_scene(stage, "127.0.0.0/8")
        daemon.start()
        host, port = daemon.tcp
        subprocess.run(["nft", "-f", "-"], input=HALF_OPEN.format(port=port), text=True, check=True)
        most = 0

        def flood(count: int) -> None:
            nonlocal most
            for number in range(count):
                half_open(f"127.0.{1 + number % 50}.{1 + number // 50 % 250}", host, port)
            most = max(most, halves(port))

        assert flooded(daemon, flood, module) < GROWTH_MAX
        assert most > 0
        assert not [entry for entry in daemon.log if str(entry.get("peer", "127.0.0.1")) != "127.0.0.1"]

    apart(scene)


def half_open(source: str, host: str, port: int) -> None:
    """Send a SYN (RFC 9293 3.1) and wait for nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
        raw.bind((source, 0))
        raw.sendto(segment(source, host, 40000, port, 0x02), (host, 0))


def halves(port: int) -> int:
    """How many connections to there are half open (SYN_RECV)."""
    return sum(row[3] == "03" for row in kernel_rows(port))


def unaccepted(port: int) -> int:
    """How many connections the kernel keeps for whoever listens there."""
    return sum(int(row[4].partition(":")[2], 16) for row in kernel_rows(port) if row[3] == "0A")


def kernel_rows(port: int) -> list[list[str]]:
    """What /proc/net/tcp says of the sockets that have this port (proc_net_tcp.txt of the kernel's documentation)."""
    rows = map(str.split, Path("/proc/thread-self/net/tcp").read_text(encoding="ascii").splitlines()[1:])
    return [row for row in rows if row[1].endswith(f":{port:04X}")]
