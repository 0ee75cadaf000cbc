"""The strategies of the built-in kinds: how the server completes, validates and finishes their objects.

Most rules are in ``rules.txt``; here are those of match conditions and of updates, and the values that the server sets:
allocated, computed, or added by admission.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from reconciler._core.wire import JSONObject
from reconciler.apiserver.builtin.checks import difference, without_empty
from reconciler.apiserver.builtin.kinds import type_name
from reconciler.apiserver.builtin.rule_table import violations
from reconciler.apiserver.encoding.json_documents import value_at
from reconciler.apiserver.encoding.refusals import FieldError, Findings
from reconciler.apiserver.encoding.text import quoted, recorded

Change = Callable[[JSONObject, JSONObject | None], None]

_IP_FAMILIES = {"ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"}
_ANY_FAMILIES = {"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack"}
"""Those of a headless Service without a selector, whose endpoints may be of any family."""
_NODE_PORTS = (30000, 2768)
"""The first node port and the number of node ports, as in the default of ``--service-node-port-range``."""
_OF_TYPES = {
    **dict.fromkeys(("clusterIP", "clusterIPs", *_IP_FAMILIES), ("ClusterIP", "NodePort", "LoadBalancer")),
    **dict.fromkeys(("externalTrafficPolicy", "nodePort"), ("NodePort", "LoadBalancer")),
    **dict.fromkeys(("allocateLoadBalancerNodePorts", "healthCheckNodePort", "loadBalancerClass"), ("LoadBalancer",)),
}
"""The types of Services that have a field."""
_UNAVAILABLE = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
_TEMPLATE_GENERATION = "deprecated.daemonset.template.generation"


def _finish_service(doc: JSONObject, before: JSONObject | None) -> None:
    """Allocate cluster IPs and node ports; an update keeps those that it does not set.

    They are computed from the object's uid, so that a test run can be repeated.
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
    anywhere = spec["clusterIP"] == "None" and not spec.get("selector")
    for key, value in (_ANY_FAMILIES if anywhere else _IP_FAMILIES).items():
        spec.setdefault(key, known.get(key) or value)
    allocates = spec.get("type") == "NodePort" or (
        spec.get("type") == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is not False
    )
    if allocates and isinstance(spec.get("ports"), list):
        spec["ports"] = [_with_node_port(port, known, number + index) for index, port in enumerate(spec["ports"])]
    if spec != doc.get("spec"):
        doc["spec"] = spec


def _complete_service(doc: JSONObject, before: JSONObject | None) -> None:
    """Remove the fields that a Service of a new type does not have, unless they changed, too, and its addresses."""
    spec, known = doc.get("spec") or {}, (before or {}).get("spec") or {}
    if not known or spec.get("type") == known.get("type"):
        return
    foreign = {key for key, types in _OF_TYPES.items() if spec.get("type") not in types}
    spec = {key: value for key, value in spec.items() if key not in foreign or value != known.get(key)}
    if "nodePort" in foreign and spec.get("ports") == known.get("ports") and spec.get("ports"):
        spec["ports"] = [{key: value for key, value in port.items() if key != "nodePort"} for port in spec["ports"]]
    doc["spec"] = spec
    if spec.get("type") != "LoadBalancer" and doc.get("status"):
        doc["status"] = {**doc["status"], "loadBalancer": {}}


def _with_node_port(port: JSONObject, known: JSONObject, number: int) -> JSONObject:
    if port.get("nodePort"):
        return port
    same = [old for old in known.get("ports") or () if old.get("port") == port.get("port") and old.get("nodePort")]
    first, count = _NODE_PORTS
    return {**port, "nodePort": same[0]["nodePort"] if same else first + number % count}


def _complete_pod(doc: JSONObject, before: JSONObject | None) -> None:
    """Set resource requests, and the status of a new pod; the defaults of a pod spec are set elsewhere."""
    spec = dict(doc.get("spec") or {})
    spec.setdefault("enableServiceLinks", True)
    for key in ("containers", "initContainers"):
        if isinstance(spec.get(key), list):
            spec[key] = [_with_requests(container) for container in spec[key]]
    if spec != doc.get("spec"):
        doc["spec"] = spec
    if before is None:
        since = {"lastTransitionTime": doc["metadata"].get("creationTimestamp")}
        condition = recorded("texts.json")["gated"] | since
        gated = {"conditions": [condition]} if spec.get("schedulingGates") else {}
        doc["status"] = {"phase": "Pending", **gated, "qosClass": qos_class(spec)}
    elif quality := (before.get("status") or {}).get("qosClass"):
        doc["status"] = {"qosClass": quality, **(doc.get("status") or {})}


