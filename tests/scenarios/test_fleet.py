# SPDX-License-Identifier: Apache-2.0
"""`atrunctl fleet` at a real broker: three real daemons, and nodes that are played (tests/support/nodes.py)."""

import contextlib
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from atrund.ctl.fleet_gather import OPEN, Stand
from tests.scenarios.conftest import Stage
from tests.scenarios.players import PATIENCE, ROOT, Broker, Daemon, Module, Program, until
from tests.support import contract
from tests.support.certificates import Authority
from tests.support.nodes import Nodes
from tests.support.ports import free_port

FLEET: Final = [sys.executable, "-m", "atrund.ctl.main", "fleet"]
QUICK: Final = ("--gather", "0.3", "--deadline", "1")
PROTOCOLS: Final = ("5", "3.1.1")
REAL: Final = ("real-1", "real-2", "real-3")

Done = subprocess.CompletedProcess[str]


class Node(Daemon):
    """A daemon of another name than the usual one."""

    def configure(self, **sections: Mapping[str, object]) -> None:
        super().configure(**sections)
        self.file.write_text(self.file.read_text().replace('node = "box"', f'node = "{self.folder.name}"'))


def real(stage: Stage, broker: Broker, name: str, **mqtt: object) -> tuple[Module, Node]:
    """A daemon with its module."""
    folder = stage.folder / name
    folder.mkdir()
    module = Module(folder)
    stage._stack.callback(module.program.stop, signal.SIGKILL)
    module.ask("answer", command="AT+CSQ", lines=[f"+CSQ: {name[-1]},0"], always=True)
    node = Node(folder, module, broker)
    stage._stack.callback(lambda: node.program and node.program.stop(signal.SIGKILL))
    node.configure(mqtt=mqtt)
    node.begin()
    return module, node


def play(stage: Stage, broker: Broker, *names: str, user: str = "") -> Nodes:
    nodes = Nodes(broker.port, names, user=user)
    stage._stack.callback(nodes.close)
    return nodes


def words(port: int, *given: str, action: str = "run") -> list[str]:
    return [*FLEET, action, "--broker", f"mqtt://127.0.0.1:{port}", *given]


def environ() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


def fleet(broker: Broker | int, *given: str, answer: str | None = None) -> Done:
    """Run `atrunctl fleet run` to its end."""
    port = broker if isinstance(broker, int) else broker.port
    done = subprocess.run(
        words(port, *given), input=answer, capture_output=True, text=True, timeout=PATIENCE, check=False, env=environ()
    )
    assert "\x1b" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def table(done: Done) -> dict[str, list[str]]:
    """The table by node: state and answer, further lines of it behind."""
    found: dict[str, list[str]] = {}
    head, *rows = done.stdout.splitlines()
    assert head.split() == ["NODE", "STATE", "TIME", "ANSWER"]
    name = ""
    for row in rows:
        if row.startswith(" "):
            found[name].append(row.strip())
        else:
            name, state, _, *answer = re.split(r" {2,}", row)
            found[name] = [state, *(answer or [""])]
    return found


def told(done: Done) -> dict[str, dict[str, Any]]:
    """The lines of JSON by node."""
    every = [json.loads(line) for line in done.stdout.splitlines()]
    assert len({line["node"] for line in every}) == len(every)
    return {line["node"]: line for line in every}


@pytest.fixture(scope="module")
def broker(shared_stage: Stage) -> Broker:
    return shared_stage.broker()


@pytest.fixture(scope="module")
def played(shared_stage: Stage, broker: Broker) -> Nodes:
    names = [f"site7-{number}" for number in range(1, 12)]
    odd = [f"odd-{kind}" for kind in ("silent", "error", "odd", "evil", "junk", "twice")]
    nodes = play(shared_stage, broker, *names, *odd)
    nodes.status("site7-11", "offline")
    return nodes


@pytest.fixture(scope="module")
def daemons(shared_stage: Stage, broker: Broker) -> dict[str, tuple[Module, Node]]:
    every = {name: real(shared_stage, broker, name) for name in REAL}
    for _, node in every.values():
        until(node._ready, f"readiness: {node.text[-3000:]}")
    return every


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_real_daemons_all_answer(broker: Broker, daemons: dict[str, tuple[Module, Node]], protocol: str) -> None:
    before = {name: module.count("AT+CSQ") for name, (module, _) in daemons.items()}
    done = fleet(broker, "--nodes", "real-*", *QUICK, "--deadline", "10", "--protocol", protocol, "AT+CSQ")
    assert (done.returncode, done.stderr) == (0, "3 nodes: 3 ok\n")
    assert table(done) == {name: ["ok", f"+CSQ: {name[-1]},0"] for name in REAL}
    after = {name: module.count("AT+CSQ") for name, (module, _) in daemons.items()}
    assert after == {name: count + 1 for name, count in before.items()}


