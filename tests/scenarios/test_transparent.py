# SPDX-License-Identifier: Apache-2.0
"""Transparent mode from outside: a real pseudo-terminal as the serial port, octet for octet (TCP-6 to TCP-9)."""

import contextlib
import fcntl
import os
import random
import select
import shutil
import socket
import subprocess
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from tests.scenarios.conftest import Stage
from tests.scenarios.players import LOGIN, Caller, Daemon, Module, until

ALL = bytes(range(256))
GUARD = 0.3
"""Seconds of silence that are more than the 50 ms of the rule to a daemon on a busy machine too."""
MEGABYTE = 1_048_576
SEED = 20261122
ENTER = b"AT#TCPATCONSER=1,115200\r"
CONNECT = b"\r\nCONNECT\r\n"
NO_CARRIER = b"\r\nNO CARRIER\r\n"


class Device:
    """What hangs at the serial port: the other end of a pseudo-terminal, under a name that stays."""

    def __init__(self, link: Path) -> None:
        self.link = link
        self.ours = -1
        self.plug()

    def plug(self) -> None:
        self.ours, theirs = os.openpty()
        self.name = os.ttyname(theirs)
        self.kept: int | None = theirs
        os.set_blocking(self.ours, True)
        self.link.unlink(missing_ok=True)
        self.link.symlink_to(self.name)

    def unplug(self) -> None:
        for end in (self.ours, self.kept):
            if end is not None and end >= 0:
                os.close(end)
        self.ours, self.kept = -1, None

    @property
    def settings(self) -> list[Any]:
        return termios.tcgetattr(self.ours)

    def say(self, data: bytes) -> None:
        while data:
            data = data[os.write(self.ours, data) :]

    def hear(self, count: int, seconds: float = 10.0) -> bytes:
        """Return so many octets."""
        found, end = b"", time.monotonic() + seconds
        while len(found) < count:
            assert time.monotonic() < end, f"only {len(found)} of {count} octets came: {found[-100:]!r}"
            if _is_readable(self.ours):
                found += os.read(self.ours, min(4096, count - len(found)))
        return found

    def hears_nothing_more(self) -> bool:
        time.sleep(0.1)
        return not _is_readable(self.ours)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.unplug()


def _is_readable(descriptor: int) -> bool:
    return bool(select.select([descriptor], [], [], 0.05)[0])


@pytest.fixture(scope="module")
def module(shared_stage: Stage) -> Module:
    return shared_stage.module()


@pytest.fixture(scope="module")
def device(shared_stage: Stage) -> Iterator[Device]:
    with Device(shared_stage.folder / "ttyS1") as device:
        yield device


@pytest.fixture(scope="module")
def daemon(shared_stage: Stage, module: Module, device: Device) -> Daemon:
    daemon = shared_stage.daemon(module)
    daemon.configure(tcp={"serial": [{"number": 1, "path": str(device.link), "rates": [9600, 115200, 921600]}]})
    daemon.start()
    # Full packets of 300 octets, the rest after 0.1 s; no idle timeout but where a test wants one.
    assert daemon.ctl("at", "AT#SCFG=1,1,300,0,600,1").returncode == 0
    return daemon


@pytest.fixture(autouse=True)
def nothing_left(device: Device) -> Iterator[None]:
    """What one test left unheard is not the next one's."""
    yield
    while _is_readable(device.ours):
        os.read(device.ours, 65536)


@pytest.fixture
def caller(daemon: Daemon) -> Iterator[Caller]:
    with Caller(daemon.tcp) as caller:
        caller.ask(b"ATE0\r")
        yield caller
    until(lambda: not daemon.status()["tcp"]["peer"], "an empty place")


def enter(caller: Caller, line: bytes = ENTER) -> None:
    assert caller.ask(line, CONNECT) == CONNECT


def leave(caller: Caller) -> None:
    time.sleep(GUARD)
    caller.send(b"+++")
    assert caller.read_until(NO_CARRIER).endswith(NO_CARRIER)
    assert caller.ask(b"AT\r") == b"\r\nOK\r\n"


def records(daemon: Daemon, words: str) -> list[str]:
    """What the log tells of sessions, by a word in it."""
    return [str(entry) for entry in daemon.log if words in str(entry)]


