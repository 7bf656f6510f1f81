# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C while there is a connection to a broker.

Rule of this file: the first one raises nothing inside paho, whose locks would stay as they were and be waited for.
"""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Self


class Interrupts:
    """Inside, Ctrl-C is taken note of; the second one raises `KeyboardInterrupt`, behind which no link is used."""

    def __init__(self) -> None:
        self.came = False
        self._raises = False

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGINT, self._take)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGINT, self._before)

    @contextlib.contextmanager
    def raising(self) -> Iterator[None]:
        """Inside, the first one raises as well: for waits that have nothing to leave in order."""
        self._raises = True
        try:
            if self.came:
                raise KeyboardInterrupt
            yield
        finally:
            self._raises = False

    def _take(self, _number: int, _frame: FrameType | None) -> None:
        if self.came or self._raises:
            raise KeyboardInterrupt
        self.came = True
