"""The reports of the queue: explain, statistics, metrics; and its use of memory."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from reconciler.meta import Request
from reconciler.workqueue import Explanation, ExponentialBackoff, QueueStatistics, WorkQueue
from reconciler.workqueue.order import ReadyOrder

pytestmark = pytest.mark.virtual_time


class Recorder:
    """Metrics that record every call."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, float]] = []
        self.statistics: Callable[[], QueueStatistics] | None = None

    def watch(self, statistics: Callable[[], QueueStatistics], /) -> None:
        self.statistics = statistics

    def observe_queue_duration(self, seconds: float, /) -> None:
        self.calls.append(("observe_queue_duration", seconds))

    def observe_work_duration(self, seconds: float, /) -> None:
        self.calls.append(("observe_work_duration", seconds))


# explain


async def test_explain_of_a_key_that_is_not_queued() -> None:
    queue: WorkQueue[Request] = WorkQueue()
    explanation = queue.explain(Request("db1", "prod"))
    assert explanation == Explanation(Request("db1", "prod"))
    assert str(explanation) == "prod/db1: not queued"
    assert queue.keys() == []


async def test_explain_of_a_ready_key() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a", priority=-100, reason="watch")
    queue.add("a", reason="owned")
    await asyncio.sleep(2.5)
    explanation = queue.explain("a")
    assert explanation == Explanation(
        "a", ready=2.5, priority=0, reasons=frozenset({"watch", "owned"}), next_reasons=frozenset({"watch", "owned"})
    )
    assert str(explanation) == "a: ready for 2.5 s, priority 0 (owned, watch)"


async def test_explain_of_a_key_in_backoff() -> None:
    queue: WorkQueue[str] = WorkQueue(rate_limiter=ExponentialBackoff(10, 100))
    queue.add_rate_limited("a", reason="retry")
    await asyncio.sleep(4)
    assert queue.explain("a") == Explanation(
        "a", due=6, priority=0, reasons=frozenset({"retry"}), next_reasons=frozenset({"retry"}), failures=1
    )
    assert str(queue.explain("a")) == "a: due in 6 s, priority 0 (retry); 1 failure"


async def test_explain_of_a_key_in_progress_that_is_queued_again() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a", reason="watch")
    await queue.get()
    await asyncio.sleep(1)
    assert str(queue.explain("a")) == "a: in progress for 1 s (watch)"
    queue.add("a", priority=5, reason="owned")
    await asyncio.sleep(2)
    assert queue.explain("a") == Explanation(
        "a",
        in_progress=3,
        current_reasons=frozenset({"watch"}),
        ready=2,
        priority=5,
        reasons=frozenset({"owned"}),
        next_reasons=frozenset({"owned"}),
    )
    assert str(queue.explain("a")) == ("a: in progress for 3 s (watch); queued again 2 s ago, priority 5 (owned)")
    queue.done("a")
    assert str(queue.explain("a")) == "a: ready for 0 s, priority 5 (owned)"


async def test_explain_counts_failures() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_rate_limited("a")
    queue.add_rate_limited("a")
    await queue.get()
    assert str(queue.explain("a")) == "a: in progress for 0 s; 2 failures"


# statistics


async def test_statistics_of_a_busy_queue() -> None:
    queue: WorkQueue[str] = WorkQueue(name="databases")
    for key in "abc":
        queue.add(key)
    queue.add("d", after=10)
    await queue.get()
    await asyncio.sleep(1)
    await queue.get()
    queue.add("b")
    await asyncio.sleep(2)
    assert queue.statistics() == QueueStatistics(
        name="databases",
        ready=2,
        ready_by_priority={0: 2},
        waiting=1,
        in_progress=2,
        idle_workers=0,
        adds=4,
        gets=2,
        delayed_adds=1,
        dropped_adds=0,
        dropped_ready=0,
        dropped_timers=0,
        longest_in_progress=3,
        unfinished_work=5,
        shutting_down=False,
    )
    assert len(queue) == 2
    assert sorted(queue.keys()) == ["a", "b", "c", "d"]


async def test_statistics_count_workers_that_wait() -> None:
    queue: WorkQueue[str] = WorkQueue()
    workers = [asyncio.create_task(queue.get()) for _ in range(3)]
    await asyncio.sleep(1)
    assert queue.statistics().idle_workers == 3
    workers[0].cancel()
    await asyncio.sleep(1)
    assert queue.statistics().idle_workers == 2
    await queue.shutdown()
    await asyncio.gather(*workers, return_exceptions=True)
    assert queue.statistics().idle_workers == 0


# metrics


