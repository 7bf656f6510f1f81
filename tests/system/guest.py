# SPDX-License-Identifier: Apache-2.0
"""The Debian package under a real systemd, from its installation to its purge. Runs inside, as root."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path

from tests.support.guest import check, run
from tests.system.confined import test as the_profile_grants_what_it_does
from tests.system.faults import faults
from tests.system.first_minutes import first_minutes
from tests.system.inside import (
    LIBRARY,
    PASSWORD,
    PATIENCE,
    SETTINGS,
    SHARED,
    Caller,
    broker,
    found,
    is_up,
    journal,
    last_words,
    memory,
    over_mqtt,
    over_retained,
    say,
    settings,
    simulator,
    unit,
    until,
    word,
)
from tests.system.ledger import a_newer_schema, an_older_schema
from tests.system.rules import test as the_rule_takes_one_port
from tests.system.story import told_at_every_door
from tests.system.unit import test as the_unit_keeps_its_word


def test() -> None:
    """All of it, in order."""
    installed()
    the_rule_takes_one_port()
    with simulator(), broker():
        first_minutes()
        configured()
        started()
        every_door_works()
        the_journal_tells_a_request()
        told_at_every_door()
        reloaded()
        killed()
        hung()
        the_unit_keeps_its_word()
        the_profile_grants_what_it_does()
        stopped_under_a_command()
        asked_while_it_is_away()
        a_port_in_use()
        a_broken_configuration()
        upgraded()
        an_older_schema()
        a_newer_schema()
        a_second_module()
    faults()
    removed()
    purged()


def installed() -> None:
    """Settings may be there before; nothing is enabled, started or asked."""
    SETTINGS.parent.mkdir(parents=True)
    SETTINGS.write_text('node = "box"\n')
    run("dpkg", "--install", str(SHARED / "atrund.deb"), env={"DEBIAN_FRONTEND": "noninteractive"})
    units = ("atrund.service", "atrund.socket")
    check(all(word("is-enabled", unit) == "disabled" for unit in units), "a unit is enabled")
    check(all(word("is-active", unit) == "inactive" for unit in units), "a unit is active")
    check(SETTINGS.read_text() == 'node = "box"\n', "settings changed")
    check(bool(list(Path(LIBRARY, "atrund", "__pycache__").glob("*.pyc"))), "not compiled")
    check(run("stat", "--format=%U:%G %a", str(SETTINGS.parent)).strip() == "root:atrund 750", "conf.d's rights")
    check("dialout" in run("id", "--name", "--groups", "atrund").split(), "atrund is not in dialout")
    check("ok" in run("atrund", "--check"), "the shipped configuration is wrong")
    for page in ("man8/atrund.8", "man1/atrunctl.1", "man5/atrund.toml.5"):
        check(Path(f"/usr/share/man/{page}.gz").exists(), f"no {page}")
    check("atrund" in run("journalctl", "--list-catalog"), "no catalogue")
    say("installed: neither enabled nor started, settings kept, compiled")


def configured() -> None:
    """As the manual page says: one file of one's own, secrets beside it or as credentials."""
    credential = Path("/root/tcp-operator")
    credential.write_text(PASSWORD)
    credential.chmod(0o600)
    drop_in = Path("/etc/systemd/system/atrund.service.d/test.conf")
    drop_in.parent.mkdir(exist_ok=True)
    drop_in.write_text(
        f"[Service]\nLoadCredential=tcp-operator:{credential}\nWatchdogSec=4s\nRestartSec=1s\nTimeoutStopSec=3s\n"
    )
    settings()
    check("ok" in run("atrund", "--check", env={"CREDENTIALS_DIRECTORY": "/root"}), "not right")
    run("systemctl", "daemon-reload")


def started() -> None:
    began = time.monotonic()
    run("systemctl", "start", "atrund.service")
    seconds = time.monotonic() - began
    is_up()
    text = unit("StatusText")
    check("sms, tcp, mqtt, local" in text, f"the status is {text!r}")
    check(unit("NRestarts") == "0", "it was restarted")
    check(run("stat", "--format=%U %a", "/var/lib/atrund").strip() == "atrund 700", "the state folder")
    check(run("stat", "--format=%U:%G %a", "/run/atrund.sock").strip() == "root:atrund 660", "the control socket")
    exposure = re.search(
        r"exposure level for \S+: ([\d.]+)", run("systemd-analyze", "--no-pager", "security", "atrund")
    )
    check(exposure is not None and float(exposure[1]) <= 1.5, f"exposure {exposure and exposure[1]}")
    say(f"started in {seconds:.1f} s: {text}; exposure {exposure and exposure[1]}; {memory()} MiB")


