# SPDX-License-Identifier: Apache-2.0
"""The TCP door from outside: what a client sees, octet for octet."""

import contextlib
import os
import random
import re
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.scenarios.conftest import Stage
from tests.scenarios.players import LOGIN, PASSWORD, USER, Caller, Daemon, Module, until

CSQ = b"\r\n+CSQ: 17,0\r\n\r\nOK\r\n"
SEED = 20260301


@pytest.fixture(scope="module")
def module(shared_stage: Stage) -> Module:
    module = shared_stage.module()
    module.ask("answer", command="AT+CSQ", lines=["+CSQ: 17,0"], always=True)
    return module


@pytest.fixture(scope="module")
def daemon(shared_stage: Stage, module: Module) -> Daemon:
    return shared_stage.daemon(module).start()


@pytest.fixture
def caller(daemon: Daemon) -> Iterator[Caller]:
    with Caller(daemon.tcp) as caller:
        yield caller
    until(lambda: not daemon.status()["tcp"]["peer"], "an empty place")


def is_reset(address: tuple[str, int], source: str = "127.0.0.1") -> bool:
    """Whether a connection ends with a reset before any octet, be it while it is made or behind that."""
    try:
        with Caller(address, login=False, source=source) as stranger:
            assert stranger.socket.recv(1) == b"not even an end"
    except ConnectionResetError:
        return True
    return False


def hears_nothing(address: tuple[str, int], source: str) -> bool:
    """Whether not even the answer to a SYN comes back."""
    with socket.socket() as stranger:
        stranger.bind((source, 0))
        stranger.settimeout(0.5)
        try:
            stranger.connect(address)
        except TimeoutError:
            return True
    return False


def test_a_stranger_hears_nothing(daemon: Daemon) -> None:
    """TCP-2: the kernel drops its SYN, so that a scan finds no port; how many it dropped is told."""
    before = daemon.status()["tcp"]["kept_out"]
    assert hears_nothing(daemon.tcp, "127.0.0.2")
    assert daemon.status()["tcp"]["kept_out"] > before


def test_a_scan_finds_no_port(daemon: Daemon) -> None:
    """Whatever a stranger sends that is no SYN is not answered either."""
    host, port = daemon.tcp
    try:
        scanner = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
    except PermissionError:
        pytest.skip("raw sockets are for root")
    with scanner:
        scanner.bind(("127.0.0.2", 0))
        scanner.settimeout(0.3)
        for flags in (0x02, 0x10, 0x01, 0x29, 0x00):  # SYN, ACK, FIN, "Xmas", none
            scanner.sendto(segment("127.0.0.2", host, 40000 + flags, port, flags), (host, 0))
        heard = []
        with contextlib.suppress(TimeoutError):
            while True:
                heard.append(struct.unpack("!HH", scanner.recv(2048)[20:24]))
        assert not [ports for ports in heard if ports[0] == port and ports[1] in range(40000, 40064)]


def segment(source: str, target: str, source_port: int, port: int, flags: int) -> bytes:
    """A TCP header alone (RFC 9293 3.1), with its checksum over the pseudo-header."""
    bare = struct.pack("!HHIIBBHHH", source_port, port, 1, 0, 5 << 4, flags, 1024, 0, 0)
    pseudo = socket.inet_aton(source) + socket.inet_aton(target) + struct.pack("!BBH", 0, socket.IPPROTO_TCP, len(bare))
    total = sum(struct.unpack(f"!{(len(pseudo) + len(bare)) // 2}H", pseudo + bare))
    total = (total & 0xFFFF) + (total >> 16)
    check = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return bare[:16] + struct.pack("!H", check) + bare[18:]


def test_an_empty_firewall_admits_nobody(stage: Stage) -> None:
    daemon = stage.daemon()
    daemon.configure(tcp={"firewall": []})
    daemon.start()
    assert hears_nothing(daemon.tcp, "127.0.0.1")