def _finish_pod(doc: JSONObject, before: JSONObject | None) -> None:
    """Set what admission adds to a pod, except for the priority of a new one: that is its class's."""
    spec = admitted_pod_spec(doc.get("spec") or {}, (before or {}).get("spec") or {})
    if spec != doc.get("spec"):
        doc["spec"] = spec


def admitted_pod_spec(spec: JSONObject, before: JSONObject) -> JSONObject:
    """Return a pod's spec with the stored priority, and with tolerations for unavailable nodes."""
    kept = {key: before[key] for key in ("priority", "preemptionPolicy") if before.get(key) is not None}
    spec = {**kept, **spec}
    tolerations: list[Any] = list(spec.get("tolerations") or ())
    for key in _UNAVAILABLE:
        if not any(
            each.get("key") in (key, None) and each.get("effect") in ("NoExecute", None) for each in tolerations
        ):
            tolerations.append({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300})
    return {**spec, "tolerations": tolerations}


def _with_requests(container: JSONObject) -> JSONObject:
    """Return a container whose missing resource requests are equal to its limits."""
    resources = container.get("resources") or {}
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    if limits.keys() <= requests.keys():
        return container
    return {**container, "resources": {**resources, "requests": {**limits, **requests}}}


def qos_class(spec: JSONObject) -> str:
    """Return the quality-of-service class of a pod, computed from the resources of its containers."""
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


def _finish_job(doc: JSONObject, before: JSONObject | None) -> None:
    """Set the selector and the pod labels of a new Job."""
    spec = doc.get("spec") or {}
    if before is None and not spec.get("manualSelector"):
        uid, name = doc["metadata"].get("uid", ""), doc["metadata"].get("name", "")
        prefix = "batch.kubernetes.io/"
        labels = {f"{prefix}controller-uid": uid, f"{prefix}job-name": name, "controller-uid": uid, "job-name": name}
        template = spec.get("template") or {}
        metadata = template.get("metadata") or {}
        metadata = {**metadata, "labels": {**(metadata.get("labels") or {}), **labels}}
        selector = spec.get("selector") or {}
        found = {**(selector.get("matchLabels") or {}), f"{prefix}controller-uid": uid}
        selector = {**selector, "matchLabels": found}
        doc["spec"] = {**spec, "selector": selector, "template": {**template, "metadata": metadata}}
    _copy_pod_labels(doc, before)


def _copy_pod_labels(doc: JSONObject, _before: JSONObject | None) -> None:
    labels = value_at(doc, "spec.template.metadata.labels")
    if labels and not doc["metadata"].get("labels"):
        doc["metadata"]["labels"] = labels


def _complete_controller(doc: JSONObject, before: JSONObject | None) -> None:
    """Copy the pod labels of a ReplicationController to its missing labels and selector."""
    spec = doc.get("spec") or {}
    labels = value_at(doc, "spec.template.metadata.labels")
    _copy_pod_labels(doc, before)
    if labels and not spec.get("selector"):
        doc["spec"] = {**spec, "selector": labels}


def _complete_autoscaler(doc: JSONObject, _before: JSONObject | None) -> None:
    doc["status"] = {"currentMetrics": None, "desiredReplicas": 0, **(doc.get("status") or {})}


def _complete_daemon_set(doc: JSONObject, before: JSONObject | None) -> None:
    """Count the changes of a DaemonSet's template in the annotation that old clients read."""
    notes = doc["metadata"].get("annotations") or {}
    number = 1
    if before is not None:
        number = int((before["metadata"].get("annotations") or {}).get(_TEMPLATE_GENERATION, 1))
        if (before.get("spec") or {}).get("template") != (doc.get("spec") or {}).get("template"):
            number += 1
    if notes.get(_TEMPLATE_GENERATION) != str(number):
        doc["metadata"]["annotations"] = {**notes, _TEMPLATE_GENERATION: str(number)}


def _finish_node(doc: JSONObject, before: JSONObject | None) -> None:
    taint = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
    spec = doc.get("spec") or {}
    taints = spec.get("taints") or []
    if before is None and taint not in taints:
        doc["spec"] = {**spec, "taints": [*taints, taint]}


