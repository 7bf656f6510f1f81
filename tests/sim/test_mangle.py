# SPDX-License-Identifier: Apache-2.0
"""Answers spoilt on their way out, each kind, at each place, and the port usable behind them."""

import asyncio

import pytest

from atrund.sim.mangle import MANGLES_CAP, How, Mangle, Mangles
from atrund.sim.module import SimModule
from atrund.sim.outlet import COLLECTED_CAP
from atrund.sim.state import Options

CSQ = "\r\n+CSQ: 14,99\r\n\r\nOK\r\n"
OK = "\r\nOK\r\n"


class Desk:
    def __init__(self, seed: int = 0) -> None:
        self.module = SimModule(Options(seed=seed, send_delay=0))
        self.out = bytearray()
        self.port = self.module.add_port(self.out.extend)
        self.at("ATE0")

    def at(self, line: str) -> str:
        self.port.feed(f"{line}\r".encode("latin-1"))
        return self.take()

    def take(self) -> str:
        text = self.out.decode("latin-1")
        self.out.clear()
        return text

    def mangle(self, how: How, command: str = "+CSQ", **fields: object) -> None:
        self.module.mangles.add(command, Mangle(how, **fields))  # type: ignore[arg-type]  # the fields of Mangle


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.mark.parametrize(
    ("how", "answer"),
    [
        (How.DOUBLE, CSQ + CSQ),
        (How.DROP, ""),
        (How.NO_FINAL, "\r\n+CSQ: 14,99\r\n"),
        (How.EXTRA_FINAL, CSQ + OK),
        (How.WRONG_FINAL, "\r\n+CSQ: 14,99\r\n\r\nERROR\r\n"),
        (How.NO_PROMPT, CSQ),
    ],
)
def test_an_answer_is_spoilt_once_and_the_next_is_not(desk: Desk, how: How, answer: str) -> None:
    desk.mangle(how)
    assert desk.at("AT+CSQ") == answer
    assert desk.at("AT+CSQ") == CSQ


def test_it_waits_for_its_command_on_the_module_s_own_ports(desk: Desk) -> None:
    desk.mangle(How.DROP)
    assert desk.at("AT+CSQ?") == ""
    desk.mangle(How.DROP)
    assert desk.at("AT") == OK
    assert desk.module.tenant("AT+CSQ") == CSQ
    assert desk.at("AT+CSQ") == ""


def test_an_error_becomes_ok(desk: Desk) -> None:
    desk.mangle(How.WRONG_FINAL, "+FOO")
    assert desk.at("AT+FOO") == OK


def test_a_cut_answer_is_the_beginning_of_it(desk: Desk) -> None:
    desk.mangle(How.CUT, left=50)
    cut = {desk.at("AT+CSQ") for _ in range(50)}
    assert all(CSQ.startswith(answer) and answer != CSQ for answer in cut)
    assert len(cut) > 10


def test_a_garbled_answer_is_as_long_and_another_and_the_same_for_the_same_seed() -> None:
    garbled = []
    for seed in (0, 0, 1):
        desk = Desk(seed)
        desk.mangle(How.GARBLE)
        garbled.append(desk.at("AT+CSQ"))
    assert garbled[0] == garbled[1] != garbled[2]
    assert len(garbled[0]) == len(CSQ)
    assert sum(one != other for one, other in zip(garbled[0], CSQ, strict=True)) == (len(CSQ) + 7) // 8


LINES = ["\r\n+CSQ: 14,99\r\n", "\r\n+CREG: 0,1\r\n", "\r\nOK\r\n"]


@pytest.mark.parametrize("position", [0, 1, 2, 3, 99])
def test_an_unsolicited_line_at_every_place(desk: Desk, position: int) -> None:
    desk.mangle(How.URC_INSIDE, text="+CREG: 2", position=position)
    assert desk.at("AT+CSQ;+CREG?") == "".join([*LINES[:position], "\r\n+CREG: 2\r\n", *LINES[position:]])


def test_an_unsolicited_line_between_the_two_lines_of_a_message(desk: Desk) -> None:
    desk.at('AT+CMGF=1;+CMGW="+391"\rhello\x1a')
    desk.mangle(How.URC_INSIDE, "+CMGR", position=1)
    assert desk.at("AT+CMGR=1") == '\r\n+CMGR: "STO UNSENT","+391",""\r\n\r\nRING\r\nhello\r\n\r\nOK\r\n'


def test_an_unsolicited_line_somewhere_comes_everywhere_in_time(desk: Desk) -> None:
    desk.mangle(How.URC_INSIDE, left=None)
    places = {desk.at("AT+CSQ;+CREG?").index("RING") for _ in range(40)}
    assert len(places) == 4


def test_the_echo_is_never_spoilt(desk: Desk) -> None:
    desk.at("ATE1")
    desk.mangle(How.DROP)
    assert desk.at("AT+CSQ") == "AT+CSQ\r"