def test_the_automatic_login_is_silent(caller: Caller) -> None:
    """TCP-3: what comes first is the echo of the first command, so that nothing was sent or echoed before it."""
    assert caller.ask(b"AT+CSQ\r") == b"AT+CSQ\r" + CSQ


def test_the_login_and_a_command_in_one_packet(daemon: Daemon) -> None:
    with Caller(daemon.tcp, login=False) as caller:
        assert caller.ask(LOGIN + b"AT+CSQ\r") == b"AT+CSQ\r" + CSQ


def test_the_login_byte_by_byte(daemon: Daemon) -> None:
    with Caller(daemon.tcp, login=False) as caller:
        caller.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for octet in LOGIN + b"AT\r":
            caller.send(bytes((octet,)))
        assert caller.read_until(b"OK\r\n") == b"AT\r\r\nOK\r\n"


def test_telnet_negotiation_before_the_login_is_not_answered(daemon: Daemon) -> None:
    with Caller(daemon.tcp, login=False) as caller:
        assert caller.ask(b"\xff\xfd\x01\xff\xfb\x1f" + LOGIN + b"AT\r") == b"AT\r\r\nOK\r\n"


@pytest.mark.parametrize(
    "login",
    [
        f"{USER}\rwrong\r",
        f"nobody\r{PASSWORD}\r",
        f"{USER}\r\r",
        "\r\r",
        f"{USER}\r{PASSWORD} \r",
        f"{USER}\r{PASSWORD}x\x08\x08\r",
        f"{PASSWORD}\r{USER}\r",
        f"{USER}\0{PASSWORD}\r\r",
    ],
)
def test_a_wrong_pair_closes_at_once(daemon: Daemon, login: str) -> None:
    with Caller(daemon.tcp) as caller:
        caller.ask(b"AT\r")  # a good login, so that this is the first wrong one
    until(lambda: not daemon.status()["tcp"]["peer"], "an empty place")
    with Caller(daemon.tcp, login=False) as caller:
        caller.send(login.encode() + b"AT\r")
        begun = time.monotonic()
        assert caller.rest() == b""
        assert time.monotonic() - begun < 5
    until(lambda: not daemon.status()["tcp"]["peer"], "an empty place")


def test_who_goes_on_guessing_is_turned_away(stage: Stage) -> None:
    daemon = stage.daemon()
    daemon.configure(tcp={"login_failures": 2})
    daemon.start()
    for _ in range(2):
        with Caller(daemon.tcp, login=False) as caller:
            caller.send(f"{USER}\rwrong\r".encode())
            assert caller.rest() == b""
    assert daemon.heard("shut out for 900 s", reason="auth")
    assert is_reset(daemon.tcp)
    assert daemon.heard("refused", reason="auth")


def test_no_password_in_the_log(daemon: Daemon) -> None:
    assert daemon.logged(f"login {USER}")
    assert PASSWORD not in daemon.text


@pytest.mark.parametrize(
    ("typed", "seen"),
    [
        (b"AT+CSQ\r\n", b"AT+CSQ\r" + CSQ),
        (b"AT+CSQ\r\0", b"AT+CSQ\r" + CSQ),
        (b"\n\0\nAT+CSQ\r", b"AT+CSQ\r" + CSQ),
        (b"at+csq\r", b"at+csq\r" + CSQ),
        (b"AT+COPS\x08\x08\x08\x08CSQ\r", b"AT+COPS" + b"\x08 \x08" * 4 + b"CSQ\r" + CSQ),
        (b"\x7f\x08AT+CX\x7fSQ\r", b"AT+CX\x08 \x08SQ\r" + CSQ),
        (b"\r\r\n\r AT+CSQ\r", b"\r\r\r AT+CSQ\r" + CSQ),
        (b"AT+CSQ // signal\r", b"AT+CSQ // signal\r" + CSQ),
        (b"\xff\xf1AT\xff\xfa\x18\x01\xff\xf0+CSQ\r", b"AT+CSQ\r" + CSQ),
    ],
)
def test_what_is_typed_is_echoed_and_run(caller: Caller, typed: bytes, seen: bytes) -> None:
    assert caller.ask(typed) == seen