@pytest.mark.usefixtures("daemons")
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_json_has_the_answers_as_they_came(broker: Broker, protocol: str, tmp_path: Path) -> None:
    file = tmp_path / "nodes"
    file.write_text("real-1\nreal-2 # and no more\n")
    given = ("--nodes", f"@{file}", "--who", "alice", "--json", "--protocol", protocol)
    found = told(fleet(broker, *given, "AT+GMI"))
    assert set(found) == {"real-1", "real-2"}
    for line in found.values():
        answer = line.pop("answer")
        contract.check("at/response", json.dumps(answer).encode())
        assert (answer["peer"], answer["cmd"], answer["state"], answer["final"]) == ("alice", "AT+GMI", "ok", "OK")
        assert (line.pop("answered"), line.pop("state"), line.pop("late")) == (True, "ok", False)
        assert 0 < line.pop("seconds") < 10
        assert line.keys() == {"node"}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_error_and_a_refusal_exit_with_1(
    broker: Broker, daemons: dict[str, tuple[Module, Node]], protocol: str
) -> None:
    daemons["real-2"][0].ask("answer", command="AT+CEER", lines=[], result="+CME ERROR: 3")
    done = fleet(broker, "--nodes", "real-2", "--protocol", protocol, "AT+CEER")
    assert (done.returncode, table(done)) == (1, {"real-2": ["error", "+CME ERROR: 3"]})
    done = fleet(broker, "--nodes", "real-*", "--gather", "0.3", "--yes", "--protocol", protocol, "AT+CFUN=0")
    assert (done.returncode, done.stderr) == (1, "3 nodes: 3 rejected\n")
    assert {row[0] for row in table(done).values()} == {"rejected (policy)"}
    assert not any(module.count("AT+CFUN=0") for module, _ in daemons.values())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_all_kinds_of_nodes(broker: Broker, played: Nodes, protocol: str) -> None:
    played.requests.clear()
    given = ("--nodes", "site7-*", "--nodes", "odd-*", "--nodes", "ghost", *QUICK, "--protocol", protocol)
    done = fleet(broker, *given, "AT+CSQ")
    assert done.returncode == 4
    rows = table(done)
    assert list(rows)[-11:] == [f"site7-{number}" for number in range(1, 12)], "9 stands before 10"
    assert all(rows[f"site7-{number}"] == ["ok", "+CSQ: 14,99"] for number in range(1, 11))
    assert rows["site7-11"] == ["offline", ""]
    assert played.asked("site7-11") == []
    assert rows["odd-error"] == ["error", "+CME ERROR: 3"]
    assert rows["odd-odd"][0] == "marvellous"
    assert rows["odd-twice"] == ["ok", "+CSQ: 14,99"]
    assert rows["odd-evil"][1:] == [r"\x1b]0;owned\x07\x1b[2J\u202e"] * 2
    # MQTT 5 tells at once that nobody takes it; in 3.1.1 it is like any other silence.
    assert rows["ghost"][0] == ("absent" if protocol == "5" else "silent")
    silent = ("" if protocol == "5" else "ghost, ") + "odd-junk, odd-silent"
    assert f"\ndid not answer: {silent}\n" in done.stderr
    assert "not asked, for their status is offline: site7-11\n" in done.stderr
    assert "3 payloads were no answer of the contract" in done.stderr


@pytest.mark.usefixtures("played")
def test_all_kinds_of_nodes_as_json(broker: Broker) -> None:
    done = fleet(broker, "--nodes", "odd-*", "--nodes", "site7-11", "--nodes", "ghost", *QUICK, "--json", "AT+CSQ")
    assert done.returncode == 4
    found = told(done)
    assert {name: line["state"] for name, line in found.items() if not line["answered"]} == {
        "odd-silent": "silent",
        "odd-junk": "silent",
        "ghost": "absent",
    }
    assert found["site7-11"]["state"] == "ok", "whoever is named is asked in any case"
    assert found["odd-silent"]["online"] is True
    assert found["ghost"]["online"] is None
    assert json.loads(done.stdout.splitlines()[0])["answered"], "answers come first"


