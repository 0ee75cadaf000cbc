"""Events other than those of primary objects, and the priority and reason with which they enqueue keys."""

from __future__ import annotations

import asyncio

import pytest

from reconciler.cache import NotCached
from reconciler.controller import Watch, every_owner, generation_changed, labels_changed
from reconciler.controller.wake.handlers import LOW_PRIORITY
from reconciler.controller.wake.watches import check_requests, controller_owner
from reconciler.meta import GroupVersionKind, Request, owner_reference
from reconciler.meta.metadata import ResourceType
from reconciler.objects import Model, ObjectMeta, Resource, Unstructured
from tests.controller.conftest import KeyReconciler, Widget, WidgetReconciler, World, quiet

pytestmark = pytest.mark.virtual_time

MAP = "v1/ConfigMap"


class Node(Resource[Model], group="example.com", version="v1", scope="Cluster"):
    """A thing without a namespace."""


def config_map(name: str, *owners: dict, data: str = "1", **metadata) -> dict:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "ns", "ownerReferences": list(owners)} | metadata,
        "data": {"key": data},
    }


async def change(world: World, name: str, data: str) -> None:
    await world.foreign.patch(MAP, name, "ns", patch={"data": {"key": data}})


def reference(obj, *, controller: bool = True) -> dict:
    return owner_reference(obj.to_dict(), controller=controller)


async def test_owned_object_enqueues_its_controlling_owner(world: World) -> None:
    reconciler = KeyReconciler()
    await world.start(reconciler, resource=Widget, owns=[MAP])
    owner = await world.widget("owner")
    await world.widget("friend")
    await quiet()
    del reconciler.runs[:]
    await world.foreign.create(config_map("m", reference(owner)))
    await quiet()
    assert [(request.name, reasons) for _, request, reasons in reconciler.runs] == [("owner", {"owned: ConfigMap"})]
    await change(world, "m", "2")
    await world.foreign.delete(MAP, "m", "ns")
    await quiet()
    assert set(reconciler.keys) == {"ns/owner"}


async def test_owner_that_is_not_the_controller_is_enqueued_by_every_owner_only(world: World) -> None:
    one, all_of_them = KeyReconciler(), KeyReconciler()
    await world.start(one, resource=Widget, name="one", owns=[MAP])
    await world.start(all_of_them, resource=Widget, name="all", owns=[Watch(MAP, mapper=every_owner)])
    owner = await world.widget("owner")
    await quiet()
    del one.runs[:], all_of_them.runs[:]
    await world.foreign.create(config_map("m", reference(owner, controller=False)))
    await quiet()
    assert (one.keys, all_of_them.keys) == ([], ["ns/owner"])


async def test_owner_of_another_kind_or_group_is_not_enqueued(world: World) -> None:
    reconciler = KeyReconciler()
    await world.start(reconciler, resource=Widget, owns=[MAP])
    owner = await world.widget("owner")
    await quiet()
    del reconciler.runs[:]
    await world.foreign.create(config_map("a", reference(owner) | {"kind": "Gadget"}))
    await world.foreign.create(config_map("b", reference(owner) | {"apiVersion": "other.io/v1"}))
    await world.foreign.create(config_map("c", reference(owner) | {"apiVersion": "example.com/v1beta1"}))
    await quiet()
    assert reconciler.keys == ["ns/owner"]  # an older version of the same kind is the same kind


async def test_change_of_owner_enqueues_the_old_and_the_new_one(world: World) -> None:
    reconciler = KeyReconciler()
    await world.start(reconciler, resource=Widget, owns=[MAP])
    old, new = await world.widget("old"), await world.widget("new")
    await world.foreign.create(config_map("m", reference(old)))
    await quiet()
    del reconciler.runs[:]
    await world.foreign.patch(MAP, "m", "ns", patch={"metadata": {"ownerReferences": [reference(new)]}})
    await quiet()
    assert sorted(reconciler.keys) == ["ns/new", "ns/old"]


async def test_cluster_scoped_owner_has_no_namespace_in_its_key(world: World) -> None:
    await world.server.apply(Node)
    reconciler = KeyReconciler()
    await world.start(reconciler, resource=Node, owns=[MAP])
    node = await world.foreign.create(Node(metadata=ObjectMeta(name="n"), spec=Model()))
    await quiet()
    del reconciler.runs[:]
    await world.foreign.create(config_map("m", reference(node)))
    await quiet()
    assert [request for _, request, _ in reconciler.runs] == [Request("n")]


async def test_mapper_gets_old_and_new_object_and_enqueues_each_key_once(world: World) -> None:
    seen = []

    def mapper(one: Unstructured) -> list[Request]:
        seen.append(one["data"]["key"])
        return [Request(one["data"]["key"], "ns"), Request("always", "ns"), Request("always", "ns")]

    reconciler = KeyReconciler()
    await world.start(reconciler, resource=Widget, watches=[Watch(MAP, mapper=mapper)])
    await world.foreign.create(config_map("m", data="x"))
    await quiet()
    del reconciler.runs[:], seen[:]
    await change(world, "m", "y")
    await quiet()
    assert seen == ["x", "y"]
    assert sorted(reconciler.keys) == ["ns/always", "ns/x", "ns/y"]
    assert reconciler.runs[0][2] == {"watched: ConfigMap"}


