# SPDX-License-Identifier: Apache-2.0
"""The page for the worst night: each symptom is provoked, what stands there is typed, and what it tells is to be seen.

What only an installed system has (journalctl, systemctl status) is typed by tests/system/first_minutes.py.
"""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.scenarios.test_pages import SIMULATOR
from tests.support.machine import ROOT, Machine
from tests.support.pages import Example, follow

PAGE: Final = (ROOT / "docs" / "worst-night.md").read_text(encoding="utf-8")
FRIEND: Final = "+393401234567"
PASSWORD: Final = "correct horse"
SIM: Final = "atrunctl sim --control /tmp/sim"
ELSEWHERE: Final = {"journalctl", "systemctl", "mmcli", "lsusb", "dmesg", "timedatectl", "nft"}
CONFIGURATION: Final = f"""
[module]
port = "/tmp/tty"
[sms]
enabled = true
numbers = ["{FRIEND}"]
sweep = "10s"
[tcp]
enabled = true
firewall = ["127.0.0.0/8"]
users = [{{ name = "operator", password_file = "operator.password" }}]
login_failures = 2
[mqtt]
enabled = true
host = "localhost"
"""


pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("night")
    machine = Machine(folder)
    etc = folder / "etc" / "atrund"
    (etc / "atrund.toml").touch()
    (etc / "conf.d" / "site.toml").write_text(CONFIGURATION)
    (etc / "operator.password").write_text(PASSWORD)
    (etc / "operator.password").chmod(0o640)
    machine.start("exec mosquitto", "mosquitto_sub -t x -E")
    machine.start(f"exec {SIMULATOR}", "test -S /tmp/sim")
    machine.run("systemctl start atrund")
    machine.until("atrunctl status | grep -q 'connected *yes'")
    yield machine
    machine.stop()


def lines(heading: str) -> list[str]:
    """What is to be typed below a heading of the page."""
    (part,) = re.findall(rf"(?ms)^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", PAGE)
    return [line for block in re.findall(r"```sh\n(.*?)```", part, re.DOTALL) for line in block.splitlines() if line]


def typed(machine: Machine, heading: str, **answers: str) -> str:
    """Type all of it that is for this machine, and return what was to be seen."""
    seen = []
    for line in lines(heading):
        words = shlex.split(line.removeprefix("sudo "))
        if words[0] in ELSEWHERE:
            continue
        if words[-1] in answers or " ".join(words[1:3]) == "sms password":
            word = answers[words[-1]]
            shown = f"Password…: {word}⏎\nThe same once more: {word}⏎\n…"
            seen.append(follow(machine, Example(0, line, shown)))
            continue
        done = machine.run(line)
        usage = done.returncode == 2 and words[0] == "atrunctl"
        assert done.returncode not in {126, 127} and not usage, f"{line}\n{done.stdout}"  # noqa: PT018 - one thing
        assert "Traceback" not in done.stdout, done.stdout
        seen.append(done.stdout)
    return "\n".join(seen)


def test_no_answer_to_an_sms(machine: Machine) -> None:
    machine.run(f"{SIM} sms --from +390000000001 AT+CSQ; {SIM} sms --from {FRIEND} AT#SHDN")
    machine.until("test $(atrunctl sms log | grep -c '') -ge 2")
    seen = typed(machine, "No answer to an SMS")
    for words in ("comes from no number of the white list", "rejected  policy", f"1  {FRIEND}", "+CPMS: ", "+CREG: "):
        assert words in seen, words


def test_telnet_does_not_connect(machine: Machine) -> None:
    seen = typed(machine, "telnet hangs, and does not connect")
    assert "192.0.2.7: refused by firewall" in seen
    assert "127.0.0.0/255.0.0.0" in seen
    assert re.search(r"kept_out +\d", seen)
    assert re.search(r"ports +1024", seen)


