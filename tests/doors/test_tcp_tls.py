# SPDX-License-Identifier: Apache-2.0
"""The TCP door by TLS, in virtual time: handshakes and their bounds, certificates that change (TCP-13)."""

import asyncio
import contextlib
import gc
import os
import shutil
import socket
import ssl
import warnings
import weakref
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from atrund.atrun.rules import read_rule
from atrund.config.tls import Certificate
from atrund.config.values import DoorRules, FirewallRule, Policy, TcpTls
from atrund.doors import certificates as certificates_room
from atrund.doors import greeting as room
from atrund.doors import tcp as tcp_room
from atrund.doors.tcp import TcpDoor
from atrund.sim.faults import Plant
from atrund.tls import FileError, Files, client_context
from tests.support.calling import LOGIN, Caller, door
from tests.support.certificates import Authority, Pair
from tests.support.virtual import House
from tests.support.waiting import until

pytestmark = pytest.mark.looptime

OK = b"AT\r\r\nOK\r\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    return authority.issue("localhost", "IP:127.0.0.1")


@pytest.fixture(scope="module")
def anna(authority: Authority) -> Pair:
    return authority.issue("anna", "email:anna@example.org")


def tls_of(pair: Pair, ca: Path | None = None) -> TcpTls:
    return TcpTls(True, Certificate(pair.certificate, datetime(2100, 1, 1, tzinfo=UTC)), pair.key, ca)


@contextlib.asynccontextmanager
async def secure(pair: Pair, ca: Path | None = None, **options: Any) -> AsyncIterator[tuple[House, TcpDoor]]:  # noqa: ANN401 - any option
    """A door by TLS. Files are read at once: virtual time goes on while a thread works."""

    def at_once(_: object, work: Callable[..., object], *given: object) -> "asyncio.Future[object]":
        done: asyncio.Future[object] = loop.create_future()
        try:
            done.set_result(work(*given))
        except FileError as error:
            done.set_exception(error)
        return done

    loop = asyncio.get_running_loop()
    loop.run_in_executor = at_once  # type: ignore[method-assign,assignment]  # this loop's alone
    async with door(tls=tls_of(pair, ca), **options) as house:
        assert house.daemon.tcp is not None
        yield house, house.daemon.tcp


@contextlib.asynccontextmanager
async def calling(
    door_: TcpDoor, ca: Path, own: Pair | None = None, *, login: bool = True, oldest: bool = False
) -> AsyncIterator[Caller]:
    context = client_context(Files(*own, ca) if own else Files(ca=ca))
    if oldest:
        context.set_ciphers("DEFAULT@SECLEVEL=0")
        with warnings.catch_warnings():  # rightly
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    link = await asyncio.open_connection("127.0.0.1", door_.ports[0], ssl=context)
    try:
        if login:
            link[1].write(LOGIN)
        yield Caller(*link)
    finally:
        link[1].transport.abort()


def silent(door_: TcpDoor) -> socket.socket:
    link = socket.socket()
    link.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        link.connect(("127.0.0.1", door_.ports[0]))
    return link


async def test_the_login_and_the_interface_are_as_in_clear_text(pair: Pair, authority: Authority) -> None:
    async with secure(pair, step_login=True) as (house, door_), calling(door_, authority.file, login=False) as caller:
        assert await caller.reader.readuntil(b": ") == b"Username: "
        caller.writer.write(b"operator\r")
        assert await caller.reader.readuntil(b": ") == b"\r\nPassword: "
        caller.writer.write(b"geheim\r")
        assert await caller.reader.readuntil(b".\r\n") == b"\r\nLogin successful.\r\n"
        assert await caller.ask(b"AT\r") == OK
        assert house.told == [("connected", None), ("login operator", None)]


async def test_tcp_3_a_certificate_is_no_login(pair: Pair, authority: Authority, anna: Pair) -> None:
    async with secure(pair, authority.file) as (house, door_):
        async with calling(door_, authority.file, anna, login=False) as caller:
            caller.writer.write(b"operator\rwrong\rAT\r")
            assert await caller.rest() == b""
        assert house.told[-1] == ("disconnected", "auth")
        assert house.wire.seen.count("AT") == 0


