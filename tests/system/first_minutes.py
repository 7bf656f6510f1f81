# SPDX-License-Identifier: Apache-2.0
"""The first five minutes on a router: `atrunctl setup` by answers and by questions, by hand as the manual page says it,
and the pages' commands where systemd and a journal are real."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

from tests.support.guest import check, run
from tests.system.inside import (
    PASSWORD,
    PATIENCE,
    Conversation,
    is_up,
    journal,
    over_mqtt,
    say,
    until,
    word,
)

ETC: Final = Path("/etc/atrund")
WRITTEN: Final = ETC / "conf.d" / "50-setup.toml"
ANSWERS: Final = Path("/root/answers.toml")
NUMBER: Final = "+393401234567"
BY_HAND: Final = ETC / "conf.d" / "by-hand.toml"
DROP_IN: Final = Path("/etc/systemd/system/atrund.service.d/by-hand.conf")
PAGES: Final = Path("/usr/share/doc/atrund")

RIGHT: Final = f"""
[module]
port = "/run/module"
[sms]
numbers = ["{NUMBER}"]
[tcp]
user = "operator"
password_file = "operator.password"
[mqtt]
host = "127.0.0.1"
remote_at = true
"""


def first_minutes() -> None:
    """All of it, and nothing of it is left; the simulated module and the broker are there."""
    what_is_wrong_is_said()
    many_routers()
    a_person()
    it_works()
    the_pages_commands_run()
    undone()
    by_hand()
    undone()


def what_is_wrong_is_said() -> None:
    """Wrong answers, no module, no broker: said, and nothing changed."""
    for text, code, told in (
        ("", 1, "module.port: no module was found on USB"),
        (RIGHT.replace("/run/module", "ttyS9"), 2, "did you mean /dev/ttyS9"),
        (RIGHT.replace(NUMBER, "anna"), 2, 'sms.numbers[0]: "anna" is not allowed'),
        (RIGHT.replace("password_file", "pasword_file"), 2, "did you mean tcp.password_file"),
        (RIGHT.replace("operator.password", "nobody.password"), 2, "tcp.password_file"),
        (RIGHT + "port = 1\n", 1, "no connection to 127.0.0.1 port 1: Connection refused"),
        (RIGHT.replace("127.0.0.1", "broker.invalid"), 2, "clear text to "),
        (RIGHT.replace("127.0.0.1", "broker.invalid") + "insecure = true\n", 1, "no connection to broker.invalid"),
    ):
        answered = answers(text)
        check(answered.returncode == code, f"{told}: it ended with {answered.returncode}: {answered.stdout}")
        check(told in answered.stdout, f"{told!r} is not in {answered.stdout}")
        check("nothing was changed" in answered.stdout, answered.stdout)
        check(not WRITTEN.exists() and not list(ETC.glob("setup-*")), "something was written all the same")
    say("setup: wrong answers, no module, a broker that is away: each said, nothing changed")


def answers(text: str) -> "subprocess.CompletedProcess[str]":
    ANSWERS.write_text(text)
    (ANSWERS.parent / "operator.password").write_text(f"{PASSWORD}\n")
    (ANSWERS.parent / "operator.password").chmod(0o600)
    return setup("--answers", str(ANSWERS))


def setup(*options: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["atrunctl", "setup", *options],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip


def many_routers() -> None:
    """A file of answers; a second time it changes nothing."""
    done = answers(RIGHT)
    check(done.returncode == 0, done.stdout)
    check("127.0.0.1 port 1883 lets the node in" in done.stdout, f"the broker was not tried: {done.stdout}")
    for path in (WRITTEN, ETC / "setup-login.password"):
        owned = run("stat", "--format=%U:%G %a", str(path)).strip()
        check(owned == "root:atrund 640", f"{path} is {owned}")
    before = {path: path.stat().st_mtime_ns for path in ETC.rglob("*")}
    again = setup("--answers", str(ANSWERS))
    check(again.returncode == 0 and "Nothing is to change" in again.stdout, again.stdout)
    check(before == {path: path.stat().st_mtime_ns for path in ETC.rglob("*")}, "the second time changed something")
    check(word("is-active", "atrund.service") == "inactive", "it started the daemon")
    run("systemctl", "start", "atrund.service")
    is_up()
    run("runuser", "-u", "atrund", "--", "atrund", "--check")
    say("setup --answers: written for root:atrund, tried at the broker; the second time changed nothing")


def a_person() -> None:
    """At a terminal, behind the first time: each answer is proposed; and another login."""
    with Conversation("atrunctl", "setup") as person:
        person.hears(r"The module's port.* \[/run/module\]: ", "")
        person.hears(rf"by SMS.* \[{re.escape(NUMBER)}\]: ", "")
        person.hears(r"login over TCP.* \[operator\]: ", "")
        person.hears(r"Keep the password of operator\? \[Y/n\] ", "")
        person.hears(r"listen on \[127.0.0.1\]: ", "")
        person.hears(r"connect.* \[127.0.0.0/8\]: ", "")
        person.hears(r"broker's name or address.* \[127.0.0.1\]: ", "")
        person.hears(r"TLS\? \[y/N\] ", "")
        person.hears(r"Its port \[1883\]: ", "")
        person.hears(r"User at the broker.* \[-\]: ", "-")
        person.hears(r"come over MQTT\? \[Y/n\] ", "")
        person.hears("Nothing is to change")
        check(person.ends() == 0, "it failed")
    say("setup at a terminal: proposes what was written; Enter changes nothing")


def it_works() -> None:
    """A command through each door that it set up."""
    with Conversation("python3", "-c", _TELNET) as caller:
        caller.hears("Username: ?", "operator")
        caller.hears("Password: ?", PASSWORD)
        caller.hears("successful", "AT#CGMI")
        caller.hears("#CGMI: Telit")
    check(over_mqtt("AT+CGMM", "a first one")["state"] == "ok", "MQTT")
    run("atrunctl", "sim", "--control", "/run/module.sock", "sms", "--from", NUMBER, "AT#CGMI")
    until(lambda: "Telit" in run("atrunctl", "sim", "--control", "/run/module.sock", "sent"), "an answer by SMS")
    check("OK" in run("atrunctl", "at", "AT"), "the local door")
    check(any(entry.get("ATRUND_DOOR") == "sms" for entry in journal("_SYSTEMD_UNIT=atrund.service")), "the journal")
    say("what setup has set up works: TCP with its step-by-step login, MQTT, SMS, atrunctl")


_TELNET: Final = """
import socket, sys, threading
link = socket.create_connection(("127.0.0.1", 1024))
def show():
    while data := link.recv(1000):
        sys.stdout.buffer.write(data); sys.stdout.buffer.flush()
