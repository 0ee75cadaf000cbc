"""The reconciles that count as a tight loop: those that events cause, not those that somebody asked for."""

from __future__ import annotations

import pytest

from reconciler.controller import ChannelSource, Result
from reconciler.meta import Request
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
