# SPDX-License-Identifier: Apache-2.0
import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from atrund.module.channel import Channel
from atrund.module.store import (
    UNREAD_MAX,
    ModuleRefusedError,
    Store,
    Stored,
    StoreError,
    UnknownFateError,
    Unread,
)
from atrund.sim.faults import Plant
from atrund.sim.module import SimModule
from atrund.sim.state import Options
from atrund.sim.store import Message, Status
from atrund.sms.dcs import DEFAULT_DCS
from atrund.sms.pdu import Address, Submit, UserData
from tests.support.virtual import FRIEND, PORT, Wire, deliver

pytestmark = pytest.mark.looptime

SUBMIT = Submit(Address.parse(FRIEND), UserData.from_text("hello", DEFAULT_DCS), DEFAULT_DCS)


class Bench:
    def __init__(self, channel: Channel, wire: Wire) -> None:
        self.channel: Channel | None = channel
        self.wire = wire
        self.module = wire.module
        self.memory = "SM"
        self.store = Store(lambda: self.channel, lambda: self.memory)

    def put(self, text: str, memory: str = "SM", status: Status = Status.REC_UNREAD) -> int:
        index = self.module.store.add(memory, Message(status, deliver(text).encode()))
        assert index is not None
        return index

    def seen(self) -> list[str]:
        out = self.wire.seen
        assert self.wire.end is not None
        self.wire.end.sim.seen.clear()
        return out


@contextlib.asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    wire = Wire(SimModule(Options()))
    channel = Channel(unsolicited=lambda _: None, on_lost=lambda _: None)
    channel.attach(await wire.open(PORT, 115200, channel))
    async with channel.turn("daemon") as turn:
        await turn.ask("ATE0V1Q0")
        await turn.ask("AT+CMEE=1")
    channel.confirm()
    yield Bench(channel, wire)
    channel.close()
    wire.module.close()
    await asyncio.sleep(0)


def pdu(text: str) -> str:
    return deliver(text).encode().hex().upper()


async def test_all_received_messages_are_listed_read_or_not() -> None:
    async with bench() as b:
        b.put("one")
        b.put("two", status=Status.REC_READ)
        b.module.store.add("SM", Message(Status.STO_UNSENT, SUBMIT.encode()))
        b.module.store.add("SM", Message(Status.STO_SENT, SUBMIT.encode()))
        b.put("elsewhere", "ME")
        assert await b.store.messages() == [Stored("SM", 1, pdu("one")), Stored("SM", 2, pdu("two"))]


async def test_an_empty_store_lists_nothing() -> None:
    async with bench() as b:
        assert await b.store.messages() == []


async def test_what_another_door_changed_is_put_in_place_first() -> None:
    async with bench() as b:
        b.put("one")
        assert b.channel is not None
        async with b.channel.turn("tcp") as turn:
            await turn.ask('AT+CMGF=1;+CPMS="ME","ME","ME"')
        assert [stored.pdu for stored in await b.store.messages()] == [pdu("one")]
        async with b.channel.turn("tcp") as turn:
            await turn.ask('AT+CMGF=1;+CPMS="ME","ME","ME"')
        assert await b.store.read("SM", 1) == Stored("SM", 1, pdu("one"))
        async with b.channel.turn("tcp") as turn:
            await turn.ask("AT+CMGF=1")
        assert (await b.store.send(SUBMIT.encode(), SUBMIT.tpdu_length)).final.ok


async def test_an_empty_place_reads_as_nothing() -> None:
    async with bench() as b:
        assert await b.store.read("SM", 7) is None


async def test_a_read_that_is_refused_says_so() -> None:
    async with bench() as b:
        b.module.faults.plant("+CMGR", Plant(final="+CMS ERROR: 314"))
        with pytest.raises(StoreError, match=r"\+CMGR: \+CMS ERROR: 314"):
            await b.store.read("SM", 1)


async def test_a_message_is_deleted_in_the_turn_in_which_it_was_read_again() -> None:
    async with bench() as b:
        b.put("one")
        (stored,) = await b.store.messages()
        b.seen()
        assert await b.store.delete(stored)
        assert b.seen() == ['AT+CMGF=0;+CPMS="SM","SM","SM"', "AT+CMGR=1", "AT+CMGD=1"]
        assert b.module.store.used("SM") == 0


