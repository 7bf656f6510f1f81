# SPDX-License-Identifier: Apache-2.0
"""How answers leave by SMS, in virtual time, with the simulated module in process."""

import asyncio
import itertools
import json

import pytest
from structlog.testing import capture_logs

from atrund.atrun.secrets import Secret
from atrund.doors import answers
from atrund.doors.answers import RETRY_SOONEST
from atrund.ledger import tables
from atrund.ledger.answers import Progress, progress_of
from atrund.module.tending import WATCH_EVERY
from atrund.sim.faults import Plant
from atrund.sim.state import Options
from atrund.sim.store import Message, Status
from atrund.sms.digest import build_request, parse_response
from atrund.sms.pdu import Address, Timestamp, decode_submit
from atrund.sms.report import StatusReport
from tests.support.lives import Lives
from tests.support.marked import Marked, line_of, until
from tests.support.texting import (
    BUSY,
    EIGHT_BIT,
    OTHER_PASSWORD,
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
    undelivered,
)
from tests.support.virtual import FRIEND, PASSWORD, STRANGER, House

pytestmark = pytest.mark.looptime


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


@pytest.mark.parametrize("code", [1, 21, 30, 50, 111])
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
        assert looks
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


async def test_a_store_full_of_requests_does_not_keep_their_answers_in() -> None:
    """An outcome that is on disk needs its message no more, which lies in the way of the answer."""
    options = Options(sm_slots=3, quirks=(("full_322", True),))
    lives = Lives(options=options)
    await lives.start()
    await lives.kill()
    for line in ("AT+CSQ", "AT+CIMI", "AT#GPIO=1,2"):
        put(lives, line)
    house = await lives.start()
    await asyncio.sleep(60)
    assert len(house.sent) == 3
    assert (lying(lives), undelivered(house)) == (0, [])
    assert [end for _, end, _ in house.outcomes] == ["ok"] * 3
    await lives.end()


async def test_an_answer_whose_message_was_deleted_already_is_sent_after_a_restart() -> None:
    lives = Lives()
    house = await lives.start()
    lives.module.faults.plant("+CMGS", Plant(None, final="+CMS ERROR: 322"))
    house.sms("AT+CSQ")
    await asyncio.sleep(10)
    assert (lying(lives), house.sent) == (0, [])
    await lives.kill()
    lives.module.faults.clear()
    house = await lives.start()
    await asyncio.sleep(60)
    assert (texts(house), lives.wire.ran("AT+CSQ")) == ([SIGNAL], 1)
    assert [what for what, _ in house.told].count("answer repeated") == 0, "the module said that it did not send it"
    await lives.end()


async def test_nothing_is_sent_while_it_can_not_be_recorded() -> None:
    """SMS-12: else a restart would send it again, and nobody would know."""
    async with living() as (lives, house):
        lives.module.faults.plant("+CMGS", Plant(1, final=BUSY))
        house.sms("AT+CSQ")
        await asyncio.sleep(5)
        times = tries(lives)
        lives.disk.broken = "disk full"
        await asyncio.sleep(60)
        assert times == []
        lives.disk.broken = ""
        await asyncio.sleep(200)
        assert (texts(house), len(times)) == ([SIGNAL], 1)


async def test_a_part_that_twice_had_no_result_is_not_sent_again_after_a_restart() -> None:
    """SMS-12: once more, and no more, whatever ended the first two."""
    lives = Lives()
    house = await lives.start()
    lives.module.faults.plant("+CMGS", Plant(2, seconds=185.0))
    times = tries(lives)
    house.sms("AT+CSQ")
    await asyncio.sleep(230)
    assert len(times) == 2
    await lives.kill()
    house = await lives.start()
    await asyncio.sleep(600)
    assert (len(times), undelivered(house)) == (2, ["sent twice without a result: ended by a restart"])
    assert [what for what, _ in house.told].count("answer repeated") == 1
    await lives.end()


async def test_answers_that_wait_have_a_cap() -> None:
    """No more than may be sent in a day."""
    async with living(rules(answers_per_day=3, answers_per_hour=3)) as (lives, house):
        lives.module.faults.plant("+CMGS", Plant(None, final=BUSY))
        for number in range(1, 6):
            house.sms(f"AT#GPIO={number},2")
            await asyncio.sleep(1)
        assert undelivered(house) == ["the cap on answers is reached"] * 2
        lives.module.faults.clear()
        await asyncio.sleep(200)
        assert len(house.sent) == 3


