"""The reconciles that count as a tight loop: those that events cause, not those that somebody asked for."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from reconciler.controller import ChannelSource, Result, Watch
from reconciler.meta import Request
from reconciler.workqueue import ExponentialBackoff
from tests.controller.conftest import KeyReconciler, Widget, WidgetReconciler, World, quiet

pytestmark = pytest.mark.virtual_time

KEY = Request("w", "ns")


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if "tight loop" in record.message]


async def test_object_that_always_fails_is_not_a_tight_loop(world: World, caplog) -> None:
    async def body(reconciler, obj, status):
        raise RuntimeError("no")

    reconciler = WidgetReconciler(body)
    controller = await world.start(reconciler)
    await world.widget()
    await quiet(600)
    assert len([time for time in reconciler.times if time < 10]) > 10  # the default backoff begins with 5 ms
    assert (controller.statistics().storms, warnings(caplog)) == (0, [])


@pytest.mark.parametrize("result", [Result(requeue_after=0.1), Result(again=True)])
async def test_reconcile_that_asks_for_the_next_one_is_not_a_tight_loop(world: World, caplog, result) -> None:
    async def body(reconciler, request):
        return result

    reconciler = KeyReconciler(body)
    controller = await world.start(reconciler, resource=Widget)
    controller.enqueue(KEY)
    await quiet(10)
    assert len(reconciler.runs) > 11
    assert (controller.statistics().storms, warnings(caplog)) == (0, [])


async def test_timer_of_enqueue_is_not_a_tight_loop_but_enqueue_is(world: World, caplog) -> None:
    delay: float | None = 0.1

    async def body(reconciler, request):
        if len(reconciler.runs) % 50:
            controller.enqueue(request, "mine", after=delay)

    reconciler = KeyReconciler(body)
    controller = await world.start(reconciler, resource=Widget)
    controller.enqueue(KEY)
    await quiet(60)
    assert len(reconciler.runs) == 50
    assert (controller.statistics().storms, warnings(caplog)) == (0, [])
    delay = None
    controller.enqueue(KEY)
    await quiet(60)
    assert len(reconciler.runs) == 100
    assert controller.statistics().storms == 1
    assert "because of: enqueue: mine x10, enqueue x1" in warnings(caplog)[0]


async def test_delays_of_a_source_are_not_a_tight_loop(world: World) -> None:
    async def every_key_often(enqueue):
        for _ in range(50):
            enqueue(KEY, after=0.05)
            await quiet(0.1)

    reconciler = KeyReconciler()
    controller = await world.start(reconciler, resource=Widget, sources=[every_key_often])
    await quiet(60)
    assert len(reconciler.runs) > 20
    assert controller.statistics().storms == 0


async def test_source_that_enqueues_a_key_too_often_is_a_tight_loop(world: World) -> None:
    async def items():
        for _ in range(20):
            yield KEY
            await quiet(0.1)

    controller = await world.start(KeyReconciler(), resource=Widget, sources=[ChannelSource(items())])
    await quiet(60)
    assert controller.statistics().storms == 1


@pytest.mark.parametrize("options", [{}, {"debounce": 0.5}])
async def test_reconcile_that_wakes_itself_by_events_is_a_tight_loop(world: World, caplog, options) -> None:
    async def body(reconciler, obj, status):
        if len(reconciler.runs) < 50:
            await reconciler.client.patch(Widget, obj.name, "ns", patch={"spec": {"size": obj.spec.size + 1}})

    controller = await world.start(WidgetReconciler(body), **options)
    await world.widget()
    await quiet(60)
    [warning] = warnings(caplog)
    assert "ns/w was reconciled 11 times within 10 s, because of: event x11" in warning
    assert controller.statistics().storms == 1


async def test_failing_reconcile_that_wakes_itself_by_events_is_a_tight_loop(world: World, caplog) -> None:
    async def body(reconciler, obj, status):
        if len(reconciler.runs) < 50:  # such a loop takes no virtual time
            await reconciler.client.patch(Widget, obj.name, "ns", patch={"spec": {"size": obj.spec.size + 1}})
        raise RuntimeError("no")

    controller = await world.start(WidgetReconciler(body))
    await world.widget()
    await quiet(2)
    assert controller.statistics().storms == 1
    assert "event" in warnings(caplog)[0]


DEPLOYMENT = "apps/v1/Deployment"
CHILD = "v1/ConfigMap"


def deployment(name: str) -> dict:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": "nginx"}]}}
    spec = {"replicas": 8, "selector": {"matchLabels": labels}, "template": template}
    metadata = {"name": name, "namespace": "ns"}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}


async def test_deployments_that_become_ready_are_not_a_tight_loop(world: World, caplog) -> None:
    async def body(reconciler, obj, status):
        children = [await reconciler.client.apply(deployment(name), owner=obj) for name in "abc"]
        status.set(runs=sum(child.get("status", {}).get("readyReplicas", 0) for child in children))

    reconciler = WidgetReconciler(body)
    controller = await world.start(reconciler, owns=[DEPLOYMENT])
    await world.widget()
    await quiet(1)
    for ready in range(1, 9):
        for name in "abc":
            patch = {"status": {"replicas": 8, "readyReplicas": ready}}
            await world.foreign.patch(DEPLOYMENT, name, "ns", patch=patch, subresource="status")
            await quiet(0.2)
    assert len(reconciler.runs) > 20
    assert (await world.read()).status.runs == 24
    assert (controller.statistics().storms, warnings(caplog)) == (0, [])


def child(data: str) -> dict:
    metadata = {"name": "child", "namespace": "ns"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"by": data}}


@pytest.mark.parametrize("metadata_only", [False, True])
async def test_parent_that_rewrites_its_child_is_a_tight_loop(world: World, caplog, metadata_only: bool) -> None:
    async def body(reconciler, obj, status):
        if len(reconciler.runs) < 50:
            await reconciler.client.apply(child(str(len(reconciler.runs))), owner=obj)

    watch = Watch(CHILD, mapper=lambda _: [KEY], metadata_only=metadata_only)
    controller = await world.start(WidgetReconciler(body), watches=[watch])
    await world.widget()
    await quiet(60)
    assert controller.statistics().storms == 1
    assert "watched: ConfigMap x1" in warnings(caplog)[0]


@pytest.mark.parametrize("delay", [0.0, 0.3])
async def test_controllers_that_fight_over_a_child_are_a_tight_loop(world: World, caplog, delay: float) -> None:
    async def ours(reconciler, obj, status):
        if len(reconciler.runs) < 100:
            await reconciler.client.apply(child("ours"), owner=obj, force=True)
            await quiet(delay)

    async def theirs():
        async for event in world.foreign.watch(CHILD, "ns"):
            if event.object.name == "child" and event.object["data"]["by"] == "ours":
                await quiet(0.1)
                await world.foreign.patch(CHILD, "child", "ns", patch={"data": {"by": "theirs"}})

    async with asyncio.TaskGroup() as group:
        fighting = group.create_task(theirs())
        controller = await world.start(WidgetReconciler(ours), owns=[CHILD])
        await world.widget()
        await quiet(20)
        fighting.cancel()
    assert controller.statistics().storms == 1
    assert "owned: ConfigMap" in warnings(caplog)[0]


async def test_steps_that_do_not_end_are_reported_and_come_every_few_seconds(world: World, caplog) -> None:
    async def body(reconciler, request):
        return Result(again=True)

    reconciler = KeyReconciler(body)
    controller = await world.start(reconciler, resource=Widget)
    controller.enqueue(KEY)
    await quiet(20)
    assert warnings(caplog) == []
    await quiet(980)
    assert max(later - earlier for earlier, later in itertools.pairwise(reconciler.times)) == pytest.approx(5)
    assert controller.statistics().storms == len(warnings(caplog)) == 4, "every five minutes"
    assert "ns/w was reconciled 16 times in a row, because of: again x16; return requeue_after" in warnings(caplog)[0]


async def test_steps_have_the_delays_of_a_rate_limiter_that_was_chosen(world: World) -> None:
    async def body(reconciler, request):
        return Result(again=True)

    reconciler = KeyReconciler(body)
    controller = await world.start(reconciler, resource=Widget, rate_limiter=ExponentialBackoff(1, 100))
    controller.enqueue(KEY)
    await quiet(1000)
    assert reconciler.times[-1] - reconciler.times[-2] == pytest.approx(100)
