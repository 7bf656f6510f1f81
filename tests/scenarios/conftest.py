# SPDX-License-Identifier: Apache-2.0
"""What starts the players of a scenario, and stops them whatever happens."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.scenarios.piped import Start
from tests.scenarios.players import Broker, Daemon, Ear, Module

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.blackbox)


class Stage:
    """One scenario's players; `folder` is its own."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self._stack = stack

    def module(self, *options: str) -> Module:
        module = Module(self.folder, *options)
        self._stack.callback(module.program.stop, signal.SIGKILL)
        return module

    def broker(self, *lines: str, allow: bool = True) -> Broker:
        broker = Broker(self.folder, *lines, allow=allow)
        self._stack.callback(lambda: broker.program.stop(signal.SIGKILL))
        return broker

    def ear(self, broker: Broker, *options: str) -> Ear:
        ear = Ear(broker, self.folder, *options)
        self._stack.callback(lambda: ear.messages)  # what nobody looked at is held to the contract, too
        self._stack.callback(ear.program.stop, signal.SIGKILL)
        return ear

    def daemon(self, module: Module | None = None, broker: Broker | None = None, folder: str = "") -> Daemon:
        place = self.folder / folder
        place.mkdir(exist_ok=True)
        daemon = Daemon(place, module, broker)
        self._stack.callback(lambda: daemon.program and daemon.program.stop(signal.SIGKILL))
        return daemon


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """A stage for one test."""
    with ExitStack() as stack:
        yield Stage(tmp_path, stack)


@pytest.fixture(scope="module")
def shared_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A stage for all tests of a file."""
    with ExitStack() as stack:
        yield Stage(tmp_path_factory.mktemp("stage"), stack)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """What starts other people's programs for a test."""
    with ExitStack() as stack:
        yield Start(tmp_path, stack)