@pytest.mark.parametrize(
    "line",
    [
        b"AT+CFUN=4",
        b"AT+CFUN=04",
        b"AT+CSQ;+CFUN=4",
        b'AT#WSCRIPT="a.py",010',
        b"ATD*99#",
        b'AT#SMSATWL=0,1,0,"+39*"',
        b"AT+CSQ\x1a",
        b"AT+CS\x00Q",
        b"AT\x1b+CSQ",
        b"AT+CSQ\x85",
        b"AT+C\xd3Q",
        b"not a command",
        b'AT+COPS=0,"',
        b"AT" + b"+CSQ;" * 1000,
        b"A" * 5000,
    ],
)
def test_a_refused_line_is_an_error_and_never_sent(caller: Caller, module: Module, line: bytes) -> None:
    module.ask("seen", clear=True)
    assert caller.ask(line + b"\r", b"ERROR\r\n") == line + b"\r\r\nERROR\r\n"
    assert not [seen for seen in module.seen if re.search(r"CFUN|WSCRIPT|^ATD|SMSATWL|=0,|x1|\x1a", seen)]


def test_a_message_and_a_script_are_sent(caller: Caller, module: Module) -> None:
    """REQ-6, and the download of a script of the note's Python chapter."""
    caller.ask(b"AT+CMGF=1\r")
    assert caller.ask(b'AT+CMGS="+393468686711"\r', b"> ").endswith(b"\r\r\n> ")
    assert re.fullmatch(rb"hello\r\n\+CMGS: \d+\r\n\r\nOK\r\n", caller.ask(b"hello\x1a"))
    assert [(message["to"], message["text"]) for message in module.ask("sent")["sent"]][-1] == (
        "+393468686711",
        "hello",
    )
    caller.ask(b'AT#WSCRIPT="a.py",60000\r', b"\r\n>>>")
    assert caller.ask(bytes(range(256)) * 234 + bytes(96)) == b"\r\nOK\r\n"
    assert b'"a.py",60000' in caller.ask(b"AT#LSCRIPT\r")


def test_a_line_feed_ends_a_line_too(caller: Caller) -> None:
    """Many a program sends nothing else. Whatever it ends is judged as a line of its own."""
    assert caller.ask(b"AT+CSQ\n") == b"AT+CSQ\n" + CSQ
    assert caller.ask(b"AT+CFUN=4\n", b"ERROR\r\n") == b"AT+CFUN=4\n\r\nERROR\r\n"
    assert caller.ask(b"AT+CSQ\r\n") == b"AT+CSQ\r" + CSQ


def test_telnet_options_are_declined(caller: Caller) -> None:
    caller.ask(b"AT\r")
    assert caller.ask(b"\xff\xfd\x01\xff\xfb\x1fAT\r") == b"\xff\xfc\x01\xff\xfe\x1fAT\r\r\nOK\r\n"


def test_lines_come_as_the_module_says_them(caller: Caller, module: Module) -> None:
    """TCP-8: the first answer is there while the second command still runs."""
    module.ask("late", command="AT#CGMI", seconds=1.0)
    begun = time.monotonic()
    caller.send(b"AT+CSQ;#CGMI\r")
    caller.read_until(b"+CSQ: 17,0\r\n")
    early = time.monotonic() - begun
    caller.read_until(b"OK\r\n")
    assert early < 0.9 < time.monotonic() - begun


def test_a_second_client_is_refused_and_recorded(daemon: Daemon, caller: Caller) -> None:
    caller.ask(b"AT\r")
    assert is_reset(daemon.tcp)
    assert daemon.heard("refused", reason="busy")
    assert caller.ask(b"AT+CSQ\r") == b"AT+CSQ\r" + CSQ


