# SPDX-License-Identifier: Apache-2.0
"""Two modules joined by a network: what one submits the other gets, in good weather and in bad."""

import asyncio
import json
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from atrund.sim.__main__ import main
from atrund.sim.centre import AGAIN, DEFAULT_VALIDITY, HELD_BACK, TRANSIT, ServiceCentre, Weather, dialled
from atrund.sim.control import Control
from atrund.sim.module import SimModule
from atrund.sim.network import HELD_CAP, SERVICE_CENTRE
from atrund.sim.state import Options, Power
from atrund.sms.pdu import (
    Address,
    Concatenation,
    Dcs,
    Deliver,
    Element,
    EnhancedValidity,
    PduError,
    RelativeValidity,
    Submit,
    Timestamp,
    TypeOfNumber,
    UserData,
    decode_deliver,
)
from atrund.sms.report import StatusReport, decode_report
from tests.sim.test_terminal import names

pytestmark = pytest.mark.looptime

FIELD, PHONE = "+393468686711", "+393461234567"
BEGIN = datetime(2026, 3, 1, 12, 0, 0, tzinfo=timezone(timedelta(hours=1)))
FIVE_MINUTES = RelativeValidity(0)


class Pair:
    """A phone and a module in the field, their network between them."""

    def __init__(self, weather: Weather | None = None, seed: int = 0) -> None:
        self.phone, self.field = (SimModule(Options(send_delay=0), self.now) for _ in range(2))
        self.centre = ServiceCentre(self.now, seed=seed, weather=weather)
        self.centre.join(self.phone.network, PHONE)
        self.centre.join(self.field.network, FIELD)

    def now(self) -> datetime:
        return BEGIN + timedelta(seconds=asyncio.get_running_loop().time())

    def send(self, text: str = "hello", to: str = FIELD, **fields: Any) -> int:  # noqa: ANN401 - of a SUBMIT
        dcs = fields.get("dcs", Dcs(0))
        data = fields.pop("user_data", None) or UserData.from_text(text, dcs)
        return self.phone.network.submit(Submit(Address.parse(to), data, **fields))

    @property
    def received(self) -> list[Deliver]:
        return [decode_deliver(pdu) for pdu in _lying(self.field)]

    @property
    def texts(self) -> list[str]:
        return [deliver.user_data.text for deliver in self.received]

    @property
    def reports(self) -> list[StatusReport]:
        return [decode_report(pdu) for pdu in _lying(self.phone)]

    def want_reports(self) -> None:
        port = self.phone.add_port(lambda _data: None)
        port.feed(b"AT+CNMI=2,1,0,2,0\r")

    def close(self) -> None:
        self.centre.close()
        self.phone.close()
        self.field.close()


@pytest.fixture
def made() -> Iterator[list[Pair]]:
    pairs: list[Pair] = []
    yield pairs
    for pair in pairs:
        pair.close()


@pytest.fixture
def pair(made: list[Pair]) -> Pair:
    made.append(Pair())
    return made[0]


def _lying(module: SimModule) -> list[bytes]:
    return [message.pdu for _, message in module.store.messages("SM")]


async def test_a_submit_becomes_a_deliver(pair: Pair) -> None:
    """Kept: alphabet, coding scheme, header, protocol, octets. New: who sends, the stamp, the service centre."""
    header = (Element.concatenated(Concatenation(7, 2, 1)), Element(5, b"\x23\xf0\x0b\x84"))
    data = UserData(Dcs(0xF5).alphabet, b"\x00\xff[", header)
    pair.send(user_data=data, dcs=Dcs(0xF5), pid=0x41, status_report=True, reply_path=True, validity=FIVE_MINUTES)
    await asyncio.sleep(1)
    assert pair.received == [
        Deliver(
            Address.parse(PHONE),
            Timestamp.of(BEGIN),
            data,
            Dcs(0xF5),
            0x41,
            SERVICE_CENTRE,
            status_report=True,
            reply_path=True,
        )
    ]


