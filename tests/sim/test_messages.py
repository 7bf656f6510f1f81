# SPDX-License-Identifier: Apache-2.0
"""The message service: prompts, sending, the store, what is announced where."""

from datetime import UTC, datetime

import pytest

from atrund.sim.module import SimModule
from atrund.sim.network import HELD_CAP, Outcome
from atrund.sim.state import Options
from atrund.sms.pdu import Address, Dcs, Deliver, Element, PduError, Submit, Timestamp, UserData, decode_submit

NOTE_REQUEST = (
    "079193432900200011000C919343868676110015AD26D0D0D000110157696A437032715633734E762B61727532305A5561773D3D"
    "41542B434F50533F"
)
"""The application note's digest request (2.4); its length is 52, the printed 53 is a misprint."""

NOTE_ANSWER = (
    "0791934329002000040C9193438686761100158050922102818040D1D1D10011014A756E72613772306B494543483971563534326E"
    "33513D3D0D0A2B434F50533A20302C302C22766F6461666F6E65204954220D0A0D0A4F4B0D0A"
)
"""The application note's digest answer, as +CMGR shows it with length 83."""

SMSC = Address.parse("+393492000002")


class Phone:
    """A module without delays, and one at its first port."""

    def __init__(self, **options: int) -> None:
        self.module = SimModule(
            Options(send_delay=0, **options),  # type: ignore[arg-type]  # only the whole numbers are given here
            clock=lambda: datetime(2008, 5, 28, 9, 4, 37, tzinfo=UTC),
        )
        self.out = bytearray()
        self.port = self.module.add_port(self.out.extend)
        self.type("ATE0\r")

    def type(self, text: str) -> str:
        self.port.feed(text.encode("latin-1"))
        return self.take()

    def take(self) -> str:
        text = self.out.decode("latin-1")
        self.out.clear()
        return text

    def gets(self, text: str = "hello", dcs: int = 0, header: tuple[Element, ...] | None = None) -> Outcome:
        return self.module.network.deliver(message(text, dcs, header))


def message(text: str, dcs: int = 0, header: tuple[Element, ...] | None = None) -> bytes:
    coding = Dcs(dcs)
    return Deliver(
        Address.parse("+39346123"),
        Timestamp(2008, 5, 28, 11, 4, 37, 0x80),
        UserData.from_text(text, coding, header),
        coding,
        smsc=SMSC,
    ).encode()


@pytest.fixture
def phone() -> Phone:
    return Phone()