async def test_another_message_at_its_place_is_spared() -> None:
    async with bench() as b:
        b.put("one")
        (stored,) = await b.store.messages()
        b.module.store.delete("SM", 1)
        b.put("another")
        assert not await b.store.delete(stored)
        assert b.module.store.used("SM") == 1


async def test_one_that_is_gone_already_is_gone() -> None:
    async with bench() as b:
        assert await b.store.delete(Stored("SM", 1, pdu("one")))


async def test_a_refused_deletion_is_told() -> None:
    async with bench() as b:
        b.put("one")
        b.module.faults.plant("+CMGD", Plant(final="+CMS ERROR: 500"))
        assert not await b.store.delete(Stored("SM", 1, pdu("one")))


async def test_another_memory_is_visited_and_left_again() -> None:
    async with bench() as b:
        b.put("there", "ME")
        stored = await b.store.read("ME", 1)
        assert stored == Stored("ME", 1, pdu("there"))
        assert b.module.store.memory3 == "SM"
        assert await b.store.delete(stored)
        assert (b.module.store.used("ME"), b.module.store.memory3) == (0, "SM")
        b.put("there", "ME")
        b.module.faults.plant("+CMGR", Plant(final="+CMS ERROR: 500"))
        with pytest.raises(StoreError):
            await b.store.read("ME", 1)
        assert b.module.store.memory3 == "SM"


async def test_before_a_memory_is_known_none_is_put_in_place() -> None:
    async with bench() as b:
        b.put("one")
        b.memory = ""
        assert not b.store.ready
        assert await b.store.read("SM", 1) == Stored("SM", 1, pdu("one"))
        assert b.wire.seen[-1] == "AT+CMGR=1"


@pytest.mark.parametrize(
    "lines",
    [
        ("+CMGL:",),
        ("+CMGL: 1",),
        ("+CMGL: x,1,,20", "00"),
        ("rubbish", "more"),
        ("+CMGL: 99999999999999999999,7,,20", "00"),
        ("+CMGL: 1,0,,20",),
    ],
)
async def test_a_listing_without_sense_lists_nothing(lines: tuple[str, ...]) -> None:
    async with bench() as b:
        b.module.faults.plant("+CMGL", Plant(lines=lines, final="OK"))
        assert await b.store.messages() == []


async def test_a_code_between_header_and_pdu_disturbs_nothing() -> None:
    async with bench() as b:
        lines = ("+CMGL: 1,0,,20", "RING", pdu("one"), "+CREG: 1", "+CMGL: 2,1,,20", pdu("two"))
        b.module.faults.plant("+CMGL", Plant(lines=lines, final="OK"))
        assert [stored.pdu for stored in await b.store.messages()] == [pdu("one"), pdu("two")]


async def test_sending_tells_the_reference_or_the_error() -> None:
    async with bench() as b:
        sent = await b.store.send(SUBMIT.encode(), SUBMIT.tpdu_length)
        assert (sent.reference, sent.final.ok) == (0, True)
        b.module.faults.plant("+CMGS", Plant(final="+CMS ERROR: 38"))
        sent = await b.store.send(SUBMIT.encode(), SUBMIT.tpdu_length)
        assert (sent.reference, sent.final.code) == (None, 38)
        b.module.faults.plant("+CMGS", Plant(final="OK"))
        sent = await b.store.send(SUBMIT.encode(), SUBMIT.tpdu_length)
        assert (sent.reference, sent.final.ok) == (None, True)
        assert len(b.module.network.sent) == 1


async def test_sending_without_a_result_leaves_the_fate_unknown() -> None:
    async with bench() as b:
        b.module.faults.plant("+CMGS", Plant(seconds=1000))
        with pytest.raises(UnknownFateError, match="no final result within 180 s"):
            await b.store.send(SUBMIT.encode(), SUBMIT.tpdu_length)


async def test_sending_over_a_port_that_goes_leaves_the_fate_unknown() -> None:
    async with bench() as b:
        asyncio.get_running_loop().call_later(0.2, b.wire.lose)
        with pytest.raises(UnknownFateError, match="unplugged"):
            await b.store.send(SUBMIT.encode(), SUBMIT.tpdu_length)


