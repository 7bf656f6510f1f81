# SPDX-License-Identifier: Apache-2.0
"""What goes wrong around MQTT: broker away, broker that refuses, daemon killed."""

import json
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.scenarios.conftest import Stage
from tests.scenarios.players import BASE, Broker, Caller, Daemon, Ear, Module, until


def scene(stage: Stage) -> tuple[Module, Broker, Ear, Daemon]:
    module, broker = stage.module(), stage.broker()
    ear = stage.ear(broker)
    return module, broker, ear, stage.daemon(module, broker).start()


def ask(broker: Broker, id_: str, cmd: str) -> None:
    broker.publish("at/request", json.dumps({"id": id_, "cmd": cmd}))


def test_a_kill_is_told_by_the_will_and_a_stop_by_the_daemon(stage: Stage) -> None:
    _, _, ear, daemon = scene(stage)
    first = ear.hear("status", state="online")["session"]
    daemon.kill()
    assert ear.hear("status", state="offline", session=first)["reason"] == "connection lost"
    daemon.start()
    second = until(lambda: [r for r in ear.records("status", state="online") if r["session"] != first], "birth")[0]
    assert daemon.stop() == 0
    assert ear.hear("status", state="offline", session=second["session"])["reason"] == "stopped"
    assert [record["state"] for record in ear.records("status")] == ["online", "offline"] * 2


def test_the_last_status_is_retained(stage: Stage) -> None:
    _, broker, _, daemon = scene(stage)
    assert daemon.stop() == 0
    late = stage.ear(broker)
    assert late.hear("status")["state"] == "offline"
    assert [message.retained for message in late.messages if message.topic == "status"] == [True]


def test_killed_with_a_request_sent(stage: Stage) -> None:
    """REQ-9: its fate is unknown, the asker is told so, and it is never run again."""
    module, broker, ear, daemon = scene(stage)
    module.ask("late", command="AT+CIMI", seconds=1.0)
    ask(broker, "sent", "AT+CIMI")
    until(lambda: module.count("AT+CIMI"), "the command at the module")
    daemon.kill()
    daemon.start()
    lost = ear.hear("at/response", id="sent")
    assert (lost["state"], lost["final"], lost["lines"]) == ("lost", None, [])
    assert ear.hear("event/response", id="sent")["rid"] == lost["rid"] == ear.hear("event/command", id="sent")["rid"]
    ask(broker, "sent", "AT+CIMI")
    again = until(lambda: ear.records("at/response", id="sent")[1:], "the answer from the record")[0]
    assert (again["state"], again["rid"]) == ("lost", lost["rid"])
    assert module.count("AT+CIMI") == 1


def test_killed_with_a_request_recorded(stage: Stage) -> None:
    """REQ-9: what was acknowledged and not sent is run after the restart, once."""
    module, broker, ear, daemon = scene(stage)
    module.ask("late", command="AT#CGMI", seconds=1.0)
    ask(broker, "first", "AT#CGMI")
    until(lambda: module.count("AT#CGMI"), "the first command at the module")
    ask(broker, "second", "AT+CIMI")
    until(lambda: daemon.status()["ledger"]["requests"] == 2, "the second request's record")
    daemon.kill()
    assert module.count("AT+CIMI") == 0
    daemon.start()
    assert ear.hear("at/response", id="first")["state"] == "lost"
    assert ear.hear("at/response", id="second")["state"] == "ok"
    assert ear.hear("event/response", id="second")["rid"] == ear.hear("at/response", id="second")["rid"]
    assert module.count("AT+CIMI") == 1


def test_seq_goes_on_over_restarts(stage: Stage) -> None:
    module, broker, ear, daemon = scene(stage)
    for number, end in enumerate((daemon.stop, daemon.kill, daemon.stop)):
        ask(broker, f"r{number}", "AT+GMI")
        ear.hear("at/response", id=f"r{number}")
        end()
        daemon.start()
    records = [m.record for m in ear.messages if m.topic.startswith(("event/", "at/response"))]
    by_number = {record["seq"]: (record["rid"], record["state"]) for record in records if "rid" in record}
    # At least once: one that was not acknowledged before the end comes again, as the same record with the same number.
    assert len({(record["rid"], record["state"]) for record in records}) <= len(by_number)
    last = 0
    for number in dict.fromkeys(record["seq"] for record in records):
        assert number > last
        last = number
    assert len({record["session"] for record in records}) == 3
    assert module.count("AT+GMI") == 3


