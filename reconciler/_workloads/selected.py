"""The stand-ins that follow the pods of a selector: Endpoints and EndpointSlices, and PodDisruptionBudgets."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from reconciler._core.wire import JSONObject
from reconciler._workloads import base
from reconciler.controller import Watch
from reconciler.errors import NotFound
from reconciler.meta.metadata import controller_of, selector_text

_ENDPOINTS = "v1/Endpoints"
_SLICE = "discovery.k8s.io/v1/EndpointSlice"


class Endpoints(base.WorkloadReconciler):
    """Writes the Endpoints and one EndpointSlice of each Service with a selector.

    The Endpoints are owned by the Service, so that the garbage collector deletes them with it.
    """

    kind = "v1/Service"
    owned_kinds = (_SLICE, _ENDPOINTS)

    def watches(self) -> Sequence[Watch]:
        """Return the watch on pods."""
        return [Watch(base.POD, mapper=self.same_namespace)]

    async def sync(self, doc: JSONObject) -> float | None:
        """Write the addresses of the pods that the Service selects."""
        spec, metadata = doc["spec"], doc["metadata"]
        if not spec.get("selector"):
            return None
        found = await self.client.list(
            base.POD, metadata["namespace"], label_selector=selector_text({"matchLabels": spec["selector"]})
        )
        pods = [pod for pod in (each.to_dict() for each in found) if (pod.get("status") or {}).get("podIP")]
        active = sorted((pod for pod in pods if base.is_active(pod)), key=lambda pod: pod["metadata"]["name"])
        endpoints = [_endpoint(doc, pod) for pod in active]
        ports = _ports(spec, active)
        labels = {**(metadata.get("labels") or {}), "kubernetes.io/service-name": metadata["name"]}
        managed = {"endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"}
        headless = {"service.kubernetes.io/headless": ""} if spec.get("clusterIP") == "None" else {}
        await self._write(
            _SLICE,
            base.owned_metadata(
                doc, name=f"{metadata['name']}-{base.hash_of(metadata['uid'])[:5]}", labels=labels | managed | headless
            ),
            {"addressType": "IPv4", "endpoints": endpoints, "ports": ports},
        )
        await self._write(
            _ENDPOINTS,
            base.owned_metadata(
                doc,
                name=metadata["name"],
                labels={
                    **(metadata.get("labels") or {}),
                    "endpoints.kubernetes.io/managed-by": "endpoint-controller",
                    **headless,
                },
            ),
            {"subsets": _subsets(endpoints, ports)},
        )
        return None

    async def _write(self, kind: str, metadata: JSONObject, content: JSONObject) -> None:
        """Create an object, or update it unless its content and labels are as stored."""
        api_version, _, name = kind.rpartition("/")
        content = {key: value for key, value in content.items() if value}
        stored: JSONObject | None = None
        with contextlib.suppress(NotFound):
            stored = (await self.client.get(kind, metadata["name"], metadata["namespace"])).to_dict()
        if stored is None:
            await self.client.create({"apiVersion": api_version, "kind": name, "metadata": metadata, **content})
            return
        known = {key: stored.get(key) for key in ("addressType", "endpoints", "ports", "subsets") if stored.get(key)}
        if known != content or stored["metadata"].get("labels") != metadata["labels"]:
            kept = {**stored["metadata"], "labels": metadata["labels"]}
            await self.client.update({"apiVersion": api_version, "kind": name, "metadata": kept, **content})


def _endpoint(service: JSONObject, pod: JSONObject) -> JSONObject:
    """Return the endpoint of a pod, as in an EndpointSlice."""
    metadata, spec = pod["metadata"], pod["spec"]
    ready = base.ready_since(pod) is not None or bool(service["spec"].get("publishNotReadyAddresses"))
    named = spec.get("hostname") and spec.get("subdomain") == service["metadata"]["name"]
    return {
        "addresses": [pod["status"]["podIP"]],
        "conditions": {"ready": ready, "serving": ready, "terminating": False},
        **({"hostname": spec["hostname"]} if named else {}),
        "targetRef": {"kind": "Pod", **{key: metadata[key] for key in ("namespace", "name", "uid")}},
    }


def _subsets(endpoints: Sequence[JSONObject], ports: Sequence[JSONObject]) -> list[JSONObject]:
    """Return the same endpoints as in Endpoints."""
    if not endpoints:
        return []
    subset: JSONObject = {}
    for each in endpoints:
        member = "addresses" if each["conditions"]["ready"] else "notReadyAddresses"
        named = {"hostname": each["hostname"]} if "hostname" in each else {}
        subset.setdefault(member, []).append({"ip": each["addresses"][0], **named, "targetRef": each["targetRef"]})
    if ports:
        subset["ports"] = [{key: value for key, value in port.items() if value != ""} for port in ports]
    return [subset]


def _ports(spec: Mapping[str, Any], pods: Sequence[JSONObject]) -> list[JSONObject]:
    """Return the ports of the endpoints; the number of a named one is that of the first pod that has it."""
    found = []
    for port in spec.get("ports") or ():
        target = port.get("targetPort") or port["port"]
        if isinstance(target, str):
            containers = [container for pod in pods for container in pod["spec"]["containers"]]
            numbers = [each for container in containers for each in container.get("ports") or ()]
            target = next((each["containerPort"] for each in numbers if each.get("name") == target), None)
        if target is not None:
            found.append({"name": port.get("name", ""), "port": target, "protocol": port.get("protocol", "TCP")})
    return found


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