async def test_what_was_refused_before_it_was_begun_has_a_known_fate() -> None:
    async with bench() as b:
        b.module.faults.plant("+CMGF", Plant(final="ERROR"))
        with pytest.raises(StoreError) as caught:
            await b.store.send(SUBMIT.encode(), SUBMIT.tpdu_length)
        assert not isinstance(caught.value, UnknownFateError)
        b.wire.lose()
        with pytest.raises(StoreError) as caught:
            await b.store.send(SUBMIT.encode(), SUBMIT.tpdu_length)
        assert not isinstance(caught.value, UnknownFateError)
        assert list(b.module.network.sent) == []


async def test_without_a_port_nothing_can_be_done() -> None:
    async with bench() as b:
        b.channel = None
        assert not b.store.ready
        for act in (
            b.store.messages(),
            b.store.read("SM", 1),
            b.store.delete(Stored("SM", 1, "")),
            b.store.send(b"", 7),
        ):
            with pytest.raises(StoreError, match="absent or being set up"):
                await act


def memory_of(b: Bench) -> tuple[str, str]:
    assert b.wire.end is not None
    return b.wire.end.sim.settings.mem1, b.module.store.memory3


async def test_every_memory_is_swept_and_each_left_as_it_was_found() -> None:
    """MOD-5, and MOD-3's one memory for all of +CPMS."""
    async with bench() as b:
        b.put("here")
        b.put("there", "ME")
        assert await b.store.memories() == ("SM", "ME")
        b.seen()
        assert await b.store.messages(everywhere=True) == [Stored("SM", 1, pdu("here")), Stored("ME", 1, pdu("there"))]
        assert memory_of(b) == ("SM", "SM")
        assert b.seen() == [
            'AT+CMGF=0;+CPMS="SM","SM","SM"',
            "AT+CMGL=4",
            "AT+CPMS=?",
            'AT+CMGF=0;+CPMS="ME"',
            "AT+CMGL=4",
            'AT+CMGF=0;+CPMS="SM","SM","SM"',
        ]


async def test_while_another_memory_is_swept_what_comes_in_goes_where_it_always_goes() -> None:
    async with bench() as b:
        b.module.faults.plant("+CMGL", Plant(1, seconds=2.0))
        sweep = asyncio.create_task(b.store.sweep("ME"))
        await asyncio.sleep(1)
        assert memory_of(b) == ("ME", "SM")
        b.module.network.deliver(deliver("meanwhile").encode())
        await sweep
        assert [stored.pdu for stored in await b.store.messages()] == [pdu("meanwhile")]


@pytest.mark.parametrize(
    ("answer", "memories"),
    [
        ('+CPMS: ("SM"),("SM"),("SM")', ("SM",)),
        ('+CPMS: ("ME","MT","SM","SR"),("ME","SM"),("ME","SM")', ("SM", "ME")),
        ('+CPMS: ("BM","SR"),("SM"),("SM")', ()),
        ("+CPMS:", ()),
    ],
)
async def test_the_memories_are_those_that_can_be_read(answer: str, memories: tuple[str, ...]) -> None:
    async with bench() as b:
        b.module.faults.plant("+CPMS=?", Plant(None, lines=(answer,), final="OK"))
        assert await b.store.memories() == memories


async def test_one_that_does_not_open_is_said_once_and_holds_up_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    async with bench() as b:
        b.put("here")
        b.module.faults.plant('+CPMS="ME"', Plant(2, final="+CMS ERROR: 302"))
        for _ in range(2):
            assert [stored.memory for stored in await b.store.messages(everywhere=True)] == ["SM"]
        assert memory_of(b) == ("SM", "SM")
        assert capsys.readouterr().out.count("memory not swept") == 1
        b.put("there", "ME")
        assert [stored.memory for stored in await b.store.messages(everywhere=True)] == ["SM", "ME"]


async def test_a_sweep_that_fails_elsewhere_comes_back_all_the_same() -> None:
    async with bench() as b:
        b.module.faults.plant("+CMGL", Plant(1, final="+CMS ERROR: 500"))
        with pytest.raises(StoreError, match=r"\+CMGL: \+CMS ERROR: 500"):
            await b.store.sweep("ME")
        assert memory_of(b) == ("SM", "SM")