def test_requests_are_those_of_the_contract(broker: Broker, played: Nodes) -> None:
    def request(*given: str) -> tuple[dict[str, Any], str, int | None]:
        for noted in (played.requests, played.topics, played.expiries):
            noted.clear()
        assert fleet(broker, "--nodes", "site7-1", *given).returncode == 0
        ((_, asked),) = played.requests
        assert not list(contract.published("at/request").iter_errors(asked))
        return asked, played.topics[0], played.expiries[0]

    asked, topic, expiry = request("AT+CSQ")
    assert topic == "atrund/site7-1/at/request"
    assert (asked["cmd"], asked["timeout_ms"], expiry) == ("AT+CSQ", 55_000, 60)
    assert re.fullmatch(r"atrund/site7-1/at/response/[0-9a-f]{32}", asked["reply_to"])
    assert asked.keys() == {"v", "id", "cmd", "timeout_ms", "reply_to"}
    asked, topic, expiry = request("AT", "--user", "bob", "--deadline", "7.5", "--timeout", "3", "--expires", "20")
    assert (topic, asked["reply_to"]) == ("atrund/site7-1/at/request/bob", "atrund/site7-1/at/response/bob")
    assert (asked["timeout_ms"], expiry) == (3000, 20)
    asked, _, expiry = request("AT", "--expires", "0")
    assert (expiry, "expires" in asked) == (None, False)
    asked, _, expiry = request("AT", "--protocol", "3.1.1")
    assert (expiry, "expires" in asked) == (None, False)
    asked, _, expiry = request("AT", "--protocol", "3.1.1", "--expires", "60")
    assert expiry is None
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d\d\dZ", asked["expires"])
    asked, _, _ = request('AT+CMGS="1"', "--body", "héllo")
    assert asked["body"] == "héllo"


def test_a_file_as_the_body(broker: Broker, played: Nodes, tmp_path: Path) -> None:
    file = tmp_path / "script"
    file.write_bytes(b"\x00\xffprint 1")
    played.requests.clear()
    given = ("--nodes", "site7-1", "--body-file", str(file), "--yes")
    assert fleet(broker, *given, 'AT#WSCRIPT="a",9').returncode == 0
    assert played.requests[0][1]["body_b64"] == "AP9wcmludCAx"
    file.write_bytes(b"x" * 48_001)
    done = fleet(broker, *given, 'AT#WSCRIPT="a",48001')
    assert (done.returncode, "longer than 48000 octets" in done.stderr) == (2, True)


@pytest.mark.usefixtures("played")
def test_nobody_is_called_so(broker: Broker, stage: Stage) -> None:
    done = fleet(broker, "--nodes", "site9-*", "--gather", "0.3", "AT")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no node's name fits site9-*; there are odd-error, odd-evil, odd-junk" in done.stderr
    assert re.search(r" and \d+ more\n", done.stderr)
    done = fleet(stage.broker(), "--nodes", "site9-*", "--gather", "0.3", "AT")
    assert done.returncode == 2
    assert "the broker shows no atrund/+/status at all" in done.stderr


def test_a_node_that_is_offline_runs_nothing_later(stage: Stage) -> None:
    """With the broker's session kept for it, the request waits there no longer than for its deadline."""
    broker = stage.broker()
    module, node = real(stage, broker, "real-1")
    until(node._ready, "readiness")
    assert node.stop() == 0
    done = fleet(broker, "--nodes", "real-*", *QUICK, "AT+CSQ")
    assert (done.returncode, table(done)) == (4, {"real-1": ["offline", ""]})
    for asking in (("--nodes", "real-1"), ("--nodes", "real-*", "--ask-offline")):
        done = fleet(broker, *asking, *QUICK, "AT+CSQ")
        assert (done.returncode, table(done)) == (4, {"real-1": ["silent", "its status is offline"]})
    time.sleep(1.2)
    node.begin()
    until(node._ready, "readiness")
    done = fleet(broker, "--nodes", "real-1", "AT+GMI")
    assert done.returncode == 0
    assert module.count("AT+CSQ") == 0


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_node_that_takes_no_commands_says_so(stage: Stage, protocol: str) -> None:
    broker = stage.broker()
    _, node = real(stage, broker, "deaf-1", remote_at=False)
    until(node._ready, "readiness")
    done = fleet(broker, "--nodes", "deaf-1", "--protocol", protocol, "--json", "AT+CSQ")
    assert done.returncode == 1, done.stderr
    assert told(done)["deaf-1"]["answer"]["reason"] == "policy", done.stdout
    shown = fleet(broker, "--nodes", "deaf-1", "--protocol", protocol, "AT+CSQ")
    assert table(shown)["deaf-1"] == ["rejected (policy)", "mqtt.remote_at is off"]