def test_telnet_is_closed(machine: Machine) -> None:
    held = f"(printf 'operator\\r{PASSWORD}\\r'; sleep infinity) | socat - TCP:127.0.0.1:1024"
    machine.start(held, "atrunctl status | grep -q 'peer *127'")
    machine.run("echo | timeout 10 socat - TCP:127.0.0.1:1024")
    seen = typed(machine, "telnet connects and is closed")
    assert "busy" in seen
    assert re.search(r"peer +127.0.0.1", seen)
    machine.run("atrunctl at 'AT#TCPATRUNCLOSE'")
    machine.until("! atrunctl status | grep -q 'peer *127'")
    for _ in range(9):  # each is answered later; two shut the address out
        machine.run("printf 'operator\\rwrong\\r' | timeout 25 socat -t 20 - TCP:127.0.0.1:1024")
        if "shut out" in machine.run("atrunctl audit --door tcp").stdout:
            break
    seen = typed(machine, "telnet connects and is closed")
    assert "login refused" in seen
    assert "shut out" in seen


def test_the_broker_is_away(machine: Machine) -> None:
    machine.run("pkill mosquitto")
    machine.until("atrunctl status | grep -q 'connected *no'")
    seen = typed(machine, "The broker is away")
    assert re.search(r"warning +mqtt +no connection to the broker", seen)
    machine.start("exec mosquitto", "mosquitto_sub -t x -E")
    machine.run("systemctl restart atrund")
    machine.until("atrunctl status | grep -q 'connected *yes'")


def test_the_radio_is_off(machine: Machine) -> None:
    machine.run(f"{SIM} tenant AT+CFUN=4")
    seen = typed(machine, "CFUN=4: the radio is off")
    assert "+CFUN: 4" in seen
    assert "#ATRUNCONFIRM: 1,5" in seen
    assert "+CFUN: 1" in machine.run("atrunctl at 'AT+CFUN?'").stdout
    assert machine.run("atrunctl at 'AT#ATRUNCONFIRM'").stdout.split() == ["OK"]


def test_the_sim_is_full(machine: Machine) -> None:
    machine.run(f"{SIM} fill")
    assert '+CPMS: "SM",20,20' in machine.run("atrunctl at 'AT+CPMS?'").stdout
    machine.until("! atrunctl at 'AT+CPMS?' | grep -q '\"SM\",20,20'")
    seen = typed(machine, "The SIM is full")
    assert re.search(r'\+CPMS: "SM",1\d,20', seen)
    assert "The line would run." in seen
    assert "other" in seen


def test_the_password_is_lost(machine: Machine) -> None:
    seen = typed(machine, "The password is lost", operator="another one", set="0123456789abcdef")
    assert "operator" in seen
    machine.run("systemctl restart atrund")  # for the address was shut out
    answer = machine.run("printf 'operator\\ranother one\\rAT\\r' | timeout 20 socat -t 10 - TCP:127.0.0.1:1024").stdout
    assert "OK" in answer


def test_the_clock_is_wrong(machine: Machine) -> None:
    assert "+CCLK: " in typed(machine, "The clock is wrong")


def test_the_module_is_gone(machine: Machine) -> None:
    machine.run(f"{SIM} unplug")
    machine.until("atrunctl status | grep -q 'state *absent'")
    seen = typed(machine, "The module is gone")
    assert re.search(r"error +module +absent: ", seen)
    machine.run(f"{SIM} plug")
    machine.until("atrunctl status | grep -q 'state *ready'")


def test_under_attack(machine: Machine) -> None:
    machine.run("atrunctl whitelist add +390000000001")
    seen = typed(machine, "Under attack", operator="a third one", set="0123456789abcdeF")
    assert "closed: mqtt, sms, tcp" in seen
    assert re.search(r"sms\.whitelist\.\d +.*0000001.* local", seen)
    assert machine.run("atrunctl at AT").returncode == 0, "the door of whoever looks after it stays open"
    machine.run("atrunctl nvm reset sms.whitelist tcp.users tcp.firewall monitor")
    assert "0000001" not in machine.run("atrunctl whitelist list").stdout
    assert "closed: none" in machine.run("atrunctl doors open tcp sms mqtt").stdout


def test_no_symptom_is_left_out() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    blocks = [part for part in re.split(r"(?m)^## ", PAGE)[1:] if "```sh" in part]
    assert [part for part in blocks if f'"{part.partition(chr(10))[0]}"' not in source] == []
