# SPDX-License-Identifier: Apache-2.0
"""`atrunctl listen`: take the calls of daemons and modules that run TCP AT RUN as clients, and work there."""

import argparse
import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:  # what only runs need, runs import
    import ssl
    from collections.abc import Callable

    from atrund.ctl.console import Console
    from atrund.ctl.far import Far

CALLERS_MAX: Final = 256
"""Callers at once; one more is hung up on."""
HANDSHAKE: Final = 20.0
"""Seconds for a caller's TLS handshake, over a cellular network."""

EPILOG: Final = """\
Callers have numbers. Without --script, and at a terminal, it reads what you type, with history: lines go to the caller
in use; those that begin with a dot are its own:
  .list          who is there
  .use N         work at caller N
  .all LINE      run a line at all of them
  .script FILE   run the lines of FILE at all of them
  .close N       hang up on caller N
  .file PATH, .end, .esc   data for a prompt: a file's bytes, the end of a text (Ctrl-Z), or giving it up (ESC)
  .quit          hang up on all

exit codes:
  0  ended by .quit, or --count callers were served and every command ended with OK
  1  some command did not
  2  wrong usage
  3  the port can't be listened on

examples:
  atrunctl listen --port 9000
  atrunctl listen --port 9000 --token-file token.txt --script upgrade.txt --count 12"""


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand."""
    from atrund.ctl import tls
    from atrund.ctl.dial import script_options

    parser = subparsers.add_parser(
        "listen",
        help="take calls of modules and daemons",
        description="Takes the calls of atrund, or of modules with TCP AT RUN in client mode, and works there.",
        epilog=EPILOG,
    )
    parser.add_argument("--port", required=True, type=_port, help="where to listen; 0 takes a free one and says which")
    parser.add_argument("--address", default=None, help="the address to listen on (default: all)")
    parser.add_argument("--token-file", metavar="F", help="say the token in F first, as atrund can be told to ask for")
    script_options(parser)
    parser.add_argument(
        "--count", metavar="N", type=_count, default=0, help="end when the script was run at N callers (default: never)"
    )
    tls.options(parser, server=True)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Listen; return the exit code."""
    import sys

    from atrund.ctl import secret, tls
    from atrund.ctl.dial import read_script
    from atrund.ctl.terminal import complain

    try:
        context = tls.server(args)
        token = "" if args.token_file is None else secret.read_file(args.token_file)
        lines = None if args.script is None else read_script(args.script)
    except (OSError, UnicodeDecodeError, secret.UnusableError) as error:
        complain(str(error))
        return 2
    if lines is None and (args.count or not sys.stdin.isatty()):
        complain("there is no terminal to type at; --script FILE would be right")
        return 2
    return asyncio.run(_Exchange(token, lines, args).run(context))


class _Exchange:
    """Who calls, and what becomes of them."""

    def __init__(self, token: str, lines: list[str] | None, args: argparse.Namespace) -> None:
        self._token = token
        self._lines = lines
        self._args = args
        self._callers: dict[int, Far] = {}
        self._greeting = 0
        """How many are shaking hands."""
        self._last = 0
        self._in_use = 0
        self._served = 0
        self._good = True
        self._show: Callable[[str], None] = print
        self._ended = asyncio.Event()

    async def run(self, context: "ssl.SSLContext | None") -> int:
        from atrund.ctl.terminal import complain

        try:
            server = await asyncio.start_server(partial(self._taken, context), self._args.address, self._args.port)
        except OSError as error:
            complain(f"port {self._args.port}: {error.strerror or error}")
            return 3
        async with server:
            for listener in server.sockets:
                host, port, *_ = listener.getsockname()
                print(f"listening on {host} port {port}", flush=True)
            if self._lines is None:
                await self._work()
            else:
                await self._ended.wait()
            for far in tuple(self._callers.values()):
                await far.close()
        return 0 if self._good else 1

    async def _taken(
        self, context: "ssl.SSLContext | None", reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(asyncio.CancelledError):  # at the end; asyncio would show where it was
            await self._greeted(context, reader, writer)

    async def _greeted(
        self, context: "ssl.SSLContext | None", reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if len(self._callers) + self._greeting >= CALLERS_MAX:
            writer.transport.abort()
            return
        if context is not None:
            peer = writer.get_extra_info("peername") or ("?",)
            self._greeting += 1
            try:
                await writer.start_tls(context, ssl_handshake_timeout=HANDSHAKE)
            except OSError as error:
                from atrund.tls import explain

                self._show(f"a call from {peer[0]} failed: {explain(error)}")
                writer.transport.abort()
                return
            finally:
                self._greeting -= 1
        await self._called(reader, writer)

    async def _called(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from atrund.ctl.far import Far

        self._last += 1
        number = self._last
        far = Far(reader, writer, lambda text: self._show(f"[{number}] {text}"))
        self._callers[number] = far
        self._in_use = self._in_use or number
        self._show(f"[{number}] {far.name} is here")
        try:
            if self._token:
                far.send(self._token.encode() + b"\r")
            if self._lines is not None:
                await self._serve(number, far, self._lines)
            self._show(f"[{number}] {far.name} has left: {await far.gone}")
        finally:
            del self._callers[number]
            if self._in_use == number:
                self._in_use = min(self._callers, default=0)

    async def _serve(self, number: int, far: "Far", lines: list[str]) -> None:
        """Run the script at a caller and hang up."""
        from atrund.ctl.far import GoneError, run_all

        try:
            self._good &= await run_all(far, lines, keep_going=self._args.keep_going)
        except GoneError:
            self._good = False
            self._show(f"[{number}] {far.name} left before the script's end")
        await far.close()
        self._served += 1
        if self._served == self._args.count:
            self._ended.set()

    async def _work(self) -> None:
        from atrund.ctl.console import Console
        from atrund.ctl.far import GoneError

        console = Console(self._prompt)
        self._show = console.show
        while (line := await console.line()) is not None and line.strip() != ".quit":
            try:
                await self._do(line, console)
            except GoneError as error:
                console.show(str(error))

    def _prompt(self) -> str:
        far = self._callers.get(self._in_use)
        if far is None:
            return "nobody "
        return "" if far.prompting.is_set() else f"[{self._in_use}] "

    async def _do(self, line: str, console: "Console") -> None:
        from atrund.ctl.dial import read_script, type_at
        from atrund.ctl.far import run_all

        word, _, rest = line.strip().partition(" ")
        rest = rest.strip()
        match word:
            case ".list":
                for number, far in self._callers.items():
                    console.show(f"[{number}] {far.name}{' *' if number == self._in_use else ''}")
            case ".use" | ".close":
                if not rest.isdecimal() or int(rest) not in self._callers:
                    console.show(f"{word} {rest}: no such caller; .list shows who is there")
                elif word == ".use":
                    self._in_use = int(rest)
                else:
                    await self._callers[int(rest)].close()
            case ".all" | ".script":
                try:
                    lines = [rest] if word == ".all" else read_script(rest)
                except (OSError, UnicodeDecodeError) as error:
                    console.show(str(error))
                    return
                keep_going = self._args.keep_going
                every = (run_all(far, lines, keep_going=keep_going) for far in tuple(self._callers.values()))
                ends = await asyncio.gather(*every, return_exceptions=True)
                console.show(f"{sum(end is True for end in ends)} of {len(ends)} ended well")
            case _ if self._in_use in self._callers:
                type_at(self._callers[self._in_use], line, console.show)
            case _:
                console.show("nobody is there")


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port from 0 to 65535")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of callers")
    return int(text)