async def test_metrics_receive_how_long_keys_were_ready_and_in_progress() -> None:
    metrics = Recorder()
    queue: WorkQueue[str] = WorkQueue(metrics=metrics)
    queue.add("a", after=2)
    queue.add("a", after=5)
    await asyncio.sleep(3)
    queue.add("a", priority=7)
    await asyncio.sleep(1)
    await queue.get()
    queue.add("a")
    await asyncio.sleep(4)
    queue.done("a")
    await asyncio.sleep(1)
    await queue.get()
    assert metrics.calls == [("observe_queue_duration", 2), ("observe_work_duration", 4), ("observe_queue_duration", 1)]
    assert metrics.statistics is not None
    assert metrics.statistics() == queue.statistics()
    assert (queue.statistics().adds, queue.statistics().delayed_adds) == (2, 2)


async def test_the_depth_by_priority_adds_up() -> None:
    queue: WorkQueue[int] = WorkQueue()
    for number in range(20):
        queue.add(number % 7, priority=number % 3, reason=str(number % 2))
        queue.retract(number % 5, "1")
    in_progress = [await queue.get() for _ in range(3)]
    queue.add(in_progress[0], priority=2)
    queue.add(in_progress[1], priority=9)
    queue.add(99, after=1, priority=4)
    told = [queue.explain(key) for key in queue.keys()]  # noqa: SIM118 - a queue is no dict
    depth = Counter(each.priority for each in told if each.ready is not None)
    assert depth[9] == 1
    assert queue.statistics().ready_by_priority == depth
    assert depth.total() == len(queue) == queue.statistics().ready


# What is kept


def sizes(queue: WorkQueue[int]) -> dict[str, int]:
    return {
        "entries": len(queue._entries),
        "heap": len(queue._timers._heap),
        "levels": len(queue._order._levels),
        "in order": sum(len(level) for level in queue._order._levels.values()),
        "in progress": len(queue._in_progress),
    }


async def test_moved_and_dropped_timers_leave_nothing_behind() -> None:
    queue: WorkQueue[int] = WorkQueue()
    queue.add(-1, after=1e6)
    for number in range(50_000):
        key = number % 100
        queue.add(key, after=1e6 - number, reason="timer")
        if number % 3 == 0:
            queue.retract(key, "timer")
    assert sizes(queue)["heap"] < 400
    for key in range(100):
        queue.retract(key, "timer")
    queue.add(-1)
    queue.done(await queue.get())
    assert set(sizes(queue).values()) <= {0, 1}


async def test_raised_and_retracted_keys_leave_nothing_behind() -> None:
    queue: WorkQueue[int] = WorkQueue()
    for number in range(20_000):
        queue.add(1, priority=number, reason="x")
        if number % 2:
            queue.retract(1, "x")
    assert sizes(queue) == {"entries": 0, "heap": 0, "levels": 0, "in order": 0, "in progress": 0}


async def test_priorities_used_once_are_not_kept() -> None:
    queue: WorkQueue[int] = WorkQueue()
    queue.add(-1, priority=-1)
    for number in range(5000):
        queue.add(number, priority=number)
        queue.done(await queue.get())
    assert sizes(queue)["levels"] <= 200


async def test_processed_keys_leave_nothing_behind() -> None:
    queue: WorkQueue[int] = WorkQueue()
    for number in range(20_000):
        queue.add(number, after=None if number % 2 else 1, reason="x")
        queue.add(number)
        queue.done(await queue.get())
    assert sizes(queue) == {"entries": 0, "heap": 0, "levels": 1, "in order": 0, "in progress": 0}


async def test_adds_never_decrease_when_keys_are_taken_during_a_scrape(monkeypatch: pytest.MonkeyPatch) -> None:
    queue: WorkQueue[int] = WorkQueue()
    for key in range(50):
        queue.add(key)
    sizes, scraping, taken = ReadyOrder.sizes, threading.Event(), threading.Event()

    def wait_for_the_workers(order: ReadyOrder[int]) -> Counter[int]:
        found = sizes(order)
        scraping.set()
        assert taken.wait(60)
        return found

    monkeypatch.setattr(ReadyOrder, "sizes", wait_for_the_workers)
    with ThreadPoolExecutor() as pool:
        scrape = pool.submit(queue.statistics)
        assert scraping.wait(60)
        for _ in range(50):
            queue.done(await queue.get())
        taken.set()
        assert scrape.result().adds == 50
    assert queue.statistics().adds == 50


async def test_the_number_of_keys_in_progress() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    queue.add("b")
    assert queue.active == 0
    await queue.get()
    assert queue.active == 1
    queue.done("a")
    assert queue.active == 0
