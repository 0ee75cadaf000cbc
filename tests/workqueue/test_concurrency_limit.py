"""The limit on concurrency follows latencies, and how a queue applies it."""

from __future__ import annotations

import asyncio
import cProfile
import random
import statistics
from typing import Self

import pytest

from reconciler.clock import current_clock
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


async def test_a_measurement_applies_to_the_requests_that_caused_it() -> None:
    server = Server()
    await server.serve(WINDOW)
    assert server.limit.limit == 1
    while server.limit.limit == 1:
        await server.serve(1)
    assert server.limit.limit < MAXIMUM / 2


async def test_nothing_is_limited_while_nothing_becomes_slower() -> None:
    server = Server(capacity=MAXIMUM)
    await server.serve(2 * WINDOW)  # the first measurement
    lowest = MAXIMUM
    for _ in range(100):
        await server.serve(PROBE)
        lowest = min(lowest, server.limit.limit)
    assert lowest == MAXIMUM


class Backlog:
    """Ten workers that process keys, of two requests each, at a server with so many slots and random latencies."""

    def __init__(self, slots: int, seconds: float, limit: ConcurrencyLimit | None) -> None:
        self.slots = asyncio.Semaphore(slots)
        self.seconds = seconds
        self.limit = limit
        self.random = random.Random(slots)
        self.done = 0
        self.fresh: list[float] = []
        self.queue: WorkQueue[int] = WorkQueue(low_limit=limit)

    async def request(self, *, low: bool) -> None:
        began = current_clock().monotonic()
        limit = self.limit if low else None
        if limit:
            limit.unanswered += 1
        async with self.slots:
            await asyncio.sleep(self.random.expovariate(1 / self.seconds))
        if limit:
            limit.unanswered -= 1
            limit.observe("patch", current_clock().monotonic() - began)

    async def work(self) -> None:
        while True:
            async with self.queue.item() as key:
                began = current_clock().monotonic()
                for _ in range(2):
                    await self.request(low=key >= 0)
                if key < 0:
                    self.fresh.append(current_clock().monotonic() - began)
                else:
                    self.done += 1

    async def run(self, lasts: float) -> Self:
        """Process keys for some seconds, with a fresh change every second."""
        for key in range(round(6 * lasts / self.seconds)):
            self.queue.add(key, priority=-1)
        workers = [asyncio.create_task(self.work()) for _ in range(10)]
        for key in range(round(lasts)):
            await asyncio.sleep(1)
            self.queue.add(-1 - key)
        for worker in workers:
            worker.cancel()
        return self


@pytest.mark.parametrize(("slots", "seconds"), [(1, 0.02), (4, 0.05), (16, 0.05)])
async def test_a_backlog_ends_as_early_as_without_a_limit_and_fresh_changes_wait_less(
    slots: int, seconds: float
) -> None:
    """The latencies differ by chance: of an exponential distribution, a fifth is less than a quarter of the mean."""
    free = await Backlog(slots, seconds, None).run(100)
    limited = await Backlog(slots, seconds, ConcurrencyLimit(10)).run(100)
    assert limited.done >= 0.95 * free.done
    idle = 2 * seconds
    assert statistics.fmean(limited.fresh) < max(4 * idle, 1.1 * statistics.fmean(free.fresh))
    if slots == 1:
        assert statistics.fmean(free.fresh) > 8 * idle


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


async def measuring() -> tuple[ConcurrencyLimit, WorkQueue[str]]:
    """Return a queue of which one key is in progress and another one waits for the measurement that has begun."""
    limit = ConcurrencyLimit(4)
    queue: WorkQueue[str] = WorkQueue(low_limit=limit)
    queue.add("hangs", priority=-1)
    assert await queue.get() == "hangs"
    await asyncio.sleep(0.01)
    for _ in range(WINDOW):
        limit.observe("get", 1.0)  # more than one in progress
    assert limit.limit == 1
    queue.add("next", priority=-1)
    return limit, queue


async def test_a_measurement_without_requests_ends_by_itself() -> None:
    _, queue = await measuring()
    async with asyncio.timeout(2):
        assert await queue.get() == "next"


async def test_a_measurement_ends_soon_after_the_response_to_its_last_request() -> None:
    limit, queue = await measuring()
    limit.unanswered = 1
    following = asyncio.create_task(queue.get())
    await asyncio.sleep(0.5)
    limit.unanswered = 0
    limit.observe("get", 0.5)
    async with asyncio.timeout(2):
        assert await following == "next"


async def test_rejections_of_requests_that_were_sent_together_count_once_without_retry_after() -> None:
    limit = ConcurrencyLimit(MAXIMUM)
    for _ in range(MAXIMUM):
        limit.reject()
        await asyncio.sleep(0.01)
    await asyncio.sleep(1)
    assert limit.limit == MAXIMUM / 2


async def calls_at_the_limit(groups: int) -> int:
    """Return the calls of a `get` that must pass over a backlog in so many groups."""
    limit = ConcurrencyLimit(1)
    limit.begin()
    queue: WorkQueue[int] = WorkQueue(low_limit=limit, fair_by=lambda key: key)
    for key in range(groups):
        queue.add(key, priority=-1)
    queue.add(groups - 1)
    profile = cProfile.Profile()
    with profile:
        assert await queue.get() == groups - 1
    return sum(each.callcount for each in profile.getstats())


async def test_a_get_at_the_limit_does_not_look_at_each_group_of_the_backlog() -> None:
    assert await calls_at_the_limit(1000) == await calls_at_the_limit(10)


async def test_urgent_keys_of_groups_take_turns_at_the_limit() -> None:
    limit = ConcurrencyLimit(1)
    limit.begin()
    queue: WorkQueue[str] = WorkQueue(low_limit=limit, fair_by=lambda key: key[0])
    for key in ("a1", "a2", "a3", "b1", "c1"):
        queue.add(key)
        queue.add(key[0] + "-low", priority=-1)
    queue.add("c-low")
    queue.retract("b1", "")
    assert [await queue.get() for _ in range(5)] == ["a1", "c1", "a2", "c-low", "a3"]
    limit.end()
    assert await queue.get() == "b-low"
