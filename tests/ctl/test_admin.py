# SPDX-License-Identifier: Apache-2.0
"""The subcommands that administer, against a scripted daemon: what they ask, what they print, what they refuse."""

import getpass
import io
import json
import os
import stat
import sys
from pathlib import Path

import pytest

from atrund.control import AcceptedAnswer, Answer, DoneAnswer, ErrorAnswer, FinalAnswer, LineAnswer, encode
from atrund.ctl.main import main
from tests.ctl.server import Serve, Server

Capture = pytest.CaptureFixture[str]

SECRET = "pl4nted-s3cret-1"
WHITE_LIST = ['#SMSATWL: 0,"+39347"', '#SMSATWL: 1,"****************"', *["#SMSATWL: "] * 6]
USERS = ['#TCPATRUNAUTH: "operator","****"', '#TCPATRUNAUTH: "a, b","****"']
RULES = ['#TCPATRUNFRWL: "10.0.0.0","255.0.0.0"']


def ended(*lines: str, state: str = "ok", reason: str | None = None, detail: str | None = None) -> bytes:
    """What the daemon sends for one command line."""
    final = "OK" if state == "ok" else "+CME ERROR: 3"
    answers: list[Answer] = [AcceptedAnswer("r"), *map(LineAnswer, lines)]
    return b"".join(map(encode, [*answers, FinalAnswer(state, final, reason, 1, "r", detail)]))


def asked(server: Server) -> list[object]:
    return [request["cmd"] for request in server.seen if isinstance(request, dict)]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def type_in(monkeypatch: pytest.MonkeyPatch, *passwords: str) -> None:
    """Let somebody at a terminal type these when asked."""
    typed = iter(passwords)

    def ask(prompt: str) -> str:
        del prompt
        try:
            return next(typed)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(getpass, "getpass", ask)


