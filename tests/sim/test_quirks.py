# SPDX-License-Identifier: Apache-2.0
"""What some real modules do and others do not: each quirk off, on, and off again."""

import asyncio
from datetime import UTC, datetime

import pytest

from atrund.sim.location import checksum
from atrund.sim.module import SimModule
from atrund.sim.network import Outcome
from atrund.sim.quirks import QUIRKS, QuirkError, Quirks, QuirkValue, listing, parse
from atrund.sim.state import Options, Sim
from atrund.sms.pdu import Address, Dcs, Deliver, Timestamp, UserData, decode_submit

OK = "\r\nOK\r\n"
ERROR = "\r\nERROR\r\n"
PROMPT = "\r\n> "


class Phone:
    """A module with some quirks and two ports."""

    def __init__(self, model: str = "HE910-D", sm_slots: int = 20, **quirks: QuirkValue) -> None:
        self.module = SimModule(
            Options(model=model, send_delay=0, sm_slots=sm_slots, quirks=tuple(quirks.items())),
            clock=lambda: datetime(2008, 5, 28, 9, 4, 37, tzinfo=UTC),
        )
        self.out = bytearray()
        self.other_out = bytearray()
        self.port = self.module.add_port(self.out.extend)
        self.other_port = self.module.add_port(self.other_out.extend)
        self.other_port.feed(b"ATE0\r")
        self.type("ATE0\r")
        self.other()

    def type(self, text: str) -> str:
        self.port.feed(text.encode("latin-1"))
        return self.take()

    def take(self) -> str:
        text = self.out.decode("latin-1")
        self.out.clear()
        return text

    def other(self, line: str = "") -> str:
        self.other_port.feed(f"{line}\r".encode("latin-1") if line else b"")
        text = self.other_out.decode("latin-1")
        self.other_out.clear()
        return text

    def gets(self, text: str = "hello", dcs: int = 0, sender: str = "+39346123") -> Outcome:
        data = UserData.from_text(text, Dcs(dcs))
        message = Deliver(Address.parse(sender), Timestamp(2008, 5, 28, 11, 4, 37, 0x80), data, Dcs(dcs))
        return self.module.network.deliver(message.encode())


class TestTable:
    def test_all_are_as_a_module_was_before_there_were_any(self) -> None:
        values = Quirks().values()
        assert {name for name, value in values.items() if value not in (False, 0.0)} == {
            "counted_surplus",
            "cmgs_prompt",
            "cmgs_answer",
            "cnma_seconds",
            "urc_ports",
            "command_gap",
            "gap_seconds",
            "nmea_rate",
            "gone_seconds",
        }

    @pytest.mark.parametrize(
        ("text", "pair"),
        [
            ("gps", ("gps", True)),
            ("gps=off", ("gps", False)),
            ("gps=TRUE", ("gps", True)),
            ("sms_busy=20", ("sms_busy", 20.0)),
            ("urc_ports=first", ("urc_ports", "first")),
        ],
    )
    def test_a_text_is_a_quirk_and_its_value(self, text: str, pair: tuple[str, QuirkValue]) -> None:
        assert parse(text) == pair

    @pytest.mark.parametrize(
        ("name", "value", "words"),
        [
            ("nothing", True, "name: must be one of data_prompts, "),
            ("gps", 1, "value: gps can be on, off"),
            ("gps", "maybe", "on, off"),
            ("sms_busy", True, "value: sms_busy can be 0 to 3600"),
            ("sms_busy", -1, "0 to 3600"),
            ("sms_busy", float("nan"), "0 to 3600"),
            ("sms_busy", 10**400, "0 to 3600"),
            ("sms_busy", "soon", "0 to 3600"),
            ("sms_busy", [], "0 to 3600"),
            ("urc_ports", "last", "as_asked, first, all"),
            ("urc_ports", 1, "as_asked, first, all"),
        ],
    )
    def test_what_can_t_be_set_is_told(self, name: str, value: object, words: str) -> None:
        with pytest.raises(QuirkError, match=words):
            Quirks().set(name, value)

    def test_none_is_the_default(self) -> None:
        quirks = Quirks([("sms_busy", 3)])
        assert quirks.set("sms_busy") == 0.0
        with pytest.raises(QuirkError):
            SimModule(Options(quirks=(("nothing", True),)))

    def test_each_has_a_line_that_says_what_it_does(self) -> None:
        table = listing()
        for quirk in QUIRKS.values():
            assert quirk.name in table
            assert quirk.what in table
            assert "\n" not in quirk.what


