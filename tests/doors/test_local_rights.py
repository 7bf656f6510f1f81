# SPDX-License-Identifier: Apache-2.0
"""Who may do what at the control socket, by the kernel's word."""

import asyncio
import contextlib
import grp
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atrund import control
from atrund.config.values import Sms
from atrund.doors import local as room
from atrund.doors.local import LocalDoor, Rights
from atrund.doors.rights import Peer, group_id, how_to_join, peer_of
from tests.doors.test_local import ask
from tests.support.virtual import House, config, running
from tests.support.waiting import ready, until

OPERATORS = grp.getgrgid(1)
WATCHERS = grp.getgrgid(2)
"""Any two groups that every system has."""

NOBODY = Peer(12345, frozenset({12345}))
OPERATOR = Peer(12345, frozenset({12345, OPERATORS.gr_gid}))
WATCHER = Peer(12345, frozenset({12345, WATCHERS.gr_gid}))
BOTH = Rights("watchers", "operators", WATCHERS.gr_gid, OPERATORS.gr_gid)


@pytest.mark.parametrize(
    ("rights", "peer", "status", "commands"),
    [
        (BOTH, NOBODY, False, False),
        (BOTH, WATCHER, True, False),
        (BOTH, OPERATOR, True, True),
        (BOTH, Peer(0, frozenset()), True, True),
        (BOTH, Peer(os.geteuid(), frozenset()), True, True),
        (Rights(), NOBODY, True, True),
        (Rights(command_name="operators", command=OPERATORS.gr_gid), NOBODY, True, False),
        (Rights(status_name="watchers", status=WATCHERS.gr_gid), NOBODY, True, True),
    ],
)
def test_who_may_do_what(rights: Rights, peer: Peer, *, status: bool, commands: bool) -> None:
    """Whoever may run commands may read the status."""
    assert (not rights.against_status(peer), not rights.against_commands(peer)) == (status, commands)


def test_what_to_type_to_get_a_right() -> None:
    told = "running commands is for the group operators:  sudo usermod -aG operators $USER   and then log in anew"
    assert BOTH.against_commands(WATCHER) == told
    assert "sudo usermod -aG watchers $USER" in BOTH.against_status(NOBODY)
    assert how_to_join("atrund").startswith("sudo usermod -aG atrund $USER")


def test_a_group_by_its_name() -> None:
    assert group_id("", "local.group") is None
    assert group_id(OPERATORS.gr_name, "local.group") == OPERATORS.gr_gid
    with pytest.raises(OSError, match=r"^local\.command_group: there is no group 'no-such-group'$"):
        group_id("no-such-group", "local.command_group")


CONNECT = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(chr(0) + sys.argv[1]); s.recv(1)"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
@pytest.mark.parametrize(
    ("extra", "seen"), [([], {65534}), ([1, 2, 4000], {65534, 1, 2, 4000}), (list(range(1, 400)), {65534})]
)
def test_the_peer_is_whom_the_kernel_says(extra: list[int], seen: set[int]) -> None:
    """One in more groups than can be asked for counts as in its first alone."""
    name = f"atrund-test-{os.getpid()}-{len(extra)}"  # an abstract one, for no folder of ours is open to others
    python = Path("/usr/bin/python3") if Path("/usr/bin/python3").exists() else Path(sys.executable)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{name}")
        listener.listen()
        listener.settimeout(15)
        command = [str(python), "-c", CONNECT, name]
        with subprocess.Popen(command, user=65534, group=65534, extra_groups=extra) as client:
            connection, _ = listener.accept()
            with connection:
                assert peer_of(connection) == Peer(65534, frozenset(seen))
                assert str(peer_of(connection)) == "uid 65534"
            assert client.wait(15) == 0


@contextlib.asynccontextmanager
async def door(
    path: Path, house: House, *, status_group: str = "", command_group: str = ""
) -> AsyncIterator[LocalDoor]:
    daemon = house.daemon
    one = LocalDoor(
        path,
        mode=0o660,
        group="",
        runner=daemon.runner,
        status=daemon.status,
        administer=daemon.admin.handle,
        status_group=status_group,
        command_group=command_group,
    )
    await one.start()
    try:
        yield one
    finally:
        await one.close()


@pytest.mark.looptime
async def test_commands_of_one_who_may_only_read_the_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "peer_of", lambda _: WATCHER)
    async with running(config(sms=Sms()), until=None) as house:
        await ready(house)
        groups = {"status_group": WATCHERS.gr_name, "command_group": OPERATORS.gr_name}
        async with door(tmp_path / "s", house, **groups):
            assert isinstance((await ask(tmp_path / "s", control.StatusRequest()))[-1], control.StatusAnswer)
            refused, _ = await ask(tmp_path / "s", control.AtRequest("AT+CSQ"), control.StatusRequest())
            assert isinstance(refused, control.ErrorAnswer)
            assert f"sudo usermod -aG {OPERATORS.gr_name} $USER" in refused.message
            await until(lambda: house.outcomes)
            assert house.outcomes == [("AT+CSQ", "rejected", "auth")]
            assert "AT+CSQ" not in house.wire.seen


