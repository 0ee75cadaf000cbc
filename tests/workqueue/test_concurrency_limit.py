"""The limit on concurrency follows latencies, and how a queue applies it."""

from __future__ import annotations

import asyncio

import pytest

from reconciler.workqueue import WorkQueue
from reconciler.workqueue.concurrency_limit import PROBE, PROBE_EVERY, WINDOW, ConcurrencyLimit

pytestmark = pytest.mark.virtual_time

MAXIMUM = 16
CAPACITY = 4


class Server:
    """Answers requests in turn: with more of them in progress than its capacity, each takes longer."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.limit = ConcurrencyLimit(MAXIMUM)
        self.capacity = capacity
        self.seconds = 0.004

    async def serve(self, requests: int, *, others: int = 0, wait: float = 0.0) -> None:
        for _ in range(requests):
            limit = self.limit
            while not limit.full:
                limit.begin()
            while limit.in_use > limit.limit:
                limit.end()
            took = self.seconds * max(1.0, (limit.in_use + others) / self.capacity)
            await asyncio.sleep(took / limit.in_use + wait)
            limit.observe("patch", took)


async def test_the_limit_settles_a_little_above_what_the_server_processes_at_once() -> None:
    server = Server()
    assert server.limit.limit == MAXIMUM
    await server.serve(20 * WINDOW)
    assert CAPACITY < server.limit.limit <= CAPACITY + 3


async def test_nothing_is_limited_while_nothing_becomes_slower() -> None:
    server = Server(capacity=MAXIMUM)
    await server.serve(100)
    lowest = MAXIMUM
    for _ in range(100):
        await server.serve(PROBE)
        lowest = min(lowest, server.limit.limit)
    assert lowest == MAXIMUM


async def test_a_server_that_became_slower_for_all_reasons_is_measured_again() -> None:
    server = Server()
    await server.serve(20 * WINDOW)
    server.seconds, server.capacity = 0.04, 8
    await asyncio.sleep(PROBE_EVERY)
    await server.serve(20 * WINDOW)
    assert server.limit.limit >= 8


async def test_the_limit_never_falls_below_one() -> None:
    server = Server(capacity=1)
    for _ in range(10):
        await server.serve(PROBE, others=50)
        assert server.limit.limit >= 1


async def test_keys_that_wait_for_something_else_are_not_limited() -> None:
    server = Server(capacity=1)
    await server.serve(10 * WINDOW, wait=1.0)
    assert server.limit.limit == MAXIMUM


async def test_a_rejection_halves_the_limit_once_and_pauses_for_as_long_as_the_server_asks() -> None:
    limit = ConcurrencyLimit(MAXIMUM)
    for _ in range(5):
        limit.reject(1.0)
    assert limit.limit == 1
    await asyncio.sleep(1.1)
    assert limit.limit == MAXIMUM / 2
    limit.reject(1e9)
    await asyncio.sleep(61)
    assert limit.limit == MAXIMUM / 4


async def test_a_queue_hands_out_urgent_keys_beyond_the_limit_and_low_ones_below_it() -> None:
    limit = ConcurrencyLimit(2)
    queue: WorkQueue[str] = WorkQueue(low_limit=limit)
    for key in ("a", "b", "c", "d"):
        queue.add(key, priority=-1)
    assert [await queue.get(), await queue.get()] == ["a", "b"]
    third = asyncio.create_task(queue.get())
    await asyncio.sleep(1)
    assert not third.done()
    queue.add("fresh")
    assert await third == "fresh"
    fourth, fifth = (asyncio.create_task(queue.get()) for _ in range(2))
    await asyncio.sleep(1)
    queue.done("fresh")
    assert not fourth.done()
    queue.done("a")
    assert await fourth == "c"
    queue.done("b")
    assert await fifth == "d"


async def test_a_key_that_waits_for_the_limit_is_handed_out_when_its_priority_is_raised() -> None:
    queue: WorkQueue[str] = WorkQueue(low_limit=ConcurrencyLimit(1))
    queue.add("hangs", priority=-1)
    queue.add("changed", priority=-1)
    assert await queue.get() == "hangs"
    worker = asyncio.create_task(queue.get())
    await asyncio.sleep(1)
    assert not worker.done()
    queue.add("changed")
    async with asyncio.timeout(1):
        assert await worker == "changed"


@pytest.mark.parametrize("fair", [False, True])
async def test_no_key_is_lost_whatever_the_limit_does(fair: bool) -> None:
    limit = ConcurrencyLimit(8)
    queue: WorkQueue[int] = WorkQueue(low_limit=limit, fair_by=(lambda key: key % 7) if fair else None)
    seen: list[int] = []

    async def work() -> None:
        while len(seen) < 1000:
            async with queue.item() as key:
                assert limit.in_use <= 8
                await asyncio.sleep(0.001 * (key % 5))
                limit.observe("get", 0.01 * (key % 3))
                if key % 97 == 0:
                    limit.reject(0.05)
                seen.append(key)

    for key in range(1000):
        queue.add(key, priority=-(key % 3))
    workers = [asyncio.create_task(work()) for _ in range(8)]
    await asyncio.wait(workers, return_when=asyncio.FIRST_COMPLETED)
    await queue.shutdown(drain=True)
    for worker in workers:
        worker.cancel()
    assert sorted(seen) == list(range(1000))
    assert limit.in_use == 0


@pytest.mark.parametrize("retry_after", [None, 30.0])
async def test_a_key_that_hangs_does_not_keep_others_of_low_priority_waiting(retry_after: float | None) -> None:
    limit = ConcurrencyLimit(4)
    queue: WorkQueue[str] = WorkQueue(low_limit=limit)
    queue.add("hangs", priority=-1)
    assert await queue.get() == "hangs"
    for _ in range(3):  # down to 1
        limit.reject(retry_after)
        await asyncio.sleep(61)
    limit.reject(retry_after)
    queue.add("next", priority=-1)
    async with asyncio.timeout(70):
        assert await queue.get() == "next"


async def test_a_measurement_without_requests_ends_by_itself() -> None:
    limit = ConcurrencyLimit(4)
    queue: WorkQueue[str] = WorkQueue(low_limit=limit)
    queue.add("hangs", priority=-1)
    assert await queue.get() == "hangs"
    await asyncio.sleep(0.01)
    for _ in range(WINDOW):
        limit.observe("get", 1.0)  # more than one in progress, so a measurement begins
    assert limit.limit == 1
    queue.add("next", priority=-1)
    async with asyncio.timeout(2):
        assert await queue.get() == "next"


async def test_rejections_of_requests_that_were_sent_together_count_once_without_retry_after() -> None:
    limit = ConcurrencyLimit(MAXIMUM)
    for _ in range(MAXIMUM):
        limit.reject()
        await asyncio.sleep(0.01)
    await asyncio.sleep(1)
    assert limit.limit == MAXIMUM / 2
