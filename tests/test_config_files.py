# SPDX-License-Identifier: Apache-2.0
"""The files of a configuration: which counts, and that a mistake is told with the file in which it stands."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from atrund import config
from atrund.config import Config, ConfigError, Mistake
from atrund.config.files import FILES_MAX, read_files

Write = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes the main file, and those of conf.d by name."""

    def files(main: str, further: dict[str, str] | None = None) -> None:
        (tmp_path / "atrund.toml").write_text(main)
        (tmp_path / "conf.d").mkdir()
        for name, text in (further or {}).items():
            (tmp_path / "conf.d" / name).write_text(text)

    return files


def load(folder: Path) -> Config:
    return config.load(folder / "atrund.toml", hostname="box", machine_id=None, environ={})


def test_a_later_value_of_a_key_wins_and_the_others_stay(write: Write, tmp_path: Path) -> None:
    write(
        '[tcp]\nport = 1\ntimeout = "60s"\n[sms]\nnumbers = ["+391"]\n',
        {
            "20-b.toml": "[tcp]\nport = 3\n",
            "10-a.toml": '[tcp]\nport = 2\nsequence = true\n[sms]\nnumbers = ["+392"]\n',
        },
    )
    given = load(tmp_path)
    assert (given.tcp.port, given.tcp.timeout, given.tcp.sequence) == (3, 60.0, True)
    assert given.sms.numbers == ("+392",)


def test_what_editors_and_package_managers_leave_behind_is_not_read(write: Write, tmp_path: Path) -> None:
    wrong = "this is no TOML"
    write("", {".10-a.toml": wrong, "10-a.toml~": wrong, "10-a.toml.dpkg-new": wrong, "README": wrong})
    assert load(tmp_path) == load(tmp_path)
    assert read_files(tmp_path / "atrund.toml").values == {}


def test_a_mistake_is_told_with_its_file(write: Write, tmp_path: Path) -> None:
    write(
        "[tcp]\nport = 70000\n[queue]\ndepth = 0\n[sms]\nsweep = 1\n",
        {
            "10-a.toml": "[tcp]\nport = -1\n[sms.rate]\ncount = -1\n",
            "20-b.toml": '[tcp]\nprot = 1\nusers = [{name = "a"}]\n[mqtt]\ntls = true\nprefix = "+"\n',
        },
    )
    with pytest.raises(ConfigError) as caught:
        load(tmp_path)
    told = {mistake.key: mistake.file and mistake.file.name for mistake in caught.value.mistakes}
    assert told == {
        "tcp.port": "10-a.toml",
        "tcp.prot": "20-b.toml",
        "tcp.users[0].password_file": "20-b.toml",
        "queue.depth": "atrund.toml",
        "sms.sweep": "atrund.toml",
        "sms.rate.count": "10-a.toml",
        "mqtt.prefix": "20-b.toml",
    }
    assert f"{tmp_path}/conf.d/10-a.toml: tcp.port: " in str(caught.value)
    assert f"{tmp_path}/atrund.toml: queue.depth: " in config.report(caught.value)


@pytest.mark.parametrize(
    ("main", "further", "file"),
    [("[sms]\nsweep = 60", "sms = 3", "10-a.toml"), ("sms = 3", "[tcp]\nport = 1024", "atrund.toml")],
)
def test_a_value_in_the_place_of_a_table(write: Write, tmp_path: Path, main: str, further: str, file: str) -> None:
    write(main, {"10-a.toml": further})
    with pytest.raises(ConfigError) as caught:
        load(tmp_path)
    assert caught.value.mistakes == (
        Mistake("sms", "3 is a number", "a table of options", file=next(tmp_path.rglob(file))),
    )


def test_a_table_takes_the_place_of_a_value(write: Write, tmp_path: Path) -> None:
    write("sms = 3", {"10-a.toml": '[sms]\nsweep = "30s"'})
    assert load(tmp_path).sms.sweep == 30.0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[tcp", "end of document: no TOML: "),
        ("a." * 50_000 + "a = 1", "is nested too deep; plain tables, as in the example"),
    ],
)
def test_a_file_that_is_no_toml(write: Write, tmp_path: Path, text: str, said: str) -> None:
    write("", {"10-a.toml": text})
    with pytest.raises(ConfigError) as caught:
        load(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}/conf.d/10-a.toml: ")
    assert said in str(caught.value)


def test_a_folder_that_cant_be_used(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("", {f"{number:03}.toml": "" for number in range(FILES_MAX + 1)})
    with pytest.raises(ConfigError, match=f"conf.d: holds {FILES_MAX + 1} files; at most {FILES_MAX}"):
        load(tmp_path)

    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ConfigError, match=r"conf.d: Permission denied; a folder of TOML files that can be read"):
        load(tmp_path)


def test_a_table_that_is_unknown_is_named_in_its_file(write: Write, tmp_path: Path) -> None:
    write("", {"10-a.toml": "[tpc]\nenabled = true", "20-b.toml": "[policy.web]\nrules = []"})
    with pytest.raises(ConfigError) as caught:
        load(tmp_path)
    told = {mistake.key: mistake.file and mistake.file.name for mistake in caught.value.mistakes}
    assert told == {"tpc": "10-a.toml", "policy.web": "20-b.toml"}


def test_a_file_that_the_daemon_may_not_read(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("", {"10-a.toml": ""})
    file = os.open

    def refuse(path: Path, flags: int) -> int:
        if path.name == "10-a.toml":
            raise PermissionError(13, "Permission denied")
        return file(path, flags)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ConfigError, match=r"10-a.toml: Permission denied; chgrp atrund and chmod 640 it, so that "):
        load(tmp_path)


def test_secrets_are_looked_for_beside_the_main_file(write: Write, tmp_path: Path) -> None:
    write("", {"10-a.toml": '[mqtt]\nuser = "u"\npassword_file = "mqtt"\n'})
    (tmp_path / "mqtt").write_text("hunter2hunter2")
    (tmp_path / "mqtt").chmod(0o600)
    secret = load(tmp_path).mqtt.password
    assert secret is not None
    assert secret.reveal() == "hunter2hunter2"


def test_one_daemon_of_several_has_all_of_its_own(write: Write, tmp_path: Path) -> None:
    def named(text: str, hostname: str = "box") -> Config:
        (tmp_path / "atrund.toml").write_text(text)
        return config.load(
            tmp_path / "atrund.toml", hostname=hostname, machine_id="0123456789abcdef" * 2, environ={}, name="roof"
        )

    write("")
    given = named("")
    assert given.node == f"{load_node(tmp_path)}-roof"
    assert str(given.state_dir) == "/var/lib/atrund-roof"
    assert str(given.local.socket) == "/run/atrund-roof.sock"
    long = named("", hostname="h" * 70).node
    assert len(long) == 64
    assert long.endswith("-roof")
    own = named('node = "a"\nstate_dir = "/b"\n[local]\nsocket = "/c"\n')
    assert (own.node, str(own.state_dir), str(own.local.socket)) == ("a", "/b", "/c")
    assert named('[local]\nsocket = ""\n').local.socket is None


def load_node(folder: Path) -> str:
    return config.load(folder / "atrund.toml", hostname="box", machine_id="0123456789abcdef" * 2, environ={}).node