def test_the_broker_cannot_be_reached() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        done = fleet(nobody.getsockname()[1], "--nodes", "a", "AT")
    assert done.returncode == 3
    assert re.fullmatch(r"atrunctl: no connection to 127\.0\.0\.1 port \d+: Connection refused\n", done.stderr)
    done = subprocess.run(
        [*FLEET, "run", "--broker", "mqtt://no.such.invalid", "--insecure", "--nodes", "a", "AT"],
        capture_output=True, text=True, timeout=PATIENCE, check=False, env=environ(),
    )  # fmt: skip
    assert (done.returncode, "no connection to no.such.invalid port 1883" in done.stderr) == (3, True)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_wrong_password(stage: Stage, protocol: str) -> None:
    passwords = stage.folder / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", passwords, "alice", "right"], check=True, capture_output=True)
    passwords.chmod(0o644)
    broker = stage.broker(f"password_file {passwords}", allow=False)
    secret = stage.folder / "secret"
    given = ("--nodes", "a", "--user", "alice", "--password-file", str(secret), "--deadline", "0.5")
    secret.write_text("wrong-7731")
    done = fleet(broker, *given, "--protocol", protocol, "AT")
    assert done.returncode == 3
    assert "lets this user not in: Not authorized" in done.stderr
    assert "wrong-7731" not in done.stderr
    secret.write_text("right\n")
    assert fleet(broker, *given, "--protocol", protocol, "AT").returncode == 4


@pytest.fixture
def guarded(stage: Stage) -> Broker:
    """A broker with the access control that is shipped, and somebody who may do all, to play the nodes."""
    rules = stage.folder / "acl"
    rules.write_text((ROOT / "etc" / "mosquitto" / "atrund.acl").read_text() + "\nuser everything\ntopic readwrite #\n")
    rules.chmod(0o644)
    return stage.broker(f"acl_file {rules}")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_shipped_access_control_lets_an_asker_ask(stage: Stage, guarded: Broker, protocol: str) -> None:
    nodes = play(stage, guarded, "site7-1", "site7-2", user="everything")
    common = (*QUICK, "--protocol", protocol)
    done = fleet(guarded, "--user", "alice", "--nodes", "site7-1", "--nodes", "site7-2", *common, "AT")
    assert (done.returncode, set(nodes.topics)) == (0, {f"atrund/site7-{n}/at/request/alice" for n in (1, 2)})
    done = fleet(guarded, "--user", "alice", "--nodes", "site7-*", *common, "AT")
    assert (done.returncode, "may this user read that?" in done.stderr) == (2, True)
    done = fleet(guarded, "--user", "fleet", "--nodes", "site7-*", *common, "AT")
    assert (done.returncode, done.stderr) == (0, "2 nodes: 2 ok\n")


def test_what_the_access_control_forbids_is_said(stage: Stage, guarded: Broker) -> None:
    nodes = play(stage, guarded, "site7-1", user="everything")
    given = ("--user", "alice", "--who", "mallory", "--nodes", "site7-1", *QUICK)
    done = fleet(guarded, *given, "AT")
    assert (done.returncode, table(done)) == (4, {"site7-1": ["denied", "Not authorized"]})
    assert "the broker took no request for them: site7-1\nwhy: Not authorized\n" in done.stderr
    hint = "may this user write atrund/+/at/request/mallory and read atrund/+/at/response/mallory?"
    done = fleet(guarded, *given, "--protocol", "3.1.1", "AT")
    assert (done.returncode, table(done)) == (4, {"site7-1": ["silent", ""]})
    assert f"nobody answered at all: {hint}" in done.stderr
    assert nodes.requests == []


