# SPDX-License-Identifier: Apache-2.0
"""Sockets handed over: by systemd's own program, and by hands that do it wrong."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from atrund.activation import Handed, Shelf, handed_over
from atrund.doors.listening import listening
from tests.scenarios.players import PATIENCE
from tests.support.ports import free_port

SHOW = """
import json, os, sys
from atrund.activation import handed_over
taken = handed_over(os.environ)
left = sorted(name for name in os.environ if name.startswith("LISTEN_"))
told = []
for one in taken:
    inherited = os.get_inheritable(one.socket.fileno())
    told.append([one.name, one.socket.getsockname(), one.socket.getblocking(), inherited])
print(json.dumps({"taken": told, "left": left}))
"""


def test_what_systemd_hands_over_is_taken_once(tmp_path: Path) -> None:
    if shutil.which("systemd-socket-activate") is None:
        pytest.skip("there is no systemd-socket-activate")
    path = tmp_path / "control"
    command = ["systemd-socket-activate", "-l", str(path), "--fdname=control", sys.executable, "-c", SHOW]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        assert program.stderr is not None
        assert "Listening" in program.stderr.readline()
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(str(path))
            out, _ = program.communicate(timeout=PATIENCE)
    assert json.loads(out) == {"taken": [["control", str(path), False, False]], "left": []}


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"LISTEN_FDS": "1"},
        {"LISTEN_PID": "1", "LISTEN_FDS": "1"},
        {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "x"},
    ],
)
def test_what_is_for_another_process_is_left(environ: dict[str, str]) -> None:
    assert handed_over(environ) == []
    assert environ == {}


def test_what_is_no_socket_is_passed_over() -> None:
    """Of three descriptors one is a pipe's, and one is not there."""
    code = "import os; os.environ['LISTEN_PID'] = str(os.getpid()); " + SHOW
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        name = list(one.getsockname())
        read, write = os.pipe()

        def hand_over() -> None:
            os.dup2(one.fileno(), 100)
            os.dup2(read, 101)
            os.dup2(100, 3)
            os.dup2(101, 4)

        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "LISTEN_FDS": "3"},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
            close_fds=False,
            preexec_fn=hand_over,
        )
        os.close(read)
        os.close(write)
    assert json.loads(done.stdout)["taken"] == [["", name, False, False]]


class Recorded:
    """Systemd's store, as far as it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def store(self, descriptor: int, name: str) -> None:
        assert descriptor >= 0
        self.told.append(("store", name))

    def unstore(self, name: str) -> None:
        self.told.append(("unstore", name))


def listener(address: str = "127.0.0.1") -> socket.socket:
    one = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    one.bind((address, 0))
    one.listen()
    return one


def test_a_socket_is_taken_by_whom_it_is_for(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as mine, listener() as four, listener("::1") as six:
        mine.bind(str(tmp_path / "mine"))
        shelf = Shelf([Handed("a", mine), Handed("b", four), Handed("c", six)], Recorded())
        port = four.getsockname()[1]
        assert shelf.at_path(None) is None
        assert shelf.at_path(tmp_path / "none") is None
        assert shelf.at_port("127.0.0.1", port + 1, "") is None
        assert shelf.at_port("127.0.0.1", 0, "") is None
        assert shelf.at_port("127.0.0.2", port, "") is None
        assert shelf.at_port("127.0.0.1", port, "lo") is None
        assert shelf.at_path(tmp_path / "mine") is mine
        assert shelf.at_port("127.0.0.1", port, "") is four
        assert shelf.at_port("127.0.0.1", port, "") is None
        assert shelf.at_port("::1", six.getsockname()[1], "") is six


def test_one_that_does_not_listen_is_nobodys() -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        assert Shelf([Handed("a", one)], Recorded()).at_port("127.0.0.1", one.getsockname()[1], "") is None


def test_what_nobody_took_is_closed_there_too() -> None:
    store = Recorded()
    one = listener()
    one_name = one.getsockname()
    shelf = Shelf([Handed("a", one)], store)
    assert shelf.clear() == [str(one_name)]
    assert store.told == [("unstore", "a")]
    assert one.fileno() == -1
    assert shelf.clear() == []


def test_a_listener_stays_on_the_shelf_when_the_daemon_leaves() -> None:
    store = Recorded()
    shelf = Shelf([], store)
    with listener("::1") as one:
        name = f"tcp-__1-{one.getsockname()[1]}"
        shelf.keep(one)
        shelf.drop(one)
        assert store.told == [("store", name), ("unstore", name)]
        shelf.is_leaving = True
        shelf.drop(one)
        assert len(store.told) == 2


def test_a_dropped_port_is_free_at_once_though_systemd_still_holds_it() -> None:
    """It closes its copy when it gets to it; who leaves for a restart is not to take the port along."""
    shelf = Shelf([], Recorded())
    with listening("127.0.0.1", free_port(), "") as one, one.dup():
        one.listen()
        where = one.getsockname()
        shelf.is_leaving = True
        shelf.drop(one)
        socket.create_connection(where, PATIENCE).close()
        shelf.is_leaving = False
        shelf.drop(one)
        with listening(where[0], where[1], "") as other:
            other.listen()
            socket.create_connection(where, PATIENCE).close()
            other.settimeout(PATIENCE)
            other.accept()[0].close()
