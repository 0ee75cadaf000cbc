"""The stand-ins for the cluster's controllers, compared with kube-controller-manager by what they write.

On the real server the pods are run by the same stand-in for the kubelet. ``nox -s controllers`` builds the real ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import pytest

from reconciler import Client, Manager
from reconciler._workloads import AFTER, EXIT_CODE
from reconciler._workloads.base import PodRunner
from reconciler.apiserver import APIServer
from reconciler.clock import current_clock
from reconciler.errors import ConfigurationError
from tests.testing.test_controller_manager import built

DEPLOYMENT, REPLICA_SET, STATEFUL_SET = "apps/v1/Deployment", "apps/v1/ReplicaSet", "apps/v1/StatefulSet"
CLAIM = "v1/PersistentVolumeClaim"
DAEMON_SET, JOB, POD = "apps/v1/DaemonSet", "batch/v1/Job", "v1/Pod"
DELAYS = {"deployments": 2.0, "statefulsets": 2.0, "daemonsets": 2.0, "jobs": 3.0}


@contextlib.asynccontextmanager
async def real() -> AsyncIterator[Client]:
    async with built() as plane, plane.client() as client:
        manager = Manager(client)
        runner = PodRunner(current_clock(), {"ReplicaSet": 2.0, "StatefulSet": 2.0, "DaemonSet": 2.0, "Job": 3.0})
        manager.add_controller(runner, resource=POD, failure_events=False)
        async with manager.running():
            yield client


@contextlib.asynccontextmanager
async def embedded() -> AsyncIterator[Client]:
    controllers = {**dict.fromkeys(("garbage", "namespaces", "endpoints", "disruptionbudgets"), 0), **DELAYS}
    async with APIServer(controllers=controllers) as server, Client(server) as client:
        yield client


Scenario = Callable[[Client], Awaitable[None]]
SCENARIOS: list[Scenario] = []


def on_both(scenario: Scenario) -> Scenario:
    """Run a scenario on both servers."""
    SCENARIOS.append(scenario)
    return scenario


def workload(kind: str, name: str, *, annotations: Mapping[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    """Return a workload with one container."""
    api_version, _, kind = kind.rpartition("/")
    containers = {
        "containers": [{"name": "c", "image": "nginx"}],
        **({"restartPolicy": "Never"} if kind == "Job" else {}),
    }
    template = {"metadata": {"labels": {"app": name}, "annotations": dict(annotations or {})}, "spec": containers}
    if kind != "Job":
        spec["selector"] = {"matchLabels": {"app": name}}
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": {**spec, "template": template}}


def image(name: str) -> dict[str, Any]:
    return {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": name}]}}}}


async def status(
    client: Client, kind: str, name: str, until: Callable[[dict[str, Any]], object], within: float = 60
) -> Any:
    """Return a status once it meets a condition, without times and hashes."""

    def met(found: Any) -> object:
        current = found.to_dict().get("status") or {}
        return current.get("observedGeneration", found.generation) == found.generation and until(current)

    found = await client.wait_for(kind, name, "default", until=met, timeout=within)
    return stripped(found.to_dict()["status"], name)


def stripped(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        return {key: stripped(each, name) for key, each in value.items() if not key.endswith("Time")}
    if isinstance(value, list):
        return [stripped(each, name) for each in value]
    return re.sub(rf"\b{name}-[a-z0-9]+", f"{name}-HASH", value) if isinstance(value, str) else value


def condition(kind: str, value: str, reason: str, message: str) -> dict[str, str]:
    return {"type": kind, "status": value, "reason": reason, "message": message}


AVAILABLE = condition("Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
UNAVAILABLE = condition(
    "Available", "False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability."
)
DONE = condition("Progressing", "True", "NewReplicaSetAvailable", 'ReplicaSet "web-HASH" has successfully progressed.')


def progressed(conditions: list[dict[str, Any]]) -> bool:
    return any(each.get("reason") == "NewReplicaSetAvailable" for each in conditions)


def finished(current: dict[str, Any]) -> bool:
    return any(each["type"] in ("Complete", "Failed") for each in current.get("conditions") or ())


@on_both
async def a_deployment_becomes_available_and_rolls_out(client: Client) -> None:
    await client.create(workload(DEPLOYMENT, "web", replicas=2))
    started = await status(client, DEPLOYMENT, "web", lambda each: each.get("updatedReplicas") == 2)
    counts = {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "terminatingReplicas": 0}
    progressing = condition("Progressing", "True", "ReplicaSetUpdated", 'ReplicaSet "web-HASH" is progressing.')
    assert started == {**counts, "unavailableReplicas": 2, "conditions": [UNAVAILABLE, progressing]}
    whole = {**counts, "readyReplicas": 2, "availableReplicas": 2, "conditions": [AVAILABLE, DONE]}
    assert await status(client, DEPLOYMENT, "web", lambda each: progressed(each["conditions"])) == whole
    (first,) = await client.list(REPLICA_SET, "default")
    assert first["metadata"]["ownerReferences"][0]["kind"] == "Deployment"
    assert first["metadata"]["labels"]["pod-template-hash"] == first.name.removeprefix("web-")
    assert stripped(first.to_dict()["status"], "web") == {
        "replicas": 2,
        "fullyLabeledReplicas": 2,
        "readyReplicas": 2,
        "availableReplicas": 2,
        "terminatingReplicas": 0,
        "observedGeneration": 1,
    }

    await client.patch(DEPLOYMENT, "web", "default", patch=image("nginx:2"))

    def rolled(current: dict[str, Any]) -> bool:
        assert AVAILABLE["reason"] in [each["reason"] for each in current["conditions"]], "no pod is missed"
        return current.get("updatedReplicas") == current.get("replicas") == current.get("availableReplicas") == 2

    # A status of the second generation, after which the old pods go.
    assert await status(client, DEPLOYMENT, "web", rolled) == {**whole, "observedGeneration": 2}
    sets = {
        each["metadata"]["annotations"]["deployment.kubernetes.io/revision"]: each
        for each in await client.list(REPLICA_SET, "default")
    }
    assert {revision: each["spec"]["replicas"] for revision, each in sets.items()} == {"1": 0, "2": 2}
    found = await client.get(DEPLOYMENT, "web", "default")
    assert found.annotations["deployment.kubernetes.io/revision"] == "2"

    await client.patch(DEPLOYMENT, "web", "default", patch=image("nginx"))
    await status(client, DEPLOYMENT, "web", rolled)
    again = await client.get(REPLICA_SET, first.name, "default")
    assert again.annotations["deployment.kubernetes.io/revision"] == "3"
    assert again["spec"]["replicas"] == 2

    await client.patch(DEPLOYMENT, "web", "default", patch={"spec": {"replicas": 0}})
    none = await status(client, DEPLOYMENT, "web", lambda each: not each.get("replicas"))
    assert none == {"observedGeneration": 4, "terminatingReplicas": 0, "conditions": [AVAILABLE, DONE]}
    await client.delete(DEPLOYMENT, "web", "default")
    for each in sets.values():
        await client.wait_gone(REPLICA_SET, each.name, "default", timeout=60)


@on_both
async def recreate_removes_the_old_pods_first(client: Client) -> None:
    await client.create(workload(DEPLOYMENT, "web", replicas=2, strategy={"type": "Recreate"}))
    await status(client, DEPLOYMENT, "web", lambda each: each.get("availableReplicas") == 2)
    before = {pod.name for pod in await client.list(POD, "default")}
    await client.patch(DEPLOYMENT, "web", "default", patch=image("nginx:2"))
    await status(client, DEPLOYMENT, "web", lambda each: each.get("unavailableReplicas") == 2)
    after = await status(client, DEPLOYMENT, "web", lambda each: each.get("availableReplicas") == 2)
    assert after["updatedReplicas"] == after["replicas"] == 2
    assert before.isdisjoint({pod.name for pod in await client.list(POD, "default")})


@on_both
async def a_deployment_that_does_not_become_ready_exceeds_its_deadline(client: Client) -> None:
    settings = {"replicas": 1, "progressDeadlineSeconds": 4}
    await client.create(workload(DEPLOYMENT, "web", annotations={AFTER: "never"}, **settings))

    def late(current: dict[str, Any]) -> bool:
        return any(each["reason"] == "ProgressDeadlineExceeded" for each in current.get("conditions") or ())

    exceeded = 'ReplicaSet "web-HASH" has timed out progressing.'
    found = await status(client, DEPLOYMENT, "web", late)
    assert found["conditions"] == [
        UNAVAILABLE,
        condition("Progressing", "False", "ProgressDeadlineExceeded", exceeded),
    ]
    # It stays so, also after the next status.
    await client.patch(DEPLOYMENT, "web", "default", patch={"metadata": {"labels": {"a": "b"}}})
    await client.patch(DEPLOYMENT, "web", "default", patch={"spec": {"revisionHistoryLimit": 3}})
    assert late(await status(client, DEPLOYMENT, "web", lambda each: each["observedGeneration"] == 2))


@on_both
async def a_paused_deployment_can_be_scaled(client: Client) -> None:
    await client.create(workload(DEPLOYMENT, "web", replicas=1))
    await status(client, DEPLOYMENT, "web", lambda each: each.get("availableReplicas") == 1)
    await client.patch(DEPLOYMENT, "web", "default", patch={"spec": {"paused": True, "replicas": 2}})
    await status(client, DEPLOYMENT, "web", lambda each: each.get("availableReplicas") == 2)


@on_both
async def objects_that_lost_their_owner_are_adopted(client: Client) -> None:
    await client.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}})
    for kind, name in ((DEPLOYMENT, "web"), (STATEFUL_SET, "db"), (DAEMON_SET, "log")):
        document = workload(kind, name, **({} if kind == DAEMON_SET else {"replicas": 1}))

        def ready(current: dict[str, Any]) -> bool:
            return 1 in (current.get("availableReplicas"), current.get("numberAvailable"))

        await client.create(document)
        await status(client, kind, name, ready)
        before = [pod.uid for pod in await client.list(POD, "default", label_selector={"app": name})]
        await client.delete(kind, name, "default", propagation="Orphan")
        await client.wait_gone(kind, name, "default", timeout=60)
        await client.create(document)
        await status(client, kind, name, ready)
        assert [pod.uid for pod in await client.list(POD, "default", label_selector={"app": name})] == before


@on_both
async def a_job_completes(client: Client) -> None:
    await client.create(workload(JOB, "job", completions=2, parallelism=2))
    running = await status(client, JOB, "job", lambda each: each.get("ready") == 2)
    counts = {"terminating": 0, "uncountedTerminatedPods": {}}
    assert running == {**counts, "active": 2, "ready": 2}
    why = ("True", "CompletionsReached", "Reached expected number of succeeded pods")
    conditions = [condition("SuccessCriteriaMet", *why), condition("Complete", *why)]
    done = await status(client, JOB, "job", finished)
    assert done == {**counts, "ready": 0, "succeeded": 2, "conditions": conditions}
    found = (await client.get(JOB, "job", "default"))["status"]
    assert found["startTime"] < found["completionTime"]


@on_both
async def an_indexed_job_has_a_pod_for_each_index(client: Client) -> None:
    await client.create(workload(JOB, "job", completions=4, parallelism=2, completionMode="Indexed"))
    done = await status(client, JOB, "job", finished)
    assert (done["succeeded"], done["completedIndexes"]) == (4, "0-3")


@on_both
async def a_failing_job_fails(client: Client) -> None:
    await client.create(workload(JOB, "job", annotations={EXIT_CODE: "3"}, backoffLimit=0))
    why = ("True", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
    assert await status(client, JOB, "job", finished) == {
        "terminating": 0,
        "uncountedTerminatedPods": {},
        "ready": 0,
        "failed": 1,
        "conditions": [condition("FailureTarget", *why), condition("Failed", *why)],
    }


@on_both
async def a_job_can_be_suspended_and_takes_no_longer_than_its_deadline(client: Client) -> None:
    await client.create(workload(JOB, "job", annotations={AFTER: "never"}, suspend=True, activeDeadlineSeconds=3))
    suspended = await status(client, JOB, "job", lambda each: each.get("conditions"))
    assert suspended["conditions"] == [condition("Suspended", "True", "JobSuspended", "Job suspended")]
    await client.patch(JOB, "job", "default", patch={"spec": {"suspend": False}})
    late = await status(client, JOB, "job", finished)
    why = ("True", "DeadlineExceeded", "Job was active longer than specified deadline")
    assert late["conditions"] == [
        condition("Suspended", "False", "JobResumed", "Job resumed"),
        condition("FailureTarget", *why),
        condition("Failed", *why),
    ]
    assert late["failed"] == 1


@on_both
async def a_finished_job_is_removed_after_its_time_to_live(client: Client) -> None:
    await client.create(workload(JOB, "job", ttlSecondsAfterFinished=1))
    await client.wait_gone(JOB, "job", "default", timeout=60)


@on_both
async def a_stateful_set_has_its_pods_in_order(client: Client) -> None:
    await client.create(workload(STATEFUL_SET, "db", replicas=2, serviceName="db"))
    first = await status(client, STATEFUL_SET, "db", lambda each: each.get("replicas"))
    revision = {"currentRevision": "db-HASH", "updateRevision": "db-HASH", "collisionCount": 0}
    one = {"observedGeneration": 1, "replicas": 1, "currentReplicas": 1, "updatedReplicas": 1, **revision}
    assert first == {**one, "availableReplicas": 0}
    whole = {**one, **dict.fromkeys(("replicas", "currentReplicas", "updatedReplicas", "readyReplicas"), 2)}
    whole["availableReplicas"] = 2
    assert await status(client, STATEFUL_SET, "db", lambda each: each.get("readyReplicas") == 2) == whole
    pods = await client.list(POD, "default")
    assert [pod.name for pod in pods] == ["db-0", "db-1"]
    assert pods[1].labels["apps.kubernetes.io/pod-index"] == "1"

    await client.patch(STATEFUL_SET, "db", "default", patch=image("nginx:2"))

    def updated(current: dict[str, Any]) -> bool:
        return current.get("readyReplicas") == 2 and current["currentRevision"] == current["updateRevision"]

    after = await status(client, STATEFUL_SET, "db", updated)
    assert after == {**whole, "observedGeneration": 2}
    uids = {pod.uid for pod in pods}
    assert uids.isdisjoint({pod.uid for pod in await client.list(POD, "default")})
    await client.patch(STATEFUL_SET, "db", "default", patch={"spec": {"replicas": 1}})
    await client.wait_gone(POD, "db-1", "default", timeout=60)


@on_both
async def a_stateful_set_keeps_its_claims(client: Client) -> None:
    claim = {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    parallel = {"podManagementPolicy": "Parallel", "volumeClaimTemplates": [claim]}
    await client.create(workload(STATEFUL_SET, "db", replicas=2, serviceName="db", **parallel))
    await status(client, STATEFUL_SET, "db", lambda each: each.get("replicas") == 2)
    assert [each.name for each in await client.list("v1/PersistentVolumeClaim", "default")] == [
        "data-db-0",
        "data-db-1",
    ]
    pod = await client.get(POD, "db-0", "default")
    assert {"name": "data", "persistentVolumeClaim": {"claimName": "data-db-0"}} in pod["spec"]["volumes"]
    await client.delete(STATEFUL_SET, "db", "default")
    await client.wait_gone(POD, "db-0", "default", timeout=60)
    assert len(await client.list("v1/PersistentVolumeClaim", "default")) == 2


@on_both
async def a_daemon_set_has_a_pod_for_each_node(client: Client) -> None:
    for name in ("one", "two"):
        await client.create(
            {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"size": "large"}}}
        )
    await client.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "small"}})
    document = workload(DAEMON_SET, "agent")
    document["spec"]["template"]["spec"]["nodeSelector"] = {"size": "large"}
    await client.create(document)
    counts = {"currentNumberScheduled": 2, "desiredNumberScheduled": 2, "numberMisscheduled": 0}
    started = await status(client, DAEMON_SET, "agent", lambda each: each.get("updatedNumberScheduled") == 2)
    pending = {"observedGeneration": 1, "numberReady": 0, "updatedNumberScheduled": 2, "numberUnavailable": 2}
    assert started == {**counts, **pending}
    whole = {**counts, "numberReady": 2, "updatedNumberScheduled": 2, "numberAvailable": 2}
    found = await status(client, DAEMON_SET, "agent", lambda each: each.get("numberAvailable") == 2)
    assert found == {**whole, "observedGeneration": 1}
    await client.patch(DAEMON_SET, "agent", "default", patch=image("nginx:2"))

    def rolled(current: dict[str, Any]) -> bool:
        assert current.get("numberAvailable"), "one pod after the other is replaced"
        return current.get("updatedNumberScheduled") == current["numberAvailable"] == 2

    assert await status(client, DAEMON_SET, "agent", rolled) == {**whole, "observedGeneration": 2}


@on_both
async def a_stateful_set_deletes_its_claims_if_asked_to(client: Client) -> None:
    claim = {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    deleted = {"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete", "whenScaled": "Delete"}}
    settings = {"podManagementPolicy": "Parallel", "volumeClaimTemplates": [claim], **deleted}
    await client.create(workload(STATEFUL_SET, "db", replicas=2, serviceName="db", **settings))

    def owned_by(kind: str) -> Callable[[Any], bool]:
        return lambda found: [each["kind"] for each in found["metadata"].get("ownerReferences", ())] == [kind]

    for name in ("data-db-0", "data-db-1"):
        await client.wait_for(CLAIM, name, "default", until=owned_by("StatefulSet"), timeout=60)
        # As the controller that protects claims, which this cluster does not run, does for a claim without pods.
        await client.patch(CLAIM, name, "default", patch={"metadata": {"finalizers": None}})
    await client.patch(STATEFUL_SET, "db", "default", patch={"spec": {"replicas": 1}})
    await client.wait_gone(CLAIM, "data-db-1", "default", timeout=60)
    assert [each.name for each in await client.list(CLAIM, "default")] == ["data-db-0"]
    await client.delete(STATEFUL_SET, "db", "default")
    await client.wait_gone(CLAIM, "data-db-0", "default", timeout=60)


@on_both
async def a_service_has_the_addresses_of_its_pods(client: Client) -> None:
    spec = {"selector": {"app": "db"}, "clusterIP": "None", "ports": [{"name": "web", "port": 80, "targetPort": 8080}]}
    metadata = {"name": "db", "namespace": "default"}
    await client.create({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
    await client.create(workload(STATEFUL_SET, "db", replicas=2, serviceName="db"))

    def subset_of(found: Any) -> dict[str, Any]:
        return (found.to_dict().get("subsets") or [{}])[0]

    def both_ready(found: Any) -> bool:
        return len(subset_of(found).get("addresses", ())) == 2

    subset = subset_of(await client.wait_for("v1/Endpoints", "db", "default", until=both_ready, timeout=60))
    pods = {pod.name: pod for pod in await client.list(POD, "default")}
    assert {each["ip"] for each in subset["addresses"]} == {pod["status"]["podIP"] for pod in pods.values()}
    assert {each["hostname"] for each in subset["addresses"]} == pods.keys()
    assert subset["ports"] == [{"name": "web", "port": 8080, "protocol": "TCP"}]
    (found,) = [
        each.to_dict()
        for each in await client.list(
            "discovery.k8s.io/v1/EndpointSlice", "default", label_selector="kubernetes.io/service-name=db"
        )
    ]
    assert {each["targetRef"]["uid"] for each in found["endpoints"]} == {pod.uid for pod in pods.values()}
    assert all(each["conditions"]["ready"] for each in found["endpoints"])
    await client.patch(STATEFUL_SET, "db", "default", patch={"spec": {"replicas": 0}})
    await client.wait_for("v1/Endpoints", "db", "default", until=lambda each: not subset_of(each), timeout=60)
    await client.delete("v1/Service", "db", "default")
    await client.wait_gone("v1/Endpoints", "db", "default", timeout=60)


@on_both
async def a_disruption_budget_counts_the_healthy_pods(client: Client) -> None:
    budget = "policy/v1/PodDisruptionBudget"
    spec = {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}}
    metadata = {"name": "web", "namespace": "default"}
    await client.create({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": metadata, "spec": spec})
    await client.create(workload(DEPLOYMENT, "web", replicas=3))

    def allowed(number: int) -> Callable[[dict[str, Any]], bool]:
        return lambda current: (current.get("expectedPods"), current.get("disruptionsAllowed")) == (3, number)

    found = await status(client, budget, "web", allowed(1))
    assert condition("DisruptionAllowed", "True", "SufficientPods", "").items() <= found["conditions"][0].items()
    assert (found["currentHealthy"], found["desiredHealthy"]) == (3, 2)
    await client.patch(budget, "web", "default", patch={"spec": {"maxUnavailable": 0}})
    found = await status(client, budget, "web", allowed(0))
    assert condition("DisruptionAllowed", "False", "InsufficientPods", "").items() <= found["conditions"][0].items()
    assert found["desiredHealthy"] == 3


named = pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)


@pytest.mark.virtual_time
@named
async def test_stand_ins(scenario: Scenario) -> None:
    async with embedded() as client:
        await scenario(client)


@pytest.mark.control_plane
@pytest.mark.timeout(180)
@named
async def test_real_controllers(scenario: Scenario) -> None:
    async with real() as client:
        await scenario(client)


@pytest.mark.virtual_time
async def test_times_are_exact_under_virtual_time() -> None:
    async with APIServer(controllers={"deployments": 90, "jobs": 3600}) as server, Client(server) as client:
        clock = current_clock()
        start = clock.now()
        await client.create(workload(DEPLOYMENT, "web", replicas=3, minReadySeconds=30))
        await client.create(workload(JOB, "job"))
        await status(client, DEPLOYMENT, "web", lambda each: each.get("readyReplicas") == 3, 1e4)
        assert (clock.now() - start).total_seconds() == 90
        await status(client, DEPLOYMENT, "web", lambda each: each.get("availableReplicas") == 3)
        assert (clock.now() - start).total_seconds() == 120
        await status(client, JOB, "job", finished, 1e4)
        assert (clock.now() - start).total_seconds() == 3600


@pytest.mark.virtual_time
async def test_failed_pods_of_a_job_are_tried_again_with_backoff() -> None:
    async with APIServer(controllers={"jobs": 1}) as server, Client(server) as client:
        start = current_clock().now()
        await client.create(workload(JOB, "job", annotations={EXIT_CODE: "1"}, backoffLimit=2))
        found = await status(client, JOB, "job", finished)
        assert found["failed"] == 3
        assert (current_clock().now() - start).total_seconds() == 3 + 10 + 20


@pytest.mark.virtual_time
async def test_pods_of_a_daemon_set_leave_a_node_that_is_not_selected_any_more() -> None:
    async with embedded() as client:
        await a_daemon_set_has_a_pod_for_each_node(client)
        await client.patch("v1/Node", "two", patch={"metadata": {"labels": {"size": "small"}}})
        one = await status(client, DAEMON_SET, "agent", lambda each: each["currentNumberScheduled"] == 1)
        assert one["desiredNumberScheduled"] == one["numberReady"] == 1


@pytest.mark.virtual_time
async def test_a_large_rollout_is_silent(caplog: pytest.LogCaptureFixture) -> None:
    async with APIServer(controllers=["garbage", "deployments"]) as server, Client(server) as client:
        await client.create(workload(DEPLOYMENT, "web", replicas=20))
        await status(client, DEPLOYMENT, "web", lambda each: each.get("availableReplicas") == 20)
        await client.patch(DEPLOYMENT, "web", "default", patch=image("nginx:2"))

        def rolled(current: dict[str, Any]) -> bool:
            assert current.get("availableReplicas", 0) >= 15
            assert current["replicas"] <= 25
            return current.get("updatedReplicas") == current["replicas"] == current.get("availableReplicas") == 20

        await status(client, DEPLOYMENT, "web", rolled)
    assert caplog.messages == []


@pytest.mark.virtual_time
async def test_stand_ins_survive_faults(caplog: pytest.LogCaptureFixture) -> None:
    async with APIServer(controllers=["garbage", "deployments", "jobs"]) as server, Client(server) as client:
        with server.faults.chaos(seed=5, rate=0.3, user_agent="kube-controller-manager") as chaos:
            await client.create(workload(DEPLOYMENT, "web", replicas=4))
            await client.create(workload(JOB, "job", completions=5, parallelism=2))
            await status(client, DEPLOYMENT, "web", lambda each: each.get("availableReplicas") == 4, 1e4)
            await client.patch(DEPLOYMENT, "web", "default", patch=image("nginx:2"))
            await status(client, DEPLOYMENT, "web", lambda each: progressed(each["conditions"]), 1e4)
            await status(client, JOB, "job", finished, 1e4)
        assert sum(chaos.hits.values()) > 20
    assert [record.message for record in caplog.records if "stand-in" in record.message] == []


@pytest.mark.virtual_time
async def test_stand_ins_survive_restarts_and_restores() -> None:
    async with APIServer(controllers=["deployments"]) as server, Client(server) as client:
        await client.create(workload(DEPLOYMENT, "web", replicas=2))
        await status(client, DEPLOYMENT, "web", lambda each: each.get("availableReplicas") == 2)
        backup = server.snapshot()
        await client.patch(DEPLOYMENT, "web", "default", patch={"spec": {"replicas": 5}})
        await server.restart()
        await status(client, DEPLOYMENT, "web", lambda each: each.get("availableReplicas") == 5)
        await server.restore(backup)
        await client.patch(DEPLOYMENT, "web", "default", patch={"spec": {"replicas": 3}})
        await status(client, DEPLOYMENT, "web", lambda each: each.get("availableReplicas") == 3)


@pytest.mark.virtual_time
async def test_pods_of_others_are_left_alone() -> None:
    async with APIServer(controllers=["deployments"]) as server, Client(server) as client:
        pod = {"containers": [{"name": "c", "image": "nginx"}]}
        await client.create(
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "default"}, "spec": pod}
        )
        await client.create(workload(JOB, "job"))
        await asyncio.sleep(60)
        assert (await client.get(POD, "a", "default"))["status"]["phase"] == "Pending"
        assert "startTime" not in (await client.get(JOB, "job", "default"))["status"]


@pytest.mark.virtual_time
async def test_without_controllers_nothing_follows_from_a_write() -> None:
    async with APIServer(controllers=()) as server, Client(server) as client:
        owner = await client.create(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "o", "namespace": "a"}}
        )
        reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": owner.uid}
        owned = {"name": "owned", "namespace": "a", "ownerReferences": [reference]}
        await client.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": owned})
        await client.delete("v1/ConfigMap", "o", "a")
        await client.delete("v1/Namespace", "a")
        assert (await client.get("v1/Namespace", "a"))["status"]["phase"] == "Terminating"
        assert (await client.get("v1/ConfigMap", "owned", "a")).name == "owned"


@pytest.mark.parametrize(
    ("controllers", "message"),
    [
        (["deployment"], "unknown controllers 'deployment': choose from garbage, namespaces, deployments, "),
        ("jobs", "unknown controllers 'jobs'"),
        ({"jobs": -1}, "the delay of jobs must be seconds of 0 or more, a timedelta or a text such as '30s', not -1"),
        ({"jobs": "1"}, "the delay of jobs: '1' is not a valid duration"),
        (
            {"jobs": float("inf")},
            "the delay of jobs must be seconds of 0 or more, a timedelta or a text such as '30s', not inf",
        ),
        (
            {"jobs": None},
            "the delay of jobs must be seconds of 0 or more, a timedelta or a text such as '30s', not None",
        ),
    ],
)
def test_invalid_controllers_are_refused(controllers: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        APIServer(controllers=controllers)


@pytest.mark.virtual_time
@pytest.mark.parametrize("annotations", [{AFTER: "soon"}, {EXIT_CODE: "SIGTERM"}])
async def test_an_invalid_annotation_is_named_once(annotations: dict[str, str], caplog: Any) -> None:
    async with APIServer(controllers=["jobs"]) as server, Client(server) as client:
        await client.create(workload(JOB, "job", annotations=annotations))
        await asyncio.sleep(3600)
    (message,) = [each.getMessage() for each in caplog.records if each.levelname == "ERROR"]
    assert "an annotation of pod job-" in message


async def test_a_job_whose_status_a_test_sets_is_left_to_it() -> None:
    """As in suites for envtest, which create a Job and update its status at once."""
    async with APIServer(controllers={"jobs": 0.0}) as server, Client(server, user_agent="suite") as client:
        made = (await client.create(workload(JOB, "theirs"))).to_dict()
        for _ in range(50):
            await client.get(JOB, "theirs", "default")  # time enough for the stand-in to see it
        await client.update({**made, "status": {"active": 2}}, subresource="status")
        await client.create(workload(JOB, "ours"))
        await client.wait_for(JOB, "ours", "default", until=lambda job: finished(job.to_dict()["status"]), timeout=30)
        assert (await client.get(JOB, "theirs", "default")).to_dict()["status"]["active"] == 2
