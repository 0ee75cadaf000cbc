"""Half a million operations on a queue, which leave nothing behind; two million in a thorough run."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import sys
import tracemalloc

import pytest

from reconciler.workqueue import ExponentialBackoff, MaxOf, TokenBucket, WorkQueue

pytestmark = pytest.mark.virtual_time


async def work(queue: WorkQueue[tuple[str, int]], rounds: int, rng: random.Random) -> None:
    """Use a new key in each round, with every operation; a round has ten."""
    for number in range(rounds):
        key = ("key", rng.getrandbits(60))
        queue.add(key, after=rng.random(), reason="timer")
        queue.add(key, after=0.01, priority=number % 7, reason="earlier")
        queue.retract(key, "timer")
        queue.add_rate_limited(key, reason="retry")
        queue.add(key, reason="event")
        got = await queue.get()
        queue.add(got, after=5.0, reason="again")
        queue.retract(got, "again")
        queue.forget(got)
        queue.done(got)
        if number % 1000 == 0:
            await asyncio.sleep(1)


def new_queue() -> WorkQueue[tuple[str, int]]:
    return WorkQueue(rate_limiter=MaxOf(ExponentialBackoff(0.005, 1000), TokenBucket(1e6, 100)))


@pytest.mark.parametrize("rounds", [50_000, pytest.param(200_000, marks=pytest.mark.thorough)])
async def test_many_operations_leave_memory_flat(rounds: int) -> None:
    queue, rng = new_queue(), random.Random(1)
    await work(queue, 2_000, rng)  # what is allocated once exists now
    gc.collect()
    before = sys.getallocatedblocks()
    await work(queue, rounds, rng)
    gc.collect()
    assert abs(sys.getallocatedblocks() - before) < 1000
    assert queue.keys() == []
    assert queue.statistics().gets == rounds + 2_000


async def test_a_processed_backlog_costs_nothing() -> None:
    queue = new_queue()
    tracemalloc.start()
    try:
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        for number in range(20_000):
            queue.add(("ready", number), reason="event")
            queue.add(("waiting", number), after=1 + number % 10, reason="timer")
        full, _ = tracemalloc.get_traced_memory()
        for _ in range(40_000):
            queue.done(await queue.get())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(queue.get(), 1)  # a worker that finds nothing
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < (full - before) / 100
