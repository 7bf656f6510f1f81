# SPDX-License-Identifier: Apache-2.0
"""`atrunctl fleet`: its options and what is wrong with them, and what it prints."""

import json
import subprocess
import sys
from typing import Any

import pytest

from atrund.ctl import fleet_show
from atrund.ctl.fleet_gather import Gather, Node
from atrund.ctl.fleet_run import only_reads
from atrund.ctl.fleet_watch import line_of
from atrund.ctl.main import main

Capture = pytest.CaptureFixture[str]
RUN = ("fleet", "run", "--broker", "mqtt://localhost:1", "--nodes", "a")
EVIL = "\x1b[2J\x7f\u202e\x9b"


def test_it_starts_without_what_it_does_not_need() -> None:
    code = "import sys; from atrund.ctl.main import build; build(['fleet']); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=30)
    heavy = {"asyncio", "paho", "ssl", "json", "socket", "dataclasses", "atrund.ctl.fleet_run", "atrund.control"}
    assert set(loaded.stdout.split()) & heavy == set()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["AT", "--broker", "http://h"], "--broker: it would be mqtt://HOST[:PORT] or mqtts://HOST[:PORT]"),
        (["AT", "--broker", "mqtt://h:99999"], "--broker: it would be mqtt://HOST[:PORT]"),
        (["AT", "--broker", "mqtt://h/topic"], "--broker: it would be mqtt://HOST[:PORT]"),
        (["AT", "--broker", "mqtt://u:geheim@localhost"], "--broker: a user goes into --user"),
        (["AT", "--broker", "mqtt://192.0.2.1"], "clear text to 192.0.2.1 can be read on the way: mqtts:// would be"),
        (["AT", "--ca-file", "x"], "--ca-file is for TLS: --broker mqtts://localhost would be right"),
        (["AT", "--broker", "mqtts://h", "--key-file", "x"], "--cert-file is missing"),
        (["AT", "--broker", "mqtts://h", "--ca-file", "/nowhere"], "--ca-file: No such file or directory: /nowhere"),
        (["AT", "--password-file", "x"], "--user is missing: a password is a user's"),
        (["AT", "--user", "u", "--password-file", "/nowhere"], "--password-file: No such file or directory: /nowhere"),
        (["AT", "--prefix", "a/#"], '--prefix: it would be topic levels such as "site/atrund"'),
        (["AT", "--user", "atrund/box"], "--who: 'atrund/box' is no level of a topic"),
        (["AT", "--who", "+"], "--who: '+' is no level of a topic"),
        (["AT", "--nodes", "a/b"], "--nodes: 'a/b' names no node"),
        (["HAT+CSQ"], "the command line: a command line begins with AT"),
        (["AT+X=\x1b"], "the command line: character 0x1B at position 6"),
        (["AT", "--body-file", "/nowhere"], "--body-file: No such file or directory: /nowhere"),
        (["AT", "--body", "x" * 48_001], "--body: longer than 48000 octets"),
    ],
)
def test_what_is_wrong_is_said_before_anybody_is_asked(capsys: Capture, given: list[str], words: str) -> None:
    assert main([*RUN, *given]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"atrunctl: {words}")
    assert "geheim" not in err
    assert "\x1b" not in err


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["fleet"], "the following arguments are required: ACTION"),
        (["fleet", "run", "AT", "--nodes", "a"], "the following arguments are required: --broker"),
        (["fleet", "run", "AT", "--broker", "mqtt://h"], "the following arguments are required: --nodes"),
        ([*RUN, "AT", "--deadline", "0"], "'0' is no number of seconds from 0.1 to 86400"),
        ([*RUN, "AT", "--timeout", "x"], "'x' is no number of seconds from 1 to 3600"),
        ([*RUN, "AT", "--rate", "nan"], "'nan' is no number of requests a second from 0 to 10000"),
        ([*RUN, "AT", "--body", "a", "--body-file", "b"], "not allowed with argument --body"),
        (["fleet", "watch", "--broker", "h", "--events", "command,x"], "'x' is none of command, response"),
        (["fleet", "watch", "--broker", "h", "--share", "a/b"], "'a/b' is no name of a group: no / + # in it"),
        (["fleet", "watch", "--broker", "h", "--count", "0"], "'0' is no number of lines"),
    ],
)
def test_wrong_usage(capsys: Capture, given: list[str], words: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(given)
    assert caught.value.code == 2
    assert words in capsys.readouterr().err


def test_what_is_kept_is_kept_for_somebody(capsys: Capture) -> None:
    assert main(["fleet", "watch", "--broker", "mqtt://localhost:1", "--keep", "60"]) == 2
    assert capsys.readouterr().err.startswith("atrunctl: --client-id is missing")


@pytest.mark.parametrize(
    ("line", "reads"),
    [
        ("AT", True),
        ("ATI", True),
        ("at+csq;+cops?;#wscript=?", True),
        ("AT#CGMR", True),
        ("AT+CFUN=1", False),
        ("AT+CSQ;#REBOOT", False),
        ("AT#X", False),
        ("ATD123;", False),
        ("AT&F", False),
    ],
)
def test_what_only_reads_needs_no_question(line: str, reads: bool) -> None:  # noqa: FBT001 - a table of them
    assert only_reads(line) == reads


def gathered(**answers: dict[str, Any] | None) -> Gather:
    """Nodes of which some have answered, 0.25 s after they were asked."""
    those = Gather(dict.fromkeys(answers), run="r", deadline=10.0)
    for _ in answers:
        node = those.next_to_ask(1.0)
        assert node is not None
        those.asked(node, 1.0)
    for name, fields in answers.items():
        if fields is not None:
            those.heard(name, json.dumps({"id": those.nodes[name].id, **fields}).encode(), 1.25)
    return those


def test_the_table() -> None:
    those = gathered(
        n10={"state": "ok", "final": "OK", "lines": ["+CSQ: 14,99", "+CSQ: 15,99"]},
        n9={"state": "error", "final": "+CME ERROR: 3"},
        n1={"state": "ok", "final": "OK"},
        bad={"state": EVIL, "final": EVIL, "reason": EVIL * 20, "lines": [EVIL]},
        lost={"state": "lost"},
        mute=None,
    )
    those.give_up()
    shown = fleet_show.table(those)
    escaped = r"\x1b[2J\x7f\u202e\x9b"
    assert not any(ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0 for line in shown for character in line)
    assert [line.split() for line in shown if not line.startswith(("bad", " "))] == [
        ["NODE", "STATE", "TIME", "ANSWER"],
        ["lost", "lost", "0.2", "s"],
        ["mute", "silent", "-"],
        ["n1", "ok", "0.2", "s", "OK"],
        ["n9", "error", "0.2", "s", "+CME", "ERROR:", "3"],
        ["n10", "ok", "0.2", "s", "+CSQ:", "14,99"],
    ]
    assert shown[-1] == " " * shown[-2].index("+CSQ") + "+CSQ: 15,99"
    assert sum(line.endswith(escaped) for line in shown) == 2
    assert max(map(len, shown)) < 120, "a long reason makes no wide column"


def test_the_summary_and_the_exit_code() -> None:
    fine = gathered(a={"state": "ok"})
    assert fleet_show.summary(fine) == ["1 node: 1 ok"]
    assert fleet_show.exit_code(fine) == 0
    failed = gathered(a={"state": "ok"}, b={"state": "rejected", "reason": "clock_unset"})
    assert fleet_show.exit_code(failed) == 1
    assert fleet_show.summary(failed)[1].startswith("clock_unset: without --expires")
    silent = gathered(a={"state": "error"}, **{f"n{number}": None for number in range(20)})
    silent.heard("a", b"junk", 2.0)
    silent.refused("n0", f"Quota{EVIL}")
    silent.give_up()
    assert fleet_show.exit_code(silent) == 4
    assert fleet_show.summary(silent) == [
        "21 nodes: 19 silent, 1 error, 1 denied",
        "did not answer: n1, n2, n3, n4, n5, n6, n7, n8 and 11 more",
        "the broker took no request for them: n0",
        "why: Quota\\x1b[2J\\x7f\\u202e\\x9b",
        "1 payloads were no answer of the contract",
    ]


def test_json_of_a_node_is_one_line_that_no_terminal_obeys() -> None:
    those = gathered(a={"state": "ok", "lines": [EVIL + "\n"], EVIL: 1}, b=None)
    those.give_up()
    for node in those.nodes.values():
        assert fleet_show.as_json(node).isprintable()
        assert fleet_show.as_json(node).isascii()
    told = json.loads(fleet_show.as_json(those.nodes["a"]))
    assert (told["seconds"], told["answer"]["lines"], told["answer"][EVIL]) == (0.25, [EVIL + "\n"], 1)
    assert json.loads(fleet_show.as_json(those.nodes["b"])) == {
        "node": "b",
        "answered": False,
        "state": "silent",
        "online": None,
    }


def test_a_refusal_of_the_broker_is_in_the_json() -> None:
    node = Node("a", "id", why="Not authorized")
    assert json.loads(fleet_show.as_json(node))["why"] == "Not authorized"


HEAD = {"v": 1, "ts": "2026-11-22T08:40:00.123Z", "clock": "ok", "session": "s", "seq": 1}


@pytest.mark.parametrize(
    ("kind", "record", "shown"),
    [
        (
            "command",
            {"door": "mqtt", "peer": "alice", "cmd": "AT+CSQ", "state": "rejected", "reason": "policy"},
            "command   mqtt  alice  AT+CSQ  rejected (policy)",
        ),
        (
            "response",
            {"door": "sms", "cmd": "AT", "state": "ok", "final": "OK", "lines": ["a", "b"], "duration_ms": 7},
            "response  sms  AT  ok  7 ms  a | b | OK",
        ),
        ("session", {"door": "tcp", "peer": "192.0.2.1:4", "event": "login bad", "reason": "auth"},
         "session   tcp  192.0.2.1:4  login bad (auth)"),
        ("status", {"state": "offline", "reason": "connection lost"}, "status    offline (connection lost)"),
        ("module", {"operator": "O\x1b", "sim": None, "x": {"y": 1}}, 'module    operator=O\\x1b  x={"y": 1}'),
        ("urc", {"lines": ["+CMTI: 1\x1b"]}, 'urc       lines=["+CMTI: 1\\u001b"]'),
    ],
)  # fmt: skip
def test_a_line_of_what_happens(kind: str, record: dict[str, Any], shown: str) -> None:
    line = line_of("site7-1", kind, {**HEAD, **record}, utc=True)
    assert line == f" 08:40:00.123Z  site7-1           {shown}"


def test_a_node_without_the_time_has_ours() -> None:
    line = line_of("n", "status", {**HEAD, "clock": "unset", "state": "online"})
    assert line.startswith("~")
    assert "08:40:00.123" not in line


@pytest.mark.parametrize("kind", ["command", "response", "session", "status", "module", "sms", "urc"])
def test_records_of_any_shape_are_one_line(kind: str) -> None:
    for value in (None, 1, EVIL, [EVIL], {EVIL: EVIL}, True):
        names = ["ts", "clock", "door", "peer", "cmd", "state", "reason", "final", "lines", "duration_ms", "event"]
        line = line_of("n", kind, dict.fromkeys([*names, EVIL], value))
        assert line.isprintable()
