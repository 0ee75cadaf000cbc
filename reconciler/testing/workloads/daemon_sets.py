"""The stand-in for the DaemonSet controller."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from reconciler.controller import Outcome, Result, Watch
from reconciler.meta import Request
from reconciler.testing.workloads.base import (
    POD,
    WorkloadReconciler,
    hash_of,
    is_active,
    pod_of,
    ready_since,
    scaled,
    without_zeros,
)
from reconciler.wire import JSONObject

__all__ = ["DaemonSets"]

_HASH = "controller-revision-hash"
_NODE_NAME = "metadata.name"


class DaemonSets(WorkloadReconciler):
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

    async def sync(self, doc: JSONObject) -> Outcome:
        """Create, replace or delete pods, and write the status."""
        spec, found = doc["spec"], await self.owned(POD, doc)
        selector = spec["template"]["spec"].get("nodeSelector") or {}
        nodes = {node.name for node in await self.client.list("v1/Node", label_selector=selector)}
        revision = hash_of(spec["template"])
        active = [pod for pod in found if is_active(pod)]
        await self.delete(pod for pod in found if not is_active(pod) or _node(pod) not in nodes)
        for name in sorted(nodes - {_node(pod) for pod in found}):
            await self.client.create(_pod(doc, name, revision))
        available, wait = self.available(active, spec.get("minReadySeconds") or 0)
        await self._replace(doc, active, revision, len(nodes), available)
        await self.write_status(doc, _status(doc, active, nodes, revision, available))
        return None if wait is None else Result(requeue_after=wait)

    async def _replace(
        self, doc: JSONObject, active: Sequence[JSONObject], revision: str, wanted: int, available: int
    ) -> None:
        """Delete as many outdated pods as may be unavailable, first those that are not ready."""
        update = doc["spec"].get("updateStrategy") or {}
        if update.get("type") == "OnDelete":
            return
        limit = (update.get("rollingUpdate") or {}).get("maxUnavailable", 1)
        room = max(1, scaled(limit, wanted)) - (wanted - available)
        outdated = [pod for pod in active if pod["metadata"]["labels"].get(_HASH) != revision]
        broken = [pod for pod in outdated if ready_since(pod) is None]
        healthy = [pod for pod in outdated if ready_since(pod) is not None]
        await self.delete([*broken, *healthy[: max(0, room)]])


def _pod(doc: JSONObject, node: str, revision: str) -> JSONObject:
    labels = {_HASH: revision, "pod-template-generation": str(doc["metadata"]["generation"])}
    pod = pod_of(doc, labels)
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


def _status(
    doc: JSONObject, active: Sequence[JSONObject], nodes: Collection[str], revision: str, available: int
) -> JSONObject:
    placed = [pod for pod in active if _node(pod) in nodes]
    counts = {
        "observedGeneration": doc["metadata"]["generation"],
        "updatedNumberScheduled": sum(pod["metadata"]["labels"].get(_HASH) == revision for pod in placed),
        "numberAvailable": available,
        "numberUnavailable": len(nodes) - available,
    }
    return {
        "currentNumberScheduled": len(placed),
        "numberMisscheduled": len(active) - len(placed),
        "desiredNumberScheduled": len(nodes),
        "numberReady": sum(ready_since(pod) is not None for pod in placed),
        **without_zeros(counts),
    }