def test_tls_with_a_certificate_of_ours(stage: Stage) -> None:
    authority, stranger = Authority(stage.folder), Authority(stage.folder, "stranger")
    server, ours = authority.issue("server", "IP:127.0.0.1"), authority.issue("alice")
    for path in (authority.file, *server):
        path.chmod(0o644)
    broker = stage.broker(
        f"cafile {authority.file}", f"certfile {server.certificate}", f"keyfile {server.key}",
        "require_certificate true",
    )  # fmt: skip

    def run(*given: str) -> Done:
        command = [*FLEET, "run", "--broker", f"mqtts://127.0.0.1:{broker.port}", "--nodes", "a", "AT", *given]
        command += ["--deadline", "0.5"]
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False, env=environ())

    pair = ("--cert-file", str(ours.certificate), "--key-file", str(ours.key))
    done = run("--ca-file", str(authority.file), *pair)
    assert (done.returncode, table(done)["a"][0]) == (4, "absent"), done.stderr
    done = run("--ca-file", str(stranger.file), *pair)
    assert (done.returncode, "of no authority that is trusted here" in done.stderr) == (3, True)
    done = run("--ca-file", str(authority.file))
    assert (done.returncode, "no connection to" in done.stderr) == (3, True), done.stderr
    done = run("--ca-file", str(stage.folder / "nowhere"))
    assert (done.returncode, "--ca-file: No such file" in done.stderr) == (2, True)


def begin(stage: Stage, broker: Broker, *given: str, action: str = "run") -> Program:
    program = Program(words(broker.port, *given, action=action), stage.folder / f"{action}{time.monotonic_ns()}.log")
    stage._stack.callback(program.stop, signal.SIGKILL)
    return program


def test_ctrl_c_shows_what_has_come(stage: Stage) -> None:
    broker = stage.broker()
    nodes = play(stage, broker, "n-1", "n-silent", "n-slow")
    program = begin(stage, broker, "--nodes", "n-*", "--gather", "0.3", "AT+CSQ")
    until(lambda: len(nodes.requests) == 3, "all asked")
    program.process.send_signal(signal.SIGINT)
    assert program.wait() == 4
    assert re.search(r"^n-1 +ok +0\.\d s  \+CSQ: 14,99$", program.text, re.MULTILINE)
    assert "3 nodes: 2 silent, 1 ok\ndid not answer: n-silent, n-slow\n" in program.text
    assert "Traceback" not in program.text


def test_ctrl_c_says_who_was_not_asked(stage: Stage) -> None:
    broker = stage.broker()
    nodes = play(stage, broker, "n-silent", "o-silent")
    program = begin(stage, broker, "--nodes", "*-silent", "--gather", "0.3", "--rate", "0.01", "--json", "AT")
    until(lambda: nodes.requests, "the first asked")
    program.process.send_signal(signal.SIGINT)
    assert program.wait() == 4
    assert [json.loads(line)["state"] for line in program.text.splitlines()[:2]] == ["silent", "not_asked"]
    assert "not asked any more: o-silent\n" in program.text
    assert "nobody answered" not in program.text


def test_ctrl_c_may_have_the_nodes_give_it_up(stage: Stage) -> None:
    broker = stage.broker()
    nodes = play(stage, broker, "n-1", "n-slow", "o-slow")
    program = begin(stage, broker, "--nodes", "*", "--gather", "0.3", "--cancel", "--who", "alice", "AT+COPS=?")
    until(lambda: len(nodes.requests) == 3, "all asked")
    program.process.send_signal(signal.SIGINT)
    assert program.wait() == 1
    cancels = {topic for topic in nodes.topics if "cancel" in topic}
    assert cancels == {f"atrund/{name}/at/cancel/alice" for name in ("n-slow", "o-slow")}
    assert "having 2 nodes give the command up" in program.text
    assert "3 nodes: 2 cancelled, 1 ok\n" in program.text


def test_a_second_ctrl_c_does_not_wait_for_that(stage: Stage) -> None:
    broker = stage.broker()
    nodes = play(stage, broker, "n-silent")
    program = begin(stage, broker, "--nodes", "n-silent", "--cancel", "AT+COPS=?")
    until(lambda: nodes.requests, "it is asked")
    nodes.close()
    program.process.send_signal(signal.SIGINT)
    until(lambda: program.said("give the command up"), "the first")
    program.process.send_signal(signal.SIGINT)
    assert program.wait(5) == 4


def test_a_real_command_is_given_up(broker: Broker, daemons: dict[str, tuple[Module, Node]], stage: Stage) -> None:
    daemons["real-3"][0].ask("late", command="AT+COPS=?", seconds=30.0)
    program = begin(stage, broker, "--nodes", "real-3", "--cancel", "AT+COPS=?")
    until(lambda: daemons["real-3"][0].count("AT+COPS=?"), "the command at the module")
    program.process.send_signal(signal.SIGINT)
    assert program.wait() == 1
    assert "1 node: 1 cancelled\n" in program.text


