"""A cache of the part of a kind that its process is responsible for."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.apiserver import APIServer
from reconciler.cache import Cache, CachedClient
from reconciler.cache.informer import Informer
from reconciler.cache.scope import HashRange, Partition, fnv1a
from reconciler.client import Client
from reconciler.errors import NotFound
from reconciler.meta import Request

MAP = "v1/ConfigMap"


def config_map(name: str, **labels: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default", "labels": labels}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {}}


def cache_of(client: Client, partition: Partition) -> Cache:
    return Cache(client, partition=lambda gvk: partition if gvk.kind == "ConfigMap" else None)


@contextlib.asynccontextmanager
async def informers(client: Client, partitions: Iterable[Partition]) -> AsyncIterator[list[Informer]]:
    async with contextlib.AsyncExitStack() as stack:
        caches = [await stack.enter_async_context(cache_of(client, each)) for each in partitions]
        found = [await cache.informer(MAP) for cache in caches]
        for cache in caches:
            await cache.wait_synced(30)
        yield found


@pytest.mark.parametrize(
    ("text", "expected"), [("", 0xCBF29CE484222325), ("a", 0xAF63DC4C8601EC8C), ("foobar", 0x85944171F73967E8)]
)
def test_the_hash_is_fnv_1a_of_64_bits(text: str, expected: int) -> None:
    assert fnv1a(text) == expected


@given(of=st.integers(1, 50), uid=st.uuids())
def test_each_uid_is_in_exactly_one_share(of: int, uid: object) -> None:
    assert sum(HashRange.share(index, of).contains(str(uid)) for index in range(of)) == 1


@pytest.mark.virtual_time
async def test_shares_are_disjoint_and_complete_on_a_server_that_does_not_filter() -> None:
    async with APIServer() as server, Client(server) as client:
        for number in range(40):
            await client.create(config_map(f"listed-{number}"))
        async with informers(client, [Partition(hashes=HashRange.share(index, 3)) for index in range(3)]) as shares:
            for number in range(40):
                await client.create(config_map(f"watched-{number}"))
            for each in shares:
                await each.refresh()
            names = [{cached.name for cached in each.store} for each in shares]
            assert set.union(*names) == {f"{how}-{number}" for how in ("listed", "watched") for number in range(40)}
            assert sum(map(len, names)) == 80
            assert all(names)
            assert all(each.statistics().elsewhere > 0 for each in shares)


@pytest.mark.virtual_time
async def test_a_new_object_under_the_same_name_belongs_to_the_share_of_its_own_uid() -> None:
    ranges = [HashRange.share(index, 2) for index in range(2)]
    async with (
        APIServer() as server,
        Client(server) as client,
        informers(client, [Partition(hashes=each) for each in ranges]) as shares,
    ):
        seen = set()
        for _ in range(20):
            made = await client.create(config_map("a"))
            for each in shares:
                await each.refresh()
            holders = [index for index, each in enumerate(shares) if Request("a", "default") in each.store]
            assert holders == [index for index in range(2) if ranges[index].contains(made.uid)]
            seen.update(holders)
            await client.delete(MAP, "a", "default")
        assert seen == {0, 1}


@pytest.mark.virtual_time
async def test_labels_narrow_every_informer_of_the_kind_and_reads_of_it() -> None:
    async with APIServer() as server, Client(server) as live:
        await live.create(config_map("mine", shard="me"))
        await live.create(config_map("mine-too", shard="me", app="web"))
        await live.create(config_map("other", shard="you", app="web"))
        async with cache_of(live, Partition(labels="shard=me")) as cache:
            client = CachedClient(live, cache)
            everything = await cache.informer(MAP)
            web = await cache.informer(MAP, label_selector="app=web")
            await cache.wait_synced(30)
            assert {cached.name for cached in everything.store} == {"mine", "mine-too"}
            assert {cached.name for cached in web.store} == {"mine-too"}
            assert [each.name for each in await client.list(MAP)] == ["mine", "mine-too"]
            with pytest.raises(NotFound):
                await client.get(MAP, "other", "default")


@pytest.mark.virtual_time
async def test_an_object_that_an_own_write_moves_to_another_share_is_hidden_until_it_returns() -> None:
    async with APIServer() as server, Client(server) as live:
        await live.create(config_map("a", shard="me"))
        async with cache_of(live, Partition(labels="shard=me")) as cache:
            client = CachedClient(live, cache)
            informer = await cache.informer(MAP)
            await cache.wait_synced(30)
            fault = server.faults.add(status=503, verb="watch", times=None)
            server.cut_watches()
            await client.patch(MAP, "a", "default", patch={"metadata": {"labels": {"shard": None}}})
            assert Request("a", "default") in informer.store, "the watch has not told of it yet"
            assert len(await client.list(MAP)) == 0
            assert await client.peek(MAP, Request("a", "default")) is None
            fault.remove()
            await live.patch(MAP, "a", "default", patch={"metadata": {"labels": {"shard": "me"}}})
            await informer.refresh()
            found = await client.peek(MAP, Request("a", "default"))
            assert found is not None
            assert found.labels == {"shard": "me"}


@pytest.mark.virtual_time
async def test_a_kind_without_a_partition_is_watched_completely() -> None:
    async with APIServer() as server, Client(server) as live:
        await live.create({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a", "namespace": "default"}})
        async with cache_of(live, Partition(labels="shard=me")) as cache:
            secrets = await cache.informer("v1/Secret")
            await cache.wait_synced(30)
            assert Request("a", "default") in secrets.store
