# SPDX-License-Identifier: Apache-2.0
"""Other people's SMS from outside: kept, moved when the store is full, published and deleted (MOD-5)."""

import json

from tests.scenarios.conftest import Stage
from tests.scenarios.players import Daemon, Module, until

FRIEND, STRANGER = "+393468686711", "+393331234567"
PLANTED = "pl4nted-s3cret-1"


def lying(module: Module) -> int:
    return int(module.ask("state")["state"]["messages"]["SM"])


def log(daemon: Daemon, *options: str) -> list[dict[str, object]]:
    done = daemon.ctl("sms", "log", "--json", *options)
    assert done.returncode == 0, done.stderr
    entries: list[dict[str, object]] = json.loads(done.stdout)
    return entries


def test_a_full_store_stops_no_command_and_loses_nobodys_message(stage: Stage) -> None:
    module = stage.module("--send-delay", "0", "--sm-slots", "8")
    module.ask("sms", **{"from": STRANGER, "text": "nobody has read this yet"})
    module.ask("fill")
    module.ask("sms", **{"from": FRIEND, "text": "AT+CGMM"})  # the network keeps it: there is no place
    daemon = stage.daemon(module)
    daemon.configure(sms={"enabled": True, "numbers": [FRIEND]})
    daemon.start()
    (sent,) = until(lambda: module.ask("sent")["sent"], "the answer")
    assert sent["to"] == FRIEND
    until(lambda: lying(module) == 5, "room")
    assert [entry["text"] for entry in log(daemon) if entry["text"]] == ["filler 1", "filler 2", "filler 3"]
    (ran,) = [entry for entry in log(daemon) if entry["verdict"] == "atrun"]
    assert (ran["peer"], ran["outcome"]) == (FRIEND, "ok")
    shown = daemon.ctl("sms", "log")
    assert "    filler 1" in shown.stdout.splitlines()
    assert f"{FRIEND}  atrun  ok  id={ran['rid']}" in shown.stdout
    assert daemon.status()["sms"]["short"] == []
    assert daemon.stop() == 0


def test_what_came_is_published_once_though_broker_and_daemon_went_away(stage: Stage) -> None:
    module, broker = stage.module("--send-delay", "0"), stage.broker()
    daemon = stage.daemon(module, broker)
    daemon.configure(sms={"enabled": True, "numbers": [FRIEND], "others": "publish"})
    daemon.start()
    ear = stage.ear(broker)
    module.ask("sms", **{"from": STRANGER, "text": "hello, call +393339876543"})
    first = ear.hear("sms/received")
    assert (first["peer"], first["text"]) == ("+********4567", "hello, call +********6543")
    assert isinstance(first["seq"], int)
    until(lambda: lying(module) == 0, "the deletion")

    broker.stop()
    module.ask("sms", **{"from": STRANGER, "text": "while nobody listened"})
    until(lambda: lying(module) == 0, "the deletion")
    daemon.kill()
    broker.restart()
    ear = stage.ear(broker)
    daemon.start()
    second = ear.hear("sms/received", text="while nobody listened")
    assert second["seq"] > first["seq"]
    module.ask("sms", **{"from": FRIEND, "text": "AT+CGMM"})
    until(lambda: module.ask("sent")["sent"], "the answer")
    assert len(ear.records("sms/received")) == 1
    assert [entry["fate"] for entry in log(daemon, "--limit", "3")] == ["published", "published", ""]
    assert STRANGER not in ear.program.text
    assert daemon.stop() == 0


def test_pol_3_the_files_of_a_daemon_that_stopped_hold_no_password_of_a_command(stage: Stage) -> None:
    module = stage.module("--send-delay", "0")
    daemon = stage.daemon(module)
    daemon.configure(sms={"enabled": True, "numbers": [FRIEND]}, policy={"remote_admin": ["sms"]})
    daemon.start()
    module.ask("sms", **{"from": FRIEND, "text": f'AT#FTPOPEN="host","user","{PLANTED}"'})
    until(lambda: module.ask("sent")["sent"], "the answer")
    assert daemon.stop() == 0
    files = {path.name: PLANTED.encode() in path.read_bytes() for path in daemon.state.iterdir() if path.is_file()}
    assert files["ledger.db"] is False
    assert not any(files.values())


def test_publishing_without_a_broker_is_a_mistake(stage: Stage) -> None:
    daemon = stage.daemon()
    daemon.configure(sms={"others": "publish"})
    program = daemon.begin()
    assert program.wait() != 0
    assert (
        'sms.others: "publish" while mqtt.enabled is false; mqtt.enabled = true, or "keep" or "delete"' in daemon.text
    )
