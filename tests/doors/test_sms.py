# SPDX-License-Identifier: Apache-2.0
"""The SMS door in virtual time, with the simulated module in process."""

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from atrund.atrun import message
from atrund.atrun.message import AtRun, NotAtRun
from atrund.atrun.secrets import Secret
from atrund.config.values import Config, Sms
from atrund.doors import sms, verdicts
from atrund.ledger import tables
from atrund.sim.faults import Plant
from atrund.sim.state import Options
from atrund.sim.store import Message, Status
from atrund.sms.digest import build_request, parse_response
from atrund.sms.pdu import Concatenation, Deliver, Element, UserData, decode_deliver, decode_submit
from tests.support.lives import Held, Lives
from tests.support.marked import Marked, line_of, lines_of, until
from tests.support.virtual import FRIEND, PASSWORD, STRANGER, House, config, deliver

pytestmark = pytest.mark.looptime

SIGNAL = "\r\n+CSQ: 14,99\r\n\r\nOK\r\n"
OTHER_PASSWORD = "6543210987654321"
EIGHT_BIT, UCS2, NOTES_DCS = 0x04, 0x08, 0x15
BUSY = "+CMS ERROR: 42"
"""Congestion (TS 24.011 8.2.5.4): it passes."""
STEPS = 18
"""More than the jobs for the disk and the writes to the module from an SMS to its deletion."""
NOTE_SUBMIT = (
    "079193432900200011000C919343868676110015AD26D0D0D000110157696A437032715633734E7"
    "62B61727532305A5561773D3D41542B434F50533F"
)
NOTE_DELIVER = (
    "0791934329002000040C9193438686761100158050922102818040D1D1D10011014A756E726137723"
    "06B494563483971563534326E33513D3D0D0A2B434F50533A20302C302C22766F6461666F6E6520"
    "4954220D0A0D0A4F4B0D0A"
)


def rules(**fields: object) -> Config:
    given = config()
    return replace(given, sms=replace(given.sms, **fields))  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def living(
    given: Config | None = None, options: Options | None = None, *, wait: bool = True
) -> AsyncIterator[tuple[Lives, House]]:
    lives = Lives(given, options)
    yield lives, await lives.start(wait=wait)
    await lives.end()


def put(lives: Lives, text: str = "AT+CSQ", sender: str = FRIEND, *, memory: str = "SM", **fields: object) -> None:
    """Lay a message into the store, announced to nobody."""
    given = deliver(text, sender, at=lives.clock.now(), **fields)  # type: ignore[arg-type]
    assert lives.module.store.add(memory, Message(Status.REC_UNREAD, given.encode())) is not None


def raw(house: House, data: bytes, sender: str = FRIEND, *, dcs: int = EIGHT_BIT) -> None:
    """Bring a message with these octets to the module."""
    house.module.network.deliver(deliver("", sender, dcs=dcs, at=house.clock.now(), data=data).encode())


def texts(house: House) -> list[str]:
    return [text for _, text in house.sent]


def refusal(reason: str) -> str:
    return f'\r\n#ATRUN: "{reason}"\r\n\r\nERROR\r\n'


def lying(lives: Lives) -> int:
    return lives.module.store.used("SM") + lives.module.store.used("ME")


def undelivered(house: House) -> list[str | None]:
    return [reason for what, reason in house.told if what == "answer undelivered"]


def tries(lives: Lives, command: bytes = b"AT+CMGS=") -> list[float]:
    """Note when the daemon writes a command, from now on."""
    times: list[float] = []
    plain = lives.wire.on_write

    def on_write(data: bytes) -> bytes:
        if data.startswith(command):
            times.append(round(asyncio.get_running_loop().time()))
        return plain(data)

    lives.wire.on_write = on_write
    return times


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
    async with living(options=Options(sm_slots=3)) as (lives, house):
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

    monkeypatch.setattr(sms, "judge", judge)
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


# Answers that can not be sent.