async def test_pieces_that_come_together_all_count(pair: Pair, authority: Authority) -> None:
    """A buffer that is filled record by record: what asyncio puts behind the first would be lost in a copy of it."""
    async with secure(pair, sequence=True) as (_, door_), calling(door_, authority.file) as caller:
        await caller.ask(b"AT\r")
        for piece in (b"A", b"T+", b"CS", b"Q\r", b"AT+GMI\r") * 20:
            caller.writer.write(piece)
        seen = b""
        for _ in range(40):
            seen += await caller.reader.readuntil(b"OK\r\n")
        assert (seen.count(b"+CSQ: "), seen.count(b"Telit")) == (20, 20)


async def test_a_large_paste(pair: Pair, authority: Authority) -> None:
    async with secure(pair, sequence=True) as (_, door_), calling(door_, authority.file) as caller:
        caller.writer.write(b"AT\r" * 1000)
        finals = 0
        while finals < 1000:
            piece = await caller.reader.read(65536)
            assert piece
            finals += piece.count(b"OK\r")


async def test_a_certificate_names_its_owner_to_the_policy(pair: Pair, authority: Authority, anna: Pair) -> None:
    rules = (read_rule({"allow": ["+CSQ"], "peer": "cert:anna"}), read_rule({"deny": ["+CSQ"]}))
    async with secure(pair, authority.file) as (house, door_):
        house.daemon.follow(replace(house.daemon.config, policy=Policy(tcp=DoorRules(rules=rules))))
        async with calling(door_, authority.file, anna) as caller:
            assert b"+CSQ: " in await caller.ask(b"AT+CSQ\r")
        assert house.told[:3] == [
            ("connected", None),
            ("certificate of cert:anna, cert:anna@example.org", None),
            ("login operator", None),
        ]
        await until(lambda: not door_.sessions)
        async with calling(door_, authority.file, authority.issue("bert")) as caller:
            assert await caller.ask(b"AT+CSQ\r", b"ERROR\r\n") == b"AT+CSQ\r\r\nERROR\r\n"


async def test_handshakes_that_fail_are_written_down_with_why(
    pair: Pair, authority: Authority, anna: Pair, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path, "elsewhere").issue("stranger")
    async with secure(pair, authority.file) as (house, door_):
        for count, own in enumerate((None, stranger, authority.issue("old", days=-1)), 1):
            with contextlib.suppress(OSError):
                async with calling(door_, authority.file, own) as caller:
                    assert await caller.rest() == b""
            await until(partial(_at_least, house, count))
        with pytest.raises(OSError):  # noqa: PT011 - whichever
            async with calling(door_, authority.file, anna, oldest=True):
                raise AssertionError("shook hands by TLS 1.1")
        with contextlib.closing(silent(door_)) as link:
            await asyncio.get_running_loop().sock_sendall(link, LOGIN)
            await until(partial(_at_least, house, 5))
        assert [(what, (why or "").partition(";")[0]) for what, why in house.told] == [
            ("handshake failed", "it showed no certificate, and one is asked for"),
            ("handshake failed", "its certificate is of no authority that is trusted here"),
            ("handshake failed", "its certificate has expired"),
            ("handshake failed", "it speaks no TLS version of ours"),
            ("handshake failed", "it does not speak TLS"),
        ]
        assert house.wire.seen.count("AT") == 0


async def test_who_says_nothing_is_not_waited_for(pair: Pair, authority: Authority) -> None:
    async with secure(pair) as (house, door_):
        with contextlib.closing(silent(door_)) as link:
            begun = asyncio.get_running_loop().time()
            with contextlib.suppress(ConnectionResetError):
                assert await asyncio.get_running_loop().sock_recv(link, 100) == b""
            assert asyncio.get_running_loop().time() - begun == pytest.approx(room.HANDSHAKE, abs=0.5)
            assert house.told == [("handshake failed", "it did not finish the handshake in time")]
        async with calling(door_, authority.file) as caller:
            assert await caller.ask(b"AT\r") == OK


async def test_the_handshake_counts_into_the_login(pair: Pair, authority: Authority) -> None:
    """TCP-3: the time for a login begins with the connection."""
    async with secure(pair, login_timeout=12.0) as (house, door_):
        loop = asyncio.get_running_loop()
        begun = loop.time()
        with contextlib.closing(silent(door_)) as link:
            await asyncio.sleep(9)
            context = client_context(Files(ca=authority.file))
            reader, writer = await asyncio.open_connection(sock=link, ssl=context, server_hostname="127.0.0.1")
            assert await reader.read() == b""
            assert loop.time() - begun == pytest.approx(12, abs=0.5)
            assert house.told[-1] == ("disconnected", "auth")
            writer.transport.abort()