class TestSending:
    def test_a_pdu(self, phone: Phone) -> None:
        assert phone.type("AT+CMGS=52\r") == "\r\n> "
        assert phone.type(NOTE_REQUEST) == ""
        assert phone.type("\x1a") == "\r\n+CMGS: 0\r\n\r\nOK\r\n"
        sent = phone.module.network.sent[0]
        assert (sent.to, sent.pdu, sent.alphabet, sent.reference) == ("+393468686711", NOTE_REQUEST, "8bit", 0)
        assert sent.text.endswith("AT+COPS?")
        assert sent.time == "2008-05-28T09:04:37+00:00"

    def test_the_reference_counts_to_255_and_begins_anew(self, phone: Phone) -> None:
        answers = [phone.type(f"AT+CMGS=52\r{NOTE_REQUEST}\x1a") for _ in range(258)]
        assert answers[255].endswith("+CMGS: 255\r\n\r\nOK\r\n")
        assert answers[256].endswith("+CMGS: 0\r\n\r\nOK\r\n")

    @pytest.mark.parametrize(
        ("line", "data"),
        [("AT+CMGS=53", NOTE_REQUEST), ("AT+CMGS=52", NOTE_REQUEST[:-2]), ("AT+CMGS=52", "zz"), ("AT+CMGS=52", "")],
    )
    def test_a_pdu_that_is_none_is_refused_behind_the_prompt(self, phone: Phone, line: str, data: str) -> None:
        assert phone.type(f"{line}\r") == "\r\n> "
        assert phone.type(f"{data}\x1a") == "\r\n+CMS ERROR: 304\r\n"
        assert not phone.module.network.sent

    @pytest.mark.parametrize("length", ["6", "165", "x", "1" * 30, ""])
    def test_a_length_that_is_none_is_refused_before_the_prompt(self, phone: Phone, length: str) -> None:
        assert "> " not in phone.type(f"AT+CMGS={length}\r")

    def test_escape_gives_up_with_ok(self, phone: Phone) -> None:
        assert phone.type('AT+CMGF=1;+CMGS="+391"\r') == "\r\n> "
        assert phone.type("some text\x1b") == "\r\nOK\r\n"
        assert not phone.module.network.sent
        assert phone.type("AT\r") == "\r\nOK\r\n"

    def test_text(self, phone: Phone) -> None:
        phone.type("ATE1+CMGF=1\r")
        assert phone.type("AT+CMGS=346123\r") == "AT+CMGS=346123\r\r\n> "
        assert phone.type("hullo\x08o @$\r\nx\x1a") == "hullo\b \bo @$\r\nx\r\n+CMGS: 0\r\n\r\nOK\r\n"
        sent = phone.module.network.sent[0]
        assert (sent.to, sent.text) == ("346123", "hullo @$\r\nx")
        assert decode_submit(sent.pdu).validity is not None

    @pytest.mark.parametrize(
        ("setup", "typed", "text"),
        [
            ("+CSMP=17,167,0,8", "20AC", "\u20ac"),
            ("+CSMP=17,167,0,4", "d0D0", "\xd0\xd0"),
            ('+CSCS="UCS2"', "004100E9", "A\xe9"),
            ('+CSCS="GSM"', "\x00", "@"),
            ('+CSCS="HEX"', "0002", "@$"),
            ('+CSCS="8859-1"', "\xe9", "\xe9"),
        ],
    )
    def test_text_of_other_alphabets_and_character_sets(self, phone: Phone, setup: str, typed: str, text: str) -> None:
        assert phone.type(f'AT+CMGF=1;{setup};+CMGS="391",145\r{typed}\x1a').endswith("+CMGS: 0\r\n\r\nOK\r\n")
        assert phone.module.network.sent[0].text == text
        assert phone.module.network.sent[0].to == "+391"

    @pytest.mark.parametrize(
        ("setup", "typed"), [("+CSMP=,,,8", "20A"), ("+CSMP=81", "x"), ('+CSCS="GSM"', "\xe9"), ("+CSMP=17", "x" * 161)]
    )
    def test_text_that_fits_nothing(self, phone: Phone, setup: str, typed: str) -> None:
        assert phone.type(f'AT+CMGF=1;{setup};+CMGS="391"\r{typed}\x1a') == "\r\n> \r\n+CMS ERROR: 305\r\n"

    def test_nothing_is_sent_without_service(self, phone: Phone) -> None:
        phone.module.set_registration(0)
        assert phone.type(f"AT+CMGS=52\r{NOTE_REQUEST}\x1a") == "\r\n> \r\n+CMS ERROR: 331\r\n"

    @pytest.mark.looptime
    async def test_it_takes_the_time_that_was_set(self) -> None:
        import asyncio

        out = bytearray()
        module = SimModule(Options(send_delay=3))
        port = module.add_port(out.extend)
        port.feed(f"ATE0\rAT+CMGS=52\r{NOTE_REQUEST}\x1aAT\r".encode())
        out.clear()
        await asyncio.sleep(2.9)
        assert not out
        await asyncio.sleep(0.2)
        assert out == b"\r\n+CMGS: 0\r\n\r\nOK\r\n"

    def test_a_message_written_first_and_sent_from_the_store(self, phone: Phone) -> None:
        assert phone.type('AT+CMGF=1;+CMGW="+391"\rlater\x1a') == "\r\n> \r\n+CMGW: 1\r\n\r\nOK\r\n"
        assert phone.type("AT+CMGL\r") == "\r\nOK\r\n"
        assert phone.type('AT+CMGL="STO UNSENT"\r') == '\r\n+CMGL: 1,"STO UNSENT","+391",""\r\nlater\r\n\r\nOK\r\n'
        assert phone.type("AT+CMSS=1\r") == "\r\n+CMSS: 0\r\n\r\nOK\r\n"
        assert phone.type("AT+CSDH=1;+CMGR=1\r").startswith('\r\n+CMGR: "STO SENT","+391","",145,17,0,0,"",129,5\r\n')
        assert phone.module.network.sent[0].text == "later"

    def test_a_counted_prompt_takes_every_byte(self, phone: Phone) -> None:
        assert phone.type('AT#WSCRIPT="a.py",4\r') == "\r\n>>>"
        assert phone.type("\x1b\x1a\r") == ""
        assert phone.type("\n") == "\r\nOK\r\n"
        assert phone.module.scripts == {"a.py": b"\x1b\x1a\r\n"}
        assert '#LSCRIPT: "a.py",4\r\n' in phone.type("AT#LSCRIPT\r")
        assert phone.type('AT#DSCRIPT="a.py";#DSCRIPT="a.py"\r') == "\r\nERROR\r\n"

    def test_unsolicited_lines_wait_behind_a_prompt(self, phone: Phone) -> None:
        phone.type("AT+CMGS=52\r")
        phone.module.urc("RING")
        assert phone.take() == ""
        assert phone.type("\x1b") == "\r\nOK\r\n\r\nRING\r\n"