async def test_a_failure_that_passes_is_tried_again_with_growing_pauses() -> None:
    """SMS-12."""
    async with living() as (lives, house):
        lives.module.faults.plant("+CMGS", Plant(4, final=BUSY))
        times = tries(lives)
        house.sms("AT+CSQ")
        await asyncio.sleep(900)
        assert texts(house) == [SIGNAL]
        assert [b - a for a, b in itertools.pairwise(times)] == pytest.approx([30, 60, 120, 240], abs=2)
        assert lying(lives) == 0


@pytest.mark.parametrize("final", [BUSY, "+CME ERROR: 30", "ERROR", "+CMS ERROR: 500"])
async def test_until_the_answer_is_too_old(final: str) -> None:
    """SMS-12; +CME ERROR: 30 is no network service, and not cause 30 of the network."""
    async with living() as (lives, house):
        lives.module.faults.plant("+CMGS", Plant(None, final=final))
        times = tries(lives)
        house.sms("AT+CSQ")
        await asyncio.sleep(4000)
        assert (house.sent, undelivered(house)) == ([], [final])
        assert 6 <= len(times) <= 12
        assert lying(lives) == 0
        assert lives.disk.rows("SELECT answered FROM requests") == [(1,)]


@pytest.mark.parametrize("code", [1, 21, 38 - 8, 50, 0xC1])
async def test_a_failure_for_good_is_recorded_at_once(code: int) -> None:
    """SMS-12."""
    async with living() as (lives, house):
        lives.module.faults.plant("+CMGS", Plant(None, final=f"+CMS ERROR: {code}"))
        times = tries(lives)
        house.sms("AT+CSQ")
        await asyncio.sleep(10)
        assert undelivered(house) == [f"+CMS ERROR: {code}"]
        await asyncio.sleep(4000)
        assert len(times) == 1
        assert lying(lives) == 0


@pytest.mark.parametrize("code", [310, 318, 331])
async def test_what_waits_for_sim_or_network_goes_on_when_that_is_back(code: int) -> None:
    async with living() as (lives, house):
        lives.module.faults.plant("+CMGS", Plant(3, final=f"+CMS ERROR: {code}"))
        times = tries(lives)
        house.sms("AT+CSQ")
        await asyncio.sleep(95)
        assert [b - a for a, b in itertools.pairwise(times)] == pytest.approx([30, 60], abs=2)
        assert house.daemon.sms is not None
        house.daemon.sms.look()
        await asyncio.sleep(1)
        assert texts(house) == [SIGNAL]


async def test_it_does_not_go_on_with_every_change_of_the_module() -> None:
    async with living() as (lives, house):
        lives.module.faults.plant("+CMGS", Plant(None, final="+CMS ERROR: 331"))
        times = tries(lives)
        house.sms("AT+CSQ")
        assert house.daemon.sms is not None
        for _ in range(200):
            house.daemon.sms.look()
            await asyncio.sleep(0.1)
        assert len(times) <= 5


async def test_a_service_centre_that_is_not_set_is_said() -> None:
    with capture_logs() as logs:
        async with living() as (lives, house):
            lives.module.faults.plant("+CMGS", Plant(1, final="+CMS ERROR: 330"))
            house.sms("AT+CSQ")
            await asyncio.sleep(40)
            assert texts(house) == [SIGNAL]
    (said,) = [str(entry["detail"]) for entry in logs if entry["event"] == "answer not sent"]
    assert "+CSCA" in said


async def test_a_full_store_is_looked_at() -> None:
    """What is done with and could not be deleted may make room."""
    async with living() as (lives, house):
        lives.module.faults.plant("+CMGS", Plant(1, final="+CMS ERROR: 322"))
        looks = tries(lives, b"AT+CMGL")
        house.sms("AT+CSQ")
        await asyncio.sleep(10)
        assert len(looks) == 1
        await asyncio.sleep(30)
        assert texts(house) == [SIGNAL]


async def test_an_answers_age_goes_on_over_a_restart() -> None:
    """REQ-11, SMS-12."""
    lives = Lives()
    lives.module.faults.plant("+CMGS", Plant(None, final=BUSY))
    house = await lives.start()
    house.sms("AT+CSQ")
    for seconds in (1500, 1500):
        await asyncio.sleep(seconds)
        await lives.kill()
        house = await lives.start()
    times = tries(lives)
    await asyncio.sleep(1200)
    assert undelivered(house) == [BUSY]
    assert max(times) < 1200 + 3000
    await lives.end()


