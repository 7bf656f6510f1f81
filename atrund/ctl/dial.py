# SPDX-License-Identifier: Apache-2.0
"""`atrunctl dial`: call a daemon's TCP door, or a module that runs TCP AT RUN as a server, and work there."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:  # what only runs need, runs import
    import ssl
    from collections.abc import Callable

    from atrund.ctl.far import Far

CONNECT_WAIT: Final = 30.0
"""Seconds for the connection: a cellular network may have to page the device first."""
LOGIN_WAIT: Final = 70.0
"""Seconds for the first answer; a login may take a minute (TCP-3)."""

EPILOG: Final = """\
Without --run and --script, and at a terminal, it reads what you type, with history; lines that begin with a dot are
its own:
  .file PATH   send a file's bytes where the far side waits for data (a prompt: > or >>>)
  .end         end a text at a prompt (Ctrl-Z)
  .esc         give a text up (ESC)
  .quit        hang up

exit codes:
  0  every command ended with OK
  1  one did not, or the connection was closed
  2  wrong usage
  3  no connection, or the login was refused

examples:
  atrunctl dial 192.0.2.10:1024 --user operator
  atrunctl dial '[2001:db8::7]:1024' --user operator --password-file secret.txt --run AT+CSQ"""


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand."""
    from atrund.ctl import secret, tls

    parser = subparsers.add_parser(
        "dial",
        help="work at a TCP door somewhere",
        description="Calls a TCP door of atrund, or of a module with TCP AT RUN in server mode, and works there.",
        epilog=EPILOG,
    )
    parser.add_argument("address", metavar="HOST:PORT", type=address, help="where it listens")
    parser.add_argument(
        "--run",
        metavar="LINE",
        dest="lines",
        action="append",
        default=[],
        help="run an AT command line; may be repeated",
    )
    parser.add_argument("--user", required=True, help="the login's name")
    secret.option(parser)
    script_options(parser)
    tls.options(parser, server=False)
    parser.set_defaults(run=run)


def script_options(parser: argparse.ArgumentParser) -> None:
    """Let a parser take a script."""
    parser.add_argument("--script", metavar="FILE", help="run the lines of FILE (- for standard input)")
    parser.add_argument("--keep-going", action="store_true", help="go on behind a line that fails")


def address(text: str) -> tuple[str, int]:
    """Read HOST:PORT, an IPv6 address in brackets."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536 or ("[" not in text and ":" in host):
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, such as 192.0.2.10:1024 or [2001:db8::7]:1024")
    return host, int(port)


def read_script(path: str) -> list[str]:
    """Return the lines of a script. Raises `OSError`, `UnicodeDecodeError`."""
    import sys

    from atrund.ctl.far import script

    return script(sys.stdin.read() if path == "-" else Path(path).read_text("utf-8"))


def run(args: argparse.Namespace) -> int:
    """Dial; return the exit code."""
    import asyncio
    import sys

    from atrund.ctl import secret, tls
    from atrund.ctl.terminal import complain

    try:
        if args.script is not None:
            args.lines += read_script(args.script)
        elif not args.lines and not sys.stdin.isatty():
            args.lines = read_script("-")
            if args.password_file == "-":
                raise secret.UnusableError("--password-file - and a script on standard input are one too many")
        context = tls.client(args)
        password = asked(args)
    except (OSError, UnicodeDecodeError, secret.UnusableError) as error:
        complain(str(error))
        return 2
    return asyncio.run(_dial(args, password, context))


def asked(args: argparse.Namespace) -> str:
    """Return the password from its file, or asked for once. Raises `UnusableError`."""
    import sys
    from getpass import getpass

    from atrund.ctl import secret

    if args.password_file is not None:
        return secret.read_file(args.password_file)
    if not sys.stdin.isatty():
        raise secret.UnusableError("there is no terminal to ask at; --password-file F would be right")
    return getpass(f"Password of {args.user}: ")


async def _dial(args: argparse.Namespace, password: str, context: "ssl.SSLContext | None") -> int:
    import asyncio
    import ssl

    from atrund.ctl.far import Far, GoneError, run_all
    from atrund.ctl.terminal import complain, printable
    from atrund.tls import explain

    host, port = args.address
    try:
        async with asyncio.timeout(CONNECT_WAIT):
            name = args.tls_name if context else None
            reader, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=name)
    except (OSError, TimeoutError) as error:
        why = explain(error) if isinstance(error, ssl.SSLError) else str(error) or "no answer"
        complain(f"no connection to {printable(host)} port {port}: {why}")
        return 3
    far = Far(reader, writer, lambda _text: None)
    try:
        # Both at once, which is right with prompts and without (commands.md 3.8); neither is put out here.
        far.send(f"{args.user}\r{password}\r".encode())
        if not (await far.ask("AT", LOGIN_WAIT)).ok:
            complain("the login was neither taken nor refused: is this a TCP AT RUN service?")
            return 3
    except GoneError:
        maybe = "our certificate was refused" if context else "TLS is spoken there and --tls is missing"
        why = f"the connection was closed: the login was refused, the place is taken, or {maybe}"
        complain(far.refusal or why)
        return 3
    try:
        if args.lines:
            far.show = print
            return 0 if await run_all(far, args.lines, keep_going=args.keep_going) else 1
        return await _work(far)
    except GoneError as error:
        complain(str(error))
        return 1
    finally:
        await far.close()


async def _work(far: "Far") -> int:
    import asyncio

    from atrund.ctl.console import Console
    from atrund.ctl.terminal import complain

    console = Console(lambda: "" if far.prompting.is_set() else f"{far.name} ")
    far.show = console.show
    while True:
        typing = asyncio.get_running_loop().create_task(console.line())
        await asyncio.wait({typing, far.gone}, return_when=asyncio.FIRST_COMPLETED)
        if not typing.done():
            typing.cancel()
            complain(far.gone.result())
            return 1
        line = typing.result()
        if line is None or line.strip() == ".quit":
            return 0
        type_at(far, line, console.show)


def type_at(far: "Far", line: str, show: "Callable[[str], None]") -> None:
    """Send what was typed, or do what a line that begins with a dot asks for. Raises `GoneError`."""
    from atrund.ctl.far import CTRL_Z, ESC

    word, _, rest = line.strip().partition(" ")
    if not word.startswith("."):
        far.say(line)
    elif word == ".end":
        far.send(CTRL_Z)
    elif word == ".esc":
        far.send(ESC)
    elif word == ".file":
        try:
            far.send(Path(rest.strip()).read_bytes())
        except OSError as error:
            show(f"{error.strerror}: {rest.strip()}")
    else:
        show(f"{word}: .file PATH, .end, .esc and .quit are known")
