# SPDX-License-Identifier: Apache-2.0
"""Which broker is called when: the order, the pauses and how they grow, in numbers alone."""

import random
from collections import Counter
from itertools import pairwise

import pytest

from atrund.broker.dialling import FIRST_PAUSE, LONG_PAUSE, LONGEST_PAUSE, STABLE, Dialling, Failure

SPREAD = 5.0
LONGEST = 60.0


class Caller:
    """Calls as the daemon does, in time that it makes up. Every pause is as long as it can be."""

    def __init__(self, count: int = 1, spread: float = SPREAD, longest: float = LONGEST) -> None:
        self.dialling = Dialling(count, spread=spread, longest=longest, uniform=lambda _, high: high)
        self.now = 1000.0
        self.dialling.begin(self.now)

    def call(self) -> tuple[int, float]:
        """Wait for the next call, and return whom it is for and how long that took."""
        which, pause = self.dialling.next(self.now)
        self.now += pause
        return which, pause

    def fail(self, failure: Failure = Failure.AWAY) -> tuple[int, float]:
        called = self.call()
        self.dialling.failed(called[0], failure, self.now)
        return called

    def hold(self, seconds: float, failure: Failure = Failure.AWAY) -> int:
        """Have a connection for so long."""
        which, _ = self.call()
        self.now += seconds
        self.dialling.lost(which, failure, seconds, self.now)
        return which


def test_the_pauses_of_one_broker_grow_up_to_the_longest() -> None:
    caller = Caller()
    assert [caller.fail()[1] for _ in range(8)] == [5, 5, 10, 20, 40, 60, 60, 60]


def test_without_a_spread_the_first_call_is_at_once() -> None:
    caller = Caller(spread=0.0)
    assert [caller.fail()[1] for _ in range(4)] == [0, FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]


def test_on_a_failure_the_next_is_called_and_each_round_begins_with_the_first() -> None:
    caller = Caller(3)
    calls = [caller.fail() for _ in range(9)]
    assert [which for which, _ in calls] == [0, 1, 2] * 3
    assert [pause for _, pause in calls] == [5, 5, 5, 5, 5, 5, 10, 5, 5]


def test_a_connection_that_held_is_followed_by_one_with_the_first() -> None:
    caller = Caller(3)
    caller.fail()
    assert caller.hold(STABLE + 1) == 1
    assert caller.call() == (0, 5)


def test_one_that_did_not_hold_counts_as_a_failure() -> None:
    """A broker that takes every connection and drops it would keep us from all others."""
    caller = Caller(2)
    assert [caller.hold(STABLE) for _ in range(4)] == [0, 1, 0, 1]


def test_one_that_held_makes_the_pauses_short_again() -> None:
    caller = Caller()
    for _ in range(6):
        caller.fail()
    caller.hold(STABLE + 1)
    assert [caller.fail()[1] for _ in range(3)] == [5, 5, 10]


@pytest.mark.parametrize("failure", [Failure.HOPELESS, Failure.TLS])
def test_where_only_a_person_can_help_the_pauses_grow_long(failure: Failure) -> None:
    caller = Caller()
    caller.fail(failure)
    assert [caller.fail(failure)[1] for _ in range(7)] == [30, 60, 120, 240, 480, 600, 600]
    assert (LONG_PAUSE, LONGEST_PAUSE) == (30, 600)


def test_one_that_asks_to_be_spared_is_spared_and_its_pauses_stay_within_a_minute() -> None:
    caller = Caller(longest=5.0)
    caller.fail(Failure.LATER)
    assert [caller.fail(Failure.LATER)[1] for _ in range(5)] == [10, 20, 40, 60, 60]


def test_one_that_rests_is_passed_over_and_called_again_later() -> None:
    caller = Caller(2)
    assert caller.fail(Failure.HOPELESS) == (0, 5)
    called = [caller.fail() for _ in range(4)]
    assert [which for which, _ in called] == [1, 1, 1, 0]
    begun = caller.now
    assert begun - 1000.0 >= 5 + 30


def test_when_all_rest_the_first_that_is_ready_is_called() -> None:
    caller = Caller(2)
    caller.fail(Failure.HOPELESS)
    caller.fail(Failure.LATER)
    assert caller.call() == (1, 10)


def test_a_refusal_that_is_over_is_forgotten() -> None:
    caller = Caller()
    for _ in range(4):
        caller.fail(Failure.HOPELESS)
    caller.fail(Failure.AWAY)
    caller.fail(Failure.HOPELESS)
    assert caller.call()[1] == 60  # what the rounds came to, which is more than the first rest, and less than the fifth


def test_a_refusal_behind_a_connection_that_held_rests_as_the_first_did() -> None:
    """Rights that were taken away, say."""
    caller = Caller()
    for _ in range(4):
        caller.fail(Failure.HOPELESS)
    caller.hold(STABLE + 1, Failure.HOPELESS)
    assert caller.call()[1] == 30


def test_another_device_has_all_of_them_left_alone_longer_and_longer() -> None:
    caller = Caller(2)
    assert [caller.hold(100, Failure.TAKEN) for _ in range(8)] == [0] * 8
    begun = caller.now
    caller.call()
    assert caller.now - begun == 600
    caller.hold(100)
    caller.hold(100, Failure.TAKEN)
    assert caller.call() == (0, 30)


def test_a_lesser_one_that_is_left_in_order_is_followed_by_the_first_at_once() -> None:
    caller = Caller(2)
    caller.fail(Failure.HOPELESS)
    caller.call()
    caller.now += 3
    caller.dialling.left(caller.now)
    assert caller.call() == (0, 0)


def test_a_fleet_does_not_come_back_at_once() -> None:
    """100,000 devices lose their broker in one moment, and it is gone for five minutes."""
    spread, calls = 120.0, Counter[int]()
    for number in range(2000):  # each stands for fifty
        dialling = Dialling(1, spread=spread, longest=600.0, uniform=random.Random(number).uniform)  # noqa: S311
        dialling.begin(0.0)
        dialling.lost(0, Failure.AWAY, 3600.0, 0.0)
        now = 0.0
        while now < 300.0:
            _, pause = dialling.next(now)
            now += pause
            calls[int(now)] += 50
            dialling.failed(0, Failure.AWAY, now)
    assert max(calls.values()) < 3 * 100_000 / spread
    assert sum(calls[second] for second in range(10)) < 2 * 10 * 100_000 / spread


def test_a_city_that_gets_its_power_back_does_not_call_at_once() -> None:
    first = []
    for number in range(1000):
        dialling = Dialling(1, spread=60.0, longest=60.0, uniform=random.Random(number).uniform)  # noqa: S311
        dialling.begin(0.0)
        first.append(dialling.next(0.0)[1])
    first.sort()
    assert max(later - earlier for earlier, later in pairwise(first)) < 1.0
    assert first[-1] > 58.0


def test_pauses_are_drawn_from_nothing_on() -> None:
    dialling = Dialling(1, spread=5.0, longest=60.0, uniform=lambda low, _: low)
    dialling.begin(0.0)
    assert dialling.next(0.0) == (0, 0.0)
    dialling.failed(0, Failure.AWAY, 0.0)
    assert dialling.next(0.0) == (0, 0.0)
    dialling.failed(0, Failure.LATER, 0.0)
    assert dialling.next(0.0) == (0, 5.0)  # half of what is asked for at least


def test_a_million_failures_are_no_different() -> None:
    caller = Caller()
    for failure in (Failure.AWAY, Failure.HOPELESS, Failure.TAKEN):
        for _ in range(2000):
            caller.fail(failure)
        assert caller.call()[1] in {60, 600}
