# SPDX-License-Identifier: Apache-2.0
"""The operator's command is a real script here, and so is the time that it takes."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from atrund.module import rungs
from atrund.module.port import Port, PortError, Receiver
from atrund.module.rungs import REBOOT_LINGER, run_command, write_reboot


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="ascii")
    path.chmod(0o755)
    return str(path)


async def test_it_is_run_with_its_arguments_and_without_a_shell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    program = script(tmp_path / "cycle", f'printf "%s\\n" "$@" > {out}')
    odd = ("two words", "$(touch hacked); `id` | *", "")
    assert await run_command((program, *odd))
    assert out.read_text(encoding="ascii") == "".join(f"{argument}\n" for argument in odd)
    assert "exit=0" in capsys.readouterr().out


async def test_its_failure_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not await run_command((script(tmp_path / "cycle", "exit 7"),))
    assert "exit=7" in capsys.readouterr().out


@pytest.mark.parametrize("command", [("/nowhere/at/all",), ("/",), ("/bin/true", "\0")])
async def test_one_that_cannot_be_run_is_said(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert not await run_command(command)
    assert "recovery command not run" in capsys.readouterr().out


async def test_it_is_killed_in_the_end_with_all_that_it_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rungs, "COMMAND_TIMEOUT", 0.5)
    pid = tmp_path / "pid"
    program = script(tmp_path / "cycle", f"sleep 1000 &\necho $! > {pid}\nwait")
    assert not await run_command((program,))
    assert "it took longer than 0.5 s" in capsys.readouterr().out
    child = int(pid.read_text(encoding="ascii"))
    await _until(lambda: not _alive(child))


async def test_cancelled_it_is_killed(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    task = asyncio.create_task(run_command((script(tmp_path / "cycle", f"echo $$ > {pid}\nexec sleep 1000"),)))
    await _until(lambda: pid.exists() and bool(pid.read_text(encoding="ascii").strip()))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await _until(lambda: not _alive(int(pid.read_text(encoding="ascii"))))


async def _until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - another program's doings are no event here
            await asyncio.sleep(0.01)


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z" and os.path.exists(f"/proc/{pid}")  # noqa: PTH110 - a number, no path of ours


class BarePort:
    def __init__(self) -> None:
        self.did: list[tuple[float, bytes]] = []

    @property
    def unsent(self) -> int:
        return 0

    def write(self, data: bytes) -> None:
        self.did.append((asyncio.get_running_loop().time(), data))

    async def drop_dtr(self) -> None:
        raise AssertionError("not wanted")

    def close(self) -> None:
        self.did.append((asyncio.get_running_loop().time(), b"closed"))


@pytest.mark.looptime
async def test_the_reboot_has_time_to_leave_the_line() -> None:
    port = BarePort()

    async def open_port(path: str, baudrate: int, receiver: Receiver) -> Port:
        assert (path, baudrate) == ("/dev/ttyUSB2", 9600)
        receiver.received(b"garbage of a hung module")
        receiver.lost("and it goes")
        return port

    await write_reboot(open_port, "/dev/ttyUSB2", 9600)
    assert port.did == [(0.0, b"\x1b\rAT#REBOOT\r")]
    await asyncio.sleep(REBOOT_LINGER + 1)
    assert port.did[1:] == [(REBOOT_LINGER, b"closed")]


async def test_a_port_that_cannot_be_had_is_the_callers_to_say() -> None:
    async def open_port(_path: str, _baudrate: int, _receiver: Receiver) -> Port:
        raise PortError("held by another program")

    with pytest.raises(PortError, match="held"):
        await write_reboot(open_port, "/dev/ttyUSB2", 9600)
