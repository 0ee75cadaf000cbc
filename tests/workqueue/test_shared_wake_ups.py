"""Timers of a queue with thousands of keys at rest: those that expire at nearly the same time share a wake-up."""

from __future__ import annotations

import asyncio

import pytest

from reconciler.workqueue import WorkQueue

pytestmark = pytest.mark.virtual_time


async def ready_times(queue: WorkQueue[int], count: int) -> dict[int, float]:
    """Return when each key was ready."""
    found: dict[int, float] = {}
    while len(found) < count:
        async with queue.item() as key:
            found[key] = asyncio.get_running_loop().time()
    return found


async def test_thousands_of_keys_at_rest_share_wake_ups_and_none_is_early() -> None:
    queue: WorkQueue[int] = WorkQueue()
    for key in range(10_000):
        queue.add(key, after=10 + key * 0.006)  # 10,000 a minute
    found = await ready_times(queue, 9_000)  # then a thousand are left
    late = [time - (10 + key * 0.006) for key, time in found.items()]
    assert min(late) > -1e-6
    assert max(late) < 0.1001
    assert len(set(found.values())) <= 9_000 * 0.006 / 0.1 + 2, "10 a second, not 167"


async def test_a_short_delay_is_exact_beside_thousands_of_keys_at_rest() -> None:
    queue: WorkQueue[int] = WorkQueue()
    for key in range(10_000):
        queue.add(key, after=10 + key * 0.006)
    await ready_times(queue, 100)
    begun = asyncio.get_running_loop().time()
    queue.add(-1, after=0.004)
    while await queue.get() != -1:
        pass
    assert asyncio.get_running_loop().time() == pytest.approx(begun + 0.004, abs=1e-6)


async def test_the_timers_of_a_small_queue_are_exact() -> None:
    queue: WorkQueue[int] = WorkQueue()
    for key in range(900):
        queue.add(key, after=10 + key * 0.006)
    found = await ready_times(queue, 900)
    assert all(time == pytest.approx(10 + key * 0.006, abs=1e-6) for key, time in found.items())
