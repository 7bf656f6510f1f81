# SPDX-License-Identifier: Apache-2.0
"""Virtual reporting settings: each instance sees what it asked for (CMD-3, CMD-6)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrund.at.syntax import parse
from atrund.atrun.reporting import (
    SETTINGS,
    Reporting,
    Reports,
    announced,
    as_read,
    is_reading,
    is_setting,
    setting,
    to_send,
    union,
    with_setting,
)

DAEMON: Reporting = {"+CNMI": (2, 1, 0, 0, 0)}


@pytest.mark.parametrize(
    ("line", "sets", "reads"),
    [("AT+CREG=1", True, False), ("AT+CREG?", False, True), ("AT+CREG=?", False, False), ("AT+CSQ?", False, False)],
)
def test_set_and_read_forms_are_told_apart(line: str, sets: bool, reads: bool) -> None:  # noqa: FBT001 - expected
    (command,) = parse(line)
    assert (is_setting(command), is_reading(command)) == (sets, reads)


@pytest.mark.parametrize(
    ("line", "before", "after"),
    [
        ("AT+CREG=2", {}, {"+CREG": (2,)}),
        ("AT+CREG=4", {}, None),
        ("AT+CREG=", {}, None),
        ("AT+CEREG=5", {"+CREG": (1,)}, {"+CREG": (1,), "+CEREG": (5,)}),
        ("AT+CNMI=2,1", {"+CNMI": (1, 0, 2, 1, 1)}, {"+CNMI": (2, 1, 2, 1, 1)}),
        ("AT+CNMI=2,1,0,0,0,0", {}, None),
        ("AT+CGEREP=2", {"+CGEREP": (0, 1)}, {"+CGEREP": (2, 1)}),
        ("AT#QSS=3", {}, None),
    ],
)
def test_a_setting_is_checked_and_kept(line: str, before: Reporting, after: Reporting | None) -> None:
    assert with_setting(parse(line)[0], before) == after


@pytest.mark.parametrize(
    ("instances", "name", "values"),
    [
        ([], "+CNMI", (2, 1, 0, 0, 0)),
        ([{"+CREG": (1,)}, {"+CREG": (2,)}], "+CREG", (2,)),
        ([{"+CEREG": (3,)}, {"+CEREG": (4,)}], "+CEREG", (5,)),
        ([{"+CEREG": (3,)}, {"+CEREG": (2,)}], "+CEREG", (3,)),
        ([{"+CGREG": (4,)}], "+CGREG", (4,)),
        ([{"#QSS": (1,)}, {"#QSS": (2,)}], "#QSS", (2,)),
        ([{"+CGEREP": (1, 0)}, {"+CGEREP": (2, 1)}], "+CGEREP", (2, 1)),
        # the SMS door reads the store whatever an instance asks
        ([{"+CNMI": (0, 0, 0, 0, 1)}], "+CNMI", (2, 1, 0, 0, 0)),
        ([{"+CNMI": (2, 2, 0, 1, 0)}], "+CNMI", (2, 1, 0, 1, 0)),
        ([{"+CNMI": (2, 1, 3, 0, 0)}, {"+CNMI": (2, 1, 2, 2, 0)}], "+CNMI", (2, 1, 2, 2, 0)),
        ([{"+CNMI": (2, 1, 1, 2, 0)}, {"+CNMI": (2, 1, 3, 1, 0)}], "+CNMI", (2, 1, 3, 1, 0)),
    ],
)
def test_the_module_has_the_union(instances: list[Reporting], name: str, values: tuple[int, ...]) -> None:
    assert union(DAEMON, instances)[name] == values


@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                name: st.tuples(*(st.sampled_from(list(allowed)) for allowed in values.ranges))
                for name, values in SETTINGS.items()
            },
        ),
        max_size=3,
    )
)
def test_the_union_is_one_that_the_module_can_have(instances: list[Reporting]) -> None:
    for name, values in union(DAEMON, instances).items():
        assert SETTINGS[name].allows(values)
        if name != "+CNMI":
            assert all(values[0] >= setting(one, name)[0] for one in instances)


def test_what_differs_or_is_not_known_is_sent() -> None:
    wanted = {"+CREG": (2,), "+CNMI": (2, 1, 0, 0, 0), "#QSS": (1,)}
    assert to_send(wanted, {"+CREG": (2,), "#QSS": (0,)}) == ("AT+CNMI=2,1,0,0,0", "AT#QSS=1")
    assert to_send(wanted, wanted) == ()


@pytest.mark.parametrize(
    ("line", "reporting", "shown"),
    [
        ('+CREG: 2,1,"00DE","FD4F",7', {"+CREG": (1,)}, "+CREG: 1,1"),
        ('+CREG: 2,1,"00DE","FD4F",7', {}, "+CREG: 0,1"),
        ('+CREG: 2,1,"00DE","FD4F",7', {"+CREG": (2,)}, '+CREG: 2,1,"00DE","FD4F",7'),
        ('+CEREG: 5,1,"00DE","FD4F",7,0,3,"00100000"', {"+CEREG": (3,)}, '+CEREG: 3,1,"00DE","FD4F",7,0,3'),
        (
            '+CEREG: 5,1,"00DE","FD4F",7,0,3,"00100000"',
            {"+CEREG": (4,)},
            '+CEREG: 4,1,"00DE","FD4F",7,,,"00100000"',
        ),
        (
            '+CEREG: 5,1,"00DE","FD4F",7,0,3,"00100000"',
            {"+CEREG": (5,)},
            '+CEREG: 5,1,"00DE","FD4F",7,0,3,"00100000"',
        ),
        ('+CGREG: 5,1,"00DE","FD4F",0,"01",0,3', {"+CGREG": (2,)}, '+CGREG: 2,1,"00DE","FD4F",0,"01"'),
        ("+CNMI: 2,1,0,0,0", {"+CNMI": (1, 2, 0, 0, 1)}, "+CNMI: 1,2,0,0,1"),
        ("#QSS: 2,3", {"#QSS": (1,)}, "#QSS: 1,1"),
        ("#QSS: 2,3", {"#QSS": (2,)}, "#QSS: 2,3"),
        ("#QSS:2,0", {}, "#QSS: 0,0"),
        ("#PSNT: 1,4", {}, "#PSNT: 0,4"),
        ("+CLIP: 1,1", {}, "+CLIP: 0,1"),
        ("+CRC: 1", {}, "+CRC: 0"),
        ("+CGEREP: 2,1", {"+CGEREP": (1, 0)}, "+CGEREP: 1,0"),
        ("+CSQ: 14,99", {}, "+CSQ: 14,99"),
        ("something else", {}, "something else"),
    ],
)
def test_a_read_form_shows_the_instance_s_own_setting(line: str, reporting: Reporting, shown: str) -> None:
    assert as_read(line, reporting) == shown


OFF: Reporting = {}


@pytest.mark.parametrize(
    ("lines", "reporting", "seen"),
    [
        (('+CREG: 1,"00DE","FD4F",7',), {"+CREG": (1,)}, ("+CREG: 1",)),
        (('+CREG: 1,"00DE","FD4F",7',), {"+CREG": (2,)}, ('+CREG: 1,"00DE","FD4F",7',)),
        (('+CREG: 1,"00DE","FD4F",7',), OFF, None),
        (('+CGREG: 1,"00DE","FD4F",0,"01"',), {"+CGREG": (1,)}, ("+CGREG: 1",)),
        (("#QSS: 3",), {"#QSS": (1,)}, ("#QSS: 1",)),
        (("#QSS: 0",), {"#QSS": (1,)}, ("#QSS: 0",)),
        (("#QSS: 3",), {"#QSS": (2,)}, ("#QSS: 3",)),
        (("#QSS: 3",), OFF, None),
        (("#PSNT: 4",), {"#PSNT": (1,)}, ("#PSNT: 4",)),
        (("#PSNT: 4",), OFF, None),
        (('+CLIP: "+391",145',), {"+CLIP": (1,)}, ('+CLIP: "+391",145',)),
        (('+CLIP: "+391",145',), OFF, None),
        (("+CRING: VOICE",), {"+CRC": (1,)}, ("+CRING: VOICE",)),
        (("+CRING: VOICE",), OFF, ("RING",)),
        (("RING",), OFF, ("RING",)),
        (("+CGEV: NW DETACH",), {"+CGEREP": (1, 0)}, ("+CGEV: NW DETACH",)),
        (("+CGEV: NW DETACH",), OFF, None),
        (("+CDS: 25", "0006"), {"+CNMI": (2, 1, 0, 1, 0)}, ("+CDS: 25", "0006")),
        (("+CDS: 25", "0006"), {"+CNMI": (2, 1, 0, 2, 0)}, None),
        (('+CDSI: "SR",1',), {"+CNMI": (2, 1, 0, 2, 0)}, ('+CDSI: "SR",1',)),
        (("+CBM: 88", "0010"), {"+CNMI": (2, 1, 2, 0, 0)}, ("+CBM: 88", "0010")),
        (('+CBMI: "BM",1',), {"+CNMI": (2, 1, 2, 0, 0)}, None),
        # new messages are judged first (CMD-6)
        (('+CMTI: "SM",1',), {"+CNMI": (2, 1, 0, 0, 0)}, None),
        (("+CMT: ,24", "0791"), {"+CNMI": (2, 2, 0, 0, 0)}, None),
        # what the table does not know goes to all
        (("#JDR: Blocked",), OFF, ("#JDR: Blocked",)),
        (("NO CARRIER:3",), OFF, ("NO CARRIER:3",)),
    ],
)
def test_an_instance_sees_what_it_asked_for(
    lines: tuple[str, ...], reporting: Reporting, seen: tuple[str, ...] | None
) -> None:
    expected = {} if seen is None else {2: seen}
    assert Reports().deliver(lines, {2: reporting}) == expected


def test_of_a_code_that_was_cut_a_change_of_what_is_left_is_shown_alone() -> None:
    """With +CREG=1 a module says nothing of a new cell, so neither does an instance of it."""
    reports = Reports()
    instances: dict[int, Reporting] = {1: {"+CREG": (1,)}, 2: {"+CREG": (2,)}}
    seen = [
        reports.deliver((line,), instances)
        for line in ('+CREG: 1,"00DE","FD4F"', '+CREG: 1,"00DE","0001"', "+CREG: 2", '+CREG: 5,"00DE","0001"')
    ]
    assert [codes.get(1) for codes in seen] == [("+CREG: 1",), None, ("+CREG: 2",), ("+CREG: 5",)]
    assert [len(codes.get(2, ())) for codes in seen] == [1, 1, 1, 1]


def test_the_same_code_twice_is_shown_twice() -> None:
    reports = Reports()
    line = ('+CGREG: 1,"00DE","FD4F",0,"01"',)
    assert [reports.deliver(line, {1: {"+CGREG": (2,)}}) for _ in range(2)] == [{1: line}] * 2


def test_a_new_message_is_announced_as_each_asked() -> None:
    instances: dict[int, Reporting] = {
        1: {"+CNMI": (2, 1, 0, 0, 0)},
        2: {"+CNMI": (2, 2, 0, 0, 0)},
        3: {"+CNMI": (0, 1, 0, 0, 0)},
    }
    direct = ("+CMT: ,24", "0791")
    assert announced("SM", 3, direct, instances) == {1: ('+CMTI: "SM",3',), 2: direct}
    assert announced("SM", 3, direct, {1: {"+CNMI": (2, 0, 0, 0, 0)}, 2: {}}) == {}