def test_the_broker_is_restarted_in_the_middle(stage: Stage) -> None:
    """The same request is sent again under the same id; a real daemon runs it once all the same."""
    broker = stage.broker()
    module, node = real(stage, broker, "real-1")
    nodes = play(stage, broker, "n-slow")
    until(node._ready, "readiness")
    module.ask("late", command="AT+CIMI", seconds=2.0)
    program = begin(stage, broker, "--nodes", "real-1", "--nodes", "n-slow", "AT+CIMI")
    until(lambda: module.count("AT+CIMI") and nodes.requests, "it is asked")
    broker.stop(signal.SIGKILL)
    until(lambda: program.said("connection was lost.*; trying again"), "the loss")
    broker.restart()
    until(lambda: len(nodes.requests) == 2, "it is asked again")
    first, again = nodes.asked("n-slow")
    assert first == again
    nodes.finish()
    assert program.wait() == 0, program.text
    assert "2 nodes: 2 ok\n" in program.text
    assert module.count("AT+CIMI") == 1


def test_the_broker_does_not_come_back(stage: Stage) -> None:
    broker = stage.broker()
    nodes = play(stage, broker, "n-silent")
    program = begin(stage, broker, "--nodes", "n-silent", "--deadline", "2", "AT")
    until(lambda: nodes.requests, "it is asked")
    broker.stop(signal.SIGKILL)
    assert program.wait() == 4
    assert program.text.count("trying again") == 1
    assert "did not answer: n-silent\n" in program.text


def test_another_of_the_same_name_is_seen(stage: Stage) -> None:
    broker = stage.broker()
    nodes = play(stage, broker, "n-silent")
    program = begin(stage, broker, "--nodes", "n-silent", "--client-id", "alice", "--deadline", "6", "AT")
    until(lambda: nodes.requests, "it is asked")
    other = ["mosquitto_sub", "-h", "127.0.0.1", "-p", str(broker.port), "-i", "alice", "-t", "x"]
    stage._stack.callback(Program(other, stage.folder / "other.log").stop, signal.SIGKILL)
    assert program.wait() == 4
    assert program.text.count("is there another client of the same user, or with the same --client-id?") == 1


