# SPDX-License-Identifier: Apache-2.0
"""`atrunctl setup` with a file of answers: what it writes, what it refuses, and that it is all or nothing."""

import errno
import os
import re
import signal
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import tomli
from hypothesis import given
from hypothesis import strategies as st

from atrund.ctl import fleet_link
from atrund.ctl.findings import Finding, Level
from atrund.ctl.host import Host
from atrund.ctl.main import main
from atrund.ctl.setup import EPILOG, flow, place, steps
from atrund.ctl.setup.text import FILE, contested, difference, render
from tests.usb.tree import Tree

Capture = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch

PORT = "serial/by-id/usb-Telit_LE910C1-EU_0123456789ABCDEF-if05-port0"
PASSWORD = "made-up-word"


class Box:
    """A machine with a folder for the configuration, and answers to give."""

    def __init__(self, root: Path) -> None:
        self.tree = Tree(root)
        self.proc = root / "proc"
        self.proc.mkdir()
        self.folder = root / "etc"
        self.answers = root / "answers.toml"
        self.secret("login", PASSWORD)

    @property
    def host(self) -> Host:
        return Host(self.tree.sys, self.tree.dev, self.proc, lambda _: None, lambda _: None)

    @property
    def file(self) -> Path:
        return self.folder / "conf.d" / FILE

    @property
    def kept(self) -> Path:
        return self.folder / "setup-login.password"

    def secret(self, name: str, text: str) -> None:
        path = self.answers.parent / name
        path.write_text(text)
        path.chmod(0o600)

    def written(self) -> Mapping[str, Mapping[str, object]]:
        return tomli.loads(self.file.read_text())

    def put(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def run(self, text: str, *options: str) -> int:
        self.answers.write_text(text)
        return main(["setup", "--answers", str(self.answers), "--config-dir", str(self.folder), *options])

    def state(self) -> dict[str, tuple[int, int, bytes]]:
        """All that is in the folder."""
        files = (path for path in self.folder.rglob("*") if path.is_file())
        return {
            str(path.relative_to(self.folder)): (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes())
            for path in files
        }


@pytest.fixture
def box(tmp_path: Path, monkeypatch: Patch) -> Box:
    box = Box(tmp_path)
    monkeypatch.setattr(flow, "Host", lambda: box.host)
    return box


LOGIN = '[tcp]\nuser = "operator"\npassword_file = "login"\n'
ALL = '[module]\nport = "/dev/ttyS1"\n[sms]\nnumbers = ["+393401234567"]\n' + LOGIN


def test_the_free_port_of_the_only_module_is_taken_by_its_id(box: Box, capsys: Capture) -> None:
    box.tree.le910()
    assert box.run(LOGIN) == 0
    assert box.written() == {
        "module": {"port": str(box.tree.dev / PORT)},
        "tcp": {
            "enabled": True,
            "listen": ["127.0.0.1"],
            "port": 1024,
            "firewall": ["127.0.0.0/8"],
            "users": [{"name": "operator", "password_file": "setup-login.password"}],
            "step_login": True,
            "idle_timeout": 600,
        },
    }
    assert box.kept.read_text() == f"{PASSWORD}\n"
    assert [stat.S_IMODE(path.stat().st_mode) for path in (box.file, box.kept)] == [0o640, 0o640]
    told = capsys.readouterr()
    assert "ok       module   LE910C1-EU (1bc7:1201) at 1-1.4: " in told.out
    assert "\n  systemctl enable --now atrund   # if it runs already: systemctl restart atrund\n" in told.out
    assert "\n  telnet 127.0.0.1 1024   # it asks for name and password\n" in told.out
    assert PASSWORD not in told.out + told.err + box.file.read_text()


def test_a_second_time_changes_nothing_and_says_so(box: Box, capsys: Capture) -> None:
    assert box.run(ALL) == 0
    before = box.state()
    capsys.readouterr()
    assert box.run(ALL) == 0
    assert box.state() == before
    assert f"Nothing is to change: {box.file} is as it should be." in capsys.readouterr().out


def test_a_changed_answer_changes_only_that(box: Box, capsys: Capture) -> None:
    assert box.run(ALL) == 0
    before = box.state()
    capsys.readouterr()
    assert box.run(ALL.replace("+393401234567", "+393409999999")) == 0
    after = box.state()
    assert {name for name in after if after[name] != before.get(name)} == {f"conf.d/{FILE}"}
    changed = [line for line in capsys.readouterr().out.splitlines() if line[:1] in {"+", "-"} and "[" in line]
    assert changed == ['-numbers = ["+393401234567"]', '+numbers = ["+393409999999"]']
    box.secret("login", "another-word")
    before = box.state()
    assert box.run(ALL.replace("+393401234567", "+393409999999")) == 0
    after = box.state()
    assert {name for name in after if after[name] != before.get(name)} == {"setup-login.password"}


def test_the_file_of_the_password_may_be_gone_once_it_was_copied(box: Box) -> None:
    assert box.run(ALL) == 0
    before = box.state()
    assert box.run(ALL.replace('password_file = "login"\n', "")) == 0
    assert box.state() == before


def test_a_password_that_nobody_uses_any_more_does_not_stay(box: Box, capsys: Capture) -> None:
    assert box.run(ALL) == 0
    assert box.run('[module]\nport = "/dev/ttyS1"\n') == 0
    assert not box.kept.exists()
    assert f"\n- {box.kept}\n" in capsys.readouterr().out
    assert box.written() == {"module": {"port": "/dev/ttyS1"}}


def test_the_port_that_was_found_stays_while_the_module_is_away(box: Box) -> None:
    device = box.tree.le910()
    assert box.run(LOGIN) == 0
    before = box.state()
    (box.tree.sys / "bus/usb/devices" / device.name).unlink()
    assert box.run(LOGIN) == 0
    assert box.state() == before


def test_one_of_several_is_told_by_its_name(box: Box, capsys: Capture) -> None:
    assert box.run(ALL, "--name", "second") == 0
    told = capsys.readouterr().out
    assert "\n  systemctl enable --now atrund@second " in told
    assert "\n  atrunctl -n second status\n" in told


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ("[modules]\n", "answers.toml: modules: unknown key; did you mean module?"),
        (
            '[tcp]\nuser = "a"\npasword_file = "login"\n',
            "tcp.pasword_file: unknown key; did you mean tcp.password_file?",
        ),
        ('[sms]\nnumbers = "+39340"\n', 'sms.numbers: "+39340" is a string; a list of at most 8 numbers'),
        ("[sms]\nnumbers = [39340]\n", "sms.numbers[0]: 39340 is a number; digits"),
        ('[sms]\nnumbers = ["me"]\n', 'sms.numbers[0]: "me" is not allowed; digits'),
        ('sms = "on"\n', 'sms: "on" is a string; a table of options'),
        ('[tcp]\nuser = "operator"\n', "tcp.password_file: is missing; the path of a file that holds the password"),
        ('[tcp]\npassword_file = "login"\n', "tcp.password_file: a password without a user; tcp.user as well"),
        ('[tcp]\nuser = "a"\npassword = "geheim"\n', "tcp.password: unknown key; did you mean tcp.password_file?"),
        ('[tcp]\nuser = "a"\npassword_file = "nowhere"\n', "tcp.password_file: no such file in "),
        (LOGIN + 'firewall = ["10.0.0.1/8"]\n', 'tcp.firewall[0]: "10.0.0.1/8" is no network'),
        (LOGIN + "port = true\n", "tcp.port: true is a boolean; a port from 1 to 65535"),
        (LOGIN + 'listen = ["0.0.0.0"]\n', "tcp.listen: clear text on 0.0.0.0 can be read on the way; [tcp.tls], "),
        ('[mqtt]\nuser = "a"\n', "mqtt.user: is set while mqtt.host is not; mqtt.host as well"),
        ('[mqtt]\nhost = "b.example"\ncheck = false\n', 'mqtt.host: clear text to "b.example" can be read on the way'),
        ('[module]\nport = "ttyUSB3"\n', "module.port: 'ttyUSB3' is no port's name; did you mean /dev/ttyUSB3?"),
        ("[module\n", "answers.toml: line 1, column 8: no TOML"),
    ],
)
def test_answers_that_are_refused(box: Box, capsys: Capture, answers: str, words: str) -> None:
    box.tree.le910()
    assert box.run(answers) == 2
    told = capsys.readouterr()
    assert words in told.err
    assert told.err.endswith("; nothing was changed\n")
    assert "geheim" not in told.err
    assert not box.folder.exists()


