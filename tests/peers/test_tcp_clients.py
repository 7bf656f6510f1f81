# SPDX-License-Identifier: Apache-2.0
"""Other people's programs at the other end of TCP, calling and being called: telnet, plink, nc, socat, ser2net.

What they show is compared by its lines, for some drop CR and NUL, and what ends a line is echoed as it was typed. What
comes octet for octet is in scenarios/test_tcp.py and test_tcp_more.py.
"""

import os
import re
import select
import shutil
import signal
import subprocess
import termios
import time
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.scenarios.conftest import Stage
from tests.scenarios.players import PASSWORD, PATIENCE, USER, Caller, Daemon, Module, until
from tests.support.ports import free_port

Command = Callable[[str, int], list[str]]

CLIENTS: dict[str, Command] = {
    "telnet": lambda host, port: ["telnet", "-E", host, str(port)],
    "telnet -8": lambda host, port: ["telnet", "-8", "-E", host, str(port)],  # negotiates at once
    "plink -raw": lambda host, port: ["plink", "-raw", "-P", str(port), host],
    "plink -telnet": lambda host, port: ["plink", "-telnet", "-P", str(port), host],  # negotiates seven options
    "nc": lambda host, port: ["nc", host, str(port)],
    "nc -C": lambda host, port: ["nc", "-C", host, str(port)],
    "socat": lambda host, port: ["socat", "-", f"TCP:{host}:{port}"],
    "socat crnl": lambda host, port: ["socat", "-", f"TCP:{host}:{port},crnl"],
}
LISTENERS: dict[str, Callable[[int], list[str]]] = {
    "nc -l": lambda port: ["nc", "-l", "127.0.0.1", str(port)],
    "nc -C -l": lambda port: ["nc", "-C", "-l", "127.0.0.1", str(port)],
    "socat": lambda port: ["socat", "-", f"TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr"],
    "socat crnl": lambda port: ["socat", "-", f"TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,crnl"],
}
BY_CLIENT = pytest.mark.parametrize("client", CLIENTS.values(), ids=CLIENTS)
BY_LISTENER = pytest.mark.parametrize("listener", LISTENERS.values(), ids=LISTENERS)
SER2NET = "/usr/sbin/ser2net"
TOKEN = "made-up-token-of-a-test"
MANY = 100_000
PROGRAM = "ciclo3.py"
TERMINAL = {**os.environ, "TERM": "vt100", "LANG": "C"}
TO = "+393468686711"
SCRIPT = "".join(f"print {n:055d}" for n in range(1000))[:60_000]
"""No line ends: each program sends its own kind of them, and the size that is announced counts octets."""


