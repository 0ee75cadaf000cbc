"""A reconcile that works in steps: fair to other keys, and ended when the controller stops."""

from __future__ import annotations

import asyncio

import pytest

from reconciler.clock import current_clock
from reconciler.controller import Result
from tests.controller.conftest import WidgetReconciler, World, quiet

pytestmark = pytest.mark.virtual_time


async def test_again_starts_no_further_step_when_the_controller_stops(world: World) -> None:
    async def step(reconciler, obj, status):
        await asyncio.sleep(1)
        status.increment("runs")
        return Result(again=True)

    reconciler = WidgetReconciler(step)
    controller = await world.start(reconciler)
    await world.widget()
    await quiet(4.5)
    before = current_clock().monotonic()
    await controller.stop(grace=30)
    assert current_clock().monotonic() - before == pytest.approx(0.5)  # the step in progress, and no other
    assert len(reconciler.runs) == 5
    assert (await world.read()).status.runs == 5


async def test_change_during_the_last_step_is_reconciled(world: World) -> None:
    async def step(reconciler, obj, status):
        await asyncio.sleep(1)
        return Result(again=True)

    reconciler = WidgetReconciler(step)
    controller = await world.start(reconciler)
    await world.widget(size=1)
    await quiet(0.5)
    await world.resize(2)
    await quiet(0.1)
    await controller.stop(grace=30)
    assert reconciler.sizes == [1, 2]


async def test_endless_steps_do_not_starve_other_keys(world: World) -> None:
    async def step(reconciler, obj, status):
        await asyncio.sleep(0.1)
        return Result(again=True)

    reconciler = WidgetReconciler(step)
    await world.start(reconciler)
    await world.widget("endless", size=1)
    await quiet(5)
    await world.widget("other", size=2)
    await quiet(0.25)
    assert 2 in reconciler.sizes
