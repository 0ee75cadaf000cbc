"""Kubernetes' sharded lists and watches on servers that support them, and the same result on others."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from reconciler.apiserver import APIServer
from reconciler.cache import Cache
from reconciler.cache.scope import HashRange, Partition
from reconciler.client import Client
from reconciler.errors import ServerError
from reconciler.manager import Manager, ShardByIndex
from reconciler.testing.control_plane import ControlPlane
from tests.manager.working import RecordingReconciler, config_map

MAP = "v1/ConfigMap"
LOWER, UPPER = (str(HashRange.share(index, 2)) for index in range(2))
LONG = 60.0

pytestmark = pytest.mark.timeout(120)


@dataclass
class Sharded:
    client: Client
    filters: bool
    namespace: str

    async def page(self, selector: str, **query: str) -> Any:
        """Return a page of ConfigMaps as sent by the server."""
        kind = await self.client.resource_type(MAP)
        asked = {"shardSelector": selector, **query}
        return msgspec.json.decode(await self.client.session.raw_list(kind, self.namespace, list(asked.items())))


@pytest.fixture(scope="module")
def gated(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    """Start a real server with the feature gate enabled."""
    binaries = control_plane.kubectl.parent
    with ControlPlane(binaries=binaries, apiserver_flags=["--feature-gates=ShardedListAndWatch=true"]) as plane:
        yield plane


@pytest_asyncio.fixture(
    params=[
        "embedded-filters",
        "embedded-ignores",
        pytest.param("real-filters", marks=pytest.mark.control_plane),
        pytest.param("real-ignores", marks=pytest.mark.control_plane),
    ]
)
async def sharded(request: pytest.FixtureRequest) -> AsyncIterator[Sharded]:
    filters = request.param.endswith("filters")
    if request.param.startswith("embedded"):
        cluster = APIServer(sharded_list_and_watch=filters)
        async with cluster, Client(cluster) as client:
            yield Sharded(client, filters, "default")
        return
    plane: ControlPlane = request.getfixturevalue("gated" if filters else "control_plane")
    async with plane.client() as client:
        metadata = {"generateName": "sharded-"}
        namespace = await client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        yield Sharded(client, filters, namespace.name)


async def create(sharded: Sharded, *names: str) -> None:
    for name in names:
        document = config_map(name)
        document["metadata"]["namespace"] = sharded.namespace
        await sharded.client.create(document)


async def test_three_indexes_are_disjoint_and_complete(sharded: Sharded) -> None:
    """Filtered by the server, or by the client if the server ignores the selector."""
    client, names = sharded.client, {f"{how}-{number}" for how in ("listed", "watched") for number in range(30)}
    await create(sharded, *(name for name in names if name.startswith("listed")))
    managers, workings = [], [RecordingReconciler() for _ in range(3)]
    async with contextlib.AsyncExitStack() as stack:
        for index, working in enumerate(workings):
            manager = Manager(client, namespaces=[sharded.namespace], sharding=ShardByIndex(3, [MAP], index=index))
            manager.add_controller(working, resource=MAP)
            managers.append(await stack.enter_async_context(manager.running()))
        await create(sharded, *(name for name in names if name.startswith("watched")))
        async with asyncio.timeout(LONG):
            while sum(len(names.intersection(working.ended)) for working in workings) < len(names):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        figures = [manager.cache.statistics().informers[0] for manager in managers]
    ended = sorted(name for working in workings for name in working.ended if name in names)
    assert ended == sorted(names), "each by one, and by one only"
    assert all(names & set(working.ended) for working in workings)
    assert [each.server_filters for each in figures] == [sharded.filters] * 3
    if sharded.filters:
        assert [each.elsewhere for each in figures] == [0, 0, 0], "what is another's never came"
    else:
        assert all(each.elsewhere > 0 for each in figures)


async def test_client_and_server_compute_the_same_hash(sharded: Sharded) -> None:
    await create(sharded, *(f"map-{number}" for number in range(50)))
    page = await sharded.page(LOWER)
    uids = {item["metadata"]["uid"] for item in page["items"]}
    everything = {each.uid for each in await sharded.client.list(MAP, sharded.namespace)}
    lower = {uid for uid in everything if HashRange.share(0, 2).contains(uid)}
    assert 0 < len(lower) < len(everything)
    if sharded.filters:
        assert page["metadata"]["shardInfo"] == {"selector": LOWER}
        assert uids == lower
    else:
        assert "shardInfo" not in page["metadata"]
        assert uids == everything


async def test_pages_of_a_shard_add_up_to_the_shard(sharded: Sharded) -> None:
    await create(sharded, *(f"map-{number}" for number in range(50)))
    uids, more = [], ""
    while True:
        page = await sharded.page(UPPER, limit="4", **({"continue": more} if more else {}))
        uids += [item["metadata"]["uid"] for item in page["items"]]
        assert ("shardInfo" in page["metadata"]) is sharded.filters
        more = page["metadata"].get("continue", "")
        if not more:
            break
        assert page["metadata"]["remainingItemCount"] > 0
    assert len(uids) == len(set(uids))
    kept = [uid for uid in uids if HashRange.share(1, 2).contains(uid)]
    everything = [each.uid for each in await sharded.client.list(MAP, sharded.namespace)]
    assert sorted(kept) == sorted(uid for uid in everything if HashRange.share(1, 2).contains(uid))
    assert (kept == uids) is sharded.filters


async def test_streamed_list_is_filtered_by_shard(sharded: Sharded) -> None:
    """The second list is streamed as a watch, whose lines do not show if the server filters."""
    await create(sharded, *(f"map-{number}" for number in range(30)))
    partition = Partition(hashes=HashRange.share(0, 2))
    async with Cache(sharded.client, namespaces=[sharded.namespace], partition=lambda _: partition) as cache:
        informer = await cache.informer(MAP)
        await cache.wait_synced(LONG)
        before = {cached.uid for cached in informer.store}
        await informer.refresh(LONG)
        assert {cached.uid for cached in informer.store} == before
        statistics = informer.statistics()
        assert statistics.reflectors.lists == 2
        assert statistics.server_filters is sharded.filters
        assert (statistics.elsewhere == 0) is sharded.filters


@pytest.mark.parametrize(
    ("selector", "problem"),
    [
        (f" {LOWER.replace(', ', ',')}  ", ""),
        (f"{LOWER} || {UPPER}", ""),
        ("shardRange(object.metadata.namespace, '0x0000000000000000', '0x10000000000000000')", ""),
        (
            "shardRange(object.metadata.name, '0x0000000000000000', '0x8000000000000000')",
            'unsupported field path "object.metadata.name"; supported: object.metadata.uid, object.metadata.namespace',
        ),
        (
            "shardRange(object.metadata.uid, '0x0', '0x8')",
            'hexStart must be a 0x-prefixed 16-digit hex value, got "0x0" (did you mean "0x0000000000000000"?)',
        ),
        ("foo(1)", 'unsupported function "foo"; only shardRange() and || are allowed'),
        (
            "shardRange(object.metadata.uid, '0x8000000000000000', '0x0000000000000000')",
            "shard range start 0x8000000000000000 must be less than end 0x0000000000000000",
        ),
        ("shardRange(object.metadata.uid, 1, 2)", "hexStart must be a string literal, got int64"),
        ("shardRange(object.metadata.uid)", "shardRange() requires exactly 3 arguments, got 1"),
        (
            f"{LOWER} || shardRange(object.metadata.namespace, '0x0000000000000000', '0x8000000000000000')",
            'all shard ranges must use the same field, got "object.metadata.uid" and "object.metadata.namespace"',
        ),
        (
            "shardRange(object.metadata.uid, '0x000000000000000G', '0x8000000000000000')",
            'hexStart: invalid hex character "G" in "0x000000000000000G"',
        ),
        (
            "shardRange(object.metadata.uid, '0x0000000000000000', '0x20000000000000000')",
            "hexEnd: 17-digit hex value must be '0x10000000000000000' (2^64), got \"0x20000000000000000\"",
        ),
        ("shardRange(object.metadata.uid, '00', '1')", "hexStart must have '0x' prefix, got \"00\""),
    ],
)
async def test_selectors_are_parsed_as_by_the_real_server(sharded: Sharded, selector: str, problem: str) -> None:
    if not problem or not sharded.filters:
        page = await sharded.page(selector)
        assert ("shardInfo" in page["metadata"]) is sharded.filters
        return
    with pytest.raises(ServerError) as refused:
        await sharded.page(selector)
    assert refused.value.status == 500
    assert refused.value.message == f"invalid shard selector: {problem}"
