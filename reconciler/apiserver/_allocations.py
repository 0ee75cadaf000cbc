"""Complete objects of built-in kinds as a whole: what the server allots, computes and admits."""

from __future__ import annotations

import zlib
from typing import Any

__all__ = ["complete_job", "complete_pod", "complete_service"]

_FAMILIES = {"ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"}
_PORTS = (30000, 2768)
"""The first node port and how many there are, as of ``--service-node-port-range``."""


def complete_service(doc: dict[str, Any], before: dict[str, Any] | None) -> None:
    """Allot addresses and node ports; an update keeps what it does not name.

    They follow from the object's uid, so that a run repeats itself.
    """
    spec = dict(doc.get("spec") or {})
    if spec.get("type") == "ExternalName":
        return
    known = (before or {}).get("spec") or {}
    number = zlib.crc32(str(doc["metadata"].get("uid", "")).encode())
    if not spec.get("clusterIP"):
        address = known.get("clusterIP") or f"10.{96 + (number >> 16) % 16}.{(number >> 8) % 256}.{number % 254 + 1}"
        spec["clusterIP"] = address
    if not spec.get("clusterIPs"):
        spec["clusterIPs"] = known.get("clusterIPs") or [spec["clusterIP"]]
    for key, value in _FAMILIES.items():
        spec.setdefault(key, known.get(key) or value)
    if spec.get("type") in ("NodePort", "LoadBalancer") and isinstance(spec.get("ports"), list):
        spec["ports"] = [_on_node(port, known, number + index) for index, port in enumerate(spec["ports"])]
    if spec != doc.get("spec"):
        doc["spec"] = spec


def _on_node(port: dict[str, Any], known: dict[str, Any], number: int) -> dict[str, Any]:
    if port.get("nodePort"):
        return port
    same = [old for old in known.get("ports") or () if old.get("port") == port.get("port") and old.get("nodePort")]
    first, count = _PORTS
    return {**port, "nodePort": same[0]["nodePort"] if same else first + number % count}


_AWAY = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


def complete_pod(doc: dict[str, Any], before: dict[str, Any] | None) -> None:
    """Fill in what a new pod gets beside the defaults of its template: requests, priority, tolerations, status."""
    if before is not None:
        quality = (before.get("status") or {}).get("qosClass")
        if quality:
            doc["status"] = {**(doc.get("status") or {}), "qosClass": quality}
        return
    spec = dict(doc.get("spec") or {})
    spec.setdefault("enableServiceLinks", True)
    spec.setdefault("priority", 0)
    spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
    tolerations = list(spec.get("tolerations") or ())
    for key in _AWAY:
        if not any(
            each.get("key") in (key, None) and each.get("effect") in ("NoExecute", None) for each in tolerations
        ):
            tolerations.append({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300})
    spec["tolerations"] = tolerations
    for key in ("containers", "initContainers"):
        if isinstance(spec.get(key), list):
            spec[key] = [_requesting(container) for container in spec[key]]
    doc["spec"] = spec
    doc["status"] = {"phase": "Pending", "qosClass": _quality(spec)}


def _requesting(container: dict[str, Any]) -> dict[str, Any]:
    """Let a container request what it is limited to, where it says nothing else."""
    resources = container.get("resources") or {}
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    if limits.keys() <= requests.keys():
        return container
    return {**container, "resources": {**resources, "requests": {**limits, **requests}}}


def _quality(spec: dict[str, Any]) -> str:
    """Return the class by which a node serves a pod, from what its containers request."""
    containers = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    parts = [container.get("resources") or {} for container in containers]
    requests, limits = ([part.get(key) or {} for part in parts] for key in ("requests", "limits"))
    if not any(requests) and not any(limits):
        return "BestEffort"
    guaranteed = all(
        {"cpu", "memory"} <= most.keys() and all(most.get(key, asked) == asked for key, asked in least.items())
        for least, most in zip(requests, limits, strict=True)
    )
    return "Guaranteed" if guaranteed else "Burstable"


def complete_job(doc: dict[str, Any], before: dict[str, Any] | None) -> None:
    """Give a new job the labels by which its pods are found."""
    spec = doc.get("spec") or {}
    if before is not None or spec.get("manualSelector"):
        return
    uid, name = doc["metadata"].get("uid", ""), doc["metadata"].get("name", "")
    found = {"batch.kubernetes.io/controller-uid": uid}
    labels = {
        "batch.kubernetes.io/controller-uid": uid,
        "batch.kubernetes.io/job-name": name,
        "controller-uid": uid,
        "job-name": name,
    }
    template = spec.get("template") or {}
    metadata = template.get("metadata") or {}
    metadata = {**metadata, "labels": {**(metadata.get("labels") or {}), **labels}}
    doc["spec"] = {**spec, "selector": {"matchLabels": found}, "template": {**template, "metadata": metadata}}
