"""The API server is restarted, with and without its data, under a running manager, which converges without a storm."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from pydantic import Field

from reconciler import (
    Client,
    ConditionedStatus,
    Manager,
    Model,
    ObjectMeta,
    Outcome,
    Request,
    Resource,
    ResourceReconciler,
    StatusBatcher,
)
from reconciler.apiserver import APIServer
from reconciler.testing.control_plane import ControlPlane
from tests import real_server


class LampSpec(Model):
    bright: int = Field(default=1)


class LampStatus(ConditionedStatus):
    phase: str | None = None


class Lamp(Resource[LampSpec, LampStatus], group="e2e.reconciler.dev", version="v1"):
    """A lamp."""


class Lamps(ResourceReconciler[Lamp]):
    def __init__(self) -> None:
        super().__init__()
        self.runs: Counter[str] = Counter()

    async def reconcile(self, request: Request, /) -> Outcome:
        self.runs[request.name] += 1
        return await super().reconcile(request)

    async def reconcile_object(self, obj: Lamp, status: StatusBatcher[LampStatus], /) -> Outcome:
        status.set(phase=f"shines {obj.spec.bright}")
        return None


async def lit(client: Client, *names: str, bright: int = 1) -> None:
    """Create lamps, and wait until each is on."""
    for name in names:
        await client.create(Lamp(metadata=ObjectMeta(name=name, namespace="default"), spec=LampSpec(bright=bright)))
    for name in names:
        await shining(client, name, bright=bright)


async def shining(client: Client, name: str, *, bright: int) -> None:
    await client.wait_for(
        Lamp, name, "default", until=lambda lamp: lamp.status.phase == f"shines {bright}", timeout=120
    )


async def played(server: Any, client: Client, *, install: Any, restart: Any) -> Counter[str]:
    """Restart the server twice under a manager; return the number of reconciles per lamp."""
    await install()
    manager = Manager(client)
    lamps = Lamps()
    manager.add_controller(lamps, workers=4)
    async with manager.running():
        await lit(client, "a", "b", "c")
        await restart(keep_data=True)
        await lit(client, "d")
        await client.patch(Lamp, "a", "default", patch={"spec": {"bright": 7}})
        await shining(client, "a", bright=7)
        await asyncio.sleep(2)
        assert lamps.runs == {"a": 2, "b": 1, "c": 1, "d": 1}
        await restart(keep_data=False)
        await install()
        await lit(client, "e", "b", bright=3)
        await asyncio.sleep(2)
        assert manager.cache.statistics().objects == 2
    return lamps.runs


# Each lost object is reconciled once more and found gone; b was created again.
EXPECTED = {"a": 3, "b": 3, "c": 2, "d": 2, "e": 1}


@pytest.mark.virtual_time
async def test_embedded() -> None:
    async with APIServer() as server, Client(server) as client:

        async def install() -> None:
            await server.apply(Lamp)

        async def restart(*, keep_data: bool) -> None:
            await server.restart(wipe=not keep_data)

        runs = await played(server, client, install=install, restart=restart)
        requests = [each for each in server.requests(resource="lamps") if each.verb in {"list", "watch"}]
    assert all(runs[name] <= most for name, most in EXPECTED.items()), runs
    assert runs["e"] == 1
    assert len(requests) < 40, "list and watch back off while the kind is gone"


@pytest.mark.control_plane
@pytest.mark.timeout(180)
async def test_real() -> None:
    async with ControlPlane() as plane, plane.client() as client:

        async def install() -> None:
            await real_server.install(client, plane, Lamp)

        runs = await played(plane, client, install=install, restart=plane.restart)
    assert all(runs[name] <= most for name, most in EXPECTED.items()), runs
    assert runs["e"] == 1
