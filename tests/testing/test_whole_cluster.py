"""A server that plays every controller of a cluster: ``controllers="all"``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from reconciler import Client
from reconciler.apiserver import APIServer
from tests.testing.test_workloads import CLAIM, POD, STATEFUL_SET, status, workload

pytestmark = pytest.mark.virtual_time

CLASS = "storage.k8s.io/v1/StorageClass"


@pytest.fixture
async def server() -> AsyncIterator[APIServer]:
    async with APIServer(controllers="all") as server:
        yield server


@pytest.fixture
async def client(server: APIServer) -> AsyncIterator[Client]:
    async with Client(server, user_agent="program") as client:
        yield client


def claim(name: str, storage: str = "1Gi", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": storage}}, **spec},
    }


def pod(name: str, **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default"}
    containers = [{"name": "c", "image": "nginx"}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": containers, **spec}}


def capacity(found: Any) -> str | None:
    return (found["status"].get("capacity") or {}).get("storage")


async def grow(client: Client, name: str, storage: str) -> None:
    await client.patch(CLAIM, name, "default", patch={"spec": {"resources": {"requests": {"storage": storage}}}})


async def test_a_claim_is_bound_and_grows(client: Client) -> None:
    await client.create(claim("a"))
    bound = await client.wait_for(
        CLAIM, "a", "default", until=lambda each: each["status"]["phase"] == "Bound", timeout=60
    )
    assert capacity(bound) == "1Gi"
    assert bound["spec"]["volumeName"] == f"pvc-{bound.uid}"
    (default,) = await client.list(CLASS)
    assert bound["spec"]["storageClassName"] == default.name
    await grow(client, "a", "1500Mi")
    await client.wait_for(CLAIM, "a", "default", until=lambda each: capacity(each) == "1500Mi", timeout=60)


async def test_a_claim_does_not_grow_if_its_class_forbids_it(client: Client) -> None:
    fixed = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "fixed"}}
    await client.create({**fixed, "provisioner": "example.com/disk"})
    await client.create(claim("a", storageClassName="fixed"))
    await client.wait_for(CLAIM, "a", "default", until=capacity, timeout=60)
    await grow(client, "a", "2Gi")
    await asyncio.sleep(10)
    assert capacity(await client.get(CLAIM, "a", "default")) == "1Gi"


async def test_a_claim_that_a_pod_uses_waits_for_it(client: Client) -> None:
    await client.create(claim("a"))
    await client.wait_for(CLAIM, "a", "default", until=capacity, timeout=60)
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": "a"}}
    await client.create(pod("user", volumes=[volume]))
    await client.delete(CLAIM, "a", "default")
    await asyncio.sleep(10)
    assert (await client.get(CLAIM, "a", "default"))["metadata"]["deletionTimestamp"]
    await client.delete(POD, "user", "default")
    await client.wait_gone(CLAIM, "a", "default", timeout=60)


async def test_a_pod_waits_for_the_end_of_an_earlier_claim_of_its_name(client: Client) -> None:
    old = claim("data-db-0")
    old["metadata"]["finalizers"] = ["example.com/held"]
    before = await client.create(old)
    await client.delete(CLAIM, "data-db-0", "default")
    template = {"metadata": {"name": "data"}, "spec": old["spec"]}
    await client.create(workload(STATEFUL_SET, "db", replicas=1, serviceName="db", volumeClaimTemplates=[template]))
    await asyncio.sleep(10)
    assert not await client.list(POD, "default")
    await client.patch(CLAIM, "data-db-0", "default", patch={"metadata": {"finalizers": None}})
    await status(client, STATEFUL_SET, "db", lambda current: current.get("readyReplicas") == 1)
    assert (await client.get(CLAIM, "data-db-0", "default")).uid != before.uid


def ready(found: Any) -> bool:
    conditions = found["status"].get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


async def test_a_pod_without_an_owner_runs_and_restarts_for_a_new_image(client: Client) -> None:
    await client.create(pod("a"))
    running = await client.wait_for(POD, "a", "default", until=ready, timeout=60)
    assert running["status"]["podIP"]
    changed = running.to_dict()
    changed["spec"]["containers"][0]["image"] = "nginx:2"
    await client.update(changed)

    def restarted(found: Any) -> bool:
        return ready(found) and found["status"]["containerStatuses"][0]["image"] == "nginx:2"

    found = await client.wait_for(POD, "a", "default", until=restarted, timeout=60)
    assert found["status"]["containerStatuses"][0]["restartCount"] == 1


async def test_a_pod_of_a_named_node_is_gone_after_its_deletion(client: Client) -> None:
    await client.create(pod("a", nodeName="one"))
    await client.wait_for(POD, "a", "default", until=ready, timeout=60)
    await client.delete(POD, "a", "default")
    await client.wait_gone(POD, "a", "default", timeout=60)


async def test_a_percentage_of_a_budget_counts_the_wanted_pods(client: Client) -> None:
    spec = {"minAvailable": "50%", "selector": {"matchLabels": {"app": "db"}}}
    budget = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "spec": spec}
    await client.create({**budget, "metadata": {"name": "db", "namespace": "default"}})
    await client.create(workload(STATEFUL_SET, "db", replicas=3, serviceName="db"))
    found = await status(
        client, "policy/v1/PodDisruptionBudget", "db", lambda current: current.get("currentHealthy") == 3
    )
    assert (found["expectedPods"], found["desiredHealthy"], found["disruptionsAllowed"]) == (3, 2, 1)


async def test_requests_of_the_stand_ins_are_not_those_of_the_program(server: APIServer, client: Client) -> None:
    await client.create(workload(STATEFUL_SET, "db", replicas=1, serviceName="db"))
    await status(client, STATEFUL_SET, "db", lambda current: current.get("readyReplicas") == 1)
    assert [write.resource for write in server.log.writes(by="program")] == ["statefulsets"]
    assert {write.user_agent for write in server.log.writes()} == {"program", "kube-controller-manager"}


async def test_the_stand_ins_are_silent(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "db", "namespace": "default"}}
    await client.create({**service, "spec": {"selector": {"app": "db"}, "ports": [{"port": 80}]}})
    await client.create(workload(STATEFUL_SET, "db", replicas=2, serviceName="db"))
    await status(client, STATEFUL_SET, "db", lambda current: current.get("readyReplicas") == 2)
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