def test_note_3_5_transparence_every_octet_both_ways(daemon: Daemon, caller: Caller, device: Device) -> None:
    """80000NT10029a 3.5: CONNECT, then the serial port's and the client's octets pass unchanged; +++ ends it."""
    enter(caller)
    caller.send(ALL)
    assert device.hear(256) == ALL
    device.say(ALL)
    assert caller.read_until(ALL) == ALL
    leave(caller)
    assert device.hears_nothing_more()
    until(lambda: records(daemon, "256 octets to the port, 256 from it"), "the count")
    assert not records(daemon, "\\x80")


def test_the_port_is_raw_at_the_rate_and_gets_its_settings_back(caller: Caller, device: Device) -> None:
    before = device.settings
    assert before[3] & termios.ICANON
    enter(caller, b"AT#TCPATCONSER=1,9600\r")
    now = device.settings
    assert (now[4], now[5]) == (termios.B9600, termios.B9600)
    assert not now[3] & (termios.ICANON | termios.ECHO | termios.ISIG)
    assert now[1] & termios.OPOST == 0
    assert now[2] & (termios.CSIZE | termios.PARENB | termios.CSTOPB) == termios.CS8
    assert now[0] & (termios.IXON | termios.ICRNL | termios.ISTRIP) == 0
    leave(caller)
    until(lambda: device.settings == before, "the settings of before")


def test_the_port_is_had_exclusively(caller: Caller, device: Device) -> None:
    enter(caller)
    other = os.open(device.name, os.O_RDWR | os.O_NOCTTY) if os.geteuid() == 0 else -1
    try:  # root may open it all the same (tty_ioctl(4)), but not lock it
        if other >= 0:
            with pytest.raises(BlockingIOError):
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            with pytest.raises(OSError, match="busy"):
                os.open(device.name, os.O_RDWR | os.O_NOCTTY)
    finally:
        if other >= 0:
            os.close(other)
    leave(caller)


@pytest.mark.parametrize("data", [b"+++x", b"x+++", b"++++", b"++", b"+++\r", b"\xff\xfd\x01", b"\xff\xff", b"\r\n\0"])
def test_anything_but_the_escape_is_data(caller: Caller, device: Device, data: bytes) -> None:
    """Telnet's octets too, and they are not answered."""
    enter(caller)
    time.sleep(GUARD)
    caller.send(data)
    assert device.hear(len(data)) == data
    device.say(b"answer")
    assert caller.read_until(b"answer") == b"answer"
    leave(caller)


def test_an_escape_that_is_split_over_two_reads_is_data(caller: Caller, device: Device) -> None:
    caller.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    enter(caller)
    for piece in (b"+", b"++", b"++", b"+"):
        time.sleep(GUARD)
        caller.send(piece)
    assert device.hear(6) == b"++++++"
    leave(caller)


def test_an_escape_without_silence_around_it_is_data(caller: Caller, device: Device) -> None:
    caller.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    enter(caller)
    time.sleep(GUARD)
    caller.send(b"+++")
    caller.send(b"more")
    assert device.hear(7) == b"+++more"
    caller.send(b"x")
    caller.send(b"+++")
    assert device.hear(4) == b"x+++"
    leave(caller)


def test_the_escape_is_made_of_s2(caller: Caller, device: Device) -> None:
    caller.ask(b"ATS2=35\r")
    enter(caller)
    time.sleep(GUARD)
    caller.send(b"+++")
    assert device.hear(3) == b"+++"
    time.sleep(GUARD)
    caller.send(b"###")
    caller.read_until(NO_CARRIER)
    caller.ask(b"ATS2=43\r")


def test_what_follows_on_the_line_is_no_command(caller: Caller, module: Module) -> None:
    count = module.count("AT+CGMM")
    enter(caller, b"AT#TCPATCONSER=1,9600;+CGMM\r")
    leave(caller)
    assert module.count("AT+CGMM") == count


@pytest.mark.parametrize("line", [b"AT#TCPATCONSER=0,9600\r", b"AT#TCPATCONSER=1,300\r", b"AT#TCPATCONSER=1\r"])
def test_a_port_or_a_rate_that_is_not_configured(caller: Caller, line: bytes) -> None:
    assert caller.ask(line, b"ERROR\r\n") == b"\r\nERROR\r\n"


def test_the_ranges(caller: Caller) -> None:
    assert b"#TCPATCONSER: (1),(9600,115200,921600)" in caller.ask(b"AT#TCPATCONSER=?\r")


