"""The table columns of built-in kinds, as ``kubectl get`` shows them.

Their definitions are recorded from a real API server.
"""

from __future__ import annotations

import functools
from importlib import resources
from typing import NamedTuple

import msgspec

from reconciler.apiserver.builtin import cells, pod_cells
from reconciler.apiserver.builtin.cells import NONE, UNKNOWN, UNSET, Cell, value_at
from reconciler.wire import JSONObject

__all__ = ["Column", "built_in_columns"]


class Column(NamedTuple):
    """A column: its definition in a Table, and its cell function."""

    definition: JSONObject
    cell: Cell


def _cell(form: str | Cell) -> Cell:
    """Return the cell function for a short form.

    It is a path, which may be followed by ``|`` and the default; several paths to counted lists or maps after ``#``; or
    the numbers at two paths with ``/`` between them.
    """
    if not isinstance(form, str):
        return form
    if form.startswith("#"):
        paths = form[1:].split()
        return lambda doc, _now: sum(len(value_at(doc, path, ())) for path in paths)
    left, slash, right = form.partition("/")
    if slash:
        return lambda doc, _now: f"{value_at(doc, left, 0)}/{value_at(doc, right, 0)}"
    path, _, text = form.partition("|")
    default = {"0": 0, "false": False, "true": True}.get(text, text)
    return lambda doc, _now: default if (found := value_at(doc, path)) in (None, "") else found


_AGE = cells.age("metadata.creationTimestamp")
_TEMPLATE = "spec.template.spec"
_COMMON: dict[str, str | Cell] = {
    "Name": "metadata.name",
    "Age": _AGE,
    "Created At": "metadata.creationTimestamp",
    "Containers": cells.containers(_TEMPLATE, "name"),
    "Images": cells.containers(_TEMPLATE, "image"),
    "Selector": cells.selector("spec.selector"),
    "Desired": "spec.replicas|0",
    "Current": "status.replicas|0",
    "Ready": "status.readyReplicas|0",
}
"""The columns that are the same in all kinds that do not say otherwise."""


def _listed(path: str, default: str = "") -> Cell:
    return lambda doc, _now: cells.joined(value_at(doc, path, ()), default)


def _flag(path: str) -> Cell:
    return lambda doc, _now: str(bool(value_at(doc, path)))


def _first(path: str, key: str) -> Cell:
    return lambda doc, _now: next((str(each.get(key)) for each in value_at(doc, path, ())), NONE)


def _modes(path: str) -> Cell:
    short = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}
    return lambda doc, _now: cells.joined((mode for name, mode in short.items() if name in value_at(doc, path, ())), "")


def _default(annotation: str) -> Cell:
    """Return the cell with a name, and whether it is that of the default."""

    def cell(doc: JSONObject, _now: object) -> str:
        default = (value_at(doc, "metadata.annotations") or {}).get(annotation) == "true"
        return f"{value_at(doc, 'metadata.name')}{' (default)' if default else ''}"

    return cell


def _ports(doc: JSONObject, _now: object) -> str:
    ports = (port.get("port", port.get("name") or "*") for port in doc.get("ports") or ())
    return cells.shortened(list(ports)) if doc.get("ports") else UNSET


def _slice_addresses(doc: JSONObject, _now: object) -> str:
    addresses = [each for endpoint in doc.get("endpoints") or () for each in endpoint.get("addresses") or ()]
    return cells.shortened(addresses) if addresses else UNSET


def _hosts(doc: JSONObject, _now: object) -> str:
    hosts = [rule["host"] for rule in value_at(doc, "spec.rules", ()) if rule.get("host")]
    return cells.shortened(hosts) if hosts else "*"


def _load_balancer(doc: JSONObject, _now: object) -> str:
    given = value_at(doc, "status.loadBalancer.ingress", ())
    return cells.joined(sorted({each.get("ip") or each.get("hostname") or "" for each in given}), "")


def _phase(doc: JSONObject, _now: object) -> str:
    return "Terminating" if value_at(doc, "metadata.deletionTimestamp") else str(value_at(doc, "status.phase", ""))


def _claim_capacity(doc: JSONObject, _now: object) -> str:
    return str(value_at(doc, "status.capacity.storage", 0)) if value_at(doc, "spec.volumeName") else ""


def _claim_state(doc: JSONObject, _now: object) -> str:
    dying, allocated = value_at(doc, "metadata.deletionTimestamp"), value_at(doc, "status.allocation")
    states = ["deleted"] if dying else [] if allocated else ["pending"]
    if allocated:
        states += ["allocated", *(["reserved"] if value_at(doc, "status.reservedFor") else [])]
    return cells.joined(states, "")


