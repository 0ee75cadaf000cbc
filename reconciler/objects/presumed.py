"""Say how a kind is most likely served, for who cannot ask a server."""

from __future__ import annotations

from reconciler.meta import ResourceType
from reconciler.objects.convert import KindLike, gvk_from, resource_type_from
from reconciler.objects.declaration import plural_of

__all__ = ["is_built_in", "presumed_resource_type"]

_IRREGULAR = {("", "Endpoints"): "endpoints"}

_CLUSTER_SCOPED = {
    "": ("ComponentStatus", "Namespace", "Node", "PersistentVolume"),
    "admissionregistration.k8s.io": (
        "MutatingAdmissionPolicy",
        "MutatingAdmissionPolicyBinding",
        "MutatingWebhookConfiguration",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
        "ValidatingWebhookConfiguration",
    ),
    "apiextensions.k8s.io": ("CustomResourceDefinition",),
    "apiregistration.k8s.io": ("APIService",),
    "authentication.k8s.io": ("SelfSubjectReview", "TokenReview"),
    "authorization.k8s.io": ("SelfSubjectAccessReview", "SelfSubjectRulesReview", "SubjectAccessReview"),
    "certificates.k8s.io": ("CertificateSigningRequest", "ClusterTrustBundle"),
    "flowcontrol.apiserver.k8s.io": ("FlowSchema", "PriorityLevelConfiguration"),
    "internal.apiserver.k8s.io": ("StorageVersion",),
    "networking.k8s.io": ("IPAddress", "IngressClass", "ServiceCIDR"),
    "node.k8s.io": ("RuntimeClass",),
    "rbac.authorization.k8s.io": ("ClusterRole", "ClusterRoleBinding"),
    "resource.k8s.io": ("DeviceClass", "DeviceTaintRule", "ResourceSlice"),
    "scheduling.k8s.io": ("PriorityClass",),
    "storage.k8s.io": ("CSIDriver", "CSINode", "StorageClass", "VolumeAttachment", "VolumeAttributesClass"),
    "storagemigration.k8s.io": ("StorageVersionMigration",),
}
"""Kinds of Kubernetes 1.36 whose objects have no namespace; a test compares them with what a real server tells."""

_BUILT_IN_GROUPS = frozenset(_CLUSTER_SCOPED) | {
    "apps",
    "autoscaling",
    "batch",
    "coordination.k8s.io",
    "discovery.k8s.io",
    "events.k8s.io",
    "policy",
}


def presumed_resource_type(kind: KindLike) -> ResourceType:
    """Return how a kind is served: by its class, else by the rules that Kubernetes names its own kinds by.

    A kind of somebody else's that is named by text is taken to live in namespaces, and to have the regular plural.

    Raises:
        ValueError: the text names no kind.
        TypeError: it names no kind.
    """
    declared = resource_type_from(kind)
    if declared is not None:
        return declared
    gvk = gvk_from(kind)
    plural = _IRREGULAR.get((gvk.group, gvk.kind)) or plural_of(gvk.kind)
    return ResourceType(gvk, plural, gvk.kind not in _CLUSTER_SCOPED.get(gvk.group, ()))


def is_built_in(group: str) -> bool:
    """Say whether an API group is one of Kubernetes' own, whose kinds `presumed_resource_type` knows."""
    return group in _BUILT_IN_GROUPS
