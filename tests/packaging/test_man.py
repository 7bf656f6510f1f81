# SPDX-License-Identifier: Apache-2.0
"""The manual pages: they say everything that the programs take, and man(1) has nothing to complain of."""

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from atrund.config import Config, keys
from atrund.ctl.main import COMMANDS, build
from atrund.program import _parser

ROOT = Path(__file__).parents[2]
MAN = ROOT / "packaging" / "man"


def made(*command: str | Path) -> str:
    """The page as the package has it."""
    done = subprocess.run([sys.executable, *command], check=True, capture_output=True, text=True, timeout=60)
    return done.stdout


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return {
        "atrund.8": (MAN / "atrund.8").read_text(encoding="utf-8"),
        "atrunctl.1": made(MAN / "commands", MAN / "atrunctl.1"),
        "atrund.toml.5": made(MAN / "options", ROOT / "etc" / "atrund.toml"),
    }


def shown(page: str) -> str:
    """The words of a page, without what says how they look."""
    page = re.sub(r"\\f[BIR]|\\&", "", page)
    for name, one in (("\\-", "-"), ("\\(aq", "'"), ("\\(dq", '"'), ("\\(ha", "^"), ("\\(ti", "~"), ("\\e", "\\")):
        page = page.replace(name, one)
    return page


def parsers(name: str, parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    yield name, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below, one in action.choices.items():
                yield from parsers(f"{name} {below}", one)


def parts(page: str) -> dict[str, str]:
    """The text below each heading of the second rank."""
    return {head: text for head, _, text in (part.partition("\n") for part in re.split(r"(?m)^\.SS ", page)[1:])}


def test_every_command_and_option_of_atrunctl_is_told(pages: dict[str, str]) -> None:
    told = parts(shown(pages["atrunctl.1"]))
    (_, top), *rest = parsers("atrunctl", build(list(COMMANDS)))
    assert {name for name, _ in rest} == told.keys()
    assert len(rest) > 50
    for name, parser in rest:
        for action in parser._actions:
            if action.dest == "help" or isinstance(action, argparse._SubParsersAction):
                continue
            for word in action.option_strings:
                assert re.search(rf"{re.escape(word)}\b", told[name]), f"{name} {word}"
                assert f"\n.TP\n{', '.join(action.option_strings)}" in told[name], f"{name} {word}"
            if not action.option_strings and action.help not in {None, argparse.SUPPRESS}:
                assert f"\n.TP\n{action.metavar}\n" in told[name], f"{name} {action.metavar}"
    for action in top._actions:
        for word in action.option_strings:
            assert word in {"-h", "--help"} or word in shown(pages["atrunctl.1"]).split(".SH COMMANDS")[0]


def test_every_option_of_atrund_is_told(pages: dict[str, str]) -> None:
    page = shown(pages["atrund.8"])
    words = [word for action in _parser()._actions for word in action.option_strings]
    assert len(words) >= 5
    assert [word for word in words if word not in page] == []


def test_every_key_of_the_configuration_is_told_with_its_default(pages: dict[str, str]) -> None:
    page = shown(pages["atrund.toml.5"])
    head = page.partition(".SS [module]")[0]
    told = {name.strip("[]"): text for name, text in parts(page).items()}
    for key in keys(Config):
        section, _, name = key.rpartition(".")
        text = told[section] if section else head
        assert re.search(rf"(?m)^\.B {re.escape(name)} = \S", text), key


def test_the_examples_of_the_page_are_strings_with_their_quotes(pages: dict[str, str]) -> None:
    page = shown(pages["atrund.toml.5"])
    assert '.B reboot = "unused"\n' in page
    assert re.search(r'\.nf\n rules = \[\n +\{deny = \["\+CPBR", "\+CPBW"\]\},', page)


@pytest.mark.parametrize("name", ["atrund.8", "atrunctl.1", "atrund.toml.5"])
def test_man_has_nothing_to_complain_of(pages: dict[str, str], name: str, tmp_path: Path) -> None:
    if shutil.which("groff") is None or shutil.which("man") is None:
        pytest.skip("there is no groff or no man")
    file = tmp_path / name
    file.write_text(pages[name], encoding="utf-8")
    for command in (["man", "--warnings=w", "-l", str(file)], ["groff", "-ww", "-man", "-Tutf8", str(file)]):
        done = subprocess.run(
            command, env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "MANWIDTH": "80"}, check=True,
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        complaints = [line for line in done.stderr.splitlines() if "can't break line" not in line]
        assert complaints == []
        assert "SEE ALSO" in re.sub(r"\x1b\[\d*m|.\x08", "", done.stdout)
