# SPDX-License-Identifier: Apache-2.0
"""The ATRUN digest (SMS-4, SMS-9): the application note's two examples, and what is refused."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrund.sms.digest import (
    DigestError,
    DigestRequest,
    DigestResponse,
    build_request,
    build_response,
    digest,
    parse_request,
    parse_response,
)

PASSWORD = "1234567890123456"
REQUEST = b"\xd0\xd0\xd0\x00\x11\x01WijCp2qV3sNv+aru20ZUaw==AT+COPS?"
ANSWER = b'\r\n+COPS: 0,0,"vodafone IT"\r\n\r\nOK\r\n'
RESPONSE = b"\xd1\xd1\xd1\x00\x11\x01Junra7r0kIEcH9qV542n3Q==" + ANSWER


def test_the_notes_digests() -> None:
    assert digest(PASSWORD, b"AT+COPS?") == b"WijCp2qV3sNv+aru20ZUaw=="
    assert digest(PASSWORD, ANSWER) == b"Junra7r0kIEcH9qV542n3Q=="


def test_the_notes_request() -> None:
    assert build_request(PASSWORD, b"AT+COPS?") == REQUEST
    request = parse_request(REQUEST)
    assert request == DigestRequest(0, 1, 0x11, "WijCp2qV3sNv+aru20ZUaw==", b"AT+COPS?")
    assert request.matches([PASSWORD]) == 0


def test_the_notes_response() -> None:
    assert build_response(PASSWORD, ANSWER, 0, 1) == RESPONSE
    response = parse_response(RESPONSE)
    assert response == DigestResponse(0, 1, 1, 1, "Junra7r0kIEcH9qV542n3Q==", ANSWER)
    assert response.matches(["x" * 16, PASSWORD]) == 1


def test_which_password_matches() -> None:
    request = parse_request(REQUEST)
    assert request is not None
    assert request.matches([]) is None
    assert request.matches(["1234567890123457", ""]) is None
    assert request.matches(["0" * 16, PASSWORD]) == 1
    assert request.matches([PASSWORD, PASSWORD]) == 0


def test_every_password_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """SMS-4: constant time, so the first one right does not end the comparing."""
    compared = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(other)
        return one == other

    monkeypatch.setattr("atrund.sms.digest.hmac.compare_digest", compare)
    request = parse_request(REQUEST)
    assert request is not None
    assert request.matches([PASSWORD, "0" * 16]) == 0
    assert len(compared) == 2


@pytest.mark.parametrize("changed", [b"AT+COPS=", b"at+COPS?", b"AT+COPS?\r", b""])
def test_a_changed_text_does_not_match(changed: bytes) -> None:
    request = parse_request(REQUEST[:30] + changed)
    assert request is not None
    assert request.matches([PASSWORD]) is None


@pytest.mark.parametrize("octets", [b"", b"\xd0\xd0", b"AT+COPS?", b"\xd0\xd0\xd1" + REQUEST[3:]])
def test_what_begins_otherwise_is_none(octets: bytes) -> None:
    assert parse_request(octets) is None
    assert parse_response(octets) is None


def test_a_response_is_no_request() -> None:
    assert parse_request(RESPONSE) is None
    assert parse_response(REQUEST) is None


@pytest.mark.parametrize(
    ("octets", "field"),
    [
        (REQUEST[:3], "header"),
        (REQUEST[:29], "header"),
        (REQUEST[:4] + b"\x12" + REQUEST[5:], "segment"),
        (REQUEST[:6] + b"WijCp2qV3sNv+aru20ZUaw=!" + REQUEST[30:], "digest"),
        (REQUEST[:6] + b"WijCp2qV3sNv\xffaru20ZUaw==" + REQUEST[30:], "digest"),
        (REQUEST[:6] + b"WijCp2qV3sNv+aru20ZUaw=\n" + REQUEST[30:], "digest"),
        (REQUEST[:30] + b"A" * 111, "text"),
    ],
)
def test_malformed_requests(octets: bytes, field: str) -> None:
    with pytest.raises(DigestError) as caught:
        parse_request(octets)
    assert caught.value.field == field
    assert str(caught.value) == f"{field}: {caught.value.detail}"


@pytest.mark.parametrize("segment", [0x00, 0x01, 0x10, 0x21, 0xF0])
def test_malformed_segments_of_responses(segment: int) -> None:
    with pytest.raises(DigestError, match=f"segment: is 0x{segment:02X}"):
        parse_response(RESPONSE[:4] + bytes([segment]) + RESPONSE[5:])


@pytest.mark.parametrize(
    ("build", "field"),
    [
        (lambda: build_request(PASSWORD, b"A" * 111), "text"),
        (lambda: build_request(PASSWORD, b"AT", transaction=256), "transaction"),
        (lambda: build_request(PASSWORD, b"AT", session=-1), "session"),
        (lambda: build_response(PASSWORD, b"OK", 0, 1, index=0), "segment"),
        (lambda: build_response(PASSWORD, b"OK", 0, 1, index=2), "segment"),
        (lambda: build_response(PASSWORD, b"OK", 0, 1, index=1, total=16), "segment"),
    ],
)
def test_building_refused(build: Callable[[], bytes], field: str) -> None:
    with pytest.raises(DigestError) as caught:
        build()
    assert caught.value.field == field
    assert PASSWORD not in repr(caught.value)


def test_the_segment_is_index_and_total() -> None:
    octets = build_response(PASSWORD, b"OK", 5, 7, index=2, total=15)
    assert octets[3:6] == b"\x05\x2f\x07"
    response = parse_response(octets)
    assert response is not None
    assert (response.transaction, response.session, response.index, response.total) == (5, 7, 2, 15)


def test_no_repr_shows_a_digest() -> None:
    assert "WijC" not in repr(parse_request(REQUEST))
    assert "Junr" not in repr(parse_response(RESPONSE))


def test_any_text_can_be_a_password() -> None:
    assert len(digest("pässwörd\ud800", b"AT")) == 24


@given(st.text(max_size=20), st.binary(max_size=110), st.integers(0, 255), st.integers(0, 255))
def test_requests_both_ways(password: str, text: bytes, transaction: int, session: int) -> None:
    request = parse_request(build_request(password, text, transaction, session))
    assert request is not None
    assert (request.transaction, request.session, request.text) == (transaction, session, text)
    assert request.matches([password]) == 0
    assert request.matches([password + "x"]) is None


@given(st.binary(max_size=150), st.sampled_from([b"", b"\xd0\xd0\xd0", b"\xd1\xd1\xd1"]))
def test_random_octets_raise_nothing_else(octets: bytes, mark: bytes) -> None:
    for parse in (parse_request, parse_response):
        try:
            found = parse(mark + octets)
        except DigestError:
            continue
        assert found is None or found.text == (mark + octets)[30:]
