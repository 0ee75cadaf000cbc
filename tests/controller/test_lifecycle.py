"""Starting and stopping a controller, its options, metrics and statistics."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses

import pytest

from reconciler.controller import CacheSyncTimeout, Result, Watch
from reconciler.controller.result import ControllerError
from reconciler.errors import ConfigurationError, NotSent
from reconciler.meta import Request
from reconciler.objects import Model, ObjectMeta, Resource
from tests.controller.conftest import KeyReconciler, Widget, WidgetReconciler, World, quiet

pytestmark = pytest.mark.virtual_time

KEY = Request("w", "ns")


class Late(Resource[Model], group="example.com", version="v1", plural="lates"):
    """A kind that is installed late."""


async def test_workers_start_when_every_handler_has_received_all_objects(world: World) -> None:
    depth = []

    async def body(reconciler, request):
        depth.append(len(controller.queue))

    for number in range(20):
        await world.widget(f"w{number}")
        await world.foreign.create(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"m{number}", "namespace": "ns"}}
        )
    controller = world.controller(KeyReconciler(body), resource=Widget, watches=[Watch("v1/ConfigMap")])
    await world.cache.start()
    await controller.start()
    await quiet()
    assert depth[0] == 39


async def test_initial_list_goes_through_async_mappers_before_the_workers_start(world: World) -> None:
    depth = []

    async def body(reconciler, request):
        depth.append(len(controller.queue))

    async def mapper(one):
        await asyncio.sleep(1)
        return [Request(one.name, "ns")]

    for number in range(5):
        await world.foreign.create(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"m{number}", "namespace": "ns"}}
        )
    reconciler = KeyReconciler(body)
    controller = world.controller(reconciler, resource=Widget, watches=[Watch("v1/ConfigMap", mapper=mapper)])
    await world.cache.start()
    await controller.start()
    await quiet()
    assert depth[0] == 4


async def test_controller_starts_once(world: World) -> None:
    controller = await world.start(WidgetReconciler())
    with pytest.raises(ControllerError, match="was already started"):
        await controller.start()
    await controller.stop()
    with pytest.raises(ControllerError, match="was already started"):
        await controller.start()


async def test_start_waits_for_a_kind_that_is_not_installed(world: World) -> None:
    reconciler = KeyReconciler()
    controller = world.controller(reconciler, resource="example.com/v1/Late")
    await world.cache.start()
    starting = asyncio.create_task(controller.start())
    await quiet(20)
    assert not starting.done()
    await world.server.apply(Late)
    await world.foreign.create(Late(metadata=ObjectMeta(name="l", namespace="ns"), spec=Model()))
    await starting
    await quiet()
    assert reconciler.keys == ["ns/l"]


@pytest.mark.parametrize("watched", [False, True])
async def test_missing_kind_fails_the_start_with_the_last_error(world: World, watched: bool) -> None:
    kind = "example.com/v1/Late"
    options = {"resource": Widget, "watches": [Watch(kind)]} if watched else {"resource": kind}
    controller = world.controller(KeyReconciler(), name="mine", sync_timeout=30, **options)
    await world.cache.start()
    with pytest.raises(
        CacheSyncTimeout, match=r"'mine': example.com/v1/Late .* within 30 s.*that the kind is installed"
    ):
        await controller.start()
    assert asyncio.get_running_loop().time() == pytest.approx(30, abs=1)


async def test_start_without_a_started_cache_says_so(world: World) -> None:
    controller = world.controller(WidgetReconciler(), sync_timeout=5)
    with pytest.raises(CacheSyncTimeout, match="that the cache is started"):
        await controller.start()


async def test_stop_finishes_what_is_in_progress_and_ready(world: World) -> None:
    done = []

    async def body(reconciler, request):
        await asyncio.sleep(1)
        done.append(request.name)

    controller = await world.start(KeyReconciler(body), resource=Widget)
    for name in "abc":
        controller.enqueue(Request(name, "ns"))
    await quiet(0.5)
    await controller.stop(grace=10)
    assert done == ["a", "b", "c"]
    assert asyncio.get_running_loop().time() == pytest.approx(3)
    assert controller.statistics().cancelled == 0


async def test_a_short_grace_period_is_respected(world: World) -> None:
    done = []

    async def body(reconciler, request):
        await asyncio.sleep(0.2)
        done.append(request.name)

    controller = await world.start(KeyReconciler(body), resource=Widget)
    controller.enqueue(KEY)
    controller.enqueue(Request("ready", "ns"))
    await quiet(0.1)
    await controller.stop(grace=0.5)
    assert done == ["w", "ready"]


async def test_stop_cancels_what_exceeds_the_grace_period_and_waits_for_its_end(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    ended = []

    async def body(reconciler, request):
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(5)
            ended.append(request.name)

    controller = await world.start(KeyReconciler(body), resource=Widget)
    controller.enqueue(KEY)
    controller.enqueue(Request("ready", "ns"))
    await quiet()
    await controller.stop(grace=10)
    assert ended == ["w"]
    assert asyncio.get_running_loop().time() == pytest.approx(16)
    statistics = controller.statistics()
    assert (statistics.cancelled, statistics.reconciles, statistics.results) == (1, 0, {})
    assert statistics.queue.dropped_ready == 1
    cancelling = "widget: the 10 s of grace are over: cancelling the reconciles of ns/w, 1 keys are ready"
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [cancelling]


async def test_stop_with_no_grace_still_writes_the_status(world: World) -> None:
    async def body(reconciler, obj, status):
        status.increment("runs")
        await asyncio.sleep(1000)

    controller = await world.start(WidgetReconciler(body))
    await world.widget()
    await quiet()
    await controller.stop(grace=0)
    assert (await world.read()).status.runs == 1


async def test_cancelling_stop_ends_the_grace_period(world: World) -> None:
    async def body(reconciler, request):
        await asyncio.sleep(1000)

    controller = await world.start(KeyReconciler(body), resource=Widget)
    controller.enqueue(KEY)
    await quiet()
    stopping = asyncio.create_task(controller.stop(grace=500))
    await quiet()
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    assert controller.statistics().cancelled == 1
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("widget")]


async def test_stop_before_start_and_twice_is_harmless(world: World) -> None:
    controller = world.controller(WidgetReconciler())
    await controller.stop()
    await controller.stop()
    with pytest.raises(ControllerError):
        await controller.start()


async def test_stop_during_the_start_leaves_nothing(world: World) -> None:
    controller = world.controller(KeyReconciler(), resource="example.com/v1/Late")
    await world.cache.start()
    starting = asyncio.create_task(controller.start())
    await quiet()
    await controller.stop()
    await starting
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("late")]


async def test_stop_while_another_kind_is_being_listed_leaves_nothing(world: World) -> None:
    controller = world.controller(KeyReconciler(), resource=Widget, watches=[Watch("example.com/v1/Late")])
    await world.cache.start()
    starting = asyncio.create_task(controller.start())
    await quiet()
    await controller.stop()
    await starting
    assert controller.statistics().queue.idle_workers == 0
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("widget")]


async def test_events_after_the_stop_are_ignored(world: World) -> None:
    reconciler = WidgetReconciler()
    controller = await world.start(reconciler)
    await controller.stop()
    await world.widget()
    await quiet(60)
    assert reconciler.runs == []
    assert not controller.queue.keys()
    assert [informer.handlers for informer in world.cache.statistics().informers] == [0]


async def test_run_works_until_it_is_stopped(world: World) -> None:
    reconciler = WidgetReconciler()
    controller = world.controller(reconciler)
    await world.cache.start()
    running = asyncio.create_task(controller.run())
    await world.widget()
    await quiet()
    assert len(reconciler.runs) == 1
    await controller.stop()
    await running


async def test_cancelling_run_stops_with_the_grace_period(world: World) -> None:
    ended = []

    async def body(reconciler, request):
        await asyncio.sleep(3)
        ended.append(request.name)

    controller = world.controller(KeyReconciler(body), resource=Widget)
    await world.cache.start()
    running = asyncio.create_task(controller.run(grace=10))
    await quiet()
    controller.enqueue(KEY)
    await quiet()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert ended == ["w"]


async def test_warm_up_enqueues_and_does_not_reconcile(world: World) -> None:
    reconciler = WidgetReconciler()
    controller = world.controller(reconciler)
    await world.cache.start()
    await controller.warm_up()
    await world.widget()
    await quiet(10)
    assert (len(controller.queue), reconciler.runs) == (1, [])
    await controller.start()
    await quiet()
    assert len(reconciler.runs) == 1


async def test_workers_reconcile_concurrently_but_never_one_key_twice(world: World) -> None:
    most = 0

    async def body(reconciler, obj, status):
        nonlocal most
        most = max(most, len(reconciler.active))
        await asyncio.sleep(1)
        return Result(again=True) if len(reconciler.runs) < 30 else None

    await world.start(WidgetReconciler(body), workers=3)
    for number in range(5):
        await world.widget(f"w{number}")
    await quiet(60)
    assert most == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "not a name"}, "letters, digits"),
        ({"name": "x" * 64}, "letters, digits"),
        ({"workers": 0}, "workers must be 1"),
        ({"timeout": 0}, "timeout must be"),
        ({"timeout": float("inf")}, "timeout must be"),
    ],
)
async def test_options_are_checked(world: World, options, message) -> None:
    with pytest.raises(ConfigurationError, match=message):
        world.controller(WidgetReconciler(), **options)


async def test_plain_reconciler_must_state_its_kind(world: World) -> None:
    with pytest.raises(ConfigurationError, match="KeyReconciler does not state its kind"):
        world.controller(KeyReconciler())


@pytest.mark.parametrize("cancelled", [True, False])
async def test_a_source_that_does_not_end_does_not_delay_the_stop_of_workers(world: World, cancelled: bool) -> None:
    """The workers stop at once, even if `stop` waits for something else: another process may already have the keys."""
    ended = asyncio.Event()

    async def stubborn(enqueue):
        while not ended.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await ended.wait()

    async def body(reconciler, request):
        await asyncio.Event().wait()

    controller = await world.start(KeyReconciler(body), resource=Widget, sources=[stubborn])
    controller.enqueue(KEY)
    await quiet()
    assert controller.statistics().active == 1
    stopping = asyncio.create_task(controller.stop(grace=30))
    await quiet(0.1)
    if cancelled:
        stopping.cancel()
    await quiet(0.1 if cancelled else 31)
    assert controller.statistics().active == 0
    assert not stopping.done()
    controller.enqueue(KEY)
    await quiet()
    assert controller.statistics().reconciles + controller.statistics().cancelled == 1
    ended.set()
    with contextlib.suppress(asyncio.CancelledError):
        await stopping
    await controller.stop()


async def test_stop_that_is_cancelled_twice_returns_and_continues(world: World) -> None:
    done = asyncio.Event()

    async def body(reconciler, request):
        while not done.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await done.wait()

    controller = await world.start(KeyReconciler(body), resource=Widget)
    controller.enqueue(KEY)
    await quiet()
    stopping = asyncio.create_task(controller.stop(grace=30))
    await quiet(0.1)
    stopping.cancel()
    await quiet(0.1)
    assert not stopping.done()
    stopping.cancel()
    await quiet(0.1)
    assert stopping.cancelled()
    assert controller.statistics().active == 1
    done.set()
    await controller.stop()
    assert controller.statistics().active == 0


async def test_name_defaults_to_the_kind_in_lower_case(world: World) -> None:
    reconciler = WidgetReconciler()
    controller = world.controller(reconciler)
    assert controller.name == reconciler.name == "widget"


async def test_events_are_sent_without_a_manager(world: World) -> None:
    async def body(reconciler, obj, status):
        reconciler.events.normal(obj, "Done", "It is done")

    await world.start(WidgetReconciler(body))
    await world.widget()
    await quiet(60)
    assert [event["message"] for event in await world.foreign.list("v1/Event", "ns")] == ["It is done"]


async def test_enqueue_from_a_thread(world: World) -> None:
    reconciler = KeyReconciler()
    controller = await world.start(reconciler, resource=Widget)
    await asyncio.to_thread(controller.enqueue, KEY, "from a thread")
    await quiet()
    assert reconciler.runs[0][2] == {"enqueue: from a thread"}


@pytest.mark.parametrize("entry", ["enqueue", "queue", "source"])
async def test_a_thread_with_its_own_loop_can_delay_a_key(world: World, entry: str) -> None:
    """The timer is the controller's, so no delay is lost with the thread's loop."""
    enqueued = []

    async def source(enqueue):
        enqueued.append(enqueue)
        await asyncio.Event().wait()

    async def delay() -> None:
        if entry == "enqueue":
            controller.enqueue(KEY, after=5)
        elif entry == "queue":
            controller.queue.add(KEY, after=5)
        else:
            enqueued[0](KEY, after=5)

    reconciler = KeyReconciler()
    controller = await world.start(reconciler, resource=Widget, sources=[source])
    await quiet(1)
    start = asyncio.get_running_loop().time()
    await asyncio.to_thread(lambda: asyncio.run(delay()))
    await quiet(10)
    controller.enqueue(KEY, after=20)
    await quiet(30)
    assert [time - start for time in reconciler.times] == pytest.approx([5, 30], abs=0.1)


async def test_enqueue_after_a_delay(world: World) -> None:
    reconciler = KeyReconciler()
    controller = await world.start(reconciler, resource=Widget)
    controller.enqueue(KEY, after=5)
    await quiet(20)
    assert reconciler.times == [5]


async def test_reason_of_a_caller_is_never_an_echo(world: World) -> None:
    async def body(reconciler, obj, status):
        if len(reconciler.runs) == 1:
            controller.enqueue(obj.key, "event")

    reconciler = WidgetReconciler(body)
    controller = await world.start(reconciler)
    await world.widget()
    await quiet(60)
    assert len(reconciler.runs) == 2


class Metrics:
    def __init__(self) -> None:
        self.calls: list[tuple] = []

    def __getattr__(self, name):
        return lambda *args, **kwargs: self.calls.append((name, *args, kwargs))


async def test_metrics_read_the_statistics_and_receive_durations(world: World) -> None:
    active = []

    async def body(reconciler, obj, status):
        active.append(statistics().active)
        await asyncio.sleep(2)
        if len(reconciler.runs) == 1:
            raise NotSent("no network")

    metrics = Metrics()
    controller = await world.start(WidgetReconciler(body), workers=2, metrics=metrics)
    (statistics,) = [args[0] for name, *args in metrics.calls if name == "watch"]
    await world.widget()
    await quiet(60)
    assert (*active, statistics().active, statistics().workers) == (1, 1, 0, 2)
    assert statistics() == controller.statistics()
    assert (statistics().results, statistics().echo.dropped) == ({"error": 1, "success": 1}, 1)
    assert statistics().reasons == {"event": 1, "retry": 1}
    durations = [args[0] for name, *args in metrics.calls if name == "observe_reconcile_duration"]
    assert durations == [pytest.approx(2, abs=0.1)] * 2
    await controller.stop()
    (last,) = [args[0] for name, *args in metrics.calls if name == "watch" and args[0] != statistics]
    assert last() == dataclasses.replace(statistics(), queue=last().queue)


async def test_counted_reasons_are_bounded(world: World) -> None:
    controller = await world.start(WidgetReconciler())
    await world.widget()
    for number in range(40):
        controller.queue.add(KEY, reason=f"word{number}")
        await quiet(1)
    reasons = controller.statistics().reasons
    assert len(reasons) == 26
    assert reasons["exceeded_cardinality_limit"] == 40 + 1 - 25


async def test_status_metrics_receive_the_flushes_of_the_batchers(world: World) -> None:
    metrics = Metrics()
    await world.start(WidgetReconciler(), status_metrics=metrics)
    await world.widget()
    await quiet()
    assert [name for name, *_ in metrics.calls] == ["flushed"]


async def test_statistics_are_a_snapshot(world: World) -> None:
    controller = await world.start(WidgetReconciler(), workers=3)
    before = controller.statistics()
    await world.widget()
    await quiet()
    after = controller.statistics()
    assert (before.reconciles, after.reconciles, after.name, after.workers, after.active) == (0, 1, "widget", 3, 0)
    assert after.queue.gets == 1
    assert after.echo.known == 1


async def test_enqueue_refuses_what_is_not_a_request(world: World) -> None:
    reconciler = KeyReconciler()
    controller = await world.start(reconciler, resource=Widget)
    with pytest.raises(TypeError, match=r"enqueue takes a Request\(name, namespace\), not 'ns/w'"):
        controller.enqueue("ns/w")  # type: ignore[arg-type]
    controller.enqueue(KEY)
    await quiet()
    assert reconciler.keys == ["ns/w"]
