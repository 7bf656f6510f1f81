# SPDX-License-Identifier: Apache-2.0
import asyncio
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrund.module.turns import WEIGHT_MAX, Place, QueueFullError, Turns, WaitedTooLongError

pytestmark = pytest.mark.looptime


class Gone(Exception):
    pass


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def is_free(turns: Turns) -> bool:
    """Whether a turn can be had at once; nothing was leaked then."""
    try:
        async with asyncio.timeout(1):
            await turns.take("probe")
    except TimeoutError:
        return False
    turns.release()
    return True


async def test_a_free_port_is_had_at_once() -> None:
    turns = Turns()
    await turns.take("sms")
    assert turns.depths == {}
    turns.release()
    assert await is_free(turns)


async def test_one_holder_at_a_time_and_order_of_arrival_within_an_asker() -> None:
    turns = Turns()
    held, order = 0, []

    async def hold(number: int) -> None:
        nonlocal held
        await turns.take("tcp")
        held += 1
        assert held == 1
        order.append(number)
        await asyncio.sleep(1)
        held -= 1
        turns.release()

    await asyncio.gather(*(hold(number) for number in range(10)))
    assert order == list(range(10))
    assert await is_free(turns)


async def test_whoever_had_the_free_port_waits_behind_the_others() -> None:
    turns = Turns()
    order: list[str] = []

    async def hold(asker: str) -> None:
        await turns.take(asker)
        order.append(asker)
        await asyncio.sleep(1)
        turns.release()

    tasks = []
    for asker in ("tcp", "tcp", "tcp", "sms", "mqtt"):
        tasks.append(asyncio.create_task(hold(asker)))
        await settle()
    await asyncio.gather(*tasks)
    assert order == ["tcp", "sms", "mqtt", "tcp", "tcp"]


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from("abcd")), max_size=40))
async def test_between_two_turns_of_one_asker_every_other_that_waits_has_had_one(
    arrivals: list[tuple[int, str]],
) -> None:
    turns = Turns(depth=100)
    grants: list[str] = []
    waiting: set[str] = set()

    async def hold(asker: str) -> None:
        nonlocal waiting
        await turns.take(asker)
        if asker in grants:
            since = grants[len(grants) - grants[::-1].index(asker) :]
            assert waiting - {asker} <= set(since)
        grants.append(asker)
        await asyncio.sleep(1)
        waiting = set(turns.depths)
        turns.release()

    tasks = []
    for pause, asker in arrivals:
        await asyncio.sleep(pause / 2)
        tasks.append(asyncio.create_task(hold(asker)))
        await settle()
    await asyncio.gather(*tasks)
    assert len(grants) == len(arrivals)
    assert await is_free(turns)


async def test_the_cap_counts_each_asker_by_itself() -> None:
    turns = Turns(depth=2)
    await turns.take("tcp")
    tasks = [asyncio.create_task(turns.take("tcp")) for _ in range(2)]
    other = asyncio.create_task(turns.take("sms"))
    await settle()
    with pytest.raises(QueueFullError, match="2 requests of tcp wait already"):
        await turns.take("tcp")
    assert turns.depths == {"tcp": 2, "sms": 1}
    for _ in range(4):
        turns.release()
        await settle()
    await asyncio.gather(*tasks, other)
    assert await is_free(turns)


async def test_a_turn_that_does_not_come_in_time_is_given_up() -> None:
    turns = Turns(max_wait=600)
    await turns.take("tcp")
    begin = asyncio.get_running_loop().time()
    with pytest.raises(WaitedTooLongError, match="600 s"):
        await turns.take("sms")
    assert asyncio.get_running_loop().time() - begin == 600
    assert turns.depths == {}
    turns.release()
    assert await is_free(turns)


