# SPDX-License-Identifier: Apache-2.0
"""The log: fields exact, nobody ever blocked, nothing secret shown, no value taken for another field."""

import asyncio
import enum
import io
import json
import logging
import os
import re
import socket
import struct
import threading
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from atrund import journal
from atrund.atrun.secrets import Secret
from atrund.journal import Journal
from atrund.journal.kinds import message_id
from atrund.journal.sinks import STREAM_QUEUE_MAX, JournalSink, StreamSink, serialize

TIMEOUT = 5.0


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    level = root.level
    yield
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[socket.socket]:
    """A socket in the place of journald's; its path is `getsockname()`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.settimeout(TIMEOUT)
        yield listener


@pytest.fixture
def native(journald: socket.socket) -> Iterator[Journal]:
    """The log, set up to go to `journald`."""
    log = journal.configure("debug", "journal", environ={}, journal_socket=journald.getsockname())
    yield log
    log.close()


def parse(datagram: bytes) -> dict[str, str]:
    """Reads one entry as journald does; a field that stands in it twice fails the test."""
    fields: dict[str, str] = {}
    while datagram:
        head, _, rest = datagram.partition(b"\n")
        name, equals, value = head.partition(b"=")
        if not equals:
            (length,) = struct.unpack("<Q", rest[:8])
            value, rest = rest[8 : 8 + length], rest[8 + length :]
            assert rest[:1] == b"\n"
            rest = rest[1:]
        assert re.fullmatch(rb"[A-Z][A-Z0-9_]{0,63}", name)
        assert name.decode() not in fields
        fields[name.decode()] = value.decode()
        datagram = rest
    return fields


def received(journald: socket.socket) -> dict[str, str]:
    return parse(journald.recv(1 << 20))


# The native protocol


def test_the_fields_of_a_request(journald: socket.socket, native: Journal) -> None:
    structlog.get_logger().info(
        "request ended",
        id="01J",
        door="tcp",
        peer="10.0.0.7",
        command='AT+CLCK="SC",2',
        state="ok",
        final="OK",
        duration_ms=212,
        reason=None,
        lines=2,
    )
    entry = received(journald)
    assert entry.pop("MESSAGE_ID") == message_id("request ended")
    assert entry == {
        "MESSAGE": 'request ended from tcp 10.0.0.7, ok, OK, 212 ms, lines=2: AT+CLCK="SC",2',
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "atrund",
        "ATRUND_ID": "01J",
        "ATRUND_DOOR": "tcp",
        "ATRUND_PEER": "10.0.0.7",
        "ATRUND_COMMAND": 'AT+CLCK="SC",2',
        "ATRUND_STATE": "ok",
        "ATRUND_FINAL": "OK",
        "ATRUND_DURATION_MS": "212",
        "ATRUND_LINES": "2",
    }
    assert native.format == "journal"


@pytest.mark.parametrize(
    ("level", "priority"), [("debug", "7"), ("info", "6"), ("warning", "4"), ("error", "3"), ("critical", "2")]
)
def test_levels_are_priorities(journald: socket.socket, native: Journal, level: str, priority: str) -> None:
    getattr(structlog.get_logger(), level)("x")
    assert received(journald)["PRIORITY"] == priority
    assert native.dropped == 0


def test_bound_values_go_with_every_entry(journald: socket.socket, native: Journal) -> None:
    structlog.contextvars.bind_contextvars(door="sms")
    structlog.get_logger().bind(peer="+39340").info("x")
    fields = received(journald)
    assert (fields["ATRUND_DOOR"], fields["ATRUND_PEER"]) == ("sms", "+39340")
    assert native.dropped == 0


def test_a_traceback_is_a_field_of_several_lines(journald: socket.socket, native: Journal) -> None:
    try:
        raise ValueError("first\nATRUND_DOOR=local\nMESSAGE=forged")
    except ValueError:
        structlog.get_logger().exception("it broke", door="tcp")
    fields = received(journald)
    assert fields["ATRUND_DOOR"] == "tcp"
    assert fields["MESSAGE"].startswith("it broke from tcp")
    lines = fields["ATRUND_EXCEPTION"].split("\n")
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-3:] == ["ValueError: first", "ATRUND_DOOR=local", "MESSAGE=forged"]
    assert fields["PRIORITY"] == "3"
    assert native.dropped == 0


@given(st.dictionaries(st.from_regex(r"[A-Z][A-Z0-9_]{0,20}", fullmatch=True), st.text(max_size=30), max_size=5))
def test_what_is_serialized_reads_back(fields: dict[str, str]) -> None:
    octets = {name: value.encode("utf-8", "backslashreplace").decode() for name, value in fields.items()}
    assert parse(serialize(fields)) == octets


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=20), max_size=4))
def test_no_key_and_no_value_starts_another_field(event: dict[str, str]) -> None:
    shown = journal.redact(
        None, "", {"event": "e", **{f"k{n}{key}": value for n, (key, value) in enumerate(event.items())}}
    )
    fields = parse(serialize(journal.fields(shown)))
    assert len(fields) == 4 + len(event)
    own = ("MESSAGE", "MESSAGE_ID", "PRIORITY", "SYSLOG_IDENTIFIER")
    assert all(name in own or name.startswith("ATRUND_K") for name in fields)
    assert all("\n" not in value for value in fields.values())


def test_a_reader_that_stops_reading_blocks_nobody_and_is_told_what_it_missed(
    journald: socket.socket, native: Journal
) -> None:
    log = structlog.get_logger()
    sent = 5000
    for number in range(sent):  # far more than any socket queue holds
        log.debug("entry", number=number)
    lost = native.dropped
    assert lost > 0
    for number in range(sent - lost):
        assert received(journald)["ATRUND_NUMBER"] == str(number)
    log.info("after")
    report = received(journald)
    assert report["MESSAGE"] == f"log entries were lost, count={lost}"
    assert (report["PRIORITY"], report["ATRUND_COUNT"]) == ("4", str(lost))
    assert received(journald)["MESSAGE"] == "after"
    assert native.dropped == 0


def test_a_journal_that_is_away_is_found_again(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    sink = JournalSink(path, lambda lost: {"MESSAGE": f"lost {lost}"})
    sink.send({"MESSAGE": "one"})
    sink.send({"MESSAGE": "two"})
    assert sink.dropped == 2
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(path)
        listener.settimeout(TIMEOUT)
        sink.send({"MESSAGE": "three"})
        assert [received(listener), received(listener)] == [{"MESSAGE": "lost 2"}, {"MESSAGE": "three"}]
    sink.close(1)
    sink.send({"MESSAGE": "four"})
    assert sink.dropped == 1


def large() -> dict[str, str]:
    """More than a datagram holds on any machine that these tests run on."""
    return {"MESSAGE": "large", "ATRUND_TEXT": "x" * (8 << 20)}


def test_an_oversized_entry_comes_as_a_sealed_file(journald: socket.socket, native: Journal) -> None:
    assert isinstance(native.sink, JournalSink)
    native.sink.send(large())
    data, ancillary, _, _ = journald.recvmsg(16, socket.CMSG_SPACE(array("i").itemsize))
    assert data == b""
    ((level, kind, content),) = ancillary
    assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
    (descriptor,) = struct.unpack("i", content)
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        size = os.fstat(descriptor).st_size
        assert parse(os.pread(descriptor, size, 0)) == large()
        with pytest.raises(OSError, match="not permitted"):
            os.truncate(descriptor, 0)
        with pytest.raises(OSError, match="not permitted"):
            file.write(b"x")
    assert native.dropped == 0


def test_without_memory_files_an_oversized_entry_is_cut(
    journald: socket.socket, native: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_name: str, _flags: int) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(os, "memfd_create", refuse)
    assert isinstance(native.sink, JournalSink)
    native.sink.send(large())
    assert received(journald) == {"MESSAGE": "large", "ATRUND_TEXT": "x" * 1024}
    journald.close()
    native.sink.send(large())
    assert native.dropped == 1


def test_an_oversized_entry_that_cant_be_passed_is_counted(
    journald: socket.socket, native: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_descriptor: int, _command: int, _seals: int) -> int:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr("fcntl.fcntl", refuse)
    assert isinstance(native.sink, JournalSink)
    native.sink.send(large())
    assert native.dropped == 1
    monkeypatch.undo()

    def refuse_to_cut(_path: object, _address: object) -> int:
        raise OSError(11, "again")

    monkeypatch.setattr(os, "memfd_create", refuse_to_cut)
    monkeypatch.setattr("atrund.journal.sinks.CUT_VALUE", 8 << 20)
    native.sink.send(large())
    assert received(journald)["ATRUND_COUNT"] == "1"
    assert native.dropped == 1


# Which form


def connected(stream: TextIO) -> dict[str, str]:
    status = os.fstat(stream.fileno())
    return {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}


def test_auto_is_the_journal_only_where_the_stream_goes_there(journald: socket.socket, tmp_path: Path) -> None:
    path = journald.getsockname()
    with (tmp_path / "stderr").open("w") as stream, (tmp_path / "other").open("w") as other:
        forms = [
            (connected(stream), path, "journal"),
            (connected(other), path, "console"),
            ({}, path, "console"),
            (connected(stream), str(tmp_path / "none"), "console"),
        ]
        for environ, socket_path, form in forms:
            log = journal.configure("info", "auto", environ=environ, stream=stream, journal_socket=socket_path)
            assert log.format == form
            log.close()
    log = journal.configure("info", "auto", environ={"JOURNAL_STREAM": "1:2"}, stream=io.StringIO())
    assert log.format == "console"
    log.close()


def test_what_is_said_before_there_is_a_log_is_an_error_to_the_journal(tmp_path: Path) -> None:
    with (tmp_path / "stderr").open("w") as stream:
        assert journal.as_errors("one\ntwo", environ=connected(stream), stream=stream) == "<3>one\n<3>two"
        assert journal.as_errors("one\ntwo", environ={}, stream=stream) == "one\ntwo"


# Streams


def console(write: Callable[[], None], level: journal.Level = "info", form: journal.Format = "console") -> str:
    """What is written to a terminal while `write` runs."""
    stream = io.StringIO()
    log = journal.configure(level, form, environ={}, stream=stream)
    write()
    log.close(TIMEOUT)
    return stream.getvalue()


def test_a_line_for_people() -> None:
    shown = console(lambda: structlog.get_logger().warning("door closed", door="tcp", reason="idle", users=["a b"]))
    assert re.fullmatch(
        r'[0-9]{2}:[0-9]{2}:[0-9]{2} warning door closed from tcp, idle, users="\[\\"a b\\"\]"\n', shown
    )


def test_levels_below_are_not_made() -> None:
    def write() -> None:
        structlog.get_logger().debug("one")
        structlog.get_logger().info("two")
        logging.getLogger("paho").debug("three")
        logging.getLogger("paho").info("four")

    assert re.findall(r"two|one|three|four", console(write)) == ["two", "four"]


def test_a_traceback_stands_below_its_line_indented() -> None:
    def write() -> None:
        try:
            raise ValueError("a\n12:00:00 info    forged")
        except ValueError as error:
            structlog.get_logger().error("it broke", exc_info=error)

    lines = console(write).splitlines()
    assert lines[0].endswith("it broke (12:00:00 info    forged)")
    assert all(line.startswith("    ") for line in lines[1:])
    assert lines[-2:] == ["    ValueError: a", "    12:00:00 info    forged"]


def test_exception_information_without_an_exception() -> None:
    assert "no exception" in console(lambda: structlog.get_logger().info("x", exc_info=True))


def test_json_lines() -> None:
    def write() -> None:
        structlog.get_logger().info("x", a=1, b=None, c={"d": ["e", 1.5, True, None]}, peer="\u202e")

    record = json.loads(console(write, form="json"))
    assert re.fullmatch(r"[0-9-]{10}T[0-9:]{8}\.[0-9]{3}Z", record.pop("ts"))
    assert record == {
        "event": "x",
        "level": "info",
        "a": 1,
        "c": {"d": ["e", 1.5, True, None]},
        "peer": "\\u202e",
    }


def test_a_value_in_a_sentence_is_quoted_where_it_could_be_taken_for_more() -> None:
    shown = journal.message({"event": "e", "peer": "a, ok", "state": "x=1", "k": "plain", "command": "AT, b=c"})
    assert shown == 'e from "a, ok", "x=1", k=plain: AT, b=c'


class StuckStream(io.StringIO):
    """A stream whose reader has stopped; `go` lets it go on."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()
        self.go = threading.Event()

    def write(self, text: str) -> int:
        self.entered.set()
        assert self.go.wait(TIMEOUT)
        return super().write(text)


