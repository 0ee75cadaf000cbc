"""Kinds without the status subresource: a status write raises the generation, and must not wake the controller."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from reconciler.apiserver import APIServer
from tests.controller.conftest import Widget, WidgetReconciler, World, quiet

pytestmark = pytest.mark.virtual_time


class Main(WidgetReconciler):
    status_subresource = None


@pytest.fixture(params=["before", "after", "late"])
async def world(request) -> AsyncIterator[World]:
    """Serve widgets without ``/status``."""
    definition = Widget.crd()
    for version in definition["spec"]["versions"]:
        del version["subresources"]
    async with APIServer(event_order=request.param, seed=7) as server:
        await server.apply(definition, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ns"}})
        made = World(server)
        try:
            yield made
        finally:
            await made.stop()


async def count(reconciler, obj, status):
    """Record something new in every reconcile: with an echo it would never end."""
    status.increment("runs")
    status.set_condition("Ready", True, reason="Counted")


async def test_own_write_of_the_main_resource_does_not_wake(world: World) -> None:
    reconciler = Main(count)
    await world.start(reconciler)
    await world.widget()
    await quiet(60)
    assert len(reconciler.runs) == 1
    assert (await world.read()).status.runs == 1


async def test_foreign_change_at_the_same_moment_wakes(world: World) -> None:
    async def body(reconciler, obj, status):
        status.increment("runs")
        if len(reconciler.runs) == 1:
            await world.resize(2)

    reconciler = Main(body)
    await world.start(reconciler)
    await world.widget(size=1)
    await quiet(60)
    assert reconciler.sizes[-1] == 2
    assert (await world.read()).status.seen_size == 2


async def test_foreign_change_inside_the_own_write_wakes(world: World) -> None:
    """A webhook that changes a label together with the status is a foreign change in our own version."""
    reconciler = Main()
    controller = await world.start(reconciler)
    await world.widget()
    await quiet(60)
    assert len(reconciler.runs) == 1
    send = world.server.send

    async def with_webhook(request):
        response = await send(request)
        if request.method == "PATCH" and response.status == 200 and b'"labels"' not in response.body:
            response.body = response.body.replace(b'"metadata":{', b'"metadata":{"labels":{"by":"webhook"},', 1)
        return response

    world.server.send = with_webhook
    dropped = controller.statistics().echo.dropped
    await world.resize(2)
    await quiet(60)
    assert controller.statistics().echo.dropped == dropped
    assert len(reconciler.runs) == 3


async def test_generation_is_not_recorded_if_each_write_raises_it(world: World) -> None:
    reconciler = Main(count)
    await world.start(reconciler)
    await world.widget("first")
    await quiet(10)
    await world.widget("second")
    await quiet(10)
    status = (await world.read("second")).status
    assert status.observed_generation is None
    assert status.conditions[0].observed_generation is None
    await world.resize(2, "first")
    await quiet(10)
    assert (await world.read("first")).status.observed_generation is None  # it would always be outdated
    assert (await world.read("first")).status.runs == 2