threading.Thread(target=show, daemon=True).start()
for line in sys.stdin:
    link.sendall(line.rstrip("\\n").encode() + b"\\r")
"""
"""What telnet is, where there is none."""


def the_pages_commands_run() -> None:
    """Every command of the page for the worst night is one, here where all that it names is real."""
    seen = 0
    for line in commands(page("worst-night.md")):
        name = line.split()[0]
        if name not in {"atrunctl", "atrund", "systemctl", "journalctl", "timedatectl"} or asks(line):
            continue
        done = subprocess.run(
            ["bash", "-c", line],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        usage = name == "atrunctl" and done.returncode == 2
        check(
            done.returncode not in {126, 127} and not usage and "Traceback" not in done.stdout, f"{line}: {done.stdout}"
        )
        seen += 1
    check(seen >= 30, f"the page for the worst night has only {seen} commands")
    is_up()
    say(f"the page for the worst night: {seen} commands were typed")


def asks(line: str) -> bool:
    """Return whether a command asks for a password, goes on for ever, or ends this test."""
    return any(part in line for part in (" passwd ", "password set", "enrol", "dial", "restart", "set-ntp", " setup"))


def page(name: str) -> str:
    return (PAGES / name).read_text()


def commands(text: str) -> list[str]:
    blocks = re.findall(r"```(?:sh)?\n(.*?)```", text, re.DOTALL)
    return [line.removeprefix("sudo ") for block in blocks for line in block.splitlines() if line.strip()]


def undone() -> None:
    """Leave all as it was found."""
    run("systemctl", "stop", "atrund.service", "atrund.socket")
    for path in (WRITTEN, BY_HAND, DROP_IN, *ETC.glob("setup-*"), *ETC.glob("by-hand.*")):
        path.unlink(missing_ok=True)
    for folder in (DROP_IN.parent, Path("/var/lib/atrund")):
        shutil.rmtree(folder, ignore_errors=True)
    run("systemctl", "daemon-reload")
    run("systemctl", "reset-failed")


def by_hand() -> None:
    """What setup does, and a credential, as atrund(8) and atrunctl(1) tell it."""
    secret = Path("/root/operator.password")
    credential = f"LoadCredential=operator.password:{secret}"
    settings = f'{RIGHT.partition("[tcp]")[0]}[tcp]\nenabled = true\nfirewall = ["127.0.0.0/8"]\n'
    users = 'users = [{ name = "operator", password_file = "operator.password" }]\n'
    BY_HAND.write_text(settings + users + "step_login = true\n")
    shutil.chown(BY_HAND, "root", "atrund")
    BY_HAND.chmod(0o640)
    alone = subprocess.run(["atrund", "--check"], capture_output=True, text=True, timeout=PATIENCE, check=False)
    check(
        alone.returncode == 2 and "tcp.users[0].password_file" in alone.stderr,
        f"without its credential: {alone.stderr}",
    )
    told = run("systemd-run", "--pipe", "--wait", "--quiet", "-p", "User=atrund", "-p", credential, "atrund", "--check")
    check(told.strip() == "ok", told)
    DROP_IN.parent.mkdir(exist_ok=True)
    DROP_IN.write_text(f"[Service]\n{credential}\n")
    run("systemctl", "daemon-reload")
    run("systemctl", "start", "atrund.service")
    with Conversation("python3", "-c", _TELNET) as caller:
        caller.hears("Username: ?", "operator")
        caller.hears("Password: ?", PASSWORD)
        caller.hears("successful")
    say("by hand: checked as the daemon sees it, with a credential of systemd; the login works")
