"""A cluster-scoped kind in a cache that is limited to namespaces, installed after its informer was declared."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from reconciler.apiserver import APIServer
from reconciler.cache import Cache, CachedClient
from reconciler.client import Client
from reconciler.objects import Model, ObjectMeta, Resource

pytestmark = pytest.mark.virtual_time


class FleetSpec(Model):
    size: int = 1


class Fleet(Resource[FleetSpec], group="example.com", version="v1", scope="Cluster"):
    """A cluster-scoped kind."""


KIND = "example.com/v1/Fleet"


class World:
    """A cache of one namespace that watches a kind which the server does not serve yet."""

    def __init__(self, server: APIServer) -> None:
        self.server = server
        self.cache = Cache(Client(server), namespaces=["default"])
        self.client = CachedClient(Client(server), self.cache)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with APIServer() as server:
        world = World(server)
        await world.cache.informer(KIND)
        yield world
        await world.cache.stop()


async def sizes(world: World) -> list[tuple[str, int]]:
    return [(fleet.name, fleet["spec"]["size"]) for fleet in await world.client.list(KIND)]


async def test_own_writes_are_visible_while_the_watch_is_behind(world: World) -> None:
    await world.cache.start()
    await world.server.apply(Fleet)
    await world.cache.wait_synced(120)
    world.server.faults.add(status=429, verb="watch", times=None)
    world.server.cut_watches()
    await world.client.create(Fleet(metadata=ObjectMeta(name="north"), spec=FleetSpec(size=2)))
    assert (await world.client.get(KIND, "north"))["spec"] == {"size": 2}
    await world.client.patch(Fleet, "north", patch={"spec": {"size": 3}})
    assert await sizes(world) == [("north", 3)]
    await world.client.delete(Fleet, "north")
    assert await sizes(world) == []


async def test_a_write_before_the_cache_has_found_the_kind_is_read_later(world: World) -> None:
    await world.server.apply(Fleet)
    await world.client.create(Fleet(metadata=ObjectMeta(name="north"), spec=FleetSpec(size=2)))
    await world.cache.start()
    await world.cache.wait_synced(120)
    assert await sizes(world) == [("north", 2)]
