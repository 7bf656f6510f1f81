# SPDX-License-Identifier: Apache-2.0
"""The control socket held by systemd's own program: it is there before the daemon and after it."""

import shutil
import socket

import pytest

from tests.scenarios.conftest import Stage
from tests.scenarios.players import PATIENCE, Daemon, until

pytestmark = pytest.mark.skipif(shutil.which("systemd-socket-activate") is None, reason="no systemd-socket-activate")


def activated(stage: Stage, path: str = "") -> Daemon:
    daemon = stage.daemon(stage.module())
    daemon.wrap = ("systemd-socket-activate", "-l", path or str(daemon.socket))
    return daemon


def test_who_calls_starts_the_daemon_and_the_socket_outlives_it(stage: Stage) -> None:
    daemon = activated(stage)
    program = daemon.begin()
    until(lambda: program.said("Listening on"), "the socket")
    assert daemon.status()["doors"] == {"closed": []}
    assert program.stop() == 0
    assert daemon.socket.is_socket()


def test_one_that_nothing_asks_for_is_closed_and_said(stage: Stage) -> None:
    other = stage.folder / "other"
    daemon = activated(stage, str(other))
    program = daemon.begin()
    until(lambda: program.said("Listening on"), "the socket")
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(other))
        daemon.heard("socket handed over that nothing asks for", detail=str(other))
        daemon.heard("doors open")
        caller.settimeout(PATIENCE)
        with pytest.raises(ConnectionResetError):
            caller.recv(1)
    assert daemon.status()["doors"] == {"closed": []}