def test_ten_thousand_commands_pasted_while_one_runs_are_ignored(caller: Caller, module: Module) -> None:
    """TCP-5, sequence off. What is ignored is not echoed either."""
    module.ask("late", command="AT#CGMI", seconds=2.0)
    module.ask("seen", clear=True)
    caller.ask(b"AT\r")
    caller.send(b"AT#CGMI\r" + b"AT+GMM\r" * 10_000)
    answer = caller.read_until(b"OK\r\n")
    assert answer == b"AT#CGMI\r\r\n#CGMI: Telit\r\n\r\nOK\r\n"
    assert (module.count("AT#CGMI"), module.count("AT+GMM")) == (1, 0)
    assert caller.ask(b"AT+CSQ\r") == b"AT+CSQ\r" + CSQ


def test_a_client_that_vanishes_takes_its_command_with_it(daemon: Daemon, module: Module) -> None:
    module.ask("late", command="AT+CGDCONT?", seconds=1.0)
    caller = Caller(daemon.tcp)
    caller.send(b"AT+CGDCONT?\r")
    until(lambda: module.count("AT+CGDCONT?"), "the command at the module")
    caller.vanish()
    assert daemon.heard("command", command="AT+CGDCONT?", state="cancelled")
    module.ask("clear", command="AT+CGDCONT?")
    with Caller(daemon.tcp) as following:
        assert following.ask(b"AT+CSQ\r") == b"AT+CSQ\r" + CSQ


def test_binary_garbage_before_and_after_the_login(daemon: Daemon) -> None:
    noise = random.Random(SEED)  # noqa: S311 - noise
    for login in (b"", LOGIN) * 5:
        with Caller(daemon.tcp, login=False) as caller:
            caller.send(login)
            caller.socket.settimeout(0.05)
            try:
                for _ in range(50):
                    caller.send(noise.randbytes(noise.randrange(1, 8192)))
                    caller.socket.recv(65536)
            except OSError:
                pass
        until(lambda: not daemon.status()["tcp"]["peer"], "an empty place")
    with Caller(daemon.tcp) as caller:
        assert caller.ask(b"AT+CSQ\r") == b"AT+CSQ\r" + CSQ