def test_a_stuck_terminal_blocks_nobody_and_is_told_what_it_missed() -> None:
    stream = StuckStream()
    sink = StreamSink(stream, lambda lost: f"lost {lost}")
    sink.send("first")
    assert stream.entered.wait(TIMEOUT)
    for number in range(STREAM_QUEUE_MAX + 500):
        sink.send(str(number))
    assert sink.dropped == 500
    sink.close(0.01)
    assert stream.getvalue() == ""
    stream.go.set()
    sink.close(TIMEOUT)
    assert stream.getvalue().splitlines() == ["first", "lost 500", *map(str, range(STREAM_QUEUE_MAX))]
    assert sink.dropped == 0


def test_a_stream_that_is_closed_is_counted() -> None:
    stream = io.StringIO()
    stream.close()
    sink = StreamSink(stream, lambda lost: f"lost {lost}")
    sink.send("one")
    sink.close(TIMEOUT)
    assert sink.dropped == 1


def test_a_real_pipe_gets_every_octet_even_when_it_is_full_and_non_blocking() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    lines = [f"{number} " + "é" * 1000 for number in range(200)]  # 400 kB; a pipe holds 64
    with os.fdopen(reader, encoding="utf-8") as source, os.fdopen(writer, "w", encoding="utf-8") as stream:
        sink = StreamSink(stream, lambda lost: f"lost {lost}")
        for line in lines:
            sink.send(line)
        assert [source.readline().rstrip("\n") for _ in lines] == lines
        sink.close(TIMEOUT)
        assert sink.dropped == 0


