"""The request log counts the writes of each reconcile of this library's own controllers exactly."""

from __future__ import annotations

import asyncio

import pytest

from reconciler import Client, Manager, Reconciler, Request, Result
from reconciler.apiserver import APIServer

pytestmark = pytest.mark.virtual_time

MAPS = "v1/ConfigMap"


class Busy(Reconciler):
    """A reconciler that writes another object: three times at first, then twice, half a second later."""

    def __init__(self, client: Client) -> None:
        self.writer = client
        self.writes = [3, 2]

    async def reconcile(self, request: Request, /) -> Result | None:
        if request.name != "a" or not self.writes:
            return None
        for number in range(self.writes.pop(0)):
            patch = {"data": {f"left{len(self.writes)}": str(number)}}
            await self.writer.patch(MAPS, "target", "default", patch=patch)
        # Less than the pause that ends a reconcile of a client without the header.
        return Result(requeue_after=0.5)


async def test_reconciles_are_distinguished_however_close_they_are(apiserver: APIServer, client: Client) -> None:
    for name in ("target", "a"):
        await client.create(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}}
        )
    manager = Manager(client)
    manager.add_controller(Busy(client), resource=MAPS)
    async with manager.running():
        await asyncio.sleep(5)
    await client.patch(MAPS, "target", "default", patch={"data": {"by": "hand"}})
    cycles = apiserver.log.cycles("ConfigMap", "target")
    assert [len(cycle) for cycle in cycles] == [1, 3, 2, 1]
    assert len({write.cycle for write in cycles[1]}) == 1
    assert [cycle[0].cycle for cycle in (cycles[0], cycles[3])] == ["", ""]