class Peer:
    """A program that somebody types at: through its pipes, at a terminal of its own, or at a serial `line`'s end."""

    def __init__(self, command: Sequence[str], *, line: int | None = None, terminal: bool = False) -> None:
        self.shown = ""
        if shutil.which(command[0], path=f"{os.environ['PATH']}:/usr/sbin") is None:
            pytest.skip(f"there is no {command[0]}")
        self._ours = -1
        if line is not None:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0)
            self._into = self._out = line
        elif terminal:
            self._ours, theirs = os.openpty()
            self.process = subprocess.Popen(
                command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, env=TERMINAL
            )
            os.close(theirs)
            self._into = self._out = self._ours
        else:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
            )
            assert self.process.stdin is not None
            assert self.process.stdout is not None
            self._into, self._out = self.process.stdin.fileno(), self.process.stdout.fileno()

    @property
    def echoes(self) -> bool:
        """Whether its terminal shows what is typed."""
        return bool(termios.tcgetattr(self._ours)[3] & termios.ECHO)

    def type(self, text: str) -> None:
        data = text.encode()
        while data:
            _, writable, _ = select.select([], [self._into], [], PATIENCE)
            assert writable, "it takes no more"
            data = data[os.write(self._into, data[:4096]) :]

    def until(self, wanted: str) -> str:
        """Return what it shows up to and with this, since what was waited for before."""
        end = time.monotonic() + PATIENCE
        while wanted not in self.shown:
            ready, _, _ = select.select([self._out], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"never shown: {wanted!r}, but {self.shown[-500:]!r}"
            piece = os.read(self._out, 65536)
            assert piece, f"it ended behind {self.shown[-500:]!r}"
            self._show(piece)
        found, _, self.shown = self.shown.partition(wanted)
        return found + wanted

    def ask(self, line: str, final: str = "OK\n") -> str:
        self.type(f"{line}\n")
        return self.until(final)

    def paste(self, text: str, final: str, times: int) -> str:
        """Type as fast as it takes it, and return what it shows up to the `times`th `final`."""
        data, end, before, seen = text.encode(), time.monotonic() + 2 * PATIENCE, "", 0
        while data or seen + self.shown.count(final) < times:
            ready, writable, _ = select.select([self._out], [self._into] if data else [], [], end - time.monotonic())
            assert ready or writable, f"never shown {times} times: {final!r}, but {self.shown[-500:]!r}"
            if writable:
                data = data[os.write(self._into, data[:4096]) :]
            if ready:
                piece = os.read(self._out, 65536)
                assert piece, f"it ended behind {self.shown[-500:]!r}"
                self._show(piece)
            if (cut := self.shown.rfind(final) + len(final)) > MANY:  # so that it is not counted again and again
                before, seen = before + self.shown[:cut], seen + self.shown.count(final)
                self.shown = self.shown[cut:]
        found, self.shown = before + self.shown, ""
        return found

    def rest(self) -> str:
        """Return what it shows until it ends."""
        if self.process.stdin is not None:
            self.process.stdin.close()  # some wait for that too
        while select.select([self._out], [], [], PATIENCE)[0] and (piece := os.read(self._out, 65536)):
            self._show(piece)
        self.process.wait(PATIENCE)
        found, self.shown = self.shown, ""
        return found

    def _show(self, piece: bytes) -> None:
        last, text = self.shown[-1:], piece.decode("latin-1").translate({0: None, 13: None})
        self.shown = self.shown[:-1] + re.sub("\n+", "\n", last + text)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self._ours >= 0:
            os.close(self._ours)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with ExitStack() as stack:
        yield Stage(tmp_path_factory.mktemp("place"), stack)


@pytest.fixture(scope="module")
def module(place: Stage) -> Module:
    module = place.module()
    module.ask("answer", command="AT+CSQ", lines=["+CSQ: 17,0"], always=True)
    return module


@pytest.fixture(scope="module")
def daemon(place: Stage, module: Module) -> Daemon:
    """Who is called; the sequence is on, for what is piped into a program comes all at once."""
    daemon = place.daemon(module)
    daemon.configure(tcp={"shut_out": 0, "sequence": True, "sessions": 2})
    return daemon.start()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with ExitStack() as stack:
        yield Stage(tmp_path, stack)


@pytest.fixture
def peers() -> Iterator[ExitStack]:
    """Stops what is put into it."""
    with ExitStack() as stack:
        yield stack


def calls(peers: ExitStack, daemon: Daemon, client: Command, *, login: bool = True) -> Peer:
    peer = Peer(client(*daemon.tcp))
    peers.callback(until, lambda: not daemon.status()["tcp"]["peer"], "an empty place")
    peers.callback(peer.stop)
    if login:
        peer.type(f"{USER}\n{PASSWORD}\n")
    return peer


def is_the_at_interface(peer: Peer, module: Module) -> None:
    """Commands, a text and a file at their prompts, and what the module says by itself."""
    assert peer.ask("AT+CSQ").endswith("AT+CSQ\n+CSQ: 17,0\nOK\n")
    assert "ERROR" in peer.ask("AT+CFUN=4", "ERROR\n")
    peer.ask("AT+CMGF=1")
    peer.type(f'AT+CMGS="{TO}"\n')
    peer.until("> ")
    peer.type("hello there\x1a")
    assert re.search(r"hello there\n\+CMGS: \d+\nOK\n$", peer.until("OK\n"))
    assert module.ask("sent", clear=True)["sent"][-1]["text"].endswith("hello there")
    peer.type(f'AT#WSCRIPT="{PROGRAM}",{len(SCRIPT)}\n')
    peer.until(">>>")
    peer.type(SCRIPT)
    peer.until("OK\n")
    assert f'#LSCRIPT: "{PROGRAM}",{len(SCRIPT)}\n' in peer.ask("AT#LSCRIPT")
    module.ask("urc", text="#NITZ: made up")
    peer.until("#NITZ: made up\n")


@BY_CLIENT
def test_a_program_is_the_at_interface_behind_its_login(
    daemon: Daemon, module: Module, peers: ExitStack, client: Command
) -> None:
    is_the_at_interface(calls(peers, daemon, client), module)


@BY_CLIENT
def test_a_wrong_password_ends_the_program_with_nothing_shown(
    daemon: Daemon, peers: ExitStack, client: Command
) -> None:
    with Caller(daemon.tcp) as caller:
        caller.ask(b"AT\r")  # so that this is the first wrong one, which is not kept waiting
    until(lambda: not daemon.status()["tcp"]["peer"], "an empty place")
    peer = calls(peers, daemon, client, login=False)
    peer.type(f"{USER}\nwrong\nAT+CSQ\n")
    shown = peer.rest()
    assert "CSQ" not in shown
    assert "OK" not in shown


@pytest.fixture(scope="module")
def stepping(place: Stage) -> Daemon:
    """Who asks for name and password; without a module, for it is not needed."""
    daemon = place.daemon(folder="stepping")
    daemon.configure(tcp={"shut_out": 0, "step_login": True})
    return daemon.start()


@BY_CLIENT
def test_step_by_step(stepping: Daemon, peers: ExitStack, client: Command) -> None:
    peer = calls(peers, stepping, client, login=False)
    peer.until("Username: ")
    peer.type(f"{USER}\n")
    peer.until("Password: ")
    peer.type(f"{PASSWORD}\n")
    assert peer.until("Login successful.\n") == "\nLogin successful.\n"
    assert peer.ask("AT#TCPATRUNL?").endswith("#TCPATRUNL: 1,1\nOK\n")


@pytest.mark.parametrize("ends", ["\r", "\n"], ids=["CR", "LF"])
def test_socat_at_a_terminal_sends_each_character_as_it_is_typed(daemon: Daemon, peers: ExitStack, ends: str) -> None:
    host, port = daemon.tcp
    peer = Peer(["socat", "-,raw,echo=0", f"TCP:{host}:{port},nodelay"], terminal=True)
    peers.callback(until, lambda: not daemon.status()["tcp"]["peer"], "an empty place")
    peers.callback(peer.stop)
    until(lambda: not peer.echoes, "a terminal as socat wants it")
    peer.type(f"{USER}{ends}{PASSWORD}{ends}")
    until(lambda: daemon.status()["tcp"]["peer"], "the login")
    for character in "AT+CSQ":
        peer.type(character)
        assert peer.until(character) == character, "its echo"
    peer.type(ends)
    assert peer.until("OK\n") == "\n+CSQ: 17,0\nOK\n"


def test_telnet_at_a_terminal_sends_line_by_line(daemon: Daemon, peers: ExitStack) -> None:
    host, port = daemon.tcp
    peer = Peer(["telnet", host, str(port)], terminal=True)
    peers.callback(until, lambda: not daemon.status()["tcp"]["peer"], "an empty place")
    peers.callback(peer.stop)
    peer.until("Escape character is '^]'.\n")
    peer.type(f"{USER}\n{PASSWORD}\n")
    assert "+CSQ: 17,0\nOK\n" in peer.ask("AT+CSQ")
    peer.type("AT+CSX\x7fQ\n")  # taken back at the terminal
    assert "+CSQ: 17,0\nOK\n" in peer.until("OK\n")


@pytest.mark.parametrize("name", ["nc", "telnet", "plink -telnet"])
def test_ten_thousand_commands_pasted_at_once_are_run_in_order(daemon: Daemon, peers: ExitStack, name: str) -> None:
    """TCP-5, sequence on. The program is written to as it takes it, and read meanwhile."""
    peer = calls(peers, daemon, CLIENTS[name])
    peer.ask("AT")
    shown = peer.paste("".join(f"ATS{3 + n % 3}?\n" for n in range(10_000)), "OK\n", 10_000)
    registers = re.findall(r"^(0\d\d)\nOK$", shown, re.MULTILINE)
    assert registers == [("013", "010", "008")[n % 3] for n in range(10_000)]
    assert peer.ask("AT+CSQ").endswith("+CSQ: 17,0\nOK\n")


@pytest.mark.parametrize("name", ["nc", "telnet", "plink -telnet"])
def test_ten_thousand_commands_pasted_while_one_runs_are_ignored(stage: Stage, peers: ExitStack, name: str) -> None:
    """TCP-5, sequence off: none of them reaches the module, and none is echoed."""
    module = stage.module()
    daemon = stage.daemon(module).start()
    peer = calls(peers, daemon, CLIENTS[name])
    peer.ask("AT")
    module.ask("late", command="AT#CGMI", seconds=3.0)
    shown = peer.paste("AT#CGMI\n" + "AT+GMM\n" * 10_000, "OK\n", 1)
    assert shown == "AT#CGMI\n#CGMI: Telit\nOK\n"
    assert peer.ask("AT+CIMI").endswith("OK\n")
    assert module.count("AT+GMM") == 0


@pytest.mark.parametrize("name", ["nc", "plink -raw"])
def test_a_program_that_is_stopped_stops_its_own_run_and_never_the_port(
    daemon: Daemon, module: Module, peers: ExitStack, name: str
) -> None:
    peer = calls(peers, daemon, CLIENTS[name])
    peer.ask("AT")
    module.ask("answer", command="AT#MONI=7", lines=["x" * 1000] * 50, always=True)
    module.ask("seen", clear=True)
    peer.type("AT#MONI=7\n" * SLOW)
    peer.until("x" * 1000)
    peer.process.send_signal(signal.SIGSTOP)
    try:
        until(lambda: steady(lambda: module.count("AT#MONI=7")), "the run's stop")
        begun = module.count("AT#MONI=7")
        assert begun < SLOW
        for _ in range(3):
            done = daemon.ctl("at", "AT#CGMI")
            assert (done.returncode, done.stdout) == (0, "#CGMI: Telit\nOK\n")
        assert module.count("AT#MONI=7") == begun
    finally:
        peer.process.send_signal(signal.SIGCONT)
    peer.paste("", "OK\n", SLOW)
    assert module.count("AT#MONI=7") == SLOW


SLOW = 160
"""Answers of 50 kB: more than every buffer on their way holds."""


def steady(look: Callable[[], int]) -> bool:
    """Whether it stays the same for half a second."""
    first = look()
    time.sleep(0.5)
    return first > 0 and look() == first


# Client mode: the programs are called.


def calling(place: Stage, module: Module, port: int, **client: object) -> Daemon:
    daemon = place.daemon(module)
    daemon.options["tcp"] = {}
    daemon.configure(**{"tcp.client": {"host": "127.0.0.1", "port": port, "enabled": True, **client}})
    return daemon.start()


def is_up(daemon: Daemon) -> bool:
    return bool(daemon.status()["tcp_client"]["state"] == "up")


@BY_LISTENER
def test_a_program_that_is_called_has_the_at_interface(
    stage: Stage, peers: ExitStack, listener: Callable[[int], list[str]]
) -> None:
    """Without a token, and with one before all else."""
    module = stage.module()
    module.ask("answer", command="AT+CSQ", lines=["+CSQ: 17,0"], always=True)
    port = free_port()
    peer = Peer(listener(port))
    peers.callback(peer.stop)
    daemon = calling(stage, module, port)
    until(lambda: is_up(daemon), "the call")
    is_the_at_interface(peer, module)


@BY_LISTENER
@pytest.mark.parametrize("right", [True, False])
def test_a_program_that_is_called_shows_the_token(
    stage: Stage, peers: ExitStack, listener: Callable[[int], list[str]], *, right: bool
) -> None:
    port = free_port()
    peer = Peer(listener(port))
    peers.callback(peer.stop)
    (stage.folder / "token").write_text(TOKEN)
    (stage.folder / "token").chmod(0o600)
    module = stage.module()
    daemon = calling(stage, module, port, token_file=str(stage.folder / "token"))
    until(lambda: is_up(daemon), "the call")
    if right:
        peer.type(f"{TOKEN}\n")
        assert peer.ask("AT+CGMM") == "AT+CGMM\nHE910-D\nOK\n"
    else:
        peer.type(f"{TOKEN[::-1]}\nAT+CGMM\n")
        shown = peer.rest()
        assert "AT" not in shown
        assert "OK" not in shown
        assert module.count("AT+CGMM") == 1, "that of the daemon's own set-up"


# ser2net: between the daemon and a serial line, at either end.


@pytest.fixture
def line() -> Iterator[tuple[int, str]]:
    """A serial line: our end, and the name of the other."""
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    try:
        yield ours, os.ttyname(theirs)
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize("protocol", ["tcp", "telnet,tcp", "telnet(rfc2217),tcp"])
def test_ser2net_is_called_and_somebody_sits_at_its_serial_line(
    stage: Stage, peers: ExitStack, line: tuple[int, str], protocol: str
) -> None:
    """As telnet it negotiates, and as RFC 2217 all the more: it is declined, once, and none of it is a command."""
    ours, theirs = line
    module = stage.module()
    module.ask("answer", command="AT+CSQ", lines=["+CSQ: 17,0"], always=True)
    port = free_port()
    command = ser2net(stage.folder, f"{protocol},127.0.0.1,{port}", f"serialdev,{theirs},9600n81,local")
    peer = Peer(command, line=ours)
    peers.callback(peer.stop)
    until(lambda: listens(port), "ser2net")
    daemon = calling(stage, module, port)
    until(lambda: is_up(daemon), "the call")
    is_the_at_interface(peer, module)


@pytest.mark.parametrize("protocol", ["tcp", "telnet,tcp"])
def test_ser2net_calls_for_somebody_at_a_serial_line(
    stage: Stage, peers: ExitStack, line: tuple[int, str], protocol: str
) -> None:
    ours, theirs = line
    module = stage.module()
    module.ask("answer", command="AT+CSQ", lines=["+CSQ: 17,0"], always=True)
    daemon = stage.daemon(module)
    daemon.configure(tcp={"sequence": True})
    host, port = daemon.start().tcp
    config = ser2net(stage.folder, f"conacc,serialdev,{theirs},9600n81,local", f"{protocol},{host},{port}")
    peer = Peer(config, line=ours)
    peers.callback(until, lambda: not daemon.status()["tcp"]["peer"], "an empty place")
    peers.callback(peer.stop)
    peer.type(f"{USER}\n{PASSWORD}\n")
    is_the_at_interface(peer, module)


def ser2net(folder: Path, accepter: str, connector: str) -> list[str]:
    file = folder / "ser2net.yaml"
    file.write_text(f"%YAML 1.1\n---\nconnection: &it\n  accepter: {accepter}\n  connector: {connector}\n")
    return [SER2NET, "-d", "-u", "-c", str(file)]


def listens(port: int) -> bool:
    """Whether somebody listens there, without calling."""
    wanted = f"0100007F:{port:04X}"
    rows = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()
    return any(row.split()[1] == wanted and row.split()[3] == "0A" for row in rows[1:])
