# SPDX-License-Identifier: Apache-2.0
"""The wheel: what is in it, and that both programs run out of a fresh virtual environment."""

import re
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("hatchling")
pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pip(*arguments: str, right: tuple[int, ...] = (0,)) -> str:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode in right, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-index", "--no-deps", "--no-build-isolation", f"--wheel-dir={folder}", str(ROOT))
    (made,) = folder.iterdir()
    return made


def test_it_holds_the_package_and_nothing_else(wheel: Path) -> None:
    assert re.fullmatch(r"atrund-[\d.]+-py3-none-any\.whl", wheel.name)
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    about = wheel.name.removesuffix("-py3-none-any.whl")
    source = (*(ROOT / "atrund").rglob("*.py"), ROOT / "atrund" / "py.typed")
    assert {name for name in names if not name.startswith(about)} == {str(one.relative_to(ROOT)) for one in source}
    assert {name.removeprefix(about) for name in names if name.startswith(about)} == {
        ".data/data/share/doc/atrund/atrund.toml",
        ".dist-info/METADATA",
        ".dist-info/RECORD",
        ".dist-info/WHEEL",
        ".dist-info/entry_points.txt",
        ".dist-info/licenses/LICENSE",
    }


def test_it_says_what_it_needs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        (name,) = (one for one in file.namelist() if one.endswith(".dist-info/METADATA"))
        told = file.read(name).decode()
    needed = re.findall(r"(?m)^Requires-Dist: ([\w-]+)[^;\n]*$", told)  # behind a semicolon: what only an extra needs
    assert sorted(needed) == sorted(re.split("[<>=]", one)[0] for one in PROJECT["dependencies"])
    assert f"\nRequires-Python: {PROJECT['requires-python']}\n" in told


def test_both_programs_run_out_of_a_fresh_environment(wheel: Path, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True, timeout=120)
    python = venv / "bin" / "python"
    pip(f"--python={python}", "install", "--no-index", "--no-deps", str(wheel))
    # What it needs of others lies in the environment of this test, whose own .pth files don't count from there: the
    # work tree is not seen.
    (packages,) = venv.glob("lib/python3*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def said(program: str, *arguments: str) -> str:
        command = [str(venv / "bin" / program), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert said("python", "-c", "import atrund; print(atrund.__file__)") == f"{packages}/atrund/__init__.py\n"
    assert said("atrund", "--version").split() == ["atrund", wheel.name.split("-")[1]]
    assert said("atrund", "--config", f"{venv}/share/doc/atrund/atrund.toml", "--check").endswith("ok\n")
    (tmp_path / "password").write_text("ABCDEFGHIJKLMNOP")
    (tmp_path / "password").chmod(0o600)
    encoded = said("atrunctl", "sms", "encode", "--to", "+393460000000", "--password-file", "password", "AT+COPS?")
    assert "AT+COPS?" in said("atrunctl", "sms", "decode", encoded.split()[-1])
    told = pip(f"--python={python}", "check", right=(0, 1))  # the others may lack what they like
    assert "atrund" not in told