async def test_mapper_of_a_typed_watch_gets_typed_objects(world: World) -> None:
    reconciler = KeyReconciler()
    watch = Watch(Widget, mapper=lambda widget: [Request(f"size-{widget.spec.size}")])
    await world.server.apply(Node)
    await world.start(reconciler, resource=Node, watches=[watch])
    await world.widget(size=3)
    await quiet()
    assert reconciler.keys == ["size-3"]


@pytest.mark.parametrize("typed", [False, True])
async def test_metadata_only_watch_has_no_spec(world: World, typed: bool) -> None:
    seen = []

    def mapper(obj):
        seen.append(obj)
        return [Request("w", "ns")]

    kind = Widget if typed else "example.com/v1/Widget"
    reconciler = KeyReconciler()
    watch = Watch(kind, mapper=mapper, metadata_only=True)
    await world.start(reconciler, resource="v1/ConfigMap", watches=[watch])
    await world.widget("other", labels={"a": "b"})
    await quiet()
    assert reconciler.keys == ["ns/w"]
    document = seen[0].to_dict()
    assert (document["kind"], document["metadata"]["labels"], "spec" in document) == ("Widget", {"a": "b"}, False)
    with pytest.raises(NotCached):
        await world.cached.get(kind, "other", "ns")


async def test_owned_objects_can_be_watched_by_their_metadata(world: World) -> None:
    owner = await world.widget()
    reconciler = KeyReconciler()
    await world.start(reconciler, resource=Widget, owns=[Watch("v1/ConfigMap", metadata_only=True)])
    await quiet()
    await world.foreign.create(config_map("c", reference(owner)))
    await quiet()
    assert [set(reasons) for *_, reasons in reconciler.runs] == [{"event"}, {"owned: ConfigMap"}]


async def test_watch_without_mapper_enqueues_the_key_of_the_same_name(world: World) -> None:
    reconciler = KeyReconciler()
    await world.start(reconciler, resource=Widget, watches=[Watch(MAP)])
    await world.foreign.create(config_map("w"))
    await quiet()
    assert reconciler.keys == ["ns/w"]


async def test_async_mapper_may_read_through_the_client(world: World) -> None:
    reconciler = WidgetReconciler()

    async def mapper(one: Unstructured) -> list[Request]:
        return [widget.key for widget in await reconciler.client.list(Widget, "ns") if widget.spec.size == 5]

    await world.start(reconciler, watches=[Watch(MAP, mapper=mapper)])
    await world.widget("a", size=5)
    await world.widget("b", size=1)
    await quiet()
    del reconciler.runs[:], reconciler.sizes[:]
    await world.foreign.create(config_map("m"))
    await quiet()
    assert reconciler.sizes == [5]
    assert reconciler.runs[0][1] == {"watched: ConfigMap"}


async def test_async_mapper_that_fails_is_retried(world: World) -> None:
    calls = []

    async def mapper(one: Unstructured) -> list[Request]:
        calls.append(one["data"]["key"])
        if len(calls) < 3:
            raise OSError("no network")
        return [Request("w", "ns")]

    reconciler = KeyReconciler()
    await world.start(reconciler, resource=Widget, watches=[Watch(MAP, mapper=mapper)])
    await world.foreign.create(config_map("m"))
    await quiet(10)
    assert (calls, reconciler.keys) == (["1", "1", "1"], ["ns/w"])


async def test_every_version_is_mapped_by_an_async_mapper(world: World) -> None:
    """Only the version in the middle was mapped to this key."""

    async def mapper(one: Unstructured) -> list[Request]:
        await asyncio.sleep(1)
        return [Request(one["data"]["key"], "ns")]

    reconciler = KeyReconciler()
    await world.start(reconciler, resource=Widget, watches=[Watch(MAP, mapper=mapper)])
    await world.foreign.create(config_map("m", data="a"))
    await change(world, "m", "b")
    await change(world, "m", "c")
    await quiet(60)
    assert set(reconciler.keys) == {"ns/a", "ns/b", "ns/c"}


async def test_slow_async_mapper_drops_the_oldest_versions_and_counts_them(world: World) -> None:
    async def mapper(one: Unstructured) -> list[Request]:
        await asyncio.sleep(1000)
        return []

    controller = await world.start(KeyReconciler(), resource=Widget, watches=[Watch(MAP, mapper=mapper)])
    await world.foreign.create(config_map("m"))
    for number in range(120):
        await change(world, "m", f"v{number}")
    await quiet(1)
    assert controller.statistics().unmapped > 0


