# SPDX-License-Identifier: Apache-2.0
from atrund.module.urc import QUEUE_MAX, Fanout


async def test_every_listener_gets_every_code_once_and_in_order() -> None:
    fanout = Fanout()
    with fanout.listening() as first, fanout.listening() as second:
        fanout.publish(("RING",))
        fanout.publish(("+CMT: ,5", "0011"))
        for listener in (first, second):
            assert await listener.get() == ("RING",)
            assert await listener.get() == ("+CMT: ,5", "0011")


async def test_one_who_falls_behind_loses_the_oldest_and_knows_how_many() -> None:
    fanout = Fanout()
    with fanout.listening() as slow:
        for number in range(QUEUE_MAX + 3):
            fanout.publish((str(number),))
        assert slow.dropped == 3
        assert await slow.get() == ("3",)


async def test_one_who_left_is_forgotten() -> None:
    fanout = Fanout()
    with fanout.listening() as gone:
        pass
    fanout.publish(("RING",))
    assert gone._queue.empty()
    assert fanout._listeners == set()
