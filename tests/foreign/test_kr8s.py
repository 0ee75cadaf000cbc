"""A controller on kr8s works unchanged."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import kr8s
import pytest
from kr8s.asyncio.objects import ConfigMap, new_class

from reconciler.apiserver import APIServer
from tests.foreign.story import FINALIZER, GROUP, KIND, VERSION, child_of, follow, status_of

Database = new_class(KIND, f"{GROUP}/{VERSION}", asyncio=True, namespaced=True)


async def _reconcile(api: Any, obj: Any) -> None:
    finalizers = list(obj.metadata.get("finalizers", []))
    if obj.metadata.get("deletionTimestamp"):
        if FINALIZER in finalizers:
            finalizers.remove(FINALIZER)
            await obj.patch({"metadata": {"finalizers": finalizers}})
        return
    if FINALIZER not in finalizers:
        await obj.patch({"metadata": {"finalizers": [*finalizers, FINALIZER]}})
    wanted = child_of(obj.to_dict())
    child = await ConfigMap(wanted, api=api)
    if not await child.exists():
        await child.create()
    else:
        await child.patch({"data": wanted["data"]})
    if obj.raw.get("status") != status_of(obj.to_dict()):
        await obj.patch({"status": status_of(obj.to_dict())}, subresource="status")


async def _run(api: Any) -> None:
    async for event, obj in api.watch(Database, namespace="default"):
        if event != "DELETED":
            await _reconcile(api, obj)


# This kr8s supports servers up to 1.35; the embedded one reports 1.36.
@pytest.mark.filterwarnings("ignore:Kubernetes version .* is not supported:UserWarning")
async def test_a_controller_works_unchanged(server: APIServer, kubeconfig: Path) -> None:
    api = await kr8s.asyncio.api(kubeconfig=str(kubeconfig))
    working = asyncio.create_task(_run(api))
    await follow(server, "kr8s")
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    assert [found.name async for found in api.get("namespaces", "default")] == ["default"]
    assert (await api.version())["gitVersion"].startswith("v1.36")
    await api._session.aclose()  # it has no public way to close its connections
