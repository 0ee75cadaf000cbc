"""A world: an operator on an embedded server, whose process can end and start again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from reconciler import (
    ConditionedStatus,
    Manager,
    Model,
    ObjectMeta,
    Outcome,
    Resource,
    ResourceReconciler,
    Result,
    StatusBatcher,
    effect,
)
from reconciler.errors import ConfigurationError
from reconciler.recording.records import ReadStep
from reconciler.testing.operator_process import OperatorFailed
from reconciler.testing.world import NotSettled, World


class PlotSpec(Model):
    beds: int = 1


class PlotStatus(ConditionedStatus):
    dug: int = 0


class Plot(Resource[PlotSpec, PlotStatus], group="example.com", version="v1"):
    """A garden plot."""


class PlotReconciler(ResourceReconciler[Plot]):
    """Writes a ConfigMap for each plot."""

    pause = 0.0
    delay: float | None = None

    @effect
    async def dig(self, key: str) -> None:
        """Dig."""

    async def reconcile_object(self, plot: Plot, status: StatusBatcher[PlotStatus]) -> Outcome:
        await self.dig(plot.name)
        try:
            bed = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": plot.name, "namespace": "default"}}
            await self.client.apply(bed | {"data": {"beds": str(plot.spec.beds)}}, owner=plot)
            await asyncio.sleep(self.pause)
        finally:
            await self.dig("in a finally block")
        status.set(dug=plot.spec.beds)
        return None if self.delay is None else Result(requeue_after=self.delay)


def plot(name: str = "a", beds: int = 2) -> Plot:
    return Plot(metadata=ObjectMeta(name=name, namespace="default"), spec=PlotSpec(beds=beds))


@pytest.mark.virtual_time
async def test_an_operator_does_its_work_until_nothing_happens() -> None:
    async with World(PlotReconciler, owns=["v1/ConfigMap"]) as world:
        created = await world.create(plot())
        await world.settle()
        bed = await world.client.get("v1/ConfigMap", "a", "default")
        assert bed["data"] == {"beds": "2"}
        assert (await world.client.get(Plot, "a", "default")).status.dug == 2
        await world.patch(created, {"spec": {"beds": 5}})
        await world.settle()
        assert (await world.client.get(Plot, "a", "default")).status.dug == 5
        await world.delete(created)
        await world.settle()
        writes = [event.request.summary() for event in world.trace.writes() if event.request is not None]
        assert [line.partition(":")[0] for line in writes] == [
            "patch configmaps/a in default",
            "update plots/a/status in default",
            "patch configmaps/a in default",
            "update plots/a/status in default",
        ]
        assert world.trace.writes()[0].line.endswith(" in reconcile_object")
        removed = [change for event in world.trace.writes("user") for change in event.changes if change.after is None]
        assert [change.document["kind"] for change in removed] == ["Plot", "ConfigMap"]
        assert {reason for event in world.trace.writes() if event.run for reason in event.run.reasons} == {"event"}
        first = next(event.reconcile for event in world.trace if event.reconcile is not None).record
        assert (first.name, first.result, [change.type for change in first.wake_ups]) == ("a", "success", ["added"])
        assert [step.kind for step in first.steps if isinstance(step, ReadStep)] == [str(Plot.gvk)]
        assert [write.path for write in first.writes][-1].endswith("/plots/a/status")


@pytest.mark.virtual_time
async def test_a_killed_process_runs_nothing_any_more_and_the_next_one_begins_anew() -> None:
    class Slow(PlotReconciler):
        pause = 10.0

    async with World(Slow) as world:
        await world.create(plot())
        await asyncio.sleep(5)
        world.crash()
        await asyncio.sleep(1000)
        effects = [event.effect.key for event in world.trace if event.effect is not None]
        assert effects == ["a"]
        assert (await world.client.get(Plot, "a", "default")).status.dug == 0
        await world.start()
        await world.settle()
        assert (await world.client.get(Plot, "a", "default")).status.dug == 2
        assert [process.number for process in world.processes] == [1, 2]
    assert len([event for event in world.trace if event.effect is not None]) == 3


@pytest.mark.virtual_time
async def test_a_write_in_flight_takes_effect_although_the_process_was_killed() -> None:
    async with World(PlotReconciler) as world:
        await world.start()
        fault = world.server.faults.add(latency=5.0, verb="patch", resource="configmaps")
        await world.create(plot())
        await asyncio.sleep(1)
        assert fault.hits == 1
        world.crash()
        await asyncio.sleep(10)
        assert (await world.client.get("v1/ConfigMap", "a", "default"))["data"] == {"beds": "2"}


@pytest.mark.virtual_time
async def test_declared_timers_do_not_keep_it_from_settling() -> None:
    class Polling(PlotReconciler):
        delay = 20.0

    async with World(Polling) as world:
        await world.create(plot())
        await world.settle()
        assert 20 < world.now < 45


@pytest.mark.virtual_time
async def test_an_operator_that_does_not_settle_is_named() -> None:
    class Counting(PlotReconciler):
        async def reconcile_object(self, plot: Plot, status: StatusBatcher[PlotStatus]) -> Outcome:
            status.set(dug=plot.status.dug + 1)
            return Result(requeue_after=1)

    async with World(Counting) as world:
        await world.create(plot())
        with pytest.raises(NotSettled) as caught:
            await world.settle(reconciles=50)
    assert str(caught.value).startswith(
        "the operator still works after 50 reconciles: Plot default/a: in progress for 0 s"
    )
    assert "update plots/a/status in default: 200" in str(caught.value)


@pytest.mark.virtual_time
async def test_an_operator_that_fails_to_start_is_an_error() -> None:
    def add(manager: Manager) -> None:
        raise RuntimeError("no database")

    async with World(add) as world:
        with pytest.raises(OperatorFailed, match=r"did not start: .*no database"):
            await world.start()


@pytest.mark.virtual_time
async def test_a_snapshot_is_where_it_begins() -> None:
    async with World(PlotReconciler) as world:
        await world.create(plot())
        await world.settle()
        state = world.server.snapshot()
    async with World(PlotReconciler, snapshot=state) as world:
        await world.settle()
        assert (await world.client.get(Plot, "a", "default")).status.dug == 2
        assert world.trace.writes() == []


@pytest.mark.parametrize("operator", [PlotReconciler(), 7])
def test_what_is_not_an_operator_is_refused(operator: Any) -> None:
    with pytest.raises(ConfigurationError):
        World(operator)


async def test_real_time_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="a World needs virtual time"):
        async with World(PlotReconciler):
            pass
