# SPDX-License-Identifier: Apache-2.0
"""Chapter 2 of the application note 80000NT10029a, paragraph by paragraph: a mobile and a module in the field.

Both are simulated modules on one network; the daemon runs the one in the field. What the mobile is given here is what
the note's reader types, and what it shows is what the note prints.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from atrund.config.values import Config, Sms
from atrund.sim.centre import ServiceCentre
from atrund.sim.faults import Plant
from atrund.sim.module import SimModule
from atrund.sim.state import Options
from atrund.sms.digest import build_request, parse_response
from atrund.sms.pdu import Address, Concatenation, Dcs, Deliver, Element, Submit, UserData, decode_deliver
from tests.support.asking import said
from tests.support.lives import Lives
from tests.support.virtual import FRIEND, PASSWORD, STRANGER, House, config

pytestmark = pytest.mark.looptime

FIELD = "+393490000001"
OPERATOR = '\r\n+COPS: 0,0,"vodafone IT"\r\n\r\nOK\r\n'


class Mobile:
    """The other mobile of the note, in text mode as there."""

    def __init__(self, lives: Lives, number: str = FRIEND) -> None:
        self.module = SimModule(Options(seed=1, sm_slots=50, send_delay=0), lives.clock.now)
        self._out = bytearray()
        self._port = self.module.add_port(self._out.extend)
        self.centre = ServiceCentre(lives.clock.now)
        self.centre.join(lives.module.network, FIELD)
        self.centre.join(self.module.network, number)
        self.type("ATE0+CMGF=1;+CNMI=2,1\r")

    def type(self, text: str) -> str:
        """Return what it shows since it was typed on last."""
        shown, self._out[:] = self._out.decode("latin-1"), b""
        self._port.feed(text.encode("latin-1"))
        return shown

    async def shows(self, typed: str) -> str:
        self.type(typed)
        await asyncio.sleep(1)
        return self.type("")

    async def text(self, text: str) -> str:
        """Send a text as the note does, to a number without country code; return what it shows behind +CMGS."""
        assert await self.shows(f'AT+CMGS="{FIELD.removeprefix("+39")}"\r') == "\r\n> "
        shown = await self.shows(f"{text}\x1a")
        assert shown.startswith("\r\n+CMGS: 0\r\n\r\nOK\r\n")
        return shown.removeprefix("\r\n+CMGS: 0\r\n\r\nOK\r\n")

    def send(self, data: bytes, dcs: int) -> None:
        """Send octets."""
        self.module.network.submit(Submit(Address.parse(FIELD), UserData(Dcs(dcs).alphabet, data), Dcs(dcs)))

    @property
    def received(self) -> list[Deliver]:
        return [decode_deliver(message.pdu) for _, message in self.module.store.messages("SM")]

    @property
    def texts(self) -> list[str]:
        return [deliver.user_data.text for deliver in self.received]

    def close(self) -> None:
        self.centre.close()
        self.module.close()


@contextlib.asynccontextmanager
async def field(given: Config | None = None, number: str = FRIEND) -> AsyncIterator[tuple[Lives, House, Mobile]]:
    lives = Lives(given)
    house = await lives.start()
    mobile = Mobile(lives, number)
    await asyncio.sleep(1)
    mobile.type("")
    yield lives, house, mobile
    mobile.close()
    await lives.end()


async def test_2_3_the_scenario() -> None:
    """Configured and enabled locally; asked by SMS, answered by SMS, and the answer read as the note prints it."""
    async with field(config(sms=Sms())) as (_, house, mobile):
        for line in ("AT#SMSATRUNCFG=3,1,2", "AT#SMSATRUN=1", f'AT#SMSATWL=0,1,0,"{FRIEND}"'):
            assert await said(house, line) == ["OK"]
        await asyncio.sleep(5)
        shown = await mobile.text("AT+COPS?")
        await asyncio.sleep(10)
        assert shown + mobile.type("") == '\r\n+CMTI: "SM",1\r\n'
        head, _, text = (await mobile.shows("AT+CMGR=1\r")).removeprefix("\r\n").partition("\r\n")
        assert head.startswith(f'+CMGR: "REC UNREAD","{FIELD}","","26/03/01,12:00:')
        assert text == f"{OPERATOR}\r\n\r\nOK\r\n"


async def test_2_1_and_2_3_hat_is_run_and_not_answered() -> None:
    async with field() as (lives, _, mobile):
        await mobile.text("HAT+COPS?")
        await asyncio.sleep(60)
        assert lives.wire.ran("AT+COPS?") == 1
        assert mobile.received == []


async def test_2_1_and_2_3_a_digest_is_taken_from_any_number_and_answered_by_a_digest() -> None:
    async with field(number=STRANGER) as (_, _, mobile):
        mobile.send(build_request(PASSWORD, b"AT+COPS?", 0, 1), 0x15)
        await asyncio.sleep(10)
        (answer,) = mobile.received
        assert answer.dcs == Dcs(0x15)
        response = parse_response(answer.user_data.octets or b"")
        assert response is not None
        assert response.matches([PASSWORD]) == 0
        assert (response.text, response.session) == (OPERATOR.encode(), 1)


@pytest.mark.parametrize("dcs", [0x00, 0x04, 0x15, 0xF1])
async def test_2_1_the_answer_has_the_alphabet_of_the_request(dcs: int) -> None:
    async with field() as (_, _, mobile):
        mobile.send(b"AT+CSQ", dcs)
        await asyncio.sleep(10)
        (answer,) = mobile.received
        assert (answer.dcs, answer.user_data.text) == (Dcs(dcs), "\r\n+CSQ: 14,99\r\n\r\nOK\r\n")


async def test_2_1_a_concatenated_request_is_none_and_a_long_answer_is_concatenated() -> None:
    async with field() as (lives, _, mobile):
        lives.module.faults.plant("+CSQ", Plant(lines=("x" * 200,), final="OK"))
        await mobile.text("AT+CSQ")
        await asyncio.sleep(20)
        parts = [deliver.user_data.concatenation for deliver in mobile.received]
        assert [part and (part.total, part.index) for part in parts] == [(2, 1), (2, 2)]
        assert "".join(mobile.texts) == f"\r\n{'x' * 200}\r\n\r\nOK\r\n"
        part = (Element.concatenated(Concatenation(1, 1, 1)),)
        data = UserData.from_text("AT+CSQ", Dcs(0), part)
        mobile.module.network.submit(Submit(Address.parse(FIELD), data))
        await asyncio.sleep(20)
        assert (len(mobile.received), lives.wire.ran("AT+CSQ")) == (2, 1)


@pytest.mark.parametrize("line", ["AT\\R", "AT^CURC=0"])
async def test_2_5_2_n1_what_seven_bits_make_hard_goes_in_eight(line: str) -> None:
    async with field() as (lives, _, mobile):
        lives.module.faults.plant("^CURC", Plant(final="OK"))
        mobile.send(line.encode(), 0x04)
        await asyncio.sleep(10)
        (answer,) = mobile.received
        assert lives.wire.ran(line) == 1
        assert answer.dcs == Dcs(0x04)
        assert answer.user_data.octets is not None


@pytest.mark.parametrize(
    "line", ['AT+CMGS="+393330000000"', "AT+CMGW", 'AT#SEMAIL="a@b.c","d"', "AT#SSEND=1", 'AT#WSCRIPT="a.py",10']
)
async def test_2_5_2_n8_what_asks_for_data_is_refused_before_it_is_sent(line: str) -> None:
    async with field() as (lives, house, mobile):
        mobile.send(line.replace("@", "\0").encode("ascii"), 0x00)
        await asyncio.sleep(10)
        assert lives.wire.ran(line) == 0
        assert mobile.texts == ['\r\n#ATRUN: "prompt_unsupported"\r\n\r\nERROR\r\n']
        assert [event for _, event, _ in house.outcomes] != ["done"]


async def test_2_5_2_n9_a_survey_is_cut_after_15_parts_and_that_is_recorded() -> None:
    async with field() as (lives, house, mobile):
        found = tuple(f"{n},37,-81,0,222,10,51032,1907,CELL_SUITABLE,0" for n in range(100))
        lives.module.faults.plant("#CSURV", Plant(lines=found, final="OK"))
        await mobile.text("AT#CSURV")
        await asyncio.sleep(60)
        parts = [deliver.user_data.concatenation for deliver in mobile.received]
        assert [part and (part.total, part.index) for part in parts] == [(15, index) for index in range(1, 16)]
        assert "".join(mobile.texts).startswith("\r\n0,37,-81")
        assert "answer cut" in [what for what, _ in house.told]


async def test_2_5_2_n11_the_service_is_off_by_default() -> None:
    """What a Telit server sends to switch it on is not known here, and does not."""
    async with field(config(sms=Sms())) as (lives, house, mobile):
        assert await said(house, "AT#SMSATRUN?") == ["#SMSATRUN: 0", "OK"]
        await mobile.text("AT+COPS?")
        await asyncio.sleep(60)
        assert (house.outcomes[1:], mobile.received) == ([], [])
        assert lives.module.store.used("SM") == 1
