"""The work of `ResourceReconciler` around an override: fetch, status, observedGeneration."""

from __future__ import annotations

import asyncio

import pytest

from reconciler.controller import Controller, ResourceReconciler, Result, generation_changed
from reconciler.controller.result import ControllerError
from reconciler.errors import ConfigurationError, TerminalError
from reconciler.meta import Request
from reconciler.objects import ConditionedStatus, Model, ObjectMeta, Resource, Unstructured
from reconciler.status import StatusBatcher
from reconciler.status.writer import Strategy
from tests.controller.conftest import Widget, WidgetReconciler, World, quiet

pytestmark = pytest.mark.virtual_time


class Body(ResourceReconciler[Widget]):
    async def reconcile_object(self, obj, status):
        return None


def test_kind_is_found_from_the_type_argument():
    assert Body.resource is Widget


def test_kind_is_found_through_a_generic_base():
    from typing import TypeVar

    R = TypeVar("R")

    class Base(ResourceReconciler[R]):
        async def reconcile_object(self, obj, status):
            return None

    class Derived(Base[Widget]):
        pass

    class Further(Derived):
        pass

    assert Base.resource is None
    assert Derived.resource is Further.resource is Widget


def test_kind_without_a_class_is_named_by_a_keyword():
    class Maps(ResourceReconciler[Unstructured], resource="v1/ConfigMap"):
        async def reconcile_object(self, obj, status):
            return None

    assert Maps.resource == "v1/ConfigMap"


def test_type_argument_that_is_no_kind_is_refused_at_the_class_line():
    with pytest.raises(ConfigurationError, match=r"names no kind|is not a valid kind"):

        class Wrong(ResourceReconciler[int]):
            async def reconcile_object(self, obj, status):
                return None


async def test_no_kind_at_all_is_refused_with_what_to_write(world: World) -> None:
    class Bare(ResourceReconciler):
        async def reconcile_object(self, obj, status):
            return None

    with pytest.raises(ConfigurationError, match=r"ResourceReconciler\[YourKind\], or pass resource="):
        world.controller(Bare())


async def test_object_that_is_not_there_is_no_error(world: World) -> None:
    reconciler = WidgetReconciler()
    controller = await world.start(reconciler)
    controller.enqueue(Request("nobody", "ns"))
    await quiet()
    assert reconciler.runs == []
    assert controller.statistics().results == {"success": 1}


async def test_kind_named_by_text_reads_typed_objects_of_the_reconcilers_class(world: World) -> None:
    reconciler = WidgetReconciler()
    await world.start(reconciler, resource="example.com/v1/Widget")
    await world.widget(size=4)
    await quiet()
    assert reconciler.sizes == [4]


async def test_unstructured_objects_are_reconciled(world: World) -> None:
    sizes = []

    class Plain(ResourceReconciler[Unstructured], resource="example.com/v1/Widget"):
        async def reconcile_object(self, obj, status):
            sizes.append(obj["spec"]["size"])
            status.set(phase="Ready")

    await world.start(Plain())
    await world.widget(size=4)
    await quiet(10)
    stored = await world.read()
    assert sizes == [4]
    assert (stored.status.phase, stored.status.observed_generation) == ("Ready", None)


async def test_observed_generation_is_that_of_the_version_read(world: World) -> None:
    """A write that is replayed on generation 2 still records generation 1."""

    async def body(reconciler, obj, status):
        if obj.spec.size == 1:
            await world.resize(2)
        else:
            await asyncio.sleep(5)

    reconciler = WidgetReconciler(body)
    await world.start(reconciler)
    await world.widget()
    await quiet()
    stored = await world.read()
    assert (stored.generation, stored.status.observed_generation, stored.status.seen_size) == (2, 1, 1)
    await quiet(10)
    stored = await world.read()
    assert (stored.generation, stored.status.observed_generation, stored.status.seen_size) == (2, 2, 2)


async def assert_stamped_in_three_runs(world: World, controller: Controller) -> None:
    """The first reconcile is in progress; the body writes the number of the reconcile as the phase."""
    for run in (1, 2, 3):
        await quiet(10)
        stored = await world.read()
        assert (stored.status.observed_generation, stored.status.phase) == (1, f"run {run}")
        controller.enqueue(stored.key)


