# SPDX-License-Identifier: Apache-2.0
import socket

import pytest

from atrund.doors.liveness import PROBES, UNHEARD_MAX, set_up

TCP = socket.IPPROTO_TCP


def test_nothing_small_waits_and_nothing_goes_unacknowledged_for_long() -> None:
    with socket.socket() as link:
        set_up(link, 0.0)
        assert link.getsockopt(TCP, socket.TCP_NODELAY) == 1
        assert link.getsockopt(TCP, socket.TCP_USER_TIMEOUT) == UNHEARD_MAX * 1000
        assert link.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0


@pytest.mark.parametrize("minutes", [1, 4, 240])
def test_a_silent_peer_is_asked_often_enough_before_it_counts_as_gone(minutes: int) -> None:
    with socket.socket() as link:
        set_up(link, minutes * 60.0)
        assert link.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert link.getsockopt(TCP, socket.TCP_KEEPIDLE) == minutes * 60
        every = link.getsockopt(TCP, socket.TCP_KEEPINTVL)
        last = minutes * 60 + (PROBES - 1) * every
        assert last * 1000 < link.getsockopt(TCP, socket.TCP_USER_TIMEOUT)


def test_it_can_be_switched_off_again() -> None:
    with socket.socket() as link:
        set_up(link, 60.0)
        set_up(link, 0.0)
        assert link.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
        assert link.getsockopt(TCP, socket.TCP_USER_TIMEOUT) == UNHEARD_MAX * 1000
