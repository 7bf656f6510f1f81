# SPDX-License-Identifier: Apache-2.0
"""What systemd's journal tells of requests: through each door one that is taken and one that is refused."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any, Final

from tests.support.guest import check, run
from tests.system.inside import (
    LIBRARY,
    PASSWORD,
    PATIENCE,
    Caller,
    is_up,
    over_mqtt,
    say,
    settings,
    unit,
    until,
)

Entry = dict[str, Any]

FRIEND: Final = "+393401234567"
DIGEST: Final = "1234567890123456"
PIN: Final = "no-number-7391"
TERMINAL: Final = "/run/atrund/at1"
DROP_IN: Final = Path("/etc/systemd/system/atrund.service.d/terminals.conf")
CONTROL: Final = ("--control", "/run/module.sock")
TAKEN: Final = ["command taken", "command"]
PUBLISHED: Final = ["answer published"] * 2
"""To the node's own topic and to the one that the asker named."""


def told_at_every_door() -> None:
    """One id tells all of a request; who was refused is there with the reason; each kind of entry is explained."""
    began = f"--since=@{int(time.time()) - 1}"
    more = '[policy.local]\nhazards = "refuse"\n[policy.mqtt]\nhazards = "confirm"\n[log]\naudit_chain = true\n'
    settings(f'{more}[local]\nterminals = ["{TERMINAL}"]\n')
    shutil.copy("/usr/share/doc/atrund/examples/terminals.conf", DROP_IN)
    run("systemctl", "daemon-reload")
    run("systemctl", "restart", "atrund.service")
    is_up()
    for door in (_local, _terminal, _tcp, _tcp_step_by_step, _client_mode, _mqtt, _sms, _digest, _event):
        door()
    _interrupted()
    entries = _journal(began)
    _check_all(entries)
    _check_explained(began)
    run("atrunctl", "nvm", "reset", "sms", "tcp", "monitor")
    settings()
    run("systemctl", "stop", "atrund.service")  # while it is known that its folder of terminals goes with it
    DROP_IN.unlink()
    run("systemctl", "daemon-reload")
    run("systemctl", "start", "atrund.service")
    is_up()


def _local() -> None:
    run("atrunctl", "at", "AT#CGMI")
    _story("local", "AT#CGMI", ["command"], state="ok")
    check(_ask(f'AT+CPIN="{PIN}"').returncode == 1, "a PIN is not refused")
    _story("local", "AT+CPIN=****", ["command"], state="rejected", reason="policy")


def _terminal() -> None:
    """The pseudo-terminal of instance 1."""
    line = os.open(TERMINAL, os.O_RDWR | os.O_NOCTTY)
    try:
        mode = termios.tcgetattr(line)
        mode[3] &= ~(termios.ECHO | termios.ICANON)
        termios.tcsetattr(line, termios.TCSANOW, mode)
        for command, state in (("AT#CGMM", "ok"), ("AT+CFUN=4", "rejected")):
            os.write(line, f"{command}\r".encode())
            _story("local", command, ["command"], state=state)
    finally:
        os.close(line)


def _tcp() -> None:
    with Caller() as caller:
        caller.asks("AT+CSQ;+CSQ")
        caller.asks("AT+CFUN=4;+CSQ")
    _story("tcp", "AT+CSQ;+CSQ", ["command"], state="ok", who="operator")
    _story("tcp", "AT+CFUN=4;+CSQ", ["command"], state="rejected", reason="policy", who="operator")
    with socket.create_connection(("127.0.0.1", 1024), PATIENCE) as other:
        other.sendall(b"operator\rwrong-4711\r")
        while other.recv(100):
            pass
    _kept_out("login refused", "auth", "127.0.0.1")
    run("atrunctl", "at", "AT#TCPATRUNFRWL=2")
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", 1024), PATIENCE) as stranger:
        stranger.recv(1)
    _kept_out("refused", "firewall", "127.0.0.1")
    run("atrunctl", "at", 'AT#TCPATRUNFRWL=1,"127.0.0.0","255.0.0.0"')


def _tcp_step_by_step() -> None:
    run("atrunctl", "at", 'AT#TCPATRUNL=0;#TCPATRUNCFG=1,2,1024,1024,"",1,5,1;#TCPATRUNL=1')
    steps = (("Username: ", "operator"), ("Password: ", PASSWORD), ("successful.\r\n", "AT+CSQ;+COPS?"))
    with socket.create_connection(("127.0.0.1", 1024), PATIENCE) as caller:
        for asked, given in steps:
            _hear(caller, asked)
            caller.sendall(f"{given}\r".encode())
        _hear(caller, "OK\r\n")
    _story("tcp", "AT+CSQ;+COPS?", ["command"], state="ok", who="operator")
    run("atrunctl", "at", 'AT#TCPATRUNL=0;#TCPATRUNCFG=1,2,1024,1024,"",1,5,0;#TCPATRUNL=1')