async def test_after_one_that_got_no_answer_the_next_puts_the_memory_in_place() -> None:
    async with bench() as b:
        b.put("here")
        b.module.faults.plant("+CMGL", Plant(1, seconds=62.0))
        with pytest.raises(StoreError, match="no final result"):
            await b.store.sweep("ME")
        assert [stored.pdu for stored in await b.store.messages()] == [pdu("here")]
        assert memory_of(b) == ("SM", "SM")


async def test_who_has_the_port_for_it_is_told() -> None:
    async with bench() as b:
        assert b.channel is not None
        b.module.faults.plant("+CMGL", Plant(1, seconds=2.0))
        sweep = asyncio.create_task(b.store.messages())
        await asyncio.sleep(1)
        holder, waiting = b.channel.line_up
        assert holder is not None
        assert (holder.asker, holder.what, waiting) == ("sms", "+CMGL", ())
        await sweep


async def test_what_the_daemon_read_first_stays_known_as_unread() -> None:
    """+CMGL and +CMGR mark what they show as read (TS 27.005 3.4.2, 3.4.3)."""
    async with bench() as b:
        b.put("old", status=Status.REC_READ)
        b.put("one")
        b.put("two")
        await b.store.read("SM", 3)
        assert (pdu("one") in b.store.unread, pdu("two") in b.store.unread) == (False, True)
        for _ in range(2):
            await b.store.messages()
            assert [pdu(text) in b.store.unread for text in ("old", "one", "two")] == [False, True, True]
        assert await b.store.delete(Stored("SM", 2, pdu("one")))
        assert pdu("one") not in b.store.unread
        b.store.unread.discard(pdu("two"))
        await b.store.messages()
        assert pdu("two") not in b.store.unread


async def test_one_that_was_garbled_at_first_stays_known_as_unread() -> None:
    async with bench() as b:
        b.put("one")
        b.module.faults.plant("+CMGL", Plant(1, lines=("+CMGL: 1,0,,20", "00"), final="OK"))
        assert [stored.pdu for stored in await b.store.messages(doubted=lambda _: True)] == [pdu("one")]
        assert pdu("one") in b.store.unread
        assert "00" not in b.store.unread


async def test_not_more_than_a_module_holds_are_known_as_unread() -> None:
    unread = Unread()
    for number in range(UNREAD_MAX + 1):
        unread.add(str(number))
    assert "0" not in unread
    assert all(str(number) in unread for number in range(1, UNREAD_MAX + 1))


async def test_within_somebodys_turn_all_states_are_listed() -> None:
    async with bench() as b:
        b.put("one")
        b.module.store.add("SM", Message(Status.STO_SENT, SUBMIT.encode()))
        b.put("two", status=Status.REC_READ)
        assert b.channel is not None
        async with b.channel.turn("tcp") as turn:
            listed = await b.store.look(turn, "SM")
            assert [(one.index, one.state) for one in listed] == [(1, 0), (2, 3), (3, 1)]
            assert [one.received is None for one in listed] == [False, True, False]
            assert await b.store.look(turn, "SM", states="0") == []
            found = await b.store.look_at(turn, "SM", 2)
            assert found is not None
            assert (found.state, found.received) == (3, None)
            assert await b.store.look_at(turn, "SM", 4) is None
            b.module.faults.plant("+CMGL", Plant(final="+CMS ERROR: 314"))
            with pytest.raises(ModuleRefusedError) as caught:
                await b.store.look(turn, "SM")
        assert caught.value.final.code == 314


async def test_how_full_a_memory_is_is_known_after_each_visit() -> None:
    async with bench() as house:
        assert (house.store.uses, house.store.home) == ({}, "SM")
        house.put("hello")
        await house.store.messages(everywhere=True)
        assert house.store.uses == {"SM": (1, 20), "ME": (0, 50)}
        house.put("hello again")
        await house.store.read("SM", 2)
        assert house.store.uses["SM"] == (2, 20)


@pytest.mark.parametrize("lines", [(), ("+CPMS: ",), ("+CPMS: x,20,1,20,1,20",), ("+CPMS: 1,,1,20",), ("+CPMS: 1",)])
async def test_what_tells_no_numbers_leaves_it_unknown(lines: tuple[str, ...]) -> None:
    async with bench() as house:
        await house.store.sweep("SM")
        house.module.faults.plant("+CPMS", Plant(final="OK", lines=lines))
        await house.store.sweep("SM")
        assert house.store.uses == {}