class TestPrompts:
    def test_commands_with_data_are_known_only_then(self) -> None:
        assert Phone().type("AT#SSENDEXT=1,2\r") == ERROR
        phone = Phone(data_prompts=True)
        assert phone.type("AT#SSENDEXT=?;#HTTPSND=?;#M2MWRITE=?;#SSEND=?\r").endswith(OK)
        assert phone.type("AT#SSENDEXT=1,4\r") == PROMPT
        assert phone.type("\x1b\x1a\x08\r") == "\r\nOK\r\n"
        assert phone.type("AT#SSEND=1\rhi\x1a") == PROMPT + OK
        assert phone.type('AT#HTTPSND=0,0,"/x",3,"text/plain"\r') == "\r\n>>>"
        assert phone.type("a\x1b\x1a") == '\r\nOK\r\n\r\n#HTTPRING: 0,200,"text/html",0\r\n'
        assert phone.type('AT#M2MWRITE="a.py",2\rab') == "\r\n>>>\r\nOK\r\n"
        assert [(upload.command, upload.data) for upload in phone.module.uploads] == [
            ("#SSENDEXT=1,4", b"\x1b\x1a\x08\r"),
            ("#SSEND=1", b"hi"),
            ('#HTTPSND=0,0,"/x",3,"text/plain"', b"a\x1b\x1a"),
            ('#M2MWRITE="a.py",2', b"ab"),
        ]

    @pytest.mark.parametrize(
        "line",
        ["#SSEND", "#SSEND=7", "#SSENDEXT=1", "#SSENDEXT=1,1501", '#HTTPSND=0,2,"/",1', "#HTTPSND=3,0,x,1",
         '#M2MWRITE="",1', '#M2MWRITE="a",0', "#M2MWRITE?"],
    )  # fmt: skip
    def test_what_they_refuse_comes_before_the_prompt(self, line: str) -> None:
        assert Phone(data_prompts=True).type(f"AT{line}\r") == ERROR

    def test_a_counted_prompt_that_looks_like_a_text_one_echoes_its_data(self) -> None:
        phone = Phone(data_prompts=True)
        phone.type("ATE1\r")
        assert phone.type("AT#SSENDEXT=1,2\rab") == "AT#SSENDEXT=1,2\r\r\n> ab\r\nOK\r\n"

    @pytest.mark.looptime
    async def test_data_beyond_the_count_is_a_command_or_dropped_for_a_while(self) -> None:
        phone = Phone()
        assert phone.type('AT#WSCRIPT="a",2\rabAT+CGMI\r') == "\r\n>>>\r\nOK\r\n\r\nTelit\r\n\r\nOK\r\n"
        phone.module.set_quirk("counted_surplus", "drop")
        assert phone.type('AT#WSCRIPT="a",2\rabAT+CGMI\r') == "\r\n>>>\r\nOK\r\n"
        assert phone.type("AT\r") == ""
        await asyncio.sleep(0.11)
        assert phone.type("AT\r") == OK
        assert phone.module.scripts == {"a": b"ab"}

    @pytest.mark.looptime
    async def test_data_short_of_the_count_is_waited_for_or_given_up(self) -> None:
        phone = Phone()
        phone.type('AT#WSCRIPT="a",5\rab')
        await asyncio.sleep(1000)
        assert phone.type("cde") == OK
        phone.module.set_quirk("counted_timeout", 5)
        phone.type('AT#WSCRIPT="b",5\r')
        for _ in range(4):
            await asyncio.sleep(4)
            assert phone.type("x") == ""
        await asyncio.sleep(5.1)
        assert phone.take() == ERROR
        assert phone.type('AT#WSCRIPT="c",1\rx') == "\r\n>>>\r\nOK\r\n"
        await asyncio.sleep(6)
        assert phone.take() == ""
        assert set(phone.module.scripts) == {"a", "c"}

    def test_the_prompt_again_after_each_cr(self) -> None:
        line = 'AT+CMGF=1;+CMGS="+391"\r'
        assert Phone().type(f"{line}one\rtwo\x1a") == PROMPT + "\r\n+CMGS: 0\r\n\r\nOK\r\n"
        phone = Phone(prompt_again=True)
        assert phone.type(f"{line}one\rtwo\r\x1a") == PROMPT * 3 + "\r\n+CMGS: 0\r\n\r\nOK\r\n"
        assert phone.module.network.sent[0].text == "one\rtwo\r"
        assert phone.type("AT+CMGF=0\rAT+CMGS=20\r00\r11\x1b") == OK + PROMPT + OK
        assert phone.type('AT+CMGF=1;+CSMP=17,167,0,8\rAT+CMGS="+391"\r20\r\x1b') == OK + PROMPT + OK

    @pytest.mark.parametrize(("often", "shown"), [("never", ""), ("twice", PROMPT * 2), ("once", PROMPT)])
    def test_the_prompt_of_cmgs_as_often_as_set(self, often: str, shown: str) -> None:
        phone = Phone(cmgs_prompt=often)
        assert phone.type('AT+CMGF=1;+CMGS="+391"\r') == shown
        assert phone.type("x\x1a") == "\r\n+CMGS: 0\r\n\r\nOK\r\n"
        assert phone.type('AT+CMGW="+391"\r') == PROMPT


