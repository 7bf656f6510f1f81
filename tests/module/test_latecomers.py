# SPDX-License-Identifier: Apache-2.0
"""Who waits for a late line gets it, once, and nobody waits for ever."""

import asyncio

import pytest

from atrund.at.late import window
from atrund.at.reader import Line
from atrund.at.syntax import Command, parse
from atrund.module import latecomers
from atrund.module.latecomers import Late, LateLines

pytestmark = pytest.mark.looptime

USSD = parse('AT+CUSD=1,"*100#"')
HTTP = parse('AT#HTTPQRY=0,0,"/"')
REPLY = '+CUSD: 0,"12 EUR",15'


def wait_for(lines: LateLines, commands: tuple[Command, ...] = USSD) -> tuple[Late, list[Line]]:
    said: list[Line] = []
    late = lines.promised(commands, said.append)
    assert late is not None
    return late, said


async def test_one_line_is_given_once_even_of_two_in_one_breath() -> None:
    lines = LateLines()
    late, said = wait_for(lines)
    assert [lines.take("+CREG: 1"), lines.take(REPLY), lines.take(REPLY)] == [False, True, False]
    await late.came
    assert said == [Line(REPLY, lead=True)]
    assert len(lines) == 0


async def test_what_promises_nothing_is_not_waited_for() -> None:
    lines = LateLines()
    assert lines.promised(parse("AT+CSQ"), lambda _: None) is None
    assert len(lines) == 0


async def test_different_lines_are_waited_for_at_a_time() -> None:
    lines = LateLines()
    ussd, http = wait_for(lines), wait_for(lines, HTTP)
    assert lines.take('#HTTPRING: 0,200,"text/html",5')
    assert (http[0].came.done(), ussd[0].came.done(), len(ussd[1])) == (True, False, 0)
    lines.close()
    await ussd[0].came
    assert len(lines) == 0


async def test_the_window_closes() -> None:
    lines = LateLines()
    late, said = wait_for(lines)
    promise = window(USSD)
    assert promise is not None
    await late.came
    assert asyncio.get_running_loop().time() == pytest.approx(promise.seconds)
    assert not lines.take(REPLY)
    assert said == []


async def test_who_goes_away_leaves_the_line_to_everybody() -> None:
    lines = LateLines()
    late, said = wait_for(lines)
    late.came.cancel()
    assert not lines.take(REPLY)
    await asyncio.sleep(0)
    assert (len(lines), said) == (0, [])


async def test_they_are_as_many_as_the_cap_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latecomers, "LATE_MAX", 1)
    lines = LateLines()
    first, _ = wait_for(lines)
    wait_for(lines, HTTP)
    assert (first.came.done(), len(lines)) == (True, 1)
