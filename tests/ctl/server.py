# SPDX-License-Identifier: Apache-2.0
"""A unix socket server in a thread that answers by a script."""

import json
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

Piece = bytes | Callable[[], bytes]


class Server:
    """Takes one connection; for each line it gets it sends the next piece of its script, and closes after the last."""

    def __init__(self, path: Path, script: Sequence[Piece]) -> None:
        self.path = str(path)
        self.seen: list[object] = []
        self._script = script
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(self.path)
        self._socket.listen(2)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._socket.accept()
        with connection, connection.makefile("rb") as lines:
            for piece in self._script:
                line = lines.readline()
                if not line:
                    return
                self.seen.append(json.loads(line))
                answer = piece if isinstance(piece, bytes) else piece()
                with suppress(BrokenPipeError):  # a client that was interrupted may be gone
                    connection.sendall(answer)

    def stop(self) -> None:
        # If nobody came: come oneself, so that the thread gets to its end.
        with socket.socket(socket.AF_UNIX) as last:
            last.connect(self.path)
            last.shutdown(socket.SHUT_WR)
            self._thread.join(10)
        self._socket.close()
        assert not self._thread.is_alive()


Serve = Callable[..., Server]