class TestLongText:
    SEND = 'AT+CMGF=1;+CMGS="+391"\r'

    def test_a_long_text_is_refused_or_sent_in_parts(self) -> None:
        text = "abcdefghi " * 40
        assert Phone().type(f"{self.SEND}{text}\x1a") == PROMPT + "\r\n+CMS ERROR: 305\r\n"
        phone = Phone(long_text=True)
        assert phone.type(f"{self.SEND}{text}\x1a") == PROMPT + "\r\n+CMGS: 2\r\n\r\nOK\r\n"
        sent = [decode_submit(message.pdu).user_data for message in phone.module.network.sent]
        assert "".join(data.text for data in sent) == text
        parts = [part for data in sent if (part := data.concatenation)]
        assert [(part.reference, part.total, part.index) for part in parts] == [(1, 3, 1), (1, 3, 2), (1, 3, 3)]

    @pytest.mark.parametrize(
        ("setup", "typed", "parts"),
        [
            ("+CSMP=17", "x" * 160, 1),
            ("+CSMP=17", "x" * 1530, 10),
            ("+CSMP=17,167,0,8", "0041" * 670, 10),
            ("+CSMP=17,167,0,4", "41" * 1340, 10),
            ("+CSMP=17", "x" * 1531, 0),
            ("+CSMP=17,167,0,8", "0041" * 671, 0),
            ("+CSMP=17,167,0,4", "41" * 1341, 0),
        ],
    )
    def test_ten_parts_are_the_most(self, setup: str, typed: str, parts: int) -> None:
        phone = Phone(long_text=True)
        answer = phone.type(f'AT+CMGF=1;{setup};+CMGS="+391"\r{typed}\x1a')
        assert len(phone.module.network.sent) == parts
        assert answer.endswith(OK if parts else "+CMS ERROR: 305\r\n")

    def test_an_extension_keeps_its_escape(self) -> None:
        phone = Phone(long_text=True)
        phone.type(f"{self.SEND}{'x' * 152}{'[' * 10}\x1a")
        assert [message.text for message in phone.module.network.sent] == ["x" * 152, "[" * 10]

    def test_it_is_not_kept_in_the_store(self) -> None:
        phone = Phone(long_text=True)
        assert phone.type(f'AT+CMGF=1;+CMGW="+391"\r{"x" * 161}\x1a') == PROMPT + "\r\n+CMS ERROR: 305\r\n"

    @pytest.mark.parametrize(
        ("answer", "lines"),
        [
            ("once", "\r\n+CMGS: 1\r\n\r\nOK\r\n"),
            ("each", "\r\n+CMGS: 0\r\n+CMGS: 1\r\n\r\nOK\r\n"),
            ("line_twice", "\r\n+CMGS: 1\r\n+CMGS: 1\r\n\r\nOK\r\n"),
            ("ok_twice", "\r\n+CMGS: 1\r\n\r\nOK\r\n\r\nOK\r\n"),
        ],
    )
    def test_its_answer(self, answer: str, lines: str) -> None:
        phone = Phone(long_text=True, cmgs_answer=answer)
        said = phone.type(f"{self.SEND}{'x' * 161}\x1a").removeprefix(PROMPT)
        # Between the parts the module waits for the network, and so begins a new block.
        assert said.replace("\r\n\r\n+CMGS: 1", "\r\n+CMGS: 1") == lines.replace("\r\n\r\n+CMGS: 1", "\r\n+CMGS: 1")

    def test_the_stamp_under_csms_1(self) -> None:
        phone = Phone(cmgs_stamp=True)
        assert "+CMGS: 0\r\n" in phone.type(f"{self.SEND}x\x1a")
        assert '+CMGS: 1,"08/05/28,09:04:37+00"\r\n' in phone.type(f"AT+CSMS=1\r{self.SEND}x\x1a")


