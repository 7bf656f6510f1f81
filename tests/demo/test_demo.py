# SPDX-License-Identifier: Apache-2.0
"""The demo as a user runs it: the tour, the lines to try, other people's broker and module, and how it ends."""

import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from atrund.demo import __main__ as demo
from atrund.demo.players import Child, Mirror, Simulator, program, publish
from atrund.demo.show import Show
from atrund.demo.stage import Stage, Wishes
from atrund.demo.talk import expect
from atrund.demo.tour import STEPS, Step
from tests.support import contract

pytestmark = [pytest.mark.blackbox, pytest.mark.timeout(120)]

ROOT = Path(__file__).parents[2]
STARTED = "What happens shows below"


def environment(**wishes: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in {"ONCE", "BROKER", "DEVICE", "SMS_TO"}}
    return kept | wishes


def tour(**wishes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "atrund.demo"],
        cwd=ROOT,
        env=environment(ONCE="1", **wishes),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory of our own for what is temporary, short enough for a socket's path; nothing may be left in it."""
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as name:
        Path(name).chmod(0o711)  # the broker is no root and has to get through
        monkeypatch.setenv("TMPDIR", name)
        monkeypatch.setattr(tempfile, "tempdir", name)
        yield Path(name)
        assert list(Path(name).iterdir()) == []
        assert processes(name) == []


def processes(word: str) -> list[str]:
    """The command lines of running programs that hold a word."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if word in command:
            found.append(command)
    return found


@pytest.mark.usefixtures("temporary")
def test_the_tour_plays_every_step_and_ends_well() -> None:
    done = tour()
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    for number, step in enumerate(STEPS, 1):
        assert f"\n{number}. {step.title}\n" in done.stdout
    assert done.stdout.count("\n  as the rules say\n") == len(STEPS) - 1
    assert done.stdout.count("\n  skipped: ") == 1
    assert "FAILED" not in done.stdout
    assert "\x1b" not in done.stdout
    # Questions, answers and records are there to be read.
    assert "> sms            +393468686711: AT+CSQ" in done.stdout
    assert r"< sms            to +393468686711: \r\n+CSQ: 14,99\r\n\r\nOK\r\n" in done.stdout
    assert "part 3 of 3" in done.stdout
    assert "Junra7r0kIEcH9qV542n3Q==" in done.stdout
    assert r"< tcp            AT+CSQ\r\r\n+CSQ: 14,99\r\n\r\nOK\r\n" in done.stdout
    assert done.stdout.count("= event/command") == done.stdout.count("= event/response") == 10


@pytest.mark.usefixtures("temporary", "handlers")
def test_a_step_that_comes_out_otherwise_is_named_with_what_was_expected_and_seen(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The module gives another operator, so the digest is not the note's: the step fails, the others go on."""

    def misled(stage: Stage, show: Show) -> None:
        assert stage.sim is not None
        stage.sim.ask("answer", command="+COPS?", lines=['+COPS: 0,0,"another"'])
        digest.play(stage, show)

    digest, after = STEPS[2], STEPS[3]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "STEPS", (Step(digest.title, misled), after))
        assert demo.main(["--once"]) == 1
    shown = capsys.readouterr().out
    assert "  FAILED: the answer's text\n" in shown
    assert r'     expected: \r\n+COPS: 0,0,"vodafone IT"\r\n\r\nOK\r\n' in shown
    assert r'     seen:     \r\n+COPS: 0,0,"another"\r\n\r\nOK\r\n' in shown
    assert "1 of 2 steps FAILED:\n     1. A digest SMS with the application note's own user data\n" in shown
    assert shown.count("as the rules say") == 1
    assert "% atrund" in shown  # the daemon's log, to find out why


@pytest.mark.usefixtures("temporary", "handlers")
def test_a_player_that_dies_ends_the_demo_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    def kill(stage: Stage, show: Show) -> None:
        del show
        stage.publish("at/request/me", "AT+CSQ")
        (broker,) = (child for child in stage._children if child.name == "mosquitto")
        broker.stop()
        stage.wait_for(lambda: None, 10.0)
        expect("never reached", 0, 1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "STEPS", (Step("Kills the broker", kill),))
        assert demo.main(["--once"]) == 1
    shown = capsys.readouterr().out
    assert "The demo can't go on: mosquitto has ended" in shown
    assert "never reached" not in shown


class Watched:
    """The demo until Ctrl-C, its output read as it comes."""

    def __init__(self, wishes: Mapping[str, str]) -> None:
        self.output = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "atrund.demo"],
            cwd=ROOT,
            env=environment(**wishes),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def wait_for(self, words: str, seconds: float = 30.0) -> None:
        assert self.process.stdout is not None
        end = time.monotonic() + seconds
        while words not in self.output:
            left = end - time.monotonic()
            assert left > 0, f"{words!r} was not shown:\n{self.output}"
            if select.select([self.process.stdout], [], [], left)[0]:
                piece = os.read(self.process.stdout.fileno(), 65536)
                assert piece, f"ended:\n{self.output}"
                self.output += piece.decode()

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        rest, _ = self.process.communicate(timeout=60)
        self.output += rest.decode()
        return self.process.returncode

    def line_with(self, words: str) -> str:
        return next(line.strip() for line in self.output.splitlines() if line.startswith("    ") and words in line)


def shell(line: str) -> str:
    done = subprocess.run(line, shell=True, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)  # noqa: S602 - as typed
    assert done.returncode == 0, done
    return done.stdout


