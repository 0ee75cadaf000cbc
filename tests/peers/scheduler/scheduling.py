"""What kube-scheduler does with pods on nodes that nothing runs: a suite for the server of the kubeconfig.

The environment variable PROGRAM has the path of the program.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from reconciler import Client
from reconciler.errors import NotFound

NAMESPACE = "default"
SECONDS = 30.0
ZONE = "topology.kubernetes.io/zone"
HOST = "kubernetes.io/hostname"
NOT_READY = "node.kubernetes.io/not-ready"


def start(output: Path) -> subprocess.Popen[bytes]:
    """Start a scheduler that leads if no other one does."""
    kubeconfig = os.environ["KUBECONFIG"]
    files = [f"--kubeconfig={kubeconfig}", f"--authentication-kubeconfig={kubeconfig}"]
    lease = ["--leader-elect-lease-duration=4s", "--leader-elect-renew-deadline=3s", "--leader-elect-retry-period=1s"]
    command = [os.environ["PROGRAM"], *files, *lease, "--bind-address=127.0.0.1", "--secure-port=0", "-v=2"]
    with output.open("w") as log:
        return subprocess.Popen(command, stdout=log, stderr=log)


@pytest.fixture(scope="module", autouse=True)
def scheduler() -> Iterator[subprocess.Popen[bytes]]:
    """Run a scheduler for all tests."""
    with start(Path(os.environ["KUBECONFIG"]).with_name("scheduler.log")) as process:
        yield process
        process.terminate()


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    """Give a client; delete what a test made."""
    async with Client.from_config(kubeconfig=os.environ["KUBECONFIG"]) as client:
        yield client
        for kind in ("v1/Pod", "v1/PersistentVolumeClaim", "resource.k8s.io/v1/ResourceClaim"):
            for each in await client.list(kind, NAMESPACE):
                await remove(client, kind, each.to_dict()["metadata"]["name"], NAMESPACE)
        for kind in (
            "v1/Node",
            "v1/PersistentVolume",
            "scheduling.k8s.io/v1/PriorityClass",
            "storage.k8s.io/v1/StorageClass",
            "resource.k8s.io/v1/ResourceSlice",
            "resource.k8s.io/v1/DeviceClass",
        ):
            for each in await client.list(kind):
                name = each.to_dict()["metadata"]["name"]
                if not name.startswith("system-"):
                    await remove(client, kind, name)


async def remove(client: Client, kind: str, name: str, namespace: str | None = None) -> None:
    with contextlib.suppress(NotFound):
        await change(client, kind, name, {"metadata": {"finalizers": None}}, namespace)
        await client.delete(kind, name, namespace, grace_period=0)


async def change(
    client: Client, kind: str, name: str, patch: dict[str, Any], namespace: str | None = None, subresource: str = ""
) -> None:
    await client.patch(kind, name, namespace, patch=patch, subresource=subresource or None)


def of(api_version: str, kind: str, name: str, **parts: Any) -> dict[str, Any]:
    metadata = {"name": name, "labels": parts.pop("labels", {}), **parts.pop("metadata", {})}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **parts}


async def node(client: Client, name: str, *, cpu: str = "4", taints: Any = (), **labels: str) -> None:
    """Create a node, and make it ready as a kubelet and the node controllers do."""
    labels = {HOST: name, **labels}
    await client.create(of("v1", "Node", name, labels=labels, spec={"taints": list(taints)}))
    resources = {"cpu": cpu, "memory": "8Gi", "pods": "110"}
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "posting ready status"}
    status = {"capacity": resources, "allocatable": resources, "conditions": [ready]}
    await change(client, "v1/Node", name, {"status": status}, subresource="status")
    await change(client, "v1/Node", name, {"spec": {"taints": list(taints) or None}})


async def pod(
    client: Client, name: str, *, cpu: str = "100m", labels: Mapping[str, str] | None = None, **spec: Any
) -> None:
    container = {"name": "c", "image": "nginx", "resources": {"requests": {"cpu": cpu}}, **spec.pop("container", {})}
    metadata = {"namespace": NAMESPACE}
    wanted = {"containers": [container], **spec}
    await client.create(of("v1", "Pod", name, labels=dict(labels or {}), metadata=metadata, spec=wanted))


async def until(client: Client, kind: str, name: str, holds: Callable[[Any], Any], namespace: str | None = None) -> Any:
    return await client.wait_for(kind, name, namespace, until=lambda found: holds(found.to_dict()), timeout=SECONDS)


async def placed(client: Client, *names: str) -> list[str]:
    """Return the nodes of pods once they have one."""
    found = [await until(client, "v1/Pod", name, lambda pod: pod["spec"].get("nodeName"), NAMESPACE) for name in names]
    return [each.to_dict()["spec"]["nodeName"] for each in found]


def scheduled(pod: Any) -> Mapping[str, str]:
    conditions = pod.get("status", {}).get("conditions") or ()
    return next((each for each in conditions if each["type"] == "PodScheduled"), {})


async def refused(client: Client, name: str, why: str) -> None:
    """Wait until the scheduler says why a pod has no node."""

    def says(pod: Any) -> bool:
        condition = scheduled(pod)
        return condition.get("status") == "False" and why in f"{condition['reason']}: {condition['message']}"

    found = await until(client, "v1/Pod", name, says, NAMESPACE)
    assert "nodeName" not in found.to_dict()["spec"]


async def events(client: Client, name: str, reason: str) -> list[Any]:
    """Return the events about a pod, once there is one."""
    async with asyncio.timeout(SECONDS):
        while True:
            found = [each.to_dict() for each in await client.list("events.k8s.io/v1/Event", NAMESPACE)]
            about = [each for each in found if each["regarding"]["name"] == name and each["reason"] == reason]
            if about:
                return about
            await asyncio.sleep(0.1)


async def test_a_pod_is_bound_to_the_only_node(client: Client) -> None:
    await node(client, "only")
    await pod(client, "a")
    assert await placed(client, "a") == ["only"]
    bound = await client.get("v1/Pod", "a", NAMESPACE)
    assert scheduled(bound.to_dict())["status"] == "True"
    (event,) = await events(client, "a", "Scheduled")
    assert (event["type"], event["action"], event["reportingController"], event["note"]) == (
        "Normal",
        "Binding",
        "default-scheduler",
        "Successfully assigned default/a to only",
    )


async def test_a_pod_waits_for_a_node_that_is_large_enough(client: Client) -> None:
    await node(client, "small", cpu="1")
    await pod(client, "a", cpu="2")
    await refused(client, "a", "Unschedulable: 0/1 nodes are available: 1 Insufficient cpu.")
    (event, *_) = await events(client, "a", "FailedScheduling")
    assert event["type"] == "Warning"
    await node(client, "large")
    assert await placed(client, "a") == ["large"]


async def test_a_pod_waits_for_room_that_another_leaves(client: Client) -> None:
    await node(client, "only", cpu="1")
    await pod(client, "a", cpu="800m")
    await placed(client, "a")
    await pod(client, "b", cpu="800m")
    await refused(client, "b", "Insufficient cpu")
    await client.delete("v1/Pod", "a", NAMESPACE, grace_period=0)
    assert await placed(client, "b") == ["only"]


async def test_a_node_selector_chooses_the_node(client: Client) -> None:
    await node(client, "plain")
    await node(client, "fast", disk="ssd")
    await pod(client, "a", nodeSelector={"disk": "ssd"})
    await pod(client, "b", nodeSelector={"disk": "tape"})
    assert await placed(client, "a") == ["fast"]
    await refused(client, "b", "didn't match Pod's node affinity/selector")


async def test_a_preferred_affinity_chooses_the_node(client: Client) -> None:
    await node(client, "first", disk="hdd")
    await node(client, "second", disk="ssd")
    term = {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}
    preferred = [{"weight": 100, "preference": term}]
    for name in "ab":
        await pod(
            client, name, affinity={"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}
        )
    assert await placed(client, "a", "b") == ["second", "second"]


async def test_a_taint_keeps_pods_off_that_do_not_tolerate_it(client: Client) -> None:
    taint = {"key": "gpu", "value": "yes", "effect": "NoSchedule"}
    await node(client, "tainted", taints=[taint])
    await pod(client, "a")
    await refused(client, "a", "untolerated taint")
    await pod(client, "b", tolerations=[{"key": "gpu", "operator": "Exists"}])
    assert await placed(client, "b") == ["tainted"]
    await change(client, "v1/Node", "tainted", {"spec": {"taints": None}})
    assert await placed(client, "a") == ["tainted"]


async def test_a_new_node_is_not_ready_until_its_taint_is_removed(client: Client) -> None:
    await client.create(of("v1", "Node", "new", status={"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "9"}}))
    await pod(client, "a")
    await refused(client, "a", "untolerated taint(s)")
    found = await client.get("v1/Node", "new")
    assert found.to_dict()["spec"]["taints"] == [{"key": NOT_READY, "effect": "NoSchedule"}]


async def test_a_cordoned_node_gets_no_pods(client: Client) -> None:
    await node(client, "cordoned")
    await change(client, "v1/Node", "cordoned", {"spec": {"unschedulable": True}})
    await pod(client, "a")
    await refused(client, "a", "1 node(s) were unschedulable")
    await change(client, "v1/Node", "cordoned", {"spec": {"unschedulable": None}})
    assert await placed(client, "a") == ["cordoned"]


async def test_pods_are_spread_over_zones(client: Client) -> None:
    for name, zone in (("a1", "a"), ("a2", "a"), ("b1", "b")):
        await node(client, name, **{ZONE: zone})
    labels = {"app": "web"}
    spread = {
        "maxSkew": 1,
        "topologyKey": ZONE,
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": labels},
    }
    names = [f"w{number}" for number in range(6)]
    for name in names:
        await pod(client, name, labels=labels, topologySpreadConstraints=[spread])
    nodes = await placed(client, *names)
    assert Counter(name[0] for name in nodes) == {"a": 3, "b": 3}


async def test_pods_with_anti_affinity_get_a_node_each(client: Client) -> None:
    for name in ("n1", "n2"):
        await node(client, name)
    term = {"topologyKey": HOST, "labelSelector": {"matchLabels": {"app": "db"}}}
    affinity = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    for name in ("a", "b"):
        await pod(client, name, labels={"app": "db"}, affinity=affinity)
    assert sorted(await placed(client, "a", "b")) == ["n1", "n2"]
    await pod(client, "c", labels={"app": "db"}, affinity=affinity)
    await refused(client, "c", "didn't match pod anti-affinity rules")


async def test_a_pod_with_affinity_joins_another(client: Client) -> None:
    for name in ("n1", "n2", "n3"):
        await node(client, name)
    await pod(client, "a", labels={"app": "cache"})
    term = {"topologyKey": HOST, "labelSelector": {"matchLabels": {"app": "cache"}}}
    await pod(client, "b", affinity={"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}})
    first, second = await placed(client, "a", "b")
    assert first == second


async def test_a_port_of_the_host_is_given_once(client: Client) -> None:
    await node(client, "only")
    ports = {"ports": [{"containerPort": 80, "hostPort": 8080}]}
    await pod(client, "a", container=ports)
    await placed(client, "a")
    await pod(client, "b", container=ports)
    await refused(client, "b", "didn't have free ports")


async def test_a_pod_waits_until_its_gates_are_removed(client: Client) -> None:
    await node(client, "only")
    await pod(client, "a", schedulingGates=[{"name": "example.com/quota"}])
    await refused(client, "a", "SchedulingGated: ")
    await change(client, "v1/Pod", "a", {"spec": {"schedulingGates": None}}, NAMESPACE)
    assert await placed(client, "a") == ["only"]


async def test_a_pod_of_high_priority_evicts_one_of_low_priority(client: Client) -> None:
    await node(client, "only", cpu="1")
    await client.create(of("scheduling.k8s.io/v1", "PriorityClass", "low", value=1))
    await client.create(of("scheduling.k8s.io/v1", "PriorityClass", "high", value=1000))
    finalizers = {"finalizers": ["example.com/keep"], "namespace": NAMESPACE}
    spec = {
        "priorityClassName": "low",
        "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "c", "image": "nginx", "resources": {"requests": {"cpu": "800m"}}}],
    }
    await client.create(of("v1", "Pod", "victim", metadata=finalizers, spec=spec))
    await placed(client, "victim")
    await pod(client, "urgent", cpu="800m", priorityClassName="high")
    victim = await until(client, "v1/Pod", "victim", lambda pod: pod["metadata"].get("deletionTimestamp"), NAMESPACE)
    target = [each for each in victim.to_dict()["status"]["conditions"] if each["type"] == "DisruptionTarget"]
    assert [(each["status"], each["reason"]) for each in target] == [("True", "PreemptionByScheduler")]
    nominated = await until(client, "v1/Pod", "urgent", lambda pod: pod["status"].get("nominatedNodeName"), NAMESPACE)
    assert nominated.to_dict()["status"]["nominatedNodeName"] == "only"
    assert await events(client, "victim", "Preempted")
    await change(client, "v1/Pod", "victim", {"metadata": {"finalizers": None}}, NAMESPACE)
    assert await placed(client, "urgent") == ["only"]


async def test_a_pod_that_must_not_preempt_waits(client: Client) -> None:
    await node(client, "only", cpu="1")
    await client.create(of("scheduling.k8s.io/v1", "PriorityClass", "patient", value=1000, preemptionPolicy="Never"))
    await pod(client, "a", cpu="800m")
    await placed(client, "a")
    await pod(client, "b", cpu="800m", priorityClassName="patient")
    await refused(client, "b", "not eligible due to preemptionPolicy=Never")
    assert "deletionTimestamp" not in (await client.get("v1/Pod", "a", NAMESPACE)).to_dict()["metadata"]


def volume(name: str, claim_class: str, node: str) -> dict[str, Any]:
    term = {"matchExpressions": [{"key": HOST, "operator": "In", "values": [node]}]}
    spec = {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": claim_class,
        "local": {"path": "/data"},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}},
    }
    return of("v1", "PersistentVolume", name, spec=spec)


def claim(name: str, claim_class: str) -> dict[str, Any]:
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": claim_class,
        "resources": {"requests": {"storage": "1Gi"}},
    }
    return of("v1", "PersistentVolumeClaim", name, metadata={"namespace": NAMESPACE}, spec=spec)


VOLUMES = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]


async def test_a_claim_gets_a_volume_on_the_node_of_its_first_pod(client: Client) -> None:
    for name in ("n1", "n2"):
        await node(client, name)
    mode = {"provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer"}
    await client.create(of("storage.k8s.io/v1", "StorageClass", "local", **mode))
    await client.create(volume("on-n2", "local", "n2"))
    await change(client, "v1/PersistentVolume", "on-n2", {"status": {"phase": "Available"}}, subresource="status")
    await client.create(claim("data", "local"))
    await pod(client, "a", volumes=VOLUMES)
    bound = await until(client, "v1/PersistentVolume", "on-n2", lambda volume: volume["spec"].get("claimRef"))
    assert bound.to_dict()["spec"]["claimRef"]["name"] == "data"
    # The controller of volumes does the rest.
    completed = {"pv.kubernetes.io/bind-completed": "yes", "pv.kubernetes.io/bound-by-controller": "yes"}
    finished = {"metadata": {"annotations": completed}, "spec": {"volumeName": "on-n2"}, "status": {"phase": "Bound"}}
    await change(client, "v1/PersistentVolumeClaim", "data", finished, NAMESPACE)
    await change(client, "v1/PersistentVolumeClaim", "data", finished, NAMESPACE, subresource="status")
    assert await placed(client, "a") == ["n2"]


async def test_a_pod_waits_for_its_claim(client: Client) -> None:
    await node(client, "only")
    await pod(client, "a", volumes=VOLUMES)
    await refused(client, "a", 'persistentvolumeclaim "data" not found')
    provisioner = {"provisioner": "example.com/disks", "volumeBindingMode": "Immediate"}
    await client.create(of("storage.k8s.io/v1", "StorageClass", "disks", **provisioner))
    await client.create(claim("data", "disks"))
    await refused(client, "a", "pod has unbound immediate PersistentVolumeClaims")


async def test_a_claim_of_a_device_is_allocated_with_the_node(client: Client) -> None:
    for name in ("n1", "n2"):
        await node(client, name)
    await client.create(of("resource.k8s.io/v1", "DeviceClass", "gpus", spec={}))
    pool = {"name": "n2", "generation": 1, "resourceSliceCount": 1}
    inside = {"driver": "gpu.example.com", "nodeName": "n2", "pool": pool, "devices": [{"name": "gpu-0"}]}
    await client.create(of("resource.k8s.io/v1", "ResourceSlice", "n2-gpus", spec=inside))
    requests = [{"name": "gpu", "exactly": {"deviceClassName": "gpus"}}]
    wanted = {"devices": {"requests": requests}}
    kind = "resource.k8s.io/v1/ResourceClaim"
    for name in ("first", "second"):
        metadata = {"namespace": NAMESPACE}
        await client.create(of("resource.k8s.io/v1", "ResourceClaim", name, metadata=metadata, spec=wanted))
    await pod(client, "a", resourceClaims=[{"name": "gpu", "resourceClaimName": "first"}])
    assert await placed(client, "a") == ["n2"]
    status = (await client.get(kind, "first", NAMESPACE)).to_dict()["status"]
    (result,) = status["allocation"]["devices"]["results"]
    assert (result["device"], result["pool"], status["reservedFor"][0]["name"]) == ("gpu-0", "n2", "a")
    await pod(client, "b", resourceClaims=[{"name": "gpu", "resourceClaimName": "second"}])
    await refused(client, "b", "cannot allocate all claims")


async def test_a_hundred_pods_are_bound(client: Client) -> None:
    for number in range(10):
        await node(client, f"n{number}")
    names = [f"p{number}" for number in range(100)]
    for name in names:
        await pod(client, name)
    counts = Counter(await placed(client, *names))
    assert sum(counts.values()) == 100
    assert max(counts.values()) - min(counts.values()) <= 2


async def test_another_scheduler_takes_over(client: Client, scheduler: subprocess.Popen[bytes], tmp_path: Path) -> None:
    kind, name, system = "coordination.k8s.io/v1/Lease", "kube-scheduler", "kube-system"
    lease = await until(client, kind, name, lambda lease: lease["spec"].get("holderIdentity"), system)
    leader, renewed = (lease.to_dict()["spec"][key] for key in ("holderIdentity", "renewTime"))
    with start(tmp_path / "scheduler.log") as second:
        try:
            await until(client, kind, name, lambda lease: lease["spec"]["renewTime"] > renewed, system)
            scheduler.terminate()
            await until(client, kind, name, lambda lease: lease["spec"]["holderIdentity"] not in ("", leader), system)
            await node(client, "only")
            await pod(client, "a")
            assert await placed(client, "a") == ["only"]
        finally:
            second.terminate()
