# SPDX-License-Identifier: Apache-2.0
"""What happens to the module from outside and in time: registration, SIM, waiting commands, faults, restarts."""

import asyncio

import pytest

from atrund.sim.faults import PLANTS_CAP, Plant
from atrund.sim.module import SimModule
from atrund.sim.state import Options, Sim


class Desk:
    """A module, and one at its first port."""

    def __init__(self, model: str = "HE910-D") -> None:
        self.module = SimModule(Options(model=model))
        self.out = bytearray()
        self.port = self.module.add_port(self.out.extend)
        self.at("ATE0")

    def at(self, line: str) -> str:
        self.port.feed(f"{line}\r".encode())
        return self.take()

    def take(self) -> str:
        text = self.out.decode("latin-1")
        self.out.clear()
        return text


@pytest.fixture
def desk() -> Desk:
    return Desk()


class TestRadio:
    def test_registration_is_told_to_the_ports_that_asked_as_they_asked(self, desk: Desk) -> None:
        other = bytearray()
        desk.module.add_port(other.extend).feed(b"ATE0+CREG=1\r")
        other.clear()
        desk.at("AT+CREG=2;+CGREG=1")
        desk.module.set_registration(2)
        assert desk.take() == "\r\n+CREG: 2\r\n\r\n+CGREG: 2\r\n"
        desk.module.set_registration(5)
        desk.module.set_registration(5)
        assert desk.take() == '\r\n+CREG: 5,"6993","0938F20",2\r\n\r\n+CGREG: 5\r\n'
        assert other == b"\r\n+CREG: 2\r\n\r\n+CREG: 5\r\n"

    def test_cereg_belongs_to_lte(self, desk: Desk) -> None:
        assert "+CEREG: 0,0\r\n" in desk.at("AT+CEREG?")
        lte = Desk("LE910C1-EUX")
        lte.at("AT+CEREG=1")
        lte.module.set_registration(3)
        assert lte.take() == "\r\n+CEREG: 3\r\n"

    def test_losing_the_network_takes_the_contexts_down(self, desk: Desk) -> None:
        desk.at("AT+CGACT=1,1")
        desk.module.set_registration(0)
        assert desk.at("AT+CGACT?;+COPS?;+CGATT?") == ("\r\n+CGACT: 1,0\r\n\r\n+COPS: 0\r\n\r\n+CGATT: 0\r\n\r\nOK\r\n")
        assert "000 00" in desk.at("AT#RFSTS")
        assert desk.at("AT+CMEE=1;+CGACT=1,1") == "\r\n+CME ERROR: 30\r\n"
        assert desk.at("AT+CGATT=1") == "\r\n+CME ERROR: 30\r\n"

    def test_cops_chooses_leaves_and_formats(self, desk: Desk) -> None:
        assert desk.at('AT+COPS=1,2,"22288";+COPS?') == '\r\n+COPS: 1,2,"22288"\r\n\r\nOK\r\n'
        assert desk.at("AT+COPS=3,0;+COPS?") == '\r\n+COPS: 1,0,"I WIND"\r\n\r\nOK\r\n'
        assert desk.at('AT+CMEE=1;+COPS=1,2,"99999"') == "\r\n+CME ERROR: 30\r\n"
        assert desk.at('AT+COPS=1,2,""') == "\r\n+CME ERROR: 50\r\n"
        assert desk.at("AT+COPS=2;+CREG?") == "\r\n+CREG: 0,0\r\n\r\nOK\r\n"
        assert desk.at("AT+COPS=0;+CREG?") == "\r\n+CREG: 0,5\r\n\r\nOK\r\n"
        assert desk.at('AT+COPS=4,2,"1";+COPS?').endswith('+COPS: 4,2,"22210"\r\n\r\nOK\r\n')

    def test_cfun_takes_the_radio_away_and_gives_it_back(self, desk: Desk) -> None:
        assert desk.at("AT+CFUN=4;+CREG?;+CFUN?") == "\r\n+CREG: 0,0\r\n\r\n+CFUN: 4\r\n\r\nOK\r\n"
        assert desk.at("AT+COPS=0;+CREG?").endswith("+CREG: 0,0\r\n\r\nOK\r\n")
        assert desk.at("AT+CFUN=1;+CREG?").endswith("+CREG: 0,1\r\n\r\nOK\r\n")

    def test_signal(self, desk: Desk) -> None:
        desk.module.set_signal(99, 99)
        assert "+CSQ: 99,99" in desk.at("AT+CSQ")
        assert "+CESQ: 99,99,255,24,255,255" in desk.at("AT+CESQ")
        desk.module.set_signal(31, 0)
        assert "PWR:-51dbm" in desk.at("AT#MONI")

    @pytest.mark.parametrize("model", ["HE910-D", "GE910-QUAD", "LE910C1-EUX"])
    @pytest.mark.parametrize("command", ["#MONI", "#SERVINFO", "#RFSTS"])
    def test_cells_have_a_line_for_each_radio(self, model: str, command: str) -> None:
        desk = Desk(model)
        assert desk.at(f"AT{command}").startswith(f"\r\n{command}: ")
        assert desk.at("AT#MONI=3;#MONI").startswith("\r\n#MONI: ")

    def test_the_table_of_moni_7_on_gsm(self) -> None:
        assert Desk("GE910-QUAD").at("AT#MONI=7;#MONI").startswith("\r\n#MONI: Cell BSIC LAC CellId ARFCN Power")

    def test_the_sim_comes_and_goes(self, desk: Desk) -> None:
        desk.at("AT#QSS=2;+CMEE=1")
        desk.module.set_sim(Sim.MISSING)
        assert desk.take() == "\r\n#QSS: 0\r\n"
        assert desk.at("AT+CPIN?") == "\r\n+CME ERROR: 10\r\n"
        assert desk.at("AT#CCID") == "\r\n+CME ERROR: 10\r\n"
        desk.module.set_sim(Sim.PIN)
        assert desk.take() == "\r\n#QSS: 1\r\n"
        assert desk.at("AT+CPIN?;+CIMI").endswith("+CPIN: SIM PIN\r\n\r\n+CME ERROR: 11\r\n")
        assert desk.at("AT+CPIN=0000;#PCT") == "\r\n+CME ERROR: 16\r\n"
        assert "#PCT: 2" in desk.at("AT#PCT")
        assert desk.at('AT+CPIN="1234"') == "\r\n#QSS: 3\r\n\r\nOK\r\n"
        assert "+CREG: 0,1" in desk.at("AT+CREG?")

    def test_three_wrong_pins_ask_for_the_puk(self, desk: Desk) -> None:
        desk.module.set_sim(Sim.PIN)
        for _ in range(3):
            desk.at("AT+CPIN=1")
        assert "+CPIN: SIM PUK" in desk.at("AT+CPIN?")
        assert desk.at("AT+CMEE=1;+CPIN=1234") == "\r\n+CME ERROR: 16\r\n"


