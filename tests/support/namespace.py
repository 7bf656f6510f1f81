# SPDX-License-Identifier: Apache-2.0
"""A network namespace of a test's own, where it may be had: interfaces come, go and lose their link there."""

import ctypes
import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from typing import Final, TypeVar

import pytest

T = TypeVar("T")

_CLONE_NEWNET: Final = 0x40000000


def apart(work: Callable[[], T]) -> T:
    """Do `work` in a thread that has a network of its own, loopback up; skips the test where that is not permitted."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("a network namespace needs root and ip(8)")
    done: list[T] = []
    failed: list[BaseException] = []

    def enter() -> None:
        try:
            if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET) != 0:
                pytest.skip(f"no network namespace: {os.strerror(ctypes.get_errno())}")
            ip("link set lo up")
            done.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again where the test is
            failed.append(error)

    thread = threading.Thread(target=enter, name="network namespace")
    thread.start()
    thread.join(60)
    assert not thread.is_alive(), "it hangs"
    if failed:
        raise failed[0]
    return done[0]


def ip(arguments: str) -> None:
    """Run ip(8) where the calling thread is."""
    done = subprocess.run(["ip", *arguments.split()], capture_output=True, text=True, timeout=10, check=False)
    assert done.returncode == 0, f"ip {arguments}: {done.stderr}"


def veth(name: str = "wan0", other: str = "far0") -> None:
    """Make a pair of interfaces; the first has a link while the second is up."""
    try:
        ip(f"link add {name} type veth peer name {other}")
    except AssertionError as error:
        pytest.skip(str(error))