# Secrets


class Colour(enum.Enum):
    RED = "red"


PLANTED = "s3cret99"


def plant() -> None:
    """Secrets in every place of an entry in which one can turn up."""
    log = structlog.get_logger()
    line = f'AT+CPWD="SC","{PLANTED}","1"'
    log.info("x", command=line, other=line, line=line, lines=[f'#TCPATRUNAUTH: "u","{PLANTED}"'], deep={"a": (line,)})
    log.info("x", password=Secret(PLANTED), users={"u": Secret(PLANTED)}, raw=line.encode(), state=[Secret(PLANTED)])
    log.info("x", command=f"AT+CPIN={PLANTED}\rAT", error=ValueError(f"bad line {line}"))
    logging.getLogger("paho").warning("sending %s", line)
    try:
        raise ValueError(f"AT+CPIN={PLANTED}", Secret(PLANTED))
    except ValueError:
        log.exception("x")
        logging.getLogger("asyncio").exception("failed")


@pytest.mark.parametrize("form", ["console", "json"])
def test_pol_3_no_planted_secret_appears_on_a_stream(form: journal.Format) -> None:
    shown = console(plant, form=form)
    assert shown.count("****") > 10
    assert PLANTED not in shown


def test_pol_3_no_planted_secret_appears_in_the_journal(journald: socket.socket, native: Journal) -> None:
    plant()
    entries = [journald.recv(1 << 20) for _ in range(6)]
    assert all(PLANTED.encode() not in entry for entry in entries)
    assert parse(entries[0])["ATRUND_COMMAND"] == 'AT+CPWD="SC",****'
    assert parse(entries[1])["ATRUND_PASSWORD"] == "****"
    assert native.dropped == 0


