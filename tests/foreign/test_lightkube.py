"""Controllers on lightkube work unchanged, with its asynchronous client and with its synchronous one."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from lightkube import ApiError, AsyncClient, Client, KubeConfig
from lightkube.generic_resource import create_namespaced_resource
from lightkube.resources.core_v1 import ConfigMap
from lightkube.types import PatchType

from reconciler.apiserver import APIServer
from tests.foreign.story import FINALIZER, GROUP, KIND, PATIENCE, PLURAL, VERSION, child_of, database, follow, status_of

Database = create_namespaced_resource(GROUP, VERSION, KIND, PLURAL)
AGENT = "python-httpx"


def _finalizers(obj: Any) -> list[str] | None:
    """Return the finalizers that an object should have; None if they are correct."""
    found = list(obj.metadata.finalizers or [])
    if obj.metadata.deletionTimestamp:
        return [one for one in found if one != FINALIZER] if FINALIZER in found else None
    return None if FINALIZER in found else [*found, FINALIZER]


class AsyncController:
    """A controller that uses server-side apply for a ConfigMap per Database, and a merge patch for the status."""

    def __init__(self, client: AsyncClient) -> None:
        self.client = client

    async def run(self) -> None:
        async for event, obj in self.client.watch(Database, namespace="default"):
            if event != "DELETED":
                await self._reconcile(obj)

    async def _reconcile(self, obj: Any) -> None:
        name = obj.metadata.name
        wanted = _finalizers(obj)
        if wanted is not None:
            body = {"metadata": {"finalizers": wanted}}
            await self.client.patch(Database, name, body, namespace="default", patch_type=PatchType.MERGE)
        if obj.metadata.deletionTimestamp:
            return
        doc = obj.to_dict()
        await self.client.apply(ConfigMap.from_dict(child_of(doc)), field_manager="lightkube")
        if doc.get("status") != status_of(doc):
            body = {"status": status_of(doc)}
            await self.client.patch(Database.Status, name, body, namespace="default", patch_type=PatchType.MERGE)


class SyncController:
    """The same controller with whole objects: create or replace."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.stopped = False

    def run(self) -> None:
        for event, obj in self.client.watch(Database, namespace="default"):
            if self.stopped:
                return
            if event != "DELETED":
                try:
                    self._reconcile(obj)
                except ApiError as error:
                    if error.status.code != 409:  # then the event of the newer version follows
                        raise

    def _reconcile(self, obj: Any) -> None:
        wanted = _finalizers(obj)
        if wanted is not None:
            doc = obj.to_dict()
            doc["metadata"]["finalizers"] = wanted
            obj = self.client.replace(Database.from_dict(doc))
        if obj.metadata.deletionTimestamp:
            return
        doc = obj.to_dict()
        child = ConfigMap.from_dict(child_of(doc))
        found = list(self.client.list(ConfigMap, namespace="default", fields={"metadata.name": child.metadata.name}))
        if found:
            child.metadata.resourceVersion = found[0].metadata.resourceVersion
            self.client.replace(child)
        else:
            self.client.create(child)
        if doc.get("status") != status_of(doc):
            self.client.replace(Database.Status.from_dict({**doc, "status": status_of(doc)}))


async def test_an_asynchronous_controller_works_unchanged(server: APIServer, kubeconfig: Path) -> None:
    client = AsyncClient(config=KubeConfig.from_file(str(kubeconfig)).get())
    working = asyncio.create_task(AsyncController(client).run())
    await follow(server, AGENT)
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    await client.close()


async def test_a_synchronous_controller_works_unchanged(server: APIServer, kubeconfig: Path) -> None:
    controller = SyncController(Client(config=KubeConfig.from_file(str(kubeconfig)).get()))
    working = asyncio.create_task(asyncio.to_thread(controller.run))
    await follow(server, AGENT)
    controller.stopped = True
    await server.apply(database("last"))  # its thread waits for an event
    await asyncio.wait_for(working, PATIENCE)
    controller.client.close()
