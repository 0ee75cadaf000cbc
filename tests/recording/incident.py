"""An operator that fails, and its fix, for the tests of the command line."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from reconciler import Client, Manager, Outcome, Reconciler, Recording, Request, Result
from reconciler.apiserver import APIServer
from reconciler.testing import virtual_time


class Sizes(Reconciler):
    """Writes the half of a ConfigMap's count into it, twice; it fails if the count is not a number."""

    async def reconcile(self, request: Request, /) -> Outcome:
        found = (await self.client.get("v1/ConfigMap", request.name, request.namespace)).to_dict()
        half = int(found["data"]["count"]) // 2
        await self.client.patch("v1/ConfigMap", request.name, request.namespace, patch={"data": {"half": str(half)}})
        return Result(requeue_after=600)


class Mended(Sizes):
    """Takes 0 for what is not a number."""

    async def reconcile(self, request: Request, /) -> Outcome:
        found = (await self.client.get("v1/ConfigMap", request.name, request.namespace)).to_dict()
        count = found["data"]["count"]
        half = int(count) // 2 if count.isdecimal() else 0
        await self.client.patch("v1/ConfigMap", request.name, request.namespace, patch={"data": {"half": str(half)}})
        return Result(requeue_after=600)


def config_map(name: str, count: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"count": count}}


def record(directory: Path) -> None:
    """Record twelve minutes of two ConfigMaps, one of which has an invalid count."""

    async def main() -> None:
        async with APIServer() as server, Client(server) as client:
            manager = Manager(client, recording=Recording(directory))
            manager.add_controller(Sizes(), resource="v1/ConfigMap")
            async with manager.running():
                await client.create(config_map("good", "8"))
                await client.create(config_map("bad", "eight"))
                await asyncio.sleep(720)

    with virtual_time():
        asyncio.run(main())
