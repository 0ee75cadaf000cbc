"""The queue of deliveries: an offer that nobody takes, and the end of the queue before its slots."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from reconciler.meta import Request
from reconciler.notification.channel import ChannelRegistry
from reconciler.notification.channels.limits import LimitedChannel
from reconciler.notification.fair_queue import FairQueue
from reconciler.notification.policies import PolicyTable
from reconciler.notification.routing_config import ReceiverConfig
from tests.notification.world import Recorder, virtual

FIRST, SECOND, THIRD = (Request(name, "a") for name in ("first", "second", "third"))


def queue_of(channel: LimitedChannel, woken: list[Request]) -> FairQueue:
    binding: Any = SimpleNamespace(
        workers=10, loop=asyncio.get_running_loop(), enqueue=lambda key, _reason, priority: woken.append(key)
    )
    return FairQueue(ChannelRegistry([channel]), binding, max_deliveries=10, policies=PolicyTable())


def test_a_slot_can_be_released_after_the_loop() -> None:
    channel = LimitedChannel(Recorder("pager"), ReceiverConfig(max_concurrent=1))
    woken: list[Request] = []

    async def queued() -> FairQueue:
        queue = queue_of(channel, woken)
        for request in (FIRST, SECOND):
            queue.acquire(request, "Medium", ["pager"])
        return queue

    queue = asyncio.run(queued())
    queue.binding.loop = None
    queue.release_all(FIRST, keep_queued=False)
    assert channel.limiter.wait("a") == 0
    assert woken == []


@virtual
async def test_a_slot_offered_to_a_key_that_is_not_reconciled_goes_to_the_next() -> None:
    woken: list[Request] = []
    queue = queue_of(LimitedChannel(Recorder("pager"), ReceiverConfig(max_concurrent=1)), woken)
    assert queue.acquire(FIRST, "Medium", ["pager"]) == {"pager"}
    for request in (SECOND, THIRD):
        assert queue.acquire(request, "Medium", ["pager"]) == set()
        queue.release_all(request, keep_queued=True)
    queue.release_all(FIRST, keep_queued=False)
    await asyncio.sleep(59)
    assert woken == [SECOND]
    await asyncio.sleep(2)
    assert woken == [SECOND, THIRD]
