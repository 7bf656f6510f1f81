# SPDX-License-Identifier: Apache-2.0
"""What a careless program writes to a terminal, with the whole daemon behind it."""

import os
import select
from pathlib import Path

import pytest

from tests.peers.conftest import PATIENCE, Terminal


def ask(link: Path, typed: bytes, end: bytes) -> bytes:
    """Write, and return what comes up to and with `end`."""
    client = os.open(link, os.O_RDWR | os.O_NOCTTY)
    try:
        os.write(client, typed)
        found = b""
        while not found.endswith(end):
            ready, _, _ = select.select([client], [], [], PATIENCE)
            assert ready, found
            found += os.read(client, 4096)
        return found
    finally:
        os.close(client)


@pytest.mark.parametrize(
    "line",
    [
        b"AT" + b"+CSQ;" * 500,
        b"AT+CSQ" + b" " * 100_00,
        b'AT+CPBF="x',
        b"AT+CSQ\x1a",
        b"AT+CSQ\nAT+CFUN=4",
        b"AT+CSQ\xa2",
        b"AT+",
        b"AT;;=",
        b"AT#TCPATRUNFRWL=9",
        b"AT#SMSATRUN=7",
        b'AT#TCPATRUNAUTH=1,"' + b"x" * 300 + b'","y"',
    ],
)
def test_a_bad_line_is_an_error_and_nothing_changes(terminal: Terminal, line: bytes) -> None:
    before = terminal.look(lambda: terminal.house.daemon.own.settings)
    terminal.look(terminal.house.wire.written.clear)
    assert b"OK" not in ask(terminal.link, line + b"\r", b"\r\nERROR\r\n")
    assert terminal.look(lambda: terminal.house.wire.written) == []
    assert terminal.look(lambda: terminal.house.daemon.own.settings) == before
    assert ask(terminal.link, b"AT\r", b"OK\r\n") == b"AT\r\r\nOK\r\n"


def test_half_a_line_and_silence(terminal: Terminal) -> None:
    assert ask(terminal.link, b"AT+CFUN=", b"AT+CFUN=") == b"AT+CFUN="
    assert ask(terminal.link, b"4\rAT\r", b"OK\r\n") == b"4\rAT\r\r\nOK\r\n"
    assert "AT+CFUN=4" not in terminal.seen


def test_a_command_that_needs_a_confirmation_or_is_refused_does_not_pass(terminal: Terminal) -> None:
    assert b"OK" not in ask(terminal.link, b"AT#SHDN\r", b"\r\nERROR\r\n")
    assert "AT#SHDN" not in terminal.seen