class TestMessages:
    def test_class_1_goes_to_me(self) -> None:
        phone = Phone()
        phone.type("AT+CNMI=2,1\r")
        phone.gets(dcs=0x15)
        assert phone.take() == '\r\n+CMTI: "SM",1\r\n'
        phone.module.set_quirk("class1_me", "on")
        phone.gets(dcs=0x15)
        assert phone.take() == '\r\n+CMTI: "ME",1\r\n'
        phone.gets(dcs=0)
        assert phone.take() == '\r\n+CMTI: "SM",2\r\n'

    def test_a_full_store_stops_sending_too(self) -> None:
        phone = Phone(sm_slots=1)
        phone.gets()
        phone.gets("later")
        assert "+CMGS: 0" in phone.type('AT+CMGF=1;+CMGS="+391"\rx\x1a')
        phone.module.set_quirk("full_322", value=True)
        assert phone.type('AT+CMGS="+391"\rx\x1a') == PROMPT + "\r\n+CMS ERROR: 322\r\n"
        assert phone.type("AT+CMGD=1,4\r") == OK
        assert phone.module.network.held == 0
        assert "later" in phone.type("AT+CMGR=1\r")

    @pytest.mark.looptime
    async def test_sms_commands_are_busy_after_boot(self) -> None:
        phone = Phone(sms_busy=20)
        busy = "\r\n+CMS ERROR: 314\r\n"
        for line in ("+CPMS?", '+CPMS="SM"', "+CMGL=4", "+CMGR=1", "+CMGD=1,4", "+CSCA?", "+CMGS=20", "+CMSS=1"):
            assert phone.type(f"AT{line}\r") == busy, line
        assert phone.type("AT+CMGF=1;+CNMI=2,1;+CPIN?;+CPMS=?;+CSMP=17\r").endswith(OK)
        assert phone.gets() is Outcome.HELD
        await asyncio.sleep(20.1)
        assert phone.take() == '\r\n+CMTI: "SM",1\r\n'
        assert phone.type("AT+CPMS?\r").endswith(OK)
        phone.module.reboot()
        await asyncio.sleep(5.1)
        assert phone.type("ATE0\rAT+CPMS?\r").endswith(busy)
        await asyncio.sleep(20)
        assert phone.type("AT+CPMS?\r").endswith(OK)
        phone.module.set_quirk("sms_busy", 60)
        assert phone.type("AT+CPMS?\r") == busy
        phone.module.set_quirk("sms_busy", 0)
        assert phone.type("AT+CPMS?\r").endswith(OK)
        phone.module.set_quirk("sms_busy", 60)
        phone.module.close()

    @pytest.mark.looptime
    async def test_without_cnma_mt_and_ds_are_0_after_so_many_seconds_or_never(self) -> None:
        phone = Phone(cnma_seconds=3)
        phone.type("AT+CSMS=1;+CNMI=2,2,0,1\r")
        phone.gets()
        await asyncio.sleep(3.1)
        assert "+CNMI: 2,0,0,0,0" in phone.type("AT+CNMI?\r")
        phone.module.set_quirk("cnma_seconds", 0)
        phone.type("AT+CNMI=2,2,0,1\r")
        assert phone.gets() is Outcome.SHOWN
        assert phone.gets() is Outcome.SHOWN
        await asyncio.sleep(100)
        assert "+CNMI: 2,2,0,1,0" in phone.type("AT+CNMI?\r")

    @pytest.mark.looptime
    async def test_a_status_report_is_waited_for_as_a_message_is(self) -> None:
        phone = Phone()
        phone.type("AT+CSMS=1;+CNMI=2,1,0,1\r")
        assert phone.module.network.report(7, Address.parse("+39346123")) is Outcome.SHOWN
        assert phone.take().startswith("\r\n+CDS: 23\r\n0791934329000090" + "0607" + "089193431632")
        assert phone.type("AT+CNMA\r") == OK
        phone.module.network.report(8, Address.parse("+39346123"))
        await asyncio.sleep(17.1)
        assert "+CNMI: 2,0,0,0,0" in phone.type("AT+CNMI?\r")

    @pytest.mark.looptime
    async def test_a_sent_message_is_reported_shown_stored_or_dropped(self) -> None:
        phone = Phone(report_delay=4)
        send = 'AT+CMGF=1;+CSMP=49;+CMGS="+39346123"\rx\x1a'
        stamps = '"08/05/28,09:04:37+00","08/05/28,09:04:37+00",0'
        phone.type("AT+CNMI=2,1,0,1\r")
        phone.type(send)
        await asyncio.sleep(4.1)
        assert phone.take() == f'\r\n+CDS: 6,0,"+39346123",145,{stamps}\r\n'
        phone.type("AT+CNMI=2,1,0,2\r")
        phone.type(send)
        await asyncio.sleep(4.1)
        assert phone.take() == '\r\n+CDSI: "SM",1\r\n'
        report = f'"REC UNREAD",6,1,"+39346123",145,{stamps}'
        assert phone.type("AT+CMGR=1\r") == f"\r\n+CMGR: {report}\r\n\r\nOK\r\n"
        assert f"\r\n+CMGL: 1,{report.replace('UNREAD', 'READ')}\r\n" in phone.type('AT+CMGL="ALL"\r')
        assert phone.type("AT+CMGF=0;+CMGR=1\r").startswith('\r\n+CMGR: 1,"",23\r\n0791')
        phone.type("AT+CNMI=2,1,0,0\r")
        phone.type(send)
        phone.type('AT+CMGF=1;+CSMP=17;+CMGS="+39346123"\rx\x1a')
        await asyncio.sleep(10)
        assert phone.take() == ""
        assert phone.module.store.used("SM") == 1
        phone.type(send)
        phone.module.close()

    def test_a_report_waits_at_the_network_too(self) -> None:
        phone = Phone()
        phone.type("AT+CNMI=2,1,0,1\r")
        phone.module.set_registration(0)
        assert phone.module.network.report(1, Address.parse("391"), 0x46) is Outcome.HELD
        phone.module.set_registration(1)
        assert "\r\n+CDS: " in phone.take()


