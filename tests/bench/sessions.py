# SPDX-License-Identifier: Apache-2.0
"""What a TCP session costs: memory of one more, with a command run in it; and of a connection to the bare relay."""

import re
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from tests.bench.figures import table, title
from tests.bench.roundtrips import Stream
from tests.bench.stage import PASSWORD, USER, Daemon, Stage, pythons

SESSIONS: Final = 8
"""As many as may be configured; the first is not counted, for it brings what all share."""
SETTLE: Final = 1.0


def measure(stage: Stage) -> None:
    """Print what one more session takes of private memory."""
    daemon = Daemon(stage, "sessions", pythons()[0], mqtt=False, sessions=SESSIONS)
    daemon.start()
    relay, _ = stage.start_relay("tcp", stage.terminal())
    ours = _one_more(daemon.pid, lambda: _session(daemon.tcp_port()))
    port = int(relay.ask())
    bare = _one_more(relay.pid, lambda: socket.create_connection(("127.0.0.1", port)))
    daemon.stop()
    title(f"memory of one more session, of {SESSIONS}, KiB")
    table(("", "private"), [("TCP door", f"{ours:.0f}"), ("bare asyncio relay", f"{bare:.0f}")])


def _one_more(pid: int, connect: Callable[[], socket.socket]) -> float:
    with ExitStack() as stack:
        stack.callback(connect().close)
        time.sleep(SETTLE)
        before = _private(pid)
        for _ in range(SESSIONS - 1):
            stack.callback(connect().close)
        time.sleep(SETTLE)
        return (_private(pid) - before) / (SESSIONS - 1)


def _session(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(f"{USER}\r{PASSWORD}\r".encode())
    Stream(connection.fileno()).ask("AT+CSQ")
    return connection


def _private(pid: int) -> int:
    """KiB that are this process's alone."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii")
    return sum(int(kib) for kib in re.findall(r"^Private_(?:Clean|Dirty): +(\d+) kB$", rollup, re.MULTILINE))