@pytest.mark.looptime
async def test_one_user_cannot_take_every_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    peer = NOBODY
    monkeypatch.setattr(room, "peer_of", lambda _: peer)
    async with (
        running(config(sms=Sms()), until=None) as house,
        door(tmp_path / "s", house),
        contextlib.AsyncExitStack() as stack,
    ):
        for _ in range(room.OF_ONE_USER_MAX):
            _, writer = await asyncio.open_unix_connection(tmp_path / "s")
            stack.callback(writer.close)
        reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
        refused = control.decode_answer(await reader.readline())
        assert refused == control.ErrorAnswer("8 clients of uid 12345 are connected already")
        assert await reader.read() == b""
        writer.close()
        peer = Peer(54321, frozenset())
        assert isinstance((await ask(tmp_path / "s", control.StatusRequest()))[-1], control.StatusAnswer)
        peer = Peer(0, frozenset())
        assert isinstance((await ask(tmp_path / "s", control.StatusRequest()))[-1], control.StatusAnswer)


@pytest.mark.looptime
async def test_administering_needs_the_right_to_run_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What changes nothing and tells no secret is for those who may read the status."""
    peer = WATCHER
    monkeypatch.setattr(room, "peer_of", lambda _: peer)
    reading: tuple[control.Reading, ...] = (control.ExplainRequest("local", "AT"), control.SettingsRequest(("sms",)))
    administering: tuple[control.Administering, ...] = (
        control.ExportRequest(),
        control.ImportRequest({}),
        control.ResetRequest(("sms",)),
        control.DoorsRequest("close", ("sms",)),
        control.SmsLogRequest(),  # what other people wrote is in it
    )
    end = control.StatusRequest()
    async with running(config(sms=Sms()), until=None) as house:
        groups = {"status_group": WATCHERS.gr_name, "command_group": OPERATORS.gr_name}
        async with door(tmp_path / "s", house, **groups):
            answers = (await ask(tmp_path / "s", *reading, *administering, end))[:-1]
            kinds = [type(answer) for answer in answers]
            assert kinds == [control.DoneAnswer] * len(reading) + [control.ErrorAnswer] * len(administering)
            for answer in answers[len(reading) :]:
                assert isinstance(answer, control.ErrorAnswer)
                assert f"sudo usermod -aG {OPERATORS.gr_name} $USER" in answer.message
            assert capsys.readouterr().out.count("administration refused") == len(administering)
            assert house.daemon.admin.closed == []
            peer = OPERATOR
            answers = (await ask(tmp_path / "s", *reading, *administering, end))[:-1]
            assert {type(answer) for answer in answers} == {control.DoneAnswer}
            assert house.daemon.admin.closed == ["sms"]


@pytest.mark.looptime
async def test_an_answer_that_fits_no_message_is_said(tmp_path: Path) -> None:
    async with running(config(sms=Sms()), until=None) as house:
        daemon = house.daemon

        async def tell_all(_request: control.Reading | control.Administering, _peer: str) -> control.Answer:
            return control.DoneAnswer({"all": "x" * control.LINE_MAX})

        path = tmp_path / "s"
        one = LocalDoor(path, mode=0o660, group="", runner=daemon.runner, status=daemon.status, administer=tell_all)
        await one.start()
        said, _ = await ask(path, control.SettingsRequest(), control.StatusRequest())
        await one.close()
        assert isinstance(said, control.ErrorAnswer)
        assert "ask for less at once" in said.message


@pytest.mark.looptime
async def test_one_who_may_do_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    peer = NOBODY
    monkeypatch.setattr(room, "peer_of", lambda _: peer)
    async with running(config(sms=Sms()), until=None) as house:
        await ready(house)
        groups = {"status_group": WATCHERS.gr_name, "command_group": OPERATORS.gr_name}
        async with door(tmp_path / "s", house, **groups):
            reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
            writer.write(control.encode(control.StatusRequest()) + control.encode(control.CancelRequest()))
            refused = control.decode_answer(await reader.readline())
            assert isinstance(refused, control.ErrorAnswer)
            assert f"sudo usermod -aG {WATCHERS.gr_name} $USER" in refused.message
            nothing = control.decode_answer(await reader.readline())
            assert nothing == control.ErrorAnswer("no command runs on this connection")
            writer.close()
            assert "status refused" in capsys.readouterr().out
            peer = OPERATOR
            (*_, final) = await ask(tmp_path / "s", control.AtRequest("AT+CSQ"))
            assert isinstance(final, control.FinalAnswer)
            assert final.state == "ok"


@pytest.mark.looptime
@pytest.mark.parametrize("key", ["status_group", "command_group"])
async def test_a_group_of_a_right_that_does_not_exist(tmp_path: Path, key: str) -> None:
    async with running(config(sms=Sms()), until=None) as house:
        with pytest.raises(OSError, match=rf"local\.{key}: there is no group 'no-such-group'"):
            async with door(tmp_path / "s", house, **{key: "no-such-group"}):
                pass
    assert not (tmp_path / "s").exists()