async def test_one_that_is_too_old_already_is_not_tried_again() -> None:
    lives = Lives()
    lives.module.faults.plant("+CMGS", Plant(None, final=BUSY))
    house = await lives.start()
    house.sms("AT+CSQ")
    await asyncio.sleep(3000)
    await lives.kill()
    tables.keep_run(4000.0)(lives.disk.store.connection)
    house = await lives.start(wait=False)
    lives.module.faults.clear()
    await asyncio.sleep(100)
    assert (house.sent, undelivered(house)) == ([], ["too old"])
    await lives.end()


async def test_one_answers_failure_holds_no_other_up() -> None:
    async with living() as (lives, house):
        lives.module.faults.plant("+CMGS", Plant(1, final=BUSY))
        house.sms("AT+CSQ")
        await asyncio.sleep(5)
        house.sms("AT+CIMI")
        await asyncio.sleep(5)
        assert len(house.sent) == 1
        assert "204047930002270" in texts(house)[0]
        await asyncio.sleep(30)
        assert texts(house)[1] == SIGNAL


async def test_a_part_without_a_result_is_sent_once_more_and_that_is_recorded() -> None:
    """SMS-12."""
    async with living() as (lives, house):
        lives.module.faults.plant("+CMGS", Plant(1, seconds=185.0))
        house.sms("AT+CSQ")
        await asyncio.sleep(400)
        assert texts(house) == [SIGNAL, SIGNAL]
        assert [what for what, _ in house.told].count("answer repeated") == 1
        assert undelivered(house) == []
        assert lying(lives) == 0


async def test_a_part_that_twice_had_no_result_is_recorded_as_undelivered() -> None:
    """SMS-12: once more, and no more."""
    async with living() as (lives, house):
        lives.module.faults.plant("+CMGS", Plant(2, seconds=185.0))
        times = tries(lives)
        house.sms("AT+CSQ")
        await asyncio.sleep(2000)
        assert len(times) == 2
        (why,) = undelivered(house)
        assert str(why).startswith("sent twice without a result")
        assert lying(lives) == 0


async def test_the_module_may_be_away_for_a_while() -> None:
    async with living() as (lives, house):
        marked = lives.module.faults = Marked()
        marked.pace[7] = (1.0, 1.0, 1.0)
        house.sms(line_of(7))
        await until(lambda: lives.wire.ran(line_of(7)))
        lives.wire.absent = "no such device"
        lives.wire.lose()
        await asyncio.sleep(100)
        lives.wire.absent = ""
        await asyncio.sleep(600)
        assert texts(house) == [refusal("port_down")]
        assert lives.wire.ran(line_of(7)) == 1
        assert lying(lives) == 0


async def test_answers_have_a_cap_an_hour_that_a_restart_does_not_lift() -> None:
    """SMS-12, REQ-11: past it commands still run, and the answer is recorded as undelivered."""
    lives = Lives(rules(answers_per_hour=2))
    house = await lives.start()
    for _ in range(3):
        house.sms("AT+CSQ")
        await asyncio.sleep(5)
    await lives.kill()
    house = await lives.start()
    house.sms("AT+CSQ")
    await asyncio.sleep(5)
    assert [end for _, end, _ in house.outcomes] == ["ok"] * 4
    assert len(house.sent) == 2
    assert undelivered(house) == ["the cap on answers is reached"] * 2
    assert lying(lives) == 0
    await asyncio.sleep(3600)
    house.sms("AT+CSQ")
    await asyncio.sleep(5)
    assert len(house.sent) == 3
    await lives.end()


async def test_answers_have_a_cap_a_day() -> None:
    async with living(rules(answers_per_day=2)) as (_, house):
        for pause in (4000, 4000, 79000, 5):
            house.sms("AT+CSQ")
            await asyncio.sleep(5)
            house.daemon._ledger._base_run += pause
        assert [sent[0] for sent in house.sent] == [FRIEND] * 3
        assert undelivered(house) == ["the cap on answers is reached"]