async def test_the_answer_is_out_before_the_message_arrives(pair: Pair) -> None:
    out = bytearray()
    pair.field.add_port(out.extend).feed(b"ATE0+CNMI=2,1\r")
    phone = bytearray()
    port = pair.phone.add_port(phone.extend)
    port.feed(b"ATE0\r")
    out.clear()
    pdu = Submit(Address.parse(FIELD), UserData.from_text("hello", Dcs(0))).encode()
    port.feed(b"AT+CMGS=%d\r" % (len(pdu) - 1))
    port.feed(pdu.hex().encode() + b"\x1a")
    assert phone.endswith(b"+CMGS: 0\r\n\r\nOK\r\n")
    assert out == b""
    await asyncio.sleep(2 * TRANSIT)
    assert out == b'\r\n+CMTI: "SM",1\r\n'


@pytest.mark.parametrize(
    ("destination", "number"),
    [
        (Address.parse(FIELD), FIELD),
        (Address.parse("3468686711"), FIELD),
        (Address.parse("00393468686711"), FIELD),
        (Address.number("3468686711", TypeOfNumber.NATIONAL), FIELD),
        (Address.number("12345", TypeOfNumber.NETWORK_SPECIFIC), ""),
        (Address.alphanumeric("Telit"), ""),
    ],
)
def test_numbers_are_dialled_as_on_a_phone(destination: Address, number: str) -> None:
    assert dialled(destination) == number


def test_numbers_are_whole_and_each_somebodys(pair: Pair) -> None:
    with pytest.raises(PduError, match="number: 3460000000 has no country code"):
        pair.centre.join(pair.phone.network, "3460000000")
    with pytest.raises(PduError, match="is another module's"):
        pair.centre.join(pair.phone.network, FIELD)


async def test_a_report_comes_if_it_was_asked_for(pair: Pair) -> None:
    pair.want_reports()
    pair.send("first")
    reference = pair.send("second", status_report=True)
    await asyncio.sleep(1)
    (report,) = pair.reports
    assert (report.reference, report.recipient, report.status) == (reference, Address.parse(FIELD), 0x00)
    assert report.timestamp == Timestamp.of(BEGIN)


async def test_nobody_has_that_number(pair: Pair) -> None:
    pair.want_reports()
    pair.send(to="+390000000")
    pair.send(to="+390000001", status_report=True)
    await asyncio.sleep(1)
    assert [(report.recipient.text, report.status) for report in pair.reports] == [("+390000001", 0x43)]


@pytest.mark.parametrize(
    ("validity", "seconds"),
    [
        (FIVE_MINUTES, 300.0),
        (Timestamp.of(BEGIN + timedelta(seconds=90)), 90.0),
        (EnhancedValidity(bytes([0x02, 200, 0, 0, 0, 0, 0])), 200.0),
        (EnhancedValidity(bytes(7)), DEFAULT_VALIDITY),
        (None, DEFAULT_VALIDITY),
    ],
)
async def test_what_waits_for_a_module_expires(
    pair: Pair, validity: RelativeValidity | Timestamp | EnhancedValidity | None, seconds: float
) -> None:
    """3GPP TS 23.040 9.2.3.12."""
    pair.want_reports()
    pair.field.set_registration(0)
    pair.send("late", validity=validity, status_report=True)
    await asyncio.sleep(seconds - 1)
    assert pair.field.network.held == 1
    assert pair.reports == []
    await asyncio.sleep(2)
    assert pair.field.network.held == 0
    assert [report.status for report in pair.reports] == [0x46]
    assert pair.reports[0].discharge.utc() - BEGIN >= timedelta(seconds=seconds)
    pair.field.set_registration(1)
    assert pair.texts == []


