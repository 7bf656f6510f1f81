# SPDX-License-Identifier: Apache-2.0
"""The SMS door in virtual time, with the simulated module in process."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from atrund.atrun import message
from atrund.atrun.message import AtRun, NotAtRun
from atrund.config.values import Sms
from atrund.doors import serving, verdicts
from atrund.doors import sms as sms_door
from atrund.sim.faults import Plant
from atrund.sim.state import Options
from atrund.sim.store import Message, Status
from atrund.sms.digest import build_request, parse_response
from atrund.sms.pdu import Concatenation, Deliver, Element, UserData, decode_deliver, decode_submit
from tests.support.lives import Held, Lives
from tests.support.marked import Marked, line_of, until
from tests.support.texting import (
    NOTES_DCS,
    SIGNAL,
    UCS2,
    living,
    lying,
    put,
    raw,
    refusal,
    rules,
    show,
    texts,
    tries,
)
from tests.support.virtual import FRIEND, PASSWORD, STRANGER, config, deliver

pytestmark = pytest.mark.looptime

NOTE_SUBMIT = (
    "079193432900200011000C919343868676110015AD26D0D0D000110157696A437032715633734E7"
    "62B61727532305A5561773D3D41542B434F50533F"
)
NOTE_DELIVER = (
    "0791934329002000040C9193438686761100158050922102818040D1D1D10011014A756E726137723"
    "06B494563483971563534326E33513D3D0D0A2B434F50533A20302C302C22766F6461666F6E6520"
    "4954220D0A0D0A4F4B0D0A"
)


# Which messages are run, and how they are answered.


@pytest.mark.parametrize("text", ["AT+CSQ", "at+csq", "  AT+CSQ ", "At+Csq"])
async def test_a_simple_sms_is_answered_and_removed(text: str) -> None:
    """SMS-3, SMS-6, SMS-7."""
    async with living() as (lives, house):
        house.sms(text)
        await asyncio.sleep(5)
        assert house.sent == [(FRIEND, SIGNAL)]
        assert [end for _, end, _ in house.outcomes] == ["ok"]
        assert lying(lives) == 0


async def test_hat_is_run_and_never_answered() -> None:
    """SMS-7: neither a result nor a refusal."""
    async with living() as (lives, house):
        house.sms("HAT+CSQ")
        house.sms("hAT+CFUN=4")
        await asyncio.sleep(5)
        assert house.sent == []
        assert house.outcomes == [("AT+CFUN=4", "rejected", "policy"), ("AT+CSQ", "ok", None)]
        assert lives.wire.ran("AT+CSQ") == 1
        assert lying(lives) == 0


async def test_both_messages_of_the_note_octet_for_octet() -> None:
    """SMS-9: the note's request comes in, the note's answer goes out, from a sender on no list."""
    request, answer = decode_submit(NOTE_SUBMIT), decode_deliver(NOTE_DELIVER)
    async with living(rules(numbers=())) as (lives, house):
        raw(house, request.user_data.content, STRANGER, dcs=request.dcs.octet)
        await asyncio.sleep(5)
        (sent,) = house.module.network.sent
        submit = decode_submit(sent.pdu)
        assert (submit.user_data.encode(), submit.dcs.octet) == (answer.user_data.encode(), NOTES_DCS)
        assert sent.to == STRANGER
        assert lying(lives) == 0


async def test_a_stranger_gets_nothing_and_is_recorded_once() -> None:
    """SMS-13."""
    async with living() as (lives, house):
        house.sms("AT+CSQ", STRANGER)
        house.sms("AT+CSQ", "VODAFONE")
        house.sms("hello", FRIEND)
        raw(house, build_request("0" * 16, b"AT+CSQ"), FRIEND)
        await asyncio.sleep(300)
        assert house.sent == []
        assert house.outcomes == []
        assert sorted(str(why) for what, why in house.told if what == "sms not accepted") == [
            "comes from no number of the white list",
            "comes from no number of the white list",
            "does not begin with AT or HAT",
            "has a digest of no password here",
        ]
        assert lives.wire.ran("AT+CSQ") == 0
        assert lying(lives) == 4


@pytest.mark.parametrize(
    ("line", "reason"),
    [("AT+CFUN=4", "policy"), ('AT+CMGS="1"', "prompt_unsupported"), ("AT+CSQ\r\r", "bad_request")],
)
async def test_one_that_is_refused_gets_one_short_answer(line: str, reason: str) -> None:
    """SMS-13."""
    async with living() as (lives, house):
        house.sms(line)
        await asyncio.sleep(200)
        assert texts(house) == [refusal(reason)]
        assert lying(lives) == 0


async def test_an_old_one_is_recorded_as_expired_and_not_run() -> None:
    """SMS-2."""
    async with living() as (lives, house):
        house.sms("AT+CSQ", age=86500)
        house.sms("AT+COPS?", age=86000)
        await asyncio.sleep(5)
        assert ("AT+CSQ", "expired", "expired") in house.outcomes
        assert refusal("expired") in texts(house)
        assert (lives.wire.ran("AT+CSQ"), lives.wire.ran("AT+COPS?")) == (0, 1)
        assert lying(lives) == 0


@pytest.mark.parametrize("known", [True, False])
async def test_without_a_known_clock_or_a_limit_none_is_too_old(*, known: bool) -> None:
    """REQ-11, SMS-2."""
    lives = Lives(rules(max_age=0.0) if known else None)
    lives.clock.synchronised = known
    house = await lives.start()
    house.sms("AT+CSQ", age=10 * 86400)
    await asyncio.sleep(5)
    assert house.outcomes == [("AT+CSQ", "ok", None)]
    await lives.end()


async def test_phones_quotes_are_straightened_and_the_answer_keeps_the_alphabet() -> None:
    """SMS-3, SMS-8."""
    async with living() as (lives, house):
        lives.module.faults.plant("+CPBF", Plant(lines=("+CPBF: 1",), final="OK"))
        house.sms("AT+CPBF=\u201cx\u201d", dcs=UCS2)
        await asyncio.sleep(5)
        assert house.outcomes == [('AT+CPBF="x"', "ok", None)]
        (sent,) = house.module.network.sent
        assert (sent.alphabet, sent.text) == ("ucs2", "\r\n+CPBF: 1\r\n\r\nOK\r\n")


async def test_ucs2_is_none_of_ours_the_vendors_way_or_with_other_characters() -> None:
    """SMS-3."""
    async with living(rules(ucs2="vendor")) as (_, house):
        house.sms("AT+CSQ", dcs=UCS2)
        await asyncio.sleep(5)
        assert (house.sent, house.outcomes) == ([], [])
    async with living() as (_, house):
        house.sms("AT+CSQ\u0416", dcs=UCS2)
        await asyncio.sleep(5)
        assert (house.sent, house.outcomes) == ([], [])


@pytest.mark.parametrize("line", ["AT\\R", "AT^CURC=0"])
async def test_eight_bit_carries_what_seven_bit_makes_hard(line: str) -> None:
    """SMS-3; the note's 2.5.1."""
    async with living() as (lives, house):
        lives.module.faults.plant("^CURC", Plant(lines=("{[^]}\\",), final="OK"))
        raw(house, line.encode())
        await asyncio.sleep(5)
        assert lives.wire.ran(line) == 1
        (sent,) = house.module.network.sent
        assert sent.alphabet == "8bit" or sent.alphabet.startswith("8")
        assert sent.text == ("\r\n{[^]}\\\r\n\r\nOK\r\n" if "^" in line else "\r\nOK\r\n")