def _client_mode() -> None:
    with socket.create_server(("127.0.0.1", 0)) as far:
        far.settimeout(PATIENCE)
        port = far.getsockname()[1]
        run("atrunctl", "at", f'AT#TCPATRUNL=0;#TCPATRUNCFG=1,2,1024,{port},"127.0.0.1"')
        with subprocess.Popen(["atrunctl", "at", "AT#TCPATRUND=1"], stdout=subprocess.DEVNULL) as asker:
            call, _ = far.accept()
            asker.wait(PATIENCE)
        with call:
            call.settimeout(PATIENCE)
            for command in ("AT+CSQ;+CREG?", "AT+CFUN=4;+CREG?"):
                call.sendall(f"{command}\r".encode())
                _hear(call, "\r\nOK\r\n" if "CFUN" not in command else "ERROR\r\n")
    _story("tcp", "AT+CSQ;+CREG?", ["command"], state="ok")
    _story("tcp", "AT+CFUN=4;+CREG?", ["command"], state="rejected", reason="policy")
    run("atrunctl", "at", "AT#TCPATRUND=0;#TCPATRUNL=1")


def _mqtt() -> None:
    rid = over_mqtt("AT+CSQ;#CGMI", "story")["rid"]
    _story("mqtt", "AT+CSQ;#CGMI", [*TAKEN, *PUBLISHED], state="ok", correlation="story", rid=rid)
    rid = over_mqtt(f'AT+CPWD="SC","{PIN}","1111"', "story 2")["rid"]
    _story("mqtt", 'AT+CPWD="SC",****', ["command", *PUBLISHED], state="rejected", reason="policy", rid=rid)
    over_mqtt("AT+CSQ;#CGMM", "story")
    _story("mqtt", "AT+CSQ;#CGMM", ["command", *PUBLISHED], state="rejected", reason="duplicate")
    over_mqtt("AT+CGATT=0", "story 3")
    over_mqtt("AT#ATRUNCONFIRM=1", "story 4")
    story = ["command taken", "command to be confirmed within 300 s", "command"]
    _story("mqtt", "AT+CGATT=0", [*story, *PUBLISHED, "command confirmed"], state="ok")
    over_mqtt("AT+CGATT=1", "story 5")


def _sms() -> None:
    _text("AT#CGMI;+CSQ")
    _story("sms", "AT#CGMI;+CSQ", [*TAKEN, "answer sent"], state="ok", peer=FRIEND)
    _text("HAT#CGMI;+CREG?")
    _story("sms", "AT#CGMI;+CREG?", TAKEN, state="ok", peer=FRIEND)
    _text("AT+CFUN=4")
    _story("sms", "AT+CFUN=4", ["command", "answer sent"], state="rejected", reason="policy", peer=FRIEND)
    _text("AT+CSQ", "+390000000001")
    _kept_out("sms not accepted", "comes from no number of the white list", "+390000000001")


def _digest() -> None:
    """With a password that is set by a command, which is written nowhere."""
    run("atrunctl", "at", f'AT#SMSATWL=0,2,1,"{DIGEST}"')
    _signed("AT#CGMM;+CSQ", DIGEST)
    _story("sms", "AT#CGMM;+CSQ", [*TAKEN, "answer sent"], state="ok", digest="true")
    _signed("AT#CGMM;+CSQ", DIGEST[::-1])
    _kept_out("sms not accepted", "digest", FRIEND)


def _event() -> None:
    run("atrunctl", "at", 'AT#EVMONI="RING",1;#EVMONI="RING",1,0,"AT#CGMR";#ENAEVMONI=1')
    run("atrunctl", "sim", *CONTROL, "urc", "RING")
    _story("monitor", "AT#CGMR", ["event RING", "command"], state="ok")
    run("atrunctl", "at", 'AT#ENAEVMONI=0;#EVMONI="RING",0;#EVMONI="RING",1,0,""')


def _interrupted() -> None:
    """The daemon is killed while a command runs: its story goes on under its id in the next life."""
    run("atrunctl", "sim", *CONTROL, "late", "AT+GMI", "10")
    over = ("mosquitto_pub", "-h", "127.0.0.1", "-q", "1", "-t", "atrund/box/at/request/tester")
    run(*over, "-m", json.dumps({"cmd": "AT+GMI", "id": "cut"}))
    until(lambda: json.loads(run("atrunctl", "status", "--json"))["requests"]["running"], "the command")
    pid = unit("MainPID")
    os.kill(int(pid), signal.SIGKILL)
    until(lambda: unit("MainPID") not in {pid, "0"} and unit("ActiveState") == "active", "another process")
    run("atrunctl", "sim", *CONTROL, "clear")
    story = ["command taken", "command found after a restart", "command", "answer published"]
    _story("mqtt", "AT+GMI", story, state="lost", correlation="cut")


def _text(text: str, sender: str = FRIEND) -> None:
    run("atrunctl", "sim", *CONTROL, "sms", "--from", sender, text)