def test_a_whole_command_goes_before_its_name_and_that_before_any(desk: Desk) -> None:
    desk.mangle(How.DROP, "*", left=None)
    desk.mangle(How.DOUBLE, "+cops")
    desk.mangle(How.NO_FINAL, "AT+COPS?")
    assert desk.at("AT+COPS?") == '\r\n+COPS: 0,0,"vodafone IT"\r\n'
    assert desk.at("AT+COPS?").count("OK") == 2
    assert desk.at("AT+COPS?") == desk.at("AT") == desk.at('AT"') == ""
    desk.module.mangles.clear("*")
    assert desk.at("AT") == OK
    desk.mangle(How.DROP, "*")
    desk.module.mangles.clear()
    assert desk.at("AT") == OK


def test_a_quiet_line_and_a_numeric_one(desk: Desk) -> None:
    desk.mangle(How.EXTRA_FINAL, left=None)
    assert desk.at("ATQ1+CSQ") == "\r\n+CSQ: 14,99\r\n"
    assert desk.at("ATQ0V0+CSQ") == "+CSQ: 14,99\r\n0\r0\r"


def test_behind_a_prompt_the_answer_is_spoilt(desk: Desk) -> None:
    desk.mangle(How.DROP, "+CMGS")
    assert desk.at('AT+CMGF=1;+CMGS="+391"') == "\r\n> "
    desk.port.feed(b"hi\x1a")
    assert desk.take() == ""
    assert [sent.text for sent in desk.module.network.sent] == ["hi"]


@pytest.mark.parametrize(("how", "shown"), [(How.NO_PROMPT, ""), (How.TWO_PROMPTS, "\r\n> \r\n> ")])
def test_a_prompt_that_never_comes_or_comes_twice_is_open_all_the_same(desk: Desk, how: How, shown: str) -> None:
    desk.mangle(how, "+CMGS")
    assert desk.at('AT+CMGF=1;+CMGS="+391"') == shown
    desk.port.feed(b"\x1b")
    assert desk.take() == OK


@pytest.mark.looptime
class TestTime:
    async def test_a_late_answer_comes_into_the_next(self, desk: Desk) -> None:
        desk.mangle(How.LATE, seconds=3)
        assert desk.at("AT+CSQ") == ""
        assert not desk.port.busy
        await asyncio.sleep(2.9)
        assert desk.at("AT") == OK
        await asyncio.sleep(0.2)
        assert desk.take() == CSQ

    async def test_a_late_answer_is_lost_in_a_restart(self, desk: Desk) -> None:
        desk.mangle(How.LATE)
        desk.at("AT+CSQ")
        desk.module.reboot()
        await asyncio.sleep(10)
        assert desk.take() == ""

    async def test_a_split_answer_comes_in_pieces_that_nothing_parts(self, desk: Desk) -> None:
        desk.mangle(How.SPLIT, seconds=1)
        first = desk.at("AT+CSQ;+COPS?")
        assert 0 < len(first) <= 8
        assert desk.port.busy
        desk.module.urc("RING")
        assert desk.at("AT") == ""
        await asyncio.sleep(60)
        assert first + desk.take() == '\r\n+CSQ: 14,99\r\n\r\n+COPS: 0,0,"vodafone IT"\r\n\r\nOK\r\n\r\nRING\r\n'
        assert desk.at("AT") == OK

    async def test_a_split_answer_ends_where_the_module_hangs(self, desk: Desk) -> None:
        desk.mangle(How.SPLIT)
        desk.at("AT+CSQ")
        desk.module.hang()
        await asyncio.sleep(5)
        assert desk.take() == ""
        desk.module.resume()
        assert desk.at("AT") == OK

    async def test_a_restart_in_the_middle(self, desk: Desk) -> None:
        desk.mangle(How.REBOOT_INSIDE)
        assert desk.at("AT+CSQ") == CSQ[: (len(CSQ) + 1) // 2]
        assert desk.at("AT") == ""
        await asyncio.sleep(5.1)
        assert desk.at("AT") == "AT\r\r\nOK\r\n"


def test_the_number_of_mangles_has_a_cap() -> None:
    mangles = Mangles(0)
    for number in range(MANGLES_CAP):
        mangles.add(f"+X{number}", Mangle(How.DROP))
    with pytest.raises(ValueError, match="already"):
        mangles.add("+Y", Mangle(How.DROP))
    mangles.add("+X0", Mangle(How.CUT))


def test_an_answer_past_the_cap_goes_out_as_it_is(desk: Desk) -> None:
    from atrund.sim.faults import Plant

    lines = ("x" * 1000,) * (COLLECTED_CAP // 1000 + 10)
    desk.module.faults.plant("+CSQ", Plant(lines=lines, final="OK"))
    desk.mangle(How.DROP)
    assert len(desk.at("AT+CSQ")) > COLLECTED_CAP