async def test_extension_characters_of_an_answer_stay_and_what_the_alphabet_lacks_is_a_question_mark() -> None:
    """SMS-8."""
    async with living() as (lives, house):
        lives.module.faults.plant("+CSQ", Plant(lines=("{[~^|]}\\", "\xc3o"), final="OK"))
        house.sms("AT+CSQ")
        await asyncio.sleep(5)
        assert texts(house) == ["\r\n{[~^|]}\\\r\n?o\r\n\r\nOK\r\n"]


async def test_a_long_answer_is_concatenated() -> None:
    """SMS-8."""
    async with living() as (lives, house):
        lines = tuple(f"line {number:02} " + "{x}" * 30 for number in range(6))
        lives.module.faults.plant("+CSQ", Plant(lines=lines, final="OK"))
        house.sms("AT+CSQ")
        await asyncio.sleep(30)
        submits = [decode_submit(sent.pdu) for sent in house.module.network.sent]
        found = [submit.user_data.concatenation for submit in submits]
        assert all(found)
        assert {(part.total, part.reference) for part in found if part} == {(len(submits), found[0].reference)}  # type: ignore[union-attr]
        assert [part.index for part in found if part] == list(range(1, len(submits) + 1))
        assert "".join(submit.user_data.text for submit in submits) == "\r\n" + "\r\n".join(lines) + "\r\n\r\nOK\r\n"


