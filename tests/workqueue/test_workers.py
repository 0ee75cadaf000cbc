"""Workers that wait, are cancelled, live in other threads; shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine

import pytest

from reconciler.workqueue import QueueShutDown, WorkQueue
from reconciler.workqueue.concurrency_limit import ConcurrencyLimit

pytestmark = pytest.mark.virtual_time


async def settle() -> None:
    """Let every task run that can run now."""
    await asyncio.sleep(1e-6)


def start(coroutine: Coroutine[object, object, object]) -> asyncio.Task[object]:
    return asyncio.create_task(coroutine)


# Waiting and cancellation


async def test_each_add_wakes_one_worker() -> None:
    queue: WorkQueue[str] = WorkQueue()
    workers = [start(queue.get()) for _ in range(3)]
    await settle()
    queue.add("a")
    queue.add("b")
    await settle()
    assert sorted(w.result() for w in workers if w.done()) == ["a", "b"]
    queue.add("c")
    await settle()
    assert sorted(w.result() for w in workers) == ["a", "b", "c"]


async def test_a_cancelled_getter_leaves_later_keys_to_others() -> None:
    queue: WorkQueue[str] = WorkQueue()
    first, second = start(queue.get()), start(queue.get())
    await settle()
    first.cancel()
    await settle()
    queue.add("a")
    assert await second == "a"


async def test_a_getter_cancelled_at_the_moment_it_is_woken_passes_the_key_on() -> None:
    queue: WorkQueue[str] = WorkQueue()
    first, second = start(queue.get()), start(queue.get())
    await settle()
    queue.add("a")
    first.cancel()
    async with asyncio.timeout(1):
        assert await second == "a"
    assert first.cancelled()


async def test_a_getter_cancelled_at_the_moment_it_is_woken_loses_nothing_if_no_other_waits() -> None:
    queue: WorkQueue[str] = WorkQueue()
    worker = start(queue.get())
    await settle()
    queue.add("a")
    worker.cancel()
    await settle()
    assert worker.cancelled()
    assert len(queue) == 1
    assert queue.in_progress("a") is None
    assert await queue.get() == "a"


async def test_a_getter_whose_key_was_retracted_before_it_ran_keeps_waiting() -> None:
    queue: WorkQueue[str] = WorkQueue()
    worker = start(queue.get())
    await settle()
    queue.add("a", reason="x")
    queue.retract("a", "x")
    await settle()
    assert not worker.done()
    queue.add("b")
    assert await worker == "b"


async def test_another_worker_may_take_the_key_but_the_woken_one_gets_the_next() -> None:
    queue: WorkQueue[str] = WorkQueue()
    worker = start(queue.get())
    await settle()
    queue.add("a")
    assert await queue.get() == "a"
    await settle()
    assert not worker.done()
    queue.add("b")
    assert await worker == "b"


async def test_cancelling_an_item_that_waits_leaves_the_queue_unchanged() -> None:
    queue: WorkQueue[str] = WorkQueue()

    async def work() -> None:
        async with queue.item():
            pass

    worker = start(work())
    await settle()
    queue.add("a")
    worker.cancel()
    await settle()
    assert queue.in_progress("a") is None
    assert len(queue) == 1


async def test_cancelling_inside_an_item_marks_the_key_done() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")

    async def work() -> None:
        async with queue.item():
            await asyncio.sleep(100)

    worker = start(work())
    await settle()
    queue.add("a")
    worker.cancel()
    assert await queue.get() == "a"


# Shutdown without drain


async def test_shutdown_releases_waiting_workers() -> None:
    queue: WorkQueue[str] = WorkQueue(name="databases")
    workers = [start(queue.get()) for _ in range(3)]
    await settle()
    await queue.shutdown()
    results = await asyncio.gather(*workers, return_exceptions=True)
    assert [type(result) for result in results] == [QueueShutDown] * 3
    assert "databases" in str(results[0])


async def test_shutdown_drops_ready_keys_and_timers_and_counts_them() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    queue.add("b")
    queue.add("c", after=10)
    await queue.shutdown()
    with pytest.raises(QueueShutDown):
        await queue.get()
    statistics = queue.statistics()
    assert (statistics.dropped_ready, statistics.dropped_timers, statistics.dropped_adds) == (2, 1, 0)
    assert (statistics.ready, statistics.waiting) == (0, 0)
    assert queue.keys() == []
    assert queue.shutting_down


async def test_adds_after_a_shutdown_are_dropped_and_counted() -> None:
    queue: WorkQueue[str] = WorkQueue()
    await queue.shutdown()
    queue.add("a")
    queue.add("a", after=1)
    queue.add_rate_limited("a")
    assert queue.statistics().dropped_adds == 3
    assert queue.retries("a") == 0
    assert queue.keys() == []


async def test_shutdown_does_not_wait_for_keys_in_progress_and_their_done_still_works() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    key = await queue.get()
    queue.add("a")
    await queue.shutdown()
    queue.add("a")
    queue.done(key)
    with pytest.raises(QueueShutDown):
        await queue.get()
    assert (queue.statistics().dropped_ready, queue.statistics().dropped_adds) == (1, 1)
    assert queue.keys() == []


async def test_shutdown_twice_is_one_shutdown() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    await queue.shutdown()
    await queue.shutdown()
    await queue.shutdown(drain=True)
    assert queue.statistics().dropped_ready == 1


# Shutdown with drain


async def work_until_shut_down(queue: WorkQueue[str], seconds: float, seen: list[str]) -> None:
    with contextlib.suppress(QueueShutDown):
        while True:
            async with queue.item() as key:
                seen.append(key)
                await asyncio.sleep(seconds)


async def test_drain_waits_until_nothing_is_ready_or_in_progress() -> None:
    queue: WorkQueue[str] = WorkQueue()
    seen: list[str] = []
    for key in "abc":
        queue.add(key)
    worker = start(work_until_shut_down(queue, 10, seen))
    await settle()
    await queue.shutdown(drain=True)
    assert seen == ["a", "b", "c"]
    assert asyncio.get_running_loop().time() == pytest.approx(30)
    await worker


async def test_drain_waits_for_ready_keys_although_none_is_in_progress() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    draining = start(queue.shutdown(drain=True))
    await settle()
    assert not draining.done()
    assert await queue.get() == "a"
    await settle()
    assert not draining.done()
    queue.done("a")
    await draining


async def test_a_key_added_while_in_progress_is_still_processed_during_a_drain() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    await queue.get()
    draining = start(queue.shutdown(drain=True))
    idle = start(queue.get())
    await settle()
    queue.add("a", reason="event")
    queue.add("a", after=5, reason="takes the run that is coming")
    await settle()
    assert not idle.done(), "an idle worker is needed as long as a key in progress may run again"
    queue.done("a")
    assert await idle == "a"
    assert not draining.done()
    queue.done("a")
    await draining
    assert queue.statistics().dropped_adds == 0


async def test_draining_with_everything_done_returns_at_once() -> None:
    queue: WorkQueue[str] = WorkQueue()
    idle = start(queue.get())
    await settle()
    await queue.shutdown(drain=True)
    with pytest.raises(QueueShutDown):
        await idle


async def test_drain_drops_timers_and_new_keys_and_counts_them() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("in progress")
    await queue.get()
    queue.add("in progress", after=10)
    queue.add("waiting", after=10)
    draining = start(queue.shutdown(drain=True))
    await settle()
    queue.add("new")
    queue.add("in progress", after=10)
    queue.add_rate_limited("in progress")
    queue.done("in progress")
    await draining
    statistics = queue.statistics()
    assert (statistics.dropped_timers, statistics.dropped_adds, statistics.dropped_ready) == (2, 3, 0)
    assert queue.keys() == []


async def test_adds_of_a_ready_key_are_not_dropped_by_a_drain() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a", reason="one")
    draining = start(queue.shutdown(drain=True))
    await settle()
    queue.add("a", reason="two")
    queue.add_rate_limited("a", reason="three")
    await queue.get()
    run = queue.in_progress("a")
    assert run is not None
    assert run.reasons == {"one", "two"}, "the backoff has not ended"
    queue.done("a")
    await draining
    assert queue.statistics().dropped_adds == 0


async def test_several_callers_drain_together() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    await queue.get()
    callers = [start(queue.shutdown(drain=True)) for _ in range(3)]
    await settle()
    assert not any(caller.done() for caller in callers)
    queue.done("a")
    await asyncio.gather(*callers)


async def test_a_shutdown_without_drain_releases_a_draining_one() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    queue.add("b")
    await queue.get()
    draining = start(queue.shutdown(drain=True))
    idle = start(queue.get())
    await idle
    third = start(queue.get())
    await settle()
    await queue.shutdown()
    await draining
    with pytest.raises(QueueShutDown):
        await third
    queue.done("a")
    queue.done("b")
    assert queue.keys() == []


async def test_a_cancelled_drain_leaves_the_queue_draining() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5):
            await queue.shutdown(drain=True)
    queue.add("b")
    assert await queue.get() == "a"
    queue.done("a")
    with pytest.raises(QueueShutDown):
        await queue.get()


async def test_retracting_the_last_ready_key_ends_a_drain() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a", reason="x")
    draining = start(queue.shutdown(drain=True))
    await settle()
    queue.retract("a", "x")
    await draining


async def test_a_drain_does_not_wait_for_timers() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a", after=1000)
    await queue.shutdown(drain=True)
    assert asyncio.get_running_loop().time() == 0


# Loops and threads


def test_created_and_filled_before_there_is_a_loop() -> None:
    from reconciler.testing import virtual_time

    async def main() -> list[tuple[str, float]]:
        loop = asyncio.get_running_loop()
        order = []
        for _ in range(3):
            async with queue.item() as key:
                order.append((key, loop.time()))
        return order

    with virtual_time():
        queue: WorkQueue[str] = WorkQueue()
        queue.add("delayed", after=2)
        queue.add("ready")
        queue.add_threadsafe("from a thread", after=1)
        assert asyncio.run(main()) == [("ready", 0), ("from a thread", 1), ("delayed", 2)]


def test_timers_of_a_loop_that_ended_continue_in_the_next() -> None:
    from reconciler.testing import virtual_time

    async def add() -> None:
        queue.add("a", after=2)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                await queue.get()

    async def take() -> str:
        return await queue.get()

    with virtual_time():
        queue: WorkQueue[str] = WorkQueue()
        asyncio.run(add())
        assert asyncio.run(take()) == "a"


def test_a_delay_added_while_the_loop_is_stopped_expires_when_it_continues() -> None:
    from reconciler.testing import virtual_time

    async def take() -> str:
        return await queue.get()

    with virtual_time(), asyncio.Runner() as runner:
        queue: WorkQueue[str] = WorkQueue()
        queue.add("a")
        assert runner.run(take()) == "a"
        queue.add("b", after=1)
        assert runner.run(take()) == "b"


def test_a_worker_that_was_left_in_a_closed_loop_is_not_woken() -> None:
    async def take() -> str:
        return await queue.get()

    queue: WorkQueue[str] = WorkQueue()
    closed = asyncio.new_event_loop()
    left = closed.create_task(take())
    closed.run_until_complete(asyncio.sleep(0))
    closed.close()

    async def main() -> str:
        waiting = start(queue.get())
        await asyncio.sleep(0)
        queue.add("a")
        return str(await waiting)

    assert asyncio.run(main()) == "a"
    left.get_coro().close()  # type: ignore[union-attr] - a task that never started again is destroyed pending


@pytest.mark.parametrize("low_limit", [None, ConcurrencyLimit(1)])
def test_keys_added_and_done_between_two_loops_are_not_lost(low_limit: ConcurrencyLimit | None) -> None:
    """A worker that was left waiting in the closed loop is not woken for them."""

    async def leave_a_worker() -> asyncio.Task[object]:
        queue.add("a", priority=-1)
        assert await queue.get() == "a"
        left = start(queue.get())
        await asyncio.sleep(0)
        return left

    async def take() -> str:
        async with asyncio.timeout(1), queue.item() as key:
            return key

    queue: WorkQueue[str] = WorkQueue(low_limit=low_limit)
    closed = asyncio.new_event_loop()
    left = closed.run_until_complete(leave_a_worker())
    closed.close()
    queue.add("a", priority=-1)
    queue.done("a")
    queue.add("b")
    assert {asyncio.run(take()), asyncio.run(take())} == {"a", "b"}
    left.get_coro().close()  # type: ignore[union-attr] - a task that never started again is destroyed pending


def test_adds_from_threads_arrive_and_wake_a_worker() -> None:
    async def main() -> set[int]:
        queue: WorkQueue[int] = WorkQueue()
        ready = threading.Barrier(5)

        def add(first: int) -> None:
            ready.wait()
            for number in range(first, first + 100):
                queue.add_threadsafe(number, reason="thread", priority=1)

        threads = [threading.Thread(target=add, args=(first,)) for first in range(0, 400, 100)]
        for thread in threads:
            thread.start()
        await asyncio.to_thread(ready.wait)
        seen = set()
        while len(seen) < 400:
            async with queue.item() as key:
                seen.add(key)
                run = queue.in_progress(key)
                assert run is not None
                assert (run.reasons, run.priority) == ({"thread"}, 1)
        for thread in threads:
            thread.join()
        return seen

    assert asyncio.run(main()) == set(range(400))


def in_a_thread(function: Callable[[], object], *, loop: bool) -> BaseException | None:
    """Call a function in another thread, inside an event loop of that thread or outside any; return what it raised."""
    raised: list[BaseException] = []

    async def inside() -> None:
        function()

    def body() -> None:
        try:
            if loop:
                asyncio.run(inside())
            else:
                function()
        except BaseException as error:  # noqa: BLE001 - the caller judges
            raised.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    return raised[0] if raised else None


@pytest.mark.parametrize("loop", [True, False])
async def test_a_plain_add_from_another_thread_leaves_the_timers_alive(loop: bool) -> None:
    """A thread may have its own loop, which must not get the queue's timer."""
    queue: WorkQueue[str] = WorkQueue()
    assert in_a_thread(lambda: queue.add("thread", after=5), loop=loop) is None
    await settle()
    queue.add("loop", after=3)
    async with asyncio.timeout(10):
        assert [await queue.get(), await queue.get()] == ["loop", "thread"]
    queue.add("later", after=60)
    async with asyncio.timeout(100):
        assert await queue.get() == "later"


