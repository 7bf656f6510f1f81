# SPDX-License-Identifier: Apache-2.0
"""What judges a step, and how it is shown."""

import io
from typing import cast

import pytest

from atrund.demo.__main__ import _parser
from atrund.demo.players import Message
from atrund.demo.show import Show, describe_sent
from atrund.demo.stage import Stage
from atrund.demo.talk import Failed, expect, expect_form
from atrund.demo.tour import Step, play
from atrund.sms.digest import build_response
from atrund.sms.pdu import Address, Dcs, Submit, UserData

NO_STAGE = cast("Stage", None)


def shown() -> tuple[io.StringIO, Show]:
    stream = io.StringIO()
    return stream, Show(stream)


def good(_stage: Stage, show: Show) -> None:
    show.answer("sms", "\r\nOK\r\n")


def wrong(_stage: Stage, _show: Show) -> None:
    expect("the answer", "\r\nOK\r\n", "\r\nERROR\r\n")


def test_every_step_is_taken_and_those_that_fail_are_returned() -> None:
    stream, show = shown()
    steps = (
        Step("First", good),
        Step("Second", wrong),
        Step("Third", wrong, lambda _: "no module"),
        Step("Last", good),
    )
    assert play(steps, NO_STAGE, show) == ["2. Second"]
    assert stream.getvalue() == (
        "\n1. First\n"
        "  < sms            \\r\\nOK\\r\\n\n"
        "  as the rules say\n"
        "\n2. Second\n"
        "  FAILED: the answer\n"
        "     expected: \\r\\nOK\\r\\n\n"
        "     seen:     \\r\\nERROR\\r\\n\n"
        "\n3. Third\n"
        "  skipped: no module\n"
        "\n4. Last\n"
        "  < sms            \\r\\nOK\\r\\n\n"
        "  as the rules say\n"
        "\n1 of 3 steps FAILED:\n"
        "     2. Second\n"
    )


def test_no_failure_is_none() -> None:
    stream, show = shown()
    assert play((Step("First", good),), NO_STAGE, show) == []
    assert stream.getvalue().endswith("\nAll 1 steps came out as the rules say.\n")


def test_what_differs_fails_and_what_does_not_passes() -> None:
    expect("a number", 3, 3)
    with pytest.raises(Failed) as failed:
        expect("a number", 3, 4)
    assert (failed.value.what, failed.value.expected, failed.value.seen) == ("a number", 3, 4)


def test_a_form_holds_for_all_of_a_text() -> None:
    expect_form("a signal", r"\+CSQ: \d+,\d+", "+CSQ: 14,99")
    with pytest.raises(Failed, match="a signal"):
        expect_form("a signal", r"\+CSQ: \d+,\d+", "+CSQ: 14,99\r\n")


def test_colour_is_for_terminals_that_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for no_color, coloured in (("", True), ("1", False)):
        monkeypatch.setenv("NO_COLOR", no_color)
        stream = Terminal()
        Show(stream).good("well")
        assert ("\x1b[" in stream.getvalue()) is coloured


def test_nothing_of_the_far_side_steers_the_terminal() -> None:
    stream, show = shown()
    show.log("a\x1b[2Jb")
    show.record(Message("at/request/me", retained=False, payload=b"\x1b[2J\xff"))
    show.record(Message("x", retained=False, payload=b"", record={"cmd": "\x1b[2J", "v": 1, "reason": None}))
    show.bad("failed", ["\x1b[2J"])
    assert "\x1b" not in stream.getvalue()
    assert '= x              {"cmd": "\\u001b[2J"}\n' in stream.getvalue()


def test_a_long_payload_is_cut() -> None:
    stream, show = shown()
    show.record(Message("urc", retained=False, payload=b"x" * 5000))
    assert len(stream.getvalue()) < 700
    assert stream.getvalue().endswith("x…\n")


def test_a_sent_sms_is_told_in_words() -> None:
    to = Address.parse("+391234567")
    simple = Submit(to, UserData.from_text("OK", Dcs(0)))
    assert describe_sent(simple.encode().hex()) == "to +391234567: OK"
    dcs = Dcs(0x15)
    digest = Submit(to, UserData(dcs.alphabet, build_response("1234567890123456", b"OK", 0, 1, index=2, total=3)), dcs)
    assert describe_sent(digest.encode().hex()) == "to +391234567, digest part 2 of 3: OK"
    assert describe_sent("00").startswith("not understood: ")


@pytest.mark.parametrize(
    ("text", "broker"),
    [
        ("192.0.2.1:18830", ("192.0.2.1", 18830)),
        ("broker.example", ("broker.example", 1883)),
        ("[::1]:1884", ("::1", 1884)),
        ("[::1]", ("::1", 1883)),
    ],
)
def test_a_broker_is_a_host_with_or_without_a_port(text: str, broker: tuple[str, int]) -> None:
    assert _parser({}).parse_args(["--broker", text]).broker == broker
    assert _parser({"BROKER": text}).parse_args([]).broker == broker


@pytest.mark.parametrize(("once", "wanted"), [("1", True), ("0", False), ("", False)])
def test_a_tour_is_asked_for_by_variable_or_option(once: str, wanted: bool) -> None:  # noqa: FBT001 - a parameter of the test
    assert _parser({"ONCE": once}).parse_args([]).once is wanted
    assert _parser({"ONCE": once}).parse_args(["--once"]).once is True