async def test_observed_generation_stays_in_a_status_that_is_built_anew_in_every_cycle(world: World) -> None:
    async def body(reconciler, obj, status):
        def anew(current):
            current.clear()
            current["phase"] = f"run {len(reconciler.runs)}"

        status.mutate(anew)

    reconciler = WidgetReconciler(body)
    controller = await world.start(reconciler)
    await world.widget()
    for run in (1, 2, 3):
        await quiet(10)
        stored = await world.read()
        assert (stored.status.observed_generation, stored.status.phase) == (1, f"run {run}")
        controller.enqueue(stored.key)


@pytest.mark.parametrize("strategy", ["merge", "update", "apply"])
async def test_observed_generation_is_written_although_somebody_takes_it_away_before_that(
    world: World, strategy: Strategy
) -> None:
    """The write is replayed on their version. Their event enqueues nothing, since it does not change the generation."""

    class Told(WidgetReconciler):
        status_strategy = strategy

    async def body(reconciler, obj, status):
        status.set(phase=f"run {len(reconciler.runs)}")
        if len(reconciler.runs) == 2:
            taken = {"status": {"observedGeneration": None}}
            await world.foreign.patch(Widget, obj.name, obj.namespace, patch=taken, subresource="status")

    reconciler = Told(body)
    controller = await world.start(reconciler, predicates=[generation_changed])
    await world.widget()
    await assert_stamped_in_three_runs(world, controller)


async def test_observed_generation_is_recorded_by_success_and_terminal_error_alone(world: World) -> None:
    async def body(reconciler, obj, status):
        if obj.spec.size == 2 and len(reconciler.runs) < 4:
            raise RuntimeError("no")
        if obj.spec.size == 3:
            raise TerminalError("never")
        await asyncio.sleep(1)

    reconciler = WidgetReconciler(body)
    await world.start(reconciler)
    await world.widget()
    await quiet(10)
    assert (await world.read()).status.observed_generation == 1
    await world.resize(2)
    await quiet(0.2)
    assert len(reconciler.runs) == 4
    assert (await world.read()).status.observed_generation == 1  # failed twice, the third reconcile is in progress
    await quiet(10)
    assert (await world.read()).status.observed_generation == 2
    await world.resize(3)
    await quiet(10)
    assert (await world.read()).status.observed_generation == 3


async def test_strange_return_value_is_an_error_and_no_outcome(world: World) -> None:
    async def body(reconciler, obj, status):
        if len(reconciler.runs) == 1:
            return {"requeue": True}
        await asyncio.sleep(3600)
        return None

    await world.start(WidgetReconciler(body))
    await world.widget()
    await quiet(10)
    assert (await world.read()).status.observed_generation is None


async def test_kind_without_the_field_gets_no_observed_generation(world: World) -> None:
    class BareStatus(Model):
        phase: str | None = None

    class Gadget(Resource[Model, BareStatus], group="example.com", version="v1"):
        """A gadget."""

    class Gadgets(ResourceReconciler[Gadget]):
        async def reconcile_object(self, obj, status):
            return None

    await world.server.apply(Gadget)
    await world.start(Gadgets())
    await world.foreign.create(Gadget(metadata=ObjectMeta(name="g", namespace="ns"), spec=Model()))
    await quiet(10)
    assert world.writes("g") == 0


async def test_error_writes_ledgers_and_conditions_but_not_set_values(world: World) -> None:
    async def body(reconciler, obj, status):
        status.set(phase="Half")
        status.increment("runs")
        status.set_condition("Ready", False, reason="Broken", message="it broke")
        if len(reconciler.runs) == 1:
            raise RuntimeError("no")
        await asyncio.sleep(3600)

    await world.start(WidgetReconciler(body))
    await world.widget()
    await quiet(10)
    status = (await world.read()).status
    assert (status.phase, status.runs) == (None, 1)
    assert status.conditions[0].reason == "Broken"


async def test_error_writes_everything_when_asked(world: World) -> None:
    class Told(WidgetReconciler):
        status_on_error = "flush"

    async def body(reconciler, obj, status):
        if len(reconciler.runs) > 1:
            await asyncio.sleep(3600)
        raise RuntimeError("no")

    await world.start(Told(body))
    await world.widget()
    await quiet(10)
    assert (await world.read()).status.phase == "Ready"


