# SPDX-License-Identifier: Apache-2.0
"""TCP-8: packet size and transmission timeout."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrund.atrun.packing import PACKET_MAX, Packer, Packets


def test_a_full_packet_goes_at_once() -> None:
    packer = Packer(10, 5.0)
    assert packer.put(b"1234567", 1.0) == b""
    assert packer.due == pytest.approx(6.0)
    assert packer.put(b"890", 3.0) == b"1234567890"
    assert packer.due is None


def test_more_than_one_goes_whole() -> None:
    packer = Packer(10, 5.0)
    assert packer.put(b"x" * 25, 1.0) == b"x" * 25
    assert packer.put(b"y", 1.0) == b""
    assert packer.put(b"z" * 12, 1.0) == b"y" + b"z" * 12


def test_the_timeout_runs_from_the_first_octet() -> None:
    packer = Packer(10, 0.5)
    packer.put(b"a", 1.0)
    packer.put(b"b", 1.4)
    assert packer.due == pytest.approx(1.5)
    assert packer.flush() == b"ab"
    assert packer.flush() == b""
    assert packer.due is None


def test_without_a_timeout_it_waits_until_full() -> None:
    packer = Packer(10, 0.0)
    assert packer.put(b"a", 1.0) == b""
    assert packer.due is None


@pytest.mark.parametrize(
    ("size", "segment", "octets"), [(300, 1448, 300), (0, 1448, 1448), (0, 32768, PACKET_MAX), (1, 536, 1), (0, 0, 1)]
)
def test_the_size_of_a_packet(size: int, segment: int, octets: int) -> None:
    assert Packets(size).octets(segment) == octets


@given(pieces=st.lists(st.binary(max_size=40)), size=st.integers(1, 50))
def test_nothing_is_lost_and_less_than_a_packet_waits(pieces: list[bytes], size: int) -> None:
    packer, sent = Packer(size, 1.0), b""
    for at, piece in enumerate(pieces):
        now = packer.put(piece, float(at))
        assert not now or len(now) >= size
        sent += now
    rest = packer.flush()
    assert sent + rest == b"".join(pieces)
    assert len(rest) < size