@pytest.mark.parametrize("digest", [False, True])
async def test_an_answer_ends_after_15_parts_and_that_is_recorded(*, digest: bool) -> None:
    """SMS-8."""
    async with living(rules(answers_per_hour=100)) as (lives, house):
        lives.module.faults.plant("+CSQ", Plant(lines=("0123456789" * 9,) * 60, final="OK"))
        if digest:
            raw(house, build_request(PASSWORD, b"AT+CSQ", 3, 9), STRANGER)
        else:
            house.sms("AT+CSQ")
        await asyncio.sleep(60)
        sent = [decode_submit(sent.pdu).user_data for sent in house.module.network.sent]
        assert len(sent) == 15
        assert ("answer cut", "after 15 parts, the most there are") in house.told
        if digest:
            parts = [parse_response(data.content) for data in sent]
            found = [(p.index, p.total, p.transaction, p.session, p.matches([PASSWORD])) for p in parts if p]
            assert found == [(number, 15, 3, 9, 0) for number in range(1, 16)]
        assert lying(lives) == 0


# Which are new.


async def test_what_lay_there_at_the_very_first_start_is_seen_and_not_run() -> None:
    """SMS-2."""
    lives = Lives()
    put(lives)
    house = await lives.start()
    put(lives, "AT+COPS?")
    house.sms("AT+CIMI")
    await asyncio.sleep(100)
    assert sorted(line for line, _, _ in house.outcomes) == ["AT+CIMI", "AT+COPS?"]
    await lives.kill()
    house = await lives.start()
    await asyncio.sleep(100)
    assert (lives.wire.ran("AT+CSQ"), lying(lives)) == (0, 1)
    await lives.end()


async def test_what_came_while_the_service_was_off_is_seen_and_what_came_while_the_daemon_was_down_is_run() -> None:
    """SMS-2."""
    lives = Lives()
    await lives.start()
    await lives.kill()
    put(lives, "AT+CIMI")
    house = await lives.start()
    await asyncio.sleep(5)
    assert house.outcomes == [("AT+CIMI", "ok", None)]
    await lives.kill()
    house = await lives.start(config(sms=Sms()))
    house.sms("AT+CSQ")
    await asyncio.sleep(5)
    await lives.kill()
    house = await lives.start()
    house.sms("AT+COPS?")
    await asyncio.sleep(100)
    assert [line for line, _, _ in house.outcomes] == ["AT+CIMI", "AT+COPS?"]
    assert lives.wire.ran("AT+CSQ") == 0
    await lives.end()


async def test_one_announced_while_the_first_look_is_recorded_is_run_at_once() -> None:
    """SMS-2: what lay there is being marked, and this one came later."""
    async with living(wait=False) as (lives, house):
        door = house.daemon.sms
        assert door is not None
        held = Held(lives.disk)
        await until(lambda: held.kept)
        assert door.state == "waiting"
        house.sms("AT+CSQ")
        await asyncio.sleep(2)
        assert (door.state, house.outcomes) == ("waiting", [])
        held.release()
        await asyncio.sleep(5)
        assert house.outcomes == [("AT+CSQ", "ok", None)]
        assert door.state == "open"


