# SPDX-License-Identifier: Apache-2.0
"""What waits for the broker, over kills, days of absence, full and read-only disks, and refusals (MQ-4, MQ-5)."""

import json
import subprocess
from collections.abc import Iterable
from typing import Any

import pytest

from tests.ledger.disks import fill, mounted
from tests.scenarios.conftest import Stage
from tests.scenarios.players import BASE, Broker, Caller, Daemon, Ear, until


def ask(broker: Broker, id_: str, cmd: str = "AT+GMI") -> None:
    broker.publish("at/request", json.dumps({"id": id_, "cmd": cmd}))


def by_tcp(daemon: Daemon, count: int) -> None:
    """Have so many commands run at once, each with two records."""
    with Caller(daemon.tcp) as caller:
        for _ in range(count):
            caller.ask(b"AT\r")


def numbered(ear: Ear) -> list[dict[str, Any]]:
    """All records with a number, as they came."""
    return [m.record for m in ear.messages if m.topic.startswith(("event/", "at/response")) and "seq" in m.record]


def told(records: Iterable[dict[str, Any]], door: str = "tcp") -> set[tuple[str, str]]:
    return {(record["rid"], record["state"]) for record in records if record["door"] == door and "state" in record}


def check_numbers(records: list[dict[str, Any]]) -> None:
    """One number stands for one record, and who hears each for the first time hears them in order."""
    by_number: dict[int, dict[str, Any]] = {}
    for record in records:
        assert by_number.setdefault(record["seq"], record) == record
    assert list(by_number) == sorted(by_number)


@pytest.mark.parametrize("spool", ["disk", "memory"])
def test_killed_while_the_broker_is_away(stage: Stage, spool: str) -> None:
    """Answers and numbers are there at the next start either way, the mirror where it is on disk."""
    module, broker = stage.module(), stage.broker()
    ear = stage.ear(broker)
    daemon = stage.daemon(module, broker)
    daemon.configure(mqtt={"spool": spool})
    daemon.start()
    assert ear.hear("info")["spool"] == spool
    by_tcp(daemon, 3)
    until(lambda: len(told(numbered(ear))) == 6, "the mirror")
    module.ask("late", command="AT+CIMI", seconds=1.0)
    ask(broker, "owed", "AT+CIMI")
    until(lambda: module.count("AT+CIMI"), "the command at the module")
    broker.stop()
    by_tcp(daemon, 20)
    until(lambda: daemon.status()["requests"]["running"] == 0, "the end of the slow one")
    until(lambda: daemon.status()["ledger"]["outbox"] >= 42, "what waits")
    before = numbered(ear)
    daemon.kill()
    broker.restart()
    later = stage.ear(broker)
    daemon.start()
    assert later.hear("at/response", id="owed")["state"] == "ok"
    by_tcp(daemon, 1)
    session = later.hear("status", state="online")["session"]
    until(lambda: [r for r in numbered(later) if r["session"] == session and r.get("state") == "ok"], "a new record")
    old = [record for record in numbered(later) if record["session"] != session]
    assert len(told(old)) == (40 if spool == "disk" else 0)
    assert "owed" in {record["id"] for record in old if record["door"] == "mqtt"}
    check_numbers([*before, *numbered(later)])
    assert later.hear("info")["spool"] == spool


def test_killed_while_it_drains(stage: Stage) -> None:
    """At least once, never under another number, and in order for whoever drops repetitions."""
    module, broker = stage.module(), stage.broker("max_inflight_messages 1")  # so that it takes a while
    daemon = stage.daemon(module, broker).start()
    broker.stop()
    by_tcp(daemon, 400)
    until(lambda: daemon.status()["ledger"]["outbox"] >= 800, "what waits")
    broker.restart()
    ear = stage.ear(broker)
    for heard in (20, 200, 500):
        until(lambda heard=heard: ear.program.text.count("\n=") >= heard, "some of it")  # type: ignore[misc]
        daemon.kill()
        assert len(told(numbered(ear))) < 800
        daemon.begin()
    until(lambda: ear.program.text.count("\n=") >= 800 and len(told(numbered(ear))) == 800, "all of it", 30)
    until(lambda: daemon.status()["ledger"]["outbox"] == 0, "an empty outbox")
    check_numbers(numbered(ear))
    assert daemon.stop() == 0


