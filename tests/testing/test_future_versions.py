"""Watches from a version that does not exist yet, as after a server lost its data: the same on both servers."""

from __future__ import annotations

import asyncio
import contextlib

from reconciler.testing import Cluster

MAPS = "v1/ConfigMap"


async def test_a_watch_from_a_future_version_is_silent_until_that_version_is_passed(cluster: Cluster) -> None:
    async def make() -> int:
        metadata = {"generateName": "map-", "namespace": cluster.namespace}
        made = await cluster.client.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
        return int(made.to_dict()["metadata"]["resourceVersion"])

    ahead = await make() + 20
    seen: list[int] = []

    async def read() -> None:
        watch = cluster.client.watch(MAPS, cluster.namespace, resource_version=str(ahead), bookmarks=False)
        async with contextlib.aclosing(watch) as events:
            async for event in events:
                seen.append(int(event.object.to_dict()["metadata"]["resourceVersion"]))

    reader = asyncio.create_task(read())
    passed: list[int] = []
    while len(passed) < 3:
        made = await make()
        passed += [made] if made > ahead else []
    async with asyncio.timeout(20):
        while len(seen) < len(passed):  # noqa: ASYNC110 - polls the reader
            await asyncio.sleep(0.01)
    reader.cancel()
    await asyncio.gather(reader, return_exceptions=True)
    assert seen == passed
