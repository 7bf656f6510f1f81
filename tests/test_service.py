# SPDX-License-Identifier: Apache-2.0
"""What systemd is told, over a real datagram socket."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from atrund.service import Service


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A socket in the place of systemd's, named in the environment."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        if request.param == "path":
            listener.bind(str(tmp_path / "notify"))
            monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        else:
            listener.bind("")  # the kernel chooses a free abstract name
            monkeypatch.setenv("NOTIFY_SOCKET", "@" + listener.getsockname()[1:].decode())
        listener.settimeout(5)
        yield listener


@pytest.fixture
def service(systemd: socket.socket) -> Iterator[Service]:
    assert systemd.getsockname()  # it is there, and named in the environment
    service = Service()
    yield service
    service.close()


def test_each_message_as_systemd_reads_it(systemd: socket.socket, service: Service) -> None:
    service.starting(300)
    service.ready("3 doors open")
    service.status("waiting for the module")
    service.ping()
    service.stopping(2.5)
    assert [systemd.recv(4096) for _ in range(5)] == [
        b"EXTEND_TIMEOUT_USEC=300000000",
        b"READY=1\nSTATUS=3 doors open",
        b"STATUS=waiting for the module",
        b"WATCHDOG=1",
        b"STOPPING=1\nEXTEND_TIMEOUT_USEC=2500000",
    ]


def test_a_reload_tells_when_it_began(systemd: socket.socket, service: Service) -> None:
    before = time.monotonic_ns() // 1000
    service.reloading()
    first, second = systemd.recv(4096).decode().split("\n")
    assert first == "RELOADING=1"
    name, _, microseconds = second.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(microseconds) <= time.monotonic_ns() // 1000


@pytest.mark.parametrize(
    ("text", "shown"),
    [("café Ω", b"caf? ?"), ("a\nREADY=1\x00\x7f", b"a?READY=1??"), ("x" * 300, b"x" * 200)],
)
def test_a_status_is_one_line_of_ascii(systemd: socket.socket, service: Service, text: str, shown: bytes) -> None:
    service.status(text)
    assert systemd.recv(4096) == b"STATUS=" + shown


def test_a_systemd_that_doesnt_read_holds_up_nobody(systemd: socket.socket, service: Service) -> None:
    for _ in range(5000):  # far more than any socket queue holds
        service.status("x" * 200)
    assert systemd.recv(4096) == b"STATUS=" + b"x" * 200


def test_without_systemd_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    service = Service()
    service.ready("")
    service.close()
    assert service.watchdog_interval is None


# sdnotify drops the socket that it couldn't connect, unclosed.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_systemd_that_has_gone_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "none"))
    service = Service()
    service.ready("")
    service.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("environ", "interval"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-1"}, None),
        ({"WATCHDOG_USEC": "٣"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_asked_for_by_the_environment(environ: dict[str, str], interval: float | None) -> None:
    assert Service(environ).watchdog_interval == interval


def test_a_listener_is_left_with_systemd(systemd: socket.socket, service: Service) -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        service.store(one.fileno(), "tcp-127.0.0.1-1024")
        said, (descriptor,), _, _ = socket.recv_fds(systemd, 4096, 4)
        with socket.socket(fileno=descriptor) as there:
            assert there.getsockname() == one.getsockname()
    assert said == b"FDSTORE=1\nFDNAME=tcp-127.0.0.1-1024"
    service.unstore("tcp-127.0.0.1-1024")
    assert systemd.recv(4096) == b"FDSTOREREMOVE=1\nFDNAME=tcp-127.0.0.1-1024"


def test_without_systemd_nothing_is_left_anywhere() -> None:
    Service({}).store(0, "none")
    Service({}).unstore("none")
