# SPDX-License-Identifier: Apache-2.0
"""The log's limits: a flood of one kind is bounded and counted, and costs no other kind its entries."""

import asyncio
import io
import json
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from atrund import journal
from atrund.atrun.request import Door
from atrund.doors.connection import Means
from atrund.doors.tcp import TcpDoor, TcpRules
from atrund.journal.bounds import MORE
from atrund.journal.limits import AT_ONCE, BUCKETS_MAX, COMMANDS_AT_ONCE, WINDOW, Held, Limits
from tests.support.virtual import config, running

TIMEOUT = 5.0


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    level = root.level
    yield
    root.setLevel(level)
    structlog.reset_defaults()


class Log:
    """The log as it is set up, by a clock that stands still unless it is moved on."""

    def __init__(self, level: journal.Level = "info") -> None:
        self.now = 1000.0
        self.clock: Callable[[], float] = lambda: self.now
        self._stream = io.StringIO()
        self._journal = journal.configure(
            level,
            "json",
            environ={},
            stream=self._stream,
            clock=lambda: self.clock(),  # noqa: PLW0108 - it is another one later
        )
        # A room's logger that is used now would write here for ever.
        structlog.configure(cache_logger_on_first_use=False)

    def end(self) -> list[dict[str, Any]]:
        """Take it down; returns what was written."""
        self._journal.close(TIMEOUT)
        return [json.loads(line) for line in self._stream.getvalue().splitlines()]


def more(written: list[dict[str, Any]]) -> list[tuple[str, str, int, int]]:
    """What was told of entries that were held back."""
    told = [entry for entry in written if entry["event"] == MORE]
    assert all(entry["level"] == "warning" for entry in told)
    return [(entry["kind"], entry.get("door", ""), entry["count"], entry["seconds"]) for entry in told]


def made(written: list[dict[str, Any]], event: str) -> int:
    return sum(entry["event"] == event for entry in written)


def test_a_flood_of_one_kind_is_bounded_and_its_count_is_told() -> None:
    there, log = Log(), structlog.get_logger()
    for number in range(10_000):
        log.info("refused", door="tcp", peer=f"198.51.{number >> 8}.{number & 255}", reason="firewall")
        if number % 100 == 0:
            log.info("login refused", door="tcp", peer="192.0.2.7")
            log.info("command", door="tcp", state="ok", id=str(number))
    there.now += WINDOW
    log.info("stopped")
    written = there.end()
    assert made(written, "refused") == AT_ONCE
    assert more(written) == [("refused", "tcp", 10_000 - AT_ONCE, 30)]
    assert made(written, "login refused") == made(written, "command") == 100
    assert [entry["event"] for entry in written[-2:]] == [MORE, "stopped"], "before whatever else is written"


def test_the_same_kind_at_another_door_is_another() -> None:
    there, log = Log(), structlog.get_logger()
    for _ in range(1000):
        log.info("command", door="mqtt", state="rejected")
    log.info("command", door="sms", peer="+39340", state="rejected")
    written = there.end()
    assert [entry["door"] for entry in written if entry["event"] == "command"] == ["mqtt"] * AT_ONCE + ["sms"]
    assert more(written) == [("command refused", "mqtt", 1000 - AT_ONCE, 0)]


def test_a_flood_that_lasts_goes_on_to_be_seen() -> None:
    there, log = Log(), structlog.get_logger()
    for _ in range(6000):  # ten minutes, ten a second
        log.info("connected", door="tcp")
        there.now += 0.1
    written = there.end()
    assert made(written, "connected") == pytest.approx(AT_ONCE + 600, abs=2)
    told = more(written)
    assert len(told) == pytest.approx(600 / WINDOW, abs=1)
    assert made(written, "connected") + sum(count for _, _, count, _ in told) == 6000


def test_errors_and_libraries_are_bounded_too_and_what_one_looks_for_is_not() -> None:
    there, log = Log("debug"), structlog.get_logger()
    for _ in range(500):
        log.error("sms not served", door="sms")
        logging.getLogger("paho").error("broken")
        log.debug("sent")
    written = there.end()
    assert made(written, "sms not served") == made(written, "broken") == AT_ONCE
    assert made(written, "sent") == 500
    assert more(written) == [("sms not served", "sms", 400, 0), ("library", "", 400, 0)]


def test_no_secret_and_no_line_break_comes_by_the_name_of_a_kind() -> None:
    there, log = Log(), structlog.get_logger()
    for _ in range(AT_ONCE + 1):
        log.info('AT+CPWD="SC","s3cret99","1"\nforged')
    assert [kind for kind, _, _, _ in more(there.end())] == ["AT+CPWD****"]


