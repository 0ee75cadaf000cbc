"""Leader election on the embedded server and on a real kube-apiserver, in real time."""

from __future__ import annotations

import asyncio

import pytest

from reconciler import Manager
from reconciler.client import Client
from reconciler.errors import NotFound
from reconciler.manager import LeaderElection, LeadershipLost
from reconciler.testing import Cluster
from tests.manager.working import RecordingReconciler, config_map

LEASE = "coordination.k8s.io/v1/Lease"
LONG = 30.0


def election(cluster: Cluster, identity: str) -> LeaderElection:
    return LeaderElection(
        "operator",
        namespace=cluster.namespace,
        identity=identity,
        lease_duration=60,  # longer than a slow machine takes to renew it
        renew_deadline=40,
        retry_period=0.2,
    )


async def elected(manager: Manager) -> None:
    async with asyncio.timeout(LONG):
        while not manager.statistics().leading:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.01)


async def another_version(cluster: Cluster, version: str) -> None:
    async with asyncio.timeout(LONG):
        while True:
            if (await cluster.client.get(LEASE, "operator", cluster.namespace)).resource_version != version:
                return
            await asyncio.sleep(0.05)


async def holder(client: Client, cluster: Cluster) -> str:
    spec = (await client.get(LEASE, "operator", cluster.namespace)).to_dict()["spec"]
    return str(spec["holderIdentity"])


async def test_lease_is_acquired_renewed_released_and_taken_over(cluster: Cluster) -> None:
    client = cluster.client
    document = config_map("a")
    document["metadata"]["namespace"] = cluster.namespace
    await client.create(document)
    async with Manager(client, leader_election=election(cluster, "one")).running() as first:
        await elected(first)
        first_record = (await client.get(LEASE, "operator", cluster.namespace)).to_dict()
        working = RecordingReconciler()
        second = Manager(client, leader_election=election(cluster, "two"), namespaces=[cluster.namespace])
        second.add_controller(working, resource="v1/ConfigMap")
        async with second.running():
            await another_version(cluster, first_record["metadata"]["resourceVersion"])
            assert await holder(client, cluster) == "one"
            assert not second.statistics().leading
            assert working.started == []
    assert await holder(client, cluster) == ""
    third = Manager(client, leader_election=election(cluster, "three"))
    async with third.running():
        await elected(third)
        record = (await client.get(LEASE, "operator", cluster.namespace)).to_dict()["spec"]
        assert record["leaseTransitions"] == 1
        assert record["leaseDurationSeconds"] == 60


async def test_deleted_lease_is_created_again(cluster: Cluster) -> None:
    async with Manager(cluster.client, leader_election=election(cluster, "one")).running() as manager:
        await elected(manager)
        before = (await cluster.client.get(LEASE, "operator", cluster.namespace)).uid
        await cluster.client.delete(LEASE, "operator", cluster.namespace)
        async with asyncio.timeout(LONG):
            while True:
                try:
                    if (await cluster.client.get(LEASE, "operator", cluster.namespace)).uid != before:
                        break
                except NotFound:
                    await asyncio.sleep(0.02)
        assert manager.statistics().leading


async def test_another_holder_means_leadership_lost(cluster: Cluster) -> None:
    manager = Manager(cluster.client, leader_election=election(cluster, "one"))

    async def block() -> None:
        async with manager.running():
            await elected(manager)
            await cluster.client.patch(
                LEASE, "operator", cluster.namespace, patch={"spec": {"holderIdentity": "usurper"}}
            )
            await asyncio.sleep(LONG)

    with pytest.raises(LeadershipLost, match="usurper acquired it"):
        await block()
    assert await holder(cluster.client, cluster) == "usurper"
