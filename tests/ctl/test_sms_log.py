# SPDX-License-Identifier: Apache-2.0
"""`atrunctl sms log` against a scripted daemon: what it asks, what it prints, what it refuses."""

import json
from collections.abc import Callable

import pytest

from atrund.control import LOG_PAGE, DoneAnswer, ErrorAnswer, SmsLogRequest, encode
from atrund.ctl.main import main
from tests.ctl.server import Serve

Capture = pytest.CaptureFixture[str]
Pages = Callable[[int], list[SmsLogRequest]]


def entry(n: int, **fields: object) -> dict[str, object]:
    usual = {
        "key": f"k{n}", "ts": "2026-03-01T12:00:00.000Z", "peer": "+393331234567", "verdict": "other", "why": "",
        "sent": "2026-03-01T11:59:00.000Z", "rid": "", "outcome": "", "fate": "", "text": None, "raw": None,
    }  # fmt: skip
    return {**usual, "n": n, **fields}


def answered(*entries: dict[str, object]) -> bytes:
    return encode(DoneAnswer({"entries": list(entries)}))


SHOWN = (
    entry(4, peer="+39346", verdict="atrun", rid="r1", outcome="rejected", why="policy"),
    entry(3, why="comes from no number of the white list", fate="moved", text="hello\x1b[2J\nyou"),
    entry(2, peer="", verdict="unreadable", fate="moved", raw="00ff"),
    entry(1, why="has a user data header"),
)


def test_for_people_the_newest_comes_last_and_nothing_steers_the_terminal(serve: Serve, capsys: Capture) -> None:
    server = serve(answered(*SHOWN))
    assert main(["--socket", server.path, "--utc", "sms", "log"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "2026-03-01 12:00:00.000Z  +393331234567  other  -  has a user data header",
        "2026-03-01 12:00:00.000Z  -  unreadable  moved",
        "    hex 00ff",
        "2026-03-01 12:00:00.000Z  +393331234567  other  moved  comes from no number of the white list",
        "    hello\\x1b[2J\\nyou",
        "2026-03-01 12:00:00.000Z  +39346  atrun  rejected  policy  id=r1",
    ]
    assert server.seen == [{"op": "sms_log", "limit": LOG_PAGE, "before": 0}]


def test_for_programs_it_is_json(serve: Serve, capsys: Capture) -> None:
    server = serve(answered(*SHOWN[:2]))
    assert main(["--socket", server.path, "sms", "log", "--json", "--limit", "2"]) == 0
    assert json.loads(capsys.readouterr().out) == [SHOWN[1], SHOWN[0]]
    assert server.seen == [{"op": "sms_log", "limit": 2, "before": 0}]


def test_nothing_came_yet(serve: Serve, capsys: Capture) -> None:
    assert main(["--socket", serve(answered()).path, "sms", "log"]) == 0
    assert capsys.readouterr().out == ""


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> Pages:
    """Let there be so many entries; returns what is asked for."""

    def make(there: int) -> list[SmsLogRequest]:
        asked: list[SmsLogRequest] = []

        def ask(_path: str | None, request: SmsLogRequest) -> dict[str, object]:
            asked.append(request)
            newest = min(there, request.before - 1) if request.before else there
            return {"entries": [entry(n) for n in range(newest, max(0, newest - request.limit), -1)]}

        monkeypatch.setattr("atrund.ctl.asking.ask", ask)
        return asked

    return make


@pytest.mark.parametrize(("there", "limit"), [(0, 5), (5, 5), (LOG_PAGE, 50), (45, 45), (45, 1000), (90, 41)])
def test_more_than_a_page_is_asked_for_page_by_page(pages: Pages, capsys: Capture, there: int, limit: int) -> None:
    asked = pages(there)
    assert main(["sms", "log", "--json", "--limit", str(limit)]) == 0
    shown = [one["n"] for one in json.loads(capsys.readouterr().out)]
    assert shown == list(range(max(0, there - limit) + 1, there + 1))
    assert all(request.limit <= LOG_PAGE for request in asked)
    assert len(asked) <= limit // LOG_PAGE + 1


@pytest.mark.parametrize("limit", ["0", "1001", "x", "-1", "1e2"])
def test_a_number_out_of_range_is_wrong_usage(capsys: Capture, limit: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["sms", "log", f"--limit={limit}"])
    assert "is no number from 1 to 1000" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("answer", "code", "says"),
    [
        (encode(ErrorAnswer("the history can't be read: no disk")), 1, "the history can't be read: no disk"),
        (encode(DoneAnswer({})), 3, "none that this atrunctl knows"),
        (encode(DoneAnswer({"entries": [7]})), 3, "none that this atrunctl knows"),
        (answered(*[entry(0)] * LOG_PAGE), 3, "none that this atrunctl knows"),
    ],
)
def test_what_the_daemon_refuses_or_gets_wrong_is_said(
    serve: Serve, capsys: Capture, *, answer: bytes, code: int, says: str
) -> None:
    assert main(["--socket", serve(answer).path, "sms", "log"]) == code
    assert says in capsys.readouterr().err


def test_without_a_daemon_it_says_so(capsys: Capture) -> None:
    assert main(["--socket", "/nonexistent/socket", "sms", "log"]) == 3
    assert "/nonexistent/socket" in capsys.readouterr().err