class TestAtRun:
    @pytest.mark.looptime
    async def test_it_swallows_without_an_answer_or_with_one(self) -> None:
        phone = Phone()
        phone.type("AT#SMSATRUN=1\r")
        phone.gets("AT+CGMI")
        assert not phone.module.network.sent
        phone.module.set_quirk("at_run_answers", value=True)
        assert phone.gets("AT+CGMI;+CGMM") is Outcome.SWALLOWED
        assert phone.gets("hat+cmee=2", dcs=4) is Outcome.SWALLOWED
        assert phone.take() == "\r\n#SMSATRUN: AT+CGMI;+CGMM\r\n\r\n#SMSATRUN: hat+cmee=2\r\n"
        (sent,) = phone.module.network.sent
        assert (sent.to, sent.text) == ("+39346123", "\r\nTelit\r\n\r\nHE910-D\r\n\r\nOK\r\n")
        phone.type("AT#SMSATRUNCFG=3,0,5\r")
        phone.gets("AT")
        assert phone.take() == ""

    @pytest.mark.looptime
    async def test_the_digest_of_the_note(self) -> None:
        from tests.sim.test_messages import NOTE_REQUEST

        phone = Phone(at_run_answers=True)
        phone.type("AT#SMSATRUN=1\r")
        submit = decode_submit(NOTE_REQUEST)
        for data, answers in ((submit.user_data.content, 1), (submit.user_data.content.replace(b"W", b"V"), 1)):
            user_data = UserData(submit.dcs.alphabet, data)
            stamp = Timestamp(2008, 5, 28, 11, 4, 37)
            phone.module.network.deliver(Deliver(Address.parse("+391"), stamp, user_data, submit.dcs).encode())
            assert len(phone.module.network.sent) == answers
        assert "Junra7r0kIEcH9qV542n3Q==" in phone.module.network.sent[0].text

    @pytest.mark.looptime
    async def test_one_after_the_other_and_a_restart_if_one_never_ends(self) -> None:
        phone = Phone(at_run_answers=True)
        phone.type("AT#SMSATRUN=1;#SMSATRUNCFG=3,0,1\r")
        phone.gets("AT#CSURVC")
        phone.gets("AT+CGMI")
        assert not phone.module.network.sent
        await asyncio.sleep(2.1)
        sent = [message.text.strip() for message in phone.module.network.sent]
        assert sent[0].startswith("Network survey started")
        assert sent[-1] == "Telit\r\n\r\nOK"
        phone.gets("AT+CMGS=20")
        phone.gets("AT+CGMI")
        await asyncio.sleep(59.9)
        assert phone.type("AT\r") == OK
        await asyncio.sleep(0.2)
        assert phone.type("AT\r") == ""
        await asyncio.sleep(5)
        assert len(phone.module.network.sent) == len(sent)
        phone.gets("AT#REBOOT")
        assert phone.type("AT\r") == ""
        phone.module.close()

    @pytest.mark.looptime
    async def test_a_long_answer_comes_in_parts(self) -> None:
        phone = Phone(at_run_answers=True)
        phone.type("AT#SMSATRUN=1\r")
        phone.gets("AT#CSURVC")
        await asyncio.sleep(3)
        parts = [decode_submit(sent.pdu).user_data.concatenation for sent in phone.module.network.sent]
        assert [part.index for part in parts if part] == [1, 2]


