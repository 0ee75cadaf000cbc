"""Kinds as callers name them, and how they are most likely served if no server can be asked."""

from __future__ import annotations

import functools
from typing import Any, TypeVar, get_args, get_origin

from typing_extensions import TypeIs, get_original_bases

from reconciler.errors import ConfigurationError
from reconciler.meta import GroupVersionKind, ResourceType
from reconciler.objects.builtin import TypedObject, class_gvk, is_built_in_class
from reconciler.objects.declaration import plural_of
from reconciler.objects.resource import AnyResource, Resource
from reconciler.objects.unstructured import Unstructured

__all__ = [
    "KindLike",
    "gvk_from",
    "is_built_in",
    "is_kind_class",
    "kind_argument",
    "presumed_resource_type",
    "resource_type_from",
]


KindLike = str | GroupVersionKind | type[TypedObject]
"""A kind: ``"apps/v1/Deployment"``, a GroupVersionKind, a subclass of Resource, a class of ``lightkube.resources``."""


_parse = functools.lru_cache(maxsize=1024)(GroupVersionKind.parse)  # a program has few kinds, and every verb asks


def gvk_from(kind: KindLike) -> GroupVersionKind:
    """Return the group, version and kind.

    Raises:
        ValueError: the string is not a valid kind.
        TypeError: the argument has another type, or is the bare class Resource.
    """
    if is_kind_class(kind):
        return kind.gvk
    if is_built_in_class(kind):
        return class_gvk(kind)
    if isinstance(kind, str):
        return _parse(kind)
    if isinstance(kind, GroupVersionKind):
        return kind
    raise TypeError(
        f"{kind!r} is not a valid kind: pass 'group/version/Kind', a GroupVersionKind, a subclass of Resource, "
        "or a class of lightkube.resources (those of lightkube.models are only parts)"
    )


def resource_type_from(kind: KindLike) -> ResourceType | None:
    """Return how a kind is served if its class defines it; None if discovery is needed."""
    return kind.resource_type if is_kind_class(kind) else None


def is_kind_class(kind: object) -> TypeIs[type[AnyResource]]:
    """Return whether a kind is given as a class."""
    return isinstance(kind, type) and issubclass(kind, Resource) and kind is not Resource


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
"""The cluster-scoped kinds of Kubernetes 1.36; a test compares them with a real server."""

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
    """Return how a kind is served: as its class defines it, else by the naming rules of Kubernetes' own kinds.

    A kind given as text that is not built in is assumed to be namespaced and to have a regular plural.

    Raises:
        ValueError: the string is not a valid kind.
        TypeError: the argument is not a kind.
    """
    declared = resource_type_from(kind)
    if declared is not None:
        return declared
    gvk = gvk_from(kind)
    plural = _IRREGULAR.get((gvk.group, gvk.kind)) or plural_of(gvk.kind)
    return ResourceType(gvk, plural, gvk.kind not in _CLUSTER_SCOPED.get(gvk.group, ()))


def is_built_in(group: str) -> bool:
    """Return whether an API group is one of Kubernetes' own, whose kinds `presumed_resource_type` knows."""
    return group in _BUILT_IN_GROUPS


def kind_argument(cls: type, generic: type) -> KindLike | None:
    """Return the kind in the brackets of a generic base class, as in ``ResourceReconciler[Database]``.

    None if the brackets name no kind.

    Args:
        cls: the class; it may derive from the generic class indirectly.
        generic: the base class that takes a kind.

    Raises:
        ConfigurationError: the type argument is not a kind.
    """
    for base in get_original_bases(cls):
        origin = get_origin(base)
        if not (isinstance(origin, type) and issubclass(origin, generic)):
            continue
        for argument in get_args(base):
            if is_kind_class(argument) or is_built_in_class(argument):
                return argument
        argument = get_args(base)[0]
        if isinstance(argument, TypeVar) or argument in (Any, Unstructured):
            return None
        raise ConfigurationError(
            f"{cls.__name__}: {generic.__name__}[{argument!r}] is not a valid kind: use a subclass of Resource, "
            "a class of lightkube.resources, or Unstructured and resource='group/version/Kind'"
        )
    return None