def test_a_spool_that_is_full_loses_the_oldest_of_the_mirror_and_says_how_many(stage: Stage) -> None:
    module, broker = stage.module(), stage.broker()
    daemon = stage.daemon(module, broker)
    daemon.configure(mqtt={"spool_records": 100})
    daemon.start()
    until(lambda: daemon.status()["ledger"]["outbox"] == 0, "an empty outbox")
    broker.stop()
    with Caller(daemon.tcp) as caller:
        for _ in range(150):
            caller.ask(b"AT\r")
    counts = until(lambda: (c := daemon.status()["ledger"])["dropped"] >= 200 and c, "what was dropped")
    assert counts["outbox"] <= 100
    broker.restart()
    ear = stage.ear(broker)
    until(lambda: daemon.status()["ledger"]["outbox"] == 0, "an empty outbox")
    heard = numbered(ear)
    assert 90 <= len(heard) <= 100
    check_numbers(heard)
    assert [record["seq"] for record in heard] == [*range(heard[0]["seq"], heard[0]["seq"] + len(heard))]


def test_a_disk_that_is_full_and_has_room_again(stage: Stage) -> None:
    """REQ-12: requests over MQTT are refused and said so, other doors go on, and later all is as before."""
    with mounted(stage.folder / "state", "3m") as disk:
        module, broker = stage.module(), stage.broker()
        ear = stage.ear(broker)
        daemon = stage.daemon(module, broker).start()
        ask(broker, "before")
        assert ear.hear("at/response", id="before")["state"] == "ok"
        filler = fill(disk)
        refused: list[dict[str, Any]] = []
        for number in range(200):  # the ledger's own files have some room in them
            ask(broker, f"full{number}", f"AT+GMI //{'x' * 1500}")
            answer = ear.hear("at/response", id=f"full{number}")
            if answer["state"] != "ok":
                refused.append(answer)
                break
        assert [(answer["state"], answer["reason"]) for answer in refused] == [("rejected", "storage")]
        by_tcp(daemon, 5)
        filler.unlink()
        ask(broker, "after")
        assert ear.hear("at/response", id="after")["state"] == "ok"
        by_tcp(daemon, 1)
        until(lambda: len(told(numbered(ear))) >= 2, "the mirror")
        until(lambda: daemon.status()["ledger"]["outbox"] == 0, "an empty outbox")
        check_numbers([record for record in numbered(ear) if record.get("reason") != "storage"])
        assert daemon.stop() == 0


def test_a_disk_that_is_read_only_at_the_start(stage: Stage) -> None:
    """REQ-12: what waits on it waits on, and comes when it can be written again."""
    with mounted(stage.folder / "state", "8m") as disk:
        module, broker = stage.module(), stage.broker()
        daemon = stage.daemon(module, broker).start()
        broker.stop()
        by_tcp(daemon, 10)
        assert daemon.stop() == 0
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        broker.restart()
        ear = stage.ear(broker)
        daemon.start()
        by_tcp(daemon, 1)
        ask(broker, "no")
        assert ear.hear("at/response", id="no")["reason"] == "storage"
        assert daemon.status()["ledger"]["state"] != "ok"
        assert daemon.stop() == 0
        assert told(numbered(ear)) == set()
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        daemon.start()
        until(lambda: len(told(numbered(ear))) == 20, "what waited")
        check_numbers([record for record in numbered(ear) if record.get("reason") != "storage"])
        assert daemon.stop() == 0


def test_what_the_broker_refuses_is_set_aside_and_tried_again_at_the_next_start(stage: Stage) -> None:
    """MQTT 5 alone says that it refuses (PUBACK, reason code 0x87); 3.1.1 has no word for it."""
    rules = stage.folder / "acl"
    rules.write_text(f"topic readwrite {BASE}status\ntopic readwrite {BASE}at/#\n")
    rules.chmod(0o644)
    broker = stage.broker(f"acl_file {rules}")
    module = stage.module()
    daemon = stage.daemon(module, broker).start()
    by_tcp(daemon, 10)
    ledger = until(lambda: (c := daemon.status()["ledger"])["aside"] >= 20 and c, "what is set aside")
    assert ledger["dropped"] == 0
    said = daemon.logged("record set aside")
    assert {entry["topic"].removeprefix(BASE) for entry in said} >= {"event/command", "event/response"}
    assert len(said) <= 3, "once for a topic"
    assert "refused by the broker: Not authorized" in said[0]["detail"]
    ear = stage.ear(broker, "-t", BASE + "at/response")
    ask(broker, "one")
    assert ear.hear("at/response", id="one")["state"] == "ok", "it holds up nobody"
    assert daemon.stop() == 0
    broker.stop()
    rules.write_text("topic readwrite #\n")
    broker.restart()
    later = stage.ear(broker)
    daemon.start()
    until(lambda: len(told(numbered(later))) == 20, "what was set aside")
    until(lambda: (c := daemon.status()["ledger"])["aside"] == c["outbox"] == 0, "nothing left")
    check_numbers(numbered(later))
