# SPDX-License-Identifier: Apache-2.0
"""Conversations from transcripts.txt, and that cutting the input up changes nothing."""

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrund.sim.editor import LINE_CAP
from atrund.sim.module import SimModule
from atrund.sim.port import DATA_CAP, HELD_CAP, SEEN_CAP
from atrund.sim.state import Options


def conversations() -> list[tuple[str, list[tuple[str, bytes]]]]:
    out: list[tuple[str, list[tuple[str, bytes]]]] = []
    for line in (Path(__file__).parent / "transcripts.txt").read_text("ascii").splitlines():
        if line.startswith("["):
            out.append((line.strip("[]"), []))
        elif line and not line.startswith("#"):
            typed, _, answer = line.partition(" =>")
            out[-1][1].append((typed, answer.strip().encode().decode("unicode_escape").encode("latin-1")))
    return out


@pytest.mark.parametrize(("model", "turns"), conversations())
def test_a_conversation_comes_out_byte_for_byte(model: str, turns: list[tuple[str, bytes]]) -> None:
    out = bytearray()
    port = SimModule(Options(model=model)).add_port(out.extend)
    for typed, answer in turns:
        port.feed(typed.encode() + b"\r")
        assert bytes(out) == answer, typed
        out.clear()
    assert turns


INPUT = b"".join(typed.encode() + b"\r" for typed, _ in conversations()[0][1]) + (
    b'ATE1\rAT+CMGF=1\rAT+CMGW="+391234"\rhello\x1aA/some\x1bAT#WSCRIPT="a",5\r\x1a\x1b\r\nxAT+CSQ\r\nAT+C\x08CMEE?\r'
)


def run(pieces: list[bytes]) -> bytes:
    out = bytearray()
    port = SimModule().add_port(out.extend)
    for piece in pieces:
        port.feed(piece)
    return bytes(out)


@given(st.lists(st.integers(0, len(INPUT)), max_size=60))
def test_the_output_does_not_depend_on_how_the_input_is_cut(cuts: list[int]) -> None:
    ends = [0, *sorted(cuts), len(INPUT)]
    assert run([INPUT[begin:end] for begin, end in itertools.pairwise(ends)]) == run([INPUT])


def test_byte_by_byte_is_the_same_too() -> None:
    assert run([bytes([byte]) for byte in INPUT]) == run([INPUT])


SPICE = [
    b"AT",
    b"\r",
    b"\n",
    b"\x1a",
    b"\x1b",
    b"+CMGS=",
    b"20",
    b'"+39"',
    b"=?",
    b"?",
    b";",
    b"#WSCRIPT=",
    b"\xd0",
    b"A/",
]


@given(st.lists(st.binary(max_size=30) | st.sampled_from(SPICE), max_size=60))
async def test_random_bytes_never_raise_and_never_grow_past_the_caps(pieces: list[bytes]) -> None:
    module = SimModule()
    out = bytearray()
    port = module.add_port(out.extend)
    for piece in pieces:
        port.feed(piece)
        module.urc("RING")
    assert len(port._editor._line) <= LINE_CAP
    assert len(port._data) <= DATA_CAP
    assert len(port._held) <= HELD_CAP
    assert not port._out
    module.close()


def test_a_flood_is_kept_within_the_caps() -> None:
    out = bytearray()
    port = SimModule().add_port(out.extend)
    port.feed(b"ATE0\r")
    port.feed(b"AT" + b"x" * 100_000)
    assert len(port._editor._line) == LINE_CAP
    port.feed(b'\rAT+CMGF=1\rAT+CMGS="+391"\r' + b"y" * 100_000)
    assert len(port._data) == DATA_CAP
    for _ in range(1000):
        port.urc("RING")
    assert len(port._held) == HELD_CAP
    port.feed(b"\x1b" + b"AT\r" * 2000)
    assert len(port.seen) == SEEN_CAP
    assert b"ERROR" in out


def test_no_table_entry_fails_on_any_form() -> None:
    from atrund.sim.commands import HANDLERS

    module = SimModule(Options(cops_test_delay=0, survey_delay=0, send_delay=0, boot_delay=0))
    out = bytearray()
    port = module.add_port(out.extend)
    port.feed(b"ATE0\r")
    forms = ("", "?", "=?", "=", "=0", "=1", "=1,1", '="x"', '="x",1,2,3,4,5,6,7', "=" + "9" * 50, "=,,,")
    for name in HANDLERS.keys() - {"", "#REBOOT", "#SHDN", "Q", "V", "E", "+CFUN"}:
        for form in forms:
            if name[0] not in "+#":
                continue
            out.clear()
            port.feed(f"AT{name}{form}\r\x1b".encode() + b"0" * 10)
            port.feed(b"\r")
            assert out.endswith((b"\r\nOK\r\n", b"ERROR\r\n", b"NO CARRIER\r\n")) or b"ERROR: " in out, (
                name,
                form,
                out,
            )


def test_every_extended_command_has_a_test_form() -> None:
    from atrund.sim.commands import HANDLERS

    module = SimModule(Options(cops_test_delay=0))
    out = bytearray()
    port = module.add_port(out.extend)
    port.feed(b"ATE0\r")
    for name in (name for name in HANDLERS if name.startswith(("+", "#"))):
        out.clear()
        port.feed(f"AT{name}=?\r".encode())
        assert out.endswith(b"\r\nOK\r\n"), name


def test_another_seed_is_another_module_of_the_same_kind() -> None:
    one, two = SimModule(Options(seed=1)).identity, SimModule(Options(seed=2)).identity
    assert one.imei != two.imei
    assert one.name == two.name
    assert SimModule(Options(seed=1)).identity == one
    digits = [int(digit) for digit in reversed(one.imei)]
    assert sum(digit if place % 2 == 0 else sum(divmod(2 * digit, 10)) for place, digit in enumerate(digits)) % 10 == 0