@pytest.mark.parametrize(
    ("arguments", "there", "line", "says"),
    [
        (["whitelist", "add", "+39348*"], WHITE_LIST, 'AT#SMSATWL=0,3,0,"+39348*"', "+39348* is in place 3"),
        (["whitelist", "add", "+39348", "--slot", "7"], WHITE_LIST, 'AT#SMSATWL=0,7,0,"+39348"', "in place 7"),
        (["whitelist", "remove", "+39347"], WHITE_LIST, "AT#SMSATWL=1,1", "place 1 is free"),
        (["whitelist", "remove", "--slot", "2"], WHITE_LIST, "AT#SMSATWL=1,2", "place 2 is free"),
        (["user", "remove", "a, b"], USERS, 'AT#TCPATRUNAUTH=0,"a, b"', "a, b may not log in any more"),
        (["firewall", "add", "192.0.2.7"], RULES, 'AT#TCPATRUNFRWL=1,"192.0.2.7","255.255.255.255"', "is let in"),
        (["firewall", "add", "0.0.0.0/0"], RULES, 'AT#TCPATRUNFRWL=1,"0.0.0.0","0.0.0.0"', "is let in"),
        (["firewall", "remove", "10.0.0.0/8"], RULES, 'AT#TCPATRUNFRWL=0,"10.0.0.0","255.0.0.0"', "no longer"),
    ],
)
def test_a_change_is_a_command_of_the_family(
    serve: Serve, capsys: Capture, *, arguments: list[str], there: list[str], line: str, says: str
) -> None:
    server = serve(ended(*there), ended())
    assert main(["--socket", server.path, *arguments]) == 0
    assert asked(server)[1] == line
    assert says in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "there", "code", "says"),
    [
        (["whitelist", "add", "+39347"], WHITE_LIST, 0, ""),
        (["whitelist", "add", "+39348", "--slot", "2"], WHITE_LIST, 1, "place 2 is taken"),
        (["whitelist", "add", "+1"], WHITE_LIST[:1] * 8, 1, "all 8 places are taken: atrunctl whitelist list"),
        (["whitelist", "remove", "+1"], WHITE_LIST, 1, "+1 is not on the list"),
        (["whitelist", "remove", "--slot", "3"], WHITE_LIST, 1, "place 3 is free already"),
        (["whitelist", "list"], WHITE_LIST[:3], 3, "is not one that this atrunctl knows"),
        (["sms", "password", "set"], WHITE_LIST[1:2] * 2 + [""] * 6, 1, "--slot 1 or 2 replaces one"),
        (["user", "add", "operator"], USERS, 1, "operator may log in already: atrunctl user passwd operator"),
        (["user", "add", "x"], [*USERS, USERS[0]], 1, "all 3 logins are taken: atrunctl user list"),
        (["user", "passwd", "x"], USERS, 1, "there is no login x"),
        (["user", "remove", "x"], USERS, 1, "there is no login x"),
        (["firewall", "add", "10.0.0.0/255.0.0.0"], RULES, 0, ""),
        (["firewall", "add", "1.1.1.1"], RULES * 5, 1, "all 5 rules are taken: atrunctl firewall list"),
        (["firewall", "remove", "1.1.1.1"], RULES, 1, "there is no rule 1.1.1.1/255.255.255.255"),
        (["firewall", "list"], ["#TCPATRUNFRWL: 7"], 3, "is not one that this atrunctl knows"),
    ],
)
def test_what_needs_no_change_or_can_not_be_is_said_before(
    serve: Serve, capsys: Capture, *, arguments: list[str], there: list[str], code: int, says: str
) -> None:
    server = serve(ended(*there), b"")
    assert main(["--socket", server.path, *arguments]) == code
    assert len(asked(server)) == 1
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["whitelist", "add", "hello"],
        ["whitelist", "add", '+1",0'],
        ["user", "add", 'a"b'],
        ["user", "remove", "x" * 51],
        ["user", "passwd", "\u00e9"],
        ["user", "add", ""],
        ["explain", "--door", "sms"],
        ["explain", "--door", "tcp"],
        ["explain", "--door", "tcp", "--digest", "AT"],
        ["nvm", "export", "--secrets"],
    ],
)
def test_a_bad_value_reaches_no_daemon(tmp_path: Path, arguments: list[str]) -> None:
    assert main(["--socket", str(tmp_path / "none"), *arguments]) == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["firewall", "add", "10.0.0.0/33"], "is no IPv4 address with a prefix; 10.0.0.0/8 is"),
        (["firewall", "add", "2001:db8::/32"], "is no IPv4 address"),
        (["firewall", "add", "10.0.0.0/x"], "is no IPv4 address"),
        (["whitelist", "add", "+1", "--slot", "9"], "invalid choice: 9"),
        (["whitelist", "remove"], "is required"),
        (["user", "passwd", "operator", SECRET], "unrecognized arguments"),
        (["doors", "close"], "the following arguments are required: doors"),
        (["doors", "close", "local"], "invalid choice: 'local'"),
        (["nvm", "reset"], "the following arguments are required: KEY"),
    ],
)
def test_wrong_usage(capsys: Capture, arguments: list[str], says: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert says in capsys.readouterr().err


def test_lists(serve: Serve, capsys: Capture) -> None:
    assert main(["--socket", serve(ended(*WHITE_LIST)).path, "whitelist", "list"]) == 0
    assert capsys.readouterr().out.splitlines()[:3] == ["1  +39347", "2  (password)", "3  -"]


@pytest.mark.parametrize(
    ("what", "there", "shown", "listed"),
    [
        ("user", [*USERS, '#TCPATRUNAUTH: "\x1b[2J","****"'], "operator\na, b\n\\x1b[2J\n", ["operator", "a, b"]),
        ("firewall", RULES, "10.0.0.0/255.0.0.0\n", [{"address": "10.0.0.0", "mask": "255.0.0.0"}]),
        ("whitelist", WHITE_LIST, "1  +39347\n", [{"slot": 1, "entry": "+39347"}]),
    ],
)
def test_lists_for_people_and_programs(
    tmp_path: Path, capsys: Capture, *, what: str, there: list[str], shown: str, listed: list[object]
) -> None:
    for name, options in (("text", []), ("json", ["--json"])):
        server = Server(tmp_path / name, [ended(*there)])
        assert main(["--socket", server.path, what, "list", *options]) == 0
        server.stop()
        out = capsys.readouterr().out
        if options:
            assert json.loads(out)[: len(listed)] == listed
        else:
            assert out.startswith(shown)


@pytest.mark.parametrize(
    ("arguments", "there", "line"),
    [
        (["sms", "password", "set"], WHITE_LIST, f'AT#SMSATWL=0,3,1,"{SECRET}"'),
        (["sms", "password", "set", "--slot", "2"], WHITE_LIST, f'AT#SMSATWL=0,2,1,"{SECRET}"'),
        (["user", "add", "guest"], USERS, f'AT#TCPATRUNAUTH=1,"guest","{SECRET}"'),
        (["user", "passwd", "operator"], USERS, f'AT#TCPATRUNAUTH=1,"operator","{SECRET}"'),
    ],
)
def test_a_password_is_asked_for_twice_and_never_shown(
    serve: Serve,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    *,
    arguments: list[str],
    there: list[str],
    line: str,
) -> None:
    type_in(monkeypatch, SECRET, SECRET)
    server = serve(ended(*there), ended())
    assert main(["--socket", server.path, *arguments]) == 0
    assert asked(server)[1] == line
    shown = capsys.readouterr()
    assert SECRET not in shown.out + shown.err


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ([SECRET, SECRET + "x"], "the two are not the same"),
        ([], "no password was given"),
        (["short"] * 2, "it has 5 characters; 16 printable ones are right"),
        (['quote"quote"quot'] * 2, "a quote or other than printable ASCII"),
    ],
)
def test_a_password_that_is_none_is_not_sent(
    serve: Serve, capsys: Capture, monkeypatch: pytest.MonkeyPatch, typed: list[str], says: str
) -> None:
    type_in(monkeypatch, *typed)
    server = serve(ended(*WHITE_LIST), b"")
    assert main(["--socket", server.path, "sms", "password", "set"]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert not any(word in error for word in typed)
    assert len(asked(server)) == 1


def test_a_password_from_a_file(serve: Serve, capsys: Capture, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_bytes(SECRET.encode() + b"\r\n")
    server = serve(ended(*USERS), ended())
    assert main(["--socket", server.path, "user", "passwd", "operator", "--password-file", str(file)]) == 0
    assert asked(server)[1] == f'AT#TCPATRUNAUTH=1,"operator","{SECRET}"'
    assert SECRET not in str(capsys.readouterr())


@pytest.mark.parametrize(("content", "says"), [(None, "No such file"), (b"\xff", "is no UTF-8 text")])
def test_a_password_file_that_can_not_be_read(
    serve: Serve, capsys: Capture, tmp_path: Path, content: bytes | None, says: str
) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    arguments = ["user", "passwd", "operator", "--password-file", str(file)]
    assert main(["--socket", serve(ended(*USERS), b"").path, *arguments]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("answer", "code", "says"),
    [
        (
            ended(state="rejected", reason="locked", detail="x"),
            1,
            "atrunctl: the configuration file alone sets this (locked = true): change it there\n",
        ),
        (ended(state="rejected", reason="storage", detail="disk full"), 1, "it could not be kept: disk full"),
        (ended(state="error", reason=None), 1, "+CME ERROR: 3"),
        (encode(ErrorAnswer("running commands is for the group atrund")), 1, "is for the group atrund"),
        (encode(DoneAnswer({})), 3, "the daemon answered another question"),
        (b"{}\n", 3, "the daemon sent what this atrunctl does not know"),
        (b"", 3, "the daemon closed the connection without an answer"),
    ],
)
def test_a_command_that_fails(serve: Serve, capsys: Capture, answer: bytes, code: int, says: str) -> None:
    assert main(["--socket", serve(answer).path, "firewall", "list"]) == code
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("answer", "code", "says"),
    [
        (ErrorAnswer("no such settings", ("a: \x1b[2J", "b: no")), 1, "no such settings\n  a: \\x1b[2J\n  b: no\n"),
        (LineAnswer("x"), 3, "the daemon answered another question"),
    ],
)
def test_a_question_that_fails(serve: Serve, capsys: Capture, answer: Answer, code: int, says: str) -> None:
    assert main(["--socket", serve(encode(answer)).path, "nvm", "show"]) == code
    assert says in capsys.readouterr().err


EXPLAINED: dict[str, object] = {
    "line": "AT+CSQ",
    "door": "sms",
    "peer": "+39347",
    "decision": "allowed",
    "commands": [{"command": "+CSQ", "decision": "allowed", "rule": "default", "detail": None, "way_back": None}],
    "undo": None,
    "notes": ["the sms door is off"],
}


def test_explaining(serve: Serve, capsys: Capture) -> None:
    server = serve(encode(DoneAnswer(EXPLAINED)))
    assert main(["--socket", server.path, "explain", "--door", "sms", "--peer", "+39347", "--digest", "AT+CSQ"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "AT+CSQ through sms, asked by +39347",
        "  +CSQ: allowed by default",
        "The line would run.",
        "But: the sms door is off.",
    ]
    assert server.seen == [{"op": "explain", "door": "sms", "cmd": "AT+CSQ", "peer": "+39347", "digest": True}]


def test_explaining_to_a_program(serve: Serve, capsys: Capture) -> None:
    arguments = ["explain", "--door", "sms", "--json", "AT+CSQ"]
    assert main(["--socket", serve(encode(DoneAnswer(EXPLAINED))).path, *arguments]) == 0
    assert json.loads(capsys.readouterr().out) == EXPLAINED


def test_an_explanation_that_is_none(serve: Serve) -> None:
    assert main(["--socket", serve(encode(DoneAnswer({}))).path, "explain", "--door", "sms", "AT"]) == 3


def test_settings_aligned(serve: Serve, capsys: Capture) -> None:
    command = {"from": "command", "door": "local", "peer": "uid 0", "ts": "2026-03-01T12:00:00Z", "hides": True}
    told: dict[str, object] = {
        "settings": [
            {"key": "sms.enabled", "value": True, "from": "file"},
            {"key": "sms.whitelist.1", "value": None, **command},
        ],
        "locked": True,
        "failure": "disk full",
        "unusable": ["x: no such setting"],
    }
    server = serve(encode(DoneAnswer(told)))
    assert main(["--socket", server.path, "--utc", "nvm", "show", "sms"]) == 0
    shown = capsys.readouterr()
    assert shown.out == (
        "sms.enabled      true  file\n"
        "sms.whitelist.1  -     command: local uid 0, 2026-03-01 12:00:00.000Z, hides the file's\n"
        "locked = true: only the configuration file counts\n"
    )
    assert "what commands set is not known: disk full" in shown.err
    assert "stored, and not used: x: no such setting" in shown.err
    assert server.seen == [{"op": "settings", "keys": ["sms"]}]


def test_an_export_into_a_file_is_for_its_owner_alone(serve: Serve, capsys: Capture, tmp_path: Path) -> None:
    file = tmp_path / "export"
    file.touch(mode=0o644)
    told: dict[str, object] = {"settings": {"tcp.users.1": {"name": "a", "password": SECRET}}, "left_out": []}
    before = os.umask(0)
    try:
        assert main(["--socket", serve(encode(DoneAnswer(told))).path, "nvm", "export", "--secrets", str(file)]) == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert json.loads(file.read_text()) == {"format": "atrund settings 1", "settings": told["settings"]}
    assert "holds passwords in clear" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["export"]


@pytest.mark.parametrize("place", ["", "none/export"])
def test_an_export_that_can_not_be_written(serve: Serve, capsys: Capture, tmp_path: Path, place: str) -> None:
    told = encode(DoneAnswer({"settings": {}, "left_out": []}))
    assert main(["--socket", serve(told).path, "nvm", "export", str(tmp_path / place)]) == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_an_import_from_standard_input(serve: Serve, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    text = b'{"format": "atrund settings 1", "settings": {"sms.urc": false}}'
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    server = serve(encode(DoneAnswer({"imported": ["sms.urc"], "failed": "address in use"})))
    assert main(["--socket", server.path, "nvm", "import", "-"]) == 1
    shown = capsys.readouterr()
    assert shown.out == "1 settings imported\n"
    assert "not all that runs could follow: address in use" in shown.err
    assert server.seen == [{"op": "import", "settings": {"sms.urc": False}}]


def test_an_import_that_is_not_there(tmp_path: Path, capsys: Capture) -> None:
    assert main(["nvm", "import", str(tmp_path / "none")]) == 2
    assert "No such file" in capsys.readouterr().err


def test_an_import_too_long_for_a_message(tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "import"
    file.write_text(
        json.dumps({"format": "atrund settings 1", "settings": {"x": "\u00e9" * 20_000}}, ensure_ascii=False)
    )
    assert main(["nvm", "import", str(file)]) == 2
    assert "at most 65536 can be sent" in capsys.readouterr().err


def test_doors(serve: Serve, capsys: Capture) -> None:
    told: dict[str, object] = {"closed": ["mqtt", "sms"], "notes": ["note"], "failed": ["tcp: in use"]}
    server = serve(encode(DoneAnswer(told)))
    assert main(["--socket", server.path, "doors", "open", "tcp", "tcp"]) == 1
    shown = capsys.readouterr()
    assert shown.out == "closed: mqtt, sms, until atrunctl doors open, or a restart of the daemon\n"
    assert shown.err == "atrunctl: note\natrunctl: tcp: in use\n"
    assert server.seen == [{"op": "doors", "action": "open", "doors": ["tcp"]}]