class TestPorts:
    def ask_on(self, phone: Phone, first: str, other: str) -> None:
        phone.type(f"AT{first}\r")
        phone.other(f"AT{other}")

    @pytest.mark.parametrize(
        ("where", "first", "other"),
        [("as_asked", "", '\r\n+CMTI: "SM",1\r\n'), ("first", "", ""), ("all", *['\r\n+CMTI: "SM",1\r\n'] * 2)],
    )
    def test_who_hears_of_a_message(self, where: str, first: str, other: str) -> None:
        phone = Phone(urc_ports=where)
        self.ask_on(phone, "+CNMI=2,0", "+CNMI=2,1")
        phone.gets()
        assert (phone.take(), phone.other()) == (first, other)

    @pytest.mark.parametrize(("where", "first", "other"), [("as_asked", 0, 1), ("first", 0, 0), ("all", 1, 1)])
    def test_who_hears_of_the_rest(self, where: str, first: int, other: int) -> None:
        phone = Phone(urc_ports=where)
        self.ask_on(phone, "+CREG=0", "+CREG=1;#QSS=2;#SMOV=1;+CNMI=2,2")
        phone.module.set_sim(Sim.MISSING)
        assert (phone.take().count("#QSS: 0"), phone.other().count("+CREG: 0")) == (first, other)
        phone.module.set_sim(Sim.READY)
        assert (phone.take().count("+CREG: 1"), phone.other().count("#QSS: 3")) == (first, other)
        assert phone.gets() is (Outcome.STORED if where == "first" else Outcome.SHOWN)
        assert (phone.take().count("+CMT: "), phone.other().count("+CMT: ")) == (first, other)
        phone.module.urc("RING")
        assert phone.take() == "\r\nRING\r\n"
        assert phone.other() == ("" if where == "first" else "\r\nRING\r\n")

    def test_settings_of_each_port_or_of_all(self) -> None:
        phone = Phone()
        phone.type("AT+CMGF=1;+CMEE=2;+CNMI=2,1\r")
        assert "+CMGF: 0" in phone.other("AT+CMGF?")
        phone.module.set_quirk("shared_settings", value=True)
        assert phone.other("AT+CMGF?;+CMEE?;+CNMI?") == (
            "\r\n+CMGF: 1\r\n\r\n+CMEE: 2\r\n\r\n+CNMI: 2,1,0,0,0\r\n\r\nOK\r\n"
        )
        phone.other("AT+CMGF=0")
        assert "+CMGF: 0" in phone.type("AT+CMGF?\r")
        phone.other("ATZE0")
        assert "+CMEE: 0" in phone.type("AT+CMEE?\r")
        phone.module.set_quirk("shared_settings", value=False)
        phone.other("AT+CMEE=1")
        assert "+CMEE: 2" in phone.type("AT+CMEE?\r"), "its own are as they were"
        alike = Phone(shared_settings=True)
        alike.other("AT+CMEE=1")
        assert "+CMEE: 1" in alike.type("AT+CMEE?\r")

    @pytest.mark.looptime
    @pytest.mark.parametrize(("gap", "answer"), [("off", OK), ("ignore", ""), ("error", ERROR)])
    async def test_a_command_too_soon(self, gap: str, answer: str) -> None:
        phone = Phone()
        phone.module.set_quirk("command_gap", gap)
        assert phone.type("AT\r") == OK
        await asyncio.sleep(0.015)
        assert phone.type("AT+CSQ\r").replace("\r\n+CSQ: 14,99\r\n", "") == answer
        await asyncio.sleep(0.021)
        assert phone.type("AT\r") == OK
        phone.port.feed(b"A")
        await asyncio.sleep(0.021)
        assert phone.type("T\r") == answer, "its first character counts"
        await asyncio.sleep(0.021)
        phone.module.set_quirk("gap_seconds", 1)
        phone.type("AT\r")
        phone.port.feed(b"AT")
        phone.module.set_quirk("command_gap", "off")
        assert phone.type("\r") == OK


@pytest.mark.parametrize(
    ("body", "digits"),
    [("GPGGA,,,,,,0,,,,M,,M,,", 0x66), ("GPGLL,5204.8316,N,00451.4745,E,210421.000,A,A", 0x50)],
)
def test_the_checksum_of_lines_that_were_logged(body: str, digits: int) -> None:
    assert checksum(body) == digits


@pytest.mark.looptime
class TestLocation:
    async def test_it_is_known_only_then(self) -> None:
        assert Phone().type("AT$GPSP?\r") == ERROR
        phone = Phone(gps=True)
        assert phone.type("AT$GPSP=1;$GPSP?;$GPSNMUN?\r") == (
            "\r\n$GPSP: 1\r\n\r\n$GPSNMUN: 0,0,0,0,0,0,0\r\n\r\nOK\r\n"
        )
        assert phone.type("AT$GPSP=?;$GPSNMUN=?;$GPSACP=?\r").endswith(OK)
        assert phone.type("AT$GPSACP\r").startswith("\r\n$GPSACP: 090437.000,4526.1234N,00911.5678E,")
        assert phone.type("AT$GPSNMUN=4\r") == phone.type("AT$GPSP\r") == ERROR

    async def test_the_flood_of_mode_3_until_its_escape(self) -> None:
        phone = Phone(gps=True, nmea_rate=50)
        assert phone.type("AT$GPSNMUN=3,1,0,0,0,1\r") == "\r\nCONNECT\r\n"
        await asyncio.sleep(10.05)
        phone.module.urc("RING")
        lines = phone.type("AT\r").splitlines()
        assert len(lines) == 500
        assert {line.partition("*")[0] for line in lines} == {
            "$GPGGA,090437.000,4526.1234,N,00911.5678,E,1,05,1.50,120.0,M,48.0,M,,0000",
            "$GPRMC,090437.000,A,4526.1234,N,00911.5678,E,0.02,31.66,280508,,,A",
        }
        await asyncio.sleep(10)
        assert len(phone.take().splitlines()) == 500
        assert phone.other("AT") == f"\r\nRING\r\n{OK}"
        assert phone.type("+++") == "\r\nNO CARRIER\r\n\r\nRING\r\n"
        await asyncio.sleep(10)
        assert phone.type("AT\r") == OK

    async def test_a_restart_ends_it(self) -> None:
        phone = Phone(gps=True)
        phone.type("AT$GPSNMUN=3\r")
        phone.module.reboot()
        await asyncio.sleep(6)
        assert phone.type("AT\r") == "AT\r\r\nOK\r\n"

    async def test_lines_among_the_answers(self) -> None:
        phone = Phone(gps=True)
        phone.type("AT$GPSNMUN=1,1\r")
        phone.other("AT$GPSNMUN=2,0,0,0,0,0,1")
        await asyncio.sleep(3.1)
        assert phone.take().count("\r\n$GPSNMUN: $GPGGA,") == 3
        assert phone.other().count("\r\n$GPVTG,") == 3
        phone.type("AT$GPSNMUN=0\r")
        phone.other("AT$GPSNMUN=0")
        await asyncio.sleep(3.1)
        assert phone.take() == ""
        phone.type("AT$GPSNMUN=2\r")
        phone.module.close()
        await asyncio.sleep(3)


