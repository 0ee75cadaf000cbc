"""An operator on the embedded server does the same in each execution, whatever PYTHONHASHSEED."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys

from reconciler import Client, Manager, Model, ObjectMeta, Resource, ResourceReconciler, StatusBatcher
from reconciler.apiserver import APIServer
from reconciler.testing import virtual_time


class WidgetSpec(Model):
    size: int = 1


class WidgetStatus(Model):
    copies: int = 0


class Widget(Resource[WidgetSpec, WidgetStatus], group="example.com", version="v1"):
    """A kind."""


class _Copies(ResourceReconciler[Widget]):
    async def reconcile_object(self, widget: Widget, status: StatusBatcher[WidgetStatus]) -> None:
        for number in range(3):
            name = {"name": f"{widget.name}-{number}", "namespace": widget.namespace}
            data = dict.fromkeys("abcdefgh"[: widget.spec.size + 1], "x")
            await self.client.apply(
                {"apiVersion": "v1", "kind": "ConfigMap", "metadata": name, "data": data}, owner=widget
            )
        status.set(copies=widget.spec.size)


async def _play() -> None:
    async with APIServer(seed=3) as server, Client(server, rng=random.Random(1)) as client:
        await server.apply(Widget)
        manager = Manager(client)
        manager.add_controller(_Copies(), owns=["v1/ConfigMap"])
        async with manager.running():
            server.faults.add(status=409, subresource="status")
            made = await client.create(Widget(metadata=ObjectMeta(name="a", namespace="default"), spec=WidgetSpec()))
            await asyncio.sleep(60)
            await client.patch(Widget, "a", "default", patch={"spec": {"size": 6}})
            await asyncio.sleep(60)
            await client.delete(made)
            await asyncio.sleep(60)
        for request in server.log:
            print(request, request.cycle)  # noqa: T201
        print(server.snapshot().decode())  # noqa: T201


def test_the_same_requests_ids_and_objects_in_each_process() -> None:
    outputs = set()
    for seed in ("1", "2"):
        command = [sys.executable, "-m", "tests.testing.test_determinism"]
        done = subprocess.run(
            command, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        )
        outputs.add(done.stdout)
    (output,) = outputs
    assert output.count("changed /data/c /data/d /data/e /data/f /data/g") == 3


if __name__ == "__main__":
    with virtual_time():
        asyncio.run(_play())
