"""The echo rule in real controllers: own writes do not wake, foreign changes always do, in every order of events."""

from __future__ import annotations

import asyncio

import pytest

from reconciler.cache import EventType
from reconciler.controller import Predicate, Result
from reconciler.meta import Request
from reconciler.objects import ObjectMeta
from reconciler.status import StatusBatcher
from tests.controller.conftest import KeyReconciler, Widget, WidgetReconciler, WidgetSpec, World, quiet

ORDERS = pytest.mark.parametrize("event_order", ["before", "after", "late", "seeded"], indirect=True)
pytestmark = pytest.mark.virtual_time


@ORDERS
async def test_own_status_write_does_not_wake(world: World) -> None:
    reconciler = WidgetReconciler()
    await world.start(reconciler)
    await world.widget()
    await quiet(60)
    assert len(reconciler.runs) == 1
    assert world.status_writes() == 1
    assert (await world.read()).status.phase == "Ready"


@ORDERS
async def test_many_objects_are_reconciled_once_each(world: World) -> None:
    reconciler = WidgetReconciler()
    await world.start(reconciler, workers=4)
    for number in range(50):
        await world.widget(f"w{number}")
    await quiet(60)
    assert len(reconciler.runs) == 50
    assert sum(world.status_writes(f"w{number}") for number in range(50)) == 50


@ORDERS
async def test_foreign_change_wakes_once(world: World) -> None:
    reconciler = WidgetReconciler()
    await world.start(reconciler)
    await world.widget()
    await quiet()
    await world.resize(2)
    await quiet(60)
    assert reconciler.sizes == [1, 2]
    assert world.status_writes() == 2


@ORDERS
async def test_foreign_change_during_the_body_is_reconciled(world: World) -> None:
    async def body(reconciler, obj, status):
        if len(reconciler.runs) == 1:
            await world.resize(2)
            await quiet(0.2)

    reconciler = WidgetReconciler(body)
    await world.start(reconciler)
    await world.widget()
    await quiet(60)
    assert reconciler.sizes == [1, 2]
    assert (await world.read()).status.seen_size == 2


@ORDERS
async def test_replay_after_a_conflict_is_not_own(world: World) -> None:
    """The change comes so late that the batcher gets a conflict, and replays on top of it."""

    async def body(reconciler, obj, status):
        if len(reconciler.runs) == 1:
            await world.resize(2)

    reconciler = WidgetReconciler(body)
    await world.start(reconciler)
    await world.widget()
    await quiet(60)
    assert reconciler.sizes[0] == 1
    assert reconciler.sizes[-1] == 2
    assert len(reconciler.runs) <= 3
    assert (await world.read()).status.seen_size == 2


@ORDERS
async def test_relist_that_shows_only_our_replayed_version_loses_nothing(world: World) -> None:
    """The watch breaks before the foreign change; the next list shows our own write on top of it."""

    async def body(reconciler, obj, status):
        if len(reconciler.runs) == 1:
            world.server.faults.add(verb="watch", status=503, times=3)
            world.server.cut_watches("widgets")
            await world.resize(2)
            world.server.compact()

    reconciler = WidgetReconciler(body)
    await world.start(reconciler)
    await world.widget()
    await quiet(300)
    assert reconciler.sizes[-1] == 2
    assert (await world.read()).status.seen_size == 2


@ORDERS
async def test_foreign_status_write_at_the_same_moment_survives_and_wakes(world: World) -> None:
    async def body(reconciler, obj, status):
        if len(reconciler.runs) == 1:
            await world.foreign.patch(Widget, "w", "ns", patch={"status": {"foreign": "kept"}}, subresource="status")

    reconciler = WidgetReconciler(body)
    await world.start(reconciler)
    await world.widget()
    await quiet(60)
    stored = await world.read()
    assert (stored.status.foreign, stored.status.phase) == ("kept", "Ready")
    assert len(reconciler.runs) >= 2


