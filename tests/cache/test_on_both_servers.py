"""The cache on the embedded server and on a real kube-apiserver."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from reconciler import Client
from reconciler.apiserver import APIServer
from reconciler.cache import Cache, CachedClient, CachedObject, CacheEvent, EventType, owner_uids
from reconciler.cache.informer import Informer
from reconciler.errors import NotFound
from reconciler.meta import Request
from reconciler.objects import Model, Resource
from reconciler.testing import Cluster
from tests.definitions import definition, version

MAP = "v1/ConfigMap"


async def until(condition: Callable[[], object]) -> None:
    """Wait until a condition is true; the limit only ends a hanging test."""
    async with asyncio.timeout(50):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.01)


def config_map(cluster: Cluster, name: str, *, value: str = "1", namespace: str | None = None, **metadata: Any) -> Any:
    metadata = {"name": name, "namespace": namespace or cluster.namespace, **metadata}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"value": value}}


class Replay:
    """A handler that does with its events what the store does."""

    def __init__(self, informer: Informer) -> None:
        self.state: dict[Request, CachedObject] = {}
        self.events: list[CacheEvent] = []
        informer.add_handler(self)

    def __call__(self, event: CacheEvent) -> None:
        self.events.append(event)
        if event.type is EventType.DELETED:
            del self.state[event.object.request]
        else:
            self.state[event.object.request] = event.object

    def of(self, name: str) -> list[str]:
        return [event.type.value for event in self.events if event.object.name == name]


@pytest.fixture(params=[False, True], ids=["streamed", "pages"])
async def cache(cluster: Cluster, request: pytest.FixtureRequest) -> AsyncIterator[Cache]:
    async with Cache(cluster.client, namespaces=[cluster.namespace], list_in_pages=request.param) as cache:
        yield cache


def versions(informer: Informer) -> dict[str, str]:
    return {cached.name: str(cached.version) for cached in informer.store}


async def stored(cluster: Cluster, **selectors: Any) -> dict[str, str]:
    found = await cluster.client.list(MAP, cluster.namespace, **selectors)
    return {one.name: one.resource_version for one in found}


async def test_the_store_and_every_handler_follow_the_server(cluster: Cluster, cache: Cache) -> None:
    client, ns = cluster.client, cluster.namespace
    for number in range(20):
        await client.create(config_map(cluster, f"n{number}"))
    informer = await cache.informer(MAP)
    first = Replay(informer)
    await cache.wait_synced(30)
    assert versions(informer) == await stored(cluster)
    assert all(event.initial for event in first.events)
    for number in range(10):
        await client.patch(MAP, f"n{number}", ns, patch={"data": {"value": "2"}})
    await client.delete_all_of(MAP, ns, field_selector="metadata.name=n19")
    await client.delete(MAP, "n5", ns)
    again = await client.create(config_map(cluster, "n5", value="3"))
    late = Replay(informer)
    last = await client.patch(MAP, "n0", ns, patch={"data": {"value": "last"}})
    await until(lambda: versions(informer).get("n0") == last.resource_version)
    assert versions(informer) == await stored(cluster)
    for replay in (first, late):
        assert replay.state.keys() == {cached.request for cached in informer.store}
    assert first.of("n5") == ["ADDED", "UPDATED", "DELETED", "ADDED"]
    assert first.state[Request("n5", ns)].uid == again.uid
    assert first.of("n19") == ["ADDED", "DELETED"]
    assert informer.last_error is None


@pytest.mark.parametrize("cache", [False], indirect=True, ids=["streamed"])
async def test_a_list_is_streamed_and_bookmarked(cluster: Cluster, cache: Cache) -> None:
    await cluster.client.create(config_map(cluster, "a"))
    informer = await cache.informer(MAP)
    await cache.wait_synced(30)
    done = informer.statistics().reflectors
    assert (done.lists, done.watches, done.failures) == (1, 1, 0)
    assert done.bookmarks >= 1
    assert informer.version() == informer.version(cluster.namespace) != ""


async def test_a_refresh_delivers_all_earlier_writes(cluster: Cluster, cache: Cache) -> None:
    informer = await cache.informer(MAP)
    await cache.wait_synced(30)
    for number in range(20):
        made = await cluster.client.create(config_map(cluster, f"n{number}"))
        await cache.refresh(30)
        assert versions(informer)[made.name] == made.resource_version


async def test_objects_leave_and_enter_a_selector(cluster: Cluster, cache: Cache) -> None:
    client, ns = cluster.client, cluster.namespace
    await client.create(config_map(cluster, "web", labels={"app": "web"}))
    await client.create(config_map(cluster, "db", labels={"app": "db"}))
    by_label = await cache.informer(MAP, label_selector="app=web")
    by_field = await cache.informer(MAP, field_selector="metadata.name=db")
    replay = Replay(by_label)
    await cache.wait_synced(30)
    assert (set(versions(by_label)), set(versions(by_field))) == ({"web"}, {"db"})
    await client.patch(MAP, "web", ns, patch={"metadata": {"labels": {"app": "other"}}})
    await client.patch(MAP, "db", ns, patch={"metadata": {"labels": {"app": "web"}}})
    await until(lambda: set(versions(by_label)) == {"db"})
    (left,) = [event for event in replay.events if event.type is EventType.DELETED]
    assert (left.object.name, left.final) == ("web", False)


async def test_metadata_only_and_a_transform(cluster: Cluster, cache: Cache) -> None:
    client = cluster.client
    owner = await client.create(config_map(cluster, "owner"))
    await client.apply(config_map(cluster, "owned", value="secret"), owner=owner)

    def without_data(document: dict[str, Any]) -> dict[str, Any]:
        document.pop("data")
        return document

    parts = await cache.informer(MAP, metadata_only=True)
    thin = await cache.informer(MAP, transform=without_data)
    parts.store.add_object_index("owner", owner_uids)
    await cache.wait_synced(30)
    await client.create(config_map(cluster, "later", value="secret"))
    await until(lambda: all("later" in versions(informer) for informer in (parts, thin)))
    for informer in (parts, thin):
        assert not any(b"secret" in cached.data for cached in informer.store)
    assert all(cached.decode()["kind"] == "ConfigMap" for cached in parts.store)
    assert [cached.name for cached in parts.store.by_index("owner", owner.uid)] == ["owned"]


async def test_several_namespaces_and_no_other(cluster: Cluster) -> None:
    client = cluster.client
    others = [f"{cluster.namespace}-{number}" for number in range(2)]
    for name in others:
        await client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        await client.create(config_map(cluster, "a", namespace=name))
    await client.create(config_map(cluster, "a"))
    async with Cache(client, namespaces=[cluster.namespace, others[0]]) as cache:
        informer = await cache.informer(MAP)
        await cache.wait_synced(30)
        found = {cached.namespace for cached in informer.store if cached.name == "a"}
        assert found == {cluster.namespace, others[0]}


async def test_own_writes_are_visible_immediately(cluster: Cluster, cache: Cache) -> None:
    ns = cluster.namespace
    await cache.informer(MAP)
    await cache.wait_synced(30)
    client = CachedClient(cluster.client, cache)
    for number in range(30):
        name = f"n{number % 3}"
        written = await (client if number % 2 else client.live).apply(config_map(cluster, name, value=str(number)))
        read = await client.get(MAP, name, ns)
        assert (read.resource_version, read["data"]) == (written.resource_version, {"value": str(number)})
    await client.apply(config_map(cluster, "held", finalizers=["example.com/f"], labels={"a": "b"}))
    await client.patch(MAP, "n0", ns, patch={"metadata": {"labels": {"a": "b"}}})
    await client.delete_all_of(MAP, ns, label_selector="a=b")
    names = [one.name for one in await client.list(MAP, label_selector="!kubernetes")]
    assert {"held", "n1", "n2"} <= set(names)
    assert "n0" not in names
    assert (await client.get(MAP, "held", ns)).to_dict()["metadata"]["deletionTimestamp"]
    await client.patch(MAP, "held", ns, patch={"metadata": {"finalizers": None}})
    await client.delete(MAP, "n1", ns)
    for name in ("n0", "n1", "held"):
        with pytest.raises(NotFound):
            await client.get(MAP, name, ns)


async def test_a_kind_that_is_installed_and_withdrawn_is_followed(cluster: Cluster) -> None:
    group = f"cache-{cluster.namespace}.reconciler.dev"

    class Widget(Resource[Model], group=group, version="v1"):
        """A widget."""

    async with Cache(cluster.client) as cache:
        informer = await cache.informer(f"{group}/v1/Widget")
        assert not informer.synced
        await cluster.install(Widget)
        await cluster.client.create(
            {
                "apiVersion": f"{group}/v1",
                "kind": "Widget",
                "metadata": {"name": "w", "namespace": cluster.namespace},
                "spec": {},
            }
        )
        await until(lambda: len(informer.store) == 1)
        replay = Replay(informer)
        name = f"widgets.{group}"
        await cluster.client.delete("apiextensions.k8s.io/v1/CustomResourceDefinition", name)
        await until(lambda: not len(informer.store))
        assert replay.of("w") == ["ADDED", "DELETED"]
        with contextlib.suppress(NotFound):
            await cluster.client.wait_gone("apiextensions.k8s.io/v1/CustomResourceDefinition", name, timeout=30)


OTHER_FORMS: dict[str, dict[str, Any]] = {
    "plural": {"names": {"plural": "gizmos", "singular": "gizmo", "kind": "Widget", "listKind": "WidgetList"}},
    "scope": {"scope": "Cluster"},
}


@pytest.mark.parametrize("form", OTHER_FORMS)
@pytest.mark.parametrize("everywhere", [True, False])
async def test_a_kind_that_is_installed_again_with_another_plural_or_scope_is_followed(
    cluster: Cluster, form: str, *, everywhere: bool
) -> None:
    group, kind = f"form-{cluster.namespace}.reconciler.dev", "apiextensions.k8s.io/v1/CustomResourceDefinition"
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    old = definition(group, "Widget", version("v1", anything))
    new = definition(group, "Widget", version("v1", anything), **OTHER_FORMS[form])
    new["metadata"]["name"] = f"{new['spec']['names']['plural']}.{group}"
    metadata = {"name": "w"} if form == "scope" else {"name": "w", "namespace": cluster.namespace}
    widget = {"apiVersion": f"{group}/v1", "kind": "Widget", "metadata": {"name": "w", "namespace": cluster.namespace}}
    await cluster.install(old)
    try:
        async with Cache(cluster.client, namespaces=None if everywhere else [cluster.namespace]) as cache:
            informer = await cache.informer(f"{group}/v1/Widget")
            client = CachedClient(cluster.client, cache)
            await cluster.client.create(widget)
            await until(lambda: len(informer.store) == 1)
            replay = Replay(informer)
            await cluster.client.delete(kind, old["metadata"]["name"])
            await cluster.client.wait_gone(kind, old["metadata"]["name"], timeout=30)
            await cluster.install(new)
            other = Client(cluster.server) if isinstance(cluster.server, APIServer) else cluster.server.client()
            async with other:  # which has not discovered the old form
                made = await other.create(widget | {"metadata": metadata})
            await until(lambda: [cached.uid for cached in informer.store] == [made.uid])
            await until(lambda: informer.resource.namespaced == (form == "plural"))
            found = await client.get(f"{group}/v1/Widget", "w", metadata.get("namespace"))
            assert found.uid == made.uid
            assert [cached.uid for cached in replay.state.values()] == [made.uid]
    finally:
        for name in (old["metadata"]["name"], new["metadata"]["name"]):
            with contextlib.suppress(NotFound):
                await cluster.client.delete(kind, name)