def _signed(text: str, password: str) -> None:
    """Let a digest SMS arrive, made by the package's own code."""
    code = f"""
import sys
sys.path.insert(0, {LIBRARY!r})
from datetime import datetime, timezone
from atrund.sms.digest import build_request
from atrund.sms.pdu import Address, Dcs, Deliver, Timestamp, UserData
given, password = sys.argv[1:]
dcs, friend = Dcs(0x15), Address.parse({FRIEND!r})
data = UserData(dcs.alphabet, build_request(password, given.encode()))
print(Deliver(friend, Timestamp.of(datetime.now(timezone.utc)), data, dcs, smsc=friend).encode().hex())
"""
    pdu = run(sys.executable, "-I", "-c", code, text, password).strip()
    run("atrunctl", "sim", *CONTROL, "pdu", pdu)


def _hear(line: socket.socket, end: str) -> None:
    heard = b""
    while not heard.endswith(end.encode()):
        piece = line.recv(4096)
        check(bool(piece), f"closed behind {heard!r}")
        heard += piece


def _ask(line: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["atrunctl", "at", line], capture_output=True, text=True, check=False, timeout=PATIENCE)


def _journal(*matches: str) -> list[Entry]:
    shown = run("journalctl", "--no-pager", "--all", "--output=json", "--unit=atrund.service", *matches)
    return [json.loads(line) for line in shown.splitlines()]


def _event_of(entry: Entry) -> str:
    """The words with which an entry begins."""
    return re.split(r" from (?:sms|tcp|mqtt|local|monitor)\b|,", entry["MESSAGE"])[0]


def _story(door: str, line: str, expected: list[str], rid: str = "", **fields: str) -> None:
    """Wait for the story of the newest request with this line, check and print it."""

    def ended() -> list[Entry]:
        found = _journal(f"ATRUND_COMMAND={line}", f"ATRUND_DOOR={door}")
        if not found:
            return []
        story = _journal(f"ATRUND_ID={found[-1]['ATRUND_ID']}")
        return story if len(story) >= len(expected) else []

    story = until(ended, f"{expected} of {line}")
    if rid:
        check(story[0]["ATRUND_ID"] == rid, f"another id than the answer's: {story[0]['ATRUND_ID']}")
    words = [_event_of(entry) for entry in story]
    check(words == expected, f"the story of {line} is {words}")
    end = next(entry for entry in story if _event_of(entry) == "command")
    told = {"door": door, "command": line} | fields
    for entry in story:
        check(entry.get("ATRUND_DOOR") == door, f"no door: {entry}")
        check("ATRUND_PEER" in entry or entry["MESSAGE"].startswith("answer published"), f"no peer: {entry}")
    for name, value in told.items():
        there = {**story[0], **end}.get(f"ATRUND_{name.upper()}")
        check(there == value, f"{name} of {line} is {there!r}, not {value!r}")
    kept_out = fields["state"] == "rejected"
    check(end["PRIORITY"] == ("5" if kept_out else "6") or fields["state"] == "lost", f"priority {end['PRIORITY']}")
    rows = json.loads(run("atrunctl", "audit", "--json", "--id", end["ATRUND_ID"]))
    check(any(row["event"] == fields["state"] and row["line"] == line for row in rows), f"the audit has {rows}")
    for entry in story:
        _print(entry)


def _kept_out(event: str, reason: str, peer: str) -> None:
    """Wait for the entry of one who was kept out before there was a request."""

    def look() -> Entry | None:
        found = [entry for entry in _journal(f"ATRUND_PEER={peer}") if _event_of(entry) == event]
        return next((entry for entry in found if reason in entry["ATRUND_REASON"]), None)

    _print(until(look, f"{event} of {peer}: {reason}"))


def _print(entry: Entry) -> None:
    print(f"    {entry['PRIORITY']} {entry.get('ATRUND_ID', '-')[:8]:8} {entry['MESSAGE']}", flush=True)


def _check_all(entries: list[Entry]) -> None:
    """No entry has a secret; none of what happened is for an operator to act on, but for what was done to it."""
    everything = json.dumps(entries)
    for secret in (PASSWORD, DIGEST, DIGEST[::-1], PIN, "wrong-4711"):
        check(secret not in everything, f"{secret!r} is in the journal")
    print("  what an operator is to look at (journalctl -p warning):")
    for entry in entries:
        if int(entry["PRIORITY"]) <= 4:
            _print(entry)
    catalogued = {line.split()[0] for line in run("journalctl", "--list-catalog").splitlines()}
    ours = [entry for entry in entries if entry.get("SYSLOG_IDENTIFIER") == "atrund"]
    check(len(ours) > 50, f"only {len(ours)} entries")
    for entry in ours:
        check(entry.get("MESSAGE_ID") in catalogued, f"not in the catalogue: {entry['MESSAGE']}")


def _check_explained(began: str) -> None:
    """Each kind of them is explained, with nothing left blank."""
    shown = run("journalctl", "--no-pager", "--catalog", "--unit=atrund.service", "SYSLOG_IDENTIFIER=atrund", began)
    blank = sorted(set(re.findall(r"^.*@ATRUND_.*$", shown, re.MULTILINE)))
    check(not blank, f"left blank: {blank}")
    subjects = sorted(set(re.findall(r"^\W+Subject: (.*)$", shown, re.MULTILINE)))
    check(len(subjects) > 15, f"explained: {subjects}")
    say(f"the journal tells each request by one id at every door; journalctl -x explains {len(subjects)} kinds")