@ORDERS
async def test_a_plain_patch_by_the_user_wakes(world: World) -> None:
    async def body(reconciler, obj, status):
        if obj.spec.size < 3:
            await reconciler.client.patch(Widget, "w", "ns", patch={"spec": {"size": obj.spec.size + 1}})

    reconciler = WidgetReconciler(body)
    await world.start(reconciler)
    await world.widget()
    await quiet(60)
    assert reconciler.sizes == [1, 2, 3]


@ORDERS
async def test_another_reason_during_the_reconcile_runs_once_more(world: World) -> None:
    async def body(reconciler, obj, status):
        if len(reconciler.runs) == 1:
            controller.enqueue(obj.key, "told")

    reconciler = WidgetReconciler(body)
    controller = await world.start(reconciler)
    await world.widget()
    await quiet(60)
    assert [reasons for _, reasons in reconciler.runs] == [{"event"}, {"enqueue: told"}]


@ORDERS
async def test_lost_response_wakes_at_most_once_and_writes_once(world: World) -> None:
    reconciler = WidgetReconciler()
    await world.start(reconciler)
    world.server.faults.add(subresource="status", after_commit=True, lost=True)
    await world.widget()
    await quiet(60)
    assert len(reconciler.runs) <= 2
    assert world.status_writes() == 1
    assert (await world.read()).status.phase == "Ready"


@ORDERS
async def test_unchanged_status_is_not_written_again(world: World) -> None:
    reconciler = WidgetReconciler()
    controller = await world.start(reconciler)
    stored = await world.widget()
    await quiet()
    controller.enqueue(stored.key)
    await quiet(60)
    assert len(reconciler.runs) == 2
    assert world.writes() == 1


@ORDERS
async def test_echo_does_not_consume_the_timer(world: World) -> None:
    async def body(reconciler, obj, status):
        status.increment("runs")
        return Result(requeue_after=30)

    reconciler = WidgetReconciler(body)
    await world.start(reconciler)
    await world.widget()
    await quiet(100)
    start = reconciler.times[0]
    assert [time - start for time in reconciler.times] == pytest.approx([0, 30, 60, 90], abs=0.5)
    assert world.status_writes() == 4
    assert [reasons for _, reasons in reconciler.runs[1:]] == [{"requeue_after"}] * 3


@ORDERS
@pytest.mark.parametrize("door", ["live get", "live list", "informer's store"])
@pytest.mark.parametrize("basis", ["cached list", "cached get", "batcher by name"])
async def test_a_change_after_an_unreported_read_is_reconciled(world: World, door: str, basis: str) -> None:
    """The first read is old; a later read, and the write on it, are new. The change in between is not observed."""
    informer = await world.cache.informer(Widget)
    sizes = []

    async def read_size(reconciler, request):
        if door == "live get":
            return (await reconciler.client.live.get(Widget, *request)).spec.size
        if door == "live list":
            return (await reconciler.client.live.list(Widget, request.namespace))[0].spec.size
        return informer.store.get(request).decode()["spec"]["size"]

    async def body(reconciler, request):
        sizes.append(await read_size(reconciler, request))
        if len(sizes) == 1:
            await world.resize(2)
            await quiet(0.5)  # its event has reached the store
        given: tuple = (Widget,)
        if basis == "cached list":
            given = ((await reconciler.client.list(Widget, request.namespace))[0],)
        elif basis == "cached get":
            given = (await reconciler.client.get(Widget, *request),)
        named = {} if len(given) == 1 and basis != "batcher by name" else {"name": "w", "namespace": "ns"}
        async with StatusBatcher(reconciler.client, *given, **named) as status:
            status.set(phase="Ready")

    await world.start(KeyReconciler(body), resource=Widget)
    await world.widget()
    await quiet(60)
    assert sizes[0] == 1
    assert sizes[-1] == 2
    assert len(sizes) <= 3
    assert (await world.read()).status.phase == "Ready"