async def test_the_door_is_open_only_while_a_module_is_there_that_was_looked_at() -> None:
    async with living(wait=False) as (lives, house):
        door = house.daemon.sms
        assert door is not None
        assert door.state == "waiting"
        await until(lambda: door.state == "open")
        lives.wire.absent = "no such device"
        lives.wire.lose()
        await asyncio.sleep(1)
        assert door.state == "waiting"
        put(lives)
        lives.wire.absent = ""
        await until(lambda: door.state == "open", 300)
        await asyncio.sleep(5)
        assert house.outcomes == [("AT+CSQ", "ok", None)]


async def test_one_message_shown_in_every_way_is_run_once() -> None:
    """SMS-11."""
    async with living() as (lives, house):
        pdu = deliver("AT+CSQ", at=lives.clock.now()).encode()
        house.module.network.deliver(pdu)
        length = len(pdu) - 1 - pdu[0]
        lives.wire.inject(f"\r\n+CMT: ,{length}\r\n{pdu.hex().upper()}\r\n".encode())
        lives.wire.inject(b'\r\n+CMTI: "SM",1\r\n')
        assert house.daemon.sms is not None
        house.daemon.sms.look()
        await asyncio.sleep(5)
        assert house.module.store.add("SM", Message(Status.REC_READ, pdu)) is not None
        await asyncio.sleep(200)
        assert (lives.wire.ran("AT+CSQ"), texts(house), len(house.outcomes)) == (1, [SIGNAL], 1)
        assert lying(lives) == 0


async def test_one_that_is_only_shown_is_run() -> None:
    """MOD-5: +CMT is accepted anyway, while the first look is recorded too, for it lies in no store."""
    async with living(wait=False) as (lives, house):
        held = Held(lives.disk)
        await until(lambda: held.kept)
        pdu = deliver("AT+CSQ", at=lives.clock.now()).encode()
        lives.wire.inject(f"\r\n+CMT: ,{len(pdu) - 1 - pdu[0]}\r\n{pdu.hex().upper()}\r\n".encode())
        await asyncio.sleep(1)
        held.release()
        await asyncio.sleep(5)
        assert texts(house) == [SIGNAL]


async def test_the_sweep_finds_what_nobody_announced() -> None:
    """MOD-5."""
    async with living() as (lives, house):
        await asyncio.sleep(5)
        put(lives)
        await asyncio.sleep(61)
        assert texts(house) == [SIGNAL]
        assert lying(lives) == 0


async def test_one_in_another_memory_is_run_and_removed() -> None:
    """MOD-5: +CMTI names it."""
    async with living(options=Options(quirks=(("class1_me", True),))) as (lives, house):
        house.sms("AT+CSQ", dcs=0x11)
        assert lives.module.store.used("ME") == 1
        await asyncio.sleep(5)
        assert texts(house) == [SIGNAL]
        assert lying(lives) == 0
        house.sms("AT+COPS?")
        await asyncio.sleep(5)
        assert lying(lives) == 0


async def test_a_full_store_is_emptied_as_its_messages_are_served() -> None:
    async with living(rules(make_room="never"), Options(sm_slots=3)) as (lives, house):
        put(lives, "hello", STRANGER)
        for number in range(6):
            house.sms(f"AT#GPIO={number + 1},2")
        await asyncio.sleep(120)
        assert [(end, why) for _, end, why in house.outcomes] == [("ok", None)] * 6
        assert (len(house.sent), lying(lives), lives.module.network.held) == (6, 1, 0)


async def test_a_store_full_of_requests_is_no_queue_that_overflows() -> None:
    lives = Lives(options=Options(sm_slots=50))
    await lives.start()
    await lives.kill()
    for number in range(45):
        put(lives, "HAT+CSQ", age=float(number))
    house = await lives.start()
    await asyncio.sleep(60)
    assert [(end, why) for _, end, why in house.outcomes] == [("ok", None)] * 45
    assert lying(lives) == 0
    await lives.end()