async def test_a_turn_that_comes_in_the_moment_of_the_deadline_is_had_or_given_back() -> None:
    for ahead in (False, True):
        turns = Turns(max_wait=10)
        await turns.take("tcp")
        loop = asyncio.get_running_loop()
        when = loop.time() + 10
        if ahead:
            loop.call_at(when, turns.release)
        task = asyncio.create_task(turns.take("sms"))
        await settle()
        if not ahead:
            loop.call_at(when, turns.release)
        try:
            await task
        except WaitedTooLongError:
            pass
        else:
            turns.release()
        assert await is_free(turns)


def moments(turns: Turns, task: asyncio.Task[None]) -> list[tuple[str, list[Callable[[], object]]]]:
    return [
        ("before the grant", [task.cancel, turns.release]),
        ("with the grant", [turns.release, task.cancel]),
        ("without a grant", [task.cancel]),
        ("with the end of the queue", [lambda: turns.close(Gone()), task.cancel]),
    ]


@pytest.mark.parametrize("moment", range(4))
async def test_a_cancelled_request_leaks_no_turn(moment: int) -> None:
    turns = Turns()
    await turns.take("tcp")
    task = asyncio.create_task(turns.take("sms"))
    await settle()
    name, acts = moments(turns, task)[moment]
    for act in acts:
        act()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert turns.depths == {}
    if name == "with the end of the queue":
        with pytest.raises(Gone):
            await turns.take("sms")
        return
    if name == "without a grant":
        turns.release()
    assert await is_free(turns)


@given(st.lists(st.sampled_from(["ask", "cancel", "tick", "late"]), max_size=60), st.integers(0, 2**32))
async def test_no_order_of_asking_cancelling_and_waiting_leaks_a_turn(acts: list[str], seed: int) -> None:
    turns = Turns(depth=4, max_wait=5)
    tasks: list[asyncio.Task[None]] = []
    chance = random.Random(seed)  # noqa: S311 - a test's

    async def hold(asker: str) -> None:
        await turns.take(asker)
        try:
            await asyncio.sleep(chance.choice([0, 1, 3]))
        finally:
            turns.release()

    for act in acts:
        match act:
            case "ask":
                tasks.append(asyncio.create_task(hold(chance.choice("abc"))))
            case "cancel" if tasks:
                chance.choice(tasks).cancel()
            case "tick":
                await asyncio.sleep(0)
            case "late":
                await asyncio.sleep(chance.choice([1, 5]))
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(
        result is None or isinstance(result, QueueFullError | WaitedTooLongError | asyncio.CancelledError)
        for result in results
    )
    assert turns.depths == {}
    assert await is_free(turns)


async def test_close_ends_all_who_wait_and_all_who_come() -> None:
    turns = Turns()
    await turns.take("tcp")
    tasks = [asyncio.create_task(turns.take(asker)) for asker in ("sms", "mqtt")]
    await settle()
    turns.close(Gone("unplugged"))
    for task in tasks:
        with pytest.raises(Gone, match="unplugged"):
            await task
    with pytest.raises(Gone):
        await turns.take("tcp")
    turns.release()


WEIGHTS = st.dictionaries(st.sampled_from("abcd"), st.integers(1, WEIGHT_MAX))


@given(WEIGHTS, st.lists(st.tuples(st.integers(0, 3), st.sampled_from("abcd"), st.booleans()), max_size=80))
async def test_whoever_waits_is_passed_by_each_other_no_more_often_than_the_weights_say(
    weights: dict[str, int], arrivals: list[tuple[int, str, bool]]
) -> None:
    """Starvation is impossible: the head of each asker's queue waits for a bounded number of others' turns."""
    turns = Turns(depth=100, max_wait=1e5, weights=weights)
    passed: dict[str, list[str]] = {}
    """The turns granted since each asker that waits had its last one, or came."""

    async def hold(asker: str) -> None:
        if asker not in turns.depths:
            passed[asker] = []
        await turns.take(asker)
        try:
            for other in "abcd":
                most = weights.get(other, 1) // weights.get(asker, 1) + 1
                assert other == asker or passed[asker].count(other) <= most
            for waiting in passed.values():
                waiting.append(asker)
            passed[asker] = []
            await asyncio.sleep(1)
        finally:
            turns.release()

    tasks = []
    for pause, asker, leaves in arrivals:
        await asyncio.sleep(pause / 2)
        tasks.append(asyncio.create_task(hold(asker)))
        await settle()
        if leaves:
            tasks[-1].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert not [result for result in results if isinstance(result, Exception)]
    assert turns.depths == {}