async def test_one_that_expired_before_it_arrives_is_not_delivered(made: list[Pair]) -> None:
    made.append(pair := Pair(Weather(reorder=1.0)))
    pair.want_reports()
    pair.send("late", validity=Timestamp.of(BEGIN + timedelta(seconds=5)), status_report=True)
    await asyncio.sleep(3 * HELD_BACK)
    assert pair.texts == []
    assert [report.status for report in pair.reports] == [0x46]


async def test_what_waits_is_delivered_when_the_module_can_take_it_and_reported_then(pair: Pair) -> None:
    pair.want_reports()
    pair.field.set_registration(0)
    pair.send("waited", validity=FIVE_MINUTES, status_report=True)
    await asyncio.sleep(60)
    pair.field.set_registration(1)
    assert pair.texts == ["waited"]
    await asyncio.sleep(600)
    assert [report.status for report in pair.reports] == [0x00]
    assert pair.reports[0].discharge.utc() == BEGIN + timedelta(seconds=60)
    assert pair.texts == ["waited"]


async def test_one_that_is_shown_is_delivered_once_it_is_acknowledged(pair: Pair) -> None:
    """TS 27.005 3.4.4: under +CSMS=1 the module answers for it with +CNMA."""
    pair.want_reports()
    port = pair.field.add_port(lambda _data: None)
    port.feed(b"AT+CSMS=1;+CNMI=2,2\r")
    pair.send("shown", status_report=True)
    await asyncio.sleep(1)
    assert pair.reports == []
    port.feed(b"AT+CNMA\r")
    await asyncio.sleep(1)
    assert [report.status for report in pair.reports] == [0x00]


async def test_too_many_wait(pair: Pair) -> None:
    pair.want_reports()
    pair.field.power = Power.OFF
    for _ in range(HELD_CAP):
        pair.send("one of many")
    pair.send("one too many", status_report=True)
    await asyncio.sleep(1)
    assert pair.field.network.held == HELD_CAP
    assert [report.status for report in pair.reports] == [0x60]


async def test_a_name_can_not_be_written_to(pair: Pair) -> None:
    data = UserData.from_text("hello", Dcs(0))
    pair.want_reports()
    pair.phone.network.submit(Submit(Address.alphanumeric("Telit"), data, status_report=True))
    await asyncio.sleep(1)
    assert [(report.recipient.text, report.status) for report in pair.reports] == [("Telit", 0x43)]


# Weather.


def shower(pair: Pair, count: int = 12) -> None:
    for number in range(count):
        pair.send(f"message {number}")


async def test_good_weather_keeps_the_order(pair: Pair) -> None:
    shower(pair)
    await asyncio.sleep(1)
    assert pair.texts == [f"message {number}" for number in range(12)]
    assert (pair.centre.lost, pair.centre.repeated) == (0, 0)


async def test_loss(made: list[Pair]) -> None:
    made.append(pair := Pair(Weather(loss=0.5)))
    shower(pair)
    await asyncio.sleep(1)
    assert 0 < len(pair.texts) == 12 - pair.centre.lost < 12


async def test_a_lost_message_has_no_report(made: list[Pair]) -> None:
    made.append(pair := Pair(Weather(loss=1.0)))
    pair.want_reports()
    pair.send(status_report=True)
    await asyncio.sleep(2 * DEFAULT_VALIDITY)
    assert (pair.texts, pair.reports) == ([], [])


async def test_repeats_are_the_same_octet_for_octet(made: list[Pair]) -> None:
    made.append(pair := Pair(Weather(repeat=1.0)))
    pair.send("twice")
    await asyncio.sleep(1)
    assert pair.texts == ["twice"]
    await asyncio.sleep(AGAIN)
    first, second = _lying(pair.field)
    assert first == second


async def test_one_that_comes_twice_is_reported_once(made: list[Pair]) -> None:
    made.append(pair := Pair())
    pair.want_reports()
    pair.centre.weather.repeat = 1.0
    pair.send("twice", status_report=True)
    await asyncio.sleep(2 * TRANSIT)
    pair.centre.weather.repeat = 0.0
    await asyncio.sleep(10 * AGAIN)
    assert pair.texts == ["twice", "twice"]
    assert len(set(map(repr, pair.reports))) == 1


