"""The stand-in for the controller of PodDisruptionBudgets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reconciler._core.wire import JSONObject
from reconciler._workloads import base
from reconciler.controller import Watch
from reconciler.errors import NotFound
from reconciler.meta.metadata import controller_of, selector_text


class DisruptionBudgets(base.WorkloadReconciler):
    """Writes the status of PodDisruptionBudgets.

    The wanted number of pods is ``spec.replicas`` of their controllers.
    """

    kind = "policy/v1/PodDisruptionBudget"
    owned_kinds = ()

    def watches(self) -> Sequence[Watch]:
        """Return the watch on pods."""
        return [Watch(base.POD, mapper=self.same_namespace)]

    async def sync(self, doc: JSONObject) -> float | None:
        """Count the pods, and write the status."""
        spec, metadata, before = doc["spec"], doc["metadata"], doc.get("status") or {}
        found = await self.client.list(
            base.POD, metadata["namespace"], label_selector=selector_text(spec.get("selector") or {})
        )
        pods = {pod.name: pod.to_dict() for pod in found if base.is_active(pod.to_dict())}
        evicted = {name: time for name, time in (before.get("disruptedPods") or {}).items() if name in pods}
        healthy = sum(base.ready_since(pod) is not None for name, pod in pods.items() if name not in evicted)
        expected, desired = await self._numbers(doc, list(pods.values()))
        allowed = max(0, healthy - desired) if expected else 0
        condition = {
            "type": "DisruptionAllowed",
            "status": str(allowed > 0),
            "reason": "SufficientPods" if allowed else "InsufficientPods",
            "message": "",
        }
        conditions = base.set_condition(before.get("conditions") or (), condition, self.now())
        status = {
            "observedGeneration": metadata["generation"],
            **({"disruptedPods": evicted} if evicted else {}),
            "disruptionsAllowed": allowed,
            "currentHealthy": healthy,
            "desiredHealthy": desired,
            "expectedPods": expected,
            "conditions": [{**each, "observedGeneration": metadata["generation"]} for each in conditions],
        }
        await self.write_status(doc, status)
        return None

    async def _numbers(self, doc: JSONObject, pods: Sequence[JSONObject]) -> tuple[int, int]:
        """Return how many pods there should be, and how many of them must be healthy."""
        least, most = doc["spec"].get("minAvailable"), doc["spec"].get("maxUnavailable")
        if isinstance(least, int):
            return len(pods), least
        controllers = {owner["uid"]: owner for owner in map(controller_of, pods) if owner is not None}
        expected = 0
        for owner in controllers.values():
            expected += await self._replicas(owner, doc["metadata"]["namespace"])
        if most is not None:
            return expected, max(0, expected - base.scaled(most, expected))
        return expected, base.scaled(least or 0, expected)

    async def _replicas(self, owner: Mapping[str, Any], namespace: str) -> int:
        try:
            found = await self.client.live.get(f"{owner['apiVersion']}/{owner['kind']}", owner["name"], namespace)
        except NotFound:
            return 0
        return int(found.to_dict().get("spec", {}).get("replicas") or 0)