# What is none of ours.


async def test_what_is_no_message_is_told_once_and_left() -> None:
    lives = Lives()
    house = await lives.start()
    lives.module.store.add("SM", Message(Status.REC_UNREAD, b"\x00\x04\xff\xff"))
    lives.wire.inject(b'\r\n+CMTI: "SM",1\r\n')
    looks = tries(lives, b"AT+CMGL")
    await asyncio.sleep(600)
    assert len(looks) <= 12
    house.sms("AT+CSQ")
    await asyncio.sleep(5)
    assert (texts(house), lying(lives)) == ([SIGNAL], 1)
    await lives.kill()
    house = await lives.start()
    await asyncio.sleep(5)
    assert [what for what, _ in house.told].count("sms not understood") == 1
    await lives.end()


async def test_parts_and_headers_are_left_alone_and_block_nothing() -> None:
    """SMS-5."""
    async with living() as (lives, house):
        whole = deliver("AT+CSQ", at=lives.clock.now())
        for index in (1, 2):
            header = (Element.concatenated(Concatenation(7, 3, index)),)
            part = replace(whole, user_data=UserData(whole.user_data.alphabet, whole.user_data.content, header))
            house.module.network.deliver(part.encode())
        house.sms("AT+COPS?")
        await asyncio.sleep(200)
        assert [line for line, _, _ in house.outcomes] == ["AT+COPS?"]
        assert lives.wire.ran("AT+CSQ") == 0
        assert lying(lives) == 2


async def test_a_fault_in_reading_one_message_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def judge(deliver: Deliver, *given: Sequence[str], convert_ucs2: bool) -> AtRun | NotAtRun:
        if deliver.originator.text == STRANGER:
            raise ZeroDivisionError
        return message.judge(deliver, given[0], given[1], convert_ucs2=convert_ucs2)

    monkeypatch.setattr(sms_door, "judge", judge)
    async with living() as (_, house):
        house.sms("AT+CSQ", STRANGER)
        house.sms("AT+CSQ")
        await asyncio.sleep(100)
        assert texts(house) == [SIGNAL]
        assert ("sms not accepted", "is not understood: ZeroDivisionError") in house.told


async def test_verdicts_have_a_cap_and_none_on_what_lies_there_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdicts, "VERDICTS_MAX", 4)
    lives = Lives()
    put(lives)
    house = await lives.start()
    door = house.daemon.sms
    assert door is not None
    for number in range(20):
        house.sms(f"HAT#GPIO={number % 10 + 1},2")
        await asyncio.sleep(10)
        assert len(door._verdicts) <= 5
    await asyncio.sleep(100)
    assert lives.wire.ran("AT+CSQ") == 0
    assert lying(lives) == 1
    assert len(door._verdicts) == 4
    await lives.end()


# Deletion.


async def test_only_what_was_read_again_is_deleted() -> None:
    """SMS-11: an index may have been reused meanwhile."""
    async with living() as (lives, house):
        marked = lives.module.faults = Marked()
        marked.pace[7] = (5.0, 0.0, 0.0)
        house.sms(line_of(7))
        await asyncio.sleep(2)
        lives.module.store.delete("SM", 1)
        put(lives, "hello", STRANGER)
        await asyncio.sleep(300)
        assert len(house.sent) == 1
        assert [message.pdu for _, message in lives.module.store.messages("SM")] != []
        assert lives.wire.wrote(b"AT+CMGD") == 0


@pytest.mark.parametrize("memory", ["SM", "ME"])
async def test_one_that_can_not_be_deleted_causes_no_loop(memory: str) -> None:
    async with living(options=Options(quirks=(("class1_me", memory == "ME"),))) as (lives, house):
        lives.module.faults.plant("+CMGD", Plant(None, final="+CMS ERROR: 500"))
        times = tries(lives, b"AT+CMGD")
        house.sms("AT+CSQ", dcs=0x11)
        await asyncio.sleep(3600)
        assert 2 <= len(times) <= 8
        await asyncio.sleep(3 * 3600)
        assert len(times) <= 12
        lives.module.faults.clear()
        await asyncio.sleep(2 * 3600)
        assert lying(lives) == 0
        assert (len(house.outcomes), len(house.sent)) == (1, 1)