def test_mistakes_are_named_where_the_files_will_be(box: Box, capsys: Capture) -> None:
    box.put("conf.d/20-site.toml", "[sms]\nnumber = 1\n")
    assert box.run(ALL) == 2
    assert f"{box.folder}/conf.d/20-site.toml: sms.number: unknown key" in capsys.readouterr().err
    assert set(box.state()) == {"conf.d/20-site.toml"}


def test_several_modules(box: Box, capsys: Capture) -> None:
    box.tree.le910()
    box.tree.le910("1-2", first=5, serial="FEDCBA")
    assert box.run(LOGIN) == 2
    told = capsys.readouterr().err
    assert f"module.port: there are several modules: {box.tree.dev / PORT}, " in told
    assert "FEDCBA-if05-port0; name one of them" in told


def test_no_module(box: Box, capsys: Capture) -> None:
    assert box.run(LOGIN) == 1
    told = capsys.readouterr()
    assert "warning  module   no Telit module on USB" in told.out
    assert "no module was found on USB, and no port was named" in told.err
    assert "look for it with lsusb" in told.err


def test_a_port_that_others_have_is_not_taken(box: Box) -> None:
    box.tree.le910()
    process = box.proc / "7"
    (process / "fd").mkdir(parents=True)
    (process / "comm").write_text("minicom\n")
    (process / "cgroup").write_text("0::/\n")
    (process / "cmdline").write_text("minicom")
    (process / "fd" / "3").symlink_to(box.tree.dev / "ttyUSB3")
    assert box.run(LOGIN) == 0
    assert str(box.written()["module"]["port"]).endswith("-if04-port0")


