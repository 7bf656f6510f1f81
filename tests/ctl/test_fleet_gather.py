# SPDX-License-Identifier: Apache-2.0
"""Who has answered and who has not: the core of `atrunctl fleet run`, with time as it is told."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrund.ctl.fleet_gather import OPEN, TRANSITIONS, Event, Gather, NoAnswer, Node, Stand, read_answer


def gather(*names: str, deadline: float = 10.0, rate: float = 0.0, skipped: tuple[str, ...] = ()) -> Gather:
    return Gather(dict.fromkeys(names), run="run", deadline=deadline, rate=rate, skipped=skipped)


def ask_all(those: Gather, now: float = 0.0) -> list[str]:
    asked = []
    while (node := those.next_to_ask(now)) is not None:
        those.asked(node, now)
        asked.append(node.name)
    return asked


def payload(node: Node, state: str = "ok", **fields: object) -> bytes:
    return json.dumps({"id": node.id, "state": state, **fields}).encode()


def answer(those: Gather, name: str, now: float, state: str = "ok") -> Node | None:
    return those.heard(name, payload(those.nodes[name], state), now)


def stands(those: Gather) -> dict[str, str]:
    return {name: node.stand.value for name, node in those.nodes.items()}


def test_every_stand_knows_every_event_and_can_be_reached() -> None:
    assert set(TRANSITIONS) == set(Stand)
    assert all(set(row) == set(Event) for stand, row in TRANSITIONS.items() if stand not in OPEN)
    assert {to.state for row in TRANSITIONS.values() for to in row.values()} == set(Stand)


def test_all_answer() -> None:
    those = gather("a", "b")
    assert ask_all(those) == ["a", "b"]
    assert len(those.open) == 2
    first = answer(those, "a", 0.25)
    assert first is not None
    assert (first.name, first.seconds, first.late) == ("a", 0.25, False)
    assert answer(those, "b", 9.9) is not None
    assert those.done
    assert those.open == []
    assert those.wait(9.9) == pytest.approx(0.1)


def test_nobody_is_asked_that_does_not_exist() -> None:
    those = gather()
    assert those.done
    assert those.next_to_ask(0.0) is None
    assert those.wait(5.0) == 0.0


def test_ids_are_all_different_and_stay() -> None:
    those = gather(*"abc")
    ids = [node.id for node in those.nodes.values()]
    assert len(set(ids)) == 3
    ask_all(those)
    those.lost()
    assert [node.id for node in those.nodes.values()] == ids


def test_the_deadline_is_each_nodes_own() -> None:
    those = gather("a", "b", rate=1.0)
    assert ask_all(those, 0.0) == ["a"]
    assert those.wait(0.0) == 1.0
    assert ask_all(those, 0.9) == []
    assert ask_all(those, 1.0) == ["b"]
    those.tick(9.9)
    assert stands(those) == {"a": "asked", "b": "asked"}
    assert those.wait(9.5) == 0.5
    those.tick(10.0)
    assert stands(those) == {"a": "silent", "b": "asked"}
    those.tick(11.0)
    assert stands(those) == {"a": "silent", "b": "silent"}
    assert those.done


def test_a_rate_is_kept_and_a_stall_is_not_made_up_for() -> None:
    those = gather(*"abcdefgh", rate=2.0)
    moments: list[float] = []
    for tenth in [*range(1000, 1005), *range(1100, 1140)]:
        moments += [tenth / 10] * len(ask_all(those, tenth / 10))
    assert moments == [100.0, 110.0, 110.0, 110.5, 111.0, 111.5, 112.0, 112.5]


def test_without_a_rate_all_go_at_once() -> None:
    assert len(ask_all(gather(*map(str, range(1000))))) == 1000


def test_an_answer_counts_once() -> None:
    those = gather("a")
    ask_all(those)
    assert answer(those, "a", 1.0) is not None
    assert answer(those, "a", 2.0, "error") is None
    node = those.nodes["a"]
    assert node.answer is not None
    assert (node.answer.state, node.heard_at) == ("ok", 1.0)


def test_a_late_answer_is_an_answer_as_long_as_somebody_is_waited_for() -> None:
    those = gather("a", "b", rate=1.0)
    ask_all(those, 0.0)
    ask_all(those, 1.0)
    those.tick(10.5)
    node = answer(those, "a", 10.5)
    assert node is not None
    assert node.late
    assert stands(those) == {"a": "answered", "b": "asked"}


def test_interim_states_are_shown_and_end_nothing() -> None:
    those = gather("a")
    ask_all(those)
    for state, stand in (("accepted", "accepted"), ("running", "running"), ("accepted", "running")):
        assert answer(those, "a", 1.0, state) is None
        assert stands(those) == {"a": stand}
    assert answer(those, "a", 2.0) is not None


@pytest.mark.parametrize("state", ["accepted", "running"])
def test_one_that_says_it_has_it_may_still_be_silent(state: str) -> None:
    those = gather("a")
    ask_all(those)
    answer(those, "a", 1.0, state)
    those.tick(10.0)
    assert stands(those) == {"a": "silent"}


def test_an_unknown_state_is_an_error() -> None:
    those = gather("a")
    ask_all(those)
    node = answer(those, "a", 1.0, "marvellous")
    assert node is not None
    assert node.answer is not None
    assert not node.answer.ok


def test_answers_to_others_are_nobodys() -> None:
    those = gather("a", "b")
    ask_all(those)
    assert those.heard("b", payload(those.nodes["a"]), 1.0) is None, "a's answer under b's name"
    assert those.heard("stranger", payload(those.nodes["a"]), 1.0) is None
    assert those.heard("a", b'{"id":"another run","state":"ok"}', 1.0) is None
    assert stands(those) == {"a": "asked", "b": "asked"}
    assert those.garbled == 0


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"id":"x"}',
        b'{"id":1,"state":"ok"}',
        b'{"id":"x","state":"ok","lines":[1]}',
        b'{"id":"x","state":"ok","lines":"OK"}',
        b'{"id":"x","state":"ok","final":1}',
        b'{"id":"x","state":"ok","reason":{}}',
        b'{"id":"x","state":"ok","n":' + b"9" * 10_000 + b"}",
        b'{"id":"x","state":"ok","s":"' + b"x" * 262_144 + b'"}',
    ],
)
def test_what_is_no_answer_is_counted_and_passed_over(octets: bytes) -> None:
    those = gather("a")
    ask_all(those)
    assert those.heard("a", octets, 1.0) is None
    assert those.garbled == 1
    assert stands(those) == {"a": "asked"}


@given(st.binary(max_size=200))
def test_reading_an_answer_never_fails_otherwise(octets: bytes) -> None:
    with pytest.raises(NoAnswer):
        read_answer(octets)


def test_the_broker_has_nobody_or_takes_nothing() -> None:
    those = gather("a", "b", "c")
    ask_all(those)
    those.nobody("a")
    those.refused("b", "Not authorized")
    assert stands(those) == {"a": "absent", "b": "denied", "c": "asked"}
    assert those.nodes["b"].why == "Not authorized"
    answer(those, "a", 1.0)
    assert stands(those)["a"] == "answered", "a broker that was wrong about it"


def test_sent_again_after_a_loss_nobody_means_nothing() -> None:
    """The first one may have reached the node, which has run it since and gone."""
    those = gather("a", "b")
    ask_all(those)
    those.lost()
    assert ask_all(those) == ["a", "b"]
    those.nobody("a")
    those.refused("b", "Quota exceeded")
    assert stands(those) == {"a": "asked", "b": "asked"}


def test_a_lost_connection_has_all_asked_again_whose_answer_is_missing() -> None:
    those = gather(*"abcd", rate=0.0)
    ask_all(those, 0.0)
    answer(those, "a", 1.0)
    answer(those, "b", 1.0, "running")
    those.lost()
    assert stands(those) == {"a": "answered", "b": "waiting", "c": "waiting", "d": "waiting"}
    answer(those, "d", 2.0)
    assert ask_all(those, 3.0) == ["b", "c"]
    those.tick(10.0)
    assert stands(those)["b"] == "silent", "the deadline is from when it was asked first"
    assert those.done


@pytest.mark.parametrize("state", ["", "accepted", "running"])
def test_a_node_that_comes_online_is_asked_again(state: str) -> None:
    """The broker may have lost what it had for it, or the node what it was told."""
    those = gather("a", "b", "c")
    those.born("a", 0.0)
    assert ask_all(those, 1.0) == ["a", "b", "c"], "those that were not asked yet are asked once"
    if state:
        answer(those, "a", 2.0, state)
    answer(those, "b", 2.0)
    those.nobody("c")
    for name in ("a", "a", "b", "c", "stranger"):
        those.born(name, 3.0)
    assert ask_all(those, 3.0) == ["a", "c"]
    those.tick(11.0)
    assert stands(those) == {"a": "silent", "b": "answered", "c": "silent"}
    those.born("a", 11.0)
    assert ask_all(those, 11.0) == []


def test_a_loss_of_what_was_not_sent_yet_asks_nobody_twice() -> None:
    those = gather("a", "b", rate=1.0)
    ask_all(those, 0.0)
    those.lost()
    those.lost()
    assert ask_all(those, 1.0) + ask_all(those, 2.0) + ask_all(those, 3.0) == ["b", "a"]


def test_those_that_are_offline_are_not_asked() -> None:
    those = gather("a", "b", skipped=("b",))
    assert ask_all(those) == ["a"]
    answer(those, "a", 1.0)
    assert those.done
    assert stands(those)["b"] == "offline"


def test_giving_up_tells_those_that_were_asked_from_the_others() -> None:
    those = gather("a", "b", rate=1.0)
    ask_all(those)
    those.stop_asking()
    assert stands(those) == {"a": "asked", "b": "not asked"}
    assert ask_all(those, 5.0) == []
    those.give_up()
    assert stands(those) == {"a": "silent", "b": "not asked"}
    assert those.done


def test_who_was_not_asked_has_not_answered() -> None:
    those = gather("a", "b", skipped=("b",))
    assert answer(those, "a", 0.0) is None
    assert answer(those, "b", 0.0) is None
    assert stands(those) == {"a": "waiting", "b": "offline"}


def test_a_status_is_taken_of_those_that_are_meant() -> None:
    those = gather("a")
    those.status("a", online=False)
    those.status("stranger", online=True)
    assert those.nodes["a"].online is False
    assert list(those.nodes) == ["a"]


EVENTS = st.sampled_from(
    ["ask", "ok", "error", "accepted", "running", "nobody", "refused", "lost", "born", "tick", "stop", "junk"]
)


@given(st.lists(st.tuples(EVENTS, st.sampled_from("abc"), st.floats(0, 5)), max_size=40))
def test_whatever_happens_the_count_is_right_and_answers_stay(events: list[tuple[str, str, float]]) -> None:
    those, now = gather(*"abc", deadline=8.0, rate=1.0), 0.0
    answered: dict[str, Node] = {}
    for event, name, passed in events:
        now += passed
        match event:
            case "ask":
                ask_all(those, now)
            case "nobody":
                those.nobody(name)
            case "refused":
                those.refused(name, "why")
            case "lost":
                those.lost()
            case "born":
                those.born(name, now)
            case "tick":
                those.tick(now)
            case "stop":
                those.stop_asking()
            case "junk":
                those.heard(name, b"junk", now)
            case _:
                if (node := answer(those, name, now, event)) is not None:
                    assert name not in answered
                    answered[name] = node
        assert those.done == (not those.open)
        assert {n for n, node in those.nodes.items() if node.answer is not None} == set(answered)
        assert all(those.nodes[n].stand is Stand.ANSWERED for n in answered)
        assert those.wait(now) >= 0
    those.give_up()
    assert those.done