async def test_a_module_that_refuses_to_read_is_asked_again() -> None:
    async with living() as (lives, house):
        lives.module.faults.plant("+CMGR", Plant(2, final="+CMS ERROR: 500"))
        house.sms("AT+CSQ")
        await asyncio.sleep(200)
        assert (texts(house), lying(lives)) == ([SIGNAL], 0)


# A bit that falls over.


def flip(lives: Lives, pdu: str, times: int) -> list[str]:
    """Have the module show a PDU wrong, the next `times` times, each time in another digit."""
    wrong: list[str] = []

    def garble(data: bytes) -> bytes:
        nonlocal times
        if times and pdu.encode() in data:
            times -= 1
            place = len(pdu) - 4 - times
            wrong.append(f"{pdu[:place]}{int(pdu[place], 16) ^ 1:X}{pdu[place + 1 :]}")
            return data.replace(pdu.encode(), wrong[-1].encode())
        return data

    lives.wire.garble = garble
    return wrong


@pytest.mark.parametrize("times", [1, 2])
async def test_one_that_was_run_is_known_again_when_a_bit_of_it_falls_over(times: int) -> None:
    """SMS-11: what is new is read until two readings agree."""
    async with living() as (lives, house):
        lives.module.faults.plant("+CMGD", Plant(None, final="+CMS ERROR: 500"))
        pdu = deliver("AT+CSQ", at=lives.clock.now()).encode()
        house.module.network.deliver(pdu)
        await asyncio.sleep(10)
        wrong = flip(lives, pdu.hex().upper(), times)
        await asyncio.sleep(200)
        assert len(wrong) == times
        assert [line for line, _, _ in house.outcomes] == ["AT+CSQ"]
        assert texts(house) == [SIGNAL]


@pytest.mark.parametrize("announced", [True, False])
async def test_one_that_is_shown_wrong_at_first_is_run_as_it_is(*, announced: bool) -> None:
    async with living() as (lives, house):
        given = deliver("AT+CSQ", at=lives.clock.now()).encode()
        wrong = flip(lives, given.hex().upper(), 1)
        if announced:
            house.module.network.deliver(given)
        else:
            assert lives.module.store.add("SM", Message(Status.REC_UNREAD, given)) is not None
        await asyncio.sleep(200)
        assert len(wrong) == 1
        assert house.outcomes == [("AT+CSQ", "ok", None)]
        assert lying(lives) == 0


async def test_what_lay_there_at_the_first_start_is_not_run_because_it_was_shown_wrong_then() -> None:
    """SMS-2."""
    lives = Lives()
    given = deliver("AT+CSQ", at=lives.clock.now()).encode()
    assert lives.module.store.add("SM", Message(Status.REC_UNREAD, given)) is not None
    wrong = flip(lives, given.hex().upper(), 1)
    house = await lives.start()
    await asyncio.sleep(200)
    assert (len(wrong), house.outcomes, lying(lives)) == (1, [], 1)
    await lives.end()


async def test_one_that_never_reads_the_same_is_left_and_holds_up_no_other() -> None:
    async with living() as (lives, house):
        given = deliver("AT+CIMI", at=lives.clock.now()).encode()
        wrong = flip(lives, given.hex().upper(), 30)
        house.module.network.deliver(given)
        await asyncio.sleep(5)
        house.sms("AT+CSQ")
        await asyncio.sleep(5)
        assert house.outcomes == [("AT+CSQ", "ok", None)]
        assert wrong
        lives.wire.garble = lambda data: data
        await asyncio.sleep(100)
        assert house.outcomes == [("AT+CSQ", "ok", None), ("AT+CIMI", "ok", None)]


# A disk that fails.