def test_values_become_what_can_be_shown() -> None:
    deep: list[object] = []
    for _ in range(10):
        deep = [deep]
    deep_table = {"a": {"b": {"c": {"d": {"e": 1}}}}}
    shown = journal.redact(
        None,
        "",
        {"event": "e\n", "a": Colour.RED, "b": Path("/x"), "c": "x" * 20000, "k\n": 1, "d": deep, "f": deep_table},
    )
    assert shown["event"] == "e\\x0a"
    assert (shown["a"], shown["b"], shown["k\\x0a"]) == ("red", "/x", 1)
    assert len(shown["c"]) == 16 * 1024 + 1
    assert shown["d"] == [[[["…"]]]]
    assert shown["f"] == {"a": {"b": {"c": {"d": "…"}}}}


# Other people's logging, and tests


def test_what_libraries_log_goes_the_same_way(journald: socket.socket, native: Journal) -> None:
    logging.getLogger("paho.mqtt").warning("lost\n%s", "broker")
    fields = received(journald)
    assert fields["MESSAGE"] == "lost\\x0abroker, logger=paho.mqtt"
    assert (fields["PRIORITY"], fields["ATRUND_LOGGER"]) == ("4", "paho.mqtt")
    assert native.dropped == 0


def test_a_library_whose_message_doesnt_fit_its_arguments_is_logged_as_it_is(
    journald: socket.socket, native: Journal
) -> None:
    native._handler.emit(logging.LogRecord("paho", logging.INFO, "", 0, "bad format %d", ("x",), None))
    assert received(journald)["MESSAGE"] == "bad format %d, logger=paho"