async def test_a_long_answer_for_which_the_cap_leaves_no_room_is_not_begun() -> None:
    """A part of it would cost, and no telephone shows it."""
    async with living(rules(answers_per_hour=3)) as (lives, house):
        lives.module.faults.plant("+CSQ", Plant(lines=("x" * 150,) * 2, final="OK"))
        house.sms("AT+CIMI")
        await asyncio.sleep(5)
        house.sms("AT+CSQ")
        await asyncio.sleep(20)
        assert len(house.sent) == 1
        assert undelivered(house) == ["the cap on answers is reached"]
        assert progress(lives, "AT+CSQ").references == ()


# What the module's changes do.


async def test_a_change_of_the_network_sweeps_no_store_and_sends_nothing_again() -> None:
    async with living(rules(sweep=3600.0)) as (lives, house):
        lives.module.faults.plant("+CMGS", Plant(None, final="+CMS ERROR: 331"))
        sends, sweeps = tries(lives), tries(lives, b"AT+CMGL")
        house.sms("AT+CSQ")
        for stat, word in ((5, "roaming"), (1, "home")) * 3:
            lives.module.set_registration(stat)
            await asyncio.sleep(150)
            assert house.daemon.module.registration == word
        assert [b - a for a, b in itertools.pairwise(sends)] == pytest.approx([30, 60, 120, 240], abs=2)
        assert len(sweeps) <= 1


async def test_what_waits_for_the_network_goes_when_the_module_has_registered() -> None:
    async with living(rules(sweep=3600.0)) as (lives, house):
        lives.module.set_registration(2)
        show(lives)
        await asyncio.sleep(1500)
        assert (house.sent, [end for _, end, _ in house.outcomes]) == ([], ["ok"])
        assert house.daemon.module.registration == "searching"
        sweeps = tries(lives, b"AT+CMGL")
        lives.module.set_registration(1)
        await until(lambda: house.daemon.module.registration == "home", WATCH_EVERY + 1)
        await asyncio.sleep(RETRY_SOONEST + 1)
        assert (texts(house), len(sweeps)) == ([SIGNAL], 1), "the one for the message itself"


async def test_what_instances_want_reported_is_set_again_when_settings_were_gone() -> None:
    """MOD-3: the module is set up anew behind a port that never went, in a state that stays the same."""
    async with living(rules(sweep=3600.0, delivery_reports=True)) as (lives, house):
        assert reporting(lives)[-1] == "AT+CNMI=2,1,0,1,0"
        for port in lives.module.ports:
            port.settings.values["+CNMI"] = ("0", "0", "0", "0", "0")
        before = len(reporting(lives))
        await asyncio.sleep(WATCH_EVERY + 5)
        assert reporting(lives)[before:] == ["AT+CNMI=2,1,0,0,0", "AT+CNMI=2,1,0,1,0"]
        assert house.daemon.module.set_ups == 2


# Which characters arrive.


EXTENSIONS = "[{|~^\\}]"


async def test_every_character_of_the_extension_table_arrives_in_7_bit() -> None:
    async with living() as (lives, house):
        lives.module.faults.plant("+CSQ", Plant(lines=(EXTENSIONS,), final="OK"))
        house.sms("AT+CSQ")
        await asyncio.sleep(5)
        assert texts(house) == [f"\r\n{EXTENSIONS}\r\n\r\nOK\r\n"]
        assert changed(house) == []


@pytest.mark.parametrize("line", ["AT\\R", "AT^CURC=0", 'AT+CPBF="{[~|]}"'])
async def test_a_request_in_7_bit_may_hold_the_extension_table(line: str) -> None:
    async with living() as (lives, house):
        lives.module.faults.plant("^CURC", Plant(final="OK"))
        lives.module.faults.plant("+CPBF", Plant(final="OK"))
        house.sms(line)
        await asyncio.sleep(5)
        assert lives.wire.ran(line) == 1
        assert texts(house) == ["\r\nOK\r\n"]