@pytest.mark.looptime
class TestTime:
    async def test_cops_test_is_slow(self, desk: Desk) -> None:
        assert desk.at("AT+COPS=?") == ""
        await asyncio.sleep(9.9)
        assert desk.take() == ""
        await asyncio.sleep(0.2)
        assert desk.take().startswith('\r\n+COPS: (2,"vodafone IT","vodafone","22210",2),(1,"I TIM"')

    @pytest.mark.parametrize("character", [b"\r", b"A", b"\x1b"])
    async def test_a_character_aborts_it_and_the_rest_of_the_line(self, desk: Desk, character: bytes) -> None:
        desk.at("AT+COPS=?;+CSQ")
        desk.port.feed(b"\n")
        assert desk.take() == ""
        desk.port.feed(character)
        assert desk.take() == "\r\nABORTED\r\n"
        assert desk.at("AT") == "\r\nOK\r\n"

    async def test_what_is_typed_while_a_command_runs_is_ignored(self, desk: Desk) -> None:
        assert desk.at("AT#CSURVC") == "\r\nNetwork survey started ...\r\n"
        assert desk.at("AT+CSQ") == ""
        assert desk.port.busy
        desk.module.urc("RING")
        await asyncio.sleep(3)
        answer = desk.take()
        assert answer.startswith("\r\nRING\r\n\r\n1018,21,-73,")
        assert answer.endswith("Network survey ended (Carrier: 10 BCCh: 3)\r\n\r\nOK\r\n")
        assert "+CSQ" not in answer
        assert list(desk.port.seen) == ["ATE0", "AT#CSURVC"]

    async def test_a_reboot_is_ok_then_silence_then_the_settings_of_power_up(self, desk: Desk) -> None:
        desk.at("AT+CMEE=1;+CREG=2;+CNMI=2,1;#SMSATRUN=1;#SMSMODE=0;+CGACT=1,1")
        assert desk.at("AT#REBOOT") == "\r\nOK\r\n"
        assert desk.at("AT") == ""
        desk.module.urc("RING")
        await asyncio.sleep(4.9)
        assert desk.at("AT") == ""
        await asyncio.sleep(0.2)
        assert desk.at("AT") == "AT\r\r\nOK\r\n"
        assert desk.at("ATE0+CMEE?;+CREG?;+CNMI?;#SMSMODE?;#SMSATRUN?;+CGACT?") == (
            "ATE0+CMEE?;+CREG?;+CNMI?;#SMSMODE?;#SMSATRUN?;+CGACT?\r"
            "\r\n+CMEE: 0\r\n\r\n+CREG: 0,1\r\n\r\n+CNMI: 0,0,0,0,0\r\n\r\n#SMSMODE: 1\r\n\r\n#SMSATRUN: 1\r\n"
            "\r\n+CGACT: 1,0\r\n\r\nOK\r\n"
        )

    async def test_cfun_1_1_restarts_too(self, desk: Desk) -> None:
        assert desk.at("AT+CFUN=1,1") == "\r\nOK\r\n"
        assert desk.at("AT") == ""
        await asyncio.sleep(5.1)
        assert desk.at("AT") == "AT\r\r\nOK\r\n"

    async def test_off_is_off_until_a_reboot(self, desk: Desk) -> None:
        assert desk.at("AT#SHDN") == "\r\nOK\r\n"
        await asyncio.sleep(60)
        assert desk.at("AT") == ""
        desk.module.reboot()
        desk.module.reboot()
        await asyncio.sleep(5.1)
        assert desk.at("AT") == "AT\r\r\nOK\r\n"

    async def test_a_hanging_module_answers_nothing_and_forgets_what_ran(self, desk: Desk) -> None:
        desk.at("AT+COPS=?")
        desk.module.hang()
        assert desk.at("AT+CSQ") == ""
        desk.module.urc("RING")
        await asyncio.sleep(20)
        assert desk.take() == ""
        desk.module.resume()
        assert desk.at("AT") == "\r\nOK\r\n"
        assert list(desk.port.seen) == ["ATE0", "AT+COPS=?", "AT+CSQ", "AT"]

    async def test_a_late_answer_once(self, desk: Desk) -> None:
        desk.module.faults.plant("AT+CSQ", Plant(seconds=3))
        assert desk.at("AT+CGMI;+CSQ;+CREG?") == "\r\nTelit\r\n"
        await asyncio.sleep(2.9)
        assert desk.take() == ""
        await asyncio.sleep(0.2)
        assert desk.take() == "\r\n+CSQ: 14,99\r\n\r\n+CREG: 0,1\r\n\r\nOK\r\n"
        assert desk.at("AT+CSQ").startswith("\r\n+CSQ")

    async def test_a_late_refusal_and_a_late_ok(self, desk: Desk) -> None:
        desk.module.faults.plant("+FOO", Plant(seconds=3))
        desk.module.faults.plant("AT", Plant(seconds=3))
        for line, answer in (("AT+FOO", "\r\nERROR\r\n"), ("AT", "\r\nOK\r\n")):
            assert desk.at(line) == ""
            await asyncio.sleep(3.1)
            assert desk.take() == answer

    async def test_sending_is_late_behind_its_prompt(self, desk: Desk) -> None:
        desk.module.faults.plant("+CMGS", Plant(seconds=3))
        assert desk.at('AT+CMGF=1;+CMGS="+391"') == "\r\n> "
        desk.port.feed(b"x\x1a")
        await asyncio.sleep(3)
        assert desk.take() == ""
        await asyncio.sleep(0.4)
        assert desk.take() == "\r\n+CMGS: 0\r\n\r\nOK\r\n"

    async def test_closing_stops_what_runs(self, desk: Desk) -> None:
        desk.at("AT+COPS=?")
        desk.module.close()
        await asyncio.sleep(20)
        assert desk.at("AT") == ""
        assert desk.module.ports == []