class TestSim:
    def test_each_state_has_its_codes(self) -> None:
        phone = Phone(sim_strict=True)
        phone.type("AT+CMEE=1\r")
        for state, cme, cms in ((Sim.MISSING, 10, 310), (Sim.PIN, 11, 311), (Sim.PUK, 12, 316)):
            phone.module.set_sim(state)
            assert phone.type("AT+CIMI\r") == f"\r\n+CME ERROR: {cme}\r\n"
            for line in ("+CPMS?", "+CMGL=4", "+CMGS=20"):
                assert phone.type(f"AT{line}\r") == f"\r\n+CMS ERROR: {cms}\r\n"
        phone.module.set_sim(Sim.READY)
        assert phone.type("AT+CPMS?\r").endswith(OK)

    def test_the_puk_sets_a_new_pin(self) -> None:
        phone = Phone(puk=True)
        phone.type("AT+CMEE=1\r")
        phone.module.set_sim(Sim.PIN)
        for _ in range(3):
            phone.type("AT+CPIN=0000\r")
        assert phone.type("AT+CPIN?;#PCT\r") == "\r\n+CPIN: SIM PUK\r\n\r\n#PCT: 10\r\n\r\nOK\r\n"
        assert phone.type("AT+CPIN=1234\r") == phone.type('AT+CPIN="12345678","x"\r') == "\r\n+CME ERROR: 12\r\n"
        assert phone.type('AT+CPIN="00000000","4321"\r') == "\r\n+CME ERROR: 16\r\n"
        assert "#PCT: 9" in phone.type("AT#PCT\r")
        assert phone.type('AT+CPIN="12345678","4321"\r') == OK
        assert phone.type("AT+CPIN?;#PCT\r") == "\r\n+CPIN: READY\r\n\r\n#PCT: 3\r\n\r\nOK\r\n"
        phone.module.set_sim(Sim.PIN)
        assert phone.type("AT+CPIN=1234\r") == "\r\n+CME ERROR: 16\r\n"
        assert phone.type("AT+CPIN=4321\r") == OK

    def test_ten_wrong_puks_are_the_end(self) -> None:
        phone = Phone(puk=True)
        phone.type("AT+CMEE=1\r")
        phone.module.set_sim(Sim.PUK)
        for _ in range(10):
            assert phone.type('AT+CPIN="00000000","4321"\r') == "\r\n+CME ERROR: 16\r\n"
        assert phone.type('AT+CPIN="12345678","4321"\r') == "\r\n+CME ERROR: 13\r\n"

    @pytest.mark.looptime
    async def test_a_locked_sim_asks_after_each_boot_and_insertion(self) -> None:
        phone = Phone(pin_lock=True)
        assert phone.type("AT+CPIN?;+CREG?\r") == "\r\n+CPIN: SIM PIN\r\n\r\n+CREG: 0,0\r\n\r\nOK\r\n"
        assert phone.type("AT+CPIN=1234;+CREG?\r") == "\r\n+CREG: 0,1\r\n\r\nOK\r\n"
        phone.module.set_sim(Sim.MISSING)
        phone.module.set_sim(Sim.READY)
        assert "+CPIN: SIM PIN" in phone.type("AT+CPIN?\r")
        phone.type("AT+CPIN=1234\r")
        phone.module.reboot()
        await asyncio.sleep(6)
        assert "+CPIN: SIM PIN" in phone.type("AT+CPIN?\r")
        assert "+CREG: 0,0" in phone.type("AT+CREG?\r")

    @pytest.mark.looptime
    async def test_a_sim_that_comes_back_rises_step_by_step(self) -> None:
        phone = Phone(qss_step=2)
        phone.type("AT#QSS=2;+CMEE=1;+CREG=1\r")
        phone.other("AT#QSS=1")
        phone.module.set_sim(Sim.MISSING)
        assert phone.take() == "\r\n#QSS: 0\r\n\r\n+CREG: 0\r\n"
        phone.module.set_sim(Sim.READY)
        assert phone.take() == "\r\n#QSS: 1\r\n"
        assert phone.type("AT+CPIN?\r") == phone.type("AT+CIMI\r") == "\r\n+CME ERROR: 14\r\n"
        assert phone.type("AT+CPMS?\r") == "\r\n+CMS ERROR: 314\r\n"
        await asyncio.sleep(2.1)
        assert phone.take() == "\r\n#QSS: 2\r\n"
        assert "#QSS: 2,2" in phone.type("AT#QSS?\r")
        await asyncio.sleep(2)
        assert phone.take() == "\r\n#QSS: 3\r\n\r\n+CREG: 1\r\n"
        assert phone.other() == "\r\n#QSS: 0\r\n\r\n#QSS: 1\r\n"
        assert phone.type("AT+CPIN?;+CPMS?\r").endswith(OK)

    @pytest.mark.looptime
    async def test_it_is_taken_out_again_or_restarted_while_it_rises(self) -> None:
        phone = Phone(qss_step=2)
        phone.type("AT#QSS=2\r")
        phone.module.set_sim(Sim.MISSING)
        phone.module.set_sim(Sim.READY)
        phone.module.set_sim(Sim.MISSING)
        phone.take()
        await asyncio.sleep(10)
        assert phone.type("AT#QSS?\r") == "\r\n#QSS: 2,0\r\n\r\nOK\r\n"
        phone.module.set_sim(Sim.READY)
        phone.module.reboot()
        await asyncio.sleep(6)
        assert "+CREG: 0,1" in phone.type("ATE0\rAT+CREG?\r")
        phone.module.set_sim(Sim.PIN)
        assert phone.type("AT+CPIN=1234\r") == OK
        await asyncio.sleep(3)
        assert "+CPIN: READY" in phone.type("AT+CPIN?\r")


