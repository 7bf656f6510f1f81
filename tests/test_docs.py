# SPDX-License-Identifier: Apache-2.0
"""What the pages say is what the program has."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_printed_state_machines_are_those_of_the_tables() -> None:
    printed = subprocess.run(
        [sys.executable, ROOT / "packaging" / "diagrams"], check=True, capture_output=True, text=True, timeout=60
    ).stdout
    assert (ROOT / "docs" / "machines.md").read_text(encoding="utf-8") == printed, "run packaging/diagrams --write"


def test_the_plan_of_the_house_names_every_room() -> None:
    plan = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rooms = {path.name for path in (ROOT / "atrund").iterdir() if not path.name.startswith(("_", ".", "py."))}
    missing = {room for room in rooms if not re.search(rf"\b{re.escape(room)}", plan)}
    assert not missing


def test_the_first_configuration_of_the_readme_is_right(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"```toml\n(.*?)```", readme, re.DOTALL)
    assert found is not None
    config = tmp_path / "atrund.toml"
    config.write_text(found[1], encoding="utf-8")
    for name, secret in (("sms.password", "0123456789abcdef"), ("operator.password", "correct horse")):
        (tmp_path / name).write_text(secret, encoding="ascii")
        (tmp_path / name).chmod(0o600)
    checked = subprocess.run(
        [sys.executable, "-m", "atrund", "--check", "--config", config],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (checked.returncode, checked.stdout) == (0, "ok\n"), checked.stderr
