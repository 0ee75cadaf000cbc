"""Sharding by index on the embedded and on a real server: each object is reconciled by one replica."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from reconciler.manager import Manager, ShardByIndex
from reconciler.testing import Cluster
from tests.manager.working import RecordingReconciler, config_map

MAP = "v1/ConfigMap"
LONG = 60.0

pytestmark = pytest.mark.timeout(120)


async def create(cluster: Cluster, names: set[str]) -> None:
    for name in names:
        document = config_map(name)
        document["metadata"]["namespace"] = cluster.namespace
        await cluster.client.create(document)


async def test_three_indexes_are_disjoint_and_complete(cluster: Cluster) -> None:
    listed, watched = ({f"{how}-{number}" for number in range(30)} for how in ("listed", "watched"))
    names = listed | watched
    await create(cluster, listed)
    managers, workings = [], [RecordingReconciler() for _ in range(3)]
    async with contextlib.AsyncExitStack() as stack:
        for index, working in enumerate(workings):
            sharding = ShardByIndex(3, [MAP], index=index)
            manager = Manager(cluster.client, namespaces=[cluster.namespace], sharding=sharding)
            manager.add_controller(working, resource=MAP)
            managers.append(await stack.enter_async_context(manager.running()))
        await create(cluster, watched)
        async with asyncio.timeout(LONG):
            while sum(len(names.intersection(working.ended)) for working in workings) < len(names):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        figures = [manager.cache.statistics().informers[0] for manager in managers]
    ended = sorted(name for working in workings for name in working.ended if name in names)
    assert ended == sorted(names), "each by one, and by one only"
    assert all(names & set(working.ended) for working in workings)
    assert all(each.elsewhere > 0 for each in figures)
