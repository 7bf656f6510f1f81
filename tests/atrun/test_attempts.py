# SPDX-License-Identifier: Apache-2.0
from hypothesis import given
from hypothesis import strategies as st

from atrund.atrun import attempts as room
from atrund.atrun.attempts import Attempts, Tally

HERE, THERE = "198.51.100.7", "198.51.100.8"


def failing(times: int, *, peer: str = HERE, most: int = 5, shut_out: float = 900.0) -> tuple[Attempts, list[float]]:
    attempts = Attempts()
    return attempts, [attempts.failed(peer, float(now), most=most, shut_out=shut_out) for now in range(times)]


def test_each_failure_waits_longer_up_to_a_bound() -> None:
    _, delays = failing(8, most=100)
    assert delays == [0, 1, 2, 4, 8, 8, 8, 8]


def test_too_many_failures_shut_the_address_out_for_a_while_and_no_other() -> None:
    attempts, _ = failing(5)
    assert attempts.is_shut_out(HERE, 4.0)
    assert attempts.is_shut_out(HERE, 903.9)
    assert not attempts.is_shut_out(HERE, 904.0)
    assert not attempts.is_shut_out(THERE, 4.0)


def test_whoever_was_shut_out_begins_anew() -> None:
    attempts, _ = failing(5)
    assert attempts.failed(HERE, 1000.0, most=5, shut_out=900.0) == 0
    assert not attempts.is_shut_out(HERE, 1000.0)


def test_fewer_are_no_harm() -> None:
    attempts, _ = failing(4)
    assert not attempts.is_shut_out(HERE, 4.0)


def test_shutting_out_can_be_switched_off() -> None:
    attempts, delays = failing(50, shut_out=0.0)
    assert not attempts.is_shut_out(HERE, 50.0)
    assert delays[-1] == room.SLOWEST


def test_a_failure_long_ago_does_not_count() -> None:
    attempts, _ = failing(4)
    assert attempts.failed(HERE, 3.0 + room.WINDOW + 1, most=5, shut_out=900.0) == 0
    assert not attempts.is_shut_out(HERE, 3.0 + room.WINDOW + 1)


def test_a_good_login_has_a_clean_sheet() -> None:
    attempts, _ = failing(4)
    attempts.succeeded(HERE)
    attempts.succeeded(THERE)
    assert attempts.failed(HERE, 5.0, most=5, shut_out=900.0) == 0


def test_the_addresses_of_one_ipv6_host_are_one() -> None:
    attempts, _ = failing(5, peer="2001:db8::1")
    assert attempts.is_shut_out("2001:db8::ffff:1", 5.0)
    assert not attempts.is_shut_out("2001:db8:0:1::1", 5.0)
    attempts, _ = failing(5, peer="::ffff:198.51.100.7")
    assert attempts.is_shut_out(HERE, 5.0)
    attempts, _ = failing(5, peer="fe80::1%eth0")
    assert attempts.is_shut_out("fe80::2", 5.0)


def test_the_address_that_failed_longest_ago_gives_way() -> None:
    attempts = Attempts()
    for number in range(room.ADDRESSES_MAX + 1):
        attempts.failed(f"10.0.{number >> 8}.{number & 255}", 0.0, most=1, shut_out=9.0)
    assert len(attempts) == room.ADDRESSES_MAX
    assert not attempts.is_shut_out("10.0.0.0", 0.0)
    assert attempts.is_shut_out("10.0.0.1", 0.0)


@given(st.lists(st.floats(0, 10_000), max_size=40).map(sorted), st.integers(1, 6))
def test_nobody_tries_oftener_than_was_allowed(moments: list[float], most: int) -> None:
    """However the tries are spread, those let through between two shut-outs are at most `most`."""
    attempts = Attempts()
    let_through: list[float] = []
    for now in moments:
        if not attempts.is_shut_out(HERE, now):
            attempts.failed(HERE, now, most=most, shut_out=900.0)
            let_through.append(now)
    for first in let_through:
        assert sum(first <= now < first + 900.0 for now in let_through) <= 2 * most


def test_the_first_ten_are_written_down_then_ever_fewer() -> None:
    tally = Tally()
    assert [count for _ in range(100) if (count := tally.note(HERE, 0.0))] == [*range(1, 11), 16, 32, 64]
    assert tally.note(THERE, 0.0) == 1


def test_how_one_is_written_down_says_how_many_there_were() -> None:
    tally = Tally()
    said = [words for _ in range(20) if (words := tally.worded("refused", HERE, 0.0))]
    assert said == ["refused"] * 10 + ["refused for the 16th time this hour"]


def test_an_hour_begins_it_anew() -> None:
    tally = Tally()
    for _ in range(20):
        tally.note(HERE, 0.0)
    assert tally.note(HERE, 3600.0) == 0
    assert tally.note(HERE, 3601.0) == 1


def test_addresses_past_the_cap_count_as_one() -> None:
    tally = Tally()
    noted = sum(bool(tally.note(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", 0.0)) for n in range(100_000))
    assert noted == room.ADDRESSES_MAX + 10 + 13