async def test_what_was_not_sent_does_not_count() -> None:
    async with living(rules(answers_per_hour=1)) as (lives, house):
        lives.module.faults.plant("+CMGS", Plant(2, final=BUSY))
        house.sms("AT+CSQ")
        await asyncio.sleep(100)
        assert texts(house) == [SIGNAL]


async def test_an_answer_to_a_password_that_is_gone_is_undelivered() -> None:
    lives = Lives()
    house = await lives.start()
    lives.module.faults.plant("+CMGS", Plant(None, final=BUSY))
    raw(house, build_request(PASSWORD, b"AT+CSQ"))
    await asyncio.sleep(5)
    await lives.kill()
    house = await lives.start(rules(passwords=(Secret(OTHER_PASSWORD),)))
    await asyncio.sleep(5)
    assert undelivered(house) == ["the password of the request is no longer configured"]
    await lives.end()


async def test_an_answer_is_signed_with_the_requests_password_wherever_that_stands() -> None:
    """SMS-4, SMS-8: the order in the configuration may change between a crash and the answer."""
    lives = Lives(rules(passwords=(Secret(PASSWORD), Secret(OTHER_PASSWORD))))
    house = await lives.start()
    lives.module.faults.plant("+CMGS", Plant(None, final=BUSY))
    raw(house, build_request(OTHER_PASSWORD, b"AT+CSQ"))
    await asyncio.sleep(5)
    ((asked,),) = lives.disk.rows("SELECT asked FROM requests")
    assert OTHER_PASSWORD not in asked
    assert len(json.loads(asked)["context"]["password"]) == 8
    await lives.kill()
    lives.module.faults.clear()
    house = await lives.start(rules(passwords=(Secret(OTHER_PASSWORD), Secret(PASSWORD))))
    await asyncio.sleep(60)
    part = parse_response(decode_submit(house.module.network.sent[-1].pdu).user_data.content)
    assert part is not None
    assert part.matches([OTHER_PASSWORD]) == 0
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


def show(lives: Lives, text: str = "AT+CSQ") -> None:
    """Let the module show a message that it puts into no store."""
    pdu = deliver(text, at=lives.clock.now()).encode()
    lives.wire.inject(f"\r\n+CMT: ,{len(pdu) - 1 - pdu[0]}\r\n{pdu.hex().upper()}\r\n".encode())


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
        assert not house.daemon.sms._held


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
    monkeypatch.setattr(sms, "HELD_MAX", 2)
    with capture_logs() as logs:
        async with living() as (lives, house):
            lives.disk.broken = "disk full"
            for number in range(1, 4):
                show(lives, f"AT#GPIO={number},2")
            await asyncio.sleep(100)
            assert house.daemon.sms is not None
            assert len(house.daemon.sms._held) == 2
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


@pytest.mark.parametrize("hat", [False, True])
@pytest.mark.parametrize("step", range(STEPS))
async def test_killed_between_any_two_steps_the_command_runs_once_and_is_answered(step: int, *, hat: bool) -> None:
    """REQ-9, SMS-11, SMS-12: a double answer is possible and recorded, a silent one is not."""
    lives = Lives()
    lives.module.faults = Marked()
    house = await lives.start()
    lives.kill_at(step)
    house.sms(f"{'H' * hat}{line_of(7)}")
    await asyncio.sleep(3)
    assert not (lives.killed and step == STEPS - 1), "it has more steps"
    await lives.kill()
    house = await lives.start()
    await asyncio.sleep(200)
    line = line_of(7)
    (end,) = [end for asked, end, _ in house.outcomes if asked == line]
    assert lives.wire.ran(line) <= 1
    assert end in {"ok", "lost"}
    assert lives.wire.ran(line) == 1 or end == "lost"
    answer = "".join(f"\r\n{line}\r\n" for line in (*lines_of(7), "OK")) if end == "ok" else refusal("lost")
    assert set(texts(house)) == (set() if hat else {answer})
    assert len(house.sent) <= 1 + [what for what, _ in house.told].count("answer repeated")
    assert lying(lives) == 0
    await lives.end()


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