@ORDERS
@pytest.mark.parametrize("setter", ["enqueue", "source", "queue", "thread"])
async def test_a_delay_set_by_somebody_else_survives_the_echo(world: World, setter: str) -> None:
    """A timer that is set while the key is in progress is independent of the event of the own write."""
    orders: asyncio.Queue[Request] = asyncio.Queue()

    async def later(enqueue):
        while True:
            enqueue(await orders.get(), after=60)

    async def enqueue_later(key):
        controller.enqueue(key, "later", after=60)

    async def body(reconciler, obj, status):
        status.increment("runs")
        if len(reconciler.runs) > 1:
            return
        if setter == "enqueue":
            controller.enqueue(obj.key, "later", after=60)
        elif setter == "queue":
            controller.queue.add(obj.key, after=60, reason="later")
        elif setter == "source":
            orders.put_nowait(obj.key)
        else:  # with its own loop, which must not get the timer
            await asyncio.to_thread(lambda: asyncio.run(enqueue_later(obj.key)))
        await status.flush()  # the event of this write may come during the reconcile
        await quiet(0.5)

    reconciler = WidgetReconciler(body)
    controller = await world.start(reconciler, sources=[later])
    await world.widget()
    await quiet(200)
    start = reconciler.times[0]
    assert [time - start for time in reconciler.times] == pytest.approx([0, 60], abs=0.5)
    assert all("event" not in reasons for _, reasons in reconciler.runs[1:])


@ORDERS
@pytest.mark.parametrize("by_key", [True, False])
@pytest.mark.parametrize("trouble", ["lost response", "foreign change", "live read"])
async def test_a_write_in_each_reconcile_catches_up_with_a_slow_watch(world: World, by_key: bool, trouble: str) -> None:
    """If one own write does not count as observed, the next one must, or the key would wake itself forever."""

    async def count(reconciler, obj):
        async with StatusBatcher(reconciler.client, obj) as status:
            status.increment("runs")
            if len(reconciler.runs) == 1 and trouble == "foreign change":
                await world.foreign.patch(Widget, "w", "ns", patch={"metadata": {"labels": {"a": "b"}}})
            if len(reconciler.runs) == 1 and trouble == "lost response":
                world.server.faults.add(subresource="status", after_commit=True, lost=True)
            if len(reconciler.runs) <= 2:
                controller.enqueue(obj.key)  # the next one starts before the event of this write has come
            await quiet(0.5)

    async def by_key_body(reconciler, request):
        client = reconciler.client.live if trouble == "live read" else reconciler.client
        await count(reconciler, await client.get(Widget, *request))

    async def object_body(reconciler, obj, status):
        await count(reconciler, obj)

    reconciler: KeyReconciler | WidgetReconciler = (
        KeyReconciler(by_key_body) if by_key else WidgetReconciler(object_body)
    )
    controller = await world.start(reconciler, resource=Widget)
    await world.widget()
    await quiet(60)
    assert len(reconciler.runs) <= 6


@ORDERS
async def test_an_echo_leaves_the_reasons_of_others_unchanged(world: World) -> None:
    """Readiness, priority and reasons of other adds stay unchanged."""

    async def body(reconciler, obj, status):
        status.increment("runs")
        if len(reconciler.runs) == 1:
            controller.queue.add(obj.key, reason="event", priority=3)  # a word that the controller uses as well
            await quiet(0.5)

    reconciler = WidgetReconciler(body)
    controller = await world.start(reconciler)
    await world.widget()
    await quiet(60)
    assert len(reconciler.runs) == 2


@ORDERS
async def test_foreign_event_consumes_the_timer_and_its_outcome_sets_the_next(world: World) -> None:
    async def body(reconciler, obj, status):
        return Result(requeue_after=30)

    reconciler = WidgetReconciler(body)
    await world.start(reconciler)
    await world.widget()
    await quiet(10)
    await world.resize(2)
    await quiet(25)
    assert len(reconciler.runs) == 2
    await quiet(10)
    assert len(reconciler.runs) == 3


