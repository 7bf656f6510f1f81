# SPDX-License-Identifier: Apache-2.0
"""Transparent mode against a model that remembers every octet, with cuts and stalls both ways, in virtual time."""

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atrund.atrun.escape import GUARD
from atrund.atrun.packing import Packer
from atrund.relay import OPEN_WAIT, UNSENT_MAX, UNSENT_MIN, Counts, End, Far, Lent, Port, Ports, Relay
from tests.support.lines import Line
from tests.support.marked import virtually

PLUS = 43
READ = 4096


class Peer:
    """The session's side: what it was sent, and how it ended."""

    def __init__(self) -> None:
        self.got = bytearray()
        self.packets: list[bytes] = []
        self.rooms = 0
        self.ends: list[tuple[End, str]] = []

    def send(self, data: bytes) -> None:
        self.got += data
        if data:
            self.packets.append(data)

    def room(self) -> None:
        self.rooms += 1

    def over(self, end: End, why: str) -> None:
        self.ends.append((end, why))


def ports_of(*lines: Line, rates: tuple[int, ...] = (9600, 115200)) -> Ports:
    def port(line: Line) -> Port:
        async def open_(rate: int) -> Line:
            line.opened_at.append(rate)
            return line

        return Port(rates, open_)

    return Ports({number: port(line) for number, line in enumerate(lines)})


class Pair:
    """A relay between a peer and a line."""

    def __init__(self, line: Line | None = None, *, rate: int = 115200, size: int = 1, timeout: float = 1.0) -> None:
        self.line = line or Line()
        self.peer = Peer()
        lent = Lent(ports_of(self.line), 0, rate, self.line)
        far = Far(self.peer.send, self.peer.room, self.peer.over)
        self.relay = Relay(lent, far, escape=PLUS, packer=Packer(size, timeout))


@pytest.mark.looptime
async def test_the_escape_is_withheld_and_decided() -> None:
    pair = Pair()
    await asyncio.sleep(1)
    pair.relay.take(b"data")
    await asyncio.sleep(1)
    pair.relay.take(b"+++")
    await asyncio.sleep(GUARD * 0.9)
    assert (pair.line.got, pair.peer.ends) == (b"data", [])
    await asyncio.sleep(GUARD * 0.2)
    assert (pair.line.got, pair.peer.ends) == (b"data", [(End.ESCAPE, "")])
    assert pair.relay.end() == Counts(4, 0)


@pytest.mark.looptime
async def test_what_was_none_is_passed_on_in_its_place() -> None:
    pair = Pair()
    await asyncio.sleep(1)
    pair.relay.take(b"+++")
    await asyncio.sleep(GUARD / 2)
    pair.relay.take(b"x")
    await asyncio.sleep(1)
    assert (pair.line.got, pair.peer.ends) == (b"+++x", [])


@pytest.mark.looptime
async def test_right_behind_connect_it_is_none() -> None:
    pair = Pair()
    pair.relay.take(b"+++")
    await asyncio.sleep(1)
    assert (pair.line.got, pair.peer.ends) == (b"+++", [])


@pytest.mark.looptime
async def test_what_waited_unread_behind_a_full_port_is_no_escape() -> None:
    """It may have followed the data at once: nobody listened meanwhile."""
    pair = Pair(Line(room=0), rate=9600)
    pair.relay.take(b"x" * 2000)
    await asyncio.sleep(1)
    pair.line.give_room(5000)
    assert pair.peer.rooms == 1
    await asyncio.sleep(GUARD / 2)
    pair.relay.take(b"+++")
    await asyncio.sleep(1)
    assert (pair.line.got, pair.peer.ends) == (b"x" * 2000 + b"+++", [])


@pytest.mark.looptime
async def test_three_that_were_withheld_at_the_end_are_data() -> None:
    pair = Pair()
    await asyncio.sleep(1)
    pair.relay.take(b"+++")
    assert pair.relay.end() == Counts(3, 0)
    await asyncio.sleep(1)
    assert (pair.line.got, pair.peer.ends, pair.line.closed) == (b"+++", [], True)


@pytest.mark.looptime
async def test_what_waits_for_the_port_is_a_second_of_its_line() -> None:
    for rate, most in ((300, UNSENT_MIN), (9600, 960), (921600, UNSENT_MAX)):
        pair = Pair(Line(room=0), rate=rate)
        full = []
        for count in (most - 1, 1):
            pair.relay.take(b"x" * count)
            full.append(pair.relay.is_full)
        assert full == [False, True]


@pytest.mark.looptime
async def test_packets_by_size_and_time() -> None:
    pair = Pair(size=10, timeout=0.5)
    pair.line.say(b"123")
    await asyncio.sleep(0.4)
    pair.line.say(b"45")
    assert pair.peer.packets == []
    await asyncio.sleep(0.2)
    assert pair.peer.packets == [b"12345"]
    pair.line.say(b"x" * 25)
    assert pair.peer.packets[1:] == [b"x" * 25]
    pair.line.say(b"rest")
    assert pair.relay.end() == Counts(0, 34)
    assert pair.peer.packets[2:] == [b"rest"]
    await asyncio.sleep(2)
    assert len(pair.peer.packets) == 3