def test_other_doors_may_not(daemon: Daemon) -> None:
    done = daemon.ctl("at", "AT#TCPATCONSER=1,9600")
    assert done.returncode != 0
    assert "TCP session" in done.stdout + done.stderr


def test_a_port_that_another_program_has(caller: Caller, device: Device) -> None:
    held = os.open(device.name, os.O_RDWR | os.O_NOCTTY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert caller.ask(ENTER, b"ERROR\r\n") == b"\r\nERROR\r\n"
    finally:
        os.close(held)
    enter(caller)
    leave(caller)


def test_a_port_that_vanishes_ends_it_with_no_carrier(daemon: Daemon, caller: Caller, device: Device) -> None:
    enter(caller)
    device.unplug()
    assert caller.read_until(NO_CARRIER) == NO_CARRIER
    assert caller.ask(b"AT\r") == b"\r\nOK\r\n"
    assert caller.ask(ENTER, b"ERROR\r\n") == b"\r\nERROR\r\n"
    until(lambda: records(daemon, "transparent mode ended: port lost"), "the record")
    device.plug()
    enter(caller)
    device.say(b"back" * 100)
    assert caller.read_until(b"back", 100) == b"back" * 100
    leave(caller)


def test_tcpatrunclose_from_another_door_ends_it(daemon: Daemon, device: Device) -> None:
    """TCP-9, which the vendor's can't."""
    before = device.settings
    with Caller(daemon.tcp) as caller:
        caller.ask(b"ATE0\r")
        enter(caller)
        assert daemon.ctl("at", "AT#TCPATRUNCLOSE").returncode == 0
        assert caller.rest() == b""
    until(lambda: device.settings == before, "the settings of before")
    with Caller(daemon.tcp) as caller:
        caller.ask(b"AT\r")


def test_the_idle_timeout_counts_traffic_either_way(daemon: Daemon, device: Device) -> None:
    """TCP-7, in transparent mode too."""
    assert daemon.ctl("at", "AT#SCFG=1,1,300,2,600,1").returncode == 0
    try:
        with Caller(daemon.tcp) as caller:
            caller.ask(b"ATE0\r")
            enter(caller)
            begun = time.monotonic()
            while time.monotonic() - begun < 3:
                device.say(b"s")
                time.sleep(0.3)
            while time.monotonic() - begun < 6:
                caller.send(b"c")
                time.sleep(0.3)
            quiet = time.monotonic()
            assert set(caller.rest()) == {ord("s")}
            assert 1.5 < time.monotonic() - quiet < 10
    finally:
        assert daemon.ctl("at", "AT#SCFG=1,1,300,0,600,1").returncode == 0


def test_the_transmission_timeout_and_the_packet_size(daemon: Daemon, caller: Caller, device: Device) -> None:
    """TCP-8: 300 octets go at once, fewer after 0.1 s."""
    enter(caller)
    device.say(b"x" * 299)
    begun = time.monotonic()
    caller.read_until(b"x", 299)
    assert time.monotonic() - begun > 0.08
    daemon.ctl("at", "AT#SCFG=1,1,300,0,600,255")
    leave(caller)
    enter(caller)
    device.say(b"y" * 100)
    caller.socket.settimeout(0.4)
    with pytest.raises(TimeoutError):
        caller.read_until(b"y")
    caller.socket.settimeout(15)
    device.say(b"y" * 200)
    caller.read_until(b"y", 300)
    device.say(b"rest")
    time.sleep(GUARD)
    caller.send(b"+++")
    assert caller.read_until(NO_CARRIER) == b"rest" + NO_CARRIER
    daemon.ctl("at", "AT#SCFG=1,1,300,0,600,1")


def test_a_megabyte_each_way_with_readers_that_stall(daemon: Daemon, caller: Caller, device: Device) -> None:
    """Nothing is lost, nothing grows: what one side does not take, the other can't send."""
    chance = random.Random(SEED)  # noqa: S311 - no secret
    there, back = chance.randbytes(MEGABYTE), chance.randbytes(MEGABYTE)
    heard = bytearray()
    enter(caller)
    memory = daemon.memory

    def device_talks() -> None:
        for at in range(0, MEGABYTE, 1024):
            device.say(back[at : at + 1024])

    def caller_talks() -> None:
        caller.send(there)

    def device_listens() -> None:
        stalls = {chance.randrange(MEGABYTE) for _ in range(6)}
        while len(heard) < MEGABYTE:
            before = len(heard)
            heard.extend(os.read(device.ours, 4096))
            if any(before <= stall < len(heard) for stall in stalls):
                time.sleep(0.3)

    threads = [threading.Thread(target=work, daemon=True) for work in (device_talks, caller_talks, device_listens)]
    for thread in threads:
        thread.start()
    got = bytearray(caller.got)
    caller.got = b""
    for stall in (300_000, 600_000, 900_000, MEGABYTE):
        while len(got) < stall:
            got += caller.socket.recv(min(65536, MEGABYTE - len(got)))
        time.sleep(0.5)
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert bytes(heard) == there
    assert bytes(got) == back
    assert daemon.memory - memory < 2048
    leave(caller)


def test_other_doors_are_served_while_octets_pass(daemon: Daemon, caller: Caller, device: Device) -> None:
    """One session never blocks the daemon."""
    enter(caller, b"AT#TCPATCONSER=1,921600\r")
    stop = threading.Event()

    def talk() -> None:
        with contextlib.suppress(OSError):
            while not stop.is_set():
                device.say(b"z" * 1024)

    def listen() -> None:
        with contextlib.suppress(OSError):
            while not stop.is_set():
                caller.socket.recv(65536)

    threads = [threading.Thread(target=work, daemon=True) for work in (talk, listen)]
    for thread in threads:
        thread.start()
    try:
        with daemon.local() as link:
            file, slowest = link.makefile("rb"), 0.0
            for _ in range(50):
                begun = time.monotonic()
                link.sendall(b'{"op":"status"}\n')
                assert file.readline()
                slowest = max(slowest, time.monotonic() - begun)
        assert slowest < 2
    finally:
        stop.set()
        for thread in threads:
            thread.join(10)


def test_a_client_that_says_no_more_leaves_the_rest_at_the_port(daemon: Daemon, device: Device) -> None:
    """As `nc -N` at the end of a file: what it sent is written, then the port is free."""
    before = device.settings
    with Caller(daemon.tcp) as caller:
        caller.ask(b"ATE0\r")
        enter(caller)
        caller.send(b"last words" * 1000)
        caller.socket.shutdown(socket.SHUT_WR)
        assert device.hear(10_000) == b"last words" * 1000
        assert caller.rest() == b""
    until(lambda: device.settings == before, "the settings of before")


@pytest.mark.skipif(shutil.which("socat") is None, reason="socat is not installed")
def test_socat_as_the_client(daemon: Daemon, device: Device) -> None:
    """Its stream is the port's behind the dialogue."""
    until(lambda: not daemon.status()["tcp"]["peer"], "an empty place")
    host, port = daemon.tcp
    data = random.Random(SEED).randbytes(50_000).replace(b"+", b"-")  # noqa: S311 - no secret
    with subprocess.Popen(
        ["socat", "-", f"TCP:{host}:{port},nodelay"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as program:
        assert program.stdin
        assert program.stdout
        program.stdin.write(LOGIN + b"ATE0\r")
        program.stdin.flush()
        heard = b""
        while not heard.endswith(b"OK\r\n"):
            heard += os.read(program.stdout.fileno(), 65536)
        program.stdin.write(ENTER)
        program.stdin.flush()
        while not heard.endswith(CONNECT):
            heard += os.read(program.stdout.fileno(), 65536)
        program.stdin.write(data)
        program.stdin.flush()
        assert device.hear(len(data)) == data
        device.say(data[:600])
        back = b""
        while len(back) < 600:
            back += os.read(program.stdout.fileno(), 65536)
        assert back == data[:600]
        time.sleep(GUARD)
        program.stdin.write(b"+++")
        program.stdin.flush()
        while not back.endswith(NO_CARRIER):
            back += os.read(program.stdout.fileno(), 65536)
        program.terminate()


def test_a_stop_of_the_daemon_gives_the_port_back(stage: Stage, device: Device) -> None:
    """Without a module too: none of its commands is in this."""
    before = device.settings
    daemon = stage.daemon()
    daemon.configure(tcp={"serial": [{"number": 7, "path": str(device.link)}]})
    daemon.start()
    with Caller(daemon.tcp) as caller:
        caller.ask(b"ATE0\r")
        enter(caller, b"AT#TCPATCONSER=7,57600\r")
        assert device.settings != before
        caller.send(b"x" * 3000)
        assert daemon.stop() == 0
        assert caller.rest() == b""
    assert device.hear(3000) == b"x" * 3000
    assert device.settings == before