def _complete_namespace(doc: JSONObject, before: JSONObject | None) -> None:
    metadata = doc["metadata"]
    metadata["labels"] = {**(metadata.get("labels") or {}), "kubernetes.io/metadata.name": metadata.get("name", "")}
    doc["spec"] = {"finalizers": ["kubernetes"]} if before is None else before.get("spec", {})
    if before is None:
        doc["status"] = {"phase": "Active"}


def _complete_secret(doc: JSONObject, _before: JSONObject | None) -> None:
    """Set the type of a Secret and move ``stringData`` to ``data``."""
    doc["type"] = doc.get("type") or "Opaque"
    if texts := doc.pop("stringData", None):
        data = {key: base64.b64encode(str(value).encode()).decode() for key, value in texts.items()}
        doc["data"] = {**(doc.get("data") or {}), **data}


def _complete_storage(doc: JSONObject, before: JSONObject | None) -> None:
    if before is None:
        since = {"lastPhaseTransitionTime": doc["metadata"].get("creationTimestamp")}
        doc["status"] = {"phase": "Pending", **(since if doc["kind"] == "PersistentVolume" else {})}


def _complete_api_service(doc: JSONObject, before: JSONObject | None) -> None:
    """Set the default port of a service; the API server's own groups are available at once."""
    spec = doc.get("spec") or {}
    if spec.get("service"):
        doc["spec"] = {**spec, "service": {"port": 443, **spec["service"]}}
    elif before is None:
        since = {"lastTransitionTime": doc["metadata"]["creationTimestamp"]}
        doc["status"] = {"conditions": [since | recorded("texts.json")["local"]]}


def _shown(**members: str | None) -> Change:
    """Return the function that adds members which an object always has, if only with empty values."""
    return lambda doc, _before: doc.update({**members, **doc})


_LISTS = ("containers", "initContainers")
_LONGEST_DEADLINE = 2**31 - 1


def _check_pod_update(doc: JSONObject, stored: JSONObject) -> Findings:
    """Yield the errors of an update of a Pod's spec."""
    before = stored.get("spec") or {}
    spec = doc.get("spec") or {}
    if spec == before:
        return
    spec = admitted_pod_spec(spec, before)
    for key in _LISTS:
        if len(spec.get(key) or []) != len(before.get(key) or []):
            yield FieldError.forbidden(f"spec.{key}", "pod updates may not add or remove containers")
            return
    if spec.get("activeDeadlineSeconds", 0) > before.get("activeDeadlineSeconds", _LONGEST_DEADLINE):
        return
    yield from _check_tolerations(spec.get("tolerations") or [], before.get("tolerations") or [])
    yield from _check_gates(spec.get("schedulingGates") or [], before.get("schedulingGates") or [])
    kept = _without_allowed_changes(spec, before)
    if without_empty(kept) != without_empty(before):
        yield FieldError.forbidden("spec", recorded("texts.json")["pod update"] + difference(before, kept))


def _check_ephemeral_containers(doc: JSONObject, before: JSONObject | None) -> Findings:
    """Yield the errors of an update of the ephemeral containers of a Pod."""
    stored = before or doc
    yield from violations("core.v1.Pod", doc, stored)
    path = "spec.ephemeralContainers"
    kept = {each.get("name"): each for each in doc["spec"].get("ephemeralContainers") or ()}
    for old in stored["spec"].get("ephemeralContainers") or ():
        shown = f"existing ephemeral containers {quoted(old.get('name'))} may not be"
        if old.get("name") not in kept:
            yield FieldError.forbidden(path, f"{shown} removed\n")
        elif without_empty(kept[old.get("name")]) != without_empty(old):
            yield FieldError.forbidden(path, f"{shown} changed\n{difference(old, kept[old.get('name')])}")


def _check_tolerations(tolerations: list[JSONObject], before: list[JSONObject]) -> Findings:
    kept = [_without_seconds(each) for each in tolerations]
    if any(_without_seconds(old) not in kept for old in before):
        message = "existing toleration can not be modified except its tolerationSeconds"
        yield FieldError.forbidden("spec.tolerations", message)


def _without_seconds(toleration: JSONObject) -> JSONObject:
    return {key: value for key, value in toleration.items() if key != "tolerationSeconds"}


def _check_gates(gates: list[JSONObject], before: list[JSONObject]) -> Findings:
    known = {gate.get("name") for gate in before}
    for index, gate in enumerate(gates):
        if gate.get("name") not in known:
            message = f"only deletion is allowed, but found new scheduling gate '{gate.get('name')}'"
            yield FieldError.forbidden(f"spec.schedulingGates[{index}].name", message)


