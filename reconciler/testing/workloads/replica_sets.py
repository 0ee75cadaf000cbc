"""The stand-in for the ReplicaSet controller."""

from __future__ import annotations

from reconciler.controller import Outcome, Result
from reconciler.testing.workloads.base import (
    POD,
    WorkloadReconciler,
    is_active,
    is_terminating,
    pod_of,
    ready_since,
    without_zeros,
)
from reconciler.wire import JSONObject

__all__ = ["ReplicaSets"]


class ReplicaSets(WorkloadReconciler):
    """Creates and deletes the pods of ReplicaSets, and counts them in the status."""

    kind = "apps/v1/ReplicaSet"

    async def sync(self, doc: JSONObject) -> Outcome:
        """Create or delete pods, and write the status."""
        spec, pods = doc["spec"], await self.owned(POD, doc)
        active = [pod for pod in pods if is_active(pod)]
        missing = spec["replicas"] - len(active)
        for _ in range(missing):
            await self.client.create(pod_of(doc))
        if missing < 0:
            surplus = active[::-1]  # those that are not ready go first, then the newest
            surplus.sort(key=lambda pod: ready_since(pod) is not None)
            await self.delete(surplus[:-missing])
        wanted = (spec["template"].get("metadata") or {}).get("labels") or {}
        available, wait = self.available(active, spec.get("minReadySeconds") or 0)
        counts = {
            "fullyLabeledReplicas": sum(wanted.items() <= pod["metadata"]["labels"].items() for pod in active),
            "readyReplicas": sum(ready_since(pod) is not None for pod in active),
            "availableReplicas": available,
        }
        status = {
            "replicas": len(active),
            **without_zeros(counts),
            "terminatingReplicas": sum(map(is_terminating, pods)),
            "observedGeneration": doc["metadata"]["generation"],
        }
        await self.write_status(doc, status)
        return None if wait is None else Result(requeue_after=wait)