class TestRegistration:
    def test_the_forms_beyond_2(self) -> None:
        assert Phone().type("AT+CREG=3\r") == ERROR
        phone = Phone("LE910C1-EUX", creg_more=True)
        assert "(0-3)" in phone.type("AT+CREG=?\r")
        assert "(0-5)" in phone.type("AT+CEREG=?\r")
        phone.type("AT+CREG=3;+CGREG=2;+CEREG=5\r")
        phone.module.set_registration(3)
        assert phone.take() == "\r\n+CREG: 3,,,,0,13\r\n\r\n+CGREG: 3\r\n\r\n+CEREG: 3,,,,0,13\r\n"
        phone.module.set_registration(2)
        assert phone.take() == "\r\n+CREG: 2\r\n\r\n+CGREG: 2\r\n\r\n+CEREG: 2\r\n"
        phone.module.set_registration(5)
        cell = '5,"6993","0938F20",7'
        assert phone.take() == (
            f'\r\n+CREG: {cell}\r\n\r\n+CGREG: {cell}\r\n\r\n+CEREG: {cell},,,"00100100","01000111"\r\n'
        )

    @pytest.mark.looptime
    async def test_it_is_lost_for_a_while_and_comes_back(self) -> None:
        phone = Phone()
        phone.type("AT+CREG=1\r")
        phone.module.lose_registration(2, 30)
        await asyncio.sleep(29.9)
        assert phone.take() == "\r\n+CREG: 2\r\n"
        await asyncio.sleep(0.2)
        assert phone.take() == "\r\n+CREG: 1\r\n"
        phone.module.lose_registration(2, 30)
        phone.module.set_registration(0)
        phone.take()
        await asyncio.sleep(60)
        assert phone.take() == ""
        phone.module.lose_registration(2, 30)
        phone.module.close()


class TestTenant:
    def test_the_radio_switched_off_by_another_program(self) -> None:
        phone = Phone()
        phone.type("AT+CREG=1\r")
        assert phone.module.tenant("AT+CFUN=4") == OK
        assert phone.take() == "\r\n+CREG: 0\r\n"
        assert phone.module.tenant("AT+CFUN=1;+CFUN?") == "\r\n+CFUN: 1\r\n\r\nOK\r\n"
        assert phone.take() == "\r\n+CREG: 1\r\n"

    @pytest.mark.looptime
    async def test_it_hears_nothing_unsolicited_and_waits_for_its_answer(self) -> None:
        phone = Phone(shared_settings=True)
        assert phone.module.tenant("AT+CREG=1;+CMEE=2;+COPS=?") == ""
        phone.module.set_registration(2)
        assert phone.module.tenant("AT") is None
        assert "+CMEE: 0" in phone.type("AT+CMEE?\r")
        await asyncio.sleep(11)
        assert phone.module.tenant("AT") == OK
        phone.module.set_quirk("command_gap", "ignore")
        assert phone.module.tenant("AT") == phone.module.tenant("AT") == OK
        phone.module.reboot()
        await asyncio.sleep(6)
        assert phone.module.tenant("AT") == OK
        phone.module.close()
