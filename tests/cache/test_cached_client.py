"""Cached reads, live writes, and own writes that are visible immediately, on the embedded server."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.apiserver import APIServer
from reconciler.cache import Cache, CachedClient, CacheNotSynced, NotCached, overlay
from reconciler.client import Client
from reconciler.errors import AlreadyExists, Forbidden, NotFound, OutcomeUnknown, ServerError
from reconciler.http import HTTPRequest, HTTPResponse, Transport
from reconciler.meta import GroupVersionKind, Request
from reconciler.meta.cycle import current_cycle
from reconciler.meta.documents import Version
from reconciler.objects import Model, ObjectMeta, Resource, Unstructured
from reconciler.testing import virtual_time
from tests.depth import examples

pytestmark = pytest.mark.virtual_time

MAP = "v1/ConfigMap"


class DatabaseSpec(Model):
    size: int = 1
    colors: list[str] = []


class Database(Resource[DatabaseSpec], group="example.com", version="v1"):
    """A database."""


def config_map(name: str, namespace: str = "default", **more: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, **more.pop("metadata", {})}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"key": "value"}, **more}


def database(name: str, namespace: str = "default", *, labels: dict[str, str] | None = None, **spec: Any) -> Database:
    return Database(metadata=ObjectMeta(name=name, namespace=namespace, labels=labels or {}), spec=DatabaseSpec(**spec))


class World:
    def __init__(self, server: APIServer) -> None:
        self.server = server
        self.live = Client(server)
        self.cache = Cache(self.live)
        self.client = CachedClient(self.live, self.cache)

    async def declare(self, *kinds: Any, **options: Any) -> None:
        for kind in kinds:
            await self.cache.informer(kind, **options)
        await self.cache.start()
        await self.cache.wait_synced(30)
        self.server.log.clear()

    def hold_watches(self) -> None:
        """Make the watch fall behind: cut it and refuse to reopen it."""
        self.fault = self.server.faults.add(status=429, verb="watch", times=None)
        self.server.cut_watches()

    async def catch_up(self) -> None:
        self.fault.remove()
        await asyncio.sleep(120)

    def reads(self) -> int:
        """Return how many objects and collections were read, without discovery."""
        return sum(bool(asked.resource) for asked in self.server.requests(verb={"get", "list"}))


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with APIServer() as server:
        await server.apply(Database)
        world = World(server)
        yield world
        await world.cache.stop()


async def test_reads_of_declared_kinds_cost_no_request(world: World) -> None:
    await world.live.create(config_map("a"))
    await world.declare(MAP)
    for _ in range(10):
        assert (await world.client.get(MAP, "a", "default"))["data"] == {"key": "value"}
        assert len(await world.client.list(MAP, "default")) == 1
    assert world.server.requests() == []


async def test_reads_are_typed_and_equal_to_live_ones(world: World) -> None:
    await world.live.create(database("a", size=3, labels={"x": "y"}))
    await world.declare(Database, MAP)
    cached, live = (
        await world.client.get(Database, "a", "default"),
        await world.client.live.get(Database, "a", "default"),
    )
    assert isinstance(cached, Database)
    assert cached.spec.size == 3
    stored = live.to_dict()
    stored["metadata"].pop("managedFields", None)
    assert cached.to_dict() == stored
    await world.live.create(config_map("m"))
    await asyncio.sleep(1)
    found = await world.client.get(MAP, "m", "default")
    assert isinstance(found, Unstructured)
    assert found.gvk == GroupVersionKind.parse(MAP)


async def test_a_version_is_compared_with_its_model_once_and_then_read_part_by_part(world: World) -> None:
    await world.server.apply(Database)
    await world.live.create(database("main", labels={"team": "data"}, size=3, colors=["red"]))
    await world.declare(Database)
    first = await world.client.get(Database, "main", "default")
    document, validated = first.to_dict(), []
    with pytest.MonkeyPatch.context() as patched:
        for model in (ObjectMeta, DatabaseSpec, Database.status_model):
            read = model.model_validate
            note = lambda data, read=read, name=model.__name__: validated.append(name) or read(data)  # noqa: E731
            patched.setattr(model, "model_validate", note)
        second = await world.client.get(Database, "main", "default")
        assert (second.name, second.namespace, second.key) == ("main", "default", first.key)
        assert copy.deepcopy(second).to_dict() == document
        assert validated == []
        assert (second.spec.size, second.spec.colors, second.labels) == (3, ["red"], {"team": "data"})
        assert validated == ["DatabaseSpec", "ObjectMeta"]
    assert second == first
    second.spec.size = 4
    assert second.to_dict()["spec"] == {"size": 4, "colors": ["red"]}
    assert not hasattr(second, "other")
    await world.live.patch(Database, "main", "default", patch={"spec": {"size": 5}})
    await asyncio.sleep(1)
    assert (await world.client.get(Database, "main", "default")).spec.size == 5


async def test_a_reader_cannot_corrupt_the_cache(world: World) -> None:
    await world.live.create(config_map("a"))
    await world.declare(MAP)
    mine = await world.client.get(MAP, "a", "default")
    mine["data"]["key"] = "mine"
    (listed,) = await world.client.list(MAP, "default")
    listed["data"].clear()
    assert (await world.client.get(MAP, "a", "default"))["data"] == {"key": "value"}


async def test_reading_an_undeclared_kind_is_an_error_that_names_client_live(world: World) -> None:
    await world.declare(MAP)
    with pytest.raises(NotCached, match=r"v1/Secret is not cached: declare it .* client\.live"):
        await world.client.get("v1/Secret", "a", "default")
    with pytest.raises(NotCached, match=r"client\.live"):
        await world.client.list("v1/Secret")
    assert (await world.client.live.list("v1/Secret")).resource_version
    assert world.client.live.live.live is not world.client
    with pytest.raises(NotFound):
        await world.client.live.get("v1/Secret", "a", "default")


async def test_a_missing_object_reads_as_on_the_server(world: World) -> None:
    await world.declare(Database)
    with pytest.raises(NotFound) as cached:
        await world.client.get(Database, "a", "default")
    with pytest.raises(NotFound) as live:
        await world.client.live.get(Database, "a", "default")
    assert (cached.value.status, cached.value.reason, cached.value.message) == (404, "NotFound", live.value.message)
    assert cached.value.body == live.value.body
    assert cached.value.details == live.value.details


async def test_a_namespace_is_required_for_namespaced_kinds_only(world: World) -> None:
    await world.declare(MAP, "v1/Namespace")
    with pytest.raises(ValueError, match="needs a namespace"):
        await world.client.get(MAP, "a")
    assert (await world.client.get("v1/Namespace", "default")).name == "default"
    assert {"default", "kube-system"} <= {one.name for one in await world.client.list("v1/Namespace")}


async def test_an_unknown_namespace_is_not_cached(world: World) -> None:
    await world.server.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}})
    await world.live.create(config_map("a"))
    await world.live.create(config_map("b", "other"))
    await world.declare(MAP, namespaces=["default", "kube-system"])
    with pytest.raises(
        NotCached, match=r"not cached in namespace 'other', only in default, kube-system: .*client\.live"
    ):
        await world.client.get(MAP, "b", "other")
    assert [found.name for found in await world.client.list(MAP)] == ["a"]


async def test_a_metadata_only_informer_does_not_answer_reads(world: World) -> None:
    await world.live.create(config_map("a"))
    await world.declare(MAP, metadata_only=True)
    with pytest.raises(NotCached, match=r"only metadata is cached"):
        await world.client.get(MAP, "a", "default")


async def test_a_read_before_the_start_is_an_error(world: World) -> None:
    await world.cache.informer(MAP)
    with pytest.raises(CacheNotSynced, match="cannot be read before the cache is started"):
        await world.client.get(MAP, "a", "default")


async def test_a_read_waits_for_the_initial_list(world: World) -> None:
    await world.live.create(config_map("a"))
    world.server.faults.add(verb="list", resource="configmaps", latency=5)
    await world.cache.informer(MAP)
    await world.cache.start()
    assert (await world.client.get(MAP, "a", "default")).name == "a"
    assert asyncio.get_running_loop().time() >= 5


async def test_a_read_of_a_kind_that_never_syncs_reports_the_servers_answer(world: World) -> None:
    world.server.faults.add(status=403, resource="configmaps", times=None)
    await world.cache.informer(MAP)
    await world.cache.start()
    with pytest.raises(
        CacheNotSynced, match=r"not synced after 30 s: list configmaps in all namespaces: 403 Forbidden"
    ):
        await world.client.get(MAP, "a", "default")


async def test_lists_are_selected_by_labels_and_sorted_by_key(world: World) -> None:
    await world.server.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "another"}})
    await world.declare(MAP)
    for name, namespace, labels in (
        ("b", "default", "web"),
        ("a", "default", "web"),
        ("c", "another", "web"),
        ("d", "default", "db"),
    ):
        await world.live.create(config_map(name, namespace, metadata={"labels": {"app": labels}}))
    await asyncio.sleep(1)
    for selector in ({"app": "web"}, "app=web", "app in (web)", "app,app!=db"):
        found = await world.client.list(MAP, label_selector=selector)
        live = await world.live.list(MAP, label_selector=selector)
        assert [one.name for one in found] == [one.name for one in live] == ["c", "a", "b"]
    assert [one.name for one in await world.client.list(MAP, "default", label_selector={"app": "db"})] == ["d"]


async def test_lists_are_selected_by_the_fields_of_the_key(world: World) -> None:
    for name in "ab":
        await world.live.create(config_map(name))
    await world.declare(MAP)
    assert [one.name for one in await world.client.list(MAP, field_selector="metadata.name=a")] == ["a"]
    assert [one.name for one in await world.client.list(MAP, field_selector={"metadata.namespace": "x"})] == []
    with pytest.raises(NotCached, match=r"cannot be selected by data\.key=value .*add_index.*client\.live"):
        await world.client.list(MAP, field_selector="data.key=value")


async def test_lists_are_selected_by_indexed_fields_including_own_writes(world: World) -> None:
    for name, colors in (("a", ["red"]), ("b", ["red", "blue"]), ("c", [])):
        await world.live.create(database(name, colors=colors, size=len(colors)))
    informer = await world.cache.informer(Database)
    informer.store.add_index("spec.colors", lambda doc: doc["spec"]["colors"])
    informer.store.add_index("spec.size", lambda doc: [str(doc["spec"]["size"])])
    await world.declare(Database)

    async def names(selector: str) -> list[str]:
        return [one.name for one in await world.client.list(Database, "default", field_selector=selector)]

    assert await names("spec.colors=red") == ["a", "b"]
    assert await names("spec.colors=red,spec.size=2") == ["b"]
    assert await names("spec.colors=red,metadata.name=a") == ["a"]
    world.hold_watches()
    await world.client.patch(Database, "a", "default", patch={"spec": {"colors": ["green"]}})
    await world.client.create(database("d", colors=["red"]))
    await world.client.delete(Database, "b", "default")
    assert await names("spec.colors=red") == ["d"]
    assert await names("spec.colors=green") == ["a"]


async def test_an_index_may_be_declared_before_and_after_its_informer(world: World) -> None:
    for name, colors, size in (("a", ["red"], 1), ("b", ["red", "blue"], 2), ("c", [], 2)):
        await world.live.create(database(name, colors=colors, size=size))
    world.cache.add_index(Database, "spec.colors")
    await world.cache.informer(Database, metadata_only=True)
    await world.declare(Database)
    world.cache.add_index("example.com/v1/Database", "spec.size")
    world.cache.add_index(Database, "spec.size")  # two controllers may need the same one
    world.cache.add_index(Database, "spec.missing.field")
    world.cache.add_index(Database, "spec.parity", lambda document: [str(document["spec"]["size"] % 2)])

    async def names(selector: str) -> list[str]:
        return [one.name for one in await world.client.list(Database, field_selector=selector)]

    assert await names("spec.colors=red") == ["a", "b"]
    assert await names("spec.size=2") == ["b", "c"]
    assert await names("spec.missing.field=2") == []
    assert await names("spec.parity=1") == ["a"]
    with pytest.raises(ValueError, match=r"index 'spec\.size' of example\.com/v1/Database already exists"):
        world.cache.add_index(Database, "spec.size", lambda _: [])
    with pytest.raises(TypeError, match="index"):
        world.cache.add_index(Database, "spec.other", names)  # type: ignore[arg-type]
    assert world.server.requests() == []


async def test_a_list_has_the_version_that_the_watch_has_reached(world: World) -> None:
    made = await world.live.create(config_map("a"))
    await world.declare(MAP)
    assert (await world.client.list(MAP)).resource_version == made.resource_version


async def test_the_least_narrow_informer_answers_and_a_narrow_one_if_it_is_the_only_one(world: World) -> None:
    for name, app in (("a", "web"), ("b", "db")):
        await world.live.create(config_map(name, metadata={"labels": {"app": app}}))
    await world.declare(MAP, label_selector="app=web")
    assert [one.name for one in await world.client.list(MAP)] == ["a"]
    await world.declare(MAP, label_selector="app=db")
    with pytest.raises(NotCached, match=r"cached by several selectors .*app=web; .*app=db"):
        await world.client.list(MAP)
    await world.declare(MAP)
    assert [one.name for one in await world.client.list(MAP)] == ["a", "b"]


# read your writes


async def test_every_write_is_visible_before_the_watch_delivers_it(world: World) -> None:
    await world.declare(Database)
    world.hold_watches()
    client = world.client
    await client.create(database("a", size=1))
    assert (await client.get(Database, "a", "default")).spec.size == 1
    mine = await client.get(Database, "a", "default")
    mine.spec.size = 2
    await client.update(mine)
    assert (await client.get(Database, "a", "default")).spec.size == 2
    await client.patch(Database, "a", "default", patch={"spec": {"size": 3}})
    assert (await client.list(Database))[0].spec.size == 3
    await client.patch(Database, "a", "default", patch={"status": {"observedGeneration": 7}}, subresource="status")
    assert (await client.get(Database, "a", "default")).status.observed_generation == 7
    writer = client.status_writer(Database, "a", "default")
    await writer.write({"status": {"observedGeneration": 8}})
    assert (await client.get(Database, "a", "default")).status.observed_generation == 8
    await client.delete(Database, "a", "default")
    with pytest.raises(NotFound):
        await client.get(Database, "a", "default")
    assert len(await client.list(Database)) == 0
    assert world.reads() == 0
    await world.catch_up()
    with pytest.raises(NotFound):
        await client.get(Database, "a", "default")
    assert world.cache.statistics().informers[0].overlay.entries == 0


async def test_an_object_with_a_finalizer_is_visible_until_the_finalizer_is_removed(world: World) -> None:
    await world.declare(MAP)
    world.hold_watches()
    await world.client.create(config_map("a", metadata={"finalizers": ["example.com/f"]}))
    await world.client.delete(MAP, "a", "default")
    dying = await world.client.get(MAP, "a", "default")
    assert dying.to_dict()["metadata"]["deletionTimestamp"]
    await world.client.patch(MAP, "a", "default", patch={"metadata": {"finalizers": None}})
    with pytest.raises(NotFound):
        await world.client.get(MAP, "a", "default")


async def test_later_foreign_writes_replace_the_overlay(world: World) -> None:
    await world.live.create(database("a", size=1))
    await world.declare(Database)
    world.hold_watches()
    await world.client.patch(Database, "a", "default", patch={"spec": {"size": 2}})
    await world.live.patch(Database, "a", "default", patch={"spec": {"size": 3}})
    assert (await world.client.get(Database, "a", "default")).spec.size == 2
    await world.catch_up()
    assert (await world.client.get(Database, "a", "default")).spec.size == 3


@pytest.mark.parametrize("order", ["before", "after", "late"])
async def test_reads_after_an_own_write_are_never_older_in_any_order_of_events(order: Any) -> None:
    async with APIServer(event_order=order) as server:
        world = World(server)
        await server.apply(Database)
        await world.live.create(database("a", size=0))
        await world.declare(Database)
        for size in range(1, 20):
            await world.client.patch(Database, "a", "default", patch={"spec": {"size": size}})
            assert (await world.client.get(Database, "a", "default")).spec.size == size
        await asyncio.sleep(1)
        assert (await world.client.get(Database, "a", "default")).spec.size == 19
        await world.cache.stop()


async def test_a_dry_run_is_not_laid_over(world: World) -> None:
    await world.declare(MAP)
    await world.client.create(config_map("a"), dry_run=True)
    with pytest.raises(NotFound):
        await world.client.get(MAP, "a", "default")


async def test_a_failed_write_changes_nothing(world: World) -> None:
    await world.live.create(config_map("a"))
    await world.declare(MAP)
    with pytest.raises(AlreadyExists):
        await world.client.create(config_map("a"))
    assert world.cache.statistics().informers[0].overlay.entries == 0


async def test_a_watch_more_than_a_minute_behind_costs_one_live_read_a_minute(world: World) -> None:
    await world.live.create(database("a", size=1))
    await world.declare(Database)
    world.hold_watches()
    await world.client.patch(Database, "a", "default", patch={"spec": {"size": 2}})
    await world.live.patch(Database, "a", "default", patch={"spec": {"size": 3}})
    await asyncio.sleep(61)
    for _ in range(5):
        assert (await world.client.get(Database, "a", "default")).spec.size == 3
    assert world.reads() == 1
    assert world.cache.statistics().informers[0].overlay.expired == 1
    await world.live.delete(Database, "a", "default")
    await asyncio.sleep(61)
    for _ in range(5):
        assert len(await world.client.list(Database)) == 0
    assert world.reads() == 2


async def test_a_cached_client_over_a_wrapped_client_reads_and_records_writes(world: World) -> None:
    await world.declare(MAP)
    world.hold_watches()
    passed: list[str] = []

    class Passing:
        def __init__(self, inner: Transport) -> None:
            self._inner = inner

        async def send(self, request: HTTPRequest, /) -> HTTPResponse:
            passed.append(request.method)
            return await self._inner.send(request)

    through = world.client.through(Passing)
    await through.create(config_map("a"))
    await through.live.create(config_map("b"))
    for client in (through, world.client):
        assert [one.name for one in await client.list(MAP)] == ["a", "b"]
    assert passed == ["POST", "POST"]


# unknown outcomes


async def test_writes_through_live_are_visible_too(world: World) -> None:
    await world.declare(Database)
    world.hold_watches()
    live = world.client.live
    await live.create(database("a", size=1))
    assert (await world.client.get(Database, "a", "default")).spec.size == 1
    await live.with_options(field_manager="x").patch(Database, "a", "default", patch={"spec": {"size": 2}})
    assert (await world.client.get(Database, "a", "default")).spec.size == 2
    await world.client.in_namespace("default").delete(Database, "a")
    with pytest.raises(NotFound):
        await world.client.get(Database, "a", "default")
    assert world.reads() == 0


async def test_a_kind_removed_from_the_cache_is_no_longer_read_from_it(world: World) -> None:
    await world.live.create(config_map("a"))
    await world.declare(MAP)
    await world.client.get(MAP, "a", "default")
    await world.cache.remove(await world.cache.informer(MAP))
    with pytest.raises(NotCached):
        await world.client.get(MAP, "a", "default")


async def test_a_transform_does_not_hide_a_deletion(world: World) -> None:
    def without_deletion(document: dict[str, Any]) -> dict[str, Any]:
        document["metadata"].pop("deletionTimestamp", None)
        return document

    await world.declare(MAP, transform=without_deletion)
    world.hold_watches()
    await world.client.create(config_map("a", metadata={"finalizers": ["example.com/f"]}))
    await world.client.delete(MAP, "a", "default")
    await world.client.patch(MAP, "a", "default", patch={"metadata": {"finalizers": None}})
    with pytest.raises(NotFound):
        await world.client.get(MAP, "a", "default")


async def test_after_delete_all_of_only_objects_with_finalizers_are_visible(world: World) -> None:
    for name in "abc":
        await world.live.create(config_map(name, metadata={"labels": {"app": "web" if name != "c" else "db"}}))
    await world.live.create(config_map("d", "other"))
    held = config_map("held", metadata={"finalizers": ["example.com/f"], "labels": {"app": "web"}})
    await world.live.create(held)
    await world.declare(MAP)
    world.hold_watches()
    await world.client.create(config_map("e", metadata={"labels": {"app": "web"}}))
    await world.client.delete_all_of(MAP, "default", label_selector="app=web")
    assert [one.name for one in await world.client.list(MAP)] == ["c", "held", "d"]
    assert (await world.client.get(MAP, "held", "default")).to_dict()["metadata"]["deletionTimestamp"]
    with pytest.raises(NotFound):
        await world.client.get(MAP, "a", "default")
    assert world.reads() == 1
    await world.client.create(config_map("a"))
    assert (await world.client.get(MAP, "a", "default")).name == "a"
    await world.catch_up()
    assert [one.name for one in await world.client.list(MAP)] == ["a", "c", "held", "d"]
    assert world.cache.statistics().informers[0].overlay.entries == 0


async def test_a_dry_run_of_delete_all_of_invalidates_nothing(world: World) -> None:
    await world.live.create(config_map("a"))
    await world.declare(MAP)
    await world.client.delete_all_of(MAP, "default", dry_run=True)
    assert (await world.client.get(MAP, "a", "default")).name == "a"
    assert world.reads() == 0


@pytest.mark.parametrize("landed", [True, False])
@pytest.mark.parametrize("fault", [{"lost": True}, {"status": 500}])
@pytest.mark.parametrize("verb", ["create", "update", "patch", "apply", "delete", "status"])
async def test_after_a_write_whose_outcome_is_unknown_the_next_read_asks_the_server_once(
    world: World, verb: str, fault: Any, landed: bool
) -> None:
    made = await world.live.create(database("a", size=1))
    await world.declare(Database)
    world.hold_watches()
    calls: dict[str, Any] = {
        "create": lambda: world.client.create(database("b", size=2)),
        "update": lambda: world.client.update(made.to_dict() | {"spec": {"size": 2}}),
        "patch": lambda: world.client.patch(Database, "a", "default", patch={"spec": {"size": 2}}),
        "apply": lambda: world.client.apply(database("a", size=2)),
        "delete": lambda: world.client.delete(Database, "a", "default"),
        "status": lambda: world.client.status_writer(made).write({"status": {"observedGeneration": 2}}),
    }
    verbs = {"status": "patch", "apply": "patch"}
    strike = world.server.faults.add(verb=verbs.get(verb, verb), times=None, after_commit=landed, **fault)
    with pytest.raises((OutcomeUnknown, ServerError)):
        await calls[verb]()
    strike.remove()
    world.server.log.clear()
    for _ in range(3):
        cached, live = await world.client.list(Database), await world.live.list(Database)
        assert [one.resource_version for one in cached] == [one.resource_version for one in live]
    assert world.reads() == 3 + 1


class SlowAnswers:
    """A transport that delays the responses to some requests; the server has processed them by then."""

    def __init__(self, server: APIServer, method: str) -> None:
        self._server = server
        self._method = method
        self.asked = asyncio.Event()
        self.answer = asyncio.Event()

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        response = await self._server.send(request)
        if request.method == self._method and response.chunks is None and "/namespaces/" in request.path:
            self.asked.set()
            await self.answer.wait()
        return response


async def test_after_a_cancelled_write_the_next_read_asks_the_server(world: World) -> None:
    await world.live.create(database("a", size=1))
    await world.declare(Database)
    world.hold_watches()
    slow = SlowAnswers(world.server, "PATCH")
    client = CachedClient(Client(slow), world.cache)
    write = asyncio.create_task(client.patch(Database, "a", "default", patch={"spec": {"size": 2}}))
    await slow.asked.wait()
    write.cancel()
    await asyncio.gather(write, return_exceptions=True)
    assert (await client.get(Database, "a", "default")).spec.size == 2


async def test_writes_during_a_renewal_of_a_namespace_are_kept(world: World) -> None:
    await world.live.create(config_map("a"))
    await world.declare(MAP)
    world.hold_watches()
    slow = SlowAnswers(world.server, "GET")
    client = CachedClient(Client(slow), world.cache)
    await world.client.delete_all_of(MAP, "default")
    read = asyncio.create_task(client.list(MAP, "default"))
    await slow.asked.wait()
    await world.client.create(config_map("b"))
    await world.client.create(config_map("a"))
    slow.answer.set()
    await read
    assert [one.name for one in await world.client.list(MAP, "default")] == ["a", "b"]


async def test_writes_during_a_renewal_of_one_object_are_kept(world: World) -> None:
    await world.live.create(config_map("a"))
    await world.declare(MAP)
    world.hold_watches()
    slow = SlowAnswers(world.server, "GET")
    client = CachedClient(Client(slow), world.cache)
    world.server.faults.add(lost=True, verb="delete", after_commit=True)
    with pytest.raises(OutcomeUnknown):
        await world.client.delete(MAP, "a", "default")
    read = asyncio.create_task(client.get(MAP, "a", "default"))
    await slow.asked.wait()
    made = await world.client.create(config_map("a"))
    slow.answer.set()
    assert (await read).uid == made.uid
    assert (await world.client.get(MAP, "a", "default")).uid == made.uid


async def test_a_repeated_deletion_of_a_missing_object_is_visible_immediately(world: World) -> None:
    made = await world.live.create(database("a"))
    await world.declare(Database)
    world.hold_watches()
    world.server.faults.add(lost=True, verb="delete", after_commit=True)
    assert await world.client.delete(made) is None
    with pytest.raises(NotFound):
        await world.client.get(Database, "a", "default")


async def test_after_a_write_to_a_subresource_the_next_read_asks_the_server(world: World) -> None:
    labels = {"a": "b"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "namespace": "default"}}
    await world.live.create({**deployment, "spec": spec})
    await world.declare("apps/v1/Deployment")
    world.hold_watches()
    scale = {"spec": {"replicas": 3}}
    await world.client.patch("apps/v1/Deployment", "d", "default", patch=scale, subresource="scale")
    for _ in range(3):
        assert (await world.client.get("apps/v1/Deployment", "d", "default"))["spec"]["replicas"] == 3
    assert world.reads() == 1


async def test_if_the_server_cannot_be_asked_the_read_fails_instead_of_returning_old_data(world: World) -> None:
    await world.live.create(database("a", size=1))
    await world.declare(Database)
    world.hold_watches()
    world.server.faults.add(lost=True, verb="patch", after_commit=True)
    with pytest.raises(OutcomeUnknown):
        await world.client.patch(Database, "a", "default", patch={"spec": {"size": 2}})
    refusal = world.server.faults.add(status=403, verb="list", times=None)
    for _ in range(2):
        with pytest.raises(Forbidden):
            await world.client.get(Database, "a", "default")
    refusal.remove()
    assert (await world.client.get(Database, "a", "default")).spec.size == 2


@pytest.mark.parametrize("seconds", [1, 300])
@pytest.mark.parametrize("landed", [True, False])
async def test_after_a_lost_create_with_a_generated_name_the_next_read_lists_the_namespace_once(
    world: World, landed: bool, seconds: int
) -> None:
    await world.declare(MAP)
    world.hold_watches()
    world.server.faults.add(verb="create", lost=True, after_commit=landed)
    document = config_map("")
    document["metadata"] = {"generateName": "a-", "namespace": "default"}
    with pytest.raises(OutcomeUnknown):
        await world.client.create(document)
    await asyncio.sleep(seconds)
    world.server.log.clear()
    for _ in range(2):
        assert len(await world.client.list(MAP, "default")) == landed
    assert world.reads() == 1


async def test_an_object_deleted_before_the_watch_delivers_it_does_not_come_back(world: World) -> None:
    await world.declare(MAP)
    world.hold_watches()
    await world.live.create(config_map("a"))  # the cache does not observe this client
    await world.client.delete(MAP, "a", "default")
    seen: list[str] = []
    informer = await world.cache.informer(MAP)
    informer.add_handler(lambda event: seen.extend(one.name for one in informer.overlay.list()), existing=False)
    assert len(await world.client.list(MAP, "default")) == 0
    await world.catch_up()
    assert len(await world.client.list(MAP, "default")) == 0
    assert (informer.statistics().events, seen) == (2, [])


@pytest.mark.parametrize("order", ["before", "after", "late"])
async def test_a_deletion_that_the_cache_has_seen_costs_no_read_in_any_order_of_events(order: Any) -> None:
    async with APIServer(event_order=order) as server:
        world = World(server)
        await world.declare(MAP)
        for number in range(20):
            await world.client.create(config_map(f"n{number}"))
            if number % 2:
                await asyncio.sleep(1)
            await world.client.delete(MAP, f"n{number}", "default")
            assert len(await world.client.list(MAP)) == 0
        assert world.reads() == 0
        await world.cache.stop()


async def test_an_older_response_does_not_end_the_doubt_about_a_lost_write(world: World) -> None:
    await world.live.create(database("a", size=1))
    await world.declare(Database)
    world.hold_watches()
    slow = SlowAnswers(world.server, "PATCH")
    client = CachedClient(Client(slow), world.cache)
    earlier = asyncio.create_task(client.patch(Database, "a", "default", patch={"spec": {"size": 2}}))
    await slow.asked.wait()
    world.server.faults.add(verb="patch", lost=True, after_commit=True)
    with pytest.raises(OutcomeUnknown):
        await world.client.patch(Database, "a", "default", patch={"spec": {"size": 3}})
    slow.answer.set()
    await earlier
    assert (await world.client.get(Database, "a", "default")).spec.size == 3


async def test_beyond_the_capacity_own_objects_are_read_after_one_list_for_all_readers(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overlay, "CAPACITY", 10)
    await world.declare(MAP)
    world.hold_watches()
    for number in range(25):
        await world.client.create(config_map(f"n{number}"))
    world.server.log.clear()
    found = await asyncio.gather(*(world.client.get(MAP, f"n{number}", "default") for number in range(25)))
    assert [one.name for one in found] == [f"n{number}" for number in range(25)]
    assert len(await world.client.list(MAP, "default")) == 25
    assert world.reads() == 1
    assert world.cache.statistics().informers[0].overlay.dropped == 22


async def test_an_object_read_as_one_class_is_never_given_out_as_another(world: World) -> None:
    class Other(Resource[DatabaseSpec], group="example.com", version="v1", kind="Database"):
        """The same kind as another class."""

    await world.live.create(database("a", size=1))
    await world.declare(Database)
    for kind, expected in ((Database, Database), (Other, Other), (Database, Database), (str(Database.gvk), None)):
        found = await world.client.get(kind, "a", "default")
        (listed,) = await world.client.list(kind, "default")
        assert type(found) is type(listed) is (expected or Unstructured)


async def test_a_cached_client_of_one_namespace_reads_there(world: World) -> None:
    for namespace in ("prod", "test"):
        await world.live.create(database("a", namespace))
    await world.live.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}})
    await world.declare(Database, "v1/Node")
    prod = world.client.in_namespace("prod")
    assert (await prod.get(Database, "a")).namespace == "prod"
    assert [one.namespace for one in await prod.list(Database)] == ["prod"]
    assert (await prod.get("v1/Node", "n")).name == "n"
    assert len(await prod.list("v1/Node")) == 1
    for read in (prod.get(Database, "a", "test"), prod.list(Database, "test")):
        with pytest.raises(ValueError, match="for namespace 'prod', not for Database in 'test'"):
            await read
    assert world.reads() == 0


@pytest.mark.parametrize("minutes", [1, 5])
async def test_a_deletion_that_the_watch_does_not_deliver_for_minutes_remains_visible(
    world: World, minutes: int
) -> None:
    await world.live.create(database("a"))
    await world.declare(Database)
    world.hold_watches()
    await world.client.delete(Database, "a", "default")
    for _ in range(minutes):
        await asyncio.sleep(61)
        assert len(await world.client.list(Database)) == 0
    await world.client.create(database("a", size=9))
    await asyncio.sleep(61)
    assert (await world.client.get(Database, "a", "default")).spec.size == 9


async def test_an_etcd_restore_clears_the_overlay(world: World) -> None:
    for number in range(20):
        await world.live.create(config_map(f"n{number}"))
    await world.declare(MAP)
    informer = await world.cache.informer(MAP)
    restarted: list[float] = []
    informer.on_restart(lambda: restarted.append(asyncio.get_running_loop().time()))
    world.hold_watches()
    await world.client.create(config_map("a"))
    world.fault.remove()
    await world.server.restart(wipe=True)
    await world.live.create(config_map("b"))
    await asyncio.sleep(200)
    assert len(restarted) == 1
    assert [one.name for one in await world.client.list(MAP)] == ["b"]
    await world.client.create(config_map("c"))
    assert [one.name for one in await world.client.list(MAP)] == ["b", "c"]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["put", "put", "put", "delete", "hold", "free", "cut", "compact", "wait", "live", "lose", "wipe", "held"]
        ),
        st.integers(0, 3),
    ),
    max_size=30,
)


async def _own_step(world: World, what: str, number: int) -> None:
    name = f"n{number}"
    exists = any(found.name == name for found in await world.live.list(MAP, "default"))
    if what in ("hold", "free", "cut", "compact"):
        {
            "hold": world.hold_watches,
            "free": world.server.faults.clear,
            "cut": world.server.cut_watches,
            "compact": world.server.compact,
        }[what]()
    elif what == "generate":
        await world.client.create(config_map("", metadata={"name": None, "generateName": "g-"}))
    elif what == "put" and not exists:
        await world.client.create(config_map(name))
    elif what == "put":
        await world.client.patch(MAP, name, "default", patch={"data": {"key": str(asyncio.get_running_loop().time())}})
    elif what == "live":
        await world.client.live.apply(config_map(name, data={"key": str(asyncio.get_running_loop().time())}))
    elif what == "held":
        finalizers = ["example.com/f"] if number % 2 else None
        await world.client.live.apply(config_map(name, metadata={"finalizers": finalizers}))
    elif what == "lose":
        landed = bool(number % 2)
        fault = world.server.faults.add(verb={"create", "patch", "delete"}, lost=True, after_commit=landed)
        with contextlib.suppress(OutcomeUnknown):
            await _own_step(world, ("put", "generate", "delete", "live")[number], number)
        fault.remove()
    elif what == "wipe":
        await world.client.delete_all_of(MAP, "default")
    elif what == "delete" and exists:
        await world.client.delete(MAP, name, "default")
    elif what == "wait":
        await asyncio.sleep((0.01, 1.0, 40.0, 400.0)[number])


async def _sole_writer(steps: list[tuple[str, int]], seed: int) -> None:
    async with APIServer(seed=seed, event_order="seeded") as server:
        world = World(server)
        await world.declare(MAP)
        for what, number in steps:
            await _own_step(world, what, number)
            cached, live = await world.client.list(MAP), await world.live.list(MAP)
            assert [(one.name, one.resource_version) for one in cached] == [
                (one.name, one.resource_version) for one in live
            ]
        world.server.faults.clear()
        await asyncio.sleep(1000)
        await world.client.list(MAP)
        assert world.cache.statistics().informers[0].overlay.entries == 0
        await world.cache.stop()


@settings(deadline=None, max_examples=examples(50))
@given(STEPS, st.integers(0, 5))
def test_a_sole_writer_reads_what_the_server_has(steps: list[tuple[str, int]], seed: int) -> None:
    with virtual_time():
        asyncio.run(_sole_writer(steps, seed))


# reports to the current reconcile


class Cycle:
    def __init__(self, gvk: GroupVersionKind, request: Request) -> None:
        self.gvk = gvk
        self.request = request
        self.seen: list[tuple[GroupVersionKind, Request, str, Version]] = []

    def saw(self, gvk: GroupVersionKind, request: Request, uid: str, version: Version) -> None:
        self.seen.append((gvk, request, uid, version))

    def wrote(self, gvk: Any, request: Any, uid: Any, *, before: Any, after: Any, exact: Any) -> None:
        raise AssertionError("a cached client does not report writes")

    def may_write(self, gvk: Any, request: Any, document: Any) -> bool:
        raise AssertionError

    def keep_unsaved(self, uid: str, mutations: object) -> None:
        raise AssertionError

    def take_unsaved(self, uid: str) -> object | None:
        raise AssertionError


async def test_reads_inside_a_reconcile_report_the_observed_version(world: World) -> None:
    made = await world.live.create(database("a"))
    await world.live.create(database("b"))
    await world.declare(Database)
    cycle = Cycle(Database.gvk, Request("a", "default"))
    token = current_cycle.set(cycle)
    try:
        await world.client.get(Database, "a", "default")
        await world.client.list(Database)
        written = await world.client.patch(Database, "a", "default", patch={"spec": {"size": 9}})
        await world.client.get(Database, "a", "default")
    finally:
        current_cycle.reset(token)
    first = (Database.gvk, Request("a", "default"), made.uid, int(made.resource_version or 0))
    assert cycle.seen == [first, first, (*first[:3], int(written.resource_version or 0))]
