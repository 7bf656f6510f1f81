# SPDX-License-Identifier: Apache-2.0
"""What the pages for operators tell to type is what the programs take; what they link to is there."""

import argparse
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from atrund.config import Config, keys
from atrund.ctl.main import COMMANDS, build

ROOT = Path(__file__).parent.parent
PAGES = ("sharing.md", "worst-night.md", "security.md", "sms.md", "tcp.md", "local.md", "sms-security.md")
TEXTS = {name: (ROOT / "docs" / name).read_text(encoding="utf-8") for name in PAGES}


def commands(text: str) -> list[str]:
    """Every `atrunctl …` of a page: lines of its blocks, and code in its sentences that has more than a name."""
    blocks = re.findall(r"```(?:sh|console)?\n(.*?)```", text, re.DOTALL)
    lines = [line.removeprefix("$ ") for block in blocks for line in block.replace("\\\n", "").splitlines()]
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    lines += [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose)]
    return [line.removeprefix("sudo ") for line in lines if line.removeprefix("sudo ").startswith("atrunctl ")]


TYPED = sorted({(name, line) for name, text in TEXTS.items() for line in commands(text) if "…" not in line})


def names(parser: argparse.ArgumentParser, above: str = "") -> Iterator[str]:
    """The commands below one, each with those above it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield above + name
                yield from names(below, f"{above}{name} ")


NAMES = set(names(build(list(COMMANDS))))


@pytest.mark.parametrize(("page", "line"), TYPED)
def test_every_command_is_one(page: str, line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    if words != ["setup"] and " ".join(words) in NAMES:  # its name alone, in a sentence
        return
    assert callable(build(words).parse_args(words).run), page


def test_there_are_commands_for_every_symptom() -> None:
    parts = re.split(r"(?m)^## ", TEXTS["worst-night.md"])[1:]
    assert len(parts) == 12
    assert [part.partition("\n")[0] for part in parts if not commands(part)] == []


def anchors(text: str) -> set[str]:
    return {re.sub(r"[^a-z0-9 -]", "", head.lower()).replace(" ", "-") for head in re.findall(r"(?m)^#+ (.*)$", text)}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for file, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]+))?\)", TEXTS[page]):
        target = ROOT / "docs" / (file or page)
        assert target.exists(), file
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), anchor


@pytest.mark.parametrize("page", PAGES)
def test_options_that_are_named_are_there(page: str) -> None:
    known = set(keys(Config))
    sections = {key.rpartition(".")[0] for key in known}
    for name in re.findall(r"`(?:([a-z_]+(?:\.[a-z_]+)+))(?: = [^`]*)?`", TEXTS[page]):
        assert name in known or name in sections or name.endswith((".md", ".example")), name


def test_the_configuration_that_is_shown_is_right(tmp_path: Path) -> None:
    (shown,) = re.findall(r"```toml\n(.*?)```", TEXTS["security.md"], re.DOTALL)
    key, pem = tmp_path / "gateway-17.key", tmp_path / "gateway-17.pem"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subprocess.run([*make, "-subj", "/CN=x", "-keyout", key, "-out", pem], check=True, capture_output=True, timeout=60)
    (tmp_path / "ca.pem").write_bytes(pem.read_bytes())
    for name, secret in (
        ("operator.password", "correct horse"),
        ("broker.password", "a word"),
        ("sms-code-anna", "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"),
    ):
        (tmp_path / name).write_text(secret, encoding="ascii")
        (tmp_path / name).chmod(0o600)
    config = tmp_path / "atrund.toml"
    config.write_text(shown, encoding="utf-8")
    command = [sys.executable, "-m", "atrund", "--check", "--config", str(config)]
    checked = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (checked.returncode, checked.stdout) == (0, "ok\n"), checked.stderr
