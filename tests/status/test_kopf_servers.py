"""The batcher inside kopf, counted by the log of the embedded API server or (``--control-plane``) of a real one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import kopf
import pytest

from reconciler.apiserver import APIServer
from reconciler.status import StatusBatcher
from reconciler.testing.cluster import Cluster
from tests.status.kopf_world import KIND, LAST_HANDLED, RESOURCE, Database, annotations


@pytest.fixture
async def registry(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> kopf.OperatorRegistry:
    await cluster.install(Database)
    if isinstance(cluster.server, APIServer):
        await cluster.server.listen()
        place = cluster.server.write_kubeconfig(tmp_path / "kubeconfig")
    else:
        place = cluster.server.kubeconfig_path
    monkeypatch.setenv("KUBECONFIG", str(place))
    made = kopf.OperatorRegistry()
    kopf.on.login(registry=made)(kopf.login_with_kubeconfig)
    return made


@asynccontextmanager
async def operator(cluster: Cluster, registry: kopf.OperatorRegistry) -> AsyncIterator[None]:
    stop = threading.Event()

    async def run() -> None:
        await kopf.operator(registry=registry, standalone=True, namespaces=[cluster.namespace], stop_flag=stop)
        await asyncio.sleep(0.25)  # at the loop's end aiohttp must have closed its TLS connections

    running = asyncio.create_task(asyncio.to_thread(asyncio.run, run()))
    try:
        yield
    finally:
        stop.set()
        await running


async def make(cluster: Cluster) -> None:
    document = {
        "apiVersion": "kopf.example.com/v1",
        "kind": "Database",
        "metadata": {"name": "db1", "namespace": cluster.namespace},
        "spec": {"size": 1},
    }
    await cluster.client.create(document)


async def until(cluster: Cluster, size: int, total: Callable[[int], bool]) -> None:
    def holds(obj: Any) -> bool:
        document = obj.to_dict()
        last = annotations(document).get(LAST_HANDLED, "").replace(" ", "")
        return f'"size":{size}' in last and total((document.get("status") or {}).get("total", 0))

    await cluster.client.wait_for(KIND, "db1", cluster.namespace, until=holds, timeout=30)


async def test_five_attempts_are_one_status_patch_besides_kopfs_own(cluster, registry):
    @kopf.on.create(*RESOURCE, registry=registry)
    async def work(body, patch, **_):
        async with StatusBatcher(patch, body) as status:
            for attempt in range(5):
                status.append("log", f"attempt {attempt}")
                status.increment("total")
            status.set_condition("Ready", True, reason="Done")

    async with operator(cluster, registry):
        await make(cluster)
        await until(cluster, 1, lambda total: total == 5)
    assert cluster.writes(name="db1") == [200]
    assert cluster.writes(name="db1", subresource="") == [200]


async def test_increments_of_kopf_and_of_another_controller_add_up(cluster, registry):
    runs: list[int] = []

    @kopf.on.create(*RESOURCE, registry=registry)
    @kopf.on.update(*RESOURCE, registry=registry)
    async def work(body, patch, **_):
        runs.append(1)
        async with StatusBatcher(patch, body) as status:
            status.increment("total")
            status.append("log", "kopf")

    async with operator(cluster, registry):
        await make(cluster)
        for size in range(2, 22):
            obj = await cluster.client.get(KIND, "db1", cluster.namespace)
            async with StatusBatcher(cluster.client, obj, max_conflicts=20) as status:
                status.increment("total")
                status.append("log", "other")
            await cluster.client.patch(KIND, "db1", cluster.namespace, patch={"spec": {"size": size}})
        await until(cluster, 21, lambda total: total == 20 + len(runs))
    log = (await cluster.client.get(KIND, "db1", cluster.namespace)).to_dict()["status"]["log"]
    assert (log.count("other"), log.count("kopf")) == (20, len(runs))
