# SPDX-License-Identifier: Apache-2.0
"""Which lines are final results (REQ-5), and what an information line holds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrund.at.results import (
    CME_TEXTS,
    ERROR,
    OK,
    Final,
    FinalKind,
    Information,
    classify,
    classify_numeric,
    information,
)


@pytest.mark.parametrize(
    ("text", "kind", "code"),
    [
        ("OK", FinalKind.OK, None),
        ("ERROR", FinalKind.ERROR, None),
        ("ABORTED", FinalKind.ABORTED, None),
        ("+CME ERROR: 14", FinalKind.CME, 14),
        ("+CME ERROR: 614", FinalKind.CME, 614),
        ("+CME ERROR:  3", FinalKind.CME, 3),
        ("+CME ERROR: SIM busy", FinalKind.CME, None),
        ("+CME ERROR: ", FinalKind.CME, None),
        ("+CME ERROR: -1", FinalKind.CME, None),
        ("+CME ERROR: \xb2", FinalKind.CME, None),
        ("+CMS ERROR:500", FinalKind.CMS, 500),
        ("NO CARRIER", FinalKind.NO_CARRIER, None),
        ("NO DIALTONE", FinalKind.NO_DIALTONE, None),
        ("NO ANSWER", FinalKind.NO_ANSWER, None),
        ("BUSY", FinalKind.BUSY, None),
        ("CONNECT", FinalKind.CONNECT, None),
        ("CONNECT 9600", FinalKind.CONNECT, None),
    ],
)
def test_a_final_result(text: str, kind: FinalKind, code: int | None) -> None:
    assert classify(text) == Final(kind, text, code)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ok",
        "OK ",
        " OK",
        "OKAY",
        "NO CARRIER:3",
        "NO CARRIER:2,1",
        "CONNECTED",
        "CONNECT \xe9",
        "RING",
        "0",
        "+CME",
    ],
)
def test_no_final_result(text: str) -> None:
    assert classify(text) is None


def test_a_number_too_long_for_a_code_is_none() -> None:
    assert classify("+CME ERROR: " + "9" * 5000) == Final(FinalKind.CME, "+CME ERROR: " + "9" * 5000)


@given(
    st.text(max_size=20) | st.builds("{}{}".format, st.sampled_from(list(FinalKind)).map(lambda k: k.value), st.text())
)
def test_any_text_is_classified(text: str) -> None:
    final = classify(text)
    assert final is None or final.text == text


def test_only_calls_end_with_the_words_of_a_call() -> None:
    of_a_call = {kind for kind in FinalKind if kind.of_a_call}
    assert of_a_call == {
        FinalKind.NO_CARRIER,
        FinalKind.NO_DIALTONE,
        FinalKind.NO_ANSWER,
        FinalKind.BUSY,
        FinalKind.CONNECT,
    }


def test_only_ok_is_a_success() -> None:
    assert OK.ok
    assert not ERROR.ok
    assert classify("OK") == OK
    assert classify("ERROR") == ERROR


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("0", FinalKind.OK),
        ("1", FinalKind.CONNECT),
        ("3", FinalKind.NO_CARRIER),
        ("4", FinalKind.ERROR),
        ("6", FinalKind.NO_DIALTONE),
        ("7", FinalKind.BUSY),
        ("8", FinalKind.NO_ANSWER),
    ],
)
def test_a_numeric_result_reads_as_its_words(text: str, kind: FinalKind) -> None:
    assert classify_numeric(text) == Final(kind, kind.value)


@pytest.mark.parametrize("text", ["2", "5", "9", "00", "", "OK"])
def test_no_numeric_final(text: str) -> None:
    assert classify_numeric(text) is None


@pytest.mark.parametrize(
    ("line", "name", "parameters"),
    [
        ("+CSQ: 14,99", "+CSQ", ("14", "99")),
        ("#QSS:0, 3", "#QSS", ("0", "3")),
        ('+COPS: 0,0,"vodafone, IT"', "+COPS", ("0", "0", '"vodafone, IT"')),
        ('+CMGR: 0,"",50', "+CMGR", ("0", '""', "50")),
        ("+CREG:", "+CREG", ()),
        ("$GPSACP: 1", "$GPSACP", ("1",)),
    ],
)
def test_an_information_line(line: str, name: str, parameters: tuple[str, ...]) -> None:
    found = information(line)
    assert found is not None
    assert found.name == name
    assert found.parameters == parameters


@pytest.mark.parametrize("line", ["", "Telit", "OK", "+CME ERROR: 3", "SRING: 1", "+39: x", "+csq: 1", "NO CARRIER:3"])
def test_no_information_line(line: str) -> None:
    assert information(line) is None


def test_what_stands_behind_the_colon_is_kept_as_written() -> None:
    assert information("#MONI: AT&T RSRP:-92") == Information("#MONI", "AT&T RSRP:-92")


def test_the_codes_that_the_daemon_answers_with_have_texts() -> None:
    assert {1, 2, 3, 4, 20, 50, 100} <= CME_TEXTS.keys()  # REQ-10
