"""The finalizer protocol: added before the first reconcile, clean-up, removed; each of its writes is an echo."""

from __future__ import annotations

import asyncio

import pytest

from reconciler.controller import Result, ensure_finalizer, release_finalizer
from reconciler.controller.reconcile.cycle import Reconcile, ReconcileContext, ReconcileRun, UnsavedStore
from reconciler.controller.wake.echo import EchoTracker
from reconciler.errors import Conflict, NotFound, TerminalError
from reconciler.meta import Request
from reconciler.meta.cycle import current_cycle
from reconciler.meta.documents import merge_patch
from reconciler.objects import ObjectMeta, Unstructured
from tests.controller.conftest import Widget, WidgetReconciler, WidgetSpec, World, quiet

pytestmark = pytest.mark.virtual_time
ORDERS = pytest.mark.parametrize("event_order", ["before", "after", "late", "seeded"], indirect=True)
FINALIZER = "example.com/widget"


class Finalizing(WidgetReconciler):
    def __init__(self, body=None, outcomes=()) -> None:
        super().__init__(body)
        self.finalized: list[str] = []
        self.outcomes = list(outcomes)

    async def finalize(self, obj, status):
        self.finalized.append(obj.name)
        outcome = self.outcomes.pop(0) if self.outcomes else None
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


async def gone(world: World, name: str = "w") -> bool:
    try:
        await world.read(name)
    except NotFound:
        return True
    return False


@ORDERS
async def test_finalizer_is_added_before_the_body_and_does_not_wake(world: World) -> None:
    seen = []

    async def body(reconciler, obj, status):
        seen.append(obj.metadata.finalizers)

    reconciler = Finalizing(body)
    await world.start(reconciler)
    await world.widget()
    await quiet(60)
    assert seen == [[FINALIZER]]
    assert (await world.read()).metadata.finalizers == [FINALIZER]
    assert len(reconciler.runs) == 1
    assert [(r.subresource, r.status) for r in world.server.log.writes(Widget, "w", by="controller")] == [
        ("", 200),
        ("status", 200),
    ]


@ORDERS
async def test_none_releases_the_object(world: World) -> None:
    reconciler = Finalizing()
    controller = await world.start(reconciler)
    await world.widget()
    await quiet()
    await world.foreign.delete(Widget, "w", "ns")
    await quiet(60)
    assert await gone(world)
    assert reconciler.finalized == ["w"]
    assert controller.statistics().echo.known == 0


@ORDERS
async def test_result_keeps_the_object_and_requeues_it(world: World) -> None:
    reconciler = Finalizing(outcomes=[Result(requeue_after=10), Result(requeue_after=10)])
    await world.start(reconciler)
    await world.widget()
    await quiet()
    await world.foreign.delete(Widget, "w", "ns")
    await quiet(15)
    assert reconciler.finalized == ["w", "w"]
    assert not await gone(world)
    await quiet(10)
    assert reconciler.finalized == ["w"] * 3
    assert await gone(world)


async def test_error_keeps_the_object_and_backs_off(world: World) -> None:
    reconciler = Finalizing(outcomes=[RuntimeError("no"), RuntimeError("no")])
    controller = await world.start(reconciler)
    await world.widget()
    await quiet()
    await world.foreign.delete(Widget, "w", "ns")
    await quiet(60)
    assert reconciler.finalized == ["w"] * 3
    assert controller.statistics().results["error"] == 2
    assert await gone(world)


async def test_terminal_error_keeps_the_object_until_a_change(world: World) -> None:
    reconciler = Finalizing(outcomes=[Result(requeue_after=50), TerminalError("never")])
    await world.start(reconciler)
    await world.widget()
    await quiet()
    await world.foreign.delete(Widget, "w", "ns")
    await quiet(10)
    await world.foreign.patch(Widget, "w", "ns", patch={"metadata": {"labels": {"try": "1"}}})
    await quiet(3600)
    assert (len(reconciler.finalized), await gone(world)) == (2, False)
    await world.foreign.patch(Widget, "w", "ns", patch={"metadata": {"labels": {"try": "2"}}})
    await quiet()
    assert (len(reconciler.finalized), await gone(world)) == (3, True)


