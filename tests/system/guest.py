# SPDX-License-Identifier: Apache-2.0
"""The Debian package under a real systemd, from its installation to its purge. Runs inside, as root."""

import contextlib
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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Self, TypeVar

T = TypeVar("T")

SHARED: Final = Path("/mnt/shared")
SETTINGS: Final = Path("/etc/atrund/conf.d/site.toml")
PATIENCE: Final = 30.0
"""Seconds after which what was waited for counts as missing."""
LOOK_EVERY: Final = 0.05
PASSWORD: Final = "geheim-7731"
LIBRARY: Final = "/usr/lib/atrund"


class Wrong(AssertionError):
    """Something was not as it should be."""


def test() -> None:
    """All of it, in order."""
    installed()
    with simulator(), broker():
        configured()
        started()
        every_door_works()
        the_journal_tells_a_request()
        reloaded()
        killed()
        hung()
        stopped_under_a_command()
        asked_while_it_is_away()
        a_port_in_use()
        a_broken_configuration()
        upgraded()
        a_second_module()
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
    check("dialout" in run("id", "--name", "--groups", "atrund").split(), "atrund is not in dialout")
    check("ok" in run("atrund", "--check"), "the shipped configuration is wrong")
    for page in ("man8/atrund.8", "man1/atrunctl.1", "man5/atrund.toml.5"):
        check(Path(f"/usr/share/man/{page}.gz").exists(), f"no {page}")
    check("atrund" in run("journalctl", "--list-catalog"), "no catalogue")
    say("installed: neither enabled nor started, settings kept, compiled")


@contextlib.contextmanager
def simulator(name: str = "module") -> Iterator[None]:
    """A simulated module, run by the package's own code; its port is the group's, as a real one is."""
    code = f"import sys; sys.path.insert(0, {LIBRARY!r}); from atrund.sim.__main__ import main; sys.exit(main())"
    link, control = f"/run/{name}", f"/run/{name}.sock"
    command = [sys.executable, "-I", "-c", code, "--link", link, "--control", control]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as program:
        try:
            until(lambda: Path(control).exists(), "the simulated module")
            shutil.chown(os.path.realpath(link), "root", "dialout")
            Path(link).chmod(0o660)
            yield
        finally:
            program.kill()


@contextlib.contextmanager
def broker() -> Iterator[None]:
    """A real one, at its usual port."""
    with subprocess.Popen(["mosquitto"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as program:
        try:
            until(lambda: answers(1883), "mosquitto")
            yield
        finally:
            program.kill()


def configured() -> None:
    """As the manual page says: one file of one's own, secrets beside it or as credentials."""
    credential = Path("/root/tcp-operator")
    credential.write_text(PASSWORD)
    credential.chmod(0o600)
    drop_in = Path("/etc/systemd/system/atrund.service.d/test.conf")
    drop_in.parent.mkdir()
    drop_in.write_text(
        f"[Service]\nLoadCredential=tcp-operator:{credential}\nWatchdogSec=4s\nRestartSec=1s\nTimeoutStopSec=3s\n"
    )
    settings()
    check("ok" in run("atrund", "--check", env={"CREDENTIALS_DIRECTORY": "/root"}), "not right")
    run("systemctl", "daemon-reload")


def settings(more: str = "") -> None:
    SETTINGS.write_text(
        f"""
node = "box"
{more}
[module]
port = "/run/module"
[sms]
enabled = true
numbers = ["+393401234567"]
[tcp]
enabled = true
firewall = ["127.0.0.0/8"]
users = [{{name = "operator", password_file = "tcp-operator"}}]
[mqtt]
enabled = true
host = "127.0.0.1"
remote_at = true
"""
    )
    shutil.chown(SETTINGS, "root", "atrund")
    SETTINGS.chmod(0o640)


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


def found(place: str) -> list[str]:
    """Files of ours below a folder; what dpkg and systemd themselves remember is theirs."""
    names = subprocess.run(["find", place, "-xdev", "-name", "*atrund*"], capture_output=True, text=True, check=False)
    return [name for name in names.stdout.splitlines() if "/systemd/" not in name or "/etc/systemd" in name]


class Caller:
    """A client of the TCP door, logged in."""

    def __init__(self) -> None:
        self._socket = socket.create_connection(("127.0.0.1", 1024), PATIENCE)
        self._socket.settimeout(PATIENCE)
        self._socket.sendall(f"operator\r{PASSWORD}\r".encode())
        self.asks("AT")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def asks(self, line: str) -> str:
        self._socket.sendall(line.encode() + b"\r")
        heard = b""
        while not heard.endswith((b"\r\nOK\r\n", b"ERROR\r\n")):
            piece = self._socket.recv(4096)
            check(bool(piece), f"the TCP connection was closed behind {heard!r}")
            heard += piece
        return heard.decode()


def over_mqtt(line: str, id_: str) -> dict[str, Any]:
    """Ask by MQTT and return the answer."""
    request = json.dumps({"cmd": line, "id": id_})
    to, back = "atrund/box/at/request/tester", "atrund/box/at/response/tester"
    answer: dict[str, Any] = json.loads(
        run("mosquitto_rr", "-h", "127.0.0.1", "-V", "5", "-W", "20", "-t", to, "-e", back, "-m", request)
    )
    return answer


def over_retained(topic: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(run("mosquitto_sub", "-h", "127.0.0.1", "-t", topic, "-C", "1", "-W", "10"))
    return told


def is_up() -> None:
    """Wait until the module is ready and the broker is connected."""

    def look() -> bool:
        done = subprocess.run(["atrunctl", "status", "--json"], capture_output=True, text=True, check=False, timeout=30)
        if done.returncode:
            return False
        told = json.loads(done.stdout)
        return bool(told["module"]["state"] == "ready" and told["mqtt"]["connected"])

    until(look, "the daemon with all that it needs")


def journal(match: str) -> list[dict[str, Any]]:
    shown = run("journalctl", "--no-pager", "--output=json", match)
    return [json.loads(line) for line in shown.splitlines()]


def last_words() -> str:
    return run("journalctl", "--no-pager", "--unit=atrund.service", "--lines=12", "--output=cat")


def memory() -> int:
    """Return the daemon's resident memory in MiB."""
    status = Path(f"/proc/{unit('MainPID')}/status").read_text()
    found_ = re.search(r"VmRSS:\s+(\d+)", status)
    return int(found_[1]) >> 10 if found_ else 0


def unit(name: str) -> str:
    return run("systemctl", "show", "--value", f"--property={name}", "atrund.service").strip()


def word(what: str, name: str) -> str:
    done = subprocess.run(["systemctl", what, name], capture_output=True, text=True, check=False, timeout=PATIENCE)
    return done.stdout.strip()


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def run(*command: str, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=PATIENCE * 2,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **(env or {})},
    )
    check(done.returncode == 0, f"{' '.join(command)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def until(look: Callable[[], T | None], what: str) -> T:
    """Look until there is something to see, and return it."""
    end = time.monotonic() + PATIENCE
    while not (seen := look()):
        check(time.monotonic() < end, f"never seen: {what}")
        time.sleep(LOOK_EVERY)
    return seen


def check(right: bool, otherwise: str) -> None:  # noqa: FBT001 - as an assertion has it
    if not right:
        raise Wrong(otherwise)


def say(text: str) -> None:
    print(text, flush=True)


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