def every_door_works() -> None:
    check(run("atrunctl", "at", "AT#CGMI").split() == ["#CGMI:", "Telit", "OK"], "the local door")
    with Caller() as caller:
        check("OK" in caller.asks("AT+CGMM"), "the TCP door")
    check(over_mqtt("AT+CGMM", "first")["state"] == "ok", "the MQTT door")
    run("atrunctl", "sim", "--control", "/run/module.sock", "sms", "--from", "+393401234567", "AT#CGMI")
    answer = until(
        lambda: "Telit" in run("atrunctl", "sim", "--control", "/run/module.sock", "sent"), "an answer by SMS"
    )
    check(answer, "the SMS door")
    say("commands ran by atrunctl, TCP, MQTT and SMS")


def the_journal_tells_a_request() -> None:
    """One id goes through the whole life of a request, and no entry has a secret."""
    answer = over_mqtt("AT+CSQ", "second")
    entries = until(lambda: journal(f"ATRUND_ID={answer['rid']}"), "the request in the journal")
    check(any(entry.get("ATRUND_STATE") == "ok" for entry in entries), f"no outcome in {entries}")
    check(all(entry["_SYSTEMD_UNIT"] == "atrund.service" for entry in entries), "entries of others")
    everything = run("journalctl", "--unit=atrund.service", "--output=json", "--all", "--no-pager")
    check(PASSWORD not in everything, "a password is in the journal")
    explained = run("journalctl", "--no-pager", "--catalog", f"ATRUND_ID={answer['rid']}")
    check("Subject: " in explained, "journalctl -x explains nothing")
    audited = run("atrunctl", "audit", "--id", answer["rid"], "--json")
    check(answer["rid"] in audited, "not in the audit")
    say(f"journalctl -x ATRUND_ID={answer['rid']}: {len(entries)} entries, explained; and in the audit")


def reloaded() -> None:
    """What can change changes, and who is in stays; a broken file changes nothing and is said."""
    pid = unit("MainPID")
    with Caller() as caller:
        settings('[policy.tcp]\ndefault = "deny"\n')
        # systemd of Debian 12 waits for no end of a reload.
        run("systemctl", "reload", "atrund.service")
        until(lambda: "OK" not in caller.asks("AT+CGMM"), "the policy to count")
        SETTINGS.write_text("[tcp]\nprot = 1\n")
        run("systemctl", "reload", "atrund.service")
        until(lambda: "not reloaded" in unit("StatusText"), "the word that it was not reloaded")
        check(
            any(f"{SETTINGS}" == entry.get("ATRUND_FILE") for entry in journal("ATRUND_KEY=tcp.prot")),
            "no mistake told",
        )
        settings()
        run("systemctl", "reload", "atrund.service")
        until(lambda: "OK" in caller.asks("AT+CGMM"), "the policy of before to count again")
    check(unit("MainPID") == pid, "another process")
    say("reloaded: rules changed under a session, a mistake changed nothing and was named with its file")


def killed() -> None:
    """It is started again, and what was recorded has one outcome."""
    pid = unit("MainPID")
    os.kill(int(pid), signal.SIGKILL)
    until(lambda: unit("MainPID") == "0", "its end")
    with Caller() as caller:  # the port listens, though nobody is there yet
        until(lambda: unit("MainPID") not in {pid, "0"} and unit("ActiveState") == "active", "another process")
        is_up()
        check("OK" in caller.asks("AT+CGMM"), "who called meanwhile")
    check(over_mqtt("AT+CSQ", "second")["state"] == "ok", "the record of before")
    say(f"killed: restarted {unit('NRestarts')} time; who called meanwhile waited; the record is known")


def hung() -> None:
    """The watchdog ends what does not move."""
    pid = unit("MainPID")
    os.kill(int(pid), signal.SIGSTOP)
    until(lambda: unit("MainPID") not in {pid, "0"} and unit("ActiveState") == "active", "another process")
    is_up()
    say("hung: the watchdog had it restarted")


def stopped_under_a_command() -> None:
    """The command that runs ends first, though that takes longer than systemd would wait by itself; then offline."""
    run("atrunctl", "sim", "--control", "/run/module.sock", "late", "AT+CGMM", "6")
    with subprocess.Popen(["atrunctl", "at", "AT+CGMM"], stdout=subprocess.PIPE, text=True) as asker:
        until(lambda: json.loads(run("atrunctl", "status", "--json"))["requests"]["running"], "the command")
        run("systemctl", "stop", "atrund.service")
        out, _ = asker.communicate(timeout=PATIENCE)
    check("OK" in out, f"its answer was {out!r}")
    check(unit("Result") == "success", f"systemd lost patience: {unit('Result')}")
    run("atrunctl", "sim", "--control", "/run/module.sock", "clear")


def asked_while_it_is_away() -> None:
    """The control socket is there before the daemon, and waits for it."""
    check(over_retained("atrund/box/status")["state"] == "offline", "it did not say that it goes")
    check(word("is-active", "atrund.socket") == "active", "the socket went with the daemon")
    check("module" in run("atrunctl", "status"), "no status")
    is_up()
    say("stopped: a command of 6 s ended first, then offline was said; the next atrunctl had it started")


