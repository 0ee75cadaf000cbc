"""The time of a flush: ten seconds, or two once a stopping controller has cancelled its reconcile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from reconciler.apiserver import APIServer
from reconciler.client import Client
from reconciler.controller import ResourceReconciler
from reconciler.errors import NotSent
from reconciler.manager import Manager
from reconciler.meta.cycle import current_cycle
from reconciler.objects import ConditionedStatus, Model, ObjectMeta, Resource
from reconciler.status import StatusBatcher, StatusError
from tests.status.scripted import ScriptedServer, refused
from tests.status.test_cycle import FakeCycle

pytestmark = pytest.mark.virtual_time


@pytest.fixture
async def cycle() -> AsyncIterator[FakeCycle]:
    cycle = FakeCycle()
    token = current_cycle.set(cycle)
    yield cycle
    current_cycle.reset(token)


async def seconds_after_cancellation(server: ScriptedServer, cycle: FakeCycle, when: float, **options: Any) -> float:
    """Return how long a block runs that is cancelled at a given second; otherwise it ends at second 5."""
    started, loop = asyncio.Event(), asyncio.get_running_loop()

    async def work() -> None:
        current_cycle.set(cycle)
        async with StatusBatcher(server.writer(), server.document(), **options) as status:
            started.set()
            status.increment("total")
            await asyncio.sleep(5)

    task = asyncio.create_task(work())
    await started.wait()
    await asyncio.sleep(when)
    cancelled = loop.time()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return loop.time() - cancelled


@pytest.mark.parametrize(("stopping", "expected"), [(True, 2.0), (False, 10.0)])
async def test_a_cancelled_block_writes_for_two_seconds_at_most_in_a_shutdown(server, cycle, stopping, expected):
    server.latency, cycle.stopping = 100.0, stopping
    assert expected * 0.7 < await seconds_after_cancellation(server, cycle, 1.0) <= expected


@pytest.mark.parametrize(("stopping", "expected"), [(True, 2.0), (False, 7.0)])
async def test_a_flush_in_progress_has_two_seconds_left_when_it_is_cancelled(server, cycle, stopping, expected):
    server.latency, cycle.stopping = 100.0, stopping
    assert expected * 0.7 < await seconds_after_cancellation(server, cycle, 8.0) <= expected


async def test_a_flush_with_less_than_two_seconds_left_gets_no_more(server, cycle):
    server.latency, cycle.stopping = 100.0, True
    assert await seconds_after_cancellation(server, cycle, 14.5) <= 0.5
    assert await seconds_after_cancellation(server, cycle, 1.0, flush_timeout=0.5) <= 0.5


async def test_a_block_that_ended_before_the_cancellation_keeps_its_time(server, cycle):
    """It uses the grace period of the shutdown."""
    server.latency, cycle.stopping = 6.0, True
    async with StatusBatcher(server.writer(), server.document()) as status:
        status.increment("total")
    assert server.status == {"total": 1}


@pytest.mark.parametrize("steps", range(5))
async def test_who_waits_for_a_flush_is_woken_when_its_task_alone_is_cancelled(server, steps):
    async def work() -> None:
        async with StatusBatcher(server.writer(), server.document()) as status:
            status.increment("total")

    before = asyncio.all_tasks()
    task = asyncio.create_task(work())
    server.latency = 1.0
    await asyncio.sleep(0)
    for _ in range(steps):
        await asyncio.sleep(0)
    (flush,) = asyncio.all_tasks() - before - {task}
    flush.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)


async def test_two_seconds_are_enough_for_a_write_that_is_answered(server, cycle):
    server.latency, cycle.stopping = 1.3, True
    assert await seconds_after_cancellation(server, cycle, 1.0) == pytest.approx(1.3)
    assert server.status == {"total": 1}


def test_a_blocking_flush_starts_no_request_after_two_seconds_of_a_shutdown(server, slept):
    from reconciler.clock import SystemClock

    class Time(SystemClock):
        now_at = 0.0

        def monotonic(self) -> float:
            return self.now_at

    clock, token = Time(), current_cycle.set(FakeCycle(stopping=True))

    def slow(server: ScriptedServer, execute: Any) -> Any:
        clock.now_at += 1.5
        return refused(NotSent("refused"))(server, execute)

    server.on_write.extend([slow] * 5)
    with (
        pytest.raises(StatusError, match="not written in time"),
        StatusBatcher(server.blocking_writer(), server.document(), clock=clock) as status,
    ):
        status.increment("total")
    current_cycle.reset(token)
    assert len(server.writes) == 2


class Spec(Model):
    size: int = 1


class Database(Resource[Spec, ConditionedStatus], group="example.com", version="v1"):
    """A database."""


async def test_a_stopping_manager_waits_two_seconds_for_a_server_that_does_not_answer() -> None:
    working = asyncio.Event()

    class Slow(ResourceReconciler[Database]):
        async def reconcile_object(self, db: Database, status: StatusBatcher[ConditionedStatus]) -> None:
            status.set_condition("Ready", False, reason="Working")
            working.set()
            await asyncio.sleep(3600)

    loop = asyncio.get_running_loop()
    async with APIServer() as server, Client(server) as client:
        await server.apply(Database)
        manager = Manager(client, grace_period=5)
        manager.add_controller(Slow())
        async with manager.running():
            await client.create(Database(metadata=ObjectMeta(name="db1", namespace="default"), spec=Spec()))
            await working.wait()
            server.faults.add(latency=60, times=None, subresource="status")
            begin = loop.time()
        assert loop.time() - begin == pytest.approx(5 + 2, abs=0.1)
