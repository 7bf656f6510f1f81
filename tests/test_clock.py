# SPDX-License-Identifier: Apache-2.0
"""Wall time, and whether it is to be believed."""

import ctypes
from datetime import UTC, datetime, timedelta, timezone
from types import SimpleNamespace

import pytest

from atrund import clock
from atrund.clock import SystemClock, rfc3339


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2026, 11, 22, 8, 40, tzinfo=UTC), "2026-11-22T08:40:00.000Z"),
        (datetime(2026, 1, 2, 3, 4, 5, 6_999, tzinfo=UTC), "2026-01-02T03:04:05.006Z"),
        (datetime(2026, 1, 1, 0, 0, 0, 999_999, tzinfo=UTC), "2026-01-01T00:00:00.999Z"),
        (datetime(2026, 1, 1, 1, 0, tzinfo=timezone(timedelta(hours=2))), "2025-12-31T23:00:00.000Z"),
        (datetime(1970, 1, 1, tzinfo=UTC), "1970-01-01T00:00:00.000Z"),
    ],
)
def test_a_moment_is_written_in_utc_with_milliseconds(moment: datetime, text: str) -> None:
    assert rfc3339(moment) == text


def test_the_system_clock_tells_utc() -> None:
    before = datetime.now(UTC)
    now = SystemClock().now()
    assert now.utcoffset() == timedelta()
    assert before <= now <= datetime.now(UTC)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What adjtimex(2) answers, how often it was asked, and what time.monotonic() says."""
    said = SimpleNamespace(state=0, asked=0, modes=[], monotonic=1000.0)

    def adjtimex(timex: ctypes.Array[ctypes.c_char]) -> int:
        said.asked += 1
        said.modes.append(ctypes.c_uint.from_buffer(timex).value)
        return int(said.state)

    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(adjtimex=adjtimex))
    monkeypatch.setattr(clock, "time", SimpleNamespace(monotonic=lambda: said.monotonic))
    return said


@pytest.mark.parametrize(
    ("state", "known"),
    [(0, True), (1, True), (2, True), (3, True), (4, True), (5, False), (-1, False)],
)
def test_the_kernel_says_whether_it_is_known(kernel: SimpleNamespace, state: int, known: bool) -> None:  # noqa: FBT001 - a case
    """REQ-11; adjtimex(2): TIME_OK to TIME_WAIT are synchronised, TIME_ERROR (5) is not, -1 is a refusal."""
    kernel.state = state
    assert SystemClock().known() is known
    assert kernel.modes == [0], "asking must not set anything"


def test_the_kernel_is_asked_once_a_minute(kernel: SimpleNamespace) -> None:
    own = SystemClock()
    kernel.state = 5
    assert not own.known()
    kernel.state = 0
    kernel.monotonic += 60.0
    assert not own.known()
    kernel.monotonic += 0.1
    assert own.known()
    assert own.known()
    assert kernel.asked == 2


def test_the_real_kernel_answers() -> None:
    assert SystemClock().known() in {True, False}
    assert clock._TIMEX_SIZE >= 208