def a_port_in_use() -> None:
    run("systemctl", "stop", "atrund.service")
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 1024))
        other.listen()
        subprocess.run(["systemctl", "start", "atrund.service"], capture_output=True, check=False, timeout=PATIENCE)
        until(lambda: "in use" in last_words(), "the port's name in the journal")
    until(lambda: unit("ActiveState") == "active", "the daemon, once the port is free")
    is_up()  # a simulated port that was opened, and closed before anything was written, stays exclusive
    say("a port in use: said, tried again, and up once it was free")


def a_broken_configuration() -> None:
    """The unit fails with the mistakes as its last words, and is not started again and again."""
    run("systemctl", "stop", "atrund.service", "atrund.socket")
    SETTINGS.write_text("[tcp]\nprot = 1\n[sms]\nsweep = 1\n")
    done = subprocess.run(["systemctl", "start", "atrund.service"], capture_output=True, check=False, timeout=PATIENCE)
    check(done.returncode != 0, "it started")
    check(unit("ActiveState") == "failed" and unit("ExecMainStatus") == "2", "it is tried again")
    words = last_words()
    for part in (
        f"{SETTINGS}: tcp.prot: unknown key; did you mean tcp.port?",
        f"{SETTINGS}: sms.sweep: ",
        "2 mistakes",
    ):
        check(part in words, f"{part!r} is not in {words!r}")
    errors = run("journalctl", "--no-pager", "--unit=atrund.service", "--lines=3", "--output=cat", "--priority=err")
    check("2 mistakes" in errors, f"no error, to the journal: {errors!r}")
    settings()
    run("systemctl", "start", "atrund.service")
    is_up()
    say("a broken configuration: both mistakes were the last words; mended, it started")


def upgraded() -> None:
    """Settings stay, nothing is asked, it is restarted, and what was recorded is known."""
    pid, ledger = unit("MainPID"), Path("/var/lib/atrund/ledger.db").stat().st_ino
    run("dpkg", "--install", str(SHARED / "later.deb"), env={"DEBIAN_FRONTEND": "noninteractive"})
    check("+later" in run("dpkg-query", "--show", "--showformat=${Version}", "atrund"), "not upgraded")
    until(lambda: unit("MainPID") not in {pid, "0"} and unit("ActiveState") == "active", "the new one")
    is_up()
    check(Path("/var/lib/atrund/ledger.db").stat().st_ino == ledger, "another ledger")
    check(over_mqtt("AT+CSQ", "second")["state"] == "ok", "the record of before")
    say("upgraded: restarted, with its settings and its ledger")


def a_second_module() -> None:
    """A daemon of its own, with a name: its own file, state, socket and node."""
    folder = Path("/etc/atrund/roof")
    folder.mkdir()
    (folder / "atrund.toml").write_text('[module]\nport = "/run/second"\n')
    with simulator("second"):
        run("systemctl", "start", "atrund@roof.service")
        until(lambda: '"ready"' in run("atrunctl", "--name", "roof", "status", "--json"), "the second module")
        told = json.loads(run("atrunctl", "--name", "roof", "status", "--json"))
        check(told["atrund"]["node"].endswith("-roof"), f"its node is {told['atrund']['node']}")
        check(Path("/var/lib/atrund-roof/ledger.db").exists(), "it has no ledger of its own")
        run("systemctl", "stop", "atrund@roof.service", "atrund@roof.socket")
    say(f"a second one runs beside it: node {told['atrund']['node']}")


def removed() -> None:
    run("systemctl", "enable", "atrund@roof.service")  # its links go with the purge
    run("dpkg", "--remove", "atrund")
    check(word("is-active", "atrund.service") == "inactive", "it runs on")
    check(SETTINGS.exists() and Path("/var/lib/atrund/ledger.db").exists(), "settings or state are gone")
    say("removed: settings and state stay")


def purged() -> None:
    run("dpkg", "--purge", "atrund")
    shutil.rmtree("/etc/systemd/system/atrund.service.d")
    places = ("/etc", "/lib", "/usr", "/var/lib/atrund", "/var/lib/atrund-roof", "/run")
    left = [name for place in places for name in found(place)]
    check(not left, f"left behind: {left}")
    check(subprocess.run(["id", "atrund"], capture_output=True, check=False).returncode != 0, "the user is left")
    say("purged: nothing is left")


def main() -> int:
    """Test; the exit status is the host's to see."""
    try:
        test()
    except Exception:  # noqa: BLE001 - whatever it is, the host is told
        print(traceback.format_exc())
        subprocess.run(["journalctl", "--no-pager", "--boot", "--lines=60", "--unit=atrund.service"], check=False)
        return 1
    say("passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