@pytest.mark.parametrize("delay", [0.0, 20.0])
async def test_one_that_is_only_shown_is_held_while_the_disk_fails(delay: float) -> None:
    """REQ-12: it lies in no store, so that to leave it is to lose it."""
    with capture_logs() as logs:
        async with living(rules(delay=delay)) as (lives, house):
            if delay:
                show(lives)
                await asyncio.sleep(5)
            lives.disk.broken = "disk full"
            if not delay:
                show(lives)
            await asyncio.sleep(300)
            assert (house.sent, lives.wire.ran("AT+CSQ")) == ([], 0)
            lives.disk.broken = ""
            await asyncio.sleep(60)
            assert (texts(house), lives.wire.ran("AT+CSQ")) == ([SIGNAL], 1)
            assert house.outcomes == [("AT+CSQ", "ok", None)]
    said = [entry["event"] for entry in logs if str(entry["event"]).startswith("sms held")]
    assert said == ["sms held in memory: it lies in no store, and nothing can be recorded"]
    assert not [entry for entry in logs if str(entry["event"]).startswith("sms lost")]


async def test_one_that_is_held_and_lies_in_a_store_too_is_run_once() -> None:
    async with living() as (lives, house):
        lives.disk.broken = "disk full"
        show(lives)
        put(lives)
        await asyncio.sleep(100)
        lives.disk.broken = ""
        await asyncio.sleep(200)
        assert (texts(house), lives.wire.ran("AT+CSQ"), lying(lives)) == ([SIGNAL], 1, 0)
        assert house.daemon.sms is not None
        assert not house.daemon.sms._serving.held


async def test_one_that_is_only_shown_while_the_ledger_can_not_be_read_yet_is_run() -> None:
    lives = Lives()
    await lives.start()
    await lives.kill()
    house = await lives.start(wait=False)
    lives.disk.broken = "disk I/O error"
    await asyncio.sleep(30)
    show(lives)
    await asyncio.sleep(30)
    lives.disk.broken = ""
    await asyncio.sleep(100)
    assert texts(house) == [SIGNAL]
    await lives.end()


async def test_what_is_held_has_a_cap_and_what_is_lost_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "HELD_MAX", 2)
    with capture_logs() as logs:
        async with living() as (lives, house):
            lives.disk.broken = "disk full"
            for number in range(1, 4):
                show(lives, f"AT#GPIO={number},2")
            await asyncio.sleep(100)
            assert house.daemon.sms is not None
            assert len(house.daemon.sms._serving.held) == 2
            await house.daemon.stop()
            lives.disk.broken = ""
    lost = [entry for entry in logs if str(entry["event"]).startswith("sms lost")]
    assert [(entry.get("held"), entry.get("count")) for entry in lost] == [(2, None), (None, 2)]


async def test_what_a_restart_interrupted_is_run_when_the_disk_is_back() -> None:
    lives = Lives(rules(delay=30.0))
    await lives.start()
    show(lives)
    await asyncio.sleep(5)
    await lives.kill()
    house = await lives.start()
    lives.disk.broken = "disk full"
    await asyncio.sleep(100)
    assert lives.wire.ran("AT+CSQ") == 0
    lives.disk.broken = ""
    await asyncio.sleep(100)
    assert (texts(house), lives.wire.ran("AT+CSQ")) == ([SIGNAL], 1)
    assert house.outcomes == [("AT+CSQ", "ok", None)]
    await lives.end()


async def test_an_outcome_that_is_not_recorded_yet_is_not_told() -> None:
    """SMS-11: a crash would make another of it."""
    async with living() as (lives, house):
        marked = lives.module.faults = Marked()
        marked.pace[7] = (5.0, 0.0, 0.0)
        house.sms(line_of(7))
        await asyncio.sleep(2)
        lives.disk.broken = "disk full"
        await asyncio.sleep(60)
        assert (house.sent, lives.wire.ran(line_of(7)), lying(lives)) == ([], 1, 1)
        lives.disk.broken = ""
        await asyncio.sleep(60)
        assert (len(house.sent), lives.wire.ran(line_of(7)), lying(lives)) == (1, 1, 0)
        assert house.outcomes == [(line_of(7), "ok", None)]


