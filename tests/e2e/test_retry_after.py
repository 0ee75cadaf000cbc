"""Every part that sends requests obeys Retry-After."""

from __future__ import annotations

import asyncio

import pytest

from reconciler import Client, Manager, Model, ObjectMeta, Request, Resource
from reconciler._core.backoff import longest_retry_after
from reconciler.apiserver import APIServer
from reconciler.controller import Reconciler, ResourceReconciler
from reconciler.errors import TooManyRequests
from reconciler.manager import LeaderElection
from reconciler.status import StatusBatcher, StatusUnavailable

pytestmark = pytest.mark.virtual_time


class Spec(Model):
    size: int = 0


class Thing(Resource[Spec], group="example.com", version="v1"):
    pass


class Ready(ResourceReconciler[Thing]):
    async def reconcile_object(self, thing: Thing, status: StatusBatcher) -> None:
        status.set_condition("Ready", True, reason="Provisioned", message="done")


async def filled(server: APIServer, client: Client, number: int) -> None:
    await server.apply(Thing)
    for n in range(number):
        await client.create(Thing(metadata=ObjectMeta(name=f"t{n}", namespace="default"), spec=Spec()))


@pytest.mark.parametrize("code", [429, 503])
async def test_a_hundred_refused_status_writes_do_not_overload_the_server(code: int) -> None:
    async with APIServer() as server, Client(server) as client:
        await filled(server, client, 100)
        server.faults.add(status=code, retry_after=60, subresource="status", times=100)
        manager = Manager(client)
        manager.add_controller(Ready(), workers=4)
        async with manager.running():
            await asyncio.sleep(150)
        assert len(server.requests(subresource="status")) == 200
        assert len(server.requests(subresource="status", effective=True)) == 100


async def test_reconcile_is_retried_after_the_requested_wait() -> None:
    times: list[float] = []

    class Reads(Reconciler):
        async def reconcile(self, request: Request) -> None:
            times.append(asyncio.get_running_loop().time())
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self.client.live.get(Thing, *request))
            except* TooManyRequests as errors:
                raise RuntimeError("in other words") from errors

    async with APIServer() as server, Client(server) as client:
        await filled(server, client, 1)
        manager = Manager(client)
        manager.add_controller(Reads(), resource=Thing)
        server.faults.add(status=429, retry_after=600, verb="get", resource="things", times=1)
        async with manager.running():
            await asyncio.sleep(700)
    assert len(times) == 2
    assert 600 <= times[1] - times[0] <= 661


async def test_status_error_has_the_requested_wait() -> None:
    async with APIServer() as server, Client(server) as client:
        await filled(server, client, 1)
        server.faults.add(status=429, retry_after=60, subresource="status")
        thing = await client.get(Thing, "t0", "default")
        with pytest.raises(StatusUnavailable) as caught:
            async with StatusBatcher(client, thing) as status:
                status.set_condition("Ready", True, reason="A", message="b")
        assert caught.value.retry_after == 60
        assert longest_retry_after(caught.value) == 60


async def test_leader_obeys_retry_after_but_not_beyond_its_deadline() -> None:
    async with APIServer() as server, Client(server) as client:
        manager = Manager(client, leader_election=LeaderElection("operator", namespace="default"))
        async with manager.running():
            await asyncio.sleep(3)
            server.faults.add(resource="leases", status=429, retry_after=60, times=2)
            before = len(server.requests(resource="leases"))
            await asyncio.sleep(9)
            asked = len(server.requests(resource="leases")) - before
            await asyncio.sleep(30)
            assert manager.statistics().leading
        assert asked <= 4