@pytest.mark.usefixtures("temporary")
def test_the_lines_to_try_work_as_they_are_printed_and_what_happens_is_shown() -> None:
    watched = Watched({"NO_COLOR": "1"})
    try:
        watched.wait_for(STARTED)
        assert "+CSQ: 14,99" in shell(watched.line_with("AT+CSQ;+COPS?"))
        assert "state" in shell(watched.line_with(" status"))
        watched.wait_for('"door": "local"')

        shell(watched.line_with("mosquitto_pub"))
        watched.wait_for("= at/response")

        assert "+CSQ: 14,99" in shell(watched.line_with("nc -q"))
        watched.wait_for('"event": "disconnected"')
        user, password = re.findall(r"type (\w+), Enter, (\w+), Enter", watched.output)[0]
        assert "HE910-D" in typed(watched.line_with("telnet"), user, password, "AT+CGMM", until="HE910-D")

        shell(watched.line_with("sms --from +393468686711 'AT"))
        watched.wait_for(r"< sms            to +393468686711: \r\n+CSQ: 14,99\r\n\r\nOK\r\n")
        shell(watched.line_with("sms --from +393468686711 'HAT"))
        shell(watched.line_with("sms --from +390000000001"))
        watched.wait_for("comes from no number of the white list")
        assert shell(watched.line_with(" sent")).count("pdu=") == 1
        assert "% atrund" in watched.output  # the daemon's log lines
    finally:
        status = watched.end(signal.SIGINT)
    assert status == 0, watched.output
    assert '"state": "offline"' in watched.output
    assert watched.output.endswith("Everything is stopped and removed.\n")


def typed(line: str, *words: str, until: str) -> str:
    """Run a shell line, type words at it, and return what it says up to the one that is waited for."""
    with subprocess.Popen(  # noqa: S602 - as typed
        line, shell=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, process_group=0
    ) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        program.stdin.write("".join(f"{word}\n" for word in words).encode())
        program.stdin.flush()
        said = ""
        while until not in said and (piece := os.read(program.stdout.fileno(), 4096)):
            said += piece.decode("utf-8", "replace")
        os.killpg(program.pid, signal.SIGKILL)
    return said


@pytest.mark.usefixtures("temporary")
@pytest.mark.parametrize("moment", ["Starting the players", STARTED])
def test_terminated_it_takes_everything_down(moment: str) -> None:
    watched = Watched({})
    watched.wait_for(moment)
    assert watched.end(signal.SIGTERM) == 128 + signal.SIGTERM
    assert "Traceback" not in watched.output


def test_killed_it_leaves_no_program_behind(temporary: Path) -> None:
    watched = Watched({})
    watched.wait_for(STARTED)
    assert processes(str(temporary))
    assert watched.end(signal.SIGKILL) == -signal.SIGKILL
    end = time.monotonic() + 10.0
    while processes(str(temporary)) and time.monotonic() < end:
        time.sleep(0.02)
    assert processes(str(temporary)) == []
    for path in (*temporary.rglob("*"), *temporary.glob("*")):
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
    for path in sorted(temporary.rglob("*"), reverse=True):
        path.rmdir()


@pytest.mark.usefixtures("temporary")
def test_another_broker_is_used_and_left_as_it_was() -> None:
    with Stage(Wishes()) as other:
        host, port = other.broker
        publish(other.broker, "somebody/else", "stays", retain=True)
        heard_all = Mirror(other.broker, "atrund/", lambda _: None)
        try:
            done = tour(BROKER=f"{host}:{port}")
        finally:
            heard_all.child.stop()
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"MQTT at {host}:{port}" in done.stdout
        node = re.findall(r"atrund/(demo-[0-9a-f]{6})/", done.stdout)[0]
        of_tour = [message for message in heard_all.messages if message.topic.startswith(f"{node}/")]
        assert {"status", "at/response"} <= {message.topic.removeprefix(f"{node}/") for message in of_tour}
        for message in of_tour:
            contract.check(message.topic.removeprefix(f"{node}/"), message.payload)
        command = [program("mosquitto_sub", "mosquitto-clients"), "-h", host, "-p", str(port), "-W", "1", "-F", "%r %t"]
        heard = subprocess.run([*command, "-t", "#"], capture_output=True, text=True, timeout=20, check=False).stdout
        assert "1 somebody/else" in heard
        assert node not in heard


def test_a_device_is_used_and_sends_no_sms(temporary: Path) -> None:
    control, link = temporary / "sim", temporary / "tty"
    module = Child("sim", [sys.executable, "-m", "atrund.sim", "--link", str(link), "--control", str(control)])
    try:
        end = time.monotonic() + 20.0
        while not module.said("ready") and time.monotonic() < end:
            time.sleep(0.02)
        sim = Simulator(control)
        sim.ask("sms", **{"from": "+393468686711", "text": "AT+CSQ"})
        done = tour(DEVICE=str(link))
        assert done.returncode == 0, done.stdout + done.stderr
        assert "SMS: off" in done.stdout
        assert done.stdout.count("skipped: no SMS is sent by a real module on a tour") == 7
        assert "SMS_TO= names no telephone" in done.stdout
        assert "All 7 steps came out as the rules say. 8 skipped." in done.stdout
        assert sim.sent() == []
        assert sim.stored() == 1
    finally:
        module.stop()


@pytest.mark.usefixtures("temporary")
@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"DEVICE": "/dev/no-such-port"}, "'/dev/no-such-port' is no serial port"),
        ({"BROKER": "host:port"}, "'host:port' is no broker"),
        ({"SMS_TO": "abc"}, "'abc' is no telephone number"),
    ],
)
def test_a_wish_that_cannot_be_is_refused_before_anything_starts(wish: dict[str, str], words: str) -> None:
    done = tour(**wish)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stdout == ""


@pytest.fixture
def handlers() -> Iterator[None]:
    """`main` takes signals over; a test that calls it gives them back."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)