def test_who_wins_where_others_set_a_key_too(box: Box, capsys: Capture) -> None:
    box.put("atrund.toml", "[tcp]\nport = 7\n")
    box.put("conf.d/20-site.toml", "[sms]\nenabled = false\n")
    box.put("conf.d/90-late.toml", "[tcp]\nidle_timeout = 60\n")
    assert box.run(ALL) == 0
    told = capsys.readouterr().out
    assert "note     keys     tcp.port: atrund.toml sets it too; 50-setup.toml is read later, and wins\n" in told
    assert "note     keys     sms.enabled: conf.d/20-site.toml sets it too; 50-setup.toml is read later" in told
    assert "warning  keys     tcp.idle_timeout: conf.d/90-late.toml sets it too, is read later, and wins\n" in told


def test_without_permission_it_says_sudo(box: Box, capsys: Capture, monkeypatch: Patch) -> None:
    monkeypatch.setattr(flow, "writable", lambda _: False)
    assert box.run(ALL) == 1
    assert "this user may not write there; as root it would be right: sudo atrunctl setup" in capsys.readouterr().err
    assert not box.folder.exists()


def test_a_folder_that_can_not_be(box: Box, capsys: Capture) -> None:
    box.answers.write_text(ALL)
    nowhere = box.folder / "a" / "b"
    assert main(["setup", "--answers", str(box.answers), "--config-dir", str(nowhere)]) == 2
    assert f"{box.folder}/a is not there; --config-dir names the folder of atrund.toml" in capsys.readouterr().err


def failing(number: int) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def test_a_full_disk_changes_nothing(box: Box, capsys: Capture, monkeypatch: Patch) -> None:
    assert box.run(ALL) == 0
    before = box.state()
    capsys.readouterr()
    monkeypatch.setattr(os, "fsync", failing(errno.ENOSPC))
    assert box.run(ALL.replace("4567", "0000")) == 1
    assert capsys.readouterr().err == f"atrunctl: {box.folder}: No space left on device; nothing was changed\n"
    assert box.state() == before
    assert not list(box.folder.glob(".setup-*"))


def test_a_disk_that_fails_on_the_way_says_what_is_in_place(box: Box, capsys: Capture, monkeypatch: Patch) -> None:
    real = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if self.name == FILE:
            failing(errno.EIO)()
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    assert box.run(ALL) == 1
    told = capsys.readouterr().err
    assert "Input/output error; in place are atrund.toml, setup-login.password alone: run it again" in told
    assert "nothing was changed" not in told
    monkeypatch.undo()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_nothing_half_written(box: Box, capsys: Capture, monkeypatch: Patch, number: int) -> None:
    assert box.run(ALL) == 0
    before, handlers = box.state(), [signal.getsignal(one) for one in signal.valid_signals()]
    capsys.readouterr()

    def check(*_: object) -> None:
        os.kill(os.getpid(), number)

    monkeypatch.setattr(place.Place, "check", check)
    assert box.run(ALL.replace("4567", "0000")) == 1
    assert capsys.readouterr().err == "atrunctl: interrupted; nothing was changed\n"
    assert box.state() == before
    assert not list(box.folder.glob(".setup-*"))
    assert [signal.getsignal(one) for one in signal.valid_signals()] == handlers


def test_what_a_killed_run_left_is_cleared_away(box: Box) -> None:
    box.put(".setup-abc/setup-login.password", "x")
    assert box.run(ALL) == 0
    assert not list(box.folder.glob(".setup-*"))


def test_without_a_terminal_answers_are_asked_for(box: Box, capsys: Capture, monkeypatch: Patch) -> None:
    with Path("/dev/null").open() as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        assert main(["setup", "--config-dir", str(box.folder)]) == 2
    assert "there is no terminal to ask at; --answers FILE would be right" in capsys.readouterr().err