async def test_terminal_error_writes_everything(world: World) -> None:
    async def body(reconciler, obj, status):
        status.set(phase="Failed")
        raise TerminalError("never")

    reconciler = WidgetReconciler(body)
    controller = await world.start(reconciler)
    await world.widget()
    await quiet(3600)
    stored = await world.read()
    assert (stored.status.phase, stored.status.observed_generation) == ("Failed", 1)
    assert len(reconciler.runs) == 1
    assert world.status_writes() == 1
    assert controller.statistics().terminal_errors == 1


async def test_group_of_terminal_errors_writes_everything(world: World) -> None:
    async def body(reconciler, obj, status):
        status.set(phase="Failed")
        raise ExceptionGroup("all", [TerminalError("never"), TerminalError("no")])

    controller = await world.start(WidgetReconciler(body))
    await world.widget()
    await quiet(3600)
    stored = await world.read()
    assert (stored.status.phase, stored.status.observed_generation) == ("Failed", 1)
    assert (world.status_writes(), controller.statistics().terminal_errors) == (1, 1)


async def test_foreign_change_wakes_after_a_terminal_error(world: World) -> None:
    async def body(reconciler, obj, status):
        if obj.spec.size == 1:
            raise TerminalError("never")

    reconciler = WidgetReconciler(body)
    await world.start(reconciler)
    await world.widget()
    await quiet(60)
    await world.resize(2)
    await quiet(60)
    assert reconciler.sizes == [1, 2]


async def test_failing_reconciles_back_off_although_they_write_status(world: World) -> None:
    """The problem that this library solves: each failure changes the status, which must not wake the controller."""

    async def body(reconciler, obj, status):
        status.increment("runs")
        raise RuntimeError("no")

    from reconciler.workqueue import ExponentialBackoff

    reconciler = WidgetReconciler(body)
    await world.start(reconciler, rate_limiter=ExponentialBackoff(30, 480))
    await world.widget()
    await quiet(460)
    start = reconciler.times[0]
    assert [round(time - start) for time in reconciler.times] == [0, 30, 90, 210, 450]
    assert world.status_writes() == 5


async def test_batcher_inside_the_body_joins_the_one_write(world: World) -> None:
    async def body(reconciler, obj, status):
        async with StatusBatcher(reconciler.client, obj) as inner:
            inner.set(foreign="inner")

    reconciler = WidgetReconciler(body)
    await world.start(reconciler)
    await world.widget()
    await quiet(60)
    stored = await world.read()
    assert (stored.status.phase, stored.status.foreign) == ("Ready", "inner")
    assert (world.status_writes(), len(reconciler.runs)) == (1, 1)


async def test_checkpoint_is_an_own_write_too(world: World) -> None:
    async def body(reconciler, obj, status):
        status.set(foreign="intent")
        await status.flush()
        await asyncio.sleep(1)
        status.set(foreign="done")

    reconciler = WidgetReconciler(body)
    await world.start(reconciler)
    await world.widget()
    await quiet(60)
    assert (await world.read()).status.foreign == "done"
    assert (world.status_writes(), len(reconciler.runs)) == (2, 1)


async def test_multi_phase_controller_continues_with_again(world: World) -> None:
    phases = ["Pending", "Sending", "Sent"]

    async def body(reconciler, obj, status):
        at = phases.index(obj.status.phase) + 1 if obj.status.phase else 0
        status.set(phase=phases[at])
        return Result(again=True) if at < 2 else None

    reconciler = WidgetReconciler(body)
    await world.start(reconciler)
    await world.widget()
    await quiet(60)
    assert (await world.read()).status.phase == "Sent"
    assert (world.status_writes(), len(reconciler.runs)) == (3, 3)


async def test_reconcile_can_be_wrapped_by_a_subclass(world: World) -> None:
    seen = []

    class Wrapped(WidgetReconciler):
        async def reconcile(self, request):
            seen.append(request)
            return await super().reconcile(request)

    await world.start(Wrapped())
    stored = await world.widget()
    await quiet()
    assert seen == [stored.key]