@pytest.mark.parametrize("weight", [1, 3, WEIGHT_MAX])
async def test_while_all_wait_turns_are_shared_by_weight(weight: int) -> None:
    turns = Turns(weights={"a": weight})
    grants: list[str] = []

    async def hold(asker: str) -> None:
        while True:
            await turns.take(asker)
            grants.append(asker)
            await asyncio.sleep(1)
            turns.release()
            await asyncio.sleep(0)

    await turns.take("c")
    tasks = [asyncio.create_task(hold(asker)) for asker in "aaaabbbbcccc"]
    await settle()
    turns.release()
    await asyncio.sleep(139.5)
    for task in tasks:
        task.cancel()
    assert len(grants) == 140
    shares = {asker: grants.count(asker) for asker in "abc"}
    assert shares["a"] == pytest.approx(weight * shares["b"], abs=weight)
    assert shares["b"] == pytest.approx(shares["c"], abs=1)


async def test_the_place_in_the_queue_is_that_of_the_turn() -> None:
    turns = Turns(weights={"tcp": 2})
    loop = asyncio.get_running_loop()
    await turns.take("daemon", what="watch")
    order: list[str] = []

    async def hold(asker: str, rid: str) -> None:
        await turns.take(asker, what="+CSQ", rid=rid)
        order.append(rid)
        turns.release()

    tasks = []
    for number, asker in enumerate(["sms", "tcp", "tcp", "mqtt", "sms", "tcp", "daemon"]):
        tasks.append(asyncio.create_task(hold(asker, f"{asker}{number}")))
        await asyncio.sleep(1)
    assert turns.holder == Place("daemon", "watch", "", loop.time() - 7)
    queue = list(turns.queue())
    assert [(place.what, place.since) for place in queue if place.asker == "sms"] == [
        ("+CSQ", loop.time() - 7),
        ("+CSQ", loop.time() - 3),
    ]
    turns.release()
    await asyncio.gather(*tasks)
    assert order == [place.rid for place in queue]
    assert turns.load == 0
    assert not list(turns.queue())


@given(WEIGHTS, st.lists(st.sampled_from("abcd"), max_size=20), st.lists(st.sampled_from("abcd"), max_size=20))
async def test_the_queue_shown_is_always_the_queue(weights: dict[str, int], before: list[str], then: list[str]) -> None:
    turns = Turns(weights=weights)
    for asker in before:
        await turns.take(asker)
        turns.release()
    order: list[str] = []

    async def hold(asker: str, rid: str) -> None:
        await turns.take(asker, rid=rid)
        order.append(rid)
        await asyncio.sleep(1)
        turns.release()

    await turns.take("x")
    tasks = [asyncio.create_task(hold(asker, str(number))) for number, asker in enumerate(then)]
    await settle()
    shown = [place.rid for place in turns.queue()]
    turns.release()
    await asyncio.gather(*tasks)
    assert order == shown


async def test_kept_for_one_nobody_else_gets_it_until_it_is_open_again() -> None:
    turns = Turns()
    await turns.take("tcp")
    waiting = [asyncio.create_task(turns.take(asker)) for asker in ("sms", "daemon", "mqtt")]
    await settle()
    turns.keep_for("daemon", Gone("rebooting"))
    await settle()
    for task in (waiting[0], waiting[2]):
        with pytest.raises(Gone, match="rebooting"):
            task.result()
    with pytest.raises(Gone, match="rebooting"):
        await turns.take("tcp")
    assert turns.depths == {"daemon": 1}
    turns.release()  # whoever had it keeps it to its end
    await waiting[1]
    turns.release()
    with pytest.raises(Gone, match="rebooting"):
        await turns.take("sms")
    turns.open_to_all()
    assert await is_free(turns)