class TestReading:
    def test_the_note_s_answer_in_pdu_mode(self, phone: Phone) -> None:
        assert phone.module.network.deliver(bytes.fromhex(NOTE_ANSWER)) is Outcome.STORED
        assert phone.type("AT+CMGR=1\r") == f'\r\n+CMGR: 0,"",83\r\n{NOTE_ANSWER}\r\n\r\nOK\r\n'
        assert phone.type("AT+CMGR=1\r").startswith('\r\n+CMGR: 1,"",83\r\n')

    def test_the_note_s_scenario_in_text_mode(self, phone: Phone) -> None:
        phone.type("AT+CMGF=1;+CNMI=2,1\r")
        phone.gets('+COPS: 0,0,"vodafone IT"')
        assert phone.take() == '\r\n+CMTI: "SM",1\r\n'
        assert phone.type("AT+CMGR=1\r") == (
            '\r\n+CMGR: "REC UNREAD","+39346123","","08/05/28,11:04:37+08"\r\n+COPS: 0,0,"vodafone IT"\r\n\r\nOK\r\n'
        )
        assert phone.type("AT+CSDH=1;+CMGR=1\r").startswith(
            '\r\n+CMGR: "REC READ","+39346123","","08/05/28,11:04:37+08",145,4,0,0,"+393492000002",145,24\r\n'
        )

    @pytest.mark.parametrize(
        ("text", "dcs", "character_set", "shown"),
        [
            ("\u20acA", 8, "IRA", "20AC0041"),
            ("\xd0\xd0", 4, "IRA", "D0D0"),
            ("\u20ac", 0, "IRA", "?"),
            ("@", 0, "GSM", "\x00"),
            ("@A", 0, "HEX", "0041"),
            ("A", 0, "UCS2", "0041"),
        ],
    )
    def test_text_mode_shows_text_or_hex(
        self, phone: Phone, text: str, dcs: int, character_set: str, shown: str
    ) -> None:
        phone.gets(text, dcs)
        assert f"\r\n{shown}\r\n\r\nOK\r\n" in phone.type(f'AT+CMGF=1;+CSCS="{character_set}";+CMGR=1\r')

    def test_a_header_makes_text_hex(self, phone: Phone) -> None:
        phone.gets("A", header=(Element(0, b"\x01\x02\x01"),))
        assert "\r\n41\r\n" in phone.type("AT+CMGF=1;+CMGR=1\r")

    def test_listing_shows_what_is_asked_for_and_makes_it_read(self, phone: Phone) -> None:
        phone.gets("one")
        phone.gets("two")
        phone.type("AT+CMGR=2\r")
        assert "+CMGL: 2" not in phone.type("AT+CMGL\r")
        listing = phone.type("AT+CMGL=4\r")
        assert listing.count("\r\n\r\n") == 1
        assert listing.index('+CMGL: 1,1,"",') < listing.index('+CMGL: 2,1,"",')
        phone.type("AT+CMGF=1\r")
        assert phone.type('AT+CMGL="REC READ"\r').count("+CMGL: ") == 2
        assert phone.type('AT+CMGL="NONE"\r') == "\r\n+CMS ERROR: 305\r\n"
        assert phone.type("AT+CMGF=0;+CMGL=5\r") == "\r\n+CMS ERROR: 304\r\n"

    @pytest.mark.parametrize("command", ["+CMGR=0", "+CMGR=21", "+CMGR=x", "+CMGR=5", "+CMGD=99", "+CMSS=1"])
    def test_an_index_that_is_none(self, phone: Phone, command: str) -> None:
        assert phone.type(f"AT{command}\r") == "\r\n+CMS ERROR: 321\r\n"

    @pytest.mark.parametrize(("flag", "left"), [(1, "1,3,4"), (2, "1,3"), (3, "1"), (4, "")])
    def test_deleting_by_flag(self, phone: Phone, flag: int, left: str) -> None:
        phone.gets("unread")
        phone.gets("read")
        phone.type("AT+CMGR=2\rAT+CMGF=1\r")
        for _ in range(2):
            phone.type('AT+CMGW="+391"\rx\x1a')
        phone.type("AT+CMSS=4\r")
        phone.type(f"AT+CMGD=1,{flag}\r")
        assert phone.type("AT+CMGD=?\r") == f"\r\n+CMGD: ({left}),(0-4)\r\n\r\nOK\r\n"

    def test_deleting_one_and_its_index_used_again(self, phone: Phone) -> None:
        phone.gets()
        phone.gets()
        assert phone.type("AT+CMGD=1;+CMGD=1\r") == "\r\nOK\r\n"
        phone.gets("again")
        assert phone.type("AT+CPMS?\r") == '\r\n+CPMS: "SM",2,20,"SM",2,20,"SM",2,20\r\n\r\nOK\r\n'

    def test_the_other_memory(self, phone: Phone) -> None:
        phone.type('AT+CNMI=2,1;+CPMS="ME","ME","ME"\r')
        phone.gets()
        assert phone.take() == '\r\n+CMTI: "ME",1\r\n'
        assert "+CMGR: 0" in phone.type("AT+CMGR=1\r")
        assert phone.type('AT+CPMS="XX"\r') == "\r\n+CMS ERROR: 302\r\n"

    def test_without_sim_there_are_no_messages(self, phone: Phone) -> None:
        phone.type("AT#SIMDET=0\r")
        assert phone.type("AT+CMGL=4\r") == "\r\n+CMS ERROR: 310\r\n"
        assert phone.type("AT+CIMI\r") == "\r\nERROR\r\n"
        assert phone.type("AT#SIMDET=1;+CIMI\r").endswith("\r\n204047930002270\r\n\r\nOK\r\n")