async def test_run_has_reasons_and_id(world: World) -> None:
    from reconciler.controller import current_run
    from reconciler.controller.result import NotBound

    runs = []

    async def body(reconciler, obj, status):
        runs.append((reconciler.run, current_run()))

    reconciler = WidgetReconciler(body)
    await world.start(reconciler)
    stored = await world.widget()
    await quiet()
    assert runs[0][0] is runs[0][1]
    assert (runs[0][0].request, runs[0][0].reasons, runs[0][0].controller) == (stored.key, {"event"}, "widget")
    assert current_run() is None
    with pytest.raises(NotBound, match="only available during a reconcile"):
        _ = reconciler.run


def test_client_events_and_name_without_a_controller_say_what_to_do():
    from reconciler.controller.result import NotBound

    reconciler = Body()
    for name in ("client", "events", "name"):
        with pytest.raises(NotBound, match=rf"Body.{name} .*manager.add_controller\(Body\(\)\)"):
            getattr(reconciler, name)


async def test_only_a_controller_calls_the_reconcile_of_a_resource_reconciler(world: World) -> None:
    from reconciler.controller.result import NotBound

    reconciler = WidgetReconciler()
    await world.start(reconciler)
    stored = await world.widget()
    with pytest.raises(NotBound, match=r"WidgetReconciler.reconcile is called by its controller"):
        await reconciler.reconcile(stored.key)


async def test_reconciler_of_a_running_controller_cannot_be_given_to_another(world: World) -> None:
    reconciler = WidgetReconciler()
    first = await world.start(reconciler, name="first")
    with pytest.raises(ControllerError, match="running controller 'first'"):
        world.controller(reconciler, name="second")
    await first.stop()
    await world.start(reconciler, name="third")
    assert reconciler.name == "third"


async def test_status_model_is_optional(world: World) -> None:
    class Thing(Resource[Model, ConditionedStatus], group="example.com", version="v1"):
        """A thing."""

    class Things(ResourceReconciler[Thing]):
        async def reconcile_object(self, obj, status):
            status.set_condition("Ready", True, reason="Fine")

    await world.server.apply(Thing)
    await world.start(Things())
    await world.foreign.create(Thing(metadata=ObjectMeta(name="t", namespace="ns"), spec=Model()))
    await quiet(10)
    assert world.status_writes("t") == 1
    assert (await world.foreign.get(Thing, "t", "ns")).status.observed_generation == 1


async def test_an_assigned_status_is_reported_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    class Assigns(ResourceReconciler[Widget]):
        async def reconcile_object(self, obj, status):
            assert obj.status.phase is None
            obj.status.phase = "Ready"

    await world.start(Assigns())
    await world.widget("a")
    await world.widget("b")
    await quiet()
    (record,) = [each for each in caplog.records if each.levelname == "WARNING"]
    assert record.getMessage() == (
        "Widget ns/a: the reconcile changed obj.status (phase), which is not written: "
        "record it with status.set(…), status.append(…) or status.set_condition(…)"
    )


async def test_a_status_that_is_only_read_is_not_reported(world: World, caplog: pytest.LogCaptureFixture) -> None:
    class Reads(ResourceReconciler[Widget]):
        async def reconcile_object(self, obj, status):
            status.set(phase=obj.status.phase or "Ready", seen_size=obj.spec.size)

    await world.start(Reads())
    await world.widget("a")
    await quiet()
    await world.foreign.patch(Widget, "a", "ns", patch={"spec": {"size": 2}})
    await quiet()
    assert not [each for each in caplog.records if each.levelname == "WARNING"]


@pytest.mark.parametrize("replaced", [True, False])
async def test_object_that_a_status_write_found_gone_is_not_reconciled_from_the_cache(
    world: World, replaced: bool
) -> None:
    """Otherwise an effect is repeated whose record could not be written."""
    seen: list[str] = []

    class Slow(ResourceReconciler[Widget]):
        async def reconcile_object(self, obj, status):
            seen.append(obj.uid)
            await asyncio.sleep(10)
            status.set(phase="Ready")

    controller = await world.start(Slow())
    first = await world.widget()
    await quiet(5)
    world.server.faults.add(stall=True, verb="watch", times=None)
    world.server.cut_watches()
    await world.foreign.delete(Widget, "w", "ns")
    second = await world.widget() if replaced else None
    await quiet(6)
    controller.enqueue(Request("w", "ns"))
    await quiet(12)
    assert seen[0] == first.uid
    assert set(seen[1:]) == ({second.uid} if second else set())