BROKER = '[module]\nport = "/dev/ttyS1"\n[mqtt]\nhost = "localhost"\n'


def test_a_broker_that_refuses_leaves_all_as_it_was(box: Box, capsys: Capture, monkeypatch: Patch) -> None:
    refusal = Finding(Level.ERROR, "broker", "the broker lets this user not in: Not authorized", "right?")
    monkeypatch.setattr(steps, "try_broker", lambda _: refusal)
    assert box.run(BROKER) == 1
    told = capsys.readouterr()
    assert "error    broker   the broker lets this user not in: Not authorized\n" in told.out
    assert "the broker can't be used; nothing was changed" in told.err
    assert not box.folder.exists()
    assert box.run(BROKER + "check = false\n") == 0


def test_all_of_the_broker(box: Box, capsys: Capture) -> None:
    box.secret("broker", "a word")
    more = 'user = "gw"\npassword_file = "broker"\nremote_at = true\nprefix = "site/a"\ncheck = false\n'
    assert box.run(BROKER + more) == 0
    wanted = {"enabled": True, "host": "localhost", "port": 1883, "remote_at": True, "prefix": "site/a", "user": "gw"}
    assert box.written()["mqtt"] == {**wanted, "password_file": "setup-broker.password"}
    assert (box.folder / "setup-broker.password").read_text() == "a word\n"
    assert "a word" not in capsys.readouterr().out


def test_a_broker_that_keeps_topics_from_the_node(box: Box, capsys: Capture, monkeypatch: Patch) -> None:
    asked: list[object] = []

    class Refusing:
        def __init__(self, where: fleet_link.Where) -> None:
            asked.append((where.host, where.port, where.user, where.password, where.client_id[-6:]))

        def subscribe(self, topics: list[str], *, qos: int, retained: bool) -> list[str]:
            asked.append((topics[0].rpartition("/")[2], qos, retained))
            return topics

        def close(self) -> None:
            asked.append("closed")

    monkeypatch.setattr(fleet_link, "Link", Refusing)
    box.secret("broker", "a word")
    assert box.run(BROKER + 'user = "gw"\npassword_file = "broker"\n') == 1
    assert asked == [("localhost", 1883, "gw", "a word", "-setup"), ("status", 1, False), "closed"]
    assert "error    broker   the broker lets this user in, but not read atrund/" in capsys.readouterr().out
    assert not box.folder.exists()


def test_the_manual_page_says_how_it_is_done_by_hand(box: Box) -> None:
    page = (Path(__file__).parents[2] / "packaging" / "man" / "atrunctl.1").read_text()
    (by_hand,) = re.findall(r"\.nf\n( +\[module\]\n.*?)\.fi", page.partition("\n.SH SETUP\n")[2], re.DOTALL)
    box.secret("broker", "a word")
    port = "/dev/serial/by-id/usb-Telit_LE910C1-EU_0123456789-if05-port0"
    mqtt = 'host = "broker.example"\ntls = true\nuser = "gateway-17"\npassword_file = "broker"\nremote_at = true\n'
    answers = ALL.replace("/dev/ttyS1", port) + f"[mqtt]\n{mqtt}check = false\n"
    assert box.run(answers) == 0
    assert tomli.loads(by_hand.replace("\\-", "-")) == box.written()


def test_the_answers_that_its_help_shows_are_right(box: Box) -> None:
    (shown,) = re.findall(r"\n( +\[module\]\n.*?)\n\n", EPILOG, re.DOTALL)
    box.secret("operator.password", PASSWORD)
    box.secret("broker.password", "a word")
    box.tree.le910()
    assert box.run(re.sub("check = true", "check = false", shown)) == 0
    assert set(box.written()) == {"module", "sms", "tcp", "mqtt"}


NAMES = st.sampled_from(["a", "users", "a_b"])
SINGLE = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.booleans() | st.integers(0, 2**31)
VALUES = SINGLE | st.lists(SINGLE, max_size=3) | st.lists(st.dictionaries(NAMES, SINGLE), max_size=2)


@given(st.dictionaries(NAMES, st.dictionaries(NAMES, VALUES)))
def test_what_is_rendered_reads_as_the_same(sections: dict[str, dict[str, object]]) -> None:
    assert tomli.loads(render(sections)) == sections
    assert difference(render(sections), render(sections)) == ""


def test_lists_are_one_key() -> None:
    ours = {"tcp": {"users": [{"name": "a"}]}, "sms": {}}
    assert list(contested(ours, [("x.toml", {"tcp": {"users": []}}), ("y.toml", {"sms": {"enabled": True}})])) == [
        ("tcp.users: conf.d/x.toml sets it too, is read later, and wins", True)
    ]