@pytest.mark.parametrize("delay", [0.0, 20.0])
async def test_without_a_disk_requests_stay_in_the_store_and_are_run_when_it_is_back(delay: float) -> None:
    """REQ-12: whether it fails before the message is recorded, or before it is sent."""
    async with living(rules(delay=delay)) as (lives, house):
        if delay:
            house.sms("AT+CSQ")
            await asyncio.sleep(5)
        lives.disk.broken = "disk full"
        if not delay:
            house.sms("AT+CSQ")
        await asyncio.sleep(300)
        assert (house.sent, lives.wire.ran("AT+CSQ"), lying(lives)) == ([], 0, 1)
        lives.disk.broken = ""
        await asyncio.sleep(200)
        assert (texts(house), lives.wire.ran("AT+CSQ"), lying(lives)) == ([SIGNAL], 1, 0)
        assert house.outcomes == [("AT+CSQ", "ok", None)]


async def test_without_a_ledger_the_door_is_shut() -> None:
    async with living() as (_, house):
        assert house.daemon.sms is not None
        house.daemon._ledger.failure = "not a database"
        assert house.daemon.sms.state == "shut"


async def test_a_ledger_that_can_not_be_read_at_the_start_is_waited_for() -> None:
    lives = Lives()
    await lives.start()
    await lives.kill()
    looks = len(lives.disk.jobs) + 3  # the clocks and the settings are read, and then it fails

    def fail() -> None:
        if len(lives.disk.jobs) == looks:
            lives.disk.broken = "disk I/O error"

    lives.disk.after = fail
    house = await lives.start(wait=False)
    house.sms("AT+CSQ")
    await asyncio.sleep(100)
    assert (house.daemon.sms.state, lives.wire.ran("AT+CSQ")) == ("waiting", 0)
    lives.disk.after = lambda: None
    lives.disk.broken = ""
    await asyncio.sleep(100)
    assert (house.daemon.sms.state, texts(house)) == ("open", [SIGNAL])
    await lives.end()


async def test_a_baseline_that_can_not_be_recorded_is_taken_when_it_can() -> None:
    lives = Lives()
    put(lives)
    held = Held(lives.disk)
    house = await lives.start(wait=False)
    await until(lambda: held.kept)
    lives.disk.broken = "disk full"
    held.release()
    await asyncio.sleep(20)
    assert house.daemon.sms is not None
    assert house.daemon.sms.state == "waiting"
    lives.disk.broken = ""
    await asyncio.sleep(20)
    assert (house.daemon.sms.state, lives.wire.ran("AT+CSQ")) == ("open", 0)
    await lives.end()


# Restarts.


async def test_a_request_that_grew_too_old_while_the_daemon_was_down_is_not_run() -> None:
    """REQ-9: a recorded one runs if it has not expired."""
    lives = Lives(rules(delay=30.0))
    house = await lives.start()
    house.sms("AT+CSQ")
    await asyncio.sleep(5)
    assert lives.disk.rows("SELECT state FROM requests") == [("recorded",)]
    await lives.kill()
    lives.clock.ahead += lives.clock.now() - lives.clock.now().replace(year=2025)
    house = await lives.start()
    await asyncio.sleep(60)
    assert house.outcomes == [("AT+CSQ", "expired", "expired")]
    assert texts(house) == [refusal("expired")]
    assert (lives.wire.ran("AT+CSQ"), lying(lives)) == (0, 0)
    await lives.end()


async def test_at_a_stop_what_was_not_run_is_answered_after_the_restart() -> None:
    lives = Lives(rules(delay=30.0))
    house = await lives.start()
    house.sms("AT+CSQ")
    await asyncio.sleep(1)
    await house.daemon.stop()
    house.sms("AT+CIMI")
    house = await lives.start()
    await asyncio.sleep(100)
    assert min(texts(house)) == refusal("shutdown")
    assert lives.wire.ran("AT+CSQ") == 0
    assert [what for what, _ in house.told].count("answer repeated") == 0
    assert lying(lives) == 0
    await lives.end()