async def test_invalid_return_value_does_not_release_the_object(world: World) -> None:
    reconciler = Finalizing(outcomes=[True])
    controller = await world.start(reconciler)
    await world.widget()
    await quiet()
    await world.foreign.delete(Widget, "w", "ns")
    await quiet(60)
    assert reconciler.finalized == ["w", "w"]
    assert controller.statistics().results["error"] == 1


async def test_status_is_written_before_the_removal_and_none_follows(world: World) -> None:
    class Telling(Finalizing):
        async def finalize(self, obj, status):
            status.set(phase="Terminating")
            return await super().finalize(obj, status)

    await world.start(Telling())
    await world.widget()
    await quiet()
    before = len(world.server.log.writes(Widget, "w", by="controller"))
    await world.foreign.delete(Widget, "w", "ns")
    await quiet(60)
    writes = world.server.log.writes(Widget, "w", by="controller")[before:]
    assert [(w.subresource, w.status) for w in writes] == [("status", 200), ("", 200)]


async def test_finalize_without_a_status_change_writes_no_status(world: World) -> None:
    await world.start(Finalizing())
    await world.widget()
    await quiet()
    before = world.status_writes()
    await world.foreign.delete(Widget, "w", "ns")
    await quiet(60)
    assert world.status_writes() == before


async def test_reconciler_without_finalize_removes_its_own_finalizer(world: World) -> None:
    reconciler = WidgetReconciler()
    await world.start(reconciler)
    await world.widget(finalizers=[FINALIZER, "other.io/theirs"])
    await quiet()
    await world.foreign.delete(Widget, "w", "ns")
    await quiet(60)
    assert (await world.read()).metadata.finalizers == ["other.io/theirs"]
    assert len(reconciler.runs) == 1  # the body is not called for an object that is being deleted


async def test_deleted_object_without_our_finalizer_is_ignored(world: World) -> None:
    reconciler = Finalizing()
    await world.widget(finalizers=["other.io/theirs"])
    await world.foreign.delete(Widget, "w", "ns")
    controller = await world.start(reconciler)
    await quiet(60)
    assert (reconciler.runs, reconciler.finalized) == ([], [])
    assert controller.statistics().results == {"success": 1}
    assert world.writes() == 0


async def test_finalizer_can_be_named(world: World) -> None:
    class Named(Finalizing):
        finalizer = "my.io/cleanup"

    await world.start(Named(), name="other")
    await world.widget()
    await quiet()
    assert (await world.read()).metadata.finalizers == ["my.io/cleanup"]


async def test_default_finalizer_has_the_group_and_the_controllers_name(world: World) -> None:
    await world.start(Finalizing(), name="other")
    await world.widget()
    await quiet()
    assert (await world.read()).metadata.finalizers == ["example.com/other"]


async def test_default_finalizer_does_not_depend_on_attributes_of_the_reconciler(world: World) -> None:
    class Branded(Finalizing):
        name = "acme"  # a subclass may use every public name for itself
        events = None

    await world.start(Branded(), name="other")
    await world.widget()
    await quiet()
    assert (await world.read()).metadata.finalizers == ["example.com/other"]


async def test_conflict_reads_again_and_preserves_other_finalizers(world: World) -> None:
    obj = await world.widget()
    await world.foreign.patch(Widget, "w", "ns", patch={"metadata": {"finalizers": ["other.io/theirs"]}})
    answer = await ensure_finalizer(world.client, Widget, obj, FINALIZER)
    assert answer.metadata.finalizers == ["other.io/theirs", FINALIZER]
    stale = obj
    stale.metadata.finalizers = [FINALIZER]
    answer = await release_finalizer(world.client, Widget, stale, FINALIZER)
    assert answer.metadata.finalizers == ["other.io/theirs"]


async def test_write_after_a_conflict_is_not_own(world: World) -> None:
    """The conflict came from a foreign change: the reconcile continued with an object that it had not read."""
    reconciler = Finalizing()
    await world.start(reconciler)
    fault = world.server.faults.add(verb="patch", subresource="", name="w", status=409, latency=0.5)
    await world.widget()
    await quiet(0.2)
    await world.resize(2)
    await quiet(60)
    assert fault.hits == 1
    assert reconciler.sizes[-1] == 2
    assert (await world.read()).status.observed_generation == 2