class Terminal:
    """`atrunctl fleet` with a terminal."""

    def __init__(self, *command: str) -> None:
        self.text = ""
        self._pid, self._descriptor = pty.fork()
        if not self._pid:  # pragma: no cover - the child
            os.execvpe(command[0], list(command), {**environ(), "TERM": "xterm"})  # noqa: S606 - with a terminal

    def hear(self, pattern: str) -> None:
        def look() -> bool:
            if select.select([self._descriptor], [], [], 0)[0]:
                with contextlib.suppress(OSError):
                    self.text += os.read(self._descriptor, 65536).decode()
            return re.search(pattern, self.text) is not None

        until(look, f"{pattern} in {self.text}")

    def say(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    def end(self) -> int:
        with contextlib.suppress(OSError):
            while piece := os.read(self._descriptor, 65536):
                self.text += piece.decode()
        _, status = os.waitpid(self._pid, 0)
        os.close(self._descriptor)
        return os.waitstatus_to_exitcode(status)


def test_a_question_before_something_changes(broker: Broker, played: Nodes) -> None:
    played.requests.clear()
    asking = words(broker.port, "--nodes", "site7-[12]", "--nodes", "site7-3", *QUICK, "AT#X=1")
    for answer, code, count in (("n\n", 2, 0), ("\n", 2, 0), ("y\n", 0, 3)):
        person = Terminal(*asking)
        person.hear(r"AT#X=1 may change something at 3 nodes \(site7-1, site7-2, site7-3\)\.\s+Go on\? \[y/N\] $")
        person.say(answer)
        assert person.end() == code
        assert len(played.requests) == count
    done = fleet(broker, "--nodes", "site7-[12]", *QUICK, "AT#X=1", answer="y\n")
    assert (done.returncode, "no terminal to ask at; --yes would be right" in done.stderr) == (2, True)
    assert len(played.requests) == 3
    for given in (("--nodes", "site7-[12]", "--yes", "AT#X=1"), ("--nodes", "site7-1", "AT#X=1")):
        assert fleet(broker, *given, *QUICK).returncode == 0


@pytest.mark.usefixtures("played")
def test_progress_is_shown_on_a_terminal(broker: Broker) -> None:
    person = Terminal(*words(broker.port, "--nodes", "odd-*", *QUICK, "AT+CSQ"))
    person.hear(r"\r\x1b\[K4 of 6 answered, 3 not ok, 2 asked")
    assert person.end() == 4
    assert "\r\x1b[KNODE" in person.text, "the line of progress is gone before the table"


def test_a_rate_is_kept(broker: Broker, played: Nodes) -> None:
    played.requests.clear()
    begun = time.monotonic()
    done = fleet(broker, "--nodes", "site7-?", *QUICK, "--rate", "10", "AT")
    assert (done.returncode, len(played.requests)) == (0, 9)
    assert time.monotonic() - begun > 0.3 + 0.7


# ---- watching


def seen(program: Program) -> list[str]:
    return program.text.splitlines()


def watch(stage: Stage, broker: Broker, *given: str) -> Program:
    return begin(stage, broker, *given, action="watch")


def poke(nodes: Nodes, program: Program, name: str, until_seen: str) -> None:
    """Have something happen over and over until the watcher has begun to see."""

    def look() -> bool:
        nodes.say(f"{name}/event/session", json.dumps({"v": 1, "event": "poke", "door": "tcp", "peer": "p"}))
        return until_seen in program.text

    until(look, "the watcher sees")


@pytest.mark.usefixtures("daemons")
def test_watching_real_commands(broker: Broker, played: Nodes, stage: Stage) -> None:
    program = watch(stage, broker, "--nodes", "real-*", "--nodes", "odd-silent")
    poke(played, program, "odd-silent", "poke")
    assert fleet(broker, "--nodes", "real-[12]", "--gather", "0.3", "--user", "alice", "AT+CSQ").returncode == 0
    shape = r"^[ ~]\d\d:\d\d:\d\d\.\d\d\d[+-]\d\d:\d\d  {}            {:8}  mqtt  alice  AT\+CSQ  {}$"
    for name in ("real-1", "real-2"):
        until(lambda name=name: program.said(shape.format(name, "command", "accepted")), "the command")  # type: ignore[misc]
        ended = rf"ok  \d+ ms  \+CSQ: {name[-1]},0 \| OK"
        until(lambda name=name, ended=ended: program.said(shape.format(name, "response", ended)), "the response")  # type: ignore[misc]
    program.process.send_signal(signal.SIGINT)
    assert program.wait() == 0
    assert not [line for line in seen(program) if " real-3 " in line]


def test_watching_some_kinds_as_json(broker: Broker, played: Nodes, stage: Stage) -> None:
    program = watch(stage, broker, "--events", "session,status", "--json", "--nodes", "site7-1")
    poke(played, program, "site7-1", "poke")
    played.say("site7-2/status", '{"state":"online"}')
    played.say("site7-1/event/command", "{}")
    played.say("site7-1/event/session", b"\xff\x1b[2J")
    played.status("site7-1", "offline")
    played.status("site7-1", "online")
    until(lambda: program.said('"state":"online"'), "the last of it")
    lines = [json.loads(line) for line in seen(program)]
    assert {line["node"] for line in lines} == {"site7-1"}
    rest = [line for line in lines if (line["record"] or {}).get("event") != "poke"]
    assert rest[0] == {"node": "site7-1", "topic": "event/session", "record": None, "raw_b64": "/xtbMko="}
    assert [(line["topic"], line["record"]["state"]) for line in rest[1:]] == [
        ("status", "offline"),
        ("status", "online"),
    ]


def test_what_is_watched_cannot_steer_the_terminal(broker: Broker, played: Nodes, stage: Stage) -> None:
    program = watch(stage, broker, "--nodes", "site7-1", "--events", "session,module,command")
    poke(played, program, "site7-1", "poke")
    evil = {"ts": "\x1b[2J" * 9, "clock": "ok", "door": "\x07", "peer": "\u202e", "event": "\x1b[2J", "cmd": ["\x1b"]}
    for topic in ("event/session", "event/command", "module/state"):
        played.say(f"site7-1/{topic}", json.dumps(evil))
    played.say("site7-1/event/session", b"\x1b[2J\xff")
    until(lambda: program.said("no record"), "the last of it")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", program.text)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_watcher_comes_back(stage: Stage, protocol: str) -> None:
    broker = stage.broker()
    nodes = play(stage, broker, "n-1")
    program = watch(stage, broker, "--protocol", protocol)
    poke(nodes, program, "n-1", "poke")
    broker.stop()
    until(lambda: program.said("connection was lost.*; trying again"), "the loss")
    before = len(seen(program))
    broker.restart()

    def has_more() -> bool:
        nodes.say("n-1/event/session", "{}")
        return len(seen(program)) > before

    until(has_more, "more")
    program.process.send_signal(signal.SIGINT)
    assert program.wait() == 0


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_watcher_that_was_away_sees_what_was_kept(stage: Stage, protocol: str) -> None:
    broker = stage.broker()
    nodes = play(stage, broker, "n-1")
    given = ("--protocol", protocol, "--client-id", "archive", "--keep", "600", "--events", "session")
    program = watch(stage, broker, *given)
    poke(nodes, program, "n-1", "poke")
    program.process.send_signal(signal.SIGKILL)
    program.wait()
    for number in range(30):
        nodes.say("n-1/event/session", json.dumps({"event": f"number {number}"}))
    again = watch(stage, broker, *given)
    until(lambda: again.said("number 29"), "what was kept")
    assert re.findall(r"number (\d+)", again.text) == [str(number) for number in range(30)]


def test_a_share_splits_the_events(stage: Stage) -> None:
    broker = stage.broker()
    nodes = play(stage, broker, "n-1")
    watchers = [watch(stage, broker, "--share", "archive", "--events", "session", "--json") for _ in range(2)]
    for watcher in watchers:
        poke(nodes, watcher, "n-1", "poke")
    for number in range(40):
        nodes.say("n-1/event/session", json.dumps({"event": f"number {number}"}))

    def numbers(program: Program) -> set[str]:
        return set(re.findall(r"number \d+", program.text))

    until(lambda: len(numbers(watchers[0]) | numbers(watchers[1])) == 40, "all of them")
    one, other = (numbers(watcher) for watcher in watchers)
    assert one
    assert other
    assert not one & other


def test_watching_ends_by_count_and_refuses_a_share_in_3_1_1(stage: Stage) -> None:
    broker = stage.broker()
    nodes = play(stage, broker, "n-1")
    program = watch(stage, broker, "--count", "2")

    def ended() -> bool:
        nodes.say("n-1/event/session", "{}")
        return program.process.poll() is not None

    until(ended, "the end")
    assert (program.process.returncode, len(seen(program))) == (0, 2)
    refused = begin(stage, broker, "--share", "g", "--protocol", "3.1.1", action="watch")
    assert refused.wait() == 2
    assert "MQTT 3.1.1 has no shared subscriptions" in refused.text


# ---- the page


PAGE: Final = (ROOT / "docs" / "fleet-commands.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Broker, int]]:
    """A folder as the page has it, the broker, and its port for TLS."""
    folder = tmp_path_factory.mktemp("page")
    server = Authority(folder).issue("server", "DNS:localhost")
    for path in (folder / "ca.pem", *server):
        path.chmod(0o644)
    (folder / "alice.txt").write_text("secret\n")
    (folder / "atrunctl").write_text(f'#!/bin/sh\nexec {sys.executable} -m atrund.ctl.main "$@"\n')
    (folder / "atrunctl").chmod(0o755)
    port = free_port()
    broker = Broker(
        folder, f"listener {port} 127.0.0.1", f"certfile {server.certificate}", f"keyfile {server.key}"
    )  # fmt: skip
    nodes = Nodes(broker.port, ["site7-9", "site7-10", "site8-1"])
    yield folder, broker, port
    nodes.close()
    broker.stop(signal.SIGKILL)


@pytest.mark.parametrize("lines", re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL))
def test_the_examples_of_the_page(example: tuple[Path, Broker, int], lines: str) -> None:
    folder, broker, tls = example
    there = lines.replace("mqtt://localhost", f"mqtt://localhost:{broker.port}")
    there = there.replace("mqtts://broker.example", f"mqtts://localhost:{tls}")
    done = subprocess.run(
        ["timeout", "--preserve-status", "-s", "INT", "3", "bash", "-euc", there],
        cwd=folder,
        env={**environ(), "PATH": f"{folder}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    if "fleet run" in lines:
        assert re.search(r"^[23] nodes: [23] ok$", done.stderr, re.MULTILINE), done.stderr


def test_the_page_has_all_exit_codes_and_words() -> None:
    epilog = subprocess.run([*FLEET, "run", "--help"], capture_output=True, text=True, check=True, env=environ()).stdout
    for code, words in re.findall(r"^  (\d)  (.*)$", epilog, re.MULTILINE):
        assert f"| {code} | {words.partition(':')[0]} |" in PAGE
    for stand in Stand:
        assert stand in {*OPEN, Stand.ANSWERED} or f"| `{stand.value.replace(' ', '_')}` |" in PAGE