@pytest.mark.parametrize(
    ("mapped", "message"),
    [
        ("w", "must return a list"),
        (Request("w", "ns"), "must return a list"),
        (None, "must return a list"),
        (["w"], "not str"),
        ([Request("w")], "is namespaced"),
    ],
)
async def test_return_value_of_a_mapper_is_checked(mapped, message) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        check_requests(mapped, Widget.resource_type)


async def test_requests_of_a_cluster_scoped_kind_have_no_namespace() -> None:
    with pytest.raises(ValueError, match="is cluster-scoped"):
        check_requests([Request("n", "ns")], Node.resource_type)


async def test_mapper_that_fails_is_logged_and_affects_no_other(world: World, caplog) -> None:
    def broken(one: Unstructured) -> list[Request]:
        raise RuntimeError("broken")

    reconciler = KeyReconciler()
    await world.start(reconciler, resource=Widget, watches=[Watch(MAP, mapper=broken), Watch(MAP)])
    await world.foreign.create(config_map("w"))
    await quiet()
    assert reconciler.keys == ["ns/w"]
    says = "<locals>.broken of v1/ConfigMap failed on ns/w and is retried with backoff: RuntimeError: broken"
    assert says in caplog.text


async def test_predicates_of_a_watch_filter_its_events(world: World) -> None:
    reconciler = KeyReconciler()
    await world.start(reconciler, resource=Widget, watches=[Watch(MAP, predicates=[labels_changed])])
    await world.foreign.create(config_map("w"))
    await quiet()
    await change(world, "w", "2")
    await quiet()
    assert len(reconciler.runs) == 1
    await world.foreign.patch(MAP, "w", "ns", patch={"metadata": {"labels": {"a": "b"}}})
    await quiet()
    assert len(reconciler.runs) == 2


async def test_predicates_of_the_controller_filter_primary_events(world: World) -> None:
    reconciler = WidgetReconciler()
    await world.start(reconciler, predicates=[generation_changed])
    await world.widget()
    await quiet()
    await world.foreign.patch(Widget, "w", "ns", patch={"metadata": {"labels": {"a": "b"}}})
    await quiet()
    assert len(reconciler.runs) == 1
    await world.resize(2)
    await quiet()
    assert len(reconciler.runs) == 2


async def test_event_passes_if_a_predicate_fails(world: World, caplog) -> None:
    def broken(event) -> bool:
        raise RuntimeError("broken")

    reconciler = WidgetReconciler()
    await world.start(reconciler, predicates=[broken])
    await world.widget()
    await quiet()
    assert len(reconciler.runs) == 1
    assert "not filtered" in caplog.text


async def test_initial_objects_run_at_low_priority_behind_fresh_changes(world: World) -> None:
    order = []

    async def body(reconciler, request):
        order.append((request.name, reconciler.run.priority))
        await asyncio.sleep(1)

    for number in range(5):
        await world.widget(f"old{number}")
    await world.start(KeyReconciler(body), resource=Widget)
    await quiet(0.5)
    await world.widget("new")
    await quiet(20)
    assert order[0] == ("old0", LOW_PRIORITY)
    assert order[1] == ("new", 0)
    assert len(order) == 6


async def test_owned_objects_of_the_initial_list_run_at_low_priority(world: World) -> None:
    priorities = []

    async def body(reconciler, request):
        priorities.append(reconciler.run.priority)

    owner = await world.widget("owner")
    await world.foreign.create(config_map("m", reference(owner)))
    await world.start(KeyReconciler(body), resource=Widget, owns=[MAP])
    await quiet()
    assert priorities == [LOW_PRIORITY]


async def test_resync_is_reconciled_although_the_version_was_observed(world: World) -> None:
    reconciler = WidgetReconciler()
    await world.start(reconciler)
    await world.widget()
    await quiet()
    world.cache.informers[0].resync_every(100)
    await quiet(120)
    assert [reasons for _, reasons in reconciler.runs] == [{"event"}, {"resync"}]
    assert world.status_writes() == 1


async def test_echo_of_a_low_priority_reconcile_keeps_the_timer(world: World) -> None:
    from reconciler.controller import Result

    async def body(reconciler, obj, status):
        status.increment("runs")
        return Result(requeue_after=50)

    await world.widget()
    reconciler = WidgetReconciler(body)
    await world.start(reconciler)
    await quiet(110)
    assert len(reconciler.runs) == 3


def test_repr_of_owner_mappers():
    assert (repr(controller_owner), repr(every_owner)) == ("controller_owner", "every_owner")


def test_owners_of_a_namespaced_kind_are_in_the_objects_namespace():
    from reconciler.cache.decoding import cached_object

    primary = ResourceType(GroupVersionKind("example.com", "v1", "Widget"), "widgets", namespaced=True)
    owner = {"apiVersion": "example.com/v1", "kind": "Widget", "name": "w", "uid": "u", "controller": True}
    assert controller_owner.map(cached_object(config_map("m", owner)), primary) == [Request("w", "ns")]