async def test_a_digest_answer_in_which_a_character_is_lacking_counts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "answer_text", lambda _outcome: "a\u20acb")
    async with living() as (_, house):
        raw(house, build_request(PASSWORD, b"AT+CSQ"))
        await asyncio.sleep(5)
        (sent,) = house.module.network.sent
        part = parse_response(decode_submit(sent.pdu).user_data.content)
        assert part is not None
        assert part.text == b"a?b"
        assert part.matches([PASSWORD]) == 0
        assert changed(house) == ["characters that became ?: 1"]


def changed(house: House) -> list[str | None]:
    return [reason for what, reason in house.told if what == "answer changed to fit"]


async def test_what_became_a_question_mark_is_counted_in_the_record() -> None:
    """SMS-8."""
    async with living() as (lives, house):
        lives.module.faults.plant("+CSQ", Plant(lines=("a\xaab\xbbc",), final="OK"))
        house.sms("AT+CSQ")
        await asyncio.sleep(5)
        assert texts(house) == ["\r\na?b?c\r\n\r\nOK\r\n"]
        assert changed(house) == ["characters that became ?: 2"]
        assert progress(lives).replaced == 2


def progress(lives: Lives, line: str = "AT+CSQ") -> Progress:
    ((asked,),) = lives.disk.rows("SELECT asked FROM requests WHERE line = ?", line)
    return progress_of(json.loads(asked)["context"])


async def test_8_bit_and_ucs2_answers_keep_what_they_can_hold() -> None:
    for dcs in (EIGHT_BIT, UCS2):
        async with living() as (lives, house):
            lives.module.faults.plant("+CSQ", Plant(lines=("a\xaab\xbbc",), final="OK"))
            house.sms("AT+CSQ", dcs=dcs)
            await asyncio.sleep(5)
            assert texts(house) == ["\r\na\xaab\xbbc\r\n\r\nOK\r\n"]
            assert (changed(house), progress(lives).replaced) == ([], 0)


@pytest.mark.parametrize("length", range(150, 156))
async def test_no_part_splits_an_escape_pair(length: int) -> None:
    async with living() as (lives, house):
        line = "x" * (length - 2) + "{" * 100
        lives.module.faults.plant("+CSQ", Plant(lines=(line,), final="OK"))
        house.sms("AT+CSQ")
        await asyncio.sleep(20)
        pieces = [decode_submit(sent.pdu).user_data for sent in house.module.network.sent]
        assert len(pieces) == 3
        assert "".join(data.text for data in pieces) == f"\r\n{line}\r\n\r\nOK\r\n"
        assert not any(data.content.endswith(b"\x1b") for data in pieces)


async def test_a_cut_is_in_the_record_once_though_the_daemon_was_killed() -> None:
    lives = Lives(rules(answers_per_hour=100))
    house = await lives.start()
    lives.module.faults.plant("+CSQ", Plant(lines=("0123456789" * 9,) * 60, final="OK"))
    house.sms("AT+CSQ")
    await until(lambda: len(house.sent) > 5)
    await lives.kill()
    house = await lives.start()
    await asyncio.sleep(60)
    assert [what for what, _ in house.told].count("answer cut") == 1
    kept = progress(lives)
    assert (kept.cut, kept.parts, len(kept.references)) == (True, 15, 15)
    assert len(house.sent) <= 16
    await lives.end()


# Delivery reports.


def reporting(lives: Lives) -> list[str]:
    return [line for sim in lives.wire.sims for line in sim.seen if line.startswith("AT+CNMI=")]


def reports(house: House) -> list[tuple[str, str | None]]:
    words = ("answer delivered", "answer not delivered", "answer reported", "report of no answer")
    return [entry for entry in house.told if entry[0] in words]


async def test_no_report_is_asked_for_unless_configured() -> None:
    async with living() as (lives, house):
        house.sms("AT+CSQ")
        await asyncio.sleep(5)
        (sent,) = house.module.network.sent
        assert not decode_submit(sent.pdu).status_report
        assert set(reporting(lives)) == {"AT+CNMI=2,1,0,0,0"}