async def test_a_hundred_who_say_nothing(pair: Pair, authority: Authority) -> None:
    """From one address four are let in, from many sixteen; whoever is in is not held up, and nothing is left behind."""
    firewall = (FirewallRule(ip_address("127.0.0.0"), ip_address("255.0.0.0")),)
    async with secure(pair, firewall=firewall, sessions=2) as (house, door_), calling(door_, authority.file) as caller:
        assert await caller.ask(b"AT\r") == OK
        with contextlib.ExitStack() as stack:
            for _ in range(100):
                stack.enter_context(contextlib.closing(silent(door_)))
            await asyncio.sleep(1)
            assert await caller.ask(b"AT\r") == OK
            greeter = door_._greeter
            assert greeter is not None
            assert len(greeter.peers) == tcp_room.NEWCOMERS_OF_ONE
            for number in range(2, 102):
                link = stack.enter_context(contextlib.closing(socket.socket()))
                link.setblocking(False)
                link.bind((f"127.0.0.{number}", 0))
                with contextlib.suppress(BlockingIOError):
                    link.connect(("127.0.0.1", door_.ports[0]))
            await asyncio.sleep(1)
            assert len(greeter.peers) == tcp_room.NEWCOMERS_TLS_MAX
            assert await caller.ask(b"AT\r") == OK
            await asyncio.sleep(room.HANDSHAKE)
            assert greeter.peers == []
        assert [why for what, why in house.told if what == "refused"][:10] == ["busy"] * 10
        assert len(house.told) < 250


async def test_who_is_refused_never_shakes_hands(pair: Pair, authority: Authority) -> None:
    async with secure(pair) as (house, door_):

        def fail(*_: object) -> None:
            raise OSError(1, "Operation not permitted")

        door_._keep_out = fail  # as where the kernel keeps nobody out
        nobody = replace(house.daemon.config.tcp, firewall=())
        house.daemon.follow(replace(house.daemon.config, tcp=nobody))
        door_.follow()
        with pytest.raises(ConnectionResetError):
            async with calling(door_, authority.file):
                raise AssertionError("shook hands")
        assert house.told == [("refused", "firewall")]


async def test_a_firewall_that_changes_ends_handshakes(pair: Pair) -> None:
    async with secure(pair) as (house, door_), contextlib.AsyncExitStack() as stack:
        link = stack.enter_context(contextlib.closing(silent(door_)))
        await asyncio.sleep(1)
        assert door_._greeter is not None
        assert door_._greeter.peers == ["127.0.0.1"]
        house.daemon.follow(replace(house.daemon.config, tcp=replace(house.daemon.config.tcp, firewall=())))
        door_.follow()
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.get_running_loop().sock_recv(link, 100) == b""
        assert door_._greeter.peers == []


async def test_closing_ends_handshakes(pair: Pair) -> None:
    async with secure(pair) as (_, door_):
        with contextlib.closing(silent(door_)) as early, contextlib.closing(silent(door_)) as late:
            await asyncio.sleep(1)
            await door_.close()
            for link in (early, late):
                with contextlib.suppress(ConnectionResetError):
                    assert await asyncio.get_running_loop().sock_recv(link, 100) == b""