async def test_delay_alone_keeps_the_order(made: list[Pair]) -> None:
    made.append(pair := Pair(Weather(delay=60.0)))
    shower(pair)
    await asyncio.sleep(61)
    assert pair.texts == [f"message {number}" for number in range(12)]


async def test_some_are_overtaken(made: list[Pair]) -> None:
    made.append(pair := Pair(Weather(reorder=0.5), seed=1))
    shower(pair)
    await asyncio.sleep(1)
    first = pair.texts
    await asyncio.sleep(HELD_BACK)
    assert 0 < len(first) < 12
    assert sorted(pair.texts) == sorted(f"message {number}" for number in range(12))
    assert pair.texts != sorted(pair.texts, key=lambda text: int(text.split()[1]))


async def test_a_seed_is_a_weather(made: list[Pair]) -> None:
    seen = []
    for seed in (1, 1, 2):
        made.append(pair := Pair(Weather(0.3, 0.3, 0.3, 5.0), seed))
        shower(pair)
        await asyncio.sleep(200)
        seen.append(pair.texts)
    assert seen[0] == seen[1] != seen[2]


async def test_one_fault_switched_on_leaves_the_others_alone(made: list[Pair]) -> None:
    seen = []
    for repeat in (0.0, 1.0):
        made.append(pair := Pair(Weather(loss=0.5, repeat=repeat), seed=3))
        shower(pair)
        await asyncio.sleep(100)
        seen.append(list(dict.fromkeys(pair.texts)))
    assert seen[0] == seen[1]


# By the control socket, and from the start.


def do(module: SimModule, **fields: object) -> dict[str, Any]:
    return Control(module).handle(json.dumps({"op": "network", **fields}).encode())


def test_weather_is_changed_and_shown(pair: Pair) -> None:
    good = {"loss": 0.0, "repeat": 0.0, "reorder": 0.0, "delay": 0.0, "lost": 0, "repeated": 0}
    assert do(pair.phone) == {"ok": True, "number": PHONE, **good}
    assert do(pair.field, loss=0.25, delay=5) == {"ok": True, "number": FIELD, **good, "loss": 0.25, "delay": 5.0}
    assert pair.centre.weather == Weather(loss=0.25, delay=5.0)
    assert do(pair.field, repeat=0.5, reorder=1)["loss"] == 0.25


@pytest.mark.parametrize("wrong", [{"loss": 1.1}, {"repeat": True}, {"reorder": "x"}, {"delay": -1}, {"rain": 1}])
def test_what_is_no_weather_is_refused(pair: Pair, wrong: dict[str, object]) -> None:
    answer = do(pair.phone, **wrong)
    assert answer["ok"] is False
    assert next(iter(wrong)) in answer["error"]
    assert pair.centre.weather == Weather()


def test_a_module_alone_has_none() -> None:
    answer = do(SimModule())
    assert answer["ok"] is False
    assert "--peer-link" in answer["error"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--loss", "0.1"], "--loss needs a second module: --peer-link"),
        (["--peer-number", "+391"], "--peer-number needs a second module: --peer-link"),
        (["--peer-link", "y", "--repeat", "1.5"], "1.5 is not between 0 and 1"),
        (["--peer-link", "y", "--delay", "-1"], "-1 is not between 0 and 3600 seconds"),
    ],
)
def test_options_that_can_not_be_are_told(arguments: list[str], error: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--link", "x", *arguments])
    assert ended.value.code == 2
    assert error in capsys.readouterr().err


def test_a_number_without_country_code_is_told_and_nothing_is_left_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    links = ["--link", str(tmp_path / "x"), "--peer-link", str(tmp_path / "y")]
    assert main([*links, "--number", "346123"]) == 1
    assert "number: 346123 has no country code; +39346123 would" in capsys.readouterr().err
    assert names(tmp_path) == []