@pytest.mark.parametrize("delay", [0.0001, 30.0])
async def test_a_report_is_recorded_with_its_request_and_never_answered(delay: float) -> None:
    async with living(rules(delivery_reports=True), Options(quirks=(("report_delay", delay),))) as (lives, house):
        assert reporting(lives)[-1] == "AT+CNMI=2,1,0,1,0"
        house.sms("AT+CSQ")
        await asyncio.sleep(100)
        assert reports(house) == [("answer delivered", "part 1 of 1: delivered")]
        ((rid,),) = lives.disk.rows("SELECT rid FROM requests")
        assert lives.disk.rows("SELECT rid FROM audit WHERE event = 'answer delivered'") == [(rid,)]
        assert len(house.sent) == 1


async def test_a_long_answer_has_arrived_when_its_last_part_has() -> None:
    async with living(rules(delivery_reports=True)) as (lives, house):
        lives.module.faults.plant("+CSQ", Plant(lines=("x" * 150,) * 2, final="OK"))
        house.sms("AT+CSQ")
        await asyncio.sleep(20)
        references = [sent.reference for sent in house.module.network.sent]
        assert len(references) == 3
        to = decode_submit(house.module.network.sent[0].pdu).destination
        for reference in (references[2], references[0], references[0]):
            house.module.network.report(reference, to)
            await asyncio.sleep(1)
        assert reports(house) == []
        house.module.network.report(references[1], to)
        await asyncio.sleep(1)
        assert reports(house) == [("answer delivered", "part 2 of 3: delivered")]


async def test_a_failure_is_recorded_and_what_comes_behind_the_last_word_is_not() -> None:
    async with living(rules(delivery_reports=True)) as (_, house):
        house.sms("AT+CSQ")
        await asyncio.sleep(5)
        (sent,) = house.module.network.sent
        to = decode_submit(sent.pdu).destination
        for status in (0x20, 0x20, 0x45, 0x45, 0x00):
            house.module.network.report(sent.reference, to, status)
            await asyncio.sleep(1)
        found = reports(house)
        assert [what for what, _ in found] == ["answer reported", "answer not delivered"]
        assert all(str(why).startswith("part 1 of 1: ") for _, why in found)


async def test_a_report_comes_after_a_restart() -> None:
    lives = Lives(rules(delivery_reports=True))
    house = await lives.start()
    house.sms("AT+CSQ")
    await asyncio.sleep(5)
    await lives.kill()
    house = await lives.start()
    await asyncio.sleep(5)
    (sent,) = house.module.network.sent
    house.module.network.report(sent.reference, decode_submit(sent.pdu).destination)
    await asyncio.sleep(5)
    assert reports(house) == [("answer delivered", "part 1 of 1: delivered")]
    await lives.end()


async def test_a_stored_report_is_recorded_and_removed_and_one_on_another_message_is_left() -> None:
    """It lies in the store where another tenant has reports stored, or shown to nobody while the daemon was down."""
    async with living(rules(delivery_reports=True)) as (lives, house):
        house.sms("AT+CSQ")
        await asyncio.sleep(5)
        (sent,) = house.module.network.sent
        to = decode_submit(sent.pdu).destination
        stamp = Timestamp.of(lives.clock.now())
        for reference, recipient in ((sent.reference, to), (sent.reference + 1, to), (sent.reference, to_stranger())):
            report = StatusReport(reference, recipient, stamp, stamp)
            assert lives.module.store.add("SM", Message(Status.REC_UNREAD, report.encode())) is not None
        await asyncio.sleep(200)
        assert [what for what, _ in reports(house)].count("answer delivered") == 1
        assert [what for what, _ in reports(house)].count("report of no answer") == 2
        assert lying(lives) == 2
        assert len(house.sent) == 1


def to_stranger() -> Address:
    return Address.parse(STRANGER)


async def test_a_report_that_can_not_be_read_or_looked_up_harms_nobody() -> None:
    async with living(rules(delivery_reports=True)) as (lives, house):
        lives.wire.say(b"\r\n+CDS: 3\r\n000206FF\r\n")
        house.sms("AT+CSQ")
        await asyncio.sleep(5)
        (sent,) = house.module.network.sent
        lives.disk.broken = "disk full"
        house.module.network.report(sent.reference, decode_submit(sent.pdu).destination)
        await asyncio.sleep(5)
        lives.disk.broken = ""
        house.sms("AT+CIMI")
        await asyncio.sleep(10)
        assert len(house.sent) == 2
        assert reports(house) == []
