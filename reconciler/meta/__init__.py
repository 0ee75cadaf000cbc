"""Kubernetes objects as plain JSON: dicts, lists and scalars. No I/O, no clock.

Kinds and references, metadata, conditions, owner references, finalizers, paths, RFC 7386 merge patches, comparison by
meaning, and the interface through which lower layers report to the current reconcile.
"""

from reconciler.meta.documents import PathError, equal
from reconciler.meta.metadata import (
    AlreadyOwned,
    GroupVersionKind,
    Request,
    condition_is_true,
    find_condition,
    owner_reference,
    request_of,
    set_condition,
    set_controller_reference,
)

__all__ = [
    "AlreadyOwned",
    "GroupVersionKind",
    "PathError",
    "Request",
    "condition_is_true",
    "equal",
    "find_condition",
    "owner_reference",
    "request_of",
    "set_condition",
    "set_controller_reference",
]