async def test_two_controllers_of_one_kind_observe_each_others_writes(world: World) -> None:
    async def other_body(reconciler, obj, status):
        status.set(foreign="other")

    one = WidgetReconciler()
    other = WidgetReconciler(other_body)
    await world.start(one, name="one")
    await world.start(other, name="other")
    await world.widget()
    await quiet(60)
    stored = await world.read()
    assert (stored.status.phase, stored.status.foreign) == ("Ready", "other")
    assert 2 <= len(one.runs) + len(other.runs) <= 6


async def test_a_write_to_another_object_of_the_kind_wakes_that_object(world: World) -> None:
    async def body(reconciler, obj, status):
        if obj.name == "parent" and len(reconciler.runs) == 1:
            child = Widget(metadata=ObjectMeta(name="child", namespace="ns"), spec=WidgetSpec(size=5))
            await reconciler.client.create(child)

    reconciler = WidgetReconciler(body)
    await world.start(reconciler)
    await world.widget("parent")
    await quiet(60)
    assert reconciler.sizes == [1, 5]
    assert (await world.read("child")).status.seen_size == 5


@ORDERS
async def test_wake_on_own_status_restores_the_echo(world: World) -> None:
    reconciler = WidgetReconciler()
    await world.start(reconciler, wake_on_own_status=True)
    await world.widget()
    await quiet(60)
    assert len(reconciler.runs) == 2
    assert world.status_writes() == 1


@ORDERS
async def test_versions_of_deleted_objects_are_dropped(world: World) -> None:
    reconciler = WidgetReconciler()
    controller = await world.start(reconciler)
    for number in range(20):
        await world.widget(f"w{number}")
    await quiet()
    assert controller.statistics().echo.known == 20
    for number in range(20):
        await world.foreign.delete(Widget, f"w{number}", "ns")
    await quiet(60)
    statistics = controller.statistics()
    assert (statistics.echo.known, statistics.echo.in_progress) == (0, 0)
    assert not controller.queue.keys()


async def test_deleted_objects_are_forgotten_although_predicates_drop_the_event(world: World) -> None:
    hidden = Predicate(lambda event: event.type is not EventType.DELETED)
    controller = await world.start(WidgetReconciler(), predicates=[hidden])
    await world.widget()
    await quiet()
    await world.foreign.delete(Widget, "w", "ns")
    await quiet(60)
    assert controller.statistics().echo.known == 0


async def test_reconcile_of_a_stale_copy_of_a_deleted_object_leaves_nothing(world: World) -> None:
    kept = []

    async def body(reconciler, request):
        if not kept:
            kept.append(await reconciler.client.get(Widget, *request))
        async with StatusBatcher(reconciler.client, kept[0]) as status:
            status.increment("runs")

    controller = await world.start(KeyReconciler(body), resource=Widget)
    await world.widget()
    await quiet()
    await world.foreign.delete(Widget, "w", "ns")
    await quiet(60)
    assert controller.statistics().reconciles == 2
    assert controller.statistics().echo.known == 0


@ORDERS
async def test_recreated_object_is_reconciled(world: World) -> None:
    reconciler = WidgetReconciler()
    await world.start(reconciler)
    await world.widget(size=1)
    await quiet()
    await world.foreign.delete(Widget, "w", "ns")
    await world.widget(size=2)
    await quiet(60)
    assert reconciler.sizes == [1, 2]


@ORDERS
async def test_restored_backup_reconciles_everything(world: World) -> None:
    reconciler = WidgetReconciler()
    await world.start(reconciler)
    for size in range(2, 12):
        await (world.widget() if size == 2 else world.resize(size))
    await quiet(10)
    await world.server.restart(wipe=True)
    await world.server.apply(Widget)
    await world.server.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ns"}})
    await world.widget(size=20)
    await quiet(600)
    assert reconciler.sizes[-1] == 20
    await world.resize(21)
    await quiet(10)
    assert reconciler.sizes[-1] == 21