async def test_endless_conflicts_are_raised(world: World) -> None:
    obj = await world.widget()
    world.server.faults.add(verb="patch", status=409, times=None)
    with pytest.raises(Conflict):
        await ensure_finalizer(world.client, Widget, obj, FINALIZER)


async def test_object_that_is_gone_or_being_deleted_gets_no_finalizer(world: World) -> None:
    obj = await world.widget(finalizers=["other.io/theirs"])
    await world.foreign.delete(Widget, "w", "ns")
    assert await ensure_finalizer(world.client, Widget, obj, FINALIZER) is None
    await world.foreign.patch(Widget, "w", "ns", patch={"metadata": {"finalizers": None}})
    assert await ensure_finalizer(world.client, Widget, obj, FINALIZER) is None
    assert await release_finalizer(world.client, Widget, obj, "other.io/theirs") is None


async def test_another_object_of_the_same_name_is_not_touched(world: World) -> None:
    obj = await world.widget()
    await world.foreign.delete(Widget, "w", "ns")
    await world.widget()
    assert await ensure_finalizer(world.client, Widget, obj, FINALIZER) is None
    assert (await world.read()).metadata.finalizers == []


async def test_helpers_work_on_plain_objects_too(world: World) -> None:
    await world.widget()
    obj = await world.client.get("example.com/v1/Widget", "w", "ns")
    assert isinstance(obj, Unstructured)
    answer = await ensure_finalizer(world.client, "example.com/v1/Widget", obj, FINALIZER)
    assert answer["metadata"]["finalizers"] == [FINALIZER]
    assert await ensure_finalizer(world.client, "example.com/v1/Widget", answer, FINALIZER) is answer


async def test_lost_response_to_the_finalizer_write_is_resolved_by_the_next_reconcile(world: World) -> None:
    reconciler = Finalizing()
    await world.start(reconciler)
    world.server.faults.add(verb="patch", subresource="", name="w", after_commit=True, lost=True)
    await world.widget()
    await quiet(60)
    assert (await world.read()).metadata.finalizers == [FINALIZER]
    assert (await world.read()).status.phase == "Ready"


class Webhook:
    """A client whose server changes an object during a write."""

    def __init__(self, change: dict) -> None:
        self.change = change

    async def patch(self, kind, name, namespace, *, patch):
        stored = Widget(metadata=ObjectMeta(name="w", namespace="ns"), spec=WidgetSpec()).to_dict()
        stored["metadata"] |= {"uid": "u", "generation": 1} | patch["metadata"] | {"resourceVersion": "6"}
        stored["metadata"]["managedFields"] = [{"manager": "somebody"}]
        return Widget.from_dict(merge_patch(stored, self.change))


@pytest.mark.parametrize(
    ("change", "considered"),
    [
        ({}, 6),
        ({"metadata": {"labels": {"injected": "yes"}}}, 5),
        ({"spec": {"size": 9}}, 5),
        ({"status": {"phase": "Theirs"}}, 5),
        ({"metadata": {"generation": 2}}, 5),
    ],
)
async def test_change_by_a_webhook_in_the_finalizer_write_is_news(change: dict, considered: int) -> None:
    tracker: EchoTracker[Request] = EchoTracker()
    key = Request("w", "ns")
    tracker.begin(key)
    run = ReconcileRun("widget", key, frozenset(), 0, 0)
    loop = asyncio.get_running_loop()
    cycle = Reconcile(ReconcileContext(Widget.gvk, tracker, UnsavedStore(), loop), run)
    cycle.set_basis("u", 5)
    current_cycle.set(cycle)
    document = Widget(metadata=ObjectMeta(name="w", namespace="ns"), spec=WidgetSpec()).to_dict()
    document["metadata"] |= {"uid": "u", "resourceVersion": "5", "generation": 1}
    await ensure_finalizer(Webhook(change), Widget, Widget.from_dict(document), FINALIZER)
    tracker.finish(key)
    assert tracker.seen(key) == considered
