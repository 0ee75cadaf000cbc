"""Complete objects of built-in kinds as a whole: what the server allots, computes and admits."""

from __future__ import annotations

import zlib
from typing import Any

__all__ = [
    "admitted_pod_spec",
    "complete_autoscaler",
    "complete_controller",
    "complete_daemon_set",
    "complete_job",
    "complete_pod",
    "finish_node",
    "finish_pod",
    "finish_service",
]

_FAMILIES = {"ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"}
_PORTS = (30000, 2768)
"""The first node port and how many there are, as of ``--service-node-port-range``."""


def finish_service(doc: dict[str, Any], before: dict[str, Any] | None) -> None:
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
    """Fill in what a pod gets beside the defaults of its template: requests, and a status when it is new."""
    spec = dict(doc.get("spec") or {})
    spec.setdefault("enableServiceLinks", True)
    for key in ("containers", "initContainers"):
        if isinstance(spec.get(key), list):
            spec[key] = [_requesting(container) for container in spec[key]]
    if spec != doc.get("spec"):
        doc["spec"] = spec
    if before is None:
        doc["status"] = {"phase": "Pending", "qosClass": _quality(spec)}
    elif quality := (before.get("status") or {}).get("qosClass"):
        doc["status"] = {**(doc.get("status") or {}), "qosClass": quality}


def finish_pod(doc: dict[str, Any], before: dict[str, Any] | None) -> None:
    """Fill in what admission gives a pod: a priority when it is new, and patience with nodes that are away."""
    spec = admitted_pod_spec(doc.get("spec") or {}, None if before is None else before.get("spec") or {})
    if spec != doc.get("spec"):
        doc["spec"] = spec


def admitted_pod_spec(spec: dict[str, Any], before: dict[str, Any] | None) -> dict[str, Any]:
    """Return a pod's spec with what admission adds, given the stored one on an update."""
    given = {"priority": 0, "preemptionPolicy": "PreemptLowerPriority"}
    spec = {
        **{key: value for key in given if (value := (given if before is None else before).get(key)) is not None},
        **spec,
    }
    tolerations: list[Any] = list(spec.get("tolerations") or ())
    for key in _AWAY:
        if not any(
            each.get("key") in (key, None) and each.get("effect") in ("NoExecute", None) for each in tolerations
        ):
            tolerations.append({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300})
    return {**spec, "tolerations": tolerations}


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
    """Fill in what a job is silent of, and give a new one the labels by which its pods are found."""
    spec = _job_spec(doc.get("spec") or {})
    doc["spec"] = spec
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


def _job_spec(value: dict[str, Any]) -> dict[str, Any]:
    if "completions" not in value and "parallelism" not in value:
        value = {**value, "completions": 1, "parallelism": 1}
    defaults: dict[str, Any] = {
        "parallelism": 1,
        "completionMode": "NonIndexed",
        "suspend": False,
        "manualSelector": False,
    }
    if "backoffLimitPerIndex" not in value:
        defaults["backoffLimit"] = 6
    else:
        defaults |= {"backoffLimit": 2147483647}
    replacement = "Failed" if value.get("podFailurePolicy") else "TerminatingOrFailed"
    return {**defaults, "podReplacementPolicy": replacement, **value}


def complete_controller(doc: dict[str, Any], _before: dict[str, Any] | None) -> None:
    """Give a ReplicationController the labels of its pods where it has none, and a selector of them."""
    spec = doc.get("spec") or {}
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels")
    if labels and not doc["metadata"].get("labels"):
        doc["metadata"]["labels"] = labels
    if labels and not spec.get("selector"):
        doc["spec"] = {**spec, "selector": labels}


def complete_autoscaler(doc: dict[str, Any], _before: dict[str, Any] | None) -> None:
    """Fill in what the status of a HorizontalPodAutoscaler always shows."""
    doc["status"] = {"currentMetrics": None, "desiredReplicas": 0, **(doc.get("status") or {})}


_TEMPLATE_GENERATION = "deprecated.daemonset.template.generation"


def complete_daemon_set(doc: dict[str, Any], before: dict[str, Any] | None) -> None:
    """Count the changes of a DaemonSet's template where old clients look for them."""
    notes = doc["metadata"].get("annotations") or {}
    number = 1
    if before is not None:
        number = int((before["metadata"].get("annotations") or {}).get(_TEMPLATE_GENERATION, 1))
        if (before.get("spec") or {}).get("template") != (doc.get("spec") or {}).get("template"):
            number += 1
    if notes.get(_TEMPLATE_GENERATION) != str(number):
        doc["metadata"]["annotations"] = {**notes, _TEMPLATE_GENERATION: str(number)}


def finish_node(doc: dict[str, Any], before: dict[str, Any] | None) -> None:
    """Mark a new node as one that is not ready."""
    taint = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
    spec = doc.get("spec") or {}
    taints = spec.get("taints") or []
    if before is None and taint not in taints:
        doc["spec"] = {**spec, "taints": [*taints, taint]}
