# SPDX-License-Identifier: Apache-2.0
"""The connection of `atrunctl fleet`, at a broker that says what it is told to."""

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from atrund.ctl.fleet_link import Link, LinkError, Message, Refused, Taken, TakenOver, Unheard, Where

WELCOME = b"\x20\x03\x00\x00\x00"
Script = dict[int, Callable[[bytes], bytes]]


class Broker:
    """Answers each packet by its type (MQTT 5 2.1.2) with what the script makes of its body; ends where that is b""."""

    def __init__(self, script: Script) -> None:
        self.packets: list[tuple[int, bytes]] = []
        self._script = {1: lambda _: WELCOME, **script}
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def where(self) -> Where:
        return Where("127.0.0.1", self._listener.getsockname()[1], version5=True, client_id="test")

    def close(self) -> None:
        self._listener.close()
        self._thread.join(10)

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection, connection.makefile("rb") as file:
            while head := file.read(1):
                length, shift = 0, 0
                while True:
                    (octet,) = file.read(1)
                    length |= (octet & 0x7F) << shift
                    shift += 7
                    if octet < 0x80:
                        break
                body = file.read(length)
                self.packets.append((head[0] >> 4, body))
                answer = self._script.get(head[0] >> 4, lambda _: b"")(body)
                if not answer:
                    return
                connection.sendall(answer)


@pytest.fixture
def broker() -> Iterator[Callable[[Script], Broker]]:
    made: list[Broker] = []

    def make(script: Script) -> Broker:
        made.append(Broker(script))
        return made[-1]

    yield make
    for one in made:
        one.close()


Make = Callable[[Script], Broker]


def mid_of(publish: bytes) -> bytes:
    length = int.from_bytes(publish[:2])
    return publish[2 + length : 4 + length]


def happenings(link: Link) -> list[object]:
    found: list[object] = []
    for _ in range(20):
        found += link.loop(0.5)
        if found:
            return found
    raise AssertionError("nothing happened")


@pytest.mark.parametrize(
    ("code", "happened"),
    [
        (b"", Taken("a")),
        (b"\x00\x00", Taken("a")),
        (b"\x10\x00", Unheard("a")),
        (b"\x97\x00", Refused("a", "Quota exceeded")),
    ],
)
def test_what_became_of_a_message(broker: Make, code: bytes, happened: object) -> None:
    link = Link(broker({3: lambda body: b"\x40" + bytes([2 + len(code)]) + mid_of(body) + code}).where)
    link.publish("t", b"x", tag="a")
    assert link.room == 19
    assert happenings(link) == [happened]
    assert link.room == 20
    link.close()


def test_a_small_broker_is_not_asked_for_more_than_it_takes(broker: Make) -> None:
    """Receive Maximum and Maximum Packet Size (MQTT 5 3.2.2.3)."""
    welcome = b"\x20\x0b\x00\x00\x08" + b"\x21\x00\x03" + b"\x27\x00\x00\x00\xc8"
    link = Link(broker({1: lambda _: welcome}).where)
    assert link.room == 3
    link.publish("t", b"x" * 200, tag="a")
    assert link.loop(0) == [Refused("a", "the broker takes packets of at most 200 octets")]
    link.close()


def test_a_client_that_was_taken_over_is_told_so(broker: Make) -> None:
    link = Link(broker({8: lambda body: b"\x90\x04" + body[:2] + b"\x00\x01" + b"\xe0\x02\x8e\x00"}).where)
    assert link.subscribe(["t"], qos=1, retained=True) == []
    with pytest.raises(TakenOver, match="another client of this name"):
        happenings(link)


def test_a_farewell_is_told_with_its_reason(broker: Make) -> None:
    link = Link(broker({8: lambda body: b"\x90\x04" + body[:2] + b"\x00\x01" + b"\xe0\x02\x97\x00"}).where)
    link.subscribe(["t"], qos=1, retained=True)
    with pytest.raises(LinkError, match="the connection was lost: Quota exceeded"):
        happenings(link)


def test_a_refused_subscription_is_named(broker: Make) -> None:
    link = Link(broker({8: lambda body: b"\x90\x05" + body[:2] + b"\x00\x01\x87"}).where)
    assert link.subscribe(["a", "b"], qos=1, retained=True) == ["b"]
    link.close()


def test_many_topics_go_in_pieces(broker: Make) -> None:
    one = broker(
        {8: lambda body: b"\x90" + bytes([3 + body.count(b"/")]) + body[:2] + b"\x00" + b"\x01" * body.count(b"/")}
    )
    link = Link(one.where)
    assert link.subscribe([f"t/{number}" for number in range(120)], qos=1, retained=True) == []
    assert [body.count(b"/") for kind, body in one.packets if kind == 8] == [50, 50, 20]
    link.close()


def test_a_message_is_acknowledged_when_the_loop_goes_on(broker: Make) -> None:
    message = b"\x32\x07\x00\x01t\x00\x07\x00x"
    one = broker({8: lambda body: b"\x90\x04" + body[:2] + b"\x00\x01" + message, 4: lambda _: message})
    link = Link(one.where)
    link.subscribe(["t"], qos=1, retained=True)
    assert happenings(link) == [Message("t", b"x", retained=False)]
    assert 4 not in [kind for kind, _ in one.packets]
    assert happenings(link) == [Message("t", b"x", retained=False)]
    assert (4, b"\x00\x07") in [(kind, body[:2]) for kind, body in one.packets]
    link.close()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"\x20\x03\x00\x86\x00", "lets this user not in: Bad user name or password"),
        (b"", "no connection to 127.0.0.1 port"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "no connection to 127.0.0.1 port"),
    ],
)
def test_one_that_does_not_let_us_in(broker: Make, answer: bytes, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atrund.ctl.fleet_link.CONNECT_WAIT", 2.0)
    with pytest.raises(LinkError, match=words):
        Link(broker({1: lambda _: answer}).where)


def test_one_that_says_nothing(broker: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atrund.ctl.fleet_link.CONNECT_WAIT", 0.3)
    silence = threading.Event()
    one = broker({1: lambda _: bytes(silence.wait(5) * 0)})
    with pytest.raises(LinkError, match=r"says nothing to the connection within 0\.3 s"):
        Link(one.where)
    silence.set()


def test_no_password_is_shown() -> None:
    assert "geheim" not in repr(Where("h", 1, version5=True, client_id="c", user="u", password="geheim"))
