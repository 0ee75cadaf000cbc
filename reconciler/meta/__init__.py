"""Kubernetes objects as plain JSON: dicts, lists and scalars. No I/O, no clock.

Kinds and references, metadata, conditions, owner references, finalizers, paths, RFC 7386 merge patches, comparison by
meaning, and the interface through which lower layers report to the current reconcile.
"""

from reconciler.meta.conditions import condition_is_true, find_condition, has_condition, remove_condition, set_condition
from reconciler.meta.documents import PathError, equal, identical
from reconciler.meta.metadata import AlreadyOwned, controller_of, owner_reference, request_of, set_controller_reference
from reconciler.meta.reference import GroupVersionKind, Request, ResourceType
from reconciler.meta.scalars import Version, is_newer, is_older

__all__ = [
    "AlreadyOwned",
    "GroupVersionKind",
    "PathError",
    "Request",
    "ResourceType",
    "Version",
    "condition_is_true",
    "controller_of",
    "equal",
    "find_condition",
    "has_condition",
    "identical",
    "is_newer",
    "is_older",
    "owner_reference",
    "remove_condition",
    "request_of",
    "set_condition",
    "set_controller_reference",
]
