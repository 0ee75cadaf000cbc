"""The stand-ins for the StatefulSet and the DaemonSet controller."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from reconciler._core.wire import JSONObject
from reconciler._workloads import base
from reconciler.controller import Watch
from reconciler.errors import NotFound
from reconciler.meta import Request, owner_reference

REVISION_HASH = "controller-revision-hash"


class StatefulSets(base.WorkloadReconciler):
    """Creates the pods and claims of StatefulSets in order, replaces outdated pods, and writes the status.

    There are no ControllerRevisions, so a pod is always created with the newest template. Claims are deleted as the
    ``persistentVolumeClaimRetentionPolicy`` says.
    """

    kind = "apps/v1/StatefulSet"

    def watches(self) -> Sequence[Watch]:
        """Return the watch on claims: a pod waits while an earlier claim of its name is being deleted."""
        return [Watch(base.CLAIM, mapper=self.same_namespace)]

    def can_adopt(self, owner: JSONObject, candidate: JSONObject, /) -> bool:
        """Return whether a pod has a name of the StatefulSet."""
        parent, _, ordinal = candidate["metadata"]["name"].rpartition("-")
        return bool(parent == owner["metadata"]["name"] and ordinal.isdecimal())

    async def sync(self, doc: JSONObject) -> float | None:
        """Create, replace or delete pods, and write the status."""
        spec, found = doc["spec"], await self.owned(base.POD, doc)
        revision = f"{doc['metadata']['name']}-{base.hash_of(spec['template'])}"
        pods = {_ordinal(pod): pod for pod in found}
        await self._move(doc, pods, revision)
        active = [pod for pod in found if base.is_active(pod)]
        available, wait = self.available(active, spec.get("minReadySeconds") or 0)
        await self.write_status(doc, _stateful_status(doc, active, revision, available))
        return wait

    async def _move(self, doc: JSONObject, pods: Mapping[int, JSONObject], revision: str) -> None:
        """Make one step, or all of them if pods need not be in order."""
        spec = doc["spec"]
        first = (spec.get("ordinals") or {}).get("start") or 0
        wanted = range(first, first + spec["replicas"])
        in_order = spec.get("podManagementPolicy") != "Parallel"
        for ordinal, existing in pods.items():
            await self._own_claims(doc, existing, extra=ordinal not in wanted)
        for ordinal in wanted:
            pod = pods.get(ordinal)
            if pod is None:
                await self._create(doc, ordinal, revision)
            elif not base.is_terminating(pod) and not base.is_active(pod):
                await self.delete([pod])  # it is created again under its name
            if in_order and (pod is None or base.ready_since(pod) is None):
                return
        extra = [pods[ordinal] for ordinal in sorted(pods, reverse=True) if ordinal not in wanted]
        await self.delete(extra[:1] if in_order else extra)
        update = spec.get("updateStrategy") or {}
        if extra or update.get("type") == "OnDelete" or any(base.ready_since(pod) is None for pod in pods.values()):
            return
        partition = (update.get("rollingUpdate") or {}).get("partition") or 0
        outdated = [
            pods[ordinal]
            for ordinal in reversed(wanted)
            if ordinal >= partition and ordinal in pods and _revision(pods[ordinal]) != revision
        ]
        await self.delete(outdated[:1])

    async def _create(self, doc: JSONObject, ordinal: int, revision: str) -> None:
        name = f"{doc['metadata']['name']}-{ordinal}"
        own = {
            "apps.kubernetes.io/pod-index": str(ordinal),
            REVISION_HASH: revision,
            "statefulset.kubernetes.io/pod-name": name,
        }
        pod = base.pod_of(doc, own, name=name, generateName=f"{doc['metadata']['name']}-")
        volumes = [each for each in pod["spec"].get("volumes") or () if each["name"] not in _claims(doc)]
        for volume, template in _claims(doc).items():
            claim = f"{volume}-{name}"
            volumes.append({"name": volume, "persistentVolumeClaim": {"claimName": claim}})
            found = await self._claim(claim, doc["metadata"]["namespace"])
            if found is not None and base.is_terminating(found):
                return
            if found is not None:
                continue  # of an earlier pod with this name
            labels = (template["metadata"].get("labels") or {}) | (doc["spec"]["selector"].get("matchLabels") or {})
            place = {"name": claim, "namespace": doc["metadata"]["namespace"], "labels": labels}
            metadata = {**template["metadata"], **place}
            document = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", **template, "metadata": metadata}
            document.pop("status", None)
            await self.client.create(document)
        more = {"hostname": name, "subdomain": doc["spec"].get("serviceName"), "volumes": volumes}
        pod["spec"] = {**pod["spec"], **{field: value for field, value in more.items() if value}}
        await self.client.create(pod)

    async def _own_claims(self, doc: JSONObject, pod: JSONObject, *, extra: bool) -> None:
        """Set the owner with which the claims of a pod are deleted: the StatefulSet, an extra pod, or none."""
        policy = doc["spec"].get("persistentVolumeClaimRetentionPolicy") or {}
        owner = doc if policy.get("whenDeleted") == "Delete" else None
        if extra and policy.get("whenScaled") == "Delete":
            owner = pod
        ours = {doc["metadata"]["uid"], pod["metadata"]["uid"]}
        for volume in _claims(doc):
            claim = await self._claim(f"{volume}-{pod['metadata']['name']}", doc["metadata"]["namespace"])
            if claim is None or base.is_terminating(claim):
                continue
            before = claim["metadata"].get("ownerReferences") or []
            after = [each for each in before if each["uid"] not in ours]
            after += [] if owner is None else [owner_reference(owner)]
            if [each["uid"] for each in after] != [each["uid"] for each in before]:
                await self.client.update({**claim, "metadata": {**claim["metadata"], "ownerReferences": after}})

    async def _claim(self, name: str, namespace: str) -> JSONObject | None:
        try:
            return (await self.client.get(base.CLAIM, name, namespace)).to_dict()
        except NotFound:
            return None


def _claims(doc: JSONObject) -> dict[str, JSONObject]:
    return {each["metadata"]["name"]: each for each in doc["spec"].get("volumeClaimTemplates") or ()}


def _ordinal(pod: JSONObject) -> int:
    return int(pod["metadata"]["name"].rpartition("-")[2])


def _revision(pod: JSONObject) -> str:
    return str(pod["metadata"]["labels"].get(REVISION_HASH))


def _stateful_status(doc: JSONObject, active: Sequence[JSONObject], revision: str, available: int) -> JSONObject:
    spec, before = doc["spec"], doc.get("status") or {}
    updated = sum(_revision(pod) == revision for pod in active)
    ready = sum(base.ready_since(pod) is not None for pod in active)
    current = before.get("currentRevision") or revision
    replaces = (spec.get("updateStrategy") or {}).get("type") != "OnDelete"
    if replaces and updated == ready == len(active) == spec["replicas"]:
        current = revision
    counts = {
        "readyReplicas": ready,
        "currentReplicas": sum(_revision(pod) == current for pod in active),
        "updatedReplicas": updated,
    }
    return {
        "observedGeneration": doc["metadata"]["generation"],
        "replicas": len(active),
        **base.without_zeros(counts),
        "currentRevision": current,
        "updateRevision": revision,
        "collisionCount": before.get("collisionCount", 0),
        "availableReplicas": available,
    }


_NODE_NAME = "metadata.name"


class DaemonSets(base.WorkloadReconciler):
    """Creates a pod for each Node that the ``nodeSelector`` selects, replaces outdated pods, and writes the status.

    Taints and affinities are ignored.
    """

    kind = "apps/v1/DaemonSet"

    def watches(self) -> Sequence[Watch]:
        """Return the watch on Nodes, which concern every DaemonSet."""
        return [Watch("v1/Node", mapper=self._all)]

    async def _all(self, _node: Any) -> list[Request]:
        return [Request(each.name, each.namespace) for each in await self.client.list(self.kind)]

    def can_adopt(self, _owner: JSONObject, candidate: JSONObject, /) -> bool:
        """Return whether a pod was created for a node."""
        return bool(_node(candidate))

    async def sync(self, doc: JSONObject) -> float | None:
        """Create, replace or delete pods, and write the status."""
        spec, found = doc["spec"], await self.owned(base.POD, doc)
        selector = spec["template"]["spec"].get("nodeSelector") or {}
        nodes = {node.name for node in await self.client.list("v1/Node", label_selector=selector)}
        revision = base.hash_of(spec["template"])
        active = [pod for pod in found if base.is_active(pod)]
        await self.delete(pod for pod in found if not base.is_active(pod) or _node(pod) not in nodes)
        for name in sorted(nodes - {_node(pod) for pod in found}):
            await self.client.create(_pod(doc, name, revision))
        available, wait = self.available(active, spec.get("minReadySeconds") or 0)
        await self._replace(doc, active, revision, len(nodes), available)
        await self.write_status(doc, _daemon_status(doc, active, nodes, revision, available))
        return wait

    async def _replace(
        self, doc: JSONObject, active: Sequence[JSONObject], revision: str, wanted: int, available: int
    ) -> None:
        """Delete as many outdated pods as may be unavailable, first those that are not ready."""
        update = doc["spec"].get("updateStrategy") or {}
        if update.get("type") == "OnDelete":
            return
        limit = (update.get("rollingUpdate") or {}).get("maxUnavailable", 1)
        room = max(1, base.scaled(limit, wanted)) - (wanted - available)
        outdated = [pod for pod in active if pod["metadata"]["labels"].get(REVISION_HASH) != revision]
        broken = [pod for pod in outdated if base.ready_since(pod) is None]
        healthy = [pod for pod in outdated if base.ready_since(pod) is not None]
        await self.delete([*broken, *healthy[: max(0, room)]])


def _pod(doc: JSONObject, node: str, revision: str) -> JSONObject:
    labels = {REVISION_HASH: revision, "pod-template-generation": str(doc["metadata"]["generation"])}
    pod = base.pod_of(doc, labels)
    fields = [{"key": _NODE_NAME, "operator": "In", "values": [node]}]
    affinity = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields": fields}]}}
    pod["spec"] = {**pod["spec"], "affinity": {**(pod["spec"].get("affinity") or {}), "nodeAffinity": affinity}}
    return pod


def _node(pod: JSONObject) -> str:
    """Return the node for which a pod was created; empty for none."""
    affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    terms = (affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}).get("nodeSelectorTerms") or ()
    fields = [field for term in terms for field in term.get("matchFields") or ()]
    return str(fields[0]["values"][0]) if fields else ""


def _daemon_status(
    doc: JSONObject, active: Sequence[JSONObject], nodes: Collection[str], revision: str, available: int
) -> JSONObject:
    placed = [pod for pod in active if _node(pod) in nodes]
    counts = {
        "observedGeneration": doc["metadata"]["generation"],
        "updatedNumberScheduled": sum(pod["metadata"]["labels"].get(REVISION_HASH) == revision for pod in placed),
        "numberAvailable": available,
        "numberUnavailable": len(nodes) - available,
    }
    return {
        "currentNumberScheduled": len(placed),
        "numberMisscheduled": len(active) - len(placed),
        "desiredNumberScheduled": len(nodes),
        "numberReady": sum(base.ready_since(pod) is not None for pod in placed),
        **base.without_zeros(counts),
    }