async def test_a_peer_that_says_goodbye_is_gone(
    pair: Pair, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    """TLS as asyncio has it knows no half of a connection: the command is finished, its answer is nobody's."""
    async with secure(pair) as (house, door_), calling(door_, authority.file) as caller:
        await caller.ask(b"AT\r")
        house.module.faults.plant("AT+GMI", Plant(seconds=5.0))
        caller.writer.write(b"AT+GMI\r")
        await until(lambda: house.wire.seen.count("AT+GMI"))
        caller.writer.close()
        await until(lambda: not door_.sessions)
        await asyncio.sleep(10)
        assert house.told[-1] == ("disconnected", None)
        assert caplog.text == ""


async def test_a_client_that_does_not_read_is_cut_off(pair: Pair, authority: Authority) -> None:
    async with secure(pair, sequence=True) as (house, door_), calling(door_, authority.file) as caller:
        house.module.faults.plant("AT#MONI=7", Plant(left=None, lines=("x" * 4000,) * 10, final="OK"))
        await caller.ask(b"AT\r")
        caller.writer.transport.pause_reading()  # type: ignore[attr-defined]  # of streams it is one that can
        caller.writer.write(b"AT#MONI=7\r" * 200)
        await until(lambda: not door_.sessions, 120)


async def test_a_connection_that_ends_leaves_no_buffers_behind(pair: Pair, authority: Authority) -> None:
    """asyncio's are 256 kB, in a ring that only the garbage collector would find: it seldom looks."""
    async with secure(pair) as (_, door_):
        gc.disable()
        try:
            for end in (lambda caller: caller.writer.close(), lambda _caller: door_.hang_up()):
                async with calling(door_, authority.file) as caller:
                    await caller.ask(b"AT\r")
                    buffers = weakref.ref(door_.sessions[0].transport._ssl_protocol)  # type: ignore[attr-defined]
                    end(caller)
                    await until(lambda: not door_.sessions)
                    await asyncio.sleep(5)
                assert buffers() is None
        finally:
            gc.enable()


async def test_renewed_certificates_count_for_who_comes_next(authority: Authority, tmp_path: Path) -> None:
    pair = Authority(tmp_path, "first").issue("localhost", "IP:127.0.0.1")
    first = tmp_path / "first.pem"
    async with secure(pair, sessions=4) as (_, door_), calling(door_, first) as stays:
        assert await stays.ask(b"AT\r") == OK
        other = authority.issue("renewed", "IP:127.0.0.1")
        for old, new in zip(pair, other, strict=True):
            shutil.copy(new, tmp_path / "new")
            os.replace(tmp_path / "new", old)  # noqa: PTH105 - as those do who renew them
        async with calling(door_, authority.file) as caller:
            assert await caller.ask(b"AT\r") == OK
            assert await stays.ask(b"AT\r") == OK
        with pytest.raises(ssl.SSLCertVerificationError):
            async with calling(door_, first):
                raise AssertionError("the old one is still shown")


async def test_broken_certificates_leave_the_old_ones_in_force(
    authority: Authority, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = Authority(tmp_path, "first").issue("localhost", "IP:127.0.0.1")
    async with secure(pair) as (_, door_):
        for break_ in (
            lambda: shutil.copy(authority.issue("stray").certificate, pair.certificate),
            lambda: pair.certificate.write_text("no certificate"),
            pair.certificate.unlink,
        ):
            break_()
            for _ in range(3):
                async with calling(door_, tmp_path / "first.pem") as caller:
                    assert await caller.ask(b"AT\r") == OK
                await until(lambda: not door_.sessions)
            said = capsys.readouterr().out
            assert said.count("certificates not read anew, those of before stay") == 1, said


async def test_a_disk_that_hangs_holds_nobody_up(
    pair: Pair, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with secure(pair) as (_, door_):
        loop = asyncio.get_running_loop()
        never: asyncio.Future[object] = loop.create_future()
        monkeypatch.setattr(certificates_room, "_look_at", hangs := object())
        at_once = loop.run_in_executor

        def run(pool: None, work: Callable[..., object], *given: object) -> "asyncio.Future[object]":
            return never if work is hangs else at_once(pool, work, *given)

        loop.run_in_executor = run  # type: ignore[method-assign,assignment]  # this loop's alone
        begun = loop.time()
        async with calling(door_, authority.file) as caller:
            assert await caller.ask(b"AT\r") == OK
        assert loop.time() - begun == pytest.approx(certificates_room.LOOK, abs=0.5)
        never.cancel()


async def test_no_room_for_one_more_connection(
    pair: Pair, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the system has no room for now waits in its queue, and the event loop does not spin."""
    accept, tries = socket.socket.accept, []

    def none(link: socket.socket) -> tuple[socket.socket, object]:
        tries.append(link)
        if len(tries) < 4:
            raise OSError(24, "Too many open files")
        return accept(link)

    async with secure(pair) as (_, door_):
        monkeypatch.setattr(socket.socket, "accept", none)
        begun = asyncio.get_running_loop().time()
        async with calling(door_, authority.file) as caller:
            assert await caller.ask(b"AT\r") == OK
        assert asyncio.get_running_loop().time() - begun == pytest.approx(3 * room.AGAIN, abs=0.5)


async def test_a_door_whose_certificates_are_of_no_use_stays_shut(pair: Pair, authority: Authority) -> None:
    with pytest.raises(OSError, match=r"tcp\.tls: key: .* does not fit the certificate"):
        async with secure(Pair(pair.certificate, authority.issue("other").key)):
            raise AssertionError("it opened")


def _at_least(house: House, count: int) -> bool:
    return len(house.told) >= count
