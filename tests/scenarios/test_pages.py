# SPDX-License-Identifier: Apache-2.0
"""The examples of the pages happen as they are shown: with a daemon, a simulated module, a broker and real clients."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.support import contract
from tests.support.certificates import Authority
from tests.support.machine import ROOT, Machine
from tests.support.pages import RUN, blocks, examples, follow

SIMULATOR: Final = "python -m atrund.sim --link /tmp/tty --control /tmp/sim"
PLAIN_MAX: Final = 12
OURS: Final = """
[module]
port = "/tmp/tty"
"""
"""What a test's daemon has elsewhere than the page's."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What is there before the first example of a page is typed."""

    page: str
    configuration: Sequence[int] = (0,)
    """Which of the page's configurations the daemon has."""
    broker: bool = False
    more: str = ""
    """What else its configuration has, which the page tells in words."""
    secrets: tuple[tuple[str, str], ...] = ()


LOGIN: Final = ("operator.password", "correct horse")
CODE: Final = ("sms-code-anna", "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP")
SCENES: Final = (
    Scene("README.md", broker=True, secrets=(LOGIN, ("sms.password", "0123456789abcdef"))),
    Scene("docs/sms.md"),
    Scene("docs/tcp.md", secrets=(LOGIN,)),
    Scene("docs/mqtt.md", broker=True),
    Scene("docs/local.md", (1,)),
    Scene("docs/event-monitor.md", (), more="[sms]\nenabled = true\n"),
    Scene("docs/home-assistant.md", broker=True),
    Scene(
        "docs/security.md", secrets=(LOGIN, ("broker.password", "a word"), ("sms-code-anna", "JBSWY3DPEHPK3PXP" * 2))
    ),
    Scene("docs/fleet.md", (), broker=True, more='[mqtt]\nenabled = true\nhost = "localhost"\n'),
    Scene("docs/sms-security.md", (), more='[sms]\nenabled = true\nnumbers = ["+393468686711"]\n'),
)


@contextmanager
def staged(scene: Scene, folder: Path) -> Iterator[Machine]:
    machine = Machine(folder)
    try:
        etc = folder / "etc" / "atrund"
        shown = [text for _, kind, text in blocks((ROOT / scene.page).read_text(encoding="utf-8")) if kind == "toml"]
        (etc / "atrund.toml").touch()
        (etc / "conf.d" / "site.toml").write_text("".join(shown[number] for number in scene.configuration))
        (etc / "conf.d" / "zz-test.toml").write_text(scene.more + OURS)
        for name, secret in scene.secrets:
            (etc / name).write_text(secret)
            (etc / name).chmod(0o640)
        authority = Authority(etc)
        for path in authority.issue("gateway-17"):
            path.chmod(0o640)
        if scene.broker:
            machine.start("exec mosquitto", "mosquitto_sub -t x -E")
        machine.start(f"exec {SIMULATOR}", "test -S /tmp/sim")
        machine.run("systemctl start atrund")
        machine.until("atrunctl status | grep -q 'state *ready'")
        if scene.broker:
            machine.until("atrunctl status | grep -q 'connected *yes'")
        yield machine
    finally:
        machine.stop()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.page)
def test_the_examples_of_a_page(scene: Scene, tmp_path: Path) -> None:
    with staged(scene, tmp_path) as machine:
        for example in examples(ROOT / scene.page):
            seen = follow(machine, example)
            if seen.startswith('{"') and "atrund/gateway-17/" in example.command:
                contract.check("status" if "/status" in example.command else "at/response", seen.strip().encode())


def test_what_is_not_typed_is_little() -> None:
    """Blocks of no kind: pictures, answers by SMS, what goes on at another machine, the lines of an installation."""
    plain = [
        text
        for scene in SCENES
        for _, kind, text in blocks((ROOT / scene.page).read_text(encoding="utf-8"))
        if kind not in {*RUN, "toml", "json", "yaml"}
    ]
    assert len(plain) <= PLAIN_MAX
    assert [text for text in plain if text.startswith("$ ")] == []


def test_the_simulator_of_the_readme_is_the_one_that_the_pages_have() -> None:
    assert f"`{SIMULATOR}`" in (ROOT / "README.md").read_text(encoding="utf-8")
