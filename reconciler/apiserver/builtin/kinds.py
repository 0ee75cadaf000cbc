"""The list of built-in kinds, and the description of any kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["BUILT_IN", "DEPRECATED", "SELECTABLE", "KindInfo"]


@dataclass(frozen=True, slots=True)
class KindInfo:
    """The description of a kind, without its versions.

    Attributes:
        group: the API group; ``""`` is the core group.
        plural: the name in paths.
        kind: the name in documents.
        namespaced: whether objects belong to namespaces.
        singular: the singular name; derived from the kind if empty.
        list_kind: the kind of lists; derived from the kind if empty.
        short_names: the short names that kubectl accepts.
        categories: categories such as ``all``.
        extra_subresources: the subresources other than ``/status``.
        stored_as: the group whose objects these are in another form; None for a separate kind.
        status: whether ``/status`` is served and separate.
        generation: whether ``metadata.generation`` is maintained.
        unconditional: whether a PUT may omit the resourceVersion.
        create_on_update: whether a PUT creates a missing object.
        names: the rule for names: ``subdomain``, ``label``, ``label-1035``, or ``path``, which excludes ``.``, ``..``
            and names with ``/`` or ``%``.
    """

    group: str
    plural: str
    kind: str
    namespaced: bool
    singular: str = ""
    list_kind: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    status: bool = False
    generation: bool = False
    unconditional: bool = True
    create_on_update: bool = False
    names: str = "subdomain"
    extra_subresources: tuple[str, ...] = ()
    stored_as: str | None = None

    @property
    def internal_group(self) -> str:
        """The group of the kind in validation errors."""
        return self.group if self.stored_as is None else self.stored_as

    @property
    def list_name(self) -> str:
        """The kind of lists."""
        return self.list_kind or f"{self.kind}List"

    @property
    def singular_name(self) -> str:
        """The singular name."""
        return self.singular or self.kind.lower()


_Kind = tuple[KindInfo, tuple[str, ...]]
_ALL = ("all",)


def _kind(
    group: str,
    plural: str,
    kind: str,
    *short_names: str,
    cluster: bool = False,
    versions: tuple[str, ...] = ("v1",),
    **options: Any,
) -> _Kind:
    return KindInfo(group, plural, kind, not cluster, short_names=short_names, **options), versions


def _scalable(group: str, plural: str, kind: str, short_name: str) -> _Kind:
    options: dict[str, Any] = {"categories": _ALL, "status": True, "generation": True, "extra_subresources": ("scale",)}
    return _kind(group, plural, kind, short_name, **options)


def _admission(plural: str, kind: str, **options: Any) -> _Kind:
    group = "admissionregistration.k8s.io"
    return _kind(group, plural, kind, cluster=True, categories=("api-extensions",), generation=True, **options)


BUILT_IN: tuple[_Kind, ...] = (
    _kind("", "namespaces", "Namespace", "ns", cluster=True, status=True, names="label"),
    _kind("", "configmaps", "ConfigMap", "cm"),
    _kind("", "secrets", "Secret"),
    _kind("", "events", "Event", "ev", create_on_update=True),
    _kind("events.k8s.io", "events", "Event", "ev", create_on_update=True, stored_as=""),
    _kind("", "serviceaccounts", "ServiceAccount", "sa"),
    _kind("", "services", "Service", "svc", categories=_ALL, status=True, names="label"),
    _kind("", "endpoints", "Endpoints", "ep", create_on_update=True),
    _kind(
        "",
        "pods",
        "Pod",
        "po",
        categories=_ALL,
        status=True,
        generation=True,
        extra_subresources=("binding", "eviction"),
    ),
    _kind("", "podtemplates", "PodTemplate", generation=True),
    _kind("", "nodes", "Node", "no", cluster=True, status=True),
    _kind("", "persistentvolumes", "PersistentVolume", "pv", cluster=True, status=True),
    _kind("", "persistentvolumeclaims", "PersistentVolumeClaim", "pvc", status=True),
    _kind("", "limitranges", "LimitRange", "limits", create_on_update=True),
    _kind("", "resourcequotas", "ResourceQuota", "quota", status=True),
    _scalable("", "replicationcontrollers", "ReplicationController", "rc"),
    _scalable("apps", "deployments", "Deployment", "deploy"),
    _scalable("apps", "replicasets", "ReplicaSet", "rs"),
    _scalable("apps", "statefulsets", "StatefulSet", "sts"),
    _kind("apps", "daemonsets", "DaemonSet", "ds", categories=_ALL, status=True, generation=True),
    _kind("batch", "jobs", "Job", categories=_ALL, status=True, generation=True),
    _kind("batch", "cronjobs", "CronJob", "cj", categories=_ALL, status=True, generation=True),
    _kind("coordination.k8s.io", "leases", "Lease", create_on_update=True, unconditional=False),
    _kind("discovery.k8s.io", "endpointslices", "EndpointSlice", create_on_update=True, generation=True),
    _kind("networking.k8s.io", "ingresses", "Ingress", "ing", status=True, generation=True),
    _kind("networking.k8s.io", "ingressclasses", "IngressClass", cluster=True, generation=True),
    _kind("networking.k8s.io", "networkpolicies", "NetworkPolicy", "netpol", generation=True),
    _kind("policy", "poddisruptionbudgets", "PodDisruptionBudget", "pdb", status=True, generation=True),
    _kind(
        "autoscaling",
        "horizontalpodautoscalers",
        "HorizontalPodAutoscaler",
        "hpa",
        categories=_ALL,
        status=True,
        versions=("v2", "v1"),
    ),
    _kind("rbac.authorization.k8s.io", "roles", "Role", names="path"),
    _kind("rbac.authorization.k8s.io", "rolebindings", "RoleBinding", names="path"),
    _kind("rbac.authorization.k8s.io", "clusterroles", "ClusterRole", cluster=True, names="path"),
    _kind("rbac.authorization.k8s.io", "clusterrolebindings", "ClusterRoleBinding", cluster=True, names="path"),
    _kind("storage.k8s.io", "storageclasses", "StorageClass", "sc", cluster=True),
    _kind("scheduling.k8s.io", "priorityclasses", "PriorityClass", "pc", cluster=True, generation=True),
    _admission("mutatingwebhookconfigurations", "MutatingWebhookConfiguration"),
    _admission("validatingadmissionpolicies", "ValidatingAdmissionPolicy", status=True),
    _admission("validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding"),
    _admission("validatingwebhookconfigurations", "ValidatingWebhookConfiguration"),
    _kind(
        "apiextensions.k8s.io",
        "customresourcedefinitions",
        "CustomResourceDefinition",
        "crd",
        "crds",
        cluster=True,
        categories=("api-extensions",),
        status=True,
        generation=True,
        unconditional=False,
    ),
)
"""Each built-in kind with its served versions, the preferred one first."""

DEPRECATED = {("", "endpoints"): "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"}
"""The warnings for using a kind."""

SELECTABLE: dict[tuple[str, str], tuple[str, ...]] = {
    ("", "pods"): (
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    ),
    ("", "events"): (
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ),
    ("", "secrets"): ("type",),
    ("", "nodes"): ("spec.unschedulable",),
    ("", "namespaces"): ("status.phase",),
    ("", "services"): ("spec.clusterIP", "spec.type"),
    ("", "replicationcontrollers"): ("status.replicas",),
    ("batch", "jobs"): ("status.successful",),
}
"""The fields that field selectors accept, besides name and namespace."""
