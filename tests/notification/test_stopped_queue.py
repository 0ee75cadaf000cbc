"""The queue of deliveries is stopped, and what still holds a slot of it ends after its event loop."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from reconciler.clock import current_clock
from reconciler.meta import Request
from reconciler.notification.channels.limits import CircuitBreaker, Limiter
from reconciler.notification.fair_queue import FairQueue
from reconciler.notification.policies import PolicyTable

FIRST, SECOND = Request("first", "a"), Request("second", "b")


def test_a_slot_can_be_released_after_the_loop() -> None:
    breaker = CircuitBreaker(
        "pager", clock=lambda: current_clock().monotonic(), failures=3, open_seconds=10, on_change=lambda *_: None
    )
    limiter = Limiter("pager", breaker, max_concurrent=1)
    channels = cast("Any", SimpleNamespace(get=lambda _: SimpleNamespace(name="pager", limiter=limiter)))
    woken: list[Request] = []
    stopped = False

    async def queued() -> FairQueue:
        queue = FairQueue(
            channels,
            workers=10,
            max_deliveries=10,
            wake=woken.append,
            is_stopped=lambda: stopped,
            policies=PolicyTable(),
        )
        for request in (FIRST, SECOND):
            queue.acquire(request, f"uid of {request.name}", "Medium", ["pager"])
        return queue

    queue = asyncio.run(queued())
    stopped = True
    queue.release_all(FIRST, keep_queued=False)
    with limiter.enter("another"):
        pass
    assert woken == []