async def test_a_task_that_dies_is_in_the_log(journald: socket.socket, native: Journal) -> None:
    asyncio.get_running_loop().call_exception_handler({"message": "died", "exception": ValueError("why")})
    fields = received(journald)
    assert fields["MESSAGE"].startswith("died")
    assert fields["ATRUND_EXCEPTION"].endswith("ValueError: why")
    assert native.dropped == 0


def test_capture_logs_works_before_during_and_after() -> None:
    log = structlog.get_logger()
    stream = io.StringIO()
    with structlog.testing.capture_logs() as entries:
        log.info("one")
    set_up = journal.configure("info", "console", environ={}, stream=stream)
    log.info("two")
    with structlog.testing.capture_logs() as more:
        log.info("three", a=1)
    set_up.close(TIMEOUT)
    log.info("four")
    assert [entry["event"] for entry in entries] == ["one"]
    assert more == [{"event": "three", "a": 1, "log_level": "info"}]
    assert re.findall("one|two|three|four", stream.getvalue()) == ["two"]


def test_a_logger_in_use_goes_on_when_the_log_is_set_up_anew() -> None:
    log = structlog.get_logger()
    assert "one" in console(lambda: log.info("one"))
    assert "two" in console(lambda: log.info("two"))
    assert not [handler for handler in logging.getLogger().handlers if type(handler).__module__ == "atrund.journal"]


def test_nothing_heavy_is_imported() -> None:
    """structlog itself imports its `dev`; rich, which that would use, is 7 MiB."""
    import subprocess
    import sys

    code = "import sys, atrund.journal; print([name for name in ('rich', 'better_exceptions') if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"
