"""The roles that `Manager.rbac` returns are enough for an operator, on the embedded and on a real server."""

from __future__ import annotations

import pytest

from reconciler import Client, Manager, Model, ObjectMeta, Outcome, Resource, ResourceReconciler, StatusBatcher
from reconciler.apiserver import APIServer
from reconciler.controller import Permission
from reconciler.errors import Forbidden
from reconciler.manager import LeaderElection
from reconciler.testing import Cluster
from tests.real_server import notices_roles

pytestmark = pytest.mark.timeout(120)


class GardenSpec(Model):
    beds: int = 1


class GardenStatus(Model):
    planted: int = 0


class Garden(Resource[GardenSpec, GardenStatus], group="roles.reconciler.dev", version="v1"):
    """A garden."""


class GardenReconciler(ResourceReconciler[Garden]):
    permissions = (Permission("v1/ConfigMap", "apply"),)

    async def reconcile_object(self, garden: Garden, status: StatusBatcher[GardenStatus]) -> Outcome:
        metadata = {"name": garden.name, "namespace": garden.namespace}
        plan = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"beds": str(garden.spec.beds)}}
        await self.client.apply(plan, owner=garden)
        status.set(planted=garden.spec.beds)

    async def finalize(self, garden: Garden, status: StatusBatcher[GardenStatus]) -> Outcome:
        return None


def operator(client: Client, cluster: Cluster) -> Manager:
    election = LeaderElection("gardens", namespace=cluster.namespace, identity="one")
    manager = Manager(client, namespaces=[cluster.namespace], leader_election=election)
    manager.add_controller(GardenReconciler(), owns=["v1/ConfigMap"])
    return manager


def refusals(cluster: Cluster) -> int:
    """Return how many requests of the operator were refused."""
    user = f"system:serviceaccount:{cluster.namespace}:gardens"
    if isinstance(cluster.server, APIServer):
        return sum(entry.user == user for entry in cluster.server.requests(status=403))
    return sum(record.code == 403 for record in cluster.server.audit(user=user))


async def test_an_operator_works_with_its_printed_roles_and_no_others(cluster: Cluster) -> None:
    await cluster.install(Garden)
    documents = operator(cluster.client, cluster).rbac("gardens", namespace=cluster.namespace)
    for document in documents:
        await cluster.client.create(document)
    where = cluster.namespace
    async with cluster.service_account("gardens") as client:
        await notices_roles(client, documents)
        with pytest.raises(Forbidden):
            await client.list("v1/Secret", where)
        before = refusals(cluster)
        async with operator(client, cluster).running():
            garden = Garden(metadata=ObjectMeta(name="kitchen", namespace=where), spec=GardenSpec(beds=4))
            made = await cluster.client.create(garden)
            await cluster.client.wait_for(
                Garden, "kitchen", where, until=lambda garden: garden.status.planted == 4, timeout=60
            )
            assert (await cluster.client.get("v1/ConfigMap", "kitchen", where))["data"] == {"beds": "4"}
            await cluster.client.delete(made)
            await cluster.client.wait_gone(Garden, "kitchen", where, timeout=60)
        assert refusals(cluster) == before