def test_the_mirror_of_what_ran_while_the_broker_was_away(stage: Stage) -> None:
    """MQ-5 and MQ-4: nobody waited for it, and it comes later, in order and whole."""
    _, broker, _, daemon = scene(stage)
    broker.stop()
    daemon.heard("broker away")
    commands = [("AT+GMI", "AT#CGMI", "AT")[n % 3] for n in range(300)]
    begun = time.monotonic()
    with Caller(daemon.tcp) as caller:
        for command in commands:
            caller.ask(command.encode() + b"\r")
    assert time.monotonic() - begun < 10
    broker.restart()
    ear = stage.ear(broker)
    until(lambda: len(ear.records("event/response", door="tcp")) >= 300, "the whole mirror", 30)
    for topic, state in (("event/command", "accepted"), ("event/response", "ok")):
        records = ear.records(topic, door="tcp")
        assert [record["cmd"] for record in records] == commands
        assert {record["state"] for record in records} == {state}
        assert [record["seq"] for record in records] == sorted(record["seq"] for record in records)
    until(lambda: daemon.status()["ledger"]["outbox"] == 0, "an empty outbox")


def test_a_broker_that_comes_back(stage: Stage) -> None:
    """The session is taken up again, and the door works as before; a crash of the broker is no different."""
    module, broker, _, daemon = scene(stage)
    for number in (signal.SIGTERM, signal.SIGKILL):
        broker.stop(number)
        until(lambda: not daemon.status()["mqtt"]["connected"], "the loss")
        broker.restart()
        until(lambda: daemon.status()["mqtt"]["connected"], "the connection")
        ear = stage.ear(broker)
        ask(broker, f"after-{number}", "AT+GMI")
        assert ear.hear("at/response", id=f"after-{number}")["state"] == "ok"
    assert module.count("AT+GMI") == 2
    assert not [entry for entry in daemon.log if entry["level"] == "error"]


def test_a_broker_that_lets_nobody_in(stage: Stage) -> None:
    broker = stage.broker(allow=False)
    daemon = stage.daemon(None, broker)
    secret = stage.folder / "mqtt-password"
    secret.write_text("hunter2-hunter2")
    secret.chmod(0o600)
    daemon.configure(mqtt={"user": "box", "password_file": str(secret)})
    daemon.begin()
    entry = daemon.heard("broker away")
    assert "refused: Not authorized" in entry["detail"]
    assert daemon.ctl("status").returncode == 0
    assert "hunter2" not in daemon.text
    begun = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_broker_that_refuses_the_subscription_and_the_mirror(stage: Stage, protocol: str) -> None:
    """What the broker refuses holds up nothing else."""
    rules = stage.folder / "acl"
    rules.write_text(f"topic readwrite {BASE}status\ntopic read {BASE}nothing\n")
    rules.chmod(0o644)
    broker = stage.broker(f"acl_file {rules}")
    module = stage.module()
    daemon = stage.daemon(module, broker)
    daemon.configure(mqtt={"protocol": protocol})
    daemon.start()
    with Caller(daemon.tcp) as caller:
        for _ in range(30):
            caller.ask(b"AT\r")
    until(lambda: daemon.status()["ledger"]["outbox"] == 0, "an empty outbox")
    assert daemon.status()["mqtt"]["connected"]
    if protocol == "5":
        assert "refused by the broker" in daemon.heard("record set aside")["detail"]
    assert daemon.stop() == 0


def test_a_stop_while_the_broker_does_not_answer(stage: Stage) -> None:
    """A connection attempt may take minutes; the stop does not wait for it."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as deaf:
        address = deaf.getsockname()
        others = [socket.socket() for _ in range(3)]
        try:
            for other in others:  # the queue is full: whoever else comes is left waiting
                other.setblocking(False)
                other.connect_ex(address)
            waiting = _dialling(address[1])
            daemon = stage.daemon()
            daemon.configure(mqtt={"enabled": True, "host": "127.0.0.1", "port": address[1], "connect_timeout": 300})
            daemon.begin()
            daemon.heard("doors open")
            until(lambda: _dialling(address[1]) > waiting, "the attempt")
            begun = time.monotonic()
            assert daemon.stop() == 0
            assert time.monotonic() - begun < 5
        finally:
            for other in others:
                other.close()


def _dialling(port: int) -> int:
    """How many connections to this port are being made: those in SYN_SENT (proc(5), /proc/net/tcp)."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    return sum(words[2].endswith(f":{port:04X}") and words[3] == "02" for words in lines)


def test_certificates_that_cannot_be_used_stop_no_other_door(stage: Stage) -> None:
    broken = stage.folder / "ca.pem"
    broken.write_text("no certificate")
    daemon = stage.daemon()
    daemon.configure(mqtt={"enabled": True, "host": "127.0.0.1", "port": 1, "tls": True, "ca_file": str(broken)})
    daemon.begin()
    assert "TLS" in daemon.heard("broker away")["detail"]
    assert daemon.ctl("status").returncode == 0
    assert daemon.stop() == 0
