# SPDX-License-Identifier: Apache-2.0
"""What codes, seals and digests have used up, as the ledger keeps it."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from atrund.atrun.request import Reason
from atrund.ledger import admissions
from atrund.ledger.admissions import CLAIMS_SPAN, Decision, Desk, claim, settle
from atrund.ledger.schema import open_file

NO = Decision(Reason.REPLAY, "used before", answered=False)


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    connection = open_file(Path(":memory:"))
    yield connection
    connection.close()


def never(_: Desk) -> Decision:
    raise AssertionError("it was judged before")


@pytest.mark.parametrize("decision", [Decision(), NO, Decision(Reason.AUTH, "wrong")])
def test_a_message_is_judged_once_until_it_is_settled(db: sqlite3.Connection, decision: Decision) -> None:
    assert claim("a", 1.0, lambda _: decision)(db) == decision
    assert claim("a", 2.0, never)(db) == decision
    assert claim("b", 2.0, lambda _: NO)(db) == NO
    assert settle("a")(db) == 1
    assert settle("a")(db) == 0
    assert claim("a", 3.0, lambda _: NO)(db) == NO


def test_a_judgement_that_fails_leaves_nothing_decided(db: sqlite3.Connection) -> None:
    with pytest.raises(AssertionError):
        claim("a", 1.0, never)(db)
    assert claim("a", 1.0, lambda _: NO)(db) == NO


def test_what_was_never_settled_is_forgotten_in_the_end(db: sqlite3.Connection) -> None:
    claim("a", 1.0, lambda _: NO)(db)
    claim("b", 1.0 + CLAIMS_SPAN, lambda _: NO)(db)
    assert claim("a", 1.0 + CLAIMS_SPAN, never)(db) == NO
    claim("c", 2.0 + CLAIMS_SPAN, lambda _: NO)(db)
    assert claim("a", 2.0 + CLAIMS_SPAN, lambda _: Decision())(db) == Decision()


def test_each_subject_counts_for_itself(db: sqlite3.Connection) -> None:
    desk = Desk(db, 0.0)
    assert desk.counter("a") == (0, 0)
    desk.count_on("a", 2**32 - 1, 2**32 - 1)
    desk.count_on("b", 1, 2)
    desk.count_on("b", 3, 4)
    assert (desk.counter("a"), desk.counter("b"), desk.counter("c")) == ((2**32 - 1, 2**32 - 1), (3, 4), (0, 0))


def test_uses_are_counted_for_a_while(db: sqlite3.Connection) -> None:
    for run in (0.0, 1.0, 2.0):
        Desk(db, run).use("rate", "a")
    Desk(db, 2.0).use("rate", "b")
    Desk(db, 2.0).use("told", "a")
    assert Desk(db, 9.9).uses("rate", "a", 10.0) == 3
    assert Desk(db, 10.0).uses("rate", "a", 10.0) == 2
    assert Desk(db, 5.0).uses("rate", "a", 10.0) == 2, "what was forgotten is forgotten"
    assert Desk(db, 10.0).uses("rate", "b", 10.0) == 1
    assert Desk(db, 99.0).uses("told", "a", 10.0) == 0
    assert Desk(db, 99.0).uses("digest", "a", 10.0) == 0


def test_the_oldest_of_a_kind_makes_room_and_of_no_other(
    db: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever forges senders without end must not have the digests forgotten."""
    monkeypatch.setattr(admissions, "USES_MAX", 3)
    desk = Desk(db, 0.0)
    desk.use("digest", "d")
    for number in range(5):
        desk.use("told", str(number))
    assert [desk.uses("told", str(number), 10.0) for number in range(5)] == [0, 0, 1, 1, 1]
    assert desk.uses("digest", "d", 10.0) == 1
