"""Nested batchers, and which of them share a write."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import Any

import pytest

from reconciler.meta import GroupVersionKind, Request
from reconciler.status import StatusBatcher
from tests.status.scripted import KEY, ScriptedServer, Writer

pytestmark = pytest.mark.virtual_time


def batcher(server: ScriptedServer, writer: Any = None, **options: Any) -> StatusBatcher:
    return StatusBatcher(writer or server.writer(), server.document(), **options)


async def test_a_batcher_inside_another_for_the_same_object_joins_it(server):
    async with batcher(server) as outer:
        outer.append("log", 1)
        async with batcher(server) as inner:
            inner.append("log", 2)
            assert inner.joined
            assert inner.current == {"log": [1, 2]}
        assert (inner.written, inner.joined) == (None, True)
        assert server.writes == []
        outer.append("log", 3)
    assert server.status == {"log": [1, 2, 3]}
    assert len(server.writes) == 1
    assert not outer.joined
    assert inner.object == server.document() or inner.object is not None


async def test_joining_works_at_any_depth_and_through_awaits_tasks_and_threads(server):
    async def deep(level: int) -> None:
        async with batcher(server) as status:
            status.append("log", level)
            if level < 4:
                await asyncio.create_task(deep(level + 1))

    def in_thread() -> None:
        asyncio.run(in_its_own_loop())

    async def in_its_own_loop() -> None:
        async with batcher(server) as status:
            status.append("log", "thread")

    async with batcher(server) as outer:
        await deep(1)
        await asyncio.to_thread(in_thread)
        outer.append("log", 5)
    assert server.status == {"log": [1, 2, 3, 4, "thread", 5]}
    assert len(server.writes) == 1


async def test_concurrent_tasks_of_one_reconcile_share_its_write(server):
    async def step(name: str) -> None:
        async with batcher(server) as status:
            await asyncio.sleep(1)
            status.append("log", name)
            status.increment("total")

    async with batcher(server):
        await asyncio.gather(*(step(name) for name in "abc"))
    assert sorted(server.status["log"]) == ["a", "b", "c"]
    assert server.status["total"] == 3
    assert len(server.writes) == 1


async def test_a_batcher_opened_by_name_joins_without_a_read(server):
    named = StatusBatcher(server.writer(), "example.com/v1/Database", name="db1", namespace="prod")
    async with batcher(server), named as inner:
        inner.increment("total")
        assert inner.joined
    assert (server.reads, len(server.writes)) == (0, 1)


async def test_a_checkpoint_of_the_inner_batcher_is_the_outers(server):
    async with batcher(server) as outer:
        outer.append("log", 1)
        async with batcher(server) as inner:
            inner.append("log", 2)
            await inner.flush()
            assert server.status == {"log": [1, 2]}
            assert inner.written is None
            assert outer.written is True
    assert len(server.writes) == 1


async def test_join_false_opens_its_own(server):
    async with batcher(server) as outer:
        async with batcher(server, join=False) as inner:
            inner.increment("total")
        assert (inner.joined, inner.written) == (False, True)
        outer.increment("total")
    assert server.status == {"total": 2}


@pytest.mark.parametrize(
    "other",
    [
        {"field_manager": "another"},
        {"gvk": GroupVersionKind("example.com", "v1", "Other")},
        {"request": Request("db1", "other")},
    ],
    ids=str,
)
async def test_another_client_manager_kind_or_object_does_not_join(server, other):
    elsewhere = ScriptedServer(identity=server.identity)
    parts = {"field_manager": "kube-reconciler", "request": KEY, **other}
    async with batcher(server), batcher(elsewhere, Writer(elsewhere, **parts)) as inner:
        assert not inner.joined


async def test_another_uid_does_not_join(server):
    async with batcher(server):
        server.recreate()
        async with batcher(server) as inner:
            assert not inner.joined


async def test_another_server_strategy_or_subresource_does_not_join(server):
    async with batcher(server), batcher(ScriptedServer()) as elsewhere:
        assert not elsewhere.joined
        async with batcher(server, subresource=None) as inner:
            assert not inner.joined
        async with batcher(server, strategy="apply") as inner:
            assert not inner.joined


async def test_a_merge_patch_joins_an_update_since_both_write_the_same(server):
    async with batcher(server, strategy="update") as outer:
        outer.set("phase", "A")
        async with batcher(server) as inner:
            assert inner.joined
            inner.append("log", 1)
    assert server.status == {"phase": "A", "log": [1]}
    assert [strategy for _, strategy, _ in server.writes] == ["update"]


async def test_a_blocking_batcher_does_not_join_an_asynchronous_one(server):
    async with batcher(server):
        with batcher(server, server.blocking_writer()) as inner:
            assert not inner.joined


def test_blocking_batchers_join_each_other(server):
    with batcher(server, server.blocking_writer()) as outer:
        with batcher(server, server.blocking_writer()) as inner:
            inner.append("log", 1)
            inner.flush()
            inner.append("log", 2)
        assert server.status == {"log": [1]}
        outer.append("log", 3)
    assert server.status == {"log": [1, 2, 3]}
    assert len(server.writes) == 2


def test_a_plain_thread_opens_its_own_unless_the_outer_one_is_passed_to_it(server):
    joined = []

    def work(handed: StatusBatcher[Any]) -> None:
        handed.append("log", "handed")
        with StatusBatcher(server.blocking_writer(), server.document()) as own:
            joined.append(own.joined)
            own.append("log", "own")

    with batcher(server, server.blocking_writer()) as outer:
        thread = threading.Thread(target=work, args=[outer])
        thread.start()
        thread.join()
        outer.append("log", "outer")
    assert joined == [False]
    assert server.status == {"log": ["own", "handed", "outer"]}
    assert server.applied == 2


async def test_a_detached_task_opens_its_own_after_the_outer_block(server):
    go = asyncio.Event()

    async def detached() -> StatusBatcher:
        await go.wait()
        async with batcher(server) as status:
            status.append("log", "late")
        return status

    async with batcher(server) as outer:
        task = asyncio.create_task(detached())
        outer.append("log", "early")
    go.set()
    late = await task
    assert (late.joined, late.written) == (False, True)
    assert server.status == {"log": ["early", "late"]}


async def test_a_joined_batcher_that_outlives_the_outer_block_continues_alone(server):
    go = asyncio.Event()
    joined = asyncio.Event()

    async def detached() -> StatusBatcher:
        async with batcher(server) as status:
            status.append("log", "with the outer")
            joined.set()
            await go.wait()
            status.append("log", "alone")
            assert not status.joined
            assert status.current == {"log": ["with the outer", "alone"]}
        return status

    async with batcher(server):
        task = asyncio.create_task(detached())
        await joined.wait()
    assert server.status == {"log": ["with the outer"]}
    go.set()
    late = await task
    assert late.written is True
    assert server.status == {"log": ["with the outer", "alone"]}
    assert len(server.writes) == 2


@pytest.mark.parametrize("strategy", ["merge", "update"])
@pytest.mark.parametrize("checkpoint", [False, True], ids=["during its write", "while its write waits"])
async def test_a_late_record_of_a_joined_task_is_written_after_the_block_that_it_joined(server, strategy, checkpoint):
    server.track_owners = False  # a conflict would be contested
    server.latency = 5.0
    joined = asyncio.Event()

    async def detached() -> StatusBatcher:
        async with batcher(server, strategy=strategy) as status:
            joined.set()
            if checkpoint:
                status.append("log", "first")
                await status.flush()  # the block ends meanwhile
            else:
                await asyncio.sleep(2)
            server.latency = 0.0
            status.set(phase="late")
            status.append("log", "late")
            assert status.current == {"phase": "late", "log": [*expected, "late"]}
        return status

    expected = ["first", "early"] if checkpoint else ["early"]
    async with batcher(server, strategy=strategy) as outer:
        task = asyncio.create_task(detached())
        await joined.wait()
        await asyncio.sleep(1)
        outer.append("log", "early")
        outer.set(phase="early")
    late = await task
    assert server.status == {"phase": "late", "log": [*expected, "late"]}
    assert late.statistics().conflicts == outer.statistics().conflicts == 0
    assert late.written is True


def test_a_late_record_of_a_joined_thread_is_written_after_the_block_that_it_joined(server):
    server.track_owners = False  # a conflict would be contested
    joined, writing, recorded, ended = (threading.Event() for _ in range(4))

    def detached() -> None:
        with batcher(server, server.blocking_writer()) as status:
            joined.set()
            assert writing.wait(10)
            status.set(phase="late")
            recorded.set()
        ended.set()

    def slow(_: ScriptedServer, execute: Any) -> Any:
        writing.set()
        assert recorded.wait(10)
        ended.wait(0.1)  # the thread could overtake the block now
        return execute()

    server.on_write.append(slow)
    with batcher(server, server.blocking_writer()) as outer:
        thread = threading.Thread(target=contextvars.copy_context().run, args=[detached])
        thread.start()
        assert joined.wait(10)
        outer.set(phase="early")
    thread.join()
    assert server.status == {"phase": "late"}
    assert len(server.writes) == 2


@pytest.mark.parametrize(("outer", "inner"), [("merge", "update"), ("update", "merge")])
async def test_a_batcher_that_outlives_the_outer_block_uses_its_strategy(server, outer, inner):
    server.status = {"kept": 1}
    go, joined = asyncio.Event(), asyncio.Event()

    async def detached() -> None:
        async with batcher(server, strategy=inner) as status:
            joined.set()
            await go.wait()
            status.set("phase", "late")

    async with batcher(server, strategy=outer) as status:
        task = asyncio.create_task(detached())
        await joined.wait()
        status.set("phase", "early")
    go.set()
    await task
    assert server.status == {"kept": 1, "phase": "late"}
    assert [strategy for _, strategy, _ in server.writes] == [outer, outer]


async def test_a_batcher_that_outlives_the_outer_block_is_not_joined_by_later_ones(server):
    go, joined = asyncio.Event(), asyncio.Event()

    async def detached() -> None:
        async with batcher(server):
            joined.set()
            await go.wait()
            async with batcher(server) as another:
                assert not another.joined

    async with batcher(server):
        task = asyncio.create_task(detached())
        await joined.wait()
    go.set()
    await task


async def test_nothing_joins_a_batcher_during_its_final_write(server):
    server.latency = 2.0
    async with asyncio.TaskGroup() as group:
        started = asyncio.Event()

        async def later() -> None:
            await started.wait()
            await asyncio.sleep(1)  # the outer batcher is in its final flush now
            async with batcher(server) as status:
                assert not status.joined
                status.append("log", 2)

        async with batcher(server) as outer:
            group.create_task(later())
            outer.append("log", 1)
            started.set()
    assert server.status == {"log": [1, 2]}


async def test_siblings_one_after_the_other_do_not_join(server):
    async with batcher(server) as first:
        first.append("log", 1)
    async with batcher(server) as second:
        second.append("log", 2)
    assert not second.joined
    assert len(server.writes) == 2


async def test_a_failing_inner_block_keeps_or_withdraws_its_mutations(server):
    async def failing(on_error: str, name: str) -> None:
        async with batcher(server, on_error=on_error) as inner:
            inner.append("log", name)
            inner.set("phase", name)
            raise ZeroDivisionError

    async with batcher(server) as outer:
        outer.append("log", "outer")
        for on_error in ("flush", "ledgers", "discard"):
            with pytest.raises(ZeroDivisionError):
                await failing(on_error, on_error)
    assert server.status == {"log": ["outer", "flush", "ledgers"], "phase": "flush"}


async def test_an_open_batcher_is_not_kept_alive_by_contexts(server):
    import gc
    import weakref

    async with batcher(server) as outer:
        task = asyncio.create_task(asyncio.sleep(1000))  # it has a copy of the context
        recording = weakref.ref(outer._recording)
    del outer
    gc.collect()
    assert recording() is None
    task.cancel()
