# SPDX-License-Identifier: Apache-2.0
"""A line to type at, with history, while lines of others come in above it."""

import asyncio
import contextlib
import sys
import threading
from collections.abc import Callable


class Console:
    """Reads lines from the terminal. Put out what comes meanwhile by `show`; `prompt` may change at any time."""

    def __init__(self, prompt: Callable[[], str]) -> None:
        self._prompt = prompt
        self._typing = False
        self._loop = asyncio.get_running_loop()
        self._typed: asyncio.Queue[str | None] = asyncio.Queue()
        self._next = threading.Semaphore(0)
        with contextlib.suppress(ImportError):
            import readline  # line editing and history come with the import

            readline.set_auto_history(True)
        # A daemon: nothing can wake up one who waits for a person to type.
        threading.Thread(target=self._read, name="console", daemon=True).start()

    async def line(self) -> str | None:
        """Return the next line that is typed; None at the end of input."""
        self._next.release()
        return await self._typed.get()

    def show(self, text: str) -> None:
        """Put out a line above the one that is being typed."""
        if not self._typing:
            sys.stdout.write(f"{text}\n")  # at once: the other thread may begin to ask between two pieces
            sys.stdout.flush()
            return
        with contextlib.suppress(ImportError):
            import readline

            typed = readline.get_line_buffer()
            sys.stdout.write(f"\r\x1b[K{text}\n{self._prompt()}{typed}")
            sys.stdout.flush()

    def _read(self) -> None:
        while True:
            self._next.acquire()
            self._typing = True
            line: str | None
            try:
                line = input(self._prompt())
            except (EOFError, OSError, ValueError):
                line = None
            self._typing = False
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                self._loop.call_soon_threadsafe(self._typed.put_nowait, line)
            if line is None:
                return
