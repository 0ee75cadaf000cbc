"""Metrics back ends of users that raise: the controller works, the status is written, and the log says it once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NoReturn

import pytest

from reconciler.controller import Watch
from reconciler.status import StatusBatcher
from tests.controller.conftest import WidgetReconciler, World, quiet

pytestmark = pytest.mark.virtual_time

CALLED = ("observe_reconcile_duration", "flushed", "observe_queue_duration", "observe_work_duration")
"""What is called while a controller works."""


def _failing(name: str) -> Callable[..., NoReturn]:
    def fails(self: object, *_: object, **__: object) -> NoReturn:
        raise LookupError(name)

    fails.__qualname__ = name
    return fails


def broken(name: str = "Broken") -> Any:
    """Return a back end of a class with this name, which fails in all methods of `CALLED`."""
    members = {method: _failing(f"{name}.{method}") for method in CALLED}
    return type(name, (), {"watch": lambda self, statistics: None, **members})()


async def test_a_controller_works_although_its_metrics_fail(world: World, caplog: pytest.LogCaptureFixture) -> None:
    async def body(reconciler: object, obj: object, status: StatusBatcher[Any]) -> None:
        await status.flush()
        await asyncio.sleep(1)  # the echo of this write comes while the key is in progress

    def mapper(config_map: object) -> NoReturn:
        raise ValueError("cannot be mapped")

    metrics = broken()
    controller = await world.start(
        WidgetReconciler(body),
        watches=[Watch("v1/ConfigMap", mapper=mapper)],
        metrics=metrics,
        queue_metrics=metrics,
        status_metrics=metrics,
    )
    await world.widget()
    await world.foreign.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "ns"}})
    await quiet(5)
    await world.resize(2)
    await quiet(5)
    assert (await world.read()).status.seen_size == 2
    assert controller.statistics().reconciles == 2
    reports = [record for record in caplog.records if record.name == "reconciler.metrics"]
    assert sorted(record.getMessage().partition(":")[0] for record in reports if record.levelname == "ERROR") == sorted(
        f"Broken.{name} failed, so its metrics are wrong" for name in CALLED
    )


async def test_a_status_is_written_although_its_metrics_fail(world: World) -> None:
    async with StatusBatcher(world.client, await world.widget(), metrics=broken("Other")) as status:
        status.set(phase="Ready")
    assert status.written
    assert (await world.read()).status.phase == "Ready"
