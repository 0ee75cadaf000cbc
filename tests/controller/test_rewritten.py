"""A CRD gains a default: the content of objects changes although nobody wrote them, at the same version."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest

from reconciler import Manager, Outcome, Reconciler, Request, Watch
from reconciler.apiserver import APIServer
from reconciler.client import Client
from reconciler.controller import generation_changed
from reconciler.objects import Model, Resource
from reconciler.testing import Cluster
from tests.cache.test_on_both_servers import until


class JarSpec(Model):
    lid: str | None = None


class Jar(Resource[JarSpec], group="rewritten.reconciler.dev", version="v1"):
    """A jar."""


def with_default() -> dict[str, Any]:
    crd = copy.deepcopy(Jar.crd())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"]["spec"]["properties"]["lid"] = {"type": "string", "default": "cork"}
    return crd


class Lids(Reconciler):
    """A reconciler that records the lid that each reconcile saw, and its reasons."""

    def __init__(self, hold: asyncio.Event | None = None) -> None:
        self.hold = hold
        self.runs: list[tuple[str, str | None, list[str]]] = []

    async def reconcile(self, request: Request, /) -> Outcome:
        jar = await self.client.get(Jar, request.name, request.namespace)
        self.runs.append((request.name, jar.spec.lid, sorted(self.run.reasons)))
        if self.hold is not None:
            await self.hold.wait()
        return None


def jar(name: str, namespace: str) -> dict[str, Any]:
    return {
        "apiVersion": "rewritten.reconciler.dev/v1",
        "kind": "Jar",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {},
    }


@pytest.mark.parametrize("pages", [False, True], ids=["streamed", "pages"])
async def test_a_new_default_of_a_crd_is_reconciled_once_after_the_next_list(cluster: Cluster, *, pages: bool) -> None:
    await cluster.install(Jar)
    manager = Manager(cluster.client, namespaces=[cluster.namespace])
    manager.cache.list_in_pages = pages
    lids = Lids()
    manager.add_controller(lids, resource=Jar, predicates=[generation_changed])
    mapped: list[str | None] = []

    def map_jar(found: Jar) -> list[Request]:
        mapped.append(found.spec.lid)
        return []

    manager.add_controller(Lids(), resource="v1/ConfigMap", name="other", watches=[Watch(Jar, mapper=map_jar)])
    async with manager.running():
        await cluster.client.create(jar("a", cluster.namespace))
        await until(lambda: len(lids.runs) == 1)
        await cluster.install(with_default())
        stored = manager.cache.find(Jar.gvk).store
        async with asyncio.timeout(50):
            while stored.get(Request("a", cluster.namespace)).decode()["spec"] != {"lid": "cork"}:
                await manager.cache.refresh(30)
        await until(lambda: len(lids.runs) == 2)
        for _ in range(3):
            await manager.cache.refresh(30)
        await cluster.client.create(jar("b", cluster.namespace))
        await until(lambda: len(lids.runs) == 3)
    assert lids.runs == [("a", None, ["event"]), ("a", "cork", ["rewritten"]), ("b", "cork", ["event"])]
    assert mapped[:1] == [None]
    assert "cork" in mapped


@pytest.mark.virtual_time
async def test_content_that_changes_during_the_reconcile_is_reconciled_after_it(
    apiserver: APIServer, client: Client
) -> None:
    await apiserver.apply(Jar)
    lids = Lids(hold := asyncio.Event())
    manager = Manager(client)
    manager.add_controller(lids, resource=Jar)
    await client.create(jar("a", "default"))
    async with manager.running():
        await asyncio.sleep(1)
        await apiserver.apply(with_default())
        await manager.cache.refresh(30)
        hold.set()
        await asyncio.sleep(1)
    assert lids.runs == [("a", None, ["event"]), ("a", "cork", ["rewritten"])]


@pytest.mark.virtual_time
async def test_an_expired_watch_shows_the_default_too(apiserver: APIServer, client: Client) -> None:
    await apiserver.apply(Jar)
    lids = Lids()
    manager = Manager(client)
    manager.add_controller(lids, resource=Jar)
    await client.create(jar("a", "default"))
    async with manager.running():
        await asyncio.sleep(1)
        await apiserver.apply(with_default())
        apiserver.compact()
        apiserver.cut_watches()
        await asyncio.sleep(100)
    assert lids.runs == [("a", None, ["event"]), ("a", "cork", ["rewritten"])]