def test_with_telnet(daemon: Daemon) -> None:
    host, port = daemon.tcp
    with subprocess.Popen(
        ["telnet", "-E", host, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as telnet:
        try:
            assert telnet.stdin is not None
            assert telnet.stdout is not None
            telnet.stdin.write(f"{USER}\n{PASSWORD}\nAT+CSQ\n".encode())
            telnet.stdin.flush()
            seen = b""
            while b"OK" not in seen:
                line = telnet.stdout.readline()
                assert line, seen
                seen += line
            assert b"+CSQ: 17,0" in seen
        finally:
            telnet.kill()
    until(lambda: not daemon.status()["tcp"]["peer"], "an empty place")


@pytest.mark.parametrize("program", [["nc"], ["nc", "-C"], ["socat", "-"]], ids=["nc", "nc -C", "socat"])
def test_with_other_programs(daemon: Daemon, program: list[str]) -> None:
    host, port = daemon.tcp
    target = [f"TCP:{host}:{port}"] if program[0] == "socat" else [host, str(port)]
    end = "\n"
    with subprocess.Popen([*program, *target], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
        try:
            assert client.stdin is not None
            assert client.stdout is not None
            client.stdin.write(f"{USER}{end}{PASSWORD}{end}AT+CSQ{end}".encode())
            client.stdin.flush()
            seen = b""
            while not seen.endswith(b"OK\r\n"):
                seen += os.read(client.stdout.fileno(), 4096)
            assert re.fullmatch(rb"AT\+CSQ[\r\n]" + re.escape(CSQ), seen)
        finally:
            client.kill()
    until(lambda: not daemon.status()["tcp"]["peer"], "an empty place")


def test_a_script_that_ends_before_its_answers_are_there(stage: Stage) -> None:
    """`nc -N` closes its side at the end of what it was given; it reads on until the other side does."""
    module, daemon = with_the_sequence_on(stage)
    module.ask("late", command="AT#CGMI", seconds=0.5)
    given = f"{USER}\n{PASSWORD}\nAT#CGMI\nAT+CSQ\n".encode()
    host, port = daemon.tcp
    done = subprocess.run(["nc", "-N", host, str(port)], input=given, capture_output=True, timeout=20, check=False)
    assert done.stdout.count(b"\r\nOK\r\n") == 2, done
    assert b"+CSQ: " in done.stdout, done
    until(lambda: not daemon.status()["tcp"]["peer"], "an empty place")


def with_the_sequence_on(stage: Stage) -> tuple[Module, Daemon]:
    module = stage.module()
    daemon = stage.daemon(module)
    daemon.configure(tcp={"sequence": True})
    return module, daemon.start()


def test_a_client_that_does_not_read_holds_nobody_up(stage: Stage) -> None:
    """Five megabytes of answers fill every buffer on the way to it; others have their turn all the same."""
    module, daemon = with_the_sequence_on(stage)
    module.ask("answer", command="AT#MONI=7", lines=["x" * 1000] * 50, always=True)
    with Caller(daemon.tcp, login=False) as lazy:
        lazy.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        lazy.send(LOGIN + b"AT#MONI=7\r" * 100)
        until(lambda: module.count("AT#MONI=7"), "the command at the module")
        for _ in range(5):
            done = daemon.ctl("at", "AT#CGMI")
            assert (done.returncode, done.stdout) == (0, "#CGMI: Telit\nOK\n")
        assert daemon.status()["tcp"]["peer"] == "127.0.0.1"
    until(lambda: not daemon.status()["tcp"]["peer"], "an empty place")


def test_pasted_commands_run_in_order_with_the_sequence_on(stage: Stage) -> None:
    """TCP-5: what comes while a command runs is queued; more than the queue holds is left with the client."""
    module, daemon = with_the_sequence_on(stage)
    names = [b"AT+GMI", b"AT#CGMI", b"AT+GMM"]
    with Caller(daemon.tcp) as caller:
        caller.socket.setblocking(False)
        paste, sent, got = b"".join(names[n % 3] + b"\r" for n in range(10_000)), 0, b""
        end = time.monotonic() + 30
        while got.count(b"OK\r\n") < 600 and time.monotonic() < end:
            with suppress(BlockingIOError):
                sent += caller.socket.send(paste[sent : sent + 65536])
            try:
                got += caller.socket.recv(65536)
            except BlockingIOError:
                time.sleep(0.001)
        assert daemon.status()["tcp"]["peer"] == "127.0.0.1"
    finals = re.findall(rb"\r\n(Telit|#CGMI: Telit|HE910-D)\r\n\r\nOK\r\n", got)
    assert len(finals) >= 600
    assert finals == [(b"Telit", b"#CGMI: Telit", b"HE910-D")[n % 3] for n in range(len(finals))]
    # The client is gone: what was queued for it is not run.
    until(lambda: not daemon.status()["tcp"]["peer"], "an empty place")
    assert daemon.ctl("at", "AT+CIMI").returncode == 0
    assert module.seen[-1] == "AT+CIMI"
    assert module.count("AT#CGMI") < 2000


def test_a_stop_in_mid_command(stage: Stage) -> None:
    """The command ends first and is answered, then the client is let go; the next daemon finds the module usable."""
    module = stage.module()
    daemon = stage.daemon(module).start()
    module.ask("late", command="AT+GMI", seconds=1.0)
    with Caller(daemon.tcp) as caller:
        caller.send(b"AT+GMI\r")
        until(lambda: module.count("AT+GMI"), "the command at the module")
        assert daemon.stop() == 0
        assert caller.rest() == b"AT+GMI\r\r\nTelit\r\n\r\nOK\r\n"
    daemon.start()
    with Caller(daemon.tcp) as caller:
        assert caller.ask(b"AT\r") == b"AT\r\r\nOK\r\n"
