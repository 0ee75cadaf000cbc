"""Bursts of changes that are reconciled once, and never block the key."""

from __future__ import annotations

import asyncio

import pytest

from reconciler.controller import Outcome, Result, Watch
from reconciler.controller.wake.handlers import FAN_OUT_THRESHOLD, LOW_PRIORITY
from reconciler.errors import ConfigurationError
from reconciler.meta import Request
from tests.controller.conftest import KeyReconciler, Widget, WidgetReconciler, World, quiet

pytestmark = pytest.mark.virtual_time


def config(name: str, **data: str) -> dict:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "ns"}, "data": data}


async def test_a_burst_is_one_reconcile_that_sees_its_last_change(world: World) -> None:
    reconciler = WidgetReconciler()
    await world.start(reconciler, debounce=2)
    begin = asyncio.get_running_loop().time()
    await world.widget()
    for size in (2, 3, 4):
        await asyncio.sleep(0.5)
        await world.resize(size)
    await quiet(10)
    assert reconciler.sizes == [4]
    assert reconciler.times[0] - begin == pytest.approx(2, abs=0.1)


async def test_continuous_changes_do_not_block_the_key(world: World) -> None:
    reconciler = WidgetReconciler()
    await world.start(reconciler, debounce=2)
    await world.widget()
    for size in range(2, 42):
        await asyncio.sleep(0.5)
        await world.resize(size)
    assert len(reconciler.runs) in (9, 10)  # 20 s of changes, each reconcile at most 2 s after its first change
    await quiet(10)
    assert reconciler.sizes[-1] == 41


async def test_changes_of_other_kinds_are_debounced_too(world: World) -> None:
    reconciler = KeyReconciler()
    watch = Watch("v1/ConfigMap", mapper=lambda obj: [Request("w", "ns")])
    await world.start(reconciler, resource=Widget, watches=[watch], debounce=1)
    for number in range(5):
        await world.foreign.create(config(f"c{number}"))
    await quiet(5)
    assert reconciler.keys == ["ns/w"]


async def test_initial_objects_and_requested_reconciles_are_not_debounced(world: World) -> None:
    reconciler = WidgetReconciler()
    await world.widget()
    controller = await world.start(reconciler, debounce=100)
    await quiet()
    controller.enqueue(Request("w", "ns"), "by hand")
    await quiet()
    assert [set(reasons) for _, reasons in reconciler.runs] == [{"event"}, {"enqueue: by hand"}]


async def test_an_own_write_is_still_an_echo(world: World) -> None:
    reconciler = WidgetReconciler()
    await world.start(reconciler, debounce=2)
    await world.widget()
    await quiet(60)
    assert len(reconciler.runs) == 1
    assert world.status_writes() == 1


async def test_a_requested_delay_is_not_shortened_by_the_echo(world: World) -> None:
    async def body(reconciler, obj, status) -> Outcome:
        return Result(requeue_after=50)

    reconciler = WidgetReconciler(body)
    await world.start(reconciler, debounce=2)
    await world.widget()
    await quiet(60)
    assert reconciler.times[1] - reconciler.times[0] == pytest.approx(50, abs=0.1)


@pytest.mark.parametrize("debounce", [0, -1, float("nan"), "1"])
async def test_an_invalid_debounce_is_rejected(world: World, debounce) -> None:
    with pytest.raises(ConfigurationError, match="debounce"):
        world.controller(WidgetReconciler(), debounce=debounce)


@pytest.mark.parametrize(("keys", "priority"), [(FAN_OUT_THRESHOLD, 0), (FAN_OUT_THRESHOLD + 1, LOW_PRIORITY)])
async def test_one_change_that_enqueues_many_keys_does_not_delay_others(world: World, keys: int, priority: int) -> None:
    priorities: list[int] = []

    async def body(reconciler, request) -> Outcome:
        priorities.append(reconciler.run.priority)
        return None

    watch = Watch("v1/ConfigMap", mapper=lambda obj: [Request(f"w{number}", "ns") for number in range(keys)])
    await world.start(KeyReconciler(body), resource=Widget, watches=[watch])
    await world.foreign.create(config("shared"))
    await quiet()
    assert priorities == [priority] * keys


async def test_a_key_of_a_fan_out_whose_own_object_changes_goes_first(world: World) -> None:
    order: list[str] = []
    release = asyncio.Event()

    async def body(reconciler, request) -> Outcome:
        order.append(request.name)
        if request.name == "blocker":
            await release.wait()
        return None

    watch = Watch("v1/ConfigMap", mapper=lambda obj: [Request(f"w{number:02}", "ns") for number in range(20)])
    await world.start(KeyReconciler(body), resource=Widget, watches=[watch])
    await world.widget("blocker")
    await quiet()
    await world.foreign.create(config("shared"))
    await quiet()
    await world.widget("w15")
    await quiet()
    release.set()
    await quiet()
    assert order[:3] == ["blocker", "w15", "w00"]
    assert len(order) == 21
