# SPDX-License-Identifier: Apache-2.0
"""What the example of a container is made of, under a user of no name. The image itself is `make test-container`'s."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HERE = ROOT / "packaging" / "container"
TEXT = (HERE / "Containerfile").read_text(encoding="utf-8")
SOMEBODY = 54321
PATIENCE = 20.0


def test_what_it_copies_is_there() -> None:
    copied = [word for line in re.findall(r"(?m)^COPY (?!--from)(.*) \S+$", TEXT) for word in line.split()]
    paths = [ROOT / word for word in copied if not word.startswith("--")]
    assert len(paths) == 5
    assert [path for path in paths if not path.exists()] == []


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that everybody may look into, as an image is; those of pytest are its own user's."""
    folder = Path(tempfile.mkdtemp(prefix="atrund-container-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def said(output: Path, pattern: str, program: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + PATIENCE
    while not re.search(pattern, output.read_text(), re.MULTILINE):
        assert program.poll() is None, output.read_text()
        assert time.monotonic() < end, output.read_text()
        time.sleep(0.02)


def test_any_user_will_do_and_the_log_is_json_on_standard_output(folder: Path) -> None:
    python = Path("/usr/bin/python3")
    if os.geteuid() or shutil.which("setpriv") is None or not python.exists():
        pytest.skip("needs root, setpriv and a Python that everybody may run")
    packages = Path(next(path for path in sys.path if path.endswith("site-packages")))
    shutil.copytree(ROOT / "atrund", folder / "atrund", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("paho", "serial", "serial_asyncio", "structlog", "tomli", "sdnotify"):
        shutil.copytree(packages / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for name in ("lib", "run", "etc", "etc/conf.d"):
        (folder / name).mkdir()
    for name in ("lib", "run"):
        (folder / name).chmod(0o1777)
    settings = (HERE / "container.toml").read_text()
    settings = settings.replace("/var/lib/atrund", f"{folder}/lib").replace("/run/atrund", f"{folder}/run")
    (folder / "etc" / "atrund.toml").write_text(settings)
    (folder / "etc" / "conf.d" / "50-site.toml").write_text(f'[module]\nport = "{folder}/tty"\n')
    as_somebody = ["setpriv", f"--reuid={SOMEBODY}", f"--regid={SOMEBODY}", "--clear-groups", "--no-new-privs"]
    bare = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(folder), "ATRUND_SOCKET": f"{folder}/run/atrund.sock"}
    output, errors, module = folder / "out", folder / "err", folder / "sim"
    with output.open("wb") as out, errors.open("wb") as err, module.open("wb") as told:
        sim = subprocess.Popen(
            [sys.executable, "-m", "atrund.sim", "--link", str(folder / "tty")], stdout=told, cwd=ROOT
        )
        try:
            said(module, "^ready", sim)
            (folder / "tty").resolve().chmod(0o666)
            start = [*as_somebody, str(HERE / "atrund"), "--config", str(folder / "etc" / "atrund.toml")]
            daemon = subprocess.Popen(start, stdout=out, stderr=err, env=bare, cwd="/")
            try:
                said(output, '"ready"', daemon)
                ask = [*as_somebody, str(HERE / "atrunctl"), "at", "AT+GMI"]
                asked = subprocess.run(ask, capture_output=True, text=True, env=bare, cwd="/", timeout=30, check=False)
                assert (asked.returncode, asked.stdout) == (0, "Telit\nOK\n"), asked.stderr
            finally:
                daemon.send_signal(signal.SIGTERM)
                assert daemon.wait(PATIENCE) == 0
        finally:
            sim.terminate()
            sim.wait()
    assert errors.read_text() == ""
    entries = [json.loads(line) for line in output.read_text().splitlines()]
    assert any(entry.get("door") == "local" for entry in entries)