@pytest.mark.looptime
async def test_a_packet_that_fills_begins_the_time_of_the_next_anew() -> None:
    pair = Pair(size=10, timeout=1.0)
    pair.line.say(b"12345")
    await asyncio.sleep(0.9)
    pair.line.say(b"67890")
    pair.line.say(b"ab")
    await asyncio.sleep(0.5)
    assert pair.peer.packets == [b"1234567890"]
    await asyncio.sleep(0.6)
    assert pair.peer.packets == [b"1234567890", b"ab"]


@pytest.mark.looptime
async def test_a_port_that_is_not_read_while_the_peer_is_full() -> None:
    pair = Pair()
    pair.relay.peer_is(full=True)
    pair.line.say(b"held up")
    assert pair.peer.got == b""
    pair.relay.peer_is(full=False)
    await asyncio.sleep(0.1)
    assert pair.peer.got == b"held up"


@pytest.mark.looptime
async def test_a_port_that_is_lost() -> None:
    pair = Pair(Line(room=3))
    pair.relay.take(b"123456")
    pair.line.say(b"ab")
    pair.line.unplug()
    assert pair.peer.ends == [(End.PORT_LOST, "unplugged")]
    assert pair.relay.end() == Counts(3, 2)


@pytest.mark.looptime
async def test_when_something_passed_last() -> None:
    pair = Pair(Line(room=1))
    clock = asyncio.get_running_loop().time
    begun = clock()
    await asyncio.sleep(1)
    pair.relay.take(b"ab")
    assert pair.relay.moved == begun + 1
    await asyncio.sleep(1)
    pair.line.give_room(1)
    assert pair.relay.moved == begun + 2
    await asyncio.sleep(1)
    pair.line.say(b"c")
    assert pair.relay.moved == begun + 3


@pytest.mark.looptime
async def test_a_port_is_one_sessions_at_a_time() -> None:
    ports = ports_of(Line(), Line())
    assert ports.claim(0) == ""
    lent = await ports.open(0, 9600)
    assert "another session" in ports.claim(0)
    assert ports.claim(1) == ""
    lent.give_back()
    assert ports.claim(0) == ""


@pytest.mark.looptime
async def test_who_wants_a_port_that_is_being_given_back_waits() -> None:
    line = Line()
    ports = ports_of(line)
    ports.claim(0)
    (await ports.open(0, 9600)).give_back(b"rest")
    assert ports.claim(0) == ""
    await ports.open(0, 115200)
    assert (line.closed, line.got, line.opened_at) == (True, b"rest", [9600, 115200])


@pytest.mark.looptime
async def test_a_port_that_takes_too_long_is_free_again() -> None:
    async def never(_rate: int) -> Line:
        await asyncio.sleep(10 * OPEN_WAIT)
        raise AssertionError

    ports = Ports({3: Port((9600,), never)})
    assert ports.claim(3) == ""
    begun = asyncio.get_running_loop().time()
    with pytest.raises(TimeoutError):
        await ports.open(3, 9600)
    assert asyncio.get_running_loop().time() - begun == pytest.approx(OPEN_WAIT)
    assert ports.claim(3) == ""


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.one_of(st.sampled_from([b"+++", b"+", b"++"]), st.binary(max_size=READ))),
        st.tuples(st.just("say"), st.binary(max_size=3000)),
        st.tuples(st.just("room"), st.integers(1, 3000)),
        st.tuples(st.just("full"), st.booleans()),
        st.tuples(st.just("wait"), st.sampled_from([0.01, 0.04, 0.06, 0.3, 2.0])),
    ),
    max_size=40,
)


@given(
    steps=STEPS,
    room=st.integers(0, 2000),
    rate=st.sampled_from([300, 9600, 921600]),
    size=st.sampled_from([1, 300, 1500]),
    timeout=st.sampled_from([0.0, 0.1, 5.0]),
)
@settings(max_examples=300)
def test_no_octet_is_lost_doubled_or_out_of_place(
    steps: list[tuple[str, Any]], room: int, rate: int, size: int, timeout: float
) -> None:
    async def play() -> None:
        pair = Pair(Line(room), rate=rate, size=size, timeout=timeout)
        relay, line, peer = pair.relay, pair.line, pair.peer
        typed, said, unread = b"", b"", b""
        most = min(UNSENT_MAX, max(UNSENT_MIN, rate // 10))
        for what, value in steps:
            if peer.ends:
                break
            match what:
                case "take":  # a session reads only while there is room, and at most so much
                    unread += value
                    while unread and not relay.is_full:
                        piece, unread = unread[:READ], unread[READ:]
                        typed += piece
                        relay.take(piece)
                case "say":
                    said += value
                    line.say(value)
                case "room":
                    line.give_room(value)
                case "full":
                    relay.peer_is(full=value)
                case "wait":
                    await asyncio.sleep(value)
            assert len(relay._unsent) < most + READ + 3
            assert typed.startswith(line.got)
            assert said.startswith(bytes(peer.got))
        was_escape = bool(peer.ends)
        relay.peer_is(full=False)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        was_escape = was_escape or bool(peer.ends)
        line.give_room(1 << 20)
        counts = relay.end()
        await asyncio.sleep(1)
        assert bytes(peer.got) == said
        assert line.got == (typed.removesuffix(b"+++") if was_escape else typed)
        assert not was_escape or typed.endswith(b"+++")
        assert counts == Counts(len(line.got), len(said))
        assert all(len(packet) >= size for packet in peer.packets[:-1]) or timeout

    virtually(play())
