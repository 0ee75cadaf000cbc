"""The order of starting and stopping, and failures of parts."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import threading
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from reconciler import Manager, Reconciler, Request
from reconciler.apiserver import APIServer
from reconciler.cache import CacheEvent, CacheNotSynced
from reconciler.client import Client
from reconciler.controller import CacheSyncTimeout, Controller, Predicate, Result, Watch
from reconciler.errors import ConfigurationError, ReconcilerError
from reconciler.manager import GracePeriodExceeded, LeaderElection
from reconciler.manager.runnables import ManagerError
from reconciler.workqueue import ExponentialBackoff
from tests.manager.working import RecordingReconciler, config_map

pytestmark = pytest.mark.virtual_time

KIND = "v1/ConfigMap"


def now() -> float:
    return asyncio.get_running_loop().time()


async def during(manager: Manager, block: Callable[[], Awaitable[None]]) -> None:
    async with manager.running():
        await block()


class Crash(Exception):
    """The exception of a failing runnable."""


async def crash_after(seconds: float) -> None:
    await asyncio.sleep(seconds)
    raise Crash(f"after {seconds:g} s")


# Start and stop


async def test_running_is_started_and_synced_on_entry_and_drained_on_exit(client: Client) -> None:
    for name in "abc":
        await client.create(config_map(name))
    working = RecordingReconciler(lambda _: asyncio.sleep(5))
    manager = Manager(client)
    controller = manager.add_controller(working, resource=KIND)
    assert manager.statistics().state == "new"
    async with manager.running():
        assert manager.statistics().state == "running"
        assert controller.queue.statistics().adds == 3
    assert working.ended == ["a", "b", "c"]
    assert manager.statistics().state == "stopped"


async def test_events_after_the_start_of_a_stop_are_not_reconciled(client: Client) -> None:
    working = RecordingReconciler(lambda _: asyncio.sleep(5))
    manager = Manager(client)
    manager.add_controller(working, resource=KIND)
    await client.create(config_map("a"))
    async with manager.running():
        await asyncio.sleep(1)
        later = asyncio.create_task(create_later(client, "b", 1))
    await later
    assert working.started == ["a"]


async def create_later(client: Client, name: str, seconds: float) -> None:
    await asyncio.sleep(seconds)
    await client.create(config_map(name))


async def test_runnables_start_before_controllers_and_stop_after_them(client: Client) -> None:
    story: list[str] = []

    async def consumer() -> None:
        story.append("consumer starts")
        try:
            await asyncio.sleep(1000)
        finally:
            story.append("consumer ends")

    async def work(_: object) -> None:
        story.append("reconcile starts")
        await asyncio.sleep(5)
        story.append("reconcile ends")

    await client.create(config_map("a"))
    manager = Manager(client)
    manager.add_controller(RecordingReconciler(work), resource=KIND)
    manager.add(consumer)
    async with manager.running():
        await asyncio.sleep(1)
    assert story == ["consumer starts", "reconcile starts", "reconcile ends", "consumer ends"]


async def test_cache_outlives_its_readers(client: Client) -> None:
    found: list[bool] = []
    await client.create(config_map("a"))

    async def consumer() -> None:
        informer = await manager.cache.informer(KIND)
        await informer.wait_synced()
        try:
            await asyncio.sleep(1000)
        finally:
            found.append(manager.cache.started)

    manager = Manager(client)
    manager.add(consumer)
    async with manager.running():
        await asyncio.sleep(1)
    assert found == [True]
    assert not manager.cache.started


async def test_run_returns_after_stop_and_drains(client: Client) -> None:
    await client.create(config_map("a"))
    working = RecordingReconciler(lambda _: asyncio.sleep(5))
    manager = Manager(client)
    manager.add_controller(working, resource=KIND)
    running = asyncio.create_task(manager.run())
    await asyncio.sleep(1)
    manager.stop()
    await running
    assert working.ended == ["a"]
    assert now() == pytest.approx(5, abs=0.1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_drains_ends_run_and_restores_the_handlers(client: Client, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    await client.create(config_map("a"))
    working = RecordingReconciler(lambda _: asyncio.sleep(5))
    manager = Manager(client)
    manager.add_controller(working, resource=KIND)
    running = asyncio.create_task(manager.run())
    await asyncio.sleep(1)
    os.kill(os.getpid(), number)
    await running
    assert working.ended == ["a"]
    assert signal.getsignal(number) is before


async def test_handler_of_a_second_signal_exits_with_1(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    exits: list[int] = []
    monkeypatch.setattr(os, "_exit", exits.append)
    await client.create(config_map("a"))
    manager = Manager(client)
    manager.add_controller(RecordingReconciler(lambda _: asyncio.sleep(20)), resource=KIND)
    running = asyncio.create_task(manager.run())
    await asyncio.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.sleep(1)
    assert exits == []
    os.kill(os.getpid(), signal.SIGINT)
    await asyncio.sleep(1)
    assert exits == [1]
    await running


async def test_signal_during_a_hanging_start_ends_run(server: APIServer, client: Client) -> None:
    server.faults.add(verb={"list", "watch"}, resource="configmaps", stall=True, times=None)
    manager = Manager(client)
    manager.add_controller(RecordingReconciler(), resource=KIND)
    running = asyncio.create_task(manager.run())
    await asyncio.sleep(1)
    manager.stop()
    await running
    assert now() < 10


async def test_manager_runs_only_once(client: Client) -> None:
    manager = Manager(client)
    async with manager.running():
        with pytest.raises(ManagerError, match="runs only once, and this one is running"):
            await manager.run()
    with pytest.raises(ManagerError, match="runs only once, and this one is stopped"):
        async with manager.running():
            pass


async def test_empty_manager_runs_and_stops(client: Client) -> None:
    async with Manager(client).running() as manager:
        assert manager.statistics().controllers == ()


async def test_no_tasks_are_left_behind(client: Client) -> None:
    await client.create(config_map("a"))
    before = asyncio.all_tasks()
    manager = Manager(client, leader_election=LeaderElection("m", namespace="default"))
    manager.add_controller(RecordingReconciler(), resource=KIND)
    manager.add(lambda: asyncio.sleep(1000))
    async with manager.running():
        await asyncio.sleep(60)
    assert asyncio.all_tasks() == before


# The grace period


async def test_work_is_cancelled_after_the_grace_period(client: Client) -> None:
    await client.create(config_map("a"))
    working = RecordingReconciler(lambda _: asyncio.sleep(1000))
    manager = Manager(client, grace_period=20)
    manager.add_controller(working, resource=KIND)
    async with manager.running():
        await asyncio.sleep(1)
    assert working.cancelled == ["a"]
    assert now() == pytest.approx(21, abs=0.1)


async def test_grace_period_of_0_cancels_immediately(client: Client) -> None:
    await client.create(config_map("a"))
    working = RecordingReconciler(lambda _: asyncio.sleep(1000))
    manager = Manager(client, grace_period=0)
    manager.add_controller(working, resource=KIND)
    async with manager.running():
        await asyncio.sleep(1)
    assert working.cancelled == ["a"]
    assert now() == pytest.approx(1, abs=0.1)


async def stubborn(_: object = None) -> None:
    """Take a minute to end, even if cancelled repeatedly."""
    end = now() + 100
    while now() < end:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(end - now())


async def test_error_names_what_did_not_stop(client: Client) -> None:
    await client.create(config_map("a"))
    manager = Manager(client, grace_period=5)
    manager.add_controller(RecordingReconciler(stubborn), resource=KIND)
    manager.add(stubborn)
    with pytest.raises(GracePeriodExceeded) as raised:
        async with manager.running():
            await asyncio.sleep(1)
    assert "grace period of 5 s" in str(raised.value)
    assert "controller configmap (default/a in progress)" in str(raised.value)
    assert "runnable stubborn" in str(raised.value)
    assert now() < 60
    await asyncio.sleep(100)


async def test_second_cancellation_cuts_the_grace_period_short(client: Client) -> None:
    await client.create(config_map("a"))
    working = RecordingReconciler(lambda _: asyncio.sleep(1000))
    manager = Manager(client)
    manager.add_controller(working, resource=KIND)
    running = asyncio.create_task(manager.run())
    await asyncio.sleep(1)
    running.cancel()
    await asyncio.sleep(2)
    assert not running.done()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert working.cancelled == ["a"]
    assert now() == pytest.approx(3, abs=0.1)


@pytest.mark.parametrize(
    ("reconcile_seconds", "end"),
    [
        (10, 30),  # the rest of the 30 seconds
        (29, 39),  # ten seconds in any case
    ],
)
async def test_runnables_have_the_rest_of_the_grace_period_after_the_controllers(
    client: Client, reconcile_seconds: float, end: float
) -> None:
    await client.create(config_map("a"))
    working = RecordingReconciler(lambda _: asyncio.sleep(reconcile_seconds))
    manager = Manager(client, grace_period=30)
    manager.add_controller(working, resource=KIND)
    manager.add(stubborn)
    with pytest.raises(GracePeriodExceeded, match="runnable stubborn"):
        async with manager.running():
            pass
    assert working.ended == ["a"]
    assert now() == pytest.approx(end, abs=0.1)
    await asyncio.sleep(100)


@pytest.mark.parametrize("grace", [-1, float("inf"), float("nan")])
def test_invalid_grace_period_is_refused(grace: float) -> None:
    with pytest.raises(ConfigurationError, match="grace_period"):
        Manager(Client(APIServer()), grace_period=grace)


# Failures


async def test_crash_cancels_the_block_and_is_raised_instead(client: Client) -> None:
    manager = Manager(client)
    manager.add(lambda: crash_after(3))
    ended = asyncio.Event()

    async def block() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            ended.set()

    with pytest.raises(Crash, match="after 3 s"):
        await during(manager, block)
    assert ended.is_set()
    assert now() == pytest.approx(3, abs=0.1)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(1)


async def test_crash_drains_and_is_raised_from_run(client: Client) -> None:
    await client.create(config_map("a"))
    working = RecordingReconciler(lambda _: asyncio.sleep(10))
    manager = Manager(client)
    manager.add_controller(working, resource=KIND)
    manager.add(lambda: crash_after(3))
    with pytest.raises(Crash):
        await manager.run()
    assert working.ended == ["a"]


async def test_crash_keeps_its_cause_and_context(client: Client) -> None:
    async def crash() -> None:
        await asyncio.sleep(1)
        try:
            raise KeyError("first")
        except KeyError as error:
            raise Crash from error

    manager = Manager(client)
    manager.add(crash)
    with pytest.raises(Crash) as raised:
        async with manager.running():
            await asyncio.sleep(10)
    assert isinstance(raised.value.__cause__, KeyError)
    assert raised.value.__context__ is raised.value.__cause__


async def test_crash_during_the_start_is_raised(server: APIServer, client: Client) -> None:
    server.faults.add(verb={"list", "watch"}, resource="configmaps", stall=True, times=None)
    manager = Manager(client)
    manager.add_controller(RecordingReconciler(), resource=KIND)
    manager.add(lambda: crash_after(3))
    with pytest.raises(Crash):
        async with manager.running():
            pytest.fail("the block was entered")
    assert now() < 20


async def test_exception_of_the_block_takes_precedence_and_notes_the_crash(client: Client) -> None:
    manager = Manager(client)
    manager.add(lambda: crash_after(3))

    async def block() -> None:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            raise ValueError("own") from None

    with pytest.raises(ValueError, match="own") as raised:
        await during(manager, block)
    assert any("after 3 s" in note for note in raised.value.__notes__)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_exception_of_the_block_drains_and_is_raised(client: Client) -> None:
    await client.create(config_map("a"))
    working = RecordingReconciler(lambda _: asyncio.sleep(10))
    manager = Manager(client)
    manager.add_controller(working, resource=KIND)

    async def block() -> None:
        await asyncio.sleep(1)
        raise ValueError("own")

    with pytest.raises(ValueError, match="own"):
        await during(manager, block)
    assert working.ended == ["a"]


async def test_cancellation_from_outside_is_not_swallowed(client: Client) -> None:
    manager = Manager(client)
    manager.add(lambda: crash_after(3))

    async def block() -> None:
        async with manager.running():
            await asyncio.sleep(1000)

    task = asyncio.create_task(block())
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_crash_and_exceeded_grace_period_are_both_reported(client: Client) -> None:
    await client.create(config_map("a"))
    manager = Manager(client, grace_period=5)
    manager.add_controller(RecordingReconciler(stubborn), resource=KIND)
    manager.add(lambda: crash_after(3))
    with pytest.raises(Crash) as raised:
        await manager.run()
    assert any("controller configmap" in note for note in raised.value.__notes__)
    await asyncio.sleep(100)


async def test_runnable_that_returns_or_cancels_itself_stops_nothing(client: Client) -> None:
    async def gives_up() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(1)

    manager = Manager(client)
    manager.add(lambda: asyncio.sleep(1))
    manager.add(gives_up)
    async with manager.running():
        await asyncio.sleep(100)


async def test_second_crash_is_logged(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    async def crash_on_end() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            raise OSError("the second")

    manager = Manager(client)
    manager.add(lambda: crash_after(3))
    manager.add(crash_on_end)
    with pytest.raises(Crash):
        await manager.run()
    assert "the second" in caplog.text


async def test_crash_during_the_stop_is_raised(client: Client) -> None:
    async def crash_on_end() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            raise Crash

    manager = Manager(client)
    manager.add(crash_on_end)
    with pytest.raises(Crash):
        async with manager.running():
            await asyncio.sleep(1)


async def test_sync_timeout_names_kind_verb_and_response(server: APIServer, client: Client) -> None:
    server.faults.add(verb={"list", "watch"}, resource="configmaps", status=403, times=None)
    manager = Manager(client)
    manager.add_controller(RecordingReconciler(), resource=KIND, sync_timeout=30)
    with pytest.raises(CacheSyncTimeout) as raised:
        await manager.run()
    text = str(raised.value)
    assert "configmap" in text
    assert "v1/ConfigMap" in text
    assert "list" in text
    assert "403" in text
    assert now() == pytest.approx(30, abs=1)


async def test_sync_timeout_names_a_kind_that_is_not_served(client: Client) -> None:
    manager = Manager(client)
    manager.add_controller(RecordingReconciler(), resource="example.com/v1/Nothing", sync_timeout=5)
    with pytest.raises(CacheSyncTimeout, match=r"example\.com/v1/Nothing"):
        await manager.run()


@pytest.mark.parametrize("declared", [False, True])
async def test_a_first_list_may_take_long_while_objects_arrive(
    server: APIServer, client: Client, declared: bool
) -> None:
    for number in range(1_100):
        await client.create(config_map(f"c{number}"))
    server.faults.add(verb="list", resource="configmaps", latency=55.0, times=None)
    manager = Manager(client)
    if declared:
        await manager.cache.informer(KIND)
    controller = manager.add_controller(RecordingReconciler(), resource=KIND)
    async with manager.running():
        await asyncio.sleep(3 * 55 + 1)
    assert controller.statistics().reconciles == 1_100


async def test_a_list_that_stops_halfway_ends_the_start(server: APIServer, client: Client) -> None:
    for number in range(600):
        await client.create(config_map(f"c{number}"))
    server.faults.add(verb="list", resource="configmaps", status=504, nth=2, times=None)
    manager = Manager(client)
    manager.add_controller(RecordingReconciler(), resource=KIND, sync_timeout=60)
    with pytest.raises(CacheSyncTimeout, match="504"):
        await manager.run()
    assert now() == pytest.approx(120, abs=2)


async def test_new_objects_of_a_listed_kind_do_not_extend_the_wait_for_another_kind(
    server: APIServer, client: Client
) -> None:
    server.faults.add(verb={"list", "watch"}, resource="secrets", status=403, times=None)
    manager = Manager(client)
    for kind in (KIND, "v1/Secret"):
        await manager.cache.informer(kind)

    async def grow() -> None:
        for number in range(60):
            await client.create(config_map(f"c{number}"))
            await asyncio.sleep(10)

    growing = asyncio.create_task(grow())
    with pytest.raises(CacheNotSynced, match="secrets"):
        await manager.run()
    assert now() == pytest.approx(240, abs=2)  # the list of the other kind came within the first 120 s
    growing.cancel()


# What can be added, and when


async def test_controller_names_are_unique_in_a_manager(client: Client) -> None:
    manager = Manager(client)
    manager.add_controller(RecordingReconciler(), resource=KIND)
    with pytest.raises(ConfigurationError, match="a controller named 'configmap' already"):
        manager.add_controller(RecordingReconciler(), resource=KIND)
    manager.add_controller(RecordingReconciler(), resource=KIND, name="second")
    Manager(client).add_controller(RecordingReconciler(), resource=KIND)


async def test_parts_added_while_running_start_immediately(client: Client) -> None:
    await client.create(config_map("a"))
    working, ran = RecordingReconciler(), asyncio.Event()

    async def runnable() -> None:
        ran.set()

    manager = Manager(client)
    async with manager.running():
        manager.add(runnable)
        manager.add_controller(working, resource=KIND)
        await asyncio.sleep(1)
        assert ran.is_set()
        assert working.ended == ["a"]
    with pytest.raises(ManagerError, match="stopped"):
        manager.add(runnable)
    with pytest.raises(ManagerError, match="stopped"):
        manager.add_controller(RecordingReconciler(), resource=KIND, name="late")


async def test_controller_added_while_running_that_cannot_sync_stops_the_manager(client: Client) -> None:
    manager = Manager(client)

    async def block() -> None:
        manager.add_controller(RecordingReconciler(), resource="example.com/v1/Nothing", sync_timeout=5)
        await asyncio.sleep(100)

    with pytest.raises(CacheSyncTimeout):
        await during(manager, block)


async def test_objects_with_run_and_async_functions_are_runnables(client: Client) -> None:
    seen: list[str] = []

    class Thing:
        async def run(self) -> None:
            seen.append("object")

    class Callable_:
        async def __call__(self) -> None:
            seen.append("callable")

    async def function() -> None:
        seen.append("function")

    manager = Manager(client)
    for runnable in (Thing(), Callable_(), function):
        manager.add(runnable)
    async with manager.running():
        await asyncio.sleep(1)
    assert seen == ["object", "callable", "function"]


async def test_error_for_an_invalid_runnable_names_the_valid_forms(client: Client) -> None:
    manager = Manager(client)

    class Thing:
        async def run(self) -> None: ...

    with pytest.raises(TypeError, match="async def run"):
        manager.add(42)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="async def run"):
        manager.add(Thing)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"write add\(crash_after\), without \(\)"):
        manager.add(crash_after(1))  # type: ignore[arg-type]


async def test_namespaces_restrict_watches(server: APIServer, client: Client) -> None:
    await client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "prod"}})
    await client.create(config_map("a"))
    await client.create({**config_map("b"), "metadata": {"name": "b", "namespace": "prod"}})
    working = RecordingReconciler()
    manager = Manager(client, namespaces=["prod"])
    manager.add_controller(working, resource=KIND)
    async with manager.running():
        await asyncio.sleep(1)
    assert working.ended == ["b"]
    with pytest.raises(ConfigurationError, match="namespaces"):
        Manager(client, namespaces=[])


async def test_controllers_work_with_options_of_the_manager(client: Client) -> None:
    await client.create(config_map("a"))

    async def again(_: object) -> Result:
        return Result(requeue_after=10)

    working = RecordingReconciler(again)
    manager = Manager(client)
    controller = manager.add_controller(working, resource=KIND, name="ten", workers=3, timeout=5)
    async with manager.running():
        await asyncio.sleep(25)
    assert len(working.ended) == 3
    assert controller.statistics().workers == 3
    assert [each.name for each in manager.statistics().controllers] == ["ten"]
    assert manager.statistics().leading is None
    manager.check_leader()


async def test_a_base_exception_of_a_predicate_ends_the_manager(client: Client, caplog) -> None:
    """`pytest.fail` in a predicate fails the test, as in a reconcile; the informer does not end unnoticed."""

    def no_secret_names(event: CacheEvent) -> bool:
        if event.object.name == "secret":
            pytest.fail("a secret name")
        return True

    async def create() -> None:
        await client.create(config_map("secret"))
        await asyncio.sleep(60)

    manager = Manager(client)
    manager.add_controller(RecordingReconciler(), resource=KIND, predicates=[no_secret_names])
    with pytest.raises(pytest.fail.Exception, match="a secret name"):
        await during(manager, create)
    assert "the informer of v1/ConfigMap has ended, so its objects are outdated from now on" in caplog.text


async def test_a_runnable_that_is_cancelled_by_others_does_not_end_unnoticed(client: Client) -> None:
    async def wait_for_another_task() -> None:
        task = asyncio.create_task(asyncio.sleep(60))
        asyncio.get_running_loop().call_later(5, task.cancel)
        await task

    manager = Manager(client)
    manager.add(wait_for_another_task)
    with pytest.raises(ManagerError, match="wait_for_another_task was cancelled, but not by the manager"):
        await during(manager, lambda: asyncio.sleep(60))
    assert now() == 5


@pytest.mark.parametrize(
    ("name", "culprit"),
    [
        ("configmap worker 3", "the controller"),
        ("leader election", "the manager"),
        ("the cache", "the manager"),
    ],
)
async def test_a_task_that_somebody_cancels_does_not_end_unnoticed(client: Client, name: str, culprit: str) -> None:
    async def cancel() -> None:
        await asyncio.sleep(5)
        for task in asyncio.all_tasks():
            if task.get_name().endswith(name):
                task.cancel()
        await asyncio.sleep(60)

    manager = Manager(client, leader_election=LeaderElection("lease", "default"))
    manager.add_controller(RecordingReconciler(), resource=KIND, workers=4)
    with pytest.raises(ReconcilerError, match=f"{name} was cancelled, but not by {culprit}"):
        await during(manager, cancel)
    assert now() == 5


async def test_all_tasks_cancelled_is_no_failure_of_the_manager(client: Client, caplog) -> None:
    """As `asyncio.run` does with what is left when its coroutine ends."""
    manager = Manager(client)
    manager.add_controller(RecordingReconciler(), resource=KIND)
    manager.add(lambda: asyncio.sleep(3600))
    running = asyncio.create_task(manager.run())
    await asyncio.sleep(5)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_runnable_added_while_the_controllers_start_runs(client: Client) -> None:
    ran: list[str] = []

    async def inner() -> None:
        ran.append("inner")

    async def outer() -> None:
        ran.append("outer")
        manager.add(inner)

    manager = Manager(client)
    manager.add_controller(RecordingReconciler(), resource=KIND)
    manager.add(outer)
    async with manager.running():
        pass
    assert ran == ["outer", "inner"]


async def test_runnable_that_is_not_async_says_what_to_write(client: Client) -> None:
    def consume() -> int:
        return 5

    manager = Manager(client)
    manager.add(consume)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"consume returned 5 and nothing to await: write it as 'async def'"):
        await manager.run()


# Several managers in one process


async def test_a_signal_stops_every_manager_of_the_process(client: Client) -> None:
    managers = [Manager(client) for _ in range(3)]
    running = [asyncio.create_task(each.run()) for each in managers]
    await asyncio.sleep(1)
    managers[2].stop()  # the last one to start ends first
    await running[2]
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(10):
        await asyncio.gather(*running)


async def test_a_manager_that_starts_after_the_signal_is_stopped(client: Client) -> None:
    draining = Manager(client)
    await client.create(config_map("a"))
    draining.add_controller(RecordingReconciler(lambda _: asyncio.sleep(20)), resource=KIND)
    first = asyncio.create_task(draining.run())
    await asyncio.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.sleep(1)
    async with asyncio.timeout(10):
        await Manager(client).run()
    await first


async def test_a_refused_second_run_leaves_the_first_to_its_signals(client: Client) -> None:
    manager = Manager(client)
    running = asyncio.create_task(manager.run())
    await asyncio.sleep(1)
    with pytest.raises(ManagerError, match="runs only once"):
        await manager.run()
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(10):
        await running


def test_manager_is_stopped_from_another_thread() -> None:
    started, managers = threading.Event(), list[Manager]()

    async def main() -> None:
        async with APIServer() as server, Client(server) as client:
            manager = Manager(client)
            managers.append(manager)
            manager.add(mark_started)
            await manager.run()

    async def mark_started() -> None:
        started.set()

    thread = threading.Thread(target=lambda: asyncio.run(main(), debug=True), daemon=True)
    thread.start()
    started.wait(30)
    managers[0].stop()
    thread.join(30)
    assert managers[0].statistics().state == "stopped"
    managers[0].stop()


async def test_controllers_that_were_stopped_alone_are_released(client: Client) -> None:
    stopped = []
    async with Manager(client).running() as manager:
        for _ in range(10):
            alone = Controller(
                RecordingReconciler(), cache=manager.cache, client=manager.client, resource=KIND, owns=["v1/Secret"]
            )
            await alone.start()
            added = manager.add_controller(RecordingReconciler(), resource=KIND, name="added", owns=["v1/Secret"])
            await asyncio.sleep(1)
            for controller in (alone, added):
                await controller.stop()
                stopped.append(weakref.ref(controller))
            del alone, added, controller
            await asyncio.sleep(1)
        gc.collect()
        assert [controller for controller in stopped if controller() is not None] == []
        assert manager.controllers == ()


class Outcome(BaseException):
    """A BaseException, such as the outcome of ``pytest.fail``."""


def fail(*_: object) -> Any:
    raise Outcome


async def fail_later(*_: object) -> Any:
    raise Outcome


class Limiter(ExponentialBackoff):
    def when(self, key: object, /) -> float:
        raise Outcome


class Threaded(Reconciler):
    def reconcile(self, request: Request, /) -> Any:
        raise Outcome


async def crash_after_nothing(_: Request) -> None:
    raise Crash


USER_CODE: dict[str, Callable[[Manager], object]] = {
    "reconcile": lambda manager: manager.add_controller(RecordingReconciler(fail_later), resource=KIND),
    "thread": lambda manager: manager.add_controller(Threaded(), resource=KIND),
    "predicate": lambda manager: manager.add_controller(
        RecordingReconciler(), resource=KIND, predicates=[Predicate(fail)]
    ),
    "mapper": lambda manager: manager.add_controller(
        RecordingReconciler(), resource="v1/Secret", watches=[Watch(KIND, mapper=fail)]
    ),
    "async mapper": lambda manager: manager.add_controller(
        RecordingReconciler(), resource="v1/Secret", watches=[Watch(KIND, mapper=fail_later)]
    ),
    "source": lambda manager: manager.add_controller(RecordingReconciler(), resource=KIND, sources=[fail_later]),
    "rate limiter": lambda manager: manager.add_controller(
        RecordingReconciler(crash_after_nothing), resource=KIND, rate_limiter=Limiter(1, 10)
    ),
    "index": lambda manager: (
        manager.cache.add_index(KIND, "spec.field", fail),
        manager.add_controller(RecordingReconciler(), resource=KIND),
    ),
    "runnable": lambda manager: manager.add(fail_later),
}


@pytest.mark.parametrize("where", USER_CODE)
async def test_base_exception_of_user_code_ends_the_manager_which_raises_it(client: Client, where: str) -> None:
    await client.create(config_map("a"))
    manager = Manager(client)
    USER_CODE[where](manager)
    with pytest.raises(Outcome):
        await asyncio.wait_for(manager.run(), 60)
