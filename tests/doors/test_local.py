# SPDX-License-Identifier: Apache-2.0
"""The local door in one process: its socket's rights, and clients that do not behave."""

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atrund import control
from atrund.config.values import Local, Sms
from atrund.doors import local as room
from atrund.doors.local import LocalDoor
from atrund.sim.faults import Plant
from tests.support.virtual import House, config, running
from tests.support.waiting import ready, until

pytestmark = pytest.mark.looptime


@contextlib.asynccontextmanager
async def door(path: Path, mode: int = 0o660) -> AsyncIterator[House]:
    async with running(config(local=Local(socket=path, mode=mode), sms=Sms())) as house:
        await ready(house)
        yield house


async def ask(path: Path, *requests: control.Request) -> list[control.Answer]:
    """Send requests, then close the way there; return all that is answered until the command's end."""
    reader, writer = await asyncio.open_unix_connection(path)
    for request in requests:
        writer.write(control.encode(request))
    answers: list[control.Answer] = []
    while not answers or not isinstance(answers[-1], control.FinalAnswer | control.StatusAnswer):
        answers.append(control.decode_answer(await reader.readline()))
    writer.close()
    return answers


async def test_a_command(tmp_path: Path) -> None:
    async with door(tmp_path / "s") as house:
        accepted, line, final = await ask(tmp_path / "s", control.AtRequest("AT#CGMI", id="mine"))
        assert isinstance(accepted, control.AcceptedAnswer)
        assert isinstance(final, control.FinalAnswer)
        assert (accepted.id, accepted.rid) == ("mine", final.rid)
        assert line == control.LineAnswer("#CGMI: Telit")
        assert (final.state, final.final, final.reason) == ("ok", "OK", None)
        assert house.disk.rows("SELECT peer FROM audit WHERE rid = ?", final.rid) == [(f"uid {os.getuid()}",)]


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o777])
async def test_the_rights_do_not_depend_on_the_umask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        async with door(tmp_path / "s", 0o620):
            assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o620
            assert os.umask(mask) == mask
    finally:
        os.umask(before)


async def test_nobody_else_gets_in_before_the_mode_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    chmod = Path.chmod

    def watch(path: Path, mode: int) -> None:
        seen.append(stat.S_IMODE(path.stat().st_mode))
        chmod(path, mode)

    before = os.umask(0)
    try:
        monkeypatch.setattr(Path, "chmod", watch)
        async with door(tmp_path / "s"):
            pass
    finally:
        os.umask(before)
    assert seen == [0o600]


async def test_a_client_that_does_not_read_is_cut_off(tmp_path: Path) -> None:
    async with door(tmp_path / "s") as house:
        house.module.faults.plant("AT#MONI=7", Plant(left=None, lines=("x" * 4000,) * 300, final="OK"))
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(str(tmp_path / "s"))
            link.send(control.encode(control.AtRequest("AT#MONI=7")))
            begun = asyncio.get_running_loop().time()
            await until(lambda: house.outcomes)
            # The port is free: others are served while this one does not read.
            (*_, final) = await ask(tmp_path / "s", control.AtRequest("AT"))
            assert isinstance(final, control.FinalAnswer)
            assert final.state == "ok"
            local = house.daemon.local
            assert local is not None
            await until(lambda: not local._clients)
            assert asyncio.get_running_loop().time() - begun == pytest.approx(room.SLOW_READER, abs=5)


async def test_a_client_that_goes_in_mid_command(tmp_path: Path) -> None:
    async with door(tmp_path / "s") as house:
        house.module.faults.plant("AT#CGMI", Plant(seconds=30))
        _, writer = await asyncio.open_unix_connection(tmp_path / "s")
        writer.write(control.encode(control.AtRequest("AT#CGMI")))
        await asyncio.sleep(1)
        writer.transport.abort()
        await asyncio.sleep(60)
        assert house.outcomes == [("AT#CGMI", "cancelled", None)]
        assert house.daemon.local is not None
        assert house.daemon.local._clients == {}


async def test_a_socket_that_another_daemon_serves(tmp_path: Path) -> None:
    async with door(tmp_path / "s") as house:
        second = LocalDoor(
            tmp_path / "s",
            mode=0o600,
            group="",
            runner=house.daemon.runner,
            status=house.daemon.status,
            administer=house.daemon.admin.handle,
        )
        with pytest.raises(OSError, match="another daemon serves it already"):
            await second.start()
        await second.close()
        assert await ask(tmp_path / "s", control.StatusRequest())


async def test_a_socket_whose_daemon_is_busy_is_not_taken_over(tmp_path: Path) -> None:
    """A full backlog refuses nobody, but it serves nobody either: whoever is behind it is alive."""
    with socket.socket(socket.AF_UNIX) as busy, contextlib.ExitStack() as stack:
        busy.bind(str(tmp_path / "s"))
        busy.listen(0)
        for _ in range(3):
            waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
            waiting.setblocking(False)
            waiting.connect_ex(str(tmp_path / "s"))
        async with running(config(sms=Sms())) as house:
            second = LocalDoor(
                tmp_path / "s",
                mode=0o600,
                group="",
                runner=house.daemon.runner,
                status=house.daemon.status,
                administer=house.daemon.admin.handle,
            )
            with pytest.raises(OSError, match=r"unavailable|timed out"):
                await second.start()
        assert (tmp_path / "s").exists()


@pytest.mark.parametrize("what", ["file", "folder"])
async def test_what_is_no_socket_is_not_touched(tmp_path: Path, what: str) -> None:
    path = tmp_path / "s"
    if what == "file":
        path.write_text("precious")
    else:
        path.mkdir()
    async with running(config(sms=Sms())) as house:
        second = LocalDoor(
            path,
            mode=0o600,
            group="",
            runner=house.daemon.runner,
            status=house.daemon.status,
            administer=house.daemon.admin.handle,
        )
        with pytest.raises(OSError, match="in use"):
            await second.start()
        await second.close()
    assert path.exists()


async def test_a_group_that_does_not_exist(tmp_path: Path) -> None:
    async with running(config(sms=Sms())) as house:
        second = LocalDoor(
            tmp_path / "s",
            mode=0o600,
            group="no-such-group",
            runner=house.daemon.runner,
            status=house.daemon.status,
            administer=house.daemon.admin.handle,
        )
        with pytest.raises(OSError, match=r"local\.group: there is no group 'no-such-group'"):
            await second.start()
        await second.close()
    assert not (tmp_path / "s").exists()