class TestArriving:
    def test_each_port_hears_what_it_asked_for(self, phone: Phone) -> None:
        other = bytearray()
        port = phone.module.add_port(other.extend)
        port.feed(b"ATE0\rAT+CNMI=2,0\r")
        other.clear()
        phone.type("AT+CNMI=2,1\r")
        phone.gets()
        assert phone.take() == '\r\n+CMTI: "SM",1\r\n'
        assert other == b""

    def test_mode_0_keeps_announcements_back(self, phone: Phone) -> None:
        phone.type("AT+CNMI=0,1\r")
        assert phone.gets() is Outcome.STORED
        assert phone.take() == ""

    def test_mt_2_shows_a_message_and_stores_none(self, phone: Phone) -> None:
        phone.type("AT+CNMI=2,2\r")
        pdu = message("hello")
        assert phone.module.network.deliver(pdu) is Outcome.SHOWN
        length = len(pdu) - 1 - pdu[0]
        assert phone.take() == f'\r\n+CMT: "",{length}\r\n{pdu.hex().upper()}\r\n'
        phone.type("AT+CMGF=1\r")
        phone.gets("hello")
        assert phone.take() == '\r\n+CMT: "+39346123","","08/05/28,11:04:37+08"\r\nhello\r\n'
        assert phone.module.store.used("SM") == 0

    def test_class_2_goes_to_the_sim_all_the_same(self, phone: Phone) -> None:
        phone.type('AT+CNMI=2,2;+CPMS="ME","ME","ME"\r')
        phone.gets(dcs=0xF2)
        assert phone.take() == '\r\n+CMTI: "SM",1\r\n'

    def test_class_0_is_stored_nowhere(self, phone: Phone) -> None:
        assert phone.gets(dcs=0x10) is Outcome.DISCARDED
        assert phone.module.store.used("SM") == 0

    def test_class_3_is_shown_under_mt_3(self, phone: Phone) -> None:
        phone.type("AT+CNMI=2,3\r")
        assert phone.gets(dcs=0xF3) is Outcome.SHOWN
        assert phone.gets(dcs=0xF1) is Outcome.STORED

    def test_a_full_store_is_said_and_the_rest_waits_in_the_network(self) -> None:
        phone = Phone(sm_slots=2)
        phone.type("AT+CNMI=2,1;#SMOV=1\r")
        assert [phone.gets(str(number)) for number in range(4)] == [
            Outcome.STORED,
            Outcome.STORED,
            Outcome.HELD,
            Outcome.HELD,
        ]
        assert phone.take().endswith('\r\n+CMTI: "SM",2\r\n\r\n#SMOV: "SM"\r\n')
        assert phone.type('AT+CMGF=1;+CMGW="+391"\rx\x1a').endswith("+CMS ERROR: 322\r\n")
        assert phone.type("AT+CMGD=1\r") == '\r\nOK\r\n\r\n+CMTI: "SM",1\r\n\r\n#SMOV: "SM"\r\n'
        assert phone.module.network.held == 1
        assert "\r\n2\r\n" in phone.type("AT+CMGR=1\r")

    def test_the_network_keeps_no_more_than_its_cap(self, phone: Phone) -> None:
        phone.module.set_registration(0)
        for _ in range(HELD_CAP):
            assert phone.gets() is Outcome.HELD
        with pytest.raises(ValueError, match="255 messages wait"):
            phone.gets()

    def test_what_is_no_deliver_is_refused(self, phone: Phone) -> None:
        with pytest.raises(PduError, match="TP-MTI"):
            phone.module.network.deliver(Submit(SMSC, UserData.from_text("x", Dcs(0))).encode())

    def test_messages_come_once_there_is_service(self, phone: Phone) -> None:
        phone.type("AT+CNMI=2,1\r")
        phone.module.set_registration(2)
        assert phone.gets() is Outcome.HELD
        phone.module.set_registration(5)
        assert phone.take() == '\r\n+CMTI: "SM",1\r\n'

    @pytest.mark.parametrize(("text", "dcs"), [("AT+CSQ", 0), ("hat+csq", 4), ("\xd0\xd0\xd0rest", 0x15)])
    def test_the_module_s_own_at_run_swallows_requests(self, phone: Phone, text: str, dcs: int) -> None:
        phone.type("AT#SMSATRUN=1;+CNMI=2,1\r")
        assert phone.gets(text, dcs) is Outcome.SWALLOWED
        assert phone.gets("hello") is Outcome.STORED
        phone.type("AT#SMSATRUN=0\r")
        assert phone.gets(text, dcs) is Outcome.STORED
        assert phone.module.summary()["swallowed"] == 1

    @pytest.mark.looptime
    async def test_with_csms_1_a_message_is_acknowledged_or_comes_again(self) -> None:
        import asyncio

        phone = Phone()
        phone.type("AT+CSMS=1;+CNMI=2,2\r")
        assert phone.gets("one") is Outcome.SHOWN
        assert phone.gets("two") is Outcome.HELD
        phone.take()
        assert phone.type("AT+CNMA\r").startswith('\r\n+CMT: "",')
        await asyncio.sleep(17.5)
        assert phone.type("AT+CNMI?\r") == "\r\n+CNMI: 2,0,0,0,0\r\n\r\nOK\r\n"
        assert phone.module.store.used("SM") == 1
        assert phone.type("AT+CNMA\r") == "\r\n+CMS ERROR: 340\r\n"