def test_other_threads_are_counted_with_all() -> None:
    there, log = Log(), structlog.get_logger()

    def flood() -> None:
        for _ in range(500):
            log.info("entry")

    threads = [threading.Thread(target=flood) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    written = there.end()
    assert (made(written, "entry"), more(written)) == (AT_ONCE, [("entry", "", 2000 - AT_ONCE, 0)])


@pytest.mark.looptime
async def test_the_count_is_told_though_nothing_else_happens_and_nothing_wakes_up_otherwise() -> None:
    loop = asyncio.get_running_loop()
    there, log = Log(), structlog.get_logger()
    there.clock = loop.time
    waking: list[float] = []
    later = loop.call_later

    def call_later(delay: float, call: Callable[..., object], *rest: Any, **options: Any) -> asyncio.TimerHandle:  # noqa: ANN401 - handed on
        if getattr(call, "__name__", "") == "_look":
            waking.append(delay)
        return later(delay, call, *rest, **options)

    loop.call_later = call_later  # type: ignore[assignment]
    for _ in range(AT_ONCE):
        log.info("refused", door="tcp")
    await asyncio.sleep(WINDOW)
    assert waking == []
    for _ in range(AT_ONCE):
        log.info("refused", door="tcp")
        log.info("handshake failed", door="tcp")
    await asyncio.sleep(WINDOW / 3)
    for _ in range(AT_ONCE):
        log.info("handshake failed", door="tcp")
    await asyncio.sleep(WINDOW * 3)
    assert len(waking) == 2, "one a kind that was held back"
    written = there.end()
    assert more(written) == [("refused", "tcp", 70, 30), ("handshake failed", "tcp", 90, 30)]


@pytest.mark.looptime
async def test_ten_thousand_strangers_at_the_door() -> None:
    """POL-4: each is in the audit as far as the door writes it down; the journal is bounded, and says what it lacks."""
    rules = TcpRules(
        listen=("127.0.0.1",),
        port=0,
        firewall=(),
        users=(("operator", "geheim"),),
        login_timeout=60,
        idle_timeout=0,
        timeout=60,
        sequence=False,
    )
    async with running(config()) as house:
        daemon = house.daemon
        means = Means(daemon.runner, daemon.own, daemon.instances)
        door = TcpDoor(lambda: rules, means, ledger=daemon._ledger, mirror=daemon._mirror)
        there = Log()
        there.clock = asyncio.get_running_loop().time
        for number in range(10_000):
            assert door.turns_away(f"198.51.{number >> 8}.{number & 255}")
        daemon._mirror.session(Door.SMS, "+393331234567", "sms not accepted", "whitelist")
        await asyncio.sleep(WINDOW + 1)
        written = there.end()
        ((audited,),) = house.disk.rows("SELECT count(*) FROM audit WHERE door = 'tcp' AND event LIKE 'refused%'")
    refused = sum(entry["event"].startswith("refused") for entry in written)
    ((kind, at, count, _),) = more(written)
    assert (kind, at, refused) == ("refused", "tcp", AT_ONCE)
    assert refused + count == audited > 1000
    assert made(written, "sms not accepted") == 1


# The pure core


def test_what_was_accepted_ends_in_the_log_as_fast_as_any_module_answers() -> None:
    limits = Limits()
    assert all(limits.admits("command", "local", number / 100) for number in range(COMMANDS_AT_ONCE * 4))
    assert sum(limits.admits("command not done", "local", 0.0) for _ in range(10_000)) == COMMANDS_AT_ONCE
    assert limits.rest(7.0) == [Held("command not done", "local", 10_000 - COMMANDS_AT_ONCE, 7.0)]


def test_more_kinds_than_there_are_share_a_bucket() -> None:
    limits = Limits()
    assert all(limits.admits(f"kind {number}", "", 0.0) for number in range(BUCKETS_MAX))
    passed = sum(limits.admits(f"kind {number}", "", 0.0) for number in range(BUCKETS_MAX, BUCKETS_MAX + 1000))
    assert passed == AT_ONCE
    assert limits.rest(1.0) == [Held("others", "", 1000 - AT_ONCE, 1.0)]
    assert limits.admits("kind 0", "", 1.0), "those of before have their own"
    assert limits.rest(2.0) == limits.due(1e9) == []


ENTRIES = st.lists(
    st.tuples(st.sampled_from(["refused", "command", "stopped"]), st.sampled_from(["", "tcp"]), st.floats(0, 40)),
    max_size=30,
)


@given(ENTRIES, st.integers(1, 200))
def test_what_is_written_and_what_is_counted_are_all(entries: list[tuple[str, str, float]], times: int) -> None:
    limits, now = Limits(), 5.0
    written, given_, told = 0, 0, []
    for kind, door, pause in entries:
        now += pause
        told += limits.due(now)
        assert limits.due_at is None or now < limits.due_at <= now + WINDOW
        given_ += times
        written += sum(limits.admits(kind, door, now) for _ in range(times))
    told += limits.rest(now + 1)
    assert written + sum(held.count for held in told) == given_
    assert all(held.count > 0 for held in told)
    assert limits.due_at is None
