# SPDX-License-Identifier: Apache-2.0
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrund.module.ladder import HOUR, Climb, Ladder, LadderRules, Reboot, Rung
from atrund.module.lifecycle import Event

COMMAND = ("/usr/local/sbin/power-cycle",)


class Bench:
    def __init__(self, rules: LadderRules, history: tuple[float, ...] = (), *, network_up: bool = False) -> None:
        self.now = 10_000.0
        self.network_up = network_up
        self.kept: list[tuple[float, ...]] = []
        self.ladder = Ladder(
            rules,
            now=lambda: self.now,
            network_up=lambda: self.network_up,
            history=history,
            keep=self.kept.append,
        )

    def climb(self, times: int = 1) -> list[Rung]:
        return [self.ladder.climb("port").rung for _ in range(times)]


def test_reopen_reboot_command_and_from_below_again() -> None:
    bench = Bench(LadderRules(Reboot.ALWAYS, command=COMMAND, per_hour=60))
    assert bench.climb(6) == [Rung.REOPEN, Rung.REBOOT, Rung.COMMAND] * 2
    assert bench.ladder.command == COMMAND


def test_without_a_command_there_are_two_rungs() -> None:
    bench = Bench(LadderRules(Reboot.ALWAYS, per_hour=60))
    assert bench.climb(4) == [Rung.REOPEN, Rung.REBOOT] * 2


def test_one_that_works_begins_at_the_lowest_rung_again_and_the_count_stays() -> None:
    bench = Bench(LadderRules(Reboot.ALWAYS, per_hour=1))
    assert bench.climb(2) == [Rung.REOPEN, Rung.REBOOT]
    bench.ladder.forget("port")
    assert bench.ladder.climb("port") == Climb(Rung.REOPEN)
    assert bench.ladder.climb("port") == Climb(Rung.REOPEN, "AT#REBOOT: 1 within the hour already")


def test_each_port_climbs_by_itself() -> None:
    bench = Bench(LadderRules(Reboot.ALWAYS))
    assert bench.climb() == [Rung.REOPEN]
    assert bench.ladder.climb("other").rung is Rung.REOPEN
    bench.ladder.forget("other")
    assert bench.climb() == [Rung.REBOOT]


@pytest.mark.parametrize(
    ("reboot", "shared", "network_up", "why"),
    [
        (Reboot.ALWAYS, True, True, ""),
        (Reboot.UNUSED, True, True, "AT#REBOOT: the module carries a data connection"),
        (Reboot.UNUSED, True, False, ""),
        (Reboot.UNUSED, False, True, ""),
        (Reboot.NEVER, False, False, "AT#REBOOT: recovery.reboot is never"),
        (Reboot.NEVER, True, True, "AT#REBOOT: recovery.reboot is never"),
    ],
)
def test_when_the_module_may_be_rebooted(reboot: Reboot, why: str, *, shared: bool, network_up: bool) -> None:
    bench = Bench(LadderRules(reboot, shared, COMMAND), network_up=network_up)
    bench.climb()
    assert bench.ladder.climb("port") == Climb(Rung.REOPEN if why else Rung.REBOOT, why)
    assert bench.ladder.climb("port") == Climb(Rung.COMMAND), "the operator's own command is the operator's to judge"


def test_reboots_and_commands_count_together_and_are_kept() -> None:
    bench = Bench(LadderRules(Reboot.ALWAYS, command=COMMAND, per_hour=2))
    bench.climb(3)
    assert bench.kept == [(10_000.0,), (10_000.0, 10_000.0)]
    bench.now += HOUR - 1
    assert bench.climb(3) == [Rung.REOPEN] * 3
    bench.now += 1
    assert bench.climb(3) == [Rung.REOPEN, Rung.REBOOT, Rung.COMMAND]
    assert bench.kept[-1] == (13_600.0, 13_600.0), "what is older than an hour is not kept"


def test_a_restart_does_not_begin_the_hour_anew() -> None:
    bench = Bench(LadderRules(Reboot.ALWAYS, per_hour=2), history=(9_000.0, 9_500.0))
    assert bench.climb(2) == [Rung.REOPEN, Rung.REOPEN]
    bench.now = 12_601.0
    assert bench.climb(2) == [Rung.REOPEN, Rung.REBOOT]


def test_none_an_hour_is_never() -> None:
    assert set(Bench(LadderRules(Reboot.ALWAYS, command=COMMAND, per_hour=0)).climb(9)) == {Rung.REOPEN}


def test_what_restarts_the_module_is_told_to_all_who_hear() -> None:
    bench = Bench(LadderRules())
    heard: list[tuple[int, Event]] = []
    bench.ladder.hear(lambda event: heard.append((1, event)))
    bench.ladder.hear(lambda event: heard.append((2, event)))
    bench.ladder.tell(Event.REBOOT_SENT)
    assert heard == [(1, Event.REBOOT_SENT), (2, Event.REBOOT_SENT)]


@given(
    st.integers(0, 5),
    st.lists(st.tuples(st.floats(0, 2 * HOUR), st.sampled_from(["a", "b"]), st.booleans()), max_size=60),
)
def test_never_more_than_the_limit_within_any_hour(per_hour: int, steps: list[tuple[float, str, bool]]) -> None:
    bench = Bench(LadderRules(Reboot.ALWAYS, command=COMMAND, per_hour=per_hour))
    times: list[float] = []
    for wait, port, works in steps:
        bench.now += wait
        if works:
            bench.ladder.forget(port)
        if bench.ladder.climb(port).rung is not Rung.REOPEN:
            times.append(bench.now)
    assert all(late - early >= HOUR for early, late in zip(times, times[per_hour:], strict=False))
    assert all(len(climbs) <= per_hour for climbs in bench.kept)


class TestOverdue:
    """A reboot because a command did not end in time (REQ-7)."""

    @pytest.mark.parametrize(
        ("reboot", "shared", "network_up", "why"),
        [
            (Reboot.UNUSED, True, False, "the module is shared, and recovery.reboot is unused"),
            (Reboot.NEVER, True, False, "the module is shared, and recovery.reboot is never"),
            (Reboot.NEVER, False, False, "recovery.reboot is never"),
            (Reboot.UNUSED, False, True, ""),
            (Reboot.ALWAYS, True, True, ""),
            (Reboot.ALWAYS, False, True, ""),
        ],
    )
    def test_it_needs_leave(self, reboot: Reboot, why: str, *, shared: bool, network_up: bool) -> None:
        ladder = Ladder(LadderRules(reboot, shared), now=lambda: 0.0, network_up=lambda: network_up)
        assert ladder.overdue("port") == (f"AT#REBOOT: {why}" if why else "")
        assert ladder.climb("port").rung is (Rung.REOPEN if why else Rung.REBOOT)

    def test_it_is_within_the_hours_limit_and_counts(self) -> None:
        kept: list[tuple[float, ...]] = []
        now = 0.0
        ladder = Ladder(
            LadderRules(Reboot.ALWAYS, per_hour=1), now=lambda: now, network_up=lambda: False, keep=kept.append
        )
        assert ladder.overdue("port") == ""
        assert kept == []
        ladder.count()
        assert kept == [(0.0,)]
        assert ladder.overdue("port") == "AT#REBOOT: 1 within the hour already"
        now = HOUR + 1
        assert ladder.overdue("port") == ""
