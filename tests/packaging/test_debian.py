# SPDX-License-Identifier: Apache-2.0
"""What the Debian package is made of: units, manual pages, pinned libraries. Its life is `make test-system`."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from atrund.config import Config, keys
from atrund.ctl.main import COMMANDS

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "packaging" / "systemd"
MAN = ROOT / "packaging" / "man"
OF_SEVERAL = {
    "service": {
        "Wants=network.target atrund@%i.socket",
        "After=network.target atrund@%i.socket ModemManager.service",
        "ExecStart=/usr/sbin/atrund --name %i",
        "ExecStartPre=-+/usr/bin/install --directory --owner=atrund --group=atrund --mode=700 /var/lib/atrund-%i",
        "ReadWritePaths=-/var/lib/atrund-%i",
        "Also=atrund@%i.socket",
        "Description=AT commands on the cellular module, from afar: %i",
    },
    "socket": {"ListenStream=/run/atrund-%i.sock", "Description=Control socket of atrund: %i"},
}


def of_several(unit: str) -> str:
    command = [str(UNITS / "of-several"), str(UNITS / unit)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.mark.parametrize("kind", ["service", "socket"])
def test_the_unit_of_one_of_several_is_the_same_but_for_its_name(kind: str) -> None:
    one, several = (UNITS / f"atrund.{kind}").read_text().splitlines(), of_several(f"atrund.{kind}").splitlines()
    assert {line for line, own in zip(several, one, strict=True) if line != own} == OF_SEVERAL[kind]


@pytest.mark.parametrize("unit", ["atrund.service", "atrund@.service"])
def test_the_sandbox_leaves_little(unit: str, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze")
    file = tmp_path / unit
    file.write_text(of_several("atrund.service") if "@" in unit else (UNITS / unit).read_text())
    command = ["systemd-analyze", "security", "--no-pager", "--offline=true", "--threshold=15", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    exposure = re.search(r"exposure level for \S+: ([\d.]+)", done.stdout)
    assert exposure is not None, done.stderr
    assert float(exposure[1]) <= 1.5


def test_every_library_is_pinned_and_fits() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        wanted = {one.name: one for one in map(Requirement, tomllib.load(file)["project"]["dependencies"])}
    pinned = dict(
        re.findall(
            r"(?m)^([\w-]+)==(\S+) --hash=sha256:[0-9a-f]{64}$", (ROOT / "packaging/deb/requirements.txt").read_text()
        )
    )
    assert set(pinned) == set(wanted)
    for name, version in pinned.items():
        assert wanted[name].specifier.contains(Version(version)), name


def test_every_library_has_its_licence() -> None:
    text = (ROOT / "packaging/deb/debian/copyright").read_text()
    for folder in ("paho", "serial", "serial_asyncio", "sdnotify", "structlog", "tomli"):
        assert f"Files: vendor/{folder}/*\n" in text


def page(name: str, source: Path) -> str:
    command = [sys.executable, str(MAN / name), str(source)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def pages() -> dict[str, str]:
    return {
        "atrund.8": (MAN / "atrund.8").read_text(),
        "atrunctl.1": page("commands", MAN / "atrunctl.1"),
        "atrund.toml.5": page("options", ROOT / "etc" / "atrund.toml"),
    }


def test_the_manual_pages_are_right(tmp_path: Path) -> None:
    if shutil.which("man") is None or shutil.which("groff") is None:
        pytest.skip("there is no man, or no groff")
    for name, text in pages().items():
        (tmp_path / name).write_text(text)
        command = ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", str(tmp_path / name)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        assert done.stderr == "", name


def test_the_manual_pages_tell_all() -> None:
    told = pages()
    for name in COMMANDS:
        assert f"\n.B {name}\n" in told["atrunctl.1"]
    for key in keys(Config):
        assert f"\n.B {key.rpartition('.')[2]} = " in told["atrund.toml.5"], key
    for option in ("config", "name", "check", "version"):
        assert rf"\-\-{option}" in told["atrund.8"]
