# SPDX-License-Identifier: Apache-2.0
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from atrund.atrun.undo import Armed
from atrund.ledger import nvm
from atrund.ledger.nvm import Stored
from atrund.ledger.schema import open_file

TS = "2026-03-01T12:00:00Z"


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    connection = open_file(Path(":memory:"))
    yield connection
    connection.close()


def keep(db: sqlite3.Connection, **values: str) -> int:
    written: int = nvm.keep(values, door="tcp", peer="10.0.0.1", ts=TS)(db)
    return written


def test_what_was_kept_comes_back_with_who_set_it_and_when(db: sqlite3.Connection) -> None:
    assert keep(db, b="2", a="1") == 2
    assert nvm.stored()(db) == {
        "a": Stored("a", "1", "tcp", "10.0.0.1", TS),
        "b": Stored("b", "2", "tcp", "10.0.0.1", TS),
    }


def test_a_setting_takes_the_place_of_the_one_before_and_of_no_other(db: sqlite3.Connection) -> None:
    keep(db, a="1", b="2")
    nvm.keep({"a": "3"}, door="sms", peer="+39", ts="later")(db)
    found = nvm.stored()(db)
    assert found["a"] == Stored("a", "3", "sms", "+39", "later")
    assert found["b"].value == "2"


def test_what_is_forgotten_is_gone_and_counted_once(db: sqlite3.Connection) -> None:
    keep(db, a="1", b="2")
    assert nvm.forget(["a", "c", "a"])(db) == 1
    assert list(nvm.stored()(db)) == ["b"]
    assert nvm.forget([])(db) <= 0


def test_a_stored_secret_is_not_in_its_representation() -> None:
    assert "geheim" not in repr(Stored("tcp.users.1", "geheim", "tcp", "", TS))


def test_undos_have_ids_that_never_come_again(db: sqlite3.Connection) -> None:
    first = nvm.arm("AT+CFUN=1", due=7.5, rid="r1", door="tcp", peer="10.0.0.1")(db)
    second = nvm.arm("AT+COPS=0", due=8.0, rid="r2", door="sms", peer="+39")(db)
    assert first == Armed(1, "AT+CFUN=1", 7.5, "r1", "tcp", "10.0.0.1")
    assert nvm.armed()(db) == [first, second]
    assert nvm.disarm(second.id)(db) == 1
    assert nvm.disarm(second.id)(db) == 0
    assert nvm.arm("AT", due=9, rid="", door="", peer="")(db).id == 3, "a confirmation must not mean another's"
    assert [one.id for one in nvm.armed()(db)] == [1, 3]