def _without_allowed_changes(spec: JSONObject, before: JSONObject) -> JSONObject:
    """Return a spec with the old values in the fields that an update may change."""
    kept = dict(spec)
    for key in _LISTS:
        if spec.get(key):
            pairs = zip(spec[key], before[key], strict=True)
            kept[key] = [{**container, "image": old.get("image")} for container, old in pairs]
    mutable = ["activeDeadlineSeconds", "schedulingGates", "tolerations"]
    if (before.get("terminationGracePeriodSeconds") or 0) < 0 and spec.get("terminationGracePeriodSeconds") == 1:
        mutable.append("terminationGracePeriodSeconds")
    if before.get("schedulingGates"):
        # The node selection of a gated Pod may still be narrowed; that it is narrower is not checked.
        mutable += ["affinity", "nodeSelector"]
    for key in mutable:
        kept[key] = before.get(key)
    return kept


def _errors(doc: JSONObject, before: JSONObject | None) -> list[FieldError]:
    group, _, version = doc["apiVersion"].rpartition("/")
    name = type_name(group, version, doc["kind"]) or ""
    if name == "batch.v1.Job":
        # The selector and the labels that nobody owns are set later, and are valid only together with what was sent.
        doc = {**doc, "metadata": dict(doc["metadata"])}
        _finish_job(doc, before)
    errors = violations(name, doc, before)
    if name == "core.v1.Pod" and before is not None:
        errors += _check_pod_update(doc, before)
    return errors


def _no_change(_doc: JSONObject, _before: JSONObject | None) -> None:
    """Change nothing."""


@dataclass(frozen=True, slots=True)
class Strategy:
    """The special treatment of a kind. Each function gets a document and, on an update, the stored one.

    Attributes:
        complete: completes a document in place. It may replace members, but not change them.
        check: returns the errors of a document.
        warn: returns the warnings for a document that is accepted.
        finish: sets the fields that nobody owns, in place, after field ownership was recorded. It may replace members,
            but not change them.
        admit: sets those of the fields that webhooks see on a new object, as admission has added them.
    """

    complete: Change = _no_change
    check: Callable[[JSONObject, JSONObject | None], Iterable[FieldError]] = _errors
    warn: Callable[[JSONObject], list[str]] = lambda _doc: []
    finish: Change = _no_change
    admit: Change = _no_change


_UNDATED = dict.fromkeys(("eventTime", "firstTimestamp", "lastTimestamp"))
_OTHERS = Strategy()
_STRATEGIES = {
    ("", "events", ""): Strategy(finish=_shown(**_UNDATED, reportingComponent="", reportingInstance="")),
    ("", "namespaces", ""): Strategy(_complete_namespace),
    ("", "namespaces", "finalize"): Strategy(check=lambda _doc, _before: ()),
    ("", "nodes", ""): Strategy(finish=_finish_node, admit=_finish_node),
    ("", "persistentvolumeclaims", ""): Strategy(_complete_storage),
    ("", "persistentvolumes", ""): Strategy(_complete_storage),
    ("", "pods", ""): Strategy(_complete_pod, finish=_finish_pod, admit=_finish_pod),
    ("", "pods", "ephemeralcontainers"): Strategy(_complete_pod, _check_ephemeral_containers),
    ("", "replicationcontrollers", ""): Strategy(_complete_controller),
    ("", "secrets", ""): Strategy(_complete_secret),
    ("", "services", ""): Strategy(_complete_service, finish=_finish_service),
    ("apiregistration.k8s.io", "apiservices", ""): Strategy(_complete_api_service),
    ("apps", "daemonsets", ""): Strategy(_complete_daemon_set),
    ("autoscaling", "horizontalpodautoscalers", ""): Strategy(_complete_autoscaler),
    ("batch", "jobs", ""): Strategy(_copy_pod_labels, finish=_finish_job),
    ("events.k8s.io", "events", ""): Strategy(
        finish=_shown(eventTime=None, deprecatedFirstTimestamp=None, deprecatedLastTimestamp=None)
    ),
    ("rbac.authorization.k8s.io", "clusterroles", ""): Strategy(finish=_shown(rules=None)),
    ("rbac.authorization.k8s.io", "roles", ""): Strategy(finish=_shown(rules=None)),
}


def strategy_of(group: str, plural: str, subresource: str) -> Strategy:
    """Return the strategy of a kind, or of a subresource that has one of its own."""
    return _STRATEGIES.get((group, plural, subresource)) or _STRATEGIES.get((group, plural, ""), _OTHERS)
