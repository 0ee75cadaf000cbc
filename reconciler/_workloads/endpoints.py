"""The stand-in for the controllers of Endpoints and EndpointSlices."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from reconciler._core.wire import JSONObject
from reconciler._workloads import base
from reconciler.controller import Watch
from reconciler.errors import NotFound
from reconciler.meta.metadata import selector_text

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
