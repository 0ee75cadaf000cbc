"""A kind cached in one version of the API and written in another: writes are visible anyway."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator
from typing import Any

import pytest

from reconciler.apiserver import APIServer
from reconciler.cache import Cache, CachedClient
from reconciler.cache.informer import Informer
from reconciler.client import Client
from reconciler.errors import NotFound
from tests.controller.test_unreadable import CRD, crate

pytestmark = pytest.mark.virtual_time

V1, V2 = (f"unreadable.reconciler.dev/{version}/Crate" for version in ("v1", "v2"))


def in_v2(name: str, **more: Any) -> dict[str, Any]:
    return crate(name, **more) | {"apiVersion": "unreadable.reconciler.dev/v2"}


@pytest.fixture
async def cached(apiserver: APIServer, client: Client) -> AsyncIterator[tuple[CachedClient, Informer]]:
    crd: dict[str, Any] = copy.deepcopy(CRD)
    crd["spec"]["versions"].append({**crd["spec"]["versions"][0], "name": "v2", "storage": False})
    await apiserver.apply(crd)
    await client.create(crate("a", weight=1))
    await client.create(crate("held", metadata={"name": "held", "namespace": "default", "finalizers": ["x.io/y"]}))
    async with Cache(client) as cache:
        informer = await cache.informer(V1)
        await cache.wait_synced(30)
        yield CachedClient(client, cache), informer


def hold_watches(apiserver: APIServer) -> None:
    apiserver.faults.add(stall=True, verb="watch", times=None)
    apiserver.cut_watches()


@pytest.mark.parametrize("through", ["cached", "live"])
async def test_writes_in_another_version_are_visible(
    apiserver: APIServer, cached: tuple[CachedClient, Informer], through: str
) -> None:
    client, _ = cached
    writer = client if through == "cached" else client.live
    hold_watches(apiserver)
    await asyncio.sleep(5)
    await writer.patch(V2, "a", "default", patch={"weight": 2})
    assert (await client.get(V1, "a", "default"))["weight"] == 2
    found = await writer.get(V2, "a", "default") if through == "live" else await client.live.get(V2, "a", "default")
    found["weight"] = 3
    await writer.update(found)
    assert [one["weight"] for one in await client.list(V1, "default") if one.name == "a"] == [3]
    await writer.create(in_v2("b", weight=4))
    assert (await client.get(V1, "b", "default"))["weight"] == 4
    await writer.apply(in_v2("c", weight=5))
    assert (await client.get(V1, "c", "default"))["weight"] == 5
    await writer.delete(V2, "b", "default")
    with pytest.raises(NotFound):
        await client.get(V1, "b", "default")
    await writer.delete(V2, "held", "default")
    assert (await client.get(V1, "held", "default")).to_dict()["metadata"]["deletionTimestamp"]
    await writer.patch(V2, "held", "default", patch={"metadata": {"finalizers": None}})
    with pytest.raises(NotFound):
        await client.get(V1, "held", "default")
    await writer.delete_all_of(V2, "default")
    assert len(await client.list(V1, "default")) == 0


async def test_after_the_watch_delivers_the_write_reads_do_not_ask_the_server(
    apiserver: APIServer, cached: tuple[CachedClient, Informer]
) -> None:
    client, informer = cached
    await client.patch(V2, "a", "default", patch={"weight": 2})
    await asyncio.sleep(1)
    apiserver.log.clear()
    assert (await client.get(V1, "a", "default"))["weight"] == 2
    assert apiserver.requests(resource="crates") == []
    assert informer.statistics().overlay.entries == 0