@pytest.mark.parametrize("loop", [True, False])
def test_a_plain_add_from_another_thread_before_there_is_a_loop_waits_for_it(loop: bool) -> None:
    from reconciler.testing import virtual_time

    async def take() -> str:
        async with asyncio.timeout(10):
            return await queue.get()

    with virtual_time():
        queue: WorkQueue[str] = WorkQueue()
        assert in_a_thread(lambda: queue.add("thread", after=5), loop=loop) is None
        assert asyncio.run(take()) == "thread"


@pytest.mark.parametrize("loop", [True, False])
@pytest.mark.parametrize(
    "call",
    [
        lambda queue: queue.add_rate_limited("a"),
        lambda queue: queue.retract("a", "reason"),
        lambda queue: queue.done("a"),
    ],
)
async def test_other_methods_raise_in_another_thread(call, loop: bool) -> None:
    queue: WorkQueue[str] = WorkQueue(name="jobs")
    queue.add("a", reason="reason")
    assert await queue.get() == "a"
    error = in_a_thread(lambda: call(queue), loop=loop)
    assert isinstance(error, RuntimeError)
    assert "'jobs'" in str(error)
    assert "add_threadsafe" in str(error)
    queue.done("a")


async def test_a_loop_of_another_thread_cannot_bind_the_queue() -> None:
    queue: WorkQueue[str] = WorkQueue()
    waiting = start(queue.get())
    await settle()

    def get() -> None:
        asyncio.run(queue.get())

    assert isinstance(in_a_thread(get, loop=False), RuntimeError)
    queue.add("a")
    assert await waiting == "a"


async def test_adds_from_threads_merge_as_adds_do() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_threadsafe("now", after=10)
    queue.add_threadsafe("now")
    queue.add_threadsafe("now", after=20)
    queue.add_threadsafe("later", after=20, priority=7)
    queue.add_threadsafe("later", after=10)
    await settle()
    assert queue.keys() == ["now", "later"]
    assert await queue.get() == "now"
    assert queue.explain("later").due == pytest.approx(10, abs=1e-3)
    assert queue.explain("later").priority == 7


def test_adds_from_threads_after_the_loop_is_closed_are_counted_and_not_kept() -> None:
    async def make() -> WorkQueue[str]:
        return WorkQueue()

    queue = asyncio.run(make())
    queue.add_threadsafe("a")
    queue.add_threadsafe("b")
    assert queue.statistics().dropped_adds == 2


async def test_adds_from_threads_before_a_shutdown_are_part_of_it() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_threadsafe("a")
    draining = queue.shutdown(drain=True)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await draining
    assert await queue.get() == "a"
    draining = start(queue.shutdown(drain=True))
    queue.add_threadsafe("b")
    await settle()
    queue.done("a")
    await draining
    assert queue.statistics().dropped_adds == 1