def _controller(doc: JSONObject, _now: object) -> str:
    for owner in value_at(doc, "metadata.ownerReferences", ()):
        if owner.get("controller"):
            group = str(owner.get("apiVersion", "")).rpartition("/")[0]
            return f"{owner['kind'].lower()}{'.' if group else ''}{group}/{owner['name']}"
    return NONE


def _parent(doc: JSONObject, _now: object) -> str:
    parent = value_at(doc, "spec.parentRef", {})
    resource = ".".join(parent[key] for key in ("resource", "group") if parent.get(key)).lower()
    parts = (resource, parent.get("namespace"), parent.get("name"))
    return "/".join(part for part in parts if part) or NONE


def _parameters(doc: JSONObject, _now: object) -> str:
    found = value_at(doc, "spec.parameters", {})
    group = f".{found['apiGroup']}" if found.get("apiGroup") else ""
    return f"{found.get('kind')}{group}/{found.get('name')}" if found else NONE


def _audiences(doc: JSONObject, _now: object) -> str:
    found = value_at(doc, "spec.tokenRequests")
    return UNSET if found is None else cells.joined((each.get("audience", "") for each in found), "")


_ADMISSION = "admissionregistration.k8s.io"
_WEBHOOKS: dict[str, str | Cell] = {"Webhooks": "#webhooks"}
_PARAM_KIND = cells.named("spec.paramKind", "apiVersion", "kind", default=UNSET)
_BINDING: dict[str, str | Cell] = {"PolicyName": "spec.policyName", "ParamRef": cells.param_ref}
_ROLE_BINDING: dict[str, str | Cell] = {
    "Role": cells.named("roleRef", "kind", "name"),
    "Users": cells.subjects("User"),
    "Groups": cells.subjects("Group"),
    "ServiceAccounts": cells.subjects("ServiceAccount"),
}
_EVENT: dict[str, str | Cell] = {
    "Last Seen": cells.event_age("series.lastObservedTime", "lastTimestamp", "eventTime"),
    "Type": "type",
    "Reason": "reason",
    "Object": cells.event_object,
    "Subobject": "involvedObject.fieldPath",
    "Source": cells.event_source,
    "Message": lambda doc, _now: str(doc.get("message") or "").strip(),
    "First Seen": cells.event_age("firstTimestamp", "eventTime"),
    "Count": lambda doc, _now: str(value_at(doc, "series.count") or doc.get("count") or 1),
}
_CELLS: dict[str, dict[str, str | Cell]] = {
    "/configmaps": {"Data": "#data binaryData"},
    "/endpoints": {"Endpoints": cells.endpoints},
    "/events": _EVENT,
    "/namespaces": {"Status": "status.phase"},
    "/nodes": {
        "Status": cells.node_status,
        "Roles": cells.node_roles,
        "Version": "status.nodeInfo.kubeletVersion",
        "Internal-IP": cells.node_address("InternalIP"),
        "External-IP": cells.node_address("ExternalIP"),
        "OS-Image": f"status.nodeInfo.osImage|{UNKNOWN}",
        "Kernel-Version": cells.node_kernel,
        "Container-Runtime": f"status.nodeInfo.containerRuntimeVersion|{UNKNOWN}",
    },
    "/persistentvolumeclaims": {
        "Status": _phase,
        "Volume": "spec.volumeName",
        "Capacity": _claim_capacity,
        "Access Modes": _modes("status.accessModes"),
        "StorageClass": "spec.storageClassName",
        "VolumeAttributesClass": f"spec.volumeAttributesClassName|{UNSET}",
        "VolumeMode": f"spec.volumeMode|{UNSET}",
    },
    "/persistentvolumes": {
        "Capacity": "spec.capacity.storage",
        "Access Modes": _modes("spec.accessModes"),
        "Reclaim Policy": "spec.persistentVolumeReclaimPolicy",
        "Status": _phase,
        "Claim": cells.named("spec.claimRef", "namespace", "name", default=""),
        "StorageClass": "spec.storageClassName",
        "VolumeAttributesClass": f"spec.volumeAttributesClassName|{UNSET}",
        "Reason": "status.reason",
        "VolumeMode": f"spec.volumeMode|{UNSET}",
    },
    "/pods": {
        "Ready": pod_cells.pod_ready,
        "Status": pod_cells.pod_status,
        "Restarts": pod_cells.pod_restarts,
        "IP": _first("status.podIPs", "ip"),
        "Node": f"spec.nodeName|{NONE}",
        "Nominated Node": f"status.nominatedNodeName|{NONE}",
        "Readiness Gates": pod_cells.readiness_gates,
    },
    "/podtemplates": {
        "Containers": cells.containers("template.spec", "name"),
        "Images": cells.containers("template.spec", "image"),
        "Pod Labels": cells.selector("template.metadata.labels"),
    },
    "/resourcequotas": {"Request": cells.amounts(limits=False), "Limit": cells.amounts(limits=True)},
    "/secrets": {"Type": "type", "Data": "#data"},
    "/services": {
        "Type": "spec.type",
        "Cluster-IP": f"spec.clusterIP|{NONE}",
        "External-IP": cells.external_addresses,
        "Port(s)": cells.service_ports,
    },
    f"{_ADMISSION}/mutatingadmissionpolicies": {"Mutations": "#spec.mutations", "ParamKind": _PARAM_KIND},
    f"{_ADMISSION}/mutatingadmissionpolicybindings": _BINDING,
    f"{_ADMISSION}/mutatingwebhookconfigurations": _WEBHOOKS,
    f"{_ADMISSION}/validatingadmissionpolicies": {"Validations": "#spec.validations", "ParamKind": _PARAM_KIND},
    f"{_ADMISSION}/validatingadmissionpolicybindings": _BINDING,
    f"{_ADMISSION}/validatingwebhookconfigurations": _WEBHOOKS,
    "apiregistration.k8s.io/apiservices": {
        "Service": cells.named("spec.service", "namespace", "name", default="Local"),
        "Available": cells.state("status.conditions", "Available", default="Unknown", reason=True),
    },
    "apps/controllerrevisions": {"Controller": _controller, "Revision": "revision|0"},
    "apps/daemonsets": {
        "Desired": "status.desiredNumberScheduled|0",
        "Current": "status.currentNumberScheduled|0",
        "Ready": "status.numberReady|0",
        "Up-to-date": "status.updatedNumberScheduled|0",
        "Available": "status.numberAvailable|0",
        "Node Selector": cells.selector("spec.template.spec.nodeSelector"),
    },
    "apps/deployments": {
        "Ready": "status.readyReplicas/spec.replicas",
        "Up-to-date": "status.updatedReplicas|0",
        "Available": "status.availableReplicas|0",
    },
    "apps/statefulsets": {"Ready": "status.readyReplicas/spec.replicas"},
    "autoscaling/horizontalpodautoscalers": {
        "Reference": cells.named("spec.scaleTargetRef", "kind", "name"),
        "Targets": cells.hpa_targets,
        "MinPods": lambda doc, _now: str(value_at(doc, "spec.minReplicas", UNSET)),
        "MaxPods": "spec.maxReplicas|0",
        "Replicas": "status.currentReplicas|0",
    },
    "autoscaling/scale": {"Desired": "spec.replicas|0", "Available": "status.replicas|0"},
    "batch/cronjobs": {
        "Schedule": "spec.schedule",
        "Timezone": f"spec.timeZone|{NONE}",
        "Suspend": _flag("spec.suspend"),
        "Active": "#status.active",
        "Last Schedule": cells.age("status.lastScheduleTime", NONE),
        "Containers": cells.containers(f"spec.jobTemplate.{_TEMPLATE}", "name"),
        "Images": cells.containers(f"spec.jobTemplate.{_TEMPLATE}", "image"),
        "Selector": cells.selector("spec.jobTemplate.spec.selector"),
    },
    "batch/jobs": {
        "Status": cells.job_status,
        "Completions": cells.job_completions,
        "Duration": cells.job_duration,
    },
    "certificates.k8s.io/certificatesigningrequests": {
        "SignerName": f"spec.signerName|{NONE}",
        "Requestor": "spec.username",
        "RequestedDuration": cells.seconds("spec.expirationSeconds"),
        "Condition": cells.csr_state,
    },
    "coordination.k8s.io/leases": {"Holder": "spec.holderIdentity"},
    "discovery.k8s.io/endpointslices": {"AddressType": "addressType", "Ports": _ports, "Endpoints": _slice_addresses},
    "events.k8s.io/events": _EVENT,
    "flowcontrol.apiserver.k8s.io/flowschemas": {
        "PriorityLevel": "spec.priorityLevelConfiguration.name",
        "MatchingPrecedence": "spec.matchingPrecedence|0",
        "DistinguisherMethod": f"spec.distinguisherMethod.type|{NONE}",
        "MissingPL": cells.state("status.conditions", "Dangling", default="?"),
    },
    "flowcontrol.apiserver.k8s.io/prioritylevelconfigurations": {
        "Type": "spec.type",
        "NominalConcurrencyShares": f"spec.limited.nominalConcurrencyShares|{NONE}",
        "Queues": f"spec.limited.limitResponse.queuing.queues|{NONE}",
        "HandSize": f"spec.limited.limitResponse.queuing.handSize|{NONE}",
        "QueueLengthLimit": f"spec.limited.limitResponse.queuing.queueLengthLimit|{NONE}",
    },
    "networking.k8s.io/ingressclasses": {
        "Name": _default("ingressclass.kubernetes.io/is-default-class"),
        "Controller": "spec.controller",
        "Parameters": _parameters,
    },
    "networking.k8s.io/ingresses": {
        "Class": f"spec.ingressClassName|{NONE}",
        "Hosts": _hosts,
        "Address": _load_balancer,
        "Ports": lambda doc, _now: "80, 443" if value_at(doc, "spec.tls") else "80",
    },
    "networking.k8s.io/ipaddresses": {"ParentRef": _parent},
    "networking.k8s.io/networkpolicies": {"Pod-Selector": cells.selector("spec.podSelector")},
    "networking.k8s.io/servicecidrs": {"CIDRs": _listed("spec.cidrs")},
    "node.k8s.io/runtimeclasses": {"Handler": "handler"},
    "policy/poddisruptionbudgets": {
        "Min Available": lambda doc, _now: str(value_at(doc, "spec.minAvailable", "N/A")),
        "Max Unavailable": lambda doc, _now: str(value_at(doc, "spec.maxUnavailable", "N/A")),
        "Allowed Disruptions": "status.disruptionsAllowed|0",
    },
    "rbac.authorization.k8s.io/clusterrolebindings": _ROLE_BINDING,
    "rbac.authorization.k8s.io/rolebindings": _ROLE_BINDING,
    "resource.k8s.io/resourceclaims": {"State": _claim_state},
    "resource.k8s.io/resourceslices": {"Node": "spec.nodeName", "Driver": "spec.driver", "Pool": "spec.pool.name"},
    "scheduling.k8s.io/priorityclasses": {
        "Value": "value|0",
        "Global-Default": "globalDefault|false",
        "PreemptionPolicy": f"preemptionPolicy|{UNSET}",
    },
    "storage.k8s.io/csidrivers": {
        "AttachRequired": "spec.attachRequired|true",
        "PodInfoOnMount": "spec.podInfoOnMount|false",
        "StorageCapacity": "spec.storageCapacity|false",
        "TokenRequests": _audiences,
        "RequiresRepublish": "spec.requiresRepublish|false",
        "Modes": _listed("spec.volumeLifecycleModes", NONE),
    },
    "storage.k8s.io/csinodes": {"Drivers": "#spec.drivers"},
    "storage.k8s.io/storageclasses": {
        "Name": _default("storageclass.kubernetes.io/is-default-class"),
        "Provisioner": "provisioner",
        "ReclaimPolicy": "reclaimPolicy|Delete",
        "VolumeBindingMode": "volumeBindingMode|Immediate",
        "AllowVolumeExpansion": "allowVolumeExpansion|false",
    },
    "storage.k8s.io/volumeattachments": {
        "Attacher": "spec.attacher",
        "PV": "spec.source.persistentVolumeName",
        "Node": "spec.nodeName",
        "Attached": "status.attached|false",
    },
    "storage.k8s.io/volumeattributesclasses": {"DriverName": "driverName"},
}
"""The cells by ``group/plural`` and the name of the column."""


@functools.cache
def _definitions() -> dict[str, list[JSONObject]]:
    text = resources.files("reconciler.apiserver.builtin").joinpath("columns.json").read_bytes()
    definitions: dict[str, list[JSONObject]] = msgspec.json.decode(text)
    return definitions


@functools.cache
def built_in_columns(group: str, plural: str) -> tuple[Column, ...]:
    """Return the columns of a built-in kind."""
    kind = f"{group}/{plural}"
    forms = _COMMON | _CELLS.get(kind, {})
    return tuple(Column(each, _cell(forms[each["name"]])) for each in _definitions()[kind])