class TestFaults:
    def test_an_error_as_often_as_asked(self, desk: Desk) -> None:
        desk.module.faults.plant("+CSQ", Plant(left=2, final="+CME ERROR: 100"))
        answers = [desk.at("AT+CSQ") for _ in range(3)]
        assert answers == ["\r\n+CME ERROR: 100\r\n"] * 2 + ["\r\n+CSQ: 14,99\r\n\r\nOK\r\n"]

    async def test_for_one_form_alone_and_always(self, desk: Desk) -> None:
        desk.module.faults.plant("at+cops=?", Plant(left=None, final="ERROR"))
        assert desk.at("AT+COPS=?") == desk.at("AT+COPS=?") == "\r\nERROR\r\n"
        assert "vodafone" in desk.at("AT+COPS?")
        desk.module.faults.plant("+CSQ", Plant(left=None, final="ERROR"))
        desk.module.faults.clear("+CSQ")
        assert "+CSQ: 14" in desk.at("AT+CSQ")
        desk.module.faults.clear()
        assert desk.at("AT+COPS=?") == ""
        desk.port.close()

    def test_sending_fails_behind_its_prompt_and_nothing_is_sent(self, desk: Desk) -> None:
        desk.module.faults.plant("+CMGS", Plant(final="+CMS ERROR: 500"))
        assert desk.at('AT+CMGF=1;+CMGS="+391"') == "\r\n> "
        desk.port.feed(b"x\x1a")
        assert desk.take() == "\r\n+CMS ERROR: 500\r\n"
        assert not desk.module.network.sent

    def test_a_planted_answer(self, desk: Desk) -> None:
        lines = tuple(f"record {number}" for number in range(500))
        desk.module.faults.plant("#CSURVC", Plant(lines=lines, final="OK"))
        assert desk.at("AT#CSURVC") == "\r\n" + "".join(f"{line}\r\n" for line in lines) + "\r\nOK\r\n"

    def test_the_number_of_faults_has_a_cap(self, desk: Desk) -> None:
        for number in range(PLANTS_CAP):
            desk.module.faults.plant(f"+X{number}", Plant())
        with pytest.raises(ValueError, match="already"):
            desk.module.faults.plant("+Y", Plant())
        desk.module.faults.plant("+X0", Plant(left=3))


def test_a_repeat_runs_the_last_line_again(desk: Desk) -> None:
    desk.at("AT+CSQ")
    desk.port.feed(b"A/")
    assert desk.take() == "\r\n+CSQ: 14,99\r\n\r\nOK\r\n"


def test_each_port_has_its_own_settings(desk: Desk) -> None:
    other = bytearray()
    port = desk.module.add_port(other.extend)
    desk.at("AT+CMEE=2;+CMGF=1")
    port.feed(b"AT+CMEE?;+CMGF?\r")
    assert other == b"AT+CMEE?;+CMGF?\r\r\n+CMEE: 0\r\n\r\n+CMGF: 0\r\n\r\nOK\r\n"


def test_a_model_that_is_not_known() -> None:
    with pytest.raises(KeyError):
        SimModule(Options(model="XX910"))
