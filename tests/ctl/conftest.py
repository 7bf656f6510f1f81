# SPDX-License-Identifier: Apache-2.0
"""What the tests of atrunctl share."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.ctl.server import Piece, Serve, Server


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Return what puts this process into a time zone, spelt as POSIX.1 TZ has it."""

    def move(name: str) -> None:
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield move
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Return what starts a server that answers by the script that it is given."""
    servers: list[Server] = []

    def start(*script: Piece) -> Server:
        servers.append(Server(tmp_path / "socket", script))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()
